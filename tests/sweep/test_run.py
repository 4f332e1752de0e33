"""Running sweeps in one process or several, and which records survive failures."""

import os
import pathlib
import resource
import signal
import sys
import tempfile

import cloudpickle
import diffrax
import jax
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.sweep.progress import duration, reporting

AXES = {"gain": np.linspace(0.4, 1.6, 6).tolist(), "seed": [0, 1, 2]}
PROBE = ssntk.Probe(np.linspace(0.0, 2.0, 3))
# Few stages, which compile fast.
QUICK = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)


def network(gain, seed):
    return ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(seed))


def arrays(store):
    """The arrays of every record, without the time that it took."""
    out = {}
    for file in sorted((store.path / "points").glob("*.npz")):
        with np.load(file) as archive:
            out[file.name] = {name: archive[name] for name in archive.files if name != "seconds"}
    return out


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, expected in one.items():
        assert other[name].keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(other[name][key], value)


@pytest.fixture(scope="module")
def grid():
    return ssntk.Grid(network, AXES, probe=PROBE, integrator=QUICK)


@pytest.fixture(scope="module")
def whole(grid, tmp_path_factory):
    return ssntk.run(grid, ssntk.Store(tmp_path_factory.mktemp("whole")), progress=False)


class Poisoned(ssntk.Grid):
    """A grid in which the process that measures point 5 dies."""

    def measure_batch(self, context, indices):
        if 5 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().measure_batch(context, indices)


@pytest.mark.slow
def test_a_poison_point_is_recorded_as_failed_and_all_others_are_as_in_this_process(whole, tmp_path):
    # The processes cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    store = ssntk.Store(tmp_path)
    with ssntk.Workers(2) as workers:
        ssntk.run(Poisoned(network, AXES, probe=PROBE, integrator=QUICK), store, executor=workers, progress=False)
    status = store.status()
    assert list(status.failed) == [5]
    assert "died" in status.failed[5]
    assert status.missing == ()
    expected, got = arrays(whole), arrays(store)
    del expected["00005.npz"], got["00005.npz"]
    assert_same(expected, got)
    # In this process that point does no harm.
    ssntk.run(ssntk.Grid(network, AXES, probe=PROBE, integrator=QUICK), store, progress=False, retry_failed=True)
    assert_same(arrays(whole), arrays(store))
    assert store.status().set_aside == ()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are blocked on POSIX systems only")
def test_ctrl_c_does_not_reach_a_process_that_measures():
    with ssntk.Workers(1) as workers:
        # A terminal sends SIGINT to every process, also to one that is still importing: the one that started it decides.
        assert signal.SIGINT in workers.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.slow
