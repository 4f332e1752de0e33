# %% [markdown]
# # Two tasks in one network: which one does a bifurcation disturb?
#
# A network of 24 units learns two tasks at once, each with its own input and output: a memory (hold the sign of a cue) and a
# leaky integration of a random input. The memory needs a bifurcation, the integration does not. At that bifurcation the
# kernel grows along one direction, which both tasks share. How does training on the memory alone then change the loss of the
# other task?
#
# To first order, a step of rate eta on the memory's loss A changes the integration's loss B by `-eta gA . gB`. This is the
# product of the residuals of both tasks with the cross-kernel between them. The collapsed channel v is the first direction
# of theta, either of the joint kernel or of the memory's own. Its part of the change is `-eta (gA . v)(v . gB)`. Does this
# one number predict whether B rises, and is the prediction better near the bifurcation? Random networks are trained by Adam
# on both tasks. Gradient descent on A alone starts from many of the networks on the way.
# `python examples/multitask_interference.py --seeds 1 --records 8` is a quick run; the default takes five minutes.

# %%
import argparse
import pathlib
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
parser = argparse.ArgumentParser(description="Train a memory and an integration together, and measure their interference.")
parser.add_argument("--seeds", type=int, default=20, help="networks (default %(default)s)")
parser.add_argument("--steps", type=int, default=600, help="training steps (default %(default)s)")
parser.add_argument("--records", type=int, default=60, help="networks on the way that are examined (default %(default)s)")
parser.add_argument("--out", type=pathlib.Path, default="results/multitask_interference", help="default %(default)s")
chosen = parser.parse_args()
for name in ("seeds", "steps", "records"):
    if getattr(chosen, name) < 1:
        parser.error(f"--{name} must be at least 1, got {getattr(chosen, name)}")
chosen.out.mkdir(parents=True, exist_ok=True)

# %% The tasks: six trials of each over 12 leak times. In a trial only the output of its own task counts, after some time.
UNITS, TRIALS, TIMES, RATE, ALONE = 24, 6, np.linspace(0.0, 12.0, 25), 3e-4, 20
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
MEMORY, INTEGRATION = 0, 1
MASK = np.zeros((2 * TRIALS, TIMES.size, 2), bool)
MASK[:TRIALS, TIMES >= 2, MEMORY] = MASK[TRIALS:, TIMES >= 2, INTEGRATION] = True


def theta(model):
    return model.weight, model.input_weight, model.bias, model.readout_weight


