"""Find the corners that steps of a branch passed unnoticed, because the branch hardly bends there.

The eigenvalues jump at such a corner as at any other, and what a step passes is judged by eigenvalues. So these corners are
looked for in the whole branch, if the field may have kinks at all: within each step Jacobians are compared.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from ssntk.compiled import Held
from ssntk.zeros.corners import JUMP, Found, beyond, reach_of
from ssntk.zeros.correct import corrected, inner, interpolate, length
from ssntk.zeros.lines import branch_jacobians
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Corner, Point, Track

# The operations on real numbers that are not smooth.
KINKED = frozenset(
    "abs argsort ceil clamp cond cummax cummin floor max min reduce_max reduce_min rem round select_n sign sort".split()
)
# The fractions of a step at which Jacobians are compared, and how far from a corner or an end of the branch.
PARTS, ASIDE = np.array([0.0, 0.25, 0.5, 0.75]), 1e-3
# A corner is looked for if the Jacobian changes faster than beside by this factor.
FASTER = 3.0
# How often an interval is halved, and how often a branch is looked through.
HALVINGS, ROUNDS = 40, 8


def may_kink(stack: Stack) -> bool:
    """Whether the program of the field holds an operation that is not smooth."""
    zeros = stack.members[0]
    held = Held.of(zeros)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(held.arrays))
    return _may_kink(held.rest, jax.tree.structure(held.arrays), shapes, zeros.size, stack.p0.dtype)


@functools.lru_cache(maxsize=256)
def _may_kink(rest: Any, structure: Any, shapes: tuple[Any, ...], size: int, dtype: Any) -> bool:
    arrays = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*one) for one in shapes])
    point = jax.ShapeDtypeStruct((size + 1,), dtype)
    traced = jax.make_jaxpr(lambda arrays, z: eqx.combine(arrays, rest.tree).residual(z))(arrays, point)
    return any(_is_kinked(eqn) for eqn in _operations(traced.jaxpr))


def _operations(program: Jaxpr) -> Iterator[Any]:
    """All operations of a program, also those of programs within it."""
    for eqn in program.eqns:
        yield eqn
        for held in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=lambda one: isinstance(one, (ClosedJaxpr, Jaxpr))):
            if isinstance(held, (ClosedJaxpr, Jaxpr)):
                yield from _operations(held.jaxpr if isinstance(held, ClosedJaxpr) else held)


def _is_kinked(eqn: Any) -> bool:
    """Whether an operation has a real result and is not smooth."""
    kinds = [getattr(variable.aval, "dtype", None) for variable in eqn.outvars]
    return eqn.primitive.name in KINKED and any(kind is not None and np.issubdtype(kind, np.floating) for kind in kinds)


def all_corners(stack: Stack, tracks: Sequence[Track]) -> list[Track]:
    """The tracks with the corners that their steps passed unnoticed."""
    if not tracks or not may_kink(stack):
        return list(tracks)
    return [_looked_through(stack, track) for track in tracks]


def _looked_through(stack: Stack, track: Track) -> Track:
    """A track with the corners that its steps passed unnoticed."""
    steps = set(range(len(track.z) - 1))
    for _ in range(ROUNDS):
        found = _corners_in(stack, track, steps)
        steps, shift = set(), 0
        for step, corner in found:
            before = len(track.z)
            track = _with_corner(track, step + shift, corner)
            shift += len(track.z) - before
            # Another one may lie in the rest of the step.
            steps |= {step + shift - 1, step + shift}
        if not found:
            break
    return track


class _Places(NamedTuple):
    """k places of a branch: points and tangents (k, N + 1), signs of the determinant (k,), Jacobians (k, N, N + 1)."""

    z: np.ndarray
    tangent: np.ndarray
    turn: np.ndarray
    jacobian: np.ndarray

    def at(self, i: Any) -> "_Places":
        return _Places(*(part[i] for part in self))

    def put(self, i: np.ndarray, other: "_Places") -> None:
        for part, new in zip(self, other, strict=True):
            part[i] = new


def _change(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """By how much Jacobians (k, N, N + 1) differ, relative to the terms of each row, (k,)."""
    terms = np.maximum(np.abs(first), np.abs(second)).sum(axis=2, keepdims=True)
    return (np.abs(first - second) / np.where(terms > 0, terms, 1.0)).max(axis=(1, 2))


def _corners_in(stack: Stack, track: Track, steps: set[int]) -> list[tuple[int, Found]]:
    """The corners within steps of a track, in order, each with its step."""
    begins, ends, at = list[_Places](), list[_Places](), list[int]()
    for first, piece in track.pieces():
        if len(piece.z) < 2 or not steps & set(range(first, first + len(piece.z) - 1)):
            continue
        places = _sampled(stack, track.member, piece)
        change = _change(places.jacobian[:-1], places.jacobian[1:])
        rate = change / length(np.diff(places.z, axis=0))
        beside = np.minimum(np.append(rate[1:], np.inf), np.append(np.inf, rate[:-1]))
        fast = np.isfinite(change) & (change > JUMP) & ~(rate <= FASTER * beside)
        for j in np.flatnonzero(fast):
            if first + int(j) // len(PARTS) in steps:
                begins.append(places.at(slice(j, j + 1)))
                ends.append(places.at(slice(j + 1, j + 2)))
                at.append(first + int(j) // len(PARTS))
    if not at:
        return []
    low, high = (_Places(*(np.concatenate(parts) for parts in zip(*some, strict=True))) for some in (begins, ends))
    found = []
    for i in _narrowed(stack, track.member, low, high):
        nothing = np.zeros(0)
        corner = beyond(stack, track.member, Point(low.z[i], low.tangent[i], low.turn[i], nothing, nothing), False)
        step = track.z[at[i] + 1] - track.z[at[i]]
        if corner is None or corner.next is None or inner(corner.next.tangent, step) <= 0:
            continue
        # It must lie within its step.
        if inner(corner.before.z - track.z[at[i]], step) > 0 and inner(track.z[at[i] + 1] - corner.before.z, step) > 0:
            found.append((at[i], corner))
    return found


def _sampled(stack: Stack, member: int, piece: Point) -> _Places:
    """Places within all steps of a smooth piece (k points), in order: 4 (k - 1) + 1 of them."""
    count = len(piece.z) - 1
    step, part = np.divmod(np.arange(count * len(PARTS) + 1), len(PARTS))
    step, part = np.minimum(step, count - 1), np.where(step == count, 1.0, PARTS[part])
    # At corners Jacobians are of one side or the other.
    part[0], part[-1] = ASIDE, 1 - ASIDE
    ends = piece.z[step], piece.tangent[step], piece.z[step + 1], piece.tangent[step + 1]
    z, tangent = interpolate(*ends, part[:, None])
    return _Places(z, tangent, piece.turn[step], branch_jacobians(stack, [member] * len(z), z))


def _narrowed(stack: Stack, member: int, low: _Places, high: _Places) -> list[int]:
    """Halve intervals, in place, until each is next to a place at which the Jacobian jumps. Returns the numbers of those in
    which there is one."""
    reach = reach_of(low.z) / 8
    open_ = np.ones(len(low.z), bool)
    jumps = np.zeros(len(low.z), bool)
    for number in range(HALVINGS):
        jumps |= open_ & (length(high.z - low.z) <= reach)
        open_ &= ~jumps & (_change(low.jacobian, high.jacobian) > JUMP)
        chosen = np.flatnonzero(open_)
        if not chosen.size:
            break
        # The middle may be where the corrector fails.
        guess, border = interpolate(*low.at(chosen)[:2], *high.at(chosen)[:2], (0.5, 0.4, 0.6)[number % 3])
        new = corrected(stack, [member] * len(chosen), guess, border)
        middle = _Places(new.z, new.tangent, new.turn, branch_jacobians(stack, [member] * len(chosen), new.z))
        good = new.converged & (length(new.z - guess) <= 0.5 * length(high.z[chosen] - low.z[chosen]))
        good &= np.isfinite(middle.jacobian).all(axis=(1, 2))
        first = _change(low.jacobian[chosen], middle.jacobian) > _change(middle.jacobian, high.jacobian[chosen])
        high.put(chosen[good & first], middle.at(good & first))
        low.put(chosen[good & ~first], middle.at(good & ~first))
    return np.flatnonzero(jumps).tolist()


def _with_corner(track: Track, step: int, found: Found) -> Track:
    """The track with a corner within this step."""
    assert found.behind is not None
    assert found.next is not None
    points, size = track.points, 1 + float(length(found.before.z))
    close = float(reach_of(found.before.z[None])[0])
    corners = [one for one in track.corners if one.at <= step]
    later = [one for one in track.corners if one.at > step]
    after = step + 1
    if 0 < after < len(points.z) - 1 and all(one.at != after for one in later) and length(points.z[after] - found.before.z) < close:
        # The tangent and the exponents of a point next to a corner may be those of its other side.
        points = points.replaced(after, found.next)
    at = step
    if step == 0 or length(points.z[step] - found.before.z) > 8 * float(np.finfo(points.z.dtype).eps) * size:
        at, later = step + 1, [one._replace(at=one.at + 1) for one in later]
        points = Point(*(np.insert(part, at, 0, axis=0) for part in points))
    points = points.replaced(at, found.before)
    every = (*corners, Corner(at, found.behind), *later)
    return Track(track.member, points, track.ends, every)
