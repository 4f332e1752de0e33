"""Where a bifurcation lies and of which kind it is, from kernels along a sweep and nothing else."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.special

from ssntk.bifurcation.events.kinds import HOPF, PITCHFORK, SADDLE_NODE
from ssntk.collapse import laws
from ssntk.collapse.exponent import law_of
from ssntk.collapse.rates import oscillates, rates_of
from ssntk.errors import NumericalError, as_count
from ssntk.results import Result, short

# The distance from the bifurcation as a power series of the critical rate, by its powers; at a fold it has no linear term.
POWERS = {SADDLE_NODE.name: tuple(range(2, 10)), PITCHFORK.name: tuple(range(1, 9)), HOPF.name: tuple(range(1, 9))}
# Of the trace, how much the channel must hold for a point to count, and which part of those points, the nearer ones;
# averaged over, as nothing tells which is best.
WINDOWS = ((0.6, 1.0), (0.9, 1.0), (0.75, 0.5))
# The first term alone would reach over the window; how far it may be from that, and the least it may be, relatively. Without
# a least term a series would pass for any that begins later.
LEAD, LEAST = 0.5, 0.25
# Relative noise of a rate, and sizes of a series' higher terms relative to the window: averaged over by their evidence.
NOISE, SIZES = np.geomspace(1e-6, 0.1, 12), (0.1, 0.3, 1.0, 3.0)
# A saddle-node is told only where so many points lie within this part of the sweep's length from it.
NEAR_POINTS, NEAR = 4, 0.03
# What a rate's model leaves out, found on random networks: of the extrapolated gap, and of the change of the parameter over
# which |Re lambda| T changes by one. The horizon's laws know one mode and one drive; courses in time know several. Folds lie
# next to cusps, where their series begins late.
LEFT_OUT = {SADDLE_NODE.name: (0.1, 0.0), PITCHFORK.name: (0.015, 0.0), "spectra": (0.25, 0.7), "kernels": (0.1, 0.5)}
# |Re lambda| T over which the laws of a finite horizon are tabled.
_RATES = np.geomspace(1e-4, 1e4, 1200)
# Of steady-state kernels: the least part of the trace that a channel must hold at the last point, and how far, relatively,
# the exponent may be from the law's.
HELD, OFF = 0.9, 0.3
# Two kinds are told apart where one is so much likelier, in log odds.
TOLD = 1.0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detection(Result):
    """What kernels along a sweep say of the bifurcation ahead.

    - `kind`: `"saddle-node"`, `"pitchfork"` or `"hopf"`; `None` where they cannot be told apart. Transcriticals have the
      kernels of pitchforks, and are called that.
    - `critical_parameter`, `interval`: the median and the 95 % interval of where it lies, NaN where nothing is told.
    - `exponent`: s in `lambda_1 ~ |p - p_c|^s`, over the nearer half of the points that were used.
    - `odds`: the log odds of the kind against the next likely one; infinite where it was decided otherwise, by oscillations
      or by two modes that grow together.
    - `rates` (k,): the critical eigenvalue at each parameter, read from the kernels' course in time; `None` without kernels.
    - `converged`, `reason`: whether anything is told, and why, or why not.
    """

    kind: str | None
    critical_parameter: float
    interval: tuple[float, float]
    exponent: float
    odds: float
    rates: np.ndarray | None
    converged: bool
    reason: str

    def _headline(self) -> str:
        if not self.converged:
            return f"Detection: nothing can be told; {self.reason}"
        at = f"{short(self.critical_parameter)}, 95 % interval {short(self.interval)}"
        return f"Detection: {self.kind or 'a bifurcation of unknown kind'} at p = {at}; {self.reason}"


def detect_from_ntk(
    parameters: Any, spectra: Any, *, ts: Any = None, kernels: Any = None, n_batch: Any = 1, throw: bool = True
) -> Detection:
    """Extrapolate where a bifurcation lies, its kind and its exponent from kernels along a sweep towards it.

    No fixed point, Jacobian or model is consulted. The critical rate |Re lambda| is read from the kernels, up to a factor,
    and the parameter is regressed on it as a power series, which has no linear term at a fold; noise, the size of higher
    terms and the part of the sweep that counts are averaged over by their evidence (Bayesian linear regression). It is taken
    for granted that a bifurcation lies ahead: what grows otherwise, as past an avoided crossing, can pass for one.

    - Spectra alone: of steady-state kernels, whose channel is `|r|^2 |l^T F|^2 / lambda^2`. The rate is `(sum
      lambda_i^2)^(-1/4)`, which follows the first eigenvalue, and stays smooth where that meets others. A Hopf point does
      not show in these.
    - With `ts`: spectra of trajectory kernels, whose growth the horizon limits: the master law's `g`, and for two modes that
      grow together those of a pair in resonance, under a constant drive, and in free decay, whichever is likelier.
    - With `kernels` too: the rate is fitted to the dominant courses in time, as sums of exponentials that oscillate or not.
      This tells a Hopf point by its oscillation, and does best.

    **Arguments:**

    - `parameters`: (k,), k >= 5, distinct, on one side of the bifurcation.
    - `spectra`: (k, N), N >= 3, descending eigenvalues of the kernels. Eigenvalues that were left out count as zero.
    - `ts`: (T,), the save times of trajectory kernels.
    - `kernels`: (k, R, R) or a sequence of (R, R), as `ntk(model, probe)` gives them for `n_batch` inputs.
    - `throw`: whether to raise where nothing can be told, or to return `converged=False` with the reason.

    Raises `ValueError` for arguments that do not fit; `NumericalError` where the first eigenvalue does not grow towards one
    end, where no series or law fits, where the end is too far from the bifurcation to tell, and, of a saddle-node, where
    fewer than four points lie within 3 % of the sweep's length from it.
    """
    p, values, times, given, n_batch, order = _checked(parameters, spectra, ts, kernels, n_batch)
    try:
        found = _detect(_Evidence.of(p, values, times, given, n_batch))
        # Rates in the order in which the parameters came.
        rates = None if found.rates is None else found.rates[np.argsort(order)]
        return dataclasses.replace(found, rates=rates)
    except (NumericalError, np.linalg.LinAlgError) as error:
        if throw:
            raise NumericalError(str(error)) from error
        nan = float("nan")
        return Detection(None, nan, (nan, nan), nan, nan, None, False, str(error))


def _checked(
    parameters: Any, spectra: Any, ts: Any, kernels: Any, n_batch: Any
) -> tuple[np.ndarray, np.ndarray, Any, Any, int, np.ndarray]:
    """The arguments as numpy arrays, points in ascending order of the parameter, and that order."""
    p, values = _doubles(parameters, "parameters", 1), _doubles(spectra, "spectra", 2)
    n_batch = as_count(n_batch, "n_batch")
    if p.size < 5 or np.unique(p).size < p.size:
        raise ValueError("parameters must be distinct, and at least five")
    if values.shape[0] != p.size or values.shape[1] < 3:
        raise ValueError(f"spectra must have shape ({p.size}, N) with N >= 3, got {values.shape}")
    if (values < 0).any() or (np.diff(values, axis=1) > 0).any() or not (values[:, 0] > 0).all():
        raise ValueError("spectra must be descending, not negative, and their first eigenvalues positive")
    order = np.argsort(p)
    times = given = None
    if ts is not None:
        times = _doubles(ts, "ts", 1)
        if times.size < 2 or (np.diff(times) <= 0).any():
            raise ValueError("ts must be strictly increasing, and hold at least two times")
    if kernels is not None:
        if times is None:
            raise ValueError("ts must be given with kernels")
        if times.size < 16:
            raise ValueError(f"ts must hold at least 16 times for a course in time, got {times.size}")
        if not hasattr(kernels, "__iter__"):
            raise ValueError(f"kernels must hold {p.size} matrices (R, R), got {type(kernels).__name__}")
        given = [_doubles(kernel, "kernels", 2) for kernel in kernels]
        sizes = {kernel.shape for kernel in given}
        if len(given) != p.size or len(sizes) != 1 or any(a != b or a % (n_batch * times.size) for a, b in sizes):
            raise ValueError(
                f"kernels must hold {p.size} matrices (R, R) with R = n_batch T n, T = {times.size}, got {len(given)} of "
                f"{sorted(sizes)}"
            )
        given = [given[i] for i in order]
    # In units of the largest, so that squares neither vanish nor overflow.
    return p[order], values[order] / values.max(), times, given, n_batch, order


def _doubles(value: Any, name: str, ndim: int) -> np.ndarray:
    """`value` in double precision, whatever JAX is set to: what is extrapolated are small differences."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(value).__name__}") from error
    if array.ndim != ndim or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, of {ndim} dimension{'s' * (ndim > 1)}, got shape {array.shape}")
    return array


