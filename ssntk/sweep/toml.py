"""Sweeps as TOML files. The keys are the names of Python arguments, and an unknown key is an error."""

import contextlib
import dataclasses
import difflib
import inspect
import operator
import pathlib
import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ssntk.critical.approach import Approach, approach
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe, Sinusoid
from ssntk.dynamics.refine import refine_fixed_point
from ssntk.errors import as_array, as_count, as_scalar, is_traced
from ssntk.foreign import UsageError, about_keys, foreign
from ssntk.models.activations import elementwise
from ssntk.models.as_model import as_model
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.ctrnn import CTRNN
from ssntk.models.family import Family
from ssntk.models.weight_files.gathered import Refused
from ssntk.models.weights import numbers_of
from ssntk.nouns import Lens
from ssntk.sweep.aims import may_lack_probe
from ssntk.sweep.coverage import OverAxes, Towards
from ssntk.sweep.factory import function_named, seed_argument
from ssntk.sweep.file_schema import SCHEMA as SCHEMA

_PLAIN = ("towards", "span", "index", "x0", "u", "of", "blocks", "modes", "scale", "step")
_TOP = ("distances", "wrt", *_PLAIN, "model", "factory", "seed", "family", "approach", "grid", "probe", "integrator")
_NO_GRID = ("towards", "span", "distances", "index", "step", "approach")
_APPROACH = ("kind", "wrt", "metric", "signs", "min_coefficient", "omega_min", "n_starts", "seed")
_MODEL = ("n_state", "n_input", "n_output", "seed", "gain", "tau", "activation", "form", "weights")
_WEIGHTS = ("weight", "input_weight", "bias", "input_bias", "readout_weight", "readout_bias", "gain", "tau")


# A table of TOML.
Toml: TypeAlias = dict[str, Any]


def table_of(path: pathlib.Path) -> Toml:
    """The contents of a TOML file. Raises `ValueError`, which names the file, if it is not one."""
    try:
        # Some editors write a byte-order mark before what they save.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Make errors about a plan name the file that describes it."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def described(table: Toml, folder: pathlib.Path) -> tuple[str, Toml]:
    """What a sweep file describes: the kind of a plan as plan.json names it, and its arguments.

    Raises `ValueError`, which names the key that is wrong.
    """
    for name in ("diagram", "plane"):
        if name in table:
            raise ValueError(f"a file with [{name}] is no sweep: `ssntk diagram` draws it")
    known(table, _TOP, "")
    _check_source(table)
    if "grid" in table:
        return OverAxes.kind, _grid(table, folder)
    return Towards.kind, _sweep(table, folder)


def _sweep(table: Toml, folder: pathlib.Path) -> Toml:
    if ("family" in table) == ("approach" in table):
        raise ValueError("there must be exactly one of the tables [family] and [approach]")
    moves = "family" if "family" in table else "approach"
    # Cycles have neither; if there is one, the plan says so.
    without = may_lack_probe(table.get("towards")) and "probe" not in table
    _tables(table, _source(table), moves, *(() if without else ("probe",)), optional=("integrator",))
    for name in ("towards", "span", "distances") if moves == "family" else ("distances",):
        if name not in table:
            raise ValueError(f"the key {name} is missing")
    model = _Make.of(table, folder).model({})
    rest = {name: table[name] for name in _PLAIN if name in table}
    if "wrt" in table:
        rest["wrt"] = _lens(table["wrt"], model, "wrt")
    if moves == "family":
        family = _family(table["family"], model)
    else:
        # x0 is the network's own equilibrium there; the sweep takes it over, and the input, from the approach.
        family = _approach(table["approach"], model, rest.pop("x0", None), rest.pop("u", None))
    return {
        "family": family,
        "distances": _spaced(table["distances"], "distances", positive=True),
        "probe": None if without else _probe(table["probe"]),
        "integrator": None if without and "integrator" not in table else _integrator(table.get("integrator", {})),
    } | rest


