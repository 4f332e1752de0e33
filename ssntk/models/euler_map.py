"""Discrete time: the map that takes one Euler step of a model, which is what most trained recurrent networks are."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_scalar, is_traced
from ssntk.models.base import AbstractStateSpaceModel, WithInput, check_model, dtype_of


class EulerMap(AbstractStateSpaceModel):
    """The map `x -> x + dt f(x, u)` of `model`, whose f it shares: its fixed points are the model's, its stability is not.

    A fixed point is stable where every multiplier, an eigenvalue of `1 + dt df/dx`, lies inside the unit circle. Solves
    and kernels iterate the map: save times lie whole steps apart, and no integrator is chosen. Attributes that it does
    not have are those of `model`.
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

    def step(self, x: Any, u: Any = None) -> Float[Array, " n"]:
        """The state (n,) after one step from x (n,) under the input u (d,), default zero. The model sees time zero."""
        x = as_array(x, "x", (self.n_state,), finite=False).astype(dtype_of(self))
        u = jnp.zeros(self.n_input) if u is None else as_array(u, "u", (self.n_input,), finite=False)
        return self.advance(jnp.zeros((), x.dtype), x, u.astype(x.dtype))

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The state after one step from time t."""
        return x + self.dt * self.model.vector_field(t, x, u)

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
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
        print(safe.to_torch(weights)["weight_hh_l0"])  # 0.9 on the diagonal, and zeros
        ```
        """
        from ssntk.models.to_torch import to_torch

        return to_torch(self, state_dict, names)

    def __getattr__(self, name: str) -> Any:
        # A lens written for the model works on its map.
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


def step_of(model: Any) -> float | None:
    """The step of a map, `None` for a model in continuous time."""
    return model.dt if isinstance(model, EulerMap) else None


def with_input(model: AbstractStateSpaceModel, added: Float[Array, " d"]) -> Any:
    """`model` with `added` (d,) added to whatever input it is given; a map stays one."""
    if isinstance(model, EulerMap):
        return eqx.tree_at(lambda m: m.model, model, WithInput(model.model, added))
    return WithInput(model, added)


def check_flow(model: Any, name: str = "model") -> None:
    """`ValueError` where `model` is a map: its bifurcations are others than those of the flow whose f it shares."""
    if isinstance(model, EulerMap):
        raise ValueError(f"{name} must be in continuous time, got an EulerMap; its own `model` is, at the same fixed points")
