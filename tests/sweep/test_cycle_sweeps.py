"""Sweeps towards bifurcations of limit cycles, against closed forms and independent integrations."""

import pickle
import re

import cloudpickle
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from oscillators import langford, roessler

import ssntk
from ssntk.report.page import payload, write_page
from ssntk.report.tables import print_store

matplotlib.use("agg")
DISTANCES = np.geomspace(1e-1, 1e-6, 6)


def bautin(t, x, u, p):
    """r' = mu r + r^3 - r^5, phi' = om + c r^2: a fold of cycles at mu = -1/4. `states` and `rate` are units."""
    x = x / p["states"]
    growth, turning = p["mu"] + x @ x - (x @ x) ** 2, p["om"] + p["c"] * (x @ x)
    return p["rate"] * p["states"] * jnp.stack([growth * x[0] - turning * x[1], growth * x[1] + turning * x[0]])


def oscillator(states=1.0, rate=1.0, shear=0.7):
    params = {"mu": 0.1, "om": 2.0, "c": shear, "states": states, "rate": rate}
    return ssntk.VectorField(bautin, params, 2, 0)


def of_mu(model):
    return model.params["mu"]


def towards_fold(**other):
    how = {"towards": "cycle-fold", "span": (0.1, -0.4), "distances": DISTANCES, "x0": [1.0, 0.0], "wrt": of_mu}
    return ssntk.Sweep(ssntk.Family(oscillator(), "mu"), **(how | other))


def slopes(data, name):
    return np.diff(np.log(np.abs(data[name]))) / np.diff(np.log(data["distance"]))


def fold_forms(eps, shear=0.7, om=2.0):
    """r^2 = 1/2 + s with s = sqrt(eps): the exponent lambda = -4 r^2 s, the shape |dr/dmu|^2 = 1 / (16 r^2 eps), and the
    period 2 pi / (om + c r^2) with its derivative in mu."""
    s = np.sqrt(eps)
    square = 0.5 + s
    turning = om + shear * square
    return -4 * square * s, 1 / (16 * square * eps), 2 * np.pi / turning, 2 * np.pi * shear / turning**2 / (2 * s)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ssntk.run(towards_fold(), ssntk.Store(tmp_path_factory.mktemp("fold")), progress=False)


def test_a_fold_of_cycles_in_closed_form(store):
    data = store.arrays()
    assert (data["status"] == "done").all()
    rate, top, period, gradient = fold_forms(data["distance"])
    np.testing.assert_allclose(data["parameter"], -0.25 + data["distance"], rtol=1e-14)
    np.testing.assert_allclose(data["period"], period, rtol=1e-10)
    # The root of the distance turns rounding errors of the parameter into relative errors of 1e-16 / 1e-6.
    np.testing.assert_allclose(data["critical_exponent"], rate, rtol=1e-8)
    np.testing.assert_allclose(data["shape_eigenvalues"][:, 0], top, rtol=1e-8)
    np.testing.assert_allclose(data["period_gradient"], gradient, rtol=1e-8)
    speed = (0.5 + np.sqrt(data["distance"])) * (2 * np.pi / period) ** 2
    np.testing.assert_allclose(data["phase_channel"], (gradient / period) ** 2 * speed, rtol=1e-8)
    # The critical mode is all of it, and its law is exact: c is constant along a circle.
    np.testing.assert_allclose(data["predicted_response"], top, rtol=1e-7)
    np.testing.assert_allclose(data["driven_response"], top, rtol=1e-8)
    np.testing.assert_allclose(data["critical_share"], 1.0, rtol=1e-9)
    assert (data["drive_frequency"] == 0).all()
    # Towards the fold the slopes are those of the normal form.
    assert slopes(data, "shape_trace")[0] == pytest.approx(-1, abs=5e-3)
    assert slopes(data, "critical_exponent")[0] == pytest.approx(0.5, abs=5e-3)
    assert 2 * slopes(data, "period_gradient")[0] == pytest.approx(-1, abs=5e-3)


@pytest.mark.slow
def test_without_shear_the_period_does_not_see_the_fold(tmp_path):
    family = ssntk.Family(oscillator(shear=0.0), "mu")
    plan = ssntk.Sweep(family, towards="LPC", span=(0.1, -0.4), distances=[1e-3, 1e-5], x0=[1.0, 0.0], wrt=of_mu)
    assert plan.towards == "cycle-fold"
    data = ssntk.run(plan, ssntk.Store(tmp_path), progress=False).arrays()
    np.testing.assert_allclose(data["period_gradient"], 0, atol=1e-7)
    np.testing.assert_allclose(data["shape_eigenvalues"][:, 0], fold_forms(data["distance"])[1], rtol=1e-8)
    np.testing.assert_allclose(data["critical_share"], 1.0, rtol=1e-9)


