"""The msgpack files of flax: trees of dicts, whose leaves are arrays in an extension of their own."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ssntk.models.weight_files.gathered import Gathered, Refused, damaged

# The extensions of flax: an array, a complex number of Python, and a number of NumPy.
ARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
PLAIN = {"bool", "float16", "float32", "float64", "complex64", "complex128"}
PLAIN |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
SHORT = {"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz"}


class _Left(NamedTuple):
    """What is no array, such as a number of Python."""

    code: int


def read_flax(into: Gathered) -> None:
    """The arrays of a msgpack file of flax, with the names of the dicts they lie in, joined by /."""
    import msgpack

    # The bytes are there twice for a moment, and a third time as arrays.
    into.room((3 * into.size,), np.uint8, "the whole of it")
    with damaged("msgpack file of flax"):
        tree = msgpack.unpackb(
            into.file.read_bytes(), ext_hook=functools.partial(_leaf, msgpack.unpackb), raw=False, strict_map_key=False
        )
        if not isinstance(tree, dict):
            raise Refused(f"is no msgpack file of flax, which holds a dict: it holds a {type(tree).__name__}")
        for name, array in _leaves(into, tree, ""):
            into.add(name, array)


def _leaf(unpackb: Any, code: int, data: bytes) -> np.ndarray | _Left:
    """What an extension holds. Only names of types of numbers are known, and a type is never looked up by its name."""
    if code not in (ARRAY, SCALAR):
        return _Left(code)
    shape, kind, held = unpackb(data, raw=True, max_ext_len=0)
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    if not isinstance(kind, str) or kind not in PLAIN | SHORT:
        raise Refused(f"holds an array of {kind!r}, which is no type of numbers")
    dtype = np.dtype(getattr(ml_dtypes, kind) if kind in SHORT else kind)
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise Refused(f"is damaged: an array has the shape {shape!r}")
    if not isinstance(held, bytes) or math.prod(shape) * dtype.itemsize != len(held):
        raise Refused(f"is damaged: an array declares {math.prod(shape) * dtype.itemsize} bytes and holds {len(held)}")
    # Flax writes on machines with the low byte first.
    return np.frombuffer(held, dtype.newbyteorder("<")).reshape(shape).copy()


def _leaves(into: Gathered, tree: Mapping[Any, Any], name: str) -> Iterator[tuple[str, np.ndarray]]:
    for one, value in tree.items():
        into.see()
        below = f"{name}/{one}" if name else str(one)
        if isinstance(value, np.ndarray):
            yield below, value
        elif isinstance(value, dict) and CHUNKED in value:
            yield below, _whole(value, below)
        elif isinstance(value, dict):
            yield from _leaves(into, value, below)
        elif isinstance(value, list):
            yield from _leaves(into, dict(enumerate(value)), below)


def _whole(held: dict[Any, Any], name: str) -> np.ndarray:
    """An array that was written in chunks, since msgpack's own parts are limited to 4 GB."""
    chunks, shape = held.get("chunks"), held.get("shape")
    if not isinstance(chunks, dict) or not isinstance(shape, dict):
        raise Refused(f"is damaged: the chunks of {name} have no shape")
    found = [chunks.get(str(i)) for i in range(len(chunks))]
    parts = [part for part in found if isinstance(part, np.ndarray)]
    lengths = [shape.get(str(i)) for i in range(len(shape))]
    if not parts or len(parts) < len(found) or len({part.dtype for part in parts}) > 1:
        raise Refused(f"is damaged: the chunks of {name} are not arrays of one type")
    sizes = tuple(length for length in lengths if type(length) is int and length >= 0)
    array = np.concatenate([part.reshape(-1) for part in parts])
    if len(sizes) != len(lengths) or array.size != math.prod(sizes):
        raise Refused(f"is damaged: {name} has the shape {lengths!r} and {array.size} numbers")
    return array.reshape(sizes)
