"""One point: what the network is and how it learns at one fixed point."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ssntk.collapse.channel import Channel, channel_of, critical_mode
from ssntk.collapse.drive import channel_participation_ratio, critical_drive
from ssntk.dynamics.fixed_points import constant_input, refine_fixed_point
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.dynamics.stability import edge, exponents, reported
from ssntk.errors import NumericalError, as_instance
from ssntk.kernel.rows import rows_of
from ssntk.kernel.spectrum import Spectrum
from ssntk.kernel.steady_state import steady_state_jacobian
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.euler_map import step_of
from ssntk.models.theta import block_positions, columns, theta_positions


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One point, measured.

    - `x_star` (n,), `residual`: the fixed point after Newton's iteration, and the largest |f_i| there.
    - `jacobian_eigenvalues` (n,): of df/dx, the rightmost first; of a map the multipliers, the largest first.
    - `trajectory`: the spectrum of the trajectory kernel K_int (trapezoid weights).
    - `steady_state`: the spectrum of the steady-state kernel.
    - `blocks`: for each block of theta that was asked for, the spectrum of its part of the trajectory kernel.
    - `channel_participation_ratio`: for each block, what the drive of the critical mode predicts of its participation ratio
      close to the bifurcation: 0 where the inputs do not drive that mode through this block, NaN where nothing is known.
    - `channel`: the critical mode's part of the trajectory kernel of the states ([`Channel`][]), or `None` where there is
      none: of a defective eigenvalue, of a kernel that is zero or overflows, and where a mask tells coordinates apart.
    """

    x_star: np.ndarray
    residual: float
    jacobian_eigenvalues: np.ndarray
    trajectory: Spectrum
    steady_state: Spectrum
    blocks: dict[str, Spectrum]
    channel_participation_ratio: dict[str, float]
    channel: Channel | None


def measure(
    model: AbstractStateSpaceModel,
    probe: Probe,
    x_star: Any,
    *,
    wrt: Callable[[Any], PyTree] | None = None,
    of: str = "state",
    blocks: Any = None,
    critical_frequency: float | None = None,
    integrator: Integrator | None = None,
) -> Measurement:
    """Measure `model` at the fixed point near `x_star` (n,), for zero input beyond what the model holds.

    **Arguments:** `probe`: where its `x0` is `None`, trajectories start at x*. `wrt`, `of`, `integrator`: as in
    [`parameter_jacobian`][]; the steady-state kernel is always that of the state. `blocks`: parts of theta to be measured by
    themselves too, a list of the model's attributes, or a dict of names and lenses. `critical_frequency`: of the eigenvalue
    that is critical, 0 for a real one; default: of the fastest growing.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where there is no fixed point or a solve fails.
    """
    dt = step_of(model)
    at, parts = theta_positions(model, of, wrt), block_positions(model, of, wrt, blocks)
    x, jacobian, residual = refine_fixed_point(model, x_star)
    if as_instance(probe, "probe", Probe).x0 is None:
        probe = eqx.tree_at(lambda p: p.x0, probe, jnp.asarray(x), is_leaf=lambda leaf: leaf is None)
    near = None if critical_frequency is None else complex(*edge(critical_frequency, dt))
    recorded = rows_of(model, probe, of=of, wrt=wrt, weights="trapezoid", integrator=integrator)
    rows = np.asarray(recorded.matrix())
    states, of_states = recorded, rows
    if of != "state":
        states = rows_of(model, probe, wrt=wrt, weights="trapezoid", integrator=integrator)
        of_states = np.asarray(states.matrix())
    mode, channel, mask = None, None, recorded.replay.probe.mask
    # What has no channel still has spectra.
    with contextlib.suppress(NumericalError):
        mode = critical_mode(model, jnp.asarray(x), constant_input(model, None), near)
        channel = channel_of(states, of_states, mode) if mask is None or mask.ndim < 3 else None
    spectra, predicted = {}, {}
    if parts:
        drive = None if mode is None else critical_drive(model, at, probe, jnp.asarray(x), complex(mode.value))
        for name, block in parts.items():
            chosen = columns(model, at, block)
            spectra[name] = Spectrum.from_jacobian(rows[:, chosen], eigenvectors=False)
            predicted[name] = np.nan if drive is None else channel_participation_ratio(drive[:, chosen])
    return Measurement(
        x,
        residual,
        reported(exponents(jacobian, dt), dt),
        Spectrum.from_jacobian(rows, eigenvectors=False),
        Spectrum.from_jacobian(steady_state_jacobian(model, x, wrt=wrt), eigenvectors=False),
        spectra,
        predicted,
        channel,
    )
