"""Follow the fixed points of piecewise-linear systems over a parameter by pivoting, from border to border.

In the region of one pattern the fixed point is a function x(q) of the fraction q of the span, and solves linear equations.
The next border is the nearest place at which a signal vanishes. Beyond it one column of the Jacobian differs, and the sign
of `delta = det J' / det J` says whether the parameter goes on or turns (Feigin 1970; di Bernardo, Budd, Champneys and
Kowalczyk, *Piecewise-smooth Dynamical Systems*, 2008). There is no step size, and no iteration that could fail.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ssntk.errors import Outcome
from ssntk.piecewise.over import Over
from ssntk.piecewise.region import region_of
from ssntk.piecewise.ways import MOST, Way, ways


class Kink(NamedTuple):
    """A place at which signals vanish on the way.

    - `q`, `x` (n,): the place, in units of the system. `units`: the signals that vanish.
    - `before`, `after` (m,): the patterns. `delta`: det J' / det J. `turns`: whether the parameter turns.
    """

    q: float
    x: np.ndarray
    units: tuple[int, ...]
    before: np.ndarray
    after: np.ndarray
    delta: float
    turns: bool

    def reversed(self) -> "Kink":
        """The same place, travelled the other way."""
        return self._replace(before=self.after, after=self.before, delta=1 / self.delta)


class Piece(NamedTuple):
    """A piece of the path: its region's pattern (m,), the fractions of the span at which it begins and ends, the direction
    of the parameter, and the fixed points (n,) at both ends. Beside a pole `last` is the last one that is computed."""

    pattern: np.ndarray
    begin: float
    end: float
    direction: float
    first: np.ndarray
    last: np.ndarray

    def holds(self, q: float) -> bool:
        """Whether the piece passes q."""
        return bool(min(self.begin, self.end) <= q <= max(self.begin, self.end))


class End(NamedTuple):
    """Why a path ends, at which fraction q of the span and state x (n,). `units`: the signals that vanish there. `ways`:
    the ways on, if there are several."""

    outcome: Outcome
    q: float
    x: np.ndarray
    units: tuple[int, ...] = ()
    ways: tuple[Way, ...] = ()


@dataclasses.dataclass(frozen=True)
class Path:
    """A path of fixed points: k + 1 pieces, the k kinks between them, and why it ends. If it was followed in two directions,
    the end of the later one comes first."""

    pieces: tuple[Piece, ...]
    kinks: tuple[Kink, ...]
    ends: tuple[End, ...]

    @property
    def closed(self) -> bool:
        """Whether the path came back to its start."""
        return self.ends[0].outcome is Outcome.closed

    def on(self, pattern: np.ndarray, q: float) -> bool:
        """Whether the fixed point of a region at q is on the path. A region has at most one."""
        return any(piece.holds(q) and np.array_equal(piece.pattern, pattern) for piece in self.pieces)

    def reversed(self) -> "Path":
        """The same path, travelled the other way."""
        turned = self.pieces[::-1]
        pieces = tuple(Piece(one.pattern, one.end, one.begin, -one.direction, one.last, one.first) for one in turned)
        return Path(pieces, tuple(kink.reversed() for kink in self.kinks[::-1]), self.ends[::-1])


def both_ways(on: Path, back: Path) -> Path:
    """Join two paths that start at one point in opposite directions. The result is travelled as `on` is."""
    before = back.reversed()
    first = on.pieces[0]
    middle = first._replace(begin=before.pieces[-1].begin, first=before.pieces[-1].first)
    pieces = (*before.pieces[:-1], middle, *on.pieces[1:])
    return Path(pieces, (*before.kinks, *on.kinks), (*on.ends, *back.ends))


def start_at(system: Over, x: np.ndarray, q: float, rounds: int = 64) -> np.ndarray | None:
    """The pattern (m,) of a fixed point near x (n,) at q, by Newton's iteration from region to region; `None` if it fails.

    The iteration ends once a pattern comes back.
    """
    parts = system.parts(q)
    pattern, known = parts.C @ x + parts.c > 0, set()
    for _ in range(rounds):
        region = None if pattern.tobytes() in known else region_of(system, pattern, q)
        if region is None:
            return None
        known.add(pattern.tobytes())
        x, signals = region.signals(q)
        doubts = region.doubts(q, x)
        # A signal within its rounding error has either sign.
        wrong = ((signals > 0) != pattern) & (np.abs(signals) > doubts)
        if not wrong.any():
            return pattern
        pattern = np.where(wrong, ~pattern, pattern)
    return None


def entered(system: Over, pattern: np.ndarray, q: float, direction: float) -> list[Way]:
    """The ways in this direction from the fixed point of a region at q: one, unless the point lies on a border."""
    region = region_of(system, pattern, q)
    if region is None:
        return []
    x, signals = region.signals(q)
    doubts = region.doubts(q, x)
    zero = tuple(int(i) for i in np.flatnonzero(np.abs(signals) <= doubts))
    if not zero:
        return [Way(pattern, direction, 1.0)]
    if len(zero) > MOST:
        return []
    return [way for way in ways(region, q, x, zero) if way.direction == direction]


def walk(system: Over, pattern: np.ndarray, q: float, direction: float, most: int) -> Path:
    """Follow the fixed point of a region from q on, until it leaves the span, closes, or cannot go on.

    **Arguments:** `direction`: 1 towards the end of the span, -1 towards its beginning. `most`: the largest number of
    pieces.
    """
    region = region_of(system, pattern, q)
    assert region is not None
    start, pieces, kinks = (pattern, direction, q), list[Piece](), list[Kink]()
    # The signals that vanish at the start itself do not vanish again behind it.
    x, signals = region.signals(q)
    doubts = region.doubts(q, x)
    just, place = tuple(int(i) for i in np.flatnonzero(np.abs(signals) <= doubts)), x
    while True:
        found = region.leaves(q, direction, just)
        pieces.append(Piece(region.pattern, q, found.q, direction, place, found.x))
        if kinks and _returns(pieces[-1], *start):
            pieces[-1] = pieces[-1]._replace(end=start[2], last=x)
            return Path(tuple(pieces), tuple(kinks), (End(Outcome.closed, start[2], x),))
        on, end = [], None
        if not found.units:
            end = Outcome.to_infinity if found.pole else Outcome.lost if found.lost else Outcome.left_span
        elif len(pieces) >= most:
            end = Outcome.max_steps
        elif len(found.units) > MOST:
            end = Outcome.many_switch
        else:
            every = ways(region, found.q, found.x, found.units)
            on = [way for way in every if not way.back(region.pattern, direction)]
            if len(on) != 1:
                end = Outcome.several_ways if on else Outcome.no_way
        if end is not None:
            return Path(tuple(pieces), tuple(kinks), (End(end, found.q, found.x, found.units, tuple(on)),))
        (way,) = on
        turns = way.direction != direction
        kinks.append(Kink(found.q, found.x, found.units, region.pattern, way.pattern, way.delta, turns))
        region, q, direction, just = region.beyond(way.pattern, found.q, found.x), found.q, way.direction, found.units
        place = found.x


def _returns(piece: Piece, pattern: np.ndarray, direction: float, q: float) -> bool:
    """Whether a piece passes the start of the path again, in the direction in which the path began."""
    return piece.direction == direction and piece.holds(q) and np.array_equal(piece.pattern, pattern)
