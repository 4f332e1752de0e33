"""The hashes of plans in earlier versions, which hashed text. Stores of those versions are recognised by them."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import PyTree


def older(parts: Callable[[Callable[..., list[object]]], Iterable[object]]) -> set[str]:
    """The hashes of a plan in earlier versions. `parts(traced)` gives its parts one after another.

    There may be two hashes, since the text of traced functions had colours if standard output was a terminal. There are none
    if the plan had no such hash.
    """
    found = set()
    for colour in (False, True):
        try:
            found.add(_digest(parts(lambda *function, colour=colour: list(_traced(colour, *function)))))
        # Some plans that have a structure could not be written as text.
        except Exception:
            continue
    return found


def _digest(parts: Iterable[object]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        if eqx.is_array(part) or isinstance(part, np.ndarray):
            array = np.asarray(part)
            sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            sha.update(repr(part).encode())
    return sha.hexdigest()[:16]


def _traced(colour: bool, function: Callable[..., PyTree], *arguments: PyTree) -> Iterator[object]:
    traced = jax.make_jaxpr(function)(*arguments)
    text = traced.jaxpr.pretty_print(use_color=colour)
    yield from _parts(text, traced)
    if "custom_jvp" in text or "custom_vjp" in text:
        moving, still = eqx.partition(arguments, lambda leaf: eqx.is_inexact_array(leaf) or hasattr(leaf, "dtype"))

        def derivative(moving: PyTree, tangents: PyTree) -> PyTree:
            return jax.jvp(lambda moving: function(*eqx.combine(moving, still)), (moving,), (tangents,))

        again = jax.make_jaxpr(derivative)(moving, moving)
        yield from _parts(again.jaxpr.pretty_print(use_color=colour), again)


def _parts(text: str, traced: ClosedJaxpr) -> Iterator[object]:
    yield re.sub(r"0x[0-9a-f]+", "", text)
    yield from traced.consts
    yield from _held(traced.jaxpr)


def _held(jaxpr: Jaxpr | ClosedJaxpr) -> list[object]:
    """The arrays that functions inside a jaxpr close over, which its text does not show."""
    found: list[object] = []
    for equation in jaxpr.eqns:
        found += [value for var in equation.invars if np.ndim(value := getattr(var, "val", 0.0)) > 0]
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found += [*getattr(part, "consts", []), *_held(part)]
    return found
