"""What a plan computes, as hashes of its structure, never of text for people, which differs between terminals.

Functions that JAX traces enter as their operations, numbers by dtype, shape and bytes, random keys by their data. What is
not traced, such as the norm that a solver takes or a function that JAX calls back, enters by its name where a library holds
it, and else by its code and by all that this refers to.
"""

import builtins
import dataclasses
import dis
import enum
import functools
import hashlib
import pathlib
import re
import sys
import sysconfig
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ssntk.compiled import BUILT_ON

# What only says how a function is to be called, whose operations are walked as if they stood in its place.
CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# Functions whose derivative is a rule that their operations do not show.
RULED = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# What says nothing of what an operation computes: names, where it runs, and what is kept for derivatives.
IDLE = ("name", "sharding", "out_sharding", "ctx_mesh", "weak_type", "policy", "prevent_cse", "debug_info")
PRINTS = ("debug_callback", "debug_print")
# Of a class, what Python makes of the rest.
MADE = ("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__firstlineno__", "__static_attributes__")
MADE += ("__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__orig_bases__", "__slots__")
# Libraries, whose functions are known by their names.
LIBRARIES = ("ssntk", *BUILT_ON, "scipy")
# The folder of the standard library.
STANDARD = pathlib.Path(sysconfig.get_paths()["stdlib"])


