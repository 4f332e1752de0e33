"""Files of weights: what other libraries write is read, and what no file of weights does is refused in a sentence.

The other libraries write the files. Those of flax are packed here, in its layout, and so are the archives that would run
something if they were unpickled. No part of the package is compiled.
"""

import importlib.util
import io
import itertools
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import h5py
import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import scipy.sparse
from helpers import ROOT

import ssntk
from ssntk.models.torch_layout import what_to_write
from ssntk.models.weights import FORMATS, LIBRARIES
from ssntk.sweep.store import Status

RNG = np.random.default_rng(5)
W, B = RNG.normal(size=(4, 3)), RNG.normal(size=4).astype(np.float32)
PUBLISHED = ROOT.parent / "shared" / "reference" / "networks"


def packed(array):
    """An array in the extension of flax."""
    array = np.asarray(array)
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))


def write_npy(file):
    with file.open("wb") as stream:
        np.save(stream, W)
    return {"weight": W}


def write_npz(file):
    with file.open("wb") as stream:
        np.savez(stream, weight=W, bias=B, mask=W > 0, name=np.array("rnn"), columns=np.asfortranarray(W), n=np.int64(4))
    return {"weight": W, "bias": B, "mask": W > 0, "columns": W, "n": np.int64(4)}


def write_deflated(file):
    with file.open("wb") as stream:
        np.savez_compressed(stream, weight=W, swapped=B.astype(">f4"), none=np.zeros((0, 3), np.float16))
    return {"weight": W, "swapped": B, "none": np.zeros((0, 3), np.float16)}


def write_safetensors(file):
    held = {"rnn.weight_hh_l0": W, "half": B.astype(np.float16), "short": B.astype(ml_dtypes.bfloat16), "n": np.arange(3)}
    safetensors.numpy.save_file(held, file, metadata={"made": "here"})
    return held | {"short": held["short"].astype(np.float32)}


def mat5(file, **how):
    sparse = scipy.sparse.csc_array(np.diag([1.0, 0.0, 2.0]))
    row = np.zeros((1, 1), [("weight", object), ("inner", object)])
    row[0, 0] = (W, {"bias": B})
    held = {"W": W, "b": B, "net": row, "mask": W > 0, "S": sparse, "z": W[:2] + 1j, "name": "tanh", "n": np.int32([[7, 8]])}
    with file.open("wb") as stream:
        scipy.io.savemat(stream, held, **how)
    found = {"W": W, "b": B[None], "net/weight": W, "net/inner/bias": B[None], "mask": W > 0, "S": sparse.toarray()}
    return found | {"z": W[:2] + 1j, "n": np.int32([[7, 8]])}


def write_mat5(file):
    return mat5(file)


def write_mat5_compressed(file):
    return mat5(file, do_compression=True)


def mat73(file, fill):
    """MATLAB's layout: a header of text in the first 512 bytes, arrays by columns, and the class of each as an attribute."""
    with h5py.File(file, "w", userblock_size=512) as held:
        fill(held)
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\x00\x02IM")


def put(group, name, array, kind="double"):
    group[name] = np.asarray(array).T
    group[name].attrs["MATLAB_class"] = np.bytes_(kind)
    return group[name]


def write_mat73(file):
    def fill(held):
        put(held, "W", W)
        put(held, "net/bias", B[None], "single")
        held["net"].attrs["MATLAB_class"] = np.bytes_("struct")
        put(held, "mask", (W > 0).astype(np.uint8), "logical")
        put(held, "name", np.frombuffer(b"tanh", np.uint8).astype(np.uint16)[None], "char")
        put(held, "empty", np.uint64([0, 3])).attrs["MATLAB_empty"] = np.uint8(1)
        put(held, "z", np.array([[(1.0, 2.0)]], [("real", "f8"), ("imag", "f8")]))
        for name, array in (("data", [1.0, 2.0]), ("ir", np.uint64([0, 2])), ("jc", np.uint64([0, 1, 1, 2]))):
            held[f"S/{name}"] = array
        held["S"].attrs["MATLAB_class"], held["S"].attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(3)

    mat73(file, fill)
    found = {"W": W, "net/bias": B[None], "mask": W > 0, "empty": np.zeros((0, 3)), "z": np.array([[1 + 2j]])}
    return found | {"S": np.diag([1.0, 0.0, 2.0])}


