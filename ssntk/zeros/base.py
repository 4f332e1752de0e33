"""The zeros of a system of equations over one parameter: the interface of everything that continuation can follow."""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.models.clock import AbstractClock
from ssntk.nouns import DType, Real

# One point (N + 1,) of a branch, or several (..., N + 1).
Points = Float[np.ndarray, "*batch N1"]


class AbstractZeros(eqx.Module):
    """The solutions of `F(y; q) = 0`, in N unknowns y and the parameter q, which is 0 at p0 and 1 at p1.

    A point is z = (y, q), (N + 1,). Unknowns are measured in their typical sizes, so that all numbers here have no units.
    Lengths along a branch are those of [`metric`][]. Zeros that are followed together may differ in the values of their
    arrays only.

    A subclass defines `size`, `clock`, `units`, `at` and `outputs`. If its system has structure, it may override
    `linearised` and `solve`. If the eigenvalues of the Jacobian do not decide stability, it overrides `stability`.
    """

    if TYPE_CHECKING:
        # Declared as properties: type checkers would take variables for arguments of every subclass's `__init__`.
        @property
        def p0(self) -> Array: ...
        @property
        def p1(self) -> Array: ...
    else:
        p0: eqx.AbstractVar[Float[Array, ""]]
        p1: eqx.AbstractVar[Float[Array, ""]]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """N, the number of unknowns."""

    @property
    def modes(self) -> int:
        """n, the number of eigenvalues of `stability`."""
        return self.size

    @property
    @abc.abstractmethod
    def clock(self) -> AbstractClock:
        """The clock, which turns the eigenvalues of `stability` into growth exponents."""

    @abc.abstractmethod
    def units(self) -> Float[Array, " N"]:
        """The typical sizes (N,) of the unknowns, in the user's units."""

    @abc.abstractmethod
    def at(self, y: Float[Array, " N"], q: Float[Array, ""]) -> Float[Array, " N"]:
        """F (N,) at the unknowns y (N,) and the fraction q of the span."""

    @property
    def rounds(self) -> int:
        """How many equal steps F is made of, as for a map that is iterated: 1 for anything else."""
        return 1

    def orbit(self, z: Float[Array, " N1"]) -> Float[Array, "rounds N"]:
        """The unknowns (rounds, N) at the beginning of each of these steps, from those at a point z (N + 1,) on."""
        return z[None, :-1]

    @property
    def reads_itself(self) -> bool:
        """Whether the readout returns the states unchanged."""
        return False

    @abc.abstractmethod
    def outputs(self, z: Float[Array, " N1"]) -> Float[Array, " m"]:
        """The readout (m,) of the model at a point z (N + 1,)."""

    def parameter(self, q: Real) -> Array:
        """The parameter p at the fraction q of the span."""
        return self.p0 + q * (self.p1 - self.p0)

    def residual(self, z: Float[Array, " N1"]) -> Float[Array, " N"]:
        """F (N,) at a point z (N + 1,)."""
        return self.at(z[:-1], z[-1])

    def linearised(self, z: Float[Array, " N1"]) -> tuple[Float[Array, " N"], Float[Array, "N N1"]]:
        """F (N,) and dF/dz (N, N + 1) at a point z (N + 1,)."""

        def both(z: Array) -> tuple[Array, Array]:
            residual = self.residual(z)
            return residual, residual

        # One trace of F gives both.
        jacobian, residual = jax.jacfwd(both, has_aux=True)(z)
        return residual, jacobian

    def jacobian(self, z: Float[Array, " N1"]) -> Float[Array, "N N1"]:
        """dF/dz (N, N + 1) at a point z (N + 1,)."""
        return self.linearised(z)[1]

    def stability(self, z: Float[Array, " N1"], jacobian: Float[Array, "N N1"]) -> Float[Array, "n n"]:
        """The matrix (n, n) whose eigenvalues decide, by `clock`, whether the solution at z is stable."""
        del z
        return jacobian[:, :-1]

    def solve(
        self, jacobian: Float[Array, "N N1"], border: Float[Array, " N1"], right: Float[Array, "N1 k"]
    ) -> tuple[Float[Array, "N1 k"], Float[Array, ""]]:
        """Solve the bordered system, `jacobian` with the further row `border`: the solutions (N + 1, k) for `right`, and the
        sign of its determinant."""
        # Scale each row by its terms, so that fast and slow states weigh equally in the choice of pivots.
        rows = jnp.abs(jacobian).sum(axis=1)
        rows = jnp.append(jnp.where(rows > 0, rows, 1), jnp.abs(border).max())
        factors, pivots = jax.scipy.linalg.lu_factor(jnp.concatenate([jacobian, border[None]]) / rows[:, None])
        swaps = jnp.sum(pivots != jnp.arange(rows.shape[0], dtype=pivots.dtype))
        sign = jnp.prod(jnp.sign(jnp.diagonal(factors))) * jnp.where(swaps % 2 == 0, 1, -1)
        return jax.scipy.linalg.lu_solve((factors, pivots), right / rows[:, None]), sign


def metric(size: int, dtype: DType) -> Float[Array, " N1"]:
    """The diagonal (N + 1,) of the inner product of steps: `|dz|^2 = mean(dy^2) + dq^2`, whatever the number of unknowns."""
    return jnp.concatenate([jnp.full(size, 1 / size, dtype), jnp.ones(1, dtype)])
