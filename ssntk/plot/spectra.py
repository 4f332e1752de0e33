"""Eigenvalues of a Jacobian, and kernels with their eigenvalues."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssntk.errors import as_array, as_count
from ssntk.kernel.spectrum import Spectrum
from ssntk.plot.canvas import INK, RED, axes_or_new, thin
from ssntk.plot.legends import own_legend


def eigenvalues(
    values: Any, ax: Axes | None = None, *, color_by: Any = None, label: str = "", multipliers: bool = False
) -> Axes:
    """Eigenvalues (n,) or (k, n) in the complex plane.

    `color_by` (k,): numbers that give each row a colour, on a logarithmic scale. `multipliers`: whether the eigenvalues are
    multipliers, for maps. The border of stability is then the unit circle.

    **Example:**

    ```python
    ax = ssntk.plot.eigenvalues([-1 + 2j, -1 - 2j, -3.0])
    print(type(ax).__name__)  # Axes
    ```
    """
    ax = axes_or_new(ax)
    values = np.asarray(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"values must have shape (n,) or (k, n), got {values.shape}")
    if multipliers:
        turn = np.linspace(0, 2 * np.pi, 361)
        ax.plot(np.cos(turn), np.sin(turn), color="#AAAAAA", linewidth=thin())
        ax.set_aspect("equal")
    else:
        ax.axvline(0, color="#AAAAAA", linewidth=thin())
    if color_by is None:
        ax.plot(values.real.ravel(), values.imag.ravel(), ".", color=INK)
    else:
        colours = np.repeat(np.asarray(color_by)[:, None], values.shape[1], axis=1)
        dots = ax.scatter(values.real, values.imag, c=colours, s=9, cmap="viridis", norm="log", linewidths=0)
        bar = ax.figure.colorbar(dots, ax=ax, pad=0.02)
        bar.set_label(label)
    ax.set_xlabel("Re m" if multipliers else r"Re $\lambda$ (1/time)")
    ax.set_ylabel("Im m" if multipliers else r"Im $\lambda$ (rad/time)")
    return ax


def spectrum(values: Spectrum | Any, ax: Axes | None = None) -> Axes:
    """The eigenvalues of a kernel in descending order on a log scale, with the floor below which they are noise.

    **Example:**

    ```python
    ax = ssntk.plot.spectrum(ssntk.Spectrum.from_kernel(np.diag([4.0, 2.0, 1.0])))
    print(ax.get_ylabel())  # kernel eigenvalue
    ```
    """
    ax = axes_or_new(ax)
    floor = None
    if isinstance(values, Spectrum):
        floor = values.floor * float(values.eigenvalues[0])
        values = values.eigenvalues
    shown = np.asarray(values)
    ax.semilogy(np.arange(1, shown.size + 1), np.where(shown > 0, shown, np.nan), ".-", color=INK, linewidth=thin())
    if floor is not None and floor > 0:
        ax.axhline(floor, color=RED, linestyle=":", label="rounding floor")
        own_legend(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("mode")
    ax.set_ylabel("kernel eigenvalue")
    return ax


def kernel(matrix: Any, ax: Axes | None = None, *, ts: Any = None, n_batch: int = 1) -> Axes:
    """A kernel (rows, rows) as a picture, on a symmetric colour scale.

    If the save times `ts` (T,) are given, the picture shows `K(t, t')` over time, summed over coordinates and averaged over
    `n_batch` inputs.

    **Example:**

    ```python
    model = ssntk.CTRNN(3, 1, 1, key=jax.random.key(0))
    ts = np.linspace(0.0, 2.0, 5)
    ax = ssntk.plot.kernel(ssntk.ntk(model, ssntk.Probe(ts, np.ones((1, 1)))), ts=ts)
    print(ax.get_xlabel())  # time t'
    ```
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
    ax = axes_or_new(ax)
    limit = float(np.abs(shown).max()) or 1.0
    how: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    if times is None:
        image = ax.imshow(shown, interpolation="nearest", **how)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    else:
        image = ax.pcolormesh(times, times, shown, shading="nearest", rasterized=True, **how)
        ax.set_aspect("equal")
    ax.figure.colorbar(image, ax=ax, label="K" if times is None else "K(t, t')")
    ax.set_xlabel("row (input, time, coordinate)" if times is None else "time t'")
    ax.set_ylabel("row (input, time, coordinate)" if times is None else "time t")
    return ax
