# %% [markdown]
# # How a GRU learns a clock
#
# A GRU of 8 units learns to tick: under a constant input its output shall be -1, 1, -1, 1 and so on. A fixed point cannot do
# that, so what has to happen is a bifurcation. In training, the loss falls when the fixed point of the network loses its
# stability in a *flip*: one of its multipliers, the eigenvalues of the derivative of a step, passes -1. The cycle of two
# steps that is born there is the clock.
#
# `python examples/learning_a_clock.py --quick` trains for fewer steps.

# %%
import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description="A GRU learns a clock of two steps, through a flip.")
parser.add_argument("--seed", type=int, default=1, help="of the network's first weights (default %(default)s)")
parser.add_argument("--steps", type=int, default=400, help="of training (default %(default)s)")
parser.add_argument("--every", type=int, default=2, help="steps between looks at the fixed point (default %(default)s)")
parser.add_argument("--quick", action="store_true", help="120 steps, a look at every tenth")
parser.add_argument("--out", type=pathlib.Path, default="results", help="folder (default %(default)s)")
chosen = parser.parse_args()
if chosen.quick:
    chosen.steps, chosen.every = 120, 10
if min(chosen.steps, chosen.every) < 1:
    parser.error("--steps and --every must be at least 1")
chosen.out.mkdir(parents=True, exist_ok=True)

# %% The task: 24 steps from the state 1/2 under the input 1, with outputs cos(pi t)
LENGTH, INPUT = 24, jnp.ones(1)
target = jnp.cos(jnp.pi * jnp.arange(1, LENGTH + 1))
untrained = ssntk.GRUCell(n_input=1, n_hidden=8, n_output=1, key=jax.random.key(chosen.seed))


def loss(network):
    def step(x, _):
        x = network.step(x, INPUT)
        return x, network.readout(x)[0]

    outputs = jax.lax.scan(step, jnp.full(network.n_state, 0.5), length=LENGTH)[1]
    return jnp.mean((outputs - target) ** 2)


# %% Training by Adam: the loss at each step, and the weights there
adam = optax.adam(1e-2)


@eqx.filter_jit
def update(network, state):
    value, gradient = eqx.filter_value_and_grad(loss)(network)
    change, state = adam.update(gradient, state)
    return eqx.apply_updates(network, change), state, value


network, state, losses, kept = untrained, adam.init(eqx.filter(untrained, eqx.is_inexact_array)), [], []
for _ in range(chosen.steps):
    kept.append(network)
    network, state, value = update(network, state)
    losses.append(float(value))

# %% The fixed point during training, each found from the one before
looks, x, size = list(range(0, chosen.steps, chosen.every)), None, []
for i in looks:
    starts = None if x is None else x[None]
    point = ssntk.find_fixed_points(kept[i], INPUT, n_starts=32, starts=starts)[0]
    x = point.x
    size.append(np.abs(point.eigenvalues).max())
lost = next((i for i, one in zip(looks, size, strict=True) if one > 1), None)
print(f"loss {losses[0]:.3g} at first, {losses[-1]:.3g} after {chosen.steps} steps")
if lost is not None:
    print(f"step {lost}: the fixed point is unstable, and the loss is {losses[lost]:.3g}")

# %% What was learned: a cycle of two steps
clock = ssntk.find_cycles(network, 2, INPUT)
for cycle in clock:
    print(f"a {'stable' if cycle.stable else 'unstable'} cycle with outputs {cycle.outputs[:, 0].round(4).tolist()}")
    print(f"its multipliers: {', '.join(f'{one:.4g}' for one in cycle.eigenvalues[:3])}, ...")

# %% Where it was born, on the straight path from the first to the last weights
family = ssntk.Family.between(untrained, network)
diagram = ssntk.bifurcation_diagram(family, (0.0, 1.0), u=INPUT, n_slices=5, n_starts=64)
for event in diagram.bifurcations:
    print(f"{event.kind} at p = {event.parameter:.6f}, {event.criticality}, coefficient {event.coefficient:.4g}")
print(diagram.status)

# %% One column of a paper: the loss over the steps, and the diagram over the path
with ssntk.plot.style("paper"):
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(85 / 25.4, 105 / 25.4), layout="constrained")
    top.semilogy(losses, color="#222222", linewidth=1.0)
    if lost is not None:
        top.axvline(lost, color="#0072B2", linewidth=1.0, linestyle=":", label=f"fixed point unstable from step {lost}")
        top.legend(frameon=False, loc="upper right")
    top.set_xlabel("training step")
    top.set_ylabel("loss (mean squared error)")
    ssntk.plot.bifurcation_diagram(diagram, bottom, y="output 0", label="path $p$ from untrained (0) to trained (1)")
    bottom.set_ylabel("output")
    figure.savefig(chosen.out / "learning_a_clock.png", dpi=200)
print(f"figure in {chosen.out / 'learning_a_clock.png'}")
