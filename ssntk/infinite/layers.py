"""Closed forms for feed-forward networks of infinite width, as yardsticks for recurrent ones: functions of numbers.

Inputs have length one, and the weights of a layer have the variance 1 / width, so that a kernel is a function of the
cosine of two inputs. `depth` counts the matrices of weights, all of which are trained. "Verified" means that a test compares
the law with numbers that were computed in another way. Outside its range a law returns NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.special

from ssntk.errors import NumericalError, as_count
from ssntk.infinite.rest import as_numbers
from ssntk.nouns import HostReal

# Below this angle the series of `sin t - t cos t` keeps more digits than the difference.
_SERIES = 0.3
# How far a cosine of two vectors may lie outside of [-1, 1] by rounding.
_ROUNDING = 16 * np.finfo(float).eps


def relu_nngp(cosine: Any, depth: Any, *, slope: Any = 0.5) -> HostReal:
    """The covariance of the outputs of a random network (NNGP), for inputs whose cosine is given.

    **Arguments:**

    - `cosine`: in [-1, 1], any shape. `depth`: how many matrices of weights, at least 1.
    - `slope`: `b^2 / (a^2 + b^2)` of the activation `a s + b |s|`, which is scaled such that variances are kept: 1/2 for
      ReLU, 1 for abs, 0 for linear networks.

    **Returns:** an array of the shape of `cosine`, in units of the variance of one output. NaN for cosines or slopes out of
    range.

    Each layer maps the cosine u = cos t to `u + slope (2 / pi) (sin t - t cos t)` (Cho and Saul, 2009). Verified to 1e-12.
    Raises `ValueError` for a depth that is no count.

    **Example:**

    ```python
    print(ssntk.infinite.relu_nngp(0.0, 2).round(4))  # 0.3183
    ```
    """
    return np.asarray(_layers(cosine, depth, slope)[0])[()]


def relu_ntk(cosine: Any, depth: Any, *, slope: Any = 0.5) -> HostReal:
    """The Neural Tangent Kernel of a network of infinite width, for inputs whose cosine is given.

    With the covariances rho of [`relu_nngp`][ssntk.infinite.relu_nngp], `ntk <- rho' + k0(rho) ntk` (Jacot et al., 2018),
    where k0 is the mean product of slopes. It is `depth` at the cosine 1. Of two layers of ReLU it is
    `[2 u arccos(-u) + sqrt(1 - u^2)] / pi`; of a linear network it is `depth * cosine`. Arguments, NaN and errors are as in
    `relu_nngp`. Verified to 1e-12, and to 1e-9 for 4096 layers.

    **Example:**

    ```python
    print(ssntk.infinite.relu_ntk([1.0, 0.5], 2).round(4))  # [2.     0.9423]
    ```
    """
    return np.asarray(_layers(cosine, depth, slope)[1])[()]


def relu_condition_number(inputs: Any, depth: Any, *, cosine: Any = 0.0, slope: Any = 0.5) -> HostReal:
    """The condition number of the kernel of `inputs` inputs that all have the same cosine to each other.

    It is `(depth + (inputs - 1) k) / (depth - k)` with k = [`relu_ntk`][ssntk.infinite.relu_ntk]. For `depth` = `np.inf` it
    is the limit `1 + inputs / 3` at a fixed number of inputs, for any inputs of which no two are parallel, and any slope > 0
    (Xiao, Pennington and Schoenholz, 2020). At a fixed depth the condition number of n points on a sphere grows faster than
    n. The limit of smooth activations at their edge of chaos is another, `1 + inputs / 2`. Verified.

    **Arguments:** `inputs`: at least 1. `depth`: a count, or `np.inf`. `cosine`, `slope`: as in `relu_nngp`. NaN for a
    cosine below `-1 / (inputs - 1)`, which so many inputs cannot all have, and for the limit of a slope of 0.

    **Example:**

    ```python
    print(ssntk.infinite.relu_condition_number(10, 64).round(3), ssntk.infinite.relu_condition_number(10, np.inf).round(3))
    # 4.917 4.333
    ```
    """
    count = as_count(inputs, "inputs")
    u, bent = np.broadcast_arrays(as_numbers(cosine, "cosine"), as_numbers(slope, "slope"))
    # All numbers from -1 on are possible for one input or two.
    possible = (u >= -1 / max(count - 1, 1) - _ROUNDING) & (u <= 1 + _ROUNDING)
    if depth == np.inf:
        limit = np.where(possible & (u < 1) & (bent > 0) & (bent <= 1), 1 + count / 3, np.nan)
        return limit[()] if count > 1 else np.ones_like(limit)[()]
    kernel = _layers(u, depth, bent)[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (int(depth) + (count - 1) * kernel) / (int(depth) - kernel if count > 1 else int(depth) + 0 * kernel)
    return np.where(possible, found, np.nan)[()]


def linear_residual(depth: Any, scale: Any) -> tuple[HostReal, HostReal]:
    """`((1 + s^2)^L, L s^2 (1 + s^2)^(L - 1))`: NNGP and NTK of L linear residual blocks, as factors of the inputs' product.

    A block is `h <- h + s W h`, with `scale` s and weights W of variance 1 / width. Both grow exponentially with the depth
    L; with s = 1 / L they stay bounded, as in a flow. Verified. Raises `ValueError` for a depth that is no count.

    **Example:**

    ```python
    nngp, ntk = ssntk.infinite.linear_residual(8, 0.5)
    print(nngp.round(3), ntk.round(3))  # 5.96 9.537
    ```
    """
    count, square = as_count(depth, "depth", least=0), np.square(as_numbers(scale, "scale"))
    with np.errstate(over="ignore"):
        return ((1 + square) ** count)[()], (count * square * (1 + square) ** (count - 1.0))[()]


def harmonic_spectrum(kernel: Any, dimension: Any, degree: Any) -> np.ndarray:
    """The eigenvalues of a kernel of the cosine on a sphere, for the spherical harmonics of degree 0 to `degree`.

    The measure is uniform and has the mass one (Funk and Hecke). For ReLU networks the eigenvalues fall as
    `l^-(dimension + 1)`, whatever their depth (Bietti and Bach, 2021); those of odd degree from 3 on are zero for two
    layers.

    **Arguments:**

    - `kernel`: a function of an array of cosines, such as `lambda u: ssntk.infinite.relu_ntk(u, 3)`. It must be smooth
      except at the cosines -1 and 1.
    - `dimension`: of the sphere: 1 for the circle, 2 for the sphere in space. `degree`: at least 0.

    **Returns:** (degree + 1,). Verified: to 1e-10 on the sphere in space. The error is about 1e-15 of the largest.

    Raises `ValueError` that names the argument. Raises `NumericalError` if the integrals are not resolved, as for a kernel
    with a corner.

    **Example:**

    ```python
    kernel = lambda u: ssntk.infinite.relu_ntk(u, 2)
    print(ssntk.infinite.harmonic_spectrum(kernel, 2, 2).round(6))  # [0.5      0.333333 0.078125]
    ```
    """
    if not callable(kernel):
        raise ValueError(f"kernel must be a function of cosines, got {type(kernel).__name__}")
    d, most = as_count(dimension, "dimension"), as_count(degree, "degree", least=0)
    rough, found = (_projected(kernel, d, most, nodes) for nodes in (most + 96, 2 * (most + 96)))
    largest = np.abs(found).max()
    if not np.abs(rough - found).max() <= 1e-9 * largest:
        raise NumericalError(
            f"the eigenvalues change by {np.abs(rough - found).max() / largest:.1e} of the largest with twice the nodes: "
            "the kernel must be smooth between the cosines -1 and 1"
        )
    return found


def _projected(kernel: Callable[..., Any], d: int, most: int, nodes: int) -> np.ndarray:
    """The eigenvalues by the rule of Gauss and Legendre in the angle, in which the kernels are smooth up to the ends."""
    x, weights = scipy.special.roots_legendre(nodes)
    angle = np.pi / 2 * (1 + x)
    u, weights = np.cos(angle), weights * np.sin(angle) ** (d - 1)
    values = np.asarray(kernel(u), float)
    if values.shape != u.shape:
        raise ValueError(f"kernel must return an array of the shape of its argument, {u.shape}, got {values.shape}")
    values = values * weights / weights.sum()
    # Polynomials with the value one at the cosine 1, by their recurrence in the degree.
    before, now, found = np.zeros_like(u), np.ones_like(u), np.empty(most + 1)
    for k in range(most + 1):
        found[k] = values @ now
        after = ((2 * k + d - 1) * u * now - k * before) / (k + d - 1) if k + d > 1 else u
        before, now = now, after
    return found


def _layers(cosine: Any, depth: Any, slope: Any) -> tuple[HostReal, HostReal]:
    """The covariance and the kernel after `depth` matrices of weights."""
    count = as_count(depth, "depth")
    u, bent = np.broadcast_arrays(as_numbers(cosine, "cosine"), as_numbers(slope, "slope"))
    # Cosines of inputs with themselves are 1 but for rounding.
    known = (np.abs(u) <= 1 + _ROUNDING) & (bent >= 0) & (bent <= 1)
    u = np.clip(u, -1, 1)
    # Cosines tend to one with the depth. Their distance from it, 2 sin(t / 2)^2, keeps its digits.
    gap, bent = np.where(known, 1 - u, np.nan), np.where(known, bent, np.nan)
    kernel = 1 - gap
    for _ in range(count - 1):
        angle = 2 * np.arcsin(np.sqrt(np.clip(gap / 2, 0, 1)))
        gap = gap - bent * 2 / np.pi * _lens(angle)
        kernel = (1 - bent * 2 / np.pi * angle) * kernel + 1 - gap
    return 1 - gap, kernel


def _lens(t: HostReal) -> HostReal:
    """`sin t - t cos t`: the sum of (-1)^k 2 k t^(2k+1) / (2k+1)! with the sign changed."""
    small = np.where(t < _SERIES, t, 0.0)
    term, series = small, np.zeros_like(small)
    for k in range(1, 8):
        term = -term * small**2 / (2 * k * (2 * k + 1))
        series = series - 2 * k * term
    return np.where(t < _SERIES, series, np.sin(t) - t * np.cos(t))
