"""Verdicts on networks whose distance from a bifurcation is known in closed form."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
from helpers import cubic_field

import ssntk


def at_zero(jacobian, tau=1.0):
    """A CTRNN at rest at zero whose df/dx there is `jacobian`, normal in these tests: its radius is |abscissa|."""
    return ssntk.CTRNN.from_weights(np.eye(len(jacobian)) + tau * np.asarray(jacobian), np.eye(len(jacobian)), tau=tau)


def real(distance):
    return at_zero(np.diag([-1.0, -distance, -0.9]))


def pair(distance, frequency=0.7):
    matrix = -np.eye(3)
    matrix[:2, :2] = [[-distance, -frequency], [frequency, -distance]]
    return at_zero(matrix)


@pytest.mark.parametrize(("distance", "verdict"), [(0.6, "regular"), (0.2, "near-critical"), (0.02, "critical")])
def test_the_distance_the_kind_and_the_verdict(distance, verdict):
    for model, kind, frequency in ((real(distance), "real", 0.0), (pair(distance), "pair", 0.7)):
        found = ssntk.criticality(model)
        assert (found.verdict, found.kind, found.near, found.stable) == (verdict, kind, verdict != "regular", True)
        # The radius is exact to 11 digits; a quadratic minimum leaves the root of that to its place.
        np.testing.assert_allclose(found.stability_radius, distance, rtol=1e-10)
        np.testing.assert_allclose(found.critical_frequency, frequency, atol=1e-6)
        np.testing.assert_allclose(found.spectral_abscissa, -distance, rtol=1e-10)
        np.testing.assert_allclose(found.nonnormality, 1, rtol=1e-9)
        assert found.reason.startswith(verdict.capitalize())
        assert ("ssntk.retreat" in found.reason) == (verdict != "regular")
    # sigma_min does not show the pair, since the Jacobian is far from singular.
    np.testing.assert_allclose(ssntk.criticality(pair(distance)).sigma_min, np.hypot(distance, 0.7), rtol=1e-10)


@pytest.mark.parametrize("horizon", [0.5, 8.0, 1000.0])
def test_a_short_horizon_hides_a_slow_mode(horizon):
    def amplification(rate):
        return scipy.integrate.quad(lambda t: ((1 - np.exp(-rate * t)) / rate) ** 2, 0, horizon, epsabs=0, epsrel=1e-12)[0]

    found = ssntk.criticality(real(0.05), horizon=horizon)
    # The quadrature's own tolerance, and 11 digits of the radius.
    expected = np.sqrt(amplification(1.0) / amplification(0.05))
    np.testing.assert_allclose(found.relative_distance, expected, rtol=1e-9)
    assert f"over a horizon of {horizon:g}" in found.reason


def test_any_horizon_gives_a_verdict():
    endless, short = (ssntk.criticality(real(0.05), horizon=horizon) for horizon in (1e300, 1e-300))
    np.testing.assert_allclose([endless.relative_distance, short.relative_distance], [0.05, 1], rtol=1e-9)
    assert (endless.verdict, short.verdict) == ("critical", "regular")


def test_slower_units_change_rates_and_no_verdict():
    matrix = np.diag([-1.0, -0.2, -0.9])
    slow, fast = ssntk.criticality(at_zero(matrix / 10, tau=10.0)), ssntk.criticality(at_zero(matrix))
    assert slow.time_scale == 10
    np.testing.assert_allclose(slow.stability_radius, fast.stability_radius / 10, rtol=1e-10)
    np.testing.assert_allclose(slow.relative_distance, fast.relative_distance, rtol=1e-10)
    given = ssntk.criticality(at_zero(matrix), time_scale=3.0)
    np.testing.assert_allclose(given.relative_distance, 0.6, rtol=1e-10)


def test_drive_is_told_apart_from_distance():
    driven = ssntk.criticality(ssntk.normal_forms.saddle_node(1e-4))
    # dx/dt = mu - x^2 at sqrt(mu): A = -2 sqrt(mu), and l^T F = 1 for mu.
    np.testing.assert_allclose(driven.stability_radius, 2e-2, rtol=1e-9)
    np.testing.assert_allclose(driven.drive, 1, rtol=1e-9)
    model = ssntk.normal_forms.transcritical(-0.3)
    silent, loud = (ssntk.criticality(model, time_scale=0.5, wrt=lens) for lens in (lambda m: m.mu, lambda m: m.h))
    np.testing.assert_allclose([silent.stability_radius, silent.drive, loud.drive], [0.3, 0, 1], atol=1e-12)
    assert silent.verdict == loud.verdict == "near-critical"
    assert "what is given does not" in silent.reason
    assert "what is given does not" not in loud.reason


def test_where_none_is_stable_the_verdict_says_so():
    model = ssntk.LinearSSM(2, 1, 1, key=jr.key(0))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.diag(jnp.asarray([0.2, -1.0])))
    found = ssntk.criticality(model, time_scale=1.0)
    assert not found.stable
    np.testing.assert_allclose(found.stability_radius, -0.2, rtol=1e-10)
    assert "none being stable" in found.reason


def test_the_most_fragile_of_several_stable_points_is_judged():
    # dx/dt = h + x - x^3 near its fold: the outer points are stable, one of them about to vanish at h = 2 / sqrt(27).
    params = {"W": jnp.eye(1), "b": jnp.asarray([-0.384])}
    model = ssntk.VectorField(cubic_field, params, 1, 1)
    found = ssntk.criticality(model, time_scale=1.0)
    assert found.n_fixed_points == 3
    roots = np.roots([-1, 0, 1, -0.384]).real
    np.testing.assert_allclose(found.stability_radius, np.sort(3 * roots**2 - 1)[1], rtol=1e-7)
    # Of several inputs, the one nearest to a bifurcation is reported.
    far, both = ssntk.criticality(model, [0.384], time_scale=1.0), ssntk.criticality(model, [[0.384], [0.0]], time_scale=1.0)
    assert far.stability_radius > found.stability_radius
    np.testing.assert_allclose([both.stability_radius, both.n_fixed_points], [found.stability_radius, 6])


def test_maps():
    flip = ssntk.criticality(ssntk.EulerMap(at_zero(np.diag([-1.0, -19.8])), 0.1))
    # Multipliers 0.9 and -0.98: the second is 0.02 / dt of df/dx away from a flip.
    assert flip.kind == "real"
    np.testing.assert_allclose([flip.stability_radius, flip.critical_frequency], [0.2, np.pi / 0.1], rtol=1e-9)
    assert "flip" in flip.reason
    turning = ssntk.criticality(ssntk.EulerMap(pair(0.3), 0.1))
    expected = (1 - np.hypot(0.97, 0.07)) / 0.1
    assert (turning.kind, "Neimark-Sacker" in turning.reason) == ("pair", True)
    np.testing.assert_allclose(turning.stability_radius, expected, rtol=1e-9)


def test_weights_of_pytorch():
    weight = np.diag([0.9, 0.2]).astype(np.float32)
    names = {"weight_ih_l0": np.eye(2, dtype=np.float32), "weight_hh_l0": weight}
    found = ssntk.criticality(ssntk.from_torch(names))
    # x -> tanh(W x): the multiplier 0.9 is 0.1 from the circle; weights carry seven digits.
    np.testing.assert_allclose(found.stability_radius, 0.1, rtol=1e-6)


def test_an_ensemble_is_its_members(compilations):
    def make(key):
        return ssntk.CTRNN(6, 2, 1, gain=0.8, key=key)

    keys = jr.split(jr.key(3), 5)
    together = ssntk.criticality_ensemble(eqx.filter_vmap(make)(keys), horizon=9.0)
    alone = [ssntk.criticality(make(key), horizon=9.0) for key in keys]
    # vmap draws the same numbers and may round the weights otherwise.
    for name in ("stability_radius", "relative_distance", "drive", "critical_frequency"):
        np.testing.assert_allclose([getattr(c, name) for c in together], [getattr(c, name) for c in alone], rtol=1e-9)
    assert [c.verdict for c in together] == [c.verdict for c in alone]
    compilations.clear()
    other = ssntk.criticality_ensemble([make(key) for key in jr.split(jr.key(4), 5)], horizon=9.0)
    assert len({c.kind for c in together}) == 2  # both ways through the drive were compiled
    assert not compilations
    assert len({c.stability_radius for c in (*together, *other)}) == 10


def test_an_ensemble_tells_what_it_cannot_judge():
    def field(t, x, u, params):
        return params["b"] + x**2

    models = [ssntk.VectorField(field, {"b": jnp.asarray([b])}, 1) for b in (1.0, -1.0)]
    with pytest.raises(ssntk.NumericalError, match="no fixed point"):
        ssntk.criticality(models[0])
    unknown, known = ssntk.criticality_ensemble(models)
    assert (unknown.verdict, unknown.near) == ("unknown", None)
    assert np.isnan(unknown.stability_radius)
    np.testing.assert_allclose(known.stability_radius, 2, rtol=1e-9)


def test_the_warning_comes_once():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            found = ssntk.warn_if_near_critical(real(0.05))
        ssntk.warn_if_near_critical(real(0.8))
    assert [one.category for one in seen] == [ssntk.NearCriticalWarning]
    assert str(seen[0].message) == found.reason


def test_single_precision():
    model = eqx.tree_at(lambda m: m.weight, pair(0.2), replace_fn=lambda w: w.astype(jnp.float32))
    model = ssntk.CTRNN.from_weights(*(np.asarray(a, np.float32) for a in (model.weight, model.input_weight)))
    # Seven digits.
    with pytest.warns(ssntk.PrecisionWarning):
        found = ssntk.criticality(model)
    np.testing.assert_allclose(found.stability_radius, 0.2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("horizon", {"horizon": 0.0}),
        ("time_scale", {"time_scale": -1.0}),
        ("u must", {"u": np.zeros((2, 2))}),
        ("u must", {"u": np.zeros((0, 3))}),
        ("wrt", {"wrt": lambda m: m.nothing}),
        ("n_starts", {"n_starts": 1}),
    ],
)
def test_bad_arguments_are_named(name, given):
    with pytest.raises(ValueError, match=name):
        ssntk.criticality(real(0.5), **given)


@pytest.mark.parametrize("models", [[], 3, real(0.5)])
def test_bad_ensembles_are_named(models):
    with pytest.raises(ValueError, match="models must"):
        ssntk.criticality_ensemble(models)
