"""Branches and verdicts of hundreds of units, in units of what their dense eigenvalues cost in the same run.

`pytest -m slow tests/benchmarks -s -n 0` prints them. The networks are random with the seeds given, and no pair is warm with
the same weights: only compiled code is shared.
"""

import time

import jax.random as jr
import numpy as np
import pytest

import ssntk

pytestmark = pytest.mark.slow


def dense(n):
    """The median seconds of all eigenvalues of a random matrix of n units."""
    matrix, seconds = np.random.default_rng(0).normal(size=(n, n)) / n**0.5, []
    for _ in range(5):
        began = time.perf_counter()
        np.linalg.eigvals(matrix)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def network(n, gain, seed):
    return ssntk.CTRNN(n, 1, 1, gain=gain, key=jr.key(seed))


@pytest.mark.parametrize(("n", "most"), [(128, 3), (256, 3)])
def test_a_branch_in_dense_eigenvalues_for_each_of_its_points(n, most):
    ratios = []
    for seed in range(4):
        family = ssntk.Family.input(network(n, 1.3, seed), [1.0])
        unit, began = dense(n), time.perf_counter()
        branch = ssntk.continuation(family, (-4.0, 4.0))
        taken = time.perf_counter() - began
        assert branch.unresolved == ()
        events = len(branch.bifurcations)
        print(f"\nbranch, n = {n}, seed {seed}: {len(branch)} points, {events} events, {taken:.1f} s,", end=" ")
        print(f"{taken / len(branch) / unit:.2f} dense eigenvalue computations for each point", end="")
        ratios.append(taken / len(branch) / unit)
    # The first compiles.
    assert np.median(ratios[1:]) <= most


@pytest.mark.parametrize(("n", "most"), [(256, 150), (512, 80)])
def test_a_verdict_in_dense_eigenvalues(n, most):
    ratios = []
    for seed in range(3):
        model = network(n, 0.9, seed)
        unit, began = dense(n), time.perf_counter()
        found = ssntk.criticality(model)
        taken = time.perf_counter() - began
        print(f"\nverdict, n = {n}, seed {seed}: {found.verdict}, {taken:.1f} s, {taken / unit:.0f} dense", end="")
        ratios.append(taken / unit)
    assert np.median(ratios[1:]) <= most
