"""Functions that make models, found by the names that `ssntk check` and sweep files give.

This file imports nothing that imports JAX, since the command line must configure JAX first.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from ssntk.foreign import UsageError, argument_of, foreign


def function_named(name: str, *folders: str) -> Callable[..., Any]:
    """The function that `package.module:function` names. The module is also looked for in the current folder and in these.

    Raises `UsageError` if there is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"{name!r} must be package.module:function")
    for folder in (*folders, os.getcwd()):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    with foreign(f"{name!r} cannot be imported"):
        make = getattr(importlib.import_module(module), attribute)
    if not callable(make):
        raise UsageError(f"{name!r} is not a function of a key")
    return make


def seed_argument(make: Callable[..., object]) -> str | None:
    """The name of the argument that takes the seed: `seed` (an int) or `key`, or else the only argument.

    `None` if that argument has no name. Raises `ValueError` if there is no such argument.
    """
    try:
        names = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in ("seed", "key") if name in names), None) or argument_of(make)
