"""The laws of limit cycles in closed form: functions of numbers and numpy arrays, which `ssntk.laws` holds.

On a cycle of period P with velocity f, a trajectory's sensitivity is `S(t) = -f t P_theta / P + X + c f`. X is the change of
the closed orbit, and `<.>` is a mean over the period. `K_int` is the kernel of a trajectory over the horizon T [time], whose
largest eigenvalue the laws give. "Verified" means that a test compares the law with the kernels of random systems whose
cycles have a closed form, "measured" with those of networks too. [`cycle_ntk`][] gives the period, its
gradient, the speed and the exponents of a model.
"""

from typing import Any

import numpy as np

# The terms of a series that is exact to rounding for arguments up to one.
_TERMS = 20


def phase_channel(gradient: Any, period: Any, speed: Any, horizon: Any) -> np.ndarray | np.floating:
    """`K_int = (gradient / period)^2 speed T^3 / 3`: the phase of a limit cycle, whose period depends on the parameters.

    It follows from `S = -f t P_theta / P`, in which the phase falls behind at a constant rate. `gradient` is the length
    |P_theta|, in units of time per unit of theta; `period` is P; `speed` is <|f|^2>; `horizon` is T. Holds for T >> P and T
    longer than the slowest mode of the cycle lasts, up to O(P / T). In the long run it is the whole kernel of any cycle, so
    that this kernel has rank one whether or not a bifurcation is near. Measured.

    **Example:** the circle of radius sqrt(mu): P = 2 pi / omega, speed = mu omega^2, which gives mu T^3 / 3.

    ```python
    print(ssntk.laws.phase_channel(np.pi / 2, np.pi, 0.25 * 2.0**2, 6.0))  # 18.0
    ```
    """
    change = np.asarray(gradient, float) / np.asarray(period, float)
    return change**2 * np.asarray(speed, float) * np.asarray(horizon, float) ** 3 / 3


def cycle_fold(speed: Any, shear: Any, drive: Any, horizon: Any, rate: Any = 0.0) -> np.ndarray | np.floating:
    """`K_int = speed shear^2 drive^2 T^5 / 20` at a fold of limit cycles; with `rate` < 0 at a distance from it.

    The amplitude obeys `a' = rate a + drive` and the phase `tau' = shear a`, with S = f tau. So tau is `shear drive t^2 / 2`
    at the fold: the two trivial multipliers form a Jordan block. At a distance and for |rate| T >> 1 the law is the phase
    channel of `|P_theta / P| = shear drive / |rate|`; as rate^2 is proportional to the distance, |P_theta|^2 grows as one
    over the distance, and so does the shape kernel, to which the mode adds `<|r|^2> drive^2 / rate^2`.

    **Arguments:** `speed`: <|f|^2>. `shear`: how much faster the phase is (in time per time) per unit of the amplitude.
    `drive`: the length of l^T F, with the amplitude's left vector l and F = df/dtheta. `rate`: the Floquet exponent, not
    positive; see `fold_rate`.

    Without shear only the amplitude is left: `channel(|r| drive, rate, T)`. Holds for T >> P, up to O(P / T), which is zero
    if f and r are orthogonal. Verified.

    **Example:**

    ```python
    print(ssntk.laws.cycle_fold(1.0, 1.0, 1.0, 2.0).round(6))  # 1.6
    ```
    """
    horizon, a = np.asarray(horizon, float), -np.asarray(rate, float) * np.asarray(horizon, float)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    nodes, weights, small = (nodes + 1) / 2, weights / 2, np.clip(a, 0.0, 1.0)[..., None] * ((nodes + 1) / 2)
    # (e^-z - 1 + z) / z^2 by its series, since the terms of its closed form cancel; its square is integrated numerically.
    series, term = np.zeros_like(small), np.full_like(small, 0.5)
    for k in range(_TERMS):
        series, term = series + term, -term * small / (k + 3)
    near = (nodes**2 * series) ** 2 @ weights
    large = np.maximum(a, 1.0)
    # The integral of (e^-as - 1 + a s)^2 over s from 0 to 1. The terms with e^-a / a cancel.
    squares = large**2 / 3 - large + 1 - 2 * np.exp(-large) - np.expm1(-2 * large) / (2 * large)
    scaled = np.where(a >= 0, np.where(a > 1, squares / large**4, near), np.nan)
    return np.asarray(speed, float) * (np.asarray(shear, float) * np.asarray(drive, float)) ** 2 * horizon**5 * scaled


