"""Branches of limit cycles: their bifurcations and ends against closed forms and published values.

Compiled: Newton's iteration on a few meshes for each field, of 2 and 3 states; one network of 20.
"""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from oscillators import langford, lorenz, monodromy, network, nontrivial, roessler

import ssntk


def bautin(t, x, u, mu):
    """r' = mu r + r^3 - r^5, phi' = 2 - 0.7 r^2: a subcritical Hopf point at 0, and a fold of cycles at mu = -1/4."""
    squared = x @ x
    growth, turning = mu + squared - squared**2, 2.0 - 0.7 * squared
    return jnp.stack([growth * x[0] - turning * x[1], turning * x[0] + growth * x[1]])


def morris_lecar(t, x, u, current):
    """Morris and Lecar, Biophys. J. 35 (1981) 193; parameters of Rinzel and Ermentrout (1998), Hopf case."""
    v, w = x[0], x[1]
    opens = (1 + jnp.tanh((v + 1.2) / 18)) / 2
    rest, rate = (1 + jnp.tanh((v - 2) / 30)) / 2, jnp.cosh((v - 2) / 60)
    return jnp.stack([(current - 2 * (v + 60) - 8 * w * (v + 84) - 4.4 * opens * (v - 120)) / 20, 0.04 * (rest - w) * rate])


def circle(t, x, u, a):
    """r' = r (1 - r^2), phi' = a - cos phi: two equilibria appear on the cycle at a = 1."""
    squared = x @ x
    turning = a - x[0] / jnp.sqrt(squared)
    return jnp.stack([(1 - squared) * x[0] - turning * x[1], (1 - squared) * x[1] + turning * x[0]])


def pitchfork(t, x, u, mu):
    """A circle in the plane, and z' = mu z - z^3: the circle at z = 0 branches at mu = 0."""
    squared = x[0] ** 2 + x[1] ** 2
    turning = [(1 - squared) * x[0] - 2 * x[1], (1 - squared) * x[1] + 2 * x[0], mu * x[2] - x[2] ** 3]
    return jnp.stack(turning)


def family(field, p, n):
    return ssntk.Family(ssntk.VectorField(field, p, n, 0), "params")


def hopf_points(of, span, x0):
    return [one for one in ssntk.continuation(of, span, x0=x0).bifurcations if one.kind == "hopf"]


def test_a_fold_of_cycles_by_its_closed_form():
    of = family(bautin, -0.5, 2)
    (point,) = hopf_points(of, (-0.5, 0.5), [0.0, 0.0])
    branch = ssntk.cycle_continuation(of, point, (-0.5, 0.5))
    (fold,) = branch.bifurcations
    assert fold.kind == "cycle-fold"
    np.testing.assert_allclose(fold.parameter, -0.25, rtol=1e-13)
    np.testing.assert_allclose(fold.period, 2 * np.pi / (2 - 0.35), rtol=1e-9)
    assert branch.unresolved == ()
    assert branch.status == "left the span at p = 0.5"
    np.testing.assert_allclose(branch.parameter[-1], 0.5, rtol=1e-12)
    # r^2 = (1 -+ sqrt(1 + 4 mu)) / 2 before and after the fold.
    squared = np.array([(orbit.x**2).sum(axis=1).mean() for orbit in branch])
    np.testing.assert_allclose(squared - squared**2, -branch.parameter, atol=1e-9)
    turn = int(branch.parameter.argmin())
    assert not branch.stable[: turn - 1].any()
    assert branch.stable[turn + 1 :].all()
    # exp(T d(r')/dr) at each cycle.
    slope = branch.parameter + 3 * squared - 5 * squared**2
    np.testing.assert_allclose(branch.multipliers[:, 0], np.exp(branch.period * slope), atol=1e-10)


