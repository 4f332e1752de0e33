# %% [markdown]
# # Learning a memory: what happens at the bifurcation, and which optimiser passes it
#
# A teacher of 16 units lies beyond a pitchfork: its origin is unstable (growth rate +0.30), and a cue sends it to one of two
# stable states. A student is a random network whose only fixed point is stable (-0.15). It learns to respond to each cue as
# the teacher does. To learn this it must pass a bifurcation. Hazelden and Shea-Brown (2026, arXiv:2605.12763) claim that
#
# 1. the first learned bifurcation coincides with a sharp collapse of the kernel's effective rank,
# 2. there one direction dominates, the critical one,
# 3. low-rank natural gradient resolves the instability that this brings into learning,
# 4. at very little overhead over gradient descent.
#
# Here each claim is tested on random teachers and students, with a weak cue and a strong one. The low-rank natural gradient
# is compared with gradient descent at its best rate, clipped gradients and Adam.
# `python examples/student_teacher.py --seeds 1 --rates 2 --steps 500` is a quick run; the default takes about 20 minutes.

# %%
import argparse
import pathlib
import time
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import optax

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description="Train students of a teacher with a pitchfork behind it, and time optimisers.")
parser.add_argument("--seeds", type=int, default=10, help="students; rates are chosen on as many more (default %(default)s)")
parser.add_argument("--steps", type=int, default=3000, help="the most training steps (default %(default)s)")
parser.add_argument("--rates", type=int, default=7, help="learning rates that are tried (default %(default)s)")
parser.add_argument("--cues", type=float, nargs="+", default=[0.2, 1.0], help="sizes of the cue (default 0.2 and 1)")
parser.add_argument("--out", type=pathlib.Path, default="results/student_teacher", help="folder (default %(default)s)")
chosen = parser.parse_args()
for name in ("seeds", "steps", "rates"):
    if getattr(chosen, name) < 1:
        parser.error(f"--{name} must be at least 1, got {getattr(chosen, name)}")
chosen.out.mkdir(parents=True, exist_ok=True)

# %% The task: four cues of one leak time. For 16 leak times, four readouts of the student must match those of the teacher.
UNITS, READOUTS, TIMES = 16, 4, np.linspace(0.0, 16.0, 33)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
# The task counts as learned if the loss is below this fraction of the first loss. Losses are compared until then.
TOLERANCE, CHUNK = 1e-2, 25


def theta(model):
    """The trained parameters. The readout is that of the teacher."""
    return model.weight, model.input_weight, model.bias


def problem(seed, cue):
    """(student, inputs, targets of the readouts) of a seed."""
    mode, teacher, student, signal, out = jr.split(jr.key(seed), 5)
    weight = 0.5 * jr.normal(teacher, (UNITS, UNITS)) / UNITS**0.5
    direction = jr.normal(mode, (UNITS,))
    direction = np.asarray(direction / jnp.linalg.norm(direction))
    # Find the strength of an additional memory direction with which the rightmost eigenvalue is 1.3.
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        top = np.linalg.eigvals(np.asarray(weight) + middle * np.outer(direction, direction)).real.max()
        low, high = (middle, high) if top < 1.3 else (low, middle)
    inward, outward = jr.normal(signal, (UNITS, 1)), jr.normal(out, (READOUTS, UNITS))
    teacher = ssntk.CTRNN.from_weights(weight + low * np.outer(direction, direction), inward, None, outward)
    start = np.asarray(jr.normal(student, (UNITS, UNITS)))
    start = 0.85 * start / np.linalg.eigvals(start).real.max()
    student = ssntk.CTRNN.from_weights(start, inward, None, outward)
    us = cue * jnp.array([-1.0, -0.5, 0.5, 1.0])[:, None, None] * (jnp.asarray(TIMES) < 1.0)[None, :, None]
    return student, us, readouts(teacher, us)


def readouts(model, us):
    states = ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=HEUN, adjoint=diffrax.DirectAdjoint())
    return jax.vmap(jax.vmap(model.readout))(states)


