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


def field_at(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, " n"]:
    """f(x) at time zero: the models that are analysed for equilibria do not depend on time."""
    return model.vector_field(jnp.zeros((), x.dtype), x, u)


def state_jacobian(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, "n n"]:
    """A = df/dx."""
    return jax.jacfwd(lambda x: field_at(model, x, u))(x)


@eqx.filter_jit
def linearised(model: AbstractStateSpaceModel, x: Any, u: Array) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """f and A at a state, compiled."""
    return field_at(model, x, u), state_jacobian(model, x, u)


def sorted_eigenvalues(matrices: Any) -> np.ndarray:
    """The eigenvalues (..., n) of matrices (..., n, n), the rightmost first, and of a pair the one above the axis first.

    Computed on the host, where LAPACK is: JAX has nonsymmetric eigenvalues on the CPU alone.
    """
    values = np.linalg.eigvals(np.asarray(matrices)).astype(complex)
    order = np.lexsort((-values.imag, -values.real), axis=-1)
    return np.take_along_axis(values, order, axis=-1)


def exponents(matrices: Any, clock: AbstractClock) -> np.ndarray:
    """The growth exponents (..., n) if df/dx is `matrices` (..., n, n), the fastest growing first."""
    return clock.growth(sorted_eigenvalues(matrices))


def judged_exponents(matrices: Any, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
    """The growth exponents (..., n) as [`exponents`][] gives them, and for each how far rounding may have moved it.

    That is the backward error of the eigenvalue solver on the balanced matrix times the eigenvalue's own condition number
    |l||r| / |l.r| (Golub and Van Loan, *Matrix Computations*, section 7.2.2). It is worked out for those near the edge of
    stability; of the others the condition number counts as one.
    """
    matrices = np.asarray(matrices)
    found = exponents(matrices, clock)
    flat, values = matrices.reshape(-1, *matrices.shape[-2:]), found.reshape(-1, matrices.shape[-1])
    doubts = np.zeros(values.shape)
    unit = ROUNDINGS * np.finfo(matrices.dtype).eps
    sizes = np.linalg.norm(flat, axis=(1, 2))
    doubts += unit * sizes[:, None]
    for i in np.flatnonzero((np.abs(values.real) <= NEAR_EDGE * sizes[:, None]).any(axis=1)):
        if np.isfinite(flat[i]).all():
            doubts[i] = _doubts(flat[i], values[i], clock)
    return found, doubts.reshape(found.shape)


# The share of a matrix's norm within which an eigenvalue counts as near the edge.
NEAR_EDGE = 1e-7
# What the backward error of the eigenvalue solver amounts to, in roundings of the balanced matrix's norm.
ROUNDINGS = 32


def balance(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (n, n) in units in which its rows and columns are as large, and these units (n,), powers of 2."""
    # SciPy casts sizes that may be permutations to integers, and warns where they are too large.
    with np.errstate(invalid="ignore"):
        found: Any = scipy.linalg.matrix_balance(matrix.astype(float), permute=False, separate=True)
    return found[0], found[1][0]


def _doubts(matrix: np.ndarray, values: np.ndarray, clock: AbstractClock) -> np.ndarray:
    """How far rounding may have moved each of the exponents `values` (n,) of one matrix (n, n)."""
    balanced, _ = balance(matrix)
    parts: Any = scipy.linalg.eig(balanced, left=True, right=True)
    every, lefts, rights = parts
    # Columns have length one.
    overlap = np.abs((lefts.conj() * rights).sum(axis=0))
    unit = ROUNDINGS * np.finfo(matrix.dtype).eps * float(np.linalg.norm(balanced))
    with np.errstate(divide="ignore"):
        doubts = np.minimum(unit / overlap, np.sqrt(unit * max(float(np.linalg.norm(balanced)), unit)))
    every = clock.growth(every, sort=False)
    return doubts[np.abs(values[:, None] - every[None, :]).argmin(axis=1)]


class Eigenpair(NamedTuple):
    """`A r = value r`, `left^T A = value left^T`, `|right| = 1` and `left^T right = 1` (not conjugated)."""

    value: complex
    right: np.ndarray
    left: np.ndarray


def eigenpair(matrix: Any, near: complex | float, values: np.ndarray | None = None) -> Eigenpair:
    """The eigenpair of `matrix` (n, n) whose eigenvalue lies nearest to `near`; real vectors for a real eigenvalue.

    `values`: all its eigenvalues, where they are known.

    Raises `NumericalError` where the eigenvalue is defective, so that `left^T right` vanishes.
    """
    matrix = np.asarray(matrix)
    values = np.linalg.eigvals(matrix) if values is None else values
    value = complex(values[np.argmin(np.abs(values - near))])
    # Balanced, so that states of unlike units weigh alike where near vectors are told apart.
    balanced, sizes = balance(matrix)
    # The null vectors of A - value, from one singular value decomposition: a tenth of the cost of all eigenvectors.
    shifted = balanced - (value.real if value.imag == 0 else value) * np.eye(len(matrix), dtype=matrix.dtype)
    lefts, _, rights = np.linalg.svd(shifted)
    right, left = rights[-1].conj(), lefts[:, -1].conj()
    if abs(left @ right) < 1e-6:
        # Nearly repeated eigenvalues share a null space, in which the singular vectors are no pair.
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
