"""Newton's iteration on the equations of a curve, or of a point that two conditions define, in one compiled loop."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.compiled import Compiled, Held
from ssntk.curves.modes import AbstractMode, factored, solved
from ssntk.curves.system import System

# The largest number of corrections.
CORRECTIONS = 18
# While corrections are above eps to this power they must shrink by the factor: then they are at rounding level.
ROUNDING, SHRINKS = 0.4, 0.5
# The velocity is zero to eps to this power, relative to its terms; closer if it is free in some direction.
REST, FREE_REST = 0.5, 0.75


class Corrected(NamedTuple):
    """The end of the iteration, traced or as numpy arrays."""

    z: Any  # (n + 2,)
    frames: Any  # of each condition
    tangent: Any  # (n + 2,), oriented along the border and of length one in its metric
    matrix: Any  # A (n, n), in working units
    turn: Any  # that of the first condition
    size: Any  # of the last correction
    before: Any  # of the one before it
    turned: Any  # by how much the vectors turned in it
    count: Any  # the number of corrections
    rests: Any  # whether the velocity is zero to rounding


class _Newton(NamedTuple):
    """Newton's iteration in the plane through `start` (n + 2,) that is normal to `border` (n + 2,). Where the conditions
    have two values they alone define the point."""

    modes: tuple[AbstractMode, ...]
    system: System
    start: Float[Array, " n2"]
    border: Float[Array, " n2"]
    weight: Float[Array, " n2"]

    def begun(self, matrix: Array, frames: Any) -> tuple[Any, Any]:
        """The factors for each condition, and the frames in their normal position."""
        pairs = [mode.begun(matrix, frame) for mode, frame in zip(self.modes, frames, strict=True)]
        return tuple(known for known, _ in pairs), tuple(frame for _, frame in pairs)

    def refined(self, matrix: Array, known: Any, frames: Any) -> Any:
        """The frames after one correction."""
        every = zip(self.modes, known, frames, strict=True)
        push, pull = (lambda v: matrix @ v), (lambda w: matrix.T @ w)
        return tuple(mode.corrected(one, push, pull, frame) for mode, one, frame in every)

    def conditions(self, known: Any, frames: Any, z: Array) -> Array:
        """The values besides the velocity."""
        push, every = functools.partial(self.system.pushed, z), zip(self.modes, known, frames, strict=True)
        across = jnp.stack([-self.border[-1], self.border[-2]])
        leave = functools.partial(self.system.left_by, z, across)
        parts = [mode.values(one, frame, push, self.system.step, leave) for mode, one, frame in every]
        if sum(mode.count for mode in self.modes) - self.free(frames).shape[1] == 1:
            parts.append(jnp.sum(self.border * (z - self.start))[None])
        return jnp.concatenate(parts)

    def free(self, frames: Any) -> Array:
        """The directions (n, s) in which the velocity is left free."""
        parts = [mode.slack(frame) for mode, frame in zip(self.modes, frames, strict=True)]
        nothing = jnp.zeros((self.system.n, 0), self.start.dtype)
        return jnp.concatenate([nothing, *(part for part in parts if part is not None)], axis=1)

    def improved(self, known: Any, at: Corrected) -> Corrected:
        """The state after one correction, of which tangent and matrix belong to the point before it."""
        z, eps = at.z, jnp.finfo(at.z.dtype).eps
        velocity, jacobian = self.system.linearised(z)
        matrix = jacobian[:, : self.system.n]
        frames = self.refined(matrix, known, at.frames)
        conditions = functools.partial(self.conditions, known, frames)
        both = jax.jacrev(lambda z: (conditions(z),) * 2, has_aux=True)(z)
        whole, off = jnp.concatenate([jacobian, both[0]]), jnp.concatenate([velocity, both[1]])
        free = self.free(frames)
        whole = jnp.concatenate([whole, jnp.zeros((len(off), free.shape[1]), z.dtype).at[: self.system.n].set(free)], axis=1)
        # Each equation is scaled by the size of its terms.
        rows = jnp.abs(whole).sum(axis=1)
        rows = jnp.where(rows > 0, rows, 1)
        last = jnp.zeros_like(off).at[-1].set(1)
        moves = solved(factored(whole / rows[:, None]), jnp.stack([off / rows, last], axis=1))
        move, tangent = moves[: len(z), 0], moves[: len(z), 1]
        tangent = tangent / jnp.sqrt(jnp.sum(self.weight * tangent**2))
        rest = FREE_REST if free.shape[1] else REST
        rests = jnp.all(jnp.abs(velocity) <= eps**rest * (jnp.abs(jacobian) @ (1 + jnp.abs(z))))
        size, turn = jnp.max(jnp.abs(move) / (1 + jnp.abs(z))), self.modes[0].turned(frames[0], lambda v: matrix @ v)
        turned = _turned(self.modes, at.frames, frames)
        return Corrected(z - move, frames, tangent, matrix, turn, size, at.size, turned, at.count + 1, rests)

    def unfinished(self, at: Corrected) -> Array:
        """Whether the last correction was not at rounding level yet."""
        eps = jnp.finfo(at.z.dtype).eps
        shrinks = (at.size > eps**ROUNDING) | (at.size < SHRINKS * at.before)
        moving = (at.size > 32 * eps) & shrinks | ~at.rests | (at.turned > eps ** max(mode.still for mode in self.modes))
        return (at.count < 2) | (at.count < CORRECTIONS) & moving & jnp.isfinite(at.z).all()


def _turned(modes: tuple[AbstractMode, ...], before: Any, frames: Any) -> Array:
    """The largest change of vectors, relative to their size."""
    old, new = (
        [vector for mode, frame in zip(modes, each, strict=True) for vector in mode.vectors(frame)]
        for each in (before, frames)
    )
    return jnp.stack([jnp.abs(b - a).max() / jnp.abs(b).max() for a, b in zip(old, new, strict=True)]).max()


def _correct(modes: tuple[AbstractMode, ...], held: Held, z: Array, frames: Any, along: Array, weight: Array) -> Array:
    """The zero near z (n + 2,) in the plane through it that is normal to `along` (n + 2,), in the inner product with the
    diagonal `weight` (n + 2,), as one array: it takes less time to fetch one than several."""
    system: System = held.tree
    newton = _Newton(modes, system, z, weight * along, weight)
    matrix, infinite = system.linearised(z)[1][:, : system.n], jnp.asarray(jnp.inf, z.dtype)
    # Vectors are corrected with the factors of the first matrix: those of each matrix would cost more than they save.
    known, frames = newton.begun(matrix, frames)
    frames = newton.refined(matrix, known, frames)
    zero, no = jnp.zeros((), z.dtype), jnp.asarray(False)
    begin = Corrected(z, frames, along, matrix, zero, infinite, infinite, infinite, jnp.asarray(0), no)
    end = jax.lax.while_loop(lambda at: newton.unfinished(at), lambda at: newton.improved(known, at), begin)
    return jnp.concatenate([jnp.ravel(part).astype(z.dtype) for part in jax.tree.leaves(end)])


@functools.cache
def _correcting(modes: tuple[AbstractMode, ...]) -> Compiled:
    return Compiled(functools.partial(_correct, modes))


def corrected(
    modes: tuple[AbstractMode, ...], held: Held, z: np.ndarray, frames: Any, along: np.ndarray, weight: np.ndarray
) -> Corrected | None:
    """The zero near z, on the host; `None` if the iteration does not converge."""
    asked = in_dtype(held, (z, frames, along, weight))
    return reached(modes, np.asarray(_correcting(modes)(held, *asked)), asked)


def in_dtype(held: Held, parts: Any) -> Any:
    """Arrays in the dtype of a held system."""
    dtype = held.arrays.sizes.dtype
    return jax.tree.map(lambda part: np.asarray(part, dtype), parts)


def reached(modes: tuple[AbstractMode, ...], numbers: np.ndarray, asked: Any) -> Corrected | None:
    """The end of an iteration as a compiled function returns it, in one array, for the arguments `asked`; `None` if it did
    not converge."""
    z, frames, along, _ = asked
    matrix = np.empty((len(z) - 2, len(z) - 2))
    like, structure = jax.tree.flatten(Corrected(z, frames, along, matrix, *np.zeros(len(Corrected._fields) - 4)))
    parts = np.split(numbers, np.cumsum([np.size(part) for part in like])[:-1])
    found: Corrected = jax.tree.unflatten(
        structure, [own.reshape(np.shape(part)) for own, part in zip(parts, like, strict=True)]
    )
    eps = float(np.finfo(z.dtype).eps)
    still = eps ** max(mode.still for mode in modes)
    good = bool(found.rests) and float(found.size) <= eps**ROUNDING and float(found.turned) <= still
    # The size of the correction before the last one may be infinite.
    return found if good and np.isfinite(numbers).sum() >= numbers.size - (not np.isfinite(found.before)) else None


def _correct_each(
    modes: tuple[AbstractMode, ...],
    held: Held,
    count: Array,
    which: Array,
    z: Array,
    frames: Any,
    along: Array,
    weight: Array,
) -> Array:
    """The ends of `count` iterations, one after the other, each of the system with the number `which` among those that are
    stacked in `held`. All parts have a leading axis of one length, which may be larger than the count."""

    def taken(tree: Any, i: Array) -> Any:
        return jax.tree.map(lambda part: part[i], tree)

    def on(i: Array, found: Array | None) -> Array:
        system = Held(taken(held.arrays, which[i]), held.rest)
        end = _correct(modes, system, *(taken(part, i) for part in (z, frames, along, weight)))
        return end if found is None else found.at[i].set(end)

    size = jax.eval_shape(lambda i: on(i, None), jax.ShapeDtypeStruct((), count.dtype)).shape[0]
    return jax.lax.fori_loop(0, count, on, jnp.zeros((len(which), size), z.dtype))


@functools.cache
def correcting_each(modes: tuple[AbstractMode, ...]) -> Compiled:
    """The compiled function that corrects points of several systems in one call."""
    return Compiled(functools.partial(_correct_each, modes))


def _linear(held: Held, z: Array) -> tuple[Array, Array]:
    system: System = held.tree
    return system.linearised(z)


# The velocity (n,) and its derivative (n, n + 2) at a point z (n + 2,), from a held system.
linear = Compiled(_linear, seldom=True)
