"""The diagonal that an optimiser divides the gradient by: D in the preconditioned kernel J D^-1 J^T."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, is_traced
from ssntk.models.theta import Theta

# The defaults of optax.adam.
DECAY, EPSILON = 0.999, 1e-8
A = TypeVar("A", np.ndarray, Array)


def diagonal(preconditioner: PyTree, theta: Theta) -> Float[Array, " p"] | None:
    """D (p,), positive.

    **Arguments:** `preconditioner`: `None`; (p,) numbers; or a state of `optax.adam` with its default decay and epsilon. For
    the last, D is what Adam divides by in its next step, `sqrt(nu / (1 - 0.999^count)) + 1e-8`, at the leaves of theta.

    Raises `ValueError` if it is none of these, does not fit, or is not positive.
    """
    if preconditioner is None:
        return None
    state, p = adam_state(preconditioner), theta.size
    if state is not None:
        values = adams(aligned(state.nu, theta), float(state.count))
    else:
        values = as_array(preconditioner, "preconditioner", (p,))
    if not is_traced(values) and not bool((np.asarray(values) > 0).all()):
        raise ValueError("preconditioner must be positive")
    return values


def adams(square: A, count: float, decay: float = DECAY, epsilon: float = EPSILON) -> A:
    """What Adam divides by in its next step (p,), from its second moments `square` (p,) after `count` steps."""
    return (square / (1 - decay**count)) ** 0.5 + epsilon


def adam_state(preconditioner: PyTree, name: str = "preconditioner", *, fresh: bool = False) -> Any:
    """The state of Adam inside an optimiser's state; `None` if there is none.

    Raises `ValueError`, which names the argument `name`, if there are several. It also does so if Adam has made no step yet,
    unless `fresh` is true.
    """

    def of_adam(part: object) -> bool:
        return hasattr(part, "nu") and hasattr(part, "count")

    states = [part for part in jax.tree.leaves(preconditioner, is_leaf=of_adam) if of_adam(part)]
    if len(states) > 1:
        raise ValueError(f"{name} must hold one state of Adam, got {len(states)}")
    if states and not fresh and np.asarray(states[0].count) == 0:
        raise ValueError(f"{name} must be a state of Adam after at least one step")
    return states[0] if states else None


def aligned(moments: PyTree, theta: Theta, name: str = "preconditioner") -> Array:
    """The leaves of `moments` that belong to theta, raveled, (p,).

    `moments` has the structure of the model, or that of theta's own tree.
    """
    of_model = jax.tree.flatten(theta.model, is_leaf=lambda leaf: leaf is None)[0]
    of_moments = jax.tree.flatten(moments, is_leaf=lambda leaf: leaf is None)[0]
    if len(of_model) == len(of_moments):
        places = [i for i, leaf in enumerate(of_model) if leaf is not None]
        of_moments = [of_moments[places[i]] for i in theta.at]
    else:
        of_moments = [leaf for leaf in of_moments if leaf is not None]
    shapes = [getattr(leaf, "shape", None) for leaf in of_moments]
    wanted = [leaf.shape for leaf in theta.arrays]
    if shapes != wanted:
        raise ValueError(
            f"{name} must be a state over the model, or over leaves of the shapes {wanted} that theta has, got {shapes}"
        )
    return jnp.asarray(theta.ravel([leaf for leaf in of_moments if eqx.is_array(leaf)]))
