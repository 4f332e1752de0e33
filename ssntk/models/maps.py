"""Models in discrete time: the interface of maps, and the map that takes one Euler step of a model."""

import abc
import functools
import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_scalar, is_traced
from ssntk.models.base import AbstractStateSpaceModel, WithInput, Wrapper, check_model, dtype_of
from ssntk.models.clock import AbstractClock, Steps


class AbstractMap(AbstractStateSpaceModel):
    """A model in discrete time, `x <- advance(t, x, u)`, once every `dt` units of time.

    In a subclass, define `n_state`, `n_input` and `n_output` as fields or properties, and the method `advance`. `dt` is 1
    unless the subclass sets it. The multipliers of a fixed point are the eigenvalues of the derivative of `advance`. The
    point is stable if all of them lie inside the unit circle. Solves and kernels iterate the map. Save times must therefore
    lie whole steps apart, and `integrator` must be `None`.

    **Example:**

    ```python
    class Logistic(ssntk.AbstractMap):
        r: jax.Array
        n_state: int = 1
        n_input: int = 0
        n_output: int = 1

        def advance(self, t, x, u):
            return self.r * x * (1 - x)

    points = ssntk.find_fixed_points(Logistic(jnp.asarray(2.5)))
    print(points.x.ravel().round(6))  # [0.6 0. ]
    ```
    """

    dt: float = eqx.field(static=True, default=1.0, kw_only=True)

    def __init_subclass__(cls, **options: object):
        super().__init_subclass__(**options)
        own, annotated = vars(cls).get("dt"), "dt" in inspect.get_annotations(cls)
        if isinstance(own, (int, float, np.number)):
            if not annotated:
                # Without an annotation a dataclass keeps the default that it inherits, and would ignore the number.
                raise ValueError(f"dt of {cls.__name__} must be a field: write dt: float = {own:g}")
            cls.dt = eqx.field(static=True, default=float(own), kw_only=True)
        elif annotated and own is None:
            cls.dt = eqx.field(static=True)
        elif isinstance(inspect.getattr_static(cls, "dt", None), (property, functools.cached_property)):
            raise ValueError(f"dt of {cls.__name__} must be a field, such as dt: float = 1.0, and not a property")

    def __check_init__(self):
        if not isinstance(self.dt, (int, float, np.number)) or not 0 < self.dt < np.inf:
            raise ValueError(f"dt must be a positive number, which no array is, got {self.dt!r}")

    @property
    def clock(self) -> AbstractClock:
        return Steps(self.dt)

    @abc.abstractmethod
    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one step from time t."""

    @property
    def iterations(self) -> int:
        """How many times [`iteration`][] makes up one step: 1 unless this is [`Iterated`][]."""
        return 1

    def iteration(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one of the equal parts of a step."""
        return self.advance(t, x, u)

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The change of the state in one step, divided by dt. It is zero at fixed points."""
        return (self.advance(t, x, u) - x) / self.dt

    def step(self, x: Any, u: Any = None) -> Float[Array, " n"]:
        """The state (n,) after one step from x (n,) at time zero, with the input u (d,); default zero."""
        x = as_array(x, "x", (self.n_state,), finite=False).astype(dtype_of(self))
        u = jnp.zeros(self.n_input) if u is None else as_array(u, "u", (self.n_input,), finite=False)
        return self.advance(jnp.zeros((), x.dtype), x, u.astype(x.dtype))

    def passed_up(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        """The part of the state that a layer above takes as its input: all of it, unless the cell overrides this."""
        return x

    def to_torch(self, state_dict: Any, *, names: Any = None) -> Any:
        """Copy the PyTorch weights from which [`from_torch`][] made the network, and put in its present ones.

        **Arguments:** `state_dict`: the original weights: a dict, or the module or checkpoint that holds them. `names`: as
        given to `from_torch`.

        **Returns:** a dict for `load_state_dict`, with the same names and types.

        Raises `ValueError` if the network cannot have come from these weights.

        ```python
        weights = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": 0.95 * np.eye(2)}  # or net.state_dict()
        safe = ssntk.retreat(ssntk.from_torch(weights), 0.1)
        print(np.diag(safe.to_torch(weights)["weight_hh_l0"]).round(6))  # [0.9 0.9]
        ```
        """
        from ssntk.models.to_torch import to_torch

        return to_torch(self, state_dict, names)


class EulerMap(AbstractMap):
    """The map `x -> x + dt f(x, u)`, with the vector field f of `model`.

    The map has the same fixed points as the model, but their stability may differ. The multipliers of a fixed point are the
    eigenvalues of `1 + dt df/dx`. The point is stable if all of them lie inside the unit circle. Solves and kernels iterate
    the map. Save times must therefore lie whole steps apart, and `integrator` must be `None`. Attributes that the map does
    not have are those of `model`.

    **Example:** with a rate of 3, steps of 1 are too long to be stable.

    ```python
    flow = ssntk.VectorField(lambda t, x, u, p: -p * x, 3.0, n_state=1)
    print(ssntk.find_fixed_points(flow).stable, ssntk.find_fixed_points(ssntk.EulerMap(flow, 1.0)).stable)  # [ True] [False]
    ```
    """

    model: AbstractStateSpaceModel
    dt: float = eqx.field(static=True)

    def __init__(self, model: AbstractStateSpaceModel, dt: Any):
        """**Arguments:** `dt`: the step [time], positive. Raises `ValueError`, which names the argument that is wrong."""
        check_model(model)
        check_flow(model)
        if is_traced(dt):
            raise ValueError("dt must be concrete: the number of steps follows from it")
        self.model = model
        self.dt = float(as_scalar(dt, "dt", positive=True))

    @property
    def n_state(self) -> int:
        return self.model.n_state

    @property
    def n_input(self) -> int:
        return self.model.n_input

    @property
    def n_output(self) -> int:
        return self.model.n_output

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one step from time t."""
        return x + self.dt * self.model.vector_field(t, x, u)

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The change of the state in one step, divided by dt."""
        return self.model.vector_field(t, x, u)

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.model.readout(x)

    def trainable(self, of: str) -> PyTree:
        return self.model.trainable(of)

    def __getattr__(self, name: str) -> Any:
        # A lens that was written for the model must also work on its map.
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


class MapWrapper(Wrapper, AbstractMap):
    """A map with the step `dt` that wraps another map, `wrapped`."""

    clock = AbstractMap.clock

    def __init__(self, wrapped: AbstractMap, dt: float):
        self.wrapped, self.dt = wrapped, dt


class MapWithInput(MapWrapper):
    """The map `wrapped` with a constant `added_input` (d,), added to its input."""

    added_input: Float[Array, " d"]

    def __init__(self, wrapped: AbstractMap, added_input: Float[Array, " d"]):
        super().__init__(wrapped, wrapped.dt)
        self.added_input = added_input

    @property
    def iterations(self) -> int:
        return self.wrapped.iterations

    def iteration(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.iteration(t, x, u + self.added_input)

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.advance(t, x, u + self.added_input)


def with_input(model: AbstractStateSpaceModel, added: Float[Array, " d"]) -> AbstractStateSpaceModel:
    """`model` with a constant `added` (d,), added to its input. A map stays a map."""
    if isinstance(model, EulerMap):
        return eqx.tree_at(lambda m: m.model, model, WithInput(model.model, added))
    return MapWithInput(model, added) if isinstance(model, AbstractMap) else WithInput(model, added)


def check_flow(model: object, name: str = "model") -> None:
    """Raise `ValueError` if `model` is a map, since its bifurcations differ from those of the flow with the same f."""
    if isinstance(model, EulerMap):
        raise ValueError(f"{name} must be in continuous time, got an EulerMap; its own `model` is, at the same fixed points")
    if isinstance(model, AbstractMap):
        raise ValueError(f"{name} must be in continuous time, got {type(model).__name__}, a map")
