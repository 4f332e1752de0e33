"""A bifurcation point as a user reads it, and what was found when one was looked for."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from ssntk.bifurcation.events.kinds import kind_named
from ssntk.errors import Outcome, Sentence
from ssntk.results import Result, short
from ssntk.zeros.stack import Stack

# Of a Bifurcation, what may be traced.
_NUMBERS = ("parameter", "x", "frequency", "right", "left", "coefficient", "residual", "interval", "tangents", "outputs")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=_NUMBERS,
    meta_fields=("kind", "criticality", "converged", "reason", "multiplicity"),
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bifurcation(Result):
    """A bifurcation point of equilibria, or of the fixed points of a map.

    - `kind`: `"saddle-node"`, `"transcritical"`, `"pitchfork"` or `"hopf"`; for maps also `"flip"` or `"neimark-sacker"`,
      and no Hopf. `"double"`: two real eigenvalues cross at once, as in symmetric networks. `"degenerate"`: the coefficients
      that tell the kinds apart are zero to rounding, as on a line of equilibria, or more than two eigenvalues cross at once.
      In `Branch.unresolved` also `"branch-point"` and `"unknown"`. A user's own event has its own name.
    - `parameter`; `x` (n,); `frequency`: angular, rad per unit time, 0 for a real eigenvalue, pi / dt at a flip.
    - `right`, `left` (n,): critical eigenvectors, |right| = 1, left^T right = 1 not conjugated; complex for a pair.
    - `coefficient`: of the normal form: a of a saddle-node or transcritical, b3 of a pitchfork, l1 of a Hopf, c3 of a flip,
      d of a Neimark-Sacker point, normalised as `normal_form` says. `criticality`: `"supercritical"` where what is born is
      stable (if the other modes are), else `"subcritical"`; `None` for saddle-nodes and transcriticals, where the
      coefficient is zero to rounding, at a strong resonance of a map, and for double and degenerate points.
    - `tangents` (2, n + 1): where two branches cross, their directions (dx, dp), each of length 1; else `None`.
    - `residual`: the largest entry of the extended system, each beside the terms of its equation. `interval`: parameters
      between which the point lies, from the last Newton correction and the rounding error; of an unresolved event, those
      between which it was seen.
    - `converged`, and `reason` if not; `reason` also names what is special about a located point, such as a resonance, and
      is empty otherwise.
    - `multiplicity`: how many events this one stands for: 1, or more if several are closer than they can be told apart.
    - `outputs` (m,): the readout there.

    It is a pytree, so that a compiled function may return it.
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
        parts += [f"{self.multiplicity} events in one"] if self.multiplicity > 1 else []
        return f"{said}{': ' if parts else ''}{', '.join(parts)}" + (f"; {self.reason}" if self.reason else "")


class Located(NamedTuple):
    """A point that was looked for, where it lies, z (N + 1,), its growth exponents with what rounding does to each, and the
    name of the reason why it was not found."""

    point: Bifurcation
    z: np.ndarray
    exponents: np.ndarray
    doubts: np.ndarray
    outcome: Outcome | None = None


def failed(stack: Stack, number: int, kind: str, z: np.ndarray, reason: str) -> Located:
    """What was looked for and not found, and where the search ended."""
    p, nothing = float(stack.parameter(number, z[-1])), np.full(stack.n, np.nan)
    x = np.asarray(z[:-1]) * stack.scale[number]
    point = Bifurcation(kind, p, x, np.nan, nothing, nothing, np.nan, None, np.nan, (p, p), False, str(reason))
    outcome = reason.outcome if isinstance(reason, Sentence) else None
    return Located(point, np.asarray(z), np.zeros(0, complex), np.zeros(0), outcome)
