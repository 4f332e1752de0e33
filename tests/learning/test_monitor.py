"""The monitor's records against the functions that they summarise, its events against bifurcations in closed form."""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import ssntk

TIMES = np.linspace(0.0, 4.0, 9)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
N = 6


def theta(model):
    return model.weight, model.input_weight, model.bias


def network(seed, gain=0.5):
    return ssntk.CTRNN(N, 1, 2, gain=gain, key=jr.key(seed))


def jacobian(model, x):
    """Of -x + gain W tanh(x)."""
    return float(model.gain) * np.asarray(model.weight) * (1 - np.tanh(x) ** 2) - np.eye(N)


def probe():
    return ssntk.Probe(TIMES, jr.normal(jr.key(100), (3, 1)))


def monitor(every=1, **options):
    return ssntk.NTKMonitor(probe(), every, **{"wrt": theta, "integrator": HEUN, "n_starts": 32} | options)


@pytest.mark.parametrize("seed", range(3))
def test_a_record_is_what_the_separate_functions_say(seed):
    first, model = network(seed), network(seed + 50)
    watch = monitor()
    watch.update(0, first)
    record = watch.update(1, model, learning_rate=0.01, momentum=0.5)
    asked = {"of": "readout", "wrt": theta, "integrator": HEUN}
    spectrum = ssntk.ntk_spectrum(model, probe(), **asked)
    rows = 3 * 9 * 2
    # The monitor squares J before it takes eigenvalues, which loses half of the digits.
    np.testing.assert_allclose(record.effective_rank, spectrum.effective_rank, rtol=1e-6)
    np.testing.assert_allclose(record.participation_ratio, spectrum.participation_ratio, rtol=1e-8)
    np.testing.assert_allclose(record.top_eigenvalue, spectrum.eigenvalues[0] / rows, rtol=1e-8)
    np.testing.assert_allclose(record.max_learning_rate, 2 * 1.5 * rows / spectrum.eigenvalues[0], rtol=1e-8)
    kernels = [np.asarray(ssntk.ntk(m, probe(), **asked)).reshape(rows, rows) for m in (first, model)]
    change = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
    np.testing.assert_allclose(record.relative_change, change, rtol=1e-6)
    cosine = np.vdot(*kernels) / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    np.testing.assert_allclose(record.alignment, cosine, rtol=1e-6)
    # A gain of one half contracts: there is one fixed point, and it is stable.
    found = ssntk.find_fixed_points(model, n_starts=32)
    assert (record.n_fixed_points, record.n_stable, len(found)) == (1, 1, 1)
    np.testing.assert_allclose(record.x_star, found.x[0], atol=1e-9)
    matrix = jacobian(model, found.x[0])
    np.testing.assert_allclose(record.stability_radius, ssntk.stability_radius(matrix)[0], rtol=1e-8)
    critical = np.linalg.eigvals(matrix)
    assert np.abs(critical - record.critical_eigenvalue).min() < 1e-8
    assert record.verdict == ssntk.criticality(model, horizon=4.0, n_starts=32).verdict
    assert watch.records[1] is record
    assert (record.step, record.learning_rate, record.events) == (1, 0.01, ())
    assert record.seconds > 0


def test_adam_is_watched_through_its_preconditioner():
    model = network(1)
    opt = optax.adam(1e-3)
    moving = theta(model)
    with jax.numpy_dtype_promotion("standard"):
        _, state = opt.update(tuple(0.1 + jnp.abs(leaf) for leaf in moving), opt.init(moving), moving)
    record = monitor().update(0, model, learning_rate=1e-3, preconditioner=state)
    spectrum = ssntk.ntk_spectrum(model, probe(), of="readout", wrt=theta, integrator=HEUN, preconditioner=state)
    top = float(spectrum.eigenvalues[0]) / 54
    np.testing.assert_allclose(record.top_eigenvalue, top, rtol=1e-8)
    # 2 (1 + b1) / ((1 - b1) lambda): Adam's averaged gradient with its second moments held still.
    np.testing.assert_allclose(record.max_learning_rate, 38 / top, rtol=1e-8)
    # What is said of the kernel itself is not of the preconditioned one.
    plain = ssntk.ntk_spectrum(model, probe(), of="readout", wrt=theta, integrator=HEUN)
    np.testing.assert_allclose(record.participation_ratio, plain.participation_ratio, rtol=1e-8)


def symmetric(seed):
    """A random symmetric W with the largest eigenvalue 1 and no bias: its origin has a pitchfork at gain 1."""
    weight = np.random.default_rng(seed).normal(size=(N, N))
    weight = weight + weight.T
    values = np.linalg.eigvalsh(weight)
    weight = weight / values[-1]
    # No other eigenvalue comes near to 1 on the way, and none is below -1.
    weight = weight - np.eye(N) * max(0.0, -np.linalg.eigvalsh(weight)[0] - 0.9)
    return ssntk.CTRNN.from_weights(weight / np.linalg.eigvalsh(weight)[-1], np.ones((N, 1)), None, np.ones((2, N)))


