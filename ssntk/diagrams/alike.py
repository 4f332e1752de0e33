"""Which points lie on a curve over two parameters, and which points are the same. No comparison depends on units."""

import dataclasses

import numpy as np

from ssntk.curves.curve import Codim2, Curve

# A point lies on a curve if it is as near to the cubic through the curve's points as this part of their distance. Cubics
# miss a curve by less, since it turns by at most 0.3 radians from point to point: by 0.025 in the worst of 229 cases, a
# network of 32 units with 40 curves.
ON = 0.05
# The number of points of a curve that are compared with another curve.
LOOKS = 7
# The number of places of a cubic that are compared, and how often this is repeated around the nearest one.
PLACES, ROUNDS = 17, 3
# The number of intervals of a curve that are looked at: those nearest to the point.
NEAREST = 3
# Two located points are the same if they agree to these parts of the spans and of the sizes of the states.
SAME, STATES = 1e-6, 1e-5
# Squares of frequencies agree to this part, besides their change from point to point.
FREQUENCY = 0.05


@dataclasses.dataclass(frozen=True)
class Ruler:
    """Measures parameters in their spans `reach` (2,), and states in their typical `sizes` (n,)."""

    reach: np.ndarray
    sizes: np.ndarray

    def measured(self, parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Points (..., 2 + n) without units, from parameters (..., 2) and states (..., n). States beyond their sizes grow
        as their logarithm, so that their distances are relative to the states themselves."""
        return np.concatenate([np.asarray(parameters, float) / self.reach, np.arcsinh(np.asarray(x) / self.sizes)], axis=-1)

    def lies_on(self, curve: Curve, parameters: np.ndarray, x: np.ndarray, frequency: float) -> bool:
        """Whether a curve passes through the point with these parameters (2,) and this state (n,). `frequency`: of its
        critical pair, since two pairs may be critical at one state."""
        way, place = self.measured(curve.parameters, curve.x), self.measured(parameters, x)
        if len(way) < 2:
            return self._near(way[0], place, STATES)
        chords = np.diff(way, axis=0)
        square = np.maximum((chords**2).sum(axis=1), np.finfo(float).tiny)
        part = np.clip(((place - way[:-1]) * chords).sum(axis=1) / square, 0, 1)
        off = np.sqrt(((way[:-1] + part[:, None] * chords - place) ** 2).sum(axis=1))
        # Relative to the interval, since a cubic departs from its chord by a part of it.
        for i in np.argsort(off / np.sqrt(square))[:NEAREST]:
            miss = self._miss(way, int(i), place, curve.closed)
            if miss <= ON * np.abs(chords[i]).max() and _resonant(curve.frequency[i : i + 2], frequency):
                return True
        return False

    def within(self, curve: Curve, other: Curve) -> bool:
        """Whether a curve is all or a part of another one."""
        at = np.unique(np.linspace(0, len(curve) - 1, LOOKS).astype(int))
        where = zip(curve.parameters[at], curve.x[at], curve.frequency[at].tolist(), strict=True)
        return curve.kind == other.kind and all(self.lies_on(other, *one) for one in where)

    def _miss(self, way: np.ndarray, i: int, place: np.ndarray, closed: bool) -> float:
        """The distance of a place from the cubic that joins points i and i + 1."""
        cubic = _cubic(way, i, closed)
        low, high, best = 0.0, 1.0, np.inf
        for _ in range(ROUNDS):
            parts = np.linspace(low, high, PLACES)
            off = np.abs(cubic(parts) - place).max(axis=1)
            at, gap = int(np.argmin(off)), (high - low) / (PLACES - 1)
            best = min(best, float(off[at]))
            low, high = max(parts[at] - gap, -0.02), min(parts[at] + gap, 1.02)
        return best

    def same(self, one: Codim2, other: Codim2) -> bool:
        """Whether two located points of codimension two are one point."""
        if one.kind != other.kind:
            return False
        gap = np.abs(self.measured(one.parameters, one.x) - self.measured(other.parameters, other.x))
        return bool((gap[:2] <= SAME).all() and (gap[2:] <= STATES).all())

    def _near(self, one: np.ndarray, other: np.ndarray, part: float) -> bool:
        return bool((np.abs(one - other) <= part).all())


def _resonant(known: np.ndarray, frequency: float) -> bool:
    """Whether a frequency fits into an interval (2,) of a curve. Squares change steadily where two eigenvalues meet."""
    squares = known**2
    apart = abs(frequency**2 - squares.mean())
    return bool(apart <= np.ptp(squares) + FREQUENCY * max(squares.max(), frequency**2))


def _cubic(way: np.ndarray, i: int, closed: bool):
    """The cubic (parts,) -> (parts, 2 + n) between points i and i + 1, with tangents from the neighbouring points."""
    last = len(way) - 1

    def slope(j: int) -> np.ndarray:
        """The derivative at point j over the length of the curve: that of a parabola through three points."""
        before, after = j - 1, j + 1
        if closed and j in (0, last):
            before, after = last - 1, 1
        ahead = way[after] - way[j] if after <= last else None
        behind = way[j] - way[before] if before >= 0 else None
        if ahead is None or behind is None:
            only = behind if ahead is None else ahead
            assert only is not None
            return only / _length(only)
        h, k = _length(behind), _length(ahead)
        return (behind / h * k + ahead / k * h) / (h + k)

    chord = way[i + 1] - way[i]
    start, end = slope(i) * _length(chord), slope(i + 1) * _length(chord)
    square, cube = 3 * chord - 2 * start - end, start + end - 2 * chord

    def at(parts: np.ndarray) -> np.ndarray:
        s = parts[:, None]
        return way[i] + s * (start + s * (square + s * cube))

    return at


def _length(step: np.ndarray) -> float:
    return float(max(np.linalg.norm(step), np.finfo(float).tiny))
