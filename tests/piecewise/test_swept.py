"""Sweeps along exact branches: towards a degenerate flip of a map, past borders of other units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk


def sweep_past_a_border():
    """x' = w relu(x) + 1 beside y' = relu(x - 0.75): the branch x = 1 / (1 - w) meets the border of y at w = -1/3, and the
    multiplier w is -1 at w = -1."""

    def step(t, x, u, p):
        return jnp.stack([p["w"] * jax.nn.relu(x[0]) + 1.0, jax.nn.relu(x[0] - 0.75)])

    family = ssntk.Family(ssntk.Map(step, {"w": jnp.asarray(0.0)}, 2), "w")
    probe, distances = ssntk.Probe(np.arange(5.0)), [1e-1, 1e-2, 1e-3]
    return ssntk.Sweep(family, towards="flip", span=(0.0, -2.0), distances=distances, probe=probe, x0=[1, 0.25])


def test_a_degenerate_flip_is_a_flip():
    branch = sweep_past_a_border().follow()
    assert [one.kind for one in branch.bifurcations] == ["degenerate-flip"]
    np.testing.assert_allclose([one.parameter for one in branch.collisions], [-1 / 3], rtol=1e-12)


@pytest.mark.slow
def test_a_sweep_towards_a_degenerate_flip_past_a_border(tmp_path):
    store = ssntk.run(sweep_past_a_border(), ssntk.Store(tmp_path), progress=False)
    data = store.arrays()
    assert (data["status"] == "done").all()
    np.testing.assert_allclose(data["parameter"], data["distance"] - 1, rtol=1e-9)
    np.testing.assert_allclose(data["x_star"][:, 0], 1 / (2 - data["distance"]), rtol=1e-9)
    (collision,) = ssntk.Store(tmp_path).branch().collisions
    assert (collision.kind, collision.unit) == ("persistence", 1)
