"""Losses as sums of squared residuals: with one of several factors, or with residuals of the user's own."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import NumericalError, traceable
from ssntk.kernel.jacobian import jacobian_of
from ssntk.kernel.replay import Replay, saved_states
from ssntk.kernel.rows import Rows
from ssntk.models.base import AbstractStateSpaceModel

# The ratio of each loss to mean(residual^2) / 2. For "sum", the number of residuals is another factor.
FACTORS = {"half-mse": 1.0, "mse": 2.0, "sum": 2.0}


def as_loss(value: Any) -> str | Callable[..., Any]:
    """`value` if it is a convention by name, or a function."""
    if callable(value) or (isinstance(value, str) and value in FACTORS):
        return value
    raise ValueError(f"loss must be one of {', '.join(map(repr, FACTORS))}, or a function of the outputs, got {value!r}")


def takes_targets(loss: object) -> bool:
    """Whether a loss needs targets for its Jacobian, as a function of two arguments does."""
    if not callable(loss):
        return False
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in kinds and one.default is one.empty for one in parameters) != 1


def loss_rows(
    model: AbstractStateSpaceModel,
    rows: Rows,
    of: str,
    loss: str | Callable[..., Array],
    targets: object = None,
    method: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """J (rows, p) and the residuals (rows,) in which a loss is `|residual|^2 / 2`, whatever its convention.

    `rows`: as they were requested; their weights, mask and preconditioner apply to the residuals.
    `targets`: (B, T, m); if they are `None`, the residuals are not used.

    Raises `ValueError` if nothing is observed, or if a function does not fit; `NumericalError` if what it returns is not
    finite.
    """
    replay = rows.replay
    outputs = wanted = jnp.zeros(replay.shape[:3], replay.probe.ts.dtype)
    if targets is not None:
        wanted = replay.probe.targets(targets, replay.shape[:3]).astype(outputs.dtype)
    if targets is not None or callable(loss):
        outputs = outputs_of(model, replay, of)
    if callable(loss):
        residual, jacobian, total = _of_function(loss, rows, outputs, wanted, method)
    else:
        observed = rows.on_rows(replay.probe.observed(jnp.ones_like(outputs)[..., None]))
        total = float(jnp.sum(jnp.square(observed)))
        residual, jacobian = rows.on_rows(replay.probe.observed((outputs - wanted)[..., None])), rows.matrix(method)
    if not total > 0:
        raise ValueError("probe.mask and weights must leave something to be observed")
    factor = 1.0 if callable(loss) else FACTORS[loss]
    scale = factor**0.5 if loss == "sum" else (factor / total) ** 0.5
    return np.asarray(jacobian, float) * scale, np.asarray(residual, float).ravel() * scale


def outputs_of(model: AbstractStateSpaceModel, replay: Replay, of: str) -> Float[Array, "B T m"]:
    """The states at the save times of a recorded solve, or the readouts there."""
    states = saved_states(replay.tracks)
    return states if of == "state" else jax.vmap(jax.vmap(model.readout))(states)


def _of_function(
    loss: Callable[..., Array], rows: Rows, outputs: Array, wanted: Array, method: str
) -> tuple[Array, Array, float]:
    """Residuals (rows,) of a user's own, their Jacobian (rows, p), and how many count."""
    residuals = loss if takes_targets(loss) else lambda outputs, _: loss(outputs)
    with traceable("loss"):
        shape = jax.eval_shape(residuals, outputs, wanted)
    if not hasattr(shape, "shape") or not jnp.issubdtype(shape.dtype, jnp.floating) or not shape.size:
        raise ValueError(f"loss must return an array of residuals, got {shape}")
    if shape.shape == () and outputs.size > 1:
        raise ValueError(
            "loss must return residuals, one for each output, got one number: for the mean of their squares pass "
            "loss='mse', for half of it 'half-mse', for their sum 'sum'"
        )
    probe, like = rows.replay.probe, shape.shape == outputs.shape
    if not like and (probe.mask is not None or rows.over_time is not None):
        raise ValueError(
            f"loss must return residuals of the outputs' shape {outputs.shape} where there is a mask or weights, got "
            f"{shape.shape}"
        )
    residual, jacobian = _pushed(loss, outputs, wanted, jacobian_of(rows.replay, method))
    observed = jnp.ones_like(residual)
    if like:
        residual, observed = (rows.on_rows(probe.observed(part[..., None])) for part in (residual, observed))
        jacobian = rows.on_rows(probe.observed(jacobian))
    if not np.isfinite(np.asarray(residual)).all() or not np.isfinite(np.asarray(jacobian)).all():
        raise NumericalError("loss gives residuals, or a Jacobian of them, that are not finite")
    jacobian = jacobian.reshape(-1, jacobian.shape[-1])
    if rows.over_theta is not None:
        jacobian = jacobian * rows.over_theta[None]
    return residual, jacobian, float(jnp.sum(jnp.square(observed)))


@eqx.filter_jit
def _pushed(loss: Callable[..., Array], outputs: Array, wanted: Array, jacobian: Array) -> tuple[Array, Array]:
    """The residuals and their derivative along each column of the outputs' Jacobian (B, T, m, p)."""
    residuals = (lambda y: loss(y, wanted)) if takes_targets(loss) else loss
    residual, push = jax.linearize(residuals, outputs)
    return residual, jax.vmap(push, in_axes=-1, out_axes=-1)(jacobian)
