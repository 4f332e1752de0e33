"""Discrete time: the map, its solves, its kernels and its fixed points."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Leaky

import ssntk


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    return ssntk.CTRNN.from_weights(
        rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=4), rng.normal(size=(3, 4)), form="rate", tau=2.0
    )


def iterate(model, dt, us, x):
    """The recurrence in numpy, of a rate-form network."""
    w, v, b = (np.asarray(part) for part in (model.weight, model.input_weight, model.bias))
    out = [x]
    for u in us:
        x = x + dt / float(model.tau) * (-x + np.tanh(w @ x + v @ u + b))
        out.append(x)
    return np.array(out)


def test_simulate_iterates_the_map(network):
    us = np.random.default_rng(1).normal(size=(2, 7, 2))
    x0 = np.random.default_rng(2).normal(size=(2, 4))
    euler = ssntk.EulerMap(network, 0.3)
    states = ssntk.simulate(euler, ssntk.Probe(0.3 * np.arange(7), us, x0))
    for b in range(2):
        np.testing.assert_allclose(states[b], iterate(network, 0.3, us[b, :6], x0[b]), atol=1e-14)
    x = euler.step(jnp.asarray(x0[0]), jnp.asarray(us[0, 0]))
    np.testing.assert_allclose(x, iterate(network, 0.3, us[0, :1], x0[0])[1], atol=1e-15)
    # Save times whole steps apart, not all the same number of them.
    few = ssntk.simulate(euler, ssntk.Probe(0.3 * np.array([2, 3, 6, 12]), us[:, 0], x0))
    constant = iterate(network, 0.3, [us[0, 0]] * 10, x0[0])
    np.testing.assert_allclose(few[0], constant[[0, 1, 4, 10]], atol=1e-14)


def test_the_kernel_is_that_of_the_recurrence():
    model, steps = Leaky(jr.key(3)), 6
    us = jnp.asarray(np.random.default_rng(1).normal(size=(1, steps + 1, 2)))

    def recurrence(model):
        x, out = jnp.zeros(5), []
        for k in range(steps):
            x = x + 0.25 * model.vector_field(jnp.asarray(0.25 * k), x, us[0, k])
            out.append(x)
        return jnp.stack(out)

    theta, static = eqx.partition(model, eqx.is_inexact_array)
    by_leaf = jax.tree.leaves(jax.jit(jax.jacrev(lambda theta: recurrence(eqx.combine(theta, static))))(theta))
    expected = np.concatenate([np.asarray(leaf).reshape(steps, 5, -1) for leaf in by_leaf], axis=2)
    probe = ssntk.Probe(0.25 * np.arange(steps + 1), us)
    for method in ("segments", "autodiff"):
        jacobian = ssntk.parameter_jacobian(ssntk.EulerMap(model, 0.25), probe, method=method)
        # The same operations in another order.
        np.testing.assert_allclose(jacobian[0, 1:], expected, atol=1e-13)
        assert not jacobian[0, 0].any()


def test_multipliers_and_stability():
    model = ssntk.CTRNN(12, 1, 1, gain=1.6, key=jr.key(5))
    flow = ssntk.find_fixed_points(model, n_starts=64)
    for dt in (0.1, 1.9):
        points = ssntk.find_fixed_points(ssntk.EulerMap(model, dt), n_starts=64)
        assert len(points) == len(flow)
        for x, values, stable in zip(points.x, points.eigenvalues, points.stable, strict=True):
            slope = 1 - np.tanh(x) ** 2
            exact = np.linalg.eigvals(np.eye(12) + dt * (-np.eye(12) + 1.6 * np.asarray(model.weight) * slope))
            np.testing.assert_allclose(np.sort(np.abs(values)), np.sort(np.abs(exact)), atol=1e-10)
            assert (np.diff(np.abs(values)) <= 1e-15).all()
            assert stable == (np.abs(exact).max() < 1)


def test_euler_shifts_a_hopf_point():
    # |1 + dt (mu + i w)| = 1 at mu = (-1 + sqrt(1 - (dt w)^2)) / dt.
    for dt, omega in ((0.1, 1.0), (0.05, 4.0)):
        critical = (-1 + np.sqrt(1 - (dt * omega) ** 2)) / dt
        for offset, stable in ((-1e-6, True), (1e-6, False)):
            points = ssntk.find_fixed_points(
                ssntk.EulerMap(ssntk.normal_forms.hopf(critical + offset, omega), dt), n_starts=8
            )
            assert points.stable.tolist() == [stable]
            np.testing.assert_allclose(np.abs(points.eigenvalues[0]), 1.0, atol=1e-6)


def test_errors_and_delegation(network):
    for dt in (0.0, -1.0, np.inf, "long", np.ones(2), 1j, None):
        with pytest.raises(ValueError, match="dt"):
            ssntk.EulerMap(network, dt)
    euler = ssntk.EulerMap(network, 0.1)
    np.testing.assert_array_equal(euler.weight, network.weight)
    assert (euler.n_state, euler.n_input, euler.n_output) == (4, 2, 3)
    with pytest.raises(ValueError, match=r"probe\.ts"):
        ssntk.simulate(euler, ssntk.Probe([0.0, 0.25]))
    with pytest.raises(ValueError, match=r"probe\.ts"):
        ssntk.simulate(euler, ssntk.Probe([0.0, 0.01]))
    with pytest.raises(ValueError, match="integrator"):
        ssntk.simulate(euler, ssntk.Probe([0.0, 0.1]), integrator=ssntk.Integrator())
    with pytest.raises(ValueError, match="integrator"):
        ssntk.ntk(euler, ssntk.Probe([0.0, 0.1]), integrator=ssntk.Integrator())
    with pytest.raises(ValueError, match="continuous time"):
        ssntk.EulerMap(euler, 0.1)
    with pytest.raises(ValueError, match="dt must be concrete"):
        jax.jit(lambda dt: ssntk.EulerMap(network, dt).step(np.zeros(4), np.zeros(2)))(0.1)
    with pytest.raises(ValueError, match="u must have shape"):
        euler.step(np.zeros(4), np.zeros(3))
    np.testing.assert_array_equal(euler.step([0] * 4), euler.step(np.zeros(4), np.zeros(2)))
    rest = ssntk.EulerMap(ssntk.normal_forms.pitchfork(-0.5), 0.1)
    with pytest.raises(ValueError, match="integrator must be None"):
        ssntk.measure(rest, ssntk.Probe([0.0, 0.1]), [0.0], integrator=ssntk.Integrator())
    cube = ssntk.EulerMap(ssntk.VectorField(lambda t, x, u, p: p * x**3, 1.0, 1), 1.0)
    with pytest.raises(ssntk.NumericalError, match="diverged"):
        ssntk.simulate(cube, ssntk.Probe(np.arange(20.0), x0=[2.0]))


def test_float32_iterates_the_same_map():
    # The step itself is exact; rounding times to float32 would make it wrong by 6e-8 t / dt.
    def flip(t, x, u, p):
        return -p * x

    turned = ssntk.EulerMap(ssntk.VectorField(flip, jnp.float32(20.0), 1), 0.1)
    states = ssntk.simulate(turned, ssntk.Probe(np.float32([0.0, 1000.0]), x0=np.float32([1.0])))
    assert states.dtype == jnp.float32
    # The multiplier is 1 - 20 * 0.1 = -1 to a rounding, 10,000 times.
    np.testing.assert_allclose(states[0, -1], 1.0, atol=1e-3)
    late = ssntk.Probe(np.float32([1e6, 1e6 + 1.5, 1e6 + 3]), x0=np.float32([1.0]))
    with pytest.raises(ValueError, match=r"probe\.ts must resolve"):
        ssntk.simulate(turned, late)
    weights = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32) / 3
    network = ssntk.EulerMap(ssntk.CTRNN.from_weights(weights, form="rate"), 0.1)
    ts = np.append(0.0, [2000.0]).astype(np.float32)
    x = np.ones(5, np.float32)
    for _ in range(20_000):
        x = x + np.float32(0.1) * (-x + np.tanh(weights @ x))
    got = ssntk.simulate(network, ssntk.Probe(ts, x0=np.ones(5, np.float32)))[0, -1]
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_other_weights_and_inputs_compile_nothing(compilations):
    probe = [ssntk.Probe(np.arange(4.0), np.full((1, 4, 1), value)) for value in (0.5, 1.5)]
    models = [ssntk.EulerMap(ssntk.CTRNN(3, 1, 1, key=jr.key(seed)), 1.0) for seed in range(2)]
    ssntk.ntk(models[0], probe[0])
    before = len(compilations)
    ssntk.ntk(models[1], probe[1])
    assert len(compilations) == before
