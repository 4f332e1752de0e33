"""Which steps of a branch pass a bifurcation: signs are compared, mixed intervals bisected, each event then located.

- A saddle-node: the parameter turns, and one real eigenvalue crosses.
- A Hopf: nothing turns, and one complex pair crosses. A neutral saddle changes no count of unstable eigenvalues. Of a map
  this is a Neimark-Sacker point; where one multiplier alone crosses, and nothing turns, it is a flip.
- A branch point: the bordered determinant changes sign; where a pitchfork is passed along its parabola, the parameter turns
  as well.
- A double point: two real eigenvalues cross at once, as symmetric networks have them.

A mode counts as unstable if it grows beyond what rounding may do to its eigenvalue: those of conservative systems stay on
the axis, and rounding there is no event.

All branches are worked on together, round by round, so that each round is a few compiled calls.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssntk.bifurcation.bordered import Stack, corrected, inner, interpolate, length
from ssntk.bifurcation.extended import BRANCH_POINT, PAIR
from ssntk.bifurcation.follow import Track
from ssntk.bifurcation.linear import branch_jacobians, on_a_line
from ssntk.bifurcation.locate import DEGENERATE, DOUBLE, Bifurcation, Located, failed, solve
from ssntk.dynamics.stability import judged_exponents
from ssntk.models.clock import AbstractClock

# Halvings of one step before an event counts as unresolved: from the longest step this reaches a length of about 1e-11.
DEPTH = 32
# Halvings of one step in search of events that may be there though no sign or count is changed: down to a length of 1e-6.
LOOK = 16


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the branch: z = (y, q), unit tangent along the direction of travel, exponents and what rounding may do to
    each, determinant sign."""

    z: np.ndarray
    tangent: np.ndarray
    exponents: np.ndarray
    doubts: np.ndarray
    turn: float

    @property
    def unstable(self) -> int:
        """How many modes grow beyond doubt."""
        return int((self.exponents.real > self.doubts).sum())


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

    def at(self, part: float) -> tuple[int, int, float]:
        """The place of an event at this part of it."""
        number, step, begins = self.place
        return number, step, begins + part * 0.5**self.depth

    def kind(self, clock: AbstractClock) -> str | None:
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
        if not turns and not crosses and change == 1 and clock.flips_at is not None:
            return "flip"
        if not turns and change >= 2 and crosses == bool(change % 2) and (self.modes[0].imag == 0).all():
            return DOUBLE
        if not turns and not crosses and change == 2:
            return clock.pair_name.lower()
        return "unknown"

    @property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """The exponents that cross, on the side where they are unstable and on the other."""
        many, few = (self.a, self.b) if self.a.unstable > self.b.unstable else (self.b, self.a)
        crossing = slice(few.unstable, many.unstable)
        return many.exponents[crossing], few.exponents[crossing]

    @property
    def leaves(self) -> bool:
        """Whether what becomes unstable lay on the axis before, within its rounding error, and did not come from beyond."""
        few, outer = (self.b, self.after) if self.a.unstable > self.b.unstable else (self.a, self.before)
        crossing = slice(few.unstable, max(self.a.unstable, self.b.unstable))
        return all((np.abs(point.exponents.real) <= point.doubts)[crossing].any() for point in (few, outer)) and not bool(
            (few.z == outer.z).all()
        )


def find_events(stack: Stack, tracks: Sequence[Track]) -> list[list[tuple[int, Bifurcation]]]:
    """For each branch its events in order, each with the index of the point before it; `converged` where located."""
    todo = [interval for number, track in enumerate(tracks) for interval in _suspects(number, track)]
    found: list[tuple[tuple[int, int, float], Bifurcation]] = []
    # Where more and more may hide, the shorter the intervals get, it is rounding that is looked at.
    crowd = 64 + 8 * len(todo)
    while todo:
        # Where nothing is seen at the ends, something may hide between them.
        may, must = _hides(*([getattr(at, name) for at in todo] for name in ("before", "a", "b", "after")))
        seen = [interval.kind(stack.clock) for interval in todo]
        located = _locate(stack, todo, seen)
        halve = []
        for interval, kind, here, maybe, surely in zip(todo, seen, located, may, must, strict=True):
            if kind is None and not surely and not (maybe and interval.depth < LOOK and len(todo) < crowd):
                continue
            if here and all(event.converged for event, _ in here):
                found += [(interval.at(part), event) for event, part in here]
            elif interval.depth < (LOOK if kind in PAIR and interval.leaves else DEPTH):
                halve.append(interval)
            else:
                found.append((interval.place, _given_up(stack, interval, kind, here[0][0] if here else None)))
        todo, failures = _halves(stack, halve)
        reason = "no branch leads from one side to the other: one that passes close by was taken for it; try a smaller step"
        found += [(interval.place, _unresolved(stack, interval, "unknown", reason)) for interval in failures]
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
    unstable = track.unstable
    changed = (track.tangent[1:, -1] * track.tangent[:-1, -1] < 0) | (track.turn[1:] * track.turn[:-1] < 0)
    changed |= unstable[1:] != unstable[:-1]
    parts = track.z, track.tangent, track.exponents, track.doubts, track.turn.tolist()
    points = [Point(z, tangent, values, doubts, turn) for z, tangent, values, doubts, turn in zip(*parts, strict=True)]
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
    values = judged_exponents(new.jacobian[:, :, :-1], stack.clock) if np.isfinite(new.jacobian).all() else None
    halves, failures = [], []
    for i, (at, (guess, _)) in enumerate(zip(intervals, guesses, strict=True)):
        if not new.converged[i] or length(new.z[i] - guess) > length(at.b.z - at.a.z):
            failures.append(at)
            continue
        here, doubts = (part[i] for part in values) if values else judged_exponents(new.jacobian[i, :, :-1], stack.clock)
        middle = Point(new.z[i], new.tangent[i], here, doubts, float(new.turn[i]))
        number, step, begins = at.place
        later = (number, step, begins + 0.5 ** (at.depth + 1))
        halves.append(Interval(at.place, at.member, at.before, at.a, middle, at.b, at.depth + 1))
        halves.append(Interval(later, at.member, at.a, middle, at.b, at.after, at.depth + 1))
    return halves, failures


