"""The arrays that a reader has found, and the limits that every reader keeps."""

import contextlib
import math
import pathlib
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from ssntk.errors import as_room
from ssntk.nouns import DType

# Published networks hold thousands of arrays at most. A small file whose links repeat each other can name any number.
MOST = 100_000
# Deflate shrinks by a factor of 1032 at most.
SHRINKS = 1100
# Types of numbers that NumPy has by itself.
NUMERIC = "biufc"


class Refused(ValueError):
    """Why a file is not read: the end of a sentence that begins with its path."""


class Gathered:
    """Arrays by their names, with the room that they take.

    Sizes are counted before anything is read, so a file that declares more than it holds takes no memory.
    """

    def __init__(self, file: pathlib.Path):
        self.file = file
        self.size = file.stat().st_size
        self.arrays: dict[str, np.ndarray] = {}
        self.left_out: list[str] = []
        self._bytes = 0
        self._seen, self._most = 0, MOST

    def see(self) -> None:
        """Count one more entry or group."""
        self._seen += 1
        if self._seen > self._most:
            raise Refused(f"holds more than {self._most} arrays and groups, or links that repeat them")

    def again(self) -> None:
        """Count anew what has been seen once. Names may repeat each other, but not without end."""
        self._seen, self._most = 0, min(10 * self._seen + 1000, MOST)

    def room(self, shape: tuple[int, ...], dtype: DType, name: str) -> None:
        """Raise `Refused` if an array does not fit into memory beside the others."""
        if any(length < 0 for length in shape):
            raise Refused(f"is damaged: {name} has the shape {shape}")
        self._bytes += math.prod(shape) * max(np.dtype(dtype).itemsize, 1)
        try:
            as_room(self._bytes, name, np.uint8)
        except ValueError as error:
            raise Refused(f"does not fit into memory: {error}") from None

    def add(self, name: str, array: np.ndarray) -> None:
        """Keep an array. Its bytes are put in this machine's order, and bfloat16 and float8 become float32."""
        self.see()
        if name in self.arrays:
            raise Refused(f"holds two arrays named {name}")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        self.arrays[name] = array.astype(np.float32) if is_short(array.dtype) else array


def is_short(dtype: np.dtype) -> bool:
    """Whether a type is a floating-point type that NumPy knows only with the help of ml_dtypes, such as bfloat16."""
    if dtype.kind in NUMERIC:
        return False
    with contextlib.suppress(ValueError, TypeError):
        ml_dtypes.finfo(dtype)
        return True
    return False


def is_numeric(dtype: np.dtype) -> bool:
    """Whether arrays of a type hold numbers."""
    return dtype.kind in NUMERIC or is_short(dtype)


@contextlib.contextmanager
def damaged(what: str) -> Iterator[None]:
    """Turn every error of a library that reads a file into `Refused`. Libraries raise errors of many kinds for bad bytes."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"is damaged, or no {what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The first line of an error's message, with its class if the message alone says too little."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if type(error) in (ValueError, OSError) and line else f"{type(error).__name__}: {line}".removesuffix(": ")
