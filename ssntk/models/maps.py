"""Models in discrete time: what every map shares, and the map that takes one Euler step of a model."""

import abc
import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_scalar, is_traced
from ssntk.models.base import AbstractStateSpaceModel, WithInput, Wrapper, check_model, dtype_of
from ssntk.models.clock import AbstractClock, Steps
from ssntk.nouns import Real


class AbstractMap(AbstractStateSpaceModel):
    """A model in discrete time, `x <- advance(t, x, u)`, once every `dt` units of time.

    Subclass it with fields or properties `n_state`, `n_input`, `n_output` and an `advance`; `dt` is 1 unless the subclass
    sets it. A fixed point is stable if every multiplier, an eigenvalue of the derivative of `advance`, lies inside the unit
    circle. Solves and kernels iterate the map: save times lie whole steps apart, and no integrator is chosen.

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
                # A dataclass takes the default of the field that it inherits, and the number would count for nothing.
                raise ValueError(f"dt of {cls.__name__} must be a field: write dt: float = {own:g}")
            cls.dt = eqx.field(static=True, default=float(own), kw_only=True)
        elif annotated and own is None:
            cls.dt = eqx.field(static=True)

    def __check_init__(self):
        if not isinstance(self.dt, (int, float, np.number)) or not 0 < self.dt < np.inf:
            raise ValueError(f"dt must be a positive number, which no array is, got {self.dt!r}")

    @property
    def clock(self) -> AbstractClock:
        return Steps(self.dt)

    @abc.abstractmethod
    def advance(self, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one step from time t."""

    def vector_field(self, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The change of the state in one step, by dt: it vanishes at fixed points."""
        return (self.advance(t, x, u) - x) / self.dt

    def step(self, x: Any, u: Any = None) -> Float[Array, " n"]:
        """The state (n,) after one step from x (n,) under the input u (d,), default zero. The model sees time zero."""
        x = as_array(x, "x", (self.n_state,), finite=False).astype(dtype_of(self))
        u = jnp.zeros(self.n_input) if u is None else as_array(u, "u", (self.n_input,), finite=False)
        return self.advance(jnp.zeros((), x.dtype), x, u.astype(x.dtype))


class EulerMap(AbstractMap):
    """The map `x -> x + dt f(x, u)` of `model`, whose f it shares: its fixed points are the model's, its stability is not.

    A fixed point is stable where every multiplier, an eigenvalue of `1 + dt df/dx`, lies inside the unit circle. Solves
    and kernels iterate the map: save times lie whole steps apart, and no integrator is chosen. Attributes that it does
    not have are those of `model`.

    **Example:** a step of 1 is too long for a rate of 3.

    ```python
    flow = ssntk.VectorField(lambda t, x, u, p: -p * x, 3.0, n_state=1)
    print(ssntk.find_fixed_points(flow).stable, ssntk.find_fixed_points(ssntk.EulerMap(flow, 1.0)).stable)  # [ True] [False]
    ```
    """

    model: AbstractStateSpaceModel
    dt: float = eqx.field(static=True)

    def __init__(self, model: AbstractStateSpaceModel, dt: Any):
        """**Arguments:** `dt`: the step, positive, in units of time. Raises `ValueError` naming what is wrong."""
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

    def advance(self, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one step from time t."""
        return x + self.dt * self.model.vector_field(t, x, u)

    def vector_field(self, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The change of the state in one step, by dt."""
        return self.model.vector_field(t, x, u)

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.model.readout(x)

    def trainable(self, of: str) -> PyTree:
        return self.model.trainable(of)

    def to_torch(self, state_dict: Any, *, names: Any = None) -> Any:
        """A copy of the PyTorch weights that the network was made of by [`from_torch`][], with those that it has now.

        **Arguments:** `state_dict`: those weights, a dict, or the module or checkpoint that holds them. `names`: as given to
        `from_torch`. **Returns:** a dict of the same names and types, for `load_state_dict`. Raises `ValueError` if the
        network cannot have come from these weights.

        ```python
        weights = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": 0.95 * np.eye(2)}  # or net.state_dict()
        safe = ssntk.retreat(ssntk.from_torch(weights), 0.1)
        print(np.diag(safe.to_torch(weights)["weight_hh_l0"]).round(6))  # [0.9 0.9]
        ```
        """
        from ssntk.models.to_torch import to_torch

        return to_torch(self, state_dict, names)

    def __getattr__(self, name: str) -> Any:
        # A lens written for the model works on its map.
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


class MapWrapper(Wrapper, AbstractMap):
    """A map around the map `wrapped`, with the step `dt`."""

    clock = AbstractMap.clock

    def __init__(self, wrapped: AbstractMap, dt: float):
        self.wrapped, self.dt = wrapped, dt


class MapWithInput(MapWrapper):
    """`wrapped` with `added_input` (d,) added to whatever input it is given."""

    added_input: Float[Array, " d"]

    def __init__(self, wrapped: AbstractMap, added_input: Float[Array, " d"]):
        super().__init__(wrapped, wrapped.dt)
        self.added_input = added_input

    def advance(self, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.advance(t, x, u + self.added_input)


def with_input(model: AbstractStateSpaceModel, added: Float[Array, " d"]) -> AbstractStateSpaceModel:
    """`model` with `added` (d,) added to whatever input it is given; a map stays one."""
    if isinstance(model, EulerMap):
        return eqx.tree_at(lambda m: m.model, model, WithInput(model.model, added))
    return MapWithInput(model, added) if isinstance(model, AbstractMap) else WithInput(model, added)


def check_flow(model: object, name: str = "model") -> None:
    """`ValueError` where `model` is a map: its bifurcations are others than those of the flow whose f it shares."""
    if isinstance(model, EulerMap):
        raise ValueError(f"{name} must be in continuous time, got an EulerMap; its own `model` is, at the same fixed points")
    if isinstance(model, AbstractMap):
        raise ValueError(f"{name} must be in continuous time, got {type(model).__name__}, a map")
