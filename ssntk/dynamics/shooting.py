"""Newton's iteration on all points of a cycle of a map at once, from many starts (multiple shooting).

The unknowns of a cycle of k steps are its k points y_j. The equations `F(y_j) = y_(j+1)` are condensed to n unknowns: if the
first point moves by d, the others follow by products of the Jacobians A_j, and `(1 - A_k ... A_1) d` must cancel what the
equations have left (Ascher, Mattheij and Russell, *Numerical Solution of Boundary Value Problems*, 1995, section 4).
"""

from typing import NamedTuple

import numpy as np

from ssntk.dynamics.scaled import ERRORS, ScaledField, sizes, solved, whole_periods

# The largest number of corrections.
CORRECTIONS = 100
# The longest correction of a point, in half widths of the box of the states, for starts in turn: short steps find more in
# networks that saturate, long ones more in chaotic maps of few states.
SHARES = np.array([0.5, 1.0])
# How often rounding errors are drawn. With few draws, those of several steps may cancel in every one.
DRAWS = 16
# The largest number of entries in the Jacobians of one batch.
ENTRIES = 2**23


class Shot(NamedTuple):
    """Where segments (m, k, n) ended.

    - `y`: the points. `error` (m, k, n): their errors. `residual` (m, k, n): what the equations have left. `jacobian`
      (m, k, n, n): those of one step.
    - `good` (m,): whether each is a cycle. `degenerate` (m,): whether it returns but is not isolated, to rounding.
    """

    y: np.ndarray
    error: np.ndarray
    residual: np.ndarray
    jacobian: np.ndarray
    good: np.ndarray
    degenerate: np.ndarray


