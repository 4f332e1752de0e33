"""The cycles of a map to which fixed points of its iterates belong."""

import jax
import numpy as np
from jaxtyping import Array

from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.stack import Stack, each


def _orbit(zeros: AbstractZeros, z: Array) -> Array:
    """The points (rounds, N) of a cycle."""
    return zeros.orbit(z)


def _pushed(zeros: AbstractZeros, z: Array, direction: Array) -> tuple[Array, Array]:
    """The points (rounds, N) of a cycle, and where a step (N,) of the first one moves each."""
    return jax.jvp(zeros.orbit, (z,), (jax.numpy.append(direction, jax.numpy.zeros_like(z[-1])),))


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


def multiplier_at(stack: Stack, member: int, z: np.ndarray, direction: np.ndarray) -> tuple[int, float]:
    """The prime period of the cycle through a point z (N + 1,), and the multiplier of that many steps for an eigenvector
    (N,) of them."""
    orbits, moved = _pushes(stack, [member], z[None], direction[None].astype(z.dtype))
    period = prime_period(stack, member, orbits)
    after = moved[0, period] if period < orbits.shape[1] else direction
    return period, float(direction @ after / (direction @ direction))
