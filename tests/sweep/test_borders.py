"""Sweeps towards borders of piecewise-linear models: nonsmooth folds, boundary Hopf points, ways to infinity, flips."""

import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from helpers import QUICK, seeds

import ssntk
from ssntk.report.page import payload
from ssntk.report.tables import print_store

matplotlib.use("agg")
relu = jax.nn.relu


def scalar(fn, n=1, cell=ssntk.VectorField):
    """A model of n states as a family of its parameter p."""
    return ssntk.Family(cell(lambda t, x, u, p: fn(x, p["p"]), {"p": 0.0}, n), "p")


def fold(x, p):
    """x = p < 0 is stable, and meets x = -p at the fold p = 0."""
    return -x + 2 * relu(x) + p


def sweep(family, towards, span, distances, **other):
    steps = np.arange(4.0)
    return ssntk.Sweep(
        family, towards=towards, span=span, distances=distances, probe=ssntk.Probe(steps), **({"integrator": QUICK} | other)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sweep towards the fold in closed form."""
    plan = sweep(scalar(fold), "border-fold", (-1.0, 1.0), np.geomspace(1e-1, 1e-6, 6), x0=[-1.0])
    return ssntk.run(plan, ssntk.Store(tmp_path_factory.mktemp("fold")), progress=False)


def test_the_kernel_stays_as_it_is_and_the_margin_is_the_distance(store):
    data = store.arrays()
    assert (data["status"] == "done").all()
    # theta = p moves the signal x = p by dx/dp = 1, and det J' / det J = 1 / -1.
    np.testing.assert_allclose(data["parameter"], -data["distance"], rtol=1e-14)
    for name in ("fold_margin", "border_margin"):
        np.testing.assert_allclose(data[name], data["distance"], rtol=1e-12)
    assert set(data["fold_unit"]) == set(data["border_unit"]) == {0.0}
    np.testing.assert_allclose(data["fold_delta"], -1.0, rtol=1e-14)
    np.testing.assert_allclose(data["steady_state_eigenvalues"], 1.0, rtol=1e-12)
    np.testing.assert_allclose(data["jacobian_eigenvalues"], -1.0, rtol=1e-12)
    dataset = store.to_xarray()
    assert dataset["fold_margin"].attrs["units"] == "parameter"
    np.testing.assert_array_equal(dataset["fold_margin"], data["fold_margin"])


def test_what_is_printed_drawn_and_reported_says_that_the_kernel_does_not_warn(store, capsys):
    print_store(store)
    said = " ".join(capsys.readouterr().out.split())
    sentence = "no kernel and no eigenvalue warns of a nonsmooth fold, its border's margin does"
    assert f"predicted 0: {sentence}." in said
    assert "fold margin" in said
    assert "of the slowest mode alone" in said
    page = payload(store)
    assert (page["slope"]["predicted"], page["slope"]["says"]) == (0, sentence)
    assert {"border_margin", "fold_margin"} <= {one["name"] for one in page["quantities"]}
    assert page["points"][0]["values"]["fold_margin"] == pytest.approx(0.1)
    axes = ssntk.plot.collapse(store)
    assert axes[6].get_ylabel() == "least change of θ\nto a border (parameter)"
    lines = {line.get_label(): line for line in axes[6].get_lines()}
    np.testing.assert_allclose(*lines["nearest nonsmooth fold"].get_data(), rtol=1e-12)
    labels = [line.get_label() for line in axes[5].get_lines()]
    assert "slowest mode alone, master law" in labels
    # A flat line is drawn over a decade, and not over its last digits.
    assert np.log10(np.divide(*axes[5].get_ylim()[::-1])) > 0.9
    ssntk.plot.plt.close(axes[0].figure)


def test_kernels_alone_show_nothing_and_the_message_says_what_does(store):
    data = store.arrays()
    spectra = np.pad(data["steady_state_eigenvalues"], ((0, 0), (0, 2)))
    found = ssntk.detect_from_ntk(data["parameter"], spectra, throw=False)
    assert not found.converged
    assert "ssntk.border_margin" in found.reason


def test_a_step_at_a_border_on_the_way_is_no_law():
    """Behind a border the kernel is another constant. Over such a step nothing is fitted."""
    p = -np.geomspace(1e-3, 1.0, 12)
    first = np.where(p > -0.1, 100.0, 1.0)
    found = ssntk.detect_from_ntk(p, np.stack([first, 0 * p, 0 * p], axis=1), throw=False)
    assert not found.converged


def test_the_branch_in_the_store_keeps_its_collisions(store):
    branch = store.branch()
    (collision,) = branch.collisions
    assert (collision.kind, collision.delta, collision.born) == ("nonsmooth-fold", -1.0, {})
    # x' = p + 0.5 x - 2.5 relu(x): for p > 0 there is a cycle of two steps, and none before.
    plan = sweep(
        scalar(lambda x, p: p + 0.5 * x - 2.5 * relu(x), cell=ssntk.Map),
        "border-collision",
        (-1.0, 1.0),
        [0.1],
        integrator=None,
    )
    branch = plan.follow()
    kept = ssntk.Store(store.path.parent / "map")
    ssntk.run(plan, kept, progress=False)
    assert kept.branch() == branch
    assert kept.branch().collisions[0].born[2] == 1
    np.testing.assert_allclose(kept.arrays()["x_star"], [[-0.2]], rtol=1e-14)


def ways():
    matrix, first = jnp.array([[-0.2, 1.0], [-1.0, -0.2]]), jnp.array([1.0, 0.0])
    wanted = np.linalg.solve(-np.array(matrix), np.array(first))
    return [
        # Before the border x1 = 0 the equilibrium is -matrix^-1 (p, 0).
        ("boundary-hopf", scalar(lambda x, p: matrix @ x + (0.8 * relu(x[0]) + p) * first, 2), -1.0, lambda d: -d * wanted),
        ("to-infinity", scalar(lambda x, p: -x + (1 + p) * relu(x) + 0.5), -0.9, lambda d: 0.5 / d),
        ("degenerate-flip", scalar(lambda x, p: (p - 1) * relu(x) + 1, cell=ssntk.Map), 0.9, lambda d: 1 / (2 - d)),
        ("border-collision", scalar(lambda x, p: p + 0.5 * x - 2.5 * relu(x), cell=ssntk.Map), -1.0, lambda d: -2 * d),
    ]


@pytest.mark.parametrize(("kind", "family", "start", "state"), ways(), ids=lambda one: one if isinstance(one, str) else "")
def test_the_states_beside_other_borders(kind, family, start, state):
    plan = sweep(family, kind, (start, -start), [0.5, 1e-3, 1e-6], integrator=None)
    side = plan.side(plan.follow())
    # A process that measures points gets the side without the program that was traced.
    for held in (side, pickle.loads(cloudpickle.dumps(side))):
        for distance in plan.distances:
            parameter, x = held.at_distance(float(distance))
            assert parameter == pytest.approx(np.sign(start) * distance, rel=1e-7)
            np.testing.assert_allclose(x, state(distance), rtol=1e-7)
    with pytest.raises(ssntk.NumericalError, match="reaches only to a distance of"):
        side.at_distance(5.0)


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_a_random_network_of_a_sweep_file(seed, tmp_path):
    """The margins of the fold's unit are proportional to the distance, and the kernel tends to a limit."""
    random, n = np.random.default_rng((22, 9, 21, 28, 20, 27)[seed]), 8
    weight = 1.3 * random.standard_normal((n, n)) / np.sqrt(n)
    arrays = {"input_weight": random.standard_normal((n, 1)), "bias": random.standard_normal(n)}
    np.savez(tmp_path / "relu.npz", weight=weight, **arrays)
    (tmp_path / "relu.toml").write_text(
        'towards = "nonsmooth-fold"\nspan = [-3.0, 3.0]\ndistances = [1e-1, 1e-2, 1e-3, 1e-4]\n'
        '[model]\nweights = "relu.npz"\nactivation = "relu"\n[family]\ninput = { direction = [1.0] }\n'
        '[probe]\nts = [0.0, 1.0, 2.0]\n[integrator]\nsolver = "Heun"\ndt = 0.5\n'
    )
    plan = ssntk.read_plan(tmp_path / "relu.toml")
    data = ssntk.run(plan, ssntk.Store(tmp_path / "out"), progress=False).arrays()
    assert (data["status"] == "done").all()
    fold = next(one for one in plan.follow().collisions if one.kind == "nonsmooth-fold")
    # Points are sorted by distance. Another border may lie between the farther ones and the fold. At first order in the
    # distance the margin is proportional to it.
    assert set(data["fold_unit"][:2]) == {fold.unit}
    ratio = data["fold_margin"] / data["distance"]
    np.testing.assert_allclose(ratio[:2], ratio[0], rtol=5e-2)
    top = data["steady_state_eigenvalues"][:, 0]
    np.testing.assert_allclose(top[0], top[1], rtol=5e-2)


@pytest.mark.parametrize(
    ("family", "match"),
    [
        (
            ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"),
            "towards must not be 'nonsmooth-fold' for this family",
        ),
        (scalar(lambda x, p: p - x), "its model is linear, without borders"),
    ],
)
def test_smooth_and_linear_families_are_refused_by_name(family, match):
    with pytest.raises(ValueError, match=match):
        sweep(family, "nonsmooth-fold", (-1.0, 1.0), [0.1])


def test_a_saddle_node_of_a_relu_network_is_called_what_it_is():
    plan = sweep(scalar(fold), "saddle-node", (-1.0, 1.0), [0.1], x0=[-1.0])
    with pytest.raises(ssntk.NumericalError, match="turn at borders: a 'nonsmooth-fold'"):
        plan.follow()


def test_a_point_without_a_frequency_gives_none_to_an_input():
    model = ssntk.CTRNN.from_weights([[2.0]], input_weight=[[1.0]], bias=[0.1], activation=relu)
    probe = ssntk.Probe(np.arange(4.0), ssntk.Sinusoid([[1.0]]))
    family = ssntk.Family.input(model, [1.0])
    with pytest.raises(ValueError, match=r"probe\.us must have a frequency: a nonsmooth-fold has none to give"):
        ssntk.Sweep(family, towards="nonsmooth-fold", span=(-1.0, 1.0), distances=[0.1], probe=probe)


def test_smooth_models_have_no_margin():
    measured = ssntk.measure(ssntk.normal_forms.saddle_node(0.25), ssntk.Probe([0.0, 1.0]), [0.5], integrator=QUICK)
    assert measured.border is None
    model = scalar(fold)(-0.25)
    margin = ssntk.measure(model, ssntk.Probe([0.0, 1.0]), [-0.25], integrator=QUICK).border
    assert margin == ssntk.border_margin(model, [-0.25])


def test_models_of_both_kinds_in_one_grid(tmp_path):
    """The margins of smooth models are NaN. x = -p of the relu model with p > 0: see `fold`."""

    def made(smooth):
        if smooth:
            return ssntk.VectorField(lambda t, x, u, p: p - x**3 - x, jnp.array([-0.25]), 1)
        return ssntk.VectorField(lambda t, x, u, p: -x + 2 * relu(x) + p, jnp.array([-0.25]), 1)

    grid = ssntk.Grid(made, {"smooth": [0, 1]}, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK)
    data = ssntk.run(grid, ssntk.Store(tmp_path), progress=False).arrays()
    assert (data["status"] == "done").all()
    np.testing.assert_allclose(data["fold_margin"], [0.25, np.nan], rtol=1e-12)


def test_a_network_in_single_precision():
    weight, drive, bias = (np.array(one, np.float32) for one in ([[2.0, -0.5], [0.8, 0.0]], [[1.0], [0.0]], [-0.5, 0.1]))
    model = ssntk.CTRNN.from_weights(weight, drive, bias, activation=relu)
    with pytest.warns(ssntk.PrecisionWarning):
        plan = sweep(ssntk.Family.input(model, np.ones(1, np.float32)), "nonsmooth-fold", (-1.0, 1.0), [1e-3])
    side = plan.side(plan.follow())
    # x1 = -0.5 + p - 0.5 x2 with x2 = 0.1 vanishes at p = 0.55.
    # Of the spectra, too, single precision shows a part only.
    with pytest.warns(ssntk.PrecisionWarning):
        _, point = plan.measure(side, 0)
    assert point.x_star.dtype == np.float32
    assert point.border.fold == 0
    np.testing.assert_allclose(point.border.signal[0], -1e-3, rtol=1e-3)
