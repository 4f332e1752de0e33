"""What a sweep computes. A plan is identified by the hash of everything that its results depend on."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.bifurcation.continuation import Branch, continuation, make_problem
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.locate import KINDS, MAP_KINDS
from ssntk.bifurcation.side import Side, stable_side
from ssntk.collapse.exponent import STEADY_STATE_EXPONENT
from ssntk.critical.approach import Approach
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.integrate import Integrator, steps_of
from ssntk.dynamics.probe import Probe
from ssntk.errors import NumericalError, as_array, as_choice, as_count, as_instance, as_scalar
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.ctrnn import CTRNN
from ssntk.models.euler_map import step_of, with_input
from ssntk.models.theta import block_positions, check_blocks, theta_positions
from ssntk.sweep.measure import Measurement, measure


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep towards a bifurcation: its branch is followed, and measured at distances from it on its stable side.

    - `family`: the model and its parameter, or an [`Approach`][]: the line of all parameters to the bifurcation nearest to
      a network. `towards`, `span`, `x0`, `u` and `index` then follow from it, and p is the change of theta by its metric.
    - `towards`: a kind of bifurcation, as `Bifurcation.kind` has it.
    - `span`: (p0, p1); the branch is followed from p0 towards p1. Of an approach: 0, the network, to twice its distance.
    - `distances` (k,): |p - p_c|, positive, in units of the parameter. Kept in descending order.
    - `probe`: inputs and save times; an `x0` of `None` is the point's x*.
    - `x0` (n,): near the equilibrium at p0 where the branch starts. `u` (d,): a constant input, added to the probe's.
    - `index`: which point of that kind, in branch order. Default the first; of an approach its own.
    - `wrt`, `of`, `integrator`: as in `parameter_jacobian`. `step`: as in `continuation`.
    - `blocks`: parts of theta to be measured by themselves too, as in `measure`.

    A `Sinusoid` without a frequency, as the probe's `us`, gets that of the bifurcation.

    Raises `ValueError` naming the field that is wrong, or that contradicts the approach; and where a sweep cannot follow
    that: to a cusp, say, or where the network's own equilibrium does not come to the point.
    """

    family: Any
    _: dataclasses.KW_ONLY
    towards: Any = None
    span: Any = None
    distances: Any
    probe: Probe
    x0: Any = None
    u: Any = None
    index: Any = None
    wrt: Callable[[Any], PyTree] | None = None
    of: str = "state"
    blocks: Any = None
    integrator: Integrator | None = None
    step: Any = 0.05

    def __post_init__(self):
        path = self._take()
        as_instance(self.family, "family", Family)
        as_instance(self.probe, "probe", Probe)
        as_choice(self.of, "of", ("state", "readout"))
        index = None if self.index is None else as_count(self.index, "index", least=0)
        model = self.family.model
        dt = step_of(model)
        as_choice(self.towards, "towards", KINDS if dt is None else MAP_KINDS)
        if self.integrator is not None:
            as_instance(self.integrator, "integrator", Integrator)
        elif dt is None:
            object.__setattr__(self, "integrator", Integrator())
        make_problem(self.family, self.span, self.u)
        theta_positions(model, self.of, self.wrt)
        blocks = check_blocks(self.blocks)
        block_positions(model, self.of, self.wrt, blocks)
        object.__setattr__(self, "blocks", blocks or None)
        if STEADY_STATE_EXPONENT[self.towards] != 0 and self.probe.at_frequency(1.0) is not self.probe:
            raise ValueError(f"probe.us must have a frequency: a {self.towards} has none to give")
        rows = model.n_output if self.of == "readout" else model.n_state
        probe = self.probe.at_frequency(1.0).fit(model)
        probe.check_mask(rows)
        if dt is not None:
            # A map must land on the save times.
            steps_of(model, self.integrator, probe.ts)
        # Equal plans must be equal however they were written, so that they find their records again.
        object.__setattr__(self, "span", tuple(float(end) for end in self.span))
        object.__setattr__(self, "step", float(as_scalar(self.step, "step", positive=True)))
        if self.x0 is not None:
            object.__setattr__(self, "x0", np.asarray(as_array(self.x0, "x0", (model.n_state,))))
        distances = np.asarray(as_array(self.distances, "distances", ("k",)))
        if distances.size == 0 or distances.min() <= 0 or np.unique(distances).size < distances.size:
            raise ValueError("distances must be positive and distinct, and hold at least one")
        object.__setattr__(self, "distances", np.sort(distances)[::-1])
        own = 0 if path is None else self._number_of(path)
        if path is not None and index not in (None, own):
            raise ValueError(f"index must be {own}, that of the point that the approach leads to, got {index}")
        object.__setattr__(self, "index", own if index is None else index)

    def _take(self) -> Approach | None:
        """The approach, if there is one, once its family is set and what follows from it."""
        path = self.family
        if not isinstance(path, Approach):
            return None
        if path.family is None:
            raise ValueError(f"family has no length, the network is at a {path.kind} already: approach from another network")
        kinds = KINDS if path.family.dt is None else MAP_KINDS
        if path.kind not in kinds:
            hint = "ask for a 'saddle-node'" if path.kind == "cusp" else "try another omega_min, or one of its others"
            raise ValueError(f"family leads to a {path.kind}, which no sweep can go towards: of approach, {hint}")
        if self.towards not in (None, path.kind):
            raise ValueError(f"towards must be {path.kind!r}, as the approach has it, got {self.towards!r}")
        u = path.u if self.u is None else np.asarray(constant_input(path.family.model, self.u))
        if not np.array_equal(u, path.u):
            raise ValueError(f"u must be {path.u}, as the approach has it, got {u}")
        span = (0.0, 2 * path.distance) if self.span is None else self.span
        ends = np.asarray(as_array(span, "span", (2,)))
        if not ends.min() < path.distance < ends.max():
            raise ValueError(f"span must hold {path.distance:g}, where the approach ends, got ({ends[0]:g}, {ends[1]:g})")
        if self.span is None and path.reached is False:
            raise ValueError(_missed(path))
        x0 = path.x_start if self.x0 is None else self.x0
        for name, value in (("family", path.family), ("towards", path.kind), ("span", span), ("x0", x0), ("u", u)):
            object.__setattr__(self, name, value)
        return path

    def _number_of(self, path: Approach) -> int:
        """Which point of its kind on the branch the end of an approach is: others may come before, and close by."""
        branch = continuation(self.family, self.span, x0=self.x0, u=self.u, step=self.step)
        sizes = np.append(np.full(path.x.shape, 1 + np.abs(path.x).max()), path.distance)
        aim = np.append(path.x, path.distance)
        points = [np.append(event.x, event.parameter) for event in branch.bifurcations if event.kind == self.towards]
        gaps = [np.abs((point - aim) / sizes).max() for point in points]
        # Both are located to rounding error.
        if min(gaps, default=np.inf) > 1e-6:
            raise ValueError(_missed(path))
        return int(np.argmin(gaps))

    @classmethod
    def from_toml(cls, path: str | pathlib.Path) -> "Sweep":
        """The sweep that a TOML file describes; its keys are the Python arguments' names (`ssntk sweep --schema`)."""
        from ssntk.sweep.toml import read

        return read(pathlib.Path(path))

    def follow(self) -> Branch:
        """The branch from p0; `NumericalError` where it holds no such bifurcation."""
        branch = continuation(self.family, self.span, x0=self.x0, u=self.u, step=self.step)
        self.number(branch)
        return branch

    def side(self, branch: Branch) -> Side:
        """The stable side of the bifurcation that is swept towards."""
        return stable_side(self.family, self.span, self.u, branch, self.number(branch))

    def number(self, branch: Branch) -> int:
        """Which of the branch's bifurcations is swept towards; `NumericalError` where it holds none such."""
        of_kind = [i for i, event in enumerate(branch.bifurcations) if event.kind == self.towards]
        if self.index < len(of_kind):
            return of_kind[self.index]
        seen = [f"{event.kind} at p = {event.parameter:.6g}" for event in (*branch.bifurcations, *branch.unresolved)]
        hint = ""
        if self.towards == "saddle-node" and self.family.moves == "attribute" and isinstance(self.family.model, CTRNN):
            hint = (
                "; where x = 0 stays a fixed point, as in a CTRNN with zero bias, gain gives pitchforks and Hopf points: "
                "sweep a bias (Family.line) or an input (Family.input)"
            )
        p0, p1 = (float(end) for end in self.span)
        raise NumericalError(
            f"no {self.towards} number {self.index} on the branch over p in ({p0:g}, {p1:g}): "
            f"it {branch.status} and holds {', '.join(seen) if seen else 'no bifurcation'}{hint}"
        )

    def constant(self) -> Array:
        """The constant input (d,), zero where there is none."""
        return constant_input(self.family.model, self.u)

    def model_at(self, parameter: float) -> AbstractStateSpaceModel:
        """The model that is measured at this parameter, its constant input included."""
        return with_input(self.family(parameter), self.constant())

    def measure(self, side: Side, index: int) -> tuple[float, Measurement]:
        """(parameter, measurement) of the point number `index`. It depends on the plan alone, not on other points."""
        parameter, x = side.at_distance(float(self.distances[index]))
        how: dict[str, Any] = {name: getattr(self, name) for name in ("wrt", "of", "blocks", "integrator")}
        frequency = side.bifurcation.frequency
        probe = self.probe.at_frequency(frequency)
        return parameter, measure(self.model_at(parameter), probe, x, critical_frequency=frequency, **how)

    def hash(self) -> str:
        """The identity of the plan, 16 hexadecimal digits: a SHA-256 of all that its results depend on.

        Functions enter as the operations that JAX traces of them, so that what is computed counts and its name does not.
        """
        # What a sinusoid's frequency will be follows from the rest: here any will do.
        family, probe = self.family, self.probe.at_frequency(1.0).fit(self.family.model)
        model, d = family.model, family.model.n_input
        arrays, static = eqx.partition((family, self.constant()), eqx.is_array)
        sizes = [jax.ShapeDtypeStruct(shape, probe.ts.dtype) for shape in ((), (), (model.n_state,), (d,))]

        def field(arrays: PyTree, p: Any, t: Any, x: Any, u: Any) -> Any:
            family, constant = eqx.combine(arrays, static)
            moved = with_input(family(p), constant)
            return moved.vector_field(t, x, u), moved.readout(x)

        parts = [
            *_traced(field, arrays, *sizes),
            *jax.tree.leaves((arrays, probe.ts, probe.x0, probe.mask, self.x0, self.distances)),
            *(_traced(probe.us, sizes[0]) if callable(probe.us) else [probe.us]),
            self.probe.x0 is None,
            theta_positions(model, self.of, self.wrt),
            (self.towards, self.span, self.index, self.of, self.step),
            repr(self.integrator),
        ]
        if self.probe.at_frequency(1.0) is not self.probe:
            parts.append("at the frequency of the bifurcation")
        if family.dt is not None:
            parts.append(("map", family.dt))
        if self.blocks:
            parts.append(block_positions(model, self.of, self.wrt, self.blocks))
        digest = hashlib.sha256()
        for part in parts:
            if eqx.is_array(part) or isinstance(part, np.ndarray):
                array = np.asarray(part)
                digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
            else:
                digest.update(repr(part).encode())
        return digest.hexdigest()[:16]


