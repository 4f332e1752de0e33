import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from helpers import Leaky, cubic_field, flip_flop, seeds

import ssntk
from ssntk.dynamics import stability
from ssntk.dynamics.stability import eigenpair, judged_exponents, sorted_eigenvalues
from ssntk.models.clock import Continuous, Steps

TS = jnp.array([-0.3, 0.1, 0.9, 1.0, 2.5])


def scipy_states(model, us, x0):
    """The same trajectories by scipy's DOP853 at 1e-12, an independent solver."""
    field = eqx.filter_jit(lambda t, x, u: model.vector_field(t, x, u))
    return np.stack(
        [
            scipy.integrate.solve_ivp(
                lambda t, x, b=b: np.asarray(field(jnp.asarray(t), jnp.asarray(x), jnp.asarray(us(t)[b]))),
                (TS[0], TS[-1]),
                x0[b],
                method="DOP853",
                t_eval=TS,
                rtol=1e-12,
                atol=1e-13,
            ).y.T
            for b in range(len(x0))
        ]
    )


@pytest.mark.parametrize("integrator", [ssntk.Integrator(), ssntk.Integrator(dt=0.02)], ids=["adaptive", "fixed"])
def test_simulate_agrees_with_scipy(integrator, getkey):
    model = Leaky(getkey())
    samples = np.asarray(jr.normal(getkey(), (2, 5, 2)))
    x0 = np.asarray(jr.normal(getkey(), (2, 5)))
    probe = ssntk.Probe(TS, samples, x0)
    states = ssntk.simulate(model, probe, integrator=integrator)
    assert states.shape == (2, 5, 5)
    expected = scipy_states(model, lambda t: np.stack([[np.interp(t, TS, s[:, i]) for i in range(2)] for s in samples]), x0)
    # rtol 1e-8 of the adaptive steps; the fixed ones are finer.
    np.testing.assert_allclose(states, expected, atol=1e-7)


def test_inputs_constant_callable_and_sampled_agree(getkey):
    model = Leaky(getkey())
    constant = np.array([[0.3, -1.0]])
    x0 = jnp.ones(5)
    runs = [
        ssntk.simulate(model, ssntk.Probe(TS, us, x0))
        for us in (constant, np.repeat(constant[:, None], 5, axis=1), lambda t: jnp.asarray(constant))
    ]
    # Interpolating equal samples rounds.
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-12)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-12)


def test_simulate_is_differentiable_in_the_model(getkey):
    probe = ssntk.Probe(TS, x0=jnp.ones(1))

    @eqx.filter_grad
    def slope(model):
        return ssntk.simulate(model, probe)[0, -1, 0]

    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.asarray(0.7), 1)
    # x(T) = exp(-p T), with T = 2.8.
    np.testing.assert_allclose(slope(model).params, -2.8 * np.exp(-0.7 * 2.8), rtol=1e-7)


@pytest.mark.slow
def test_a_direct_adjoint_is_differentiable_forwards_and_backwards(getkey):
    model = ssntk.CTRNN(4, 1, 1, key=getkey())
    direction = jax.tree.map(jnp.ones_like, model.weight)
    probe, heun = ssntk.Probe([0.0, 1.0, 2.0], jnp.ones((1, 1))), ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)

    def end(weight, adjoint):
        moved = eqx.tree_at(lambda m: m.weight, model, weight)
        return jnp.sum(ssntk.simulate(moved, probe, integrator=heun, adjoint=adjoint)[:, -1] ** 2)

    direct = diffrax.DirectAdjoint()
    pushed = jax.jit(lambda weight, along: jax.jvp(lambda weight: end(weight, direct), (weight,), (along,))[1])
    forwards, backwards = pushed(model.weight, direction), jax.jit(jax.grad(lambda weight: end(weight, None)))(model.weight)
    # The same derivative of the same discrete solve.
    np.testing.assert_allclose(forwards, jnp.vdot(backwards, direction), rtol=1e-10)
    again = jax.jit(jax.grad(lambda weight: end(weight, direct)))(model.weight)
    np.testing.assert_allclose(again, backwards, rtol=1e-10)


def test_solver_failure_raises():
    model = ssntk.VectorField(lambda t, x, u, p: p * x**2, jnp.asarray(1.0), 1)
    probe = ssntk.Probe([0.0, 2.0], x0=[1.0])
    with pytest.raises(ssntk.NumericalError, match="solve of input 0 failed"):
        ssntk.simulate(model, probe)  # x = 1 / (1 - t) blows up at t = 1
    with pytest.raises(ssntk.NumericalError, match="max_steps"):
        ssntk.simulate(model, probe, integrator=ssntk.Integrator(dt=1e-3, max_steps=100))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"ts": [0.0]}, "ts"),
        ({"ts": [0.0, 1.0, 1.0]}, "ts"),
        ({"ts": [0.0, np.nan]}, "ts"),
        ({"ts": [[0.0, 1.0]]}, "ts"),
        ({"us": [1.0]}, "us"),
        ({"us": np.zeros((1, 5, 2))}, "us"),
        ({"us": np.zeros((0, 2))}, "us"),
        ({"x0": np.zeros((1, 2, 3))}, "x0"),
        ({"us": np.zeros((2, 1)), "x0": np.zeros((3, 4))}, "us and x0"),
        ({"mask": np.ones(2)}, "mask"),
        ({"mask": np.ones(3, bool)}, "mask"),
    ],
)
def test_bad_probes_name_the_argument(arguments, name):
    with pytest.raises(ValueError, match=name):
        ssntk.Probe(**{"ts": [0.0, 1.0]} | arguments)


