"""Events that are located by an extended system: equations that are regular at the point where those of the branch are not.

Such an event gives the equations, refuses what they also have as solutions, and names what is left by its coefficient.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events import system
from ssntk.bifurcation.events.base import AbstractEvent, Found
from ssntk.bifurcation.events.critical import NEAR, critical_pair, vanishing
from ssntk.bifurcation.events.interval import Interval
from ssntk.bifurcation.events.system import Solved
from ssntk.bifurcation.point import Bifurcation, Located, failed
from ssntk.dynamics.stability import Eigenpair, judged_exponents
from ssntk.errors import NumericalError, Outcome, Sentence
from ssntk.models.clock import AbstractClock
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.lines import stability_matrices
from ssntk.zeros.stack import Stack, each


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of a point at which an extended system is solved. N states, each in its own size.

    - `solved`: where the iteration ended; `clock`: how the time of the model runs; `unknowns` (m,), `y` (N,) and `q`.
    - `jacobian` (N, N) and `slope` (N,): of F over y and over q. `exponents` and `doubts` (N,): of all modes.
    - `frequency`, `pair` and `defective`: of the critical mode; `doubt`: what rounding may do to it.
    - `terms` (N, N): what A is the sum of; `natural`: the terms of l.B(r, r) and its like, which a coefficient that vanishes
      is compared with; `pushed`: whether the parameter pushes along the critical direction.
    """

    solved: Solved
    clock: AbstractClock
    exponents: np.ndarray
    doubts: np.ndarray
    frequency: float
    pair: Eigenpair
    defective: bool
    doubt: float
    terms: np.ndarray
    natural: float
    pushed: bool

    @property
    def unknowns(self) -> np.ndarray:
        return self.solved.y

    @property
    def jacobian(self) -> np.ndarray:
        return self.solved.jacobian[:, :-1]

    @property
    def slope(self) -> np.ndarray:
        return self.solved.jacobian[:, -1]

    @property
    def y(self) -> np.ndarray:
        return self.solved.y[: len(self.slope)]

    @property
    def q(self) -> Any:
        return self.solved.y[-1]

    @property
    def z(self) -> np.ndarray:
        return np.append(self.y, self.q)

    @property
    def eps(self) -> float:
        return float(np.finfo(self.y.dtype).eps)

    @property
    def small(self) -> float:
        """What a quadratic or cubic term may be by rounding, in 1 / time."""
        return self.eps**0.6 * self.natural

    @property
    def width(self) -> float:
        """How far q may be off."""
        return float((float(self.solved.correction) + 4 * self.eps) * (1 + abs(self.q)))


class Named(NamedTuple):
    """What a point is: its kind, and the coefficient of its normal form in the unit eigenvector to the power `power`."""

    kind: str
    coefficient: float
    power: int = 2
    criticality: str | None = None
    reason: str = ""
    tangents: np.ndarray | None = None  # (2, N + 1), of branches that cross


# Real and imaginary part of the right vector (n,), the frequency, and real and imaginary part of the eigenvalue.
Mode = tuple[tuple[Array, Array], Array, tuple[Array, Array]]


