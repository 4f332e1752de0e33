"""Draw branches over their parameter."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.kinds import KINDS, kind_named
from ssntk.bifurcation.projection import curves
from ssntk.cycles.branch import CycleBranch
from ssntk.diagrams.diagram import Diagram
from ssntk.plot import canvas
from ssntk.plot.canvas import HUES, INK, axes_or_new, plain, plt
from ssntk.plot.cycles import STABLE, UNSTABLE, Points, draw_cycles, places_of
from ssntk.plot.legends import clear_legend
from ssntk.plot.ordinate import Ordinate, as_ordinate


def bifurcation_diagram(diagram: Any, ax: Axes | None = None, *, y: Any = None, label: str = "parameter $p$") -> Axes:
    """Draw branches over their parameter: stable parts solid, unstable parts dashed, bifurcations marked and named.

    Of limit cycles the largest and the smallest value are drawn, with filled circles where they are stable.

    Markers of supercritical points are filled, those of subcritical points are open. A marker is half filled if the
    criticality is not known. Kinds that have no criticality, such as saddle-nodes, are filled.

    **Arguments:**

    - `diagram`: a [`Diagram`][], a [`Branch`][] or a [`CycleBranch`][].
    - `y`: the quantity on the vertical axis, computed from the state x (n,). The index of a state; `"output 0"`, the first
      entry of the readout, and so on; `"norm"`; a function `x (n,) -> number`; or `"principal"`, the first principal
      component of the states after the linear trend in p, which would hide folds, is removed. Default: `"output 0"` if
      the model has a readout, else state 0.
    - `label`: the label of the parameter's axis.

    Raises `ValueError` if the states and outputs do not have such a `y`, or if there is no branch to draw.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
    ax = ssntk.plot.bifurcation_diagram(ssntk.bifurcation_diagram(family, (-1.0, 1.0)), y=0, label="mu")
    print(ax.get_xlabel())  # mu
    ```
    """
    if not isinstance(diagram, (Diagram, Branch, CycleBranch)):
        raise ValueError(
            f"diagram must be an ssntk.Diagram, an ssntk.Branch or an ssntk.CycleBranch, got {type(diagram).__name__}"
        )
    branches = diagram.branches if isinstance(diagram, Diagram) else (diagram,) if isinstance(diagram, Branch) else ()
    cycles = diagram.cycles if isinstance(diagram, Diagram) else (diagram,) if isinstance(diagram, CycleBranch) else ()
    if not branches and not cycles:
        raise ValueError(f"diagram must hold a branch to draw, got none: {diagram.status}")
    ordinate = as_ordinate(y, branches or tuple(map(Points.of, cycles)))
    ax = axes_or_new(ax)
    for branch in branches:
        for phase in _phases(branch):
            _draw_branch(ax, phase, ordinate)
    for branch in cycles:
        draw_cycles(ax, branch, ordinate)
    events = (*diagram.bifurcations, *diagram.unresolved) if branches else ()
    of_cycles = [event for branch in cycles for event in _events_of(branch, alone=not branches)]
    marked = draw_events(ax, (*events, *of_cycles), ordinate)
    # One column of a paper has room for six labels.
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.set_xlabel(label)
    ax.set_ylabel(ordinate.label)
    # List each name once, however many branches there are, and "stable" before "unstable".
    handles = {text: handle for handle, text in reversed(list(zip(*ax.get_legend_handles_labels(), strict=True)))}
    order = [text for text in ("stable", "unstable", STABLE, UNSTABLE, *marked) if text in handles]
    clear_legend(ax, [handles[text] for text in order], order)
    return ax


def _events_of(branch: CycleBranch, alone: bool) -> tuple[Any, ...]:
    """The bifurcations to be marked; if a branch is drawn alone, also those at which it begins or ends."""
    ends = [event for event in (branch.begin, branch.end) if event is not None and alone]
    return (*ends, *branch.bifurcations)


def _phases(branch: Branch) -> list[Branch]:
    """The branch from each point of its cycles. The located bifurcations are those of the first."""
    if branch.orbit is None or branch.orbit_outputs is None:
        return [branch]
    pairs = zip(branch.orbit.swapaxes(0, 1)[1:], branch.orbit_outputs.swapaxes(0, 1)[1:], strict=True)
    others = [dataclasses.replace(branch, x=x, outputs=out, bifurcations=(), steps=()) for x, out in pairs]
    return [branch, *others]


def _draw_branch(ax: Axes, branch: Branch, ordinate: Ordinate) -> None:
    """Draw the stable parts of a branch as a solid line, and the unstable parts as a dashed line."""
    heights = ordinate.at(branch.bifurcations) if branch.bifurcations else np.zeros(0)
    parameter, height, *lines = curves(branch, ordinate.along(branch), heights)
    for drawn, line, colour, name in zip(lines, ("-", "--"), (INK, canvas.GREY), ("stable", "unstable"), strict=True):
        if drawn.any():
            shown = (np.where(drawn, values, np.nan) for values in (parameter, height))
            ax.plot(*shown, line, color=colour, label=name, marker="")


def draw_events(ax: Axes, events: Sequence[Any], ordinate: Ordinate) -> list[str]:
    """Mark each event. Returns the names for the legend, in order."""
    names = []
    size = 7 / 6 * plt.rcParams["lines.markersize"]
    # A user's own events come last, under their names.
    own = {event.kind: kind_named(event.kind) for event in events}
    for kind in [*(kind for kind in KINDS if kind.name in own), *(kind for kind in own.values() if kind not in KINDS)]:
        kind_name, colour = plain(kind.title), HUES[kind.hue]
        for criticality, fill in (("supercritical", "full"), ("subcritical", "none"), (None, "left")):
            found = [event for event in events if event.kind == kind.name and event.criticality == criticality]
            if not found:
                continue
            name = kind_name if criticality is None else f"{kind_name}, {criticality}"
            if criticality is None and kind.criticality:
                name = f"{kind_name}, criticality not known"
            elif criticality is None:
                fill = "full"
            ax.plot(
                *places_of(found, ordinate),
                linestyle="",
                marker=kind.symbol,
                markersize=size,
                label=name,
                zorder=3,
                color=colour,
                # The edge makes pale and open markers visible.
                markerfacecolor="white" if fill == "none" else colour,
                markerfacecoloralt="white",
                fillstyle="left" if fill == "left" else "full",
                markeredgecolor=colour if fill == "none" else INK,
                markeredgewidth=canvas.thin(0.9 if fill == "none" else 0.4),
            )
            names.append(name)
    return names
