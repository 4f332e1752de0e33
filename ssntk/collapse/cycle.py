"""The kernel of a limit cycle: how its shape and its period depend on the parameters."""

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy.sparse.linalg

from ssntk.collapse.around import by_shooting
from ssntk.collapse.closed import Closed
from ssntk.collapse.collocated import by_collocation
from ssntk.cycles.orbit import Orbit
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar, outside_jit
from ssntk.kernel.spectrum import Rest, Spectrum
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.theta import Theta
from ssntk.nouns import Lens
from ssntk.precision import watch_precision
from ssntk.results import Result, Table, short
from ssntk.threads import one_blas_thread

# An orbit with a larger residual is not used.
RESIDUAL = 1e-6
# If all multipliers are below this, the derivative of one trajectory around the orbit is accurate enough.
MILD = 1e5


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CycleKernel(Result):
    """The kernel of a limit cycle: how its shape, its period and its phase depend on the parameters theta.

    Let P be the period, f the velocity, and X = dx/dtheta the change of the closed orbit at fixed phase. X is unique up to a
    shift of the phase; here it is the least one, `int <X, f> dt = 0`. In the long run a trajectory on the cycle has the
    sensitivity `S(t) = X - f t P_theta / P + f c`: its kernel is that of the phase alone, of rank one, whether or not a
    bifurcation is near. What a bifurcation does to the cycle shows in the shape kernel, in the gradient of the period, and
    if neither sees it, in [`cycle_signature`][].

    - `ts` (N,): times on the orbit, in [0, P). `x`, `velocity` (N, n): states and velocities there.
    - `jacobian` (N, n, p): X at these times, in units of the states per unit of theta. `None` if it would take more memory
      than was allowed; then the kernel alone was formed.
    - `shape`: the [`Spectrum`][] of the mean of X X^T over the period, with rows (phase, state). For orbits by shooting the
      phases are the times `ts`, and it is that of X X^T / N. For others they are the Gauss points of the orbit's mesh, with
      their weights. It is computed when it is first asked for.
    - `period`, and its gradient `period_gradient` (p,): P_theta, in units of time per unit of theta.
    - `phase_response` (N, n): Z, the time by which a small kick advances the orbit in the long run, in units of time per
      unit of the states. Z . f = 1, and P_theta = -int Z^T df/dtheta dt.
    - `exponents` (n - 1,): the Floquet exponents log(mu) / P [1 / time] besides the trivial one, the slowest first.
    - `speed`: the mean square of the velocity over the period, in the metric.

    **Example:** the circle of radius sqrt(mu), with angular frequency omega.

    ```python
    model = ssntk.normal_forms.hopf(0.25, 2.0)
    orbit = ssntk.limit_cycle(model, [0.5, 0.0])
    kernel = ssntk.cycle_ntk(model, orbit, wrt=lambda m: (m.mu, m.omega))
    print(kernel.period_gradient.round(6) + 0.0, kernel.shape.eigenvalues[0].round(6))  # [ 0.       -1.570796] 1.0
    ```
    """

    ts: np.ndarray
    x: np.ndarray
    velocity: np.ndarray
    jacobian: np.ndarray | None
    period: float
    period_gradient: np.ndarray
    phase_response: np.ndarray
    exponents: np.ndarray
    speed: float
    # The rows of the shape kernel (M n, p), or if they do not fit the kernel (M n, M n) itself; and how many eigenvalues
    # are asked for.
    rows: np.ndarray | None
    kernel: np.ndarray | None
    count: int | None

    @functools.cached_property
    def shape(self) -> Spectrum:
        """The spectrum of the shape kernel, the mean of X X^T over the period."""
        if self.rows is not None and self.count is None:
            return Spectrum.from_jacobian(self.rows)
        matrix = self.kernel if self.kernel is not None else self._smaller()
        if self.count is None:
            return Spectrum.from_kernel(matrix)
        values, vectors = scipy.sparse.linalg.eigsh(matrix, self.count, v0=np.ones(len(matrix)))
        order = np.argsort(-values)
        values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
        if self.rows is not None and len(matrix) != len(self.rows):
            vectors = self.rows @ vectors
            vectors = vectors / np.linalg.norm(vectors, axis=0)
        rest = Rest(np.trace(matrix), np.sum(matrix**2), np.float64(0.0), np.float64(0.0))
        return Spectrum(values, len(matrix) * np.finfo(float).eps, vectors, 0, rest)

    def _smaller(self) -> np.ndarray:
        """The kernel, or its dual, whichever is smaller."""
        assert self.rows is not None
        return self.rows @ self.rows.T if len(self.rows) <= self.rows.shape[1] else self.rows.T @ self.rows

    def predicted_top(self, horizon: Any) -> float:
        """The largest eigenvalue of the trajectory's kernel K_int over a time T, by the law of the phase:
        `|P_theta / P|^2 <|f|^2> T^3 / 3`, up to O(P / T).

        **Arguments:** `horizon`: T, in units of time, at least several periods.
        """
        time = float(as_scalar(horizon, "horizon", positive=True))
        return float(self.period_gradient @ self.period_gradient) / self.period**2 * self.speed * time**3 / 3

    def _headline(self) -> str:
        gradient = float(np.linalg.norm(self.period_gradient))
        return (
            f"Kernel of a limit cycle of period {short(self.period, 10)}: the period's gradient has the length "
            f"{short(gradient)}, the slowest exponent is {short(self.exponents[0])}"
        )

    def _tables(self) -> list[Table]:
        shape = self.shape
        rows = [
            ("largest eigenvalue of the shape", shape.eigenvalues[0]),
            ("trace of the shape", shape.trace),
            ("participation ratio of the shape", shape.participation_ratio),
            ("largest phase response", np.abs(self.phase_response).max()),
        ]
        return [Table.of(("", ""), rows, 8)._replace(columns=())]


