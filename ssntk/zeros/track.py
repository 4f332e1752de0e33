"""A branch while it is followed: its start, its points, and the reason why it ends."""

import dataclasses
import itertools
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

    def replaced(self, i: int, one: "Point") -> "Point":
        """Several points with one of them replaced by a single point."""
        parts = [part.copy() for part in self]
        for part, value in zip(parts, one, strict=True):
            part[i] = value
        return Point(*parts)

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


class Corner(NamedTuple):
    """A corner of a branch: the index `at` of its point, whose tangent and exponents are those before it, and the same point
    with those `behind` it."""

    at: int
    behind: Point


@dataclasses.dataclass(frozen=True)
class Track:
    """A branch as it was followed: its k points, and why it ends (for each direction, if it was followed in both).

    `corners`: those at kinks of a field that is not smooth, in branch order.
    """

    member: int
    points: Point
    ends: tuple[Sentence, ...]
    corners: tuple[Corner, ...] = ()

    @property
    def z(self) -> np.ndarray:
        """(k, N + 1)."""
        return self.points.z

    @property
    def tangent(self) -> np.ndarray:
        """(k, N + 1)."""
        return self.points.tangent

    @property
    def leaving(self) -> np.ndarray:
        """The tangents (k, N + 1) as the branch leaves each point: at corners those behind them."""
        if not self.corners:
            return self.points.tangent
        tangent = self.points.tangent.copy()
        tangent[[corner.at for corner in self.corners]] = [corner.behind.tangent for corner in self.corners]
        return tangent

    @property
    def status(self) -> str:
        """A sentence that reports why the branch ends."""
        return "; the other way: ".join(self.ends)

    def pieces(self) -> list[tuple[int, Point]]:
        """The smooth pieces between corners, each with the index of its first point."""
        ends = [0, *(corner.at for corner in self.corners), len(self.z) - 1]
        found = []
        for number, (first, last) in enumerate(itertools.pairwise(ends)):
            piece = self.points.at(slice(first, last + 1))
            if number:
                piece = Point.joined(Point.stacked([self.corners[number - 1].behind]), piece.at(slice(1, None)))
            found.append((first, piece))
        return found

    def reversed(self) -> "Track":
        """The same branch, travelled the other way."""
        last = len(self.z) - 1
        corners = tuple(Corner(last - one.at, self.points.at(one.at).reversed()) for one in self.corners[::-1])
        points = self.points
        for one in self.corners:
            points = points.replaced(one.at, one.behind)
        return dataclasses.replace(self, points=points.reversed(), corners=corners)

    def part(self, start: int, stop: int) -> "Track":
        """The part of the track from point `start` to point `stop`, without the latter."""
        points = self.points.at(slice(start, stop))
        first, last = slice(start, stop).indices(len(self.z))[0], len(points.z) - 1
        # At the end of a part there is no corner.
        kept = tuple(one._replace(at=one.at - first) for one in self.corners if 0 < one.at - first < last)
        return dataclasses.replace(self, points=points, corners=kept)

    def ending(self, last: Point) -> "Track":
        """The track with its last point replaced."""
        return dataclasses.replace(self, points=self.points.replaced(-1, last))


def joined(first: Track, second: Track, shared: bool) -> Track:
    """Join two halves of a branch. `shared`: whether the first ends at the point at which the second starts.

    If they share a point with another tangent each, the branch has a corner there.
    """
    kept = len(first.z) - 1 if shared else len(first.z)
    points = Point.joined(first.points.at(slice(0, kept)), second.points)
    corners = [*first.corners, *(one._replace(at=one.at + kept) for one in second.corners)]
    if shared and 0 < kept < len(points.z) - 1 and not np.array_equal(first.tangent[-1], second.tangent[0]):
        points = points.replaced(kept, first.points.at(-1))
        corners.insert(len(first.corners), Corner(kept, second.points.at(0)))
    return Track(second.member, points, (*second.ends, *first.ends), tuple(corners))
