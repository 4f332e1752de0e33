"""Pictures of results. Every function takes results and returns the axes it drew into; nothing is computed here."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from ssntk.bifurcation.continuation import Branch
from ssntk.bifurcation.diagram import Diagram
from ssntk.bifurcation.projection import curves, direction_of
from ssntk.collapse.exponent import CHANNEL_MODES, STEADY_STATE_EXPONENT, fitted_decades, measured_exponent
from ssntk.errors import as_array, as_count
from ssntk.kernel.spectrum import Spectrum
from ssntk.sweep.store import DONE, Store, StoreError

# One name, marker and colour a kind, from a palette that colour-blind readers can tell apart (Okabe and Ito, 2008).
_MARKS = {
    "saddle-node": ("Saddle-node", "s", "#D55E00"),
    "hopf": ("Hopf", "o", "#0072B2"),
    "transcritical": ("Transcritical", "^", "#009E73"),
    "pitchfork": ("Pitchfork", "v", "#E69F00"),
    "flip": ("Flip", "P", "#56B4E9"),
    "neimark-sacker": ("Neimark-Sacker", "o", "#0072B2"),
    "branch-point": ("Branch point", "D", "#CC79A7"),
    "double": ("Double", "d", "#CC79A7"),
    "degenerate": ("Degenerate", "h", "#CC79A7"),
    "unknown": ("Unresolved", "X", "#F0E442"),
}
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#222222")
_INK, _ACCENT = "#222222", "#D55E00"


def bifurcation_diagram(diagram: Diagram | Branch, ax: Axes | None = None, *, label: str = "parameter $p$") -> Axes:
    """Branches over their parameter: stable parts solid, unstable dashed, bifurcations marked and named.

    States of more than one dimension are shown along the direction in which they vary most, apart from their linear
    answer to the parameter.
    """
    ax = _axes(ax)
    branches = diagram.branches if isinstance(diagram, Diagram) else (diagram,)
    centre, direction = direction_of(branches)
    for branch in branches:
        _draw_branch(ax, branch, centre, direction)
    events = (*diagram.bifurcations, *diagram.unresolved)
    # A user's own events by their names.
    own = {event.kind: (_plain(event.kind), "*", "#000000") for event in events if event.kind not in _MARKS}
    marks = _MARKS | own
    for kind, (kind_name, marker, colour) in marks.items():
        found = [event for event in events if event.kind == kind]
        if found:
            ax.plot(
                [event.parameter for event in found],
                [(event.x - centre) @ direction for event in found],
                marker,
                color=colour,
                markersize=7,
                label=kind_name,
                zorder=3,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
    ax.set_xlabel(label)
    ax.set_ylabel(
        "state $x$" if direction.size == 1 else "state, first principal direction\nbeyond the linear answer to $p$"
    )
    # Each name once, however many branches there are, and "stable" before "unstable".
    handles = {text: handle for handle, text in reversed(list(zip(*ax.get_legend_handles_labels(), strict=True)))}
    order = [text for text in ("stable", "unstable", *(mark[0] for mark in marks.values())) if text in handles]
    ax.legend([handles[text] for text in order], order, frameon=False, fontsize="small")
    return ax


def _draw_branch(ax: Axes, branch: Branch, centre: np.ndarray, direction: np.ndarray) -> None:
    """Its stable parts as a solid line, its unstable ones dashed, where there are any."""
    parameter, height, *lines = curves(branch, centre, direction)
    for drawn, style, colour, name in zip(lines, ("-", "--"), (_INK, "#888888"), ("stable", "unstable"), strict=True):
        if not drawn.any():
            continue
        ax.plot(
            np.where(drawn, parameter, np.nan),
            np.where(drawn, height, np.nan),
            style,
            color=colour,
            linewidth=1.6,
            label=name,
        )


def eigenvalues(
    values: Any, ax: Axes | None = None, *, color_by: Any = None, label: str = "", multipliers: bool = False
) -> Axes:
    """Eigenvalues in the complex plane: (n,), or (k, n) with one colour per row, by `color_by` (k,) on a log scale.

    `multipliers`: whether they are a map's, whose border of stability is the unit circle.
    """
    ax = _axes(ax)
    values = np.asarray(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"values must have shape (n,) or (k, n), got {values.shape}")
    if multipliers:
        turn = np.linspace(0, 2 * np.pi, 361)
        ax.plot(np.cos(turn), np.sin(turn), color="#AAAAAA", linewidth=0.8)
        ax.set_aspect("equal")
    else:
        ax.axvline(0, color="#AAAAAA", linewidth=0.8)
    if color_by is None:
        ax.plot(values.real.ravel(), values.imag.ravel(), ".", color=_INK)
    else:
        colours = np.repeat(np.asarray(color_by)[:, None], values.shape[1], axis=1)
        dots = ax.scatter(values.real, values.imag, c=colours, s=9, cmap="viridis", norm="log", linewidths=0)
        bar = ax.figure.colorbar(dots, ax=ax, pad=0.02)
        bar.set_label(label)
    ax.set_xlabel("Re m" if multipliers else r"Re $\lambda$ (1/time)")
    ax.set_ylabel("Im m" if multipliers else r"Im $\lambda$ (rad/time)")
    return ax


def spectrum(values: Spectrum | Any, ax: Axes | None = None) -> Axes:
    """The eigenvalues of a kernel in descending order on a log scale, with the floor below which they are noise."""
    ax = _axes(ax)
    floor = None
    if isinstance(values, Spectrum):
        floor = values.floor * float(values.eigenvalues[0])
        values = values.eigenvalues
    shown = np.asarray(values)
    ax.semilogy(np.arange(1, shown.size + 1), np.where(shown > 0, shown, np.nan), ".-", color=_INK, linewidth=0.8)
    if floor is not None and floor > 0:
        ax.axhline(floor, color=_ACCENT, linestyle=":", label="rounding floor")
        ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("mode")
    ax.set_ylabel("kernel eigenvalue")
    return ax


def kernel(matrix: Any, ax: Axes | None = None, *, ts: Any = None, n_batch: int = 1) -> Axes:
    """A kernel (rows, rows) as a picture, on a symmetric colour scale.

    With the save times `ts` (T,) over time: `K(t, t')` summed over coordinates, and averaged over `n_batch` inputs.
    """
    shown = np.asarray(as_array(matrix, "matrix", ("rows", "others")))
    times = None if ts is None else np.asarray(as_array(ts, "ts", ("T",)))
    if times is not None:
        n_batch = as_count(n_batch, "n_batch")
        count = n_batch * times.size
        if shown.shape[0] != shown.shape[1] or shown.shape[0] % count:
            raise ValueError(f"matrix must be square, with n_batch T = {count} times n rows, got {shown.shape}")
        split = shown.reshape(2 * (n_batch, times.size, shown.shape[0] // count))
        shown = np.einsum("btibsi->ts", split) / n_batch
    ax = _axes(ax)
    limit = float(np.abs(shown).max()) or 1.0
    how: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    if times is None:
        image = ax.imshow(shown, interpolation="nearest", **how)
    else:
        image = ax.pcolormesh(times, times, shown, shading="nearest", rasterized=True, **how)
        ax.set_aspect("equal")
    ax.figure.colorbar(image, ax=ax, label="K" if times is None else "K(t, t')")
    ax.set_xlabel("row (input, time, coordinate)" if times is None else "time t'")
    ax.set_ylabel("row (input, time, coordinate)" if times is None else "time t")
    return ax


def collapse(store: Store) -> np.ndarray:
    """The whole story of a sweep, seven panels: the bifurcation diagram; the Jacobian's eigenvalues, towards the axis and in
    the complex plane (a map: growth exponents, and multipliers); the steady-state kernel's spectrum with measured and
    predicted slope; the trajectory kernel's effective rank and participation ratio beside the steady-state condition
    number; its largest eigenvalue, measured and as the master law predicts it from the critical mode alone; and what of
    it belongs to that mode. Where blocks of theta were measured, two more: the largest eigenvalue of each block's part of
    the trajectory kernel, and its participation ratio beside what the drive of the critical mode predicts.

    Returns the axes, (7,) or (9,). Raises `StoreError` where nothing was measured yet.
    """
    data, branch = store.arrays(), store.branch()
    if branch is None or not (data["status"] == DONE).any():
        raise StoreError(f"{store.path} holds no measured point to draw yet")
    kept = data["status"] == DONE
    data = {name: values[kept] for name, values in data.items()}
    distance = data["distance"]
    event = store.bifurcation()
    blocks, dt = store.plan()["blocks"], store.plan()["dt"]
    figure = plt.figure(figsize=(10, 17.5 if blocks else 14), layout="constrained")
    grid = figure.add_gridspec(4 + bool(blocks), 2, height_ratios=(1, 1, 1.1, 1.1, 1.1)[: 4 + bool(blocks)])
    top = figure.add_subplot(grid[0, :])
    left, plane = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    lower, ranks = figure.add_subplot(grid[2, 0]), figure.add_subplot(grid[2, 1])

    bifurcation_diagram(branch, top)
    centre, direction = direction_of((branch,))
    heights = (data["x_star"] - centre) @ direction
    top.plot(data["parameter"], heights, ".", color="#009E73", markersize=5, label="measured", zorder=4)
    top.legend(frameon=False, fontsize="small", ncols=6, loc="lower center")
    shown = np.concatenate([data["parameter"], [other.parameter for other in branch.bifurcations]])
    window = shown.min() - 0.1 * np.ptp(shown), shown.max() + 0.1 * np.ptp(shown)
    inside = (branch.x[(branch.parameter >= window[0]) & (branch.parameter <= window[1])] - centre) @ direction
    # Close to the bifurcation there may be no point of the branch.
    inside = np.concatenate([heights, inside])
    extent = np.ptp(inside)
    top.set_xlim(*window)
    top.set_ylim(*(inside.min() - 0.3 * extent, inside.max() + 0.1 * extent) if extent > 0 else (-1, 1))
    top.set_title(f"{_MARKS[event.kind][0]} at $p_c$ = {event.parameter:.8g}", fontsize="medium")

    values = data["jacobian_eigenvalues"]
    decay = -values.real if dt is None else -np.log(np.abs(values)) / dt
    left.loglog(distance, np.where(decay[:, 1:] > 0, decay[:, 1:], np.nan), color="#BBBBBB", linewidth=0.7)
    left.loglog(distance, decay[:, 0], ".-", color=_ACCENT, label="rightmost" if dt is None else "largest multiplier m")
    if decay.shape[1] > 1:
        left.plot([], [], color="#BBBBBB", label="others")
    left.set_ylabel(r"$-$Re $\lambda$ (1/time)" if dt is None else r"$-\log |m| / dt$ (1/time)")
    left.legend(frameon=False, fontsize="small")
    eigenvalues(values, plane, color_by=distance, label=r"distance $|p - p_c|$", multipliers=dt is not None)

    steady = data["steady_state_eigenvalues"]
    lower.loglog(distance, np.where(steady[:, 1:] > 0, steady[:, 1:], np.nan), color="#BBBBBB", linewidth=0.7)
    decades = fitted_decades(distance)
    slope = measured_exponent(distance, steady[:, 0], decades)
    label = f"largest, slope {slope:.3f} over the last {decades:.2g} decades"
    lower.loglog(distance, steady[:, 0], ".-", color=_ACCENT, label=label)
    if steady.shape[1] > 1:
        lower.plot([], [], color="#BBBBBB", label="others")
    predicted = STEADY_STATE_EXPONENT[event.kind]
    lower.loglog(
        distance,
        4 * steady[0, 0] * (distance / distance[0]) ** predicted,
        ":",
        color=_INK,
        label=f"predicted slope {predicted:g} (shifted up)",
    )
    # Room for the legend above the end that is far from the bifurcation.
    lower.set_ylim(top=max(lower.get_ylim()[1], 1e3 * steady[-1, 0]))
    lower.set_ylabel("steady-state NTK eigenvalue")
    lower.legend(frameon=False, fontsize="small", loc="upper left")

    ranks.semilogx(distance, data["effective_rank"], ".-", color="#0072B2", label="effective rank (trajectory NTK)")
    ranks.semilogx(
        distance, data["participation_ratio"], ".--", color="#009E73", label="participation ratio (trajectory NTK)"
    )
    ranks.set_ylabel("effective number of modes")
    highest = np.nanmax(data["effective_rank"], initial=1.0)
    ranks.set_ylim(0, 1.35 * highest)
    condition = ranks.twinx()
    condition.loglog(distance, data["condition_number"], ".:", color="#CC79A7", label="condition number (steady-state NTK)")
    finite = data["condition_number"][np.isfinite(data["condition_number"])]
    condition.set_ylim(top=1e4 * finite.max(initial=1.0))
    # One that stays the same is not to lie on the axis.
    condition.set_ylim(bottom=min(condition.get_ylim()[0], 0.5 * finite.min(initial=1e4 * finite.max(initial=1.0))))
    condition.set_ylabel("condition number", color="#CC79A7")
    condition.spines["top"].set_visible(False)
    handles = [*ranks.get_lines(), *condition.get_lines()]
    ranks.legend(handles, [str(line.get_label()) for line in handles], frameon=False, fontsize="small", loc="upper center")
    channel, parts = figure.add_subplot(grid[3, 0]), figure.add_subplot(grid[3, 1])
    _channel(data, channel, parts)
    panels = [top, left, plane, lower, ranks, channel, parts]
    if blocks:
        growth, modes = figure.add_subplot(grid[4, 0]), figure.add_subplot(grid[4, 1])
        _blocks(data, blocks, CHANNEL_MODES[event.kind], growth, modes)
        panels += [growth, modes]
    for ax in (left, *panels[3:]):
        ax.set_xlabel(r"distance from the bifurcation $|p - p_c|$")
        ax.xaxis.set_major_locator(LogLocator(numticks=12))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.invert_xaxis()
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
    return np.array(panels)


# What a phase diagram shows: the variable, its name, and whether its scale is logarithmic.
_PHASES = (
    ("growth", r"Re $\lambda_1$ of the Jacobian (1/time)", False),
    ("condition_number", "condition number, steady-state NTK", True),
    ("top", r"largest eigenvalue, trajectory NTK (state$^2$ time)", True),
    ("participation_ratio", "participation ratio, trajectory NTK", False),
)


def phase_diagram(store: Store, x: str | None = None, y: str | None = None) -> np.ndarray:
    """A grid's results over two of its axes, four panels: growth rate of the Jacobian's rightmost mode, with the border of
    stability; condition number of the steady-state kernel; largest eigenvalue and participation ratio of the trajectory
    kernel. Over the other axes the median is taken; where all points failed there is a gap. One axis gives lines.

    **Arguments:** `x`, `y`: names of axes; default the longest, and the next longest but one called `seed`.

    Returns the axes, (4,). Raises `ValueError` for an unknown axis, `StoreError` where nothing was measured yet.
    """
    axes, data = store.axes(), store.arrays()
    if not axes:
        raise ValueError(f"store must hold a grid, {store.path} holds a sweep towards a bifurcation: draw its collapse")
    if not (data["status"] == DONE).any():
        raise StoreError(f"{store.path} holds no measured point to draw yet")
    for name, value in (("x", x), ("y", y)):
        if value is not None and value not in axes:
            raise ValueError(f"{name} must be one of the axes {', '.join(axes)}, got {value!r}")
    ranked = sorted(axes, key=lambda name: (name == "seed", -len(axes[name])))
    x = next(name for name in ranked if name != y) if x is None else x
    y = next((name for name in ranked if name != x), None) if y is None else y
    if x == y:
        raise ValueError(f"x and y must be two axes, got {x!r} twice")
    data["growth"], data["top"] = data["jacobian_eigenvalues"][:, 0].real, data["ntk_eigenvalues"][:, 0]
    label = "growth of the Jacobian's largest multiplier, $|m|$ - 1"
    names = list(axes)
    kept = [names.index(name) for name in (y, x) if name is not None]
    figure, panels = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for ax, (name, title, logarithmic) in zip(panels.ravel(), _PHASES, strict=True):
        if name == "growth" and store.plan()["dt"] is not None:
            data[name], title = np.abs(data["jacobian_eigenvalues"][:, 0]) - 1, label
        shown = np.moveaxis(data[name].reshape(store.shape()), kept, range(len(kept)))
        shown = shown.reshape(*shown.shape[: len(kept)], -1)
        # Where all points failed the median of nothing is not to be warned of.
        some = np.asarray(np.isfinite(shown).any(axis=-1))
        values = np.full(some.shape, np.nan)
        values[some] = np.nanmedian(np.where(np.isfinite(shown[some]), shown[some], np.nan), axis=-1)
        across, where = _places(axes[x])
        if y is None:
            spread = np.where(some[:, None], shown, np.nan)
            ax.plot(across, spread, ".", color="#BBBBBB", markersize=3)
            ax.plot(across, values, ".-", color=_INK)
            ax.set_ylabel(title, fontsize="small")
            if logarithmic:
                ax.set_yscale("log")
        else:
            up, ticks = _places(axes[y])
            how: dict[str, Any] = {"cmap": "viridis", "norm": "log" if logarithmic and some.any() else None}
            if name == "growth":
                limit = np.nanmax(np.abs(values), initial=1e-300)
                how = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            image = ax.pcolormesh(across, up, values, shading="nearest", rasterized=True, **how)
            bar = figure.colorbar(image, ax=ax, pad=0.02)
            bar.set_label(title, fontsize="small")
            if name == "growth" and min(values.shape) > 1 and np.nanmin(values) < 0 < np.nanmax(values):
                ax.contour(across, up, values, [0.0], colors=_INK, linewidths=1.2)
                ax.set_title("line: border of stability", fontsize="small", loc="left")
            ax.set_ylabel(y)
            if ticks is not None:
                ax.set_yticks(up, ticks)
        ax.set_xlabel(x)
        if where is not None:
            ax.set_xticks(across, where)
    if y is None and np.nanmin(data["growth"]) < 0 < np.nanmax(data["growth"]):
        panels[0, 0].axhline(0, color="#AAAAAA", linewidth=0.8)
    others = [name for name in axes if name not in (x, y)]
    over = f"; median over {' and '.join(f'{len(axes[name])} values of {name}' for name in others)}" if others else ""
    figure.suptitle(f"{_plain(store.plan()['title'])}{over}", fontsize="medium")
    return panels.ravel()


def _plain(name: str) -> str:
    """A name as it is drawn: none of it is mathematics."""
    return name.replace("$", r"\$")


def _places(values: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
    """Where an axis's values are drawn: numbers that are evenly spaced at their places, others side by side, with labels."""
    if values.dtype.kind != "U" and (values.size < 3 or np.ptp(np.diff(values)) <= 1e-6 * np.abs(np.diff(values)).max()):
        return values, None if values.size > 12 else [f"{value:.4g}" for value in values]
    return np.arange(values.size), [_plain(str(value)) if values.dtype.kind == "U" else f"{value:.4g}" for value in values]


