"""The README's Python example runs as it is written, and float32 runs to its own precision."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

FLOAT32 = """
import jax, jax.numpy as jnp, numpy as np, ssntk
probe = ssntk.Probe(np.linspace(0.0, 4.0, 5), x0=[0.5])
model = ssntk.normal_forms.saddle_node(0.25)
rows = ssntk.parameter_jacobian(model, probe)
assert rows.dtype == jnp.float32
# S = 1 - exp(-t) for lambda = -1, to the tolerance that float32 allows.
np.testing.assert_allclose(rows[0, :, 0, 0], 1 - np.exp(-np.linspace(0.0, 4.0, 5)), atol=1e-4)
(fold,) = ssntk.continuation(ssntk.Family(model, "mu"), (1.0, -1.0)).bifurcations
assert fold.interval[0] <= 0.0 <= fold.interval[1], fold.interval
assert len(ssntk.find_fixed_points(model).x) == 2
# At x = 0 the Jacobian is W - 1, and its radius must have become the margin, as NumPy has it in double precision.
network = ssntk.CTRNN(3, 1, 1, gain=0.7, key=jax.random.key(0))
safe = ssntk.retreat(network, 0.44, full=True)
A = 0.7 * np.asarray(safe.model.weight, float) - np.eye(3)
radius = min(np.linalg.svd(A - 1j * w * np.eye(3), compute_uv=False)[-1] for w in np.linspace(0.0, 3.0, 3001))
assert np.abs(safe.x).max() == 0 and abs(radius / 0.44 - 1) < 1e-4, (radius, safe.x)
"""


def run(code):
    # With these settings compilation takes half the time.
    quickly = {name: os.environ[name] for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")}
    environment = {"MPLBACKEND": "agg"} | quickly
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example():
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    printed = run(code).splitlines()
    assert [line.split()[0] for line in printed[:2]] == ["saddle-node", "saddle-node"]
    assert len(printed) == 3


@pytest.mark.slow
def test_float32():
    run(FLOAT32)
