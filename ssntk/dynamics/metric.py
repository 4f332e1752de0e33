"""The metric of the states: how much one unit of each state counts in radii, spectra and shares.

The metric is as if every state were measured in units of its own scale. With D = diag(scale), the Jacobian A = df/dx becomes
D^-1 A D, and the rows J of a parameter Jacobian become D^-1 J. Eigenvalues do not change; distances, angles and spectra do.
"""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.dynamics.stability import balance
from ssntk.errors import as_array, is_traced
from ssntk.nouns import AnyArray

A = TypeVar("A", np.ndarray, Array)


def as_periods(value: object, n: int) -> np.ndarray | None:
    """Check `periods`: (n,), positive for states that are angles and zero for the others; or `None`."""
    if value is None:
        return None
    turns = np.asarray(as_array(value, "periods", (n,)))
    if (turns < 0).any():
        raise ValueError(f"periods must be positive, or zero for states that are no angles, got {turns.min():g}")
    return turns if turns.any() else None


def as_metric(scale: object, n: int) -> np.ndarray | None:
    """`scale` as one positive number for each of n states, (n,); `None`, which means ones, stays `None`.

    **Arguments:** `scale`: `None`, a positive number, or (n,) positive numbers, in units of the states.

    Raises `ValueError` for another shape, and for numbers that are traced or not positive.
    """
    if scale is None:
        return None
    if is_traced(scale):
        raise ValueError("scale must be concrete: close over it instead of passing it to jit")
    sizes = np.asarray(as_array(scale, "scale"), float)
    if sizes.shape not in ((), (n,)):
        raise ValueError(f"scale must be a number or have shape ({n},), one for each state, got {sizes.shape}")
    if not (sizes > 0).all():
        raise ValueError(f"scale must be positive, got {sizes.min():g}; give the typical size of each state")
    return np.broadcast_to(sizes, (n,)).copy()


def check_states(scale: object, of: str) -> None:
    """Raise `ValueError` if there is a `scale` but `of` is not the states: the metric does not apply to the readout."""
    if scale is not None and of != "state":
        raise ValueError(f"scale must be None with of={of!r}: it is the metric of the states, and no states are observed")


def in_metric(matrix: A, metric: np.ndarray | None) -> A:
    """D^-1 A D of matrices A (..., n, n); A itself if the metric (n,) is `None`."""
    if metric is None:
        return matrix
    return matrix * _like(matrix, metric[None, :] / metric[:, None])


def rows_in_metric(rows: A, metric: np.ndarray | None) -> A:
    """D^-1 J of rows J (..., n, p); J itself if the metric (n,) is `None`."""
    return rows if metric is None else rows / _like(rows, metric[:, None])


def _like(array: AnyArray, factors: np.ndarray) -> Any:
    """The factors in the dtype of an array, shaped to multiply its last axes."""
    factors = factors.reshape((1,) * (array.ndim - factors.ndim) + factors.shape).astype(array.dtype)
    return factors if isinstance(array, np.ndarray) else jnp.asarray(factors)


def balanced(matrix: np.ndarray) -> np.ndarray:
    """`matrix` (n, n) in the diagonal metric in which the norms of each row and its column agree, up to powers of two.

    Nearness to a singular matrix is judged in this metric, since the units of the states then do not matter (Parlett and
    Reinsch, *Numerische Mathematik* 13, 1969). States that are connected to no other keep their units.
    """
    return balance(np.asarray(matrix))[0]


def singular_to_rounding(matrix: np.ndarray) -> tuple[bool, float]:
    """Whether the smallest singular value of a balanced matrix (n, n) is at most n roundings of the largest; their ratio."""
    sizes = np.linalg.svd(balanced(matrix), compute_uv=False)
    ratio = float(sizes[-1] / sizes[0]) if sizes[0] > 0 else 0.0
    return not ratio > len(sizes) * np.finfo(sizes.dtype).eps, ratio
