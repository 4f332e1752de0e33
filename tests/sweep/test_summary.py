"""Numbers about all points of a store together, against closed forms."""

import numpy as np
import pytest

from ssntk.sweep.summary import medians, over_axes, quartiles, slope_of


def test_the_slope_of_a_power_law_and_of_its_next_term():
    distance = np.geomspace(1e-1, 1e-7, 25)
    slope = slope_of("saddle-node", distance, 3.0 / distance)
    # The last three of six decades are fitted. For an exact power only the rounding of logarithms of size 16 remains.
    assert (slope.decades, slope.predicted, slope.next_order) == (3.0, -1.0, 0.5)
    np.testing.assert_allclose([slope.measured, slope.corrected], -1.0, atol=1e-13)
    # log K = -log d + 0.2 sqrt(d): the plain slope is off by it, and the one with the next term is not.
    bent = slope_of("saddle-node", distance, np.exp(0.2 * distance**0.5) / distance)
    np.testing.assert_allclose(bent.corrected, -1.0, atol=1e-12)
    assert 1e-7 < abs(bent.measured + 1) < 1e-3


def test_a_kind_without_a_law_has_a_slope_and_no_prediction():
    distance = np.geomspace(1e-1, 1e-5, 9)
    slope = slope_of("of your own", distance, distance**-0.5)
    assert slope.measured == pytest.approx(-0.5, abs=1e-12)
    assert np.isnan(slope.predicted)


def test_medians_over_the_other_axes_leave_out_what_is_not_known():
    values = np.arange(12.0).reshape(2, 3, 2)
    values[0, 0] = np.nan
    values[1, 0, 0] = np.inf
    folded = over_axes(values.ravel(), (2, 3, 2), (1, 0))
    assert folded.shape == (3, 2, 1 * 2)
    np.testing.assert_array_equal(folded[2, 1], [10.0, 11.0])
    found = medians(folded)
    np.testing.assert_array_equal(found, [[np.nan, 7.0], [2.5, 8.5], [4.5, 10.5]])
    np.testing.assert_array_equal(quartiles(np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.nan])), [0.0, 1.0, 2.0, 3.0, 4.0])
