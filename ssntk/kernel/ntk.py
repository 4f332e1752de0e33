"""The neural tangent kernel of trajectories, and its spectrum."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_array, as_instance
from ssntk.kernel.jacobian import parameter_jacobian
from ssntk.kernel.spectrum import Spectrum
from ssntk.models.base import AbstractStateSpaceModel


def ntk(
    model: AbstractStateSpaceModel,
    probe: Probe,
    other: Probe | None = None,
    *,
    of: str = "state",
    wrt: Callable[[Any], PyTree] | None = None,
    weights: Any = None,
    integrator: Integrator | None = None,
    method: str = "auto",
) -> Float[Array, "rows others"]:
    """K = J J^T, or J J'^T against another probe; rows are (b, t, i) in C order.

    **Arguments:**

    - `other`: a second probe, for the cross-kernel.
    - `weights`: how times are weighted. `None`: the raw stacked kernel. `"trapezoid"`: by the trapezoid rule over the save
      times, so that eigenvalues are those of `K_int = int J J^T dt` over the horizon (about raw * horizon / T). (T,): any
      non-negative weights. Row and column are each multiplied by the square root of their time's weight.
    - `of`, `wrt`, `integrator`, `method`: as in [`parameter_jacobian`][].

    Raises as [`parameter_jacobian`][] does.
    """
    how: dict[str, Any] = {"of": of, "wrt": wrt, "integrator": integrator, "method": method}
    rows = weighted_rows(model, probe, weights, how)
    return _contract(rows, rows if other is None else weighted_rows(model, other, weights, how))


def ntk_spectrum(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    of: str = "state",
    wrt: Callable[[Any], PyTree] | None = None,
    weights: Any = None,
    integrator: Integrator | None = None,
    method: str = "auto",
    eigenvectors: bool = True,
) -> Spectrum:
    """The spectrum of [`ntk`][], from the singular values of J, so that small eigenvalues keep their digits.

    Arguments as in [`ntk`][] and [`Spectrum.from_jacobian`][]. Raises as [`parameter_jacobian`][] does.
    """
    how: dict[str, Any] = {"of": of, "wrt": wrt, "integrator": integrator, "method": method}
    return Spectrum.from_jacobian(weighted_rows(model, probe, weights, how), eigenvectors=eigenvectors)


def time_weights(ts: Any, weights: Any) -> Float[Array, " T"] | None:
    """The weight of each save time: `None`, `"trapezoid"`, or (T,) non-negative numbers as they are."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "trapezoid":
            raise ValueError(f"weights must be None, 'trapezoid' or an array (T,), got {weights!r}")
        step = jnp.diff(ts)
        return jnp.concatenate([step[:1], step[:-1] + step[1:], step[-1:]]) / 2
    weights = as_array(weights, "weights", (ts.shape[0],))
    if bool((np.asarray(weights) < 0).any()):
        raise ValueError("weights must not be negative")
    return weights


def weighted_rows(model: AbstractStateSpaceModel, probe: Probe, weights: Any, how: dict[str, Any]) -> Array:
    """sqrt(weight) J as a matrix, (B T m, p)."""
    at_times = time_weights(as_instance(probe, "probe", Probe).ts, weights)
    jacobian = parameter_jacobian(model, probe, **how)
    if at_times is not None:
        jacobian = jacobian * jnp.sqrt(at_times).astype(jacobian.dtype)[None, :, None, None]
    return jacobian.reshape(-1, jacobian.shape[-1])


@jax.jit
def _contract(rows: Array, others: Array) -> Array:
    return rows @ others.T