def test_a_run_goes_on_bit_for_bit_and_a_point_depends_on_no_other(store, tmp_path):
    plan, again = towards_fold(), ssntk.Store(tmp_path / "parts")
    ssntk.run(plan, again, progress=False, part=(2, 3))
    assert again.status().done == (1, 4)
    assert again.branch() == store.branch()
    # The side of the stored branch, in another process.
    side = pickle.loads(cloudpickle.dumps(plan.side(again.branch())))
    ((values, found),) = plan.measure_batch(side, (5,))
    assert values["parameter"] == float(store.point(5)["parameter"])
    assert found.orbit.period == float(store.point(5)["period"])
    ssntk.run(plan, again, progress=False)
    for index in range(plan.size):
        first, second = store.point(index), again.point(index)
        assert first.keys() == second.keys()
        for name in first.keys() - {"seconds"}:
            np.testing.assert_array_equal(first[name], second[name])
    data = again.to_xarray()
    assert data["period"].attrs["units"] == "time"
    assert data["shape_eigenvalues"].attrs["units"] == "state^2"
    assert data.attrs["bifurcation"] == "cycle-fold"
    event = store.bifurcation()
    assert abs(event.parameter + 0.25) < 1e-12
    again.to_netcdf(tmp_path / "cycles.nc")


@pytest.mark.slow
def test_units_of_states_time_and_parameter_change_no_slope(store, tmp_path):
    draws = np.random.default_rng(3)
    states, rate, unit = 10 ** draws.uniform(-6, 6, 3)
    model = oscillator(states, rate)
    # p = unit mu.
    start = ssntk.VectorField(lambda t, x, u, p: bautin(t, x, u, p | {"mu": p["mu"] / unit}), model.params, 2, 0)
    family = ssntk.Family(start, "mu")
    plan = ssntk.Sweep(
        family,
        towards="cycle-fold",
        span=(0.1 * unit, -0.4 * unit),
        distances=DISTANCES * unit,
        x0=[states, 0.0],
        wrt=of_mu,
        scale=states,
    )
    data, known = ssntk.run(plan, ssntk.Store(tmp_path), progress=False).arrays(), store.arrays()
    assert (data["status"] == known["status"]).all()
    np.testing.assert_allclose(data["period"] * rate, known["period"], rtol=1e-9)
    np.testing.assert_allclose(data["critical_exponent"] / rate, known["critical_exponent"], rtol=1e-7)
    for name in ("shape_trace", "driven_response", "predicted_response"):
        np.testing.assert_allclose(data[name] * unit**2, known[name], rtol=1e-7)
    np.testing.assert_allclose(data["phase_channel"] * (unit / rate) ** 2, known["phase_channel"], rtol=1e-7)
    np.testing.assert_allclose(data["critical_share"], 1, rtol=1e-7)


def test_a_distance_that_the_branch_does_not_reach_fails_with_the_reason(tmp_path):
    plan = towards_fold(distances=[0.36, 0.1])
    store = ssntk.run(plan, ssntk.Store(tmp_path), progress=False)
    (reason,) = store.status().failed.values()
    assert reason.startswith("this side of the branch of cycles reaches only to a distance of 0.35")
    assert store.status().done == (1,)


@pytest.mark.slow
def test_the_branch_may_begin_at_a_hopf_point(tmp_path):
    """Of the Hopf point at mu = 0, which is subcritical: the cycles are unstable until their fold."""
    plan = towards_fold(x0=None, span=(-0.5, 0.5), distances=[1e-2])
    branch = plan.follow()
    assert branch.begin.kind == "hopf"
    _, found = plan.measure(plan.side(branch), 0)
    assert found.orbit.stable
    assert found.orbit.period == pytest.approx(fold_forms(1e-2)[2], rel=1e-10)


def flow(field, value, n):
    return ssntk.Family(ssntk.VectorField(field, jnp.asarray(value), n, 0), "params")


REFUSED = [
    ({"probe": ssntk.Probe([0.0, 1.0])}, "probe must be left out towards a cycle-fold"),
    ({"of": "readout"}, "of must be 'state' towards a cycle-fold"),
    ({"blocks": ["params"]}, "blocks must be left out"),
    ({"modes": 1}, "modes must be below 1, the number of parameters"),
    ({"x0": [1.0]}, "x0 must have shape"),
    ({"span": (0.1, 0.1)}, "span must hold two different values"),
    ({"towards": "cycle-branch-point"}, "towards must be one of"),
    ({"distances": [0.0]}, "distances must be positive"),
]


