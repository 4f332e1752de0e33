"""The search for fixed points: what starts there are, in which order they are tried, and when enough were.

Cheap first: Newton's iteration, globalised. What it leaves goes along homotopies, which almost always arrive.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ssntk.dynamics.conserved import conserved_quantities
from ssntk.dynamics.homotopy import BEYOND, CLOSELY, ROUGHLY, cross, rates_of
from ssntk.dynamics.rollout import comes_back, from_afar, half_widths, known_bounded, roll_out
from ssntk.dynamics.scaled import SMALL, ScaledField, confined, damped, distinct, settle
from ssntk.dynamics.scales import rate_of, typical_sizes
from ssntk.dynamics.stability import judged_exponents, linearised
from ssntk.models.clock import Continuous

# At most so many times the starts that were asked for.
MOST = 16
# The share of the starts that may be alone at their points before more are tried.
ALONE = 0.01
# Multiplications that homotopies may take in one batch, at about 240 n^3 a path.
WORK = 6.4e10
# Units from which on confined steps lose nearly every start of a random network.
LARGE = 160
# Paths that are followed beyond their first point, by units: at most so many units, so many paths, so many steps.
EXPLORING = ((32, 32, 1500), (64, 8, 800))
# The shares of starts: states of roll-outs, random in their box; the rest is random at several scales.
ROLLED, BOXED = 0.25, 0.4
# How far beyond lambda = 1 a path has to go to be there.
THERE = 1 + 1e-6


class Region(NamedTuple):
    """Where the states live: the middle and the half widths (n,) of their box, states of roll-outs (k, n)."""

    middle: np.ndarray
    box: np.ndarray
    states: np.ndarray


class Search:
    """What was found so far, in units of the states' sizes."""

    def __init__(self, model: Any, u: Any, scale: np.ndarray | None, periods: np.ndarray, seed: list[int], given: Any):
        self.model, self.random = model, np.random.default_rng(seed)
        zero = np.zeros(model.n_state, periods.dtype) if given is None else np.asarray(given[0])
        if scale is None:
            scale = typical_sizes(model, u, zero)
            scale = np.where(periods > 0, periods / 6, scale).astype(periods.dtype)
        self.conserved = conserved_quantities(model, u, scale)
        weights = np.linalg.qr((self.conserved * scale).T)[0].T
        velocity, jacobian = (np.nan_to_num(np.asarray(part)) for part in linearised(model, jax.device_put(zero), u))
        self.field = ScaledField(model, u, scale, weights, rate_of(velocity, jacobian, scale))
        self.periods = periods / scale
        n, dtype = self.field.n, self.field.dtype
        # Distinct points: states, errors, Jacobians, their eigenvalues and how far rounding may have moved these, signs of
        # det(-A), and how many starts met each.
        self.y, self.error = np.zeros((0, n), dtype), np.zeros((0, n), dtype)
        self.jacobian, self.velocity = np.zeros((0, n, n), dtype), np.zeros((0, n), dtype)
        self.values, self.doubts = np.zeros((0, n), complex), np.zeros((0, n))
        self.sign, self.hits = np.zeros(0, int), np.zeros(0, int)
        self.made, self.missed = 0, 0
        # Starts that Newton's iteration did not bring to a point.
        self.lost, self.first = np.zeros((0, n), dtype), np.zeros((0, n), dtype)

    def region(self) -> Region:
        """The box of short roll-outs."""
        n = self.field.n
        count, steps = (16, 40) if n <= 64 else (6, 20)
        spread = 10 ** np.linspace(-1, 1, count - 1)[:, None]
        starts = np.concatenate([np.zeros((1, n)), spread * self.random.standard_normal((count - 1, n))])
        level = np.zeros((count, len(self.field.weights)), self.field.dtype)
        states, _ = roll_out(self.field, starts, level, steps)
        # A roll-out that runs away says nothing of where states live.
        with np.errstate(invalid="ignore"):
            before = np.abs(states[-(steps // 4)])
            stays = np.isfinite(states[-1]).all(axis=1) & (np.abs(states[-1]) <= 10 * (1 + before)).all(axis=1)
        states = self._wrapped(states[:, stays].reshape(-1, n))
        late = states[len(states) // 4 :]
        middle, box = half_widths(late) if len(late) else (np.zeros(n), 3 * np.ones(n))
        return Region(middle, np.maximum(box, 1.0), states)

    def _wrapped(self, y: np.ndarray) -> np.ndarray:
        turns = np.where(self.periods > 0, self.periods, 1.0)
        return np.where(self.periods > 0, y - turns * np.floor(y / turns), y)

    def fresh(self, region: Region, count: int, zero: bool) -> np.ndarray:
        """Random starts (count, n): states of roll-outs, in their box, at several scales; the zero state first."""
        n, random = self.field.n, self.random
        rolled = int(ROLLED * count) if len(region.states) else 0
        boxed = int(BOXED * count)
        picks = region.states[random.integers(0, max(len(region.states), 1), rolled)]
        inside = region.middle + region.box * random.uniform(-1, 1, (boxed, n))
        rest = count - rolled - boxed
        scaled = 10 ** random.uniform(-1.5, 1, (rest, 1)) * random.standard_normal((rest, n))
        starts = np.concatenate([scaled, picks.reshape(rolled, n), inside])
        if zero:
            starts[0] = 0.0
        return starts.astype(self.field.dtype)

    def between(self, region: Region, count: int) -> np.ndarray:
        """Starts (count, n) between pairs of known points, where saddles are, and around one."""
        random, n = self.random, self.field.n
        pairs = random.integers(0, len(self.y), (2, count))
        ends = self.y[pairs]
        gap = ends[1] - ends[0]
        spread = np.sqrt(np.mean(gap**2, axis=1, keepdims=True))
        spread = np.where(spread == 0, 10 ** random.uniform(-1.5, 1, (count, 1)), 0.3 * spread)
        noise = spread * random.standard_normal((count, n))
        return (ends[0] + random.uniform(0, 1, (count, 1)) * gap + noise).astype(self.field.dtype)

    def on_level(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Random starts brought to the level of the zero state, and those levels (k, c)."""
        weights = self.field.weights
        return starts - starts @ weights.T @ weights, np.zeros((len(starts), len(weights)), self.field.dtype)

    def run(self, starts: np.ndarray, level: np.ndarray, region: Region, paths: int) -> None:
        """Search from starts (k, n), of which `paths` at most go along homotopies."""
        field, k = self.field, len(starts)
        if len(self.first) == 0:
            self.first = starts
        # Of middling networks steps that stay in the box bring most starts somewhere, in fewer corrections.
        middling = SMALL < field.n < LARGE
        ended = confined(field, starts, level, region.box) if middling else damped(field, starts, level)
        y, near = ended.y.copy(), ended.near.copy()
        owner, guesses = np.flatnonzero(near), y[near]
        left = np.flatnonzero(~near)
        self.lost = np.concatenate([self.lost, y[left[np.isfinite(y[left]).all(axis=1)]]])[:64]
        arrived = self._take(guesses, level[owner], owner, k)
        left = np.flatnonzero(~arrived)
        if len(left) > paths:
            left = np.sort(self.random.permutation(left)[:paths])
        if left.size:
            arrived |= self._along(starts[left], level[left], region, left, k, THERE)
        self.made += k
        self.missed += int((~arrived).sum())

    def explore(self, region: Region, count: int, steps: int) -> None:
        """Follow paths from random states through all their points."""
        starts = region.middle + region.box * self.random.uniform(-1, 1, (count, self.field.n))
        starts, level = self.on_level(starts.astype(self.field.dtype))
        arrived = self._along(starts, level, region, np.arange(count), count, BEYOND, steps)
        self.made += count
        self.missed += int((~arrived).sum())

    def _along(
        self,
        starts: np.ndarray,
        level: np.ndarray,
        region: Region,
        owner: np.ndarray,
        count: int,
        beyond: float,
        steps: int = 400,
    ) -> np.ndarray:
        """Which of `count` starts arrive by homotopies from states (k, n), theirs by the numbers `owner` (k,)."""
        field, arrived = self.field, np.zeros(count, bool)
        typical = (region.middle + region.box * self.random.uniform(-1, 1, (8, field.n))).astype(field.dtype)
        some = self.random.integers(0, len(starts), min(len(starts), 8))
        typical = np.concatenate([typical, starts[some]])
        rates = rates_of(field.linear(typical, field.level(typical))[1])
        # What is lost is tried once more, from a little farther off, and followed closely.
        tries = (CLOSELY if beyond > THERE else ROUGHLY, CLOSELY)
        for off, care in zip((1e-3, 3e-2), tries[: 2 if field.n <= SMALL else 1], strict=False):
            left = np.flatnonzero(~arrived[owner])
            if left.size == 0:
                break
            # Off the symmetric states from which paths branch.
            moved = starts[left] + off * region.box * self.random.uniform(-1, 1, (left.size, field.n))
            moved = moved - (moved @ field.weights.T - level[left]) @ field.weights
            found = cross(field, moved, level[left], rates, region.box, beyond=beyond, care=care, steps=steps)
            near = damped(field, found.y, level[left][found.start], 8).y
            arrived |= self._take(near, level[left][found.start], owner[left][found.start], count)
        return arrived

    def _take(self, near: np.ndarray, level: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
        """Add the zeros near states (m, n), met by the starts `owner` (m,); which of `count` starts met one."""
        field, arrived = self.field, np.zeros(count, bool)
        if len(near) == 0:
            return arrived
        parts = []
        for some in np.array_split(np.arange(len(near)), -(-len(near) // (4 * field.room))):
            parts.append(settle(field, near[some], level[some]))
        settled = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        good = settled[4]
        y, velocity, jacobian, error, _, linear = (part[good] for part in settled)
        owner = owner[good]
        arrived[owner] = True
        known = len(self.y)
        first, which = distinct(np.concatenate([self.y, y]), np.concatenate([self.error, error]), self.periods)
        which, new = which[known:], first[first >= known] - known
        self.y, self.error = np.concatenate([self.y, y[new]]), np.concatenate([self.error, error[new]])
        self.jacobian = np.concatenate([self.jacobian, jacobian[new]])
        self.velocity = np.concatenate([self.velocity, velocity[new]])
        values, doubts = judged_exponents(jacobian[new], Continuous())
        self.values, self.doubts = np.concatenate([self.values, values]), np.concatenate([self.doubts, doubts])
        # Where Newton's iteration converged linearly only, A is singular too.
        degenerate = linear[new] | (np.abs(values) <= doubts).any(axis=1)
        signs = np.where(degenerate, 0, np.linalg.slogdet(-jacobian[new])[0])
        self.sign = np.concatenate([self.sign, signs.astype(int)])
        # A start counts once for a point, however often its path crosses there.
        pairs = np.unique(np.stack([which, owner]), axis=1)
        self.hits = np.bincount(pairs[0], minlength=len(self.y)) + np.pad(self.hits, (0, len(self.y) - len(self.hits)))
        return arrived

    def descents(self, count: int) -> np.ndarray:
        """At most `count` starts (k, n) of the search for slow points: where Newton's iteration was lost, and first starts.

        If `count` is zero, as for larger networks, four of the former: more would take longer than all the rest.
        """
        lost = self.lost[: max(count // 2, 4)]
        return np.concatenate([lost, self.first[: max(count - len(lost), 0)]])

    @property
    def index_sum(self) -> int | None:
        """The sum of the signs of det(-A); `None` where a point is degenerate."""
        return None if (self.sign == 0).any() else int(self.sign.sum())

    def widely(self, n_starts: int) -> None:
        """Search from at least `n_starts` random starts, and from more while that promises more."""
        field, region = self.field, self.region()
        limits = next(((count, steps) for units, count, steps in EXPLORING if field.n <= units), (0, 0))
        paths, batch, bounded = _paths(field.n, n_starts), n_starts, None
        afar = False
        while True:
            before, first = len(self.y), self.made == 0
            half = max(batch // 2, 1)
            self.run(*self.on_level(self.fresh(region, half, first)), region, paths)
            rest = batch - half
            if rest:
                some = self.between(region, rest) if len(self.y) else self.fresh(region, rest, False)
                self.run(*self.on_level(some), region, paths)
            if limits[0] and (first or len(self.y) > before or self.index_sum not in (None, 1)):
                self.explore(region, min(limits[0], max(n_starts // 4, 4)), limits[1])
            once, twice = (int((self.hits == times).sum()) for times in (1, 2))
            more = once > ALONE * self.made
            # So many that all the starts that are allowed would not meet them.
            if more and len(self.y) + once**2 / (2 * (twice + 1)) > MOST * n_starts:
                more = False
            elif not more and self.index_sum not in (None, 1) and not (self.periods > 0).any():
                if bounded is None:
                    bounded = known_bounded(self.model) or comes_back(field, region.box, region.middle, self.random)
                if not bounded and not afar:
                    # What holds the states may lie far outside of where they began.
                    afar = True
                    ends = from_afar(field, region.box, region.middle, self.random)
                    self.run(*self.on_level(ends), region, paths)
                    more = self.index_sum not in (None, 1) and len(self.y) > before
                more = more or bounded
            if not more or self.made + batch > MOST * n_starts:
                return

    def exactly(self, starts: np.ndarray) -> None:
        """Search from these states (k, n) and no others."""
        y = (starts / self.field.scale).astype(self.field.dtype)
        middle, box = half_widths(y)
        # Many starts along homotopies would take longer than what others do with the same starts.
        paths = len(y) if self.field.n <= SMALL else min(_paths(self.field.n, len(y)), max(len(y) // 4, 16))
        self.run(y, self.field.level(y), Region(middle, np.maximum(box, 1.0), y), paths)


def _paths(n: int, starts: int) -> int:
    """How many starts may go along homotopies in one batch of so many."""
    if n <= SMALL:
        return starts
    return int(np.clip(WORK / (240 * n**3), 8, max(starts // 8, 16) if n > 64 else starts))
