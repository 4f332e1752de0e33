"""Express a model in units in which its states and rates are of order one, for methods with absolute tolerances."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.models.base import AbstractStateSpaceModel, Wrapper, dtype_of
from ssntk.models.maps import AbstractMap, EulerMap, MapWrapper


class Rescaled(Wrapper):
    """The model `wrapped` with states z = x / `sizes` (n,) and time in units of `unit`.

    The leaves of `wrapped` come first, so that parameters have the same positions in both models.
    """

    sizes: Float[Array, " n"]
    unit: Float[Array, ""]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.vector_field(t * self.unit, x * self.sizes, u) * (self.unit / self.sizes)

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.wrapped.readout(x * self.sizes)


class RescaledMap(MapWrapper):
    """The same for maps, whose unit of time is their step: `wrapped` with states x / `sizes` (n,) and dt = 1."""

    sizes: Float[Array, " n"]

    def __init__(self, wrapped: AbstractMap, sizes: Float[Array, " n"], dt: float):
        super().__init__(wrapped, dt)
        self.sizes = sizes

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.advance(t * self.wrapped.dt / self.dt, x * self.sizes, u) / self.sizes


def rescaled(model: AbstractStateSpaceModel, sizes: np.ndarray, unit: float) -> AbstractStateSpaceModel:
    """`model` with states x / `sizes` (n,) and time in units of `unit`. A map stays a map, and its unit is its step."""
    dtype = dtype_of(model)
    units = jax.device_put(sizes.astype(dtype))
    if isinstance(model, AbstractMap) and not isinstance(model, EulerMap):
        return RescaledMap(model, units, model.dt / unit)
    inner = model.model if isinstance(model, EulerMap) else model
    moved = Rescaled(inner, units, jnp.asarray(unit, dtype))
    if not isinstance(model, EulerMap):
        return moved
    # Skip the constructor's checks, which the original model has passed.
    return eqx.tree_at(lambda m: m.model, EulerMap(model.model, model.dt / unit), moved)
