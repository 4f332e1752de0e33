"""Hopf points, and Neimark-Sacker points of maps: one complex pair crosses, and the parameter does not turn.

The equations are `f = 0, A (v + i w) = s(omega) (v + i w), c.v = 1, c.w = 0` in the unknowns (y, v, w, omega, q). For flows
s = i omega (Griewank and Reddien, 1983), for maps (exp(i omega dt) - 1) / dt. Neutral saddles are not found, since the
number of unstable modes does not change at them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from ssntk.bifurcation.events.base import LOOK, Found, unresolved
from ssntk.bifurcation.events.critical import NEAR
from ssntk.bifurcation.events.derivatives import second, third
from ssntk.bifurcation.events.flip import named_by_cubic
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import HOPF, NEIMARK_SACKER
from ssntk.bifurcation.events.located import AbstractLocatedEvent, Judged, Mode, Named
from ssntk.dynamics.stability import eigenpair, sorted_eigenvalues
from ssntk.errors import NumericalError, Outcome, Sentence
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.stack import Stack

COLLISION = (
    "eigenvalues that lie on the axis, to their rounding error, leave it in pairs: a Hamiltonian Hopf point, if the system "
    "is conservative"
)


class AbstractPair(AbstractLocatedEvent):
    """A complex pair meets the edge of stability."""

    modes = 2

    def seen(self, change: Change) -> bool:
        return not change.turns and not change.crosses and change.grown == 2 and not change.real

    def depth(self, interval: Interval) -> int:
        return LOOK if interval.leaves else super().depth(interval)

    def size(self, n: int) -> int:
        return 3 * n + 2

    def start(self, y: np.ndarray, q: HostReal, matrix: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
        every = sorted_eigenvalues(matrix)
        values = every[every.imag > 0]
        if values.size == 0:
            raise NumericalError(Outcome.no_pair.say())
        pair = eigenpair(matrix, complex(values[np.argmin(np.abs(clock.rate(values)))]), every)
        border = pair.right.real
        scaled = pair.right / (border @ pair.right)
        parts = [y, scaled.real, scaled.imag, [clock.frequency(pair.value)], [float(q)]]
        return np.concatenate(parts).astype(y.dtype), border.astype(y.dtype)

    def equations(self, zeros: AbstractZeros, unknowns: Array, border: Array) -> Array:
        n = border.shape[0]
        state, v, w, q = unknowns[:n], unknowns[n : 2 * n], unknowns[2 * n : 3 * n], unknowns[-1]
        velocity, push = jax.linearize(lambda state: zeros.at(state, q), state)
        grow, turn = zeros.clock.edge(unknowns[-2], jnp)
        real, imaginary = push(v) - grow * v + turn * w, push(w) - grow * w - turn * v
        return jnp.concatenate([velocity, real, imaginary, jnp.stack([border @ v - 1, border @ w])])

    def frequency(self, unknowns: np.ndarray, clock: AbstractClock) -> float:
        return clock.wrapped(abs(float(unknowns[-2])))

    def critical(self, frequency: float, clock: AbstractClock) -> complex:
        return complex(*clock.edge(frequency))

    def mode(self, unknowns: Array, n: int, clock: AbstractClock) -> Mode:
        frequency, w = jnp.abs(unknowns[-2]), unknowns[2 * n : 3 * n] * jnp.sign(unknowns[-2])
        return (unknowns[n : 2 * n], w), frequency, clock.edge(frequency, jnp)

    def regular(self, unknowns: Array, smallest: Array, clock: AbstractClock) -> Array:
        # A fold solves the equations of a pair too, with frequency zero, and so does a flip, with pi / dt: refuse these.
        return jnp.abs(clock.edge(unknowns[-2], jnp)[1]) > smallest

    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        others = iter(super().find(stack, [interval for interval in intervals if not interval.leaves]))
        return [
            [(unresolved(stack, interval, self.kind.name, COLLISION), 0.5)] if interval.leaves else next(others)
            for interval in intervals
        ]


class Hopf(AbstractPair):
    """A Hopf point: an oscillation is born."""

    kind = HOPF

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        y, q, frequency, right, left = arguments
        total = left @ cubic_terms(zeros, y, q, frequency, right)
        return total.real / (2 * frequency)

    def named(self, seen: Judged, values: HostReal) -> Named | Sentence:
        small = seen.small * 0.5 / seen.frequency
        return named_by_cubic(self.kind.name, float(values), small, supercritical=float(values) < 0)


class NeimarkSacker(AbstractPair):
    """A Neimark-Sacker point: an invariant closed curve of the map is born."""

    kind = NEIMARK_SACKER

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        y, q, frequency, right, left = arguments
        total, dt = left @ cubic_terms(zeros, y, q, frequency, right), zeros.clock.unit
        turned = jnp.cos(frequency * dt) * total.real + jnp.sin(frequency * dt) * total.imag
        return turned * dt / 2

    def named(self, seen: Judged, values: HostReal) -> Named | Sentence:
        resonance = self.resonance(seen)
        if resonance is not None:
            angle = f"exp(2 pi i / {resonance})"
            reason = f"the multiplier is {angle}, a strong resonance 1:{resonance}: its cubic coefficient decides nothing"
            return Named(self.kind.name, np.nan if resonance == 3 else float(values), reason=reason)
        small = seen.small * seen.clock.unit
        return named_by_cubic(self.kind.name, float(values), small, supercritical=float(values) < 0)

    def resonance(self, seen: Judged) -> int | None:
        """The number of steps after which the mode returns to itself, if that is three or four; else `None`."""
        dt, eps = seen.clock.unit, seen.eps
        turns = seen.frequency * dt / (2 * np.pi)
        off = {k: abs(k * turns - round(k * turns)) * 2 * np.pi for k in (3, 4)}
        return next((k for k, angle in off.items() if angle <= max(NEAR * seen.doubt * dt, 16 * eps**0.5)), None)


def cubic_terms(
    zeros: AbstractZeros, x: Array, q: Array, frequency: Array, right: Complex[Array, " n"]
) -> Complex[Array, " n"]:
    """G (n,), with which l.G is the cubic term of the normal form of a pair."""

    def field(x: Array) -> Array:
        return zeros.at(x, q)

    a, b = right.real, right.imag
    jacobian = jax.jacfwd(field)(x)
    aa, ab, bb = (second(field, x, *pair) for pair in ((a, a), (a, b), (b, b)))
    mean = -jnp.linalg.solve(jacobian, aa + bb)
    grow, turn = zeros.clock.edge(2 * frequency, jnp)
    identity = jnp.eye(x.shape[0], dtype=x.dtype)
    double = jnp.linalg.solve(jax.lax.complex(grow * identity - jacobian, turn * identity), jax.lax.complex(aa - bb, 2 * ab))

    def mixed(v: Array, w: Array) -> Array:
        """B(v, w) for complex directions v and w (n,)."""
        real = second(field, x, v.real, w.real) - second(field, x, v.imag, w.imag)
        return jax.lax.complex(real, second(field, x, v.real, w.imag) + second(field, x, v.imag, w.real))

    aaa, aab, abb, bbb = (third(field, x, *three) for three in ((a, a, a), (a, a, b), (a, b, b), (b, b, b)))
    cubic = jax.lax.complex(aaa + abb, aab + bbb)
    return cubic + 2 * mixed(right, mean.astype(right.dtype)) + mixed(right.conj(), double)
