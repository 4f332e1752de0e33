# %% [markdown]
# # What is expected of a random network
#
# Random CTRNNs of 64 units at rest and under two inputs, six at each gain. Points are single networks. Lines are what
# theory expects without any network: `ssntk.infinite` for the stability radius and the steady-state kernel at rest,
# `ssntk.mean_field` for the largest stable learning rate on trajectories. The radius and the kernel at rest shrink long
# before the gain of 1 at which a random network loses its stability. The rate for one output hardly changes: it sees
# little of the slow modes.

# %%
import argparse
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/random_networks.png"))
out = parser.parse_args().out
UNITS, NETWORKS = 64, 6
GAINS = np.array([0.2, 0.35, 0.5, 0.65, 0.8, 0.9])
fine = np.linspace(0.15, 0.97, 83)

# %% Networks: their radius and kernel at rest, and the kernel of their output along two trajectories
times = np.linspace(0.0, 5.0, 11)
inputs = np.stack([np.cos(times), np.ones_like(times)])[..., None]
probe = ssntk.Probe(times, inputs)


def network(gain, seed):
    return ssntk.CTRNN(UNITS, 1, 1, gain=gain, key=jax.random.key(seed))


def measured(gain, seed):
    model, rest = network(gain, seed), np.zeros(UNITS)
    radius, _ = ssntk.stability_radius(gain * model.weight - np.eye(UNITS))
    kernel = ssntk.Spectrum.from_kernel(ssntk.steady_state_ntk(model, rest, wrt=lambda m: m.bias))
    top = ssntk.ntk_spectrum(model, probe, of="readout", k=1, eigenvectors=False).eigenvalues[0]
    return float(radius), float(kernel.participation_ratio), float(2 / top)


found = np.array([[measured(gain, seed) for seed in range(NETWORKS)] for gain in GAINS])
radii, ratios, rates = np.moveaxis(found, -1, 0)

# %% What is expected of them
expected = [ssntk.mean_field(network(gain, 0), probe, of="readout").spectrum() for gain in GAINS]
expected_rates = np.array([2 / spectrum.eigenvalues[0] for spectrum in expected])
law = ssntk.infinite.stability_radius(GAINS, UNITS)
for at, gain in enumerate(GAINS):
    radius, ratio, rate = np.median(found[at], axis=0)
    of_ratio = UNITS * ssntk.infinite.participation_ratio(gain)
    print(f"gain {gain:.2f}: radius {radius:.3f} (expected {law[at]:.3f}),", end=" ")
    print(f"participation ratio {ratio:.1f} ({of_ratio:.1f}), largest stable rate {rate:.4f} ({expected_rates[at]:.4f})")

# %%
with ssntk.plot.style("paper", height=150.0):
    figure, panels = plt.subplots(3, 1, sharex=True, layout="constrained")
    dots = {"color": "#0072B2", "marker": "o", "linestyle": "none", "markersize": 3}
    labels = "stability radius (1/τ)", "participation ratio\nat rest", "largest stable\nlearning rate"
    for ax, values, label in zip(panels, (radii, ratios, rates), labels, strict=True):
        ax.plot(GAINS, values, **dots)
        ax.set_ylabel(label)
    above, middle, below = panels
    above.plot(fine, ssntk.infinite.stability_radius(fine, UNITS), color="black", label=f"median of n = {UNITS}")
    above.plot(fine, ssntk.infinite.stability_radius(fine), "--", color="black", label="n → ∞")
    above.plot(fine, 1 - fine, ":", color="black", label="1 - gain")
    for level in (0.33, 0.1):
        above.axhline(level, color="0.7", linewidth=0.6, zorder=0)
    above.set_ylim(0, 1)
    middle.plot(fine, UNITS * ssntk.infinite.participation_ratio(fine), color="black", label="law")
    below.plot(GAINS, expected_rates, "-", color="black", label="mean field")
    below.set_ylim(0, None)
    below.set_xlabel("gain")
    for ax in panels:
        ax.plot([], [], **dots, label="networks")
        ax.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
print(out)
