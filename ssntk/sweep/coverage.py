"""Which points the plans of each kind cover, as plan.json says it. There is one class for each kind of plan."""

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.quantities.base import PLACE, Variable
from ssntk.sweep.quantities.cycle import OF_CYCLES
from ssntk.sweep.quantities.standard import VARIABLES

Header = dict[str, Any]


class AbstractCoverage(abc.ABC):
    """Which points the plans of one kind cover. The argument `plan` of each method is the contents of plan.json.

    - `kind`: the name of the kind in plan.json.
    - `needed`: the field of plan.json that says which points there are.
    - `figure`: the function of `ssntk.plot` that draws such a store. The command line gives its file the same name.
    - `leads`: whether the plan leads to a bifurcation. Its store then holds a branch.
    - `variables`: the variables of the records, without those of a user's own quantities.
    """

    kind: ClassVar[str]
    needed: ClassVar[str]
    figure: ClassVar[str]
    leads: ClassVar[bool] = False
    variables: ClassVar[Mapping[str, Variable]] = VARIABLES

    @abc.abstractmethod
    def shape(self, plan: Header) -> tuple[int, ...]:
        """How many points there are along each dimension."""

    @abc.abstractmethod
    def order(self, plan: Header) -> np.ndarray:
        """The numbers of the points (k,) in the order in which arrays have them."""

    @abc.abstractmethod
    def place(self, plan: Header, index: int) -> Values:
        """The variables of a record that say where its point lies."""

    @abc.abstractmethod
    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        """The values of each axis."""

    @abc.abstractmethod
    def n_state(self, plan: Header, size: int | None) -> int:
        """How many states a point has, if its recorded fixed point has `size` entries."""

    def total(self, plan: Header) -> int:
        """How many points there are."""
        return math.prod(self.shape(plan))

    def records(self, name: str) -> bool:
        """Whether the records of such plans have this variable of the standard ones."""
        return True


class Towards(AbstractCoverage):
    """Points at given distances from a bifurcation."""

    kind, needed, figure, leads = "towards", "distances", "collapse", True

    def shape(self, plan: Header) -> tuple[int, ...]:
        return (len(plan["distances"]),)

    def order(self, plan: Header) -> np.ndarray:
        return np.argsort(plan["distances"])

    def place(self, plan: Header, index: int) -> Values:
        return {"distance": plan["distances"][index]}

    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        return {}

    def n_state(self, plan: Header, size: int | None) -> int:
        return plan["n_state"]


class TowardsOfCycles(Towards):
    """Limit cycles at given distances from a bifurcation of theirs."""

    kind, variables = "towards-of-cycles", OF_CYCLES


class OverAxes(AbstractCoverage):
    """Points at every combination of the values of some axes."""

    kind, needed, figure = "grid", "axes", "phase_diagram"

    def shape(self, plan: Header) -> tuple[int, ...]:
        return tuple(map(len, plan["axes"].values()))

    def order(self, plan: Header) -> np.ndarray:
        return np.arange(self.total(plan))

    def place(self, plan: Header, index: int) -> Values:
        at = np.unravel_index(index, self.shape(plan))
        return {f"axis_{name}": values[i] for i, (name, values) in zip(at, plan["axes"].items(), strict=True)}

    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        return {name: np.asarray(values) for name, values in plan["axes"].items()}

    def n_state(self, plan: Header, size: int | None) -> int:
        # One grid may hold networks of several sizes.
        return plan["n_state"] if size is None or not 0 < size <= plan["n_state"] else size

    def records(self, name: str) -> bool:
        # These variables say where a point of a branch lies.
        return name not in PLACE


COVERAGES: dict[str, AbstractCoverage] = {one.kind: one for one in (Towards(), TowardsOfCycles(), OverAxes())}


def coverage_of(plan: Header) -> AbstractCoverage:
    """The coverage of a header's kind."""
    return COVERAGES[plan["kind"]]
