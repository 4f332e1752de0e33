"""Compiled functions, and what they were traced to, kept between runs.

JAX keeps compiled code, but it finds that code by what a function was traced to. Tracing takes longer than measuring a small
network. So traced functions are kept too, if the variable `SSNTK_TRACED` named a folder when this module was imported, as it
does for the command line.

A traced function is found by everything that it depends on: the code of this package, the versions of the libraries that it
is built on, JAX's settings, the function, and the structure, shapes and dtypes of its arguments. If other code takes part,
such as a user's own model, the function is traced again each time. One change is not noticed: if a library is replaced while
the program runs.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import os
import pathlib
import pickle
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.stages import Wrapped
from jaxtyping import Array, PyTree

from ssntk.files import is_private, owned, write_whole
from ssntk.notices import warn_once

# Only functions of these packages are kept. Other code may change without a change of its version.
BUILT_ON = ("jax", "jaxlib", "equinox", "diffrax", "optimistix", "lineax", "jaxtyping", "numpy")
# At most so many traced functions are kept. Each takes about ten kilobytes.
MOST = 1024
# Each file begins with a checksum of this many bytes.
SUM = 32


_Kept = tuple[Callable[..., PyTree], PyTree]
_Shapes = tuple[tuple[tuple[int, ...], np.dtype, bool], ...]


def _code() -> tuple[object, ...]:
    """The code of this package, and the versions of what it is built on."""
    own = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        own.update(file.read_bytes())
    return own.hexdigest(), [importlib.metadata.version(name) for name in BUILT_ON]


# The code is read now, and not when something is kept, since it may have changed by then.
FOLDER = os.environ.get("SSNTK_TRACED", "")
CODE = _code() if FOLDER else ()


def keep_traced(folder: str) -> None:
    """Keep functions that are traced from now on in this folder."""
    global FOLDER, CODE
    FOLDER, CODE = folder, CODE or _code()


class _Rest:
    """The part of a pytree that is not arrays. Equal ones share compiled code."""

    def __init__(self, tree: PyTree):
        leaves, structure = jax.tree.flatten(tree)
        self.tree, self.key = tree, (tuple(leaves), structure)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.key == other.key

    def __reduce__(self) -> tuple[type["_Rest"], tuple[PyTree]]:
        return _Rest, (self.tree,)


class Held(eqx.Module):
    """A pytree as an argument of compiled functions: its arrays, and the rest, which is hashed once in each call."""

    arrays: PyTree
    rest: _Rest = eqx.field(static=True)

    @classmethod
    def of(cls, tree: PyTree) -> "Held":
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return cls(arrays, _Rest(rest))

    @property
    def tree(self) -> PyTree:
        """The pytree itself."""
        return eqx.combine(self.arrays, self.rest.tree)


class Compiled:
    """A compiled function. Its arguments are pytrees whose leaves are arrays.

    - `function`: a function of a module, or a `functools.partial` of one.
    - `seldom`: whether it is called a few times only, so that compiling it takes longer than running it.
    """

    def __init__(self, function: Callable[..., PyTree], *, seldom: bool = False):
        self.function, self.seldom = function, seldom
        self._known: dict[Hashable, _Program | None] = {}
        self._lock = threading.RLock()

    def __call__(self, *arguments: PyTree) -> PyTree:
        # If another thread is preparing it, this call waits.
        with self._lock:
            program = self._program(arguments)
        return self._jitted(*arguments) if program is None else program(arguments)

    def prepare(self, *like: PyTree) -> PyTree:
        """Compile for arguments like these, which are arrays or `jax.ShapeDtypeStruct`s. Returns the result as such
        structs."""
        with self._lock:
            program = self._program(like)
            lowered = self._jitted.lower(*like) if program is None else program.run.lower(*jax.tree.leaves(like))
            lowered.compile()
            # The result of an exported program is bound to its device.
            where = None if program is None else jax.sharding.SingleDeviceSharding(jax.devices()[0])
            out = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), lowered.out_info)
            return out if program is None else jax.tree.unflatten(program.out, out)

    @functools.cached_property
    def _jitted(self) -> Wrapped:
        return self._compiling(self.function)

    def _compiling(self, function: Callable[..., PyTree]) -> Wrapped:
        return jax.jit(function, compiler_options=_quickly() if self.seldom else None)

    def _program(self, arguments: tuple[PyTree, ...]) -> "_Program | None":
        """The program that is kept for arguments like these; `None` if none is kept, and none can be."""
        if not FOLDER:
            return None
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)
        settings = tuple(jax.config.values.items())
        key = FOLDER, structure, shapes, settings
        if key not in self._known:
            kept = _kept(self.function, structure, shapes, settings)
            self._known[key] = None if kept is None else _Program(self._compiling(kept[0]), jax.tree.structure(kept[1]))
        return self._known[key]


class _Program(NamedTuple):
    """A function from the leaves of the arguments to the leaves of the result, and the structure of the result."""

    run: Wrapped
    out: Any

    def __call__(self, arguments: PyTree) -> PyTree:
        return jax.tree.unflatten(self.out, self.run(*jax.tree.leaves(arguments)))


@functools.cache
def _quickly() -> dict[str, bool] | None:
    """The option for XLA's older code generator for CPUs; `None` if XLA has none.

    It compiles in half the time, and its code takes up to a tenth longer.
    """
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def _kept(function: Callable[..., PyTree], structure: Any, shapes: _Shapes, settings: tuple[object, ...]) -> _Kept | None:
    """The traced function, and an example of its result. They are read from the folder, or traced now and written there.

    `None` if the function cannot be kept.
    """
    from jax import export

    try:
        described = _described((CODE, _surroundings(), str(settings), function, _example(structure), str(shapes)))
    # Something in it has no name in versioned code, or cannot be pickled.
    except Exception:
        return None
    file = pathlib.Path(FOLDER) / hashlib.sha256(described).hexdigest()
    if not is_private(file.parent):
        return None
    held = _read(file)
    if held is not None:
        with contextlib.suppress(Exception):
            written, out = pickle.loads(held)
            return export.deserialize(written).call, out
    # If the function itself fails, its error is raised when it is called.
    try:
        exported, out = _traced(function, structure, shapes)
    except Exception:
        return None
    with contextlib.suppress(Exception):
        _write(file, _described((bytes(exported.serialize()), out)))
    return exported.call, out


def _read(file: pathlib.Path) -> bytes | None:
    """The contents of a file after its checksum; `None` if there is no file, or if it is damaged or not this user's own."""
    try:
        with open(file, "rb") as opened:
            held, data = os.fstat(opened.fileno()), opened.read()
    except OSError:
        return None
    if not owned(held) or data[:SUM] != hashlib.sha256(data[SUM:]).digest():
        warn_once(f"{file.parent} holds what is damaged or not your own: it is traced anew")
        return None
    with contextlib.suppress(OSError):
        os.utime(file)
    return data[SUM:]


