"""Follow all curves of bifurcations over two parameters that can be reached from lines along either of them."""

import dataclasses
from collections import Counter
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import SADDLE_NODE
from ssntk.bifurcation.point import Bifurcation
from ssntk.bifurcation.reach import WHOLE
from ssntk.curves.continuation import bifurcation_curve
from ssntk.curves.curve import Codim2, Curve
from ssntk.curves.joined import starts_at
from ssntk.curves.kinds import CROSSINGS, FLOWS, MAPS
from ssntk.diagrams.alike import Ruler
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.kernel_map import counts_of, kernel_map
from ssntk.diagrams.parameters import names_of
from ssntk.diagrams.regions import regions_of
from ssntk.diagrams.search import bifurcation_diagram
from ssntk.diagrams.two_parameters import TwoParameterDiagram
from ssntk.dynamics.fixed_points import constant_input
from ssntk.errors import NumericalError, as_count, as_instance, as_key, as_scalar, outside_jit
from ssntk.models.base import check_autonomous
from ssntk.models.maps import AbstractMap
from ssntk.models.plane import Plane, spans_of
from ssntk.results import counted
from ssntk.threads import one_blas_thread

# How a curve ends that was not cut short, as its status says it.
ENDS = ("left the span at", "closed", "neutral saddles end")


@outside_jit
@one_blas_thread()
def two_parameter_diagram(
    plane: Any,
    spans: Any,
    *,
    u: Any = None,
    key: Any = None,
    n_slices: int = 3,
    n_searches: int = 5,
    n_starts: int = 128,
    step: Any = 0.05,
    max_steps: int = 2000,
    max_curves: int = 64,
    kernel: Any = None,
) -> TwoParameterDiagram:
    """Follow all curves of bifurcations of equilibria over two parameters that can be reached, and count the stable fixed
    points in the regions between them.

    Along `n_slices` lines in either direction, the middle ones among them, all branches are followed by
    [`bifurcation_diagram`][]. From each bifurcation on them that lies on no known curve, [`bifurcation_curve`][] follows
    one. Two curves meet at many points of codimension two: if only one of them is known, the other one is followed from
    there. Such a point is listed once. The regions are those between the curves at which stable fixed points appear, vanish
    or lose their stability. Fixed points are searched for in each. The result does not depend on the units of the states, of
    time or of the parameters.

    **Arguments:**

    - `plane`: the two parameters p1 and p2, as [`Family.plane`][] makes them. `spans`: (span1, span2), the two ends of each.
    - `u`: (d,) constant input. Default zero. `key`: a `jax.random.key` for the starts of all searches. Default
      `jax.random.key(0)`.
    - `n_slices`: the number of lines along each parameter. More lines find more curves.
    - `n_searches`: at how many parameters of each line fixed points are searched for, at least 2. `n_starts`: the number of
      starts of each search.
    - `step`, `max_steps`: as for [`bifurcation_curve`][]; the lines take the same longest step.
    - `max_curves`: the largest number of curves. If it stops the search, `status` reports it.
    - `kernel`: the number of places along p1 and along p2 at which the steady-state kernel is computed, or one number for
      both, as by [`kernel_map`][]. The figure has it below the curves. Default: nowhere.

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time. Raises `NumericalError` if no
    equilibrium is found along any line.

    **Example:** a network of two units, whose two curves of saddle-nodes meet two of Hopf points, each twice.

    ```python
    weight = jnp.array([[2.5, -2.0], [2.0, 0.0]])
    model = ssntk.CTRNN.from_weights(weight, jnp.eye(2), [0.0, -1.0], tau=[1.0, 2.0])
    plane = ssntk.Family.plane(ssntk.Family.input(model, 0), ssntk.Family.input(model, 1))
    diagram = ssntk.two_parameter_diagram(plane, ((-5.0, 5.0), (-4.0, 6.0)), n_slices=1, n_searches=3, n_starts=32)
    print(sorted({curve.kind for curve in diagram}))  # ['hopf', 'saddle-node']
    print(sum(point.kind == "bogdanov-takens" for point in diagram.points))  # 4
    ```
    """
    as_instance(plane, "plane", Plane)
    ends = spans_of(spans)
    n_slices, n_searches = as_count(n_slices, "n_slices"), as_count(n_searches, "n_searches", least=2)
    n_starts, max_curves = as_count(n_starts, "n_starts", least=2), as_count(max_curves, "max_curves")
    max_steps, step = as_count(max_steps, "max_steps", least=2), float(as_scalar(step, "step", positive=True))
    u, shape = constant_input(plane.model, u), None if kernel is None else counts_of(kernel, "kernel")
    check_autonomous(plane(*ends.mean(axis=1).tolist()), "plane")
    first, second = jr.split(as_key(key))
    how = {"u": u, "n_slices": n_searches, "n_starts": n_starts, "step": step, "max_period": 1}
    lines, said = _lines(plane, ends, n_slices, first, how)
    sizes = np.max([branch.scale for _, _, one in lines for branch in one if branch.scale is not None], axis=0)
    search = Search(plane, ends, u, {"step": step, "max_steps": max_steps}, max_curves, Ruler(np.ptp(ends, axis=1), sizes))
    for axis, value, one in lines:
        search.along(axis, value, one)
    search.through()
    regions = regions_of(plane, u, ends, search.curves, lines, second, n_starts)
    searched = {"n_searches": n_searches, "n_starts": n_starts, "step": step}
    mapped = None if shape is None else kernel_map(plane, ends, n=shape, u=u, key=second, **searched)
    unsure = sum(not region.sure for region in regions)
    said += search.said()
    said += [f"in {counted(unsure, 'region')} different numbers of stable fixed points were found"] if unsure else []
    return TwoParameterDiagram(
        curves=tuple(search.curves),
        points=tuple(search.points),
        through=tuple(tuple(own) for own in search.own),
        unresolved=tuple(point for curve in search.curves for point in curve.unresolved),
        regions=regions,
        status="; ".join(said) or WHOLE,
        spans=ends,
        names=names_of(plane),
        slices=tuple(one for _, _, one in lines),
        lines=tuple((axis, value) for axis, value, _ in lines),
        plane=plane,
        kernel=mapped,
    )


