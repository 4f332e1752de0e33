"""Laws of random linear networks on trajectories: the two-time Green's function, and the trajectory kernel's spectrum.

The network is `dx/dt = -x + g W x + u`, with n units, independent entries of W of mean 0 and variance 1/n, and time in
units of the leak tau. It starts at rest. The kernel is that of a constant drive of size one, such as that of the biases.
All laws are for n -> infinity at a fixed horizon and hold for every gain, also from 1 on. A nonlinear network obeys
them as long as its states stay small; for others see [`mean_field`][].
"""

from typing import Any

import numpy as np
import scipy.special

from ssntk.errors import as_room
from ssntk.infinite.rest import Values, as_gain, as_numbers

# Terms below this fraction of the largest one are left out.
_LEAST = 1e-18


def green(t: Any, t2: Any, gain: Any) -> Values:
    """`tr[e^(A t) e^(A^T t2)] / n = e^-(t + t2) I_0(2 g sqrt(t t2))`: how random networks remember an initial state.

    At t = t2 it is the mean square of the response to a unit initial state. It grows for g > 1 at the rate 2 (g - 1).

    **Arguments:** `t`, `t2`: times >= 0, in units of tau. `gain`: g, positive.

    Raises `ValueError` for other times or gains. Verified. Source: the non-crossing pairings of W, as in Chalker and Mehlig,
    *Physical Review Letters* 81, 1998.

    **Example:**

    ```python
    print(ssntk.infinite.green(1.0, 1.0, 0.5).round(4))  # 0.1713
    ```
    """
    g, t, t2 = as_gain(gain), _times(t, "t"), _times(t2, "t2")
    middle = 2 * g * np.sqrt(t * t2)
    with np.errstate(over="ignore"):
        return np.exp(middle - t - t2) * scipy.special.i0e(middle)


def constant_drive(t: Any, t2: Any, gain: Any) -> Values:
    """`tr[S(t) S(t2)^T] / n`: the kernel between two times of a network at rest under a constant drive of size one.

    `S(t) = int_0^t e^(A s) ds` is the response of the states. The law is `sum_k g^2k P(k + 1, t) P(k + 1, t2)` with the
    regularised incomplete gamma function P. For g < 1 it tends to `1 / (1 - g^2)`. In units of tau^2.

    **Arguments and errors:** as in `green`. Verified.

    **Example:**

    ```python
    print(ssntk.infinite.constant_drive(5.0, 5.0, 0.5).round(6))  # 1.274476
    ```
    """
    g, t, t2 = as_gain(gain), _times(t, "t"), _times(t2, "t2")
    return np.vectorize(_driven, otypes=[float])(t, t2, g)[()]


def trajectory(ts: Any, gain: Any, weights: Any = "trapezoid") -> tuple[float, float]:
    """The trace and the participation ratio, per unit, of the trajectory kernel of a random network under a constant drive.

    The kernel is [`ntk`][] of the states, for the block of biases, from rest. With f_k(t) = P(k + 1, t) (see
    `constant_drive`), `M_kl = sum_t w_t f_k f_l` and `N_ij = sum_k g^2k M_(i+k)(j+k)`:

        tr K / n = N_00,    PR / n = N_00^2 / sum_ij g^(2 (i + j)) N_ij^2

    from the non-crossing pairings of W. At g = 1, PR is about 13.5 n / T^2: the width that resolves a horizon T grows as
    T^2.

    **Arguments:**

    - `ts`: (T,) save times, in units of tau, counted from the start at rest.
    - `gain`: g, a positive number.
    - `weights`: how times are weighted: `"trapezoid"`, `None` for ones, or (T,) non-negative weights, as in [`ntk`][].

    **Returns:** `(trace, participation_ratio)`, both over n. The trace is in units of tau^2 times those of the weights.

    Raises `ValueError` for arguments that do not fit. Verified for participation ratios n PR >= 5: at n = 256 and T = 20
    within 1 % (g = 0.5) and 3 % (g = 0.8, 0.9) of the median, 17 % at g = 1, where 5 < n PR < 7.

    **Example:**

    ```python
    trace, ratio = ssntk.infinite.trajectory(np.linspace(0.0, 20.0, 11), 0.5)
    print(round(trace, 4), round(ratio, 4))  # 24.036 0.5913
    ```
    """
    times = _times(ts, "ts")
    if times.ndim != 1:
        raise ValueError(f"ts must have shape (T,), got {times.shape}")
    if not len(times) or not (np.diff(times) > 0).all():
        raise ValueError("ts must be ascending, and hold at least one time")
    if as_gain(gain).ndim:
        raise ValueError(f"gain must be one number, got {gain!r}")
    g = float(as_gain(gain))
    weight = _weights(times, weights)
    count = _terms(float(times.max()), g, axes=2)
    with np.errstate(divide="ignore"):
        sizes = np.arange(count) * np.log(g) + _log_responses(times, count) + np.log(weight)[:, None] / 2
    # A gain beyond 1 makes numbers of any size. Only the trace depends on the size.
    largest = float(sizes.max())
    if largest == -np.inf:
        return 0.0, np.nan
    f = np.exp(sizes - largest)
    # With g^k within f, both sums have terms of one size: g^(i + j) N_ij is the sum along a diagonal, from (i, j) on.
    along = f.T @ f
    for k in range(count - 2, -1, -1):
        along[k, :-1] += along[k + 1, 1:]
    whole = float(along[0, 0])
    with np.errstate(over="ignore"):
        return float(whole * np.exp(2 * largest)), float(1 / ((along / whole) ** 2).sum())


