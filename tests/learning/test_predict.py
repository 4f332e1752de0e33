"""Predicted training against training: optax on the network itself, and on its linearisation by dense linear algebra."""

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
from ssntk.learning.drift import drift, seen

TIMES = np.linspace(0.0, 4.0, 9)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
N, STEPS = 20, 400


def theta(model):
    return model.weight, model.input_weight, model.bias, model.readout_weight, model.readout_bias


def task(seed, size=0.1):
    """(model, inputs, targets) for a random network, with targets that differ from its outputs by about `size`."""
    model_key, input_key, target_key = jr.split(jr.key(seed), 3)
    model = ssntk.CTRNN(N, 1, 2, key=model_key)
    us = jr.normal(input_key, (3, 1))
    return model, us, outputs(model, us) + size * jr.normal(target_key, (3, 9, 2))


@eqx.filter_jit
def outputs(model, us):
    return jax.vmap(jax.vmap(model.readout))(ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=HEUN))


@eqx.filter_jit
def descent(model, us, wanted, rate):
    """The losses of full-batch gradient descent on the network (STEPS + 1,), compiled once for all of them."""

    def loss(moving):
        return jnp.mean((outputs(eqx.tree_at(theta, model, moving), us) - wanted) ** 2) / 2

    def step(moving, _):
        value, gradient = jax.value_and_grad(loss)(moving)
        return jax.tree.map(lambda leaf, g: leaf - rate * g, moving, gradient), value

    return jax.lax.scan(step, theta(model), length=STEPS + 1)[1]


@eqx.filter_jit
def residuals(moving, model, us, wanted):
    return ((outputs(eqx.tree_at(theta, model, moving), us) - wanted) / wanted.size**0.5).ravel()


jacobians = eqx.filter_jit(jax.jacrev(residuals))


def linear(model, us, wanted):
    """(J, r) of the loss |r + J dtheta|^2 / 2, by jacrev."""
    parts = jacobians(theta(model), model, us, wanted)
    return (
        np.concatenate([np.asarray(part).reshape(wanted.size, -1) for part in parts], axis=1),
        np.asarray(residuals(theta(model), model, us, wanted)),
    )


def predicted(model, us, wanted, rate, steps=STEPS, **options):
    options = {"wrt": theta, "integrator": HEUN} | options
    return ssntk.linearised_training(model, ssntk.Probe(TIMES, us), wanted, rate, steps, **options)


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_the_error_is_of_second_order_in_the_learning_rate(seed):
    problem = task(seed, size=1.0)
    rates = 2e-4 * 2.0 ** -np.arange(4)
    errors = []
    for rate in rates:
        actual = np.asarray(descent(*problem, jnp.asarray(rate)))[:21]
        errors.append(np.abs(predicted(*problem, rate, 20).loss - actual).max())
    # Far above rounding, of losses near 1.
    assert errors[-1] > 1e-11
    slopes = np.diff(np.log(errors)) / np.diff(np.log(rates))
    # The next order is 20 eta lambda_1, 2 % here and halved each time.
    np.testing.assert_allclose(slopes, 2.0, atol=0.05)


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_steps_to_a_tolerance_are_within_five_per_cent_where_training_is_lazy(seed):
    problem = task(seed, size=0.02)
    limit = predicted(*problem, 1.0, 1).max_learning_rate
    found = predicted(*problem, 0.5 * limit)
    assert found.lazy, found.reason
    actual = np.asarray(descent(*problem, jnp.asarray(0.5 * limit)))
    for step in (150, 300):
        tol = float(actual[step] / actual[0])
        assert abs(found.steps_to(tol) / step - 1) < 0.05
    # The loss at the predicted end is as predicted.
    np.testing.assert_allclose(found.true_loss, actual[-1], rtol=0.05)
    assert "Lazy" in found.reason


def test_outside_the_lazy_regime_it_says_so():
    problem = task(0, size=2.0)
    found = predicted(*problem, 0.5 * predicted(*problem, 1.0, 1).max_learning_rate)
    actual = np.asarray(descent(*problem, jnp.asarray(found.learning_rate)))
    tol = float(actual[300] / actual[0])
    assert abs(found.steps_to(tol) / 300 - 1) > 0.05
    assert not found.lazy
    assert found.drift.relative_change > 0.03
    assert "Not lazy" in found.reason
    assert "cannot be relied on" in found.reason


def test_what_is_right_at_its_end_is_not_refused_in_the_same_breath():
    problem = task(1, size=0.2)
    found = predicted(*problem, 0.5 * predicted(*problem, 1.0, 1).max_learning_rate, 100)
    assert not found.lazy
    actual = np.asarray(descent(*problem, jnp.asarray(found.learning_rate)))
    # The loss is right to 5 % of how far it fell, and is reached more than 5 % of the steps too early.
    assert abs(found.true_loss - found.loss[-1]) < 0.05 * (found.loss[0] - found.loss[-1])
    assert abs(np.argmax(actual <= found.loss[-1]) / 100 - 1) > 0.05
    assert "The loss at the predicted end itself is right" in found.reason
    assert "relied" not in found.reason


