"""Convert the argument `model` of a function, which may be a PyTorch network."""

from typing import Any

from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.from_torch import from_torch
from ssntk.models.torch_layout import looks_like_torch


def as_model(value: Any, name: str = "model") -> AbstractStateSpaceModel:
    """`value` if it is a model. If it is a PyTorch module or state_dict, the model that [`from_torch`][] makes of it.

    The weights are read only once, so a module must be passed again after further training. Raises `ValueError`, which
    names the argument `name`, if it is neither.
    """
    if not isinstance(value, AbstractStateSpaceModel) and looks_like_torch(value):
        try:
            return from_torch(value)
        except ValueError as error:
            raise ValueError(f"{name} is no network that from_torch takes: {error}") from error
    check_model(value, name)
    return value
