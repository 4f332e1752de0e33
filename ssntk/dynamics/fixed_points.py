"""Where the network rests: every fixed point that a batched search from many random starts can reach."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ssntk.dynamics.stability import exponents, field_at, reported, state_jacobian
from ssntk.errors import NumericalError, as_array, as_count, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model, dtype_of
from ssntk.models.euler_map import step_of


@dataclasses.dataclass(frozen=True)
class FixedPoints:
    """k fixed points, the stable ones first, then by the number of unstable directions and by norm.

    `x` (k, n); `eigenvalues` (k, n) of df/dx, rightmost first, or of a map its multipliers, largest first; `residual` (k,),
    the largest |f_i|; `stable` (k,).
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    residual: np.ndarray
    stable: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def find_fixed_points(
    model: AbstractStateSpaceModel, u: Any = None, *, n_starts: int = 256, key: PRNGKeyArray | None = None
) -> FixedPoints:
    """All distinct fixed points that the search reaches, stable and unstable, for a constant input.

    Half of the starts are random at scales from 0.03 to 10, half of those relaxed along the flow first; the other half
    lie between the points that these found, where saddles are. Each is followed by a Levenberg-Marquardt iteration
    (Nocedal and Wright, *Numerical Optimization*, chapter 10) and polished by Newton's.

    **Arguments:**

    - `u`: (d,) constant input; default zero.
    - `n_starts`: how many starts, at least 2. More find more: nothing proves that all were found.
    - `key`: a `jax.random.key`; default `jax.random.key(0)`.

    Raises `ValueError` for arguments that do not fit. The result may hold no point.
    """
    check_model(model)
    u = constant_input(model, u)
    half = as_count(n_starts, "n_starts", least=2) // 2
    n, dtype = model.n_state, dtype_of(model)
    scale_key, start_key, pair_key, between_key, noise_key = jr.split(jr.key(0) if key is None else key, 5)
    scales = 10 ** jr.uniform(scale_key, (half, 1), dtype, -1.5, 1.0)
    starts = scales * jr.normal(start_key, (half, n), dtype)
    relaxed = jnp.arange(half) % 2 == 0
    found = _collect(model, u, _search(model, u, starts, relaxed))
    if len(found) == 0:
        return found
    # On the host: the number of points that were found must compile nothing.
    pairs = np.floor(np.asarray(jr.uniform(pair_key, (2, half))) * len(found)).astype(int)
    ends = jnp.asarray(found.x[pairs])
    gap = ends[1] - ends[0]
    spread = jnp.linalg.norm(gap, axis=1, keepdims=True) / np.sqrt(n)
    between = ends[0] + jr.uniform(between_key, (half, 1), dtype) * gap
    # Where only one point is known, look around it.
    spread = jnp.where(spread == 0, scales, 0.3 * spread)
    between = between + spread * jr.normal(noise_key, (half, n), dtype)
    return _collect(model, u, _search(model, u, between, jnp.zeros(half, bool)), found.x)


def constant_input(model: AbstractStateSpaceModel, u: Any) -> Float[Array, " d"]:
    """`u` (d,) in the model's dtype; zero where it is `None`."""
    u = jnp.zeros(model.n_input) if u is None else as_array(u, "u", (model.n_input,))
    return u.astype(dtype_of(model))


def check_fixed_point(model: AbstractStateSpaceModel, x_star: Any, u: Any) -> tuple[Array, Array]:
    """(x, u) in the model's dtype; `NumericalError` where f(x, u) is not zero to the square root of the precision."""
    x = as_array(x_star, "x_star", (model.n_state,)).astype(dtype_of(model))
    u = constant_input(model, u)
    if not is_traced(model, x, u):
        velocity, jacobian = (np.asarray(part) for part in _linearise(model, x[None], u))
        size = np.abs(jacobian[0]) @ (1 + np.abs(np.asarray(x)))
        if not (np.abs(velocity[0]) <= np.sqrt(np.finfo(velocity.dtype).eps) * (1e-3 + size)).all():
            raise NumericalError(
                f"x_star is not a fixed point: |f(x_star)| = {np.abs(velocity[0]).max():.3g}; "
                "refine it with find_fixed_points or continuation first"
            )
    return x, u


def refine_fixed_point(model: AbstractStateSpaceModel, x: Any, u: Any = None) -> tuple[np.ndarray, np.ndarray, float]:
    """(x*, A, residual) by Newton's iteration from near a fixed point: (n,), (n, n) and the largest |f_i|.

    Raises `NumericalError` where the iteration does not settle.
    """
    check_model(model)
    x = as_array(x, "x_star", (model.n_state,)).astype(dtype_of(model))
    settled, move, velocity, jacobian = (np.asarray(part) for part in _polish(model, x, constant_input(model, u)))
    if not np.isfinite(settled).all() or not move <= np.finfo(settled.dtype).eps ** 0.5 * (1 + np.abs(settled).max()):
        raise NumericalError(
            f"no fixed point near x_star: the last Newton correction was {float(move):.3g}, "
            f"with |f| = {np.abs(velocity).max():.3g}"
        )
    return settled, jacobian, float(np.abs(velocity).max())


@eqx.filter_jit
def _polish(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Array, Array, Array, Array]:
    """Newton's iteration until the corrections stop falling: the point, the last correction, f and A there."""

    def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, last, _, count = state
        move = -jnp.linalg.solve(state_jacobian(model, x, u), field_at(model, x, u))
        return x + move, jnp.abs(move).max(), last, count + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        x, last, before, count = state
        return (last > 0) & ((last < before / 2) | (count < 2)) & (count < 20) & jnp.isfinite(x).all()

    infinite = jnp.asarray(jnp.inf, x.dtype)
    x, move, _, _ = jax.lax.while_loop(unfinished, improve, (x, infinite, infinite, jnp.asarray(0)))
    return x, move, field_at(model, x, u), state_jacobian(model, x, u)


