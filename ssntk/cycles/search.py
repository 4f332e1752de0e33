"""The search for one limit cycle: from a simulation or a guess to the orbit on a mesh that resolves it."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ssntk.cycles.chain import Multipliers, multipliers
from ssntk.cycles.collocation import adapted, gauss, values
from ssntk.cycles.discrete import (
    AbstractMethod,
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
from ssntk.dynamics.stability import linearised
from ssntk.errors import NumericalError, as_choice, as_count
from ssntk.models.base import AbstractStateSpaceModel, dtype_of

METHODS = ("auto", "collocation", "shooting")
# The largest number of intervals, and the change of the period by halving them at which it is known well enough.
MOST, SETTLED = 512, 1e-10
# At how many states of a simulation its rates are looked at, and how many of these are the fastest.
LOOKS, FASTEST = 64, 4
# An orbit has converged if its last correction, in units of its extent, is below this power of the rounding error.
CONVERGED = 0.5
# A simulation that returns this closely is on a cycle, even if the first mesh is too coarse for it.
SURE = 1e-4
# An orbit that returns this closely, relative to its extent, within a part of its period has that part as its period.
SAME = 1e-6
PARTS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


def chosen(n: int, method: str, intervals: int, degree: int) -> tuple[str, int, int]:
    """The arguments of the discretisation for n states. `ValueError` if they do not fit."""
    method = as_choice(method, "method", METHODS)
    intervals, degree = as_count(intervals, "intervals", least=4), as_count(degree, "degree", least=2)
    if intervals & (intervals - 1) or intervals > MOST // 2:
        raise ValueError(f"intervals must be a power of two up to {MOST // 2}, got {intervals}")
    return (METHODS[1] if n <= FEW else METHODS[2]) if method == "auto" else method, intervals, degree


def stiff(matrices: np.ndarray, period: float) -> bool:
    """Whether steps that are short enough for the fastest mode of Jacobians (k, n, n) are more than shooting may have."""
    return bool(np.isfinite(matrices).all() and np.abs(np.linalg.eigvals(matrices)).max() * period > MOST)


class Solved(NamedTuple):
    """An orbit that has converged: its refinement, the relative change of its period by the last one, and multipliers."""

    at: Corrected
    level: int
    error: float
    judged: Multipliers


@dataclasses.dataclass
class Search:
    """The search for one cycle of a model in working units. `asked`: the method that was asked for."""

    model: AbstractStateSpaceModel
    u: Any
    system: System
    method: str
    intervals: int
    degree: int
    unit: float
    asked: str

    def suit(self, states: np.ndarray, period: float) -> None:
        """Choose collocation for stiff states (k, n), unless a method was asked for."""
        if self.asked != METHODS[0]:
            return
        some = states[np.linspace(0, len(states) - 1, min(LOOKS, len(states))).astype(int)].astype(dtype_of(self.model))
        matrices = np.stack([np.asarray(linearised(self.model, x, self.u)[1]) for x in some])
        # Eigenvalues of large matrices take long: those of the largest are enough.
        fastest = np.argsort(np.abs(matrices).sum(axis=(1, 2)))[-FASTEST:]
        if stiff(matrices[fastest], period):
            self.method = METHODS[1]

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

    def settled(self, x: np.ndarray) -> Solved:
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
            self.suit(seen.x, lag)
            found = self.solved(self.begin(seen.even(times[first], self.count(0)), seen.at), finely=best <= SURE)
            if found is not None and self.is_there(found, seen):
                return found
        raise NumericalError(self.reason(x, best, lag))

    def guessed(self, x: np.ndarray, period: float) -> Solved:
        """The cycle to which Newton's iteration leads from one period of the simulation."""
        seen = stretch(self.model, self.u, x, period)
        if not np.isfinite(seen.x).all() or seen.times[-1] < period * (1 - 1e-9):
            raise NumericalError(
                f"the simulation of one period from x0 failed after {seen.times[-1] * self.unit:.3g}: try another x0 or a "
                "shorter period"
            )
        self.suit(seen.x, period)
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

    def is_there(self, found: Solved, seen: Window) -> bool:
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

    def solved(self, guess: Discrete, finely: bool = False) -> Solved | None:
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
            result = Solved(at, level, abs(np.expm1(period - before)), self.judged(at))
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

    def shortest(self, found: Solved) -> Solved:
        """The orbit run through once."""
        for part in PARTS:
            while (once := self.part_of(found, part)) is not None:
                found = once
        return found

    def part_of(self, found: Solved, part: int) -> Solved | None:
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
