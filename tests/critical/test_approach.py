"""The nearest bifurcation over all parameters, of one equation: x' = a + b x - x^3, with its folds at a = -2 x^3, b = 3 x^2.

Nothing expected here comes from the package: conditions, Jacobians and distances are written out in numpy.
"""

import numpy as np
import pytest
import scipy.optimize
from helpers import EXACT, real_roots, seeds

import ssntk

MANY, SOME = seeds(2, 8), seeds(2, 4)


def cubic(t, x, u, p):
    return p["a"] + p["b"] * x - x**3


def cubic_model(a, b):
    return ssntk.VectorField(cubic, {"a": a, "b": b}, 1)


def to_fold(x, a, b, costs=(1.0, 1.0)):
    return np.sqrt(costs[0] * (a + 2 * x**3) ** 2 + costs[1] * (b - 3 * x**2) ** 2)


def nearest_folds(a, b, costs=(1.0, 1.0)):
    """The states at which the distance has a local minimum: roots of its derivative with more distance on both sides."""
    states = np.append(real_roots([2 * costs[0], 0, 3 * costs[1], costs[0] * a, -costs[1] * b]), 0.0)
    return [x for x in states if to_fold(x, a, b, costs) < min(to_fold(x + h, a, b, costs) for h in (1e-3, -1e-3))]


def cubic_starts(seed):
    a, b = np.random.default_rng(seed).normal(size=2)
    return a, b, real_roots([-1, 0, b, a])


def followed(a, b, x, end):
    """Where the equilibrium x goes while (a, b) moves to `end`, by the roots of the polynomial."""
    # Stop just before the fold, at which two roots meet and rounding decides whether they are real.
    for part in np.linspace(0, 0.9999, 4001)[1:]:
        roots = real_roots([-1, 0, b + part * (end[1] - b), a + part * (end[0] - a)])
        near = roots[np.abs(roots - x).argmin()]
        # An equilibrium moves by sqrt(1 / 4000) at the fold itself, and at once by more where it is gone.
        if abs(near - x) > 0.1:
            return np.nan
        x = near
    return x


@pytest.mark.parametrize("seed", MANY)
def test_folds_of_a_cubic(seed):
    a, b, states = cubic_starts(seed)
    model = cubic_model(a, b)
    for x in states[[0, -1]]:
        found = ssntk.approach(model, "singular", x=[x], n_starts=4)
        # One of the local minima, and the nearest of those on the side on which the equilibrium lies.
        minima = [y for y in nearest_folds(a, b) if y * x >= 0]
        nearest = min(minima, key=lambda y: to_fold(y, a, b))
        np.testing.assert_allclose(found.distance, to_fold(nearest, a, b), rtol=EXACT)
        # The minimum is quadratic in x, or quartic at the cusp: the conditions hold to rounding, x to its root.
        np.testing.assert_allclose(found.x, nearest, atol=1e-7)
        end = (float(found.model.params["a"]), float(found.model.params["b"]))
        np.testing.assert_allclose(end, (-2 * nearest**3, 3 * nearest**2), atol=EXACT)
        assert found.kind == ("cusp" if nearest == 0 else "saddle-node")
        # f_xx(1, 1) / 2 = -3 x.
        np.testing.assert_allclose(found.coefficient, -3 * nearest, atol=1e-6)
        assert found.frequency == 0
        assert found.converged
        assert found.minimum
        assert found.reached == bool(abs(followed(a, b, x, end) - nearest) < 0.1)
        assert found.distance == np.nanmin(found.starts)
        assert found.agreeing == np.sum(np.abs(found.starts - found.distance) <= EXACT)


@pytest.mark.parametrize("seed", MANY)
def test_generic_folds_of_a_cubic(seed):
    a, b, states = cubic_starts(seed)
    bound = 0.6
    found = ssntk.approach(cubic_model(a, b), "saddle-node", x=[states[-1]], min_coefficient=bound, n_starts=4)
    # If the nearest fold is too flat, |3 x| = bound on one of its sides.
    nearest = min((y for y in nearest_folds(a, b) if y * states[-1] >= 0), key=lambda y: to_fold(y, a, b))
    if abs(3 * nearest) < bound:
        nearest = min((bound / 3, -bound / 3), key=lambda y: to_fold(y, a, b))
    np.testing.assert_allclose(found.distance, to_fold(nearest, a, b), rtol=EXACT)
    np.testing.assert_allclose(found.coefficient, -3 * nearest, atol=1e-7)
    assert found.kind == "saddle-node"
    assert found.converged


@pytest.mark.parametrize("seed", SOME)
def test_what_a_change_costs(seed):
    a, b, states = cubic_starts(seed)
    for costs in ((5.0, 0.3), (0.1, 2.0)):
        metric = {(lambda m: m.params["a"]): costs[0], (lambda m: m.params["b"]): costs[1]}
        found = ssntk.approach(cubic_model(a, b), "singular", x=[states[-1]], metric=metric, n_starts=4)
        minima = np.array([to_fold(y, a, b, costs) for y in nearest_folds(a, b, costs)])
        # The minimum depends on the start, but it is one of these, to rounding.
        assert np.min(np.abs(found.distance / minima - 1)) <= EXACT


def test_a_network_that_is_there_already():
    fold = cubic_model(0.25, 0.75)
    for kind in ("singular", "saddle-node"):
        found = ssntk.approach(fold, kind, x=[-0.5])
        # Exact numbers: a = -2 x^3, b = 3 x^2 and 1.5 = -3 x.
        assert (found.kind, found.distance, found.family, found.coefficient) == ("saddle-node", 0, None, 1.5)
        assert found.reached
        np.testing.assert_array_equal(found.x, [-0.5])
        assert found.reason.startswith("The network is at a saddle-node already")
    cusp = ssntk.approach(cubic_model(0.0, 0.0), "singular", x=[0.0])
    assert (cusp.kind, cusp.distance, cusp.coefficient) == ("cusp", 0, 0)


