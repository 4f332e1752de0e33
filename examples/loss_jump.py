# %% [markdown]
# # Is a jump of the loss announced?
#
# Recurrent networks of 16 units learn two tasks by plain gradient descent: a flip-flop of two bits, and a sine that
# continues after a pulse. Their losses jump. A monitor examines them every fifth step. How often does it warn before a jump,
# how long before, and how often without a jump? It is compared with two numbers that cost nothing, at every step: the norm
# of the gradient and the slope of the loss. `LearningRateWarning` and `NearCriticalWarning` are the monitor's own. All other
# thresholds are set by one rule on networks that are not counted.
#
# The network is `nn.RNN` with a linear readout if PyTorch is installed. If not, the same network is written in JAX. Both
# start from the same weights. `python examples/loss_jump.py --quick` is a quick run; the default takes about ten minutes.

# %%
import argparse
import importlib.util
import pathlib
import time
import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description="Whether warnings come before the loss of a recurrent network jumps.")
parser.add_argument("--seeds", type=int, default=10, help="networks of each task (default %(default)s)")
parser.add_argument("--calibration", type=int, default=4, help="others, that set thresholds (default %(default)s)")
parser.add_argument("--steps", type=int, default=300, help="of training (default %(default)s)")
parser.add_argument("--every", type=int, default=5, help="steps between records (default %(default)s)")
parser.add_argument("--quick", action="store_true", help="one network of each task, 40 steps, two records")
parser.add_argument("--out", type=pathlib.Path, default="results", help="folder (default %(default)s)")
chosen = parser.parse_args()
if chosen.quick:
    chosen.seeds, chosen.calibration, chosen.steps, chosen.every = 1, 1, 40, 20
if min(chosen.seeds, chosen.calibration, chosen.steps, chosen.every) < 1:
    parser.error("--seeds, --calibration, --steps and --every must be at least 1")
chosen.out.mkdir(parents=True, exist_ok=True)

# The loss jumps if it exceeds twice the median of the last 20 steps. The next jump is looked for 20 steps later. A warning
# counts for the next 30 steps.
FACTOR, WINDOW, AHEAD = 2.0, 20, 30
UNITS, TRIALS, LENGTH = 16, 32, 40


# %% The tasks: inputs (trials, steps, d) and targets (trials, steps, m), the same trials at every step of training. The
# learning rate of each is the largest of 0.02, 0.05, 0.1, 0.2 and 0.5 with which each of ten other networks (seeds 2000 to
# 2009) had a smaller loss after 300 steps than at first.
def flip_flop(random):
    fires = random.random((TRIALS, LENGTH, 2)) < 0.15
    fires[:, 0] = True
    signs = random.choice([-1.0, 1.0], fires.shape)
    last = np.maximum.accumulate(np.where(fires, np.arange(LENGTH)[None, :, None], 0), axis=1)
    return fires * signs, np.take_along_axis(signs, last, axis=1)


def sine(random):
    sign, when = random.choice([-1.0, 1.0], (TRIALS, 1, 1)), np.arange(LENGTH)[None, :, None]
    return sign * (when < 3), sign * np.sin(0.3 * when)


TASKS = {"flip-flop": (flip_flop, 0.2), "sine": (sine, 0.05)}


def initial(random, d, m):
    """Weights as PyTorch draws them, by its names."""
    shapes = {"weight_ih_l0": (UNITS, d), "weight_hh_l0": (UNITS, UNITS), "bias_ih_l0": (UNITS,), "bias_hh_l0": (UNITS,)}
    shapes = {f"rnn.{name}": shape for name, shape in shapes.items()} | {"fc.weight": (m, UNITS), "fc.bias": (m,)}
    return {name: random.uniform(-(UNITS**-0.5), UNITS**-0.5, shape) for name, shape in shapes.items()}


# %% Training: at each step the loss, the norm of the gradient, and the weights there
def by_torch(weights, us, wanted, rate):
    import torch

    torch.set_default_dtype(torch.float64)
    rnn, fc = torch.nn.RNN(us.shape[2], UNITS, batch_first=True), torch.nn.Linear(UNITS, wanted.shape[2])
    network = torch.nn.ModuleDict({"rnn": rnn, "fc": fc})
    network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    us, wanted = torch.tensor(us), torch.tensor(wanted)
    while True:
        loss = torch.nn.functional.mse_loss(fc(rnn(us)[0]), wanted)
        optimiser.zero_grad()
        loss.backward()
        norm = sum(float((one.grad**2).sum()) for one in network.parameters()) ** 0.5
        yield loss.item(), norm, network.state_dict()
        optimiser.step()


def by_jax(weights, us, wanted, rate):
    us, wanted = jnp.asarray(us), jnp.asarray(wanted)
    while True:
        loss, norm, after = descended(weights, us, wanted, rate)
        yield float(loss), float(norm), weights
        weights = after


