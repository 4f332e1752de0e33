"""Where the network rests: every fixed point that a batched search from many random starts can reach."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.stability import exponents, field_at, reported, state_jacobian
from ssntk.errors import NumericalError, as_array, as_count, as_key, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model, dtype_of
from ssntk.models.euler_map import step_of

# Starts that are followed side by side, times the square of the units.
TOGETHER = 2**13
# States that are linearised in one call.
BATCH = 32


@dataclasses.dataclass(frozen=True)
class SlowPoints:
    """j states at which the network almost rests: minima of the speed |f| above zero (Sussillo and Barak, 2013).

    `x` (j, n), the slowest first; `speed` (j,), |f| in units of state over time; `eigenvalues` (j, n) of df/dx, or of a map
    its multipliers; `hits` (j,), how many starts ended there. df/dx is singular at each: a fold is near.
    """

    x: np.ndarray
    speed: np.ndarray
    eigenvalues: np.ndarray
    hits: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclasses.dataclass(frozen=True)
class FixedPoints:
    """k fixed points, the stable ones first, then by the number of unstable directions and by norm.

    `x` (k, n); `eigenvalues` (k, n) of df/dx, rightmost first, or of a map its multipliers, largest first; `residual` (k,),
    the largest |f_i|; `stable` (k,); `hits` (k,), how many starts ended there; `slow`: minima of the speed that are none.
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    residual: np.ndarray
    stable: np.ndarray
    hits: np.ndarray
    slow: SlowPoints

    def __len__(self) -> int:
        return len(self.x)

    @property
    def coverage(self) -> float:
        """The estimated chance that one more start would end at a point that is known: `1 - f1 / N` of N starts, f1 of
        which were alone at their point (Good, 1953). NaN where no start ended at a fixed point."""
        return float(1 - (self.hits == 1).sum() / self.hits.sum()) if self.hits.sum() else float("nan")

    @property
    def unseen(self) -> float:
        """A lower estimate of how many fixed points were not seen: `f1 (f1 - 1) / (2 (f2 + 1))` with f1 points hit once and
        f2 hit twice (Chao, 1984). Points whose basins the starts hardly meet escape any such estimate."""
        once, twice = ((self.hits == times).sum() for times in (1, 2))
        return float(once * (once - 1) / (2 * (twice + 1)))


def find_fixed_points(
    model: AbstractStateSpaceModel, u: Any = None, *, n_starts: int = 256, starts: Any = None, key: Any = None
) -> FixedPoints:
    """All distinct fixed points that the search reaches, stable and unstable, for a constant input.

    Half of the starts are random at scales from 0.03 to 10, half of those relaxed along the flow first; the other half
    lie between the points that these found, where saddles are. Each is followed by a Levenberg-Marquardt iteration
    (Nocedal and Wright, *Numerical Optimization*, chapter 10) and polished by Newton's. Where that iteration settles without
    coming to rest, the minimum of the speed is solved for and returned apart, in `slow`.

    **Arguments:**

    - `u`: (d,) constant input; default zero.
    - `n_starts`: how many starts, at least 2. More find more: nothing proves that all were found, but `hits`, `coverage` and
      `unseen` of the result say how likely it is.
    - `starts`: (k, n) states from which alone to search, such as the fixed points of a network that was a little different;
      `n_starts` and `key` count for nothing then. As many starts as before compile nothing.
    - `key`: a `jax.random.key`; default `jax.random.key(0)`.

    Raises `ValueError` for arguments that do not fit. The result may hold no point.
    """
    check_model(model)
    u = constant_input(model, u)
    if starts is not None:
        given = as_array(starts, "starts", ("k", model.n_state)).astype(dtype_of(model))
        if len(given) == 0:
            raise ValueError("starts must hold at least one state")
        reached = _search(model, u, given, None)
        return _collect(model, u, _Reached(*(np.asarray(part) for part in reached)))
    half = as_count(n_starts, "n_starts", least=2) // 2
    n, dtype = model.n_state, dtype_of(model)
    scale_key, start_key, pair_key, between_key, noise_key = jr.split(as_key(key), 5)
    scales = 10 ** jr.uniform(scale_key, (half, 1), dtype, -1.5, 1.0)
    starts = scales * jr.normal(start_key, (half, n), dtype)
    relaxed = jnp.arange(half) % 2 == 0
    first = _Reached(*(np.asarray(part) for part in _search(model, u, starts, relaxed)))
    found = _collect(model, u, first)
    if len(found) == 0:
        return found
    # On the host: the number of points that were found must compile nothing.
    pairs = np.floor(np.asarray(jr.uniform(pair_key, (2, half))) * len(found)).astype(int)
    ends = jax.device_put(found.x[pairs])
    gap = ends[1] - ends[0]
    spread = jnp.linalg.norm(gap, axis=1, keepdims=True) / n**0.5
    between = ends[0] + jr.uniform(between_key, (half, 1), dtype) * gap
    # Where only one point is known, look around it.
    spread = jnp.where(spread == 0, scales, 0.3 * spread)
    between = between + spread * jr.normal(noise_key, (half, n), dtype)
    second = _search(model, u, between, jnp.zeros(half, bool))
    return _collect(
        model, u, _Reached(*(np.concatenate(parts) for parts in zip(first, map(np.asarray, second), strict=True)))
    )


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
    settled, move, velocity, jacobian = (np.asarray(part) for part in polish(model, x, constant_input(model, u)))
    check_settled(settled, move, velocity)
    return settled, jacobian, float(np.abs(velocity).max())


