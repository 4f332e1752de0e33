# %% [markdown]
# # The kernel at a saddle-node
#
# The computed kernel of dx/dt = mu - x^2 is compared with the closed forms of `ssntk.laws`. At the node it grows as 1 / mu
# until the horizon limits it. In the ghost beyond the fold it is largest at the exit.

# %%
import argparse
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", default="results", help="the folder of the figure")
out = pathlib.Path(parser.parse_args().out) / "saddle_node.png"
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")

# %% Its branch
branch = ssntk.continuation(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"), (1.0, -0.2), x0=[1.0])
ssntk.plot.bifurcation_diagram(branch, left, label=r"$\mu$")

# %% On the node, at rest: T^3 g(2 sqrt(mu) T)
distances, off = np.geomspace(1e-6, 1.0, 13), []
for horizon, colour in ((10.0, "#0072B2"), (100.0, "#E69F00"), (1000.0, "#009E73")):
    ts = np.linspace(0.0, horizon, 401)
    found = [
        float(ssntk.bifurcation_channel(ssntk.normal_forms.saddle_node(mu), ssntk.Probe(ts), [mu**0.5]).top_eigenvalue)
        for mu in distances
    ]
    law = ssntk.laws.channel(1.0, -2 * np.sqrt(distances), horizon)
    # Compare only if the trapezoid rule over the save times resolves the first rise of the sensitivity.
    off.append(np.max(np.abs(found / law - 1)[2 * np.sqrt(distances) * horizon < 40]))
    middle.loglog(distances, law / horizon, color=colour, linewidth=1)
    middle.loglog(distances, np.array(found) / horizon, "o", color=colour, markersize=4, label=f"T = {horizon:g}")
middle.loglog(distances, ssntk.laws.steady_state("saddle-node", distances, "mu"), "k:", label=r"steady state, $1 / 4\mu$")
middle.set_xlabel(r"$\mu$")
middle.set_ylabel("kernel, mean over the horizon")
print(f"node: the engine is within {max(off):.2g} of the law")

# %% In the ghost: from x = 1 through the bottleneck, over the phase
for mu, colour in ((-1e-2, "#0072B2"), (-1e-4, "#009E73")):
    start = np.arctan(np.sqrt(-mu))
    phases = np.linspace(0.1 * np.pi, 0.95 * np.pi, 18)
    ts = np.append(0.0, (phases - start) / np.sqrt(-mu))
    rows = ssntk.parameter_jacobian(ssntk.normal_forms.saddle_node(mu), ssntk.Probe(ts, x0=[1.0]))
    found, law = np.square(np.asarray(rows)[0, 1:, 0, 0]), ssntk.laws.ghost(mu, phases)
    right.semilogy(phases / np.pi, -mu * law, color=colour, linewidth=1)
    right.semilogy(
        phases / np.pi,
        -mu * found,
        "o",
        color=colour,
        markersize=4,
        label=rf"$\mu$ = {mu:g}",
        fillstyle="none" if mu < -1e-3 else "full",
    )
    print(f"ghost at mu = {mu:g}: within {np.max(np.abs(found / law - 1)[8:]):.2g} of the law past the middle")
right.set_xlabel(r"phase $\sqrt{-\mu}\, t / \pi$")
right.set_ylabel(r"$|\mu|\, K$ in the ghost")

# %%
for ax in (middle, right):
    ax.legend(frameon=False, fontsize="small")
for ax in (left, middle, right):
    ax.spines[["top", "right"]].set_visible(False)
figure.suptitle("points: the kernel engine; lines: closed forms", fontsize="medium")
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=150)
print(out)
