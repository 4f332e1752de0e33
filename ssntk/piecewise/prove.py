"""Find all solutions of a linear complementarity problem w = M r + q, r >= 0, w >= 0, r.w = 0, and prove that they are all.

See Cottle, Pang and Stone, *The Linear Complementarity Problem* (1992). If the symmetric part of M is positive definite,
every principal minor of M is positive, and there is exactly one solution for every q (Samelson, Thrall and Wesler, 1958).
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float

from ssntk.piecewise.regions import candidates

# HiGHS accepts points that violate constraints by up to this much; a proof needs solutions that are farther from borders.
FEASIBLE, CLEAR = 1e-7, 1e-6
# Up to this many units all patterns are enumerated, which takes as long as a few linear programmes.
FEW = 10
# The largest number of Newton iterations, and of single exchanges by Murty's rule for each unit.
NEWTON, EXCHANGES = 60, 40


class Proof(NamedTuple):
    """The patterns (k, m) of all solutions that were found, whether it is proved that there are no others, and the number
    of nodes."""

    patterns: Bool[np.ndarray, "k m"]
    complete: bool
    nodes: int


def definite(M: Float[np.ndarray, "m m"]) -> bool:
    """Whether the symmetric part of M is positive definite by more than rounding explains."""
    if len(M) == 0:
        return True
    values = np.linalg.eigvalsh((M + M.T) / 2)
    return bool(values[0] > 64 * len(M) * np.finfo(float).eps * np.abs(values).max())


def only(M: Float[np.ndarray, "m m"], q: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"] | None:
    """The pattern (m,) of the only solution, if the principal minors of M are positive. `None` if it was not reached.

    First by Newton's iteration on the pattern, which ends in a few steps for most problems. If it comes back to a pattern,
    by the rule of Murty (1974), which exchanges the unit with the largest number that has a wrong sign, and always ends.
    """
    m = len(q)
    pattern, seen = q < 0, set()
    for _ in range(NEWTON):
        wrong = _wrong(M, q, pattern)
        if not wrong.any():
            return pattern
        seen.add(pattern.tobytes())
        pattern = pattern ^ wrong
        if pattern.tobytes() in seen:
            break
    for _ in range(EXCHANGES * (m + 1)):
        wrong = _wrong(M, q, pattern)
        if not wrong.any():
            return pattern
        pattern = pattern.copy()
        pattern[np.flatnonzero(wrong)[-1]] ^= True
    return None


def _wrong(M: np.ndarray, q: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """The units (m,) whose r, or w, is negative in the linear equations of a pattern, by more than rounding explains."""
    r = np.zeros(len(q))
    if pattern.any():
        r[pattern] = np.linalg.solve(M[np.ix_(pattern, pattern)], -q[pattern])
    w = M @ r + q
    rough = 1e3 * np.finfo(float).eps * (np.abs(M) @ np.abs(r) + np.abs(q))
    return np.where(pattern, r < -1e3 * np.finfo(float).eps * np.abs(r).max(initial=0.0), w < -rough)


def branch_and_bound(M: Float[np.ndarray, "m m"], q: Float[np.ndarray, " m"], most: int) -> Proof:
    """All solutions, by a tree in each node of which some units are decided to be off (r = 0) or on (w = 0).

    A node ends if its linear programme has no solution. It also ends if, for the units that are not decided, exactly one
    solution exists: the symmetric part of their Schur complement is positive definite. The tree has at most `most` nodes.
    """
    m = len(q)
    # -1: not decided. 0: off. 1: on.
    stack, found, nodes, proved = [np.full(m, -1, np.int8)], [], 0, True
    while stack:
        state = stack.pop()
        nodes += 1
        if nodes > most:
            return Proof(_distinct(found, m), False, nodes)
        free, on = np.flatnonzero(state < 0), np.flatnonzero(state == 1)
        reduced = _reduced(M, q, free, on)
        if reduced is not None and definite(reduced[0]):
            inner = only(*reduced)
            if inner is None:
                proved = False
                continue
            pattern = state == 1
            pattern[free] = inner
            # The units that are decided need the right signs as well.
            if not _wrong(M, q, pattern).any():
                found.append(pattern)
            continue
        point = _feasible(M, q, state)
        if point is None:
            continue
        if len(free) <= FEW and reduced is not None:
            found += [*_few(*reduced, state == 1, free)]
            continue
        if isinstance(point, str) or len(free) == 0:
            proved = False
            continue
        r, w = point
        # Decide the unit that is farthest from r w = 0.
        worst = free[np.minimum(r, w)[free].argmax()]
        for side in (0, 1) if r[worst] > w[worst] else (1, 0):
            child = state.copy()
            child[worst] = side
            stack.append(child)
    return Proof(_distinct(found, m), proved, nodes)


def _few(M: np.ndarray, q: np.ndarray, on: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The patterns that may solve the problem (M, q) of a few units `free`, together with the others that are `on`."""
    patterns = candidates(M, q, 2 ** (FEW + 2), 2**FEW)
    # The tree of a few units ends within its limits.
    assert patterns is not None
    whole = np.tile(on, (len(patterns), 1))
    whole[:, free] = patterns
    return whole


def _distinct(found: list[np.ndarray], m: int) -> np.ndarray:
    return np.unique(np.array(found, bool).reshape(-1, m), axis=0)


def _reduced(M: np.ndarray, q: np.ndarray, free: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The complementarity problem of the units `free`, if w = 0 for those that are `on` and r = 0 for the others."""
    if len(on) == 0:
        return M[np.ix_(free, free)], q[free]
    inner = M[np.ix_(on, on)]
    if np.linalg.cond(inner) > 1e10:
        return None
    share = np.linalg.solve(inner, np.column_stack([M[np.ix_(on, free)], q[on]]))
    left = M[np.ix_(free, on)] @ share
    return M[np.ix_(free, free)] - left[:, :-1], q[free] - left[:, -1]


def _feasible(M: np.ndarray, q: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray] | str | None:
    """A point (r, w) that satisfies the linear conditions of a node. `None` if there is none, a text if it is not known."""
    held = state == 1
    bounds = np.zeros((len(q), 2))
    bounds[state != 0, 1] = np.inf
    equal: dict[str, np.ndarray] = {"A_eq": M[held], "b_eq": -q[held]} if held.any() else {}
    free = state < 0
    for cost in (free + free @ M, np.zeros(len(q))):
        found = scipy.optimize.linprog(cost, A_ub=-M[~held], b_ub=q[~held], bounds=bounds, method="highs", **equal)
        # If the cost has no least value, points exist all the same.
        if found.status != 3:
            break
    if found.status == 2:
        return None
    return (found.x, M @ found.x + q) if found.status == 0 else "not known"
