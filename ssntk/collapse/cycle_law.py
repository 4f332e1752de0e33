"""The slopes that theory predicts for the kernels of limit cycles near their bifurcations."""

from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.events.kinds import CYCLE_FOLD, PERIOD_DOUBLING, SADDLE_NODE_ON_CYCLE, TORUS


class CycleLaw(NamedTuple):
    """Slopes d log(value) / d log|p - p_c| on the side of the stable cycles, NaN if they are not known.

    - `response`: of the response at the critical frequency; of the shape kernel at a fold, where that is zero.
    - `exponent`: of the critical Floquet exponent. `phase`: of the phase channel. `period`: of the period.
    - `says`: a sentence, without its full stop.
    """

    response: float
    exponent: float
    phase: float
    period: float
    says: str


# At a fold the exponent is the root of the distance, and so is the distance between the two cycles: the shape moves as its
# inverse. If the period depends on the amplitude (shear), it moves so too. Of a mode with a multiplier that is no positive
# number constant parameters see nothing, since what they do to it in one round is undone in the next ones. At a saddle-node
# on the cycle P ~ distance^(-1/2) and P_theta / P ~ 1 / distance, while <|f|^2> ~ 1 / P.
_LAWS = {
    CYCLE_FOLD.name: CycleLaw(-1.0, 0.5, -1.0, 0.0, "the phase channel grows if the period depends on the amplitude"),
    PERIOD_DOUBLING.name: CycleLaw(
        -2.0, 1.0, 0.0, 0.0, "shape and period do not see it, a drive at half its frequency does"
    ),
    TORUS.name: CycleLaw(-2.0, 1.0, 0.0, 0.0, "shape and period do not see it, a drive at the frequency of the torus does"),
    SADDLE_NODE_ON_CYCLE.name: CycleLaw(
        np.nan, np.nan, -1.5, -0.5, "the period and its gradient grow, no mode decays slowly"
    ),
}


def cycle_law(kind: str) -> CycleLaw:
    """The law of a kind of bifurcation of cycles."""
    return _LAWS[kind]
