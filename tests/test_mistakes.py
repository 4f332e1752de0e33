"""Messages for the most common mistakes: sizes, keys, dtypes, functions that JAX cannot trace, activations.

Compiles little, since mistakes are refused before. GRID is a sweep file in which only the activation changes.
"""

import math
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import pytest
from helpers import ROOT

import ssntk

PROBE = ssntk.Probe(np.linspace(0.0, 2.0, 3))
GRID = """
[model]
n_input = 1
[grid]
weights = {names}
gain = [0.5, 1.5]
[probe]
ts = {{ start = 0.0, stop = 2.0, num = 3 }}
"""


@pytest.mark.parametrize("size", [10**6, 10**30])
def test_what_cannot_be_allocated_is_refused(size):
    with pytest.raises(ValueError, match=r"n_state is too large: .* bytes do not fit into the .* that there are"):
        ssntk.CTRNN(size, 1, 1, key=jr.key(0))
    with pytest.raises(ValueError, match="n_state is too large"):
        ssntk.GRUODE(size, 1, 1, key=jr.key(0))


def test_a_failed_allocation_names_its_argument_and_ends_no_process():
    """The weights take 7 GB, which fit into the address space of the process, but not together with what a draw needs."""
    code = (
        "import resource, jax, ssntk; jax.config.update('jax_enable_x64', True); limit = 9 * 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for n in (22_000, 36_000):\n"
        "    try:\n"
        "        ssntk.CTRNN(n, 1, 1, key=jax.random.key(0))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("n_state is too large: ") == 2


@pytest.mark.parametrize("kind", ["CTRNN", "GRUODE", "LowRankRNN"])
def test_what_is_too_large_is_named(kind):
    model, rank = getattr(ssntk, kind), {"rank": 1} if kind == "LowRankRNN" else {}
    for name, sizes in (("n_state", (10**12, 1, 1)), ("n_input", (3, 10**12, 1)), ("n_output", (3, 1, 10**12))):
        with pytest.raises(ValueError, match=f"{name} is too large"):
            model(*sizes, key=jr.key(0), **rank)


def test_tasks_that_are_too_large_name_what_is():
    model = ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(0))
    with pytest.raises(ValueError, match=r"probe\.ts must be at most 16777216 steps of the map long, got 2e\+12"):
        ssntk.ntk(ssntk.EulerMap(model, 1e-12), PROBE)
    with pytest.raises(ValueError, match="n_starts is too large"):
        ssntk.find_fixed_points(model, n_starts=10**11)
    with pytest.raises(ValueError, match="axes must have at most 10000000 points together, got 10 x 10 x"):
        ssntk.Grid(lambda **_: model, {f"a{i}": list(range(10)) for i in range(12)}, probe=PROBE)
    with pytest.raises(ValueError, match="ts is too large"):
        ssntk.Probe(np.broadcast_to(0.0, (10**13,)))


@pytest.mark.parametrize("key", [0, None, "x", np.zeros(3, np.uint32)])
@pytest.mark.parametrize("kind", ["CTRNN", "GRUODE", "NeuralODE"])
def test_what_is_no_key_is_named(key, kind):
    with pytest.raises(ValueError, match=r"key must be a jax\.random\.key"):
        getattr(ssntk, kind)(3, 1, 1, key=key)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_numbers_in_which_no_eigenvalues_are_computed_are_refused(dtype):
    with pytest.raises(ValueError, match="weight must hold float32 or float64 numbers"):
        ssntk.CTRNN.from_weights(np.eye(3, dtype=dtype))
    with pytest.raises(ValueError, match="params must hold float32 or float64 numbers"):
        ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones((), dtype), 2)
    # It does not matter how the activation came about, for instance by a cast of the whole model.
    model = ssntk.CTRNN.from_weights(np.eye(3))
    model = jax.tree.map(lambda leaf: leaf.astype(dtype) if hasattr(leaf, "dtype") else leaf, model)
    with pytest.raises(ValueError, match="model must hold float32 or float64 numbers"):
        ssntk.criticality(model)


def test_steps_that_would_fill_the_memory_are_refused():
    with pytest.raises(ValueError, match="max_steps must be at most"):
        ssntk.Integrator(max_steps=10**11)


def test_the_commonest_mistakes_of_tracing_are_told_what_to_do():
    for fn, said in (
        (lambda t, x, u, p: np.tanh(x), "use jax.numpy, such as jnp.tanh for np.tanh"),
        (lambda t, x, u, p: x if x[0] > 0 else -x, "use jnp.where or jax.lax.cond instead of if"),
        (lambda t, x, u, p: x * float(x[0]), "compute with jax.numpy throughout"),
        (lambda t, x, u, p: jnp.ones((3, 3)) @ x, "could not be evaluated: "),
    ):
        with pytest.raises(ValueError, match=said):
            ssntk.VectorField(fn, 1.0, 2)
    with pytest.raises(ValueError, match=r"model.vector_field at x \(3,\) and u \(1,\) calls a function of NumPy"):
        ssntk.criticality(ssntk.CTRNN(3, 1, 1, activation=np.tanh, key=jr.key(0)))


def test_python_s_own_mathematics_is_named():
    with pytest.raises(ValueError, match=r"takes an array for one number.*jnp\.tanh for math\.tanh"):
        ssntk.criticality(ssntk.CTRNN(3, 1, 1, activation=math.tanh, key=jr.key(0)))
    for us, said in (
        (lambda t: np.sin(t) * np.ones((1, 1)), r"calls a function of NumPy.*use jax\.numpy"),
        (lambda t: jnp.ones((1, 1)) if t > 1 else jnp.zeros((1, 1)), r"use jnp\.where or jax\.lax\.cond instead of if"),
        (lambda t: jnp.ones((1, 1)) * {}["a"], "KeyError: 'a'"),
    ):
        with pytest.raises(ValueError, match=f"us must be a callable.*written with jax.numpy: us.t. .*{said}") as raised:
            ssntk.Probe(np.linspace(0.0, 2.0, 3), us)
        assert "while tracing the function" not in str(raised.value)


