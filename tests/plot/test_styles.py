"""Sizes, fonts and greys of figures for print. Compiles nothing."""

import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import ssntk
from ssntk.plot.canvas import saved
from ssntk.plot.clipped import clipped


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def pdf(figure):
    file = io.BytesIO()
    figure.savefig(file, format="pdf")
    return file.getvalue()


FLOOR = ssntk.Spectrum.from_jacobian(np.diag(np.arange(1.0, 21.0)))


def figure_of(values=(3.0, 2.0, 1.0), **how):
    with ssntk.plot.style("paper", **how):
        return ssntk.plot.spectrum(values).figure


def test_a_paper_has_columns_of_its_journal():
    np.testing.assert_allclose(figure_of().get_size_inches() * 25.4, [85, 60])
    np.testing.assert_allclose(figure_of(columns=2).get_size_inches() * 25.4, [178, 70])
    np.testing.assert_allclose(figure_of(columns=2, height=100.0).get_size_inches() * 25.4, [178, 100])


@pytest.mark.parametrize("name", ["paper", "slides"])
def test_text_is_large_enough_and_fonts_are_truetype(name):
    """Without the style, matplotlib writes fonts of Type 3, which publishers refuse. The test checks that it sees them."""
    assert b"/Type3" in pdf(ssntk.plot.spectrum(np.array([2.0, 1.0])).figure)
    with ssntk.plot.style(name):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, 1], label="$\\lambda$")
        ax.legend()
        ax.set_title("a title")
        ax.set_xlabel("x")
        figure.suptitle("another")
        written = pdf(figure)
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert b"/Type3" not in written
    assert b"/FontFile2" in written
    assert len(sizes) > 8
    assert min(sizes) >= 7


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_what_the_command_line_saves_has_no_type_3(kind):
    figure = ssntk.plot.spectrum(np.array([2.0, 1.0])).figure
    written = saved(figure, kind)
    assert {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"/FontFile2"}[kind] in written
    assert b"/Type3" not in written
    assert plt.get_fignums() == []


def test_lines_are_told_apart_in_grey():
    """Each line has its own dashes. The first four, which are darker, also differ in lightness."""
    with ssntk.plot.style("paper"):
        lines = [plt.plot([0, 1], [i, i])[0] for i in range(7)]
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 7
    lightness = [np.dot(to_rgb(line.get_color()), [0.2126, 0.7152, 0.0722]) for line in lines[:3]]
    assert min(np.diff(np.sort(lightness))) > 0.05


def test_the_legend_covers_no_horizontal_line():
    """The floor of a spectrum crosses the whole axes, in the largest figure and in the smallest."""
    for figure in (ssntk.plot.spectrum(FLOOR).figure, figure_of(FLOOR)):
        figure.draw_without_rendering()
        (ax,) = figure.axes
        (floor,) = (line for line in ax.get_lines() if line.get_label() == "rounding floor")
        height = ax.transData.transform((1.0, floor.get_ydata()[0]))[1]
        box = ax.get_legend().get_window_extent()
        assert not box.y0 <= height <= box.y1


def test_a_style_ends_with_its_block_and_is_a_dictionary():
    before = dict(matplotlib.rcParams)
    style = ssntk.plot.style("slides")
    with style, style:
        assert matplotlib.rcParams["font.size"] == 18
    with pytest.raises(RuntimeError), style:
        raise RuntimeError

    @style
    def size():
        return matplotlib.rcParams["font.size"]

    assert size() == 18
    with plt.rc_context(style):
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "poster"}, "name must be one of 'paper', 'slides', got 'poster'"),
        ({"name": None}, "name must be one of"),
        ({"name": "paper", "columns": 3}, "columns must be 1 or 2, got 3"),
        ({"name": "paper", "columns": True}, "columns must be 1 or 2, got True"),
        ({"name": "paper", "columns": [1]}, "columns must be 1 or 2"),
        ({"name": "paper", "height": 0.0}, "height must be positive"),
        ({"name": "paper", "height": "tall"}, "height must be an array of real numbers"),
    ],
)
def test_an_unknown_style_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        ssntk.plot.style(**arguments)


def test_what_lies_far_out_is_an_arrow_with_its_number():
    ax = plt.figure().add_subplot()
    x, values = np.arange(5.0), np.array([22.0, 1.0, 0.5, -40.0, -2.0])
    clipped(ax, x, values, (-0.5, 1.5), color="k", label="share")
    line, above, below = ax.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [1.5, 1.0, 0.5, -0.5, -0.5])
    assert (above.get_marker(), below.get_marker()) == ("^", "v")
    np.testing.assert_array_equal(above.get_data(), [[0.0], [1.5]])
    np.testing.assert_array_equal(below.get_data(), [[3.0, 4.0], [-0.5, -0.5]])
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("22", (0.0, 1.5)), ("-40", (3.0, -0.5))]
    # All of it is inside the axes.
    ax.figure.draw_without_rendering()
    for text in ax.texts:
        box = text.get_window_extent()
        assert ax.get_window_extent().y0 < box.y0 < box.y1 < ax.get_window_extent().y1
    inside = plt.figure().add_subplot()
    clipped(inside, x, np.clip(values, -0.5, 1.5), (-0.5, 1.5), color="k")
    assert len(inside.get_lines()) == 1
    assert not inside.texts
