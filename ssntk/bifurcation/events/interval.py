"""An interval of a branch in which an event lies or may hide, and the changes between its ends."""

import dataclasses
from typing import NamedTuple

import numpy as np

from ssntk.zeros.correct import inner, interpolate, length
from ssntk.zeros.track import Point


class Change(NamedTuple):
    """Two points of a branch, and the changes between them."""

    a: Point
    b: Point

    @property
    def turns(self) -> bool:
        """Whether the parameter turns."""
        return bool(self.a.tangent[-1] * self.b.tangent[-1] < 0)

    @property
    def crosses(self) -> bool:
        """Whether the bordered determinant changes sign."""
        return bool(self.a.turn * self.b.turn < 0)

    @property
    def grown(self) -> int:
        """By how many the numbers of unstable modes differ between the ends."""
        return abs(int(self.b.unstable - self.a.unstable))

    @property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """The exponents that cross the edge of stability, at the end at which they are unstable and at the other end."""
        many, few = (self.a, self.b) if self.a.unstable > self.b.unstable else (self.b, self.a)
        crossing = slice(few.unstable, many.unstable)
        return many.exponents[crossing], few.exponents[crossing]

    @property
    def real(self) -> bool:
        """Whether the modes that cross are real at the end at which they are unstable."""
        return bool((self.modes[0].imag == 0).all())

    @property
    def none(self) -> bool:
        """Whether there is no change."""
        return not self.turns and not self.crosses and self.grown == 0


@dataclasses.dataclass(frozen=True)
class Interval:
    """The part of a step between points `a` and `b`, with their neighbours `before` and `after`, halved `depth` times.

    - `place`: the index of the branch, the index of the step, and the position in the step at which the interval begins.
      Events are sorted by it.
    - `member`: the index of the zeros in their stack.
    """

    place: tuple[int, int, float]
    member: int
    before: Point
    a: Point
    b: Point
    after: Point
    depth: int = 0

    def at(self, part: float) -> tuple[int, int, float]:
        """The place of an event at the fraction `part` of the interval."""
        number, step, begins = self.place
        return number, step, begins + part * 0.5**self.depth

    def between(self, part: float) -> tuple[np.ndarray, np.ndarray]:
        """The interpolant (N + 1,) at the fraction `part` of the interval, and its unit direction (N + 1,)."""
        return interpolate(self.a.z, self.a.tangent, self.b.z, self.b.tangent, part)

    @property
    def many_few(self) -> tuple[Point, Point]:
        """The end with more unstable modes, and the other."""
        return (self.a, self.b) if self.a.unstable > self.b.unstable else (self.b, self.a)

    @property
    def change(self) -> Change:
        """The changes between its ends."""
        return Change(self.a, self.b)

    @property
    def leaves(self) -> bool:
        """Whether a mode that becomes unstable was on the axis before, to within its rounding error, and not stable."""
        few, outer = (self.b, self.after) if self.a.unstable > self.b.unstable else (self.a, self.before)
        crossing = slice(few.unstable, max(self.a.unstable, self.b.unstable))
        return all((np.abs(point.exponents.real) <= point.doubts)[crossing].any() for point in (few, outer)) and not bool(
            (few.z == outer.z).all()
        )

    def crossing_part(self) -> float:
        """The fraction of the interval at which the crossing mode would be zero if it were linear between the ends."""
        if self.a.unstable == self.b.unstable:
            return 0.5
        # The crossing mode is the least unstable one at the end with more unstable modes, and the least stable one at the
        # other end.
        many, few = self.many_few
        above = many.exponents[many.unstable - 1].real
        below = few.exponents[few.unstable].real
        part = abs(above) / (abs(above) + abs(below))
        return float(part if many is self.a else 1 - part)

    def outside(self, z: np.ndarray) -> bool:
        """Whether a point z (N + 1,) is not between the ends along the branch, or further from them than they are apart."""
        a, b = self.a, self.b
        gap = length(b.z - a.z)
        inside = min(inner(z - a.z, a.tangent), inner(b.z - z, b.tangent)) >= -1e-6 * gap
        return bool(not inside or max(length(z - a.z), length(z - b.z)) > 1.5 * gap)