def _missed(path: Approach) -> str:
    return (
        f"family is the way to a {path.kind} that the network's own equilibrium does not come to: of approach, try another "
        "x, more n_starts, or one of its others; or give the span and x0 of a branch that comes there"
    )


def _traced(function: Any, *arguments: Any) -> list[Any]:
    """What a function computes: the text of its jaxpr without memory addresses, and the arrays that it closes over.

    A rule of differentiation that was written by hand is not in that text: where there is one, so is what it computes.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    parts = [re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr)), *traced.consts, *_held(traced.jaxpr)]
    if "custom_jvp" in parts[0] or "custom_vjp" in parts[0]:
        moving, still = eqx.partition(arguments, lambda leaf: eqx.is_inexact_array(leaf) or hasattr(leaf, "dtype"))

        def derivative(moving: Any, tangents: Any) -> Any:
            return jax.jvp(lambda moving: function(*eqx.combine(moving, still)), (moving,), (tangents,))

        again = jax.make_jaxpr(derivative)(moving, moving)
        parts += [re.sub(r"0x[0-9a-f]+", "", str(again.jaxpr)), *again.consts, *_held(again.jaxpr)]
    return parts


def _held(jaxpr: Any) -> list[Any]:
    """The arrays that functions inside a jaxpr close over, which its text does not show."""
    found: list[Any] = []
    for equation in jaxpr.eqns:
        found += [value for var in equation.invars if np.ndim(value := getattr(var, "val", 0.0)) > 0]
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found += [*getattr(part, "consts", []), *_held(part)]
    return found
