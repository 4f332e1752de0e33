"""Compiled functions, and what they were traced to, kept between runs.

JAX keeps compiled code, but finds it by what a function was traced to, and tracing takes longer than a small network's
measurement. Where `SSNTK_TRACED` named a folder when this was imported, as the command line has it, that is kept too, found
by all that it follows from: this package's code, the versions of what it is built on, JAX's settings, the function, and the
structure, shapes and dtypes of its arguments. What other code takes part in, a user's own model say, is traced anew; only
versioned code that is replaced while it runs is not seen.
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
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from ssntk.files import is_private, owned, write_whole
from ssntk.notices import warn_once

# What may take part in something kept: all else may change without a change of its version.
BUILT_ON = ("jax", "jaxlib", "equinox", "diffrax", "optimistix", "lineax", "jaxtyping", "numpy")
# The most that are kept, of some ten kilobytes each.
MOST = 1024
# The bytes of a checksum, with which each file begins.
SUM = 32


def _code() -> tuple[Any, ...]:
    """The code of this package, and the versions of what it is built on."""
    own = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        own.update(file.read_bytes())
    return own.hexdigest(), [importlib.metadata.version(name) for name in BUILT_ON]


# Looked at now, and not when something is kept: it may have changed by then.
FOLDER = os.environ.get("SSNTK_TRACED", "")
CODE = _code() if FOLDER else ()


def keep_traced(folder: str) -> None:
    """Keep what is traced from now on in this folder."""
    global FOLDER, CODE
    FOLDER, CODE = folder, CODE or _code()


class _Rest:
    """What is no array in a pytree; equal ones share compiled code."""

    def __init__(self, tree: Any):
        leaves, structure = jax.tree.flatten(tree)
        self.tree, self.key = tree, (tuple(leaves), structure)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Rest) and self.key == other.key

    def __reduce__(self) -> Any:
        return _Rest, (self.tree,)


class Held(eqx.Module):
    """A pytree as compiled functions take it: its arrays, and the rest, which is looked up once a call."""

    arrays: Any
    rest: _Rest = eqx.field(static=True)

    @classmethod
    def of(cls, tree: Any) -> "Held":
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return cls(arrays, _Rest(rest))

    @property
    def tree(self) -> Any:
        """What is held."""
        return eqx.combine(self.arrays, self.rest.tree)


class Compiled:
    """`function`, of a module or a `functools.partial` of one, compiled for arguments whose leaves are arrays.

    `seldom`: called a few times only, so that compiling takes longer than running.
    """

    def __init__(self, function: Callable[..., Any], *, seldom: bool = False):
        self.function, self.seldom = function, seldom
        self._known: dict[Any, _Program | None] = {}
        self._lock = threading.RLock()

    def __call__(self, *arguments: Any) -> Any:
        # What is being prepared is waited for.
        with self._lock:
            program = self._program(arguments)
        return self._jitted(*arguments) if program is None else program(arguments)

    def prepare(self, *like: Any) -> Any:
        """Compile for arguments like these, arrays or `jax.ShapeDtypeStruct`s; what is returned then, as such structs."""
        with self._lock:
            program = self._program(like)
            lowered = self._jitted.lower(*like) if program is None else program.run.lower(*jax.tree.leaves(like))
            lowered.compile()
            # What an exported program returns is bound to its device.
            where = None if program is None else jax.sharding.SingleDeviceSharding(jax.devices()[0])
            out = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), lowered.out_info)
            return out if program is None else jax.tree.unflatten(program.out, out)

    @functools.cached_property
    def _jitted(self) -> Any:
        return self._compiling(self.function)

    def _compiling(self, function: Callable[..., Any]) -> Any:
        return jax.jit(function, compiler_options=_quickly() if self.seldom else None)

    def _program(self, arguments: Any) -> "_Program | None":
        """The program that is kept for arguments like these; `None` if nothing is kept, or can be."""
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
    """A function of the leaves of its arguments to those of its result, and the structure of that."""

    run: Any
    out: Any

    def __call__(self, arguments: Any) -> Any:
        return jax.tree.unflatten(self.out, self.run(*jax.tree.leaves(arguments)))


@functools.cache
def _quickly() -> dict[str, bool] | None:
    """XLA's older code for CPUs is compiled in half the time, and takes up to a tenth more; `None` if there is none."""
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def _kept(function: Any, structure: Any, shapes: Any, settings: Any) -> tuple[Callable[..., Any], Any] | None:
    """What this function was traced to and an example of what it returns, from the folder, or traced now and put there.

    `None` if that cannot be kept.
    """
    from jax import export

    try:
        described = _described((CODE, _surroundings(), str(settings), function, _example(structure), str(shapes)))
    # What has no name, or no bytes.
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
    # What is wrong with the function itself is said where it is called.
    try:
        exported, out = _traced(function, structure, shapes)
    except Exception:
        return None
    with contextlib.suppress(Exception):
        _write(file, _described((bytes(exported.serialize()), out)))
    return exported.call, out


