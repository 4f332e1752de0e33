"""Which steps of a branch pass a bifurcation: signs are compared, mixed intervals bisected, each event then located.

- A saddle-node: the parameter turns, and one real eigenvalue crosses.
- A Hopf: nothing turns, and one complex pair crosses. A neutral saddle changes no count of unstable eigenvalues. Of a map
  this is a Neimark-Sacker point; where one multiplier alone crosses, and nothing turns, it is a flip.
- A branch point: the bordered determinant changes sign; where a pitchfork is passed along its parabola, the parameter turns
  as well.

All branches are worked on together, round by round, so that each round is a few compiled calls.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssntk.bifurcation.bordered import Stack, corrected, inner, interpolate, length
from ssntk.bifurcation.extended import BRANCH_POINT, PAIR
from ssntk.bifurcation.follow import Track
from ssntk.bifurcation.locate import Bifurcation, solve
from ssntk.dynamics.stability import exponents

# Halvings of one step before an event counts as unresolved: from the longest step this reaches a length of about 1e-9.
DEPTH = 26
# Halvings of one step in search of events that may be there though no sign or count is changed: down to a length of 1e-6.
LOOK = 16


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the branch: z = (x, q), unit tangent along the direction of travel, exponents, determinant sign."""

    z: np.ndarray
    tangent: np.ndarray
    exponents: np.ndarray
    turn: float

    @property
    def unstable(self) -> int:
        """How many modes grow."""
        return int((self.exponents.real > 0).sum())


@dataclasses.dataclass(frozen=True)
class Interval:
    """The part of a step between `a` and `b`, whose neighbours are `before` and `after`, halved `depth` times.

    `place`: the number of the branch, of the step, and where in the step it begins, by which events are put in order.
    """

    place: tuple[int, int, float]
    member: int
    before: Point
    a: Point
    b: Point
    after: Point
    depth: int = 0

    def kind(self, dt: float | None) -> str | None:
        """What is seen between its ends: `None` for nothing, `"unknown"` for what is no single event."""
        turns = self.a.tangent[-1] * self.b.tangent[-1] < 0
        crosses = self.a.turn * self.b.turn < 0
        change = abs(self.b.unstable - self.a.unstable)
        if not turns and not crosses and change == 0:
            return None
        if turns and not crosses and change == 1:
            return "saddle-node"
        if crosses and change == (0 if turns else 1):
            return BRANCH_POINT
        if not turns and not crosses and change == 2:
            return "hopf" if dt is None else "neimark-sacker"
        if not turns and not crosses and change == 1 and dt is not None:
            return "flip"
        return "unknown"


def find_events(stack: Stack, tracks: Sequence[Track]) -> list[list[tuple[int, Bifurcation]]]:
    """For each branch its events in order, each with the index of the point before it; `converged` where located."""
    todo = [interval for number, track in enumerate(tracks) for interval in _suspects(number, track)]
    found: list[tuple[tuple[int, int, float], Bifurcation]] = []
    # Where more and more may hide, the shorter the intervals get, it is rounding that is looked at.
    crowd = 64 + 8 * len(todo)
    while todo:
        # Where nothing is seen at the ends, something may hide between them.
        may, must = _hides(*([getattr(at, name) for at in todo] for name in ("before", "a", "b", "after")))
        seen = [interval.kind(stack.dt) for interval in todo]
        located = _locate(stack, todo, seen)
        halve = []
        for interval, kind, event, maybe, surely in zip(todo, seen, located, may, must, strict=True):
            if kind is None and not surely and not (maybe and interval.depth < LOOK and len(todo) < crowd):
                continue
            if event is not None and event.converged:
                found.append((interval.place, event))
            elif interval.depth < DEPTH:
                halve.append(interval)
            else:
                reason = "the events in this interval could not be told apart" if event is None else event.reason
                found.append((interval.place, _unresolved(stack, interval, kind or "unknown", reason)))
        todo, failed = _halves(stack, halve)
        reason = "no branch leads from one side to the other: one that passes close by was taken for it; try a smaller step"
        found += [(interval.place, _unresolved(stack, interval, "unknown", reason)) for interval in failed]
    events: list[list[tuple[int, Bifurcation]]] = [[] for _ in tracks]
    for (number, step, _), event in sorted(found, key=lambda pair: pair[0]):
        before = events[number][-1] if events[number] else None
        if before is not None and before[0] == step and not before[1].converged and not event.converged:
            event = _merged(events[number].pop()[1], event)
        events[number].append((step, event))
    return events


