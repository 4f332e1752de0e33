"""Draw the vector field of a model of one or two states, on the line or in the plane."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes

from ssntk.dynamics.fixed_points import FixedPoints
from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.plot.canvas import GREY, INK, ORANGE, PALE, SKY, plt, thin

# The number of points at which the field is computed on a line, and along each axis of a plane; and of arrows for maps.
LINE, GRID, ARROWS = 400, 120, 20


def field_on(model: AbstractStateSpaceModel, x: np.ndarray, u: Any) -> np.ndarray:
    """f (k, n) at states x (k, n); for maps the change in one step."""
    values = np.asarray(_fields(model, jax.device_put(x.astype(dtype_of(model))), u), float)
    return model.clock.unit * values


@eqx.filter_jit
def _fields(model: AbstractStateSpaceModel, x: Array, u: Array) -> Array:
    return jax.vmap(lambda x: field_at(model, x, u))(x)


def draw_line(ax: Axes, fp: FixedPoints, model: AbstractStateSpaceModel | None, u: Any, ends: tuple[float, float]) -> None:
    """Draw f over x, with arrows on the axis that show the direction of motion between the fixed points."""
    ax.axhline(0.0, color=PALE, linestyle="-", linewidth=thin(), zorder=1)
    ax.set_xlabel("state $x$")
    ax.set_xlim(*ends)
    if model is None:
        ax.set_yticks([])
        return
    x = np.linspace(*ends, LINE)
    ax.plot(x, field_on(model, x[:, None], u)[:, 0], "-", color=INK)
    ax.set_ylabel("$F(x) - x$" if isinstance(model, AbstractMap) else "$f(x)$")
    # Draw one arrow in the middle of each piece between two fixed points.
    borders = np.concatenate([[ends[0]], np.sort(fp.x[:, 0]), [ends[1]]])
    middles = (borders[1:] + borders[:-1]) / 2
    ways = np.sign(field_on(model, middles[:, None], u)[:, 0])
    size = 1.2 * plt.rcParams["lines.markersize"]
    for way, marker in ((1, ">"), (-1, "<")):
        ax.plot(middles[ways == way], np.zeros((ways == way).sum()), marker, color=GREY, markersize=size, zorder=2)


def draw_plane(ax: Axes, model: AbstractStateSpaceModel, u: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Draw nullclines, and streamlines for flows or arrows for maps."""
    x, y = (np.linspace(low[i], high[i], GRID) for i in (0, 1))
    field = field_on(model, np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), u).reshape(GRID, GRID, 2)
    field = np.where(np.isfinite(field), field, np.nan)
    if not isinstance(model, AbstractMap):
        # Streamlines show the direction only.
        look: dict[str, Any] = {"color": "#CCCCCC", "linewidth": thin(0.4), "density": 0.9, "arrowsize": 0.7, "zorder": 1}
        ax.streamplot(x, y, *np.moveaxis(field, -1, 0), **look)
    else:
        every = np.linspace(0, GRID - 1, ARROWS).astype(int)
        moves = field[np.ix_(every, every)]
        # The longest arrow is about as long as the spacing of the arrows; the others are in proportion to it.
        longest = np.nanmax(np.abs(moves / (high - low)), initial=0.0) * ARROWS or 1.0
        ax.quiver(
            x[every],
            y[every],
            *np.moveaxis(1.4 * moves / longest, -1, 0),
            angles="xy",
            scale_units="xy",
            scale=1.0,
            color=PALE,
            width=0.003,
            zorder=1,
        )
    for i, (colour, line) in enumerate(((SKY, "--"), (ORANGE, "-."))):
        shown = field[..., i]
        if np.nanmin(shown) < 0 < np.nanmax(shown):
            ax.contour(x, y, shown, [0.0], colors=colour, linestyles=line, linewidths=thin(0.9), zorder=2)
            text = f"nullcline of $x_{i}$" if not isinstance(model, AbstractMap) else f"$x_{i}$ stays"
            ax.plot([], [], color=colour, linestyle=line, linewidth=thin(0.9), label=text)
