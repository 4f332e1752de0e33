"""The laws of the kernel near a bifurcation, in closed form: functions of numbers and numpy arrays, without a network.

The sensitivity s = dx/dtheta of the state obeys `s' = lambda s + F`, with the critical eigenvalue lambda [1 / time] and
F = df/dtheta. The kernel is K = s^2. `K_int` is its integral over the horizon T [time], from a start at which s is zero
(for maps the sum over steps). "Verified" means that a test compares the law with the kernel of the normal form. Outside
its range a law returns NaN. Sources: Hazelden and Shea-Brown, arXiv:2605.12763, for the collapse; Kuznetsov, *Elements of
Applied Bifurcation Theory*, for the normal forms.
"""

from typing import Any

import numpy as np
import scipy

from ssntk.bifurcation.events.kinds import kind_of
from ssntk.collapse.laws_of_cycles import cycle_fold, driven_cycle, homoclinic, hopf_cycle, phase_channel, snic

__all__ = [
    "channel",
    "circle_phase",
    "cycle_fold",
    "driven_cycle",
    "escape_peak",
    "euler_hopf",
    "flip_steady_state",
    "fold_rate",
    "free_forcing",
    "g",
    "ghost",
    "ghost_time",
    "homoclinic",
    "hopf_cycle",
    "landing",
    "limit_cycle",
    "map_transient",
    "pair_participation_ratio",
    "phase_channel",
    "resonance",
    "snic",
    "steady_state",
    "transient",
]

# Below this |a| the series of `g` keeps more digits than its closed form.
_SERIES = 0.05


def g(a: Any) -> np.ndarray | np.floating:
    """`g(a) = [a - 2 (1 - e^-a) + (1 - e^-2a) / 2] / a^3`: the kernel `int_0^T s^2 dt / T^3` of a finite horizon, for F = 1.

    It is the integral of the square of `s = (1 - e^(lambda t)) / -lambda`, with a = -lambda T. g(0) = 1/3. For a >> 1 it is
    about `1 / a^2`; for a << -1, an unstable mode, about `e^(-2 a) / (2 |a|^3)`. Holds for all a. Verified.

    **Example:**

    ```python
    print(ssntk.laws.g(0.0).round(4))  # 0.3333
    ```
    """
    a = np.asarray(a, float)
    safe = np.where(np.abs(a) > _SERIES, np.minimum(a, 1e9), 1.0)
    closed = (safe + 2 * np.expm1(-safe) - np.expm1(-2 * safe) / 2) / safe**3
    # int_0^1 ((1 - e^(-a t)) / a)^2 dt, term by term: the sum of (-a)^k (2^(k+2) - 2) / (k + 3)!
    term, series, small = np.ones_like(a), np.zeros_like(a), np.where(np.abs(a) > _SERIES, 0.0, a)
    factorial = 2.0
    for k in range(8):
        factorial *= k + 3
        series = series + term * (2 ** (k + 2) - 2) / factorial
        term = term * -small
    # For larger a, 1 - 1.5 / a is one to rounding.
    return np.where(a > 1e9, 1 / np.maximum(a, 1.0) ** 2, np.where(np.abs(a) > _SERIES, closed, series))


def channel(drive: Any, rate: Any, horizon: Any) -> np.ndarray | np.floating:
    """`K_int = drive^2 T^3 g(-rate T)`: a mode with `rate` = Re lambda, for a constant drive |r| |l^T F| and `horizon` T.

    This is the master law for constant F. Towards the bifurcation it grows as `drive^2 T / rate^2` until |rate| T is about
    1, and saturates at `drive^2 T^3 / 3`. It holds for a state at rest at x* with constant input; on the unstable side
    (`rate` > 0) only while the state stays there. On a limit cycle the law is that of the amplitude: `rate` is a Floquet
    exponent, and the drive has means over the period, of |r|^2 and of l^T F. Verified; it fails past a crossing from which
    the state escapes.

    **Example:**

    ```python
    print(ssntk.laws.channel(1.0, 0.0, 3.0))  # 9.0
    ```
    """
    return np.asarray(drive, float) ** 2 * np.asarray(horizon, float) ** 3 * g(-np.asarray(rate) * np.asarray(horizon))


