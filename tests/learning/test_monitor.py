"""The monitor's records against the functions that they summarise, its events against bifurcations in closed form."""

import dataclasses
import json
import pathlib
import pickle
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import seeds

import ssntk
from ssntk.learning import pace

TIMES = np.linspace(0.0, 4.0, 9)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
N = 6


def theta(model):
    return model.weight, model.input_weight, model.bias


def network(seed, gain=0.5):
    return ssntk.CTRNN(N, 1, 2, gain=gain, key=jr.key(seed))


def jacobian(model, x):
    """The Jacobian of -x + gain W tanh(x)."""
    return float(model.gain) * np.asarray(model.weight) * (1 - np.tanh(x) ** 2) - np.eye(N)


def probe():
    return ssntk.Probe(TIMES, jr.normal(jr.key(100), (3, 1)))


def monitor(every=1, **options):
    return ssntk.NTKMonitor(probe(), every, **{"wrt": theta, "integrator": HEUN, "n_starts": 32} | options)


@pytest.mark.parametrize("seed", seeds(1, 3))
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
    # The numbers about the kernel itself are not those of the preconditioned one.
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


# A short trajectory does not distinguish a slow mode from a still one: the verdict depends on the probe's duration.
LONG = ssntk.Probe(16 * TIMES, np.ones((1, 1)))


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_a_pitchfork_is_seen_at_the_record_after_it(seed):
    model, watch = symmetric(seed), ssntk.NTKMonitor(LONG, 1, wrt=theta, integrator=HEUN, n_starts=32)
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
    assert watch.records[after].events == (
        "a fixed point that had 0 unstable directions has 1",
        f"2 new fixed points (2 stable), first seen at step {after}",
    )
    assert all(record.events == () for record in watch.records[:after])
    # The symmetric origin is as far from instability as its rightmost eigenvalue is.
    np.testing.assert_allclose(seen["critical_eigenvalue"][:after].real, gains[:after] - 1, atol=1e-8)
    np.testing.assert_allclose(seen["stability_radius"][:after], 1 - gains[:after], atol=1e-8)
    # Beyond it the verdict is that of the two that were born, and the origin is the saddle.
    assert np.isnan(seen["saddle_eigenvalue"][:after]).all()
    near = slice(after, after + 2)
    np.testing.assert_allclose(seen["saddle_eigenvalue"][near].real, gains[near] - 1, atol=1e-8)
    assert (seen["critical_eigenvalue"][after:].real < 0).all()
    assert (np.abs(seen["x_star"][after:]).max(axis=1) > 1e-3).all()
    warned = [w for w in said if w.category is ssntk.NearCriticalWarning]
    assert len(warned) == 1
    assert "the stable learning rate may fall" in str(warned[0].message)


