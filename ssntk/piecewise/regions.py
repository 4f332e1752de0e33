"""Enumerate the regions of a piecewise-linear system: all sign patterns, or the cells of an arrangement of hyperplanes."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# How many tableaux are pivoted at once.
BLOCK = 2048
# By how much the entries, and with them the rounding errors, may grow by all pivots together.
GROWTH = 1e7
# Signs count as right within this fraction of their terms; they are checked again at the solutions.
ROUGH = 1e-7
# The number of vertices, and of numbers, that are computed at once.
VERTICES, NUMBERS = 20_000, 2**22


class Nodes(NamedTuple):
    """p nodes of the tree, in which u units are free.

    - `on` (p, m): the units for which w = 0. `free` (p, u): the numbers of the free units.
    - `T` (p, m, u), `const` (p, m): r of the units that are on, and w of all others, as affine functions of r of the free
      ones. `size` (p, m): the sizes of the terms of which `const` is the sum.
    - `growth` (p,): by how much the entries have grown by pivoting.
    """

    on: np.ndarray
    free: np.ndarray
    T: np.ndarray
    const: np.ndarray
    size: np.ndarray
    growth: np.ndarray

    def at(self, which: np.ndarray | slice) -> "Nodes":
        """Some of the nodes."""
        return Nodes(*(part[which] for part in self))

    def possible(self) -> "Nodes":
        """The nodes in which every quantity may be positive."""
        lost = ((self.const < -ROUGH * self.size) & (self.T <= 0).all(axis=2)).any(axis=1)
        return self.at(np.flatnonzero(~lost))


def complementary_patterns(
    M: Float[np.ndarray, "m m"], q: Float[np.ndarray, " m"], most: int
) -> tuple[Bool[np.ndarray, "k m"], Bool[np.ndarray, "j m"], Bool[np.ndarray, "j m"]] | None:
    """The patterns that may solve w = M r + q, r >= 0, w >= 0, r.w = 0, by a tree over the units.

    In each node of the tree a unit is off (r = 0) or on (w = 0). All other quantities are affine in the r of the units that
    are still free, by principal pivoting. A node is left out if a quantity is negative whatever these are.

    **Returns:** the patterns (k, m) that are left, and (j, m) nodes at which every pivot is too small: what is on, and what
    is decided. `None` if there are more than `most` nodes.
    """
    m = len(q)
    empty = np.zeros((0, m), bool)
    stack = [Nodes(np.zeros((1, m), bool), np.arange(m)[None], M[None], q[None], np.abs(q)[None], np.ones(1))]
    found, left, known, count = [empty], [empty], [empty], 0
    while stack:
        nodes = stack.pop()
        if nodes.free.shape[1] == 0:
            # If all is zero, as without any bias, every pattern has the same solution: r = 0, as if all units were off.
            some = (nodes.const != 0).any(axis=1)
            found += [nodes.on[some], np.zeros((int(not some.all()), m), bool)]
            continue
        if len(nodes.on) > BLOCK:
            stack += [nodes.at(slice(first, first + BLOCK)) for first in range(0, len(nodes.on), BLOCK)]
            continue
        count += len(nodes.on)
        if count > most:
            return None
        j, quality = _pivots(nodes)
        bad = nodes.growth > GROWTH * quality
        if bad.any():
            left.append(nodes.on[bad])
            decided = np.ones((int(bad.sum()), m), bool)
            np.put_along_axis(decided, nodes.free[bad], False, axis=1)
            known.append(decided)
        off, on = _children(nodes.at(~bad), j[~bad], quality[~bad])
        stack.append(Nodes(*(np.concatenate(pair) for pair in zip(off, on, strict=True))))
    return np.concatenate(found), np.concatenate(left), np.concatenate(known)


def _pivots(nodes: Nodes) -> tuple[np.ndarray, np.ndarray]:
    """The column (p,) whose pivot makes the entries grow least, and the reciprocal (p,) of that growth, at most 1."""
    sizes = np.abs(np.take_along_axis(nodes.T, nodes.free[:, :, None], axis=1))
    pivots = np.diagonal(sizes, axis1=1, axis2=2)
    grown, top = sizes.max(axis=2) * sizes.max(axis=1), sizes.max(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        quality = np.where(pivots > 0, pivots * top[:, None] / grown, 0.0)
    j = quality.argmax(axis=1)
    return j, np.minimum(quality[np.arange(len(j)), j], 1.0)


def _children(nodes: Nodes, j: np.ndarray, quality: np.ndarray) -> tuple[Nodes, Nodes]:
    """The children of p nodes in which the unit in column j (p,) is off, and those in which it is on."""
    on, free, T, const, size, growth = nodes
    p, u = free.shape
    rows = np.arange(p)
    others = np.arange(u - 1)[None] + (np.arange(u - 1)[None] >= j[:, None])
    unit, rest = free[rows, j], np.take_along_axis(free, others, axis=1)
    column = np.take_along_axis(T, j[:, None, None], axis=2)[:, :, 0]
    T = np.take_along_axis(T, others[:, None, :], axis=2)
    off = Nodes(on, rest, T, const, size, growth).possible()
    # w = 0 of the unit says what its r is.
    pivot = column[rows, unit]
    ahead, level, rough = -T[rows, unit] / pivot[:, None], -const[rows, unit] / pivot, size[rows, unit] / np.abs(pivot)
    T = T + column[:, :, None] * ahead[:, None, :]
    const, size = const + column * level[:, None], size + np.abs(column) * rough[:, None]
    T[rows, unit], const[rows, unit], size[rows, unit] = ahead, level, rough
    on = on.copy()
    on[rows, unit] = True
    return off, Nodes(on, rest, T, const, size, growth / quality).possible()


def candidates(M: Float[np.ndarray, "m m"], q: Float[np.ndarray, " m"], most: int, single: int) -> np.ndarray | None:
    """The patterns (k, m) that may solve w = M r + q, r >= 0, w >= 0, r.w = 0. All other patterns do not.

    `None` if that needs more than `most` nodes of a tree, or more than `single` patterns whose pivots are too small for it.
    """
    found = complementary_patterns(M, q, most)
    rest = None if found is None else _completions(found[1], found[2], single)
    return None if found is None or rest is None else np.concatenate([found[0], rest])


def _completions(on: np.ndarray, decided: np.ndarray, most: int) -> np.ndarray | None:
    """All patterns that agree with the nodes (j, m) on what is decided; `None` if there are more than `most`."""
    if sum(2.0 ** float((~one).sum()) for one in decided) > most:
        return None
    parts = [np.zeros((0, on.shape[1]), bool)]
    for one, known in zip(on, decided, strict=True):
        free = np.flatnonzero(~known)
        some = np.tile(one, (2 ** len(free), 1))
        some[:, free] = (np.arange(2 ** len(free))[:, None] >> np.arange(len(free))) & 1
        parts.append(some)
    return np.concatenate(parts)


def cell_count(m: int, dims: int) -> int:
    """The largest number of cells that m hyperplanes make in a space of some dimensions."""
    return sum(math.comb(m, i) for i in range(dims + 1))


def cells(normals: Float[np.ndarray, "m r"], levels: Float[np.ndarray, " m"]) -> Iterator[tuple[np.ndarray, bool]]:
    """The patterns (k, m) of the cells of the hyperplanes `normals @ y + levels = 0`, in batches.

    Each vertex is the lowest point of exactly one cell, in a direction in general position. The cells that have no lowest
    point are those of the same hyperplanes far below, in a space of one dimension less. With each batch comes whether no
    more than r hyperplanes meet at any of its vertices; otherwise cells may be missing.
    """
    m, r = normals.shape
    if r == 0:
        yield (levels > 0)[None], bool((levels != 0).all())
        return
    # A rotation puts the direction along the last axis.
    turn = np.linalg.qr(np.random.default_rng(r).standard_normal((r, r)))[0]
    normals = normals @ turn
    lowest = np.inf
    subsets = itertools.combinations(range(m), r)
    while len(batch := np.array(list(itertools.islice(subsets, max(1, min(VERTICES, NUMBERS // max(m, 1))))), int)):
        own = normals[batch]
        with np.errstate(all="ignore"):
            regular = np.abs(np.linalg.det(own)) > 1e-12 * np.prod(np.linalg.norm(own, axis=2), axis=1)
        own, batch = own[regular], batch[regular]
        if not len(batch):
            continue
        vertex = np.linalg.solve(own, -levels[batch][..., None])[..., 0]
        lowest = min(lowest, float(vertex[:, -1].min()))
        s = vertex @ normals.T + levels
        rough = 1e-10 * (np.abs(vertex) @ np.abs(normals).T + np.abs(levels))
        tied = np.abs(s) <= rough
        np.put_along_axis(tied, batch, False, axis=1)
        # The edges of the cone that has its lowest point here go up: own @ edges is diagonal, with these signs.
        edges = np.linalg.inv(own)[:, -1, :]
        pattern = s > 0
        np.put_along_axis(pattern, batch, edges > 0, axis=1)
        yield pattern, not tied.any()
    far = lowest - 1.0 - abs(lowest) if np.isfinite(lowest) else 0.0
    if r == 1:
        yield (normals[:, 0] * far + levels > 0)[None], True
        return
    yield from cells(normals[:, :-1], levels + normals[:, -1] * far)
