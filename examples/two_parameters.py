# %% [markdown]
# # Bifurcations over two parameters
#
# Left: two units that excite and inhibit each other, over the inputs to both. Each curve of Hopf points begins and ends at
# Bogdanov-Takens points on the curves of saddle-nodes. Between them no fixed point is stable, and the network oscillates.
# Dark: where the steady-state kernel has collapsed to one direction, which is near both kinds of curves.
# Right: a network of 32 units over two of its inputs. Two closed curves of saddle-nodes have four cusps each.

# %%
import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/two_parameters.png"))
out = parser.parse_args().out

# %% Two networks, each with two inputs
pair = ssntk.CTRNN.from_weights([[2.5, -2.0], [2.0, 0.0]], jnp.eye(2), [0.0, -1.0], tau=[1.0, 2.0])
rng = np.random.default_rng(4)
weight = 0.6 * rng.standard_normal((32, 32)) / np.sqrt(32)
modes = np.linalg.qr(rng.standard_normal((32, 2)))[0]
weight += modes @ np.array([[2.2, -1.2], [1.2, 1.2]]) @ modes.T
network = ssntk.CTRNN.from_weights(weight, 2 * modes, 0.05 * rng.standard_normal(32))
cases = (pair, ((-5.0, 5.0), (-4.0, 6.0)), 40), (network, ((-3.0, 3.0), (-3.0, 3.0)), None)

# %% Their diagrams
with ssntk.plot.style("paper", columns=2, height=80.0):
    figure, axes = plt.subplots(1, 2, layout="constrained")
    for ax, (model, spans, places) in zip(axes, cases, strict=True):
        plane = ssntk.Family.plane(ssntk.Family.input(model, 0), ssntk.Family.input(model, 1))
        diagram = ssntk.two_parameter_diagram(plane, spans, kernel=places)
        diagram.plot(ax)
        print(diagram)
        print(ssntk.explain(diagram))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
print(out)
