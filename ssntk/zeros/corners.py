"""The corners of a branch, at kinks of a field that is not smooth, and the way on behind them.

A field that is continuous has another Jacobian behind a kink, such as the zero of a relu. The branch goes on from there
along a null vector of that Jacobian: straight on, or turned round, which is a nonsmooth fold. It is the null vector that
leads into the region in which this Jacobian holds. All of this is done on the host, from a few Jacobians next to the place
at which the compiled loop fails. Nothing needs to be known of the kinks.
"""

from typing import Any, NamedTuple

import numpy as np

from ssntk.dynamics.stability import judged_exponents
from ssntk.errors import Outcome, Sentence
from ssntk.zeros.correct import Corrected, corrected, inner, length
from ssntk.zeros.lines import branch_jacobians, residuals, stability_matrices
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Point, points_of

# Distances along a branch at which Jacobians are compared, relative to the largest.
FINE = 4.0 ** -np.arange(13)
# A jump of the Jacobian is looked for if a row changes by this part of its terms.
JUMP = 1e-5
# The least cosine of the angle between two tangents of one smooth branch that are next to each other.
PARALLEL = 1 - 1e-6
# Jacobians of one region differ by less than this part of the jump.
ALIKE = 0.1
# Distances behind a corner at which the next point is tried, relative to the largest.
BEHIND = (1.0, 1 / 16, 1 / 256, 1 / 4096)
# How often a bracket of a corner is divided, and into how many parts.
ROUNDS, CUTS = 8, 30
# If several kinks meet, in how many random directions and for how many rounds the regions around are looked for.
LOOKS, SEARCHES = 24, 6


class Found(NamedTuple):
    """What was found at a place at which the steps of a branch fail.

    - `before`: the corner, a single point, with the tangent, the exponents and the determinant before it.
    - `behind`: the same point with those behind it, and `next`, the first point of the branch behind it; `None` if there is
      no way on, or more than one.
    - `ways`: the number of ways on. `on_start`: whether the branch starts at the corner.
    """

    before: Point
    behind: Point | None
    next: Point | None
    ways: int
    on_start: bool = False


class _Sides(NamedTuple):
    """A place z (N + 1,) on a branch at which the Jacobian jumps, with the tangent (N + 1,) before it and the Jacobians
    (N, N + 1) before and behind it. `over` (N + 1,): the same place, to rounding, on the other side of the kink."""

    z: np.ndarray
    over: np.ndarray
    tangent: np.ndarray
    before: np.ndarray
    behind: np.ndarray


# A direction (N + 1,) in which a branch leaves a corner, and the Jacobian there.
_Way = tuple[np.ndarray, np.ndarray]


def reach_of(z: np.ndarray) -> Any:
    """How far (...) from points (..., N + 1) a corner is looked for."""
    return float(np.finfo(z.dtype).eps) ** 0.375 * (1 + length(z))


class _Near:
    """The Jacobians of one member near a place, their rows divided by their terms."""

    def __init__(self, stack: Stack, member: int, z: np.ndarray):
        self.stack, self.member, self.z = stack, member, z
        self.eps = float(np.finfo(z.dtype).eps)
        self.reach = float(reach_of(z))
        self.aside = self.eps**0.625 * (1 + float(length(z)))
        self.rows: np.ndarray | float = 1.0

    def at(self, places: np.ndarray) -> np.ndarray:
        """The scaled Jacobians (k, N, N + 1) at points (k, N + 1)."""
        return branch_jacobians(self.stack, [self.member] * len(places), places.astype(self.z.dtype)) / self.rows

    def sides(self, tangent: np.ndarray) -> _Sides | None:
        """The first jump of the Jacobian along a tangent (N + 1,), located to rounding; `None` if there is none."""
        s = self.reach * np.concatenate([-FINE, [0.0], FINE[::-1]])
        self.rows = 1.0
        jacobians = self.at(self.z + s[:, None] * tangent)
        if not np.isfinite(jacobians).all():
            return None
        terms = np.abs(jacobians).max(axis=0).sum(axis=1, keepdims=True)
        self.rows = np.where(terms > 0, terms, 1.0)
        jacobians = jacobians / self.rows
        jumps = np.flatnonzero((_apart(jacobians[1:], jacobians[:-1]) > JUMP) & (s[1:] > -1e-5 * self.reach))
        if not jumps.size:
            return None
        i = int(jumps[0])
        low, high, before, behind = s[i], s[i + 1], jacobians[i], jacobians[i + 1]
        jump = _apart(before, behind)
        for _ in range(ROUNDS):
            if high - low <= 2 * self.eps * (1 + float(length(self.z))):
                break
            inside = low + (high - low) * np.arange(1, CUTS + 1) / (CUTS + 1)
            here = self.at(self.z + inside[:, None] * tangent)
            if not np.isfinite(here).all():
                return None
            over = np.append(_apart(here, before) > _apart(here, behind), True)
            first = int(np.argmax(over))
            low, before = (low, before) if first == 0 else (inside[first - 1], here[first - 1])
            high, behind = (high, behind) if first == CUTS else (inside[first], here[first])
        # Exactly on a kink the Jacobian may be the mean of both.
        before, behind = self.at(self.z + np.array([low - self.aside, high + self.aside])[:, None] * tangent)
        # A smooth field that is steep has no jump at so small a distance.
        if _apart(before, behind) < 0.5 * jump:
            return None
        here, over = (self.z + np.array([low, high])[:, None] * tangent).astype(self.z.dtype)
        return _Sides(here, over, tangent, before, behind)

    def jump(self, tangent: np.ndarray) -> _Sides | None:
        """The jump of the Jacobian next to the last point of a branch with this tangent (N + 1,); `None` if there is none.

        Newton's iteration may end behind the kink, where the point is not quite on the branch, while its last Jacobian, and
        with it the tangent, was from before it. The jump then lies behind that point.
        """
        here = self.at(self.z[None])[0]
        if not np.isfinite(here).all():
            return None
        along = null_vector(here)
        if abs(inner(along, tangent)) >= PARALLEL:
            return self.sides(along * np.copysign(1.0, inner(along, tangent)))
        sides = self.sides(-tangent)
        if sides is None or abs(inner(null_vector(sides.behind), tangent)) < PARALLEL:
            return None
        return _Sides(sides.over, sides.z, tangent, sides.behind, sides.before)


