"""Events that are located by an extended system: equations that are regular at the event, where the branch's are not.

Such an event defines the equations, refuses solutions of them that are other points, and names the kind of the remaining
ones by a coefficient.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events import system
from ssntk.bifurcation.events.base import AbstractEvent, Found
from ssntk.bifurcation.events.critical import NEAR, critical_pair, vanishing
from ssntk.bifurcation.events.interval import Interval
from ssntk.bifurcation.events.rounds import as_of_the_map
from ssntk.bifurcation.events.system import Solved
from ssntk.bifurcation.point import Bifurcation, Located, failed
from ssntk.dynamics.stability import Eigenpair, judged_exponents, sorted_eigenvalues
from ssntk.errors import NumericalError, Outcome, Sentence
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.lines import stability_matrices
from ssntk.zeros.stack import Stack, each


@dataclasses.dataclass(frozen=True)
class Judged:
    """A solution of an extended system, as it is judged. It has N states, each in units of its size.

    - `solved`: the end of Newton's iteration. `clock`: that of the model. `unknowns` (m,), `y` (N,) and `q`: the solution.
    - `jacobian` (N, N) and `slope` (N,): the derivatives of F over y and over q.
    - `exponents` (N,) and `doubts` (N,): the growth exponents of all modes, and their rounding errors.
    - `frequency`, `pair` and `defective`: those of the critical mode. `doubt`: the rounding error of its exponent.
    - `terms` (N, N): the sizes of the terms that A is the sum of. `natural`: the size of terms such as those of l.B(r, r),
      with which a coefficient is compared to decide whether it is zero.
    - `pushed`: whether the parameter pushes along the critical direction.
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
        """The rounding error of a quadratic or cubic term, in 1 / time."""
        return self.eps**0.6 * self.natural

    @property
    def width(self) -> float:
        """A bound of the error of q."""
        return float((float(self.solved.correction) + 4 * self.eps) * (1 + abs(self.q)))


class Named(NamedTuple):
    """The kind of a point, and the coefficient of its normal form, which scales as the unit eigenvector to `power`."""

    kind: str
    coefficient: float
    power: int = 2
    criticality: str | None = None
    reason: str = ""
    tangents: np.ndarray | None = None  # (2, N + 1), of branches that cross


# The real and imaginary part of the right vector (n,), the frequency, and the real and imaginary part of the eigenvalue.
Mode = tuple[tuple[Array, Array], Array, tuple[Array, Array]]


