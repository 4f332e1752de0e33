# %% [markdown]
# # The kernel at a Hopf point
#
# The computed kernel of dz/dt = (mu + i omega) z - z |z|^2 is compared with the closed forms of `ssntk.laws`. A constant
# bias is not amplified. The kernel of a decay from a small initial state has a double eigenvalue. On the limit cycle the
# phase dominates.

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
out = pathlib.Path(parser.parse_args().out) / "hopf.png"
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
OMEGA = 1.0


def eigenvalues(mu, horizon, x0, lens):
    """The eigenvalues of K_int, descending."""
    probe = ssntk.Probe(np.linspace(0.0, horizon, 801), x0=x0)
    how = {"wrt": lens, "weights": "trapezoid", "eigenvectors": False}
    return np.asarray(ssntk.ntk_spectrum(ssntk.normal_forms.hopf(mu, OMEGA), probe, **how).eigenvalues)


# %% The response of the focus over the frequency
omegas = np.linspace(0.0, 2.0, 401)
for mu, colour in ((-0.3, "#0072B2"), (-0.1, "#E69F00"), (-0.03, "#009E73")):
    signature = ssntk.frequency_signature(ssntk.normal_forms.hopf(mu, OMEGA), [0.0, 0.0], omegas, wrt=lambda m: m.h)
    left.semilogy(omegas, ssntk.laws.resonance(1.0, mu, omegas - OMEGA), color=colour, linewidth=1)
    left.semilogy(omegas[::20], signature.response[::20], "o", color=colour, markersize=4, label=rf"$\mu$ = {mu:g}")
    print(f"mu = {mu:g}: peak at {signature.peak_frequency:.6f}, half width {signature.width:.6f}, {signature.kind}")
left.set_xlabel(r"$\omega$ (rad per unit time)")
left.set_ylabel("kernel of a bias at this frequency")

# %% The focus: from a small initial state (mu, omega) have a double eigenvalue; and a constant bias
sizes, start = np.geomspace(0.01, 1.0, 9), 1e-3
found = np.array([eigenvalues(-size, 40.0, [start, 0.0], lambda m: (m.mu, m.omega))[:2] for size in sizes]) / start**2
law = ssntk.laws.transient(1.0, -sizes, 40.0)
bias = np.array(
    [float(ssntk.steady_state_ntk(ssntk.normal_forms.hopf(-s, OMEGA), [0.0, 0.0], wrt=lambda m: m.h)[0, 0]) for s in sizes]
)
middle.loglog(sizes, law, color="#0072B2", linewidth=1)
middle.loglog(
    sizes,
    found[:, 0],
    "o",
    color="#0072B2",
    markersize=6,
    fillstyle="none",
    label=r"$\lambda_1 / |z_0|^2$ of $(\mu, \omega)$, T = 40",
)
middle.loglog(sizes, found[:, 1], "x", color="#0072B2", markersize=4, label=r"$\lambda_2 / |z_0|^2$")
middle.loglog(sizes, ssntk.laws.steady_state("hopf", -sizes, "h", omega=OMEGA), color="#D55E00", linewidth=1)
middle.loglog(sizes, bias, "s", color="#D55E00", markersize=4, label="a constant bias, steady state")
middle.set_xlabel(r"$|\mu|$, $\mu < 0$")
middle.set_ylabel("kernel eigenvalue")
print(f"focus: both eigenvalues within {np.max(np.abs(found / law[:, None] - 1)):.2g} of the law")

# %% The limit cycle: phase and amplitude
radii = np.geomspace(1e-3, 1.0, 9)
for name, lens, colour in (("omega", lambda m: m.omega, "#009E73"), ("mu", lambda m: m.mu, "#CC79A7")):
    found = np.array([eigenvalues(mu, 40.0, [mu**0.5, 0.0], lens)[0] for mu in radii])
    law = ssntk.laws.limit_cycle(name, radii, 40.0)
    right.loglog(radii, law, color=colour, linewidth=1)
    right.loglog(
        radii, found, "o", color=colour, markersize=4, label=r"phase, $\omega$" if name == "omega" else r"amplitude, $\mu$"
    )
    print(f"limit cycle, {name}: within {np.max(np.abs(found / law - 1)):.2g} of the law")
right.set_xlabel(r"$\mu > 0$")
right.set_ylabel(r"$K_{int}$ on the limit cycle, T = 40")

# %%
for ax in (left, middle, right):
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
figure.suptitle("points: the kernel engine; lines: closed forms", fontsize="medium")
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=150)
print(out)
