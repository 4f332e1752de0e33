"""plan.json if it disagrees with its store. Compiles the fold sweep of other tests of stores, and a grid of 4 points."""

import contextlib
import json
import os
import re
import shutil
import warnings

import jax.random as jr
import numpy as np
import pytest
from helpers import QUICK, fold_sweep

import ssntk
from ssntk.sweep import header


def grid():
    def make(gain, seed):
        return ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(seed))

    return ssntk.Grid(
        make, {"gain": [0.3, 0.5], "seed": [0, 1]}, probe=ssntk.Probe(np.linspace(0.0, 2.0, 3)), integrator=QUICK
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    for name, plan in (("fold", fold_sweep()), ("grid", grid())):
        ssntk.run(plan, ssntk.Store(folder / name), progress=False)
    return folder


def edited(kept, folder, name, **changes):
    """A copy of a store whose header was changed by hand. It may lack the checksum, as in earlier versions."""
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
        ("fold", {"dt": 10**400}),
        ("fold", {"ts": [10**309]}),
        ("fold", {"distances": [10**400]}),
        ("grid", {"axes": {"gain": [-(10**309), 1]}}),
        ("fold", {"older": "x"}),
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
            # A user may delete files that were set aside.
            os.remove(points / f"{name}.set-aside0")
        ssntk.run(fold_sweep(), ssntk.Store(path), progress=False)
    left = sorted(file.read_bytes() for file in points.iterdir() if ".set-aside" in file.name)
    assert left == [texts[1], texts[2], texts[3]]


@pytest.fixture(scope="module")
def plans():
    return {"fold": fold_sweep(), "grid": grid()}


def assert_put_right(kept, path, name, plan, said=True):
    """Check that the plan corrects the header, and that nothing is measured again."""
    with pytest.warns(UserWarning, match="written anew") if said else contextlib.nullcontext():
        ssntk.Store(path).claim(plan.hash(), plan.header(), plan)
    assert (path / "plan.json").read_bytes() == (kept / name / "plan.json").read_bytes()
    assert ssntk.Store(path).status().missing == ()


@pytest.mark.parametrize("name", ["fold", "grid"])
@pytest.mark.parametrize(
    "changes",
    [
        {"versions": {"jax": "0.0"}},
        {"versions": []},
        {"hash": "deadbeefdeadbeef"},
        {"hash": "gone"},
        {"checksum": "0" * 16},
        {"checksum": 3},
        {"format": 1},
        {"format": "2"},
        {"ts": "gone"},
        {"ts": [0.0, 1.0]},
        {"identity": "gone"},
        {"identity": [1]},
        {"identity": {"u": "0"}},
        {"n_state": 10**400},
        {"blocks": ["weight"]},
        {"dt": 0.1},
    ],
)
def test_whatever_was_edited_is_put_right(kept, plans, tmp_path, name, changes):
    path = edited(kept, tmp_path, name, **changes)
    if "gone" in changes.values():
        file = path / "plan.json"
        left = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in left.items() if key not in changes}))
    with pytest.raises(ssntk.StoreError, match="run the sweep again, which writes it anew, or put it back"):
        ssntk.Store(path).arrays()
    assert_put_right(kept, path, name, plans[name])


@pytest.mark.parametrize("data", [b"", b"[]", b'{"hash": "37'])
def test_a_header_that_was_torn_is_put_right(kept, plans, tmp_path, data):
    path = edited(kept, tmp_path, "grid")
    path.joinpath("plan.json").write_bytes(data)
    assert_put_right(kept, path, "grid", plans["grid"])
    # Only the plan that was measured there may correct the header.
    path.joinpath("plan.json").write_bytes(data)
    with pytest.raises(ssntk.StoreError, match="cannot be read"):
        ssntk.Store(path).claim(plans["fold"].hash(), plans["fold"].header(), plans["fold"])


def test_a_hash_without_a_checksum_is_not_believed_before_the_records(kept, plans, tmp_path):
    path = edited(kept, tmp_path, "grid", hash="deadbeefdeadbeef", checksum="gone")
    with pytest.raises(ssntk.StoreError, match="does not fit its records: hash is deadbeefdeadbeef"):
        ssntk.Store(path).arrays()
    ssntk.Store(path).claim(plans["grid"].hash(), plans["grid"].header(), plans["grid"])
    assert ssntk.Store(path).status().missing == ()
    assert ssntk.Store(path).status().set_aside == ()
    assert ssntk.Store(path).plan()["hash"] == plans["grid"].hash()


