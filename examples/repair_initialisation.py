# %% [markdown]
# # Does a repaired initialisation train better?
#
# Twelve networks that nobody picked, CTRNNs of 16 units at gain 0.95 from the keys 0 to 11, are asked `ssntk.criticality`.
# Those that it flags are trained as they are, after `ssntk.retreat` to the margin at which the verdict is regular, and after
# the trivial remedy, the gain lowered until the origin has the same margin: all by plain gradient descent on the same inputs
# and targets, at the same learning rates, for the same number of steps.
#
# The rates come from other networks: lambda is the median, over twelve networks at gain 0.5 from the keys 100 to 111, of
# the Hessian's largest eigenvalue at the start (Gauss-Newton: the kernel's over the number of rows), and the rates are 1/8,
# 1/4 and 1/2 of the limit 2 / lambda. Nothing is tuned for a pair.
#
# What is counted over all pairs, each with a two-sided sign test; "worse" was fixed before any network was trained:
#
# - worse by loss: the larger final loss, the mean over the last tenth of the steps. A run that ends above its initial loss,
#   or is stopped at 10^4 times it, counts as diverged, with an infinite final loss; two such runs are a tie and left out;
# - worse by spike: the loss passes twice its initial value at some step, and the other run's does not;
# - the larger Hessian eigenvalue at the start, which limits the learning rate.
#
# What comes out: the repair lowers the Hessian's largest eigenvalue in nearly every pair, but at rates that ordinary
# networks stand the flagged ones do not train worse. `--quick` trains few networks for few steps.

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
from matplotlib.ticker import FixedLocator, NullLocator
from scipy.optimize import brentq
from scipy.stats import binomtest

import ssntk
from ssntk.critical.flag import NEAR

UNITS, GAIN, SEEDS, REGULAR = 16, 0.95, range(12), range(100, 112)
HORIZON, STEPS, BATCH = 30.0, 200, 4
FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
TIMES = np.linspace(0.0, HORIZON, 31)
HEUN = ssntk.Integrator(diffrax.Heun(), dt=0.25)
# The extremes of what the verdict, which is about weak and slow disturbances of an equilibrium, has to say something about.
# Of each: whether inputs are held, over how many leak times the target averages them, and how strong they are.
TASKS = {"fast, strong inputs": (False, 10.0, 1.0), "held, weak inputs": (True, 3.0, 0.3)}
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
    """Of each network that is flagged its seed, the verdict, the three models and the `Retreat`; and how many were asked."""
    pairs = []
    for seed in seeds:
        model = network(seed)
        found = ssntk.criticality(model, horizon=HORIZON)
        if found.near:
            margin = NEAR / found.time_scale
            safe = ssntk.retreat(model, margin, x=found.x_star, full=True)
            pairs.append((seed, found, (model, safe.model, lower_gain(model, margin)), safe))
    return pairs


# %% The task
def task(held, memory, strength):
    """Inputs (B, T, 1), held or linear between draws a leak time apart, and targets (B, T), memory dy/dt = -y + u."""
    us = strength * np.random.default_rng(0).normal(size=(BATCH, 1 if held else len(TIMES), 1))
    us = np.broadcast_to(us, (BATCH, len(TIMES), 1))
    targets, fine = np.zeros((BATCH, len(TIMES))), 20
    for b in range(BATCH):
        t = np.linspace(0.0, HORIZON, fine * (len(TIMES) - 1) + 1)
        u, y = np.interp(t, TIMES, us[b, :, 0]), np.zeros(len(t))
        keep = np.exp(-(t[1] - t[0]) / memory)
        for k in range(len(t) - 1):
            y[k + 1] = keep * y[k] + (1 - keep) * (u[k] + u[k + 1]) / 2
        targets[b] = y[::fine]
    # Of unit mean square, so that learning rates and losses of the tasks can be compared.
    return us, targets / np.sqrt(np.mean(targets**2))


def top_hessian(model, us):
    """The largest eigenvalue of the Gauss-Newton Hessian of the loss, mean(error^2) / 2, in all that is trained."""
    kernel = np.asarray(ssntk.ntk(model, ssntk.Probe(TIMES, us), of="readout", integrator=HEUN))
    return np.linalg.eigvalsh(kernel)[-1] / len(kernel)


# %% Training
def trained(model):
    return model.weight, model.input_weight, model.bias, model.readout_weight, model.readout_bias