# The events of an interval, each with the part of it at which it lies.
Events = list[tuple[Bifurcation, float]]


def _locate(stack: Stack, intervals: list[Interval], kinds: list[str | None]) -> list[Events]:
    """The events in each interval where its ends speak for one, or for several real modes that cross together; refused
    where Newton's iteration leaves for another. Empty where nothing is known."""
    found: list[Events] = [[] for _ in intervals]
    for kind in sorted({kind for kind in kinds if kind is not None} - {"unknown"}):
        chosen = [i for i, seen in enumerate(kinds) if seen == kind]
        if kind == DOUBLE:
            for i in chosen:
                found[i] = _together(stack, intervals[i]) or _apart(stack, intervals[i])
            continue
        for i in list(chosen):
            if kind in PAIR and intervals[i].leaves:
                found[i] = [(_unresolved(stack, intervals[i], kind, COLLISION), 0.5)]
                chosen.remove(i)
        if not chosen:
            continue
        guesses = np.stack([_guess(intervals[i], kind) for i in chosen])
        points = solve(stack, kind, [intervals[i].member for i in chosen], guesses)
        for i, one in zip(chosen, points, strict=True):
            point = one.point
            refused = _refused(intervals[i], kind, one) if point.converged else ""
            if refused:
                point = dataclasses.replace(point, converged=False, reason=refused)
            elif point.converged and point.kind == DEGENERATE:
                point = _degenerate(stack, intervals[i].member, one)
            found[i] = [(point, 0.5)]
    return found


COLLISION = (
    "eigenvalues that lie on the axis, to their rounding error, leave it in pairs: a Hamiltonian Hopf point, if the system "
    "is conservative"
)


def _degenerate(stack: Stack, member: int, one: Located) -> Bifurcation:
    """The point, with what makes it degenerate."""
    if on_a_line(stack, member, one.z):
        return dataclasses.replace(one.point, reason="a line of equilibria passes through it at this parameter")
    return one.point


def _together(stack: Stack, interval: Interval) -> Events:
    """The one point at which all the real modes vanish that cross in this interval; empty where they do not do so at once.

    It is the zero of their mean along the branch: where they vanish the extended systems are singular.
    """
    many, few = (interval.a, interval.b) if interval.a.unstable > interval.b.unstable else (interval.b, interval.a)
    modes, ends = slice(few.unstable, many.unstable), [interval.a, interval.b]
    place, point = [0.0, 1.0], interval.a
    floor = 32 * float(np.finfo(interval.a.z.dtype).eps) * max(float(np.abs(end.exponents).max()) for end in ends)
    for _ in range(30):
        means = [float(end.exponents[modes].real.mean()) for end in ends]
        if means[0] == means[1]:
            return []
        part = place[0] + (place[1] - place[0]) * means[0] / (means[0] - means[1])
        guess, border = interpolate(interval.a.z, interval.a.tangent, interval.b.z, interval.b.tangent, part)
        new = corrected(stack, [interval.member], guess[None], border[None])
        z, jacobian = new.z[0], new.jacobian[0]
        if not np.isfinite(jacobian).all() or not length(z - guess) <= length(interval.b.z - interval.a.z):
            # At the point itself the corrector's matrix is singular: the interpolant is as good there.
            z, jacobian = guess, branch_jacobians(stack, [interval.member], guess[None])[0]
        values, doubts = judged_exponents(jacobian[:, :-1], stack.clock)
        point = Point(z, border, values, doubts, float(new.turn[0]))
        mean = float(values[modes].real.mean())
        spread, doubt = np.abs(values[modes]).max(), NEAR * max(float(doubts[modes].max()), floor)
        if spread <= doubt:
            break
        if abs(mean) <= doubt:
            # The mean vanishes and they do not.
            return []
        side = int((mean > 0) == (means[1] > 0))
        ends[side], place[side] = point, part
    else:
        return []
    count = many.unstable - few.unstable
    kind = DOUBLE if count == 2 else DEGENERATE
    what = f"{count} real eigenvalues cross at once, as a symmetry of the network has it"
    if on_a_line(stack, interval.member, point.z):
        what += "; a line of equilibria passes through it at this parameter"
    event = failed(stack, interval.member, kind, point.z, what).point
    width = 64 * float(np.finfo(point.z.dtype).eps) * abs(float(stack.p1[interval.member] - stack.p0[interval.member]))
    ends_at = event.parameter - width, event.parameter + width
    event = dataclasses.replace(event, frequency=0.0, interval=ends_at, converged=True, multiplicity=count)
    return [(event, part)]


