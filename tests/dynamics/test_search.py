"""The search finds all points in any units, and reports what it missed: closed forms, symmetry, other solvers."""

import importlib.util

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import ROOT, seeds, some

import ssntk
from ssntk.dynamics.refine import check_fixed_point, refine_fixed_point

SHARED = ROOT.parent / "shared" / "reference"


def needs(path):
    """Skip the test without these reference data, which lie next to the project and are not part of it."""
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not there: it lies beside the project, in shared/")


def field_cases():
    spec = importlib.util.spec_from_file_location("field_cases", SHARED / "field_cases.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logistic(v):
    return 0.5 * (1 + jnp.tanh(v))


def winner(t, x, u, P):
    """Four units that excite themselves, and one that inhibits all (winner take all)."""
    return jnp.append(-x[:4] + logistic(12 * x[:4] - 14 * x[4] - 1), (-x[4] + logistic(14 * x[:4].sum() - 7)) / 3)


@pytest.mark.slow
def test_every_state_of_a_winner_take_all_network():
    # By symmetry points come in orbits of 1, 4 and 6: one point each with no or all units alike, and so on.
    found = ssntk.find_fixed_points(ssntk.VectorField(winner, {"q": 0.0}, 5))
    assert len(found) == 15
    assert found.index_sum == 1
    assert found.n_lost <= 0.05 * found.n_starts
    rows = {tuple(np.round(x, 7)) for x in found.x}
    for x in found.x:
        for turn in range(4):
            assert tuple(np.round(np.append(np.roll(x[:4], turn), x[4]), 7)) in rows
    residual = [np.asarray(winner(0.0, jnp.asarray(x), None, None)) for x in found.x]
    np.testing.assert_allclose(residual, 0.0, atol=1e-14)


@needs(SHARED / "field_cases.py")
def test_the_network_of_the_reference_file():
    found = ssntk.find_fixed_points(field_cases().WINNER)
    assert (len(found), found.index_sum) == (15, 1)


def compete(t, x, u, K):
    return x * (1 - (x + 0.5 * x[::-1]) / K)


@pytest.mark.parametrize("power", some(range(11), [0, 5, 10]))
def test_two_populations_of_any_capacity(power):
    K = 10.0**power
    found = ssntk.find_fixed_points(ssntk.VectorField(compete, K, 2))
    expected = K * np.array([[2 / 3, 2 / 3], [0, 0], [0, 1], [1, 0]])
    assert len(found) == 4
    apart = np.abs(found.x[:, None] - expected[None]).max(axis=2)
    assert sorted(apart.argmin(axis=1)) == [0, 1, 2, 3]
    np.testing.assert_allclose(apart.min(axis=1), 0.0, atol=1e-12 * K)
    # 1 - 1 - 1 + 1: the field is not bounded, and no further batch is due.
    assert found.index_sum == 0
    assert found.stable.tolist() == [True, False, False, False]
    assert found.n_unstable.tolist() == [0, 1, 1, 2]
    assert found.complete is None


def scaled_network(t, z, u, P):
    x = z / P["S"]
    return P["c"] * P["S"] * (-x + P["W"] @ jnp.tanh(x) + P["b"])


def oregonator(t, z, u, P):
    # Field and Noyes, in the units of the paper: concentrations from 1e-11 to 1e-4, rates from 1e-2 to 1e9.
    x = z / P["S"]
    rate = jnp.stack(
        [
            1.34 * 0.06 * x[1] - 1.6e9 * x[0] * x[1] + 8e3 * 0.06 * x[0] - 4e7 * x[0] ** 2,
            -1.34 * 0.06 * x[1] - 1.6e9 * x[0] * x[1] + P["f"] * x[2],
            8e3 * 0.06 * x[0] - x[2],
        ]
    )
    return P["c"] * P["S"] * rate


def squid_axon(t, z, u, P):
    """Hodgkin and Huxley's model in mV and ms, rest at zero."""
    v, m, h, n = z / P["S"]

    def ratio(y):
        return jnp.where(jnp.abs(y) < 1e-6, 1 + y / 2, y / jnp.where(jnp.abs(y) < 1e-6, 1.0, -jnp.expm1(-y)))

    rates = jnp.stack(
        [
            10.0 - 120 * m**3 * h * (v - 115) - 36 * n**4 * (v + 12) - 0.3 * (v - 10.6),
            ratio((v - 25) / 10) * (1 - m) - 4 * jnp.exp(-v / 18) * m,
            0.07 * jnp.exp(-v / 20) * (1 - h) - h / (1 + jnp.exp((30 - v) / 10)),
            0.1 * ratio((v - 10) / 10) * (1 - n) - 0.125 * jnp.exp(-v / 80) * n,
        ]
    )
    return P["c"] * P["S"] * rates


def populations(t, z, u, P):
    x = z / P["S"]
    return P["c"] * P["S"] * x * (1 - x - P["A"] @ x)


def metamorphic():
    rng = np.random.default_rng(5)
    return {
        "network": (scaled_network, {"W": 3 * rng.normal(size=(4, 4)) / 2, "b": 0.3 * rng.normal(size=4)}, 4),
        "oregonator": (oregonator, {"f": 1.0}, 3),
        "squid axon": (squid_axon, {}, 4),
        "populations": (populations, {"A": np.array([[0.0, 0.5, 0.2], [0.4, 0.0, 0.3], [0.1, 0.6, 0.0]])}, 3),
    }


@pytest.mark.parametrize("draws", [3, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some(metamorphic(), ["network", "squid axon"]))
def test_no_answer_depends_on_units(name, draws):
    """z = S x and t -> c t: the same points, the same stability, eigenvalues times c."""
    fn, params, n = metamorphic()[name]
    rng = np.random.default_rng(11)

    def found(S, c):
        return ssntk.find_fixed_points(ssntk.VectorField(fn, {**params, "S": S, "c": c}, n))

    base = found(np.ones(n), 1.0)
    assert len(base) >= 1
    for _ in range(draws):
        S, c = 10 ** rng.uniform(-6, 6, n), 10 ** rng.uniform(-6, 6)
        moved = found(S, c)
        assert len(moved) == len(base)
        assert moved.index_sum == base.index_sum
        size = np.maximum(np.abs(base.x), 1e-3 * np.abs(base.x).max(axis=0))
        apart = (np.abs(moved.x[:, None] / S - base.x[None]) / np.where(size > 0, size, 1)).max(axis=2)
        to = apart.argmin(axis=1)
        assert sorted(to) == list(range(len(base)))
        np.testing.assert_allclose(apart.min(axis=1), 0.0, atol=1e-8)
        assert moved.stable.tolist() == base.stable[to].tolist()
        assert moved.n_unstable.tolist() == base.n_unstable[to].tolist()
        # Relative to the fastest mode: slow ones of a stiff matrix have no more digits.
        fastest = np.abs(base.eigenvalues).max()
        np.testing.assert_allclose(moved.eigenvalues / c / fastest, base.eigenvalues[to] / fastest, atol=1e-8)


def test_a_speed_that_falls_towards_nothing_is_no_point():
    """Closed gates: |f| underflows, and there is no fixed point."""
    for fn in (
        lambda t, x, u, p: p * jnp.exp(-x),
        lambda t, x, u, p: p / (1 + x**2),
    ):
        assert len(ssntk.find_fixed_points(ssntk.VectorField(fn, 1.0, 1), n_starts=64)) == 0

    # (1 - z)(c - x): the gate closes far from the one point, at which x = c.
    def gated(t, x, u, p):
        return (1 - jax.nn.sigmoid(40 * (x + 1))) * (p - x)

    found = ssntk.find_fixed_points(ssntk.VectorField(gated, -2.0, 1), n_starts=64)
    np.testing.assert_allclose(found.x, [[-2.0]], rtol=1e-12)
    assert found.stable.all()


NETWORKS = SHARED / "networks"


def lstm(t, x, u, P):
    h, c = jnp.split(x, 2)
    i, f, g, o = jnp.split(P["w"] @ h + P["drive"], 4)
    new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(new), new]) - x


def gru(t, x, u, P):
    of_r, of_z, of_n = jnp.split(P["w"] @ x + P["bias"], 3)
    r, z, n = jnp.split(P["drive"], 3)
    z = jax.nn.sigmoid(z + of_z)
    return (1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + of_r) * of_n) + z * x - x


@pytest.mark.slow
@needs(NETWORKS)
@pytest.mark.parametrize("n_starts", [12, 256])
@pytest.mark.parametrize(
    ("fn", "file", "multiplier"),
    [(lstm, "silero_lstm_silence.npz", 0.99919), (gru, "g2p_encoder_gru_letter3_float16.npz", 0.99999989)],
)
def test_the_rest_state_of_a_deployed_gated_network(fn, file, multiplier, n_starts):
    data = np.load(NETWORKS / file)
    names = {"w": "weight_hh", "drive": "drive", "bias": "bias_hh"}
    params = {name: data[of].astype(float) for name, of in names.items() if of in data}
    rest = data["rest_state"].astype(float).ravel()
    found = ssntk.find_fixed_points(ssntk.EulerMap(ssntk.VectorField(fn, params, rest.size), 1.0), n_starts=n_starts)
    assert len(found) == 1
    np.testing.assert_allclose(found.x[0], rest, atol=1e-6)
    assert found.stable.all()
    np.testing.assert_allclose(np.abs(found.eigenvalues[0, 0]), multiplier, atol=1e-5 if fn is lstm else 1e-8)


