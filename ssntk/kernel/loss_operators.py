"""Loss operators: linear operators L over the time axis, for a loss |L (x - target)|^2 whose kernel is L K L^T."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_scalar


class TimeDerivative(eqx.Module):
    """d/dt, exactly: the rate of what is observed along the trajectory is itself observed.

    Its rows are `d/dtheta` of `f(t, x, u)`, or of `dh/dx f` where the readout is observed: no difference is taken, and the
    save times may lie anywhere. At the first of them the rate already answers to theta.
    """


class Residual(eqx.Module):
    """`d/dt - A`, exactly, with A = df/dx along the trajectory: the residual of the ODE, as in physics-informed losses.

    Its rows are F = df/dtheta at a state that is held still, so that the kernel is `F F^T`. For `of="state"` only.
    """


class Sobolev(eqx.Module):
    """`(1 - d^2/dt^2)^(s/2)`: the frequency w of the loss counts `(1 + w^2)^s`, which raises what oscillates for s > 0.

    Over uniformly spaced save times, with the cosines of which half a period fits the horizon a whole number of times (the
    Fourier transform of the rows mirrored at both ends): a constant stays as it is, and the two ends need not meet. The
    operator is symmetric in the trapezoid rule's inner product, so use it with `weights="trapezoid"`.
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


def observation_of(of: str, loss_operator: Any) -> str:
    """What is observed where `loss_operator` acts on what is named by `of`."""
    if loss_operator is None or isinstance(loss_operator, Sobolev):
        return of
    if isinstance(loss_operator, TimeDerivative):
        return f"{of} rate"
    if isinstance(loss_operator, Residual):
        if of != "state":
            raise ValueError("loss_operator Residual needs of='state': the residual of the ODE is that of its state")
        return "residual"
    raise ValueError(
        f"loss_operator must be None, ssntk.TimeDerivative(), ssntk.Sobolev(s) or ssntk.Residual(), got {loss_operator!r}"
    )
