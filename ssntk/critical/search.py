"""Search for the nearest bifurcation from many starts, in units in which states and rates are of order one."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import FLIP, HOPF, NEIMARK_SACKER, PITCHFORK, SADDLE_NODE, TRANSCRITICAL
from ssntk.critical.conditions import PAIRS, Conditions, Found, Span
from ssntk.critical.freedom import Freedom
from ssntk.critical.least_change import least_change
from ssntk.dynamics.metric import in_metric
from ssntk.dynamics.radius import local_minima, nearest_edge
from ssntk.dynamics.stability import Eigenpair, eigenpair, exponents, field_at, linearised
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock
from ssntk.models.family import Family

# Names of points that are not events on a branch.
SINGULAR, CUSP, BOUNDARY = "singular", "cusp", "Bogdanov-Takens boundary"


class Met(NamedTuple):
    """A point in the user's units: its kind, its distance, the line that leads to it, and the critical mode there."""

    found: Found
    kind: str
    distance: float
    family: Family | None
    model: AbstractStateSpaceModel
    x: np.ndarray
    frequency: float
    mode: Eigenpair
    coefficient: float


@dataclasses.dataclass(frozen=True)
class Search:
    """The search from one network, in working units: states z = x / `sizes` (n,) and times in `unit`.

    Methods with absolute tolerances or steps see only numbers of order one in these units.
    """

    freedom: Freedom
    working: Freedom
    u: Array
    x_start: np.ndarray
    slowest: float
    sizes: np.ndarray
    unit: float
    # The metric of the states (n,), or `None` for ones.
    states: np.ndarray | None

    @property
    def clock(self) -> AbstractClock:
        """The clock in working units."""
        return self.working.model.clock

    @property
    def weigh(self) -> np.ndarray:
        """The length (n,) of one working unit of each state in the metric."""
        return self.sizes if self.states is None else self.sizes / self.states

    @property
    def span(self) -> Span:
        """The values of the last unknown of a pair."""
        low, top = self.slowest, self.clock.highest
        outer, inner = [sorted(map(self.clock.turn, (f, top - f))) for f in (low, 1.001 * low)]
        return Span(*outer, *inner)

    def same(self, one: Met, other: Met) -> bool:
        """Whether two points are equally far, to within what the search resolves: nothing far below the size of theta."""
        least = 1e-12 * self.freedom.length(np.asarray(self.freedom.start))
        return abs(one.distance - other.distance) <= 1e-6 * (one.distance + other.distance) + least

    def conditions(self, kind: str, gauge: np.ndarray, given: float = 0.0) -> Conditions:
        working = self.working
        dtype = working.start.dtype
        border, level, weigh = jax.device_put([np.asarray(part, dtype) for part in (gauge, given, self.weigh)])
        return Conditions(working, self.u, border, level, weigh, kind)

    def change(self, found: Found) -> np.ndarray:
        return found.point.theta - np.asarray(self.freedom.start)

    def guesses(self, kind: str, x: np.ndarray) -> list[tuple[Conditions, np.ndarray]]:
        """The guesses (conditions, z) at a state x (n,), the most likely first."""
        matrix, n, clock = np.asarray(linearised(self.working.model, x, self.u)[1], float), len(x), self.clock
        if kind not in (HOPF.name, NEIMARK_SACKER.name):
            shift = 2 / clock.unit if kind == FLIP.name else 0.0
            directions = np.linalg.svd(matrix + shift * np.eye(n))[2][::-1]
            name = FLIP.name if kind == FLIP.name else SINGULAR
            return [(self.conditions(name, v), np.concatenate([x, v])) for v in directions]
        modes = []
        top = clock.highest
        touch = nearest_edge(matrix, clock)
        for low in local_minima(matrix, clock, 2 * abs(touch.radius) + 1e-12):
            if self.slowest < low.frequency < top - self.slowest:
                modes.append((low.frequency, low.right))
        rates = exponents(matrix, clock)
        for rate in sorted(rates[rates.imag > 0], key=lambda rate: abs(rate.real)):
            value = clock.eigenvalue(complex(rate))
            modes.append((min(max(rate.imag, self.slowest), top - self.slowest), eigenpair(matrix, value).right))
        # If there is no pair, guess one that turns slowly, in the two directions of the smallest singular values.
        _, _, rights = np.linalg.svd(matrix)
        modes.append((min(20 * self.slowest, top / 2), rights[-1] + 1j * rights[-min(2, n)]))
        return [self._turning(x, frequency, vector) for frequency, vector in modes]

    def shifted(self, guess: tuple[Conditions, np.ndarray], by: np.ndarray) -> tuple[Conditions, np.ndarray]:
        """A guess with its state moved by `by` (n,)."""
        conditions, z = guess
        return conditions, np.concatenate([z[: len(by)] + by, z[len(by) :]])

    def _turning(self, x: np.ndarray, frequency: float, vector: np.ndarray) -> tuple[Conditions, np.ndarray]:
        # Choose the phase in which the real part is longest.
        vector = vector * np.exp(-0.5j * np.angle(vector @ vector))
        gauge = vector.real / np.linalg.norm(vector.real)
        vector = vector / (gauge @ vector)
        last, turn = self.clock.turn(frequency), self.clock.edge(frequency)[1]
        return self.conditions("pair", gauge), np.concatenate([x, vector.real, vector.imag / turn, [last]])

    def frequency(self, last: float) -> float:
        """The angular frequency from the last unknown of a pair; 0 for other kinds."""
        return self.clock.frequency_of(last)

    def solve(self, conditions: Conditions, z: np.ndarray, theta: np.ndarray | None = None) -> Found | None:
        """The minimum that a start z leads to, with `theta` or the network's own; `None` if it leads to none."""
        theta = np.asarray(self.working.start) if theta is None else theta
        found = least_change(conditions, z, theta, self.span)
        if found is None:
            return None
        conditions, point = found
        if self.span.ended(conditions, point.z):
            # The nearest pair turns too slowly, or as fast as a flip: find the nearest pair at that limit instead.
            slow = self.frequency(point.z[-1]) < self.clock.highest / 2
            given = self.clock.turn(self.slowest if slow else self.clock.highest - self.slowest)
            turning = self.conditions("turning", np.asarray(conditions.gauge), given)
            starts = [(z[:-1], theta)] + [(point.z[:-1], point.theta)] * (point.violation <= 1e-6)
            return self.nearest([self.solve(turning, *start) for start in starts])
        # Eigenvectors of length zero would satisfy every condition: refuse them.
        scaled = float(np.abs(conditions.gauges(jax.device_put(point.z))).max()) <= 1e-5
        return found if point.minimum and point.converged and scaled else None

    def generic(self, found: list[Found | None], bound: float) -> list[Found | None]:
        """For each point the fold itself if it is generic, else the nearest fold with a coefficient of `bound`."""
        known: dict[float, Found | None] = {}
        results = []
        for one in found:
            if one is None:
                results.append(None)
                continue
            distance = self.freedom.length(self.change(one))
            near = next((at for at in known if abs(at - distance) <= 1e-6 * distance), None)
            if near is None:
                near, known[distance] = distance, self._folded(one, bound)
            results.append(known[near])
        return results

    def _folded(self, found: Found, bound: float) -> Found | None:
        if abs(self.described(found).coefficient) >= bound:
            return found
        model, n = self.working.at_theta(jax.device_put(found.point.theta)), len(self.x_start)
        x, v = found.point.z[:n], found.point.z[n:]
        left = np.linalg.svd(np.asarray(linearised(model, x, self.u)[1]))[0][:, -1]
        start, gauge = np.concatenate([x, v, left]), np.asarray(found.conditions.gauge)
        sides = [
            self.solve(self.conditions(SADDLE_NODE.name, gauge, side), start, found.point.theta)
            for side in (bound * self.unit, -bound * self.unit)
        ]
        return self.nearest(sides)

    def nearest(self, found: list[Found | None]) -> Found | None:
        return min((one for one in found if one), key=lambda one: self.freedom.length(self.change(one)), default=None)

    def starts(self, kind: str, count: int, key: Array) -> list[tuple[Conditions, np.ndarray]]:
        """`count` starts: half from modes at x, displaced a little to leave any symmetry; half at states around x."""
        begin = self.x_start / self.sizes
        spread = 0.3 * (0.5 + np.sqrt(np.mean(begin**2)))
        noise = spread * np.asarray(jr.normal(key, (count, len(begin))))
        modes = self.guesses(kind, begin)[: (count + 1) // 2]
        near = [
            self.shifted(mode, 1e-3 * part if i else 0 * part)
            for i, (mode, part) in enumerate(zip(modes, noise, strict=False))
        ]
        return near + [self.guesses(kind, begin + part)[0] for part in noise[len(modes) :]]

    def described(self, found: Found) -> Met:
        """The point in the user's units, with its eigenvectors and its kind."""
        conditions, point = found
        theta = jax.device_put(point.theta)
        model, x = self.freedom.at_theta(theta), (point.z[: len(self.x_start)] * self.sizes).astype(point.z.dtype)
        matrix = in_metric(np.asarray(linearised(model, x, self.u)[1], float), self.states)
        distance = self.freedom.length(self.change(found))
        turning = self.turning(found)
        frequency = turning / self.unit
        mode = eigenpair(matrix, complex(*model.clock.edge(frequency)))
        kind, coefficient = self._pair_name(conditions, turning), np.nan
        if conditions.kind == FLIP.name:
            kind = FLIP.name
        elif conditions.kind not in PAIRS:
            kind, coefficient = self._zero_name(found, mode, distance)
        family = None
        if distance > 0:
            leaves = self.freedom.leaves(jax.device_put(self.change(found) / distance))
            family = Family.leaves(self.freedom.model, self.freedom.at, leaves)
        return Met(found, kind, distance, family, model, x, frequency, mode, coefficient)

    def turning(self, found: Found) -> float:
        """The frequency in working units; 0 for a zero eigenvalue."""
        conditions, point = found
        if conditions.kind == FLIP.name:
            return self.clock.highest
        if conditions.kind not in PAIRS:
            return 0.0
        return self.frequency(point.z[-1] if conditions.kind == "pair" else float(conditions.given))

    def _pair_name(self, conditions: Conditions, turning: float) -> str:
        if conditions.kind == "turning" and turning <= 1.001 * self.slowest:
            return BOUNDARY
        if self.clock.flips_at is None:
            return HOPF.name
        return "1:2 resonance boundary" if conditions.kind == "turning" else NEIMARK_SACKER.name

    def _zero_name(self, found: Found, mode: Eigenpair, distance: float) -> tuple[str, float]:
        """The kind of a zero eigenvalue, and its quadratic coefficient in the metric and in the user's time.

        Whether a term is zero is decided in working units, in which terms of different order can be compared.
        """
        theta, z = jax.device_put(found.point.theta), jax.device_put(found.point.z[: len(self.x_start)])
        own = eigenpair(np.asarray(linearised(self.working.at_theta(theta), z, self.u)[1], float), 0.0)
        right, left = own.right.real, own.left.real
        along = self.change(found) / distance if distance > 0 else 0 * self.change(found)
        if distance == 0:
            # At distance 0 there is no line: use the direction of theta that pushes the mode most.
            _, pull = jax.vjp(lambda theta: field_at(self.working.at_theta(theta), z, self.u), theta)
            along = np.asarray(pull(jax.device_put(left.astype(theta.dtype)))[0])
        terms = _terms(self.working, theta, jax.device_put(along), z, self.u, jax.device_put(right))
        bent, third, pushed, turned = (np.asarray(term) for term in terms)
        # Give the right vector length one in the metric, and the sign of the one that is reported.
        length = float(np.linalg.norm(self.weigh * right))
        sign = np.sign((self.weigh * right) @ mode.right.real)
        coefficient = sign * float(left @ bent) / 2
        size = np.linalg.norm(left)
        flat = bool(abs(coefficient) <= 1e-6 * size * (np.linalg.norm(bent) + np.linalg.norm(third)))
        still = bool(abs(left @ pushed) <= 1e-6 * size * (np.linalg.norm(pushed) + np.linalg.norm(turned)))
        names = {(True, True): PITCHFORK.name, (True, False): CUSP, (False, True): TRANSCRITICAL.name}
        return names.get((flat, still), SADDLE_NODE.name), coefficient / (length * self.unit)


@eqx.filter_jit
def _terms(freedom: Freedom, theta: Array, along: Array, x: Array, u: Array, right: Array) -> tuple[Array, ...]:
    """f_xx(r, r), f_xxx(r, r, r), df/dp and dA/dp r, (n,) each, with the parameter p along the line."""

    def field(x: Array) -> Array:
        return field_at(freedom.at_theta(theta), x, u)

    def second(x: Array) -> Array:
        return jax.jvp(lambda x: jax.jvp(field, (x,), (right,))[1], (x,), (right,))[1]

    def moved(x: Array) -> Array:
        return jax.jvp(lambda theta: field_at(freedom.at_theta(theta), x, u), (theta,), (along,))[1]

    return second(x), jax.jvp(second, (x,), (right,))[1], *jax.jvp(moved, (x,), (right,))
