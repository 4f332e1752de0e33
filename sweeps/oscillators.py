"""Models of the sweep files in this folder."""

import jax.numpy as jnp

import ssntk


def roessler_field(t, x, u, c):
    return jnp.stack([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - c)])


def roessler(seed):
    """Roessler's equations with a = b = 0.2, at c = 2.7."""
    return ssntk.VectorField(roessler_field, 2.7, 3, 0)
