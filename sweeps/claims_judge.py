"""How claims.py judges a claim: numbers with intervals, what is accepted of each, and the verdict that follows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

Interval = tuple[float, float]
NORMALISATION, RANGE = "another normalisation", "a range"
# The share of intervals that hold the true value.
LEVEL = 0.95
SAMPLES = 400


class Check(NamedTuple):
    """One number against what is accepted of it. `seeds` is 0 for a number that is exact up to rounding."""

    what: str
    value: float
    low: float
    high: float
    accepted: Interval
    seeds: int = 0

    @property
    def met(self) -> bool | None:
        """Whether the whole interval is accepted; `None` if a part of it is."""
        least, most = self.accepted
        if least <= self.low and self.high <= most:
            return True
        return False if self.high < least or self.low > most else None

    def __str__(self) -> str:
        said = {True: "yes", False: "no", None: "undecided"}[self.met]
        spread = "exact" if not self.seeds else f"{self.low:.4g} to {self.high:.4g}, {self.seeds} seeds"
        least, most = (f"{edge:.4g}" for edge in self.accepted)
        return f"{self.what}: {self.value:.4g} ({spread}); accepted {least} to {most}: {said}"


class Found(NamedTuple):
    """What was measured of a claim.

    - `stated`: checks of the claim as it is stated.
    - `changed`: checks of the claim in another normalisation, or in a range.
    - `instead`: checks of what is true besides. They do not enter the verdict.
    """

    stated: Sequence[Check]
    changed: Sequence[Check] = ()
    instead: Sequence[Check] = ()


class Claim(NamedTuple):
    """A claim, the law that it is compared with, what `Found.changed` changes, and the function that measures it."""

    text: str
    law: str
    change: str
    run: Callable[[bool], Found]


CLAIMS: dict[str, Claim] = {}


def claim(
    key: str, text: str, law: str, change: str = RANGE
) -> Callable[[Callable[[bool], Found]], Callable[[bool], Found]]:
    """Register a function from `quick` to `Found` as a row."""

    def register(run: Callable[[bool], Found]) -> Callable[[bool], Found]:
        CLAIMS[key] = Claim(text, law, change, run)
        return run

    return register


def verdict(found: Found, change: str = RANGE) -> str:
    """`holds` if all checks as stated are met; else `holds in ...` if all changed ones are; `false` if one fails.

    It is `open` if an interval that matters is only partly accepted.
    """
    stated = everything(found.stated)
    if stated is not False:
        return "holds" if stated else "open"
    changed = everything(found.changed) if found.changed else False
    return {True: f"holds in {change}", False: "false", None: "open"}[changed]


def everything(checks: Iterable[Check]) -> bool | None:
    """Whether all are met: `False` if one is not, `None` if there is none, or one is undecided."""
    met = [check.met for check in checks]
    return False if False in met else (None if None in met or not met else True)


# %% Numbers
def exact(what: str, value: float, accepted: Interval) -> Check:
    return Check(what, float(value), float(value), float(value), accepted)


def measured(what: str, samples: Any, accepted: Interval, *, median: bool = False) -> Check:
    """The mean of one number of each seed with Student's interval, or the median with that of order statistics."""
    samples = np.sort(np.asarray(samples, float))
    n = len(samples)
    if median:
        below = int(scipy.stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
        below = max(below - 1, 0)
        return Check(what, float(np.median(samples)), samples[below], samples[n - 1 - below], accepted, n)
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1) * samples.std(ddof=1) / n**0.5
    middle = float(samples.mean())
    return Check(what, middle, middle - half, middle + half, accepted, n)


def sampled(what: str, columns: list[Any], number: Callable[..., float], accepted: Interval) -> Check:
    """A number of several samples, one of each cell, with the percentiles of bootstrap samples of each."""
    columns = [np.asarray(column, float) for column in columns]
    random = np.random.default_rng(0)
    drawn = [number(*(random.choice(one, len(one)) for one in columns)) for _ in range(SAMPLES)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Check(what, float(number(*columns)), float(low), float(high), accepted, min(map(len, columns)))


def about(value: float, share: float) -> Interval:
    """The numbers that differ from this one by at most this share of it."""
    return min(value * (1 - share), value * (1 + share)), max(value * (1 - share), value * (1 + share))


def slope(x: Any, y: Any) -> float:
    """The exponent of y over x, by least squares of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# %% Inputs and kernels
def on_sphere(random: np.random.Generator, n: int, dimensions: int) -> np.ndarray:
    """n points of length one (n, dimensions), uniformly distributed."""
    points = random.standard_normal((n, dimensions))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def cosines(points: np.ndarray) -> np.ndarray:
    """Their cosines (..., n, n), with ones on the diagonal."""
    found = np.clip(points @ np.swapaxes(points, -1, -2), -1, 1)
    found[..., np.arange(points.shape[-2]), np.arange(points.shape[-2])] = 1.0
    return found


def ratio_of_eigenvalues(kernel: np.ndarray) -> np.ndarray:
    """Condition numbers of symmetric matrices (..., n, n)."""
    values = np.linalg.eigvalsh(kernel)
    return values[..., -1] / values[..., 0]