def _merged(first: Bifurcation, second: Bifurcation) -> Bifurcation:
    """Two neighbours that are unresolved as one: bisection around a degenerate point leaves several."""
    interval = (min(first.interval[0], second.interval[0]), max(first.interval[1], second.interval[1]))
    kind = first.kind if first.kind == second.kind else "unknown"
    return dataclasses.replace(first, kind=kind, interval=interval)


def _suspects(number: int, track: Track) -> list[Interval]:
    """The steps of a branch in which an event is seen or may hide."""
    count = len(track.z)
    if count < 2:
        return []
    unstable = (track.exponents.real > 0).sum(axis=1)
    changed = (track.tangent[1:, -1] * track.tangent[:-1, -1] < 0) | (track.turn[1:] * track.turn[:-1] < 0)
    changed |= unstable[1:] != unstable[:-1]
    points = [Point(*parts) for parts in zip(track.z, track.tangent, track.exponents, track.turn.tolist(), strict=True)]
    ends = [points[0], *points, points[-1]]
    changed |= np.logical_or(*_hides(ends[:-3], ends[1:-2], ends[2:-1], ends[3:]))
    steps = np.flatnonzero(changed).tolist()
    return [Interval((number, j, 0.0), track.member, ends[j], ends[j + 1], ends[j + 2], ends[j + 3]) for j in steps]


def _halves(stack: Stack, intervals: list[Interval]) -> tuple[list[Interval], list[Interval]]:
    """Both halves of each interval, by the point of the branch half way; and those where there is none."""
    if not intervals:
        return [], []
    guesses = [interpolate(at.a.z, at.a.tangent, at.b.z, at.b.tangent, 0.5) for at in intervals]
    new = corrected(stack, [at.member for at in intervals], *(np.stack(part) for part in zip(*guesses, strict=True)))
    values = exponents(new.jacobian[:, :, :-1], stack.dt) if np.isfinite(new.jacobian).all() else None
    halves, failed = [], []
    for i, (at, (guess, _)) in enumerate(zip(intervals, guesses, strict=True)):
        if not new.converged[i] or length(new.z[i] - guess) > length(at.b.z - at.a.z):
            failed.append(at)
            continue
        here = values[i] if values is not None else exponents(new.jacobian[i, :, :-1], stack.dt)
        middle = Point(new.z[i], new.tangent[i], here, float(new.turn[i]))
        number, step, begins = at.place
        later = (number, step, begins + 0.5 ** (at.depth + 1))
        halves.append(Interval(at.place, at.member, at.before, at.a, middle, at.b, at.depth + 1))
        halves.append(Interval(later, at.member, at.a, middle, at.b, at.after, at.depth + 1))
    return halves, failed


def _locate(stack: Stack, intervals: list[Interval], kinds: list[str | None]) -> list[Bifurcation | None]:
    """The one event in each interval where its ends speak for one, refused where Newton's iteration leaves for another."""
    found: list[Bifurcation | None] = [None] * len(intervals)
    for kind in sorted({kind for kind in kinds if kind is not None} - {"unknown"}):
        chosen = [i for i, seen in enumerate(kinds) if seen == kind]
        guesses = np.stack([_guess(intervals[i], kind) for i in chosen])
        points = solve(stack, kind, [intervals[i].member for i in chosen], guesses)
        for i, (point, values) in zip(chosen, points, strict=True):
            refused = _refused(stack, intervals[i], kind, point, values) if point.converged else ""
            found[i] = dataclasses.replace(point, converged=False, reason=refused) if refused else point
    return found


def _guess(interval: Interval, kind: str) -> np.ndarray:
    """Where the event lies if what crosses is linear between the ends."""
    a, b = interval.a, interval.b
    if kind == "saddle-node":
        part = a.tangent[-1] / (a.tangent[-1] - b.tangent[-1])
    elif a.unstable == b.unstable:
        part = 0.5
    else:
        # What crosses is, on the side where it is unstable, the least unstable, and the most stable beyond.
        many, few = (a, b) if a.unstable > b.unstable else (b, a)
        above = many.exponents[many.unstable - 1].real
        below = few.exponents[few.unstable].real
        part = abs(above) / (abs(above) + abs(below))
        part = part if many is a else 1 - part
    return interpolate(a.z, a.tangent, b.z, b.tangent, float(part))[0]


