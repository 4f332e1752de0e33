# %% [markdown]
# # Train a memory: how it is born and how it dies
#
# A CTRNN of 64 units learns the 3-bit flip-flop task (Sussillo and Barak, 2013): three inputs carry brief pulses of either
# sign, and each of three outputs holds the sign of its input's last pulse. The trained network has eight stable states, one
# for each memory, with saddles between them. They are born in the first steps of training. A monitor examines the network at
# each of these steps, and continuation along the straight line from one step to the next finds the bifurcations. A constant
# input that opposes a memory destroys it in a saddle-node. On the way there the kernel collapses to one mode.
#
# `python examples/train_flip_flop.py --steps 20 --births 0` is a quick run; the default takes about five minutes.

# %%
import argparse
import collections
import itertools
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
parser = argparse.ArgumentParser(description="Train a CTRNN on the 3-bit flip-flop task, and find where its memories die.")
parser.add_argument("--steps", type=int, default=600, help="training steps (default %(default)s)")
parser.add_argument("--seed", type=int, default=0, help="of the weights and the training data (default %(default)s)")
parser.add_argument("--weights", type=pathlib.Path, help="an .npz of trained weights to analyse instead of training")
parser.add_argument("--out", type=pathlib.Path, default="results/train_flip_flop", help="folder (default %(default)s)")
parser.add_argument(
    "--births", type=int, default=40, help="first steps through which bifurcations are followed (default %(default)s)"
)
chosen = parser.parse_args()
if chosen.births < 0:
    parser.error(f"--births must be at least 0, got {chosen.births}")
if chosen.steps < 1:
    parser.error(f"--steps must be at least 1, got {chosen.steps}")
chosen.out.mkdir(parents=True, exist_ok=True)

# %% The task. Time is in leak times. In each slot of 5 an input may have a pulse; in the first slot it always has one.
BITS, UNITS, BATCH, SLOT, HORIZON = 3, 64, 64, 5.0, 50.0
TIMES = np.linspace(0.0, HORIZON, 101)
SLOTS = int(HORIZON / SLOT)
slot = np.minimum(TIMES // SLOT, SLOTS - 1).astype(int)
phase = TIMES - slot * SLOT
pulsing, judged = (phase >= 0.5) & (phase < 2.0), phase >= 3.0


def batch(key, size=BATCH):
    """Inputs and targets, (size, times, bits) each."""
    fires, signs = jr.split(key)
    fire = jr.bernoulli(fires, 0.5, (size, SLOTS, BITS)).at[:, 0].set(True)
    sign = jnp.where(jr.bernoulli(signs, 0.5, (size, SLOTS, BITS)), 1.0, -1.0)
    last = jax.lax.cummax(jnp.where(fire, jnp.arange(SLOTS)[None, :, None], 0), axis=1)
    held = jnp.take_along_axis(sign, last, axis=1)
    return (fire * sign)[:, slot] * jnp.asarray(pulsing)[None, :, None], held[:, slot]


def outputs(model, us, integrator):
    states = ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=integrator)
    return states, jax.vmap(jax.vmap(model.readout))(states)


def squared_error(model, us, wanted, integrator):
    _, given = outputs(model, us, integrator)
    return jnp.mean((given - wanted)[:, judged] ** 2)


