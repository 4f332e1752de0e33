"""Draw curves of bifurcations over two parameters, and the number of stable fixed points between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ssntk.bifurcation.events.kinds import FLIP, HOPF, NEIMARK_SACKER, PITCHFORK, SADDLE_NODE, TRANSCRITICAL, kind_named
from ssntk.curves.curve import Curve
from ssntk.diagrams.kernel_map import QUANTITIES
from ssntk.diagrams.parameters import names_of
from ssntk.diagrams.regions import borders
from ssntk.diagrams.two_parameters import TwoParameterDiagram
from ssntk.errors import as_choice
from ssntk.models.clock import Continuous
from ssntk.plot import canvas
from ssntk.plot.canvas import GREY, HUES, INK, axes_or_new, plain, plt, small, thin
from ssntk.plot.kernel_map import shade
from ssntk.plot.labels import label_parameters
from ssntk.plot.legends import legend_above
from ssntk.plot.placed import Placed

# The dashes of each kind, so that they can be told apart in grey.
DASHES = {
    SADDLE_NODE.name: "-",
    HOPF.name: (0, (4, 1.2)),
    FLIP.name: (0, (5, 1.2, 1, 1.2)),
    NEIMARK_SACKER.name: (0, (2, 1)),
    TRANSCRITICAL.name: (0, (7, 1.2)),
    PITCHFORK.name: (0, (7, 1.2, 1, 1.2, 1, 1.2)),
}
# The abbreviation and the marker of each kind of point (Kuznetsov, Elements of Applied Bifurcation Theory).
SHAPES = {
    "cusp": ("CP", "D"),
    "bogdanov-takens": ("BT", "s"),
    "generalised-hopf": ("GH", "^"),
    "zero-hopf": ("ZH", "p"),
    "double-hopf": ("HH", "h"),
    "degenerate-transcritical": ("DT", "^"),
    "degenerate-pitchfork": ("DP", "^"),
    "double-zero": ("DZ", "s"),
    "1:1 resonance": ("R1", "s"),
    "1:2 resonance": ("R2", "s"),
    "1:3 resonance": ("R3", "s"),
    "1:4 resonance": ("R4", "s"),
    "degenerate-flip": ("GPD", "^"),
    "chenciner": ("CH", "^"),
    "fold-flip": ("LPPD", "p"),
    "fold-neimark-sacker": ("LPNS", "p"),
    "flip-neimark-sacker": ("PDNS", "p"),
    "double-neimark-sacker": ("NSNS", "h"),
}
UNKNOWN = ("?", "X")
# Points of which the labels share a line are nearer than this many points of print.
CLOSE = 6.0
# Up to this number of labels all are written, even if some touch.
FEW = 4
# The mark of lines that are points of codimension two.
POINT = "codimension two"


class _Shown(NamedTuple):
    """What is drawn: the curves, the points of codimension two, the names of the parameters, the spans if known, the
    regions, and whether points have labels."""

    curves: Sequence[Curve]
    points: Sequence[Any]
    names: tuple[str, str]
    spans: np.ndarray | None
    regions: Sequence[Any]
    labelled: bool = True


def bifurcation_curves(
    diagram: Any, ax: Axes | None = None, *, labels: Any = None, quantity: Any = "participation_ratio"
) -> Axes:
    """Draw curves of bifurcations over two parameters, each kind in a colour and in dashes of its own.

    A line is thin where no stable fixed point takes part: the bifurcation is one of unstable points. Neutral saddles, into
    which curves of Hopf points pass, are thin dotted lines. Points of codimension two are marked with the abbreviations of
    Kuznetsov's book: CP cusp, BT Bogdanov-Takens, GH generalised Hopf, ZH zero-Hopf, HH double Hopf; for maps R1 to R4
    resonances, GPD degenerate flip, CH Chenciner, LPPD fold-flip, and LPNS, PDNS, NSNS with Neimark-Sacker points. Where
    branches cross, DT and DP are degenerate transcriticals and pitchforks, and DZ is a double zero. Numbers between the
    curves are those of stable fixed points, with a question mark if different numbers were found there. Regions too small
    for a number have none.

    **Arguments:**

    - `diagram`: a [`TwoParameterDiagram`][], a [`Curve`][], or a sequence of these curves, which has no numbers.
    - `labels`: the labels of both axes. Default: the names of the parameters.
    - `quantity`: what is shown of a diagram's `kernel` below its curves, as by [`plot.kernel_map`][].

    Raises `ValueError` if there is no curve to draw, and for arguments that do not fit.

    **Example:**

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    ax = ssntk.plot.bifurcation_curves(ssntk.two_parameter_diagram(plane, ((-1.0, 1.0), (-1.0, 2.0))))
    print(ax.get_xlabel(), ax.get_ylabel(), sorted(text.get_text() for text in ax.texts))  # h mu ['1', '2', 'CP']
    ```
    """
    shown = _shown(diagram)
    quantity = as_choice(quantity, "quantity", QUANTITIES)
    ax = axes_or_new(ax)
    label_parameters(ax, shown.names, labels)
    handles: dict[str, Line2D] = {}
    for curve in shown.curves:
        _draw(ax, curve, handles)
    if shown.spans is not None:
        ax.set_xlim(*shown.spans[0])
        ax.set_ylim(*shown.spans[1])
    if getattr(diagram, "kernel", None) is not None:
        shade(ax, diagram.kernel, quantity)
    if shown.regions:
        handles[NUMBER] = Line2D([], [], linestyle="", marker="$n$", color=INK, markeredgewidth=0)
    order = sorted(handles, key=lambda name: list(_ORDER).index(name) if name in _ORDER else -1)
    _legend(ax, handles, order)
    if not _write(ax, shown):
        # There is no room for labels: the legend has the marker of each kind of point.
        for text in list(ax.texts):
            text.remove()
        for line in [line for line in ax.get_lines() if line.get_gid() == POINT]:
            line.remove()
        kinds = dict.fromkeys(SHAPES.get(point.kind, UNKNOWN) for point in shown.points)
        size = 0.7 * plt.rcParams["lines.markersize"]
        keys = {short: Line2D([], [], linestyle="", marker=marker, color=INK, markersize=size) for short, marker in kinds}
        _legend(ax, handles | keys, [*order, *keys])
        _write(ax, shown._replace(labelled=False))
    return ax


def _legend(ax: Axes, handles: dict[str, Line2D], order: Sequence[str]) -> None:
    legend_above(ax, [handles[name] for name in order], order, room=1.05, columnspacing=0.9, handlelength=1.5)


NEUTRAL, UNSTABLE = "neutral saddles", "unstable points"
NUMBER = "stable points"
_ORDER = (NEUTRAL, UNSTABLE, NUMBER)


def _shown(diagram: Any) -> _Shown:
    """What is drawn. `ValueError` if it cannot be."""
    if isinstance(diagram, TwoParameterDiagram):
        shown = _Shown(diagram.curves, diagram.points, diagram.names, diagram.spans, diagram.regions)
        status = diagram.status
    else:
        curves: Any = (diagram,) if isinstance(diagram, Curve) else diagram
        if not isinstance(curves, Sequence) or not all(isinstance(one, Curve) for one in curves):
            raise ValueError(
                "diagram must be an ssntk.TwoParameterDiagram, an ssntk.Curve or a sequence of curves, got "
                f"{type(diagram).__name__}"
            )
        points = [point for curve in curves for point in curve.points]
        shown = _Shown(curves, points, names_of(curves[0].plane) if curves else ("p1", "p2"), None, ())
        status = "the sequence is empty"
    if not shown.curves and not shown.regions:
        raise ValueError(f"diagram must hold a curve to draw, got none: {status}")
    return shown


def _draw(ax: Axes, curve: Curve, handles: dict[str, Line2D]) -> None:
    """Draw one curve: thick where stable points take part, thin where none does, dotted where it is of neutral saddles."""
    kind = kind_named(curve.kind)
    colour, dashes = HUES[kind.hue], DASHES.get(curve.kind, "-")
    clock = Continuous() if curve.plane is None else curve.plane.clock
    neutral = (curve.frequency == 0) & (curve.kind in (HOPF.name, NEIMARK_SACKER.name))
    real = neutral[1:] & neutral[:-1]
    stable = borders(curve, clock)
    looks = (
        (plain(kind.title), stable & ~real, {"color": colour, "linestyle": dashes}),
        (UNSTABLE, ~stable & ~real, {"color": colour, "linestyle": dashes, "linewidth": thin(0.5)}),
        (NEUTRAL, real, {"color": GREY, "linestyle": ":", "linewidth": thin(0.6)}),
    )
    for name, own, look in looks:
        if not own.any():
            continue
        at = np.append(own, False) | np.insert(own, 0, False)
        # An interval with other looks between two of these is left out.
        for part in np.split(np.arange(len(curve)), np.flatnonzero(~own) + 1):
            if len(part) > 1 and at[part].all():
                ax.plot(*curve.parameters[part].T, marker="", zorder=2, **look)
        if name == UNSTABLE:
            # A thin line of its own kind also stands for the kind.
            handles.setdefault(plain(kind.title), Line2D([], [], color=colour, linestyle=dashes))
            look = {"color": GREY, "linestyle": "-", "linewidth": thin(0.5)}
        handles.setdefault(name, Line2D([], [], **look))


def _write(ax: Axes, shown: _Shown) -> bool:
    """Write the numbers of stable points, mark the points of codimension two and label them; whether all labels had room."""
    placed = Placed.of(ax, [curve.parameters for curve in shown.curves], small())
    for region in shown.regions:
        placed.within(region.parameters, f"{region.n_stable}{'' if region.sure else '?'}", region.clearance)
    size = plt.rcParams["lines.markersize"] * (1.0 if shown.labelled else 0.7)
    groups: list[tuple[np.ndarray, list[str]]] = []
    for point in shown.points:
        short, marker = SHAPES.get(point.kind, UNKNOWN)
        ax.plot(
            *point.parameters,
            linestyle="",
            marker=marker,
            markersize=size,
            color=INK,
            markeredgecolor="white",
            markeredgewidth=canvas.thin(0.4),
            zorder=3,
            clip_on=False,
            gid=POINT,
        )
        near = [names for place, names in groups if placed.apart(place, point.parameters) < CLOSE]
        if not near:
            groups.append((point.parameters, [short]))
        elif short not in near[0]:
            near[0].append(short)
    if not shown.labelled:
        return True
    for place, _ in groups:
        placed.keep_off(place, size)
    # All are written, so that a diagram of few points has its labels even if two of them touch.
    fits = [placed.beside(place, ", ".join(names), size) for place, names in groups]
    return len(groups) <= FEW or all(fits)
