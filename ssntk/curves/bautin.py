"""The fold of limit cycles that begins at a generalised Hopf point."""

import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import CYCLE_FOLD, HOPF
from ssntk.bifurcation.locate import locate
from ssntk.curves.curve import Codim2
from ssntk.cycles.branch import CycleEvent
from ssntk.cycles.continuation import cycle_continuation
from ssntk.errors import NumericalError
from ssntk.models.plane import Plane

# How far from the point a fold is sought, in spans of a parameter, and the largest number of cycles that are followed to it.
APART, CYCLES = (0.05, 0.02, 0.1, 0.005), 120
# The frequency of a Hopf point nearby is that of the point within this part.
ALIKE = 0.5


def fold_beside(plane: Plane, u: Array, point: Codim2, ends: np.ndarray) -> tuple[CycleEvent, tuple[float, float]]:
    """A fold of limit cycles near a generalised Hopf point, and its parameters (p1, p2). `ends` (2, 2): the spans.

    Where the first Lyapunov coefficient has the sign that is opposite to that of the second, the cycles of a Hopf point turn
    (Kuznetsov, *Elements of Applied Bifurcation Theory*, section 8.3). Raises `NumericalError` if no such fold is found.
    """
    reach, at = ends[:, 1] - ends[:, 0], point.parameters
    for free in (0, 1):
        held = 1 - free
        for apart in (sign * one * reach[held] for one in APART for sign in (1, -1)):
            value = float(at[held] + apart)
            if not ends[held, 0] <= value <= ends[held, 1]:
                continue
            family = plane.across(value) if held else plane.second.of(plane.first(value))
            try:
                hopf = locate(family, HOPF.name, parameter=float(at[free]), x=point.x, u=u)
                inside = ends[free, 0] <= hopf.parameter <= ends[free, 1] and hopf.converged
                alike = abs(hopf.frequency / point.frequency - 1) <= ALIKE
                if not (inside and alike and hopf.coefficient * point.coefficients["l2"] < 0):
                    continue
                branch = cycle_continuation(family, hopf, ends[free], u=u, max_steps=CYCLES)
            except NumericalError:
                continue
            folds = [event for event in branch.bifurcations if event.kind == CYCLE_FOLD.name]
            if folds:
                p = float(folds[0].parameter)
                return folds[0], (p, value) if held else (value, p)
    raise NumericalError(
        f"no fold of cycles was found near the {point.kind} point at ({at[0]:.6g}, {at[1]:.6g}): follow cycles from a Hopf "
        "point nearby by cycle_continuation, and pass its cycle-fold"
    )
