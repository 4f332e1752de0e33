"""The equations of a periodic orbit, and Newton's iteration on them, in working units.

The unknowns are the states at the ends of N segments, what the method needs within them, the logarithm of the period, and
on a branch the parameter. Changes along the orbit itself, which only shift its phase, are left out on the mean over its
points. If they were left out at one point only, the others would run along the orbit where it changes its shape.
"""

import abc
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.cycles.chain import Round, joined, multiplied
from ssntk.cycles.collocation import gauss
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

    def velocity(self, x: Array, level: Array) -> Array:
        model = self.family(self.begin + level * self.reach)
        return field_at(model, x * self.sizes, self.u) * (self.unit / self.sizes)


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
        rows, b = _dormand_prince(dtype)

        def flow(x: Array, log_period: Array, level: Array, width: Array) -> Array:
            step = jnp.exp(log_period) * width / self.steps

            def on(x: Array, _: None) -> tuple[Array, None]:
                velocities: list[Array] = []
                for row in rows:
                    inner = x + step * sum((w * v for w, v in zip(row, velocities, strict=True)), jnp.zeros_like(x))
                    velocities.append(system.velocity(inner, level))
                return x + step * sum((w * v for w, v in zip(b, velocities, strict=True)), jnp.zeros_like(x)), None

            return jax.lax.scan(on, x, None, length=self.steps)[0]

        def one(width: Array, x: Array, after: Array) -> tuple[Array, Array]:
            reached, push = jax.linearize(
                lambda x, log_period, level: flow(x, log_period, level, width), x, orbit.log_period, orbit.level
            )
            axes = jnp.eye(n + 2, dtype=dtype)
            slope = jax.vmap(lambda axis: push(axis[:n], axis[n], axis[n + 1]), out_axes=1)(axes)
            return -slope[:, :n], jnp.concatenate([(reached - after)[:, None], slope[:, n:]], axis=1)

        widths = jnp.diff(orbit.mesh)
        first, right = jax.vmap(one)(widths, orbit.ends, jnp.roll(orbit.ends, -1, axis=0))
        same = jnp.broadcast_to(jnp.eye(n, dtype=dtype), first.shape)
        return Segments(first, same, right, jnp.zeros((len(widths), 0, n, n + 3), dtype))

    def round(self, segments: Segments) -> Round:
        return multiplied(segments.first, segments.right)


def _dormand_prince(dtype: Any) -> tuple[list[list[Array]], list[Array]]:
    """The weights of the stages and of the step, of order 8."""
    tableau = diffrax.Dopri8.tableau
    rows = [[], *([jnp.asarray(w, dtype) for w in row] for row in tableau.a_lower)]
    return rows, [jnp.asarray(w, dtype) for w in tableau.b_sol]


def _linear(system: System, x: Array, level: Array) -> tuple[Array, Array, Array]:
    """The velocity at x (n,), its Jacobian, and its derivative over the level."""

    def both(x: Array) -> tuple[Array, Array]:
        velocity = system.velocity(x, level)
        return velocity, velocity

    slope, velocity = jax.jacfwd(both, has_aux=True)(x)
    return velocity, slope, jax.jvp(lambda level: system.velocity(x, level), (level,), (jnp.ones_like(level),))[1]


class Corrected(NamedTuple):
    """An orbit after Newton's iteration: the size of the last correction and of the largest residual before it, relative to
    the orbit; the number of corrections; the round, and the velocity (n,) where it begins; and the tangent of the branch, of
    length one."""

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
        velocity = system.velocity(now.ends[0], now.level)
        # The plane asks for sum weights d_j + d log T + d level along = 0, which depends on d_0 and w.
        by_start, by_weights = _pulled(around, weights)
        shift, shift_weights = _phase(system, now, around)
        off = jnp.sum(weights * (now.ends - begin.ends)) + along.log_period * (now.log_period - begin.log_period)
        off = off + along.level * (now.level - begin.level) + by_weights[0]
        changes = by_weights[1:] + jnp.stack([along.log_period, along.level])
        matrix = jnp.concatenate(
            [
                jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1),
                jnp.concatenate([shift, shift_weights[1:]])[None],
                jnp.concatenate([by_start, changes])[None],
            ]
        )
        wanted = jnp.concatenate([around.right[:, 0], jnp.stack([-shift_weights[0], -off])])
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
        return Corrected(after, gap, residual, at.count + 1, around.first, around.second, velocity, tangent), at.size

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
    shift, shift_weights = _phase(system, orbit, around)
    phase = jnp.concatenate([shift, shift_weights[1:]])
    rows = jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1)
    same = jnp.linalg.svd(jnp.concatenate([rows, phase[None]]))[2][-2:]
    reverse = jnp.linalg.svd(around.first - around.second)[2][-1]
    none = jnp.zeros(1, dtype)
    first, second = (
        _changes(segments, around, one[:n], one[:n], jnp.concatenate([none, one[n:]])) for one in (same[0], same[1])
    )
    return first, second, _changes(segments, around, reverse, -reverse, jnp.zeros(3, dtype))


def _pulled(around: Round, weights: Array) -> tuple[Array, Array]:
    """How the sum of `weights` (N, n) times the moves of the points depends on d_0 (n,) and on the weights (3,) of the
    columns."""
    n, dtype = weights.shape[1], weights.dtype
    zero = jnp.zeros(n, dtype), jnp.zeros(3, dtype)
    return jax.vjp(lambda start, columns: around.points(start, start, columns), *zero)[1](weights)


def _phase(system: System, orbit: Discrete, around: Round) -> tuple[Array, Array]:
    """How the mean shift of the points along the orbit depends on d_0 (n,) and on the weights (3,) of the columns."""
    velocities = jax.vmap(lambda x: system.velocity(x, orbit.level))(orbit.ends)
    return _pulled(around, velocities / jnp.linalg.norm(velocities))


def _changes(segments: Segments, around: Round, start: Array, end: Array, weights: Array) -> Discrete:
    """The change of the whole orbit whose first point moves by `start` and whose last moves by `end` (n,), with weights (3,)
    of the residual, the logarithm of the period and the level."""
    ends = around.points(start, end, weights)
    each = jnp.concatenate([ends, jnp.broadcast_to(weights, (len(ends), 3))], axis=1)
    inner = jnp.einsum("jmnk,jk->jmn", segments.inside, each)
    return Discrete(jnp.zeros(len(ends) + 1, ends.dtype), ends, inner, weights[1], weights[2])


def as_orbit(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, period: float, level: float = 0.0) -> Discrete:
    return Discrete._make(jnp.asarray(part) for part in (mesh, ends, inner, np.log(period), level))
