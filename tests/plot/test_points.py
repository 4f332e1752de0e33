"""Pictures of fixed points that are made by hand, or of fields in closed form.

Compiles the vector fields of three models: one of one state, and two of two states (a flow and a map).
"""

import dataclasses

import matplotlib

matplotlib.use("agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

import ssntk
from ssntk.dynamics.fixed_points import SlowPoints


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def points(x, jacobian):
    """FixedPoints with these states (k, n) and Jacobians (k, n, n) of a flow."""
    x, jacobian = np.asarray(x, float), np.asarray(jacobian, float)
    values = np.linalg.eigvals(jacobian).astype(complex)
    values = np.take_along_axis(values, np.lexsort((-values.imag, -values.real), axis=-1), axis=-1)
    k, n = x.shape
    return ssntk.FixedPoints(
        x=x,
        eigenvalues=values,
        residual=np.zeros(k),
        stable=(values.real < 0).all(axis=1),
        hits=np.ones(k, int),
        slow=SlowPoints(np.zeros((0, n)), np.zeros(0), np.zeros((0, n), complex), np.zeros(0, int)),
        n_unstable=(values.real > 0).sum(axis=1),
        outputs=x,
        jacobian=jacobian,
        conserved=np.zeros((0, n)),
        index_sum=None,
        n_starts=k,
        n_lost=0,
    )


def labelled(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def segments(ax):
    """The ends (2, 2) of each unstable direction."""
    return [np.array(line.get_data()).T for line in ax.get_lines() if line.get_zorder() == 2.2]


@pytest.fixture(scope="module")
def network():
    """A stable point, a saddle and a point with an unstable pair, in three dimensions, the third of which is always zero."""
    turn = [[0.5, -2.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.0, -1.0]]
    return points(
        [[-2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 0.0]],
        [np.diag([-1.0, -2.0, -3.0]), np.diag([1.0, -1.0, -2.0]), turn],
    )


def test_principal_components_of_points_and_trajectories_together(network):
    """A trajectory along the third state, as long as the extent of the points, turns the plane towards that state."""
    alone = ssntk.plot.fixed_points(network)
    # Sums of squares about the mean: 8 along the first state, 2/3 along the second.
    assert (alone.get_xlabel(), alone.get_ylabel()) == ("principal component 1 (92 %)", "principal component 2 (8 %)")
    path = np.zeros((1, 5, 3))
    path[0, :, 2] = [-4.0, -2.0, 0.0, 2.0, 4.0]
    both = ssntk.plot.fixed_points(network, trajectories=path)
    # 40 along the third, 8 along the first, 7/8 along the second (of the eight states about their mean 1/8).
    assert (both.get_xlabel(), both.get_ylabel()) == ("principal component 1 (82 %)", "principal component 2 (16 %)")
    drawn = next(line for line in both.get_lines() if np.size(line.get_xdata()) == 5)
    np.testing.assert_allclose(np.abs(drawn.get_xdata()), [4, 2, 0, 2, 4], atol=1e-12)
    np.testing.assert_allclose(drawn.get_ydata(), 0, atol=1e-12)


def test_points_are_told_apart_by_their_unstable_directions(network):
    ax = ssntk.plot.fixed_points(network)
    drawn = labelled(ax)
    assert list(drawn) == ["stable (1)", "1 unstable direction (1)", "2 unstable directions (1)"]
    # x0 is the first component and x1 the second, from the mean (0, 1/3).
    for line, place in zip(drawn.values(), [(-2, -1 / 3), (0, 2 / 3), (2, -1 / 3)], strict=True):
        np.testing.assert_allclose(np.ravel(line.get_data()), place, atol=1e-12)
    looks = [(line.get_marker(), line.get_color(), line.get_markerfacecolor()) for line in drawn.values()]
    assert len({look[0] for look in looks}) == 3
    # In print without colours, the filled marker is dark and the open ones are white.
    assert [face for _, _, face in looks] == ["#222222", "white", "white"]


def test_unstable_directions_are_lines_through_their_points(network):
    """That of the saddle lies along the first state. The two of the pair span the plane of the first two states."""
    found = segments(ssntk.plot.fixed_points(network))
    assert len(found) == 3
    for ends, place in zip(found, [(0, 2 / 3), (2, -1 / 3), (2, -1 / 3)], strict=True):
        np.testing.assert_allclose(ends.mean(axis=0), place, atol=1e-12)
    saddle, *pair = (ends[1] - ends[0] for ends in found)
    assert abs(saddle[1]) < 1e-12 < abs(saddle[0])
    # The eigenvectors of the pair are (1, -+i): real and imaginary part are at right angles.
    assert abs(pair[0] @ pair[1]) < 1e-12 < np.linalg.norm(pair[0]) * np.linalg.norm(pair[1])
    assert len(segments(ssntk.plot.fixed_points(dataclasses.replace(network, n_unstable=np.zeros(3, int))))) == 0


def test_what_leaves_the_plane_is_short(network):
    """A direction at right angles to the plane has no length in it."""
    away = dataclasses.replace(network, jacobian=np.array([np.diag([-1.0, -2.0, 3.0])] * 3), n_unstable=np.array([1, 0, 0]))
    (ends,) = segments(ssntk.plot.fixed_points(away))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)


def test_three_dimensions(network):
    ax = ssntk.plot.fixed_points(network, dims=3)
    assert ax.get_zlabel().startswith("PC 3")
    given = plt.figure().add_subplot(projection="3d")
    assert ssntk.plot.fixed_points(network, dims=3, ax=given) is given


def test_points_on_the_border_and_an_empty_result(network):
    border = dataclasses.replace(network, stable=np.zeros(3, bool), n_unstable=np.array([0, 1, 7]))
    drawn = labelled(ssntk.plot.fixed_points(border))
    assert list(drawn) == ["on the border of stability (1)", "1 unstable direction (1)", "4 or more unstable directions (1)"]
    none = points(np.zeros((0, 3)), np.zeros((0, 3, 3)))
    assert ssntk.plot.fixed_points(none).get_title() == "no fixed point was found"
    assert "no fixed point was found" in labelled(ssntk.plot.fixed_points(none, trajectories=np.eye(3)))
    # A single point has a picture too, in any units. Its variance is zero, so that no shares are shown.
    one = points([[1e-12, 0.0, 0.0]], [-np.eye(3)])
    ax = ssntk.plot.fixed_points(one)
    assert ax.get_xlabel() == "principal component 1"
    assert np.ptp(ax.get_xlim()) > 0


CUBIC = ssntk.VectorField(lambda t, x, u, p: p * x - x**3, jnp.asarray(1.0), 1)


def test_one_state_shows_its_field_and_where_it_leads():
    fp = points([[-1.0], [1.0], [0.0]], [[[-2.0]], [[-2.0]], [[1.0]]])
    ax = ssntk.plot.fixed_points(fp, CUBIC)
    field = next(line for line in ax.get_lines() if np.size(line.get_xdata()) > 100)
    x, f = field.get_data()
    np.testing.assert_allclose(f, x - x**3, atol=1e-12)
    right, left = (next(line for line in ax.get_lines() if line.get_marker() == marker) for marker in "><")
    assert len(right.get_xdata()) == len(left.get_xdata()) == 2
    assert (np.sign(right.get_xdata()) == [-1, 1]).all()
    assert right.get_xdata()[0] < -1 < left.get_xdata()[0] < 0 < right.get_xdata()[1] < 1 < left.get_xdata()[1]
    drawn = labelled(ax)
    np.testing.assert_array_equal(drawn["stable (2)"].get_data(), [[-1, 1], [0, 0]])
    # Without the model there are only the points.
    assert len(ssntk.plot.fixed_points(fp).get_lines()) == 3


def test_one_state_of_a_map_shows_what_a_step_adds():
    fp = dataclasses.replace(points([[0.0]], [[[1.0]]]), dt=0.5)
    ax = ssntk.plot.fixed_points(fp, ssntk.EulerMap(CUBIC, 0.5), trajectories=[[-2.0], [2.0]])
    x, step = next(line for line in ax.get_lines() if np.size(line.get_xdata()) > 100).get_data()
    np.testing.assert_allclose(step, 0.5 * (x - x**3), atol=1e-12)
    assert ax.get_ylabel() == "$F(x) - x$"
    # As wide as the trajectory.
    assert x.min() < -2 < 2 < x.max()


def field(t, x, u, p):
    return jnp.stack([p * x[0] - x[0] ** 3 - u[0], -1e3 * x[0] - x[1]])


FLOW = ssntk.VectorField(field, jnp.asarray(1.0), 2, 1)
SQUARE = points([[-1.0, 1e3], [1.0, -1e3], [0.0, 0.0]], [[[-2, 0], [-1e3, -1]], [[-2, 0], [-1e3, -1]], [[1, 0], [-1e3, -1]]])


def nullclines(ax):
    """Vertices of each contour."""
    found = [c for c in ax.collections if type(c).__name__ == "QuadContourSet"]
    return [np.concatenate([path.vertices for path in one.get_paths()]) for one in found]


def test_two_states_of_a_flow_have_nullclines_and_streamlines():
    """f0 is zero at x0 = -1, 0, 1, and f1 at x1 = -1000 x0: the states have different sizes."""
    ax = ssntk.plot.fixed_points(SQUARE, FLOW)
    first, second = nullclines(ax)
    # A grid of 120 points and linear interpolation in it: a cell is 0.022 wide.
    assert np.abs(first[:, 0, None] - [-1.0, 0.0, 1.0]).min(axis=1).max() < 1e-3
    np.testing.assert_allclose(second[:, 1], -1e3 * second[:, 0], atol=1e-6)
    assert any(isinstance(one, LineCollection) for one in ax.collections)
    assert not any(isinstance(one, Quiver) for one in ax.collections)
    # The unstable direction of the saddle is (1, -500). Its line has the usual length, whatever the units.
    (ends,) = segments(ax)
    along = ends[1] - ends[0]
    assert along[1] / along[0] == pytest.approx(-500)
    assert max(np.abs(along) / [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())]) == pytest.approx(0.16)


