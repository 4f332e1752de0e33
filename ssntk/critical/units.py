"""A model in the units in which its states and its rates are of order one, for searches with tolerances of their own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.models.base import Wrapper, dtype_of
from ssntk.models.euler_map import EulerMap


class Rescaled(Wrapper):
    """`wrapped` in states z = x / `sizes` (n,) and in times of `unit`.

    The leaves of `wrapped` come first, so that parameters have the same places in both.
    """

    sizes: Float[Array, " n"]
    unit: Float[Array, ""]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.vector_field(t * self.unit, x * self.sizes, u) * (self.unit / self.sizes)

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.wrapped.readout(x * self.sizes)


def rescaled(model: Any, sizes: np.ndarray, unit: float) -> Any:
    """`model` in states x / `sizes` (n,) and times of `unit`; a map stays one, and its unit is its step."""
    dtype = dtype_of(model)
    inner = model.model if isinstance(model, EulerMap) else model
    moved = Rescaled(inner, jax.device_put(sizes.astype(dtype)), jnp.asarray(unit, dtype))
    if not isinstance(model, EulerMap):
        return moved
    # Without the constructor's checks: they hold for the model as it was.
    return eqx.tree_at(lambda m: m.model, EulerMap(model.model, model.dt / unit), moved)
