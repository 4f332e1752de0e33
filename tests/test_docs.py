"""The documentation: its code runs, the numbers and messages in it are right, and its site builds without a network."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

import ssntk

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FIGURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def name(path):
    return str(path.relative_to(DOCS))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


# Run pages one after the other in one process, which shares imports and compiled code, each in its own folder and namespace.
RUNNER = """
import contextlib, io, json, os, sys, traceback
import jax
import matplotlib.pyplot as plt

for line in sys.stdin:
    folder, code = json.loads(line)
    os.chdir(folder)
    jax.config.update("jax_enable_x64", False)
    printed, failure = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, folder, "exec"), {"__name__": "__main__"})
        except BaseException:
            failure = traceback.format_exc()
    plt.close("all")
    print(json.dumps([printed.getvalue(), failure]), flush=True)
"""
RUNNABLE = [page for page in PAGES if blocks(page, "python")]
# Pages that take from a quarter of a minute to minutes. Their code runs with -m slow.
LONG = {"limit_cycles.md", "two_parameters.md", "bifurcations.md", "models.md", "extending.md"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each page prints, and the error in which it ends, if any."""
    return run([page for page in RUNNABLE if name(page) not in LONG], tmp_path_factory)


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory):
    """The same of the pages that take long."""
    return run([page for page in RUNNABLE if name(page) in LONG], tmp_path_factory)


def run(pages, tmp_path_factory):
    asked = []
    for page in pages:
        folder = tmp_path_factory.mktemp("docs") / name(page)
        folder.mkdir(parents=True)
        # The files that the page says to write.
        for block in blocks(page, "toml"):
            file = re.match(r"# (\w+\.toml)\n", block)
            if file:
                (folder / file.group(1)).write_text(block)
        asked.append(json.dumps([str(folder), "\n".join(blocks(page, "python"))]))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1", "EQX_ON_ERROR": "off"},
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(pages, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("page", [page for page in RUNNABLE if name(page) not in LONG], ids=name)
def test_the_python_of_a_page_runs(page, runs):
    assert runs[page][1] == ""


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if name(page) in LONG], ids=name)
def test_the_python_of_a_long_page_runs(page, long_runs):
    assert long_runs[page][1] == ""


def test_the_first_sweep_says_what_the_tutorial_says(runs):
    page = DOCS / "tutorials" / "sweep.md"
    printed, text = runs[page][0], page.read_text()
    slope, far, near = re.search(r"slope (-[\d.]+)\nparticipation ratio ([\d.]+) far, ([\d.]+) near", printed).groups()
    assert f"slope is {slope}," in text
    assert f"from {far} at distance 1 to {near} at 1e-5" in text


def masked(text):
    """Lines without their numbers, since the last digits and the widths of numbers differ between machines."""
    return [" ".join(re.sub(r"-?\d[\d.e+-]*", "#", line).split()) for line in text.splitlines()]


@pytest.mark.parametrize(("shows", "count"), [("results.md", 3), ("from_pytorch.md", 14), ("relu_networks.md", 7)])
def test_results_print_what_their_page_shows(shows, count, runs):
    page = DOCS / shows
    printed = "\n".join(masked(runs[page][0]))
    shown = blocks(page, "text")
    assert [block for block in shown if "\n".join(masked(block)) not in printed] == []
    assert len(shown) == count


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_fragment_says_why_it_does_not_run(page):
    for block in blocks(page, "py"):
        assert block.startswith("# A fragment: "), block


@pytest.mark.parametrize("page", [page for page in PAGES if FIGURE.search(page.read_text())], ids=name)
def test_a_figure_exists_and_the_line_under_it_says_what_draws_it(page):
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        for figure in FIGURE.findall(line):
            assert (page.parent / figure).resolve().is_file()
            caption = next(below for below in lines[number + 1 :] if below)
            script, sweep = (
                re.search(pattern, caption) for pattern in (r"`python (\w+/\w+\.py)", r"`ssntk sweep (sweeps/\w+\.toml)")
            )
            assert (ROOT / (script or sweep).group(1)).is_file()


def test_no_figure_is_left_over():
    shown = "".join(page.read_text() for page in (*PAGES, ROOT / "README.md"))
    assert [figure.name for figure in DOCS.rglob("*.png") if figure.name not in shown] == []


def said(node):
    """The text of a string in the sources, with an ellipsis for each value that is put in; `None` for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        # Treat fields of `format` like those of an f-string.
        return re.sub(r"\{\w*(?:[.!:\[][^{}]*)?\}", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        sides = said(node.left), said(node.right)
        return None if sides == (None, None) else "".join(side or "…" for side in sides)
    return None


def test_every_message_that_the_page_of_failures_quotes_is_in_the_sources():
    nodes = (node for path in (ROOT / "ssntk").rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    # Two values in a row look like one.
    sources = "\n".join(re.sub("…+", "…", text) for text in map(said, nodes) if text)
    quoted = re.findall(r"^### `(.*)`$", (DOCS / "faq.md").read_text(), re.M)
    assert len(quoted) > 20
    assert [message for message in quoted if message not in sources] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            # The site can only be built with its generator, which ssntk[dev] brings.
            pytest.skip(f"{module} is not installed: install ssntk[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ".ci/mkdocs.yml", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        # The theme announces another generator. That is not a warning about this build.
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


def test_the_site_builds_and_asks_nothing_of_the_network(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^\s>]*", page.read_text())
        fetched += [
            link
            for link in re.findall(r"<link\b[^>]*>", page.read_text())
            if re.search(r"href=\"?(?:https?:)?//", link) and "canonical" not in link
        ]
        assert fetched == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\"?(?:https?:)?//|@import", sheet.read_text()), sheet


def test_formulas_became_mathml(site):
    page = (site / "concepts" / "index.html").read_text()
    assert page.count("<math") > 80
    assert "$" not in re.sub(r"<(script|code)\b.*?</\1>", "", page, flags=re.S)


def test_every_public_name_is_in_the_reference(site):
    pages = "".join(page.read_text() for page in (site / "api").rglob("*.html"))
    assert [one for one in ssntk.__all__ if f'id="ssntk.{one}"' not in pages] == []


def test_the_links_of_the_readme_lead_somewhere(site):
    for page, anchor in re.findall(r"\]\(docs/(\w+)\.md(?:#([\w-]+))?\)", (ROOT / "README.md").read_text()):
        built = site / ("index.html" if page == "index" else f"{page}/index.html")
        assert built.is_file()
        assert not anchor or f'id="{anchor}"' in built.read_text(), f"{page}#{anchor}"
