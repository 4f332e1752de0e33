# %% [markdown]
# # Does the kernel collapse at every bifurcation, and to how many modes?
#
# The claims of Hazelden and Shea-Brown (arXiv:2605.12763) are tested on random recurrent networks: rank one at folds,
# transcriticals, pitchforks and flips, rank two at Hopf and Neimark-Sacker points. Each network is put at three distances
# from its bifurcation. Its kernel is compared with the prediction from the critical mode alone. The networks are not
# selected: the seeds are 0, 1, 2 and so on, without those whose state loses its stability in another way. A transcritical at
# x = 0 has the same linearisation as a pitchfork, so that one row stands for both.

# %%
import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", default="results", help="the folder of the figure")
parser.add_argument("--units", type=int, default=32, help="n")
parser.add_argument("--seeds", type=int, default=10, help="networks of each kind")
arguments = parser.parse_args()
N, DT = arguments.units, 1.0
DISTANCES = (1e-1, 1e-2, 1e-3)


# %% At the fixed point x = 0 the Jacobian is gain W - 1, which determines the gain at which stability is lost
def linear(kind, seed):
    """(W, critical gain, critical frequency) of a random network that loses its stability in this way, or None."""
    weight = np.asarray(jr.normal(jr.key(seed), (N, N))) / N**0.5
    if kind in ("pitchfork", "hopf"):
        values = np.linalg.eigvals(weight)
        top = values[np.argmax(values.real)]
        right = (top.imag != 0) == (kind == "hopf")
        return (weight, 1 / top.real, abs(top.imag) / top.real) if right and top.real > 0 else None
    # The map x -> gain W tanh(x): the multipliers are those of gain W. A flip needs a negative one outermost.
    values = np.linalg.eigvals(weight if kind == "neimark-sacker" else weight - 0.6 * np.eye(N))
    top = values[np.argmax(np.abs(values))]
    if kind == "flip":
        weight = weight - 0.6 * np.eye(N)
    right = (top.imag != 0 and abs(np.angle(top)) < 3) if kind == "neimark-sacker" else (top.imag == 0 and top.real < 0)
    return (weight, 1 / abs(top), abs(np.angle(top))) if right else None


def at_rest(kind, seed):
    """A function from distance to (model, probe, wrt) for a network at x = 0, or None."""
    found = linear(kind, seed)
    if found is None:
        return None
    weight, critical, frequency = found
    discrete = kind in ("flip", "neimark-sacker")
    # Inputs at the critical frequency, weak enough for a linear response. There are none if the frequency is zero.
    direction = np.asarray(jr.normal(jr.key(seed + 10_000), (N, 1)))
    us = None if frequency == 0 else ssntk.Sinusoid([[1e-6]], frequency, np.pi / 2)
    ts = np.arange(0.0, 601.0, 3.0) if discrete else np.linspace(0.0, 600.0, 151)

    def at(distance):
        model = ssntk.CTRNN.from_weights(weight, direction, gain=critical * (1 - distance))
        # An oscillation drives the recurrent weights, a constant drives the biases.
        wrt = (lambda m: m.bias) if frequency == 0 else (lambda m: m.weight)
        return ssntk.EulerMap(model, DT) if discrete else model, ssntk.Probe(ts, us, jnp.zeros(N)), jnp.zeros(N), wrt

    return at


def at_a_fold(seed):
    """The same for a fold of a network under a constant input, which drives all biases and weights."""
    family = ssntk.Family.input(ssntk.CTRNN(N, 1, 1, gain=1.5, key=jr.key(seed)), [1.0])
    probe = ssntk.Probe(np.linspace(0.0, 600.0, 61))
    sweep = ssntk.Sweep(family, towards="saddle-node", span=(-4.0, 4.0), distances=DISTANCES, probe=probe)
    try:
        side = sweep.side(sweep.follow())
        side.at_distance(max(DISTANCES))
    except ssntk.NumericalError:
        return None

    def at(distance):
        parameter, x = side.at_distance(distance)
        placed = eqx.tree_at(lambda p: p.x0, probe, jnp.asarray(x), is_leaf=lambda leaf: leaf is None)
        return sweep.model_at(parameter), placed, x, None

    return at


