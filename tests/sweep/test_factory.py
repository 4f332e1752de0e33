"""Sweep files whose models are made by a user's own function. Compiles small sweeps."""

import sys
import textwrap

import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.cli import sweep

OWN = """
import jax.random as jr

import ssntk


def gru(key):
    return ssntk.GRUODE(3, 1, 1, key=key)


def by_seed(seed):
    assert isinstance(seed, int), type(seed)
    return ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(seed))


def scaled(key, gain):
    return ssntk.CTRNN(3, 1, 1, gain=gain, key=key)


def broken(key):
    return {}["n"]


def two(first, second):
    return None


NO_FUNCTION = 3
"""
# The line of the error in `broken`.
LINE = 1 + OWN.splitlines().index('    return {}["n"]')
SWEEP = """
factory = "own_models:{factory}"
{seed}
towards = "saddle-node"
span = [-1.0, 1.0]
distances = [0.1]
[family]
input = {{ direction = [1.0] }}
[probe]
ts = [0.0, 1.0]
"""
GRID = """
factory = "own_models:{factory}"
[grid]
{axes}
[probe]
ts = [0.0, 1.0]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tmp_path.joinpath("own_models.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    return tmp_path


def written(folder, text, **parts):
    file = folder / "plan.toml"
    file.write_text(text.format(**{"seed": ""} | parts))
    return file


@pytest.mark.parametrize(("factory", "model"), [("gru", "GRUODE"), ("by_seed", "CTRNN")])
def test_a_sweep_of_any_model_is_the_one_that_python_makes(folder, factory, model):
    import own_models

    plan = ssntk.read_plan(written(folder, SWEEP, factory=factory, seed="seed = 5"))
    assert type(plan.family.model).__name__ == model
    made = own_models.gru(jr.key(5)) if factory == "gru" else own_models.by_seed(5)
    same = ssntk.Sweep(
        ssntk.Family.input(made, [1.0]),
        towards="saddle-node",
        span=(-1.0, 1.0),
        distances=[0.1],
        probe=ssntk.Probe([0.0, 1.0]),
    )
    assert plan.hash() == same.hash()
    assert ssntk.read_plan(written(folder, SWEEP, factory=factory)).hash() != plan.hash()


def test_a_grid_gives_the_function_its_axes(folder):
    plan = ssntk.read_plan(written(folder, GRID, factory="scaled", axes="gain = [0.3, 0.5]\nseed = [0, 1, 2]"))
    same = ssntk.Grid(
        lambda gain, seed: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(seed)),
        {"gain": [0.3, 0.5], "seed": [0, 1, 2]},
        probe=ssntk.Probe([0.0, 1.0]),
    )
    assert plan.hash() == same.hash()
    (values, found), *_ = plan.measure_batch(None, plan.batches[0])
    assert values == {"axis_gain": 0.3, "axis_seed": 0}
    # x = 0 is the fixed point of a CTRNN without bias; A = -1 + 0.3 W there.
    weight = np.asarray(ssntk.CTRNN(3, 1, 1, gain=0.3, key=jr.key(0)).weight)
    np.testing.assert_allclose(
        found.jacobian_eigenvalues[0],
        -1 + 0.3 * np.linalg.eigvals(weight)[np.argmax(np.linalg.eigvals(weight).real)],
        rtol=1e-10,
    )


def test_the_command_line_runs_it(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    sweep(written(folder, GRID, factory="by_seed", axes="seed = [0, 1]"), out=folder / "out")
    assert ssntk.Store(folder / "out").status().missing == ()
    assert "CTRNN over seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "parts", "match"),
    [
        (SWEEP, {"factory": "none"}, "own_models:none' cannot be imported: AttributeError"),
        (SWEEP, {"factory": "NO_FUNCTION"}, "is not a function of a key"),
        (SWEEP, {"factory": "broken"}, rf"own_models:broken: KeyError: 'n' .*own_models.py:{LINE}"),
        (SWEEP, {"factory": "two"}, "must take one, called key or seed"),
        (SWEEP, {"factory": "gru", "seed": "seed = -1"}, "seed must be at least 0"),
        (SWEEP, {"factory": "gru", "seed": "[model]\nn_state = 3"}, "not both"),
        (SWEEP.replace('"own_models:{factory}"', "3"), {}, "factory must be a text"),
        (SWEEP.replace('factory = "own_models:{factory}"', "seed = 1"), {}, r"table \[model\] is missing"),
        (GRID, {"factory": "gru", "axes": "size = [1, 2]"}, "size"),
        (GRID.replace("[grid]", "seed = 1\n[grid]"), {"factory": "by_seed", "axes": "seed = [0]"}, "not of both"),
    ],
)
def test_what_is_wrong_names_the_file(folder, text, parts, match):
    file = written(folder, text, **parts)
    with pytest.raises(ValueError, match=rf"plan\.toml: (.|\n)*{match}"):
        ssntk.read_plan(file)


def test_reading_a_grid_by_the_class_of_sweeps_is_deprecated(folder):
    file = written(folder, GRID, factory="by_seed", axes="seed = [0, 1]")
    with pytest.warns(DeprecationWarning, match="use ssntk.read_plan"):
        found = ssntk.Sweep.from_toml(file)
    assert (type(found), found.size) == (ssntk.Grid, 2)
