"""A vector field that is a multilayer perceptron."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_count, as_key
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import Activation


class NeuralODE(AbstractStateSpaceModel):
    """`dx/dt = mlp([x, u])`, `y = readout_weight @ x + readout_bias` (Chen, Rubanova, Bettencourt and Duvenaud, 2018).

    theta is all of `mlp`, and also the readout's weights if the readout is observed.

    **Example:**

    ```python
    model = ssntk.NeuralODE(3, 1, 1, width=8, key=jax.random.key(0))
    print([layer.weight.shape for layer in model.mlp.layers])  # [(8, 4), (8, 8), (3, 8)]
    ```
    """

    mlp: eqx.nn.MLP
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]

    def __init__(
        self,
        n_state: int,
        n_input: int,
        n_output: int,
        *,
        width: int = 32,
        depth: int = 2,
        activation: Activation = jnp.tanh,
        key: Any,
    ):
        """**Arguments:** `width`, `depth`: those of the hidden layers of an `equinox.nn.MLP`, which draws its weights.
        `activation`: a smooth function, since the kernel differentiates it. The others are as in [`CTRNN`][].

        Raises `ValueError`, which names the argument that is wrong.
        """
        n = as_count(n_state, "n_state")
        d = as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        if not callable(activation):
            raise ValueError(f"activation must be callable, got {type(activation).__name__}")
        mlp_key, readout_key = jr.split(as_key(key, needed=True))
        width, depth = as_count(width, "width"), as_count(depth, "depth", least=0)
        self.mlp = eqx.nn.MLP(n + d, n, width, depth, activation=activation, key=mlp_key)
        self.readout_weight = jr.normal(readout_key, (m, n)) / np.sqrt(n)
        self.readout_bias = jnp.zeros(m)

    @property
    def n_state(self) -> int:
        return self.readout_weight.shape[-1]

    @property
    def n_input(self) -> int:
        return self.mlp.layers[0].weight.shape[-1] - self.n_state

    @property
    def n_output(self) -> int:
        return self.readout_weight.shape[-2]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.mlp(jnp.concatenate([x, u]))

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ x + self.readout_bias

    def trainable(self, of: str) -> PyTree:
        dynamics = eqx.filter(self.mlp, eqx.is_inexact_array)
        return (dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics
