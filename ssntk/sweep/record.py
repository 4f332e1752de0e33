"""What the record of a point holds: its variables, and how a measurement becomes one."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ssntk.nouns import Json, Values
from ssntk.sweep.coverage import Header, coverage_of
from ssntk.sweep.cycle_measurement import CycleMeasurement
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable
from ssntk.sweep.quantities.cycle import CycleQuantity
from ssntk.sweep.quantities.standard import STANDARD, VARIABLES

__all__ = ["VARIABLES", "Listed", "Variable", "as_json", "checked", "listed", "record_of", "said_of", "variables_of"]

# The types that a variable may have, by the names that plan.json has for them.
_TYPES = {"float": float, "complex": complex, "str": str}


def record_of(measured: Measurement | CycleMeasurement) -> Values:
    """The variables of a measured point."""
    if isinstance(measured, CycleMeasurement):
        return CycleQuantity().finish(measured)
    standard = {name: value for one in STANDARD for name, value in one.finish(measured, None).items()}
    return standard | measured.quantities


def checked(quantity: AbstractQuantity, found: object, n_state: int) -> dict[str, np.ndarray]:
    """The variables of a user's own quantity, as a record holds them.

    Raises `ValueError`, which names the variable, if one is not as the quantity declared it.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{quantity.name}.finish must return a dict of its variables, got {type(found).__name__}")
    out = {}
    for name, value in found.items():
        variable = quantity.variables.get(name)
        if variable is None:
            raise ValueError(f"{quantity.name}.finish returns {name!r}, which its variables do not declare")
        array = np.asarray(value)
        kinds = {float: "biuf", complex: "biufc", str: "U"}[variable.dtype]
        if array.dtype.kind not in kinds or array.ndim != len(variable.dims):
            raise ValueError(
                f"{quantity.name}.finish must return {name} as {variable.dtype.__name__} over ({', '.join(variable.dims)}), "
                f"got {array.dtype} of shape {array.shape}"
            )
        for dim, size in zip(variable.dims, array.shape, strict=True):
            if dim == "mode" and size > n_state:
                raise ValueError(f"{quantity.name}.finish must return {name} with at most {n_state} modes, got {size}")
        out[name] = array if variable.dtype is str else array.astype(variable.dtype)
    lacking = [name for name, variable in quantity.variables.items() if variable.always and name not in out]
    if lacking:
        raise ValueError(
            f"{quantity.name}.finish must return {lacking[0]}: declare it with always=False if it may be missing"
        )
    return out


def said_of(quantities: Iterable[AbstractQuantity]) -> Json:
    """What plan.json says about the user's own quantities, so that a store can be read without their code."""
    return {
        one.name: {
            "panel": one.panel,
            "variables": {name: as_json(variable) for name, variable in one.variables.items()},
        }
        for one in quantities
    }


def as_json(variable: Variable) -> Json:
    """A variable as plan.json holds it."""
    return variable._asdict() | {"dtype": variable.dtype.__name__, "dims": list(variable.dims)}


def _variable(said: Json) -> Variable:
    # A later version may have written more fields.
    known = {name: value for name, value in said.items() if name in Variable._fields}
    return Variable(**known | {"dtype": _TYPES[said["dtype"]], "dims": tuple(said["dims"])})


def variables_of(plan: Header) -> Mapping[str, Variable]:
    """The variables of the records of a plan, by its header."""
    standard = coverage_of(plan).variables
    parts = plan.get("quantities", {}).values()
    own = {name: _variable(said) for one in parts for name, said in one["variables"].items()}
    return {**standard, **own} if own else standard


class Listed(NamedTuple):
    """A number that tables, pages and pictures show for a point: the only entry of a variable, or its first one."""

    name: str
    variable: Variable
    # Whether it belongs to a quantity of the user's own.
    own: bool

    @property
    def label(self) -> str:
        """The label that people read."""
        return self.variable.label or self.name

    @property
    def heading(self) -> str:
        """The heading of its column in a printed table."""
        return self.variable.short or self.name

    def of(self, values: np.ndarray | np.generic) -> np.ndarray:
        """The numbers (...,), from the values (..., d) of its variable; the real parts, if these are complex."""
        array = np.asarray(values)
        return np.real(array[..., 0] if self.variable.dims else array)


def listed(plan: Header, *sections: str) -> dict[str, Listed]:
    """The numbers of a point in these sections, by their names there, section by section."""
    held = variables_of(plan)
    return {
        variable.first or name: Listed(name, variable, name not in coverage_of(plan).variables)
        for section in sections
        for name, variable in held.items()
        if variable.section == section and variable.dtype is not str and (variable.first or not variable.dims)
    }