def _traced(function: Callable[..., PyTree], structure: Any, shapes: _Shapes) -> tuple[Any, PyTree]:
    """The function of the leaves, as JAX exports it, and an example of its result."""
    from jax import export

    out = []

    def flat(*leaves: Array) -> list[Array]:
        returned, returned_structure = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
        out.append(_example(returned_structure))
        return returned

    given = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in shapes]
    return export.export(jax.jit(flat))(*given), out[0]


def _example(structure: Any) -> PyTree:
    """A pytree of this structure. It can be pickled, while a structure itself cannot."""
    return jax.tree.unflatten(structure, [0] * structure.num_leaves)


def _surroundings() -> tuple[object, ...]:
    """The settings of JAX that tracing depends on."""
    return sys.version, jax.default_backend(), sorted(pair for pair in os.environ.items() if pair[0].startswith("EQX_"))


def by_name(obj: object) -> str | None:
    """The name of a function or a class in a module of versioned code; `None` for others."""
    name, module = getattr(obj, "__qualname__", None), sys.modules.get(getattr(obj, "__module__", None) or "")
    if name is None or module is None:
        return None
    # Only the needed modules of the standard library are listed, since a user's own file may have the name of another one.
    if module.__name__.partition(".")[0] not in ("ssntk", *BUILT_ON, "builtins", "functools", "collections", "copyreg"):
        return None
    held = functools.reduce(lambda held, part: getattr(held, part, None), name.split("."), module)
    return name if held is obj else None


class _Pickler(pickle.Pickler):
    """Pickles functions and classes by their names in versioned code. Raises `PicklingError` for all others."""

    def reducer_override(self, obj: object) -> Any:
        name = by_name(obj)
        if name is None and (hasattr(obj, "__qualname__") or by_name(type(obj)) is None):
            raise pickle.PicklingError(f"{obj} is not of versioned code")
        return NotImplemented if name is None or isinstance(obj, type) else name


def _described(tree: PyTree) -> bytes:
    """The same bytes for equal trees in every process."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=5)
    # References to what was written before would distinguish equal objects from the same object. So they are turned off.
    pickler.fast = True
    pickler.dump(tree)
    return buffer.getvalue()


def _write(file: pathlib.Path, data: bytes) -> None:
    """Write a file completely or not at all, and delete those that have not been used for the longest time."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, hashlib.sha256(data).digest() + data, mode=0o600)
    # Other processes may be doing the same.
    with contextlib.suppress(OSError):
        own = [other for other in file.parent.iterdir() if len(other.name) == len(file.name)]
        for old in sorted(own, key=lambda other: other.stat().st_mtime)[:-MOST]:
            old.unlink(missing_ok=True)
