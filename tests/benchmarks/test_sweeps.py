"""Sweeps: points per second, several processes, the time until the first point, and the memory of a large grid.

`pytest -m slow tests/benchmarks/test_sweeps.py -s -n 0` prints the table. Nothing else should run at the same time.
"""

import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow


def network(gain, seed, n=16):
    return ssntk.CTRNN(n, 1, 1, gain=gain, key=jr.key(seed))


@pytest.mark.parametrize("n", [16, 32])
def test_points_against_dense_eigenvalues_through_jax_one_by_one(n):
    """The same trajectory kernels, T = 21; a point of the sweep has its fixed point, both spectra and the channel too."""
    axes = {"gain": np.linspace(0.5, 0.9, 8)}
    probe = ssntk.Probe(np.linspace(0.0, 20.0, 21), [[1.0]])
    from_rest = ssntk.Probe(probe.ts, probe.us, np.zeros(n))
    models = [network(gain, 0, n) for gain in axes["gain"]]
    eigenvalues = jax.jit(jnp.linalg.eigvalsh)

    def one_by_one():
        for model in models:
            np.asarray(eigenvalues(ssntk.ntk(model, from_rest, weights="trapezoid")))

    def batched(modes):
        grid = ssntk.Grid(lambda gain: network(gain, 0, n), axes, probe=probe, modes=modes)
        assert len(grid.batches) == 1
        return lambda: grid.measure_batch(None, grid.batches[0])

    dense, whole, top = timed(one_by_one, batched(None), batched(10), rounds=5)
    print(
        f"\nn = {n}: one by one {dense / 8 * 1e3:.1f} ms a point, batch {whole / 8 * 1e3:.1f} ms ({dense / whole:.1f}x), "
        f"batch with the top ten {top / 8 * 1e3:.1f} ms ({dense / top:.1f}x)"
    )
    assert dense / top >= 3


SCRIPT = """
import os, pathlib, sys, time
os.environ["EQX_ON_ERROR"] = "off"
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np, ssntk

def network(gain, seed):
    return ssntk.CTRNN(16, 1, 1, gain=gain, key=jax.random.key(seed))

if __name__ == "__main__":
    count, out = int(sys.argv[1]), sys.argv[2]
    axes = {"gain": np.linspace(0.1, 1.5, 32), "seed": range(16)}
    grid = ssntk.Grid(network, axes, probe=ssntk.Probe(np.linspace(0.0, 20.0, 21)), modes=10)
    with ssntk.Workers(count) as workers:
        store = ssntk.run(grid, ssntk.Store(out), executor=workers, progress=False)
    # From when every process has begun to when all are done.
    done = sorted(file.stat().st_mtime for file in pathlib.Path(out, "points").glob("*.npz"))
    print((len(done) - 64) / (done[-1] - done[63]))
"""


DENSE = """
import time
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import numpy as np, ssntk

probe = ssntk.Probe(np.linspace(0.0, 20.0, 21), x0=np.zeros(16))
models = [ssntk.CTRNN(16, 1, 1, gain=gain, key=jax.random.key(0)) for gain in np.linspace(0.1, 1.5, 32)]
eigenvalues = jax.jit(jnp.linalg.eigvalsh)
for _ in range(2):
    began = time.perf_counter()
    for model in models:
        np.asarray(eigenvalues(ssntk.ntk(model, probe, weights="trapezoid")))
print(len(models) / (time.perf_counter() - began))
"""


def test_two_single_threaded_workers_against_one_and_against_dense_eigenvalues_one_by_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    dense, speeds = 0.0, {}
    for count in (1, 2):
        # Before each, and the faster counts: other work on the machine must not make the ratio.
        done = subprocess.run([sys.executable, "-c", DENSE], capture_output=True, text=True, check=True)
        dense = max(dense, float(done.stdout))
        done = subprocess.run(
            [sys.executable, script, str(count), tmp_path / str(count)], capture_output=True, text=True, check=True
        )
        speeds[count] = float(done.stdout)
    print(
        f"\none worker {speeds[1]:.1f} points/s, two {speeds[2]:.1f}, ratio {speeds[2] / speeds[1]:.2f}; trajectory kernels "
        f"alone, dense, one by one {dense:.1f}, ratio {speeds[2] / dense:.2f}"
    )
    assert speeds[2] / speeds[1] >= 1.4
    assert speeds[2] / dense >= 3


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


def test_the_first_point_cold_with_compiled_code_kept_and_with_traced_functions_too(tmp_path):
    tmp_path.joinpath("sweep.toml").write_text(SWEEP)
    taken = {"cold": [], "kept": [], "cold without tracing kept": [], "without tracing kept": []}
    for name, cache in [(name, cache) for cache in ("a", "b", "c") for name in taken]:
        out = tmp_path / f"{name}{cache}"
        environment = os.environ | {"SSNTK_CACHE": str(tmp_path / f"cache-{cache}")}
        environment |= {"SSNTK_TRACED": ""} if "without" in name else {}
        began = time.time()
        command = [sys.executable, "-m", "ssntk", "sweep", "sweep.toml", "--out", out]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        taken[name].append(min(file.stat().st_mtime for file in out.glob("points/*.npz")) - began)
    cold, kept, anew = (np.median(taken[name]) for name in ("cold", "kept", "without tracing kept"))
    print(
        f"\nfirst point: cold {cold:.1f} s, all kept {kept:.1f} s, ratio {cold / kept:.1f}; "
        f"compiled code alone {anew:.1f} s, ratio {anew / kept:.1f}"
    )
    assert cold / kept >= 2.5
    assert anew / kept >= 1.2


GRID = """
import resource, sys, time
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np, ssntk

axes = {"gain": np.linspace(0.1, 1.5, 100), "seed": range(100)}
make = lambda gain, seed: ssntk.CTRNN(16, 1, 1, gain=gain, key=jax.random.key(seed))
grid = ssntk.Grid(make, axes, probe=ssntk.Probe(np.linspace(0.0, 10.0, 11)), modes=10)
store = ssntk.Store(sys.argv[1])
began = time.perf_counter()
ssntk.run(grid, store, progress=False, part=(1, 10))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ssntk.run(grid, store, progress=False)
took = time.perf_counter() - began
print(len(store.status().done), took, after / 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def test_ten_thousand_points_in_bounded_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", GRID, tmp_path / "out"], capture_output=True, text=True, check=True)
    points, seconds, early, late = map(float, done.stdout.split())
    print(f"\n{points:.0f} points in {seconds:.0f} s; peak memory {early:.2f} GB after a tenth, {late:.2f} GB at the end")
    assert points == 10_000
    # What grows is a list of point numbers and states, not records.
    assert late / early <= 1.1
