"""Linear equations around a closed chain of points: each point is tied to the next, and the last to the first.

An orbit is cut into N segments. To first order, what a segment does is `first_j d_j + second_j d_(j+1) = right_j`, where d_j
(n,) moves the point at which it begins. Adjacent segments are joined by an orthogonal elimination of the point between them
(Wright, SIAM J. Sci. Stat. Comput. 13 (1992) 742), in pairs, until one segment is left: the whole round,
`first d_0 + second d_N = right`. Its multipliers solve `-first v = mu second v`. Unlike the product of the segments'
propagators, this keeps the digits of small multipliers beside large ones.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.nouns import AnyArray


class Round(eqx.Module):
    """`first d_0 + second d_N = right w` (n, r), for any weights w (r,) of the columns."""

    first: Float[Array, "n n"]
    second: Float[Array, "n n"]
    right: Float[Array, "n r"]

    @abc.abstractmethod
    def points(self, start: Array, end: Array, weights: Array) -> Array:
        """All moves d_j (N, n) if the first point moves by d_0 (n,) and the last by d_N (n,), for weights w (r,)."""


class Joined(Round):
    """`moves`: how each point follows d_0, d_N and w."""

    moves: Float[Array, "N n k"]

    def points(self, start: Array, end: Array, weights: Array) -> Array:
        return self.moves @ jnp.concatenate([start, end, weights])


class Multiplied(Round):
    """`each`: minus the propagator of each segment. `products`, `totals`: how each point follows d_0 and w."""

    each: Float[Array, "N n n"]
    products: Float[Array, "N n n"]
    totals: Float[Array, "N n r"]

    def points(self, start: Array, end: Array, weights: Array) -> Array:
        return self.products @ start + self.totals @ weights

    def renewed(self, residuals: Float[Array, "N n"]) -> "Multiplied":
        """The same for other residuals, which are the first column of `right`."""

        def on(total: Array, segment: tuple[Array, Array]) -> tuple[Array, Array]:
            turned, rest = segment
            return rest - turned @ total, total

        total, totals = jax.lax.scan(on, jnp.zeros_like(residuals[0]), (self.each, residuals))
        right, totals = self.right.at[:, 0].set(total), self.totals.at[:, :, 0].set(totals)
        return Multiplied(self.first, self.second, right, self.each, self.products, totals)


def joined(first: Float[Array, "N n n"], second: Float[Array, "N n n"], right: Float[Array, "N n r"]) -> Round:
    """Join all segments, whose number N is a power of two."""
    n, between = first.shape[-1], []
    while first.shape[0] > 1:
        q, r = jnp.linalg.qr(jnp.concatenate([second[::2], first[1::2]], axis=1), mode="complete")
        turned = jnp.swapaxes(q, 1, 2)
        begins, ends = turned[:, :, :n] @ first[::2], turned[:, :, n:] @ second[1::2]
        rights = turned @ jnp.concatenate([right[::2], right[1::2]], axis=1)
        # The upper half gives the point between, the lower half ties its neighbours.
        rest = jnp.concatenate([begins, ends, rights], axis=2)[:, :n]
        between.append(jax.scipy.linalg.solve_triangular(r[:, :n], rest))
        first, second, right = begins[:, n:], ends[:, n:], rights[:, n:]

    # From the whole round back to its parts.
    columns = 2 * n + right.shape[2]
    known = jnp.eye(2 * n, columns, dtype=first.dtype).reshape(2, n, columns)
    for inner in reversed(between):
        middle = -inner[..., :n] @ known[:-1] - inner[..., n : 2 * n] @ known[1:]
        pairs = jnp.stack([known[:-1], middle.at[..., 2 * n :].add(inner[..., 2 * n :])], axis=1)
        known = jnp.concatenate([pairs.reshape(-1, n, columns), known[-1:]])
    return Joined(first[0], second[0], right[0], known[:-1])


def multiplied(first: Float[Array, "N n n"], right: Float[Array, "N n r"]) -> Round:
    """The same if `second` = 1, by products of the propagators: faster, for rounds without large or small multipliers."""

    def on(state: tuple[Array, Array], segment: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        product, total = state
        turned, rest = segment
        return (-turned @ product, rest - turned @ total), state

    one = jnp.eye(first.shape[-1], dtype=first.dtype)
    (product, total), (products, totals) = jax.lax.scan(on, (one, jnp.zeros_like(right[0])), (first, right))
    return Multiplied(-product, one, total, first, products, totals)


class Multipliers(NamedTuple):
    """The Floquet multipliers (n - 1,) besides the trivial one, the largest first, their errors, and the trivial error."""

    values: np.ndarray
    errors: np.ndarray
    trivial: float


def multipliers(first: AnyArray, second: AnyArray, velocity: AnyArray, outside: AnyArray | None = None) -> Multipliers:
    """The multipliers of a round whose point 0 moves with `velocity` (n,) along the orbit. `outside` (m, n): what the round
    does besides, if it is known in n of m directions only.

    The velocity is an eigenvector with the multiplier one. It is taken out by orthogonal transformations of the pencil, so
    that the others need not be told from it, whatever they are. How far the round is from returning it is the error of the
    discretisation: that of a multiplier is this over the cosine between its eigenvectors.
    """
    first, second, along = (np.asarray(part, float) for part in (first, second, velocity))
    basis = _reflection(along)
    begins = -first @ basis
    # Shooting gives second = 1: then the eigenvalues are those of a matrix, which costs a fifth of those of a pencil.
    plain = np.array_equal(second, np.eye(len(along)))
    turned = basis if plain else _reflection(second @ basis[:, 0])
    ends = np.eye(len(along)) if plain else turned @ second @ basis
    begins = turned @ begins
    trivial = float(np.linalg.norm(begins[:, 0] - ends[:, 0]) / np.linalg.norm(ends[:, 0]))
    ends, begins = ends[1:, 1:], begins[1:, 1:]
    values, lefts, rights = _eigenpairs(begins, None if plain else ends)
    # A change E of the round changes mu by l.E r / l.(second r).
    images = rights if plain else ends @ rights
    overlap = np.abs(np.sum(lefts.conj() * images, axis=0))
    sizes = np.linalg.norm(lefts, axis=0) * np.linalg.norm(images, axis=0)
    rounding = np.finfo(float).eps * (np.linalg.norm(begins) + np.abs(values) * np.linalg.norm(ends))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = (trivial * np.maximum(np.abs(values), 1.0) + rounding) * sizes / overlap
    # A multiplier that is too large for the precision is unstable, by how much is not known.
    values, errors = np.where(np.isfinite(values), values, np.inf), np.where(np.isfinite(values), errors, 0.0)
    if outside is not None:
        # What leads out of the directions is a change of the round, too.
        leads = np.linalg.norm((np.asarray(outside, float) @ basis)[:, 1:] @ rights, axis=0)
        errors = errors + leads * np.linalg.norm(lefts, axis=0) / overlap
    order = np.argsort(-np.abs(values), kind="stable")
    return Multipliers(values[order], errors[order], trivial)


def _reflection(x: np.ndarray) -> np.ndarray:
    """The reflection (n, n) that takes a vector (n,) to the first axis, and the first axis to its direction."""
    normal = x / np.linalg.norm(x)
    normal[0] += np.copysign(1.0, normal[0])
    return np.eye(len(x)) - np.outer(normal, normal) * (2 / (normal @ normal))


def _eigenpairs(matrix: np.ndarray, other: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The eigenvalues of a matrix or a pencil, and its left and right eigenvectors."""
    if len(matrix) == 1:
        one = np.ones((1, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (matrix[0] if other is None else matrix[0] / other[0]).astype(complex), one, one
    found: Any = scipy.linalg.eig(matrix, other, left=True, right=True)
    return found