@eqx.filter_jit
def _linearise(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Array, Array]:
    """f (k, n) and A (k, n, n) at states (k, n)."""
    return jax.vmap(lambda x: field_at(model, x, u))(x), jax.vmap(lambda x: state_jacobian(model, x, u))(x)


@eqx.filter_jit
def _search(model: AbstractStateSpaceModel, u: Array, starts: Array, relaxed: Array) -> tuple[Array, Array, Array]:
    """From each start (k, n) the point reached, its velocity there and the last Newton correction, each (k, n)."""
    n, dtype = starts.shape[1], starts.dtype
    identity = jnp.eye(n, dtype=dtype)

    def relax(x: Array) -> Array:
        # Linearly implicit Euler with growing steps, from a tenth of the fastest time on: stable whatever the stiffness.
        first = 0.1 / jnp.maximum(jnp.abs(state_jacobian(model, x, u)).sum(1).max(), jnp.finfo(dtype).tiny)

        def move(x: Array, step: Array) -> tuple[Array, None]:
            return x + jnp.linalg.solve(identity / step - state_jacobian(model, x, u), field_at(model, x, u)), None

        return jax.lax.scan(move, x, first * 1.25 ** jnp.arange(40, dtype=dtype))[0]

    def one(x: Array, relaxed: Array) -> tuple[Array, Array, Array]:
        x = jnp.where(relaxed, relax(x), x)

        def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            x, damping, _, count = state
            velocity, jacobian = field_at(model, x, u), state_jacobian(model, x, u)
            normal = jacobian.T @ jacobian
            lift = damping * jnp.trace(normal) / n + jnp.finfo(dtype).tiny
            move = -jnp.linalg.solve(normal + lift * identity, jacobian.T @ velocity)
            better = jnp.linalg.norm(field_at(model, x + move, u)) < jnp.linalg.norm(velocity)
            size = jnp.linalg.norm(move) / (1 + jnp.linalg.norm(x))
            x = jnp.where(better, x + move, x)
            return x, jnp.where(better, damping / 10, damping * 4), jnp.where(better, size, jnp.inf), count + 1

        def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
            _, damping, size, count = state
            return (size > jnp.finfo(dtype).eps ** 0.5) & (damping < 1e8) & (count < 150)

        start = (x, jnp.asarray(1e-2, dtype), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
        x = jax.lax.while_loop(unfinished, improve, start)[0]

        def newton(x: Array, _: None) -> tuple[Array, Array]:
            move = -jnp.linalg.solve(state_jacobian(model, x, u), field_at(model, x, u))
            return x + move, move

        x, moves = jax.lax.scan(newton, x, length=4)
        return x, field_at(model, x, u), moves[-1]

    return jax.vmap(one)(starts, relaxed)


def _collect(
    model: AbstractStateSpaceModel, u: Array, reached: tuple[Array, Array, Array], known: np.ndarray | None = None
) -> FixedPoints:
    """The distinct points among those that converged, after those `known`."""
    x, velocity, move = (np.asarray(part) for part in reached)
    eps = np.finfo(x.dtype).eps
    scale = 1 + np.abs(x).max(axis=1)
    # A last correction at rounding level: an iteration stuck at a small but non-zero |f| still makes large ones.
    with np.errstate(invalid="ignore"):
        good = np.isfinite(velocity).all(axis=1) & np.isfinite(x).all(axis=1)
        good &= np.abs(move).max(axis=1) <= eps**0.6 * scale
    points: list[np.ndarray] = [] if known is None else list(known)
    for candidate in x[good]:
        if all(np.abs(candidate - other).max() > eps**0.4 * (1 + np.abs(other).max()) for other in points):
            points.append(candidate)
    n = model.n_state
    nothing = FixedPoints(np.zeros((0, n), x.dtype), np.zeros((0, n), complex), np.zeros(0, x.dtype), np.zeros(0, bool))
    if not points:
        return nothing
    unique = np.stack(points)
    # One batch size for any number of points, so that another number compiles nothing.
    padded = np.concatenate([unique, np.repeat(unique[:1], -len(unique) % 32, axis=0)])
    velocity, jacobian = (np.asarray(part)[: len(unique)] for part in _linearise(model, jnp.asarray(padded), u))
    # A small correction is no proof where numbers overflow: what is left of f must be small too, beside its terms.
    rates = np.maximum(np.abs(jacobian).max(axis=(1, 2)), np.finfo(x.dtype).tiny)[:, None]
    sizes = 1 + np.abs(unique).max(axis=1, keepdims=True)
    terms = ((np.abs(jacobian) / rates[:, :, None]) @ ((1 + np.abs(unique)) / sizes)[:, :, None])[:, :, 0]
    solved = (np.abs(velocity) / rates / sizes <= eps**0.5 * terms).all(axis=1)
    if not solved.any():
        return nothing
    unique, velocity, jacobian = unique[solved], velocity[solved], jacobian[solved]
    values = exponents(jacobian, step_of(model))
    unstable = (values.real >= 0).sum(axis=1)
    eigenvalues = reported(values, step_of(model))
    # Scaled, since the square of a large state is no number.
    order = np.lexsort((np.linalg.norm(unique / (np.abs(unique).max() or 1.0), axis=1), unstable))
    residual = np.abs(velocity).max(axis=1)
    return FixedPoints(unique[order], eigenvalues[order], residual[order], unstable[order] == 0)
