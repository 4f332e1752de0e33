"""The kernel of a fixed point: how its position answers to the parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.fixed_points import check_fixed_point
from ssntk.errors import NumericalError, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.theta import Positions, get, put, theta_positions


def steady_state_jacobian(
    model: AbstractStateSpaceModel, x_star: Any, *, u: Any = None, wrt: Callable[[Any], PyTree] | None = None
) -> Float[Array, "n p"]:
    """dx*/dtheta = -A^-1 F at a fixed point, (n, p), by the implicit function theorem.

    Arguments and errors as in [`steady_state_ntk`][].
    """
    check_model(model)
    at = theta_positions(model, "state", wrt)
    x, u = check_fixed_point(model, x_star, u)
    return _response(model, at, x, u)


def steady_state_ntk(
    model: AbstractStateSpaceModel, x_star: Any, *, u: Any = None, wrt: Callable[[Any], PyTree] | None = None
) -> Float[Array, "n n"]:
    """K* = A^-1 F F^T A^-T (n, n), with A = df/dx and F = df/dtheta at the fixed point `x_star`.

    **Arguments:** `x_star`: (n,). `u`: (d,) constant input, default zero. `wrt`: a lens, default `model.trainable("state")`.

    Raises `NumericalError` where `x_star` is not a fixed point, or A is singular to rounding.
    """
    response = steady_state_jacobian(model, x_star, u=u, wrt=wrt)
    return response @ response.T


def _response(model: AbstractStateSpaceModel, at: Positions, x: Array, u: Array) -> Array:
    response, jacobian = _solve(model, at, x, u)
    if not is_traced(response):
        singular = np.linalg.svd(np.asarray(jacobian), compute_uv=False)
        if not singular[-1] > x.size * np.finfo(singular.dtype).eps * singular[0]:
            raise NumericalError(
                "the Jacobian at x_star is singular to rounding: at a bifurcation the steady-state kernel is infinite"
            )
    return response


@eqx.filter_jit
def _solve(model: AbstractStateSpaceModel, at: Positions, x: Array, u: Array) -> tuple[Array, Array]:
    """-A^-1 F and A."""
    theta = get(model, at)
    time = jnp.zeros((), x.dtype)
    by_theta = jax.jacrev(lambda theta: put(model, at, theta).vector_field(time, x, u))(theta)
    forcing = jnp.concatenate([leaf.reshape(x.shape[0], -1) for leaf in by_theta], axis=1)
    jacobian = jax.jacfwd(lambda x: model.vector_field(time, x, u))(x)
    return -jnp.linalg.solve(jacobian, forcing), jacobian
