"""Bayesian regressions of the distance from a bifurcation as a power series of the critical rate, and their mixture."""

from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.special

from ssntk.errors import NumericalError

# Prior of the leading coefficient: centred on the value with which the first term alone spans the window, with standard
# deviation LEAD and truncated below LEAST, both relative to it. Without LEAST a series could imitate one that begins at a
# higher power.
LEAD, LEAST = 0.5, 0.25
# The relative noise of a rate, and the sizes of a series' higher terms relative to the window. Both are averaged over.
NOISE, SIZES = np.geomspace(1e-6, 0.1, 12), (0.1, 0.3, 1.0, 3.0)


class Estimate(NamedTuple):
    """A Student's t distribution of the critical parameter, and its log evidence. `last`: the rate at the last point."""

    evidence: float
    mean: float
    deviation: float
    noise: float
    freedom: int
    last: float


def summed(estimates: list[Estimate]) -> float:
    """The log evidence of a mixture of the estimates with equal weights."""
    logs = np.array([estimate.evidence for estimate in estimates])
    return float(scipy.special.logsumexp(logs) - np.log(len(logs)))


def regressions(
    p: np.ndarray, y: np.ndarray, powers: tuple[int, ...], left_out: tuple[float, float] = (0.0, 0.0), quick: bool = False
) -> list[Estimate]:
    """Regress p (N,) on powers of the rate y (N,), for every noise and every size of the higher terms.

    The noise is relative, and in y. The evidence is a density of log y, so that different powers and coordinates can be
    compared.
    """
    u, length = y / y.max(), float(np.ptp(p))
    terms = np.stack([u**power for power in powers], axis=1)
    # The prior's centre: the first term alone spans the window, from the bifurcation to its first point.
    lead = float(p[0] - p[-1])
    start = powers[0] * slope_of(terms[:, 0], p) * terms[:, 0]
    out = []
    for size in SIZES[1::2] if quick else SIZES:
        prior = np.array([10 * length, LEAD * length, *(size * length for _ in powers[1:])])
        for noise in NOISE[1::3] if quick else NOISE:
            slope, found, changed = start, None, 0.0
            # The noise of p follows from the slope of the series, dp / d log y. The logarithms of the slope turn the
            # evidence into a density of log y.
            for _ in range(4):
                spread = np.maximum(noise * np.abs(slope), 1e-13 * np.abs(p).max())
                changed = float(np.log(np.abs(slope)).sum())
                found = _posterior(terms, prior, lead, p - p[-1], spread)
                moved = terms * powers @ found.mean[1:]
                # If the series turns back within the data, its slope there does not give their noise: keep the last one.
                slope = np.where(moved * moved[-1] > 0, moved, slope)
            assert found is not None
            gap = found.mean[0]
            above = (found.mean[1] / lead - LEAST) * abs(lead) / found.deviation[1]
            evidence = (
                changed + found.evidence + scipy.stats.norm.logcdf(above) - scipy.stats.norm.logcdf((1 - LEAST) / LEAD)
            )
            # The change of the parameter per unit of the rate, between the bifurcation and the last point.
            steep = gap / max(float(y[-1]), 1.0)
            deviation = np.linalg.norm([found.deviation[0], left_out[0] * gap, left_out[1] * steep])
            out.append(
                Estimate(float(evidence), float(gap + p[-1]), float(deviation), noise, max(len(p) - 3, 1), float(y[-1]))
            )
    return out


class _Posterior(NamedTuple):
    """The means and standard deviations of the coefficients, the constant first, and the log evidence of the data."""

    mean: np.ndarray
    deviation: np.ndarray
    evidence: float


def _posterior(terms: np.ndarray, prior: np.ndarray, lead: float, data: np.ndarray, spread: np.ndarray) -> _Posterior:
    """The posterior of a linear model. Its coefficients are independent, with standard deviations `prior` about zero, and
    about `lead` for the first term."""
    design = np.concatenate([np.ones((len(data), 1)), terms], axis=1)
    left, values, right = np.linalg.svd(design * prior / spread[:, None], full_matrices=False)
    residual = (data - terms[:, 0] * lead) / spread
    seen = left.T @ residual
    missed = residual @ residual - seen @ seen + np.sum(seen**2 / (1 + values**2))
    mean = prior * (right.T @ (values / (1 + values**2) * seen))
    mean[1] += lead
    # Directions that the data do not determine keep their prior.
    narrowed = np.sum(right**2 / (1 + values**2)[:, None], axis=0) + np.maximum(1 - np.sum(right**2, axis=0), 0.0)
    evidence = -0.5 * missed - np.log(spread).sum() - 0.5 * np.log1p(values**2).sum()
    return _Posterior(mean, prior * narrowed**0.5, float(evidence))


def mixture(windows: list[list[Estimate]], p: np.ndarray) -> tuple[float, tuple[float, float], float]:
    """(median, 95 % interval, typical noise) of the critical parameter, known to lie beyond the last point."""
    parts, weights = [], []
    for one in windows:
        log = np.array([estimate.evidence for estimate in one])
        weight = np.exp(log - log.max())
        parts += one
        weights += list(weight / weight.sum() / len(windows))
    mean, deviation, noise, freedom = (
        np.array([getattr(part, name) for part in parts]) for name in ("mean", "deviation", "noise", "freedom")
    )
    weight = np.array(weights)
    way = np.sign(p[-1] - p[-2])
    # The deviation is at least the rounding error of the parameters, which must not be mistaken for certainty.
    deviation = np.maximum(deviation, 1e-12 * np.abs(p).max())
    beyond = way * (mean - p[-1])
    truncated = weight * scipy.stats.t.sf(0, freedom, beyond, deviation)
    if not truncated.sum() > 0.01:
        raise NumericalError("no series fits the sweep: its bifurcation would lie before the last point")
    kept = truncated > 1e-9 * truncated.max()
    beyond, deviation, freedom = beyond[kept], deviation[kept], freedom[kept]
    truncated = truncated[kept] / truncated[kept].sum()
    before = scipy.stats.t.cdf(0, freedom, beyond, deviation)

    def quantile(q: float) -> float:
        def short(x: float) -> float:
            inside = scipy.stats.t.cdf(x, freedom, beyond, deviation) - before
            return float(np.sum(truncated * inside / (1 - before))) - q

        most = float((np.maximum(beyond, 0) + 1e3 * deviation).max())
        root: Any = scipy.optimize.brentq(short, 0.0, most, xtol=1e-12 * most)
        return float(root)

    low, middle, high = (float(p[-1] + way * quantile(q)) for q in (0.025, 0.5, 0.975))
    return middle, (min(low, high), max(low, high)), float(np.exp(weight @ np.log(noise)))


def slope_of(x: np.ndarray, y: np.ndarray) -> float:
    """The slope of y (k,) over x (k,), by least squares; NaN for a single point."""
    off = x - x.mean()
    return float(off @ y / (off @ off)) if off.any() else np.nan
