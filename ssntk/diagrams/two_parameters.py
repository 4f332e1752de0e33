"""The curves of bifurcations over two parameters, their points of codimension two, and the regions between them."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.curves.curve import Codim2, Curve
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.kernel_map import KernelMap
from ssntk.models.plane import Plane
from ssntk.results import Collection, Holder, Pictured, Result, Table, Tabular, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Region(Result):
    """A region of two parameters that no bifurcation of a stable fixed point divides.

    - `parameters` (2,): a place in it, far from its borders. `clearance`: its distance from them, in parts of the spans.
    - `n_stable`: the number of stable fixed points that were found there.
    - `sure`: whether the same number was found wherever the region was looked at.

    **Example:**

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    diagram = ssntk.two_parameter_diagram(plane, ((-1.0, 1.0), (-1.0, 2.0)))
    print(sorted(region.n_stable for region in diagram.regions))  # [1, 2]
    ```
    """

    parameters: np.ndarray
    n_stable: int
    clearance: float
    sure: bool = True
    _brief = True

    def _headline(self) -> str:
        doubt = "" if self.sure else ", another number elsewhere in the region"
        return f"{counted(self.n_stable, 'stable fixed point')} at {_place(self.parameters)}{doubt}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TwoParameterDiagram(Pictured, Tabular, Collection, Holder):
    """The bifurcations of equilibria over two parameters.

    - `curves`: each a [`Curve`][], in the order in which they were found. `len`, indexing and iteration are over these.
    - `points`: the points of codimension two, each a [`Codim2`][], each listed once however many curves pass through it.
      `through`: for each point the indices of these curves. `unresolved`: points that were seen but not located.
    - `regions`: each a [`Region`][], with the number of stable fixed points in it, the largest region first.
    - `status`: a sentence that reports whether everything that was seen was followed. There is no proof that all curves were
      seen: a closed curve between the lines is not.
    - `spans` (2, 2): the ends of p1 and of p2, lower ends first. `names`: those of the two parameters, as axes show them.
    - `slices`: the [`Diagram`][] of each line along which bifurcations were searched for. `lines`: for each (0 or 1, value),
      the parameter that is constant on it and its value. `plane`: the [`Plane`][] of the parameters.
    - `kernel`: the [`KernelMap`][] over the spans, if one was asked for.

    **Example:** two curves of saddle-nodes meet at a cusp, and form one smooth curve of states.

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    diagram = ssntk.two_parameter_diagram(plane, ((-1.0, 1.0), (-1.0, 2.0)))
    print(len(diagram), [point.kind for point in diagram.points])  # 1 ['cusp']
    ```
    """

    curves: tuple[Curve, ...]
    points: tuple[Codim2, ...]
    through: tuple[tuple[int, ...], ...]
    unresolved: tuple[Codim2, ...]
    regions: tuple[Region, ...]
    status: str
    spans: np.ndarray
    names: tuple[str, str]
    slices: tuple[Diagram, ...]
    lines: tuple[tuple[int, float], ...]
    plane: Plane | None
    kernel: KernelMap | None = None
    _picture = "bifurcation_curves"

    def __len__(self) -> int:
        return len(self.curves)

    def _item(self, i: int) -> Curve:
        return self.curves[i]

    def _headline(self) -> str:
        points = f", {counted(len(self.points), 'point')} of codimension two" if self.points else ""
        lost = f", {counted(len(self.unresolved), 'point')} not located" if self.unresolved else ""
        stable = sorted({region.n_stable for region in self.regions})
        found = f", regions with {' or '.join(map(str, stable))} stable" if stable else ""
        found += f" fixed point{'' if stable == [1] else 's'}" if stable else ""
        return f"TwoParameterDiagram: {counted(len(self), 'curve')}{points}{lost}{found}; {self.status}"

    def _tables(self) -> list[Table]:
        curves = [
            (i, curve.kind, len(curve), "closed" if curve.closed else "", *(_range(curve.parameters[:, j]) for j in (0, 1)))
            for i, curve in enumerate(self.curves)
        ]
        on = (*self.through, *((),) * len(self.unresolved))
        points = [
            (
                point.kind,
                _place(point.parameters),
                point.frequency or "-",
                ", ".join(f"{name} = {short(value)}" for name, value in point.coefficients.items()) or "-",
                ", ".join(map(str, own)) or "-",
                point.reason,
            )
            for point, own in zip((*self.points, *self.unresolved), on, strict=True)
        ]
        regions = [
            (one.n_stable, _place(one.parameters), "" if one.sure else "another number elsewhere in the region")
            for one in self.regions
        ]
        p1, p2 = self.names
        return [
            Table.of(("curve", "kind", "points", "", p1, p2), curves, 16),
            Table.of(("point", f"({p1}, {p2})", "frequency", "coefficients", "curves", ""), points, 20),
            Table.of(("stable points", f"at ({p1}, {p2})", ""), regions, 12),
        ]

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        parts = [curve._columns() for curve in self.curves]
        numbers = np.repeat(np.arange(len(self)), [len(curve) for curve in self.curves])
        kinds = np.repeat([curve.kind for curve in self.curves], [len(curve) for curve in self.curves])
        joined = {
            name: (dims, np.concatenate([part[name][1] for part in parts]))
            for name, (dims, _) in (parts[0] if parts else {}).items()
        }
        return {"curve": (("point",), numbers), "kind": (("point",), kinds), **joined}

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of all curves, with the dimensions point, parameter, state and mode; of the points of
        codimension two, with the dimension codim2; and of the regions, with the dimension region.

        Raises `ImportError` if xarray is not installed: `pip install 'ssntk[sweep]'` installs it.
        """
        data = super().to_xarray()
        if self.points:
            data["codim2_kind"] = ["codim2"], np.array([point.kind for point in self.points])
            data["codim2_frequency"] = ["codim2"], np.array([point.frequency for point in self.points])
            for name, dim in (("parameters", "parameter"), ("x", "state")):
                data[f"codim2_{name}"] = ["codim2", dim], np.stack([getattr(point, name) for point in self.points])
        if self.regions:
            data["region_n_stable"] = ["region"], np.array([region.n_stable for region in self.regions])
            data["region_parameters"] = ["region", "parameter"], np.stack([one.parameters for one in self.regions])
        if self.kernel is not None:
            parts = self.kernel.to_xarray()
            data = data.merge(parts.rename({name: f"kernel_{name}" for name in (*parts.data_vars, *parts.coords)}))
        return data

    def _attributes(self) -> dict[str, Any]:
        return {"status": self.status, "names": list(self.names)}


def _place(parameters: np.ndarray) -> str:
    return f"({short(float(parameters[0]), 10)}, {short(float(parameters[1]), 10)})"


def _range(values: np.ndarray) -> str:
    return f"{short(float(values.min()))} to {short(float(values.max()))}"
