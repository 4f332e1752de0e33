"""All branches that can be reached: from fixed points at several parameters, and from wherever branches cross."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.random as jr
import numpy as np

from ssntk.bifurcation.bordered import Stack, corrected, corrected_at, inner, interpolate, length
from ssntk.bifurcation.continuation import Branch, as_branches, as_start, make_problem
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.follow import CLOSED, Start, Track, follow
from ssntk.bifurcation.locate import CROSSINGS, Bifurcation, solve
from ssntk.dynamics.fixed_points import find_fixed_points
from ssntk.errors import NumericalError, as_count, as_key, as_scalar

# How far from a crossing or a fold the first point of a branch is looked for, beside the longest step.
AWAY = (0.1, 0.02, 0.5)


@dataclasses.dataclass(frozen=True)
class Diagram:
    """The branches of a family over a span.

    - `branches`: in the order in which they were found; `bifurcations`, `unresolved`: those of all branches, each once, by
      parameter.
    - `status`: whether everything that was seen was followed, a sentence. Nothing proves that all branches were seen.
    """

    branches: tuple[Branch, ...]
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str


def bifurcation_diagram(
    family: Family,
    span: Any,
    *,
    u: Any = None,
    key: Any = None,
    n_slices: int = 11,
    n_starts: int = 256,
    step: Any = 0.05,
    max_steps: int = 10_000,
    max_branches: int = 256,
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
    - `step`, `max_steps`: as for [`continuation`][].
    - `max_branches`: the most branches; `status` says where it stopped the search.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where no equilibrium is found anywhere.
    """
    problem = make_problem(family, span, u)
    n_slices, max_steps = as_count(n_slices, "n_slices", least=2), as_count(max_steps, "max_steps")
    n_starts, max_branches = as_count(n_starts, "n_starts", least=2), as_count(max_branches, "max_branches")
    search = _Search(Stack([problem]), float(as_scalar(step, "step", positive=True)), max_steps, max_branches)
    # The ends first: what starts there needs to be followed one way only.
    slices = np.linspace(0.0, 1.0, n_slices)[[0, -1, *range(1, n_slices - 1)]]
    for q, one in zip(slices.tolist(), jr.split(as_key(key), n_slices), strict=True):
        model = family(problem.parameter(np.asarray(q, problem.p0.dtype)))
        found = find_fixed_points(model, problem.u, n_starts=n_starts, key=one)
        search.through(found.x, q)
        search.near(found.slow.x, q)
    if not search.tracks:
        shown = ", ".join(f"{float(problem.parameter(q)):g}" for q in sorted(slices))
        raise NumericalError(f"no equilibrium was found at p = {shown}: try another span, more n_slices or more n_starts")
    unresolved = _distinct(event for branch in search.branches for event in branch.unresolved)
    status = "everything that was seen was followed"
    if search.full:
        status = f"stopped at max_branches = {max_branches}: more was seen"
    elif unresolved:
        status = f"{len(unresolved)} events are unresolved: what crosses or ends there was not followed"
    return Diagram(
        branches=tuple(search.branches),
        bifurcations=_distinct(event for branch in search.branches for event in branch.bifurcations),
        unresolved=unresolved,
        status=status,
    )


