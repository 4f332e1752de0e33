"""The derivative of a closed orbit from one trajectory around it, by the methods of a trajectory's kernel."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.collapse.closed import Closed, Nodes, check_same, extents, least
from ssntk.cycles.orbit import Orbit
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.dynamics.stability import field_at
from ssntk.kernel.dense import dense_kernel
from ssntk.kernel.observe.observations import State
from ssntk.kernel.products import pull
from ssntk.kernel.replay import Replay, check_room, recorded
from ssntk.kernel.rows import Rows
from ssntk.kernel.sites.walk import Walk
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.theta import Theta

# Steps are halved, down to this number in a segment, until the orbit returns this closely.
MOST, RETURNS = 64, 1e-8
# The steps are given as times, and their length here is none. A length would be a constant of the compiled code.
EVEN = Integrator(diffrax.Dopri8(), dt=1.0)


def by_shooting(theta: Theta, orbit: Orbit, metric: np.ndarray, memory: float) -> Closed:
    """The orbit to first order at evenly spaced times. `memory`: how many bytes X may take; beyond, its kernel is formed."""
    count, n, period = len(orbit.ts), orbit.x.shape[1], orbit.period
    replay, states = _recorded(theta, orbit)
    each = np.dtype(replay.probe.ts.dtype).itemsize
    whole = replay.bytes <= memory
    check_room(replay.bytes if whole else (count * n) ** 2 * each, "derivative of the orbit" if whole else "kernel")
    # Without parameters, the propagators alone are computed.
    swept = _swept(replay if whole else dataclasses.replace(replay, at=()))
    propagators, sensitivity = np.asarray(swept[0], float), np.asarray(swept[1], float) if whole else None
    u = jnp.asarray(orbit.u, replay.probe.ts.dtype)
    velocity = np.asarray(_velocities(theta.model, jnp.asarray(states, replay.probe.ts.dtype), u), float)
    totals = _products(propagators)
    # (1 - M) X_0 - f P_theta = S, with X_0 normal to the velocity, in the sizes of the states.
    sizes = np.abs(states).max(axis=0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    even, start = totals[-1] * sizes / sizes[:, None], velocity[-1] / sizes
    pace = np.linalg.norm(start)
    matrix = np.block([[np.eye(n) - even, -start[:, None] / pace], [start[None] / pace, np.zeros((1, 1))]])
    inverse = np.linalg.inv(matrix)
    inverse[:n], inverse[n] = inverse[:n] * sizes[:, None], inverse[n] / pace
    known = inverse[:, :n] / sizes
    last = -known[n]
    response = np.empty((count, n))
    for k in range(count - 1, -1, -1):
        last = last @ propagators[k]
        response[k] = last
    # X_k = S_k + U_k (X_0, P_theta), which are known S_N.
    times = np.arange(count) / count
    follows = np.concatenate([totals[:count], (times[:, None] * velocity[:count])[:, :, None]], axis=2)
    weights = np.full(count, 1 / count)
    if sensitivity is not None:
        first = known @ sensitivity[-1]
        jacobian = sensitivity[:count] + follows @ first
        shift, speed = least(velocity[:count], jacobian, weights, metric)
        jacobian -= velocity[:count, :, None] * shift
        nodes = Nodes(times * period, weights, jacobian, None)
        return Closed(times * period, states[:count], velocity[:count], response, jacobian, first[n], speed, nodes)
    cotangent = jnp.zeros((1, 1, count + 1, n), replay.probe.ts.dtype).at[0, 0, -1].set(jnp.asarray(known[n]))
    gradient = np.asarray(pull(replay, cotangent)[0], float)
    kernel, speed = _kernel(replay, follows, known, velocity[:count], metric)
    nodes = Nodes(times * period, weights, None, kernel)
    return Closed(times * period, states[:count], velocity[:count], response, None, gradient, speed, nodes)


def _recorded(theta: Theta, orbit: Orbit) -> tuple[Replay, np.ndarray]:
    """One period on the orbit, on even steps so short that it returns. `ValueError` if it does not."""
    count = len(orbit.ts)
    each = max(1, orbit.intervals // count)
    ts = np.linspace(0.0, orbit.period, count + 1)
    us = orbit.u[None] if orbit.u.size else None
    probe = Probe(ts, us, x0=orbit.x[:1]).fit(theta.model)
    sizes = extents(orbit.x)
    before, allowed = np.inf, max(RETURNS, 64 * float(np.finfo(dtype_of(theta.model)).eps))
    while True:
        grid = np.append((ts[:-1, None] + np.diff(ts)[:, None] * (np.arange(each) / each)).ravel(), ts[-1])
        steps = jax.device_put(grid.astype(probe.ts.dtype))
        replay = recorded(theta.model, theta.at, probe, EVEN, steps, State())
        states = np.asarray(replay.tracks.states[0][replay.tracks.saved[0]], float)
        gap = float((np.abs(states[-1] - states[0]) / sizes).max())
        # Steps of half the length are tried only if they may help.
        if gap <= allowed or each >= MOST or not gap < 0.25 * before:
            break
        before, each = gap, 2 * each
    check_same(gap)
    return replay, states


@eqx.filter_jit
def _velocities(model: AbstractStateSpaceModel, states: Array, u: Array) -> Array:
    return jax.vmap(lambda x: field_at(model, x, u))(states)


@eqx.filter_jit
def _swept(replay: Replay) -> tuple[Array, Array]:
    """The propagators (N, n, n) of the save intervals, and S (N + 1, n, p) at the save times."""
    n, dtype, count = replay.model.n_state, replay.probe.ts.dtype, replay.probe.ts.shape[0] - 1
    walk = Walk(replay, 0)

    def interval(k: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        propagators, out = both
        phi, gathered = walk.back(k, jnp.eye(n, dtype=dtype))
        if replay.theta.size:
            out = out.at[k + 1].set(phi @ out[k] + walk.columns(gathered[1], n))
        return propagators.at[k].set(phi), out

    start = jnp.zeros((count, n, n), dtype), jnp.zeros((count + 1, n, replay.theta.size), dtype)
    return jax.lax.fori_loop(0, count, interval, start)


def _products(propagators: np.ndarray) -> np.ndarray:
    """The propagators (N + 1, n, n) from the first point to each."""
    totals = [np.eye(propagators.shape[1])]
    for one in propagators:
        totals.append(one @ totals[-1])
    return np.stack(totals)


def _kernel(
    replay: Replay, follows: np.ndarray, known: np.ndarray, velocity: np.ndarray, metric: np.ndarray
) -> tuple[np.ndarray, float]:
    """X X^T / N (N n, N n) and the mean square of the speed, from the kernel of the trajectory and without X: it is
    (1 - v w^T) (S + U V S), where V, `known`, acts on the last S, and v w^T takes out the velocity."""
    raw = np.asarray(dense_kernel(Rows(replay, None, None), "auto"), float)
    count, n = velocity.shape
    size, outer = count * n, follows.reshape(count * n, -1)
    along = (velocity / metric).ravel()
    speed = float(along @ along) / count

    def turned(rows: np.ndarray) -> np.ndarray:
        moved = rows[:size] + outer @ (known @ rows[size:])
        return moved - np.outer(velocity.ravel(), (velocity / metric**2).ravel() @ moved / (count * speed))

    return turned(turned(raw).T) / count, speed
