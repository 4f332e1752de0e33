"""Pseudo-arclength continuation of equilibria (Keller, 1977), as one compiled loop.

The loop fills blocks of points of one size and returns to the host between them, so that branches of any length share
compiled code; eigenvalues and events are found afterwards from what it recorded.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.bordered import Corrected, Problem, correct, correct_once, metric
from ssntk.bifurcation.detect import Point, find_events
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.locate import Bifurcation
from ssntk.dynamics.fixed_points import constant_input, find_fixed_points
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar
from ssntk.models.base import dtype_of

# Points that the compiled loop records before it returns to the host.
BLOCK = 128
# The turn of the tangent, in radians, that one step may make, and the one that the step size aims at.
MOST_TURN, AIM_TURN = 0.3, 0.12
# Likewise for the distance between the prediction and the point, relative to the step.
MOST_MISS, AIM_MISS = 0.1, 0.01


@dataclasses.dataclass(frozen=True)
class Branch:
    """A branch of equilibria, in the order in which it was followed.

    - `parameter` (k,), `x` (k, n), `eigenvalues` (k, n) of df/dx with the rightmost first, `stable` (k,).
    - `bifurcations`: the located ones, in branch order; `unresolved`: events that were seen but not located.
    - `status`: why the branch ends, a sentence.
    - `tangent` (k, n + 1): the unit tangent (dx, dq) along the direction of travel, in the length that `step` measures.
    - `steps`: of each located bifurcation the index of the point before it.
    """

    parameter: np.ndarray
    x: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str
    tangent: np.ndarray
    steps: tuple[int, ...]


def continuation(
    family: Family,
    span: Any,
    *,
    x0: Any = None,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 10_000,
) -> Branch:
    """Follow the branch of equilibria from `span[0]` towards `span[1]` until it leaves the span.

    Saddle-node and Hopf points on the way are located by their extended systems; a branch point is reported in
    `unresolved`, since the branches that cross there are not followed.

    **Arguments:**

    - `span`: (p0, p1), distinct; p1 may be the smaller.
    - `x0`: (n,) near an equilibrium at p0; default: Newton from zero, then the first of `find_fixed_points`.
    - `u`: (d,) constant input; default zero.
    - `step`: the longest step, in the length `sqrt(mean(dx^2) + (dp / (p1 - p0))^2)`; shorter ones are taken as needed.
    - `max_steps`: the most points on the branch.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where no equilibrium is found at p0.
    """
    as_instance(family, "family", Family)
    max_steps = as_count(max_steps, "max_steps")
    longest = float(as_scalar(step, "step", positive=True))
    problem = make_problem(family, span, u)
    start = _start(problem, x0)
    points, tangents, jacobians, turns, status = _follow(problem, start, longest, max_steps)
    eigenvalues = sorted_eigenvalues(jacobians[:, :, :-1])
    track = [
        Point(z, tangent, values, float(turn))
        for z, tangent, values, turn in zip(points, tangents, eigenvalues, turns, strict=True)
    ]
    events = find_events(problem, track)
    located = [(step, event) for step, event in events if event.converged]
    return Branch(
        parameter=float(problem.p0) + points[:, -1] * (float(problem.p1) - float(problem.p0)),
        x=points[:, :-1],
        eigenvalues=eigenvalues,
        stable=eigenvalues.real.max(axis=1) < 0,
        bifurcations=tuple(event for _, event in located),
        unresolved=tuple(event for _, event in events if not event.converged),
        status=status,
        tangent=tangents,
        steps=tuple(step for step, _ in located),
    )


def make_problem(family: Family, span: Any, u: Any) -> Problem:
    """The checked problem of a family over a span."""
    ends = as_array(span, "span", (2,)).astype(dtype_of(family.model))
    if float(ends[0]) == float(ends[1]):
        raise ValueError(f"span must not be empty, got ({float(ends[0]):g}, {float(ends[1]):g})")
    return Problem(family, constant_input(family.model, u), ends[0], ends[1])


def at_parameter(problem: Problem, x: Any, q: Any) -> Corrected:
    """The equilibrium near `x` at exactly this q."""
    x = jnp.asarray(x)
    guess = jnp.concatenate([x, jnp.asarray(q, x.dtype)[None]])
    return correct_once(problem, guess, jnp.zeros_like(guess).at[-1].set(1))


def _start(problem: Problem, x0: Any) -> Corrected:
    """The equilibrium at p0 that the branch starts from."""
    n, dtype = problem.family.model.n_state, dtype_of(problem.family.model)
    first = float(problem.p0)
    x = jnp.zeros(n, dtype) if x0 is None else as_array(x0, "x0", (n,)).astype(dtype)
    start = at_parameter(problem, x, 0.0)
    if bool(start.converged):
        return start
    if x0 is not None:
        raise NumericalError(f"no equilibrium near x0 at p = {first:g}: Newton's iteration did not converge; try x0=None")
    for x in find_fixed_points(problem.family(problem.p0), problem.u).x:
        start = at_parameter(problem, jnp.asarray(x), 0.0)
        if bool(start.converged):
            return start
    raise NumericalError(f"no equilibrium was found at p = {first:g}: start elsewhere, or pass x0")


class _State(eqx.Module):
    """Where the loop is: the last two points and tangents, the next step, and how far the block is filled."""

    z: Array
    tangent: Array
    turn: Array
    before: Array
    before_tangent: Array
    gap: Array
    step: Array
    count: Array


@eqx.filter_jit
def _advance(problem: Problem, state: _State, longest: Array, room: Array) -> tuple[_State, Array, Array, Array, Array]:
    """Up to `room` further points, in buffers of length `BLOCK`: points, tangents, Jacobians, determinant signs."""
    n1 = state.z.shape[0]
    dtype = state.z.dtype
    weight = metric(n1 - 1, dtype)
    shortest = longest * 1e-8

    def inner(a: Array, b: Array) -> Array:
        return jnp.sum(weight * a * b)

    def predict(state: _State) -> Array:
        # The cubic Hermite interpolant through the last two points, extrapolated; the tangent alone at the first.
        s = state.step / state.gap
        chord = state.z - state.before
        slope0, slope1 = state.before_tangent * state.gap, state.tangent * state.gap
        curved = state.z + s * slope1 + s**2 * (slope0 + 2 * slope1 - 3 * chord) + s**3 * (slope0 + slope1 - 2 * chord)
        return jnp.where(jnp.isfinite(state.gap), curved, state.z + state.step * state.tangent)

    def unfinished(carry: Any) -> Array:
        state = carry[0]
        q = state.z[-1]
        inside = (q >= 0) & (q <= 1)
        return (state.count < room) & (inside | (state.count == 0)) & (state.step > shortest)

    def move(carry: Any) -> Any:
        state, points, tangents, jacobians, turns = carry
        guess = predict(state)
        new = correct(problem, guess, state.tangent)
        cosine = jnp.clip(inner(new.tangent, state.tangent), -1, 1)
        turned = jnp.arccos(cosine)
        # Where two branches pass close by, a corrector that lands on the other one has moved far from the prediction.
        miss = jnp.sqrt(inner(new.z - guess, new.z - guess)) / state.step
        accepted = new.converged & (turned < MOST_TURN) & (miss < MOST_MISS)
        growth = jnp.minimum(AIM_TURN / jnp.maximum(turned, 1e-3), jnp.cbrt(AIM_MISS / jnp.maximum(miss, 1e-6)))
        growth = jnp.clip(growth, 0.4, 1.6) * jnp.where(new.iterations > 3, 0.7, 1.0)
        step = jnp.where(accepted, jnp.minimum(state.step * growth, longest), state.step * 0.4)
        at = state.count
        # A rejected point is written too, and overwritten by the next.
        points = points.at[at].set(new.z)
        tangents = tangents.at[at].set(new.tangent)
        jacobians = jacobians.at[at].set(new.jacobian)
        turns = turns.at[at].set(new.turn)
        chord = new.z - state.z
        moved = _State(
            new.z, new.tangent, new.turn, state.z, state.tangent, jnp.sqrt(inner(chord, chord)), step, state.count + 1
        )
        stay = eqx.tree_at(lambda s: s.step, state, step)
        state = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, stay)
        return state, points, tangents, jacobians, turns

    buffers = (
        jnp.zeros((BLOCK, n1), dtype),
        jnp.zeros((BLOCK, n1), dtype),
        jnp.zeros((BLOCK, n1 - 1, n1), dtype),
        jnp.zeros(BLOCK, dtype),
    )
    return jax.lax.while_loop(unfinished, move, (state, *buffers))


def _follow(
    problem: Problem, start: Corrected, longest: float, max_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """The whole branch: points (k, n + 1), tangents (k, n + 1), Jacobians (k, n, n + 1), determinant signs (k,), status."""
    dtype = start.z.dtype
    # The border at the start was the parameter, so its tangent points towards p1.
    blocks = [[np.asarray(part)[None] for part in (start.z, start.tangent, start.jacobian, start.turn)]]
    state = _State(
        start.z,
        start.tangent,
        start.turn,
        start.z,
        start.tangent,
        jnp.asarray(jnp.inf, dtype),
        jnp.asarray(0.1 * longest, dtype),
        jnp.asarray(0),
    )
    first, last = float(problem.p0), float(problem.p1)
    left = max_steps - 1
    while True:
        state = eqx.tree_at(lambda s: s.count, state, jnp.asarray(0))
        state, *buffers = _advance(problem, state, jnp.asarray(longest, dtype), jnp.asarray(min(BLOCK, left)))
        count, q = int(state.count), float(state.z[-1])
        blocks.append([np.asarray(buffer)[:count] for buffer in buffers])
        left -= count
        if count > 0 and not 0 <= q <= 1:
            status = f"left the span at p = {last if q > 1 else first:g}"
            break
        if float(state.step) <= longest * 1e-8:
            status = f"step underflow at p = {float(problem.parameter(q)):.6g}: the corrector fails for every step length"
            if not np.isfinite(np.asarray(problem.field(state.z + 1e-6 * state.tangent))).all():
                status = f"left the domain at p = {float(problem.parameter(q)):.6g}: the vector field is not finite beyond"
            break
        if left <= 0:
            status = f"stopped at p = {float(problem.parameter(q)):.6g}: max_steps = {max_steps} points"
            break
    points, tangents, jacobians, turns = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if status.startswith("left the span"):
        _land(problem, points, tangents, jacobians, turns)
    return points, tangents, jacobians, turns, status


def _land(problem: Problem, points: np.ndarray, tangents: np.ndarray, jacobians: np.ndarray, turns: np.ndarray) -> None:
    """Bring the last point, which lies beyond the span, back to its end. Writes in place."""
    end = 1.0 if points[-1, -1] > 1 else 0.0
    inside, outside = points[-2], points[-1]
    part = (end - inside[-1]) / (outside[-1] - inside[-1])
    landed = at_parameter(problem, jnp.asarray(inside[:-1] + part * (outside[:-1] - inside[:-1])), end)
    if not bool(landed.converged):
        return
    # The border was the parameter, which may run against the direction of travel.
    along = 1.0 if float(np.sum(np.asarray(landed.tangent) * tangents[-1])) >= 0 else -1.0
    points[-1], tangents[-1] = landed.z, along * np.asarray(landed.tangent)
    jacobians[-1], turns[-1] = landed.jacobian, along * float(landed.turn)