def _corner(stack: Stack, member: int, z: np.ndarray, tangent: np.ndarray) -> tuple[_Near, _Sides, float] | None:
    """The corner next to a point (N + 1,), what is near it, and the sign of the determinant before it."""
    near = _Near(stack, member, z)
    rough = near.jump(tangent)
    if rough is None:
        return None
    for back in near.reach * np.array(BEHIND) / 4:
        found = _from_before(near, rough, back)
        if found is not None:
            # The tangent leads to the corner to within the square of the distance, so that it is looked for once more.
            return _from_before(found[0], found[1], back / 1024) or found
    return None


def _from_before(near: _Near, rough: _Sides, back: float) -> tuple[_Near, _Sides, float] | None:
    """The same from a point of the branch that is surely before the corner, at about the distance `back` from it."""
    guess, border = (part.astype(near.z.dtype) for part in (rough.z - back * rough.tangent, rough.tangent))
    new = corrected(near.stack, [near.member], guess[None], border[None])
    if not new.converged[0] or length(new.z[0] - guess) > max(0.5 * back, 64 * near.eps * (1 + float(length(guess)))):
        return None
    if _apart(near.at(new.z)[0], rough.before) > ALIKE * _apart(rough.before, rough.behind):
        return None
    again = _Near(near.stack, near.member, new.z[0])
    sides = again.sides(new.tangent[0] / length(new.tangent[0]))
    return None if sides is None else (again, sides, float(new.turn[0]))


def _apart(first: np.ndarray, second: np.ndarray) -> Any:
    """The largest difference (...) between the entries of scaled Jacobians (..., N, N + 1)."""
    return np.abs(first - second).max(axis=(-2, -1))


def null_vector(jacobian: np.ndarray) -> np.ndarray:
    """The null vector (N + 1,) of a scaled Jacobian, of length one."""
    vector = np.linalg.svd(jacobian)[2][-1]
    return vector / length(vector)


def _ways(near: _Near, sides: _Sides, far: float, every: bool) -> list[_Way]:
    """The ways in which branches leave a corner, from Jacobians at the distance `far` around it.

    A null vector of a Jacobian is one if the same Jacobian holds in its direction. `every`: whether to look in all regions
    around the corner, as where several kinks meet: those that null vectors and random directions lead to. Else there are
    only the regions before and behind it, and the way back is not looked for.
    """
    jump = float(_apart(sides.before, sides.behind))
    known, ways, fresh = list[np.ndarray](), list[_Way](), [sides.behind]
    if every:
        random = np.random.default_rng(0).standard_normal((LOOKS, len(sides.z)))
        fresh += [sides.before, *near.at(sides.z + far * random / length(random)[:, None])]
    for _ in range(SEARCHES if every else 1):
        new = list[np.ndarray]()
        for one in fresh:
            if np.isfinite(one).all() and all(_apart(one, other) > ALIKE * jump for other in (*known, *new)):
                new.append(one)
        known, fresh = known + new, []
        for one in new:
            both = null_vector(one)[None] * np.array([[1.0], [-1.0]])
            seen = near.at(np.concatenate([sides.z + far * both, sides.z + far / 4 * both]))
            alike = _apart(seen, one) <= ALIKE * jump
            ways += [(both[i], one) for i in range(2) if alike[i] and alike[i + 2]]
            fresh += list(seen[~alike])
    return ways


