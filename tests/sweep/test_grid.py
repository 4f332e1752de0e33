import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import QUICK

import ssntk

PROBE = ssntk.Probe(np.linspace(0.0, 4.0, 5))


def network(gain, seed):
    return ssntk.CTRNN(4, 1, 1, gain=gain, key=jr.key(seed))


AXES = {"gain": [0.5, 1.0, 1.5], "seed": range(4)}


@pytest.fixture(scope="module")
def grid():
    return ssntk.Grid(network, AXES, probe=PROBE)


@pytest.fixture(scope="module")
def store(grid, tmp_path_factory):
    return ssntk.run(grid, ssntk.Store(tmp_path_factory.mktemp("grid")), progress=False)


def test_every_point_is_the_network_of_its_values(store):
    data = store.to_xarray()
    assert data.participation_ratio.dims == ("gain", "seed")
    assert data.jacobian_eigenvalues.dims == ("gain", "seed", "mode")
    assert data.jacobian_eigenvalues.units == "1 / time"
    assert (data.status == "done").all()
    np.testing.assert_array_equal(data.gain, AXES["gain"])
    for gain in AXES["gain"]:
        for seed in AXES["seed"]:
            point = data.sel(gain=gain, seed=seed)
            # At rest at zero the Jacobian of a CTRNN is gain W - 1: its eigenvalues from the weights alone.
            weight = np.asarray(network(gain, seed).weight)
            expected = np.sort_complex(np.linalg.eigvals(gain * weight - np.eye(4)))
            np.testing.assert_allclose(np.sort_complex(point.jacobian_eigenvalues), expected, atol=1e-12)
    # One in full, by the functions of the package that take a single network.
    model, point = network(1.5, 2), data.sel(gain=1.5, seed=2)
    spectrum = ssntk.ntk_spectrum(model, ssntk.Probe(PROBE.ts, x0=np.zeros(4)), weights="trapezoid")
    # Adaptive steps of another program may differ in their last digit. J then differs by the solver's tolerance, 1e-8.
    np.testing.assert_allclose(point.ntk_eigenvalues_all[:4], spectrum.eigenvalues[:4], rtol=1e-6)
    np.testing.assert_allclose(point.participation_ratio, spectrum.participation_ratio, rtol=1e-6)
    steady = np.linalg.eigvalsh(ssntk.steady_state_ntk(model, np.zeros(4)))[::-1]
    np.testing.assert_allclose(point.steady_state_eigenvalues, steady, rtol=1e-9)


def test_the_kernel_over_time_is_the_kernel_summed_over_coordinates(store):
    point = store.to_xarray().sel(gain=0.5, seed=1)
    kernel = np.asarray(ssntk.ntk(network(0.5, 1), ssntk.Probe(PROBE.ts, x0=np.zeros(4))))
    expected = np.einsum("tisi->ts", kernel.reshape(5, 4, 5, 4))
    np.testing.assert_allclose(point.kernel_over_time[1:, 1:], expected[1:, 1:], rtol=1e-6)
    np.testing.assert_array_equal(point.time, PROBE.ts)


def test_the_hash_is_what_is_computed_and_batches_are_cut_by_the_plan(grid):
    same = ssntk.Grid(
        lambda seed, gain: network(gain, seed), {"gain": np.array([0.5, 1, 1.5]), "seed": [0, 1, 2, 3]}, probe=PROBE
    )
    assert same.hash() == grid.hash()
    others = [
        ssntk.Grid(network, AXES | {"gain": [0.5, 1.0, 1.6]}, probe=PROBE),
        ssntk.Grid(network, {"seed": AXES["seed"], "gain": AXES["gain"]}, probe=PROBE),
        ssntk.Grid(lambda gain, seed: network(gain + 1e-9, seed), AXES, probe=PROBE),
        ssntk.Grid(network, AXES, probe=ssntk.Probe([0.0, 1.0])),
        ssntk.Grid(network, AXES, probe=PROBE, modes=2),
        ssntk.Grid(network, AXES, probe=PROBE, x0=np.ones(4)),
        ssntk.Grid(network, AXES, probe=PROBE, wrt=lambda m: m.weight),
        ssntk.Grid(network, AXES, probe=PROBE, of="readout"),
        ssntk.Grid(network, AXES, probe=PROBE, u=[0.5]),
    ]
    assert len({plan.hash() for plan in (grid, *others)}) == len(others) + 1
    assert sorted(index for batch in grid.batches for index in batch) == list(range(12))
    assert len(grid.batches) == 2


