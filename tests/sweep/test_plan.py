import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT, fold_sweep, network_sweep

import ssntk


def _quadratic(c):
    return lambda t, x, u, p: p - c * x**2


def _sweep_of(fn, us=None):
    probe = ssntk.Probe([0.0, 1.0], us, x0=[0.5])
    family = ssntk.Family(ssntk.VectorField(fn, jnp.asarray(0.0), 1, 1), lambda m: m.params)
    return ssntk.Sweep(family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1], probe=probe)


def test_the_hash_is_what_is_computed():
    same = [
        fold_sweep(),
        fold_sweep(span=[1, -1]),
        fold_sweep(x0=np.array([1])),
        fold_sweep(distances=jnp.array([1e-4, 1e-3, 1e-2, 1e-1])),
        fold_sweep(step=0.05, u=[]),
    ]
    assert len({plan.hash() for plan in same}) == 1
    assert _sweep_of(_quadratic(1.0)).hash() == _sweep_of(lambda t, x, u, p: p - 1.0 * x**2).hash()
    drive = [lambda t, a=a: a * jnp.sin(t) * jnp.ones((1, 1)) for a in (1.0, 2.0)]
    sinusoids = [ssntk.Sinusoid(*of) for of in ([[[1.0]]], [[[2.0]]], [[[1.0]], 1.0], [[[1.0]], 2.0], [[[1.0]], None, 0.5])]
    different = [
        fold_sweep(),
        fold_sweep(distances=[1e-1, 1e-2]),
        fold_sweep(x0=[0.9]),
        fold_sweep(index=1),
        fold_sweep(span=(1.0, -0.5)),
        fold_sweep(of="readout"),
        fold_sweep(step=0.04),
        fold_sweep(integrator=ssntk.Integrator(rtol=1e-7)),
        fold_sweep(probe=ssntk.Probe(np.linspace(0.0, 5.0, 7))),
        fold_sweep(probe=ssntk.Probe(np.linspace(0.0, 5.0, 6), x0=[0.0])),
        _sweep_of(_quadratic(1.0)),
        _sweep_of(_quadratic(2.0)),
        _sweep_of(_quadratic(1.0), drive[0]),
        _sweep_of(_quadratic(1.0), drive[1]),
        _sweep_of(lambda t, x, u, p: p - jnp.sinh(x) ** 2),
        _sweep_of(lambda t, x, u, p: p - jnp.tan(x) ** 2),
        network_sweep(0),
        network_sweep(1),
        network_sweep(0, wrt=lambda m: m.weight),
        network_sweep(0, blocks=["weight"]),
        network_sweep(0, blocks=["weight", "bias"]),
        network_sweep(0, blocks={"recurrent": lambda m: m.weight}),
        network_sweep(0, towards="hopf"),
        *(network_sweep(0, towards="hopf", probe=ssntk.Probe([0.0, 1.0], us)) for us in sinusoids),
    ]
    assert len({plan.hash() for plan in different}) == len(different)


def _held(size, rule=1.0):
    """A sweep whose input closes over an array inside jit, and whose field has a custom derivative."""
    held = jnp.full((1, 1), size)

    @jax.custom_jvp
    def square(x):
        return x**2

    @square.defjvp
    def _(primals, tangents):
        return primals[0] ** 2, rule * 2 * primals[0] * tangents[0]

    return _sweep_of(lambda t, x, u, p: p - square(x) + u, jax.jit(lambda t: held * jnp.sin(t)))


def test_the_hash_sees_what_inner_functions_hold_and_rules_of_differentiation():
    assert _held(0.1).hash() == _held(0.1).hash()
    assert len({_held(0.1).hash(), _held(0.2).hash(), _held(0.1, rule=1.5).hash()}) == 3


def test_blocks_are_normalised_or_refused():
    same = [network_sweep(0, blocks=blocks) for blocks in (["weight"], ("weight",), {"weight": lambda m: m.weight})]
    assert len({plan.hash() for plan in same}) == 1
    assert network_sweep(0, blocks=[]).hash() == network_sweep(0).hash()
    for blocks in (
        ["weight", "weight"],
        {"weight", "bias"},
        (name for name in ["weight"]),
        {3: lambda m: m.weight},
        "weight",
    ):
        with pytest.raises(ValueError, match="blocks"):
            network_sweep(0, blocks=blocks)
    same = [
        fold_sweep(integrator=ssntk.Integrator(dt=1)),
        fold_sweep(integrator=ssntk.Integrator(dt=1.0), index=np.int64(0)),
    ]
    assert same[0].hash() == same[1].hash()


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process():
    code = (
        "import jax; jax.config.update('jax_enable_x64', True); import ssntk; "
        "print(ssntk.Sweep.from_toml('sweeps/flip_flop.toml').hash())"
    )
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=_environment(seed)
        ).stdout
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""


def _environment(seed):
    return os.environ | {"PYTHONHASHSEED": seed}


def test_toml_and_python_are_the_same_plan():
    family = ssntk.Family.input(ssntk.CTRNN(32, 1, 1, gain=1.3, key=jr.key(7)), [1.0])
    plan = ssntk.Sweep(
        family,
        towards="saddle-node",
        span=(-4.0, 4.0),
        distances=np.geomspace(3.0, 1e-7, 32),
        probe=ssntk.Probe(np.linspace(0.0, 200.0, 21)),
    )
    assert ssntk.Sweep.from_toml(ROOT / "sweeps" / "saddle_node.toml").hash() == plan.hash()


