"""Following branches by pseudo-arclength (Keller, 1977): one compiled loop over lanes, a branch in each.

The loop fills blocks of points of one size and returns to the host between them, so that branches of any length share
compiled code. A lane whose branch has ended takes the next one; eigenvalues are computed on the host meanwhile.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.bordered import Stack, correct, corrected_at, inner, length, metric, pick
from ssntk.compiled import Compiled, Held
from ssntk.dynamics.stability import exponents

# Points that the compiled loop records in a lane before it returns to the host, and the numbers in all their Jacobians.
BLOCK, NUMBERS = 128, 2**23
# Units from which on eigenvalues are worth a thread.
SMALL = 16
# The turn of the tangent, in radians, that one step may make, and the one that the step size aims at.
MOST_TURN, AIM_TURN = 0.3, 0.12
# Likewise for the distance between the prediction and the point, relative to the step.
MOST_MISS, AIM_MISS = 0.1, 0.01
# The longest step across a branch point, beside the longest of all.
CROSS = 1e-3
CLOSED = "came back to its start"


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a branch starts: of problem number `member`, at z (n + 1,), along the unit tangent (n + 1,)."""

    member: int
    z: np.ndarray
    tangent: np.ndarray
    jacobian: np.ndarray
    turn: float


@dataclasses.dataclass(frozen=True)
class Track:
    """A branch as it was followed: k points z = (x, q) (k, n + 1), unit tangents along the direction of travel
    (k, n + 1), growth exponents (k, n), signs of the bordered determinant (k,), and why it ends."""

    member: int
    z: np.ndarray
    tangent: np.ndarray
    exponents: np.ndarray
    turn: np.ndarray
    status: str

    def reversed(self) -> "Track":
        """The same branch, travelled the other way."""
        return dataclasses.replace(
            self, z=self.z[::-1], tangent=-self.tangent[::-1], exponents=self.exponents[::-1], turn=-self.turn[::-1]
        )


class _Lanes(eqx.Module):
    """Where each lane is: its last two points and tangents, the next step, and how far its block is filled."""

    z: Any
    tangent: Any
    turn: Any
    before: Any
    before_tangent: Any
    gap: Any
    step: Any
    count: Any


@functools.cache
def _advancing(block: int) -> Compiled:
    """The compiled loop that fills blocks of this length."""
    return Compiled(functools.partial(_advance, block))


def _advance(
    block: int, stacked: Held, members: Array, lanes: _Lanes, room: Array, longest: Array, patience: Array
) -> tuple[_Lanes, Any]:
    """Up to `room` (w,) further points in each lane, until `patience` lanes have nothing to do.

    Returns the lanes and buffers (block, w, ...) of points, tangents, Jacobians and determinant signs.
    """
    width, n1 = lanes.z.shape
    dtype = lanes.z.dtype
    weight = metric(n1 - 1, dtype)
    shortest = longest * 1e-8
    problems = pick(stacked, members)
    number = jnp.arange(width)

    def norm(steps: Array) -> Array:
        return jnp.sqrt(jnp.sum(weight[None] * steps**2, axis=1))

    def predict(lanes: _Lanes) -> Array:
        # The cubic Hermite interpolant through the last two points, extrapolated; the tangent alone at the first.
        s, gap = (lanes.step / lanes.gap)[:, None], lanes.gap[:, None]
        chord = lanes.z - lanes.before
        slope0, slope1 = lanes.before_tangent * gap, lanes.tangent * gap
        curved = lanes.z + s * slope1 + s**2 * (slope0 + 2 * slope1 - 3 * chord) + s**3 * (slope0 + slope1 - 2 * chord)
        return jnp.where(jnp.isfinite(gap), curved, lanes.z + lanes.step[:, None] * lanes.tangent)

    def active(lanes: _Lanes) -> Array:
        q = lanes.z[:, -1]
        inside = (q >= 0) & (q <= 1)
        return (lanes.count < room) & (inside | (lanes.count == 0)) & (lanes.step > shortest)

    def unfinished(carry: Any) -> Array:
        busy = active(carry[0])
        return busy.any() & (jnp.sum(~busy) < patience)

    def move(carry: Any) -> Any:
        lanes, points, tangents, jacobians, turns = carry
        guess = predict(lanes)
        new = eqx.filter_vmap(correct)(problems, guess, lanes.tangent)
        cosine = jnp.clip(jnp.sum(weight[None] * new.tangent * lanes.tangent, axis=1), -1, 1)
        turned = jnp.arccos(cosine)
        # Where two branches pass close by, a corrector that lands on the other one has moved far from the prediction.
        miss = norm(new.z - guess) / lanes.step
        accepted = new.converged & (turned < MOST_TURN) & (miss < MOST_MISS)
        # A branch point is passed by a short step: a longer one may jump a gap where branches only come close.
        crosses = new.turn * lanes.turn < 0
        accepted &= ~crosses | (lanes.step <= CROSS * longest)
        growth = jnp.minimum(AIM_TURN / jnp.maximum(turned, 1e-3), jnp.cbrt(AIM_MISS / jnp.maximum(miss, 1e-6)))
        growth = jnp.clip(growth, 0.4, 1.6) * jnp.where(new.iterations > 3, 0.7, 1.0)
        step = jnp.where(accepted, jnp.minimum(lanes.step * growth, longest), lanes.step * 0.4)
        busy = active(lanes)
        # A rejected point is written too, and overwritten by the next; beyond the block nothing is.
        at = (jnp.where(busy, lanes.count, block), number)
        points = points.at[at].set(new.z, mode="drop")
        tangents = tangents.at[at].set(new.tangent, mode="drop")
        jacobians = jacobians.at[at].set(new.jacobian, mode="drop")
        turns = turns.at[at].set(new.turn, mode="drop")
        gap = norm(new.z - lanes.z)
        moved = _Lanes(new.z, new.tangent, new.turn, lanes.z, lanes.tangent, gap, step, lanes.count + 1)
        stay = eqx.tree_at(lambda lanes: lanes.step, lanes, jnp.where(busy, step, lanes.step))
        take = busy & accepted
        lanes = jax.tree.map(lambda a, b: jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved, stay)
        return lanes, points, tangents, jacobians, turns

    buffers = (
        jnp.zeros((block, width, n1), dtype),
        jnp.zeros((block, width, n1), dtype),
        jnp.zeros((block, width, n1 - 1, n1), dtype),
        jnp.zeros((block, width), dtype),
    )
    lanes, *recorded = jax.lax.while_loop(unfinished, move, (lanes, *buffers))
    return lanes, recorded


