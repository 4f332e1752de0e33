"""A branch while it is followed: its start, its points, and the reason why it ends."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssntk.dynamics.stability import judged_exponents
from ssntk.errors import Sentence
from ssntk.models.clock import AbstractClock
from ssntk.zeros.correct import Corrected


class Point(NamedTuple):
    """One point of a branch, or several with a leading axis.

    - `z` (N + 1,): the point. `tangent` (N + 1,): unit in the metric, in the direction of travel.
    - `turn`: the sign of the bordered determinant. It changes at crossings of branches, but not at folds.
    - `exponents` (n,): the growth exponents, the fastest growing first. `doubts` (n,): the rounding error of each.
    """

    z: np.ndarray
    tangent: np.ndarray
    turn: np.ndarray
    exponents: np.ndarray
    doubts: np.ndarray

    @property
    def unstable(self) -> Any:
        """The number of modes that grow by more than their rounding error."""
        return (self.exponents.real > self.doubts).sum(axis=-1)

    def reversed(self) -> "Point":
        """The same point with the opposite direction of travel; several points are put in the opposite order."""
        if self.z.ndim == 1:
            return self._replace(tangent=-self.tangent, turn=-self.turn)
        return Point(self.z[::-1], -self.tangent[::-1], -self.turn[::-1], self.exponents[::-1], self.doubts[::-1])

    def at(self, i: "int | slice | np.ndarray") -> "Point":
        """One of several points, or some."""
        return Point(*(part[i] for part in self))

    @staticmethod
    def stacked(points: "Sequence[Point]") -> "Point":
        """Single points as several."""
        return Point(*(np.stack(some) for some in zip(*points, strict=True)))

    @staticmethod
    def joined(*parts: "Point") -> "Point":
        """Concatenate points."""
        return Point(*(np.concatenate(some) for some in zip(*parts, strict=True)))


def points_of(found: Corrected, clock: AbstractClock) -> Point:
    """Corrected points (k, ...) with their exponents, which are NaN if a matrix is not finite."""
    finite = np.isfinite(found.matrix).all(axis=(1, 2))
    exponents, doubts = judged_exponents(np.where(finite[:, None, None], found.matrix, 0), clock)
    exponents[~finite], doubts[~finite] = np.nan, np.nan
    return Point(found.z, found.tangent, found.turn, exponents, doubts)


@dataclasses.dataclass(frozen=True)
class Stop:
    """A condition that ends a branch.

    - `margin`: a function of points z (k, N + 1) whose values (k,) are positive as long as the branch continues.
    - `says`: a function of the parameter p at which the branch ends that gives the reason.
    - `side`: whether the last point lies before the zero of `margin` (0) or beyond it (1).
    """

    margin: Callable[[np.ndarray], np.ndarray]
    says: Callable[[float], Sentence]
    side: int = 0


@dataclasses.dataclass(frozen=True)
class Start:
    """The start of a branch: the index `member` of its zeros in the stack, and a point with the tangent to start along."""

    member: int
    point: Point

    def reversed(self) -> "Start":
        """The same start in the opposite direction."""
        return Start(self.member, self.point.reversed())


@dataclasses.dataclass(frozen=True)
class Track:
    """A branch as it was followed: its k points, and why it ends (for each direction, if it was followed in both)."""

    member: int
    points: Point
    ends: tuple[Sentence, ...]

    @property
    def z(self) -> np.ndarray:
        """(k, N + 1)."""
        return self.points.z

    @property
    def tangent(self) -> np.ndarray:
        """(k, N + 1)."""
        return self.points.tangent

    @property
    def status(self) -> str:
        """A sentence that reports why the branch ends."""
        return "; the other way: ".join(self.ends)

    def reversed(self) -> "Track":
        """The same branch, travelled the other way."""
        return dataclasses.replace(self, points=self.points.reversed())

    def part(self, start: int, stop: int) -> "Track":
        """The part of the track from point `start` to point `stop`, without the latter."""
        return dataclasses.replace(self, points=self.points.at(slice(start, stop)))

    def ending(self, last: Point) -> "Track":
        """The track with its last point replaced."""
        last = Point(*(np.asarray(part)[None] for part in last))
        return dataclasses.replace(self, points=Point.joined(self.points.at(slice(0, -1)), last))


def joined(first: Track, second: Track, shared: bool) -> Track:
    """Join two halves of a branch. `shared`: whether the first ends at the point at which the second starts."""
    kept = len(first.z) - 1 if shared else len(first.z)
    points = Point.joined(first.points.at(slice(0, kept)), second.points)
    return Track(second.member, points, (*second.ends, *first.ends))
