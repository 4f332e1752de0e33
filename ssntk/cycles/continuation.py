"""Follow a branch of limit cycles over a parameter, with their stability and the bifurcations on them."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.discrete import Collocation, Shooting, System
from ssntk.cycles.ends import Ends
from ssntk.cycles.events import BRANCH, FOLD, TORUS, CyclePoint, critical, met
from ssntk.cycles.follow import Follower, Seen
from ssntk.cycles.orbit import Orbit, result
from ssntk.cycles.search import METHODS, chosen, stiff
from ssntk.cycles.start import begun, checked, room_for
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import rate_of, sizes_over
from ssntk.dynamics.stability import linearised
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar, outside_jit
from ssntk.models.base import check_autonomous, check_model, dtype_of
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap
from ssntk.precision import watch_precision
from ssntk.results import counted
from ssntk.threads import one_blas_thread

# The longest period, in periods of the first cycle.
LONGEST = 200.0
# The number of parameters in the span at which the typical sizes of the states are computed.
LOOKS = 4
# With more states than this, only the leading multipliers are followed.
LARGE = 100


@outside_jit
@one_blas_thread()
def cycle_continuation(
    family: Any,
    start: Any,
    span: Any,
    *,
    u: Any = None,
    max_period: Any = None,
    method: str = "auto",
    intervals: int = 32,
    degree: int = 4,
    n_multipliers: Any = None,
    step: Any = 0.1,
    max_steps: int = 500,
) -> CycleBranch:
    """Follow the limit cycles that begin at a bifurcation, or a cycle that is known, until they leave the span or end.

    Folds, branch points, period doublings and tori on the branch are located by steps that end where their test function is
    zero. An event whose own multiplier is not known well enough to tell is in `unresolved`. To follow the cycles that
    branch off at a period doubling or at a branch point, start from that event. The result
    does not depend on the units of the states, of time or of p.

    **Arguments:**

    - `start`: a Hopf [`Bifurcation`][] of the family, located, with its parameter in the span. Or an [`Orbit`][] of
      `family(span[0])`, from where the branch is followed towards span[1]. Or a [`CycleEvent`][] of another branch: a
      period doubling, where cycles of twice the period begin, or a branch point, from where the branch that crosses is
      followed on both sides.
    - `span`: (p0, p1), two different values of the parameter. The branch ends where it leaves them.
    - `u`: (d,) constant input. Default zero, or that of the orbit.
    - `max_period`: the longest period, in units of time. Default 200 times the first one.
    - `method`, `intervals`, `degree`: as for [`limit_cycle`][]. The mesh is adapted, and refined if multipliers need it.
    - `n_multipliers`: how many multipliers are followed by shooting. A round is then linearised in a few directions only,
      those of the leading multipliers (Lust et al., SIAM J. Sci. Comput. 19 (1998) 1188), and as a whole at the first cycle,
      where it may bifurcate, and where a multiplier is not told from the unit circle. The others are smaller than 0.1.
      Default: all of up to 100 states; of more states those larger than 0.1 and some more, unless they are more than an
      eighth.
    - `step`: the longest step, without a unit: length is `sqrt(mean((dx / size)^2) + (d log T)^2 + (dp / (p1 - p0))^2)`,
      with the typical sizes of the states, or the extent of the cycle if that is larger.
    - `max_steps`: the largest number of cycles.

    Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if no cycle is found at the start.

    **Example:** z' = (mu + i) z - z |z|^2 has cycles of radius sqrt(mu).

    ```python
    family = ssntk.Family(ssntk.normal_forms.hopf(-0.5, 1.0), "mu")
    (point,) = ssntk.continuation(family, (-0.5, 0.5), x0=[0.0, 0.0]).bifurcations
    branch = ssntk.cycle_continuation(family, point, (-0.5, 0.5))
    print(branch.amplitude[-1].round(3), branch.status)  # [0.707 0.707] left the span at p = 0.5
    ```
    """
    low, high = checked_span(family, span)
    model = family.model
    longest, most = float(as_scalar(step, "step", positive=True)), as_count(max_steps, "max_steps")
    known = start.orbit if isinstance(start, CycleEvent) else start if isinstance(start, Orbit) else None
    if known is not None and method == METHODS[0]:
        method = known.method
    asked = method
    method, intervals, degree = chosen(model.n_state, method, intervals, degree)
    leading = _followed(model.n_state, method, n_multipliers)
    u = constant_input(model, known.u if u is None and known is not None else u)
    x = checked(start, model.n_state, (low, high))
    if (unfit := room_for(start)) != "":
        raise ValueError(unfit)
    watch_precision(dtype_of(model))
    begin = low if isinstance(start, Orbit) else float(start.parameter)
    system, jacobian = placed(family, u, x, begin, (low, high))
    unit = float(system.unit)
    if known is None and asked == METHODS[0] and stiff(jacobian[None], 2 * np.pi / start.frequency):
        method, leading = METHODS[1], None
    # As many steps as the start needed, in each of its segments or of those that it is cut into.
    steps = 1 if known is None else max(1, known.intervals // (len(known) if known is not start else intervals))
    how = Collocation(degree) if method == METHODS[1] else Shooting(steps)
    orbit, directions = begun(start, system, how, intervals, (begin - low) / (high - low))
    given = None if max_period is None else float(as_scalar(max_period, "max_period", positive=True)) / unit
    halves = []
    for along in directions:
        if halves and halves[0].status.startswith("closed"):
            break
        follower = Follower(system, how, longest, leading=leading)
        if not follower.begin(orbit, along):
            continue
        first = follower.points[0].period
        if given is not None and given <= first:
            raise ValueError(f"max_period must be longer than the first period, {first * unit:g}, got {given * unit:g}")
        ends = Ends(family, u, system, (low, high), first * LONGEST if given is None else given)
        status = follower.follow(most, ends.stops, ends.lost)
        halves.append(_branch(follower, ends, status, method, None if isinstance(start, Orbit) else start))
    if not halves:
        raise NumericalError(
            "no cycle was found at the start: it is none of family(span[0]), or the cycles that are born at the bifurcation "
            "lie outside of the span; try another span, more intervals, or an orbit of limit_cycle"
        )
    return halves[0] if len(halves) == 1 else _joined(*halves)


def checked_span(family: Any, span: Any) -> tuple[float, float]:
    """The span. `ValueError` if cycles of the family cannot be followed over it."""
    as_instance(family, "family", Family)
    model = family.model
    check_model(model, "family")
    if isinstance(model, AbstractMap):
        raise ValueError("family must be of flows: cycles of maps are followed by bifurcation_diagram")
    if model.n_state < 2:
        raise ValueError("family must have at least two states: on a line nothing oscillates")
    low, high = (float(p) for p in as_array(span, "span", (2,)))
    if low == high:
        raise ValueError(f"span must hold two different values, got {low} twice")
    return low, high


def placed(family: Family, u: Any, x: Any, begin: float, span: tuple[float, float]) -> tuple[System, np.ndarray]:
    """The flow in units that suit it, and df/dx (n, n) at the state x (n,) at the beginning, in the user's units."""
    (low, high), here, dtype = span, family(begin), dtype_of(family.model)
    check_autonomous(here, "family")
    # At a bifurcation a linear part may be zero, from which everything departs: look along the span.
    models = [here, *(family(p) for p in np.linspace(low, high, LOOKS))]
    sizes = np.asarray(sizes_over(models, u, x.astype(dtype)), float)
    velocity, jacobian = (np.asarray(part) for part in linearised(here, x.astype(dtype), u))
    units = sizes, 1 / rate_of(velocity, jacobian, sizes), low, high - low
    return System(family, u, *(jnp.asarray(part, dtype) for part in units)), jacobian


