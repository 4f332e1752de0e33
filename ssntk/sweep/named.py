"""Which objects a name identifies: those of libraries and of installed packages, together with their versions."""

import functools
import importlib.metadata
import json
import pathlib
import sys
import sysconfig
import types
from collections.abc import Iterator

import numpy as np

from ssntk.compiled import BUILT_ON

# Libraries, whose functions are identified by their names.
LIBRARIES = ("ssntk", *BUILT_ON, "scipy")
# The folder of the standard library.
STANDARD = pathlib.Path(sysconfig.get_paths()["stdlib"])


def named(value: object) -> str | None:
    """The name of a module, function or class of a library or an installed package; `None` for anything else."""
    if isinstance(value, types.ModuleType):
        return library(value.__name__, getattr(value, "__file__", None))
    if isinstance(value, np.ufunc):
        spaces = [np, sys.modules.get("scipy.special")]
        held = (space for space in spaces if getattr(space, value.__name__, None) is value)
        return next((f"{space.__name__}.{value.__name__}" for space in held), None)
    name, module = getattr(value, "__qualname__", None), sys.modules.get(_module_of(value))
    if not isinstance(name, str) or module is None:
        return None
    where = library(module.__name__, getattr(module, "__file__", None))
    if where is None:
        return None
    held: object = module
    for part in name.split("."):
        held = getattr(held, part, None)
    if held is not value:
        return None
    # For objects of this package the module does not matter, since it may change.
    return f"ssntk.{name}" if module.__name__.startswith("ssntk.") else f"{where}.{name}"


def foreign(function: types.FunctionType) -> bool:
    """Whether a function was written in a library or an installed package. It need not have a name there."""
    # The function's `__module__` is not used, since a wrapper has that of the function that it wraps.
    space = function.__globals__
    return library(str(space.get("__name__", "")), space.get("__file__")) is not None


def _module_of(value: object) -> str:
    name = getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


@functools.cache
def library(name: str, file: str | None) -> str | None:
    """The name of a library's module; for an installed package, with its version; `None` for a user's own module."""
    top = name.partition(".")[0]
    if top in LIBRARIES:
        return name
    # A user's own file may have the name of a module of the standard library.
    path = None if file is None else pathlib.Path(file)
    if top in sys.stdlib_module_names and (path is None or STANDARD in path.parents):
        return name
    version = None if path is None else _installed(top, path)
    return None if version is None else f"{name} {version}"


def _installed(top: str, file: pathlib.Path) -> str | None:
    """The version of the installed package that a file belongs to; `None` for a user's own, which changes without one."""
    if not {"site-packages", "dist-packages"}.intersection(file.parts):
        return None
    found = None
    for name in _names(top):
        try:
            found = importlib.metadata.distribution(name)
            break
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    if found is None or pathlib.Path(str(found.locate_file(""))).resolve() not in file.resolve().parents:
        return None
    # Installed from a folder or a repository, and not from an index.
    try:
        source = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        source = {}
    return None if {"dir_info", "vcs_info"}.intersection(source) else found.version


def _names(top: str) -> Iterator[str]:
    """Possible names of the package that holds a module. Most are named like the module; looking for others takes longer."""
    yield top
    yield from _distributions().get(top, ())


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