def test_a_torus_by_its_closed_form_and_a_start_from_an_orbit():
    of = family(langford, 0.4, 3)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(0.4), [1.0, 0.0, 0.7]), (0.4, 0.6))
    (torus,) = branch.bifurcations
    assert torus.kind == "torus"
    np.testing.assert_allclose(torus.parameter, 0.49, rtol=1e-12)
    np.testing.assert_allclose(abs(torus.multiplier), 1, rtol=1e-10)
    assert branch.parameter[0] == 0.4
    np.testing.assert_array_equal(branch.stable, branch.parameter < 0.49)
    # The same torus in the last step, which ends at the end of the span.
    (torus,) = ssntk.cycle_continuation(of, branch[0], (0.4, 0.4905)).bifurcations
    np.testing.assert_allclose(torus.parameter, 0.49, rtol=1e-12)


def test_roesslers_period_doubling():
    of = family(roessler, 2.5, 3)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(2.5), [1.0, 1.0, 0.0]), (2.5, 3.5), intervals=64)
    (doubling,) = branch.bifurcations
    assert doubling.kind == "period-doubling"
    # What is said of the error holds: it is what twice as many intervals change, here of 32.
    coarse = ssntk.cycle_continuation(of, branch[0], (2.5, 3.0)).bifurcations[0]
    assert coarse.interval[0] <= 2.83244502786 <= coarse.interval[1]
    assert np.ptp(coarse.interval) < 1e-7
    # DOP853 with rtol 1e-12, and a bracket of the multiplier.
    np.testing.assert_allclose(doubling.parameter, 2.83244502786, atol=1e-8)
    np.testing.assert_allclose(doubling.period, 5.76982001651, rtol=1e-8)
    np.testing.assert_array_equal(branch.stable, branch.parameter < doubling.parameter)


@pytest.mark.slow
def test_morris_lecars_folds_and_its_second_hopf_point():
    of = family(morris_lecar, 80.0, 2)
    first, second = hopf_points(of, (0.0, 300.0), [-60.0, 0.0])
    branch = ssntk.cycle_continuation(of, first, (0.0, 300.0))
    assert [one.kind for one in branch.bifurcations] == ["cycle-fold", "cycle-fold"]
    # AUTO-07p with 150 intervals.
    np.testing.assert_allclose(branch.bifurcations[0].parameter, 88.293250543, rtol=1e-9)
    np.testing.assert_allclose(branch.bifurcations[0].period, 135.38614, rtol=1e-6)
    # The branch ends at the other Hopf point, of which equilibria know.
    assert branch.end.kind == "hopf"
    np.testing.assert_allclose(branch.end.parameter, second.parameter, rtol=1e-10)
    assert branch.status == "shrinks to the Hopf point at p = 212.019"
    assert branch.unresolved == ()


def test_a_saddle_node_on_the_cycle():
    of = family(circle, 1.5, 2)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(1.5), [1.0, 0.1]), (1.5, 0.5), max_period=100.0)
    # T = 2 pi / sqrt(a^2 - 1).
    np.testing.assert_allclose(branch.period, 2 * np.pi / np.sqrt(branch.parameter**2 - 1), rtol=1e-6)
    assert branch.end.kind == "saddle-node"
    np.testing.assert_allclose(branch.end.parameter, 1.0, rtol=1e-10)
    assert "ends at a saddle-node on the cycle" in branch.status
    assert branch.stable.all()


def test_a_branch_point_of_cycles():
    of = family(pitchfork, -0.5, 3)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(-0.5), [1.0, 0.0, 0.0]), (-0.5, 0.5))
    (point,) = branch.bifurcations
    assert point.kind == "cycle-branch-point"
    np.testing.assert_allclose(point.parameter, 0, atol=1e-10)
    np.testing.assert_array_equal(branch.stable, branch.parameter < 0)


