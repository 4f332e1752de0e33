"""The parameter Jacobian of a solved network, exact for the discrete solve.

One reverse pass per save interval carries n cotangents and gives the interval's state transition `Phi = dx'/dx` and
parameter derivative `L = dx'/dtheta`; then `S' = Phi S + L`. Every step is replayed from the recorded one, so that
adaptive steps are differentiated on the grid that was accepted, and their number compiles nothing anew.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, solve, steps_of
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, as_instance, is_traced
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.theta import Positions, get, put, size, theta_positions

METHODS = ("auto", "segments", "autodiff")


def parameter_jacobian(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    of: str = "state",
    wrt: Callable[[Any], PyTree] | None = None,
    integrator: Integrator | None = None,
    method: str = "auto",
) -> Float[Array, "B T m p"]:
    """J = d(observation)/d(theta): (B, T, n, p) for the state, (B, T, m, p) for the readout.

    **Arguments:**

    - `of`: `"state"` or `"readout"`, what is observed.
    - `wrt`: a lens such as `lambda m: m.weight`, or one that returns a tuple; default `model.trainable(of)`.
      p runs over its leaves in tree order, each raveled in C order.
    - `integrator`: default `Integrator()`, and `None` for an [`EulerMap`][]. The Jacobian is that of the discrete solve,
      not of its limit; adaptive steps are accepted where they resolve the state and its sensitivity along one random
      direction of theta.
    - `method`: `"segments"` is the recursion over save intervals, for explicit Runge-Kutta solvers; `"autodiff"` is
      `jax.jacrev` through `diffeqsolve` on the same steps, for any solver: tens of times slower, kept as the reference;
      `"auto"` takes the recursion wherever it applies.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where the solver fails.
    """
    as_choice(of, "of", ("state", "readout"))
    as_choice(method, "method", METHODS)
    check_model(model)
    at = theta_positions(model, of, wrt)
    probe = as_instance(probe, "probe", Probe).fit(model)
    integrator, grid = steps_of(model, integrator, probe.ts)
    replayable = _tableau(integrator.solver) is not None
    if method == "segments" and not replayable:
        raise ValueError(f"method 'segments' needs an explicit Runge-Kutta solver, got {type(integrator.solver).__name__}")
    track = _record(model, at, probe, integrator, grid)
    check_solved(track.result, integrator, _saved_states(track))
    if method == "autodiff" or not replayable:
        return probe.observed(_by_autodiff(model, at, probe, of, integrator, track))
    return probe.observed(_by_segments(model, at, probe, of, integrator.solver, track))


def _saved_states(tracks: Trajectory) -> Array:
    """The states (B, T, n) at the save times."""
    return jnp.take_along_axis(tracks.states, tracks.saved[:, :, None], axis=1)


@eqx.filter_jit
def _record(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, integrator: Integrator, grid: Array | None
) -> Trajectory:
    """The accepted steps of every input. One random direction of theta excites every mode that the kernel must resolve."""
    theta = get(model, at)
    keys = jax.random.split(jax.random.key(0), len(theta))
    noise = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, theta, strict=True)]
    still = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, model)
    direction = eqx.filter(put(still, at, noise), eqx.is_inexact_array)
    return jax.lax.map(lambda b: solve(model, probe, b, integrator, grid, direction), jnp.arange(probe.n_batch))


def _tableau(solver: diffrax.AbstractSolver) -> tuple[list[Any], Any, Any] | None:
    """(a, b, c) of an explicit Runge-Kutta method: stage rows, solution weights, stage times; else `None`."""
    if isinstance(solver, diffrax.Euler):
        return [], [1.0], []
    tableau = getattr(solver, "tableau", None)
    if isinstance(solver, diffrax.AbstractERK) and tableau is not None:
        return [row.tolist() for row in tableau.a_lower], tableau.b_sol.tolist(), tableau.c.tolist()
    return None


def _step(solver: diffrax.AbstractSolver, field: Callable[..., Array], t0: Array, t1: Array, x: Array) -> Array:
    """One step of an explicit Runge-Kutta solver, unrolled: the same map as the solver's own."""
    tableau = _tableau(solver)
    assert tableau is not None
    rows, weights, times = tableau
    dt = t1 - t0

    def weighted(ratios: Any) -> Array:
        return sum((dt * a * k for a, k in zip(ratios, stages, strict=False) if a != 0), jnp.zeros_like(x))

    stages: list[Array] = []
    stages.append(field(t0, x))
    for row, c in zip(rows, times, strict=True):
        # A last stage with no weight serves only the solver's error estimate.
        if len(stages) < max(i for i, b in enumerate(weights) if b != 0) + 1:
            stages.append(field(t0 + c * dt, x + weighted(row)))
    return x + weighted(weights)


