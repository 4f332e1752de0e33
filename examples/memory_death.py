# %% [markdown]
# # How a memory dies
#
# A network trained on the 2-bit flip-flop task holds four memories. Each is opposed by a constant first input of one sign.
# The memory vanishes in a saddle-node, and on the way there the kernel collapses to one mode.

# %%
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ssntk

jax.config.update("jax_enable_x64", True)
weights = np.load(pathlib.Path(__file__).parent.parent / "sweeps" / "flip_flop32.npz")
model = ssntk.CTRNN.from_weights(**weights)

# %% The fixed points at zero input, from random starts
points = ssntk.find_fixed_points(model)
for x, stable, values in zip(points.x, points.stable, points.eigenvalues, strict=True):
    bits = model.readout(jnp.asarray(x))
    kind = "memory" if stable else f"saddle, {(values.real > 0).sum()} unstable"
    print(f"({bits[0]:+.2f}, {bits[1]:+.2f})  {kind:<19}  rightmost eigenvalue {values[0].real:+.3f}")

# %% Each memory under an input that opposes it
family = ssntk.Family.input(model, [1.0, 0.0])
figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
for x, ax in zip(points.x[points.stable], axes.ravel(), strict=True):
    bits = model.readout(jnp.asarray(x))
    against = -float(jnp.sign(bits[0]))
    branch = ssntk.continuation(family, (-0.05 * against, 0.05 * against), x0=x)
    death = branch.bifurcations[0]
    ssntk.plot.bifurcation_diagram(branch, ax, label="first input")
    ax.set_title(f"memory ({bits[0]:+.0f}, {bits[1]:+.0f}) dies at {death.parameter:+.6f}", fontsize="medium")
    probe = ssntk.Probe(jnp.linspace(0.0, 200.0, 21))
    sweep = ssntk.Sweep(
        family,
        towards="saddle-node",
        span=(-0.05 * against, 0.05 * against),
        distances=[1e-2, 1e-4, 1e-6],
        probe=probe,
        x0=branch.x[0],
    )
    for values, measured in sweep.measure_batch(sweep.side(branch), (0, 1, 2)):
        print(
            f"({bits[0]:+.0f}, {bits[1]:+.0f})  {values['distance']:g} before its death: "
            f"{measured.trajectory.participation_ratio:.3f} modes, "
            f"steady-state kernel {measured.steady_state.eigenvalues[0]:.3g}"
        )

# %%
plt.show()
