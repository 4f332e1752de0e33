"""Find linear conserved quantities: weights w with w . f(x) = 0 at every state x, which make df/dx singular everywhere."""

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from ssntk.dynamics.stability import field_at
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import AnyArray

# A combination of rates counts as zero if it is below this many roundings of its terms.
ROUNDINGS = 2.0**11


def conserved_quantities(
    models: AbstractStateSpaceModel | Sequence[AbstractStateSpaceModel], u: Array, sizes: np.ndarray
) -> np.ndarray:
    """The weights (c, n) of the linear conserved quantities that all `models` (one, or several of a family) share.

    They are the common left null vectors of df/dx. They are computed as left null vectors of f at random states of the
    typical sizes (n,), and verified at other states. Each is scaled so that its largest weight, relative to the sizes, is 1.
    Nonlinear first integrals, such as an energy, are not found, nor are weights that depend on the parameter.
    """
    models = [models] if isinstance(models, AbstractStateSpaceModel) else list(models)
    sizes = np.asarray(sizes)
    n, tolerance = len(sizes), ROUNDINGS * float(np.finfo(sizes.dtype).eps)
    velocity = _velocities(models, u, sizes, 0, n + 8)
    if velocity.shape[1] < n:
        # The field is finite at too few states.
        return np.zeros((0, n), sizes.dtype)
    rows = np.abs(velocity).max(axis=1)
    # A state that never moves is itself a conserved quantity.
    still = rows == 0
    weights = list(np.eye(n)[still])
    if not still.all():
        moving = velocity[~still] / rows[~still, None]
        columns = np.abs(moving).max(axis=0)
        moving = moving / np.where(columns > 0, columns, 1.0)
        lefts, values, _ = np.linalg.svd(moving, full_matrices=False)
        for vector in lefts[:, values <= tolerance * values[0]].T:
            whole = np.zeros(n)
            whole[~still] = vector / rows[~still]
            weights.append(whole)
    if not weights:
        return np.zeros((0, n), sizes.dtype)
    reduced = _reduced(np.stack(weights) * sizes) / sizes
    reduced = reduced / np.take_along_axis(reduced, np.abs(reduced * sizes).argmax(axis=1)[:, None], axis=1)
    return reduced[is_conserved(models, u, sizes, reduced)].astype(sizes.dtype)


def is_conserved(
    models: AbstractStateSpaceModel | Sequence[AbstractStateSpaceModel], u: Array, sizes: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Whether each of the weights (c, n) is conserved, (c,): w . f is only a rounding error at random states."""
    models = [models] if isinstance(models, AbstractStateSpaceModel) else list(models)
    velocity = _velocities(models, u, sizes, 1, 8)
    if velocity.shape[1] == 0:
        return np.zeros(len(weights), bool)
    terms = np.abs(weights) @ np.abs(velocity)
    return (np.abs(weights @ velocity) <= ROUNDINGS * np.finfo(sizes.dtype).eps * terms).all(axis=1)


def _velocities(models: Sequence[AbstractStateSpaceModel], u: Array, sizes: np.ndarray, seed: int, count: int) -> np.ndarray:
    """f (n, m) at random states of the given sizes, without the states at which it is not finite."""
    random = np.random.default_rng(seed)
    states = random.standard_normal((count, len(sizes))) * 3 ** random.uniform(-1, 1, (count, 1))
    # States of both signs, and the same made positive: some models, as of concentrations with fractional powers, are finite
    # at positive states only.
    states = (np.concatenate([states, np.abs(states)]) * sizes).astype(sizes.dtype)
    velocity = np.concatenate([np.asarray(_fields(model, states, u)) for model in models]).T.astype(float)
    return velocity[:, np.isfinite(velocity).all(axis=0)]


@eqx.filter_jit
def _fields(model: AbstractStateSpaceModel, states: AnyArray, u: Array) -> Array:
    return jax.vmap(lambda x: field_at(model, x, u))(states)


def _reduced(rows: np.ndarray) -> np.ndarray:
    """Rows (c, n) that span the same space in reduced echelon form, with the largest entries as pivots."""
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    for i in range(len(rows)):
        at, column = np.unravel_index(np.abs(rows[i:]).argmax(), rows[i:].shape)
        rows[[i, i + at]] = rows[[i + at, i]]
        rows[i] /= rows[i, column]
        for other in range(len(rows)):
            if other != i:
                rows[other] -= rows[other, column] * rows[i]
                rows[other, column] = 0.0
    return np.where(np.abs(rows) < 1e-12, 0.0, rows)
