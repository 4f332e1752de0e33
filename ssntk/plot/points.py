"""Draw fixed points by their stability, with the directions along which states leave them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ssntk.dynamics.fixed_points import FixedPoints, constant_input
from ssntk.dynamics.scales import typical_sizes
from ssntk.errors import as_array, as_instance
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model
from ssntk.plot.canvas import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, axes_or_new, plt, thin
from ssntk.plot.legends import legend_above, own_legend
from ssntk.plot.portrait import draw_line, draw_plane
from ssntk.plot.projected import Projection, own_axes, principal_axes

# (marker, colour, face) by the number of unstable directions. Colours differ in lightness too. Stable points are filled.
LOOKS = (("o", INK, INK), ("D", RED, "white"), ("s", BLUE, "white"), ("^", GREEN, "white"), ("v", PINK, "white"))
BORDER = ("o", ORANGE, "white")
# The length of the line for an unstable direction, and the margin of the picture, as fractions of its extent.
LENGTH, MARGIN = 0.16, 0.15


def fixed_points(
    fp: Any,
    model: Any = None,
    *,
    trajectories: Any = None,
    dims: Any = 2,
    u: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw fixed points by the number of their unstable directions, which are lines, with trajectories around them.

    - n > 2: the axes are the first principal components of the points and the trajectories together. The labels of the axes
      report the share of the variance that each explains. A line is an eigenvector; it is short if the eigenvector points
      out of the picture. An unstable complex pair has two lines, which span its plane.
    - n = 2: the axes are the states. With a `model`, the picture also shows its nullclines, on which one state does not
      change, and its vector field as streamlines. For maps, arrows point towards the next state; their lengths are scaled.
    - n = 1: the axis is the state. With a `model`, the picture also shows f(x) (for maps the change in one step), and the
      direction of motion.

    **Arguments:**

    - `fp`: the result of [`find_fixed_points`][].
    - `model`: the model that the fixed points belong to. It is needed to draw the vector field. `u`: (d,) its constant
      input; default zero.
    - `trajectories`: states (B, T, n) or (T, n), as [`simulate`][] returns them.
    - `dims`: the dimensions of the picture, 2 or 3, at most n. With 3, `ax` must have `projection="3d"`.

    Raises `ValueError` for arguments that do not fit. If there is no fixed point, the title or the legend says so.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p * (x - x**3), 1.0, 2)
    ax = ssntk.plot.fixed_points(ssntk.find_fixed_points(model), model)
    print(ax.get_xlabel())  # state 0
    ```
    """
    as_instance(fp, "fp", FixedPoints)
    n = fp.x.shape[1]
    if isinstance(dims, bool) or not isinstance(dims, (int, np.integer)) or dims not in (2, 3) or (dims == 3 and n < 3):
        raise ValueError(f"dims must be 2{' or 3' if n > 2 else ''} for states of {n} dimensions, got {dims!r}")
    paths = np.zeros((0, 0, n))
    if trajectories is not None:
        paths = np.asarray(as_array(trajectories, "trajectories"))
        if paths.ndim not in (2, 3) or paths.shape[-1] != n:
            raise ValueError(f"trajectories must have shape (B, T, {n}) or (T, {n}), got {paths.shape}")
        paths = paths.reshape(-1, *paths.shape[-2:])
    if model is not None:
        check_model(model)
        check_autonomous(model)
        if model.n_state != n:
            raise ValueError(f"model must have the {n} states of the fixed points, got {model.n_state}")
        u = constant_input(model, u)
    if ax is not None and dims == 3 and not hasattr(ax, "get_zlim"):
        raise ValueError('ax must have projection="3d" for dims=3')
    ax = axes_or_new(ax, **({"projection": "3d"} if dims == 3 else {}))
    seen = np.concatenate([fp.x, paths.reshape(-1, n)])
    if not len(seen):
        ax.set_title("no fixed point was found")
        return ax
    projection = own_axes(n) if n <= 2 else principal_axes(seen, int(dims))
    low, high = _window(projection(seen), fp, model, u)
    if n == 1:
        draw_line(ax, fp, model, u, (float(low[0]), float(high[0])))
    else:
        if model is not None and n == 2:
            draw_plane(ax, model, u, low, high)
        for path in projection(paths):
            ax.plot(*path.T, "-", color=GREY, linewidth=thin(0.4), zorder=1.5)
        if len(paths):
            ax.plot(*([] for _ in projection.labels), "-", color=GREY, linewidth=thin(0.6), label="trajectories")
        _directions(ax, fp, projection, high - low)
        for setter, ends, label in zip(("x", "y", "z"), zip(low, high, strict=True), projection.labels, strict=False):
            getattr(ax, f"set_{setter}label")(label)
            getattr(ax, f"set_{setter}lim")(*ends)
        if dims == 3:
            # The layout does not see the labels, which lie outside of the box: make room for them.
            ax.set_box_aspect(None, zoom=0.72)  # pyright: ignore
    _points(ax, fp, projection)
    if not len(fp):
        ax.plot(*([] for _ in range(max(len(projection.labels), 2))), " ", label="no fixed point was found")
    # In a plane the legend is above the axes, since streamlines, arrows and trajectories may be everywhere.
    (own_legend if n == 1 else legend_above)(ax)
    return ax


