"""Which steps of a branch pass a bifurcation: signs are compared, mixed intervals bisected, each event then located.

- A saddle-node: the parameter turns, and one real eigenvalue crosses.
- A Hopf: nothing turns, and one complex pair crosses. A neutral saddle changes no count of unstable eigenvalues.
- A branch point: the bordered determinant changes sign, and the parameter does not turn.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ssntk.bifurcation.bordered import Problem, correct_once, inner, interpolate, length
from ssntk.bifurcation.locate import Bifurcation, refine
from ssntk.dynamics.stability import sorted_eigenvalues

# Halvings of one step before an event counts as unresolved: from the longest step this reaches a length of about 1e-9.
DEPTH = 26
# Halvings of one step in search of events that leave no count changed.
LOOK = 6


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the branch: z = (x, q), unit tangent along the direction of travel, eigenvalues, determinant sign."""

    z: np.ndarray
    tangent: np.ndarray
    eigenvalues: np.ndarray
    turn: float

    @property
    def unstable(self) -> int:
        """How many eigenvalues lie right of the axis."""
        return int((self.eigenvalues.real > 0).sum())


def find_events(problem: Problem, track: list[Point]) -> list[tuple[int, Bifurcation]]:
    """The events along a branch in order, each with the index of the point before it; `converged` where located."""
    ends = [track[0], *track, track[-1]]
    found = []
    for j in range(len(track) - 1):
        found += [(j, event) for event in _between(problem, ends[j], ends[j + 1], ends[j + 2], ends[j + 3], 0)]
    return found


def _between(problem: Problem, before: Point, a: Point, b: Point, after: Point, depth: int) -> list[Bifurcation]:
    """The events between `a` and `b`, whose neighbours are `before` and `after`: one that is alone is located, several
    are bisected apart."""
    turns = a.tangent[-1] * b.tangent[-1] < 0
    crosses = a.turn * b.turn < 0
    change = abs(b.unstable - a.unstable)
    if not turns and not crosses and change == 0:
        hidden = depth < LOOK and (_turns_twice(a, b) or _crosses_twice(before, a, b, after))
        return _halves(problem, before, a, b, after, depth) if hidden else []
    kind, located = "unknown", None
    if turns and not crosses and change == 1:
        kind = "saddle-node"
    elif not turns and not crosses and change == 2:
        kind = "hopf"
    elif crosses and not turns and change == 1:
        kind = "branch-point"
    if kind in ("saddle-node", "hopf"):
        located = _locate(problem, a, b, kind)
        if located.converged:
            return [located]
    if depth < DEPTH:
        return _halves(problem, before, a, b, after, depth)
    reason = "the events in this interval could not be told apart"
    if kind in ("saddle-node", "hopf"):
        assert located is not None
        reason = located.reason
    elif kind == "branch-point":
        reason = "the branches that cross here are not followed"
    return [_unresolved(problem, a, b, kind, reason)]


def _halves(problem: Problem, before: Point, a: Point, b: Point, after: Point, depth: int) -> list[Bifurcation]:
    """The events of the two halves of an interval."""
    middle = _middle(problem, a, b)
    if middle is None:
        return [_unresolved(problem, a, b, "unknown", "the branch could not be corrected between these points")]
    first = _between(problem, before, a, middle, b, depth + 1)
    return first + _between(problem, a, middle, b, after, depth + 1)


def _middle(problem: Problem, a: Point, b: Point) -> Point | None:
    """The point of the branch half way, from the Hermite interpolant."""
    guess, border = interpolate(a.z, a.tangent, b.z, b.tangent, 0.5)
    new = correct_once(problem, jnp.asarray(guess), jnp.asarray(border))
    if not bool(new.converged) or length(np.asarray(new.z) - guess) > length(b.z - a.z):
        return None
    jacobian = np.asarray(new.jacobian)[:, :-1]
    return Point(np.asarray(new.z), np.asarray(new.tangent), sorted_eigenvalues(jacobian), float(new.turn))