def check_settled(settled: np.ndarray, move: Any, velocity: np.ndarray) -> None:
    """`NumericalError` unless the iteration of [`polish`][] came to rest."""
    if not np.isfinite(settled).all() or not move <= np.finfo(settled.dtype).eps ** 0.5 * (1 + np.abs(settled).max()):
        raise NumericalError(
            f"no fixed point near x_star: the last Newton correction was {float(move):.3g}, "
            f"with |f| = {np.abs(velocity).max():.3g}"
        )


@eqx.filter_jit
def polish(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Array, Array, Array, Array]:
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
def _linearise(model: AbstractStateSpaceModel, x: Any, u: Array) -> tuple[Array, Array]:
    """f (k, n) and A (k, n, n) at states (k, n)."""
    return jax.vmap(lambda x: field_at(model, x, u))(x), jax.vmap(lambda x: state_jacobian(model, x, u))(x)


class _Reached(NamedTuple):
    """Where k starts ended: the point after Newton's steps, its velocity and the last of them; the state before these."""

    x: Any
    velocity: Any
    move: Any
    settled: Any


@eqx.filter_jit
def _search(model: AbstractStateSpaceModel, u: Array, starts: Array, relaxed: Array | None) -> _Reached:
    """Where each start (k, n) leads; `None`: from none of them along the flow first, which costs more than the rest."""
    n, dtype = starts.shape[1], starts.dtype
    identity, tiny = jnp.eye(n, dtype=dtype), jnp.finfo(dtype).tiny

    def relax(x: Array) -> Array:
        # Linearly implicit Euler with growing steps, from a tenth of the fastest time on: stable whatever the stiffness.
        first = 0.1 / jnp.maximum(jnp.abs(state_jacobian(model, x, u)).sum(1).max(), tiny)

        def move(x: Array, step: Array) -> tuple[Array, None]:
            return x + jnp.linalg.solve(identity / step - state_jacobian(model, x, u), field_at(model, x, u)), None

        return jax.lax.scan(move, x, first * 1.25 ** jnp.arange(40, dtype=dtype))[0]

    def one(start: tuple[Array, Array | None]) -> _Reached:
        x = start[0] if start[1] is None else jax.lax.cond(start[1], relax, lambda x: x, start[0])

        def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            x, damping, _, count = state
            velocity, jacobian = field_at(model, x, u), state_jacobian(model, x, u)
            normal, gradient = jacobian.T @ jacobian, jacobian.T @ velocity
            lift = damping * jnp.trace(normal) / n + tiny
            move = -jax.scipy.linalg.solve(normal + lift * identity, gradient, assume_a="pos")
            better = jnp.linalg.norm(field_at(model, x + move, u)) < jnp.linalg.norm(velocity)
            size = jnp.linalg.norm(move) / (1 + jnp.linalg.norm(x))
            x = jnp.where(better, x + move, x)
            return x, jnp.where(better, damping / 10, damping * 4), jnp.where(better, size, jnp.inf), count + 1

        def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
            _, damping, size, count = state
            return (size > jnp.finfo(dtype).eps ** 0.5) & (damping < 1e8) & (count < 150)

        first = (x, jnp.asarray(1e-2, dtype), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
        settled = jax.lax.while_loop(unfinished, improve, first)[0]

        def newton(x: Array, _: None) -> tuple[Array, Array]:
            move = -jnp.linalg.solve(state_jacobian(model, x, u), field_at(model, x, u))
            return x + move, move

        x, moves = jax.lax.scan(newton, settled, length=4)
        return _Reached(x, field_at(model, x, u), moves[-1], settled)

    # Side by side while that fills the processor; one by one where each would wait for the slowest.
    together = min(TOGETHER // n**2, starts.shape[0])
    return jax.lax.map(one, (starts, relaxed), batch_size=together if together > 1 else None)


@eqx.filter_jit
def _slowest(model: AbstractStateSpaceModel, starts: Any, u: Array) -> tuple[Array, Array, Array]:
    """From near minima of |f|^2 / 2 (k, n) Newton's iteration on its gradient: the points, the last corrections (k, n), and
    whether the second derivative is positive (k,)."""

    def speed(x: Array) -> Array:
        return jnp.sum(field_at(model, x, u) ** 2) / 2

    def one(x: Array) -> tuple[Array, Array, Array]:
        def newton(x: Array, _: None) -> tuple[Array, Array]:
            move = -jnp.linalg.solve(jax.hessian(speed)(x), jax.grad(speed)(x))
            return x + move, move

        x, moves = jax.lax.scan(newton, x, length=6)
        return x, moves[-1], jnp.linalg.eigvalsh(jax.hessian(speed)(x)).min() > 0

    return jax.lax.map(one, starts)


def _distinct(x: np.ndarray, exponent: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Distinct states (k, n) among states (m, n) in the order in which they come, and which of them each is (m,).

    States are one where they differ by less than the precision to the power of `exponent`.
    """
    tolerance, which = np.finfo(x.dtype).eps ** exponent, np.zeros(len(x), int)
    points = np.zeros((0, x.shape[1]), x.dtype)
    for i, candidate in enumerate(x):
        near = np.abs(candidate - points).max(axis=1) <= tolerance * (1 + np.abs(points).max(axis=1))
        which[i] = near.argmax() if near.any() else len(points)
        if not near.any():
            points = np.concatenate([points, candidate[None]])
    return points, which


def _batched(
    function: Callable[..., Any], model: AbstractStateSpaceModel, x: np.ndarray, u: Array
) -> tuple[np.ndarray, ...]:
    """`function` at states (k, n), in batches of one size, so that another number of states compiles nothing."""
    padded = np.concatenate([x, np.repeat(x[:1], -len(x) % BATCH, axis=0)])
    parts = [function(model, padded[first : first + BATCH], u) for first in range(0, len(padded), BATCH)]
    return tuple(np.concatenate([np.asarray(piece) for piece in pieces])[: len(x)] for pieces in zip(*parts, strict=True))


def _at_rest(x: np.ndarray, velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Whether what is left of f at states (k, n) is small beside its terms."""
    rates = np.maximum(np.abs(jacobian).max(axis=(1, 2)), np.finfo(x.dtype).tiny)[:, None]
    sizes = 1 + np.abs(x).max(axis=1, keepdims=True)
    terms = ((np.abs(jacobian) / rates[:, :, None]) @ ((1 + np.abs(x)) / sizes)[:, :, None])[:, :, 0]
    return (np.abs(velocity) / rates / sizes <= np.finfo(x.dtype).eps ** 0.5 * terms).all(axis=1)


def _collect(model: AbstractStateSpaceModel, u: Array, reached: _Reached) -> FixedPoints:
    """The distinct fixed points among those that converged, and the slow points among the others."""
    x, dt = reached.x, step_of(model)
    eps, n = np.finfo(x.dtype).eps, model.n_state
    # A last correction at rounding level: an iteration stuck at a small but non-zero |f| still makes large ones.
    with np.errstate(invalid="ignore"):
        good = np.isfinite(reached.velocity).all(axis=1) & np.isfinite(x).all(axis=1)
        good &= np.abs(reached.move).max(axis=1) <= eps**0.6 * (1 + np.abs(x).max(axis=1))
    slow = _collect_slow(model, u, reached.settled[~good])
    nothing = np.zeros(0, x.dtype)
    empty = FixedPoints(x[:0], np.zeros((0, n), complex), nothing, np.zeros(0, bool), np.zeros(0, int), slow)
    if not good.any():
        return empty
    unique, which = _distinct(x[good])
    hits = np.bincount(which)
    velocity, jacobian = _batched(_linearise, model, unique, u)
    # A small correction is no proof where numbers overflow: what is left of f must be small too.
    solved = _at_rest(unique, velocity, jacobian)
    if not solved.any():
        return empty
    unique, velocity, jacobian, hits = unique[solved], velocity[solved], jacobian[solved], hits[solved]
    values = exponents(jacobian, dt)
    unstable = (values.real >= 0).sum(axis=1)
    # Scaled, since the square of a large state is no number.
    order = np.lexsort((np.linalg.norm(unique / (np.abs(unique).max() or 1.0), axis=1), unstable))
    residual = np.abs(velocity).max(axis=1)
    eigenvalues = reported(values, dt)
    return FixedPoints(unique[order], eigenvalues[order], residual[order], unstable[order] == 0, hits[order], slow)


def _collect_slow(model: AbstractStateSpaceModel, u: Array, near: np.ndarray) -> SlowPoints:
    """The distinct minima of the speed near states (m, n) that are no fixed points."""
    n, dt, eps = model.n_state, step_of(model), np.finfo(near.dtype).eps
    nothing = np.zeros(0, near.dtype)
    empty = SlowPoints(near[:0], nothing, np.zeros((0, n), complex), np.zeros(0, int))
    near = near[np.isfinite(near).all(axis=1)]
    if len(near) == 0:
        return empty
    # The iteration gets near a minimum only: what may be one is solved for once.
    starts, which = _distinct(near, 0.2)
    x, move, curved = _batched(_slowest, model, starts, u)
    with np.errstate(invalid="ignore"):
        size = 1 + np.abs(starts).max(axis=1)
        good = np.isfinite(x).all(axis=1) & curved & (np.abs(move).max(axis=1) <= eps**0.5 * size)
        good &= np.abs(x - starts).max(axis=1) <= 10 * eps**0.2 * size
    if not good.any():
        return empty
    hits = np.bincount(which)[good]
    x, which = _distinct(x[good])
    hits = np.bincount(which, hits).astype(int)
    velocity, jacobian = _batched(_linearise, model, x, u)
    moving = ~_at_rest(x, velocity, jacobian)
    x, velocity, jacobian, hits = x[moving], velocity[moving], jacobian[moving], hits[moving]
    speed = np.linalg.norm(velocity, axis=1)
    order = np.argsort(speed)
    eigenvalues = reported(exponents(jacobian, dt), dt)
    return SlowPoints(x[order], speed[order], eigenvalues[order], hits[order])
