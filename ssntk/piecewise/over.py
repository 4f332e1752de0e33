"""Piecewise-linear systems over one parameter, in units in which all their numbers are comparable."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from ssntk.piecewise.form import PiecewiseLinear
from ssntk.piecewise.kinks import NotPiecewiseLinear

# The fractions of the span at which it is tested whether a system depends on the parameter linearly.
LOOKS = (0.0, 1.0, 0.2763932, 0.7236068, 0.0901699, 0.4270510, 0.5729490, 0.9098301, 0.1803399, 0.8196601)
# Numbers count as equal if they differ by less than this many roundings.
ROUNDINGS = 64
# The distance of the five places from which a derivative over the span is computed. Its error is about 1e-12.
APART = 1e-3


class Parts(NamedTuple):
    """The arrays of a system, or of k systems with a leading axis, or their derivatives over the parameter.

    The equation of the fixed points is `G x + B relu(C x + c) + h = 0`. For flows G is A, for maps A - I.
    """

    G: np.ndarray
    B: np.ndarray
    C: np.ndarray
    c: np.ndarray
    h: np.ndarray

    def at(self, k: int) -> "Parts":
        """One of several systems."""
        return Parts(*(part[k] for part in self))


@dataclasses.dataclass(frozen=True)
class Over:
    """The systems over a span of a parameter, as functions of the fraction q of the span.

    - `sizes` (n,) and `widths` (m,): powers of two, the units of the states and of the signals. Everything here is in these
      units: a state x of the user is `sizes * y`, a signal `widths * s`.
    - `dt`: `None` for flows, for maps the step.
    - `first`, `slope`: the system at q = 0 and its derivative, if it depends on q linearly. Else `slope` is `None`.
    - `still`: whether only c and h depend on q, and linearly. Then x(q) is affine in each region.
    """

    make: Callable[[float], PiecewiseLinear]
    sizes: np.ndarray
    widths: np.ndarray
    dt: float | None
    first: Parts
    slope: Parts | None
    still: bool

    def parts(self, q: np.ndarray | float) -> Parts:
        """The system at q, or the systems at q (k,)."""
        if np.ndim(q):
            if self.slope is None:
                return Parts(
                    *(np.stack(part) for part in zip(*[self.parts(float(one)) for one in np.asarray(q)], strict=True))
                )
            return Parts(*(a + np.multiply.outer(q, b) for a, b in zip(self.first, self.slope, strict=True)))
        if self.slope is None:
            return _in_units(self.make(float(q)), self.sizes, self.widths)
        if self.still:
            return self.first._replace(c=self.first.c + q * self.slope.c, h=self.first.h + q * self.slope.h)
        return Parts(*(a + q * b for a, b in zip(self.first, self.slope, strict=True)))

    def magnitudes(self, q: float) -> Parts:
        """The absolute values of the system at q."""
        parts = self.parts(q)
        if not self.still:
            return Parts(*map(np.abs, parts))
        return self._still_magnitudes._replace(c=np.abs(parts.c), h=np.abs(parts.h))

    @functools.cached_property
    def _still_magnitudes(self) -> Parts:
        return Parts(*map(np.abs, self.first))

    def change(self, q: float) -> Parts:
        """The derivative of the system over q."""
        if self.slope is not None:
            return self.slope
        # The places lie within the span, since the system may not exist outside.
        middle = float(np.clip(q, 2 * APART, 1 - 2 * APART))
        places = middle + APART * np.arange(-2.0, 3.0)
        weights = _weights((q - middle) / APART) / APART
        return Parts(*(np.tensordot(weights, part, 1) for part in self.parts(places)))


def _weights(at: float) -> np.ndarray:
    """The weights (5,) with which values at -2, -1, 0, 1, 2 give the derivative at `at` of the polynomial through them."""
    nodes = np.arange(-2.0, 3.0)
    powers = nodes[None, :] ** np.arange(5)[:, None]
    slopes = np.array([k * at ** (k - 1) if k else 0.0 for k in range(5)])
    return np.linalg.solve(powers, slopes)


def _in_units(form: PiecewiseLinear, sizes: np.ndarray, widths: np.ndarray) -> Parts:
    """A system in units of the states (n,) and of the signals (m,)."""
    return Parts(
        form.pull * (sizes / sizes[:, None]),
        form.B * (widths / sizes[:, None]),
        form.C * (sizes / widths[:, None]),
        form.c / widths,
        form.h / sizes,
    )


def over(make: Callable[[float], PiecewiseLinear], eps: float = float(np.finfo(float).eps)) -> Over:
    """The systems `make(q)` for q in [0, 1].

    **Arguments:** `eps`: the relative error of the numbers in the systems.

    Raises `NotPiecewiseLinear` if numbers are not finite.
    """
    forms = [make(q) for q in LOOKS]
    if not all(np.isfinite(part).all() for one in forms for part in (one.A, one.B, one.C, one.c, one.h)):
        raise NotPiecewiseLinear("numbers that are not finite within the span")
    sizes, widths = _units(forms)
    parts = [_in_units(form, sizes, widths) for form in forms]
    slopes: list[Any] = []
    linear = True
    for first, second, *others in zip(*parts, strict=True):
        slope = second - first
        bound = ROUNDINGS * eps * np.max(np.abs([first, second, *others]), axis=0)
        # A number that moves by rounding errors stands still.
        slope = np.where(np.abs(slope) <= bound, 0.0, slope)
        linear &= all(
            bool((np.abs(first + q * slope - other) <= bound).all()) for q, other in zip(LOOKS[2:], others, strict=True)
        )
        slopes.append(slope)
    slope = Parts(*slopes) if linear else None
    still = slope is not None and not any(part.any() for part in slope[:3])
    return Over(make, sizes, widths, forms[0].dt, parts[0], slope, still)


def _units(forms: list[PiecewiseLinear]) -> tuple[np.ndarray, np.ndarray]:
    """Units of the states (n,) and of the signals (m,), powers of two, in which rows are as large as columns."""
    pull = np.max([np.abs(form.pull) for form in forms], axis=0)
    push = np.max([np.abs(form.B) for form in forms], axis=0)
    read = np.max([np.abs(form.C) for form in forms], axis=0)
    # SciPy casts the units to integers, since they may be permutations, and warns if they are too large.
    with np.errstate(invalid="ignore"):
        found: Any = scipy.linalg.matrix_balance(pull + push @ read, permute=False, separate=True)
    sizes = found[1][0]
    rows = (read * sizes).max(axis=1, initial=0.0)
    widths = 2.0 ** np.round(np.log2(np.where(rows > 0, rows, 1.0)))
    return sizes, widths
