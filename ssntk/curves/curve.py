"""A curve of bifurcations over two parameters, and the points of codimension two on it."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.curves.collapse import KernelAlong, kernels_along
from ssntk.models.plane import Plane
from ssntk.nouns import Lens
from ssntk.results import Collection, Holder, Pictured, Result, Table, Tabular, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Codim2(Result):
    """A bifurcation of codimension two: a point on a curve at which a further condition holds.

    - `kind`: `"cusp"` (two saddle-nodes meet), `"bogdanov-takens"` (a double zero eigenvalue), `"generalised-hopf"` (the
      first Lyapunov coefficient is zero), `"zero-hopf"` (a zero eigenvalue beside a pair), `"double-hopf"` (two pairs).
      Where branches cross, `"degenerate-transcritical"` and `"degenerate-pitchfork"` (the coefficient is zero) and
      `"double-zero"`. For maps also `"1:1 resonance"` to `"1:4 resonance"` (a pair of multipliers that are roots of one),
      `"degenerate-flip"` and `"chenciner"` (the coefficient is zero), `"fold-flip"`, `"fold-neimark-sacker"`,
      `"flip-neimark-sacker"` and `"double-neimark-sacker"`. In `Curve.unresolved` also `"unknown"`.
    - `parameters` (2,), `x` (n,): where it lies. `eigenvalues` (n,): there, multipliers for maps.
    - `frequency`: that of its pair, in rad per unit time; 0 if it has none.
    - `coefficients`: those of its normal form by name, else empty. `"c"` of a cusp, dy/dt = ... + c y^3. `"a"` and `"b"` of
      a Bogdanov-Takens point, dw0/dt = w1, dw1/dt = a w0^2 + b w0 w1. `"l2"`, the second Lyapunov coefficient of a
      generalised Hopf point, dr/dt = frequency (l1 r^3 + l2 r^5). `"s"`, `"theta"` and `"e"` of a zero-Hopf point, for
      which dx/dt = x^2 + s |z|^2, dz/dt = (i omega + theta x + e x^2) z is the scaled form; e is that before x is scaled.
      `"p11"`, `"p22"`, `"theta"` and `"delta"` of a double-Hopf point of which z1 is the faster pair: d|z1|/dt = |z1| (p11
      |z1|^2 + theta p22 |z2|^2), d|z2|/dt = |z2| (delta p11 |z1|^2 + p22 |z2|^2). Eigenvectors are normalised as those of a
      [`Bifurcation`][]. At a Bogdanov-Takens point, where A q0 = 0, A q1 = q0, p1 A = 0 and p1.q1 = 1, they are such that
      |q0| = |p1| and a > 0.
    - `converged`: whether it was located. `reason`: why not.

    **Example:**

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    families = ssntk.Family(model, "h"), ssntk.Family(model, "mu")
    fold = ssntk.continuation(families[0], (-1.0, 1.0)).bifurcations[0]
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*families), fold, ((-1.0, 1.0), (-1.0, 2.0)))
    print([point.kind for point in curve.points], round(curve.points[0].coefficients["c"], 9))  # ['cusp'] -1.0
    ```
    """

    kind: str
    parameters: np.ndarray
    x: np.ndarray
    frequency: float
    eigenvalues: np.ndarray
    coefficients: dict[str, float]
    converged: bool
    reason: str = ""
    _brief = True

    def _headline(self) -> str:
        said = f"{self.kind} {'at' if self.converged else 'near'} {_place(self.parameters)}"
        if not self.converged:
            return f"{said}, not located: {self.reason}"
        parts = [f"{name} = {short(value)}" for name, value in self.coefficients.items()]
        parts += [f"frequency {short(self.frequency)}"] if self.frequency else []
        return said + (f": {', '.join(parts)}" if parts else "")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CurvePoint(Result):
    """One point of a [`Curve`][]: its `parameters` (2,), `x` (n,), `frequency`, `coefficient` and `eigenvalues` (n,).

    **Example:**

    ```python
    model = ssntk.normal_forms.hopf(-0.5, 1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "mu"), ssntk.Family(model, "omega"))
    (point,) = ssntk.continuation(ssntk.Family(model, "mu"), (-0.5, 0.5), x0=[0.0, 0.0]).bifurcations
    print(ssntk.bifurcation_curve(plane, point, ((-0.5, 0.5), (0.5, 2.0)))[0].frequency)  # 0.5
    ```
    """

    parameters: np.ndarray
    x: np.ndarray
    frequency: float
    coefficient: float
    eigenvalues: np.ndarray
    _brief = True

    def _headline(self) -> str:
        return f"{_place(self.parameters)}, coefficient {short(self.coefficient)}, frequency {short(self.frequency)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Curve(Pictured, Tabular, Collection, Holder):
    """A curve of bifurcations of one kind over two parameters, k points in the order of the curve.

    - `kind`: that of the [`Bifurcation`][] from which it was followed.
    - `parameters` (k, 2), `x` (k, n). `eigenvalues` (k, n): multipliers for maps.
    - `frequency` (k,): of the critical pair, in rad per unit time. 0 on curves of saddle-nodes, and where both eigenvalues
      of a pair are real: at neutral saddles, which a curve of Hopf points passes into at a Bogdanov-Takens point.
    - `coefficient` (k,): that of the bifurcation, as in [`Bifurcation`][]; NaN at neutral saddles. That of a saddle-node
      has a sign which depends on its eigenvector: along the curve the eigenvector turns continuously.
    - `period` (k,): of the limit cycles, if the curve is one of their bifurcations; else `None`. Then `x` is the first point
      of each cycle, `eigenvalues` are its multipliers (k, n - 1), and coefficients and points are not computed.
    - `points`: the points of codimension two, located, each a [`Codim2`][]; `unresolved`: those that were seen only.
    - `closed`: whether it is closed. Then the last point is the first one again.
    - `status`: why it ended, at its first and at its last point. `plane`: the [`Plane`][] that it lies in, between `spans`
      (2, 2). `begin`: the bifurcation from which it was followed.

    **Example:** the Hopf points of z' = (mu + i omega) z - z |z|^2 are those with mu = 0.

    ```python
    model = ssntk.normal_forms.hopf(-0.5, 1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "mu"), ssntk.Family(model, "omega"))
    (point,) = ssntk.continuation(ssntk.Family(model, "mu"), (-0.5, 0.5), x0=[0.0, 0.0]).bifurcations
    curve = ssntk.bifurcation_curve(plane, point, ((-0.5, 0.5), (0.5, 2.0)))
    print(abs(curve.parameters[:, 0]).max() < 1e-12, curve.frequency[[0, -1]])  # True [0.5 2. ]
    ```
    """

    kind: str
    parameters: np.ndarray
    x: np.ndarray
    frequency: np.ndarray
    coefficient: np.ndarray
    eigenvalues: np.ndarray
    points: tuple[Codim2, ...]
    unresolved: tuple[Codim2, ...]
    closed: bool
    status: str
    plane: Plane | None
    begin: Any = None
    spans: np.ndarray | None = None
    period: np.ndarray | None = None
    _picture = "bifurcation_curves"

    def __len__(self) -> int:
        return len(self.parameters)

    def _item(self, i: int) -> CurvePoint:
        numbers = float(self.frequency[i]), float(self.coefficient[i])
        return CurvePoint(self.parameters[i], self.x[i], *numbers, self.eigenvalues[i])

    def ntk_along(self, *, wrt: Lens | None = None, u: Any = None, scale: Any = None) -> KernelAlong:
        """How the steady-state kernel collapses near each point: see [`KernelAlong`][].

        **Arguments:** `wrt`: a lens; default `model.trainable("state")`. `u`: (d,) constant input; default zero. `scale`:
        (n,) positive numbers, or one: the metric of the states; default ones.

        Raises `ValueError` for arguments that do not fit.
        """
        return kernels_along(self, wrt, u, scale)

    def _headline(self) -> str:
        ends = "" if self.closed else f" from {_place(self.parameters[0])} to {_place(self.parameters[-1])}"
        found = f", {len(self.points)} of codimension two" if self.points else ""
        what = f"{'closed ' if self.closed else ''}{self.kind} curve"
        return f"{what} of {counted(len(self), 'point')}{ends}{found}; {self.status}"

    def _tables(self) -> list[Table]:
        rows = [
            (
                point.kind,
                _place(point.parameters),
                point.frequency,
                ", ".join(f"{name} = {short(value)}" for name, value in point.coefficients.items()),
                point.reason or "located",
            )
            for point in (*self.points, *self.unresolved)
        ]
        return [Table.of(("point", "parameters", "frequency", "coefficients", ""), rows, 16)]

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        wide = {"parameters": "parameter", "x": "state", "eigenvalues": "mode"}
        narrow = ("frequency", "coefficient") if self.period is None else ("frequency", "period")
        return {name: (("point", dim), getattr(self, name)) for name, dim in wide.items()} | {
            name: (("point",), getattr(self, name)) for name in narrow
        }

    def _attributes(self) -> dict[str, Any]:
        return {"kind": self.kind, "status": self.status, "closed": int(self.closed)}


def _place(parameters: np.ndarray) -> str:
    return f"({short(parameters[0], 10)}, {short(parameters[1], 10)})"
