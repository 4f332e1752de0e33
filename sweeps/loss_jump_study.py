# %% [markdown]
# # What makes a loss jump?
#
# Small recurrent networks (tanh RNN of 10 units, GRU of 6, PLRNN of 4) learn two tasks by plain gradient descent and by Adam
# for 2000 steps. At every step the study knows the loss, the kernel of the outputs on all trials, the largest stable
# learning rate, and the fixed points and 2-cycles at zero input. Do the loss's jumps come together with bifurcations, with
# peaks of the kernel, or with a learning rate beyond the stable one?
#
# The definitions were written before the first run, and were not changed after it. Numbers are constants below.
#
# - *Tasks*: a flip-flop of one bit (hold the sign of the last pulse), and a sine of period 10 after a pulse. 8 trials of 30
#   steps for each network, the same at every step. The loss is the mean squared error of all outputs.
# - *Rate*: of each architecture, task and optimiser the largest of six with which each of ten other networks (seeds 2000 to
#   2009) has a smaller loss after 300 steps than at first; the smallest of the six if there is none.
# - *End*: a run ends before 2000 steps if its loss is not finite or above 1e6. The last step then counts as a jump.
# - *Jump*: the loss exceeds twice the median of the last 20 steps. *Fall*: it is below half of it. The next jump or fall is
#   looked for 20 steps later. *Large change*: the 1 % of steps with the largest |log L(t) - log L(t - 1)| of a run.
# - *Bifurcation* at step t: the number of stable fixed points or of stable 2-cycles differs between the weights of steps
#   t - 1 and t. *Birth or death*: the number of all fixed points changes too. If not, it is a *stability change*: of a fixed
#   point (+1, flip or Neimark-Sacker, by its largest multiplier on the unstable side), or of a 2-cycle.
# - *Kernel peak*: the kernel's largest eigenvalue exceeds three times the median of the last 100 steps, and did not at the
#   step before. *Rate crossed*: the learning rate exceeds the largest stable one (of Adam: by its preconditioned kernel),
#   and did not at the step before. *Rate above*: it exceeds it, at any step. *Gradient peak*: the norm of the gradient
#   exceeds twice the median of its last 20 steps, and did not at the step before.
# - *Coincidence*: the share of jumps with an event at most 2 steps before or after, and the share with one at any of the 10
#   steps before. *Shifted*: the mean of the same share over all circular shifts of the jumps within their run, which is what
#   unrelated jumps would have. *Nearby*: its mean over shifts by 25 to 100 steps either way, which keeps the phase of
#   training. Steps before the 20th do not count. Intervals (95 %) and ratios by 1000 bootstrap samples of runs; p by 400
#   random circular shifts.
# - *The first bifurcation that the task needs*: the first step at which two fixed points are stable (flip-flop), or at which
#   no fixed point is stable, or one lost its stability by a pair (sine). Runs that have it at the first step do not count.
#   Does it come within 20 steps of the smallest participation ratio of the kernel in the run, and of the first fall? How low
#   is the participation ratio there, as a percentile of the run?
#
# Fixed points and 2-cycles are the zeros of F(F(x)) - x. Training comes first and keeps the weights of all steps. Then a
# full search (64 starts) is made at every 50th step, and at each jump and fall. Newton's iteration carries all known points
# from step to step, forwards and backwards, so that a birth is dated although only a later search found the point. Where
# the number of points or the sum of their indices changes, a full search is made on both sides, in up to three rounds. The
# points of PLRNNs are enumerated at every step. Cells are measured in tens of networks; those that all cells have count.
#
# `python sweeps/loss_jump_study.py` resumes where it stopped, with one file for each ten networks. `--summary` only prints
# the tables and draws. It takes the better part of an hour on one core.

# %%
import argparse
import io
import itertools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from loss_jump_points import Tracked, enumerated, tracked
from loss_jump_runs import CELLS, Cell, chosen_rate, trained
from loss_jump_tables import WINDOW, WITHIN, Ran, falls, jumps, length, tables, told

from ssntk.files import write_whole

