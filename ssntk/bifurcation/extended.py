"""The extended systems: equations that are regular at a bifurcation point, where those of the equilibrium are not.

- A real critical eigenvalue: f = 0, A v = s v, c.v = 1, with s = 0 at a saddle-node (Moore and Spence, 1980) and -2 / dt at
  a flip. Unknowns (x, v, p).
- A pair: f = 0, A (v + i w) = s(omega) (v + i w), c.v = 1, c.w = 0, with s = i omega at a Hopf point (Griewank and Reddien,
  1983) and (exp(i omega dt) - 1) / dt at a Neimark-Sacker point. Unknowns (x, v, w, omega, p).
- A branch point: f + b psi = 0, psi.A = 0, psi.df/dp = 0, psi.psi = 1 (Beyn et al., *Handbook of Dynamical Systems* 2,
  2002, section 4). Unknowns (x, b, psi, p); where b is not zero the branches only pass close by each other.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.bordered import Problem
from ssntk.dynamics.stability import Eigenpair, edge

BRANCH_POINT = "branch-point"
REAL, PAIR = ("saddle-node", "flip"), ("hopf", "neimark-sacker")


class Solved(NamedTuple):
    """Where Newton's iteration ended."""

    y: Any  # the unknowns
    correction: Any  # the last correction of (x, p)
    residual: Any  # before it
    jacobian: Any  # (n, n + 1): A beside df/dp
    curvature: Any  # how much A changes over a change of the state by its own size


def pack(kind: str, x: np.ndarray, parameter: float, pair: Eigenpair) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns at a guess, and the border c: `c.v = 1` and `c.w = 0` with c = Re(right)."""
    border = pair.right.real
    if kind == BRANCH_POINT:
        left = pair.left.real
        parts = [x, [0.0], left / np.linalg.norm(left), [parameter]]
    else:
        scaled = pair.right / (border @ pair.right)
        parts = [x, scaled.real, [parameter]]
        if kind in PAIR:
            parts = [x, scaled.real, scaled.imag, [0.0], [parameter]]
    return np.concatenate(parts).astype(x.dtype), border.astype(x.dtype)


def unknowns(kind: str, n: int) -> int:
    """How many there are."""
    return 3 * n + 2 if kind in PAIR else 2 * n + 2 if kind == BRANCH_POINT else 2 * n + 1


def equations(problem: Problem, kind: str, y: Array, border: Array) -> Array:
    """What the unknowns `y` leave of the extended system."""
    n, dt = border.shape[0], problem.dt
    x, p = y[:n], y[-1]
    if kind == BRANCH_POINT:
        b, psi = y[n], y[n + 1 : -1]
        velocity, pull = jax.vjp(problem.at, x, p)
        along_x, along_p = pull(psi)
        return jnp.concatenate([velocity + b * psi, along_x, jnp.stack([along_p, psi @ psi - 1])])
    velocity, push = jax.linearize(lambda x: problem.at(x, p), x)
    v = y[n : 2 * n]
    if kind in REAL:
        s = 0.0 if kind == "saddle-node" else -2.0 / (dt or 1.0)
        return jnp.concatenate([velocity, push(v) - s * v, (border @ v - 1)[None]])
    w = y[2 * n : 3 * n]
    grow, turn = edge(y[-2], dt, jnp)
    real, imaginary = push(v) - grow * v + turn * w, push(w) - grow * w - turn * v
    return jnp.concatenate([velocity, real, imaginary, jnp.stack([border @ v - 1, border @ w])])


def iterate(problem: Problem, kind: str, start: Array, border: Array) -> tuple[Array, Array, Array]:
    """Newton's iteration until (x, p) moves by rounding only: the unknowns, the last correction, the residual before it."""
    n, eps = border.shape[0], jnp.finfo(start.dtype).eps

    def system(y: Array) -> Array:
        return equations(problem, kind, y, border)

    def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        y, _, _, count = state
        residual = system(y)
        step = jnp.linalg.solve(jax.jacfwd(system)(y), -residual)
        size = jnp.maximum(jnp.abs(step[:n]).max(), jnp.abs(step[-1]))
        return y + step, size, jnp.abs(residual).max(), count + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        y, size, _, count = state
        return (size > 32 * eps * (1 + jnp.abs(y[-1]))) & (count < 20) & jnp.isfinite(y).all()

    infinite = jnp.asarray(jnp.inf, start.dtype)
    y, size, residual, _ = jax.lax.while_loop(unfinished, improve, (start, infinite, infinite, jnp.asarray(0)))
    return y, size, residual


def solve(problem: Problem, start: Array, border: Array, kind: str) -> Solved:
    """Newton's iteration from `start`, and what must be known to judge where it ended."""
    y, correction, residual = iterate(problem, kind, start, border)
    x, p = y[: border.shape[0]], y[-1]

    def jacobian(x: Array) -> Array:
        return jnp.concatenate(
            [jax.jacfwd(lambda x: problem.at(x, p))(x), jax.jacfwd(lambda p: problem.at(x, p))(p)[:, None]], 1
        )

    direction = jnp.full_like(x, jnp.maximum(jnp.abs(x).max(), 1e-3))
    here, changed = jax.jvp(jacobian, (x,), (direction,))
    return Solved(y, correction, residual, here, jnp.abs(changed[:, :-1]).sum(axis=1).max())


def constant(tree: Any) -> Any:
    """`tree` without its derivatives."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def implicit(problem: Problem, kind: str, start: Array, border: Array) -> Array:
    """The unknowns, differentiable in the problem by the implicit function theorem; NaN where the iteration fails."""
    eps = jnp.finfo(start.dtype).eps

    def root(system: Any, start: Array) -> Array:
        del system
        y, size, _ = iterate(constant(problem), kind, start, border)
        return jnp.where(size <= eps**0.6 * (1 + jnp.abs(y).max()), y, jnp.nan)

    def tangents(linear: Any, right_side: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(right_side), right_side)

    return jax.lax.custom_root(lambda y: equations(problem, kind, y, border), start, root, tangents)
