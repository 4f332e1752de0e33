"""The labels of the axes of two parameters."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssntk.plot.canvas import plain


def label_parameters(ax: Axes, names: tuple[str, str], labels: Any) -> None:
    """Label both axes by `labels`, a pair of texts, or else by the names of the parameters. `ValueError` if they are no
    pair."""
    if labels is not None and (isinstance(labels, str) or np.shape(labels) != (2,)):
        raise ValueError(f"labels must be a pair of texts, got {labels!r}")
    usual = [plain(name) if name not in ("p1", "p2") else f"parameter $p_{name[1]}$" for name in names]
    ax.set_xlabel((labels or usual)[0])
    ax.set_ylabel((labels or usual)[1])
    # One column of a paper has room for six labels.
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
