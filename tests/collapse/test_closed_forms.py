"""The closed forms of collapse theory against quadrature, matrices and limits. The engine: tests/test_laws.py."""

import numpy as np
import pytest
import scipy.integrate

from ssntk import laws

RATES = (-30.0, -3.0, -0.6, -0.049, -1e-3, 1e-3, 0.051, 2.0, 6.0)


@pytest.mark.parametrize("scaled", RATES)
def test_g_is_the_integral_of_the_squared_answer(scaled):
    # s = (e^(l t) - 1) / l over a horizon of one; a = -l.
    expected, _ = scipy.integrate.quad(lambda t: (np.expm1(scaled * t) / scaled) ** 2, 0, 1, epsrel=1e-12)
    np.testing.assert_allclose(laws.g(-scaled), expected, rtol=1e-10)
    np.testing.assert_allclose(laws.channel(2.0, scaled / 5.0, 5.0), 4 * 125 * expected, rtol=1e-10)


def test_g_in_its_limits():
    assert laws.g(0.0) == pytest.approx(1 / 3, rel=1e-15)
    np.testing.assert_allclose(laws.g([1e6]) * 1e12, 1.0, rtol=1e-5)
    np.testing.assert_allclose(laws.g([-40.0]), np.exp(80) / (2 * 40**3), rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, -1e-4, -3e-3, -0.1, -2.0])
def test_transients_and_limit_cycles_by_quadrature(rate):
    expected, _ = scipy.integrate.quad(lambda t: (0.3 * t * np.exp(rate * t)) ** 2, 0, 7, epsrel=1e-12)
    np.testing.assert_allclose(laws.transient(0.3, rate, 7.0), expected, rtol=1e-9)
    if rate < 0:
        mu = -rate

        def phase(t):
            return (1.5 * mu**0.5 * (t + np.expm1(-2 * mu * t) / (2 * mu))) ** 2

        radius, _ = scipy.integrate.quad(lambda t: (np.expm1(-2 * mu * t)) ** 2 / (4 * mu), 0, 7, epsrel=1e-12)
        drift, _ = scipy.integrate.quad(phase, 0, 7, epsrel=1e-12)
        np.testing.assert_allclose(laws.limit_cycle("mu", mu, 7.0), radius, rtol=1e-9)
        # The phase cancels at short horizons: 1e-8 is what quadrature itself keeps of it there.
        np.testing.assert_allclose(laws.limit_cycle("mu", mu, 7.0, shear=1.5) - radius, drift, rtol=1e-6)
        np.testing.assert_allclose(laws.transient(0.3, rate), 0.3**2 / (4 * mu**3), rtol=1e-12)


@pytest.mark.parametrize(("rate", "horizon"), [(0.0, 3.0), (-0.2, 5.0), (-1.0, 10.0)])
def test_free_forcing_is_the_top_eigenvalue_of_a_volterra_operator(rate, horizon):
    # By the midpoint rule, whose error is of second order in 1/400.
    t = (np.arange(400) + 0.5) * horizon / 400
    apart = t[:, None] - t[None]
    volterra = np.where(apart > 0, np.exp(rate * apart), np.where(apart == 0, 0.5, 0.0)) * horizon / 400
    np.testing.assert_allclose(laws.free_forcing(rate, horizon), np.linalg.norm(volterra, 2) ** 2, rtol=1e-4)
    if rate == 0:
        np.testing.assert_allclose(laws.free_forcing(rate, horizon), 4 * horizon**2 / np.pi**2, rtol=1e-12)


def test_a_pairs_channel_of_random_drives():
    random = np.random.default_rng(0)
    for q in random.normal(size=(5, 9)) + 1j * random.normal(size=(5, 9)):
        # Through all phases: the Gram matrix of Re(q e^(i a)).
        turned = np.stack([(q * np.exp(1j * a)).real for a in np.linspace(0, 2 * np.pi, 64, endpoint=False)])
        values = np.linalg.eigvalsh(turned.T @ turned)
        rho = abs(q @ q) / np.vdot(q, q).real
        np.testing.assert_allclose(laws.pair_participation_ratio(rho), values.sum() ** 2 / (values**2).sum(), rtol=1e-12)


def test_resonance_and_the_rate_beside_a_fold():
    # (i w - l)^-1 F, and f = -(y^2 a) + push e solved for its root.
    value, omega = -0.01 + 2.0j, 2.3
    np.testing.assert_allclose(laws.resonance(3.0, value.real, omega - value.imag), abs(3.0 / (1j * omega - value)) ** 2)
    a, push, distance = -0.7, 0.4, 1e-3
    root = np.sqrt(push * distance / -a)
    np.testing.assert_allclose(laws.fold_rate(distance, a, push), 2 * a * root)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: laws.steady_state("hopf", 1.0, "omega"), "parameter"),
        (lambda: laws.steady_state("cusp", 1.0), "kind"),
        (lambda: laws.landing("pitchfork", "omega", 1.0), "parameter"),
        (lambda: laws.limit_cycle("h", 1.0, 1.0), "parameter"),
        (lambda: laws.flip_steady_state(-0.5, "h"), "parameter"),
        (lambda: laws.free_forcing(0.1, 1.0), "rate"),
    ],
)
def test_what_is_not_known_is_named(call, names):
    with pytest.raises(ValueError, match=names):
        call()


def test_outside_their_range_laws_are_nan():
    outside = (
        laws.transient(1.0, 0.5, 3.0),
        laws.flip_steady_state(-2.0),
        laws.limit_cycle("mu", -0.1, 5.0),
        laws.landing("pitchfork", "h", -1.0),
        laws.escape_peak(-1.0, 0.1),
        laws.pair_participation_ratio(2.0),
        laws.euler_hopf(2.0, 0.6),
    )
    assert np.isnan(outside).all()
    # Without cancellation, and beyond where a^3 overflows.
    np.testing.assert_allclose(laws.euler_hopf(1e-6, 1e-3), -5e-16, rtol=1e-12)
    np.testing.assert_allclose(laws.g(1e150), 1e-300, rtol=1e-12)


def test_no_fixed_point_has_no_kernel():
    assert np.isnan(laws.steady_state("saddle-node", -0.1, "mu"))
    assert np.isnan(laws.steady_state("hopf", 0.1, "h"))
