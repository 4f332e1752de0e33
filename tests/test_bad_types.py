"""Arguments of a wrong Python type, without the checks of types that pytest turns on: each names the argument."""

import subprocess
import sys

CASES = """
import jax, jax.numpy as jnp, numpy as np, ssntk
model = ssntk.CTRNN(2, 1, 1, key=jax.random.key(0))
probe = ssntk.Probe([0.0, 1.0])
family = ssntk.Family(model, "gain")
cases = {
    "activation": lambda: ssntk.CTRNN(2, 1, 1, activation=3, key=jax.random.key(0)),
    "n_output": lambda: ssntk.CTRNN(2, 1, 1.5, key=jax.random.key(0)),
    "solver": lambda: ssntk.Integrator(solver="Tsit5"),
    "model": lambda: ssntk.simulate(lambda x: x, probe),
    "probe": lambda: ssntk.simulate(model, [0.0, 1.0]),
    "integrator": lambda: ssntk.simulate(model, probe, integrator=0.1),
    "model ": lambda: ssntk.EulerMap(lambda x: x, 0.1),
    "amplitude": lambda: ssntk.Sinusoid("loud"),
    "blocks": lambda: ssntk.measure(model, probe, np.zeros(2), blocks=3),
    "state_dict": lambda: ssntk.from_torch(3),
    "probe ": lambda: ssntk.ntk(model, [0.0, 1.0]),
    "attribute": lambda: ssntk.Family(model, 3),
    "family": lambda: ssntk.continuation(model, (0.0, 1.0)),
    "span": lambda: ssntk.continuation(family, 1.0),
    "max_steps": lambda: ssntk.continuation(family, (0.0, 1.0), max_steps=2.5),
    "step": lambda: ssntk.continuation(family, (0.0, 1.0), step="long"),
    "x0": lambda: ssntk.continuation(family, (0.0, 1.0), x0="zero"),
    "kind": lambda: ssntk.locate(family, 1, parameter=0.0, x=np.zeros(2)),
    "kernel": lambda: ssntk.Spectrum.from_kernel("K"),
    "jacobian": lambda: ssntk.Spectrum.from_jacobian([["a"]]),
    "distances": lambda: ssntk.Sweep(family, towards="hopf", span=(0.0, 1.0), distances="near", probe=probe),
    "x_star": lambda: ssntk.steady_state_ntk(model, None),
    "x_star ": lambda: ssntk.measure(model, probe, {}),
    "u": lambda: ssntk.find_fixed_points(model, "none"),
    "ts": lambda: ssntk.Probe(jax.random.key(0)),
}
for name, case in cases.items():
    try:
        case()
    except ValueError as error:
        assert name.strip() in str(error), (name, str(error))
    else:
        raise AssertionError(f"{name}: no error")
print(len(cases), "named")
"""


def test_wrong_types_name_the_argument():
    done = subprocess.run([sys.executable, "-c", CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "25 named" in done.stdout
