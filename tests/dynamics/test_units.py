"""Radii do not depend on the units of states and time. Models that depend on t have no equilibria and are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk
from ssntk.models.base import check_autonomous
from ssntk.models.maps import with_input


def test_the_radius_in_a_metric_is_that_of_the_rescaled_matrix():
    random = np.random.default_rng(0)
    matrices = random.normal(size=(3, 5, 5)) - 3 * np.eye(5)
    scale = 10.0 ** random.uniform(-6, 6, 5)
    expected = ssntk.stability_radius(matrices)
    rescaled = scale[:, None] * matrices / scale
    for one, two in zip(expected, ssntk.stability_radius(rescaled, scale=scale), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ssntk.stability_radius(matrices, scale=7.0)[0], expected[0])
    traced = jax.jit(lambda A: ssntk.stability_radius(A, scale=scale)[0])(rescaled)
    np.testing.assert_allclose(traced, expected[0], rtol=1e-9)
    # In units of time c times as long: radius and frequency c times as large.
    for c in (1e-6, 1e6):
        for one, two in zip(expected, ssntk.stability_radius(c * matrices), strict=True):
            np.testing.assert_allclose(two / c, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [[1.0, 2.0], -1.0, [1.0, 0.0, 1.0], [1.0, np.nan, 1.0], "large"])
def test_a_scale_that_does_not_fit_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        ssntk.stability_radius(-np.eye(3), scale=scale)


AUTONOMOUS = [
    lambda t, x, u, p: -p * x,
    lambda t, x, u, p: -p * x + 0 * t,
    lambda t, x, u, p: -p * (x + 0.0 * t),
    lambda t, x, u, p: -p * x * (jnp.cos(t) ** 2 + jnp.sin(t) ** 2),
    lambda t, x, u, p: -p * x + 0 * jnp.exp(t),
    lambda t, x, u, p: jax.jit(lambda t, x: jnp.where(t > -jnp.inf, -x, x))(t, x),
]
DRIVEN = [
    lambda t, x, u, p: -p * x + jnp.where(t > 5, 1.0, 0.0),
    lambda t, x, u, p: -p * x + jnp.where((t > 100) & (t < 100.001), 1.0, 0.0),
    lambda t, x, u, p: -p * x + jnp.where((t > 50 * p) & (t < 50.001 * p), 1.0, 0.0),
    lambda t, x, u, p: -p * x + jnp.cos(1e-9 * t),
    lambda t, x, u, p: -p * x + jnp.cos(1e6 * t),
    lambda t, x, u, p: -p * x + 1e-6 * jnp.cos(2 * jnp.pi * t),
    lambda t, x, u, p: -p * x * (1 + 0.1 * jnp.sin(t)),
    lambda t, x, u, p: -p * x + jnp.stack([1e-12 * jnp.sin(t), 0.0]),
    lambda t, x, u, p: -p * x + jax.jit(jnp.sqrt)(t),
]


@pytest.mark.parametrize("field", AUTONOMOUS)
def test_what_does_not_depend_on_time_passes(field):
    model = ssntk.VectorField(field, 1.0, 2, 1)
    for one in (model, ssntk.EulerMap(model, 0.1), with_input(model, jnp.ones(1))):
        check_autonomous(one)


@pytest.mark.parametrize("field", DRIVEN)
def test_what_depends_on_time_is_refused(field):
    model = ssntk.VectorField(field, 1.0, 2, 1)
    for one in (model, ssntk.EulerMap(model, 0.1), with_input(model, jnp.ones(1))):
        with pytest.raises(ValueError, match=r"network must not depend on t: .* no equilibria; sample it"):
            check_autonomous(one, "network")
    # While tracing nothing is known.
    jax.jit(lambda p: [check_autonomous(ssntk.VectorField(field, p, 2, 1)), p][1])(1.0)


def test_every_search_for_equilibria_refuses_a_driven_model_and_solves_take_it():
    model = ssntk.VectorField(DRIVEN[6], 1.0, 2, 1)
    probe, x = ssntk.Probe([0.0, 1.0]), np.zeros(2)
    for call in (
        lambda: ssntk.find_fixed_points(model),
        lambda: ssntk.criticality(model),
        lambda: ssntk.retreat(model, 0.1, x=x),
        lambda: ssntk.approach(model, "singular", x=x),
        lambda: ssntk.steady_state_ntk(model, x),
        lambda: ssntk.bifurcation_channel(model, probe, x),
        lambda: ssntk.frequency_signature(model, x),
        lambda: ssntk.measure(model, probe, x),
    ):
        with pytest.raises(ValueError, match="must not depend on t"):
            call()
    assert ssntk.ntk(model, probe).shape == (4, 4)
    record = ssntk.NTKMonitor(probe, of="state").update(0, model)
    assert record is not None
    assert record.verdict == "unknown"
    assert "must not depend on t" in record.events[0]