def write_h5(file):
    with h5py.File(file, "w") as held:
        gru = held.create_group("model_weights/gru")
        gru.attrs["weight_names"] = [b"gru/gru_cell/kernel:0"]
        gru["gru/gru_cell/kernel:0"] = W
        gru.create_dataset("bias", data=B, compression="gzip", chunks=(3,))
        gru.create_dataset("shuffled", data=W, compression="gzip", chunks=(3, 2), shuffle=True)
        gru.create_dataset("grows", data=W > 0, chunks=(3, 2), maxshape=(None, None), shuffle=True)
        held["model_config"] = "{}"
        held["soft"], held["hard"] = h5py.SoftLink("/model_weights/gru/bias"), gru
        # Links that lead nowhere, and back.
        held["lost"], gru["back"] = h5py.SoftLink("/nowhere"), held
    path = "model_weights/gru"
    found = {f"{path}/gru/gru_cell/kernel:0": W, f"{path}/bias": B, f"{path}/shuffled": W, f"{path}/grows": W > 0}
    return found | {name.replace(path, "hard"): array for name, array in found.items()} | {"soft": B}


def write_keras(file):
    held = io.BytesIO()
    with h5py.File(held, "w") as weights:
        weights["layers/gru/cell/vars/0"] = W
        weights["layers/dense/vars/0"] = B
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", '{"class_name": "Lambda"}')
        archive.writestr("model.weights.h5", held.getvalue())
    return {"layers/gru/cell/vars/0": W, "layers/dense/vars/0": B}


def write_msgpack(file):
    short = B.astype(ml_dtypes.bfloat16)
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 4, "1": 3}}
    chunked["chunks"] = {"0": packed(W.reshape(-1)[:7]), "1": packed(W.reshape(-1)[7:])}
    scalar = msgpack.ExtType(3, packed(np.float32(2)).data)
    cell = {"kernel": packed(W), "short": packed(short), "large": chunked, "rates": [packed(B)], "tau": scalar}
    number = msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))
    tree = {"params": {"cell": cell}, "step": 3, "name": "rnn", "none": None, "number": number}
    file.write_bytes(msgpack.packb(tree, use_bin_type=True))
    found = {"kernel": W, "short": short.astype(np.float32), "large": W, "rates/0": B, "tau": np.float32(2)}
    return {f"params/cell/{name}": array for name, array in found.items()}


WRITERS = {
    "npy": write_npy,
    "npz": write_npz,
    "npz, deflated": write_deflated,
    "safetensors": write_safetensors,
    "mat, version 5": write_mat5,
    "mat, version 5, compressed": write_mat5_compressed,
    "mat, version 7.3": write_mat73,
    "h5": write_h5,
    "keras": write_keras,
    "msgpack": write_msgpack,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind, under a name that says nothing, and what it holds."""
    folder, made = tmp_path_factory.mktemp("weights"), {}
    for number, (kind, write) in enumerate(WRITERS.items()):
        file = folder / f"file{number}"
        made[kind] = (file, write(file))
    return made


def same(found, want):
    assert set(found) == set(want)
    for name, array in want.items():
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == np.asarray(array).dtype, name
        assert found[name].dtype.isnative
        assert found[name].shape == np.shape(array), name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_library_writes_is_read_whatever_its_name(files, kind):
    file, want = files[kind]
    same(ssntk.load_weights(file), want)
    same(ssntk.load_weights(str(file), format=kind.partition(",")[0]), want)


@pytest.mark.parametrize("kind", WRITERS)
def test_arrays_can_be_written_to_and_do_not_share_memory_with_others(files, kind):
    found = ssntk.load_weights(files[kind][0])
    assert all(array.flags.writeable for array in found.values())


@pytest.mark.parametrize("version", [1, 2])
def test_versions_of_npy(tmp_path, version):
    with (tmp_path / "w.npy").open("wb") as stream:
        np.lib.format.write_array(stream, np.asfortranarray(W), (version, 0))
    same(ssntk.load_weights(tmp_path / "w.npy"), {"weight": W})


@pytest.mark.parametrize("offset", [512, 1024, 4096])
def test_hdf5_behind_a_block_of_someone_else(tmp_path, offset):
    file = tmp_path / "w"
    with h5py.File(file, "w", userblock_size=offset) as held:
        held["w"] = W
    file.write_bytes(b"anything" + file.read_bytes()[8:])
    same(ssntk.load_weights(file), {"w": W})


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_that_matlab_stores_with_fewer_bytes_keep_their_type(tmp_path, order):
    """MATLAB writes a double matrix of small integers as bytes. SciPy does not, so the file is put together here."""
    file = tmp_path / "w.mat"
    element = lambda kind, data: struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)  # noqa: E731
    parts = [
        (6, struct.pack(f"{order}II", 6, 0)),
        (5, struct.pack(f"{order}ii", 2, 2)),
        (1, b"eye"),
        (2, bytes([1, 0, 0, 1])),
    ]
    matrix = element(14, b"".join(element(*part) for part in parts))
    head = b"MATLAB 5.0 MAT-file, by hand".ljust(116) + bytes(8) + struct.pack(f"{order}H", 0x100)
    file.write_bytes(head + (b"IM" if order == "<" else b"MI") + matrix)
    same(ssntk.load_weights(file), {"eye": np.eye(2)})


def test_cells_of_matlab_are_left_out_with_a_warning(tmp_path):
    cell = np.empty((1, 2), object)
    cell[0] = [W, "text"]
    scipy.io.savemat(tmp_path / "5.mat", {"W": W, "parts": cell})

    def fill(held):
        put(held, "W", W)
        held["#refs#/a"] = W
        held.create_dataset("parts", data=[[held["#refs#/a"].ref]], dtype=h5py.ref_dtype)
        held["parts"].attrs["MATLAB_class"] = np.bytes_("cell")

    mat73(tmp_path / "73.mat", fill)
    for name in ("5.mat", "73.mat"):
        with pytest.warns(UserWarning, match=r"holds parts \(a cell or a struct array\): left out"):
            same(ssntk.load_weights(tmp_path / name), {"W": W})


# What is refused


class Calls:
    """An object whose pickle calls `os.system`."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def archive(file, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in members.items():
            made.writestr(name, data)


def npy_of(shape, data=b"", dtype="<f8"):
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"shape": shape, "fortran_order": False, "descr": dtype})
    return held.getvalue() + data


