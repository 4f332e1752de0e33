"""The files of a store: arrays in one `.npz`, which exists completely or not at all."""

import io
import itertools
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from ssntk.files import write_whole
from ssntk.nouns import Number
from ssntk.sweep.header import StoreError


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays in a file; `None` if there is none, or it is torn or no archive. `StoreError` if it cannot be read."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        # This says nothing about the contents. The point must not count as missing, or it would be measured and overwritten.
        raise StoreError(f"{file} cannot be read: {error}") from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # Zip files and arrays raise many kinds of errors for damaged bytes. In each case the file is torn, or no record.
    except Exception:
        return None


def write_arrays(file: pathlib.Path, arrays: Mapping[str, Number | str]) -> None:
    """Write arrays as a whole file or none."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write(file, buffer.getvalue())


def write(file: pathlib.Path, data: bytes) -> None:
    """Write a file completely or not at all. Raises `StoreError` if it cannot be written, as on a full disk."""
    try:
        write_whole(file, data)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}; what was measured before is kept") from error


def set_aside(file: pathlib.Path) -> None:
    """Rename a file to the first free name, so that no file that was set aside before is overwritten."""
    for number in itertools.count():
        aside = file.with_name(f"{file.name}.set-aside{number}")
        if os.path.lexists(aside):
            continue
        try:
            os.rename(file, aside)
        except OSError as error:
            raise StoreError(f"{file} cannot be set aside: {error}") from error
        return
