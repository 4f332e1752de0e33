"""Find the steps of a branch that pass an event. Signs at the ends of steps are compared, steps with several events are
bisected, and each event is then located.

A mode counts as unstable only if it grows by more than the rounding error of its eigenvalue. The eigenvalues of
conservative systems stay on the axis, and rounding errors there would otherwise be taken for events.

All branches are processed together, in rounds of a few compiled calls each.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.events.base import DEPTH, LOOK, AbstractEvent, Found, unresolved
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import UNKNOWN
from ssntk.bifurcation.events.standard import events_of
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.zeros.correct import corrected, length
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Point, Track, points_of


def own_events(stack: Stack, number: int, track: Track, own: Sequence[AbstractEvent]) -> list[tuple[int, Bifurcation]]:
    """The user's own events on a branch, each with the index of the point before it, as the ends of each step show them."""
    found: list[tuple[int, Bifurcation]] = []
    for event in own:
        every = [at for piece in _pieces(number, track) for at in piece.steps(range(len(piece.points.z) - 1))]
        shown = [event.seen(interval.change) for interval in every]
        if every and not shown[0]:
            shown[0] = event.begins(every[0].change)
        steps = [interval for interval, one in zip(every, shown, strict=True) if one]
        mine: list[tuple[int, Bifurcation]] = []
        for interval, here in zip(steps, event.find(stack, steps), strict=True):
            step = interval.place[1]
            for point, _ in here:
                again = mine and not (mine[-1][1].converged or point.converged) and mine[-1][1].reason == point.reason
                # What is unresolved for the same reason over several steps in a row is one event.
                if again and step > 0 and shown[step - 1]:
                    mine[-1] = (mine[-1][0], _merged(mine[-1][1], point))
                else:
                    mine.append((step, point))
        found += mine
        for corner in track.corners:
            before = track.points.at(corner.at)
            if event.seen(Change(before, corner.behind)):
                point = failed(
                    stack, track.member, event.kind.name, before.z, "it jumps there, at a kink of the vector field"
                )
                found.append((corner.at, point.point))
    return found


def find_events(stack: Stack, tracks: Sequence[Track]) -> list[list[tuple[int, Bifurcation]]]:
    """For each branch its events in order, each with the index of the point before it. Located events have `converged`."""
    events = events_of(stack.members[0])
    todo = [interval for number, track in enumerate(tracks) for interval in _suspects(number, track)]
    found: list[tuple[tuple[int, int, float], Bifurcation]] = []
    # If the worklist keeps growing under bisection, we are resolving rounding noise: stop.
    crowd = 64 + 8 * len(todo)
    while todo:
        # If the ends of an interval show no event, two that cancel may still hide between them.
        may, must = _hides(*(Point.stacked([getattr(at, name) for at in todo]) for name in ("before", "a", "b", "after")))
        seen = [next((event for event in events if event.seen(interval.change)), None) for interval in todo]
        located = _locate(stack, todo, seen)
        halve = []
        for interval, event, here, maybe, surely in zip(todo, seen, located, may, must, strict=True):
            hidden = surely or (maybe and interval.depth < LOOK and len(todo) < crowd)
            if event is None and interval.change.none and not hidden:
                continue
            if here and all(point.converged for point, _ in here):
                found += [(interval.at(part), point) for point, part in here]
            elif interval.depth < (DEPTH if event is None else event.depth(interval)):
                halve.append(interval)
            else:
                found.append((interval.place, _given_up(stack, interval, event, here[0][0] if here else None)))
        todo, failures = _halves(stack, halve)
        reason = "no branch leads from one side to the other: one that passes close by was taken for it; try a smaller step"
        found += [(interval.place, unresolved(stack, interval, UNKNOWN.name, reason)) for interval in failures]
    listed: list[list[tuple[int, Bifurcation]]] = [[] for _ in tracks]
    for (number, step, _), point in sorted(found, key=lambda pair: pair[0]):
        before = listed[number][-1] if listed[number] else None
        if before is not None and before[0] == step and not before[1].converged and not point.converged:
            point = _merged(listed[number].pop()[1], point)
        listed[number].append((step, point))
    return listed


