"""Draw what a monitor recorded of a training run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssntk.errors import as_array
from ssntk.learning.monitor import MonitorRecord, NTKMonitor
from ssntk.plot.canvas import BLUE, GREEN, GREY, INK, ORANGE, RED, keep_ticks, plt, small, thin
from ssntk.plot.legends import own_legend
from ssntk.plot.styles import INCH

# The number of rows of event labels above the first panel. An event whose label fits into no row has only its line.
ROWS = 3


def monitor(monitor: Any, loss: Any = None) -> np.ndarray:
    """Draw what [`NTKMonitor`][] recorded of a training run, in panels over the training steps.

    From top to bottom, the panels show:

    - the loss, if it is known;
    - the learning rate that was used, and the largest one that the kernel allows;
    - the growth exponent nearest to the edge of stability: of the stable points, and of the saddles if these are recorded
      separately. Rings mark records whose verdict is near-critical or critical;
    - how many fixed points are known, and how many of them are stable.

    Vertical lines mark records with events. The label of a line says by how much the number of known fixed points changed,
    or "stability" if the number did not change.

    **Arguments:**

    - `monitor`: an `NTKMonitor`, or a sequence of its [`MonitorRecord`][]s.
    - `loss`: `(steps, values)`, each (k,); or values (k,) only, which are placed at the steps of the records if there are
      as many, else at the steps 0 to k - 1. Default: the losses in the records, if there are any.

    Returns the axes, (3,), or (4,) with a loss. Raises `ValueError` for arguments that do not fit, or if there is no
    record.

    **Example:**

    ```python
    monitor = ssntk.NTKMonitor(ssntk.Probe(jnp.linspace(0.0, 5.0, 6)), every=1)
    monitor.update(0, ssntk.CTRNN(3, 0, 1, key=jax.random.key(0)), learning_rate=0.1)
    print(len(ssntk.plot.monitor(monitor, loss=([0], [1.0]))))  # 4
    ```
    """
    records = _records(monitor)
    steps = np.array([record.step for record in records])
    losses = _losses(loss, steps) if loss is not None else (steps, _over(records, "loss"))
    losses = None if loss is None and not np.isfinite(losses[1]).any() else losses
    count = 3 + (losses is not None)
    width = plt.rcParams["figure.figsize"][0]
    # Panels have the same height, whatever their number. Large text needs higher panels.
    height = count * max(34 / INCH, 10.5 * plt.rcParams["font.size"] / 72)
    figure, axes = plt.subplots(count, 1, figsize=(width, height), sharex=True, layout="constrained")
    if losses is not None:
        axes[0].plot(*losses, "-", color=INK, linewidth=thin(0.7))
        axes[0].set_ylabel("loss")
        _log(axes[0], losses[1])
    rates, growth, points = axes[-3:]
    _rates(rates, steps, records)
    _growth(growth, steps, records)
    _points(points, steps, records)
    axes[-1].set_xlabel("training step")
    _events(axes, records)
    for ax in axes:
        own_legend(ax)
        keep_ticks(ax)
    figure.align_ylabels(axes)
    return axes


def _records(monitor: object) -> list[MonitorRecord]:
    records = monitor.records if isinstance(monitor, NTKMonitor) else monitor
    if not isinstance(records, Sequence) or not all(isinstance(record, MonitorRecord) for record in records):
        raise ValueError(f"monitor must be an ssntk.NTKMonitor or a sequence of its records, got {type(monitor).__name__}")
    if not records:
        raise ValueError("monitor must hold at least one record, got none")
    return sorted(records, key=lambda record: record.step)


def _losses(loss: object, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The argument `loss` as (steps, values)."""
    if isinstance(loss, tuple) and len(loss) == 2 and np.ndim(loss[0]) == 1:
        at, values = (np.asarray(as_array(part, "loss", ("k",), finite=False)) for part in loss)
        if len(at) != len(values):
            raise ValueError(f"loss must be as many steps as values, got {len(at)} and {len(values)}")
        return at, values
    values = np.asarray(as_array(loss, "loss", ("k",), finite=False))
    return (steps if len(values) == len(steps) else np.arange(len(values))), values


