"""Arrays that lie in a file as they are: .npy and .safetensors."""

import json
import math
from typing import Any

import numpy as np

from ssntk.models.weight_files.gathered import Gathered, Refused, damaged, is_numeric

# A header of a plain array is a line. NumPy's own limit is the same.
HEADER = 10_000
# The types of a .safetensors file that NumPy has, and bfloat16.
KINDS = {"F64", "F32", "F16", "BF16", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """The shape, whether columns come first, the dtype, and the length of the header of a .npy stream."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise Refused(f"holds an array in version {version} of .npy, which is for records: numbers are in 1.0 or 2.0")
    shape, columns, dtype = readers[version](stream, max_header_size=HEADER)
    return shape, columns, dtype, stream.tell()


def npy_array(stream: Any, held: int, name: str, into: Gathered) -> np.ndarray | None:
    """The array of a .npy stream of `held` bytes; `None` if it holds no numbers. Pickles are refused unread."""
    shape, columns, dtype, begins = npy_header(stream)
    if dtype.hasobject:
        raise Refused(f"holds the pickle {name}: run by whoever reads it, so it is not read; save arrays of numbers alone")
    if math.prod(shape) * dtype.itemsize != held - begins:
        raise Refused(
            f"is damaged: {name} declares {math.prod(shape) * dtype.itemsize} bytes and holds {max(held - begins, 0)}"
        )
    if dtype.kind == "V" and dtype.names is None and dtype.itemsize <= 2:
        raise Refused(f"holds {name} as bytes without a type, as numpy.save writes bfloat16: save it as float32")
    if not is_numeric(dtype):
        return None
    into.room(shape, dtype, name)
    array = np.empty(shape, dtype, order="F" if columns else "C")
    # Columns first: the transpose lies in memory as the file does.
    flat = (array.T if columns else array).reshape(-1).view(np.uint8)
    taken = 0
    while taken < len(flat):
        part = stream.read(min(len(flat) - taken, 2**24))
        if not part:
            raise Refused(f"is damaged: {name} ends after {taken} of {len(flat)} bytes")
        flat[taken : taken + len(part)] = np.frombuffer(part, np.uint8)
        taken += len(part)
    # The end of a member of an archive is where its checksum is compared.
    if stream.read(1):
        raise Refused(f"is damaged: {name} holds more than it declares")
    return array


def read_npy(into: Gathered) -> None:
    """The one array of a .npy file, as weight."""
    with damaged(".npy file"), into.file.open("rb") as stream:
        array = npy_array(stream, into.size, "its array", into)
    if array is not None:
        into.add("weight", array)


def read_safetensors(into: Gathered) -> None:
    """The arrays of a .safetensors file."""
    import safetensors

    with damaged(".safetensors file"):
        with into.file.open("rb") as stream:
            said = int.from_bytes(stream.read(8), "little")
            if into.size < 8 or said > into.size - 8:
                raise Refused(f"is damaged: its header declares {said} bytes, and the file holds {max(into.size - 8, 0)}")
            header = json.loads(stream.read(said))
        # The library checks that all arrays lie in the file. bfloat16 takes twice its size.
        into.room((2 * into.size,), np.uint8, "the whole of it")
        for name, one in header.items():
            if name != "__metadata__" and one["dtype"] not in KINDS:
                raise Refused(f"holds {name} as {one['dtype']}, which NumPy does not have: save it as F32")
        with safetensors.safe_open(str(into.file), "numpy") as held:
            for name in list(held.keys()):
                into.add(name, held.get_tensor(name))
