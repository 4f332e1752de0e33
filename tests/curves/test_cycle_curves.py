"""Curves of bifurcations of limit cycles over two parameters, against closed forms and against branches over one parameter.

Compiles: Newton's iteration on cycles of fields of 2 and 3 states, over one parameter and on lines of a plane.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

Family = ssntk.Family


def bautin(t, x, u, p):
    """r' = p1 r + p2 r^3 - r^5: folds of cycles at p1 = -p2^2 / 4, p2 > 0. In units of `size` and `rate`."""
    y = x / p["size"]
    squared, turned = y @ y, jnp.stack([-y[1], y[0]])
    grows = p["p1"] / p["unit"] * y + squared * (p["p2"] * y - 0.7 * turned) - squared**2 * y
    return p["rate"] * p["size"] * (2.0 * turned + grows)


def langford(t, x, u, p):
    """A circle at z = b, around which a torus begins at a = b^2."""
    z = x[2]
    turning = [(z - p["b"]) * x[0] - 3.5 * x[1], 3.5 * x[0] + (z - p["b"]) * x[1]]
    return jnp.stack([*turning, 0.6 + p["a"] * z - z**3 / 3 - x[0] ** 2 - x[1] ** 2])


def roessler(t, x, u, p):
    return jnp.stack([-x[1] - x[2], x[0] + p["a"] * x[1], 0.2 + x[2] * (x[0] - p["c"])])


def folds(size=1.0, rate=1.0, unit=1.0):
    """The curve of the fold at p2 = 1, with the states, the time and p1 in other units."""
    values = {"p1": -0.5 * unit, "p2": 1.0, "size": size, "rate": rate, "unit": unit}
    model = ssntk.VectorField(bautin, values, 2)
    both = Family(model, "p1"), Family(model, "p2")
    span = (-0.5 * unit, 0.5 * unit)
    (point,) = [one for one in ssntk.continuation(both[0], span, x0=[0.0, 0.0]).bifurcations if one.kind == "hopf"]
    (fold,) = ssntk.cycle_continuation(both[0], point, span).bifurcations
    return ssntk.bifurcation_curve(Family.plane(*both), fold, (span, (-0.5, 1.2)))


@pytest.fixture(scope="module")
def fold_curve():
    return folds()


def test_folds_of_cycles_by_their_closed_form(fold_curve):
    p1, p2 = fold_curve.parameters.T
    assert fold_curve.kind == "cycle-fold"
    np.testing.assert_allclose(p1, -(p2**2) / 4, atol=1e-13)
    # At radius r with r^2 = p2 / 2 they turn by 2 - 0.7 r^2.
    np.testing.assert_allclose(fold_curve.period, 2 * np.pi / (2 - 0.35 * p2), rtol=1e-9)
    np.testing.assert_allclose(np.hypot(*fold_curve.x.T), np.sqrt(p2 / 2), rtol=1e-6)
    # They end where the radius is zero, and where they leave the span.
    assert p2.min() < 1e-3
    assert p2.max() == 1.2
    assert "the cycles shrink to an equilibrium" in fold_curve.status
    assert "as at a generalised Hopf point" in fold_curve.status
    assert "left the span at" in fold_curve.status


@pytest.mark.parametrize(
    ("size", "rate", "unit"),
    [pytest.param(1e4, 1e-3, 1e-5, marks=pytest.mark.slow), pytest.param(1e-6, 1e5, 1e3, marks=pytest.mark.slow)],
)
def test_units_do_not_matter(fold_curve, size, rate, unit):
    scaled = folds(size, rate, unit)
    assert scaled.status.count("shrink") == 1
    p1, p2 = scaled.parameters.T / np.array([[unit], [1.0]])
    np.testing.assert_allclose(p1, -(p2**2) / 4, atol=1e-12)
    np.testing.assert_allclose(scaled.period * rate, 2 * np.pi / (2 - 0.35 * p2), rtol=1e-9)
    np.testing.assert_allclose(p2.min(), fold_curve.parameters[:, 1].min(), atol=1e-3)