def _over(records: Sequence[MonitorRecord], name: str, default: float | int | str = np.nan) -> np.ndarray:
    """A field of all records; `default` for records of an earlier version, which lacks the field."""
    return np.array([getattr(record, name, default) for record in records])


def _log(ax: Axes, *values: np.ndarray) -> None:
    """Use a logarithmic scale if all values are positive."""
    shown = np.concatenate([part[np.isfinite(part)] for part in values])
    if shown.size and shown.min() > 0:
        ax.set_yscale("log")


def _rates(ax: Axes, steps: np.ndarray, records: Sequence[MonitorRecord]) -> None:
    largest, used = _over(records, "max_learning_rate"), _over(records, "learning_rate")
    ax.plot(steps, np.where(np.isfinite(largest), largest, np.nan), ".-", color=BLUE, label="largest stable")
    if np.isfinite(used).any():
        ax.plot(steps, used, "--", color=INK, label="used")
        fast = used > largest
        if fast.any():
            ax.plot(steps[fast], used[fast], "x", color=RED, label="too large")
    ax.set_ylabel("learning rate")
    _log(ax, largest, used)


def _growth(ax: Axes, steps: np.ndarray, records: Sequence[MonitorRecord]) -> None:
    ax.axhline(0.0, color=GREY, linestyle="-", linewidth=thin(0.4), zorder=1)
    nearest = _over(records, "critical_eigenvalue").real
    saddles = _over(records, "saddle_eigenvalue").real
    apart = np.isfinite(saddles).any()
    ax.plot(steps, nearest, ".-", color=INK, label="stable points" if apart else "nearest to the edge")
    if apart:
        ax.plot(steps, saddles, ".:", color=ORANGE, label="saddles")
    near = np.isin(_over(records, "verdict", "unknown"), ("near-critical", "critical"))
    if near.any():
        size = 1.3 * plt.rcParams["lines.markersize"]
        ax.plot(steps[near], nearest[near], "o", color=RED, markerfacecolor="none", markersize=size, label="near-critical")
    ax.set_ylabel("Re $\\lambda$\n(1/time)")


def _points(ax: Axes, steps: np.ndarray, records: Sequence[MonitorRecord]) -> None:
    for name, line, colour, label in (("n_fixed_points", ".-", GREY, "known"), ("n_stable", ".--", GREEN, "stable")):
        ax.plot(steps, _over(records, name, 0), line, color=colour, drawstyle="steps-post", label=label)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("fixed points")


def _events(axes: np.ndarray, records: Sequence[MonitorRecord]) -> None:
    """Draw a line through all panels for each record with events, and above it how the number of fixed points changed."""
    marked = [(old, now) for old, now in zip((records[0], *records), records, strict=False) if now.events]
    for _, now in marked:
        for ax in axes:
            ax.axvline(now.step, color=RED, linestyle="-", linewidth=thin(0.35), alpha=0.6, zorder=0.5)
    top, taken = axes[0], []
    # Matplotlib computes the limits only when they are read.
    top.get_xlim()
    for old, now in marked:
        change = now.n_fixed_points - old.n_fixed_points
        label = f"{change:+d}".replace("-", "\N{MINUS SIGN}") if change else "stability"
        text = top.annotate(
            label,
            (now.step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=small(),
            color=RED,
            annotation_clip=False,
        )
        box, gap = text.get_window_extent(), 0.5 * small() * top.figure.dpi / 72
        # Take the lowest row in which the label touches no other.
        row = next((row for row in range(ROWS) if all(row != other or box.x0 > end for other, end in taken)), None)
        if row is None:
            text.remove()
            continue
        text.xyann = (0, 1 + row * 1.25 * small())
        taken.append((row, box.x1 + gap))