def test_shapes_names_and_python_control_flow():
    """Axes that JAX cannot trace: sizes, names, and functions of numpy."""

    def make(n, form, seed):
        weight = np.random.default_rng(seed).normal(size=(n, n)) / n**0.5
        return ssntk.CTRNN.from_weights(0.5 * weight, form=form)

    axes = {"n": [2, 3], "form": ["current", "rate"], "seed": [0, 1]}
    grid = ssntk.Grid(make, axes, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK, modes=2)
    assert grid.shape == (2, 2, 2)
    assert sorted(index for batch in grid.batches for index in batch) == list(range(8))
    assert all(len({grid.values(index)["n"] for index in batch}) == 1 for batch in grid.batches)
    (values, measured), *_ = grid.measure_batch(None, grid.batches[0])
    eigenvalues = np.linalg.eigvals(np.asarray(make(values["axis_n"], values["axis_form"], values["axis_seed"]).weight)) - 1
    np.testing.assert_allclose(np.sort_complex(measured.jacobian_eigenvalues), np.sort_complex(eigenvalues), atol=1e-12)


def test_a_point_without_a_fixed_point_fails_and_one_that_newton_misses_is_searched_for(tmp_path):
    # x' = a + x^2 rests at -sqrt(-a), and nowhere for a > 0. From x0 = 0 Newton's first step divides by zero.
    def make(a):
        return ssntk.VectorField(lambda t, x, u, p: p["a"] + x**2, {"a": jnp.asarray(a)}, 1)

    grid = ssntk.Grid(make, {"a": [-4.0, -1.0, 1.0]}, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK)
    store = ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    data = store.to_xarray()
    np.testing.assert_allclose(data.x_star[:2, 0], [-2.0, -1.0], rtol=1e-12)
    np.testing.assert_allclose(data.steady_state_eigenvalues[:2, 0], [1 / 16, 1 / 4], rtol=1e-10)
    assert "no fixed point was found" in store.status().failed[2]
    assert np.isnan(data.x_star[2, 0])
    with pytest.raises(ValueError, match="theory needs an axis called gain"):
        ssntk.plot.phase_diagram(store, theory=True)


def test_only_the_top_modes_with_exact_trace_and_participation(tmp_path, store):
    grid = ssntk.Grid(network, AXES, probe=PROBE, modes=3)
    data = ssntk.run(grid, ssntk.Store(tmp_path), progress=False).arrays()
    whole = store.arrays()
    np.testing.assert_allclose(data["ntk_eigenvalues"], whole["ntk_eigenvalues"][:, :3], rtol=1e-9)
    for name in ("trace", "participation_ratio", "top_share"):
        np.testing.assert_allclose(data[name], whole[name], rtol=1e-9)
    # The value is left out, since it would be wrong.
    assert np.isnan(data["effective_rank"]).all()
    assert np.isnan(data["trajectory_condition_number"]).all()
    assert np.isfinite(data["condition_number"]).all()


