# %% [markdown]
# # The kernel at a transcritical bifurcation
#
# The computed kernel of dx/dt = mu x - x^2 + h is compared with the closed forms of `ssntk.laws`. The bias h is amplified on
# both sides, the bifurcation parameter mu itself on neither.

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
out = pathlib.Path(parser.parse_args().out) / "transcritical.png"
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")

# %% Its branches
family = ssntk.Family(ssntk.normal_forms.transcritical(0.0), "mu")
ssntk.plot.bifurcation_diagram(ssntk.bifurcation_diagram(family, (-1.0, 1.0), n_slices=2, n_starts=16), left, label=r"$\mu$")

# %% The steady state on both stable branches
sizes = np.geomspace(1e-3, 1.0, 10)
for name, lens, colour in (("h", lambda m: m.h, "#D55E00"), ("mu", lambda m: m.mu, "#0072B2")):
    for sign, marker in ((-1, "<"), (1, ">")):
        found = [
            float(
                ssntk.steady_state_ntk(ssntk.normal_forms.transcritical(sign * size), [max(sign * size, 0.0)], wrt=lens)[
                    0, 0
                ]
            )
            for size in sizes
        ]
        law = ssntk.laws.steady_state("transcritical", sign * sizes, name)
        side = "x = 0" if sign < 0 else r"x = $\mu$"
        label = f"bias h, {side}" if name == "h" else rf"$\mu$, {side}"
        shown = np.array(found) > 0
        middle.loglog(sizes[shown], law[shown], color=colour, linewidth=1)
        middle.loglog(
            sizes[shown], np.array(found)[shown], marker, color=colour, markersize=5, label=label if shown.any() else None
        )
        print(f"{name}, mu {'<' if sign < 0 else '>'} 0: largest difference from the law {np.max(np.abs(found - law)):.2g}")
middle.set_xlabel(r"$|\mu|$")
middle.set_ylabel(r"steady-state kernel ($\mu$ at x = 0: zero)")

# %% At the critical point: a trajectory that decays from x = 1
horizons = np.geomspace(10.0, 3000.0, 8)
for name, lens, colour in (("h", lambda m: m.h, "#D55E00"), ("mu", lambda m: m.mu, "#0072B2")):
    found = []
    for horizon in horizons:
        probe = ssntk.Probe(horizon * np.linspace(0.0, 1.0, 401) ** 2, x0=[1.0])
        how = {"wrt": lens, "weights": "trapezoid", "eigenvectors": False}
        found.append(float(ssntk.ntk_spectrum(ssntk.normal_forms.transcritical(0.0), probe, **how).eigenvalues[0]))
    law = ssntk.laws.landing("transcritical", name, horizons)
    right.loglog(horizons, law, color=colour, linewidth=1)
    right.loglog(
        horizons, found, "o", color=colour, markersize=4, label=r"$T^3/27$, bias h" if name == "h" else r"$T/4$, $\mu$"
    )
    print(f"landing, {name}: within {abs(found[-1] / law[-1] - 1):.2g} of the law at T = {horizons[-1]:g}")
right.set_xlabel("horizon T")
right.set_ylabel(r"$K_{int}$ at $\mu = 0$, from x = 1")

# %%
for ax in (middle, right):
    ax.legend(frameon=False, fontsize="small")
for ax in (left, middle, right):
    ax.spines[["top", "right"]].set_visible(False)
figure.suptitle("points: the kernel engine; lines: closed forms", fontsize="medium")
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=150)
print(out)