def header(text, size=None):
    """A .safetensors file of this header."""
    return (len(text) if size is None else size).to_bytes(8, "little") + text


def said_in_zip(file, name, size):
    """Change the sizes that an archive declares for a member, in both of its lists."""
    data = bytearray(file.read_bytes())
    for sign, at, back in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        start = data.index(name, 0) - back if sign == b"PK\x03\x04" else data.rindex(name) - back
        assert data[start : start + 4] == sign
        data[start + at : start + at + 4] = struct.pack("<I", size)
    file.write_bytes(data)


def h5(file, fill):
    with h5py.File(file, "w") as held:
        held["w"] = W
        fill(held)


def outside(file):
    other = file.with_name("other.h5")
    with h5py.File(other, "w") as held:
        held["secret"] = W
    return other


def external_link(file):
    h5(file, lambda held: held.__setitem__("a/b", h5py.ExternalLink(outside(file), "/secret")))


def soft_through_external(file):
    def fill(held):
        held["z/away"] = h5py.ExternalLink(outside(file), "/")
        held["a"] = h5py.SoftLink("/z/away/secret")

    h5(file, fill)


def external_storage(file):
    raw = file.with_name("raw")
    raw.write_bytes(W.tobytes())
    h5(file, lambda held: held.create_dataset("e", (4, 3), "f8", external=[(str(raw), 0, W.nbytes)]))


def virtual(file):
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[...] = h5py.VirtualSource(str(outside(file)), "secret", (4, 3))
    h5(file, lambda held: held.create_virtual_dataset("v", layout))


def h5_unwritten(file):
    h5(file, lambda held: held.create_dataset("big", (10**9,), "f4", chunks=(1000,)))


def h5_other_filter(file):
    h5(file, lambda held: held.create_dataset("z", data=W, compression="lzf", chunks=(2, 2)))


def h5_damaged_chunk(file):
    values = np.arange(10_000.0)
    h5(file, lambda held: held.create_dataset("z", data=values, compression="gzip", shuffle=True, chunks=(10_000,)))
    data = bytearray(file.read_bytes())
    packed = zlib.compress(values.view(np.uint8).reshape(-1, 8).T.tobytes(), 4)
    at = data.index(packed)
    # A whole stream, of fewer bytes than the chunk has.
    data[at : at + len(packed)] = zlib.compress(bytes(100)).ljust(len(packed), b"\0")
    file.write_bytes(data)


def h5_one_chunk(file):
    def fill(held):
        held.create_dataset("big", (10**6,), "f8", chunks=(1000,), compression="gzip")[:1000] = 1.0

    h5(file, fill)


def h5_many_names(file):
    def fill(held):
        below = held.create_group("g0")
        below["w"] = W
        for i in range(1, 40):
            group = held.create_group(f"g{i}")
            group["a"], group["b"] = below, below
            below = group

    h5(file, fill)


def h5_deep(file):
    h5(file, lambda held: held.__setitem__("/".join(["g"] * 300), B))


def mat73_object(kind, decode=None):
    def write(file):
        def fill(held):
            item = put(held, "net", np.uint32([[1]]), kind)
            if decode:
                item.attrs["MATLAB_object_decode"] = np.int32(decode)

        mat73(file, fill)

    return write


def mat73_external(file):
    mat73(file, lambda held: held.__setitem__("W", h5py.ExternalLink(outside(file), "/secret")))