@pytest.mark.slow
def test_canards_fold_where_the_parameter_hardly_moves():
    # FitzHugh and Nagumo's equations are the same under (v, w, I) -> (-v, 1.75 - w, 1.75 - I): so are folds and Hopf points.
    def field(t, x, u, current):
        return jnp.stack([(x[0] - x[0] ** 3 / 3 - x[1] + current) * 12.5, x[0] + 0.7 - 0.8 * x[1]])

    of = family(field, 0.5, 2)
    point = ssntk.locate(of, "hopf", parameter=0.33, x=[-1.0, -0.4])
    branch = ssntk.cycle_continuation(of, point, (0.0, 2.0))
    assert [one.kind for one in branch.bifurcations] == ["cycle-fold", "cycle-fold"]
    np.testing.assert_allclose(sum(one.parameter for one in branch.bifurcations), 1.75, rtol=1e-9)
    assert branch.end.kind == "hopf"
    np.testing.assert_allclose(branch.end.parameter, 1.75 - point.parameter, rtol=1e-9)


@pytest.mark.slow
def test_nothing_is_invented_near_lorenz_homoclinic_orbit():
    of = family(lorenz, 24.0, 3)
    (point,) = hopf_points(of, (30.0, 10.0), [8.79, 8.79, 29.0])
    branch = ssntk.cycle_continuation(of, point, (10.0, 30.0))
    assert branch.bifurcations == ()
    # Sparrow, *The Lorenz Equations*, 1982: the homoclinic orbit is at rho = 13.926.
    np.testing.assert_allclose(branch.parameter[-1], 13.926557, rtol=1e-7)
    assert "homoclinic" in branch.status
    assert "not located" in branch.status
    # Where cycles are still short, the limit follows from how their period grows.
    for longest, off in ((2.0, 1e-3), (3.0, 2e-5), (5.0, 1e-6)):
        status = ssntk.cycle_continuation(of, point, (10.0, 30.0), max_period=longest).status
        limit = float(re.search(r"by extrapolation at p = ([\d.]*\d)", status)[1])
        np.testing.assert_allclose(limit, 13.926557, atol=off)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_networks_over_their_rate(seed):
    # The speed of all units is the parameter: periods are in inverse proportion to it, and multipliers are the same.
    model = network(seed, 20)
    of = ssntk.Family(model, lambda m: m.params[3])
    start = ssntk.limit_cycle(of(1.0), 0.1 * np.ones(20))
    branch = ssntk.cycle_continuation(of, start, (1.0, 3.0))
    assert branch.method == "shooting"
    np.testing.assert_allclose(branch.period * branch.parameter, start.period, rtol=1e-7)
    np.testing.assert_allclose(np.abs(branch.multipliers[:, 0]), np.abs(start.multipliers[0]), atol=1e-6)
    assert branch.bifurcations == ()


def rate_of(model):
    return model.params[3]


