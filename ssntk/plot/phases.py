"""A grid's results over two of its axes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ssntk import infinite
from ssntk.critical.distance import CRITICAL, NEAR
from ssntk.models.clock import Continuous, clock_of
from ssntk.plot.canvas import INK, PALE, keep_ticks, plain, plt, thin
from ssntk.plot.styles import style
from ssntk.sweep.record import Listed, listed
from ssntk.sweep.store import DONE, Store, StoreError
from ssntk.sweep.summary import medians, over_axes

# The height of the figure [mm].
HEIGHT = 140.0
# The numbers that a phase diagram shows, by the names that pages have for them.
SHOWN = ("growth", "condition_number", "top", "participation_ratio")

# Names that an axis with the number of units may have.
UNITS = ("n_state", "n", "units")


def phase_diagram(store: Store, x: str | None = None, y: str | None = None, *, theory: Any = False) -> np.ndarray:
    """A grid's results over two of its axes, in four panels.

    The panels show the growth rate of the Jacobian's rightmost mode, with the border of stability; the condition number of
    the steady-state kernel; and the largest eigenvalue and the participation ratio of the trajectory kernel. The median is
    taken over all other axes. If all points at one place failed, there is a gap. If the grid has one axis, the panels show
    lines. The figure is 178 mm wide, with text of 7 pt and more.

    **Arguments:**

    - `x`, `y`: names of axes. Default: the two longest axes; one called `seed` comes last.
    - `theory`: whether the first panel also shows what is expected of random networks at rest, with independent weights: the
      gains at which their stability radius is 0.33 and 0.1 / tau (`ssntk.infinite.gain_at`), the thresholds of
      [`criticality`][], and the gain at which nu = 1, beyond which n units do not resolve the spectrum
      (`ssntk.infinite.resolved`). One of the axes must be called `gain`. The number of units is that of an axis `n_state`,
      `n` or `units`, or else that of the measured networks.

    Returns the axes, (4,). Raises `ValueError` for an unknown axis, and for `theory=True` without an axis `gain` that is
    drawn; `StoreError` if nothing was measured yet.

    **Example:**

    ```python
    def make(gain, bias):
        return ssntk.CTRNN.from_weights(gain * jnp.eye(2), bias=bias * jnp.ones(2))


    grid = ssntk.Grid(make, {"gain": [0.2, 0.5], "bias": [0.0, 0.1]}, probe=ssntk.Probe([0.0, 1.0]))
    store = ssntk.Store("phases")
    ssntk.run(grid, store, progress=False)
    axes = ssntk.plot.phase_diagram(store)
    print(axes.size)  # 4
    ```
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
    if theory and "gain" not in (x, y):
        raise ValueError(f"theory needs an axis called gain among those drawn, got {x} and {y}")
    with style("paper", columns=2, height=HEIGHT):
        panels = _panels(store, axes, data, x, y)
        if theory:
            _expected(panels[0], axes, x, y, int(np.isfinite(data["jacobian_eigenvalues"]).sum(axis=1).max()))
        return panels


def _panels(store: Store, axes: dict[str, np.ndarray], data: dict[str, np.ndarray], x: str, y: str | None) -> np.ndarray:
    plan, names = store.plan(), list(axes)
    kept = [names.index(name) for name in (y, x) if name is not None]
    figure, panels = plt.subplots(2, 2)
    numbers = listed(plan, "overview")
    growth = np.zeros(0)
    for ax, name in zip(panels.ravel(), SHOWN, strict=True):
        one = numbers[name]
        values, title, logarithmic = one.of(data[one.name]), _title(one), one.variable.log
        if name == "growth":
            if clock_of(plan["dt"]) != Continuous():
                values, title = np.abs(data[one.name][:, 0]) - 1, "growth of the Jacobian's largest multiplier, $|m|$ - 1"
            growth = values
        shown = over_axes(values, store.shape(), kept)
        values = medians(shown)
        some = np.isfinite(values)
        across, where = _places(axes[x])
        if y is None:
            spread = np.where(some[:, None], shown, np.nan)
            ax.plot(across, spread, ".", color=PALE, markersize=2)
            ax.plot(across, values, ".-", color=INK)
            ax.set_ylabel(title)
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
            bar.set_label(title)
            if name == "growth" and min(values.shape) > 1 and np.nanmin(values) < 0 < np.nanmax(values):
                ax.contour(across, up, values, [0.0], colors=INK, linewidths=thin(1.0))
                ax.set_title("line: border of stability", loc="left")
            ax.set_ylabel(y)
            if ticks is not None:
                ax.set_yticks(up, ticks)
        ax.set_xlabel(x)
        if where is not None:
            ax.set_xticks(across, where)
    if y is None and np.nanmin(growth) < 0 < np.nanmax(growth):
        panels[0, 0].axhline(0, color=PALE, linestyle="-", linewidth=thin())
    others = [name for name in axes if name not in (x, y)]
    over = f"; median over {' and '.join(f'{len(axes[name])} values of {name}' for name in others)}" if others else ""
    figure.suptitle(f"{plain(plan['title'])}{over}")
    for ax in figure.axes:
        keep_ticks(ax)
    return panels.ravel()


def _expected(ax: Axes, axes: dict[str, np.ndarray], x: str, y: str | None, n: int) -> None:
    """The gains at which random networks at rest have the radii that verdicts ask for, and that at which nu is one.

    **Arguments:** `n`: the number of units, unless one of the two axes has it.
    """
    other = y if x == "gain" else x
    along = None if other is None else _places(axes[other])[0]
    units = axes[other] if other in UNITS else np.full(1 if along is None else len(along), n)
    gains = axes["gain"]
    expected = {f"$r$ = {level}/τ": infinite.gain_at(level, units) for level in (NEAR, CRITICAL)}
    expected[r"$\nu$ = 1"] = np.sqrt(1 - np.asarray(units, float) ** -0.5)
    for (name, at), dashes in zip(expected.items(), ((4.0, 2.0), (1.5, 1.5), (6.0, 1.5, 1.5, 1.5)), strict=True):
        # Where the axis is drawn by the numbers of its entries, gains between entries lie between these numbers.
        across = np.interp(np.asarray(at, float), gains, _places(gains)[0], np.nan, np.nan)
        how: dict[str, Any] = {"color": INK, "linewidth": thin(1.2), "dashes": dashes, "label": name}
        if along is None:
            ax.axvline(float(across[0]), **how)
            continue
        # One piece for each cell of the other axis, with gaps between.
        edges = (along[1:] + along[:-1]) / 2
        low = np.concatenate([[along[0] - (edges[0] - along[0] if len(edges) else 0.5)], edges])
        high = np.concatenate([edges, [along[-1] + (along[-1] - edges[-1] if len(edges) else 0.5)]])
        points = np.stack([across, across, np.full_like(across, np.nan)], axis=1).ravel()
        cells = np.stack([low, high, np.full_like(low, np.nan)], axis=1).ravel()
        ax.plot(*((points, cells) if x == "gain" else (cells, points)), **how)
    ax.set_title("", loc="left")
    (border,) = ax.plot([], [], "-", color=INK, linewidth=thin(1.0), label="border of stability")
    handles = [border, *(line for line in ax.get_lines() if line is not border)]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
    ax.legend(handles=handles, ncols=2, handlelength=2.2, columnspacing=1.0, **place)


def _title(one: Listed) -> str:
    """The label of a number with its units, as pictures have it: letters with indices in TeX, in two lines if it is long."""
    label = one.label.replace("λ₁", r"$\lambda_1$")
    label = label[0].lower() + label[1:] if label[1:2].islower() and not label.startswith("Re ") else label
    units = one.variable.units.replace("^2", "$^2$").replace(" / ", "/")
    between = "\n" if len(label) > 32 else " "
    return label if units == "1" else f"{label}{between}({units})"


def _places(values: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
    """The places at which an axis's values are drawn, and their labels; `None` for labels of matplotlib's own.

    Evenly spaced numbers are drawn at their values. Other values are drawn side by side.
    """
    if values.dtype.kind != "U" and (values.size < 3 or np.ptp(np.diff(values)) <= 1e-6 * np.abs(np.diff(values)).max()):
        return values, None if values.size > 12 else [f"{value:.4g}" for value in values]
    return np.arange(values.size), [plain(str(value)) if values.dtype.kind == "U" else f"{value:.4g}" for value in values]