WITHOUT = [
    ("grid", {"axes": {"gain": [0.3, 0.5]}}, "it has seed, which plan.json does not"),
    ("grid", {"axes": {"seed": [0, 1]}}, "it has gain, which plan.json does not"),
    ("grid", {"axes": {"gain": [0.3, 0.5], "number": [0, 1]}}, "it has seed, which plan.json does not"),
    ("grid", {"axes": {"gain": [0.3], "seed": [0, 1]}}, "which has 2 points"),
    ("grid", {"axes": {"gain": [0.3, 0.5], "seed": [0, 1], "one": [1]}}, "it has no one"),
    ("fold", {"distances": [0.1]}, "which has 1 points"),
    ("grid", {"n_state": 10}, "n_state is 10, and 3 there"),
    ("grid", {"n_state": 2}, "where n_state is 2"),
    ("fold", {"ts": [0.0, 1.0]}, "where the number of ts is 2"),
    ("grid", {"blocks": ["weight"]}, "it has no block_eigenvalues"),
]


@pytest.mark.parametrize(("name", "changes", "said"), WITHOUT)
def test_a_header_without_a_checksum_is_held_against_the_records(kept, plans, tmp_path, name, changes, said):
    path = edited(kept, tmp_path, name, checksum="gone", **changes)
    with pytest.raises(ssntk.StoreError, match=said):
        ssntk.Store(path).arrays()
    assert_put_right(kept, path, name, plans[name])


@pytest.mark.parametrize("name", ["axes", "blocks", "ts", "distances"])
def test_what_one_identity_stands_for_twice_is_an_error_and_never_a_rewrite(kept, plans, tmp_path, name):
    """If the identity misses a difference between two plans, their headers still differ. Here a plan has a wrong header."""
    kind = "fold" if name == "distances" else "grid"
    plan, path = plans[kind], edited(kept, tmp_path, kind)
    before = (path / "plan.json").read_bytes()
    others = {"axes": {"gain": [1.0, 2.0], "seed": [0, 1]}, "blocks": ["b", "a"], "ts": [0.0, 3.0], "distances": [9.0]}
    said = plan.header() | {name: others[name]}
    # All headers with a checksum were written by versions that wrote all fields.
    held = json.loads(before)
    assert held[name] not in ([], None) or name == "blocks"
    if name == "blocks":
        held["blocks"] = ["a", "b"]
        (path / "plan.json").write_bytes(
            header.written(held["hash"], plan.header() | {"blocks": ["a", "b"]}, plan.identity, held["versions"])
        )
        before = (path / "plan.json").read_bytes()
    with pytest.raises(ssntk.StoreError, match=rf"same identity that has other {name}"):
        ssntk.Store(path).claim(plan.hash(), said, plan)
    assert (path / "plan.json").read_bytes() == before


