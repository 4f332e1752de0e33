"""Predictions at unseen probes: against dense algebra, closed forms, and the derivative of training itself.

Compiled once for the whole file: the solves of networks of one size for a training probe and for a test probe, which differ
in their shapes; their Jacobians by jacrev; and a descent of the network itself.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import seeds

import ssntk

HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
# The times of probes that are trained on, and of others: 0, 1, .. until these.
TRAINED, TESTED = 2, 3
TIMES, LATER = np.arange(3.0), np.arange(4.0)
N, P = 6, 6 * 6 + 6 + 6 + 2 * 6 + 2


def theta(model):
    return model.weight, model.input_weight, model.bias, model.readout_weight, model.readout_bias


def task(seed):
    """A network, a probe of one input with targets (1, 3, 2), and a test probe of two other inputs."""
    keys = jr.split(jr.key(seed), 4)
    model = ssntk.CTRNN(N, 1, 2, key=keys[0])
    probe, test = ssntk.Probe(TIMES, jr.normal(keys[1], (1, 1))), ssntk.Probe(LATER, jr.normal(keys[2], (2, 1)))
    return model, probe, outputs(model, probe.us, TRAINED) + 0.3 * jr.normal(keys[3], (1, 3, 2)), test


@eqx.filter_jit
def outputs(model, us, last):
    """The outputs (B, T, 2) by Heun's method, written out: two steps for each save time."""

    def step(x, u):
        for _ in range(2):
            slope = model.vector_field(0.0, x, u)
            x = x + 0.25 * (slope + model.vector_field(0.0, x + 0.5 * slope, u))
        return x, x

    def one(u):
        start = jnp.zeros(N)
        states = jax.lax.scan(lambda x, _: step(x, u), start, length=last)[1]
        return jax.vmap(model.readout)(jnp.concatenate([start[None], states]))

    return jax.vmap(one)(us)


@eqx.filter_jit
def rows(model, us, last):
    """d outputs / d theta (rows, p), by jacrev."""
    parts = jax.jacrev(lambda moving: outputs(eqx.tree_at(theta, model, moving), us, last).ravel())(theta(model))
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


def predicted(model, probe, targets, test, rate, steps, **options):
    options = {"wrt": theta, "integrator": HEUN, "test": test} | options
    return ssntk.linearised_training(model, probe, targets, rate, steps, **options)


