"""Find a limit cycle of a flow, with its period, its Floquet multipliers and their errors."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.cycles.chain import Multipliers
from ssntk.cycles.discrete import AbstractMethod, Alone, Corrected, Shooting, System
from ssntk.cycles.search import METHODS, Search, chosen
from ssntk.dynamics.fixed_points import constant_input, readouts
from ssntk.dynamics.scales import rate_of, typical_sizes
from ssntk.dynamics.stability import linearised
from ssntk.errors import as_array, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.rescaled import rescaled
from ssntk.precision import watch_precision
from ssntk.results import Result, Table, short
from ssntk.threads import one_blas_thread

# In how many parts an interval is cut to find where a state is largest.
WITHIN = 8


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Orbit(Result):
    """A periodic orbit of a flow.

    - `ts` (N,), `x` (N, n): times from 0 to before the period, and the states there. `outputs` (N, m): the readout.
    - `period`, in units of time, and `period_error`: by how much it changed when the mesh was refined last (NaN on a
      branch, whose orbits are computed on one mesh each).
    - `multipliers` (n - 1,): the Floquet multipliers, the largest first. The trivial one, 1 along the orbit, is taken out.
    - `multiplier_error` (n - 1,): their errors, estimated from how far the discrete flow is from returning the velocity,
      which may be too little if all points of the orbit are alike. Contracting directions below this floor are
      contracting, but by how much is not known.
    - `stable`: whether all multipliers are inside of the unit circle by more than their errors. `n_unstable`: how many are
      outside.
    - `residual`: the largest residual of the equations of the orbit, relative to its extent.
    - `method`: `"collocation"` or `"shooting"`. `intervals`: their number N. `u` (d,): the input.

    **Example:** x' = x - y - x r^2, y' = x + y - y r^2 has the unit circle, with the multiplier exp(-4 pi).

    ```python
    model = ssntk.normal_forms.hopf(1.0, 1.0)
    orbit = ssntk.limit_cycle(model, [0.5, 0.0])
    print(round(orbit.period / np.pi, 6), orbit.stable)  # 2.0 True
    ```
    """

    ts: np.ndarray
    x: np.ndarray
    outputs: np.ndarray
    period: float
    period_error: float
    multipliers: np.ndarray
    multiplier_error: np.ndarray
    stable: bool
    n_unstable: int
    residual: float
    method: str
    intervals: int
    u: np.ndarray

    def __len__(self) -> int:
        return len(self.ts)

    def at(self, times: Any) -> np.ndarray:
        """The states (k, n) at any times (k,), by a periodic cubic spline through the points of the orbit."""
        return self._between(self.x)(times)

    def finely(self) -> tuple[np.ndarray, np.ndarray]:
        """The states and the readout at eight times as many times as the orbit has points."""
        steps, parts = np.diff(np.append(self.ts, self.period)), np.linspace(0, 1, WITHIN, endpoint=False)
        times = (self.ts[:, None] + steps[:, None] * parts).ravel()
        return self._between(self.x)(times), self._between(self.outputs)(times)

    def _between(self, values: np.ndarray) -> CubicSpline:
        return CubicSpline(np.append(self.ts, self.period), np.vstack([values, values[:1]]), bc_type="periodic")

    @property
    def minimum(self) -> np.ndarray:
        """The smallest value (n,) of each state."""
        return self.finely()[0].min(axis=0)

    @property
    def maximum(self) -> np.ndarray:
        """The largest value (n,) of each state."""
        return self.finely()[0].max(axis=0)

    @property
    def amplitude(self) -> np.ndarray:
        """Half the difference (n,) of the largest and the smallest value of each state."""
        low, high = (end(self.finely()[0], axis=0) for end in (np.min, np.max))
        return (high - low) / 2

    @property
    def frequency(self) -> float:
        """2 pi / period, in rad per unit time."""
        return 2 * np.pi / self.period

    def _headline(self) -> str:
        kind = "stable" if self.stable else f"unstable ({self.n_unstable} unstable)" if self.n_unstable else "neutral"
        return (
            f"{kind} limit cycle of period {short(self.period, 10)} (error {short(self.period_error, 2)}), by {self.method} "
            f"with {self.intervals} intervals, residual {short(self.residual, 2)}"
        )

    def _tables(self) -> list[Table]:
        known = zip(self.multipliers, self.multiplier_error, strict=True)
        rows = [(i, value, abs(value), short(error, 2)) for i, (value, error) in enumerate(known)]
        return [Table.of(("#", "multiplier", "size", "error"), rows, 16)]


@outside_jit
@one_blas_thread()
def limit_cycle(
    model: AbstractStateSpaceModel,
    x0: Any,
    period: Any = None,
    *,
    u: Any = None,
    method: str = "auto",
    intervals: int = 32,
    degree: int = 4,
) -> Orbit:
    """Find a limit cycle of a flow, from a state or from a guess, to rounding error where the mesh can resolve it.

    Without `period`, the network is simulated from x0 until it returns, and the result is the stable cycle on which it ends.
    With `period`, x0 is taken for a point near the cycle, which may be unstable, and Newton's iteration starts from one
    period of a simulation. The period that is found is the smallest one.

    **Arguments:**

    - `x0`: (n,) a state, in units of the states.
    - `period`: about the period, in units of time.
    - `u`: (d,) constant input. Default zero.
    - `method`: `"collocation"` (Gauss collocation with an adapting mesh), `"shooting"` (segments with steps of order 8 and
      exact tangents), or `"auto"`: shooting for more than 16 states, unless they are stiff, else collocation.
    - `intervals`, `degree`: the first number of intervals, a power of two, and the degree of the collocation. The number is
      doubled, up to 512, until the period changes by less than 1e-10 of it.

    Raises `ValueError` for arguments that do not fit, for maps (see [`find_cycles`][]) and for a model that depends on
    time. Raises `NumericalError` if the simulation ends at an equilibrium, on a torus, in chaos or at infinity, and says
    which; and if Newton's iteration does not converge.

    Sources: Ascher, Mattheij and Russell, *Numerical Solution of Boundary Value Problems*, 1995; Fairgrieve and Jepson, SIAM
    J. Numer. Anal. 28 (1991) 1446, on multipliers.

    **Example:** van der Pol's oscillator has the period 6.663286859... (at mu = 1).

    ```python
    def field(t, x, u, mu):
        return jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])

    orbit = ssntk.limit_cycle(ssntk.VectorField(field, 1.0, 2, 0), [1.0, 0.0])
    print(round(orbit.period, 9), orbit.stable)  # 6.663286859 True
    ```
    """
    check_model(model)
    if isinstance(model, AbstractMap):
        raise ValueError("model must be a flow, and a map has cycles of a number of steps: use find_cycles(model, period)")
    if model.n_state < 2:
        raise ValueError("model must have at least two states: on a line nothing oscillates")
    check_autonomous(model)
    x = np.asarray(as_array(x0, "x0", (model.n_state,)), float)
    u = constant_input(model, u)
    given = None if period is None else float(as_scalar(period, "period", positive=True))
    asked = method
    method, intervals, degree = chosen(model.n_state, method, intervals, degree)
    watch_precision(dtype_of(model))
    start = x.astype(dtype_of(model))
    sizes = np.asarray(typical_sizes(model, u, start), float)
    velocity, jacobian = (np.asarray(part) for part in linearised(model, start, u))
    unit = 1 / rate_of(velocity, jacobian, sizes)
    units = (jnp.asarray(part, dtype_of(model)) for part in (sizes, unit, 0.0, 1.0))
    search = Search(rescaled(model, sizes, unit), u, System(Alone(model), u, *units), method, intervals, degree, unit, asked)
    found = search.settled(x / sizes) if given is None else search.guessed(x / sizes, given / unit)
    found = search.shortest(found)
    return result(model, search.system, search.of(found.level), found.at, found.judged, found.error)


def result(
    model: AbstractStateSpaceModel,
    system: System,
    method: AbstractMethod,
    at: Corrected,
    judged: Multipliers,
    error: float,
) -> Orbit:
    """An orbit in the user's units. `error`: that of the period, relative."""
    states = np.asarray(at.orbit.ends, float) * np.asarray(system.sizes, float)
    length = float(np.exp(at.orbit.log_period)) * float(system.unit)
    shooting = isinstance(method, Shooting)
    return Orbit(
        ts=np.asarray(at.orbit.mesh, float)[:-1] * length,
        x=states,
        outputs=readouts(model, states.astype(dtype_of(model))),
        period=length,
        period_error=error * length,
        multipliers=judged.values,
        multiplier_error=judged.errors,
        stable=bool((np.abs(judged.values) + judged.errors < 1).all()),
        n_unstable=int((np.abs(judged.values) - judged.errors > 1).sum()),
        residual=float(at.residual),
        method=METHODS[2] if shooting else METHODS[1],
        intervals=len(states) * (method.steps if shooting else 1),
        u=np.asarray(system.u, float),
    )
