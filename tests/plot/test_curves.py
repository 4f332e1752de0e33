"""Pictures of curves over two parameters. Compiles nothing: the curves are written down."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssntk
from ssntk.diagrams.two_parameters import Region, TwoParameterDiagram

SPANS = np.array([[-1.0, 1.0], [-1.0, 1.0]])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def curve(kind, parameters, frequency=0.0, other=-1.0, points=()):
    """A curve of a flow, with one eigenvalue besides the critical ones."""
    parameters = np.asarray(parameters, float)
    k = len(parameters)
    frequency = np.broadcast_to(np.asarray(frequency, float), (k,))
    critical = [1j * frequency, -1j * frequency] if kind in ("hopf", "neimark-sacker") else [0 * frequency]
    eigenvalues = np.stack([*critical, np.broadcast_to(np.asarray(other, float), (k,))], axis=1).astype(complex)
    nothing = np.zeros((k, eigenvalues.shape[1]))
    return ssntk.Curve(kind, parameters, nothing, frequency, np.ones(k), eigenvalues, points, (), False, "ended", None)


def point(kind, parameters):
    return ssntk.Codim2(kind, np.asarray(parameters, float), np.zeros(3), 0.0, np.zeros(3, complex), {}, True)


def diagram(curves, points=(), regions=(), names=("gain", "bias")):
    own = tuple((0,) for _ in points)
    return TwoParameterDiagram(
        tuple(curves), tuple(points), own, (), tuple(regions), "ended", SPANS, names, (), (), plane=None
    )


ACROSS = np.stack([np.linspace(-1, 1, 41), np.zeros(41)], axis=1)


def boxes(ax):
    ax.figure.draw_without_rendering()
    return {text: text.get_window_extent() for text in ax.texts}


def test_kinds_differ_in_colour_and_in_dashes():
    lines = [curve(kind, ACROSS + np.array([0, 0.1 * i])) for i, kind in enumerate(("saddle-node", "flip"))]
    lines += [curve(kind, ACROSS - np.array([0, 0.1 * i]), 1.0) for i, kind in ((1, "hopf"), (2, "neimark-sacker"))]
    ax = ssntk.plot.bifurcation_curves(lines)
    drawn = [line for line in ax.get_lines() if len(line.get_xdata())]
    assert len(drawn) == 4
    dashes = [str(line._unscaled_dash_pattern) for line in drawn]
    assert len(set(dashes)) == 4
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"Saddle-node", "Flip", "Neimark-Sacker", "Hopf"}
    one, other = (next(line for line in drawn if line.get_ydata()[0] == y) for y in (0.0, -0.1))
    assert one.get_color() != other.get_color()


def test_neutral_saddles_are_thin_and_dotted():
    line = curve("hopf", ACROSS, frequency=np.sqrt(np.maximum(-ACROSS[:, 0], 0)))
    ax = ssntk.plot.bifurcation_curves(line)
    looks = {one.get_linestyle(): one for one in ax.get_lines()}
    assert looks[":"].get_xdata().min() == pytest.approx(0)
    assert looks["--"].get_xdata().max() == pytest.approx(0)
    assert looks[":"].get_linewidth() < looks["--"].get_linewidth()
    assert "neutral saddles" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_bifurcations_of_unstable_points_are_thin():
    ax = ssntk.plot.bifurcation_curves(curve("saddle-node", ACROSS, other=ACROSS[:, 0] - 0.01))
    left, right = sorted(ax.get_lines(), key=lambda line: line.get_xdata()[0])
    assert left.get_linewidth() == 2 * right.get_linewidth()
    assert right.get_xdata()[0] == pytest.approx(left.get_xdata()[-1])
    assert abs(right.get_xdata()[0]) <= 0.06


def test_points_have_short_labels_and_shared_points_have_one():
    points = [point("cusp", (-0.5, 0.0)), point("bogdanov-takens", (0.5, 0.0)), point("bogdanov-takens", (0.5, 0.0))]
    lines = [curve("saddle-node", ACROSS, points=tuple(points[:2]))]
    lines.append(curve("hopf", ACROSS[20:], 1.0, points=tuple(points[2:])))
    ax = ssntk.plot.bifurcation_curves(lines)
    assert sorted(text.get_text() for text in ax.texts) == ["BT", "CP"]


def test_labels_of_points_that_lie_together_share_a_line():
    points = [point("cusp", (0.0, 0.0)), point("bogdanov-takens", (0.001, 0.001)), point("zero-hopf", (0.7, 0.0))]
    ax = diagram([curve("saddle-node", ACROSS)], points).plot()
    assert sorted(text.get_text() for text in ax.texts) == ["CP, BT", "ZH"]


def test_texts_cover_neither_each_other_nor_lines():
    places = [(-0.6, 0.0), (-0.45, 0.0), (0.2, 0.0), (0.3, 0.0), (0.99, 0.0)]
    regions = [Region(np.array([0.25, 0.5]), 2, 0.4), Region(np.array([0.0, -0.5]), 1, 0.4, sure=False)]
    points = [point("generalised-hopf", place) for place in places]
    with ssntk.plot.style("paper"):
        ax = diagram([curve("hopf", ACROSS, 1.0)], points, regions).plot()
        found = boxes(ax)
    assert sorted(text.get_text() for text in found) == ["1?", "2", "GH", "GH", "GH", "GH", "GH"]
    for one, other in itertools.combinations(found.values(), 2):
        assert not one.overlaps(other)
    line = ax.transData.transform(np.stack([np.linspace(-1, 1, 4001), np.zeros(4001)], axis=1))
    frame = ax.get_window_extent()
    for box in found.values():
        assert not any(box.contains(*place) for place in line)
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


def test_where_labels_have_no_room_the_legend_names_the_markers():
    rng = np.random.default_rng(0)
    kinds = ("cusp", "bogdanov-takens", "generalised-hopf")
    points = [point(kinds[i % 3], place) for i, place in enumerate(rng.uniform(-0.3, 0.3, (60, 2)))]
    regions = [Region(np.array([0.7, 0.7]), 2, 0.2)]
    with ssntk.plot.style("paper"):
        ax = diagram([curve("hopf", ACROSS, 1.0)], points, regions).plot()
    assert [text.get_text() for text in ax.texts] == ["2"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Hopf", "stable points", "CP", "BT", "GH"]
    markers = [line.get_marker() for line in ax.get_lines() if line.get_gid()]
    assert len(markers) == 60
    assert len(set(markers)) == 3


def test_a_region_too_small_for_its_number_has_none():
    regions = [Region(np.array([0.0, 0.5]), 2, 0.4), Region(np.array([0.0, -0.02]), 3, 0.01)]
    ax = diagram([curve("hopf", ACROSS, 1.0)], (), regions).plot()
    assert [text.get_text() for text in ax.texts] == ["2"]
    assert "stable points" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_axes_have_the_names_and_the_spans_of_the_parameters():
    lines = [curve("saddle-node", ACROSS)]
    ax = diagram(lines).plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("gain", "bias")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-1, 1))
    ax = diagram(lines, names=("p1", "p2")).plot(labels=("input [nA]", r"rate [1 / ms]"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input [nA]", "rate [1 / ms]")
    assert ssntk.plot.bifurcation_curves(lines).get_xlabel() == "parameter $p_1$"
    own = plt.figure().add_subplot()
    assert lines[0].plot(own) is own


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((3,), "diagram must be an ssntk.TwoParameterDiagram"),
        (([3],), "diagram must be"),
        (([],), "diagram must hold a curve to draw, got none"),
        ((diagram([]),), "diagram must hold a curve to draw, got none: ended"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        ssntk.plot.bifurcation_curves(*arguments)
    assert not plt.get_fignums()


@pytest.mark.parametrize("labels", ["ab", ("a",), 3])
def test_labels_come_in_a_pair(labels):
    with pytest.raises(ValueError, match="labels must be a pair of texts"):
        ssntk.plot.bifurcation_curves(curve("saddle-node", ACROSS), labels=labels)
