"""A vector field in units of its states' sizes, and Newton's iteration on it from many starts at once.

Loops over starts run on the host, with LAPACK. Only the field and its Jacobian are compiled, once each for a model's
structure and size, whatever the number of starts.
"""

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg.lapack
from jaxtyping import Array

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.maps import AbstractMap

# The largest number of entries in the Jacobians of one call, of states in a call, and of entries in a batch.
NUMBERS, CALL, TOGETHER = 2**18, 256, 2**16
# From this number of multiplications on, another thread is used.
BESIDE = 2**23
# Up to this number of units, numpy's batched inverse is faster than LAPACK matrix by matrix.
SMALL = 32
# The fractions of Newton's step that are tried, all in one call.
FRACTIONS = np.array([1.0, 0.5, 0.25, 0.1, 0.03, 0.01])
# The largest number of Newton's corrections for a start in `damped`, and in `confined`.
DAMPED, CONFINED = 15, 20
# The longest confined step, in half widths of the box.
SHARE = 0.5
# The last correction must be below the precision to the power ACCEPT; POLISHES: the largest number of final corrections.
ACCEPT, POLISHES = 0.6, 80
# At a point far out, |f| may be at most this many times its rounding error.
ROUGH = 1e3
# The number of nearby states at which rounding errors are measured.
PROBES = 8
# Two points count as the same if they are closer than this multiple of their measured errors.
ERRORS = 64.0


# The model, its input (d,), the scale (n,), the weights (c, n) of conserved quantities, and their pull.
_Field = tuple[AbstractStateSpaceModel, Array, Array, Array, Array]


def _points(
    field: Callable[..., tuple[Array, ...]],
    chunk: int,
    out: tuple[int, ...],
    held: Held,
    states: Array,
    levels: Array,
    count: Array,
) -> tuple[Array, ...]:
    """`field(tree, state, level)` for the first `count` chunks of the states; results for the others are zero."""

    def one(i: Array, kept: tuple[Array, ...]) -> tuple[Array, ...]:
        y, level = (jax.lax.dynamic_slice_in_dim(part, i * chunk, chunk) for part in (states, levels))
        new = jax.vmap(lambda y, level: field(held.tree, y, level))(y, level)
        return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, i * chunk, 0), kept, new)

    zeros = tuple(jnp.zeros((states.shape[0], *([states.shape[1]] * rank)), states.dtype) for rank in out)
    return jax.lax.fori_loop(jnp.zeros_like(count), count, one, zeros)


def velocity_at(tree: _Field, y: Array, level: Array) -> Array:
    """The velocity (n,) at scale * y, in scales per unit time, with a term that pulls conserved quantities to `level`."""
    model, u, scale, weights, pull = tree
    velocity = field_at(model, scale * y, u) / scale
    return velocity - pull * weights.T @ (weights @ y - level) if weights.shape[0] else velocity


def _velocity(tree: _Field, y: Array, level: Array) -> tuple[Array]:
    return (velocity_at(tree, y, level),)


def _linear(tree: _Field, y: Array, level: Array) -> tuple[Array, Array]:
    def both(y: Array) -> tuple[Array, Array]:
        velocity = velocity_at(tree, y, level)
        return velocity, velocity

    jacobian, velocity = jax.jacfwd(both, has_aux=True)(y)
    return velocity, jacobian


@functools.cache
def _program(jacobians: bool, chunk: int) -> Compiled:
    field, out = (_linear, (1, 2)) if jacobians else (_velocity, (1,))
    return Compiled(functools.partial(_points, field, chunk, out), seldom=True)


