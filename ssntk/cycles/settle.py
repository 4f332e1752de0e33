"""Simulate until the states return to where they were, or say where they end instead. All in working units."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.integrate import followed
from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel

# The solver's tolerance, the number of its steps in a window, and the largest number of windows.
TOLERANCE, STEPS, WINDOWS = 1e-7, 4096, 24
# Up to this number of states an implicit solver is used, since systems of few states are often stiff.
FEW = 16
# An orbit that returns within this part of its extent is a guess for a cycle.
NEAR = 0.03
# Extents below this multiple of the tolerance are those of an equilibrium.
STILL = 1e3
# The rounds in which two tangent vectors are followed, to tell chaos from a torus.
ROUNDS = 64


class Window(NamedTuple):
    """A stretch of a simulation at the solver's own steps: times (k,), states and velocities (k, n)."""

    times: np.ndarray
    x: np.ndarray
    velocity: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """The states at times (m,), by cubic Hermite polynomials."""
        i = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 2)
        step = np.diff(self.times)[i, None]
        s = (times[:, None] - self.times[i, None]) / step
        parts = (1 + 2 * s) * (1 - s) ** 2, s * (1 - s) ** 2 * step, s**2 * (3 - 2 * s), s**2 * (s - 1) * step
        known = self.x[i], self.velocity[i], self.x[i + 1], self.velocity[i + 1]
        return sum((w * v for w, v in zip(parts, known, strict=True)), np.zeros((1, 1)))

    def then(self, other: "Window") -> "Window":
        """This stretch and another one, which begins where this one ends."""
        times = np.concatenate([self.times, self.times[-1] + other.times[1:]])
        return Window(times, np.vstack([self.x, other.x[1:]]), np.vstack([self.velocity, other.velocity[1:]]))

    def even(self, begin: float, count: int) -> np.ndarray:
        """Times (count + 1,) from `begin` to the end, with equally many of the solver's steps between them."""
        inner = np.concatenate([[begin], self.times[self.times > begin]])
        return np.interp(np.linspace(0, len(inner) - 1, count + 1), np.arange(len(inner)), inner)

    @property
    def extent(self) -> float:
        """The largest half range of a state in the second half of the window."""
        late = self.x[len(self.x) // 2 :]
        return float((late.max(axis=0) - late.min(axis=0)).max() / 2)

    def returns(self) -> tuple[np.ndarray, np.ndarray]:
        """When the orbit crossed the plane through its end, normal to the velocity there, and how far from its end (k,),
        relative to its extent; the latest first."""
        end, normal = self.x[-1], self.velocity[-1]
        height = (self.x[:-2] - end) @ normal
        i = np.flatnonzero((height[:-1] < 0) & (height[1:] >= 0))[::-1]
        low, high = self.times[i], self.times[i + 1]
        for _ in range(40):
            middle = (low + high) / 2
            below = (self.at(middle) - end) @ normal < 0 if len(i) else np.zeros(0, bool)
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        if not len(i):
            return low, low
        return low, np.abs(self.at(low) - end).max(axis=1) / max(self.extent, np.finfo(float).tiny)


@eqx.filter_jit
def _simulated(model: AbstractStateSpaceModel, u: Array, x: Array, end: Array) -> tuple[Array, Array, Array]:
    def field(x: Array) -> Array:
        return field_at(model, x, u)

    solution: Any = followed(field, x, end, TOLERANCE, STEPS, stiff=x.shape[0] <= FEW)
    return solution.ts, solution.ys, jax.vmap(field)(solution.ys)


def window(model: AbstractStateSpaceModel, u: Array, x: np.ndarray, end: float = 1e9) -> Window:
    """The simulation from x (n,) until `end`, or for as many steps as a window has."""
    dtype = u.dtype
    parts = _simulated(model, u, jnp.asarray(x, dtype), jnp.asarray(end, dtype))
    times, states, velocity = (np.asarray(part, float) for part in parts)
    known = np.isfinite(times)
    return Window(times[known], states[known], velocity[known])


def stretch(model: AbstractStateSpaceModel, u: Array, x: np.ndarray, end: float) -> Window:
    """The simulation from x (n,) until `end`, by as many windows as that takes, up to `WINDOWS`."""
    whole = window(model, u, x, end)
    for _ in range(WINDOWS):
        if not np.isfinite(whole.x).all() or len(whole.x) < STEPS / 8 or whole.times[-1] >= end * (1 - 1e-12):
            break
        more = window(model, u, whole.x[-1], end - whole.times[-1])
        if len(more.x) < 2:
            break
        whole = whole.then(more)
    return whole


@eqx.filter_jit
def _separation(model: AbstractStateSpaceModel, u: Array, x: Array, time: Array) -> Float[Array, "k 2"]:
    """By how much two tangent vectors grow in each of `ROUNDS` stretches of a length `time`, as logarithms."""

    def field(state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, tangents = state
        velocity, push = jax.linearize(lambda x: field_at(model, x, u), x)
        return velocity, jax.vmap(push, 1, 1)(tangents)

    def on(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        solution: Any = followed(field, state, time, 1e-6, STEPS)
        last = jnp.isfinite(solution.ts).sum() - 1
        x, tangents = (part[last] for part in solution.ys)
        q, r = jnp.linalg.qr(tangents)
        return (x, q), jnp.log(jnp.abs(jnp.diag(r)))

    begin = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (x.shape[0], 2), x.dtype))[0]
    return jax.lax.scan(on, (x, begin), None, length=ROUNDS)[1]


def separation(model: AbstractStateSpaceModel, u: Array, x: np.ndarray, time: float) -> np.ndarray:
    """The two largest Lyapunov exponents (2, 2), by the first and the second half of the rounds after the first few."""
    dtype = u.dtype
    grown = np.asarray(_separation(model, u, jnp.asarray(x, dtype), jnp.asarray(time, dtype)), float) / time
    return np.stack([part.mean(axis=0) for part in np.array_split(grown[8:], 2)])
