"""The parameters of a network that may change, the cost of a change, and the signs that must be kept."""

import operator
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, is_traced
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.theta import Positions, Theta, positions
from ssntk.nouns import AnyArray, Lens


class Freedom(eqx.Module):
    """The parameters theta that may change, as one vector (p,).

    - `start` (p,): theta of the model.
    - `metric` (p,): the weights of a squared change, `sum_i metric_i (theta_i - start_i)^2`.
    - `signs` (p,): 1 for entries that stay >= 0, -1 for entries that stay <= 0, 0 for free ones.
    """

    theta: Theta
    start: Float[Array, " p"]
    metric: Float[Array, " p"]
    signs: Float[Array, " p"]

    def __init__(self, model: AbstractStateSpaceModel, wrt: Lens | None, metric: object, signs: object):
        """Raises `ValueError`, which names the argument that does not fit."""
        self.theta = Theta.of(model, wrt)
        self.start = self.theta.vector
        self.metric = self._vector(_leaves(self.theta, metric, "metric", 1.0))
        self.signs = self._vector(_leaves(self.theta, signs, "signs", 0.0))
        if bool((np.asarray(self.metric) <= 0).any()):
            raise ValueError("metric must be positive")
        kept = np.asarray(self.signs)
        if not np.isin(kept, (-1, 0, 1)).all():
            raise ValueError("signs must hold -1, 0 and 1 only")
        if bool((kept * np.asarray(self.start) < 0).any()):
            raise ValueError("signs contradicts the model: an entry has the other sign from the start")

    @property
    def model(self) -> AbstractStateSpaceModel:
        """The model with theta = start."""
        return self.theta.model

    @property
    def at(self) -> Positions:
        """The positions of the leaves of the model that may change."""
        return self.theta.at

    def _vector(self, leaves: list[Array]) -> Float[Array, " p"]:
        return self.theta.ravel(leaves).astype(dtype_of(self.model))

    def leaves(self, theta: Float[Array, " p"]) -> list[Array]:
        """The leaves of the model that a vector theta stands for."""
        return self.theta.leaves(theta)

    def at_theta(self, theta: Float[Array, " p"]) -> AbstractStateSpaceModel:
        """The model with theta."""
        return self.theta.put(theta)

    def allowed(self, theta: Float[Array, " p"]) -> Float[Array, " p"]:
        """The nearest theta that obeys `signs`."""
        return jnp.where(self.signs * theta < 0, 0.0, theta).astype(theta.dtype)

    def length(self, change: AnyArray) -> float:
        """sqrt(sum_i metric_i change_i^2)."""
        return float(np.sqrt(np.sum(np.asarray(self.metric) * np.asarray(change) ** 2)))


def _leaves(theta: Theta, given: object, name: str, default: float) -> list[Array]:
    """Arrays of the shapes of theta's leaves, from `{attribute or lens: array or scalar}`; others are `default`."""
    leaves = {i: jnp.full(leaf.shape, default) for i, leaf in zip(theta.at, theta.arrays, strict=True)}
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{name} must be a dict of attributes or lenses, as {{'weight': 1.0}}, got {type(given).__name__}")
    for key, value in (given or {}).items():
        lens = operator.attrgetter(key) if isinstance(key, str) else key
        if not callable(lens):
            raise ValueError(f"{name} must have names of attributes or lenses as keys, got {key!r}")
        where = f"{name}[{key!r}]" if isinstance(key, str) else name
        for i in positions(theta.model, lens, where):
            if i not in leaves:
                raise ValueError(f"{where} is no part of theta; name it in wrt too")
            array = as_array(value, where)
            if is_traced(array):
                raise ValueError(f"{where} must be concrete")
            try:
                leaves[i] = jnp.broadcast_to(array, leaves[i].shape)
            except ValueError as error:
                raise ValueError(f"{where} must have shape {leaves[i].shape}, got {array.shape}") from error
    return [leaves[i] for i in theta.at]
