"""Enumerate the regions of a piecewise-linear system: all sign patterns, or the cells of an arrangement of hyperplanes."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

# How many tableaux are pivoted at once.
BLOCK = 2048
# A pivot that makes the entries grow by more than this is not used.
GROWTH = 1e3
# Signs count as right within this fraction of their terms; they are checked again at the solutions.
ROUGH = 1e-7
# The number of vertices, and of numbers, that are computed at once.
VERTICES, NUMBERS = 20_000, 2**22


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
    # The columns of a tableau are those of the free units, in the order `free`.
    start: tuple[np.ndarray, ...] = (np.zeros((1, m), bool), np.arange(m)[None], M[None], q[None], np.abs(q)[None])
    stack, found, left, count = [start], [], [], 0
    while stack:
        on, free, T, const, size = stack.pop()
        if free.shape[1] == 0:
            found.append(on)
            continue
        if len(on) > BLOCK:
            for at in range(0, len(on), BLOCK):
                stack.append(tuple(part[at : at + BLOCK] for part in (on, free, T, const, size)))
            continue
        count += len(on)
        if count > most:
            return None
        rows = np.arange(len(on))
        # The unit whose pivot is largest, relative to the row and the column that it divides.
        sizes = np.abs(np.take_along_axis(T, free[:, :, None], axis=1))
        pivots = np.diagonal(sizes, axis1=1, axis2=2)
        grown, top = sizes.max(axis=2) * sizes.max(axis=1), sizes.max(axis=(1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            quality = np.where(pivots > 0, pivots * top[:, None] / grown, 0.0)
        j = quality.argmax(axis=1)
        bad = quality[rows, j] < 1 / GROWTH
        if bad.any():
            decided = np.ones_like(on[bad])
            np.put_along_axis(decided, free[bad], False, axis=1)
            left.append((on[bad], decided))
        rows, j = np.flatnonzero(~bad), j[~bad]
        on, free, T, const, size = (part[rows] for part in (on, free, T, const, size))
        children = _branches(on, free, T, const, size, j)
        stack.append(tuple(np.concatenate(pair) for pair in zip(*children, strict=True)))
    empty = np.zeros((0, m), bool)
    return (
        np.concatenate([empty, *found]),
        np.concatenate([empty, *(one for one, _ in left)]),
        np.concatenate([empty, *(one for _, one in left)]),
    )


def _branches(
    on: np.ndarray, free: np.ndarray, T: np.ndarray, const: np.ndarray, size: np.ndarray, j: np.ndarray
) -> Iterator[tuple[np.ndarray, ...]]:
    """The two children of each of p nodes, in which the unit in column j (p,) is off, and on."""
    p, u = free.shape
    rows = np.arange(p)
    others = np.arange(u - 1)[None] + (np.arange(u - 1)[None] >= j[:, None])
    unit, rest = free[rows, j], np.take_along_axis(free, others, axis=1)
    column = np.take_along_axis(T, j[:, None, None], axis=2)[:, :, 0]
    T = np.take_along_axis(T, others[:, None, :], axis=2)
    yield _kept(on, rest, T, const, size)
    # w = 0 of the unit says what its r is.
    pivot = column[rows, unit]
    ahead, level, rough = -T[rows, unit] / pivot[:, None], -const[rows, unit] / pivot, size[rows, unit] / np.abs(pivot)
    T = T + column[:, :, None] * ahead[:, None, :]
    const, size = const + column * level[:, None], size + np.abs(column) * rough[:, None]
    T[rows, unit], const[rows, unit], size[rows, unit] = ahead, level, rough
    on = on.copy()
    on[rows, unit] = True
    yield _kept(on, rest, T, const, size)


def _kept(on: np.ndarray, free: np.ndarray, T: np.ndarray, const: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, ...]:
    """The nodes in which every quantity may be positive."""
    lost = ((const < -ROUGH * size) & (T <= 0).all(axis=2)).any(axis=1)
    return tuple(part[~lost] for part in (on, free, T, const, size))


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
