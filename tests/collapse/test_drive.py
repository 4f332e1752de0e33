"""The drive of the critical mode, against a Fourier transform of l^T F along a simulated trajectory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Leaky

import ssntk
from ssntk.collapse.drive import channel_participation_ratio, critical_drive
from ssntk.models.theta import theta_positions


class Still(Leaky):
    """The user's model without its dependence on time, and with inputs that multiply its state."""

    def vector_field(self, t, x, u):
        return super().vector_field(jnp.zeros_like(t), x, u) + u[0] * x


def forcing(model, x, u):
    """F (n, p) by forward differentiation, leaves in tree order."""
    dynamic, static = eqx.partition(model, eqx.is_inexact_array)
    by_leaf = jax.jacfwd(lambda dynamic: eqx.combine(dynamic, static).vector_field(jnp.zeros(()), x, u))(dynamic)
    return np.concatenate([np.asarray(leaf).reshape(x.shape[0], -1) for leaf in jax.tree.leaves(by_leaf)], axis=1)


@pytest.fixture(scope="module")
def resting():
    """A model at a stable fixed point whose rightmost eigenvalues are a pair: (model, x*, A, pair, l)."""
    for seed in range(100):
        model = Still(jr.key(seed))
        points = ssntk.find_fixed_points(model, n_starts=16)
        if len(points) and points.stable[0] and points.eigenvalues[0, 0].imag > 0.1:
            x = jnp.asarray(points.x[0])
            matrix = np.asarray(jax.jacfwd(model.vector_field, argnums=1)(jnp.zeros(()), x, jnp.zeros(2)))
            values, rights = np.linalg.eig(matrix)
            at = np.argmax(np.where(values.imag > 0, values.real, -np.inf))
            return model, x, values[at], np.linalg.inv(rights)[at]
    raise AssertionError("no such model")


@pytest.mark.slow
def test_a_pair_is_driven_as_a_simulation_says(resting):
    model, x, value, left = resting
    frequency, size = float(value.imag), np.array([[0.3, -0.5], [0.2, 0.4]])
    at = theta_positions(model, "state", None)
    drive = critical_drive(model, at, ssntk.Probe([0.0, 1.0], ssntk.Sinusoid(size, frequency, 0.7), x), x, value)
    period, steps = 2 * np.pi / frequency, 64
    settled = np.ceil(40 / abs(value.real) / period) * period
    ts = np.concatenate([[0.0], settled + period * np.arange(steps) / steps])
    # First order in the amplitude: at 1e-5 of it the rest is 1e-5.
    probe = ssntk.Probe(ts, ssntk.Sinusoid(1e-5 * size, frequency, 0.7), x0=x)
    states = ssntk.simulate(model, probe, integrator=ssntk.Integrator(rtol=1e-11, atol=1e-15))[:, 1:]
    for b in range(2):
        inputs = [1e-5 * size[b] * np.sin(frequency * t + 0.7) for t in ts[1:]]
        rows = np.stack([left @ forcing(model, state, jnp.asarray(u)) for state, u in zip(states[b], inputs, strict=True)])
        # l^T F = c + q exp(i w t) + q' exp(-i w t), of which the amplitude 2 q is what l takes at +w.
        fourier = 2 * np.exp(-1j * frequency * ts[1:]) @ rows / steps / 1e-5
        scale = np.abs(fourier).max()
        phase = np.vdot(drive[b], fourier) / np.linalg.norm(drive[b]) ** 2
        # |r| = 1 and l^T r = 1 leave a free phase.
        np.testing.assert_allclose(abs(phase), 1.0, rtol=1e-4)
        np.testing.assert_allclose(fourier / scale, phase * drive[b] / scale, atol=1e-4)


def test_a_real_mode_is_driven_by_what_is_constant():
    model = ssntk.CTRNN(6, 2, 1, gain=0.5, key=jr.key(0))
    weight = 0.5 * np.asarray(model.weight)
    symmetric = ssntk.CTRNN.from_weights(weight + weight.T - 2 * np.eye(6), model.input_weight)
    _, vectors = np.linalg.eigh(np.asarray(symmetric.weight) - np.eye(6))
    us = np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 0.0]])
    at = theta_positions(symmetric, "state", None)
    drive = critical_drive(symmetric, at, ssntk.Probe([0.0, 1.0], us), jnp.zeros(6), 0.0)
    left = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    # At x = 0: nothing through the recurrent weights, l_i u_k through the input's, l_i through the bias.
    expected = np.concatenate([np.zeros((3, 36)), (left[:, None] * us[:, None, :]).reshape(3, 12), np.tile(left, (3, 1))], 1)
    np.testing.assert_allclose(drive, expected, atol=1e-12)
    # A sinusoid has no constant part, but the bias is one.
    drive = critical_drive(symmetric, at, ssntk.Probe([0.0, 1.0], ssntk.Sinusoid(us, 1.0)), jnp.zeros(6), 0.0)
    np.testing.assert_allclose(drive, np.where(np.arange(54) >= 48, expected, 0.0), atol=1e-12)


