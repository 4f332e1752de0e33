"""The recurrent cells of PyTorch, with its own arrays and steps."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_choice, as_count
from ssntk.models.base import random_weights, uniform
from ssntk.models.ctrnn import CTRNN
from ssntk.models.maps import AbstractMap
from ssntk.notices import warn
from ssntk.nouns import AnyArray

# The gates of each cell in the order of each framework's rows.
ORDERS = {
    3: {"torch": "rzn", "keras": "zrn", "onnx": "zrn"},
    4: {"torch": "ifgo", "keras": "ifgo", "onnx": "iofg"},
}


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


class GatedCell(AbstractMap):
    """One step of a gated layer of n units with d inputs and m outputs, a map with dt = 1.

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

    def __init__(self, n_input: Any, n_hidden: Any, n_output: Any = None, *, key: Any):
        """Random weights as PyTorch draws them, all uniform in (-1, 1) / sqrt(n).

        **Arguments:** `n_input`, `n_hidden`: d >= 0 and n >= 1. `n_output`: m >= 1; default: no weights of a readout, which
        is then h. `key`: a `jax.random.key`.

        Raises `ValueError`, which names the argument that is wrong.
        """
        d, n = as_count(n_input, "n_input", least=0), as_count(n_hidden, "n_hidden")
        m = None if n_output is None else as_count(n_output, "n_output")
        rows = self.gates * n
        shapes = (rows, n), (rows,), (rows,), *(() if m is None else ((m,),)), (rows, d), (m or 0, n)
        drawn = [uniform(part, 1 / math.sqrt(n)) for part in random_weights(key, *((shape, 1) for shape in shapes))]
        weight_hh, bias_ih, bias_hh, *readout_bias, weight_ih, readout_weight = drawn
        if m is None:
            readout_weight = None
        self._fill(weight_hh, weight_ih, bias_hh, bias_ih, readout_weight, readout_bias[0] if readout_bias else None)

    @classmethod
    def from_weights(
        cls,
        weight_hh: Any,
        weight_ih: Any = None,
        bias_hh: Any = None,
        bias_ih: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
        *,
        order: Any = "torch",
    ) -> "GatedCell":
        """A cell with these weights.

        **Arguments:**

        - `weight_hh` (k n, n), `weight_ih` (k n, d): default of `weight_ih`: no inputs, d = 0.
        - `bias_hh`, `bias_ih`: (k n,). Default: no bias, which is then not in theta.
        - `readout_weight` (m, n), `readout_bias` (m,). Default: none; the readout is h.
        - `order`: the framework whose layout the four first arrays have, `"torch"`, `"keras"` or `"onnx"`. Each has the
          gates in its own order. The weights of Keras are transposed, (n, k n) and (d, k n).

        Raises `ValueError`, which names the argument that is wrong.
        """
        as_choice(order, "order", tuple(ORDERS[cls.gates]))
        if order == "keras":
            weight_hh = np.asarray(as_array(weight_hh, "weight_hh", ("n", "k n"))).T
            weight_ih = None if weight_ih is None else np.asarray(as_array(weight_ih, "weight_ih", ("d", "k n"))).T
        self = object.__new__(cls)
        self._fill(weight_hh, weight_ih, bias_hh, bias_ih, readout_weight, readout_bias, order)
        return self

    def _fill(
        self,
        weight_hh: Any,
        weight_ih: Any = None,
        bias_hh: Any = None,
        bias_ih: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
        order: str = "torch",
    ) -> None:
        """Check every field, put its gates into PyTorch's order, and set it."""
        weight_hh = as_array(weight_hh, "weight_hh", ("k n", "n"))
        rows, n = weight_hh.shape
        if n == 0 or rows != self.gates * n:
            raise ValueError(f"weight_hh must have shape ({self.gates} n, n) with n >= 1, got {weight_hh.shape}")
        weight_ih = np.zeros((rows, 0)) if weight_ih is None else weight_ih
        if readout_weight is None and readout_bias is not None:
            raise ValueError("readout_bias needs a readout_weight")
        fields = {
            "weight_ih": as_array(weight_ih, "weight_ih", (rows, "d")),
            "weight_hh": weight_hh,
            "bias_ih": None if bias_ih is None else as_array(bias_ih, "bias_ih", (rows,)),
            "bias_hh": None if bias_hh is None else as_array(bias_hh, "bias_hh", (rows,)),
        }
        names = ORDERS[self.gates]
        if names[order] != names["torch"]:
            places = [names[order].index(gate) for gate in names["torch"]]
            fields = {name: None if part is None else _reordered(part, places) for name, part in fields.items()}
        if readout_weight is not None:
            readout_weight = as_array(readout_weight, "readout_weight", ("m", n))
            if readout_bias is not None:
                readout_bias = as_array(readout_bias, "readout_bias", readout_weight.shape[:1])
        fields |= {"readout_weight": readout_weight, "readout_bias": readout_bias}
        for name, array in fields.items():
            object.__setattr__(self, name, None if array is None else array.astype(weight_hh.dtype))
        object.__setattr__(self, "dt", 1.0)

    @property
    def model(self) -> "GatedCell":
        """The cell itself, which was a part of the map in earlier versions."""
        warn("a GRU or LSTM is now itself a map: leave out .model", DeprecationWarning)
        return self

    @property
    def n_hidden(self) -> int:
        """n, the number of units."""
        return self.weight_hh.shape[-1]

    @property
    def n_state(self) -> int:
        return self.n_hidden

    @property
    def n_input(self) -> int:
        return self.weight_ih.shape[-1]

    @property
    def n_output(self) -> int:
        return self.n_hidden if self.readout_weight is None else self.readout_weight.shape[-2]

    def passed_up(self, x: Float[Array, " s"]) -> Float[Array, " n"]:
        return x[: self.n_hidden]

    def readout(self, x: Float[Array, " s"]) -> Float[Array, " m"]:
        h = self.passed_up(x)
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


