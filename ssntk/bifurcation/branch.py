"""A branch of equilibria in the user's units, and the table of its bifurcations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssntk.bifurcation.collisions import Collision
from ssntk.bifurcation.point import Bifurcation
from ssntk.results import Collection, Pictured, Result, Table, Tabular, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BranchPoint(Result):
    """One point of a [`Branch`][].

    Its fields are `parameter`, `x` (n,), `eigenvalues` (n,), `stable`, `n_unstable` and `outputs` (m,).

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    point = ssntk.continuation(family, (1.0, -1.0), x0=[1.0])[0]
    print(point.parameter, point.x.round(6), point.stable)  # 1.0 [1.] True
    ```
    """

    parameter: float
    x: np.ndarray
    eigenvalues: np.ndarray
    stable: bool
    n_unstable: int | None
    outputs: np.ndarray | None
    _brief = True

    def _headline(self) -> str:
        return f"{'stable' if self.stable else 'unstable'} point at p = {short(self.parameter)}: x {short(self.x)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Branch(Pictured, Tabular, Collection):
    """A branch of k equilibria, in the order in which it was followed.

    - `parameter` (k,); `x` (k, n), the states; `stable` (k,).
    - `eigenvalues` (k, n) of df/dx in 1 / time, the rightmost first; for maps the multipliers, the largest first.
    - `bifurcations`: the located ones, in branch order. `unresolved`: events that were seen but not located.
    - `status`: a sentence that reports why the branch ends.
    - `tangent` (k, n + 1): the tangent (dx, dq) in the direction of travel, q = (p - p0) / (p1 - p0). Its length is one as
      `step` measures length.
    - `steps`: for each located bifurcation the index of the point before it.
    - `scale` (n,): the typical sizes of the states. `step` and every tolerance are relative to them.
    - `n_unstable` (k,): the number of modes that grow by more than rounding explains.
    - `outputs` (k, m): the readout along the branch. `has_readout`: whether the outputs differ from the states.
    - `period`: the number of steps of the cycles that the branch consists of, 1 for equilibria and fixed points. `orbit`
      (k, period, n): the states of each cycle, from `x` on, and `orbit_outputs` (k, period, m) the readout there; `None`
      if the period is 1. `eigenvalues` are then the multipliers of a whole round.
    - `collisions`: every [`Collision`][] with a border of a piecewise-linear model, or with another kink of the vector
      field, in branch order. Borders are points of the branch; `eigenvalues`, `stable` and `n_unstable` there are those of
      the piece before the border.

    **Example:** the branch turns at mu = 0 and comes back unstable.

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    branch = ssntk.continuation(family, (1.0, -1.0), x0=[1.0])
    print(bool(branch.stable[0]), bool(branch.stable[-1]), branch.status)  # True False left the span at p = 1
    ```
    """

    parameter: np.ndarray
    x: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str
    tangent: np.ndarray
    steps: tuple[int, ...]
    scale: np.ndarray | None = None
    n_unstable: np.ndarray | None = None
    outputs: np.ndarray | None = None
    has_readout: bool = False
    period: int = 1
    orbit: np.ndarray | None = None
    orbit_outputs: np.ndarray | None = None
    collisions: tuple[Collision, ...] = ()
    _picture = "bifurcation_diagram"

    def __len__(self) -> int:
        return len(self.parameter)

    def _item(self, i: int) -> BranchPoint:
        counts, outputs = (None if held is None else held[i] for held in (self.n_unstable, self.outputs))
        return BranchPoint(
            float(self.parameter[i]),
            self.x[i],
            self.eigenvalues[i],
            bool(self.stable[i]),
            None if counts is None else int(counts),
            outputs,
        )

    def _headline(self) -> str:
        if len(self) == 0:
            return f"Branch: no points; {self.status}"
        span = f"p in [{self.parameter.min():.6g}, {self.parameter.max():.6g}]"
        what = "Branch" if self.period == 1 else f"Branch of cycles of {self.period} steps"
        return f"{what}: {counted(len(self), 'point')}, {int(self.stable.sum())} stable, {span}; {self.status}"

    def _tables(self) -> list[Table]:
        tables = [events_table((*self.bifurcations, *self.unresolved), 18)]
        return [*tables, self._kinks()] if self.collisions else tables

    def _kinks(self) -> Table:
        """The collisions, one a line."""
        rows = [
            (one.kind, one.parameter, "-" if one.unit is None else one.unit, one.delta, one.born or "-")
            for one in self.collisions
        ]
        return Table.of(("collision", "parameter", "unit", "delta", "born"), rows, 18)

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        narrow = {name: getattr(self, name) for name in ("parameter", "stable", "n_unstable")}
        wide = {"x": "state", "outputs": "output", "eigenvalues": "mode"}
        # Branches that were stored by an earlier version lack some fields: leave those out.
        return {name: (("point",), value) for name, value in narrow.items() if value is not None} | {
            name: (("point", dim), value) for name, dim in wide.items() if (value := getattr(self, name)) is not None
        }

    def _attributes(self) -> dict[str, Any]:
        return {"status": self.status}

    def _events(self) -> tuple[Bifurcation, ...]:
        return self.bifurcations


def events_table(events: Sequence[Bifurcation], most: int) -> Table:
    """A table with one bifurcation a line, at most `most` of them."""
    rows = [
        (
            event.kind,
            event.parameter,
            (event.criticality or "-") if event.converged else "not located",
            event.coefficient if event.converged and np.isfinite(event.coefficient) else "-",
            event.frequency if event.converged and event.frequency else "-",
            event.reason or (f"of a cycle of {event.period} steps" if event.period > 1 else ""),
        )
        for event in events
    ]
    columns = ("kind", "parameter", "criticality", "coefficient", "frequency", "")
    return Table.of(columns, rows, most)
