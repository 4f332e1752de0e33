"""Piecewise-linear recurrent networks, as used to reconstruct dynamical systems from data."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_count
from ssntk.models.base import random_weights, uniform
from ssntk.models.maps import AbstractMap


class PLRNN(AbstractMap):
    """A piecewise-linear recurrent network of n states, d inputs and m outputs, a map with dt = 1, of one of three forms:

    | form | one step | source |
    |---|---|---|
    | standard | `z <- A z + W relu(z) + h + C u` | Durstewitz (2017) |
    | almost linear | the same, with relu of the last `rectified` states only | Brenner et al. (2024) |
    | shallow | `z <- A z + W relu(W2 z + h2) + h + C u`, with `hidden` relus | Hess et al. (2023) |

    `A` is (n,), a diagonal, or (n, n). The readout is `readout_weight @ z + readout_bias`. theta is A, W, h, C, and W2 and
    h2 of the shallow form; the readout's weights too if it is observed.

    **Example:**

    ```python
    network = ssntk.PLRNN.from_weights([0.5, 0.8], [[0.0, -0.4], [0.3, 0.0]], [1.0, 0.0])
    print(network.step([1.0, -1.0]))  # [ 1.5 -0.5]
    ```
    """

    A: Float[Array, " n"] | Float[Array, "n n"]
    W: Float[Array, "n k"]
    h: Float[Array, " n"]
    C: Float[Array, "n d"]
    W2: Float[Array, "k n"] | None
    h2: Float[Array, " k"] | None
    readout_weight: Float[Array, "m n"]
    readout_bias: Float[Array, " m"]
    rectified: int = eqx.field(static=True)

    def __init__(
        self,
        n_state: Any,
        n_input: Any,
        n_output: Any,
        *,
        rectified: Any = None,
        hidden: Any = None,
        key: Any,
    ):
        """Random weights: the diagonal `A` uniform in (-1, 1) / 2, `W` from N(0, 1 / (4 k)) with k its number of columns,
        `C` from N(0, 1/d), `W2` and the readout's weights from N(0, 1/n), `h` and `h2` from N(0, 1).

        **Arguments:**

        - `n_state`, `n_input`, `n_output`: n >= 1, d >= 0 and m >= 1.
        - `rectified`: how many of the states, the last ones, are rectified: the almost linear form. Default: all.
        - `hidden`: the number of relus of the shallow form. Default: another form.
        - `key`: a `jax.random.key`.

        Raises `ValueError`, which names the argument that is wrong.
        """
        n, d = as_count(n_state, "n_state"), as_count(n_input, "n_input", least=0)
        m = as_count(n_output, "n_output")
        k = n if hidden is None else as_count(hidden, "hidden")
        shapes = ((n,), 1), ((n, k), 4 * k), ((n,), 1), *((((k, n), n), ((k,), 1)) if hidden is not None else ())
        decay, W, h, *inner, C, readout = random_weights(key, *shapes, ((n, d), max(d, 1)), ((m, n), n))
        W2, h2 = inner or (None, None)
        self._fill(uniform(decay, 0.5), W, h, C, rectified, W2, h2, readout, None)

    @classmethod
    def from_weights(
        cls,
        A: Any,
        W: Any,
        h: Any = None,
        *,
        C: Any = None,
        rectified: Any = None,
        W2: Any = None,
        h2: Any = None,
        readout_weight: Any = None,
        readout_bias: Any = None,
    ) -> "PLRNN":
        """A network with these weights.

        **Arguments:**

        - `A`: (n,), the diagonal, or (n, n).
        - `W`: (n, n), or (n, k) for the shallow form.
        - `h`: (n,). Default zero. `C`: (n, d). Default: no inputs.
        - `rectified`: as for a random network.
        - `W2` (k, n), `h2` (k,): those of the shallow form. Default of `h2`: zero.
        - `readout_weight` (m, n), `readout_bias` (m,). Default: the identity and zero.

        Raises `ValueError`, which names the argument that is wrong.
        """
        self = object.__new__(cls)
        self._fill(A, W, h, C, rectified, W2, h2, readout_weight, readout_bias)
        return self

    def _fill(
        self,
        A: Any,
        W: Any,
        h: Any,
        C: Any,
        rectified: Any,
        W2: Any,
        h2: Any,
        readout_weight: Any,
        readout_bias: Any,
    ) -> None:
        """Check every field, convert it to the dtype of `A`, and set it."""
        A = as_array(A, "A")
        n = A.shape[0] if A.ndim else 0
        if n == 0 or A.shape not in ((n,), (n, n)):
            raise ValueError(f"A must have shape (n,) or (n, n) with n >= 1, got {A.shape}")
        if W2 is None and h2 is not None:
            raise ValueError("h2 needs a W2")
        if W2 is not None and rectified is not None:
            raise ValueError("rectified must be left out for the shallow form, whose relus are those of W2")
        k = n if W2 is None else as_array(W2, "W2", ("k", n)).shape[0]
        rectified = n if rectified is None else as_count(rectified, "rectified", least=0)
        if rectified > n:
            raise ValueError(f"rectified must be at most n = {n}, got {rectified}")
        readout_weight = as_array(np.eye(n) if readout_weight is None else readout_weight, "readout_weight", ("m", n))
        m = readout_weight.shape[0]
        fields = {
            "A": A,
            "W": as_array(W, "W", (n, k)),
            "h": as_array(np.zeros(n) if h is None else h, "h", (n,)),
            "C": as_array(np.zeros((n, 0)) if C is None else C, "C", (n, "d")),
            "W2": None if W2 is None else as_array(W2, "W2", (k, n)),
            "h2": None if W2 is None else as_array(np.zeros(k) if h2 is None else h2, "h2", (k,)),
            "readout_weight": readout_weight,
            "readout_bias": as_array(np.zeros(m) if readout_bias is None else readout_bias, "readout_bias", (m,)),
        }
        for name, array in fields.items():
            object.__setattr__(self, name, None if array is None else array.astype(A.dtype))
        object.__setattr__(self, "rectified", rectified)
        object.__setattr__(self, "dt", 1.0)

    @property
    def n_state(self) -> int:
        return self.A.shape[-1]

    @property
    def n_input(self) -> int:
        return self.C.shape[-1]

    @property
    def n_output(self) -> int:
        return self.readout_weight.shape[-2]

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        linear = self.A * x if self.A.ndim == 1 else self.A @ x
        if self.W2 is not None and self.h2 is not None:
            signal = jax.nn.relu(self.W2 @ x + self.h2)
        else:
            first = x.shape[0] - self.rectified
            signal = jnp.concatenate([x[:first], jax.nn.relu(x[first:])])
        return linear + self.W @ signal + self.h + self.C @ u

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.readout_weight @ x + self.readout_bias

    def trainable(self, of: str) -> tuple[Array | None, ...]:
        dynamics = (self.A, self.W, self.h, self.C, self.W2, self.h2)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics
