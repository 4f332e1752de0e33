"""Files of a store: arrays in one `.npz`, there as a whole or not at all."""

import io
import itertools
import os
import pathlib
from typing import Any

import numpy as np

from ssntk.files import write_whole
from ssntk.sweep.header import StoreError


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays in a file; `None` if there is none, or it is torn or no archive. `StoreError` if it cannot be read."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        # No word about what the file holds: it must not count as missing, and be measured again over it.
        raise StoreError(f"{file} cannot be read: {error}") from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # Whatever zip files and arrays raise of bytes that are none: the file is torn, or no record.
    except Exception:
        return None


def write_arrays(file: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Write arrays as a whole file or none."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write(file, buffer.getvalue())


def write(file: pathlib.Path, data: bytes) -> None:
    """A whole file or none; `StoreError` if it cannot be written, as on a full disk."""
    try:
        write_whole(file, data)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}; what was measured before is kept") from error


def set_aside(file: pathlib.Path) -> None:
    """Rename a file to the first name that is free, which no file that was set aside before can have."""
    for number in itertools.count():
        aside = file.with_name(f"{file.name}.set-aside{number}")
        if os.path.lexists(aside):
            continue
        try:
            os.rename(file, aside)
        except OSError as error:
            raise StoreError(f"{file} cannot be set aside: {error}") from error
        return
