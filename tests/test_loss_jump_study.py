"""The study of loss jumps: its parts on closed forms, and that it resumes. Its numbers are on docs/studies.md."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import ROOT
from jax.flatten_util import ravel_pytree

import ssntk

sys.path.append(str(ROOT / "sweeps"))
import loss_jump_points as points
import loss_jump_runs as runs
import loss_jump_study as study
import loss_jump_tables as tables
from loss_jump_tables import WINDOW

CELL = runs.Cell("tanh RNN", "flip-flop", "SGD")


@pytest.fixture
def no_audit(monkeypatch):
    """Without the searches afterwards, which compile for long."""
    monkeypatch.setattr(points, "audit", lambda *_: dict.fromkeys(points.Tracked._fields[12:], np.zeros(1, int)))


def kinds(found):
    return [(int(t), points.KINDS[found.kind[t, 0] - 1]) for t in np.flatnonzero(found.kind[:, 0])]


def tanh_thetas(weights, bias=0.0):
    """Weights (steps, 1, p) of tanh networks without inputs, of the recurrent weights (steps, n, n)."""
    n = weights.shape[1]
    first = np.asarray(weights, float).reshape(len(weights), -1)
    offsets = np.broadcast_to(np.asarray(bias, float), (len(weights),))[:, None] * np.ones(n)
    return np.concatenate([first, np.zeros((len(first), n)), offsets, np.zeros((len(first), n + 1))], axis=1)[:, None]


# %% Fixed points and cycles
def test_a_flip_is_found_where_the_multiplier_passes_minus_one(no_audit):
    w = np.linspace(-0.505, -1.495, 100)
    found = points.tracked(CELL, tanh_thetas(w[:, None, None]), [], 1)
    assert kinds(found) == [(int(np.argmax(w < -1)), "flip")]
    assert found.n_points.max() == 1
    # The cycle is born with amplitude sqrt(3 (|w| - 1)), about 0.12 at the first step behind the flip.
    assert (found.n_stable_cycles[:, 0] == (w < -1)).all()
    assert (found.index == 1).all()


def test_a_pair_is_found_where_a_rotation_begins_to_grow(no_audit):
    r = np.linspace(0.905, 1.095, 40)
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    found = points.tracked(CELL, tanh_thetas(r[:, None, None] * turn), [], 2)
    assert kinds(found) == [(int(np.argmax(r > 1)), "Neimark-Sacker")]


def test_a_fold_is_dated_although_no_search_is_made_near_it(no_audit):
    # x = tanh(w x + b) has two folds, at x = sqrt(1 - 1 / w) and b = -+ (w x - artanh x).
    w, b = 2.0, np.linspace(0.0, 0.98, 99)
    at = np.sqrt(1 - 1 / w)
    fold = w * at - np.arctanh(at)
    forward = points.tracked(CELL, tanh_thetas(np.full((99, 1, 1), w), b), [], 1)
    back = points.tracked(CELL, tanh_thetas(np.full((99, 1, 1), w), b[::-1]), [], 1)
    assert kinds(forward) == [(int(np.argmax(b > fold)), "birth or death")]
    assert kinds(back) == [(int(np.argmax(b[::-1] < fold)), "birth or death")]
    assert (forward.n_points[:, 0] == np.where(b < fold, 3, 1)).all()
    # The search at step 0 knows what dies; what is born is found at the next scheduled search.
    assert (forward.new.sum(), back.new.sum()) == (0, 1)
    assert forward.missed.sum() == back.missed.sum() == 0


def test_newton_carries_a_known_point_along(no_audit):
    w = np.linspace(1.5, 3.0, 40)
    start = np.full((40, 1, 4, 1), np.nan)
    start[0, 0, 0] = 0.9
    thetas = tanh_thetas(w[:, None, None])
    # A point that is given counts as found where it is given.
    known, w = np.asarray(points.carried("tanh RNN", 1, thetas, start)[0])[1:, 0, 0, 0], w[1:]
    # The residual is below 1e-9, the slope of x - F(F(x)) at least 0.6 at these weights.
    np.testing.assert_allclose(known, np.tanh(w * known), rtol=0, atol=1e-8)
    assert (known > 0.85).all()


@pytest.mark.parametrize("seed", range(2))
def test_enumeration_finds_the_points_and_cycles_of_plrnns(seed):
    cell, made = runs.Cell("PLRNN", "sine", "SGD"), points.maker("PLRNN", 3)
    size = len(ravel_pytree(runs.network("PLRNN", 0, 3))[0])
    thetas = np.random.default_rng(seed).normal(size=(6, 1, size))
    found = points.enumerated(cell, thetas, 3)
    for t in range(6):
        model = made(jnp.asarray(thetas[t, 0]))
        fixed, cycles = ssntk.find_fixed_points(model), ssntk.find_cycles(model, 2)
        assert fixed.complete
        assert cycles.complete
        assert (found.n_points[t, 0], found.n_stable[t, 0]) == (len(fixed), fixed.stable.sum())
        assert (found.n_cycles[t, 0], found.n_stable_cycles[t, 0]) == (len(cycles), cycles.stable.sum())
    assert (found.library_new.sum(), found.library_less.sum()) == (0, 0)
    assert found.library.sum() > 0


# %% Training
@pytest.mark.parametrize("optimiser", runs.OPTIMISERS)
def test_steps_kernels_and_stable_rates_are_those_of_optax_and_the_package(optimiser):
    rate, steps = 0.01, 6
    run = runs.trained(runs.Cell("PLRNN", "sine", optimiser), rate, [0], steps)
    us, targets = runs.trials("sine", 0)
    made, theta = points.maker("PLRNN"), jnp.asarray(run.thetas[0, 0])
    rule = optax.inject_hyperparams(optax.adam if optimiser == "Adam" else optax.sgd)(learning_rate=rate)
    state = rule.init(made(theta))
    slope = jax.jit(jax.grad(lambda theta: jnp.mean((runs.outputs(made(theta), jnp.asarray(us)) - targets) ** 2)))
    for t in range(steps):
        np.testing.assert_allclose(run.thetas[t, 0], theta, rtol=1e-9, atol=1e-12)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = rule.update(made(slope(theta)), state)
        before, theta = theta, theta + ravel_pytree(updates)[0]
    jacobian = np.asarray(jax.jacfwd(lambda theta: runs.outputs(made(theta), jnp.asarray(us)).ravel())(before))
    values = np.linalg.svd(jacobian, compute_uv=False) ** 2 / len(jacobian)
    np.testing.assert_allclose(run.participation[-1, 0], values.sum() ** 2 / (values**2).sum(), rtol=1e-9)
    # The power iteration starts at each step from where it was, and has made 120 steps here.
    np.testing.assert_allclose(run.top[-1, 0], values[0], rtol=1e-4)
    limit = 1 / values[0]
    if optimiser == "Adam":
        # The input at a time is used by the next step. The row at the first time is not an output.
        aligned = np.concatenate([us, us[:, -1:]], axis=1)
        probe = ssntk.Probe(np.arange(runs.LENGTH + 1.0), aligned, mask=np.arange(runs.LENGTH + 1) > 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
            record = ssntk.NTKMonitor(probe, 1, loss="mse", n_starts=2).update(0, made(before), optimiser=state)
        limit = record.max_learning_rate
    np.testing.assert_allclose(run.ratio[-1, 0], rate / limit, rtol=1e-4)


# %% Coincidence
def planted(before, seed, count=12, steps=2000):
    """A run whose loss jumps at random steps, each with a bifurcation so many steps before it."""
    at = WINDOW + 30 + np.sort(np.random.default_rng(seed).choice(60, count, replace=False)) * 30
    loss = np.ones(steps)
    loss[at] = 3.0
    rows = {"loss": loss, "kind": np.zeros(steps, int)} | dict.fromkeys(("top", "ratio", "gradient"), np.ones(steps))
    rows["kind"][at - before] = 1
    return tables.ran(CELL, seed, rows), at


def test_jumps_falls_and_large_changes_are_the_planted_ones():
    run, at = planted(2, 0)
    np.testing.assert_array_equal(run.changes["jumps"], at)
    assert len(run.changes["falls"]) == 0
    # Twelve steps up and as many down are more than 1 % of 2000 steps.
    assert set(run.changes["large changes"]) <= {*at, *(at + 1)}
    np.testing.assert_array_equal(tables.falls(1 / run.rows["loss"]), at)
    diverged = np.append(np.ones(50), [np.nan, 1.0])
    assert (tables.length(diverged), list(tables.jumps(diverged[:51]))) == (51, [50])


def test_planted_bifurcations_coincide_and_the_control_is_the_share_of_steps_near_one():
    several = [planted(2, seed)[0] for seed in range(5)]
    found = tables.told(several, "jumps", "bifurcation", tables.WITHIN)
    assert (found.count, found.share) == (60, 1.0)
    # Twelve windows of five steps, which do not overlap, among 1980 steps.
    np.testing.assert_allclose([found.shifted, *found.ratio], [60 / 1980, *[33.0] * 3], rtol=1e-12)
    assert found.p == 1 / (1 + tables.SHIFTS)
    late = tables.told([planted(3, seed)[0] for seed in range(5)], "jumps", "bifurcation", tables.WITHIN)
    assert (late.share, late.p) == (0.0, 1.0)
    assert tables.told([planted(3, 0)[0]], "jumps", "bifurcation", tables.BEFORE).share == 1.0


def test_unrelated_events_have_ratios_of_one():
    random, parts = np.random.default_rng(0), []
    for seed in range(200):
        on = random.random(2000) < 0.02
        parts.append(tables.met(np.sort(random.choice(np.arange(20, 2000), 10, replace=False)), on, tables.WITHIN, seed))
    found = tables.over(parts)
    # 2000 jumps, of which a share of about 0.1 coincides: the standard error of the ratio is about 0.07.
    for value, low, high in (found.ratio, found.nearby_ratio):
        assert abs(value - 1) < 0.28
        assert low < 1 < high
    assert 0.01 < found.p < 0.99


# %% The whole study
def test_a_study_that_was_killed_resumes(tmp_path, monkeypatch):
    measured, cells = [], runs.CELLS[:3]

    def measure(cell, rate, seeds, steps):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(cell)
        return {"seeds": np.array(seeds), "rate": np.array(rate), "seconds": np.zeros(2)}

    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "chosen_rate", lambda cell: 0.1)
    with pytest.raises(KeyboardInterrupt):
        study.study(tmp_path, cells, 2, 2, 9)
    # A file that was being written does not count.
    (tmp_path / ".0.part").write_bytes(b"half")
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.npz")}
    assert len(kept) == 2
    measured.clear()
    study.study(tmp_path, cells, 2, 2, 9)
    assert measured == cells[2:]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.slow
def test_the_quick_study_runs_and_its_tables_are_printed_again(tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "loss_jump_study.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "loss_jump_study.png").stat().st_size > 10_000
    tables.tables(tmp_path, study.QUICK)
    printed = capsys.readouterr().out
    assert printed in done.stdout
    assert "4 runs, 2 of each cell" in printed
