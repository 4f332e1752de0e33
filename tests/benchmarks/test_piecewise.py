"""Exact solutions of ReLU networks against the search, as ratios in one run: `pytest -m slow tests/benchmarks -s -n 0`."""

import jax
import numpy as np
import pytest
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow


def test_all_points_of_a_winner_take_all_network():
    """All 1023 points by a tree over the patterns, against the warm search with 256 starts."""
    weight = -1.5 * np.ones((10, 10)) + 2.4 * np.eye(10)
    model = ssntk.CTRNN.from_weights(weight, bias=np.ones(10), activation=jax.nn.relu)
    found = [ssntk.find_fixed_points(model, method=method) for method in ("exact", "search")]
    exact, search = timed(
        lambda: ssntk.find_fixed_points(model).x, lambda: ssntk.find_fixed_points(model, method="search").x, rounds=3
    )
    print(f"\n{len(found[0])} points in {exact:.3f} s; search {len(found[1])} in {search:.3f} s, ratio {search / exact:.0f}")
    assert len(found[0]) == 1023
    assert search / exact > 4


def test_one_point_of_a_large_network():
    """A network whose fixed point is unique: the proof takes a few dense factorisations of its weights."""
    n = 500
    random = np.random.default_rng(0)
    weight, drive = 0.6 * random.standard_normal((n, n)) / np.sqrt(n), random.standard_normal(n)
    model = ssntk.CTRNN.from_weights(weight, bias=drive, activation=jax.nn.relu)
    assert ssntk.find_fixed_points(model).complete
    exact, values = timed(lambda: ssntk.find_fixed_points(model).x, lambda: np.linalg.eigvals(weight), rounds=3)
    print(f"\nthe point of {n} units in {exact:.2f} s, the eigenvalues of its weights in {values:.2f} s")
    # Its own eigenvalues are computed for the stability, twice.
    assert exact < 20 * values
