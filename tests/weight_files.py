"""Files of weights as other libraries write them, and what is asked of all that are read or refused."""

import io
import zipfile

import h5py
import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import scipy.sparse

import ssntk

RNG = np.random.default_rng(5)
W, B = RNG.normal(size=(4, 3)), RNG.normal(size=4).astype(np.float32)


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


def written(folder):
    """One file of each kind, under a name that says nothing, and what it holds."""
    made = {}
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


def refused(file, said, **how):
    with pytest.raises(ValueError, match=said) as error:
        ssntk.load_weights(file, **how)
    text = str(error.value)
    assert text.startswith("path ")
    assert file.name in text
    assert "\n" not in text
    assert len(text) < 600
    return text


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


def damages(data, rng, count):
    """Copies of a file with one to four bytes changed, most of them near its beginning, where headers are."""
    for i in range(count):
        changed = bytearray(data)
        for at in rng.integers(0, min(len(data), (64, 512, len(data))[i % 3]), rng.integers(1, 5)):
            changed[at] = rng.integers(0, 256)
        yield bytes(changed)
