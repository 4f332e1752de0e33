"""The kernel of the trajectories: how they depend on theta."""

from typing import ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable, known


class TrajectoryQuantity(AbstractQuantity):
    """The spectrum of the trajectory kernel K_int, which is integrated over time, and the kernel as a function of time."""

    name = "trajectory"
    variables: ClassVar[dict[str, Variable]] = {
        "ntk_eigenvalues": Variable(
            "eigenvalues of the trajectory kernel K_int",
            "state^2 time",
            ("row",),
            label="Largest trajectory NTK eigenvalue",
            short="trajectory NTK",
            log=True,
            first="top",
        ),
        "trace": Variable("of the trajectory kernel K_int", "state^2 time", label="Trace of the trajectory NTK", log=True),
        "effective_rank": Variable(
            "exp(entropy) of the trajectory kernel's spectrum",
            label="Effective rank of the trajectory NTK",
            short="effective rank",
        ),
        "participation_ratio": Variable(
            "of the trajectory kernel", label="Participation ratio of the trajectory NTK", short="participation"
        ),
        "top_share": Variable(
            "of the trajectory kernel, lambda_1 / trace",
            label="Share of the trajectory NTK's largest eigenvalue in its trace",
            section="point",
        ),
        "trajectory_condition_number": Variable(
            "of the trajectory kernel", label="Condition number of the trajectory NTK", section="point"
        ),
        "trajectory_condition_number_is_bound": Variable("1 if that is only a lower bound, else 0", section=""),
        "kernel_over_time": Variable(
            "trajectory kernel at times t and t', summed over inputs and coordinates, not weighted",
            "state^2",
            ("time", "time_2"),
            always=False,
            section="",
        ),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        spectrum = shared.trajectory
        return {
            "ntk_eigenvalues": np.asarray(spectrum.eigenvalues),
            "trace": np.asarray(spectrum.trace),
            "effective_rank": known(spectrum.effective_rank),
            "participation_ratio": np.asarray(spectrum.participation_ratio),
            "top_share": np.asarray(spectrum.top_share),
            "trajectory_condition_number": known(spectrum.condition_number),
            "trajectory_condition_number_is_bound": spectrum.condition_number_is_bound,
            "kernel_over_time": shared.kernel_over_time,
        }
