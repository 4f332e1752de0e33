"""Every example runs from its first line to its last."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

# With these settings compilation takes half the time. Examples that train for long are optimised.
QUICKLY = "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"
# The arguments that make an example short, and the figure that it writes.
QUICK = {
    "train_flip_flop": (["--steps", "5", "--births", "0"], "flip_flop.png"),
    "width_and_control": (["--quick"], "width_and_control.png"),
    "repair_initialisation": (["--quick"], "repair_initialisation.png"),
    "student_teacher": (["--seeds", "1", "--rates", "1", "--steps", "250", "--cues", "0.2"], "student_teacher.png"),
    "multitask_interference": (["--seeds", "1", "--records", "2"], "multitask_interference.png"),
    "loss_jump": (["--quick"], "loss_jump.png"),
    "learning_a_clock": (["--quick"], "learning_a_clock.png"),
    "reproduce_collapse": (["--units", "6", "--seeds", "1"], "reproduce_collapse.png"),
    **{kind: ([], f"{kind}.png") for kind in ("saddle_node", "transcritical", "pitchfork", "hopf", "fixed_points")},
}


def run(script, *arguments, optimised=False):
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"MPLBACKEND": "agg"} | ({} if optimised else {name: os.environ[name] for name in QUICKLY}),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Examples that take longer than a minute nevertheless, or whose content other tests cover.
LONG = (
    "train_flip_flop",
    "width_and_control",
    "repair_initialisation",
    "student_teacher",
    "multitask_interference",
    "reproduce_collapse",
    "loss_jump",
    "learning_a_clock",
    "bifurcation_diagram",
    "limit_cycles",
    "two_parameters",
    "random_networks",
    "relu_fold",
    "memory_death",
    "fixed_points",
    "hopf",
    "pitchfork",
    "transcritical",
)
SCRIPTS = [
    pytest.param(script, id=script.stem, marks=[pytest.mark.slow] if script.stem in LONG else [])
    for script in sorted((ROOT / "examples").glob("*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_runs(script, tmp_path):
    if script.stem not in QUICK:
        assert run(script)
        return
    how, figure = QUICK[script.stem]
    output = run(script, *how, "--out", str(tmp_path))
    assert (tmp_path / figure).stat().st_size > 10_000
    # The printed differences between measured and predicted values. For asymptotic laws they are at most 1 %.
    assert all(float(off) < 0.01 for off in re.findall(r"within ([0-9.e-]+) of the law", output))
    if script.stem != "train_flip_flop":
        return
    weights = np.load(tmp_path / "weights.npz")
    assert weights["weight"].shape == (64, 64)
    assert "mean squared error" in output


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_training_from_other_seeds_gives_eight_memories_and_the_slope_law(seed, tmp_path):
    output = run(
        ROOT / "examples" / "train_flip_flop.py",
        *("--seed", str(seed), "--births", "0", "--out", str(tmp_path)),
        optimised=True,
    )
    assert "27 fixed points: 8 with 0 unstable, 12 with 1 unstable, 6 with 2 unstable, 1 with 3 unstable" in output
    slopes = [float(slope) for slope in re.findall(r"distance\^(-[0-9.]+)", output)]
    assert len(slopes) == 8
    np.testing.assert_allclose(slopes, -1.0, atol=0.01)


@pytest.mark.slow
def test_the_births_of_memories_add_up(tmp_path):
    """A field -x + bounded has index 1: the number of fixed points is odd, and each saddle-node changes it by two."""
    how = ("--steps", "20", "--births", "20", "--out", str(tmp_path))
    output = run(ROOT / "examples" / "train_flip_flop.py", *how, optimised=True)
    said = re.findall(r"(\d+) fixed points become +(\d+); (.*)", output)
    assert len(said) >= 8
    last = int(said[0][0])
    for before, after, events in said:
        assert "(" not in events
        assert int(before) == last
        last = int(after)
        folds = sum(map(int, re.findall(r"(\d+) saddle-node", events)))
        change = abs(last - int(before))
        assert last % 2 == 1
        assert change <= 2 * folds
        assert (change // 2 - folds) % 2 == 0
    assert last > 1
    assert (tmp_path / "births.png").stat().st_size > 10_000
