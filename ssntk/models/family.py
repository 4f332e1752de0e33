"""A model with one scalar parameter."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_instance, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.maps import with_input
from ssntk.models.names import lens_of
from ssntk.models.plane import Plane, plane_of
from ssntk.models.theta import Positions, get, positions, put
from ssntk.nouns import Lens


class Family(eqx.Module):
    """A model with one scalar parameter p: `family(p)` is the model at p.

    `Family(model, "tau")`, `Family(model, "params.I")` or `Family(model, lambda m: m.params["p"])` sets a scalar to p.
    [`Family.line`][] and [`Family.input`][] move along a direction. [`Family.between`][] moves from one network to another.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    print(family(0.25).mu, ssntk.Family.input(ssntk.CTRNN(2, 1, 1, key=jax.random.key(0)), [1.0]).model.n_input)  # 0.25 1
    ```
    """

    model: AbstractStateSpaceModel
    direction: tuple[Array, ...]
    offset: Array | None
    at: Positions = eqx.field(static=True)
    moves: str = eqx.field(static=True)

    def __init__(self, model: AbstractStateSpaceModel, attribute: str | Lens):
        """**Arguments:** `attribute`: the name of a scalar, or a lens that returns one. A name may be an attribute such as
        "tau"; a path of attributes, keys and positions in lists such as "params.rates.0"; or a key of `model.params` such
        as "I".

        Raises `ValueError` if there is no such attribute, or if it is not a floating-point scalar.
        """
        model = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, (float, np.ndarray)) else leaf, model)
        check_model(model)
        if isinstance(attribute, str):
            at = positions(model, lens_of(model, attribute, "attribute"), "attribute")
        elif callable(attribute):
            at = positions(model, attribute, "attribute")
        else:
            raise ValueError(f"attribute must be a name or a lens, got {type(attribute).__name__}")
        if len(at) != 1 or get(model, at)[0].size != 1:
            shapes = [leaf.shape for leaf in get(model, at)]
            raise ValueError(f"attribute must be one scalar, got shapes {shapes}; for arrays use Family.line")
        self.model, self.direction, self.offset, self.at, self.moves = model, (), None, at, "attribute"

    @classmethod
    def line(cls, model: AbstractStateSpaceModel, direction: PyTree) -> "Family":
        """The models `model + p * direction`.

        **Arguments:** `direction`: a pytree with the structure of the model's arrays. If a leaf is `None`, it does not move.

        Raises `ValueError` if the structure, a shape or a value does not fit, or if nothing moves.
        """
        check_model(model)
        leaves, treedef = jax.tree.flatten(eqx.filter(model, eqx.is_inexact_array), is_leaf=lambda leaf: leaf is None)
        moved = eqx.filter(direction, eqx.is_array_like)
        steps, moved_def = jax.tree.flatten(moved, is_leaf=lambda leaf: leaf is None)
        if moved_def != treedef:
            raise ValueError("direction must be a pytree like the model's arrays, such as eqx.filter(model, eqx.is_array)")
        if any(leaf is None and step is not None for leaf, step in zip(leaves, steps, strict=True)):
            raise ValueError("direction moves a leaf of the model that is not a floating-point array")
        full = jax.tree.leaves(model, is_leaf=lambda leaf: leaf is None)
        position = {i: sum(leaf is not None for leaf in full[:i]) for i in range(len(full))}
        chosen = [
            (position[i], leaf, step) for i, (leaf, step) in enumerate(zip(leaves, steps, strict=True)) if step is not None
        ]
        arrays = tuple(as_array(step, "direction", leaf.shape).astype(leaf.dtype) for _, leaf, step in chosen)
        return cls._make(model, arrays, None, tuple(at for at, _, _ in chosen), "line")

    @classmethod
    def between(cls, first: AbstractStateSpaceModel, second: AbstractStateSpaceModel) -> "Family":
        """The straight line from one network to another, such as two checkpoints of its training: `first` at p = 0 and, to
        rounding, `second` at p = 1.

        Raises `ValueError` unless `second` differs from `first`, and only in the values of its arrays.
        """
        check_model(first, "first")
        check_model(second, "second")
        (start, kept), (end, other) = (eqx.partition(model, eqx.is_inexact_array) for model in (first, second))
        shapes = [[leaf.shape for leaf in jax.tree.leaves(arrays)] for arrays in (start, end)]
        if jax.tree.structure(start) != jax.tree.structure(end) or shapes[0] != shapes[1] or not eqx.tree_equal(kept, other):
            raise ValueError("second must be a model like first, of the same shapes, and differ in its numbers alone")
        direction = jax.tree.map(jnp.subtract, end, start)
        if not any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(direction)):
            raise ValueError("second must not be the same as first")
        return cls.line(first, direction)

    @staticmethod
    def plane(family1: Any, family2: Any) -> Plane:
        """The plane of two families of one model: `plane(p1, p2)` is the model with both parameters set.

        If both are inputs, they are added; an offset that both have counts once.

        Raises `ValueError` if the families are of different models, or if both move the same parameter.

        **Example:**

        ```python
        model = ssntk.normal_forms.hopf(0.0, 1.0)
        plane = ssntk.Family.plane(ssntk.Family(model, "mu"), ssntk.Family(model, "omega"))
        print(plane(0.25, 2.0).mu, plane(0.25, 2.0).omega)  # 0.25 2.0
        ```
        """
        as_instance(family1, "family1", Family)
        as_instance(family2, "family2", Family)
        return plane_of(family1, family2)

    @classmethod
    def leaves(cls, model: AbstractStateSpaceModel, at: Positions, direction: Sequence[Array]) -> "Family":
        """The models in which the leaves at these positions are moved by `p * direction`, one array for each leaf."""
        check_model(model)
        return cls._make(model, tuple(direction), None, at, "line")

    @classmethod
    def input(cls, model: AbstractStateSpaceModel, direction: Any, offset: Any = None) -> "Family":
        """`model` under the constant input `u = offset + p * direction`, each (d,). Any further input is added to it.

        **Arguments:** `direction`: (d,), or the index of an input that is set to p: `Family.input(model, 0)`.

        Raises `ValueError` if a shape does not fit, or if the direction is zero.
        """
        check_model(model)
        d = model.n_input
        if isinstance(direction, (int, np.integer)) and not isinstance(direction, bool):
            if not 0 <= direction < d:
                raise ValueError(f"direction must be the index of one of {d} inputs, or have shape ({d},), got {direction}")
            direction = np.eye(d)[direction]
        along = as_array(direction, "direction", (d,)).astype(dtype_of(model))
        offset = as_array(np.zeros(d) if offset is None else offset, "offset", (d,))
        return cls._make(model, (along,), offset.astype(dtype_of(model)), (), "input")

    @classmethod
    def _make(
        cls, model: AbstractStateSpaceModel, direction: tuple[Array, ...], offset: Array | None, at: Positions, moves: str
    ) -> "Family":
        if moves != "attribute" and not is_traced(direction) and not any(np.any(leaf) for leaf in direction):
            raise ValueError("direction must not be zero")
        self = object.__new__(cls)
        for name, value in (("model", model), ("direction", direction), ("offset", offset), ("at", at), ("moves", moves)):
            object.__setattr__(self, name, value)
        return self

    def of(self, model: AbstractStateSpaceModel) -> "Family":
        """The same family of another model, whose leaves begin with those of this one's."""
        return self._make(model, self.direction, self.offset, self.at, self.moves)

    @property
    def value(self) -> Any:
        """The scalar of the model that the family sets; `None` for lines and inputs."""
        return get(self.model, self.at)[0] if self.moves == "attribute" else None

    @property
    def dt(self) -> float | None:
        """The step for maps; `None` for models in continuous time."""
        return self.model.clock.dt

    @property
    def clock(self) -> AbstractClock:
        """The clock of the model."""
        return self.model.clock

    def __call__(self, parameter: float | Float[Array, ""]) -> Any:
        """The model at this parameter."""
        # If all values are known, compute on the host, which compiles nothing.
        known = not is_traced(self, parameter)
        p = np.asarray(parameter, dtype_of(self.model)) if known else jnp.asarray(parameter, dtype_of(self.model))

        def along(start: Array, step: Array) -> Array:
            return jax.device_put(np.asarray(start) + p * np.asarray(step)) if known else start + p * step

        if self.moves == "input":
            assert self.offset is not None
            return with_input(self.model, along(self.offset, self.direction[0]))
        here = get(self.model, self.at)
        if self.moves == "attribute":
            (leaf,) = here
            value = (np if known else jnp).broadcast_to(p, leaf.shape).astype(leaf.dtype)
            return put(self.model, self.at, [jax.device_put(value) if known else value])
        return put(self.model, self.at, [along(*pair) for pair in zip(here, self.direction, strict=True)])
