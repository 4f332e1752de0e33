"""Points on a path of fixed points of a piecewise-linear system, and where it meets users' events and bounds."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.crossing import Bounds, Crossing
from ssntk.errors import Outcome, Sentence
from ssntk.piecewise.over import Over
from ssntk.piecewise.pivot import Path, Piece
from ssntk.piecewise.region import region_of
from ssntk.zeros.correct import length

# The last point before a pole, relative to the piece that ends there.
BESIDE = 1e-3
# States beyond this multiple of their sizes count relative to themselves, so that a path to infinity has few points.
REACH = 3.0
# The first number of points in a piece that is not straight, and how often its steps are halved.
FIRST, HALVINGS = 5, 24
# Bisections until a place is known to rounding.
BISECTIONS = 60


class Points(NamedTuple):
    """k points in the user's units: the fractions `q` (k,), the states `x` (k, n), and the index (k,) of the piece on which
    each lies. A border is the last point of the piece before it."""

    q: np.ndarray
    x: np.ndarray
    piece: np.ndarray

    def part(self, start: int, stop: int) -> "Points":
        """The points from `start` to `stop`, without the latter."""
        return Points(*(one[start:stop] for one in self))


class Met(NamedTuple):
    """A user's event on the path: its name, and the place (q, x), known up to `error` in q. `after`: the index of the point
    before it."""

    name: str
    q: float
    x: np.ndarray
    after: int


@dataclasses.dataclass(frozen=True)
class Line:
    """A path in the user's units.

    - `p0`, `p1`: the span. `scale` (n,): the sizes of the states. `step`: the longest step.
    """

    system: Over
    path: Path
    p0: float
    p1: float
    scale: np.ndarray
    step: float

    def parameter(self, q: float) -> float:
        """The parameter at a fraction of the span."""
        return self.p0 + q * (self.p1 - self.p0)

    def states(self, piece: Piece, q: np.ndarray) -> np.ndarray:
        """The fixed points (k, n) of a piece at q (k,)."""
        if self.system.still:
            part = (q - piece.begin) / (piece.end - piece.begin) if piece.end != piece.begin else np.zeros(len(q))
            return (piece.first + part[:, None] * (piece.last - piece.first)) * self.system.sizes
        region = region_of(self.system, piece.pattern, piece.begin)
        assert region is not None
        return np.stack([region.state(float(one)) for one in q]) * self.system.sizes

    def points(self) -> Points:
        """Points at most one step apart, among them all borders and both ends."""
        parts = [self._on(number, piece) for number, piece in enumerate(self.path.pieces)]
        kept = [parts[0], *(part.part(1, len(part.q)) for part in parts[1:])]
        return Points(*(np.concatenate(some) for some in zip(*kept, strict=True)))

    def _on(self, number: int, piece: Piece) -> Points:
        """The points of one piece, with both of its ends."""
        begin, end = (self._inside(number, piece, one) for one in (piece.begin, piece.end))
        if begin == end:
            return Points(np.array([begin]), self.states(piece, np.array([begin])), np.array([number]))
        q = np.array([begin, end]) if self.system.still else np.linspace(begin, end, FIRST)
        x = self.states(piece, q)
        if self.system.still:
            count = max(int(np.ceil(float(self._steps(q, x)[0]) / self.step)), 1)
            part = np.linspace(0.0, 1.0, count + 1)[:, None]
            x, q = x[0] + part * (x[1] - x[0]), np.linspace(begin, end, count + 1)
            return Points(q, x, np.full(len(q), number))
        for _ in range(HALVINGS):
            far = np.flatnonzero(self._steps(q, x) > self.step)
            if not far.size:
                break
            middle = (q[far] + q[far + 1]) / 2
            q, x = np.insert(q, far + 1, middle), np.insert(x, far + 1, self.states(piece, middle), axis=0)
        return Points(q, x, np.full(len(q), number))

    def _inside(self, number: int, piece: Piece, q: float) -> float:
        """The end q of a piece; before a pole, the last place at which the state is computed."""
        outcomes = [end.outcome for end in self.path.ends if end.q == q]
        outer = number in (0, len(self.path.pieces) - 1)
        if outer and any(one in (Outcome.to_infinity, Outcome.lost) for one in outcomes):
            return q - BESIDE * (q - (piece.begin if q == piece.end else piece.end))
        return q

    def _steps(self, q: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The lengths (k - 1,) of the steps between points (k, ...)."""
        z = x / self.scale
        far = np.sqrt(1 + (np.minimum(np.abs(z[1:]), np.abs(z[:-1])) / REACH) ** 2)
        return length(np.concatenate([np.diff(z, axis=0) / far, np.diff(q)[:, None]], axis=1))

    def crossings(self, points: Points, event: Crossing) -> list[Met]:
        """The places at which a user's function changes its sign between points."""

        def value(q: float, x: np.ndarray) -> float:
            return float(event.fn(x, self.parameter(q)))

        signs = np.sign([value(*pair) for pair in zip(points.q, points.x, strict=True)])
        # If the value is zero at a point, that is one crossing, counted for the step that ends there.
        changes = (signs[1:] != signs[:-1]) & np.isfinite(signs[1:]) & np.isfinite(signs[:-1])
        steps = np.flatnonzero(changes & ((signs[:-1] != 0) | (np.arange(len(signs) - 1) == 0)))
        return [Met(event.name, *self._between(points, int(i), value), int(i)) for i in steps]

    def stop(self, points: Points, margin: Callable[[float, np.ndarray], float]) -> tuple[int, float, np.ndarray] | None:
        """The first place (q, x) at which a margin is no longer positive, and the index of the point before it."""
        values = np.array([margin(*pair) for pair in zip(points.q, points.x, strict=True)])
        out = np.flatnonzero(values[1:] <= 0)
        if not out.size:
            return None
        i = int(out[0])
        q, x = self._between(points, i, margin)
        return i, q, x

    def _between(self, points: Points, i: int, value: Callable[[float, np.ndarray], float]) -> tuple[float, np.ndarray]:
        """The place at which a function changes sign between points i and i + 1, by bisection."""
        piece = self.path.pieces[int(points.piece[i + 1])]
        ends, first = [float(points.q[i]), float(points.q[i + 1])], np.sign(value(points.q[i], points.x[i]))
        if first == 0:
            return ends[0], points.x[i]
        for _ in range(BISECTIONS):
            middle = (ends[0] + ends[1]) / 2
            same = np.sign(value(middle, self.states(piece, np.array([middle]))[0])) == first
            ends[0 if same else 1] = middle
        return ends[1], self.states(piece, np.array([ends[1]]))[0]


