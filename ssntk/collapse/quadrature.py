"""Integrals over one step of exp(z (1 - s)) times a smooth function. The exponential is exact however large z is."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

# Gauss-Legendre nodes and weights on (0, 1), since the integrands are smooth on the scale of a step.
NODES, WEIGHTS = (0.5 + np.array([-1, 0, 1]) * 0.15**0.5), np.array([5, 8, 5]) / 18
# Turns moments of 1, s and s^2 into weights of the values at the nodes: the inverse of the nodes' powers.
TO_PARABOLA = np.linalg.inv(NODES[:, None] ** np.arange(3))


def _remaining() -> np.ndarray:
    """A matrix (3, 3): row j holds the weights with which values at the nodes integrate from node j to 1."""
    powers = np.arange(3)
    moments = (1 - NODES[:, None] ** (powers + 1)) / (powers + 1)
    return moments @ np.linalg.inv(NODES[:, None] ** powers)


REMAINING = _remaining()


def exponential_weights(z: Complex[Array, " k"]) -> Complex[Array, "k 3"]:
    """The weights (k, 3) with which a parabola's values P at the nodes give int_0^1 e^(z (1 - s)) P(s) ds, for any z."""
    nodes = jnp.asarray(NODES, z.real.dtype).astype(z.dtype)
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, jnp.ones_like(z), z)
    # The moments of 1, s and s^2, by integration by parts.
    moments = [jnp.expm1(safe) / safe]
    for power in (1, 2):
        moments.append((power * moments[-1] - 1) / safe)
    exact = jnp.stack(moments, axis=1) @ jnp.asarray(TO_PARABOLA, z.real.dtype).astype(z.dtype)
    # For small z use Gauss' rule, whose error is of order z^6 / 2e6.
    gauss = jnp.asarray(WEIGHTS, z.real.dtype).astype(z.dtype)[None] * jnp.exp(z[:, None] * (1 - nodes)[None])
    return jnp.where(small[:, None], gauss, exact)
