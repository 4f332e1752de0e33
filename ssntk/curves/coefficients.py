"""Coefficients of normal forms at points of a curve, in the user's units of states and time.

Vectors are normalised as in `ssntk.bifurcation.events.derivatives`: |r| = 1 and l.r = 1. Time is not counted in steps: a
map's coefficients are those of its step.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.derivatives import second
from ssntk.bifurcation.events.located import AbstractLocatedEvent
from ssntk.compiled import Compiled, Held
from ssntk.curves.follow import Point
from ssntk.curves.system import System

# Points whose coefficients are computed in one call.
CHUNK = 64
# The orders of the expansion that gives the second Lyapunov coefficient, and the number of phases that resolve them.
ORDER, PHASES = 5, 16


def _coefficient(event: AbstractLocatedEvent, held: Held, z: Array, *arguments: Array) -> Array:
    """The coefficients of an event at z (n + 2,), from its frequency and complex vectors (n,)."""
    system: System = held.tree
    return event.coefficient(system.across(z), z[:-2], z[-2], *arguments)


def normalised(system: System, right: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n,) in sizes, with |r| = 1 in the user's units and l.r = 1."""
    right = right / np.linalg.norm(right * np.asarray(system.sizes, float))
    with np.errstate(all="ignore"):
        return right, left / (left @ right)


def vectors(point: Point) -> tuple[np.ndarray, np.ndarray]:
    """The null vectors (n,) of a point of a single eigenvalue, in sizes."""
    right, left = (np.asarray(part, float)[:-1, 0] for part in point.frame)
    return right, left


def inner_of(point: Point) -> np.ndarray:
    """H (2, 2) of the invariant subspace of a pair, in working units."""
    right, left = (np.asarray(part, float) for part in point.frame)
    return np.linalg.solve(left.T @ right, left.T @ np.asarray(point.matrix, float) @ right)


def pair_vectors(point: Point) -> tuple[np.ndarray, np.ndarray]:
    """The right and left eigenvectors (n,) of a pair for its eigenvalue in the upper half plane, in sizes."""
    values, inside = np.linalg.eig(inner_of(point))
    outside = np.linalg.inv(inside)
    at = int(np.argmax(values.imag))
    left = np.asarray(point.frame.left, float)
    left = left @ np.linalg.inv(left.T @ np.asarray(point.frame.right, float)).T
    return np.asarray(point.frame.right, float) @ inside[:, at], left @ outside[at]


def coefficients(
    event: AbstractLocatedEvent, held: Held, points: Sequence[Point], frequencies: Any, vectors: Sequence[Any]
) -> np.ndarray:
    """The coefficient (k,) of an event with one at each of k points: a saddle-node, a flip, a Hopf or a Neimark-Sacker
    point.

    `frequencies` (k,): in rad per unit time. `vectors`: pairs of right and left ones (n,), in sizes, of any length.
    """
    system: System = held.tree
    dtype, values = np.dtype(system.sizes.dtype), np.zeros(len(points))
    wide = np.result_type(dtype, np.complex64)
    for start in range(0, len(points), CHUNK):
        chunk = slice(start, min(start + CHUNK, len(points)))
        count = chunk.stop - start
        both = [normalised(system, *pair) for pair in vectors[chunk]]
        parts = [np.zeros((CHUNK, *np.shape(one)), kind) for one, kind in ((points[0].z, dtype), (0.0, dtype))]
        parts += [np.zeros((CHUNK, system.n), wide) for _ in range(2)]
        every = [point.z for point in points[chunk]], frequencies[chunk], *zip(*both, strict=True)
        for part, own in zip(parts, every, strict=True):
            part[:count] = own
        with np.errstate(all="ignore"):
            values[chunk] = np.asarray(_each(event)(held, np.int32(count), *parts))[:count]
    return values


def _coefficient_each(event: AbstractLocatedEvent, held: Held, count: Array, z: Array, *arguments: Array) -> Array:
    """The coefficients (m,) at the first `count` of m points, the others zero. One call for all takes less time than one for
    each, and their number does not change the compiled code."""

    def on(i: Array, found: Array) -> Array:
        return found.at[i].set(_coefficient(event, held, z[i], *(part[i] for part in arguments)))

    return jax.lax.fori_loop(0, count, on, jnp.zeros(len(z), z.dtype))


