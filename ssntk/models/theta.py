"""Which leaves of a model are meant: lenses become leaf positions, which are hashable and so never recompile."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ssntk.models.base import AbstractStateSpaceModel

Positions = tuple[int, ...]


def positions(model: AbstractStateSpaceModel, lens: Callable[[Any], PyTree], name: str) -> Positions:
    """The positions, among the leaves of `model`, of what `lens(model)` returns, in the tree order of that.

    Raises `ValueError` naming the argument `name` where the lens returns anything but inexact arrays of the model.
    """
    leaves, treedef = jax.tree.flatten(model)
    inexact = [i for i, leaf in enumerate(leaves) if eqx.is_inexact_array(leaf)]
    found: list[int] = []

    def look(arrays: list[jax.Array]) -> list[jax.Array]:
        # While tracing, every leaf is an object of its own, even where two leaves share one array.
        traced = list(leaves)
        for i, array in zip(inexact, arrays, strict=True):
            traced[i] = array
        where = {id(traced[i]): i for i in inexact}
        try:
            picked = jax.tree.leaves(lens(jax.tree.unflatten(treedef, traced)))
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{name} does not fit {type(model).__name__}: {error}") from error
        for leaf in picked:
            if id(leaf) not in where:
                raise ValueError(
                    f"{name} must return floating-point arrays that the model holds, as `lambda m: m.weight` does; "
                    f"got {type(leaf).__name__ if not eqx.is_array(leaf) else 'a computed array'}"
                )
            found.append(where[id(leaf)])
        return arrays

    jax.eval_shape(look, [leaves[i] for i in inexact])
    if not found:
        raise ValueError(f"{name} selects no array of {type(model).__name__}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name} names the same array twice")
    return tuple(found)


def theta_positions(model: AbstractStateSpaceModel, of: str, wrt: Callable[[Any], PyTree] | None) -> Positions:
    """The positions of theta: of `wrt`, or of `model.trainable(of)` where it is `None`."""
    if wrt is None:
        return positions(model, lambda m: m.trainable(of), "trainable")
    return positions(model, wrt, "wrt")


def get(model: AbstractStateSpaceModel, at: Positions) -> list[jax.Array]:
    """The leaves at these positions."""
    leaves = jax.tree.leaves(model)
    return [leaves[i] for i in at]


def put(model: AbstractStateSpaceModel, at: Positions, values: Sequence[Any]) -> Any:
    """`model` with the leaves at these positions replaced."""
    leaves, treedef = jax.tree.flatten(model)
    for i, value in zip(at, values, strict=True):
        leaves[i] = value
    return jax.tree.unflatten(treedef, leaves)


def size(model: AbstractStateSpaceModel, at: Positions) -> int:
    """p, the number of parameters at these positions."""
    return sum(int(np.prod(leaf.shape)) for leaf in get(model, at))


def columns(model: AbstractStateSpaceModel, at: Positions, block: Positions) -> np.ndarray:
    """Which of the p columns of the leaves `at` belong to the leaves of `block`, which are some of these."""
    owners = np.concatenate([np.full(leaf.size, i) for i, leaf in zip(at, get(model, at), strict=True)])
    return np.flatnonzero(np.isin(owners, block))


def check_blocks(blocks: Any) -> dict[str, Callable[[Any], PyTree]]:
    """Blocks as names and lenses: a list of attributes or a dict; `ValueError` where they are neither."""
    if blocks is None:
        return {}
    if isinstance(blocks, dict) and all(isinstance(name, str) and callable(lens) for name, lens in blocks.items()):
        return blocks
    if not isinstance(blocks, (list, tuple)) or not all(isinstance(name, str) for name in blocks):
        raise ValueError(f"blocks must list attributes of the model, or be a dict of names and lenses, got {blocks!r}")
    if len(set(blocks)) < len(blocks):
        raise ValueError(f"blocks must name each attribute once, got {blocks!r}")
    return {name: operator.attrgetter(name) for name in blocks}


def block_positions(
    model: AbstractStateSpaceModel, of: str, wrt: Callable[[Any], PyTree] | None, blocks: Any
) -> dict[str, Positions]:
    """The leaves of each block by its name; `ValueError` where a block is not part of theta."""
    lenses = check_blocks(blocks)
    at = theta_positions(model, of, wrt) if lenses else ()
    found = {name: positions(model, lens, f"blocks[{name!r}]") for name, lens in lenses.items()}
    for name, block in found.items():
        if not set(block) <= set(at):
            raise ValueError(f"blocks[{name!r}] is no part of theta; name it in wrt too")
    return found
