"""Sweeps and commands with foreign code, unusual names, files, streams, threads and executors.

Compiles: criticality of one network of 3 units; one grid of 2 points of 3 units, which the tests share.
"""

import contextlib
import gc
import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import threading
import weakref

import cloudpickle
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT, some

import ssntk
from ssntk import cli, files, threads
from ssntk.cli import entry, run_sweep

PROBE = ssntk.Probe(np.linspace(0.0, 2.0, 3))


def here(*arguments):
    """(status, standard output, standard error) of a command that is run in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            entry.guarded(lambda: cli.app([str(argument) for argument in arguments]))
        except SystemExit as ended:
            code = ended.code or 0
    return code, out.getvalue(), err.getvalue()


FACTORIES = """
import atexit, os, sys
import jax
import jax.random as jr
import ssntk
def key_error(key): return {}["n"]
def type_error(key): return len(3)
def divided(key): return 1 / 0
def asserted(key): assert False, "no weights"
def memory(key): raise MemoryError("of 1 TB")
def stopped(key): raise StopIteration
def left(key): sys.exit(0)
def without(): return None
def model(): pass
def prints(key):
    print("loading weights")
    return ssntk.CTRNN(3, 1, 1, gain=0.5, key=key)
def branches(key):
    def field(t, x, u, p):
        return -x if x[0] > 0 else x
    return ssntk.VectorField(field, 1.0, 2)
def evaluated(key): return eval("1 +")
def no_luck(key): raise ssntk.NumericalError("no luck")
class Wordless(Exception):
    def __str__(self): raise RuntimeError("none")
def wordless(key): raise Wordless
def ended(key): os._exit(0)
def loud(key):
    os.write(1, b"raw line\\n")
    print("under", file=sys.__stdout__)
    os.system("echo from a child")
    atexit.register(print, "bye")
    jax.debug.print("of jax")
    os.close(1)
    return ssntk.CTRNN(3, 1, 1, gain=0.5, key=key)
def nowhere(key):
    return ssntk.VectorField(lambda t, x, u, p: p + x**2, 1.0, 1)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "own_factories.py").write_text(FACTORIES)
    (tmp_path / "own_broken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "own_leaves.py").write_text("import sys\n\nsys.exit(0)\n")
    (tmp_path / "own_fails.py").write_text("names = {}\nnames['a']\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (
            "own_factories:key_error",
            "KeyError: 'n'",
        ),
        ("own_factories:type_error", "TypeError: object of type 'int' has no len()"),
        ("own_factories:divided", "ZeroDivisionError: division by zero"),
        ("own_factories:asserted", "AssertionError: no weights"),
        ("own_factories:memory", "MemoryError: of 1 TB"),
        ("own_factories:stopped", "StopIteration"),
        ("own_factories:left", "it ends the process, by sys.exit(0)"),
        ("own_factories:without", "takes 0 positional arguments"),
        ("own_factories:evaluated", "SyntaxError: invalid syntax (<string>, line 1)"),
        ("own_factories:no_luck", "no luck"),
        ("own_factories:wordless", "Wordless: its message cannot be made, which raises RuntimeError"),
        ("own_factories:ended", "it ends the process, by os._exit(0)"),
        ("own_broken:f", "SyntaxError"),
        ("own_leaves:f", "it ends the process, by sys.exit(0)"),
        ("own_fails:f", "KeyError: 'a'"),
        ("own_factories:branches", "use jnp.where or jax.lax.cond instead of if"),
    ],
)
def test_whatever_foreign_code_does_is_a_sentence(factories, factory, said):
    code, out, err = here("check", factory, "--seeds", 1)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert f"{factory.partition(':')[0]}.py:" in err


@pytest.mark.parametrize("factory", ["own_factories:prints", "own_factories:nowhere"])
def test_json_is_json_and_nothing_else(factories, factory):
    _, out, err = here("check", factory, "--seeds", 1, "--json")

    def strict(text):
        raise ValueError(f"{text} is no JSON")

    (found,) = json.loads(out, parse_constant=strict)
    if factory.endswith("nowhere"):
        assert found["x_star"] == [None]
        assert found["stability_radius"] is None
    else:
        assert "loading weights" in err


