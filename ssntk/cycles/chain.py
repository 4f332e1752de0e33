"""Linear equations around a closed chain of points: each point is tied to the next, and the last to the first.

An orbit is cut into N segments. To first order, what a segment does is `first_j d_j + second_j d_(j+1) = right_j`, where d_j
(n,) moves the point at which it begins. Adjacent segments are joined by an orthogonal elimination of the point between them
(Wright, SIAM J. Sci. Stat. Comput. 13 (1992) 742), in pairs, until one segment is left: the whole round,
`first d_0 + second d_N = right`. Its multipliers solve `-first v = mu second v`. Unlike the product of the segments'
propagators, this keeps the digits of small multipliers beside large ones.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.nouns import AnyArray


class Round(NamedTuple):
    """`first d_0 + second d_N = right w` (n, r), for any weights w (r,) of the columns.

    `points`: all moves d_j (N, n) if the first point moves by d_0 (n,) and the last by d_N (n,), for weights w (r,).
    """

    first: Float[Array, "n n"]
    second: Float[Array, "n n"]
    right: Float[Array, "n r"]
    points: Callable[[Array, Array, Array], Array]


def joined(first: Float[Array, "N n n"], second: Float[Array, "N n n"], right: Float[Array, "N n r"]) -> Round:
    """Join all segments, whose number N is a power of two."""
    n, between = first.shape[-1], []
    while first.shape[0] > 1:
        q, r = jnp.linalg.qr(jnp.concatenate([second[::2], first[1::2]], axis=1), mode="complete")
        turned = jnp.swapaxes(q, 1, 2)
        begins, ends = turned[:, :, :n] @ first[::2], turned[:, :, n:] @ second[1::2]
        rights = turned @ jnp.concatenate([right[::2], right[1::2]], axis=1)
        # The upper half gives the point between, the lower half ties its neighbours.
        between.append(jnp.linalg.solve(r[:, :n], jnp.concatenate([begins, ends, rights], axis=2)[:, :n]))
        first, second, right = begins[:, n:], ends[:, n:], rights[:, n:]

    def points(start: Array, end: Array, weights: Array) -> Array:
        known = jnp.stack([start, end])
        for inner in reversed(between):
            middle = (
                inner[..., 2 * n :] @ weights - _each(inner[..., :n], known[:-1]) - _each(inner[..., n : 2 * n], known[1:])
            )
            pairs = jnp.stack([known[:-1], middle], axis=1)
            known = jnp.concatenate([pairs.reshape(-1, n), known[-1:]])
        return known[:-1]

    return Round(first[0], second[0], right[0], points)


def multiplied(first: Float[Array, "N n n"], right: Float[Array, "N n r"]) -> Round:
    """The same if `second` = 1, by products of the propagators: faster, for rounds without large or small multipliers."""

    def on(state: tuple[Array, Array], segment: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        product, total = state
        turned, rest = segment
        return (-turned @ product, rest - turned @ total), state

    one = jnp.eye(first.shape[-1], dtype=first.dtype)
    (product, total), (products, totals) = jax.lax.scan(on, (one, jnp.zeros_like(right[0])), (first, right))
    return Round(-product, one, total, lambda start, end, weights: products @ start + totals @ weights)


def _each(matrices: Array, vectors: Array) -> Array:
    return jnp.einsum("jpq,jq->jp", matrices, vectors)


class Multipliers(NamedTuple):
    """The Floquet multipliers (n - 1,) besides the trivial one, the largest first, their errors, and the trivial error."""

    values: np.ndarray
    errors: np.ndarray
    trivial: float


def multipliers(first: AnyArray, second: AnyArray, velocity: AnyArray) -> Multipliers:
    """The multipliers of a round whose point 0 moves with `velocity` (n,) along the orbit.

    The velocity is an eigenvector with the multiplier one. It is taken out by orthogonal transformations of the pencil, so
    that the others need not be told from it, whatever they are. How far the round is from returning it is the error of the
    discretisation: that of a multiplier is this over the cosine between its eigenvectors.
    """
    first, second, along = (np.asarray(part, float) for part in (first, second, velocity))
    n, along = len(along), along / np.linalg.norm(along)
    basis = np.linalg.qr(np.column_stack([along, np.eye(n)]))[0][:, :n]
    ends, begins = second @ basis, -first @ basis
    turned = np.linalg.qr(np.column_stack([ends[:, 0], np.eye(n)]))[0][:, :n].T
    ends, begins = turned @ ends, turned @ begins
    trivial = float(np.linalg.norm(begins[:, 0] - ends[:, 0]) / np.linalg.norm(ends[:, 0]))
    ends, begins = ends[1:, 1:], begins[1:, 1:]
    found: Any = scipy.linalg.eig(begins, ends, left=True, right=True)
    values, lefts, rights = found
    # A change E of the round changes mu by l.E r / l.(second r).
    overlap = np.abs(np.sum(lefts.conj() * (ends @ rights), axis=0))
    sizes = np.linalg.norm(lefts, axis=0) * np.linalg.norm(ends @ rights, axis=0)
    rounding = np.finfo(float).eps * (np.linalg.norm(begins) + np.abs(values) * np.linalg.norm(ends))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = (trivial * np.maximum(np.abs(values), 1.0) + rounding) * sizes / overlap
    # A multiplier that is too large for the precision is unstable, by how much is not known.
    values, errors = np.where(np.isfinite(values), values, np.inf), np.where(np.isfinite(values), errors, 0.0)
    order = np.argsort(-np.abs(values), kind="stable")
    return Multipliers(values[order], errors[order], trivial)
