"""One network against random ones of its gain, and the laws at rest on networks' kernels. Compiles kernels at rest."""

import numpy as np
import pytest
import scipy.stats

import ssntk
from ssntk import infinite
from ssntk.infinite.judge import against_random, leaks
from ssntk.models.clock import Continuous, Steps


def gaussian(seed, n, gain):
    return gain * np.random.default_rng(seed).standard_normal((n, n)) / n**0.5


def orthogonal(seed, n, gain):
    return gain * scipy.stats.ortho_group.rvs(n, random_state=seed)


def symmetric(seed, n, gain):
    weights = gaussian(seed, n, gain)
    return (weights + weights.T) / 2**0.5


def low_rank(seed, n, gain):
    ones = np.random.default_rng(seed).standard_normal(n)
    return gain * np.outer(ones, ones) / n + gaussian(seed + 1, n, 0.4)


def percentile(m, **how):
    n = len(m)
    return against_random(m - np.eye(n), np.ones(n), Continuous(), **how).percentile


@pytest.mark.parametrize(
    ("n", "gain", "clock"),
    [(12, 0.95, Continuous()), pytest.param(12, 0.8, Steps(1.0), marks=pytest.mark.slow)]
    + [pytest.param(64, 0.7, clock, marks=pytest.mark.slow) for clock in (Continuous(), Steps(1.0))],
)
def test_the_percentile_of_a_random_network_is_uniform(n, gain, clock):
    """The map is that of an Euler step of one leak, df/dx of which is M - 1, too."""
    found = [against_random(gaussian(100 + seed, n, gain) - np.eye(n), np.ones(n), clock).percentile for seed in range(64)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("n", "seed"), [(64, 0), (64, 1), (100, 2)])
def test_structure_is_told_from_gain(n, seed):
    assert percentile(symmetric(seed, n, 0.45)) < 0.01
    assert percentile(low_rank(seed, n, 0.9)) < 0.01
    assert percentile(orthogonal(seed, n, 0.7)) > 0.95


def test_unequal_slopes_of_units_are_part_of_the_gain():
    """As of saturated units at a fixed point: columns that differ in power by 100 times."""
    slopes = np.geomspace(0.2, 2.0, 10)
    by_columns = [percentile(gaussian(seed, 10, 0.6) * slopes) for seed in range(24)]
    by_rows = [percentile(slopes[:, None] * gaussian(seed, 10, 0.6), by_rows=True) for seed in range(24)]
    for found in (by_columns, by_rows):
        assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_comparison_has_no_units(seed):
    """Other units of time, and leaks that differ between the units of the network."""
    n, rng = 16, np.random.default_rng(seed)
    m, tau = gaussian(seed, n, 0.8), 10 ** rng.uniform(-0.3, 0.3, n)
    first = against_random((m - np.eye(n)) / tau[:, None], tau, Continuous())
    for c in 10 ** rng.uniform(-6, 6, 3):
        other = against_random((m - np.eye(n)) / tau[:, None] / c, tau * c, Continuous())
        assert other.percentile == first.percentile
        assert (other.radius * c, other.gain) == pytest.approx((first.radius, first.gain), rel=1e-9)


@pytest.mark.parametrize(("n", "gain"), [(64, 0.5), (128, 0.5), (128, 0.7)])
def test_the_expected_radius_is_the_law(n, gain):
    found = against_random(gaussian(7, n, gain) - np.eye(n), np.ones(n), Continuous())
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert found.radius == pytest.approx(infinite.stability_radius(found.gain, n), rel=0.06)


def judged(weight, **how):
    return ssntk.criticality(ssntk.CTRNN.from_weights(weight, **how), n_starts=4)


def test_a_verdict_says_whether_the_gain_or_the_structure_makes_it():
    n = 48
    by_gain = judged(gaussian(1, n, 0.8))
    assert 0.05 < by_gain.percentile < 0.95
    assert f"as its gain of {by_gain.gain:.2g} makes it" in by_gain.reason
    safe = judged(orthogonal(0, n, 0.7))
    assert safe.percentile > 0.95
    assert "though by its structure farther than" in safe.reason
    assert safe.gain == pytest.approx(0.7)
    fragile = judged(symmetric(0, n, 0.45))
    assert fragile.percentile < 0.05
    assert fragile.expected_radius > 3 * fragile.stability_radius
    assert "by its structure: only" in fragile.reason


