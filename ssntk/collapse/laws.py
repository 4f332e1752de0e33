"""What theory says of the kernel near a bifurcation, in closed form: functions of numbers and numpy arrays, no network.

K is the squared sensitivity of the state, `K_int` its integral over the horizon T from a start at which it is zero (maps:
the sum over steps). The sensitivity s = dx/dtheta obeys `s' = lambda s + F`, with F = df/dtheta. "Verified" means that the
kernel engine reproduces it on the normal form (tests); outside its range a law is NaN. Sources: Hazelden and Shea-Brown,
arXiv:2605.12763, for the collapse; Kuznetsov, *Elements of Applied Bifurcation Theory*, for the normal forms.
"""

from typing import Any

import numpy as np
import scipy

from ssntk.bifurcation.events.kinds import kind_of

# The smallest |a| at which the closed form of `g` keeps more digits than its series.
_SERIES = 0.05


def g(a: Any) -> np.ndarray | np.floating:
    """`g(a) = [a - 2 (1 - e^-a) + (1 - e^-2a) / 2] / a^3`: the finite-horizon kernel `int_0^T s^2 dt / T^3` under F = 1.

    From `s = (1 - e^(lambda t)) / -lambda` with a = -lambda T, squared and integrated. g(0) = 1/3; `1 / a^2` for a >> 1;
    `e^(-2 a) / (2 |a|^3)` for a << -1, an unstable mode. For all a. Verified.
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
    # Beyond, 1 - 1.5 / a is one to rounding.
    return np.where(a > 1e9, 1 / np.maximum(a, 1.0) ** 2, np.where(np.abs(a) > _SERIES, closed, series))


def channel(drive: Any, rate: Any, horizon: Any) -> np.ndarray | np.floating:
    """`K_int = drive^2 T^3 g(-rate T)`: a mode that decays at `rate` = Re lambda, under a constant drive |r| |l^T F|.

    The master law with F constant. It goes as `drive^2 T / rate^2` until |rate| T is about 1, and saturates at `drive^2 T^3
    / 3`. At rest at x* under constant input; on the unstable side (`rate` > 0) only while the state stays. Verified, and
    fails past a crossing that the state escapes from.
    """
    return np.asarray(drive, float) ** 2 * np.asarray(horizon, float) ** 3 * g(-np.asarray(rate) * np.asarray(horizon))


def fold_rate(distance: Any, curvature: Any, push: Any) -> np.ndarray | np.floating:
    """`lambda = -sqrt(4 |a| |push| distance)` beside a generic fold.

    From `y' = push e + a y^2` along the critical direction: a is the normal form's coefficient `l.B(r, r) / 2` and
    `push = l^T df/dp`. Up to O(distance). Verified on random networks.
    """
    return -np.sqrt(4 * np.abs(np.asarray(curvature, float) * np.asarray(push)) * np.asarray(distance))


def steady_state(kind: str, mu: Any, parameter: str = "h", *, omega: Any = 1.0) -> np.ndarray | np.floating:
    """K* = (dx*/dtheta)^2 = (F / lambda)^2 on the stable branch of a normal form, by the implicit function theorem.

    | `kind` | branch | `"mu"` | `"h"` |
    |---|---|---|---|
    | `"saddle-node"`, mu > 0 | sqrt(mu) | 1 / (4 mu) | the same |
    | `"transcritical"`, mu < 0 | 0 | 0 | 1 / mu^2 |
    | `"transcritical"`, mu > 0 | mu | 1 | 1 / mu^2 |
    | `"pitchfork"`, mu < 0 | 0 | 0 | 1 / mu^2 |
    | `"pitchfork"`, mu > 0 | +- sqrt(mu) | 1 / (4 mu) | 1 / (4 mu^2) |
    | `"hopf"`, mu < 0 | 0 | 0 | 1 / (mu^2 + omega^2), twice: bounded |

    **Arguments:** `parameter`: `"mu"`, the bifurcation parameter, or `"h"`, a constant bias. `omega`: of a Hopf point.

    NaN where there is no stable fixed point. Raises `ValueError` for a kind or parameter that is not in the table. Verified.
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


# (prefactor, power of T) of K_int on the critical point itself.
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
    """K_int of a trajectory that starts at O(1) and decays, as a power of time, onto the critical point mu = 0.

    `x' = -x^p` gives `x = ((p - 1) t)^(-1/(p-1))`, so that `s' = -p s / ((p - 1) t) + F(x)`, a power of t in each case:
    T^3/27 (saddle-node mu, transcritical h), T/4 (transcritical mu), 4 T^3/75 (pitchfork h), T^2/16 (pitchfork and Hopf mu),
    T^2/4 (Hopf omega). For T >> 1, up to O(log T / T). Verified.

    Raises `ValueError` for another kind or parameter.
    """
    kind = kind_of(kind)
    if (kind, parameter) not in _LANDING:
        known = ", ".join(f"{kind} {parameter}" for kind, parameter in _LANDING)
        raise ValueError(f"kind and parameter must be one of {known}; got {kind!r} and {parameter!r}")
    prefactor, power = _LANDING[kind, parameter]
    horizon = np.asarray(horizon, float)
    return np.where(horizon > 0, prefactor * horizon**power, np.nan)