# %% Measured and predicted, side by side
KINDS = ("saddle-node", "pitchfork", "flip", "hopf", "neimark-sacker")
RANK = dict.fromkeys(KINDS[:3], 1) | dict.fromkeys(KINDS[3:], 2)
table = {}
for kind in KINDS:
    rows, seed = [], 0
    while len(rows) < arguments.seeds and seed < 1000:
        at = at_a_fold(seed) if kind == "saddle-node" else at_rest(kind, seed)
        seed += 1
        if at is None:
            continue
        row = []
        for distance in DISTANCES:
            model, probe, x, wrt = at(distance)
            integrator = None if isinstance(model, ssntk.EulerMap) else ssntk.Integrator(dt=0.5)
            how = {"wrt": wrt, "integrator": integrator}
            u = [0.0] if model.n_input else None
            # At a fold the critical mode is the one whose eigenvalue goes to zero, which need not be the fastest growing
            # one.
            near = 0.0 if kind == "saddle-node" else None
            channel = ssntk.bifurcation_channel(model, probe, x, u=u, eigenvalues=near, throw=False, **how)
            spectrum = ssntk.ntk_spectrum(model, probe, weights="trapezoid", k=4, memory=4e9, exact=True, **how)
            row.append(
                (
                    float(spectrum.share(RANK[kind])),
                    float(spectrum.participation_ratio),
                    channel.share,
                    channel.predicted_top_eigenvalue / channel.top_eigenvalue,
                    channel.alignment,
                )
            )
        rows.append(row)
    table[kind] = np.array(rows)
    last = table[kind][:, -1]
    share, ratio, part, law, alignment = np.median(last, axis=0)
    print(f"{kind}, {len(rows)} networks of {N} units, {DISTANCES[-1]:g} from it (medians):")
    print(
        f"  the top {RANK[kind]} of the kernel hold {share:.4f} of its trace (worst {last[:, 0].min():.4f}), PR {ratio:.3f}"
    )
    print(f"  the critical mode's share {part:.4f}, its law / measured {law:.4f}, alignment {alignment:.5f}")

# %% Not every kernel collapses at every bifurcation
for kind, block in (("hopf", "bias"), ("hopf", "weight"), ("pitchfork", "weight"), ("pitchfork", "bias")):
    grown, seed = [], 0
    while len(grown) < arguments.seeds and seed < 1000:
        at = at_rest(kind, seed)
        seed += 1
        if at is None:
            continue
        tops = []
        for distance in (DISTANCES[0], DISTANCES[-1]):
            model, probe, _, _ = at(distance)
            how = {"wrt": lambda m, block=block: getattr(m, block), "integrator": ssntk.Integrator(dt=0.5)}
            try:
                spectrum = ssntk.ntk_spectrum(model, probe, weights="trapezoid", k=1, memory=4e9, exact=True, **how)
                tops.append(float(spectrum.eigenvalues[0]))
            except ssntk.NumericalError:
                # A kernel that is zero has no spectrum.
                tops.append(0.0)
        grown.append(tops[1] / tops[0] if tops[0] > 0 else 0.0)
    said = (
        f"grows {np.median(grown):.3g} times ({min(grown):.3g} to {max(grown):.3g})"
        if max(grown)
        else "is zero at any distance"
    )
    print(f"{kind}: from {DISTANCES[0]:g} to {DISTANCES[-1]:g} the kernel of the {block} {said}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharex=True)
for i, kind in enumerate(KINDS):
    style = {"marker": "os^DP"[i], "label": f"{kind} (rank {RANK[kind]})", "capsize": 2, "linewidth": 1}
    for ax, column in zip(axes, (0, 1), strict=True):
        values = table[kind][:, :, column]
        values = 1 - values if column == 0 else values
        low, middle, high = np.percentile(values, [10, 50, 90], axis=0)
        offset = np.asarray(DISTANCES) * 1.06 ** (i - 2)
        ax.errorbar(offset, middle, np.maximum([middle - low, high - middle], 0), **style)
axes[0].set_yscale("log")
axes[0].set_ylabel("1 $-$ share of the top one or two modes")
axes[1].axhline(1, color="#BBBBBB", linewidth=0.8, zorder=0)
axes[1].axhline(2, color="#BBBBBB", linewidth=0.8, zorder=0)
axes[1].set_ylabel("participation ratio")
axes[0].legend(frameon=False, fontsize="small")
# The axis is shared: towards the bifurcation, to the right.
axes[0].invert_xaxis()
for ax in axes:
    ax.set_xscale("log")
    ax.set_xlabel("relative distance from the bifurcation")
    ax.spines[["top", "right"]].set_visible(False)
out = pathlib.Path(arguments.out) / "reproduce_collapse.png"
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=110)
print(out)