def test_gradient_descent_is_the_spectrums_own_prediction():
    problem = task(1)
    _, residual = linear(*problem)
    found = predicted(*problem, 0.3, 50)
    # Both are sums over the same modes, in another order.
    np.testing.assert_allclose(found.loss, found.spectrum.predicted_loss(residual, 0.3, np.arange(51)), rtol=1e-9)
    np.testing.assert_allclose(found.max_learning_rate, found.spectrum.max_learning_rate, rtol=1e-12)
    kernel = ssntk.ntk_spectrum(problem[0], ssntk.Probe(TIMES, problem[1]), of="readout", wrt=theta, integrator=HEUN)
    np.testing.assert_allclose(found.spectrum.eigenvalues[:20], kernel.eigenvalues[:20] / problem[2].size, rtol=1e-8)


def adam_after(problem, steps=5):
    """A state of `optax.adam` after some steps on the linearised network, and where theta and the residual then are."""
    jacobian, residual = linear(*problem)
    moving = theta(problem[0])
    sizes = [leaf.size for leaf in moving]
    opt = optax.adam(1e-3)
    state, flat = opt.init(moving), np.zeros(jacobian.shape[1])
    for _ in range(steps):
        gradient = np.split(jacobian.T @ (residual + jacobian @ flat), np.cumsum(sizes)[:-1])
        pytree = tuple(jnp.asarray(g.reshape(leaf.shape)) for g, leaf in zip(gradient, moving, strict=True))
        # Optax raises a float to an integer there, which the tests' strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            update, state = opt.update(pytree, state, moving)
        flat = flat + np.concatenate([np.asarray(leaf).ravel() for leaf in update])
    return state


def frozen_adam(state, jacobian, residual, rate, steps, b1=0.9, b2=0.999):
    """Adam's rule (Kingma and Ba, 2015) with the second moments held still, on the linear residuals: the losses."""
    mu = np.concatenate([np.asarray(leaf).ravel() for leaf in state[0].mu])
    nu = np.concatenate([np.asarray(leaf).ravel() for leaf in state[0].nu])
    count = int(state[0].count)
    size = np.sqrt(nu / (1 - b2**count)) + 1e-8
    flat, losses = np.zeros(jacobian.shape[1]), []
    for k in range(steps + 1):
        error = residual + jacobian @ flat
        losses.append(error @ error / 2)
        mu = b1 * mu + (1 - b1) * jacobian.T @ error
        flat = flat - rate * mu / (1 - b1 ** (count + k + 1)) / size
    return np.array(losses)


def momentum(jacobian, residual, rate, decay, steps):
    """`optax.sgd` with a momentum on the linear residuals: the losses, compiled once."""

    @jax.jit
    def run(rate):
        opt = optax.sgd(rate, momentum=decay)
        start = jnp.zeros(jacobian.shape[1])

        def step(carry, _):
            flat, state = carry
            error = residual + jacobian @ flat
            update, state = opt.update(jacobian.T @ error, state)
            return (flat + update, state), error @ error / 2

        return jax.lax.scan(step, (start, opt.init(start)), length=steps + 1)[1]

    return lambda rate: np.asarray(run(rate))


def test_momentum_and_adam_follow_their_rules_on_the_linearised_network():
    problem = task(2)
    jacobian, residual = linear(*problem)
    found = predicted(*problem, 0.05, 60, momentum=0.8)
    # All three differ by rounding alone, which sixty steps hardly multiply.
    np.testing.assert_allclose(found.loss, momentum(jacobian, residual, 0.05, 0.8, 60)(0.05), rtol=1e-8)
    state = adam_after(problem)
    found = predicted(*problem, 1e-3, 60, preconditioner=state)
    np.testing.assert_allclose(found.loss, frozen_adam(state, jacobian, residual, 1e-3, 60), rtol=1e-8)
    assert found.loss[-1] < 0.9 * found.loss[0]


@pytest.mark.parametrize("rule", ["descent", "momentum", "Adam"])
def test_the_stable_rate_is_that_of_a_bisection_at_fixed_kernel(rule):
    problem = task(3)
    jacobian, residual = linear(*problem)
    if rule == "Adam":
        state = adam_after(problem)
        claimed = predicted(*problem, 1e-3, 1, preconditioner=state).max_learning_rate

        def run(rate):
            return frozen_adam(state, jacobian, residual, rate, 1000)
    else:
        decay = 0.8 if rule == "momentum" else 0.0
        claimed = predicted(*problem, 1e-3, 1, momentum=decay or None).max_learning_rate
        run = momentum(jacobian, residual, 0.0, decay, 1000)
    low, high = claimed / 10, claimed * 10
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        # An unstable descent may overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            losses = run(middle)
        # An unstable loss has grown from the middle to the end.
        low, high = (middle, high) if losses[-1] < losses[500:700].max() else (low, middle)
    # The tolerance; what 300 steps can tell apart is finer.
    assert abs(low / claimed - 1) < 0.05


