"""The equations of a periodic orbit, and Newton's iteration on them, in working units.

The unknowns are the states at the ends of N segments, what the method needs within them, the logarithm of the period, and
on a branch the parameter. Changes along the orbit itself, which only shift its phase, are left out on the mean over its
points. If they were left out at one point only, the others would run along the orbit where it changes its shape.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.cycles.chain import Multiplied, Round, joined, multiplied
from ssntk.cycles.collocation import condensed
from ssntk.cycles.steps import pushed, stepped
from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel

# The largest number of corrections, and the longest one relative to the orbit.
CORRECTIONS, LONGEST = 30, 0.5
# Corrections with derivatives that are known are repeated at most so often, as long as each is this much smaller.
CHORDS, SHRINKS = 16, 0.25


class Alone(eqx.Module):
    """A family whose model does not depend on the parameter."""

    model: AbstractStateSpaceModel

    def __call__(self, parameter: Any) -> AbstractStateSpaceModel:
        return self.model


class System(eqx.Module):
    """Flows over a parameter in working units: states in `sizes` (n,), time in `unit`, p = `begin` + level `reach`. The
    `family` is a [`Family`][], or another module that gives the model at p."""

    family: Any
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


class Linear(eqx.Module):
    """The equations to first order: the round, and the velocities (N, n) at its points, of length one, or zero if nothing is
    known."""

    around: Multiplied
    velocities: Float[Array, "N n"]


class AbstractMethod(eqx.Module):
    """How the flow of one segment is computed."""

    def residuals(self, system: System, orbit: Discrete) -> Float[Array, "N n"]:
        """The residuals alone, if that is much cheaper than `segments`."""
        raise NotImplementedError

    def unknown(self, orbit: Discrete) -> Linear | None:
        """Nothing, in the shapes of what is known about an orbit; `None` if residuals alone are not cheaper."""
        return None

    @abc.abstractmethod
    def segments(self, system: System, orbit: Discrete) -> Segments: ...

    @abc.abstractmethod
    def round(self, segments: Segments) -> Round: ...


class Collocation(AbstractMethod):
    """Gauss collocation of this degree; see `collocation`."""

    degree: int = eqx.field(static=True)

    def segments(self, system: System, orbit: Discrete) -> Segments:
        period = jnp.exp(orbit.log_period)

        def one(width: Array, x: Array, after: Array, inner: Array) -> tuple[Array, ...]:
            velocity, slope, pushed = jax.vmap(lambda z: _linear(system, z, orbit.level))(inner)
            return condensed(self.degree, period * width, x, after, inner, velocity, slope, pushed[:, :, None])

        after = jnp.roll(orbit.ends, -1, axis=0)
        first, right, inside = jax.vmap(one)(jnp.diff(orbit.mesh), orbit.ends, after, orbit.inner)
        same = jnp.broadcast_to(jnp.eye(first.shape[-1], dtype=first.dtype), first.shape)
        return Segments(first, same, right, inside)

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

    def residuals(self, system: System, orbit: Discrete) -> Float[Array, "N n"]:
        model = system.model(orbit.level)

        def one(length: Array, x: Array) -> Array:
            return stepped(lambda x: length * system.driven(model, x), x, self.steps)

        return jax.vmap(one)(self._lengths(orbit), orbit.ends) - jnp.roll(orbit.ends, -1, axis=0)

    def unknown(self, orbit: Discrete) -> Linear | None:
        count, n = orbit.ends.shape
        shapes = (n, n), (n, n), (n, 3), (count, n, n), (count, n, n), (count, n, 3), (count, n)
        *parts, velocities = (jnp.zeros(shape, orbit.ends.dtype) for shape in shapes)
        return Linear(Multiplied(*parts), velocities)


def _linear(system: System, x: Array, level: Array) -> tuple[Array, Array, Array]:
    """The velocity at x (n,), its Jacobian, and its derivative over the level."""

    def both(x: Array) -> tuple[Array, Array]:
        velocity = system.velocity(x, level)
        return velocity, velocity

    slope, velocity = jax.jacfwd(both, has_aux=True)(x)
    return velocity, slope, jax.jvp(lambda level: system.velocity(x, level), (level,), (jnp.ones_like(level),))[1]


class Corrected(NamedTuple):
    """An orbit after Newton's iteration: the size of the last correction and of the largest residual before it, relative to
    the orbit; the number of times that derivatives were computed; the round, and the velocity (n,) where it begins; the
    tangent of the branch, of length one; and what was known to first order, for the next orbit."""

    orbit: Discrete
    size: Float[Array, ""]
    residual: Float[Array, ""]
    count: Array
    first: Float[Array, "n n"]
    second: Float[Array, "n n"]
    velocity: Float[Array, " n"]
    tangent: Discrete
    known: Linear | None


def flat(orbit: Discrete) -> Discrete:
    """The direction in which only the level changes."""
    like = np if isinstance(orbit.ends, np.ndarray) else jnp
    return Discrete._make([*(like.zeros_like(part) for part in orbit[:4]), like.ones_like(orbit.level)])


def corrected(
    method: AbstractMethod,
    system: System,
    orbit: Discrete,
    along: Discrete,
    step: Any,
    size: Any,
    known: Linear | None = None,
    most: int = CORRECTIONS,
) -> Corrected:
    """Newton's iteration from `orbit` + `step` `along`, in the plane normal to `along`, until the corrections are at
    rounding level or no longer shrink. Along `flat` the level stays. `known`: the equations to first order at an orbit
    nearby, which save derivatives. `most`: the largest number of corrections.

    Lengths are `sqrt(mean((d_j / size)^2) + (d log T)^2 + (d level)^2)`.
    """
    if known is None or known.around.each.shape[0] != orbit.ends.shape[0]:
        known = method.unknown(orbit)
    return _corrected(method, system, orbit, along, step, size, known, np.asarray(most))


class _Newton(eqx.Module):
    """Newton's iteration in the plane through `begin` normal to `along`."""

    method: AbstractMethod
    system: System
    begin: Discrete
    along: Discrete
    size: Float[Array, ""]

    @property
    def weights(self) -> Array:
        return self.along.ends / (self.along.ends.size * self.size**2)

    def off(self, now: Discrete) -> Array:
        """How far an orbit lies ahead of the plane."""
        off = jnp.sum(self.weights * (now.ends - self.begin.ends))
        off = off + self.along.log_period * (now.log_period - self.begin.log_period)
        return off + self.along.level * (now.level - self.begin.level)

    def factored(self, around: Round, velocities: Array) -> tuple[tuple[Array, Array], Array]:
        """The factors of the equations for d_0, the change of the logarithm of the period and that of the level, and by how
        much (2,) the residual alone shifts the orbit along itself, and leads ahead of the plane."""
        shift, shift_weights = _pulled(around, velocities)
        # The plane asks for sum weights d_j + d log T + d level along = 0, which depends on d_0 and w.
        by_start, by_weights = _pulled(around, self.weights)
        changes = by_weights[1:] + jnp.stack([self.along.log_period, self.along.level])
        rows = [
            jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1),
            jnp.concatenate([shift, shift_weights[1:]])[None],
            jnp.concatenate([by_start, changes])[None],
        ]
        shares = jnp.stack([shift_weights[0], by_weights[0]])
        return jax.scipy.linalg.lu_factor(jnp.concatenate(rows)), shares

    def wanted(self, around: Round, now: Discrete, shares: Array) -> Array:
        """The right-hand sides (n + 2,) of these equations at an orbit."""
        return jnp.concatenate([around.right[:, 0], -shares.at[1].add(self.off(now))])

    def gap(self, now: Discrete, move: Discrete) -> Array:
        """The size of a correction, relative to the orbit."""
        extent = self.extent(now)
        return jnp.maximum(jnp.abs(move.ends).max() / extent, jnp.maximum(jnp.abs(move.log_period), jnp.abs(move.level)))

    def extent(self, now: Discrete) -> Array:
        extent = jnp.abs(now.ends - now.ends.mean(axis=0, keepdims=True)).max()
        return jnp.maximum(extent, jnp.finfo(extent.dtype).eps)

    def improved(self, state: tuple[Corrected, Array]) -> tuple[Corrected, Array]:
        """Corrections with the derivatives that are known, and one with new ones. The state: the orbit, and the size of the
        correction before the last one."""
        at, n, dtype = state[0], state[0].velocity.shape[0], state[0].velocity.dtype
        now, before = at.orbit, at.size
        if at.known is not None:
            now, last = self.repeated(now, at.known, before)
            before = jnp.minimum(last, before)
        segments = self.method.segments(self.system, now)
        around = self.method.round(segments)
        velocities = _velocities(self.system, now)
        along = velocities / jnp.linalg.norm(velocities)
        factors, shares = self.factored(around, along)
        wanted = self.wanted(around, now, shares)
        # The tangent leaves the equations as they are, and leaves the plane.
        ahead = jnp.zeros(n + 2, dtype).at[n + 1].set(1)
        starts = jax.scipy.linalg.lu_solve(factors, jnp.stack([wanted, ahead], axis=1)).T
        weights = jnp.concatenate([jnp.asarray([[1], [0]], dtype), starts[:, n:]], axis=1)
        both = jax.vmap(lambda start, weights: _changes(segments, around, start, start, weights))(starts[:, :n], weights)
        move, tangent = (Discrete._make(part[i] for part in both) for i in (0, 1))
        length = jnp.sqrt(jnp.mean((tangent.ends / self.size) ** 2) + tangent.log_period**2 + tangent.level**2)
        tangent = Discrete._make([now.mesh, *(part / length for part in tangent[1:])])
        gap = self.gap(now, move)
        after = now.moved(jnp.minimum(1.0, LONGEST / gap).astype(dtype), move)
        residual = jnp.abs(segments.right[..., 0]).max() / self.extent(now)
        known = Linear(around, along) if isinstance(around, Multiplied) else None
        first, second, count = around.first, around.second, at.count + 1
        return Corrected(after, gap, residual, count, first, second, velocities[0], tangent, known), before

    def repeated(self, orbit: Discrete, known: Linear, gap: Array) -> tuple[Discrete, Array]:
        """Corrections by derivatives that are known, and the size of the last one; the orbit itself if they do not shrink.
        `gap`: the size of the correction before."""
        n, dtype = orbit.ends.shape[1], orbit.ends.dtype
        tolerance = 16 * jnp.finfo(dtype).eps
        factors, _ = self.factored(known.around, known.velocities)
        zero = jnp.zeros(n, dtype)

        def on(state: tuple[Discrete, Array, Array, Array]) -> tuple[Discrete, Array, Array, Array]:
            now, gap, _, count = state
            around = known.around.renewed(self.method.residuals(self.system, now))
            shares = jnp.stack([jnp.sum(by * around.totals[..., 0]) for by in (known.velocities, self.weights)])
            moves = jax.scipy.linalg.lu_solve(factors, self.wanted(around, now, shares))
            ends = around.points(moves[:n], zero, jnp.concatenate([jnp.ones(1, dtype), moves[n:]]))
            move = Discrete(jnp.zeros_like(now.mesh), ends, jnp.zeros_like(now.inner), moves[n], moves[n + 1])
            return now.moved(1.0, move), self.gap(now, move), gap, count + 1

        def goes_on(state: tuple[Discrete, Array, Array, Array]) -> Array:
            _, gap, before, count = state
            shrinks = (count == 0) | ((gap < SHRINKS * before) & (gap < LONGEST))
            return shrinks & (gap > tolerance) & (count < CHORDS)

        known_at_all = jnp.any(known.velocities != 0)
        start = jnp.where(known_at_all, gap, 0.0).astype(dtype)
        far = jnp.asarray(jnp.inf, dtype)
        found, last, _, count = jax.lax.while_loop(goes_on, on, (orbit, start, far, jnp.asarray(0)))
        # What no longer shrinks near rounding level has converged.
        good = (count > 0) & (last < 1e-3) & jnp.isfinite(found.ends).all()
        found = jax.tree.map(lambda new, old: jnp.where(good, new, old), found, orbit)
        return found, jnp.where(good & (last < tolerance**0.75), last, far)