@pytest.mark.parametrize(("change", "match"), REFUSED, ids=lambda one: next(iter(one)) if isinstance(one, dict) else "")
def test_what_does_not_fit_is_refused_by_name(change, match):
    with pytest.raises(ValueError, match=match):
        towards_fold(**change)


def test_maps_are_refused_and_aliases_know_flows_from_maps():
    cell = ssntk.Map(lambda t, x, u, p: p * x * (1 - x), jnp.asarray(2.5), 1)
    family = ssntk.Family(cell, "params")
    with pytest.raises(ValueError, match="towards must not be 'cycle-fold' for a map"):
        ssntk.Sweep(family, towards="cycle-fold", span=(2.5, 3.5), distances=[0.1])
    named = ssntk.Sweep(family, towards="PD", span=(2.5, 3.5), distances=[0.1], probe=ssntk.Probe(np.arange(3.0)))
    assert named.towards == "flip"
    for alias, kind in {"PD": "period-doubling", "ns": "torus", "TR": "torus", "SNIC": "saddle-node on a cycle"}.items():
        assert towards_fold(towards=alias).towards == kind


def test_where_there_is_no_such_bifurcation_the_message_says_what_there_is():
    with pytest.raises(ssntk.NumericalError, match=r"no torus number 0 .* holds cycle-fold at p = -0\.25"):
        towards_fold(towards="torus").follow()
    linear = flow(lambda t, x, u, p: -x * p, 1.0, 2)
    with pytest.raises(ssntk.NumericalError, match="holds no Hopf point; pass an x0 that settles on a cycle"):
        ssntk.Sweep(linear, towards="torus", span=(1.0, 2.0), distances=[0.1]).follow()


def test_tables_pictures_and_the_page_say_what_was_measured(store, tmp_path, capsys):
    print_store(store)
    said = " ".join(capsys.readouterr().out.split())
    assert "cycle-fold at p = -0.25" in said
    found = re.search(r"response at the critical frequency over the last 3 decades: (-[\d.]+); predicted -1\.", said)
    assert float(found.group(1)) == pytest.approx(-1, abs=0.02)
    axes = ssntk.plot.collapse(store)
    assert axes.size == 7
    lines = {line.get_label(): line for line in axes[3].get_lines()}
    np.testing.assert_array_equal(lines["critical mode alone, by its law"].get_ydata(), store.arrays()["predicted_response"])
    assert axes[0].get_title() == "Fold of cycles at $p_c$ = -0.25"
    ssntk.plot.plt.close(axes[0].figure)
    page = payload(store)
    assert page["kind"] == "towards-of-cycles"
    measured, predicted = page["slopes"]["lines"]["driven_response"]
    assert (measured, predicted) == (pytest.approx(-1, abs=0.02), -1)
    assert page["points"][-1]["values"]["period"] == pytest.approx(fold_forms(1e-6)[2], rel=1e-5)
    assert {"shape_top", "critical_share"} <= {one["name"] for one in page["quantities"]}
    # Without a page of its own a store of cycles would show panels that have nothing to show.
    assert "cyclePanels()" in write_page(store, tmp_path / "report.html").read_text()


def test_a_sweep_file(tmp_path):
    (tmp_path / "bautin_of_a_file.py").write_text(
        "import jax.numpy as jnp\nimport ssntk\n\n\ndef field(t, x, u, p):\n"
        "    growth = p + x @ x - (x @ x) ** 2\n"
        "    return jnp.stack([growth * x[0] - 2 * x[1], growth * x[1] + 2 * x[0]])\n\n\n"
        "def bautin(seed=0):\n    return ssntk.VectorField(field, 0.1, 2, 0)\n"
    )
    lines = ['towards = "LPC"', "span = [0.1, -0.4]", "distances = [1e-2, 1e-3]", "x0 = [1.0, 0.0]"]
    lines += ['factory = "bautin_of_a_file:bautin"', "[family]", 'attribute = "params"']
    file = tmp_path / "fold.toml"
    file.write_text("\n".join(lines))
    plan = ssntk.read_plan(file)
    assert (plan.towards, plan.size, plan.batches) == ("cycle-fold", 2, ((0,), (1,)))
    assert plan.hash() == ssntk.read_plan(file).hash()
    file.write_text("\n".join([*lines, "[probe]", "ts = [0.0, 1.0]"]))
    with pytest.raises(ValueError, match="probe must be left out towards a cycle-fold"):
        ssntk.read_plan(file)


def doubling(tmp_path):
    distances = np.geomspace(1e-1, 1e-5, 5)
    plan = ssntk.Sweep(
        flow(roessler, 2.7, 3), towards="PD", span=(2.7, 2.9), distances=distances, x0=[3.0, 0.0, 0.1], step=0.1
    )
    return ssntk.run(plan, ssntk.Store(tmp_path), progress=False).arrays()


