"""Linear stability: the Jacobian of the vector field, its eigenvalues and its eigenpairs."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock
from ssntk.nouns import AnyArray


def field_at(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, " n"]:
    """f(x) (n,) at time zero. Models that are analysed for equilibria do not depend on time."""
    return model.vector_field(jnp.zeros((), x.dtype), x, u)


def state_jacobian(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, "n n"]:
    """A = df/dx (n, n)."""
    return jax.jacfwd(lambda x: field_at(model, x, u))(x)


def linear_at(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """f (n,) and A = df/dx (n, n) at a state x (n,), from one trace of f."""

    def both(x: Array) -> tuple[Array, Array]:
        velocity = field_at(model, x, u)
        return velocity, velocity

    jacobian, velocity = jax.jacfwd(both, has_aux=True)(x)
    return velocity, jacobian


@eqx.filter_jit
def linearised(model: AbstractStateSpaceModel, x: Any, u: Array) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """f (n,) and A = df/dx (n, n) at a state x (n,), compiled."""
    return linear_at(model, x, u)


def sorted_eigenvalues(matrices: AnyArray) -> np.ndarray:
    """The eigenvalues (..., n) of matrices (..., n, n), the rightmost first. In a pair the upper one comes first.

    They are computed on the host by LAPACK, since JAX has nonsymmetric eigenvalues on the CPU only.
    """
    values = np.linalg.eigvals(np.asarray(matrices)).astype(complex)
    order = np.lexsort((-values.imag, -values.real), axis=-1)
    return np.take_along_axis(values, order, axis=-1)


def exponents(matrices: AnyArray, clock: AbstractClock) -> np.ndarray:
    """The growth exponents (..., n) if df/dx is `matrices` (..., n, n), the fastest growing first."""
    return clock.growth(sorted_eigenvalues(matrices))


def judged_exponents(
    matrices: AnyArray, clock: AbstractClock, values: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The growth exponents (..., n) of [`exponents`][], and the rounding error (..., n) of each. `values` (..., n): the
    eigenvalues, if they are known.

    The error is the backward error of the eigenvalue solver on the balanced matrix, times the condition number
    |l||r| / |l.r| of the eigenvalue (Golub and Van Loan, *Matrix Computations*, section 7.2.2). The condition number is
    computed for eigenvalues near the edge of stability, and taken to be one for the others.
    """
    matrices = np.asarray(matrices)
    found = exponents(matrices, clock) if values is None else clock.growth(values)
    flat, values = matrices.reshape(-1, *matrices.shape[-2:]), found.reshape(-1, matrices.shape[-1])
    doubts = np.zeros(values.shape)
    unit = ROUNDINGS * np.finfo(matrices.dtype).eps
    sizes = np.linalg.norm(flat, axis=(1, 2))
    doubts += unit * sizes[:, None]
    for i in np.flatnonzero((np.abs(values.real) <= NEAR_EDGE * sizes[:, None]).any(axis=1)):
        if np.isfinite(flat[i]).all():
            doubts[i] = _doubts(flat[i], values[i], clock)
    return found, doubts.reshape(found.shape)


# An eigenvalue counts as near the edge within this fraction of the matrix's norm.
NEAR_EDGE = 1e-7
# The backward error of the eigenvalue solver, in roundings of the balanced matrix's norm.
ROUNDINGS = 32
# From this number of units on, single eigenvectors come from inverse iteration; all are computed if more than a few are
# asked for.
LARGE, FEW = 48, 8


