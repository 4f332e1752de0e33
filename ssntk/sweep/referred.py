"""What a function's code refers to, by following its instructions: `package.module.SIZE` is that number, and no module."""

import builtins
import dis
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

from ssntk.sweep.named import library, named

GLOBAL, CELL, LOCAL = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_DEREF", "LOAD_CLASSDEREF"), ("LOAD_FAST",)
ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")


def referred(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function closes over, then the globals that it and the functions inside of it look up, and what they import:
    names, and what these stand for."""
    code, spaces = function.__code__, function.__globals__
    chains = _chains(code)
    for number, (name, cell) in enumerate(zip(code.co_freevars, function.__closure__ or (), strict=True)):
        held = _content(cell)
        # What a closed-over variable is called computes nothing.
        for path, value in _followed(held, [chain for kind, chain in chains if kind in CELL and chain[0] == name]):
            yield f"cell {number} {path}", _uncounted(code, "STORE_DEREF", name, value)
    for name in sorted({chain[0] for kind, chain in chains if kind in GLOBAL}):
        if name in spaces:
            for path, value in _followed(spaces[name], [c for kind, c in chains if kind in GLOBAL and c[0] == name]):
                yield f"{name}{path}", _uncounted(code, "STORE_GLOBAL", name, value)
        else:
            yield name, hasattr(builtins, name)
    yield from sorted(_imported(code, spaces), key=lambda pair: pair[0])


def written(code: types.CodeType, by: str) -> set[str]:
    """The names that this code itself writes."""
    return {at.argval for at in dis.get_instructions(code) if at.opname == by}


def _uncounted(code: types.CodeType, by: str, name: str, value: Any) -> Any:
    """A number that the function itself counts is no part of what it computes."""
    return "counted" if type(value) is int and name in written(code, by) else value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _inner(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _inner(const)


def _chains(code: types.CodeType) -> set[tuple[str, tuple[str, ...]]]:
    """What is loaded, here and in functions inside of it, with the attributes that are taken of it at once."""
    found = set()
    for one in _inner(code):
        steps = [at for at in dis.get_instructions(one) if at.opname not in ("PRECALL", "CACHE", "NOP", "PUSH_NULL")]
        for i, at in enumerate(steps):
            if at.opname in (*GLOBAL, *CELL, *LOCAL):
                attributes = []
                while i + 1 < len(steps) and steps[i + 1].opname in ATTRIBUTE:
                    i += 1
                    attributes.append(steps[i].argval)
                found.add((at.opname, (at.argval, *attributes)))
    return found


def _followed(value: Any, chains: list[tuple[str, ...]]) -> Iterator[tuple[str, Any]]:
    """`value`, or, of a user's module, the attributes that are taken of it."""
    if not isinstance(value, types.ModuleType) or named(value) is not None or not chains:
        yield "", value
        return
    for chain in sorted(set(chains)):
        held: Any = value
        path = ""
        for attribute in chain[1:]:
            if not isinstance(held, types.ModuleType) or named(held) is not None:
                break
            held, path = getattr(held, attribute, "missing"), f"{path}.{attribute}"
        yield path, held


def _imported(code: types.CodeType, spaces: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What functions import while they run."""
    for one in _inner(code):
        steps = list(dis.get_instructions(one))
        for i, at in enumerate(steps):
            if at.opname != "IMPORT_NAME":
                continue
            level = next((step.argval for step in reversed(steps[:i]) if type(step.argval) is int), 0)
            name, top = f"{'.' * level}{at.argval}", at.argval.partition(".")[0]
            if level == 0 and library(top, None) is not None:
                continue
            module = _module(name, spaces)
            taken = []
            for step in steps[i + 1 :]:
                if step.opname == "IMPORT_FROM":
                    taken.append(step.argval)
                elif step.opname not in ("STORE_FAST", "STORE_DEREF", "STORE_NAME", "SWAP", "POP_TOP"):
                    break
            if module is None or named(module) is not None:
                yield f"import {at.argval}", named(module)
            elif taken:
                for attribute in taken:
                    yield f"import {name} {attribute}", getattr(module, attribute, "missing")
            else:
                variable = steps[i + 1].argval
                chains = [chain for kind, chain in _chains(one) if kind in LOCAL and chain[0] == variable]
                for path, value in _followed(sys.modules.get(top, module), chains):
                    yield f"import {name}{path}", value


def _module(name: str, spaces: dict[str, Any]) -> Any:
    try:
        return importlib.import_module(importlib.util.resolve_name(name, spaces.get("__package__") or ""))
    # A function may run where its import is never reached.
    except Exception:
        return None