def _merged(first: Bifurcation, second: Bifurcation) -> Bifurcation:
    """Merge two unresolved neighbours into one event, since bisection around a degenerate point leaves several."""
    interval = (min(first.interval[0], second.interval[0]), max(first.interval[1], second.interval[1]))
    kind = first.kind if first.kind == second.kind else UNKNOWN.name
    return dataclasses.replace(first, kind=kind, interval=interval)


def _suspects(number: int, track: Track) -> list[Interval]:
    """The steps of a branch whose ends show an event, or in which one may hide. At a corner the branch jumps, so that the
    pieces between corners are branches of their own."""
    return [interval for piece in _pieces(number, track) for interval in _suspects_on(piece)]


class _Piece(NamedTuple):
    """A smooth piece of branch `number`, with the index of its first point and the index `member` of its zeros."""

    number: int
    member: int
    first: int
    points: Point

    def steps(self, chosen: Iterable[int]) -> list[Interval]:
        """Make intervals of the given steps, each with its neighbouring points."""
        last = len(self.points.z) - 1

        def at(j: int) -> Point:
            return self.points.at(min(max(j, 0), last))

        return [
            Interval((self.number, self.first + j, 0.0), self.member, at(j - 1), at(j), at(j + 1), at(j + 2)) for j in chosen
        ]


def _pieces(number: int, track: Track) -> list[_Piece]:
    """The smooth pieces of a branch."""
    return [_Piece(number, track.member, first, points) for first, points in track.pieces()]


def _suspects_on(piece: _Piece) -> list[Interval]:
    """The steps of a smooth piece whose ends show an event, or in which one may hide."""
    points, count = piece.points, len(piece.points.z)
    if count < 2:
        return []
    unstable, turn, slope = points.unstable, points.turn, points.tangent[:, -1]
    changed = (slope[1:] * slope[:-1] < 0) | (turn[1:] * turn[:-1] < 0)
    changed |= unstable[1:] != unstable[:-1]
    # The points about each step; the ends are their own neighbours.
    about = (np.clip(np.arange(count - 1) + offset, 0, count - 1) for offset in (-1, 0, 1, 2))
    changed |= np.logical_or(*_hides(*(points.at(i) for i in about)))
    return piece.steps(np.flatnonzero(changed).tolist())


def _halves(stack: Stack, intervals: list[Interval]) -> tuple[list[Interval], list[Interval]]:
    """Halve each interval at the point of the branch half way. Also returns the intervals in which none was found."""
    if not intervals:
        return [], []
    guesses = [interval.between(0.5) for interval in intervals]
    new = corrected(stack, [at.member for at in intervals], *(np.stack(part) for part in zip(*guesses, strict=True)))
    points = points_of(new, stack.clock)
    halves, failures = [], []
    for i, (at, (guess, _)) in enumerate(zip(intervals, guesses, strict=True)):
        if not new.converged[i] or length(new.z[i] - guess) > length(at.b.z - at.a.z):
            failures.append(at)
            continue
        middle = points.at(i)
        number, step, begins = at.place
        later = (number, step, begins + 0.5 ** (at.depth + 1))
        halves.append(Interval(at.place, at.member, at.before, at.a, middle, at.b, at.depth + 1))
        halves.append(Interval(later, at.member, at.a, middle, at.b, at.after, at.depth + 1))
    return halves, failures


def _locate(stack: Stack, intervals: list[Interval], events: list[AbstractEvent | None]) -> list[Found]:
    """Locate the event in each interval whose ends show one; an empty result for the others."""
    found: list[Found] = [[] for _ in intervals]
    for event in sorted({event for event in events if event is not None}, key=lambda event: event.kind.name):
        chosen = [i for i, seen in enumerate(events) if seen == event]
        for i, here in zip(chosen, event.find(stack, [intervals[i] for i in chosen]), strict=True):
            found[i] = here
    return found


