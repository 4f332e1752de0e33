"""The bordered system of a branch: one compiled corrector that continuation, detection and sweeps share.

A point is z = (y, q): the states beside their typical sizes, x = scale y, and q = (p - p0) / (p1 - p0), which runs over the
span. Lengths along the branch are measured by `|dz|^2 = mean(dy^2) + dq^2`, so that a step means the same for any number
of units, any span, and whatever the states and the parameter are measured in.

Everything compiled takes a stack of problems and says of which one each point is: one branch is a stack of one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.bifurcation.family import Family
from ssntk.compiled import Compiled, Held
from ssntk.dynamics.scaled import whole_periods
from ssntk.dynamics.stability import field_at
from ssntk.models.clock import AbstractClock

# Points that one compiled call works through, at most, and the numbers in a Jacobian for each of them.
CALL, NUMBERS = 32, 2**22


class Problem(eqx.Module):
    """`f(scale y; p0 + q (p1 - p0)) / scale = 0` under the constant input `u` (d,).

    Conserved quantities leave df/dx singular everywhere. They are held by a term that pulls each back to its level: it
    changes nothing where they have it, since f does not change them. `weights` (c, n) are orthonormal, beside the sizes.
    """

    family: Family
    u: Float[Array, " d"]
    p0: Float[Array, ""]
    p1: Float[Array, ""]
    scale: Float[Array, " n"]
    weights: Float[Array, "c n"]
    level: Float[Array, " c"]
    pull: Float[Array, ""]

    @property
    def clock(self) -> AbstractClock:
        return self.family.clock

    def parameter(self, q: Any) -> Any:
        """p at this q."""
        return self.p0 + q * (self.p1 - self.p0)

    def at(self, y: Float[Array, " n"], q: Any) -> Float[Array, " n"]:
        """The velocity at a state and a part of the span, in sizes per unit time."""
        velocity = field_at(self.family(self.parameter(q)), self.scale * y, self.u) / self.scale
        if self.weights.shape[0] == 0:
            return velocity
        return velocity - self.pull * self.weights.T @ (self.weights @ y - self.level)

    def field(self, z: Float[Array, " n1"]) -> Float[Array, " n"]:
        """The velocity at a point of the branch."""
        return self.at(z[:-1], z[-1])


class Stack:
    """Problems that differ in the values of their arrays alone.

    `held`: theirs as one, each array with a leading axis; `n`: units; `clock`: how their time runs; `p0`, `p1` (k,), `scale`
    (k, n), `weights` (k, c, n) and `pull` (k,) on the host. `periods` (n,): of states that are angles, zero for the others.
    Raises `ValueError` naming the first family that differs in more.
    """

    def __init__(self, problems: Sequence[Problem], periods: np.ndarray | None = None):
        held = [Held.of(problem) for problem in problems]
        leaves, structures = zip(*[jax.tree.flatten(one.arrays) for one in held], strict=True)
        for number in range(1, len(problems)):
            shapes = [[(leaf.shape, leaf.dtype) for leaf in leaves[i]] for i in (0, number)]
            if structures[number] != structures[0] or shapes[0] != shapes[1] or held[number].rest != held[0].rest:
                raise ValueError(f"families[{number}] must be like families[0] in everything but the values of its arrays")
        stacks = [np.stack(values) for values in zip(*leaves, strict=True)]
        self.held = Held(jax.tree.unflatten(structures[0], jax.device_put(stacks)), held[0].rest)
        self.problems = tuple(problems)
        self.n, self.clock = problems[0].family.model.n_state, problems[0].clock
        self.p0, self.p1 = (np.array(list(ends)) for ends in zip(*[(p.p0, p.p1) for p in problems], strict=True))
        self.scale, self.weights, self.pull = (
            np.stack([np.asarray(getattr(p, name)) for p in problems]) for name in ("scale", "weights", "pull")
        )
        self.periods = periods

    def wound(self, number: int, step: np.ndarray) -> np.ndarray:
        """The whole periods that a step (..., n + 1) holds, in z: what two points that are one may differ by."""
        if self.periods is None:
            return np.zeros_like(step)
        return whole_periods(step, np.append(self.periods / self.scale[number], 0.0).astype(step.dtype))

    def parameter(self, number: int, q: Any) -> Any:
        """p of one problem at this q."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return p0 + q * (p1 - p0)

    def fraction(self, number: int, parameter: Any) -> Any:
        """q of one problem at this p."""
        p0, p1 = float(self.p0[number]), float(self.p1[number])
        return (parameter - p0) / (p1 - p0)

    def point(self, number: int, x: Any, parameter: Any) -> np.ndarray:
        """z of one problem at this state and parameter."""
        return np.append(np.asarray(x) / self.scale[number], self.fraction(number, parameter))

    def step(self, number: int, dx: Any, dp: Any) -> np.ndarray:
        """dz of one problem for a change of the state and of the parameter."""
        return np.append(np.asarray(dx) / self.scale[number], dp / float(self.p1[number] - self.p0[number]))


def pick(stacked: Held, at: Any) -> Problem:
    """A problem of a stack, or for an array of indices problems with a leading axis."""
    return Held(jax.tree.map(lambda leaf: leaf[at], stacked.arrays), stacked.rest).tree


