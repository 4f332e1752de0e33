"""Draw how the steady-state kernel collapses over two parameters."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from ssntk.diagrams.kernel_map import QUANTITIES, KernelMap
from ssntk.errors import as_choice, as_instance
from ssntk.plot.canvas import PALE, axes_or_new, small
from ssntk.plot.labels import label_parameters

TITLES = {"participation_ratio": "participation ratio of the kernel", "top": "largest eigenvalue of the kernel"}
# The lightest part of the colours, so that lines and text stay readable on all of them.
LIGHTEST = 0.35


def kernel_map(found: Any, ax: Axes | None = None, *, quantity: Any = "participation_ratio", labels: Any = None) -> Axes:
    """Draw a map of the steady-state kernel over two parameters.

    Dark places are those at which the kernel has collapsed. Places at which no stable equilibrium was found are grey.

    **Arguments:**

    - `found`: a [`KernelMap`][].
    - `quantity`: `"participation_ratio"`, or `"top"` for the largest eigenvalue, on a logarithmic scale, in the units of
      the states squared over those of theta squared.
    - `labels`: the labels of both axes. Default: the names of the parameters.

    Raises `ValueError` for arguments that do not fit.

    **Example:**

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    ax = ssntk.plot.kernel_map(ssntk.kernel_map(plane, ((-1.0, 1.0), (0.5, 1.5)), n=(8, 2)), quantity="top")
    print(ax.get_xlabel(), ax.get_ylabel())  # h mu
    ```
    """
    as_instance(found, "found", KernelMap)
    quantity = as_choice(quantity, "quantity", QUANTITIES)
    ax = axes_or_new(ax)
    label_parameters(ax, found.names, labels)
    ax.set_xlim(*found.spans[0])
    ax.set_ylim(*found.spans[1])
    shade(ax, found, quantity)
    return ax


def shade(ax: Axes, found: KernelMap, quantity: str) -> None:
    """Fill the axes with a map, and add its colour bar."""
    values = np.ma.masked_invalid(getattr(found, quantity).T)
    collapsed = quantity == "top"
    colours = mpl.colormaps["Purples" if collapsed else "Purples_r"]
    kept = np.linspace(0.0, 1 - LIGHTEST, 256) if collapsed else np.linspace(LIGHTEST, 1.0, 256)
    edges = [np.linspace(low, high, count + 1) for (low, high), count in zip(found.spans, found.top.shape, strict=True)]
    scale = "log" if collapsed and values.count() else None
    shades = mpl.colors.ListedColormap(colours(kept)).with_extremes(bad=PALE)
    image = ax.pcolormesh(*edges, values, cmap=shades, norm=scale, rasterized=True, zorder=0)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label(TITLES[quantity], fontsize=small())
    bar.ax.tick_params(labelsize=small())
