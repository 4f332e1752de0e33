"""Functions of one signal: where one is positive, and what another is there, as a sum of relus."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Terms = Float[np.ndarray, " terms"]


class Cut(NamedTuple):
    """`value[0] + value[1] s + old . relu(f s + c) + new . relu(s - at)`, with NaN in `at` (k + 1,) for relus of no use."""

    value: Float[np.ndarray, " 2"]
    old: Float[np.ndarray, " k"]
    new: Float[np.ndarray, " intervals"]
    at: Float[np.ndarray, " intervals"]
    # The largest jump, relative to the terms there.
    jump: float


def cut(test: Terms, value: Terms, sizes: Terms, f: Float[np.ndarray, " k"], c: Float[np.ndarray, " k"], eps: float) -> Cut:
    """The function `value` of a signal s where the function `test` is positive, and zero elsewhere.

    The functions are given by their coefficients of 1, of s and of each relu(f s + c). `sizes`: the sizes of the terms from
    which `value` was computed. `eps`: the rounding error of a term.
    """
    k = len(f)
    alive = f != 0
    knots = np.where(alive, -c / np.where(alive, f, 1.0), np.inf)
    order = np.argsort(knots, kind="stable")
    rank = np.empty(k, int)
    rank[order] = np.arange(k)
    # Which relus are active in each interval between the knots.
    interval = np.arange(k + 1)[:, None]
    active = np.where(alive, np.where(f > 0, interval > rank, interval <= rank), c > 0)
    edges = np.concatenate([[-np.inf], knots[order], [np.inf]])

    def pieces(terms: np.ndarray, by: np.ndarray = c, along: np.ndarray = f) -> tuple[np.ndarray, np.ndarray]:
        """The constant and the slope in each interval."""
        return terms[0] + active @ (terms[2:] * by), terms[1] + active @ (terms[2:] * along)

    signs, at = _crossings(*pieces(test), *pieces(np.abs(test), np.abs(c), np.abs(f)), edges, eps)
    held, slope = pieces(value)
    # The truth of the test at the left and at the right end of each interval.
    left = np.where(np.isnan(at), (signs > 0).any(axis=0), signs[0] > 0)
    right = np.where(np.isnan(at), left, signs[1] > 0)
    old, new, most = np.zeros(k), np.zeros(k + 1), 0.0
    whole = np.array([held[0], slope[0]]) * left[0]
    for i in range(k + 1):
        if np.isfinite(at[i]):
            new[i] = slope[i] * (float(right[i]) - float(left[i]))
            most = max(most, _jump(held[i] + slope[i] * at[i], at[i], sizes, f, c))
        if i == k or not np.isfinite(edges[i + 1]):
            continue
        # The knot between this interval and the next one.
        j, end = order[i], edges[i + 1]
        turn = slope[i + 1] * left[i + 1] - slope[i] * right[i]
        old[j] = turn / abs(f[j])
        if f[j] < 0:
            whole += np.array([-end, 1.0]) * turn
        if left[i + 1] != right[i]:
            most = max(most, _jump(held[i] + slope[i] * end, end, sizes, f, c))
    return Cut(whole, old, new, at, most)


def _crossings(
    held: np.ndarray, slope: np.ndarray, sizes: np.ndarray, slopes: np.ndarray, edges: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """The signs (2, k + 1) of a function at both ends of each interval, and where it crosses zero between them, or NaN.

    The function is `held + slope s` in each interval (k + 1,); `sizes` and `slopes` are the sizes of its terms.
    """
    held, slope = np.where(np.abs(held) <= eps * sizes, 0.0, held), np.where(np.abs(slope) <= eps * slopes, 0.0, slope)
    signs = []
    for ends, outwards in ((edges[:-1], -slope), (edges[1:], slope)):
        near = np.where(np.isfinite(ends), ends, 0.0)
        here = held + slope * near
        here = np.where(np.abs(here) <= eps * (sizes + slopes * np.abs(near)), 0.0, here)
        # Far away the slope decides.
        signs.append(np.sign(np.where(np.isfinite(ends), here, np.where(slope != 0, outwards, held))))
    crosses = signs[0] * signs[1] < 0
    return np.stack(signs), np.where(crosses, -held / np.where(crosses, slope, 1.0), np.nan)


def _jump(value: float, s: float, sizes: np.ndarray, f: np.ndarray, c: np.ndarray) -> float:
    """The size of a value at the signal s, relative to the terms from which it was computed."""
    terms = sizes[0] + sizes[1] * abs(s) + sizes[2:] @ (np.abs(f * s) + np.abs(c))
    return abs(value) / terms if terms else 0.0
