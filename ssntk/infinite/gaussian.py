"""Means of an activation and of its slope over two correlated Gaussian numbers: closed forms, or a quadrature."""

import abc
import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.special
from jaxtyping import Array, Float

from ssntk.compiled import Compiled
from ssntk.errors import NumericalError
from ssntk.models.activations import elementwise
from ssntk.nouns import Activation

Pairs = Float[np.ndarray, "..."]
# The quadrature takes so many pairs in one call, in blocks of so many pairs and so many nodes. Blocks of this size fit into
# the cache, and keep the processor busy.
ROOM, PAIRS, NODES = 4096, 64, 8
# The nodes are not symmetric about zero. Otherwise the corner of an activation could lie on a node, where the rule is exact
# by chance and no test would see the corner.
SHIFT = 0.37
# The rule is accepted if twice the step changes no mean by more than this fraction. For a smooth activation the error of the
# accepted step is about the square of the change.
CHANGE = 5e-4
# With the most nodes a larger change is accepted: the slope of the activation is continuous but has a corner, as for elu.
CORNER, MOST = 2e-3, 384
# The half widths of the coarse rule and of the accepted one, in standard deviations. A function that grows so fast that the
# difference matters is refused.
NARROW, WIDE = 5.5, 6.0
# The first step, in standard deviations. It resolves the Gaussian density itself to rounding.
FIRST = 0.5
# Arguments at which an activation is recognised, on both sides of zero.
SEEN = np.array([1.0, 1.3e-6, 3.7e-3, 0.29, 0.83, 2.1, 17.3, 4.1e4])


class AbstractMeans(abc.ABC):
    """E phi(x) phi(y) and E phi'(x) phi'(y) for Gaussian x and y of zero mean."""

    @abc.abstractmethod
    def __call__(self, first: Pairs, second: Pairs, covariance: Pairs) -> tuple[Pairs, Pairs]:
        """**Arguments:** standard deviations of x and y, and their covariance: arrays of one shape."""

    def halved(self) -> "AbstractMeans":
        """The same with half as many nodes, for an estimate of the error. Closed forms have no nodes."""
        return self


def correlation(first: Pairs, second: Pairs, covariance: Pairs) -> Pairs:
    """The correlation coefficients, in [-1, 1]; zero if a number has no variance."""
    product = first * second
    return np.clip(np.divide(covariance, product, out=np.zeros_like(product), where=product > 0), -1, 1)


@dataclasses.dataclass(frozen=True)
class Cornered(AbstractMeans):
    """phi(s) = a s + b |s|, with the slope `origin` at zero: relu, leaky relu, abs and linear functions.

    The means of |x| |y| are those of Cho and Saul (2009).
    """

    a: float
    b: float
    origin: float

    def __call__(self, first: Pairs, second: Pairs, covariance: Pairs) -> tuple[Pairs, Pairs]:
        rho = correlation(first, second, covariance)
        sine = np.arcsin(rho)
        bent = 2 / np.pi * first * second * (np.sqrt(1 - rho**2) + rho * sine)
        # Without variance the network stays at the corner, where the slope is what JAX says.
        still = [np.where(deviation > 0, self.a, self.origin) for deviation in (first, second)]
        both = (first > 0) & (second > 0)
        return (
            self.a**2 * covariance + self.b**2 * bent,
            np.where(both, self.a**2 + self.b**2 * 2 / np.pi * sine, still[0] * still[1]),
        )


class Erf(AbstractMeans):
    """phi = erf (Williams, 1997)."""

    def __call__(self, first: Pairs, second: Pairs, covariance: Pairs) -> tuple[Pairs, Pairs]:
        product = (1 + 2 * first**2) * (1 + 2 * second**2)
        return (
            2 / np.pi * np.arcsin(2 * covariance / np.sqrt(product)),
            4 / np.pi / np.sqrt(product - 4 * covariance**2),
        )


