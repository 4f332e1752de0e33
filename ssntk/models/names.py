"""Find parts of a model by their names: attributes, keys and positions in lists, joined by dots."""

import re
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ssntk.errors import close_to
from ssntk.nouns import Lens

# Attributes of wrappers. They can be left out of a name, since wrappers have the attributes of the model that they wrap.
WRAPPERS = ("model.", "wrapped.")


def lens_of(model: PyTree, name: str, what: str) -> Lens:
    """A lens for the part of `model` that is called `name`, such as "tau", "params.I" or "layers.0.bias".

    If a name is not an attribute, it is searched for in `model.params`. Raises `ValueError`, which names the argument
    `what` and lists the names that exist.
    """
    # Also accept the notation of Python, such as params["I"].
    parts = re.sub(r"\[\s*['\"]?([^\]'\"]+)['\"]?\s*\]", r".\1", name).split(".")
    ways = [parts, ["params", *parts], ["params", name]]
    for way in ways:
        try:
            _walk(model, way)
        except (AttributeError, KeyError, IndexError):
            continue
        return lambda m: _walk(m, way)
    raise ValueError(f"{what} {name!r} is not one of {type(model).__name__}{close_to(name, names_of(model))}")


def names_of(model: PyTree) -> list[str]:
    """The names of all floating-point arrays of a model, scalars first, in the form that `lens_of` accepts."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if eqx.is_inexact_array(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            while name.startswith(WRAPPERS):
                name = name.partition(".")[2]
            found.append((leaf.size != 1, name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def _walk(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, Mapping):
            # Look up keys only, since the attributes of a dict are its methods.
            value = value[part] if part in value else value[int(part) if part.isdigit() else part]
        elif isinstance(value, (list, tuple)) and part.isdigit():
            value = value[int(part)]
        else:
            value = getattr(value, part)
    return value
