# %% [markdown]
# # Fixed points in a picture
#
# Left: a network that was trained to hold two bits, on the first principal components of its fixed points and of the
# trajectories between them. Filled circles are its four memories. Each saddle between two of them has one unstable
# direction. Right: a neuron after FitzHugh and Nagumo, whose only fixed point is unstable, so that it fires for ever.

# %%
import argparse
import pathlib

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"), help="the folder of the figure")
out = parser.parse_args().out

# %% A trained network of 32 units: trajectories that start next to each of its fixed points
weights = np.load(pathlib.Path(__file__).parent.parent / "sweeps" / "flip_flop32.npz")
network = ssntk.CTRNN.from_weights(**weights)
memories = ssntk.find_fixed_points(network)
beside = np.repeat(memories.x, 4, axis=0)
beside += 0.1 * np.asarray(jr.normal(jr.key(0), beside.shape))
paths = ssntk.simulate(network, ssntk.Probe(jnp.linspace(0.0, 60.0, 121), x0=beside))

# %% A neuron of two states, under a constant input of 0.5
neuron = ssntk.VectorField(
    lambda t, x, u, p: jnp.stack([x[0] - x[0] ** 3 / 3 - x[1] + p, 0.08 * (x[0] + 0.7 - 0.8 * x[1])]), jnp.asarray(0.5), 2
)
rest = ssntk.find_fixed_points(neuron)
spikes = ssntk.simulate(neuron, ssntk.Probe(jnp.linspace(0.0, 100.0, 501), x0=jnp.array([[0.0, 1.5]])))

# %% Both, as wide as a page
with ssntk.plot.style("paper", columns=2):
    figure, (left, right) = plt.subplots(1, 2)
    ssntk.plot.fixed_points(memories, trajectories=paths, ax=left)
    ssntk.plot.fixed_points(rest, neuron, trajectories=spikes, ax=right)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "fixed_points.png", dpi=130)
print(out / "fixed_points.png")