def test_a_grid_of_other_networks_of_the_same_shapes_compiles_nothing(store, compilations):
    grid = ssntk.Grid(lambda gain, seed: network(gain, seed + 7), AXES, probe=PROBE)
    grid.measure_batch(None, grid.batches[0])
    compilations.clear()
    grid.measure_batch(None, grid.batches[1])
    assert compilations == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"make": 3}, "make must be a function"),
        ({"axes": {}}, "axes must be a dict"),
        ({"axes": {"gain": []}}, "axes\\['gain'\\] must be a list of at least one"),
        ({"axes": {"gain": [1.0, 1.0], "seed": [0]}}, "distinct"),
        ({"axes": {"gain": [np.inf], "seed": [0]}}, "finite"),
        ({"axes": {"gain": [1.0], "seeds": [0]}}, "make cannot be called with gain, seeds"),
        ({"axes": {"gain 2": [1.0]}}, "named as arguments"),
        ({"axes": {"gain": [None], "seed": [0]}}, "numbers or of strings"),
        ({"x0": np.zeros(3)}, "x0 must have shape"),
        ({"u": [1.0, 2.0]}, "u must have shape"),
        ({"of": "output"}, "of must be"),
        ({"modes": 0}, "modes must be at least 1"),
        ({"modes": 21}, "modes must be at most 20"),
        ({"blocks": ["weights"]}, "blocks"),
        ({"probe": ssntk.Probe([0.0, 1.0], ssntk.Sinusoid([[1.0]]))}, "must have a frequency"),
        ({"probe": ssntk.Probe([0.0, 1.0], np.ones((1, 3)))}, "us must have width"),
    ],
)
def test_bad_arguments_are_named(change, match):
    arguments = {"make": network, "axes": AXES, "probe": PROBE} | change
    make, axes = arguments.pop("make"), arguments.pop("axes")
    with pytest.raises(ValueError, match=match):
        ssntk.Grid(make, axes, **arguments)


GRID = """
[grid]
gain = [0.5, 1.0, 1.5]
seed = { start = 0, stop = 3, num = 4 }
[model]
n_state = 4
n_input = 1
n_output = 1
[probe]
ts = { start = 0.0, stop = 4.0, num = 5 }
"""


def test_toml_and_python_are_the_same_grid(grid, tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    assert ssntk.read_plan(file).hash() == grid.hash()
    file.write_text(
        GRID.replace("[probe]", "[family]\ninput = { direction = [1.0] }\n[probe]").replace(
            "[model]", "p = [0.0, 1.0]\n[model]"
        )
    )
    read = ssntk.read_plan(file)
    assert list(read.axes) == ["gain", "seed", "p"]

    def make(gain, seed, p):
        return ssntk.Family.input(network(gain, seed), [1.0])(p)

    assert read.hash() == ssntk.Grid(make, AXES | {"p": [0.0, 1.0]}, probe=PROBE).hash()


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("[grid]", "towards = 'hopf'\n[grid]", "towards does not go with"),
        ("gain =", "gian =", "did you mean grid.gain"),
        ("n_state = 4", "n_state = 4\ngain = 1.0", "not of both"),
        ("[model]", "p = [0.0]\n[model]", "grid.p must hold"),
        ("[0.5, 1.0, 1.5]", "1.0", "grid.gain must be a list"),
        ("num = 4", "number = 4", "unknown key grid.seed.number"),
        ("n_state = 4", "", "model.n_state is missing"),
    ],
)
def test_bad_grids_in_toml_name_the_key(tmp_path, old, new, match):
    assert old in GRID
    file = tmp_path / "grid.toml"
    file.write_text(GRID.replace(old, new))
    with pytest.raises(ValueError, match=match):
        ssntk.read_plan(file)


def test_the_phase_diagram_shows_medians_and_the_border_of_stability(store):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    axes = ssntk.plot.phase_diagram(store, x="gain", y="seed")
    drawn = np.asarray(axes[3].collections[0].get_array()).reshape(4, 3)
    np.testing.assert_array_equal(drawn, store.to_xarray().participation_ratio.T)
    (line,) = (line for line in ssntk.plot.phase_diagram(store, x="gain", y="seed")[0].collections[1:2])
    assert line is not None
    with pytest.raises(ValueError, match="y must be one of"):
        ssntk.plot.phase_diagram(store, y="sed")
    plt.close("all")


