"""The loss that weighs frequencies."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_scalar
from ssntk.kernel.observe.base import AbstractLossOperator
from ssntk.models.clock import AbstractClock


class Sobolev(AbstractLossOperator):
    """The operator `(1 - d^2/dt^2)^(s/2)`: a frequency w of the loss counts `(1 + w^2)^s`.

    If s > 0, fast oscillations count more. Save times must be uniformly spaced. The operator acts on cosines that complete a
    whole number of half periods in the horizon; this is the Fourier transform of the rows, mirrored at both ends. A constant
    therefore does not change, and the two ends of the rows need not be equal. The operator is symmetric in the inner product
    of the trapezoid rule, so use it with `weights="trapezoid"`.

    **Example:** a constant stays as it is.

    ```python
    matrix = ssntk.Sobolev(1.0).matrix([0.0, 0.5, 1.0])
    print((matrix @ jnp.ones(3)).round(6))  # [1. 1. 1.]
    ```
    """

    s: float = eqx.field(static=True)

    def __init__(self, s: Any):
        """Raises `ValueError` if `s` is not a finite number."""
        self.s = float(as_scalar(s, "s"))

    def matrix(self, ts: Any) -> Float[Array, "T T"]:
        """L (T, T), which acts on values at the save times (T,). Raises `ValueError` if these are not uniformly spaced."""
        times = np.asarray(ts, np.float64)
        step = (times[-1] - times[0]) / (times.size - 1)
        if np.abs(np.diff(times) - step).max() > 1e-6 * step:
            raise ValueError("probe.ts must be uniformly spaced for a Sobolev loss")
        order = np.arange(times.size)
        cosines = np.cos(np.pi * np.outer(order, order) / order[-1])
        frequency = np.pi * order / (times[-1] - times[0])
        symbol = (1 + frequency**2) ** (self.s / 2)
        return jnp.asarray(np.linalg.solve(cosines.T, (cosines * symbol).T).T, jnp.asarray(ts).dtype)

    def over_time(self, ts: Float[Array, " T"]) -> Float[Array, "T T"]:
        return self.matrix(ts)

    def at_frequency(self, omega: float, clock: AbstractClock, kernel: Callable[[float], float], forced: float) -> float:
        return kernel(omega) * (1 + clock.difference(omega) ** 2) ** self.s
