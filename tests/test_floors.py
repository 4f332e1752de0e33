"""Data flows one way: a file imports only from its own room and from the floors below it."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "ssntk"
FLOORS = [
    {"notices"},
    {"errors", "files", "hints", "threads"},
    {"compiled", "foreign", "newton", "precision", "silence"},
    {"cache", "results"},
    {"models"},
    {"dynamics"},
    {"kernel", "zeros"},
    {"bifurcation"},
    {"collapse"},
    {"critical"},
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
MUTUAL = {
    # A map hands itself to what writes PyTorch's weights, which must know maps to write one.
    frozenset({"ssntk.models.maps", "ssntk.models.to_torch"}),
}


def _imported(path, modules):
    """The files of the package that a file imports anywhere, inside of functions too."""
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
