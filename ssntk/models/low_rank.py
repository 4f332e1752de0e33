"""Recurrent networks whose connectivity has low rank."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_count
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
