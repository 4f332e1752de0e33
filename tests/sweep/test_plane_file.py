"""Diagrams over two parameters from TOML files and the command line. Compiled: one of a network of one unit."""

import numpy as np
import pytest
from command_line import run_here

import ssntk

PLANE = """
factory = "saturating:make"

[plane]
n_slices = 2
n_searches = 3
n_starts = 16
kernel = [4, 2]
quantity = "top"

[plane.first]
input = {direction = [1.0]}
span = [-1.0, 1.0]

[plane.second]
attribute = "gain"
span = [0.2, 2.2]
"""
NETWORKS = """
import ssntk

def make(key):
    return ssntk.CTRNN.from_weights([[1.0]], [[1.0]])
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("saturating.py").write_text(NETWORKS)
    tmp_path.joinpath("plane.toml").write_text(PLANE)
    return tmp_path / "plane.toml"


def test_a_file_becomes_a_figure_a_table_and_numbers(file):
    xarray = pytest.importorskip("xarray")
    code, said = run_here("diagram", "plane.toml")
    assert code == 0, said
    assert "1 curve, 1 point of codimension two, regions with 1 or 2 stable fixed points" in " ".join(said.split())
    folder = file.parent / "results" / "plane"
    assert folder.joinpath("diagram.png").read_bytes().startswith(b"\x89PNG")
    diagram = ssntk.load(folder / "diagram.npz")
    # x = g tanh x + p is degenerate at 1 = g sech(x)^2, with a cusp at p = 0, g = 1.
    (curve,) = diagram.curves
    p, g = curve.parameters.T
    np.testing.assert_allclose(g, np.cosh(curve.x[:, 0]) ** 2, rtol=1e-11)
    np.testing.assert_allclose(p, curve.x[:, 0] - g * np.tanh(curve.x[:, 0]), atol=1e-11)
    (point,) = diagram.points
    assert point.kind == "cusp"
    np.testing.assert_allclose(point.parameters, [0, 1], atol=1e-9)
    assert point.kind in said
    assert diagram.names == ("input 0", "gain")
    # The middle lines are among them.
    assert len(diagram.slices) == 4
    np.testing.assert_allclose([value for _, value in diagram.lines], [0.2 + 2 / 6, 1.2, -1 + 2 / 6, 0.0], atol=1e-15)
    data = xarray.load_dataset(folder / "diagram.nc")
    np.testing.assert_array_equal(data["parameters"], curve.parameters)
    # At x = g tanh x + p, with theta the weight, the input's weight and the bias: F = (g tanh x, p, 1), tau = 1.
    found = diagram.kernel
    np.testing.assert_allclose(found.p2, [0.7, 1.7])
    p, g = found.p1[:, None], found.p2
    slope = g / np.cosh(found.x[..., 0]) ** 2 - 1
    assert (slope < 0).all()
    np.testing.assert_allclose(found.top, ((found.x[..., 0] - p) ** 2 + p**2 + 1) / slope**2, rtol=1e-9)
    np.testing.assert_array_equal(data["kernel_top"], found.top)
    np.testing.assert_array_equal(data["region_n_stable"], [region.n_stable for region in diagram.regions])


def test_a_page_holds_the_figure_and_the_tables(file):
    code, said = run_here("diagram", "plane.toml", "--out", "page.html")
    assert code == 0, said
    page = file.parent.joinpath("page.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "All curves" in page
    assert ">Curve 0<" in page
    assert "<td>cusp</td>" in page
    assert "http://" not in page
    assert "https://" not in page


def test_every_key_of_the_schema_is_known(file):
    from ssntk.sweep.plane_file import SCHEMA, read_plane

    code, said = run_here("diagram", "--schema")
    assert code == 0
    assert said.endswith(SCHEMA)
    lines = (line.removeprefix("# ") for line in SCHEMA.splitlines()[1:])
    file.write_text('factory = "saturating:make"\n' + "\n".join(lines))
    plane, arguments, drawn = read_plane(file)
    assert plane.first.moves == "attribute"
    assert plane.second.moves == "input"
    assert arguments["n_starts"] == 128
    assert [tuple(span) for span in arguments["spans"]] == [(0.5, 2.0), (-1.0, 1.0)]
    assert arguments["kernel"] == [24, 24]
    assert drawn == {"labels": ["gain", "bias"], "quantity": "top"}


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"span = [-1.0, 1.0]": ""}, (), "the key plane.first.span is missing"),
        ({"[plane.second]": "[plane.secnd]"}, (), "unknown key plane.secnd; did you mean plane.second?"),
        ({'attribute = "gain"': 'attribut = "gain"'}, (), "unknown key plane.second.attribut"),
        ({'attribute = "gain"': 'attribute = "gian"'}, (), "attribute 'gian' is not one of CTRNN"),
        ({'attribute = "gain"': ""}, (), "[plane.second] must hold exactly one of attribute, input, line"),
        ({'attribute = "gain"': "input = {direction = [2.0]}"}, (), "plane.second must move another parameter than plane.f"),
        ({"direction = [1.0]": "offset = [1.0]"}, (), "the key plane.first.input.direction is missing"),
        ({"span = [0.2, 2.2]": "span = [0.2]"}, (), "plane.second.span must have shape (2,)"),
        ({"span = [0.2, 2.2]": "span = [0.2, 0.2]"}, (), "plane.second.span must not be empty"),
        ({"n_slices = 2": "n_slice = 2"}, (), "unknown key plane.n_slice; did you mean plane.n_slices?"),
        ({"n_slices = 2": "n_slices = 0"}, (), "n_slices must be"),
        ({"n_slices = 2": "seed = -1"}, (), "plane.seed must be"),
        ({"kernel = [4, 2]": "kernel = [4, 0]"}, (), "kernel must be"),
        ({'quantity = "top"': 'quantity = "trace"'}, (), "plane.quantity must be one of 'participation_ratio', 'top'"),
        ({"n_slices = 2": 'labels = ["gain"]'}, (), "plane.labels must be two texts"),
        ({"[plane]": "[family]\nattribute = 'gain'\n[plane]"}, (), "unknown key family"),
        ({"[plane]": "[diagram]\nspan = [0.0, 1.0]\n[plane]"}, (), "one of the tables [diagram] and [plane], not both"),
        ({'factory = "saturating:make"': ""}, (), "the table [model] is missing"),
        ({}, ("--parameter", "gain"), "--parameter, --span and --cycles are for [diagram]"),
        ({}, ("--cycles",), "--parameter, --span and --cycles are for [diagram]"),
        ({}, ("--out", "figure.gif"), "a figure must end in .png, .svg or .pdf"),
    ],
)
def test_mistakes_are_named_before_anything_is_computed(file, monkeypatch, change, arguments, said):
    from ssntk.diagrams import planes

    monkeypatch.setattr(planes, "_lines", None)
    text = PLANE
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    code, printed = run_here("diagram", "plane.toml", *arguments)
    assert code == 2, printed
    assert said in printed


def test_a_sweep_of_a_planes_file_is_refused(file):
    code, said = run_here("sweep", "plane.toml")
    assert code == 2
    assert "a file with [plane] is no sweep: `ssntk diagram` draws it" in said
