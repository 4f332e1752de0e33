"""The hash of a structure: numbers by their bytes, functions by their code and what it uses, objects by what they hold."""

import dataclasses
import enum
import functools
import sys
import threading
import types
import weakref
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from ssntk.sweep.graph import PLAIN, Node, Unordered, dtype_name, hashed
from ssntk.sweep.named import foreign, named
from ssntk.sweep.referred import counted, referred
from ssntk.sweep.traced import Traced, only_raises, operations

# Attributes of a class that Python makes from its other attributes.
MADE = ("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__firstlineno__", "__static_attributes__")
MADE += ("__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__orig_bases__", "__slots__")
MADE += ("__annotate__", "__annotate_func__", "__annotations_cache__", "__slotnames__")
# The same for the members of enumerations.
ENUM = ("_value_", "_name_", "__objclass__", "_sort_order_")
# Attributes that only name or document an object.
CALLED = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__type_params__", "__weakref__")
# The flags of a code object that change how it is called: *args, **kwargs, a generator, a coroutine.
FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x200
# The flag of a class that says that it was made while Python ran.
HEAP = 1 << 9
# Packages whose objects only print.
PRINTING = ("rich", "tqdm", "logging")
# Locks compute nothing.
LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.local, threading.Condition, threading.Event)


def digest(value: object) -> str:
    """16 hexadecimal digits of the SHA-256 of a structure. Equal structures have equal digests in every process.

    Raises `ValueError`, which names the part, if a part can neither be written down nor inspected.
    """
    return hashed(value, _described).hex()[:16]


def _described(value: Any, node: Node) -> None:
    if isinstance(value, Traced):
        node.many("traced", (*value.jaxprs, value.drawn))
    elif isinstance(value, ClosedJaxpr):
        operations(node, value.jaxpr, value.consts)
    elif isinstance(value, Jaxpr):
        operations(node, value, ())
    elif isinstance(value, np.dtype):
        node.put("dtype", dtype_name(value))
    elif isinstance(value, type) and issubclass(value, np.generic):
        # Some types, such as np.floating, stand for several dtypes.
        node.put("dtype", value.__name__ if value in _ABSTRACT else np.dtype(value).name)
    elif type(value) in (list, tuple):
        node.many("sequence", value)
    elif type(value) is dict:
        node.many("dict", (part for pair in value.items() for part in pair))
    elif isinstance(value, Unordered) or type(value) in (set, frozenset):
        _unordered(value, node)
    elif isinstance(value, (jax.ShapeDtypeStruct, jax.core.AbstractValue)):
        node.put("shape", f"{getattr(value, 'shape', '')} {getattr(value, 'dtype', '')} {type(value).__name__}")
    elif isinstance(value, jax.tree_util.PyTreeDef):
        node.many("tree", (value.node_data(), value.children()))
    elif isinstance(value, type(jnp.float32)):
        node.put("dtype", np.dtype(value).name)
    else:
        _object(node, value)


def _unordered(values: Any, node: Node) -> None:
    node.put("set", str(len(values)))
    # Each entry gets a node of its own. The hashes of the nodes give them an order.
    node.held, node.unordered = [(value,) for value in values], True


_ABSTRACT = (np.generic, np.number, np.integer, np.signedinteger, np.unsignedinteger, np.inexact, np.floating)
_ABSTRACT += (np.complexfloating, np.flexible, np.character)


