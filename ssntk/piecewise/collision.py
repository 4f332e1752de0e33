"""What happens to the cycles of a map where a fixed point meets a border.

To first order the map beside the collision is `y' = J y + B_i relu(C_i y + c1 mu) + d mu`, with one switching signal and the
distance mu of the parameter. Its cycles of order k follow from the k values of that signal: they solve
`xi = G relu(xi) + e mu`, with a circulant matrix G (k, k), so that 2^k systems of k equations list them all. Feigin's
parities count fixed points and cycles of order two only; see Eisenmann, Monfared, Goering and Durstewitz (NeurIPS 2023).
"""

import functools
import itertools

import numpy as np

from ssntk.piecewise.over import Over
from ssntk.piecewise.pivot import Kink
from ssntk.piecewise.region import region_of

# The largest order of cycles that are counted.
MOST = 8


def counted_cycles(system: Over, kink: Kink, most: int = MOST) -> tuple[dict[int, int], dict[int, int]] | None:
    """The cycles of orders 2 to `most` beside a collision, {order: number}: at lower q and at higher q.

    `None` if several signals vanish there, or if a region next to the place is singular.
    """
    if len(kink.units) != 1:
        return None
    (i,) = kink.units
    pattern = kink.before.copy()
    pattern[i] = False
    region = region_of(system, pattern, kink.q)
    if region is None:
        return None
    parts, change = system.parts(kink.q), system.change(kink.q)
    jacobian = region.jacobian(kink.q) + np.eye(len(kink.x))
    row, column = parts.C[i], parts.B[:, i]
    # The signal over mu at the fixed point of the region in which the unit is silent.
    e = float(row @ region.solve(kink.q, -region.push(kink.q, kink.x)) + change.C[i] @ kink.x + change.c[i])
    low: dict[int, int] = {}
    high: dict[int, int] = {}
    powers = [np.eye(len(jacobian))]
    for _ in range(most):
        powers.append(jacobian @ powers[-1])
    for k in range(2, most + 1):
        # The response after one to k steps to a signal that comes back every k steps.
        try:
            repeated = np.linalg.solve(np.eye(len(jacobian)) - powers[k], column)
        except np.linalg.LinAlgError:
            return None
        response = np.array([float(row @ powers[j] @ repeated) for j in range(k)])
        number = np.array([_of_order(response, sign * e) for sign in (-1.0, 1.0)])
        for held, count in zip((low, high), number.tolist(), strict=True):
            if count:
                held[k] = count
    return low, high


def _of_order(response: np.ndarray, drive: float) -> int:
    """The number of cycles of prime order k of a signal xi with `xi_j = sum_l response_l relu(xi_(j - 1 - l)) + drive`."""
    k = len(response)
    lag = (np.arange(k)[:, None] - 1 - np.arange(k)[None, :]) % k
    gains = response[lag]
    words = _words(k)
    matrices = np.eye(k) - gains * words[:, None, :]
    good = np.linalg.cond(matrices) < 1 / np.finfo(float).eps
    xi = np.linalg.solve(matrices[good], np.full((int(good.sum()), k, 1), drive))[..., 0]
    return int(((xi > 0) == (words[good] > 0)).all(axis=1).sum())


@functools.cache
def _words(k: int) -> np.ndarray:
    """The words of k letters 0 and 1 that come before all their rotations (Lyndon): one for each cycle of prime order k."""
    words = itertools.product((0.0, 1.0), repeat=k)
    return np.array([word for word in words if all(word < word[j:] + word[:j] for j in range(1, k))])


def born(cycles: tuple[dict[int, int], dict[int, int]] | None) -> dict[int, int]:
    """The cycles, by order, that exist on one side of a collision only."""
    low, high = cycles or ({}, {})
    return {k: abs(high.get(k, 0) - low.get(k, 0)) for k in sorted({*low, *high}) if high.get(k, 0) != low.get(k, 0)}
