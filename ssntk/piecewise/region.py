"""The fixed point in the region of one pattern, as a function of the parameter, and the place at which it leaves it."""

import abc
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from ssntk.piecewise.first import Sampled, first_zero
from ssntk.piecewise.over import Over, Parts

EPS = float(np.finfo(float).eps)
# The error of a signal, in roundings of its terms.
ROUNDINGS = 8
# An inverse is computed anew after so many changes of one column, and if a change divides by less than SMALL.
FRESH, SMALL = 64, 1e-2
# A Jacobian counts as singular if the rounding error of its solutions is larger than this fraction of them.
SINGULAR = 1e-2


class Leaves(NamedTuple):
    """The place (q, x) at which a fixed point leaves its region, and the signals that vanish there.

    Without such signals it is the end of the span; or, if `pole`, a place at which df/dx is singular and x infinite; or, if
    `lost`, a place beyond which x is not known because of rounding errors.
    """

    q: float
    x: np.ndarray
    units: tuple[int, ...] = ()
    pole: bool = False
    lost: bool = False


class Slopes(NamedTuple):
    """The derivatives over q of the fixed point, `x` (n,), and of its signals, `s` (m,), with the rounding error `doubts`
    (m,) of the latter."""

    x: np.ndarray
    s: np.ndarray
    doubts: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Region(abc.ABC):
    """The fixed points of the region of one pattern (m,)."""

    system: Over
    pattern: np.ndarray

    @abc.abstractmethod
    def solve(self, q: float, right: np.ndarray) -> np.ndarray:
        """J^-1 right at q, for `right` (n,) or (n, k)."""

    @abc.abstractmethod
    def amplified(self, q: float, terms: np.ndarray) -> np.ndarray:
        """|J^-1| terms (n,) at q."""

    @abc.abstractmethod
    def leaves(self, q: float, direction: float, just: tuple[int, ...]) -> Leaves:
        """The first place beyond q in this direction at which the fixed point leaves the region.

        **Arguments:** `just`: the signals that vanish at q itself.
        """

    @abc.abstractmethod
    def beyond(self, pattern: np.ndarray, q: float, x: np.ndarray) -> "Region":
        """The region of another pattern, which is entered at q with the fixed point x (n,)."""

    def jacobian(self, q: float) -> np.ndarray:
        """J (n, n), the derivative of the equation of the fixed points; for maps df/dx - I."""
        parts = self.system.parts(q)
        return parts.G + (parts.B * self.pattern) @ parts.C

    def residual(self, q: float, x: np.ndarray) -> np.ndarray:
        """The left side (n,) of the equation of the fixed points."""
        parts = self.system.parts(q)
        return parts.G @ x + parts.B @ (self.pattern * (parts.C @ x + parts.c)) + parts.h

    def state(self, q: float) -> np.ndarray:
        """The fixed point (n,) at q, with one step of iterative refinement."""
        parts = self.system.parts(q)
        x = -self.solve(q, parts.h + parts.B @ (self.pattern * parts.c))
        return x - self.solve(q, self.residual(q, x))

    def signals(self, q: float) -> tuple[np.ndarray, np.ndarray]:
        """The fixed point (n,) at q and its signals (m,)."""
        parts, x = self.system.parts(q), self.state(q)
        return x, parts.C @ x + parts.c

    def doubts(self, q: float, x: np.ndarray) -> np.ndarray:
        """The rounding errors (m,) of the signals at the fixed point x (n,) at q."""
        terms, size = self.system.magnitudes(q), np.abs(x)
        inside = terms.G @ size + terms.B @ (self.pattern * (terms.C @ size + terms.c)) + terms.h
        error = self.amplified(q, inside)
        return ROUNDINGS * EPS * (terms.C @ (error + size) + terms.c)

    def push(self, q: float, x: np.ndarray) -> np.ndarray:
        """The derivative (n,) over q of the equation at a state in this region."""
        parts, change = self.system.parts(q), self.system.change(q)
        if self.system.still:
            return parts.B @ (self.pattern * change.c) + change.h
        moved = parts.B @ (self.pattern * (change.C @ x + change.c)) + change.h
        return moved + change.G @ x + change.B @ (self.pattern * (parts.C @ x + parts.c))

    def slopes(self, q: float, x: np.ndarray) -> Slopes:
        """The derivatives over q at the fixed point x (n,) at q."""
        parts, change, terms = self.system.parts(q), self.system.change(q), self.system.magnitudes(q)
        dx = -self.solve(q, self.push(q, x))
        own, sizes = change.c, terms.C @ np.abs(dx) + np.abs(change.c)
        if not self.system.still:
            own, sizes = own + change.C @ x, sizes + np.abs(change.C) @ np.abs(x)
        return Slopes(dx, parts.C @ dx + own, ROUNDINGS**2 * EPS * sizes)