def _window(
    shown: np.ndarray, fp: FixedPoints, model: AbstractStateSpaceModel | None, u: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper limits (dims,) of the axes, with a margin around what is `shown` (k, dims)."""
    low, high = shown.min(axis=0), shown.max(axis=0)
    extent = high - low
    if not (extent > 0).all():
        # If everything has one coordinate along an axis, its width is the size of the states, or else that of the others.
        sizes = np.abs(shown).max(axis=0)
        if model is not None and fp.x.shape[1] <= 2:
            sizes = np.maximum(sizes, np.asarray(typical_sizes(model, u, fp.x[0] if len(fp) else shown[0])))
        sizes = np.where(sizes > 0, sizes, extent.max() or 1.0)
        extent = np.where(extent > 0, extent, 2 * sizes)
    middle = (low + high) / 2
    return middle - (0.5 + MARGIN) * extent, middle + (0.5 + MARGIN) * extent


def _directions(ax: Axes, fp: FixedPoints, projection: Projection, extent: np.ndarray) -> None:
    """Draw each unstable direction of each point as a line through the point."""
    own = fp.x.shape[1] == 2
    for i, count in enumerate(fp.n_unstable):
        colour = LOOKS[min(int(count), len(LOOKS) - 1)][1]
        for vector, value in zip(fp.right[i].T[: int(count)], fp.eigenvalues[i], strict=False):
            # A pair spans a plane: draw the real and the imaginary part of its eigenvector.
            along = vector.imag if value.imag < 0 else vector.real
            along = along / (np.linalg.norm(along) or 1.0) @ projection.axes.T
            # Two states may have different units, so that a line has the same length in the picture whatever its direction.
            # Principal components share their units, and a line is shorter if it points out of the picture.
            step = along * extent.max()
            reach = np.abs(step / extent).max()
            step = step / (reach if own and reach > 0 else max(reach, 1.0))
            ends = projection(fp.x[i]) + 0.5 * LENGTH * np.array([[-1.0], [1.0]]) * step
            ax.plot(*ends.T, "-", color=colour, linewidth=thin(0.8), zorder=2.2)


def _points(ax: Axes, fp: FixedPoints, projection: Projection) -> None:
    """Draw the points. The legend counts each kind."""
    counts = np.minimum(fp.n_unstable, len(LOOKS) - 1)
    kinds = [(fp.stable, LOOKS[0], "stable")]
    kinds += [(~fp.stable & (counts == 0), BORDER, "on the border of stability")]
    for count in range(1, len(LOOKS)):
        more = f"{count} or more" if count == len(LOOKS) - 1 else str(count)
        kinds.append((counts == count, LOOKS[count], f"{more} unstable direction{'s' if count > 1 else ''}"))
    for chosen, (marker, colour, face), name in kinds:
        if not chosen.any():
            continue
        places = projection(fp.x[chosen])
        places = np.column_stack([places, np.zeros(len(places))]) if places.shape[1] == 1 else places
        ax.plot(
            *places.T,
            linestyle="",
            marker=marker,
            color=colour,
            markerfacecolor=face,
            markeredgewidth=thin(0.8),
            markersize=plt.rcParams["lines.markersize"],
            label=f"{name} ({chosen.sum()})",
            zorder=3,
        )
