"""The equations of a periodic orbit, and Newton's iteration on them, in working units.

The unknowns are the states at the ends of N segments, what the method needs within them, and the logarithm of the period.
The phase is fixed at the first end, normal to the velocity there.
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

# The largest number of corrections, and the longest one relative to the orbit.
CORRECTIONS, LONGEST = 30, 0.5


class Discrete(NamedTuple):
    """A discrete orbit: `mesh` (N + 1,) from 0 to 1, states at its points `ends` (N, n), those within segments `inner`
    (N, m, n), and the logarithm of the period."""

    mesh: Float[Array, " M"]
    ends: Float[Array, "N n"]
    inner: Float[Array, "N m n"]
    log_period: Float[Array, ""]


class Segments(NamedTuple):
    """What each segment does, to first order: `first d_j + second d_(j+1) = right`, with the residual and the effect of the
    logarithm of the period as the columns of `right`. `inside` (N, m, n, n + 2): how the states within follow."""

    first: Float[Array, "N n n"]
    second: Float[Array, "N n n"]
    right: Float[Array, "N n 2"]
    inside: Float[Array, "N m n k"]


class AbstractMethod(eqx.Module):
    """How the flow of one segment is computed."""

    @abc.abstractmethod
    def segments(self, model: AbstractStateSpaceModel, u: Array, orbit: Discrete) -> Segments: ...

    @abc.abstractmethod
    def round(self, segments: Segments) -> Round: ...


class Collocation(AbstractMethod):
    """Gauss collocation of this degree; see `collocation`."""

    degree: int = eqx.field(static=True)

    def segments(self, model: AbstractStateSpaceModel, u: Array, orbit: Discrete) -> Segments:
        (_, a, b), dtype = gauss(self.degree), orbit.ends.dtype
        a, b = (jnp.asarray(part, dtype) for part in (a, b))
        m, n = self.degree, orbit.ends.shape[1]
        period = jnp.exp(orbit.log_period)

        def one(width: Array, x: Array, after: Array, inner: Array) -> tuple[Array, ...]:
            step = period * width
            velocity, slope = jax.vmap(lambda z: _linear(model, u, z))(inner)
            matrix = jnp.eye(m * n, dtype=dtype) - (step * jnp.einsum("il,lpq->iplq", a, slope)).reshape(m * n, m * n)
            moved = step * (a @ velocity)
            same = jnp.broadcast_to(jnp.eye(n, dtype=dtype), (m, n, n))
            columns = jnp.concatenate([same, moved[..., None], (x[None] + moved - inner)[..., None]], axis=2)
            inside = jnp.linalg.solve(matrix, columns.reshape(m * n, n + 2)).reshape(m, n, n + 2)
            total = step * (b @ velocity)
            through = step * jnp.einsum("l,lpq,lqk->pk", b, slope, inside)
            first = -(jnp.eye(n, dtype=dtype) + through[:, :n])
            residual = x + total + through[:, n + 1] - after
            return first, jnp.stack([residual, total + through[:, n]], axis=1), inside

        widths = jnp.diff(orbit.mesh)
        first, right, inside = jax.vmap(one)(widths, orbit.ends, jnp.roll(orbit.ends, -1, axis=0), orbit.inner)
        return Segments(first, jnp.broadcast_to(jnp.eye(n, dtype=dtype), first.shape), right, inside)

    def round(self, segments: Segments) -> Round:
        return joined(segments.first, segments.second, segments.right)


class Shooting(AbstractMethod):
    """Steps of Dormand and Prince's method of order 8 from end to end, `steps` in each segment, with exact tangents."""

    steps: int = eqx.field(static=True)

    def segments(self, model: AbstractStateSpaceModel, u: Array, orbit: Discrete) -> Segments:
        n, dtype = orbit.ends.shape[1], orbit.ends.dtype
        rows, b = _dormand_prince(dtype)

        def flow(x: Array, log_period: Array, width: Array) -> Array:
            step = jnp.exp(log_period) * width / self.steps

            def on(x: Array, _: None) -> tuple[Array, None]:
                velocities: list[Array] = []
                for row in rows:
                    inner = x + step * sum((w * v for w, v in zip(row, velocities, strict=True)), jnp.zeros_like(x))
                    velocities.append(field_at(model, inner, u))
                return x + step * sum((w * v for w, v in zip(b, velocities, strict=True)), jnp.zeros_like(x)), None

            return jax.lax.scan(on, x, None, length=self.steps)[0]

        def one(width: Array, x: Array, after: Array) -> tuple[Array, Array]:
            reached, push = jax.linearize(lambda x, s: flow(x, s, width), x, orbit.log_period)
            columns = jnp.concatenate([jnp.eye(n, dtype=dtype), jnp.zeros((1, n), dtype)])
            slope = jax.vmap(lambda v, s: push(v, s), out_axes=1)(columns, jnp.zeros(n + 1, dtype).at[n].set(1))
            return -slope[:, :n], jnp.stack([reached - after, slope[:, n]], axis=1)

        widths = jnp.diff(orbit.mesh)
        first, right = jax.vmap(one)(widths, orbit.ends, jnp.roll(orbit.ends, -1, axis=0))
        same = jnp.broadcast_to(jnp.eye(n, dtype=dtype), first.shape)
        return Segments(first, same, right, jnp.zeros((len(widths), 0, n, n + 2), dtype))

    def round(self, segments: Segments) -> Round:
        return multiplied(segments.first, segments.right)


