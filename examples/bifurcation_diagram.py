# %% [markdown]
# # All branches, and where they meet
#
# Top left: a network without biases keeps x = 0 as a fixed point for every gain. This point loses its stability at Hopf
# points, and two other points are born at a pitchfork. Top right: the same network with a small bias. The pitchfork is
# broken into a branch that continues and one that begins at a saddle-node. Bottom left: a network under a constant input.
# Not all of its branches are connected. Bottom right: the logistic map, with a transcritical and a flip.

# %%
import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/bifurcation_diagram.png"))
out = parser.parse_args().out

# %% Four families
network = ssntk.CTRNN(8, 0, 1, key=jr.key(1))
biased = eqx.tree_at(lambda m: m.bias, network, 0.05 * jr.normal(jr.key(2), (8,)))
driven = ssntk.CTRNN(6, 1, 1, gain=2.5, key=jr.key(500))
logistic = ssntk.EulerMap(ssntk.VectorField(lambda t, x, u, r: r * x * (1 - x) - x, jnp.asarray(2.0), 1), 1.0)
families = {
    "gain": (ssntk.Family(network, "gain"), (0.1, 4.0)),
    "gain, with a small bias": (ssntk.Family(biased, "gain"), (0.1, 4.0)),
    "constant input $p$": (ssntk.Family.input(driven, [1.0]), (-2.0, 2.0)),
    "growth rate $r$ of the logistic map": (ssntk.Family(logistic, lambda m: m.params), (0.3, 3.5)),
}

# %% Their diagrams
figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
for ax, (label, (family, span)) in zip(axes.flat, families.items(), strict=True):
    diagram = ssntk.bifurcation_diagram(family, span)
    ssntk.plot.bifurcation_diagram(diagram, ax, label=label)
    print(f"{label}: {len(diagram.branches)} branches, {diagram.status}")
    for event in diagram.bifurcations:
        print(f"  {event.kind:<14} {event.parameter:+.12f}  frequency {event.frequency:.6f}  {event.criticality or ''}")
out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(out, dpi=80)
print(out)
