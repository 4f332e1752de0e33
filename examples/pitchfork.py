# %% [markdown]
# # The kernel at a pitchfork
#
# The computed kernel of dx/dt = mu x - x^3 + h is compared with the closed forms of `ssntk.laws`. The kernel of the bias h
# grows as 1 / mu^2 on both sides. That of mu is zero on the symmetric branch at rest, and grows as 1 / mu on the other ones.

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
out = pathlib.Path(parser.parse_args().out) / "pitchfork.png"
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")

# %% Its branches
family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
ssntk.plot.bifurcation_diagram(ssntk.bifurcation_diagram(family, (-1.0, 1.0), n_slices=2, n_starts=16), left, label=r"$\mu$")

# %% The steady state on the stable branches
sizes = np.geomspace(1e-3, 1.0, 10)
for name, lens, colour in (("h", lambda m: m.h, "#D55E00"), ("mu", lambda m: m.mu, "#0072B2")):
    for sign, marker in ((-1, "<"), (1, ">")):
        at = [(ssntk.normal_forms.pitchfork(sign * size), [max(sign * size, 0.0) ** 0.5]) for size in sizes]
        found = np.array([float(ssntk.steady_state_ntk(model, x, wrt=lens)[0, 0]) for model, x in at])
        law = ssntk.laws.steady_state("pitchfork", sign * sizes, name)
        side = "x = 0" if sign < 0 else r"x = $\pm\sqrt{\mu}$"
        shown = found > 0
        if shown.any():
            middle.loglog(sizes, law, color=colour, linewidth=1)
            label = f"bias h, {side}" if name == "h" else rf"$\mu$, {side}"
            middle.loglog(sizes, found, marker, color=colour, markersize=5, label=label)
        differs = np.max(np.abs(found - law) / (law + 1e-300))
        print(f"{name}, mu {'<' if sign < 0 else '>'} 0: largest relative difference {differs:.2g}")

middle.set_xlabel(r"$|\mu|$")
middle.set_ylabel(r"steady-state kernel ($\mu$ at x = 0: zero)")

# %% A state that decays to the symmetric branch does depend on mu
rates, size = np.geomspace(1e-3, 1.0, 10), 1e-4
for horizon, colour in ((10.0, "#0072B2"), (100.0, "#E69F00"), (1000.0, "#009E73")):
    ts = np.linspace(0.0, horizon, 401)
    how = {"wrt": lambda m: m.mu, "weights": "trapezoid", "eigenvectors": False}
    found = np.array(
        [
            float(ssntk.ntk_spectrum(ssntk.normal_forms.pitchfork(-rate), ssntk.Probe(ts, x0=[size]), **how).eigenvalues[0])
            for rate in rates
        ]
    )
    law = ssntk.laws.transient(size, -rates, horizon)
    # Use only those rates whose decay the save times resolve.
    seen = rates * horizon < 40
    right.loglog(rates, law, color=colour, linewidth=1)
    right.loglog(rates[seen], found[seen], "o", color=colour, markersize=4, label=f"T = {horizon:g}")
    print(f"transient, T = {horizon:g}: within {np.max(np.abs(found / law - 1)[seen]):.2g} of the law")
right.set_xlabel(r"$|\mu|$, $\mu < 0$")
right.set_ylabel(rf"$K_{{int}}$ of $\mu$ from $x_0$ = {size:g}")

# %%
for ax in (middle, right):
    ax.legend(frameon=False, fontsize="small")
for ax in (left, middle, right):
    ax.spines[["top", "right"]].set_visible(False)
figure.suptitle("points: the kernel engine; lines: closed forms", fontsize="medium")
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=150)
print(out)
