"""The extended systems: equations that are regular at a bifurcation point, where those of the equilibrium are not.

- A real critical eigenvalue: f = 0, A v = s v, c.v = 1, with s = 0 at a saddle-node (Moore and Spence, 1980) and -2 / dt at
  a flip. Unknowns (x, v, p).
- A pair: f = 0, A (v + i w) = s(omega) (v + i w), c.v = 1, c.w = 0, with s = i omega at a Hopf point (Griewank and Reddien,
  1983) and (exp(i omega dt) - 1) / dt at a Neimark-Sacker point. Unknowns (y, v, w, omega, q).
- A branch point: f + b psi = 0, psi.A = 0, psi.df/dq = 0, psi.psi = 1 (Beyn et al., *Handbook of Dynamical Systems* 2,
  2002, section 4). Unknowns (y, b, psi, q); where b is not zero the branches only pass close by each other.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.bordered import Problem
from ssntk.dynamics.stability import Eigenpair

BRANCH_POINT = "branch-point"
REAL, PAIR = ("saddle-node", "flip"), ("hopf", "neimark-sacker")


class Solved(NamedTuple):
    """Where Newton's iteration ended."""

    y: Any  # the unknowns
    correction: Any  # the last correction of (y, q), beside their sizes
    residual: Any  # before it, beside the terms of each equation
    jacobian: Any  # (n, n + 1): A beside df/dq
    curvature: Any  # (n, n): by how much A changes where all states change by their own sizes
    drift: Any  # (n, n): the same where the parameter does


def pack(kind: str, y: np.ndarray, q: float, pair: Eigenpair) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns at a guess, and the border c: `c.v = 1` and `c.w = 0` with c = Re(right)."""
    border = pair.right.real
    if kind == BRANCH_POINT:
        left = pair.left.real
        parts = [y, [0.0], left / np.linalg.norm(left), [q]]
    else:
        scaled = pair.right / (border @ pair.right)
        parts = [y, scaled.real, [q]]
        if kind in PAIR:
            parts = [y, scaled.real, scaled.imag, [0.0], [q]]
    return np.concatenate(parts).astype(y.dtype), border.astype(y.dtype)


def unknowns(kind: str, n: int) -> int:
    """How many there are."""
    return 3 * n + 2 if kind in PAIR else 2 * n + 2 if kind == BRANCH_POINT else 2 * n + 1


def equations(problem: Problem, kind: str, y: Array, border: Array) -> Array:
    """What the unknowns `y` leave of the extended system."""
    n, clock = border.shape[0], problem.clock
    state, q = y[:n], y[-1]
    if kind == BRANCH_POINT:
        b, psi = y[n], y[n + 1 : -1]
        velocity, pull = jax.vjp(problem.at, state, q)
        along_y, along_q = pull(psi)
        return jnp.concatenate([velocity + b * psi, along_y, jnp.stack([along_q, psi @ psi - 1])])
    velocity, push = jax.linearize(lambda state: problem.at(state, q), state)
    v = y[n : 2 * n]
    if kind in REAL:
        s = 0.0 if kind == "saddle-node" else -2.0 / clock.unit
        return jnp.concatenate([velocity, push(v) - s * v, (border @ v - 1)[None]])
    w = y[2 * n : 3 * n]
    grow, turn = clock.edge(y[-2], jnp)
    real, imaginary = push(v) - grow * v + turn * w, push(w) - grow * w - turn * v
    return jnp.concatenate([velocity, real, imaginary, jnp.stack([border @ v - 1, border @ w])])


def iterate(problem: Problem, kind: str, start: Array, border: Array) -> tuple[Array, Array, Array]:
    """Newton's iteration until (y, q) moves by rounding only: the unknowns, the last correction, the residual before it."""
    n, eps = border.shape[0], jnp.finfo(start.dtype).eps

    def system(y: Array) -> Array:
        return equations(problem, kind, y, border)

    def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        y, _, _, count = state
        residual, jacobian = system(y), jax.jacfwd(system)(y)
        # Each equation beside its own terms.
        rows = jnp.abs(jacobian).sum(axis=1)
        rows = jnp.where(rows > 0, rows, 1)
        step = jnp.linalg.solve(jacobian / rows[:, None], -residual / rows)
        size = moved(step, y, n)
        return y + step, size, jnp.abs(residual / rows).max(), count + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        y, size, _, count = state
        return (size > 32 * eps) & (count < 20) & jnp.isfinite(y).all()

    infinite = jnp.asarray(jnp.inf, start.dtype)
    y, size, residual, _ = jax.lax.while_loop(unfinished, improve, (start, infinite, infinite, jnp.asarray(0)))
    return y, size, residual


def moved(step: Array, y: Array, n: int) -> Array:
    """How far (y, q) is moved by a step of the unknowns, beside its size."""
    part = jnp.abs(step) / (1 + jnp.abs(y))
    return jnp.maximum(part[:n].max(), part[-1])


def solve(problem: Problem, start: Array, border: Array, kind: str) -> Solved:
    """Newton's iteration from `start`, and what must be known to judge where it ended."""
    y, correction, residual = iterate(problem, kind, start, border)
    n = border.shape[0]
    z = jnp.append(y[:n], y[-1])
    # No two states alike, so that symmetric terms do not cancel.
    sizes = (1 + jnp.abs(z)) * (1 + 0.3 * jnp.sin(jnp.arange(1.0, n + 2))).astype(z.dtype)
    directions = jnp.stack([sizes.at[-1].set(0), jnp.zeros_like(z).at[-1].set(sizes[-1])])
    jacobian = jax.jacfwd(problem.field)
    changed = jax.vmap(lambda direction: jax.jvp(jacobian, (z,), (direction,))[1])(directions)
    return Solved(y, correction, residual, jacobian(z), *jnp.abs(changed[:, :, :-1]))


def constant(tree: Any) -> Any:
    """`tree` without its derivatives."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def implicit(problem: Problem, kind: str, start: Array, border: Array) -> Array:
    """The unknowns, differentiable in the problem by the implicit function theorem; NaN where the iteration fails."""
    eps = jnp.finfo(start.dtype).eps

    def root(system: Any, start: Array) -> Array:
        del system
        y, size, _ = iterate(constant(problem), kind, start, border)
        return jnp.where(size <= eps**0.6, y, jnp.nan)

    def tangents(linear: Any, right_side: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(right_side), right_side)

    return jax.lax.custom_root(lambda y: equations(problem, kind, y, border), start, root, tangents)
