"""The cycles of a map to which fixed points of its iterates belong."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.stack import Stack, each


def _orbit(zeros: AbstractZeros, z: Array) -> Array:
    """The points (rounds, N) of a cycle."""
    return zeros.orbit(z)


def _pushed(zeros: AbstractZeros, z: Array, direction: Array) -> tuple[Array, Array]:
    """The points (rounds, N) of a cycle, and how steps (2, N) of the first one move each."""
    orbit, push = jax.linearize(lambda y: zeros.orbit(jnp.append(y, z[-1])), z[:-1])
    return orbit, jnp.stack([push(one) for one in direction])


_orbits, _pushes = each(_orbit), each(_pushed)


def orbits_at(stack: Stack, member: int, z: np.ndarray) -> np.ndarray:
    """The points (k, rounds, N) of the cycles through points z (k, N + 1), in units of the unknowns' sizes."""
    if stack.members[member].rounds == 1:
        return z[:, None, :-1]
    return _orbits(stack, np.full(len(z), member), z)


def prime_period(stack: Stack, member: int, orbits: np.ndarray) -> int:
    """The prime period of cycles (k, rounds, N), in steps: after that many, all of them are back to the square root of the
    precision."""
    rounds, close = orbits.shape[1], np.finfo(orbits.dtype).eps ** 0.5
    for q in range(1, rounds):
        if rounds % q == 0:
            step = orbits[:, q] - orbits[:, 0]
            step = step - stack.wound(member, np.append(step, np.zeros((len(step), 1), step.dtype), axis=1))[:, :-1]
            if (np.abs(step) <= close * (1 + np.abs(orbits[:, 0]))).all():
                return q
    return rounds


def multiplier_at(stack: Stack, member: int, z: np.ndarray, vector: np.ndarray) -> tuple[int, complex]:
    """The prime period of the cycle through a point z (N + 1,), and the multiplier of that many steps for an eigenvector
    (N,) of them, which may be complex. If all the steps are one period, it is not computed, and is 1."""
    parts = np.stack([vector.real, vector.imag]).astype(z.dtype)
    orbits, moved = _pushes(stack, [member], z[None], parts[None])
    period = prime_period(stack, member, orbits)
    if period == orbits.shape[1]:
        return period, 1 + 0j
    after = moved[0, 0, period] + 1j * moved[0, 1, period]
    return period, complex(vector.conj() @ after / (vector.conj() @ vector))