def test_the_phase_diagram_shows_what_is_expected_of_random_networks(store):
    import matplotlib.pyplot as plt

    n = 4
    axes = ssntk.plot.phase_diagram(store, x="gain", y="seed", theory=True)
    drawn = {line.get_label(): np.asarray(line.get_xdata(), float) for line in axes[0].get_lines()}
    for label, gain in (("$r$ = 0.33/τ", ssntk.infinite.gain_at(0.33, n)), (r"$\nu$ = 1", (1 - n**-0.5) ** 0.5)):
        # Gains outside of the axis are not drawn.
        at = gain if min(AXES["gain"]) <= gain <= max(AXES["gain"]) else np.nan
        np.testing.assert_allclose(drawn[label][0], at, rtol=1e-9)
        assert len(drawn[label]) == 3 * len(AXES["seed"])
    turned = ssntk.plot.phase_diagram(store, x="seed", y="gain", theory=True)
    for line in turned[0].get_lines():
        np.testing.assert_array_equal(np.asarray(line.get_ydata(), float), drawn[line.get_label()])
    plt.close("all")


class Bent:
    """An activation whose name does not show its slope."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return jnp.tanh(self.slope * x)

    def __repr__(self):
        return "Bent()"


def test_what_a_model_keeps_apart_from_its_arrays_is_not_taken_from_another_point():
    def make(slope):
        return ssntk.CTRNN(3, 1, 1, activation=Bent(slope), key=jr.key(0))

    axes, asked = {"slope": [0.3, 0.6]}, {"probe": ssntk.Probe([0.0, 1.0]), "integrator": QUICK, "modes": 1}
    grid = ssntk.Grid(make, axes, **asked)
    weight = np.asarray(make(1.0).weight)
    for batch in grid.batches:
        for values, found in grid.measure_batch(None, batch):
            expected = np.linalg.eigvals(values["axis_slope"] * weight - np.eye(3))
            np.testing.assert_allclose(np.sort_complex(found.jacobian_eigenvalues), np.sort_complex(expected), atol=1e-12)
    other = ssntk.Grid(lambda slope: make(slope + 0.1), axes, **asked)
    assert other.hash() != grid.hash()


def test_values_that_a_constructor_refuses_are_refused_by_name():
    def slow(tau):
        return ssntk.CTRNN(3, 1, 1, tau=tau, key=jr.key(0))

    def euler(dt):
        return ssntk.EulerMap(network(1.0, 0), dt)

    for make, axes, match in [
        (slow, {"tau": [1.0, -1.0]}, r"axes\['tau'\] holds -1.0, of which no model can be made: tau must be positive"),
        (euler, {"dt": [0.5, 1.0]}, "maps of one step"),
        (network, {"gain": [1.0], "mode": [0]}, "must not be named 'mode'"),
    ]:
        with pytest.raises(ValueError, match=match):
            ssntk.Grid(make, axes, probe=ssntk.Probe([0.0, 1.0]))


def test_functions_that_are_made_anew_share_one_compilation(compilations):
    # Every point has its own lambda, but all of them compute the same.
    def make(a):
        return ssntk.VectorField(lambda t, x, u, p: p["a"] * x - x**3, {"a": jnp.asarray(a)}, 1)

    grid = ssntk.Grid(make, {"a": np.linspace(-2.0, -1.0, 12)}, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK, modes=1)
    assert len(grid.groups) == 1
    grid.measure_batch(None, grid.batches[0])
    compilations.clear()
    found = grid.measure_batch(None, grid.batches[1])
    assert compilations == []
    for values, measured in found:
        np.testing.assert_allclose(measured.jacobian_eigenvalues, [values["axis_a"]], rtol=1e-12)


def test_few_modes_of_readouts_with_a_mask_and_blocks(tmp_path):
    mask = np.ones((1, 5, 1), bool)
    mask[0, 2] = False
    probe = ssntk.Probe(PROBE.ts, [[1.0]], mask=mask)
    how = {"of": "readout", "wrt": lambda m: (m.weight, m.bias), "blocks": ["weight", "bias"]}
    grid = ssntk.Grid(network, {"gain": [0.5, 1.0], "seed": [0]}, probe=probe, modes=2, **how)
    data = ssntk.run(grid, ssntk.Store(tmp_path), progress=False).to_xarray()
    assert (data.status == "done").all()
    model = network(1.0, 0)
    rows = ssntk.parameter_jacobian(
        model, ssntk.Probe(PROBE.ts, [[1.0]], np.zeros(4), mask=mask), of="readout", wrt=how["wrt"]
    ).reshape(5, -1)
    step = np.array([0.5, 1.0, 1.0, 1.0, 0.5])
    expected = np.linalg.eigvalsh(np.sqrt(step)[:, None] * np.asarray(rows @ rows.T) * np.sqrt(step))[::-1]
    point = data.sel(gain=1.0, seed=0)
    # Adaptive steps of another program: to the solver's tolerance.
    np.testing.assert_allclose(point.ntk_eigenvalues[:2], expected[:2], rtol=1e-5)
    assert np.isnan(point.ntk_eigenvalues[2:]).all()
    np.testing.assert_allclose(point.trace, expected.sum(), rtol=1e-5)
    assert point.block_eigenvalues.dims == ("block", "row")
    # The blocks' kernels add up to the whole.
    traces = [(np.sqrt(step)[:, None] * np.asarray(rows))[:, columns] for columns in (slice(0, 16), slice(16, 20))]
    tops = [np.linalg.svd(part, compute_uv=False)[0] ** 2 for part in traces]
    np.testing.assert_allclose(point.block_eigenvalues[:, 0], tops, rtol=1e-5)


def test_models_of_axes_that_can_be_traced_are_made_together():
    calls = []

    def make(gain, seed):
        calls.append((gain, seed))
        return network(gain, seed)

    axes, asked = {"gain": np.linspace(0.2, 1.4, 10), "seed": range(9)}, {"probe": PROBE, "integrator": QUICK, "modes": 1}
    grid = ssntk.Grid(make, axes, **asked)
    measured = [grid.measure_batch(None, batch) for batch in grid.batches]
    identity = grid.hash()
    # `make` is called once for each value of each axis, to see whether constructors refuse it, and a few times more: not 90.
    assert len(calls) < 40
    for values, found in (point for batch in measured for point in batch):
        weight = np.asarray(network(values["axis_gain"], values["axis_seed"]).weight)
        expected = np.linalg.eigvals(values["axis_gain"] * weight - np.eye(4))
        # Eigenvalues of 4 by 4 matrices that are not close to defective: a few digits are lost.
        np.testing.assert_allclose(np.sort_complex(found.jacobian_eigenvalues), np.sort_complex(expected), atol=1e-12)
    assert identity == ssntk.Grid(network, axes, **asked).hash()
    assert identity != ssntk.Grid(lambda gain, seed: network(gain, seed + 1), axes, **asked).hash()


def test_a_model_that_is_another_when_it_is_traced_is_refused():
    def make(gain):
        return network(gain if isinstance(gain, float) else 2 * gain, 0)

    grid = ssntk.Grid(make, {"gain": [0.3, 0.6]}, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK, modes=1)
    with pytest.raises(ValueError, match=r"make must return the same model when JAX traces it: with .*0.3.*gain differs"):
        grid.measure_batch(None, grid.batches[0])


@pytest.mark.slow
def test_few_modes_of_uncoupled_units_whose_eigenvalues_are_all_repeated():
    def make(gain):
        return ssntk.CTRNN(56, 1, 1, gain=gain, key=jr.key(0))

    probe = ssntk.Probe(np.linspace(0.0, 10.0, 11), x0=np.zeros(56))
    ((_, found),) = ssntk.Grid(make, {"gain": [0.0]}, probe=probe, modes=10).measure_batch(None, (0,))
    # If units are not coupled, the kernel is the identity times that of one unit.
    kernel = np.asarray(ssntk.ntk(make(0.0), probe, weights="trapezoid"))
    expected = np.linalg.eigvalsh(kernel)[::-1][:10]
    assert expected[0] / expected[9] < 1.001
    # The steps of another program may differ in their last digit, and J then by the solver's tolerance, 1e-8.
    np.testing.assert_allclose(found.trajectory.eigenvalues, expected, rtol=1e-6)
