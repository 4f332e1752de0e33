"""Read networks that were made or trained in PyTorch. PyTorch itself need not be installed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssntk.errors import as_choice, as_scalar
from ssntk.models.activations import check_activation
from ssntk.models.cells import GRUCell, LSTMCell, TorchRNN
from ssntk.models.keras_layout import keras_layer
from ssntk.models.layers import Layers
from ssntk.models.low_rank_layout import (
    check_low_rank,
    low_rank_network,
    low_rank_prefix,
    nonlinearity_of_low_rank,
    of_low_rank,
)
from ssntk.models.maps import AbstractMap, EulerMap
from ssntk.models.onnx_layout import onnx_layer
from ssntk.models.torch_layout import (
    GATED,
    Parts,
    StateDict,
    as_numpy,
    is_module,
    layout_of,
    nonlinearity_of,
    weights_of,
)
from ssntk.notices import warn
from ssntk.nouns import Activation, AnyArray

_KNOWN = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def from_torch(
    module_or_state_dict: Any = None,
    dt: Any = 1.0,
    *,
    form: str = "rate",
    activation: Any = None,
    names: Any = None,
    order: str = "torch",
    reset_after: Any = None,
    state_dict: Any = None,
) -> AbstractMap:
    """The network of a PyTorch module or state_dict as a map, exactly. A state_dict does not hold the nonlinearity:
    **tanh is assumed** then. Pass the module itself, whose `nonlinearity` is read, or an `activation` such as `jax.nn.relu`.

    | PyTorch | the result | state |
    |---|---|---|
    | `nn.RNN`, `nn.RNNCell` | [`EulerMap`][] of a rate-form [`CTRNN`][], dt = 1 | h (n,) |
    | `nn.GRU`, `nn.GRUCell` | [`GRUCell`][] | h (n,) |
    | `nn.LSTM`, `nn.LSTMCell` | [`LSTMCell`][] | (h, c), (2n,) |
    | any of these with `num_layers` of 2 or more | [`Layers`][] of the above | all layers, the first one's first |
    | a leaky network of two `nn.Linear`, h2h and input2h | `EulerMap` of a `CTRNN`, dt = its leak | h (n,) |
    | low rank: m, n, wi, wo (Dubreuil et al., 2022) | `EulerMap` of a [`LowRankRNN`][], dt = its alpha | h (n,) |
    | full rank in the same code: wrec, wi, wo, b | `EulerMap` of a current-form `CTRNN`, dt = its alpha | h (n,) |

    The layers may lie inside another module, with one linear readout of the last h, `y = W h + b`. The kernel is that of the
    PyTorch network too. Its theta is exactly the weights that the network has: both biases if it has two (`input_bias` and
    `bias` of the CTRNN), and no weights of a readout if it has none. Dropout between layers is that of evaluation: none.

    In the code of low-rank networks, J is m n^T / N, and wi, wo are scaled by si, so. theta holds m, n and the products
    si wi and so wo / N. h0 is left out: pass it as the `x0` of a [`Probe`][]. b must be zero. OptimizedLowRankRNN has the
    same names and no / N; only the module itself shows that.

    **Arguments:**

    - `module_or_state_dict`: an `nn.Module`; a dict from names to tensors or arrays, as [`load_weights`][] reads from a
      file; or a checkpoint that holds such a dict as "state_dict" or "model_state_dict". It must hold one row of the table,
      with one direction. Its names may have a common prefix. There may be a readout: one linear layer (m, n) called fc,
      linear, out, output, readout, head or decoder. In a module the only `nn.Linear` that fits is recognised too. Stack
      modules of your own by [`Layers`][].
    - `dt`: the leak of a leaky network, that is its step divided by its time constant:
      `h <- (1 - dt) h + dt activation(...)`. It must be 1 for gated layers; 1 also gives `nn.RNN`.
    - `form`: the place of the nonlinearity in a leaky network: `"rate"` for `activation(weight h + ...)`, or `"current"`
      for `weight activation(h) + ...`, as in `CTRNN`. The code of low-rank networks has its own, the current form.
    - `activation`: the nonlinearity. Default: that of the module, else `jnp.tanh`.
    - `names`: needed if the network has other names, or more weights. A dict from weight, input_weight, bias, input_bias,
      readout_weight or readout_bias to a name in the state_dict, or to a list of names whose arrays are added. `weight`
      must be among the keys. Weights that are not named are left out.
    - `order`: the framework whose weights a dict holds. `"keras"`: one SimpleRNN, GRU or LSTM, with names that end in
      kernel, recurrent_kernel and bias, or in vars/0, vars/1 and vars/2; one Dense layer of h is the readout, taken as
      linear. `"onnx"`: the W, R and B of one RNN, GRU or LSTM, with names that end so. Gates are taken to be sigmoids and
      candidates tanh, the default of both: hard sigmoids are other functions. A single bias of Keras is the `bias_ih`.
    - `reset_after`: only for a GRU of Keras without a bias, where the default is true, and for one of ONNX, where it must be
      given: whether the node has linear_before_reset = 1.

    The arrays have JAX's default floating-point type. [`same_rollout`][] compares the result with the module. Raises
    `ValueError` if the network is anything else, for example has two directions or a projection, or if `activation`
    contradicts the module.

    **Example:**

    ```python
    weights = {"weight_ih_l0": np.zeros((2, 1)), "weight_hh_l0": np.eye(2) / 2}
    network = ssntk.from_torch(weights)  # or the nn.RNN itself
    print(network.step([1.0, 0.0]).round(4))  # [0.4621 0.    ]
    keras = {"gru/kernel": np.zeros((1, 6)), "gru/recurrent_kernel": np.zeros((2, 6)), "gru/bias": np.zeros((2, 6))}
    print(ssntk.from_torch(keras, order="keras").step([1.0, 0.0]))  # [0.5 0. ]
    ```
    """
    if state_dict is not None:
        warn("state_dict= is now the first argument, module_or_state_dict", DeprecationWarning)
        module_or_state_dict = state_dict
    as_choice(form, "form", ("rate", "current"))
    as_choice(order, "order", ("torch", "keras", "onnx"))
    if reset_after is not None and not isinstance(reset_after, bool):
        raise ValueError(f"reset_after must be True or False, got {reset_after!r}")
    if order != "torch":
        return _foreign(module_or_state_dict, dt, form, activation, names, order, reset_after)
    if reset_after is not None:
        raise ValueError('reset_after must be left out for order="torch", whose GRU has it')
    held = weights_of(module_or_state_dict)
    prefix = low_rank_prefix(held) if names is None else None
    if prefix is not None:
        return _low_rank(module_or_state_dict, held, prefix, dt, activation)
    kind, layers = layout_of(module_or_state_dict, held, names)
    _check_trained(module_or_state_dict, [name for parts in layers for sources in parts.values() for name in sources])
    every = [_read(held, parts, kind) for parts in layers]
    if kind != "nn.RNN":
        return _stacked([_gated(kind, weights, dt, form, activation) for weights in every])
    (first, *_) = layers[0]["weight"]
    said = nonlinearity_of(module_or_state_dict, first)
    if said is None and activation is None and is_module(module_or_state_dict) and first.endswith("h2h.weight"):
        raise ValueError(
            "activation must be given for a module that does not say its nonlinearity, and dt if it leaks: pass "
            "ssntk.from_torch(net, dt, activation=jnp.tanh), or what its forward has"
        )
    activation = _activation(said, activation)
    return _stacked([EulerMap(TorchRNN.of(weights, activation=activation, form=form), dt) for weights in every])


def _stacked(cells: Sequence[AbstractMap]) -> AbstractMap:
    return cells[0] if len(cells) == 1 else Layers(*cells)


def _read(held: StateDict, parts: Parts, kind: str) -> dict[str, AnyArray]:
    """The arrays of one layer."""
    weights: dict[str, AnyArray] = {}
    for part, sources in parts.items():
        arrays = [as_numpy(held[source], source) for source in sources]
        if len({array.shape for array in arrays}) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part} and must have one shape")
        weights[part] = jnp.asarray(sum(arrays), jnp.result_type(float))
    # Both must be (n,). If they were added later, the error would name neither of them.
    if kind == "nn.RNN" and "input_bias" in weights and weights["input_bias"].shape != weights["bias"].shape:
        raise ValueError(f"state_dict: {parts['bias'][0]} and {parts['input_bias'][0]} must have one shape")
    return weights


def _foreign(
    value: Any, dt: Any, form: str, activation: Any, names: Any, order: str, reset_after: bool | None
) -> AbstractMap:
    """The network of weights of Keras or ONNX."""
    if is_module(value):
        raise ValueError(f"order must be left out for a PyTorch module, got {order!r}")
    held = weights_of(value)
    kind, arrays, after = (keras_layer if order == "keras" else onnx_layer)(held, names, reset_after)
    if kind != "nn.GRU" and reset_after is not None:
        raise ValueError("reset_after must be left out, since the layer is no GRU")
    weights = _converted(arrays)
    if kind == "nn.RNN":
        return EulerMap(TorchRNN.of(weights, activation=_activation(None, activation), form=form), dt)
    how = {"reset_after": after} if kind == "nn.GRU" else {}
    return _gated(kind, weights, dt, form, activation, order=order, **how)


def _low_rank(value: Any, held: StateDict, prefix: str, dt: Any, activation: Any) -> AbstractMap:
    weights, gain, layer = low_rank_network(value, held, prefix)
    activation = _activation(nonlinearity_of_low_rank(layer), activation)
    check_low_rank(layer, float(as_scalar(dt, "dt", positive=True)), weights)
    return of_low_rank(_converted(weights), gain, dt, activation)


def _converted(arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """The arrays in JAX's default floating-point type."""
    return {part: jnp.asarray(array, jnp.result_type(float)) for part, array in arrays.items()}


