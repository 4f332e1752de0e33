"""Find a limit cycle of a flow, with its period, its Floquet multipliers and their errors."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.cycles.chain import Multipliers, multipliers
from ssntk.cycles.collocation import adapted, gauss, values
from ssntk.cycles.discrete import (
    AbstractMethod,
    Alone,
    Collocation,
    Corrected,
    Discrete,
    Shooting,
    System,
    as_orbit,
    corrected,
    flat,
)
from ssntk.cycles.settle import FEW, NEAR, STILL, TOLERANCE, WINDOWS, Window, separation, stretch, window
from ssntk.dynamics.fixed_points import constant_input, readouts
from ssntk.dynamics.scales import rate_of, typical_sizes
from ssntk.dynamics.stability import linearised
from ssntk.errors import NumericalError, as_array, as_choice, as_count, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.rescaled import rescaled
from ssntk.precision import watch_precision
from ssntk.results import Result, Table, short
from ssntk.threads import one_blas_thread

METHODS = ("auto", "collocation", "shooting")
# The largest number of intervals, and the change of the period by halving them at which it is known well enough.
MOST, SETTLED = 512, 1e-10
# In how many parts an interval is cut to find where a state is largest.
WITHIN = 8
# An orbit has converged if its last correction, in units of its extent, is below this power of the rounding error.
CONVERGED = 0.5
# A simulation that returns this closely is on a cycle, even if the first mesh is too coarse for it.
SURE = 1e-4
# An orbit that returns this closely, relative to its extent, within a part of its period has that part as its period.
SAME = 1e-6
PARTS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Orbit(Result):
    """A periodic orbit of a flow.

    - `ts` (N,), `x` (N, n): times from 0 to before the period, and the states there. `outputs` (N, m): the readout.
    - `period`, in units of time, and `period_error`: by how much it changed when the mesh was refined last (NaN on a
      branch, whose orbits are computed on one mesh each).
    - `multipliers` (n - 1,): the Floquet multipliers, the largest first. The trivial one, 1 along the orbit, is taken out.
    - `multiplier_error` (n - 1,): their errors, estimated from how far the discrete flow is from returning the velocity,
      which may be too little if all points of the orbit are alike. Contracting directions below this floor are
      contracting, but by how much is not known.
    - `stable`: whether all multipliers are inside of the unit circle by more than their errors. `n_unstable`: how many are
      outside.
    - `residual`: the largest residual of the equations of the orbit, relative to its extent.
    - `method`: `"collocation"` or `"shooting"`. `intervals`: their number N. `u` (d,): the input.

    **Example:** x' = x - y - x r^2, y' = x + y - y r^2 has the unit circle, with the multiplier exp(-4 pi).

    ```python
    model = ssntk.normal_forms.hopf(1.0, 1.0)
    orbit = ssntk.limit_cycle(model, [0.5, 0.0])
    print(round(orbit.period / np.pi, 6), orbit.stable)  # 2.0 True
    ```
    """

    ts: np.ndarray
    x: np.ndarray
    outputs: np.ndarray
    period: float
    period_error: float
    multipliers: np.ndarray
    multiplier_error: np.ndarray
    stable: bool
    n_unstable: int
    residual: float
    method: str
    intervals: int
    u: np.ndarray

    def __len__(self) -> int:
        return len(self.ts)

    def at(self, times: Any) -> np.ndarray:
        """The states (k, n) at any times (k,), by a periodic cubic spline through the points of the orbit."""
        return self._between(self.x)(times)

    def finely(self) -> tuple[np.ndarray, np.ndarray]:
        """The states and the readout at eight times as many times as the orbit has points."""
        steps, parts = np.diff(np.append(self.ts, self.period)), np.linspace(0, 1, WITHIN, endpoint=False)
        times = (self.ts[:, None] + steps[:, None] * parts).ravel()
        return self._between(self.x)(times), self._between(self.outputs)(times)

    def _between(self, values: np.ndarray) -> CubicSpline:
        return CubicSpline(np.append(self.ts, self.period), np.vstack([values, values[:1]]), bc_type="periodic")

    @property
    def minimum(self) -> np.ndarray:
        """The smallest value (n,) of each state."""
        return self.finely()[0].min(axis=0)

    @property
    def maximum(self) -> np.ndarray:
        """The largest value (n,) of each state."""
        return self.finely()[0].max(axis=0)

    @property
    def amplitude(self) -> np.ndarray:
        """Half the difference (n,) of the largest and the smallest value of each state."""
        low, high = (end(self.finely()[0], axis=0) for end in (np.min, np.max))
        return (high - low) / 2

    @property
    def frequency(self) -> float:
        """2 pi / period, in rad per unit time."""
        return 2 * np.pi / self.period

    def _headline(self) -> str:
        kind = "stable" if self.stable else f"unstable ({self.n_unstable} unstable)" if self.n_unstable else "neutral"
        return (
            f"{kind} limit cycle of period {short(self.period, 10)} (error {short(self.period_error, 2)}), by {self.method} "
            f"with {self.intervals} intervals, residual {short(self.residual, 2)}"
        )

    def _tables(self) -> list[Table]:
        known = zip(self.multipliers, self.multiplier_error, strict=True)
        rows = [(i, value, abs(value), short(error, 2)) for i, (value, error) in enumerate(known)]
        return [Table.of(("#", "multiplier", "size", "error"), rows, 16)]


@outside_jit
@one_blas_thread()
def limit_cycle(
    model: AbstractStateSpaceModel,
    x0: Any,
    period: Any = None,
    *,
    u: Any = None,
    method: str = "auto",
    intervals: int = 32,
    degree: int = 4,
) -> Orbit:
    """Find a limit cycle of a flow, from a state or from a guess, to rounding error where the mesh can resolve it.

    Without `period`, the network is simulated from x0 until it returns, and the result is the stable cycle on which it ends.
    With `period`, x0 is taken for a point near the cycle, which may be unstable, and Newton's iteration starts from one
    period of a simulation. The period that is found is the smallest one.

    **Arguments:**

    - `x0`: (n,) a state, in units of the states.
    - `period`: about the period, in units of time.
    - `u`: (d,) constant input. Default zero.
    - `method`: `"collocation"` (Gauss collocation with an adapting mesh), `"shooting"` (segments with steps of order 8 and
      exact tangents), or `"auto"`: collocation up to 16 states, which may be stiff, and shooting above.
    - `intervals`, `degree`: the first number of intervals, a power of two, and the degree of the collocation. The number is
      doubled, up to 512, until the period changes by less than 1e-10 of it.

    Raises `ValueError` for arguments that do not fit, for maps (see [`find_cycles`][]) and for a model that depends on
    time. Raises `NumericalError` if the simulation ends at an equilibrium, on a torus, in chaos or at infinity, and says
    which; and if Newton's iteration does not converge.

    Sources: Ascher, Mattheij and Russell, *Numerical Solution of Boundary Value Problems*, 1995; Fairgrieve and Jepson, SIAM
    J. Numer. Anal. 28 (1991) 1446, on multipliers.

    **Example:** van der Pol's oscillator has the period 6.663286859... (at mu = 1).

    ```python
    def field(t, x, u, mu):
        return jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])

    orbit = ssntk.limit_cycle(ssntk.VectorField(field, 1.0, 2, 0), [1.0, 0.0])
    print(round(orbit.period, 9), orbit.stable)  # 6.663286859 True
    ```
    """
    check_model(model)
    if isinstance(model, AbstractMap):
        raise ValueError("model must be a flow, and a map has cycles of a number of steps: use find_cycles(model, period)")
    if model.n_state < 2:
        raise ValueError("model must have at least two states: on a line nothing oscillates")
    check_autonomous(model)
    x = np.asarray(as_array(x0, "x0", (model.n_state,)), float)
    u = constant_input(model, u)
    given = None if period is None else float(as_scalar(period, "period", positive=True))
    method, intervals, degree = chosen(model.n_state, method, intervals, degree)
    watch_precision(dtype_of(model))
    start = x.astype(dtype_of(model))
    sizes = np.asarray(typical_sizes(model, u, start), float)
    velocity, jacobian = (np.asarray(part) for part in linearised(model, start, u))
    unit = 1 / rate_of(velocity, jacobian, sizes)
    units = (jnp.asarray(part, dtype_of(model)) for part in (sizes, unit, 0.0, 1.0))
    search = _Search(rescaled(model, sizes, unit), u, System(Alone(model), u, *units), method, intervals, degree, unit)
    found = search.settled(x / sizes) if given is None else search.guessed(x / sizes, given / unit)
    found = search.shortest(found)
    return result(model, search.system, search.of(found.level), found.at, found.judged, found.error)


def chosen(n: int, method: str, intervals: int, degree: int) -> tuple[str, int, int]:
    """The arguments of the discretisation for n states. `ValueError` if they do not fit."""
    method = as_choice(method, "method", METHODS)
    intervals, degree = as_count(intervals, "intervals", least=4), as_count(degree, "degree", least=2)
    if intervals & (intervals - 1) or intervals > MOST // 2:
        raise ValueError(f"intervals must be a power of two up to {MOST // 2}, got {intervals}")
    return (METHODS[1] if n <= FEW else METHODS[2]) if method == "auto" else method, intervals, degree


def result(
    model: AbstractStateSpaceModel,
    system: System,
    method: AbstractMethod,
    at: Corrected,
    judged: Multipliers,
    error: float,
) -> Orbit:
    """An orbit in the user's units. `error`: that of the period, relative."""
    states = np.asarray(at.orbit.ends, float) * np.asarray(system.sizes, float)
    length = float(np.exp(at.orbit.log_period)) * float(system.unit)
    shooting = isinstance(method, Shooting)
    return Orbit(
        ts=np.asarray(at.orbit.mesh, float)[:-1] * length,
        x=states,
        outputs=readouts(model, states.astype(dtype_of(model))),
        period=length,
        period_error=error * length,
        multipliers=judged.values,
        multiplier_error=judged.errors,
        stable=bool((np.abs(judged.values) + judged.errors < 1).all()),
        n_unstable=int((np.abs(judged.values) - judged.errors > 1).sum()),
        residual=float(at.residual),
        method=METHODS[2] if shooting else METHODS[1],
        intervals=len(states) * (method.steps if shooting else 1),
        u=np.asarray(system.u, float),
    )


