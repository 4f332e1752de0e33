"""Draw the results of a sweep towards a bifurcation on one page."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.kinds import OF_BORDERS, kind_named
from ssntk.cycles.branch import CycleBranch
from ssntk.errors import as_count
from ssntk.models.clock import Continuous, clock_of
from ssntk.plot.canvas import BLUE, GREEN, INK, ORANGE, PALE, PALETTE, PINK, RED, keep_ticks, plain, plt, thin
from ssntk.plot.clipped import clipped
from ssntk.plot.cycle_collapse import collapse_of_cycles
from ssntk.plot.diagram import bifurcation_diagram
from ssntk.plot.legends import clear_legend, own_legend
from ssntk.plot.ordinate import as_ordinate
from ssntk.plot.spectra import eigenvalues
from ssntk.plot.styles import style
from ssntk.sweep.aims import WITHOUT_A_MODE
from ssntk.sweep.store import DONE, Store, StoreError
from ssntk.sweep.summary import slope_of

# The height of the figure without and with blocks of theta [mm]. With a caption it fills a page of A4 or letter.
HEIGHT, HEIGHT_WITH_BLOCKS = 200.0, 229.0
# The kinds of points that a margin of a border leads to.
BORDERS = {kind.name for kind in OF_BORDERS}
# Shares outside this range are clipped, since one far outside would flatten all others.
SHARES = (-0.5, 1.5)
# The style of a dotted line, which must differ from data with markers.
DOTS = {"marker": ".", "markersize": 4.0}


def collapse(store: Store, *, y: Any = "principal") -> np.ndarray:
    """Draw the results of a sweep towards a bifurcation on one page.

    There are seven panels:

    - the bifurcation diagram;
    - the eigenvalues of the Jacobian over the distance; for maps, the growth exponents;
    - the same eigenvalues in the complex plane; for maps, the multipliers;
    - the spectrum of the steady-state kernel, with measured and predicted slope;
    - the effective rank and the participation ratio of the trajectory kernel, beside the condition number of the
      steady-state kernel;
    - the largest eigenvalue of the trajectory kernel, measured, and predicted by the master law from the critical mode
      alone;
    - the shares of the kernel that belong to that mode. Points outside [-0.5, 1.5] are clipped: an arrow marks them, and the
      farthest one has its number. For borders of piecewise-linear models, of which no kernel warns, this panel shows the
      margins of the units' borders instead.

    If blocks of theta were measured, there are two more: the largest eigenvalue of each block's part of the trajectory
    kernel, and its participation ratio beside the one that the drive of the critical mode predicts.

    The figure is 178 mm wide and at most 229 mm high, with text of 7 pt and more. Include it without scaling.

    Of a sweep towards a bifurcation of limit cycles the panels show the branch of cycles; how fast the Floquet modes decay;
    the multipliers; the largest eigenvalue of the shape kernel and the response at the critical frequency, beside that of
    the critical mode alone; the phase channel; the number of modes of the shape kernel, with the share of the critical mode;
    and the period. `y` is then the number of a state, by default 0.

    **Arguments:** `y`: what the diagram shows of the state, as in `plot.bifurcation_diagram`. It cannot be an output, since
    a store holds no outputs. Default: the first principal component, in which folds are visible.

    Returns the axes, (7,) or (9,). Raises `StoreError` if nothing was measured yet, `ValueError` if the states do not have
    such a `y`.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    probe = ssntk.Probe([0.0, 1.0])
    sweep = ssntk.Sweep(family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1, 0.03, 0.01], probe=probe, x0=[1.0])
    store = ssntk.Store("collapse")
    ssntk.run(sweep, store, progress=False)
    axes = ssntk.plot.collapse(store)
    print(axes.size)  # 7
    ```
    """
    data, branch = store.arrays(), store.branch()
    if branch is None or not (data["status"] == DONE).any():
        raise StoreError(f"{store.path} holds no measured point to draw yet")
    kept = data["status"] == DONE
    data = {name: values[kept] for name, values in data.items()}
    if isinstance(branch, CycleBranch):
        state = 0 if y == "principal" else as_count(y, "y", least=0)
        if state >= store.plan()["n_state"]:
            raise ValueError(f"y must be the number of a state, below {store.plan()['n_state']}, got {y}")
        return collapse_of_cycles(store, data, state)
    as_ordinate(y, (branch,), states=True)
    kind, blocks, dt = store.bifurcation().kind, store.plan()["blocks"], store.plan()["dt"]
    tight: dict[Any, Any] = {"axes.labelpad": 2.0, "legend.handletextpad": 0.5}
    tight |= {"legend.labelspacing": 0.25, "legend.handlelength": 1.8, "legend.columnspacing": 1.0, "axes.labelsize": 7.0}
    paper = style("paper", columns=2, height=HEIGHT_WITH_BLOCKS if blocks else HEIGHT)
    with paper, plt.rc_context(tight):
        figure = plt.figure(layout="constrained")
        grid = figure.add_gridspec(4 + bool(blocks), 2)
        top = figure.add_subplot(grid[0, :])
        left, plane, lower, ranks, channel, parts, *rest = (
            figure.add_subplot(grid[row, column]) for row in range(1, 4 + bool(blocks)) for column in (0, 1)
        )
        panels = [top, left, plane, lower, ranks, channel, parts, *rest]
        for ax in (left, *panels[3:]):
            ax.invert_xaxis()
        _diagram(store, data, top, y)
        _decay(data, dt, left)
        distance = data["distance"]
        values = data["jacobian_eigenvalues"]
        eigenvalues(values, plane, color_by=distance, label="distance $|p - p_c|$", multipliers=clock_of(dt) != Continuous())
        _steady(data, kind, lower)
        _channel(data, kind, channel)
        if kind in BORDERS and "border_margin" in data:
            _margins(data, parts)
        else:
            _parts(data, parts)
        if blocks:
            _blocks(data, blocks, kind_named(kind).modes, *rest)
        for ax in (left, *panels[3:]):
            ax.set_xlabel("distance from the bifurcation $|p - p_c|$")
            ax.xaxis.set_major_locator(LogLocator(numticks=9))
            ax.xaxis.set_minor_formatter(NullFormatter())
        _ranks(data, ranks)
        for ax in (left, lower, channel):
            _at_least_a_decade(ax)
        for ax in (left, lower, channel, parts, *rest):
            own_legend(ax)
        for ax in figure.axes:
            keep_ticks(ax)
    return np.array(panels)


def _diagram(store: Store, data: dict[str, np.ndarray], top: Axes, y: object) -> None:
    """Draw the part of the branch around the measured points, and these."""
    branch, event = store.branch(), store.bifurcation()
    assert isinstance(branch, Branch)
    ordinate = as_ordinate(y, (branch,), states=True)
    bifurcation_diagram(branch, top, y=y)
    heights = ordinate.height(data["x_star"], None)
    (dots,) = top.plot(data["parameter"], heights, ".", color=GREEN, label="measured", zorder=2.5)
    shown = np.concatenate([data["parameter"], [other.parameter for other in branch.bifurcations]])
    window = shown.min() - 0.1 * np.ptp(shown), shown.max() + 0.1 * np.ptp(shown)
    within = (branch.parameter >= window[0]) & (branch.parameter <= window[1])
    # Close to the bifurcation there may be no point of the branch.
    inside = np.concatenate([heights, ordinate.along(branch)[within]])
    extent = np.ptp(inside)
    top.set_xlim(*window)
    top.set_ylim(*(inside.min() - 0.1 * extent, inside.max() + 0.1 * extent) if extent > 0 else (-1, 1))
    top.set_title(f"{kind_named(event.kind).title} at $p_c$ = {event.parameter:.8g}")
    known = top.get_legend()
    assert known is not None
    names = [text.get_text() for text in known.get_texts()]
    clear_legend(top, [*known.legend_handles, dots], [*names, "measured"])


def _decay(data: dict[str, np.ndarray], dt: float | None, left: Axes) -> None:
    """Draw how fast each mode decays."""
    distance, values = data["distance"], data["jacobian_eigenvalues"]
    clock = clock_of(dt)
    decay = -clock.shown_rate(values)
    left.loglog(distance, np.where(decay[:, 1:] > 0, decay[:, 1:], np.nan), color=PALE, linestyle="-", linewidth=thin())
    label = "rightmost" if clock == Continuous() else f"largest {clock.eigenvalue_name} m"
    left.loglog(distance, decay[:, 0], "-", color=RED, label=label, **DOTS)
    _others(decay, left)
    left.set_ylabel(r"$-$Re $\lambda$ (1/time)" if clock == Continuous() else r"$-\log |m| / dt$ (1/time)")


def _others(values: np.ndarray, ax: Axes) -> None:
    if values.shape[1] > 1:
        ax.plot([], [], color=PALE, linestyle="-", linewidth=thin(), label="others")


def _steady(data: dict[str, np.ndarray], kind: str, lower: Axes) -> None:
    """Draw the spectrum of the steady-state kernel, and the slope of its first eigenvalue."""
    distance, steady = data["distance"], data["steady_state_eigenvalues"]
    lower.loglog(distance, np.where(steady[:, 1:] > 0, steady[:, 1:], np.nan), color=PALE, linestyle="-", linewidth=thin())
    slope = slope_of(kind, distance, steady[:, 0])
    label = f"largest, slope {slope.measured:.3f}, last {slope.decades:.2g} decades"
    lower.loglog(distance, steady[:, 0], "-", color=RED, label=label, **DOTS)
    _others(steady, lower)
    law = 4 * steady[0, 0] * (distance / distance[0]) ** slope.predicted
    lower.loglog(distance, law, ":", color=INK, label=f"predicted slope {slope.predicted:g} (shifted up)")
    lower.set_ylabel("steady-state NTK\neigenvalue")


def _ranks(data: dict[str, np.ndarray], ranks: Axes) -> None:
    """Draw the number of modes of the trajectory kernel, and the condition number of the steady-state kernel."""
    distance = data["distance"]
    ranks.semilogx(distance, data["effective_rank"], "-", color=BLUE, label="effective rank (trajectory NTK)", **DOTS)
    pr = data["participation_ratio"]
    ranks.semilogx(distance, pr, "--", color=GREEN, label="participation ratio (trajectory NTK)", **DOTS)
    ranks.set_ylabel("number of modes")
    highest = np.nanmax(data["effective_rank"], initial=1.0)
    ranks.set_ylim(0, 1.5 * highest)
    condition = ranks.twinx()
    condition.loglog(
        distance, data["condition_number"], ":", color=PINK, label="condition number (steady-state NTK)", **DOTS
    )
    finite = data["condition_number"][np.isfinite(data["condition_number"])]
    largest = finite.max(initial=1.0)
    # A constant line must not lie on the axis.
    low = min(condition.get_ylim()[0], 0.5 * finite.min(initial=1e4 * largest))
    condition.set_ylim(low, largest * (largest / low) ** 0.5 * 10)
    condition.yaxis.set_major_locator(LogLocator(numticks=7))
    condition.yaxis.set_minor_formatter(NullFormatter())
    condition.set_ylabel("condition number", color=PINK)
    condition.spines["right"].set_visible(True)
    handles = [*ranks.get_lines(), *condition.get_lines()]
    names = [str(line.get_label()) for line in handles]
    condition.legend(handles, names, frameon=False, loc="upper right", borderaxespad=0.2)


def _at_least_a_decade(ax: Axes) -> None:
    """Let a logarithmic axis of values that hardly change show more than their last digits."""
    low, high = ax.get_ylim()
    if high < 3 * low:
        ax.set_ylim(low / 10**0.5, high * 10**0.5)


def _channel(data: dict[str, np.ndarray], kind: str, growth: Axes) -> None:
    """Draw the largest eigenvalue of the trajectory kernel beside that of the critical mode."""
    mode = "slowest" if kind in WITHOUT_A_MODE else "critical"
    distance = data["distance"]
    growth.loglog(distance, data["channel_top_eigenvalue"], "-", color=INK, label="measured, the whole kernel", **DOTS)
    for name, line in (("fixed point", ":"), ("averaged", "--")):
        shown = np.where(data["channel_method"] == name, data["channel_predicted_top_eigenvalue"], np.nan)
        if np.isfinite(shown).any():
            label = f"{mode} mode alone, master law" + (", rate averaged" if name == "averaged" else "")
            growth.loglog(distance, shown, line, color=RED, linewidth=thin(1.5), label=label)
    growth.set_ylabel("top eigenvalue,\ntrajectory NTK")


def _margins(data: dict[str, np.ndarray], margins: Axes) -> None:
    """Draw how far the parameters are from the nearest border of a unit, and from the nearest nonsmooth fold."""
    lines = (("border_margin", "nearest border", "-", BLUE), ("fold_margin", "nearest nonsmooth fold", "--", RED))
    for name, label, line, colour in lines:
        if name in data:
            margins.loglog(data["distance"], data[name], line, color=colour, label=label, **DOTS)
    margins.set_ylabel("least change of θ\nto a border (parameter)")


def _parts(data: dict[str, np.ndarray], parts: Axes) -> None:
    """Draw the shares of the kernel that belong to the critical mode."""
    lines = (
        ("share", "share", "-", BLUE),
        ("oblique_share", "oblique share", "--", ORANGE),
        ("cross_share", "cross terms", ":", PINK),
        ("alignment", "alignment", "-.", GREEN),
        ("parameter_alignment", "alignment of θ", (0, (1, 1)), INK),
    )
    parts.set_xscale("log")
    for name, label, line, colour in lines:
        clipped(parts, data["distance"], data[f"channel_{name}"], SHARES, linestyle=line, color=colour, label=label)
    parts.axhline(1, color="#DDDDDD", linewidth=thin(), zorder=0)
    parts.set_ylabel("part of the trace, |cos|")


def _blocks(data: dict[str, np.ndarray], names: list[str], channel: int, growth: Axes, modes: Axes) -> None:
    """Draw the largest eigenvalue of each block of theta, and its participation ratio with the predicted one."""
    distance = data["distance"]
    share = data["block_top_share" if channel == 1 else "block_top_two_share"]
    predicted = data["block_channel_participation_ratio"]
    told = False
    for i, name in enumerate(names):
        look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "marker": "osD^vPX"[i % 7], "markersize": 2.5}
        growth.loglog(distance, data["block_eigenvalues"][:, i, 0], label=plain(name), **look)
        count = "mode" if channel == 1 else "two modes"
        label = f"{plain(name)}, top {count} {share[0, i]:.4f}"
        modes.loglog(distance, data["block_participation_ratio"][:, i], label=label, **look)
        shown = predicted[:, i] > 0
        if shown.any():
            law = np.where(shown, predicted[:, i], np.nan)
            # One entry of the legend serves all of them.
            hidden, told = "_" if told else "", True
            modes.loglog(distance, law, ":", color=look["color"], label=f"{hidden}predicted near the point")
    growth.set_ylabel("top eigenvalue,\nNTK of a block")
    modes.set_ylabel("participation ratio,\nNTK of a block")
    modes.set_ylim(0.9, 1.5 * np.nanmax(data["block_participation_ratio"], initial=2.0))
    modes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20, 50, 100, 200, 500]))
    modes.yaxis.set_major_formatter("{x:g}")
    modes.yaxis.set_minor_locator(NullLocator())