def _refused(stack: Stack, interval: Interval, kind: str, point: Bifurcation, values: np.ndarray) -> str:
    """Why a located point is not the event of this interval; empty where it is. `values`: its exponents."""
    a, b = interval.a, interval.b
    z = np.append(point.x, stack.fraction(interval.member, point.parameter))
    gap = length(b.z - a.z)
    # Between the two ends along the branch, and no further from them than they are from each other.
    inside = min(inner(z - a.z, a.tangent), inner(b.z - z, b.tangent)) >= -1e-6 * gap
    if not inside or max(length(z - a.z), length(z - b.z)) > 1.5 * gap:
        return "Newton's iteration left for another point"
    # Alone, the event leaves the other modes where they are; else a second one hides behind the same count.
    critical = np.argsort(np.abs(np.abs(values.imag) - point.frequency) + np.abs(values.real))[: 2 if kind in PAIR else 1]
    others = int((np.delete(values, critical).real > 0).sum())
    fewest = min(a.unstable, b.unstable)
    # A pitchfork passed along its parabola: the critical mode is on the same side before and after.
    if others != fewest and not (a.unstable == b.unstable and others == fewest - 1):
        return "another event lies in the same interval"
    return ""


def _hides(before: list[Point], a: list[Point], b: list[Point], after: list[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Of k intervals those (k,) in which events may hide, and those in which they must, though counts at the ends agree."""
    z, slope = ([np.stack([getattr(point, name) for point in points]) for points in (a, b)] for name in ("z", "tangent"))
    values = [np.stack([point.exponents for point in points]) for points in (before, a, b, after)]
    may, must = _crosses_twice(*values)
    return may | _turns_twice(z[0], slope[0], z[1], slope[1]), must


def _turns_twice(z0: np.ndarray, tangent0: np.ndarray, z1: np.ndarray, tangent1: np.ndarray) -> np.ndarray:
    """Whether the Hermite interpolants of the parameter have two turning points inside their intervals."""
    gap = length(z1 - z0)
    chord, start, end = z1[:, -1] - z0[:, -1], tangent0[:, -1] * gap, tangent1[:, -1] * gap
    # The slope is start (1 - s)^2 + 2 middle s (1 - s) + end s^2: of one sign at the ends, it has its extremum between.
    middle = 3 * chord - start - end
    # Below rounding of the parameter nothing turns.
    inside = (start * end > 0) & (np.sign(middle) == -np.sign(start)) & (np.abs(middle) > 1e-13)
    return inside & (middle**2 >= start * end)


def _crosses_twice(before: np.ndarray, a: np.ndarray, b: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether modes may cross the axis between `a` and `b` (each (k, n) exponents) though as many grow at both.

    They may where a real part heads for the axis on one side of the interval and away from it on the other, and lies no
    further off than it moves from point to point; they must, both ways, where one changes sides and the count does not.
    """
    # What is rounding moves without a reason.
    noise = 1e-13 * np.abs(np.where(np.isfinite(a), a, 0)).max(axis=1, keepdims=True)

    def upper(values: np.ndarray) -> np.ndarray:
        # Of a pair one is enough: the other is put out of reach.
        return np.where(values.imag >= 0, values, np.inf)

    def nearest(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            gaps = np.abs(values[:, :, None] - others[:, None, :])
        at = np.where(np.isfinite(gaps), gaps, np.inf).argmin(axis=2)
        return np.take_along_axis(others, at, axis=1)

    kept = a.imag >= 0
    at_b = nearest(a, upper(b))
    path = np.stack([nearest(a, upper(before)), a, at_b, nearest(at_b, upper(after))]).real
    # Seen from the side where it lies, the path towards the axis falls.
    path = path * np.sign(path[1])
    moves = np.diff(path, axis=0)
    near = path[1:3].min(axis=0) < np.abs(moves).max(axis=0)
    sides = (path[2] < -noise) & (path[1] > noise)
    heads = (moves[0] < 0) | (moves[1] < 0)
    returns = (moves[2] > 0) | (moves[1] > 0)
    may = near & heads & returns & (np.abs(moves).max(axis=0) > noise)
    return (kept & (may | sides)).any(axis=1), (kept & sides).any(axis=1)


def _unresolved(stack: Stack, interval: Interval, kind: str, reason: str) -> Bifurcation:
    middle = (interval.a.z + interval.b.z) / 2
    ends = [stack.parameter(interval.member, point.z[-1]) for point in (interval.a, interval.b)]
    p, nothing = float(stack.parameter(interval.member, middle[-1])), np.full(middle.size - 1, np.nan)
    limits = (float(min(ends)), float(max(ends)))
    return Bifurcation(kind, p, middle[:-1], np.nan, nothing, nothing, np.nan, None, np.nan, limits, False, reason)
