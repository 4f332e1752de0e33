"""All solutions of a piecewise-linear equation, by the cheapest method that proves that they are all."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ssntk.piecewise.form import PiecewiseLinear
from ssntk.piecewise.prove import CLEAR, branch_and_bound, definite, only
from ssntk.piecewise.regions import candidates, cell_count, cells
from ssntk.piecewise.search import canonical, searched_cycles, searched_points
from ssntk.piecewise.solutions import Zeros, accepted
from ssntk.piecewise.system import System

# Up to this rank, and this many cells, the cells of the arrangement of the borders are enumerated.
RANK, CELLS = 3, 2_000_000
# Up to this many relus all patterns are enumerated, in a tree of at most this many nodes and as many single solutions.
UNITS, NODES, SINGLE = 20, 2**21, 2**18
# Branch and bound has at most this many nodes for up to so many relus, and fewer for more.
PROGRAMMES, RELUS = 400, 30
# A candidate may have wrong signs by this fraction of the terms, and is checked again.
ROUGH = 1e-7


def fixed_points_of(form: PiecewiseLinear, n_starts: int, seed: list[int], effort: float = 1.0) -> Zeros:
    """All fixed points of a form if a proof succeeds, else those that a search finds."""
    system = System.of(form)
    found = proved_zeros(system, effort)
    if found is not None:
        return found
    scaled, units = system.scaled()
    found = searched_points(scaled, n_starts, np.random.default_rng(seed))
    return dataclasses.replace(found, x=found.x * units)


def cycles_of(form: PiecewiseLinear, k: int, n_starts: int, seed: list[int], effort: float) -> Zeros:
    """The cycles of k steps of a map, those of shorter periods included, each from one of its points on: x (c, k n).

    If the relus of all steps are more than are enumerated, a proof is tried with this `effort`; zero is none.
    """
    stacked = System.stacked(form, k)
    found = proved_zeros(stacked, effort)
    if found is not None:
        first = (canonical(found.patterns, k) == found.patterns).all(axis=1)
        return dataclasses.replace(found, x=found.x[first], patterns=found.patterns[first])
    of_x, of_s, _ = System.of(form).units()
    step = System(form.A, form.B, form.C, form.c, form.h).in_units(of_x, of_x, of_s)
    wide = stacked.in_units(np.tile(of_x, k), np.tile(of_x, k), np.tile(of_s, k))
    found = searched_cycles(step, k, wide, n_starts, np.random.default_rng(seed))
    return dataclasses.replace(found, x=found.x * np.tile(of_x, k))


def proved_zeros(system: System, effort: float = 1.0) -> Zeros | None:
    """All solutions of an equation, with a proof that there are no others. `None` if no method gives one.

    The methods, in this order: if the symmetric part of the complementarity problem's matrix is positive definite, there is
    one solution; if the rank of the coupling is at most three, the cells of the borders' arrangement are enumerated; up to
    20 relus, all patterns are; else branch and bound, with a number of nodes that is `effort` times the usual one.

    If a region has a line of solutions, if all regions are singular, or if numbers overflow, `lines` of the result is set.
    """
    scaled, units = system.scaled()
    n, m = len(scaled.G), len(scaled.c)
    turned = scaled.regular() if scaled.finite else None
    if turned is None:
        return Zeros(np.zeros((0, n)), np.zeros((0, m), bool), False, lines=True)
    one, _ = turned
    M, q = one.complementary()
    methods: tuple[Callable[[], Zeros | None], ...] = (
        lambda: _single(one, M, q),
        lambda: _by_cells(one, M, q),
        lambda: _by_tree(one, M, q),
        lambda: _by_branches(one, M, q, effort),
    )
    found = next((zeros for method in methods if (zeros := method()) is not None), None)
    if found is None:
        return None
    # The relus may have been turned for the solution.
    signs = scaled.signs(found.x, np.zeros_like(found.x))
    x = found.x * units
    lines = found.lines or not np.isfinite(x).all()
    return dataclasses.replace(found, x=x, patterns=signs > 0, complete=found.complete and not lines, lines=lines)


def _single(system: System, M: np.ndarray, q: np.ndarray) -> Zeros | None:
    if not definite(M):
        return None
    pattern = only(M, q)
    found = None if pattern is None else accepted(system, pattern[None], True)
    return found if found is not None and len(found.x) == 1 else None


def _by_cells(system: System, M: np.ndarray, q: np.ndarray) -> Zeros | None:
    """The signals are -q - N r with N = P Q^T of low rank, so that they depend on the few numbers y = Q^T r."""
    m = len(q)
    N = M - np.eye(m)
    sketch = np.linalg.qr(N @ np.random.default_rng(0).standard_normal((m, min(m, RANK + 5))))[0]
    left, sizes, right = np.linalg.svd(sketch.T @ N, full_matrices=False)
    rank = int((sizes > 64 * m * np.finfo(float).eps * sizes[0]).sum()) if m else 0
    if rank > RANK or cell_count(m, rank) > CELLS:
        return None
    P, Q = sketch @ left[:, :rank] * sizes[:rank], right[:rank].T
    products = (Q[:, :, None] * P[:, None, :]).reshape(m, -1)
    kept = []
    for patterns, generic in cells(-P, -q):
        if not generic:
            return None
        on = patterns.astype(float)
        H = np.eye(rank) + (on @ products).reshape(-1, rank, rank)
        # A singular system is looked at once more below.
        flat = np.abs(np.linalg.det(H)) <= 1e-12 * np.abs(H).max(axis=(1, 2), initial=0.0) ** rank
        y = np.linalg.solve(np.where(flat[:, None, None], np.eye(rank), H), (on @ (Q * -q[:, None]))[..., None])[..., 0]
        s, rough = -q - y @ P.T, ROUGH * (np.abs(q) + np.abs(y) @ np.abs(P).T)
        kept.append(patterns[flat | np.where(patterns, s >= -rough, s <= rough).all(axis=1)])
    return accepted(system, np.concatenate(kept), True)


def _by_tree(system: System, M: np.ndarray, q: np.ndarray) -> Zeros | None:
    if len(q) > UNITS:
        return None
    patterns = candidates(M, q, NODES, SINGLE)
    return None if patterns is None else accepted(system, patterns, True)


def _by_branches(system: System, M: np.ndarray, q: np.ndarray, effort: float) -> Zeros | None:
    if effort == 0:
        return None
    most = int(effort * PROGRAMMES * min(1.0, (RELUS / len(q)) ** 2))
    proof = branch_and_bound(M, q, most)
    if not proof.complete:
        return None
    found = accepted(system, proof.patterns, True)
    s = found.x @ system.C.T + system.c
    # The linear programmes are solved to a tolerance: a proof needs solutions well away from the borders.
    clear = bool((np.abs(s) > CLEAR).all())
    return dataclasses.replace(found, nodes=proof.nodes) if clear or found.lines else None
