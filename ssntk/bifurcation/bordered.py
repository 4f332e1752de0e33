"""The bordered system of a branch: one compiled corrector that continuation, detection and sweeps share.

A point is z = (x, q), where q = (p - p0) / (p1 - p0) runs over the span. Lengths along the branch are measured by
`|dz|^2 = mean(dx^2) + dq^2`, so that a step means the same for any number of units and any span.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.bifurcation.family import Family
from ssntk.dynamics.stability import field_at, sorted_eigenvalues


class Problem(eqx.Module):
    """`f(x; p0 + q (p1 - p0)) = 0` under the constant input `u` (d,)."""

    family: Family
    u: Float[Array, " d"]
    p0: Float[Array, ""]
    p1: Float[Array, ""]

    def parameter(self, q: Any) -> Any:
        """p at this q."""
        return self.p0 + q * (self.p1 - self.p0)

    def field(self, z: Float[Array, " n1"]) -> Float[Array, " n"]:
        """f at a point of the branch."""
        return field_at(self.family(self.parameter(z[-1])), z[:-1], self.u)

    def eigenvalues(self, z: Float[Array, " n1"]) -> np.ndarray:
        """The eigenvalues (n,) of df/dx at a point of the branch."""
        return sorted_eigenvalues(_jacobian(self, z)[:, :-1])


@eqx.filter_jit
def _jacobian(problem: Problem, z: Array) -> Array:
    return jax.jacfwd(problem.field)(z)


class Corrected(NamedTuple):
    """A point on the branch and what was learned on the way."""

    z: Array  # (n + 1,)
    tangent: Array  # (n + 1,), unit in the metric, along the border it was given
    jacobian: Array  # (n, n + 1), of f at z: A beside df/dq
    turn: Array  # sign of the bordered determinant, oriented by the tangent: flips at a branch point, not at a fold
    correction: Array  # size of the last Newton correction, in the metric
    iterations: Array
    converged: Array


def metric(n: int, dtype: Any) -> Array:
    """The diagonal (n + 1,) of the inner product of points."""
    return jnp.concatenate([jnp.full(n, 1 / n, dtype), jnp.ones(1, dtype)])


def correct(problem: Problem, guess: Array, border: Array, limit: int = 8) -> Corrected:
    """Newton's iteration on f(z) = 0 with <border, z - guess> = 0, at most `limit` corrections."""
    n = guess.shape[0] - 1
    weight = metric(n, guess.dtype)
    eps = jnp.finfo(guess.dtype).eps
    last = jnp.zeros(n + 1, guess.dtype).at[-1].set(1)

    def bordered(z: Array) -> tuple[Array, Array]:
        jacobian = jax.jacfwd(problem.field)(z)
        return jacobian, jnp.concatenate([jacobian, (weight * border)[None]])

    def size(step: Array, z: Array) -> Array:
        return jnp.sqrt(jnp.sum(weight * step**2)) / (1 + jnp.sqrt(jnp.sum(weight * z**2)))

    def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, _, count = state
        _, matrix = bordered(z)
        off = jnp.concatenate([problem.field(z), jnp.sum(weight * border * (z - guess))[None]])
        step = jnp.linalg.solve(matrix, -off)
        return z + step, size(step, z), count + 1

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        z, correction, count = state
        # A correction of 1e-6 leaves, by quadratic convergence, an error near rounding.
        return (correction > eps**0.4) & (count < limit) & jnp.isfinite(z).all()

    start = (guess, jnp.asarray(jnp.inf, guess.dtype), jnp.asarray(0))
    z, _, count = jax.lax.while_loop(unfinished, improve, start)
    # One more correction shares its factorisation with the tangent.
    jacobian, matrix = bordered(z)
    off = jnp.concatenate([problem.field(z), jnp.zeros(1, z.dtype)])
    factors, pivots = jax.scipy.linalg.lu_factor(matrix)
    both = jax.scipy.linalg.lu_solve((factors, pivots), jnp.stack([-off, last], axis=1))
    step, tangent = both[:, 0], both[:, 1]
    tangent = tangent / jnp.sqrt(jnp.sum(weight * tangent**2))
    swaps = jnp.sum(pivots != jnp.arange(n + 1, dtype=pivots.dtype))
    turn = jnp.prod(jnp.sign(jnp.diagonal(factors))) * jnp.where(swaps % 2 == 0, 1, -1)
    correction = size(step, z)
    z = z + step
    # A small correction is no proof where the state itself is small: what is left of f must be too.
    left, size_of_terms = problem.field(z), jnp.abs(jacobian[:, :-1]) @ jnp.abs(z[:-1]) + jnp.abs(jacobian[:, -1])
    solved = jnp.all(jnp.abs(left) <= eps**0.5 * size_of_terms.max())
    good = jnp.isfinite(z).all() & jnp.isfinite(tangent).all() & (correction <= eps**0.4) & solved
    return Corrected(z, tangent, jacobian, turn, correction, count, good)


correct_once = eqx.filter_jit(correct)


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """The inner product of two steps (n + 1,)."""
    return float(np.mean(a[:-1] * b[:-1]) + a[-1] * b[-1])


def length(step: np.ndarray) -> float:
    """The length of a step (n + 1,) in the metric."""
    return float(np.sqrt(inner(step, step)))


def interpolate(
    z0: np.ndarray, tangent0: np.ndarray, z1: np.ndarray, tangent1: np.ndarray, part: float
) -> tuple[np.ndarray, np.ndarray]:
    """The cubic Hermite interpolant between two points of a branch at the fraction `part`, and its unit direction."""
    chord, gap = z1 - z0, length(z1 - z0)
    start, end = tangent0 * gap, tangent1 * gap
    square, cube = 3 * chord - 2 * start - end, start + end - 2 * chord
    direction = start + part * (2 * square + part * 3 * cube)
    return z0 + part * (start + part * (square + part * cube)), direction / length(direction)
