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
from ssntk.models.low_rank_layout import low_rank_prefix
from ssntk.models.maps import AbstractMap
from ssntk.models.torch_layout import as_numpy, is_module, weights_of


def same_rollout(model: Any, step_or_module: Any, us: Any) -> float:
    """The largest difference between a model and the network that it stands for, along a roll-out from the zero state.

    Rounding alone gives a difference of about 1e-15 of the states for float64 weights, and about 1e-7 for float32. A far
    larger one means that the model is a different function.

    **Arguments:**

    - `model`: a map, such as [`from_torch`][] returns.
    - `step_or_module`: the network. If it is a step `(x (n,), u (d,)) -> (n,)`, another map, a PyTorch cell, or an
      `nn.ModuleList` of cells that form a stack, the states are compared. A network of Keras or ONNX is passed as a step.
      Any other PyTorch module is called once with all inputs, in evaluation mode: its first result is compared with the
      model's outputs, (B, T, m) at all times or (B, m) at the last. A module of m, n and h0 starts at its h0, and the model
      too; its `noise_std` must be 0.
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
    start = _start(step_or_module) if is_module(step_or_module) else None
    ours = _states(model, model.dt, inputs, start)
    if isinstance(step_or_module, AbstractStateSpaceModel):
        if step_or_module.clock != model.clock:
            raise ValueError(f"step_or_module must be a map with dt = {model.dt:g}, got dt = {step_or_module.clock.dt}")
        theirs = _states(step_or_module, model.dt, inputs)
    elif is_module(step_or_module):
        theirs = _module(step_or_module, inputs)
        if theirs.ndim != 3 or theirs.shape[:2] != ours.shape[:2] or not _cells(step_or_module):
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


def _states(model: AbstractStateSpaceModel, dt: float, inputs: np.ndarray, start: Any = None) -> np.ndarray:
    """The states (B, T, n) after each step."""
    ts = dt * np.arange(inputs.shape[1] + 1)
    # The input at the last save time is used by no step: repeat the last one.
    probe = Probe(ts, np.concatenate([inputs, inputs[:, -1:]], axis=1), start)
    return np.asarray(simulate(model, probe))[:, 1:]


def _rolled(step: Callable[..., object], x: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    rolled = []
    for u in inputs:
        after = np.asarray(step(x, u))
        if after.shape != x.shape:
            raise ValueError(f"step_or_module must return shape {x.shape} from (x, u), got {after.shape}")
        x = after
        rolled.append(x)
    return np.stack(rolled)


def _start(module: Any) -> np.ndarray | None:
    """The state at which a module starts that has one of its own, a low-rank network; else `None`."""
    held = weights_of(module)
    prefix = low_rank_prefix(held)
    if prefix is None:
        return None
    if getattr(dict(module.named_modules()).get(prefix.removesuffix(".")), "noise_std", 0):
        raise ValueError("step_or_module adds noise to its states: set its noise_std to 0")
    return as_numpy(held[prefix + "h0"], prefix + "h0") if prefix + "h0" in held else None


def _cells(module: Any) -> list[Any]:
    """The cells of a module, from the bottom to the top, if it is a PyTorch RNNCell, GRUCell or LSTMCell, or a list of them.

    A cell takes one step per call.
    """
    held = module.state_dict()
    if "weight_hh" in held:
        return [module]
    names = list(dict.fromkeys(name.partition(".")[0] for name in held))
    inside = dict(module.named_modules())
    stacked = all(name.isdigit() and f"{name}.weight_hh" in held for name in names)
    return [inside[name] for name in names] if stacked else []


def _stepped(cells: list[Any], given: Any, steps: int) -> np.ndarray:
    """The states (B, T, n) of a stack of cells for inputs (B, T, d), each cell's in turn."""
    state: list[Any] = [None] * len(cells)
    states = []
    for t in range(steps):
        u, parts = given[:, t], []
        for i, cell in enumerate(cells):
            state[i] = cell(u, state[i])
            own = state[i] if isinstance(state[i], (tuple, list)) else (state[i],)
            parts += own
            u = own[0]
        states.append(np.concatenate([as_numpy(part, "the state") for part in parts], axis=-1))
    return np.stack(states, axis=1)


def _module(module: Any, inputs: np.ndarray) -> np.ndarray:
    """The result of a module for inputs (B, T, d): the states (B, T, n) of cells, else its first result, batch first."""
    held = weights_of(module)
    inside = [one for _, one in module.named_modules() if hasattr(one, "training")]
    training = [one.training for one in inside]
    given = next(iter(held.values())).detach().new_tensor(inputs.tolist())
    # The code of low-rank networks takes the batch first.
    batch_first = low_rank_prefix(held) is not None or any(
        bool(getattr(one, "batch_first", False)) for _, one in module.named_modules()
    )
    for one in inside:
        one.training = False
    try:
        cells = _cells(module)
        if cells:
            return _stepped(cells, given, inputs.shape[1])
        found = module(given if batch_first else given.transpose(0, 1))
    finally:
        for one, was in zip(inside, training, strict=True):
            one.training = was
    found = as_numpy(found[0] if isinstance(found, (tuple, list)) else found, "the module's output")
    return found if batch_first or found.ndim != 3 else found.swapaxes(0, 1)