def test_the_hopf_file_and_python_are_the_same_plan():
    plan = ssntk.Sweep(
        ssntk.Family(ssntk.CTRNN(32, 1, 1, key=jr.key(1)), "gain"),
        towards="hopf",
        span=(0.2, 1.5),
        distances=np.geomspace(0.5, 1e-3, 24),
        probe=ssntk.Probe(np.linspace(0.0, 400.0, 161), ssntk.Sinusoid([[1e-5]])),
        blocks=["weight", "input_weight", "bias"],
        integrator=ssntk.Integrator(dt=0.25),
    )
    assert ssntk.Sweep.from_toml(ROOT / "sweeps" / "hopf.toml").hash() == plan.hash()


GOOD = """
towards = "saddle-node"
span = [-1.0, 1.0]
distances = [0.1]
[model]
n_state = 3
n_input = 1
n_output = 1
seed = 0
[family]
input = { direction = [1.0] }
[probe]
ts = [0.0, 1.0]
"""


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("towards", "toward", "unknown key toward; did you mean towards"),
        ("span = [-1.0, 1.0]", "", "span is missing"),
        ('"saddle-node"', '"cusp"', "towards must be one of"),
        ("seed = 0", "seed = -1", "model.seed"),
        ("seed = 0", "seed = 99999999999999", "model.seed"),
        ("n_state = 3", "n_states = 3", "unknown key model.n_states"),
        ("n_state = 3", 'n_state = "three"', "n_state"),
        ("input = {", "inputs = {", "unknown key family.inputs"),
        ("input = { direction = [1.0] }", 'attribute = "gains"', "attribute 'gains'"),
        ("input = { direction = [1.0] }", "line = { bias = [1.0] }", "family.line.bias must have shape"),
        ("input = { direction = [1.0] }", 'line = { bias = "a" }', "family.line.bias"),
        ("direction = [1.0]", "direction = [1.0, 2.0]", "direction must have shape"),
        ("ts = [0.0, 1.0]", "ts = { start = 0.0, stop = 1.0 }", "probe.ts.num is missing"),
        ("ts = [0.0, 1.0]", 'ts = { start = "a", stop = 1.0, num = 2 }', "probe.ts.start"),
        ("distances = [0.1]", "distances = { start = -1.0, stop = 1.0, num = 3 }", "distances.start must be positive"),
        ("distances = [0.1]", "distances = [-0.1]", "distances"),
        ("[probe]", "[integrator]\nsolver = 'AbstractSolver'\n[probe]", "integrator.solver"),
        ("[probe]", "[integrator]\nrtol = 'small'\n[probe]", "rtol"),
        ("[model]", "wrt = 3\n[model]", "wrt"),
        ("[model]", "wrt = ['weights']\n[model]", "wrt names 'weights'"),
        ("[model]", "step = 0.0\n[model]", "step"),
        ("[model]", "blocks = 'weight'\n[model]", "blocks"),
        ("[model]", "blocks = ['weights']\n[model]", r"blocks\['weights'\]"),
        ("[model]", "blocks = ['readout_weight']\n[model]", "no part of theta"),
        ("ts = [0.0, 1.0]", "ts = [0.0, 1.0]\nus = { size = [[1.0]] }", r"unknown key probe\.us\.size"),
        ("ts = [0.0, 1.0]", "ts = [0.0, 1.0]\nus = { frequency = 1.0 }", r"probe\.us\.amplitude is missing"),
        ("ts = [0.0, 1.0]", "ts = [0.0, 1.0]\nus = { amplitude = [[1.0]] }", "frequency"),
        ("ts = [0.0, 1.0]", "ts = [0.0, 1.0]\nus = { amplitude = [1.0], frequency = 1.0 }", "amplitude"),
        ("seed = 0", 'seed = 0\nweights = "x.npz"', "does not go with model.weights"),
        ("[model]", "[model", "is not a TOML file"),
    ],
)
def test_bad_toml_names_the_key(tmp_path, old, new, match):
    file = tmp_path / "sweep.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=match):
        ssntk.Sweep.from_toml(file)


def test_good_toml_in_its_other_forms(tmp_path):
    file = tmp_path / "sweep.toml"
    for old, new in [
        ("towards", "towards"),
        ("input = { direction = [1.0] }", "line = { bias = { seed = 1 } }"),
        ("input = { direction = [1.0] }", "line = { bias = [1.0, 0.0, 2.0] }"),
        ("input = { direction = [1.0] }", 'attribute = "tau"'),
        ("seed = 0", 'seed = 0\nactivation = "sigmoid"\nform = "rate"\ntau = [1.0, 2.0, 3.0]'),
        ("[model]", 'wrt = ["weight", "bias"]\n[model]'),
        ("[probe]", "[integrator]\nsolver = 'Dopri5'\ndt = 0.1\n[probe]"),
        ("ts = [0.0, 1.0]", "ts = [0.0, 1.0]\nus = { amplitude = [[1.0], [2.0]], frequency = 1.0, phase = 0.5 }"),
    ]:
        file.write_text(GOOD.replace(old, new))
        assert ssntk.Sweep.from_toml(file).hash()


def test_a_family_pickles():
    family = pickle.loads(pickle.dumps(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")))
    np.testing.assert_array_equal(family(2.0).mu, 2.0)