def driven_cycle(drive: Any, multiplier: Any) -> np.ndarray | np.floating:
    """`K(w) = drive^2 / (1 - |multiplier|)^2`: a cycle's response to a parameter that oscillates at the mode's frequency.

    From period to period the mode obeys `a -> mu a + drive`, up to a phase. `multiplier` is mu. For mu near -1, a period
    doubling, this is `drive^2 / (1 + mu)^2`, and w is pi / P plus a multiple of 2 pi / P. For a pair, a torus, w is the
    angle of mu over P. `drive` is the length of `|r| int_0^P l(t)^T F(t) e^(iwt) dt`, with the mode's left vector l, which
    turns by exp(-iwP) from round to round, and the root of the mean of |r|^2. A constant parameter does not drive the mode:
    its l^T F has mean zero, so that shape and period stay bounded. Holds for 1 - |mu| << 1. Verified.

    **Example:**

    ```python
    print(ssntk.laws.driven_cycle(1.0, -0.9).round(6))  # 100.0
    ```
    """
    return np.asarray(drive, float) ** 2 / (1 - np.abs(np.asarray(multiplier))) ** 2


def snic(distance: Any, curvature: Any, push: Any, action: Any, horizon: Any) -> np.ndarray | np.floating:
    """`K_int = action sqrt(|curvature push|) T^3 / (12 pi distance^(3/2))`: before a saddle-node on the cycle (SNIC).

    The passage of `y' = push e + curvature y^2` at the distance e takes the period, `P = pi / sqrt(curvature push e)`. So
    `P_theta / P = -1 / (2 e)` and <|f|^2> = action / P in the phase channel, for theta = p; for others times |e_theta|^2.

    **Arguments:** `distance`: e = |p - p_c|. `curvature`, `push`: as for `fold_rate`.
    `action`: the integral of |f| along the closed curve, `int |f|^2 dt`, which stays finite. `horizon`: T >> P.

    Holds up to O(sqrt(e)). Verified.

    **Example:** phi' = a - cos phi has curvature 1/2, push 1 and action 2 pi: `T^3 / (3 (2 e)^(3/2))`.

    ```python
    print(ssntk.laws.snic(0.5, 0.5, 1.0, 2 * np.pi, 3.0).round(6))  # 9.0
    ```
    """
    fast = np.sqrt(np.abs(np.asarray(curvature, float) * np.asarray(push, float)))
    held = np.asarray(action, float) * fast / (12 * np.pi * np.asarray(distance, float) ** 1.5)
    return held * np.asarray(horizon, float) ** 3


def homoclinic(distance: Any, rate: Any, action: Any, horizon: Any, scale: Any = 1.0) -> np.ndarray | np.floating:
    """`K_int = rate action T^3 / (3 e^2 ln(scale / e)^3)`: before a homoclinic orbit of a saddle, at the distance e.

    The cycle passes the saddle at a distance proportional to e, which takes `P = ln(scale / e) / rate`. So `P_theta / P =
    -1 / (e ln(scale / e))` and <|f|^2> = action / P in the phase channel, for theta = p.

    **Arguments:** `distance`: e = |p - p_c|. `rate`: the saddle's eigenvalue nearest to zero on the side that decides: the
    unstable one for stable cycles, for which the saddle value is negative. `action`: the integral of |f| along the
    homoclinic orbit, `int |f|^2 dt`. `horizon`: T >> P. `scale`: the distance at which P would be zero. The law does not
    give it; one period does, as `e exp(rate P)`.

    Holds for e << scale, up to a power of e: e to the ratio of the two leading rates, minus one. Verified on planar loops.

    **Example:**

    ```python
    print(ssntk.laws.homoclinic(np.exp(-2.0), 1.0, 3.0, 2.0).round(4))  # 54.5982
    ```
    """
    distance = np.asarray(distance, float)
    late = np.log(np.asarray(scale, float) / distance)
    held = np.asarray(rate, float) * np.asarray(action, float) / (3 * distance**2 * np.where(late > 0, late, np.nan) ** 3)
    return held * np.asarray(horizon, float) ** 3


def hopf_cycle(mu: Any, growth: Any = 1.0, push: Any = 1.0) -> np.ndarray | np.floating:
    """`push^2 growth / (4 mu)`: the shape kernel of the cycle at a Hopf point, approached from the side of the cycle.

    The cycle grows as sqrt(mu), so that dx/dmu is (x - x*) / (2 mu), and the mean of its square is the law. `mu` > 0 is the
    real part of the eigenvalue at the equilibrium x*, in rad per unit time. `growth` is <|x - x*|^2> / mu, which is 1 / |c|
    for `z' = (mu + i omega) z + c z |z|^2`. `push` is the length of dmu/dtheta.

    The phase channel is proportional to mu there, since P_theta is bounded and <|f|^2> is omega^2 growth mu: the shape tells
    of the bifurcation, the kernel of a trajectory does not. Holds for mu << omega. Measured.

    **Example:**

    ```python
    print(ssntk.laws.hopf_cycle(0.01))  # 25.0
    ```
    """
    mu = np.asarray(mu, float)
    return np.asarray(push, float) ** 2 * np.asarray(growth, float) / (4 * np.where(mu > 0, mu, np.nan))
