"""Arguments of a wrong Python type raise errors that name the argument, also without the type checks that pytest turns on.

One process evaluates all cases, and each case is a separate test.
"""

import json
import subprocess
import sys

import pytest

HEAD = """
import json
import jax, jax.numpy as jnp, numpy as np, ssntk
model = ssntk.CTRNN(2, 1, 1, key=jax.random.key(0))
probe = ssntk.Probe([0.0, 1.0])
family = ssntk.Family(model, "gain")
"""
CASES = {
    "activation": "ssntk.CTRNN(2, 1, 1, activation=3, key=jax.random.key(0))",
    "n_output": "ssntk.CTRNN(2, 1, 1.5, key=jax.random.key(0))",
    "solver": 'ssntk.Integrator(solver="Tsit5")',
    "model": "ssntk.simulate(lambda x: x, probe)",
    "probe": "ssntk.simulate(model, [0.0, 1.0])",
    "integrator": "ssntk.simulate(model, probe, integrator=0.1)",
    "model ": "ssntk.EulerMap(lambda x: x, 0.1)",
    "amplitude": 'ssntk.Sinusoid("loud")',
    "blocks": "ssntk.measure(model, probe, np.zeros(2), blocks=3)",
    "state_dict": "ssntk.from_torch(3)",
    "probe ": "ssntk.ntk(model, [0.0, 1.0])",
    "attribute": "ssntk.Family(model, 3)",
    "family": "ssntk.continuation(model, (0.0, 1.0))",
    "span": "ssntk.continuation(family, 1.0)",
    "max_steps": "ssntk.continuation(family, (0.0, 1.0), max_steps=2.5)",
    "step": 'ssntk.continuation(family, (0.0, 1.0), step="long")',
    "x0": 'ssntk.continuation(family, (0.0, 1.0), x0="zero")',
    "kind": "ssntk.locate(family, 1, parameter=0.0, x=np.zeros(2))",
    "kernel": 'ssntk.Spectrum.from_kernel("K")',
    "jacobian": 'ssntk.Spectrum.from_jacobian([["a"]])',
    "distances": 'ssntk.Sweep(family, towards="hopf", span=(0.0, 1.0), distances="near", probe=probe)',
    "x_star": "ssntk.steady_state_ntk(model, None)",
    "x_star ": "ssntk.measure(model, probe, {})",
    "u": 'ssntk.find_fixed_points(model, "none")',
    "ts": "ssntk.Probe(jax.random.key(0))",
}
# For each case, print the class and the text of its error.
TRY = """
found = {}
for name, code in json.loads(input()).items():
    try:
        eval(code)
        found[name] = ["nothing", ""]
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def raised():
    done = subprocess.run(
        [sys.executable, "-c", HEAD + TRY], input=json.dumps(CASES), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES, ids=str.strip)
def test_a_wrong_type_names_the_argument(raised, name):
    kind, text = raised[name]
    assert kind == "ValueError", text
    assert name.strip() in text
