"""Diagrams with limit cycles: each branch once, what branches off, and pictures. Compiled: Newton's iteration on cycles of 2
and 3 states; Hodgkin and Huxley's neuron, and random networks, with -m slow."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import some

import ssntk

FEW = {"n_slices": 3, "n_starts": 16}
# The folds of Hodgkin and Huxley's cycles: 40,000 steps of the Runge-Kutta method of order 4 with their derivatives,
# Newton's iteration at fixed periods, and Brent's method on the derivative of the current over the period.
FOLDS, PERIODS = [7.8462471202, 7.9216854943, 6.2642212745], [16.7137967133, 20.7072941950, 19.8952407125]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def arch(t, x, u, p):
    """r' = r (1 - p^2 - r^2), phi' = 2: cycles between two Hopf points at -1 and 1."""
    growth = 1 - p**2 - x @ x
    return jnp.stack([growth * x[0] - 2 * x[1], 2 * x[0] + growth * x[1]])


def beside(t, x, u, p):
    """r' = r (1 + p - r^2), phi' = 2, z' = p z - z^3: a Hopf point at -1, whose cycles branch at 0."""
    growth = 1 + p - x[0] ** 2 - x[1] ** 2
    return jnp.stack([growth * x[0] - 2 * x[1], 2 * x[0] + growth * x[1], p * x[2] - x[2] ** 3])


def family(field, p, n):
    return ssntk.Family(ssntk.VectorField(field, p, n, 0), "params")


@pytest.fixture(scope="module")
def between():
    return ssntk.bifurcation_diagram(family(arch, 0.0, 2), (-2.0, 2.0), cycles=True, **FEW)


def test_cycles_between_two_hopf_points_are_one_branch(between):
    assert [event.kind for event in between.bifurcations] == ["hopf", "hopf"]
    (cycles,) = between.cycles
    ends = cycles.begin.parameter, cycles.end.parameter
    np.testing.assert_allclose(sorted(ends), [-1, 1], rtol=1e-10)
    np.testing.assert_allclose(cycles.amplitude[:, 0], np.sqrt(1 - cycles.parameter**2), atol=1e-4)
    assert between.status == "everything that was seen was followed"
    assert "1 branch of limit cycles" in repr(between)
    assert "from the hopf at p = -1" in repr(between)


def test_the_result_is_saved_and_becomes_tables(between, tmp_path):
    pytest.importorskip("xarray")
    ssntk.save(tmp_path / "diagram.npz", between)
    assert ssntk.load(tmp_path / "diagram.npz") == between
    data = between.to_xarray()
    np.testing.assert_array_equal(data["cycle_parameter"], between.cycles[0].parameter)
    assert data["cycle_multipliers"].dims == ("cycle", "multiplier")
    assert data["x"].dims == ("point", "state")


def test_what_branches_off_is_followed_too():
    diagram = ssntk.bifurcation_diagram(family(beside, -1.5, 3), (-1.5, 1.0), cycles=True, **FEW)
    first, second = diagram.cycles
    assert first.begin.kind == "hopf"
    (event,) = diagram.cycle_events
    assert event.kind == "cycle-branch-point"
    assert second.begin == event
    z = second.maximum[:, 2]
    np.testing.assert_allclose(z**2, second.parameter, atol=1e-9)
    assert z.min() < 0 < z.max()
    assert diagram.status == "everything that was seen was followed"


def looping(t, x, u, p):
    """r' = r (1 - p^2 - r^2), phi' = 2, z' = z (0.3 - 2.5 p^2 - z^2) on the cycles: these branch at p^2 = 0.12."""
    squared = x[0] ** 2 + x[1] ** 2
    growth, rate = 1 - p**2 - squared, 0.8 - 3 * p**2 - squared / 2
    return jnp.stack([growth * x[0] - 2 * x[1], growth * x[1] + 2 * x[0], rate * x[2] - x[2] ** 3])


