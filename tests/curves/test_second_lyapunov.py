"""The second Lyapunov coefficient, in coordinates in which the first is not zero by symmetry.

Compiles: derivatives of order five of a model of two states, and what finds its generalised Hopf point.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

Family = ssntk.Family


@pytest.mark.slow
def test_the_second_lyapunov_coefficient_in_other_coordinates():
    """A smooth change of coordinates with quadratic terms changes no coefficient where l1 is zero."""

    def bent(t, x, u, p):
        # x1 = y1 and x2 = y2 + 0.3 y1^2.
        y = jnp.stack([x[0], x[1] - 0.3 * x[0] ** 2])
        turned, r = jnp.stack([-y[1], y[0]]), y @ y
        rate = p["p1"] * y + 2.0 * turned + r * (p["p2"] * y - 0.7 * turned) - r**2 * y
        return jnp.stack([rate[0], rate[1] + 0.6 * y[0] * rate[0]])

    model = ssntk.VectorField(bent, {"p1": 0.0, "p2": 0.3}, 2)
    both = Family(model, "p1"), Family(model, "p2")
    (hopf,) = ssntk.continuation(both[0], (-0.5, 0.5), x0=[0.0, 0.0]).bifurcations
    curve = ssntk.bifurcation_curve(Family.plane(*both), hopf, ((-0.5, 0.5), (-0.5, 0.5)))
    (point,) = curve.points
    assert np.abs(point.parameters).max() <= 1e-14
    # That of z' = (p1 + 2 i) z + (p2 - 0.7 i) z |z|^2 - z |z|^4, in closed form.
    assert abs(point.coefficients["l2"] + 2) <= 1e-10
