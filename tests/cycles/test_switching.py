"""Cycles that branch off: at period doublings, at branch points, and where branches merge. Compiled: Newton's iteration for
fields of 3 states on meshes of 32 to 128 intervals, and for one network by shooting."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from oscillators import lorenz, monodromy, nontrivial, roessler

import ssntk

# DOP853 with rtol 1e-12 and its variational equations: Newton's iteration on the period map, and Brent's method on mu + 1.
CASCADE = [2.83244502786, 3.8373581684, 4.1242147321]


def family(field, p, n):
    return ssntk.Family(ssntk.VectorField(field, p, n, 0), "params")


def beside(g, t, x, u, p):
    """A circle in the plane of x and y, and z' = g(z, mu) beside it, in units of `size`: each root of g is a cycle."""
    mu, size = p
    squared, z = x[0] ** 2 + x[1] ** 2, x[2] / size
    turning = [(1 - squared) * x[0] - 2 * x[1], (1 - squared) * x[1] + 2 * x[0]]
    return jnp.stack([*turning, size * jnp.polyval(g(mu), z)])


def pitchfork(mu):
    return jnp.stack([-jnp.ones_like(mu), jnp.zeros_like(mu), mu, jnp.zeros_like(mu)])


def transcritical(mu):
    """z (mu - z) with cycles at z = 0 and z = mu."""
    return jnp.stack([-jnp.ones_like(mu), mu, jnp.zeros_like(mu)])


def imperfect(h, mu):
    """h + mu z - z^3: one stable root for all mu, and two more above mu = 3 (h / 2)^(2/3)."""
    return jnp.stack([-jnp.ones_like(mu), jnp.zeros_like(mu), mu, jnp.full_like(mu, h)])


def with_roots(g, mu, size=1.0):
    return ssntk.Family(ssntk.VectorField(functools.partial(beside, g), (mu, size), 3, 0), lambda m: m.params[0])


def crossing(of, span):
    start = ssntk.limit_cycle(of(span[0]), [1.0, 0.1, 0.0], 3.0)
    branch = ssntk.cycle_continuation(of, start, span)
    (event,) = branch.bifurcations
    assert event.kind == "cycle-branch-point"
    return event


@pytest.mark.parametrize(
    "size", [1.0, pytest.param(1e6, marks=pytest.mark.slow), pytest.param(1e-6, marks=pytest.mark.slow)]
)
def test_a_pitchfork_of_cycles_is_followed_on_both_sides_and_met_from_the_side(size):
    of = with_roots(pitchfork, -0.5, size)
    event = crossing(of, (-0.5, 0.5))
    arms = ssntk.cycle_continuation(of, event, (-0.5, 0.5))
    assert arms.begin == event
    z = arms.maximum[:, 2] / size
    np.testing.assert_allclose(z**2, arms.parameter, atol=1e-9)
    assert z.min() < -0.7
    assert z.max() > 0.7
    assert arms.stable.all()
    assert arms.bifurcations == ()
    # exp(T g'(z)) with g' = mu - 3 z^2 = -2 mu.
    np.testing.assert_allclose(arms.multipliers[:, 0].real, np.exp(-2 * arms.parameter * np.pi), atol=1e-8)
    # From one arm the branch passes to the other, and the point between is no fold.
    across = ssntk.cycle_continuation(of, arms[0], (0.5, -0.5))
    assert across.status == "left the span at p = 0.5"
    (met,) = across.bifurcations
    assert met.kind == "cycle-branch-point"
    np.testing.assert_allclose(met.parameter, 0, atol=1e-9)
    straight = ssntk.cycle_continuation(of, met, (0.5, -0.5))
    np.testing.assert_allclose(straight.maximum[:, 2] / size, 0, atol=1e-6)
    assert sorted(straight.parameter[[0, -1]]) == [-0.5, 0.5]


@pytest.mark.parametrize(
    "h", [pytest.param(1e-2, marks=pytest.mark.slow), 1e-3, *(pytest.param(h, marks=pytest.mark.slow) for h in (1e-4, 1e-5))]
)
def test_steps_do_not_lead_across_the_gap_of_an_imperfect_pitchfork(h):
    of = with_roots(functools.partial(imperfect, h), -1.0)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(-1.0), [1.0, 0.1, 0.0]), (-1.0, 1.0))
    assert branch.bifurcations == branch.unresolved == ()
    assert branch.stable.all()
    roots = [np.roots([-1, 0, mu, h]).real.max() for mu in branch.parameter]
    np.testing.assert_allclose(branch.maximum[:, 2], roots, atol=1e-9)
    # The other stable cycles end at a fold, from where the branch leads back.
    other = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(1.0), [1.0, 0.1, -1.0]), (1.0, -1.0))
    (fold,) = other.bifurcations
    assert fold.kind == "cycle-fold"
    np.testing.assert_allclose(fold.parameter, 3 * (h / 2) ** (2 / 3), rtol=1e-8)
    assert other.status == "left the span at p = 1"


