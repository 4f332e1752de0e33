"""Files of weights: what other libraries write is read, and goes on into networks.

The other libraries write the files. Those of flax are packed here, in its layout. No part of the package is compiled.
"""

import pathlib
import struct

import h5py
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import scipy.sparse
from helpers import ROOT
from weight_files import RNG, WRITERS, B, W, mat73, put, same, written

import ssntk
from ssntk.models.torch_layout import what_to_write

PUBLISHED = ROOT.parent / "shared" / "reference" / "networks"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights"))


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


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="path must be the path of a file, got dict"):
        ssntk.load_weights({"weight": W})
    with pytest.raises(ValueError, match="path must be a file of weights, got the folder"):
        ssntk.load_weights(tmp_path)
    with pytest.raises(FileNotFoundError):
        ssntk.load_weights(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="format must be one of 'npz', 'npy'"):
        ssntk.load_weights(tmp_path / "missing.npz", format="pickle")


def test_a_path_is_taken_as_text_or_as_a_path(tmp_path):
    np.save(tmp_path / "w.npy", W)
    assert set(ssntk.load_weights(pathlib.Path(tmp_path / "w.npy"))) == set(ssntk.load_weights(str(tmp_path / "w.npy")))


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
