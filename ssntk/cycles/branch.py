"""A branch of limit cycles, and the bifurcations on it."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.orbit import Orbit
from ssntk.results import Collection, Pictured, Result, Table, Tabular, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CycleEvent(Result):
    """A bifurcation of limit cycles.

    - `kind`: `"cycle-fold"` (a multiplier 1, where the branch turns), `"cycle-branch-point"` (a multiplier 1, where it does
      not), `"period-doubling"` (a multiplier -1) or `"torus"` (a pair on the unit circle).
    - `parameter`, `period`, `orbit`: the cycle there. `x` (n,): its first point.
    - `multiplier`: the critical one. `frequency`: its angle over the period, in rad per unit time: 0 at folds.
    - `interval`: parameters between which it lies, by how much it moved when the intervals or steps were doubled; for a
      branch point, and for an event that was not located, those between which it was seen. `converged`: whether it was
      located; `reason`: why not.
    - `tangent` (N n + 2,): how the branch went on there, which tells it from the one that crosses: the changes of the points
      of the orbit, of the logarithm of the period, and of the parameter.

    Pass a period doubling or a branch point to [`cycle_continuation`][] to follow the branch that begins there.

    **Example:**

    ```python
    def langford(t, x, u, a):
        z, r2 = x[2], x[0] ** 2 + x[1] ** 2
        turning = jnp.stack([(z - 0.7) * x[0] - 3.5 * x[1], 3.5 * x[0] + (z - 0.7) * x[1]])
        return jnp.append(turning, 0.6 + a * z - z**3 / 3 - r2)

    model = ssntk.VectorField(langford, 0.4, 3, 0)
    family, start = ssntk.Family(model, "params"), ssntk.limit_cycle(model, [1.0, 0.0, 0.7])
    print(ssntk.cycle_continuation(family, start, (0.4, 0.6)).bifurcations[0].kind)  # torus
    ```
    """

    kind: str
    parameter: float
    period: float
    x: np.ndarray
    multiplier: complex
    frequency: float
    orbit: Orbit
    interval: tuple[float, float]
    converged: bool
    reason: str = ""
    criticality: str | None = None
    coefficient: float = np.nan
    tangent: np.ndarray | None = None
    _brief = True

    def _headline(self) -> str:
        said = f"{self.kind} {'at' if self.converged else 'near'} p = {short(self.parameter, 10)}"
        if not self.converged:
            return f"{said}, not located: {self.reason}"
        return f"{said}, period {short(self.period)}, multiplier {short(self.multiplier)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CycleBranch(Pictured, Tabular, Collection):
    """A branch of limit cycles, in the order in which it was followed.

    - `parameter`, `period` (k,); `orbits`: the k cycles, each an [`Orbit`][]. `branch[i]` is `orbits[i]`.
    - `minimum`, `maximum` (k, n): of each state. `amplitude` (k, n): half their difference.
    - `multipliers`, `multiplier_error` (k, n - 1): the Floquet multipliers without the trivial one, the largest first. Of
      large networks the j largest, (k, j): see `n_multipliers` of [`cycle_continuation`][].
    - `stable` (k,), `n_unstable` (k,): as of an [`Orbit`][].
    - `bifurcations`: those that were located, and `unresolved`: those that were seen only, each a [`CycleEvent`][].
    - `begin`: the bifurcation at which the branch begins, `None` if it was started from an orbit.
    - `end`: the bifurcation at which it ends: a Hopf point, a saddle-node of equilibria on the cycle, or a period doubling
      of cycles of half the period. Else `None`.
    - `status`: why it ended, and what could not be done. `method`: how the orbits are discretised.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.hopf(0.5, 1.0), "mu")
    start = ssntk.limit_cycle(family(0.5), [0.5, 0.0])
    branch = ssntk.cycle_continuation(family, start, (0.5, -0.5))
    print(branch.end.kind, abs(branch.end.parameter) < 1e-10, bool(branch.stable.all()))  # hopf True True
    ```
    """

    parameter: np.ndarray
    orbits: tuple[Orbit, ...]
    bifurcations: tuple[CycleEvent, ...]
    unresolved: tuple[CycleEvent, ...]
    end: Bifurcation | CycleEvent | None
    status: str
    method: str
    begin: Bifurcation | CycleEvent | None = None
    _picture = "bifurcation_diagram"

    def __len__(self) -> int:
        return len(self.parameter)

    def _item(self, i: int) -> Orbit:
        return self.orbits[i]

    @property
    def origin(self) -> str:
        """Where it begins, in words; empty if it was started from an orbit."""
        return "" if self.begin is None else f"from the {self.begin.kind} at p = {float(self.begin.parameter):.6g}"

    def _of(self, name: str) -> np.ndarray:
        return np.array([getattr(orbit, name) for orbit in self.orbits])

    def _leading(self, name: str) -> np.ndarray:
        """As many of each orbit as are known of all."""
        every = [getattr(orbit, name) for orbit in self.orbits]
        least = min(len(one) for one in every)
        return np.array([one[:least] for one in every])

    @property
    def period(self) -> np.ndarray:
        return self._of("period")

    @property
    def multipliers(self) -> np.ndarray:
        return self._leading("multipliers")

    @property
    def multiplier_error(self) -> np.ndarray:
        return self._leading("multiplier_error")

    @property
    def stable(self) -> np.ndarray:
        return self._of("stable")

    @property
    def n_unstable(self) -> np.ndarray:
        return self._of("n_unstable")

    @property
    def minimum(self) -> np.ndarray:
        return self._of("minimum")

    @property
    def maximum(self) -> np.ndarray:
        return self._of("maximum")

    @property
    def amplitude(self) -> np.ndarray:
        return (self.maximum - self.minimum) / 2

    def _headline(self) -> str:
        p = self.parameter
        return (
            f"branch of {counted(len(p), 'limit cycle')}, {int(self.stable.sum())} of them stable, from p = {short(p[0])} "
            f"to {short(p[-1])}, periods {short(self.period)}; {self.status}"
        )

    def _tables(self) -> list[Table]:
        events = (*self.bifurcations, *self.unresolved)
        rows = [
            (event.kind, short(event.parameter, 10), event.period, event.multiplier, event.reason or "located")
            for event in events
        ]
        return [Table.of(("bifurcation", "parameter", "period", "multiplier", ""), rows, 16)]

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        narrow = ("parameter", "period", "stable", "n_unstable")
        wide = {"minimum": "state", "maximum": "state", "multipliers": "mode", "multiplier_error": "mode"}
        return {name: (("point",), getattr(self, name)) for name in narrow} | {
            name: (("point", dim), getattr(self, name)) for name, dim in wide.items()
        }

    def _attributes(self) -> dict[str, Any]:
        return {"status": self.status, "method": self.method}

    def _events(self) -> tuple[CycleEvent, ...]:
        return self.bifurcations
