"""All branches of a family over a span."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation.branch import Branch, events_table
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.results import Collection, Pictured, Table, Tabular, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagram(Pictured, Tabular, Collection):
    """The branches of a family over a span.

    - `branches`: in the order in which they were found. `bifurcations`, `unresolved`: those of all branches, each listed
      once, sorted by parameter.
    - `status`: a sentence that reports whether everything that was seen was followed. It names each branch that was cut
      short, and where. There is no proof that all branches were seen.
    - `parent`: one entry for each branch. `(branch, event)` if it was reached at a crossing: the index of the branch that it
      crosses, and of the event among that branch's bifurcations. `None` if the search for fixed points found it.
    - `cycles`: the branches of limit cycles, each a [`CycleBranch`][], if they were asked for. `begin` of each is where it
      was found. Their bifurcations are `cycle_events`.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    print(len(diagram), [event.kind for event in diagram.bifurcations])  # 2 ['pitchfork']
    ```
    """

    branches: tuple[Branch, ...]
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str
    parent: tuple[tuple[int, int] | None, ...] = ()
    cycles: tuple[CycleBranch, ...] = ()
    _picture = "bifurcation_diagram"

    @property
    def cycle_events(self) -> tuple[CycleEvent, ...]:
        """The bifurcations on the branches of limit cycles."""
        return tuple(event for branch in self.cycles for event in branch.bifurcations)

    @property
    def outputs(self) -> tuple[np.ndarray | None, ...]:
        """The readout along each branch, (k, m)."""
        return tuple(branch.outputs for branch in self.branches)

    @property
    def has_readout(self) -> bool:
        """Whether the outputs differ from the states."""
        return any(branch.has_readout for branch in self.branches)

    def __len__(self) -> int:
        return len(self.branches)

    def _item(self, i: int) -> Branch:
        return self.branches[i]

    def _headline(self) -> str:
        points = counted(sum(map(len, self.branches)), "point")
        cycles = f" and {counted(len(self.cycles), 'branch')} of limit cycles" if self.cycles else ""
        return f"Diagram: {counted(len(self), 'branch')}, {points}{cycles}; {self.status}"

    def _tables(self) -> list[Table]:
        rows = [
            (i, len(branch), int(branch.stable.sum()), branch.parameter.min(), branch.parameter.max(), self._origin(i))
            for i, branch in enumerate(self)
            if len(branch)
        ]
        columns = ("branch", "points", "stable", "lowest p", "highest p", "")
        tables = [Table.of(columns, rows, 6), events_table((*self.bifurcations, *self.unresolved), 11)]
        return [*tables, *self._of_cycles()] if self.cycles else tables

    def _of_cycles(self) -> list[Table]:
        """The branches of limit cycles, and their bifurcations."""
        rows = [
            (i, len(one), int(one.stable.sum()), one.parameter.min(), one.parameter.max(), one.origin)
            for i, one in enumerate(self.cycles)
        ]
        events = [
            (event.kind, short(event.parameter, 10), event.period, "" if event.converged else "not located")
            for branch in self.cycles
            for event in (*branch.bifurcations, *branch.unresolved)
        ]
        known = Table.of(("cycles", "orbits", "stable", "lowest p", "highest p", ""), rows, 6)
        return [known, Table.of(("of cycles", "parameter", "period", ""), events, 11)]

    @property
    def roots(self) -> tuple[int, ...]:
        """The indices of the branches that the search for fixed points found."""
        return tuple(i for i in range(len(self)) if i >= len(self.parent) or self.parent[i] is None)

    def children(self, i: int) -> tuple[int, ...]:
        """The indices of the branches that were reached at events of branch `i`."""
        return tuple(child for child, parent in enumerate(self.parent) if parent is not None and parent[0] == i)

    def _origin(self, i: int) -> str:
        parent = self.parent[i] if i < len(self.parent) else None
        if parent is None:
            return ""
        event = self.branches[parent[0]].bifurcations[parent[1]]
        return f"from the {event.kind} of branch {parent[0]} at p = {event.parameter:.6g}"

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        parts = [branch._columns() for branch in self.branches]
        numbers = np.repeat(np.arange(len(self)), [len(branch) for branch in self.branches])
        shared = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
        joined = {name: (parts[0][name][0], np.concatenate([part[name][1] for part in parts])) for name in shared}
        return {"branch": (("point",), numbers), **joined}

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of all branches of equilibria, with the dimensions point, state, output and mode, and event if
        there are bifurcations; and of all limit cycles, with the dimensions cycle, multiplier and cycle_event.

        Raises `ImportError` if xarray is not installed: `pip install 'ssntk[sweep]'` installs it.
        """
        data = super().to_xarray()
        known = [branch._columns() for branch in self.cycles]
        for name, (dims, _) in (known[0] if known else {}).items():
            own = ["cycle", *("multiplier" if dim == "mode" else dim for dim in dims[1:])]
            data[f"cycle_{name}"] = own, np.concatenate([columns[name][1] for columns in known])
        if known:
            data["cycle_branch"] = ["cycle"], np.repeat(np.arange(len(known)), [len(one) for one in self.cycles])
        if self.cycle_events:
            data["cycle_event_kind"] = ["cycle_event"], np.array([event.kind for event in self.cycle_events])
            for name in ("parameter", "period", "frequency"):
                data[f"cycle_event_{name}"] = ["cycle_event"], np.array([getattr(one, name) for one in self.cycle_events])
        return data

    def _attributes(self) -> dict[str, Any]:
        return {"status": self.status}

    def _events(self) -> tuple[Bifurcation, ...]:
        return self.bifurcations
