"""MATLAB's files of version 5, which are elements of a type, a size and bytes, one behind the other.

SciPy reads them too, but damaged files end the whole process there, in compiled code. So they are read here.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssntk.models.weight_files.gathered import Gathered, Refused, damaged

HEADER = 128
COMPRESSED, MATRIX = 15, 14
# The types of elements that hold numbers, and the classes of arrays of numbers.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = dict(zip(range(6, 16), ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), strict=True))
CELL, STRUCT, OBJECT, TEXT, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 4, 5, 16, 17
# The classes that only MATLAB can make something of.
OWN = {OBJECT: "an object", FUNCTION: "a function", OPAQUE: "an object"}
OWN_SAY = "which only MATLAB can read: save its arrays as a struct"
COMPLEX, LOGICAL = 0x800, 0x200
DEEPEST = 100


def read_mat5(into: Gathered) -> None:
    """The numeric arrays of a MATLAB file of version 5, by columns as MATLAB has them."""
    into.room((into.size,), np.uint8, "the whole of it")
    with damaged(".mat file"):
        data = into.file.read_bytes()
        if len(data) < HEADER:
            raise Refused(f"is damaged: a .mat file has a header of {HEADER} bytes, and this one ends after {len(data)}")
        order = "<" if data[126:128] == b"IM" else ">"
        for kind, part in _elements(memoryview(data)[HEADER:], order):
            for inner, matrix in _elements(_unpacked(into, part), order) if kind == COMPRESSED else ((kind, part),):
                if inner != MATRIX:
                    raise Refused(f"is damaged: it holds an element of type {inner} in the place of an array")
                _enter(into, matrix, order)


def _unpacked(into: Gathered, part: memoryview) -> memoryview:
    """What a compressed element holds. It is unpacked in pieces, whose size is not known before."""
    packer, data, unpacked = zlib.decompressobj(), bytes(part), bytearray()
    while data and not packer.eof:
        piece = packer.decompress(data, 2**24)
        into.room((len(piece),), np.uint8, "the whole of it")
        unpacked += piece
        data = packer.unconsumed_tail
    if not packer.eof:
        raise Refused("is damaged: what is compressed in it ends too early")
    return memoryview(unpacked)


def _elements(view: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, bytes) of the elements that lie behind each other. Those of 4 bytes and less share a word with their tag."""
    at = 0
    while at < len(view):
        if len(view) - at < 8:
            raise Refused("is damaged: it ends within the tag of an element")
        kind, size = (int(one) for one in np.frombuffer(view[at : at + 8], f"{order}u4"))
        begins, room = at + 8, len(view) - at - 8
        if kind >> 16:
            kind, size, begins, room = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > room:
            raise Refused(f"is damaged: an element declares {size} bytes, and {room} are left")
        yield kind, view[begins : begins + size]
        # Elements begin at multiples of 8 bytes, except behind a compressed one.
        at = begins + size + (-size % 8 if begins == at + 8 and kind != COMPRESSED else 4 - size if begins == at + 4 else 0)


def _numbers(element: tuple[int, memoryview], order: str) -> np.ndarray:
    kind, held = element
    if kind not in TYPES or len(held) % int(TYPES[kind][1]):
        raise Refused(f"is damaged: {len(held)} bytes of type {kind} are no numbers")
    return np.frombuffer(held, order + TYPES[kind])


def _enter(into: Gathered, part: memoryview, order: str, name: str = "", depth: int = 0) -> None:
    """Keep an array, or the fields of a struct. `name`: that of a field; variables have their own."""
    into.see()
    if not part:
        return
    if depth > DEEPEST:
        raise Refused(f"holds structs more than {DEEPEST} deep")
    elements = _elements(part, order)
    flags = int(_numbers(_next(elements), order)[0])
    kind = flags & 0xFF
    # What has no documented form has no shape.
    shape = () if kind == OPAQUE else tuple(int(length) for length in _numbers(_next(elements), order))
    own = bytes(_next(elements)[1]).decode("utf-8", "replace")
    name = name or own
    if kind in OWN:
        raise Refused(f"holds {OWN[kind]} of MATLAB, {name or 'without a name'}, {OWN_SAY}")
    if len(shape) < 2 or min(shape) < 0:
        raise Refused(f"is damaged: {name} has the shape {shape}")
    if kind == STRUCT and math.prod(shape) == 1:
        for field, inner in _fields(elements, order):
            _enter(into, inner, order, f"{name}/{field}", depth + 1)
    elif kind in (CELL, STRUCT):
        if math.prod(shape):
            into.left_out.append(f"{name} (a cell or a struct array)")
    elif kind == SPARSE:
        into.add(name, _sparse(into, name, shape, flags, list(elements), order))
    elif kind in CLASSES:
        # A variable without a name belongs to functions and objects elsewhere in the file.
        if name:
            into.add(name, _full(into, name, shape, flags, elements, order))
    elif kind != TEXT:
        raise Refused(f"is damaged: {name} is of the class {kind}, which MATLAB does not have")


