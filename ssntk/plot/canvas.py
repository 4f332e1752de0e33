"""Axes, sizes of text and colours that all pictures share. This is the only file that imports pyplot."""

import io
import itertools
from typing import Any, cast

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssntk.files import legible
from ssntk.plot.styles import TRUETYPE

# A palette that colour-blind readers can tell apart (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"
# The colours by the names that the kinds of bifurcation use.
HUES = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "pink": PINK, "sky": SKY, "red": RED, "yellow": YELLOW}
HUES["black"] = "#000000"
INK, GREY, PALE = "#222222", "#888888", "#BBBBBB"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, INK)
# The smallest size of text that can be read in print [points].
LEAST = 7.0


def axes_or_new(ax: Axes | None, **how: Any) -> Axes:
    """`ax`, or the axes of a new figure."""
    return plt.figure(layout="constrained").add_subplot(**how) if ax is None else ax


def small() -> float:
    """The size of small text [points]: five sixths of the usual size, but not less than can be read in print."""
    return max(LEAST, plt.rcParams["font.size"] / 1.2)


def thin(part: float = 0.5) -> float:
    """The width of a line that is thinner than usual by this factor [points]."""
    return part * plt.rcParams["lines.linewidth"]


def plain(name: str) -> str:
    """A name as text to draw. Nothing in it is read as mathematics."""
    return legible(name).replace("$", r"\$")


def keep_ticks(ax: Axes) -> None:
    """Fix the present settings for the ticks, which matplotlib makes only when the figure is drawn."""
    held = cast(Any, plt.rcParams)
    for axis, which in itertools.product(("x", "y"), ("major", "minor")):
        look = {
            name: held[f"{axis}tick.{which}.{key}"] for name, key in (("length", "size"), ("width", "width"), ("pad", "pad"))
        }
        ax.tick_params(axis, which=which, labelsize=held[f"{axis}tick.labelsize"], **look)


def saved(figure: Figure, kind: str, dpi: float = 150) -> bytes:
    """The bytes of a figure as a file of this kind: `"png"`, `"svg"` or `"pdf"`. The figure is closed.

    Fonts are not of Type 3, which publishers refuse.
    """
    drawn = io.BytesIO()
    with plt.rc_context(TRUETYPE):
        figure.savefig(drawn, dpi=dpi, format=kind)
    plt.close(figure)
    return drawn.getvalue()