class Quadrature(AbstractMeans):
    """The trapezoid rule, whose step follows from the largest standard deviation.

    For functions that are smooth on the scale of the step, its error falls exponentially with the number of nodes. A rule of
    Gauss and Hermite would not do: the slope of tanh is narrow compared with a large standard deviation, and their nodes
    become dense too slowly.
    """

    def __init__(self, compiled: Compiled, *, half: bool = False):
        self.compiled, self.half = compiled, half
        self.steps: dict[int, float] = {}

    def halved(self) -> AbstractMeans:
        other = Quadrature(self.compiled, half=True)
        other.steps = self.steps
        return other

    def __call__(self, first: Pairs, second: Pairs, covariance: Pairs) -> tuple[Pairs, Pairs]:
        largest = max(float(np.max(first)), float(np.max(second)))
        if not np.isfinite(largest):
            nothing = np.full(np.shape(first), np.nan)
            return nothing, nothing
        step, width = (2 * self._step(largest), NARROW) if self.half else (self._step(largest), WIDE)
        return self._means(first, second, correlation(first, second, covariance), step, width)

    def _means(self, first: Pairs, second: Pairs, rho: Pairs, step: float, width: float) -> tuple[Pairs, Pairs]:
        # The number of nodes is an argument of the program, so that one program serves all.
        nodes = int(np.ceil(2 * width / step))
        flat = np.stack([np.ravel(part) for part in (first, second, rho)])
        found = np.empty((2, flat.shape[1]))
        dtype = jax.dtypes.canonicalize_dtype(float)
        for start in range(0, flat.shape[1], ROOM):
            part = flat[:, start : start + ROOM]
            count = part.shape[1]
            padded = np.zeros((3, ROOM), dtype)
            padded[:, :count] = part
            numbers = (np.int32(-(-count // PAIRS)), np.int32(nodes), np.asarray(step, dtype))
            found[:, start : start + ROOM] = np.asarray(self.compiled(padded, *numbers))[:, :count]
        return found[0].reshape(np.shape(first)), found[1].reshape(np.shape(first))

    def _step(self, largest: float) -> float:
        """The step of the nodes, in standard deviations, that resolves the activation up to this deviation."""
        if largest == 0:
            return FIRST
        octave = int(np.ceil(2 * np.log2(largest)))
        if octave not in self.steps:
            self.steps[octave] = self._tested(2.0 ** (octave / 2))
        return self.steps[octave]

    def _tested(self, deviation: float) -> float:
        first = np.full(8, deviation)
        second = deviation * np.array([1, 1, 1, 1, 0.73, 0.73, 0.41, 0.41])
        rho = np.array([0.97, 0.6, 0.2, -0.7, 0.8, -0.3, 0.9, 0.5])
        step = FIRST
        while True:
            coarse, fine = (self._means(first, second, rho, *rule) for rule in ((2 * step, NARROW), (step, WIDE)))
            change = max(_change(one, other) for one, other in zip(coarse, fine, strict=True))
            last = 2 * WIDE / (step / 2**0.5) > MOST
            if change <= (CORNER if last else CHANGE):
                return step
            if last or not np.isfinite(change):
                raise NumericalError(
                    f"the means of the activation are not resolved by {MOST} nodes at a standard deviation of "
                    f"{deviation:.3g}: its derivative jumps or is too steep, or it grows too fast; only a corner at zero "
                    "has a closed form"
                )
            step /= 2**0.5


def _change(one: Pairs, other: Pairs) -> float:
    largest = float(np.max(np.abs(other)))
    return float(np.max(np.abs(one - other))) / largest if largest > 0 else float(np.max(np.abs(one)) > 0)


def _summed(
    activation: Activation, pairs: Float[Array, "3 room"], count: Array, nodes: Array, step: Float[Array, ""]
) -> Float[Array, "2 room"]:
    """The two means of the first `count` blocks of pairs, by at least so many `nodes` in each direction."""
    dtype = pairs.dtype
    offset = nodes.astype(dtype) / 2
    blocks = (nodes + (NODES - 1)) // NODES

    def node(index: Array) -> tuple[Array, Array]:
        z = (index.astype(dtype) - offset + SHIFT) * step
        return z, jnp.exp(-(z**2) / 2) * step / np.sqrt(2 * np.pi).astype(dtype)

    def values(x: Array) -> Array:
        return jnp.stack(jax.jvp(activation, (x,), (jnp.ones_like(x),)))

    def block(c: Array, out: Array) -> Array:
        first, second, rho = jax.lax.dynamic_slice_in_dim(pairs, c * PAIRS, PAIRS, axis=1)
        rest = second * jnp.sqrt(1 - rho**2)

        def outer(i: Array, total: Array) -> Array:
            z, weight = node(i)
            mean = second * rho * z

            def inner(j: Array, summed: Array) -> Array:
                w, weights = node(j * NODES + jnp.arange(NODES, dtype=np.int32))
                return summed + values(mean[:, None] + rest[:, None] * w[None, :]) @ weights

            given = jax.lax.fori_loop(0, blocks, inner, jnp.zeros((2, PAIRS), dtype))
            return total + weight * values(first * z) * given

        means = jax.lax.fori_loop(0, nodes, outer, jnp.zeros((2, PAIRS), dtype))
        return jax.lax.dynamic_update_slice_in_dim(out, means, c * PAIRS, axis=1)

    return jax.lax.fori_loop(0, count, block, jnp.zeros((2, pairs.shape[1]), dtype))


def _seen(activation: Activation, x: Float[Array, " k"]) -> Float[Array, "2 k"]:
    """The activation and its slope."""
    return jnp.stack(jax.jvp(activation, (x,), (jnp.ones_like(x),)))


def means_of(activation: Any) -> AbstractMeans:
    """The means of an activation. Raises `ValueError` if it does not treat all units alike."""
    return _cached(activation) if isinstance(activation, Hashable) else _means_of(activation)


def _means_of(activation: Any) -> AbstractMeans:
    if not elementwise(activation):
        raise ValueError("model.activation must be one function of one number for all units")
    dtype = jax.dtypes.canonicalize_dtype(float)
    x = np.concatenate([[0.0], SEEN, -SEEN]).astype(dtype)
    found, slopes = np.asarray(Compiled(functools.partial(_seen, activation), seldom=True)(x)).astype(float)
    rounding = 16 * float(np.finfo(dtype).eps)
    above, below = found[1], -found[1 + len(SEEN)]
    bent = np.where(x > 0, above, below) * x.astype(float)
    if np.all(np.abs(found - bent) <= rounding * np.abs(bent)):
        return Cornered((above + below) / 2, (above - below) / 2, float(slopes[0]))
    error = scipy.special.erf(x.astype(float))
    if np.all(np.abs(found - error) <= rounding * np.abs(error)):
        return Erf()
    return Quadrature(Compiled(functools.partial(_summed, activation)))


_cached = functools.lru_cache(maxsize=64)(_means_of)


def scatter_of(activation: Any, deviation: float) -> float:
    """How much `phi^2` scatters over units whose `x^2` is known, for Gaussian x: relative to its mean, over sqrt(2).

    It is zero for linear functions, and 1.2 for relu. A mean over n units of `phi^2` has this scatter times sqrt(2 / n).
    """
    compiled = _scattered(activation) if isinstance(activation, Hashable) else Compiled(functools.partial(_seen, activation))
    z = np.arange(-31.5, 32) * 0.19
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    found = np.asarray(compiled((deviation * z).astype(jax.dtypes.canonicalize_dtype(float)))).astype(float)
    square = found[0] ** 2
    mean = weights @ square
    if not mean > 0:
        return 0.0
    # The part of phi^2 that follows z^2, whose variance is 2.
    shared = (weights @ (square * z**2) - mean) ** 2 / 2
    return float(np.sqrt(max(weights @ (square - mean) ** 2 - shared, 0.0) / 2) / mean)


@functools.lru_cache(maxsize=64)
def _scattered(activation: Any) -> Compiled:
    return Compiled(functools.partial(_seen, activation), seldom=True)
