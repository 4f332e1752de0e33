import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from helpers import Leaky, arrays

import ssntk

TS = jnp.array([0.0, 0.4, 0.5, 1.7, 3.0])
FIXED = ssntk.Integrator(dt=0.1)
# Few stages, which compile fast. Each explicit solver has a test below.
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.1)
BOSH = ssntk.Integrator(solver=diffrax.Bosh3(), rtol=1e-6)


def drive(getkey, model, batch=2):
    """A probe with sampled inputs and random starts."""
    us = jr.normal(getkey(), (batch, TS.size, model.n_input))
    return ssntk.Probe(TS, us, jr.normal(getkey(), (batch, model.n_state)))


def plain_jacrev(model, probe, integrator, of="state"):
    """jacrev through a diffeqsolve that is written here, fixed steps, flattened over the model's trained leaves in order."""
    grid = integrator.grid(probe.ts)

    def states(trained, us, x0):
        moved = eqx.combine(trained, model)
        line = diffrax.LinearInterpolation(probe.ts, us)
        term = diffrax.ODETerm(lambda t, x, args: moved.vector_field(t, x, line.evaluate(t)))
        solution = diffrax.diffeqsolve(
            term,
            integrator.solver,
            probe.ts[0],
            probe.ts[-1],
            None,
            x0,
            saveat=diffrax.SaveAt(ts=probe.ts),
            stepsize_controller=diffrax.StepTo(grid),
        )
        return jax.vmap(moved.readout)(solution.ys) if of == "readout" else solution.ys

    trained = arrays(model) if isinstance(model, Leaky) else _marked(model, of)
    rows, compiled = [], jax.jit(jax.jacrev(states))
    for us, x0 in zip(probe.us, probe.x0, strict=True):
        tree = compiled(trained, us, x0)
        rows.append(jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(tree)], axis=2))
    return jnp.stack(rows)


def _marked(model, of):
    """The trained leaves of a CTRNN, everything else None."""
    names = ["weight", "input_weight", "bias"] + (["readout_weight", "readout_bias"] if of == "readout" else [])
    nothing = jax.tree.map(lambda _: None, model)
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names],
        nothing,
        [getattr(model, name) for name in names],
        is_leaf=lambda leaf: leaf is None,
    )


def relative(a, b):
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


# Differentiating through diffeqsolve takes long to compile: test a user's model always, others if slow.
PAIRS = [
    ("user", "readout"),
    *(
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in (("current", "state"), ("current", "readout"), ("rate", "state"), ("rate", "readout"), ("user", "state"))
    ),
]


@pytest.mark.parametrize(("kind", "of"), PAIRS)
def test_fixed_steps_equal_jacrev_through_diffeqsolve(kind, of, getkey):
    model = Leaky(getkey()) if kind == "user" else ssntk.CTRNN(5, 2, 3, gain=1.5, form=kind, tau=1.3, key=getkey())
    probe = drive(getkey, model)
    got = ssntk.parameter_jacobian(model, probe, of=of, integrator=HEUN)
    expected = plain_jacrev(model, probe, HEUN, of)
    assert got.shape == expected.shape
    # The same arithmetic in another order: some hundred roundings of 1e-16.
    assert relative(got, expected) < 1e-12


@pytest.mark.parametrize("of", [pytest.param("state", marks=pytest.mark.slow), "readout"])
@pytest.mark.parametrize(
    "integrator",
    [
        pytest.param(FIXED, marks=pytest.mark.slow, id="fixed"),
        pytest.param(BOSH, id="adaptive"),
        pytest.param(ssntk.Integrator(rtol=1e-6), marks=pytest.mark.slow, id="default solver"),
    ],
)
def test_segments_equal_autodiff_on_the_same_steps(integrator, of, getkey):
    model = Leaky(getkey())
    probe = drive(getkey, model)
    got, reference = (
        ssntk.parameter_jacobian(model, probe, of=of, integrator=integrator, method=method)
        for method in ("segments", "autodiff")
    )
    assert relative(got, reference) < 1e-12


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Dopri8(),
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in (diffrax.Euler(), diffrax.Heun(), diffrax.Bosh3(), diffrax.Tsit5())
        ),
    ],
)
def test_every_explicit_solver_is_replayed_exactly(solver, getkey):
    model = ssntk.CTRNN(5, 2, 3, gain=1.5, key=getkey())
    probe, integrator = drive(getkey, model, 1), ssntk.Integrator(solver=solver, dt=0.1)
    got = ssntk.parameter_jacobian(model, probe, integrator=integrator)
    assert relative(got, plain_jacrev(model, probe, integrator)) < 1e-12