def test_json_is_all_on_standard_output_however_else_is_written_there(factories):
    """The command runs in a new process, which keeps compiled code."""
    done = subprocess.run(
        [sys.executable, "-m", "ssntk", "check", "own_factories:loud", "--seeds", "1", "--json"],
        cwd=factories,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SSNTK_CACHE": str(factories / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    # Both verdicts are valid results here.
    assert done.returncode in (0, 1)
    assert json.loads(done.stdout)[0]["seed"] == 0
    for said in ("raw line", "under", "from a child"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (factories / "cache").stat().st_mode & 0o777 == 0o700
    assert list((factories / "cache").glob("*-cache"))
    assert list((factories / "cache" / "traced").iterdir())


def test_the_command_line_configures_jax_before_it_starts():
    code = "import sys, ssntk.cli; assert 'jax' not in sys.modules, 'jax'"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("which", ["private", "folder", "file", "foreign file"])
def test_jax_keeps_compiled_code_in_a_private_folder_only(tmp_path, monkeypatch, which):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    folder.chmod(0o777 if which == "folder" else 0o755)
    (folder / "a-cache").touch()
    (folder / "a-cache").chmod(0o666 if which == "file" else 0o644)
    if which == "foreign file":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    for name in ("JAX_COMPILATION_CACHE_DIR", "SSNTK_TRACED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "0")
    monkeypatch.setenv("SSNTK_CACHE", str(folder))
    with contextlib.nullcontext() if which == "private" else pytest.warns(UserWarning, match="chmod 700 makes it private"):
        files.warn_once.cache_clear()
        entry.keep_compiled_code()
    kept = str(folder) if which == "private" else None
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == kept
    # Restore the environment variables that are set here.
    for name in ("JAX_COMPILATION_CACHE_DIR", "SSNTK_TRACED"):
        os.environ.pop(name, None)


def test_names_of_files_that_are_no_text(tmp_path):
    """On Linux a name may hold any bytes. Python represents them by surrogates, which fonts, terminals and netCDF refuse."""
    names = ["good.npz", "\udcff.npz"]
    for i, name in enumerate(names):
        np.savez(tmp_path / "w.npz", weight=np.eye(3) * (0.1 + 0.1 * i))
        os.rename(tmp_path / "w.npz", tmp_path / name)

    def make(weights, gain):
        return ssntk.CTRNN.from_weights(**np.load(tmp_path / weights), gain=gain)

    grid = ssntk.Grid(make, {"weights": names, "gain": [0.5]}, probe=PROBE)
    store = ssntk.run(grid, ssntk.Store(tmp_path / "s"), progress=False)
    assert store.status().done == (0, 1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run_sweep.print_summary(store)
    assert r"weights = \udcff.npz" in said.getvalue()
    for command, name in (("plot", "f.svg"), ("report", "p.html"), ("export", "d.nc")):
        code, _, err = here(command, store.path, "--out", tmp_path / name)
        assert code == 0, err
    xarray = pytest.importorskip("xarray")
    assert xarray.load_dataset(tmp_path / "d.nc")["weights"].values.tolist() == ["good.npz", r"\udcff.npz"]


GRID = """
[model]
n_input = 1
[grid]
weights = {names}
gain = [0.5, 1.5]
[probe]
ts = {{ start = 0.0, stop = 2.0, num = 3 }}
"""
NAMES = ["good.npz", "[/x].npz", "[bold]b.npz", r"$\frac$.npz", "$1$.npz"]


def test_names_are_neither_markup_nor_mathematics(tmp_path):
    for i, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        np.savez(tmp_path / "w.npz", weight=np.eye(3) * (0.1 + 0.1 * i))
        os.rename(tmp_path / "w.npz", tmp_path / name.replace("/", "_"))
    names = [name.replace("/", "_") for name in NAMES]
    (tmp_path / "grid.toml").write_text(GRID.format(names=json.dumps(names)).replace("n_input = 1\n", ""))
    code, out, err = here("sweep", tmp_path / "grid.toml", "--out", tmp_path / "s")
    assert code == 0, err
    # The last point has the largest eigenvalue.
    assert f"weights = {names[-1]}" in out
    assert (tmp_path / "s" / "phase_diagram.png").stat().st_size > 1000
    # Closing markup in a title, as a header may hold it.
    from ssntk.report.tables import _plain

    assert _plain("[/red]").plain == "[/red]"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
    return ssntk.run(grid, ssntk.Store(tmp_path_factory.mktemp("grid") / "s"), progress=False)


@pytest.mark.parametrize(
    ("command", "name"),
    [("report", "page.html"), pytest.param("plot", "figure.png", marks=pytest.mark.slow), ("plot", "figure.svg")],
)
def test_what_was_there_stays_where_the_disk_is_full(store, tmp_path, command, name):
    out = tmp_path / name
    assert here(command, store.path, "--out", out)[0] == 0
    good = out.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code, _, err = here(command, store.path, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "Traceback" not in err
    assert out.read_bytes() == good
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_out_is_never_of_another_kind(store):
    plan = (store.path / "plan.json").read_bytes()
    for command in ("report", "plot", "export"):
        code, _, err = here(command, store.path, "--out", store.path / "plan.json")
        assert code == 2
        assert "must end in" in err
    assert (store.path / "plan.json").read_bytes() == plan


def test_files_have_the_modes_that_the_umask_leaves(tmp_path):
    before = os.umask(0o002)
    try:
        grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
        kept = ssntk.run(grid, ssntk.Store(tmp_path / "s"), progress=False)
        here("report", kept.path)
        modes = {file.name: file.stat().st_mode & 0o777 for file in kept.path.rglob("*") if file.is_file()}
    finally:
        os.umask(before)
    del modes[".lock"]
    assert set(modes.values()) == {0o664}
    assert len(modes) == 4


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"weights\n1 2 3\n", "it begins with b'weights\\n' and is no file of weights"),
        (b"PK\x03\x04 and no more", "it is damaged"),
        (None, "it is damaged"),
        ("objects", "it holds the pickle weight"),
    ],
)
def test_weights_that_are_none_are_said_in_a_sentence(tmp_path, data, said):
    file = tmp_path / "w.npz"
    if data == "objects":
        np.savez(file, weight=np.array([None, {}]))
    else:
        np.savez(file, weight=np.eye(3))
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if data is None else data)
    (tmp_path / "grid.toml").write_text(GRID.format(names='["w.npz"]').replace("n_input = 1\n", ""))
    code, _, err = here("sweep", tmp_path / "grid.toml", "--out", tmp_path / "s")
    assert code == 2
    assert "w.npz cannot be read as .npz" in err
    assert said in err


def test_a_byte_order_mark_is_passed_over(tmp_path):
    np.savez(tmp_path / "w.npz", weight=np.eye(3))
    text = GRID.format(names='["w.npz"]').replace("n_input = 1\n", "")
    (tmp_path / "grid.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert ssntk.read_plan(tmp_path / "grid.toml").size == 2


def test_thread_limits_of_several_at_once(monkeypatch):
    """The last context that ends restores the setting from before the first one. The machine may have only one thread, so a
    substitute for the setting is used."""
    now = [4]

    class Library:
        def get_num_threads(self):
            return now[0]

        def set_num_threads(self, count):
            now[0] = count

    class Unknown(Library):
        """A library that does not tell its number of threads, and so is left alone."""

        def get_num_threads(self):
            return None

        def set_num_threads(self, count):
            raise AssertionError

    class Controller:
        lib_controllers = (Library(), Unknown())

    monkeypatch.setattr(threads, "_blas", Controller)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with threads.one_blas_thread():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with threads.one_blas_thread():
        thread.start()
        entered.wait()
        assert now == [1]
    # The first context has ended, and the other one is still active.
    assert now == [1]
    leave.set()
    thread.join()
    assert now == [4]
    # The setting is also restored after an error.
    with pytest.raises(ZeroDivisionError), threads.one_blas_thread():
        1 / 0  # noqa: B018
    assert now == [4]


def test_a_grid_that_was_measured_travels():
    grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
    grid.measure_batch(None, (0, 1))
    other = cloudpickle.loads(cloudpickle.dumps(grid))
    assert "_makers" not in vars(other)
    assert other.hash() == grid.hash()


def test_a_grid_is_let_go():
    def ended():
        grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
        grid.measure_batch(None, (0, 1))
        return weakref.ref(grid)

    found = ended()
    gc.collect()
    assert found() is None


@pytest.mark.parametrize("closed", some(["stdout", "stderr read by nobody"], ["stderr read by nobody"]))
def test_streams_that_are_gone_end_no_run(tmp_path, closed):
    np.savez(tmp_path / "w.npz", weight=np.eye(3))
    (tmp_path / "grid.toml").write_text(GRID.format(names='["w.npz"]').replace("n_input = 1\n", ""))
    command = f"{sys.executable} -m ssntk sweep grid.toml --out s"
    command += " >&-" if closed == "stdout" else " 2>&1 >out | true"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SSNTK_CACHE": "off"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    assert len(ssntk.Store(tmp_path / "s").status().done) == 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 200])
def test_memory_and_open_files_stay_flat(tmp_path, count):
    """After many sweeps of two points, no files are open, and no grids and no memory are held."""

    def one(i):
        grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
        ssntk.run(grid, ssntk.Store(tmp_path / str(i)), progress=False)

    for i in range(2):
        one(i)
    files, grids, peak = len(list(pathlib.Path("/proc/self/fd").iterdir())), _grids(), _peak()
    for i in range(2, 2 + count):
        one(i)
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= files
    assert _grids() <= grids
    # Each sweep compiles its own `make`, a lambda. The memory that JAX's caches take for this is bounded.
    assert _peak() - peak <= 3e8


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _grids():
    gc.collect()
    return sum(type(one) is ssntk.Grid for one in gc.get_objects())
