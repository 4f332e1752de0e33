"""All fixed points of piecewise-linear models, against all sign patterns, closed forms and counts that others published."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute import MAPS, points
from helpers import seeds

import ssntk
from ssntk.piecewise.prove import branch_and_bound
from ssntk.piecewise.regions import cells
from ssntk.precision import unsaid_again

needs_maps = pytest.mark.skipif(not MAPS.exists(), reason="maps.json lies beside the project, in shared/")


def network(weight, drive, form="current", activation=jax.nn.relu, **how):
    return ssntk.CTRNN.from_weights(weight, bias=drive, form=form, activation=activation, **how)


def random_network(n, gain, seed, form="current"):
    random = np.random.default_rng(seed)
    return gain * random.standard_normal((n, n)) / np.sqrt(n), random.standard_normal(n), form


def parts(weight, drive, form):
    """A, B, C, c, h of a relu network, from its equations."""
    n = len(drive)
    if form == "current":
        return -np.eye(n), weight, np.eye(n), np.zeros(n), drive
    return -np.eye(n), np.eye(n), weight, drive, np.zeros(n)


def same_states(one, other, tolerance=1e-9):
    """Whether two lists of states (k, n) hold the same ones, in any order."""
    if len(one) != len(other):
        return False
    gaps = np.abs(one[:, None] - other[None]).max(axis=2, initial=0.0)
    return len(one) == 0 or bool((gaps.min(axis=0) <= tolerance).all() and (gaps.min(axis=1) <= tolerance).all())


def winner_take_all(n):
    return network(-1.5 + 2.4 * np.eye(n), np.ones(n))


@pytest.mark.parametrize("n", [6, 8, 10])
def test_every_subset_of_a_winner_take_all_network(n):
    found = ssntk.find_fixed_points(winner_take_all(n))
    assert (len(found), found.complete, found.coverage, found.unseen) == (2**n - 1, True, 1.0, 0.0)
    assert (found.n_starts, found.n_lost, len(found.slow), found.hits.sum()) == (0, 0, 0, 0)
    assert found.stable.sum() == n
    # k winners have r = 1 / (1.6 - 1.5 (1 - k)) each, from r = 0.9 r - 1.5 (k - 1) r + 1.
    for x in found.x:
        k = (x > 0).sum()
        np.testing.assert_allclose(x[x > 0], 1 / (0.1 + 1.5 * (k - 1)), rtol=1e-12)
    assert "proved to be all" in found.summary().replace("\n  ", " ")
    assert "It is proved that there are no others." in ssntk.explain(found)


CTLN = {
    "independent": (lambda n: np.zeros((n, n)), 7, 2**7 - 1),
    "clique": (lambda n: np.ones((n, n)), 10, 1),
    "three in a circle": (lambda n: np.roll(np.eye(n), 1, axis=0), 3, 1),
    "seven in a circle": (lambda n: np.roll(np.eye(n), 1, axis=0), 7, 1),
}


@pytest.mark.parametrize("name", CTLN)
def test_threshold_linear_networks_of_graphs(name):
    # Curto, Geneson and Morrison (2019): an edge has the weight -0.75, and no edge -1.5.
    edges, n, number = CTLN[name]
    weight = np.where(edges(n) > 0, -0.75, -1.5) * (1 - np.eye(n))
    found = ssntk.find_fixed_points(network(weight, np.ones(n), "rate"))
    assert (len(found), found.index_sum, found.complete) == (number, 1, True)


@pytest.mark.parametrize("seed", seeds(30, 200))
def test_random_networks_against_all_patterns(seed):
    random = np.random.default_rng(1000 + seed)
    n, gain = int(random.integers(1, 13)), random.choice([0.5, 1.0, 2.0, 4.0])
    whole = random_network(n, gain, seed, ["current", "rate"][seed % 2])
    truth, J = points(*parts(*whole))
    found = ssntk.find_fixed_points(network(*whole))
    assert found.complete
    assert same_states(found.x, truth, 1e-9 * max(1.0, np.abs(truth).max(initial=0.0)))
    assert found.index_sum == sum(np.sign(np.linalg.det(-J)))
    assert found.residual.max(initial=0.0) <= 1e-12 * max(1.0, np.abs(truth).max(initial=0.0))


@pytest.mark.parametrize("seed", seeds(5, 40))
@pytest.mark.parametrize("kind", ["leaky", "hard tanh", "abs"])
def test_other_activations_against_all_patterns(kind, seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 7))
    W, b = 2.5 * random.standard_normal((n, n)) / np.sqrt(n), 0.3 * random.standard_normal(n)
    one, zero = np.eye(n), np.zeros(n)
    if kind == "leaky":
        model, form = network(W, b, activation=jax.nn.leaky_relu), (0.01 * W - one, 0.99 * W, one, zero, b)
    elif kind == "abs":
        model, form = network(W, b, activation=jnp.abs), (-W - one, 2 * W, one, zero, b)
    else:
        model = network(W, b, activation=jax.nn.hard_tanh)
        # -1 + relu(x + 1) - relu(x - 1).
        form = (-one, np.hstack([W, -W]), np.vstack([one, one]), np.repeat([1.0, -1.0], n), b - W.sum(axis=1))
    truth, _ = points(*form)
    found = ssntk.find_fixed_points(model)
    assert found.complete
    assert same_states(found.x, truth, 1e-9 * max(1.0, np.abs(truth).max(initial=0.0)))
    if kind == "hard tanh":
        # The network is bounded.
        assert found.index_sum == 1


@pytest.mark.parametrize("seed", seeds(5, 30))
def test_maps_against_all_patterns(seed):
    random = np.random.default_rng(seed)
    n, k = int(random.integers(1, 5)), int(random.integers(1, 10))
    A, W, h = random.uniform(-0.9, 0.9, n), random.standard_normal((n, k)), random.standard_normal(n)
    W2, h2 = random.standard_normal((k, n)), random.standard_normal(k)
    truth, J = points(np.diag(A) - np.eye(n), W, W2, h2, h)
    found = ssntk.find_fixed_points(ssntk.PLRNN.from_weights(A, W, h, W2=W2, h2=h2))
    assert found.complete
    assert same_states(found.x, truth, 1e-8 * max(1.0, np.abs(truth).max(initial=0.0)))
    multipliers = sorted(np.abs(np.linalg.eigvals(one + np.eye(n))).max() for one in J)
    np.testing.assert_allclose(sorted(np.abs(found.eigenvalues).max(axis=1)), multipliers, rtol=1e-8)


def test_eigenvalues_of_a_jacobian_that_is_written_by_hand():
    whole = random_network(7, 2.0, 3, "rate")
    found = ssntk.find_fixed_points(network(*whole, tau=np.arange(1.0, 8.0)))
    assert len(found) > 0
    for point in found:
        slope = (whole[0] @ point.x + whole[1] > 0).astype(float)
        J = (slope[:, None] * whole[0] - np.eye(7)) / np.arange(1.0, 8.0)[:, None]
        values = np.linalg.eigvals(J)
        values = values[np.lexsort((-values.imag, -values.real))]
        np.testing.assert_allclose(point.eigenvalues, values, atol=1e-12)
        np.testing.assert_allclose(point.jacobian, J, atol=1e-13)
        assert point.stable == (values.real < 0).all()
        assert point.n_unstable == (values.real > 0).sum()


def fold(p):
    return ssntk.VectorField(lambda t, x, u, q: -x + 2 * jax.nn.relu(x) + q, p, 1)


@pytest.mark.parametrize(
    ("p", "states", "eigenvalues"), [(-0.25, [-0.25, 0.25], [-1, 1]), (0.25, [], []), (0.0, [0.0], [1])]
)
def test_the_nonsmooth_fold(p, states, eigenvalues):
    # At p = 0 the two points meet on the border, where they are one. It is not stable on both sides.
    found = ssntk.find_fixed_points(fold(p))
    assert found.complete
    np.testing.assert_allclose(found.x.ravel(), states)
    np.testing.assert_allclose(found.eigenvalues.ravel(), eigenvalues)


@pytest.mark.parametrize("seed", range(12))
def test_points_in_other_units(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 9))
    sizes, time = 10 ** random.uniform(-6, 6, n), 10 ** random.uniform(-6, 6)
    model = network(
        *random_network(n, 2.5, seed, ["rate", "current"][seed % 2]), jax.nn.hard_tanh if seed % 3 else jax.nn.relu
    )
    other = ssntk.VectorField(lambda t, z, u, p: model.vector_field(t, z / sizes, jnp.zeros(0)) * sizes / time, 0.0, n)
    one, two = ssntk.find_fixed_points(model), ssntk.find_fixed_points(other)
    assert (one.complete, one.index_sum) == (two.complete, two.index_sum)
    assert one.n_unstable.tolist() == two.n_unstable.tolist()
    assert same_states(one.x, two.x / sizes, 1e-10 * max(1.0, np.abs(one.x).max(initial=0.0)))


@pytest.mark.parametrize("gain", [0.6, 0.8, 1.2, 1.6, 2.4])
@pytest.mark.parametrize("seed", range(2))
def test_twenty_units_are_proved_by_branch_and_bound(gain, seed):
    weight, drive, _ = random_network(20, gain, seed)
    # r = relu(x), x = W r + b: w = (1 - W) r - b.
    proof = branch_and_bound(np.eye(20) - weight, -drive, 500)
    assert proof.complete
    found = ssntk.find_fixed_points(network(weight, drive))
    assert found.complete
    patterns = {tuple(one) for one in proof.patterns}
    assert {tuple(x > 0) for x in found.x} <= patterns


@pytest.mark.parametrize("n", [50, 200, 500])
def test_one_point_where_the_symmetric_part_is_definite(n):
    weight, drive, _ = random_network(n, 0.6, n)
    proof = branch_and_bound(np.eye(n) - weight, -drive, 2)
    assert (proof.complete, proof.nodes, len(proof.patterns)) == (True, 1, 1)
    found = ssntk.find_fixed_points(network(weight, drive))
    assert (len(found), found.complete, found.index_sum) == (1, True, 1)
    np.testing.assert_allclose(found.x[0], weight @ np.maximum(found.x[0], 0) + drive, atol=1e-12)


@pytest.mark.parametrize(
    ("m", "dims", "number"), [(200, 2, 20_101), (1000, 1, 1001), (40, 3, 10_701), (10, 2, 56), (5, 0, 1)]
)
def test_the_cells_of_an_arrangement(m, dims, number):
    # sum over i <= dims of C(m, i).
    random = np.random.default_rng(m)
    batches = list(cells(random.standard_normal((m, dims)), random.standard_normal(m)))
    patterns = np.concatenate([one for one, _ in batches])
    assert all(generic for _, generic in batches)
    assert len(patterns) == len(np.unique(patterns, axis=0)) == number


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_networks_of_low_rank(rank):
    random = np.random.default_rng(rank)
    for n in (16, 60):
        weight = 6 * random.standard_normal((n, rank)) @ random.standard_normal((rank, n)) / n
        drive = random.standard_normal(n)
        found = ssntk.find_fixed_points(network(weight, drive))
        assert found.complete
        np.testing.assert_allclose(found.x, np.maximum(found.x, 0) @ weight.T + drive, atol=1e-10)
        if n == 16:
            assert same_states(found.x, points(*parts(weight, drive, "current"))[0])


def test_a_large_network_is_searched():
    weight, drive, _ = random_network(80, 1.3, 0)
    found = ssntk.find_fixed_points(network(weight, drive))
    assert found.complete is None
    assert found.n_starts > 0
    assert 0 <= found.coverage <= 1
    assert found.hits.sum() <= found.n_starts - found.n_lost
    np.testing.assert_allclose(found.x, np.maximum(found.x, 0) @ weight.T + drive, atol=1e-10)


def test_what_the_arguments_ask_for():
    model = winner_take_all(3)
    searched = ssntk.find_fixed_points(model, method="search")
    assert searched.complete is None
    assert searched.n_starts > 0
    assert same_states(searched.x, ssntk.find_fixed_points(model, method="exact").x)
    started = ssntk.find_fixed_points(model, starts=[[10.0, -10.0, -10.0]])
    assert (len(started), started.n_starts) == (1, 1)
    with pytest.raises(ValueError, match=r"^method must be one of 'auto', 'search', 'exact'"):
        ssntk.find_fixed_points(model, method="all")
    with pytest.raises(ValueError, match=r"^method must be 'auto' or 'search' with starts"):
        ssntk.find_fixed_points(model, method="exact", starts=np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"^method must be 'auto' or 'search' with periods"):
        ssntk.find_fixed_points(model, method="exact", periods=[1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"^method must be .* not piecewise linear, and this one has tanh of a value"):
        ssntk.find_fixed_points(network(np.eye(2), np.zeros(2), activation=jnp.tanh), method="exact")


def test_a_line_of_fixed_points_is_for_the_search():
    # x_2 is conserved; and where x > 0, every x with x_1 = x_2 is a fixed point.
    still = ssntk.VectorField(lambda t, x, u, p: [-x[0] + jax.nn.relu(x[1]), 0 * x[1]], 0.0, 2)
    assert ssntk.find_fixed_points(still).complete is None
    assert len(ssntk.find_fixed_points(still).conserved) == 1
    # dx/dt = -x + relu(x) vanishes at every x > 0, and at no other.
    for model in (still, ssntk.VectorField(lambda t, x, u, p: -x + jax.nn.relu(x), 0.0, 1)):
        with pytest.raises(ValueError, match=r"^method must be 'auto' or 'search' for this model: solutions fill a line"):
            ssntk.find_fixed_points(model, method="exact")


@pytest.mark.parametrize("form", ["current", "rate"])
def test_a_network_without_bias_rests_on_every_border(form):
    # x = 0 lies on all borders, and belongs to all 2^n regions.
    stable = []
    for gain in (0.3, 4.0):
        weight, _, _ = random_network(6, gain, 4)
        found = ssntk.find_fixed_points(network(weight, np.zeros(6), form))
        assert found.index_sum is None
        counts = []
        for pattern in itertools.product((0.0, 1.0), repeat=6):
            matrix = weight * pattern if form == "current" else weight * np.reshape(pattern, (6, 1))
            counts.append((np.linalg.eigvals(matrix).real > 1).sum())
        (here,) = np.flatnonzero((found.x == 0).all(axis=1))
        assert found.n_unstable[here] == max(counts)
        assert found.stable[here] == (max(counts) == 0)
        stable.append(bool(found.stable[here]))
    assert stable == [True, False]


def test_proved_to_have_no_point():
    found = ssntk.find_fixed_points(fold(0.25))
    assert "It is proved that there is no fixed point." in ssntk.explain(found)
    assert found.coverage == 1.0


def test_a_linear_model_has_one_point():
    found = ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, p: p @ x + 1, np.array([[0.0, 1.0], [-1.0, 0.5]]), 2))
    assert (len(found), found.complete, found.stable.tolist()) == (1, True, [False])
    np.testing.assert_allclose(found.x, [[0.5, -1.0]])


def test_single_precision():
    unsaid_again()
    with jax.enable_x64(False):
        model = winner_take_all(6)
        with pytest.warns(ssntk.PrecisionWarning):
            found = ssntk.find_fixed_points(model)
    assert (len(found), found.complete, found.x.dtype) == (63, True, np.float32)


@needs_maps
def test_the_counts_of_the_reference_file():
    file = json.loads(MAPS.read_text())
    assert len(ssntk.find_fixed_points(winner_take_all(10))) == file["threshold_linear"]["winner_take_all"]["exact_n10"]
    case = next(one for one in file["scyfi_published_cases"]["cases"] if one["name"] == "test_finding_10_cycle_10D")
    trained = ssntk.find_fixed_points(ssntk.PLRNN.from_weights(case["A"], case["W"], case["h"]))
    assert (len(trained), trained.complete) == (file["scyfi_published_cases"]["trained_10d"]["fixed_points_proved"], True)
    for branch in file["relu_branches"]["branches"][:8]:
        weight, drive = np.asarray(branch["W"]), np.asarray(branch["bias"])
        truth, _ = points(*parts(weight, drive, branch.get("form", "current")))
        assert same_states(ssntk.find_fixed_points(network(weight, drive, branch.get("form", "current"))).x, truth)
