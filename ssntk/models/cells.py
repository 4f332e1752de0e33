"""PyTorch's recurrent layers, with its own arrays. [`from_torch`][] returns Euler maps of them with dt = 1."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.errors import as_array
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.ctrnn import CTRNN
from ssntk.nouns import AnyArray


class TorchRNN(CTRNN):
    """A CTRNN for a PyTorch network that lacks some weights, such as a bias. These are zero, and are not part of theta.

    `held`: the names of the weights that the network has.
    """

    held: tuple[str, ...] = eqx.field(static=True, default=())

    @classmethod
    def of(cls, weights: dict[str, AnyArray], **rest: Any) -> CTRNN:
        """A network with these weights; a plain [`CTRNN`][] if none that it would train is missing."""
        parts = ("weight", "input_weight", "bias", "readout_weight", "readout_bias")
        if all(part in weights for part in parts):
            return CTRNN.from_weights(**weights, **rest)
        self = cls.from_weights(**weights, **rest)
        object.__setattr__(self, "held", tuple(weights))
        return self

    def trainable(self, of: str) -> tuple[Array, ...]:
        parts = ("weight", "input_weight", "bias", "input_bias")
        parts += ("readout_weight", "readout_bias") if of == "readout" else ()
        return tuple(getattr(self, part) for part in parts if part in self.held)


class Gated(AbstractStateSpaceModel):
    """One step of a gated layer of n units, as the vector field `step - x` of a map with dt = 1.

    Arrays have the layout of PyTorch, in the order of its parameters: the rows of `weight_ih` (k n, d), `weight_hh`
    (k n, n), `bias_ih` and `bias_hh` (k n,) run over k gates. The readout is `readout_weight @ h + readout_bias`; without a
    `readout_weight` it is h itself. theta is all arrays that are not `None`; those of the readout only if it is observed.
    """

    weight_ih: Float[Array, "kn d"]
    weight_hh: Float[Array, "kn n"]
    bias_ih: Float[Array, " kn"] | None
    bias_hh: Float[Array, " kn"] | None
    readout_weight: Float[Array, "m n"] | None
    readout_bias: Float[Array, " m"] | None

    gates: eqx.AbstractClassVar[int]

    def __init__(
        self,
        weight_ih: Any,
        weight_hh: Any,
        bias_ih: Any = None,
        bias_hh: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
    ):
        """Raises `ValueError`, which names the argument that is wrong."""
        weight_hh = as_array(weight_hh, "weight_hh", ("k n", "n"))
        rows, n = weight_hh.shape
        if n == 0 or rows != self.gates * n:
            raise ValueError(f"weight_hh must have shape ({self.gates} n, n) with n >= 1, got {weight_hh.shape}")
        if readout_weight is not None:
            readout_weight = as_array(readout_weight, "readout_weight", ("m", n))
            if readout_bias is not None:
                readout_bias = as_array(readout_bias, "readout_bias", readout_weight.shape[:1])
        elif readout_bias is not None:
            raise ValueError("readout_bias needs a readout_weight")
        self.weight_ih = as_array(weight_ih, "weight_ih", (rows, "d"))
        self.weight_hh = weight_hh
        self.bias_ih = None if bias_ih is None else as_array(bias_ih, "bias_ih", (rows,))
        self.bias_hh = None if bias_hh is None else as_array(bias_hh, "bias_hh", (rows,))
        self.readout_weight = readout_weight
        self.readout_bias = readout_bias

    @property
    def hidden(self) -> int:
        """n, the number of units."""
        return self.weight_hh.shape[-1]

    @property
    def n_state(self) -> int:
        return self.hidden

    @property
    def n_input(self) -> int:
        return self.weight_ih.shape[-1]

    @property
    def n_output(self) -> int:
        return self.hidden if self.readout_weight is None else self.readout_weight.shape[-2]

    @abc.abstractmethod
    def after(self, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        """The state after one step."""

    def vector_field(self, t: Any, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        return self.after(x, u) - x

    def readout(self, x: Float[Array, " s"]) -> Float[Array, " m"]:
        h = x[: self.hidden]
        if self.readout_weight is None:
            return h
        y = self.readout_weight @ h
        return y if self.readout_bias is None else y + self.readout_bias

    def trainable(self, of: str) -> tuple[Array | None, ...]:
        dynamics = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics

    def split(self, weight: Array, bias: Array | None, signal: Array) -> list[Array]:
        """`weight @ signal + bias`, as one array for each gate."""
        z = weight @ signal
        return jnp.split(z if bias is None else z + bias, self.gates)


class GRU(Gated):
    """`torch.nn.GRU`, one layer: the gates are r, z and the candidate, and the state is h (n,).

    `h <- (1 - z) tanh(W_i u + b_i + r (W_h h + b_h)) + z h`.
    """

    gates = 3

    def after(self, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        reset_u, update_u, candidate_u = self.split(self.weight_ih, self.bias_ih, u)
        reset_h, update_h, candidate_h = self.split(self.weight_hh, self.bias_hh, x)
        reset, update = jax.nn.sigmoid(reset_u + reset_h), jax.nn.sigmoid(update_u + update_h)
        return (1 - update) * jnp.tanh(candidate_u + reset * candidate_h) + update * x


class LSTM(Gated):
    """`torch.nn.LSTM`, one layer: the gates are i, f, g and o, and the state is (h, c), (2n,).

    `c <- f c + i tanh(g)`, `h <- o tanh(c)`, with sigmoids of i, f and o.
    """

    gates = 4

    @property
    def n_state(self) -> int:
        return 2 * self.hidden

    def after(self, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        h, c = jnp.split(x, 2)
        given = zip(self.split(self.weight_ih, self.bias_ih, u), self.split(self.weight_hh, self.bias_hh, h), strict=True)
        enter, forget, candidate, leave = (by_u + by_h for by_u, by_h in given)
        c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return jnp.concatenate([jax.nn.sigmoid(leave) * jnp.tanh(c), c])