@eqx.filter_jit
def _corrected(
    method: AbstractMethod,
    system: System,
    orbit: Discrete,
    along: Discrete,
    step: Any,
    size: Any,
    known: Linear | None,
    most: Any,
) -> Corrected:
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    eps = jnp.finfo(dtype).eps
    begin = orbit.moved(step, along)
    newton = _Newton(method, system, begin, along, size)

    def goes_on(state: tuple[Corrected, Array]) -> Array:
        at, before = state
        gains = (at.size > 16 * eps) & ((at.size > 1e-4) | (at.size < 0.5 * before))
        finite = jnp.isfinite(at.orbit.ends).all() & jnp.isfinite(at.orbit.log_period) & jnp.isfinite(at.orbit.level)
        return gains & (at.count < most) & finite

    far, nothing = jnp.asarray(jnp.inf, dtype), jnp.zeros((n, n), dtype)
    start = Corrected(begin, far, far, jnp.asarray(0), nothing, nothing, nothing[0], along, known)
    # A bound method would be hashed, which traced arrays cannot be.
    return jax.lax.while_loop(goes_on, lambda state: newton.improved(state), (start, far))[0]


@eqx.filter_jit
def nullspace(method: AbstractMethod, system: System, orbit: Discrete) -> tuple[Discrete, Discrete, Discrete]:
    """Directions in which an orbit can change, to first order. Two that are nearest to leave it an orbit; and the one that
    is nearest to come back reversed after a round, as at a period doubling, where the period and the level stay."""
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    segments = method.segments(system, orbit)
    around = method.round(segments)
    velocities = _velocities(system, orbit)
    shift, shift_weights = _pulled(around, velocities / jnp.linalg.norm(velocities))
    phase = jnp.concatenate([shift, shift_weights[1:]])
    rows = jnp.concatenate([around.first + around.second, -around.right[:, 1:]], axis=1)
    same = jnp.linalg.svd(jnp.concatenate([rows, phase[None]]))[2][-2:]
    reverse = jnp.linalg.svd(around.first - around.second)[2][-1]
    none = jnp.zeros(1, dtype)
    first, second = (
        _changes(segments, around, one[:n], one[:n], jnp.concatenate([none, one[n:]])) for one in (same[0], same[1])
    )
    return first, second, _changes(segments, around, reverse, -reverse, jnp.zeros(3, dtype))