def mat5_variable(kind, dims=(1, 1), name=b"net", rest=b""):
    def element(number, data):
        return struct.pack("<II", number, len(data)) + data + bytes(-len(data) % 8)

    inner = [(6, struct.pack("<II", kind, 0)), (5, struct.pack(f"<{len(dims)}i", *dims)), (1, name)]
    body = b"".join(element(*one) for one in inner) + rest
    head = b"MATLAB 5.0 MAT-file, by hand".ljust(116) + bytes(8) + b"\x00\x01IM"
    return head + element(14, body)


def mat5_bomb(file):
    plain = mat5_variable(6, (1, 10**9))[128:]
    squeezed = zlib.compress(struct.pack("<II", 14, 2**32 - 8) + plain)
    file.write_bytes(mat5_variable(6)[:128] + struct.pack("<II", 15, len(squeezed)) + squeezed)


def bytes_of(data):
    return lambda file: file.write_bytes(data)


def flax_array(*parts):
    return msgpack.packb({"w": msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))})


def saved(file, array):
    with file.open("wb") as stream:
        np.save(stream, array)


def npz_lies(size):
    def write(file):
        archive(file, {"w.npy": npy_of((10**9,), bytes(8))})
        said_in_zip(file, b"w.npy", size)

    return write


def save_ssntk(file):
    ssntk.save(file, Status(1, (0,), {}, (), ()))


def objects(file):
    with file.open("wb") as stream:
        np.savez(stream, weight=W, extra=np.array([None, {}]))


def npz_bzip(file):
    archive(file, {"w.npy": npy_of((1000,), bytes(8000))}, zipfile.ZIP_BZIP2)


def npz_twice(file):
    archive(file, {"v.npy": npy_of((1,), bytes(8)), "w.npy": npy_of((1,), bytes(8))})
    file.write_bytes(file.read_bytes().replace(b"v.npy", b"w.npy"))


def npz_bad_checksum(file):
    write_npz(file)
    data = bytearray(file.read_bytes())
    data[data.index(W.tobytes()) + 5] ^= 1
    file.write_bytes(data)


