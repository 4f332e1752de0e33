"""Follow a curve of bifurcations by pseudo-arclength continuation, in working units, on the host."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssntk.compiled import Held
from ssntk.curves.correct import Corrected, corrected
from ssntk.curves.modes import AbstractMode, Frame, Pair
from ssntk.curves.system import System

# The first and the shortest step, relative to the longest.
FIRST, SHORTEST = 0.2, 1e-7
# The largest turn of the tangent in one step, in radians, and the turn that the step aims at.
MOST_TURN, AIM_TURN = 0.3, 0.12
# The same for the distance between the prediction and the point, relative to the step.
MOST_MISS, AIM_MISS = 0.1, 0.01
# If a state exceeds this multiple of its size, steps are relative to the state itself. Beyond FAR it grows without bound.
REACH, FAR = 3.0, 1e6
# The largest number of secants in the search for a point of a curve, and the last move of one, relative to the interval.
MOST_SECANTS, CLOSE = 60, 1e-15


class Point(NamedTuple):
    """A point z (n + 2,) of a curve with its unit tangent (n + 2,), the frame of its condition, and A (n, n)."""

    z: np.ndarray
    tangent: np.ndarray
    frame: Frame
    matrix: np.ndarray
    turn: float

    def reversed(self) -> "Point":
        """The same point of a curve that is followed in the other direction."""
        return self._replace(tangent=-self.tangent)


@dataclasses.dataclass
class Follower:
    """What is followed: the condition `mode` on the equilibria of `system`, with steps of at most `longest`. `correct` is
    [`corrected`][], or does the same for several curves at once."""

    system: System
    mode: AbstractMode
    longest: float
    correct: Callable[..., Corrected | None] = corrected
    held: Held = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.held = Held.of(self.system)

    def weight(self, z: np.ndarray) -> np.ndarray:
        """The diagonal (n + 2,) of the inner product of steps at z: `mean(dy^2) + dq1^2 + dq2^2` near the states' sizes."""
        y = z[:-2]
        return np.append(1 / (len(y) * (1 + (y / REACH) ** 2)), [1.0, 1.0])

    def corrected(self, guess: np.ndarray, along: np.ndarray, frame: Frame) -> Point | None:
        """The point of the curve in the plane through `guess` that is normal to `along`; `None` if there is none."""
        found = self.correct((self.mode,), self.held, guess, (frame,), along, self.weight(guess))
        return None if found is None else point_of(found)

    def at_level(self, guess: np.ndarray, i: int, frame: Frame) -> Point | None:
        """The point of the curve near `guess` at which parameter i has the value that it has there."""
        along = np.zeros(len(guess))
        along[i - 2] = 1.0
        return self.corrected(guess, along, frame)

    def begin(self, z: np.ndarray, frame: Frame) -> Point | None:
        """The first point, at or next to z; `None` if z does not lie on the curve."""
        found = [one for i in (0, 1) if (one := self.at_level(z, i, frame)) is not None]
        near = [one for one in found if length(one.z - z, self.weight(z)) <= np.finfo(z.dtype).eps ** 0.4]
        if not near:
            return None
        # A tangent along the level at which its point was sought is known worst. It points to larger parameters.
        start = max(near, key=lambda one: np.abs(one.tangent[-2:]).min())
        moves = start.tangent[-2:]
        return start if moves[np.abs(moves).argmax()] > 0 else start.reversed()

    def follow(self, start: Point, most: int) -> tuple[list[Point], str]:
        """The points from `start` on along its tangent, at most `most`, and why they end."""
        points, step = [start], FIRST * self.longest
        while len(points) < most:
            here = points[-1]
            weight = self.weight(here.z)
            guess, along = self.predicted(points, step, weight)
            ahead = self.corrected(guess, along, here.frame)
            turned, miss = np.inf, np.inf
            if ahead is not None:
                turned = float(np.arccos(np.clip(inner(ahead.tangent, here.tangent, weight), -1, 1)))
                miss = length(ahead.z - guess, weight) / step
            if ahead is None or not (turned < MOST_TURN and miss < MOST_MISS):
                step *= 0.4
                if step < SHORTEST * self.longest:
                    return points, self.failed(here)
                continue
            reason = self.ended(points, ahead)
            if reason is not None:
                return points, reason
            growth = min(AIM_TURN / max(turned, 1e-3), np.cbrt(AIM_MISS / max(miss, 1e-6)))
            step = min(self.longest, step * float(np.clip(growth, 0.4, 1.6)))
        return points, f"{most} points followed, as many as max_steps allows"

    def failed(self, here: Point) -> str:
        """Why steps from a point fail."""
        p = self.system.parameters(here.z)
        said = f"at ({p[0]:.6g}, {p[1]:.6g})"
        if isinstance(self.mode, Pair) and (here.turn < 0 or (self.system.step and here.turn > 4)):
            return f"neutral saddles end {said}, where another real eigenvalue meets one of their two"
        return f"steps failed {said}"

    def predicted(self, points: list[Point], step: float, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next point, extrapolated by a cubic through the last two, and the direction there."""
        here = points[-1]
        along = here.tangent / length(here.tangent, weight)
        if len(points) < 2:
            return here.z + step * along, along
        before = points[-2]
        chord = here.z - before.z
        gap = length(chord, weight)
        one, other = before.tangent * gap / length(before.tangent, weight), along * gap
        s, square, cube = step / gap, one + 2 * other - 3 * chord, one + other - 2 * chord
        return here.z + s * (other + s * (square + s * cube)), along

    def ended(self, points: list[Point], ahead: Point) -> str | None:
        """Why the curve ends, after its last point is added; `None` if it goes on."""
        if self.closes(points, ahead):
            points.append(points[0])
            return "closed"
        q = ahead.z[-2:]
        if (q < 0).any() or (q > 1).any():
            last = self.landed(points[-1], ahead)
            points += [] if last is None else [last]
            p = self.system.parameters(points[-1].z)
            said = "left the span" if last is not None else "left the span, beyond the last point,"
            return f"{said} at ({p[0]:.6g}, {p[1]:.6g})"
        points.append(ahead)
        if (np.abs(ahead.z[:-2]) > FAR).any():
            p = self.system.parameters(ahead.z)
            return f"the state grows without bound near ({p[0]:.6g}, {p[1]:.6g})"
        return None

    def closes(self, points: list[Point], ahead: Point) -> bool:
        """Whether the start lies between the last point and the next, passed in the same direction."""
        first, here = points[0], points[-1]
        if len(points) < 4:
            return False
        weight = self.weight(first.z)
        gap = length(ahead.z - here.z, weight)
        before, after = (inner(one.z - first.z, first.tangent, weight) for one in (here, ahead))
        if not before < 0 <= after or inner(ahead.tangent, first.tangent, weight) <= 0:
            return False
        if max(length(one.z - first.z, weight) for one in (here, ahead)) > 1.01 * gap:
            return False
        guess, _ = interpolated(here, ahead, before / (before - after))
        # Into the plane of the first point.
        off = inner(guess - first.z, first.tangent, weight) / inner(first.tangent, first.tangent, weight)
        again = self.corrected(guess - off * first.tangent, first.tangent, first.frame)
        return again is not None and length(again.z - first.z, weight) <= 1e-3 * gap

    def landed(self, here: Point, ahead: Point) -> Point | None:
        """The point between two others at which the curve leaves the span; `None` if it is not found."""
        parts = {}
        for i in (0, 1):
            before, after = here.z[i - 2], ahead.z[i - 2]
            edge = 0.0 if after < 0 else 1.0
            if not 0 <= after <= 1:
                parts[i] = (edge - before) / (after - before), edge
        i, (part, edge) = min(parts.items(), key=lambda one: one[1][0])
        guess, _ = interpolated(here, ahead, float(np.clip(part, 0, 1)))
        guess[i - 2] = edge
        last = self.at_level(guess, i, here.frame)
        weight = self.weight(here.z)
        if last is None or length(last.z - here.z, weight) > 1.5 * length(ahead.z - here.z, weight):
            return None
        z = last.z.copy()
        z[i - 2] = edge
        return oriented(last._replace(z=z), ahead.tangent, weight)

    def zero(self, here: Point, ahead: Point, test: Callable[[Point], float]) -> Point | None:
        """The point between two others at which a function is zero, by the method of Anderson and Bjorck; `None` if a
        correction fails."""
        low, high = (0.0, test(here)), (1.0, test(ahead))
        best = here if low[1] == 0 else ahead
        if low[1] == 0 or high[1] == 0:
            return best
        last = np.nan
        for _ in range(MOST_SECANTS):
            part = float(low[0] - low[1] * (high[0] - low[0]) / (high[1] - low[1]))
            guess, along = interpolated(here, ahead, part)
            point = self.corrected(guess, along, here.frame if part < 0.5 else ahead.frame)
            if point is None or not np.isfinite(value := test(point)):
                return None
            best, moved, last = point, abs(part - last), part
            if value == 0 or moved <= CLOSE:
                break
            if value * high[1] < 0:
                low, high = high, (part, value)
            else:
                # The end that stays is given less weight, so that it moves too.
                shrink = 1 - value / high[1]
                low, high = (low[0], low[1] * (shrink if shrink > 0 else 0.5)), (part, value)
        return best


def point_of(found: Corrected) -> Point:
    return Point(found.z, found.tangent, Frame(*found.frames[0]), found.matrix, float(found.turn))


def inner(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> float:
    """The inner product of two steps (n + 2,)."""
    return float(np.sum(weight * one * other))


def length(step: np.ndarray, weight: np.ndarray) -> float:
    """The length of a step (n + 2,)."""
    return float(np.sqrt(inner(step, step, weight)))


def oriented(point: Point, along: np.ndarray, weight: np.ndarray) -> Point:
    """The point with its tangent of length one, not against a direction."""
    tangent = point.tangent / length(point.tangent, weight)
    return point._replace(tangent=tangent if inner(tangent, along, weight) >= 0 else -tangent)


def interpolated(here: Point, ahead: Point, part: float) -> tuple[np.ndarray, np.ndarray]:
    """The cubic between two points at the fraction `part`, and its direction, (n + 2,) each."""
    chord = ahead.z - here.z
    gap = np.linalg.norm(chord)
    start, end = (one.tangent / np.linalg.norm(one.tangent) * gap for one in (here, ahead))
    square, cube = 3 * chord - 2 * start - end, start + end - 2 * chord
    direction = start + part * (2 * square + part * 3 * cube)
    return here.z + part * (start + part * (square + part * cube)), direction / np.linalg.norm(direction)
