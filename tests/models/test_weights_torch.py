"""Files of weights that PyTorch writes: read, refused and damaged. No part of the package is compiled."""

import importlib.util

import numpy as np
import pytest
from weight_files import W, damages, lengths, loads_or_refuses, refused, same

import ssntk

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
