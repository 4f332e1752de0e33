"""The parameter Jacobian of a solved network, exact for the discrete solve.

Segments: one reverse pass per save interval carries n cotangents and gives the interval's state transition `Phi = dx'/dx`
and parameter derivative `L = dx'/dtheta`; then `S' = Phi S + L`. Rows: one reverse pass through the whole solve carries
every row that is observed.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, solve
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, is_traced
from ssntk.kernel.products import pull_one, push
from ssntk.kernel.replay import Replay, record, saved_states
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.theta import get, put, size, theta_positions

METHODS = ("auto", "segments", "rows", "autodiff")


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
    - `method`: `"segments"` is the recursion over save intervals, and `"rows"` one backward sweep with all rows of an input,
      both for explicit Runge-Kutta solvers; `"autodiff"` is `jax.jacrev` through `diffeqsolve` on the same steps, for any
      solver: tens of times slower, kept as the reference; `"auto"` takes rows where an input has at most
      1.5 n of them, segments elsewhere, and autodiff where the solver is implicit. The answer is the same to 1e-12.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where the solver fails.
    """
    as_choice(of, "of", ("state", "readout"))
    as_choice(method, "method", METHODS)
    check_model(model)
    return jacobian_of(record(model, theta_positions(model, of, wrt), probe, integrator, of), method)


def jacobian_of(replay: Replay, method: str = "auto") -> Float[Array, "B T m p"]:
    """J of a recorded solve, (B, T, rows, p), masked."""
    if method in ("segments", "rows") and not replay.replayable:
        solver = type(replay.integrator.solver).__name__
        raise ValueError(f"method {method!r} needs an explicit Runge-Kutta solver, got {solver}")
    if method == "autodiff" or not replay.replayable:
        return replay.probe.observed(_by_autodiff(replay))
    # A sweep carries all rows through every step, the recursion n: measured to be even at about 1.5 n (docs/performance.md).
    few = 2 * replay.rows * replay.probe.ts.shape[0] <= 3 * replay.model.n_state
    rows = method == "rows" or (method == "auto" and few)
    return replay.probe.observed(_by_rows(replay) if rows else _by_segments(replay))


@eqx.filter_jit
def _by_rows(replay: Replay) -> Float[Array, "B T m p"]:
    count, rows = replay.probe.ts.shape[0], replay.rows
    every = jnp.eye(count * rows, dtype=replay.probe.ts.dtype).reshape(-1, count, rows)
    # On the diagonal: every row is the pull-back of its own unit vector.
    return jax.lax.map(lambda b: pull_one(replay, b, every).reshape(count, rows, -1), jnp.arange(replay.probe.n_batch))


@eqx.filter_jit
def _by_segments(replay: Replay) -> Float[Array, "B T m p"]:
    # One buffer that every loop writes in place: J is large, and filling fresh pages costs as much as the products.
    shape = (replay.probe.n_batch, replay.probe.ts.shape[0], replay.rows, size(replay.model, replay.at))
    return fold_rows(replay, lambda out, b, k, rows: out.at[b, k].set(rows), jnp.zeros(shape, replay.probe.ts.dtype))


