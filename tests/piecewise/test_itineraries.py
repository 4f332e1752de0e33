"""Cycles of piecewise-linear maps, against all itineraries and counts that others published."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute import MAPS, count, orbits
from helpers import seeds

import ssntk

LOZI = ssntk.Map(lambda t, x, u, p: [1 + x[1] - p["a"] * jnp.abs(x[0]), p["b"] * x[0]], {"a": 1.7, "b": 0.5}, 2)
# |x| = 2 relu(x) - x.
LOZI_FORM = tuple(np.array(one, float) for one in ([[1.7, 1], [0.5, 0]], [[-3.4], [0]], [[1, 0]], [0], [1, 0]))
# The number of cycles of the full shift of two symbols (OEIS A001037).
SHIFT = [2, 1, 2, 3, 6, 9, 18, 30, 56, 99, 186, 335]


def tent(slope):
    return ssntk.Map(lambda t, x, u, p: 1 - p * jnp.abs(x), slope, 1)


@pytest.fixture
def file():
    if not MAPS.exists():
        pytest.skip("maps.json lies beside the project, in shared/")
    return json.loads(MAPS.read_text())


def checked(cycles, map):
    """Cycles that were found, after every step was taken by the map itself, and no two are one cycle."""
    for cycle in cycles.x:
        after = np.stack([np.asarray(map.step(x)) for x in cycle])
        np.testing.assert_allclose(np.roll(cycle, -1, axis=0), after, rtol=1e-11, atol=1e-11)
    k = cycles.period
    turns = [{np.roll(one, j, axis=0).tobytes() for j in range(k)} for one in cycles.itinerary]
    assert all(len(one) == k for one in turns)
    assert len(set().union(*turns)) == k * len(cycles)
    return cycles


@pytest.mark.parametrize("k", range(1, 13))
def test_the_full_tent_map(k):
    cycles = checked(ssntk.find_cycles(tent(2.0), k), tent(2.0))
    assert (len(cycles), cycles.complete, cycles.n_starts) == (SHIFT[k - 1], True, 0)
    # Every slope is 2 or -2.
    np.testing.assert_allclose(np.abs(cycles.eigenvalues), 2.0**k, rtol=1e-12)
    assert not cycles.stable.any()


@pytest.mark.parametrize("k", range(1, 11))
def test_the_counts_of_the_reference_file(file, k):
    maps = file["piecewise_linear_maps"]
    lozi = checked(ssntk.find_cycles(LOZI, k), LOZI)
    assert (len(lozi), lozi.complete) == (maps["lozi_1.7_0.5"]["cycles_by_period_1_to_10"][k - 1], True)
    assert len(ssntk.find_cycles(tent(1.9), k)) == maps["tent_1.9"]["cycles_by_period_1_to_12"][k - 1]


@pytest.mark.parametrize("k", [*range(1, 14), *(pytest.param(k, marks=pytest.mark.slow) for k in (14, 15, 16))])
def test_the_lozi_map_against_all_itineraries(k):
    cycles = ssntk.find_cycles(LOZI, k)
    assert cycles.complete
    assert len(cycles) == count(*LOZI_FORM, k)
    x, _ = orbits(*LOZI_FORM, k)
    # The sum of the signs of det(1 - DF^k) over all points with F^k(x) = x.
    total = 0
    for state in x:
        product, here = np.eye(2), state
        for _ in range(k):
            product = np.array([[-1.7 * np.sign(here[0]), 1], [0.5, 0]]) @ product
            here = np.array([1 + here[1] - 1.7 * abs(here[0]), 0.5 * here[0]])
        total += np.sign(np.linalg.det(np.eye(2) - product))
    assert cycles.index_sum == total


@pytest.mark.parametrize("seed", seeds(10, 60))
def test_random_networks_against_all_itineraries(seed):
    random = np.random.default_rng(seed)
    n, m = int(random.integers(1, 4)), int(random.integers(1, 4))
    k = int(random.integers(1, 12 // m + 1))
    A, W, h = random.uniform(-0.9, 0.9, n), 2 * random.standard_normal((n, m)), random.standard_normal(n)
    W2, h2 = random.standard_normal((m, n)), random.standard_normal(m)
    model = ssntk.PLRNN.from_weights(A, W, h, W2=W2, h2=h2)
    cycles = checked(ssntk.find_cycles(model, k), model)
    assert cycles.complete
    assert len(cycles) == count(np.diag(A), W, W2, h2, h, k)


@pytest.mark.slow
def test_the_published_cycles(file):
    for case in file["scyfi_published_cases"]["cases"]:
        model = ssntk.PLRNN.from_weights(case["A"], case["W"], case["h"])
        cycles = checked(ssntk.find_cycles(model, case["k"]), model)
        assert len(cycles) == case["cycles"], case["name"]


def test_the_trained_network_has_no_two_cycle(file):
    case = next(one for one in file["scyfi_published_cases"]["cases"] if one["name"] == "test_finding_10_cycle_10D")
    model = ssntk.PLRNN.from_weights(case["A"], case["W"], case["h"])
    cycles = ssntk.find_cycles(model, 2)
    assert (len(cycles), cycles.complete) == (file["scyfi_published_cases"]["trained_10d"]["two_cycles_proved"], True)


@pytest.mark.slow
def test_the_shallow_network(file):
    case = file["scyfi_shallow"]
    model = ssntk.PLRNN.from_weights(case["A"], case["W1"], case["h1"], W2=case["W2"], h2=case["h2"])
    for k in (1, 2, 3):
        cycles = checked(ssntk.find_cycles(model, k, prove=True), model)
        assert (len(cycles), cycles.complete) == (case["exact_by_regions"][str(k)], True)
    assert len(checked(ssntk.find_cycles(model, 4), model)) == case["heuristic_period_4"]


def test_a_chaotic_network(file):
    case = file["piecewise_linear_maps"]["chaotic_plrnn3_12"]
    model = ssntk.PLRNN.from_weights(case["A"], case["W"], case["h"])
    for k, number in enumerate(case["cycles_by_period_1_to_6"], start=1):
        cycles = checked(ssntk.find_cycles(model, k), model)
        assert (len(cycles), cycles.complete) == (number, True)
    proved = ssntk.find_cycles(model, 7, prove=True)
    assert (len(proved), proved.complete) == (case["period_7"], True)
    assert ssntk.find_cycles(model, 7).complete is None


def test_more_itineraries_than_can_be_listed_are_searched():
    # Of the 2^22 / 22 itineraries of 22 steps none is left out by the tent map.
    cycles = checked(ssntk.find_cycles(tent(1.2), 22, n_starts=256), tent(1.2))
    assert cycles.complete is None
    assert cycles.n_starts >= 256
    assert cycles.hits.sum() <= cycles.n_starts - cycles.n_lost


@pytest.mark.parametrize("seed", range(6))
def test_cycles_in_other_units(seed):
    random = np.random.default_rng(seed)
    sizes = 10 ** random.uniform(-6, 6, 2)

    def other(t, z, u, p):
        x = z / sizes
        return [(1 + x[1] - 1.7 * jnp.abs(x[0])) * sizes[0], 0.5 * x[0] * sizes[1]]

    for k in (1, 2, 6, 8):
        one, two = ssntk.find_cycles(LOZI, k), ssntk.find_cycles(ssntk.Map(other, 0.0, 2), k)
        assert (two.complete, two.index_sum) == (True, one.index_sum)
        np.testing.assert_allclose(two.x / sizes, one.x, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(two.eigenvalues, one.eigenvalues, rtol=1e-8)


def test_a_cycle_on_a_border_is_one_cycle():
    # 0 -> 1 -> 0, with the point 0 on the border of relu(x): the slope over two steps is 1/2 or -3, so both sides agree.
    corner = ssntk.Map(lambda t, x, u, p: 1 + 0.5 * x - 3.5 * jax.nn.relu(x) + 4 * jax.nn.relu(x - 0.5), 0.0, 1)
    cycles = ssntk.find_cycles(corner, 2)
    assert cycles.complete
    assert (np.abs(cycles.x[:, 0, 0]) < 1e-12).sum() == 1
    np.testing.assert_allclose(cycles.x[np.abs(cycles.x[:, 0, 0]) < 1e-12].ravel(), [0, 1], atol=1e-12)


def test_a_segment_of_cycles_is_for_the_search():
    # x -> 1 - x between the borders: every point but 1/2 has the period 2.
    mirror = ssntk.Map(lambda t, x, u, p: 1 - x + 0 * u[0] + 0.5 * jax.nn.relu(x - 2), 0.0, 1, 1)
    with pytest.raises(ValueError, match=r"^method must be 'auto' or 'search' for this model: solutions fill a line"):
        ssntk.find_cycles(mirror, 2, method="exact")
    assert ssntk.find_cycles(mirror, 2, n_starts=64).complete is None


def test_what_the_arguments_ask_for():
    exact, searched = (ssntk.find_cycles(LOZI, 6, method=method) for method in ("exact", "search"))
    assert (searched.complete, searched.itinerary) == (None, None)
    np.testing.assert_allclose(searched.x, exact.x, atol=1e-10)
    np.testing.assert_allclose(searched.eigenvalues, exact.eigenvalues, rtol=1e-8)
    started = ssntk.find_cycles(LOZI, 6, starts=exact.x[:1])
    assert (len(started), started.n_starts) == (1, 1)
    logistic = ssntk.Map(lambda t, x, u, p: p * x * (1 - x), 3.2, 1)
    product = "for a model that is not piecewise linear, and this one has a product of two values"
    with pytest.raises(ValueError, match=f"^prove must be False {product}"):
        ssntk.find_cycles(logistic, 2, prove=True)
    with pytest.raises(ValueError, match=f"^method must be 'auto' or 'search' {product}"):
        ssntk.find_cycles(logistic, 2, method="exact")
    with pytest.raises(ValueError, match=r"^prove must be False with starts"):
        ssntk.find_cycles(LOZI, 2, prove=True, starts=np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"^method must be one of"):
        ssntk.find_cycles(LOZI, 2, method="all")