def _object(node: Node, value: object) -> None:
    name = named(value)
    if name is not None:
        node.put("named", name)
    elif isinstance(value, types.ModuleType):
        held = {key: part for key, part in vars(value).items() if not key.startswith("__")}
        node.many("module", _flat(held))
    elif isinstance(value, types.FunctionType):
        _function(node, value)
    elif isinstance(value, types.MethodType):
        node.many("method", (value.__func__, value.__self__))
    elif isinstance(value, types.CodeType):
        _code(node, value)
    elif isinstance(value, enum.EnumMeta):
        own = {key: part for key, part in vars(value).items() if hasattr(part, "__get__") and not isinstance(part, value)}
        own = {key: part for key, part in own.items() if key not in MADE and key not in value.__members__ and key[:1] != "_"}
        node.many("enumeration", (value.__qualname__, value.__bases__, *_flat(own)))
        node.many("members", (part for one in value.__members__.items() for part in (one[0], one[1].value)))
    elif isinstance(value, enum.Enum):
        own = {key: part for key, part in _attributes(value).items() if key not in ENUM}
        node.many("enum", (type(value), value.name, value.value, *_flat(own)))
    elif isinstance(value, type) and not value.__flags__ & HEAP:
        # The type is written in C, though it may not be found by its name, as the type of functions is not.
        node.put("type", f"{value.__module__}.{value.__qualname__}")
    elif isinstance(value, type):
        members = {key: part for key, part in vars(value).items() if key not in MADE}
        node.many("class", (value.__qualname__, type(value), value.__bases__, *_flat(members)))
    elif isinstance(value, (staticmethod, classmethod)):
        node.many("wrapped", (type(value).__name__, value.__func__))
    elif isinstance(value, property):
        node.many("property", (value.fget, value.fset))
    elif isinstance(value, types.CellType):
        node.many("cell", () if value == types.CellType() else (value.cell_contents,))
    elif isinstance(value, memoryview):
        node.many("memory", (value.format, value.shape, value.tobytes()))
    elif isinstance(value, weakref.ReferenceType):
        node.many("weak", (value(),))
    elif isinstance(value, (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)):
        node.put("a cache")
    elif isinstance(value, types.MappingProxyType):
        node.many("proxy", (dict(value),))
    elif type(value) in LOCKS or _prints(value):
        node.put("computes nothing", type(value).__qualname__)
    elif type(value).__name__ == "_Environ":
        node.put("the environment")
    else:
        _instance(node, value)


def _prints(value: object) -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return any(value is one for one in streams) or type(value).__module__.partition(".")[0] in PRINTING


def _instance(node: Node, value: Any) -> None:
    """What an object holds: first the builtin type that it extends, such as a list or a number, then its attributes."""
    kind, known = type(value), True
    if kind.__module__.startswith("scipy.sparse") and hasattr(value, "tocsr"):
        plain = value.tocsr(copy=True)
        plain.sum_duplicates()
        node.many("sparse", (kind, plain.shape, plain.indptr, plain.indices, plain.data))
        return
    if isinstance(value, np.ma.MaskedArray):
        node.many("masked", (kind, np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value))
        return
    if isinstance(value, np.ndarray):
        node.array(np.asarray(value))
    elif isinstance(value, (list, tuple)) or _is(value, "collections", "deque"):
        node.many("sequence", value)
    elif isinstance(value, dict):
        node.many("dict", (part for pair in dict.items(value) for part in pair))
    elif isinstance(value, (set, frozenset)):
        node.many("set", (Unordered(value),))
    elif isinstance(value, PLAIN):
        base: type = next(base for base in PLAIN if isinstance(value, base))
        node.plain("".join(value) if isinstance(value, str) else base(value), base)
    else:
        known = False
    node.many("of", (kind,))
    own = _uncounted(_attributes(value), (part for base in kind.__mro__ for part in vars(base).values()))
    parts = _reduced(value) if _reduces(kind) or not (known or _looked_into(value)) else None
    if isinstance(parts, str):
        # Some objects are written down by name only, as `module.NAME`.
        module = sys.modules.get(str(getattr(value, "__module__", "builtins")))
        parts = (f"{module.__name__}.{parts}",) if module and getattr(module, parts, None) is value else None
    if parts is not None:
        node.many("made of", (part if i < 3 or part is None else list(part) for i, part in enumerate(parts[:5])))
    elif not (known or _looked_into(value) or kind.__module__.startswith("jaxlib")):
        raise ValueError(
            f"it holds {_short(value)}, a {kind.__module__}.{kind.__qualname__}, which can neither be written down nor be "
            "looked into: use arrays, numbers and functions of a module instead"
        )
    if parts is None or known:
        node.many("holds", _flat(own))


