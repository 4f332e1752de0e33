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

import jax
import numpy as np
from loss_jump_points import Tracked, enumerated, tracked
from loss_jump_runs import CELLS, NETWORKS, Cell, chosen_rate, trained
from loss_jump_tables import falls, jumps, length, tables

from ssntk.files import write_whole

BATCH, STEPS = 10, 2000


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


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Measure what comes with a jump of the loss; a second run resumes.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/loss_jump_study"))
    parser.add_argument("--seeds", type=int, default=20, help="networks of each cell (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two networks of two cells, 80 steps")
    parser.add_argument("--summary", action="store_true", help="only the tables and the figure of what was measured")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    cells, count, batch, steps = CELLS, given.seeds, BATCH, STEPS
    if given.quick:
        cells, count, batch, steps = [Cell(NETWORKS[0], "flip-flop", "SGD"), Cell("PLRNN", "sine", "Adam")], 2, 2, 80
    if not given.summary:
        study(given.out, cells, count, batch, steps)
    tables(given.out, given.out / "loss_jump_study.png")