@pytest.mark.parametrize("units", some([(1.0, 1.0), (1e6, 1e-6), (1e-6, 1e6)], [(1e6, 1e-6)]))
def test_a_loop_between_two_branch_points_is_followed_once(units):
    # States of different units in one model.
    units = jnp.array([units[0], units[0], units[1]])

    def scaled(t, x, u, p):
        return units * looping(t, x / units, u, p)

    diagram = ssntk.bifurcation_diagram(family(scaled, -1.0, 3), (-1.5, 1.5), cycles=True, **FEW)
    _, loop = diagram.cycles
    assert loop.status == "closed: it returns to the bifurcation at which it begins"
    z = np.abs([orbit.x[:, 2] for orbit in loop]).max(axis=1) / units[2]
    np.testing.assert_allclose(z**2, 0.3 - 2.5 * loop.parameter**2, atol=1e-8)
    assert diagram.status == "everything that was seen was followed"


def turned(t, x, u, p):
    """A cycle between two Hopf points at 0 and 1, whose equilibrium is zero up to rounding only."""
    turn = jnp.array([[0.3, 0.7], [-0.9, 0.41]])
    y = turn @ x
    growth = p * (1 - p) - y @ y + 0.3 * y[0]
    return jnp.linalg.inv(turn) @ jnp.stack([growth * y[0] - 2 * y[1] + 0.2 * y[0] * y[1], growth * y[1] + 2 * y[0]])


def test_hopf_points_at_states_that_are_zero_up_to_rounding_share_a_branch():
    diagram = ssntk.bifurcation_diagram(family(turned, -0.5, 2), (-0.5, 1.5), cycles=True, **FEW)
    assert len(diagram.cycles) == 1


def centre(t, x, u, p):
    return jnp.stack([p * x[0] - 2 * x[1], 2 * x[0] + p * x[1]])


def test_cycles_side_by_side_are_said_and_hold_no_bifurcation():
    diagram = ssntk.bifurcation_diagram(family(centre, -1.0, 2), (-1.0, 1.0), cycles=True, **FEW)
    (cycles,) = diagram.cycles
    assert "cycles lie side by side at p = " in cycles.status
    assert cycles.bifurcations == ()
    assert len(cycles) < 10
    assert "everything" not in diagram.status


def test_equilibria_alone_are_the_default():
    diagram = ssntk.bifurcation_diagram(family(arch, 0.0, 2), (-2.0, 2.0), **FEW)
    assert diagram.cycles == ()
    assert diagram.cycle_events == ()


def test_maps_have_no_limit_cycles():
    step = ssntk.Map(lambda t, x, u, p: p * x * (1 - x), 2.0, 1)
    with pytest.raises(ValueError, match="cycles must be True or False, got 'yes'"):
        ssntk.bifurcation_diagram(family(arch, 0.0, 2), (-2.0, 2.0), cycles="yes")
    with pytest.raises(ValueError, match="cycles is for flows"):
        ssntk.bifurcation_diagram(ssntk.Family(step, "params"), (2.0, 3.0), cycles=True)


