"""Feed-forward networks of infinite width against extended precision and finite networks. Compiles nothing."""

import numpy as np
import pytest
from helpers import reference

import ssntk
from ssntk import infinite

REFERENCE = reference("theory")


@pytest.mark.parametrize("row", REFERENCE["relu_two_layer"]["values"], ids=lambda row: str(row["u"]))
def test_two_layers_of_relu(row):
    # Rounding.
    np.testing.assert_allclose(infinite.relu_ntk(row["u"], 2), row["ntk"], atol=1e-12, rtol=0)
    np.testing.assert_allclose(infinite.relu_nngp(row["u"], 2), row["nngp"], atol=1e-12, rtol=0)


def test_the_usual_formula_of_two_layers_is_the_covariance_and_not_the_kernel():
    u = np.linspace(-1, 1, 21)
    seen = (u * np.arccos(-u) + np.sqrt(1 - u**2)) / np.pi
    np.testing.assert_allclose(infinite.relu_nngp(u, 2), seen, atol=1e-14)
    np.testing.assert_allclose(infinite.relu_ntk(u, 2), seen + u * np.arccos(-u) / np.pi, atol=1e-14)


@pytest.mark.parametrize("row", REFERENCE["deep_edge_of_chaos"]["values"], ids=lambda row: f"{row['L']}-{row['delta']}")
def test_deep_networks(row):
    # Rounding, which adds up over thousands of layers.
    tolerance = 1e-9 if row["L"] == 4096 else 1e-12
    given = {"slope": row["delta"]}
    np.testing.assert_allclose(infinite.relu_ntk(row["u"], row["L"], **given), row["ntk"], rtol=tolerance)
    np.testing.assert_allclose(infinite.relu_nngp(row["u"], row["L"], **given), row["nngp"], rtol=tolerance)
    found = infinite.relu_condition_number(row["n"], row["L"], cosine=row["u"], **given)
    np.testing.assert_allclose(found, row["kappa"], rtol=tolerance)


def test_the_condition_number_of_deep_networks_is_linear_in_the_number_of_inputs():
    deep = {n: infinite.relu_condition_number(n, 4096, cosine=0.3) for n in (1, 50, 200)}
    # The distance from the limit is n log(depth) / depth, which is 0.2 % of n.
    assert deep[1] == 1
    np.testing.assert_allclose((deep[200] - deep[50]) / 150, 1 / 3, rtol=0.01)
    for n, limit in ((1, 1), (2, 5 / 3), (50, 53 / 3)):
        np.testing.assert_allclose(infinite.relu_condition_number(n, np.inf, cosine=0.3), limit)
    # The first correction is of the order n log(depth) / depth, with a factor that falls slowly and depends on the cosine.
    for cosine in (0.0, 0.5):
        far = [infinite.relu_condition_number(50, depth, cosine=cosine) - 53 / 3 for depth in (256, 1024, 4096)]
        factors = np.array(far) * [256, 1024, 4096] / (50 * np.log([256, 1024, 4096]))
        assert (np.diff(factors) < 0).all()
        assert 0.8 < factors[2] < factors[0] < 1.1


def test_smooth_activations_have_another_limit():
    """Erf with biases at the edge of chaos, by its own recursion: 25.95 for 50 inputs after 1e4 layers, limit 1 + 50 / 2."""
    # At the variance q the slope of the map of correlations at one is w 4 / pi / sqrt(1 + 4 q) = 1.
    q = 0.5
    w = np.pi / 4 * np.sqrt(1 + 4 * q)
    kept = w * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))
    bias = q - kept
    assert bias > 0
    c, ntk, diagonal = 0.3 * q, 0.3 * q, q
    for _ in range(10_000):
        slope = w * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * c**2)
        c = w * 2 / np.pi * np.arcsin(2 * c / (1 + 2 * q)) + bias
        ntk, diagonal = c + slope * ntk, q + diagonal
    kappa = (diagonal + 49 * ntk) / (diagonal - ntk)
    # log(depth) / depth per input.
    np.testing.assert_allclose(kappa, 26, rtol=0.01)
    assert abs(kappa - infinite.relu_condition_number(50, np.inf)) > 8


def test_linear_networks():
    u = np.array([-0.7, 0.2, 1.0])
    np.testing.assert_allclose(infinite.relu_nngp(u, 6, slope=0), u)
    np.testing.assert_allclose(infinite.relu_ntk(u, 6, slope=0), 6 * u)