@pytest.mark.slow
def test_before_a_period_doubling_only_a_drive_grows(tmp_path):
    data = doubling(tmp_path)
    assert (data["status"] == "done").all()
    # The doubling lies at 2.832445027861, by an integration of order 8 and its variational equations.
    np.testing.assert_allclose(data["parameter"] + data["distance"], 2.832445027861, atol=1e-9)
    assert slopes(data, "driven_response")[0] == pytest.approx(-2, abs=1e-3)
    assert slopes(data, "predicted_response")[0] == pytest.approx(-2, abs=1e-3)
    for name in ("shape_trace", "period_gradient", "phase_channel"):
        assert abs(slopes(data, name)[0]) < 1e-4
    np.testing.assert_allclose(data["drive_frequency"], np.pi / data["period"], rtol=1e-12)
    np.testing.assert_allclose(data["driven_response"][0], data["predicted_response"][0], rtol=1e-4)
    np.testing.assert_allclose(data["critical_share"][:2], 1, atol=1e-6)
    # The law is (1 + mu)^-2, for a multiplier that goes through -1 at a rate.
    ratio = data["driven_response"] * (1 + data["critical_multiplier"].real) ** 2
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-3)


@pytest.mark.slow
def test_before_a_torus_only_a_drive_grows(tmp_path):
    """The exponent of Langford's circle is (a - 0.49) / 2 +- i w: the trace of its rest in z and r."""
    distances = np.geomspace(5e-2, 1e-6, 5)
    plan = ssntk.Sweep(
        flow(langford, 0.4, 3), towards="NS", span=(0.4, 0.6), distances=distances, x0=[1.0, 0.0, 0.7], step=0.1
    )
    data = ssntk.run(plan, ssntk.Store(tmp_path), progress=False).arrays()
    assert (data["status"] == "done").all()
    np.testing.assert_allclose(data["critical_exponent"].real, -data["distance"] / 2, rtol=1e-6)
    # With r^2 = 0.6 + 0.7 a - 0.7^3 / 3, the product of the two exponents is 2 r^2.
    a = data["parameter"]
    square = 0.6 + 0.7 * a - 0.7**3 / 3
    np.testing.assert_allclose(np.abs(data["critical_exponent"]) ** 2, 2 * square, rtol=1e-8)
    assert slopes(data, "driven_response")[0] == pytest.approx(-2, abs=1e-4)
    assert abs(slopes(data, "shape_trace")[0]) < 1e-3
    np.testing.assert_allclose(data["period"], 2 * np.pi / 3.5, rtol=1e-10)
    np.testing.assert_allclose(data["period_gradient"], 0, atol=1e-12)
    np.testing.assert_allclose(data["driven_response"], data["predicted_response"], rtol=1e-3)


def slowing(t, x, u, a):
    """r' = r (1 - r^2), phi' = a - cos phi: the period on the unit circle is 2 pi / sqrt(a^2 - 1)."""
    turning, square = a - x[0] / jnp.sqrt(x @ x), x @ x
    return jnp.stack([(1 - square) * x[0] - turning * x[1], (1 - square) * x[1] + turning * x[0]])


@pytest.mark.slow
def test_before_a_saddle_node_on_the_cycle_the_phase_channel_grows(tmp_path):
    plan = ssntk.Sweep(
        flow(slowing, 1.5, 2),
        towards="SNIC",
        span=(1.5, 0.5),
        distances=[*np.geomspace(1e-1, 1e-3, 3), 1e-9],
        x0=[0.6, 0.3],
        step=0.2,
    )
    store = ssntk.run(plan, ssntk.Store(tmp_path), progress=False)
    (reason,) = store.status().failed.values()
    assert reason.startswith("the branch of cycles was followed only to a distance of")
    data = {name: values[1:] for name, values in store.arrays().items()}
    a, eps = data["parameter"], data["distance"]
    np.testing.assert_allclose(a, 1 + eps, rtol=1e-9)
    np.testing.assert_allclose(data["period"], 2 * np.pi / np.sqrt(a**2 - 1), rtol=1e-8)
    np.testing.assert_allclose(data["period_gradient"], 2 * np.pi * a / (a**2 - 1) ** 1.5, rtol=1e-7)
    # The mean of the squared speed is the mean of phi' over a round of phi, over the period: 2 pi a / P.
    speed = 2 * np.pi * a / data["period"]
    np.testing.assert_allclose(data["phase_channel"], (a / (a**2 - 1)) ** 2 * speed, rtol=1e-6)
    assert "critical_exponent" not in data
    assert slopes(data, "phase_channel")[0] == pytest.approx(-1.5, abs=0.03)
    assert slopes(data, "period")[0] == pytest.approx(-0.5, abs=0.005)