def test_a_transcritical_crossing_of_cycles():
    of = with_roots(transcritical, -0.5)
    event = crossing(of, (-0.5, 0.5))
    np.testing.assert_allclose(event.parameter, 0, atol=1e-10)
    other = ssntk.cycle_continuation(of, event, (-0.5, 0.5))
    np.testing.assert_allclose(other.maximum[:, 2], other.parameter, atol=1e-9)
    assert sorted(other.parameter[[0, -1]]) == [-0.5, 0.5]
    np.testing.assert_array_equal(other.stable, other.parameter > 0)


def test_roesslers_cycle_of_twice_the_period():
    of = family(roessler, 2.5, 3)
    single = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(2.5), [1.0, 1.0, 0.0]), (2.5, 3.0), intervals=64)
    (doubling,) = single.bifurcations
    double = ssntk.cycle_continuation(of, doubling, (2.5, 3.3))
    assert double.begin == doubling
    assert double.stable.all()
    np.testing.assert_allclose(double.period[0], 2 * doubling.period, rtol=1e-3)
    # The simulation ends on it, and SciPy's integration closes it, with the same multiplier.
    assert double.parameter[-1] == 3.3
    state, matrix = monodromy(of(3.3), double[-1])
    np.testing.assert_allclose(state, double[-1].x[0], atol=1e-7)
    np.testing.assert_allclose(double.multipliers[-1, 0].real, nontrivial(matrix)[0].real, atol=1e-6)
    settled = ssntk.limit_cycle(of(3.3), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(settled.period, double.period[-1], rtol=1e-8)
    # The way back ends where it began, which is no fold.
    back = ssntk.cycle_continuation(of, settled, (3.3, 2.5))
    assert back.bifurcations == ()
    assert back.status == "merges with cycles of half the period at their period-doubling at p = 2.83245"
    np.testing.assert_allclose(back.end.parameter, 2.83244502786, atol=1e-8)
    np.testing.assert_allclose(back.end.period, doubling.period, rtol=1e-8)


@pytest.mark.slow
def test_roesslers_cascade():
    of = family(roessler, 2.5, 3)
    start, at = ssntk.limit_cycle(of(2.5), [1.0, 1.0, 0.0]), []
    for span in ((2.5, 3.0), (2.5, 4.0), (2.5, 4.3)):
        branch = ssntk.cycle_continuation(of, start, span, intervals=64)
        start = next(one for one in branch.bifurcations if one.kind == "period-doubling")
        at.append(start.parameter)
    np.testing.assert_allclose(at, CASCADE, atol=1e-8)


def test_lorenz_symmetric_cycle_branches_where_the_equations_are_singular():
    # Seen from the symmetric cycle, no correction converges at the branch point itself.
    of = family(lorenz, 340.0, 3)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(340.0), [1.0, 1.0, 300.0]), (340.0, 280.0))
    (event,) = branch.bifurcations
    assert event.kind == "cycle-branch-point"
    arms = ssntk.cycle_continuation(of, event, (300.0, 340.0), step=0.02)
    uneven = (arms.maximum + arms.minimum)[:, 0]
    assert uneven.min() < -1 < 1 < uneven.max()
    # Their asymmetry grows with the root of the distance.
    near = np.abs(uneven) < 2
    limit = np.polyfit(uneven[near] ** 2, arms.parameter[near], 1)[-1]
    np.testing.assert_allclose(event.parameter, limit, atol=2e-2)
    assert arms.stable[near].all()


@pytest.mark.parametrize(
    "step", [0.1, pytest.param(0.03, marks=pytest.mark.slow), pytest.param(0.3, marks=pytest.mark.slow)]
)
def test_lorenz_cycles_meet_the_symmetric_one_from_the_side(step):
    of = family(lorenz, 300.0, 3)
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(of(300.0), [30.0, 40.0, 280.0]), (300.0, 330.0), step=step)
    (event,) = branch.bifurcations
    assert event.kind == "cycle-branch-point"
    # From the symmetric side: 312.9735, where the asymmetry that grows with the root of the distance begins.
    np.testing.assert_allclose(event.parameter, 312.9735, atol=2e-3)
    assert branch.status == "left the span at p = 300"


def test_what_cannot_be_switched_at_is_refused():
    of = family(roessler, 2.5, 3)
    orbit = ssntk.limit_cycle(of(2.5), [1.0, 1.0, 0.0])
    event = ssntk.CycleEvent("torus", 2.5, orbit.period, orbit.x[0], 1j, 1.0, orbit, (2.4, 2.6), True)
    with pytest.raises(
        ValueError, match="start must be a Hopf point, a period-doubling or a cycle-branch-point, got a torus"
    ):
        ssntk.cycle_continuation(of, event, (2.5, 3.0))
    lost = ssntk.CycleEvent(
        "period-doubling", 2.5, orbit.period, orbit.x[0], -1 + 0j, 1.0, orbit, (2.4, 2.6), False, "why not"
    )
    with pytest.raises(ValueError, match="start must have been located: why not"):
        ssntk.cycle_continuation(of, lost, (2.5, 3.0))
