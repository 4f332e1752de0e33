"""A bifurcation point in the user's units, and the internal result of a search for one."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from ssntk.bifurcation.events.kinds import kind_named
from ssntk.errors import Outcome, Sentence
from ssntk.results import Result, short
from ssntk.zeros.stack import Stack

# The fields of a Bifurcation that may be traced by JAX.
_NUMBERS = ("parameter", "x", "frequency", "right", "left", "coefficient", "residual", "interval", "tangents", "outputs")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=_NUMBERS,
    meta_fields=("kind", "criticality", "converged", "reason", "multiplicity", "period"),
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bifurcation(Result):
    """A bifurcation point of equilibria, or for maps of fixed points.

    - `kind`: `"saddle-node"`, `"transcritical"`, `"pitchfork"` or `"hopf"`; for maps `"flip"` or `"neimark-sacker"` instead
      of `"hopf"`. `"double"`: two real eigenvalues cross at once, as in symmetric networks. `"degenerate"`: more than two
      eigenvalues cross at once, or the coefficients that distinguish the kinds are zero to rounding, as on a line of
      equilibria. In `Branch.unresolved` also `"branch-point"` and `"unknown"`. A user's own event has its own name.
    - `parameter`; `x` (n,), the state.
    - `frequency`: angular, in rad per unit time: 0 for a real eigenvalue, pi / dt at a flip (of a
      cycle of k steps pi / (k dt)).
    - `right`, `left` (n,): the critical eigenvectors, |right| = 1 and left^T right = 1 (not conjugated); complex for a pair.
    - `coefficient`: the coefficient of the normal form: a for a saddle-node or transcritical, b3 for a pitchfork, l1 for a
      Hopf point, c3 for a flip, d for a Neimark-Sacker point. `normal_form` describes how each is normalised.
    - `criticality`: `"supercritical"` if the solution that is born is stable (provided that the other modes are), else
      `"subcritical"`. `None` for saddle-nodes, transcriticals, double and degenerate points, for maps at a strong resonance,
      and if the coefficient is zero to rounding.
    - `tangents` (2, n + 1): if two branches cross here, their directions (dx, dp), each of length 1; else `None`.
    - `residual`: the largest residual of the defining equations, each relative to the terms of its equation.
    - `interval`: parameters between which the point lies, from the last Newton correction and the rounding error. For an
      unresolved event: the parameters between which it was seen.
    - `converged`: whether the point was located. `reason`: why not; for a located point, anything special about it, such as
      a resonance, else empty.
    - `multiplicity`: the number of events at this point: 1, or more if several are too close to be distinguished.
    - `outputs` (m,): the readout at the point.
    - `period`: for cycles of a map the number of steps after which the state is x again; 1 for fixed points.

    A `Bifurcation` is a pytree, so that a compiled function may return it.

    **Example:** of dx/dt = mu - x^2.

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    found = ssntk.continuation(family, (1.0, -1.0), x0=[1.0]).bifurcations[0]
    print(found.kind, abs(found.parameter) < 1e-12, round(found.coefficient, 6))  # saddle-node True -1.0
    ```
    """

    kind: str
    parameter: Any
    x: Any
    frequency: Any
    right: Any
    left: Any
    coefficient: Any
    criticality: str | None
    residual: Any
    interval: tuple[Any, Any]
    converged: bool
    reason: str = ""
    tangents: np.ndarray | None = None
    multiplicity: int = 1
    outputs: Any = None
    period: int = 1
    _brief = True

    def _headline(self) -> str:
        said = f"{self.kind} {'at' if self.converged else 'near'} p = {short(self.parameter)}"
        if not self.converged:
            return f"{said}, not located: {self.reason}"
        parts = [self.criticality] if self.criticality else []
        kind = kind_named(self.kind)
        if kind.letter:
            parts.append(f"{kind.letter} = {short(self.coefficient)}")
        parts += [f"frequency {short(self.frequency)}"] if kind.modes == 2 else []
        parts += [f"of a cycle of {self.period} steps"] if self.period > 1 else []
        parts += [f"{self.multiplicity} events in one"] if self.multiplicity > 1 else []
        return f"{said}{': ' if parts else ''}{', '.join(parts)}" + (f"; {self.reason}" if self.reason else "")


class Located(NamedTuple):
    """The result of a search: the bifurcation, its place z (N + 1,), its growth exponents with their rounding errors, and
    the name of the reason if it was not found."""

    point: Bifurcation
    z: np.ndarray
    exponents: np.ndarray
    doubts: np.ndarray
    outcome: Outcome | None = None


def failed(stack: Stack, number: int, kind: str, z: np.ndarray, reason: str) -> Located:
    """The result of a search that failed, with the place z at which it ended."""
    p, nothing = float(stack.parameter(number, z[-1])), np.full(stack.n, np.nan)
    x = np.asarray(z[:-1]) * stack.scale[number]
    point = Bifurcation(kind, p, x, np.nan, nothing, nothing, np.nan, None, np.nan, (p, p), False, str(reason))
    outcome = reason.outcome if isinstance(reason, Sentence) else None
    return Located(point, np.asarray(z), np.zeros(0, complex), np.zeros(0), outcome)