@outside_jit
@one_blas_thread()
def cycle_ntk(
    model: AbstractStateSpaceModel,
    orbit: Any,
    *,
    u: Any = None,
    wrt: Lens | None = None,
    scale: Any = None,
    k: Any = None,
    memory: Any = 2e9,
) -> CycleKernel:
    """The kernel of a limit cycle: the derivative of the closed orbit, of its period, and its phase response.

    All are exact derivatives of a discrete orbit: by the methods of [`parameter_jacobian`][] and one bordered solve for
    orbits by shooting, by collocation for all others.

    **Arguments:**

    - `orbit`: an [`Orbit`][] of this model, from [`limit_cycle`][] or [`cycle_continuation`][]. It may be unstable.
    - `u`: (d,) constant input. Default: the orbit's own.
    - `wrt`: a lens; default `model.trainable("state")`.
    - `scale`: (n,) positive numbers, or one [state]: the metric of the states, in which X is least, and in which the shape
      kernel and the speed are computed. Default: ones.
    - `k`: compute only the first k eigenvalues of the shape kernel.
    - `memory`: how many bytes the derivative of an orbit by shooting may take. If it takes more, the kernel is computed
      without it.

    Raises `ValueError` for arguments that do not fit, for an orbit of another model, and for one whose residual is above
    1e-6. Raises `NumericalError` at a fold or a branch point of cycles, where the orbit has no derivative.

    Source: Kuznetsov, *Elements of Applied Bifurcation Theory*, section 1.5, for the monodromy and the phase; Ermentrout and
    Terman, *Mathematical Foundations of Neuroscience*, chapter 8, for the phase response.

    **Example:** a shear couples the period to the amplitude: P = 2 pi / (omega - shear mu).

    ```python
    model = ssntk.normal_forms.hopf(0.25, 2.0, shear=1.0)
    orbit = ssntk.limit_cycle(model, [0.5, 0.0])
    kernel = ssntk.cycle_ntk(model, orbit, wrt=lambda m: m.mu)
    print(kernel.period_gradient.round(6), round(2 * np.pi / 1.75**2, 6))  # [2.051652] 2.051652
    ```
    """
    checked, theta = checked_orbit(model, orbit, u), Theta.of(model, wrt)
    metric = as_metric(scale, model.n_state)
    limit = float(as_scalar(memory, "memory", positive=True))
    count = None if k is None else as_count(k, "k")
    most = len(checked.ts) * model.n_state
    if count is not None and count >= min(most, theta.size):
        raise ValueError(f"k must be below the number of rows and of parameters, {min(most, theta.size)}, got {k}")
    # The derivative is about 1 / |mu - 1|, and the orbit is known to some roundings.
    doubts = np.maximum(checked.multiplier_error, float(np.finfo(dtype_of(model)).eps) ** 0.5)
    if (np.abs(checked.multipliers - 1) <= doubts).any():
        raise NumericalError(
            "the orbit has a multiplier that is 1 to within its error: at a fold or a branch point of cycles it has no "
            "derivative; move the parameter away from it"
        )
    watch_precision(dtype_of(model))
    sizes = np.ones(model.n_state) if metric is None else metric
    if checked.method == "shooting" and np.abs(checked.multipliers[:1]).max(initial=0.0) < MILD:
        found = by_shooting(theta, checked, sizes, limit)
    else:
        found = by_collocation(theta, checked, sizes)
    return _result(found, checked, sizes, count)


def checked_orbit(model: AbstractStateSpaceModel, orbit: object, u: Any) -> Orbit:
    """The orbit, with the input that is asked for. `ValueError` if the model or the orbit does not fit."""
    check_model(model)
    if isinstance(model, AbstractMap):
        raise ValueError("model must be a flow: the cycles of a map are fixed points of Iterated(map, k)")
    check_autonomous(model)
    known = as_instance(orbit, "orbit", Orbit)
    if known.x.shape[1] != model.n_state:
        raise ValueError(f"orbit must be one of this model, of {model.n_state} states, got {known.x.shape[1]}")
    for name in ("x", "period", "ts"):
        as_array(getattr(known, name), f"orbit.{name}")
    if not known.residual <= RESIDUAL:
        raise ValueError(f"orbit.residual must be at most {RESIDUAL:g} of its extent, got {known.residual:.2g}")
    drive = known.u if u is None else np.asarray(constant_input(model, u), float)
    if drive.shape != (model.n_input,):
        raise ValueError(f"orbit must be one of this model, with {model.n_input} inputs, got {drive.size}")
    return dataclasses.replace(known, u=drive)


def _result(found: Closed, orbit: Orbit, metric: np.ndarray, count: int | None) -> CycleKernel:
    nodes, rows, kernel = found.nodes, None, found.nodes.kernel
    if nodes.jacobian is not None:
        rows = nodes.jacobian / metric[:, None] * np.sqrt(nodes.weights)[:, None, None]
        rows = rows.reshape(-1, rows.shape[2])
    if kernel is not None:
        every = np.tile(metric, len(nodes.times))
        kernel = kernel / every[:, None] / every
    return CycleKernel(
        ts=found.ts,
        x=found.x,
        velocity=found.velocity,
        jacobian=found.jacobian,
        period=orbit.period,
        period_gradient=found.gradient,
        phase_response=found.response,
        exponents=np.log(orbit.multipliers.astype(complex)) / orbit.period,
        speed=found.speed,
        rows=rows,
        kernel=kernel,
        count=count,
    )