@eqx.filter_jit
def descended(weights, us, wanted, rate):
    def loss(w):
        def step(h, u):
            h = jnp.tanh(
                u @ w["rnn.weight_ih_l0"].T
                + w["rnn.bias_ih_l0"][None]
                + h @ w["rnn.weight_hh_l0"].T
                + w["rnn.bias_hh_l0"][None]
            )
            return h, h @ w["fc.weight"].T + w["fc.bias"][None]

        outputs = jax.lax.scan(step, jnp.zeros((TRIALS, UNITS)), us.transpose(1, 0, 2))[1]
        return jnp.mean((outputs.transpose(1, 0, 2) - wanted) ** 2)

    value, gradient = jax.value_and_grad(loss)(weights)
    norm = jnp.sqrt(sum(jnp.sum(one**2) for one in gradient.values()))
    return value, norm, {name: weights[name] - rate * gradient[name] for name in weights}


BY_TORCH = importlib.util.find_spec("torch") is not None


def trained(task, seed):
    """(losses, norms of the gradient, monitor) of one network."""
    make, rate = TASKS[task]
    random = np.random.default_rng(seed)
    us, wanted = make(random)
    weights = initial(random, us.shape[2], wanted.shape[2])
    # The input at a time is used by the next step. The row at the first time is not an output.
    aligned = np.concatenate([us, us[:, -1:]], axis=1)
    probe = ssntk.Probe(np.arange(LENGTH + 1.0), aligned, mask=np.arange(LENGTH + 1) > 0)
    monitor = ssntk.NTKMonitor(probe, chosen.every, loss="mse")
    losses, norms = [], []
    runs = (by_torch if BY_TORCH else by_jax)(weights, us, wanted, rate)
    with warnings.catch_warnings():
        # These warnings are counted below.
        warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
        warnings.simplefilter("ignore", ssntk.LearningRateWarning)
        for step, (loss, norm, network) in zip(range(chosen.steps), runs, strict=False):
            losses.append(loss)
            norms.append(norm)
            if not np.isfinite(loss):
                break
            monitor.update(step, network, loss=loss, learning_rate=rate)
    return np.array(losses), np.array(norms), monitor


# %% The scores: one number at each step, which is large if something is wrong. A record counts until the next one.
def held(monitor, values, steps):
    at = np.searchsorted(monitor.arrays()["step"], np.arange(steps), side="right") - 1
    return np.asarray(values)[at]


def scores(losses, norms, monitor):
    seen, steps = monitor.arrays(), len(losses)
    fast, radius = seen["learning_rate"] / seen["max_learning_rate"], np.abs(seen["stability_radius"])
    usual = [np.median(norms[max(0, t - WINDOW) : t + 1]) for t in range(steps)]
    with np.errstate(over="ignore", invalid="ignore"):
        log = np.log(losses)
        slope = [np.polyfit(np.arange(10), log[t - 9 : t + 1], 1)[0] if t >= 9 else -np.inf for t in range(steps)]
    return {
        "LearningRateWarning": held(monitor, fast, steps),
        "NearCriticalWarning": held(monitor, np.isin(seen["verdict"], ("near-critical", "critical")) * 2.0, steps),
        "rate / stable rate": held(monitor, fast, steps),
        "1 / stability radius": held(monitor, 1 / np.maximum(np.nan_to_num(radius, nan=np.inf), 1e-12), steps),
        "gradient norm / its median": norms / usual,
        "slope of log loss": np.nan_to_num(np.array(slope), nan=np.inf),
    }


AS_SHIPPED = {"LearningRateWarning": 1.0, "NearCriticalWarning": 1.0}


def jumps(losses):
    found, t = [], WINDOW
    while t < len(losses):
        if not losses[t] <= FACTOR * np.median(losses[t - WINDOW : t]):
            found.append(t)
            t += WINDOW
        else:
            t += 1
    return np.array(found, int)


class Told(NamedTuple):
    """How well a score warned: how many of the jumps it announced, and how many steps before each; how many periods of
    warning there were, and how many of them without a jump; at how many of the quiet steps, at which no jump was ahead, it
    warned. The 20 steps after a jump do not count."""

    warned: int
    leads: list[int]
    spells: int
    false: int
    wrong: int
    quiet: int


def told(score, threshold, at):
    """The result for one run with jumps `at`. A jump was announced if the warning was on at any of the 30 steps before."""
    on, steps = score > threshold, np.arange(len(score))
    before = [on[max(t - AHEAD, 0) : t] for t in at]
    leads = [len(one) - int(np.argmax(one)) for one in before if one.any()]
    until = at[None] - steps[:, None]
    during = ((until <= 0) & (until > -WINDOW)).any(axis=1)
    quiet = ~during & ~((until > 0) & (until <= AHEAD)).any(axis=1)
    starts = np.flatnonzero(on & ~np.append(False, on[:-1]) & ~during)
    ends = [t + int(np.argmin(np.append(on[t:], False))) for t in starts]
    false = sum(not ((at > t) & (at < end + AHEAD)).any() for t, end in zip(starts, ends, strict=True))
    return Told(len(leads), leads, len(starts), false, int((on & quiet).sum()), int(quiet.sum()))


def over(runs, name, threshold):
    """The result for all runs together."""
    each = [told(run[name], threshold, at) for run, at in runs]
    return Told(*(sum(parts, start=[] if isinstance(parts[0], list) else 0) for parts in zip(*each, strict=True)))


