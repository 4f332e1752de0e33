"""Orbits by collocation: on each of N intervals a polynomial of degree m that satisfies the equation at the Gauss points.

Ascher, Mattheij and Russell, *Numerical Solution of Boundary Value Problems*, 1995, section 5; Doedel's AUTO made the method
standard for periodic orbits. The error at the ends of the intervals is of order 2 m. The states within an interval are
eliminated from Newton's equations, so that only the N ends are left, which `chain` joins.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.cache
def gauss(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Gauss points c (m,) in [0, 1], and the weights a (m, m) and b (m,) of the integrals from 0 to c and to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(degree)
    c = (nodes + 1) / 2
    # Integrate the Lagrange polynomials: those of degree below m are integrated exactly.
    powers = np.arange(1, degree + 1)
    vandermonde = c[:, None] ** (powers - 1)
    a = (c[:, None] ** powers / powers) @ np.linalg.inv(vandermonde)
    return c, a, weights / 2


def at_parts(degree: int, parts: np.ndarray) -> np.ndarray:
    """The weights (k, m + 1) of an interval's first state and its states at the Gauss points, for values at `parts` (k,)."""
    nodes = np.concatenate([[0.0], gauss(degree)[0]])
    weights = np.ones((len(parts), len(nodes)))
    for i, node in enumerate(nodes):
        for j, other in enumerate(nodes):
            if i != j:
                weights[:, i] *= (parts - other) / (node - other)
    return weights


def values(times: np.ndarray, mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The orbit at `times` (k,) in [0, 1): `mesh` (N + 1,), states at its points (N, n) and within intervals (N, m, n)."""
    at = np.clip(np.searchsorted(mesh, times, side="right") - 1, 0, len(mesh) - 2)
    parts = (times - mesh[at]) / np.diff(mesh)[at]
    nodes = np.concatenate([ends[:, None], inner], axis=1)
    return np.einsum("ki,kin->kn", at_parts(inner.shape[1], parts), nodes[at])


def adapted(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, count: int) -> np.ndarray:
    """A mesh (count + 1,) on which the error is the same everywhere, by the derivatives of order m + 1.

    These are differences of the derivatives of order m, which are constant on each interval.
    """
    widths, degree = np.diff(mesh), inner.shape[1]
    nodes = np.concatenate([[0.0], gauss(degree)[0]])
    highest = 1 / np.array([np.prod(node - np.delete(nodes, i)) for i, node in enumerate(nodes)])
    steep = np.einsum("i,jin->jn", highest, np.concatenate([ends[:, None], inner], axis=1)) / widths[:, None] ** degree
    apart = (widths + np.roll(widths, -1)) / 2
    bends = np.linalg.norm((np.roll(steep, -1, axis=0) - steep) / apart[:, None], axis=1)
    density = ((bends + np.roll(bends, 1)) / 2) ** (1 / (degree + 1))
    # A part of the mesh is even, so that quiet stretches keep their intervals.
    density = density + 0.1 * (density @ widths) + np.finfo(float).tiny
    total = np.concatenate([[0.0], np.cumsum(density * widths)])
    return np.interp(np.linspace(0, total[-1], count + 1), total, mesh)


def condensed(
    degree: int,
    step: Float[Array, ""],
    x: Float[Array, " n"],
    after: Float[Array, " n"],
    inner: Float[Array, "m n"],
    velocity: Float[Array, "m n"],
    slope: Float[Array, "m n n"],
    pushed: Float[Array, "m n q"],
) -> tuple[Float[Array, "n n"], Float[Array, "n r"], Float[Array, "m n k"]]:
    """An interval to first order, `first d + d_after = right w`, after the states within it are eliminated.

    The interval takes the time `step`, from x to `after`, with states `inner` at the Gauss points, and the velocity and its
    Jacobian there. The r = 2 + q columns of `right` are the residual, the effect of the logarithm of the period, and those
    of q changes of the velocity, `pushed`. The third result is how the states within follow d and w, k = n + r.
    """
    (_, a, b), dtype = gauss(degree), x.dtype
    a, b = (jnp.asarray(part, dtype) for part in (a, b))
    m, n = degree, x.shape[0]
    same = jnp.eye(n, dtype=dtype)
    matrix = jnp.eye(m * n, dtype=dtype) - (step * jnp.einsum("il,lpq->iplq", a, slope)).reshape(m * n, m * n)
    moved = step * (a @ velocity)
    plain = jnp.stack([x[None] + moved - inner, moved], axis=2)
    drive = step * jnp.einsum("il,lpq->ipq", a, pushed)
    columns = jnp.concatenate([jnp.broadcast_to(same, (m, n, n)), plain, drive], axis=2)
    inside = jnp.linalg.solve(matrix, columns.reshape(m * n, -1)).reshape(m, n, -1)
    through = step * jnp.einsum("l,lpq,lqk->pk", b, slope, inside)
    total = step * (b @ velocity)
    plain = jnp.stack([x + total - after, total], axis=1)
    right = jnp.concatenate([plain, step * jnp.einsum("l,lpq->pq", b, pushed)], axis=1) + through[:, n:]
    return -(same + through[:, :n]), right, inside
