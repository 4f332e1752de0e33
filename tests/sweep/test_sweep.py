import concurrent.futures
import json
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT, flip_flop

import ssntk
from ssntk.collapse.laws import measured_exponent

nf = ssntk.normal_forms


def fold_sweep(**changes):
    """Towards the fold of dx/dt = mu - x^2, along x = sqrt(mu)."""
    plan = {
        "towards": "saddle-node",
        "span": (1.0, -1.0),
        "distances": [1e-1, 1e-2, 1e-3, 1e-4],
        "probe": ssntk.Probe(np.linspace(0.0, 5.0, 6)),
        "x0": [1.0],
    }
    return ssntk.Sweep(ssntk.Family(nf.saddle_node(0.0), "mu"), **plan | changes)


def network_sweep(seed, gain=1.3, distances=(1e-4, 1e-5, 1e-6, 1e-7), **changes):
    family = ssntk.Family.input(ssntk.CTRNN(32, 1, 1, gain=gain, key=jr.key(seed)), [1.0])
    plan = {"towards": "saddle-node", "span": (-4.0, 4.0), "distances": distances, "probe": ssntk.Probe([0.0, 1.0])}
    return ssntk.Sweep(family, **plan | changes)


def test_points_of_the_normal_form_by_the_closed_form(tmp_path):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    data = store.to_xarray()
    mu = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(data.distance, mu, rtol=1e-12)
    np.testing.assert_allclose(data.parameter, mu, rtol=1e-10)
    np.testing.assert_allclose(data.x_star[:, 0], np.sqrt(mu), rtol=1e-10)
    np.testing.assert_allclose(data.jacobian_eigenvalues[:, 0], -2 * np.sqrt(mu), rtol=1e-10)
    np.testing.assert_allclose(data.steady_state_eigenvalues[:, 0], 1 / (4 * mu), rtol=1e-9)
    np.testing.assert_allclose(data.condition_number, 1.0)
    assert data.status.values.tolist() == ["done"] * 4
    assert set(data.dims) >= {"point", "mode"}
    for name in ("trajectory_condition_number", "trajectory_condition_number_is_bound", "trace", "seconds", "top_share"):
        assert data[name].dims == ("point",)
    # One parameter: the trajectory kernel has rank one whatever the distance.
    np.testing.assert_allclose(data.effective_rank, 1.0, atol=1e-9)


def asymptotic_exponents(sweep):
    """(slope, exponent with the next term) of the top steady-state eigenvalue over the sweep's last three decades."""
    branch = sweep.follow()
    side = sweep.side(branch)
    tops = []
    for index in range(len(sweep.distances)):
        _, measured = sweep.measure(side, index)
        tops.append(float(measured.steady_state.eigenvalues[0]))
    return [measured_exponent(sweep.distances, np.array(tops), next_order=order) for order in (None, 0.5)]


def test_slope_law_on_ten_seeds_that_nobody_picked():
    distances, measured = np.geomspace(1e-4, 1e-7, 7), {}
    for seed in range(1000, 1100):
        try:
            measured[seed] = asymptotic_exponents(network_sweep(seed, distances=distances))
        except ssntk.NumericalError as error:
            # Many random networks have no fold on this branch, or none that ends a stable part of it.
            if "no saddle-node" not in str(error) and "no stable side" not in str(error):
                raise
        if len(measured) == 10:
            break
    slopes, exponents = np.array(list(measured.values())).T
    # With the O(sqrt(distance)) term of a generic fold fitted too, what is left is of order distance.
    np.testing.assert_allclose(exponents, -1.0, atol=0.01)
    # The plain slope is off by c * 0.01 / ln(1e3), with a coefficient c of its own for each network: for most below 7.
    assert np.median(np.abs(slopes + 1)) < 0.01
    np.testing.assert_allclose(slopes, -1.0, atol=0.05)


def test_the_shown_network(tmp_path):
    sweep = ssntk.Sweep.from_toml(ROOT / "sweeps" / "saddle_node.toml")
    branch = sweep.follow()
    side = sweep.side(branch)
    measured = [sweep.measure(side, index)[1] for index in (0, len(sweep.distances) - 1)]
    # Several modes at the start, one at the end.
    assert float(measured[0].trajectory.participation_ratio) > 5
    assert float(measured[1].trajectory.participation_ratio) < 1.05
    slope, _ = asymptotic_exponents(network_sweep(7, distances=np.geomspace(1e-4, 1e-7, 7)))
    assert abs(slope + 1) < 0.01


