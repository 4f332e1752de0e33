"""The critical eigenvalue at a point with its vectors, even if defective, and how many eigenvalues are zero to rounding."""

import numpy as np

from ssntk.bifurcation.events.system import Solved
from ssntk.dynamics.stability import Eigenpair, eigenpair, sorted_eigenvalues
from ssntk.errors import NumericalError

# A number counts as zero up to this multiple of its rounding error.
NEAR = 1e3
# A complex pair is about to meet at zero if it is nearer to zero than any real eigenvalue by this factor.
MEETS = 10.0


def real_pair(matrix: np.ndarray, critical: float, at_zero: bool) -> Eigenpair:
    """The eigenpair of a matrix (n, n) whose real eigenvalue is nearest to `critical`; `at_zero`: a pair may meet there."""
    every = sorted_eigenvalues(matrix)
    values = every[every.imag == 0] if (every.imag == 0).any() else every.real
    if at_zero and _meets(every):
        # A pair meets at zero, as in conservative systems: take the null vectors.
        lefts, _, rights = np.linalg.svd(matrix)
        return Eigenpair(0j, rights[-1], lefts[:, -1])
    return eigenpair(matrix, complex(values[np.argmin(np.abs(values.real - critical))]), every)


def _meets(values: np.ndarray) -> bool:
    """Whether a pair among the eigenvalues (n,) is about to meet at zero, as pairs do in conservative systems."""
    real, least = np.abs(values[values.imag == 0]), np.abs(values).min()
    return bool(MEETS * least < real.min(initial=np.inf))


def critical_pair(
    jacobian: np.ndarray, critical: complex, values: np.ndarray, rows: np.ndarray, at_zero: bool
) -> tuple[Eigenpair | None, bool]:
    """The critical eigenpair of a Jacobian (n, n) with the eigenvalues `values` (n,), and whether it is defective.

    If it is, the vectors are null vectors for an eigenvalue `at_zero`. `rows` (n,): the sizes of the terms of each row.
    """
    try:
        pair = eigenpair(jacobian, critical, values)
    except NumericalError:
        pair = None
    if at_zero and (pair is None or np.linalg.norm(pair.left) * np.finfo(jacobian.dtype).eps ** 0.4 > 1):
        null = _null_pair(jacobian, rows)
        return (null, True) if null is not None else (pair, False)
    return pair, False


def _null_pair(jacobian: np.ndarray, rows: np.ndarray) -> Eigenpair | None:
    """The null vectors, of length one, of a matrix whose zero eigenvalue is defective, as in conservative systems. `None` if
    the null space has more than one dimension."""
    rows = np.where(rows > 0, rows, 1.0)
    lefts, values, rights = np.linalg.svd(jacobian / rows[:, None])
    if len(values) > 1 and values[-2] <= np.finfo(jacobian.dtype).eps ** 0.4:
        return None
    left = lefts[:, -1] / rows
    return Eigenpair(0j, rights[-1], left / np.linalg.norm(left))


def vanishing(solved: Solved, values: np.ndarray, doubts: np.ndarray) -> int:
    """The number of exponents `values` (n,) that are zero to within their errors: the rounding error `doubts` (n,), and that
    from the error of the state along the eigenvector, which is larger the smaller the eigenvalue."""
    jacobian, n = solved.jacobian[:, :-1], solved.curvature.shape[0]
    least = np.abs(values) <= NEAR * doubts
    terms = np.abs(jacobian) @ (1 + np.abs(solved.y[:n])) + np.abs(solved.jacobian[:, -1])
    unit = NEAR * 32 * float(np.finfo(solved.y.dtype).eps)
    size = float(np.abs(jacobian).sum(axis=1).max() + solved.curvature.sum(axis=1).max())
    small = np.flatnonzero(~least & (np.abs(values) <= np.sqrt(unit) * size) & (values.imag == 0))
    every = sorted_eigenvalues(jacobian) if small.size else values
    for i in small:
        try:
            pair = eigenpair(jacobian, complex(values[i]), every)
        except NumericalError:
            least[i] = True
            continue
        weights = np.abs(pair.left)
        bends = float(weights @ (solved.curvature @ np.abs(pair.right)))
        least[i] = abs(values[i]) ** 2 <= unit * float(weights @ terms) * bends
    return int(least.sum())


def beside(jacobian: np.ndarray, slope: np.ndarray, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The unit direction (n + 1,) that spans the kernel of (A, f_q) together with the critical one."""
    n = len(slope)
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n], matrix[:n, n], matrix[n, :n] = jacobian, left, right
    rows = np.abs(matrix).sum(axis=1)
    other = np.linalg.solve(matrix / rows[:, None], np.append(-slope, 0.0) / rows)[:n]
    return np.append(other, 1.0) / np.linalg.norm(np.append(other, 1.0))
