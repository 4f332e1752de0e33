# %% [markdown]
# # Does a repaired initialisation train better?
#
# Twelve CTRNNs of 16 units at gain 0.95, from the keys 0 to 11 without any selection, are judged by `ssntk.criticality`.
# Each network that is flagged is trained in three versions: as it is; after `ssntk.retreat` to the margin at which the
# verdict is regular; and after the trivial remedy, with the gain lowered until the origin has the same margin. Training is
# plain gradient descent on the same inputs and targets, at the same learning rates, for the same number of steps.
#
# The rates come from other networks: twelve networks at gain 0.5 from the keys 100 to 111. lambda is the median of their
# Hessian's largest eigenvalue at the start (Gauss-Newton: that of the kernel divided by the number of rows). The rates are
# 1/8, 1/4 and 1/2 of the limit 2 / lambda. Nothing is tuned for a pair.
#
# Three things are counted over all pairs, each with a two-sided sign test:
#
# - worse by loss: which run has the larger final loss, the mean over the last tenth of the steps. A run counts as diverged,
#   with an infinite final loss, if it ends above its initial loss, or was stopped at 10^4 times the initial loss. If both
#   runs diverge, the pair is left out;
# - worse by spike: the loss exceeds twice its initial value at some step, and that of the other run does not;
# - which network has the larger Hessian eigenvalue at the start, which limits the learning rate.
#
# The first two counts were fixed before any network was trained, for the two tasks that see one output. The third count,
# held inputs, and the task that sees every state were added afterwards, since criticality is about the kernel of the states.
# In the latter task the network follows the states of a teacher whose weights differ a little. The first two counts are made
# for three tasks at three rates each. A single count is therefore significant if p < 0.05 / 9, that is for 11 of 11 or 12 of
# 12 pairs. Twelve pairs cannot show a small difference.
#
# The result: if the states are fitted, the loss of flagged networks spikes and ends larger, at rates that ordinary networks
# tolerate; that of repaired networks does not. If one output is fitted, flagged networks do not train worse. `--quick`
# trains few networks for few steps.

# %%
import argparse
import pathlib

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest

import ssntk
from ssntk.critical.distance import NEAR

UNITS, GAIN, SEEDS, REGULAR = 16, 0.95, range(12), range(100, 112)
HORIZON, STEPS, BATCH = 30.0, 200, 4
FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
TIMES = np.linspace(0.0, HORIZON, 31)
HEUN = ssntk.Integrator(diffrax.Heun(), dt=0.25)
# For each task: whether inputs are held, over how many leak times the target averages them, and how strong they are. If the
# second is `None`, the targets are the states of a teacher.
TASKS = {
    "output, fast and strong inputs": (False, 10.0, 1.0),
    "output, held and weak inputs": (True, 3.0, 0.3),
    "states, held and weak inputs": (True, None, 0.3),
}
KINDS = {"as it is": "#D55E00", "repaired": "#0072B2", "lower gain": "#999999"}


# %% The networks
def network(seed, gain=GAIN):
    return ssntk.CTRNN(UNITS, 1, 1, gain=gain, key=jr.key(seed))


def lower_gain(model, margin):
    """The same weights at the gain at which the origin, at rest without input, has the margin."""

    def missing(gain):
        return float(ssntk.stability_radius(gain * np.asarray(model.weight) - np.eye(UNITS))[0]) - margin

    return eqx.tree_at(lambda m: m.gain, model, jnp.asarray(brentq(missing, 0.0, GAIN, xtol=1e-9)))


def flagged_pairs(seeds=SEEDS):
    """For each flagged network its seed, the verdict, the three models and the `Retreat`; and how many were judged."""
    pairs = []
    for seed in seeds:
        model = network(seed)
        found = ssntk.criticality(model, horizon=HORIZON)
        if found.near:
            margin = NEAR / found.time_scale
            safe = ssntk.retreat(model, margin, x=found.x_star, full=True)
            pairs.append((seed, found, (model, safe.model, lower_gain(model, margin)), safe))
    return pairs


# %% The tasks
def task(held, memory, strength):
    """Inputs (B, T, 1), held or linear between draws a leak time apart, and targets (B, T, 1), memory dy/dt = -y + u."""
    us = strength * np.random.default_rng(0).normal(size=(BATCH, 1 if held else len(TIMES), 1))
    us = np.broadcast_to(us, (BATCH, len(TIMES), 1))
    if memory is None:
        return us, None
    targets, fine = np.zeros((BATCH, len(TIMES), 1)), 20
    for b in range(BATCH):
        t = np.linspace(0.0, HORIZON, fine * (len(TIMES) - 1) + 1)
        u, y = np.interp(t, TIMES, us[b, :, 0]), np.zeros(len(t))
        keep = np.exp(-(t[1] - t[0]) / memory)
        for k in range(len(t) - 1):
            y[k + 1] = keep * y[k] + (1 - keep) * (u[k] + u[k + 1]) / 2
        targets[b, :, 0] = y[::fine]
    # Scale targets to unit mean square, so that learning rates and losses of the tasks can be compared.
    return us, targets / np.sqrt(np.mean(targets**2))


