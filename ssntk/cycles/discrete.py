"""The equations of a periodic orbit, and Newton's iteration on them, in working units.

The unknowns are the states at the ends of N segments, what the method needs within them, the logarithm of the period, and
on a branch the parameter. The phase is fixed at the first end, normal to the velocity there.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.cycles.chain import Round, joined, multiplied
from ssntk.cycles.collocation import gauss
from ssntk.cycles.steps import pushed
from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.family import Family

# The largest number of corrections, and the longest one relative to the orbit.
CORRECTIONS, LONGEST = 30, 0.5


class Alone(eqx.Module):
    """A family whose model does not depend on the parameter."""

    model: AbstractStateSpaceModel

    def __call__(self, parameter: Any) -> AbstractStateSpaceModel:
        return self.model


class System(eqx.Module):
    """A family of flows in working units: states in `sizes` (n,), time in `unit`, p = `begin` + level `reach`."""

    family: Family | Alone
    u: Float[Array, " d"]
    sizes: Float[Array, " n"]
    unit: Float[Array, ""]
    begin: Float[Array, ""]
    reach: Float[Array, ""]

    def model(self, level: Array) -> Any:
        return self.family(self.begin + level * self.reach)

    def driven(self, model: Any, x: Array) -> Array:
        """The velocity at x (n,) under a model of the family."""
        return field_at(model, x * self.sizes, self.u) * (self.unit / self.sizes)

    def velocity(self, x: Array, level: Array) -> Array:
        return self.driven(self.model(level), x)


class Discrete(NamedTuple):
    """A discrete orbit: `mesh` (N + 1,) from 0 to 1, states at its points `ends` (N, n), those within segments `inner`
    (N, m, n), the logarithm of the period, and the level of the parameter."""

    mesh: Float[Array, " M"]
    ends: Float[Array, "N n"]
    inner: Float[Array, "N m n"]
    log_period: Float[Array, ""]
    level: Float[Array, ""]

    def moved(self, part: Array | float, by: "Discrete") -> "Discrete":
        """The orbit after a part of a change, whose mesh is not looked at."""
        ends, inner, log_period, level = (mine + part * other for mine, other in zip(self[1:], by[1:], strict=True))
        return Discrete(self.mesh, ends, inner, log_period, level)


class Segments(NamedTuple):
    """What each segment does, to first order: `first d_j + second d_(j+1) = right w`. The columns of `right` are the
    residual, the effect of the logarithm of the period and that of the level, with w = (1, its change, its change).
    `inside` (N, m, n, n + 3): how the states within follow d_j and w."""

    first: Float[Array, "N n n"]
    second: Float[Array, "N n n"]
    right: Float[Array, "N n 3"]
    inside: Float[Array, "N m n k"]


class AbstractMethod(eqx.Module):
    """How the flow of one segment is computed."""

    @abc.abstractmethod
    def segments(self, system: System, orbit: Discrete) -> Segments: ...

    @abc.abstractmethod
    def round(self, segments: Segments) -> Round: ...


class Collocation(AbstractMethod):
    """Gauss collocation of this degree; see `collocation`."""

    degree: int = eqx.field(static=True)

    def segments(self, system: System, orbit: Discrete) -> Segments:
        (_, a, b), dtype = gauss(self.degree), orbit.ends.dtype
        a, b = (jnp.asarray(part, dtype) for part in (a, b))
        m, n = self.degree, orbit.ends.shape[1]
        period, same = jnp.exp(orbit.log_period), jnp.eye(n, dtype=dtype)

        def one(width: Array, x: Array, after: Array, inner: Array) -> tuple[Array, ...]:
            step = period * width
            velocity, slope, pushed = jax.vmap(lambda z: _linear(system, z, orbit.level))(inner)
            matrix = jnp.eye(m * n, dtype=dtype) - (step * jnp.einsum("il,lpq->iplq", a, slope)).reshape(m * n, m * n)
            moved = step * (a @ velocity)
            columns = [x[None] + moved - inner, moved, step * (a @ pushed)]
            columns = jnp.concatenate([jnp.broadcast_to(same, (m, n, n)), jnp.stack(columns, axis=2)], axis=2)
            inside = jnp.linalg.solve(matrix, columns.reshape(m * n, n + 3)).reshape(m, n, n + 3)
            through = step * jnp.einsum("l,lpq,lqk->pk", b, slope, inside)
            total = step * (b @ velocity)
            right = jnp.stack([x + total - after, total, step * (b @ pushed)], axis=1) + through[:, n:]
            return -(same + through[:, :n]), right, inside

        after = jnp.roll(orbit.ends, -1, axis=0)
        first, right, inside = jax.vmap(one)(jnp.diff(orbit.mesh), orbit.ends, after, orbit.inner)
        return Segments(first, jnp.broadcast_to(same, first.shape), right, inside)

    def round(self, segments: Segments) -> Round:
        return joined(segments.first, segments.second, segments.right)


class Shooting(AbstractMethod):
    """Steps of Dormand and Prince's method of order 8 from end to end, `steps` in each segment, with exact tangents."""

    steps: int = eqx.field(static=True)

    def segments(self, system: System, orbit: Discrete) -> Segments:
        n, dtype = orbit.ends.shape[1], orbit.ends.dtype
        # The model and its derivative over the level are the same in all steps.
        model, moves = eqx.filter_jvp(system.model, (orbit.level,), (jnp.ones_like(orbit.level),))
        lengths = self._lengths(orbit)

        def one(segment: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            length, x, after = segment

            def change(x: Array) -> Array:
                _, moved = eqx.filter_jvp(lambda model: system.driven(model, x), (model,), (moves,))
                # A family of one model does not depend on the level.
                return jnp.zeros_like(x) if moved is None else length * moved

            reached, rows = pushed(lambda x: length * system.driven(model, x), change, x, self.steps)
            return -rows[:n].T, jnp.concatenate([(reached - after)[None], rows[n:]]).T

        # One segment after the other: the tangents of all of them do not fit into the processor's caches.
        first, right = jax.lax.map(one, (lengths, orbit.ends, jnp.roll(orbit.ends, -1, axis=0)))
        same = jnp.broadcast_to(jnp.eye(n, dtype=dtype), first.shape)
        return Segments(first, same, right, jnp.zeros((len(lengths), 0, n, n + 3), dtype))

    def _lengths(self, orbit: Discrete) -> Array:
        """The length (N,) of a step in each segment."""
        return jnp.exp(orbit.log_period) * jnp.diff(orbit.mesh) / self.steps

    def round(self, segments: Segments) -> Round:
        return multiplied(segments.first, segments.right)


def _linear(system: System, x: Array, level: Array) -> tuple[Array, Array, Array]:
    """The velocity at x (n,), its Jacobian, and its derivative over the level."""

    def both(x: Array) -> tuple[Array, Array]:
        velocity = system.velocity(x, level)
        return velocity, velocity

    slope, velocity = jax.jacfwd(both, has_aux=True)(x)
    return velocity, slope, jax.jvp(lambda level: system.velocity(x, level), (level,), (jnp.ones_like(level),))[1]


class Corrected(NamedTuple):
    """An orbit after Newton's iteration: the size of the last correction and of the largest residual before it, relative to
    the orbit; the number of corrections; the round, and the velocity (n,) where it begins; and the
    tangent of the branch, of length one."""

    orbit: Discrete
    size: Float[Array, ""]
    residual: Float[Array, ""]
    count: Array
    first: Float[Array, "n n"]
    second: Float[Array, "n n"]
    velocity: Float[Array, " n"]
    tangent: Discrete


def flat(orbit: Discrete) -> Discrete:
    """The direction in which only the level changes."""
    return Discrete._make([*(jnp.zeros_like(part) for part in orbit[:4]), jnp.ones_like(orbit.level)])


@eqx.filter_jit
def corrected(
    method: AbstractMethod, system: System, orbit: Discrete, along: Discrete, step: Array, size: Array
) -> Corrected:
    """Newton's iteration from `orbit` + `step` `along`, in the plane normal to `along`, until the corrections are at
    rounding level or no longer shrink. Along `flat` the level stays.

    Lengths are `sqrt(mean((d_j / size)^2) + (d log T)^2 + (d level)^2)`.
    """
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    eps = jnp.finfo(dtype).eps
    begin = orbit.moved(step, along)
    weights = along.ends / (along.ends.size * size**2)

    def improve(state: tuple[Corrected, Array]) -> tuple[Corrected, Array]:
        at, _ = state
        now = at.orbit
        segments = method.segments(system, now)
        around = method.round(segments)
        normal = system.velocity(now.ends[0], now.level)
        normal = normal / jnp.linalg.norm(normal)
        # The plane asks for sum weights d_j + d log T along + d level along = 0, which depends on d_0 and w.
        zero = jnp.zeros(n, dtype), jnp.zeros(3, dtype)
        by_start, by_weights = jax.vjp(lambda start, weights: around.points(start, start, weights), *zero)[1](weights)
        off = jnp.sum(weights * (now.ends - begin.ends)) + along.log_period * (now.log_period - begin.log_period)
        off = off + along.level * (now.level - begin.level) + by_weights[0]
        changes = by_weights[1:] + jnp.stack([along.log_period, along.level])
        matrix = jnp.concatenate(
            [
                jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1),
                jnp.concatenate([normal, jnp.zeros(2, dtype)])[None],
                jnp.concatenate([by_start, changes])[None],
            ]
        )
        wanted = jnp.concatenate([around.right[:, 0], jnp.stack([jnp.zeros((), dtype), -off])])
        # The tangent leaves the equations as they are, and leaves the plane.
        ahead = jnp.zeros(n + 2, dtype).at[n + 1].set(1)
        moves, tangents = jnp.linalg.solve(matrix, jnp.stack([wanted, ahead], axis=1)).T
        one, nothing = jnp.ones((1,), dtype), jnp.zeros((1,), dtype)
        move = _changes(segments, around, moves[:n], moves[:n], jnp.concatenate([one, moves[n:]]))
        tangent = _changes(segments, around, tangents[:n], tangents[:n], jnp.concatenate([nothing, tangents[n:]]))
        length = jnp.sqrt(jnp.mean((tangent.ends / size) ** 2) + tangent.log_period**2 + tangent.level**2)
        tangent = Discrete._make([now.mesh, *(part / length for part in tangent[1:])])
        extent = jnp.maximum(jnp.abs(now.ends - now.ends.mean(axis=0, keepdims=True)).max(), eps)
        gap = jnp.maximum(jnp.abs(move.ends).max() / extent, jnp.maximum(jnp.abs(move.log_period), jnp.abs(move.level)))
        part = jnp.minimum(1.0, LONGEST / gap).astype(dtype)
        residual = jnp.abs(segments.right[..., 0]).max() / extent
        after = now.moved(part, move)
        return Corrected(after, gap, residual, at.count + 1, around.first, around.second, normal, tangent), at.size

    def goes_on(state: tuple[Corrected, Array]) -> Array:
        at, before = state
        gains = (at.size > 16 * eps) & ((at.size > 1e-4) | (at.size < 0.5 * before))
        finite = jnp.isfinite(at.orbit.ends).all() & jnp.isfinite(at.orbit.log_period) & jnp.isfinite(at.orbit.level)
        return gains & (at.count < CORRECTIONS) & finite

    far, nothing = jnp.asarray(jnp.inf, dtype), jnp.zeros((n, n), dtype)
    start = Corrected(begin, far, far, jnp.asarray(0), nothing, nothing, nothing[0], along)
    return jax.lax.while_loop(goes_on, improve, (start, far))[0]


