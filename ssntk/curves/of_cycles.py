"""Follow a curve of bifurcations of limit cycles over two parameters: folds, period doublings and tori.

Each point is located on the line across the curve through a prediction, by the steps with which events are located on a
branch over one parameter.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.bifurcation.events import kinds
from ssntk.curves.curve import Curve
from ssntk.cycles.branch import CycleEvent
from ssntk.cycles.discrete import AbstractMethod, Collocation, Discrete, Shooting, System, nullspace
from ssntk.cycles.events import CyclePoint, critical
from ssntk.cycles.follow import NUDGE, Follower
from ssntk.cycles.search import METHODS
from ssntk.cycles.shapes import between, distance, extent, inner, remeshed, scaled
from ssntk.cycles.start import sampled
from ssntk.dynamics.scales import rate_of, sizes_over
from ssntk.dynamics.stability import linearised
from ssntk.models.base import dtype_of
from ssntk.models.plane import Plane

FOLLOWED = tuple(kind.name for kind in (kinds.CYCLE_FOLD, kinds.PERIOD_DOUBLING, kinds.TORUS))
# The degree of collocation, as of a branch over one parameter.
DEGREE = 4
# The first and the shortest step, relative to the longest.
FIRST, SHORTEST = 0.2, 1e-4
# Parts of the first step at which a point is sought that tells the direction of the curve.
PROBES = (0.1, 0.01)
# A start lies on the plane if it is found again within this part of the spans.
NEAR = 1e-6
# How far a point may be from its prediction, relative to the step, and below which part steps grow.
MISS, AIM = 0.25, 0.05
# The largest change of the orbit, relative to its extent, and of the logarithm of the period, in one step.
CHANGE, SLOWER = 0.5, 0.4
# The mesh is adapted after so many steps.
OFTEN = 4
# A cycle of less than this part of the largest may vanish, and one of less than that has vanished.
SMALL, VANISHED = 0.1, 0.02
# Angles of multipliers nearer than this to 0 or to pi become real.
ANGLE = 0.2


class Across(eqx.Module):
    """The models on a line of a plane, at `start` + level `direction`, (2,) each, in the user's units."""

    plane: Plane
    start: Float[Array, " 2"]
    direction: Float[Array, " 2"]

    @property
    def model(self) -> Any:
        return self.plane.model

    def __call__(self, level: Any) -> Any:
        p = self.start + level * self.direction
        return self.plane(p[0], p[1])


@dataclasses.dataclass
class Met:
    """A bifurcation of cycles at q (2,), in units of the spans."""

    q: np.ndarray
    point: CyclePoint

    @property
    def orbit(self) -> Discrete:
        return self.point.at.orbit