class _Estimate(NamedTuple):
    """Student's t distribution of the critical parameter, with its log evidence; `last`: the rate at the last point."""

    evidence: float
    mean: float
    deviation: float
    noise: float
    freedom: int
    last: float


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """What a sweep shows, its farthest point first, so that the bifurcation lies beyond the last one.

    - `p` (N,), `values` (N, k) and their `size` (N,): eigenvalues in units of the largest.
    - `ts` (T,): the times of trajectory kernels, `None` for steady states. `rates` (N,): the critical exponents that their
      courses over time show, if kernels were given.
    - `pair`: whether two modes grow together. `held`: which share of the trace the channel holds at the last point.
    - `flipped`: whether the points came in the other order.
    """

    p: np.ndarray
    values: np.ndarray
    size: np.ndarray
    ts: np.ndarray | None
    rates: np.ndarray | None
    pair: bool
    held: float
    flipped: bool

    @classmethod
    def of(cls, p: np.ndarray, values: np.ndarray, ts: np.ndarray | None, kernels: Any, n_batch: int) -> "_Evidence":
        """Raises `NumericalError` if nothing grows towards an end of the sweep, or no mode stands out there."""
        size = np.sum(values**2, axis=1) ** 0.5
        flipped = bool(size[0] > size[-1])
        if flipped:
            p, values, size, kernels = p[::-1], values[::-1], size[::-1], None if kernels is None else kernels[::-1]
        if size[-1] < 2 * size[0] or size[-1] < size.max():
            raise NumericalError(
                "the first eigenvalue does not grow towards one end of the sweep: it sees no bifurcation near there"
            )
        rates, oscillating = None, None
        if kernels is not None:
            assert ts is not None
            both = rates_of(ts, kernels, n_batch)
            oscillating = oscillates(both, float(ts[-1] - ts[0]))
            rates = np.array([complex(-rate.decay, rate.frequency) for rate in (pair[oscillating] for pair in both)])
        # A steady state knows no oscillation.
        pair = bool(oscillating) if oscillating is not None else ts is not None and _two_grow(values, size)
        held = float(values[-1, : 1 + pair].sum() / values[-1].sum())
        if ts is None and held < HELD:
            raise NumericalError(
                f"no mode stands out at the end of the sweep: the first eigenvalue holds {held:.2f} of the trace there; go "
                "nearer. A Hopf point does not show in steady-state kernels: it takes those of trajectories, ts and kernels"
            )
        return cls(p, values, size, ts, rates, pair, held, flipped)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that it may speak for."""
        return (HOPF.name,) if self.pair else (SADDLE_NODE.name, PITCHFORK.name)

    def first(self, share: float) -> int:
        """The first point from which on the channel holds this share of the trace."""
        return _window(self.values, self.size, 1 + self.pair, share)

    def estimates(self) -> dict[str, list[list[_Estimate]]]:
        """For each kind the estimates from each window."""
        found: dict[str, list[list[_Estimate]]] = {kind: [] for kind in self.kinds}
        for share, part in WINDOWS:
            first = self.first(share)
            first = max(first, min(len(self.p) - 6, int(len(self.p) - part * (len(self.p) - first))))
            for kind in self.kinds:
                found[kind].append(self._regressed(slice(first, None), kind))
        return found

    def _regressed(self, inside: slice, kind: str) -> list[_Estimate]:
        p, coordinates = self.p[inside], []
        if self.rates is not None:
            assert self.ts is not None
            coordinates = [-self.rates.real[inside] * float(self.ts[-1] - self.ts[0])]
        else:
            coordinates = _coordinates(p, self.size[inside], self.ts, kind)
        left_out = LEFT_OUT[kind if self.ts is None else "spectra" if self.rates is None else "kernels"]
        if self.ts is None:
            # What other modes hold moves the rate.
            left_out = (left_out[0] + 2 * (1 - self.held), left_out[1])
        return [each for y in coordinates for each in _regressions(p, y, POWERS[kind], left_out)]

    def slope(self, centre: float) -> float:
        """d log(first eigenvalue) / d log(distance) over the nearer half of the points."""
        away = np.abs(self.p - centre)
        half = away <= np.median(away[self.first(WINDOWS[0][0]) :])
        return _slope(np.log(away[half]), np.log(self.values[half, 0]))


def _detect(seen: _Evidence) -> Detection:
    """Where the sweep leads, and to what; `NumericalError` if that cannot be told."""
    estimates, ts, p = seen.estimates(), seen.ts, seen.p
    if ts is not None and not seen.pair:
        all_ = [one for found in estimates.values() for each in found for one in each]
        if scipy.special.softmax([one.evidence for one in all_]) @ [one.last for one in all_] < 1:
            raise NumericalError(
                "the horizon hides how near the bifurcation is: |Re lambda| T falls below one; take a longer horizon, or "
                "the steady-state kernels"
            )
    # Windows hold different points, so that their evidences cannot be compared: each counts the same.
    evidence = {kind: float(np.mean([_summed(one) for one in found])) for kind, found in estimates.items()}
    ranked = sorted(seen.kinds, key=lambda kind: -evidence[kind])
    odds = evidence[ranked[0]] - evidence[ranked[1]] if len(ranked) > 1 else np.inf
    kind = ranked[0] if odds >= TOLD else None
    likely = [kind] if kind else ranked
    centre, interval, noise = _mixture([one for each in likely for found in [estimates[each]] for one in found], p)
    length = float(np.ptp(p))
    if noise >= 0.99 * NOISE[-1]:
        raise NumericalError("no series fits the sweep: its first eigenvalue follows no bifurcation's law, or is too noisy")
    if not interval[1] - interval[0] < length:
        raise NumericalError("the sweep ends too far from the bifurcation to tell where it lies")
    near = int((np.abs(p - centre) <= NEAR * length).sum())
    if SADDLE_NODE.name in likely and near < NEAR_POINTS:
        raise NumericalError(
            f"a saddle-node near p = {centre:.6g} would need {NEAR_POINTS} points within {NEAR:.0%} of the sweep's length "
            f"from it, there are {near}: go nearer"
        )
    slope = seen.slope(centre)
    if ts is None and not min(abs(slope / law_of(one).exponent - 1) for one in likely) <= OFF:
        raise NumericalError(
            f"the first eigenvalue goes as distance^{slope:.2f} towards p = {centre:.6g}, which is no bifurcation's law"
        )
    if seen.pair:
        reason = "the kernels oscillate" if seen.rates is not None else "two modes grow together"
    else:
        reason = f"{' or '.join(likely)}, by log odds of {odds:.3g}"
    rates = seen.rates[::-1] if seen.rates is not None and seen.flipped else seen.rates
    return Detection(
        kind=kind,
        critical_parameter=centre,
        interval=interval,
        exponent=slope,
        odds=float(odds),
        rates=rates,
        converged=True,
        reason=reason,
    )


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """By least squares; NaN of a single point."""
    off = x - x.mean()
    return float(off @ y / (off @ off)) if off.any() else np.nan


def _two_grow(values: np.ndarray, size: np.ndarray) -> bool:
    """Whether the second eigenvalue grows with the first, and the third does not, over the last doublings."""
    nearer = size >= size[-1] / 8
    nearer[-3:] = True
    x = np.log(values[nearer, 0])
    slopes = [_slope(x, np.log(np.maximum(values[nearer, i], 1e-300))) for i in (1, 2)]
    return bool(slopes[0] > 0.5 and slopes[0] - slopes[1] > 0.25)


def _window(values: np.ndarray, size: np.ndarray, modes: int, share: float) -> int:
    """The first point from which on the channel holds this share of the trace, and grows; at least five are left."""
    held = values[:, :modes].sum(axis=1) / values.sum(axis=1)
    first = len(size) - 1
    while first > 0 and held[first - 1] > share and size[first - 1] < 1.02 * size[first]:
        first -= 1
    return min(first, len(size) - 5)


def _coordinates(p: np.ndarray, size: np.ndarray, ts: np.ndarray | None, kind: str) -> list[np.ndarray]:
    """Numbers in proportion to the rate, one array for each way in which a horizon may have limited the kernels."""
    pair = kind == HOPF.name
    if ts is None:
        return [size ** (-1 / power) for power in ((2, 3, 4) if pair else (2,))]
    out: list[tuple[float, np.ndarray]] = []
    for shape in (_resonance, _transient, laws.g) if pair else (laws.g,):
        tabled = np.log(shape(_RATES) / shape(_RATES[:1]))

        def rate(over: float, tabled: np.ndarray = tabled) -> np.ndarray | None:
            """|Re lambda| T where the kernel at the bifurcation is 1 + over times the largest one seen."""
            wanted = np.log(size / size.max()) - np.log1p(over)
            return np.exp(np.interp(-wanted, -tabled, np.log(_RATES))) if wanted.min() > tabled[-1] else None

        def likely(overs: np.ndarray, rate: Any = rate) -> list[tuple[float, float, np.ndarray]]:
            all_ = [(float(over), rate(float(over))) for over in overs]
            return [(over, _summed(_regressions(p, y, POWERS[kind], quick=True)), y) for over, y in all_ if y is not None]

        found = likely(np.geomspace(3e-3, 1e5, 16))
        for step in (3.0, 1.6, 1.25):
            best = max(found, key=lambda each: each[1])[0]
            found += likely(best * step ** np.array([-0.7, -0.35, 0.35, 0.7]))
        out += [(evidence, y) for _, evidence, y in found]
    best = max(evidence for evidence, _ in out)
    return [y for evidence, y in out if evidence > best - 6]


def _summed(estimates: "list[_Estimate]") -> float:
    """The log evidence of a mixture in equal parts."""
    logs = np.array([estimate.evidence for estimate in estimates])
    return float(scipy.special.logsumexp(logs) - np.log(len(logs)))


def _resonance(a: np.ndarray) -> np.ndarray:
    """int_0^1 ((1 - e^(-a x) (1 + a x)) / a^2)^2 dx: a mode whose drive is its own resonance with an input."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x = np.outer(a, (nodes + 1) / 2)
    small = x**2 / 2 - x**3 / 3 + x**4 / 8
    return np.where(x < 1e-3, small, 1 - np.exp(-x) * (1 + x)) ** 2 @ (weights / 2) / a**4


