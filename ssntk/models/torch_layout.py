"""Recognise modules and weights of PyTorch by their methods and names, without importing it."""

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

# The names of recurrent weights: those of nn.RNN, nn.GRU and nn.LSTM; of their Cells; and of a network of two nn.Linear.
FAMILIES = (
    {"weight": "weight_hh_l0", "input_weight": "weight_ih_l0", "bias": "bias_hh_l0", "input_bias": "bias_ih_l0"},
    {"weight": "weight_hh", "input_weight": "weight_ih", "bias": "bias_hh", "input_bias": "bias_ih"},
    {"weight": "h2h.weight", "input_weight": "input2h.weight", "bias": "h2h.bias", "input_bias": "input2h.bias"},
)
HEADS = ("fc", "linear", "lin", "out", "output", "readout", "head", "decoder", "h2o", "hidden2out")
WEIGHTS = ("weight", "input_weight", "bias", "input_bias", "readout_weight", "readout_bias")
# The names of the arrays of a gated layer.
GATED = {"weight": "weight_hh", "input_weight": "weight_ih", "bias": "bias_hh", "input_bias": "bias_ih"}
# The type of a layer, by the number of rows of its recurrent weights divided by the number of units.
KINDS = {1: "nn.RNN", 3: "nn.GRU", 4: "nn.LSTM"}
OWN_STEP = "write its step as a function and wrap that by ssntk.from_cell"
# The names under which checkpoints hold a state_dict.
CHECKPOINTS = ("state_dict", "model_state_dict")


def is_module(value: object) -> bool:
    """Whether something looks like an `nn.Module`."""
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("named_modules", "state_dict")
    )


def is_weights(value: object) -> bool:
    """Whether something looks like a state_dict, or like a checkpoint that holds one."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return False
    if any(isinstance(value.get(name), Mapping) for name in CHECKPOINTS):
        return True
    ends = tuple(family["weight"] for family in FAMILIES)
    return any(name.endswith(ends) or hasattr(tensor, "detach") for name, tensor in value.items())


def looks_like_torch(value: object) -> bool:
    """Whether something was probably meant for [`from_torch`][]."""
    return is_module(value) or is_weights(value)


def what_to_write(value: object) -> str:
    """The end of a message that says how to make a model from something that is not one; empty if that is not known."""
    if looks_like_torch(value):
        return ": pass ssntk.from_torch(net)"
    if isinstance(value, (str, pathlib.Path)):
        return ": load the file first, and pass ssntk.from_torch(ssntk.load_weights(path)) if PyTorch wrote it"
    origins = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if callable(value) and origins & {"equinox", "flax"}:
        return ": wrap it by ssntk.from_cell(cell, n_state=..., n_input=...)"
    return ""


# The tensors of a module by their names.
StateDict: TypeAlias = Mapping[str, Any]


# For each weight of one layer of the model, the names of the arrays that add up to it.
Parts: TypeAlias = dict[str, list[str]]


class Layout(NamedTuple):
    """The layout of a network.

    - `kind`: "nn.RNN", "nn.GRU" or "nn.LSTM".
    - `layers`: the weights of each layer, from the bottom to the top. Those of the readout belong to the last.
    """

    kind: str
    layers: list[Parts]


def weights_of(value: Any) -> StateDict:
    """The names and tensors of a module, of a state_dict, or of a checkpoint that holds one."""
    held = value.state_dict() if is_module(value) else value
    if isinstance(held, Mapping):
        for name in CHECKPOINTS:
            # In what `load_weights` returns, the names of a checkpoint's dicts are joined by a dot.
            joined = [one for one in held if isinstance(one, str) and one.startswith(f"{name}.") and not is_module(value)]
            if joined or isinstance(held.get(name), Mapping):
                held = {one.removeprefix(f"{name}."): held[one] for one in joined} or held[name]
    if not isinstance(held, Mapping) or not all(isinstance(name, str) for name in held):
        write = what_to_write(value) if isinstance(value, (str, pathlib.Path)) else ""
        raise ValueError(
            "module_or_state_dict must map names to tensors or arrays, or be an nn.Module, "
            f"got {type(value).__name__}{write}"
        )
    return held


def layout_of(value: Any, held: StateDict, names: Any = None, *, whole: bool = True) -> Layout:
    """The layout of the weights `held` by a module or state_dict. `names`: as in [`from_torch`][].

    `whole`: raise `ValueError` if some weights are left over.
    """
    layers = _recognised(value, held, whole) if names is None else [_as_named(names, held)]
    kind = _kind(held, layers[0])
    for parts in layers:
        (weight, *_) = parts["weight"]
        if _kind(held, parts) != kind:
            raise ValueError(f"state_dict[{weight!r}] must be that of an {kind}, as the layers below it")
        if kind == "nn.RNN" and "bias" not in parts and "input_bias" in parts:
            parts["bias"] = parts.pop("input_bias")
        for part, sources in parts.items():
            if kind != "nn.RNN" and len(sources) > 1:
                raise ValueError(
                    f"names[{part!r}] adds up {', '.join(sources)}; the biases of {kind} do not add up: name bias_hh as "
                    "bias and bias_ih as input_bias"
                )
    for below, above in itertools.pairwise(layers):
        (name,), n = above["input_weight"], _width(held, below, "weight")
        if _width(held, above, "input_weight") != n:
            raise ValueError(f"state_dict[{name!r}] must have {n} columns, one for each unit of the layer below")
    return Layout(kind, layers)


def _kind(held: StateDict, parts: Parts) -> str:
    """The type of a layer, by the shape of its recurrent weights."""
    (weight, *_) = parts["weight"]
    shape = as_numpy(held[weight], weight).shape
    rows = shape[0] / shape[1] if len(shape) == 2 and shape[1] else 0
    if rows not in KINDS:
        raise ValueError(
            f"state_dict[{weight!r}] must be square, as of nn.RNN, or have three times as many rows as columns, as of "
            f"nn.GRU, or four times, as of nn.LSTM; got {shape}"
        )
    return KINDS[int(rows)]


def _width(held: StateDict, parts: Parts, part: str) -> int:
    """The number of columns of one of the weights, which has one array."""
    (name, *_) = parts[part]
    shape = as_numpy(held[name], name).shape
    if len(shape) != 2:
        raise ValueError(f"state_dict[{name!r}] must be a matrix, got shape {shape}")
    return shape[1]


def as_numpy(value: Any, name: str) -> np.ndarray:
    """A tensor or array, in float64."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # NumPy has no bfloat16. float64 holds the numbers of all other types.
            value = (value.double() if hasattr(value, "double") and value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"state_dict[{name!r}] cannot be read as an array: {error}") from error
    if array.dtype.kind != "f":
        raise ValueError(f"state_dict[{name!r}] must hold real floating-point numbers, got {array.dtype}")
    # In float64 the sum of two biases of float32 is exact.
    return array.astype(np.float64)


