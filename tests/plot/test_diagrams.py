"""Diagrams of branches made by hand, and how they are labelled. Compiles nothing."""

import dataclasses
import pickle

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssntk

MU = np.linspace(0.0, 4.0, 41)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def event(kind, parameter, x, criticality=None, outputs=None):
    x = np.asarray(x, float)
    return ssntk.Bifurcation(
        kind, parameter, x, 0.0, x, x, 1.0, criticality, 0.0, (parameter, parameter), True, outputs=outputs
    )


def branch(x, events=(), steps=(), outputs=None, parameter=MU, stable=None, **how):
    x = np.asarray(x, float)
    return ssntk.Branch(
        parameter=parameter,
        x=x,
        eigenvalues=np.full(x.shape, -1.0 + 0j),
        stable=np.ones(len(x), bool) if stable is None else stable,
        bifurcations=tuple(events),
        unresolved=(),
        status="left the span",
        tangent=np.zeros((len(x), x.shape[1] + 1)),
        steps=tuple(steps),
        outputs=outputs,
        **how,
    )


@pytest.fixture
def pitchfork():
    """Half of x1 = +- sqrt(mu), from its bifurcation on, with x0 = 3 mu; the readout is (x1 / 2, 7)."""
    x = np.stack([3 * MU, np.sqrt(MU)], axis=1)
    outputs = np.stack([np.sqrt(MU) / 2, np.full(len(MU), 7.0)], axis=1)
    at = event("pitchfork", 0.0, [0.0, 0.0], "subcritical", np.array([0.0, 7.0]))
    return branch(x, [at], [0], outputs, has_readout=True)


def line(ax, label):
    (found,) = (line for line in ax.get_lines() if line.get_label() == label)
    return found


