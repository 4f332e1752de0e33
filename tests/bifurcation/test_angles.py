"""States that are angles, events twice in one step, and pitchforks of conservative systems. Compiles: a small program set
for each of 6 fields of one to four states."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some

import ssntk

TURN = 2 * np.pi


def family(fn, n, p=0.0):
    return ssntk.Family(ssntk.VectorField(lambda t, x, u, p: fn(x, p), jnp.asarray(p), n), lambda m: m.params)


def adler(unit=1.0):
    """A phase that is driven by p, in radians over `unit`: folds at p = 1 and -1, where it is a quarter turn either way."""
    return family(lambda x, p: jnp.array([p - jnp.sin(unit * x[0])]) / unit, 1)


@pytest.mark.parametrize("unit", [1.0, np.pi / 180])
def test_a_phase_that_locks_is_one_closed_branch(unit):
    branch = ssntk.continuation(adler(unit), (-2.0, 2.0), x0=[0.0], at=0.0, both=True, periods=[TURN / unit])
    assert branch.status == "came back to its start"
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [1.0, -1.0], rtol=1e-12)
    np.testing.assert_allclose([event.x[0] * unit for event in branch.bifurcations], [np.pi / 2, 3 * np.pi / 2], rtol=1e-7)
    # Its end is its start, one turn on.
    np.testing.assert_allclose((branch.x[-1] - branch.x[0]) * unit, TURN, rtol=1e-12)


@pytest.mark.slow
def test_a_driven_pendulum_has_one_branch_and_two_folds():
    pendulum = family(lambda x, p: jnp.array([x[1], p - jnp.sin(x[0]) - 0.3 * x[1]]), 2)
    diagram = ssntk.bifurcation_diagram(pendulum, (-2.0, 2.0), periods=[TURN, 0.0], n_slices=3, n_starts=16)
    assert len(diagram.branches) == 1
    np.testing.assert_allclose([event.parameter for event in diagram.bifurcations], [-1.0, 1.0], rtol=1e-12)
    assert {event.kind for event in diagram.bifurcations} == {"saddle-node"}


def test_a_branch_that_winds_says_so():
    branch = ssntk.continuation(adler(), (-2.0, 2.0), x0=[0.0], at=0.0, max_steps=400)
    assert "it repeats itself, state 0 by 6.28319: if those are angles, pass periods" in branch.status


@pytest.mark.slow
def test_a_diagram_that_winds_says_so():
    diagram = ssntk.bifurcation_diagram(adler(), (-2.0, 2.0), n_slices=2, n_starts=4, max_steps=400)
    assert diagram.status.startswith("stopped at a branch that repeats itself; branch 0 stopped at p = ")
    assert len(diagram.branches) == 1


def test_slow_points_are_told_within_one_period():
    """Just beyond the fold, the phase moves most slowly at a quarter turn, with the speed p - 1."""
    points = ssntk.find_fixed_points(adler()(1.01), n_starts=32, periods=[TURN])
    assert len(points) == 0
    np.testing.assert_allclose(points.slow.x, [[np.pi / 2]], rtol=1e-6)
    np.testing.assert_allclose(points.slow.speed, [0.01], rtol=1e-6)


@pytest.mark.parametrize("periods", [[-1.0], [1.0, 1.0], ["x"]])
def test_periods_are_checked(periods):
    with pytest.raises(ValueError, match="periods"):
        ssntk.continuation(adler(), (-2.0, 2.0), x0=[0.0], at=0.0, periods=periods)
    with pytest.raises(ValueError, match="periods"):
        ssntk.bifurcation_diagram(adler(), (-2.0, 2.0), periods=periods)


def line():
    return family(lambda x, p: jnp.array([p - x[0]]), 1)


@pytest.mark.parametrize("width", some([3e-2, 1e-3, 1e-5], [3e-2, 1e-5]))
@pytest.mark.parametrize("centre", some([-0.7171, 0.013, 0.5], [0.013]))
def test_an_event_that_comes_twice_in_one_step_is_seen_twice(centre, width):
    twice = ssntk.Crossing("twice", lambda x, p: (x[0] - centre) ** 2 - width**2)
    branch = ssntk.continuation(line(), (-1.0, 1.0), x0=[-1.0], events=[twice])
    np.testing.assert_allclose(
        [event.parameter for event in branch.bifurcations], [centre - width, centre + width], rtol=1e-9, atol=1e-12
    )
    stopping = ssntk.Crossing("once", twice.fn, stop=True)
    branch = ssntk.continuation(line(), (-1.0, 1.0), x0=[-1.0], events=[stopping])
    (found,) = branch.bifurcations
    np.testing.assert_allclose([found.parameter, branch.parameter[-1]], centre - width, rtol=1e-9, atol=1e-12)


def test_bounds_that_are_left_for_less_than_a_step():
    """A bump of height one and width 0.01 exceeds 0.9999 over an interval of 2e-4 only."""
    bump = family(lambda x, p: jnp.array([p - x[0], 1 / (1 + ((x[0] - 0.013) / 1e-2) ** 2) - x[1]]), 2)
    branch = ssntk.continuation(bump, (-1.0, 1.0), x0=[-1.0, 0.0], bounds={1: (-1.0, 0.9999)})
    assert branch.status.endswith("state 1 reached 0.9999")
    np.testing.assert_allclose(branch.parameter[-1], 0.013 - 1e-2 * np.sqrt(1 / 0.9999 - 1), rtol=1e-9)
    assert branch.x[-1, 1] <= 0.9999


def test_an_event_that_is_no_number():
    bad = ssntk.Crossing("root", lambda x, p: np.sqrt(x[0]) - 0.5 if x[0] > 0 else np.nan)
    branch = ssntk.continuation(line(), (-1.0, 1.0), x0=[-1.0], events=[bad])
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [0.25], rtol=1e-12)
    (unknown,) = branch.unresolved
    assert "is not finite from p = -1 to p = -0" in unknown.reason
    with pytest.raises(ValueError, match="'root' stops the branch, and must be finite at its start"):
        ssntk.continuation(line(), (-1.0, 1.0), x0=[-1.0], events=[ssntk.Crossing("root", bad.fn, stop=True)])


@pytest.mark.parametrize("s", some([1.0, -1.0, 1e-3, -1e4], [1.0, -1e4]))
def test_a_conservative_pitchfork_beside_another_mode(s):
    """x1'' = s x1, hyperbolic or an oscillation, beside Duffing's x2'' = p x2 - x2^3, whose pair meets at zero for p = 0."""
    duffing = family(lambda x, p: jnp.array([x[2], x[3], s * x[0], p * x[1] - x[1] ** 3]), 4)
    branch = ssntk.continuation(duffing, (-1.3, 1.1), x0=np.zeros(4))
    (found,) = branch.bifurcations
    assert (found.kind, found.criticality, branch.unresolved) == ("pitchfork", None, ())
    assert "defective" in found.reason
    assert abs(found.parameter) < 1e-12
    np.testing.assert_allclose(np.abs(found.right), [0, 1, 0, 0], atol=1e-7)


def test_two_pendula_upside_down():
    """Two upright pendula coupled by p. The linear part is 1 for the sum, which falls, and 1 - 2 p for the difference."""
    pendula = family(
        lambda x, p: jnp.array([x[2], x[3], p * (x[1] - x[0]) - jnp.sin(x[0]), p * (x[0] - x[1]) - jnp.sin(x[1])]), 4
    )
    branch = ssntk.continuation(pendula, (0.1, 1.2), x0=[np.pi, np.pi, 0.0, 0.0])
    (found,) = branch.bifurcations
    assert found.kind == "pitchfork"
    np.testing.assert_allclose(found.parameter, 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.right[:2] / found.right[0], [1.0, -1.0], rtol=1e-6)


@pytest.mark.parametrize("fn", [lambda x, p: p * jnp.array([x[0] ** 3]), lambda x, p: jnp.array([-(x[0] ** 3) + 0 * p])])
def test_a_start_that_is_degenerate_is_not_blamed_on_x0(fn):
    with pytest.raises(ssntk.NumericalError, match=r"the equilibrium found at p = 0\.5 is degenerate"):
        ssntk.continuation(family(fn, 1), (0.5, 2.0))