class _Run:
    """One branch on its way: what was recorded of it, and eigenvalues that are being computed."""

    def __init__(self, start: Start, left: int):
        self.start, self.left, self.status = start, left, ""
        self.blocks = [(start.z[None], start.tangent[None], np.array([start.turn]))]
        self.values: list[Callable[[], np.ndarray]] = []

    def closes(self) -> int | None:
        """The index of the point after which the branch passes its start again, along the same direction."""
        z = np.concatenate([part[0] for part in self.blocks])
        start, along = self.start.z, self.start.tangent
        ahead, size, gap = inner(z - start, along), length(z - start), length(np.diff(z, axis=0))
        passes = (ahead[:-1] < 0) & (ahead[1:] >= 0) & (np.maximum(size[:-1], size[1:]) <= 1.01 * gap)
        found = np.flatnonzero(passes)
        return int(found[0]) if found.size else None

    def track(self) -> Track:
        """What was followed; of a closed branch one round, its start again at the end."""
        z, tangent, turn = (np.concatenate(parts) for parts in zip(*self.blocks, strict=True))
        values = np.concatenate([values() for values in self.values])
        last = self.closes() if self.status == CLOSED else None
        if last is not None:
            z, tangent, values, turn = (np.concatenate([part[: last + 1], part[:1]]) for part in (z, tangent, values, turn))
        return Track(self.start.member, z, tangent, values, turn, self.status)