def _channel(data: dict[str, np.ndarray], growth: Axes, parts: Axes) -> None:
    """The trajectory kernel's largest eigenvalue beside the critical mode's, and what of the kernel belongs to that mode."""
    distance = data["distance"]
    growth.loglog(distance, data["channel_top_eigenvalue"], ".-", color=_INK, label="measured, the whole kernel")
    for name, style in (("fixed point", ":"), ("averaged", "--")):
        shown = np.where(data["channel_method"] == name, data["channel_predicted_top_eigenvalue"], np.nan)
        if np.isfinite(shown).any():
            label = "critical mode alone, master law" + (", rate averaged" if name == "averaged" else "")
            growth.loglog(distance, shown, style, color=_ACCENT, linewidth=2, label=label)
    growth.set_ylabel("largest eigenvalue of the trajectory NTK")
    growth.legend(frameon=False, fontsize="small")
    lines = (
        ("share", "share along the critical direction", "-", "#0072B2"),
        ("oblique_share", "share by the spectral projector", "--", "#E69F00"),
        ("cross_share", "cross terms", ":", "#CC79A7"),
        ("alignment", "alignment in state space", "-.", "#009E73"),
        ("parameter_alignment", "alignment in parameter space", (0, (1, 1)), "#222222"),
    )
    for name, label, style, colour in lines:
        parts.semilogx(distance, data[f"channel_{name}"], linestyle=style, color=colour, label=label)
    parts.axhline(1, color="#DDDDDD", linewidth=0.8, zorder=0)
    parts.set_ylabel("part of the kernel's trace, |cos|")
    parts.legend(frameon=False, fontsize="small")