OUTSIDE = {
    "find_fixed_points": lambda model: ssntk.find_fixed_points(model),
    "criticality": lambda model: ssntk.criticality(model),
    "criticality_ensemble": lambda model: ssntk.criticality_ensemble([model]),
    "continuation": lambda model: ssntk.continuation(ssntk.Family(model, "gain"), (0.1, 0.2)),
    "continuation_ensemble": lambda model: ssntk.continuation_ensemble([ssntk.Family(model, "gain")], (0.1, 0.2)),
    "bifurcation_diagram": lambda model: ssntk.bifurcation_diagram(ssntk.Family(model, "gain"), (0.1, 0.2)),
    "measure": lambda model: ssntk.measure(model, PROBE, np.zeros(3)),
    "retreat": lambda model: ssntk.retreat(model, 0.1),
    "approach": lambda model: ssntk.approach(model, "hopf"),
    "ntk_spectrum": lambda model: ssntk.ntk_spectrum(model, PROBE),
    "frequency_signature": lambda model: ssntk.frequency_signature(model, np.zeros(3)),
    "bifurcation_channel": lambda model: ssntk.bifurcation_channel(model, PROBE),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("how", [eqx.filter_jit, eqx.filter_grad])
def test_what_looks_at_numbers_says_so_inside_of_jit(name, how):
    model = ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(0))
    with pytest.raises(ValueError, match=f"^{name} looks at numbers and cannot be inside jit, vmap or grad: call it"):
        how(OUTSIDE[name])(model)


def test_what_looks_at_numbers_says_so_inside_of_vmap():
    with pytest.raises(ValueError, match=r"^criticality looks at numbers"):
        eqx.filter_vmap(lambda key: ssntk.criticality(ssntk.CTRNN(3, 1, 1, key=key)))(jr.split(jr.key(0), 2))


def test_a_grid_whose_make_makes_no_model_says_so():
    model = ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(0))
    for make, said in (
        (lambda gain: model if gain > 0 else None, "-0.2, .*: make must return a model, got NoneType"),
        (lambda gain: {}["a"], "make cannot be called with gain: KeyError: 'a'"),
        (lambda gain: model.nothing, "make cannot be called with gain: AttributeError: "),
        (lambda gain: [model], "make must return a model, got list"),
    ):
        with pytest.raises(ValueError, match=rf"axes\['gain'\] holds.* {said}"):
            ssntk.Grid(make, {"gain": [0.1, -0.2]}, probe=PROBE)


@pytest.mark.parametrize("function", [jax.nn.softmax, jnp.sort, jnp.cumsum, jax.nn.standardize, jnp.flip, jnp.sum])
def test_an_activation_that_mixes_units_is_refused(function):
    with pytest.raises(ValueError, match=r"activation must work unit by unit, which .* does not"):
        ssntk.CTRNN(3, 1, 1, activation=function, key=jr.key(0))
    with pytest.raises(ValueError, match="activation must work unit by unit"):
        ssntk.LowRankRNN(3, 1, 1, rank=1, activation=lambda x: function(x), key=jr.key(0))


def test_activations_with_numbers_of_their_own_are_taken():
    slopes = jnp.array([0.5, 1.0, 2.0, 3.0])
    for function in (jnp.tanh, jax.nn.gelu, jax.nn.relu6, lambda x: slopes * jnp.tanh(x), lambda x: x.at[:2].set(0.0)):
        ssntk.CTRNN(4, 1, 1, activation=function, key=jr.key(0))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_raw_keys_of_every_generator_are_keys(kind):
    with jax.default_prng_impl(kind):
        model = ssntk.CTRNN(3, 1, 1, key=jr.PRNGKey(0))
        with pytest.raises(ValueError, match=r"key must be a jax\.random\.key"):
            ssntk.CTRNN(3, 1, 1, key=np.zeros(3, np.uint32))
    # A raw key is the same as the typed key of its numbers and its generator.
    same = ssntk.CTRNN(3, 1, 1, key=jr.key(0, impl=kind))
    np.testing.assert_array_equal(model.weight, same.weight)


def with_activation(folder, name):
    text = GRID.replace("weights = {names}\n", "").replace("{{", "{").replace("}}", "}")
    rest = f'n_input = 1\nn_state = 3\nn_output = 1\nseed = 0\nactivation = "{name}"'
    (folder / "grid.toml").write_text(text.replace("n_input = 1", rest))
    return ssntk.read_plan(folder / "grid.toml")


@pytest.mark.parametrize("name", ["glu", "softmax", "sort", "argsort", "isnan", "cumsum", "max", "flip", "ones", "crelu"])
def test_an_activation_works_unit_by_unit(tmp_path, name):
    with pytest.raises(ValueError, match=r"model\.activation must name a function"):
        with_activation(tmp_path, name)


def test_activations_that_do(tmp_path):
    for name in ("tanh", "relu", "softplus", "gelu", "sigmoid", "elu", "silu", "sin", "hard_tanh", "selu", "arctan"):
        assert with_activation(tmp_path, name).size == 2


def test_a_mask_is_not_dropped():
    with pytest.raises(ValueError, match="weight must be an array of real numbers, got MaskedArray"):
        ssntk.CTRNN.from_weights(np.ma.array(np.eye(2), mask=np.eye(2, dtype=bool)))
