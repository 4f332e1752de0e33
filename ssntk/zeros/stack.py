"""Stacks of zeros of one kind. Compiled functions take a stack, and for each point the index of its member.

A single branch is a stack of one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.scaled import whole_periods
from ssntk.nouns import AnyArray, HostReal
from ssntk.zeros.base import AbstractZeros

# The largest number of points in one compiled call, and the largest number of entries in all their Jacobians.
CALL, NUMBERS = 32, 2**22


# The numbers of members (k,).
Members = Sequence[int] | np.ndarray
T = TypeVar("T")
H = TypeVar("H", float, np.floating, np.ndarray)


class Stack:
    """k zeros that differ in the values of their arrays only.

    - `members`: the zeros. `held`: all of them as one, each array with a leading axis of length k.
    - `n`: N, the number of unknowns. `clock`: that of all members.
    - `p0`, `p1` (k,) and `scale` (k, N), the sizes of the unknowns, as numpy arrays.
    - `periods` (N,): the periods of unknowns that are angles, 0 for the others.

    Raises `ValueError` that names the first family that differs in more than values.
    """

    def __init__(self, members: Sequence[AbstractZeros], periods: np.ndarray | None = None):
        held = [Held.of(member) for member in members]
        leaves, structures = zip(*[jax.tree.flatten(one.arrays) for one in held], strict=True)
        for number in range(1, len(members)):
            shapes = [[(leaf.shape, leaf.dtype) for leaf in leaves[i]] for i in (0, number)]
            if structures[number] != structures[0] or shapes[0] != shapes[1] or held[number].rest != held[0].rest:
                raise ValueError(f"families[{number}] must be like families[0] in everything but the values of its arrays")
        stacks = [np.stack(values) for values in zip(*leaves, strict=True)]
        self.held = Held(jax.tree.unflatten(structures[0], jax.device_put(stacks)), held[0].rest)
        self.members = tuple(members)
        self.n, self.clock = members[0].size, members[0].clock
        self.p0, self.p1 = (np.array(list(ends)) for ends in zip(*[(p.p0, p.p1) for p in members], strict=True))
        self.scale = np.stack([np.asarray(one.units()) for one in members])
        self.periods = periods

    def wound(self, number: int, step: np.ndarray) -> np.ndarray:
        """The whole periods (..., n + 1) within a step, in units of z: two copies of one point may differ by these."""
        if self.periods is None:
            return np.zeros_like(step)
        return whole_periods(step, np.append(self.periods / self.scale[number], 0.0).astype(step.dtype))

    def parameter(self, number: int, q: H) -> H:
        """The parameter p of member `number` at this q."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return p0 + q * (p1 - p0)

    def fraction(self, number: int, parameter: H) -> H:
        """The fraction q of member `number` at this p."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return (parameter - p0) / (p1 - p0)

    def point(self, number: int, x: AnyArray, parameter: Any) -> np.ndarray:
        """The point z (N + 1,) of member `number` at a state x (N,) and a parameter, in the user's units."""
        return np.append(np.asarray(x) / self.scale[number], self.fraction(number, parameter))

    def step(self, number: int, dx: AnyArray, dp: HostReal) -> np.ndarray:
        """The step dz (N + 1,) of member `number` for a change dx (N,) of the state and dp of the parameter."""
        return np.append(np.asarray(dx) / self.scale[number], dp / float(self.p1[number] - self.p0[number]))


def pick(stacked: Held, at: Array) -> AbstractZeros:
    """The member with this index; for an array of indices, the members with a leading axis."""
    return Held(jax.tree.map(lambda leaf: leaf[at], stacked.arrays), stacked.rest).tree


def _loop(function: Callable[..., T], stacked: Held, members: Array, arguments: tuple[Array, ...], count: Array) -> T:
    """`function(member, *arguments)` at the first `count` points, and zeros after them. Another count reuses the code."""

    # Compile the function by itself, so that it is traced once for both its shapes and the loop.
    @jax.jit
    def one(stacked: Held, members: Array, arguments: tuple[Array, ...], i: Array) -> PyTree:
        return function(pick(stacked, members[i]), *[argument[i] for argument in arguments])

    def store(i: Array, out: T) -> T:
        return jax.tree.map(lambda kept, new: kept.at[i].set(new), out, one(stacked, members, arguments, i))

    shapes = jax.eval_shape(one, stacked, members, arguments, count)
    out = jax.tree.map(lambda leaf: jnp.zeros((members.shape[0], *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(jnp.zeros_like(count), count, store, out)


def each(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Make `function(member, *arguments)` work at many points, one after the other in one compiled call.

    The result takes `(stack, members (k,), *arguments (k, ...))` and returns the results of `function` as numpy arrays
    (k, ...).
    """
    run = Compiled(functools.partial(_loop, function), seldom=True)

    def call(stack: Stack, members: Members, *arguments: np.ndarray) -> PyTree:
        members, arguments = np.asarray(members), tuple(np.asarray(argument) for argument in arguments)
        room = int(np.clip(NUMBERS // stack.n**2, 1, CALL))
        parts = []
        for first in range(0, max(len(members), 1), room):
            chosen = [part[first : first + room] for part in (members, *arguments)]
            count = len(chosen[0])
            padded = [np.concatenate([part, np.zeros((room - count, *part.shape[1:]), part.dtype)]) for part in chosen]
            out = run(stack.held, padded[0], tuple(padded[1:]), np.asarray(count))
            parts.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], out))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    return call
