"""The kernel of a fixed point: how its position depends on the parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.metric import as_metric, rows_in_metric, singular_to_rounding
from ssntk.dynamics.refine import check_fixed_point
from ssntk.errors import NumericalError, as_array, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model
from ssntk.models.theta import Positions, Theta, theta_positions
from ssntk.nouns import Lens

# The largest number of entries of F that exist at once if only the lengths of its rows are wanted.
ROWS = 2**23


def steady_state_jacobian(
    model: AbstractStateSpaceModel, x_star: Any, *, u: Any = None, wrt: Lens | None = None
) -> Float[Array, "*k n p"]:
    """dx*/dtheta = -A^-1 F at a fixed point, by the implicit function theorem: (n, p), or (k, n, p) at k of them.

    Arguments and errors are as in [`steady_state_ntk`][].
    """
    check_model(model)
    check_autonomous(model)
    at = theta_positions(model, "state", wrt)
    points = as_array(x_star, "x_star", finite=False)
    if points.ndim == 1:
        x, u = check_fixed_point(model, x_star, u)
        return _response(model, at, x[None], u[None])[0]
    if points.ndim != 2 or points.shape[0] == 0:
        raise ValueError(f"x_star must have shape (n,) or (k, n) with k >= 1, got {points.shape}")
    inputs = None if u is None else as_array(u, "u")
    if inputs is not None and inputs.ndim == 2 and inputs.shape[0] != points.shape[0]:
        raise ValueError(f"u must hold one input for each of the {points.shape[0]} fixed points, got {inputs.shape[0]}")
    checked = [
        check_fixed_point(model, x, inputs[k] if inputs is not None and inputs.ndim == 2 else inputs)
        for k, x in enumerate(points)
    ]
    return _response(model, at, *(jnp.stack(part) for part in zip(*checked, strict=True)))


def steady_state_ntk(
    model: AbstractStateSpaceModel,
    x_star: Any,
    *,
    u: Any = None,
    wrt: Lens | None = None,
    scale: Any = None,
) -> Float[Array, "*k n n"]:
    """The steady-state kernel K* = A^-1 F F^T A^-T (n, n), with A = df/dx and F = df/dtheta at the fixed point `x_star`.

    **Arguments:**

    - `x_star`: (n,), or (k, n) for k fixed points. The result is then (k, n, n).
    - `u`: (d,) or (k, d), the constant input; default zero.
    - `wrt`: a lens; default `model.trainable("state")`.
    - `scale`: (n,) positive numbers, or one [state]: the metric of the states. The result is then D^-1 K* D^-1 with
      D = diag(scale). Default: ones.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time. Raises `NumericalError` if
    `x_star` is not a fixed point, or if A is singular to rounding.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p - 2 * x, jnp.ones(1), 1)  # x* = p / 2
    print(ssntk.steady_state_ntk(model, [0.5]))  # [[0.25]]
    ```
    """
    check_model(model)
    metric = as_metric(scale, model.n_state)
    response = rows_in_metric(steady_state_jacobian(model, x_star, u=u, wrt=wrt), metric)
    return response @ jnp.swapaxes(response, -1, -2)


def _response(model: AbstractStateSpaceModel, at: Positions, x: Array, u: Array) -> Array:
    """dx*/dtheta at k points, (k, n, p)."""
    by_theta, jacobian = _forcings(model, at, x, u)
    if is_traced(by_theta):
        return -jnp.linalg.solve(jacobian, by_theta)
    names = [""] if x.shape[0] == 1 else [f" number {k}" for k in range(x.shape[0])]
    parts = zip(np.asarray(jacobian), np.asarray(by_theta), names, strict=True)
    return jax.device_put(np.stack([response_of(*part) for part in parts]))


def response_of(jacobian: np.ndarray, by_theta: np.ndarray, name: str = "") -> np.ndarray:
    """-A^-1 F (n, p), from A (n, n) and F (n, p).

    With many parameters LAPACK's solve is several times faster than XLA's, so it is done on the host.
    """
    singular, ratio = singular_to_rounding(jacobian)
    if singular:
        raise NumericalError(
            f"the Jacobian at x_star{name} is singular to rounding, its smallest singular value {ratio:.2g} of the largest "
            "where rows and columns are balanced: at a bifurcation the steady-state kernel is infinite; move the parameter "
            "away from it"
        )
    return -np.linalg.solve(jacobian, by_theta)


@eqx.filter_jit
def _forcings(model: AbstractStateSpaceModel, at: Positions, xs: Array, us: Array) -> tuple[Array, Array]:
    """F (k, n, p) and A (k, n, n) at k points."""
    return jax.vmap(lambda x, u: forcing(model, at, x, u))(xs, us)


@eqx.filter_jit
def forcing(model: AbstractStateSpaceModel, at: Positions, x: Array, u: Array) -> tuple[Array, Array]:
    """F = df/dtheta (n, p) and A = df/dx (n, n) at one point."""
    theta, time = Theta(model, at), jnp.zeros((), x.dtype)
    by_theta = jax.jacrev(lambda leaves: theta.put(leaves).vector_field(time, x, u))(theta.arrays)
    jacobian = jax.jacfwd(lambda x: model.vector_field(time, x, u))(x)
    return theta.ravel(by_theta, lead=1), jacobian


@eqx.filter_jit
def forcing_sizes(model: AbstractStateSpaceModel, at: Positions, x: Array, u: Array) -> Array:
    """The length |df_i/dtheta| of each row of F (n, p) at one point, (n,). At most `ROWS` numbers of F exist at once."""
    theta, time = Theta(model, at), jnp.zeros((), x.dtype)
    _, pull = jax.vjp(lambda leaves: theta.put(leaves).vector_field(time, x, u), theta.arrays)

    def size(row: Array) -> Array:
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in pull(row)[0]))

    n = x.shape[0]
    return jax.lax.map(size, jnp.eye(n, dtype=x.dtype), batch_size=int(np.clip(ROWS // max(theta.size, 1), 1, n)))
