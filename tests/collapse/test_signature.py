"""The frequency signature against transfer functions in closed form, and against kernels in time where it should hold."""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk
from ssntk import laws

nf = ssntk.normal_forms
OMEGAS = np.linspace(0.0, 4.0, 81)


def test_a_fold_peaks_at_zero_and_its_derivative_cancels():
    rate, model, x = 0.02, nf.saddle_node(1e-4), [1e-2]
    plain = ssntk.frequency_signature(model, x, OMEGAS)
    np.testing.assert_allclose(plain.response, laws.resonance(1.0, rate, OMEGAS), rtol=1e-10)
    assert (plain.kind, plain.peak_frequency) == ("real", 0.0)
    np.testing.assert_allclose([plain.peak, plain.width], [1 / rate**2, rate], rtol=1e-9)
    # w^2 / (lambda^2 + w^2) is below one; (1 + w^2) leaves the peak where it is; d/dt - A leaves F F^T.
    rates, sobolev, residual = (
        ssntk.frequency_signature(model, x, OMEGAS, loss_operator=operator)
        for operator in (ssntk.TimeDerivative(), ssntk.Sobolev(1.0), ssntk.Residual())
    )
    np.testing.assert_allclose(rates.response, OMEGAS**2 / (rate**2 + OMEGAS**2), rtol=1e-10)
    assert rates.response.max() < 1
    np.testing.assert_allclose(sobolev.response, plain.response * (1 + OMEGAS**2), rtol=1e-12)
    assert sobolev.peak_frequency == 0.0
    np.testing.assert_allclose(residual.response, 1.0, rtol=1e-12)
    assert {rates.kind, sobolev.kind, residual.kind} == {"real"}


def test_a_hopf_point_peaks_at_its_frequency_and_its_derivative_does_not_cancel():
    mu, omega = -0.01, 2.03
    model, x = nf.hopf(mu, omega), [0.0, 0.0]

    def signature(operator=None):
        return ssntk.frequency_signature(model, x, OMEGAS, wrt=lambda m: m.h, loss_operator=operator)

    plain = signature()
    np.testing.assert_allclose(plain.response, laws.resonance(1.0, mu, OMEGAS - omega), rtol=1e-10)
    # Refined between the grid's 2.0 and 2.05.
    np.testing.assert_allclose([plain.peak_frequency, plain.peak, plain.width], [omega, 1e4, 0.01], rtol=1e-6)
    assert plain.kind == "pair"
    # At zero it stays bounded.
    np.testing.assert_allclose(plain.response[0], laws.steady_state("hopf", mu, "h", omega=omega), rtol=1e-10)
    # The peak is weighed by w0^2 and (1 + w0^2)^s, up to its width over w0.
    np.testing.assert_allclose(signature(ssntk.TimeDerivative()).peak, 1e4 * omega**2, rtol=1e-3)
    np.testing.assert_allclose(signature(ssntk.Sobolev(2.0)).peak, 1e4 * (1 + omega**2) ** 2, rtol=1e-3)


def test_maps_peak_at_their_critical_frequency():
    def field(t, x, u, p):
        return (p["m"] - 1) * x + p["h"]

    def one(m):
        return ssntk.EulerMap(ssntk.VectorField(field, {"m": m, "h": 0.0}, 1), 1.0)

    grid = np.linspace(0.0, np.pi, 65)
    flip, fold = (ssntk.frequency_signature(one(m), [0.0], grid, wrt=lambda m: m.params["h"]) for m in (-0.98, 0.98))
    # |e^(i w) - m|^-2.
    np.testing.assert_allclose(flip.response, 1 / np.abs(np.exp(1j * grid) + 0.98) ** 2, rtol=1e-9)
    assert (flip.kind, fold.kind) == ("real", "real")
    np.testing.assert_allclose([flip.peak_frequency, fold.peak_frequency], [np.pi, 0.0], atol=1e-12)
    np.testing.assert_allclose([flip.peak, fold.peak], laws.flip_steady_state(-0.98), rtol=1e-9)
    np.testing.assert_allclose(ssntk.frequency_ntk(one(0.98), [0.0], [1.0])[0, 0, 0].imag, 0.0)