def test_the_trained_network_slope_law():
    model = flip_flop()
    for x in ssntk.find_fixed_points(model).x[:4]:
        towards = -float(np.sign(model.readout(jnp.asarray(x))[0]))
        sweep = ssntk.Sweep(
            ssntk.Family.input(model, [1.0, 0.0]),
            towards="saddle-node",
            span=(0.0, 0.5 * towards),
            distances=np.geomspace(1e-4, 1e-7, 7),
            probe=ssntk.Probe([0.0, 1.0]),
            x0=x,
        )
        slope, exponent = asymptotic_exponents(sweep)
        assert abs(slope + 1) < 0.01
        assert abs(exponent + 1) < 0.001


def test_two_events_in_one_step_keep_their_own_sides():
    # x' = p + e x - x^3: two folds at x = +-sqrt(e/3), p = -+ (2/3) e sqrt(e/3), a distance of 1e-5 apart for e = 1e-3.
    def field(t, x, u, p):
        return jnp.stack([p + 1e-3 * x[0] - x[0] ** 3, -x[1] + 0.3 * x[0]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    for index, sign in ((0, -1.0), (1, 1.0)):
        sweep = ssntk.Sweep(
            family, towards="saddle-node", span=(-1.0, 1.0), distances=[1e-2], probe=ssntk.Probe([0.0, 1.0]), index=index
        )
        parameter, x = sweep.side(sweep.follow()).at_distance(1e-2)
        roots = np.roots([-1.0, 0.0, 1e-3, parameter])
        (root,) = roots.real[np.abs(roots.imag) < 1e-9]
        assert np.sign(parameter) == sign
        np.testing.assert_allclose(x[0], root, rtol=1e-10)


def test_hopf_sweep_and_constant_input(tmp_path):
    # The parameter comes from the constant input: mu = p - 0.5 with u = -0.5.
    def field(t, x, u, p):
        return (p + u[0] - x @ x) * x + 2.0 * jnp.stack([-x[1], x[0]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2, 1), lambda m: m.params)
    sweep = ssntk.Sweep(
        family,
        towards="hopf",
        span=(0.0, 1.0),
        distances=[0.1, 0.01],
        probe=ssntk.Probe([0.0, 1.0]),
        u=[-0.5],
    )
    data = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False).to_xarray()
    np.testing.assert_allclose(data.parameter, [0.49, 0.4], rtol=1e-12)
    np.testing.assert_allclose(data.jacobian_eigenvalues[:, 0], [-0.01 + 2j, -0.1 + 2j], rtol=1e-10)


def test_a_failed_point_is_recorded_and_the_sweep_goes_on(tmp_path):
    sweep = fold_sweep(distances=[5.0, 1e-2])
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    status = store.status()
    assert (status.done, list(status.failed), status.missing) == ((1,), [0], ())
    assert "reaches only" in status.failed[0]
    data = store.to_xarray()
    assert np.isnan(data.condition_number[1])
    assert np.isnan(data.x_star[1]).all()
    assert data.status.values[1].startswith("failed: ")


def test_a_diverging_trajectory_is_a_failed_point(tmp_path):
    sweep = fold_sweep(probe=ssntk.Probe([0.0, 10.0, 20.0], x0=[-5.0]), integrator=ssntk.Integrator(dt=0.5))
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    assert len(store.status().failed) == 4


def records(folder):
    """Every point's arrays but the time it took."""
    out = {}
    for file in sorted((folder / "points").glob("*.npz")):
        with np.load(file) as archive:
            out[file.name] = {name: archive[name] for name in archive.files if name != "seconds"}
    return out


def test_resuming_recomputes_nothing_and_equals_one_run_bit_for_bit(tmp_path):
    sweep = fold_sweep()
    whole = ssntk.run(sweep, ssntk.Store(tmp_path / "whole"), progress=False)
    ssntk.run(sweep, ssntk.Store(tmp_path / "parts"), progress=False)
    for name in ("00001.npz", "00002.npz"):
        (tmp_path / "parts" / "points" / name).unlink()
    kept = (tmp_path / "parts" / "points" / "00000.npz").stat().st_mtime_ns
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "parts"), progress=False)
    assert (tmp_path / "parts" / "points" / "00000.npz").stat().st_mtime_ns == kept
    threads = concurrent.futures.ThreadPoolExecutor(2)
    ssntk.run(sweep, ssntk.Store(tmp_path / "threads"), executor=threads, progress=False)
    for folder in ("parts", "threads"):
        for name, expected in records(whole.path).items():
            got = records(tmp_path / folder)[name]
            assert got.keys() == expected.keys()
            for key in expected:
                np.testing.assert_array_equal(got[key], expected[key])


