"""One side of a bifurcation of limit cycles: the cycles at given distances from it."""

import dataclasses

import numpy as np

from ssntk.bifurcation.events.kinds import SADDLE_NODE_ON_CYCLE
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.continuation import placed
from ssntk.cycles.discrete import AbstractMethod, Collocation, Discrete, Shooting, System, flat
from ssntk.cycles.events import FOLD, ROUGH, CyclePoint
from ssntk.cycles.follow import MOST, Follower
from ssntk.cycles.orbit import Orbit, result
from ssntk.cycles.search import METHODS
from ssntk.cycles.shapes import between, distance, remeshed
from ssntk.cycles.start import mesh_of, on_mesh
from ssntk.dynamics.fixed_points import constant_input
from ssntk.errors import NumericalError
from ssntk.models.family import Family

# The degree of the collocation.
DEGREE = 4
# How many cycles are tried on the way to one.
CUTS = 24
# A cycle that lies farther from where it is expected than this part of the way is another one.
AWAY = 0.5


def events_of(branch: CycleBranch) -> tuple[CycleEvent | Bifurcation, ...]:
    """The bifurcations of a branch with that of equilibria at which it ends."""
    return (*branch.bifurcations, *((branch.end,) if isinstance(branch.end, Bifurcation) else ()))


def kind_of_event(event: CycleEvent | Bifurcation) -> str:
    """The kind of an event of a branch. A saddle-node of equilibria at its end is one on the cycle."""
    return SADDLE_NODE_ON_CYCLE.name if isinstance(event, Bifurcation) and float(event.frequency) == 0 else event.kind


@dataclasses.dataclass(frozen=True)
class CycleSide:
    """The stable side of a bifurcation of cycles, outwards from it until the parameter turns or another stability begins.

    - `bifurcation`: where it begins. `orbits`: cycles of the branch, at `parameters` (k,). The first is that of the
      bifurcation, unless there is none, as at a saddle-node on the cycle.
    - `n_unstable`: how many multipliers of the cycles are unstable.
    - `begin`, `x` (n,): where the branch begins, which sets the working units. `reason`: why it ends.
    """

    family: Family
    u: np.ndarray
    span: tuple[float, float]
    bifurcation: CycleEvent | Bifurcation
    parameters: np.ndarray
    orbits: tuple[Orbit, ...]
    n_unstable: int
    begin: float
    x: np.ndarray
    reason: str

    @property
    def away(self) -> np.ndarray:
        """The distances (k,) of the cycles."""
        return np.abs(self.parameters - float(self.bifurcation.parameter))

    @property
    def folds(self) -> bool:
        """Whether the branch turns at the bifurcation, so that cycles move as the root of the distance."""
        return self.bifurcation.kind == FOLD

    def at_distance(self, wanted: float) -> tuple[float, Orbit]:
        """The cycle at |p - p_c| = `wanted`, as (parameter, orbit). It depends on the branch alone.

        Raises `NumericalError` if the side does not reach so far, or if no cycle of its stability is found there.
        """
        away = self.away
        if wanted > away[-1]:
            raise NumericalError(
                f"this side of the branch of cycles reaches only to a distance of {away[-1]:.6g}{self.reason}"
            )
        if wanted < away[0]:
            raise NumericalError(
                f"the branch of cycles was followed only to a distance of {away[0]:.6g}, where the period is "
                f"{self.orbits[0].period:.6g}"
            )
        way = _Way(self)
        point = way.to(wanted, min(max(int(np.searchsorted(away, wanted)) - 1, 0), len(away) - 2))
        if point is None:
            raise NumericalError("no cycle of this side was found at this distance")
        p, orbit = float(self.bifurcation.parameter) + way.sign * wanted, way.orbit(point, wanted)
        if orbit.n_unstable > self.n_unstable or (self.n_unstable and orbit.stable):
            raise NumericalError(
                f"the cycle that was found at this distance has {orbit.n_unstable} unstable multipliers, and those of this "
                f"side have {self.n_unstable}"
            )
        return p, orbit


