"""Verdicts, radii and searches over theta do not depend on the units of the states and of time."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some

import ssntk


def tanh_field(t, z, u, params):
    """A network of tanh units whose states are measured in units of S and whose time in units of 1 / c."""
    x = z / params["S"]
    return params["S"] * params["c"] * (-x + params["W"] @ jnp.tanh(x) + params["b"])


def linear_field(t, x, u, matrix):
    return matrix @ x


def network(seed, scale=1.0, rate=1.0, n=5, gain=0.8):
    keys = jr.split(jr.key(seed), 2)
    params = {
        "W": gain * jr.normal(keys[0], (n, n)) / n**0.5,
        "b": 0.3 * jr.normal(keys[1], (n,)),
        "S": jnp.asarray(scale) * jnp.ones(n),
        "c": rate,
    }
    return ssntk.VectorField(tanh_field, params, n, 0)


def weights(model):
    return model.params["W"], model.params["b"]


def units(seed, n=5):
    return 10.0 ** np.random.default_rng(seed).uniform(-6, 6, n)


SEEDS = range(3)


@pytest.mark.parametrize("seed", some(SEEDS, [0]))
def test_a_verdict_is_the_same_under_a_common_factor_and_under_any_units_in_their_metric(seed):
    plain = ssntk.criticality(network(seed), wrt=weights)
    metric = units(seed)
    cases = [(1e-6, 1.0, None), (1e6, 1e-6, None), (1.0, 1e6, None), (metric, 1e3, metric), (metric, 1.0, metric.tolist())]
    for scale, rate, given in cases:
        model = network(seed, scale, rate)
        found = ssntk.criticality(model, wrt=weights, scale=given)
        assert (found.verdict, found.kind, found.stable, found.n_fixed_points) == (
            plain.verdict,
            plain.kind,
            plain.stable,
            plain.n_fixed_points,
        )
        np.testing.assert_allclose(found.x_star / scale, plain.x_star, rtol=1e-6, atol=1e-9)
        for name in ("stability_radius", "spectral_abscissa", "sigma_min", "critical_frequency"):
            np.testing.assert_allclose(getattr(found, name) / rate, getattr(plain, name), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            [found.relative_distance, found.nonnormality], [plain.relative_distance, plain.nonnormality], rtol=1e-6
        )
        # l^T F in units of state over time, of the metric where there is one.
        unit = rate if given is not None else rate * scale
        np.testing.assert_allclose(found.drive / unit, plain.drive, rtol=1e-6)
    # In another metric the numbers differ.
    assert ssntk.criticality(network(seed), scale=metric).stability_radius < 0.5 * plain.stability_radius


def test_a_slow_pair_is_a_pair_in_slow_units_and_a_mode_that_does_not_turn_is_real():
    def turning(rate, frequency):
        matrix = rate * jnp.array([[-0.1, -frequency], [frequency, -0.1]])
        return ssntk.VectorField(linear_field, matrix, 2)

    for rate in (1e-9, 1.0, 1e9):
        pair = ssntk.criticality(turning(rate, 1e-3), time_scale=1 / rate)
        assert pair.kind == "pair"
        np.testing.assert_allclose(pair.critical_frequency, 1e-3 * rate, rtol=1e-6)
        assert ssntk.criticality(turning(rate, 0.0), time_scale=1 / rate).kind == "real"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_nearest_safe_network_is_the_same(seed):
    plain = ssntk.criticality(network(seed))
    margin = 1.1 * plain.stability_radius
    found = ssntk.retreat(network(seed), margin, wrt=weights, full=True)
    metric = units(seed)
    for scale, rate, given in ((1e6, 1e-6, None), (metric, 1e6, metric)):
        model = network(seed, scale, rate)
        other = ssntk.retreat(model, margin * rate, x=plain.x_star * scale, wrt=weights, full=True, scale=given)
        np.testing.assert_allclose(other.distance, found.distance, rtol=1e-5)
        np.testing.assert_allclose(other.model.params["W"], found.model.params["W"], atol=1e-4 * found.distance)
        np.testing.assert_allclose(other.stability_radius, margin * rate, rtol=1e-8)


@pytest.mark.parametrize("kind", some(["singular", "saddle-node", "hopf"], ["saddle-node"]))
def test_the_nearest_bifurcation_is_the_same(kind):
    found = ssntk.approach(network(1), kind, wrt=weights, n_starts=4)
    metric = units(1)
    for scale, rate, given in ((1e-6, 1e6, None), (metric, 1e-3, metric)):
        x = found.x_start * scale
        other = ssntk.approach(network(1, scale, rate), kind, x=x, wrt=weights, n_starts=4, scale=given)
        assert (other.kind, other.converged) == (found.kind, True)
        np.testing.assert_allclose(other.distance, found.distance, rtol=1e-8)
        np.testing.assert_allclose(other.frequency / rate, found.frequency, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(other.x / scale, found.x, rtol=1e-5, atol=1e-6)
        if kind != "hopf":
            unit = rate if given is not None else rate / scale
            np.testing.assert_allclose(other.coefficient / unit, found.coefficient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("scale", [[1.0, 2.0], -1.0, [1.0, 1.0, 1.0, 1.0, 0.0], np.full(5, np.inf)])
def test_a_scale_that_does_not_fit_is_refused_before_anything_is_compiled(scale):
    def field(t, x, u, p):
        # Only the shape may be evaluated.
        assert isinstance(x, jax.core.Tracer)
        return -p * x

    model = ssntk.VectorField(field, 1.0, 5)
    x = np.zeros(5)
    for call in (
        lambda: ssntk.criticality(model, scale=scale),
        lambda: ssntk.criticality_ensemble([model], scale=scale),
        lambda: ssntk.warn_if_near_critical(model, scale=scale),
        lambda: ssntk.retreat(model, 0.1, x=x, scale=scale),
        lambda: ssntk.approach(model, "singular", x=x, scale=scale),
    ):
        with pytest.raises(ValueError, match="scale must"):
            call()
