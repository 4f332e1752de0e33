"""Check a fixed point that is known approximately against the vector field, and refine it to rounding error."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import linear_at, linearised
from ssntk.errors import NumericalError, Outcome, as_array, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model, dtype_of
from ssntk.newton import newton


def check_fixed_point(model: AbstractStateSpaceModel, x_star: Any, u: Any) -> tuple[Array, Array]:
    """(x (n,), u (d,)) in the model's dtype; `NumericalError` if Newton's step from x is not small.

    It is small if no entry exceeds the square root of the precision times the size of the state: that of
    [`typical_sizes`][], and at least |x_i|.
    """
    x = as_array(x_star, "x_star", (model.n_state,)).astype(dtype_of(model))
    u = constant_input(model, u)
    if not is_traced(model, x, u):
        velocity, jacobian = (np.asarray(part) for part in linearised(model, x, u))
        eps, here = np.finfo(velocity.dtype).eps, np.abs(np.asarray(x))
        # If df/dx is singular, a step means nothing: accept x also if f is only the rounding error of its terms.
        if not (np.abs(velocity) <= 64 * eps * (np.abs(jacobian) @ here)).all():
            step = _newton_step(velocity, jacobian)
            if not (step <= eps**0.5 * here).all():
                sizes = typical_sizes(model, u, np.asarray(x))
                far = float(np.max(step / sizes)) if np.isfinite(step).all() else np.inf
                terms = np.abs(jacobian) @ sizes
                if not (far <= eps**0.5 or (np.abs(velocity) <= eps**0.75 * terms).all()):
                    raise NumericalError(
                        f"x_star is not a fixed point: |f(x_star)| = {np.abs(velocity).max():.3g}, and Newton's step from "
                        f"there is {far:.3g} of the states' sizes; refine it with find_fixed_points or continuation first"
                    )
    return x, u


def _newton_step(velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """The absolute values (n,) of Newton's step; infinite if df/dx is singular."""
    rows = np.abs(jacobian).max(axis=1)
    rows = np.where(rows > 0, rows, 1.0)
    try:
        return np.abs(np.linalg.solve(jacobian / rows[:, None], velocity / rows))
    except np.linalg.LinAlgError:
        return np.where(velocity == 0, 0.0, np.inf)


def refine_fixed_point(model: AbstractStateSpaceModel, x: Any, u: Any = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Newton's iteration from a state near a fixed point: (x* (n,), A (n, n), residual), with the largest |f_i|.

    Raises `NumericalError` if the iteration does not converge.
    """
    check_model(model)
    x = as_array(x, "x_star", (model.n_state,)).astype(dtype_of(model))
    settled, move, velocity, jacobian = (np.asarray(part) for part in polish(model, x, constant_input(model, u)))
    check_settled(settled, move, velocity)
    return settled, jacobian, float(np.abs(velocity).max())


def check_settled(settled: np.ndarray, move: Any, velocity: np.ndarray) -> None:
    """Raise `NumericalError` if the iteration of [`polish`][] did not converge: if its last correction, relative to the
    states' sizes, is not below the square root of the precision."""
    if not np.isfinite(settled).all() or not move <= np.finfo(settled.dtype).eps ** 0.5:
        raise NumericalError(Outcome.no_fixed_point.say(size=float(move), speed=float(np.abs(velocity).max())))


@eqx.filter_jit
def polish(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Array, Array, Array, Array]:
    """Newton's iteration until corrections stop falling: the point (n,), the last correction, f (n,) and A (n, n) there.

    The correction is the largest over the states, relative to their sizes. The size of a state is the largest of its value,
    its value at the start, and the distance by which a rounding of f's terms moves it, divided by the rounding.
    """
    start = jnp.abs(x)

    def relative(move: Array, x: Array, jacobian: Array) -> Array:
        terms = jnp.abs(jacobian) @ jnp.abs(x)
        rows = jnp.where(terms > 0, terms, 1)
        spread = jnp.abs(jnp.linalg.inv(jacobian / rows[:, None])) @ (terms / rows)
        size = jnp.maximum(jnp.maximum(start, jnp.abs(x)), jnp.where(jnp.isfinite(spread), spread, 0))
        ratio = jnp.where(move == 0, 0, jnp.abs(move) / jnp.where(size > 0, size, jnp.finfo(x.dtype).tiny))
        return jnp.max(ratio)

    def improve(x: Array) -> tuple[Array, Array, Array]:
        velocity, jacobian = linear_at(model, x, u)
        rows = jnp.abs(jacobian).max(axis=1)
        rows = jnp.where(rows > 0, rows, 1)
        move = -jnp.linalg.solve(jacobian / rows[:, None], velocity / rows)
        return move, relative(move, x + move, jacobian), jnp.zeros((), x.dtype)

    def unfinished(last: Array, before: Array, count: Array) -> Array:
        return (last > 0) & ((last < before / 2) | (count < 2))

    found = newton(improve, x, unfinished)
    return found.x, found.size, *linear_at(model, found.x, u)