TORCH_PICKLE = pickle.dumps({"weight": 1.0}, protocol=2)
HOSTILE = {
    "empty": (bytes_of(b""), "is empty"),
    "text": (bytes_of(b"1 2 3\n4 5 6\n"), "no file of weights that is known here"),
    "one byte": (bytes_of(b"\x80"), "no floating-point|damaged"),
    "zip of text": (lambda file: archive(file, {"a.txt": "a"}), "an archive of a.txt"),
    "npy of objects": (lambda file: saved(file, np.array([None])), "holds the pickle its array"),
    "npy that ends": (bytes_of(npy_of((4,), bytes(31))), "declares 32 bytes and holds 31"),
    "npy with more": (bytes_of(npy_of((4,), bytes(33))), "declares 32 bytes and holds 33"),
    "npy of 1e12 bytes": (bytes_of(npy_of((10**12,), dtype="|i1")), "declares 1000000000000 bytes and holds 0"),
    "npy of a negative length": (bytes_of(npy_of((-1, -1), bytes(8))), "has the shape"),
    "npy of brackets": (bytes_of(b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000), "damaged"),
    "npy of bfloat16": (lambda file: saved(file, B.astype(ml_dtypes.bfloat16)), "save it as float32"),
    "npy of version 3": (bytes_of(b"\x93NUMPY\x03\x00" + npy_of((1,), bytes(8))[8:]), "version"),
    "npz of objects": (objects, "holds the pickle extra"),
    "npz that declares 1e12 bytes": (
        lambda file: archive(file, {"w.npy": npy_of((10**12,), dtype="|i1")}),
        "declares 1000000000000 bytes and holds 0",
    ),
    "npz that lies about a member": (npz_lies(2**32 - 2), "declares 4294967294 bytes for w.npy, which cannot be"),
    "npz whose list is too short": (npz_lies(20), "damaged"),
    "npz of zeros": (
        lambda file: archive(file, {"w.npy": npy_of((9,), bytes(8 * 9))[:-1]}),
        "declares 72 bytes and holds 71",
    ),
    "npz in another compression": (npz_bzip, "in a compression that no writer of weights uses"),
    "npz of two with one name": (npz_twice, "two arrays named w"),
    "npz with a wrong checksum": (npz_bad_checksum, "damaged"),
    "npz of ssntk": (save_ssntk, "read it by ssntk.load"),
    "npz of integers": (lambda file: archive(file, {"w.npy": npy_of((2,), bytes(16), "<i8")}), "holds w of int64"),
    "npz of text": (lambda file: archive(file, {"w.npy": npy_of((2,), b"a\0\0\0b\0\0\0", "<U1")}), "no arrays of numbers"),
    "npz of nothing": (lambda file: archive(file, {}), "no arrays of numbers"),
    "safetensors with a long header": (bytes_of(header(b"{}", 10**6)), "declares 1000000 bytes, and the file holds 2"),
    "safetensors with an endless header": (bytes_of(header(b"{}", 2**62)), "declares 4611686018427387904 bytes"),
    "safetensors of what is no JSON": (bytes_of(header(b"{]")), "damaged"),
    "safetensors of brackets": (bytes_of(header(b'{"a":' + b"[" * 10**5)), "damaged"),
    "safetensors beyond the end": (
        bytes_of(header(b'{"w":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}') + bytes(8)),
        "damaged",
    ),
    "safetensors of another shape": (
        bytes_of(header(b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,8]}}') + bytes(8)),
        "damaged",
    ),
    "safetensors of float8": (
        bytes_of(header(b'{"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}') + bytes(8)),
        "save it as F32",
    ),
    "safetensors of nothing": (bytes_of(header(b"{}")), "no floating-point"),
    "external link": (external_link, "a link to another file, a/b in .*other.h5: copy the arrays into one file"),
    "soft link through an external one": (soft_through_external, "a link to another file"),
    "external storage": (external_storage, "holds e outside, in .*raw'"),
    "virtual dataset": (virtual, "holds v as a view of other files"),
    "HDF5 that was never written": (h5_unwritten, "declares 4000000000 bytes for big and holds 0"),
    "HDF5 in another compression": (h5_other_filter, "holds z in a compression that is not read here"),
    "HDF5 of a short chunk": (h5_damaged_chunk, "a part of 80000 bytes holds 100"),
    "HDF5 of one chunk": (h5_one_chunk, "declares 8000000 bytes for big"),
    "HDF5 of repeating links": (h5_many_names, "links that repeat them"),
    "HDF5 of deep groups": (h5_deep, "more than 100 deep"),
    "HDF5 of text": (
        lambda file: h5py.File(file, "w").create_dataset("a", data="text").file.close(),
        "no arrays of numbers",
    ),
    "object of MATLAB 7.3": (mat73_object("containers.Map", 3), "holds containers.Map net of MATLAB"),
    "class of MATLAB 7.3": (mat73_object("network"), "holds network net of MATLAB"),
    "function of MATLAB 7.3": (mat73_object("function_handle", 1), "holds function_handle net of MATLAB"),
    "external link of MATLAB 7.3": (mat73_external, "a link to another file, W in"),
    "object of MATLAB 5": (bytes_of(mat5_variable(3)), "holds an object of MATLAB, net, which only MATLAB can read"),
    "function of MATLAB 5": (bytes_of(mat5_variable(16)), "holds a function of MATLAB, net"),
    "opaque of MATLAB 5": (bytes_of(mat5_variable(17)), "holds an object of MATLAB"),
    "cells of MATLAB that are not there": (bytes_of(mat5_variable(1, (10**9, 2))), "no arrays of numbers"),
    "struct of MATLAB without fields": (bytes_of(mat5_variable(2, (2**31 - 1, 2**31 - 1))), "no arrays of numbers"),
    "text of MATLAB that is not there": (bytes_of(mat5_variable(4, (1, 10**9))), "no arrays of numbers"),
    "numbers of MATLAB that are not there": (
        bytes_of(mat5_variable(6, (1, 10**9), rest=struct.pack("<IId", 9, 8, 1.0))),
        r"declares the shape \(1, 1000000000\) and holds 1 numbers",
    ),
    "sparse matrix of MATLAB beyond its shape": (
        bytes_of(mat5_variable(5, (1, 1), rest=struct.pack("<IIi4xIIiiIId", 5, 4, 7, 5, 8, 0, 1, 9, 8, 1.0))),
        "does not fit into its shape",
    ),
    "class of MATLAB that does not exist": (bytes_of(mat5_variable(99)), "of the class 99"),
    "bomb of MATLAB": (mat5_bomb, "an element declares 4294967288 bytes"),
    "msgpack of another type": (bytes_of(flax_array([1], "object", bytes(8))), "no type of numbers"),
    "msgpack of a module's type": (bytes_of(flax_array([1], "os.system", bytes(8))), "no type of numbers"),
    "msgpack of another shape": (bytes_of(flax_array([10**12], "float32", bytes(8))), "declares 4000000000000 bytes"),
    "msgpack of a negative shape": (bytes_of(flax_array([-1, -2], "float32", bytes(8))), "the shape"),
    "msgpack of no shape": (bytes_of(flax_array("ab", "float32", bytes(8))), "the shape"),
    "msgpack of parts": (bytes_of(flax_array([1], "float32")), "damaged"),
    "msgpack of a long list": (bytes_of(b"\x81\xa1a\xdd\xff\xff\xff\xff"), "damaged"),
    "msgpack of long bytes": (bytes_of(b"\x81\xa1a\xc6\xff\xff\xff\xff"), "damaged"),
    "msgpack of depth": (bytes_of(b"\x81\xa1a" * 10**5 + b"\x01"), "damaged"),
    "msgpack with more": (bytes_of(msgpack.packb({"a": 1}) + b"\x01"), "damaged"),
    "msgpack of chunks without an array": (
        bytes_of(msgpack.packb({"w": {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": 1}}})),
        "not arrays of one type",
    ),
    "msgpack of other chunks": (
        bytes_of(msgpack.packb({"w": {"__msgpack_chunked_array__": True, "shape": {"0": 9}, "chunks": {"0": packed(B)}}})),
        "4 numbers",
    ),
    "msgpack of numbers alone": (bytes_of(msgpack.packb({"step": 1.0})), "no arrays of numbers"),
    "TorchScript": (
        lambda file: archive(file, {"m/data.pkl": TORCH_PICKLE, "m/constants.pkl": b"", "m/code/a.py": b""}),
        "TorchScript archive",
    ),
    "module of PyTorch": (
        lambda file: archive(file, {"m/data.pkl": b"\x80\x02c__main__\nNet\n."}),
        "asks for __main__.Net, which is not run",
    ),
    "pt that calls eval": (
        lambda file: archive(file, {"m/data.pkl": b"\x80\x02c__builtin__\neval\n."}),
        "asks for __builtin__.eval",
    ),
    "pt of another protocol": (
        lambda file: archive(file, {"m/data.pkl": pickle.dumps(dict, protocol=4)}),
        "another protocol",
    ),
    "pt whose pickle ends": (lambda file: archive(file, {"m/data.pkl": TORCH_PICKLE[:-4]}), "damaged"),
}


def refused(file, said, **how):
    with pytest.raises(ValueError, match=said) as error:
        ssntk.load_weights(file, **how)
    text = str(error.value)
    assert text.startswith("path ")
    assert file.name in text
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.filterwarnings("ignore:path .* left out")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(tmp_path, name):
    write, said = HOSTILE[name]
    file = tmp_path / "hostile.bin"
    write(file)
    began = time.perf_counter()
    refused(file, said)
    assert time.perf_counter() - began < 5.0


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_runs_nothing_as_a_file_or_in_an_archive(tmp_path, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps(Calls(f"touch {marker}"), protocol=protocol)
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"shape": (1,), "fortran_order": False, "descr": "|O"})
    (tmp_path / "alone").write_bytes(data)
    (tmp_path / "one.npy").write_bytes(held.getvalue() + data)
    archive(tmp_path / "some.npz", {"w.npy": held.getvalue() + data, "b.npy": npy_of((1,), bytes(8))})
    archive(tmp_path / "torch.pt", {"net/data.pkl": data, "net/version": b"3\n"})
    archive(tmp_path / "torch.keras", {"model.weights.h5": data})
    for name in ("alone", "one.npy", "some.npz", "torch.pt", "torch.keras"):
        refused(tmp_path / name, "pickle|no file of weights|damaged")
        for format in FORMATS:
            refused(tmp_path / name, "is|holds|declares", format=format)
    assert not marker.exists()
    # The files would do it.
    pickle.loads(data)
    assert marker.exists()


def test_a_member_that_fits_nowhere_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    archive(tmp_path / "zeros.npz", {"w.npy": npy_of((10**6,), bytes(8 * 10**6))}, zipfile.ZIP_DEFLATED)
    assert ssntk.load_weights(tmp_path / "zeros.npz")["w"].nbytes == 8 * 10**6
    monkeypatch.setattr("ssntk.errors._room", lambda: 7 * 10**6)
    monkeypatch.setattr(np, "empty", None)
    refused(tmp_path / "zeros.npz", "does not fit into memory: w is too large: 8e\\+06 bytes")


def test_arrays_that_fit_only_one_by_one_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "two.h5"
    with h5py.File(file, "w") as held:
        held["a"], held["b"] = np.zeros(1000), np.zeros(1000)
    monkeypatch.setattr("ssntk.errors._room", lambda: 12_000)
    refused(file, "does not fit into memory: b is too large")


LOAD = """
import pathlib, ssntk
for file in sorted(pathlib.Path(".").glob("*.bin")):
    try:
        ssntk.load_weights(file)
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_files_outside_are_not_even_opened(tmp_path):
    """They are pipes here, and opening a pipe waits for whoever writes to it."""
    for number, write in enumerate((external_link, soft_through_external, external_storage, virtual)):
        write(tmp_path / f"{number}.bin")
    for name in ("other.h5", "raw"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 4


def lengths(size):
    """About 20 lengths of strict prefixes: the shortest, some in between and the longest."""
    return sorted({*range(4), *np.linspace(0, size - 1, 12).astype(int).tolist(), *range(max(size - 5, 0), size)})


def loads_or_refuses(file):
    try:
        found = ssntk.load_weights(file)
    except ValueError as error:
        found = str(error)
    if isinstance(found, str):
        assert found.startswith("path ")
        # Types of this package's own functions, which the tests check.
        assert "TypeCheckError" not in found
        return False
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "biufc" for array in found.values())
    return True


@pytest.mark.filterwarnings("ignore:path .* left out")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_was_cut_off_is_refused(files, tmp_path, kind):
    data = files[kind][0].read_bytes()
    for length in lengths(len(data)):
        file = tmp_path / f"{length}"
        file.write_bytes(data[:length])
        found = loads_or_refuses(file)
        # MATLAB's variables follow each other, and no header says how many there are.
        assert not found or kind.startswith("mat, version 5")


def damages(data, rng, count):
    """Copies of a file with one to four bytes changed, most of them near its beginning, where headers are."""
    for i in range(count):
        changed = bytearray(data)
        for at in rng.integers(0, min(len(data), (64, 512, len(data))[i % 3]), rng.integers(1, 5)):
            changed[at] = rng.integers(0, 256)
        yield bytes(changed)


@pytest.mark.filterwarnings("ignore:path .* left out")
@pytest.mark.parametrize("kind", WRITERS)
def test_changed_bytes_give_arrays_or_a_sentence(files, tmp_path, kind):
    data, loaded = files[kind][0].read_bytes(), 0
    file = tmp_path / "changed"
    for changed in damages(data, np.random.default_rng(len(data)), 200):
        file.write_bytes(changed)
        loaded += loads_or_refuses(file)
    assert loaded < 200


@pytest.mark.parametrize("kind", sorted(LIBRARIES))
def test_what_to_install_is_said(files, tmp_path, monkeypatch, kind):
    library, _ = LIBRARIES[kind]
    monkeypatch.setitem(sys.modules, library, None)
    names = {"mat73": "mat, version 7.3"}
    if kind == "pt":
        file = tmp_path / "net.pt"
        archive(file, {"net/data.pkl": TORCH_PICKLE})
    else:
        file = files[names.get(kind, kind)][0]
    with pytest.raises(ImportError, match=f"needs {library} for such files: install"):
        ssntk.load_weights(file)


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="path must be the path of a file, got dict"):
        ssntk.load_weights({"weight": W})
    with pytest.raises(ValueError, match="path must be a file of weights, got the folder"):
        ssntk.load_weights(tmp_path)
    with pytest.raises(FileNotFoundError):
        ssntk.load_weights(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="format must be one of 'npz', 'npy'"):
        ssntk.load_weights(tmp_path / "missing.npz", format="pickle")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pass a plain file")


@pytest.mark.parametrize(("kind", "format"), [*itertools.product(["npz", "h5", "msgpack"], FORMATS)])
def test_a_wrong_format_is_refused(files, kind, format):
    file, want = files[kind]
    if format == kind:
        same(ssntk.load_weights(file, format=format), want)
    elif (kind, format) == ("h5", "mat"):
        # What MATLAB writes is HDF5 too, by columns.
        assert ssntk.load_weights(file, format=format)["model_weights/gru/gru/gru_cell/kernel:0"].shape == (3, 4)
    else:
        refused(file, "damaged|is no", format=format)


# What they are for


def test_weights_go_on_into_networks(tmp_path):
    square = RNG.normal(size=(3, 3))
    safetensors.numpy.save_file({"rnn.weight_hh_l0": square, "rnn.weight_ih_l0": W[:3, :2].copy()}, tmp_path / "w")
    np.testing.assert_allclose(ssntk.from_torch(ssntk.load_weights(tmp_path / "w")).model.weight, square, rtol=1e-6)
    # The names of a checkpoint of PyTorch, joined.
    held = {"model_state_dict.weight_hh_l0": square, "model_state_dict.weight_ih_l0": W[:3, :2], "optimizer.state.0.step": B}
    np.testing.assert_allclose(ssntk.from_torch(held).model.weight, square, rtol=1e-6)
    assert "ssntk.load_weights(path)" in what_to_write("net.pt")
    with pytest.raises(ValueError, match=r"pass ssntk.from_torch\(ssntk.load_weights\(path\)\)"):
        ssntk.from_torch("net.pt")


@pytest.mark.parametrize("name", ["w.npy", "w.safetensors", "w.mat", "w.npz"])
def test_a_sweep_file_takes_any_of_them(tmp_path, name):
    square = RNG.normal(size=(3, 3))
    write = {"w.npy": np.save, "w.npz": lambda file, array: np.savez(file, weight=array)}
    write["w.safetensors"] = lambda file, array: safetensors.numpy.save_file({"weight": array}, file)
    write["w.mat"] = lambda file, array: scipy.io.savemat(file, {"weight": array})
    write[name](tmp_path / name, square)
    (tmp_path / "plan.toml").write_text(
        f'towards = "saddle-node"\nspan = [-1.0, 1.0]\ndistances = [0.1]\n[model]\nweights = "{name}"\n'
        '[family]\nattribute = "gain"\n[probe]\nts = [0.0, 1.0]\n'
    )
    plan = ssntk.read_plan(tmp_path / "plan.toml")
    np.testing.assert_allclose(plan.family.model.weight, square, rtol=1e-6)


SHAPES = {
    "psychrnn_saved_weights.npz": {
        **{"W_rec": (50, 50), "W_in": (50, 2), "W_out": (2, 50), "b_rec": (50,), "b_out": (2,), "init_state": (1, 50)},
        **{"rec_connectivity": (50, 50), "input_connectivity": (50, 2), "output_connectivity": (2, 50)},
    },
    "ctrnn_jax_params_example.bin": {
        "params/cell/recurrent_kernel/kernel": (250, 250),
        "params/cell/recurrent_kernel/bias": (250,),
        "params/cell/input_kernel/kernel": (1, 250),
        "params/cell/output_kernel/kernel": (250, 1),
        "params/cell/output_kernel/bias": (1,),
    },
    "silero_lstm_silence.npz": {
        **{"weight_hh": (512, 128), "drive": (512,), "rest_state": (256,), "head_weight": (128,), "head_bias": (1,)},
    },
    "g2p_encoder_gru_letter3_float16.npz": {
        **{"weight_hh": (768, 256), "bias_hh": (768,), "drive": (768,), "rest_state": (256,)},
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_published_networks_are_read(name):
    file = PUBLISHED / name
    if not file.exists():
        pytest.skip(f"{name} is not there: it lies beside the project, in shared/reference/networks")
    found = ssntk.load_weights(file)
    assert {one: array.shape for one, array in found.items()} == SHAPES[name]
    assert all(np.isfinite(array).all() for array in found.values())


# With PyTorch


needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed, and it writes the files of this test"
)


def torch_saved(file, held, **how):
    torch = pytest.importorskip("torch")
    torch.save(held(torch), file, **how)
    return file


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_and_a_checkpoint_of_pytorch(tmp_path, zipped):
    def held(torch):
        tensors = {"w": torch.tensor(W), "short": torch.ones(2, dtype=torch.bfloat16), "half": torch.ones(1).half()}
        return {"epoch": 3, "net": tensors, "list": [torch.arange(2)]}

    file = torch_saved(tmp_path / "net", held, _use_new_zipfile_serialization=zipped)
    want = {"net.w": W, "net.short": np.ones(2, np.float32), "net.half": np.ones(1, np.float16), "list.0": np.arange(2)}
    same(ssntk.load_weights(file), want)


def repeated(torch):
    held = {"w": torch.ones(1)}
    for _ in range(40):
        held = {"a": held, "b": held}
    return held


def inside_itself(torch):
    held = {"w": torch.ones(1)}
    held["again"] = held
    return held


@needs_torch
@pytest.mark.parametrize(
    ("held", "said"),
    [
        (lambda torch: {"w": torch.zeros(1).expand(10**12)}, "declares 4000000000000 bytes for w"),
        (repeated, "links that repeat them"),
        (inside_itself, "more than 100 deep"),
        (lambda torch: torch.nn.Linear(2, 2), "holds a pickle that asks for|holds more than weights"),
        (lambda torch: {"n": torch.arange(3)}, "no floating-point numbers: it holds n of int64"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_files_of_pytorch_are_refused(tmp_path, held, said, zipped):
    refused(torch_saved(tmp_path / "net", held, _use_new_zipfile_serialization=zipped), said)


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_of_pytorch_are_refused(tmp_path, zipped):
    file = torch_saved(tmp_path / "net", lambda torch: {"w": torch.tensor(W)}, _use_new_zipfile_serialization=zipped)
    data = file.read_bytes()
    for length in lengths(len(data)):
        file.write_bytes(data[:length])
        assert not loads_or_refuses(file)
    for changed in damages(data, np.random.default_rng(1), 60):
        file.write_bytes(changed)
        loads_or_refuses(file)


def test_a_path_is_taken_as_text_or_as_a_path(tmp_path):
    np.save(tmp_path / "w.npy", W)
    assert set(ssntk.load_weights(pathlib.Path(tmp_path / "w.npy"))) == set(ssntk.load_weights(str(tmp_path / "w.npy")))
