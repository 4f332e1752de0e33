"""Points of codimension two on a curve: where they hide between its points, and their location."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from ssntk.curves import coefficients
from ssntk.curves.follow import Follower, Point, inner, interpolated, length, point_of
from ssntk.curves.kinds import (
    BOGDANOV_TAKENS,
    CUSP,
    DOUBLE_ZERO,
    FOLD,
    GENERALISED_HOPF,
    ZERO,
    Cubic,
    Followed,
    crossing_of,
    frequency_of,
    second_conditions,
)
from ssntk.curves.modes import AbstractMode, Crossing, Frame, Pair, Single, subspace
from ssntk.curves.two_modes import two_modes
from ssntk.dynamics.stability import sorted_eigenvalues

# How often an interval is halved if what lies in it is not found, or is more than one thing.
DEPTH = 6
# A coefficient that changes its sign is zero there if it is below this part of its size beside it.
SMALL = 1e-3


@dataclasses.dataclass
class Seen:
    """A point of codimension two in working units, or the place where it was lost.

    - `order`: the number of the interval and the place in it. `name`: its kind.
    - `point`: the point of the curve. `frequency`: of its pair. `reason`: why it was not located.
    """

    order: tuple[int, float]
    name: str
    point: Point
    frequency: float = 0.0
    coefficients: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""


@dataclasses.dataclass
class Judge:
    """What is known about the points of one curve. `unit` is that of time, 1 step for maps."""

    follower: Follower
    followed: Followed
    is_map: bool
    unit: float
    clock: Any

    def frequency(self, point: Point) -> float:
        """The frequency, in rad per unit time."""
        if isinstance(self.followed.mode, Pair):
            return frequency_of(point.turn, self.is_map, self.unit)
        return float(self.followed.event.frequency(np.zeros(0), self.clock))

    def coefficient(self, point: Point) -> float:
        """The coefficient of the normal form at a point."""
        return float(self.coefficients([point])[0])

    def coefficients(self, points: list[Point]) -> np.ndarray:
        """The coefficients (k,) of the normal form; NaN at neutral saddles, and where the frequency is a rounding error."""
        values, pair = np.full(len(points), np.nan), isinstance(self.followed.mode, Pair)
        rounding = np.finfo(points[0].z.dtype).eps ** 0.5
        known = [
            i
            for i, point in enumerate(points)
            if not pair or point.turn > rounding * np.linalg.norm(coefficients.inner_of(point)) ** 2
        ]
        some = [points[i] for i in known]
        with np.errstate(all="ignore"):
            vectors = [coefficients.pair_vectors(one) if pair else coefficients.vectors(one) for one in some]
        frequencies = np.array([self.frequency(point) for point in some])
        values[known] = coefficients.coefficients(self.followed.event, self.follower.held, some, frequencies, vectors)
        return values

    def small(self, point: Point) -> float:
        """The size below which the test function is a rounding error."""
        pair = isinstance(self.followed.mode, Pair)
        frequency = self.frequency(point)
        if pair and frequency == 0:
            return 0.0
        vectors = coefficients.pair_vectors(point) if pair else coefficients.vectors(point)
        small = coefficients.rounding(self.follower.held, point, vectors)
        if self.is_map:
            return small
        return small / self.unit * (0.5 / frequency if pair else abs(point.turn))

    def tested(self, point: Point, value: float) -> float:
        """The coefficient as a test function: bounded where two eigenvalues meet."""
        return value * point.turn if self.followed.short in (ZERO, FOLD) else value

    def test(self, point: Point) -> float:
        """The test function at a point."""
        return self.tested(point, self.coefficient(point))

    def eigenvalues(self, points: list[Point]) -> np.ndarray:
        """The eigenvalues (k, n) at k points, in working units."""
        return sorted_eigenvalues(np.stack([np.asarray(point.matrix, float) for point in points]))

    def others(self, point: Point, values: np.ndarray | None = None) -> np.ndarray:
        """The eigenvalues (m,) that do not belong to the curve, in working units, those that grow fastest first. `values`
        (n,): all of them, if they are known."""
        kept = self.eigenvalues([point])[0] if values is None else values
        if isinstance(self.followed.mode, Pair):
            critical = np.linalg.eigvals(coefficients.inner_of(point))
        else:
            assert isinstance(self.followed.mode, Single)
            critical = np.array([self.followed.mode.shift])
        for one in critical:
            kept = np.delete(kept, int(np.argmin(np.abs(kept - one))))
        return kept[np.argsort(-self.growth(kept), kind="stable")]

    def growth(self, values: np.ndarray) -> np.ndarray:
        """How far eigenvalues, in working units, are beyond the edge of stability."""
        return np.abs(1 + values) - 1 if self.is_map else values.real

    def found(self, points: list[Point], values: np.ndarray, spectra: np.ndarray) -> list[Seen]:
        """The points of codimension two, in the order of the curve, from the coefficients (k,) and the eigenvalues (k, n) at
        its points."""
        tests = [self.tested(point, value) for point, value in zip(points, values, strict=True)]
        others = [self.others(point, spectrum) for point, spectrum in zip(points, spectra, strict=True)]
        seen: list[Seen] = []
        for i, (here, ahead) in enumerate(itertools.pairwise(points)):
            new = self.met(here, ahead)
            new += self.crossed(here, ahead, bool(new), DEPTH, (others[i], others[i + 1]))
            new += self.flat(here, ahead, (tests[i], tests[i + 1]), bool(new))
            for one in new:
                weight = self.follower.weight(here.z)
                one.order = i, inner(one.point.z - here.z, ahead.z - here.z, weight)
            seen += new
        return sorted(seen, key=lambda one: one.order)

    def met(self, here: Point, ahead: Point) -> list[Seen]:
        """Where two eigenvalues meet, or a pair of multipliers has the angle of a strong resonance."""
        seen = []
        for at, name in self.followed.turns.items():
            if not changes(here.turn - at, ahead.turn - at):
                continue
            modes = second_conditions(self.followed, at)
            part = (at - here.turn) / (ahead.turn - here.turn)
            guess, _ = interpolated(here, ahead, part)
            near = here if part < 0.5 else ahead
            point = self.located(modes, guess, self.joined(near, modes), here, ahead)
            if point is None:
                root = self.follower.zero(here, ahead, lambda point, at=at: point.turn - at)
                point = None if root is None else self.located(modes, root.z, self.joined(root, modes), here, ahead)
            if point is None and name == BOGDANOV_TAKENS and isinstance(self.followed.mode, Pair):
                # Where something keeps branches crossing, other equations are regular. This curve leaves theirs.
                mode, leaves = Crossing(0.0), here.tangent.copy()
                leaves[-2:] = leaves[-1], -leaves[-2]
                modes, frames = (Pair(), mode), (near.frame, mode.start(*subspace(near.matrix, 0j, 1)))
                point = self.located(modes, guess, frames, here, ahead, along=leaves)
                name = name if point is None else DOUBLE_ZERO
            if point is None:
                seen.append(Seen((0, 0.0), name, near, reason="Newton's iteration did not find it on the curve"))
                continue
            turn = modes[0].turn or 0.0
            frequency = frequency_of(turn, self.is_map, self.unit) if turn < 4 else np.pi / self.unit
            held = self.follower.held
            values = coefficients.bogdanov_takens(held, point) if name == BOGDANOV_TAKENS else {}
            name = DOUBLE_ZERO if name == BOGDANOV_TAKENS and not values else name
            seen.append(Seen((0, 0.0), name, point, frequency, values))
        return seen

    def joined(self, point: Point, modes: tuple[AbstractMode, ...]) -> tuple[Frame, ...]:
        """The frames of the two eigenvalues that meet, and of the curve's own one if it is asked for, at a point nearby."""
        if not isinstance(self.followed.mode, Single):
            return (point.frame,)
        return (subspace(point.matrix, complex(self.followed.mode.shift), 2), point.frame)[: len(modes)]

    def flat(self, here: Point, ahead: Point, ends: tuple[float, float], met: bool) -> list[Seen]:
        """Where the coefficient is zero."""
        if not changes(*ends) or max(map(abs, ends)) <= self.small(here):
            # On conservative systems the coefficient is zero everywhere, to rounding.
            return []
        point = self.follower.zero(here, ahead, self.test)
        name, held = self.followed.flat, self.follower.held
        if point is None or not abs(self.test(point)) <= SMALL * max(map(abs, ends)):
            # A coefficient also changes its sign through infinity, where a second eigenvalue is critical.
            if met or point is not None:
                return []
            return [Seen((0, 0.0), name, here, reason="the curve could not be corrected there")]
        frequency = self.frequency(point)
        values: dict[str, float] = {}
        if name == CUSP:
            c = coefficients.coefficients(Cubic(), held, [point], np.zeros(1), [coefficients.vectors(point)])
            values = {"c": float(c[0])}
        elif name == GENERALISED_HOPF:
            values = {"l2": coefficients.lyapunov(held, point, frequency)[1]}
        return [Seen((0, 0.0), name, point, frequency, values)]

    def crossed(
        self, here: Point, ahead: Point, met: bool, depth: int, others: tuple[np.ndarray, np.ndarray] | None = None
    ) -> list[Seen]:
        """Where a further eigenvalue, or a pair, crosses the edge of stability. `others`: the eigenvalues (m,) at the two
        points that do not belong to the curve, if they are known."""
        first, second = (self.others(here), self.others(ahead)) if others is None else others
        counts = [int((self.growth(values) > 0).sum()) for values in (first, second)]
        change = abs(counts[0] - counts[1])
        if change == 0 or (met and change == 1 and isinstance(self.followed.mode, Single)):
            # Where a second eigenvalue joins the first one it changes its side.
            return []
        if isinstance(self.followed.mode, Pair) and min(self.frequency(here), self.frequency(ahead)) == 0:
            return []
        many, few = (first, second) if counts[0] > counts[1] else (second, first)
        crossing = slice(min(counts), max(counts))
        value = complex(many[crossing][0])
        what = crossing_of(self.followed, value, self.is_map)
        single = change == (2 if value.imag != 0 else 1)
        if single and what is not None:
            above, below = (float(self.growth(one[crossing])[0]) for one in (many, few))
            part = above / (above - below)
            part = part if counts[0] > counts[1] else 1 - part
            joint = self.joint(here, ahead, part, what[1], value)
            if joint is not None:
                return [Seen((0, 0.0), what[0], *joint, two_modes(what[0], self.follower.held, joint[0]))]
        if depth > 0:
            guess, along = interpolated(here, ahead, 0.5)
            middle = self.follower.corrected(guess, along, here.frame)
            if middle is not None:
                return self.crossed(here, middle, met, depth - 1) + self.crossed(middle, ahead, met, depth - 1)
        name = what[0] if single and what is not None else "unknown"
        return [Seen((0, 0.0), name, here, reason="an eigenvalue crosses the edge of stability, and its place is not found")]

    def joint(
        self, here: Point, ahead: Point, part: float, mode: AbstractMode, value: complex
    ) -> tuple[Point, float] | None:
        """The point at which the condition of the curve and another one hold, near the fraction `part` of an interval, and
        the frequency of its pair."""
        guess, _ = interpolated(here, ahead, part)
        near = here if part < 0.5 else ahead
        values = self.others(near)
        alike = values[values.imag > 0] if value.imag != 0 else values[values.imag == 0]
        if alike.size == 0:
            return None
        nearest = complex(alike[np.argmin(np.abs(alike - value))])
        other = subspace(near.matrix, nearest, 2 if isinstance(mode, Pair) else 1)
        if isinstance(mode, Single):
            other = mode.start(*other)
        # The pair comes first, so that both orders share compiled code.
        modes, frames = (self.followed.mode, mode), (near.frame, other)
        if isinstance(mode, Pair) and isinstance(self.followed.mode, Single):
            modes, frames = modes[::-1], frames[::-1]
        point = self.located(modes, guess, frames, here, ahead, keep=modes.index(self.followed.mode))
        if point is None:
            return None
        return point, frequency_of(point.turn, self.is_map, self.unit) if isinstance(modes[0], Pair) else np.pi / self.unit

    def located(
        self,
        modes: tuple[AbstractMode, ...],
        guess: np.ndarray,
        frames: Any,
        here: Point,
        ahead: Point,
        keep: int = 0,
        along: np.ndarray | None = None,
    ) -> Point | None:
        """The point at which all conditions hold, if it lies between two points of the curve, with the frame of condition
        `keep`. `along` (n + 2,): the direction of the curve of crossing branches, if there is one; default: this curve's."""
        weight = self.follower.weight(here.z)
        found = self.follower.correct(
            modes, self.follower.held, guess, frames, here.tangent if along is None else along, weight
        )
        if found is None:
            return None
        gap, apart = length(ahead.z - here.z, weight), [length(found.z - one.z, weight) for one in (here, ahead)]
        if max(apart) > 1.1 * gap:
            return None
        return point_of(found._replace(frames=found.frames[keep : keep + 1]))


def changes(one: float, other: float) -> bool:
    """Whether a function changes its sign on the way to a point, or is zero there."""
    return bool(one * other < 0 or (other == 0 and one != 0))
