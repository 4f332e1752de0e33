"""The nearest bifurcation when every parameter may move."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.bifurcation.continuation import continuation
from ssntk.bifurcation.events.kinds import as_kind
from ssntk.critical.flag import natural_time_scale
from ssntk.critical.fragile import most_fragile, searched
from ssntk.critical.freedom import Freedom
from ssntk.critical.least_change import PAIRS, Conditions, Stationary, least_change
from ssntk.critical.units import rescaled
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric, in_metric
from ssntk.dynamics.radius import local_minima, nearest_edge
from ssntk.dynamics.refine import check_fixed_point
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import eigenpair, exponents, field_at, linearised
from ssntk.errors import NumericalError, as_array, as_count, as_key, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap
from ssntk.precision import watch_precision
from ssntk.results import Holder
from ssntk.threads import one_blas_thread

KINDS = ("singular", "saddle-node", "hopf")
MAP_KINDS = ("singular", "saddle-node", "flip", "neimark-sacker")
BOUNDARY = "Bogdanov-Takens boundary"
# What a converged point leaves of its conditions and of the gradient of the Lagrangian.
TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Approach(Holder):
    """The way from a network to a bifurcation, along a straight line in the space of its parameters.

    - `kind`: what is met: `"saddle-node"`, `"cusp"`, `"transcritical"`, `"pitchfork"`, `"hopf"`, `"flip"`,
      `"neimark-sacker"`, or `"Bogdanov-Takens boundary"`, where the nearest pair would have a frequency below `omega_min`:
      then the point is the nearest with that frequency.
    - `distance`: sqrt(sum metric (theta - start)^2), an upper bound of the distance from all points of this kind: a local
      minimum, the least that the starts found.
    - `family`: the line, `family(0)` the network and `family(distance)`, also `model`, at the point; `None` where the
      distance is 0. `x` (n,) the equilibrium there, `x_start` (n,) that of the network, `u` (d,) their input.
    - `frequency`: angular, 0 for a real eigenvalue. `right`, `left` (n,): critical eigenvectors as of a [`Bifurcation`][].
      `coefficient`: l.f_xx(r, r) / 2 of a real eigenvalue, the quadratic term of the normal form; NaN of a pair.
    - `residual`: the largest entry of the conditions, in units of the states' typical sizes and of the model's time scale;
      `kkt_residual`: of the gradient of the Lagrangian, relative;
      `minimum`: whether it is a minimum to second order; `converged`: whether both residuals are at most 1e-10.
    - `starts`: the distance that each start led to, NaN where it did not converge; `agreeing`: how many led here.
    - `reached`: whether the equilibrium of the network, followed along the line (through earlier folds, if any), comes to
      this point; else another one does.
    - `others`: the other points that were found, the nearest first; where an equilibrium comes from is not known of these.
    - `reason`: all this in one sentence.
    """

    kind: str
    distance: float
    family: Family | None
    model: Any
    x: np.ndarray
    x_start: np.ndarray
    u: np.ndarray
    frequency: float
    right: np.ndarray
    left: np.ndarray
    coefficient: float
    residual: float
    kkt_residual: float
    minimum: bool
    starts: np.ndarray
    agreeing: int
    reached: bool | None
    others: tuple["Approach", ...]
    reason: str

    def _headline(self) -> str:
        return f"Approach: {self.reason}"

    @property
    def converged(self) -> bool:
        return max(self.residual, self.kkt_residual) <= TOLERANCE


@outside_jit
@one_blas_thread()
def approach(
    model: AbstractStateSpaceModel,
    kind: str,
    *,
    x: Any = None,
    u: Any = None,
    wrt: Callable[[Any], PyTree] | None = None,
    metric: Any = None,
    signs: Any = None,
    min_coefficient: Any = None,
    omega_min: Any = None,
    n_starts: int = 8,
    key: Any = None,
    scale: Any = None,
) -> Approach:
    """The least change of all parameters together that brings a network to a bifurcation.

    A local minimum of the distance under the conditions of the bifurcation, to rounding error, and the best of several
    starts: no proof that it is the nearest. The nearest zero eigenvalue of a *monostable* network is no generic fold but
    the edge of the bistable wedge, where the fold's coefficient vanishes: a cusp, or a pitchfork where the vector field is
    odd. Only where that is not nearer is it a true saddle-node.

    **Arguments:**

    - `kind`: `"singular"`, the nearest zero eigenvalue of whatever kind; `"saddle-node"`, the nearest generic fold, with a
      coefficient of at least `min_coefficient`, which may be farther; `"hopf"`. Of maps also `"flip"`, and
      `"neimark-sacker"` instead of `"hopf"`. Aliases as of [`locate`][].
    - `x`: (n,) the equilibrium to start from. Default: the one that [`criticality`][] judges.
    - `u`: (d,) constant input. Default zero.
    - `wrt`: a lens of what may change, all else stays. Default: `model.trainable("state")`.
    - `metric`: what a change costs, positive: a dict of attributes (or lenses) and scalars or arrays, 1 where not given.
    - `signs`: what must keep its sign (Dale's law): the same with 1 where an entry stays >= 0, -1 where <= 0, 0 where free.
    - `min_coefficient`: in 1 / (state time). Default 0.05 / time scale, as `criticality` has it, over the power of ten next
      to the states' typical size in their metric, which is 1 for states of order one.
    - `omega_min`: in rad per unit time. Default 0.05 / time scale.
    - `n_starts`: how many starts: singular vectors or eigenvectors at x, then states around it drawn with `key`.

    - `scale`: (n,) or a number, positive, in units of the states: their metric, in which `right` has length one, and which
      `left`, `coefficient` and `min_coefficient` follow. Default: ones. No distance depends on it otherwise.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time, `NumericalError` where no start
    converges.
    """
    check_model(model)
    states = as_metric(scale, model.n_state)
    check_autonomous(model)
    clock = model.clock
    kind = as_kind(kind, "kind", KINDS if clock.flips_at is None else MAP_KINDS)
    u = constant_input(model, u)
    watch_precision(dtype_of(model))
    count, key = as_count(n_starts, "n_starts"), as_key(key)
    freedom = Freedom(model, wrt, metric, signs)
    if x is None:
        x_start = most_fragile(searched(model, [u]), clock, states).x
    else:
        x_start = np.asarray(check_fixed_point(model, as_array(x, "x", (model.n_state,)), u)[0])
    matrix = np.asarray(linearised(model, x_start, u)[1])
    time = natural_time_scale(model, exponents(matrix, clock))
    sizes = np.asarray(typical_sizes(model, u, x_start), float)
    # Of states of order one the decade of their size is one.
    decade = 10.0 ** np.round(np.log10(np.median(sizes if states is None else sizes / states)))
    bound = _positive(min_coefficient, "min_coefficient", 0.05 / (time * decade))
    slowest = _positive(omega_min, "omega_min", 0.05 / time)
    # All that follows has tolerances and steps of order one, and so are the states and rates there.
    unit = model.dt if isinstance(model, AbstractMap) else time
    working = Freedom(rescaled(model, sizes, unit), wrt, metric, signs)
    task = _Task(freedom, working, u, x_start, slowest * unit, sizes, unit, states)
    begin = x_start / sizes
    spread = 0.3 * (0.5 + np.sqrt(np.mean(begin**2)))
    noise = spread * np.asarray(jr.normal(key, (count, len(begin))))
    # Half of the starts are the modes at x, moved a little so that no symmetry holds them; half lie around.
    modes = task.guesses(kind, begin)[: (count + 1) // 2]
    guesses = [
        task.shifted(mode, 1e-3 * part if i else 0 * part) for i, (mode, part) in enumerate(zip(modes, noise, strict=False))
    ]
    guesses += [task.guesses(kind, begin + part)[0] for part in noise[len(modes) :]]
    found = [task.solve(*guess) for guess in guesses]
    if kind == "saddle-node":
        found = task.generic(found, bound)
    points = sorted((task.describe(one) for one in found if one is not None), key=lambda point: point.distance)
    if not points:
        raise NumericalError(
            f"none of {count} starts led to a {kind} point with residuals below {TOLERANCE:g}: try more n_starts, or more "
            "of theta in wrt"
        )
    starts = np.array([np.nan if one is None else freedom.length(task.change(one)) for one in found])
    others: list[Approach] = []
    for point in points[1:]:
        if not any(task.same(point, other) for other in (points[0], *others)):
            others.append(point)
    agreeing = sum(task.same(points[0], point) for point in points)
    result = dataclasses.replace(points[0], starts=starts, agreeing=agreeing, others=tuple(others))
    result = dataclasses.replace(result, reached=_reaches(result, sizes))
    return dataclasses.replace(result, reason=_reason(result))


def _positive(value: Any, name: str, default: float) -> float:
    return default if value is None else float(as_scalar(value, name, positive=True))


class _Found(NamedTuple):
    """A stationary point, and the conditions that it fulfils."""

    conditions: Conditions
    point: Stationary


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is searched for, and from where: in working units, states z = x / `sizes` and times of `unit`."""

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
        """What one working unit of each state counts in the metric."""
        return self.sizes if self.states is None else self.sizes / self.states

    def same(self, one: Approach, other: Approach) -> bool:
        """Whether two points lie as far, to what the search knows: far below theta's own size nothing."""
        least = 1e-12 * self.freedom.length(np.asarray(self.freedom.start))
        return abs(one.distance - other.distance) <= 1e-6 * (one.distance + other.distance) + least

    def conditions(self, kind: str, gauge: np.ndarray, given: float = 0.0) -> Conditions:
        working = self.working
        dtype = working.start.dtype
        border, level, weigh = jax.device_put([np.asarray(part, dtype) for part in (gauge, given, self.weigh)])
        return Conditions(working, self.u, border, level, working.start, 0 * level, weigh, kind, exact=False)

    def change(self, found: _Found) -> np.ndarray:
        return found.point.theta - np.asarray(self.freedom.start)

    def guesses(self, kind: str, x: np.ndarray) -> list[tuple[Conditions, np.ndarray]]:
        """Where to start from at a state, the most likely first."""
        matrix, n, clock = np.asarray(linearised(self.working.model, x, self.u)[1], float), len(x), self.clock
        if kind not in ("hopf", "neimark-sacker"):
            shift = 2 / clock.unit if kind == "flip" else 0.0
            directions = np.linalg.svd(matrix + shift * np.eye(n))[2][::-1]
            name = "flip" if kind == "flip" else "singular"
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
        # Without a pair, the two directions in which the state moves least, turning slowly.
        _, _, rights = np.linalg.svd(matrix)
        modes.append((min(20 * self.slowest, top / 2), rights[-1] + 1j * rights[-min(2, n)]))
        return [self._turning(x, frequency, vector) for frequency, vector in modes]

    def shifted(self, guess: tuple[Conditions, np.ndarray], by: np.ndarray) -> tuple[Conditions, np.ndarray]:
        """A guess at another state."""
        conditions, z = guess
        return conditions, np.concatenate([z[: len(by)] + by, z[len(by) :]])

    def _turning(self, x: np.ndarray, frequency: float, vector: np.ndarray) -> tuple[Conditions, np.ndarray]:
        # Turned so that the real part is as long as can be.
        vector = vector * np.exp(-0.5j * np.angle(vector @ vector))
        gauge = vector.real / np.linalg.norm(vector.real)
        vector = vector / (gauge @ vector)
        last, turn = self.clock.turn(frequency), self.clock.edge(frequency)[1]
        return self.conditions("pair", gauge), np.concatenate([x, vector.real, vector.imag / turn, [last]])

    def frequency(self, last: float) -> float:
        """The angular frequency from the last unknown of a pair, 0 where there is none."""
        return self.clock.frequency_of(last)

    def solve(self, conditions: Conditions, z: np.ndarray) -> _Found | None:
        """The minimum that a start leads to, `None` where it leads to none."""
        low, high = self.slowest, self.clock.highest - self.slowest
        beyond: list[float] = []

        def leaves(z: np.ndarray) -> bool:
            if conditions.kind == "pair" and not low <= self.frequency(z[-1]) <= high:
                beyond.append(low if self.frequency(z[-1]) < low else high)
            return bool(beyond)

        point = least_change(conditions, z, leaves)
        if beyond:
            # The nearest pair turns too slowly, or as a flip does: the nearest at that edge instead.
            given = self.clock.turn(beyond[0])
            return self.solve(self.conditions("turning", np.asarray(conditions.gauge), given), z[:-1])
        if point is None or not point.minimum or not max(point.violation, point.kkt) <= TOLERANCE:
            return None
        # Eigenvectors of no length satisfy everything.
        if float(conditions.loose(jax.device_put(point.z))) > TOLERANCE:
            return None
        return _Found(conditions, point)

    def generic(self, found: list[_Found | None], bound: float) -> list[_Found | None]:
        """For each point the fold itself where it is generic, else the nearest beside it with a coefficient of `bound`."""
        known: dict[float, _Found | None] = {}
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

    def _folded(self, found: _Found, bound: float) -> _Found | None:
        if abs(self.describe(found).coefficient) >= bound:
            return found
        model, n = self.working.at_theta(jax.device_put(found.point.theta)), len(self.x_start)
        x, v = found.point.z[:n], found.point.z[n:]
        left = np.linalg.svd(np.asarray(linearised(model, x, self.u)[1]))[0][:, -1]
        start, gauge = np.concatenate([x, v, left]), np.asarray(found.conditions.gauge)
        sides = [
            self.solve(self.conditions("saddle-node", gauge, side), start)
            for side in (bound * self.unit, -bound * self.unit)
        ]
        return min((one for one in sides if one), key=lambda one: self.freedom.length(self.change(one)), default=None)

    def describe(self, found: _Found) -> Approach:
        """The point with its eigenvectors and its name."""
        conditions, point = found
        n, theta = len(self.x_start), jax.device_put(point.theta)
        model, x = self.freedom.at_theta(theta), (point.z[:n] * self.sizes).astype(point.z.dtype)
        matrix = in_metric(np.asarray(linearised(model, x, self.u)[1], float), self.states)
        change = self.change(found)
        distance = self.freedom.length(change)
        pair = conditions.kind in PAIRS
        last = point.z[-1] if conditions.kind == "pair" else float(conditions.given)
        turning = self.frequency(last) if pair else self.clock.highest if conditions.kind == "flip" else 0.0
        frequency = turning / self.unit
        mode = eigenpair(matrix, complex(*model.clock.edge(frequency)))
        along = change / distance if distance > 0 else 0 * change
        coefficient = np.nan
        if pair:
            kind = BOUNDARY if conditions.kind == "turning" and turning <= 1.001 * self.slowest else "hopf"
            if self.clock.flips_at is not None and kind == "hopf":
                kind = "1:2 resonance boundary" if conditions.kind == "turning" else "neimark-sacker"
        elif conditions.kind == "flip":
            kind = "flip"
        else:
            # What is zero is told in working units, in which terms of different order can be compared.
            own = np.asarray(linearised(self.working.at_theta(theta), point.z[:n], self.u)[1], float)
            pair_there, z = eigenpair(own, 0.0), jax.device_put(point.z[:n])
            right, left = pair_there.right.real, pair_there.left.real
            if distance == 0:
                # No line leads here: what pushes the mode most stands for it.
                _, pull = jax.vjp(lambda theta: field_at(self.working.at_theta(theta), z, self.u), theta)
                along = np.asarray(pull(jax.device_put(left.astype(theta.dtype)))[0])
            terms = _terms(self.working, theta, jax.device_put(along), z, self.u, jax.device_put(right))
            bent, third, pushed, turned = (np.asarray(term) for term in terms)
            # The right vector has length one in the metric, and points as the one that is reported.
            length = float(np.linalg.norm(self.weigh * right))
            sign = np.sign((self.weigh * right) @ mode.right.real)
            coefficient = sign * float(left @ bent) / 2
            size = np.linalg.norm(left)
            flat = bool(abs(coefficient) <= 1e-6 * size * (np.linalg.norm(bent) + np.linalg.norm(third)))
            still = bool(abs(left @ pushed) <= 1e-6 * size * (np.linalg.norm(pushed) + np.linalg.norm(turned)))
            kind = {(True, True): "pitchfork", (True, False): "cusp", (False, True): "transcritical"}.get((flat, still))
            kind = kind or "saddle-node"
            coefficient /= length * self.unit
        family = None
        if distance > 0:
            leaves = self.freedom.leaves(jax.device_put(along))
            family = Family.leaves(self.freedom.model, self.freedom.at, leaves)
        return Approach(
            kind=kind,
            distance=distance,
            family=family,
            model=model,
            x=x,
            x_start=self.x_start,
            u=np.asarray(self.u),
            frequency=frequency,
            right=mode.right,
            left=mode.left,
            coefficient=coefficient,
            residual=point.violation,
            kkt_residual=point.kkt,
            minimum=point.minimum,
            starts=np.array([distance]),
            agreeing=1,
            reached=None,
            others=(),
            reason="",
        )


@eqx.filter_jit
def _terms(freedom: Freedom, theta: Array, along: Array, x: Array, u: Array, right: Array) -> tuple[Array, ...]:
    """f_xx(r, r), f_xxx(r, r, r), df/dp and dA/dp r along the line."""

    def field(x: Array) -> Array:
        return field_at(freedom.at_theta(theta), x, u)

    def second(x: Array) -> Array:
        return jax.jvp(lambda x: jax.jvp(field, (x,), (right,))[1], (x,), (right,))[1]

    def moved(x: Array) -> Array:
        return jax.jvp(lambda theta: field_at(freedom.at_theta(theta), x, u), (theta,), (along,))[1]

    return second(x), jax.jvp(second, (x,), (right,))[1], *jax.jvp(moved, (x,), (right,))


def _reaches(found: Approach, sizes: np.ndarray) -> bool:
    """Whether the branch from the network's own equilibrium passes through the point."""
    if found.family is None:
        return True
    try:
        branch = continuation(found.family, (0.0, 1.05 * found.distance), x0=found.x_start, u=found.u)
    except NumericalError:
        return False
    # Distance from the point to each segment of the branch, in the lengths that its steps have.
    nodes = np.column_stack([branch.x / sizes, branch.parameter / found.distance])
    aim = np.append(found.x / sizes, 1.0)
    starts, steps = nodes[:-1], np.diff(nodes, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), np.finfo(float).tiny)
    part = np.clip(((aim - starts) * steps).sum(axis=1) / lengths, 0, 1)
    gaps = np.linalg.norm(starts + part[:, None] * steps - aim, axis=1)
    return bool((gaps <= 1e-6 + 0.1 * np.sqrt(lengths)).any())


def _reason(found: Approach) -> str:
    """The result in one sentence."""
    rad = f" with frequency {found.frequency:.3g}" if found.frequency and found.kind != "flip" else ""
    text = f"A change of theta by {found.distance:.4g} gives a {found.kind}{rad}"
    if found.distance == 0:
        text = f"The network is at a {found.kind}{rad} already"
    if found.kind in ("cusp", "pitchfork"):
        text += ", the edge of bistability and no generic fold (ask for 'saddle-node' to get one)"
    if found.kind == BOUNDARY:
        text += ": nearer pairs turn more slowly than omega_min, towards a double zero eigenvalue"
    valid = int(np.isfinite(found.starts).sum())
    text += f"; {found.agreeing} of {len(found.starts)} starts agree"
    text += "" if valid == len(found.starts) else f", {len(found.starts) - valid} did not converge"
    return text + ("." if found.reached else "; the network's own equilibrium does not come there along the line.")
