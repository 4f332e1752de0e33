"""The names and the ends of two parameters."""

from typing import Any

import jax
import numpy as np

from ssntk.errors import as_array
from ssntk.models.family import Family
from ssntk.models.plane import Plane


def spans_of(spans: Any) -> np.ndarray:
    """The ends (2, 2) of both parameters, lower ends first. `ValueError` if there are none."""
    try:
        first, second = spans
    except (TypeError, ValueError) as error:
        raise ValueError("spans must be a pair (span1, span2), each the two ends of a parameter") from error
    ends = np.stack(
        [np.sort(np.asarray(as_array(one, f"spans[{i}]", (2,)), float)) for i, one in enumerate((first, second))]
    )
    for i in np.flatnonzero(ends[:, 0] == ends[:, 1]):
        raise ValueError(f"spans[{i}] must not be empty, got ({ends[i, 0]:g}, {ends[i, 1]:g})")
    return ends


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
