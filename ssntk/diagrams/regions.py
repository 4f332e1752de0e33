"""The regions between curves of bifurcations, and the number of stable fixed points in each."""

from collections.abc import Sequence

import jax.random as jr
import numpy as np
import scipy.ndimage
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import HOPF, NEIMARK_SACKER
from ssntk.curves.curve import Curve
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.two_parameters import Region
from ssntk.dynamics.fixed_points import find_fixed_points
from ssntk.models.clock import AbstractClock
from ssntk.models.plane import Plane

# The number of cells of the raster along each parameter, and the number of cells by which a place must be clear of curves.
CELLS, CLEAR = 240, 3.0
# Lines are drawn into the raster in steps of this part of a cell.
FINE = 0.25
# Places along slices that are as near to a curve as this number of cells do not count.
BESIDE = 2.0


def borders(curve: Curve, clock: AbstractClock) -> np.ndarray:
    """For each interval (k - 1,) of a curve whether it divides the plane by the number of stable fixed points: all other
    eigenvalues are stable, and the two of a pair are complex."""
    pair = curve.kind in (HOPF.name, NEIMARK_SACKER.name)
    values = np.asarray(curve.eigenvalues, complex)
    real, imaginary = clock.edge(curve.frequency)
    edge = np.asarray(clock.shown(real + 1j * imaginary), complex)
    off = np.abs(edge[:, None] - (values.real + 1j * np.abs(values.imag)))
    others = np.argsort(off, axis=1)[:, 2 if pair else 1 :]
    growth = np.take_along_axis(np.asarray(clock.shown_rate(values), float), others, axis=1)
    stable = np.all(growth < 0, axis=1)
    if pair:
        stable &= curve.frequency > 0
    return stable[1:] | stable[:-1]


def regions_of(
    plane: Plane,
    u: Array,
    spans: np.ndarray,
    curves: Sequence[Curve],
    slices: Sequence[tuple[int, float, Diagram]],
    key: Array,
    n_starts: int,
) -> tuple[Region, ...]:
    """The regions of the spans (2, 2), the largest first. Fixed points are counted at one place of each, and between the
    bifurcations of each slice (axis, value, diagram) that passes through it."""
    numbers = _regions(spans, curves, plane.clock)
    # The frame of the picture is a border too.
    inside = np.pad(numbers > 0, 1)
    clear = scipy.ndimage.distance_transform_edt(inside)
    assert isinstance(clear, np.ndarray)
    clear = clear[1:-1, 1:-1]
    seen = _seen(spans, slices, numbers, clear)
    found = []
    for number, size in enumerate(np.bincount(numbers.ravel())[1:], start=1):
        own = np.where(numbers == number, clear, 0.0)
        at = np.unravel_index(int(np.argmax(own)), own.shape)
        if own[at] >= CLEAR:
            place = spans[:, 0] + (np.array(at) + 0.5) / CELLS * (spans[:, 1] - spans[:, 0])
            found.append((int(size), number, place, float(own[at]) / CELLS))
    regions = []
    found.sort(key=lambda one: -one[0])
    for one, (_, number, place, clearance) in zip(jr.split(key, max(len(found), 1)), found, strict=False):
        points = find_fixed_points(plane(*place.tolist()), u, n_starts=n_starts, key=one)
        counts = [int(points.stable.sum()), *seen.get(number, [])]
        # A search may miss a point, but finds none that is not there.
        regions.append(Region(place, max(counts), clearance, min(counts) == max(counts)))
    return tuple(regions)


def _regions(spans: np.ndarray, curves: Sequence[Curve], clock: AbstractClock) -> np.ndarray:
    """The number of the region of each cell (CELLS, CELLS), p1 first; 0 on borders."""
    free = np.ones((CELLS, CELLS), bool)
    for curve in curves:
        cells = (curve.parameters - spans[:, 0]) / (spans[:, 1] - spans[:, 0]) * CELLS
        for i in np.flatnonzero(borders(curve, clock)):
            many = int(np.ceil(np.abs(cells[i + 1] - cells[i]).max() / FINE)) + 1
            line = np.linspace(cells[i], cells[i + 1], many)
            at = np.clip(line, 0, CELLS - 1).astype(int)
            free[at[:, 0], at[:, 1]] = False
    numbers, _ = scipy.ndimage.label(free)  # pyright: ignore[reportGeneralTypeIssues]
    return np.asarray(numbers)


def _seen(
    spans: np.ndarray, slices: Sequence[tuple[int, float, Diagram]], numbers: np.ndarray, clear: np.ndarray
) -> dict[int, list[int]]:
    """The numbers of stable fixed points that slices have, for each region: one between two bifurcations."""
    seen: dict[int, list[int]] = {}
    for axis, value, diagram in slices:
        low, high = spans[1 - axis]
        events = [float(event.parameter) for event in (*diagram.bifurcations, *diagram.unresolved)]
        ends = np.unique([low, *(p for p in events if low < p < high), high])
        for p in (ends[1:] + ends[:-1]) / 2:
            place = np.array([value, p] if axis == 0 else [p, value])
            at = tuple(np.clip((place - spans[:, 0]) / (spans[:, 1] - spans[:, 0]) * CELLS, 0, CELLS - 1).astype(int))
            if numbers[at] and clear[at] > BESIDE:
                seen.setdefault(int(numbers[at]), []).append(_stable_at(diagram, float(p)))
    return seen


def _stable_at(diagram: Diagram, p: float) -> int:
    """The number of stable fixed points of a diagram at a parameter at which nothing happens."""
    count = 0
    for branch in diagram.branches:
        if branch.period > 1:
            continue
        beyond = branch.parameter > p
        count += int((beyond[1:] != beyond[:-1])[branch.stable[1:] & branch.stable[:-1]].sum())
    return count
