# %% [markdown]
# # A nonsmooth fold of a ReLU network, of which no kernel warns
#
# A random ReLU network of eight units (seed 22) under a constant input p. Top: its exact branch, straight from border to
# border. Bottom: on the stable branch before the fold, the steady-state kernel of the ReLU network is flat, and its border
# margin falls with the distance. If the relu is a softplus of sharpness 20, the kernel grows as 1 / distance, but only
# within about 1 / 20 of the fold.

# %%
import argparse
import pathlib
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/relu_fold.png"))
out = parser.parse_args().out
SHARPNESS, SEED, n = 20.0, 22, 8


# %% The network, and its twin with softplus
def softplus(x):
    return jax.nn.softplus(SHARPNESS * x) / SHARPNESS


random = np.random.default_rng(SEED)
weight = 1.3 * random.standard_normal((n, n)) / np.sqrt(n)
inputs, bias = random.standard_normal((n, 1)), random.standard_normal(n)
relu, smooth = (
    ssntk.Family.input(ssntk.CTRNN.from_weights(weight, inputs, bias, activation=activation), [1.0])
    for activation in (jax.nn.relu, softplus)
)

# %% The branch of the ReLU network, exactly
branch = ssntk.continuation(relu, (-3.0, 3.0))
print(branch.summary())

# %% The kernel and the margin at distances from either fold
measured = {}
for family, kind in ((relu, "nonsmooth-fold"), (smooth, "saddle-node")):
    plan = ssntk.Sweep(
        family, towards=kind, span=(-3.0, 3.0), distances=np.geomspace(0.3, 1e-6, 13), probe=ssntk.Probe([0.0, 1.0])
    )
    with tempfile.TemporaryDirectory() as folder:
        measured[kind] = ssntk.run(plan, ssntk.Store(folder), progress=False).arrays()
fold, node = measured.values()
for name, data in measured.items():
    far, near = (data["steady_state_eigenvalues"][at, 0] for at in (-1, 0))
    print(f"towards the {name} the kernel's top eigenvalue is {far:.4g} at a distance of 0.3, {near:.4g} at 1e-6")
far, near = (fold["fold_margin"][at] for at in (-1, 0))
print(f"the border margin of unit {fold['fold_unit'][0]:.0f} falls from {far:.3g} to {near:.3g}")

# %%
with ssntk.plot.style("paper", height=110.0):
    figure, (above, below) = plt.subplots(2, 1, layout="constrained")
    unit = int(fold["fold_unit"][0])
    ssntk.plot.bifurcation_diagram(branch, above, y=unit, label="input $p$")
    above.set_ylabel(f"state of unit {unit}")
    below.loglog(node["distance"], node["steady_state_eigenvalues"][:, 0], "s-", color="#E69F00", label="kernel, softplus")
    below.loglog(fold["distance"], fold["steady_state_eigenvalues"][:, 0], "o-", color="#0072B2", label="kernel, ReLU")
    below.loglog(fold["distance"], fold["fold_margin"], "^--", color="#009E73", label="border margin, ReLU")
    below.invert_xaxis()
    below.set_xlabel("distance from the fold $|p - p_c|$ (input)")
    below.set_ylabel("top eigenvalue (state²),\nmargin (parameter)")
    below.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.44))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
print(out)
