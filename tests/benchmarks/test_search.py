"""The search for fixed points against scipy's, as ratios in one run: `pytest -m slow tests/benchmarks -s -n 0`."""

import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("n", "count", "rounds"), [(64, 64, 5), (128, 64, 3), (250, 64, 1)])
def test_the_search_against_hybr(n, count, rounds):
    """From the same starts on a random network of gain 1.5: sooner, and at least as many of them arrive."""
    model = ssntk.CTRNN(n, 0, 1, gain=1.5, key=jr.key(n))
    weight = np.asarray(model.weight)
    starts = np.random.default_rng(n).normal(size=(count, n))
    arrived = {}

    def ours():
        found = ssntk.find_fixed_points(model, starts=starts)
        arrived["ours"], arrived["points"] = found.n_starts - found.n_lost, len(found)

    def hybr():
        ends = [scipy.optimize.root(lambda x: -x + 1.5 * weight @ np.tanh(x), start, method="hybr") for start in starts]
        arrived["hybr"] = sum(end.success for end in ends)

    search, other = timed(ours, hybr, rounds=rounds)
    print(
        f"\nsearch, n = {n}, {count} starts: {search:.2f} s, {arrived['ours']} arrive at {arrived['points']} points;",
        end=" ",
    )
    print(f"hybr {other:.2f} s, {arrived['hybr']} arrive, ratio {other / search:.1f}")
    assert other / search > 1
    assert arrived["ours"] >= min(arrived["hybr"], count // 4)


@pytest.mark.parametrize(("n", "most"), [(128, 4.0), (256, 16.0)])
def test_a_search_in_searches_of_a_small_network(n, most):
    """256 starts on a random network of gain 1.5: growth from n = 64 to n at most that of the work of one LU each."""
    models = {size: ssntk.CTRNN(size, 0, 1, gain=1.5, key=jr.key(size)) for size in (64, n)}
    starts = {size: np.random.default_rng(size).normal(size=(256, size)) for size in models}
    calls = [lambda size=size: ssntk.find_fixed_points(models[size], starts=starts[size]) for size in models]
    small, large = timed(*calls, rounds=1)
    print(f"\nsearch, 256 starts: n = 64 {small:.2f} s, n = {n} {large:.2f} s")
    assert large / small <= 2 * most
