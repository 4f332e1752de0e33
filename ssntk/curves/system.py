"""Equilibria over two parameters, in working units."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.conserved import conserved_quantities
from ssntk.dynamics.scales import rate_of, sizes_over
from ssntk.dynamics.stability import field_at, linearised
from ssntk.models.clock import Continuous
from ssntk.models.maps import AbstractMap
from ssntk.models.plane import Plane
from ssntk.zeros.equilibria import Equilibria

# How far beside a bifurcation the sizes of the states are measured too, as a part of its state, and the part of these below
# which those at the bifurcation are none.
BESIDE, TINY = 0.25, 0.03


class System(eqx.Module):
    """The equilibria of a plane: states in `sizes` (n,), time in `unit`, parameters p = `begin` + q `reach`, (2,) each.

    A point is z = (y, q1, q2), (n + 2,). Time is counted in steps for maps. Conserved quantities are held as in
    [`Equilibria`][].
    """

    plane: Plane
    u: Float[Array, " d"]
    sizes: Float[Array, " n"]
    unit: Float[Array, ""]
    begin: Float[Array, " 2"]
    reach: Float[Array, " 2"]
    weights: Float[Array, "c n"]
    level: Float[Array, " c"]

    @property
    def n(self) -> int:
        return self.sizes.shape[0]

    @property
    def step(self) -> float:
        """The step in working units: 1 for maps, 0 for flows."""
        return 0.0 if isinstance(self.plane.clock, Continuous) else 1.0

    def at(self, z: Float[Array, " n2"]) -> Float[Array, " n"]:
        """The velocity (n,) at a point, in working units."""
        p, y = self.begin + z[-2:] * self.reach, z[:-2]
        velocity = field_at(self.plane(p[0], p[1]), y * self.sizes, self.u) * (self.unit / self.sizes)
        if self.weights.shape[0] == 0:
            return velocity
        # As fast as the fastest state, but for maps so slow that it does not overshoot.
        pull = 0.5 if self.step else 1.0
        return velocity - pull * self.weights.T @ (self.weights @ y - self.level)

    def linearised(self, z: Float[Array, " n2"]) -> tuple[Float[Array, " n"], Float[Array, "n n2"]]:
        """The velocity and its derivative over z."""

        def both(z: Array) -> tuple[Array, Array]:
            velocity = self.at(z)
            return velocity, velocity

        jacobian, velocity = jax.jacfwd(both, has_aux=True)(z)
        return velocity, jacobian

    def pushed(self, z: Float[Array, " n2"], right: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """A V for the Jacobian A at z and columns V."""
        along = jnp.concatenate([right, jnp.zeros((2, right.shape[1]), right.dtype)])
        push = jax.linearize(self.at, z)[1]
        return jax.vmap(push, in_axes=1, out_axes=1)(along)

    def left_by(self, z: Float[Array, " n2"], direction: Float[Array, " 2"]) -> Float[Array, " n"]:
        """df/dq at z along a direction (2,) of the parameters."""
        return jax.jvp(self.at, (z,), (jnp.zeros_like(z).at[-2:].set(direction),))[1]

    def pulled(self, z: Float[Array, " n2"], left: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """The transpose of A times columns W."""
        pull = jax.vjp(self.at, z)[1]
        return jax.vmap(lambda w: pull(w)[0], in_axes=1, out_axes=1)(left)[:-2]

    def parameters(self, z: np.ndarray) -> np.ndarray:
        """The parameters (..., 2) at points (..., n + 2), in the user's units."""
        return np.asarray(self.begin, float) + z[..., -2:] * np.asarray(self.reach, float)

    def states(self, z: np.ndarray) -> np.ndarray:
        """The states (..., n) at points (..., n + 2), in the user's units."""
        return z[..., :-2] * np.asarray(self.sizes)

    def point(self, x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """The point of a state (n,) and parameters (2,) in the user's units."""
        q = (np.asarray(parameters, float) - np.asarray(self.begin)) / np.asarray(self.reach)
        return np.concatenate([np.asarray(x) / np.asarray(self.sizes), q])

    def across(self, z: Float[Array, " n2"]) -> Equilibria:
        """The equilibria over p1 alone through a point, for which normal forms are known."""
        p2 = self.begin[1] + z[-1] * self.reach[1]
        pull = (0.5 if self.step else 1.0) / self.unit
        ends = self.begin[0], self.begin[0] + self.reach[0]
        return Equilibria(self.plane.across(p2), self.u, *ends, self.sizes, self.weights, self.level, pull)


def system_of(plane: Plane, u: Array, spans: np.ndarray, x: np.ndarray, here: np.ndarray) -> System:
    """The system in units that suit the plane: spans (2, 2) of the parameters, a state x (n,) at parameters `here` (2,)."""
    dtype = x.dtype
    places = [here, *((p, here[1]) for p in spans[0]), *((here[0], p) for p in spans[1])]
    models: list[Any] = [plane(*(float(p) for p in place)) for place in places]
    sizes = np.asarray(sizes_over(models, u, x))
    # At a bifurcation a linear part may be zero, from which everything departs at once: look beside it.
    signs = np.where(np.add.outer(np.arange(len(models)), np.arange(len(x))) % 2, -1.0, 1.0)
    beside = np.asarray(sizes_over(models, u, (x * (1 + BESIDE * signs)).astype(x.dtype)))
    sizes = np.where(sizes < TINY * beside, beside, sizes)
    if isinstance(plane.model, AbstractMap):
        unit = plane.clock.unit
    else:
        # At a bifurcation itself the rate of a single state is zero.
        each = [[np.nan_to_num(np.asarray(part)) for part in linearised(model, jax.device_put(x), u)] for model in models]
        unit = 1 / max(rate_of(velocity, jacobian, sizes) for velocity, jacobian in each)
    weights = conserved_quantities(models, u, sizes)
    turned, triangle = np.linalg.qr((weights * sizes).T) if len(weights) else (np.zeros((len(x), 0)), np.zeros((0, 0)))
    level = np.linalg.solve(triangle.T, weights @ x) if len(weights) else np.zeros(0)
    parts = sizes, unit, spans[:, 0], spans[:, 1] - spans[:, 0], turned.T, level
    return System(plane, u, *jax.device_put([np.asarray(part, dtype) for part in parts]))
