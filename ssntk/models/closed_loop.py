"""A model whose output is its input."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.errors import traceable
from ssntk.models.base import AbstractStateSpaceModel, Wrapper, check_model, dtype_of
from ssntk.models.maps import AbstractMap, MapWrapper


def _same(y: Array) -> Array:
    return y


def ClosedLoop(model: Any, feed: Any = _same) -> AbstractStateSpaceModel:
    """`model` with its output fed back as its input: `u = feed(y)` with y = readout(x).

    This is how a network runs that was trained to predict its next input. The result is autonomous, n_input = 0. If the
    model is a map, the output after a step is the input of the next one, and the result is a map with the same dt.

    **Arguments:**

    - `model`: a flow or a map with m outputs and d inputs.
    - `feed`: a function from y (m,) to u (d,), such as `lambda y: jnp.append(y, 1.0)` for a further, constant input.
      Default: u = y. If it is an `eqx.Module` or `eqx.Partial`, its arrays are in theta.

    **Returns:** a model. Its theta holds the weights of the readout too, since they are part of the dynamics, and the
    arrays of `feed`. Attributes that it does not have are those of `model`.

    Raises `ValueError` if `feed` cannot be evaluated, or if its result has another size than the input.

    **Example:**

    ```python
    network = ssntk.EulerMap(ssntk.CTRNN(4, 1, 1, key=jax.random.key(0)), 1.0)
    loop = ssntk.ClosedLoop(network)
    x = jnp.ones(4)
    print(loop.n_input, jnp.allclose(loop.step(x), network.step(x, network.readout(x))))  # 0 True
    ```
    """
    check_model(model)
    if not callable(feed):
        raise ValueError(f"feed must be callable as feed(y), got {type(feed).__name__}")
    dtype, what = dtype_of(model), f"feed(y ({model.n_output},))"
    try:
        with traceable(what):
            fed = eqx.filter_eval_shape(lambda y: jnp.asarray(feed(y)), jax.ShapeDtypeStruct((model.n_output,), dtype))
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{what} could not be evaluated: {error}") from error
    if fed.shape != (model.n_input,):
        raise ValueError(
            f"feed must return the input, shape ({model.n_input},), from the output y ({model.n_output},), got {fed.shape}"
        )
    return ClosedMap(model, feed) if isinstance(model, AbstractMap) else ClosedFlow(model, feed)


class ClosedFlow(Wrapper):
    """The flow `wrapped` with its output fed back as its input."""

    feed: Callable[..., Any]

    @property
    def n_input(self) -> int:
        return 0

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " 0"]) -> Float[Array, " n"]:
        return self.wrapped.vector_field(t, x, _fed(self.feed, self.wrapped, x))

    def trainable(self, of: str) -> PyTree:
        return self.wrapped.trainable("readout"), eqx.filter(self.feed, eqx.is_inexact_array)


class ClosedMap(MapWrapper):
    """The map `wrapped` with its output fed back as its input."""

    feed: Callable[..., Any]

    def __init__(self, wrapped: AbstractMap, feed: Callable[..., Any]):
        super().__init__(wrapped, wrapped.dt)
        self.feed = feed

    @property
    def n_input(self) -> int:
        return 0

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " 0"]) -> Float[Array, " n"]:
        return self.wrapped.advance(t, x, _fed(self.feed, self.wrapped, x))

    def trainable(self, of: str) -> PyTree:
        return self.wrapped.trainable("readout"), eqx.filter(self.feed, eqx.is_inexact_array)


def _fed(feed: Callable[..., Any], model: AbstractStateSpaceModel, x: Array) -> Array:
    return jnp.asarray(feed(model.readout(x))).astype(x.dtype)
