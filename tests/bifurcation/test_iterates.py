"""Branches of iterated maps and of doubled cycles: closed forms, the map's own flip, and other units.

Compiles continuation of about eight maps of one to four states, each iterated one to four times.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some

import ssntk


def logistic(t, x, u, p):
    return p["r"] * x * (1 - x)


def henon(t, x, u, p):
    return [1 - p["a"] * x[0] ** 2 + x[1], p["b"] * x[0]]


def odd(t, x, u, p):
    """A pitchfork at p = 1 of the map itself."""
    return p["p"] * x - x**3


def bubble(t, x, u, p):
    """Flips at q^2 = 0.2, and a cycle between them: x^2 = 0.2 - q^2."""
    return -(1.2 - p["q"] ** 2) * x + x**3


def back(t, x, u, p):
    """A subcritical flip at p = 1: F^2(x) = p^2 x + ... has cycles x^2 = 1 - p below it."""
    return -p["p"] * x - x**3


LOGISTIC = ssntk.Family(ssntk.Map(logistic, {"r": 2.8}, 1), "r")
FEW = {"n_slices": 3, "n_starts": 16}


def iterated(family, k):
    return ssntk.Family(ssntk.Iterated(family.model, k), "r")


def start(r, k):
    """A point of the stable cycle of k steps, by iterating the logistic map."""
    x = 0.4
    for _ in range(20_000):
        x = r * x * (1 - x)
    return [x]


# (steps of the iterate, where it starts, where it ends, what is found). The first is 1 + sqrt(6), the fold is 1 + sqrt(8).
# The others are in textbooks to ten digits, as 3.5440903596, 3.5644072661 and 3.8414990075.
VALUES = {
    "flip of 2": (2, 3.2, 3.5, "flip", 1 + np.sqrt(6), 1e-12),
    "flip of 4": (4, 3.5, 3.55, "flip", 3.5440903596, 1e-10),
    "flip of 8": (8, 3.555, 3.566, "flip", 3.5644072661, 1e-10),
    "fold of 3": (3, 3.835, 3.82, "saddle-node", 1 + np.sqrt(8), 1e-12),
    "flip of 3": (3, 3.835, 3.845, "flip", 3.8414990075, 1e-10),
}


@pytest.mark.parametrize("name", some(VALUES, {"flip of 2", "fold of 3"}))
def test_bifurcations_of_cycles_of_the_logistic_map(name):
    k, first, last, kind, value, close = VALUES[name]
    branch = ssntk.continuation(iterated(LOGISTIC, k), (first, last), x0=start(first, k))
    (event,) = branch.bifurcations
    assert (event.kind, event.period, branch.period) == (kind, k, k)
    assert branch.unresolved == ()
    np.testing.assert_allclose(event.parameter, value, atol=close)
    if kind == "flip":
        assert event.criticality == "supercritical"
        np.testing.assert_allclose(event.frequency, np.pi / k, rtol=1e-12)
    # The orbit is that of the map.
    assert branch.orbit.shape == (len(branch), k, 1)
    x, r = branch.orbit[..., 0], branch.parameter[:, None]
    np.testing.assert_allclose(np.roll(x, -1, axis=1), r * x * (1 - x), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "a", "value"), [(1, 0.2, 3 * 0.7**2 / 4), (2, 0.5, 0.7**2 + 1.3**2 / 4)])
def test_bifurcations_of_the_henon_map(k, a, value):
    model = ssntk.Map(henon, {"a": a, "b": 0.3}, 2)
    x = ssntk.find_cycles(model, k)
    x0 = x.x[int(np.flatnonzero(x.stable)[0]), 0]
    family = ssntk.Family(ssntk.Iterated(model, k) if k > 1 else model, "a")
    branch = ssntk.continuation(family, (a, 1.2), x0=x0)
    np.testing.assert_allclose([e.parameter for e in branch.bifurcations if e.kind == "flip"], [value], atol=1e-12)


@pytest.mark.parametrize("k", some([2, 3, 4, 6], {2, 3}))
def test_a_flip_of_the_map_is_no_pitchfork_of_its_iterate(k):
    (own,) = ssntk.continuation(LOGISTIC, (2.8, 3.3), x0=[1 - 1 / 2.8]).bifurcations
    branch = ssntk.continuation(iterated(LOGISTIC, k), (2.8, 3.3), x0=[1 - 1 / 2.8])
    (event,) = branch.bifurcations
    assert (event.kind, event.criticality, event.period) == ("flip", own.criticality, 1)
    assert branch.period == 1
    assert branch.orbit is None
    np.testing.assert_allclose([event.parameter, event.coefficient, event.frequency], [3.0, 9.0, np.pi], rtol=1e-6)
    np.testing.assert_allclose(own.coefficient, 9.0, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_flips_of_random_networks_are_those_of_their_second_iterate(seed):
    # Strong negative feedback makes a flip.
    random = np.random.default_rng(seed)
    weight = random.normal(size=(4, 4)) / 2 - np.diag(random.uniform(0.5, 1.0, 4))
    network = ssntk.EulerMap(ssntk.CTRNN.from_weights(weight, bias=random.normal(size=4) / 4, form="rate"), 1.0)
    own = ssntk.continuation(ssntk.Family(network, "gain"), (0.3, 2.5), x0=np.zeros(4))
    twice = ssntk.continuation(ssntk.Family(ssntk.Iterated(network, 2), "gain"), (0.3, 2.5), x0=np.zeros(4))
    flips = [[(e.parameter, e.coefficient) for e in branch.bifurcations if e.kind == "flip"] for branch in (own, twice)]
    np.testing.assert_allclose(*flips, rtol=1e-6)
    assert len(own.bifurcations) == len(twice.bifurcations) > 0
    assert not any(e.kind in ("pitchfork", "transcritical") for e in twice.bifurcations)


@pytest.mark.parametrize("k", some([1, 2, 3], {2}))
def test_a_pitchfork_of_the_map_stays_one(k):
    family = ssntk.Family(ssntk.Iterated(ssntk.Map(odd, {"p": 0.5}, 1), k), "p")
    (event,) = ssntk.continuation(family, (0.5, 1.5), x0=[0.0]).bifurcations
    # F^k = x + k (p - 1) x - k x^3 nearby, and the coefficient is that of F.
    assert (event.kind, event.period) == ("pitchfork", 1)
    np.testing.assert_allclose([event.parameter, event.coefficient], [1.0, -1.0], rtol=1e-6)


def test_a_diagram_follows_the_cycles_that_flips_give_birth_to():
    diagram = ssntk.bifurcation_diagram(LOGISTIC, (2.5, 3.5), max_period=4, **FEW)
    assert [branch.period for branch in diagram.branches] == [1, 1, 2, 4]
    fixed = next(i for i in range(2) if diagram.branches[i].x.min() > 0.1)
    assert diagram.parent[2:] == ((fixed, 0), (2, 0))
    assert [(e.kind, e.period) for e in diagram.bifurcations] == [("flip", 1), ("flip", 2)]
    np.testing.assert_allclose([e.parameter for e in diagram.bifurcations], [3, 1 + np.sqrt(6)], atol=1e-9)
    assert diagram.status == "everything that was seen was followed"
    two = diagram.branches[2]
    r = two.parameter
    # The points of the cycle, in closed form.
    expected = (r + 1 + np.array([-1, 1])[:, None] * np.sqrt((r + 1) * (r - 3))) / (2 * r)
    np.testing.assert_allclose(np.sort(two.orbit[..., 0], axis=1), expected.T, atol=1e-10)
    np.testing.assert_array_equal(two.stable, r < 1 + np.sqrt(6))
    np.testing.assert_allclose(two.eigenvalues[:, 0].real, 4 + 2 * r - r**2, atol=1e-9)
    ax = diagram.plot()
    # Both points of the cycle are drawn, at r = 3.3.
    drawn = np.concatenate([line.get_xydata() for line in ax.lines])
    near = drawn[np.abs(drawn[:, 0] - 3.3) < 0.05, 1]
    assert near.min() < 0.55
    assert near.max() > 0.8


def test_what_lies_beyond_the_largest_period_is_said():
    diagram = ssntk.bifurcation_diagram(LOGISTIC, (2.5, 3.2), max_period=1, **FEW)
    assert len(diagram.branches) == 2
    assert diagram.status == "cycles of 2 steps were not followed: give a larger max_period"
    with pytest.raises(ValueError, match=r"^max_period must"):
        ssntk.bifurcation_diagram(LOGISTIC, (2.5, 3.2), max_period=0)


@pytest.mark.slow
def test_a_cycle_between_two_flips_is_followed_once():
    diagram = ssntk.bifurcation_diagram(ssntk.Family(ssntk.Map(bubble, {"q": 0.0}, 1), "q"), (-0.9, 0.9), **FEW)
    assert [e.kind for e in diagram.bifurcations] == ["flip", "flip"]
    np.testing.assert_allclose([e.parameter for e in diagram.bifurcations], np.sqrt(0.2) * np.array([-1, 1]), atol=1e-12)
    (cycles,) = [branch for branch in diagram.branches if branch.period == 2]
    np.testing.assert_allclose(cycles.x[:, 0] ** 2, 0.2 - cycles.parameter**2, atol=1e-10)
    # The whole arc between the flips.
    assert np.ptp(cycles.parameter) > 0.99 * 2 * np.sqrt(0.2)


@pytest.mark.slow
def test_cascades_that_unfold_and_fold_again_keep_their_periods():
    def there_and_back(t, x, u, p):
        return (3.6 - p["a"] ** 2) * x * (1 - x)

    model = ssntk.Map(there_and_back, {"a": 0.0}, 1)
    diagram = ssntk.bifurcation_diagram(ssntk.Family(model, "a"), (-0.9, 0.9), **FEW)
    assert [branch.period for branch in diagram.branches] == [1, 1, 2, 4, 8]
    flips = np.sqrt(3.6 - np.array([3.0, 1 + np.sqrt(6), 3.5440903596, 3.5644072661]))
    found = [event.parameter for event in diagram.bifurcations]
    np.testing.assert_allclose(found, [*-flips, *flips[::-1]], atol=1e-9)
    for branch in diagram.branches[2:]:
        assert branch.status.endswith("at the flip where its period halves")
        # No point has half the period.
        half = branch.orbit[:, branch.period // 2] - branch.orbit[:, 0]
        assert np.abs(half).min() > 1e-4
        # The branch reaches from flip to flip.
        np.testing.assert_allclose(np.abs(branch.parameter[[0, -1]]), flips[int(np.log2(branch.period)) - 1], rtol=1e-2)


@pytest.mark.slow
def test_a_branch_ends_in_the_span():
    # Beyond its flips the multipliers of this map's cycles of eight steps are as large as 4e5.
    def quintic(t, x, u, p):
        return -(1 + p["a"]) * x - x**3 + 0.5 * x**5

    diagram = ssntk.bifurcation_diagram(ssntk.Family(ssntk.Map(quintic, {"a": 0.1}, 1), "a"), (-1.0, 0.5), **FEW)
    assert max(branch.period for branch in diagram.branches) == 8
    for branch in diagram.branches:
        assert branch.parameter.max() <= 0.5


@pytest.mark.slow
def test_a_subcritical_flip():
    diagram = ssntk.bifurcation_diagram(ssntk.Family(ssntk.Map(back, {"p": 0.5}, 1), "p"), (0.5, 1.5), **FEW)
    (event,) = diagram.bifurcations
    assert (event.kind, event.criticality) == ("flip", "subcritical")
    (cycles,) = [branch for branch in diagram.branches if branch.period == 2]
    np.testing.assert_allclose(cycles.x[:, 0] ** 2, 1 - cycles.parameter, atol=1e-10)
    assert not cycles.stable.any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_other_units_change_no_diagram(seed):
    random = np.random.default_rng([seed, 3])
    size, dt, unit = 10 ** random.uniform(-6, 6, 3)

    def scaled(t, x, u, p):
        return size * logistic(t, x / size, u, {"r": p["r"] / unit})

    other = ssntk.Family(ssntk.Map(scaled, {"r": 2.8 * unit}, 1, dt=dt), "r")
    found = ssntk.bifurcation_diagram(other, (2.5 * unit, 3.5 * unit), max_period=2, **FEW)
    expected = ssntk.bifurcation_diagram(LOGISTIC, (2.5, 3.5), max_period=2, **FEW)
    assert [branch.period for branch in found.branches] == [branch.period for branch in expected.branches]
    for one, two in zip(found.bifurcations, expected.bifurcations, strict=True):
        assert (one.kind, one.criticality, one.period) == (two.kind, two.criticality, two.period)
        np.testing.assert_allclose(one.parameter / unit, two.parameter, rtol=1e-9)
        np.testing.assert_allclose(one.frequency * dt, two.frequency, rtol=1e-9)


@pytest.mark.slow
def test_a_network_and_its_doubled_cycle_by_simulation():
    # What the diagram calls a stable cycle is where a simulation ends.
    network = ssntk.EulerMap(
        ssntk.CTRNN.from_weights(-jnp.diag(jnp.array([2.0, 1.2, 0.5])) + 0.1 * jr.normal(jr.key(2), (3, 3)), form="rate"),
        1.0,
    )
    diagram = ssntk.bifurcation_diagram(ssntk.Family(network, "gain"), (0.2, 1.2), **FEW)
    cycles = [branch for branch in diagram.branches if branch.period == 2 and branch.stable.any()]
    assert cycles
    branch = cycles[0]
    i = int(np.flatnonzero(branch.stable)[-1])
    model = ssntk.Family(network, "gain")(branch.parameter[i])
    x = jnp.asarray(branch.x[i]) * 1.001
    for _ in range(3000):
        x = model.step(x)
    assert min(np.abs(x - point).max() for point in branch.orbit[i]) < 1e-8


def test_kept_and_read_back(tmp_path):
    branch = ssntk.continuation(iterated(LOGISTIC, 2), (3.2, 3.5), x0=start(3.2, 2))
    assert ssntk.load(ssntk.save(tmp_path / "branch.npz", branch)) == branch
    assert "of a cycle of 2 steps" in repr(branch)
    assert "Branch of cycles of 2 steps" in repr(branch)