def marked(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def test_the_picture_has_maxima_and_minima_filled_where_stable(between):
    ax = between.plot(y=0)
    lines = marked(ax, "stable cycle")
    assert [line.get_markerfacecolor() for line in lines] == ["#0072B2", "#0072B2"]
    top, bottom = (line.get_ydata() for line in lines)
    np.testing.assert_allclose(top, -bottom, atol=1e-4)
    # The lines begin and end at the Hopf points.
    np.testing.assert_allclose(top[[0, -1]], 0, atol=1e-8)
    np.testing.assert_allclose(np.sort(lines[0].get_xdata()[[0, -1]]), [-1, 1], rtol=1e-8)
    assert marked(ax, "unstable cycle") == []
    assert len(marked(ax, "Hopf, supercritical")[0].get_xdata()) == 2
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["stable", "unstable", "stable cycle", "Hopf, supercritical"]


def test_a_branch_of_cycles_is_drawn_alone_with_its_ends_and_its_events(between):
    (cycles,) = between.cycles
    orbit = cycles[len(cycles) // 2]
    fold = ssntk.CycleEvent("cycle-fold", 0.1, 3.0, orbit.x[0], 1 + 0j, 0.0, orbit, (0.0, 0.2), True)
    half = dataclasses.replace(cycles, bifurcations=(fold,))
    ax = half.plot(y=lambda x: 2 * x[0])
    (points,) = marked(ax, "Fold of cycles")
    np.testing.assert_allclose(points.get_ydata(), 2 * orbit.amplitude[0] * np.array([1, -1]), rtol=1e-4)
    np.testing.assert_array_equal(points.get_xdata(), [0.1, 0.1])
    assert len(marked(ax, "Hopf, supercritical")[0].get_xdata()) == 2
    with pytest.raises(ValueError, match="y must be"):
        half.plot(y=2)


def squid(t, x, u, current):
    """Hodgkin and Huxley, J. Physiol. 117 (1952) 500, at 6.3 degrees, with the resting potential at -65 mV."""
    v, m, h, n = x
    m_rate, m_loss = _ratio((v + 40) / 10), 4 * jnp.exp(-(v + 65) / 18)
    h_rate, h_loss = 0.07 * jnp.exp(-(v + 65) / 20), 1 / (1 + jnp.exp(-(v + 35) / 10))
    n_rate, n_loss = 0.1 * _ratio((v + 55) / 10), 0.125 * jnp.exp(-(v + 65) / 80)
    flow = current - 120 * m**3 * h * (v - 50) - 36 * n**4 * (v + 77) - 0.3 * (v + 54.4)
    gates = [
        rate * (1 - gate) - loss * gate
        for gate, rate, loss in ((m, m_rate, m_loss), (h, h_rate, h_loss), (n, n_rate, n_loss))
    ]
    return jnp.stack([flow, *gates])


def _ratio(y):
    """y / (1 - exp(-y)), also at zero."""
    far = jnp.abs(y) > 1e-6
    return jnp.where(far, y / (1 - jnp.exp(-jnp.where(far, y, 1.0))), 1 + y / 2)


@pytest.mark.slow
def test_hodgkin_and_huxleys_neuron():
    diagram = ssntk.bifurcation_diagram(family(squid, 10.0, 4), (0.0, 200.0), cycles=True, max_period=2)
    first, double = diagram.cycles
    # One branch leads from the one Hopf point to the other.
    np.testing.assert_allclose([first.begin.parameter, first.end.parameter], [9.77934, 154.52633], rtol=1e-6)
    folds, doublings = (
        [one for one in first.bifurcations if one.kind == kind] for kind in ("cycle-fold", "period-doubling")
    )
    np.testing.assert_allclose([one.parameter for one in folds], FOLDS, rtol=1e-9)
    np.testing.assert_allclose([one.period for one in folds], PERIODS, rtol=1e-6)
    # Balti, Lanza and Aziz-Alaoui, Math. Biosci. Eng. 15 (2018) 807, figure 6: two cycles almost coincide at 6.2649.
    assert 6.26 < folds[-1].parameter < 6.2649
    # The cycles of twice the period lead from one period doubling to the other.
    assert double.begin == doublings[0]
    np.testing.assert_allclose(double.end.parameter, doublings[1].parameter, rtol=1e-9)
    # Its stable cycles are those above the last fold.
    assert first.stable[first.parameter > 12].all()
    assert "cycles of 4 rounds were not followed: give a larger max_period" in diagram.status


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_networks_end_on_the_cycles_of_their_diagram(seed):
    taus = jnp.exp(jr.normal(jr.key(seed + 100), (6,)))
    of = ssntk.Family(ssntk.CTRNN(6, 1, 1, key=jr.key(seed), gain=1.0, tau=taus), "gain")
    diagram = ssntk.bifurcation_diagram(of, (0.5, 3.0), cycles=True)
    for branch in diagram.cycles:
        attracting = np.flatnonzero(np.abs(branch.multipliers[:, 0]) < 0.5)
        for i in attracting[:: max(1, len(attracting) // 3)]:
            # A simulation from nearby ends on the same cycle.
            settled = ssntk.limit_cycle(of(branch.parameter[i]), 1.01 * branch[i].x[0])
            np.testing.assert_allclose(settled.period, branch.period[i], rtol=1e-6)
            np.testing.assert_allclose(settled.maximum, branch.maximum[i], atol=1e-3)