# %% Training, through diffrax
def train(model, steps, key):
    """`model` after `steps` of Adam on its weights and biases; the errors; and the networks that were kept, by step."""
    schedule = optax.cosine_decay_schedule(0.01, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    weights = jax.tree.map(lambda leaf: False, model)
    weights = eqx.tree_at(lambda m: m.trainable("readout"), weights, (True,) * 5)
    trained, rest = eqx.partition(model, weights)
    heun = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)

    @eqx.filter_jit
    def step(trained, state, key):
        error, gradient = jax.value_and_grad(
            lambda trained: squared_error(eqx.combine(trained, rest), *batch(key), heun),
        )(trained)
        update, state = optimiser.update(gradient, state, trained)
        return optax.apply_updates(trained, update), state, error

    state, began = optimiser.init(trained), time.perf_counter()
    # Keep some later networks too, when nothing is born any more.
    keep = {*range(chosen.births), *np.geomspace(max(chosen.births, 1), steps, 12).astype(int) - 1} if chosen.births else {}
    errors, kept = [], {}
    for number, each in enumerate(jr.split(key, steps)):
        if number in keep:
            kept[number] = eqx.combine(trained, rest)
        trained, state, error = step(trained, state, each)
        errors.append(error)
        if number % max(1, steps // 10) == 0 or number == steps - 1:
            print(f"step {number:4d}   mean squared error {error:.2e}   {time.perf_counter() - began:.0f} s", flush=True)
    return eqx.combine(trained, rest), np.array(errors), kept


# %% How the memories are born: a monitor examines the networks that were kept, and continuation leads from each to the next
def watch(kept):
    """The monitor's records, for a probe of two trials."""
    heun = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
    probe = ssntk.Probe(TIMES, batch(jr.key(2_000_000), 2)[0])
    monitor = ssntk.NTKMonitor(probe, every=1, wrt=lambda m: m.trainable("readout"), integrator=heun)
    with warnings.catch_warnings():
        # Bifurcations are expected here: do not warn.
        warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
        for step, model in kept.items():
            monitor.update(step, model)
    return monitor.arrays()


def births(kept):
    """The bifurcations between the networks that were kept, (step, kind) of each; and the fixed points of these networks."""
    found, known = [], {}
    for (before, first), (after, second) in itertools.pairwise(kept.items()):
        line = ssntk.Family.between(first, second)
        diagram = ssntk.bifurcation_diagram(line, (0.0, 1.0), n_slices=2, n_starts=512, step=0.1)
        events = [(before + (after - before) * float(event.parameter), event.kind) for event in diagram.bifurcations]
        found += events
        said = ", ".join(f"{count} {kind}" for kind, count in collections.Counter(kind for _, kind in events).items())
        ends = np.concatenate([branch.parameter[[0, -1]] for branch in diagram.branches])
        counts = [np.isclose(ends, end, atol=1e-9).sum() for end in (0.0, 1.0)]
        known |= dict(zip((before, after), counts, strict=True))
        left = "" if diagram.status == "everything that was seen was followed" else f" ({diagram.status})"
        said = f"{said or 'nothing'}{left}"
        print(f"steps {before:3d} to {after:3d}: {counts[0]:2d} fixed points become {counts[1]:2d}; {said}", flush=True)
    return found, known


def draw_births(errors, seen, found, known):
    figure, axes = plt.subplots(4, 1, figsize=(8, 10), layout="constrained", sharex=True)
    colours = {"saddle-node": "#D55E00", "pitchfork": "#0072B2", "transcritical": "#009E73", "hopf": "#CC79A7"}
    when = seen["step"] + 1
    axes[0].loglog(np.arange(1, len(errors) + 1), errors, color="#222222", linewidth=0.9)
    axes[1].semilogx(when, seen["effective_rank"], ".-", color="#222222")
    # The exponent that is nearest to the edge of stability, of stable points and saddles.
    stable, saddle = (seen[name].real for name in ("critical_eigenvalue", "saddle_eigenvalue"))
    axes[2].semilogx(when, np.where(np.abs(saddle) < np.abs(stable), saddle, stable), ".-", color="#222222")
    axes[2].axhline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
    axes[3].semilogx(when, seen["n_fixed_points"], ".-", color="#222222", label="known to the monitor")
    axes[3].semilogx(when, seen["n_stable"], ".-", color="#E69F00", label="of these stable")
    after = np.array(list(known)) + 1
    axes[3].semilogx(after, list(known.values()), "o", color="#222222", fillstyle="none", label="known to the continuation")
    for ax in axes:
        for step, kind in found:
            ax.axvline(step + 1, color=colours[kind], linewidth=0.7, alpha=0.6, zorder=0)
    for kind in sorted({kind for _, kind in found}):
        axes[3].plot([], [], color=colours[kind], linewidth=0.7, label=f"{kind} found by continuation")
    axes[3].legend(frameon=False, fontsize="small")
    axes[3].set_xlabel("training step, from 1")
    texts = (
        "mean squared error",
        "effective rank of the kernel",
        "critical eigenvalue (1 / leak time)",
        "known fixed points",
    )
    for ax, text in zip(axes, texts, strict=True):
        ax.set_ylabel(text)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(chosen.out / "births.png", dpi=130)
    print(f"figure in {chosen.out / 'births.png'}")


NAMES = ("weight", "input_weight", "bias", "readout_weight", "readout_bias", "gain", "tau")
if chosen.weights is None:
    model_key, data_key = jr.split(jr.key(chosen.seed))
    model, errors, kept = train(ssntk.CTRNN(UNITS, BITS, BITS, gain=0.8, key=model_key), chosen.steps, data_key)
    np.savez(chosen.out / "weights.npz", **{name: np.asarray(getattr(model, name)) for name in NAMES})
    print(f"weights in {chosen.out / 'weights.npz'}")
    if len(kept) > 1:
        draw_births(errors, watch(kept), *births(kept))
else:
    model = ssntk.CTRNN.from_weights(**np.load(chosen.weights))

us, wanted = batch(jr.key(1_000_000), 256)
states, given = outputs(model, us, ssntk.Integrator(rtol=1e-6, atol=1e-8))
right = jnp.mean((given * wanted > 0)[:, judged])
print(f"on 256 new trials: mean squared error {jnp.mean((given - wanted)[:, judged] ** 2):.2e}, {right:.2%} of signs right")

# %% The fixed points at zero input, from random starts
points = ssntk.find_fixed_points(model, n_starts=512)
unstable = (points.eigenvalues.real >= 0).sum(axis=1)
readouts = np.asarray(jax.vmap(model.readout)(jnp.asarray(points.x)))
print(f"{len(points)} fixed points: " + ", ".join(f"{(unstable == k).sum()} with {k} unstable" for k in np.unique(unstable)))

# %% Each memory under a growing first input that opposes it, followed to the saddle-node and measured on the way
family = ssntk.Family.input(model, np.eye(BITS)[0])
probe = ssntk.Probe(np.linspace(0.0, 100.0, 5))
distances = np.geomspace(1e-2, 1e-7, 11)
deaths, stores = [], []
for x, readout in zip(points.x[points.stable], readouts[points.stable], strict=True):
    name = "".join("+" if bit > 0 else "-" for bit in readout)
    # From a small input that supports the memory to one that destroys it.
    span = (0.05 * np.sign(readout[0]), -2.0 * np.sign(readout[0]))
    sweep = ssntk.Sweep(family, towards="saddle-node", span=span, distances=distances, probe=probe, x0=x, step=0.01)
    try:
        # The folder's name contains the plan's hash, so that records of several networks can be kept.
        store = ssntk.run(sweep, ssntk.Store(chosen.out / f"memory{name}-{sweep.hash()}"), progress=False)
    except ssntk.NumericalError as error:
        print(f"state {name}: {error}")
        continue
    data, death = store.arrays(), store.bifurcation()
    near = (data["distance"] < 2e-4) & (data["status"] == "done")
    slope = np.polyfit(np.log(data["distance"][near]), np.log(data["steady_state_eigenvalues"][near, 0]), 1)[0]
    print(
        f"memory {name} dies at a first input of {death.parameter:+.6f}; kernel ~ distance^{slope:.4f}, "
        f"{data['participation_ratio'][-1]:.2f} modes at distance 1e-2 and {data['participation_ratio'][0]:.4f} at 1e-7"
    )
    deaths.append((name, store.branch(), death))
    stores.append(data)

# %% The figure: trajectories and fixed points in the plane of their first principal components, and the deaths
figure, axes = plt.subplots(2, 2, figsize=(11, 9.5), layout="constrained")
centre = np.asarray(states).reshape(-1, UNITS).mean(axis=0)
axis = np.linalg.svd(np.asarray(states)[:32].reshape(-1, UNITS) - centre, full_matrices=False)[2][:3]
for ax, (across, up) in zip(axes[0], ((0, 1), (0, 2)), strict=True):
    for path in np.asarray(states)[:32]:
        ax.plot(*((path - centre) @ axis[[across, up]].T).T, color="#BBBBBB", linewidth=0.5, zorder=1)
    ax.plot([], [], color="#BBBBBB", linewidth=0.8, label="trajectories")
    for count, marker, colour in ((0, "o", "#0072B2"), (1, "^", "#D55E00"), (2, "s", "#E69F00"), (3, "D", "#CC79A7")):
        of_kind = points.x[unstable == count] if count < 3 else points.x[unstable >= 3]
        if len(of_kind):
            label = "memories (stable)" if count == 0 else f"saddles, {count}{'' if count < 3 else ' or more'} unstable"
            ax.scatter(*((of_kind - centre) @ axis[[across, up]].T).T, marker=marker, c=colour, s=36, label=label, zorder=3)
    ax.set_xlabel(f"principal component {across + 1} (state units)")
    ax.set_ylabel(f"principal component {up + 1} (state units)")
low, high = axes[0, 0].get_ylim()
axes[0, 0].set_ylim(low, high + 0.35 * (high - low))
axes[0, 0].legend(frameon=False, fontsize="small", loc="upper left", ncols=2)

colours = itertools.cycle(["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#222222", "#999999"])
for (name, branch, death), data, colour in zip(deaths, stores, colours, strict=False):
    # Draw the branch up to the first saddle-node only.
    ends = branch.steps[[event.parameter for event in branch.bifurcations].index(death.parameter)] + 1
    height = np.asarray(jax.vmap(model.readout)(jnp.asarray(np.vstack([branch.x[:ends], death.x]))))[:, 0]
    axes[1, 0].plot(np.append(branch.parameter[:ends], death.parameter), height, color=colour, label=name)
    axes[1, 0].plot(death.parameter, height[-1], "s", color=colour, markersize=5)
    axes[1, 1].loglog(data["distance"], data["steady_state_eigenvalues"][:, 0], ".-", color=colour, label=name)
axes[1, 0].axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
axes[1, 0].set_xlabel("constant first input")
axes[1, 0].set_ylabel("first output along the memory, to its death")
axes[1, 1].set_xlabel("distance from the death (input units)")
axes[1, 1].set_ylabel("largest eigenvalue of the steady-state NTK")
axes[1, 1].invert_xaxis()
if deaths:
    top = max(data["steady_state_eigenvalues"][0, 0] for data in stores)
    axes[1, 1].loglog(distances, 4 * top * distances[-1] / distances, ":", color="black", label="slope -1 (shifted up)")
    for ax in axes[1]:
        ax.legend(frameon=False, fontsize="small", ncols=2, title="memory", title_fontsize="small")
for ax in axes.ravel():
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(chosen.out / "flip_flop.png", dpi=150)
print(f"figure in {chosen.out / 'flip_flop.png'}")
