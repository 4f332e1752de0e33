"""Homotopies: paths from almost every state to a fixed point, also if Newton's iteration fails (Chow, Mallet-Paret and
Yorke, *Mathematics of Computation* 32, 1978; Watson, Billups and Morgan, *ACM TOMS* 13, 1987).

The zeros (x, lambda) of lambda f(x) + (1 - lambda) D (x0 - x) form a curve through (x0, 0). It is followed by arclength,
through its folds. Each crossing of lambda = 1 is a fixed point. The curve continues beyond lambda = 1 and comes back, and
on its way back it meets fixed points of negative index. No eigenvalues and no events are computed on the way.
"""

from typing import NamedTuple

import numpy as np

from ssntk.dynamics.scaled import ScaledField, solved

# A path ends at lambda = BEYOND, or if a state is further out than FAR half widths of the box.
BEYOND, FAR = 3.0, 1e6
# The first, the longest and the shortest step, in half widths of the box.
FIRST, LONGEST, SHORTEST = 0.02, 0.5, 1e-7
# How closely a path is followed: the largest turn of the tangent in a step, in radians, and the turn aimed at; the same for
# the first correction, relative to the step; and the last correction before the next step. ROUGHLY is enough to arrive at
# some fixed point, CLOSELY stays on one path through its folds.


class Care(NamedTuple):
    most_turn: float
    aim_turn: float
    most_miss: float
    aim_miss: float
    close: float


ROUGHLY, CLOSELY = Care(0.8, 0.5, 0.4, 0.15, 0.15), Care(0.6, 0.25, 0.3, 0.05, 0.03)
# The largest number of corrections in one step.
CORRECTIONS = 4


class Crossings(NamedTuple):
    """The crossings of lambda = 1: guesses (c, n) of fixed points, and the index (c,) of each one's start.

    Also how many paths ended beyond, far out, stalled and out of steps, in this order (4,), and the number of LU
    decompositions.
    """

    y: np.ndarray
    start: np.ndarray
    ended: np.ndarray
    count: int


class _Paths:
    """The paths that are followed at the same time, one in each row."""

    NAMES = ("start", "y0", "level", "base", "tangent", "before", "gap", "step")
    NAMES += ("guess", "tries", "left", "miss", "fails", "at_base")

    def __init__(self, field: ScaledField, number: np.ndarray, y0: np.ndarray, level: np.ndarray, steps: int):
        k, n, dtype = len(y0), field.n, field.dtype
        self.start, self.y0, self.level = number, y0, level
        self.base = np.concatenate([y0, np.zeros((k, 1), dtype)], axis=1)
        # Tangents point along lambda at first: the first correction finds them.
        self.tangent = np.zeros((k, n + 1), dtype)
        self.tangent[:, -1] = 1.0
        self.before, self.guess = self.tangent.copy(), self.base.copy()
        self.gap, self.step = np.full(k, np.inf, dtype), np.full(k, FIRST, dtype)
        self.tries, self.left, self.miss = np.zeros(k, int), np.full(k, steps), np.zeros(k, dtype)
        # The first correction is applied to the base itself, as after rejections: it finds the tangent without a step.
        self.fails, self.at_base = np.zeros(k, int), np.ones(k, bool)

    def take(self, rows: np.ndarray) -> None:
        for name in self.NAMES:
            setattr(self, name, getattr(self, name)[rows])

    def join(self, other: "_Paths") -> None:
        for name in self.NAMES:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))

    def __len__(self) -> int:
        return len(self.start)


def rates_of(jacobians: np.ndarray) -> np.ndarray:
    """D (n,): each state's own rate in the linear part of the field, in 1 / time, from Jacobians (k, n, n)."""
    good = np.isfinite(jacobians).all(axis=(1, 2))
    if not good.any():
        return np.ones(jacobians.shape[1], jacobians.dtype)
    sizes = np.abs(jacobians[good])
    own, rows = np.diagonal(sizes, axis1=1, axis2=2).mean(axis=0), sizes.sum(axis=2).mean(axis=0)
    # A state without a rate of its own gets the rate with which the others drive it.
    rates = np.where(own > 1e-3 * rows, own, rows)
    typical = rates[rates > 0].mean() if (rates > 0).any() else 1.0
    return np.where(rates > 0, rates, typical).astype(jacobians.dtype)


