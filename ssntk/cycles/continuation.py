"""Follow a branch of limit cycles over a parameter, with their stability and the bifurcations on them."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.bifurcation.events.kinds import HOPF, SADDLE_NODE
from ssntk.bifurcation.locate import locate
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.collocation import gauss
from ssntk.cycles.discrete import AbstractMethod, Collocation, Discrete, Shooting, System, flat
from ssntk.cycles.events import FOLD, CyclePoint, critical, met
from ssntk.cycles.follow import Follower, Seen, between, extent, mirrored
from ssntk.cycles.orbit import Orbit, chosen, result
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import rate_of, typical_sizes
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
# A cycle of less than this part of the largest extent may be one that vanishes.
SMALL = 0.02
# Where the period grows and the parameter's share of the tangent is below this, the parameter has come to its limit.
STANDING = 1e-3


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
    step: Any = 0.1,
    max_steps: int = 500,
) -> CycleBranch:
    """Follow the limit cycles that are born at a Hopf point, or a cycle that is known, until they leave the span or end.

    Folds, branch points, period doublings and tori on the branch are located by steps that end where their test function is
    zero. An event whose own multiplier is not known well enough to tell is in `unresolved`. Only the branch itself is
    followed, not the cycles that branch off. The result does not depend on the units of the states, of time or of p.

    **Arguments:**

    - `start`: a Hopf [`Bifurcation`][] of the family, located, with its parameter in the span; or an [`Orbit`][] of
      `family(span[0])`, from where the branch is followed towards span[1].
    - `span`: (p0, p1), two different values of the parameter. The branch ends where it leaves them.
    - `u`: (d,) constant input. Default zero, or that of the orbit.
    - `max_period`: the longest period, in units of time. Default 200 times the first one.
    - `method`, `intervals`, `degree`: as for [`limit_cycle`][]. The mesh is adapted, and refined if multipliers need it.
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
    if not isinstance(start, (Bifurcation, Orbit)):
        raise ValueError(f"start must be a Hopf Bifurcation or an Orbit, got {type(start).__name__}")
    longest, most = float(as_scalar(step, "step", positive=True)), as_count(max_steps, "max_steps")
    method, intervals, degree = chosen(model.n_state, method, intervals, degree)
    u = constant_input(model, start.u if u is None and isinstance(start, Orbit) else u)
    begin = low if isinstance(start, Orbit) else float(start.parameter)
    here = family(begin)
    check_autonomous(here, "family")
    watch_precision(dtype_of(model))
    x = _checked(start, here, u, (low, high))
    dtype = dtype_of(model)
    sizes = np.asarray(typical_sizes(here, u, x.astype(dtype)), float)
    velocity, jacobian = (np.asarray(part) for part in linearised(here, x.astype(dtype), u))
    unit = 1 / rate_of(velocity, jacobian, sizes)
    system = System(family, u, *(jnp.asarray(part, dtype) for part in (sizes, unit, low, high - low)))
    how = Collocation(degree) if method == "collocation" else Shooting(1)
    follower = Follower(system, how, longest)
    orbit, along = _start(start, system, how, intervals, (begin - low) / (high - low))
    given = None if max_period is None else float(as_scalar(max_period, "max_period", positive=True)) / unit
    if not follower.begin(orbit, along):
        raise NumericalError(
            "no cycle was found at the start: it is none of family(span[0]), or the cycles that are born at the Hopf point "
            "lie outside of the span; try another span, more intervals, or an orbit of limit_cycle"
        )
    first = _period(follower.points[0])
    if given is not None and given <= first:
        raise ValueError(f"max_period must be longer than the first period, {first * unit:g}, got {given * unit:g}")
    ends = _Ends(family, u, system, (low, high), first * LONGEST if given is None else given)
    status = follower.follow(most, ends.stops, ends.lost)
    return _branch(follower, system, ends, status, method)


def _checked(start: Any, here: Any, u: Any, span: tuple[float, float]) -> np.ndarray:
    """The state (n,) at which sizes and rates are taken. `ValueError` if the start does not fit."""
    n = here.n_state
    if isinstance(start, Orbit):
        if start.x.shape[1] != n:
            raise ValueError(f"start must be an orbit of {n} states, got {start.x.shape[1]}")
        return np.asarray(start.x[0], float)
    if start.kind != HOPF.name:
        raise ValueError(f"start must be a Hopf point, got a {start.kind}")
    if not start.converged:
        raise ValueError(f"start must have been located: {start.reason}")
    room = 1e-9 * abs(span[1] - span[0])
    if not min(span) - room <= float(start.parameter) <= max(span) + room:
        raise ValueError(f"start must lie in the span, and p = {float(start.parameter):.17g} does not")
    if np.shape(start.x) != (n,):
        raise ValueError(f"start must have a state of {n} entries, got {np.shape(start.x)}")
    return np.asarray(start.x, float)