BATCH, STEPS = 10, 2000
QUICK = [Cell("tanh RNN", "flip-flop", "SGD"), Cell("PLRNN", "sine", "Adam")]


# %%
def measure(cell: Cell, rate: float, seeds: list[int], steps: int) -> dict[str, np.ndarray]:
    """The rows of these networks: arrays (steps, seeds), and counts of searches (seeds,)."""
    began = time.perf_counter()
    run = trained(cell, rate, seeds, steps)
    middle = time.perf_counter()
    if cell.network == "PLRNN":
        found = enumerated(cell, run.thetas)
    else:
        looked = [
            (t, s) for s in range(len(seeds)) for loss in [run.loss[: length(run.loss[:, s]), s]] for t in watched(loss)
        ]
        found = tracked(cell, run.thetas, looked)
    # What is too large for single precision is infinite in the rows.
    with np.errstate(over="ignore"):
        kept = {name: np.asarray(getattr(run, name), np.float32) for name in run._fields if name != "thetas"}
    kept |= {name: getattr(found, name) for name in Tracked._fields}
    seconds = np.array([middle - began, time.perf_counter() - middle])
    return kept | {"seeds": np.array(seeds), "rate": np.array(rate), "seconds": seconds}


def watched(loss: np.ndarray) -> list[int]:
    """The steps at which a full search is made because the loss jumps or falls, and the ones before."""
    at = np.concatenate([jumps(loss), falls(loss)])
    return sorted({int(t) for one in at for t in (one - 1, one) if t < len(loss)})


def study(folder: pathlib.Path, cells: list[Cell], count: int, batch: int, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The first networks of all cells come first, so that a study that is stopped is balanced.
    parts = [list(range(first, min(first + batch, count))) for first in range(0, count, batch)]
    asked = list(itertools.product(parts, cells))
    for i, (seeds, cell) in enumerate(asked):
        file = folder / f"{'_'.join(cell)}_{seeds[0]}_{seeds[-1]}_{steps}.npz"
        if file.exists():
            continue
        rate = kept_rate(folder, cell)
        held = io.BytesIO()
        np.savez_compressed(held, **measure(cell, rate, seeds, steps))
        write_whole(file, held.getvalue())
        took = np.load(file)["seconds"].round().astype(int).tolist()
        print(f"{i + 1} of {len(asked)}: {', '.join(cell)}, seeds {seeds[0]} to {seeds[-1]}, {took} s", flush=True)


def kept_rate(folder: pathlib.Path, cell: Cell) -> float:
    """The learning rate of a cell, chosen once and kept in a file."""
    file = folder / "rates.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    name = ", ".join(cell)
    if name not in known:
        began = time.perf_counter()
        known[name] = {"rate": chosen_rate(cell), "seconds": time.perf_counter() - began}
        write_whole(file, json.dumps(known, indent=1).encode())
        print(f"{name}: rate {known[name]['rate']}", flush=True)
    return known[name]["rate"]


# %% The figure, one column wide
FAR = 100
EVENTS = {"bifurcation": "#0072B2", "kernel peak": "#D55E00", "rate crossed": "#009E73"}


def around(runs: list[Ran], event: str, lags: np.ndarray) -> np.ndarray:
    """How often an event comes at each lag from a jump, divided by how often it comes at all in these runs."""
    hits, steps, expected = np.zeros(len(lags)), np.zeros(len(lags)), 0.0
    for run in runs:
        at, on = run.changes["jumps"], run.events[event]
        moved = at[:, None] + lags[None]
        inside = (moved >= WINDOW) & (moved < len(on))
        hits += (on[np.clip(moved, 0, len(on) - 1)] & inside).sum(axis=0)
        steps += inside.sum(axis=0)
        expected += len(at) * on[WINDOW:].mean() if len(at) else 0.0
    jumps_ = max(sum(len(run.changes["jumps"]) for run in runs), 1)
    return hits / np.maximum(steps, 1) / max(expected / jumps_, 1e-300)


def example(ax: Any, runs: list[Ran]) -> None:
    """The loss of the first run with both jumps and bifurcations, and its events."""
    run = next((one for one in runs if len(one.changes["jumps"]) and one.events["bifurcation"][WINDOW:].any()), runs[0])
    loss, at = run.rows["loss"], run.changes["jumps"]
    ax.semilogy(loss, color="#222222", linewidth=0.7)
    ax.plot(at, loss[at], "v", color="#222222", markersize=3.5, label="jump", linestyle="none")
    for place, (event, colour) in enumerate(EVENTS.items()):
        steps = np.flatnonzero(run.events[event])
        heights = np.full(len(steps), 0.04 + 0.07 * place)
        ax.plot(steps, heights, "|", color=colour, markersize=5, label=event, transform=ax.get_xaxis_transform())
    shown = loss[: at[-1] + 60] if len(at) else loss
    low, high = np.nanmin(shown), np.nanmax(shown[np.isfinite(shown)])
    ax.set_xlim(0, len(shown))
    ax.set_ylim(low / (high / low) ** 0.4, high * 2)
    ax.set(xlabel="training step", ylabel="loss (mean squared error)")
    ax.text(1.0, 0.97, f"{', '.join(run.cell)}, seed {run.seed}", ha="right", va="top", transform=ax.transAxes)


def by_lag(ax: Any, runs: list[Ran]) -> None:
    lags = np.arange(-40, 41)
    for event, colour in EVENTS.items():
        # Means over five lags.
        smooth = np.convolve(around(runs, event, lags), np.ones(5) / 5, "valid")
        ax.plot(lags[2:-2], smooth, color=colour, linewidth=1)
    ax.axhline(1, color="0.6", linewidth=0.6, linestyle=":")
    ax.axvline(0, color="0.6", linewidth=0.6, linestyle=":")
    ax.set(xlabel="steps from a jump", ylabel="events / events at any step", ylim=(0, None))


def by_cell(ax: Any, runs: list[Ran], cells: list[Cell]) -> None:
    for place, (event, colour) in enumerate(EVENTS.items()):
        for row, cell in enumerate([*cells, None]):
            value, low, high = told([run for run in runs if cell in (run.cell, None)], "jumps", event, WITHIN).nearby_ratio
            if np.isfinite(value):
                height = -row - 0.22 * (place - 1)
                ax.plot([low, min(high, FAR)], [height, height], color=colour, linewidth=0.9)
                ax.plot(value, height, "o", color=colour, markersize=2.5)
    ax.set_yticks(-np.arange(len(cells) + 1), [*(", ".join(cell) for cell in cells), "all"])
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, FAR)
    ax.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    ax.axvline(1, color="0.6", linewidth=0.6, linestyle=":")
    ax.set_xlabel("jumps with an event / the same nearby", loc="right")


