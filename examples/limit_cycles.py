# %% [markdown]
# # Oscillations, where they begin and where they end
#
# Left: Morris and Lecar's neuron over its current. Its cycles begin at two subcritical Hopf points, unstable, and become
# stable at two folds. Right: a random network of 6 units with different time constants over its gain. The cycles of its
# first Hopf point stay; those of the other two, which mirror each other, slow down and end at homoclinic orbits.

# %%
import argparse
import pathlib

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/limit_cycles.png"))
out = parser.parse_args().out


# %% Two families
def morris_lecar(t, x, u, current):
    v, w = x
    opens, rest = (1 + jnp.tanh((v + 1.2) / 18)) / 2, (1 + jnp.tanh((v - 2) / 30)) / 2
    flow = current - 2 * (v + 60) - 8 * w * (v + 84) - 4.4 * opens * (v - 120)
    return jnp.stack([flow / 20, 0.04 * (rest - w) * jnp.cosh((v - 2) / 60)])


network = ssntk.CTRNN(6, 1, 1, key=jr.key(4), tau=jnp.exp(jr.normal(jr.key(104), (6,))))
families = (
    (ssntk.Family(ssntk.VectorField(morris_lecar, 80.0, 2, 0), "params"), (50.0, 250.0)),
    (ssntk.Family(network, "gain"), (0.5, 4.0)),
)
labels = (("current [uA/cm$^2$]", "voltage [mV]"), ("gain", "state 0"))

# %% Their diagrams
with ssntk.plot.style("paper", columns=2, height=80.0):
    figure, axes = plt.subplots(1, 2, layout="constrained")
    for ax, (family, span), (label, name) in zip(axes, families, labels, strict=True):
        diagram = ssntk.bifurcation_diagram(family, span, cycles=True)
        diagram.plot(ax, y=0, label=label)
        ax.set_ylabel(name)
        print(ssntk.explain(diagram))
        for branch in diagram.cycles:
            print(f"  {branch.origin}: {len(branch)} cycles; {branch.status}")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
print(out)
