"""The way back: a model that came from PyTorch's weights, and was changed, as such weights."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssntk.models.cells import GRU, LSTM
from ssntk.models.clock import Steps
from ssntk.models.ctrnn import CTRNN
from ssntk.models.torch_layout import GATED, WEIGHTS, as_numpy, layout_of, weights_of

_LAYERS = {"nn.RNN": CTRNN, "nn.GRU": GRU, "nn.LSTM": LSTM}
_READOUT = ("readout_weight", "readout_bias")


def to_torch(model: Any, state_dict: Any, names: Any = None) -> Any:
    """A copy of `state_dict` with the weights of `model`, which was made of it by [`from_torch`][] and moved since.

    Names, types, precisions and devices are those of `state_dict`, and so are the values of what did not move.

    **Arguments:** `state_dict`: what `from_torch` takes; a module's own state_dict, and the one in a checkpoint, is copied.
    `names`: as given to `from_torch`.

    Raises `ValueError` if the model cannot have been made of these weights.
    """
    held = weights_of(state_dict)
    # A readout that only a module tells, by being the one nn.Linear, is left over in its state_dict, and copied.
    kind, parts = layout_of(state_dict, held, names, whole=False)
    # Of a map, the layer whose step it takes; maps know this file, and it does not know them.
    layer = getattr(model, "model", None) if isinstance(model.clock, Steps) else None
    if not isinstance(layer, _LAYERS[kind]):
        made = f"an EulerMap of {type(layer).__name__}" if layer is not None else f"a {type(model).__name__}"
        raise ValueError(f"state_dict holds the weights of an {kind}, and the model, {made}, did not come from them")
    values = {part: getattr(layer, GATED.get(part, part) if kind != "nn.RNN" else part) for part in WEIGHTS}
    if isinstance(layer, CTRNN):
        if not np.all(np.asarray(layer.tau) == 1):
            raise ValueError("the model's tau is not 1, for which PyTorch's weights have no place: fold it into dt")
        values["weight"] = layer.gain * layer.weight
    found: Any = copy.copy(held) if isinstance(held, dict) else dict(held)
    for part, value in values.items():
        sources = parts.get(part, [])
        if not sources:
            # A network without readout is its own, and a bias that it has not must have stayed zero.
            if part not in _READOUT and value is not None and np.asarray(value).any():
                raise ValueError(f"state_dict holds no {part}, which is not zero in the model: it did not come from there")
            continue
        if len(sources) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part}, and a sum does not say how much of each")
        found[sources[0]] = _moved(value, held[sources[0]], sources[0], part)
    for name in held:
        if found[name] is held[name]:
            found[name] = held[name].detach().clone() if hasattr(held[name], "detach") else copy.deepcopy(held[name])
    return found


def _moved(value: Any, before: Any, name: str, part: str) -> Any:
    """A weight as something like that `before`: itself if it did not move."""
    known = as_numpy(before, name)
    if value is None or np.shape(value) != known.shape:
        held = "no such weight" if value is None else f"shape {np.shape(value)}"
        raise ValueError(
            f"state_dict[{name!r}] has shape {known.shape}, and the model has {held} for {part}: it did not come from there"
        )
    array = np.asarray(value)
    if np.array_equal(array, known.astype(array.dtype)):
        return before
    if part in _READOUT:
        # Nothing that is moved by a bifurcation is a readout.
        raise ValueError(f"state_dict[{name!r}] is another {part} than the model has: it did not come from there")
    if hasattr(before, "new_tensor"):
        return before.detach().new_tensor(array.tolist())
    if isinstance(before, jax.Array):
        return jnp.asarray(array, before.dtype)
    return array.astype(getattr(before, "dtype", array.dtype))