def _read(file: pathlib.Path) -> bytes | None:
    """What a file holds behind its checksum; `None` if there is no file, or if it is damaged or belongs to somebody else."""
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


def _traced(function: Any, structure: Any, shapes: Any) -> tuple[Any, Any]:
    """The function of the leaves as JAX exports it, and an example of what it returns."""
    from jax import export

    out = []

    def flat(*leaves: Any) -> list[Any]:
        returned, returned_structure = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
        out.append(_example(returned_structure))
        return returned

    given = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in shapes]
    return export.export(jax.jit(flat))(*given), out[0]


def _example(structure: Any) -> Any:
    """A pytree of this structure, which can be written down as structures cannot."""
    return jax.tree.unflatten(structure, [0] * structure.num_leaves)


def _surroundings() -> tuple[Any, ...]:
    """What else is looked at while something is traced."""
    return sys.version, jax.default_backend(), sorted(pair for pair in os.environ.items() if pair[0].startswith("EQX_"))


def by_name(obj: Any) -> str | None:
    """The name by which a module of versioned code holds a function or a class; `None` for others."""
    name, module = getattr(obj, "__qualname__", None), sys.modules.get(getattr(obj, "__module__", None) or "")
    if name is None or module is None:
        return None
    # Of the standard library what is needed, for a user's own file may be called as one of its modules.
    if module.__name__.partition(".")[0] not in ("ssntk", *BUILT_ON, "builtins", "functools", "collections", "copyreg"):
        return None
    held = functools.reduce(lambda held, part: getattr(held, part, None), name.split("."), module)
    return name if held is obj else None


class _Pickler(pickle.Pickler):
    """Writes functions and classes by their names in versioned code; `PicklingError` for others and what is made of them."""

    def reducer_override(self, obj: Any) -> Any:
        name = by_name(obj)
        if name is None and (hasattr(obj, "__qualname__") or by_name(type(obj)) is None):
            raise pickle.PicklingError(f"{obj} is not of versioned code")
        return NotImplemented if name is None or isinstance(obj, type) else name


def _described(tree: Any) -> bytes:
    """The same bytes for equal trees in every process."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=5)
    # Without references to what was written before, which tell equal objects from the same one.
    pickler.fast = True
    pickler.dump(tree)
    return buffer.getvalue()


def _write(file: pathlib.Path, data: bytes) -> None:
    """Write a file at once, and drop those that were not used for the longest time."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, hashlib.sha256(data).digest() + data, mode=0o600)
    # Others may be doing the same.
    with contextlib.suppress(OSError):
        own = [other for other in file.parent.iterdir() if len(other.name) == len(file.name)]
        for old in sorted(own, key=lambda other: other.stat().st_mtime)[:-MOST]:
            old.unlink(missing_ok=True)
