"""Laws of random linear networks on trajectories, against mpmath, matrix exponentials and `ntk`. Compiles one kernel."""

import diffrax
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from helpers import reference

import ssntk
from ssntk import infinite

THEORY = reference("theory")


@pytest.mark.parametrize("row", THEORY["linear_constant_drive"]["values"], ids=lambda row: f"{row['gain']} {row['t']}")
def test_the_kernel_between_two_times_is_that_of_a_double_integral(row):
    found = infinite.constant_drive(row["t"], row["t2"], row["gain"])
    assert found == pytest.approx(row["kernel"], rel=1e-10)
    assert infinite.constant_drive(row["t2"], row["t"], row["gain"]) == found


def test_the_kernel_between_two_times_integrates_the_response_to_a_kick():
    nodes, weights = np.polynomial.legendre.leggauss(40)
    for t, t2, gain in ((0.5, 2.0, 0.3), (4.0, 3.0, 1.0), (6.0, 6.0, 1.4)):
        one, other = t / 2 * (nodes + 1), t2 / 2 * (nodes + 1)
        inner = infinite.green(one[:, None], other[None, :], gain)
        assert infinite.constant_drive(t, t2, gain) == pytest.approx(t * t2 / 4 * weights @ inner @ weights, rel=1e-10)


@pytest.mark.parametrize("row", THEORY["linear_trajectory_spectrum"]["values"], ids=lambda row: str(row["gain"]))
def test_the_spectrum_on_a_trajectory_is_the_reference(row):
    trace, ratio = infinite.trajectory(np.linspace(0, 20, 11), row["gain"])
    assert trace == pytest.approx(row["trace_over_n"], rel=1e-10)
    assert ratio == pytest.approx(row["participation_ratio_over_n"], rel=1e-10)


@pytest.mark.parametrize("gain", [0.4, 0.9, 1.2])
@pytest.mark.parametrize("weights", [None, [0.2, 3.0, 1.0, 0.5]])
def test_a_random_matrix_has_the_spectrum_of_its_law(gain, weights):
    n, ts, found = 200, np.array([0.0, 0.7, 2.0, 4.5]), []
    for seed in range(4):
        a = gain * np.random.default_rng(seed).standard_normal((n, n)) / n**0.5 - np.eye(n)
        responses = [scipy.linalg.solve(a, scipy.linalg.expm(a * t) - np.eye(n)) for t in ts]
        scaled = [np.sqrt(w) * s for w, s in zip(np.ones(4) if weights is None else weights, responses, strict=True)]
        kernel = np.linalg.svd(np.concatenate(scaled), compute_uv=False) ** 2
        found.append([kernel.sum() / n, kernel.sum() ** 2 / (kernel**2).sum() / n])
    assert np.median(found, axis=0) / infinite.trajectory(ts, gain, weights) == pytest.approx(1, abs=0.06)


def test_the_width_that_resolves_a_horizon_grows_as_its_square():
    """At gain 1: measured by the study at 5 and 80, and with ever less growth."""
    widths = [infinite.trajectory(np.linspace(0, t, 801), 1.0)[1] * t**2 for t in (5.0, 20.0, 80.0, 320.0)]
    assert widths[0] == pytest.approx(6.0, rel=0.02)
    assert widths[2] == pytest.approx(12.9, rel=0.02)
    growth = np.diff(widths)
    assert (growth > 0).all()
    assert (np.diff(growth) < 0).all()


@pytest.mark.parametrize(("t", "t2", "gain"), [(1.0, 1.0, 10.0), (1.0, 1.0, 100.0), (20.0, 20.0, 5.0), (50.0, 1.0, 3.0)])
def test_gains_far_beyond_one_are_summed_without_overflow(t, t2, gain):
    """P(k + 1, t) is the chance of more than k events of a Poisson process: its sum is taken in logarithms."""
    j = np.arange(1, 1200)
    logs = [-s + j * np.log(s) - scipy.special.gammaln(j + 1) for s in (t, t2)]
    tails = [np.logaddexp.accumulate(part[::-1])[::-1] for part in logs]
    expected = scipy.special.logsumexp(2 * (j - 1) * np.log(gain) + tails[0] + tails[1])
    assert np.log(infinite.constant_drive(t, t2, gain)) == pytest.approx(expected, rel=1e-11)


def test_what_exceeds_all_numbers_is_infinite():
    assert infinite.green(1e3, 1e3, 2.0) == infinite.constant_drive(1e3, 1e3, 2.0) == np.inf
    assert infinite.constant_drive([0.0, 1.0], 1.0, 1e10).tolist() == [0.0, np.inf]
    trace, ratio = infinite.trajectory([0.0, 400.0], 2.0)
    assert trace == np.inf
    assert 0 < ratio < 1e-4
    with pytest.raises(ValueError, match="gain times ts is too large"):
        infinite.trajectory([0.0, 1.0], 1e10)


def test_a_trajectory_at_rest_has_no_spectrum():
    assert infinite.trajectory([0.0], 0.5, None)[0] == 0
    assert np.isnan(infinite.trajectory([0.0], 0.5, None)[1])


def test_a_network_that_starts_to_grow_is_followed_beyond_its_gain():
    """A mode of a chaotic gain outgrows all others, at twice the rate g - 1, with the power of time of a Bessel function."""
    late = infinite.constant_drive(60.0, 60.0, 1.5) / infinite.constant_drive(50.0, 50.0, 1.5)
    assert np.log(late) / 10 == pytest.approx(2 * 0.5, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "of_trace", "of_ratio"), [(0.5, 0.02, 0.05), (0.8, 0.04, 0.15)])
def test_kernels_of_networks_have_the_laws_spectrum(gain, of_trace, of_ratio):
    """256 linear units, eight keys: the median of networks, as the kernel of the biases has it."""
    n, ts, found = 256, np.linspace(0, 20, 11), []
    for seed in range(8):
        weight = np.random.default_rng(seed).standard_normal((n, n)) / n**0.5
        model = ssntk.CTRNN.from_weights(weight, gain=gain, activation=lambda x: x)
        kernel = ssntk.ntk(
            model,
            ssntk.Probe(ts),
            wrt=lambda m: m.bias,
            weights="trapezoid",
            integrator=ssntk.Integrator(diffrax.Dopri5(), dt=0.5),
        )
        kernel = np.asarray(kernel)
        found.append([np.trace(kernel) / n, np.trace(kernel) ** 2 / (kernel**2).sum() / n])
    trace, ratio = np.median(found, axis=0) / infinite.trajectory(ts, gain)
    assert trace == pytest.approx(1, abs=of_trace)
    assert ratio == pytest.approx(1, abs=of_ratio)
