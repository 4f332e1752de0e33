import concurrent.futures
import json
import pathlib

import jax
import numpy as np
import pytest
from helpers import fold_sweep

import ssntk


def records(folder):
    """The arrays of every point, without the time that it took."""
    out = {}
    for file in sorted((folder / "points").glob("*.npz")):
        with np.load(file) as archive:
            out[file.name] = {name: archive[name] for name in archive.files if name != "seconds"}
    return out


def test_resuming_recomputes_nothing_and_equals_one_run_bit_for_bit(tmp_path):
    sweep = fold_sweep()
    whole = ssntk.run(sweep, ssntk.Store(tmp_path / "whole"), progress=False)
    ssntk.run(sweep, ssntk.Store(tmp_path / "parts"), progress=False)
    for name in ("00001.npz", "00002.npz"):
        (tmp_path / "parts" / "points" / name).unlink()
    kept = (tmp_path / "parts" / "points" / "00000.npz").stat().st_mtime_ns
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "parts"), progress=False)
    assert (tmp_path / "parts" / "points" / "00000.npz").stat().st_mtime_ns == kept
    threads = concurrent.futures.ThreadPoolExecutor(2)
    ssntk.run(sweep, ssntk.Store(tmp_path / "threads"), executor=threads, progress=False)
    for folder in ("parts", "threads"):
        for name, expected in records(whole.path).items():
            got = records(tmp_path / folder)[name]
            assert got.keys() == expected.keys()
            for key in expected:
                np.testing.assert_array_equal(got[key], expected[key])


def test_another_plan_never_mixes(tmp_path):
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    with pytest.raises(ssntk.StoreError, match="another plan"):
        ssntk.run(fold_sweep(distances=[1e-1]), ssntk.Store(tmp_path), progress=False)


def test_a_plan_without_a_bifurcation_does_not_keep_the_folder(tmp_path):
    with pytest.raises(ssntk.NumericalError, match="no hopf number 0"):
        ssntk.run(fold_sweep(towards="hopf"), ssntk.Store(tmp_path / "s"), progress=False)
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "s"), progress=False)


def test_torn_and_foreign_records_are_kept_aside_and_measured_again(tmp_path):
    sweep = fold_sweep()
    ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    before = records(tmp_path)
    points = tmp_path / "points"
    points.joinpath("00000.npz").write_bytes(points.joinpath("00000.npz").read_bytes()[:100])
    points.joinpath("00001.npz").write_bytes(points.joinpath("00002.npz").read_bytes())
    points.joinpath("00003.npz").write_bytes(b"")
    store = ssntk.Store(tmp_path)
    assert store.status().missing == (0, 1, 3)
    assert len(store.status().set_aside) == 3
    ssntk.run(sweep, store, progress=False)
    assert store.status().missing == ()
    assert len(list(points.glob("*.set-aside*"))) == 3
    after = records(tmp_path)
    for name, expected in before.items():
        for key in expected:
            np.testing.assert_array_equal(after[name][key], expected[key])


def test_a_file_that_cannot_be_read_is_not_taken_for_missing(tmp_path, monkeypatch):
    sweep = fold_sweep()
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)

    def broken(*_, **__):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(pathlib.Path, "read_bytes", broken)
    with pytest.raises(ssntk.StoreError, match="cannot be read"):
        store.status()


@pytest.mark.parametrize("held", [{"file.txt": "x"}, {"plan.json": "{"}, {"plan.json": '{"format": 99}'}])
def test_folders_that_are_no_store(tmp_path, held):
    for name, text in held.items():
        tmp_path.joinpath(name).write_text(text)
    with pytest.raises(ssntk.StoreError):
        ssntk.Store(tmp_path).plan()
    with pytest.raises(ssntk.StoreError, match="file, not a folder"):
        ssntk.Store(tmp_path / next(iter(held)))


def test_the_branch_survives_the_store(tmp_path):
    sweep = fold_sweep()
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    branch, again = sweep.follow(), store.branch()
    assert again is not None
    for name in ("parameter", "x", "eigenvalues", "stable", "tangent"):
        np.testing.assert_array_equal(getattr(again, name), getattr(branch, name))
    assert (again.status, again.steps, len(again.unresolved)) == (branch.status, branch.steps, 0)
    got, expected = again.bifurcations[0], branch.bifurcations[0]
    assert (got.kind, got.parameter, got.interval, got.criticality) == (
        expected.kind,
        expected.parameter,
        expected.interval,
        None,
    )


def test_plan_file_says_what_wrote_it(tmp_path):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["hash"] == fold_sweep().hash()
    assert plan["versions"]["jax"] == jax.__version__
    assert store.to_xarray().attrs["plan"] == plan["hash"]