def ghost_time(mu: Any) -> np.ndarray | np.floating:
    """The time `pi / sqrt(-mu)` that the ghost of a saddle-node, mu < 0, holds a trajectory: `int dx / (x^2 - mu)`.

    For -mu << the square of where it comes from. Verified.
    """
    return np.pi / np.sqrt(-np.asarray(mu, float))


def ghost(mu: Any, phase: Any = np.pi / 2) -> np.ndarray | np.floating:
    """K = s^2 in the ghost of a saddle-node, mu < 0, at `phase` = sqrt(-mu) t: 0 at the entrance, pi at the exit.

    `x = sqrt(-mu) cot(phase)` and `s' = -2 x s + 1` give `s = (phase / 2 - sin(2 phase) / 4) / (sqrt(-mu) sin^2(phase))`:
    `pi^2 / (16 |mu|)` in the middle, and far more at the exit, where s is the speed times the passage time's derivative.
    For -mu << 1. Verified.
    """
    phase = np.asarray(phase, float)
    return ((phase / 2 - np.sin(2 * phase) / 4) / np.sin(phase) ** 2) ** 2 / -np.asarray(mu, float)


def transient(size: Any, rate: Any, horizon: Any = np.inf) -> np.ndarray | np.floating:
    """`K_int = size^2 int_0^T t^2 e^(2 rate t) dt`: the decay of a small initial state answers to its own rate, rate < 0.

    `s = t x` with `x = size e^(rate t)`: `size^2 / (4 |rate|^3)` for T >> 1 / |rate|, `size^2 T^3 / 3` before. For a
    pitchfork's mu, and for (mu, omega) at a Hopf focus, where this is a double eigenvalue. For size^2 << |rate|. Verified.
    """
    size, a = np.asarray(size, float), -np.asarray(rate, float) * np.asarray(horizon, float)
    a = np.where(np.isnan(a), 0.0, a)
    cut = np.where(np.isinf(a), 0.0, a)
    # 1 - e^(-2a) (1 + 2a + 2a^2), by its series where it cancels.
    small = 4 * cut**3 / 3 - 2 * cut**4 + 8 * cut**5 / 5 - 8 * cut**6 / 9
    left = np.where(np.isinf(a), 1.0, np.where(cut < 0.01, small, 1 - np.exp(-2 * cut) * (1 + 2 * cut + 2 * cut**2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        long = size**2 * left / (4 * np.abs(np.asarray(rate, float)) ** 3)
    short = size**2 * np.asarray(horizon, float) ** 3 / 3
    return np.where(np.asarray(rate) == 0, short, np.where(np.asarray(rate) < 0, long, np.nan))


def limit_cycle(parameter: str, mu: Any, horizon: Any, *, shear: Any = 0.0) -> np.ndarray | np.floating:
    """K_int on the limit cycle of the Hopf normal form, mu > 0, from a start on it. Verified.

    - `"omega"`: the phase drifts, `s = t sqrt(mu)`: `mu T^3 / 3`, the isochron channel.
    - `"mu"`: the radius answers, `s = (1 - e^(-2 mu t)) / (2 sqrt(mu))`, about `T / (4 mu)`; with shear the phase follows
      it, `s = shear sqrt(mu) (t - (1 - e^(-2 mu t)) / (2 mu))`, which adds about `shear^2 mu T^3 / 3`.

    Two modes for mu T << 1; one, the phase, for mu T >> 1. A constant bias is not amplified.
    """
    mu, horizon = np.asarray(mu, float), np.asarray(horizon, float)
    mu = np.where(mu > 0, mu, np.nan)
    if parameter == "omega":
        return mu * horizon**3 / 3
    if parameter != "mu":
        raise ValueError(f"parameter must be 'omega' or 'mu', got {parameter!r}")
    a = 2 * mu * horizon
    # int (1 - e^(-a t))^2 dt and int (t - (1 - e^(-a t)) / a)^2 dt over a horizon of one; the second cancels for small a.
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
    """max of K for the bias h of a pitchfork, mu > 0, on the way from x0 to sqrt(mu): `(4 / 27) / (mu x0^2)`.

    h acts as a shift of x0 by h / mu, so that `s = (1 - y) sqrt(y) / (sqrt(mu) x0)` with y = x^2 / mu, which is largest at
    y = 1/3. For x0 << sqrt(mu). Verified.
    """
    mu = np.asarray(mu, float)
    return np.where(mu > 0, 4 / 27, np.nan) / (mu * np.asarray(x0, float) ** 2)


def pair_participation_ratio(rho: Any) -> np.ndarray | np.floating:
    """`2 / (1 + rho^2)`: the participation ratio of a pair's channel, driven along q, where rho = |q^T q| / |q|^2.

    The phase runs through all values, so that the channel is `Re q Re q^T + Im q Im q^T`, of eigenvalues `(1 +- rho) |q|^2
    / 2`. For recurrent weights `rho = |l^T l| |phi^T phi| / (|l|^2 |phi|^2)`. For T |Re lambda| >> 1 or T omega >> 1.
    Verified.
    """
    rho = np.asarray(rho, float)
    return np.where((rho >= 0) & (rho <= 1), 2 / (1 + rho**2), np.nan)


def resonance(drive: Any, rate: Any, detuning: Any = 0.0) -> np.ndarray | np.floating:
    """`K(w) = drive^2 / (rate^2 + (w - w_c)^2)`: a mode's answer to a parameter that oscillates, drive = |r| |l^T F(w)|.

    From `i w s = lambda s + F` with Im lambda = w_c, the critical frequency; `detuning` = w - w_c. At a stable fixed point,
    after transients, for inputs averaged over. Verified.
    """
    return np.asarray(drive, float) ** 2 / (np.asarray(rate, float) ** 2 + np.asarray(detuning, float) ** 2)


def free_forcing(rate: Any, horizon: Any) -> np.ndarray | np.floating:
    """The largest eigenvalue of `V V^T`, `V f = int_0^t e^(rate (t - s)) f(s) ds`: a mode under any forcing, from rest.

    `1 / (rate^2 + w^2)` with `tan(w T) = w / rate`, pi / 2 < w T < pi; `4 T^2 / pi^2` at rate = 0. From `v'' = (rate^2 - 1 /
    kappa) v` with v(0) = 0 and v'(T) = rate v(T). For rate <= 0. Verified.
    """

    def one(rate: float, horizon: float) -> float:
        if not -np.inf < rate <= 0 < horizon < np.inf:
            raise ValueError("rate must not be positive, and horizon must be; both finite")
        # sin(w T) rate = w cos(w T), in units of T.
        root: Any = scipy.optimize.brentq(lambda w: rate * horizon * np.sin(w) - w * np.cos(w), np.pi / 2, np.pi)
        return 1 / (rate**2 + (root / horizon) ** 2)

    return np.vectorize(one, otypes=[float])(rate, horizon)


def flip_steady_state(multiplier: Any, parameter: str = "alternating") -> np.ndarray | np.floating:
    """K* of the map `x -> m x + x^3 + h`, -1 < m < 0, for a bias: `"constant"`, or `"alternating"` as (-1)^k.

    The sum of `m^j (+-1)^j`: `1 / (1 - m)^2`, which tends to 1/4, or `1 / (1 - |m|)^2`. Verified.
    """
    if parameter not in ("constant", "alternating"):
        raise ValueError(f"parameter must be 'constant' or 'alternating', got {parameter!r}")
    m = np.asarray(multiplier, float)
    m = np.where((m > -1) & (m < 0), m, np.nan)
    return 1 / (1 - (m if parameter == "constant" else np.abs(m))) ** 2


def map_transient(size: Any, modulus: Any) -> np.ndarray | np.floating:
    """`sum_k s_k^2 = size^2 (1 + m^2) / (1 - m^2)^3`, m = |multiplier| < 1: a map's small initial state and its multiplier.

    `s_k = k m^(k-1) size`; `size^2 / (4 (1 - m)^3)` near one. For a flip's m; of a Neimark-Sacker point's (log m, angle) it
    is a double eigenvalue, times m^2. For size^2 << 1 - m. Verified.
    """
    m = np.asarray(modulus, float)
    return np.asarray(size, float) ** 2 * (1 + m**2) / (1 - m**2) ** 3


def circle_phase(radius: Any, steps: Any) -> np.ndarray | np.floating:
    """`sum_k (k r)^2 = r^2 N (N + 1) (2 N + 1) / 6`: a Neimark-Sacker circle and its angle, over N steps. Verified."""
    n = np.asarray(steps, float)
    return np.asarray(radius, float) ** 2 * n * (n + 1) * (2 * n + 1) / 6


def euler_hopf(omega: Any, dt: Any) -> np.ndarray | np.floating:
    """mu at which `z' = (mu + i omega) z` is neutral under Euler steps: `(-1 + sqrt(1 - (omega dt)^2)) / dt`.

    From `|1 + dt (mu + i omega)| = 1`; about `-dt omega^2 / 2`, so that a map loses stability before its flow does, and NaN
    for omega dt > 1, where no mu is stable. Verified.
    """
    turned = np.asarray(omega, float) * np.asarray(dt, float)
    with np.errstate(invalid="ignore"):
        # (-1 + sqrt(1 - y)) / dt without its cancellation.
        return -turned * np.asarray(omega, float) / (1 + np.sqrt(1 - turned**2))
