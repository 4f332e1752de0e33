import atexit
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from helpers import ROOT, some

from ssntk import cli
from ssntk.cli import entry

CACHE = tempfile.TemporaryDirectory()
atexit.register(CACHE.cleanup)
ENVIRONMENT = os.environ | {"SSNTK_CACHE": CACHE.name}
SWEEP = """
towards = "saddle-node"
span = [-4.0, 4.0]
distances = { start = 1e-1, stop = 1e-6, num = 24 }
[model]
n_state = 8
n_input = 1
n_output = 1
gain = 2.0
seed = 0
[family]
input = { direction = [1.0] }
[probe]
ts = { start = 0.0, stop = 20.0, num = 5 }
"""


def ssntk(*arguments, cwd=ROOT, check=None):
    done = subprocess.run(
        [sys.executable, "-m", "ssntk", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env=ENVIRONMENT,
    )
    assert "Traceback" not in done.stderr
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def here(*arguments, check):
    """The output of a command that is run in this process, which saves the start of another one."""
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            entry.guarded(lambda: cli.app(list(map(str, arguments))))
        except SystemExit as ended:
            code = ended.code or 0
    assert code == check, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that ran to its end from the command line."""
    folder = tmp_path_factory.mktemp("cli")
    folder.joinpath("small.toml").write_text(SWEEP)
    return folder, ssntk("sweep", "small.toml", cwd=folder, check=0)


def test_sweep_ends_with_the_table_the_figure_and_where_all_lies(finished):
    folder, done = finished
    results = folder / "results" / "small"
    assert "saddle-node at p =" in done.stdout
    assert "predicted -1" in done.stdout
    assert str(results.relative_to(folder) / "collapse.png") in done.stdout
    assert results.joinpath("collapse.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(results.joinpath("points").glob("*.npz"))) == 24


def test_a_second_run_recomputes_nothing(finished):
    folder, _ = finished
    points = sorted((folder / "results" / "small" / "points").glob("*.npz"))
    before = [file.stat().st_mtime_ns for file in points]
    ssntk("sweep", "small.toml", cwd=folder, check=0)
    assert [file.stat().st_mtime_ns for file in points] == before


@pytest.mark.slow
def test_kill_in_the_middle_loses_no_finished_point(finished, tmp_path):
    folder, _ = finished
    process = subprocess.Popen(
        [sys.executable, "-m", "ssntk", "sweep", str(folder / "small.toml"), "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    points = tmp_path / "out" / "points"
    deadline = time.monotonic() + 120
    while len(list(points.glob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {file.name: file.read_bytes() for file in points.glob("*.npz")}
    assert 3 <= len(kept) < 24
    ssntk("sweep", folder / "small.toml", "--out", tmp_path / "out", check=0)
    for name, data in kept.items():
        assert points.joinpath(name).read_bytes() == data
    for file in sorted((folder / "results" / "small" / "points").glob("*.npz")):
        with np.load(file) as one, np.load(points / file.name) as other:
            for key in set(one.files) - {"seconds"}:
                np.testing.assert_array_equal(one[key], other[key])


def test_status_dry_run_schema_and_plot(finished, tmp_path, monkeypatch):
    folder, _ = finished
    monkeypatch.chdir(folder)
    assert "24 of 24 done" in here("sweep", "small.toml", "--status", check=0)
    assert "24 done, 0 failed" in here("sweep", "small.toml", "--dry-run", check=0)
    assert "24 points" in here("sweep", "small.toml", "--dry-run", "--out", tmp_path / "new", check=0)
    assert "0 of 24 done" in here("sweep", "small.toml", "--status", "--out", tmp_path / "new", check=0)
    assert not (tmp_path / "new").exists()
    schema = tmp_path / "schema.toml"
    schema.write_text(ssntk("sweep", "--schema", check=0).stdout)
    # Its branch would be compiled for nothing: only what is read is looked at.
    assert "0 of 32 done" in here("sweep", schema, "--status", "--out", tmp_path / "example", check=0)
    figure = tmp_path / "figure.svg"
    here("plot", folder / "results" / "small", "--out", figure, check=0)
    assert "<svg" in figure.read_text()


def test_export_report_and_merge(finished, tmp_path):
    folder, _ = finished
    results = folder / "results" / "small"
    here("export", results, "--out", tmp_path / "small.nc", check=0)
    assert (tmp_path / "small.nc").read_bytes().startswith(b"\x89HDF")
    here("report", results, "--out", tmp_path / "small.html", check=0)
    assert "<html" in (tmp_path / "small.html").read_text()
    merged = here("merge", results, results, "--out", tmp_path / "merged", check=0)
    assert "24 of 24 done" in merged
    for file in (results / "points").glob("*.npz"):
        assert (tmp_path / "merged" / "points" / file.name).read_bytes() == file.read_bytes()


def test_usage_errors_exit_2(finished, tmp_path):
    folder, _ = finished
    tmp_path.joinpath("bad.toml").write_text(SWEEP.replace("gain", "gian"))
    for arguments, said in [
        (("sweep", "missing.toml"), "cannot be read"),
        (("sweep", tmp_path / "bad.toml"), "did you mean model.gain"),
        (("sweep",), "name a sweep file"),
        (("sweep", "--nonsense"), "nonsense"),
        (("sweep", folder / "small.toml", "--workers", 0), "--workers must be at least 1"),
        (("sweep", folder / "small.toml", "--workers", 2, "--scheduler", "tcp://here:1"), "exclude each other"),
        (("sweep", folder / "small.toml", "--part", "3/2"), "--part must be i/k"),
        (("export", folder / "results" / "small", "--out", tmp_path / "small.csv"), "must end in .nc"),
        (("merge", tmp_path / "nowhere", "--out", tmp_path / "all"), "not a folder"),
        (("plot", tmp_path / "nowhere"), "not a folder"),
        (("plot", folder / "results" / "small", "--out", tmp_path / "figure.jpg"), "must end in"),
    ]:
        assert said in here(*arguments, check=2)
    assert "cannot be read" in ssntk("sweep", "missing.toml", check=2).stderr


def test_failures_exit_1(finished, tmp_path):
    folder, _ = finished
    tmp_path.joinpath("none.toml").write_text(SWEEP.replace("[-4.0, 4.0]", "[3.5, 4.0]"))
    tmp_path.joinpath("other.toml").write_text(SWEEP.replace("1e-6", "1e-5"))
    tmp_path.joinpath("full").mkdir()
    tmp_path.joinpath("full", "file").touch()
    for arguments, said in [
        (("sweep", tmp_path / "none.toml", "--out", tmp_path / "none"), "no saddle-node number 0"),
        (("sweep", tmp_path / "other.toml", "--out", folder / "results" / "small"), "another plan"),
        (("sweep", folder / "small.toml", "--out", tmp_path / "full"), "holds no sweep"),
        (("plot", tmp_path / "full"), "holds no sweep"),
    ]:
        assert said in here(*arguments, check=1)
    assert "holds no sweep" in ssntk("plot", tmp_path / "full", check=1).stderr


def test_importing_changes_no_configuration_and_no_pyplot():
    code = (
        "import jax, sys; before = dict(jax.config.values); import ssntk; "
        "assert dict(jax.config.values) == before; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


FACTORY = """
import numpy as np, ssntk

def near(key):
    return ssntk.CTRNN.from_weights(np.diag([0.95, 0.2]))

def far(key):
    return ssntk.CTRNN.from_weights(np.diag([0.3, 0.2]))

def none(key):
    return ssntk.VectorField(lambda t, x, u, p: p["b"] + x**2, {"b": np.ones(1)}, 1)
"""


def test_check_tells_near_critical_initialisations(tmp_path, monkeypatch):
    tmp_path.joinpath("networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = ssntk("check", "networks:near", "--seeds", 2, "--horizon", 1000, "--json", cwd=tmp_path, check=1)
    verdicts = json.loads(found.stdout)
    assert [one["seed"] for one in verdicts] == [0, 1]
    # At rest at zero the Jacobian is diag(0.95, 0.2) - 1.
    assert verdicts[0]["stability_radius"] == pytest.approx(0.05, rel=1e-10)
    assert verdicts[0]["verdict"] == "critical"
    far = here("check", "networks:far", "--seeds", 2, check=0)
    assert far.count("regular") == 2
    assert "0 of 2 near-critical, 0 unknown" in far
    unknown = here("check", "networks:none", "--seeds", 1, check=1)
    assert "1 unknown" in unknown
    assert "no fixed point was found" in unknown


REFUSED = [["networks:absent"], ["nowhere:near"], ["networks"], ["networks:near", "--seeds", 0]]


@pytest.mark.parametrize("arguments", some(REFUSED, [REFUSED[0]]))
def test_check_refuses_what_it_cannot_call(tmp_path, arguments):
    tmp_path.joinpath("networks.py").write_text(FACTORY)
    assert "ssntk: " in ssntk("check", *arguments, cwd=tmp_path, check=2).stderr


@pytest.mark.parametrize(("code", "status", "said"), [(None, 0, ""), (0, 0, ""), (3, 3, ""), ("no room", 1, "no room\n")])
def test_leaving_while_something_is_compiled_in_advance_ends_as_python_would(monkeypatch, capsys, code, status, said):
    from ssntk.sweep import run

    release, left = threading.Event(), []
    monkeypatch.setattr(os, "_exit", left.append)
    ahead = threading.Thread(target=release.wait, name=run.PREPARING)
    ahead.start()
    try:
        entry.leave(code)
    finally:
        release.set()
        ahead.join()
    assert left == [status]
    assert capsys.readouterr().err == said
    entry.leave(code)
    assert left == [status]