def test_the_family_leads_there_and_changes_nothing_else():
    start = cubic_model(0.7, -0.5)
    found = ssntk.approach(start, "saddle-node", x=real_roots([-1, 0, -0.5, 0.7]))
    here, there = found.family(0.0), found.family(found.distance)
    for name in ("a", "b"):
        assert here.params[name] == start.params[name]
        # A product and a sum, rounded.
        np.testing.assert_allclose(there.params[name], found.model.params[name], rtol=0, atol=1e-15)
    # The line has unit speed.
    half = found.family(found.distance / 2)
    moved = [float(half.params[name] - start.params[name]) for name in ("a", "b")]
    np.testing.assert_allclose(np.hypot(*moved), found.distance / 2, rtol=1e-14)
    np.testing.assert_array_equal(found.x_start, real_roots([-1, 0, -0.5, 0.7]))


@pytest.mark.parametrize("seed", SOME)
def test_flips_of_a_cubic_map(seed):
    # 2 + dt (b - 3 x^2) = 0: b = 3 x^2 - 2 / dt, a = 2 x / dt - 2 x^3.
    rng, dt = np.random.default_rng(seed), 0.5
    a, b = rng.normal(), rng.uniform(-3.9, -2)
    (x,) = real_roots([-1, 0, b, a])
    found = ssntk.approach(ssntk.EulerMap(cubic_model(a, b), dt), "flip", x=[x], n_starts=4)
    assert found.kind == "flip"
    np.testing.assert_allclose(found.frequency, np.pi / dt, rtol=1e-14)
    ends = np.array([float(found.model.params[name]) for name in "ab"])
    (y,) = found.x
    np.testing.assert_allclose(ends, (2 * y / dt - 2 * y**3, 3 * y**2 - 2 / dt), atol=EXACT)
    np.testing.assert_allclose(np.hypot(*(ends - (a, b))), found.distance, rtol=1e-12)
    sizes = scipy.optimize.minimize_scalar(
        lambda y: np.hypot(2 * y / dt - 2 * y**3 - a, 3 * y**2 - 2 / dt - b), bracket=(x - 0.1, x + 0.1), tol=1e-10
    )
    # The same minimum by a search in one dimension from the equilibrium.
    np.testing.assert_allclose(found.distance, sizes.fun, rtol=EXACT)
    assert found.converged
    assert found.reached


# --- arguments that do not fit ---

FLOW = cubic_model(0.7, -0.5)
NET = ssntk.CTRNN.from_weights(np.diag([0.5, -0.5]), bias=[0.1, 0.2])


@pytest.mark.parametrize(
    ("model", "how", "name"),
    [
        (FLOW, {"kind": "cusp"}, "kind"),
        (FLOW, {"kind": "flip"}, "kind"),
        (ssntk.EulerMap(FLOW, 0.1), {"kind": "hopf"}, "kind"),
        (FLOW, {"x": [0.0, 1.0]}, "x"),
        (FLOW, {"x": [np.nan]}, "x"),
        (FLOW, {"u": [1.0]}, "u"),
        (FLOW, {"wrt": lambda m: m.weight}, "wrt"),
        (FLOW, {"wrt": lambda m: 2.0}, "wrt"),
        (NET, {"metric": 2.0}, "metric"),
        (NET, {"metric": {"weight": -1.0}}, "metric"),
        (NET, {"metric": {"weight": 0.0}}, "metric"),
        (NET, {"metric": {"weight": np.nan}}, "metric"),
        (NET, {"metric": {"weight": np.ones(3)}}, "metric"),
        (NET, {"metric": {"tau": 1.0}}, "metric"),
        (NET, {"metric": {"wait": 1.0}}, "metric"),
        (NET, {"metric": {3: 1.0}}, "metric"),
        (NET, {"signs": [1.0]}, "signs"),
        (NET, {"signs": {"weight": 2.0}}, "signs"),
        (NET, {"signs": {"weight": 1.0}}, "signs"),
        (NET, {"signs": {"bias": np.ones(3)}}, "signs"),
        (NET, {"signs": {"bias": 1.0}, "wrt": lambda m: m.weight}, "signs"),
        (FLOW, {"min_coefficient": 0.0}, "min_coefficient"),
        (FLOW, {"min_coefficient": [0.1, 0.2]}, "min_coefficient"),
        (FLOW, {"omega_min": -1.0}, "omega_min"),
        (FLOW, {"omega_min": np.inf}, "omega_min"),
        (FLOW, {"n_starts": 0}, "n_starts"),
        (FLOW, {"key": 0}, "key"),
    ],
)
def test_what_does_not_fit_is_named(model, how, name):
    x = {"x": ssntk.find_fixed_points(NET, n_starts=8).x[0]} if model is NET else {}
    if model is FLOW and "x" not in how:
        x = {"x": real_roots([-1, 0, -0.5, 0.7])}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        ssntk.approach(model, **{"kind": "singular"} | x | how)


def test_what_cannot_be_found_says_so():
    x = real_roots([-1, 0, -0.5, 0.7])
    with pytest.raises(ssntk.NumericalError, match="is not a fixed point"):
        ssntk.approach(FLOW, "singular", x=x + 0.1)
    # f_x = b - 3 x^2 does not depend on a, and is negative if b is.
    with pytest.raises(ssntk.NumericalError, match="none of 2 starts led to a singular point"):
        ssntk.approach(FLOW, "singular", x=x, n_starts=2, wrt=lambda m: m.params["a"])