def digest(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of a structure: equal ones have equal digests in every process."""
    return _Described().of(value).hexdigest()[:16]


def digests(parts: dict[str, Any]) -> dict[str, str]:
    """The digest of each part of a plan, by its name.

    Parts that are `None` are left out, so that a plan without what a later version offers stays the same plan.
    """
    return {name: digest(part) for name, part in parts.items() if part is not None}


def probe_parts(given: Any, fitted: Any) -> dict[str, Any]:
    """What counts of a probe: as it was given, and as it fits a model and a frequency."""
    us = fitted.us
    return {
        "probe.ts": fitted.ts,
        "probe.us": Traced(us, jax.ShapeDtypeStruct((), fitted.ts.dtype)) if callable(us) else us,
        # A frequency that is left to the bifurcation is another plan than any that is given.
        "probe.us.frequency": "that of the bifurcation" if given.at_frequency(1.0) is not given else None,
        "probe.x0": "the fixed point" if given.x0 is None else fitted.x0,
        "probe.mask": fitted.mask,
    }


class Traced:
    """What `function` computes of arguments like these: the operations that JAX traces, and those of its derivative where
    that is a rule that was written by hand."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.jaxprs = [jax.make_jaxpr(function)(*arguments)]
        if primitives(self.jaxprs[0].jaxpr).intersection(RULED):
            moving, still = eqx.partition(arguments, _moves)

            def derivative(moving: Any, tangents: Any) -> Any:
                return jax.jvp(lambda moving: function(*eqx.combine(moving, still)), (moving,), (tangents,))

            self.jaxprs.append(jax.make_jaxpr(derivative)(moving, moving))


def _moves(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def primitives(jaxpr: Any) -> set[str]:
    """The names of all operations in a jaxpr, of functions inside of it too."""
    found: set[str] = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found |= primitives(getattr(part, "jaxpr", part))
    return found


class _Described:
    """Walks a structure, and hashes what it meets."""

    def __init__(self):
        self.sha = hashlib.sha256()
        # What is being walked, so that what refers to itself ends.
        self.open: list[int] = []

    def of(self, value: Any) -> Any:
        self.add(value)
        return self.sha

    def put(self, kind: str, data: bytes | str = b"") -> None:
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.sha.update(f"{kind} {len(data)} ".encode() + data)

    def add(self, value: Any) -> None:
        if isinstance(value, np.generic):
            self.add(value.item())
        elif value is None or value is ... or type(value) in (bool, int, float, complex, str, bytes):
            # The shortest text that gives back a number is one for each.
            self.put(type(value).__name__, value if isinstance(value, (str, bytes)) else repr(value))
        elif isinstance(value, (np.ndarray, jax.Array)):
            self.array(value)
        elif isinstance(value, (np.dtype, jnp.dtype)) or (isinstance(value, type) and issubclass(value, np.generic)):
            self.put("dtype", np.dtype(value).name)
        elif type(value) in (list, tuple):
            self.many("sequence", value)
        elif type(value) is dict:
            self.unordered("dict", value.items())
        elif isinstance(value, (set, frozenset)):
            self.unordered("set", value)
        elif isinstance(value, Traced):
            self.many("traced", value.jaxprs)
        elif isinstance(value, ClosedJaxpr):
            self.jaxpr(value.jaxpr, value.consts)
        elif isinstance(value, Jaxpr):
            self.jaxpr(value, [])
        elif type(getattr(value, "shape", None)) is tuple and hasattr(value, "dtype"):
            self.put("shape", f"{value.shape} {value.dtype}")
        elif isinstance(value, enum.Enum):
            self.many("enum", (type(value).__qualname__, value.name))
        elif isinstance(value, jax.tree_util.PyTreeDef):
            self.many("tree", (value.node_data(), value.children()))
        elif id(value) in self.open:
            self.put("itself", str(len(self.open) - self.open.index(id(value))))
        else:
            self.open.append(id(value))
            self.object(value)
            self.open.pop()

    def many(self, kind: str, values: Any) -> None:
        values = tuple(values)
        self.put(kind, str(len(values)))
        for value in values:
            self.add(value)

    def unordered(self, kind: str, values: Any) -> None:
        parts = []
        for value in values:
            part = _Described()
            part.open = self.open
            parts.append(part.of(value).digest())
        self.put(kind, b"".join(sorted(parts)))

    def array(self, value: Any) -> None:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.put("key", str(jax.random.key_impl(value)))
            value = jax.random.key_data(value)
        value = np.asarray(value)
        if value.dtype.hasobject:
            self.many("objects", (value.shape, value.ravel().tolist()))
        else:
            self.put("array", f"{value.dtype.name} {value.shape} ".encode() + value.tobytes())

    def jaxpr(self, jaxpr: Any, consts: Any) -> None:
        """The operations of a jaxpr in their order, whose variables are numbered as they come."""
        self.put("jaxpr", str(len(jaxpr.invars)))
        numbers: list[int] = [0]

        def new(var: Any) -> tuple[str, int]:
            numbers[0] += 1
            self.put("variable", f"{tuple(getattr(var.aval, 'shape', ()))} {getattr(var.aval, 'dtype', '')}")
            return "v", numbers[0]

        def walk(jaxpr: Any, consts: Any, inputs: Any) -> list[Any]:
            known: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
            for var, const in zip(jaxpr.constvars, consts, strict=False):
                self.add(const)
                known[var] = new(var)

            def read(var: Any) -> Any:
                return ("literal", np.asarray(var.val)) if isinstance(var, Literal) else known[var]

            for equation in jaxpr.eqns:
                name, params = equation.primitive.name, equation.params
                operands = [read(var) for var in equation.invars]
                inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
                if name in PRINTS:
                    continue
                if name in CALLS and hasattr(inner, "eqns"):
                    known |= zip(
                        equation.outvars,
                        walk(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands),
                        strict=True,
                    )
                    continue
                self.put("operation", name)
                self.many("of", operands)
                self.many("how", ((key, params[key]) for key in sorted(params) if not _idle(key, params[key])))
                for var in equation.outvars:
                    known[var] = new(var)
            return [read(var) for var in jaxpr.outvars]

        self.many("results", walk(jaxpr, consts, [new(var) for var in jaxpr.invars]))

    def object(self, value: Any) -> None:
        name = _name_in_library(value)
        if name is not None:
            self.put("named", name)
        elif isinstance(value, types.ModuleType):
            file = getattr(value, "__file__", None)
            self.put("module", pathlib.Path(file).read_bytes() if file and pathlib.Path(file).is_file() else value.__name__)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.many("method", (value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self.many("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, type):
            members = {key: part for key, part in vars(value).items() if key not in MADE}
            self.many("class", (value.__qualname__, value.__bases__, members))
        elif isinstance(value, (staticmethod, classmethod)):
            self.many("wrapped", (type(value).__name__, value.__func__))
        elif isinstance(value, property):
            self.many("property", (value.fget, value.fset))
        elif isinstance(value, types.CellType):
            self.add(_content(value))
        elif isinstance(value, tuple):
            self.many("named tuple", (type(value), tuple(value)))
        elif dataclasses.is_dataclass(value):
            self.many(
                "fields",
                (type(value), {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}),
            )
        elif hasattr(value, "__wrapped__"):
            self.many("around", (type(value).__name__, value.__wrapped__))
        elif hasattr(value, "__dict__") and vars(value):
            self.many("object", (type(value), vars(value)))
        else:
            try:
                parts = value.__reduce_ex__(4)
            except TypeError:
                parts = None
            # What is written down by its name alone, or not at all, is what it prints, without its address.
            if not isinstance(parts, tuple):
                parts = re.sub(r"0x[0-9a-f]+", "", repr(value))
            self.many("made of", (type(value), list(parts[:5]) if isinstance(parts, tuple) else parts))

    def function(self, value: Any) -> None:
        code = value.__code__
        self.code(code)
        self.many("defaults", (value.__defaults__, value.__kwdefaults__))
        self.many("holds", (_content(cell) for cell in value.__closure__ or ()))
        held = vars(value).get("__wrapped__")
        if held is not None:
            self.add(held)
        for name in sorted(_globals_of(code)):
            if name in value.__globals__:
                self.many("global", (name, value.__globals__[name]))
            else:
                self.many("global", (name, getattr(builtins, name, None) is not None))

    def code(self, code: types.CodeType) -> None:
        # The first constant may be what documents a function, which computes nothing.
        consts = [None if i == 0 and isinstance(const, str) else const for i, const in enumerate(code.co_consts)]
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.many("code", (code.co_code, code.co_names, code.co_exceptiontable, counts, consts))


def _idle(name: str, value: Any) -> bool:
    """Whether a parameter of an operation says nothing of what it computes. What is not set is no difference either: another
    version of JAX may have more to set."""
    return value is None or value is False or name in IDLE or type(value).__name__ == "UnspecifiedValue"


def _globals_of(code: types.CodeType) -> set[str]:
    """The global names that a function looks up, and functions inside of it."""
    names = {at.argval for at in dis.get_instructions(code) if at.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(const) for const in code.co_consts if isinstance(const, types.CodeType)))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _name_in_library(value: Any) -> str | None:
    """The name of a module, function or class of a library, or of the standard library; `None` for what is none."""
    if isinstance(value, types.ModuleType):
        return value.__name__ if _is_library(value) else None
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}" if getattr(np, value.__name__, None) is value else None
    name, module = getattr(value, "__qualname__", None), sys.modules.get(getattr(value, "__module__", None) or "")
    if not isinstance(name, str) or module is None or not _is_library(module):
        return None
    held: Any = module
    for part in name.split("."):
        held = getattr(held, part, None)
    if held is not value:
        return None
    # Where something of this package lies is its own affair.
    return f"ssntk.{name}" if module.__name__.startswith("ssntk.") else f"{module.__name__}.{name}"


def _is_library(module: Any) -> bool:
    top = module.__name__.partition(".")[0]
    if top in LIBRARIES:
        return True
    # A user's own file may be called as a module of the standard library.
    file = getattr(module, "__file__", None)
    return top in sys.stdlib_module_names and (file is None or STANDARD in pathlib.Path(file).parents)
