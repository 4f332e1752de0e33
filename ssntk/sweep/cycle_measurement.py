"""What is measured of one limit cycle."""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation.events.kinds import SADDLE_NODE_ON_CYCLE
from ssntk.collapse.cycle import CycleKernel, cycle_ntk
from ssntk.collapse.cycle_channel import CycleChannel, cycle_channel
from ssntk.cycles.chain import Multipliers
from ssntk.cycles.events import critical
from ssntk.cycles.orbit import Orbit
from ssntk.errors import NumericalError
from ssntk.kernel.spectrum import Spectrum
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import Lens


@dataclasses.dataclass(frozen=True)
class CycleMeasurement:
    """One cycle, measured.

    - `orbit`, and its `kernel`, with the spectrum of its shape, `shape`.
    - `channel`: the critical Floquet mode's part; `None` at a saddle-node on a cycle, where no mode but the phase is
      critical, and if no mode is told apart.
    """

    orbit: Orbit
    kernel: CycleKernel
    shape: Spectrum
    channel: CycleChannel | None


def measure_cycle(
    model: AbstractStateSpaceModel, orbit: Orbit, kind: str, *, wrt: Lens | None, scale: Any, modes: int | None
) -> CycleMeasurement:
    """Measure a cycle on the way to a bifurcation of this kind. Raises as [`cycle_ntk`][] does."""
    kernel = cycle_ntk(model, orbit, wrt=wrt, scale=scale, k=modes)
    shape, channel = kernel.shape, None
    if kind != SADDLE_NODE_ON_CYCLE.name and orbit.multipliers.size:
        multiplier, _ = critical(kind, Multipliers(orbit.multipliers, orbit.multiplier_error, 0.0))
        # A point without a channel still has spectra.
        with contextlib.suppress(NumericalError, np.linalg.LinAlgError, FloatingPointError):
            channel = cycle_channel(model, orbit, multiplier, float(shape.eigenvalues[0]), wrt=wrt, scale=scale)
    return CycleMeasurement(orbit, kernel, shape, channel)
