"""The limit cycle of a point: its period, its Floquet multipliers, and the kernels of its shape and of its phase."""

import types
from typing import ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.cycle_measurement import CycleMeasurement
from ssntk.sweep.quantities.base import OUTCOME, PLACE, Variable, known

# So many multipliers are kept, the largest first.
LEADING = 32


def _of_mode(meaning: str, units: str = "1", *, label: str, short: str = "", log: bool = False) -> Variable:
    """A number of the critical mode, which a point may lack."""
    return Variable(meaning, units, always=False, label=label, short=short, section="point", log=log)


class CycleQuantity:
    """The variables of a record of a sweep towards a bifurcation of cycles."""

    name: ClassVar[str] = "cycle"
    variables: ClassVar[dict[str, Variable]] = {
        "period": Variable("period P of the cycle", "time", label="Period P", short="period", log=True),
        "residual": Variable(
            "of the orbit's equations, relative to its extent", label="Residual of the orbit", section="point"
        ),
        "maximum": Variable("largest value of each state on the cycle", "state", ("mode",), section=""),
        "minimum": Variable("smallest value of each state on the cycle", "state", ("mode",), section=""),
        "multipliers": Variable(
            "leading Floquet multipliers besides the trivial one", "1", ("multiplier",), complex, section=""
        ),
        "exponents": Variable("log(multiplier) / P", "1 / time", ("multiplier",), complex, section=""),
        "shape_eigenvalues": Variable(
            "eigenvalues of the shape kernel, the mean of X X^T over the period",
            "state^2",
            ("shape",),
            label="Largest eigenvalue of the shape kernel",
            short="shape NTK",
            log=True,
            first="shape_top",
        ),
        "shape_trace": Variable("of the shape kernel", "state^2", label="Trace of the shape kernel", log=True),
        "shape_effective_rank": Variable(
            "exp(entropy) of the shape kernel's spectrum", label="Effective rank of the shape kernel", short="effective rank"
        ),
        "shape_participation_ratio": Variable(
            "of the shape kernel", label="Participation ratio of the shape kernel", short="participation"
        ),
        "period_gradient": Variable(
            "length of the period's gradient |P_theta|",
            "time",
            label="Gradient of the period |P_θ|",
            short="|P_theta|",
            log=True,
        ),
        "speed": Variable("mean square of the velocity over the period", "state^2 / time^2", section=""),
        "phase_channel": Variable(
            "|P_theta / P|^2 <|f|^2>: the long trajectory's largest NTK eigenvalue over T^3 / 3",
            "state^2 / time^2",
            label="Phase channel |P_θ/P|² <|f|²>",
            short="phase channel",
            log=True,
        ),
        "critical_multiplier": Variable("of the critical mode", "1", (), complex, always=False, section=""),
        "critical_exponent": Variable(
            "Floquet exponent of the critical mode",
            "1 / time",
            (),
            complex,
            always=False,
            label="Re of the critical exponent",
            short="Re lambda",
            section="point",
        ),
        "drive_frequency": _of_mode("angular frequency at which it is driven", "rad / time", label="Critical frequency"),
        "driven_response": _of_mode(
            "largest eigenvalue of the response at that frequency; of the shape kernel at frequency zero",
            "state^2",
            label="Response at the critical frequency",
            short="response",
            log=True,
        ),
        "predicted_response": _of_mode(
            "that of the critical mode alone, <|r|^2> |<l^T F>|^2 / |lambda - i w|^2",
            "state^2",
            label="Response of the critical mode alone, by its law",
            log=True,
        ),
        "critical_share": _of_mode(
            "part of the response's trace that lies along the critical mode",
            label="Share of the critical mode",
            short="share",
        ),
    }

    def finish(self, shared: CycleMeasurement) -> Values:
        orbit, kernel, shape, channel = shared.orbit, shared.kernel, shared.shape, shared.channel
        gradient = float(np.linalg.norm(kernel.period_gradient))
        found = {
            "period": np.asarray(orbit.period),
            "residual": np.asarray(orbit.residual),
            "maximum": orbit.maximum,
            "minimum": orbit.minimum,
            "multipliers": orbit.multipliers[:LEADING].astype(complex),
            "exponents": np.log(orbit.multipliers[:LEADING].astype(complex)) / orbit.period,
            # The others are zero.
            "shape_eigenvalues": np.asarray(shape.eigenvalues)[: kernel.period_gradient.size],
            "shape_trace": np.asarray(shape.trace),
            "shape_effective_rank": known(shape.effective_rank),
            "shape_participation_ratio": np.asarray(shape.participation_ratio),
            "period_gradient": np.asarray(gradient),
            "speed": np.asarray(kernel.speed),
            "phase_channel": np.asarray((gradient / kernel.period) ** 2 * kernel.speed),
        }
        if channel is None:
            return found
        return found | {
            "critical_multiplier": np.asarray(channel.multiplier),
            "critical_exponent": np.asarray(channel.exponent),
            "drive_frequency": np.asarray(channel.frequency),
            "driven_response": np.asarray(channel.response),
            "predicted_response": np.asarray(channel.predicted),
            "critical_share": np.asarray(channel.share),
        }


OF_CYCLES = types.MappingProxyType({**PLACE, **CycleQuantity.variables, **OUTCOME})
