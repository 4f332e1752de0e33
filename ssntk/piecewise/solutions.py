"""The solutions of a piecewise-linear equation: which patterns have one, each once, and where regions have whole lines."""

import dataclasses

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Int

from ssntk.piecewise.system import System

# Of this many singular regions it is decided whether they hold a line of solutions; of more it is assumed.
REGIONS = 200
# A linear equation of a singular region is consistent within this fraction of its terms.
CONSISTENT = 1e-9


@dataclasses.dataclass(frozen=True)
class Zeros:
    """The solutions of an equation.

    - `x` (k, n), and the patterns (k, m) of their regions. On a border a signal counts as not positive.
    - `complete`: whether it is proved that there are no others.
    - `lines`: whether the solutions cannot be listed, since a region has a line of them, or since numbers overflow.
    - `nodes`: of branch and bound.
    - `hits` (k,), `starts`, `lost`: those of a search, else zero.
    """

    x: Float[np.ndarray, "k n"]
    patterns: Bool[np.ndarray, "k m"]
    complete: bool
    lines: bool = False
    nodes: int = 0
    hits: Int[np.ndarray, " k"] | None = None
    starts: int = 0
    lost: int = 0


def accepted(system: System, patterns: Bool[np.ndarray, "p m"], complete: bool) -> Zeros:
    """The solutions in the regions of patterns (p, m), each once."""
    patterns = np.unique(patterns, axis=0)
    x, error = system.solved(patterns)
    singular = np.isinf(error).any(axis=1)
    signs = system.signs(x, error)
    fits = ~singular & np.where(patterns, signs >= 0, signs <= 0).all(axis=1)
    x, signs, error = x[fits], signs[fits], error[fits]
    first, _ = told_apart(x, signs, error)
    lines = bool(singular.sum() > REGIONS) or any(_has_line(system, one) for one in patterns[singular])
    return Zeros(x[first], signs[first] > 0, complete and not lines, lines)


def told_apart(x: np.ndarray, signs: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of distinct solutions (p, n), and for each solution which of these it is.

    Those with different signs (p, m) are different. If a sign is zero, so that the solution lies on a border, the same point
    belongs to two patterns, and the states decide.
    """
    _, first, which = np.unique(signs, axis=0, return_index=True, return_inverse=True)
    which = first[which.ravel()]
    rough = 1e3 * error + 1e4 * np.finfo(float).eps * np.abs(x)
    for i in first[(signs[first] == 0).any(axis=1)]:
        alike = first[(np.abs(x[first] - x[i]) <= rough[first] + rough[i]).all(axis=1)]
        which[np.isin(which, alike)] = which[alike].min()
    return np.unique(which), which


def _has_line(system: System, pattern: np.ndarray) -> bool:
    """Whether the region of a pattern (m,), in which the linear equation is singular, has more than one solution."""
    on = system.B * pattern
    J, right = system.G + on @ system.C, -(system.h + on @ system.c)
    left, sizes, vectors = np.linalg.svd(J)
    keep = sizes > 1e-12 * sizes[0] if sizes[0] > 0 else np.zeros(len(sizes), bool)
    inner = left.T @ right
    if np.abs(inner[~keep]).max(initial=0.0) > CONSISTENT * (np.abs(right).max() or 1.0):
        return False
    start = vectors[keep].T @ (inner[keep] / sizes[keep])
    sign = np.where(pattern, 1.0, -1.0)
    along = vectors[~keep].T
    found = scipy.optimize.linprog(
        np.zeros(along.shape[1]),
        A_ub=-(sign[:, None] * (system.C @ along)),
        b_ub=sign * (system.C @ start + system.c),
        bounds=(None, None),
        method="highs",
    )
    return found.status == 0