@pytest.mark.parametrize(
    ("y", "of", "label"),
    [
        (None, lambda mu: np.sqrt(mu) / 2, "output 0"),
        ("output 0", lambda mu: np.sqrt(mu) / 2, "output 0"),
        ("output 1", lambda mu: 7 + 0 * mu, "output 1"),
        (0, lambda mu: 3 * mu, "state 0"),
        (np.int64(1), np.sqrt, "state 1"),
        ("norm", lambda mu: np.sqrt(9 * mu**2 + mu), "norm of the state $|x|$"),
        (lambda x: x[0] - x[1], lambda mu: 3 * mu - np.sqrt(mu), "y(x)"),
        (np.sum, lambda mu: 3 * mu + np.sqrt(mu), "sum"),
    ],
)
def test_the_ordinate_that_is_asked_for(pitchfork, y, of, label):
    ax = ssntk.plot.bifurcation_diagram(pitchfork, y=y)
    assert ax.get_ylabel() == label
    mu, height = line(ax, "stable").get_data()
    np.testing.assert_allclose(height, of(np.asarray(mu)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(line(ax, "Pitchfork, subcritical").get_data(), [[0.0], [of(0.0)]], atol=1e-12)


def test_without_a_readout_the_first_state_is_shown(pitchfork):
    bare = dataclasses.replace(pitchfork, outputs=pitchfork.x, has_readout=False)
    assert ssntk.plot.bifurcation_diagram(bare).get_ylabel() == "state 0"
    older = dataclasses.replace(pitchfork, outputs=None, has_readout=False)
    ax = ssntk.plot.bifurcation_diagram(pickle.loads(pickle.dumps(older)))
    assert ax.get_ylabel() == "state 0"
    with pytest.raises(ValueError, match=r"y must be a state's index from 0 to 1, 'norm', .*, got 'output 0'"):
        ssntk.plot.bifurcation_diagram(older, y="output 0")
    one = branch(np.sqrt(MU)[:, None])
    for y in (None, "principal"):
        assert ssntk.plot.bifurcation_diagram(one, y=y).get_ylabel() == "state $x$"


def test_the_principal_direction_removes_the_linear_trend_and_stays_available(pitchfork):
    """The residual of the regression of (3 mu, sqrt(mu)) on mu lies along x1 only."""
    ax = ssntk.plot.bifurcation_diagram(pitchfork, y="principal")
    assert ax.get_ylabel() == "state (first principal\ncomponent, linear\ntrend in p removed)"
    np.testing.assert_allclose(line(ax, "stable").get_ydata(), np.append(0, np.sqrt(MU)) - np.sqrt(MU).mean(), atol=1e-12)


@pytest.mark.parametrize("y", ["output 2", "output", "output -1", "x", "", 2, -1, 1.0, True, [0], np.zeros(2), b"norm"])
def test_an_unknown_ordinate_is_refused_by_name(pitchfork, y, compilations):
    with pytest.raises(ValueError, match=r"y must be a state's index from 0 to 1, 'output 0' to 'output 1', 'norm', 'prin"):
        ssntk.plot.bifurcation_diagram(pitchfork, y=y)
    assert not compilations
    # Nothing was drawn, and no figure was left open.
    assert plt.get_fignums() == []


@pytest.mark.parametrize("bad", [lambda x: x, lambda x: "high", lambda x: 1j, lambda x: None])
def test_a_function_that_returns_no_number_is_refused(pitchfork, bad):
    with pytest.raises(ValueError, match="y must return a real number"):
        ssntk.plot.bifurcation_diagram(pitchfork, y=bad)


def test_supercritical_points_are_filled_and_subcritical_ones_open():
    kinds = ("hopf", "pitchfork", "flip", "neimark-sacker")
    names = ("Hopf", "Pitchfork", "Flip", "Neimark-Sacker")
    for kind, name in zip(kinds, names, strict=True):
        events = [event(kind, 1.0, [1.0], "supercritical"), event(kind, 2.0, [2.0], "subcritical"), event(kind, 3.0, [3.0])]
        ax = ssntk.plot.bifurcation_diagram(branch(MU[:, None], events, [10, 20, 30]))
        above, below = (line(ax, f"{name}, {which}critical") for which in ("super", "sub"))
        np.testing.assert_array_equal(above.get_data(), [[1.0], [1.0]])
        np.testing.assert_array_equal(below.get_data(), [[2.0], [2.0]])
        assert above.get_markerfacecolor() == below.get_markeredgecolor() != "white" == below.get_markerfacecolor()
        assert above.get_fillstyle() == "full"
        assert line(ax, f"{name}, criticality not known").get_fillstyle() == "left"
    for kind, name in (("saddle-node", "Saddle-node"), ("transcritical", "Transcritical")):
        ax = ssntk.plot.bifurcation_diagram(branch(MU[:, None], [event(kind, 1.0, [1.0])], [10]))
        marker = line(ax, name)
        assert marker.get_fillstyle() == "full"
        assert marker.get_markerfacecolor() != "white"


def test_an_event_without_outputs_has_no_place_among_outputs(pitchfork):
    """For example a line of equilibria, which lies on no branch, has no outputs."""
    both = dataclasses.replace(pitchfork, unresolved=(event("degenerate", 1.0, [3.0, 1.0]),))
    assert np.isnan(line(ssntk.plot.bifurcation_diagram(both), "Degenerate").get_ydata()).all()
    np.testing.assert_array_equal(line(ssntk.plot.bifurcation_diagram(both, y=0), "Degenerate").get_data(), [[1.0], [3.0]])


def test_a_users_own_event_has_its_own_name():
    ax = ssntk.plot.bifurcation_diagram(branch(MU[:, None], [event("x = $1", 1.0, [1.0])], [10]))
    assert r"x = \$1" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    "shape", [lambda p: p**0, lambda p: p, lambda p: -p, lambda p: np.sin(9 * p), lambda p: np.exp(2 * p)]
)
def test_the_legend_covers_no_line_and_no_marker(shape):
    """This holds for every shape, in a figure of one column. No text is smaller than 7 pt."""
    with ssntk.plot.style("paper"):
        events = [event("hopf", p, [shape(p)], which) for p, which in ((0.5, "subcritical"), (3.9, "supercritical"))]
        stable = (MU > 0.5) & (MU < 3.9)
        ax = ssntk.plot.bifurcation_diagram(branch(shape(MU)[:, None], events, [5, 38], stable=stable))
        ax.figure.draw_without_rendering()
        box = ax.get_legend().get_window_extent()
        fine = np.linspace(0.0, 4.0, 4001)
        drawn = ax.transData.transform(np.stack([fine, np.interp(fine, MU, shape(MU))], axis=1))
        assert not box.count_contains(drawn)
        inside = ax.get_window_extent()
        assert inside.count_contains(drawn) > 3900
        texts = [*ax.get_legend().get_texts(), *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]
        assert min(text.get_fontsize() for text in texts) >= 7


def test_what_is_drawn_after_the_legend_is_still_seen():
    ax = ssntk.plot.bifurcation_diagram(branch(np.sin(20 * MU)[:, None]))
    ax.plot([1.0], [50.0], "o")
    assert ax.get_ylim()[1] > 50


def test_tab_offers_plots_alone():
    assert dir(ssntk.plot) == ssntk.plot.__all__
    assert all(callable(getattr(ssntk.plot, name)) for name in dir(ssntk.plot))
    assert not {"np", "plt", "Any", "Axes", "Branch"} & set(dir(ssntk.plot))
    assert ssntk.plot.plt is plt


@pytest.mark.parametrize("y", [None, "norm", "principal"])
def test_a_branch_without_points_is_drawn_empty(y):
    """An ensemble has such a branch for a member without an equilibrium."""
    assert not ssntk.plot.bifurcation_diagram(branch(np.zeros((0, 3)), parameter=np.zeros(0)), y=y).get_lines()


def test_what_is_no_diagram_is_refused_by_name():
    with pytest.raises(ValueError, match=r"an ssntk.Branch or an ssntk.CycleBranch, got list"):
        ssntk.plot.bifurcation_diagram([branch(MU[:, None])])
    with pytest.raises(ValueError, match="diagram must hold a branch to draw, got none: lines of equilibria were found"):
        ssntk.plot.bifurcation_diagram(ssntk.Diagram((), (), (), "lines of equilibria were found, which are not followed"))
    assert plt.get_fignums() == []