def _transient(a: np.ndarray) -> np.ndarray:
    """int_0^1 x^2 e^(-2 a x) dx: a mode that decays freely."""
    return np.asarray(laws.transient(1.0, -a, 1.0))


def _regressions(
    p: np.ndarray, y: np.ndarray, powers: tuple[int, ...], left_out: tuple[float, float] = (0.0, 0.0), quick: bool = False
) -> list[_Estimate]:
    """p on powers of the rate y, for every noise and size of the higher terms.

    The noise is relative and in y. Data are log y, so that densities of different powers and coordinates can be compared.
    """
    u, length = y / y.max(), float(np.ptp(p))
    terms = np.stack([u**power for power in powers], axis=1)
    # The first term alone would reach over the window, from the bifurcation to its first point.
    lead = float(p[0] - p[-1])
    start = powers[0] * _slope(terms[:, 0], p) * terms[:, 0]
    out = []
    for size in SIZES[1::2] if quick else SIZES:
        prior = np.array([10 * length, LEAD * length, *(size * length for _ in powers[1:])])
        for noise in NOISE[1::3] if quick else NOISE:
            slope, found, changed = start, None, 0.0
            # The noise of p follows from the series' own slope, dp / d log y, whose logarithms make it a density of log y.
            for _ in range(4):
                spread = np.maximum(noise * np.abs(slope), 1e-13 * np.abs(p).max())
                changed = float(np.log(np.abs(slope)).sum())
                found = _posterior(terms, prior, lead, p - p[-1], spread)
                moved = terms * powers @ found.mean[1:]
                # A series that turns back within the data says nothing of their noise there.
                slope = np.where(moved * moved[-1] > 0, moved, slope)
            assert found is not None
            gap = found.mean[0]
            above = (found.mean[1] / lead - LEAST) * abs(lead) / found.deviation[1]
            evidence = (
                changed + found.evidence + scipy.stats.norm.logcdf(above) - scipy.stats.norm.logcdf((1 - LEAST) / LEAD)
            )
            # Over a unit of the rate the parameter changes by this much, from the bifurcation to the last point.
            steep = gap / max(float(y[-1]), 1.0)
            deviation = np.linalg.norm([found.deviation[0], left_out[0] * gap, left_out[1] * steep])
            out.append(
                _Estimate(float(evidence), float(gap + p[-1]), float(deviation), noise, max(len(p) - 3, 1), float(y[-1]))
            )
    return out


