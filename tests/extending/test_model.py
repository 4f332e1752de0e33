"""A user's own model: a class with its sizes and its equation, for which everything works."""

import jax.numpy as jnp
import numpy as np

import ssntk


class WilsonCowan(ssntk.AbstractStateSpaceModel):
    """Excitation and inhibition, `dx/dt = -x + sigmoid(W x + u)`, rates between 0 and 1."""

    weight: jnp.ndarray
    n_state: int = 2
    n_input: int = 2
    n_output: int = 2

    def vector_field(self, t, x, u):
        return -x + 1 / (1 + jnp.exp(-self.weight @ x - u))


def test_a_model_of_ones_own_has_fixed_points_folds_and_a_kernel():
    # Excitation alone, a: x = sigmoid(a x + u) has folds where a x (1 - x) = 1, so that x = (1 +- sqrt(1 - 4 / a)) / 2.
    a = 8.0
    model = WilsonCowan(jnp.array([[a, 0.0], [0.0, 0.0]]))
    fold = (1 - np.sqrt(1 - 4 / a)) / 2
    at = np.log(fold / (1 - fold)) - a * fold
    family = ssntk.Family.input(model, [1.0, 0.0])
    branch = ssntk.continuation(family, (-6.0, 0.0), x0=[0.0, 0.5])
    np.testing.assert_allclose(branch.bifurcations[0].parameter, at, rtol=1e-12)
    np.testing.assert_allclose(branch.bifurcations[0].x, [fold, 0.5], rtol=1e-10)
    assert ssntk.criticality(model, [at - 1e-3, 0.0], n_starts=8).near
    # The second unit rests at sigmoid(0) = 1/2, and its weights w move it by sigmoid'(0) x = x / 4 each.
    x = branch.x[0]
    kernel = ssntk.steady_state_ntk(model, x, u=[-6.0, 0.0])
    np.testing.assert_allclose(kernel[1, 1], (x[0] ** 2 + 0.25) / 16, rtol=1e-12)
