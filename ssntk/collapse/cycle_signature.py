"""The response of a limit cycle to parameters that oscillate, which sees period doublings and tori."""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse.linalg
from scipy.interpolate import CubicSpline

from ssntk.collapse.collocated import DEGREE, collocated, forces
from ssntk.collapse.cycle import checked_orbit
from ssntk.cycles.orbit import Orbit
from ssntk.dynamics.metric import as_metric
from ssntk.errors import as_array, outside_jit
from ssntk.kernel.replay import check_room
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.theta import Theta
from ssntk.nouns import Lens
from ssntk.precision import watch_precision
from ssntk.results import Result, short
from ssntk.threads import one_blas_thread

# The number of frequencies by default, over two multiples of the cycle's own.
COUNT, REACH = 129, 2.0
# Up to this number of rows or columns all singular values are computed, where one is asked for.
FEW = 64
# A peak this near to a multiple of the frequency, relative to it, is there.
THERE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CycleSignature(Result):
    """The response of a limit cycle to parameters that oscillate.

    With period P and monodromy matrix M, a drive theta exp(i w t) moves the states at the beginning of each period by
    `Y = (exp(i w P) - M)^-1 S_w`, `S_w = int_0^P Phi(P, s) F(s) exp(i w s) ds`, F = df/dtheta, and in the same way at any
    other phase. Multipliers mu near the unit circle show as peaks at the angle of mu over P, and at any multiple of
    2 pi / P from there: at pi / P before a period doubling, where the response grows as 1 / (1 + mu)^2. Parameters that are
    constant do not see it.

    - `omegas` (W,): angular frequencies, in rad per unit time.
    - `response` (W,): the largest eigenvalue of the mean of Y Y^H over phases, with rows (phase, state) as of the shape
      kernel of [`CycleKernel`][]. Infinite at multiples of 2 pi / P, where the drive shifts the phase at a constant rate.
    - `transverse` (W,): the same without the shift of the phase, that is of the states on one isochron. It is finite as
      long as no multiplier but the trivial one is critical.
    - `phase` (W,): the same for the shift of the phase alone.
    - `frequency`: 2 pi / P. `peak_frequency`: of the largest transverse response, refined between the given ones; `peak`:
      the response there.
    - `kind`: of the multiplier. `"real"` if it peaks at a multiple of 2 pi / P, as before a fold or a branch point;
      `"negative"` if half way between two of them, as before a period doubling; else `"pair"`, as before a torus.

    **Example:** a circle has no other multiplier than exp(-2 mu P), which is real.

    ```python
    model = ssntk.normal_forms.hopf(0.05, 1.0)
    orbit = ssntk.limit_cycle(model, [0.25, 0.0])
    signature = ssntk.cycle_signature(model, orbit, np.linspace(0.5, 1.5, 41))
    print(signature.kind, round(float(signature.peak_frequency), 2))  # real 1.0
    ```
    """

    omegas: np.ndarray
    response: np.ndarray
    transverse: np.ndarray
    phase: np.ndarray
    frequency: float
    peak_frequency: float
    peak: float
    kind: str

    def __len__(self) -> int:
        return len(self.omegas)

    def _headline(self) -> str:
        kind = {"real": "a real multiplier", "negative": "a negative multiplier", "pair": "a pair of multipliers"}[self.kind]
        turns = self.peak_frequency / self.frequency
        return (
            f"Signature of {kind}: transverse peak {short(self.peak)} at frequency {short(self.peak_frequency)}, "
            f"{short(turns, 4)} times that of the cycle"
        )