def _check_trained(module: Any, names: list[str]) -> None:
    """Warn if theta holds weights that the module does not train, or that it ties: its kernel is then not PyTorch's."""
    if not is_module(module) or not hasattr(module, "named_parameters"):
        return
    parameters = dict(module.named_parameters(remove_duplicate=False))
    known = {name: parameters[name] for name in names if name in parameters}
    frozen = [name for name, one in known.items() if not getattr(one, "requires_grad", True)]
    tied = [name for name, one in known.items() if sum(other is one for other in known.values()) > 1]
    for which, what in ((frozen, "does not train"), (tied, "trains as one")):
        if which:
            warn(f"theta holds {', '.join(which)}, which the module {what}: its kernel is not PyTorch's; choose by wrt=")


def _gated(kind: str, weights: dict[str, AnyArray], dt: Any, form: str, activation: Any, **how: Any) -> AbstractMap:
    if float(as_scalar(dt, "dt", positive=True)) != 1.0:
        raise ValueError(f"dt must be 1 for {kind}, whose own step it is, got {dt}")
    if form != "rate":
        raise ValueError(f"form must be left out for {kind}, got {form!r}")
    if activation is not None and not _agree(activation, jnp.tanh):
        raise ValueError(f"activation must be left out for {kind}: its gates are sigmoids and its candidate a tanh")
    cell = {"nn.GRU": GRUCell, "nn.LSTM": LSTMCell}[kind]
    return cell.from_weights(**{GATED.get(part, part): array for part, array in weights.items()}, **how)


def _activation(said: str | None, given: Any) -> Activation:
    """The nonlinearity, from the name that the module has for it and the argument `given`. They must agree."""
    if given is not None:
        check_activation(given)
    if said is None:
        return jnp.tanh if given is None else given
    if said not in _KNOWN:
        if given is None:
            raise ValueError(f"activation must be given: the module's nonlinearity is {said!r}, which is not known here")
        return given
    if given is None:
        return _KNOWN[said]
    if not _agree(given, _KNOWN[said]):
        raise ValueError(f"activation contradicts the module, whose nonlinearity is {said!r}: leave it out")
    return given


def _agree(one: Activation, other: Activation) -> bool:
    """Whether two functions have the same values. This distinguishes tanh and relu from each other and from all others."""
    at = jnp.asarray(np.linspace(-3.0, 3.0, 13), jnp.result_type(float))
    try:
        return bool(np.allclose(np.asarray(one(at)), np.asarray(other(at)), rtol=1e-5, atol=1e-5))
    except (TypeError, ValueError):
        return False