def calibrated(runs, name):
    """The threshold with the largest difference between the shares of announced jumps and of quiet steps with a warning."""
    values = np.concatenate([run[name][np.isfinite(run[name])] for run, _ in runs])
    total = max(sum(len(at) for _, at in runs), 1)

    def worth(threshold):
        found = over(runs, name, threshold)
        return found.warned / total - found.wrong / max(found.quiet, 1)

    return max(np.unique(np.quantile(values, np.linspace(0.02, 0.995, 80))), key=worth)


# %% Everything, and the tables
began, kept, measured = time.perf_counter(), {}, {}
for task in TASKS:
    for seed in [*range(1000, 1000 + chosen.calibration), *range(chosen.seeds)]:
        run = trained(task, seed)
        kept[task, seed] = run
        measured[task, seed] = scores(*run), jumps(run[0])
        print(
            f"{task} {seed}: jumps at {measured[task, seed][1].tolist()}   {time.perf_counter() - began:.0f} s", flush=True
        )

others = [run for (_, seed), run in measured.items() if seed >= 1000]
names = list(others[0][0])
thresholds = {name: AS_SHIPPED.get(name) or calibrated(others, name) for name in names}
print(f"\nBy {'PyTorch' if BY_TORCH else 'JAX'}, {chosen.seeds} networks of each task, {chosen.steps} steps.")
for task in TASKS:
    runs = [run for (name, seed), run in measured.items() if name == task and seed < 1000]
    total = sum(len(at) for _, at in runs)
    print(f"\n{task}: {total} jumps, in {sum(len(at) > 0 for _, at in runs)} of {len(runs)} networks\n")
    print("| | threshold | jumps warned of | first jumps | steps before these | false warnings | quiet steps that warn |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        found = over(runs, name, thresholds[name])
        # Look at first jumps separately, since later ones come while the loss is still moving.
        first = over([(run, at[:1]) for run, at in runs if len(at)], name, thresholds[name]) if total else found
        lead = "{1:.0f} ({0:.0f} to {2:.0f})".format(*np.percentile(first.leads, [25, 50, 75])) if first.leads else "-"
        shipped = "as shipped" if name in AS_SHIPPED else f"{thresholds[name]:.3g}"
        share = f"{found.wrong / found.quiet:.0%}" if found.quiet else "-"
        told_of = f"{found.warned} of {total} | {first.warned} of {sum(len(at) > 0 for _, at in runs)} | {lead}"
        print(f"| {name} | {shipped} | {told_of} | {found.false} of {found.spells} | {share} |")

# %% The figure, one column wide: one network, and for each score the share of announced jumps over that of false warnings
plt.rcParams |= {"font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6.5, "pdf.fonttype": 42}
figure, (top, bottom) = plt.subplots(2, 1, figsize=(85 / 25.4, 110 / 25.4), layout="constrained")
shown = next((seed for seed in range(chosen.seeds) if len(measured["flip-flop", seed][1])), 0)
losses, _, monitor = kept["flip-flop", shown]
run, at = measured["flip-flop", shown]
top.semilogy(losses, color="#222222", linewidth=0.9)
for name, colour, height in (("LearningRateWarning", "#D55E00", 0.05), ("NearCriticalWarning", "#0072B2", 0.12)):
    on = run[name] > AS_SHIPPED[name]
    top.fill_between(
        np.arange(len(on)),
        height - 0.02,
        height + 0.02,
        where=on,
        color=colour,
        linewidth=0,
        transform=top.get_xaxis_transform(),
    )
    top.plot([], [], color=colour, linewidth=4, label=name)
top.plot(at, losses[at], "v", color="#222222", markersize=4, label="jump")
top.set_xlabel("training step")
top.set_ylabel("loss (mean squared error)")
top.legend(frameon=False, loc="upper right")
colours = ["#D55E00", "#0072B2", "#D55E00", "#0072B2", "#009E73", "#CC79A7"]
runs = [run for (_, seed), run in measured.items() if seed < 1000]
total = max(sum(len(at) for _, at in runs), 1)
for name, colour in zip(names, colours, strict=True):
    if name in AS_SHIPPED:
        found = over(runs, name, 1.0)
        bottom.plot(found.wrong / max(found.quiet, 1), found.warned / total, "o", color=colour, markersize=5, label=name)
        continue
    values = np.concatenate([run[name][np.isfinite(run[name])] for run, _ in runs])
    cuts = [-np.inf, *np.unique(np.quantile(values, np.linspace(0, 1, 60)))]
    curve = [over(runs, name, cut) for cut in cuts]
    across, up = [one.wrong / max(one.quiet, 1) for one in curve], [one.warned / total for one in curve]
    bottom.plot(across, up, color=colour, linewidth=0.9, label=name)
bottom.set_xlabel("share of quiet steps that warn")
bottom.set_ylabel("share of jumps warned of")
bottom.legend(frameon=False, loc="lower right")
for ax in (top, bottom):
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(chosen.out / "loss_jump.png", dpi=200)
print(f"\nfigure in {chosen.out / 'loss_jump.png'}")