class Shooting:
    """The equations of cycles of `period` steps of the map `y -> y + dt g(y)` with the field g in units of the states.

    `periods` (n,): those of angles in these units, 0 for the others.
    """

    def __init__(self, field: ScaledField, dt: float, period: int, periods: np.ndarray):
        self.field, self.dt, self.period, self.periods = field, field.dtype.type(dt), period, periods

    def step(self, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        """The states (k, n) after one step."""
        return y + self.dt * self.field.field(y, level)

    def orbits(self, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Segments (m, period, n) of the orbits that start at states (m, n)."""
        segments = [y]
        for _ in range(self.period - 1):
            segments.append(self.step(segments[-1], level))
        return np.stack(segments, axis=1)

    def linear(self, y: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the equations of points (m, k, n) have left, (m, k, n), and the Jacobians of each step (m, k, n, n)."""
        m, k, n = y.shape
        velocity, jacobian = self.field.linear(y.reshape(-1, n), np.repeat(level, k, axis=0))
        left = y - np.roll(y, -1, axis=1) + self.dt * velocity.reshape(m, k, n)
        # Angles may advance by whole periods.
        left -= whole_periods(left, self.periods)
        return left, np.eye(n, dtype=y.dtype) + self.dt * jacobian.reshape(m, k, n, n)

    def correction(self, left: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        """The corrections (m, k, n, r) that cancel what the equations have left, (m, k, n, r), to first order."""
        m, k, n, _ = jacobian.shape
        product, total = np.broadcast_to(np.eye(n, dtype=left.dtype), (m, n, n)), np.zeros_like(left[:, 0])
        for j in range(k):
            total = jacobian[:, j] @ total + left[:, j]
            product = jacobian[:, j] @ product
        matrix = np.eye(n, dtype=left.dtype) - product
        rows = np.abs(matrix).max(axis=2, keepdims=True)
        rows = np.where((rows > 0) & np.isfinite(rows), rows, 1.0)
        moves = [solved(matrix / rows, total / rows)]
        for j in range(k - 1):
            moves.append(jacobian[:, j] @ moves[-1] + left[:, j])
        return np.stack(moves, axis=1)

    def solve(self, segments: np.ndarray, level: np.ndarray, box: np.ndarray) -> Shot:
        """Newton's iteration from segments (m, k, n), with steps confined to a share of the box (n,).

        A segment has become a cycle if its corrections end at rounding level, and each equation too.
        """
        room = max(ENTRIES // (self.period * self.field.n**2), 1)
        parts = [
            self._solve(segments[first : first + room], level[first : first + room], box)
            for first in range(0, len(segments), room)
        ]
        return Shot(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))

    def _solve(self, segments: np.ndarray, level: np.ndarray, box: np.ndarray) -> Shot:
        y, eps = segments.astype(self.field.dtype), self.field.eps
        m, k, n = y.shape
        before, counts = np.full(m, np.inf), np.zeros(m, int)
        residual, jacobian = np.zeros_like(y), np.zeros((m, k, n, n), y.dtype)
        active = np.flatnonzero(np.isfinite(y).all(axis=(1, 2)))
        share = np.resize(SHARES, m)[:, None]
        for _ in range(CORRECTIONS):
            if active.size == 0:
                break
            left, slopes = self.linear(y[active], level[active])
            residual[active], jacobian[active] = left, slopes
            move = self.correction(left[..., None], slopes)[..., 0]
            here = sizes(y[active])
            length = np.sqrt(np.mean((move / here) ** 2, axis=(1, 2)))
            longest = (np.abs(move) / np.maximum(box, np.abs(y[active]))).max(axis=2)
            close = length <= eps**0.4
            # Each point is confined by itself: the others need not wait for one that is far off.
            move = move * np.where(close[:, None], 1.0, np.minimum(1.0, share[active] / longest))[:, :, None]
            good = np.isfinite(move).all(axis=(1, 2))
            y[active[good]] += move[good]
            counts[active] += close
            # Once it is close, the iteration goes on while it gains.
            rests = close & ((length <= 4 * eps) | ((length > 0.9 * before[active]) & (counts[active] > 1)))
            before[active] = length
            active = active[good & ~rests]
        finite = np.flatnonzero(np.isfinite(y).all(axis=(1, 2)))
        good, degenerate = np.zeros(m, bool), np.zeros(m, bool)
        error = np.full_like(y, np.inf)
        if finite.size:
            residual[finite], jacobian[finite] = self.linear(y[finite], level[finite])
            held = finite[self._holds(y[finite], residual[finite], jacobian[finite])]
            if held.size:
                found, error[held] = self._judged(y[held], residual[held], jacobian[held])
                good[held], degenerate[held] = found, ~found
        return Shot(y, error, residual, jacobian, good, degenerate)

    def _noise(self, y: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """The rounding errors (m, k, n) of the equations."""
        size = sizes(y)
        return 4 * self.field.eps * ((np.abs(slopes) @ size[..., None])[..., 0] + size)

    def _holds(self, y: np.ndarray, left: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Whether every equation holds to rounding (m,)."""
        return np.asarray((np.abs(left) <= 16 * self._noise(y, slopes)).all(axis=(1, 2)))

    def _judged(self, y: np.ndarray, left: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each orbit that returns is a cycle by itself (m,), and the errors of the points (m, k, n)."""
        size, eps = sizes(y), self.field.eps
        # Rounding errors have random signs: take the largest result of several draws. The next correction comes last.
        signs = np.random.default_rng(1).choice(np.array([-1.0, 1.0], y.dtype), (*y.shape[1:], DRAWS))
        right = np.concatenate([self._noise(y, slopes)[..., None] * signs, left[..., None]], axis=-1)
        moves = np.abs(self.correction(right, slopes))
        moves = np.where(np.isfinite(moves), moves, np.inf)
        spread = moves[..., :-1].max(axis=-1)
        unsure, last = (np.sqrt(np.mean((part / size) ** 2, axis=(1, 2))) for part in (spread, moves[..., -1]))
        # Near a bifurcation the next correction is no smaller than rounding errors make it.
        good = (unsure <= eps**0.3) & ((last <= eps**0.6) | (last <= 4 * unsure))
        return np.asarray(good), spread + 4 * moves[..., -1]

    def apart(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The distances (..., n) of states, up to whole periods."""
        step = one - other
        return np.abs(step - whole_periods(step, self.periods))

    def prime(self, y: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The prime periods (m,) of cycles (m, k, n): the least q after which the orbit is back, to within its error."""
        found = np.full(len(y), self.period)
        for q in range(self.period - 1, 0, -1):
            if self.period % q == 0:
                back = self.apart(np.roll(y, -q, axis=1), y) <= ERRORS * (error + np.roll(error, -q, axis=1))
                found[back.all(axis=(1, 2))] = q
        return found

    def distinct(self, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The indices of distinct ones of cycles (m, k, n), in their order, and for each which of these it is (m,).

        Two are the same if their points are, in the same order, from some point on.
        """
        m, k, n = y.shape
        which, first = np.full(m, -1), []
        # The mean over a cycle does not depend on the point that comes first. Cycles with different means are different.
        weights = np.random.default_rng(2).uniform(1, 2, n)
        folded = y if not (self.periods > 0).any() else np.where(self.periods > 0, 0.0, y)
        mean, unsure = (folded.mean(axis=1) @ weights), ERRORS * (error.max(axis=1) @ weights)
        order = np.argsort(mean, kind="stable")
        splits = np.diff(mean[order]) > 2 * np.maximum.accumulate(unsure[order])[1:]
        for group in np.split(order, np.flatnonzero(splits) + 1):
            rest = np.sort(group)
            while rest.size:
                one = rest[0]
                # The point of this cycle at which each of the others begins.
                gaps = self.apart(y[rest][:, :1], y[one]) <= ERRORS * (error[rest][:, :1] + error[one])
                shift = gaps.all(axis=2).argmax(axis=1)
                places = (np.arange(k) + shift[:, None]) % k
                near = self.apart(y[rest], y[one][places]) <= ERRORS * (error[rest] + error[one][places])
                same = np.asarray(near.all(axis=(1, 2)))
                same[0] = True
                which[rest[same]] = one
                first.append(one)
                rest = rest[~same]
        kept = np.sort(np.array(first, int))
        return kept, np.searchsorted(kept, which)
