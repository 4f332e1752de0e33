"""Follow branches by pseudo-arclength (Keller, 1977), in one compiled loop over lanes with a branch in each.

The loop fills a block of points of fixed size in each lane and returns to the host, so that branches of any length share
compiled code. When a branch ends, its lane takes the next one. Eigenvalues are computed on the host meanwhile.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.stability import judged_exponents
from ssntk.errors import Outcome, Sentence
from ssntk.zeros.base import metric
from ssntk.zeros.between import Dip, dips, on_branch
from ssntk.zeros.corners import Found, beyond, reach_of, said_of
from ssntk.zeros.correct import Corrected, correct, corrected_at, inner, length
from ssntk.zeros.passed import all_corners
from ssntk.zeros.stack import Stack, pick
from ssntk.zeros.track import Corner, Point, Start, Stop, Track, points_of

# The largest number of points in a block of a lane, and the largest number of entries in the Jacobians of all lanes.
BLOCK, NUMBERS = 128, 2**23
# From this number of units on, eigenvalues are computed in another thread.
SMALL = 16
# The largest turn of the tangent in one step, in radians, and the turn that the step size aims at.
MOST_TURN, AIM_TURN = 0.3, 0.12
# The same for the distance between the prediction and the point, relative to the step.
MOST_MISS, AIM_MISS = 0.1, 0.01
# The longest step across a branch point, relative to the longest step.
CROSS = 1e-3
# If a state exceeds this multiple of its size, steps are relative to the state itself.
REACH = 3.0
# A state grows without bound if it exceeds FAR times its size, while over the last decade of its growth the parameter moved
# by less than STILL of the span.
FAR, STILL = 1e6, 1e-3


# Blocks (block, w, ...) of points, tangents, stability matrices and determinant signs.
A = TypeVar("A", np.ndarray, Array)
_Buffers = tuple[Array, ...]
# Computes exponents and their rounding errors.
_Spectra = Callable[[], tuple[np.ndarray, np.ndarray]]


class _Lanes(eqx.Module, Generic[A]):
    """The state of all lanes: the last two points and tangents, the next step, and how far the block is filled."""

    z: A
    tangent: A
    turn: A
    before: A
    before_tangent: A
    gap: A
    step: A
    count: A


@functools.cache
def _advancing(block: int) -> Compiled:
    """The compiled loop that fills blocks of this length."""
    return Compiled(functools.partial(_advance, block))


def _weights(z: Array) -> Array:
    """The diagonal (w, N + 1) of the metric of each lane. States far beyond their sizes count relative to themselves."""
    far = (1 + (z / REACH) ** 2).at[:, -1].set(1)
    return metric(z.shape[1] - 1, z.dtype)[None] / far


def _norm(steps: Array, weight: Array) -> Array:
    """The lengths (w,) of steps (w, N + 1)."""
    return jnp.sqrt(jnp.sum(weight * steps**2, axis=1))


def _predict(lanes: _Lanes[Array], weight: Array) -> Array:
    """The next points (w, N + 1): the cubic Hermite interpolant through the last two, extrapolated."""
    chord = lanes.z - lanes.before
    gap = jnp.where(jnp.isfinite(lanes.gap), _norm(chord, weight), jnp.inf)[:, None]
    s = lanes.step[:, None] / gap
    slope0, slope1 = (slope * gap / _norm(slope, weight)[:, None] for slope in (lanes.before_tangent, lanes.tangent))
    curved = lanes.z + s * slope1 + s**2 * (slope0 + 2 * slope1 - 3 * chord) + s**3 * (slope0 + slope1 - 2 * chord)
    return jnp.where(jnp.isfinite(gap), curved, lanes.z + lanes.step[:, None] * lanes.tangent)


def _next_step(lanes: _Lanes[Array], new: Corrected, guess: Array, weight: Array, longest: Array) -> tuple[Array, Array]:
    """Whether new points are accepted (w,), and the next steps (w,)."""
    cosine = jnp.clip(jnp.sum(weight * new.tangent * lanes.tangent, axis=1), -1, 1)
    turned = jnp.arccos(cosine)
    # If two branches pass close by each other, the corrector may land on the other one: far from the prediction.
    miss = _norm(new.z - guess, weight) / lanes.step
    accepted = new.converged & (turned < MOST_TURN) & (miss < MOST_MISS)
    # A branch point is passed by a short step only, since a longer one may jump from branch to branch across a gap.
    crosses = new.turn * lanes.turn < 0
    accepted &= ~crosses | (lanes.step <= CROSS * longest)
    growth = jnp.minimum(AIM_TURN / jnp.maximum(turned, 1e-3), jnp.cbrt(AIM_MISS / jnp.maximum(miss, 1e-6)))
    growth = jnp.clip(growth, 0.4, 1.6) * jnp.where(new.iterations > 3, 0.7, 1.0)
    return accepted, jnp.where(accepted, jnp.minimum(lanes.step * growth, longest), lanes.step * 0.4)


def _advance(
    block: int, stacked: Held, members: Array, lanes: _Lanes[Array], room: Array, longest: Array, patience: Array
) -> tuple[_Lanes[Array], _Buffers]:
    """Compute up to `room` (w,) further points in each lane, until `patience` lanes have nothing to do.

    Returns the lanes and buffers (block, w, ...) of points, tangents, stability matrices and determinant signs.
    """
    width, n1 = lanes.z.shape
    dtype, shortest = lanes.z.dtype, longest * 1e-8
    zeros, number = pick(stacked, members), jnp.arange(width)

    def active(lanes: _Lanes[Array]) -> Array:
        q = lanes.z[:, -1]
        inside = (q >= 0) & (q <= 1)
        return (lanes.count < room) & (inside | (lanes.count == 0)) & (lanes.step > shortest)

    def unfinished(carry: tuple[_Lanes[Array], _Buffers]) -> Array:
        busy = active(carry[0])
        return busy.any() & (jnp.sum(~busy) < patience)

    def move(carry: tuple[_Lanes[Array], _Buffers]) -> tuple[_Lanes[Array], _Buffers]:
        lanes, buffers = carry
        weight = _weights(lanes.z)
        along = lanes.tangent / _norm(lanes.tangent, weight)[:, None]
        lanes = eqx.tree_at(lambda lanes: lanes.tangent, lanes, along)
        guess = _predict(lanes, weight)
        new = eqx.filter_vmap(lambda *at: correct(*at[:3], weight=at[3]))(zeros, guess, along, weight)
        accepted, step = _next_step(lanes, new, guess, weight, longest)
        busy = active(lanes)
        # A rejected point is written too, but the next one overwrites it. Idle lanes write beyond the block, where JAX
        # drops the write.
        at = (jnp.where(busy, lanes.count, block), number)
        fresh = (new.z, new.tangent, new.matrix, new.turn)
        buffers = tuple(kept.at[at].set(one, mode="drop") for kept, one in zip(buffers, fresh, strict=True))
        gap = _norm(new.z - lanes.z, weight)
        moved = _Lanes(new.z, new.tangent, new.turn, lanes.z, lanes.tangent, gap, step, lanes.count + 1)
        stay = eqx.tree_at(lambda lanes: lanes.step, lanes, jnp.where(busy, step, lanes.step))
        take = busy & accepted
        lanes = jax.tree.map(lambda a, b: jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved, stay)
        return lanes, buffers

    shapes = (n1,), (n1,), (zeros.modes, zeros.modes), ()
    buffers = tuple(jnp.zeros((block, width, *shape), dtype) for shape in shapes)
    return jax.lax.while_loop(unfinished, move, (lanes, buffers))


class _Run:
    """A branch that is being followed: its points so far, and the eigenvalues that are being computed."""

    def __init__(self, stack: Stack, start: Start, left: int):
        self.stack, self.start, self.left = stack, start, left
        self.end: Sentence | None = None
        self._begin(start)
        self.corners: list[Corner] = []
        self.cut: int | None = None
        self.stop: Stop | None = None
        self.dip: Dip | None = None

    def _begin(self, start: Start) -> None:
        """Make a point the first one."""
        self.start = start
        first = Point(*(np.asarray(part)[None] for part in start.point))
        self.blocks = [(first.z, first.tangent, first.turn)]
        self.values: list[_Spectra] = [lambda: (first.exponents, first.doubts)]

    @property
    def z(self) -> np.ndarray:
        """The points so far (k, N + 1)."""
        return np.concatenate([block[0] for block in self.blocks])

    def append(self, *points: Point) -> None:
        """Append single points as a block."""
        self.left -= len(points)
        block = Point.stacked(points)
        self.blocks.append((block.z, block.tangent, block.turn))
        self.values.append(lambda: (block.exponents, block.doubts))

    def _keep(self, count: int) -> None:
        """Drop all points but the first ones."""
        z, tangent, turn = (np.concatenate(parts)[:count] for parts in zip(*self.blocks, strict=True))
        values, doubts = (np.concatenate(parts)[:count] for parts in zip(*[part() for part in self.values], strict=True))
        self.blocks, self.values = [(z, tangent, turn)], [lambda: (values, doubts)]

    def passes(self, found: Found) -> bool:
        """Go on behind a corner, if there is one way on."""
        if found.next is None or found.behind is None:
            return False
        if found.on_start:
            self._begin(Start(self.start.member, found.behind))
            self.append(found.next)
            return True
        last = self.corners[-1].at if self.corners else -1
        again = self.corners and float(length(self.z[last] - found.before.z)) < reach_of(found.before.z) / 64
        self.meets(found.before)
        if again and len(self.z) - 2 == last:
            # It is the last corner again.
            return False
        self.corners.append(Corner(len(self.z) - 1, found.behind))
        self.append(found.next)
        return True

    def meets(self, corner: Point) -> None:
        """Append a corner. The last points next to it are dropped: they may lie behind it, where the branch would go on
        without the kink, or have the tangent and the exponents of its other side."""
        z, least = self.z, self.corners[-1].at + 1 if self.corners else 1
        near = length(z[least:] - corner.z) < reach_of(corner.z)
        self._keep(len(z) - int(np.argmin(np.append(near[::-1], False))))
        self.append(corner)

    def closes(self) -> int | None:
        """The index of the point after which the branch passes its start again in the same direction, or `None`."""
        z = self.z
        away = z - self.start.point.z
        away -= self.stack.wound(self.start.member, away)
        ahead, size, gap = inner(away, self.start.point.tangent), length(away), length(np.diff(z, axis=0))
        passes = (ahead[:-1] < 0) & (ahead[1:] >= 0) & (np.maximum(size[:-1], size[1:]) <= 1.01 * gap)
        found = np.flatnonzero(passes)
        return int(found[0]) if found.size else None

    def stopped(self, stops: Sequence[Stop]) -> Sentence | None:
        """The reason to end the branch within its last block, if any; then `cut` becomes the number of points to keep."""
        z, tangent = (np.concatenate([part[i] for part in self.blocks]) for i in (0, 1))
        for corner in self.corners:
            tangent[corner.at] = corner.behind.tangent
        fresh = len(z) - len(self.blocks[-1][0])
        seen = []
        for stop in stops:
            # A NaN does not end a branch.
            values = stop.margin(z[fresh - 1 :])
            out = np.flatnonzero(values[1:] <= 0)
            left = fresh + int(out[0]) if out.size else len(z)
            held = slice(fresh - 1, left)
            inside = dips(self.stack, self.start.member, stop.margin, z[held], tangent[held], values[: left - fresh + 1])
            if inside:
                seen.append((fresh + inside[0].step, stop, inside[0]))
            elif out.size:
                seen.append((left, stop, None))
        if not seen:
            return None
        first, stop, self.dip = min(seen, key=lambda one: one[0])
        self.cut, self.stop = first + 1, stop
        # The parameter is filled in later, once the last point is known.
        return stop.says(np.nan)

    def track(self) -> Track:
        """The branch as followed. A closed branch is one round, with its start again at the end."""
        z, tangent, turn = (np.concatenate(parts) for parts in zip(*self.blocks, strict=True))
        # Normalise tangents in the metric that is constant along the branch.
        tangent = tangent / length(tangent)[:, None]
        values, doubts = (np.concatenate(parts) for parts in zip(*[part() for part in self.values], strict=True))
        assert self.end is not None
        track = Track(self.start.member, Point(z, tangent, turn, values, doubts), (self.end,), tuple(self.corners))
        if self.cut is not None:
            return track.part(0, self.cut)
        last = self.closes() if self.end.outcome is Outcome.closed else None
        if last is None:
            return track
        once, start = track.part(0, last + 1), track.points.at(slice(0, 1))
        start = start._replace(z=start.z + self.stack.wound(track.member, once.z[-1:] - start.z))
        return dataclasses.replace(once, points=Point.joined(once.points, start))


def follow(
    stack: Stack,
    starts: Sequence[Start],
    longest: float,
    max_steps: int,
    lanes: int = 1,
    stops: Sequence[Stop] = (),
) -> list[Track]:
    """Follow the branches from `starts`. Each ends if it leaves the span, fails, returns to its start, has `max_steps`
    points, or meets one of `stops`."""
    n1, dtype = starts[0].point.z.size, starts[0].point.z.dtype
    clock = stack.clock
    block = int(np.clip(NUMBERS // (lanes * n1**2), 8, BLOCK))
    advance = _advancing(block)
    queue = [_Run(stack, start, max_steps - 1) for start in starts]
    waiting, at = list(range(len(queue)))[::-1], [-1] * lanes
    points, numbers = np.zeros((4, lanes, n1), dtype), np.zeros((3, lanes), dtype)
    state = _Lanes(points[0], points[1], numbers[0], points[2], points[3], numbers[1], numbers[2], np.zeros(lanes, int))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:

        def spectra(matrices: np.ndarray) -> _Spectra:
            if matrices.shape[-1] < SMALL:
                known = judged_exponents(matrices, clock)
                return lambda: known
            # Copy the matrices, so that the memory of the block is not kept.
            return pool.submit(judged_exponents, matrices.copy(), clock).result

        while True:
            for lane in range(lanes):
                if at[lane] < 0 and waiting:
                    at[lane] = waiting.pop()
                    _begin(state, lane, queue[at[lane]].start.point, longest)
            if max(at) < 0:
                break
            room = np.array([min(block, queue[number].left) if number >= 0 else 0 for number in at])
            members = np.array([queue[number].start.member if number >= 0 else 0 for number in at])
            idle = sum(number < 0 for number in at)
            patience = min(lanes, idle + max(1, lanes // 4)) if waiting else lanes
            state = eqx.tree_at(lambda state: state.count, state, np.zeros(lanes, int))
            state, recorded = advance(stack.held, members, state, room, np.asarray(longest, dtype), np.asarray(patience))
            # Make writable copies, since lanes are given new branches.
            state = jax.tree.map(lambda leaf: np.array(leaf), state)
            points, tangents, matrices, turns = (np.asarray(part) for part in recorded)
            for lane, number in enumerate(at):
                if number < 0:
                    continue
                run, count = queue[number], int(state.count[lane])
                run.left -= count
                run.blocks.append((points[:count, lane].copy(), tangents[:count, lane].copy(), turns[:count, lane].copy()))
                run.values += [spectra(part) for part in np.array_split(matrices[:count, lane], 2 if lanes == 1 else 1)]
                run.end = run.stopped(stops) or _ended(stack, run, state, lane, count, longest, max_steps)
                if run.end is None and float(state.step[lane]) <= longest * 1e-8:
                    run.end = _stalled(stack, run, state, lane, longest, max_steps, stops)
                if run.end is not None:
                    at[lane] = -1
        tracks = [_halted(stack, run.track(), run) for run in queue]
    return all_corners(stack, _land(stack, tracks))


def _ended(
    stack: Stack, run: _Run, state: _Lanes[np.ndarray], lane: int, count: int, longest: float, max_steps: int
) -> Sentence | None:
    """The reason why the branch in this lane has ended; `None` if it continues."""
    number, q = run.start.member, float(state.z[lane, -1])
    p = stack.parameter(number, q)
    if count > 0 and not 0 <= q <= 1:
        return Outcome.left_span.say(p=stack.parameter(number, 1.0 if q > 1 else 0.0))
    if float(state.step[lane]) <= longest * 1e-8:
        return None
    if run.closes() is not None:
        return Outcome.closed.say()
    if (np.abs(state.z[lane, :-1]) > FAR).any():
        z = run.z
        size = np.abs(z[:, :-1]).max(axis=1)
        before = np.flatnonzero(size < size[-1] / 10)
        if before.size and abs(z[before[-1], -1] - q) < STILL:
            return Outcome.unbounded.say(p=p)
    if run.left <= 0:
        return Outcome.max_steps.say(p=p, most=max_steps)
    return None


def _begin(state: _Lanes[np.ndarray], lane: int, start: Point, longest: float) -> None:
    """Begin a branch, or the part of one behind a corner, in a lane."""
    first = (start.z, start.tangent, start.turn, start.z, start.tangent, np.inf, 0.1 * longest, 0)
    for field, value in zip(jax.tree.leaves(state), first, strict=True):
        field[lane] = value


def _stalled(
    stack: Stack, run: _Run, state: _Lanes[np.ndarray], lane: int, longest: float, max_steps: int, stops: Sequence[Stop]
) -> Sentence | None:
    """Go on behind a kink, if even the shortest step fails; if there is no way on, the reason why the branch ends."""
    number, z, tangent = run.start.member, state.z[lane].copy(), state.tangent[lane].copy()
    nothing = np.zeros(0)
    here = Point(z, tangent, state.turn[lane].copy(), nothing, nothing)
    found = beyond(stack, number, here, len(run.z) == 1)
    if found is None:
        return said_of(stack, number, z, tangent, None)
    if run.closes() is not None:
        return Outcome.closed.say()
    q = float(found.before.z[-1])
    end, rounding = round(q), 8 * float(np.finfo(z.dtype).eps)
    if not found.on_start and (not 0 <= q <= 1 or abs(q - end) <= rounding):
        # The branch meets the end of the span before the kink, or there.
        place = np.append(found.before.z[:-1], end if abs(q - end) <= rounding else q).astype(z.dtype)
        run.meets(found.before._replace(z=place))
        return Outcome.left_span.say(p=stack.parameter(number, float(end)))
    if not run.passes(found):
        return said_of(stack, number, z, tangent, found)
    assert found.next is not None
    _begin(state, lane, found.next, longest)
    return run.stopped(stops) or _ended(stack, run, state, lane, 1, longest, max_steps)


def _halted(stack: Stack, track: Track, run: _Run) -> Track:
    """The track with its last point moved to where its stop begins, and the reason."""
    stop, z, tangent = run.stop, track.z, track.tangent
    if stop is None:
        return track
    if len(z) > 1:
        last = (z[-1], tangent[-1]) if run.dip is None else (run.dip.z, run.dip.tangent)
        found = on_branch(stack, track.member, (z[-2], track.leaving[-2]), last, stop.margin, stop.side)
        if found is not None:
            track = _ending(stack, track, found)
    return dataclasses.replace(track, ends=(stop.says(float(stack.parameter(track.member, track.z[-1, -1]))),))


def _ending(stack: Stack, track: Track, found: Corrected) -> Track:
    """The track with its last point replaced by a corrected one, which has a leading axis of one."""
    # Its tangent may point against the direction of travel.
    along = 1.0 if float(np.sum(found.tangent[0] * track.tangent[-1])) >= 0 else -1.0
    tangent = along * found.tangent / length(found.tangent)[:, None]
    point = points_of(found._replace(tangent=tangent, turn=along * found.turn), stack.clock)
    return track.ending(point.at(0))


def _land(stack: Stack, tracks: list[Track]) -> list[Track]:
    """Move last points that lie beyond the span back to its end."""
    out = [i for i, track in enumerate(tracks) if track.ends[0].outcome is Outcome.left_span]
    # If a corner lies exactly at the end, the branch is there already.
    out = [i for i in out if tracks[i].z[-1, -1] not in (0, 1)]
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
        one = Corrected(*(part[at : at + 1] for part in landed))
        tracks[i] = _ending(stack, tracks[i], one) if landed.converged[at] else _along(stack, tracks[i], ends[at])
    return tracks


def _along(stack: Stack, track: Track, end: float) -> Track:
    """The track with its last point moved along the branch to the end of the span, or left out if that fails."""
    before, last = (track.z[-2], track.leaving[-2]), (track.z[-1], track.tangent[-1])
    found = on_branch(stack, track.member, before, last, lambda z: z[:, -1] - end)
    if found is not None and abs(found.z[0, -1] - end) <= np.finfo(found.z.dtype).eps ** 0.75:
        return _ending(stack, track, found)
    inside = track.part(0, -1)
    return dataclasses.replace(inside, ends=(Outcome.short.say(p=stack.parameter(track.member, inside.z[-1, -1])),))