def test_a_fold_is_seen_at_the_record_after_it():
    """x' = -x + 2 tanh x + b: two fixed points meet at b = x - 2 tanh x where tanh^2 x = 1/2."""
    x = np.arctanh(-(0.5**0.5))
    fold = x - 2 * np.tanh(x)
    biases = fold + np.linspace(-0.2, 0.06, 11)
    # The other five units rest at zero. Everything has the shapes of the test above, so that nothing is compiled anew.
    watch, first = ssntk.NTKMonitor(LONG, 1, wrt=theta, integrator=HEUN, n_starts=32), np.eye(N)[0]
    model = ssntk.CTRNN.from_weights(2 * np.outer(first, first), np.ones((N, 1)), np.zeros(N), np.ones((2, N)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
        for step, bias in enumerate(biases):
            watch.update(step, eqx.tree_at(lambda m: m.bias, model, jnp.asarray(bias * first)))
    after = int(np.flatnonzero(biases > fold)[0])
    seen = watch.arrays()
    np.testing.assert_array_equal(seen["n_fixed_points"], np.where(biases < fold, 3, 1))
    assert sorted(watch.records[after].events) == [
        "a fixed point with 0 unstable directions is no longer there",
        "a fixed point with 1 unstable directions is no longer there",
    ]


@pytest.mark.slow
def test_more_fixed_points_than_are_followed_lose_none_where_nothing_moves():
    """Six uncoupled units 2 tanh x have 3^6 fixed points. Those that are not followed must not be reported as gone."""
    model = ssntk.CTRNN.from_weights(2 * np.eye(N), np.ones((N, 1)), None, np.ones((2, N)))
    watch = monitor(n_starts=256)
    first, second = (watch.update(step, model) for step in (0, 1))
    assert first.n_fixed_points > second.n_fixed_points >= 64
    # Nor are known points that are found again reported as new.
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


def slow_saddle():
    """x' = x - x^3, y' = -y (0.01 + 0.99 x^2): stable at x = +-1 with rates -1 and -2, a saddle at 0 with 1 and -0.01."""
    return ssntk.VectorField(
        lambda t, x, u, p: jnp.stack([x[0] - x[0] ** 3, -p * x[1] * (0.01 + 0.99 * x[0] ** 2)]), jnp.ones(()), 2, 1
    )


def test_a_saddle_near_a_bifurcation_is_told_apart_and_warns_of_nothing():
    watch = ssntk.NTKMonitor(ssntk.Probe(16 * TIMES, np.ones((1, 1)), [1.0, 1.0]), 1, integrator=HEUN, n_starts=32)
    # Warnings are errors in these tests.
    model = slow_saddle()
    record = watch.update(0, model)
    assert (record.n_fixed_points, record.n_stable, record.stable) == (3, 2, True)
    np.testing.assert_allclose(record.saddle_eigenvalue, -0.01, atol=1e-9)
    np.testing.assert_allclose(record.stability_radius, 1.0, rtol=1e-6)
    assert record.verdict == ssntk.criticality(model, horizon=64.0).verdict == "regular"
    assert record.reason.startswith("regular: a stable fixed point has stability radius 1")


def test_where_nothing_is_stable_the_verdict_says_so():
    # A rotation that grows at rate 0.001, and nothing else.
    field = ssntk.VectorField(lambda t, x, u, p: p @ x, jnp.array([[0.001, 1.0], [-1.0, 0.001]]), 2, 1)
    watch = ssntk.NTKMonitor(ssntk.Probe(16 * TIMES, np.ones((1, 1))), 1, integrator=HEUN, n_starts=8)
    with pytest.warns(
        ssntk.NearCriticalWarning, match=r"step 0: critical: none is stable, .*: the stable learning rate may fall"
    ):
        record = watch.update(0, field)
    assert (record.n_stable, record.stable) == (0, False)
    np.testing.assert_allclose((record.stability_radius, record.critical_eigenvalue), (-0.001, 0.001 + 1j), rtol=1e-6)
    np.testing.assert_allclose(record.saddle_eigenvalue, 0.001 + 1j, rtol=1e-6)


@pytest.mark.slow
def test_a_trained_flip_flop_is_judged_by_its_memories():
    file = pathlib.Path(__file__).parent.parent / "reference" / "flip_flop64.npz"
    model = ssntk.CTRNN.from_weights(**np.load(file))
    watch = ssntk.NTKMonitor(ssntk.Probe(np.linspace(0.0, 12.0, 5), np.zeros((1, 3))), 1, wrt=lambda m: m.bias)
    record = watch.update(0, model)
    found = ssntk.criticality(model, horizon=12.0, n_starts=64)
    assert (record.n_stable, record.verdict, found.verdict) == (8, "regular", "regular")
    assert record.n_fixed_points > 16
    np.testing.assert_allclose(record.stability_radius, found.stability_radius, rtol=1e-6)


def test_the_log_has_a_line_for_each_record(tmp_path):
    file = tmp_path / "run.jsonl"
    file.write_text('{"step": 0, "torn')
    watch, model = monitor(every=2, log=file), network(6)
    for step in range(5):
        watch.update(step, model, loss=np.float32(0.5) if step else float("inf"), learning_rate=0.1)
        # Lines are written as a whole, so that the file can be followed while it grows.
        assert file.read_text().count("\n") == step // 2 + 2
    torn, *lines = file.read_text().splitlines()
    said = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    assert torn == '{"step": 0, "torn'
    assert [one["step"] for one in said] == [0, 2, 4]
    assert [one["loss"] for one in said] == [None, 0.5, 0.5]
    assert set(said[0]) == {field.name for field in dataclasses.fields(ssntk.MonitorRecord)}
    last = watch.records[-1]
    assert (last.loss, watch.records[0].loss) == (0.5, np.inf)
    np.testing.assert_array_equal(said[-1]["x_star"], last.x_star)
    assert complex(*said[-1]["critical_eigenvalue"]) == last.critical_eigenvalue
    assert said[-1]["saddle_eigenvalue"] == [None, None]


def test_automatic_records_take_five_per_cent_of_the_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    rng, due = np.random.default_rng(0), pace.Pace("auto")
    spent, training, cost, records = 0.0, 0.0, 0.4, []
    for step in range(2000):
        if due.due(step):
            # The first record also compiles for 20 seconds.
            compiled = 20.0 if not records else 0.0
            now[0] += cost + compiled
            due.took(cost + compiled, compiled)
            spent, records = spent + cost, [*records, step]
        if step and len(records) > 1:
            assert spent <= 0.05 * training
        took = rng.uniform(0.05, 0.15)
        now[0], training = now[0] + took, training + took
    # About 200 s of training leave room for 25 of them.
    assert records[0] == 0
    assert abs(len(records) - 0.05 * training / cost) <= 2


def test_compilation_is_told_apart():
    watch = ssntk.NTKMonitor(ssntk.Probe(TIMES[:4], np.ones((2, 1))), "auto", wrt=theta, integrator=HEUN, n_starts=8)
    first = watch.update(0, network(7))
    assert 0.2 * first.seconds < first.compile_seconds <= first.seconds
    assert watch.update(1, network(7)) is None
    watch = monitor()
    records = [watch.update(step, network(7)) for step in range(4)]
    assert records[-1].compile_seconds < 0.5 * records[-1].seconds


def test_weights_of_pytorch_stand_where_a_model_is_asked_for():
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (N, 1), "weight_hh_l0": (N, N), "bias_ih_l0": (N,), "bias_hh_l0": (N,)}
    weights = {f"rnn.{name}": 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}
    weights |= {"fc.weight": rng.normal(size=(2, N)), "fc.bias": np.zeros(2)}
    asked = ssntk.Probe(np.arange(5.0), rng.normal(size=(2, 5, 1))), 1
    one, two = (ssntk.NTKMonitor(*asked, n_starts=8).update(0, model) for model in (weights, ssntk.from_torch(weights)))
    assert (one.top_eigenvalue, one.stability_radius) == (two.top_eigenvalue, two.stability_radius)


def test_old_pickles_load():
    record = object.__new__(ssntk.MonitorRecord)
    fields = {field.name: 0 for field in dataclasses.fields(record)[:16]}
    vars(record).update(fields)
    again = pickle.loads(pickle.dumps(record))
    assert {name: getattr(again, name) for name in fields} == fields
    assert np.isnan(again.loss)
    assert np.isnan(again.saddle_eigenvalue)
    assert again.reason == ""


def test_plot_is_the_picture_of_this_monitor(monkeypatch):
    seen = []
    monkeypatch.setattr(ssntk.plot, "monitor", lambda watch, loss=None: seen.append((watch, loss)) or "axes", raising=False)
    watch = monitor()
    assert watch.plot([1.0]) == "axes"
    assert seen == [(watch, [1.0])]


def test_bad_arguments_are_named():
    for wrong, name in (
        ({"every": 0}, "every"),
        ({"of": "all"}, "of"),
        ({"n_starts": 1}, "n_starts"),
        ({"u": np.zeros((2, 2))}, "u"),
        ({"every": "often"}, "every must be a number of steps or 'auto'"),
        ({"loss": "l1"}, "loss must be one of"),
        ({"log": "/no/such/folder/log"}, "log must be the path"),
        ({"log": 3.5}, "log must be the path"),
    ):
        with pytest.raises(ValueError, match=name):
            monitor(**wrong)
    watch, model = monitor(), network(5)
    for wrong, name in (
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"loss": "low"}, "loss"),
    ):
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


def test_weights_that_are_no_numbers_end_with_what_was_recorded():
    monitor = ssntk.NTKMonitor(ssntk.Probe(np.arange(3.0), np.ones((1, 1))), n_starts=8)
    weights = {"weight_hh_l0": 0.5 * np.eye(2), "weight_ih_l0": np.ones((2, 1))}
    monitor.update(0, weights)
    with pytest.raises(ssntk.NumericalError, match="weights are not finite at step 100: training diverged"):
        monitor.update(100, weights | {"weight_hh_l0": np.full((2, 2), np.nan)})
    assert len(monitor.records) == 1