class _Solved(NamedTuple):
    """An orbit that has converged: its refinement, the relative change of its period by the last one, and multipliers."""

    at: Corrected
    level: int
    error: float
    judged: Multipliers


@dataclasses.dataclass(frozen=True)
class _Search:
    """The search for one cycle of a model in working units."""

    model: AbstractStateSpaceModel
    u: Any
    system: System
    method: str
    intervals: int
    degree: int
    unit: float

    def steps(self, level: int) -> int:
        """The number of steps in a segment of shooting."""
        return 2**level

    def of(self, level: int) -> AbstractMethod:
        return Collocation(self.degree) if self.method == METHODS[1] else Shooting(self.steps(level))

    def count(self, level: int) -> int:
        """The number of points of the orbit."""
        return self.intervals * 2**level if self.method == METHODS[1] else self.intervals

    def begin(self, times: np.ndarray, at: Any) -> Discrete:
        """A guess on the mesh `times` (N + 1,), for an orbit `at` (times) -> states."""
        nodes = gauss(self.degree)[0] if self.method == METHODS[1] else np.zeros(0)
        ends = at(times[:-1])
        inner = at((times[:-1, None] + np.diff(times)[:, None] * nodes).ravel()).reshape(
            len(ends), len(nodes), ends.shape[1]
        )
        length = times[-1] - times[0]
        return as_orbit((times - times[0]) / length, ends, inner, length)

    def settled(self, x: np.ndarray) -> _Solved:
        """The stable cycle on which the simulation from x (n,) ends."""
        best, seen, lag = np.inf, None, np.inf
        for _ in range(WINDOWS):
            seen = window(self.model, self.u, x)
            self.check_ends(seen)
            x = seen.x[-1]
            times, apart = seen.returns()
            if not len(times):
                continue
            best = float(apart.min())
            first = int(np.flatnonzero(apart <= max(3 * best, SAME))[0])
            lag = float(seen.times[-1] - times[first])
            if best > NEAR:
                continue
            found = self.solved(self.begin(seen.even(times[first], self.count(0)), seen.at), finely=best <= SURE)
            if found is not None and self.is_there(found, seen):
                return found
        raise NumericalError(self.reason(x, best, lag))

    def guessed(self, x: np.ndarray, period: float) -> _Solved:
        """The cycle to which Newton's iteration leads from one period of the simulation."""
        seen = stretch(self.model, self.u, x, period)
        if not np.isfinite(seen.x).all() or seen.times[-1] < period * (1 - 1e-9):
            raise NumericalError(
                f"the simulation of one period from x0 failed after {seen.times[-1] * self.unit:.3g}: try another x0 or a "
                "shorter period"
            )
        found = self.solved(self.begin(seen.even(0.0, self.count(0)), seen.at), finely=True)
        if found is None:
            raise NumericalError(
                f"no cycle was found near x0 with a period near {period * self.unit:.6g}: after it, the states are "
                f"{np.abs(seen.x[-1] - x).max() / max(seen.extent, 1e-300):.2g} of the orbit's extent away; try an x0 and a "
                "period nearer to it, or none, to find a stable cycle by simulation"
            )
        return found

    def check_ends(self, seen: Window) -> None:
        """`NumericalError` if the simulation diverges or rests."""
        if not np.isfinite(seen.x).all() or np.abs(seen.x).max() > 1e12:
            raise NumericalError("the simulation from x0 grows without bound: it ends on no cycle")
        if len(seen.x) < 8:
            raise NumericalError("the simulation from x0 failed after a few steps: it ends on no cycle")
        if seen.extent <= STILL * TOLERANCE * max(1.0, float(np.abs(seen.x[-1]).max())):
            raise NumericalError(
                "the simulation from x0 ends at an equilibrium: start nearer to the cycle, or pass the period of an "
                f"unstable one (in a time of {np.ptp(seen.times) * self.unit:.3g} states moved by {seen.extent:.1e} sizes)"
            )

    def reason(self, x: np.ndarray, best: float, lag: float) -> str:
        """Where a simulation ends that does not return."""
        if not np.isfinite(lag):
            return f"the simulation from x0 did not return in {WINDOWS} windows of solver steps: try another x0, or a period"
        rates = separation(self.model, self.u, x, lag)[:, 0]
        closest = f"it comes back to within {best:.1e} of its extent, no closer"
        if rates.min() * lag > 0.02:
            return (
                f"the simulation from x0 ends in chaos: nearby states separate at a rate of {rates.mean() / self.unit:.3g} "
                f"per unit time, and {closest}; pass period= to find an unstable cycle within"
            )
        if len(x) > 2 and best > 1e-4:
            return (
                f"the simulation from x0 ends on a torus, or needs longer to settle: {closest}, and nearby states separate "
                f"at a rate of {rates.mean() / self.unit:.1e} per unit time"
            )
        return (
            f"the simulation from x0 settles on no cycle of its own: {closest}; it is attracted slowly, or closed orbits "
            f"lie side by side, as if a quantity is conserved; pass period={lag * self.unit:.6g} to find one near its end"
        )

    def is_there(self, found: _Solved, seen: Window) -> bool:
        """Whether the simulation is on this cycle and stays on it."""
        if (np.abs(found.judged.values) - found.judged.errors > 1).any():
            return False
        length, orbit = float(np.exp(found.at.orbit.log_period)), found.at.orbit
        late = seen.at(np.linspace(max(seen.times[-1] - length, seen.times[0]), seen.times[-1], 64))
        dense = self.dense(orbit, np.linspace(0, 1, 16 * len(orbit.ends), endpoint=False))
        apart = np.abs(late[:, None] - dense[None]).max(axis=2).min(axis=1)
        return bool(apart.max() <= NEAR * seen.extent)

    def dense(self, orbit: Discrete, times: np.ndarray) -> np.ndarray:
        """The states at `times` (k,) in [0, 1)."""
        mesh, ends, inner = (np.asarray(part, float) for part in orbit[:3])
        if inner.shape[1]:
            return values(times, mesh, ends, inner)
        # A segment may be too long for interpolation: simulate each from its own beginning.
        length = float(np.exp(orbit.log_period))
        parts = [stretch(self.model, self.u, x, step) for x, step in zip(ends, np.diff(mesh) * length, strict=True)]
        return functools.reduce(Window.then, parts).at(times * length)

    def solved(self, guess: Discrete, finely: bool = False) -> _Solved | None:
        """The orbit on finer and finer meshes, until its period no longer changes; `None` if it does not converge on the
        first, or if `finely` on any."""
        before, result = np.inf, None
        for level in range(6):
            if self.count(level) > MOST or (self.method == METHODS[2] and level > 4):
                break
            at = self.corrected(guess, level)
            if at is not None and level == 0:
                # The first mesh is that of the solver's steps: adapt it to the orbit.
                at = self.corrected(self.remeshed(at.orbit, self.count(0)), 0)
            if at is None and result is None and finely:
                guess = self.remeshed(guess, self.count(level + 1))
                continue
            if at is None:
                return result
            period = float(at.orbit.log_period)
            result = _Solved(at, level, abs(np.expm1(period - before)), self.judged(at))
            if result.error <= max(SETTLED, 64 * float(np.finfo(at.orbit.ends.dtype).eps)):
                break
            before, guess = period, self.remeshed(at.orbit, self.count(level + 1))
        return result

    def corrected(self, guess: Discrete, level: int) -> Corrected | None:
        """The orbit after Newton's iteration; `None` if that does not converge, or leads to an equilibrium."""
        nothing = jnp.zeros_like(guess.level)
        at = corrected(self.of(level), self.system, guess, flat(guess), nothing, nothing + 1)
        ends = np.asarray(at.orbit.ends)
        moves = float(np.ptp(ends, axis=0).max()) > SAME * max(1.0, float(np.abs(ends).max()))
        return at if moves and float(at.size) <= float(np.finfo(ends.dtype).eps) ** CONVERGED else None

    def remeshed(self, orbit: Discrete, count: int) -> Discrete:
        """The orbit on an adapted mesh of `count` intervals; for shooting the orbit itself."""
        if self.method == METHODS[2]:
            return orbit
        mesh, ends, inner = (np.asarray(part, float) for part in orbit[:3])
        length = float(np.exp(orbit.log_period))
        new = adapted(mesh, ends, inner, count)
        return self.begin(new * length, lambda times: values(times / length, mesh, ends, inner))

    def judged(self, at: Corrected) -> Multipliers:
        return multipliers(np.asarray(at.first), np.asarray(at.second), np.asarray(at.velocity))

    def shortest(self, found: _Solved) -> _Solved:
        """The orbit run through once."""
        for part in PARTS:
            while (once := self.part_of(found, part)) is not None:
                found = once
        return found

    def part_of(self, found: _Solved, part: int) -> _Solved | None:
        """The same orbit with a period `part` times shorter; `None` if it does not return by then."""
        orbit = found.at.orbit
        length, extent = float(np.exp(orbit.log_period)), float(np.ptp(np.asarray(orbit.ends), axis=0).max())
        times = np.linspace(0, 1 / part, 16, endpoint=False)
        if np.abs(self.dense(orbit, times) - self.dense(orbit, times + 1 / part)).max() > NEAR * extent:
            return None
        mesh = np.linspace(0, length / part, self.count(0) + 1)
        once = self.solved(self.begin(mesh, lambda times: self.dense(orbit, times / length)))
        if once is None:
            return None
        # Near a period doubling another cycle of half the period passes nearby.
        apart = float(np.abs(np.asarray(once.at.orbit.ends[0]) - np.asarray(orbit.ends[0])).max())
        return once if apart <= SAME * extent else None