def _start(start: Any, system: System, how: AbstractMethod, count: int, level: float) -> tuple[Discrete, Discrete | None]:
    """The orbit to begin with; from a Hopf point the equilibrium, with the direction in which its oscillation grows."""
    sizes, unit = np.asarray(system.sizes, float), float(system.unit)
    nodes, dtype = gauss(how.degree)[0] if isinstance(how, Collocation) else np.zeros(0), system.sizes.dtype
    mesh = np.linspace(0, 1, count + 1)

    def put(*parts: Any) -> Discrete:
        return Discrete._make(jnp.asarray(part, dtype) for part in parts)

    def sampled(mesh: np.ndarray, at: Any) -> tuple[np.ndarray, np.ndarray]:
        within = (mesh[:-1, None] + np.diff(mesh)[:, None] * nodes).ravel()
        return at(mesh[:-1]), at(within).reshape(count, len(nodes), len(sizes))

    if isinstance(start, Orbit):
        # The points of the orbit carry its mesh.
        times, states = np.append(start.ts, start.period) / start.period, np.vstack([start.x, start.x[:1]])
        mesh = np.interp(np.linspace(0, len(times) - 1, count + 1), np.arange(len(times)), times)
        orbit = sampled(mesh, CubicSpline(times, states / sizes, bc_type="periodic"))
        return put(mesh, *orbit, np.log(start.period / unit), level), None
    x, right = np.asarray(start.x, float) / sizes, np.asarray(start.right) / sizes
    right = right if float(start.frequency) > 0 else right.conj()
    ends, within = sampled(mesh, lambda times: np.real(np.exp(2j * np.pi * times)[:, None] * right))
    length, period = np.sqrt(np.mean(ends**2)), 2 * np.pi / (abs(float(start.frequency)) * unit)
    orbit = put(mesh, 0 * ends + x, 0 * within + x, np.log(period), level)
    return orbit, put(mesh, ends / length, within / length, 0.0, 0.0)


def _period(point: CyclePoint) -> float:
    return float(np.exp(point.at.orbit.log_period))