def _followed(n: int, method: str, count: Any) -> int | None:
    """How many leading multipliers are followed: `None` if all, 0 if those that are not small."""
    if count is None:
        return 0 if n > LARGE and method == METHODS[2] else None
    count = as_count(count, "n_multipliers")
    if method != METHODS[2] and count < n - 1:
        raise ValueError('n_multipliers must be left out by collocation, which knows all of them; or pass method="shooting"')
    return count if count < n - 1 else None


def _joined(first: CycleBranch, second: CycleBranch) -> CycleBranch:
    """One branch of its two halves, which begin at the same bifurcation: the first backwards, then the second."""
    return CycleBranch(
        np.concatenate([first.parameter[::-1], second.parameter]),
        first.orbits[::-1] + second.orbits,
        first.bifurcations[::-1] + second.bifurcations,
        first.unresolved[::-1] + second.unresolved,
        second.end or first.end,
        second.status if first.status == second.status else f"{first.status}; on the other side: {second.status}",
        second.method,
        second.begin,
    )


def _branch(follower: Follower, ends: Ends, status: str, method: str, begin: Any) -> CycleBranch:
    """The result in the user's units."""

    def model(point: CyclePoint) -> Any:
        return ends.family(ends.parameter(point.level))

    def orbit(point: CyclePoint) -> Orbit:
        return result(model(point), ends.system, point.method, point.at, point.judged, np.nan)

    located: list[CycleEvent] = []
    lost: list[CycleEvent] = []
    for seen in follower.seen:
        event = _event(seen, orbit(seen.point), ends)
        if event is not None:
            (located if event.converged else lost).append(event)
    said = f"{status}; {counted(len(lost), 'event')} not located" if lost else status
    lost = _first(lost)
    merged = None if ends.merged is None else _event(ends.merged, orbit(ends.merged.point), ends)
    return CycleBranch(
        np.array([ends.parameter(point.level) for point in follower.points]),
        tuple(orbit(point) for point in follower.points),
        tuple(located),
        tuple(lost),
        ends.end or merged,
        said,
        method,
        begin,
    )


