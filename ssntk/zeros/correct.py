"""The corrector of continuation, detection and sweeps: Newton's iteration in the plane normal to a direction."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.newton import newton
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros, metric
from ssntk.zeros.stack import Members, Stack, each


class Corrected(NamedTuple):
    """A corrected point of a branch with its by-products, traced or as numpy arrays with a leading axis."""

    z: Any  # (N + 1,)
    tangent: Any  # (N + 1,), unit in the metric, oriented along the given border
    matrix: Any  # (n, n), whose eigenvalues decide stability
    turn: Any  # sign of the bordered determinant, oriented by the tangent: flips at a branch point, not at a fold
    correction: Any  # size of the last Newton correction, in the metric
    iterations: Any
    converged: Any


def correct(zeros: AbstractZeros, guess: Array, border: Array, limit: int = 8, weight: Array | None = None) -> Corrected:
    """Newton's iteration on F(z) = 0 with <border, z - guess> = 0, for `guess` and `border` (N + 1,).

    `limit`: the largest number of corrections. `weight`: the diagonal (N + 1,) of an inner product with which lengths are
    measured instead of the metric.
    """
    count = guess.shape[0]
    weight = metric(zeros.size, guess.dtype) if weight is None else weight
    along, eps = weight * border, jnp.finfo(guess.dtype).eps
    last = jnp.zeros(count, guess.dtype).at[-1].set(1)

    def size(step: Array, z: Array) -> Array:
        return jnp.sqrt(jnp.sum(weight * step**2)) / (1 + jnp.sqrt(jnp.sum(weight * z**2)))

    def improve(z: Array) -> tuple[Array, ...]:
        residual, jacobian = zeros.linearised(z)
        off = jnp.append(residual, jnp.sum(along * (z - guess)))
        # The tangent shares the factorisation. Only that of the last correction is used.
        both, turn = zeros.solve(jacobian, along, jnp.stack([-off, last], axis=1))
        return both[:, 0], size(both[:, 0], z), jnp.zeros((), z.dtype), both[:, 1], turn, jacobian

    # After a correction below 1e-6 (in float64) the error is near rounding, by quadratic convergence. One more is made, for
    # the tangent.
    nothing = jnp.zeros_like(guess), jnp.zeros((), guess.dtype), jnp.zeros((zeros.size, count), guess.dtype)
    found = newton(improve, guess, lambda move, before, steps: before > eps**0.4, limit + 1, nothing)
    z, correction, (tangent, turn, jacobian) = found.x, found.size, found.kept
    z = jnp.where(jnp.isfinite(z).all(), z, jnp.nan)
    tangent = tangent / jnp.sqrt(jnp.sum(weight * tangent**2))
    # A small correction proves nothing if the state itself is small: F must be small too, in every row.
    left, terms = zeros.residual(z), jnp.abs(jacobian[:, :-1]) @ (1 + jnp.abs(z[:-1])) + jnp.abs(jacobian[:, -1])
    solved = jnp.all(jnp.abs(left) <= eps**0.5 * terms)
    good = jnp.isfinite(z).all() & jnp.isfinite(tangent).all() & (correction <= eps**0.4) & solved
    return Corrected(z, tangent, zeros.stability(z, jacobian), turn, correction, jnp.maximum(found.steps - 1, 0), good)


corrected: Callable[..., Corrected] = each(correct)


def corrected_at(stack: Stack, members: Members, y: np.ndarray, q: Sequence[HostReal] | np.ndarray) -> Corrected:
    """The equilibria near `y` (k, n) at exactly these q (k,), as numpy arrays."""
    guess = np.concatenate([y, np.asarray(q, np.asarray(y).dtype)[:, None]], axis=1)
    border = np.zeros_like(guess)
    border[:, -1] = 1
    return corrected(stack, members, guess, border)


def inner(a: np.ndarray, b: np.ndarray) -> Any:
    """The inner products (...) of steps (..., n + 1)."""
    return np.mean(a[..., :-1] * b[..., :-1], axis=-1) + a[..., -1] * b[..., -1]


def length(step: np.ndarray) -> Any:
    """The lengths (...) of steps (..., n + 1) in the metric."""
    return np.sqrt(inner(step, step))


def interpolate(
    z0: np.ndarray, tangent0: np.ndarray, z1: np.ndarray, tangent1: np.ndarray, part: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cubic Hermite interpolant (..., n + 1) between two points of a branch at the fraction `part`, and its unit
    direction."""
    chord, gap = z1 - z0, length(z1 - z0)[..., None]
    start, end = tangent0 * gap, tangent1 * gap
    square, cube = 3 * chord - 2 * start - end, start + end - 2 * chord
    direction = start + part * (2 * square + part * 3 * cube)
    return z0 + part * (start + part * (square + part * cube)), direction / length(direction)[..., None]