def nonlinearity_of(value: Any, weight: str) -> str | None:
    """The name, in small letters, that the layer with the recurrent weights `weight` has for its nonlinearity; or `None`."""
    if not is_module(value):
        return None
    modules = dict(value.named_modules())
    inside, _, last = weight.rpartition(".")
    # If the layer consists of two nn.Linear, the module around them is the layer.
    around = [inside, inside.rpartition(".")[0]] if last == "weight" else [inside]
    for module in [modules.get(name) for name in around]:
        said = getattr(module, "nonlinearity", None)
        if said is None:
            mode = getattr(module, "mode", None)
            said = mode[4:] if isinstance(mode, str) and mode.startswith("RNN_") else None
        if said is not None:
            return (said if isinstance(said, str) else getattr(said, "__name__", type(said).__name__)).lower()
    return None


def _recognised(value: Any, held: StateDict, whole: bool) -> list[Parts]:
    """The weights of each layer, as recognised without `names`."""
    found = [
        (name.removesuffix(family["weight"]), family)
        for name in held
        for family in FAMILIES
        if name == family["weight"] or name.endswith("." + family["weight"])
    ]
    found = [(prefix, family) for prefix, family in found if prefix + family["input_weight"] in held]
    if len(found) > 1:
        several = " and ".join(prefix + family["weight"] for prefix, family in found)
        raise ValueError(
            f"state_dict must hold one recurrent layer, or one nn module with num_layers, got {several}: if they are a "
            "stack, pass ssntk.Layers(ssntk.from_torch(first), ssntk.from_torch(second)), else choose one by names="
        )
    if not found:
        raise ValueError(
            "state_dict must hold one recurrent layer, as weight_hh_l0 and weight_ih_l0 of nn.RNN in one module; say which "
            f"is which by names=, got {', '.join(held) or 'nothing'}"
        )
    ((prefix, family),) = found
    layers = _stack(held, prefix, family)
    used = {name for parts in layers for (name,) in parts.values()}
    rest = [name for name in held if name not in used]
    heads = [name for name in rest if name.removesuffix(".weight").split(".")[-1] in HEADS and name.endswith(".weight")]
    heads = [name for name in heads if not _in_front(held, layers, name)]
    heads = heads or _linear(value, held, layers, rest)
    if len(heads) == 1:
        layers[-1]["readout_weight"] = heads
        bias = heads[0].removesuffix("weight") + "bias"
        if bias in rest:
            layers[-1]["readout_bias"] = [bias]
    surplus = [name for name in rest if [name] not in layers[-1].values()]
    if surplus and whole:
        raise ValueError(f"state_dict holds {', '.join(surplus)}, whose use is not known: say which is which by names=")
    return layers


