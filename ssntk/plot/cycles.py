"""Draw branches of limit cycles over their parameter: the largest and the smallest value on each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.orbit import Orbit
from ssntk.plot import canvas
from ssntk.plot.canvas import BLUE, plt
from ssntk.plot.ordinate import Ordinate

# The distance between markers, in diagonals of the axes.
EVERY = 0.035
STABLE, UNSTABLE = "stable cycle", "unstable cycle"


class Points(NamedTuple):
    """All points of all orbits of a branch, as those of a branch of equilibria."""

    x: np.ndarray
    outputs: np.ndarray
    parameter: np.ndarray
    has_readout: bool

    @classmethod
    def of(cls, branch: CycleBranch) -> "Points":
        x, outputs = (np.concatenate([getattr(one, name) for one in branch.orbits]) for name in ("x", "outputs"))
        parameter = np.repeat(branch.parameter, [len(one) for one in branch.orbits])
        return cls(x, outputs, parameter, x.shape != outputs.shape or not np.array_equal(x, outputs))


def ends_of(orbit: Orbit, ordinate: Ordinate) -> tuple[float, float]:
    """The largest and the smallest height on an orbit."""
    heights = ordinate.height(*orbit.finely())
    return float(np.nanmax(heights, initial=-np.inf)), float(np.nanmin(heights, initial=np.inf))


def draw_cycles(ax: Axes, branch: CycleBranch, ordinate: Ordinate) -> None:
    """Draw the largest and the smallest value of a branch of cycles, with filled markers where they are stable."""
    parameter, heights = _with_ends(branch, ordinate)
    stable = np.concatenate([[np.nan], branch.stable, [np.nan]])
    size = 0.5 * plt.rcParams["lines.markersize"]
    for shown, face, name in ((1.0, BLUE, STABLE), (0.0, "white", UNSTABLE)):
        held = stable == shown
        if not held.any():
            continue
        beside = np.append(held[1:], False) | np.insert(held[:-1], 0, False)
        drawn = held | (np.isnan(stable) & beside) | (beside if shown == 0.0 else False)
        for values in heights.T:
            ax.plot(
                np.where(drawn, parameter, np.nan),
                np.where(drawn, values, np.nan),
                "-",
                color=BLUE,
                linewidth=canvas.thin(0.4),
                marker="o",
                markersize=size,
                markevery=EVERY,
                markerfacecolor=face,
                markeredgewidth=canvas.thin(0.4),
                label=name,
                zorder=2.5,
            )


def _with_ends(branch: CycleBranch, ordinate: Ordinate) -> tuple[np.ndarray, np.ndarray]:
    """The parameters (k + 2,) and heights (k + 2, 2), with the equilibria at which the branch begins and ends; NaN if it
    begins or ends at none."""
    heights = np.array([ends_of(one, ordinate) for one in branch.orbits])
    places = [_place(event, ordinate) for event in (branch.begin, branch.end)]
    parameter = np.concatenate([[places[0][0]], branch.parameter, [places[1][0]]])
    return parameter, np.vstack([places[0][1], heights, places[1][1]])


def _place(event: object, ordinate: Ordinate) -> tuple[float, tuple[float, float]]:
    """The parameter of a bifurcation and the largest and smallest height there."""
    if event is None:
        return np.nan, (np.nan, np.nan)
    orbit = getattr(event, "orbit", None)
    parameter = float(getattr(event, "parameter"))  # noqa: B009
    if isinstance(orbit, Orbit):
        return parameter, ends_of(orbit, ordinate)
    if float(getattr(event, "frequency")) == 0.0:  # noqa: B009
        # A saddle-node that appears on the cycle is one point of it only.
        return np.nan, (np.nan, np.nan)
    height = float(ordinate.at([event])[0])
    return parameter, (height, height)


def places_of(events: Sequence[object], ordinate: Ordinate) -> tuple[np.ndarray, np.ndarray]:
    """Where events are marked: those of cycles at the largest and at the smallest value."""
    parameters, heights = [], []
    for event in events:
        orbit = getattr(event, "orbit", None)
        at = ends_of(orbit, ordinate) if isinstance(orbit, Orbit) else ordinate.at([event])
        heights += list(at)
        parameters += [float(getattr(event, "parameter"))] * len(at)  # noqa: B009
    return np.array(parameters), np.array(heights)