def balance(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (n, n) in units in which each row is as large as its column, and these units (n,), powers of 2."""
    # SciPy casts the units to integers, since they may be permutations, and warns if they are too large.
    with np.errstate(invalid="ignore"):
        found: Any = scipy.linalg.matrix_balance(matrix.astype(float), permute=False, separate=True)
    return found[0], found[1][0]


def _doubts(matrix: np.ndarray, values: np.ndarray, clock: AbstractClock) -> np.ndarray:
    """The rounding error (n,) of each of the exponents `values` (n,) of one matrix (n, n)."""
    balanced, _ = balance(matrix)
    near = np.flatnonzero(np.abs(values.real) <= NEAR_EDGE * np.linalg.norm(matrix))
    if len(matrix) >= LARGE and len(near) <= FEW:
        overlap = np.ones(len(values))
        overlap[near] = [_overlap(balanced, clock.eigenvalue(complex(values[i]))) for i in near]
    else:
        parts: Any = scipy.linalg.eig(balanced, left=True, right=True)
        every, lefts, rights = parts
        # The eigenvectors, as columns, have length one: the condition number is 1 / overlap.
        overlap = np.abs((lefts.conj() * rights).sum(axis=0))
        every = clock.growth(every, sort=False)
        overlap = overlap[np.abs(values[:, None] - every[None, :]).argmin(axis=1)]
    norm = float(np.linalg.norm(balanced))
    unit = ROUNDINGS * np.finfo(matrix.dtype).eps * norm
    with np.errstate(divide="ignore"):
        return np.minimum(unit / overlap, np.sqrt(unit * max(norm, unit)))


def _overlap(matrix: np.ndarray, value: complex) -> float:
    """|l.r| of the unit eigenvectors of a matrix (n, n) for one eigenvalue."""
    # The logarithm of a map's real multiplier, and its inverse, leave a rounding error in the imaginary part.
    real = abs(value.imag) <= ROUNDINGS * np.finfo(float).eps * abs(value)
    right, left = _null_vectors(matrix - (value.real if real else value) * np.eye(len(matrix)))
    return float(abs(left @ right))


def _null_vectors(shifted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors right and left (n,) with `shifted right = 0` and `left^T shifted = 0`, for a matrix that is singular to
    rounding. A singular value decomposition costs a tenth of all eigenvectors, and inverse iteration a tenth of that."""
    n, eps = len(shifted), float(np.finfo(shifted.dtype).eps)
    if n >= LARGE and np.isfinite(shifted).all():
        kind = "z" if np.iscomplexobj(shifted) else "d"
        factorised, solved = (getattr(scipy.linalg.lapack, kind + name) for name in ("getrf", "getrs"))
        size = float(np.linalg.norm(shifted))
        factors, pivots, _ = factorised(shifted)
        pivot = np.diagonal(factors)
        # A pivot of zero is a rounding error.
        factors[np.arange(n), np.arange(n)] = np.where(np.abs(pivot) > eps * size, pivot, eps * size)
        vectors = []
        for trans in (0, 1):
            vector = np.random.default_rng(trans).standard_normal(n).astype(factors.dtype)
            for _ in range(3):
                vector = solved(factors, pivots, vector, trans=trans)[0]
                vector = vector / np.linalg.norm(vector)
            vectors.append(vector)
        right, left = vectors
        if max(np.linalg.norm(shifted @ right), np.linalg.norm(left @ shifted)) <= 8 * eps * size:
            return right.astype(shifted.dtype), left.astype(shifted.dtype)
    lefts, _, rights = np.linalg.svd(shifted)
    return rights[-1].conj(), lefts[:, -1].conj()


class Eigenpair(NamedTuple):
    """`A r = value r`, `left^T A = value left^T`, `|right| = 1` and `left^T right = 1` (not conjugated)."""

    value: complex
    right: np.ndarray
    left: np.ndarray


def eigenpair(matrix: AnyArray, near: complex | float, values: np.ndarray | None = None) -> Eigenpair:
    """The eigenpair of `matrix` (n, n) whose eigenvalue is nearest to `near`. A real eigenvalue has real vectors.

    `values` (n,): all eigenvalues, if they are known.

    Raises `NumericalError` if the eigenvalue is defective, so that `left^T right` is zero.
    """
    matrix = np.asarray(matrix)
    values = np.linalg.eigvals(matrix) if values is None else values
    value = complex(values[np.argmin(np.abs(values - near))])
    # Balance the matrix, so that the result does not depend on the units of the states.
    balanced, sizes = balance(matrix)
    shift = value.real if value.imag == 0 else value
    right, left = _null_vectors(balanced - shift * np.eye(len(matrix), dtype=matrix.dtype))
    if abs(left @ right) < 1e-6:
        # Nearly repeated eigenvalues share a null space, and singular vectors in it need not be eigenvectors of one.
        parts: Any = scipy.linalg.eig(balanced, left=True, right=True)
        every, left_vectors, right_vectors = parts
        at = int(np.argmin(np.abs(every - near)))
        value, right, left = complex(every[at]), right_vectors[:, at], left_vectors[:, at].conj()
        if value.imag == 0:
            right, left = right.real, left.real
    if abs(left @ right) < 10 * np.finfo(matrix.dtype).eps * np.linalg.norm(left) * np.linalg.norm(right):
        raise NumericalError(f"the eigenvalue {value:.6g} is defective: its left and right eigenvectors are orthogonal")
    right, left = sizes * right, left / sizes
    # Fix the phase: the largest component is real and positive.
    top = right[np.argmax(np.abs(right))]
    right = right / np.linalg.norm(right) * (abs(top) / top)
    return Eigenpair(value, right, left / (left @ right))
