"""Weights of recurrent networks that were trained in PyTorch, which need not be installed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssntk.models.ctrnn import CTRNN
from ssntk.models.euler_map import EulerMap

# What the weights of one module are called: nn.RNN, nn.RNNCell, and a leaky network made of two nn.Linear.
_FAMILIES = (
    {"weight": ("weight_hh_l0",), "input_weight": ("weight_ih_l0",), "bias": ("bias_hh_l0", "bias_ih_l0")},
    {"weight": ("weight_hh",), "input_weight": ("weight_ih",), "bias": ("bias_hh", "bias_ih")},
    {"weight": ("h2h.weight",), "input_weight": ("input2h.weight",), "bias": ("h2h.bias", "input2h.bias")},
)
_HEADS = ("fc", "linear", "lin", "out", "output", "readout", "head", "decoder", "h2o", "hidden2out")
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

    - `state_dict`: names to tensors or arrays. Recognised, behind one prefix: one layer of `nn.RNN`, an `nn.RNNCell`, and
      `h2h` with `input2h`; and a readout, one linear layer (m, n) called fc, linear, out, output, readout, head or decoder.
    - `activation`: the nonlinearity, which a state_dict does not hold: `jnp.tanh`, or `jax.nn.relu` for
      `nonlinearity="relu"`.
    - `names`: where the names are others, or more is held than these: a dict from any of weight, input_weight, bias,
      readout_weight, readout_bias to the name in `state_dict`, or to a list of names that are added up. `weight` must be
      among them; what is not named is left out.

    The arrays take JAX's default floating-point type. Raises `ValueError` where the state_dict holds anything else.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(name, str) for name in state_dict):
        raise ValueError(f"state_dict must map names to tensors or arrays, got {type(state_dict).__name__}")
    parts = _recognise(state_dict) if names is None else _as_named(names, state_dict)
    weights = {}
    for part, sources in parts.items():
        arrays = [_as_numpy(state_dict[source], source) for source in sources]
        if len({array.shape for array in arrays}) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part} and must have one shape")
        weights[part] = jnp.asarray(sum(arrays), jnp.result_type(float))
    return EulerMap(CTRNN.from_weights(**weights, activation=activation, form="rate"), dt)


def _as_numpy(value: Any, name: str) -> np.ndarray:
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # numpy knows no bfloat16, and float64 holds all the others.
            value = (value.double() if hasattr(value, "double") and value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"state_dict[{name!r}] cannot be read as an array: {error}") from error
    if array.dtype.kind != "f":
        raise ValueError(f"state_dict[{name!r}] must hold real floating-point numbers, got {array.dtype}")
    # In float64 the sum of two biases of float32 is exact.
    return array.astype(np.float64)


def _recognise(held: Any) -> dict[str, list[str]]:
    """Which names make up which weight."""
    found = [
        (name.removesuffix(family["weight"][0]), family)
        for name in held
        for family in _FAMILIES
        if name == family["weight"][0] or name.endswith("." + family["weight"][0])
    ]
    found = [(prefix, family) for prefix, family in found if prefix + family["input_weight"][0] in held]
    if len(found) != 1:
        raise ValueError(
            "state_dict must hold one recurrent layer, as weight_hh_l0 and weight_ih_l0 of nn.RNN in one module; say which "
            f"is which by names=, got {', '.join(held) or 'nothing'}"
        )
    ((prefix, family),) = found
    parts = {part: [prefix + end for end in ends if prefix + end in held] for part, ends in family.items()}
    parts = {part: sources for part, sources in parts.items() if sources}
    shape = _as_numpy(held[parts["weight"][0]], parts["weight"][0]).shape
    if len(shape) != 2 or shape[0] != shape[1]:
        gated = {3: ", as of nn.GRU", 4: ", as of nn.LSTM"}.get(
            shape[0] // shape[1] if len(shape) == 2 and shape[1] else 0, ""
        )
        raise ValueError(f"state_dict[{parts['weight'][0]!r}] must be square, got {shape}{gated}")
    rest = [name for name in held if not any(name in sources for sources in parts.values())]
    heads = [name for name in rest if name.removesuffix(".weight").split(".")[-1] in _HEADS and name.endswith(".weight")]
    if len(heads) == 1:
        parts["readout_weight"] = heads
        bias = heads[0].removesuffix("weight") + "bias"
        if bias in rest:
            parts["readout_bias"] = [bias]
    surplus = [name for name in rest if [name] not in parts.values()]
    if surplus:
        layers = (
            " (one layer in one direction is what a CTRNN is)" if any(prefix + "weight" in name for name in surplus) else ""
        )
        raise ValueError(
            f"state_dict holds {', '.join(surplus)}, whose use is not known{layers}: say which is which by names="
        )
    return parts


def _as_named(names: Any, held: Any) -> dict[str, list[str]]:
    if not isinstance(names, Mapping) or "weight" not in names:
        raise ValueError(f"names must be a dict that holds at least weight, got {names!r}")
    parts = {}
    for part, sources in names.items():
        if part not in _WEIGHTS:
            raise ValueError(f"names holds {part!r}; known are {', '.join(_WEIGHTS)}")
        sources = [sources] if isinstance(sources, str) else sources
        if not isinstance(sources, (list, tuple)) or not sources or not all(isinstance(name, str) for name in sources):
            raise ValueError(f"names[{part!r}] must be a name or a list of names, got {sources!r}")
        for source in sources:
            if source not in held:
                raise ValueError(f"names[{part!r}] is {source!r}, which state_dict does not hold")
        parts[part] = list(sources)
    return parts