MALFORMED = {
    "trace": (np.ones(3), "trace has shape"),
    "x_star": (np.ones((3, 1)), "x_star has shape"),
    "jacobian_eigenvalues": (np.ones(9), "where n_state is 3"),
    "steady_state_eigenvalues": (np.ones(4), "where n_state is 3"),
    "ntk_eigenvalues": (np.ones((2, 2)), "ntk_eigenvalues has shape"),
    "kernel_over_time": (np.ones((3, 2)), "where the number of ts is 3"),
    "block_top_share": (np.ones(2), "where the number of blocks is 0"),
    "channel_kind": (np.array(["a", "b"]), "channel_kind has shape"),
    "residual": (np.asarray("small"), "residual is <U5 there, and must be float"),
    "channel_method": (np.asarray(1.0), "channel_method is float64 there, and must be str"),
    "condition_number": (np.asarray(1j), "must be float"),
    "axis_gain": (np.array([0.5, 0.5]), "gain has shape"),
    "axis_seed": (np.asarray("0"), "seed is '0' there"),
    "axis_tau": (np.asarray(0.0), "it has tau, which plan.json does not"),
    "distance": (np.asarray(0.0), "it has distance, which plan.json does not"),
    "status": (np.array(["done"]), "its status is neither"),
    "effective_rank": (None, "it has no effective_rank"),
    "axis_gain ": (None, "it has no gain"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_record_that_does_not_fit_is_named_and_set_aside(kept, plans, tmp_path, name):
    path = edited(kept, tmp_path, "grid")
    file, (value, said) = path / "points" / "00002.npz", MALFORMED[name]
    with np.load(file) as held:
        arrays = {key: held[key] for key in held.files} | {name.strip(): value}
    np.savez(file, allow_pickle=False, **{key: array for key, array in arrays.items() if array is not None})
    store = ssntk.Store(path)
    with pytest.raises(ssntk.StoreError, match=f"00002.npz does not fit its plan: .*{re.escape(said)}"):
        store.arrays()
    assert store.status().done == (0, 1, 3)
    assert store.status().set_aside == ("points/00002.npz",)


def test_an_index_of_two_numbers_is_no_record(kept, tmp_path):
    path = edited(kept, tmp_path, "grid")
    with np.load(path / "points" / "00002.npz") as held:
        arrays = {key: held[key] for key in held.files}
    np.savez(path / "points" / "00002.npz", allow_pickle=False, **arrays | {"index": np.array([2, 2])})
    assert ssntk.Store(path).status().set_aside == ("points/00002.npz",)


@pytest.mark.parametrize("name", ["parameter", "bifurcations.0.interval", "number"])
def test_a_branch_that_is_none_is_followed_anew(kept, tmp_path, name):
    path = edited(kept, tmp_path, "fold")
    with np.load(path / "branch.npz") as held:
        arrays = {key: held[key] for key in held.files}
    # branch.npz holds a number beyond all bifurcations, or no branch.
    np.savez(path / "branch.npz", allow_pickle=False, **(arrays | {name: 7} if name == "number" else arrays | {name: "x"}))
    assert ssntk.Store(path).branch() is None
    ssntk.run(fold_sweep(), ssntk.Store(path), progress=False)
    assert ssntk.Store(path).status().set_aside == ("branch.npz.set-aside0",)
    np.testing.assert_array_equal(ssntk.Store(path).arrays()["trace"], ssntk.Store(kept / "fold").arrays()["trace"])


def renamed(folder, old, new):
    """Turn a store into that of an earlier version, which gave its plan another hash."""
    for file in [folder / "plan.json", *folder.rglob("*.npz")]:
        if file.suffix == ".json":
            file.write_text(file.read_text().replace(old, new))
            continue
        with np.load(file) as held:
            arrays = {key: held[key] for key in held.files}
        np.savez(file, allow_pickle=False, **arrays | {"plan": np.asarray(new)})


@pytest.mark.parametrize("name", ["fold", "grid"])
def test_parts_under_two_hashes_of_one_plan_are_merged(kept, plans, tmp_path, name):
    plan, total = plans[name], plans[name].size
    older = sorted(plan.older_hashes())
    assert older
    parts = []
    for i, plan_hash in enumerate((older[0], older[-1], plan.hash())):
        path = edited(kept, tmp_path / str(i), name)
        for number in range(total):
            if number % 3 != i:
                (path / "points" / f"{number:05d}.npz").unlink()
        renamed(path, plan.hash(), plan_hash)
        if plan_hash != plan.hash():
            file = path / "plan.json"
            left = json.loads(file.read_text())
            file.write_text(json.dumps({key: left[key] for key in left if key not in ("identity", "checksum", "older")}))
        parts.append(ssntk.Store(path))
    store = ssntk.Store(tmp_path / "all")
    with pytest.raises(ssntk.StoreError, match="run each part again, which measures nothing anew"):
        store.merge(*parts)
    # A run of a part begins like this.
    for part in parts[:2]:
        part.claim(plan.hash(), plan.header(), plan)
    status = store.merge(*parts)
    assert (len(status.done), status.set_aside) == (total, ())
    np.testing.assert_array_equal(store.arrays()["trace"], ssntk.Store(kept / name).arrays()["trace"])
    # The merged store can be continued and merged like any other.
    assert ssntk.Store(tmp_path / "again").merge(store, parts[2]).missing == ()
    store.claim(plan.hash(), plan.header(), plan)
    assert store.status() == status
    with pytest.raises(ssntk.StoreError, match="holds another plan"):
        store.merge(ssntk.Store(kept / ("grid" if name == "fold" else "fold")))


def test_records_of_another_plan_are_not_taken_over_by_a_header(kept, plans, tmp_path):
    other = ssntk.Grid(plans["grid"].make, plans["grid"].axes, probe=ssntk.Probe(np.linspace(0.0, 3.0, 3)), integrator=QUICK)
    for summed in (True, False):
        changes = {"hash": other.hash(), "identity": other.identity} | ({} if summed else {"checksum": "gone"})
        path = edited(kept, tmp_path / str(summed), "grid", **changes)
        with pytest.raises(ssntk.StoreError, match="holds another plan"):
            ssntk.Store(path).claim(other.hash(), other.header(), other)
        assert_put_right(kept, path, "grid", plans["grid"], summed)


@pytest.mark.parametrize("lost", ["plan.json", "hash"])
def test_records_under_an_older_hash_count_where_the_header_is_lost(kept, plans, tmp_path, lost):
    plan, path = plans["grid"], edited(kept, tmp_path, "grid")
    older = min(plan.older_hashes())
    renamed(path, plan.hash(), older)
    if lost == "hash":
        edited_plan = json.loads((path / "plan.json").read_text()) | {"hash": "0" * 16}
        (path / "plan.json").write_text(json.dumps(edited_plan))
    else:
        (path / lost).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ssntk.Store(path).claim(plan.hash(), plan.header(), plan)
    assert ssntk.Store(path).status().missing == ()
