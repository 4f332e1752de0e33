"""Select leaves of a model, and treat them as one vector.

A lens is turned into the positions of leaves. These are hashable, so that equal selections share compiled code.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.structure import by_structure
from ssntk.nouns import AnyArray, Lens

Positions = tuple[int, ...]
A = TypeVar("A", np.ndarray, Array)


def positions(model: AbstractStateSpaceModel, lens: Lens, name: str) -> Positions:
    """The positions, among the leaves of `model`, of the arrays that `lens(model)` returns, in the order of its result.

    Raises `ValueError`, which names the argument `name`, if the lens returns anything but inexact arrays of the model.
    """
    leaves, treedef = jax.tree.flatten(model)
    inexact = [i for i, leaf in enumerate(leaves) if eqx.is_inexact_array(leaf)]
    found: list[int] = []

    def look(arrays: list[jax.Array]) -> list[jax.Array]:
        # While tracing, every leaf is a separate object, even if two leaves share one array.
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


def theta_positions(model: AbstractStateSpaceModel, of: str, wrt: Lens | None) -> Positions:
    """The positions of theta: those that the lens `wrt` selects, or those of `model.trainable(of)` if it is `None`."""
    return _trained(model, of) if wrt is None else positions(model, wrt, "wrt")


@by_structure
def _trained(model: AbstractStateSpaceModel, of: str) -> Positions:
    """The positions of the leaves of `model.trainable(of)`."""
    return positions(model, lambda m: m.trainable(of), "trainable")


class Theta(eqx.Module):
    """The p parameters that are differentiated: some leaves of a model, one after another, each raveled in C order.

    A derivative with respect to theta is an array (*lead, p), or a list with one array (*lead, *shape) for each leaf.
    `ravel` and `leaves` convert one into the other. `model` may be any pytree with these leaves, such as a tangent of a
    model.
    """

    model: AbstractStateSpaceModel
    at: Positions = eqx.field(static=True)

    @classmethod
    def of(cls, model: AbstractStateSpaceModel, wrt: Lens | None = None, of: str = "state") -> "Theta":
        """The leaves that the lens `wrt` selects; default `model.trainable(of)`. Raises `ValueError` for other lenses."""
        return cls(model, theta_positions(model, of, wrt))

    @property
    def arrays(self) -> list[Array]:
        """The selected leaves of the model."""
        return get(self.model, self.at)

    @property
    def size(self) -> int:
        """p, the number of parameters."""
        return size(self.model, self.at)

    @property
    def offsets(self) -> list[int]:
        """The position at which each leaf begins in the vector, and p at the end."""
        return np.cumsum([0, *(math.prod(leaf.shape) for leaf in self.arrays)]).tolist()

    @property
    def vector(self) -> Float[Array, " p"]:
        """The parameters of the model, (p,), in the model's dtype."""
        return self.ravel([jnp.asarray(leaf) for leaf in self.arrays]).astype(dtype_of(self.model))

    def leaves(self, vector: A) -> list[A]:
        """One array (*lead, *shape) for each leaf, from (*lead, p)."""
        begins, lead = self.offsets, vector.shape[:-1]
        return [
            vector[..., begin:end].reshape((*lead, *leaf.shape))
            for begin, end, leaf in zip(begins, begins[1:], self.arrays, strict=False)
        ]

    def split(self, vectors: Float[Array, "k p"]) -> list[Array]:
        """`leaves` of k vectors: one array (k, *shape) for each leaf."""
        return self.leaves(vectors)

    def ravel(self, leaves: Sequence[AnyArray], lead: int = 0) -> Any:
        """(*lead, p) from one array (*lead, *shape) for each leaf. `lead`: the number of leading axes."""
        flat = [leaf.reshape((*leaf.shape[:lead], math.prod(leaf.shape[lead:]))) for leaf in leaves]
        # If all arrays are on the host, join them there, which compiles nothing.
        known = all(isinstance(leaf, np.ndarray) for leaf in flat)
        return np.concatenate(flat, axis=lead) if known else jnp.concatenate(flat, axis=lead)

    def put(self, values: Any) -> PyTree:
        """The model with other values: a vector (p,), or a list of the leaves."""
        return put(self.model, self.at, values if isinstance(values, (list, tuple)) else self.leaves(values))

    def columns(self, block: Positions) -> np.ndarray:
        """The indices, among 0 .. p - 1, of the parameters in the leaves of `block`, which are some of these."""
        return columns(self.model, self.at, block)


def get(model: AbstractStateSpaceModel, at: Positions) -> list[jax.Array]:
    """The leaves at these positions."""
    leaves = jax.tree.leaves(model)
    return [leaves[i] for i in at]


def put(model: AbstractStateSpaceModel, at: Positions, values: Sequence[AnyArray]) -> PyTree:
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


def check_blocks(blocks: Any) -> dict[str, Lens]:
    """Blocks as a dict from names to lenses, from such a dict or a list of attributes; `ValueError` for anything else."""
    if blocks is None:
        return {}
    if isinstance(blocks, dict) and all(isinstance(name, str) and callable(lens) for name, lens in blocks.items()):
        return blocks
    if not isinstance(blocks, (list, tuple)) or not all(isinstance(name, str) for name in blocks):
        raise ValueError(f"blocks must list attributes of the model, or be a dict of names and lenses, got {blocks!r}")
    if len(set(blocks)) < len(blocks):
        raise ValueError(f"blocks must name each attribute once, got {blocks!r}")
    return {name: operator.attrgetter(name) for name in blocks}


def block_positions(model: AbstractStateSpaceModel, of: str, wrt: Lens | None, blocks: Any) -> dict[str, Positions]:
    """The positions of the leaves of each block, by its name; `ValueError` if a block is not part of theta."""
    lenses = check_blocks(blocks)
    at = theta_positions(model, of, wrt) if lenses else ()
    found = {name: positions(model, lens, f"blocks[{name!r}]") for name, lens in lenses.items()}
    for name, block in found.items():
        if not set(block) <= set(at):
            raise ValueError(f"blocks[{name!r}] is no part of theta; name it in wrt too")
    return found