def same(found, expected, rtol=1e-9):
    """Equal relative to the largest entry, with room for rounding in some hundred steps of dense algebra."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(2))
def test_predictions_and_covariance_by_the_formulas_with_kernels(seed):
    """The formulas of Lee et al. (2019), with matrix functions of kernels, and init_std^2 K for the kernel at the start."""
    model, probe, targets, test = task(seed)
    # The initial time has only the readout's bias, so that its rows are alike and K would be singular.
    masked = ssntk.Probe(TIMES, probe.us, mask=np.array([False, True, True]))
    mine, theirs = np.asarray(rows(model, probe.us, TRAINED))[2:], np.asarray(rows(model, test.us, TESTED))
    residual = np.asarray(outputs(model, probe.us, TRAINED) - targets)[:, 1:].ravel()
    here, across, there = mine @ mine.T, theirs @ mine.T, theirs @ theirs.T
    values = np.linalg.eigvalsh(here / 4)
    rate, steps, std = 1.0 / values[-1], 50, 0.1
    found = predicted(model, masked, targets, test, rate, steps, init_std=std)
    moved = np.eye(4) - np.linalg.matrix_power(np.eye(4) - rate * here / 4, steps)
    gain = np.linalg.solve(here, across.T).T @ moved
    same(found.test_prediction, outputs(model, test.us, TESTED) - (gain @ residual).reshape(2, 4, 2))
    expected = there + gain @ here @ gain.T - gain @ across.T - across @ gain.T
    same(found.test_covariance, std**2 * expected)
    # With so many steps that each mode is learned to exp(-20), it is the posterior of a Gaussian process.
    last = predicted(model, masked, targets, test, rate, int(20 * values[-1] / values[0]))
    same(last.test_covariance, there - across @ np.linalg.solve(here, across.T), rtol=1e-8)


def adam(count):
    """A state of Adam after `count` steps, with random moments."""
    random = np.random.default_rng(count)
    shapes = ((N, N), (N, 1), (N,), (2, N), (2,))
    mu, nu = (tuple(jnp.asarray(f(random.normal(size=shape))) for shape in shapes) for f in (lambda a: 0.1 * a, np.square))
    state = optax.adam(1e-3).init(mu)
    return (state[0]._replace(count=jnp.asarray(count, jnp.int32), mu=mu, nu=nu), *state[1:])


def flat(parts):
    return np.concatenate([np.asarray(part).ravel() for part in parts])


@pytest.mark.parametrize("rule", ["descent", "momentum", "Adam", "weights"])
def test_every_rule_by_its_own_steps_from_many_starts(rule):
    model, probe, targets, test = task(3)
    mine, theirs = np.asarray(rows(model, probe.us, TRAINED)), np.asarray(rows(model, test.us, TESTED))
    residual, weights, options = np.asarray(outputs(model, probe.us, TRAINED) - targets).ravel(), np.ones(6), {}
    rate, steps, decay, count = 0.3, 40, 0.0, None
    mu, size = np.zeros(P), np.ones(P)
    if rule == "momentum":
        decay, options = 0.7, {"momentum": 0.7}
    if rule == "weights":
        options = {"weights": np.array([0.5, 1.0, 2.0])}
        weights = np.repeat(options["weights"], 2)
    if rule == "Adam":
        state = adam(3)
        rate, decay, count, options = 1e-2, 0.9, 3, {"preconditioner": state}
        mu, size = flat(state[0].mu), np.sqrt(flat(state[0].nu) / (1 - 0.999**3)) + 1e-8
    std = np.random.default_rng(0).uniform(0.0, 2.0, P)
    std[:5] = 0
    # Column 0 is the network itself; each other column starts a unit further along one parameter.
    start = np.concatenate([np.zeros((P, 1)), np.eye(P)], axis=1)
    moving, velocity = start.copy(), np.repeat(mu[:, None], P + 1, axis=1)
    for k in range(1, steps + 1):
        gradient = mine.T @ (weights[:, None] * (residual[:, None] + mine @ moving)) / weights.sum()
        velocity = decay * velocity + (1 - decay if rule == "Adam" else 1) * gradient
        share = 1.0 if count is None else 1 / (1 - decay ** (count + k))
        moving = moving - rate * share * velocity / size[:, None]
    found = predicted(model, probe, targets, test, rate, steps, init_std=std, **options)
    ended = theirs @ moving
    same(found.test_prediction, outputs(model, test.us, TESTED) + ended[:, 0].reshape(2, 4, 2))
    apart = (ended[:, 1:] - ended[:, :1]) * std
    same(found.test_covariance, apart @ apart.T)


@eqx.filter_jit
def trained(moving, model, us, targets, rate):
    """theta after 30 steps of gradient descent on the network itself."""

    def loss(moving):
        return jnp.mean((outputs(eqx.tree_at(theta, model, moving), us, TRAINED) - targets) ** 2) / 2

    def step(moving, _):
        return jax.tree.map(lambda leaf, g: leaf - rate * g, moving, jax.grad(loss)(moving)), None

    return jax.lax.scan(step, moving, length=30)[0]


@eqx.filter_jit
def answers(start, model, us, targets, others, rate):
    """The derivative of the outputs for `others` after training by each parameter at the start of training."""

    def ended(moving):
        return outputs(eqx.tree_at(theta, model, trained(moving, model, us, targets, rate)), others, TESTED).ravel()

    parts = jax.jacfwd(ended)(start)
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_the_covariance_is_that_of_networks_that_are_trained_from_nearby_starts(seed):
    """If the targets are the outputs, training stands still, and its derivative by its start holds no second derivatives of
    the network: to first order in init_std, the covariance is exact."""
    model, probe, _, test = task(seed)
    targets, rate = outputs(model, probe.us, TRAINED), 0.4
    found = predicted(model, probe, targets, test, rate, 30, init_std=2.0)
    spread = 2.0 * np.asarray(answers(theta(model), model, probe.us, targets, test.us, jnp.asarray(rate)))
    same(found.test_covariance, spread @ spread.T)
    same(found.test_prediction, outputs(model, test.us, TESTED), rtol=1e-12)


def test_small_moves_are_those_of_the_network_itself():
    model, probe, targets, test = task(4)
    errors = []
    for rate in (2e-4, 1e-4):
        found = predicted(model, probe, targets, test, rate, 30)
        moved = eqx.tree_at(theta, model, trained(theta(model), model, probe.us, targets, jnp.asarray(rate)))
        errors.append(np.abs(found.test_prediction - outputs(moved, test.us, TESTED)).max())
    # The next order is the square of the rate.
    assert errors[0] > 1e-10
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.05)


def line(t, x, u, params):
    """x = p t in units of p."""
    return params[0] / params[1] * jnp.ones(1)


def slope(model):
    return model.params[0]


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e7])
@pytest.mark.parametrize("rate", [0.5, 1e-3, 1e-17])
def test_a_line_in_closed_form_in_any_units(rate, unit):
    """x = p t, with p = 1, is trained to 3 at t = 1 and predicted at t = 2. Half of the rows are at t = 0, where nothing
    moves, so that each step leaves the share 1 - rate / 2."""
    model = ssntk.VectorField(line, (jnp.asarray(unit), jnp.asarray(unit)), 1)
    probe, test, targets = ssntk.Probe([0.0, 1.0]), ssntk.Probe([0.0, 2.0]), np.array([[[0.0], [3.0]]])
    asked = {"of": "state", "wrt": slope, "test": test, "init_std": unit, "integrator": HEUN}
    found = ssntk.linearised_training(model, probe, targets, rate * unit**2, 7, **asked)
    left = (1 - rate / 2) ** 7
    np.testing.assert_allclose(found.test_prediction.ravel(), [0.0, 2 * (3 - 2 * left)], rtol=1e-12)
    np.testing.assert_allclose(found.test_covariance, [[0.0, 0.0], [0.0, 4 * left**2]], rtol=1e-12)


def test_masks_of_the_test_hide_nothing_and_files_hold_predictions(tmp_path):
    model, probe, targets, test = task(5)
    hidden = ssntk.Probe(LATER, test.us, mask=np.array([False, True, False, True]))
    one, other = (predicted(model, probe, targets, given, 0.1, 3) for given in (test, hidden))
    np.testing.assert_array_equal(one.test_prediction, other.test_prediction)
    np.testing.assert_array_equal(one.test_covariance, other.test_covariance)
    ssntk.save(tmp_path / "training.npz", one)
    assert ssntk.load(tmp_path / "training.npz") == one
    without = predicted(model, probe, targets, None, 0.1, 3)
    assert without.test_prediction is without.test_covariance is None
    np.testing.assert_array_equal(without.loss, one.loss)


def test_training_that_diverges_predicts_nothing_finite_and_warns_of_nothing():
    found = predicted(*task(6), 1e6, 100)
    assert found.reason.startswith("Diverges")
    assert not np.isfinite(found.test_prediction).all()
    assert not np.isfinite(found.test_covariance).all()


def test_times_between_the_steps_of_a_map_are_refused_by_name_before_anything_compiles(compilations):
    model, probe, targets, _ = task(6)
    between = ssntk.Probe([0.0, 0.7], np.ones((1, 2, 1)))
    before = len(compilations)
    with pytest.raises(ValueError, match=r"test must be a probe that fits the model: probe\.ts must lie whole steps"):
        predicted(ssntk.EulerMap(model, 0.5), probe, targets, between, rate=0.1, steps=3, integrator=None)
    assert len(compilations) == before


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"test": np.ones(3)}, "test must be an ssntk.Probe"),
        ({"test": ssntk.Probe(LATER, np.ones((1, 3)))}, "test must be a probe that fits the model: us must have width 1"),
        ({"test": None, "init_std": 1.0}, "init_std needs a probe test"),
        ({"init_std": np.ones(3)}, rf"init_std must be a number or have shape \({P},\)"),
        ({"init_std": -1.0}, "init_std must not be negative"),
    ],
)
def test_bad_arguments_are_refused_before_anything_compiles(wrong, match, compilations):
    model, probe, targets, test = task(6)
    options = {"test": test} | wrong
    before = len(compilations)
    with pytest.raises(ValueError, match=match):
        predicted(model, probe, targets, rate=0.1, steps=3, **options)
    assert len(compilations) == before