def test_a_verdict_on_the_euler_map_is_that_on_its_matrix():
    """At a step of one leak the map's derivative is the matrix: the same law, but with two ends of the edge."""
    weight = gaussian(5, 48, 0.6)
    flow = judged(weight)
    mapped = ssntk.criticality(ssntk.EulerMap(ssntk.CTRNN.from_weights(weight), 1.0), n_starts=4)
    assert mapped.gain == pytest.approx(flow.gain)
    assert mapped.expected_radius == pytest.approx(flow.expected_radius, rel=0.15)
    assert mapped.expected_radius < flow.expected_radius


def test_models_without_leaky_units_have_no_percentile():
    for model in (ssntk.normal_forms.hopf(-0.1, 1.0), ssntk.CTRNN.from_weights([[0.9]])):
        found = ssntk.criticality(model, time_scale=1.0)
        assert (found.percentile, found.expected_radius, found.gain) == (None, None, None)
        assert "gain of" not in found.reason


@pytest.mark.parametrize("clock", [Continuous(), Steps(0.5)])
def test_a_network_that_is_silent_is_as_all_others_of_its_gain(clock):
    """Without weights, or with ReLU units that are all off, df/dx is that of leaks alone: the radius is 1 / tau."""
    found = against_random(-np.eye(4) / 0.5, np.full(4, 0.5), clock)
    assert (found.gain, found.percentile) == (0.0, 0.5)
    assert found.radius == pytest.approx(2.0)


def test_iterates_of_a_map_are_no_network_of_leaky_units():
    network = ssntk.EulerMap(ssntk.CTRNN.from_weights(gaussian(0, 8, 0.7)), 1.0)
    assert leaks(network) is not None
    assert leaks(ssntk.Iterated(network, 2)) is None


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "within"), [(0.6, (0.02, 0.04, 0.08)), (0.8, (0.08, 0.18, 0.12))])
def test_kernels_at_rest_have_the_laws_spectrum(gain, within):
    """The median of twenty networks of 256 units. Its standard error is a third of what is allowed."""
    n, found = 256, []
    for seed in range(20):
        model = ssntk.CTRNN.from_weights(gaussian(500 + seed, n, 1.0), gain=gain)
        kernel = np.asarray(ssntk.steady_state_ntk(model, np.zeros(n), wrt=lambda m: m.bias))
        values = np.linalg.eigvalsh(kernel)
        found.append([values.mean(), values.sum() ** 2 / (values**2).sum() / n, values[-1] ** -0.5])
    nu = infinite.resolved(n, gain)
    smallest = infinite.singular_values(gain)[0] * (1 + 1.7 * gain * nu ** (-2 / 3))
    ratios = np.median(found, axis=0) / [infinite.trace(gain), infinite.participation_ratio(gain), smallest]
    assert (np.abs(ratios - 1) < within).all(), ratios


@pytest.mark.slow
def test_kernels_at_nonlinear_fixed_points_have_the_laws_participation_ratio():
    """Random biases of 0.5 at gain 0.8: with the mean squares and fourth powers of each network's own slopes."""
    n, gain, ratios = 256, 0.8, []
    for seed in range(20):
        rng = np.random.default_rng(900 + seed)
        weight, bias = gaussian(seed, n, 1.0), 0.5 * rng.standard_normal(n)
        x = np.zeros(n)
        for _ in range(400):
            x = gain * weight @ np.tanh(x) + bias
        slopes = gain**2 / np.cosh(x) ** 4
        model = ssntk.CTRNN.from_weights(weight, gain=gain, bias=bias)
        values = np.linalg.eigvalsh(np.asarray(ssntk.steady_state_ntk(model, x, wrt=lambda m: m.bias)))
        q, r = slopes.mean(), (slopes**2).mean()
        law = infinite.participation_ratio(q**0.5, kurtosis=r / q**2)
        ratios.append(values.sum() ** 2 / (values**2).sum() / n / law)
    assert np.median(ratios) == pytest.approx(1, abs=0.05)
