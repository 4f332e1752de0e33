"""Check that an activation is a function of each unit by itself."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

# The beginnings of the names of operations that combine elements of an array, and of those that pick or move elements.
MIXING = ("reduce", "cum", "sort", "arg", "dot_general", "rev", "conv_", "top_k")
PLACING = ("gather", "scatter", "slice", "concatenate")


def check_activation(activation: object) -> None:
    """Raise `ValueError` if this cannot be called, or if it computes a unit from other units, as softmax does."""
    if not callable(activation):
        raise ValueError(f"activation must be callable, got {type(activation).__name__}")
    library = (getattr(activation, "__module__", None) or "").partition(".")[0] == "jax"
    if (_known_to_mix if library else mixes)(activation):
        name = getattr(activation, "__name__", type(activation).__name__)
        raise ValueError(f"activation must work unit by unit, which {name} does not")


def mixes(function: Any) -> bool:
    """Whether a function of a vector certainly computes some elements from others; false if it cannot be traced."""
    try:
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((3,), float))
    # The function may raise any error for this vector, for instance if it holds one number for each unit.
    except Exception:
        return False
    shapes = [out.shape for out in closed.out_avals]
    return shapes not in ([(3,)], [()]) or bool(_named(closed.jaxpr, MIXING))


_known_to_mix = functools.cache(mixes)


def elementwise(function: Any) -> bool:
    """Whether a function is elementwise: each number that it returns is computed from the number in the same place."""
    try:
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((3,), float))
    except Exception:
        return False
    same = [out.shape == (3,) and jnp.issubdtype(out.dtype, jnp.floating) for out in closed.out_avals]
    return same == [True] and not _named(closed.jaxpr, (*MIXING, *PLACING))


def _named(jaxpr: Jaxpr, beginnings: tuple[str, ...]) -> set[str]:
    """The names with these beginnings of operations in a jaxpr and in the functions inside it."""
    found: set[str] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        # This name begins like that of a reduction, but the operation rounds each element.
        if name.startswith(beginnings) and name != "reduce_precision":
            found.add(name)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found |= _named(getattr(part, "jaxpr", part), beginnings)
    return found