# %% Optimisers: each a function of the rate alone
METHODS = {
    "gradient descent": optax.sgd,
    "clipped (norm 1)": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)),
    "Adam": optax.adam,
    "natural, rank 1": lambda rate: ssntk.low_rank_natural_gradient(rate, rank=1),
    "natural, rank 2": lambda rate: ssntk.low_rank_natural_gradient(rate, rank=2),
    "natural, rank 3": lambda rate: ssntk.low_rank_natural_gradient(rate, rank=3),
}


def trainer(make):
    """A function that makes CHUNK steps of an optimiser, and returns theta, the state, the losses and theta at each step."""

    def chunk(student, us, wanted, rate, moving, state):
        opt = optax.with_extra_args_support(make(rate))

        def residuals(moving):
            return (readouts(eqx.tree_at(theta, student, moving), us) - wanted).ravel()

        def step(carry, _):
            moving, state = carry
            loss, gradient = jax.value_and_grad(lambda moving: jnp.mean(residuals(moving) ** 2) / 2)(moving)
            update, state = opt.update(gradient, state, moving, residuals=residuals)
            return (optax.apply_updates(moving, update), state), (loss, moving)

        (moving, state), (losses, visited) = jax.lax.scan(step, (moving, state), length=CHUNK)
        return moving, state, losses, visited

    return chunk


# The range of rates that are tried, in units of 2 / lambda_1 of each student at its start. It is wider for methods that gain
# from larger rates. For Adam the rate is the size of a step, whatever the kernel.
SPANS = {"gradient": (1 / 32, 2), "clipped": (1 / 8, 8), "natural,": (1 / 8, 32), "Adam": (1e-3, 1e-1)}
CHUNKS = {name: trainer(make) for name, make in METHODS.items()}
# These are compiled once for all seeds and rates.
ONE = {name: eqx.filter_jit(chunk) for name, chunk in CHUNKS.items()}
MANY = {name: eqx.filter_jit(eqx.filter_vmap(lambda *all, chunk=chunk: chunk(*all)[:3])) for name, chunk in CHUNKS.items()}


def finished(losses):
    """Whether the loss was small at some step, or is not finite; for several runs, whether this holds for all."""
    return bool(((losses <= TOLERANCE * losses[..., :1]) | ~np.isfinite(losses)).any(axis=-1).all())


def learned(losses):
    """The first step at which the loss is small; infinite if there is none."""
    below = np.flatnonzero(losses <= TOLERANCE * losses[0])
    return float(below[0]) if below.size else np.inf


def train(method, rate, student, us, wanted, *, whole=False):
    """The losses, the seconds until each, and theta at each step. The run ends if the loss is small (unless `whole`), if it
    is not finite, or after the last step."""
    moving, rate = theta(student), jnp.asarray(rate)
    state, losses, visited = METHODS[method](rate).init(moving), [], []
    began, clock = time.perf_counter(), [0.0]
    while len(losses) * CHUNK < chosen.steps:
        moving, state, new, path = ONE[method](student, us, wanted, rate, moving, state)
        losses.append(np.asarray(new))
        visited.append(path)
        clock.append(time.perf_counter() - began)
        if not np.isfinite(losses[-1]).all() or (not whole and learned(np.concatenate(losses)) < np.inf):
            break
    seconds = np.interp(np.arange(1, len(losses) * CHUNK + 1), CHUNK * np.arange(len(clock)), clock)
    return np.concatenate(losses), seconds, jax.tree.map(lambda *parts: np.concatenate(parts), *visited)


def train_all(method, rates, problems):
    """The losses of several runs at once, one for each rate and problem."""
    if method.startswith("natural"):
        # Run these one by one: side by side they would compute their eigenpairs at every step.
        return [train(method, rate, *each)[0] for rate, each in zip(rates, problems, strict=True)]
    student, us, wanted = jax.tree.map(lambda *all: jnp.stack(all) if eqx.is_array(all[0]) else all[0], *problems)
    rates, moving = jnp.asarray(rates), theta(student)
    state = jax.vmap(lambda rate, moving: METHODS[method](rate).init(moving))(rates, moving)
    losses = np.empty((len(problems), 0))
    while losses.shape[1] < chosen.steps and not (losses.size and finished(losses)):
        moving, state, new = MANY[method](student, us, wanted, rates, moving, state)
        losses = np.concatenate([losses, np.asarray(new)], axis=1)
    return list(losses)


