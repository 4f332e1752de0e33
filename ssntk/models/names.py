"""Parts of a model by their names: attributes, keys and places in lists, joined by dots."""

import re
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ssntk.errors import close_to
from ssntk.nouns import Lens

# Attributes of wrappers, which pass on those of what they wrap: nobody has to write them.
WRAPPERS = ("model.", "wrapped.")


def lens_of(model: PyTree, name: str, what: str) -> Lens:
    """The lens of the part of `model` that is called `name`, such as "tau", "params.I" or "layers.0.bias".

    A name that is no attribute is looked for in `model.params`. Raises `ValueError` naming the argument `what`, and saying
    which names there are.
    """
    # As it would be written in Python, params["I"].
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
    """The names of all floating-point arrays of a model, as they may be written; scalars first."""
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
            # Methods of a dict are no parts of it.
            value = value[part] if part in value else value[int(part) if part.isdigit() else part]
        elif isinstance(value, (list, tuple)) and part.isdigit():
            value = value[int(part)]
        else:
            value = getattr(value, part)
    return value
