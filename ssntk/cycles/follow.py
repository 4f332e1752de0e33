"""Follow a branch of limit cycles by pseudo-arclength continuation, in working units."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from ssntk.cycles.chain import multipliers
from ssntk.cycles.discrete import (
    AbstractMethod,
    Collocation,
    Corrected,
    Discrete,
    Linear,
    Shooting,
    System,
    corrected,
    flat,
    nullspace,
)
from ssntk.cycles.events import (
    BRANCH,
    DOUBLING,
    ROUGH,
    TORUS,
    CyclePoint,
    change_of,
    changed,
    critical,
    doubted,
    functions,
    located,
    met,
)
from ssntk.cycles.leading import Leaders
from ssntk.cycles.shapes import alike, between, distance, extent, inner, remeshed, scaled
from ssntk.results import counted

# The first and the shortest step, in units of arclength.
FIRST, SHORTEST = 0.02, 1e-7
# The smallest cosine between tangents, and the largest change of log T, of one step.
STRAIGHT, SLOWER = 0.9, 0.4
# The mesh is adapted after this many steps, and has at most so many intervals.
OFTEN, MOST = 3, 512
# Steps longer than this part of the longest are repeated in parts, where an event is not found.
SURELY = 1 / 1024
# Angles between tangents below which a branch is straight; the part of them that may lie in one half of a step; and how far
# what is between may lie outside, as a part of the change.
BENDS, HALF, ROOM = 0.1, 0.75, 0.5
# How often a branch point is sought from farther away.
LIFTS = 4
# The distance of points beside a crossing, in parts of the step.
BESIDE = 0.02
# The largest number of Newton's iterations from an orbit nearby.
NEWTON = 12
# Between points on one smooth branch that are near each other, distances do not differ by more than this factor.
TORN = 1.5
# The first step, how far steps may lead away, and how well the last must be known, where an event is sought by secants.
NUDGE, NEARBY, CLOSE = 1e-5, 0.1, 1e-8


@dataclasses.dataclass
class Seen:
    """An event between two levels: those of the points around it, or by how much a finer mesh moved it. Or where it was
    lost. `along`: the branch's tangent before it. `change`: how far the critical multiplier is from its value there at these
    points."""

    kind: str
    point: CyclePoint
    between: tuple[float, float]
    exact: bool
    doubt: str
    along: Discrete
    change: float = 0.0

    @property
    def puzzles(self) -> bool:
        """Whether it was not found, though its multiplier is known well enough."""
        if self.doubt:
            return False
        neutral = self.kind == TORUS and critical(TORUS, self.point.judged)[0].imag == 0
        return not self.exact or not (neutral or met(self.kind, self.point, self.change))


@dataclasses.dataclass
class Follower:
    """What is followed, and what was met so far."""

    system: System
    method: AbstractMethod
    longest: float
    # The unit of the states in lengths: that of the system, or the orbit's extent where that is larger.
    size: float = 1.0
    # The equations to first order at the orbit that was corrected last.
    known: Linear | None = None
    points: list[CyclePoint] = dataclasses.field(default_factory=list)
    seen: list[Seen] = dataclasses.field(default_factory=list)
    # The cycle at the bifurcation at which the branch begins.
    origin: Discrete | None = None
    # How fast a multiplier comes to one, at the last step.
    slope: float = 0.0
    # How many leading multipliers are followed: all of them if that is `None`, and as many as are not small if it is 0.
    leading: int | None = None
    leaders: Leaders | None = None

    def corrected(self, orbit: Discrete, along: Discrete, step: float) -> CyclePoint | None:
        """The point that Newton's iteration leads to; `None` if it does not converge."""
        dtype = orbit.ends.dtype
        orbit, along = (Discrete._make(np.asarray(part, dtype) for part in parts) for parts in (orbit, along))
        length, size = np.asarray(step, dtype), np.asarray(self.size, dtype)
        at = corrected(self.method, self.system, orbit, along, length, size, self.known, NEWTON)
        if not float(at.size) <= float(np.finfo(dtype).eps) ** 0.5:
            return None
        # What is known takes N n^2 numbers, which are kept of one orbit only. The rest is small, and used on the host.
        self.known, at = at.known, jax.tree.map(np.asarray, at._replace(known=None))
        return CyclePoint(at, multipliers(at.first, at.second, at.velocity), self.method)

    def begin(self, orbit: Discrete, along: Discrete | None) -> bool:
        """The first point: from a bifurcation along the branch that begins there, or the corrected orbit itself, which is
        left so that the level grows."""
        self.size = max(1.0, extent(orbit))
        if along is not None:
            self.origin = orbit
            along, step = scaled(along, inner(along, along, self.size) ** -0.5), FIRST
            while step > SHORTEST:
                point = self.corrected(orbit, along, step)
                if point is not None and 0 <= point.level <= 1 and self.near(orbit, point.at.orbit, step):
                    self.points.append(point)
                    return True
                step /= 4
            return False
        point = self.corrected(orbit, flat(orbit), 0.0)
        if point is not None and isinstance(self.method, Collocation):
            orbit, _ = remeshed(point.at.orbit, point.at.tangent, self.method.degree)
            point = self.corrected(orbit, flat(orbit), 0.0)
        if point is None:
            return False
        if point.turn < 0:
            point = point._replace(at=turned(point.at))
        self.points.append(point)
        return True

    def near(self, start: Discrete, orbit: Discrete, step: float) -> bool:
        """Whether Newton's iteration led to a cycle that is about a step away, not to another or to an equilibrium."""
        change = orbit.moved(-1.0, start)
        return inner(change, change, self.size) ** 0.5 <= 4 * step and extent(orbit) > 0.1 * step

    def adapted(self, point: CyclePoint, factor: int = 1) -> CyclePoint:
        """The same point on a mesh that suits it, with the number of intervals times `factor`; as it is, if that fails."""
        if not isinstance(self.method, Collocation):
            return point
        orbit, tangent = remeshed(point.at.orbit, point.at.tangent, self.method.degree, factor)
        again = self.corrected(orbit, tangent, 0.0)
        return point if again is None else again

    def refined(self, point: CyclePoint) -> CyclePoint:
        """A point whose multipliers are known, on a finer mesh if need be."""
        largest = max(1.0, float(np.abs(point.judged.values).max()))
        while point.whole and point.judged.trivial > ROUGH * largest:
            if isinstance(self.method, Shooting):
                if self.method.steps >= 16:
                    break
                self.method = Shooting(2 * self.method.steps)
                again = self.corrected(point.at.orbit, point.at.tangent, 0.0)
            elif len(point.at.orbit.ends) < MOST:
                again = self.adapted(point, 2)
            else:
                break
            if again is None or again is point:
                break
            point = again
        return point

    def follow(
        self, most: int, stops: Callable[["Follower", CyclePoint], str | None], lost: Callable[["Follower"], str]
    ) -> str:
        """Step until `stops` says why, which it is asked before a point is kept, or until steps fail, of which `lost` says
        why."""
        step = min(self.longest, FIRST if len(self.points) == 1 else self.longest)
        for count in range(1, most):
            here = self.resized(self.points[-1])
            while True:
                while (ahead := self.ahead(here, step)) is None:
                    step /= 2
                    if step < SHORTEST:
                        return lost(self)
                reason = stops(self, ahead)
                if reason is not None:
                    return reason
                seen = self.watch(here, ahead, step)
                # A step may have led to another branch, where what changed on the way is not found.
                if step < SURELY * self.longest or not any(one.puzzles for one in seen):
                    break
                step /= 4
            self.seen += seen
            if any(self.returns(one) for one in seen):
                return "closed: it returns to the bifurcation at which it begins"
            straight = inner(here.at.tangent, ahead.at.tangent, self.size)
            self.slope = (toward(ahead) - toward(here)) / step
            ahead = self.refined(ahead)
            self.points.append(self.adapted(ahead) if count % OFTEN == 0 else ahead)
            grows = int(ahead.at.count) <= 5 and straight > 0.98
            step = min(self.longest, 1.5 * step) if grows else step * (0.7 if int(ahead.at.count) > 7 else 1.0)
        return f"{counted(most, 'cycle')} followed, as many as max_steps allows"

    def returns(self, seen: Seen) -> bool:
        """Whether an event is the one at which the branch began."""
        if self.origin is None or seen.kind != BRANCH or not seen.exact or len(self.points) < 3:
            return False
        orbit = seen.point.at.orbit
        return abs(seen.point.level - float(self.origin.level)) <= 1e-5 and alike(orbit, self.origin, 1e-3)

    def ahead(self, here: CyclePoint, step: float) -> CyclePoint | None:
        """The point after a step; `None` if it fails or the branch bends too much."""
        point = self.by_leaders(here, step) or self.corrected(here.at.orbit, here.at.tangent, step)
        if point is None or inner(here.at.tangent, point.at.tangent, self.size) < STRAIGHT:
            return None
        slower = abs(float(point.at.orbit.log_period - here.at.orbit.log_period))
        return point if slower <= SLOWER and self.smoothly(here, point, step) else None

    def smoothly(self, here: CyclePoint, ahead: CyclePoint, step: float) -> bool:
        """Whether a step leads along one branch, as far as the point in its middle tells. That is looked at where the branch
        bends, and where a multiplier should have passed one and has not."""
        begin, end, bend = toward(here), toward(ahead), self.bend(here, ahead)
        passes = (begin + self.slope * step) * begin < 0 < begin * end
        if step < SURELY * self.longest or (bend < BENDS and not passes):
            return True
        middle = self.corrected(here.at.orbit, here.at.tangent, step / 2)
        if middle is None:
            return False
        room = ROOM * abs(end - begin)
        steady = min(begin, end) - room <= toward(middle) <= max(begin, end) + room
        bends = max(self.bend(here, middle), self.bend(middle, ahead))
        return bends <= max(BENDS, HALF * bend) and (steady or not passes)

    def bend(self, here: CyclePoint, ahead: CyclePoint) -> float:
        """The angle between two tangents."""
        one, other = here.at.tangent, ahead.at.tangent
        lengths = inner(one, one, self.size) * inner(other, other, self.size)
        return float(np.arccos(np.clip(inner(one, other, self.size) / lengths**0.5, -1, 1)))

    def by_leaders(self, here: CyclePoint, step: float) -> CyclePoint | None:
        """The point after a step with its leading multipliers; `None` if all are needed."""
        if self.leading is None:
            return None
        if here.whole:
            self.leaders = Leaders.of(self.system, here, self.leading or None)
        return None if self.leaders is None else self.leaders.ahead(here, step, self.size)

    def whole(self, point: CyclePoint) -> CyclePoint:
        """The same point with all multipliers; as it is, if that fails."""
        return point if point.whole else self.corrected(point.at.orbit, point.at.tangent, 0.0) or point

    def watch(self, here: CyclePoint, ahead: CyclePoint, step: float) -> list[Seen]:
        """Locate the events between two points, in their order."""
        found: list[tuple[float, Seen]] = []
        if changed(here, ahead):
            here, ahead = self.whole(here), self.whole(ahead)
        for kind, test, meets in changed(here, ahead):
            ends = test(here), test(ahead)
            if meets:
                point = self.met(here, ahead, step)
            else:
                way = self.way(here, ahead, step)
                point = located(test, way, step, ends)
                if point is None and kind == BRANCH:
                    point = crossing(test, way, step, ends)
            away = self.apart(here, point or ahead)
            levels, doubt = (here.level, ahead.level), doubted(kind, here, ahead)
            if point is not None and not doubt and (finer := self.finer(kind, point)) is not None:
                # What the mesh leaves open is larger than what the location does.
                off = abs(finer.level - point.level)
                point, levels = finer, (finer.level - off, finer.level + off)
            change = change_of(kind, here, ahead)
            found.append((away, Seen(kind, point or ahead, levels, point is not None, doubt, here.at.tangent, change)))
        return [seen for _, seen in sorted(found, key=lambda one: one[0])]

    def way(self, here: CyclePoint, ahead: CyclePoint, step: float) -> Callable[[float], CyclePoint | None]:
        """The points on the way to the next one. Each is corrected from between its known neighbours, since far from it
        Newton's iteration fails where branches cross."""
        known = {0.0: here, step: ahead}

        def at(part: float) -> CyclePoint | None:
            low = max(one for one in known if one <= part)
            high = min(one for one in known if one >= part)
            share = (part - low) / (high - low) if high > low else 0.0
            guess = between(known[low].at.orbit, known[high].at.orbit, share)
            point = self.corrected(guess, here.at.tangent, 0.0)
            if point is not None:
                known[part] = point
            return point

        return at

    def met(self, here: CyclePoint, ahead: CyclePoint, step: float) -> CyclePoint | None:
        """The branch point at which the branch turns. It is sought on the branch that it meets, from a level that this one
        does not reach."""
        part = here.turn / (here.turn - ahead.turn)
        orbit = between(here.at.orbit, ahead.at.orbit, part)
        # The branch is a parabola there, with these slopes.
        top = here.level + 0.5 * part * step * here.turn
        lift = 0.5 * step * max(part * here.turn, (part - 1) * ahead.turn, key=abs)
        for _ in range(LIFTS):
            beyond = self.corrected(orbit, flat(orbit), top + lift - float(orbit.level))
            nearer = None if beyond is None else self.corrected(beyond.at.orbit, flat(orbit), -0.25 * lift)
            point = None if beyond is None or nearer is None else self.across(beyond, nearer, lift)
            if point is not None:
                return point
            lift *= 4
        return None

    def across(self, beyond: CyclePoint, nearer: CyclePoint, lift: float) -> CyclePoint | None:
        """The branch point on the branch of two cycles, about `lift` from the first in units of the level."""
        test = functions(beyond, beyond)[BRANCH]
        if test(beyond) == test(nearer):
            return None
        # As far on the other side, if the function is linear.
        away = -0.5 * lift * test(beyond) / (test(beyond) - test(nearer))
        if not abs(away) < NEARBY:
            return None
        other = self.corrected(beyond.at.orbit, scaled(beyond.at.tangent, 1 / beyond.turn), away)
        if other is None or not test(beyond) * test(other) < 0:
            return None
        return crossing(test, self.way(beyond, other, abs(away)), abs(away), (test(beyond), test(other)))

    def doubling(self, orbit: Discrete) -> CyclePoint | None:
        """The period doubling near an orbit, on the branch to which it belongs, which may turn nearby."""
        self.size = max(1.0, extent(orbit))
        along = nullspace(self.method, self.system, orbit)[1]
        along = scaled(along, inner(along, along, self.size) ** -0.5)
        return self.zero(DOUBLING, orbit, along, 0.0, NUDGE)

    def zero(self, kind: str, orbit: Discrete, along: Discrete, step: float, nudge: float) -> CyclePoint | None:
        """The cycle near an orbit at which the function of an event is zero, by the secant method on steps along a
        direction; `None` if there is none nearby."""
        known: list[tuple[float, float]] = []
        begin, change, best, done = step, nudge, None, 0.0
        for _ in range(30):
            # From the last point, which is in the plane of its own step.
            point = self.corrected(orbit, along, step - done)
            if point is None:
                break
            best, orbit, done = point, point.at.orbit, step
            known.append((step, functions(point, point)[kind](point)))
            if len(known) > 1:
                (one, low), (other, high) = known[-2:]
                change = -high * (other - one) / (high - low) if high != low else 0.0
            if abs(change) <= 64 * np.finfo(float).eps or not abs(step + change - begin) <= NEARBY:
                break
            step += change
        # At a branch point the equations are singular, and the last step may fail.
        return best if best is not None and abs(change) <= CLOSE and met(kind, best) else None

    def finer(self, kind: str, point: CyclePoint) -> CyclePoint | None:
        """The same event by twice as many intervals or steps; `None` if it is not found so. Where branches cross it is not
        sought, since the equations are singular there."""
        known, orbit, along = self.method, point.at.orbit, point.at.tangent
        if kind == BRANCH or not len(orbit.ends) <= MOST // 2:
            return None
        try:
            if isinstance(known, Collocation):
                orbit, along = remeshed(orbit, along, known.degree, 2)
            elif isinstance(known, Shooting):
                self.method = Shooting(2 * known.steps)
            return self.zero(kind, orbit, scaled(along, inner(along, along, self.size) ** -0.5), 0.0, NUDGE)
        finally:
            self.method = known

    def resized(self, point: CyclePoint) -> CyclePoint:
        """The point with its tangent of length one, in lengths that suit the orbit's extent."""
        self.size = max(1.0, extent(point.at.orbit))
        tangent = point.at.tangent
        length = inner(tangent, tangent, self.size) ** 0.5
        return point._replace(at=point.at._replace(tangent=scaled(tangent, 1 / length)))

    def apart(self, here: CyclePoint, point: CyclePoint) -> float:
        """How far a point lies ahead, along the tangent."""
        start, end, tangent = here.at.orbit, point.at.orbit, here.at.tangent
        if start.ends.shape != end.ends.shape:
            return np.inf
        return inner(tangent, end, self.size) - inner(tangent, start, self.size)