def dynamics(model):
    return model.weight, model.input_weight, model.bias


def everything(model):
    return *dynamics(model), model.readout_weight, model.readout_bias


def teacher(model, seed):
    """A similar network: each parameter of the dynamics is moved by 5 % of its scale."""
    keys, parts = jr.split(jr.key(1000 + seed), 3), dynamics(model)
    noise = [
        jr.normal(key, part.shape) / np.sqrt(part.shape[1] if part.ndim == 2 else 1)
        for key, part in zip(keys, parts, strict=True)
    ]
    return eqx.tree_at(dynamics, model, tuple(part + 0.05 * n for part, n in zip(parts, noise, strict=True)))


def top_hessian(model, us, of="readout"):
    """The largest eigenvalue of the Gauss-Newton Hessian of the loss, mean(error^2) / 2, over all trained parameters."""
    spectrum = ssntk.ntk_spectrum(model, ssntk.Probe(TIMES, us), of=of, k=1, integrator=HEUN, eigenvectors=False)
    return float(spectrum.eigenvalues[0]) / (BATCH * len(TIMES) * (UNITS if of == "state" else 1))


# %% Training
def seen(model, us, of):
    states = ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=HEUN)
    return states if of == "state" else jax.vmap(jax.vmap(model.readout))(states)


@eqx.filter_jit
def train(models, us, targets, rates, steps, of):
    """Loss curves (models, rates, steps + 1) of gradient descent, from stacked models and targets (models, B, T, rows)."""
    trained = dynamics if of == "state" else everything

    def loss(theta, model, target):
        return 0.5 * jnp.mean((seen(eqx.tree_at(trained, model, theta), us, of) - target) ** 2)

    def curve(model, target, rate):
        def step(carry, _):
            theta, first, stopped = carry
            now, gradient = jax.value_and_grad(loss)(theta, model, target)
            first = jnp.where(jnp.isnan(first), now, first)
            stopped = stopped | ~(now < 1e4 * first)
            theta = jax.tree.map(lambda leaf, g: jnp.where(stopped, leaf, leaf - rate * g), theta, gradient)
            return (theta, first, stopped), now

        begin = trained(model), jnp.asarray(jnp.nan), jnp.asarray(False)
        return jax.lax.scan(step, begin, length=steps + 1)[1]

    return eqx.filter_vmap(lambda model, target: jax.vmap(lambda rate: curve(model, target, rate))(rates))(models, targets)


def experiment(pairs, held, memory, strength, steps=STEPS, regular=REGULAR):
    """The rates, the loss curves (pairs, kinds, rates, steps + 1) and the Hessians' largest eigenvalues (pairs, kinds)."""
    us, targets = task(held, memory, strength)
    of = "state" if memory is None else "readout"
    rates = np.array(FRACTIONS) * 2 / np.median([top_hessian(network(seed, 0.5), us, of) for seed in regular])
    models = [model for _, _, three, _ in pairs for model in three]
    if memory is None:
        aims = jnp.stack([seen(teacher(model, seed), us, of) for seed, _, three, _ in pairs for model in three])
    else:
        aims = jnp.stack([jnp.asarray(targets)] * len(models))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *models)
    curves = np.asarray(train(stacked, us, aims, jnp.asarray(rates), steps, of))
    tops = np.array([top_hessian(model, us, of) for model in models])
    return rates, curves.reshape(len(pairs), len(KINDS), *curves.shape[1:]), tops.reshape(len(pairs), len(KINDS))


# %% Counting
def spikes(curves):
    """The largest loss divided by the initial one; infinite if the run was stopped at a loss that is not finite."""
    return np.nan_to_num(curves, nan=np.inf).max(axis=-1) / curves[..., 0]


