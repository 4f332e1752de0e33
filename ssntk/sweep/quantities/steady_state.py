"""The kernel of the fixed point: how its position depends on theta."""

from typing import ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable, known


class SteadyStateQuantity(AbstractQuantity):
    """The spectrum of the steady-state kernel, and its condition number."""

    name = "steady_state"
    variables: ClassVar[dict[str, Variable]] = {
        "steady_state_eigenvalues": Variable(
            "eigenvalues of the steady-state kernel",
            "state^2",
            ("mode",),
            label="Largest steady-state NTK eigenvalue",
            short="steady-state NTK",
            log=True,
            first="steady",
        ),
        "condition_number": Variable(
            "of the steady-state kernel",
            label="Condition number of the steady-state NTK",
            short="its condition",
            log=True,
        ),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        spectrum = shared.steady_state
        return {
            "steady_state_eigenvalues": np.asarray(spectrum.eigenvalues),
            "condition_number": known(spectrum.condition_number),
        }
