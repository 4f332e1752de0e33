"""Search for fixed points: which starts there are, the order in which they are tried, and when to stop.

The cheap method comes first: a globalised Newton iteration. The starts that it loses follow homotopies, which almost
always arrive.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from ssntk.dynamics.conserved import conserved_quantities
from ssntk.dynamics.homotopy import BEYOND, CLOSELY, ROUGHLY, cross, rates_of
from ssntk.dynamics.rollout import comes_back, from_afar, half_widths, known_bounded, roll_out
from ssntk.dynamics.scaled import SMALL, ScaledField, confined, damped, distinct, settle
from ssntk.dynamics.scales import rate_of, typical_sizes
from ssntk.dynamics.stability import judged_exponents, linearised
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import Continuous

# The search uses at most this multiple of the requested starts.
MOST = 16
# More starts are tried while more than this fraction of them are alone at their points.
ALONE = 0.01
# The largest number of multiplications for homotopies in one batch; a path takes about 240 n^3.
WORK = 6.4e10
# From this number of units on, steps confined to the box lose nearly every start of a random network.
LARGE = 160
# (units, paths, steps): up to this many units, how many paths are followed beyond their first point, for how many steps.
EXPLORING = ((32, 32, 1500), (64, 8, 800))
# The fractions of starts that are states of roll-outs, and random states in their box. The rest is random at several scales.
ROLLED, BOXED = 0.25, 0.4
# A path has arrived once it passes this lambda, a little beyond 1.
THERE = 1 + 1e-6


class Region(NamedTuple):
    """The region of the states: the middle (n,) and half widths (n,) of their box, and states (k, n) of roll-outs."""

    middle: np.ndarray
    box: np.ndarray
    states: np.ndarray


class Search:
    """The fixed points found so far, in units of the states' sizes, and the methods that find more."""

    def __init__(
        self,
        model: AbstractStateSpaceModel,
        u: Array,
        scale: np.ndarray | None,
        periods: np.ndarray,
        seed: list[int],
        given: np.ndarray | None,
    ):
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
        # The distinct points: states, their errors, Jacobians, growth exponents and their rounding errors, signs of det(-A),
        # and how many starts arrived at each.
        self.y, self.error = np.zeros((0, n), dtype), np.zeros((0, n), dtype)
        self.jacobian, self.velocity = np.zeros((0, n, n), dtype), np.zeros((0, n), dtype)
        self.values, self.doubts = np.zeros((0, n), complex), np.zeros((0, n))
        self.sign, self.hits = np.zeros(0, int), np.zeros(0, int)
        self.made, self.missed = 0, 0
        # Starts from which Newton's iteration did not arrive at a point.
        self.lost, self.first = np.zeros((0, n), dtype), np.zeros((0, n), dtype)

    def region(self) -> Region:
        """The box of short roll-outs."""
        n = self.field.n
        count, steps = (16, 40) if n <= 64 else (6, 20)
        spread = 10 ** np.linspace(-1, 1, count - 1)[:, None]
        starts = np.concatenate([np.zeros((1, n)), spread * self.random.standard_normal((count - 1, n))])
        level = np.zeros((count, len(self.field.weights)), self.field.dtype)
        states, _ = roll_out(self.field, starts, level, steps)
        # Leave out roll-outs that diverge: they do not show the region of the states.
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
        """Random starts (count, n): states of roll-outs, states in their box, and states at several scales.

        If `zero`, the zero state comes first.
        """
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
        """Starts (count, n) between pairs of known points, where saddles are likely, or around a single known point."""
        random, n = self.random, self.field.n
        pairs = random.integers(0, len(self.y), (2, count))
        ends = self.y[pairs]
        gap = ends[1] - ends[0]
        spread = np.sqrt(np.mean(gap**2, axis=1, keepdims=True))
        spread = np.where(spread == 0, 10 ** random.uniform(-1.5, 1, (count, 1)), 0.3 * spread)
        noise = spread * random.standard_normal((count, n))
        return (ends[0] + random.uniform(0, 1, (count, 1)) * gap + noise).astype(self.field.dtype)

    def on_level(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts (k, n) moved so that conserved quantities have their values at the zero state, and these values (k, c)."""
        weights = self.field.weights
        return starts - starts @ weights.T @ weights, np.zeros((len(starts), len(weights)), self.field.dtype)

    def run(self, starts: np.ndarray, level: np.ndarray, region: Region, paths: int) -> None:
        """Search from starts (k, n). At most `paths` of those that Newton's iteration loses follow homotopies."""
        field, k = self.field, len(starts)
        if len(self.first) == 0:
            self.first = starts
        # For networks of medium size, steps confined to the box let most starts arrive, in fewer corrections.
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
        """Follow paths from `count` random states through all fixed points on them."""
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
        """Follow homotopies from states (k, n) of the starts number `owner` (k,). Which of `count` starts arrive."""
        field, arrived = self.field, np.zeros(count, bool)
        typical = (region.middle + region.box * self.random.uniform(-1, 1, (8, field.n))).astype(field.dtype)
        some = self.random.integers(0, len(starts), min(len(starts), 8))
        typical = np.concatenate([typical, starts[some]])
        rates = rates_of(field.linear(typical, field.level(typical))[1])
        # Paths that are lost are tried once more, from a start a little farther off, and with shorter steps.
        tries = (CLOSELY if beyond > THERE else ROUGHLY, CLOSELY)
        for off, care in zip((1e-3, 3e-2), tries[: 2 if field.n <= SMALL else 1], strict=False):
            left = np.flatnonzero(~arrived[owner])
            if left.size == 0:
                break
            # Displace the starts, since paths branch at symmetric states.
            moved = starts[left] + off * region.box * self.random.uniform(-1, 1, (left.size, field.n))
            moved = moved - (moved @ field.weights.T - level[left]) @ field.weights
            found = cross(field, moved, level[left], rates, region.box, beyond=beyond, care=care, steps=steps)
            near = damped(field, found.y, level[left][found.start], 8).y
            arrived |= self._take(near, level[left][found.start], owner[left][found.start], count)
        return arrived

    def _take(self, near: np.ndarray, level: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
        """Add the zeros near states (m, n), which the starts `owner` (m,) arrived at. Which of `count` starts arrived."""
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
        # A is singular also if Newton's iteration converged only linearly.
        degenerate = linear[new] | (np.abs(values) <= doubts).any(axis=1)
        signs = np.where(degenerate, 0, np.linalg.slogdet(-jacobian[new])[0])
        self.sign = np.concatenate([self.sign, signs.astype(int)])
        # A start counts once for each point, however often its path passes it.
        pairs = np.unique(np.stack([which, owner]), axis=1)
        self.hits = np.bincount(pairs[0], minlength=len(self.y)) + np.pad(self.hits, (0, len(self.y) - len(self.hits)))
        return arrived

    def descents(self, count: int) -> np.ndarray:
        """At most `count` starts (k, n) of the search for slow points: states that Newton's iteration lost, and others.

        If `count` is zero, as for larger networks, four of the former, since more would take longer than the whole search.
        """
        lost = self.lost[: max(count // 2, 4)]
        return np.concatenate([lost, self.first[: max(count - len(lost), 0)]])

    @property
    def index_sum(self) -> int | None:
        """The sum of the signs of det(-A) over the points; `None` if one is degenerate."""
        return None if (self.sign == 0).any() else int(self.sign.sum())

    def widely(self, n_starts: int) -> None:
        """Search from at least `n_starts` random starts, and from more while these are likely to find further points."""
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
            # Stop if there are more points, by estimate, than the allowed starts could reach.
            if more and len(self.y) + once**2 / (2 * (twice + 1)) > MOST * n_starts:
                more = False
            elif not more and self.index_sum not in (None, 1) and not (self.periods > 0).any():
                if bounded is None:
                    bounded = known_bounded(self.model) or comes_back(field, region.box, region.middle, self.random)
                if not bounded and not afar:
                    # Points that attract the states may lie far outside the region of the starts.
                    afar = True
                    ends = from_afar(field, region.box, region.middle, self.random)
                    self.run(*self.on_level(ends), region, paths)
                    more = self.index_sum not in (None, 1) and len(self.y) > before
                more = more or bounded
            if not more or self.made + batch > MOST * n_starts:
                return

    def exactly(self, starts: np.ndarray) -> None:
        """Search from the given states (k, n) only."""
        y = (starts / self.field.scale).astype(self.field.dtype)
        middle, box = half_widths(y)
        # Limit the homotopies: with many starts they would take longer than the rest of the search.
        paths = len(y) if self.field.n <= SMALL else min(_paths(self.field.n, len(y)), max(len(y) // 4, 16))
        self.run(y, self.field.level(y), Region(middle, np.maximum(box, 1.0), y), paths)


def _paths(n: int, starts: int) -> int:
    """The largest number of homotopies in a batch of `starts`, for n units."""
    if n <= SMALL:
        return starts
    return int(np.clip(WORK / (240 * n**3), 8, max(starts // 8, 16) if n > 64 else starts))
