"""What tables, pages and pictures say of all points of a store together. It is computed here, and only shown there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssntk.collapse.exponent import fitted_decades, law_of, measured_exponent


class Slope(NamedTuple):
    """d log(largest steady-state eigenvalue) / d log(distance), near the bifurcation.

    - `measured`: the plain slope over the last `decades`; `corrected`: that with the next term, distance^`next_order`.
    - `predicted`: what the normal form says; NaN if it is not known.
    """

    measured: float
    corrected: float
    decades: float
    predicted: float
    next_order: float


def slope_of(kind: str, distance: np.ndarray, eigenvalue: np.ndarray) -> Slope:
    """The slope of the largest steady-state eigenvalues (k,) at distances (k,) from a bifurcation of this kind."""
    law, decades = law_of(kind), fitted_decades(distance)
    return Slope(
        measured=measured_exponent(distance, eigenvalue, decades),
        corrected=measured_exponent(distance, eigenvalue, decades, next_order=law.next_order),
        decades=decades,
        predicted=law.exponent,
        next_order=law.next_order,
    )


def over_axes(values: np.ndarray, shape: tuple[int, ...], kept: Sequence[int]) -> np.ndarray:
    """The values (points,) of a grid of this shape over the axes `kept`, in that order, and over all others as one, last."""
    folded = np.moveaxis(values.reshape(shape), kept, range(len(kept)))
    return folded.reshape(*folded.shape[: len(kept)], -1)


def medians(values: np.ndarray) -> np.ndarray:
    """The median over the last axis of those values (..., m) that are finite; NaN if none is."""
    finite = np.isfinite(values)
    some = np.asarray(finite.any(axis=-1))
    out = np.full(some.shape, np.nan)
    # The median of nothing would be warned of.
    out[some] = np.nanmedian(np.where(finite[some], values[some], np.nan), axis=-1)
    return out


def quartiles(values: np.ndarray) -> np.ndarray:
    """The least, the quartiles and the most (5,) of values (k,), of which one at least is known."""
    return np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1])
