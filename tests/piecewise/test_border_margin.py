"""The least change of the parameters that brings a unit to its border: against the true one, and in verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import seeds, some
from relu_networks import drawn, form, patterns_of

import ssntk

relu = jax.nn.relu


def model_of(weight, bias, kind="rate"):
    def field(t, x, u, p):
        if kind == "rate":
            return -x + relu(p["W"] @ x + p["b"])
        return -x + p["W"] @ relu(x) + p["b"]

    return ssntk.VectorField(field, {"W": jnp.asarray(weight), "b": jnp.asarray(bias)}, len(bias))


def resting(weight, bias, kind="rate"):
    """The fixed points of a network, (k, n), by brute force."""
    one = form(kind, weight, bias)
    patterns = patterns_of(one)
    return [-np.linalg.solve(one.jacobian(p), one.h + one.B @ (p * one.c)) for p in patterns], patterns


def signals_at(weight, bias, pattern, kind):
    """The signals of the fixed point of one region, also where it lies outside of it."""
    one = form(kind, weight, bias)
    x = -np.linalg.solve(one.jacobian(pattern), one.h + one.B @ (pattern * one.c))
    return one.signals(x)


@pytest.mark.parametrize("kind", ["rate", "current"])
@pytest.mark.parametrize("seed", seeds(4, 20))
def test_it_is_exact_if_only_the_bias_moves(seed, kind):
    """The signals are affine in the bias: the least change is the distance to a hyperplane."""
    weight, bias, _, _ = drawn(seed)
    for x, pattern in zip(*resting(weight, bias, kind), strict=True):
        margin = ssntk.border_margin(model_of(weight, bias, kind), x, wrt=lambda m: m.params["b"])
        here, unit = signals_at(weight, bias, pattern, kind), np.eye(len(bias))
        slopes = np.stack([signals_at(weight, bias + one, pattern, kind) - here for one in unit], axis=1)
        np.testing.assert_allclose(margin.distance, np.abs(here) / np.linalg.norm(slopes, axis=1), rtol=1e-10)
        np.testing.assert_allclose(margin.signal, here, rtol=1e-10, atol=1e-13 * np.abs(here).max())
        np.testing.assert_allclose(margin.relative, np.abs(here) / np.linalg.norm(slopes * bias, axis=1), rtol=1e-10)


# In the networks of the seeds left out, no unit is active, or the nearest one cannot be reached by weights.
@pytest.mark.parametrize("seed", some([1, 3, 4, 5, 6, 7, 8, 10, 11], (1, 3, 4)))
def test_it_is_near_the_true_least_change_of_weights(seed):
    """The least change of the weights that makes a signal zero, by iteration."""
    weight, bias, _, _ = drawn(3 * seed, most=5)
    _, (pattern, *_) = resting(weight, bias)
    # The bias is moved until the nearest unit is at a fifth of its distance.
    here, one = signals_at(weight, bias, pattern, "rate"), np.eye(len(bias))
    slopes = np.stack([signals_at(weight, bias + step, pattern, "rate") - here for step in one], axis=1)
    near = int(np.argmin(np.abs(here) / np.linalg.norm(slopes, axis=1)))
    bias = bias - 0.8 * here[near] * slopes[near] / (slopes[near] @ slopes[near])
    (x, *_), _ = resting(weight, bias)
    margin = ssntk.border_margin(model_of(weight, bias), x, wrt=lambda m: m.params["W"])
    i = int(np.argmin(margin.distance))

    def signal(change):
        return signals_at(weight + change.reshape(weight.shape), bias, pattern, "rate")[i]

    change = np.zeros(weight.size)
    for _ in range(40):
        # The nearest point to zero on the tangent plane of the border: Newton's method with the gradient by differences.
        steps = 1e-6 * np.eye(weight.size)
        slope = np.array([signal(change + one) - signal(change - one) for one in steps]) / 2e-6
        change = slope * (slope @ change - signal(change)) / (slope @ slope)
    assert abs(signal(change)) < 1e-8
    # At the least change the gradient points along it.
    assert abs(slope @ change) == pytest.approx(np.linalg.norm(slope) * np.linalg.norm(change), rel=1e-6)
    assert 0.7 <= margin.distance[i] / np.linalg.norm(change) <= 1.4


@pytest.mark.parametrize("kind", ["rate", "current"])
def test_delta_is_the_ratio_of_determinants(kind):
    weight, bias, _, _ = drawn(5)
    (x, *_), (pattern, *_) = resting(weight, bias, kind)
    margin = ssntk.border_margin(model_of(weight, bias, kind), x)
    one = form(kind, weight, bias)
    for i in range(len(bias)):
        other = pattern.copy()
        other[i] = not other[i]
        ratio = np.linalg.det(one.jacobian(other)) / np.linalg.det(one.jacobian(pattern))
        assert margin.delta[i] == pytest.approx(ratio, rel=1e-9)
        assert margin.kind[i] == ("nonsmooth-fold" if ratio < 0 else "persistence")
    assert margin.unit == int(np.argmin(margin.distance))
    assert len(margin) == len(bias)


def test_parameters_that_write_do_not_move_a_signal_directly():
    """In dx/dt = (-x + relu(w x + b)) / tau neither the place nor the signal depends on tau."""
    model = ssntk.VectorField(
        lambda t, x, u, p: (-x + relu(p["w"] * x + p["b"])) / p["tau"],
        {"w": jnp.asarray(0.5), "b": jnp.asarray([1.0]), "tau": jnp.asarray(3.0)},
        1,
    )
    # x* = 2, s = 0.5 x* + 1 = 2: ds/dw = x* + 0.5 dx*/dw = 2 + 0.5 x 4, ds/db = 1 + 0.5 x 2.
    margin = ssntk.border_margin(model, [2.0])
    np.testing.assert_allclose(margin.distance, 2 / np.hypot(4, 2), rtol=1e-13)
    np.testing.assert_allclose(margin.relative, 2 / np.hypot(4 * 0.5, 2 * 1.0), rtol=1e-13)
    assert ssntk.border_margin(model, [2.0], wrt=lambda m: m.params["tau"]).distance[0] == np.inf
    halved = ssntk.border_margin(model, [2.0], metric=0.5)
    np.testing.assert_allclose(halved.distance, 2 * margin.distance, rtol=1e-13)


def test_relative_margins_do_not_depend_on_units():
    weight, bias, _, _ = drawn(6)
    (x, *_), _ = resting(weight, bias, "current")
    size = 10 ** np.random.default_rng(0).uniform(-6, 6, len(bias))
    time = 1e4
    plain = ssntk.border_margin(model_of(weight, bias, "current"), x)
    scaled = ssntk.VectorField(
        lambda t, z, u, p: time * (-z + p["W"] @ relu(z) + p["b"]),
        {"W": jnp.asarray(weight * size[:, None] / size), "b": jnp.asarray(bias * size)},
        len(bias),
    )
    other = ssntk.border_margin(scaled, x * size)
    np.testing.assert_allclose(other.relative, plain.relative, rtol=1e-9)
    np.testing.assert_allclose(other.delta, plain.delta, rtol=1e-9)


def test_maps_and_float32():
    weight, bias, _, _ = drawn(9)
    (x, *_), _ = resting(weight, bias)
    flow = ssntk.border_margin(model_of(weight, bias), x)
    euler = ssntk.border_margin(ssntk.EulerMap(model_of(weight, bias), 0.3), x)
    np.testing.assert_allclose(euler.distance, flow.distance, rtol=1e-10)
    np.testing.assert_allclose(euler.delta, flow.delta, rtol=1e-10)
    single = ssntk.border_margin(model_of(weight.astype(np.float32), bias.astype(np.float32)), x.astype(np.float32))
    np.testing.assert_allclose(single.distance, flow.distance, rtol=1e-3)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-6])
def test_a_verdict_names_the_nonsmooth_fold(distance):
    """dx/dt = -x + 2 relu(x) - distance, of which no eigenvalue warns."""
    network = ssntk.CTRNN.from_weights(np.array([[2.0]]), bias=[-distance], activation=jax.nn.relu, form="current")
    found = ssntk.criticality(network)
    assert found.stability_radius == pytest.approx(1.0)
    assert found.border.delta[found.border.fold] == pytest.approx(-1.0)
    assert found.border.distance[found.border.fold] == pytest.approx(distance, rel=1e-9)
    assert "nonsmooth fold" in found.reason
    assert f"{distance:.2g}" in found.reason
    assert "no bifurcation is near" not in found.reason
    assert "nonsmooth fold" in ssntk.explain(found)


def test_a_network_close_to_a_fold_is_critical():
    """The bias 1 - 1e-3 against a constant input of one: a change of both by less than a thousandth leads to the fold."""
    model = ssntk.VectorField(
        lambda t, x, u, p: -x + 2 * relu(x) + p["a"] - p["b"], {"a": jnp.asarray([1 - 1e-3]), "b": jnp.asarray([1.0])}, 1
    )
    found = ssntk.criticality(model)
    assert found.verdict == "critical"
    assert found.near
    assert found.reason.startswith("Critical: a nonsmooth fold")
    np.testing.assert_allclose(found.border.relative, 1e-3 / np.hypot(1 - 1e-3, 1.0), rtol=1e-9)
    with pytest.warns(ssntk.NearCriticalWarning, match="a nonsmooth fold"):
        record = ssntk.NTKMonitor(ssntk.Probe(np.linspace(0.0, 1.0, 5))).update(0, model)
    assert record.verdict == "critical"
    assert "nonsmooth fold" in record.reason


def test_smooth_networks_have_no_borders_and_old_verdicts_are_read():
    found = ssntk.criticality(ssntk.CTRNN.from_weights(0.5 * np.eye(2)))
    assert found.border is None
    assert "nothing needs to be done" in found.reason


def test_what_does_not_fit_is_named():
    weight, bias, _, _ = drawn(3)
    (x, *_), _ = resting(weight, bias)
    model = model_of(weight, bias)
    with pytest.raises(ValueError, match="metric must be a positive number, or hold"):
        ssntk.border_margin(model, x, metric=[1.0, 2.0])
    with pytest.raises(ValueError, match="model must be piecewise linear"):
        ssntk.border_margin(ssntk.CTRNN.from_weights(0.5 * np.eye(2)), [0.0, 0.0])
    with pytest.raises(ssntk.NumericalError, match="x_star is not a fixed point"):
        ssntk.border_margin(model, x + 1.0)
    both = ssntk.VectorField(lambda t, x, u, p: -x + p[0] * relu(p[1] * x + p[2]), jnp.asarray([0.5, 1.0, 1.0]), 1)
    with pytest.raises(ValueError, match="wrt must select arrays"):
        ssntk.border_margin(both, [1.0])
