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
NODES = np.cos(np.pi * (np.arange(PLACES) + 0.5) / PLACES)
# Coefficients below this multiple of the signals' rounding errors are noise.
NOISY = 32
# Intervals shorter than this part of the whole are not halved.
SHORTEST = 1e-10
# The distance of the last place before a pole, relative to that of the beginning of the interval.
BESIDE = 1e-3
EPS = float(np.finfo(float).eps)


class Sampled(NamedTuple):
    """The signals (k, m) at k places, the signs (k,) of det J there, and the rounding errors (k, m) of the signals."""

    values: np.ndarray
    signs: np.ndarray
    doubts: np.ndarray


Signals = Callable[[np.ndarray], Sampled]


class First(NamedTuple):
    """The signal that vanishes first and the place q; else the end, or a pole at q, or a place behind which the signals are
    not known because of rounding errors (`lost`). `near`: the last place to compute at."""

    q: float
    signal: int | None = None
    pole: bool = False
    lost: bool = False
    near: float = 0.0


def first_zero(signals: Signals, pattern: np.ndarray, begin: float, end: float, just: tuple[int, ...]) -> First:
    """The first zero between `begin` and `end`.

    **Arguments:** `signals(q (k,))`: the signals at places. `just`: those that vanish at `begin`, whose zero there is
    divided out.
    """
    here, step = begin, end - begin
    if step == 0:
        return First(end, near=end)
    side = float(signals(np.array([_inside(begin, end)])).signs[0])
    while True:
        stop = end if abs(step) >= abs(end - here) else here + step
        at = here + (stop - here) * (1 + NODES) / 2
        known = signals(at)
        pole = _bracketed(signals, side, here, stop, at, known)
        if pole is not None:
            stop = pole
            at = here + (stop - here) * (1 + NODES) / 2
            known = signals(at)
        weight = np.ones(PLACES) if pole is None else (pole - at) / (pole - here)
        shapes, noise = known.values * weight[:, None], known.doubts * weight[:, None]
        if here == begin:
            shapes[:, list(just)] /= ((at - here) / (stop - here))[:, None]
            noise[:, list(just)] /= ((at - here) / (stop - here))[:, None]
        if np.isfinite(shapes).all():
            coefficients = np.polynomial.chebyshev.chebfit(NODES, shapes, PLACES - 1)
            allowed = np.maximum(RESOLVED * np.abs(coefficients).max(axis=0), NOISY * noise.max(axis=0))
            fine = bool((np.abs(coefficients[-TAIL:]) <= allowed).all())
        else:
            coefficients, fine = np.zeros((PLACES, 0)), False
        if not fine:
            if abs(stop - here) <= SHORTEST * abs(end - begin):
                return First(here, lost=True, near=here)
            step = (stop - here) / 2
            continue
        zero = _first(coefficients)
        if zero is not None:
            place, signal = zero
            q = here + (stop - here) * (1 + place) / 2
            return First(_polished(signals, signal, q, stop - here), signal)
        if pole is not None:
            return First(pole, None, True, near=pole - BESIDE * (pole - here))
        if stop == end:
            return First(end, near=end)
        here, step = stop, 2 * (stop - here)


def _bracketed(signals: Signals, side: float, here: float, stop: float, at: np.ndarray, known: Sampled) -> float | None:
    """The first pole between `here` and `stop`, if the sign of det J changes at the places `at` (k,), or at `stop`."""
    # The places run backwards.
    signs = np.append(known.signs[::-1], signals(np.array([stop])).signs)
    changed = np.flatnonzero(signs != side)
    if not changed.size:
        return None
    ordered = np.concatenate([[here], at[::-1], [stop]])
    i = int(changed[0])
    return _pole(signals, side, float(ordered[i]), float(ordered[i + 1]))


def _inside(begin: float, end: float) -> float:
    """A place just behind the beginning."""
    return begin + SHORTEST * (end - begin)


def _pole(signals: Signals, side: float, low: float, high: float) -> float:
    """The place between `low` and `high` at which the sign of det J changes, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if float(signals(np.array([middle])).signs[0]) == side:
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
        values = signals(np.array([q, q + apart, q - apart])).values[:, signal]
        slope = (values[1] - values[2]) / (2 * apart)
        if not np.isfinite(slope) or slope == 0:
            break
        q, apart = q - float(np.clip(values[0] / slope, -abs(width), abs(width))), apart / 4
    return float(np.clip(q, 0.0, 1.0))