def spike(losses):
    """The largest factor by which the loss rose above its smallest value so far, until it was small."""
    losses = losses[: int(min(learned(losses), losses.size))]
    return float(np.max(losses / np.minimum.accumulate(losses))) if np.isfinite(losses).all() else np.inf


def stable_rate(student, us, wanted):
    """2 / lambda_1 of a student, for the mean over its readouts."""
    kernel = ssntk.ntk_spectrum(student, ssntk.Probe(TIMES, us), of="readout", wrt=theta, integrator=HEUN, k=1)
    return float(kernel.max_learning_rate) * wanted.size


# %% Every method with every rate on seeds that are used for nothing else; then with its best rate on the others, timed
def compare(cue):
    problems = [problem(seed, cue) for seed in range(2 * chosen.seeds)]
    limits = np.array([stable_rate(*each) for each in problems])
    problems, others = problems[: chosen.seeds], problems[chosen.seeds :]
    print(f"\ncue {cue:g}: 2 / lambda_1 of the students at the start {limits.min():.3g} to {limits.max():.3g}")
    best = {}
    for method in METHODS:
        rates = np.geomspace(*SPANS[method.split()[0]], chosen.rates)
        units = np.ones(chosen.seeds) if method == "Adam" else limits[chosen.seeds :]
        losses = train_all(method, np.outer(rates, units).ravel(), chosen.rates * others)
        reached = np.array([learned(each) for each in losses]).reshape(chosen.rates, chosen.seeds)
        # The best rate is the one with which most seeds learn. Ties are decided by speed, then by the final loss.
        done = np.isfinite(reached).sum(axis=1)
        median = np.median(np.minimum(reached, 10 * chosen.steps), axis=1)
        last = np.array([each[-1] / each[0] for each in losses]).reshape(chosen.rates, chosen.seeds)
        left = np.median(np.where(np.isfinite(last), last, np.inf), axis=1)
        at = min(range(chosen.rates), key=lambda i: (-done[i], median[i], left[i]))
        best[method] = rates[at]
        table = "  ".join(f"{rate:.2g}: {d}/{chosen.seeds} {m:.0f}" for rate, d, m in zip(rates, done, median, strict=True))
        print(f"{method:17s} best {rates[at]:.3g} of (rate: learned, median steps)  {table}", flush=True)
    runs = {method: [] for method in METHODS}
    # Compile before the timing, with a rate of the same type.
    for method, rate in best.items():
        first = theta(problems[0][0])
        ONE[method](*problems[0], jnp.asarray(rate), first, METHODS[method](jnp.asarray(rate)).init(first))
    for limit, (student, us, wanted) in zip(limits[: chosen.seeds], problems, strict=True):
        for method, rate in best.items():
            unit = 1.0 if method == "Adam" else limit
            runs[method].append(train(method, rate * unit, student, us, wanted, whole=True))
    return problems, best, runs


def spread(values):
    """The median with the quartiles; beyond the last finite value they are "never"."""
    never = 1e9
    low, middle, high = np.percentile(np.where(np.isfinite(values), values, never), [25, 50, 75])
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    # A quartile between a finite value and an infinite one counts as infinite.
    said = ["never" if value > never / 100 else f"{value:.{digits}f}" for value in (middle, low, high)]
    return "{} ({} to {})".format(*said)