def fold_rows(replay: Replay, visit: Callable[[Any, Array, Array, Array], Any], start: Any) -> Any:
    """`visit(carry, b, k, rows)` over every input b and save time k with its rows (m, p), by the segment recursion."""
    model, probe, at = replay.model, replay.probe, replay.at
    theta, n, p = get(model, at), model.n_state, size(model, at)
    dtype = probe.ts.dtype

    def transition(b: Array, first: Array, last: Array, track: Trajectory) -> tuple[Array, Array]:
        """Phi (n, n) and L (n, p) of the steps from `first` to `last`."""
        step = replay.step(b)

        def back(i: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            cotangents, local = carry
            j = last - 1 - i
            _, pull = jax.vjp(lambda theta, x: step(theta, x, j), theta, track.states[j])
            by_theta, by_x = jax.vmap(pull)(cotangents)
            return by_x, jax.tree.map(jnp.add, local, by_theta)

        zero = [jnp.zeros((n, *leaf.shape), leaf.dtype) for leaf in theta]
        phi, local = jax.lax.fori_loop(0, last - first, back, (jnp.eye(n, dtype=dtype), zero))
        return phi, jnp.concatenate([leaf.reshape(n, -1) for leaf in local], axis=1)

    def observed(b: Array, k: Array, x: Array, sensitivity: Array) -> Array:
        """The rows at one save time: dg/dx S + dg/dtheta of what is observed."""
        if replay.observation == "state":
            return sensitivity
        observe = replay.observe(b)
        by_theta, by_x = jax.jacrev(lambda theta, x: observe(theta, x, k), argnums=(0, 1))(theta, x)
        return by_x @ sensitivity + jnp.concatenate([leaf.reshape(by_x.shape[0], -1) for leaf in by_theta], axis=1)

    def one(b: Array, carry: Any) -> Any:
        track = jax.tree.map(lambda leaf: leaf[b], replay.tracks)

        def interval(k: Array, both: tuple[Array, Any]) -> tuple[Array, Any]:
            sensitivity, carry = both
            phi, local = transition(b, track.saved[k], track.saved[k + 1], track)
            sensitivity = phi @ sensitivity + local
            return sensitivity, visit(carry, b, k + 1, observed(b, k + 1, track.states[track.saved[k + 1]], sensitivity))

        still, first = jnp.zeros((n, p), dtype), jnp.asarray(0)
        carry = visit(carry, b, first, observed(b, first, track.states[0], still))
        return jax.lax.fori_loop(0, probe.ts.shape[0] - 1, interval, (still, carry))[1]

    return jax.lax.fori_loop(0, probe.n_batch, one, start)


def _by_autodiff(replay: Replay) -> Float[Array, "B T m p"]:
    """`jacrev` through `diffeqsolve`, one input at a time: jointly, every row would be pulled back through every input.

    On a grid that was accepted adaptively, another number of steps compiles anew.
    """
    tracks = replay.tracks
    if is_traced(tracks):
        raise ValueError("method 'autodiff' must see the steps, so it cannot run inside jit")
    rows = []
    for b in range(replay.probe.n_batch):
        grid = tracks.times[b, : int(tracks.saved[b, -1]) + 1]
        row, again = _differentiated(replay, jnp.asarray(b), grid)
        again = jax.tree.map(lambda leaf: leaf[None], again)
        check_solved(again.result, replay.integrator, saved_states(again))
        rows.append(row)
    return jnp.stack(rows)


@eqx.filter_jit
def _differentiated(replay: Replay, b: Array, grid: Array) -> tuple[Float[Array, "T m p"], Trajectory]:
    """The rows, and the solve that they were differentiated through."""
    observe = replay.observe(b)

    def rows(theta: list[Array]) -> tuple[Array, Trajectory]:
        moved = put(replay.model, replay.at, theta)
        trajectory = solve(moved, replay.probe, b, replay.integrator, grid)
        saved = jnp.arange(replay.probe.ts.shape[0])
        return jax.vmap(lambda x, k: observe(theta, x, k))(trajectory.states[trajectory.saved], saved), trajectory

    by_theta, trajectory = jax.jacrev(rows, has_aux=True)(get(replay.model, replay.at))
    return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in by_theta], axis=2), trajectory


def initial_state_jacobian(
    model: AbstractStateSpaceModel, probe: Probe, *, of: str = "state", integrator: Integrator | None = None
) -> Float[Array, "B T m n"]:
    """d(observation)/d(x0): (B, T, n, n) for the state, the identity at first, and (B, T, m, n) for the readout.

    Arguments and errors as in [`parameter_jacobian`][]; the solver must be an explicit Runge-Kutta method. Adaptive steps
    are those of the parameter Jacobian, which resolve the sensitivity too.
    """
    as_choice(of, "of", ("state", "readout"))
    check_model(model)
    replay = record(model, theta_positions(model, "state", None), probe, integrator, of, formed=False)
    if not replay.replayable:
        raise ValueError(f"integrator must have an explicit solver, got {type(replay.integrator.solver).__name__}")
    still = Replay(replay.model, (), replay.probe, replay.integrator, replay.tracks, of)
    n, dtype = replay.model.n_state, replay.probe.ts.dtype
    # No direction in theta, and every direction of the initial state.
    columns = push(still, jnp.zeros((n, 0), dtype), jnp.eye(n, dtype=dtype))
    return replay.probe.observed(jnp.moveaxis(columns, 0, -1))