def toward(point: CyclePoint) -> float:
    """How far the multiplier nearest to one is from it."""
    return 1 - critical(BRANCH, point.judged)[0].real


def crossing(
    test: Callable[[CyclePoint], float],
    way: Callable[[float], CyclePoint | None],
    step: float,
    ends: tuple[float, float],
) -> CyclePoint | None:
    """The point at which branches cross, where the equations are singular, by a cubic through four points beside it; `None`
    if these are not found. Its multipliers are those of the nearest of the four, but for the critical one."""
    low, high = (0.0, ends[0]), (step, ends[1])
    root = step / 2
    for _ in range(20):
        # The false position, kept away from both ends so that the bracket shrinks.
        share = np.clip(low[1] / (low[1] - high[1]), 0.1, 0.9)
        root = low[0] + share * (high[0] - low[0])
        point = way(root)
        if point is None or high[0] - low[0] < BESIDE * step:
            break
        value = test(point)
        low, high = ((root, value), high) if value * low[1] > 0 else (low, (root, value))
    apart = BESIDE * min(root, step - root)
    places = root + apart * np.array([-2.0, -1.0, 1.0, 2.0])
    points = [point for place in places if (point := way(float(place))) is not None]
    if len(points) < len(places):
        return None
    gaps = [distance(points[i].at.orbit, points[i + 1].at.orbit) for i in range(3)]
    spacing = np.array(gaps) / np.diff([-2.0, -1.0, 1.0, 2.0])
    if spacing.max() > TORN * spacing.min():
        # The points lie on branches that pass each other.
        return None
    offsets, tests = (places - root) / apart, [test(point) for point in points]
    roots = np.roots(np.polyfit(offsets, tests, 3))
    near = roots[np.abs(roots.imag) < 1e-6].real
    if not len(near) or np.abs(near).min() > 3:
        return None
    at = near[np.abs(near).argmin()]
    weights = [np.prod((at - np.delete(offsets, i)) / (offset - np.delete(offsets, i))) for i, offset in enumerate(offsets)]
    orbits = [point.at.orbit for point in points]
    parts = [sum(w * np.asarray(orbit[k]) for w, orbit in zip(weights, orbits, strict=True)) for k in range(1, 5)]
    nearest = points[int(np.abs(offsets - at).argmin())]
    dtype = orbits[0].ends.dtype
    orbit = Discrete._make([orbits[0].mesh, *(np.asarray(part, dtype) for part in parts)])
    value = sum(w * critical(BRANCH, point.judged)[0] for w, point in zip(weights, points, strict=True))
    values = np.where(nearest.judged.values == critical(BRANCH, nearest.judged)[0], value, nearest.judged.values)
    return nearest._replace(at=nearest.at._replace(orbit=orbit), judged=nearest.judged._replace(values=values))


def turned(at: Corrected) -> Corrected:
    """The same point, to be left in the other direction."""
    return at._replace(tangent=scaled(at.tangent, -1.0))
