"""Numbers about all points of a sweep towards a bifurcation of cycles. Tables, pages and pictures show them."""

from typing import NamedTuple

import numpy as np

from ssntk.collapse.cycle_law import cycle_law
from ssntk.collapse.exponent import fitted_decades, measured_exponent


class Tendency(NamedTuple):
    """The slope d log|value| / d log|p - p_c| of a variable over the last `decades`, and the predicted one, NaN if it is not
    known."""

    name: str
    title: str
    measured: float
    predicted: float


def tendencies(kind: str, data: dict[str, np.ndarray]) -> tuple[float, list[Tendency]]:
    """The number of decades that are looked at, and the slopes over them, of those points that were measured."""
    law, decades = cycle_law(kind), fitted_decades(data["distance"])
    rows = (
        ("shape_eigenvalues", "largest eigenvalue of the shape kernel", np.nan),
        ("driven_response", "response at the critical frequency", law.response),
        ("critical_exponent", "critical exponent", law.exponent),
        ("phase_channel", "phase channel", law.phase),
        ("period", "period", law.period),
    )
    found = []
    for name, title, predicted in rows:
        if name in data:
            values = data[name][:, 0] if data[name].ndim > 1 else data[name]
            slope = measured_exponent(data["distance"], np.abs(values.real), decades)
            found.append(Tendency(name, title, slope, predicted))
    return decades, found