@pytest.mark.slow
def test_tori_by_their_closed_form():
    model = ssntk.VectorField(langford, {"a": 0.4, "b": 0.7}, 3)
    both = Family(model, "a"), Family(model, "b")
    start = ssntk.limit_cycle(model, [1.0, 0.0, 0.7])
    (torus,) = ssntk.cycle_continuation(both[0], start, (0.4, 0.6)).bifurcations
    curve = ssntk.bifurcation_curve(Family.plane(*both), torus, ((0.3, 0.9), (0.5, 0.9)))
    a, b = curve.parameters.T
    np.testing.assert_allclose(a, b**2, rtol=1e-12)
    np.testing.assert_allclose(curve.period, 2 * np.pi / 3.5, rtol=1e-10)
    # Radius and height oscillate at the root of 2 r^2, with r^2 = 0.6 + a b - b^3 / 3; the angle is known modulo 2 pi.
    turn = np.sqrt(2 * (0.6 + a * b - b**3 / 3)) * curve.period
    np.testing.assert_allclose(np.cos(curve.frequency * curve.period), np.cos(turn), atol=1e-8)
    assert curve.status.count("left the span") == 2
    np.testing.assert_allclose(curve.parameters[[0, -1]], [[0.3, 0.3**0.5], [0.81, 0.9]], rtol=1e-12)


@pytest.fixture(scope="module")
def doublings():
    model = ssntk.VectorField(roessler, {"a": 0.2, "c": 2.5}, 3)
    both = Family(model, "c"), Family(model, "a")
    start = ssntk.limit_cycle(model, [1.0, 1.0, 0.0])
    (double,) = ssntk.cycle_continuation(both[0], start, (2.5, 3.5)).bifurcations
    return both, ssntk.bifurcation_curve(Family.plane(*both), double, ((2.0, 5.0), (0.15, 0.25)))


@pytest.mark.slow
@pytest.mark.parametrize("place", [3, 10, -4])
def test_period_doublings_are_those_of_branches(doublings, place):
    both, curve = doublings
    assert curve.kind == "period-doubling"
    np.testing.assert_allclose(np.abs(curve.eigenvalues + 1).min(axis=1), 0, atol=1e-6)
    c, a = curve.parameters[place]
    across = both[0].of(both[1](float(a)))
    start = ssntk.limit_cycle(across(float(c) - 0.3), [1.0, 1.0, 0.0])
    branch = ssntk.cycle_continuation(across, start, (float(c) - 0.3, float(c) + 0.3))
    (double, *_) = [one for one in branch.bifurcations if one.kind == "period-doubling"]
    np.testing.assert_allclose(double.parameter, c, rtol=1e-7)
    np.testing.assert_allclose(double.period, curve.period[place], rtol=1e-7)


def test_other_numbers_compile_nothing(fold_curve, compilations):
    again = folds(unit=1.5)
    assert len(again) > 5
    assert compilations == []


def test_it_is_saved_and_mistakes_are_named(fold_curve, tmp_path):
    assert "cycle-fold" in repr(fold_curve)
    header = fold_curve.to_csv(tmp_path / "curve.csv").read_text().splitlines()[0]
    assert "period" in header
    plane, event = fold_curve.plane, fold_curve.begin
    spans = ((-0.5, 0.5), (-0.5, 1.2))
    with pytest.raises(ValueError, match="bifurcation must lie on the plane"):
        ssntk.bifurcation_curve(plane, event, spans, at=(-0.2, 1.0))
    with pytest.raises(ValueError, match=r"spans\[0\] must not be empty"):
        ssntk.bifurcation_curve(plane, event, ((0.1, 0.1), (0.0, 1.0)))
    with pytest.raises(ValueError, match="the curve must be of equilibria"):
        fold_curve.ntk_along()
