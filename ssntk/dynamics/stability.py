"""Linear stability: the Jacobian of the vector field, its eigenvalues and its eigenpairs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel


def field_at(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, " n"]:
    """f(x) at time zero: the models that are analysed for equilibria do not depend on time."""
    return model.vector_field(jnp.zeros((), x.dtype), x, u)


def state_jacobian(model: AbstractStateSpaceModel, x: Array, u: Array) -> Float[Array, "n n"]:
    """A = df/dx."""
    return jax.jacfwd(lambda x: field_at(model, x, u))(x)


def sorted_eigenvalues(matrices: Any) -> np.ndarray:
    """The eigenvalues (..., n) of matrices (..., n, n), the rightmost first, and of a pair the one above the axis first.

    Computed on the host, where LAPACK is: JAX has nonsymmetric eigenvalues on the CPU alone.
    """
    values = np.linalg.eigvals(np.asarray(matrices)).astype(complex)
    order = np.lexsort((-values.imag, -values.real), axis=-1)
    return np.take_along_axis(values, order, axis=-1)


def multipliers(matrices: Any, dt: float) -> np.ndarray:
    """The multipliers (..., n) of the Euler map with step `dt` where df/dx is `matrices` (..., n, n), the largest first."""
    values = 1 + dt * sorted_eigenvalues(matrices)
    return np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1, kind="stable"), axis=-1)


class Eigenpair(NamedTuple):
    """`A r = value r`, `left^T A = value left^T`, `|right| = 1` and `left^T right = 1` (not conjugated)."""

    value: complex
    right: np.ndarray
    left: np.ndarray


def eigenpair(matrix: Any, near: complex | float) -> Eigenpair:
    """The eigenpair of `matrix` (n, n) whose eigenvalue lies nearest to `near`; real vectors for a real eigenvalue.

    Raises `NumericalError` where the eigenvalue is defective, so that `left^T right` vanishes.
    """
    matrix = np.asarray(matrix)
    parts: Any = scipy.linalg.eig(matrix, left=True, right=True)
    values, lefts, rights = parts
    at = int(np.argmin(np.abs(values - near)))
    value, right, left = complex(values[at]), rights[:, at], lefts[:, at].conj()
    if value.imag == 0:
        right, left = right.real, left.real
    # Fix the phase: the largest component is real and positive.
    top = right[np.argmax(np.abs(right))]
    right = right / np.linalg.norm(right) * (abs(top) / top)
    product = left @ right
    if abs(product) < 10 * np.finfo(matrix.dtype).eps * np.linalg.norm(left):
        raise NumericalError(f"the eigenvalue {value:.6g} is defective: its left and right eigenvectors are orthogonal")
    return Eigenpair(value, right, left / product)