def _next(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(elements, None)
    if found is None:
        raise Refused("is damaged: an array ends within its header")
    return found


def _fields(elements: Iterator[tuple[int, memoryview]], order: str) -> Iterator[tuple[str, memoryview]]:
    """(name, array) of each field of a struct."""
    each, names = int(_numbers(_next(elements), order)[0]), bytes(_next(elements)[1])
    if each < 1 or len(names) % each:
        raise Refused("is damaged: the names of a struct's fields do not fit")
    for at in range(0, len(names), each):
        kind, held = _next(elements)
        if kind != MATRIX:
            raise Refused(f"is damaged: a field of a struct is an element of type {kind}")
        yield names[at : at + each].split(b"\0")[0].decode("utf-8", "replace"), held


def _full(into: Gathered, name: str, shape: tuple[int, ...], flags: int, elements: Any, order: str) -> np.ndarray:
    """An array of numbers, in the type that it has in MATLAB. It is stored with fewer bytes if its values allow that."""
    dtype = np.dtype(CLASSES[flags & 0xFF])
    if flags & COMPLEX:
        dtype = np.result_type(dtype, np.complex64)
    parts = [_numbers(_next(elements), order) for _ in range(2 if flags & COMPLEX else 1)]
    for part in parts:
        if part.size != math.prod(shape):
            raise Refused(f"is damaged: {name} declares the shape {shape} and holds {part.size} numbers")
    into.room(shape, dtype, name)
    array = parts[0].astype(bool if flags & LOGICAL else dtype)
    if flags & COMPLEX:
        array = array + dtype.type(1j) * parts[1]
    return np.ascontiguousarray(array.reshape(shape, order="F"))


def _sparse(into: Gathered, name: str, shape: tuple[int, ...], flags: int, elements: Any, order: str) -> np.ndarray:
    """A sparse matrix, whose numbers are of double precision, or logical."""
    if len(elements) != (4 if flags & COMPLEX else 3):
        raise Refused(f"is damaged: the sparse matrix {name} has {len(elements)} lists of numbers")
    rows, ends = (_numbers(element, order) for element in elements[:2])
    if flags & LOGICAL:
        # MATLAB writes a byte for each, and says that they are doubles.
        elements[2] = (2, elements[2][1])
    parts = [_numbers(element, order) for element in elements[2:]]
    data = parts[0].astype(bool if flags & LOGICAL else np.float64)
    if flags & COMPLEX:
        if len(parts[1]) != len(data):
            raise Refused(f"is damaged: the imaginary parts of {name} are {len(parts[1])} for {len(data)} numbers")
        data = data + 1j * parts[1]
    return dense(into, name, data, rows, ends, shape)


def dense(into: Gathered, name: str, data: Any, rows: Any, ends: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A sparse matrix as an array: the numbers, their rows, and where each column begins among them."""
    data, rows, ends = np.ravel(data), np.ravel(rows).astype(np.int64), np.ravel(ends).astype(np.int64)
    per_column = np.diff(ends)
    fits = len(shape) == 2 and len(ends) == shape[1] + 1 and ends[0] == 0 and bool((per_column >= 0).all())
    if fits:
        fits = ends[-1] <= min(len(data), len(rows))
        data, rows = data[: ends[-1]], rows[: ends[-1]]
    if not fits or (rows.size and (rows.min() < 0 or rows.max() >= shape[0])):
        raise Refused(f"is damaged: the sparse matrix {name} does not fit into its shape {shape}")
    into.room(shape, data.dtype, name)
    array = np.zeros(shape, data.dtype)
    np.add.at(array, (rows, np.repeat(np.arange(shape[1]), per_column)), data)
    return array
