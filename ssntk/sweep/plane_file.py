"""Diagrams over two parameters as TOML files: a [model] as in a sweep's file, and a table [plane]."""

import inspect
import pathlib
from typing import Any

import jax.random as jr

from ssntk.diagrams.kernel_map import QUANTITIES
from ssntk.diagrams.planes import two_parameter_diagram
from ssntk.diagrams.two_parameters import TwoParameterDiagram
from ssntk.errors import as_array, as_choice
from ssntk.models.family import Family
from ssntk.models.plane import Plane
from ssntk.sweep.toml import families_of, known, naming, seeded, table_of

SCHEMA = """\
# Bifurcations over two parameters, instead of [diagram] and [family].
[plane]
# n_slices = 3                  # along how many lines in either direction bifurcations are searched for
# n_searches = 5                # at how many parameters of each line fixed points are searched for
# n_starts = 128                # from how many states
# u = [0.0]                     # (d,) constant input
# step = 0.05                   # longest continuation step
# max_steps = 2000
# max_curves = 64
# kernel = [24, 24]             # at how many places along each parameter the steady-state kernel is mapped; default: none
# seed = 0                      # jax.random.key(seed) draws the starts
# labels = ["gain", "bias"]     # of the figure's axes; default: the names of the parameters
# quantity = "top"              # of the kernel: "participation_ratio" (default) or "top"

[plane.first]
attribute = "gain"              # what p1 moves: attribute, input or line, as in [family]
span = [0.5, 2.0]               # its two ends; no default

[plane.second]
input = {direction = [1.0]}
span = [-1.0, 1.0]
"""
SIDES = ("first", "second")
_DRAWN = ("labels", "quantity")
# What is a table of its own in a file, or what a file cannot hold.
_NOT_HERE = ("plane", "spans", "key")


def read_plane(path: pathlib.Path) -> tuple[Plane, dict[str, Any], dict[str, Any]]:
    """The plane of a file, the arguments of `two_parameter_diagram`, and those of the figure.

    Raises `ValueError`, which names the file and the key.
    """
    table = table_of(path)
    with naming(path):
        if "diagram" in table:
            raise ValueError("there must be one of the tables [diagram] and [plane], not both")
        known(table, ("model", "factory", "seed", "plane"), "")
        if not isinstance(table["plane"], dict):
            raise ValueError("plane must be a table")
        own = dict(table["plane"])
        names = [name for name in inspect.signature(two_parameter_diagram).parameters if name not in _NOT_HERE]
        known(own, (*names, *SIDES, "seed", *_DRAWN), "plane.")
        moves, spans = {}, []
        for side in SIDES:
            if not isinstance(own.get(side), dict):
                raise ValueError(f"the table [plane.{side}] is missing")
            one = dict(own.pop(side))
            if "span" not in one:
                raise ValueError(f"the key plane.{side}.span is missing")
            span = as_array(one.pop("span"), f"plane.{side}.span", (2,))
            if span[0] == span[1]:
                raise ValueError(f"plane.{side}.span must not be empty, got ({span[0]:g}, {span[1]:g})")
            spans.append(span)
            moves[f"plane.{side}"] = one
        if "seed" in own:
            own["key"] = jr.key(seeded(own.pop("seed"), "plane.seed"))
        drawn = {name: own.pop(name) for name in _DRAWN if name in own}
        if "labels" in drawn and not _is_pair_of_texts(drawn["labels"]):
            raise ValueError(f"plane.labels must be two texts, got {drawn['labels']!r}")
        if "quantity" in drawn:
            as_choice(drawn["quantity"], "plane.quantity", QUANTITIES)
        first, second = families_of(table, path.parent, moves)
        try:
            plane = Family.plane(first, second)
        except ValueError as error:
            # In the words of the file.
            raise ValueError(str(error).replace("family1", "plane.first").replace("family2", "plane.second")) from error
        return plane, own | {"spans": tuple(spans)}, drawn


def _is_pair_of_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)


def plane_diagram_of(path: pathlib.Path) -> tuple[TwoParameterDiagram, dict[str, Any]]:
    """The diagram over two parameters that a file describes, and the arguments of its figure.

    Raises `ValueError`, which names the file and the key, and `NumericalError` as [`two_parameter_diagram`][].
    """
    plane, own, drawn = read_plane(path)
    with naming(path):
        return two_parameter_diagram(plane, **own), drawn


def has_plane(path: pathlib.Path) -> bool:
    """Whether a file has a table [plane]. Raises `ValueError` if it is not a TOML file."""
    return "plane" in table_of(path)
