"""plan.json against what it describes. Compiles: the fold sweep that other stores' tests have, and a grid of 4 points."""

import json
import os
import shutil

import jax.random as jr
import numpy as np
import pytest
from helpers import fold_sweep

import ssntk


def grid():
    def make(gain, seed):
        return ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(seed))

    return ssntk.Grid(make, {"gain": [0.3, 0.5], "seed": [0, 1]}, probe=ssntk.Probe(np.linspace(0.0, 2.0, 3)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    for name, plan in (("fold", fold_sweep()), ("grid", grid())):
        ssntk.run(plan, ssntk.Store(folder / name), progress=False)
    return folder


def edited(kept, folder, name, **changes):
    """A copy of a store whose header was changed by hand, and perhaps lost its checksum, as older ones have none."""
    shutil.copytree(kept / name, folder / name)
    file = folder / name / "plan.json"
    plan = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in plan.items() if value != "gone"}))
    return folder / name


WRONG = [
    ("fold", {"distances": [1.0, 0.1, 0.01, 0.001]}),
    ("grid", {"axes": {"gain": [100.0, 200.0], "seed": [0, 1]}}),
    ("grid", {"axes": {"gain": [0.3, 0.5]}}),
    ("fold", {"n_state": 2}),
]


@pytest.mark.parametrize(("name", "changes"), WRONG)
@pytest.mark.parametrize("summed", [True, False])
def test_a_header_that_was_edited_is_refused_and_put_right(kept, tmp_path, name, changes, summed):
    path = edited(kept, tmp_path, name, **changes | ({} if summed else {"checksum": "gone"}))
    match = "was changed since it was written" if summed else "does not fit its plan"
    with pytest.raises(ssntk.StoreError, match=match):
        ssntk.Store(path).arrays()
    with pytest.warns(UserWarning, match="written anew"):
        ssntk.run(fold_sweep() if name == "fold" else grid(), ssntk.Store(path), progress=False)
    expected, found = ssntk.Store(kept / name).arrays(), ssntk.Store(path).arrays()
    assert expected.keys() == found.keys()
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key])
    assert ssntk.Store(path).status().set_aside == ()
    assert json.loads((path / "plan.json").read_text()) == json.loads((kept / name / "plan.json").read_text())


def test_a_record_of_another_place_is_set_aside(kept, tmp_path):
    path = edited(kept, tmp_path, "grid")
    file = path / "points" / "00002.npz"
    with np.load(file) as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(file, allow_pickle=False, **arrays | {"axis_gain": np.asarray(99.0)})
    with pytest.raises(ssntk.StoreError, match=r"00002.npz does not fit its plan: gain is 99.0 there, and 0.5 in plan.json"):
        ssntk.Store(path).arrays()
    assert ssntk.Store(path).status().missing == (2,)
    ssntk.run(grid(), ssntk.Store(path), progress=False)
    assert ssntk.Store(path).status().set_aside == ("points/00002.npz.set-aside0",)
    np.testing.assert_array_equal(ssntk.Store(path).arrays()["trace"], ssntk.Store(kept / "grid").arrays()["trace"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("grid", {"axes": [0.3, 0.5]}),
        ("grid", {"axes": {"gain": 3}}),
        ("grid", {"axes": {"gain": [None]}}),
        ("grid", {"kind": "towards"}),
        ("fold", {"versions": ["1"]}),
        ("fold", {"n_state": "1"}),
        ("fold", {"n_state": 10**12}),
        ("fold", {"n_state": True}),
        ("fold", {"blocks": 3}),
        ("fold", {"dt": "0.1"}),
        ("fold", {"dt": float("nan")}),
        ("fold", {"title": 7}),
        ("fold", {"distances": [float("inf")]}),
        ("fold", {"distances": []}),
        ("fold", {"ts": [[0.0]]}),
        ("fold", {"hash": "gone"}),
        ("fold", {"kind": ["towards"]}),
    ],
)
def test_what_a_header_must_not_hold(kept, tmp_path, name, changes):
    path = edited(kept, tmp_path, name, **changes, checksum="gone")
    with pytest.raises(ssntk.StoreError, match=r"plan.json cannot be read: (it holds no )?\w+( must be .*, got)?"):
        ssntk.Store(path).arrays()


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "2"}'])
def test_headers_that_are_none(tmp_path, data):
    tmp_path.joinpath("plan.json").write_bytes(data)
    with pytest.raises(ssntk.StoreError, match="cannot be read"):
        ssntk.Store(tmp_path).plan()


@pytest.mark.parametrize("name", ["00002.npz", "mine[1].npz", "a*b.npz", "?.npz"])
def test_nothing_that_was_set_aside_is_written_over(kept, tmp_path, name):
    path = edited(kept, tmp_path, "fold")
    points = path / "points"
    texts = [f"evidence {i}".encode() for i in range(4)]
    for i, text in enumerate(texts):
        (points / name).write_bytes(text)
        if i == 2:
            # As one does who was done with it.
            os.remove(points / f"{name}.set-aside0")
        ssntk.run(fold_sweep(), ssntk.Store(path), progress=False)
    left = sorted(file.read_bytes() for file in points.iterdir() if ".set-aside" in file.name)
    assert left == [texts[1], texts[2], texts[3]]
