"""What a function's code refers to, found by following its instructions.

If the code uses `package.module.SIZE`, it refers to that number, and not to the module.
"""

import builtins
import dis
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from types import CellType
from typing import Any

from ssntk.sweep.named import library, named

GLOBAL, CELL, LOCAL = (
    ("LOAD_GLOBAL", "LOAD_NAME"),
    ("LOAD_DEREF", "LOAD_CLASSDEREF"),
    ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"),
)
CONST = ("LOAD_CONST", "LOAD_SMALL_INT")
ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
SILENT = ("PRECALL", "CACHE", "NOP", "PUSH_NULL", "RESUME")


def referred(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """The names that a function uses, with their values.

    These are the variables that it closes over, then the globals and imports that it and the functions inside it use.
    """
    code, spaces = function.__code__, function.__globals__
    chains, counts = _chains(code), counted(code)
    for number, (name, cell) in enumerate(zip(code.co_freevars, function.__closure__ or (), strict=True)):
        # The name of a closed-over variable does not affect what is computed.
        for path, value in _followed(_content(cell), [chain for kind, chain in chains if kind in CELL and chain[0] == name]):
            yield f"cell {number} {path}", _still(value, name, counts)
    for name in sorted({chain[0] for kind, chain in chains if kind in GLOBAL}):
        if name in spaces:
            for path, value in _followed(spaces[name], [c for kind, c in chains if kind in GLOBAL and c[0] == name]):
                yield f"{name}{path}", _still(value, name, counts)
        else:
            yield name, hasattr(builtins, name)
    yield from sorted(_imported(code, spaces), key=lambda pair: pair[0])


def counted(code: types.CodeType) -> set[tuple[str, str]]:
    """The names that this code counts up, as in `name += 1`, `.name += 1` or `name[0] += 1`, and those of lists it
    extends."""
    found = set()
    for one in _inner(code):
        steps = [at for at in dis.get_instructions(one) if at.opname not in (*SILENT, "COPY", "SWAP")]
        for i, at in enumerate(steps[:-1]):
            if at.opname == "BINARY_OP" and at.argrepr in ("+=", "-=") and i >= 2 and steps[i - 1].opname in CONST:
                into, of = steps[i + 1], steps[i - 2]
                if into.opname in ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR") and into.argval == of.argval:
                    found.add(("attribute" if into.opname == "STORE_ATTR" else "name", into.argval))
                elif into.opname == "STORE_SUBSCR" and i >= 4:
                    found.add(("entry", steps[i - 4].argval))
            elif at.opname in ATTRIBUTE and at.argval == "append" and i >= 1:
                found.add(("list", steps[i - 1].argval))
    return found


def _still(value: object, name: str, counts: set[tuple[str, str]]) -> object:
    """A value without what a function counts in it, since a count does not affect what the function computes."""
    if type(value) is int and ("name", name) in counts:
        return "counted"
    if type(value) is list and ("list", name) in counts:
        return "added to"
    if type(value) in (list, dict) and ("entry", name) in counts:
        entries: Any = value.values() if type(value) is dict else value
        blank = ["counted" if type(one) is int else one for one in entries]
        return [*value, *blank] if type(value) is dict else blank
    return value


def _content(cell: CellType) -> object:
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
    """The names that are loaded here and in inner functions, each with the attributes that are taken of it directly."""
    found = set()
    for one in _inner(code):
        steps = [at for at in dis.get_instructions(one) if at.opname not in SILENT]
        for i, at in enumerate(steps):
            if at.opname in (*GLOBAL, *CELL, *LOCAL):
                attributes = []
                while i + 1 < len(steps) and steps[i + 1].opname in ATTRIBUTE:
                    i += 1
                    attributes.append(steps[i].argval)
                found.add((at.opname, (at.argval, *attributes)))
    return found


def _followed(value: object, chains: list[tuple[str, ...]]) -> Iterator[tuple[str, object]]:
    """`value`; if it is a user's module, the attributes that are taken of it instead."""
    if not isinstance(value, types.ModuleType) or named(value) is not None or not chains:
        yield "", value
        return
    for chain in sorted(set(chains)):
        held: object = value
        path = ""
        for attribute in chain[1:]:
            if not isinstance(held, types.ModuleType) or named(held) is not None:
                break
            held, path = getattr(held, attribute, "missing"), f"{path}.{attribute}"
        yield path, held


def _imported(code: types.CodeType, spaces: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What this code and inner functions import while they run."""
    for one in _inner(code):
        steps = list(dis.get_instructions(one))
        for i, at in enumerate(steps):
            if at.opname != "IMPORT_NAME":
                continue
            level = next((step.argval for step in reversed(steps[:i]) if type(step.argval) is int), 0)
            name, top = f"{'.' * level}{at.argval}", at.argval.partition(".")[0]
            if level == 0 and library(top, getattr(sys.modules.get(top), "__file__", None)) is not None:
                continue
            module, rest = _module(name, spaces), steps[i + 1 :]
            if module is None or named(module) is not None:
                yield f"import {at.argval}", named(module)
            elif steps[i - 1].argval is not None:
                # from module import these
                names: tuple[str, ...] = steps[i - 1].argval
                for attribute in names:
                    yield f"import {name} {attribute}", getattr(module, attribute, "missing")
            else:
                # `import a.b` is called a, and `import a.b as c` is a.b.
                variable = next((step.argval for step in rest if step.opname.startswith("STORE_")), "")
                bound = module if rest[0].opname == "IMPORT_FROM" or variable != top else sys.modules.get(top, module)
                chains = [chain for kind, chain in _chains(one) if kind in LOCAL and chain[0] == variable]
                for path, value in _followed(bound, chains):
                    yield f"import {name}{path}", value


def _module(name: str, spaces: dict[str, Any]) -> object:
    try:
        return importlib.import_module(importlib.util.resolve_name(name, spaces.get("__package__") or ""))
    # The import may fail here although the function never reaches it.
    except Exception:
        return None