def _velocities(system: System, orbit: Discrete) -> Float[Array, "N n"]:
    model = system.model(orbit.level)
    return jax.vmap(lambda x: system.driven(model, x))(orbit.ends)


def _pulled(around: Round, weights: Array) -> tuple[Array, Array]:
    """How the sum of `weights` (N, n) times the moves of the points depends on d_0 (n,) and on the weights (3,) of the
    columns."""
    n, dtype = weights.shape[1], weights.dtype
    zero = jnp.zeros(n, dtype), jnp.zeros(3, dtype)
    return jax.vjp(lambda start, columns: around.points(start, start, columns), *zero)[1](weights)


def _changes(segments: Segments, around: Round, start: Array, end: Array, weights: Array) -> Discrete:
    """The change of the whole orbit whose first point moves by `start` and whose last moves by `end` (n,), with weights (3,)
    of the residual, the logarithm of the period and the level."""
    ends = around.points(start, end, weights)
    each = jnp.concatenate([ends, jnp.broadcast_to(weights, (len(ends), 3))], axis=1)
    inner = jnp.einsum("jmnk,jk->jmn", segments.inside, each)
    return Discrete(jnp.zeros(len(ends) + 1, ends.dtype), ends, inner, weights[1], weights[2])


def as_orbit(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, period: float, level: float = 0.0) -> Discrete:
    return Discrete._make(jnp.asarray(part) for part in (mesh, ends, inner, np.log(period), level))
