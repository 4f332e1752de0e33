"""The network that examples/train_flip_flop.py trains with seed 0 (its weights are in reference/flip_flop64.npz). It has 27
fixed points. Eight of them are memories, and the tests check where each of these vanishes.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT

import ssntk
from ssntk.collapse.exponent import measured_exponent

DISTANCES = [1e-4, 1e-5, 1e-6, 1e-7]


@pytest.fixture(scope="module")
def model():
    return ssntk.CTRNN.from_weights(**np.load(ROOT / "tests" / "reference" / "flip_flop64.npz"))


@pytest.fixture(scope="module")
def points(model):
    return ssntk.find_fixed_points(model, n_starts=512)


@pytest.fixture(scope="module")
def deaths(model, points):
    """For each memory its state, the sign of the input that destroys it, the sweep to the saddle-node, and the branch."""
    family, found = ssntk.Family.input(model, [1.0, 0.0, 0.0]), []
    for x in points.x[points.stable]:
        against = -float(jnp.sign(model.readout(jnp.asarray(x))[0]))
        sweep = ssntk.Sweep(
            family,
            towards="saddle-node",
            span=(-0.05 * against, 0.3 * against),
            distances=DISTANCES,
            probe=ssntk.Probe([0.0, 1.0]),
            x0=x,
        )
        found.append((x, against, sweep, sweep.follow()))
    return found


def test_eight_memories_and_the_saddles_between_them(model, points):
    bits = np.sign(np.asarray(jax.vmap(model.readout)(jnp.asarray(points.x[points.stable]))))
    assert sorted(map(tuple, bits)) == sorted((a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1))
    unstable = (points.eigenvalues.real >= 0).sum(axis=1)
    # The faces of a cube: 12 edges, 6 sides, the middle. By degree theory the signs of a dissipative field add up to one.
    assert np.bincount(unstable).tolist() == [8, 12, 6, 1]
    assert ((-1.0) ** unstable).sum() == 1
    weights = {name: np.asarray(getattr(model, name)) for name in ("weight", "bias", "gain", "tau")}
    for x in points.x:
        velocity = -x + weights["gain"] * weights["weight"] @ np.tanh(x) + weights["bias"]
        np.testing.assert_allclose(velocity, 0.0, atol=1e-12)


@pytest.mark.slow
def test_other_random_starts_find_the_same_memories(model, points):
    memories = points.x[points.stable]
    for seed in (11, 12):
        again = ssntk.find_fixed_points(model, n_starts=512, key=jr.key(seed))
        found = again.x[again.stable]
        assert len(found) == 8
        gaps = np.abs(memories[:, None] - found[None]).max(axis=2)
        # Both are solved to rounding.
        assert (gaps.min(axis=1) < 1e-9).all()


@pytest.mark.slow
def test_deaths_agree_with_bisection_on_long_simulations(model, deaths):
    weight, bias = float(model.gain) * np.asarray(model.weight), np.asarray(model.bias)
    column, readout = np.asarray(model.input_weight)[:, 0], np.asarray(model.readout_weight)[0]
    offset = float(model.readout_bias[0])
    start = np.stack([x for x, *_ in deaths])
    against = np.array([sign for _, sign, *_ in deaths])

    def survives(size):
        """Whether each memory's first output keeps its sign for 1000 leak times under an opposing input of that size."""
        drive = bias + (against * size)[:, None] * column
        x = start
        for _ in range(5000):
            # The midpoint rule with a fifth of a leak time: a fixed point of it is one of the flow.
            half = x + 0.1 * (-x + np.tanh(x) @ weight.T + drive)
            x = x + 0.2 * (-half + np.tanh(half) @ weight.T + drive)
        return (np.tanh(x) @ readout + offset) * against < 0

    low, high = np.zeros(8), np.full(8, 0.3)
    assert survives(low).all()
    assert not survives(high).any()
    for _ in range(10):
        middle = (low + high) / 2
        alive = survives(middle)
        low, high = np.where(alive, middle, low), np.where(alive, high, middle)
    located = np.array([branch.bifurcations[sweep.number(branch)].parameter for *_, sweep, branch in deaths])
    # 0.3 / 2^10; a passage of 1000 leak times at the ghost is that of a distance below 1e-4.
    np.testing.assert_allclose(located * against, (low + high) / 2, atol=1e-3)


@pytest.mark.slow
def test_the_slope_law_holds_at_every_death(deaths):
    for *_, sweep, branch in deaths:
        side = sweep.side(branch)
        tops = [float(sweep.measure(side, i)[1].steady_state.eigenvalues[0]) for i in range(len(DISTANCES))]
        plain, exponent = (measured_exponent(sweep.distances, np.array(tops), next_order=order) for order in (None, 0.5))
        assert abs(plain + 1) < 0.01
        assert abs(exponent + 1) < 0.01
        event = branch.bifurcations[sweep.number(branch)]
        assert event.interval[1] - event.interval[0] < 1e-10
