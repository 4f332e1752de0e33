"""What drives the critical mode: only what has power at the critical frequency is amplified at a bifurcation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ssntk.dynamics.probe import Probe, Sinusoid
from ssntk.dynamics.stability import eigenpair, sorted_eigenvalues, state_jacobian
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Positions, get, put


def critical_drive(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, x_star: Float[Array, " n"]
) -> Complex[np.ndarray, "B p"]:
    """l^T F at the critical frequency, for each input: what of theta the critical mode is driven along, and how strongly.

    F = df/dtheta, and l belongs to the rightmost eigenvalue of df/dx at `x_star`, a fixed point for zero input. A real one
    is driven by what is constant: `l^T F(x*, u_b)`. A pair is driven by a [`Sinusoid`][] at its frequency, to first order
    in the amplitude: the amplitude of `l^T F` along the response `(i w - A)^-1 (df/du) u`. Source: the master law,
    `J_c(t) = r int exp(lambda (t - s)) l^T F(s) ds` (Hazelden and Shea-Brown, arXiv:2605.12763).

    **Returns:** (B, p); NaN where the inputs are neither constant nor sinusoidal.
    """
    probe = probe.fit(model)
    jacobian = np.asarray(_jacobian(model, x_star))
    value, _, left = eigenpair(jacobian, sorted_eigenvalues(jacobian)[0])
    us, b = probe.us, probe.n_batch
    nothing = jnp.zeros((b, model.n_state)), jnp.zeros((b, model.n_input))
    if isinstance(us, Sinusoid):
        assert us.frequency is not None
        constant, frequency = nothing[1], float(us.frequency)
        by_input = np.asarray(_by_input(model, x_star))
        size = -1j * np.exp(1j * float(us.phase)) * np.asarray(us.amplitude)
        response = np.linalg.solve(1j * frequency * np.eye(model.n_state) - jacobian, by_input @ size.T).T
    elif us is not None and not callable(us) and us.ndim == 2:
        constant, size, response = us, *(np.asarray(part, complex) for part in reversed(nothing))
    else:
        return np.full((b, sum(leaf.size for leaf in get(model, at))), np.nan, complex)
    dtype = x_star.dtype
    if value.imag == 0:
        parts = _forcing(model, at, x_star, jnp.asarray(left, dtype), constant.astype(dtype))
        return np.asarray(parts, complex)
    moved = [
        [
            np.asarray(_moved_forcing(model, at, x_star, *(jnp.asarray(part, dtype) for part in (l_part, x_part, u_part))))
            for x_part, u_part in ((response.real, size.real), (response.imag, size.imag))
        ]
        for l_part in (left.real, left.imag)
    ]
    return moved[0][0] - moved[1][1] + 1j * (moved[0][1] + moved[1][0])


@eqx.filter_jit
def _jacobian(model: AbstractStateSpaceModel, x: Array) -> Array:
    return state_jacobian(model, x, jnp.zeros(model.n_input, x.dtype))


@eqx.filter_jit
def _by_input(model: AbstractStateSpaceModel, x: Array) -> Array:
    """df/du at zero input, (n, d)."""
    time = jnp.zeros((), x.dtype)
    return jax.jacfwd(lambda u: model.vector_field(time, x, u))(jnp.zeros(model.n_input, x.dtype))


def _pulled(model: AbstractStateSpaceModel, at: Positions, left: Array, x: Array, u: Array) -> Array:
    """left^T df/dtheta, (p,)."""
    time = jnp.zeros((), x.dtype)
    _, pull = jax.vjp(lambda theta: put(model, at, theta).vector_field(time, x, u), get(model, at))
    return jnp.concatenate([leaf.ravel() for leaf in pull(left)[0]])


@eqx.filter_jit
def _forcing(model: AbstractStateSpaceModel, at: Positions, x: Array, left: Array, us: Array) -> Array:
    """left^T F at x for every input, (B, p)."""
    return jax.vmap(lambda u: _pulled(model, at, left, x, u))(us)


@eqx.filter_jit
def _moved_forcing(model: AbstractStateSpaceModel, at: Positions, x: Array, left: Array, dx: Array, du: Array) -> Any:
    """The derivative of left^T F at x and zero input along (dx, du), each (B, .): (B, p)."""
    zero = jnp.zeros(model.n_input, x.dtype)

    def along(dx: Array, du: Array) -> Array:
        return jax.jvp(lambda x, u: _pulled(model, at, left, x, u), (x, zero), (dx, du))[1]

    return jax.vmap(along)(dx, du)