@eqx.filter_jit
def _by_segments(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, of: str, solver: diffrax.AbstractSolver, tracks: Trajectory
) -> Float[Array, "B T m p"]:
    theta, n, p = get(model, at), model.n_state, size(model, at)
    dtype = probe.ts.dtype

    def transition(b: Array, first: Array, last: Array, track: Trajectory) -> tuple[Array, Array]:
        """Phi (n, n) and L (n, p) of the steps from `first` to `last`."""
        drive = probe.input(b)

        def step(theta: list[Array], x: Array, t0: Array, t1: Array) -> Array:
            moved = put(model, at, theta)
            return _step(solver, lambda t, x: moved.vector_field(t, x, drive(t)), t0, t1, x)

        def back(i: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            cotangents, local = carry
            j = last - 1 - i
            t0, t1 = track.times[j], track.times[j + 1]
            _, pull = jax.vjp(lambda theta, x: step(theta, x, t0, t1), theta, track.states[j])
            by_theta, by_x = jax.vmap(pull)(cotangents)
            return by_x, jax.tree.map(jnp.add, local, by_theta)

        zero = [jnp.zeros((n, *leaf.shape), leaf.dtype) for leaf in theta]
        phi, local = jax.lax.fori_loop(0, last - first, back, (jnp.eye(n, dtype=dtype), zero))
        return phi, jnp.concatenate([leaf.reshape(n, -1) for leaf in local], axis=1)

    def one(b: Array, buffer: Array) -> Array:
        track = jax.tree.map(lambda leaf: leaf[b], tracks)

        def interval(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            sensitivity, buffer = carry
            phi, local = transition(b, track.saved[k], track.saved[k + 1], track)
            sensitivity = phi @ sensitivity + local
            return sensitivity, buffer.at[b, k + 1].set(observe(track.states[track.saved[k + 1]], sensitivity))

        start = jnp.zeros((n, p), dtype)
        buffer = buffer.at[b, 0].set(observe(track.states[0], start))
        return jax.lax.fori_loop(0, probe.ts.shape[0] - 1, interval, (start, buffer))[1]

    def observe(x: Array, sensitivity: Array) -> Array:
        return _readout_rows(model, at, x, sensitivity) if of == "readout" else sensitivity

    # One buffer that every loop writes in place: J is large, and filling fresh pages costs as much as the products.
    rows = model.n_output if of == "readout" else n
    empty = jnp.zeros((probe.n_batch, probe.ts.shape[0], rows, p), dtype)
    return jax.lax.fori_loop(0, probe.n_batch, one, empty)


def _readout_rows(model: AbstractStateSpaceModel, at: Positions, x: Array, sensitivity: Array) -> Array:
    """dy/dtheta = H S + dh/dtheta at one state."""
    theta = get(model, at)
    by_theta, by_x = jax.jacrev(lambda theta, x: put(model, at, theta).readout(x), argnums=(0, 1))(theta, x)
    return by_x @ sensitivity + jnp.concatenate([leaf.reshape(by_x.shape[0], -1) for leaf in by_theta], axis=1)


def _by_autodiff(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, of: str, integrator: Integrator, tracks: Trajectory
) -> Float[Array, "B T m p"]:
    """`jacrev` through `diffeqsolve`, one input at a time: jointly, every row would be pulled back through every input.

    On a grid that was accepted adaptively, another number of steps compiles anew.
    """
    if is_traced(tracks):
        raise ValueError("method 'autodiff' must see the steps, so it cannot run inside jit")
    rows = []
    for b in range(probe.n_batch):
        grid = tracks.times[b, : int(tracks.saved[b, -1]) + 1]
        row, again = _differentiated(model, at, probe, of, integrator, jnp.asarray(b), grid)
        again = jax.tree.map(lambda leaf: leaf[None], again)
        check_solved(again.result, integrator, _saved_states(again))
        rows.append(row)
    return jnp.stack(rows)


@eqx.filter_jit
def _differentiated(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, of: str, integrator: Integrator, b: Array, grid: Array
) -> tuple[Float[Array, "T m p"], Trajectory]:
    """The rows, and the solve that they were differentiated through."""

    def observe(theta: list[Array]) -> tuple[Array, Trajectory]:
        moved = put(model, at, theta)
        trajectory = solve(moved, probe, b, integrator, grid)
        states = trajectory.states[trajectory.saved]
        return jax.vmap(moved.readout)(states) if of == "readout" else states, trajectory

    by_theta, trajectory = jax.jacrev(observe, has_aux=True)(get(model, at))
    return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in by_theta], axis=2), trajectory
