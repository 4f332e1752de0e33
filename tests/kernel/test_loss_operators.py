"""Loss operators, preconditioners, blocks, the dual and the initial state, against numpy and closed forms."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.linalg
from helpers import Leaky

import ssntk

# Few stages, which compile fast.
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)
FINE = ssntk.Integrator(rtol=1e-10, atol=1e-12)


def linear(t, x, u, p):
    return p["A"] @ x + p["b"]


@pytest.fixture(scope="module")
def stable():
    """dx/dt = A x + b, whose sensitivity to b is A^-1 (exp(A t) - 1)."""
    a = np.array([[-1.0, 2.0, 0.0], [-2.0, -1.0, 0.5], [0.3, 0.0, -0.5]])
    model = ssntk.VectorField(linear, {"A": a, "b": np.ones(3)}, 3)
    return model, a, np.linspace(0.0, 4.0, 9)


def by_bias(a, ts):
    return np.stack([np.linalg.solve(a, scipy.linalg.expm(a * t) - np.eye(3)) for t in ts])


def test_time_derivative_is_exact(stable):
    model, a, ts = stable
    probe, lens = ssntk.Probe(ts), lambda m: m.params["b"]
    # d/dt A^-1 (exp(A t) - 1) = exp(A t), at the first time too.
    rates = np.concatenate([scipy.linalg.expm(a * t) for t in ts])
    got = ssntk.ntk(model, probe, wrt=lens, loss_operator=ssntk.TimeDerivative(), integrator=FINE)
    # The solver's tolerance.
    np.testing.assert_allclose(got, rates @ rates.T, atol=1e-8)


def test_the_rate_of_a_readout_by_finite_differences():
    model = Leaky(jr.key(1))
    step, middle = 1e-4, 1.0
    us = np.random.default_rng(0).normal(size=(1, 2))
    x0 = np.random.default_rng(1).normal(size=5)
    around = ssntk.Probe([0.0, middle - step, middle, middle + step], us, x0)
    rows = np.asarray(ssntk.parameter_jacobian(model, around, of="readout", integrator=FINE))[0]
    central = (rows[3] - rows[1]) / (2 * step)
    kernel = ssntk.ntk(model, around, of="readout", loss_operator=ssntk.TimeDerivative(), integrator=FINE)
    block = np.asarray(kernel)[6:9, 6:9]
    # Central differences at 1e-4: 1e-8, and the solver's 1e-10 over the step.
    np.testing.assert_allclose(block, central @ central.T, rtol=1e-4)


def test_the_residual_of_the_equation_is_its_forcing(stable):
    model, _, ts = stable
    probe = ssntk.Probe(ts, x0=[1.0, -1.0, 0.5])
    got = ssntk.ntk(model, probe, loss_operator=ssntk.Residual(), integrator=FINE)
    states = np.asarray(ssntk.simulate(model, probe, integrator=FINE))[0]
    # F = df/d(A, b): row i holds x at row i of A, and one at b_i.
    rows = np.concatenate([np.concatenate([np.kron(np.eye(3), x), np.eye(3)], axis=1) for x in states])
    np.testing.assert_allclose(got, rows @ rows.T, atol=1e-7)
    with pytest.raises(ValueError, match="Residual"):
        ssntk.ntk(model, probe, of="readout", loss_operator=ssntk.Residual())


@pytest.mark.parametrize("s", [-1.0, 0.5, 2.0])
def test_sobolev_weighs_each_frequency_by_its_symbol(s):
    ts = np.linspace(0.0, 3.0, 13)
    matrix = np.asarray(ssntk.Sobolev(s).matrix(ts))
    for order in range(13):
        frequency = np.pi * order / 3.0
        cosine = np.cos(frequency * ts)
        np.testing.assert_allclose(matrix @ cosine, (1 + frequency**2) ** (s / 2) * cosine, atol=1e-9 * (1 + frequency**2))
    # Symmetric in the trapezoid rule.
    weight = np.sqrt(np.append(np.append(0.5, np.ones(11)), 0.5))
    symmetric = weight[:, None] * matrix / weight
    np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-10 * np.abs(symmetric).max())
    np.testing.assert_allclose(ssntk.Sobolev(0.0).matrix(ts), np.eye(13), atol=1e-12)


def test_a_sobolev_kernel(stable):
    model, a, ts = stable
    got = ssntk.ntk(model, ssntk.Probe(ts), wrt=lambda m: m.params["b"], loss_operator=ssntk.Sobolev(1.0), integrator=FINE)
    rows = np.einsum("st,tij->sij", np.asarray(ssntk.Sobolev(1.0).matrix(ts)), by_bias(a, ts)).reshape(-1, 3)
    np.testing.assert_allclose(got, rows @ rows.T, atol=1e-7)
    with pytest.raises(ValueError, match="uniformly spaced"):
        ssntk.ntk(model, ssntk.Probe([0.0, 1.0, 3.0]), loss_operator=ssntk.Sobolev(1.0))
    with pytest.raises(ValueError, match="mask"):
        ssntk.ntk(model, ssntk.Probe(ts, mask=ts < 2), loss_operator=ssntk.Sobolev(1.0))
    with pytest.raises(ValueError, match="loss_operator"):
        ssntk.ntk(model, ssntk.Probe(ts), loss_operator="derivative")
    with pytest.raises(ValueError, match="s must be"):
        ssntk.Sobolev(np.nan)


@pytest.fixture(scope="module")
def task():
    model = ssntk.CTRNN(4, 2, 3, gain=1.3, key=jr.key(0))
    return model, ssntk.Probe([0.0, 0.75, 2.0], np.ones((2, 2)), np.random.default_rng(0).normal(size=(2, 4)))


def test_a_preconditioner_divides_the_columns(task):
    model, probe = task
    rows = np.asarray(ssntk.parameter_jacobian(model, probe, integrator=HEUN)).reshape(24, -1)
    diagonal = np.linspace(0.5, 4.0, rows.shape[1])
    got = ssntk.ntk(model, probe, preconditioner=diagonal, integrator=HEUN)
    np.testing.assert_allclose(got, rows @ np.diag(1 / diagonal) @ rows.T, atol=1e-12)
    for bad in (diagonal[:-1], -diagonal, np.full_like(diagonal, np.nan), "adam"):
        with pytest.raises(ValueError, match="preconditioner"):
            ssntk.ntk(model, probe, preconditioner=bad)


def test_an_adam_state_is_its_next_step(task):
    model, probe = task
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1.0))
    whole = eqx.filter(model, eqx.is_inexact_array)
    gradients = [jax.tree.map(lambda leaf, s=s: jr.normal(jr.key(s), leaf.shape), whole) for s in range(3)]
    state = optimiser.init(whole)
    with pytest.raises(ValueError, match="at least one step"):
        ssntk.ntk(model, probe, preconditioner=state)
    # optax counts steps in integers that it multiplies.
    with jax.numpy_dtype_promotion("standard"):
        for gradient in gradients:
            _, state = optimiser.update(gradient, state, whole)
    # v in numpy, of the clipped gradients, for (weight, input_weight, bias).
    moment = 0.0
    for gradient in gradients:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in leaves))
        theta = np.concatenate([np.asarray(getattr(gradient, name)).ravel() for name in ("weight", "input_weight", "bias")])
        moment = 0.999 * moment + 0.001 * (theta * min(1.0, 1.0 / norm)) ** 2
    diagonal = np.sqrt(moment / (1 - 0.999**3)) + 1e-8
    rows = np.asarray(ssntk.parameter_jacobian(model, probe, integrator=HEUN)).reshape(24, -1)
    np.testing.assert_allclose(
        ssntk.ntk(model, probe, preconditioner=state, integrator=HEUN), (rows / diagonal) @ rows.T, rtol=1e-8, atol=1e-9
    )
    # A state over theta alone is the same.
    alone = optax.adam(1.0)
    trained = model.trainable("state")
    with jax.numpy_dtype_promotion("standard"):
        _, state = alone.update(jax.tree.map(jnp.ones_like, trained), alone.init(trained), trained)
    np.testing.assert_allclose(
        ssntk.ntk(model, probe, preconditioner=state, integrator=HEUN), rows @ rows.T / (1 + 1e-8), rtol=1e-9, atol=1e-12
    )
    with pytest.raises(ValueError, match="preconditioner"):
        ssntk.ntk(model, probe, preconditioner=state, wrt=lambda m: m.bias)


def test_blocks_add_up_to_the_whole_and_the_dual_has_its_spectrum(task):
    model, probe = task
    asked = {"weights": "trapezoid", "of": "readout", "integrator": HEUN}
    whole = np.asarray(ssntk.ntk(model, probe, **asked))
    names = ["weight", "input_weight", "bias", "readout_weight", "readout_bias"]
    parts = ssntk.ntk_blocks(model, probe, names, **asked)
    assert list(parts) == names
    np.testing.assert_allclose(sum(parts.values()), whole, atol=1e-12)
    alone = ssntk.ntk(model, probe, wrt=lambda m: m.bias, **asked)
    np.testing.assert_allclose(parts["bias"], alone, atol=1e-12)
    dual = np.linalg.eigvalsh(np.asarray(ssntk.fisher(model, probe, **asked)))[::-1]
    np.testing.assert_allclose(dual[:18], np.linalg.eigvalsh(whole)[::-1], atol=1e-11)
    assert np.abs(dual[18:]).max() < 1e-11


def test_the_initial_state(stable):
    model, a, ts = stable
    rows = ssntk.initial_state_jacobian(model, ssntk.Probe(ts, x0=np.ones((2, 3))), integrator=FINE)
    assert rows.shape == (2, 9, 3, 3)
    for k, t in enumerate(ts):
        np.testing.assert_allclose(rows[1, k], scipy.linalg.expm(a * t), atol=1e-8)
    # At rest no step has an error, but the sensitivity decays.
    resting = ssntk.initial_state_jacobian(model, ssntk.Probe(ts, x0=np.zeros((1, 3))))
    np.testing.assert_allclose(resting[0, -1], scipy.linalg.expm(a * ts[-1]), atol=1e-7)
    network = ssntk.CTRNN(4, 0, 2, key=jr.key(0))
    rows = ssntk.initial_state_jacobian(network, ssntk.Probe([0.0, 1.0]), of="readout")
    np.testing.assert_allclose(rows[0, 0], network.readout_weight, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_initial_state_of_a_state_at_rest_in_any_units(seed):
    random = np.random.default_rng(seed)
    a, units = random.normal(size=(3, 3)) - 2 * np.eye(3), 10.0 ** random.uniform(-6, 6, 3)
    model = ssntk.VectorField(linear, {"A": units[:, None] * a / units, "b": np.zeros(3)}, 3)
    rows = np.asarray(ssntk.initial_state_jacobian(model, ssntk.Probe([0.0, 1.5], x0=np.zeros(3))))
    # Tsit5 at rtol 1e-8.
    np.testing.assert_allclose(rows[0, -1] / units[:, None] * units, scipy.linalg.expm(1.5 * a), atol=1e-7)


@pytest.mark.parametrize("method", ["rows", pytest.param("autodiff", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "asked",
    [{"loss_operator": ssntk.TimeDerivative(), "of": "readout"}, {"loss_operator": ssntk.Residual()}],
    ids=["rate", "residual"],
)
def test_methods_agree_on_every_observation(asked, method):
    model = Leaky(jr.key(0))
    probe = ssntk.Probe([0.0, 0.5, 1.0], np.ones((1, 2)), np.ones(5))
    one, other = (np.asarray(ssntk.ntk(model, probe, integrator=HEUN, method=by, **asked)) for by in ("segments", method))
    np.testing.assert_allclose(other, one, atol=1e-12 * np.abs(one).max())
