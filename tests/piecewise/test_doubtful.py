"""Families that look as if they could be followed exactly, starts on borders, and networks at rest on them.

Compiles: continuation of three flows of one to three states, for those that are left to the search.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk


def relu_network(weight, bias, **options):
    return ssntk.CTRNN.from_weights(weight, bias=bias, activation=jax.nn.relu, **options)


def test_kinks_that_come_and_go_are_left_to_the_search():
    """Two kinks of relu(|x| - p) come into being at p = 0."""
    model = ssntk.VectorField(lambda t, x, u, p: -x + 0.5 * jax.nn.relu(jnp.abs(x) - p) + 0.4, jnp.asarray(-1.0), 1)
    family = ssntk.Family(model, lambda model: model.params)
    branch = ssntk.continuation(family, (-1.0, 1.0))
    x, p = branch.x[:, 0], branch.parameter
    np.testing.assert_allclose(-x + 0.5 * np.maximum(np.abs(x) - p, 0) + 0.4, 0, atol=1e-12)
    assert len(branch) > 10
    with pytest.raises(ValueError, match='method must be "search" or "auto" for this family: kinks come or go near p = '):
        ssntk.continuation(family, (-1.0, 1.0), method="exact")


def test_a_line_of_equilibria_is_no_way_to_infinity():
    """Two units that inhibit each other: at gain 1 a line of equilibria passes through x = 1 / (2 + 2 gain)."""
    family = ssntk.Family(relu_network([[0.0, -1.0], [-1.0, 0.0]], [0.5, 0.5]), "gain")
    branch = ssntk.continuation(family, (0.3, 3.0))
    assert branch.parameter[-1] == 3.0
    np.testing.assert_allclose(branch.x, np.repeat(0.5 / (1 + branch.parameter[:, None]), 2, axis=1), rtol=1e-9)
    assert "to-infinity" not in [event.kind for event in branch.bifurcations]
    with pytest.raises(ValueError, match="df/dx is singular at p = 1 along a line of equilibria"):
        ssntk.continuation(family, (0.3, 3.0), method="exact")


def test_several_real_eigenvalues_are_no_pair():
    # Winner-take-all: at the symmetric point two eigenvalues 2.4 gain - 1 vanish at once.
    network = relu_network(-1.5 * np.ones((3, 3)) + 2.4 * np.eye(3), np.ones(3))
    branch = ssntk.continuation(ssntk.Family(network, "gain"), (0.1, 1.0))
    assert branch.parameter[-1] == 1.0
    assert "hopf" not in [event.kind for event in branch.bifurcations]
    (event,) = branch.bifurcations
    np.testing.assert_allclose(event.parameter, 1 / 2.4, rtol=1e-9)


def oscillator(x, p):
    return jnp.stack([-0.2 * x[0] + x[1] + 0.6 * jax.nn.relu(x[0]), -x[0] - 0.2 * x[1] + p])


def test_a_border_at_the_start_is_met_in_both_directions():
    model = ssntk.VectorField(lambda t, x, u, p: oscillator(x, p), 0.0, 2)
    family = ssntk.Family(model, lambda model: model.params)
    branch = ssntk.continuation(family, (-1.0, 1.0), at=0.0, both=True)
    assert [event.kind for event in branch.bifurcations] == ["boundary-hopf"]
    assert branch.parameter[[0, -1]].tolist() == [-1.0, 1.0]
    fold = ssntk.Family.input(relu_network([[2.0]], [0.0], input_weight=[[1.0]]), [1.0])
    # Both halves lie at p < 0: x = p and x = -p.
    branch = ssntk.continuation(fold, (-1.0, 1.0), at=0.0, both=True)
    assert [event.kind for event in branch.bifurcations] == ["nonsmooth-fold"]
    np.testing.assert_allclose(np.sort(branch.x[[0, -1], 0]), [-1, 1], rtol=1e-12)


def test_a_parameter_at_which_nothing_is_finite_is_left_to_the_search():
    family = ssntk.Family(relu_network([[0.5, -0.3], [0.2, 0.1]], [0.5, 0.2]), "tau")
    branch = ssntk.continuation(family, (3.0, 1.0))
    # x = W relu(x) + b with both units active does not depend on tau. It passes zero in the second span.
    rest = np.linalg.solve(np.eye(2) - np.array([[0.5, -0.3], [0.2, 0.1]]), [0.5, 0.2])
    assert (rest > 0).all()
    for one in (branch, ssntk.continuation(family, (-1.0, 3.0))):
        np.testing.assert_allclose(one.x, np.repeat(rest[None], len(one), axis=0), rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_margins_of_leaky_networks_in_the_rate_form(seed):
    random = np.random.default_rng(seed)
    weight, bias = 0.4 * random.normal(size=(3, 3)), random.normal(size=3)
    model = ssntk.CTRNN.from_weights(weight, bias=bias, activation=jax.nn.leaky_relu, form="rate")
    x = ssntk.find_fixed_points(model).x[0]
    signal = weight @ x + bias
    slope = np.diag(np.where(signal > 0, 1.0, 0.01))
    by_bias = weight @ np.linalg.solve(np.eye(3) - slope @ weight, slope) + np.eye(3)
    margin = ssntk.border_margin(model, x, wrt=lambda model: model.bias)
    # The scale of the signals is that of the model, and the order that of the units.
    np.testing.assert_allclose(margin.distance, np.abs(signal) / np.linalg.norm(by_bias, axis=1), rtol=1e-10)
    assert ssntk.criticality(model).border is not None


def test_a_network_at_rest_on_its_fold_is_critical():
    model = relu_network([[2.0]], [0.0])
    verdict = ssntk.criticality(model)
    assert (verdict.verdict, verdict.border.distance.tolist()) == ("critical", [0.0])
    with pytest.raises(ValueError, match="model must have relus, and it has none"):
        ssntk.border_margin(relu_network(np.zeros((2, 2)), np.zeros(2)), np.zeros(2))
