"""Linear state-space models, dense and diagonal."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_choice, as_count
from ssntk.models.base import AbstractStateSpaceModel, random_weights


class LinearSSM(AbstractStateSpaceModel):
    """`dx/dt = A x + input_weight @ u`, `y = readout_weight @ x + readout_bias`.

    - `form="dense"`: A is `weight`.
    - `form="diagonal"`: A has the eigenvalues `-exp(log_decay) +- i frequency`, in real coordinates: the state is k pairs
      (real part, imaginary part), n = 2k (S4D-Lin: Gu, Goel, Gupta and Ré, 2022).

    theta is A's parameters and `input_weight`, and also the readout's weights if the readout is observed.

    **Example:**

    ```python
    model = ssntk.LinearSSM(4, 1, 1, form="diagonal", key=jax.random.key(0))
    print(ssntk.find_fixed_points(model).eigenvalues.real.round(3))  # [[-0.5 -0.5 -0.5 -0.5]]
    ```
    """

    weight: Float[Array, "n n"] | None
    log_decay: Float[Array, " k"] | None
    frequency: Float[Array, " k"] | None
    input_weight: Float[Array, "n d"]
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]

    def __init__(self, n_state: int, n_input: int, n_output: int, *, form: str = "dense", key: Any):
        """A random stable model. In the dense form, `weight` is a random matrix with entries from N(0, 1/(4n)) minus the
        identity, whose eigenvalues lie within about 1/2 of -1. In the diagonal form, the decays are 1/2 and the frequencies
        0, pi, 2 pi, ... `input_weight` is from N(0, 1/d), `readout_weight` from N(0, 1/n), `readout_bias` is zero.

        Arguments are as in [`CTRNN`][]; n must be even if the form is diagonal. Raises `ValueError`, which names the
        argument that is wrong.
        """
        n = as_count(n_state, "n_state")
        d = as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        weight, self.input_weight, self.readout_weight = random_weights(
            key, ((n, n), 4 * n), ((n, d), max(d, 1)), ((m, n), n)
        )
        self.weight = self.log_decay = self.frequency = None
        if as_choice(form, "form", ("dense", "diagonal")) == "dense":
            self.weight = weight - jnp.eye(n)
        else:
            if n % 2:
                raise ValueError(f"n_state must be even where form is 'diagonal', got {n}")
            self.log_decay = jnp.full(n // 2, np.log(0.5))
            self.frequency = jnp.asarray(np.pi * np.arange(n // 2))
        self.readout_bias = jnp.zeros(m)

    @property
    def n_state(self) -> int:
        return self.input_weight.shape[-2]

    @property
    def n_input(self) -> int:
        return self.input_weight.shape[-1]

    @property
    def n_output(self) -> int:
        return self.readout_weight.shape[-2]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        if self.weight is not None:
            return self.weight @ x + self.input_weight @ u
        assert self.log_decay is not None
        assert self.frequency is not None
        decay, (real, imag) = jnp.exp(self.log_decay), x.reshape(-1, 2).T
        turned = jnp.stack([-decay * real - self.frequency * imag, self.frequency * real - decay * imag], axis=1)
        return turned.ravel() + self.input_weight @ u

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ x + self.readout_bias

    def trainable(self, of: str) -> tuple[Array | None, ...]:
        dynamics = (self.weight, self.log_decay, self.frequency, self.input_weight)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics
