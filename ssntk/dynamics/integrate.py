"""Solve the model in time. No other module calls `diffrax.diffeqsolve`."""

from collections.abc import Callable
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree

from ssntk.dynamics.probe import FittedProbe, Probe
from ssntk.dynamics.scales import typical_sizes
from ssntk.errors import NumericalError, as_count, as_instance, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.maps import AbstractMap
from ssntk.nouns import AnyArray, DType

T = TypeVar("T")


def _number(value: T) -> T | float:
    """Turn an int into a float, so that integrators with equal numbers are equal; leave anything else as it is."""
    return float(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else value


# The upper limit of `max_steps`, since each allowed step takes memory.
MOST_STEPS = 2**24


class Integrator(eqx.Module):
    """How a model is solved in time: a diffrax solver with adaptive or fixed steps, which land on the save times.

    - `solver`: a diffrax ODE solver. An explicit Runge-Kutta method is fastest for kernels.
    - `rtol`: the relative tolerance of adaptive steps. At least 32 roundings of the model's dtype are used.
    - `atol`: the absolute tolerance of adaptive steps, in state units. `None`: 1e-10 times the typical size of each state at
      the probe's start, rounded to a power of two. With it no result depends on the units of the states, which matters for
      states of different units.
    - `dt`: if given, steps are fixed, in units of time: equally many in each save interval, none longer than `dt`.
    - `max_steps`: the largest number of steps of one solve. If it needs more, `NumericalError` is raised.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(1), 1)
    steps = ssntk.Integrator(diffrax.Euler(), dt=0.5)  # x <- x - x / 2
    print(ssntk.simulate(model, [0.0, 0.5, 1.0], x0=[1.0], integrator=steps).ravel())  # [1.   0.5  0.25]
    ```
    """

    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    rtol: Any = eqx.field(default=1e-8, converter=_number)
    atol: Any = eqx.field(default=1e-10, converter=_number)
    dt: Any = eqx.field(default=None, converter=_number)
    max_steps: int = 16384

    def __check_init__(self):
        if not isinstance(self.solver, diffrax.AbstractSolver):
            raise ValueError(f"solver must be a diffrax solver, got {type(self.solver).__name__}")
        for name in ("rtol", "atol", "dt"):
            value = getattr(self, name)
            if value is None and name != "rtol":
                continue
            if not (isinstance(value, (int, float)) and np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if as_count(self.max_steps, "max_steps") > MOST_STEPS:
            raise ValueError(f"max_steps must be at most {MOST_STEPS}, which take memory each, got {self.max_steps}")
        if not isinstance(self.solver.term_structure, type) or not issubclass(
            self.solver.term_structure, diffrax.AbstractTerm
        ):
            raise ValueError(f"solver must solve an ordinary differential equation, got {type(self.solver).__name__}")
        if self.adaptive and not isinstance(self.solver, diffrax.AbstractAdaptiveSolver):
            raise ValueError(f"dt must be given for {type(self.solver).__name__}, which estimates no error")

    @property
    def adaptive(self) -> bool:
        """Whether the steps are adaptive."""
        return self.dt is None

    def grid(self, ts: Array) -> Array | None:
        """The times (N + 1,) of fixed steps; `None` if steps are adaptive."""
        if self.adaptive:
            return None
        if is_traced(ts):
            raise ValueError("probe.ts must be concrete with fixed steps: close over the probe instead of passing it to jit")
        times = np.asarray(ts)
        lengths = np.diff(times)
        each = max(1, int(np.ceil(lengths.max() / self.dt * (1 - 1e-12))))
        if each * lengths.size > self.max_steps:
            raise NumericalError(
                f"dt = {self.dt:g} needs {each * lengths.size} steps, more than max_steps = {self.max_steps}; raise either"
            )
        inner = times[:-1, None] + lengths[:, None] * (np.arange(each) / each)
        return jax.device_put(np.append(inner.ravel(), times[-1]).astype(times.dtype))


def steps_of(model: AbstractStateSpaceModel, integrator: object, probe: FittedProbe) -> tuple[Integrator, Array | None]:
    """The integrator of a model at a fitted probe, and the times of its fixed steps or `None`. Maps take their own steps."""
    ts = probe.ts
    if not isinstance(model, AbstractMap):
        integrator = Integrator() if integrator is None else as_instance(integrator, "integrator", Integrator)
        if integrator.atol is None:
            integrator = _in_units(model, integrator, probe)
        return integrator, integrator.grid(ts)
    if integrator is not None:
        raise ValueError("integrator must be None for a map, which takes its own steps")
    if is_traced(ts):
        raise ValueError("probe.ts must be concrete for a map: close over the probe instead of passing it to jit")
    times = np.asarray(ts, np.float64)
    counts = np.rint(np.diff(times) / model.dt)
    # The save times of a map must be whole steps, up to the rounding errors of the times.
    rounding = float(np.finfo(ts.dtype).eps) * np.abs(times).max()
    if rounding > 0.01 * model.dt:
        raise ValueError(
            f"probe.ts must resolve the map's step dt = {model.dt:g}: at t = {np.abs(times).max():g} {ts.dtype} does not; "
            "start at zero, or use float64"
        )
    if counts.min() < 1 or np.abs(np.diff(times) - counts * model.dt).max() > 8 * rounding + 1e-9 * model.dt:
        raise ValueError(f"probe.ts must lie whole steps of the map apart, dt = {model.dt:g}")
    if counts.sum() > MOST_STEPS:
        raise ValueError(
            f"probe.ts must be at most {MOST_STEPS} steps of the map long, got {counts.sum():.3g} of dt = {model.dt:g}"
        )
    grid = times[0] + model.dt * np.arange(int(counts.sum()) + 1)
    grid[np.append(0, np.cumsum(counts).astype(int))] = times
    return Integrator(solver=diffrax.Euler(), dt=model.dt, max_steps=grid.size), jax.device_put(grid.astype(ts.dtype))


def _in_units(model: AbstractStateSpaceModel, integrator: Integrator, probe: FittedProbe) -> Integrator:
    """The integrator with an absolute tolerance (n,), from the typical size of each state at the start of input 0."""
    if is_traced(model, probe):
        raise ValueError("integrator.atol must be a number while JAX traces: the sizes of the states are not known there")
    sizes = typical_sizes(model, probe.input(0)(probe.ts[0]), np.asarray(probe.x0[0]))
    # Round to powers of two, since the last digits may depend on the number of threads.
    tolerances = 1e-10 * 2.0 ** np.round(np.log2(sizes.astype(float)))
    atol = jax.device_put(tolerances.astype(sizes.dtype))
    return eqx.tree_at(lambda integrator: integrator.atol, integrator, atol, is_leaf=lambda leaf: leaf is None)


class Holding(diffrax.AbstractWrappedSolver):
    """A solver under an input that is constant during each step, and jumps at the save times of the probe."""

    solver: diffrax.AbstractSolver
    probe: FittedProbe
    b: Array

    def __init__(self, solver: Any, probe: FittedProbe, b: Array, forward: bool):
        # diffrax chooses the loop over the stages of a solver by its mode of differentiation, unless the solver is wrapped.
        if getattr(solver, "scan_kind", "") is None:
            kind = "lax" if forward else "bounded"
            solver = eqx.tree_at(lambda s: s.scan_kind, solver, kind, is_leaf=lambda leaf: leaf is None)
        self.solver, self.probe, self.b = solver, probe, b

    def __getattr__(self, name: str) -> Any:
        # diffrax reads and sets attributes of the solver, such as its root finder.
        if name.startswith("__") or name == "solver":
            raise AttributeError(name)
        return getattr(self.solver, name)

    @property
    def term_structure(self) -> Any:
        return self.solver.term_structure

    @property
    def term_compatible_contr_kwargs(self) -> Any:
        return self.solver.term_compatible_contr_kwargs

    @property
    def interpolation_cls(self) -> Any:
        return self.solver.interpolation_cls

    def order(self, terms: Any) -> Any:
        return self.solver.order(terms)

    def error_order(self, terms: Any) -> Any:
        return self.solver.error_order(terms)

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Any:
        return self.solver.init(terms, t0, t1, y0, self._held(t0, t1, args))

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any) -> Any:
        # A velocity that the solver keeps from the last step is another behind a jump.
        jumps = made_jump | jnp.any(self.probe.ts == t0)
        return self.solver.step(terms, t0, t1, y0, self._held(t0, t1, args), solver_state, jumps)

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        return self.solver.func(terms, t0, y0, args)

    def _held(self, t0: Any, t1: Any, args: Any) -> Any:
        return args[0], self.probe.during(self.b, t0, t1)(t0)


class Trajectory(eqx.Module):
    """Every step of one solve: `times` (N + 1,), `states` (N + 1, n), and `saved` (T,), the indices of the save times.

    With adaptive steps N is `max_steps`, and the entries after `saved[-1]` are padding.
    """

    times: Float[Array, " steps"]
    states: Float[Array, "steps n"]
    saved: Int[Array, " T"]
    result: diffrax.RESULTS


def solve(
    model: AbstractStateSpaceModel,
    probe: FittedProbe,
    b: int | Array,
    integrator: Integrator,
    grid: Array | None,
    direction: AbstractStateSpaceModel | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    moving: Float[Array, " n"] | None = None,
) -> Trajectory:
    """Integrate input `b` of a fitted probe and record every accepted step. Traceable and differentiable in the model.

    With a `direction`, a tangent of the model, an adaptive step is accepted only if it also resolves the sensitivity of the
    state along it. This is needed for kernels: at a fixed point the state has no error for any step, but the kernel does.
    `moving` is the sensitivity at the start, by default zero.
    """
    if isinstance(model, AbstractMap):
        assert grid is not None
        return _iterated(model, probe, b, grid)
    ts, drive = probe.ts, probe.input(b)
    if grid is None:
        # No step can be more accurate than rounding: with the default tolerances, float32 would reject all steps.
        rtol = max(integrator.rtol, 32 * float(jnp.finfo(ts.dtype).eps))
        controller = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=integrator.atol), step_ts=ts)
        max_steps = integrator.max_steps
    else:
        controller, max_steps = diffrax.StepTo(grid), grid.shape[0] - 1
    x0 = probe.x0[b]

    def field(t: Any, y: PyTree, given: tuple[AbstractStateSpaceModel, Array | None]) -> PyTree:
        model, held = given
        u = drive(t) if held is None else held
        if direction is None or grid is not None:
            return model.vector_field(t, y, u)
        dynamic, static = eqx.partition(model, eqx.is_inexact_array)
        return jax.jvp(lambda model, x: eqx.combine(model, static).vector_field(t, x, u), (dynamic, y[0]), (direction, y[1]))

    solver = integrator.solver if grid is None else _on_given_steps(integrator, ts.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        Holding(solver, probe, jnp.asarray(b), isinstance(adjoint, diffrax.ForwardMode)) if probe.hold else solver,
        t0=ts[0],
        t1=ts[-1],
        dt0=None,
        y0=x0 if direction is None or grid is not None else (x0, jnp.zeros_like(x0) if moving is None else moving),
        args=(model, drive(ts[0]) if probe.hold else None),
        saveat=diffrax.SaveAt(t0=True, steps=True),
        stepsize_controller=controller,
        max_steps=max_steps,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        throw=False,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    states = solution.ys[0] if isinstance(solution.ys, tuple) else solution.ys
    return Trajectory(solution.ts, states, jnp.searchsorted(solution.ts, ts), solution.result)


def _iterated(model: AbstractMap, probe: FittedProbe, b: int | Array, grid: Array) -> Trajectory:
    """Record every step of a map with input `b`."""
    start = probe.x0[b]

    def advance(x: Array, times: tuple[Any, Any]) -> tuple[Array, Array]:
        x = model.advance(times[0], x, probe.during(b, *times)(times[0]))
        return x, x

    states = jnp.concatenate([start[None], jax.lax.scan(advance, start, (grid[:-1], grid[1:]))[1]])
    return Trajectory(grid, states, jnp.searchsorted(grid, probe.ts), diffrax.RESULTS.successful)


def _on_given_steps(integrator: Integrator, dtype: DType) -> diffrax.AbstractSolver:
    """The solver for given steps. An implicit solver needs tolerances for its stages, which fixed steps do not have. And
    since no step can be refused, diffrax's default, the chord method, will not do: it mistakes rounding for divergence."""
    solver = integrator.solver
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    least = 32 * float(jnp.finfo(dtype).eps)
    atol = integrator.atol * max(1.0, least / 1e-10) if eqx.is_array(integrator.atol) else max(integrator.atol, least)
    root_finder = optx.Newton(rtol=max(integrator.rtol, least), atol=atol)
    return eqx.tree_at(lambda s: s.root_finder, solver, root_finder)


def followed(
    field: Callable[[Any], PyTree], state: PyTree, end: Array, tolerance: float, most: int, *, stiff: bool = False
) -> diffrax.Solution:
    """The solution of dy/dt = field(y) from `state` until `end`, or for `most` steps of the solver, at each of its steps.

    Entries beyond the last step are infinite. `stiff`: take an implicit solver.
    """
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(y)),
        diffrax.Kvaerno5() if stiff else diffrax.Tsit5(),
        jnp.zeros_like(end),
        end,
        None,
        state,
        saveat=diffrax.SaveAt(t0=True, steps=True),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=most,
        throw=False,
    )


def check_solved(result: diffrax.RESULTS, integrator: Integrator, states: AnyArray) -> None:
    """Raise `NumericalError` with the reason if any solve failed, or if `states` (B, T, n) at the save times are not finite.

    While tracing, values are unknown and nothing is checked.
    """
    if is_traced(result, states):
        return
    failed = ~np.asarray(result == diffrax.RESULTS.successful)
    if failed.any():
        first = int(np.flatnonzero(failed.ravel())[0])
        # diffrax looks the message up on the device.
        code = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf).ravel()[first]), result)
        atol = f"{np.min(integrator.atol):g}{' and more' if np.size(integrator.atol) > 1 else ''}"
        raise NumericalError(
            f"the solve of input {first} failed ({int(failed.sum())} of {failed.size} did; max_steps = "
            f"{integrator.max_steps}, rtol = {integrator.rtol:g}, atol = {atol}): {diffrax.RESULTS[code]}"
        )
    diverged = ~np.isfinite(np.asarray(states)).all(axis=(1, 2))
    if diverged.any():
        raise NumericalError(f"the solve of input {int(np.flatnonzero(diverged)[0])} diverged: its states are not finite")


@eqx.filter_jit
def _simulate(
    model: AbstractStateSpaceModel,
    probe: FittedProbe,
    integrator: Integrator,
    grid: Array | None,
    adjoint: diffrax.AbstractAdjoint | None,
) -> tuple[Float[Array, "B T n"], diffrax.RESULTS]:
    def one(b: Array) -> tuple[Array, diffrax.RESULTS]:
        trajectory = solve(model, probe, b, integrator, grid, adjoint=adjoint)
        # If the solve failed, rows that it did not reach become NaN, so that they are not mistaken for states.
        states = jnp.where(
            trajectory.saved[:, None] < trajectory.times.shape[0], trajectory.states[trajectory.saved], jnp.nan
        )
        return states, trajectory.result

    return jax.vmap(one)(jnp.arange(probe.n_batch))


def simulate(
    model: AbstractStateSpaceModel,
    probe: Any,
    *,
    integrator: Integrator | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    x0: Any = None,
) -> Float[Array, "B T n"]:
    """Solve `model` in time, and return its states (B, T, n) at the save times of `probe`.

    **Arguments:**

    - `probe`: a [`Probe`][]. Or save times (T,), if `x0` is given: then there is no input.
    - `integrator`: an [`Integrator`][]. Default `Integrator()`; for an [`EulerMap`][] it must be `None`. Inside `jax.jit`
      fixed steps need known times: make the probe there from given times, or close over it.
    - `adjoint`: how diffrax differentiates the solve. Default `diffrax.RecursiveCheckpointAdjoint()`, which needs the least
      memory but works backwards only. `diffrax.DirectAdjoint()` works forwards too.
    - `x0`: (n,) or (B, n) initial states, if `probe` holds save times only: `simulate(model, ts, x0=x0)` is
      `simulate(model, Probe(ts, x0=x0))`.

    Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if the solver fails.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(1), 1)
    print(ssntk.simulate(model, [0.0, 1.0], x0=[1.0]).ravel().round(6))  # [1.       0.367879]
    ```
    """
    check_model(model)
    if x0 is not None:
        if isinstance(probe, Probe):
            raise ValueError("x0 must be given in the probe, ssntk.Probe(ts, us, x0)")
        probe = Probe(probe, x0=x0) if isinstance(probe, (list, tuple, np.ndarray, jax.Array)) else probe
    probe = as_instance(probe, "probe", Probe).fit(model)
    integrator, grid = steps_of(model, integrator, probe)
    if adjoint is not None and not isinstance(adjoint, diffrax.AbstractAdjoint):
        raise ValueError(f"adjoint must be a diffrax adjoint, got {type(adjoint).__name__}")
    states, result = _simulate(model, probe, integrator, grid, adjoint)
    check_solved(result, integrator, states)
    return states