def test_probe_must_fit_the_model():
    model = ssntk.CTRNN(3, 2, 1, key=jr.key(0))
    with pytest.raises(ValueError, match="us must have width 2"):
        ssntk.simulate(model, ssntk.Probe([0.0, 1.0], np.zeros((1, 3))))
    with pytest.raises(ValueError, match="x0 must have width 3"):
        ssntk.simulate(model, ssntk.Probe([0.0, 1.0], x0=np.zeros(4)))
    broken = eqx.tree_at(lambda m: m.bias, model, jnp.full(3, jnp.nan))
    with pytest.raises(ValueError, match="bias must be finite"):
        ssntk.simulate(broken, ssntk.Probe([0.0, 1.0]))


@pytest.mark.parametrize("bad", [{"rtol": -1.0}, {"atol": np.nan}, {"dt": 0.0}, {"max_steps": 0}])
def test_bad_integrators_name_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ssntk.Integrator(**bad)


def test_fixed_steps_land_on_save_times_and_none_is_longer_than_dt():
    grid = np.asarray(ssntk.Integrator(dt=0.4).grid(TS))
    assert np.isin(np.asarray(TS), grid).all()
    assert np.diff(grid).max() <= 0.4 + 1e-12
    counts = np.diff(np.searchsorted(grid, TS))
    assert (counts == counts[0]).all()


@pytest.mark.parametrize("n", [7, 64])
def test_eigenpairs_are_biorthonormal(getkey, n):
    matrix = np.asarray(jr.normal(getkey(), (n, n))) / n**0.5
    for value in sorted_eigenvalues(matrix)[::7]:
        pair = eigenpair(matrix, value)
        np.testing.assert_allclose(matrix @ pair.right, pair.value * pair.right, atol=1e-12)
        np.testing.assert_allclose(pair.left @ matrix, pair.value * pair.left, atol=1e-11)
        np.testing.assert_allclose([np.linalg.norm(pair.right), pair.left @ pair.right], 1.0, atol=1e-13)


@pytest.mark.parametrize("n", [2, 64])
def test_defective_eigenvalue_is_refused(n):
    matrix = np.diag(-np.arange(1.0, n + 1))
    matrix[:2, :2] = [[0.0, 1.0], [0.0, 0.0]]
    with pytest.raises(ssntk.NumericalError, match="defective"):
        eigenpair(matrix, 0.0)


@pytest.mark.parametrize("clock", [Continuous(), Steps(0.5)])
@pytest.mark.parametrize("real", [True, False])
def test_rounding_errors_of_a_few_exponents_are_those_from_all_eigenvectors(monkeypatch, clock, real):
    matrix = np.random.default_rng(1).normal(size=(64, 64)) / 8
    values = sorted_eigenvalues(matrix)
    value = next(value for value in values if (value.imag == 0) == real)
    # A shift that moves one eigenvalue onto the edge of stability, |1 + dt s| = 1 for maps, leaves the eigenvectors.
    edge = 0.0 if real or clock.dt is None else (np.sqrt(1 - (clock.dt * value.imag) ** 2) - 1) / clock.dt
    moved = matrix + (edge - value.real) * np.eye(64)
    found, few = judged_exponents(moved, clock)
    at = int(np.argmin(np.abs(found.real)))
    monkeypatch.setattr(stability, "FEW", -1)
    every = judged_exponents(moved, clock)[1]
    np.testing.assert_allclose(few[at], every[at], rtol=1e-6)
    # Others are not near the edge, and count as well-conditioned.
    assert few.min() < every[at]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_eigenpairs_of_large_matrices_are_those_of_all_eigenvectors(unit):
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(-6, 6, 80)
    turned = rng.normal(size=(80, 80)) / 80**0.5
    matrix = unit * sizes[:, None] * turned / sizes[None]
    values, rights = np.linalg.eig(turned)
    for at in (int(np.argmax(values.real)), int(np.argmin(np.abs(values)))):
        found = eigenpair(matrix, unit * values[at])
        np.testing.assert_allclose(found.value, unit * values[at], rtol=1e-10)
        # Directions agree in the units in which all entries are of order one.
        one, other = found.right / sizes, rights[:, at]
        cosine = abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-10)
        np.testing.assert_allclose(found.left @ found.right, 1.0, rtol=1e-10)


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_all_nine_fixed_points_of_the_trained_network(seed):
    points = ssntk.find_fixed_points(flip_flop(), key=jr.key(seed))
    unstable = (points.eigenvalues.real > 0).sum(axis=1)
    assert unstable.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert points.stable.tolist() == [True] * 4 + [False] * 5
    # |f| at rounding level: a sum of 32 products of order one.
    assert points.residual.max() < 1e-13
    # Each is a zero of the equation written in numpy, and each memory reads out +-1 on both channels.
    w = np.load(helpers_path())
    x = points.x
    np.testing.assert_allclose(w["weight"] @ np.tanh(x.T) + w["bias"][:, None], x.T, atol=1e-12)
    memories = np.tanh(x[:4]) @ w["readout_weight"].T + w["readout_bias"]
    assert {tuple(row) for row in np.sign(memories)} == {(a, b) for a in (-1, 1) for b in (-1, 1)}
    np.testing.assert_allclose(np.abs(memories), 1.0, atol=0.01)  # the training error