class AbstractLocatedEvent(AbstractEvent):
    """An event that is located by Newton's iteration on its extended system.

    `at_zero`: whether the critical eigenvalue is zero, so that it may be defective.
    """

    at_zero: ClassVar[bool] = False

    def part(self, interval: Interval) -> float:
        """The position, from 0 to 1, at which to guess the event in an interval that shows it."""
        return interval.crossing_part()

    # Its extended system, in m unknowns. The state comes first and q last.

    @abc.abstractmethod
    def size(self, n: int) -> int:
        """The number of unknowns m for n states."""

    @abc.abstractmethod
    def start(self, y: np.ndarray, q: HostReal, matrix: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
        """The unknowns (m,) at a guess with the stability matrix (n, n), and the border (n,) that fixes eigenvectors.

        Raises `NumericalError` if there is no such mode.
        """

    @abc.abstractmethod
    def equations(self, zeros: AbstractZeros, unknowns: Array, border: Array) -> Array:
        """The residual (m,) of the extended system at the unknowns (m,)."""

    # How a solution is interpreted.

    def frequency(self, unknowns: np.ndarray, clock: AbstractClock) -> float:
        """The critical frequency, from the unknowns."""
        return 0.0

    def critical(self, frequency: float, clock: AbstractClock) -> complex:
        """The critical eigenvalue of df/dx."""
        return 0j

    def refused(self, seen: Judged) -> Sentence | None:
        """The reason why a solution is not this event; `None` if it is."""
        return None

    def arguments(self, seen: Judged) -> tuple[np.ndarray, ...]:
        """The arguments of [`coefficient`][]."""
        # Eigenvectors are computed in double precision: cast them to the precision of the model.
        dtype = np.result_type(seen.y.dtype, np.complex64)
        numbers = seen.y, np.asarray(seen.q), np.asarray(seen.frequency, seen.y.dtype)
        return *numbers, seen.pair.right.astype(dtype), seen.pair.left.astype(dtype)

    @abc.abstractmethod
    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        """The coefficients of the normal form that distinguish the kinds."""

    @abc.abstractmethod
    def named(self, seen: Judged, values: HostReal) -> Named | Sentence:
        """The kind of the point, from the `values` that [`coefficient`][] returned, or the reason why it has none."""

    def mode(self, unknowns: Array, n: int, clock: AbstractClock) -> Mode:
        """The critical mode that the unknowns (m,) hold, traced: its right vector, its frequency and its eigenvalue."""
        raise NotImplementedError(f"a {self.kind.name} is not differentiable")

    def regular(self, unknowns: Array, smallest: Array, clock: AbstractClock) -> Array:
        """Whether a traced solution is of this kind and no other. `smallest`: smaller rates may be rounding errors."""
        return jnp.asarray(True)

    # Methods that follow from the above, for all events.

    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        """For each interval its event. It is unresolved if Newton's iteration leaves the interval."""
        if not intervals:
            return []
        guesses = np.stack([interval.between(self.part(interval))[0] for interval in intervals])
        points = self.solve(stack, [interval.member for interval in intervals], guesses)
        return [[(self.accepted(stack, *pair), 0.5)] for pair in zip(intervals, points, strict=True)]

    def accepted(self, stack: Stack, interval: Interval, one: Located) -> Bifurcation:
        """The located point; `converged` is false if it is not the event of this interval."""
        reason = self.elsewhere(interval, one) if one.point.converged else ""
        if reason:
            return dataclasses.replace(one.point, converged=False, reason=reason)
        return as_of_the_map(stack, interval.member, one) if one.point.converged else one.point

    def elsewhere(self, interval: Interval, one: Located) -> str:
        """The reason why a located point is not the event of this interval; empty if it is."""
        if interval.outside(one.z):
            return "Newton's iteration left for another point"
        values, doubts = one.exponents, one.doubts
        # If the event is alone, the other modes do not cross. If they do, a second event hides in the interval. The left
        # vector is NaN if a pair meets at zero: then both eigenvalues are critical.
        count = 2 if np.isnan(one.point.left).any() else self.modes
        critical = np.argsort(np.abs(np.abs(values.imag) - one.point.frequency) + np.abs(values.real))[:count]
        others = int((np.delete(values, critical).real > np.delete(doubts, critical)).sum())
        a, b = interval.a.unstable, interval.b.unstable
        # If a pitchfork is passed along its parabola, the critical mode is on the same side before and after.
        if others != min(a, b) and not (a == b and others == a - 1):
            return "another event lies in the same interval"
        return ""

    def solve(self, stack: Stack, members: Sequence[int], guesses: np.ndarray) -> list[Located]:
        """The points to which guesses z (k, N + 1) lead. `converged` and `reason` report a failure, and its exponents are
        empty."""
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
        read: list[tuple[int, Judged]] = []
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

    def judge(self, solved: Solved, clock: AbstractClock) -> Judged | Sentence:
        """The point that the unknowns describe, with eigenvectors from its Jacobian; or the reason why it is refused.

        Every number is compared with its own rounding error: that of each eigenvalue, and for sums that of their terms.
        """
        jacobian, slope = solved.jacobian[:, :-1], solved.jacobian[:, -1]
        y, eps = solved.y[: len(slope)], float(np.finfo(solved.y.dtype).eps)
        finite = np.isfinite(solved.y).all() and np.isfinite(solved.jacobian).all()
        if not finite or not float(solved.correction) <= eps**0.6:
            return Outcome.not_converged.say(size=float(solved.correction), asked=eps**0.6)
        every = sorted_eigenvalues(jacobian)
        values, doubts = judged_exponents(jacobian, clock, every)
        frequency = self.frequency(solved.y, clock)
        critical = self.critical(frequency, clock)
        at = int(np.argmin(np.abs(values - 1j * frequency)))
        terms_of = np.abs(jacobian) + solved.curvature + solved.drift
        pair, defective = critical_pair(jacobian, critical, every, terms_of.sum(axis=1), self.at_zero)
        if pair is None:
            return Outcome.defective.say(value=critical)
        weights = np.abs(pair.left)
        terms = weights @ (np.abs(jacobian) @ (1 + np.abs(y)))
        natural = float(weights @ (terms_of @ np.abs(pair.right)))
        # The error left by Newton's iteration, besides rounding. It is relative to `natural`, since at the fold of a scalar
        # model the Jacobian itself is zero.
        left_over = (float(solved.correction) + 32 * eps) * natural
        doubt = max(float(doubts[at]), left_over)
        if defective:
            # If a pair meets at zero, an error separates its eigenvalues by the square root of the error.
            doubt = max(doubt, float(np.sqrt(left_over * np.abs(jacobian).sum(axis=1).max())))
        for end in clock.ends if self.modes == 2 else ():
            if abs(frequency - end) <= NEAR * doubt:
                return (Outcome.flip_frequency if end else Outcome.zero_frequency).say()
        off = abs(values[at] - 1j * frequency)
        if not off <= NEAR * doubt:
            return Outcome.not_critical.say(off=off)
        # If df/dp is itself at rounding level its direction is meaningless.
        pushed = abs(pair.left @ slope) > max(eps**0.4 * (weights @ np.abs(slope)), eps**0.8 * (terms + natural))
        seen = Judged(
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

    def described(self, stack: Stack, number: int, seen: Judged, values: HostReal) -> Located:
        """The point with its kind, coefficient and criticality, in the user's units."""
        what = self.named(seen, values)
        if isinstance(what, Sentence):
            return failed(stack, number, self.kind.name, seen.z, what)
        # Convert the eigenvectors to the user's units, in which the right one is to have length one.
        scale, span = stack.scale[number].astype(float), float(stack.p1[number]) - float(stack.p0[number])
        right, left = scale * seen.pair.right, seen.pair.left / scale
        # Fix the phase: the largest component is real and positive in the user's units.
        top = right[np.argmax(np.abs(right))]
        length = float(np.linalg.norm(right)) * top / abs(top)
        right, left = right / length, left * length
        tangents = what.tangents
        if tangents is not None:
            tangents = tangents * np.append(scale, span)
            tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
        if seen.defective:
            # A defective eigenvalue has no left vector with left.right = 1, and no centre manifold of one dimension.
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

    def several(self, seen: Judged) -> bool:
        """Whether more than one eigenvalue is zero at the point."""
        doubts = np.maximum(seen.doubts, seen.doubt)
        return not seen.defective and vanishing(seen.solved, seen.exponents, doubts) > 1


_DEFECTIVE = "the zero eigenvalue is defective, as in conservative systems: equilibria meet, and no coefficient tells how"


@functools.cache
def _solving(event: AbstractLocatedEvent) -> Callable[..., Solved]:
    return each(functools.partial(_solve, event))


def _solve(event: AbstractLocatedEvent, zeros: AbstractZeros, start: Array, border: Array) -> Solved:
    return system.solve(zeros, start, border, event.equations)


@functools.cache
def _coefficients(event: AbstractLocatedEvent) -> Callable[..., np.ndarray]:
    return each(functools.partial(_coefficient, event))


def _coefficient(event: AbstractLocatedEvent, zeros: AbstractZeros, *arguments: Array) -> Array:
    return event.coefficient(zeros, *arguments)
