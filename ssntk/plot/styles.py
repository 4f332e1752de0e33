"""Settings of matplotlib for papers and slides."""

import contextlib
from collections.abc import Mapping
from typing import Any

from cycler import cycler
from matplotlib import rc_context

from ssntk.errors import as_choice, as_scalar

TRUETYPE: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42}
# The widths of one and of two columns [mm], and one inch [mm].
COLUMNS = {1: 85.0, 2: 178.0}
INCH = 25.4

# Colours from dark to light, each with its own dashes, so that lines can be distinguished in print without colours.
_LINES = cycler(
    color=["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"],
    linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))],
)
_PAPER = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "figure.titlesize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "savefig.dpi": 300.0,
}
_SLIDES = {
    "font.size": 18.0,
    "axes.labelsize": 18.0,
    "axes.titlesize": 20.0,
    "figure.titlesize": 20.0,
    "xtick.labelsize": 15.0,
    "ytick.labelsize": 15.0,
    "legend.fontsize": 15.0,
    "axes.linewidth": 1.2,
    "lines.linewidth": 2.6,
    "lines.markersize": 9.0,
    "savefig.dpi": 200.0,
}
_BOTH = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": _LINES,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "figure.constrained_layout.use": True,
}


class Style(contextlib.ContextDecorator, dict):
    """Settings of matplotlib that apply inside a `with` block, or in a function that is decorated with them.

    A style is a dictionary: `plt.rcParams.update(style)` applies it for the rest of the program, and
    `plt.rc_context(style)` inside a block, as `with style` does.
    """

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__(settings)
        self._entered: list[Any] = []

    def __enter__(self) -> "Style":
        self._entered.append(rc_context(self))
        self._entered[-1].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(*error)


def style(name: Any, *, columns: Any = 1, height: Any = None) -> Style:
    """Settings of sizes, lines and fonts for a paper or for slides.

    Text is 7 pt or larger at the size at which the figure is made, so include the figure without scaling. PDF and
    PostScript files hold TrueType fonts (type 42), as publishers require. Lines differ in colour and in dashes, so that
    they can be distinguished in grey. Save the figure inside the `with` block.

    **Arguments:**

    - `name`: `"paper"` or `"slides"`.
    - `columns`: the width of a figure for a paper: 1 (85 mm) or 2 (178 mm) columns. A slide is 254 mm wide.
    - `height`: the height of the figure [mm]. Default: 60 for one column, 70 for two, 143 for a slide.

    Raises `ValueError` for an unknown name, another number of columns, or a height that is not positive.

    **Example:**

    ```python
    with ssntk.plot.style("paper"):
        ax = ssntk.plot.eigenvalues(np.array([-1 + 2j, -1 - 2j]))
        print((25.4 * ax.figure.get_size_inches()).round())  # [85. 60.]
    ```
    """
    as_choice(name, "name", ("paper", "slides"))
    if isinstance(columns, bool) or not isinstance(columns, int) or columns not in COLUMNS:
        raise ValueError(f"columns must be 1 or 2, got {columns!r}")
    usual = (COLUMNS[columns], 60.0 if columns == 1 else 70.0) if name == "paper" else (254.0, 143.0)
    tall = usual[1] if height is None else float(as_scalar(height, "height", positive=True))
    size = {"figure.figsize": (usual[0] / INCH, tall / INCH)}
    return Style(_BOTH | (_PAPER if name == "paper" else _SLIDES) | TRUETYPE | size)
