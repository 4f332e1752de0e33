"""The names of two parameters."""

import jax
import numpy as np

from ssntk.models.family import Family
from ssntk.models.plane import Plane


def names_of(plane: Plane | None) -> tuple[str, str]:
    """The names of both parameters: that of an attribute, or the number of an input; else p1 and p2."""
    if plane is None:
        return "p1", "p2"
    return _name(plane.first) or "p1", _name(plane.second) or "p2"


def _name(family: Family) -> str | None:
    if family.moves == "attribute":
        path, _ = jax.tree_util.tree_flatten_with_path(family.model)[0][family.at[0]]
        name = getattr(path[-1], "name", None) or getattr(path[-1], "key", None) if path else None
        return name if isinstance(name, str) else None
    if family.moves == "input":
        direction = np.asarray(family.direction[0])
        (at,) = np.nonzero(direction)
        if len(at) == 1 and direction[at[0]] == 1:
            return f"input {at[0]}"
    return None
