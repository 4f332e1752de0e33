"""Draw the results of a sweep towards a bifurcation of limit cycles on one page."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ssntk.bifurcation.events.kinds import kind_named
from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.side import kind_of_event
from ssntk.plot.canvas import BLUE, GREEN, INK, ORANGE, PALE, RED, keep_ticks, plt, thin
from ssntk.plot.diagram import bifurcation_diagram
from ssntk.plot.legends import clear_legend, own_legend
from ssntk.plot.spectra import eigenvalues
from ssntk.plot.styles import style
from ssntk.sweep.cycle_summary import Tendency, tendencies
from ssntk.sweep.store import Store

# The height of the figure [mm].
HEIGHT = 200.0
DOTS = {"marker": ".", "markersize": 4.0}


def collapse_of_cycles(store: Store, data: dict[str, np.ndarray], state: int) -> np.ndarray:
    """Draw the measured points of a sweep towards a bifurcation of cycles; see [`collapse`][]. Returns the axes (7,)."""
    kind = kind_of_event(store.bifurcation())
    slopes = {one.name: one for one in tendencies(kind, data)[1]}
    tight: dict[Any, Any] = {"axes.labelpad": 2.0, "legend.handletextpad": 0.5, "legend.labelspacing": 0.25}
    tight |= {"legend.handlelength": 1.8, "legend.columnspacing": 1.0, "axes.labelsize": 7.0}
    with style("paper", columns=2, height=HEIGHT), plt.rc_context(tight):
        figure = plt.figure(layout="constrained")
        grid = figure.add_gridspec(4, 2)
        top = figure.add_subplot(grid[0, :])
        decay, plane, response, phase, numbers, period = (
            figure.add_subplot(grid[row, column]) for row in (1, 2, 3) for column in (0, 1)
        )
        over = (decay, response, phase, numbers, period)
        for ax in over:
            ax.invert_xaxis()
        _diagram(store, data, kind, top, state)
        _decay(data, decay)
        distance = data["distance"]
        eigenvalues(data["multipliers"], plane, color_by=distance, label="distance $|p - p_c|$", multipliers=True)
        plane.set_xlabel("Re µ")
        plane.set_ylabel("Im µ")
        _response(data, slopes, response)
        _line(phase, data, slopes["phase_channel"], "-", BLUE, "phase channel")
        phase.set_ylabel("$|P_θ/P|^2\\,\\langle|f|^2\\rangle$\n(state²/time²)")
        _numbers(data, numbers)
        _line(period, data, slopes["period"], "-", INK, "period")
        period.set_ylabel("period $P$ (time)")
        for ax in over:
            ax.set_xlabel("distance from the bifurcation $|p - p_c|$")
            ax.xaxis.set_major_locator(LogLocator(numticks=9))
            ax.xaxis.set_minor_formatter(NullFormatter())
        for ax in (decay, response, phase, period):
            _at_least_a_decade(ax)
        for ax in over:
            own_legend(ax)
        for ax in figure.axes:
            keep_ticks(ax)
    return np.array([top, decay, plane, response, phase, numbers, period])


def _diagram(store: Store, data: dict[str, np.ndarray], kind: str, top: Axes, state: int) -> None:
    """Draw the part of the branch around the measured cycles, and these."""
    branch, event = store.branch(), store.bifurcation()
    assert isinstance(branch, CycleBranch)
    bifurcation_diagram(branch, top, y=state)
    for name, label in (("maximum", "measured"), ("minimum", "_measured")):
        top.plot(data["parameter"], data[name][:, state], ".", color=GREEN, label=label, zorder=3.5)
    p = np.append(data["parameter"], float(event.parameter))
    room = 0.1 * np.ptp(p) + 1e-12 * np.abs(p).max()
    top.set_xlim(p.min() - room, p.max() + room)
    near = (branch.parameter >= p.min() - room) & (branch.parameter <= p.max() + room)
    heights = [data["maximum"][:, state], data["minimum"][:, state]]
    heights += [branch.maximum[near, state], branch.minimum[near, state]]
    low, high = np.concatenate(heights).min(), np.concatenate(heights).max()
    top.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    top.set_title(f"{kind_named(kind).title} at $p_c$ = {float(event.parameter):.8g}")
    top.set_ylabel(f"largest and smallest\nstate {state} on the cycle")
    handles, names = top.get_legend_handles_labels()
    first = {name: handle for handle, name in reversed(list(zip(handles, names, strict=True)))}
    order = list(dict.fromkeys(names))
    clear_legend(top, [first[name] for name in order], order)


def _line(ax: Axes, data: dict[str, np.ndarray], known: Tendency, line: str, colour: str, name: str) -> None:
    """Draw a variable over the distance, with its measured slope and a line of the predicted one."""
    values = data[known.name]
    values = np.abs((values[:, 0] if values.ndim > 1 else values).real)
    slope = f", slope {round(known.measured, 3) + 0.0:.3f}" if np.isfinite(known.measured) else ""
    ax.loglog(data["distance"], values, line, color=colour, label=f"{name}{slope}", **DOTS)
    if np.isfinite(known.predicted):
        law = 3 * values[0] * (data["distance"] / data["distance"][0]) ** known.predicted
        ax.loglog(data["distance"], law, ":", color=INK, label=f"predicted slope {known.predicted:g} (shifted up)")


def _decay(data: dict[str, np.ndarray], ax: Axes) -> None:
    """Draw how fast each Floquet mode decays."""
    rates = -data["exponents"].real
    ax.loglog(data["distance"], np.where(rates > 0, rates, np.nan), color=PALE, linestyle="-", linewidth=thin())
    if "critical_exponent" in data:
        rate = -data["critical_exponent"].real
        ax.loglog(data["distance"], np.where(rate > 0, rate, np.nan), "-", color=RED, label="critical", **DOTS)
    ax.plot([], [], color=PALE, linestyle="-", linewidth=thin(), label="all Floquet modes")
    ax.set_ylabel(r"$-$Re $\lambda$ (1/time)")


def _response(data: dict[str, np.ndarray], slopes: dict[str, Tendency], ax: Axes) -> None:
    """Draw the shape kernel, and the response at the critical frequency beside that of the critical mode."""
    distance, driven = data["distance"], "driven_response" in data and (data["drive_frequency"] > 0).any()
    shape = slopes["shape_eigenvalues"]
    if driven or "driven_response" not in data:
        _line(ax, data, shape, "-", BLUE, "shape kernel")
    if "driven_response" in data:
        name = "driven response" if driven else "shape kernel"
        _line(ax, data, slopes["driven_response"], "-", RED, name)
        ax.loglog(
            distance,
            data["predicted_response"],
            "--",
            color=ORANGE,
            linewidth=thin(1.5),
            label="critical mode alone, by its law",
        )
    ax.set_ylabel("largest eigenvalue\n(state²)")


def _numbers(data: dict[str, np.ndarray], ax: Axes) -> None:
    """Draw the number of modes of the shape kernel, and the share of the critical mode."""
    distance = data["distance"]
    ax.semilogx(distance, data["shape_effective_rank"], "-", color=BLUE, label="effective rank of the shape", **DOTS)
    ax.semilogx(distance, data["shape_participation_ratio"], "--", color=GREEN, label="its participation ratio", **DOTS)
    if "critical_share" in data:
        ax.semilogx(distance, data["critical_share"], ":", color=RED, label="share of the critical mode", **DOTS)
    ax.set_ylabel("number of modes,\nshare of the trace")
    ax.set_ylim(0, 1.8 * max(1.0, float(np.nanmax(data["shape_effective_rank"], initial=1.0))))


def _at_least_a_decade(ax: Axes) -> None:
    """Let a logarithmic axis of values that hardly change show more than their last digits."""
    low, high = ax.get_ylim()
    if high < 3 * low:
        ax.set_ylim(low / 10**0.5, high * 10**0.5)
