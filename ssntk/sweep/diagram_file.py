"""Diagrams as TOML files: a [model] and a [family] as in a sweep's file, and a table [diagram]."""

import inspect
import pathlib
from typing import Any

import jax.random as jr

from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.search import bifurcation_diagram
from ssntk.errors import as_array
from ssntk.models.family import Family
from ssntk.sweep.toml import family_of, known, naming, seeded, table_of

SCHEMA = """\
# A bifurcation diagram. [model], factory, seed and [family] are those of a sweep's file (ssntk sweep --schema).
[diagram]
span = [-4.0, 4.0]              # (p0, p1); the only key without a default
# cycles = true                 # also the limit cycles that are born at Hopf points; default false
# u = [0.0]                     # (d,) constant input
# n_slices = 11                 # at how many parameters fixed points are searched for
# n_starts = 256                # from how many states
# step = 0.05                   # longest continuation step
# max_steps = 10000
# max_branches = 256
# max_period = 8                # of cycles: steps of maps, rounds after period doublings of flows
# scale = [1.0, 1.0]            # (n,) typical sizes of the states
# periods = [6.283185307179586] # (n,) of states that are angles, else 0
# seed = 0                      # jax.random.key(seed) draws the starts
# y = 0                         # what the figure shows: a state, "output 0", "norm" or "principal"
# label = "parameter $p$"       # of the figure's axis
"""
_DRAWN = ("y", "label")
# What a file cannot hold: a function, and what is a table of its own.
_NOT_HERE = ("family", "key", "fix")


def read_diagram(
    path: pathlib.Path, parameter: str | None, span: tuple[float, float] | None
) -> tuple[Family, dict[str, Any], dict[str, Any]]:
    """The family of a file, the arguments of `bifurcation_diagram`, and those of the figure.

    Raises `ValueError`, which names the file and the key.
    """
    table = table_of(path)
    with naming(path):
        known(table, ("model", "factory", "seed", "family", "diagram"), "")
        if not isinstance(table.get("diagram", {}), dict):
            raise ValueError("diagram must be a table")
        own = dict(table.get("diagram", {})) | ({} if span is None else {"span": list(span)})
        names = [name for name in inspect.signature(bifurcation_diagram).parameters if name not in _NOT_HERE]
        known(own, (*names, "seed", *_DRAWN), "diagram.")
        if "span" not in own:
            raise ValueError("the key diagram.span is missing, and no --span is given")
        own["span"] = as_array(own["span"], "diagram.span", (2,))
        if "seed" in own:
            own["key"] = jr.key(seeded(own.pop("seed"), "diagram.seed"))
        drawn = {name: own.pop(name) for name in _DRAWN if name in own}
        moves = table if parameter is None else table | {"family": {"attribute": parameter}}
        return family_of(moves, path.parent), own, drawn


def diagram_of(
    path: pathlib.Path,
    parameter: str | None = None,
    span: tuple[float, float] | None = None,
    cycles: bool | None = None,
) -> tuple[Diagram, dict[str, Any]]:
    """The diagram that a file describes, and the arguments of its figure.

    **Arguments:** `parameter`: an attribute of the model, instead of [family]. `span`, `cycles`: instead of the file's own.

    Raises `ValueError`, which names the file and the key, and `NumericalError` as [`bifurcation_diagram`][].
    """
    family, own, drawn = read_diagram(path, parameter, span)
    with naming(path):
        return bifurcation_diagram(family, **(own | ({} if cycles is None else {"cycles": cycles}))), drawn
