"""Conditions on the critical eigenvalues of a matrix A (n, n), as smooth functions of A with their derivatives.

A condition keeps right and left vectors. These follow A by cheap corrections with known factors. Values are formed from both
sides, so that an error of the vectors changes a value by its square only. The derivative of a value over A needs no
derivative of the vectors.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Product = Callable[[Array], Array]
# df/dq (n,) along the parameters that leave the curve.
Push = Callable[[], Array]
Factors = tuple[Array, Array]


class Frame(NamedTuple):
    """Right and left vectors, (m, k) each. What they are depends on the condition."""

    right: Any
    left: Any


class AbstractMode(eqx.Module):
    """A condition. `step` is 1 for maps and 0 for flows, as all numbers here are in working units.

    `still`: vectors must stand still to eps to this power. By default values depend on the square of their errors.
    """

    still: ClassVar[float] = 0.3

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """The number of values."""

    @abc.abstractmethod
    def begun(self, matrix: Array, frame: Frame) -> tuple[Any, Frame]:
        """The factors of a matrix with which vectors are corrected, and the frame in its normal position."""

    @abc.abstractmethod
    def corrected(self, known: Any, push: Product, pull: Product, frame: Frame) -> Frame:
        """The frame after one correction; `push(V)` is A V, and `pull(W)` its transpose times W. Corrections shrink if the
        matrix is near that of the factors."""

    @abc.abstractmethod
    def values(self, known: Any, frame: Frame, push: Product, step: float, leave: Push) -> Float[Array, " c"]:
        """The values, all zero if the condition is met."""

    def slack(self, frame: Frame) -> Float[Array, "n s"] | None:
        """Directions in which the velocity is left free, so that the equations are regular; `None` if there are none. It is
        zero all the same on a curve that persists."""
        return None

    def vectors(self, frame: Frame) -> tuple[Any, Any]:
        """The right and the left vectors, (n, k) each."""
        return frame.right, frame.left

    @abc.abstractmethod
    def turned(self, frame: Frame, push: Product) -> Float[Array, ""]:
        """A number that is zero where a second eigenvalue joins a single one; of a pair, det H."""

    @abc.abstractmethod
    def start(self, right: np.ndarray, left: np.ndarray) -> Frame:
        """The frame of critical right and left vectors, (n, k) each, on the host."""


class Single(AbstractMode):
    """A real eigenvalue of A equals `shift`.

    With borders b and c, `(A - shift) v + h b = 0` and `c.v = 1` define h, which is zero then (Govaerts, *Numerical Methods
    for Bifurcations of Dynamical Equilibria*, 2000, chapter 3). This is regular as well if a second eigenvalue equals
    `shift`, as at a Bogdanov-Takens point. Frames are (n + 1, 1): (v, h), and likewise from the left.
    """

    shift: float = eqx.field(static=True)

    @property
    def count(self) -> int:
        return 1

    def begun(self, matrix: Array, frame: Frame) -> tuple[Any, Frame]:
        right, left = (part[:-1, 0] / jnp.linalg.norm(part[:-1, 0]) for part in frame)
        shifted = matrix - self.shift * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        known = factored(_bordered(shifted, left[:, None], right[:, None])), right, left
        nothing = jnp.zeros(1, matrix.dtype)
        return known, Frame(*(jnp.concatenate([part, nothing])[:, None] for part in (right, left)))

    def corrected(self, known: Any, push: Product, pull: Product, frame: Frame) -> Frame:
        factors, right, left = known
        off = self._off(push, frame.right, left, right), self._off(pull, frame.left, right, left)
        moves = (solved(factors, part, transposed)[:, None] for part, transposed in zip(off, (False, True), strict=True))
        return Frame(*(part - move for part, move in zip(frame, moves, strict=True)))

    def _off(self, product: Product, vector: Array, column: Array, row: Array) -> Array:
        """The residual of the bordered equations."""
        inner, level = vector[:-1], vector[-1, 0]
        top = (product(inner) - self.shift * inner)[:, 0] + level * column
        return jnp.append(top, row @ inner[:, 0] - 1)

    def values(self, known: Any, frame: Frame, push: Product, step: float, leave: Push) -> Float[Array, " c"]:
        _, right, left = known
        off = self._off(push, frame.right, left, right)
        # The second term removes the first-order effect of errors of both vectors.
        return frame.right[-1] - frame.left.T[0] @ off

    def vectors(self, frame: Frame) -> tuple[Any, Any]:
        return frame.right[:-1], frame.left[:-1]

    def turned(self, frame: Frame, push: Product) -> Float[Array, ""]:
        right, left = frame.right[:-1, 0], frame.left[:-1, 0]
        return right @ left / (jnp.linalg.norm(right) * jnp.linalg.norm(left))

    def start(self, right: np.ndarray, left: np.ndarray) -> Frame:
        nothing = np.zeros((1, 1))
        return Frame(*(np.concatenate([part, nothing]) for part in (right, left)))


class Crossing(Single):
    """Two branches cross: a real eigenvalue of A equals `shift`, and `l.df/dq` is zero with its left vector l.

    Generically the branches come apart if a second parameter changes. Where a symmetry, or a state that stays an
    equilibrium, keeps them together, there is one equation too many, for which the velocity is left free along l.
    """

    still: ClassVar[float] = 0.75

    @property
    def count(self) -> int:
        return 2

    def values(self, known: Any, frame: Frame, push: Product, step: float, leave: Push) -> Float[Array, " c"]:
        left = self.slack(frame)[:, 0]
        return jnp.append(super().values(known, frame, push, step, leave), left @ leave())

    def slack(self, frame: Frame) -> Float[Array, "n s"]:
        left = frame.left[:-1]
        return left / jnp.linalg.norm(left)


class Pair(AbstractMode):
    """The sum of two eigenvalues of a flow is zero, or the product of two multipliers of a map is one. `turn` asks for one
    more condition: that det H has this value.

    The two-dimensional invariant subspaces are followed, `A V = V H` and `W^T A = H W^T` with `W^T V = 1`. So the condition
    is regular as well where the two eigenvalues meet. Then det H is the square of the frequency of a flow, and
    `2 - 2 cos` of the angle of a map; if it is negative (or for maps above 4), the eigenvalues are real. Frames are (n, 2).
    """

    turn: float | None = eqx.field(static=True, default=None)

    @property
    def count(self) -> int:
        return 1 if self.turn is None else 2

    def begun(self, matrix: Array, frame: Frame) -> tuple[Any, Frame]:
        right, triangle = jnp.linalg.qr(frame.right)
        left = frame.left @ triangle.T
        left = left @ jnp.linalg.inv(left.T @ right).T
        frame = Frame(right, left)
        values, basis = _schur(left.T @ (matrix @ right))
        identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)

        def beside(value: Array) -> Factors:
            shifted = jax.lax.complex(matrix - value.real * identity, -value.imag * identity)
            return factored(_bordered(shifted, _complex(right), _complex(left)))

        first = beside(values[0, 0])
        # The second matrix is the conjugate of the first one, unless the pair is real.
        pair = values[0, 0].imag != 0
        second = jax.lax.cond(pair, lambda: (first[0].conj(), first[1]), lambda: beside(values[1, 1]))
        return (first, second, values, basis), frame

    def corrected(self, known: Any, push: Product, pull: Product, frame: Frame) -> Frame:
        first, second, values, basis = known
        right, left = frame
        left = left @ jnp.linalg.inv(left.T @ right).T
        moved = push(right)
        inner = left.T @ moved
        off = _complex(moved - right @ inner) @ basis
        one = _solved(first, off[:, 0])
        other = _solved(second, off[:, 1] + values[0, 1] * one)
        fresh = right - (jnp.stack([one, other], axis=1) @ basis.conj().T).real
        off = _complex(pull(left) - left @ inner.T) @ basis.conj()
        other = _solved(second, off[:, 1], True)
        one = _solved(first, off[:, 0] + values[0, 1] * other, True)
        return Frame(fresh, left - (jnp.stack([one, other], axis=1) @ basis.T).real)

    def values(self, known: Any, frame: Frame, push: Product, step: float, leave: Push) -> Float[Array, " c"]:
        inner = self.inner(frame, push)
        both = jnp.stack([jnp.trace(inner) + step * _determinant(inner), _determinant(inner)])
        return both[:1] if self.turn is None else both - jnp.asarray([0.0, self.turn], both.dtype)

    def inner(self, frame: Frame, push: Product) -> Float[Array, "2 2"]:
        """H, whose eigenvalues are the critical ones."""
        return jnp.linalg.solve(frame.left.T @ frame.right, frame.left.T @ push(frame.right))

    def turned(self, frame: Frame, push: Product) -> Float[Array, ""]:
        return _determinant(self.inner(frame, push))

    def start(self, right: np.ndarray, left: np.ndarray) -> Frame:
        return Frame(right, left)


def _bordered(matrix: Array, column: Array, row: Array) -> Array:
    corner = jnp.zeros((row.shape[1], column.shape[1]), matrix.dtype)
    return jnp.block([[matrix, column], [row.T, corner]])


def factored(matrix: Array) -> Factors:
    """The LU factors of a matrix, and the permutation of its rows."""
    factors, _, order = jax.lax.linalg.lu(matrix)
    return factors, order


def solved(known: Factors, right: Array, transposed: bool = False) -> Array:
    """The solution (n, ...) of a system. Unlike `lu_solve` it does not find the permutation anew, which takes half of its
    time."""
    factors, order = known
    if not transposed:
        inner = jax.scipy.linalg.solve_triangular(factors, right[order], lower=True, unit_diagonal=True)
        return jax.scipy.linalg.solve_triangular(factors, inner)
    inner = jax.scipy.linalg.solve_triangular(factors, right, trans=1)
    inner = jax.scipy.linalg.solve_triangular(factors, inner, lower=True, unit_diagonal=True, trans=1)
    return jnp.zeros_like(inner).at[order].set(inner)


def _solved(known: Factors, right: Array, transposed: bool = False) -> Array:
    """The vector (n,) of a bordered system whose last two equations have zeros at the right."""
    return solved(known, jnp.concatenate([right, jnp.zeros(2, right.dtype)]), transposed)[:-2]


def _determinant(matrix: Array) -> Array:
    return matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]


def _schur(matrix: Array) -> tuple[Array, Array]:
    """The complex Schur form T and its basis U of a real matrix (2, 2): the matrix is U T U*."""
    half = jnp.trace(matrix) / 2
    # The discriminant as a sum of few terms, so that a double eigenvalue is double.
    square = ((matrix[0, 0] - matrix[1, 1]) / 2) ** 2 + matrix[0, 1] * matrix[1, 0]
    root = jax.lax.complex(jnp.sqrt(jnp.maximum(square, 0)), jnp.sqrt(jnp.maximum(-square, 0)))
    value, other = _complex(half) + root, _complex(half) - root
    whole, identity = _complex(matrix), _complex(jnp.eye(2, dtype=matrix.dtype))
    # An eigenvector is orthogonal to the rows of the matrix minus its eigenvalue: take the larger row.
    shifted = whole - value * identity
    rows = jnp.abs(shifted).sum(axis=1)
    row = shifted[jnp.argmax(rows)]
    vector = jnp.where(rows.max() > 0, jnp.stack([-row[1], row[0]]), identity[0])
    vector = vector / _complex(jnp.sqrt(jnp.sum(jnp.abs(vector) ** 2)))
    basis = jnp.stack([vector, jnp.stack([-vector[1].conj(), vector[0].conj()])], axis=1)
    upper = basis.conj().T @ (whole @ basis)
    return jnp.stack([jnp.stack([value, upper[0, 1]]), jnp.stack([jnp.zeros_like(value), other])]), basis


def _complex(array: Array) -> Array:
    return jax.lax.complex(array, jnp.zeros_like(array))


def subspace(matrix: np.ndarray, value: complex, count: int) -> Frame:
    """Right and left vectors, (n, k) each: of the eigenvalue nearest to `value`, or of the invariant subspace of two, which
    are a pair, or the two real ones nearest to `value`."""
    spaces = []
    for one in (matrix, matrix.T):
        values, vectors = np.linalg.eig(np.asarray(one, float))
        order = np.argsort(np.abs(values - value))
        chosen = vectors[:, order[0]]
        if count == 1:
            spaces.append(chosen.real[:, None])
        elif values[order[0]].imag != 0:
            spaces.append(np.stack([chosen.real, chosen.imag], axis=1))
        else:
            spaces.append(vectors[:, order[:2]].real)
    return Frame(*spaces)
