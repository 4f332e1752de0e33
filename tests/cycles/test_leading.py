"""Branches of larger networks by their leading multipliers, against branches by all of them and against SciPy.

Compiled: rounds of a network of 64 units, as a whole and in 8 directions.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from oscillators import monodromy, network, nontrivial, units

import ssntk

N, FEW = 64, 4


def two_oscillators(seed, states=1.0, rate=1.0):
    """A network that oscillates in a plane, and in which another plane begins to oscillate as p grows from 0 to 1."""
    rng = np.random.default_rng(seed)
    weight = 0.5 * rng.normal(size=(N, N)) / np.sqrt(N)
    first, second = np.split(np.linalg.qr(rng.normal(size=(N, 4)))[0], 2, axis=1)
    weight = weight + 1.6 * first @ np.array([[1, -1], [1, 1]]) @ first.T
    other = weight + 3 * second @ np.array([[1, -0.37], [0.37, 1]]) @ second.T
    bias = jnp.asarray(0.05 * rng.normal(size=N))
    models = (ssntk.VectorField(units, (jnp.asarray(w), bias, states, rate), N, 0) for w in (weight, other))
    return ssntk.Family.between(*models), 0.1 * states * rng.normal(size=N)


@pytest.fixture(scope="module")
def both():
    """A branch by its leading multipliers, and the same by all of them."""
    family, x = two_oscillators(0)
    start = ssntk.limit_cycle(family(0.0), x)
    few, every = (ssntk.cycle_continuation(family, start, (0.0, 1.0), n_multipliers=k) for k in (FEW, None))
    return family, few, every


def test_it_finds_what_all_multipliers_find(both):
    _, few, every = both
    assert few.multipliers.shape == (len(few), FEW)
    assert every.multipliers.shape == (len(every), N - 1)
    # All are computed where it begins, around its torus, and where it ends.
    assert sum(len(orbit.multipliers) == FEW for orbit in few) >= len(few) - 4
    assert [event.kind for event in few.bifurcations] == [event.kind for event in every.bifurcations] == ["torus"]
    np.testing.assert_allclose(few.bifurcations[0].parameter, every.bifurcations[0].parameter, rtol=1e-10)
    np.testing.assert_allclose(few.bifurcations[0].frequency, every.bifurcations[0].frequency, rtol=1e-8)
    assert few.status == every.status
    assert few.unresolved == ()
    # The steps of both are about alike.
    np.testing.assert_allclose(few.parameter, every.parameter, atol=1e-3)
    np.testing.assert_allclose(few.period, np.interp(few.parameter, every.parameter, every.period), rtol=1e-4)
    np.testing.assert_array_equal(few.n_unstable, every.n_unstable)


@pytest.mark.parametrize("place", some([2, 5, 8, 11], [5]))
def test_each_cycle_and_its_multipliers_by_scipy(both, place):
    family, few, _ = both
    orbit = few[place]
    assert len(orbit.multipliers) == FEW
    end, turned = monodromy(family(float(few.parameter[place])), orbit)
    np.testing.assert_allclose(end, orbit.x[0], atol=1e-8)
    true = nontrivial(turned)
    true = true[np.argsort(-np.abs(true))][: 2 * FEW]
    # Each is one of the true ones to within its error, and the largest is among them.
    apart = np.abs(orbit.multipliers[:, None] - true)
    assert (apart.min(axis=1) <= orbit.multiplier_error + 1e-6).all()
    assert apart[:, 0].min() <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_other_networks(seed):
    family, x = two_oscillators(seed)
    start = ssntk.limit_cycle(family(0.0), x)
    few, every = (ssntk.cycle_continuation(family, start, (0.0, 1.0), n_multipliers=k) for k in (FEW, None))
    assert len(few.bifurcations) == len(every.bifurcations) >= 1
    for one, other in zip(few.bifurcations, every.bifurcations, strict=True):
        assert one.kind == other.kind
        np.testing.assert_allclose(one.parameter, other.parameter, rtol=1e-9)


@pytest.mark.parametrize(
    ("states", "rate"), [pytest.param(1e5, 1e-3, marks=pytest.mark.slow), pytest.param(1e-6, 1e4, marks=pytest.mark.slow)]
)
def test_units_do_not_matter(both, states, rate):
    _, few, _ = both
    family, x = two_oscillators(0, states, rate)
    start = ssntk.limit_cycle(family(0.0), x)
    scaled = ssntk.cycle_continuation(family, start, (0.0, 1.0), n_multipliers=FEW)
    assert len(scaled) == len(few)
    np.testing.assert_allclose(scaled.parameter, few.parameter, atol=1e-6)
    np.testing.assert_allclose(scaled.period * rate, few.period, rtol=1e-6)
    np.testing.assert_allclose(scaled.bifurcations[0].parameter, few.bifurcations[0].parameter, rtol=1e-9)


@pytest.mark.slow
def test_new_weights_compile_nothing(both, compilations):
    family, x = two_oscillators(7)
    start = ssntk.limit_cycle(family(0.0), x)
    branch = ssntk.cycle_continuation(family, start, (0.0, 0.3), n_multipliers=FEW)
    assert branch.multipliers.shape[1] == FEW
    count = len(compilations)
    family, x = two_oscillators(8)
    start = ssntk.limit_cycle(family(0.0), x)
    ssntk.cycle_continuation(family, start, (0.0, 0.3), n_multipliers=FEW)
    assert len(compilations) == count


@pytest.mark.slow
def test_of_large_networks_the_leading_multipliers_are_the_default():
    model = network(3, 128)
    weight, bias, *rest = model.params
    family = ssntk.Family.between(model, ssntk.VectorField(model.fn, (1.3 * weight, bias, *rest), 128, 0))
    start = ssntk.limit_cycle(family(0.0), 0.1 * np.ones(128))
    branch, every = (ssntk.cycle_continuation(family, start, (0.0, 1.0), n_multipliers=k) for k in (None, 127))
    assert branch.multipliers.shape[1] < 127 == every.multipliers.shape[1]
    assert branch.stable.all()
    np.testing.assert_allclose(branch.period, np.interp(branch.parameter, every.parameter, every.period), rtol=1e-4)


def test_mistakes_are_named(both):
    family, few, _ = both
    start = few[0]
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="n_multipliers"):
            ssntk.cycle_continuation(family, start, (0.0, 1.0), n_multipliers=count)
    with pytest.raises(ValueError, match="n_multipliers must be left out by collocation"):
        ssntk.cycle_continuation(family, start, (0.0, 1.0), method="collocation", n_multipliers=3)