class _Ends:
    """The ways in which a branch ends."""

    def __init__(self, family: Family, u: Any, system: System, span: tuple[float, float], longest: float):
        self.family, self.u, self.system, self.span, self.longest = family, u, system, span, longest
        self.end: Bifurcation | None = None
        self.sizes = np.asarray(system.sizes, float)

    def parameter(self, level: float) -> float:
        return self.span[0] + level * (self.span[1] - self.span[0])

    def stops(self, follower: Follower, ahead: CyclePoint) -> str | None:
        """Why the branch ends before the point ahead; `None` if it goes on."""
        here = follower.resized(follower.points[-1])
        if mirrored(here.at.orbit, ahead.at.orbit):
            return self.shrinks(here, ahead)
        if not 0 <= ahead.level <= 1 and not 0 <= here.level <= 1:
            return f"left the span at p = {self.parameter(here.level):g}"
        if not 0 <= ahead.level <= 1:
            level = 0.0 if ahead.level < 0 else 1.0
            part = (level - here.level) / (ahead.level - here.level)
            guess = between(here.at.orbit, ahead.at.orbit, part)._replace(level=jnp.asarray(level, self.system.sizes.dtype))
            point = follower.corrected(guess, flat(guess), 0.0)
            if point is None:
                return f"left the span after p = {self.parameter(here.level):g}, and no cycle was found at its end"
            follower.watch(here, _onwards(point, here), follower.apart(here, point))
            follower.points.append(point)
            return f"left the span at p = {self.parameter(level):g}"
        if _period(ahead) > self.longest:
            return self.slows(ahead)
        return "closed" if self.closes(follower.points, ahead) else None

    def shrinks(self, here: CyclePoint, ahead: CyclePoint) -> str:
        """The end at a Hopf point, which the branch has run through."""
        first, second = extent(here.at.orbit), extent(ahead.at.orbit)
        orbit = between(here.at.orbit, ahead.at.orbit, first / (first + second))
        return self.vanishes(orbit) or (
            f"shrinks to an equilibrium near p = {self.parameter(float(orbit.level)):g}, and no Hopf point was located there"
        )

    def vanishes(self, orbit: Discrete) -> str:
        """The end at the Hopf point near a small orbit; empty if there is none of its frequency."""
        x = np.asarray(orbit.ends, float).mean(axis=0) * self.sizes
        try:
            found = locate(self.family, HOPF.name, parameter=self.parameter(float(orbit.level)), x=x, u=self.u)
        except NumericalError:
            return ""
        turns = float(found.frequency) * float(self.system.unit) * np.exp(float(orbit.log_period)) / (2 * np.pi)
        if not found.converged or not 0.8 < turns < 1.25:
            return ""
        self.end = found
        return f"shrinks to the Hopf point at p = {found.parameter:g}"

    def lost(self, follower: Follower) -> str:
        """Why no further step succeeds: the cycle may be too small to be told from the equilibrium."""
        orbit = follower.points[-1].at.orbit
        small = extent(orbit) < SMALL * max(extent(point.at.orbit) for point in follower.points)
        return (
            self.vanishes(orbit) if small else ""
        ) or f"steps became too short at p = {self.parameter(float(orbit.level)):g}"

    def slows(self, ahead: CyclePoint) -> str:
        """The end at a saddle-node on the cycle, or at a homoclinic orbit: there an equilibrium lies where it is slowest."""
        orbit, said = ahead.at.orbit, f"the period grows beyond {self.longest * float(self.system.unit):.4g}"
        ends, length = np.asarray(orbit.ends, float), np.exp(float(orbit.log_period))
        times = np.asarray(orbit.mesh, float)[:-1]
        speed = np.linalg.norm(np.roll(ends, -1, axis=0) - ends, axis=1) / (np.diff(np.asarray(orbit.mesh)) * length)
        slow = ends[int(speed.argmin())]
        slowest = ends[np.abs((times - times[int(speed.argmin())] + 0.5) % 1 - 0.5) <= 0.05]
        room = np.abs(slowest - slow).max() + 0.05 * np.ptp(ends, axis=0).max()
        p = self.parameter(ahead.level)
        try:
            found = locate(self.family, SADDLE_NODE.name, parameter=p, x=slow * self.sizes, u=self.u)
        except NumericalError:
            found = None
        if found is not None and found.converged and np.abs(found.x / self.sizes - slow).max() <= room:
            self.end = found
            return f"{said}: it ends at a saddle-node on the cycle, at p = {found.parameter:g}"
        if abs(ahead.turn) < STANDING:
            return f"{said}, near p = {p:g} (homoclinic, or a saddle-node on the cycle that was not located)"
        return f"{said} at p = {p:g}, and p still changes: a longer max_period follows it further"

    def closes(self, points: list[CyclePoint], ahead: CyclePoint) -> bool:
        """Whether the branch passes its first cycle again, in the same direction."""
        first, here = points[0], points[-1]
        if len(points) < 10 or (here.level - first.level) * (ahead.level - first.level) > 0 or first.turn * ahead.turn <= 0:
            return False
        change = ahead.level - here.level
        part = (first.level - here.level) / change if change else 0.0

        def marks(point: CyclePoint) -> np.ndarray:
            ends = np.asarray(point.at.orbit.ends, float)
            return np.concatenate([ends.max(axis=0), ends.min(axis=0), [float(point.at.orbit.log_period)]])

        there = marks(here) + part * (marks(ahead) - marks(here))
        return bool(np.abs(there - marks(first)).max() <= 0.02 * max(1.0, np.abs(marks(first)).max()))


def _onwards(point: CyclePoint, here: CyclePoint) -> CyclePoint:
    """A point that was corrected at a fixed level, with its tangent along the way from `here`."""
    return point if point.turn * here.turn >= 0 else point._replace(at=point.at._replace(tangent=here.at.tangent))


def _branch(follower: Follower, system: System, ends: _Ends, status: str, method: str) -> CycleBranch:
    """The result in the user's units."""

    def model(point: CyclePoint) -> Any:
        return ends.family(ends.parameter(point.level))

    def orbit(point: CyclePoint) -> Orbit:
        return result(model(point), system, follower.method, point.at, point.judged, np.nan)

    located: list[CycleEvent] = []
    lost: list[CycleEvent] = []
    for seen in follower.seen:
        event = _event(seen, orbit(seen.point), ends)
        if event is not None:
            (located if event.converged else lost).append(event)
    said = f"{status}; {counted(len(lost), 'event')} not located" if lost else status
    lost = _first(lost)
    return CycleBranch(
        np.array([ends.parameter(point.level) for point in follower.points]),
        tuple(orbit(point) for point in follower.points),
        tuple(located),
        tuple(lost),
        ends.end,
        said,
        method,
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


def _event(seen: Seen, orbit: Orbit, ends: _Ends) -> CycleEvent | None:
    """The event in the user's units; `None` for a neutral saddle, which is no bifurcation."""
    value, _ = critical(seen.kind, seen.point.judged)
    reason = "" if seen.exact else "a step to it failed: try shorter steps"
    reason = reason or seen.doubt
    if not reason and not met(seen.kind, seen.point):
        if seen.kind == "torus":
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
    )