def _blocks(data: dict[str, np.ndarray], names: list[str], channel: int, growth: Axes, modes: Axes) -> None:
    """What each block of theta does: its largest eigenvalue, and its participation ratio with the predicted one."""
    distance = data["distance"]
    share = data["block_top_share" if channel == 1 else "block_top_two_share"]
    predicted = data["block_channel_participation_ratio"]
    for i, name in enumerate(names):
        style: dict[str, Any] = {"color": _PALETTE[i % len(_PALETTE)], "marker": "osD^vPX"[i % 7], "markersize": 3.5}
        growth.loglog(distance, data["block_eigenvalues"][:, i, 0], label=_plain(name), **style)
        count = "mode" if channel == 1 else "two modes"
        label = f"{_plain(name)}; its top {count} at the end: {share[0, i]:.4f}"
        modes.loglog(distance, data["block_participation_ratio"][:, i], label=label, **style)
        if (predicted[:, i] > 0).any():
            modes.loglog(
                distance,
                np.where(predicted[:, i] > 0, predicted[:, i], np.nan),
                ":",
                color=style["color"],
                label=f"{_plain(name)}, predicted near the point",
            )
    growth.set_ylabel("largest eigenvalue of the block's trajectory NTK")
    growth.legend(frameon=False, fontsize="small")
    modes.set_ylabel("participation ratio of the block's trajectory NTK")
    modes.set_ylim(0.9, 10 ** (1.6 * np.log10(np.nanmax(data["block_participation_ratio"], initial=2.0)) + 0.2))
    modes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20, 50, 100, 200, 500]))
    modes.yaxis.set_major_formatter("{x:g}")
    modes.yaxis.set_minor_locator(NullLocator())
    modes.legend(frameon=False, fontsize="small", loc="upper right")


def _axes(ax: Axes | None) -> Axes:
    return plt.figure(layout="constrained").add_subplot() if ax is None else ax