def _loop(function: Callable[..., Any], stacked: Held, members: Array, arguments: tuple[Array, ...], count: Array) -> Any:
    """`function(problem, *arguments)` at the first `count` points, and zeros beyond: other numbers compile nothing."""

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
    """`function(problem, *arguments)` at many points in one compiled call, one after the other.

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


class Corrected(NamedTuple):
    """A point on the branch and what was learned on the way, traced or as numpy arrays with a leading axis."""

    z: Any  # (n + 1,)
    tangent: Any  # (n + 1,), unit in the metric, along the border it was given
    jacobian: Any  # (n, n + 1), of f at z: A beside df/dq
    turn: Any  # sign of the bordered determinant, oriented by the tangent: flips at a branch point, not at a fold
    correction: Any  # size of the last Newton correction, in the metric
    iterations: Any
    converged: Any


def metric(n: int, dtype: Any) -> Array:
    """The diagonal (n + 1,) of the inner product of points."""
    return jnp.concatenate([jnp.full(n, 1 / n, dtype), jnp.ones(1, dtype)])


def correct(problem: Problem, guess: Array, border: Array, limit: int = 8, weight: Array | None = None) -> Corrected:
    """Newton's iteration on f(z) = 0 with <border, z - guess> = 0, at most `limit` corrections.

    `weight`: the diagonal (n + 1,) of another inner product, in which lengths are then measured.
    """
    n = guess.shape[0] - 1
    weight = metric(n, guess.dtype) if weight is None else weight
    eps = jnp.finfo(guess.dtype).eps
    last = jnp.zeros(n + 1, guess.dtype).at[-1].set(1)

    def bordered(z: Array) -> tuple[Array, Array, Array]:
        jacobian = jax.jacfwd(problem.field)(z)
        # Each row beside its own terms: fast and slow states weigh alike in the choice of pivots.
        rows = jnp.abs(jacobian).sum(axis=1)
        rows = jnp.where(rows > 0, rows, 1)
        along = weight * border
        return jacobian, jnp.concatenate([jacobian / rows[:, None], (along / jnp.abs(along).max())[None]]), rows

    def size(step: Array, z: Array) -> Array:
        return jnp.sqrt(jnp.sum(weight * step**2)) / (1 + jnp.sqrt(jnp.sum(weight * z**2)))

    def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, _, count = state
        _, matrix, rows = bordered(z)
        along = weight * border
        off = jnp.concatenate([problem.field(z) / rows, (jnp.sum(along * (z - guess)) / jnp.abs(along).max())[None]])
        step = jnp.linalg.solve(matrix, -off)
        return z + step, size(step, z), count + 1

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        z, correction, count = state
        # A correction of 1e-6 leaves, by quadratic convergence, an error near rounding.
        return (correction > eps**0.4) & (count < limit) & jnp.isfinite(z).all()

    start = (guess, jnp.asarray(jnp.inf, guess.dtype), jnp.asarray(0))
    z, _, count = jax.lax.while_loop(unfinished, improve, start)
    # One more correction shares its factorisation with the tangent.
    jacobian, matrix, rows = bordered(z)
    off = jnp.concatenate([problem.field(z) / rows, jnp.zeros(1, z.dtype)])
    factors, pivots = jax.scipy.linalg.lu_factor(matrix)
    both = jax.scipy.linalg.lu_solve((factors, pivots), jnp.stack([-off, last], axis=1))
    step, tangent = both[:, 0], both[:, 1]
    tangent = tangent / jnp.sqrt(jnp.sum(weight * tangent**2))
    swaps = jnp.sum(pivots != jnp.arange(n + 1, dtype=pivots.dtype))
    turn = jnp.prod(jnp.sign(jnp.diagonal(factors))) * jnp.where(swaps % 2 == 0, 1, -1)
    correction = size(step, z)
    z = z + step
    # A small correction is no proof where the state itself is small: what is left of f must be too, row by row.
    left, terms = problem.field(z), jnp.abs(jacobian[:, :-1]) @ (1 + jnp.abs(z[:-1])) + jnp.abs(jacobian[:, -1])
    solved = jnp.all(jnp.abs(left) <= eps**0.5 * terms)
    good = jnp.isfinite(z).all() & jnp.isfinite(tangent).all() & (correction <= eps**0.4) & solved
    return Corrected(z, tangent, jacobian, turn, correction, count, good)


corrected = each(correct)


def corrected_at(stack: Stack, members: Any, y: Any, q: Any) -> Corrected:
    """The equilibria near `y` (k, n) at exactly these q (k,), as numpy arrays."""
    guess = np.concatenate([y, np.asarray(q, np.asarray(y).dtype)[:, None]], axis=1)
    border = np.zeros_like(guess)
    border[:, -1] = 1
    return corrected(stack, members, guess, border)


def inner(a: np.ndarray, b: np.ndarray) -> Any:
    """The inner products (...) of steps (..., n + 1)."""
    return np.mean(a[..., :-1] * b[..., :-1], axis=-1) + a[..., -1] * b[..., -1]


def length(step: np.ndarray) -> Any:
    """The lengths (...) of steps (..., n + 1) in the metric."""
    return np.sqrt(inner(step, step))


def interpolate(
    z0: np.ndarray, tangent0: np.ndarray, z1: np.ndarray, tangent1: np.ndarray, part: float
) -> tuple[np.ndarray, np.ndarray]:
    """The cubic Hermite interpolant between points (..., n + 1) of a branch at the part `part`, and its unit direction."""
    chord, gap = z1 - z0, length(z1 - z0)[..., None]
    start, end = tangent0 * gap, tangent1 * gap
    square, cube = 3 * chord - 2 * start - end, start + end - 2 * chord
    direction = start + part * (2 * square + part * 3 * cube)
    return z0 + part * (start + part * (square + part * cube)), direction / length(direction)[..., None]