def _lines(
    plane: Plane, ends: np.ndarray, n_slices: int, key: Array, how: dict[str, Any]
) -> tuple[list[tuple[int, float, Diagram]], list[str]]:
    """The diagrams along lines (axis, value of the parameter `axis`, diagram), and what they lack, in words."""
    # The middle is among an odd number of even parts only.
    parts = n_slices + 1 - n_slices % 2
    places = (np.arange(n_slices) + 0.5) / parts
    wanted = [(axis, float(ends[axis] @ [1 - q, q])) for axis in (1, 0) for q in places]
    found, said = [], []
    for (axis, value), one in zip(wanted, jr.split(key, len(wanted)), strict=True):
        name = f"at p{axis + 1} = {value:.6g}"
        try:
            family = plane.across(value) if axis else plane.second.of(plane.first(value))
            diagram = bifurcation_diagram(family, ends[1 - axis], key=one, **how)
        except NumericalError:
            said.append(f"no equilibrium was found {name}")
            continue
        # Cycles of maps are no part of this search.
        cuts = [part for part in diagram.status.split("; ") if part != WHOLE and "cycles of 2 steps" not in part]
        said += [f"{name}: {'; '.join(cuts)}"] if cuts else []
        found.append((axis, value, diagram))
    if not found:
        raise NumericalError(
            f"no equilibrium was found along any of {len(wanted)} lines: try other spans, more n_searches or more n_starts"
        )
    return found, said


