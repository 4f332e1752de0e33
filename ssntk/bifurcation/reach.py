"""Follow the branches that can be reached from known points: through these points, and from where branches cross."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.continuation import as_start
from ssntk.bifurcation.events.fold import Fold, tangent_at
from ssntk.bifurcation.events.kinds import DEGENERATE, FLIP
from ssntk.bifurcation.events.standard import events_of
from ssntk.bifurcation.followed import as_branches
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.errors import Outcome, Sentence
from ssntk.zeros.arclength import follow
from ssntk.zeros.correct import corrected, corrected_at, inner, interpolate, length
from ssntk.zeros.lines import on_a_line, singular
from ssntk.zeros.orbits import orbits_at
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Start, Stop, Track, joined

# Distances from a crossing or a fold at which the first point of a branch is tried, relative to the longest step.
AWAY = (0.1, 0.02, 0.5)
# Two events count as the same if they are closer than this multiple of their errors.
SAME = 64
# What the status of a complete diagram says.
WHOLE = "everything that was seen was followed"
# Ends of a branch that was not cut short: the family or its span ends there, or the branch is closed.
COMPLETE = (Outcome.left_span, Outcome.left_domain, Outcome.closed, Outcome.halves)


class Limits(NamedTuple):
    """The longest step, and the largest numbers of points of a branch and of branches."""

    longest: float
    max_steps: int
    max_branches: int


class Node(NamedTuple):
    """A branch in the tree of branches: its stack and track, the branch in the user's units, and its parent's indices."""

    stack: Stack
    track: Track
    branch: Branch
    notes: tuple[Sentence, ...]
    parent: tuple[int, int] | None

    def cuts(self) -> list[str]:
        """One sentence for each end at which the branch was cut short."""
        said = [*self.track.ends[:-1], "; ".join((self.track.ends[-1], *self.notes))]
        return [text for end, text in zip(self.track.ends, said, strict=True) if end.outcome not in COMPLETE]


class Reach:
    """The branches found so far, and the methods that follow further ones.

    `nodes`: the branches of all periods, a list that the searches of all periods share. `beyond`: the period of cycles that
    were seen but not followed, 0 if there are none. `missed`: the parameters of flips whose doubled cycle was not reached.
    """

    def __init__(self, stack: Stack, limits: Limits, nodes: list[Node]):
        self.stack, self.limits, self.nodes = stack, limits, nodes
        self.events = events_of(stack.members[0])
        self.degenerate: list[Bifurcation] = []
        self.full = self.winds = False
        self.beyond, self.missed = 0, []
        self.doubles = bool(nodes)
        self._crossed: list[tuple[np.ndarray, float]] = []

    def through(self, x: np.ndarray, q: float) -> None:
        """Follow the branches through the fixed points x (k, n) at q, and all branches that cross them."""
        if len(x) == 0:
            return
        found = corrected_at(self.stack, np.zeros(len(x), int), x / self.stack.scale[0], np.full(len(x), q))
        good = found.converged.copy()
        guesses = np.concatenate([x / self.stack.scale[0], np.full((len(x), 1), q, x.dtype)], axis=1)
        places = np.where(good[:, None], found.z, guesses)
        # No branch is started at a bifurcation, since other slices meet the branches through it. On a line of equilibria
        # every start arrives at another point, so that testing the first few is enough.
        doubtful = np.flatnonzero(~good | singular(self.stack, np.zeros(len(x), int), places))
        lines = [i for i in doubtful[:8] if on_a_line(self.stack, 0, places[i])]
        good[doubtful] = False
        if lines:
            event = failed(self.stack, 0, DEGENERATE.name, places[lines[0]], "a line of equilibria passes through it").point
            self.degenerate.append(dataclasses.replace(event, frequency=0.0, converged=True))
        for i in np.flatnonzero(good):
            # From an end of the span the branch is followed inwards, from inside the span in both directions.
            ways = (1.0,) if q == 0 else (-1.0,) if q == 1 else (1.0, -1.0)
            self._take([as_start(self.stack, 0, found, int(i), way) for way in ways], shared=True)

    def near(self, x: np.ndarray, q: float) -> None:
        """Follow the branches through the saddle-nodes near the slow points x (k, n) at q: two equilibria may have met near
        a state that almost rests."""
        if len(x) == 0:
            return
        guesses = np.concatenate([x / self.stack.scale[0], np.full((len(x), 1), q, x.dtype)], axis=1)
        for fold in Fold().solve(self.stack, [0] * len(x), guesses):
            if fold.point.converged and 0 <= fold.z[-1] <= 1:
                along = tangent_at(fold.point.right, self.stack.scale[0])
                self._take(self._beside(fold.z, along), shared=False)

    def doubled(self, flip: Bifurcation, parent: tuple[int, int]) -> None:
        """Follow the cycle of twice as many steps that is born at a flip, from one of its points."""
        along = self.stack.step(0, flip.right.real, 0.0).astype(self.stack.p0.dtype)
        starts = self._beside(self._z(flip).astype(along.dtype), along)[:1]
        if not starts:
            self.missed.append(flip.parameter)
        self._take(starts, shared=False, parent=parent)

    def _take(self, starts: list[Start], shared: bool, parent: tuple[int, int] | None = None) -> None:
        """Follow the branch from one start, or from two in opposite directions, unless it is known; then its crossings.

        `shared`: whether both starts are the same point. If not, the branch continues from one start to the other.
        """
        todo: list[tuple[list[Start], bool, tuple[int, int] | None]] = [(starts, shared, parent)]
        while todo and not self.winds:
            starts, shared, parent = todo.pop()
            halves: list[Track] = []
            for number, start in enumerate(starts):
                if halves and halves[0].ends[0].outcome is Outcome.closed:
                    break
                known = [node.track for node in self.nodes if node.stack is self.stack]
                known += [] if shared else halves
                if any(self._on(track, z) for z in self._orbit(start.point.z) for track in known):
                    continue
                if len(self.nodes) >= self.limits.max_branches:
                    self.full = True
                    return
                stops = [self._halving(start)] if self.doubles else []
                (track,) = follow(self.stack, [start], self.limits.longest, self.limits.max_steps, stops=stops)
                halves.append(track if number == 0 else track.reversed())
            if not halves:
                continue
            track = halves[0] if len(halves) == 1 else joined(halves[1], halves[0], shared)
            (followed,) = as_branches(self.stack, [track])
            branch = followed.branch
            self.nodes.append(Node(self.stack, track, branch, followed.notes, parent))
            self.winds = any(note.outcome is Outcome.repeats for note in followed.notes)
            for number, (point, at) in enumerate(zip(branch.bifurcations, branch.steps, strict=True)):
                # A doubled cycle crosses at a flip what has half its period, and was followed before.
                halved = self.doubles and point.kind == FLIP.name
                others = [] if halved else [way for event in self.events for way in event.switch(point)]
                if others and not self._passed(point):
                    other = self._other(others, track.tangent[at] + track.tangent[at + 1])
                    todo.append((self._beside(self._z(point), other), False, (len(self.nodes) - 1, number)))

    def _halving(self, start: Start) -> Stop:
        """The end of a branch of doubled cycles at another flip, where their period halves.

        Behind it, a branch would go on through the same cycles from another of their points on, or along those of half the
        period. It ends where two points that are one there are nearer than a fifth of their distance at the start.
        """

        def apart(z: np.ndarray) -> np.ndarray:
            orbits = orbits_at(self.stack, 0, z)
            away = np.append(orbits[:, orbits.shape[1] // 2] - orbits[:, 0], np.zeros((len(z), 1), z.dtype), axis=1)
            return length(away - self.stack.wound(0, away))

        least = 0.2 * float(apart(start.point.z[None])[0])
        return Stop(lambda z: apart(z) - least, lambda p: Outcome.halves.say(p=p))

    def _passed(self, event: Bifurcation) -> bool:
        """Whether the branches through this crossing were followed before. The crossing is marked as followed."""
        z, error = self._z(event), error_of(self.stack, event)
        near = any(_apart(self.stack, z, other) <= SAME * (error + its) for other, its in self._crossed)
        self._crossed.append((z, error))
        return near

    def _z(self, event: Bifurcation) -> np.ndarray:
        return self.stack.point(0, event.x, event.parameter)

    def _other(self, ways: Sequence[np.ndarray], travel: np.ndarray) -> np.ndarray:
        """Of two directions (dx, dp), each (n + 1,), that of the crossing branch: the one less parallel to `travel`."""
        tangents = [self.stack.step(0, way[:-1], way[-1]) for way in ways]
        return min((tangent / length(tangent) for tangent in tangents), key=lambda tangent: abs(inner(tangent, travel)))

    def _beside(self, z: np.ndarray, tangent: np.ndarray) -> list[Start]:
        """Starts on both sides of a point z (n + 1,) of a branch, with directions away from it."""
        sides = np.array([tangent, -tangent]) / length(tangent)
        best: list[Start] = []
        for away in AWAY:
            guesses = z + away * self.limits.longest * sides
            found = corrected(self.stack, [0, 0], guesses, sides)
            moved = [length(found.z[i] - guesses[i]) <= 0.5 * away * self.limits.longest for i in range(2)]
            starts = [as_start(self.stack, 0, found, i) for i in range(2) if found.converged[i] and moved[i]]
            best = max(best, starts, key=len)
            # Both sides are needed: with one, the branch would appear to end at the crossing.
            if len(best) == 2:
                break
        return [start for start in best if 0 <= start.point.z[-1] <= 1]

    def _orbit(self, z: np.ndarray) -> list[np.ndarray]:
        """All points (n + 1,) of the cycle through a point z (n + 1,)."""
        return [np.append(y, z[-1]) for y in orbits_at(self.stack, 0, z[None])[0]]

    def _on(self, track: Track, here: np.ndarray) -> bool:
        """Whether a point (n + 1,) lies on a branch: the branch passes the plane through it, normal to the branch, there."""
        away = track.z - here
        turns = self.stack.wound(0, away)
        size, gap, leaving = length(away - turns), length(np.diff(track.z, axis=0)), track.leaving
        for j in np.flatnonzero(np.minimum(size[:-1], size[1:]) <= 1.5 * gap):
            # For angles: of the copies of this point, whole periods apart, take the one next to this part of the branch.
            z = here + turns[j if size[j] <= size[j + 1] else j + 1]
            chord = track.z[j + 1] - track.z[j]
            part = inner(chord, z - track.z[j]) / inner(chord, chord)
            if not -0.2 <= part <= 1.2:
                continue
            guess, border = interpolate(track.z[j], leaving[j], track.z[j + 1], track.tangent[j + 1], float(part))
            guess = guess + inner(border, z - guess) * border
            tolerance = 1e-6 * (1 + length(z))
            if length(guess - z) > max(0.5 * gap[j], tolerance):
                continue
            found = corrected(self.stack, [0], guess[None], border[None])
            if found.converged[0] and length(found.z[0] - z) <= tolerance:
                return True
        return False


def _apart(stack: Stack, z: np.ndarray, other: np.ndarray) -> float:
    """The distance between two points z (n + 1,), up to whole periods of angles."""
    step = z - other
    return float(length(step - stack.wound(0, step)))


def error_of(stack: Stack, event: Bifurcation) -> float:
    """A bound of the error of a located point, in the metric of the continuation."""
    return float(np.ptp(event.interval)) / 2 / abs(float(stack.p1[0]) - float(stack.p0[0]))


def distinct(events: Iterable[tuple[Stack, Bifurcation]]) -> tuple[Bifurcation, ...]:
    """The events sorted by parameter, without repeats: events of one kind at one place, to within their errors.

    Each event comes with the stack of its branch. Of a cycle, any of its points is its place.
    """
    kept: list[tuple[Bifurcation, np.ndarray, float]] = []
    for stack, event in sorted(events, key=lambda pair: pair[1].parameter):
        z, error = stack.point(0, event.x, event.parameter), error_of(stack, event)
        same = [one for one in kept if one[0].kind == event.kind and one[0].converged == event.converged]
        places = [z]
        if event.period > 1 and event.converged and same:
            places = [np.append(y, z[-1]) for y in orbits_at(stack, 0, z[None].astype(stack.p0.dtype))[0]]
        near = (_apart(stack, place, other) <= SAME * (error + its) for _, other, its in same for place in places)
        if not any(near):
            kept.append((event, z, error))
    return tuple(event for event, _, _ in kept)


def status_of(searches: Sequence[Reach], unresolved: int) -> str:
    """A sentence on what was not followed: a limit that was reached, branches cut short, events not located."""
    nodes, limits = searches[0].nodes, searches[0].limits
    full, winds, degenerate = (any(getattr(one, name) for one in searches) for name in ("full", "winds", "degenerate"))
    parts = [f"stopped at max_branches = {limits.max_branches}: more was seen"] if full else []
    parts += ["stopped at a branch that repeats itself"] if winds else []
    parts += [f"branch {i} {cut}" for i, node in enumerate(nodes) for cut in node.cuts()]
    if unresolved:
        parts.append(f"{unresolved} events are unresolved: what crosses or ends there was not followed")
    if degenerate:
        parts.append("lines of equilibria were found, which are not followed")
    missed = dict.fromkeys(f"{p:.6g}" for one in searches for p in one.missed)
    parts += [f"the doubled cycle at the flip at p = {', '.join(missed)} was not reached"] if missed else []
    beyond = [f"cycles of {one.beyond} steps were not followed: give a larger max_period" for one in searches if one.beyond]
    said = "; ".join((*parts, *beyond)) or WHOLE
    axis = [note for node in nodes for note in node.notes if note.outcome is Outcome.conservative]
    return "; ".join((said, *axis[:1]))