def _driven(t: float, t2: float, g: float) -> float:
    """The sum of `constant_drive` for numbers."""
    if t == 0 or t2 == 0:
        return 0.0
    # The integrand, about e^(2 g sqrt(s s2) - s - s2), is largest here. Do not sum what exceeds all numbers.
    s, s2 = min(t, g * g * t2), min(t2, g * g * t)
    if 2 * g * np.sqrt(s) * np.sqrt(s2) - s - s2 > 1e3:
        return np.inf
    count = _terms(max(t, t2), g)
    one, other = _log_responses(np.array([t, t2]), count)
    with np.errstate(over="ignore"):
        return float(np.exp(2 * np.arange(count) * np.log(g) + (one + other)).sum())


def _log_responses(t: np.ndarray, count: int) -> np.ndarray:
    """The logarithms of P(k + 1, t) (..., count). The numbers themselves become zero where powers of a gain matter."""
    k, t = np.arange(1.0, count + 1), t[..., None]
    found = scipy.special.gammainc(k, t)
    with np.errstate(divide="ignore"):
        # So far beyond k = t the series t^k e^-t / k! (1 + t / (k + 1) + ...) is that of powers of t / (k + 1).
        few = k * np.log(t) - t - scipy.special.gammaln(k + 1) - np.log1p(-np.minimum(t / (k + 1), 0.9))
        return np.where(found > 1e-290, np.log(np.maximum(found, 1e-290)), few)


def _terms(longest: float, gain: float, axes: int = 1) -> int:
    """How many terms `(g^k P(k + 1, t))^2` matter up to the longest time: they fall faster than any power beyond k = t.

    Raises `ValueError` if arrays with so many axes of that length do not fit into this machine.
    """
    count = 16
    while True:
        as_room(4 * count**axes, "gain times ts")
        sizes = np.arange(count) * np.log(gain) + _log_responses(np.asarray(longest), count)
        if longest == 0 or sizes[-1] <= np.log(_LEAST) + sizes.max():
            return count
        count *= 2


def _times(t: Any, name: str) -> np.ndarray:
    times = as_numbers(t, name)
    if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(f"{name} must be finite and not negative, got {t!r}")
    return times


def _weights(times: np.ndarray, weights: Any) -> np.ndarray:
    if weights is None:
        return np.ones_like(times)
    if isinstance(weights, str):
        if weights != "trapezoid":
            raise ValueError(f"weights must be 'trapezoid', None or numbers, got {weights!r}")
        steps = np.diff(times)
        return (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
    given = as_numbers(weights, "weights")
    if given.shape != times.shape:
        raise ValueError(f"weights must have shape ({len(times)},), got {given.shape}")
    if not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError("weights must be finite and not negative")
    return given
