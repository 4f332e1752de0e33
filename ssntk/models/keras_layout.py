"""Recognise the weights of a recurrent layer of Keras by their names and shapes, without importing it."""

import re
from typing import Any, NamedTuple

import numpy as np

from ssntk.models.torch_layout import HEADS, KINDS, Parts, StateDict, as_numpy, named_once

# The roles of the numbered arrays in the weights file of Keras 3.
VARS = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}
ROLES = {"weight": "recurrent_kernel", "input_weight": "kernel", "bias": "bias"}
LAYERS = {"nn.RNN": "SimpleRNN", "nn.GRU": "GRU", "nn.LSTM": "LSTM"}
STACK = "make each layer by from_torch, and stack them by ssntk.Layers(first, second)"


class Foreign(NamedTuple):
    """The weights of one layer of another framework.

    - `kind`: the PyTorch layer that it corresponds to.
    - `weights`: the arrays, with the names of those of PyTorch's layer, but in the framework's order of gates.
    - `reset_after`: whether the reset gate of a GRU multiplies what the recurrent weights give.
    """

    kind: str
    weights: dict[str, np.ndarray]
    reset_after: bool


def keras_layer(held: StateDict, names: Any, reset_after: bool | None) -> Foreign:
    """The recurrent layer of Keras with the weights `held`. `names`: as in [`from_torch`][]."""
    parts = _recognised(held) if names is None else named_once(names, held)
    arrays = {part: as_numpy(held[name], name) for part, (name,) in parts.items()}
    recurrent = arrays["weight"]
    columns = recurrent.shape[1] / recurrent.shape[0] if recurrent.ndim == 2 and recurrent.shape[0] else 0
    if columns not in KINDS:
        raise ValueError(
            f"state_dict[{parts['weight'][0]!r}] must be square, as of SimpleRNN, or have three times as many columns as "
            f"rows, as of GRU, or four times, as of LSTM; got {recurrent.shape}"
        )
    kind, width = KINDS[int(columns)], recurrent.shape[1]
    kernel = arrays.get("input_weight")
    if kernel is not None and (kernel.ndim != 2 or kernel.shape[1] != width):
        raise ValueError(f"state_dict[{parts['input_weight'][0]!r}] must have shape (d, {width}), got {kernel.shape}")
    biases, after = _biases(arrays, parts, kind, width, reset_after)
    weights = {part: array for part, array in arrays.items() if part in ("weight", "input_weight")} | biases
    if kind == "nn.RNN":
        # The other cells are told that their weights are transposed.
        weights = {part: array.T for part, array in weights.items()}
    if "readout_weight" in arrays:
        weights["readout_weight"] = arrays["readout_weight"].T
    if "readout_bias" in arrays:
        weights["readout_bias"] = arrays["readout_bias"]
    return Foreign(kind, weights, after)


def _biases(
    arrays: dict[str, np.ndarray], parts: Parts, kind: str, width: int, asked: bool | None
) -> tuple[dict[str, np.ndarray], bool]:
    """The biases by the names of PyTorch's, and whether a GRU resets after its recurrent weights."""
    bias = arrays.get("bias")
    if bias is None:
        return {}, asked is not False
    shapes = [(width,), (2, width)] if kind == "nn.GRU" else [(width,)]
    if bias.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"state_dict[{parts['bias'][0]!r}] must have shape {wanted} in {LAYERS[kind]}, got {bias.shape}")
    after = bias.ndim == 2
    if kind == "nn.GRU" and asked is not None and asked != after:
        raise ValueError(
            f"reset_after contradicts state_dict[{parts['bias'][0]!r}], whose shape is (2, {width}) with reset_after and "
            f"({width},) without, got {bias.shape}: leave it out"
        )
    if after:
        return {"input_bias": bias[0], "bias": bias[1]}, True
    return {"bias" if kind == "nn.RNN" else "input_bias": bias}, False


def _recognised(held: StateDict) -> Parts:
    """The names of the arrays of the recurrent layer, and of the readout."""
    groups: dict[str, dict[str, str]] = {}
    for name in held:
        steps = [step for step in re.split(r"[/.]", name.removesuffix(":0")) if step]
        # The state of a random generator, or of an optimiser, is no weight.
        if not steps or "seed_generator" in steps or "optimizer" in steps:
            continue
        numbered = len(steps) > 1 and steps[-2] == "vars"
        role = VARS.get(steps[-1], steps[-1]) if numbered else steps[-1]
        group = "/".join(steps[:-1])
        if numbered and role == "recurrent_kernel" and as_numpy(held[name], name).ndim == 1:
            # The second array of a Dense layer is its bias.
            role = "bias"
        groups.setdefault(group, {})[role] = name
    recurrent = [group for group, roles in groups.items() if "recurrent_kernel" in roles]
    if any(re.search("backward|bidirectional", group) for group in recurrent):
        raise ValueError(
            f"state_dict holds {', '.join(recurrent)}, bidirectional: its first output depends on the last input, so that "
            "it has no step"
        )
    if len(recurrent) > 1:
        raise ValueError(f"state_dict holds several recurrent layers, {', '.join(recurrent)}: {STACK}")
    if not recurrent or "kernel" not in groups[recurrent[0]]:
        raise ValueError(
            "state_dict must hold kernel and recurrent_kernel of one recurrent layer of Keras; say which is which by "
            f"names=, got {', '.join(held) or 'nothing'}"
        )
    (layer,) = recurrent
    parts = {part: [groups[layer][role]] for part, role in ROLES.items() if role in groups[layer]}
    used = set(ROLES.values()) & groups[layer].keys()
    rest = [name for role, name in groups.pop(layer).items() if role not in used]
    heads = [group for group, roles in groups.items() if _fits(held, parts, group, roles)]
    if len(heads) == 1:
        roles = groups.pop(heads[0])
        parts["readout_weight"] = [roles["kernel"]]
        if "bias" in roles:
            parts["readout_bias"] = [roles["bias"]]
    rest += [name for roles in groups.values() for name in roles.values()]
    if rest:
        raise ValueError(f"state_dict holds {', '.join(rest)}, whose use is not known: say which is which by names=")
    return parts


def _fits(held: StateDict, parts: Parts, group: str, roles: dict[str, str]) -> bool:
    """Whether a layer can only be the readout: a Dense layer of the states, which does not lie in front of the cell."""
    if "kernel" not in roles or not roles.keys() <= {"kernel", "bias"}:
        return False
    shape = as_numpy(held[roles["kernel"]], roles["kernel"]).shape
    (inputs,), (weight,) = parts["input_weight"], parts["weight"]
    d, n = (as_numpy(held[name], name).shape[0] for name in (inputs, weight))
    if len(shape) != 2 or shape[0] != n:
        return False
    names = list(held)
    # If its outputs fit the inputs, only its place, or its name, distinguishes it from a layer in front.
    named = re.sub(r"_\d+$", "", group.removesuffix("/vars").split("/")[-1]) in HEADS
    return shape[1] != d or named or names.index(roles["kernel"]) > names.index(weight)