def follow(stack: Stack, starts: Sequence[Start], longest: float, max_steps: int, lanes: int = 1) -> list[Track]:
    """The branches from `starts`, each until it leaves the span, fails, is back at its start or has `max_steps` points."""
    n1, dtype = starts[0].z.size, starts[0].z.dtype
    dt = stack.dt
    block = int(np.clip(NUMBERS // (lanes * n1**2), 8, BLOCK))
    advance = _advancing(block)
    queue = [_Run(start, max_steps - 1) for start in starts]
    waiting, at = list(range(len(queue)))[::-1], [-1] * lanes
    points, numbers = np.zeros((4, lanes, n1), dtype), np.zeros((3, lanes), dtype)
    state = _Lanes(points[0], points[1], numbers[0], points[2], points[3], numbers[1], numbers[2], np.zeros(lanes, int))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:

        def spectra(jacobians: np.ndarray) -> Callable[[], np.ndarray]:
            if n1 < SMALL:
                return functools.partial(np.asarray, exponents(jacobians[..., :-1], dt))
            # A copy, so that the block's memory is free when its eigenvalues are.
            return pool.submit(exponents, jacobians[..., :-1].copy(), dt).result

        for run in queue:
            run.values.append(spectra(run.start.jacobian[None]))
        while True:
            for lane in range(lanes):
                if at[lane] < 0 and waiting:
                    at[lane] = waiting.pop()
                    start = queue[at[lane]].start
                    first = (start.z, start.tangent, start.turn, start.z, start.tangent, np.inf, 0.1 * longest, 0)
                    for field, value in zip(jax.tree.leaves(state), first, strict=True):
                        field[lane] = value
            if max(at) < 0:
                break
            room = np.array([min(block, queue[number].left) if number >= 0 else 0 for number in at])
            members = np.array([queue[number].start.member if number >= 0 else 0 for number in at])
            idle = sum(number < 0 for number in at)
            patience = min(lanes, idle + max(1, lanes // 4)) if waiting else lanes
            state = eqx.tree_at(lambda state: state.count, state, np.zeros(lanes, int))
            state, recorded = advance(stack.held, members, state, room, np.asarray(longest, dtype), np.asarray(patience))
            # Copies that can be written to, since lanes are given new branches.
            state = jax.tree.map(lambda leaf: np.array(leaf), state)
            points, tangents, jacobians, turns = (np.asarray(part) for part in recorded)
            for lane, number in enumerate(at):
                if number < 0:
                    continue
                run, count = queue[number], int(state.count[lane])
                run.left -= count
                run.blocks.append((points[:count, lane].copy(), tangents[:count, lane].copy(), turns[:count, lane].copy()))
                run.values += [spectra(part) for part in np.array_split(jacobians[:count, lane], 2 if lanes == 1 else 1)]
                run.status = _ended(stack, run, state, lane, count, longest, max_steps)
                if run.status:
                    at[lane] = -1
        tracks = [run.track() for run in queue]
    return _land(stack, tracks)


def _ended(stack: Stack, run: _Run, state: _Lanes, lane: int, count: int, longest: float, max_steps: int) -> str:
    """Why the branch in this lane has ended; empty where it goes on."""
    number, q = run.start.member, float(state.z[lane, -1])
    if count > 0 and not 0 <= q <= 1:
        return f"left the span at p = {stack.parameter(number, 1.0 if q > 1 else 0.0):g}"
    if float(state.step[lane]) <= longest * 1e-8:
        beyond = state.z[lane] + 1e-6 * state.tangent[lane]
        p = stack.parameter(number, q)
        if not np.isfinite(np.asarray(stack.problems[number].field(jax.device_put(beyond)))).all():
            return f"left the domain at p = {p:.6g}: the vector field is not finite beyond"
        return f"step underflow at p = {p:.6g}: the corrector fails for every step length"
    if run.closes() is not None:
        return CLOSED
    if run.left <= 0:
        return f"stopped at p = {stack.parameter(number, q):.6g}: max_steps = {max_steps} points"
    return ""


def _land(stack: Stack, tracks: list[Track]) -> list[Track]:
    """Bring the last points that lie beyond the span back to its end."""
    out = [i for i, track in enumerate(tracks) if track.status.startswith("left the span")]
    if not out:
        return tracks
    ends, guesses = [], []
    for i in out:
        inside, outside = tracks[i].z[-2:]
        ends.append(1.0 if outside[-1] > 1 else 0.0)
        part = (ends[-1] - inside[-1]) / (outside[-1] - inside[-1])
        guesses.append(inside[:-1] + part * (outside[:-1] - inside[:-1]))
    landed = corrected_at(stack, [tracks[i].member for i in out], np.stack(guesses), np.array(ends))
    tracks = list(tracks)
    for at, i in enumerate(out):
        if not landed.converged[at]:
            continue
        track = tracks[i]
        # The border was the parameter, which may run against the direction of travel.
        along = 1.0 if float(np.sum(landed.tangent[at] * track.tangent[-1])) >= 0 else -1.0
        values = exponents(landed.jacobian[at, :, :-1], stack.dt)
        changed = {
            "z": landed.z[at],
            "tangent": along * landed.tangent[at],
            "turn": along * landed.turn[at],
            "exponents": values,
        }
        last = {name: np.concatenate([getattr(track, name)[:-1], np.asarray(new)[None]]) for name, new in changed.items()}
        tracks[i] = dataclasses.replace(track, **last)
    return tracks
