"""The closed forms of reference/laws.json, through the public interface, on the normal forms.

Exponents must agree to 0.01 and prefactors to 1 %, or to the asymptotic error that is given in a comment.
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some

import ssntk
from ssntk import laws
from ssntk.collapse.exponent import measured_exponent

nf = ssntk.normal_forms
LAWS = {row["name"]: row for row in json.loads((pathlib.Path(__file__).parent / "reference" / "laws.json").read_text())}
# The number of save times is the same for every horizon, so that each normal form compiles once.
POINTS = 801
FINE = ssntk.Integrator(rtol=1e-10, atol=1e-12)


def integral(model, lens, x0, horizon, *, dense_start=False):
    """The eigenvalues of K_int over a horizon, the largest first."""
    ts = np.linspace(0.0, 1.0, POINTS)
    # Space the times quadratically if the sensitivity changes fast at first.
    ts = horizon * (ts**2 if dense_start else ts)
    probe = ssntk.Probe(ts, x0=np.atleast_1d(x0))
    spectrum = ssntk.ntk_spectrum(model, probe, wrt=lens, weights="trapezoid", integrator=FINE, eigenvectors=False)
    return np.asarray(spectrum.eigenvalues)


def exponent(law):
    return LAWS[law]["exponent"]


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


STEADY = {
    "sn_ss_mu": (lambda mu: (nf.saddle_node(mu), [mu**0.5]), lambda m: m.mu, 1 / 4),
    "tc_ss_mu_nontrivial": (lambda mu: (nf.transcritical(mu), [mu]), lambda m: m.mu, 1.0),
    "tc_ss_bias_pos": (lambda mu: (nf.transcritical(mu), [mu]), lambda m: m.h, 1.0),
    "tc_ss_bias_neg": (lambda mu: (nf.transcritical(-mu), [0.0]), lambda m: m.h, 1.0),
    "pf_ss_mu_broken": (lambda mu: (nf.pitchfork(mu), [mu**0.5]), lambda m: m.mu, 1 / 4),
    "pf_ss_h_broken": (lambda mu: (nf.pitchfork(mu), [mu**0.5]), lambda m: m.h, 1 / 4),
    "pf_ss_h_sym": (lambda mu: (nf.pitchfork(-mu), [0.0]), lambda m: m.h, 1.0),
    "hopf_ss_bias": (lambda mu: (nf.hopf(-mu, 2.0), [0.0, 0.0]), lambda m: m.h, 1 / 4),
}


# The arguments of `laws.steady_state`: the kind, the parameter and the sign of mu.
SIDES = {
    "sn_ss_mu": ("saddle-node", "mu", 1),
    "tc_ss_mu_nontrivial": ("transcritical", "mu", 1),
    "tc_ss_bias_pos": ("transcritical", "h", 1),
    "tc_ss_bias_neg": ("transcritical", "h", -1),
    "pf_ss_mu_broken": ("pitchfork", "mu", 1),
    "pf_ss_h_broken": ("pitchfork", "h", 1),
    "pf_ss_h_sym": ("pitchfork", "h", -1),
    "hopf_ss_bias": ("hopf", "h", -1),
}


@pytest.mark.parametrize("law", STEADY)
def test_steady_states(law):
    make, lens, prefactor = STEADY[law]
    mu = np.array([1e-4, 1e-3, 1e-2])
    top = np.array([np.linalg.eigvalsh(ssntk.steady_state_ntk(*make(value), wrt=lens))[-1] for value in mu])
    assert abs(slope(mu, top) - exponent(law)) < 0.01
    np.testing.assert_allclose(top[0] / mu[0] ** exponent(law), prefactor, rtol=0.01)
    name, parameter, sign = SIDES[law]
    np.testing.assert_allclose(top, laws.steady_state(name, sign * mu, parameter, omega=2.0), rtol=1e-9)
    if law == "sn_ss_mu":
        rate = 2 * np.sqrt(mu)
        assert abs(slope(rate, top) - exponent("sn_ss_lambda")) < 0.01


@pytest.mark.parametrize("law", ["tc_ss_mu_trivial", "pf_ss_mu_sym"])
def test_steady_states_that_do_not_answer_at_all(law):
    model = {"tc": nf.transcritical, "pf": nf.pitchfork}[law[:2]](-0.1)
    assert float(ssntk.steady_state_ntk(model, [0.0], wrt=lambda m: m.mu)[0, 0]) == 0.0
    assert laws.steady_state({"tc": "transcritical", "pf": "pitchfork"}[law[:2]], -0.1, "mu") == 0.0


@pytest.mark.parametrize("scaled", [1e-3, 0.3, 1.0, 5.0, 30.0])
def test_horizon_scaling(scaled):
    horizon = 20.0
    mu = (scaled / horizon / 2) ** 2
    node = integral(nf.saddle_node(mu), lambda m: m.mu, mu**0.5, horizon)
    np.testing.assert_allclose(node[0], laws.channel(1.0, -2 * mu**0.5, horizon), rtol=1e-3)
    focus = integral(nf.pitchfork(-scaled / horizon), lambda m: (m.mu, m.h), 0.0, horizon)
    np.testing.assert_allclose(focus[0], laws.channel(1.0, -scaled / horizon, horizon), rtol=1e-3)
    # Of (mu, h) only h moves the fixed point x = 0.
    assert focus[1] < 1e-12 * focus[0]


def test_horizon_scaling_on_the_unstable_side():
    for scaled in (2.0, 6.0):
        top = integral(nf.pitchfork(scaled / 20.0), lambda m: m.h, 0.0, 20.0)[0]
        np.testing.assert_allclose(top, laws.channel(1.0, scaled / 20.0, 20.0), rtol=1e-3)
    # e^(2 mu T) / (2 mu^3), up to e^(-mu T).
    np.testing.assert_allclose(top, np.exp(2 * 6.0) / (2 * 0.3**3), rtol=0.02)


LANDING = {
    "sn_crit_landing": (nf.saddle_node(0.0), lambda m: m.mu, 1 / 27),
    "tc_crit_landing_mu": (nf.transcritical(0.0), lambda m: m.mu, 1 / 4),
    "tc_crit_landing_h": (nf.transcritical(0.0), lambda m: m.h, 1 / 27),
    "pf_crit_landing_mu": (nf.pitchfork(0.0), lambda m: m.mu, 1 / 16),
    "pf_crit_landing_h": (nf.pitchfork(0.0), lambda m: m.h, 4 / 75),
    "hopf_crit_landing_mu": (nf.hopf(0.0, 0.05), lambda m: m.mu, 1 / 16),
    "hopf_crit_landing_omega": (nf.hopf(0.0, 0.05), lambda m: m.omega, 1 / 4),
}


@pytest.mark.parametrize("law", some(LANDING, [law for law in LANDING if law.endswith(("landing", "mu"))]))
def test_landing_on_the_critical_point(law):
    model, lens, prefactor = LANDING[law]
    x0 = [1.0] + [0.0] * (model.n_state - 1)
    horizons = np.array([1000.0, 2000.0])
    values = np.array([integral(model, lens, x0, horizon, dense_start=True)[0] for horizon in horizons])
    # The next term is of relative order 1 / T, times a logarithm at most: 1 % of the exponent at T = 1000.
    assert abs(slope(horizons, values) - exponent(law)) < 0.01
    np.testing.assert_allclose(values[-1] / horizons[-1] ** exponent(law), prefactor, rtol=0.01)
    kind = {"sn": "saddle-node", "tc": "transcritical", "pf": "pitchfork", "hopf": "hopf"}[law.split("_")[0]]
    parameter = "mu" if kind == "saddle-node" else law.split("_")[-1]
    np.testing.assert_allclose(values, laws.landing(kind, parameter, horizons), rtol=0.02)


def test_pitchfork_transients():
    mu = np.array([0.02, 0.04])
    weak = np.array([integral(nf.pitchfork(-m), lambda m: m.mu, 1e-4, 25 / m)[0] for m in mu])
    assert abs(slope(mu, weak) - exponent("pf_transient_mu_linear")) < 0.01
    np.testing.assert_allclose(weak * mu**3, 1e-8 / 4, rtol=0.01)
    np.testing.assert_allclose(weak, laws.transient(1e-4, -mu), rtol=0.01)
    mu = np.array([1e-4, 2e-4])
    strong = np.array([integral(nf.pitchfork(-m), lambda m: m.mu, 1.0, 25 / m, dense_start=True)[0] for m in mu])
    assert abs(slope(mu, strong) - exponent("pf_transient_mu_nonlinear")) < 0.01
    np.testing.assert_allclose(strong * mu**2, 0.1431, rtol=0.01)


def test_escape_from_a_pitchfork_peaks():
    # From x0 the sensitivity to h grows as exp(mu t) / mu until the state saturates. Its square peaks at (4/27) / (mu x0^2).
    mu, x0 = 0.5, np.array([1e-4, 1e-3])
    peaks = []
    for start in x0:
        probe = ssntk.Probe(np.linspace(0.0, 2 * np.log(mu**0.5 / start) / mu, POINTS), x0=[start])
        rows = ssntk.parameter_jacobian(nf.pitchfork(mu), probe, wrt=lambda m: m.h, integrator=FINE)
        peaks.append(float(rows.max()) ** 2)
    assert abs(slope(x0, np.array(peaks)) - exponent("pf_escape_peak")) < 0.01
    # To O(x0), and the 800 times miss the peak by less than 1e-3 of it.
    np.testing.assert_allclose(peaks * x0**2, 4 / 27 / mu, rtol=0.01)
    np.testing.assert_allclose(peaks, laws.escape_peak(mu, x0), rtol=0.01)


def test_ghost_of_a_saddle_node():
    e = np.array([1e-5, 1e-4])
    # From x = 1 through the bottleneck to x = -1 takes (2 / sqrt(e)) atan(1 / sqrt(e)), which tends to pi / sqrt(e).
    times = 2 / np.sqrt(e) * np.arctan(1 / np.sqrt(e))
    middles = []
    for value, time in zip(e, times, strict=True):
        # The middle, three quarters of the way to the exit by phase, and x = -1.
        phase = np.arctan(np.sqrt(value))
        probe = ssntk.Probe([0.0, time / 2, (3 * np.pi / 4 - phase) / np.sqrt(value), time], x0=[1.0])
        states = ssntk.simulate(nf.saddle_node(-value), probe, integrator=FINE)[0, :, 0]
        # At the exit the velocity is one, and time is known to 1e-6 by then.
        np.testing.assert_allclose(states, [1.0, 0.0, -np.sqrt(value), -1.0], atol=1e-5)
        rows = ssntk.parameter_jacobian(nf.saddle_node(-value), probe, integrator=FINE)
        middles.append(float(rows[0, 1, 0, 0]) ** 2)
        # The part from before the bottleneck is of relative order sqrt(e).
        np.testing.assert_allclose(rows[0, 1:3, 0, 0] ** 2, laws.ghost(-value, [np.pi / 2, 3 * np.pi / 4]), rtol=0.01)
        np.testing.assert_allclose(laws.ghost_time(-value), time, rtol=0.01)
    assert abs(slope(e, times) - exponent("sn_ghost_time")) < 0.01
    assert abs(slope(e, middles) - exponent("sn_ghost_mid")) < 0.01
    np.testing.assert_allclose(middles * e, np.pi**2 / 16, rtol=0.01)


def test_hopf_focus():
    # A small initial state and the two parameters: a double eigenvalue.
    mu, size = np.array([0.05, 0.1]), 1e-3
    pairs = np.array([integral(nf.hopf(-m, 1.0), lambda m: (m.mu, m.omega), [size, 0.0], 20 / m)[:2] for m in mu])
    for top in pairs.T:
        assert abs(slope(mu, top) - exponent("hopf_focus_transient")) < 0.01
        np.testing.assert_allclose(top * mu**3, size**2 / 4, rtol=0.01)
        np.testing.assert_allclose(top, laws.transient(size, -mu, 20 / mu), rtol=1e-3)
    horizons = np.array([20.0, 40.0])
    pairs = np.array([integral(nf.hopf(0.0, 1.0), lambda m: (m.mu, m.omega), [size, 0.0], T)[:2] for T in horizons])
    for top in pairs.T:
        assert abs(slope(horizons, top) - exponent("hopf_focus_saturation")) < 0.01
        np.testing.assert_allclose(top / horizons**3, size**2 / 3, rtol=0.01)
        np.testing.assert_allclose(top, laws.transient(size, 0.0, horizons), rtol=1e-3)


def test_hopf_limit_cycle():
    horizon, mu = 40.0, np.array([0.5, 1.0])
    phase, amplitude, shear = (
        np.array([integral(nf.hopf(m, 1.0, b), lens, [m**0.5, 0.0], horizon)[0] for m in mu])
        for lens, b in ((lambda m: m.omega, 0.0), (lambda m: m.mu, 0.0), (lambda m: m.mu, 2.0))
    )
    assert abs(slope(mu, phase) - exponent("hopf_lc_phase")) < 0.01
    np.testing.assert_allclose(phase, laws.limit_cycle("omega", mu, horizon), rtol=1e-3)
    np.testing.assert_allclose(amplitude, laws.limit_cycle("mu", mu, horizon), rtol=1e-3)
    # T / (4 mu), b^2 mu T^3 / 3: to O(1 / (mu T)).
    np.testing.assert_allclose(amplitude, horizon / (4 * mu), rtol=0.1)
    np.testing.assert_allclose(shear, laws.limit_cycle("mu", mu, horizon, shear=2.0), rtol=1e-3)
    # b^2 mu T^3 / 3 up to O(1 / (mu T)). The phase responds to mu only after the amplitude has, 1 / (2 mu) later, so that
    # (T - 1 / (2 mu))^3 is more accurate. The remaining error is of second order, and below 1 %.
    np.testing.assert_allclose(shear, 4 * mu * (horizon - 1 / (2 * mu)) ** 3 / 3, rtol=0.01)


def test_a_constant_bias_is_not_amplified_on_the_limit_cycle():
    answers = []
    for horizon in (50.0, 200.0):
        probe = ssntk.Probe(np.linspace(0.0, horizon, POINTS), x0=[0.5, 0.0])
        rows = ssntk.parameter_jacobian(nf.hopf(0.25, 2.0), probe, wrt=lambda m: m.h, integrator=FINE)
        answers.append(float(jnp.abs(rows).max()))
    # The sensitivity is bounded: a horizon four times as long does not increase it.
    np.testing.assert_allclose(answers[1], answers[0], rtol=0.02)


def test_the_naive_claim_that_any_parameter_is_amplified_is_false():
    # The kernel does not diverge at every bifurcation: that of a constant bias at a Hopf point and that of mu at a
    # transcritical stay bounded.
    for model, x, lens in (
        (nf.hopf(-1e-6, 2.0), [0.0, 0.0], lambda m: m.h),
        (nf.transcritical(1e-6), [1e-6], lambda m: m.mu),
    ):
        assert np.linalg.eigvalsh(ssntk.steady_state_ntk(model, x, wrt=lens))[-1] < 2.0


def test_measured_exponent_and_its_next_term():
    distance = np.geomspace(1e-7, 1e-1, 25)
    values = 3.0 / distance * np.exp(20 * np.sqrt(distance))
    plain, fitted = (measured_exponent(distance, values, next_order=order) for order in (None, 0.5))
    assert abs(fitted + 1) < 1e-10
    assert 1e-3 < abs(plain + 1) < 0.05
    assert np.isnan(measured_exponent(distance[:2], values[:2]))
    assert np.isnan(measured_exponent(distance, np.full(25, np.nan)))
