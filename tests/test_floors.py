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
