"""The search for fixed points against scipy's, as ratios in one run: `pytest -m slow tests/benchmarks -s -n 0`."""

import itertools

import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("n", "seeds", "rounds"), [(64, 2, 3), (128, 2, 1), (250, 1, 1)])
def test_the_search_against_hybr(n, seeds, rounds):
    """From the same 64 starts on random networks of one size, the search is faster in the median, and more starts arrive."""
    ratios, here, there = [], 0, 0
    for gain, seed in itertools.product((1.2, 1.5, 2.0, 3.0), range(seeds)):
        model = ssntk.CTRNN(n, 0, 1, gain=gain, key=jr.key(seed))
        weight = gain * np.asarray(model.weight)
        starts = np.random.default_rng(seed).normal(size=(64, n))

        def ours(model=model, starts=starts):
            return ssntk.find_fixed_points(model, starts=starts)

        def hybr(weight=weight, starts=starts):
            return [scipy.optimize.root(lambda x: -x + weight @ np.tanh(x), start).success for start in starts]

        search, other = timed(ours, hybr, rounds=rounds)
        found, others = ours(), sum(hybr())
        arrive = found.n_starts - found.n_lost
        print(
            f"\nsearch, n = {n}, gain {gain}: {search:.2f} s, {arrive} of 64 arrive at {len(found)} points; "
            f"hybr {other:.2f} s, {others} arrive, ratio {other / search:.1f}",
            end="",
        )
        ratios.append(other / search)
        here, there = here + arrive, there + others
    assert np.median(ratios) > 1
    assert here > there


@pytest.mark.parametrize(("n", "most"), [(128, 4.0), (256, 16.0)])
def test_a_search_in_searches_of_a_small_network(n, most):
    """256 starts on a random network of gain 1.5: growth from n = 64 to n at most that of the work of one LU each."""
    models = {size: ssntk.CTRNN(size, 0, 1, gain=1.5, key=jr.key(size)) for size in (64, n)}
    starts = {size: np.random.default_rng(size).normal(size=(256, size)) for size in models}
    calls = [lambda size=size: ssntk.find_fixed_points(models[size], starts=starts[size]) for size in models]
    small, large = timed(*calls, rounds=1)
    print(f"\nsearch, 256 starts: n = 64 {small:.2f} s, n = {n} {large:.2f} s")
    assert large / small <= 2 * most