@functools.cache
def _each(event: AbstractLocatedEvent) -> Compiled:
    return Compiled(functools.partial(_coefficient_each, event), seldom=True)


def _naturally(held: Held, z: Array, right: Array, left: Array) -> Array:
    """The size of terms such as those of l.B(r, r), in working units."""
    system: System = held.tree
    n = system.n
    # Each state is changed by a different amount, so that symmetric terms do not cancel.
    sizes = (1 + jnp.abs(z)) * (1 + 0.3 * jnp.sin(jnp.arange(1.0, n + 3))).astype(z.dtype)
    along = sizes.at[n:].set(0)
    matrix, changed = jax.jvp(lambda z: system.linearised(z)[1][:, :n], (z,), (along,))
    return jnp.abs(left) @ (jnp.abs(matrix) + jnp.abs(changed)) @ jnp.abs(right)


_natural = Compiled(_naturally, seldom=True)


def rounding(held: Held, point: Point, vectors: Any) -> float:
    """The size below which l.B(r, r) or l.G is a rounding error, in working units of time."""
    right, left = (np.abs(part).astype(point.z.dtype) for part in normalised(held.tree, *vectors))
    size = np.linalg.norm(right)
    with np.errstate(all="ignore"):
        return float(np.finfo(point.z.dtype).eps ** 0.6 * _natural(held, point.z, right, left) * size)


def _seconds(held: Held, z: Array, one: Array, other: Array) -> tuple[Array, Array]:
    """B(q0, q0) and B(q0, q1), (n,) each, per unit time."""
    system: System = held.tree

    def field(y: Array) -> Array:
        return system.at(jnp.concatenate([y, z[-2:]])) / system.unit

    return second(field, z[:-2], one, one), second(field, z[:-2], one, other)


_second = Compiled(_seconds, seldom=True)


def bogdanov_takens(held: Held, point: Point) -> dict[str, float]:
    """a and b of dw0/dt = w1, dw1/dt = a w0^2 + b w0 w1, at a double zero (Kuznetsov, *Elements of Applied Bifurcation
    Theory*, section 8.4): A q0 = 0, A q1 = q0, p1 A = 0, p1.q1 = 1, and q0 is as long as p1. Both coefficients change their
    sign with q0, whose sign is not determined: a is taken positive. Nothing if a is zero: branches cross there."""
    system: System = held.tree
    inside = inner_of(point) / float(system.unit)
    _, _, rows = np.linalg.svd(inside)
    null = rows[-1]
    basis = np.stack([null, np.linalg.pinv(inside, rcond=1e-6) @ null], axis=1)
    right = np.asarray(point.frame.right, float) @ basis
    sizes, left = np.asarray(system.sizes, float), np.asarray(point.frame.left, float)
    left = left @ np.linalg.inv(left.T @ right).T
    factor = np.sqrt(np.linalg.norm(left[:, 1] / sizes) / np.linalg.norm(right[:, 0] * sizes))
    right, left = right * factor, left / factor
    parts = [np.asarray(right[:, i], point.z.dtype) for i in (0, 1)]
    alone, mixed = (np.asarray(part, float) for part in _second(held, point.z, *parts))
    a, b = left[:, 1] @ alone / 2, left[:, 0] @ alone + left[:, 1] @ mixed
    outer = np.abs(left[:, 1]).astype(point.z.dtype)
    terms = float(_natural(held, point.z, np.abs(parts[0]), outer)) * np.linalg.norm(right[:, 0]) / float(system.unit)
    if abs(a) <= np.finfo(point.z.dtype).eps ** 0.6 * terms:
        return {}
    return {"a": float(abs(a)), "b": float(np.copysign(1.0, a) * b)}


