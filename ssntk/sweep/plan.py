"""A sweep towards a bifurcation. The hash of everything that its results depend on identifies a plan."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.bifurcation.abstract_side import AbstractSide
from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.continuation import continuation
from ssntk.bifurcation.events.kinds import is_of
from ssntk.bifurcation.side import stable_side
from ssntk.critical.approach import Approach
from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.side import CycleSide
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.scales import typical_sizes
from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import AbstractMap, with_input
from ssntk.models.theta import block_positions, theta_positions
from ssntk.notices import warn
from ssntk.nouns import Lens
from ssntk.sweep import cycle_path
from ssntk.sweep.abstract_plan import AbstractPlan, Found
from ssntk.sweep.aims import OF_CYCLES, WITHOUT_A_MODE, aim_of, missing
from ssntk.sweep.checked import along, checked, missed
from ssntk.sweep.coverage import AbstractCoverage, Header, Towards, TowardsOfCycles
from ssntk.sweep.grid import Grid
from ssntk.sweep.identity import Traced, digests, probe_parts, uniform
from ssntk.sweep.kept_branch import AnyBranch
from ssntk.sweep.measure import FAILURES, MEASURED, Asked, Measurement, measure_together, prepare
from ssntk.sweep.older import older
from ssntk.sweep.quantities.standard import own_of
from ssntk.sweep.record import said_of
from ssntk.sweep.save_times import times_shown
from ssntk.sweep.toml import described, naming, table_of


class _OnBranch:
    """The index of the point of its kind that a sweep goes towards. It is looked for on the branch when it is first needed.

    As the default of a field it is `None`. An index that was given is an attribute of the plan itself, which goes before it.
    """

    def __get__(self, plan: Any, kind: type | None = None) -> int | None:
        if plan is None:
            return None
        vars(plan)["index"] = plan._number_of_approach()
        return vars(plan)["index"]


class _Covers:
    """How plan.json describes the points: those of a plan towards a bifurcation of cycles are cycles."""

    def __get__(self, plan: Any, kind: type | None = None) -> AbstractCoverage:
        return TowardsOfCycles() if plan is not None and plan.towards in OF_CYCLES else Towards()


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep(AbstractPlan):
    """A sweep towards a bifurcation: networks at given distances from it, on the stable side of its branch, are measured.

    - `family`: the model and its parameter p. Or an [`Approach`][]: all parameters then move on the line from a network to
      the bifurcation nearest to it. `towards`, `span`, `x0`, `u` and `index` follow from the approach, and p is the size of
      the change of theta in the metric of the approach.
    - `towards`: a kind of bifurcation, as in `Bifurcation.kind`, or an alias, as in [`locate`][]. For piecewise-linear
      families, such as ReLU networks, also `"nonsmooth-fold"`, `"boundary-hopf"`, `"border-collision"`, `"to-infinity"` and
      `"degenerate-flip"`. The kernel does not grow towards borders. The margins in the records do shrink.
    - `span`: (p0, p1) [parameter]. The branch is followed from p0 towards p1. For an approach: from 0, the network, to twice
      its distance.
    - `distances` (k,): |p - p_c|, positive [parameter]. They are kept in descending order.
    - `probe`: inputs and save times. If its `x0` is `None`, trajectories start at the point's x*.
    - `x0` (n,): near the equilibrium at p0, where the branch starts. `u` (d,): a constant input, added to that of the probe.
    - `index`: which point of that kind, in the order of the branch. Default: the first; for an approach, its own.
    - `wrt`, `of`, `integrator`: as in `parameter_jacobian`. `step`: as in `continuation`.
    - `blocks`, `modes`: parts of theta that are measured separately, and how many eigenvalues of the trajectory kernel are
      computed, as in `measure`.
    - `scale` (n,) or a number: the metric of the states, as in `measure`. Default: ones.
    - `quantities`: your own, recorded beside the standard ones, as in `measure`.

    Towards a bifurcation of limit cycles of a flow, `"cycle-fold"` (alias `"LPC"`), `"period-doubling"` (`"PD"`), `"torus"`
    (`"NS"`) or `"saddle-node on a cycle"` (`"SNIC"`), the kernel of the cycle at each distance is measured, as by
    [`cycle_ntk`][]. `x0` is then a state that settles on the cycle at p0; without it the cycles are followed that are born
    at the first Hopf point in the span whose branch holds the bifurcation. Distances are those on the side of the stable
    cycles. `modes` counts eigenvalues of the shape kernel, `step` is as in [`cycle_continuation`][], and `probe`, `of`,
    `blocks`, `integrator` and `quantities` must be left out.

    If the probe's `us` is a `Sinusoid` without a frequency, it gets that of the bifurcation.

    Raises `ValueError`, which names the field, if a field is wrong or contradicts the approach. It is also raised if no
    sweep can go there, as to a cusp. The branch of an approach is followed when `index` is first needed. If the network's
    own equilibrium does not reach the point, or reaches it with another `index`, `ValueError` is raised then.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    sweep = ssntk.Sweep(
        family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1, 0.01], probe=ssntk.Probe([0.0, 1.0]), x0=[1.0]
    )
    print(sweep.size, sweep.distances)  # 2 [0.1  0.01]
    ```
    """

    coverage: ClassVar[Any] = _Covers()
    traced_parts = (*AbstractPlan.traced_parts, "family")
    family: Any
    _: dataclasses.KW_ONLY
    towards: Any = None
    span: Any = None
    distances: Any
    probe: Any = None
    x0: Any = None
    u: Any = None
    index: Any = _OnBranch()
    wrt: Lens | None = None
    of: str = "state"
    blocks: Any = None
    integrator: Integrator | None = None
    step: Any = 0.05
    modes: int | None = None
    scale: Any = None
    quantities: Any = ()

    def __post_init__(self):
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # A plan is the same, whichever name of a kind was given.
        given["towards"] = aim_of(given["towards"], given["family"])
        path = self.family if isinstance(self.family, Approach) else None
        held = checked(given if path is None else given | along(path, given))
        vars(self).update(held)
        if path is None:
            vars(self)["index"] = held["index"] or 0
        else:
            del vars(self)["index"]
            vars(self)["_path"] = path, held["index"]

    def __getstate__(self) -> dict[str, object]:
        # Other processes compute again what follows from the fields.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _number_of_approach(self) -> int:
        """The index of the point at the end of an approach, among those of its kind. Others may lie nearby."""
        path, given = self._path
        branch = self._followed
        sizes = np.append(typical_sizes(path.model, self.constant(), path.x), path.distance)
        aim = np.append(path.x, path.distance)
        points = [np.append(event.x, event.parameter) for event in branch.bifurcations if is_of(event.kind, self.towards)]
        gaps = [np.abs((point - aim) / sizes).max() for point in points]
        # Both are located to rounding error.
        if min(gaps, default=np.inf) > 1e-6:
            raise ValueError(missed(path))
        own = int(np.argmin(gaps))
        if given not in (None, own):
            raise ValueError(f"index must be {own}, that of the point that the approach leads to, got {given}")
        return own

    @functools.cached_property
    def _followed(self) -> Branch:
        """The branch of an approach. It is followed once, and serves for the index of its point and for the sweep."""
        return continuation(self.family, self.span, x0=self.x0, u=self.u, step=self.step)

    @classmethod
    def from_toml(cls, path: str | pathlib.Path) -> Any:
        """The sweep that a TOML file describes. For grids this is deprecated: use [`read_plan`][].

        Raises `ValueError`, which names the file and the key that is wrong.
        """
        plan = read_plan(path)
        if isinstance(plan, Grid):
            warn("Sweep.from_toml reads grids no longer in a later version: use ssntk.read_plan", DeprecationWarning)
        return plan

    def settle(self) -> None:
        vars(self)["index"] = self.index

    @property
    def of_cycles(self) -> bool:
        """Whether the points are limit cycles."""
        return self.towards in OF_CYCLES

    def prepare(self) -> None:
        """Compile the code that measures the points. It does not depend on where the points lie."""
        if self.of_cycles:
            return
        model = self.model_at(float(self.span[0]))
        prepare(self._asked, model, self.room)

    def follow(self) -> AnyBranch:
        """The branch from p0. Raises `NumericalError` if it holds no such bifurcation."""
        if self.of_cycles:
            return cycle_path.follow(self)
        known = vars(self).get("_followed")
        branch = known or continuation(self.family, self.span, x0=self.x0, u=self.u, step=self.step)
        self.number(branch)
        return branch

    def begin(self, branch: AnyBranch | None) -> AbstractSide | CycleSide:
        return self.side(self.follow() if branch is None else branch)

    def side(self, branch: AnyBranch) -> AbstractSide | CycleSide:
        """The stable side of the bifurcation that the sweep goes towards."""
        if isinstance(branch, CycleBranch):
            return cycle_path.side(self, branch)
        return stable_side(self.family, self.span, self.u, branch, self.number(branch))

    def number(self, branch: AnyBranch) -> int:
        """Which of the branch's bifurcations the sweep goes towards. Raises `NumericalError` if it holds no such one."""
        if isinstance(branch, CycleBranch):
            return cycle_path.number(self, branch)
        of_kind = [i for i, event in enumerate(branch.bifurcations) if is_of(event.kind, self.towards)]
        if self.index < len(of_kind):
            return of_kind[self.index]
        raise NumericalError(missing(self.towards, self.index, branch, self.family, self.span))

    def constant(self) -> Array:
        """The constant input (d,); zero if there is none."""
        return constant_input(self.family.model, self.u)

    def model_at(self, parameter: float) -> AbstractStateSpaceModel:
        """The model that is measured at this parameter, with its constant input."""
        return with_input(self.family(parameter), self.constant())

    @functools.cached_property
    def _asked(self) -> Asked:
        """What is measured. If a sinusoid takes its frequency from the bifurcation, the frequency is not yet known here."""
        how: dict[str, Any] = {name: getattr(self, name) for name in MEASURED}
        return Asked.checked(self.model_at(float(self.span[0])), self.probe.at_frequency(1.0), **how)

    def _asked_at(self, frequency: float) -> Asked:
        probe = self.probe.at_frequency(frequency)
        return self._asked if probe is self.probe else self._asked._replace(probe=probe.fit(self.family.model))

    @functools.cached_property
    def room(self) -> int:
        """How many points are measured in one batch."""
        return 1 if self.of_cycles else self._asked.together(self.family.model)

    @property
    def size(self) -> int:
        """How many points there are."""
        return len(self.distances)

    @functools.cached_property
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """The points that are measured together. The plan alone determines them, not what is left to do."""
        return tuple(tuple(range(at, min(at + self.room, self.size))) for at in range(0, self.size, self.room))

    @property
    def samples(self) -> tuple[tuple[int, ...], ...]:
        """A batch that represents all others, to estimate how long a run takes."""
        return self.batches[:1]

    def header(self) -> Header:
        """What a store's plan.json says about the plan."""
        model = self.family.model
        return {
            "kind": self.coverage.kind,
            "title": f"{type(model).__name__} towards a {self.towards}",
            "distances": self.distances.tolist(),
            "n_state": model.n_state,
            "ts": None if self.of_cycles else times_shown(self.probe.ts).tolist(),
            "blocks": list(self.blocks or ()),
            "dt": self.family.dt,
            "quantities": {} if self.of_cycles else said_of(own_of(self.quantities)),
        } | ({} if uniform(self.scale) is None else {"scale": self.scale.tolist()})

    def measure(self, side: Any, index: int) -> tuple[float, Any]:
        """(parameter, measurement) of the point number `index`. It depends on the plan alone, not on other points.

        Raises what the point fails with.
        """
        ((values, found),) = self.measure_batch(side, (index,))
        if isinstance(found, Exception):
            raise found
        return values["parameter"], found

    def measure_batch(self, side: Any, indices: Sequence[int]) -> list[Found]:
        """For each of at most `room` points: the values at which it is measured, and its measurement or error."""
        if self.of_cycles:
            return cycle_path.measure_points(self, side, indices)
        at: list[tuple[float, np.ndarray] | Exception] = []
        for index in indices:
            try:
                at.append(side.at_distance(float(self.distances[index])))
            except FAILURES as error:
                at.append(error)
        reached = [place for place in at if not isinstance(place, Exception)]
        found: Iterator[Measurement | Exception] = iter(())
        if reached:
            frequency: float | None = side.bifurcation.frequency
            asked = self._asked_at(side.bifurcation.frequency)
            if self.towards in WITHOUT_A_MODE:
                # The channel is then that of the slowest mode.
                frequency = None
            models, xs = [self.model_at(parameter) for parameter, _ in reached], [x for _, x in reached]
            found = iter(measure_together(asked, models, xs, critical_frequency=frequency, room=self.room))
        out = []
        for index, place in zip(indices, at, strict=True):
            values = {"distance": self.distances[index]}
            if isinstance(place, Exception):
                out.append((values, place))
            else:
                out.append((values | {"parameter": place[0]}, next(found)))
        return out

    def hash(self) -> str:
        """The identity of the plan, 16 hexadecimal digits: a SHA-256 of all that its results depend on.

        Functions enter as the operations that JAX traces of them. So what they compute counts, and their names do not.
        """
        return super().hash()

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """The digest of each part of the plan that its results depend on, by its name."""
        # If a sinusoid takes the frequency of the bifurcation, that follows from the other fields. Any number serves here.
        probe = None if self.of_cycles else self.probe.at_frequency(1.0).fit(self.family.model)
        family, model = self.family, self.family.model
        arrays, (field, sizes) = self._computed(dtype_of(model) if probe is None else probe.ts.dtype)
        parts = {
            "family": (Traced(field, arrays, *sizes), jax.tree.leaves(arrays), family.dt),
            "u": self.constant(),
            **({} if probe is None else probe_parts(self.probe, probe)),
            "x0": self.x0,
            "distances": self.distances,
            "wrt": theta_positions(model, self.of, self.wrt),
            "integrator": self.integrator,
            # Records hold the blocks in this order.
            "blocks": list(block_positions(model, self.of, self.wrt, self.blocks).items()) if self.blocks else None,
            "scale": uniform(self.scale),
        }
        parts |= {name: getattr(self, name) for name in ("towards", "span", "index", "of", "step", "modes")}
        parts["quantities"] = list(own_of(self.quantities)) or None
        return digests(parts)

    def _computed(self, dtype: Any) -> tuple[PyTree, tuple[Callable[..., PyTree], list[PyTree]]]:
        """The arrays of the family and the constant input; the function computed from them, and the shapes of its arguments
        p, t, x and u."""
        arrays, static = eqx.partition((self.family, self.constant()), eqx.is_array)
        model = self.family.model
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((), (), (model.n_state,), (model.n_input,))]

        def field(arrays: PyTree, p: Array, t: Array, x: Array, u: Array) -> tuple[Array, Array]:
            family, constant = eqx.combine(arrays, static)
            moved = with_input(family(p), constant)
            return moved.vector_field(t, x, u), moved.readout(x)

        return arrays, (field, shapes)

    def older_hashes(self) -> set[str]:
        """The identities that earlier versions would have given this plan."""
        if self.of_cycles:
            return set()
        probe = self.probe.at_frequency(1.0).fit(self.family.model)
        model, arrays, (field, sizes) = self.family.model, *self._computed(probe.ts.dtype)

        def parts(traced: Callable[..., list[object]]) -> Iterator[object]:
            yield from traced(field, arrays, *sizes)
            yield from jax.tree.leaves((arrays, probe.ts, probe.x0, probe.mask, self.x0, self.distances))
            yield from traced(probe.us, sizes[0]) if callable(probe.us) else [probe.us]
            yield from (self.probe.x0 is None, theta_positions(model, self.of, self.wrt))
            yield from ((self.towards, self.span, self.index, self.of, self.step), repr(self.integrator))
            if self.probe.at_frequency(1.0) is not self.probe:
                yield "at the frequency of the bifurcation"
            if isinstance(model, AbstractMap):
                yield "map", model.dt
            if self.blocks:
                yield block_positions(model, self.of, self.wrt, self.blocks)
            if self.modes is not None:
                yield "modes", self.modes
            if self.scale is not None:
                yield from ("scale", self.scale)

        return older(parts)


PLANS: dict[str, Callable[..., AbstractPlan]] = {Sweep.coverage.kind: Sweep, Grid.coverage.kind: Grid}


def read_plan(path: str | os.PathLike[str]) -> Any:
    """The [`Sweep`][] or [`Grid`][] that a TOML file describes. The keys of the file are the names of Python arguments.

    `ssntk sweep --schema` prints all keys. Raises `ValueError`, which names the file and the key that is wrong.

    **Example:**

    ```python
    lines = ["[grid]", "gain = [0.5, 1.0]", "seed = [0, 1, 2]", "[probe]", "ts = [0.0, 1.0]"]
    lines += ["[model]", "n_state = 4", "n_input = 1", "n_output = 1"]
    with open("plan.toml", "w") as file:
        for line in lines:
            print(line, file=file)
    plan = ssntk.read_plan("plan.toml")
    print(type(plan).__name__, plan.size)  # Grid 6
    ```
    """
    file = pathlib.Path(path)
    table = table_of(file)
    with naming(file):
        kind, asked = described(table, file.parent)
        plan = PLANS[kind](**asked)
        plan.settle()
    return plan
