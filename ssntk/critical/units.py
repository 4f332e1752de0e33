"""A model in the units in which its states and its rates are of order one, for searches with tolerances of their own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.models.base import Wrapper, dtype_of
from ssntk.models.maps import AbstractMap, EulerMap, MapWrapper


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


class RescaledMap(MapWrapper):
    """The same of a map, whose unit of time is its step: `wrapped` in states x / `sizes` (n,), with dt = 1."""

    sizes: Float[Array, " n"]

    def __init__(self, wrapped: AbstractMap, sizes: Float[Array, " n"], dt: float):
        super().__init__(wrapped, dt)
        self.sizes = sizes

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.advance(t * self.wrapped.dt / self.dt, x * self.sizes, u) / self.sizes


def rescaled(model: Any, sizes: np.ndarray, unit: float) -> Any:
    """`model` in states x / `sizes` (n,) and times of `unit`; a map stays one, and its unit is its step."""
    dtype = dtype_of(model)
    units = jax.device_put(sizes.astype(dtype))
    if isinstance(model, AbstractMap) and not isinstance(model, EulerMap):
        return RescaledMap(model, units, model.dt / unit)
    inner = model.model if isinstance(model, EulerMap) else model
    moved = Rescaled(inner, units, jnp.asarray(unit, dtype))
    if not isinstance(model, EulerMap):
        return moved
    # Without the constructor's checks: they hold for the model as it was.
    return eqx.tree_at(lambda m: m.model, EulerMap(model.model, model.dt / unit), moved)
