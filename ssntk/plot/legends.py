"""Place legends so that they cover nothing that is drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from ssntk.plot.canvas import small

PLACES = (
    "upper left",
    "upper right",
    "lower left",
    "lower right",
    "upper center",
    "lower center",
    "center right",
    "center left",
)
# A legend may grow by this factor relative to the axes until the figure is drawn, since the layout shrinks the axes.
GROWTH = 1.08


def clear_legend(ax: Axes, handles: Sequence[Any], labels: Sequence[str], **how: Any) -> Legend | None:
    """Put a legend into a free place of the axes. If there is none, raise the upper limit and put it above the data."""
    if not labels:
        return None
    how = {"frameon": False, "fontsize": small(), "borderaxespad": 0.3} | how
    paths = _drawn(ax)
    legend = ax.legend(handles, labels, loc="upper left", **how)
    for place in PLACES:
        legend.set_loc(place)
        if not any(path.intersects_bbox(_box(ax, legend), filled=False) for path in paths):
            return legend
    # The layout widens the axes, and so decides how many columns fit.
    legend.set_visible(False)
    root: Any = ax.get_figure(root=True)
    root.draw_without_rendering()
    box = _box(ax, _in_columns(ax, handles, labels, {"loc": "upper center"} | how))
    _raise(ax, min(box.height + 0.02, 0.6))
    return ax.get_legend()


def legend_above(
    ax: Axes, handles: Sequence[Any] = (), labels: Sequence[str] = (), *, room: float = 1.25, **how: Any
) -> Legend | None:
    """Put a legend above the axes, by default of everything that has a label, in rows as wide as `room` widths of these."""
    if not handles:
        handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return None
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    return _in_columns(ax, handles, labels, {"frameon": False, "fontsize": small()} | place | how, room=room)


def _in_columns(ax: Axes, handles: Sequence[Any], labels: Sequence[str], how: dict[str, Any], room: float = 1.0) -> Legend:
    """A legend with as many columns as fit into a width of `room`, in widths of the axes."""
    how = {"columnspacing": 1.0, "handlelength": 1.6} | how
    for columns in range(len(labels), 0, -1):
        legend = ax.legend(handles, labels, ncols=columns, **how)
        if columns == 1 or _box(ax, legend).width <= room:
            return legend
    raise AssertionError("a legend has a column")


def own_legend(ax: Axes, **how: Any) -> Legend | None:
    """[`clear_legend`][] of everything that has a label."""
    return clear_legend(ax, *ax.get_legend_handles_labels(), **how)


def _drawn(ax: Axes) -> list[Path]:
    """The paths that are drawn, in fractions of the axes: lines, and a small cross for each single marker."""
    # Matplotlib computes the limits only when they are read.
    for limits in (ax.get_xlim, ax.get_ylim):
        limits()
    paths = []
    for line in ax.get_lines():
        # A legend must not cover horizontal borders. It may cover vertical ones, since no place avoids them all.
        if line.get_transform().contains_branch_seperately(ax.transData)[1] and np.size(line.get_xdata()):
            path = (line.get_transform() - ax.transAxes).transform_path(line.get_path()).cleaned(remove_nans=True)
            paths += (
                [path] if line.get_linestyle() not in ("None", "") else [_cross(at) for at in np.asarray(path.vertices)[:-1]]
            )
    for dots in ax.collections:
        places = np.ma.filled(np.ma.asarray(dots.get_offsets(), float), np.nan)
        at = (dots.get_offset_transform() - ax.transAxes).transform(places) if len(places) else places
        paths += [_cross(one) for one in at[np.isfinite(at).all(axis=1)]]
    return paths


def _cross(at: np.ndarray) -> Path:
    return Path([at - 0.015, at + 0.015])


def _box(ax: Axes, legend: Legend) -> Bbox:
    """The box that the legend covers, in fractions of the axes."""
    return legend.get_window_extent().transformed(ax.transAxes.inverted()).expanded(GROWTH, GROWTH)


def _raise(ax: Axes, part: float) -> None:
    """Raise the upper limit so that this part of the axes is free above the data."""
    (left, _), scale = ax.get_xlim(), ax.transScale
    low, high = (float(scale.transform((left, value))[1]) for value in ax.get_ylim())
    top = float(scale.inverted().transform((scale.transform((left, 1.0))[0], low + (high - low) / (1 - part)))[1])
    if not ax.get_autoscaley_on():
        ax.set_ylim(top=top)
        return
    # Extend the data limits, so that the axes still adapt to what is drawn later.
    ax.update_datalim([(left, top)], updatex=False)
    ax.autoscale_view(scalex=False)
