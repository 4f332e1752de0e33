"""The model of period_doubling.toml."""

import jax.numpy as jnp

import ssntk


def field(t, x, u, c):
    return jnp.stack([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - c)])


def model(seed):
    """Roessler's equations with a = b = 0.2, at c = 2.7."""
    return ssntk.VectorField(field, 2.7, 3, 0)