class _Way:
    """The way to a cycle between two of a side."""

    def __init__(self, side: CycleSide):
        self.side = side
        u = constant_input(side.family.model, side.u)
        self.system: System = placed(side.family, u, side.x, side.begin, side.span)[0]
        self.sign = float(np.sign(side.parameters[-1] - float(side.bifurcation.parameter)))
        first = side.orbits[0]
        shooting = first.method == METHODS[2]
        self.method: AbstractMethod = Shooting(max(1, first.intervals // len(first))) if shooting else Collocation(DEGREE)
        # As many intervals as where the bifurcation was located, or twice as many as on the branch.
        located = isinstance(side.bifurcation, CycleEvent)
        self.count = len(first) if shooting or located else min(2 * len(first), MOST)

    def level(self, away: float) -> float:
        p = float(self.side.bifurcation.parameter) + self.sign * away
        return (p - self.side.span[0]) / (self.side.span[1] - self.side.span[0])

    def part(self, away: float) -> float:
        """A coordinate in which the branch is smooth."""
        return away**0.5 if self.side.folds else away

    def to(self, wanted: float, low: int) -> CyclePoint | None:
        """The cycle at a distance between those of two cycles of the side. If it is not found, cycles on the way to it
        are."""
        away, orbits = self.side.away, self.side.orbits
        first, second, share = (float(away[low]), orbits[low]), (float(away[low + 1]), orbits[low + 1]), 1.0
        for _ in range(CUTS):
            target = self.part(second[0]) + share * (self.part(wanted) - self.part(second[0]))
            aim = wanted if share == 1 else target**2 if self.side.folds else target
            point = self.tried(aim, first, second)
            if point is not None and share == 1:
                return point
            if point is None:
                share /= 2
            else:
                second, share = (aim, self.orbit(point, aim)), 1.0
        return None

    def tried(self, wanted: float, first: tuple[float, Orbit], second: tuple[float, Orbit]) -> CyclePoint | None:
        near = first[1] if wanted - first[0] < second[0] - wanted else second[1]
        mesh = mesh_of(near, self.count)
        one, other = (
            on_mesh(orbit, orbit.x, mesh, self.system, self.method, self.level(away)) for away, orbit in (first, second)
        )
        begin, end = self.part(first[0]), self.part(second[0])
        guess = between(one, other, (self.part(wanted) - begin) / (end - begin))
        guess = guess._replace(level=np.asarray(self.level(wanted), guess.ends.dtype))
        # At a fold the other cycle at this parameter is as far from the bifurcation.
        room = distance(guess, one) if self.side.folds and first[0] == 0 else distance(one, other)
        return self.corrected(guess, AWAY * room)

    def orbit(self, point: CyclePoint, away: float) -> Orbit:
        model = self.side.family(float(self.side.bifurcation.parameter) + self.sign * away)
        return result(model, self.system, point.method, point.at, point.judged, np.nan)

    def corrected(self, guess: Discrete, room: float) -> CyclePoint | None:
        """The cycle at the level of a guess, on a mesh that suits it and on which its multipliers are known; `None` if it
        lies elsewhere."""
        follower = Follower(self.system, self.method, 1.0)
        point = follower.corrected(guess, flat(guess), 0.0)
        if point is None or distance(point.at.orbit, guess) > room:
            return None
        for factor in (1, 2, 2):
            orbit = point.at.orbit
            if isinstance(follower.method, Collocation):
                orbit, _ = remeshed(orbit, point.at.tangent, follower.method.degree, factor)
            elif isinstance(follower.method, Shooting) and factor > 1:
                follower.method = Shooting(factor * follower.method.steps)
            again = follower.corrected(orbit, flat(orbit), 0.0)
            if again is None:
                return point if factor > 1 else None
            point = again
            largest = max(1.0, float(np.abs(point.judged.values).max(initial=0.0)))
            if point.judged.trivial <= ROUGH * largest or len(orbit.ends) > MOST // 2:
                break
        return point


def stable_side(family: Family, u: np.ndarray, span: tuple[float, float], branch: CycleBranch, number: int) -> CycleSide:
    """The side of `events_of(branch)[number]` whose cycles are stable, or have fewer unstable multipliers; if both have
    equally many, the one before it on the branch.

    Raises `NumericalError` if there is no cycle on either side of it.
    """
    event = events_of(branch)[number]
    ends = event is branch.end
    before = len(branch) - 1 if ends else _place(branch, event, span)
    sides = [np.arange(before, -1, -1)] if ends else [np.arange(before, -1, -1), np.arange(before + 1, len(branch))]
    unstable = branch.n_unstable
    sides = [side for side in sides if side.size and branch.parameter[side[0]] != event.parameter]
    if not sides:
        raise NumericalError(f"the branch has no cycles beside the {event.kind} at p = {float(event.parameter):.6g}")
    chosen = min(sides, key=lambda side: unstable[side[0]])
    p = branch.parameter[chosen]
    away = np.abs(p - float(event.parameter))
    grows = np.append(
        True, (np.diff(away) > 0) & (np.sign(p[1:] - float(event.parameter)) == np.sign(p[0] - event.parameter))
    )
    steady = unstable[chosen] == unstable[chosen[0]]
    kept = int(np.argmin(np.append(grows & steady, False)))
    why = ""
    if kept < len(chosen):
        why = ", where " + ("the branch turns" if not grows[kept] else "another stability begins")
    first = () if isinstance(event, Bifurcation) else (event.orbit,)
    return CycleSide(
        family=family,
        u=u,
        span=span,
        bifurcation=event,
        parameters=np.append([event.parameter] * len(first), p[:kept]),
        orbits=(*first, *(branch.orbits[i] for i in chosen[:kept])),
        n_unstable=int(unstable[chosen[0]]),
        begin=float(branch.parameter[0]),
        x=branch.orbits[0].x[0],
        reason=why or f": {branch.status}",
    )


def _place(branch: CycleBranch, event: CycleEvent | Bifurcation, span: tuple[float, float]) -> int:
    """The number of the cycle before an event: the way by it to the next cycle is hardly longer than the straight one."""
    marks = [_marks(one, float(p)) for one, p in zip(branch.orbits, branch.parameter, strict=True)]
    own = _marks(event.orbit, float(event.parameter)) if isinstance(event, CycleEvent) else marks[-1]
    sizes = np.ptp([*marks, own], axis=0)
    points, middle = np.array(marks), np.array(own)
    scale = np.where(sizes > 0, sizes, 1.0)
    to = np.linalg.norm((points - middle) / scale, axis=1)
    straight = np.linalg.norm(np.diff(points, axis=0) / scale, axis=1)
    return int((to[:-1] + to[1:] - straight).argmin())


def _marks(orbit: Orbit, parameter: float) -> np.ndarray:
    """Numbers that tell the cycles of a branch apart."""
    return np.concatenate([[parameter, np.log(orbit.period)], orbit.minimum, orbit.maximum])
