"""Locate a point while values are traced: under `grad`, `jvp`, `jit` and `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.located import AbstractLocatedEvent
from ssntk.bifurcation.events.system import constant, implicit
from ssntk.bifurcation.point import Bifurcation
from ssntk.errors import NumericalError, Outcome
from ssntk.nouns import AnyArray
from ssntk.zeros.equilibria import Equilibria


def differentiable(zeros: Equilibria, event: AbstractLocatedEvent, q: Array, y: Array) -> Bifurcation:
    """The point of an event near (y (n,), q), for [`locate`][]. Its numbers are traced, and NaN if nothing was found.

    The sizes of the states are one here, since no decision depends on them.
    """
    n, clock, dtype = y.shape[0], zeros.clock, y.dtype
    still = constant((zeros, q, y))

    def begin(y: AnyArray, q: AnyArray, jacobian: AnyArray) -> tuple[np.ndarray, np.ndarray]:
        try:
            if not np.isfinite(jacobian).all():
                raise NumericalError(Outcome.not_finite.say())
            return event.start(np.asarray(y), float(q), np.asarray(jacobian), clock)
        except NumericalError:
            return np.full(count, np.nan, dtype), np.full(n, np.nan, dtype)

    count = event.size(n)
    shapes = (jax.ShapeDtypeStruct((count,), dtype), jax.ShapeDtypeStruct((n,), dtype))
    jacobian = jax.jacfwd(lambda y: still[0].at(y, still[1]))(still[2])
    # JAX has nonsymmetric eigenvalues on the CPU only: compute them on the host.
    guess, border = jax.pure_callback(begin, shapes, still[2], still[1], jacobian, vmap_method="sequential")
    unknowns = implicit(event.equations, zeros, guess, border)
    smallest = jnp.finfo(dtype).eps ** 0.4 * jnp.abs(jacobian).sum(axis=1).max()
    unknowns = jnp.where(event.regular(unknowns, smallest, clock), unknowns, jnp.nan)
    y, q = unknowns[:n], unknowns[-1]
    (v, w), frequency, (grow, turn) = event.mode(unknowns, n, clock)
    size = jnp.sqrt(jnp.sum(v**2 + w**2))
    right = jax.lax.complex(v / size, w / size)
    jacobian = jax.jacfwd(lambda y: zeros.at(y, q))(y)
    identity = jnp.eye(n, dtype=dtype)
    shifted = jax.lax.complex(jacobian - grow * identity, -turn * identity)
    # left (A - s) = 0 with left.right = 1, bordered by the right vector itself.
    matrix = jnp.block([[shifted.T, right.conj()[:, None]], [right[None], jnp.zeros((1, 1), right.dtype)]])
    left = jnp.linalg.solve(matrix, jnp.zeros(n + 1, right.dtype).at[-1].set(1))[:n]
    p = zeros.parameter(q)
    return Bifurcation(
        kind=event.kind.name,
        parameter=p,
        x=y,
        frequency=frequency,
        right=right,
        left=left,
        coefficient=event.coefficient(zeros, y, q, frequency, right, left),
        criticality=None,
        residual=jnp.abs(event.equations(zeros, unknowns, border)).max(),
        interval=(p, p),
        converged=True,
        outputs=zeros.outputs(jnp.append(y, q)),
    )
