"""What is followed: the zeros of a system over one parameter."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.models.clock import AbstractClock

# Points (N + 1,) of a branch, of shape (..., N + 1) where there are several.
Points = Float[np.ndarray, "*batch N1"]


class AbstractZeros(eqx.Module):
    """`F(y; q) = 0` in N unknowns y and the parameter q, which runs from 0 at p0 to 1 at p1. A point is z = (y, q).

    Unknowns are measured in their own typical sizes, so that all numbers here are free of units. Lengths along a branch are
    those of [`metric`][]. Only the values of arrays may differ between zeros that are followed together.

    A subclass gives `size`, `clock`, `units`, `at` and `outputs`. It may give more if its system has structure: its own
    `jacobian` and `solve`, and the `stability` of its solutions if that is not read off the Jacobian.
    """

    if TYPE_CHECKING:
        # Type checkers would take the abstract variables for arguments of every subclass's `__init__`.
        @property
        def p0(self) -> Any: ...
        @property
        def p1(self) -> Any: ...
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
        """What the eigenvalues of `stability` say of growth."""

    @abc.abstractmethod
    def units(self) -> Float[Array, " N"]:
        """The typical sizes (N,) of the unknowns, in the user's units."""

    @abc.abstractmethod
    def at(self, y: Float[Array, " N"], q: Float[Array, ""]) -> Float[Array, " N"]:
        """F (N,) at unknowns and a part of the span."""

    @property
    def reads_itself(self) -> bool:
        """Whether the readout hands on the unknowns as they are."""
        return False

    @abc.abstractmethod
    def outputs(self, z: Float[Array, " N1"]) -> Float[Array, " m"]:
        """The readout (m,) of the model at a point."""

    def parameter(self, q: Any) -> Any:
        """p at this q."""
        return self.p0 + q * (self.p1 - self.p0)

    def residual(self, z: Float[Array, " N1"]) -> Float[Array, " N"]:
        """F (N,) at a point."""
        return self.at(z[:-1], z[-1])

    def jacobian(self, z: Float[Array, " N1"]) -> Float[Array, "N N1"]:
        """dF/dz (N, N + 1)."""
        return jax.jacfwd(self.residual)(z)

    def stability(self, z: Float[Array, " N1"], jacobian: Float[Array, "N N1"]) -> Float[Array, "n n"]:
        """The matrix whose eigenvalues tell whether the solution at z is stable, in the sense of `clock`."""
        del z
        return jacobian[:, :-1]

    def solve(
        self, jacobian: Float[Array, "N N1"], border: Float[Array, " N1"], right: Float[Array, "N1 k"]
    ) -> tuple[Float[Array, "N1 k"], Float[Array, ""]]:
        """The solutions (N + 1, k) of the system of `jacobian` and one more row, `border`; and its determinant's sign."""
        # Each row beside its own terms: fast and slow states weigh alike in the choice of pivots.
        rows = jnp.abs(jacobian).sum(axis=1)
        rows = jnp.append(jnp.where(rows > 0, rows, 1), jnp.abs(border).max())
        factors, pivots = jax.scipy.linalg.lu_factor(jnp.concatenate([jacobian, border[None]]) / rows[:, None])
        swaps = jnp.sum(pivots != jnp.arange(rows.shape[0], dtype=pivots.dtype))
        sign = jnp.prod(jnp.sign(jnp.diagonal(factors))) * jnp.where(swaps % 2 == 0, 1, -1)
        return jax.scipy.linalg.lu_solve((factors, pivots), right / rows[:, None]), sign


def metric(size: int, dtype: Any) -> Float[Array, " N1"]:
    """The diagonal (N + 1,) of the inner product of steps: `|dz|^2 = mean(dy^2) + dq^2` for any number of unknowns."""
    return jnp.concatenate([jnp.full(size, 1 / size, dtype), jnp.ones(1, dtype)])
