"""Lines with a few points that lie far from the others."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ssntk.plot.canvas import small


def clipped(ax: Axes, x: np.ndarray, values: np.ndarray, limits: tuple[float, float], **how: Any) -> None:
    """Draw a line within `limits`. A point outside is an arrow at the border, and the farthest one has its number beside
    it."""
    low, high = limits
    ax.plot(x, np.clip(values, low, high), **how)
    for outside, border, sign in ((values > high, high, 1), (values < low, low, -1)):
        if not outside.any():
            continue
        ax.plot(x[outside], np.full(outside.sum(), border), "^" if sign > 0 else "v", color=how["color"])
        # Matplotlib computes the limits only when they are read.
        ax.get_xlim()
        farthest = np.flatnonzero(outside)[np.argmax(sign * values[outside])]
        place = (ax.transData - ax.transAxes).transform(np.array([x[farthest], border]))[0]
        ax.annotate(
            f"{values[farthest]:.3g}",
            (x[farthest], border),
            xytext=(0, 3 * sign),
            textcoords="offset points",
            ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
            va="bottom" if sign > 0 else "top",
            fontsize=small(),
            color=how["color"],
            annotation_clip=False,
        )
        # Room for the number.
        ax.update_datalim(np.array([[x[farthest], border + 0.15 * sign * (high - low)]]), updatex=False)
        ax.autoscale_view(scalex=False)
