"""The first zero of signals that are smooth functions of a parameter, up to the first pole that they share.

The signals are interpolated by Chebyshev polynomials on intervals that are halved until the coefficients have decayed to
rounding, and all zeros of the polynomials are computed as eigenvalues (Boyd 2002; Trefethen, *Approximation Theory and
Approximation Practice*, 2013). A pole is bracketed by a change of the sign of det J, and divided out before.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The number of places in each interval, and the coefficients, relative to the largest, at which a polynomial is resolved.
PLACES, RESOLVED = 17, 1e-11
# The number of last coefficients that must have decayed.
TAIL = 3
# Intervals shorter than this part of the span are not halved.
SHORTEST = 1e-12
# The distance of the last place before a pole, relative to that of the beginning of the interval.
BESIDE = 1e-3
EPS = float(np.finfo(float).eps)

Signals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class First(NamedTuple):
    """The signal that vanishes first and the place q; else the end, or a pole at q. `near`: the last place to compute at."""

    q: float
    signal: int | None = None
    pole: bool = False
    near: float = 0.0


def first_zero(signals: Signals, pattern: np.ndarray, begin: float, end: float, just: tuple[int, ...]) -> First:
    """The first zero between `begin` and `end`.

    **Arguments:** `signals(q (k,))` returns the signals (k, m) and the signs of det J (k,). `just`: the signals that vanish
    at `begin`, whose zero there is divided out.
    """
    here, step = begin, end - begin
    side = float(signals(np.array([_inside(begin, end)]))[1][0])
    while True:
        stop = end if abs(step) >= abs(end - here) else here + step
        nodes = np.cos(np.pi * (np.arange(PLACES) + 0.5) / PLACES)
        at = here + (stop - here) * (1 + nodes) / 2
        values, signs = signals(at)
        pole = None
        changed = np.flatnonzero(signs[::-1] != side)
        last = float(signals(np.array([stop]))[1][0])
        if changed.size or last != side:
            # The places run backwards.
            ordered = np.concatenate([[_inside(here, stop)], at[::-1], [stop]])
            bad = int(changed[0]) + 1 if changed.size else len(ordered) - 1
            pole = _pole(signals, side, float(ordered[bad - 1]), float(ordered[bad]))
            stop = pole
            at = here + (stop - here) * (1 + nodes) / 2
            values, signs = signals(at)
        weight = np.ones(PLACES) if pole is None else (pole - at) / (pole - here)
        shape = values * weight[:, None]
        shape[:, list(just)] /= ((at - here) / (stop - here))[:, None] if here == begin else 1.0
        coefficients = np.polynomial.chebyshev.chebfit(nodes, shape, PLACES - 1)
        sizes = np.abs(coefficients).max(axis=0)
        fine = np.isfinite(shape).all() and (np.abs(coefficients[-TAIL:]) <= RESOLVED * sizes).all()
        if not fine and abs(stop - here) > SHORTEST:
            step = (stop - here) / 2
            continue
        zero = _first(coefficients)
        if zero is not None:
            place, signal = zero
            q = here + (stop - here) * (1 + place) / 2
            return First(_polished(signals, signal, q, stop - here), signal)
        if pole is not None:
            return First(pole, None, True, pole - BESIDE * (pole - here))
        if stop == end:
            return First(end, near=end)
        here, step = stop, 2 * (stop - here)


def _inside(begin: float, end: float) -> float:
    """A place just behind the beginning."""
    return begin + SHORTEST * (end - begin)


def _pole(signals: Signals, side: float, low: float, high: float) -> float:
    """The place between `low` and `high` at which the sign of det J changes, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if float(signals(np.array([middle]))[1][0]) == side:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _first(coefficients: np.ndarray) -> tuple[float, int] | None:
    """The smallest zero in [-1, 1] of Chebyshev polynomials (k, m), and its polynomial."""
    rest = np.abs(coefficients[1:]).sum(axis=0)
    best: tuple[float, int] | None = None
    for i in np.flatnonzero((np.abs(coefficients[0]) <= rest) & (rest > 0)):
        series = coefficients[:, i]
        kept = np.flatnonzero(np.abs(series) > EPS * np.abs(series).max())
        roots = np.polynomial.chebyshev.chebroots(series[: int(kept[-1]) + 1])
        real = roots[np.abs(roots.imag) <= EPS**0.5].real
        inside = real[(real >= -1 - EPS**0.5) & (real <= 1)]
        if inside.size and (best is None or inside.min() < best[0]):
            best = float(inside.min()), int(i)
    return best


def _polished(signals: Signals, signal: int, q: float, width: float) -> float:
    """A zero of one signal, from an approximation to about 1e-11 of the width."""
    apart = 1e-4 * width
    for _ in range(3):
        values = signals(np.array([q, q + apart, q - apart]))[0][:, signal]
        slope = (values[1] - values[2]) / (2 * apart)
        if not np.isfinite(slope) or slope == 0:
            break
        q, apart = q - float(np.clip(values[0] / slope, -abs(width), abs(width))), apart / 4
    return float(np.clip(q, 0.0, 1.0))


