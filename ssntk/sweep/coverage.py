"""What the plans of each kind cover, as plan.json says it: one class a kind, which all that reads a store asks."""

import abc
import math
from typing import Any, ClassVar

import numpy as np

from ssntk.sweep.quantities.base import PLACE

Header = dict[str, Any]


class AbstractCoverage(abc.ABC):
    """What the plans of one kind cover. A header, `plan`, is the contents of plan.json.

    - `kind`: how plan.json names it; `needed`: the field of plan.json that says what is covered.
    - `figure`: the function of `ssntk.plot` that draws a store of it, and the name of the file that the command line writes.
    - `leads`: whether the plan leads to a bifurcation, so that its store holds a branch.
    """

    kind: ClassVar[str]
    needed: ClassVar[str]
    figure: ClassVar[str]
    leads: ClassVar[bool] = False

    @abc.abstractmethod
    def shape(self, plan: Header) -> tuple[int, ...]:
        """How many points there are along each dimension."""

    @abc.abstractmethod
    def order(self, plan: Header) -> np.ndarray:
        """The numbers of the points (k,) in the order in which arrays have them."""

    @abc.abstractmethod
    def place(self, plan: Header, index: int) -> dict[str, Any]:
        """What the record of a point says of where it lies, by the names there."""

    @abc.abstractmethod
    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        """The values of each axis."""

    @abc.abstractmethod
    def n_state(self, plan: Header, size: int | None) -> int:
        """How many states a point has whose fixed point is recorded with `size` entries."""

    def total(self, plan: Header) -> int:
        """How many points there are."""
        return math.prod(self.shape(plan))

    def records(self, name: str) -> bool:
        """Whether its records have this variable, if all plans have it."""
        return True


class Towards(AbstractCoverage):
    """Distances from a bifurcation."""

    kind, needed, figure, leads = "towards", "distances", "collapse", True

    def shape(self, plan: Header) -> tuple[int, ...]:
        return (len(plan["distances"]),)

    def order(self, plan: Header) -> np.ndarray:
        return np.argsort(plan["distances"])

    def place(self, plan: Header, index: int) -> dict[str, Any]:
        return {"distance": plan["distances"][index]}

    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        return {}

    def n_state(self, plan: Header, size: int | None) -> int:
        return plan["n_state"]


class OverAxes(AbstractCoverage):
    """Every combination of the values of some axes."""

    kind, needed, figure = "grid", "axes", "phase_diagram"

    def shape(self, plan: Header) -> tuple[int, ...]:
        return tuple(map(len, plan["axes"].values()))

    def order(self, plan: Header) -> np.ndarray:
        return np.arange(self.total(plan))

    def place(self, plan: Header, index: int) -> dict[str, Any]:
        at = np.unravel_index(index, self.shape(plan))
        return {f"axis_{name}": values[i] for i, (name, values) in zip(at, plan["axes"].items(), strict=True)}

    def axes(self, plan: Header) -> dict[str, np.ndarray]:
        return {name: np.asarray(values) for name, values in plan["axes"].items()}

    def n_state(self, plan: Header, size: int | None) -> int:
        # Networks of several sizes may be in one grid.
        return plan["n_state"] if size is None or not 0 < size <= plan["n_state"] else size

    def records(self, name: str) -> bool:
        # These are of a branch.
        return name not in PLACE


COVERAGES: dict[str, AbstractCoverage] = {one.kind: one for one in (Towards(), OverAxes())}


def coverage_of(plan: Header) -> AbstractCoverage:
    """The coverage of a header's kind."""
    return COVERAGES[plan["kind"]]