def test_dask_measures_the_same(grid, whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs="ERROR"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        store = ssntk.run(grid, ssntk.Store(tmp_path), executor=client.get_executor(), progress=False)
    assert_same(arrays(whole), arrays(store))


def test_parts_are_merged_into_the_whole(grid, whole, tmp_path):
    parts = []
    for i in (1, 2):
        parts.append(ssntk.run(grid, ssntk.Store(tmp_path / str(i)), progress=False, part=(i, 2)))
    assert sum(len(part.status().done) for part in parts) == grid.size
    assert all(part.status().done for part in parts)
    merged = ssntk.Store(tmp_path / "all")
    # A torn record of a part is not merged.
    torn = next((parts[0].path / "points").glob("*.npz"))
    data = torn.read_bytes()
    torn.write_bytes(data[: len(data) // 2])
    assert len(merged.merge(*parts).missing) == 1
    torn.write_bytes(data)
    assert merged.merge(*parts).missing == ()
    assert_same(arrays(whole), arrays(merged))
    other = ssntk.Grid(network, AXES, probe=PROBE, integrator=QUICK, modes=1)
    with pytest.raises(ssntk.StoreError, match="holds another plan"):
        merged.merge(ssntk.run(other, ssntk.Store(tmp_path / "other"), progress=False, part=(1, 9)))
    for part in ((0, 2), (3, 2), (1, 0), "1/2"):
        with pytest.raises(ValueError, match="part"):
            ssntk.run(grid, merged, progress=False, part=part)


def test_a_second_run_on_the_same_folder_is_refused(grid, tmp_path):
    store = ssntk.Store(tmp_path)
    with store.locked(), pytest.raises(ssntk.StoreError, match="in use"):
        ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    ssntk.run(grid, ssntk.Store(tmp_path), progress=False, part=(1, 9))


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(grid, whole, tmp_path):
    store = ssntk.run(grid, ssntk.Store(tmp_path), progress=False, part=(1, 3))
    before = set(arrays(store))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Limit the size of files, which has the effect of a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
    try:
        with pytest.raises(ssntk.StoreError, match=r"cannot be written: .*kept"):
            ssntk.run(grid, store, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert set(arrays(store)) == before
    assert not list(tmp_path.rglob("*.part"))
    ssntk.run(grid, store, progress=False)
    assert_same(arrays(whole), arrays(store))


def test_a_folder_that_cannot_be_written_to(grid):
    # Use another folder than pytest's, which only its owner may read.
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o555)
        run, store = ssntk.run, ssntk.Store(folder)
        # Root may write anywhere. The user "nobody" may not, but cannot import the package either.
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(ssntk.StoreError, match="cannot be written to"):
                run(grid, store, progress=False)
        finally:
            if me == 0:
                os.seteuid(me)
            folder.chmod(0o755)


def test_what_failed_is_measured_again_only_when_asked(tmp_path):
    def make(a):
        return ssntk.normal_forms.saddle_node(a)

    grid = ssntk.Grid(make, {"a": [1.0, -1.0]}, probe=ssntk.Probe([0.0, 1.0]), x0=[1.0], integrator=QUICK)
    store = ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    assert list(store.status().failed) == [1]
    file = tmp_path / "points" / "00001.npz"
    before = file.stat().st_mtime_ns
    ssntk.run(grid, store, progress=False)
    assert file.stat().st_mtime_ns == before
    ssntk.run(grid, store, progress=False, retry_failed=True)
    assert file.stat().st_mtime_ns > before


def test_progress_in_plain_lines_says_how_far_how_fast_and_what_failed(capsys):
    with reporting("a sweep", total=10, done=4, failed=1, shown=True) as tell:
        tell(3, 1)
        tell(3, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a sweep: 4 of 10 points done, 6 to go"
    assert lines[-1].startswith("a sweep: 10 of 10 points, 2 failed, ")
    assert lines[-1].endswith(" points/s")
    assert [duration(seconds) for seconds in (3.2, 61.0, 3700.0)] == ["3 s", "1 min 01 s", "1 h 01 min"]


def test_netcdf_holds_what_the_store_holds(whole, tmp_path):
    import xarray

    whole.to_netcdf(tmp_path / "out.nc")
    data = whole.to_xarray()
    with xarray.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read.participation_ratio, data.participation_ratio)
        both = read.jacobian_eigenvalues_real + 1j * read.jacobian_eigenvalues_imag
        np.testing.assert_array_equal(both, data.jacobian_eigenvalues)
        assert read.trace.units == "state^2 time"
        assert read.attrs["plan"] == data.attrs["plan"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.nc"]


def test_a_store_of_the_first_format_is_read_and_goes_on(tmp_path):
    """Written by the first version of the store: a fold at distances 5 (not reached), 0.01 and 0.001."""
    import shutil

    from helpers import fold_sweep

    old = pathlib.Path(__file__).parent / "format1"
    shutil.copytree(old, tmp_path / "store")
    store = ssntk.Store(tmp_path / "store")
    status = store.status()
    assert (status.done, list(status.failed), status.set_aside) == ((1, 2), [0], ())
    data = store.to_xarray()
    np.testing.assert_allclose(data.steady_state_eigenvalues[:2, 0], [250.0, 25.0], rtol=1e-9)
    assert "kernel_over_time" not in data
    assert store.bifurcation().kind == "saddle-node"
    sweep = fold_sweep(distances=[5.0, 1e-2, 1e-3], integrator=None)
    # With the version of JAX that wrote the store, its older hash is recognised.
    if jax.__version__ == store.plan()["versions"]["jax"]:
        ssntk.run(sweep, store, progress=False)
        assert store.status() == status
        assert store.plan()["identity"] == sweep.identity
    other = fold_sweep(distances=[5.0, 1e-2, 1e-3], step=0.04, integrator=None)
    with pytest.raises(ssntk.StoreError, match="another plan"):
        ssntk.run(other, store, progress=False)
