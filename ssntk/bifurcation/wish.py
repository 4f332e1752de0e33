"""What a user asks of a continuation, and whether it can be followed exactly."""

from typing import Any, NamedTuple

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.crossing import as_bounds, as_own
from ssntk.bifurcation.exact import Exact, Refuted, exact_of
from ssntk.bifurcation.pieces import branch_of
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric, as_periods
from ssntk.errors import as_array, as_instance, as_scalar
from ssntk.models.base import check_autonomous
from ssntk.models.family import Family
from ssntk.piecewise.kinks import NotPiecewiseLinear
from ssntk.piecewise.region import region_of

AUTO, SEARCH, EXACT = METHODS = ("auto", "search", "exact")


class Wish(NamedTuple):
    """The arguments of [`continuation`][] besides the family, the span and the method."""

    x0: Any
    at: Any
    both: bool
    u: Any
    step: float
    max_steps: int
    scale: Any
    events: Any
    bounds: Any
    fix: Any
    periods: Any


def exact_family(family: Any, span: Any, u: Any, must: bool) -> Exact | None:
    """A piecewise-linear family over a span; `None` if it is not one, or if it has no borders.

    **Arguments:** `must`: raise `ValueError` instead, which names what is not piecewise linear.
    """
    as_instance(family, "family", Family)
    ends = np.asarray(as_array(span, "span", (2,)), float)
    if ends[0] == ends[1]:
        raise ValueError(f"span must not be empty, got ({ends[0]:g}, {ends[1]:g})")
    given = np.asarray(constant_input(family.model, u), float)
    check_autonomous(family(float(ends[0])))
    try:
        exact = exact_of(family, (float(ends[0]), float(ends[1])), given)
    except NotPiecewiseLinear as error:
        if must:
            raise ValueError(f'method must be "search" or "auto" for this family: {error}') from error
        return None
    # Without borders the model is linear, for which the corrector is exact too.
    return exact if must or len(exact.system.widths) else None


def followed_exactly(family: Any, span: Any, wish: Wish, must: bool) -> Branch | None:
    """The branch as [`continuation`][] returns it; `None` if it has to be searched for.

    **Arguments:** `must`: raise `ValueError` instead, which names the argument that does not fit.
    """
    as_instance(family, "family", Family)
    n = family.model.n_state
    own, bounds, turns = as_own(wish.events, n), as_bounds(wish.bounds, n), as_periods(wish.periods, n)
    refused = {
        "fix": wish.fix is not None,
        "periods": turns is not None and bool(np.any(turns)),
        "events": bool(own.events),
    }
    if any(refused.values()):
        if must:
            name = next(name for name, bad in refused.items() if bad)
            said = {
                "fix": "conserved quantities make df/dx singular in every region",
                "periods": "a piecewise-linear model does not repeat itself",
                "events": "functions of eigenvalues jump at borders, and only ssntk.Crossing is located",
            }
            raise ValueError(f'{name} must not be given with method="exact": {said[name]}')
        return None
    exact = exact_family(family, span, wish.u, must)
    if exact is None:
        return None
    x0 = None if wish.x0 is None else np.asarray(as_array(wish.x0, "x0", (n,)), float)
    scale, q = as_metric(wish.scale, n), _place(exact, wish.at)
    ways = ((1.0, -1.0) if q not in (0.0, 1.0) else (1.0,) if q == 0.0 else (-1.0,)) if wish.both else (1.0,)
    try:
        if singular_at(exact, x0, q) and not must:
            return None
        pattern = exact.start(x0, q)
        if len(ways) > 1:
            pattern, q = exact.beside(pattern, q)
        paths = exact.paths(pattern, q, ways, wish.max_steps)
        return branch_of(exact, paths, scale, wish.step, wish.max_steps, own, bounds, turned=ways == (-1.0,))
    except (Refuted, NotPiecewiseLinear) as error:
        if must:
            raise ValueError(f'method must be "search" or "auto" for this family: {error}') from error
        return None


def _place(exact: Exact, at: Any) -> float:
    """q, the place of `at` as a fraction of the span: 0 at p0, 1 at p1."""
    if at is None:
        return 0.0
    p, ends = float(as_scalar(at, "at")), sorted((exact.p0, exact.p1))
    if not ends[0] <= p <= ends[1]:
        raise ValueError(f"at must lie in the span ({ends[0]:g}, {ends[1]:g}), got {p:g}")
    return float(np.clip((p - exact.p0) / (exact.p1 - exact.p0), 0.0, 1.0))


def singular_at(exact: Exact, x0: np.ndarray | None, q: float) -> bool:
    """Whether df/dx is singular near a state (n,), default zero, as it is everywhere if a quantity is conserved."""
    parts = exact.system.parts(q)
    x = np.zeros(len(exact.system.sizes)) if x0 is None else x0 / exact.system.sizes
    return region_of(exact.system, parts.C @ x + parts.c > 0, q) is None
