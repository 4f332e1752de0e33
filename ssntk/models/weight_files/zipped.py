"""Archives: .npz, and the .keras files of Keras 3. An archive is looked through before anything in it is read."""

import io
import zipfile

import numpy as np

from ssntk.models.weight_files.gathered import SHRINKS, Gathered, Refused, damaged
from ssntk.models.weight_files.hdf5 import read_hdf5
from ssntk.models.weight_files.plain import npy_array

# The member of a .keras file that holds its weights.
KERAS = "model.weights.h5"


def kind_of_archive(names: list[str]) -> str | None:
    """The format of an archive, from the names of its members."""
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return "pt"
    if KERAS in names:
        return "keras"
    return "npz" if not names or any(name.endswith(".npy") for name in names) else None


def members(into: Gathered, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members of an archive, whose declared sizes are possible in a file of this size."""
    held, packed = archive.infolist(), 0
    for one in held:
        if one.flag_bits & 1:
            raise Refused(f"holds {one.filename} under a password: save it without one")
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"holds {one.filename} in a compression that no writer of weights uses")
        packed += one.compress_size
        most = one.compress_size * (SHRINKS if one.compress_type == zipfile.ZIP_DEFLATED else 1)
        if packed > into.size or one.file_size > most:
            raise Refused(
                f"declares {one.file_size} bytes for {one.filename}, which cannot be in {min(one.compress_size, into.size)}"
            )
    return held


def read_npz(into: Gathered) -> None:
    """The arrays of an .npz file. If one of its members is a pickle, the file is refused."""
    with damaged(".npz file"), zipfile.ZipFile(into.file) as archive:
        held = [one for one in members(into, archive) if one.filename.endswith(".npy")]
        if any(one.filename == "ssntk.npy" for one in held):
            raise Refused("is a result that ssntk.save wrote: read it by ssntk.load")
        for one in held:
            name = one.filename.removesuffix(".npy")
            into.see()
            with archive.open(one) as stream:
                array = npy_array(stream, one.file_size, name, into)
            if array is not None:
                into.add(name, array)


def read_keras(into: Gathered) -> None:
    """The arrays of the weights of a .keras file. Its configuration, which may hold code, is not looked at."""
    with damaged(".keras file"), zipfile.ZipFile(into.file) as archive:
        (weights,) = [one for one in members(into, archive) if one.filename == KERAS]
        into.room((weights.file_size,), np.uint8, KERAS)
        data = archive.read(weights)
    read_hdf5(into, io.BytesIO(data), len(data))
