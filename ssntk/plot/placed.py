"""Place short texts among lines so that they cover nothing."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from ssntk.plot.canvas import INK

# The directions from a point in which its label may lie, and its distances from the marker, in sizes of the font.
WAYS = [(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
FAR = (0.2, 0.5, 1.0, 1.8, 2.8)
# What a label costs: for each point of print of a line that it covers, if it covers a text or a marker, if it leaves the
# axes, and for each point of its distance from its marker, since far from it a label seems to belong to something else.
LINE, COVERS, LEAVES, AWAY = 2.0, 500.0, 1000.0, 5.0
# The height of capital letters, in sizes of the font.
CAPITALS = 0.75
# The width of the rim that keeps a text legible on a line, in points of print.
RIM = 1.6
# The distance of the places at which lines are looked at, in points of print.
FINE = 1.0


class Placed:
    """The places in axes that are taken, in points of print: lines (k, 2) and boxes (left, bottom, right, top)."""

    def __init__(self, ax: Axes, lines: np.ndarray, font: float):
        self.ax, self.lines, self.font, self.boxes = ax, lines, font, []
        root: Any = ax.get_figure(root=True)
        self.points = 72 / root.dpi
        box = ax.get_window_extent()
        self.frame = np.array([box.x0, box.y0, box.x1, box.y1]) * self.points

    @classmethod
    def of(cls, ax: Axes, lines: Sequence[np.ndarray], font: float) -> "Placed":
        """The places among lines, (k, 2) each in the units of the data. The layout of the figure is made first."""
        root: Any = ax.get_figure(root=True)
        root.draw_without_rendering()
        made = cls(ax, np.zeros((0, 2)), font)
        dense = []
        for line in lines:
            way = made.at(line)
            for one, other in itertools.pairwise(way):
                many = int(np.clip(np.abs(other - one).max() / FINE, 1, 2000)) + 1
                dense.append(np.linspace(one, other, many))
        made.lines = np.concatenate(dense) if dense else made.lines
        return made

    def at(self, places: Any) -> np.ndarray:
        """Places (..., 2) of the data in points of print."""
        return np.asarray(self.ax.transData.transform(np.asarray(places, float))) * self.points

    def apart(self, one: Any, other: Any) -> float:
        """The distance of two places, in points of print."""
        return float(np.linalg.norm(self.at(one) - self.at(other)))

    def keep_off(self, place: Any, size: float) -> None:
        """A marker of this size lies here."""
        x, y = self.at(place)
        self.boxes.append((x - size / 2, y - size / 2, x + size / 2, y + size / 2))

    def within(self, place: Any, text: str, clearance: float) -> None:
        """Write a text centred at a place that is clear of lines by this part of the axes, if it fits there."""
        wide, high = self._size(text)
        sides = clearance * (self.frame[2:] - self.frame[:2])
        if wide / 2 > sides[0] or high / 2 > sides[1]:
            return
        (x, y), (left, up) = self.at(place), place
        # A label beside the number must not read as one with it.
        self.boxes.append((x - wide / 2 - 2, y - high / 2 - 2, x + wide / 2 + 2, y + high / 2 + 2))
        self.ax.text(left, up, text, ha="center", va="center_baseline", fontsize=self.font, color=INK, zorder=2.5)

    def beside(self, place: Any, text: str, size: float) -> bool:
        """Write the label of a marker of this size where it covers least; whether it covers no other text or marker."""
        wide, high = self._size(text)
        x, y = self.at(place)
        best: tuple[float, tuple[float, float]] | None = None
        for far, (right, up) in itertools.product(FAR, WAYS):
            gap = size / 2 + far * self.font
            # Along a diagonal the corner of the text is as far away.
            part = gap * (0.6 if right and up else 1.0)
            middle = x + right * (part + wide / 2), y + up * (part + high / 2)
            cost = self._cost((middle[0] - wide / 2, middle[1] - high / 2, middle[0] + wide / 2, middle[1] + high / 2))
            cost += AWAY * far * self.font
            if best is None or cost < best[0]:
                best = cost, middle
        assert best is not None
        to = best[1]
        self.boxes.append((to[0] - wide / 2, to[1] - high / 2, to[0] + wide / 2, to[1] + high / 2))
        self.ax.annotate(
            text,
            place,
            xytext=(to[0] - x, to[1] - y),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize=self.font,
            color=INK,
            zorder=4,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=RIM, foreground=self.ax.get_facecolor())],
        )
        return bool(best[0] < COVERS)

    def _size(self, text: str) -> tuple[float, float]:
        """The width and the height of a text, with a little space around it."""
        written = self.ax.text(0, 0, text, fontsize=self.font)
        box = written.get_window_extent()
        written.remove()
        return box.width * self.points + 1, CAPITALS * self.font + 1

    def _cost(self, box: tuple[float, float, float, float]) -> float:
        left, bottom, right, top = box
        covered = (self.lines > (left, bottom)).all(axis=1) & (self.lines < (right, top)).all(axis=1)
        taken = sum(left < b[2] and b[0] < right and bottom < b[3] and b[1] < top for b in self.boxes)
        outside = left < self.frame[0] or bottom < self.frame[1] or right > self.frame[2] or top > self.frame[3]
        return float(covered.sum()) * FINE * LINE + COVERS * taken + LEAVES * outside