def helpers_path():
    from helpers import ROOT

    return ROOT / "sweeps" / "flip_flop32.npz"


def test_fixed_points_of_a_cubic_by_the_closed_form(getkey):
    # Two decoupled pitchforks: nine points, (0, +-sqrt(mu)) each.
    model = ssntk.VectorField(cubic_field, {"W": np.diag([4.0, 0.25]), "b": np.zeros(2)}, 2, 2)
    points = ssntk.find_fixed_points(model, np.zeros(2), key=getkey())
    expected = {(a, b) for a in (-2.0, 0.0, 2.0) for b in (-0.5, 0.0, 0.5)}
    assert {tuple(np.round(x, 9) + 0.0) for x in points.x} == expected
    assert points.stable.sum() == 4


def test_no_fixed_point_is_an_empty_result(getkey):
    points = ssntk.find_fixed_points(ssntk.normal_forms.saddle_node(-1.0), key=getkey())
    assert len(points) == 0
    assert points.x.shape == (0, 1)


def test_find_fixed_points_arguments():
    model = ssntk.CTRNN(3, 2, 1, key=jr.key(0))
    with pytest.raises(ValueError, match=r"u must have shape \(2,\)"):
        ssntk.find_fixed_points(model, np.zeros(3))
    with pytest.raises(ValueError, match="n_starts"):
        ssntk.find_fixed_points(model, n_starts=1)


def test_new_weights_compile_nothing(compilations):
    probe = ssntk.Probe(TS, x0=np.ones(6))

    def both(seed):
        model = ssntk.CTRNN(6, 0, 1, gain=1.8, key=jr.key(seed))
        jax.block_until_ready(ssntk.simulate(model, probe))
        return len(ssntk.find_fixed_points(model).x)

    numbers = [both(0)]
    both(1)
    before = len(compilations)
    numbers += [both(seed) for seed in range(2, 6)]
    assert len(set(numbers)) > 1  # so that another number of points was met
    assert len(compilations) == before


def test_a_training_step_makes_its_probe_inside_jit(compilations):
    model, ts = ssntk.CTRNN(3, 2, 1, key=jr.key(0)), np.linspace(0.0, 2.0, 5)
    fixed = ssntk.Integrator(dt=0.25)

    def loss(model, us):
        return jnp.sum(ssntk.simulate(model, ssntk.Probe(ts, us), integrator=fixed)[:, -1] ** 2)

    step = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    batches = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    value, gradient = step(model, jnp.asarray(batches[0]))
    # The same outside of jit, and central differences along a random direction: 1e-6 squared over rounding.
    np.testing.assert_allclose(value, loss(model, batches[0]), rtol=1e-12)
    direction = jr.normal(jr.key(1), model.weight.shape)
    moved = [eqx.tree_at(lambda m: m.weight, model, model.weight + h * direction) for h in (1e-5, -1e-5)]
    slope = (loss(moved[0], batches[0]) - loss(moved[1], batches[0])) / 2e-5
    np.testing.assert_allclose(jnp.sum(gradient.weight * direction), slope, rtol=1e-6)
    before = len(compilations)
    for batch in batches[1:]:
        step(model, jnp.asarray(batch))
    # The conversion of NumPy arrays to device arrays was compiled before.
    assert len(compilations) == before
    with pytest.raises(ValueError, match=r"probe\.ts must be concrete"):
        jax.jit(lambda ts: ssntk.simulate(model, ssntk.Probe(ts, batches[0]), integrator=fixed))(jnp.asarray(ts))


def test_implicit_solver_works(getkey):
    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.asarray(2.0), 1)
    integrator = ssntk.Integrator(solver=diffrax.Kvaerno5())
    states = ssntk.simulate(model, ssntk.Probe([0.0, 1.0], x0=[1.0]), integrator=integrator)
    np.testing.assert_allclose(states[0, -1, 0], np.exp(-2.0), rtol=1e-7)
