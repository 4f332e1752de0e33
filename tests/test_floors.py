"""A file imports only from its own folder and from folders on lower floors."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "ssntk"
FLOORS = [
    {"notices", "nouns"},
    {"errors", "files", "hints", "threads"},
    {"compiled", "foreign", "newton", "precision", "silence"},
    {"cache", "results"},
    {"models"},
    {"piecewise"},
    {"dynamics"},
    {"kernel", "zeros"},
    {"infinite"},
    {"bifurcation"},
    {"cycles"},
    {"collapse"},
    {"curves"},
    {"critical", "diagrams"},
    {"learning"},
    {"sweep"},
    {"plot", "report", "saved", "explained"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_lower_floors(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "ssntk" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("ssntk."):
                other = name.split(".")[1]
                assert other == room or FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_only_plot_imports_pyplot_and_only_integrate_solves():
    importers = {str(path.relative_to(PACKAGE)) for path in FILES if "matplotlib.pyplot" in path.read_text()}
    solvers = {str(path.relative_to(PACKAGE)) for path in FILES if "diffeqsolve(" in path.read_text()}
    assert importers == {"plot/canvas.py"}
    assert solvers == {"dynamics/integrate.py"}


# Pairs of files that import each other, and why.
MUTUAL = set()


def _imported(path, modules):
    """The files of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & modules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules


def test_no_two_files_import_each_other():
    modules = {"ssntk." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    imports = {name: _imported(path, modules.keys()) for name, path in modules.items()}
    pairs = {frozenset({one, other}) for one, others in imports.items() for other in others if one in imports[other]}
    assert pairs == MUTUAL


# Files outside of bifurcation/events/ that may contain names of kinds of bifurcation: the laws of each kind, the search for
# the nearest one, and examples of sweep files.
SPELLED = {
    "collapse/laws.py",
    "critical/conditions.py",
    "sweep/toml.py",
}
KINDS = ("saddle-node", "transcritical", "pitchfork", "hopf", "flip", "neimark-sacker")


def _docstrings(tree):
    """The nodes of a syntax tree that are documentation: statements that consist of a string."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def test_kinds_of_bifurcations_are_spelled_in_few_files():
    spelled = set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        said = _docstrings(tree)
        strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said)
        if any(isinstance(node.value, str) and node.value in KINDS for node in strings):
            spelled.add(str(path.relative_to(PACKAGE)))
    spelled = {name for name in spelled if not name.startswith("bifurcation/events/")}
    assert spelled <= SPELLED


def test_only_the_clock_asks_whether_there_is_a_step():
    asking = {
        str(path.relative_to(PACKAGE)) for path in FILES if re.search(r"\bdt is (not )?None|dt or 1", path.read_text())
    }
    # The `dt` of an integrator may be `None` too, which is not a question about a model.
    assert asking == {"models/clock.py", "dynamics/integrate.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = ast.get_docstring(node)
            length = node.end_lineno - node.lineno + 1 - (len(documented.splitlines()) if documented else 0)
            reason = "# Longer than others:" in ast.get_source_segment(text, node)
            assert length <= 60 or reason, f"{node.name} has {length} lines"
