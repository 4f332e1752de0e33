"""Recurrent networks whose connectivity has low rank."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_count, is_traced
from ssntk.models.activations import check_activation
from ssntk.models.base import AbstractStateSpaceModel, random_weights, time_constant
from ssntk.nouns import Activation


class LowRankRNN(AbstractStateSpaceModel):
    """A network of n units with connectivity of rank R, d inputs and m outputs (Mastrogiuseppe and Ostojic, 2018).

    `tau dx/dt = -x + gain * left @ (right^T activation(x)) / n + input_weight @ u + bias`,
    `y = readout_weight @ activation(x) + readout_bias`.

    theta is (left, right, input_weight, bias), and also the readout's weights if the readout is observed; `gain` and `tau`
    can be swept but are not trained.

    **Example:**

    ```python
    model = ssntk.LowRankRNN(6, 1, 1, rank=2, key=jax.random.key(0))
    print(model.left.shape, model.right.shape)  # (6, 2) (6, 2)
    ```
    """

    left: Float[Array, "n R"]
    right: Float[Array, "n R"]
    input_weight: Float[Array, "n d"]
    bias: Float[Array, " n"]
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]
    gain: Float[Array, ""]
    tau: Float[Array, ""] | Float[Array, " n"]
    activation: Activation

    def __init__(
        self,
        n_state: int,
        n_input: int,
        n_output: int,
        rank: int = 1,
        *,
        gain: Any = 1.0,
        tau: Any = 1.0,
        activation: Activation = jnp.tanh,
        key: Any,
    ):
        """Random weights: `left` and `right` from N(0, 1), `input_weight` from N(0, 1/d), `readout_weight` from N(0, 1/n),
        biases zero.

        **Arguments:** `rank`: R >= 1, at most n. The others are as in [`CTRNN`][].

        Raises `ValueError`, which names the argument that is wrong.
        """
        n = as_count(n_state, "n_state")
        d = as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        if as_count(rank, "rank") > n:
            raise ValueError(f"rank must be at most n_state = {n}, got {rank}")
        check_activation(activation)
        shapes = ((n, rank), 1), ((n, rank), 1), ((n, d), max(d, 1)), ((m, n), n)
        self.left, self.right, self.input_weight, self.readout_weight = random_weights(key, *shapes)
        self.bias = jnp.zeros(n)
        self.readout_bias = jnp.zeros(m)
        self.gain = as_array(gain, "gain", ())
        self.tau = time_constant(tau, n)
        self.activation = activation

    @classmethod
    def from_weights(
        cls,
        m: Any,
        n: Any,
        input_weight: Any = None,
        bias: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
        *,
        gain: Any = 1.0,
        tau: Any = 1.0,
        activation: Activation = jnp.tanh,
    ) -> "LowRankRNN":
        """A network with these weights, whose connectivity is `m n^T / n_state`.

        **Arguments:** `m`, `n`: (n, R) or (n,), the left and right vectors, called `left` and `right` in the model. The
        others are as in [`CTRNN.from_weights`][ssntk.CTRNN.from_weights].

        Raises `ValueError`, which names the argument that is wrong.

        ```python
        model = ssntk.LowRankRNN.from_weights(2 * np.ones(50), np.ones(50))
        print(np.sort(ssntk.find_fixed_points(model).x[:, 0]).round(4))  # [-1.915  0.     1.915]
        ```
        """
        m, n = (part[:, None] if part.ndim == 1 else part for part in (as_array(m, "m"), as_array(n, "n")))
        if m.ndim != 2 or 0 in m.shape:
            raise ValueError(f"m must have shape (n, R) with n >= 1 and R >= 1, got {m.shape}")
        size, dtype = m.shape[0], m.dtype
        check_activation(activation)
        readout_weight = as_array(np.eye(size) if readout_weight is None else readout_weight, "readout_weight", ("m", size))
        zeros, outputs = np.zeros(size), readout_weight.shape[0]
        fields = {
            "left": m,
            "right": as_array(n, "n", m.shape),
            "input_weight": as_array(
                np.zeros((size, 0)) if input_weight is None else input_weight, "input_weight", (size, "d")
            ),
            "bias": as_array(zeros if bias is None else bias, "bias", (size,)),
            "readout_weight": readout_weight,
            "readout_bias": as_array(
                np.zeros(outputs) if readout_bias is None else readout_bias, "readout_bias", (outputs,)
            ),
            "gain": as_array(gain, "gain", ()),
            "tau": time_constant(tau, size),
        }
        self = object.__new__(cls)
        for name, array in fields.items():
            object.__setattr__(self, name, array.astype(dtype))
        object.__setattr__(self, "activation", activation)
        return self

    def reduced(self) -> "ReducedRNN":
        """The exact flow of kappa, the R coordinates of the state along the left vectors.

        Raises `ValueError` if `tau` differs between units, since kappa is then not a state of its own.

        ```python
        model = ssntk.LowRankRNN(100, 1, 1, rank=2, gain=3.0, key=jax.random.key(0))
        reduced = model.reduced()
        points = ssntk.find_fixed_points(reduced, [0.5])
        x = reduced.lift(points.x[0], [0.5])
        print(points.x.shape[1], float(jnp.abs(model.vector_field(0.0, x, jnp.array([0.5]))).max()) < 1e-12)  # 2 True
        ```
        """
        if not is_traced(self.tau) and np.unique(np.asarray(self.tau)).size != 1:
            raise ValueError("tau must be the same for all units: otherwise the flow does not close in kappa")
        return ReducedRNN(self)

    @property
    def n_state(self) -> int:
        return self.left.shape[-2]

    @property
    def n_input(self) -> int:
        return self.input_weight.shape[-1]

    @property
    def n_output(self) -> int:
        return self.readout_weight.shape[-2]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        overlap = self.right.T @ self.activation(x) / x.shape[0]
        return (-x + self.gain * (self.left @ overlap) + self.input_weight @ u + self.bias) / self.tau

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ self.activation(x) + self.readout_bias

    def trainable(self, of: str) -> tuple[Array, ...]:
        dynamics = (self.left, self.right, self.input_weight, self.bias)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics


class ReducedRNN(AbstractStateSpaceModel):
    """The flow of kappa (R,) of a [`LowRankRNN`][], which `LowRankRNN.reduced` returns.

    `tau dkappa/dt = -kappa + gain * right^T activation(x) / n` with `x = left @ kappa + input_weight @ u + bias`.

    Every state of the network falls onto the states x of this form at the rate 1 / tau if u is constant. Fixed points and
    their bifurcations are therefore those of the network. The network has the same eigenvalues, and -1 / tau n - R times.
    Under an input that changes, x follows it only through a filter with the time constant tau, which this flow does not
    have. The readout is kappa. theta is that of the network.
    """

    network: LowRankRNN

    @property
    def n_state(self) -> int:
        return self.network.left.shape[-1]

    @property
    def n_input(self) -> int:
        return self.network.n_input

    @property
    def n_output(self) -> int:
        return self.n_state

    def lift(self, kappa: Any, u: Any = None) -> Float[Array, " n"]:
        """The state x (n,) of the network for kappa (R,) and the constant input u (d,); default zero."""
        kappa = as_array(kappa, "kappa", (self.n_state,))
        u = jnp.zeros(self.n_input) if u is None else as_array(u, "u", (self.n_input,))
        return self._state(kappa.astype(self.network.left.dtype), u.astype(self.network.left.dtype))

    def _state(self, kappa: Float[Array, " R"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.network.left @ kappa + self.network.input_weight @ u + self.network.bias

    def vector_field(self, t: Any, x: Float[Array, " R"], u: Float[Array, " d"]) -> Float[Array, " R"]:
        network = self.network
        rates = network.activation(self._state(x, u))
        tau = network.tau if network.tau.ndim == 0 else network.tau[0]
        return (-x + network.gain * (network.right.T @ rates) / rates.shape[0]) / tau

    def trainable(self, of: str) -> tuple[Array, ...]:
        return self.network.trainable("state")
