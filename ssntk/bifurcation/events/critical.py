"""The critical eigenvalue at a point, to its own rounding error: its vectors, even if it is defective, and how many meet."""

import numpy as np

from ssntk.bifurcation.events.system import Solved
from ssntk.dynamics.stability import Eigenpair, eigenpair, sorted_eigenvalues
from ssntk.errors import NumericalError

# How many times its own rounding error a number may be before it counts as other than zero.
NEAR = 1e3
# A complex pair is about to meet at zero if it is so many times nearer to it than any real eigenvalue.
MEETS = 10.0


def real_pair(matrix: np.ndarray, critical: float, at_zero: bool) -> Eigenpair:
    """The eigenpair of a matrix (n, n) whose real eigenvalue is nearest to `critical`; `at_zero`: a pair may meet there."""
    every = sorted_eigenvalues(matrix)
    values = every[every.imag == 0] if (every.imag == 0).any() else every.real
    if at_zero and _meets(every):
        # As in conservative systems.
        lefts, _, rights = np.linalg.svd(matrix)
        return Eigenpair(0j, rights[-1], lefts[:, -1])
    return eigenpair(matrix, complex(values[np.argmin(np.abs(values.real - critical))]), every)


def _meets(values: np.ndarray) -> bool:
    """Whether a pair among the eigenvalues (n,) is about to meet at zero, as pairs do in conservative systems."""
    real, least = np.abs(values[values.imag == 0]), np.abs(values).min()
    return bool(MEETS * least < real.min(initial=np.inf))


def critical_pair(jacobian: np.ndarray, critical: complex, rows: np.ndarray, at_zero: bool) -> tuple[Eigenpair | None, bool]:
    """The critical eigenpair, and whether it is defective: then the null vectors, if the eigenvalue is `at_zero`. `rows`
    (n,): the terms of each row."""
    try:
        pair = eigenpair(jacobian, critical)
    except NumericalError:
        pair = None
    if at_zero and (pair is None or np.linalg.norm(pair.left) * np.finfo(jacobian.dtype).eps ** 0.4 > 1):
        null = _null_pair(jacobian, rows)
        return (null, True) if null is not None else (pair, False)
    return pair, False


def _null_pair(jacobian: np.ndarray, rows: np.ndarray) -> Eigenpair | None:
    """The null vectors of a matrix whose zero eigenvalue is defective, as it is in conservative systems, each of length one;
    `None` where the null space has more dimensions than one."""
    rows = np.where(rows > 0, rows, 1.0)
    lefts, values, rights = np.linalg.svd(jacobian / rows[:, None])
    if len(values) > 1 and values[-2] <= np.finfo(jacobian.dtype).eps ** 0.4:
        return None
    left = lefts[:, -1] / rows
    return Eigenpair(0j, rights[-1], left / np.linalg.norm(left))


def vanishing(solved: Solved, values: np.ndarray, doubts: np.ndarray) -> int:
    """How many of the exponents (n,) are zero to their own error: that of the eigenvalue itself (n,), and that which the
    state has along its eigenvector. The smaller the eigenvalue, the less is the state known there."""
    jacobian, n = solved.jacobian[:, :-1], solved.curvature.shape[0]
    least = np.abs(values) <= NEAR * doubts
    terms = np.abs(jacobian) @ (1 + np.abs(solved.y[:n])) + np.abs(solved.jacobian[:, -1])
    unit = NEAR * 32 * float(np.finfo(solved.y.dtype).eps)
    size = float(np.abs(jacobian).sum(axis=1).max() + solved.curvature.sum(axis=1).max())
    for i in np.flatnonzero(~least & (np.abs(values) <= np.sqrt(unit) * size) & (values.imag == 0)):
        try:
            pair = eigenpair(jacobian, complex(values[i]))
        except NumericalError:
            least[i] = True
            continue
        weights = np.abs(pair.left)
        bends = float(weights @ (solved.curvature @ np.abs(pair.right)))
        least[i] = abs(values[i]) ** 2 <= unit * float(weights @ terms) * bends
    return int(least.sum())


def beside(jacobian: np.ndarray, slope: np.ndarray, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The unit direction (n + 1,) that spans the kernel of (A, f_q) beside the critical one."""
    n = len(slope)
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n], matrix[:n, n], matrix[n, :n] = jacobian, left, right
    rows = np.abs(matrix).sum(axis=1)
    other = np.linalg.solve(matrix / rows[:, None], np.append(-slope, 0.0) / rows)[:n]
    return np.append(other, 1.0) / np.linalg.norm(np.append(other, 1.0))
