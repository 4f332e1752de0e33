"""Events of one real eigenvalue share the equations `f = 0, A v = s v, c.v = 1` in (x, v, p) (Moore and Spence, 1980)."""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.critical import real_pair
from ssntk.bifurcation.events.located import AbstractLocatedEvent, Mode
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros


class AbstractRealEvent(AbstractLocatedEvent):
    """A real eigenvalue s of df/dx meets the edge of stability."""

    @abc.abstractmethod
    def shift(self, clock: AbstractClock) -> float:
        """The critical eigenvalue s of df/dx."""

    def critical(self, frequency: float, clock: AbstractClock) -> complex:
        return complex(self.shift(clock))

    def size(self, n: int) -> int:
        return 2 * n + 1

    def start(self, y: np.ndarray, q: HostReal, matrix: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
        right = real_pair(matrix, self.shift(clock), self.at_zero).right
        border = right.real
        unknowns = np.concatenate([y, (right / (border @ right)).real, [float(q)]])
        return unknowns.astype(y.dtype), border.astype(y.dtype)

    def equations(self, zeros: AbstractZeros, unknowns: Array, border: Array) -> Array:
        n = border.shape[0]
        state, v, q = unknowns[:n], unknowns[n : 2 * n], unknowns[-1]
        velocity, push = jax.linearize(lambda state: zeros.at(state, q), state)
        return jnp.concatenate([velocity, push(v) - self.shift(zeros.clock) * v, (border @ v - 1)[None]])

    def mode(self, unknowns: Array, n: int, clock: AbstractClock) -> Mode:
        v, zero = unknowns[n : 2 * n], jnp.zeros_like(unknowns[-1])
        return (v, jnp.zeros_like(v)), zero + self.frequency(np.zeros(0), clock), (zero + self.shift(clock), zero)
