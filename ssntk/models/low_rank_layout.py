"""Read the networks of published code on low-rank networks (Dubreuil et al., *Nature Neuroscience* 25, 2022).

Its classes are called LowRankRNN, with the weights m, n, wi, si, b, wo, so and h0, and FullRankRNN, with wrec in place of m
and n. Both step `h <- h + dt (-h + J r + (si wi)^T u)`, `r = tanh(h + b)`.
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from ssntk.models.cells import TorchRNN
from ssntk.models.ctrnn import CTRNN
from ssntk.models.low_rank import LowRankRNN
from ssntk.models.maps import EulerMap
from ssntk.models.torch_layout import StateDict, as_numpy, is_module
from ssntk.notices import warn
from ssntk.nouns import Activation, AnyArray

KNOWN = ("m", "n", "wrec", "wi", "si", "b", "wo", "so", "h0", "rec_noise")
# Of each class, whether its connectivity and its outputs are divided by the number of units.
DIVIDED = {
    "LowRankRNN": (True, True),
    "OptimizedLowRankRNN": (False, False),
    "FullRankRNN": (False, False),
    "FullRankRNNScaled": (True, True),
}


class TorchLowRank(LowRankRNN):
    """A low-rank network that trains no bias, and no readout if it has none. These are not part of theta.

    `held`: the names of the weights that the network has.
    """

    held: tuple[str, ...] = eqx.field(static=True, default=())

    def trainable(self, of: str) -> tuple[Array, ...]:
        parts = ("left", "right", "input_weight") + (("readout_weight",) if of == "readout" else ())
        return tuple(getattr(self, part) for part in parts if part in self.held)


def low_rank_prefix(held: StateDict) -> str | None:
    """What the names of the weights begin with, if they are those of such a network; else `None`."""
    for name in held:
        prefix, _, last = name.rpartition(".")
        prefix = prefix and prefix + "."
        if last == "m_weights":
            raise ValueError(
                f"state_dict holds {name}, of which SupportLowRankRNN makes m and n: pass those of the module to "
                "ssntk.LowRankRNN.from_weights(m, n, wi.T, gain=N), since it does not divide by N"
            )
        if last == "wrec" or (last == "m" and prefix + "n" in held):
            return prefix
    return None


def low_rank_network(value: Any, held: StateDict, prefix: str) -> tuple[dict[str, AnyArray], AnyArray | float, Any]:
    """The weights of the network, the gain of its connectivity, and its layer if it is a module.

    The weights are called `left` and `right`, or `weight`; `input_weight` and `readout_weight`.
    """
    own = {name.removeprefix(prefix): name for name in held if name.startswith(prefix)}
    surplus = [name for name in held if name.removeprefix(prefix) not in KNOWN or not name.startswith(prefix)]
    if surplus:
        raise ValueError(f"state_dict holds {', '.join(surplus)}, whose use is not known beside m and n, or wrec")
    layer = dict(value.named_modules()).get(prefix.removesuffix(".")) if is_module(value) else None
    arrays = {part: as_numpy(held[name], name) for part, name in own.items() if part != "rec_noise"}
    made = type(layer).__name__
    usual = "LowRankRNN" if "m" in arrays else "FullRankRNN"
    if usual == "FullRankRNN" and "b" not in arrays and made not in DIVIDED:
        raise ValueError(
            "state_dict holds wrec and no b: the published FullRankRNN has one, and FullRankRNNScaled, which divides by the "
            "number of units, has none: pass the module, or "
            "ssntk.EulerMap(ssntk.CTRNN.from_weights(wrec, (si[:, None] * wi).T), alpha)"
        )
    by_states, by_outputs = DIVIDED.get(made, DIVIDED[usual])
    units = _shaped(arrays, own, usual)
    if arrays.get("b", np.zeros(1)).any():
        raise ValueError(
            f"state_dict[{own['b']!r}] must be zero: a bias inside of the nonlinearity, beside a readout without it, is "
            "not in ssntk.LowRankRNN or ssntk.CTRNN; write the step as a function and wrap that by ssntk.from_cell"
        )
    weights: dict[str, AnyArray] = {}
    if usual == "LowRankRNN":
        weights |= {"left": arrays["m"], "right": arrays["n"]}
        gain = 1.0 if by_states else float(units)
    else:
        weights["weight"] = arrays["wrec"]
        gain = 1.0 / units if by_states else 1.0
    if "wi" in arrays:
        weights["input_weight"] = (arrays["wi"] * arrays.get("si", np.ones(1))[:, None]).T
    if "wo" in arrays:
        weights["readout_weight"] = (arrays["wo"] * arrays.get("so", np.ones(1))).T / (units if by_outputs else 1)
    return weights, gain, layer


def _shaped(arrays: dict[str, np.ndarray], own: dict[str, str], usual: str) -> int:
    """The number of units. Raises `ValueError` if an array has a wrong shape."""
    first = arrays["m" if usual == "LowRankRNN" else "wrec"]
    units = first.shape[0] if first.ndim else 0
    d, outputs = (
        arrays[part].shape[at] if part in arrays and arrays[part].ndim == 2 else 0 for part, at in (("wi", 0), ("wo", 1))
    )
    rank = first.shape[1] if first.ndim == 2 else 0
    shapes = {"m": (units, rank), "n": (units, rank), "wrec": (units, units), "wi": (d, units), "si": (d,)}
    shapes |= {"wo": (units, outputs), "so": (outputs,), "b": (units,), "h0": (units,)}
    for part, array in arrays.items():
        if array.shape != shapes[part] or array.size == 0:
            said = {"m": "(N, R)", "n": f"(N, R) = {shapes['n']}", "wi": f"(d, {units})", "wo": f"({units}, m)"}
            wanted = said.get(part, shapes[part])
            raise ValueError(f"state_dict[{own[part]!r}] must have shape {wanted}, got {array.shape}")
    return units


def of_low_rank(weights: dict[str, AnyArray], gain: Any, dt: Any, activation: Activation) -> EulerMap:
    """The map of such a network."""
    if "weight" in weights:
        return EulerMap(TorchRNN.of(weights, gain=gain, activation=activation, form="current"), dt)
    rest = {part: array for part, array in weights.items() if part not in ("left", "right")}
    network = TorchLowRank.from_weights(weights["left"], weights["right"], **rest, gain=gain, activation=activation)
    object.__setattr__(network, "held", tuple(weights))
    return EulerMap(network, dt)


def check_low_rank(layer: Any, dt: float, weights: dict[str, AnyArray]) -> None:
    """Raise `ValueError` if a module steps otherwise than with `dt`. Warn if it trains other arrays than theta holds."""
    if layer is None:
        return
    alpha = getattr(layer, "alpha", None)
    # dt may have been rounded to single precision.
    if isinstance(alpha, (int, float)) and abs(alpha - dt) > 1e-6 * dt:
        raise ValueError(f"dt must be {alpha}, the alpha of the module, got {dt}: pass ssntk.from_torch(net, {alpha})")
    outputs, states = (_called(getattr(layer, name, None)) for name in ("output_non_linearity", "non_linearity"))
    if outputs is not None and outputs != states and "readout_weight" in weights:
        raise ValueError(
            f"the module's output_non_linearity is {outputs!r}, and its non_linearity {states!r}: they must be the same, "
            "since the readout is of activation(h)"
        )
    if not hasattr(layer, "named_parameters"):
        return
    trained = {name for name, one in layer.named_parameters() if getattr(one, "requires_grad", True)}
    exact = {"m", "n"} if "left" in weights else {"wrec"}
    theta = ["m", "n"] if "left" in weights else ["wrec"]
    if "input_weight" in weights:
        theta.append("si * wi")
    if "readout_weight" in weights:
        theta.append("so * wo")
    if trained != exact or len(theta) > len(exact):
        warn(
            f"theta holds {', '.join(theta)}, and the module trains {', '.join(sorted(trained)) or 'nothing'}: its kernel "
            "is not PyTorch's; choose by wrt="
        )


def low_rank_values(model: Any, value: Any, held: StateDict, prefix: str) -> dict[str, tuple[str, Any]]:
    """The weights to put back, by the name of each array: which part of the model it is, and its value."""
    before, gain, _ = low_rank_network(value, held, prefix)
    network = vars(model).get("model", model)
    kind = TorchLowRank if "left" in before else CTRNN
    if not isinstance(network, kind) or float(network.gain) != float(np.asarray(gain, network.gain.dtype)):
        raise ValueError(
            f"state_dict holds m and n, or wrec, and the model, a {type(network).__name__}, did not come from it"
        )
    if np.asarray(network.bias).any():
        raise ValueError("state_dict holds no bias that lies outside of the nonlinearity, and the model's is not zero")
    names = {"left": "m", "right": "n", "weight": "wrec"}
    found = {prefix + names[part]: (part, getattr(network, part)) for part in names if part in before}
    inputs = before.get("input_weight")
    if inputs is not None and not np.array_equal(network.input_weight, np.asarray(inputs, network.input_weight.dtype)):
        scale = as_numpy(held[prefix + "si"], prefix + "si") if prefix + "si" in held else np.ones(network.n_input)
        if not scale.all():
            raise ValueError(f"state_dict[{prefix + 'si'!r}] holds a zero, and the weights of that input have changed")
        # The scale stays, so that wi takes the whole change.
        found[prefix + "wi"] = "input_weight", np.asarray(network.input_weight, float).T / scale[:, None]
    return found


def nonlinearity_of_low_rank(layer: Any) -> str | None:
    """The name that a module has for its nonlinearity; or `None`."""
    return None if layer is None else _called(getattr(layer, "non_linearity", None))


def _called(function: Any) -> str | None:
    return None if function is None else getattr(function, "__name__", type(function).__name__).lower()