def fold_rate(distance: Any, curvature: Any, push: Any) -> np.ndarray | np.floating:
    """`lambda = -sqrt(4 |a| |push| distance)`: the critical eigenvalue near a generic fold, at a `distance` of p from it.

    It follows from `y' = push e + a y^2` along the critical direction, with e = p - p_c. `curvature` is a, the coefficient
    `l.B(r, r) / 2` of the normal form, and `push` is l^T df/dp. Holds up to O(distance). Verified on random networks.

    **Example:**

    ```python
    print(ssntk.laws.fold_rate(0.01, -1.0, 1.0).round(6))  # -0.2
    ```
    """
    return -np.sqrt(4 * np.abs(np.asarray(curvature, float) * np.asarray(push)) * np.asarray(distance))


def steady_state(kind: str, mu: Any, parameter: str = "h", *, omega: Any = 1.0) -> np.ndarray | np.floating:
    """The steady-state kernel K* = (dx*/dtheta)^2 = (F / lambda)^2 on the stable branch of a normal form.

    It follows from the implicit function theorem. The last two columns are K* for theta = mu and for theta = h:

    | `kind` | branch | `"mu"` | `"h"` |
    |---|---|---|---|
    | `"saddle-node"`, mu > 0 | sqrt(mu) | 1 / (4 mu) | the same |
    | `"transcritical"`, mu < 0 | 0 | 0 | 1 / mu^2 |
    | `"transcritical"`, mu > 0 | mu | 1 | 1 / mu^2 |
    | `"pitchfork"`, mu < 0 | 0 | 0 | 1 / mu^2 |
    | `"pitchfork"`, mu > 0 | +- sqrt(mu) | 1 / (4 mu) | 1 / (4 mu^2) |
    | `"hopf"`, mu < 0 | 0 | 0 | 1 / (mu^2 + omega^2), twice: bounded |

    **Arguments:** `mu`: the bifurcation parameter. `parameter`: theta: `"mu"`, or `"h"`, a constant bias. `omega`: the
    angular frequency of a Hopf point.

    NaN if there is no stable fixed point. Raises `ValueError` for a kind or parameter that is not in the table. Verified.

    **Example:**

    ```python
    print(ssntk.laws.steady_state("saddle-node", 0.01))  # 25.0
    ```
    """
    kind, mu = kind_of(kind), np.asarray(mu, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        table = {
            ("saddle-node", "mu"): (np.nan, 1 / (4 * mu)),
            ("saddle-node", "h"): (np.nan, 1 / (4 * mu)),
            ("transcritical", "mu"): (0.0, 1.0),
            ("transcritical", "h"): (1 / mu**2, 1 / mu**2),
            ("pitchfork", "mu"): (0.0, 1 / (4 * mu)),
            ("pitchfork", "h"): (1 / mu**2, 1 / (4 * mu**2)),
            ("hopf", "mu"): (0.0, np.nan),
            ("hopf", "h"): (1 / (mu**2 + np.asarray(omega, float) ** 2), np.nan),
        }
    if (kind, parameter) not in table:
        known = ", ".join(f"{kind} {parameter}" for kind, parameter in table)
        raise ValueError(f"kind and parameter must be one of {known}; got {kind!r} and {parameter!r}")
    before, after = table[kind, parameter]
    return np.where(mu < 0, before, np.where(mu > 0, after, np.nan))


# (prefactor, power of T) of K_int exactly at the bifurcation.
_LANDING = {
    ("saddle-node", "mu"): (1 / 27, 3),
    ("transcritical", "mu"): (1 / 4, 1),
    ("transcritical", "h"): (1 / 27, 3),
    ("pitchfork", "mu"): (1 / 16, 2),
    ("pitchfork", "h"): (4 / 75, 3),
    ("hopf", "mu"): (1 / 16, 2),
    ("hopf", "omega"): (1 / 4, 2),
}


def landing(kind: str, parameter: str, horizon: Any) -> np.ndarray | np.floating:
    """K_int of a trajectory at the bifurcation, mu = 0, which starts at O(1) and decays to 0 as a power of time.

    `x' = -x^p` gives `x = ((p - 1) t)^(-1/(p-1))`, so that `s' = -p s / ((p - 1) t) + F(x)` has a power of t as solution.
    K_int is T^3/27 (saddle-node mu, transcritical h), T/4 (transcritical mu), 4 T^3/75 (pitchfork h), T^2/16 (pitchfork mu,
    Hopf mu) or T^2/4 (Hopf omega). Holds for T >> 1, up to O(log T / T). Verified.

    Raises `ValueError` for another kind or parameter.

    **Example:**

    ```python
    print(ssntk.laws.landing("saddle-node", "mu", 30.0).round(6))  # 1000.0
    ```
    """
    kind = kind_of(kind)
    if (kind, parameter) not in _LANDING:
        known = ", ".join(f"{kind} {parameter}" for kind, parameter in _LANDING)
        raise ValueError(f"kind and parameter must be one of {known}; got {kind!r} and {parameter!r}")
    prefactor, power = _LANDING[kind, parameter]
    horizon = np.asarray(horizon, float)
    return np.where(horizon > 0, prefactor * horizon**power, np.nan)


def ghost_time(mu: Any) -> np.ndarray | np.floating:
    """`pi / sqrt(-mu)`: the time for which the ghost of a saddle-node, mu < 0, holds a trajectory, `int dx / (x^2 - mu)`.

    Holds if -mu is far below the square of the state at which the trajectory starts. Verified.

    **Example:**

    ```python
    print(ssntk.laws.ghost_time(-0.01).round(4))  # 31.4159
    ```
    """
    return np.pi / np.sqrt(-np.asarray(mu, float))


def ghost(mu: Any, phase: Any = np.pi / 2) -> np.ndarray | np.floating:
    """K = s^2 in the ghost of a saddle-node, mu < 0, at `phase` = sqrt(-mu) t: 0 at the entrance, pi at the exit.

    `x = sqrt(-mu) cot(phase)` and `s' = -2 x s + 1` give `s = (phase / 2 - sin(2 phase) / 4) / (sqrt(-mu) sin^2(phase))`.
    K is `pi^2 / (16 |mu|)` in the middle. It is far larger at the exit, where s is the speed times the derivative of the
    passage time. Holds for -mu << 1. Verified.

    **Example:**

    ```python
    print(ssntk.laws.ghost(-0.01).round(4))  # 61.685
    ```
    """
    phase = np.asarray(phase, float)
    return ((phase / 2 - np.sin(2 * phase) / 4) / np.sin(phase) ** 2) ** 2 / -np.asarray(mu, float)


def transient(size: Any, rate: Any, horizon: Any = np.inf) -> np.ndarray | np.floating:
    """`K_int = size^2 int_0^T t^2 e^(2 rate t) dt`: the sensitivity of a decaying initial state to its own rate < 0.

    `size` is the initial state: `x = size e^(rate t)` gives `s = t x`. K_int is `size^2 / (4 |rate|^3)` for T >> 1 / |rate|,
    and `size^2 T^3 / 3` for T << 1 / |rate|. The law describes mu at a pitchfork, and (mu, omega) at a Hopf focus, for which
    it is a double eigenvalue. Holds for size^2 << |rate|. Verified.

    **Example:**

    ```python
    print(ssntk.laws.transient(1.0, -0.5).round(6))  # 2.0
    ```
    """
    size, a = np.asarray(size, float), -np.asarray(rate, float) * np.asarray(horizon, float)
    a = np.where(np.isnan(a), 0.0, a)
    cut = np.where(np.isinf(a), 0.0, a)
    # 1 - e^(-2a) (1 + 2a + 2a^2), by its series for small a, for which the terms cancel.
    small = 4 * cut**3 / 3 - 2 * cut**4 + 8 * cut**5 / 5 - 8 * cut**6 / 9
    left = np.where(np.isinf(a), 1.0, np.where(cut < 0.01, small, 1 - np.exp(-2 * cut) * (1 + 2 * cut + 2 * cut**2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        long = size**2 * left / (4 * np.abs(np.asarray(rate, float)) ** 3)
    short = size**2 * np.asarray(horizon, float) ** 3 / 3
    return np.where(np.asarray(rate) == 0, short, np.where(np.asarray(rate) < 0, long, np.nan))


def limit_cycle(parameter: str, mu: Any, horizon: Any, *, shear: Any = 0.0) -> np.ndarray | np.floating:
    """K_int on the limit cycle of the Hopf normal form, mu > 0, from a start on it. Verified.

    - `parameter` = `"omega"`: the phase drifts, `s = t sqrt(mu)`, which gives `mu T^3 / 3`, the isochron channel.
    - `parameter` = `"mu"`: the radius changes, `s = (1 - e^(-2 mu t)) / (2 sqrt(mu))`, which gives about `T / (4 mu)`. With
      shear the phase follows, `s = shear sqrt(mu) (t - (1 - e^(-2 mu t)) / (2 mu))`, which adds about `shear^2 mu T^3 / 3`.

    There are two modes for mu T << 1, and one, the phase, for mu T >> 1. A constant bias is not amplified.

    **Example:**

    ```python
    print(ssntk.laws.limit_cycle("omega", 0.5, 6.0))  # 36.0
    ```
    """
    mu, horizon = np.asarray(mu, float), np.asarray(horizon, float)
    mu = np.where(mu > 0, mu, np.nan)
    if parameter == "omega":
        return mu * horizon**3 / 3
    if parameter != "mu":
        raise ValueError(f"parameter must be 'omega' or 'mu', got {parameter!r}")
    a = 2 * mu * horizon
    # int (1 - e^(-a t))^2 dt and int (t - (1 - e^(-a t)) / a)^2 dt over a horizon of one. The second is integrated
    # numerically, since the terms of its closed form cancel for small a.
    radius = a**2 * g(a)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    nodes, weights, small = (nodes + 1) / 2, weights / 2, np.minimum(a, 1.0)[..., None]
    drift = np.where(
        a > 1,
        1 / 3 - 1 / a + 2 * (-np.expm1(-a) - a * np.exp(-a)) / a**3 + g(a),
        (nodes + np.expm1(-small * nodes) / small) ** 2 @ weights,
    )
    return radius * horizon / (4 * mu) + np.asarray(shear, float) ** 2 * mu * horizon**3 * drift


def escape_peak(mu: Any, x0: Any) -> np.ndarray | np.floating:
    """`(4 / 27) / (mu x0^2)`: the maximum of K for the bias h of a pitchfork, mu > 0, on the way from x0 to sqrt(mu).

    The bias acts as a shift of x0 by h / mu. With y = x^2 / mu this gives `s = (1 - y) sqrt(y) / (sqrt(mu) x0)`, which is
    largest at y = 1/3. Holds for x0 << sqrt(mu). Verified.

    **Example:**

    ```python
    print(ssntk.laws.escape_peak(1e-4, 1e-3).round(-6))  # 1481000000.0
    ```
    """
    mu = np.asarray(mu, float)
    return np.where(mu > 0, 4 / 27, np.nan) / (mu * np.asarray(x0, float) ** 2)


def pair_participation_ratio(rho: Any) -> np.ndarray | np.floating:
    """`2 / (1 + rho^2)`: the participation ratio of a pair's channel that is driven along q, with rho = |q^T q| / |q|^2.

    The phase runs through all values, so that the channel is `Re q Re q^T + Im q Im q^T`, with eigenvalues `(1 +- rho)
    |q|^2 / 2`. For recurrent weights `rho = |l^T l| |phi^T phi| / (|l|^2 |phi|^2)`, with the presynaptic activity phi.
    Holds for T |Re lambda| >> 1 or T omega >> 1. Verified.

    **Example:**

    ```python
    print(ssntk.laws.pair_participation_ratio(0.0))  # 2.0
    ```
    """
    rho = np.asarray(rho, float)
    return np.where((rho >= 0) & (rho <= 1), 2 / (1 + rho**2), np.nan)


def resonance(drive: Any, rate: Any, detuning: Any = 0.0) -> np.ndarray | np.floating:
    """`K(w) = drive^2 / (rate^2 + (w - w_c)^2)`: a mode's response to an oscillating parameter, drive = |r| |l^T F(w)|.

    It follows from `i w s = lambda s + F`, with `rate` = Re lambda and the critical frequency w_c = Im lambda. `detuning` is
    w - w_c, in rad per unit time. Holds at a stable fixed point, after transients, if inputs are averaged over. Verified.

    **Example:**

    ```python
    print(ssntk.laws.resonance(1.0, -0.1).round(6))  # 100.0
    ```
    """
    return np.asarray(drive, float) ** 2 / (np.asarray(rate, float) ** 2 + np.asarray(detuning, float) ** 2)


def free_forcing(rate: Any, horizon: Any) -> np.ndarray | np.floating:
    """The largest response of a mode to any forcing f, from rest: the top eigenvalue kappa of `V V^T`.

    `V f = int_0^t e^(rate (t - s)) f(s) ds` is the response of the mode. kappa is `1 / (rate^2 + w^2)` with `tan(w T) = w /
    rate`, pi / 2 < w T < pi, and `4 T^2 / pi^2` for rate = 0. It follows from `v'' = (rate^2 - 1 / kappa) v` with v(0) = 0
    and v'(T) = rate v(T). Holds for rate <= 0. Verified.

    **Example:**

    ```python
    print(ssntk.laws.free_forcing(0.0, 2.0).round(4))  # 1.6211
    ```
    """

    def one(rate: float, horizon: float) -> float:
        if not -np.inf < rate <= 0 < horizon < np.inf:
            raise ValueError("rate must not be positive, and horizon must be; both finite")
        # The root of sin(w T) rate = w cos(w T), with w in units of 1 / T.
        root: Any = scipy.optimize.brentq(lambda w: rate * horizon * np.sin(w) - w * np.cos(w), np.pi / 2, np.pi)
        return 1 / (rate**2 + (root / horizon) ** 2)

    return np.vectorize(one, otypes=[float])(rate, horizon)


def flip_steady_state(multiplier: Any, parameter: str = "alternating") -> np.ndarray | np.floating:
    """K* of the map `x -> m x + x^3 + h`, -1 < m < 0, for the bias h: `"constant"`, or `"alternating"` as (-1)^k.

    `multiplier` is m. K* is the square of the sum of `m^j (+-1)^j`. For a constant bias it is `1 / (1 - m)^2`, which tends
    to 1/4; for an alternating one `1 / (1 - |m|)^2`, which diverges. Verified.

    **Example:**

    ```python
    print(ssntk.laws.flip_steady_state(-0.5))  # 4.0
    ```
    """
    if parameter not in ("constant", "alternating"):
        raise ValueError(f"parameter must be 'constant' or 'alternating', got {parameter!r}")
    m = np.asarray(multiplier, float)
    m = np.where((m > -1) & (m < 0), m, np.nan)
    return 1 / (1 - (m if parameter == "constant" else np.abs(m))) ** 2


def map_transient(size: Any, modulus: Any) -> np.ndarray | np.floating:
    """`size^2 (1 + m^2) / (1 - m^2)^3`: the sensitivity of a map's decaying initial state to m = |multiplier| < 1.

    It is the sum of s_k^2 over steps k, with `s_k = k m^(k-1) size` for the initial state `size`; near m = 1 it is about
    `size^2 / (4 (1 - m)^3)`. The law describes m at a flip. Times m^2 it is a double eigenvalue for (log m, angle) at a
    Neimark-Sacker point. Holds for size^2 << 1 - m. Verified.

    **Example:**

    ```python
    print(ssntk.laws.map_transient(1.0, 0.5).round(4))  # 2.963
    ```
    """
    m = np.asarray(modulus, float)
    return np.asarray(size, float) ** 2 * (1 + m**2) / (1 - m**2) ** 3


def circle_phase(radius: Any, steps: Any) -> np.ndarray | np.floating:
    """`r^2 N (N + 1) (2 N + 1) / 6`: the sensitivity to the angle on a Neimark-Sacker circle of `radius` r, over N `steps`.

    It is the sum of (k r)^2 over steps k. Verified.

    **Example:**

    ```python
    print(ssntk.laws.circle_phase(1.0, 10))  # 385.0
    ```
    """
    n = np.asarray(steps, float)
    return np.asarray(radius, float) ** 2 * n * (n + 1) * (2 * n + 1) / 6


def euler_hopf(omega: Any, dt: Any) -> np.ndarray | np.floating:
    """`(-1 + sqrt(1 - (omega dt)^2)) / dt`: the mu at which `z' = (mu + i omega) z` is neutral under Euler steps dt.

    It follows from `|1 + dt (mu + i omega)| = 1`, and is about `-dt omega^2 / 2`: a map loses stability before its flow
    does. NaN for omega dt > 1, since no mu is stable then. Verified.

    **Example:**

    ```python
    print(ssntk.laws.euler_hopf(2.0, 0.1).round(4))  # -0.202
    ```
    """
    turned = np.asarray(omega, float) * np.asarray(dt, float)
    with np.errstate(invalid="ignore"):
        # (-1 + sqrt(1 - y)) / dt, in a form in which nothing cancels.
        return -turned * np.asarray(omega, float) / (1 + np.sqrt(1 - turned**2))