def _locate(problem: Problem, a: Point, b: Point, kind: str) -> Bifurcation:
    """The one event between two points, refused where Newton's iteration leaves for another."""
    if kind == "saddle-node":
        part = a.tangent[-1] / (a.tangent[-1] - b.tangent[-1])
    else:
        # The pair that crosses is, on the side where it is unstable, the least unstable one, and the most stable beyond.
        many, few = (a, b) if a.unstable > b.unstable else (b, a)
        above = many.eigenvalues[many.unstable - 1].real
        below = few.eigenvalues[few.unstable].real
        part = abs(above) / (abs(above) + abs(below))
        part = part if many is a else 1 - part
    guess, _ = interpolate(a.z, a.tangent, b.z, b.tangent, part)
    q = jnp.asarray(guess[-1])
    point = refine(problem.family, problem.u, kind, problem.parameter(q), jnp.asarray(guess[:-1]))
    if not point.converged:
        return point
    span = float(problem.p1 - problem.p0)
    where = np.append(point.x, (point.parameter - float(problem.p0)) / span)
    gap = length(b.z - a.z)
    # Between the two ends along the branch, and no further from them than they are from each other.
    inside = min(inner(where - a.z, a.tangent), inner(b.z - where, b.tangent)) >= -1e-6 * gap
    if not inside or max(length(where - a.z), length(where - b.z)) > 1.5 * gap:
        return dataclasses.replace(point, converged=False, reason="Newton's iteration left for another point")
    # Alone, the event leaves the other eigenvalues where they are; else a second one hides behind the same count.
    values = problem.eigenvalues(jnp.asarray(where))
    critical = 2 if kind == "hopf" else 1
    others = np.delete(values, np.argsort(np.abs(np.abs(values.imag) - point.frequency) + np.abs(values.real))[:critical])
    if (others.real > 0).sum() != min(a.unstable, b.unstable):
        return dataclasses.replace(point, converged=False, reason="another event lies in the same interval")
    return point


def _turns_twice(a: Point, b: Point) -> bool:
    """Whether the Hermite interpolant of the parameter has two turning points inside the interval."""
    gap, chord = length(b.z - a.z), b.z[-1] - a.z[-1]
    start, end = a.tangent[-1] * gap, b.tangent[-1] * gap
    roots = np.roots([3 * (start + end - 2 * chord), 2 * (3 * chord - 2 * start - end), start])
    return bool(roots.size == 2 and np.isreal(roots).all() and ((roots.real > 0) & (roots.real < 1)).all())


def _crosses_twice(before: Point, a: Point, b: Point, after: Point) -> bool:
    """Whether eigenvalues may cross the axis between `a` and `b` though as many are unstable at both.

    They may where a real part heads for the axis on one side of the interval and away from it on the other, and lies no
    further off than it moves from point to point.
    """
    upper = [point.eigenvalues[point.eigenvalues.imag >= 0] for point in (before, a, b, after)]
    at_b = upper[2][np.abs(upper[1][:, None] - upper[2]).argmin(axis=1)]
    at_before = upper[0][np.abs(upper[1][:, None] - upper[0]).argmin(axis=1)]
    at_after = upper[3][np.abs(at_b[:, None] - upper[3]).argmin(axis=1)]
    path = np.stack([at_before, upper[1], at_b, at_after]).real
    # Seen from the side where it lies, the path towards the axis falls.
    path = path * np.sign(path[1])
    moves = np.diff(path, axis=0)
    near = path[1:3].min(axis=0) < np.abs(moves).max(axis=0)
    heads = (moves[0] < 0) | (moves[1] < 0)
    returns = (moves[2] > 0) | (moves[1] > 0)
    # A path that changes sides, though the count is the same, has another crossing the other way.
    return bool((near & heads & returns | (path[2] < 0)).any())


def _unresolved(problem: Problem, a: Point, b: Point, kind: str, reason: str) -> Bifurcation:
    ends = [float(problem.parameter(point.z[-1])) for point in (a, b)]
    nothing = np.full(a.z.size - 1, np.nan)
    middle = (a.z + b.z) / 2
    p = float(problem.parameter(middle[-1]))
    interval = (min(ends), max(ends))
    return Bifurcation(kind, p, middle[:-1], np.nan, nothing, nothing, np.nan, None, np.nan, interval, False, reason)