def family_of(table: Toml, folder: pathlib.Path) -> Family:
    """The family of a file's [model], or factory, and [family]. Raises `ValueError`, which names the key that is wrong."""
    _tables(table, "family")
    return families_of(table, folder, {"family": table["family"]})[0]


def families_of(table: Toml, folder: pathlib.Path, moves: dict[str, Toml]) -> list[Family]:
    """The families of a file's model that tables like [family] describe, each with its name for messages."""
    _check_source(table)
    _tables(table, _source(table))
    model = _Make.of(table, folder).model({})
    return [_family(one, model, name) for name, one in moves.items()]


def _check_source(table: Toml) -> None:
    """Raise `ValueError` unless there is one of [model] and factory."""
    if ("model" in table) == ("factory" in table):
        # If there is neither, the message names [model], which most files have.
        if "model" in table:
            raise ValueError("there must be one of the table [model] and the key factory, not both")
        raise ValueError("the table [model] is missing")
    if "seed" in table and "factory" not in table:
        raise ValueError("seed goes with factory: that of [model] is model.seed")


def _source(table: Toml) -> str:
    """The key that says what the model is."""
    return "factory" if "factory" in table else "model"


def _tables(table: Toml, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Raise `ValueError` if one of these tables is missing, or is not a table."""
    for name in (*names, *optional):
        kind = str if name == "factory" else dict
        if name not in table and name in optional:
            continue
        if not isinstance(table.get(name), kind):
            raise ValueError(
                f"the table [{name}] is missing" if kind is dict else f"factory must be a text, got {table[name]!r}"
            )


def _grid(table: Toml, folder: pathlib.Path) -> Toml:
    for name in _NO_GRID:
        if name in table:
            raise ValueError(f"{name} does not go with [grid]")
    _tables(table, _source(table), "probe", "grid")
    if ("family" in table) != ("p" in table["grid"]):
        raise ValueError("grid.p must hold values of the parameter of [family], and there must be a [family] for p alone")
    make = _Make.of(table, folder)
    if make.factory is None:
        known(table["grid"], (*_MODEL, "p"), "grid.")
    for name in table["grid"]:
        if name in make.table:
            where = "[model]" if make.factory is None else "the file"
            raise ValueError(f"{name} must be a key of {where} or of [grid], not of both")
    axes = {name: _axis(values, f"grid.{name}") for name, values in table["grid"].items()}
    first = make.model({name: values[0] for name, values in axes.items() if name != "p"})
    rest = {name: table[name] for name in ("x0", "u", "of", "blocks", "modes", "scale") if name in table}
    if "wrt" in table:
        rest["wrt"] = _lens(table["wrt"], first, "wrt")
    return {
        "make": make,
        "axes": axes,
        "probe": _probe(table["probe"]),
        "integrator": _integrator(table.get("integrator", {})),
    } | rest


@dataclasses.dataclass(frozen=True)
class _Make:
    """A function that makes the model of a file from the values of a grid's axes.

    It uses the table [model], or the function that `factory` names.
    """

    table: Toml
    family: Toml | None
    folder: pathlib.Path
    factory: str | None = None

    @classmethod
    def of(cls, table: Toml, folder: pathlib.Path) -> "_Make":
        factory = table.get("factory")
        own = dict(table["model"]) if factory is None else {name: table[name] for name in ("seed",) if name in table}
        return cls(own, table.get("family"), folder, factory)

    def __call__(self, **values: Any) -> AbstractStateSpaceModel:
        p = values.pop("p", None)
        model = self.model(values)
        return model if self.family is None else _family(self.family, model)(p)

    def model(self, values: Toml) -> AbstractStateSpaceModel:
        if self.factory is None:
            return _model(self.table | values, self.folder)
        rest = dict(self.table | values)
        seed = seeded(rest.pop("seed", 0), "seed")
        try:
            make = function_named(self.factory, str(self.folder.absolute()))
            with foreign(self.factory, function=make):
                name = seed_argument(make)
            with foreign(self.factory, function=make, hint=None if name == "seed" else about_keys):
                key = seed if name == "seed" else jr.key(seed)
                found = make(key, **rest) if name is None else make(**{name: key}, **rest)
            return as_model(found, "the model that factory returns")
        except UsageError as error:
            raise ValueError(f"factory: {error}") from error


def _axis(values: Any, name: str) -> Any:
    """An axis of a grid: a list, or {start, stop, num}, whose values are whole numbers if all three are."""
    if not isinstance(values, dict):
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} must be a list of values, or a table of start, stop and num")
        return values
    spaced = _spaced(values, name)
    whole = all(isinstance(values[end], int) for end in ("start", "stop")) and (spaced == spaced.round()).all()
    return spaced.round().astype(int).tolist() if whole else spaced.tolist()


def _probe(table: Toml) -> Probe:
    known(table, ("ts", "us", "x0", "hold"), "probe.")
    if "ts" not in table:
        raise ValueError("the key probe.ts is missing")
    return Probe(_spaced(table["ts"], "probe.ts"), _input(table.get("us")), table.get("x0"), hold=table.get("hold", False))


def _model(table: Toml, folder: pathlib.Path) -> CTRNN:
    known(table, _MODEL, "model.")
    rest = {name: table[name] for name in ("gain", "tau", "form") if name in table}
    if "activation" in table:
        name = table["activation"]
        rest["activation"] = getattr(jnp, str(name), None) or getattr(jax.nn, str(name), None)
        if not callable(rest["activation"]):
            raise ValueError(f"model.activation must name a function of jax.numpy or jax.nn, got {name!r}")
        if not elementwise(rest["activation"]):
            raise ValueError(f"model.activation must name a function that works unit by unit, which {name!r} does not")
    if "weights" not in table:
        for name in ("n_state", "n_input", "n_output", "seed"):
            if name not in table:
                raise ValueError(f"the key model.{name} is missing (or give model.weights)")
        key = jr.key(seeded(table["seed"], "model.seed"))
        return CTRNN(table["n_state"], table["n_input"], table["n_output"], key=key, **rest)
    surplus = [name for name in ("n_state", "n_input", "n_output", "seed") if name in table]
    if surplus:
        raise ValueError(f"model.{surplus[0]} does not go with model.weights, which holds the network")
    file = folder / str(table["weights"])
    arrays: dict[str, Any] = _arrays(file)
    known(arrays, _WEIGHTS, f"{file}: ")
    if "weight" not in arrays:
        raise ValueError(f"model.weights: {file} holds no array named weight")
    return CTRNN.from_weights(**(arrays | rest))


def _arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights. Raises `ValueError` if it is not one, or is damaged."""
    what = f"model.weights: {file} cannot be read as {file.suffix or 'weights'}"
    try:
        return numbers_of(file)
    except Refused as error:
        raise ValueError(f"{what}: it {error}") from error
    except (OSError, ImportError) as error:
        raise ValueError(f"{what}: {error}") from error


def _family(table: Toml, model: AbstractStateSpaceModel, name: str = "family") -> Family:
    known(table, ("attribute", "input", "line"), f"{name}.")
    if len(table) != 1:
        raise ValueError(f"[{name}] must hold exactly one of attribute, input, line")
    (kind, value), *_ = table.items()
    if kind == "attribute":
        return Family(model, value)
    if not isinstance(value, dict):
        raise ValueError(f"{name}.{kind} must be a table")
    if kind == "input":
        known(value, ("direction", "offset"), f"{name}.input.")
        if "direction" not in value:
            raise ValueError(f"the key {name}.input.direction is missing")
        return Family.input(model, value["direction"], value.get("offset"))
    direction = jax.tree.map(lambda leaf: None, model)
    for array, step in value.items():
        leaf = getattr(model, array, None)
        if not isinstance(leaf, jax.Array):
            raise ValueError(f"{name}.line names {array!r}, which is no array of {type(model).__name__}")
        if isinstance(step, dict):
            known(step, ("seed",), f"{name}.line.{array}.")
            step = jr.normal(jr.key(seeded(step.get("seed"), f"{name}.line.{array}.seed")), leaf.shape)
        step = as_array(step, f"{name}.line.{array}", leaf.shape)
        direction = eqx.tree_at(operator.attrgetter(array), direction, step, is_leaf=lambda leaf: leaf is None)
    return Family.line(model, direction)


def _approach(table: Toml, model: AbstractStateSpaceModel, x0: Any, u: Any) -> Approach:
    known(table, _APPROACH, "approach.")
    if "kind" not in table:
        raise ValueError("the key approach.kind is missing")
    rest = {name: value for name, value in table.items() if name != "seed"}
    if "wrt" in rest:
        rest["wrt"] = _lens(rest["wrt"], model, "approach.wrt")
    if "seed" in table:
        rest["key"] = jr.key(seeded(table["seed"], "approach.seed"))
    if x0 is not None:
        x0 = refine_fixed_point(model, as_array(x0, "x0", (model.n_state,)), u)[0]
    return approach(model, x=x0, u=u, **rest)


def _lens(names: object, model: AbstractStateSpaceModel, where: str) -> Lens:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise ValueError(f"{where} must name attributes of {type(model).__name__}, got {names!r}")
    for name in names:
        if not hasattr(model, str(name)):
            raise ValueError(f"{where} names {name!r}, which is no attribute of {type(model).__name__}")
    return operator.attrgetter(*names)


def _input(value: Any) -> object:
    if not isinstance(value, dict):
        return value
    known(value, ("amplitude", "frequency", "phase"), "probe.us.")
    if "amplitude" not in value:
        raise ValueError("the key probe.us.amplitude is missing")
    return Sinusoid(**value)


def _integrator(table: Toml) -> Integrator:
    known(table, ("solver", "rtol", "atol", "dt", "max_steps"), "integrator.")
    table = dict(table)
    if "solver" in table:
        solver = getattr(diffrax, str(table["solver"]), None)
        if not (isinstance(solver, type) and issubclass(solver, diffrax.AbstractSolver)) or inspect.isabstract(solver):
            raise ValueError(f"integrator.solver must name a solver of diffrax, got {table['solver']!r}")
        table["solver"] = solver()
    return Integrator(**table)


def _spaced(value: Any, name: str, *, positive: bool = False) -> Any:
    """A list as it is; or {start, stop, num} as values with equal steps, or with equal ratios if they must be positive."""
    if not isinstance(value, dict):
        return value
    known(value, ("start", "stop", "num"), f"{name}.")
    try:
        start, stop = (float(as_scalar(value[end], f"{name}.{end}", positive=positive)) for end in ("start", "stop"))
        number = as_count(value["num"], f"{name}.num")
    except KeyError as error:
        raise ValueError(f"the key {name}.{error.args[0]} is missing") from error
    if number > 1_000_000:
        raise ValueError(f"{name}.num must be at most a million, got {number}")
    return np.geomspace(start, stop, number) if positive else np.linspace(start, stop, number)


def seeded(value: Any, name: str) -> Any:
    """The seed of a file; `ValueError` if it is none."""
    # A grid makes many networks at once, with a traced seed.
    if is_traced(value):
        return value
    if as_count(value, name, least=0) >= 2**32:
        raise ValueError(f"{name} must be below 2^32, got {value}")
    return value


def known(table: Toml, keys: tuple[str, ...], where: str) -> None:
    """Raise `ValueError`, with the nearest known key, if a table has a key that is not among `keys`."""
    for key in table:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean {where}{close[0]}?" if close else f"; known are {', '.join(keys)}"
            raise ValueError(f"unknown key {where}{key}{hint}")