class Still(Region):
    """The region of a system of which only c and h depend on the parameter. x(q) is affine."""

    inverse: np.ndarray
    age: int
    entry: tuple[float, np.ndarray] | None

    def __init__(
        self,
        system: Over,
        pattern: np.ndarray,
        inverse: np.ndarray | None = None,
        age: int = 0,
        entry: tuple[float, np.ndarray] | None = None,
    ):
        object.__setattr__(self, "system", system)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "inverse", np.linalg.inv(self.jacobian(0.0)) if inverse is None else inverse)
        object.__setattr__(self, "age", age)
        object.__setattr__(self, "entry", entry)

    def state(self, q: float) -> np.ndarray:
        if self.entry is None:
            return Region.state(self, q)
        # The fixed point at which the region was entered is known, and moves along a straight line.
        place, x = self.entry
        if q == place:
            return x
        x = x + (q - place) * self._slopes.x
        return x - self.inverse @ self.residual(q, x)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """|J^-1| (n, n)."""
        return np.abs(self.inverse)

    @functools.cached_property
    def _slopes(self) -> Slopes:
        # They are the same everywhere in the region.
        return Region.slopes(self, 0.0, np.zeros(len(self.inverse)))

    def slopes(self, q: float, x: np.ndarray) -> Slopes:
        return self._slopes

    def solve(self, q: float, right: np.ndarray) -> np.ndarray:
        return self.inverse @ right

    def amplified(self, q: float, terms: np.ndarray) -> np.ndarray:
        return self.sizes @ terms

    def leaves(self, q: float, direction: float, just: tuple[int, ...]) -> Leaves:
        x, s = self.signals(q)
        slopes = self.slopes(q, x)
        speed = slopes.s * direction
        speed = np.where(np.abs(speed) <= slopes.doubts, 0.0, speed)
        # Of the signals that go towards their border, a signal that is past it by a rounding error is at it.
        leaving = np.where(self.pattern, speed < 0, speed > 0)
        leaving[list(just)] = False
        ahead = np.where(self.pattern, s, -s).clip(min=0)
        times = np.full(len(s), np.inf)
        times[leaving] = ahead[leaving] / np.abs(speed[leaving])
        end = 1.0 if direction > 0 else 0.0
        first = int(np.argmin(times)) if len(times) else -1
        if first < 0 or not times[first] < abs(end - q):
            return Leaves(end, self.state(end))
        place = float(np.clip(q + direction * times[first], 0.0, 1.0))
        return Leaves(place, *_at(self, place, first, just if place == q else ()))

    def beyond(self, pattern: np.ndarray, q: float, x: np.ndarray) -> "Region":
        changed = np.flatnonzero(pattern != self.pattern)
        if self.age < FRESH and len(changed) == 1:
            (i,) = changed
            sign = 1.0 if pattern[i] else -1.0
            parts = self.system.first
            column, row = self.inverse @ parts.B[:, i], parts.C[i] @ self.inverse
            delta = 1 + sign * float(parts.C[i] @ column)
            if abs(delta) >= SMALL:
                return Still(self.system, pattern, self.inverse - np.outer(sign * column / delta, row), self.age + 1, (q, x))
        return Still(self.system, pattern, entry=(q, x))


class Moving(Region):
    """The region of a system whose matrices depend on the parameter. x(q) is smooth between the places at which J is
    singular."""

    def solve(self, q: float, right: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.jacobian(q), right)

    def amplified(self, q: float, terms: np.ndarray) -> np.ndarray:
        return np.abs(np.linalg.inv(self.jacobian(q))) @ terms

    def many(self, q: np.ndarray) -> Sampled:
        """The signals at q (k,), and the signs of det J."""
        parts: Parts = self.system.parts(q)
        jacobians = parts.G + (parts.B * self.pattern) @ parts.C
        signs = np.linalg.slogdet(jacobians)[0]
        right = parts.h + np.einsum("knm,km->kn", parts.B, self.pattern * parts.c)
        x, errors = np.full(right.shape, np.nan), np.full(right.shape, np.nan)
        good = signs != 0
        inverses = np.abs(np.linalg.inv(jacobians[good]))
        x[good] = -np.linalg.solve(jacobians[good], right[good][..., None])[..., 0]
        inside = np.einsum("knj,kj->kn", np.abs(jacobians[good]), np.abs(x[good])) + np.abs(right[good])
        errors[good] = EPS * np.einsum("knj,kj->kn", inverses, inside)
        doubts = np.einsum("kmn,kn->km", np.abs(parts.C), errors + EPS * np.abs(x)) + EPS * np.abs(parts.c)
        return Sampled(np.einsum("kmn,kn->km", parts.C, x) + parts.c, signs, doubts)

    def leaves(self, q: float, direction: float, just: tuple[int, ...]) -> Leaves:
        end = 1.0 if direction > 0 else 0.0
        found = first_zero(self.many, self.pattern, q, end, just)
        if found.signal is None:
            return Leaves(found.q, self.state(found.near), (), found.pole, found.lost)
        return Leaves(found.q, *_at(self, found.q, found.signal, ()))

    def beyond(self, pattern: np.ndarray, q: float, x: np.ndarray) -> "Region":
        return Moving(self.system, pattern)


def region_of(system: Over, pattern: np.ndarray, q: float) -> Region | None:
    """The region of a pattern (m,); `None` if its Jacobian is singular to rounding at q."""
    jacobian = Moving(system, pattern).jacobian(q)
    try:
        inverse = np.linalg.inv(jacobian)
    except np.linalg.LinAlgError:
        return None
    # Skeel's condition number does not depend on units.
    if not ROUNDINGS * EPS * (np.abs(inverse) @ (np.abs(jacobian) @ np.ones(len(jacobian)))).max(initial=0.0) < SINGULAR:
        return None
    return Still(system, pattern, inverse) if system.still else Moving(system, pattern)


def _at(region: Region, q: float, first: int, without: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The fixed point (n,) at the place q where signal `first` vanishes, and all signals that vanish there to rounding."""
    x, s = region.signals(q)
    slopes, doubts = region.slopes(q, x), region.doubts(q, x)
    # The place is known up to the error of the first signal over its slope.
    error = doubts[first] / np.abs(slopes.s[first]) + ROUNDINGS * EPS
    zero = np.abs(s) <= doubts + np.abs(slopes.s) * error
    # A signal that is zero and stays zero reaches no border.
    zero &= (np.abs(slopes.s) > slopes.doubts) | (doubts > 0)
    zero[first] = True
    return x, tuple(int(i) for i in np.flatnonzero(zero))