def cross(
    field: ScaledField,
    starts: np.ndarray,
    level: np.ndarray,
    rates: np.ndarray,
    box: np.ndarray,
    *,
    beyond: float = BEYOND,
    care: Care = CLOSELY,
    steps: int = 1500,
) -> Crossings:
    """The crossings of lambda = 1 of the paths from states (k, n), with D = `rates` (n,), in a box of half widths (n,).

    `beyond`: the lambda at which a path ends. `care`: how closely paths are followed. `steps`: the largest number of
    corrections for one path.
    """
    found, by, ended, count = [], [], np.zeros(4, int), 0
    waiting = np.arange(len(starts))
    paths = _Paths(field, waiting[:0], starts[:0], level[:0], steps)
    width = min(field.room, 128)
    found.append(np.zeros((0, field.n), field.dtype))
    by.append(waiting[:0])
    while len(paths) or waiting.size:
        fresh = waiting[: max(width - len(paths), 0)]
        if fresh.size and (len(paths) == 0 or fresh.size >= width // 8 or fresh.size == waiting.size):
            paths.join(_Paths(field, fresh, starts[fresh].astype(field.dtype), level[fresh], steps))
            waiting = waiting[fresh.size :]
        count += len(paths)
        crossed, numbers, outcome = _tick(field, paths, rates, box, beyond, care)
        found.append(crossed)
        by.append(numbers)
        ended += np.bincount(outcome[outcome >= 0], minlength=4)
        if (outcome >= 0).any():
            paths.take(outcome < 0)
    return Crossings(np.concatenate(found), np.concatenate(by), ended, count)


def _tick(
    field: ScaledField, paths: _Paths, rates: np.ndarray, box: np.ndarray, beyond: float, care: Care
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one correction of every path, and a step of those that are then close enough.

    Returns guesses (c, n) at crossings, the numbers (c,) of their paths, and how each path has ended (k,), -1 if it has not.
    """
    n, dtype = field.n, field.dtype
    y = paths.guess[:, :-1]
    # Lengths are measured in half widths of the box, or in the state itself if it lies outside.
    width = np.maximum(box, np.abs(paths.base[:, :-1])) * n**0.5
    paths.left -= 1
    correction, tangent = _newton(field, paths, rates, width)
    with np.errstate(all="ignore"):
        size = np.linalg.norm(correction, axis=1)
        turn = np.arccos(np.clip((tangent * paths.tangent).sum(axis=1), -1, 1))
        good = np.isfinite(size) & np.isfinite(turn)
        first = paths.tries == 0
        contracts = np.where(first, paths.at_base | (size <= care.most_miss * paths.step), size <= 0.5 * paths.miss)
        going = good & contracts
        corrected = paths.guess + np.concatenate([width, np.ones((len(y), 1), dtype)], axis=1) * correction
    paths.miss = np.where(first, size, paths.miss)
    close = going & (size <= care.close * paths.step)
    accepted = close & ((turn <= care.most_turn) | paths.at_base)
    again = going & ~close & (paths.tries < CORRECTIONS)
    rejected = ~accepted & ~again
    paths.guess[again] = corrected[again]
    paths.tries = np.where(again, paths.tries + 1, 0)
    # Guess the crossings from the cubic through two points and their tangents.
    over = accepted & ((paths.base[:, -1] - 1) * (corrected[:, -1] - 1) < 0)
    crossed = np.zeros((0, n), dtype)
    if over.any():
        crossed = _between(paths.base[over], corrected[over], paths.tangent[over], tangent[over], width[over])
    numbers = paths.start[over]
    with np.errstate(all="ignore"):
        by_miss = np.sqrt(care.aim_miss * paths.step / np.maximum(paths.miss, 1e-9))
        growth = np.minimum(care.aim_turn / np.maximum(turn, 1e-3), by_miss)
        grown = np.minimum(paths.step * np.clip(growth, 0.4, 2.0), LONGEST)
    moved = accepted & ~paths.at_base
    paths.gap = np.where(moved, paths.step, paths.gap)
    paths.step = np.where(moved, grown, np.where(rejected, 0.35 * paths.step, paths.step)).astype(dtype)
    paths.fails = np.where(accepted, 0, paths.fails + rejected)
    outcome = np.full(len(y), -1)
    outcome[paths.left <= 0] = 3
    outcome[rejected & ((paths.step < SHORTEST) | (paths.at_base & (paths.fails > 2)))] = 2
    far = (np.abs(corrected[:, :-1]) > FAR * box).any(axis=1)
    outcome[accepted & (far | (corrected[:, -1] < -0.1))] = 1
    outcome[accepted & (corrected[:, -1] > beyond)] = 0
    paths.before = np.where(moved[:, None], paths.tangent, paths.before)
    paths.tangent = np.where(accepted[:, None], tangent, paths.tangent)
    paths.base = np.where(accepted[:, None], corrected, paths.base).astype(dtype)
    # After repeated rejections correct the base itself: if it is off its path, every short step would be rejected.
    paths.at_base = np.where(accepted, False, np.where(rejected, ~paths.at_base & (paths.fails >= 2), paths.at_base))
    _onward(paths, box, width, accepted | rejected)
    return crossed, numbers, outcome


def _newton(field: ScaledField, paths: _Paths, rates: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's correction of each guess normal to its tangent, in units of `width`, and its tangent, (k, n + 1) each."""
    n, dtype = field.n, field.dtype
    y, part = paths.guess[:, :-1], paths.guess[:, -1:]
    with np.errstate(all="ignore"):
        velocity, jacobian = field.linear(y, paths.level)
        pulled = (paths.y0 - y)[:, :, None]
        matrix = np.empty((len(y), n + 1, n + 1), dtype)
        # Rows are in units of D. The scale of columns does not change the pivots, so that lengths enter only by the tangent.
        by_rate = velocity / rates
        np.multiply(jacobian, (part / rates)[:, :, None], out=matrix[:, :n, :n])
        at = np.arange(n)
        matrix[:, at, at] -= 1 - part
        matrix[:, :n, n] = by_rate - pulled[:, :, 0]
        matrix[:, n, :n] = paths.tangent[:, :n] / width
        matrix[:, n, n] = paths.tangent[:, n]
        right = np.zeros((len(y), n + 1, 2), dtype)
        right[:, :n, 0] = -(part * by_rate + (1 - part) * pulled[:, :, 0])
        right[:, n, 1] = 1.0
        both = solved(matrix, right)
        both[:, :n] /= width[:, :, None]
        correction, tangent = both[:, :, 0], both[:, :, 1]
        tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    return correction, tangent


def _onward(paths: _Paths, box: np.ndarray, width: np.ndarray, on: np.ndarray) -> None:
    """The next guesses of the paths that go `on` (k,), from their new bases. `width` (k, n): the lengths used so far."""
    n, dtype = box.size, paths.guess.dtype
    # If a state grows, its unit of length changes: convert the tangents.
    wider = np.maximum(box, np.abs(paths.base[:, :-1])) * n**0.5
    ratio = np.concatenate([width / wider, np.ones((len(width), 1), dtype)], axis=1)
    for name in ("tangent", "before"):
        changed = getattr(paths, name) * ratio
        setattr(paths, name, (changed / np.linalg.norm(changed, axis=1, keepdims=True)).astype(dtype))
    with np.errstate(all="ignore"):
        bend = (paths.tangent - paths.before) * (paths.step / paths.gap * (paths.step / 2))[:, None]
        bend = np.where(np.isfinite(bend) & (paths.step <= 3 * paths.gap)[:, None], bend, 0.0)
    ahead = np.where(paths.at_base[:, None], 0.0, paths.step[:, None] * paths.tangent + bend)
    guess = paths.base + np.concatenate([wider, np.ones((len(width), 1), dtype)], axis=1) * ahead
    paths.guess = np.where(on[:, None], guess, paths.guess).astype(dtype)


def _between(
    start: np.ndarray, end: np.ndarray, tangent0: np.ndarray, tangent1: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """The states (c, n) at lambda = 1 on the cubics between two points (c, n + 1) of each path."""
    lengths = np.concatenate([width, np.ones((len(start), 1), width.dtype)], axis=1)
    chord = (end - start) / lengths
    gap = np.linalg.norm(chord, axis=1, keepdims=True)
    slope0, slope1 = tangent0 * gap, tangent1 * gap
    low, high = np.zeros((len(start), 1)), np.ones((len(start), 1))

    def at(s: np.ndarray) -> np.ndarray:
        curve = slope0 * s + s**2 * (3 * chord - 2 * slope0 - slope1) + s**3 * (slope0 + slope1 - 2 * chord)
        return start + lengths * curve

    rises = end[:, -1:] > start[:, -1:]
    for _ in range(30):
        middle = (low + high) / 2
        before = (at(middle)[:, -1:] < 1) == rises
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return at((low + high) / 2)[:, :-1].astype(start.dtype)
