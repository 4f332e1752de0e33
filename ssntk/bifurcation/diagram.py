"""All branches that can be reached: from fixed points at several parameters, and from wherever branches cross."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.random as jr
import numpy as np

from ssntk.bifurcation.branch import Branch, events_table
from ssntk.bifurcation.continuation import as_branches, as_start
from ssntk.bifurcation.events.fold import Fold, tangent_at
from ssntk.bifurcation.events.kinds import DEGENERATE
from ssntk.bifurcation.events.standard import events_of
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.dynamics.fixed_points import FixedPoints, find_fixed_points
from ssntk.dynamics.metric import as_periods
from ssntk.errors import NumericalError, Outcome, Sentence, as_count, as_key, as_scalar, outside_jit
from ssntk.results import Collection, Pictured, Table, Tabular, counted
from ssntk.zeros.arclength import follow
from ssntk.zeros.correct import corrected, corrected_at, inner, interpolate, length
from ssntk.zeros.equilibria import equilibria_of, resized
from ssntk.zeros.lines import on_a_line, singular
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Start, Track, joined

# How far from a crossing or a fold the first point of a branch is looked for, beside the longest step.
AWAY = (0.1, 0.02, 0.5)
# How many times its own error an event may be from another and still be the same.
SAME = 64
# States near which the sizes are looked at, of those that were found.
LOOKS = 12
# Why branches end that are whole: where the family or its span does.
COMPLETE = (Outcome.left_span, Outcome.left_domain, Outcome.closed)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagram(Pictured, Tabular, Collection):
    """The branches of a family over a span.

    - `branches`: in the order in which they were found; `bifurcations`, `unresolved`: those of all branches, each once, by
      parameter.
    - `status`: whether everything that was seen was followed, a sentence; it names each branch that was cut, and where.
      Nothing proves that all branches were seen.
    - `parent`: for each branch `(branch, event)`, the indices of the branch it was switched from and of the event among that
      branch's bifurcations; `None` for a branch that was found by the search.
    """

    branches: tuple[Branch, ...]
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str
    parent: tuple[tuple[int, int] | None, ...] = ()
    _picture = "bifurcation_diagram"

    @property
    def outputs(self) -> tuple[np.ndarray | None, ...]:
        """The readout along each branch, (k, m)."""
        return tuple(branch.outputs for branch in self.branches)

    @property
    def has_readout(self) -> bool:
        """Whether the outputs are anything but the states themselves."""
        return any(branch.has_readout for branch in self.branches)

    def __len__(self) -> int:
        return len(self.branches)

    def _item(self, i: int) -> Branch:
        return self.branches[i]

    def _headline(self) -> str:
        points = counted(sum(map(len, self.branches)), "point")
        return f"Diagram: {counted(len(self), 'branch')}, {points}; {self.status}"

    def _tables(self) -> list[Table]:
        rows = [
            (i, len(branch), int(branch.stable.sum()), branch.parameter.min(), branch.parameter.max(), self._origin(i))
            for i, branch in enumerate(self)
            if len(branch)
        ]
        columns = ("branch", "points", "stable", "lowest p", "highest p", "")
        return [Table.of(columns, rows, 6), events_table((*self.bifurcations, *self.unresolved), 11)]

    @property
    def roots(self) -> tuple[int, ...]:
        """The branches that were found by the search."""
        return tuple(i for i in range(len(self)) if i >= len(self.parent) or self.parent[i] is None)

    def children(self, i: int) -> tuple[int, ...]:
        """The branches that were switched to from events of branch `i`."""
        return tuple(child for child, parent in enumerate(self.parent) if parent is not None and parent[0] == i)

    def _origin(self, i: int) -> str:
        parent = self.parent[i] if i < len(self.parent) else None
        if parent is None:
            return ""
        event = self.branches[parent[0]].bifurcations[parent[1]]
        return f"from the {event.kind} of branch {parent[0]} at p = {event.parameter:.6g}"

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        parts = [branch._columns() for branch in self.branches]
        numbers = np.repeat(np.arange(len(self)), [len(branch) for branch in self.branches])
        shared = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
        joined = {name: (parts[0][name][0], np.concatenate([part[name][1] for part in parts])) for name in shared}
        return {"branch": (("point",), numbers), **joined}

    def _attributes(self) -> dict[str, Any]:
        return {"status": self.status}

    def _events(self) -> tuple[Bifurcation, ...]:
        return self.bifurcations


@outside_jit
def bifurcation_diagram(
    family: Any,
    span: Any,
    *,
    u: Any = None,
    key: Any = None,
    n_slices: int = 11,
    n_starts: int = 256,
    step: Any = 0.05,
    max_steps: int = 10_000,
    max_branches: int = 256,
    scale: Any = None,
    fix: Any = None,
    periods: Any = None,
) -> Diagram:
    """All branches of equilibria over a span that can be reached.

    Fixed points are searched at `n_slices` parameters, the ends among them; those that lie on no branch yet are followed in
    both directions, so that disconnected pieces and closed loops are found. So are the saddle-nodes near the slow points of
    these searches, which lead to pieces between two slices. Where branches cross, the other one is followed too, along the
    second root of the bifurcation equation (Keller, 1977).

    **Arguments:**

    - `span`: (p0, p1), distinct. `u`: (d,) constant input; default zero.
    - `n_slices`: how many parameters, evenly spaced, at least 2; `n_starts`: starts of each search; `key`: a
      `jax.random.key`, default `jax.random.key(0)`. More of either find more.
    - `step`, `max_steps`, `scale`, `fix`, `periods`: as for [`continuation`][].
    - `max_branches`: the most branches; `status` says where it stopped the search.

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time; `NumericalError` if no
    equilibrium is found anywhere.
    """
    zeros = equilibria_of(family, span, u, scale=scale, fix=fix)
    n_slices, max_steps = as_count(n_slices, "n_slices", least=2), as_count(max_steps, "max_steps")
    n_starts, max_branches = as_count(n_starts, "n_starts", least=2), as_count(max_branches, "max_branches")
    longest, turns = float(as_scalar(step, "step", positive=True)), as_periods(periods, family.model.n_state)
    # The ends first: what starts there needs to be followed one way only.
    slices = np.linspace(0.0, 1.0, n_slices)[[0, -1, *range(1, n_slices - 1)]].tolist()
    found: list[FixedPoints] = []
    for q, one in zip(slices, jr.split(as_key(key), n_slices), strict=True):
        model = family(zeros.parameter(np.asarray(q, zeros.p0.dtype)))
        found.append(find_fixed_points(model, zeros.u, n_starts=n_starts, periods=turns, key=one))
    seen = [(q, x) for q, points in zip(slices, found, strict=True) for x in points.x]
    if scale is None and seen:
        # What the states are like is known only now.
        chosen = [seen[i] for i in np.linspace(0, len(seen) - 1, min(len(seen), LOOKS)).astype(int)]
        zeros = resized(zeros, np.stack([x for _, x in chosen]), [q for q, _ in chosen])
    search = _Search(Stack([zeros], turns), longest, max_steps, max_branches)
    for q, points in zip(slices, found, strict=True):
        search.through(points.x, q)
        search.near(points.slow.x, q)
    if not search.nodes and not search.degenerate:
        shown = ", ".join(f"{float(zeros.parameter(q)):g}" for q in sorted(slices))
        raise NumericalError(f"no equilibrium was found at p = {shown}: try another span, more n_slices or more n_starts")
    stack = search.stack
    branches = tuple(node.branch for node in search.nodes)
    bifurcations = [event for branch in branches for event in branch.bifurcations]
    unresolved = [event for branch in branches for event in branch.unresolved]
    return Diagram(
        branches=branches,
        bifurcations=_distinct(stack, [*bifurcations, *search.degenerate]),
        unresolved=_distinct(stack, unresolved),
        status=search.status(len(_distinct(stack, unresolved))),
        parent=tuple(node.parent for node in search.nodes),
    )


class _Node(NamedTuple):
    """A branch of the tree: as it was followed, as a user reads it, and the branch and the event that it comes from."""

    track: Track
    branch: Branch
    notes: tuple[Sentence, ...]
    parent: tuple[int, int] | None

    def cuts(self) -> list[str]:
        """Why it is not whole, for each end at which it is not."""
        said = [*self.track.ends[:-1], "; ".join((self.track.ends[-1], *self.notes))]
        return [text for end, text in zip(self.track.ends, said, strict=True) if end.outcome not in COMPLETE]


class _Search:
    """The branches found so far, and how further ones are followed."""

    def __init__(self, stack: Stack, longest: float, max_steps: int, max_branches: int):
        self.stack, self.longest, self.max_steps, self.max_branches = stack, longest, max_steps, max_branches
        self.nodes: list[_Node] = []
        self.events = events_of(stack.members[0])
        self.degenerate: list[Bifurcation] = []
        self.full = self.winds = False
        self._crossed: list[tuple[np.ndarray, float]] = []

    def status(self, unresolved: int) -> str:
        """What was not followed: a limit, branches that were cut, events that were not located."""
        parts = [f"stopped at max_branches = {self.max_branches}: more was seen"] if self.full else []
        parts += ["stopped at a branch that repeats itself"] if self.winds else []
        parts += [f"branch {i} {cut}" for i, node in enumerate(self.nodes) for cut in node.cuts()]
        if unresolved:
            parts.append(f"{unresolved} events are unresolved: what crosses or ends there was not followed")
        if self.degenerate:
            parts.append("lines of equilibria were found, which are not followed")
        said = "; ".join(parts) if parts else "everything that was seen was followed"
        axis = [note for node in self.nodes for note in node.notes if note.outcome is Outcome.conservative]
        return "; ".join((said, *axis[:1]))

    def through(self, x: np.ndarray, q: float) -> None:
        """Follow what passes through the fixed points x (k, n) at q, and all that crosses it."""
        if len(x) == 0:
            return
        found = corrected_at(self.stack, np.zeros(len(x), int), x / self.stack.scale[0], np.full(len(x), q))
        good = found.converged.copy()
        guesses = np.concatenate([x / self.stack.scale[0], np.full((len(x), 1), q, x.dtype)], axis=1)
        places = np.where(good[:, None], found.z, guesses)
        # No branch begins at a bifurcation: other slices meet those that pass it. A line of equilibria is met at as many
        # points as there were starts: the first few of them tell.
        doubtful = np.flatnonzero(~good | singular(self.stack, np.zeros(len(x), int), places))
        lines = [i for i in doubtful[:8] if on_a_line(self.stack, 0, places[i])]
        good[doubtful] = False
        if lines:
            event = failed(self.stack, 0, DEGENERATE.name, places[lines[0]], "a line of equilibria passes through it").point
            self.degenerate.append(dataclasses.replace(event, frequency=0.0, converged=True))
        for i in np.flatnonzero(good):
            # Towards the inside of the span, and from within it both ways.
            ways = (1.0,) if q == 0 else (-1.0,) if q == 1 else (1.0, -1.0)
            self._take([as_start(self.stack, 0, found, int(i), way) for way in ways], shared=True)

    def near(self, x: np.ndarray, q: float) -> None:
        """Follow what passes through the saddle-nodes near the slow points x (k, n) at q: where a state almost rests, one
        that rests may have begun or ended."""
        if len(x) == 0:
            return
        guesses = np.concatenate([x / self.stack.scale[0], np.full((len(x), 1), q, x.dtype)], axis=1)
        for fold in Fold().solve(self.stack, [0] * len(x), guesses):
            if fold.point.converged and 0 <= fold.z[-1] <= 1:
                along = tangent_at(fold.point.right, self.stack.scale[0])
                self._take(self._beside(fold.z, along), shared=False)

    def _take(self, starts: list[Start], shared: bool) -> None:
        """Follow from one start, or from two that lead opposite ways, what is on no branch yet; then what crosses it.

        `shared`: both starts are one point, else the branch runs on from one to the other.
        """
        todo: list[tuple[list[Start], bool, tuple[int, int] | None]] = [(starts, shared, None)]
        while todo and not self.winds:
            starts, shared, parent = todo.pop()
            halves: list[Track] = []
            for number, start in enumerate(starts):
                if halves and halves[0].ends[0].outcome is Outcome.closed:
                    break
                known = [node.track for node in self.nodes]
                known += [] if shared else halves
                if any(self._on(track, start) for track in known):
                    continue
                if len(self.nodes) >= self.max_branches:
                    self.full = True
                    return
                (track,) = follow(self.stack, [start], self.longest, self.max_steps)
                halves.append(track if number == 0 else track.reversed())
            if not halves:
                continue
            track = halves[0] if len(halves) == 1 else joined(halves[1], halves[0], shared)
            (followed,) = as_branches(self.stack, [track])
            branch = followed.branch
            self.nodes.append(_Node(track, branch, followed.notes, parent))
            self.winds = any(note.outcome is Outcome.repeats for note in followed.notes)
            for number, (point, at) in enumerate(zip(branch.bifurcations, branch.steps, strict=True)):
                others = [way for event in self.events for way in event.switch(point)]
                if others and not self._passed(point):
                    other = self._other(others, track.tangent[at] + track.tangent[at + 1])
                    todo.append((self._beside(self._z(point), other), False, (len(self.nodes) - 1, number)))

    def _passed(self, event: Bifurcation) -> bool:
        """Whether the branches through this crossing were followed already; from now on they count so."""
        z, error = self._z(event), error_of(self.stack, event)
        near = any(_apart(self.stack, z, other) <= SAME * (error + its) for other, its in self._crossed)
        self._crossed.append((z, error))
        return near

    def _z(self, event: Bifurcation) -> np.ndarray:
        return self.stack.point(0, event.x, event.parameter)

    def _other(self, ways: Sequence[np.ndarray], travel: np.ndarray) -> np.ndarray:
        """The direction of the branch that crosses the one travelled, of directions (dx, dp)."""
        tangents = [self.stack.step(0, way[:-1], way[-1]) for way in ways]
        return min((tangent / length(tangent) for tangent in tangents), key=lambda tangent: abs(inner(tangent, travel)))

    def _beside(self, z: np.ndarray, tangent: np.ndarray) -> list[Start]:
        """The starts on both sides of a point of a branch, leading away from it."""
        sides = np.array([tangent, -tangent]) / length(tangent)
        best: list[Start] = []
        for away in AWAY:
            guesses = z + away * self.longest * sides
            found = corrected(self.stack, [0, 0], guesses, sides)
            moved = [length(found.z[i] - guesses[i]) <= 0.5 * away * self.longest for i in range(2)]
            starts = [as_start(self.stack, 0, found, i) for i in range(2) if found.converged[i] and moved[i]]
            best = max(best, starts, key=len)
            # With one side alone the branch would end where it does not.
            if len(best) == 2:
                break
        return [start for start in best if 0 <= start.point.z[-1] <= 1]

    def _on(self, track: Track, start: Start) -> bool:
        """Whether the start lies on a branch: whether that branch passes the plane across it at the same point."""
        here = start.point.z
        away = track.z - here
        turns = self.stack.wound(0, away)
        size, gap = length(away - turns), length(np.diff(track.z, axis=0))
        for j in np.flatnonzero(np.minimum(size[:-1], size[1:]) <= 1.5 * gap):
            # Of the points that are one with it, the one beside this part of the branch.
            z = here + turns[j if size[j] <= size[j + 1] else j + 1]
            chord = track.z[j + 1] - track.z[j]
            part = inner(chord, z - track.z[j]) / inner(chord, chord)
            if not -0.2 <= part <= 1.2:
                continue
            guess, border = interpolate(track.z[j], track.tangent[j], track.z[j + 1], track.tangent[j + 1], float(part))
            guess = guess + inner(border, z - guess) * border
            tolerance = 1e-6 * (1 + length(z))
            if length(guess - z) > max(0.5 * gap[j], tolerance):
                continue
            found = corrected(self.stack, [0], guess[None], border[None])
            if found.converged[0] and length(found.z[0] - z) <= tolerance:
                return True
        return False


def _apart(stack: Stack, z: np.ndarray, other: np.ndarray) -> float:
    """How far two points are from each other, whole periods of angles apart."""
    step = z - other
    return float(length(step - stack.wound(0, step)))


def error_of(stack: Stack, event: Bifurcation) -> float:
    """How far a located point may be from where it lies, in the metric."""
    return float(np.ptp(event.interval)) / 2 / abs(float(stack.p1[0]) - float(stack.p0[0]))


def _distinct(stack: Stack, events: Iterable[Bifurcation]) -> tuple[Bifurcation, ...]:
    """The events by parameter, each once: of one kind, and in one place to their own errors."""
    kept: list[tuple[Bifurcation, np.ndarray, float]] = []
    for event in sorted(events, key=lambda event: event.parameter):
        z, error = stack.point(0, event.x, event.parameter), error_of(stack, event)
        same = (one for one in kept if one[0].kind == event.kind and one[0].converged == event.converged)
        if not any(_apart(stack, z, other) <= SAME * (error + its) for _, other, its in same):
            kept.append((event, z, error))
    return tuple(event for event, _, _ in kept)
