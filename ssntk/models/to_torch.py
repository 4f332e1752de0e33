"""Convert a model that was made from PyTorch weights, and then changed, back into such weights."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssntk.models.cells import GRUCell, LSTMCell
from ssntk.models.ctrnn import CTRNN
from ssntk.models.layers import Layers
from ssntk.models.low_rank_layout import low_rank_prefix, low_rank_values
from ssntk.models.torch_layout import GATED, WEIGHTS, Parts, as_numpy, layout_of, weights_of

_LAYERS = {"nn.RNN": CTRNN, "nn.GRU": GRUCell, "nn.LSTM": LSTMCell}
_READOUT = ("readout_weight", "readout_bias")


def to_torch(model: Any, state_dict: Any, names: Any = None) -> Any:
    """A copy of `state_dict` with the weights of `model`, which [`from_torch`][] made from it and which has changed since.

    Names, types, precisions and devices are those of `state_dict`. Weights that did not change are copied.

    **Arguments:** `state_dict`: the original weights: a dict, or the module or checkpoint that holds them. `names`: as given
    to `from_torch`.

    Raises `ValueError` if the model cannot have been made from these weights.
    """
    held = weights_of(state_dict)
    found: Any = copy.copy(held) if isinstance(held, dict) else dict(held)
    prefix = low_rank_prefix(held) if names is None else None
    if prefix is not None:
        changed = low_rank_values(model, state_dict, held, prefix)
    else:
        # A readout that is recognised only in a module, as its only nn.Linear, is left over in the state_dict, and copied.
        kind, layers = layout_of(state_dict, held, names, whole=False)
        cells = model.cells if isinstance(model, Layers) else (model,)
        if len(cells) != len(layers):
            raise ValueError(f"state_dict holds {len(layers)} recurrent layers, and the model has {len(cells)}")
        changed = {}
        for cell, parts in zip(cells, layers, strict=True):
            changed |= _layer(cell, kind, parts)
    for name, (part, value) in changed.items():
        found[name] = _moved(value, held[name], name, part)
    for name in held:
        if found[name] is held[name]:
            found[name] = held[name].detach().clone() if hasattr(held[name], "detach") else copy.deepcopy(held[name])
    return found


def _layer(model: Any, kind: str, parts: Parts) -> dict[str, tuple[str, Any]]:
    """The weights of one layer: by the name of each array, which part it is, and its value."""
    layer = vars(model).get("model", model)
    if not isinstance(layer, _LAYERS[kind]):
        made = f"an EulerMap of {type(layer).__name__}" if layer is not model else f"a {type(model).__name__}"
        raise ValueError(f"state_dict holds the weights of an {kind}, and the model, {made}, did not come from them")
    if isinstance(layer, GRUCell) and not layer.reset_after:
        raise ValueError("the model is a GRU without reset_after, which nn.GRU is not: it did not come from PyTorch")
    values = {part: getattr(layer, GATED.get(part, part) if kind != "nn.RNN" else part) for part in WEIGHTS}
    if isinstance(layer, CTRNN):
        if not np.all(np.asarray(layer.tau) == 1):
            raise ValueError("the model's tau is not 1, for which PyTorch's weights have no place: fold it into dt")
        values["weight"] = layer.gain * layer.weight
    found = {}
    for part, value in values.items():
        sources = parts.get(part, [])
        if not sources:
            # Without a readout the model has the identity as readout, which is left out. A bias that the weights lack must
            # still be zero.
            if part not in _READOUT and value is not None and np.asarray(value).any():
                raise ValueError(f"state_dict holds no {part}, which is not zero in the model: it did not come from there")
            continue
        if len(sources) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part}, and a sum does not say how much of each")
        found[sources[0]] = part, value
    return found


def _moved(value: Any, before: Any, name: str, part: str) -> Any:
    """A weight in the form of the one `before`; that one itself if the value did not change."""
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
        # No method of this package changes a readout.
        raise ValueError(f"state_dict[{name!r}] is another {part} than the model has: it did not come from there")
    if hasattr(before, "new_tensor"):
        return before.detach().new_tensor(array.tolist())
    if isinstance(before, jax.Array):
        return jnp.asarray(array, before.dtype)
    return array.astype(getattr(before, "dtype", array.dtype))
