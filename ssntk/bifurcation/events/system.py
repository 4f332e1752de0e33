"""Newton's iteration on an event's extended system: equations that are regular at the event, where the branch's are not."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ssntk.newton import newton
from ssntk.zeros.base import AbstractZeros

# The residual of the extended system: (zeros, unknowns (m,), border (N,)) -> (m,). The border fixes the eigenvectors.
Equations = Callable[[AbstractZeros, Array, Array], Array]


T = TypeVar("T")


class Solved(NamedTuple):
    """The end of the iteration, traced or as numpy arrays."""

    y: Any  # the unknowns; the state is first and q last
    correction: Any  # the last correction of (state, q), relative to their sizes
    residual: Any  # the residual before it, relative to the terms of each equation
    jacobian: Any  # (N, N + 1): A and df/dq side by side
    curvature: Any  # (N, N): the change of A if all states change by their own sizes
    drift: Any  # (N, N): the change of A if the parameter changes by its size


def iterate(equations: Equations, zeros: AbstractZeros, start: Array, border: Array) -> tuple[Array, Array, Array]:
    """Newton's iteration until (state, q) moves by rounding only: the unknowns, the last correction, the residual before."""
    n, eps = border.shape[0], jnp.finfo(start.dtype).eps

    def system(y: Array) -> Array:
        return equations(zeros, y, border)

    def improve(y: Array) -> tuple[Array, Array, Array]:
        residual, jacobian = system(y), jax.jacfwd(system)(y)
        # Scale each equation by the size of its terms.
        rows = jnp.abs(jacobian).sum(axis=1)
        rows = jnp.where(rows > 0, rows, 1)
        step = jnp.linalg.solve(jacobian / rows[:, None], -residual / rows)
        part = jnp.abs(step) / (1 + jnp.abs(y))
        return step, jnp.maximum(part[:n].max(), part[-1]), jnp.abs(residual / rows).max()

    found = newton(improve, start, lambda size, before, steps: size > 32 * eps)
    return found.x, found.size, found.left


def solve(zeros: AbstractZeros, start: Array, border: Array, equations: Equations) -> Solved:
    """Newton's iteration from `start` (m,), and the numbers with which its end is judged."""
    y, correction, residual = iterate(equations, zeros, start, border)
    n = border.shape[0]
    z = jnp.append(y[:n], y[-1])
    # Change each state by a different amount, so that symmetric terms do not cancel.
    sizes = (1 + jnp.abs(z)) * (1 + 0.3 * jnp.sin(jnp.arange(1.0, n + 2))).astype(z.dtype)
    directions = jnp.stack([sizes.at[-1].set(0), jnp.zeros_like(z).at[-1].set(sizes[-1])])
    changed = jax.vmap(lambda direction: jax.jvp(zeros.jacobian, (z,), (direction,))[1])(directions)
    return Solved(y, correction, residual, zeros.jacobian(z), *jnp.abs(changed[:, :, :-1]))


def constant(tree: T) -> T:
    """`tree` without its derivatives."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def implicit(equations: Equations, zeros: AbstractZeros, start: Array, border: Array) -> Array:
    """The unknowns (m,), differentiable in the zeros by the implicit function theorem; NaN if the iteration fails."""
    eps = jnp.finfo(start.dtype).eps

    def root(system: Callable[[Array], Array], start: Array) -> Array:
        del system
        y, size, _ = iterate(equations, constant(zeros), start, border)
        return jnp.where(size <= eps**0.6, y, jnp.nan)

    def tangents(linear: Callable[[Array], Array], right_side: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(right_side), right_side)

    return jax.lax.custom_root(lambda y: equations(zeros, y, border), start, root, tangents)