@pytest.mark.parametrize(
    ("pair", "count"), [(True, 3), *(pytest.param(pair, 10, marks=pytest.mark.slow) for pair in (False, True))]
)
def test_random_networks_near_a_bifurcation(pair, count):
    found = 0
    for seed in range(100):
        weight = np.random.default_rng(seed).normal(size=(16, 16)) / 4
        values = np.linalg.eigvals(weight)
        top = values[np.argmax(values.real)]
        if (top.imag != 0) != pair or top.real < 0.3:
            continue
        gain = (1 - 1e-3) / top.real
        model = ssntk.CTRNN.from_weights(weight, gain=gain)
        signature = ssntk.frequency_signature(model, np.zeros(16))
        assert signature.kind == ("pair" if pair else "real"), seed
        # The line is the critical mode's, up to |Re lambda| over its distance from the others.
        np.testing.assert_allclose(signature.peak_frequency, abs(top.imag) * gain, atol=1e-3, err_msg=str(seed))
        np.testing.assert_allclose(signature.width, 1e-3, rtol=0.1, err_msg=str(seed))
        found += 1
        if found == count:
            return
    raise AssertionError("too few networks")


@pytest.mark.slow
def test_kernels_in_time_agree_once_inputs_are_averaged_over_and_not_before():
    # x' = -l x + c u(t), theta = c, with a random periodic input: dx/dc at even times over the second half of the horizon.
    rate, period, points = 0.5, 40.0, 32
    random, harmonics = np.random.default_rng(0), np.arange(1, 9)
    phases = jnp.asarray(random.uniform(0, 2 * np.pi, (64, 8)))

    def us(t):
        return jnp.cos(2 * jnp.pi * harmonics[None] * t / period + phases).sum(axis=1, keepdims=True)

    model = ssntk.VectorField(lambda t, x, u, p: -p["l"] * x + p["c"] * u, {"l": rate, "c": 0.0}, 1, 1)
    ts = period / points * np.arange(2 * points)
    fixed = ssntk.Integrator(dt=0.25)
    rows = ssntk.parameter_jacobian(model, ssntk.Probe(ts, us), wrt=lambda m: m.params["c"], integrator=fixed)[
        :, points:, 0, 0
    ]
    spectra = np.fft.fft(np.asarray(rows), axis=1) / points * 2
    omegas = 2 * np.pi * harmonics / period
    # The diagonal: P(w) / (l^2 + w^2), with the transient of e^(-20) gone.
    diagonal = np.mean(np.abs(spectra[:, harmonics]) ** 2, axis=0)
    np.testing.assert_allclose(diagonal, laws.resonance(1.0, rate, omegas), rtol=1e-6)

    def off(count):
        kernel = spectra[:count].T @ spectra[:count].conj() / count
        return 1 - np.linalg.norm(np.diag(kernel)) ** 2 / np.linalg.norm(kernel) ** 2

    # One input: not diagonal at all. The mass beside the diagonal falls as 1 / B.
    assert off(1) > 0.5
    assert off(64) < 0.15
    slope = np.polyfit(np.log([1, 4, 16, 64]), np.log([off(count) for count in (1, 4, 16, 64)]), 1)[0]
    assert -1.3 < slope < -0.4


def test_arguments():
    for wrong in ([0.0], [-1.0, 1.0], [1.0, 1.0], [2.0, 1.0], "all"):
        with pytest.raises(ValueError, match="omegas"):
            ssntk.frequency_signature(nf.saddle_node(1.0), [1.0], wrong)
    with pytest.raises(ValueError, match="loss_operator"):
        ssntk.frequency_signature(nf.saddle_node(1.0), [1.0], OMEGAS, loss_operator="d/dt")
    with pytest.raises(ssntk.NumericalError, match="not a fixed point"):
        ssntk.frequency_signature(nf.saddle_node(1.0), [0.5], OMEGAS)
    slow = ssntk.EulerMap(nf.saddle_node(1e-2), 1.0)
    with pytest.raises(ValueError, match="pi / dt"):
        ssntk.frequency_signature(slow, [0.1], OMEGAS)
