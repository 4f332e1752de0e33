"""The derivative of a closed orbit by collocation, for small and stiff systems and for unstable orbits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.collapse.closed import Closed, Nodes, check_same, extents, least
from ssntk.cycles.chain import joined
from ssntk.cycles.collocation import condensed, gauss
from ssntk.cycles.discrete import Alone, Collocation, Corrected, Discrete, System, as_orbit, corrected, flat
from ssntk.cycles.orbit import Orbit
from ssntk.errors import NumericalError
from ssntk.kernel.replay import check_room
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.theta import Theta

# The degree of the collocation, whose error at the ends of intervals is of order 8.
DEGREE = 4


class Collocated(eqx.Module):
    """A collocated orbit to first order, in working units of its `system`.

    Forces at the Gauss points of an interval move its end by `right`, and the states within by `inside`; see `condensed`.
    """

    system: System
    orbit: Discrete
    first: Array
    right: Array
    inside: Array
    velocities: Array
    starts: Array

    @property
    def times(self) -> np.ndarray:
        """The times (N, m) of the Gauss points, in units of the period."""
        mesh = np.asarray(self.orbit.mesh, float)
        return mesh[:-1, None] + np.diff(mesh)[:, None] * gauss(DEGREE)[0]

    @property
    def weights(self) -> np.ndarray:
        """The weights (N, m) of the Gauss points, which sum to one."""
        return np.diff(np.asarray(self.orbit.mesh, float))[:, None] * gauss(DEGREE)[2]

    def phases(self) -> tuple[np.ndarray, np.ndarray]:
        """The velocity and the phase response (N, n) at the points."""
        columns = jnp.zeros((*self.orbit.ends.shape, 0), self.first.dtype)
        kicks = np.asarray(_solved(self, columns)[2], float)
        response = -float(np.exp(self.orbit.log_period)) * np.roll(kicks, 1, axis=0)
        return np.asarray(self.starts, float), response


def collocated(model: AbstractStateSpaceModel, orbit: Orbit) -> Collocated:
    """The orbit, corrected by collocation on its own mesh. `ValueError` if it is none of this model."""
    dtype = dtype_of(model)
    sizes, unit = extents(orbit.x), orbit.period / (2 * np.pi)
    parts = (jnp.asarray(part, dtype) for part in (orbit.u, sizes, unit, 0.0, 1.0))
    system = System(Alone(model), *parts)
    mesh = np.append(orbit.ts, orbit.period)
    inner = orbit.at((mesh[:-1, None] + np.diff(mesh)[:, None] * gauss(DEGREE)[0]).ravel()) / sizes
    states = np.asarray(orbit.x / sizes, dtype), np.asarray(inner.reshape(len(orbit.ts), DEGREE, -1), dtype)
    guess = as_orbit(np.asarray(mesh / orbit.period, dtype), *states, orbit.period / unit)
    method, zero = Collocation(DEGREE), jnp.zeros_like(guess.level)
    check_same(float(jnp.abs(_residual(method, system, guess)).max()))
    found: Corrected = corrected(method, system, guess, flat(guess), zero, zero + 1)
    if not float(found.size) <= float(np.finfo(dtype).eps) ** 0.5:
        raise NumericalError(
            "Newton's iteration from the orbit did not converge: at a fold or a branch point of cycles the orbit has no "
            "derivative; move the parameter away from it"
        )
    return Collocated(system, found.orbit, *_linearised(system, found.orbit))


@eqx.filter_jit
def _residual(method: Collocation, system: System, orbit: Discrete) -> Array:
    """By how much (N, n) each interval misses the next, after the states within it are corrected once."""
    return method.segments(system, orbit).right[:, :, 0]


@eqx.filter_jit
def _linearised(system: System, orbit: Discrete) -> tuple[Array, ...]:
    n, dtype = orbit.ends.shape[1], orbit.ends.dtype
    model, period = system.model(orbit.level), jnp.exp(orbit.log_period)
    forces = jnp.eye(DEGREE * n, dtype=dtype).reshape(DEGREE, n, DEGREE * n)

    def one(segment: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        width, x, after, inner = segment
        velocity = jax.vmap(lambda z: system.driven(model, z))(inner)
        slope = jax.vmap(jax.jacfwd(lambda z: system.driven(model, z)))(inner)
        return *condensed(DEGREE, period * width, x, after, inner, velocity, slope, forces), velocity

    parts = jnp.diff(orbit.mesh), orbit.ends, jnp.roll(orbit.ends, -1, axis=0), orbit.inner
    first, right, inside, velocities = jax.lax.map(one, parts)
    return first, right[:, :, 1:], inside, velocities, jax.vmap(lambda z: system.driven(model, z))(orbit.ends)


@eqx.filter_jit
def forces(theta: Theta, at: Collocated) -> Array:
    """F (N, m, n, p) at the Gauss points, in working units of states and time."""

    def one(x: Array) -> Array:
        by_theta = jax.jacrev(lambda leaves: at.system.driven(theta.put(leaves), x))(theta.arrays)
        return theta.ravel(by_theta, lead=1)

    return jax.lax.map(jax.vmap(one), at.orbit.inner)


@eqx.filter_jit
def _solved(at: Collocated, columns: Array) -> tuple[Array, Array, Array]:
    """The moves (N, n, p) of the points for forces that move the ends of intervals by `columns` (N, n, p), the relative
    changes (p,) of the period, and how the period depends on a kick (N, n) at the end of each interval.

    The first point moves normal to the velocity.
    """
    n, dtype = at.first.shape[1], at.first.dtype
    second = jnp.broadcast_to(jnp.eye(n, dtype=dtype), at.first.shape)
    start = at.starts[0] / jnp.linalg.norm(at.starts[0])

    def moves(columns: Array) -> tuple[Array, Array]:
        around = joined(at.first, second, jnp.concatenate([at.right[:, :, :1], columns], axis=2))
        upper = jnp.concatenate([around.first + around.second, -around.right[:, :1]], axis=1)
        matrix = jnp.concatenate([upper, jnp.append(start, 0.0)[None]])
        wanted = jnp.concatenate([around.right[:, 1:], jnp.zeros((1, columns.shape[2]), dtype)])
        known = jnp.linalg.solve(matrix, wanted)
        # The moves that `around` stores follow the first point, the last point, and the columns.
        by_start = around.moves[:, :, :n] + around.moves[:, :, n : 2 * n]
        rest = around.moves[:, :, 2 * n : 2 * n + 1] * known[None, None, n] + around.moves[:, :, 2 * n + 1 :]
        return by_start @ known[:n] + rest, known[n]

    points, shifts = moves(columns)
    kicks = jax.grad(lambda kick: moves(kick[:, :, None])[1][0])(jnp.zeros(at.first.shape[:2], dtype))
    return points, shifts, kicks


def by_collocation(theta: Theta, orbit: Orbit, metric: np.ndarray) -> Closed:
    """The orbit to first order at the points of its own mesh."""
    at = collocated(theta.model, orbit)
    count, n = at.orbit.ends.shape
    check_room(3 * count * DEGREE * n * theta.size * 8, "derivative of the orbit")
    sizes, unit = (np.asarray(part, float) for part in (at.system.sizes, at.system.unit))
    drive = np.asarray(forces(theta, at), float).reshape(count, DEGREE * n, -1)
    right, inside = np.asarray(at.right, float), np.asarray(at.inside, float)
    columns = right[:, :, 1:] @ drive
    points, shifts, kicks = (np.asarray(part, float) for part in _solved(at, jnp.asarray(columns, at.first.dtype)))
    within = inside[..., n + 1].reshape(count, -1, 1) * shifts
    for part, moves in ((inside[..., :n], points), (inside[..., n + 2 :], drive)):
        within = within + part.reshape(count, DEGREE * n, -1) @ moves
    within = within.reshape(count, DEGREE, n, -1)
    period = float(np.exp(at.orbit.log_period)) * float(unit)
    # From working units to the user's. A kick at the end of an interval acts at the next point.
    speeds, velocity = (np.asarray(part, float) * sizes / unit for part in (at.velocities, at.starts))
    points, within = points * sizes[:, None], within * sizes[:, None]
    response = -period * np.roll(np.asarray(kicks, float), 1, axis=0) / sizes
    weights = at.weights.ravel()
    speeds, within = speeds.reshape(-1, n), within.reshape(-1, n, theta.size)
    shift, speed = least(speeds, within, weights, metric)
    points -= velocity[:, :, None] * shift
    within -= speeds[:, :, None] * shift
    nodes = Nodes(at.times.ravel() * period, weights, within, None)
    states, ts = np.asarray(at.orbit.ends, float) * sizes, np.asarray(at.orbit.mesh, float)[:-1] * period
    return Closed(ts, states, velocity, response, points, period * shifts, speed, nodes)