@pytest.mark.slow
def test_implicit_solver_falls_back_to_autodiff(getkey):
    model = ssntk.CTRNN(3, 2, 1, key=getkey())
    probe, implicit = drive(getkey, model, 1), ssntk.Integrator(solver=diffrax.Kvaerno3(), rtol=1e-9, atol=1e-11)
    got = ssntk.parameter_jacobian(model, probe, integrator=implicit)
    # Two solvers with tolerances of 1e-9 and 1e-8 a step.
    assert relative(got, ssntk.parameter_jacobian(model, probe)) < 1e-6
    with pytest.raises(ValueError, match="explicit"):
        ssntk.parameter_jacobian(model, probe, integrator=implicit, method="segments")


def linear_field(t, x, u, params):
    return params["A"] @ x + params["b"]


def linear_sensitivity(a, b, x0, t):
    """d x(t) / d (A, b) of dx/dt = A x + b by block matrix exponentials (Van Loan, 1978): (n, n * n + n)."""
    n = len(b)
    augmented = np.block([[a, b[:, None]], [np.zeros((1, n + 1))]])
    start = np.append(x0, 1.0)
    columns = []
    for i, j in [*((i, j) for i in range(n) for j in range(n)), *((i, n) for i in range(n))]:
        forcing = np.zeros((n, n + 1))
        forcing[i, j] = 1.0
        block = np.block([[a, forcing], [np.zeros((n + 1, n)), augmented]])
        columns.append((scipy.linalg.expm(block * t)[:n, n:]) @ start)
    return np.stack(columns, axis=1)