def _stack(held: StateDict, prefix: str, family: dict[str, str]) -> list[Parts]:
    """The weights of each layer of one module. Raises `ValueError` if it is not one that this package has."""
    own = [name for name in held if name.startswith(prefix + "weight_h")]
    projections = [name for name in own if name.startswith(prefix + "weight_hr")]
    if projections:
        raise ValueError(f"state_dict holds {', '.join(projections)}, the projection of proj_size: {OWN_STEP}")
    backwards = [name for name in own if name.endswith("_reverse")]
    if backwards:
        raise ValueError(
            f"state_dict holds {', '.join(backwards)}, bidirectional: its first output depends on the last input, so that "
            f"it has no step; choose a direction by names="
        )
    layers: list[Parts] = []
    for i in itertools.count():
        names = {part: prefix + end.removesuffix("0") + str(i) if i else prefix + end for part, end in family.items()}
        if i and (family is not FAMILIES[0] or names["weight"] not in held):
            break
        if names["input_weight"] not in held:
            raise ValueError(
                f"state_dict holds {names['weight']} without {names['input_weight']}, its weights of the inputs"
            )
        layers.append({part: [name] for part, name in names.items() if name in held})
    known = [parts["weight"][0] for parts in layers]
    above = [name for name in own if name.startswith(prefix + "weight_hh_l") and name not in known]
    if above and family is FAMILIES[0]:
        raise ValueError(f"state_dict holds {', '.join(above)}, and no layer {len(layers)} below it")
    return layers


def _in_front(held: StateDict, layers: list[Parts], head: str) -> bool:
    """Whether a linear layer with the name of a readout transforms the inputs instead, by its shape and its position."""
    shape = as_numpy(held[head], head).shape
    d, n = _width(held, layers[0], "input_weight"), as_numpy(held[layers[-1]["weight"][0]], "weight").shape[-1]
    names = list(held)
    first = names.index(layers[0]["weight"][0])
    return len(shape) == 2 and shape[0] == d and (shape[1] != n or names.index(head) < first)


def _linear(value: Any, held: StateDict, layers: list[Parts], rest: list[str]) -> list[str]:
    """The weights, under any name, of those linear layers of a module that can only be its readout."""
    if not is_module(value):
        return []
    d, n = (np.shape(held[name])[-1] for name in (layers[0]["input_weight"][0], layers[-1]["weight"][0]))
    return [
        f"{name}.weight"
        for name, module in value.named_modules()
        if f"{name}.weight" in rest
        and getattr(module, "in_features", None) == n
        # A layer whose output also fits the inputs may be an embedding.
        and getattr(module, "out_features", d) != d
    ]


def _as_named(names: object, held: StateDict) -> dict[str, list[str]]:
    if not isinstance(names, Mapping) or "weight" not in names:
        raise ValueError(f"names must be a dict that holds at least weight, got {names!r}")
    parts = {}
    for part, sources in names.items():
        if part not in WEIGHTS:
            raise ValueError(f"names holds {part!r}; known are {', '.join(WEIGHTS)}")
        sources = [sources] if isinstance(sources, str) else sources
        if not isinstance(sources, (list, tuple)) or not sources or not all(isinstance(name, str) for name in sources):
            raise ValueError(f"names[{part!r}] must be a name or a list of names, got {sources!r}")
        for source in sources:
            if source not in held:
                raise ValueError(f"names[{part!r}] is {source!r}, which state_dict does not hold")
        parts[part] = list(sources)
    return parts


def named_once(names: object, held: StateDict) -> Parts:
    """`names` as in [`from_torch`][], for a framework whose layers have one bias array: one name for each part."""
    parts = _as_named(names, held)
    if "input_bias" in parts:
        raise ValueError("names holds 'input_bias'; all biases of a layer of Keras or ONNX are in one array, bias")
    for part, sources in parts.items():
        if len(sources) > 1:
            raise ValueError(f"names[{part!r}] must be one name, got {sources!r}")
    return parts