class AbstractLocatedEvent(AbstractEvent):
    """An event that is located by Newton's iteration on its extended system.

    `at_zero`: whether the critical eigenvalue vanishes, and may then be defective.
    """

    at_zero: ClassVar[bool] = False

    def part(self, interval: Interval) -> float:
        """Where in an interval in which it is seen it is looked for, from 0 to 1."""
        return interval.crossing_part()

    # Its extended system, in m unknowns of which the state is first and q the last.

    @abc.abstractmethod
    def size(self, n: int) -> int:
        """m, for n states."""

    @abc.abstractmethod
    def start(self, y: np.ndarray, q: Any, matrix: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
        """The unknowns (m,) at a guess with the stability matrix (n, n), and the border (n,) that fixes eigenvectors.

        Raises `NumericalError` if there is no such mode.
        """

    @abc.abstractmethod
    def equations(self, zeros: AbstractZeros, unknowns: Array, border: Array) -> Array:
        """What the unknowns (m,) leave of the system, (m,)."""

    # What a solution is.

    def frequency(self, unknowns: np.ndarray, clock: AbstractClock) -> float:
        """The critical frequency, from the unknowns."""
        return 0.0

    def critical(self, frequency: float, clock: AbstractClock) -> complex:
        """The critical eigenvalue of df/dx."""
        return 0j

    def refused(self, seen: Seen) -> Sentence | None:
        """Why a solution is no such event; `None` if it is."""
        return None

    def arguments(self, seen: Seen) -> tuple[np.ndarray, ...]:
        """What [`coefficient`][] takes."""
        # Eigenvectors are computed in double precision, and the model may not be.
        dtype = np.result_type(seen.y.dtype, np.complex64)
        numbers = seen.y, np.asarray(seen.q), np.asarray(seen.frequency, seen.y.dtype)
        return *numbers, seen.pair.right.astype(dtype), seen.pair.left.astype(dtype)

    @abc.abstractmethod
    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        """What tells the kinds apart, of the normal form."""

    @abc.abstractmethod
    def named(self, seen: Seen, values: Any) -> Named | Sentence:
        """What the point is, from what [`coefficient`][] returned; or why it is none."""

    def mode(self, unknowns: Array, n: int, clock: AbstractClock) -> Mode:
        """The critical mode that the unknowns (m,) hold, traced: its right vector, its frequency and its eigenvalue."""
        raise NotImplementedError(f"a {self.kind.name} is not differentiable")

    def regular(self, unknowns: Array, smallest: Array, clock: AbstractClock) -> Array:
        """Whether a solution, traced, is no point of another kind; `smallest`: the least rate that is none by rounding."""
        return jnp.asarray(True)

    # What follows for all.

    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        """For each interval its event, refused if Newton's iteration leaves for another."""
        if not intervals:
            return []
        guesses = np.stack([interval.between(self.part(interval))[0] for interval in intervals])
        points = self.solve(stack, [interval.member for interval in intervals], guesses)
        return [[(self.accepted(stack, *pair), 0.5)] for pair in zip(intervals, points, strict=True)]

    def accepted(self, stack: Stack, interval: Interval, one: Located) -> Bifurcation:
        """The point, not converged if it is not the event of this interval."""
        reason = self.elsewhere(interval, one) if one.point.converged else ""
        return dataclasses.replace(one.point, converged=False, reason=reason) if reason else one.point

    def elsewhere(self, interval: Interval, one: Located) -> str:
        """Why a located point is not the event of this interval; empty if it is."""
        if interval.outside(one.z):
            return "Newton's iteration left for another point"
        values, doubts = one.exponents, one.doubts
        # Alone, the event leaves the other modes where they are; else a second one hides behind the same count. A pair that
        # meets at zero has no left vector there.
        count = 2 if np.isnan(one.point.left).any() else self.modes
        critical = np.argsort(np.abs(np.abs(values.imag) - one.point.frequency) + np.abs(values.real))[:count]
        others = int((np.delete(values, critical).real > np.delete(doubts, critical)).sum())
        a, b = interval.a.unstable, interval.b.unstable
        # A pitchfork passed along its parabola: the critical mode is on the same side before and after.
        if others != min(a, b) and not (a == b and others == a - 1):
            return "another event lies in the same interval"
        return ""

    def solve(self, stack: Stack, members: Sequence[int], guesses: np.ndarray) -> list[Located]:
        """The points that guesses z (k, N + 1) lead to. Failure is told by `converged` and `reason`, and there the exponents
        are empty."""
        guesses, numbers = np.asarray(guesses), np.asarray(members)
        matrices = stability_matrices(stack, numbers, guesses)
        found: list[Located | None] = [None] * len(numbers)
        starts = []
        for i, (z, matrix) in enumerate(zip(guesses, matrices, strict=True)):
            try:
                if not np.isfinite(matrix).all():
                    raise NumericalError(Outcome.not_finite.say())
                starts.append((i, *self.start(z[:-1], z[-1], matrix, stack.clock)))
            except NumericalError as error:
                found[i] = failed(stack, int(numbers[i]), self.kind.name, z, error.args[0])
        read: list[tuple[int, Seen]] = []
        if starts:
            chosen = [i for i, _, _ in starts]
            packed = (np.stack(part) for part in list(zip(*starts, strict=True))[1:])
            solved = _solving(self)(stack, numbers[chosen], *packed)
            for at, i in enumerate(chosen):
                one = Solved(*(part[at] for part in solved))
                judged = self.judge(one, stack.clock)
                if isinstance(judged, Sentence):
                    found[i] = failed(stack, int(numbers[i]), self.kind.name, np.append(one.y[: stack.n], one.y[-1]), judged)
                else:
                    read.append((i, judged))
        if read:
            at = numbers[[i for i, _ in read]]
            arguments = (np.stack(part) for part in zip(*[self.arguments(seen) for _, seen in read], strict=True))
            for (i, seen), values in zip(read, _coefficients(self)(stack, at, *arguments), strict=True):
                found[i] = self.described(stack, int(numbers[i]), seen, values)
        return [point for point in found if point is not None]

    def judge(self, solved: Solved, clock: AbstractClock) -> Seen | Sentence:
        """The point that the unknowns describe with its eigenvectors from its own Jacobian, or why it is none.

        Everything is compared with its own rounding error: eigenvalues with what rounding does to each, sums with terms.
        """
        jacobian, slope = solved.jacobian[:, :-1], solved.jacobian[:, -1]
        y, eps = solved.y[: len(slope)], float(np.finfo(solved.y.dtype).eps)
        finite = np.isfinite(solved.y).all() and np.isfinite(solved.jacobian).all()
        if not finite or not float(solved.correction) <= eps**0.6:
            return Outcome.not_converged.say(size=float(solved.correction), asked=eps**0.6)
        values, doubts = judged_exponents(jacobian, clock)
        frequency = self.frequency(solved.y, clock)
        critical = self.critical(frequency, clock)
        at = int(np.argmin(np.abs(values - 1j * frequency)))
        terms_of = np.abs(jacobian) + solved.curvature + solved.drift
        pair, defective = critical_pair(jacobian, critical, terms_of.sum(axis=1), self.at_zero)
        if pair is None:
            return Outcome.defective.say(value=critical)
        weights = np.abs(pair.left)
        terms = weights @ (np.abs(jacobian) @ (1 + np.abs(y)))
        natural = float(weights @ (terms_of @ np.abs(pair.right)))
        # What is left after Newton's iteration, beside rounding. At the fold of a scalar model the Jacobian vanishes itself.
        left_over = (float(solved.correction) + 32 * eps) * natural
        doubt = max(float(doubts[at]), left_over)
        if defective:
            # A pair that meets there is as far apart as the root of any error.
            doubt = max(doubt, float(np.sqrt(left_over * np.abs(jacobian).sum(axis=1).max())))
        for end in clock.ends if self.modes == 2 else ():
            if abs(frequency - end) <= NEAR * doubt:
                return (Outcome.flip_frequency if end else Outcome.zero_frequency).say()
        off = abs(values[at] - 1j * frequency)
        if not off <= NEAR * doubt:
            return Outcome.not_critical.say(off=off)
        # If df/dp is itself at rounding level its direction is meaningless.
        pushed = abs(pair.left @ slope) > max(eps**0.4 * (weights @ np.abs(slope)), eps**0.8 * (terms + natural))
        seen = Seen(
            solved=solved,
            clock=clock,
            exponents=values,
            doubts=doubts,
            frequency=frequency,
            pair=pair,
            defective=defective,
            doubt=doubt,
            terms=terms_of,
            natural=natural,
            pushed=bool(pushed),
        )
        return self.refused(seen) or seen

    def described(self, stack: Stack, number: int, seen: Seen, values: Any) -> Located:
        """The point with its coefficient and what follows from it, in the user's units."""
        what = self.named(seen, values)
        if isinstance(what, Sentence):
            return failed(stack, number, self.kind.name, seen.z, what)
        # States along the critical direction: one of length one in the user's units is this many of length one here.
        scale, span = stack.scale[number].astype(float), float(stack.p1[number]) - float(stack.p0[number])
        right, left = scale * seen.pair.right, seen.pair.left / scale
        # The largest component is real and positive, in these units.
        top = right[np.argmax(np.abs(right))]
        length = float(np.linalg.norm(right)) * top / abs(top)
        right, left = right / length, left * length
        tangents = what.tangents
        if tangents is not None:
            tangents = tangents * np.append(scale, span)
            tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
        if seen.defective:
            # There is no left vector with left.right = 1, and no centre manifold of one dimension.
            what, left = what._replace(coefficient=np.nan, criticality=None, reason=_DEFECTIVE), np.full(left.shape, np.nan)
        parameter, width = stack.parameter(number, float(seen.q)), seen.width * abs(stack.p1[number] - stack.p0[number])
        point = Bifurcation(
            kind=what.kind,
            parameter=float(parameter),
            x=seen.y * stack.scale[number],
            frequency=seen.frequency,
            right=right,
            left=left,
            coefficient=float(what.coefficient / (length if what.power == 1 else abs(length) ** 2)),
            criticality=what.criticality,
            residual=float(seen.solved.residual),
            interval=(float(parameter - width), float(parameter + width)),
            converged=True,
            reason=str(what.reason),
            tangents=tangents,
        )
        return Located(point, seen.z, seen.exponents, seen.doubts)

    def several(self, seen: Seen) -> bool:
        """Whether more eigenvalues vanish there than one."""
        doubts = np.maximum(seen.doubts, seen.doubt)
        return not seen.defective and vanishing(seen.solved, seen.exponents, doubts) > 1


_DEFECTIVE = "the zero eigenvalue is defective, as in conservative systems: equilibria meet, and no coefficient tells how"


@functools.cache
def _solving(event: AbstractLocatedEvent) -> Any:
    return each(functools.partial(_solve, event))


def _solve(event: AbstractLocatedEvent, zeros: AbstractZeros, start: Array, border: Array) -> Solved:
    return system.solve(zeros, start, border, event.equations)


@functools.cache
def _coefficients(event: AbstractLocatedEvent) -> Any:
    return each(functools.partial(_coefficient, event))


def _coefficient(event: AbstractLocatedEvent, zeros: AbstractZeros, *arguments: Array) -> Array:
    return event.coefficient(zeros, *arguments)
