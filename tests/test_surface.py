"""What users rely on, as text: the public names with their signatures, and the sentences in the package.

`tests/reference/surface.txt` holds every public name, with the members and fields of classes; parameters are written with
their defaults and without annotations. `tests/reference/sentences.txt` holds every string of three words or more in the
sources except docstrings, with `…` for each value that is put in. The place of a string does not matter, so that moving code
changes neither file. A git diff of the two shows what a change means for users.

`python tests/test_surface.py` writes both files again.
"""

import ast
import dataclasses
import enum
import inspect
import pathlib
import re
import textwrap
import types

import pytest

import ssntk

ROOT = pathlib.Path(__file__).parent.parent
FILES = {name: ROOT / "tests" / "reference" / f"{name}.txt" for name in ("surface", "sentences")}
# Methods that Python calls for a user: `result[0]`, `model(x)`, `with pool:`.
CALLED = {"__call__", "__len__", "__getitem__", "__iter__", "__contains__", "__enter__", "__exit__"}
PUT_IN = re.compile(r"\{\w*(?:[.!:\[][^{}]*)?\}")
# Strings of fewer words are names, units or parts of these.
WORDS = 3


class Shown:
    """An object that is printed as the text from which it was made."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def value(held):
    """A default as it would be typed, without addresses in memory."""
    if callable(held):
        return getattr(held, "__qualname__", type(held).__name__)
    if isinstance(held, enum.Enum):
        return str(held)
    if isinstance(held, tuple):
        return f"({', '.join(map(value, held))}{',' if len(held) == 1 else ''})"
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(held).split()))


def signature(fn):
    """The parameters of a function in brackets, with their kinds and defaults."""
    try:
        taken = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        # Such as Python's own exceptions, which take anything.
        return "(...)"
    plain = []
    for one in taken:
        default = one.default if one.default is one.empty else Shown(value(one.default))
        plain.append(inspect.Parameter(one.name, one.kind, default=default))
    return str(inspect.Signature(plain))


def fields(cls):
    """(name, default as text) of a dataclass, an equinox module or a named tuple, in order; no text: no default."""
    if dataclasses.is_dataclass(cls):
        for one in dataclasses.fields(cls):
            made = one.default_factory is not dataclasses.MISSING
            text = "made anew" if made else value(one.default) if one.default is not dataclasses.MISSING else ""
            yield one.name, text
    elif hasattr(cls, "_fields"):
        for name in cls._fields:
            yield name, value(cls._field_defaults[name]) if name in cls._field_defaults else ""
    elif issubclass(cls, enum.Enum):
        for one in cls:
            yield one.name, value(one.value)


def members(cls):
    """(name, description) of the members of a class that this package defines, including those that Python calls."""
    own = [one for one in cls.__mro__ if one.__module__.startswith("ssntk")]
    names = sorted({name for one in own for name in vars(one) if name[0] != "_" or name in CALLED})
    known = dict(fields(cls))
    for name in names:
        raw = inspect.getattr_static(cls, name)
        if name in known or name in ("n_state", "n_input", "n_output"):
            # Sizes of models are fields or properties, as it suits.
            continue
        if isinstance(raw, property) or hasattr(raw, "func"):
            yield name, ": property"
        elif callable(getattr(cls, name)):
            yield name, signature(getattr(cls, name))
        elif not isinstance(raw, types.MemberDescriptorType):
            yield name, f" = {value(getattr(cls, name))}"
    if not dataclasses.is_dataclass(cls) and "__init__" in vars(cls):
        made = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(vars(cls)["__init__"]))))
        targets = [part for node in made if isinstance(node, ast.Assign | ast.AnnAssign) for part in ast.walk(node)]
        for part in targets:
            if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and part.attr[0] != "_":
                yield part.attr, ": attribute"


def described(name, thing):
    """The lines about one public name."""
    if isinstance(thing, types.ModuleType):
        yield f"{name}: module"
        listed = getattr(thing, "__all__", None) or [
            one for one, held in vars(thing).items() if getattr(held, "__module__", "") == thing.__name__ and one[0] != "_"
        ]
        for one in listed:
            yield from described(f"{name}.{one}", getattr(thing, one))
    elif isinstance(thing, type):
        kind = "class, abstract" if inspect.isabstract(thing) else "class"
        if issubclass(thing, BaseException):
            kind = f"exception, a {next(one.__name__ for one in thing.__mro__ if one.__module__ == 'builtins')}"
        yield f"{name}: {kind}{signature(thing)}"
        held = [(one, text) for one, text in fields(thing) if one[0] != "_"]
        for one, text in held:
            yield f"{name}.{one}: field{f' = {text}' if text else ''}"
        if held and not {one for one, _ in held} <= set(inspect.signature(thing).parameters):
            # Otherwise the constructor's parameters are in their order.
            yield f"{name}: fields in order: {', '.join(one for one, _ in held)}"
        for one, what in members(thing):
            yield f"{name}.{one}{what}"
    elif callable(thing):
        yield f"{name}{signature(thing)}"
    else:
        yield f"{name}: {type(thing).__name__}"


def surface():
    """Every public name, one item a line."""
    lines = {line for name in ssntk.__all__ for line in described(f"ssntk.{name}", getattr(ssntk, name))}
    return sorted(lines, key=lambda line: (re.split(r"[^\w.]", line)[0], line))


class Sentences(ast.NodeVisitor):
    """The strings of a program, without documentation, types and keys."""

    def __init__(self):
        self.found = set()

    def said(self, text):
        # Texts of several lines, such as a schema, line by line.
        for words in map(str.split, text.splitlines()):
            if len(words) >= WORDS:
                self.found.add(" ".join(words))

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            # What `format` puts in, as what an f-string does.
            self.said(PUT_IN.sub("…", node.value))

    def visit_JoinedStr(self, node):
        self.said("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Expr(self, node):
        # A string alone is documentation.
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Subscript(self, node):
        # Dimensions of jaxtyping, and keys.
        self.visit(node.value)
        for part in ast.walk(node.slice):
            if isinstance(part, ast.Call):
                self.visit(part)

    def visit_arg(self, node):
        pass

    def visit_AnnAssign(self, node):
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node):
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)


def sentences():
    """Every string of three words or more in the sources."""
    visitor = Sentences()
    for path in (ROOT / "ssntk").rglob("*.py"):
        visitor.visit(ast.parse(path.read_text()))
    return sorted(visitor.found)


MADE = {"surface": surface, "sentences": sentences}


@pytest.mark.parametrize("name", MADE)
def test_what_users_rely_on_is_what_is_written_down(name):
    stored, found = FILES[name].read_text().splitlines(), MADE[name]()
    lost = [f"- {line}" for line in stored if line not in set(found)]
    added = [f"+ {line}" for line in found if line not in set(stored)]
    if stored != found:
        anew = "if it should, write it anew with: python tests/test_surface.py"
        pytest.fail("\n".join([f"the {name} changed; {anew}", *lost, *added]), pytrace=False)


def test_where_code_stands_changes_no_sentence():
    def found(code):
        visitor = Sentences()
        visitor.visit(ast.parse(code))
        return visitor.found

    message = """raise ValueError(f"{name} must be one of {' or '.join(known)}, got {got!r:>8}")"""
    alone = found(message)
    assert alone == {"… must be one of …, got …"}
    assert found(f'class A:\n    """A class of one method."""\n    def f(self, x: "a b c"):\n        {message}') == alone
    assert found(message.replace("must be", "has to be")) != alone
    assert found('raise ValueError("{name} must be one of {known}, got {got!r:>8}".format(**held))') == alone
    assert found("say('one two' if short else 'one two three')") == {"one two three"}


if __name__ == "__main__":
    for name, made in MADE.items():
        FILES[name].write_text("\n".join(made()) + "\n")