@outside_jit
@one_blas_thread()
def cycle_signature(
    model: AbstractStateSpaceModel,
    orbit: Any,
    omegas: Any = None,
    *,
    u: Any = None,
    wrt: Lens | None = None,
    scale: Any = None,
) -> CycleSignature:
    """The response of a limit cycle to parameters that oscillate: period doublings and tori are visible here only.

    It is computed by collocation on the orbit's mesh, one frequency after the other.

    **Arguments:**

    - `orbit`: an [`Orbit`][] of this model, from [`limit_cycle`][] or [`cycle_continuation`][].
    - `omegas`: (W,) ascending angular frequencies, not negative, in rad per unit time. Default: 129 up to twice that of the
      cycle.
    - `u`, `wrt`, `scale`: as for [`cycle_ntk`][].

    Raises `ValueError` for arguments that do not fit, for an orbit of another model, and for one whose residual is above
    1e-6. Raises `NumericalError` at a fold of cycles.

    **Example:** before a period doubling of Roessler's system, the response peaks at half the frequency of the cycle.

    ```python
    def field(t, x, u, c):
        return jnp.stack([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - c)])

    model = ssntk.VectorField(field, 2.8, 3)
    orbit = ssntk.limit_cycle(model, [3.0, 0.0, 0.1])
    print(ssntk.cycle_signature(model, orbit).kind)  # negative
    ```
    """
    checked, theta = checked_orbit(model, orbit, u), Theta.of(model, wrt)
    metric = as_metric(scale, model.n_state)
    own = 2 * np.pi / checked.period
    if omegas is None:
        grid = np.linspace(0.0, REACH * own, COUNT)
    else:
        grid = np.asarray(as_array(omegas, "omegas", ("W",)), float)
        if grid.size < 1 or grid[0] < 0 or (np.diff(grid) <= 0).any():
            raise ValueError("omegas must be ascending and not negative, at least one")
    watch_precision(dtype_of(model))
    drive = Drive.of(theta, checked, np.ones(model.n_state) if metric is None else metric)
    response, transverse, phase = drive.at(grid).T
    peak_frequency, peak = _peak(drive, grid, transverse)
    return CycleSignature(
        omegas=grid,
        response=response,
        transverse=transverse,
        phase=phase,
        frequency=own,
        peak_frequency=peak_frequency,
        peak=peak,
        kind=_kind(peak_frequency / own),
    )


def _kind(turns: float) -> str:
    off = abs(turns - round(turns))
    return "real" if off <= THERE else "negative" if off >= 0.5 - THERE else "pair"