def test_what_is_not_known_and_what_is_not_driven(resting):
    model, x, value, _ = resting
    at = theta_positions(model, "state", None)
    frequency = float(value.imag)
    size = [[0.3, -0.5]]

    def drive(us=None, x0=x, near=value, horizon=200.0):
        return critical_drive(model, at, ssntk.Probe([0.0, horizon], us, x0), x, near)

    assert np.abs(drive(ssntk.Sinusoid(size, frequency))).max() > 0
    # Inputs of other forms, other starts, and a sinusoid that is further off than the width of the line and the horizon.
    assert drive(np.ones((1, 2, 2))) is None
    assert drive(lambda t: jnp.ones((1, 2)) * t) is None
    assert drive(ssntk.Sinusoid(size, frequency), x0=x + 1e-3) is None
    far = frequency + 1.1 * max(-value.real, 2 * np.pi / 200.0)
    assert drive(ssntk.Sinusoid(size, far)) is None
    assert drive(ssntk.Sinusoid(size, far), horizon=0.5 / abs(far - frequency)) is not None
    # A pair is not driven by a constant input, nor without an input.
    for us in (None, size):
        assert not drive(us).any()
        assert channel_participation_ratio(drive(us)) == 0.0
    # Another mode of the same point is driven otherwise, by what is constant: the one that is asked about.
    matrix = np.asarray(jax.jacfwd(model.vector_field, argnums=1)(jnp.zeros(()), x, jnp.zeros(2)))
    reals = [mode for mode in np.linalg.eigvals(matrix) if mode.imag == 0]
    assert np.abs(drive(size, near=reals[0])).max() > 1e-3


def test_masked_inputs_drive_as_much_as_is_seen_of_them(resting):
    model, x, value, _ = resting
    at, frequency = theta_positions(model, "state", None), float(value.imag)
    size, ts = [[1.0, 0.0], [0.0, 1.0]], np.linspace(0.0, 200.0, 5)
    mask, us = np.array([[True] * 5, [False] * 5]), ssntk.Sinusoid(size, frequency)
    both, one = (
        critical_drive(model, at, ssntk.Probe(ts, ssntk.Sinusoid(size, frequency), x, mask=m), x, value)
        for m in (None, mask)
    )
    np.testing.assert_array_equal(one[0], both[0])
    assert not one[1].any()
    half = critical_drive(model, at, ssntk.Probe(ts, us, x, mask=ts < 80), x, value)
    # Two of five times.
    np.testing.assert_allclose(half, both * 0.4**0.5, rtol=1e-12)


def test_a_defective_eigenvalue_costs_the_prediction_alone():
    model = ssntk.VectorField(lambda t, x, u, p: jnp.stack([-x[0] + x[1], -x[1]]) + p["b"], {"b": np.zeros(2)}, 2)
    point = ssntk.measure(model, ssntk.Probe([0.0, 1.0]), np.zeros(2), blocks={"b": lambda m: m.params["b"]})
    assert np.isnan(point.channel_participation_ratio["b"])
    assert point.blocks["b"].participation_ratio > 0


def test_participation_ratio_of_the_channel():
    random = np.random.default_rng(0)
    for drive in random.normal(size=(5, 1, 7)) + 1j * random.normal(size=(5, 1, 7)):
        q = drive[0]
        rho = abs(q @ q) / np.vdot(q, q).real
        np.testing.assert_allclose(channel_participation_ratio(drive), 2 / (1 + rho**2), rtol=1e-12)
        np.testing.assert_allclose(channel_participation_ratio(1e3j * drive), 2 / (1 + rho**2), rtol=1e-12)
    assert channel_participation_ratio(random.normal(size=(1, 7)) + 0j) == pytest.approx(1.0)
    # B inputs that drive orthogonal directions equally add their modes.
    assert channel_participation_ratio(np.eye(3, 7) + 0j) == pytest.approx(3.0)
    assert channel_participation_ratio(np.zeros((1, 7), complex)) == 0.0
    assert channel_participation_ratio(1e-200 * np.eye(3, 7) + 0j) == pytest.approx(3.0)


def test_sinusoids():
    sinusoid = ssntk.Sinusoid([[2.0, 1.0]], 3.0, 0.5)
    np.testing.assert_allclose(sinusoid(0.2), [[2 * np.sin(1.1), np.sin(1.1)]])
    for arguments, name in (
        (([1.0], 1.0), "amplitude"),
        (([[1.0]], 0.0), "frequency"),
        (([[1.0]], float("nan")), "frequency"),
        (([[1.0]], 1.0, [0.0]), "phase"),
    ):
        with pytest.raises(ValueError, match=name):
            ssntk.Sinusoid(*arguments)
    model = ssntk.CTRNN(2, 1, 1, key=jr.key(0))
    with pytest.raises(ValueError, match="frequency"):
        ssntk.simulate(model, ssntk.Probe([0.0, 1.0], ssntk.Sinusoid([[1.0]])))
    with pytest.raises(ValueError, match="width 1"):
        ssntk.simulate(model, ssntk.Probe([0.0, 1.0], ssntk.Sinusoid([[1.0, 1.0]], 1.0)))
    with pytest.raises(ValueError, match="frequency"):
        ssntk.Sweep(
            ssntk.Family(model, "gain"),
            towards="saddle-node",
            span=(0.0, 1.0),
            distances=[0.1],
            probe=ssntk.Probe([0.0, 1.0], ssntk.Sinusoid([[1.0]])),
        )


def test_another_frequency_compiles_nothing(compilations):
    model = ssntk.CTRNN(3, 1, 1, key=jr.key(0))
    probes = [ssntk.Probe([0.0, 1.0], ssntk.Sinusoid([[1.0]], frequency)) for frequency in (1.0, 2.0)]
    ssntk.simulate(model, probes[0])
    before = len(compilations)
    ssntk.simulate(model, probes[1])
    assert len(compilations) == before
