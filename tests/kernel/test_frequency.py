"""The kernel of a fixed point at a frequency."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk


def test_closed_forms():
    omegas = np.array([0.0, 0.5, 3.0])
    leak = ssntk.VectorField(lambda t, x, u, p: -0.3 * x + p, jnp.zeros(1), 1)
    np.testing.assert_allclose(
        np.asarray(ssntk.frequency_ntk(leak, [0.0], omegas))[:, 0, 0], 1 / (omegas**2 + 0.09), rtol=1e-14
    )
    # A pair -e +- 3i: the largest eigenvalue of (A - i w)^-1 (A - i w)^-H is 1 / ((w - 3)^2 + e^2).
    turn = jnp.array([[-0.01, -3.0], [3.0, -0.01]])
    pair = ssntk.VectorField(lambda t, x, u, p: turn @ x + p, jnp.zeros(2), 2)
    top = np.linalg.eigvalsh(np.asarray(ssntk.frequency_ntk(pair, [0.0, 0.0], omegas)))[:, -1]
    np.testing.assert_allclose(top, 1 / ((omegas - 3) ** 2 + 1e-4), rtol=1e-12)


def test_one_solve_for_every_frequency(getkey):
    model = ssntk.CTRNN(7, 1, 1, gain=0.8, tau=np.linspace(0.5, 2.0, 7), key=getkey())
    (point,) = ssntk.find_fixed_points(model, u=[0.4]).x
    omegas = np.array([0.0, 0.3, 1.0, 20.0])
    kernels = np.asarray(ssntk.frequency_ntk(model, point, omegas, u=[0.4]))
    # A and F written out: tau dx/dt = -x + g W tanh(x) + U u + b.
    weight, x, tau = 0.8 * np.asarray(model.weight), np.asarray(point), np.asarray(model.tau)
    jacobian = (-np.eye(7) + weight * (1 - np.tanh(x) ** 2)) / tau[:, None]
    signals = np.concatenate([0.8 * np.tanh(x), [0.4, 1.0]])
    drive = np.diag(signals @ signals / tau**2)
    for omega, kernel in zip(omegas, kernels, strict=True):
        inverse = np.linalg.inv(1j * omega * np.eye(7) - jacobian)
        np.testing.assert_allclose(kernel, inverse @ drive @ inverse.conj().T, atol=1e-12 * np.abs(kernel).max())
    np.testing.assert_allclose(kernels[0].real, ssntk.steady_state_ntk(model, point, u=[0.4]), rtol=1e-9)
    only = np.asarray(ssntk.frequency_ntk(model, point, [0.3], u=[0.4], wrt=lambda m: m.bias))[0]
    inverse = np.linalg.inv(0.3j * np.eye(7) - jacobian)
    np.testing.assert_allclose(only, inverse @ np.diag(1 / tau**2) @ inverse.conj().T, atol=1e-12 * np.abs(only).max())


def test_errors(getkey):
    centre = ssntk.VectorField(lambda t, x, u, p: jnp.array([[0.0, -2.0], [2.0, 0.0]]) @ x + p, jnp.zeros(2), 2)
    ssntk.frequency_ntk(centre, [0.0, 0.0], [1.9])
    with pytest.raises(ssntk.NumericalError, match="omega = 2"):
        ssntk.frequency_ntk(centre, [0.0, 0.0], [1.0, 2.0])
    with pytest.raises(ssntk.NumericalError, match="fixed point"):
        ssntk.frequency_ntk(centre, [1.0, 0.0], [1.0])
    for omegas in (1.0, [np.nan], "fast"):
        with pytest.raises(ValueError, match="omegas"):
            ssntk.frequency_ntk(centre, [0.0, 0.0], omegas)
    # Where it is real, the answer of single precision is complex64.
    weights = np.asarray(jr.normal(getkey(), (3, 3)), np.float32) / 3
    network = ssntk.CTRNN.from_weights(weights)
    assert ssntk.frequency_ntk(network, np.zeros(3, np.float32), [1.0]).dtype == jnp.complex64
