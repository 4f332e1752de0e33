"""The quantities that every plan records, and the checks of a user's own quantity."""

from ssntk.sweep.quantities.base import OUTCOME, PLACE, AbstractQuantity, Variable
from ssntk.sweep.quantities.blocks import BlocksQuantity
from ssntk.sweep.quantities.border import BorderQuantity
from ssntk.sweep.quantities.channel import ChannelQuantity
from ssntk.sweep.quantities.fixed_point import FixedPointQuantity
from ssntk.sweep.quantities.steady_state import SteadyStateQuantity
from ssntk.sweep.quantities.trajectory import TrajectoryQuantity

STANDARD: tuple[AbstractQuantity, ...] = (
    FixedPointQuantity(),
    SteadyStateQuantity(),
    TrajectoryQuantity(),
    ChannelQuantity(),
    BlocksQuantity(),
    BorderQuantity(),
)
VARIABLES: dict[str, Variable] = {
    **PLACE,
    **{name: variable for quantity in STANDARD for name, variable in quantity.variables.items()},
    **OUTCOME,
}
# Names in a record, or in the dataset of a store, that a variable must not have.
RESERVED = {
    *("mode", "row", "block", "time", "time_2", "point", "ntk_eigenvalues_all"),
    *("plan", "index", "format", "versions", "critical_parameter"),
}
SECTIONS = ("overview", "point", "")


def as_quantities(value: object) -> tuple[AbstractQuantity, ...]:
    """The quantities of a plan: the standard ones, which are always measured, then the user's own, ordered by name.

    Raises `ValueError`, which names the quantity, if one is not a quantity or has a name that is already used.
    """
    given = (value,) if isinstance(value, AbstractQuantity) else () if value is None else value
    if not isinstance(given, (tuple, list)):
        raise ValueError(f"quantities must be a tuple of quantities, got {type(value).__name__}")
    own = [one for one in given if not (isinstance(one, AbstractQuantity) and type(one) in map(type, STANDARD))]
    names, taken = {one.name for one in STANDARD}, {*VARIABLES, *RESERVED}
    for i, one in enumerate(own):
        if not isinstance(one, AbstractQuantity):
            hint = ": write its class with (), which makes one" if isinstance(one, type) else ""
            raise ValueError(f"quantities[{i}] must be an instance of ssntk.AbstractQuantity, got {one!r}{hint}")
        if not isinstance(one.name, str) or not one.name.isidentifier() or one.name in names:
            raise ValueError(f"quantities[{i}].name must be an identifier that no other quantity has, got {one.name!r}")
        for name, variable in one.variables.items():
            what = f"quantities[{i}].variables[{name!r}]"
            if not isinstance(name, str) or not name.isidentifier() or name in taken or name.startswith("axis_"):
                raise ValueError(f"{what} must be named by an identifier that no other variable has")
            if not isinstance(variable, Variable):
                raise ValueError(f"{what} must be an ssntk.Variable, got {type(variable).__name__}")
            if variable.dtype not in (float, complex, str) or variable.section not in SECTIONS:
                raise ValueError(
                    f"{what} must have dtype float, complex or str and section 'overview', 'point' or '', "
                    f"got {variable.dtype!r} and {variable.section!r}"
                )
            if variable.dtype is str and variable.dims:
                raise ValueError(f"{what} must have no dims: a text is one for a point")
            taken.add(name)
        names.add(one.name)
    return (*STANDARD, *sorted(own, key=lambda one: one.name))


def own_of(quantities: tuple[AbstractQuantity, ...]) -> tuple[AbstractQuantity, ...]:
    """The user's own quantities among these."""
    return quantities[len(STANDARD) :]
