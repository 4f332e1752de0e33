"""Numbers about all points of a store together. They are computed here; tables, pages and pictures only show them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssntk.collapse.exponent import fitted_decades, law_of, measured_exponent


class Slope(NamedTuple):
    """d log(largest steady-state eigenvalue) / d log(distance), near the bifurcation.

    - `measured`: the plain slope over the last `decades`.
    - `corrected`: the slope if the next term of the law, distance^`next_order`, is fitted too.
    - `predicted`: the slope of the normal form; NaN if it is not known. `says`: a sentence about it, or nothing.
    """

    measured: float
    corrected: float
    decades: float
    predicted: float
    next_order: float
    says: str


def slope_of(kind: str, distance: np.ndarray, eigenvalue: np.ndarray) -> Slope:
    """The slope of the largest steady-state eigenvalues (k,) at distances (k,) from a bifurcation of this kind."""
    law, decades = law_of(kind), fitted_decades(distance)
    return Slope(
        measured=measured_exponent(distance, eigenvalue, decades),
        corrected=measured_exponent(distance, eigenvalue, decades, next_order=law.next_order),
        decades=decades,
        predicted=law.exponent,
        next_order=law.next_order,
        says=law.says,
    )


def over_axes(values: np.ndarray, shape: tuple[int, ...], kept: Sequence[int]) -> np.ndarray:
    """The values (points,) of a grid of this shape as an array over the axes `kept`, in that order.

    All other axes are joined into one, which is last.
    """
    folded = np.moveaxis(values.reshape(shape), kept, range(len(kept)))
    return folded.reshape(*folded.shape[: len(kept)], -1)


def medians(values: np.ndarray) -> np.ndarray:
    """The median over the last axis of those values (..., m) that are finite; NaN if none is."""
    finite = np.isfinite(values)
    some = np.asarray(finite.any(axis=-1))
    out = np.full(some.shape, np.nan)
    # NumPy would warn of the median of nothing.
    out[some] = np.nanmedian(np.where(finite[some], values[some], np.nan), axis=-1)
    return out


def quartiles(values: np.ndarray) -> np.ndarray:
    """The smallest, the quartiles and the largest (5,) of values (k,). At least one of them must be known."""
    return np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1])
