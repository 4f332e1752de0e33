"""Every example in a docstring runs, and prints the output that is written next to it.

The output of a statement is a comment at the end of its line; output of several lines is in comments below it. Examples can
use `ssntk`, `jax`, `jnp`, `np`, `eqx`, `diffrax` and `lineax`. They compute in double precision, each in its own folder.
`python tests/test_docstrings.py` prints the differences, with the present output of each example.
"""

import ast
import contextlib
import functools
import inspect
import io
import os
import pathlib
import re
import sys
import tempfile
import textwrap
import types
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssntk

PACKAGE = pathlib.Path(__file__).parent.parent / "ssntk"
KNOWN = {"ssntk": ssntk, "jax": jax, "jnp": jnp, "np": np, "eqx": eqx, "diffrax": diffrax, "lineax": lineax}
# These examples change settings of the whole process, and are tested elsewhere (tests/test_cache.py).
ELSEWHERE = {"enable_cache"}
# These examples take over five seconds each: mostly diagrams, curves and limit cycles. They run with -m slow.
LONG = {
    *(
        "two_parameter_diagram",
        "TwoParameterDiagram",
        "Region",
        "Diagram",
        "bifurcation_curves",
        "bifurcation_curve_ensemble",
    ),
    *("CurvePoint", "KernelAlong", "limit_cycle", "CycleEvent", "CycleKernel", "cycle_signature", "collapse"),
}


def documented(path):
    """(name, docstring) of a file's classes, functions and their methods."""
    for node in ast.parse(path.read_text()).body:
        for inner in (node, *getattr(node, "body", [])) if isinstance(node, ast.ClassDef) else (node,):
            if isinstance(inner, ast.ClassDef | ast.FunctionDef):
                name = node.name if inner is node else f"{node.name}.{inner.name}"
                yield name, ast.get_docstring(inner) or ""


def examples():
    """The programs in docstrings: `file:name`, and the code."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, text in documented(path):
            for code in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
                yield f"{path.relative_to(PACKAGE)}:{name}", code


def promised(lines, statement):
    """The output that is written next to a statement, or below it."""
    own = lines[statement.lineno - 1 : statement.end_lineno]
    beside = [line.partition("  # ")[2] for line in own if "print(" in line and "  # " in line]
    below = []
    for line in lines[statement.end_lineno :]:
        if not line.startswith("# "):
            break
        below.append(line[2:])
    return "\n".join(beside or below)


def outputs(code, name="example"):
    """(promised output, actual output) of each statement that prints."""
    lines, known = code.splitlines(), dict(KNOWN)
    for statement in ast.parse(code).body:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(ast.Module([statement], []), name, "exec"), known)
        if out.getvalue():
            yield promised(lines, statement), out.getvalue().rstrip("\n")


def words(text):
    """A text without its line breaks: a matrix may stand on one line."""
    return " ".join(text.split())


@pytest.fixture
def as_users_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # With type checks, the line that calls the function is not that of the example. It warns once for each line.
    monkeypatch.setattr(sys.modules[ssntk.warn_if_near_critical.__module__], "_warned", set())
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


RUN = [
    pytest.param(name, code, id=name, marks=pytest.mark.slow if name.partition(":")[2] in LONG else ())
    for name, code in examples()
    if name.partition(":")[2] not in ELSEWHERE
]


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize(("name", "code"), RUN)
def test_an_example_prints_what_it_says(name, code):
    found = list(outputs(code, name))
    assert found, "an example prints something"
    assert [words(printed) for _, printed in found] == [words(said) for said, _ in found]


def public():
    """All functions and classes that users reach by name."""
    for name in ssntk.__all__:
        thing = getattr(ssntk, name)
        if isinstance(thing, types.ModuleType):
            for inner in getattr(thing, "__all__", None) or vars(thing):
                held = getattr(thing, inner)
                if inner[0] != "_" and callable(held) and inspect.getmodule(held).__name__.startswith(thing.__name__):
                    yield f"{name}.{inner}", held
        elif callable(thing):
            yield name, thing


@functools.cache
def defined():
    """The docstrings of everything that the files define."""
    return {
        (f"ssntk.{path.relative_to(PACKAGE.parent / 'ssntk').with_suffix('')}".replace("/", "."), name): text
        for path in PACKAGE.rglob("*.py")
        for name, text in documented(path)
    }


def test_every_public_name_has_an_example():
    found = {name: defined()[held.__module__, held.__name__] for name, held in public()}
    assert len(found) > 90
    assert [name for name, text in found.items() if "**Example:**" not in text or "```python" not in text] == []


def test_what_is_promised_is_read_beside_and_below():
    code = 'print(1)  # 1\nprint("a\\nb")\n# a\n# b\nfor i in (1, 2):\n    print(i)  # 1\nx = 3  # not printed\n'
    assert list(outputs(code)) == [("1", "1"), ("a\nb", "a\nb"), ("1", "1\n2")]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    mpl.use("agg")
    os.chdir(tempfile.mkdtemp())
    for name, code in examples():
        if name.partition(":")[2] not in ELSEWHERE:
            with warnings.catch_warnings():
                now = [
                    f"{printed!r}, not {said!r}" for said, printed in outputs(code, name) if words(said) != words(printed)
                ]
            print(textwrap.indent("\n".join([f"{name} prints", *now]), "  ") if now else f"{name}: as it says", flush=True)
