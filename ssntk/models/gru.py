"""The gated recurrent unit in continuous time."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.errors import as_count
from ssntk.models.base import AbstractStateSpaceModel, random_weights, time_constant


class GRUODE(AbstractStateSpaceModel):
    """A GRU of n units, d inputs and m outputs as an ODE (De Brouwer, Simm, Arany and Moreau, 2019). Not PyTorch's GRU.

    The weights of `torch.nn.GRU` have the same shapes, but define another function: in PyTorch the reset gate multiplies
    `W_c x + b_c`, here it multiplies x, and here there is one bias only. Use [`from_torch`][] for a GRU of PyTorch.

    With r, z and c, the reset gate, the update gate and the candidate:
    `r, z = sigmoid(weight x + input_weight u + bias)` (their thirds),
    `c = tanh(W_c (r x) + U_c u + b_c)`, `tau dx/dt = (1 - z) (c - x)`, `y = readout_weight @ x + readout_bias`.

    The rows of `weight` (3n, n), `input_weight` (3n, d) and `bias` (3n,) run over r, z, c. theta is these three, and the
    readout's weights too if the readout is observed; `tau` can be swept but is not trained.

    **Example:**

    ```python
    model = ssntk.GRUODE(4, 2, 1, key=jax.random.key(0))
    print(model.weight.shape, model.vector_field(0.0, jnp.zeros(4), jnp.zeros(2)))  # (12, 4) [0. 0. 0. 0.]
    ```
    """

    weight: Float[Array, "n3 n"]
    input_weight: Float[Array, "n3 d"]
    bias: Float[Array, " n3"]
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]
    tau: Float[Array, ""] | Float[Array, " n"]

    def __init__(self, n_state: int, n_input: int, n_output: int, *, tau: Any = 1.0, key: Any):
        """Random weights: `weight` and `readout_weight` from N(0, 1/n), `input_weight` from N(0, 1/d), biases zero.

        Arguments are as in [`CTRNN`][]. Raises `ValueError`, which names the argument that is wrong.
        """
        n = as_count(n_state, "n_state")
        d = as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        shapes = ((3 * n, n), n), ((3 * n, d), max(d, 1)), ((m, n), n)
        self.weight, self.input_weight, self.readout_weight = random_weights(key, *shapes)
        self.bias = jnp.zeros(3 * n)
        self.readout_bias = jnp.zeros(m)
        self.tau = time_constant(tau, n)

    @property
    def n_state(self) -> int:
        return self.weight.shape[-1]

    @property
    def n_input(self) -> int:
        return self.input_weight.shape[-1]

    @property
    def n_output(self) -> int:
        return self.readout_weight.shape[-2]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        n = x.shape[0]
        given = self.input_weight @ u + self.bias
        gates = jax.nn.sigmoid(self.weight[: 2 * n] @ x + given[: 2 * n])
        candidate = jnp.tanh(self.weight[2 * n :] @ (gates[:n] * x) + given[2 * n :])
        return (1 - gates[n:]) * (candidate - x) / self.tau

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ x + self.readout_bias

    def trainable(self, of: str) -> tuple[Array, ...]:
        dynamics = (self.weight, self.input_weight, self.bias)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics
