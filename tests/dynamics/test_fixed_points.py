"""Fixed points and slow points against closed forms, and estimates of the unseen ones from the numbers of hits."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import some

import ssntk


def test_the_ghost_of_a_saddle_node_is_a_slow_point():
    # x' = -(mu + (x - 1)^2), y' = -3 (y - 2): no fixed point; the speed is least at (1, 2), where it is mu.
    def field(t, x, u, mu):
        return jnp.stack([-(mu + (x[0] - 1) ** 2), -3 * (x[1] - 2)])

    for mu in (1e-1, 1e-4, 1e-8):
        found = ssntk.find_fixed_points(ssntk.VectorField(field, jnp.asarray(mu), 2), n_starts=64)
        assert len(found) == 0
        assert np.isnan(found.coverage)
        assert len(found.slow) == 1
        # The minimum is quadratic with curvature mu: rounding moves it by the precision over mu.
        np.testing.assert_allclose(found.slow.x[0], [1.0, 2.0], atol=max(1e-12, 1e-15 / mu))
        np.testing.assert_allclose(found.slow.speed[0], mu, rtol=1e-6)
        np.testing.assert_allclose(found.slow.eigenvalues[0], [0.0, -3.0], atol=1e-5)
        assert found.slow.hits[0] >= 32


def test_a_slow_point_becomes_a_fixed_point_and_no_other_is_called_slow():
    # h + x - x^3: beyond the fold at 2 / sqrt(27) a slow point near x = -1 / sqrt(3) replaces two of the roots.
    def at(h):
        return ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, h: h + x - x**3, jnp.asarray(h), 1), n_starts=64)

    fold = 2 / 27**0.5
    before, beyond = at(fold - 0.01), at(fold + 0.01)
    # The speed's other stationary points, where f' = 0 and f > 0, are its maxima.
    assert (len(before), len(before.slow)) == (3, 0)
    assert (len(beyond), len(beyond.slow)) == (1, 1)
    np.testing.assert_allclose(beyond.slow.x, -1 / 3**0.5, atol=1e-10)
    np.testing.assert_allclose(beyond.slow.speed, 0.01, rtol=1e-10)


def test_slow_points_of_networks_are_minima_by_another_optimiser():
    shown = 0
    for seed in range(4):
        model = ssntk.CTRNN(8, 1, 1, gain=2.0, key=jr.key(seed))
        slow = ssntk.find_fixed_points(model).slow
        weight = np.asarray(model.weight)

        def speed(x, weight=weight):
            return np.sum((-x + 2.0 * weight @ np.tanh(x)) ** 2) / 2

        for x, size in zip(slow.x, slow.speed, strict=True):
            shown += 1
            np.testing.assert_allclose(speed(x), size**2 / 2, rtol=1e-10)
            # From nearby, Nelder and Mead find nothing lower; half the digits are lost in a minimum.
            start = x + 1e-2 * np.asarray(jr.normal(jr.key(9), (8,)))
            other = scipy.optimize.minimize(speed, start, method="BFGS", options={"gtol": 1e-12})
            np.testing.assert_allclose(other.x, x, atol=1e-4)
    assert shown >= 2


@pytest.mark.slow
def test_hits_estimate_what_was_not_seen():
    # Ten units x - x^3 apart from one another: 3^10 fixed points, of which 16 times 256 starts see few.
    crowd = ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, p: p * (x - x**3), jnp.asarray(1.0), 10))
    assert crowd.n_starts <= 16 * 256
    assert len(crowd) > 100
    assert crowd.coverage < 0.5
    assert crowd.unseen > 100
    # Two such units: all nine are seen, each many times.
    few = ssntk.find_fixed_points(ssntk.VectorField(lambda t, x, u, p: p * (x - x**3), jnp.asarray(1.0), 2))
    assert len(few) == 9
    assert few.hits.min() > 1
    assert (few.coverage, few.unseen) == (1.0, 0.0)


@pytest.mark.parametrize("hidden", some([False, True], [True]))
def test_a_network_of_128_units_by_the_closed_form(hidden):
    # Two units excite themselves, x = 2 tanh(x), and drive 126 others, which only follow: nine fixed points. Hidden: in
    # coordinates turned at random.
    rng = np.random.default_rng(0)
    weight = np.zeros((128, 128))
    weight[0, 0] = weight[1, 1] = 2.0
    weight[2:, :2] = rng.normal(size=(126, 2))
    root = scipy.optimize.brentq(lambda x: x - 2 * np.tanh(x), 1.0, 2.0, xtol=1e-15)
    pairs = root * np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    expected = np.concatenate([pairs, np.tanh(pairs) @ weight[2:, :2].T], axis=1)
    turn = np.linalg.qr(rng.normal(size=(128, 128)))[0] if hidden else np.eye(128)

    def field(t, x, u, params):
        y = params["turn"].T @ x
        return params["turn"] @ (-y + params["weight"] @ jnp.tanh(y))

    model = ssntk.VectorField(field, {"turn": jnp.asarray(turn), "weight": jnp.asarray(weight)}, 128)
    found = ssntk.find_fixed_points(model, n_starts=192)
    assert len(found) == 9
    assert found.stable.sum() == 4
    distances = np.linalg.norm(found.x[:, None] - expected @ turn.T, axis=2)
    np.testing.assert_allclose(distances.min(axis=0), 0.0, atol=1e-10)


def test_single_precision_weights_lose_no_point():
    # x = 2 tanh(x) - 2 has one root, whatever the precision that JAX would take for other numbers.
    model = ssntk.CTRNN.from_weights(jnp.array([[2.0]], jnp.float32), jnp.ones((1, 1), jnp.float32))
    with pytest.warns(ssntk.PrecisionWarning):
        found = ssntk.find_fixed_points(model, jnp.array([-2.0], jnp.float32))
    root = scipy.optimize.brentq(lambda x: -x + 2 * np.tanh(x) - 2, -5, 0)
    assert found.x.dtype == np.float32
    np.testing.assert_allclose(found.x, [[root]], rtol=1e-6)


@pytest.mark.parametrize("key", [5, "a", np.zeros(3)])
def test_bad_keys_are_named(key):
    with pytest.raises(ValueError, match="key must be a jax"):
        ssntk.find_fixed_points(ssntk.normal_forms.saddle_node(1.0), key=key)


def test_given_starts_are_searched_from_alone():
    """x' = h + x - x^3 has three fixed points at h = 0. From starts near two of them, only these two are found."""

    def at(h):
        return ssntk.VectorField(lambda t, x, u, h: h + x - x**3, jnp.asarray(h), 1)

    found = ssntk.find_fixed_points(at(0.0), starts=np.array([[0.9], [1.2], [-0.1]]))
    np.testing.assert_allclose(np.sort(found.x[:, 0]), [0.0, 1.0], atol=1e-12)
    assert sorted(found.hits) == [1, 2]
    # A network that was a little different: each point is near to where it was.
    moved = ssntk.find_fixed_points(at(0.01), starts=found.x)
    expected = np.sort(np.roots([-1.0, 0.0, 1.0, 0.01]).real)[1:]
    np.testing.assert_allclose(np.sort(moved.x[:, 0]), expected, atol=1e-10)
    with pytest.raises(ValueError, match="starts"):
        ssntk.find_fixed_points(at(0.0), starts=np.zeros((0, 1)))
    with pytest.raises(ValueError, match="starts"):
        ssntk.find_fixed_points(at(0.0), starts=np.zeros((3, 2)))
