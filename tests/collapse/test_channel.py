"""The critical mode's channel against numpy: the kernel of a network at rest in closed form, and explicit projectors."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import ssntk
from ssntk import laws

N, TS = 8, np.linspace(0.0, 30.0, 61)
FINE = ssntk.Integrator(rtol=1e-9, atol=1e-12)


def network(seed, pair, rightmost=-0.05, scale=1.0):
    """A tanh network at rest at x = 0, of the first seed whose rightmost eigenvalue is real or one of a pair."""
    while True:
        weight = np.random.default_rng(seed).normal(size=(N, N)) / N**0.5
        values = np.linalg.eigvals(weight)
        top = values[np.argmax(values.real)]
        if (top.imag != 0) == pair and top.real > 0.3:
            break
        seed += 1000
    # Beyond the diagonal, of the real Schur form, `scale` times as much: further from normal, at the same eigenvalues.
    triangle, turn = scipy.linalg.schur(weight * (1 + rightmost) / top.real)
    blocks = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) <= 1
    weight = (
        turn
        @ np.where(blocks & (np.abs(triangle) > 0) & (np.tril(np.ones((N, N)), 1) > 0), triangle, scale * triangle)
        @ turn.T
    )
    return ssntk.CTRNN.from_weights(weight, np.ones((N, 1)))


def closed_form(model, us):
    """By numpy alone, under a constant input at x = 0: J (T n, p) of bias and input weights, and the mode."""
    matrix = np.asarray(model.weight) - np.eye(N)
    values, rights = np.linalg.eig(matrix)
    at = np.argmax(values.real + 1e-9 * values.imag)
    right = rights[:, at] / np.linalg.norm(rights[:, at])
    left = np.linalg.inv(rights)[at] * np.linalg.norm(rights[:, at])
    # F: zero for the weights, as there is no activity, u for the input weights, one for the bias.
    forcing = np.concatenate([np.zeros((N, N * N)), us * np.eye(N), np.eye(N)], axis=1)
    step, power, rows = scipy.linalg.expm(matrix * (TS[1] - TS[0])), np.eye(N), []
    for _ in TS:
        rows.append(np.linalg.solve(matrix, power - np.eye(N)) @ forcing)
        power = step @ power
    weights = np.full(len(TS), TS[1] - TS[0])
    weights[[0, -1]] /= 2
    rows = np.stack(rows) * np.sqrt(weights)[:, None, None]
    return rows, values[at], right, left, forcing, weights


@pytest.mark.parametrize(("pair", "scale"), [(False, 1.0), (False, 4.0), (True, 1.0), (True, 4.0)])
def test_the_split_of_a_network_at_rest(pair, scale):
    model = network(0, pair, scale=scale)
    rows, value, right, left, forcing, weights = closed_form(model, 0.0)
    channel = ssntk.bifurcation_channel(model, ssntk.Probe(TS), np.zeros(N), integrator=FINE)
    projector = np.outer(right, left)
    projector = 2 * projector.real if pair else projector.real
    total = (rows**2).sum()
    critical = np.einsum("ij,tjp->tip", projector, rows)
    rest = rows - critical
    plane = scipy.linalg.orth(np.stack([right.real, right.imag], axis=1) if pair else right.real[:, None])
    assert channel.kind == ("pair" if pair else "real")
    np.testing.assert_allclose(channel.critical_eigenvalue, value, atol=1e-12)
    np.testing.assert_allclose(channel.frequency, value.imag, atol=1e-12)
    # The solver's relative error, in squares.
    how = {"rtol": 1e-7, "atol": 1e-9}
    np.testing.assert_allclose(channel.nonnormality, np.linalg.norm(left), rtol=1e-10)
    np.testing.assert_allclose(channel.oblique_share, (critical**2).sum() / total, **how)
    np.testing.assert_allclose(channel.cross_share, 2 * (critical * rest).sum() / total, **how)
    np.testing.assert_allclose(
        1 - channel.oblique_share - channel.cross_share, (rest**2).sum() / total, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(channel.share, (np.einsum("ik,tip->tkp", plane, rows) ** 2).sum() / total, **how)
    flat = rows.reshape(-1, rows.shape[-1])
    top = np.linalg.svd(flat, full_matrices=False)
    np.testing.assert_allclose(channel.top_eigenvalue, top[1][0] ** 2, **how)
    # The master law under a constant drive, at the save times.
    answer = (np.exp(value * TS) - 1) / value * np.sqrt(weights)
    law = np.einsum("t,i,p->tip", answer, right, left @ forcing)
    law = (2 * law.real if pair else law.real).reshape(-1, rows.shape[-1])
    np.testing.assert_allclose(channel.predicted_top_eigenvalue, np.linalg.norm(law, 2) ** 2, **how)
    state = np.linalg.svd(top[0][:, 0].reshape(-1, N))[2][0]
    np.testing.assert_allclose(channel.alignment, np.linalg.norm(plane.T @ state), rtol=1e-6)
    assert channel.method == "fixed point"
    assert channel.mismatch < 1e-6
    assert channel.departure < 1e-9
    if not pair:
        # A constant drive has all its power at zero.
        np.testing.assert_allclose(channel.drive, np.linalg.norm(left @ forcing), rtol=1e-9)
        expected = laws.channel(np.linalg.norm(left @ forcing), value.real, TS[-1])
        # The trapezoid rule over 60 intervals.
        np.testing.assert_allclose(channel.predicted_top_eigenvalue, expected, rtol=1e-3)


def test_the_trap_an_oblique_share_above_one():
    # If A is not normal, the share by the spectral projector exceeds one, and the cross terms compensate for it.
    shares = []
    for seed in range(3):
        channel = ssntk.bifurcation_channel(network(seed, False, scale=4.0), ssntk.Probe(TS), np.zeros(N), integrator=FINE)
        shares.append((channel.oblique_share, channel.cross_share, channel.nonnormality))
        assert 0 <= channel.share <= 1
    worst = max(shares)
    assert worst[0] > 1
    assert worst[1] < 0
    assert worst[2] > 2


def test_what_is_not_driven_is_not_amplified():
    # A constant bias has no power at a pair's frequency: under a Hann window what leaks falls as (w T)^-3.
    model = network(0, True)
    _, value, _, left, forcing, _ = closed_form(model, 0.0)
    ts = np.linspace(0.0, 40 * 2 * np.pi / value.imag, 61)
    channel = ssntk.bifurcation_channel(model, ssntk.Probe(ts), np.zeros(N), integrator=FINE)
    assert channel.drive < 1e-4 * np.linalg.norm(left @ forcing)
    # An input at that frequency drives the input weights by half its amplitude.
    us = ssntk.Sinusoid([[1e-3]], value.imag)
    wave = ssntk.bifurcation_channel(model, ssntk.Probe(ts, us), np.zeros(N), wrt=lambda m: m.input_weight, integrator=FINE)
    np.testing.assert_allclose(wave.drive, 0.5e-3 * np.linalg.norm(left), rtol=1e-4)
    assert wave.parameter_alignment > 0.99


def test_another_mode_can_be_asked_about():
    model = network(0, False)
    values = np.linalg.eigvals(np.asarray(model.weight) - np.eye(N))
    other = values[values.imag > 0][0]
    for asked in (other, [other, other.conj()], other.conj()):
        channel = ssntk.bifurcation_channel(model, ssntk.Probe(TS), np.zeros(N), eigenvalues=asked, integrator=FINE)
        np.testing.assert_allclose(channel.critical_eigenvalue, other, atol=1e-10)
        assert channel.kind == "pair"


def test_away_from_the_fixed_point_each_method_is_named():
    model, random = network(0, False), np.random.default_rng(1).normal(size=N)
    values, rights = np.linalg.eig(np.asarray(model.weight) - np.eye(N))
    right = rights[:, values.real.argmax()].real

    def channel(model, x0, ts=TS, throw=False):
        probe = ssntk.Probe(ts, x0=x0)
        return ssntk.bifurcation_channel(model, probe, np.zeros(N), integrator=FINE, throw=throw)

    near, far = (channel(model, size * right / np.linalg.norm(right)) for size in (0.01, 0.6))
    assert (near.method, far.method) == ("fixed point", "averaged")
    assert near.departure < 0.01 < far.departure
    # If the rate at x* is refused, `mismatch` is that of the average.
    assert far.mismatch < 0.1
    assert "the fixed point prediction is" in far.reason
    turning = channel(network(0, True), 2 * random)
    assert turning.method == "singular pair"
    assert np.isnan(turning.predicted_top_eigenvalue)
    assert turning.alignment > 0.9
    # If the horizon is too short for the mode to stand out, there is an error, or only the measured part is returned.
    short = channel(model, 2 * random, TS / 10)
    assert short.method == "none"
    assert 0 < short.share < 1
    with pytest.raises(ssntk.NumericalError, match="no channel of this mode"):
        channel(model, 2 * random, TS / 10, throw=True)


def test_a_map_is_summed_over_its_own_steps():
    model = network(0, False, scale=2.0)
    matrix, dt, steps = np.eye(N) + 0.1 * (np.asarray(model.weight) - np.eye(N)), 0.1, 300
    channel = ssntk.bifurcation_channel(ssntk.EulerMap(model, dt), ssntk.Probe(dt * np.arange(steps + 1.0)), np.zeros(N))
    values, rights = np.linalg.eig(matrix)
    at = values.real.argmax()
    left = np.linalg.inv(rights)[at].real
    multiplier = values[at].real
    np.testing.assert_allclose(channel.critical_eigenvalue, multiplier, atol=1e-12)
    # c_k = dt sum_j m^j l^T F, over the trapezoid rule.
    answer = dt * (multiplier ** np.arange(steps + 1) - 1) / (multiplier - 1)
    weights = np.full(steps + 1, dt)
    weights[[0, -1]] /= 2
    np.testing.assert_allclose(channel.predicted_top_eigenvalue, (weights * answer**2).sum() * (left @ left), rtol=1e-9)
    assert channel.mismatch < 1e-9


def test_a_flip_is_driven_by_what_alternates():
    def flip(t, x, u, p):
        return (p["m"] - 1) * x + p["h"] + p["a"] * u

    model = ssntk.EulerMap(ssntk.VectorField(flip, {"m": -0.95, "h": 0.0, "a": 0.0}, 1, 1), 1.0)
    ts = np.arange(401.0)
    probe = ssntk.Probe(ts, (-1.0) ** np.arange(401)[None, :, None])
    alternating = ssntk.bifurcation_channel(model, probe, [0.0], u=[0.0], wrt=lambda m: m.params["a"])
    constant = ssntk.bifurcation_channel(model, probe, [0.0], u=[0.0], wrt=lambda m: m.params["h"])
    assert alternating.kind == "real"
    np.testing.assert_allclose(alternating.critical_eigenvalue, -0.95)
    np.testing.assert_allclose(alternating.frequency, np.pi)
    np.testing.assert_allclose(alternating.drive, 1.0, rtol=1e-6)
    assert constant.drive < 1e-6
    # (1 - |m|)^-2 and (1 - m)^-2 in the steady state, over 400 steps but for the first 20 or so.
    np.testing.assert_allclose(alternating.top_eigenvalue / 400, laws.flip_steady_state(-0.95), rtol=0.1)
    np.testing.assert_allclose(constant.top_eigenvalue / 400, laws.flip_steady_state(-0.95, "constant"), rtol=0.1)


def test_masked_times_count_for_nothing():
    model = network(0, False)
    seen = ssntk.Probe(TS, x0=np.zeros((2, N)), mask=np.stack([TS < 15.0, TS < 0.0]))
    masked = ssntk.bifurcation_channel(model, seen, np.zeros(N), integrator=FINE)
    rows, *_ = closed_form(model, 0.0)
    kept = rows[TS < 15.0].reshape(-1, rows.shape[-1])
    np.testing.assert_allclose(masked.top_eigenvalue, np.linalg.norm(kept, 2) ** 2, rtol=1e-7)
    assert masked.mismatch < 1e-6


def test_arguments():
    model, probe = network(0, False), ssntk.Probe(TS)
    for wrong in ([1.0, 2.0], [1.0 + 1j, 1.0 + 1j], "fast", np.nan, [1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="eigenvalues must be"):
            ssntk.bifurcation_channel(model, probe, np.zeros(N), eigenvalues=wrong)
    with pytest.raises(ValueError, match="mask"):
        ssntk.bifurcation_channel(model, ssntk.Probe(TS, mask=np.ones((1, len(TS), N), bool)), np.zeros(N))
    with pytest.raises(ssntk.NumericalError, match="not a fixed point"):
        ssntk.bifurcation_channel(model, probe, np.ones(N))
    with pytest.raises(ssntk.NumericalError, match="nothing answers"):
        ssntk.bifurcation_channel(model, probe, np.zeros(N), wrt=lambda m: m.weight, integrator=FINE)


def test_other_weights_compile_nothing(compilations):
    def channel(seed):
        model = network(seed, False)
        return ssntk.bifurcation_channel(model, ssntk.Probe(TS), np.zeros(N), integrator=FINE)

    channel(1)
    before = len(compilations)
    channel(2)
    assert len(compilations) == before


def linear(matrix, strength=1.0):
    """dx/dt = A x + strength * b, b in theta."""
    matrix = jnp.asarray(matrix)
    n = len(matrix)
    return ssntk.VectorField(lambda t, x, u, p: matrix @ x + strength * p["b"], {"b": np.zeros(n)}, n)


@pytest.mark.slow
def test_steps_far_longer_than_the_mode_lives():
    # At rest an implicit solver takes steps of hundreds of time constants; the law is integrated exactly over each.
    model, ts = linear([[-0.5, 1.0], [0.0, -1.0]]), np.linspace(0.0, 4000.0, 41)
    how = {"integrator": ssntk.Integrator(solver=diffrax.Kvaerno5())}
    channel = ssntk.bifurcation_channel(model, ssntk.Probe(ts), np.zeros(2), **how)
    assert channel.method == "fixed point"
    assert channel.mismatch < 1e-6
    # 1 / lambda^2 |l|^2 over the horizon, but for the first steps of 2 in 4000, weighed as half of an interval.
    left = np.array([1.0, 2.0])
    np.testing.assert_allclose(channel.predicted_top_eigenvalue, (left @ left) / 0.25 * 3950.0, rtol=1e-3)
    np.testing.assert_allclose(channel.drive, np.linalg.norm(left), rtol=1e-6)


def test_scales_and_defects():
    # Few stages, which compile fast.
    probe, asked = ssntk.Probe(np.linspace(0.0, 10.0, 11)), {"integrator": ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)}
    plain = ssntk.bifurcation_channel(linear([[-0.1]]), probe, [0.0], **asked)
    small = ssntk.bifurcation_channel(linear([[-0.1]], 1e-120), probe, [0.0], **asked)
    np.testing.assert_allclose(small.top_eigenvalue, plain.top_eigenvalue * 1e-240, rtol=1e-9)
    np.testing.assert_allclose([small.share, small.oblique_share], 1.0)
    for strength in (1e-200, 1e200):
        with pytest.raises(ssntk.NumericalError, match="beyond the range"):
            ssntk.bifurcation_channel(linear([[-0.1]], strength), probe, [0.0], **asked)
    with pytest.raises(ssntk.NumericalError, match="defective"):
        ssntk.bifurcation_channel(linear([[-0.05, 1.0], [1e-14, -0.05]]), probe, np.zeros(2), **asked)
