"""Find slow points: local minima of the speed |f|, at which the network almost rests."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.scaled import ERRORS, ScaledField, distinct, sizes, solved, velocity_at, whole_periods

# For how many states second derivatives are computed in one call.
BATCH = 16
# The largest number of steps of the Levenberg-Marquardt iteration.
STEPS = 60
# That iteration gets within the precision to this power of a minimum.
NEAR = 0.2


class Slow(NamedTuple):
    """Minima (j, n) of the speed, their velocities (j, n), Jacobians (j, n, n), and the numbers (j,) of starts that ended
    there."""

    y: np.ndarray
    velocity: np.ndarray
    jacobian: np.ndarray
    hits: np.ndarray


def slow_points(
    field: ScaledField, starts: np.ndarray, level: np.ndarray, weight: np.ndarray, known: np.ndarray, periods: np.ndarray
) -> Slow:
    """The local minima of |weight * g| that are reached from states (k, n) and are not zeros of g.

    `known` (m, n): zeros of g that are known. `periods` (n,): those of angles, 0 for other states; minima that differ by
    whole periods count as one.
    """
    y = _descended(field, starts, level, weight)
    velocity, jacobian = field.linear(y, level)
    keep = np.isfinite(y).all(axis=1) & np.isfinite(velocity).all(axis=1) & ~_at_rest(field, y, velocity, jacobian)
    if len(known):
        apart = y[:, None] - known[None]
        apart = np.abs(apart - whole_periods(apart, periods)) / sizes(known)[None]
        keep &= apart.max(axis=2).min(axis=1) > field.eps**0.4
    y, level = y[keep], level[keep]
    # The iteration only gets near a minimum: merge the states that may be the same minimum, and solve for each once.
    first, which = distinct(y, 3 * field.eps**NEAR * sizes(y) / (2 * ERRORS), periods)
    if len(first) == 0:
        return _none(field)
    begun, hits = y[first], np.bincount(which)
    x, move, curved = _run(field, begun, level[first], weight)
    with np.errstate(all="ignore"):
        size = sizes(begun)
        good = np.isfinite(x).all(axis=1) & curved & ((np.abs(move) / size).max(axis=1) <= field.eps**0.5)
        good &= (np.abs(x - begun) / size).max(axis=1) <= 100 * field.eps**NEAR
    x, hits, level = x[good], hits[good], level[first][good]
    first, which = distinct(x, field.eps**0.4 * sizes(x) / (2 * ERRORS), periods)
    if len(first) == 0:
        return _none(field)
    hits = np.bincount(which, hits).astype(int)
    velocity, jacobian = field.linear(x[first], level[first])
    moving = ~_at_rest(field, x[first], velocity, jacobian)
    return Slow(x[first][moving], velocity[moving], jacobian[moving], hits[moving])


def _none(field: ScaledField) -> Slow:
    nothing = np.zeros((0, field.n), field.dtype)
    return Slow(nothing, nothing, np.zeros((0, field.n, field.n), field.dtype), np.zeros(0, int))


def _at_rest(field: ScaledField, y: np.ndarray, velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Whether g at states (k, n) is small relative to its terms, in every row: (k,)."""
    terms = (np.abs(jacobian) @ sizes(y)[:, :, None])[:, :, 0]
    return (np.abs(velocity) <= field.eps**0.5 * terms).all(axis=1)


def _descended(field: ScaledField, starts: np.ndarray, level: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The states (k, n) to which the Levenberg-Marquardt iteration on |weight * g|^2 leads from `starts` (k, n), with
    Marquardt's scaling of the steps (Nocedal and Wright, *Numerical Optimization*, chapter 10)."""
    y, active = starts.astype(field.dtype), np.arange(len(starts))
    damping = np.full(len(y), 1e-2)
    identity = np.eye(field.n)
    for _ in range(STEPS):
        if active.size == 0:
            break
        here = y[active]
        with np.errstate(all="ignore"):
            velocity, jacobian = field.linear(here, level[active])
            left, rows = weight * velocity, weight[:, None] * jacobian
            columns = np.linalg.norm(rows, axis=1)
            columns = np.where(columns > 0, columns, 1.0)
            scaled = rows / columns[:, None, :]
            normal = scaled.transpose(0, 2, 1) @ scaled + damping[active][:, None, None] * identity
            gradient = (scaled.transpose(0, 2, 1) @ left[:, :, None])[:, :, 0]
            fine = np.isfinite(normal).all(axis=(1, 2)) & np.isfinite(gradient).all(axis=1)
            normal[~fine], gradient[~fine] = identity, 0.0
            step = -solved(normal, gradient[:, :, None])[:, :, 0] / columns
            new = (here + step).astype(field.dtype)
            before, after = np.linalg.norm(left, axis=1), np.linalg.norm(weight * field.field(new, level[active]), axis=1)
            better = after < before
            length = (np.abs(step) / sizes(here)).max(axis=1)
        y[active[better]] = new[better]
        damping[active] = np.where(better, damping[active] / 10, damping[active] * 4)
        # Stop near a minimum only if the speed no longer falls: towards a zero of g it keeps falling.
        near = (length <= 10 * field.eps**NEAR) & (after > before / 2)
        active = active[fine & (damping[active] < 1e8) & ~(better & (near | (length <= field.eps**0.5)))]
    return y


def _newton(held: Held, weight: Array, starts: Array, levels: Array, count: Array) -> tuple[Array, Array, Array]:
    """Newton's iteration on the gradient of the squared speed, from the first `count` states: the points, the last
    corrections, and whether the second derivative is positive definite at each."""

    def one(i: Array, out: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        def speed(y: Array) -> Array:
            return jnp.sum((weight * velocity_at(held.tree, y, levels[i])) ** 2) / 2

        def improve(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            y, _move = state
            move = -jnp.linalg.solve(jax.hessian(speed)(y), jax.grad(speed)(y))
            return y + move, move

        y, move = jax.lax.fori_loop(0, 6, improve, (starts[i], starts[i]))
        curved = jnp.linalg.eigvalsh(jax.hessian(speed)(y)).min() > 0
        return tuple(kept.at[i].set(new) for kept, new in zip(out, (y, move, curved), strict=True))

    empty = (jnp.zeros_like(starts), jnp.zeros_like(starts), jnp.zeros(starts.shape[0], bool))
    return jax.lax.fori_loop(jnp.zeros_like(count), count, one, empty)


@functools.cache
def _compiled() -> Compiled:
    return Compiled(_newton, seldom=True)


def _run(field: ScaledField, y: np.ndarray, level: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = []
    for first in range(0, len(y), BATCH):
        piece = slice(first, first + BATCH)
        states, levels = np.zeros((BATCH, field.n), field.dtype), np.zeros((BATCH, level.shape[1]), field.dtype)
        count = len(y[piece])
        states[:count], levels[:count] = y[piece], level[piece]
        out = _compiled()(field.held, weight.astype(field.dtype), states, levels, np.asarray(count, np.int32))
        parts.append([np.asarray(one)[:count] for one in out])
    return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))
