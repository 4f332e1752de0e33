"""The package as users run it: compiled with all optimisations, without checks of types, with `python -O`.

All other tests compile without most optimisations (conftest.py), which takes half the time.
"""

import os
import subprocess
import sys

PROGRAM = """
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
import ssntk

if __debug__ or jax.config.values["jax_disable_most_optimizations"]:
    raise SystemExit("this is not how users run it")

# dx/dt = p - x from zero: dx/dp = 1 - exp(-t), to the solver's tolerance.
model = ssntk.VectorField(lambda t, x, u, p: p - x, 1.0, 1)
ts = np.array([0.0, 1.0, 2.0])
kernel = np.asarray(ssntk.ntk(model, ssntk.Probe(ts)))
answer = 1 - np.exp(-ts)
print("kernel", np.abs(kernel - np.outer(answer, answer)).max() < 1e-7)

# dx/dt = mu - x^2 turns at zero, with the coefficient -1.
family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
fold = ssntk.continuation(family, (1.0, -1.0), x0=[1.0]).bifurcations[0]
print("continuation", fold.kind, abs(fold.parameter) < 1e-12, abs(fold.coefficient + 1) < 1e-9)

# The kernel of its fixed point is 1 / (4 mu).
distances = [1e-1, 1e-2, 1e-3]
plan = {"towards": "saddle-node", "span": (1.0, -1.0), "distances": distances, "x0": [1.0]}
store = ssntk.run(ssntk.Sweep(family, probe=ssntk.Probe([0.0, 1.0]), **plan), ssntk.Store("store"), progress=False)
values = np.sort(store.arrays()["steady_state_eigenvalues"][:, 0])
print("sweep", np.abs(values * 4 * np.array(distances) - 1).max() < 1e-6)

try:
    ssntk.continuation(family, (1.0, 1.0))
except ValueError as error:
    print(error)
"""


def test_kernel_continuation_and_sweep_with_all_optimisations(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "EQX_"))}
    done = subprocess.run(
        [sys.executable, "-O", "-c", PROGRAM], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["kernel True", "continuation saddle-node True True", "sweep True"]
    assert lines[3].startswith("span must ")
