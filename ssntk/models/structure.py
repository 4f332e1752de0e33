"""Results that depend on the structure of a model, and not on the values of its arrays, are computed once."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import equinox as eqx
import jax

from ssntk.errors import is_traced

T = TypeVar("T")
# The largest number of results that one function keeps.
MOST = 256


def structure_of(model: Any) -> Hashable:
    """Everything that the traced code of a model depends on: its classes, fields, shapes and dtypes, and JAX's settings."""
    # Arrays of NumPy are values for the code of a model, which may branch on them.
    arrays, rest = eqx.partition(model, lambda leaf: isinstance(leaf, jax.Array))
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)
    # Equal numbers of different types, such as 1 and 1.0, lead to different code.
    static = tuple((type(leaf), leaf) for leaf in jax.tree.leaves(rest))
    return shapes, structure, static, jax.tree.structure(rest), tuple(jax.config.values.items())


def by_structure(function: Callable[..., T]) -> Callable[..., T]:
    """Make `function(model, *arguments)` keep its results. Each is used again for models of the same structure.

    As in `jax.jit`, static parts that compare equal count as the same, and a change of an object outside the model is not
    noticed. If a part of the model has no hash, as arrays of NumPy, nothing is kept. Nor is it while JAX traces, since
    functions in the model may hold traced values. An error is raised anew each time.
    """
    # Each result is in a tuple of its own, since it may be `None`.
    kept: dict[Hashable, tuple[T]] = {}

    @functools.wraps(function)
    def call(model: Any, *arguments: Hashable) -> T:
        key = structure_of(model), arguments
        try:
            known = kept.get(key)
        except TypeError:
            return function(model, *arguments)
        if known is not None:
            return known[0]
        result = function(model, *arguments)
        # Inside a function that JAX traces, every new array is traced.
        if not is_traced(jax.device_put(0.0)):
            if len(kept) >= MOST:
                kept.clear()
            kept[key] = (result,)
        return result

    return call
