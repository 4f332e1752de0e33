"""Laws of random networks at rest, in closed form: singular values of the Jacobian, stability radius, steady-state kernel.

The network is `dx/dt = -x + g W phi(x) + U u + b` at x = 0 with phi'(0) = 1 and n units. Time is in units of the leak tau,
so that df/dx is A = -1 + g W. The ensemble of W says which law holds:

- `"iid"`: independent entries of mean 0 and variance 1/n, of any distribution. Entries that are Gaussian, signs, sparse or
  of Student's t agree within 1 % at n = 256 and g = 0.4, within 10 % at g = 0.8.
- `"orthogonal"`: orthogonal matrices, uniformly distributed.
- `"symmetric"`: symmetric matrices, entries of variance 1/n.

All laws are for n -> infinity unless a number of units is an argument. What decides where they hold is not n, but
`nu = n (1 - g^2)^2` (`resolved`): from nu = 20 on they hold to about 10 %. They also hold for the Euler map with a step
of tau, which `torch.nn.RNN` is, with df/dx read as W g. At a frequency w, A is replaced by `A - i w`.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from ssntk.errors import as_choice

ENSEMBLES = ("iid", "orthogonal", "symmetric")
# The width of the window around the edge in which n units do not resolve the smallest singular value: the median of n units
# is that of infinitely many times 1 + BIAS g nu^(-2/3). Measured, not derived.
BIAS = 1.7

Values = np.ndarray | np.floating


def singular_values(gain: Any, *, frequency: Any = 0.0, ensemble: str = "iid") -> tuple[Values, Values]:
    """The smallest and the largest singular value of `A - i w` for a network at rest, in units of 1 / tau.

    For `"iid"` entries they are the edges of an information-plus-noise matrix (Dozier and Silverstein, *J. Multivariate
    Analysis* 98, 2007). At w = 0:

        s_+^2 = [8 + 20 g^2 - g^4 + g (8 + g^2)^(3/2)] / 8,    s_- = (1 - g^2)^(3/2) / s_+

    and with |z|^2 = 1 + w^2 they are `|z| s(g / |z|)`. For `"orthogonal"` matrices they are `|z| -+ g`, for `"symmetric"`
    ones `sqrt((1 -+ 2 g)^2 + w^2)`.

    **Arguments:**

    - `gain`: g, positive numbers. The network is stable below 1, a symmetric one below 1/2; beyond, the result is NaN.
    - `frequency`: w, angular, in rad per tau.
    - `ensemble`: `"iid"`, `"orthogonal"` or `"symmetric"`.

    Raises `ValueError` for a gain that is not positive, or an unknown ensemble. Verified for nu >= 20; the median smallest
    value of n units is larger by the factor `1 + 1.7 g nu^(-2/3)`.

    **Example:**

    ```python
    smallest, largest = ssntk.infinite.singular_values(0.9)
    print(smallest.round(4), largest.round(4))  # 0.0341 2.4259
    ```
    """
    g = _gain(gain, ensemble)
    w2 = as_numbers(frequency, "frequency") ** 2
    z = np.sqrt(1 + w2)
    if ensemble == "orthogonal":
        return z - g, z + g
    if ensemble == "symmetric":
        return np.sqrt((1 - 2 * g) ** 2 + w2), np.sqrt((1 + 2 * g) ** 2 + w2)
    g = g / z
    largest = np.sqrt((8 + 20 * g**2 - g**4 + g * (8 + g**2) ** 1.5) / 8)
    # The difference of edges would cancel. Their product does not.
    return z * ((1 - g) * (1 + g)) ** 1.5 / largest, z * largest


def density(s: Any, gain: Any, *, frequency: Any = 0.0) -> Values:
    """The density of the singular values s of `A - i w`, for independent entries, in units of tau.

    With zeta = s^2, it is the imaginary part of the root w of the cubic `zeta w^2 (w - 1) = (1 - g^2) w - 1`, times
    `2 s / (pi g^2)`. It is 0 outside of the two edges (`singular_values`), and integrates to one.

    **Arguments:** `s`: singular values, in units of 1 / tau. The others as in `singular_values`. Verified.

    **Example:**

    ```python
    s = np.linspace(*ssntk.infinite.singular_values(0.5), 20001)
    print(np.trapezoid(ssntk.infinite.density(s, 0.5), s).round(4))  # 1.0
    ```
    """
    z = np.sqrt(1 + as_numbers(frequency, "frequency") ** 2)
    g = _gain(gain, "iid") / z
    given, g, z = np.broadcast_arrays(as_numbers(s, "s") / z, g, z)
    low, high = singular_values(np.where(np.isfinite(g), g, 0.5))
    inside = (given > low) & (given < high)
    s, known = np.where(inside, given, 1.0), np.where(np.isfinite(g), g, 0.5)
    # With w = 1 + g / v: v^3 + ((zeta - 1) / g + g) v^2 + 2 zeta v + zeta g = 0, which stays apart from 0 = 0 for small g.
    companion = np.zeros((*s.shape, 3, 3))
    companion[..., 0, 0] = -((s - 1) * (s + 1) / known + known)
    companion[..., 0, 1], companion[..., 0, 2] = -2 * s**2, -(s**2) * known
    companion[..., 1, 0] = companion[..., 2, 1] = 1.0
    v = np.linalg.eigvals(companion).astype(complex)
    found = np.where(inside, 2 * s * (1 / v).imag.max(axis=-1) / (np.pi * known * z), 0.0)
    return np.where(np.isfinite(g + given), found, np.nan)[()]


def trace(gain: Any, *, frequency: Any = 0.0, ensemble: str = "iid") -> Values:
    """`tr K / (n c)`: the mean eigenvalue of the steady-state kernel at rest, for drives of size c, in units of tau^2.

    With `F F^T = c 1` the kernel is `K = c (A^T A)^-1` ([`steady_state_ntk`][], at a frequency [`frequency_ntk`][]). For
    independent entries and for orthogonal matrices the law is `1 / (1 + w^2 - g^2)`. At a nonlinear fixed point g^2 is
    `g^2 <phi'(x)^2>`, the mean square of a row of A + 1.

    Verified, for medians over networks: real matrices have singular values near 0 so often that the *mean* of tr K does not
    exist at any n. Measured for `"iid"`: the median is larger by about `1.5 g^2 / nu`, one network scatters by 2 to 2.5
    g / nu.

    **Arguments and errors:** as in `singular_values`.

    **Example:**

    ```python
    print(ssntk.infinite.trace(0.8).round(4))  # 2.7778
    ```
    """
    g = _gain(gain, ensemble)
    w2 = as_numbers(frequency, "frequency") ** 2
    if ensemble == "symmetric":
        q, _ = _symmetric(g, w2)
        return q / (1 - q) / g**2
    return 1 / (1 + w2 - g**2)


def participation_ratio(gain: Any, *, frequency: Any = 0.0, kurtosis: Any = 1.0, ensemble: str = "iid") -> Values:
    """`PR / n`: the share of directions that take part in the steady-state kernel at rest, `(tr K)^2 / tr K^2 / n`.

    For independent entries it is `(1 - Q)^2 / (1 + (kurtosis - 1) Q^2)` with `Q = g^2 / (1 + w^2)`; for orthogonal matrices
    `(1 - Q) / (1 + Q)`. The collapse of a random network, PR = 1, is at `1 - g = 1 / (2 sqrt n)`.

    **Arguments:** `kurtosis`: at a nonlinear fixed point the slopes phi'(x) differ between units. With g^2 as
    `g^2 <phi'^2>`, it is `<phi'^4> / <phi'^2>^2`. Only for `"iid"`. The others as in `singular_values`.

    Raises as `singular_values` does, and for a kurtosis below 1. Verified: the median of networks with nu >= 20 agrees
    within 10 %, at fixed points with random biases too.

    **Example:**

    ```python
    print(ssntk.infinite.participation_ratio(0.8).round(4))  # 0.1296
    ```
    """
    g = _gain(gain, ensemble)
    shape = as_numbers(kurtosis, "kurtosis")
    if not (shape >= 1).all():
        raise ValueError(f"kurtosis must be at least 1, got {kurtosis!r}")
    if ensemble != "iid" and (shape != 1).any():
        raise ValueError(f"kurtosis is only known for the ensemble 'iid', got {kurtosis!r} for {ensemble!r}")
    w2 = as_numbers(frequency, "frequency") ** 2
    if ensemble == "symmetric":
        q, square = _symmetric(g, w2)
        return (1 - q) * square / (1 + q)
    ratio = g**2 / (1 + w2)
    if ensemble == "orthogonal":
        return (1 - ratio) / (1 + ratio)
    return (1 - ratio) ** 2 / (1 + (shape - 1) * ratio**2)


def condition_number(gain: Any, *, frequency: Any = 0.0, ensemble: str = "iid") -> Values:
    """The condition number of the steady-state kernel at rest: the squared ratio of the two `singular_values`.

    For independent entries it is `s_+^4 / (1 - g^2)^3` at frequency 0. Arguments, errors and range are those of
    `singular_values`. Verified.

    **Example:**

    ```python
    print(ssntk.infinite.condition_number(0.8).round(2))  # 554.96
    ```
    """
    smallest, largest = singular_values(gain, frequency=frequency, ensemble=ensemble)
    return (largest / smallest) ** 2


def resolved(n: Any, gain: Any) -> Values:
    """`nu = n (1 - g^2)^2`: how far n units resolve the laws of infinitely many, and the law's participation ratio.

    Errors of the laws fall with nu: 10 % in the participation ratio at 20. Below 1 the spectrum of n units is in the window
    in which the gain of the bifurcation itself scatters. NaN for a gain of 1 or more.

    Raises `ValueError` for a gain or a number of units that is not positive. Verified.

    **Example:**

    ```python
    print(ssntk.infinite.resolved(1024, 0.95).round(2))  # 9.73
    ```
    """
    g = _gain(gain, "iid")
    return _units(n) * ((1 - g) * (1 + g)) ** 2


def stability_radius(gain: Any, n: Any = None, *, ensemble: str = "iid") -> Values:
    """The stability radius of a random network at rest, in units of 1 / tau (`ssntk.stability_radius`).

    It is the smallest singular value at frequency 0: `min_w sigma_min(i w - A)` is attained there as n -> infinity. It is
    not 1 - g, which overstates it by 2.1 at g = 0.8 and by 2.9 at 0.9, since random networks are not normal. An orthogonal
    matrix is: its radius is 1 - g. A symmetric one has 1 - 2 g.

    **Arguments:** `n`: the number of units. `None`: infinitely many. With n, and for `"iid"` only, it is the median of
    networks of n units, the limit times `1 + 1.7 g nu^(-2/3)`: measured, within 4 % of 15 cells with n from 32 to 128 and g
    from 0.3 to 0.9, and NaN below nu = 1. At n = 16 within 2 % up to g = 0.7, and 21 % too low at 0.8. The others as in
    `singular_values`.

    Raises as `singular_values` does, and if n is given for another ensemble. Verified.

    **Example:**

    ```python
    print(ssntk.infinite.stability_radius(0.9).round(4), ssntk.infinite.stability_radius(0.9, 128).round(4))  # 0.0341 0.053
    ```
    """
    smallest = singular_values(gain, ensemble=ensemble)[0]
    if n is None:
        return smallest
    if ensemble != "iid":
        raise ValueError(f"n must be None for the ensemble {ensemble!r}: its correction is not known")
    g, nu = np.asarray(gain, float), resolved(n, gain)
    return np.where(nu >= 1, smallest * (1 + BIAS * g * np.maximum(nu, 1) ** (-2 / 3)), np.nan)[()]


def gain_at(radius: Any, n: Any = None, *, ensemble: str = "iid") -> Values:
    """The gain at which a random network has this `stability_radius`: its inverse, NaN where there is none.

    So the verdicts of [`criticality`][] are gains on random networks: 0.33 is met at g = 0.537 and 0.1 at 0.794.

    **Arguments:** `radius`: positive numbers, in units of 1 / tau. The others as in `stability_radius`.

    Raises as `stability_radius` does, and for a radius that is not positive.

    **Example:**

    ```python
    print(ssntk.infinite.gain_at(0.33).round(3), ssntk.infinite.gain_at(0.33, 64).round(3))  # 0.537 0.566
    ```
    """
    as_choice(ensemble, "ensemble", ENSEMBLES)
    if not (as_numbers(radius, "radius") > 0).all():
        raise ValueError(f"radius must be positive, got {radius!r}")

    def one(r: float, units: float) -> float:
        n = None if np.isnan(units) else units
        top = 0.5 if ensemble == "symmetric" else 1.0 if n is None else np.sqrt(max(1 - n**-0.5, 0.0))
        ends = np.finfo(float).tiny, top * (1 - 4 * np.finfo(float).eps)

        def gap(g: float) -> float:
            return float(stability_radius(g, n, ensemble=ensemble)) - r

        if top == 0 or not gap(ends[0]) > 0 > gap(ends[1]):
            return np.nan
        return float(scipy.optimize.root_scalar(gap, bracket=ends, xtol=1e-15).root)

    units = np.nan if n is None else _units(n)
    return np.vectorize(one, otypes=[float])(radius, units)[()]


class Crossing(NamedTuple):
    """The gain at which random networks of n units lose stability at rest: see `crossing`.

    - `median`, `lower`, `upper`: the median and the quartiles of that gain.
    - `pitchfork`: the share of networks in which a real eigenvalue crosses first; in the others a pair does.

    **Example:**

    ```python
    print(isinstance(ssntk.infinite.crossing(64), ssntk.infinite.Crossing))  # True
    ```
    """

    median: Values
    lower: Values
    upper: Values
    pitchfork: Values


# n: median, lower and upper quartile of g_c = 1 / max Re eig W, and the share of real eigenvalues; Gaussian entries, by
# `python sweeps/claims.py crossing`.
_CROSSINGS = np.array(
    [
        [8, 1.2401, 1.0019, 1.5771, 0.601],
        [16, 1.1284, 0.9841, 1.2944, 0.568],
        [32, 1.0703, 0.9804, 1.1643, 0.532],
        [64, 1.0415, 0.9820, 1.0993, 0.495],
        [128, 1.0219, 0.9824, 1.0557, 0.477],
        [256, 1.0137, 0.9872, 1.0364, 0.412],
        [512, 1.0061, 0.9865, 1.0254, 0.440],
    ]
)


def crossing(n: Any) -> Crossing:
    """The gain at which a random network of n units loses its stability at rest, and the share of pitchforks.

    With Gaussian entries `g_c = 1 / max Re eig W`. For large n it is 1, but slowly: about `1 + 0.3 / sqrt n`, with quartiles
    of 0.6 / sqrt n around. Measured on random matrices of 8 to 512 units (2000 or more draws up to 128, 400 of 256, 200 of
    512), interpolated in 1 / sqrt n; NaN outside. The asymptotic formula of Cipolloni, Erdos, Schroeder and Xu
    (arXiv:2206.04448) is of no use here: its correction has the wrong sign for every n that a computer holds.

    Raises `ValueError` for a number of units that is not positive.

    **Example:**

    ```python
    print(ssntk.infinite.crossing(64).median.round(2))  # 1.04
    ```
    """
    at, table = _units(n), _CROSSINGS[::-1]
    places = table[:, 0] ** -0.5
    known = [np.asarray(np.interp(at**-0.5, places, column, np.nan, np.nan))[()] for column in table.T[1:]]
    return Crossing(*known)


def as_numbers(value: Any, name: str) -> np.ndarray:
    """`value` as numbers of double precision, of which some may be infinite or NaN. Nothing here is compiled."""
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got {value!r}")
    return found.astype(float)


def as_gain(gain: Any) -> np.ndarray:
    """Gains, which must be positive."""
    g = as_numbers(gain, "gain")
    if not (g > 0).all():
        raise ValueError(f"gain must be positive, got {gain!r}")
    return g


def _gain(gain: Any, ensemble: str) -> np.ndarray:
    """The gains, NaN where a network at rest is unstable."""
    as_choice(ensemble, "ensemble", ENSEMBLES)
    g = as_gain(gain)
    return np.where(g < (0.5 if ensemble == "symmetric" else 1.0), g, np.nan)


def _units(n: Any) -> np.ndarray:
    units = as_numbers(n, "n")
    if not (units > 0).all():
        raise ValueError(f"n must be positive, got {n!r}")
    return units


def _symmetric(g: Values, w2: Values) -> tuple[Values, Values]:
    """q = |v|^2 and |1 - v^2|^2, with v the root inside the unit circle of `v + 1/v = (1 - i w) / g`.

    1 / (a - m) has the mean v over the semicircle of m. Means of `1 / |a - m|^2` and of its square follow by partial
    fractions: q / (1 - q) and `q^2 (1 + q) / ((1 - q)^3 |1 - v^2|^2)`.
    """
    a = (1 - 1j * np.sqrt(w2)) / np.where(np.isfinite(g), g, 0.25)
    root = np.sqrt(a - 2) * np.sqrt(a + 2)
    v = 2 / (a + root) + 0 * g
    return np.abs(v) ** 2, np.abs(1 - v**2) ** 2
