"""MATLAB's files of version 7.3, which are HDF5 with arrays stored by columns."""

import math
from typing import Any

import numpy as np

from ssntk.models.weight_files.gathered import Gathered, Refused, damaged, is_numeric
from ssntk.models.weight_files.hdf5 import DEEPEST, check_storage, read_dataset, read_numbers, stay_inside
from ssntk.models.weight_files.mat5 import OWN_SAY, dense

NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def read_mat73(into: Gathered) -> None:
    """The numeric arrays of a MATLAB file of version 7.3, transposed back. Groups are structs."""
    import h5py

    with damaged(".mat file of version 7.3"), h5py.File(into.file, "r") as held:
        stay_inside(into, held)
        for name in map(str, held):
            # What cells and objects refer to.
            if name not in ("#refs#", "#subsystem#"):
                _enter73(into, name, held.get(name), (held.id,))


def _enter73(into: Gathered, name: str, item: Any, inside: tuple[Any, ...]) -> None:
    """Keep a variable or a field. `inside`: the groups that it lies in, to which links may lead back."""
    import h5py

    into.see()
    # A soft link may lead to nothing.
    if item is None or item.id in inside:
        return
    said = item.attrs.get("MATLAB_class", b"")
    kind = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    if item.attrs.get("MATLAB_object_decode", 0) or (kind and kind not in {"struct", "cell", "char", *NUMBERS}):
        raise Refused(f"holds {kind or 'an object'} {name} of MATLAB, {OWN_SAY}")
    if len(inside) > DEEPEST:
        raise Refused(f"holds structs more than {DEEPEST} deep")
    if isinstance(item, h5py.Group):
        if "MATLAB_sparse" in item.attrs:
            into.add(name, _sparse73(into, name, item))
            return
        for one in map(str, item):
            _enter73(into, f"{name}/{one}", item.get(one), (*inside, item.id))
    elif not isinstance(item, h5py.Dataset) or kind == "char":
        return
    elif kind == "cell" or h5py.check_ref_dtype(item.dtype):
        into.left_out.append(f"{name} (a cell or a struct array)")
    else:
        array = _array73(into, name, item, kind)
        if array is not None:
            into.add(name, array)


def _array73(into: Gathered, name: str, item: Any, kind: str) -> np.ndarray | None:
    if item.dtype.names == ("real", "imag"):
        # MATLAB's complex numbers. They have one size with the pairs that they are read as.
        parts = item.dtype["real"]
        into.room(item.shape, np.complex128, name)
        check_storage(name, item, item.id.get_create_plist(), item.shape, item.dtype, into.size)
        pairs = read_numbers(name, item, item.id.get_create_plist())
        array = pairs["real"] + 1j * pairs["imag"] if is_numeric(parts) else None
    else:
        array = read_dataset(into, name, item, into.size)
    if array is None:
        return None
    if "MATLAB_empty" in item.attrs:
        # Such a dataset holds the shape of an array without elements.
        shape = tuple(int(length) for length in np.ravel(array))
        if math.prod(shape):
            raise Refused(f"is damaged: {name} is said to be empty and has the shape {shape}")
        return np.zeros(shape, kind if kind in NUMBERS - {"logical"} and kind != "single" else np.float64)
    return np.ascontiguousarray(array.T).astype(bool) if kind == "logical" else np.ascontiguousarray(array.T)


def _sparse73(into: Gathered, name: str, item: Any) -> np.ndarray:
    """A sparse matrix: a group of numbers, their rows, and where each column begins. The first two may be missing."""

    def part(one: str) -> np.ndarray:
        array = read_dataset(into, f"{name}/{one}", item[one], into.size) if one in item else None
        return np.zeros(0) if array is None else array

    ends = part("jc")
    return dense(into, name, part("data"), part("ir"), ends, (int(item.attrs["MATLAB_sparse"]), len(ends) - 1))