def tabulate(cue, best, runs):
    # For equal time, the budget is the time of all steps of gradient descent.
    budget = np.median([seconds[-1] for _, seconds, _ in runs["gradient descent"]])
    lines = [
        f"| cue {cue:g} | rate | learned | steps | seconds | ms a step | spike | loss / first loss in {budget:.1f} s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, rate in best.items():
        steps = np.array([learned(losses) for losses, _, _ in runs[method]])
        # Look at the steps until the task is learned, during which the eigenpairs change.
        last = [int(min(step, losses.size - 1)) for step, (losses, _, _) in zip(steps, runs[method], strict=True)]
        clock = np.array([seconds[i] for i, (_, seconds, _) in zip(last, runs[method], strict=True)])
        within = [np.nanmin(losses[seconds <= budget]) / losses[0] for losses, seconds, _ in runs[method]]
        cells = (
            f"{rate:.3g}",
            f"{np.isfinite(steps).sum()}/{len(steps)}",
            spread(steps),
            spread(np.where(np.isfinite(steps), clock, np.inf)),
            f"{np.median(clock / (np.array(last) + 1)) * 1e3:.2f}",
            spread(np.array([spike(losses) for losses, _, _ in runs[method]])),
            f"{np.median(within):.1e}",
        )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


# %% The bifurcation during gradient descent, as the monitor sees it, and the kernel of the states there, as in the paper
def at(student, visited, step):
    return eqx.tree_at(theta, student, tuple(jnp.asarray(leaf[step]) for leaf in visited))


def first_bifurcation(student, visited, low, high):
    """(step, bifurcation, the network there) between two steps of descent, by continuation from one to the next; `None` if
    there is no bifurcation between them. At `low` there is one fixed point, which is stable; at `high` this is not so."""
    while high - low > 1:
        middle = (low + high) // 2
        points = ssntk.find_fixed_points(at(student, visited, middle), n_starts=64)
        low, high = (low, middle) if len(points) > 1 or not points.stable.any() else (middle, high)
    line = ssntk.Family.between(at(student, visited, low), at(student, visited, high))
    events = ssntk.bifurcation_diagram(line, (0.0, 1.0), n_slices=2, n_starts=64).bifurcations
    return (high, events[0], line(events[0].parameter)) if events else (high, None, None)


def dominance(model, probe, x, eigenvalue=None):
    """The critical channel's share of the kernel, and the alignment of its top state direction with the critical one."""
    # Only the measured part is needed. The prediction may fail, since these trajectories are large.
    found = ssntk.bifurcation_channel(model, probe, x, eigenvalues=eigenvalue, wrt=theta, integrator=HEUN, throw=False)
    return float(found.share), float(found.alignment)


def watch(problems, runs):
    watched = []
    for (student, us, _), (losses, _, visited) in zip(problems, runs["gradient descent"], strict=True):
        # Trajectories start at zero, as in training.
        probe = ssntk.Probe(TIMES, us, np.zeros(UNITS))
        monitor = ssntk.NTKMonitor(probe, every=1, of="state", wrt=theta, weights="trapezoid", integrator=HEUN, n_starts=32)
        until = int(min(learned(losses), losses.size - 1))
        # Records are closer together at the beginning, where most bifurcations lie.
        for step in np.unique(np.geomspace(1, until + 1, 60).astype(int) - 1):
            with warnings.catch_warnings():
                # Every student comes near its bifurcation, on purpose: do not warn.
                warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
                monitor.update(int(step), at(student, visited, step))
        seen, near = monitor.arrays(), (np.nan, np.nan)
        # The first record with more than one fixed point, or with a single unstable one.
        passed = np.flatnonzero((seen["n_fixed_points"] > 1) | (seen["n_stable"] == 0))
        step, event, rank = None, None, np.nan
        if passed.size and passed[0] > 0:
            step, event, model = first_bifurcation(student, visited, *(int(seen["step"][passed[0] + i]) for i in (-1, 0)))
            after = at(student, visited, step)
            asked = {"of": "state", "wrt": theta, "weights": "trapezoid", "integrator": HEUN}
            rank = float(ssntk.ntk_spectrum(after, probe, **asked).effective_rank)
            if event is not None:
                near = dominance(model, probe, event.x, 1j * event.frequency)
        watched.append((seen, step, event, rank, dominance(student, probe, np.zeros(UNITS)), near))
    return watched


def collapse(watched):
    """Print the results for claims 1 and 2, one line for each seed."""
    for seed, (seen, step, event, there, before, near) in enumerate(watched):
        if step is None:
            print(f"  seed {seed}: no bifurcation was passed")
            continue
        rank, lowest = seen["effective_rank"], int(np.argmin(seen["effective_rank"]))
        print(
            f"  seed {seed}: {'not located' if event is None else event.kind} before step {step}; "
            f"effective rank {rank[0]:.1f} at first, {there:.1f} there, least {rank[lowest]:.1f} at step "
            f"{seen['step'][lowest]}, {rank[-1]:.1f} at the end; "
            f"share of the channel {before[0]:.0%} at first, {near[0]:.0%} there; alignment {before[1]:.2f}, {near[1]:.2f}"
        )
    for name, i in (("share", 0), ("alignment", 1)):
        first, last = (np.array([each[which][i] for each in watched if each[2] is not None]) for which in (4, 5))
        if len(first):
            rose = sum(last > first)
            print(f"  median {name}: {np.median(first):.3f} at first, {np.median(last):.3f} there; it rose on {rose}")


# %%
figure, axes = plt.subplots(4, len(chosen.cues), figsize=(5.8 * len(chosen.cues), 13), layout="constrained", squeeze=False)
colours = dict(zip(METHODS, ["#222222", "#999999", "#E69F00", "#56B4E9", "#0072B2", "#009E73"], strict=True))
tables = []
for column, cue in enumerate(chosen.cues):
    problems, best, runs = compare(cue)
    table = tabulate(cue, best, runs)
    tables.append(table)
    print(f"\n{table}\n\nOn the way of gradient descent:", flush=True)
    watched = watch(problems, runs)
    collapse(watched)
    top, ranks, rates, clock = axes[:, column]
    for method, colour in colours.items():
        # The median over seeds of the smallest loss so far. A run that diverged keeps its value.
        length = max(losses.size for losses, _, _ in runs[method])
        least = [np.fmin.accumulate(losses / losses[0]) for losses, _, _ in runs[method]]
        median = np.median([np.pad(each, (0, length - each.size), mode="edge") for each in least], axis=0)
        step = np.arange(1, length + 1)
        clocks = [seconds for _, seconds, _ in runs[method] if seconds.size == length]
        top.loglog(step, median, color=colour, label=method)
        clock.loglog(np.median(clocks, axis=0), median, color=colour)
    for seen, passed, _, there, *_ in watched:
        # The exponent that is nearest to the edge of stability, of stable points and saddles.
        stable, saddle = (seen[name].real for name in ("critical_eigenvalue", "saddle_eigenvalue"))
        nearest = np.where(np.abs(saddle) < np.abs(stable), saddle, stable)
        for ax, values in ((ranks, seen["effective_rank"]), (rates, nearest)):
            ax.semilogx(seen["step"] + 1, values, color="#222222", linewidth=0.7)
        if passed is not None:
            ranks.plot(passed + 1, there, "o", color="#D55E00", markersize=4)
            rates.axvline(passed + 1, color="#D55E00", linewidth=0.7)
    rates.axhline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
    top.set_title(f"cue {cue:g}, {chosen.seeds} seed{'s' if chosen.seeds > 1 else ''}")
    top.set_xlabel("step")
    clock.set_xlabel("seconds")
    for ax in (top, clock):
        ax.axhline(TOLERANCE, color="#AAAAAA", linewidth=0.8, zorder=0)
    for ax, label in zip(
        axes[:, column],
        (
            "least loss so far / first loss, median",
            "effective rank of the state kernel",
            "critical eigenvalue (1 / leak time)",
            "least loss so far / first loss, median",
        ),
        strict=True,
    ):
        ax.set_ylabel(label)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in (ranks, rates):
        ax.set_xlabel("step of gradient descent (red: the first bifurcation is passed)")
axes[0, 0].legend(framealpha=1, edgecolor="none", fontsize="small", loc="lower left")
figure.savefig(chosen.out / "student_teacher.png", dpi=130)
(chosen.out / "table.md").write_text("\n\n".join(tables) + "\n")
print(f"\nfigure and tables in {chosen.out}")
