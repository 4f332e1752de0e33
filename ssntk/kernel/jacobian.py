"""The parameter Jacobian of a solved network, exact for the discrete solve.

There are two ways. A save interval is the time between two save times.

Segments: one reverse pass for each save interval carries n cotangents. It gives the interval's state transition
`Phi = dx'/dx` (n, n) and its parameter derivative `L = dx'/dtheta` (n, p). The sensitivity S = dx/dtheta (n, p) at the end
of the interval is then `S' = Phi S + L`.

Rows: one reverse pass through the whole solve carries one cotangent for every observed row.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, solve
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, as_instance, is_traced
from ssntk.kernel.observe.observations import NAMED
from ssntk.kernel.products import pull_one, push
from ssntk.kernel.replay import Replay, check_room, record, saved_states
from ssntk.kernel.sites.walk import Index, Walk
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.theta import Theta
from ssntk.nouns import Lens

# The value that a loop over rows carries.
T = TypeVar("T")

# If steps cannot be replayed, cotangents of theta are pulled back in chunks of this many bytes. Smaller chunks are slower.
CHUNK_BYTES = 1e9

METHODS = ("auto", "segments", "rows", "chunks", "autodiff")


def parameter_jacobian(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    of: str = "state",
    wrt: Lens | None = None,
    integrator: Integrator | None = None,
    method: str = "auto",
) -> Float[Array, "B T m p"]:
    """J = d(observation)/d(theta): (B, T, n, p) for the state, (B, T, m, p) for the readout.

    **Arguments:**

    - `of`: `"state"` or `"readout"`, what is observed.
    - `wrt`: a lens such as `lambda m: m.weight`, or one that returns a tuple; default `model.trainable(of)`.
      p runs over its leaves in tree order, each raveled in C order.
    - `integrator`: default `Integrator()`; for an [`EulerMap`][] it must be `None`. The Jacobian is that of the discrete
      solve, not of its limit. Adaptive steps are accepted if they resolve the state, and also its sensitivity along one
      random direction of theta.
    - `method`: the algorithm. All give the same answer to 1e-12.
      `"segments"` is the recursion over save intervals, for explicit Runge-Kutta solvers.
      `"rows"` is one backward sweep with all rows of an input, for the same solvers.
      `"chunks"` pulls some rows at a time back through `diffeqsolve` on the same steps, for any solver.
      `"autodiff"` is `jax.jacrev` through `diffeqsolve`, kept as the reference.
      `"auto"` uses rows if an input has at most 1.5 n of them, and segments otherwise. If the solver is implicit, it uses
      chunks. [`kernel_plan`][] reports the choice.

    Raises `ValueError` for arguments that do not fit, `NumericalError` if the solver fails.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, so that dx/dp = t
    print(ssntk.parameter_jacobian(model, ssntk.Probe([0.0, 1.0, 2.0])).ravel().round(6))  # [0. 1. 2.]
    ```
    """
    as_choice(of, "of", ("state", "readout"))
    as_method(method)
    check_model(model)
    theta, fitted = Theta.of(model, wrt, of), as_instance(probe, "probe", Probe).fit(model)
    rows = fitted.n_batch * fitted.ts.shape[0] * NAMED[of].rows(model)
    check_room(rows * theta.size * np.dtype(fitted.ts.dtype).itemsize, "Jacobian")
    return jacobian_of(record(theta, fitted, integrator, NAMED[of]), method)


def as_method(method: object) -> str:
    """`method`, if it forms the Jacobian. Otherwise raises `ValueError`, which says what `"sites"` is for."""
    if method == "sites":
        known = ", ".join(map(repr, METHODS))
        raise ValueError(f"method must be one of {known}, got 'sites', which makes the kernel of ntk without a Jacobian")
    return as_choice(method, "method", METHODS)


class Choice(NamedTuple):
    """A method, and why it is used."""

    method: str
    why: str


def jacobian_choice(replay: Replay, method: str) -> Choice:
    """Which method computes the Jacobian of a recorded solve. Raises `ValueError` if `method` is not possible."""
    solver = type(replay.integrator.solver).__name__
    if method in ("segments", "rows") and not replay.replayable:
        raise ValueError(f"method {method!r} needs an explicit Runge-Kutta solver, got {solver}")
    if method != "auto":
        return Choice(method, "it was asked for")
    if not replay.replayable:
        return Choice("chunks", f"{solver} is not an explicit Runge-Kutta method, so that its steps cannot be replayed")
    rows, n = replay.rows * replay.probe.ts.shape[0], replay.model.n_state
    # A sweep carries all rows through every step, the recursion carries n. Both take equally long at about 1.5 n rows, as
    # was measured (docs/performance.md).
    if 2 * rows <= 3 * n:
        return Choice("rows", f"an input has {rows} rows, no more than 1.5 n = {1.5 * n:g}")
    return Choice("segments", f"an input has {rows} rows, more than 1.5 n = {1.5 * n:g}")


def jacobian_of(replay: Replay, method: str = "auto", first: int = 0, count: int | None = None) -> Float[Array, "B T m p"]:
    """J (B, T, rows, p) of a recorded solve, masked. If `count` is given: J of `count` inputs, from the input `first` on."""
    chosen = jacobian_choice(replay, method).method
    batch = replay.probe.n_batch
    count = batch if count is None else count
    check_room(replay.bytes * count / batch, "Jacobian")
    if chosen in ("rows", "segments"):
        rows = (_by_rows if chosen == "rows" else _by_segments)(replay, jax.device_put(np.asarray(first)), count)
    else:
        rows = _by_autodiff(replay, range(first, first + count), CHUNK_BYTES if chosen == "chunks" else np.inf)
    return replay.probe.observed(rows, first)


@eqx.filter_jit
def _by_rows(replay: Replay, first: Array, count: int) -> Float[Array, "B T m p"]:
    times, rows = replay.probe.ts.shape[0], replay.rows
    every = jnp.eye(times * rows, dtype=replay.probe.ts.dtype).reshape(-1, times, rows)
    # Every row is the pull-back of its own unit vector.
    return jax.lax.map(lambda b: pull_one(replay, first + b, every).reshape(times, rows, -1), jnp.arange(count))


@eqx.filter_jit
def _by_segments(replay: Replay, first: Array, count: int) -> Float[Array, "B T m p"]:
    # J is large, and filling new memory costs as much as the products. So every loop writes into one buffer, in place.
    out = jnp.zeros((count, *replay.shape[1:]), replay.probe.ts.dtype)
    return fold_rows(replay, lambda out, b, k, rows: out.at[b - first, k].set(rows), out, first, count)


def fold_rows(
    replay: Replay, visit: Callable[[T, Array, Array, Array], T], start: T, first: Index = 0, count: int | None = None
) -> T:
    """Call `visit(carry, b, k, rows)` for every input b and save time k, with the rows (m, p) there, and return the carry.

    The rows are computed by the segment recursion.
    """
    n, rows, p = replay.model.n_state, replay.rows, replay.theta.size
    dtype = replay.probe.ts.dtype

    def one(b: Array, carry: T) -> T:
        walk = Walk(replay, b)

        def observed(k: Array, sensitivity: Array) -> Array:
            """The rows (m, p) at one save time: dg/dx S + dg/dtheta, if g is observed."""
            if replay.observation.direct:
                return sensitivity
            by_theta, by_x = walk.look_back(k, jnp.eye(rows, dtype=dtype))
            return by_x @ sensitivity + walk.observed_columns(by_theta, rows)

        def interval(k: Array, both: tuple[Array, T]) -> tuple[Array, T]:
            sensitivity, carry = both
            phi, gathered = walk.back(k, jnp.eye(n, dtype=dtype))
            sensitivity = phi @ sensitivity + walk.columns(gathered[1], n)
            return sensitivity, visit(carry, b, k + 1, observed(k + 1, sensitivity))

        still, begin = jnp.zeros((n, p), dtype), jnp.asarray(0)
        carry = visit(carry, b, begin, observed(begin, still))
        return jax.lax.fori_loop(0, replay.probe.ts.shape[0] - 1, interval, (still, carry))[1]

    last = first + (replay.probe.n_batch if count is None else count)
    return jax.lax.fori_loop(first, last, one, start)


def _by_autodiff(replay: Replay, inputs: range, most: float) -> Float[Array, "B T m p"]:
    """J by differentiating through `diffeqsolve`, on the steps that were recorded.

    One input is differentiated at a time. Otherwise every row would be pulled back through every input. So many rows are
    pulled back together as take `most` bytes; if that is all of them, this is `jacrev`. If adaptive steps differ in number,
    the function is compiled again.
    """
    tracks = replay.tracks
    if is_traced(tracks):
        raise ValueError("derivatives through diffeqsolve must see the steps, so they cannot be taken inside jit")
    chunk = max(1, int(min(most / (replay.bytes / math.prod(replay.shape[:3])), replay.rows * replay.probe.ts.shape[0])))
    rows = []
    for b in inputs:
        grid = tracks.times[b, : int(tracks.saved[b, -1]) + 1]
        row, again = _differentiated(replay, jax.device_put(np.asarray(b)), grid, chunk)
        again = jax.tree.map(lambda leaf: leaf[None], again)
        check_solved(again.result, replay.integrator, saved_states(again))
        rows.append(row)
    return jnp.stack(rows)


@eqx.filter_jit
def _differentiated(replay: Replay, b: Array, grid: Array, chunk: int) -> tuple[Float[Array, "T m p"], Trajectory]:
    """The rows (T, m, p), and the solve that they were differentiated through."""
    ts, drive = replay.probe.ts, replay.probe.input(b)

    def rows(leaves: list[Array]) -> tuple[Array, Trajectory]:
        trajectory = solve(theta.put(leaves), replay.probe, b, replay.integrator, grid)
        seen = jax.vmap(lambda t, x: replay.look(leaves, t, x, drive(t)))(ts, trajectory.states[trajectory.saved])
        return seen, trajectory

    theta = replay.theta
    seen, pull, trajectory = jax.vjp(rows, theta.arrays, has_aux=True)
    every = jnp.eye(seen.size, dtype=seen.dtype).reshape(-1, *seen.shape)
    (by_theta,) = jax.vmap(pull)(every) if chunk == seen.size else jax.lax.map(pull, every, batch_size=chunk)
    by_theta = [leaf.reshape(*seen.shape, *leaf.shape[1:]) for leaf in by_theta]
    return theta.ravel(by_theta, lead=2), trajectory


def initial_state_jacobian(
    model: AbstractStateSpaceModel, probe: Probe, *, of: str = "state", integrator: Integrator | None = None
) -> Float[Array, "B T m n"]:
    """d(observation)/d(x0): (B, T, n, n) for the state, (B, T, m, n) for the readout.

    For the state it is the identity at the first save time. Arguments and errors are as in [`parameter_jacobian`][]; the
    solver must be an explicit Runge-Kutta method. Adaptive steps resolve the sensitivity to the initial state too.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(1), 1)  # x = x0 exp(-p t)
    print(ssntk.initial_state_jacobian(model, ssntk.Probe([0.0, 1.0], x0=[1.0])).ravel().round(6))  # [1.       0.367879]
    ```
    """
    as_choice(of, "of", ("state", "readout"))
    check_model(model)
    fitted = as_instance(probe, "probe", Probe).fit(model)
    # Use no directions in theta, and all n directions of the initial state.
    replay = record(Theta(model, ()), fitted, integrator, NAMED[of])
    if not replay.replayable:
        raise ValueError(f"integrator must have an explicit solver, got {type(replay.integrator.solver).__name__}")
    n, dtype = replay.model.n_state, replay.probe.ts.dtype
    columns = push(replay, jnp.zeros((n, 0), dtype), jnp.eye(n, dtype=dtype))
    return replay.probe.observed(jnp.moveaxis(columns, 0, -1))
