"""From what is asked for to the rows whose inner products are the kernel: sqrt(weight) L J D^(-1/2)."""

from collections.abc import Callable
from typing import Any, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.metric import as_metric, check_states
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_array, as_choice, as_instance, is_traced
from ssntk.kernel.jacobian import jacobian_of
from ssntk.kernel.loss_operators import Sobolev, observation_of
from ssntk.kernel.preconditioner import diagonal
from ssntk.kernel.replay import Replay, record
from ssntk.models.base import check_model
from ssntk.models.theta import theta_positions


class Asked(TypedDict, total=False):
    """The keyword arguments that every kernel takes, as [`ntk`][] describes them."""

    of: str
    wrt: Callable[[Any], PyTree] | None
    weights: Any
    loss_operator: Any
    preconditioner: Any
    integrator: Integrator | None
    scale: Any


class Rows(eqx.Module):
    """A recorded solve with what acts on its Jacobian: on the time axis sqrt(weight) and L, on theta D^(-1/2), and on the
    states the inverse of their scale."""

    replay: Replay
    over_time: Float[Array, "T T"] | Float[Array, " T"] | None
    over_theta: Float[Array, " p"] | None
    over_state: Float[Array, " m"] | None = None

    def matrix(self, method: str = "auto", first: int = 0, count: int | None = None) -> Float[Array, "rows p"]:
        """sqrt(weight) L J D^(-1/2) with rows (b, t, i) in C order; of `count` inputs from `first` on where it is given."""
        jacobian = self.on_rows(jacobian_of(self.replay, method, first, count))
        if self.over_theta is not None:
            jacobian = jacobian * self.over_theta[None, None, None]
        return jacobian.reshape(-1, jacobian.shape[-1])

    def on_rows(self, rows: Float[Array, "B T m k"], transpose: bool = False) -> Float[Array, "B T m k"]:
        """What acts on the time axis and on the states, or its transpose."""
        if self.over_state is not None:
            rows = rows * self.over_state[None, None, :, None]
        if self.over_time is None:
            return rows
        if self.over_time.ndim == 1:
            return rows * self.over_time[None, :, None, None]
        return jnp.einsum("st,btmk->bsmk", self.over_time.T if transpose else self.over_time, rows)


def rows_of(
    model: Any,
    probe: Any,
    *,
    formed: str | None = "Jacobian",
    of: str = "state",
    wrt: Callable[[Any], PyTree] | None = None,
    weights: Any = None,
    loss_operator: Any = None,
    preconditioner: Any = None,
    integrator: Integrator | None = None,
    scale: Any = None,
) -> Rows:
    """Check what is asked for, solve, and keep what acts on the Jacobian. Arguments as in `ntk`.

    `formed`: `"Jacobian"`, `"kernel"` or `None`, what will be, so that `ValueError` is raised where it cannot fit.
    """
    as_choice(of, "of", ("state", "readout"))
    check_model(model)
    check_states(scale, of)
    metric = as_metric(scale, model.n_state)
    at = theta_positions(model, of, wrt)
    observation = observation_of(of, loss_operator)
    over_theta = diagonal(preconditioner, model, at)
    probe = as_instance(probe, "probe", Probe).fit(model)
    ts = probe.ts
    at_times = time_weights(ts, weights)
    over_time = None if at_times is None else jnp.sqrt(at_times).astype(ts.dtype)
    if isinstance(loss_operator, Sobolev):
        if probe.mask is not None:
            raise ValueError("probe.mask must be None for a Sobolev loss, which needs every time")
        matrix = loss_operator.matrix(ts)
        over_time = matrix if over_time is None else over_time[:, None] * matrix
    replay = record(model, at, probe, integrator, observation, formed=formed)
    by_theta = None if over_theta is None else (over_theta**-0.5).astype(ts.dtype)
    return Rows(replay, over_time, by_theta, None if metric is None else jax.device_put((1 / metric).astype(ts.dtype)))


def time_weights(ts: Any, weights: Any) -> Float[Array, " T"] | None:
    """The weight of each save time: `None`, `"trapezoid"`, or (T,) non-negative numbers as they are."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "trapezoid":
            raise ValueError(f"weights must be None, 'trapezoid' or an array (T,), got {weights!r}")
        # On the host where they are known, which compiles nothing.
        known = not is_traced(ts)
        here: Any = np if known else jnp
        step = here.diff(np.asarray(ts) if known else ts)
        each = here.concatenate([step[:1], step[:-1] + step[1:], step[-1:]]) / 2
        return jax.device_put(each) if known else each
    weights = as_array(weights, "weights", (ts.shape[0],))
    if bool((np.asarray(weights) < 0).any()):
        raise ValueError("weights must not be negative")
    return weights