def problem(seed):
    """(network, inputs, targets) of a seed; the trials of the memory come first."""
    network, start, signal = jr.split(jr.key(seed), 3)
    model = ssntk.CTRNN(UNITS, 2, 2, key=network)
    weight = np.asarray(jr.normal(start, (UNITS, UNITS)))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(0.85 * weight / np.linalg.eigvals(weight).real.max()))
    us, wanted = np.zeros((2, *MASK.shape))
    cue = np.linspace(-1.0, 1.0, TRIALS)
    us[:TRIALS, TIMES < 1, MEMORY], wanted[:TRIALS, :, MEMORY] = cue[:, None], np.sign(cue)[:, None]
    # Each value is held for two save times. The integration forgets its input within five leak times.
    us[TRIALS:, :, INTEGRATION] = np.repeat(np.asarray(jr.normal(signal, (TRIALS, TIMES.size // 2 + 1))), 2, 1)[
        :, : TIMES.size
    ]
    fade = np.exp(-(TIMES[1] - TIMES[0]) / 5.0)
    for i in range(1, TIMES.size):
        mean = us[TRIALS:, i - 1 : i + 1, INTEGRATION].mean(axis=1)
        wanted[TRIALS:, i, INTEGRATION] = fade * wanted[TRIALS:, i - 1, INTEGRATION] + (1 - fade) * mean
    return model, jnp.asarray(us), jnp.asarray(wanted)


# %% The losses, and training on their sum
def losses(moving, model, us, wanted):
    """(loss of the memory, loss of the integration): half the mean square of the residuals that count."""
    model = eqx.tree_at(theta, model, moving)
    states = ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=HEUN, adjoint=diffrax.DirectAdjoint())
    square = jnp.where(MASK, jax.vmap(jax.vmap(model.readout))(states) - wanted, 0.0) ** 2 / 2
    return square[:TRIALS].sum() / MASK[:TRIALS].sum(), square[TRIALS:].sum() / MASK[TRIALS:].sum()


@eqx.filter_jit
def train(model, us, wanted):
    """theta before each step of Adam on the sum of both losses, and the losses there."""
    optimiser = optax.adam(RATE)

    def step(carry, _):
        moving, state = carry
        both, pull = jax.vjp(lambda moving: jnp.stack(losses(moving, model, us, wanted)), moving)
        update, state = optimiser.update(pull(jnp.ones(2))[0], state)
        return (optax.apply_updates(moving, update), state), (moving, both)

    moving = theta(model)
    return jax.lax.scan(step, (moving, optimiser.init(moving)), length=chosen.steps)[1]


@eqx.filter_jit
def alone(model, us, wanted, moving, rate):
    """Both gradients, and the change of the integration's loss by 1 and by ALONE steps on the memory's loss alone."""
    gradients = jax.jacrev(lambda moving: jnp.stack(losses(moving, model, us, wanted)))(moving)
    of_memory = jax.grad(lambda moving: losses(moving, model, us, wanted)[0])

    def step(moving, _):
        moving = jax.tree.map(lambda leaf, slope: leaf - rate * slope, moving, of_memory(moving))
        return moving, losses(moving, model, us, wanted)[1]

    _, after = jax.lax.scan(step, moving, length=ALONE)
    both = jax.vmap(lambda *leaves: jnp.concatenate([leaf.ravel() for leaf in leaves]))(*gradients)
    return both, after[jnp.array([0, -1])] - losses(moving, model, us, wanted)[1]


# %% Predicted and actual changes
# The prediction uses the whole cross-kernel, or the first one, three or ten directions of the joint kernel.
TOP = (1, 3, 10)
PREDICTIONS = {
    "cross-kernel": "whole",
    "first direction of both tasks": "top1",
    "first direction of the memory": "memory",
    **{f"first {count} directions of both": f"top{count}" for count in TOP[1:]},
}


def examine(seed):
    """Arrays over the records of a seed, and the losses of each step."""
    model, us, wanted = problem(seed)
    visited, both = train(model, us, wanted)
    probe = ssntk.Probe(TIMES, us, mask=MASK)
    monitor = ssntk.NTKMonitor(probe, every=1, of="readout", wrt=theta, integrator=HEUN, n_starts=32)
    # Records are closer together at the beginning, when the bifurcation is passed.
    steps = np.unique(np.linspace(0, np.sqrt(chosen.steps - 1), chosen.records).round(6) ** 2 // 1).astype(int)
    predicted, happened, shares = [], [], []
    for step in steps:
        moving = tuple(leaf[step] for leaf in visited)
        now = eqx.tree_at(theta, model, moving)
        with warnings.catch_warnings():
            # Every network comes near its bifurcation, on purpose: do not warn.
            warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
            monitor.update(int(step), now)
        rows = np.asarray(ssntk.parameter_jacobian(now, probe, of="readout", wrt=theta, integrator=HEUN))
        rows = rows.reshape(-1, rows.shape[-1])
        _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
        _, own, of_memory = np.linalg.svd(rows[: len(rows) // 2], full_matrices=False)
        # A tenth of the rate at which the steepest direction of the memory's loss is no longer stable.
        rate = 0.2 * MASK[:TRIALS].sum() / own[0] ** 2
        gradients, change = map(np.asarray, alone(model, us, wanted, moving, jnp.asarray(rate)))
        along = np.cumsum((gradients[0] @ directions.T) * (directions @ gradients[1]))
        in_memory = np.prod(gradients @ of_memory[0])
        predicted.append(-rate * np.array([gradients[0] @ gradients[1], in_memory, *along[np.array(TOP) - 1]]))
        happened.append(change)
        shares.append([sizes[0] ** 2 / np.sum(sizes**2), own[0] ** 2 / np.sum(own**2), abs(directions[0] @ of_memory[0])])
    seen = monitor.arrays()
    # The exponent that is nearest to the edge of stability, of stable points and saddles.
    stable, saddle = (seen[name].real for name in ("critical_eigenvalue", "saddle_eigenvalue"))
    return {
        "step": steps,
        **dict(zip(("whole", "memory", *(f"top{count}" for count in TOP)), np.array(predicted).T, strict=True)),
        "one": np.array(happened)[:, 0],
        "many": np.array(happened)[:, 1],
        "shares": np.array(shares),
        "eigenvalue": np.where(np.abs(saddle) < np.abs(stable), saddle, stable),
        "born": (seen["n_fixed_points"] > 1) | (seen["n_stable"] == 0),
        "losses": np.asarray(both),
    }


# %% How often the predicted sign is right. Rises and falls of the loss have equal weight, although most changes are rises.
def alike(pairs):
    """The share of right signs, from a pair of arrays over records for each network: whether the loss rose, and whether this
    was predicted."""
    harm, given = map(np.concatenate, zip(*pairs, strict=True))
    return np.mean([np.mean(given[harm == sign] == sign) if (harm == sign).any() else np.nan for sign in (True, False)])


def signs(found, actual, prediction, which):
    """The share of right signs, with its standard error over networks by the bootstrap."""
    pairs = [(each[actual][w] > 0, each[prediction][w] > 0) for each, w in zip(found, which, strict=True) if w.any()]
    if not pairs or np.isnan(alike(pairs)):
        return "of one sign only"
    again = np.random.default_rng(0).integers(len(pairs), size=(400, len(pairs)))
    return f"{alike(pairs):.0%} ± {np.nanstd([alike([pairs[i] for i in chosen]) for chosen in again]):.0%}"


found = []
for seed in range(chosen.seeds):
    each = examine(seed)
    found.append(each)
    first, last = each["losses"][[0, -1]]
    born = each["step"][each["born"]]
    rise = np.max(each["losses"][:, 1] / np.minimum.accumulate(each["losses"][:, 1]))
    print(
        f"seed {seed}: memory's loss {first[0]:.2f} to {last[0]:.1e}, integration's {first[1]:.2f} to {last[1]:.1e}, "
        f"which rose by {rise - 1:.0%} on the way; bifurcation {f'by step {born[0]}' if born.size else 'not passed'}",
        flush=True,
    )
# A record counts as near the first bifurcation, that of the memory, until twice the step at which it is passed, and while
# the critical mode decays or grows by less than a factor of e within a trial.
near = []
for each in found:
    until = 2 * each["step"][each["born"]][0] if each["born"].any() else -1
    near.append((np.abs(each["eigenvalue"]) * TIMES[-1] < 1) & (each["step"] <= until))
away = [~which for which in near]
print(f"\nsigns right, harm and help weighed alike ({ALONE} steps on the memory alone, and one)\n")
print("| the sign by | 20 steps, near | 20 steps, away | one step, near | one step, away | size, near |")
print("|---|---|---|---|---|---|")
for name, prediction in PREDICTIONS.items():
    ratio = np.concatenate([(each[prediction] / each["whole"])[w] for each, w in zip(found, near, strict=True)])
    size = "{1:.2g} ({0:.2g} to {2:.2g})".format(*np.percentile(ratio, [25, 50, 75])) if ratio.size else ""
    cells = [signs(found, actual, prediction, which) for actual in ("many", "one") for which in (near, away)]
    print(f"| {name} | {' | '.join(cells)} | {size} |")
for name, which in (("near", near), ("away", away)):
    if not any(w.any() for w in which):
        continue
    shares = np.concatenate([each["shares"][w] for each, w in zip(found, which, strict=True)])
    harm = [np.concatenate([each[a][w] > 0 for each, w in zip(found, which, strict=True)]).mean() for a in ("many", "one")]
    both, own, cosine = np.median(shares, axis=0)
    print(
        f"{name}: {len(shares)} records of {sum(w.any() for w in which)} networks; harm in {harm[0]:.0%} and {harm[1]:.0%}; "
        f"medians: the first direction has {both:.0%} of the joint kernel and {own:.0%} of the memory's, cosine of the two "
        f"{cosine:.2f}"
    )

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
MEMORY_COLOUR, OTHER_COLOUR, NEAR, AWAY = "#0072B2", "#E69F00", "#D55E00", "#AAAAAA"
for each in found:
    born = np.flatnonzero(each["born"])[:1]
    when = each["step"][born]
    for which, colour in ((MEMORY, MEMORY_COLOUR), (INTEGRATION, OTHER_COLOUR)):
        axes[0, 0].semilogy(each["losses"][:, which], color=colour, linewidth=0.8, alpha=0.8)
        axes[0, 0].plot(when, each["losses"][when, which], "o", color=NEAR, markersize=4, zorder=3)
    relative = each["many"] / each["losses"][each["step"], 1]
    axes[0, 1].plot(each["step"], relative, color="#222222", linewidth=0.7, alpha=0.7)
    axes[0, 1].plot(when, relative[born], "o", color=NEAR, markersize=4, zorder=3)
axes[0, 0].plot([], [], color=MEMORY_COLOUR, label="memory")
axes[0, 0].plot([], [], color=OTHER_COLOUR, label="integration")
axes[0, 0].plot([], [], "o", color=NEAR, markersize=4, label="bifurcation passed")
axes[0, 0].legend(frameon=False, fontsize="small")
axes[0, 0].set_ylabel("loss")
axes[0, 1].set_ylabel(f"relative change of the integration's loss\nby {ALONE} steps on the memory alone")
axes[0, 1].axhline(0, color=AWAY, linewidth=0.8, zorder=0)
axes[0, 1].set_yscale("symlog", linthresh=0.1)
for ax in axes[0]:
    ax.set_xlabel("step of Adam on both tasks")
TICKS = [-1e-1, -1e-3, 0, 1e-3, 1e-1]
for ax, prediction, text in (
    (axes[1, 0], "whole", "cross-kernel, to first order"),
    (axes[1, 1], "top1", "its part in the first direction"),
):
    for which, colour, label in ((away, AWAY, "away"), (near, NEAR, "near a bifurcation")):
        x = np.concatenate([ALONE * each[prediction][w] for each, w in zip(found, which, strict=True)])
        y = np.concatenate([each["many"][w] for each, w in zip(found, which, strict=True)])
        ax.plot(x, y, ".", color=colour, markersize=4, label=label)
    ax.set_xscale("symlog", linthresh=1e-5, linscale=0.5)
    ax.set_yscale("symlog", linthresh=1e-5, linscale=0.5)
    ax.set_xticks(TICKS)
    ax.set_yticks(TICKS)
    ax.minorticks_off()
    ax.axhline(0, color=AWAY, linewidth=0.8, zorder=0)
    ax.axvline(0, color=AWAY, linewidth=0.8, zorder=0)
    ax.set_xlabel(f"predicted change: {text}")
    ax.set_ylabel("change of the integration's loss")
axes[1, 0].legend(frameon=False, fontsize="small", loc="lower right")
for ax in axes.ravel():
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(chosen.out / "multitask_interference.png", dpi=130)
print(f"figure in {chosen.out / 'multitask_interference.png'}")
