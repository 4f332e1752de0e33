"""kill -9 at random moments. No finished point is lost, duplicated or incomplete. The completed store is bit for bit that of
an undisturbed run."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SWEEP = """
[grid]
gain = { start = 0.1, stop = 1.6, num = 24 }
seed = { start = 0, stop = 9, num = 10 }
[model]
n_state = 4
n_input = 1
n_output = 1
[probe]
ts = { start = 0.0, stop = 10.0, num = 9 }
"""
TOTAL = 240
# The processes that measure are found in /proc, which only Linux has. CI runs on Linux, so that no test is skipped there.
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds worker processes in /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    folder.joinpath("grid.toml").write_text(SWEEP)
    return folder


def start(folder, out, *arguments):
    """Start a run of the sweep. Compiled code is kept between runs, so that they reach their points soon."""
    command = [sys.executable, "-m", "ssntk", "sweep", "grid.toml", "--out", out, *arguments]
    environment = os.environ | {"SSNTK_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def arrays(folder):
    """Every record without the time that it took. Checks that the folder holds nothing else but files of killed writers."""
    out = {}
    for file in sorted((folder / "points").iterdir()):
        if file.suffix == ".part":
            continue
        assert file.suffix == ".npz", file.name
        with np.load(file) as archive:
            out[file.name] = {name: archive[name] for name in archive.files if name != "seconds"}
    return out


def assert_whole(folder, out, undisturbed):
    found = arrays(folder / out)
    assert len(found) == TOTAL
    for name, expected in undisturbed.items():
        for key, value in expected.items():
            np.testing.assert_array_equal(found[name][key], value)


@pytest.fixture(scope="module")
def undisturbed(folder):
    finish(start(folder, "whole"))
    return arrays(folder / "whole")


def measured(folder, out):
    return {file.name: file.read_bytes() for file in (folder / out / "points").glob("*.npz")}


def kill_the_run(folder, undisturbed, times, seed, *arguments):
    chance, out, killed = random.Random(seed), f"run{seed}{len(arguments)}", 0
    while killed < times:
        before = measured(folder, out)
        process = start(folder, out, *arguments)
        # Kill at any moment: while the process starts, measures or writes.
        until = time.monotonic() + chance.uniform(0.0, 5.0)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        if process.poll() is not None:
            # The run has already ended: begin again.
            finish(process)
            assert_whole(folder, out, undisturbed)
            out += "+"
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
        after = measured(folder, out)
        assert all(after[name] == data for name, data in before.items())
    finish(start(folder, out, *arguments))
    assert_whole(folder, out, undisturbed)


def children(process):
    """The processes that measure for this process."""
    found = []
    for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in task.read_text().split():
            command = pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in command:
                found.append(int(child))
    return found


def kill_workers(folder, undisturbed, times, seed):
    chance, out, killed = random.Random(seed), f"workers{seed}", 0
    process = start(folder, out, "--workers", "2")
    while killed < times:
        time.sleep(chance.uniform(0.5, 6.0))
        if process.poll() is not None:
            finish(process)
            assert_whole(folder, out, undisturbed)
            out += "+"
            process = start(folder, out, "--workers", "2")
            continue
        victims = children(process)
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
            killed += 1
    finish(process)
    assert_whole(folder, out, undisturbed)


@ON_LINUX
def test_a_kill_of_the_run(folder, undisturbed):
    kill_the_run(folder, undisturbed, 1, 0)


@pytest.mark.slow
@ON_LINUX
def test_twenty_kills_of_the_run(folder, undisturbed):
    kill_the_run(folder, undisturbed, 20, 1)


@pytest.mark.slow
@ON_LINUX
def test_twenty_kills_of_a_run_with_workers(folder, undisturbed):
    kill_the_run(folder, undisturbed, 20, 2, "--workers", "2")


@pytest.mark.slow
@ON_LINUX
def test_twenty_kills_of_a_worker(folder, undisturbed):
    kill_workers(folder, undisturbed, 20, 3)


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="Ctrl-C is ignored here, as in the background")
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(folder, undisturbed):
    process = start(folder, "stopped", "--workers", "2")
    while len(measured(folder, "stopped")) < 16:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    assert len(measured(folder, "stopped")) < TOTAL
    finish(start(folder, "stopped"))
    assert_whole(folder, "stopped", undisturbed)