def limits_of(line: Line, bounds: Bounds, crossings: tuple[Crossing, ...], points: Points) -> "Limit | None":
    """The first place at which a path leaves its bounds or meets an event that ends it; `None` if there is none.

    `ValueError` if the bounds exclude its first point.
    """
    margins: list[tuple[Callable[[float, np.ndarray], float], Callable[[float], Sentence]]] = []
    if callable(bounds):
        margins.append((lambda q, x: 1.0 if bounds(x, line.parameter(q)) else -1.0, lambda p: Outcome.left_bounds.say(p=p)))
    elif bounds:
        for index, (low, high) in bounds.items():
            for limit, sign in ((low, 1.0), (high, -1.0)):
                margins.append(
                    (
                        lambda q, x, index=index, limit=limit, sign=sign: sign * (x[index] - limit),
                        lambda p, index=index, limit=limit: Outcome.reached_bound.say(p=p, index=index, limit=limit),
                    )
                )
    if any(not margin(points.q[0], points.x[0]) >= 0 for margin, _ in margins):
        raise ValueError("bounds must hold at the start of the branch, and they exclude it")
    for event in crossings:
        if event.stop:
            here = float(event.fn(points.x[0], line.parameter(points.q[0])))
            if not np.isfinite(here):
                raise ValueError(f"events: fn of {event.name!r} stops the branch, and must be finite at its start")
            sign = np.sign(here) or 1.0
            margins.append(
                (
                    lambda q, x, fn=event.fn, sign=sign: sign * float(fn(x, line.parameter(q))),
                    lambda p, name=event.name: Outcome.stopped.say(p=p, name=name),
                )
            )
    found = [(line.stop(points, margin), says) for margin, says in margins]
    places = [Limit(*stop, says(line.parameter(stop[1]))) for stop, says in found if stop is not None]
    return min(places, key=lambda limit: limit.after, default=None)


class Limit(NamedTuple):
    """Where a path is cut: behind the point with this index, at the place (q, x), and why."""

    after: int
    q: float
    x: np.ndarray
    says: Sentence