def _next(near: _Near, sides: _Sides, way: _Way, far: float) -> Corrected | None:
    """The point of the branch at the distance `far` from a corner, which must lie in the region that the way leads to."""
    guess = (sides.z + far * way[0]).astype(sides.z.dtype)
    new = corrected(near.stack, [near.member], guess[None], way[0][None].astype(guess.dtype))
    if not new.converged[0] or length(new.z[0] - guess) > ALIKE * far:
        return None
    jump = _apart(sides.before, sides.behind)
    return new if _apart(near.at(new.z)[0], way[1]) <= ALIKE * jump else None


def beyond(stack: Stack, member: int, start: Point, first: bool) -> Found | None:
    """The corner next to a point of a branch, in the direction of its tangent, and the way on behind it; `None` if there is
    no kink.

    **Arguments:** `start`: the point, of which the exponents are not used. `first`: whether the branch starts there, so
    that it may start on the kink, where its tangent is not known.
    """
    near = _Near(stack, member, start.z)
    tangent = start.tangent / length(start.tangent)
    sides, turn = near.sides(tangent) if first else None, float(start.turn)
    on = sides is not None and float(length(sides.z - start.z)) <= 1e-5 * near.reach
    if not on:
        found = _corner(stack, member, start.z, tangent)
        if found is None:
            return None
        near, sides, turn = found
    assert sides is not None
    # Across one kink the Jacobian changes by a matrix of rank one.
    values = np.linalg.svd(sides.behind - sides.before, compute_uv=False)
    every = on or (len(values) > 1 and bool(values[1] > 1e-4 * values[0]))
    before, ways = _before(near, sides, turn), list[_Way]()
    for far in near.reach * np.array(BEHIND):
        here = _ways(near, sides, far, every)
        if on:
            here = [way for way in here if way[0][-1] * tangent[-1] > 0]
        else:
            here = [way for way in here if inner(way[0], sides.tangent) > 1e-6 - 1 or every is False]
        ways = max(ways, here, key=len)
        new = _next(near, sides, here[0], far) if len(here) == 1 else None
        # The orientation of a branch is the same on both sides of a kink.
        if new is not None and (on or float(new.turn[0]) == turn):
            after = points_of(new, stack.clock).at(0)
            way = here[0][0].astype(start.z.dtype)
            return Found(before, after._replace(z=before.z, tangent=way), after, 1, on)
    return Found(before, None, None, len(ways), on)


def _before(near: _Near, sides: _Sides, turn: float) -> Point:
    """The corner as the last point of the branch before it."""
    place = (sides.z - near.aside * sides.tangent).astype(sides.z.dtype)
    matrix = stability_matrices(near.stack, [near.member], place[None])
    exponents, doubts = judged_exponents(matrix, near.stack.clock)
    return Point(sides.z, sides.tangent.astype(sides.z.dtype), np.asarray(turn, sides.z.dtype), exponents[0], doubts[0])


def said_of(stack: Stack, number: int, z: np.ndarray, tangent: np.ndarray, found: Found | None) -> Sentence:
    """The reason why a branch ends at a point (N + 1,) at which even the shortest step fails."""
    p, tangent = stack.parameter(number, float(z[-1])), tangent / length(tangent)
    if found is not None and found.ways > 1:
        return Outcome.corners_meet.say(p=p, ways=found.ways)
    places = z + np.array([1e-6, 1e-7, -1e-7, 1e-4, -1e-4])[:, None] * tangent
    values, jacobians = residuals(stack, [number] * 5, places), branch_jacobians(stack, [number] * 5, places)
    if not np.isfinite(values[0]).all():
        return Outcome.left_domain.say(p=p)
    near, wide = np.abs(jacobians[1] - jacobians[2]), np.abs(jacobians[3] - jacobians[4])
    terms = np.abs(jacobians[1:]).max(axis=0).sum(axis=1, keepdims=True)
    # What is left of a smooth field on its tangent falls with the square of the distance, of one with a kink in proportion
    # to it, and of one that jumps not at all.
    close, far = np.abs(values[1]), np.abs(values[3])
    if ((close > 0.3 * far) & (close > 1e-5 * terms[:, 0])).any():
        return Outcome.jump.say(p=p)
    # The Jacobian of a smooth field changes in proportion to the distance. If it does not, there is a kink.
    if ((near > 0.3 * wide) & (near > 1e-5 * terms)).any():
        return Outcome.kink.say(p=p)
    return Outcome.underflow.say(p=p)