class _Posterior(NamedTuple):
    """Mean and standard deviation of the coefficients, the constant's first, and the log evidence of the data."""

    mean: np.ndarray
    deviation: np.ndarray
    evidence: float


def _posterior(terms: np.ndarray, prior: np.ndarray, lead: float, data: np.ndarray, spread: np.ndarray) -> _Posterior:
    """Of a linear model: coefficients are independent, of deviations `prior` about zero, the first term's about `lead`."""
    design = np.concatenate([np.ones((len(data), 1)), terms], axis=1)
    left, values, right = np.linalg.svd(design * prior / spread[:, None], full_matrices=False)
    residual = (data - terms[:, 0] * lead) / spread
    seen = left.T @ residual
    missed = residual @ residual - seen @ seen + np.sum(seen**2 / (1 + values**2))
    mean = prior * (right.T @ (values / (1 + values**2) * seen))
    mean[1] += lead
    # A direction that the data do not reach keeps its prior.
    narrowed = np.sum(right**2 / (1 + values**2)[:, None], axis=0) + np.maximum(1 - np.sum(right**2, axis=0), 0.0)
    evidence = -0.5 * missed - np.log(spread).sum() - 0.5 * np.log1p(values**2).sum()
    return _Posterior(mean, prior * narrowed**0.5, float(evidence))


def _mixture(windows: list[list[_Estimate]], p: np.ndarray) -> tuple[float, tuple[float, float], float]:
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
    # In units of the last point's distance: rounding must not pose as certainty.
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
