"""What a plan computes, as a hash: functions enter as the operations that JAX traces of them, numbers as they are."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import numpy as np


def digest(parts: Iterable[Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of arrays, by type, shape and bytes, and of what else there is, by its `repr`."""
    sha = hashlib.sha256()
    for part in parts:
        if eqx.is_array(part) or isinstance(part, np.ndarray):
            array = np.asarray(part)
            sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            sha.update(repr(part).encode())
    return sha.hexdigest()[:16]


def traced(function: Any, *arguments: Any) -> list[Any]:
    """What a function computes: the text of its jaxpr without memory addresses, and the arrays that it closes over.

    A rule of differentiation that was written by hand is not in that text: where there is one, so is what it computes.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    parts = [re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr)), *traced.consts, *_held(traced.jaxpr)]
    if "custom_jvp" in parts[0] or "custom_vjp" in parts[0]:
        moving, still = eqx.partition(arguments, lambda leaf: eqx.is_inexact_array(leaf) or hasattr(leaf, "dtype"))

        def derivative(moving: Any, tangents: Any) -> Any:
            return jax.jvp(lambda moving: function(*eqx.combine(moving, still)), (moving,), (tangents,))

        again = jax.make_jaxpr(derivative)(moving, moving)
        parts += [re.sub(r"0x[0-9a-f]+", "", str(again.jaxpr)), *again.consts, *_held(again.jaxpr)]
    return parts


def _held(jaxpr: Any) -> list[Any]:
    """The arrays that functions inside a jaxpr close over, which its text does not show."""
    found: list[Any] = []
    for equation in jaxpr.eqns:
        found += [value for var in equation.invars if np.ndim(value := getattr(var, "val", 0.0)) > 0]
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found += [*getattr(part, "consts", []), *_held(part)]
    return found