def draw(runs: list[Ran], cells: list[Cell], figure: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 7, "axes.labelsize": 7, "legend.fontsize": 6.5}
    drawing = plt.figure(figsize=(85 / 25.4, 180 / 25.4))
    top, middle = (drawing.add_axes((0.16, bottom, 0.81, 0.22)) for bottom in (0.735, 0.455))
    bottom = drawing.add_axes((0.42, 0.05, 0.55, 0.35))
    example(top, runs)
    by_lag(middle, runs)
    by_cell(bottom, runs, cells)
    top.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.44, 1.0), ncols=4, columnspacing=1.0, handletextpad=0.3)
    for ax in (top, middle, bottom):
        ax.spines[["top", "right"]].set_visible(False)
    drawing.savefig(figure, dpi=200)
    plt.close(drawing)
    print(f"\nfigure in {figure}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Measure what comes with a jump of the loss; a second run resumes.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/loss_jump_study"))
    parser.add_argument("--seeds", type=int, default=20, help="networks of each cell (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two networks of two cells, 60 steps")
    parser.add_argument("--summary", action="store_true", help="only the tables and the figure of what was measured")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    cells, count, batch, steps = CELLS, given.seeds, BATCH, STEPS
    if given.quick:
        cells, count, batch, steps = QUICK, 2, 2, 60
    if not given.summary:
        study(given.out, cells, count, batch, steps)
    draw(tables(given.out, cells), cells, given.out / "loss_jump_study.png")
