"""Files of weights: what no file of weights does is refused in a sentence, and nothing that a file holds is run.

The archives that would run something if they were unpickled are packed here. No part of the package is compiled.
"""

import io
import itertools
import os
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
from weight_files import (
    WRITERS,
    B,
    W,
    damages,
    lengths,
    loads_or_refuses,
    mat73,
    packed,
    put,
    refused,
    same,
    write_npz,
    written,
)

import ssntk
from ssntk.models.weights import FORMATS, LIBRARIES
from ssntk.sweep.store import Status


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights"))


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