@pytest.mark.parametrize(
    "options", [{"momentum": 0.7}, *(pytest.param(one, marks=pytest.mark.slow) for one in ({}, {"preconditioner": "adam"}))]
)
def test_a_tolerance_beyond_the_steps_that_were_run(options):
    problem = task(4)
    rate = 0.2
    if "preconditioner" in options:
        options, rate = {"preconditioner": adam_after(problem)}, 1e-4
    short, long = (predicted(*problem, rate, steps, **options) for steps in (40, 4000))
    tol = float(long.loss[3000] / long.loss[0]) * (1 + 1e-9)
    assert long.steps_to(tol) == 3000
    # Adam's bias correction has not quite faded after 40 + 5 steps (0.9^45 = 0.9 %).
    assert abs(short.steps_to(tol) - 3000) <= (0 if not options or "momentum" in options else 5)


def test_a_mask_is_a_shorter_probe_and_the_size_of_weights_does_not_matter():
    model, us, wanted = task(5)
    mask = np.ones((3, 9), bool)
    mask[:, 5:] = False
    short = ssntk.linearised_training(model, ssntk.Probe(TIMES[:5], us), wanted[:, :5], 0.2, 30, wrt=theta, integrator=HEUN)
    masked = ssntk.linearised_training(model, ssntk.Probe(TIMES, us, mask=mask), wanted, 0.2, 30, wrt=theta, integrator=HEUN)
    np.testing.assert_allclose(masked.loss, short.loss, rtol=1e-9)
    weights = np.linspace(1.0, 2.0, 9)
    one, ten = (predicted(model, us, wanted, 0.2, 30, weights=size * weights) for size in (1.0, 10.0))
    np.testing.assert_allclose(one.loss, ten.loss, rtol=1e-9)
    residual = np.asarray(outputs(model, us) - wanted)
    expected = (weights[:, None] * residual**2).sum() / (6 * weights.sum()) / 2
    np.testing.assert_allclose(one.loss[0], expected, rtol=1e-9)


def test_too_large_a_rate_diverges_and_says_so():
    problem = task(6)
    limit = predicted(*problem, 1.0, 1).max_learning_rate
    found = predicted(*problem, 1.2 * limit)
    assert found.reason.startswith("Diverges")
    assert found.steps_to(1e-3) == np.inf
    assert found.loss[-1] > 1e3 * found.loss[0]


def test_the_drift_to_a_network_that_was_trained_in_the_meantime():
    problem = task(7)
    found = predicted(*problem, 0.2, 30)
    assert found.drift_to(problem[0]) == (0.0, pytest.approx(1.0, abs=1e-12))
    moved = found.drift_to(found.model)
    np.testing.assert_allclose(moved, found.drift, rtol=1e-12)
    with pytest.raises(ValueError, match="model must be a CTRNN"):
        found.drift_to(ssntk.LowRankRNN(4, 1, 2, rank=1, key=jr.key(0)))


@pytest.mark.parametrize("shape", [(5, 12), (12, 5)])
def test_drift_is_that_of_the_dense_kernels(shape):
    random = np.random.default_rng(0)
    one, two = random.normal(size=shape), random.normal(size=shape)
    before, after = one @ one.T, two @ two.T
    found = drift(seen(one), seen(two))
    np.testing.assert_allclose(found.relative_change, np.linalg.norm(after - before) / np.linalg.norm(before), rtol=1e-12)
    cosine = np.vdot(before, after) / np.linalg.norm(before) / np.linalg.norm(after)
    np.testing.assert_allclose(found.alignment, cosine, rtol=1e-12)
    # A kernel times four: changed by three of itself, and in the same direction.
    np.testing.assert_allclose(drift(seen(one), seen(2 * one)), (3.0, 1.0), rtol=1e-12)
    assert drift(seen(0 * one), seen(one)).relative_change == np.inf


def test_bad_arguments_are_named():
    model, us, wanted = task(8)
    probe = ssntk.Probe(TIMES, us)
    good = {"model": model, "probe": probe, "targets": wanted, "learning_rate": 0.1, "steps": 3}
    for wrong, name in (
        ({"targets": wanted[:2]}, "targets"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"steps": 0}, "steps"),
        ({"momentum": 1.0}, "momentum"),
        ({"of": "nothing"}, "of"),
        ({"preconditioner": np.ones(3)}, "preconditioner"),
        ({"probe": ssntk.Probe(TIMES, us, mask=np.zeros((3, 9), bool))}, "mask"),
    ):
        with pytest.raises(ValueError, match=name):
            ssntk.linearised_training(**(good | wrong), integrator=HEUN)
    found = ssntk.linearised_training(**good, integrator=HEUN)
    for tol in (0.0, 1.0):
        with pytest.raises(ValueError, match="tol"):
            found.steps_to(tol)
    silent = eqx.tree_at(lambda m: m.readout_weight, model, jnp.zeros_like(model.readout_weight))
    with pytest.raises(ssntk.NumericalError, match="nothing is learned"):
        ssntk.linearised_training(**(good | {"model": silent}), wrt=lambda m: m.weight, integrator=HEUN)
