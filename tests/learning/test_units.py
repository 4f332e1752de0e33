"""Predictions of modes that are slower than rounding."""

import jax.numpy as jnp
import numpy as np

import ssntk


def test_steps_to_a_loss_of_a_mode_that_is_slower_than_rounding():
    # x(1) = p with one row that answers: the error falls by 1 - eta / 2 at each step, the loss by its square.
    model = ssntk.VectorField(lambda t, x, u, p: p * jnp.ones(1), 1.0, 1)
    probe = ssntk.Probe([0.0, 1.0], x0=[0.0])
    targets = np.array([[[0.0], [3.0]]])
    for eta in (1e-3, 1e-17):
        found = ssntk.linearised_training(model, probe, targets, eta, 3, of="state")
        expected = np.log(0.1) / np.log1p(-eta / 2)
        np.testing.assert_allclose(found.steps_to(0.01), expected, rtol=1e-9, atol=1)
    # Momentum mu goes as eta / (1 - mu), slowly.
    found = ssntk.linearised_training(model, probe, targets, 1e-17, 3, of="state", momentum=0.9)
    np.testing.assert_allclose(found.steps_to(0.01), np.log(10) * 2e16, rtol=1e-9)