def _dormand_prince(dtype: Any) -> tuple[list[list[Array]], list[Array]]:
    """The weights of the stages and of the step, of order 8."""
    tableau = diffrax.Dopri8.tableau
    rows = [[], *([jnp.asarray(w, dtype) for w in row] for row in tableau.a_lower)]
    return rows, [jnp.asarray(w, dtype) for w in tableau.b_sol]


def _linear(model: AbstractStateSpaceModel, u: Array, x: Array) -> tuple[Array, Array]:
    """The velocity at x (n,) and its Jacobian."""

    def both(x: Array) -> tuple[Array, Array]:
        velocity = field_at(model, x, u)
        return velocity, velocity

    slope, velocity = jax.jacfwd(both, has_aux=True)(x)
    return velocity, slope


class Corrected(NamedTuple):
    """An orbit after Newton's iteration: the size of the last correction and of the largest residual before it, relative to
    the orbit; the number of corrections; and the round."""

    orbit: Discrete
    size: Float[Array, ""]
    residual: Float[Array, ""]
    count: Array
    first: Float[Array, "n n"]
    second: Float[Array, "n n"]


@eqx.filter_jit
def corrected(method: AbstractMethod, model: AbstractStateSpaceModel, u: Array, orbit: Discrete) -> Corrected:
    """Newton's iteration from `orbit`, until the corrections are at rounding level or no longer shrink."""
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    eps = jnp.finfo(dtype).eps

    def improve(state: tuple[Corrected, Array]) -> tuple[Corrected, Array]:
        at, _ = state
        now = at.orbit
        segments = method.segments(model, u, now)
        around = method.round(segments)
        normal = field_at(model, now.ends[0], u)
        normal = normal / jnp.linalg.norm(normal)
        # first d_0 + second d_0 - right_s d_s = right_0, and d_0 is normal to the velocity.
        matrix = jnp.block([[around.first + around.second, -around.right[:, 1:]], [normal[None], jnp.zeros((1, 1), dtype)]])
        move = jnp.linalg.solve(matrix, jnp.append(around.right[:, 0], 0))
        change = move[n]
        ends = around.points(move[:n], jnp.stack([jnp.ones_like(change), change]))
        weights = jnp.concatenate([ends, jnp.full((len(ends), 1), change, dtype), jnp.ones((len(ends), 1), dtype)], axis=1)
        inner = jnp.einsum("jmnk,jk->jmn", segments.inside, weights)
        extent = jnp.maximum(jnp.abs(now.ends - now.ends.mean(axis=0, keepdims=True)).max(), eps)
        size = jnp.maximum(jnp.abs(ends).max() / extent, jnp.abs(change))
        part = jnp.minimum(1.0, LONGEST / size).astype(dtype)
        residual = jnp.abs(segments.right[..., 0]).max() / extent
        after = Discrete(now.mesh, now.ends + part * ends, now.inner + part * inner, now.log_period + part * change)
        return Corrected(after, size, residual, at.count + 1, around.first, around.second), at.size

    def goes_on(state: tuple[Corrected, Array]) -> Array:
        at, before = state
        gains = (at.size > 16 * eps) & ((at.size > 1e-4) | (at.size < 0.5 * before))
        return gains & (at.count < CORRECTIONS) & jnp.isfinite(at.orbit.ends).all() & jnp.isfinite(at.orbit.log_period)

    far, nothing = jnp.asarray(jnp.inf, dtype), jnp.zeros((n, n), dtype)
    begin = Corrected(orbit, far, far, jnp.asarray(0), nothing, nothing)
    return jax.lax.while_loop(goes_on, improve, (begin, far))[0]


def as_orbit(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, period: float) -> Discrete:
    return Discrete(*(jnp.asarray(part) for part in (mesh, ends, inner, np.log(period))))
