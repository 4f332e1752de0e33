"""Weights of recurrent networks that were trained in PyTorch, which need not be installed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssntk.models.ctrnn import CTRNN
from ssntk.models.euler_map import EulerMap

# What each weight is called, without the prefix of the module it lies in: nn.RNN, nn.RNNCell, and a leaky network made of
# two nn.Linear.
_KNOWN = {
    "weight": ("weight_hh_l0", "weight_hh", "h2h.weight"),
    "input_weight": ("weight_ih_l0", "weight_ih", "input2h.weight"),
    "bias": ("bias_hh_l0", "bias_ih_l0", "bias_hh", "bias_ih", "h2h.bias", "input2h.bias"),
}
_WEIGHTS = ("weight", "input_weight", "bias", "readout_weight", "readout_bias")


def from_torch(
    state_dict: Any,
    dt: Any = 1.0,
    *,
    activation: Callable[[Any], Any] = jnp.tanh,
    names: Any = None,
) -> EulerMap:
    """The network in a PyTorch `state_dict`, exactly, as the Euler map of a rate-form [`CTRNN`][].

    `h <- (1 - dt) h + dt activation(weight h + input_weight u + bias)`: `dt = 1` is `torch.nn.RNN`, a smaller one is a leaky
    network with leak dt (its step over its time constant).

    **Arguments:**

    - `state_dict`: names to tensors or arrays. Recognised, behind any prefix: one layer of `nn.RNN`, an `nn.RNNCell`, and
      `h2h` with `input2h`; of the rest, one `weight` (m, n) with its `bias` (m,) is the readout.
    - `activation`: the nonlinearity, which a state_dict does not hold: `jnp.tanh`, or `jax.nn.relu` for
      `nonlinearity="relu"`.
    - `names`: where the names are others: a dict from any of weight, input_weight, bias, readout_weight, readout_bias to the
      name in `state_dict`, or to a list of names that are added up. `weight` must be among them.

    The arrays take JAX's default floating-point type. Raises `ValueError` where the state_dict holds anything else.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(name, str) for name in state_dict):
        raise ValueError(f"state_dict must map names to tensors or arrays, got {type(state_dict).__name__}")
    arrays = {name: _as_numpy(value, name) for name, value in state_dict.items()}
    parts = _recognise(arrays) if names is None else _as_named(names, arrays)
    weights = {}
    for part, sources in parts.items():
        shapes = {arrays[source].shape for source in sources}
        if len(shapes) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part} and must have one shape, got {shapes}")
        weights[part] = jnp.asarray(sum(arrays[source] for source in sources), jnp.result_type(float))
    return EulerMap(CTRNN.from_weights(**weights, activation=activation, form="rate"), dt)


def _as_numpy(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise ValueError(f"state_dict[{name!r}] must hold real floating-point numbers, got {array.dtype}")
    # In float64 the sum of two biases of float32 is exact.
    return array.astype(np.float64)


def _recognise(arrays: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Which names make up which weight."""
    for name in arrays:
        if any(mark in name for mark in ("_l1", "_reverse", "weight_hr")):
            raise ValueError(f"state_dict must hold one layer in one direction, without projection, got {name}")
    parts: dict[str, list[str]] = {}
    for part, endings in _KNOWN.items():
        found = [name for name in arrays if any(name == end or name.endswith(f".{end}") for end in endings)]
        if found:
            parts[part] = found
    if len(parts.get("weight", [])) != 1 or len(parts.get("input_weight", [])) != 1:
        raise ValueError(
            f"state_dict must hold one recurrent layer, as weight_hh_l0 and weight_ih_l0 of nn.RNN; say which is which by "
            f"names=, got {', '.join(arrays) or 'nothing'}"
        )
    rows, n = arrays[parts["weight"][0]].shape if arrays[parts["weight"][0]].ndim == 2 else (0, 0)
    if rows != n or n == 0:
        gated = {3: ", as of nn.GRU", 4: ", as of nn.LSTM"}.get(rows // n if n and rows % n == 0 else 0, "")
        raise ValueError(f"state_dict[{parts['weight'][0]!r}] must be square, got {arrays[parts['weight'][0]].shape}{gated}")
    used = {name for found in parts.values() for name in found}
    rest = [name for name in arrays if name not in used]
    matrices = [name for name in rest if arrays[name].ndim == 2 and arrays[name].shape[1] == n]
    if len(matrices) == 1:
        parts["readout_weight"] = matrices
        bias = matrices[0].removesuffix("weight") + "bias"
        if bias in rest and bias != matrices[0]:
            parts["readout_bias"] = [bias]
    surplus = [name for name in rest if [name] not in parts.values()]
    if surplus:
        raise ValueError(f"state_dict holds {', '.join(surplus)}, whose use is not known: say which is which by names=")
    return parts


def _as_named(names: Any, arrays: dict[str, np.ndarray]) -> dict[str, list[str]]:
    if not isinstance(names, Mapping) or "weight" not in names:
        raise ValueError(f"names must be a dict that holds at least weight, got {names!r}")
    parts = {}
    for part, sources in names.items():
        if part not in _WEIGHTS:
            raise ValueError(f"names holds {part!r}; known are {', '.join(_WEIGHTS)}")
        parts[part] = [sources] if isinstance(sources, str) else list(sources)
        for source in parts[part]:
            if source not in arrays:
                raise ValueError(f"names[{part!r}] is {source!r}, which state_dict does not hold")
    return parts
