"""Read networks that were made or trained in PyTorch. PyTorch itself need not be installed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssntk.errors import as_choice, as_scalar
from ssntk.models.activations import check_activation
from ssntk.models.cells import GRU, LSTM, TorchRNN
from ssntk.models.maps import EulerMap
from ssntk.models.torch_layout import GATED, as_numpy, is_module, layout_of, nonlinearity_of, weights_of
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
    state_dict: Any = None,
) -> EulerMap:
    """The network of a PyTorch module or state_dict as a map, exactly. A state_dict does not hold the nonlinearity:
    **tanh is assumed** then. Pass the module itself, whose `nonlinearity` is read, or an `activation` such as `jax.nn.relu`.

    | PyTorch | the result | state |
    |---|---|---|
    | `nn.RNN`, `nn.RNNCell` | [`EulerMap`][] of a rate-form [`CTRNN`][], dt = 1 | h (n,) |
    | `nn.GRU`, `nn.GRUCell` | `EulerMap` of PyTorch's own step, dt = 1 | h (n,) |
    | `nn.LSTM`, `nn.LSTMCell` | the same | (h, c), (2n,) |
    | a leaky network of two `nn.Linear`, h2h and input2h | `EulerMap` of a `CTRNN`, dt = its leak | h (n,) |

    The layer may lie inside another module, with one linear readout of h, `y = W h + b`. The kernel is that of the PyTorch
    network too. Its theta is exactly the weights that the network has: both biases if it has two (`input_bias` and `bias` of
    the CTRNN), and no weights of a readout if it has none.

    **Arguments:**

    - `module_or_state_dict`: an `nn.Module`; a dict from names to tensors or arrays, as [`load_weights`][] reads from a
      file; or a checkpoint that holds such a dict as "state_dict" or "model_state_dict". It must hold one layer of the
      table, with one direction. Its names may have a common prefix. There may be a readout: one linear layer (m, n) called
      fc, linear, out, output, readout, head or decoder. In a module the only `nn.Linear` that fits is recognised too.
    - `dt`: the leak of a leaky network, that is its step divided by its time constant:
      `h <- (1 - dt) h + dt activation(...)`. It must be 1 for gated layers; 1 also gives `nn.RNN`.
    - `form`: the place of the nonlinearity in a leaky network: `"rate"` for `activation(weight h + ...)`, or `"current"`
      for `weight activation(h) + ...`, as in `CTRNN`.
    - `activation`: the nonlinearity. Default: that of the module, else `jnp.tanh`.
    - `names`: needed if the network has other names, or more weights. A dict from weight, input_weight, bias, input_bias,
      readout_weight or readout_bias to a name in the state_dict, or to a list of names whose arrays are added. `weight`
      must be among the keys. Weights that are not named are left out.

    The arrays have JAX's default floating-point type. [`same_rollout`][] compares the result with the module. Raises
    `ValueError` if the network is anything else, for example has several layers, two directions or a projection, or if
    `activation` contradicts the module.

    **Example:**

    ```python
    weights = {"weight_ih_l0": np.zeros((2, 1)), "weight_hh_l0": np.eye(2) / 2}
    network = ssntk.from_torch(weights)  # or the nn.RNN itself
    print(network.step([1.0, 0.0]).round(4))  # [0.4621 0.    ]
    ```
    """
    if state_dict is not None:
        warn("state_dict= is now the first argument, module_or_state_dict", DeprecationWarning)
        module_or_state_dict = state_dict
    as_choice(form, "form", ("rate", "current"))
    held = weights_of(module_or_state_dict)
    kind, parts = layout_of(module_or_state_dict, held, names)
    _check_trained(module_or_state_dict, [name for sources in parts.values() for name in sources])
    weights = {}
    for part, sources in parts.items():
        arrays = [as_numpy(held[source], source) for source in sources]
        if len({array.shape for array in arrays}) > 1:
            raise ValueError(f"state_dict: {', '.join(sources)} add up to {part} and must have one shape")
        weights[part] = jnp.asarray(sum(arrays), jnp.result_type(float))
    if kind != "nn.RNN":
        return _gated(kind, weights, dt, form, activation)
    # Both must be (n,). If they were added later, the error would name neither of them.
    if "input_bias" in weights and weights["input_bias"].shape != weights["bias"].shape:
        raise ValueError(f"state_dict: {parts['bias'][0]} and {parts['input_bias'][0]} must have one shape")
    said = nonlinearity_of(module_or_state_dict, parts["weight"][0])
    if said is None and activation is None and is_module(module_or_state_dict) and parts["weight"][0].endswith("h2h.weight"):
        raise ValueError(
            "activation must be given for a module that does not say its nonlinearity, and dt if it leaks: pass "
            "ssntk.from_torch(net, dt, activation=jnp.tanh), or what its forward has"
        )
    activation = _activation(said, activation)
    return EulerMap(TorchRNN.of(weights, activation=activation, form=form), dt)


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


def _gated(kind: str, weights: dict[str, AnyArray], dt: Any, form: str, activation: Any) -> EulerMap:
    if float(as_scalar(dt, "dt", positive=True)) != 1.0:
        raise ValueError(f"dt must be 1 for {kind}, whose own step it is, got {dt}")
    if form != "rate":
        raise ValueError(f"form must be left out for {kind}, got {form!r}")
    if activation is not None and not _agree(activation, jnp.tanh):
        raise ValueError(f"activation must be left out for {kind}: its gates are sigmoids and its candidate a tanh")
    layer = {"nn.GRU": GRU, "nn.LSTM": LSTM}[kind]
    return EulerMap(layer(**{GATED.get(part, part): array for part, array in weights.items()}), 1.0)


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
