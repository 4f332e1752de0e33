"""The continuous-time recurrent network, in its two usual forms."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_choice, as_count
from ssntk.models.activations import check_activation
from ssntk.models.base import AbstractStateSpaceModel, random_weights, time_constant
from ssntk.nouns import Activation


class CTRNN(AbstractStateSpaceModel):
    """A continuous-time recurrent neural network of n units, d inputs and m outputs.

    - `form="current"`: `tau dx/dt = -x + gain * weight @ activation(x) + input_weight @ u + bias`,
      `y = readout_weight @ activation(x) + readout_bias`.
    - `form="rate"`: `tau dx/dt = -x + activation(gain * weight @ x + input_weight @ u + bias)`,
      `y = readout_weight @ x + readout_bias`.

    theta is (weight, input_weight, bias), and also the readout's weights if the readout is observed;
    `gain` and `tau` can be swept but are not trained. A network that trains two biases, as in PyTorch, also has an
    `input_bias`. Only the sum of the two biases matters for the states, but each has its own entries in theta.

    **Example:** two units around a fixed point with the eigenvalues -1 +- 2i.

    ```python
    model = ssntk.CTRNN.from_weights([[0.0, -2.0], [2.0, 0.0]], bias=[0.0, 0.0])
    print(ssntk.find_fixed_points(model).eigenvalues)  # [[-1.+2.j -1.-2.j]]
    ```
    """

    weight: Float[Array, "n n"]
    input_weight: Float[Array, "n d"]
    bias: Float[Array, " n"]
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]
    gain: Float[Array, ""]
    tau: Float[Array, ""] | Float[Array, " n"]
    activation: Activation
    form: str
    # The class has a default, since pickles of earlier versions lack this field.
    input_bias: Float[Array, " n"] | None = None

    def __init__(
        self,
        n_state: int,
        n_input: int,
        n_output: int,
        *,
        gain: Any = 1.0,
        tau: Any = 1.0,
        activation: Activation = jnp.tanh,
        form: str = "current",
        key: Any,
    ):
        """Random weights: `weight` and `readout_weight` from N(0, 1/n), `input_weight` from N(0, 1/d), biases zero.

        **Arguments:**

        - `n_state`, `n_input`, `n_output`: n >= 1, d >= 0 and m >= 1.
        - `gain`: a factor of the recurrent weights. The origin of a large current-form network whose `activation` has
          slope one loses stability near a gain of 1 (Sompolinsky, Crisanti and Sommers, 1988).
        - `tau`: the leak time [time], a positive scalar or (n,).
        - `activation`: elementwise. `form`: `"current"` or `"rate"`.
        - `key`: a `jax.random.key`.

        Raises `ValueError`, which names the argument that is wrong.
        """
        n = as_count(n_state, "n_state")
        d = as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        weight, input_weight, readout_weight = random_weights(key, ((n, n), n), ((n, d), max(d, 1)), ((m, n), n))
        self._fill(weight, input_weight, np.zeros(n), readout_weight, np.zeros(m), gain, tau, activation, form, None)

    @classmethod
    def from_weights(
        cls,
        weight: Any,
        input_weight: Any = None,
        bias: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
        *,
        gain: Any = 1.0,
        tau: Any = 1.0,
        activation: Activation = jnp.tanh,
        form: str = "current",
        input_bias: Any = None,
    ) -> "CTRNN":
        """A network with given weights, whose shapes are those of the fields of the class.

        If an argument is `None`, `input_weight` is (n, 0), `bias` and `readout_bias` are zero, `readout_weight` is the
        identity, and there is no `input_bias`. Raises `ValueError`, which names the argument that is wrong.
        """
        weight = as_array(weight, "weight", ("n", "n"))
        n = weight.shape[0]
        input_weight = np.zeros((n, 0)) if input_weight is None else input_weight
        bias = np.zeros(n) if bias is None else bias
        readout_weight = np.eye(n) if readout_weight is None else readout_weight
        if readout_bias is None:
            readout_bias = np.zeros(as_array(readout_weight, "readout_weight", ("m", n)).shape[0])
        self = object.__new__(cls)
        self._fill(weight, input_weight, bias, readout_weight, readout_bias, gain, tau, activation, form, input_bias)
        return self

    def _fill(
        self,
        weight: Any,
        input_weight: Any,
        bias: Any,
        readout_weight: Any,
        readout_bias: Any,
        gain: Any,
        tau: Any,
        activation: Any,
        form: Any,
        input_bias: Any,
    ) -> None:
        """Check every field, convert it to the dtype of `weight`, and set it."""
        weight = as_array(weight, "weight", ("n", "n"))
        n = weight.shape[0]
        if n == 0 or weight.shape[1] != n:
            raise ValueError(f"weight must have shape (n, n) with n >= 1, got {weight.shape}")
        check_activation(activation)
        readout_weight = as_array(readout_weight, "readout_weight", ("m", n))
        gain = as_array(gain, "gain", ())
        fields = {
            "weight": weight,
            "input_weight": as_array(input_weight, "input_weight", (n, "d")),
            "bias": as_array(bias, "bias", (n,)),
            "readout_weight": readout_weight,
            "readout_bias": as_array(readout_bias, "readout_bias", (readout_weight.shape[0],)),
            "gain": gain,
            "tau": time_constant(tau, n),
        }
        for name, array in fields.items():
            object.__setattr__(self, name, array.astype(weight.dtype))
        object.__setattr__(self, "activation", activation)
        if input_bias is not None:
            input_bias = as_array(input_bias, "input_bias", (n,)).astype(weight.dtype)
        object.__setattr__(self, "input_bias", input_bias)
        object.__setattr__(self, "form", as_choice(form, "form", ("current", "rate")))

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
        drive = self.input_weight @ u + self.bias
        if self.input_bias is not None:
            drive = drive + self.input_bias
        if self.form == "current":
            return (-x + self.gain * (self.weight @ self.activation(x)) + drive) / self.tau
        return (-x + self.activation(self.gain * (self.weight @ x) + drive)) / self.tau

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ (self.activation(x) if self.form == "current" else x) + self.readout_bias

    def trainable(self, of: str) -> tuple[Array, ...]:
        dynamics = (self.weight, self.input_weight, self.bias)
        if self.input_bias is not None:
            dynamics = (*dynamics, self.input_bias)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics
