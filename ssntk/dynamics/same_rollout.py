"""Check that a model moves as the network does from which it was made."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ssntk.dynamics.integrate import simulate
from ssntk.dynamics.probe import Probe
from ssntk.errors import NumericalError, as_array
from ssntk.models.as_model import as_model
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.torch_layout import as_numpy, is_module, layout_of, weights_of


def same_rollout(model: Any, step_or_module: Any, us: Any) -> float:
    """The largest difference between a model and the network that it stands for, along a roll-out from the zero state.

    Rounding alone gives a difference of about 1e-15 of the states for float64 weights, and about 1e-7 for float32. A far
    larger one means that the model is a different function.

    **Arguments:**

    - `model`: a map, such as [`from_torch`][] returns.
    - `step_or_module`: the network. If it is a step `(x (n,), u (d,)) -> (n,)`, another map or a PyTorch cell, the states
      are compared. Any other PyTorch module is called once with all inputs, in evaluation mode: its first result is
      compared with the model's outputs, (B, T, m) at all times or (B, m) at the last.
    - `us`: (T, d) or (B, T, d), the input of each step.

    **Returns:** the largest |difference|, in units of the states or outputs.

    Raises `ValueError` for a model in continuous time, and if shapes do not fit. Raises `NumericalError` if a roll-out is
    not finite.

    **Example:**

    ```python
    W, V = np.array([[0.5, -0.3], [0.2, 0.1]]), np.ones((2, 1))
    network = ssntk.from_torch({"weight_hh_l0": W, "weight_ih_l0": V})
    print(ssntk.same_rollout(network, lambda x, u: np.tanh(W @ x + V @ u), np.ones((9, 1))) < 1e-12)  # True
    ```
    """
    model = as_model(model)
    if not isinstance(model, AbstractMap):
        raise ValueError("model must be a map, got a model in continuous time: wrap it in ssntk.EulerMap(model, dt)")
    inputs = np.asarray(as_array(us, "us"), dtype_of(model))
    inputs = inputs[None] if inputs.ndim == 2 else inputs
    if inputs.ndim != 3 or inputs.shape[1] == 0 or inputs.shape[2] != model.n_input:
        raise ValueError(f"us must have shape (T, {model.n_input}) or (B, T, {model.n_input}), T >= 1, got {np.shape(us)}")
    ours = _states(model, model.dt, inputs)
    if isinstance(step_or_module, AbstractStateSpaceModel):
        if step_or_module.clock != model.clock:
            raise ValueError(f"step_or_module must be a map with dt = {model.dt:g}, got dt = {step_or_module.clock.dt}")
        theirs = _states(step_or_module, model.dt, inputs)
    elif is_module(step_or_module):
        theirs = _module(step_or_module, inputs)
        if theirs.ndim != 3 or theirs.shape[:2] != ours.shape[:2] or not _is_cell(step_or_module):
            ours = np.asarray(jax.vmap(jax.vmap(model.readout))(jax.device_put(ours)))
            ours = ours[:, -1] if theirs.ndim == 2 else ours
    elif callable(step_or_module):
        theirs = np.stack([_rolled(step_or_module, np.zeros(ours.shape[2], ours.dtype), row) for row in inputs])
    else:
        raise ValueError(
            f"step_or_module must be a step (x, u) -> x, a map or an nn.Module, got {type(step_or_module).__name__}"
        )
    if theirs.shape != ours.shape:
        raise ValueError(f"step_or_module must return {ours.shape} in all, as the model does, got {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise NumericalError("the roll-out is not finite: try smaller or fewer inputs us")
    return float(np.abs(ours - theirs).max())


def _states(model: AbstractStateSpaceModel, dt: float, inputs: np.ndarray) -> np.ndarray:
    """The states (B, T, n) after each step."""
    ts = dt * np.arange(inputs.shape[1] + 1)
    # The input at the last save time is used by no step: repeat the last one.
    return np.asarray(simulate(model, Probe(ts, np.concatenate([inputs, inputs[:, -1:]], axis=1))))[:, 1:]


def _rolled(step: Callable[..., object], x: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    rolled = []
    for u in inputs:
        after = np.asarray(step(x, u))
        if after.shape != x.shape:
            raise ValueError(f"step_or_module must return shape {x.shape} from (x, u), got {after.shape}")
        x = after
        rolled.append(x)
    return np.stack(rolled)


def _is_cell(module: Any) -> bool:
    """Whether a module is a PyTorch RNNCell, GRUCell or LSTMCell, which takes one step per call."""
    return "weight_hh" in module.state_dict()


def _module(module: Any, inputs: np.ndarray) -> np.ndarray:
    """The result of a module for inputs (B, T, d): the states (B, T, n) of a cell, else its first result, batch first."""
    held = weights_of(module)
    inside = [one for _, one in module.named_modules() if hasattr(one, "training")]
    training = [one.training for one in inside]
    given = next(iter(held.values())).detach().new_tensor(inputs.tolist())
    for one in inside:
        one.training = False
    try:
        if _is_cell(module):
            state, states = None, []
            for t in range(inputs.shape[1]):
                state = module(given[:, t], state)
                parts = state if isinstance(state, (tuple, list)) else (state,)
                states.append(np.concatenate([as_numpy(part, "the state") for part in parts], axis=-1))
            return np.stack(states, axis=1)
        weight = layout_of(module, held, whole=False).parts["weight"][0]
        layer = dict(module.named_modules()).get(weight.rpartition(".")[0])
        batch_first = bool(getattr(layer, "batch_first", False))
        found = module(given if batch_first else given.transpose(0, 1))
    finally:
        for one, was in zip(inside, training, strict=True):
            one.training = was
    found = as_numpy(found[0] if isinstance(found, (tuple, list)) else found, "the module's output")
    return found if batch_first or found.ndim != 3 else found.swapaxes(0, 1)