def _given_up(stack: Stack, interval: Interval, event: AbstractEvent | None, point: Bifurcation | None) -> Bifurcation:
    """The unresolved event for an interval that was halved as often as is worth it."""
    reason = "the events in this interval could not be told apart" if point is None else point.reason
    found = unresolved(stack, interval, UNKNOWN.name if event is None else event.kind.name, reason)
    change = interval.change.grown
    return dataclasses.replace(found, multiplicity=max(1, change)) if point is None else found


def _hides(before: Point, a: Point, b: Point, after: Point) -> tuple[np.ndarray, np.ndarray]:
    """For k intervals whose ends have equal counts of unstable modes: whether events may hide (k,), and must hide (k,)."""
    doubts = np.maximum(a.doubts.max(axis=1), b.doubts.max(axis=1))
    may, must = _crosses_twice(before.exponents, a.exponents, b.exponents, after.exponents, doubts)
    return may | _turns_twice(a.z, a.tangent, b.z, b.tangent), must


def _turns_twice(z0: np.ndarray, tangent0: np.ndarray, z1: np.ndarray, tangent1: np.ndarray) -> np.ndarray:
    """Whether the cubic Hermite interpolant of the parameter has two turning points inside its interval, (k,)."""
    gap = length(z1 - z0)
    chord, start, end = z1[:, -1] - z0[:, -1], tangent0[:, -1] * gap, tangent1[:, -1] * gap
    # The slope is start (1 - s)^2 + 2 middle s (1 - s) + end s^2. If it has the same sign at both ends, it can change sign
    # twice in between only by way of an extremum there.
    middle = 3 * chord - start - end
    # A slope at the rounding level of the parameter does not count as a turn.
    inside = (start * end > 0) & (np.sign(middle) == -np.sign(start)) & (np.abs(middle) > 1e-13)
    return inside & (middle**2 >= start * end)


def _crosses_twice(
    before: np.ndarray, a: np.ndarray, b: np.ndarray, after: np.ndarray, doubts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether modes may and must cross the axis between `a` and `b`, each (k, n) exponents with equally many unstable.

    A mode may cross if its real part approaches the axis on one side of the interval, leaves it on the other, and is no
    further from it than it moves between points. Two modes must cross, in opposite directions, if one mode changes sides
    although the count stays the same.
    """
    # Changes below this size are rounding.
    noise = 1e-13 * np.abs(np.where(np.isfinite(a), a, 0)).max(axis=1, keepdims=True)

    def upper(values: np.ndarray) -> np.ndarray:
        # Of a complex pair only the upper eigenvalue is matched: the lower one is put at infinity.
        return np.where(values.imag >= 0, values, np.inf)

    def nearest(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            gaps = np.abs(values[:, :, None] - others[:, None, :])
        at = np.where(np.isfinite(gaps), gaps, np.inf).argmin(axis=2)
        return np.take_along_axis(others, at, axis=1)

    kept = a.imag >= 0
    at_b = nearest(a, upper(b))
    path = np.stack([nearest(a, upper(before)), a, at_b, nearest(at_b, upper(after))]).real
    # Flip the sign of modes left of the axis, so that a path towards the axis always falls.
    path = path * np.sign(path[1])
    moves = np.diff(path, axis=0)
    near = path[1:3].min(axis=0) < np.abs(moves).max(axis=0)
    sides = (path[2] < -noise) & (path[1] > noise)
    heads = (moves[0] < 0) | (moves[1] < 0)
    returns = (moves[2] > 0) | (moves[1] > 0)
    may = near & heads & returns & (np.abs(moves).max(axis=0) > noise)
    return (kept & (may | sides)).any(axis=1), (kept & sides).any(axis=1)
