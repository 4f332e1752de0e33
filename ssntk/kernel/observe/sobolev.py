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
    """`(1 - d^2/dt^2)^(s/2)`: the frequency w of the loss counts `(1 + w^2)^s`, which raises what oscillates for s > 0.

    Over uniformly spaced save times, with the cosines of which half a period fits the horizon a whole number of times (the
    Fourier transform of the rows mirrored at both ends): a constant stays as it is, and the two ends need not meet. The
    operator is symmetric in the trapezoid rule's inner product, so use it with `weights="trapezoid"`.

    **Example:** a constant stays as it is.

    ```python
    matrix = ssntk.Sobolev(1.0).matrix([0.0, 0.5, 1.0])
    print((matrix @ jnp.ones(3)).round(6))  # [1. 1. 1.]
    ```
    """

    s: float = eqx.field(static=True)

    def __init__(self, s: Any):
        """Raises `ValueError` where `s` is no finite number."""
        self.s = float(as_scalar(s, "s"))

    def matrix(self, ts: Any) -> Float[Array, "T T"]:
        """L on values at the save times (T,); `ValueError` where these are not uniformly spaced."""
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
