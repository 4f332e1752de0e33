"""The conditions of one kind of bifurcation point, as equations c(z, theta) = 0.

The unknowns z hold the state and the critical eigenvectors.

| kind | z | c |
|---|---|---|
| singular | x, v | f, A v |
| saddle-node | x, v, l | f, A v, A^T l normal to v, l.f_xx(v, v) - 2 a l.v abs(v), with a given |
| flip | x, v | f, A v + (2 / dt) v |
| pair | x, v, w, s | f, A v - q v + s w, A w - q w - v |
| turning | x, v, w | the same, with s given |

The equations of a pair mean `A (v + i omega w) = (q + i omega) (v + i omega w)`. The unknown is s = omega^2, so that the
equations stay regular at omega = 0. For flows q = 0. For maps q = (sqrt(1 - s dt^2) - 1) / dt, and the unknown is the
cosine of the multiplier's angle instead of s.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.critical.freedom import Freedom
from ssntk.dynamics.stability import field_at

# The number of vectors (n,) in z, for each kind.
VECTORS = {"singular": 2, "flip": 2, "saddle-node": 3, "pair": 3, "turning": 3}
PAIRS = ("pair", "turning")
# A point has converged if the residuals of its conditions and of the gradient of the Lagrangian are at most this.
TOLERANCE = 1e-10


class Conditions(eqx.Module):
    """The conditions c(z, theta) = 0 of one kind of point."""

    freedom: Freedom
    u: Float[Array, " d"]
    gauge: Float[Array, " n"]  # c of c.v = 1: fixes the scale (and of a pair the phase) of the eigenvectors
    given: Float[Array, ""]
    weigh: Float[Array, " n"]  # the weight of each state in the length of v, which enters a fold's coefficient
    kind: str = eqx.field(static=True)

    @property
    def n(self) -> int:
        return self.freedom.model.n_state

    @property
    def unknowns(self) -> int:
        """The number of unknowns in z."""
        return VECTORS[self.kind] * self.n + (self.kind == "pair")

    def parts(self, z: Array) -> list[Array]:
        """Split z into x (n,), v (n,) and what else it holds for this kind."""
        parts = [z[i * self.n : (i + 1) * self.n] for i in range(VECTORS[self.kind])]
        return [*parts, z[-1] if self.kind == "pair" else self.given] if self.kind in PAIRS else parts

    def turning(self, last: Array) -> tuple[Array, Array]:
        """(q, s = omega^2) of a pair, from the last unknown: s itself, or for maps the cosine of the multiplier's angle."""
        return self.freedom.model.clock.edge_of(last)

    def equations(self, z: Array, theta: Array) -> Array:
        """The residual c(z, theta) of all conditions."""
        model = self.freedom.at_theta(theta)

        def field(x: Array) -> Array:
            return field_at(model, x, self.u)

        if self.kind in PAIRS:
            x, v, w, last = self.parts(z)
            velocity, push = jax.linearize(field, x)
            q, s = self.turning(last)
            return jnp.concatenate([velocity, push(v) - q * v + s * w, push(w) - q * w - v])
        x, v, *rest = self.parts(z)
        if self.kind != "saddle-node":
            velocity, along = jax.jvp(field, (x,), (v,))
            edge = -2 / model.clock.unit if self.kind == "flip" else 0.0
            return jnp.concatenate([velocity, along - edge * v])
        (left,) = rest
        velocity, along = jax.jvp(field, (x,), (v,))
        (back,) = jax.vjp(field, x)[1](left)
        # Only the part of A^T l normal to v is used, since v^T A^T l = 0 follows from A v = 0. Its basis comes from the
        # reflection that maps v onto an axis.
        axis = jnp.argmax(jnp.abs(self.gauge))
        mirror = v / jnp.linalg.norm(v) + jnp.sign(self.gauge[axis]) * jnp.eye(self.n, dtype=v.dtype)[axis]
        across = jnp.roll(back - 2 * mirror * (mirror @ back) / (mirror @ mirror), -axis)[1:]
        bent = jax.jvp(lambda x: jax.jvp(field, (x,), (v,))[1], (x,), (v,))[1]
        bend = left @ bent - 2 * self.given * (left @ v) * jnp.linalg.norm(self.weigh * v)
        return jnp.concatenate([velocity, along, across, bend[None]])

    def gauges(self, z: Array) -> Array:
        """Zero at the chosen scale (and of a pair the phase) of the eigenvectors, which no condition fixes."""
        _, v, *rest = self.parts(z)
        fixed = [self.gauge @ v - 1]
        if self.kind in PAIRS:
            fixed.append(self.gauge @ rest[0])
        if self.kind == "saddle-node":
            fixed.append((rest[0] @ rest[0] - 1) / 2)
        return jnp.stack(fixed)

    def regauged(self, z: np.ndarray) -> tuple["Conditions", np.ndarray]:
        """The same conditions with the eigenvectors in z as their own gauge, and z with these vectors of length one."""
        n, z = self.n, np.array(z)
        v = z[n : 2 * n].copy()
        if self.kind in PAIRS:
            turn = np.sqrt(max(float(self.turning(jnp.asarray(self.parts(jnp.asarray(z))[-1]))[1]), 0.0)) or 1.0
            vector = v + 1j * turn * z[2 * n : 3 * n]
            # Choose the phase in which the real part is longest.
            vector = vector * np.exp(-0.5j * np.angle(vector @ vector))
            length = np.linalg.norm(vector.real)
            z[n : 2 * n], z[2 * n : 3 * n] = vector.real / length, vector.imag / (turn * length)
            v = vector.real
        else:
            z[n : 2 * n] /= np.linalg.norm(v)
        gauge = jax.device_put((v / np.linalg.norm(v)).astype(self.gauge.dtype))
        return eqx.tree_at(lambda own: own.gauge, self, gauge), z


class Span(NamedTuple):
    """The smallest and largest value that the last unknown of a pair may have, and those a little inside of them.

    A search within the first ends inside them, but outside the second, if no pair within them is nearest.
    """

    least: float
    most: float
    inner_least: float
    inner_most: float

    def ended(self, conditions: Conditions, z: np.ndarray) -> bool:
        """Whether z is at the limits."""
        return conditions.kind == "pair" and not self.inner_least <= z[-1] <= self.inner_most


class Stationary(NamedTuple):
    """A stationary point of the distance under the conditions, or the point at which the search for one ended."""

    z: np.ndarray
    theta: np.ndarray
    multipliers: np.ndarray
    violation: float  # the largest |c|
    kkt: float  # the largest |dL/dz| and |dL/dtheta|, relative to the sizes of their terms
    minimum: bool  # whether the distance has no direction of descent left, to second order
    iterations: int

    @property
    def converged(self) -> bool:
        return max(self.violation, self.kkt) <= TOLERANCE


class Found(NamedTuple):
    """A stationary point, and the conditions that it satisfies."""

    conditions: Conditions
    point: Stationary


def squared_unit(conditions: Conditions) -> float:
    """The unit of squared distances: the largest metric_i start_i^2; one if all entries are zero."""
    start, metric = np.asarray(conditions.freedom.start, float), np.asarray(conditions.freedom.metric, float)
    return float((metric * start**2).max()) or 1.0