def test_new_weights_compile_nothing(compilations):
    for seed in range(3):
        of = ssntk.Family(network(seed, 5), rate_of)
        ssntk.cycle_continuation(of, ssntk.limit_cycle(of(1.0), 0.1 * np.ones(5)), (1.0, 1.5 + seed))
        if seed == 0:
            compilations.clear()
    assert compilations == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_stability_along_a_gain_by_scipys_integration(seed):
    model = network(seed, 5)
    weight, bias, *rest = model.params
    of = ssntk.Family.between(model, ssntk.VectorField(model.fn, (1.5 * weight, bias, *rest), 5, 0))
    start = ssntk.limit_cycle(of(0.0), 0.1 * np.ones(5))
    branch = ssntk.cycle_continuation(of, start, (0.0, 0.5))
    for i in range(0, len(branch), max(1, len(branch) // 4)):
        _, matrix = monodromy(of(branch.parameter[i]), branch[i])
        np.testing.assert_allclose(np.abs(branch.multipliers[i, 0]), np.abs(nontrivial(matrix)[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("states", "rate", "reach"), [pytest.param(1e5, 1e-3, 1e4, marks=pytest.mark.slow), (1e-6, 1e4, 1e-7)]
)
def test_units_do_not_matter(states, rate, reach):
    def scaled(t, x, u, p):
        return rate * states * bautin(t, x / states, u, p / reach)

    of = family(scaled, -0.5 * reach, 2)
    (point,) = hopf_points(of, (-0.5 * reach, 0.5 * reach), [0.0, 0.0])
    branch = ssntk.cycle_continuation(of, point, (-0.5 * reach, 0.5 * reach))
    (fold,) = branch.bifurcations
    np.testing.assert_allclose(fold.parameter / reach, -0.25, rtol=1e-12)
    np.testing.assert_allclose(fold.period * rate, 2 * np.pi / (2 - 0.35), rtol=1e-9)
    np.testing.assert_allclose(branch.amplitude[-1] / states, np.sqrt((1 + np.sqrt(3)) / 2), rtol=1e-3)


def test_the_result_speaks_is_saved_and_becomes_a_table(tmp_path):
    of = ssntk.Family(ssntk.normal_forms.hopf(0.5, 1.0), "mu")
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(0.5), [0.5, 0.0]), (0.5, -0.5))
    assert branch.end.kind == "hopf"
    assert "shrinks to the Hopf point" in repr(branch)
    ssntk.save(tmp_path / "branch.npz", branch)
    assert ssntk.load(tmp_path / "branch.npz") == branch
    lines = branch.to_csv(tmp_path / "branch.csv").read_text().splitlines()
    assert len(lines) == len(branch) + 1
    assert branch[0].stable


def test_a_branch_stays_in_its_span_from_the_first_cycle():
    of = ssntk.Family(ssntk.normal_forms.hopf(-0.5, 1.0), "mu")
    point = ssntk.locate(of, "hopf", parameter=0.1, x=[0.0, 0.0])
    branch = ssntk.cycle_continuation(of, point, (-1e-6, 1e-6))
    assert (branch.parameter <= 1e-6).all()
    # The Hopf point itself may be an end of the span.
    assert ssntk.cycle_continuation(of, point, (0.0, 1e-6)).status == "left the span at p = 1e-06"
    with pytest.raises(ssntk.NumericalError, match="lie outside of the span"):
        ssntk.cycle_continuation(of, point, (-0.5, 0.0))
    with pytest.raises(ValueError, match="max_period must be longer than the first period"):
        ssntk.cycle_continuation(of, point, (-0.5, 0.5), max_period=1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": ssntk.normal_forms.hopf(0.5, 1.0)}, "family must be an ssntk.Family"),
        ({"family": ssntk.Family(ssntk.normal_forms.saddle_node(0.5), "mu")}, "family must have at least two states"),
        ({"span": (1.0, 1.0)}, "span must hold two different values"),
        ({"span": (0.1, 1.0)}, "start must lie in the span"),
        ({"start": [0.0, 0.0]}, "start must be a Hopf Bifurcation, an Orbit"),
        ({"start": "fold"}, "a cycle-branch-point, got a saddle-node"),
        ({"method": "auto07p"}, "method must be"),
        ({"intervals": 33}, "intervals must be a power of two"),
        ({"max_period": 0.0}, "max_period must be positive"),
        ({"step": -0.1}, "step must be positive"),
        ({"max_steps": 0}, "max_steps must be"),
    ],
)
def test_mistakes_are_named(change, said):
    of = ssntk.Family(ssntk.normal_forms.hopf(-0.5, 1.0), "mu")
    start = ssntk.locate(of, "hopf", parameter=0.1, x=[0.0, 0.0])
    if change.get("start") == "fold":
        line = ssntk.Family(ssntk.normal_forms.saddle_node(0.5), "mu")
        change = {"start": ssntk.locate(line, "saddle-node", parameter=0.1, x=[0.2])}
    arguments = {"family": of, "start": start, "span": (-0.5, 0.5)} | change
    with pytest.raises(ValueError, match=said):
        ssntk.cycle_continuation(**arguments)