def test_another_plan_never_mixes(tmp_path):
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    with pytest.raises(ssntk.StoreError, match="another plan"):
        ssntk.run(fold_sweep(distances=[1e-1]), ssntk.Store(tmp_path), progress=False)


def test_a_plan_without_a_bifurcation_does_not_keep_the_folder(tmp_path):
    with pytest.raises(ssntk.NumericalError, match="no hopf number 0"):
        ssntk.run(fold_sweep(towards="hopf"), ssntk.Store(tmp_path / "s"), progress=False)
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "s"), progress=False)


def test_torn_and_foreign_records_are_kept_aside_and_measured_again(tmp_path):
    sweep = fold_sweep()
    ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    before = records(tmp_path)
    points = tmp_path / "points"
    points.joinpath("00000.npz").write_bytes(points.joinpath("00000.npz").read_bytes()[:100])
    points.joinpath("00001.npz").write_bytes(points.joinpath("00002.npz").read_bytes())
    points.joinpath("00003.npz").write_bytes(b"")
    store = ssntk.Store(tmp_path)
    assert store.status().missing == (0, 1, 3)
    assert len(store.status().set_aside) == 3
    ssntk.run(sweep, store, progress=False)
    assert store.status().missing == ()
    assert len(list(points.glob("*.set-aside*"))) == 3
    after = records(tmp_path)
    for name, expected in before.items():
        for key in expected:
            np.testing.assert_array_equal(after[name][key], expected[key])


def test_a_file_that_cannot_be_read_is_not_taken_for_missing(tmp_path, monkeypatch):
    sweep = fold_sweep()
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)

    def broken(*_, **__):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(np, "load", broken)
    with pytest.raises(ssntk.StoreError, match="cannot be read"):
        store.status()


@pytest.mark.parametrize("held", [{"file.txt": "x"}, {"plan.json": "{"}, {"plan.json": '{"format": 99}'}])
def test_folders_that_are_no_store(tmp_path, held):
    for name, text in held.items():
        tmp_path.joinpath(name).write_text(text)
    with pytest.raises(ssntk.StoreError):
        ssntk.Store(tmp_path).plan()
    with pytest.raises(ssntk.StoreError, match="file, not a folder"):
        ssntk.Store(tmp_path / next(iter(held)))


def test_the_branch_survives_the_store(tmp_path):
    sweep = fold_sweep()
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    branch, again = sweep.follow(), store.branch()
    assert again is not None
    for name in ("parameter", "x", "eigenvalues", "stable", "tangent"):
        np.testing.assert_array_equal(getattr(again, name), getattr(branch, name))
    assert (again.status, again.steps, len(again.unresolved)) == (branch.status, branch.steps, 0)
    got, expected = again.bifurcations[0], branch.bifurcations[0]
    assert (got.kind, got.parameter, got.interval, got.criticality) == (
        expected.kind,
        expected.parameter,
        expected.interval,
        None,
    )


def _quadratic(c):
    return lambda t, x, u, p: p - c * x**2


def _sweep_of(fn, us=None):
    probe = ssntk.Probe([0.0, 1.0], us, x0=[0.5])
    family = ssntk.Family(ssntk.VectorField(fn, jnp.asarray(0.0), 1, 1), lambda m: m.params)
    return ssntk.Sweep(family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1], probe=probe)


