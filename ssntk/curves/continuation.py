"""Follow a curve of bifurcations over two parameters, and locate the points of codimension two on it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import CYCLE_FOLD
from ssntk.bifurcation.point import Bifurcation
from ssntk.compiled import Held
from ssntk.curves.bautin import fold_beside
from ssntk.curves.coefficients import vectors
from ssntk.curves.correct import Corrected, corrected, linear
from ssntk.curves.curve import Codim2, Curve
from ssntk.curves.follow import Follower, Point
from ssntk.curves.joined import THROUGH, starts_at
from ssntk.curves.kinds import CROSSINGS, FLOWS, GENERALISED_HOPF, MAPS, Followed
from ssntk.curves.modes import Frame, Pair
from ssntk.curves.of_cycles import FOLLOWED, cycle_curve
from ssntk.curves.points import Judge, Seen
from ssntk.curves.system import System, system_of
from ssntk.cycles.branch import CycleEvent
from ssntk.dynamics.fixed_points import constant_input
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar, outside_jit
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.plane import Plane, spans_of
from ssntk.precision import watch_precision
from ssntk.threads import one_blas_thread

# A start lies on the plane if the velocity, and the distance of the critical eigenvalue from the edge of stability, are
# below this part of their terms.
NEAR = 1e-6
# A curve of crossing branches that is shorter than this part of the longest step is a single point.
APART = 1e-3


@outside_jit
@one_blas_thread()
def bifurcation_curve(
    plane: Any,
    bifurcation: Any,
    spans: Any,
    *,
    at: Any = None,
    kind: Any = None,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 2000,
) -> Curve:
    """Follow a curve of bifurcations over two parameters, to both sides of one that is known.

    Curves are followed of saddle-nodes and Hopf points; for maps of saddle-nodes, flips and Neimark-Sacker points; of
    transcriticals and pitchforks, where a symmetry, or a state that stays an equilibrium, keeps branches crossing; and of
    folds, period doublings and tori of limit cycles. A curve of Hopf points passes Bogdanov-Takens points, beyond which it
    consists of neutral saddles: two real eigenvalues whose sum is zero. It ends where it leaves the spans, if it is closed,
    or at a neutral saddle where a third real eigenvalue meets one of the two. The points of codimension two on curves of
    equilibria are located, with the coefficients of their normal forms; see [`Codim2`][]. The result does not depend on the
    units of the states, of time or of the parameters.

    The equations are those of the equilibria and one further condition, which is formed from bordered systems (Govaerts,
    *Numerical Methods for Bifurcations of Dynamical Equilibria*, 2000). For pairs it is formed on their invariant subspace
    of two dimensions, so that fast states do not spoil it.

    **Arguments:**

    - `plane`: the two parameters p1 and p2, as [`Family.plane`][] makes them.
    - `bifurcation`: a located [`Bifurcation`][] of either family, a located [`CycleEvent`][], or a [`Codim2`][] of another
      curve. `kind`: in the last case, which curve begins there: "saddle-node" or "hopf" at a Bogdanov-Takens or a zero-Hopf
      point, "hopf" (that of the other pair) at a double-Hopf point, "cycle-fold" at a generalised Hopf point; and likewise
      for maps.
    - `spans`: (span1, span2), the two ends of p1 and of p2. The curve ends where it leaves either.
    - `at`: (p1, p2), where the bifurcation lies. Default: its own parameter in one family, and in the other one the value
      that the shared model has. The first family is tried first.
    - `u`: (d,) constant input. Default zero.
    - `step`: the longest step, without a unit: length is `sqrt(mean((dx / size)^2) + (dp1 / span1)^2 + (dp2 / span2)^2)`
      with the typical sizes of the states. Steps are shorter where the curve bends. Two points of codimension two within
      one step may be missed.
    - `max_steps`: the largest number of points to either side.

    Raises `ValueError` for arguments that do not fit, among them a bifurcation that does not lie on the plane, or of a kind
    of which no curves are followed. Raises `NumericalError` if the curve cannot be started.

    **Example:** the saddle-nodes of x' = h + mu x - x^3 are at 27 h^2 = 4 mu^3, which has a cusp.

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    families = ssntk.Family(model, "h"), ssntk.Family(model, "mu")
    fold = ssntk.continuation(families[0], (-1.0, 1.0)).bifurcations[0]
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*families), fold, ((-1.0, 1.0), (-1.0, 2.0)))
    h, mu = curve.parameters.T
    print(abs(27 * h**2 - 4 * mu**3).max() < 1e-12, [point.kind for point in curve.points])  # True ['cusp']
    ```
    """
    longest, most = float(as_scalar(step, "step", positive=True)), as_count(max_steps, "max_steps", least=2)
    as_instance(plane, "plane", Plane)
    u = constant_input(plane.model, u)
    if isinstance(bifurcation, Codim2):
        bifurcation, at = _switched(plane, u, bifurcation, kind, spans)
    elif kind is not None:
        raise ValueError("kind must be left out unless bifurcation is a point of codimension two")
    followed, ends, places = checked(plane, bifurcation, spans, at)
    check_autonomous(plane(*places[0]), "plane")
    watch_precision(dtype_of(plane.model))
    if followed is None:
        return cycle_curve(plane, bifurcation, ends, places, u, longest, most)
    return traced(plane, u, followed, bifurcation, ends, places, longest, most)


def traced(
    plane: Plane,
    u: Array,
    followed: Followed,
    bifurcation: Bifurcation,
    ends: np.ndarray,
    places: list[tuple[float, float]],
    longest: float,
    most: int,
    correct: Callable[..., Corrected | None] = corrected,
) -> Curve:
    """The curve through a bifurcation of equilibria, at the first of the places at which it lies, from arguments that are
    checked."""
    x = np.asarray(as_array(bifurcation.x, "bifurcation.x", (plane.model.n_state,)).astype(dtype_of(plane.model)))
    system, z = _placed(plane, u, ends, x, places, bifurcation)
    follower = Follower(system, followed.mode, longest, correct)
    start = follower.begin(z, _frame(followed, bifurcation, np.asarray(system.sizes, float)))
    if start is None:
        raise NumericalError("the curve cannot be started: Newton's iteration from the bifurcation does not stay there")
    start = _signed(start, bifurcation, system)
    first, status = follower.follow(start, most)
    points, closed = first, status == "closed"
    if not closed:
        second, other = follower.follow(start.reversed(), most)
        closed = other == "closed"
        points = second if closed else [point.reversed() for point in second[:0:-1]] + first
        status = other if other == status or closed else f"{other}; on the other side: {status}"
    moved = max(np.abs(point.z[-2:] - start.z[-2:]).max() for point in points)
    if bifurcation.kind in CROSSINGS and moved < APART * longest:
        raise NumericalError(
            f"no curve passes through this {bifurcation.kind}: it does not persist if both parameters change"
        )
    clock = plane.clock
    judge = Judge(follower, followed, isinstance(plane.model, AbstractMap), float(system.unit), clock)
    return _curve(judge, points, bifurcation, closed, status)


def checked(
    plane: Any, bifurcation: Any, spans: Any, at: Any
) -> tuple[Followed | None, np.ndarray, list[tuple[float, float]]]:
    """How the curve is followed, `None` for cycles, its spans (2, 2), and where its start may lie, from arguments that are
    checked."""
    kind = str(getattr(bifurcation, "kind", None))
    of_cycles = isinstance(bifurcation, CycleEvent)
    if not of_cycles:
        as_instance(bifurcation, "bifurcation", Bifurcation)
    known = MAPS if isinstance(plane.model, AbstractMap) else dict.fromkeys(FOLLOWED) if of_cycles else FLOWS
    if kind not in known:
        raise ValueError(f"bifurcation must be one of {', '.join(map(repr, known))} to be followed, got a {kind!r}")
    if not bifurcation.converged:
        raise ValueError(f"bifurcation must be located, got one that is not: {bifurcation.reason}")
    ends = spans_of(spans)
    if np.shape(bifurcation.x) != (plane.model.n_state,):
        raise ValueError(
            f"bifurcation must lie on the plane: it has {np.size(bifurcation.x)} states, and the model {plane.model.n_state}"
        )
    if at is not None:
        p1, p2 = np.asarray(as_array(at, "at", (2,)), float).tolist()
        places = [(p1, p2)]
    else:
        p, base = float(bifurcation.parameter), plane.base
        places = [(p, base[1]), (base[0], p)]
    inside = [place for place in places if all(low <= p <= high for p, (low, high) in zip(place, ends, strict=True))]
    if not inside:
        said = " or ".join(f"({p1:g}, {p2:g})" for p1, p2 in places)
        raise ValueError(f"{'spans' if at is None else 'at'} must hold the bifurcation, which lies at {said}")
    return known[kind], ends, inside


def _switched(plane: Plane, u: Array, point: Codim2, kind: Any, spans: Any) -> tuple[Any, tuple[float, float]]:
    """The bifurcation of this kind that a point of codimension two consists of, or that begins there, and its place."""
    ends, here = spans_of(spans), (float(point.parameters[0]), float(point.parameters[1]))
    if not point.converged:
        raise ValueError(f"bifurcation must be located, got one that is not: {point.reason}")
    known = (CYCLE_FOLD.name,) if point.kind == GENERALISED_HOPF else THROUGH.get(point.kind, ())
    if kind not in known:
        said = " or ".join(map(repr, dict.fromkeys(known))) or "none: no other curve begins there"
        raise ValueError(f"kind must be that of a curve through a {point.kind} point, {said}; got {kind!r}")
    if point.kind == GENERALISED_HOPF:
        return fold_beside(plane, u, point, ends)
    x = np.asarray(as_array(point.x, "bifurcation.x", (plane.model.n_state,)).astype(dtype_of(plane.model)))
    sizes = np.asarray(system_of(plane, u, ends, x, np.array(here)).sizes, float)
    starts = [one for one in starts_at(plane, u, point, sizes) if one.kind == kind]
    # Where two pairs meet, the frequency of the point is that of the pair whose curve it was found on.
    return max(starts, key=lambda one: abs(float(one.frequency) - float(point.frequency))), here


def _placed(
    plane: Plane, u: Array, ends: np.ndarray, x: np.ndarray, places: list[tuple[float, float]], bifurcation: Bifurcation
) -> tuple[System, np.ndarray]:
    """The system in units that suit it, and the start in it, at the first of the places at which the bifurcation lies."""
    for place in places:
        system = system_of(plane, u, ends, x, np.array(place))
        z = system.point(x, np.array(place)).astype(x.dtype)
        held = Held.of(system)
        velocity, jacobian = (np.asarray(part, float) for part in linear(held, z))
        # At the bifurcation of a single state its rate is zero: compare with that beside it.
        aside = np.append(np.where(np.arange(len(x)) % 2, -0.5, 0.5), [0.0, 0.0]).astype(x.dtype)
        beside = [np.abs(np.nan_to_num(np.asarray(linear(held, z + sign * aside)[1], float))) for sign in (1, -1)]
        sizes = np.abs(jacobian) + beside[0] + beside[1]
        terms = sizes @ (1 + np.abs(z))
        matrix, edge = jacobian[:, :-2], complex(*plane.clock.edge(float(bifurcation.frequency))) * float(system.unit)
        if not np.isfinite(jacobian).all() or not (np.abs(velocity) <= NEAR * terms).all():
            continue
        rows = sizes[:, :-2].sum(axis=1, keepdims=True) + abs(edge)
        shifted = (matrix - edge * np.eye(len(matrix))) / np.where(rows > 0, rows, 1.0)
        if np.linalg.svd(shifted, compute_uv=False)[-1] <= NEAR:
            return system, z
    said = " nor ".join(f"at ({p1:g}, {p2:g})" for p1, p2 in places)
    raise ValueError(
        f"bifurcation must lie on the plane: its state is no {bifurcation.kind} {said}; pass at=(p1, p2) if the model of "
        "the families has another value of the second parameter"
    )


def _frame(followed: Followed, bifurcation: Bifurcation, sizes: np.ndarray) -> Frame:
    """The critical vectors of a bifurcation, in sizes."""
    right, left = np.asarray(bifurcation.right) / sizes, np.asarray(bifurcation.left) * sizes
    if not isinstance(followed.mode, Pair):
        return followed.mode.start(right.real[:, None], left.real[:, None])
    return followed.mode.start(*(np.stack([one.real, one.imag], axis=1) for one in (right, left)))


def _signed(start: Point, bifurcation: Bifurcation, system: System) -> Point:
    """The start, with a null vector of the same sign as that of the bifurcation."""
    if start.frame.right.shape[1] == 2:
        return start
    right, _ = vectors(start)
    along = float(np.sum(right * np.asarray(system.sizes, float) * np.real(bifurcation.right)))
    return start if along >= 0 else start._replace(frame=Frame(*(-part for part in start.frame)))


def _curve(judge: Judge, points: list[Point], begin: Bifurcation, closed: bool, status: str) -> Curve:
    """The result in the user's units."""
    system, clock = judge.follower.system, judge.clock
    located: list[Codim2] = []
    lost: list[Codim2] = []
    values = judge.coefficients(points)
    spectra = judge.eigenvalues(points)
    for seen in judge.found(points, values, spectra):
        (lost if seen.reason else located).append(_codim2(judge, seen))
    z = np.stack([np.asarray(point.z, float) for point in points])
    said = status if not lost else f"{status}; {len(lost)} not located"
    return Curve(
        kind=begin.kind,
        parameters=system.parameters(z),
        x=system.states(z),
        frequency=np.array([judge.frequency(point) for point in points]),
        coefficient=values,
        eigenvalues=clock.shown(spectra / judge.unit),
        points=tuple(located),
        unresolved=tuple(lost),
        closed=closed,
        status=said,
        plane=system.plane,
        begin=begin,
        spans=np.stack([system.parameters(np.array([0.0, 0.0])), system.parameters(np.array([1.0, 1.0]))], axis=1),
    )


def _codim2(judge: Judge, seen: Seen) -> Codim2:
    """The point in the user's units."""
    system, point = judge.follower.system, seen.point
    return Codim2(
        kind=seen.name,
        parameters=system.parameters(np.asarray(point.z, float)),
        x=system.states(np.asarray(point.z, float)),
        frequency=seen.frequency,
        eigenvalues=judge.clock.shown(judge.eigenvalues([point])[0] / judge.unit),
        coefficients=seen.coefficients,
        converged=not seen.reason,
        reason=seen.reason,
    )
