"""Find the corners that steps of a branch passed unnoticed, because the branch hardly bends there.

The eigenvalues jump at such a corner as at any other, and what a step passes is judged by eigenvalues. So these corners are
looked for in the whole branch, if the field may have kinks at all: within each step Jacobians are compared.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from ssntk.compiled import Held
from ssntk.dynamics.stability import judged_exponents
from ssntk.zeros.corners import JUMP, Found, beyond, null_vector, reach_of
from ssntk.zeros.correct import corrected, inner, interpolate, length
from ssntk.zeros.lines import branch_jacobians, stability_matrices
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Corner, Point, Track

# The operations on real numbers that are not smooth.
KINKED = {
    *("abs", "ceil", "clamp", "cond", "cummax", "cummin", "floor", "max", "min"),
    *("reduce_max", "reduce_min", "rem", "round", "select_n", "sign", "sort"),
}
# The fractions of a step at which Jacobians are compared, and how far from a corner or an end of the branch.
PARTS, ASIDE = np.array([0.0, 0.25, 0.5, 0.75]), 1e-3
# A corner is looked for if the Jacobian changes faster than beside by this factor.
FASTER = 3.0
# Of several changes of the Jacobian the first is taken that is at least this part of the largest; then the largest.
FIRST = 0.25
# How often a place is moved towards a corner, into how many parts the way is cut, and how often a branch is looked through.
APPROACHES, CUTS, ROUNDS = 24, 16, 8


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
    return [_one_sided(stack, _looked_through(stack, track)) for track in tracks]


def _one_sided(stack: Stack, track: Track) -> Track:
    """The track with the exponents and the tangents of its own side at its ends, which may lie on kinks."""
    if len(track.z) < 3:
        return track
    for at, beside in ((0, 1), (-1, -2)):
        z, chord = track.z[at], track.z[beside] - track.z[at]
        inside = z + min(float(reach_of(z)) / 64 / float(length(chord)), 0.5) * chord
        jacobians = branch_jacobians(stack, [track.member] * 2, np.stack([z, inside]))
        if not np.isfinite(jacobians).all() or not _change(jacobians[:1], jacobians[1:])[0] > JUMP:
            continue
        matrix = stability_matrices(stack, [track.member], inside[None])
        exponents, doubts = judged_exponents(matrix, stack.clock)
        tangent = null_vector(jacobians[1]).astype(z.dtype)
        tangent = tangent * np.copysign(1.0, inner(tangent, chord)) * (1 if at == 0 else -1)
        point = track.points.at(at)._replace(tangent=tangent, exponents=exponents[0], doubts=doubts[0])
        track = dataclasses.replace(track, points=track.points.replaced(at, point))
    return track


def _looked_through(stack: Stack, track: Track) -> Track:
    """A track with the corners that its steps passed unnoticed."""
    steps = set(range(len(track.z) - 1))
    for _ in range(ROUNDS):
        found = _corners_in(stack, track, steps)
        if not found:
            break
        steps = set()
        for step, corner in found[::-1]:
            before = len(track.z)
            track = _with_corner(track, step, corner)
            # Others may lie in the rest of the step.
            steps = {at + len(track.z) - before for at in steps} | {step - 1, step, step + 1}
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
    begins, gaps, at = list[_Places](), list[np.ndarray](), list[int]()
    for first, piece in track.pieces():
        if len(piece.z) < 2 or not steps & set(range(first, first + len(piece.z) - 1)):
            continue
        places = _sampled(stack, track.member, piece)
        change = _change(places.jacobian[:-1], places.jacobian[1:])
        rate = change / length(np.diff(places.z, axis=0))
        beside = np.minimum(np.append(rate[1:], np.inf), np.append(np.inf, rate[:-1]))
        fast = np.isfinite(change) & (change > JUMP) & ~(rate <= FASTER * beside)
        # Of several corners within one step the first is looked for first, from the point before.
        chosen, which = np.unique(np.flatnonzero(fast) // len(PARTS), return_index=True)
        ends = np.flatnonzero(fast)[which] + 1
        kept = np.isin(chosen + first, list(steps))
        chosen, ends = chosen[kept], ends[kept]
        jacobians = places.jacobian[chosen * len(PARTS)]
        begins.append(_Places(piece.z[chosen], piece.tangent[chosen], piece.turn[chosen], jacobians))
        gaps.append(length(places.z[ends] - piece.z[chosen]))
        at += (chosen + first).tolist()
    if not at:
        return []
    low = _Places(*(np.concatenate(parts) for parts in zip(*begins, strict=True)))
    gap, found = np.concatenate(gaps), []
    begin = _Places(*(part.copy() for part in low))
    near = _approached(stack, track.member, low, gap, FIRST)
    rest = np.setdiff1d(np.arange(len(gap)), near)
    if rest.size:
        again = begin.at(rest)
        near += rest[_approached(stack, track.member, again, gap[rest], 1.0)].tolist()
        low.put(rest, again)
    for i in sorted(near):
        nothing = np.zeros(0)
        corner = beyond(stack, track.member, Point(low.z[i], low.tangent[i], low.turn[i], nothing, nothing), False)
        step = track.z[at[i] + 1] - track.z[at[i]]
        if corner is None or corner.next is None or inner(corner.next.tangent, step) <= 0:
            continue
        if any(length(track.z[one.at] - corner.before.z) < reach_of(corner.before.z) / 64 for one in track.corners):
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


def _approached(stack: Stack, member: int, low: _Places, gap: np.ndarray, share: float) -> list[int]:
    """Move places, in place, along the branch until each is next to where the Jacobian jumps, which is within a distance of
    about `gap` (k,). Returns the numbers of those at which it does.

    Next to the jump the corrector may fail, but not before it. So the jump is looked for on the tangent of the last place,
    and the next place is taken before it. `share`: of several changes of the Jacobian the first is taken that is at least
    this part of the largest.
    """
    gap, reach = 1.5 * gap, reach_of(low.z) / 8
    todo, found = np.arange(len(low.z)), list[int]()
    for _ in range(APPROACHES):
        s = gap[todo, None] * np.linspace(0, 1, CUTS + 1)
        line = low.z[todo, None] + s[..., None] * low.tangent[todo, None]
        jacobians = branch_jacobians(stack, [member] * s.size, line.reshape(s.size, -1))
        jacobians = jacobians.reshape(*s.shape, *jacobians.shape[1:])
        change = np.stack([_change(jacobians[:, i], jacobians[:, i + 1]) for i in range(CUTS)], axis=1)
        change = np.where(np.isfinite(change), change, -1)
        at = np.argmax(change >= share * change.max(axis=1, keepdims=True), axis=1)
        jump, here, width = change[np.arange(len(todo)), at], s[np.arange(len(todo)), at], s[:, 1]
        kept = jump > JUMP
        close = kept & (here + width <= reach[todo])
        found += todo[close].tolist()
        kept &= ~close
        todo, here, width, jump = todo[kept], here[kept], width[kept], jump[kept]
        if not todo.size:
            break
        ahead = np.maximum(here - 0.5 * width, 0)
        guess = low.z[todo] + ahead[:, None] * low.tangent[todo]
        new = corrected(stack, [member] * len(todo), guess, low.tangent[todo])
        places = _Places(new.z, new.tangent, new.turn, branch_jacobians(stack, [member] * len(todo), new.z))
        miss = length(new.z - guess)
        good = new.converged & (miss <= 0.5 * width) & (_change(places.jacobian, low.jacobian[todo]) < 0.5 * jump)
        # If the point is not found there, it is looked for nearer to the last one.
        gap[todo] = np.where(good, here + 1.5 * width - ahead, 0.7 * (here + 1.5 * width))
        low.put(todo[good], places.at(good))
    return sorted(found)


def _with_corner(track: Track, step: int, found: Found) -> Track:
    """The track with a corner within this step."""
    assert found.behind is not None
    z, place, last = track.z, found.before.z, len(track.z) - 1
    reach, corners = float(reach_of(place)), {one.at for one in track.corners}
    # What is next to the corner may have the tangent or the exponents of its other side.
    first, after = step, step + 1
    while first > 0 and first not in corners and length(z[first] - place) < reach:
        first -= 1
    while after < last and after not in corners and length(z[after] - place) < reach:
        after += 1
    corner = Point.stacked([found.before])
    points = Point.joined(track.points.at(slice(0, first + 1)), corner, track.points.at(slice(after, None)))
    earlier = [one for one in track.corners if one.at <= first]
    later = [one._replace(at=one.at + first + 2 - after) for one in track.corners if one.at >= after]
    return Track(track.member, points, track.ends, (*earlier, Corner(first + 1, found.behind), *later))