LOWER = [pytest.param(diffrax.Bosh3(), 3, marks=pytest.mark.slow), pytest.param(diffrax.Heun(), 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("solver", "order"), [(diffrax.Tsit5(), 5), *LOWER])
def test_linear_system_matches_van_loan_with_the_order_of_the_solver(solver, order, getkey):
    a = np.asarray(jr.normal(getkey(), (3, 3)))
    b, x0 = (np.asarray(jr.normal(getkey(), (3,))) for _ in range(2))
    model = ssntk.VectorField(linear_field, {"A": a, "b": b}, 3)
    probe = ssntk.Probe([0.0, 1.0, 2.0], x0=x0)
    expected = linear_sensitivity(a, b, x0, 2.0)
    errors = []
    for dt in (1 / 32, 1 / 64):
        got = ssntk.parameter_jacobian(model, probe, integrator=ssntk.Integrator(solver=solver, dt=dt))[0, -1]
        errors.append(np.abs(got - expected).max())
    # The next order of these steps is a few per cent: 0.2 in the exponent.
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2
    adaptive = ssntk.parameter_jacobian(model, probe)[0, -1]
    # Tolerance 1e-8 a step.
    assert np.abs(adaptive - expected).max() < 1e-6 * np.abs(expected).max()


def test_adaptive_steps_resolve_the_sensitivity_at_a_fixed_point():
    # The state does not move, so that its error allows any step. The error of the kernel does not.
    a = np.diag([-1.0, -30.0])
    model = ssntk.VectorField(linear_field, {"A": a, "b": np.zeros(2)}, 2)
    probe = ssntk.Probe([0.0, 10.0], x0=np.zeros(2))
    got = ssntk.parameter_jacobian(model, probe, wrt=lambda m: m.params["b"])[0, -1]
    expected = np.diag((np.exp(10.0 * np.diag(a)) - 1) / np.diag(a))
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_second_order_taylor_remainder(getkey):
    model = Leaky(getkey())
    probe = drive(getkey, model, 1)
    at = arrays(model)
    leaves, treedef = jax.tree.flatten(at)
    step = [jr.normal(getkey(), leaf.shape) for leaf in leaves]
    flat = jnp.concatenate([leaf.ravel() for leaf in step])
    jacobian = ssntk.parameter_jacobian(model, probe, integrator=HEUN)

    def moved(size):
        shifted = jax.tree.unflatten(treedef, [leaf + size * s for leaf, s in zip(leaves, step, strict=True)])
        return ssntk.simulate(eqx.combine(shifted, model), probe, integrator=HEUN)

    base = moved(0.0)
    remainders = [float(jnp.linalg.norm(moved(h) - base - h * jacobian @ flat)) for h in (1e-2, 5e-3, 2.5e-3)]
    # A remainder of second order falls by four when the step is halved.
    ratios = np.array(remainders[:-1]) / np.array(remainders[1:])
    np.testing.assert_allclose(ratios, 4.0, rtol=0.1)


def test_wrt_selects_and_orders_columns(getkey):
    model = ssntk.CTRNN(4, 2, 1, key=getkey())
    probe = drive(getkey, model, 1)
    whole = ssntk.parameter_jacobian(model, probe, integrator=HEUN)
    swapped = ssntk.parameter_jacobian(model, probe, wrt=lambda m: (m.bias, m.weight), integrator=HEUN)
    np.testing.assert_allclose(swapped[..., :4], whole[..., 24:], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(swapped[..., 4:], whole[..., :16], rtol=1e-12, atol=1e-14)
    gain = ssntk.parameter_jacobian(model, probe, wrt=lambda m: m.gain, integrator=HEUN)
    # gain W enters as a product: gain d/dgain = sum W d/dW.
    np.testing.assert_allclose(gain[..., 0], whole[..., :16] @ model.weight.ravel(), rtol=1e-10, atol=1e-12)


def test_unreached_leaf_keeps_its_columns_zero():
    model = ssntk.CTRNN.from_weights(np.eye(2), readout_weight=np.ones((1, 2)))
    probe = ssntk.Probe([0.0, 1.0], x0=np.ones(2))
    rows = ssntk.parameter_jacobian(model, probe, wrt=lambda m: (m.readout_weight, m.bias))
    assert rows.shape == (1, 2, 2, 4)
    assert not rows[..., :2].any()
    assert rows[0, 1, :, 2:].any()


def test_initial_rows_are_zero_and_mask_zeroes_rows(getkey):
    model = ssntk.CTRNN(4, 2, 1, key=getkey())
    probe = drive(getkey, model)
    rows = ssntk.parameter_jacobian(model, probe, integrator=HEUN)
    assert not rows[:, 0].any()
    mask = np.ones((2, TS.size, 4), bool)
    mask[1, 2, 3] = False
    masked = ssntk.parameter_jacobian(model, ssntk.Probe(TS, probe.us, probe.x0, mask=mask), integrator=HEUN)
    np.testing.assert_array_equal(masked, np.where(mask[..., None], rows, 0))


def test_a_batch_is_its_inputs_one_by_one(getkey):
    model = Leaky(getkey())
    probe = drive(getkey, model, 3)
    together = ssntk.parameter_jacobian(model, probe, integrator=BOSH)
    for b in range(3):
        alone = ssntk.parameter_jacobian(model, ssntk.Probe(TS, probe.us[b : b + 1], probe.x0[b]), integrator=BOSH)
        np.testing.assert_allclose(alone[0], together[b], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"of": "output"}, "of must be"),
        ({"method": "fast"}, "method must be"),
        ({"wrt": lambda m: m.weights}, "wrt does not fit"),
        ({"wrt": lambda m: m.weight * 2}, "wrt must return"),
        ({"wrt": lambda m: (m.bias, m.bias)}, "wrt names the same array twice"),
        ({"wrt": lambda m: ()}, "wrt selects no array"),
    ],
)
def test_bad_arguments(arguments, match):
    model = ssntk.CTRNN(2, 0, 1, key=jr.key(0))
    with pytest.raises(ValueError, match=match):
        ssntk.parameter_jacobian(model, ssntk.Probe([0.0, 1.0]), **arguments)


def test_new_weights_and_another_number_of_adaptive_steps_compile_nothing(compilations):
    probe = ssntk.Probe(np.linspace(0.0, 5.0, 6), x0=np.ones(4))
    for gain in (0.5, 1.0):
        ssntk.ntk_spectrum(ssntk.CTRNN(4, 0, 1, gain=gain, key=jr.key(0)), probe, weights="trapezoid")
    before = len(compilations)
    for seed in range(1, 4):
        ssntk.ntk_spectrum(ssntk.CTRNN(4, 0, 1, gain=4.0 * seed, key=jr.key(seed)), probe, weights="trapezoid")
    assert len(compilations) == before