class _Search:
    """The branches found so far, and how further ones are followed."""

    def __init__(self, stack: Stack, longest: float, max_steps: int, max_branches: int):
        self.stack, self.longest, self.max_steps, self.max_branches = stack, longest, max_steps, max_branches
        self.tracks: list[Track] = []
        self.branches: list[Branch] = []
        self.full = False
        self._crossed: list[np.ndarray] = []

    def through(self, x: np.ndarray, q: float) -> None:
        """Follow what passes through the fixed points x (k, n) at q, and all that crosses it."""
        if len(x) == 0:
            return
        found = corrected_at(self.stack, np.zeros(len(x), int), x, np.full(len(x), q))
        for i in np.flatnonzero(found.converged):
            # Towards the inside of the span, and from within it both ways.
            ways = (1.0,) if q == 0 else (-1.0,) if q == 1 else (1.0, -1.0)
            self._take([as_start(0, found, int(i), way) for way in ways], shared=True)

    def near(self, x: np.ndarray, q: float) -> None:
        """Follow what passes through the saddle-nodes near the slow points x (k, n) at q: where a state almost rests, one
        that rests may have begun or ended."""
        if len(x) == 0:
            return
        guesses = np.concatenate([x, np.full((len(x), 1), q, x.dtype)], axis=1)
        for fold, _ in solve(self.stack, "saddle-node", [0] * len(x), guesses):
            z = self._z(fold)
            if fold.converged and 0 <= z[-1] <= 1:
                self._take(self._beside(z, np.append(fold.right, 0.0)), shared=False)

    def _take(self, starts: list[Start], shared: bool) -> None:
        """Follow from one start, or from two that lead opposite ways, what is on no branch yet; then what crosses it.

        `shared`: both starts are one point, else the branch runs on from one to the other.
        """
        todo = [(starts, shared)]
        while todo:
            starts, shared = todo.pop()
            halves: list[Track] = []
            for number, start in enumerate(starts):
                if halves and halves[0].status == CLOSED:
                    break
                known = [*self.tracks, *halves] if not (shared and halves) else self.tracks
                if any(self._on(track, start) for track in known):
                    continue
                if len(self.tracks) >= self.max_branches:
                    self.full = True
                    return
                (track,) = follow(self.stack, [start], self.longest, self.max_steps)
                halves.append(track if number == 0 else track.reversed())
            if not halves:
                continue
            track = halves[0] if len(halves) == 1 else _joined(halves[1], halves[0], shared)
            (branch,) = as_branches(self.stack, [track])
            self.tracks.append(track)
            self.branches.append(branch)
            for event, at in zip(branch.bifurcations, branch.steps, strict=True):
                if event.kind in CROSSINGS and not self._passed(event):
                    other = self._other(event, branch.tangent[at] + branch.tangent[at + 1])
                    todo.append((self._beside(self._z(event), other), False))

    def _passed(self, event: Bifurcation) -> bool:
        """Whether the branches through this crossing were followed already; from now on they count so."""
        z = self._z(event)
        near = any(length(z - other) <= 1e-6 * (1 + length(z)) for other in self._crossed)
        self._crossed.append(z)
        return near

    def _z(self, event: Bifurcation) -> np.ndarray:
        return np.append(event.x, self.stack.fraction(0, event.parameter))

    def _other(self, event: Bifurcation, travel: np.ndarray) -> np.ndarray:
        """The direction of the branch that crosses the one travelled."""
        assert event.tangents is not None
        tangents = event.tangents / np.append(np.ones(event.x.size), self.stack.p1[0] - self.stack.p0[0])
        return min((tangent / length(tangent) for tangent in tangents), key=lambda tangent: abs(inner(tangent, travel)))

    def _beside(self, z: np.ndarray, tangent: np.ndarray) -> list[Start]:
        """The starts on both sides of a point of a branch, leading away from it."""
        sides = np.array([tangent, -tangent]) / length(tangent)
        best: list[Start] = []
        for away in AWAY:
            guesses = z + away * self.longest * sides
            found = corrected(self.stack, [0, 0], guesses, sides)
            moved = [length(found.z[i] - guesses[i]) <= 0.5 * away * self.longest for i in range(2)]
            starts = [as_start(0, found, i) for i in range(2) if found.converged[i] and moved[i]]
            best = max(best, starts, key=len)
            # With one side alone the branch would end where it does not.
            if len(best) == 2:
                break
        return [start for start in best if 0 <= start.z[-1] <= 1]

    def _on(self, track: Track, start: Start) -> bool:
        """Whether the start lies on a branch: whether that branch passes the plane across it at the same point."""
        z = start.z
        size, gap = length(track.z - z), length(np.diff(track.z, axis=0))
        for j in np.flatnonzero(np.minimum(size[:-1], size[1:]) <= 1.5 * gap):
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


def _joined(first: Track, second: Track, shared: bool) -> Track:
    """Two halves as one branch; `shared`: the first ends in the point in which the second starts."""
    kept = len(first.z) - 1 if shared else len(first.z)
    parts = {
        name: np.concatenate([getattr(first, name)[:kept], getattr(second, name)])
        for name in ("z", "tangent", "exponents", "turn")
    }
    return Track(second.member, **parts, status=f"{second.status}; the other way: {first.status}")


def _distinct(events: Iterable[Bifurcation]) -> tuple[Bifurcation, ...]:
    """The events by parameter, each once: of one kind, at one parameter and in one state."""
    kept: list[Bifurcation] = []
    for event in sorted(events, key=lambda event: event.parameter):
        scale = 1e-6 * (1 + np.abs(event.x).max())
        same = (other for other in kept if other.kind == event.kind and other.converged == event.converged)
        if not any(
            abs(other.parameter - event.parameter) <= scale and np.abs(other.x - event.x).max() <= scale for other in same
        ):
            kept.append(event)
    return tuple(kept)
