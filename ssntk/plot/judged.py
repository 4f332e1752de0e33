"""Draw the verdicts on an ensemble of networks."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssntk.critical.distance import CRITICAL, NEAR
from ssntk.critical.flag import Criticality
from ssntk.plot.canvas import BLUE, GREY, INK, ORANGE, RED, axes_or_new, plt, small, thin
from ssntk.plot.legends import legend_above

LOOKS = {"critical": RED, "near-critical": ORANGE, "regular": BLUE}
SHAPES = {"real": ("o", "a real eigenvalue"), "pair": ("^", "a pair")}


def verdicts(ensemble: Any, ax: Axes | None = None) -> Axes:
    """Draw how far each network of an ensemble is from a bifurcation, the nearest first, in the colour of its verdict.

    The marker is a circle if the critical eigenvalue of the nearest bifurcation is real, and a triangle if it is a complex
    pair. It is open if the network has no stable fixed point. Dashed lines are the distances below which a network counts
    as near-critical, and as critical. The legend counts each verdict.

    **Arguments:** `ensemble`: the result of [`criticality_ensemble`][], any sequence of [`Criticality`][], or a single one.

    Raises `ValueError` if it is none of these, or empty.

    **Example:**

    ```python
    models = [ssntk.CTRNN(4, 0, 1, gain=1.5, key=jax.random.key(seed)) for seed in range(3)]
    ax = ssntk.plot.verdicts(ssntk.criticality_ensemble(models))
    print(ax.get_xscale())  # log
    ```
    """
    members = [ensemble] if isinstance(ensemble, Criticality) else ensemble
    if not isinstance(members, Sequence) or not all(isinstance(one, Criticality) for one in members):
        raise ValueError(f"ensemble must be a sequence of ssntk.Criticality, got {type(ensemble).__name__}")
    if not members:
        raise ValueError("ensemble must hold at least one verdict, got none")
    ax = axes_or_new(ax)
    known = sorted((one for one in members if one.verdict in LOOKS), key=lambda one: one.relative_distance)
    far = np.array([one.relative_distance for one in known])
    # A distance of zero has no place on a logarithmic scale: draw it to the left of all others.
    least = min(far[far > 0].min(initial=CRITICAL), CRITICAL) / 3
    shown, ranks = np.maximum(far, least), np.arange(1, len(known) + 1)
    for (verdict, colour), (kind, (marker, _)) in itertools.product(LOOKS.items(), SHAPES.items()):
        for stable in (True, False):
            own = [one.verdict == verdict and one.kind == kind and one.stable == stable for one in known]
            face = colour if stable else "none"
            ax.plot(shown[own], ranks[own], marker, color=colour, markerfacecolor=face, zorder=3)
    for border, name in ((CRITICAL, "critical"), (NEAR, "near-critical")):
        ax.axvline(border, color=GREY, linestyle="--", linewidth=thin(0.7), zorder=1)
        ax.annotate(
            name,
            (border, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-2, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=small(),
            color=GREY,
        )
    _legend(ax, members)
    ax.set_xscale("log")
    ax.set_xlim(least / 1.5, max(far.max(initial=0.0), NEAR) * 2)
    ax.set_ylim(0, len(known) + 1)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("relative distance from a bifurcation")
    ax.set_ylabel("networks, nearest first")
    return ax


def _legend(ax: Axes, members: Sequence[Criticality]) -> None:
    """Add a legend: each verdict with the number of its networks, and each shape that occurs."""
    size = plt.rcParams["lines.markersize"]
    for verdict, colour in LOOKS.items():
        count = sum(one.verdict == verdict for one in members)
        ax.plot([], [], "s", color=colour, markersize=size, label=f"{verdict} ({count})")
    unknown = sum(one.verdict not in LOOKS for one in members)
    if unknown:
        ax.plot([], [], " ", label=f"no fixed point found ({unknown})")
    for kind, (marker, name) in SHAPES.items():
        if any(one.kind == kind and one.verdict in LOOKS for one in members):
            ax.plot([], [], marker, color=INK, markersize=size, label=name)
    if any(not one.stable and one.verdict in LOOKS for one in members):
        ax.plot([], [], "o", color=INK, markerfacecolor="none", markersize=size, label="no stable point")
    legend_above(ax)
