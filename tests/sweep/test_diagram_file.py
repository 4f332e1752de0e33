"""Diagrams from TOML files and the command line. Compiled: a diagram of a normal form with the cycles of its Hopf point, and
of a network of two units."""

import base64
import hashlib
import re

import numpy as np
import pytest
from command_line import run_here

import ssntk

HOPF = """
factory = "forms:make"

[family]
attribute = "mu"

[diagram]
span = [-0.5, 0.5]
n_slices = 3
n_starts = 16
"""
FORMS = "import ssntk\n\ndef make(key):\n    return ssntk.normal_forms.hopf(0.1, 1.0)\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("forms.py").write_text(FORMS)
    tmp_path.joinpath("hopf.toml").write_text(HOPF)
    return tmp_path / "hopf.toml"


def test_a_file_becomes_a_figure_a_table_and_numbers(file):
    xarray = pytest.importorskip("xarray")
    code, said = run_here("diagram", "hopf.toml", "--cycles")
    assert code == 0, said
    assert "1 branch of limit cycles; everything that was seen was followed" in " ".join(said.split())
    folder = file.parent / "results" / "hopf"
    assert folder.joinpath("diagram.png").read_bytes().startswith(b"\x89PNG")
    diagram = ssntk.load(folder / "diagram.npz")
    (cycles,) = diagram.cycles
    assert cycles.begin.kind == "hopf"
    # z' = (mu + i) z - z |z|^2 has cycles of radius sqrt(mu).
    np.testing.assert_allclose(cycles.maximum[:, 0], np.sqrt(cycles.parameter), rtol=1e-3)
    data = xarray.load_dataset(folder / "diagram.nc")
    np.testing.assert_array_equal(data["cycle_period"], cycles.period)
    np.testing.assert_array_equal(data["cycle_maximum"], cycles.maximum)
    np.testing.assert_array_equal(data["parameter"], diagram[0].parameter)
    # The multipliers are complex, and netCDF has no such numbers.
    np.testing.assert_array_equal(data["cycle_multipliers_real"], cycles.multipliers.real)


def test_the_span_and_the_figure_of_the_command_line_replace_those_of_the_file(file):
    code, said = run_here("diagram", "hopf.toml", "--span", "-0.5", "-0.1", "--out", "other.svg")
    assert code == 0, said
    assert "<svg" in file.parent.joinpath("other.svg").read_text()
    diagram = ssntk.load(file.parent / "other.npz")
    assert diagram.cycles == ()
    np.testing.assert_allclose(diagram[0].parameter.max(), -0.1, rtol=1e-12)


def test_a_page_holds_the_figure_and_the_tables(file):
    code, said = run_here("diagram", "hopf.toml", "--cycles", "--out", "page.html")
    assert code == 0, said
    page = file.parent.joinpath("page.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "Limit cycles, branch 0" in page
    assert "everything that was seen was followed" in page
    assert "http://" not in page
    assert "https://" not in page
    # Its style is the one that its policy allows.
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in page


def test_every_key_of_the_schema_is_known(file):
    from ssntk.sweep.diagram_file import SCHEMA, read_diagram

    code, said = run_here("diagram", "--schema")
    assert code == 0
    assert said.startswith(SCHEMA)
    keys = "\n".join(line.removeprefix("# ") for line in SCHEMA.splitlines() if "=" in line)
    file.write_text(HOPF.partition("[diagram]")[0] + "[diagram]\n" + keys)
    _, arguments, drawn = read_diagram(file, None, None)
    assert arguments["n_starts"] == 256
    assert drawn == {"y": 0, "label": "parameter $p$"}


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"span = [-0.5, 0.5]": ""}, (), "the key diagram.span is missing, and no --span is given"),
        ({"n_starts": "n_start"}, (), "unknown key diagram.n_start; did you mean diagram.n_starts?"),
        ({"[family]": "[famly]"}, (), "unknown key famly; did you mean family?"),
        ({"span = [-0.5, 0.5]": "span = [1.0, 1.0]"}, (), "span must not be empty"),
        ({"span = [-0.5, 0.5]": "span = [1.0]"}, (), "diagram.span must have shape (2,)"),
        ({"n_slices = 3": "n_slices = 1"}, (), "n_slices must be"),
        ({}, ("--parameter", "nu"), "attribute 'nu' is not one of Hopf"),
        ({}, ("--out", "figure.gif"), "a figure must end in .png, .svg or .pdf"),
        ({}, ("--out", "nowhere/figure.png"), "nowhere is not a folder"),
    ],
)
def test_mistakes_are_named(file, change, arguments, said):
    text = HOPF
    for old, new in change.items():
        text = text.replace(old, new)
    file.write_text(text)
    code, printed = run_here("diagram", "hopf.toml", *arguments)
    assert code == 2, printed
    assert said in printed


def test_a_sweep_of_a_diagrams_file_is_refused(file):
    code, said = run_here("sweep", "hopf.toml")
    assert code == 2
    assert "`ssntk diagram` draws it" in said