def test_the_input_of_the_points_moves_the_nullclines():
    """x0 - x0^3 = 3 has a single root, -1.6717 (Cardano)."""
    ax = ssntk.plot.fixed_points(SQUARE, FLOW, u=[3.0], trajectories=[[-2.0, 1e3], [2.0, -1e3]])
    first, _ = nullclines(ax)
    np.testing.assert_allclose(first[:, 0], -1.6717, atol=2e-3)


def test_two_states_of_a_map_have_arrows_of_what_a_step_adds():
    ax = ssntk.plot.fixed_points(dataclasses.replace(SQUARE, dt=0.1), ssntk.EulerMap(FLOW, 0.1))
    (arrows,) = (one for one in ax.collections if isinstance(one, Quiver))
    x = np.asarray(arrows.X), np.asarray(arrows.Y)
    step = 0.1 * (x[0] - x[0] ** 3), 0.1 * (-1e3 * x[0] - x[1])
    shown = np.asarray(arrows.U).ravel(), np.asarray(arrows.V).ravel()
    ratio = shown[0][np.abs(step[0]) > 1e-6] / step[0][np.abs(step[0]) > 1e-6]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    np.testing.assert_allclose(shown[1], ratio[0] * step[1], rtol=1e-9, atol=1e-9)
    assert len(nullclines(ax)) == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"fp": "points"}, "fp must be an ssntk.FixedPoints, got str"),
        ({"dims": 3}, "dims must be 2 for states of 2 dimensions, got 3"),
        ({"dims": 1}, "dims must be 2 "),
        ({"dims": True}, "dims must be 2 "),
        ({"dims": "2"}, "dims must be 2 "),
        ({"trajectories": np.zeros((4, 3))}, r"trajectories must have shape \(B, T, 2\) or \(T, 2\), got \(4, 3\)"),
        ({"trajectories": [[np.nan, 0.0]]}, "trajectories must be finite"),
        ({"model": CUBIC}, "model must have the 2 states of the fixed points, got 1"),
        ({"model": "net"}, "model must be"),
        ({"model": FLOW, "u": [1.0, 2.0]}, "u must have shape"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(how, message, compilations):
    with pytest.raises(ValueError, match=message):
        ssntk.plot.fixed_points(**{"fp": SQUARE} | how)
    assert not compilations
    assert plt.get_fignums() == []


def test_a_flat_axis_does_not_serve_for_three_dimensions(network):
    with pytest.raises(ValueError, match='ax must have projection="3d"'):
        ssntk.plot.fixed_points(network, dims=3, ax=plt.figure().add_subplot())