class _Manifold(NamedTuple):
    """The centre manifold of a pair, as terms `orders[j]` (PHASES, n) of the amplitude's powers: harmonics of the phase.
    `turns[k]` is the term r^(2 k) of the pair's growth and frequency."""

    field: Callable[[Array], Array]
    x: Array
    frequency: Array
    right: Array
    left: Array
    orders: dict[int, Array]
    turns: dict[int, Array]

    def forced(self, order: int) -> Array:
        """The terms of f of this order, as harmonics (PHASES, n), from the lower orders."""
        known = jnp.stack([_values(self.orders[j]) for j in range(1, order)], axis=1)

        def one(terms: Array) -> Array:
            def derivative(r: Array) -> Array:
                y = jnp.zeros_like(terms[0])
                for term in terms[::-1]:
                    y = r * (term + y)
                return self.field(self.x + y)

            for _ in range(order):
                derivative = jax.jacfwd(derivative)
            return derivative(jnp.zeros((), self.x.dtype)) / math.factorial(order)

        values = jax.vmap(one)(known)
        return jnp.fft.fft(values.astype(self.right.dtype), axis=0) / PHASES

    def carried(self, order: int, m: int, harmonic: int) -> Array:
        """The change (n,) of lower orders while amplitude and phase move at other rates than those of the linear part."""
        total = jnp.zeros_like(self.right)
        for k, turn in self.turns.items():
            if order > 2 * k:
                speed = jax.lax.complex((order - 2 * k) * turn.real, harmonic * turn.imag)
                total = total + speed * self.orders[order - 2 * k][m]
        return total

    def solved(self, matrix: Array, harmonic: int, side: Array) -> Array:
        """The harmonic (n,) of the manifold; its part along the pair itself is zero."""
        n, dtype = len(side), side.dtype
        turning = jax.lax.complex(jnp.zeros_like(self.frequency), harmonic * self.frequency)
        shifted = matrix.astype(dtype) - turning * jnp.eye(n, dtype=dtype)
        if abs(harmonic) != 1:
            return jnp.linalg.solve(shifted, side)
        right, left = (self.right, self.left) if harmonic == 1 else (self.right.conj(), self.left.conj())
        whole = jnp.block([[shifted, right[:, None]], [left[None], jnp.zeros((1, 1), dtype)]])
        return jnp.linalg.solve(whole, jnp.append(side, jnp.zeros((), dtype)))[:n]


def _expanded(held: Held, z: Array, frequency: Array, right: Array, left: Array) -> Array:
    """The first and the second Lyapunov coefficient: l1 and l2 of dr/dt = omega (l1 r^3 + l2 r^5).

    The centre manifold is expanded in the amplitude r at several phases: the states are the sum of `r^j X_j(phase)`. So the
    terms of f of each order are derivatives along one real variable, and a Fourier transform over the phases separates the
    harmonics. Those of order j satisfy a linear equation each, in which the phase turns faster or slower as r grows.
    """
    system: System = held.tree

    def field(y: Array) -> Array:
        return system.at(jnp.concatenate([y, z[-2:]])) / system.unit

    matrix = jax.jacfwd(field)(z[:-2])
    first = jnp.zeros((PHASES, system.n), right.dtype).at[1].set(right).at[-1].set(right.conj())
    manifold = _Manifold(field, z[:-2], frequency, right, left, {1: first}, {})
    for order in range(2, ORDER + 1):
        forced = manifold.forced(order)
        if order % 2:
            manifold.turns[order // 2] = left @ forced[1]
        if order == ORDER:
            break
        rows = [jnp.zeros_like(right)] * PHASES
        for harmonic in range(-order, order + 1, 2):
            side = manifold.carried(order, harmonic, harmonic) - forced[harmonic]
            rows[harmonic] = manifold.solved(matrix, harmonic, side)
        manifold.orders[order] = jnp.stack(rows)
    return jnp.stack([manifold.turns[1].real, manifold.turns[2].real]) / frequency


def _values(harmonics: Array) -> Array:
    """The real function (PHASES, n) with these harmonics."""
    return jnp.fft.ifft(harmonics, axis=0).real * harmonics.shape[0]


_expansion = Compiled(_expanded, seldom=True)


def lyapunov(held: Held, point: Point, frequency: float) -> tuple[float, float]:
    """l1 and l2 at a Hopf point, of dr/dt = omega (l1 r^3 + l2 r^5)."""
    system: System = held.tree
    right, left = normalised(system, *pair_vectors(point))
    wide = np.result_type(point.z.dtype, np.complex64)
    l1, l2 = _expansion(held, point.z, np.asarray(frequency, point.z.dtype), right.astype(wide), left.astype(wide))
    return float(l1), float(l2)
