"""One point: what the network is and how it learns at one fixed point."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ssntk.dynamics.fixed_points import refine_fixed_point
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import as_instance
from ssntk.kernel.ntk import ntk_spectrum
from ssntk.kernel.spectrum import Spectrum
from ssntk.kernel.steady_state import steady_state_jacobian
from ssntk.models.base import AbstractStateSpaceModel


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One point, measured.

    - `x_star` (n,), `residual`: the fixed point after Newton's iteration, and the largest |f_i| there.
    - `jacobian_eigenvalues` (n,): of df/dx, the rightmost first.
    - `trajectory`: the spectrum of the trajectory kernel K_int (trapezoid weights).
    - `steady_state`: the spectrum of the steady-state kernel.
    """

    x_star: np.ndarray
    residual: float
    jacobian_eigenvalues: np.ndarray
    trajectory: Spectrum
    steady_state: Spectrum


def measure(
    model: AbstractStateSpaceModel,
    probe: Probe,
    x_star: Any,
    *,
    wrt: Callable[[Any], PyTree] | None = None,
    of: str = "state",
    integrator: Integrator | None = None,
) -> Measurement:
    """Measure `model` at the fixed point near `x_star` (n,), for zero input beyond what the model holds.

    **Arguments:** `probe`: where its `x0` is `None`, trajectories start at x*. `wrt`, `of`, `integrator`: as in
    [`parameter_jacobian`][]; the steady-state kernel is always that of the state.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where there is no fixed point or a solve fails.
    """
    x, jacobian, residual = refine_fixed_point(model, x_star)
    if as_instance(probe, "probe", Probe).x0 is None:
        probe = eqx.tree_at(lambda p: p.x0, probe, jnp.asarray(x), is_leaf=lambda leaf: leaf is None)
    trajectory = ntk_spectrum(model, probe, of=of, wrt=wrt, weights="trapezoid", integrator=integrator, eigenvectors=False)
    steady_state = Spectrum.from_jacobian(steady_state_jacobian(model, x, wrt=wrt), eigenvectors=False)
    return Measurement(x, residual, sorted_eigenvalues(jacobian), trajectory, steady_state)