def _first(lost: list[CycleEvent]) -> list[CycleEvent]:
    """Of the events of one kind that were not located the first, which says how many more there are: where multipliers are
    rounding errors they change sign at every step."""
    kept: dict[str, CycleEvent] = {}
    counts: dict[str, int] = {}
    for event in lost:
        kept.setdefault(event.kind, event)
        counts[event.kind] = counts.get(event.kind, 0) + 1
    said = {
        kind: f"{event.reason} ({counts[kind] - 1} more)" if counts[kind] > 1 else event.reason
        for kind, event in kept.items()
    }
    return [dataclasses.replace(event, reason=said[kind]) for kind, event in kept.items()]


def _event(seen: Seen, orbit: Orbit, ends: Ends) -> CycleEvent | None:
    """The event in the user's units; `None` for a neutral saddle, which is no bifurcation."""
    value, _ = critical(seen.kind, seen.point.judged)
    reason = "" if seen.exact else "a step to it failed: try shorter steps"
    reason = reason or seen.doubt
    if not reason and not met(seen.kind, seen.point, seen.change):
        if seen.kind == TORUS:
            return None
        reason = f"its multiplier is {value:.4g} there: try more intervals"
    return CycleEvent(
        kind=seen.kind,
        parameter=ends.parameter(seen.point.level),
        period=orbit.period,
        x=orbit.x[0],
        multiplier=value,
        frequency=float(abs(np.angle(value)) / orbit.period) if seen.kind != FOLD else 0.0,
        orbit=orbit,
        interval=(ends.parameter(seen.between[0]), ends.parameter(seen.between[1])),
        converged=not reason,
        reason=reason,
        tangent=_tangent(seen, ends) if seen.kind == BRANCH else None,
    )


def _tangent(seen: Seen, ends: Ends) -> np.ndarray:
    """How the branch goes on at an event, in the user's units."""
    moves = np.asarray(seen.along.ends, float) * ends.sizes
    reach = ends.span[1] - ends.span[0]
    return np.concatenate([moves.ravel(), [float(seen.along.log_period), float(seen.along.level) * reach]])