def test_angles_are_counted_once():
    """A driven pendulum, v' = 0.3 - sin(angle) - v / 10, has two points in each turn, at angles whose sine is 0.3."""
    model = ssntk.VectorField(lambda t, x, u, p: jnp.stack([x[1], p - jnp.sin(x[0]) - 0.1 * x[1]]), 0.3, 2)
    found = ssntk.find_fixed_points(model, periods=[2 * np.pi, 0.0])
    angle = np.arcsin(0.3)
    np.testing.assert_allclose(found.x, [[angle, 0.0], [np.pi - angle, 0.0]], atol=1e-12)
    assert found.stable.tolist() == [True, False]
    assert found.index_sum == 0
    # At p = 0 one of them lies on the seam: rounding below zero is zero.
    rest = ssntk.find_fixed_points(ssntk.VectorField(model.fn, 0.0, 2), periods=[2 * np.pi, 0.0])
    np.testing.assert_allclose(np.sort(rest.x[:, 0]), [0.0, np.pi], atol=1e-12)
    assert (rest.x[:, 0] >= 0).all()


def test_starts_that_are_lost_count_as_unseen():
    # x' = 1 + x^2 has no real zero; beside it a cubic with three: none is reached from anywhere.
    model = ssntk.VectorField(lambda t, x, u, p: jnp.stack([p + x[0] ** 2, x[1] - x[1] ** 3]), 1.0, 2)
    found = ssntk.find_fixed_points(model, n_starts=32)
    assert len(found) == 0
    assert found.n_lost == found.n_starts >= 32
    assert np.isnan(found.coverage)
    # x (1 - x) for positive x, and no zero beyond: starts on the left run away.
    half = ssntk.VectorField(lambda t, x, u, p: jnp.where(x > -0.5, x * (p - x), -0.75 * jnp.exp(x + 0.5)), 1.0, 1)
    found = ssntk.find_fixed_points(half, starts=np.array([[0.1], [0.9], [1.1], [-30.0]]))
    assert sorted(found.x[:, 0].round(12)) == [0.0, 1.0]
    assert found.n_lost == 1
    assert found.coverage == pytest.approx(1 - ((found.hits == 1).sum() + 1) / 4)


def test_a_conserved_quantity_is_named_and_held():
    """A kinase that is switched on and off. x[1] + x[2] never changes, so that each start keeps its own sum."""

    def kinase(t, x, u, d):
        flow = 2 * x[0] * x[1] - 5 * x[2]
        return jnp.stack([1 - d * x[0], -flow, flow])

    model = ssntk.VectorField(kinase, 0.1, 3)
    found = ssntk.find_fixed_points(model, starts=np.array([[3.0, 0.4, 0.6], [20.0, 1.0, 0.0], [1.0, 5.0, 2.0]]))
    # x0 = 10, and 20 x1 = 5 x2: a fifth of the sum is x1.
    expected = np.array([[10.0, 0.2, 0.8], [10.0, 1.4, 5.6]])
    np.testing.assert_allclose(found.x, expected, rtol=1e-10)
    assert found.conserved.shape == (1, 3)
    np.testing.assert_allclose(found.conserved[0] / found.conserved[0, 1], [0.0, 1.0, 1.0], atol=1e-12)
    assert found.stable.all()
    np.testing.assert_allclose(found.eigenvalues[:, 0], 0.0, atol=1e-12)
    # The level of the zero state, by default.
    still = ssntk.find_fixed_points(model, n_starts=32)
    np.testing.assert_allclose(still.x, [[10.0, 0.0, 0.0]], atol=1e-10)


def test_what_is_known_of_each_point():
    model = ssntk.CTRNN(6, 0, 2, gain=2.5, key=jr.key(3))
    found = ssntk.find_fixed_points(model, n_starts=64)
    k = len(found)
    assert k > 1
    weight, n = np.asarray(model.weight), 6
    for i in range(k):
        x = found.x[i]
        jacobian = -np.eye(n) + 2.5 * weight * (1 - np.tanh(x) ** 2)
        np.testing.assert_allclose(found.jacobian[i], jacobian, atol=1e-12)
        right, values = found.right[i], found.eigenvalues[i]
        np.testing.assert_allclose(jacobian @ right, right * values, atol=1e-11)
        np.testing.assert_allclose(np.linalg.norm(right, axis=0), 1.0, rtol=1e-12)
        readout = np.asarray(model.readout_weight) @ np.tanh(x) + np.asarray(model.readout_bias)
        np.testing.assert_allclose(found.outputs[i], readout, atol=1e-12)
        assert found.n_unstable[i] == (np.linalg.eigvals(jacobian).real > 0).sum()
    signs = [np.sign(np.linalg.det(-a)) for a in found.jacobian]
    assert found.index_sum == sum(signs) == 1
    assert found.complete is None


def test_a_degenerate_point_has_no_index():
    assert ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, p: -p * x**3, 1.0, 1), n_starts=16).index_sum is None


def test_further_batches_follow_while_points_are_new():
    """Five units x - x^3 apart: 243 points, of which 256 starts cannot meet all."""
    found = ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, p: p * (x - x**3), 1.0, 5))
    assert 256 < found.n_starts <= 16 * 256
    # Saddles between saddles are rarely found. The estimates must account for those that were not seen.
    assert 0.95 * 243 <= len(found) <= 243
    assert found.coverage > 0.98
    everything = {tuple(x) for x in np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 5), axis=-1).reshape(-1, 5)}
    assert {tuple(x.round(9) + 0.0) for x in found.x} <= everything


def random_network(seed, n, logistic):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n, n)) / n**0.5
    if not logistic:
        return ssntk.CTRNN.from_weights(weight * rng.uniform(1, 4))
    bias = rng.uniform(0, 4) * rng.normal(size=n)
    return ssntk.CTRNN.from_weights(weight * rng.uniform(4, 20), bias=bias, activation=jax.nn.sigmoid, form="rate")


def nothing_is_missed(seed, n, logistic, dense):
    model = random_network(seed, n, logistic)
    found = ssntk.find_fixed_points(model)
    assert found.index_sum == 1, seed
    assert found.n_lost <= 0.05 * found.n_starts
    rng = np.random.default_rng(seed)
    # Every fixed point lies where the drive can reach.
    weight, bias = np.asarray(model.weight), np.asarray(model.bias)
    reach = np.abs(weight).sum(axis=1) + np.abs(bias) if not logistic else np.ones(n)
    starts = rng.uniform(0.0 if logistic else -1.0, 1.0, (dense, n)) * reach * rng.uniform(0, 1, (dense, 1))
    again = ssntk.find_fixed_points(model, starts=starts)
    apart = np.abs(again.x[:, None] - found.x[None]).max(axis=2).min(axis=1)
    assert (apart <= 1e-7 * (1 + np.abs(again.x).max())).all(), (seed, n, logistic, len(found), len(again))


@pytest.mark.parametrize(("n", "count"), [(3, 2), *(pytest.param(n, 4, marks=pytest.mark.slow) for n in (3, 8, 12))])
def test_random_networks_of_one_size(n, count):
    for seed in range(count):
        nothing_is_missed(seed, n, False, 1024)
    for seed in range(count - 1):
        nothing_is_missed(seed, n, True, 1024)


@pytest.mark.slow
@pytest.mark.parametrize("n", range(2, 13))
def test_three_hundred_random_networks(n):
    for seed in range(18 if n > 2 else 20):
        nothing_is_missed(100 + seed, n, False, 8192)
    for seed in range(9 if n > 2 else 10):
        nothing_is_missed(100 + seed, n, True, 8192)


@pytest.mark.parametrize(
    ("kind", "n", "gain", "seed"),
    [
        ("logistic", 8, 20, 0),
        pytest.param("tanh", 32, 2.5, 0, marks=pytest.mark.slow),
        pytest.param("logistic", 4, 20, 1, marks=pytest.mark.slow),
        pytest.param("tanh", 12, 3, 2, marks=pytest.mark.slow),
        pytest.param("tanh", 64, 1.6, 0, marks=pytest.mark.slow),
    ],
)
def test_nearly_every_start_arrives(kind, n, gain, seed):
    rng = np.random.default_rng(seed)
    weight = gain * rng.normal(size=(n, n)) / n**0.5
    if kind == "tanh":
        model = ssntk.CTRNN.from_weights(weight)
    else:
        model = ssntk.CTRNN.from_weights(weight, bias=rng.normal(size=n), activation=jax.nn.sigmoid, form="rate")
    found = ssntk.find_fixed_points(model)
    assert found.index_sum == 1
    assert found.n_lost <= 0.05 * found.n_starts


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_another_solver_finds_no_other_point(seed):
    model = random_network(40 + seed, 10, False)
    weight = np.asarray(model.weight)
    found = ssntk.find_fixed_points(model)
    starts = 4 * np.random.default_rng(seed).normal(size=(300, 10))
    others = [scipy.optimize.root(lambda x: -x + weight @ np.tanh(x), start, tol=1e-12) for start in starts]
    # Whether it calls that a success depends on its own last step.
    others = np.stack([one.x for one in others if np.abs(one.fun).max() < 1e-10])
    assert np.abs(others[:, None] - found.x[None]).max(axis=2).min(axis=1).max() < 1e-6


