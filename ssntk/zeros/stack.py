"""Zeros of one kind together: everything compiled takes a stack and says of which member each point is.

One branch is a stack of one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.scaled import whole_periods
from ssntk.zeros.base import AbstractZeros

# Points that one compiled call works through, at most, and the numbers in a Jacobian for each of them.
CALL, NUMBERS = 32, 2**22


class Stack:
    """Zeros that differ in the values of their arrays alone.

    `members`: the zeros, and `held`: they as one, each array with a leading axis. `n`: N; `clock`: theirs; `p0`, `p1` (k,)
    and `scale` (k, N), the sizes of the unknowns, on the host. `periods` (N,): of unknowns that are angles, zero for others.
    Raises `ValueError` naming the first family that differs in more.
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
        """The whole periods that a step (..., n + 1) holds, in z: what two points that are one may differ by."""
        if self.periods is None:
            return np.zeros_like(step)
        return whole_periods(step, np.append(self.periods / self.scale[number], 0.0).astype(step.dtype))

    def parameter(self, number: int, q: Any) -> Any:
        """p of one member at this q."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return p0 + q * (p1 - p0)

    def fraction(self, number: int, parameter: Any) -> Any:
        """q of one member at this p."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return (parameter - p0) / (p1 - p0)

    def point(self, number: int, x: Any, parameter: Any) -> np.ndarray:
        """z of one member at this state and parameter."""
        return np.append(np.asarray(x) / self.scale[number], self.fraction(number, parameter))

    def step(self, number: int, dx: Any, dp: Any) -> np.ndarray:
        """dz of one member for a change of the state and of the parameter."""
        return np.append(np.asarray(dx) / self.scale[number], dp / float(self.p1[number] - self.p0[number]))


def pick(stacked: Held, at: Any) -> AbstractZeros:
    """A member of a stack, or for an array of indices members with a leading axis."""
    return Held(jax.tree.map(lambda leaf: leaf[at], stacked.arrays), stacked.rest).tree


def _loop(function: Callable[..., Any], stacked: Held, members: Array, arguments: tuple[Array, ...], count: Array) -> Any:
    """`function(member, *arguments)` at the first `count` points, and zeros beyond: other numbers compile nothing."""

    # Compiled by itself, so that its shapes and the loop come of one tracing.
    @jax.jit
    def one(stacked: Held, members: Array, arguments: tuple[Array, ...], i: Array) -> Any:
        return function(pick(stacked, members[i]), *[argument[i] for argument in arguments])

    def store(i: Any, out: Any) -> Any:
        return jax.tree.map(lambda kept, new: kept.at[i].set(new), out, one(stacked, members, arguments, i))

    shapes = jax.eval_shape(one, stacked, members, arguments, count)
    out = jax.tree.map(lambda leaf: jnp.zeros((members.shape[0], *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(jnp.zeros_like(count), count, store, out)


def each(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(member, *arguments)` at many points in one compiled call, one after the other.

    The result takes `(stack, members (k,), *arguments (k, ...))`, and gives what `function` does as numpy arrays (k, ...).
    """
    run = Compiled(functools.partial(_loop, function), seldom=True)

    def call(stack: Stack, members: Any, *arguments: Any) -> Any:
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