class GRUCell(GatedCell):
    """`torch.nn.GRUCell` of n units, or one layer of `torch.nn.GRU`, as a map with dt = 1. The state is h (n,).

    `h <- (1 - z) tanh(W_i u + b_i + r (W_h h + b_h)) + z h` with the sigmoid gates r and z. The rows of the weights run
    over r, z and the candidate. If `reset_after` is false, the reset gate multiplies h instead, as in the first GRU (Cho
    et al., 2014): the candidate is then `tanh(W_i u + b_i + W_h (r h) + b_h)`.

    [`GRUODE`][] is a GRU in continuous time.

    **Example:**

    ```python
    cell = ssntk.GRUCell(2, 4, 1, key=jax.random.key(0))
    print(cell.weight_hh.shape, cell.step(jnp.zeros(4), [1.0, 0.0]).shape)  # (12, 4) (4,)
    ```
    """

    gates = 3
    reset_after: bool = eqx.field(static=True, default=True, kw_only=True)

    @classmethod
    def from_weights(
        cls,
        weight_hh: Any,
        weight_ih: Any = None,
        bias_hh: Any = None,
        bias_ih: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
        *,
        order: Any = "torch",
        reset_after: bool = True,
    ) -> "GRUCell":
        """A cell with these weights.

        **Arguments:** as those of [`LSTMCell.from_weights`][ssntk.LSTMCell.from_weights], with k = 3 gates.
        `reset_after`: whether the reset gate multiplies `W_h h + b_h`, as in PyTorch and by default in Keras, or h itself,
        as in ONNX without `linear_before_reset`.

        Raises `ValueError`, which names the argument that is wrong.

        ```python
        cell = ssntk.GRUCell.from_weights(np.zeros((6, 2)), order="onnx")
        print(cell.step([1.0, 0.0]))  # [0.5 0. ]
        ```
        """
        self: Any = super().from_weights(weight_hh, weight_ih, bias_hh, bias_ih, readout_weight, readout_bias, order=order)
        object.__setattr__(self, "reset_after", bool(reset_after))
        return self

    def advance(self, t: Any, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        reset_u, update_u, candidate_u = self.split(self.weight_ih, self.bias_ih, u)
        if self.reset_after:
            reset_h, update_h, candidate_h = self.split(self.weight_hh, self.bias_hh, x)
            candidate_h = jax.nn.sigmoid(reset_u + reset_h) * candidate_h
        else:
            n = self.n_hidden
            gates = self.weight_hh[: 2 * n] @ x
            bias = jnp.zeros_like(self.weight_hh[:, 0]) if self.bias_hh is None else self.bias_hh
            reset_h, update_h = jnp.split(gates + bias[: 2 * n], 2)
            candidate_h = self.weight_hh[2 * n :] @ (jax.nn.sigmoid(reset_u + reset_h) * x) + bias[2 * n :]
        update = jax.nn.sigmoid(update_u + update_h)
        return (1 - update) * jnp.tanh(candidate_u + candidate_h) + update * x


class LSTMCell(GatedCell):
    """`torch.nn.LSTMCell` of n units, or one layer of `torch.nn.LSTM`, as a map with dt = 1. The state is (h, c), (2n,).

    `c <- f c + i tanh(g)`, `h <- o tanh(c)`, with sigmoids of i, f and o. The rows of the weights run over i, f, g, o. The
    readout and the layer above see h.

    **Example:**

    ```python
    cell = ssntk.LSTMCell(2, 4, 1, key=jax.random.key(0))
    print(cell.n_state, cell.weight_hh.shape, cell.readout(jnp.zeros(8)).shape)  # 8 (16, 4) (1,)
    ```
    """

    gates = 4

    @property
    def n_state(self) -> int:
        return 2 * self.n_hidden

    def advance(self, t: Any, x: Float[Array, " s"], u: Float[Array, " d"]) -> Float[Array, " s"]:
        h, c = jnp.split(x, 2)
        given = zip(self.split(self.weight_ih, self.bias_ih, u), self.split(self.weight_hh, self.bias_hh, h), strict=True)
        enter, forget, candidate, leave = (by_u + by_h for by_u, by_h in given)
        c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return jnp.concatenate([jax.nn.sigmoid(leave) * jnp.tanh(c), c])


# Pickles of earlier versions hold cells under these names.
GRU, LSTM = GRUCell, LSTMCell


def _reordered(array: Array, places: list[int]) -> Array:
    """The blocks of rows of `array` in another order: first the block at `places[0]`."""
    blocks = jnp.split(array, len(places))
    return jnp.concatenate([blocks[place] for place in places])