def _is(value: object, module: str, name: str) -> bool:
    return any(base.__module__ == module and base.__qualname__ == name for base in type(value).__mro__)


def _reduces(kind: type) -> bool:
    """Whether a class defines how it is pickled."""
    import copyreg

    if kind in copyreg.dispatch_table:
        return True
    own = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(kind, name, None) is not getattr(object, name, None) for name in own)


def _reduced(value: object) -> Any:
    """What an object is pickled as; `None` if it cannot be."""
    import copyreg

    try:
        own = copyreg.dispatch_table.get(type(value))
        return value.__reduce_ex__(4) if own is None else own(value)
    # Whatever an object raises that refuses.
    except Exception:
        return None


def _looked_into(value: object) -> bool:
    """Whether the attributes of an object are all that it holds: nothing in it is visible to C code only."""
    try:
        object.__reduce_ex__(value, 4)
    # Whatever an object raises that refuses.
    except Exception:
        return False
    return True


def _attributes(value: object) -> dict[str, object]:
    """The attributes of an object, in its `__dict__` and its slots, except those that follow from others."""
    found: dict[str, object] = {}
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    found[f"{kind.__name__}.{name}"] = member.__get__(value)
                except AttributeError:
                    continue
    held = getattr(value, "__dict__", None)
    for name, part in dict.items(held) if isinstance(held, dict) else ():
        if name in CALLED or (isinstance(value, np.vectorize) and name == "_ufunc") or str(name).endswith("__adj"):
            continue
        if not isinstance(getattr(type(value), str(name), None), functools.cached_property):
            found[name] = part
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The value of a field may be that of its class.
        found |= {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
    return found


def _flat(held: dict[str, object]) -> list[object]:
    """Names and their values, ordered by name."""
    return [part for name in sorted(held, key=str) for part in (name, held[name])]


def _short(value: object) -> str:
    text = object.__repr__(value) if "__repr__" not in vars(type(value)) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _function(node: Node, value: types.FunctionType) -> None:
    # A function that never returns computes nothing.
    if only_raises(value):
        node.put("raises")
        return
    if foreign(value):
        # A library made this function. Neither what its module holds at the moment nor its texts, which are for people,
        # count.
        node.put("made by", f"{value.__globals__.get('__name__')}.{value.__code__.co_qualname}")
        node.add(value.__code__)
        held = (pair[1] for pair in referred(value) if pair[0].startswith("cell "))
        node.many("holds", (part for part in held if not _is_text(part)))
        node.many("defaults", (value.__defaults__, value.__kwdefaults__))
        return
    node.many("function", (value.__code__, value.__defaults__, value.__kwdefaults__))
    for name, part in referred(value):
        node.many("refers", (name, part))
    own = {key: part for key, part in _attributes(value).items() if not key.startswith("function.")}
    node.many("holds", _flat(_uncounted(own, [value])))


def _uncounted(held: dict[str, object], functions: Iterable[object]) -> dict[str, object]:
    """The attributes of an object, without numbers that its own functions only count up."""
    if not any(type(part) is int for part in held.values()):
        return held
    codes = [function.__code__ for function in functions if isinstance(function, types.FunctionType)]
    names = {name for code in codes for kind, name in counted(code) if kind == "attribute"}
    return {key: part for key, part in held.items() if type(part) is not int or key not in names}


def _is_text(value: object) -> bool:
    """Whether this is text for people and not the name of an option, or bytes."""
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(one, (str, bytes)) for one in value)
    return isinstance(value, bytes) or (isinstance(value, str) and not (value.isidentifier() and len(value) < 32))


def _code(node: Node, code: types.CodeType) -> None:
    # The first constant may be the docstring of a function, which computes nothing.
    consts = [None if i == 0 and isinstance(const, str) else const for i, const in enumerate(code.co_consts)]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & FLAGS)
    node.many("code", (code.co_code, code.co_names, code.co_exceptiontable, counts, consts))