def test_linear_residual_networks_against_finite_ones():
    """The mean of |h|^2 and of the trace of the kernel, over 40 networks of 100 units with 8 blocks."""
    random, n, depth, s = np.random.default_rng(1), 100, 8, 0.5
    nngp, ntk = [], []
    for _ in range(40):
        blocks = [np.eye(n) + s * random.standard_normal((n, n)) / np.sqrt(n) for _ in range(depth)]
        states = [np.ones(n)]
        for block in blocks:
            states.append(block @ states[-1])
        behind, trace = np.eye(n), 0.0
        # dh_L / dW_l = s (blocks behind l) x (the state before l); the entries of W have the size 1 / sqrt n.
        for block, state in zip(blocks[::-1], states[-2::-1], strict=True):
            trace += s**2 * np.sum(behind**2) / n * (state @ state) / n
            behind = behind @ block
        nngp.append(states[-1] @ states[-1] / n)
        ntk.append(trace)
    found = infinite.linear_residual(depth, s)
    for samples, expected in zip((nngp, ntk), found, strict=True):
        error = np.std(samples) / np.sqrt(40)
        assert abs(np.mean(samples) - expected) < 4 * error < 0.2 * expected


def test_harmonic_spectra():
    for depth in (2, 3):
        found = infinite.harmonic_spectrum(lambda u, depth=depth: infinite.relu_ntk(u, depth), 2, 16)
        for row in REFERENCE["gegenbauer_S2"]["values"]:
            if row["L"] == depth:
                np.testing.assert_allclose(found[row["l"]], row["mu"], atol=1e-10)


@pytest.mark.parametrize(("dimension", "slope"), [(1, -1.998), (2, -2.976), (3, -3.907)])
def test_harmonic_spectra_fall_by_the_dimension_whatever_the_depth(dimension, slope):
    """The slopes of the study, row 8: l^-(dimension + 1), each to 2 % at the degrees that were fitted."""
    degrees = np.arange(60, 161)
    found = infinite.harmonic_spectrum(lambda u: infinite.relu_ntk(u, 10), dimension, 160)[degrees]
    fitted = np.polyfit(np.log(degrees), np.log(np.abs(found)), 1)[0]
    np.testing.assert_allclose(fitted, slope, rtol=0.05)


def test_polynomials_have_known_spectra():
    # u^2 = 1 / (d + 1) + (d / (d + 1)) P_2, and the projection on P_2 is divided by the number of harmonics.
    for d, count in ((1, 2), (2, 5), (3, 9)):
        found = infinite.harmonic_spectrum(np.square, d, 3)
        np.testing.assert_allclose(found, [1 / (d + 1), 0, d / (d + 1) / count, 0], atol=1e-13)


def test_nan_outside_and_errors_by_name():
    assert np.isnan(infinite.relu_ntk([1.5, np.nan], 3)).all()
    assert np.isnan(infinite.relu_nngp(0.1, 3, slope=1.5))
    assert np.isnan(infinite.relu_condition_number(3, 4, cosine=-0.6))
    assert np.isnan(infinite.relu_condition_number(3, np.inf, slope=0.0))
    assert infinite.relu_condition_number(3, 4, cosine=1.0) == np.inf
    with pytest.raises(ValueError, match="depth must be at least 1"):
        infinite.relu_ntk(0.1, 0)
    with pytest.raises(ValueError, match="inputs must be an integer"):
        infinite.relu_condition_number(2.5, 3)
    with pytest.raises(ValueError, match="kernel must be a function"):
        infinite.harmonic_spectrum(3.0, 2, 4)
    with pytest.raises(ValueError, match="kernel must return an array"):
        infinite.harmonic_spectrum(lambda u: u[:3], 2, 4)
    with pytest.raises(ssntk.NumericalError, match="must be smooth"):
        infinite.harmonic_spectrum(np.abs, 2, 4)


def test_a_cosine_is_known_up_to_rounding():
    """The cosine of a vector with itself is often the next number above 1."""
    above = np.nextafter(1.0, 2.0)
    assert infinite.relu_ntk([above, -above], 3).tolist() == infinite.relu_ntk([1.0, -1.0], 3).tolist()
    assert np.isnan(infinite.relu_ntk(1 + 1e-12, 3))