def test_the_hash_is_what_is_computed():
    same = [
        fold_sweep(),
        fold_sweep(span=[1, -1]),
        fold_sweep(x0=np.array([1])),
        fold_sweep(distances=jnp.array([1e-4, 1e-3, 1e-2, 1e-1])),
        fold_sweep(step=0.05, u=[]),
    ]
    assert len({plan.hash() for plan in same}) == 1
    assert _sweep_of(_quadratic(1.0)).hash() == _sweep_of(lambda t, x, u, p: p - 1.0 * x**2).hash()
    drive = [lambda t, a=a: a * jnp.sin(t) * jnp.ones((1, 1)) for a in (1.0, 2.0)]
    different = [
        fold_sweep(),
        fold_sweep(distances=[1e-1, 1e-2]),
        fold_sweep(x0=[0.9]),
        fold_sweep(index=1),
        fold_sweep(span=(1.0, -0.5)),
        fold_sweep(of="readout"),
        fold_sweep(step=0.04),
        fold_sweep(integrator=ssntk.Integrator(rtol=1e-7)),
        fold_sweep(probe=ssntk.Probe(np.linspace(0.0, 5.0, 7))),
        fold_sweep(probe=ssntk.Probe(np.linspace(0.0, 5.0, 6), x0=[0.0])),
        _sweep_of(_quadratic(1.0)),
        _sweep_of(_quadratic(2.0)),
        _sweep_of(_quadratic(1.0), drive[0]),
        _sweep_of(_quadratic(1.0), drive[1]),
        _sweep_of(lambda t, x, u, p: p - jnp.sinh(x) ** 2),
        _sweep_of(lambda t, x, u, p: p - jnp.tan(x) ** 2),
        network_sweep(0),
        network_sweep(1),
        network_sweep(0, wrt=lambda m: m.weight),
    ]
    assert len({plan.hash() for plan in different}) == len(different)


def test_the_hash_is_the_same_in_every_process():
    code = (
        "import jax; jax.config.update('jax_enable_x64', True); import ssntk; "
        "print(ssntk.Sweep.from_toml('sweeps/flip_flop.toml').hash())"
    )
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=_environment(seed)
        ).stdout
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""


def _environment(seed):
    import os

    return os.environ | {"PYTHONHASHSEED": seed}


def test_toml_and_python_are_the_same_plan():
    family = ssntk.Family.input(ssntk.CTRNN(32, 1, 1, gain=1.3, key=jr.key(7)), [1.0])
    plan = ssntk.Sweep(
        family,
        towards="saddle-node",
        span=(-4.0, 4.0),
        distances=np.geomspace(3.0, 1e-7, 32),
        probe=ssntk.Probe(np.linspace(0.0, 200.0, 21)),
    )
    assert ssntk.Sweep.from_toml(ROOT / "sweeps" / "saddle_node.toml").hash() == plan.hash()


GOOD = """
towards = "saddle-node"
span = [-1.0, 1.0]
distances = [0.1]
[model]
n_state = 3
n_input = 1
n_output = 1
seed = 0
[family]
input = { direction = [1.0] }
[probe]
ts = [0.0, 1.0]
"""


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("towards", "toward", "unknown key toward; did you mean towards"),
        ("span = [-1.0, 1.0]", "", "span is missing"),
        ('"saddle-node"', '"fold"', "towards must be one of"),
        ("seed = 0", "seed = -1", "model.seed"),
        ("seed = 0", "seed = 99999999999999", "model.seed"),
        ("n_state = 3", "n_states = 3", "unknown key model.n_states"),
        ("n_state = 3", 'n_state = "three"', "n_state"),
        ("input = {", "inputs = {", "unknown key family.inputs"),
        ("input = { direction = [1.0] }", 'attribute = "gains"', "attribute 'gains'"),
        ("input = { direction = [1.0] }", "line = { bias = [1.0] }", "family.line.bias must have shape"),
        ("input = { direction = [1.0] }", 'line = { bias = "a" }', "family.line.bias"),
        ("direction = [1.0]", "direction = [1.0, 2.0]", "direction must have shape"),
        ("ts = [0.0, 1.0]", "ts = { start = 0.0, stop = 1.0 }", "probe.ts.num is missing"),
        ("ts = [0.0, 1.0]", 'ts = { start = "a", stop = 1.0, num = 2 }', "probe.ts.start"),
        ("distances = [0.1]", "distances = { start = -1.0, stop = 1.0, num = 3 }", "distances.start must be positive"),
        ("distances = [0.1]", "distances = [-0.1]", "distances"),
        ("[probe]", "[integrator]\nsolver = 'AbstractSolver'\n[probe]", "integrator.solver"),
        ("[probe]", "[integrator]\nrtol = 'small'\n[probe]", "rtol"),
        ("[model]", "wrt = 3\n[model]", "wrt"),
        ("[model]", "wrt = ['weights']\n[model]", "wrt names 'weights'"),
        ("[model]", "step = 0.0\n[model]", "step"),
        ("seed = 0", 'seed = 0\nweights = "x.npz"', "does not go with model.weights"),
        ("[model]", "[model", "is not a TOML file"),
    ],
)
def test_bad_toml_names_the_key(tmp_path, old, new, match):
    file = tmp_path / "sweep.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=match):
        ssntk.Sweep.from_toml(file)