# How many times its own rounding error an eigenvalue may be and still count as zero.
NEAR = 1e3


def _apart(stack: Stack, interval: Interval) -> Events:
    """The branch points at which real modes vanish one after the other in this interval; empty unless all are found."""
    values = [modes.real for modes in interval.modes]
    parts = values[0] / (values[0] - values[1])
    parts = parts if interval.a.unstable > interval.b.unstable else 1 - parts
    a, b = interval.a, interval.b
    guesses = np.stack([interpolate(a.z, a.tangent, b.z, b.tangent, float(part))[0] for part in parts])
    points = solve(stack, BRANCH_POINT, [interval.member] * len(parts), guesses)
    if not all(one.point.converged and not _outside(interval, one) for one in points):
        return []
    for i, one in enumerate(points):
        error = np.ptp(one.point.interval) / abs(float(stack.p1[interval.member] - stack.p0[interval.member]))
        if any(length(one.z - other.z) <= 4 * error for other in points[:i]):
            return []
    gap = b.z - a.z
    return [(one.point, float(inner(one.z - a.z, gap) / inner(gap, gap))) for one in points]


def _given_up(stack: Stack, interval: Interval, kind: str | None, event: Bifurcation | None) -> Bifurcation:
    """What is said of an interval that was halved as often as is worth it."""
    reason = "the events in this interval could not be told apart" if event is None else event.reason
    found = _unresolved(stack, interval, kind or "unknown", reason)
    change = abs(interval.a.unstable - interval.b.unstable)
    return dataclasses.replace(found, multiplicity=max(1, change)) if event is None else found


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


def _outside(interval: Interval, one: Located) -> bool:
    """Whether a located point is not between the two ends along the branch, or further from them than they are apart."""
    a, b = interval.a, interval.b
    gap = length(b.z - a.z)
    inside = min(inner(one.z - a.z, a.tangent), inner(b.z - one.z, b.tangent)) >= -1e-6 * gap
    return bool(not inside or max(length(one.z - a.z), length(one.z - b.z)) > 1.5 * gap)


def _refused(interval: Interval, kind: str, one: Located) -> str:
    """Why a located point is not the event of this interval; empty where it is."""
    a, b = interval.a, interval.b
    if _outside(interval, one):
        return "Newton's iteration left for another point"
    values, doubts = one.exponents, one.doubts
    # Alone, the event leaves the other modes where they are; else a second one hides behind the same count. A pair that
    # meets at zero has no left vector there.
    count = 2 if kind in PAIR or np.isnan(one.point.left).any() else 1
    critical = np.argsort(np.abs(np.abs(values.imag) - one.point.frequency) + np.abs(values.real))[:count]
    others = int((np.delete(values, critical).real > np.delete(doubts, critical)).sum())
    fewest = min(a.unstable, b.unstable)
    # A pitchfork passed along its parabola: the critical mode is on the same side before and after.
    if others != fewest and not (a.unstable == b.unstable and others == fewest - 1):
        return "another event lies in the same interval"
    return ""


def _hides(before: list[Point], a: list[Point], b: list[Point], after: list[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Of k intervals those (k,) in which events may hide, and those in which they must, though counts at the ends agree."""
    z, slope = ([np.stack([getattr(point, name) for point in points]) for points in (a, b)] for name in ("z", "tangent"))
    paths = [np.stack([point.exponents for point in points]) for points in (before, a, b, after)]
    doubts = np.stack([np.maximum(one.doubts.max(), other.doubts.max()) for one, other in zip(a, b, strict=True)])
    may, must = _crosses_twice(paths[0], paths[1], paths[2], paths[3], doubts)
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


def _crosses_twice(
    before: np.ndarray, a: np.ndarray, b: np.ndarray, after: np.ndarray, doubts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    ends = [float(stack.parameter(interval.member, point.z[-1])) for point in (interval.a, interval.b)]
    found = failed(stack, interval.member, kind, middle, reason).point
    return dataclasses.replace(found, interval=(min(ends), max(ends)))
