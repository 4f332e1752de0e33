"""Recognise the weights of a recurrent node of ONNX by their names and shapes, without importing it."""

from typing import Any

import numpy as np

from ssntk.models.keras_layout import STACK, Foreign
from ssntk.models.torch_layout import HEADS, KINDS, Parts, StateDict, as_numpy, named_once

ENDS = {"weight": "R", "input_weight": "W", "bias": "B"}


def onnx_layer(held: StateDict, names: Any, reset_after: bool | None) -> Foreign:
    """The recurrent node of ONNX with the initializers `held`. `names`: as in [`from_torch`][]."""
    parts = _recognised(held) if names is None else named_once(names, held)
    arrays = {part: _one_way(held, name, 2 if part == "bias" else 3) for part, (name,) in parts.items() if part in ENDS}
    recurrent = arrays["weight"]
    rows = recurrent.shape[0] / recurrent.shape[1] if recurrent.shape[1] else 0
    if rows not in KINDS:
        raise ValueError(
            f"state_dict[{parts['weight'][0]!r}] must have shape (1, n, n), as of RNN, (1, 3 n, n), as of GRU, or "
            f"(1, 4 n, n), as of LSTM; got {(1, *recurrent.shape)}"
        )
    kind, width = KINDS[int(rows)], recurrent.shape[0]
    if "input_weight" in arrays and arrays["input_weight"].shape[0] != width:
        got = (1, *arrays["input_weight"].shape)
        raise ValueError(f"state_dict[{parts['input_weight'][0]!r}] must have shape (1, {width}, d), got {got}")
    if "bias" in arrays:
        both = arrays.pop("bias")
        if both.shape != (2 * width,):
            name = parts["bias"][0]
            raise ValueError(f"state_dict[{name!r}] must have shape (1, {2 * width}), both biases, got {(1, *both.shape)}")
        arrays["input_bias"], arrays["bias"] = both[:width], both[width:]
    if kind == "nn.GRU" and reset_after is None:
        raise ValueError(
            "reset_after must be given for a GRU of ONNX, whose weights do not say it: True if the node has "
            "linear_before_reset = 1, as PyTorch writes it, else False"
        )
    for part in ("readout_weight", "readout_bias"):
        if part in parts:
            arrays[part] = as_numpy(held[parts[part][0]], parts[part][0])
    return Foreign(kind, arrays, reset_after is not False)


def _one_way(held: StateDict, name: str, rank: int) -> np.ndarray:
    """An array of a node without its first axis, which runs over directions."""
    array = as_numpy(held[name], name)
    if array.ndim != rank or array.shape[0] not in (1, 2):
        raise ValueError(
            f"state_dict[{name!r}] must have {rank} axes, the first over one direction, as ONNX has it, got {array.shape}"
        )
    if array.shape[0] == 2:
        raise ValueError(
            f"state_dict[{name!r}] holds two directions, bidirectional: the first output of such a node depends on the "
            "last input, so that it has no step"
        )
    return array[0]


def _recognised(held: StateDict) -> Parts:
    """The names of the arrays of the recurrent node, and of the readout."""
    starts = [name[:-1] for name in held if name.endswith("R") and name[:-1] + "W" in held]
    if len(starts) > 1:
        raise ValueError(f"state_dict holds several recurrent layers, {', '.join(s + 'R' for s in starts)}: {STACK}")
    if not starts:
        raise ValueError(
            "state_dict must hold W and R of one recurrent node of ONNX, with names that end in W and R; say which is "
            f"which by names=, got {', '.join(held) or 'nothing'}"
        )
    (start,) = starts
    if start + "P" in held:
        raise ValueError(f"state_dict holds {start}P, the peepholes of an LSTM, which ssntk.LSTMCell does not have")
    parts = {part: [start + end] for part, end in ENDS.items() if start + end in held}
    rest = [name for name in held if [name] not in parts.values()]
    heads = [name for name in rest if name.endswith(".weight") and name.removesuffix(".weight").split(".")[-1] in HEADS]
    if len(heads) == 1:
        parts["readout_weight"] = heads
        bias = heads[0].removesuffix("weight") + "bias"
        if bias in rest:
            parts["readout_bias"] = [bias]
    surplus = [name for name in rest if [name] not in parts.values()]
    if surplus:
        raise ValueError(f"state_dict holds {', '.join(surplus)}, whose use is not known: say which is which by names=")
    return parts