@dataclasses.dataclass
class Walker:
    """What is followed: bifurcations of one kind, with the states in `sizes` (n,) and the time in `unit`."""

    plane: Plane
    u: Array
    spans: np.ndarray
    sizes: np.ndarray
    unit: float
    kind: str
    method: AbstractMethod
    follower: Follower = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.follower = Follower(self.line(np.zeros(2), np.array([1.0, 0.0])), self.method, 1.0)

    @classmethod
    def of(cls, plane: Plane, u: Array, spans: np.ndarray, start: CycleEvent, place: np.ndarray) -> "Walker":
        dtype = dtype_of(plane.model)
        x = np.asarray(start.x, float).astype(dtype)
        ends = [place, *((p, place[1]) for p in spans[0]), *((place[0], p) for p in spans[1])]
        models = [plane(*(float(p) for p in one)) for one in ends]
        sizes = np.asarray(sizes_over(models, u, x), float)
        velocity, jacobian = (np.asarray(part) for part in linearised(models[0], jnp.asarray(x), u))
        unit = 1 / rate_of(velocity, jacobian, sizes)
        known = start.orbit
        method: AbstractMethod = Collocation(DEGREE)
        if known.method == METHODS[2]:
            method = Shooting(max(1, known.intervals // len(known)))
        return cls(plane, u, spans, sizes, unit, start.kind, method)

    @property
    def reach(self) -> np.ndarray:
        return self.spans[:, 1] - self.spans[:, 0]

    def parameters(self, q: np.ndarray) -> np.ndarray:
        return self.spans[:, 0] + q * self.reach

    def line(self, q: np.ndarray, normal: np.ndarray) -> System:
        """The flow on the line through q in the direction `normal`, (2,) each, in units of the spans."""
        dtype = dtype_of(self.plane.model)
        family = Across(self.plane, *(jnp.asarray(part, dtype) for part in (self.parameters(q), normal * self.reach)))
        return System(family, self.u, *(jnp.asarray(part, dtype) for part in (self.sizes, self.unit, 0.0, 1.0)))

    def located(self, q: np.ndarray, normal: np.ndarray, orbit: Discrete, along: Any) -> Met | None:
        """The bifurcation on a line, near a guess of its orbit; `None` if it is not found. `along`: the direction in which
        the cycles move there. By default that of the branch on the line."""
        self.follower.system = self.line(q, normal)
        orbit = orbit._replace(level=np.zeros_like(np.asarray(orbit.level)))
        self.follower.size = max(1.0, extent(orbit))
        if along is None:
            along = jax.device_get(nullspace(self.method, self.follower.system, orbit)[1])
        along = scaled(along, inner(along, along, self.follower.size) ** -0.5)
        point = self.follower.zero(self.kind, orbit, along, 0.0, NUDGE)
        return None if point is None else Met(q + point.level * normal, point)

    def begin(self, start: CycleEvent, q: np.ndarray) -> tuple[Met, int] | None:
        """The start and the parameter over which it is a bifurcation; `None` if it is none at q."""
        for i in (0, 1):
            normal = np.eye(2)[i]
            system, known = self.line(q, normal), start.orbit
            orbit = sampled(known, known.x, system, self.follower.method, len(known), 0.0)
            found = self.located(q, normal, orbit, None)
            if found is not None and np.abs(found.q - q).max() <= NEAR:
                return found, i
        return None

    def follow(self, start: Met, free: int, sign: float, longest: float, most: int) -> tuple[list[Met], str]:
        """The points from the start on, towards larger or smaller values of the other parameter, and why they end."""
        points, step = [start], FIRST * longest
        tangent, normal = sign * np.eye(2)[1 - free], np.eye(2)[free]
        # A point nearby tells the direction of the curve.
        for nearby in PROBES:
            probe = self.located(start.q + nearby * step * tangent, normal, start.orbit, start.point.at.tangent)
            if probe is not None:
                tangent = (probe.q - start.q) / np.linalg.norm(probe.q - start.q)
                normal = np.array([-tangent[1], tangent[0]])
                break
        before: Discrete | None = None
        while len(points) < most:
            here = points[-1]
            guess = here.orbit if before is None else between(here.orbit, before, -step)
            ahead = self.located(here.q + step * tangent, normal, guess, here.point.at.tangent)
            least = VANISHED * max(extent(one.orbit) for one in points)
            if ahead is None or extent(ahead.orbit) < least or not self.near(here, ahead, step, tangent):
                step /= 2
                if step < SHORTEST * longest:
                    return points, self.failed(points)
                continue
            if (ahead.q < 0).any() or (ahead.q > 1).any():
                return self.landed(points, ahead)
            if self.closes(points, ahead):
                return [*points, start], "closed"
            moved = float(np.linalg.norm(ahead.q - here.q))
            miss = abs(ahead.point.level) / step
            tangent = (ahead.q - here.q) / moved
            normal = np.array([-tangent[1], tangent[0]])
            before = self.back(ahead.orbit, here.orbit, moved)
            if len(points) % OFTEN == 0 and isinstance(self.follower.method, Collocation):
                orbit, along = remeshed(ahead.orbit, ahead.point.at.tangent, DEGREE)
                again = self.located(ahead.q, normal, orbit, along)
                ahead, before = (ahead, before) if again is None else (again, None)
            points.append(ahead)
            step = min(longest, 1.5 * step) if miss < AIM else step * (0.7 if miss > MISS / 2 else 1.0)
        return points, f"{most} points followed, as many as max_steps allows"

    def back(self, ahead: Discrete, here: Discrete, moved: float) -> Discrete | None:
        """The orbit a unit of length before the one ahead, for predictions."""
        if ahead.ends.shape != here.ends.shape or np.abs(np.asarray(ahead.mesh) - np.asarray(here.mesh)).max() > 0:
            return None
        return between(ahead, here, 1 / moved)

    def near(self, here: Met, ahead: Met, step: float, tangent: np.ndarray) -> bool:
        """Whether a step leads along the curve, not to another one."""
        change = distance(here.orbit, ahead.orbit) / max(extent(here.orbit), extent(ahead.orbit))
        slower = abs(float(ahead.orbit.log_period - here.orbit.log_period))
        forward = (ahead.q - here.q) @ tangent > 0
        return bool(forward and abs(ahead.point.level) <= MISS * step and change <= CHANGE and slower <= SLOWER)

    def landed(self, points: list[Met], ahead: Met) -> tuple[list[Met], str]:
        """The points with the one at which the curve leaves the spans."""
        here = points[-1]
        outside = [(i, float(ahead.q[i] > 1)) for i in (0, 1) if not 0 <= ahead.q[i] <= 1]
        parts = [(edge - here.q[i]) / (ahead.q[i] - here.q[i]) for i, edge in outside]
        first = int(np.argmin(parts))
        (i, edge), part = outside[first], parts[first]
        q = here.q + part * (ahead.q - here.q)
        q[i] = edge
        guess = between(here.orbit, ahead.orbit, part) if here.orbit.ends.shape == ahead.orbit.ends.shape else here.orbit
        last = self.located(q, np.eye(2)[1 - i], guess, here.point.at.tangent)
        points = points if last is None else [*points, last]
        p = self.parameters(points[-1].q)
        beyond = ", beyond the last point," if last is None else ""
        return points, f"left the span{beyond} at ({p[0]:.6g}, {p[1]:.6g})"

    def closes(self, points: list[Met], ahead: Met) -> bool:
        """Whether the start lies between the last point and the next."""
        if len(points) < 4:
            return False
        first, here = points[0], points[-1]
        step, off = ahead.q - here.q, first.q - here.q
        part = float(off @ step / (step @ step))
        beside = np.linalg.norm(off - part * step) <= MISS * np.linalg.norm(step)
        same = abs(float(first.orbit.log_period - ahead.orbit.log_period)) <= SLOWER
        extents = extent(first.orbit), extent(ahead.orbit)
        return bool(0 < part <= 1 and beside and same and abs(extents[0] - extents[1]) <= CHANGE * extents[0])

    def failed(self, points: list[Met]) -> str:
        """Why no further point is found."""
        last = points[-1]
        p = self.parameters(last.q)
        said = f"({p[0]:.6g}, {p[1]:.6g})"
        if extent(last.orbit) < SMALL * max(extent(one.orbit) for one in points):
            return f"the cycles shrink to an equilibrium near {said}, as at a generalised Hopf point"
        angle = abs(np.angle(critical(self.kind, last.point.judged)[0]))
        if self.kind == kinds.TORUS.name and min(angle, np.pi - angle) < ANGLE:
            return f"the pair of multipliers becomes real near {said}, at a strong resonance"
        return f"steps failed at {said}: the curve may turn there, as at a cusp, or the cycles may end"


def cycle_curve(
    plane: Plane,
    start: CycleEvent,
    spans: np.ndarray,
    places: list[tuple[float, float]],
    u: Array,
    longest: float,
    most: int,
) -> Curve:
    """The curve of bifurcations of cycles through one that is known, which lies at one of the places."""
    for place in places:
        walker = Walker.of(plane, u, spans, start, np.asarray(place))
        begun = walker.begin(start, (np.asarray(place) - spans[:, 0]) / walker.reach)
        if begun is not None:
            break
    else:
        said = " nor ".join(f"at ({p1:g}, {p2:g})" for p1, p2 in places)
        raise ValueError(f"bifurcation must lie on the plane: its cycle is no {start.kind} {said}; pass at=(p1, p2)")
    first, free = begun
    points, status = walker.follow(first, free, 1.0, longest, most)
    closed = status == "closed"
    if not closed:
        second, other = walker.follow(first, free, -1.0, longest, most)
        closed = other == "closed"
        points = second if closed else second[:0:-1] + points
        status = other if closed or other == status else f"{other}; on the other side: {status}"
    return _curve(walker, points, start, closed, status)


def _curve(walker: Walker, points: list[Met], start: CycleEvent, closed: bool, status: str) -> Curve:
    """The result in the user's units."""
    values = [critical(walker.kind, one.point.judged)[0] for one in points]
    periods = np.array([one.point.period * walker.unit for one in points])
    every = [one.point.judged.values for one in points]
    return Curve(
        kind=start.kind,
        parameters=np.stack([walker.parameters(one.q) for one in points]),
        x=np.stack([np.asarray(one.orbit.ends[0], float) * walker.sizes for one in points]),
        frequency=np.abs(np.angle(values)) / periods * (walker.kind != kinds.CYCLE_FOLD.name),
        coefficient=np.full(len(points), np.nan),
        eigenvalues=np.stack(every),
        points=(),
        unresolved=(),
        closed=closed,
        status=status,
        plane=walker.plane,
        begin=start,
        spans=walker.spans,
        period=periods,
    )