@pytest.mark.parametrize("seed", range(3))
def test_a_pitchfork_is_seen_at_the_record_after_it(seed):
    # A short trajectory cannot tell a slow mode from a still one: the verdict is that of the probe's duration.
    long = ssntk.Probe(16 * TIMES, np.ones((1, 1)))
    model, watch = symmetric(seed), ssntk.NTKMonitor(long, 1, wrt=theta, integrator=HEUN, n_starts=32)
    gains = np.array([0.8, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step, gain in enumerate(gains):
            watch.update(step, eqx.tree_at(lambda m: m.weight, model, gain * model.weight))
    seen = watch.arrays()
    after = int(np.flatnonzero(gains > 1)[0])
    assert (seen["n_fixed_points"][:after] == 1).all()
    assert (seen["n_fixed_points"][after:] >= 3).all()
    assert (seen["n_stable"][after:] == 2).all()
    assert watch.records[after].events == ("a fixed point that had 0 unstable directions has 1",)
    assert all(record.events == () for record in watch.records[:after])
    # The symmetric origin is as far from instability as its rightmost eigenvalue is.
    np.testing.assert_allclose(seen["critical_eigenvalue"][:after].real, gains[:after] - 1, atol=1e-8)
    np.testing.assert_allclose(seen["stability_radius"][:after], 1 - gains[:after], atol=1e-8)
    near = [w for w in said if w.category is ssntk.NearCriticalWarning]
    assert len(near) == 1
    assert "the loss may jump" in str(near[0].message)


def test_a_fold_is_seen_at_the_record_after_it():
    """x' = -x + 2 tanh x + b: two fixed points meet at b = x - 2 tanh x where tanh^2 x = 1/2."""
    x = np.arctanh(-(0.5**0.5))
    fold = x - 2 * np.tanh(x)
    biases = fold + np.linspace(-0.2, 0.06, 11)
    watch = ssntk.NTKMonitor(
        ssntk.Probe(TIMES, np.zeros((1, 1))), 1, wrt=lambda m: (m.weight, m.bias), integrator=HEUN, n_starts=32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
        for step, bias in enumerate(biases):
            watch.update(step, ssntk.CTRNN.from_weights([[2.0]], [[1.0]], [bias]))
    after = int(np.flatnonzero(biases > fold)[0])
    seen = watch.arrays()
    np.testing.assert_array_equal(seen["n_fixed_points"], np.where(biases < fold, 3, 1))
    assert sorted(watch.records[after].events) == [
        "a fixed point with 0 unstable directions is no longer there",
        "a fixed point with 1 unstable directions is no longer there",
    ]


def test_more_fixed_points_than_are_followed_lose_none_where_nothing_moves():
    """Six units 2 tanh x apart from one another: 3^6 fixed points. Those that are not followed are not said to be gone."""
    model = ssntk.CTRNN.from_weights(2 * np.eye(N), np.ones((N, 1)), None, np.ones((2, N)))
    watch = monitor(n_starts=256)
    first, second = (watch.update(step, model) for step in (0, 1))
    assert first.n_fixed_points > second.n_fixed_points >= 64
    assert second.events == ()


def test_it_warns_once_for_each_time_that_the_rate_is_too_large():
    watch, model = monitor(), network(2)
    limit = watch.update(0, model).max_learning_rate
    for step, (share, expected) in enumerate([(0.9, 0), (1.1, 1), (1.2, 0), (0.9, 0), (1.1, 1)], start=1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            watch.update(step, model, learning_rate=share * limit)
        assert [w.category for w in said] == expected * [ssntk.LearningRateWarning]
        assert all("low_rank_natural_gradient" in str(w.message) for w in said)


def test_off_its_schedule_it_does_nothing_and_as_a_callback_it_is_the_same():
    watch, model = monitor(every=10), network(3)
    assert [step for step in range(21) if watch(step, model) is not None] == [0, 10, 20]
    seen = watch.arrays()
    np.testing.assert_array_equal(seen["step"], [0, 10, 20])
    assert seen["x_star"].shape == (3, N)
    assert "events" not in seen
    # Nothing moved.
    assert (seen["relative_change"] < 1e-7).all()


def test_other_weights_compile_nothing(compilations):
    watch = monitor()
    for seed in range(3):
        watch.update(seed, network(seed))
    before = len(compilations)
    for seed in range(3, 8):
        watch.update(seed, network(seed))
    assert len(compilations) == before


def test_a_map_is_watched_in_continuous_time_units():
    model = ssntk.EulerMap(network(4), 0.1)
    record = ssntk.NTKMonitor(ssntk.Probe(np.arange(9) * 0.1, jr.normal(jr.key(0), (3, 1))), 1, n_starts=32).update(0, model)
    matrix = np.eye(N) + 0.1 * jacobian(model.model, record.x_star)
    growth = np.log(np.abs(np.linalg.eigvals(matrix))) / 0.1
    np.testing.assert_allclose(record.critical_eigenvalue.real, growth.max(), rtol=1e-6)
    assert record.n_stable == 1


def test_bad_arguments_are_named():
    for wrong, name in (
        ({"every": 0}, "every"),
        ({"of": "all"}, "of"),
        ({"n_starts": 1}, "n_starts"),
        ({"u": np.zeros((2, 2))}, "u"),
    ):
        with pytest.raises(ValueError, match=name):
            monitor(**wrong)
    watch, model = monitor(), network(5)
    for wrong, name in (({"learning_rate": -1.0}, "learning_rate"), ({"momentum": 1.0}, "momentum")):
        with pytest.raises(ValueError, match=name):
            watch.update(0, model, **wrong)
    with pytest.raises(ValueError, match="step"):
        watch.update(-1, model)
    watch.update(0, model)
    with pytest.raises(ValueError, match="model must have p = 48"):
        watch.update(1, ssntk.CTRNN(N + 1, 1, 2, key=jr.key(0)))
    assert len(watch.records) == 1
    # A numerical failure is an error, not a record.
    broken = eqx.tree_at(lambda m: m.weight, model, jnp.full((N, N), jnp.nan))
    with pytest.raises((ValueError, ssntk.NumericalError)):
        watch.update(1, broken)
    assert len(watch.records) == 1
