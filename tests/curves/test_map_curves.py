"""Curves of saddle-nodes, flips and Neimark-Sacker points of maps, and the strong resonances on them.

Compiles: Newton's iteration for the three kinds of curves and for the points on them, of maps of two states and of one, and
`continuation` of the same maps.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

Family = ssntk.Family


def families(fn, n, dt=1.0, **values):
    model = ssntk.Map(lambda t, x, u, p: fn(x, p), {name: float(value) for name, value in values.items()}, n, dt=dt)
    return Family(model, "p1"), Family(model, "p2")


def henon(x, p):
    return jnp.stack([1.0 + x[1] - p["p1"] * x[0] ** 2, p["p2"] * x[0]])


@pytest.fixture(scope="module")
def henon_curves():
    """The curves of Henon's map over a = p1 and b = p2, of a step of 1/2."""
    both = families(henon, 2, dt=0.5, p1=0.1, p2=0.3)
    over = ssntk.continuation(both[0], (1.0, -0.5), x0=[0.6, 0.2]).bifurcations
    across = ssntk.continuation(both[1], (0.3, -1.5), x0=[0.6, 0.2]).bifurcations
    starts = {event.kind: event for event in (*over, *across)}
    plane = Family.plane(*both)
    return {kind: ssntk.bifurcation_curve(plane, start, ((-2.0, 4.0), (-1.9, 0.9))) for kind, start in starts.items()}


# With c = 1 - b: saddle-nodes at a = -c^2 / 4, flips at a = 3 c^2 / 4, Neimark-Sacker points at b = -1.
LAWS = {
    "saddle-node": lambda a, b: a + (1 - b) ** 2 / 4,
    "flip": lambda a, b: a - 3 * (1 - b) ** 2 / 4,
    "neimark-sacker": lambda a, b: b + 1,
}


@pytest.mark.parametrize("kind", LAWS)
def test_the_curves_of_henons_map(henon_curves, kind):
    curve = henon_curves[kind]
    a, b = curve.parameters.T
    assert len(curve) > 20
    np.testing.assert_allclose(LAWS[kind](a, b), 0, atol=1e-13)
    if kind == "flip":
        # At both ends of the span the multiplier is -1.
        assert np.abs(curve.eigenvalues + 1).min(axis=1).max() <= 1e-6


# At b = -1 the multipliers are exp(+- i angle) with 2 cos(angle) = -2 a x and a x^2 + 2 x = 1: a = cos^2 + 2 cos, up to
# the sign of x.
ANGLES = {"1:1 resonance": 0.0, "1:2 resonance": np.pi, "1:3 resonance": 2 * np.pi / 3, "1:4 resonance": np.pi / 2}


def test_strong_resonances_on_the_curve_of_neimark_sacker_points(henon_curves):
    points = henon_curves["neimark-sacker"].points
    assert sorted(point.kind for point in points) == sorted(ANGLES)
    for point in points:
        angle = ANGLES[point.kind]
        a = np.cos(angle) ** 2 - 2 * np.cos(angle)
        np.testing.assert_allclose(point.parameters, [a, -1], atol=1e-13)
        # The step is 1/2.
        assert abs(point.frequency - angle / 0.5) <= 1e-12
        np.testing.assert_allclose(np.abs(point.eigenvalues), 1, atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), [("saddle-node", "1:1 resonance"), ("flip", "1:2 resonance")])
def test_the_same_resonances_on_the_other_curves(henon_curves, kind, name):
    (point,) = henon_curves[kind].points
    (same,) = [one for one in henon_curves["neimark-sacker"].points if one.kind == name]
    assert point.kind == name
    assert point.converged
    np.testing.assert_allclose(point.parameters, same.parameters, atol=1e-13)
    np.testing.assert_allclose(point.x, same.x, atol=1e-12)
    assert abs(point.frequency - same.frequency) <= 1e-12


def test_a_degenerate_flip():
    # x -> -(1 + p1) x + p2 x^3 - x^5 has flips at p1 = 0 with the coefficient p2.
    both = families(lambda x, p: -(1.0 + p["p1"]) * x + p["p2"] * x**3 - x**5, 1, p1=-0.2, p2=0.3)
    (flip,) = [one for one in ssntk.continuation(both[0], (-0.5, 0.5), x0=[0.0]).bifurcations if one.kind == "flip"]
    curve = ssntk.bifurcation_curve(Family.plane(*both), flip, ((-0.5, 0.5), (-1.0, 1.0)))
    np.testing.assert_allclose(curve.parameters[:, 0], 0, atol=1e-14)
    np.testing.assert_allclose(curve.coefficient, curve.parameters[:, 1], atol=1e-13)
    (point,) = curve.points
    assert point.kind == "degenerate-flip"
    assert np.abs(point.parameters).max() <= 1e-14
    np.testing.assert_allclose(point.eigenvalues, [-1], atol=1e-14)


@pytest.mark.slow
def test_a_map_in_other_units(henon_curves):
    sizes, p1, p2 = jnp.asarray([3e4, 2e-5]), 7e3, 4e-6

    def scaled(x, p):
        return sizes * henon(x / sizes, {"p1": p["p1"] / p1, "p2": p["p2"] / p2})

    both = families(scaled, 2, dt=1e3, p1=0.1 * p1, p2=0.3 * p2)
    x0 = np.asarray([0.6, 0.2]) * np.asarray(sizes)
    (start,) = ssntk.continuation(both[1], (0.3 * p2, -1.5 * p2), x0=x0).bifurcations
    spans = (-2.0 * p1, 4.0 * p1), (-1.9 * p2, 0.9 * p2)
    curve, known = ssntk.bifurcation_curve(Family.plane(*both), start, spans), henon_curves["neimark-sacker"]
    assert [point.kind for point in curve.points] == [point.kind for point in known.points]
    for point, other in zip(curve.points, known.points, strict=True):
        np.testing.assert_allclose(point.parameters / [p1, p2], other.parameters, atol=1e-12)
        np.testing.assert_allclose(point.x / sizes, other.x, rtol=1e-10)
        assert abs(point.frequency * 1e3 - other.frequency * 0.5) <= 1e-11