@eqx.filter_jit
def nullspace(method: AbstractMethod, system: System, orbit: Discrete) -> tuple[Discrete, Discrete, Discrete]:
    """Directions in which an orbit can change, to first order. Two that are nearest to leave it an orbit; and the one that
    is nearest to come back reversed after a round, as at a period doubling, where the period and the level stay."""
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    segments = method.segments(system, orbit)
    around = method.round(segments)
    normal = system.velocity(orbit.ends[0], orbit.level)
    phase = jnp.concatenate([normal / jnp.linalg.norm(normal), jnp.zeros(2, dtype)])
    rows = jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1)
    same = jnp.linalg.svd(jnp.concatenate([rows, phase[None]]))[2][-2:]
    reverse = jnp.linalg.svd(around.first - around.second)[2][-1]
    none = jnp.zeros(1, dtype)
    first, second = (
        _changes(segments, around, one[:n], one[:n], jnp.concatenate([none, one[n:]])) for one in (same[0], same[1])
    )
    return first, second, _changes(segments, around, reverse, -reverse, jnp.zeros(3, dtype))


def _changes(segments: Segments, around: Round, start: Array, end: Array, weights: Array) -> Discrete:
    """The change of the whole orbit whose first point moves by `start` and whose last moves by `end` (n,), with weights (3,)
    of the residual, the logarithm of the period and the level."""
    ends = around.points(start, end, weights)
    each = jnp.concatenate([ends, jnp.broadcast_to(weights, (len(ends), 3))], axis=1)
    inner = jnp.einsum("jmnk,jk->jmn", segments.inside, each)
    return Discrete(jnp.zeros(len(ends) + 1, ends.dtype), ends, inner, weights[1], weights[2])


def as_orbit(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, period: float, level: float = 0.0) -> Discrete:
    return Discrete._make(jnp.asarray(part) for part in (mesh, ends, inner, np.log(period), level))
