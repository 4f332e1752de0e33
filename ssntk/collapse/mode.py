"""The critical mode of a fixed point: the eigenvalue nearest to a given one, or the fastest growing, with its vectors."""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.stability import eigenpair, state_jacobian
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock


class Mode(NamedTuple):
    """A critical mode: its eigenvalue of df/dx, its right and left eigenvectors (n,), complex, and its angular frequency.

    The fields are NumPy arrays; in compiled functions JAX arrays; and shapes while such a function is being prepared.
    """

    value: Any
    right: Any
    left: Any
    frequency: Any


def critical_mode(
    model: AbstractStateSpaceModel, x: Float[Array, " n"], u: Float[Array, " d"], near: complex | None = None
) -> Mode:
    """The mode of df/dx at x whose eigenvalue is nearest to `near`, or if `None`, the fastest growing one."""
    return mode_of(np.asarray(_jacobian(model, x, u)), model.clock, near)


def mode_of(matrix: np.ndarray, clock: AbstractClock, near: complex | None = None) -> Mode:
    """The mode of `matrix` (n, n) whose eigenvalue is nearest to `near`, or if `None`, the fastest growing one."""
    values = np.linalg.eigvals(matrix)
    if near is None:
        near = complex(values[clock.leading(values)])
    pair = eigenpair(matrix, complex(near.real, abs(near.imag)), values)
    turned = clock.frequency(pair.value)
    dtype = np.result_type(matrix.dtype, np.complex64)
    right, left = pair.right.astype(dtype), pair.left.astype(dtype)
    return Mode(dtype.type(pair.value), right, left, np.asarray(turned, matrix.dtype))


def wanted(eigenvalues: Any, clock: AbstractClock) -> complex | None:
    """The eigenvalue of df/dx that is requested. For maps the request is given as multipliers."""
    if eigenvalues is None:
        return None
    try:
        given = np.atleast_1d(np.asarray(eigenvalues, complex))
    except (TypeError, ValueError):
        given = np.zeros(0, complex)
    conjugate = given.size == 1 or (given.size == 2 and abs(given[0] - given[1].conj()) <= 1e-6 * abs(given[0]))
    if given.ndim != 1 or not conjugate or not np.isfinite(given).all():
        raise ValueError(f"eigenvalues must be one number or a pair of conjugates, got {eigenvalues!r}")
    return complex(clock.given(given[0]))


@eqx.filter_jit
def _jacobian(model: AbstractStateSpaceModel, x: Array, u: Array) -> Array:
    return state_jacobian(model, x, u)
