"""One self-contained page of a diagram: its figure, the sentences about it, and tables of its branches or curves."""

import base64
import hashlib
import html
import importlib.resources
import string
from typing import Any

from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.two_parameters import TwoParameterDiagram

PAGE = string.Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '$style_hash'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="ssntk diagram">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body class="diagram">
<header><h1>$title</h1></header>
<main>
<section aria-label="Figure"><img src="data:image/svg+xml;base64,$figure" alt="$alternative"></section>
<section aria-label="In words">$sentences</section>
<section aria-labelledby="all"><h2 id="all">$all</h2>$tables</section>
$parts
</main>
</body>
</html>
""")
# The figure is for paper: its background stays white.
STYLE = """\
.diagram img { max-width: 100%; width: 720px; background: white; border-radius: 6px; padding: 8px; }
.diagram table { border-collapse: collapse; margin: 8px 0 16px; font-variant-numeric: tabular-nums; }
.diagram td, .diagram th { padding: 2px 12px 2px 0; text-align: left; border-bottom: 1px solid var(--line); }
.diagram section { overflow-x: auto; }
"""


def page_of(diagram: Diagram | TwoParameterDiagram, figure: bytes, sentences: str, title: str) -> str:
    """The page of a diagram, with its figure (SVG) and what is said of it. It needs no network, script or other file."""
    style = importlib.resources.files("ssntk.report").joinpath("page.css").read_text(encoding="utf-8") + STYLE
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    several, name, parts = "All branches", "Limit cycles, branch", getattr(diagram, "cycles", ())
    if isinstance(diagram, TwoParameterDiagram):
        several, name, parts = "All curves", "Curve", diagram.curves
    return PAGE.substitute(
        title=html.escape(title),
        alternative=html.escape(f"Bifurcation diagram: {diagram.status}"),
        style=style,
        style_hash=f"sha256-{hashed}",
        figure=base64.b64encode(figure).decode(),
        sentences=f"<p>{html.escape(sentences)}</p>",
        all=several,
        tables=diagram._repr_html_(),
        parts="".join(_section(f"{name} {i}", i, one) for i, one in enumerate(parts)),
    )


def _section(title: str, i: int, part: Any) -> str:
    return f'<section aria-labelledby="c{i}"><h2 id="c{i}">{title}</h2>{part._repr_html_()}</section>\n'