def test_good_toml_in_its_other_forms(tmp_path):
    file = tmp_path / "sweep.toml"
    for old, new in [
        ("towards", "towards"),
        ("input = { direction = [1.0] }", "line = { bias = { seed = 1 } }"),
        ("input = { direction = [1.0] }", "line = { bias = [1.0, 0.0, 2.0] }"),
        ("input = { direction = [1.0] }", 'attribute = "tau"'),
        ("seed = 0", 'seed = 0\nactivation = "sigmoid"\nform = "rate"\ntau = [1.0, 2.0, 3.0]'),
        ("[model]", 'wrt = ["weight", "bias"]\n[model]'),
        ("[probe]", "[integrator]\nsolver = 'Dopri5'\ndt = 0.1\n[probe]"),
    ]:
        file.write_text(GOOD.replace(old, new))
        assert ssntk.Sweep.from_toml(file).hash()


def test_arguments_of_a_sweep():
    for change, match in [
        ({"towards": "fold"}, "towards"),
        ({"span": (1.0, 1.0)}, "span"),
        ({"distances": []}, "distances"),
        ({"distances": [1.0, 1.0]}, "distances"),
        ({"index": -1}, "index"),
        ({"of": "output"}, "of must"),
        ({"x0": [1.0, 2.0]}, "x0"),
        ({"u": [1.0]}, "u must"),
        ({"step": 0.0}, "step"),
        ({"wrt": lambda m: m.nu}, "wrt"),
        ({"probe": ssntk.Probe([0.0, 1.0], mask=np.ones((1, 2, 3), bool))}, "mask"),
    ]:
        with pytest.raises(ValueError, match=match):
            fold_sweep(**change)


def test_measure(tmp_path):
    measured = ssntk.measure(nf.saddle_node(0.25), ssntk.Probe(np.linspace(0.0, 4.0, 201)), [0.45])
    np.testing.assert_allclose(measured.x_star, [0.5], rtol=1e-14)
    np.testing.assert_allclose(measured.steady_state.eigenvalues, [1.0], rtol=1e-12)
    # T^3 g(|lambda| T) with lambda = -1; the trapezoid rule at dt = 0.02 is good to 1e-4.
    expected = 4.0 - 2 * (1 - np.exp(-4.0)) + (1 - np.exp(-8.0)) / 2
    np.testing.assert_allclose(measured.trajectory.eigenvalues[0], expected, rtol=1e-4)
    with pytest.raises(ssntk.NumericalError, match="no fixed point"):
        ssntk.measure(nf.saddle_node(-1.0), ssntk.Probe([0.0, 1.0]), [0.1])


def test_plan_file_says_what_wrote_it(tmp_path):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["hash"] == fold_sweep().hash()
    assert plan["versions"]["jax"] == jax.__version__
    assert store.to_xarray().attrs["plan"] == plan["hash"]


def test_a_family_pickles():
    family = pickle.loads(pickle.dumps(ssntk.Family(nf.saddle_node(0.0), "mu")))
    np.testing.assert_array_equal(family(2.0).mu, 2.0)