@dataclasses.dataclass
class Search:
    """The curves and points that were found so far. `how`: further arguments of `bifurcation_curve`."""

    plane: Plane
    ends: np.ndarray
    u: Array
    how: dict[str, Any]
    most: int
    ruler: Ruler
    curves: list[Curve] = dataclasses.field(default_factory=list)
    points: list[Codim2] = dataclasses.field(default_factory=list)
    own: list[list[int]] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    apart: list[tuple[Bifurcation, tuple[float, float]]] = dataclasses.field(default_factory=list)
    others: Counter[str] = dataclasses.field(default_factory=Counter)
    full: bool = False

    def along(self, axis: int, value: float, diagram: Diagram) -> None:
        """Follow the curves from the bifurcations on a line."""
        for event in diagram.bifurcations:
            if event.period > 1:
                continue
            p = float(event.parameter)
            self.follow(event, (value, p) if axis == 0 else (p, value))

    def follow(self, event: Bifurcation, place: tuple[float, float]) -> None:
        """Follow the curve from a bifurcation at these parameters, unless it is known."""
        kinds = MAPS if isinstance(self.plane.model, AbstractMap) else FLOWS
        if event.kind not in kinds:
            self.others[event.kind] += 1
            return
        inside = (self.ends[:, 0] <= place).all() and (place <= self.ends[:, 1]).all()
        if not inside or self.known(event.kind, place, event.x, float(event.frequency)):
            return
        if len(self.curves) == self.most:
            self.full = True
            return
        try:
            curve = bifurcation_curve(self.plane, event, self.ends, at=place, u=self.u, **self.how)
        except (NumericalError, ValueError) as error:
            if event.kind in CROSSINGS:
                self.apart.append((event, place))
                return
            self.failures.append(f"the {event.kind} at ({place[0]:.6g}, {place[1]:.6g}) was not followed: {error}")
            return
        if any(self.ruler.within(curve, known) for known in self.curves):
            return
        self.curves.append(curve)
        for point in curve.points:
            self.add(point, len(self.curves) - 1)

    def known(self, kind: str, place: Any, x: Any, frequency: float) -> bool:
        """Whether a known curve of this kind passes through a bifurcation."""
        where = np.asarray(place, float), np.asarray(x, float)
        return any(curve.kind == kind and self.ruler.lies_on(curve, *where, frequency) for curve in self.curves)

    def add(self, point: Codim2, curve: int) -> None:
        """List a point, or that another curve passes through it."""
        for known, own in zip(self.points, self.own, strict=True):
            if self.ruler.same(known, point):
                own += [curve] if curve not in own else []
                return
        self.points.append(point)
        self.own.append([curve])

    def through(self) -> None:
        """Follow the other curves through all points, those that this finds included."""
        done = 0
        while done < len(self.points):
            point = self.points[done]
            done += 1
            if ((point.parameters < self.ends[:, 0]) | (point.parameters > self.ends[:, 1])).any():
                continue
            for start in starts_at(self.plane, self.u, point, self.ruler.sizes):
                self.follow(start, (float(point.parameters[0]), float(point.parameters[1])))

    def said(self) -> list[str]:
        """What was not followed, in words."""
        said = [f"stopped at max_curves = {self.most}: more was seen"] if self.full else []
        for i, curve in enumerate(self.curves):
            parts = [part for part in curve.status.replace("on the other side: ", "").split("; ") if part]
            said += [f"curve {i}: {part}" for part in dict.fromkeys(parts) if not part.startswith(ENDS)]
        said += self.failures
        # A line that passes through a cusp along its tangent, or through the end of a closed curve, has another kind there.
        alone = [event.kind for event, place in self.apart if not self.known(SADDLE_NODE.name, place, event.x, 0.0)]
        for kind in dict.fromkeys(alone):
            count = alone.count(kind)
            said.append(f"{counted(count, kind)} {'does' if count == 1 else 'do'} not persist if both parameters change")
        for kind, count in self.others.items():
            said.append(f"{counted(count, 'bifurcation')} of the kind {kind}, of which no curves are followed")
        return said