@pytest.mark.parametrize("power", [-9, 0, 9])
def test_what_is_a_fixed_point_is_judged_beside_the_state(power):
    K = 10.0**power
    model = ssntk.VectorField(compete, K, 2)
    exact = np.array([2 / 3, 2 / 3]) * K
    check_fixed_point(model, exact, None)
    check_fixed_point(model, exact * (1 + 1e-10), None)
    check_fixed_point(model, np.zeros(2), None)
    for wrong in (exact * (1 + 1e-5), exact * 0.9, np.array([1e-3, 0.0]) * K):
        with pytest.raises(ssntk.NumericalError, match="not a fixed point"):
            check_fixed_point(model, wrong, None)
    x, jacobian, residual = refine_fixed_point(model, exact * (1 + 1e-3))
    np.testing.assert_allclose(x, exact, rtol=1e-14)
    np.testing.assert_allclose(jacobian, [[-2 / 3, -1 / 3], [-1 / 3, -2 / 3]], rtol=1e-10)
    assert residual <= 1e-14 * K
    rising = ssntk.VectorField(lambda t, x, u, K: K * jnp.exp(-x / K), K, 1)
    with pytest.raises(ssntk.NumericalError, match="no fixed point near"):
        refine_fixed_point(rising, np.array([0.5 * K]))


def test_bad_arguments_are_named(compilations):
    model = ssntk.VectorField(compete, 1.0, 2)
    before = len(compilations)
    for wrong, message in (
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": [1.0, -1.0]}, "scale must be positive"),
        ({"scale": np.ones(3)}, "scale must"),
        ({"scale": "big"}, "scale must"),
        ({"periods": np.ones(3)}, r"periods must have shape \(2,\)"),
        ({"periods": [1.0, -1.0]}, "periods must be positive"),
        ({"method": "exactly"}, "method must be one of"),
        ({"n_starts": 1}, "n_starts must be at least 2"),
        ({"starts": np.zeros((2, 3))}, "starts must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            ssntk.find_fixed_points(model, **wrong)
    assert len(compilations) == before


def test_a_field_that_depends_on_time_is_refused():
    forced = ssntk.VectorField(lambda t, x, u, w: -x + w * jnp.cos(t), 1.0, 1)
    with pytest.raises(ValueError, match=r"depends on (t|time)"):
        ssntk.find_fixed_points(forced)


@pytest.mark.slow
def test_a_scale_that_is_given_is_used():
    """Points far outside the given scale are found nevertheless. Slow points are those in the metric of the scale."""
    model = ssntk.VectorField(compete, 1e6, 2)
    for scale in (1.0, [1e3, 1e7]):
        assert len(ssntk.find_fixed_points(model, scale=scale)) == 4

    # The ghost of a saddle node, h - s - (x/s - 1)^2 s with s = 1e5: the speed is least at s, and 0.01 there beside s.
    def ghost(t, x, u, s):
        return -s * (0.01 + (x / s - 1) ** 2)

    slow = ssntk.find_fixed_points(ssntk.VectorField(ghost, 1e5, 1), n_starts=32, scale=1e5).slow
    np.testing.assert_allclose(slow.x, [[1e5]], rtol=1e-9)
    np.testing.assert_allclose(slow.speed, [0.01], rtol=1e-9)


def test_another_number_of_points_and_starts_compiles_nothing(compilations):
    def found(seed, n_starts):
        return len(ssntk.find_fixed_points(random_network(seed, 10, False), n_starts=n_starts))

    numbers = [found(seed, 64) for seed in range(3)]
    before = len(compilations)
    numbers += [found(seed, count) for seed, count in ((4, 64), (5, 100), (6, 37), (7, 64))]
    assert len(set(numbers)) > 1
    assert len(compilations) == before
