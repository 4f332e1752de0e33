"""What PyTorch calls things: modules and weights are recognised by their own methods and names, without importing it."""

import pathlib
from collections.abc import Mapping
from typing import Any

# What the recurrent weights of one module are called: nn.RNN, nn.GRU, nn.LSTM; their Cells; a network of two nn.Linear.
FAMILIES = (
    {"weight": "weight_hh_l0", "input_weight": "weight_ih_l0", "bias": "bias_hh_l0", "input_bias": "bias_ih_l0"},
    {"weight": "weight_hh", "input_weight": "weight_ih", "bias": "bias_hh", "input_bias": "bias_ih"},
    {"weight": "h2h.weight", "input_weight": "input2h.weight", "bias": "h2h.bias", "input_bias": "input2h.bias"},
)
# Under which names checkpoints hold a state_dict beside an optimiser's and others.
CHECKPOINTS = ("state_dict", "model_state_dict")


def is_module(value: Any) -> bool:
    """Whether something looks like an `nn.Module`."""
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("named_modules", "state_dict")
    )


def is_weights(value: Any) -> bool:
    """Whether something looks like a state_dict, or like a checkpoint that holds one."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return False
    if any(isinstance(value.get(name), Mapping) for name in CHECKPOINTS):
        return True
    ends = tuple(family["weight"] for family in FAMILIES)
    return any(name.endswith(ends) or hasattr(tensor, "detach") for name, tensor in value.items())


def looks_like_torch(value: Any) -> bool:
    """Whether [`from_torch`][] is what something was meant for."""
    return is_module(value) or is_weights(value)


def what_to_write(value: Any) -> str:
    """How to make a model of something that is none, as the end of a message; nothing where that is not known."""
    if looks_like_torch(value):
        return ": pass ssntk.from_torch(net)"
    if isinstance(value, (str, pathlib.Path)):
        return ": load the file first, and pass ssntk.from_torch(torch.load(path, weights_only=True)) if PyTorch wrote it"
    origins = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if callable(value) and origins & {"equinox", "flax"}:
        return ": wrap it by ssntk.from_cell(cell, n_state=..., n_input=...)"
    return ""