@eqx.filter_jit
def train(models, us, targets, rates, steps):
    """Loss curves (models, rates, steps + 1) of gradient descent on state and readout parameters, from stacked models."""

    def loss(theta, model):
        model = eqx.tree_at(trained, model, theta)
        given = jax.vmap(jax.vmap(model.readout))(ssntk.simulate(model, ssntk.Probe(TIMES, us), integrator=HEUN))
        return 0.5 * jnp.mean((given[..., 0] - targets) ** 2)

    def curve(model, rate):
        def step(carry, _):
            theta, first, stopped = carry
            now, gradient = jax.value_and_grad(loss)(theta, model)
            first = jnp.where(jnp.isnan(first), now, first)
            stopped = stopped | ~(now < 1e4 * first)
            theta = jax.tree.map(lambda leaf, g: jnp.where(stopped, leaf, leaf - rate * g), theta, gradient)
            return (theta, first, stopped), now

        begin = trained(model), jnp.asarray(jnp.nan), jnp.asarray(False)
        return jax.lax.scan(step, begin, length=steps + 1)[1]

    return eqx.filter_vmap(lambda model: jax.vmap(lambda rate: curve(model, rate))(rates))(models)


def experiment(pairs, held, memory, strength, steps=STEPS, regular=REGULAR):
    """The rates, the loss curves (pairs, kinds, rates, steps + 1) and the Hessians' largest eigenvalues (pairs, kinds)."""
    us, targets = task(held, memory, strength)
    rates = np.array(FRACTIONS) * 2 / np.median([top_hessian(network(seed, 0.5), us) for seed in regular])
    models = [model for _, _, three, _ in pairs for model in three]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *models)
    curves = np.asarray(train(stacked, us, targets, jnp.asarray(rates), steps))
    tops = np.array([top_hessian(model, us) for model in models])
    return rates, curves.reshape(len(pairs), len(KINDS), *curves.shape[1:]), tops.reshape(len(pairs), len(KINDS))


# %% Counting
def spikes(curves):
    """The largest loss over the initial one; infinite where the run was stopped on a loss that is not finite."""
    return np.nan_to_num(curves, nan=np.inf).max(axis=-1) / curves[..., 0]


def finals(curves):
    """The mean loss over the last tenth of the steps; infinite where it is above the initial loss."""
    end = np.nan_to_num(curves, nan=np.inf)[..., -max(curves.shape[-1] // 10, 1) :].mean(axis=-1)
    return np.where(end > curves[..., 0], np.inf, end)


def count(worse, better):
    """In how many pairs the first is worse, in how many the second, and the p of a two-sided sign test."""
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
    """Loss curves at the middle rate, final losses of all pairs at all rates, and the Hessians' largest eigenvalues."""
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7.5), layout="constrained")
    markers, shades, shown = dict(zip(TASKS, "os", strict=True)), ("#56B4E9", "#009E73", "#CC79A7"), 1
    for ax, (name, (_, curves, _)) in zip(axes[0], results.items(), strict=True):
        for k, kind in enumerate(list(KINDS)[:2]):
            lines = (curves[:, k, shown] / curves[:, k, shown, :1]).T
            ax.semilogy(lines, color=KINDS[kind], linewidth=0.6, alpha=0.35)
            ax.semilogy(
                np.median(lines, axis=1), color=KINDS[kind], linewidth=2, label=f"{kind}: each network, and the median"
            )
        ax.axhline(2.0, color="k", linestyle=":", linewidth=1, label="a spike is above")
        ax.set_ylim(3e-3, 2e1)
        ax.set_xlabel("gradient step")
        ax.set_ylabel("loss / initial loss")
        ax.set_title(f"{name}, rate {FRACTIONS[shown]:g} of the limit", fontsize="medium")
    left, right = axes[1]
    lost = 0
    for name, (_, curves, tops) in results.items():
        for j, shade in enumerate(shades):
            end = finals(curves[:, :, j])
            lost += np.isinf(end[:, :2]).any(axis=1).sum()
            left.loglog(end[:, 1], end[:, 0], markers[name], color=shade, markersize=5, fillstyle="none")
        right.loglog(tops[:, 1], tops[:, 0], markers[name], color="k", markersize=5, fillstyle="none", label=name)
        left.plot([], [], markers[name], color="k", markersize=5, fillstyle="none", label=name)
    for fraction, shade in zip(FRACTIONS, shades, strict=True):
        left.plot([], [], "-", color=shade, linewidth=3, label=f"rate {fraction:g} of the limit")
    left.set_title(f"final loss; a pair with a diverged run is not shown: {lost}", fontsize="medium")
    right.set_title(r"largest Hessian eigenvalue $\lambda$ at the start", fontsize="medium")
    scatters = (left, "final loss", [1e-3, 1e-2, 1e-1, 1]), (right, r"$\lambda$", [1, 2, 5, 10, 20, 50])
    for ax, what, ticks in scatters:
        ax.set(xlabel=f"{what}, repaired", ylabel=f"{what}, as it is", aspect="equal")
        low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
        ends = [min(low), max(high)]
        ax.plot(ends, ends, "k-", linewidth=0.8)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter("{x:g}")
        ax.set(xlim=ends, ylim=ends)
    for ax in axes.flat:
        ax.legend(frameon=False, fontsize="x-small", loc="lower right" if ax is right else "best")
        ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


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
