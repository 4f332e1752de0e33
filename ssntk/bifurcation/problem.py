"""A family over a span as the problem that is followed: free of units, and with its conserved quantities held."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ssntk.bifurcation.bordered import Problem
from ssntk.bifurcation.family import Family
from ssntk.dynamics.conserved import conserved_quantities, is_conserved
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.scales import rate_of, sizes_over
from ssntk.dynamics.stability import linearised
from ssntk.errors import as_array, as_instance
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.precision import watch_precision

# Parts of the span at which the states' sizes are looked at.
PLACES = (0.0, 0.5, 1.0)


def make_problem(
    family: Any, span: Any, u: Any, *, x: np.ndarray | None = None, scale: Any = None, fix: Any = None
) -> Problem:
    """The checked problem of a family over a span. `x` (n,): a state of the branch, default zero; `scale`: the sizes of the
    states, default found from the model; `fix`: conserved quantities as (weights, value)."""
    as_instance(family, "family", Family)
    model, dtype = family.model, dtype_of(family.model)
    n = model.n_state
    ends = np.asarray(as_array(span, "span", (2,))).astype(dtype)
    if float(ends[0]) == float(ends[1]):
        raise ValueError(f"span must not be empty, got ({float(ends[0]):g}, {float(ends[1]):g})")
    given_sizes = as_metric(scale, n)
    pairs = _pairs(fix, n)
    u = constant_input(model, u)
    check_autonomous(family(float(ends[0])))
    watch_precision(dtype)
    models = [family(float(ends[0] + q * (ends[1] - ends[0]))) for q in PLACES]
    state = np.zeros(n, dtype) if x is None else np.asarray(x, dtype)
    sizes = sizes_over(models, u, state) if given_sizes is None else given_sizes.astype(dtype)
    weights = conserved_quantities(models, u, sizes)
    level = weights @ state
    if pairs:
        given, values = np.stack([pair[0] for pair in pairs]).astype(dtype), np.array([pair[1] for pair in pairs], dtype)
        for i in np.flatnonzero(~is_conserved(models, u, sizes, given)):
            raise ValueError(f"fix[{i}] must be a conserved quantity: its weights . f(x) is not zero at every state")
        # What is given counts, and of what was found the rest.
        rest = [i for i in range(len(weights)) if _new(given * sizes, weights[i] * sizes)]
        weights, level = np.concatenate([given, weights[rest]]), np.concatenate([values, level[rest]])
    # Orthonormal, beside the sizes.
    turned, triangle = np.linalg.qr((weights * sizes).T) if len(weights) else (np.zeros((n, 0)), np.zeros((0, 0)))
    level = np.linalg.solve(triangle.T, level) if len(weights) else np.zeros(0)
    velocity, jacobian = (np.nan_to_num(np.asarray(part)) for part in linearised(models[0], jax.device_put(state), u))
    pull = rate_of(velocity, jacobian, sizes)
    # A map overshoots by what it is pulled in more than one step.
    if isinstance(model, AbstractMap):
        pull = min(pull, 0.5 / model.dt)
    parts = jax.device_put((ends[0], ends[1], sizes, turned.T.astype(dtype), level.astype(dtype), np.asarray(pull, dtype)))
    return Problem(family, u, *parts)


def resized(problem: Problem, states: np.ndarray, at: Sequence[float] = PLACES) -> Problem:
    """The problem with the sizes of its states looked at near one state (n,) or several (k, n) at these parts of the span
    (k,). Conserved quantities keep the values that they have."""
    models = [problem.family(float(problem.parameter(q))) for q in at]
    sizes = sizes_over(models, problem.u, np.asarray(states, problem.scale.dtype))
    if problem.weights.shape[0] == 0:
        return dataclasses.replace(problem, scale=jax.device_put(sizes))
    before = np.asarray(problem.weights) / np.asarray(problem.scale)
    turned, triangle = np.linalg.qr((before * sizes).T)
    level = np.linalg.solve(triangle.T, np.asarray(problem.level))
    parts = jax.device_put((sizes, turned.T.astype(sizes.dtype), level.astype(sizes.dtype)))
    return dataclasses.replace(problem, **dict(zip(("scale", "weights", "level"), parts, strict=True)))


def _pairs(fix: Any, n: int) -> list[tuple[np.ndarray, float]]:
    """`fix` as (weights, value) pairs."""
    if fix is None:
        return []
    try:
        # One pair alone is meant too.
        pairs = [fix] if len(fix) == 2 and np.shape(fix[1]) == () and np.shape(fix[0]) == (n,) else list(fix)
        parts = [(weights, value) for weights, value in pairs]
    except (TypeError, ValueError) as error:
        raise ValueError("fix must be (weights, value) pairs of conserved quantities") from error
    found = []
    for i, (weights, value) in enumerate(parts):
        array = np.asarray(as_array(weights, f"fix[{i}][0]", (n,)))
        if not array.any():
            raise ValueError(f"fix[{i}][0] must not be zero")
        found.append((array, float(as_array(value, f"fix[{i}][1]", ()))))
    return found


def _new(given: np.ndarray, row: np.ndarray) -> bool:
    """Whether a row (n,) is independent of those given (k, n)."""
    unit = row / np.linalg.norm(row)
    rest = unit - given.T @ np.linalg.lstsq(given.T, unit, rcond=None)[0]
    return bool(np.linalg.norm(rest) > 1e-6)