def _peak(drive: "Drive", grid: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The frequency of the largest transverse response, refined between its neighbours on the grid, and the response."""
    at = int(np.argmax(values))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    best, value = float(grid[at]), float(values[at])
    if high > low:
        found: Any = scipy.optimize.minimize_scalar(
            lambda omega: -drive.at(np.array([omega]))[0, 1], bounds=(low, high), method="bounded", options={"maxiter": 30}
        )
        if -found.fun > value * (1 + 1e-12):
            best, value = float(found.x), float(-found.fun)
    return best, value


@dataclasses.dataclass(frozen=True)
class Drive:
    """A drive of a collocated orbit, in working units of states and time.

    The times `starts` (N,) of the points. Forces F at times `times` (N, m) and the amounts `pushed` (N, n, m n) by which
    they move the ends of N intervals; F as `columns` (N, m n, p). The propagators (N, n, n) of the intervals. The velocity
    and the phase response (N + 1, n) at the points, of which the last is the first again, and the weights (N,) of the
    points. The metric (n,) in working units, the period, and the length of a unit of time.
    """

    starts: np.ndarray
    times: np.ndarray
    columns: np.ndarray
    pushed: np.ndarray
    propagators: np.ndarray
    velocity: np.ndarray
    response: np.ndarray
    weights: np.ndarray
    metric: np.ndarray
    period: float
    unit: float

    @classmethod
    def of(cls, theta: Theta, orbit: Orbit, metric: np.ndarray) -> "Drive":
        at = collocated(theta.model, orbit)
        count, n = at.orbit.ends.shape
        check_room(3 * count * DEGREE * n * theta.size * 8, "drive of the orbit")
        velocity, response = at.phases()
        sizes, period = np.asarray(at.system.sizes, float), float(np.exp(at.orbit.log_period))
        return cls(
            starts=np.asarray(at.orbit.mesh, float)[:-1] * period,
            times=at.times * period,
            columns=np.asarray(forces(theta, at), float).reshape(count, DEGREE * n, -1),
            pushed=np.asarray(at.right, float)[:, :, 1:],
            propagators=-np.asarray(at.first, float),
            velocity=np.vstack([velocity, velocity[:1]]),
            response=np.vstack([response, response[:1]]),
            weights=point_weights(np.asarray(at.orbit.mesh, float)),
            metric=metric / sizes,
            period=period,
            unit=float(at.system.unit),
        )

    def at(self, omegas: np.ndarray) -> np.ndarray:
        """The response, the transverse one, and that of the phase (W, 3), at frequencies (W,) [rad per unit time]."""
        return np.array([self._one(float(omega) * self.unit) for omega in omegas])

    def forced(self, omega: float) -> np.ndarray:
        """By how much (N, n, p) forces F exp(i w t) move the ends of the intervals."""
        n = self.velocity.shape[1]
        waves = np.repeat(np.exp(1j * omega * self.times), n, axis=1)[:, None] * self.pushed
        return waves.real @ self.columns + 1j * (waves.imag @ self.columns)

    def moves(self, omega: float) -> tuple[np.ndarray, np.ndarray]:
        """The moves (N, n, p) of the points on their isochrons, and how much each interval shifts the phase (N, p)."""
        n, forced = self.velocity.shape[1], self.forced(omega)
        # The drive moves the phase by `along`, and the states on an isochron by the rest.
        along = np.einsum("ji,jip->jp", self.response[1:], forced)
        forced = forced - self.velocity[1:, :, None] * along[:, None]
        # The trivial multiplier is moved to zero, where it meets no frequency.
        propagators = self.propagators - self.velocity[1:, :, None] * (self.response[:-1, None])
        whole, start = np.eye(n), np.zeros_like(forced[0])
        for one, force in zip(propagators, forced, strict=True):
            whole, start = one @ whole, one @ start + force
        moved = [np.linalg.solve(np.exp(1j * omega * self.period) * np.eye(n) - whole, start)]
        for one, force in zip(propagators[:-1], forced[:-1], strict=True):
            moved.append(one @ moved[-1] + force)
        return np.stack(moved), along

    def _one(self, omega: float) -> tuple[float, float, float]:
        count, n = self.velocity.shape[0] - 1, self.velocity.shape[1]
        moved, along = self.moves(omega)
        gap = np.exp(1j * omega * self.period) - 1
        drifts = abs(gap) <= 64 * np.finfo(float).eps * max(1.0, omega * self.period)
        factors = np.sqrt(self.weights)[:, None, None]
        off = factors * moved / self.metric[:, None]
        transverse = _largest(off.reshape(count * n, -1))
        if drifts:
            return np.inf, transverse, np.inf
        summed = np.cumsum(np.vstack([np.zeros_like(along[:1]), along[:-1]]), axis=0)
        shifts = (along.sum(axis=0) / gap + summed)[:, None] * (factors * self.velocity[:-1, :, None] / self.metric[:, None])
        both = _largest((off + shifts).reshape(count * n, -1))
        return both, transverse, _largest(shifts.reshape(count * n, -1))


def _largest(rows: np.ndarray) -> float:
    """The largest eigenvalue of R R^H, for rows R (k, p)."""
    if min(rows.shape) <= FEW:
        return float(np.linalg.norm(rows, 2) ** 2)
    value: Any = scipy.sparse.linalg.svds(rows, 1, v0=np.ones(min(rows.shape)), return_singular_vectors=False)
    return float(value[0] ** 2)


def point_weights(mesh: np.ndarray) -> np.ndarray:
    """The weights (N,) of the integral over one round of a mesh (N + 1,) from 0 to 1, by a periodic cubic spline."""
    count = len(mesh) - 1
    spline = CubicSpline(mesh, np.vstack([np.eye(count), np.eye(1, count)]), bc_type="periodic")
    weights = np.asarray(spline.integrate(0.0, 1.0))
    # Next to a very short interval a weight may be negative: then the trapezoid rule is used.
    steps = np.diff(mesh)
    return weights if (weights > 0).all() else (steps + np.roll(steps, 1)) / 2