def finals(curves):
    """The mean loss over the last tenth of the steps; infinite if it is above the initial loss."""
    end = np.nan_to_num(curves, nan=np.inf)[..., -max(curves.shape[-1] // 10, 1) :].mean(axis=-1)
    return np.where(end > curves[..., 0], np.inf, end)


def count(worse, better):
    """In how many pairs the first is worse, in how many the second, and the p value of a two-sided sign test."""
    a, b = int(np.sum(worse)), int(np.sum(better))
    return a, b, float(binomtest(a, a + b).pvalue) if a + b else 1.0


def compare(curves, first=0, second=1):
    """The counts by loss and by spike of two kinds, from curves (pairs, kinds, steps + 1)."""
    end, high = finals(curves), spikes(curves) > 2
    by_loss = count(end[:, first] > end[:, second], end[:, first] < end[:, second])
    by_spike = count(high[:, first] & ~high[:, second], high[:, second] & ~high[:, first])
    return by_loss, by_spike


# %% The figure
def draw(results, path):
    """Draw loss curves at half of the limit, and the Hessians' largest eigenvalues, spikes and final losses of all pairs."""
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 7.5), layout="constrained")
    shades, highest = ("#009E73", "#E69F00", "#CC79A7"), 1e4
    for ax, (name, (_, curves, _)) in zip(axes[0], results.items(), strict=True):
        for k, kind in enumerate(list(KINDS)[:2]):
            lines = (curves[:, k, -1] / curves[:, k, -1, :1]).T
            ax.semilogy(lines, color=KINDS[kind], linewidth=0.6, alpha=0.35)
            ax.semilogy(np.median(lines, axis=1), color=KINDS[kind], linewidth=2, label=f"{kind}: each, and the median")
        ax.axhline(2.0, color="k", linestyle=":", linewidth=1, label="a spike is above")
        ax.set(ylim=(1e-4, 1e2), xlabel="gradient step", ylabel="loss / initial loss")
        ax.set_title(f"{name}, rate {FRACTIONS[-1]:g} of the limit", fontsize="small")
    for (name, (_, curves, tops)), shade in zip(results.items(), shades, strict=True):
        first = curves[:, :2, -1, 0]
        high, end = np.minimum(spikes(curves[:, :2, -1]), highest), np.minimum(finals(curves[:, :2, -1]) / first, 1.0)
        for ax, values in zip(axes[1], (tops, high, end), strict=True):
            ax.loglog(values[:, 1], values[:, 0], "o", color=shade, markersize=5, fillstyle="none", label=name)
    whats = (
        r"largest Hessian eigenvalue $\lambda$ at the start",
        "largest loss / initial loss",
        "final loss / initial loss (1: none was gained)",
    )
    for ax, what in zip(axes[1], whats, strict=True):
        ax.set(xlabel="repaired", ylabel="as it is", aspect="equal", adjustable="datalim")
        ax.set_title(what, fontsize="medium")
        low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
        ax.plot([min(low), max(high)], [min(low), max(high)], "k-", linewidth=0.8)
    for ax in axes.flat:
        ax.legend(frameon=False, fontsize="x-small", loc="best")
        ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description="Do networks that are flagged train worse than their repaired versions?")
    parser.add_argument("--quick", action="store_true", help="two networks, few steps")
    parser.add_argument("--out", default="results", help="the folder of the figure")
    chosen = parser.parse_args()
    seeds = SEEDS[:2] if chosen.quick else SEEDS
    pairs = flagged_pairs(seeds)
    print(f"{len(pairs)} of {len(seeds)} networks are flagged:")
    for seed, found, _, safe in pairs:
        print(
            f"  key {seed:2d}: {found.verdict}, radius {found.stability_radius:.3f} -> {safe.stability_radius:.3f}", end=""
        )
        print(f", changed by {safe.distance:.2f}, gap {safe.gap:.0e}")
    results = {}
    for name, asked in TASKS.items():
        how = {"steps": 4, "regular": REGULAR[:2]} if chosen.quick else {}
        rates, curves, tops = results[name] = experiment(pairs, *asked, **how)
        a, b, p = count(tops[:, 0] > tops[:, 1], tops[:, 0] < tops[:, 1])
        print(f"{name}: the larger Hessian eigenvalue: as it is {a}, repaired {b} (p = {p:.2g})", end="")
        print(f", ratio {np.median(tops[:, 0] / tops[:, 1]):.2f} (median)")
        for j, rate in enumerate(rates):
            print(f"  rate {rate:.3f}, {FRACTIONS[j]:g} of the limit, worse:")
            for first, second in ((0, 1), (2, 1)):
                (a, b, p), (c, d, q) = compare(curves[:, :, j], first, second)
                one, other = list(KINDS)[first], list(KINDS)[second]
                print(f"    by loss: {one} {a}, {other} {b} (p = {p:.2g}); by spike: {one} {c}, {other} {d} (p = {q:.2g})")
    path = pathlib.Path(chosen.out) / "repair_initialisation.png"
    draw(results, path)
    print(path)


jax.config.update("jax_enable_x64", True)
if __name__ == "__main__":
    main()