class ScaledField:
    """The field g(y) = f(scale * y) / scale of a model for the constant input `u` (d,), evaluated on the host.

    `scale` (n,): typical sizes of the states. `weights` (c, n): orthonormal weights of the conserved quantities of y. These
    are held at a level, which makes the Jacobian regular and changes no equilibrium of that level.
    """

    def __init__(self, model: AbstractStateSpaceModel, u: Array, scale: np.ndarray, weights: np.ndarray, pull: float):
        self.n, self.dtype = len(scale), scale.dtype
        self.eps = float(np.finfo(scale.dtype).eps)
        self.scale, self.weights, self.pull = scale, weights.astype(scale.dtype), pull
        # For maps f is (F(x) - x) / dt, in which the rounding error of F(x) remains, even where it is zero by chance.
        self.rate = 1 / float(model.clock.unit) if type(model).vector_field is AbstractMap.vector_field else 0.0
        self.held = Held.of((model, u, *jax.device_put((scale, self.weights, np.asarray(pull, scale.dtype)))))
        self.room = int(np.clip(NUMBERS // self.n**2, 8, CALL))

    def field(self, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        """g (k, n) at states y (k, n), with conserved quantities held at levels (k, c)."""
        return self._run(False, y, level, CALL)[0]

    def linear(self, y: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g (k, n) and dg/dy (k, n, n) at states y (k, n), with conserved quantities held at levels (k, c)."""
        velocity, jacobian = self._run(True, y, level, self.room)
        return velocity, jacobian

    def level(self, y: np.ndarray) -> np.ndarray:
        """The conserved quantities (k, c) of states (k, n)."""
        return y @ self.weights.T

    def _run(self, jacobians: bool, y: np.ndarray, level: np.ndarray, room: int) -> list[np.ndarray]:
        each = self.n**2 * (self.n if jacobians else 1)
        chunk = 2 ** int(np.log2(np.clip(8 * TOGETHER // each, 1, 32 if jacobians else 128)))
        room = -(-room // chunk) * chunk
        parts = []
        for first in range(0, len(y), room):
            piece, at = y[first : first + room], level[first : first + room]
            states, levels = np.zeros((room, self.n), self.dtype), np.zeros((room, len(self.weights)), self.dtype)
            states[: len(piece)], levels[: len(piece)] = piece, at
            count = np.asarray(-(-len(piece) // chunk), np.int32)
            out = _program(jacobians, chunk)(self.held, states, levels, count)
            parts.append([np.asarray(one)[: len(piece)] for one in out])
        if not parts:
            return [np.zeros((0, *[self.n] * rank), self.dtype) for rank in ((1, 2) if jacobians else (1,))]
        return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def solved(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solutions (k, n, r) for matrices (k, n, n) and right-hand sides (k, n, r); NaN if a matrix is singular."""
    half = len(matrices) // 2
    if half * matrices.shape[1] ** 3 < BESIDE:
        return _solved(matrices, right)
    # Solve two halves in two threads, since LAPACK releases Python's lock.
    other = _beside().submit(_solved, matrices[half:], right[half:])
    return np.concatenate([_solved(matrices[:half], right[:half]), other.result()])


def _solved(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        return Factored(matrices, loop=True).solve(right)


@functools.cache
def _beside() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ssntk-solve")


class Factored:
    """Square matrices (k, n, n), factored so that they can be solved with more than once.

    Rows are scaled to one size first, so that fast and slow states weigh equally in the choice of pivots.
    """

    def __init__(self, matrices: np.ndarray, loop: bool = False):
        n, dtype = matrices.shape[1], matrices.dtype
        self.inverse: np.ndarray | None = None
        self._solve: Any = None
        self.good: np.ndarray
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []
        with np.errstate(all="ignore"):
            if n <= SMALL and not loop:
                self.rows = _row_sizes(matrices)
                scaled = matrices / self.rows[:, :, None]
                self.good = np.isfinite(scaled).all(axis=(1, 2))
                scaled[~self.good] = np.eye(n, dtype=dtype)
                try:
                    self.inverse = np.linalg.inv(scaled)
                    return
                except np.linalg.LinAlgError:
                    pass
            factor, self._solve = _lapack(("getrf", "getrs"), dtype)
            self.rows, self.good = np.ones((len(matrices), n), dtype), np.zeros(len(matrices), bool)
            # Factor matrices one by one, so that each is in the processor's cache.
            for i, matrix in enumerate(matrices):
                self.rows[i] = _row_sizes(matrix)
                lu, pivots, info = factor((matrix / self.rows[i][:, None]).T, overwrite_a=True)
                self.parts.append((lu, pivots))
                self.good[i] = info == 0 and np.isfinite(lu).all()

    def solve(self, right: np.ndarray) -> np.ndarray:
        """The solutions (k, n, r) for right-hand sides (k, n, r); NaN if a matrix is singular."""
        with np.errstate(all="ignore"):
            right = right / self.rows[:, :, None]
            if self.inverse is not None:
                out = self.inverse @ right
            else:
                out = np.empty_like(right)
                for i, (lu, pivots) in enumerate(self.parts):
                    if self.good[i] and np.isfinite(right[i]).all():
                        # The factors are those of the transpose, whose memory layout is the one that LAPACK needs.
                        out[i] = self._solve(lu, pivots, right[i], trans=1)[0]
                    else:
                        out[i] = np.nan
        out[~self.good] = np.nan
        return out


def _lapack(names: tuple[str, ...], dtype: Any) -> Any:
    return scipy.linalg.get_lapack_funcs(names, dtype=dtype)


def _row_sizes(matrices: np.ndarray) -> np.ndarray:
    """The largest |entries| (..., n) of the rows of matrices (..., n, n); one for rows of zeros."""
    rows = np.abs(matrices).max(axis=-1)
    return np.where((rows > 0) & np.isfinite(rows), rows, 1.0).astype(matrices.dtype)


def sizes(y: np.ndarray) -> np.ndarray:
    """The sizes (k, n) with which changes of states (k, n) are compared."""
    return np.maximum(1.0, np.abs(y))


def _rms(steps: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean((steps / size) ** 2, axis=-1))


class Ended(NamedTuple):
    """The states (k, n) at which k starts ended, and whether the last correction was small (k,)."""

    y: np.ndarray
    near: np.ndarray


def damped(field: ScaledField, starts: np.ndarray, level: np.ndarray, limit: int = DAMPED) -> Ended:
    """Newton's iteration from states (k, n), globalised by damping.

    A fraction of the step is accepted if the next simplified correction is smaller: the natural monotonicity test
    (Deuflhard, *Newton Methods for Nonlinear Problems*, section 3.3). It does not depend on how the rows of f are scaled.
    """
    y, near = starts.astype(field.dtype), np.zeros(len(starts), bool)
    active, slow = np.arange(len(y)), np.zeros(len(y), int)
    for _ in range(limit):
        if active.size == 0:
            break
        stay = []
        for some in np.array_split(active, -(-active.size // field.room)):
            stay.append(some[_damped_step(field, y, level, near, slow, some)])
        active = np.concatenate(stay)
    return Ended(y, near)


def _damped_step(
    field: ScaledField, y: np.ndarray, level: np.ndarray, near: np.ndarray, slow: np.ndarray, some: np.ndarray
) -> np.ndarray:
    """Make one step of the states numbered `some`, in place. Returns which of them continue."""
    here = y[some]
    with np.errstate(all="ignore"):
        velocity, jacobian = field.linear(here, level[some])
        factors = Factored(jacobian)
        step = -factors.solve(velocity[:, :, None])[:, :, 0]
        size = sizes(here)
        length = _rms(step, size)
        trials = here[:, None] + FRACTIONS[:, None].astype(field.dtype) * step[:, None]
        flat = trials.reshape(-1, field.n)
        there = field.field(flat, np.repeat(level[some], len(FRACTIONS), axis=0)).reshape(trials.shape)
        follows = -factors.solve(there.transpose(0, 2, 1)).transpose(0, 2, 1)
        lengths = _rms(follows, size[:, None])
        falls = lengths <= (1 - FRACTIONS / 4) * length[:, None]
    finite = np.isfinite(length) & np.isfinite(step).all(axis=1)
    done = finite & (length <= field.eps**0.4)
    found = falls.any(axis=1)
    best = falls.argmax(axis=1)
    take = finite & (found | done)
    best[done] = 0
    y[some[take]] = trials[take, best[take]]
    near[some[done]] = True
    # Starts that creep forward are given up, and left to other methods.
    slow[some] = np.where(FRACTIONS[best] < 0.2, slow[some] + 1, 0)
    return take & ~done & (slow[some] < 4)


def confined(field: ScaledField, starts: np.ndarray, level: np.ndarray, box: np.ndarray, limit: int = CONFINED) -> Ended:
    """Newton's iteration from states (k, n), with steps of at most SHARE half widths (n,) of the box, and no other test."""
    y, near = starts.astype(field.dtype), np.zeros(len(starts), bool)
    active = np.arange(len(y))
    for _ in range(limit):
        if active.size == 0:
            break
        stay = []
        for some in np.array_split(active, -(-active.size // field.room)):
            here = y[some]
            with np.errstate(all="ignore"):
                velocity, jacobian = field.linear(here, level[some])
                rows = _row_sizes(jacobian)[:, :, None]
                step = -solved(jacobian / rows, velocity[:, :, None] / rows)[:, :, 0]
                longest = (np.abs(step) / np.maximum(box, np.abs(here))).max(axis=1)
                done = _rms(step, sizes(here)) <= field.eps**0.4
                step = step * np.minimum(1.0, SHARE / longest)[:, None]
            good = np.isfinite(step).all(axis=1)
            y[some[good]] += step[good].astype(field.dtype)
            near[some[good & done]] = True
            stay.append(some[good & ~done])
        active = np.concatenate(stay)
    return Ended(y, near)


class Settled(NamedTuple):
    """The end of Newton's iteration: states (k, n), velocities (k, n), Jacobians (k, n, n), errors (k, n), whether it
    converged to a zero (k,), and whether it did so only linearly (k,)."""

    y: np.ndarray
    velocity: np.ndarray
    jacobian: np.ndarray
    error: np.ndarray
    good: np.ndarray
    linear: np.ndarray


def settle(field: ScaledField, near: np.ndarray, level: np.ndarray) -> Settled:
    """Newton's iteration from states (k, n) near zeros until the corrections stop falling.

    A zero is accepted if the last correction is small relative to the states. A small |f| alone is no proof: it also falls
    without a zero if gates close. f must in addition be small relative to its terms, in every row.
    """
    y = near.astype(field.dtype)
    k = len(y)
    last, before = np.full((k, field.n), np.inf), np.full(k, np.inf)
    counts, active = np.zeros(k, int), np.arange(k)
    for _ in range(POLISHES):
        if active.size == 0:
            break
        here = y[active]
        with np.errstate(all="ignore"):
            velocity, jacobian = field.linear(here, level[active])
            rows = _row_sizes(jacobian)[:, :, None]
            step = -solved(jacobian / rows, velocity[:, :, None] / rows)[:, :, 0]
            length = _rms(step, sizes(here))
            # Compare each state with its own value, since a small state may still be moving.
            rests = (np.abs(step) <= 4 * field.eps * np.abs(here)).all(axis=1)
        good = np.isfinite(length)
        y[active[good]] += step[good].astype(field.dtype)
        last[active] = np.where(good[:, None], np.abs(step), np.inf)
        counts[active] += 1
        falls = good & ~rests & ((length < 0.9 * before[active]) | (counts[active] < 3))
        before[active] = length
        active = active[falls]
    with np.errstate(all="ignore"):
        velocity, jacobian = field.linear(y, level)
        size = sizes(y)
        small = (last / size).max(axis=1) <= field.eps**ACCEPT
        terms = np.abs(jacobian) @ size[:, :, None]
        at_rest = (np.abs(velocity) <= field.eps**0.5 * terms[:, :, 0]).all(axis=1)
        good = small & at_rest & np.isfinite(y).all(axis=1) & np.isfinite(jacobian).all(axis=(1, 2))
        far = good & (last.max(axis=1) > field.eps**ACCEPT)
        if far.any():
            # Relative to a state far out any step is small: there f must be a rounding error too.
            rounding = _rounding(field, y[far], level[far], velocity[far], jacobian[far])
            good[far] = (np.abs(velocity[far]) <= ROUGH * rounding).all(axis=1)
        noise = _noise(field, y, level, velocity, jacobian)
        jacobian = np.where(good[:, None, None], jacobian, np.eye(field.n, dtype=field.dtype))
        # Rounding errors have random signs: take the largest result of several draws.
        signs = np.random.default_rng(1).choice(np.array([-1.0, 1.0], field.dtype), (field.n, PROBES))
        spread = np.abs(Factored(jacobian).solve(noise[:, :, None] * signs)).max(axis=2)
    error = np.where(np.isfinite(spread), spread, 0.0) + 4 * np.where(np.isfinite(last), last, 0.0)
    return Settled(y, velocity, jacobian, error, good, counts > 12)


def _rounding(
    field: ScaledField, y: np.ndarray, level: np.ndarray, velocity: np.ndarray, jacobian: np.ndarray
) -> np.ndarray:
    """The rounding error of g (k, n) at states (k, n): that from the states and from the terms of g, and the one measured a
    few roundings away, where the field is linear."""
    there = y * (1 + np.array([4.0, -4.0, 12.0, -12.0])[:, None, None] * field.eps).astype(field.dtype)
    velocities = field.field(there.reshape(-1, field.n), np.tile(level, (len(there), 1))).reshape(there.shape)
    linear = (jacobian @ (there - y).transpose(1, 2, 0)).transpose(2, 0, 1)
    measured = np.abs(velocities - velocity - linear).max(axis=0)
    return field.eps * (np.abs(jacobian) @ np.abs(y)[:, :, None])[:, :, 0] + measured


def _noise(field: ScaledField, y: np.ndarray, level: np.ndarray, velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """The rounding error of g (k, n) at states (k, n): that of its terms, and the one measured at nearby states.

    These are so near that only rounding makes g depart from its linear part. Cancellation inside of f shows only there.
    """
    random = np.random.default_rng(0)
    # The distances are large enough that rounding does not hide every change, and too small for curvature. They are relative
    # to the state, and to the sizes too, since terms that cancel may be far larger than the state.
    far = field.eps ** np.linspace(0.75, 0.55, PROBES - 2)[:, None, None] * np.abs(y)
    far = np.concatenate([far, field.eps ** np.array([0.75, 0.7])[:, None, None] * sizes(y)])
    moves = random.choice(np.array([-1.0, 1.0]), (PROBES, *y.shape)) * far
    there = y + moves.astype(field.dtype)
    moved = there - y
    velocities = field.field(there.reshape(-1, field.n), np.tile(level, (PROBES, 1))).reshape(there.shape)
    linear = (jacobian @ moved.transpose(1, 2, 0)).transpose(2, 0, 1)
    measured = np.abs(velocities - velocity - linear).max(axis=0)
    terms = (np.abs(jacobian) @ np.abs(y)[:, :, None])[:, :, 0] + field.rate * np.abs(y)
    return 2 * field.eps * terms + measured


def whole_periods(step: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """The whole periods (..., n) within steps (..., n), for `periods` (n,); zero for states that are not angles."""
    return periods * np.round(step / np.where(periods > 0, periods, 1.0))


def distinct(y: np.ndarray, error: np.ndarray, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the distinct ones of states (m, n), in their order, and for each state which of these it equals (m,).

    States are the same if their errors (m, n) explain their difference. `periods` (n,): those of angles, 0 for the others.
    """
    which, first = np.zeros(len(y), int), np.zeros(0, int)
    for i in range(len(y)):
        apart = y[i] - y[first]
        apart -= whole_periods(apart, periods)
        same = (np.abs(apart) <= ERRORS * (error[i] + error[first])).all(axis=1)
        which[i] = same.argmax() if same.any() else len(first)
        if not same.any():
            first = np.append(first, i)
    return first, which
