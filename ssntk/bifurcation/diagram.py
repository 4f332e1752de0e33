"""Follow all branches that can be reached, from fixed points at several parameters and from crossings of branches."""

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
from ssntk.threads import one_blas_thread
from ssntk.zeros.arclength import follow
from ssntk.zeros.correct import corrected, corrected_at, inner, interpolate, length
from ssntk.zeros.equilibria import equilibria_of, resized
from ssntk.zeros.lines import on_a_line, singular
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Start, Track, joined

# Distances from a crossing or a fold at which the first point of a branch is tried, relative to the longest step.
AWAY = (0.1, 0.02, 0.5)
# Two events count as the same if they are closer than this multiple of their errors.
SAME = 64
# The largest number of fixed points from which the typical sizes of the states are computed.
LOOKS = 12
# Ends of a branch that was not cut short: the family or its span ends there, or the branch is closed.
COMPLETE = (Outcome.left_span, Outcome.left_domain, Outcome.closed)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagram(Pictured, Tabular, Collection):
    """The branches of a family over a span.

    - `branches`: in the order in which they were found. `bifurcations`, `unresolved`: those of all branches, each listed
      once, sorted by parameter.
    - `status`: a sentence that reports whether everything that was seen was followed. It names each branch that was cut
      short, and where. There is no proof that all branches were seen.
    - `parent`: one entry for each branch. `(branch, event)` if it was reached at a crossing: the index of the branch that it
      crosses, and of the event among that branch's bifurcations. `None` if the search for fixed points found it.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    print(len(diagram), [event.kind for event in diagram.bifurcations])  # 2 ['pitchfork']
    ```
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
        """Whether the outputs differ from the states."""
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
        """The indices of the branches that the search for fixed points found."""
        return tuple(i for i in range(len(self)) if i >= len(self.parent) or self.parent[i] is None)

    def children(self, i: int) -> tuple[int, ...]:
        """The indices of the branches that were reached at events of branch `i`."""
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
@one_blas_thread()
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
    """Follow all branches of equilibria over a span that can be reached.

    Fixed points are searched for at `n_slices` parameters, among them both ends. If a fixed point lies on no branch yet, its
    branch is followed in both directions: this finds disconnected pieces and closed loops. Each search also returns slow
    points, states at which the network almost rests. Branches are followed from the saddle-nodes near them, which finds
    pieces between two slices. If branches cross, the crossing branch is followed too, along the second root of the
    bifurcation equation (Keller, 1977).

    **Arguments:**

    - `span`: (p0, p1), two different values of the parameter. `u`: (d,) constant input. Default zero.
    - `n_slices`: at how many parameters to search, evenly spaced, at least 2. `n_starts`: the number of starts of each
      search. More slices or more starts find more branches.
    - `key`: a `jax.random.key` for the starts. Default `jax.random.key(0)`.
    - `step`, `max_steps`, `scale`, `fix`, `periods`: as for [`continuation`][].
    - `max_branches`: the largest number of branches. If it stops the search, `status` reports where.

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time. Raises `NumericalError` if no
    equilibrium is found anywhere.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    print([event.kind for event in diagram.bifurcations])  # ['pitchfork']
    ```
    """
    zeros = equilibria_of(family, span, u, scale=scale, fix=fix)
    n_slices, max_steps = as_count(n_slices, "n_slices", least=2), as_count(max_steps, "max_steps")
    n_starts, max_branches = as_count(n_starts, "n_starts", least=2), as_count(max_branches, "max_branches")
    longest, turns = float(as_scalar(step, "step", positive=True)), as_periods(periods, family.model.n_state)
    # The ends of the span come first, since branches that start there are followed in one direction only.
    slices = np.linspace(0.0, 1.0, n_slices)[[0, -1, *range(1, n_slices - 1)]].tolist()
    found: list[FixedPoints] = []
    for q, one in zip(slices, jr.split(as_key(key), n_slices), strict=True):
        model = family(zeros.parameter(np.asarray(q, zeros.p0.dtype)))
        found.append(find_fixed_points(model, zeros.u, n_starts=n_starts, periods=turns, key=one))
    seen = [(q, x) for q, points in zip(slices, found, strict=True) for x in points.x]
    if scale is None and seen:
        # The typical sizes of the states follow from the fixed points, which are known only now.
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
    """A branch in the tree of branches: its track, the branch in the user's units, and the indices of its parent."""

    track: Track
    branch: Branch
    notes: tuple[Sentence, ...]
    parent: tuple[int, int] | None

    def cuts(self) -> list[str]:
        """One sentence for each end at which the branch was cut short."""
        said = [*self.track.ends[:-1], "; ".join((self.track.ends[-1], *self.notes))]
        return [text for end, text in zip(self.track.ends, said, strict=True) if end.outcome not in COMPLETE]


class _Search:
    """The branches found so far, and the methods that follow further ones."""

    def __init__(self, stack: Stack, longest: float, max_steps: int, max_branches: int):
        self.stack, self.longest, self.max_steps, self.max_branches = stack, longest, max_steps, max_branches
        self.nodes: list[_Node] = []
        self.events = events_of(stack.members[0])
        self.degenerate: list[Bifurcation] = []
        self.full = self.winds = False
        self._crossed: list[tuple[np.ndarray, float]] = []

    def status(self, unresolved: int) -> str:
        """A sentence on what was not followed: a limit that was reached, branches cut short, events not located."""
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

    def _take(self, starts: list[Start], shared: bool) -> None:
        """Follow the branch from one start, or from two in opposite directions, unless it is known; then its crossings.

        `shared`: whether both starts are the same point. If not, the branch continues from one start to the other.
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
            guesses = z + away * self.longest * sides
            found = corrected(self.stack, [0, 0], guesses, sides)
            moved = [length(found.z[i] - guesses[i]) <= 0.5 * away * self.longest for i in range(2)]
            starts = [as_start(self.stack, 0, found, i) for i in range(2) if found.converged[i] and moved[i]]
            best = max(best, starts, key=len)
            # Both sides are needed: with one, the branch would appear to end at the crossing.
            if len(best) == 2:
                break
        return [start for start in best if 0 <= start.point.z[-1] <= 1]

    def _on(self, track: Track, start: Start) -> bool:
        """Whether the start lies on a branch: the branch passes the plane through the start, normal to it, at that point."""
        here = start.point.z
        away = track.z - here
        turns = self.stack.wound(0, away)
        size, gap = length(away - turns), length(np.diff(track.z, axis=0))
        for j in np.flatnonzero(np.minimum(size[:-1], size[1:]) <= 1.5 * gap):
            # For angles: of the copies of this point, whole periods apart, take the one next to this part of the branch.
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
    """The distance between two points z (n + 1,), up to whole periods of angles."""
    step = z - other
    return float(length(step - stack.wound(0, step)))


def error_of(stack: Stack, event: Bifurcation) -> float:
    """A bound of the error of a located point, in the metric of the continuation."""
    return float(np.ptp(event.interval)) / 2 / abs(float(stack.p1[0]) - float(stack.p0[0]))


def _distinct(stack: Stack, events: Iterable[Bifurcation]) -> tuple[Bifurcation, ...]:
    """The events sorted by parameter, without repeats: events of one kind at one place, to within their errors."""
    kept: list[tuple[Bifurcation, np.ndarray, float]] = []
    for event in sorted(events, key=lambda event: event.parameter):
        z, error = stack.point(0, event.x, event.parameter), error_of(stack, event)
        same = (one for one in kept if one[0].kind == event.kind and one[0].converged == event.converged)
        if not any(_apart(stack, z, other) <= SAME * (error + its) for _, other, its in same):
            kept.append((event, z, error))
    return tuple(event for event, _, _ in kept)
