"""Cycles of large networks: Newton's iteration in the few directions that a round contracts least, plain iteration in the
others.

A round contracts most directions of a large network to nothing. It is linearised in m directions only, not in all n: those
of the leading multipliers, found by subspace iteration as the branch is followed, and those in which the cycle moves (Lust,
Roose, Spence and Champneys, SIAM J. Sci. Comput. 19 (1998) 1188). In the other directions the round itself is the iteration,
and Anderson's acceleration makes it shorter.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.cycles.chain import multipliers
from ssntk.cycles.discrete import Corrected, Discrete, Shooting, System
from ssntk.cycles.events import LEADING, ROUGH, CyclePoint
from ssntk.cycles.steps import leaned, stepped

# Directions besides those of the multipliers that count: along the orbit, along the branch, and two that look for more.
SPARE = 4
# The number of directions is a multiple of this, so that few programs are compiled, and at most this part of the states.
BUCKET, PART = 8, 1 / 8
# The largest number of corrections, and how many of them each learns from.
CORRECTIONS, DEPTH = 16, 4
# A correction below this many roundings is the last one.
ROUNDINGS = 256
# The round may lead out of the directions by so much of what it does not contract, and the branch by so much of itself; or
# the directions are improved at most so often.
WITHIN, LEADS, SWEEPS = 1e-4, 1e-2, 3
# With larger multipliers, a round cannot be computed in one piece.
TAME = 1e3
# How often a known round is applied to random directions at the beginning.
BEGIN = 8
# The last correction must be below this power of the rounding error, and the parameter's share of the tangent above this
# part, from where a fold may be near.
CONVERGED, TURNS = 0.65, 1e-3


class Basis(NamedTuple):
    """Orthonormal directions (n, m), the first along the orbit, and to first order what follows when the first point moves
    in them, when the logarithm of the period does, and when the level does: `points` (N, n, m + 2), and the last point
    `ends` (n, m + 2). `drift` (n,): how the first point moves along the branch. `sweeps`: how often they were improved."""

    directions: Float[Array, "n m"]
    points: Float[Array, "N n k"]
    ends: Float[Array, "n k"]
    drift: Float[Array, " n"]
    sweeps: Array


class Found(NamedTuple):
    """An orbit with its tangent, how far a round leads out of the directions (n, m), by how much steps of half the length
    lead elsewhere, relative to the orbit, and the directions."""

    at: Corrected
    outside: Float[Array, "n m"]
    rough: Float[Array, ""]
    basis: Basis


class _Leading(eqx.Module):
    """The equations of cycles in the plane through `begin` normal to `along`."""

    system: System
    steps: int = eqx.field(static=True)
    begin: Discrete
    along: Discrete
    size: Float[Array, ""]

    def lengths(self, log_period: Array) -> Array:
        return jnp.exp(log_period) * jnp.diff(self.begin.mesh) / self.steps

    def run(self, y: Array, parts: int = 1) -> tuple[Array, Array]:
        """The points (N, n) of an orbit from its first, and the last one. `parts`: into how many each step is cut."""
        n = y.shape[0] - 2
        model = self.system.model(y[n + 1])

        def on(x: Array, length: Array) -> tuple[Array, Array]:
            return stepped(lambda x: length / parts * self.system.driven(model, x), x, parts * self.steps), x

        last, points = jax.lax.scan(on, y[:n], self.lengths(y[n]))
        return points, last

    def off(self, points: Array, log_period: Array, level: Array) -> Array:
        """How far an orbit lies ahead of the plane."""
        off = jnp.sum(self.weights * (points - self.begin.ends))
        off = off + self.along.log_period * (log_period - self.begin.log_period)
        return off + self.along.level * (level - self.begin.level)

    @property
    def weights(self) -> Array:
        return self.along.ends / (self.along.ends.size * self.size**2)

    def rows(self, basis: Basis, velocities: Array) -> Array:
        """The equations (m + 2, m + 2) for the changes in the directions, of the logarithm of the period, of the level."""
        m = basis.directions.shape[1]
        inner = basis.directions.T @ basis.ends
        inner = inner.at[:, :m].add(-jnp.eye(m, dtype=inner.dtype))
        phase = jnp.einsum("jn,jnk->k", velocities / jnp.linalg.norm(velocities), basis.points)
        plane = jnp.einsum("jn,jnk->k", self.weights, basis.points)
        plane = plane.at[m].add(self.along.log_period).at[m + 1].add(self.along.level)
        return jnp.concatenate([inner, phase[None], plane[None]])

    def corrected(self, basis: Basis, velocities: Array) -> tuple[Array, Array, Array, Array]:
        """The first point, the logarithm of the period and the level (n + 2,) in one vector, the size of the last correction
        and that of the last residual, relative to the orbit, and the number of corrections."""
        n, m = basis.directions.shape
        dtype = velocities.dtype
        factors = jax.scipy.linalg.lu_factor(self.rows(basis, velocities))

        def change(y: Array) -> tuple[Array, Array, Array]:
            points, last = self.run(y)
            rest = last - y[:n]
            right = -jnp.concatenate(
                [basis.directions.T @ rest, jnp.zeros(1, dtype), self.off(points, y[n], y[n + 1])[None]]
            )
            moves = jax.scipy.linalg.lu_solve(factors, right)
            rest = rest + basis.ends @ moves
            outside = rest - basis.directions @ (basis.directions.T @ rest)
            extent = jnp.maximum(jnp.abs(points - points.mean(axis=0, keepdims=True)).max(), jnp.finfo(dtype).eps)
            move = jnp.concatenate([basis.directions @ moves[:m] + outside, moves[m:]])
            gap = jnp.maximum(jnp.abs(move[:n]).max() / extent, jnp.abs(move[n:]).max())
            return move, gap, jnp.abs(last - y[:n]).max() / extent

        def on(state: tuple[Array, ...]) -> tuple[Array, ...]:
            y, before, moved, changed, gap, _, count = state
            move, new, residual = change(y)
            # The combination of the last corrections that would be the smallest (Anderson's acceleration).
            changed = jnp.where(count > 0, jnp.roll(changed, 1, axis=1).at[:, 0].set(move - before), changed)
            weights = jnp.linalg.lstsq(changed, move)[0]
            step = move - (moved + changed) @ weights
            step = jnp.where(jnp.isfinite(step).all() & (new < 2 * gap), step, move)
            moved = jnp.roll(moved, 1, axis=1).at[:, 0].set(step)
            return y + step, move, moved, changed, new, residual, count + 1

        def goes_on(state: tuple[Array, ...]) -> Array:
            gap, count = state[4], state[6]
            first = count == 0
            return (first | ((gap > ROUNDINGS * jnp.finfo(dtype).eps) & (gap < 0.5))) & (count < CORRECTIONS)

        y = jnp.concatenate([self.begin.ends[0], self.begin.log_period[None], self.begin.level[None]])
        none, far = jnp.zeros((n + 2, DEPTH), dtype), jnp.asarray(jnp.inf, dtype)
        y, _, _, _, gap, residual, count = jax.lax.while_loop(
            goes_on, on, (y, jnp.zeros_like(y), none, none, far, far, jnp.asarray(0))
        )
        return y, gap, residual, count

    def swept(self, directions: Array, y: Array) -> tuple[Array, Basis]:
        """The points (N, n) of an orbit, and what follows to first order when its first point moves in the directions."""
        n = directions.shape[0]
        level = y[n + 1]
        model, moves = eqx.filter_jvp(self.system.model, (level,), (jnp.ones_like(level),))

        def on(state: tuple[Array, Array], length: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            def push(x: Array) -> Array:
                _, moved = eqx.filter_jvp(lambda model: self.system.driven(model, x), (model,), (moves,))
                return jnp.zeros_like(x) if moved is None else length * moved

            x, rows = state
            return leaned(lambda x: length * self.system.driven(model, x), push, x, rows, self.steps), state

        begin = jnp.concatenate([directions.T, jnp.zeros((2, n), directions.dtype)])
        (_, rows), (points, each) = jax.lax.scan(on, (y[:n], begin), self.lengths(y[n]))
        return points, Basis(directions, jnp.swapaxes(each, 1, 2), rows.T, directions[:, 0], jnp.asarray(0))

    def renewed(self, basis: Basis, velocity: Array) -> Array:
        """Better directions (n, m): along the orbit, the images of the others, along the branch, and a random one."""
        n, m = basis.directions.shape
        dtype = velocity.dtype
        forward = velocity / jnp.linalg.norm(velocity)
        drift = basis.drift - forward * (forward @ basis.drift)
        drift = drift / jnp.maximum(jnp.linalg.norm(drift), jnp.finfo(dtype).tiny)
        known = jnp.stack([forward, drift], axis=1)
        images = basis.ends[:, :m]
        images = images - known @ (known.T @ images)
        growing = jnp.linalg.svd(images, full_matrices=False)[0][:, : m - 3]
        # What the directions have no part in would never be found.
        other = jax.random.normal(jax.random.fold_in(jax.random.key(0), basis.sweeps), (n, 1), dtype)
        return jnp.linalg.qr(jnp.concatenate([known[:, :1], growing, known[:, 1:], other], axis=1))[0]

    def tangent(self, basis: Basis, velocities: Array) -> tuple[Array, Array, Array]:
        """How the branch goes on: the changes (m + 2,), the move of the first point (n,), and by how much, relative to it,
        a round leads out of the directions."""
        m = basis.directions.shape[1]
        ahead = jnp.zeros(m + 2, velocities.dtype).at[m + 1].set(1)
        moves = jnp.linalg.solve(self.rows(basis, velocities), ahead)
        end = basis.ends @ moves
        outside = end - basis.directions @ (basis.directions.T @ end)
        drift = basis.directions @ moves[:m] + outside
        return moves, drift, jnp.linalg.norm(outside) / jnp.linalg.norm(drift)

    def velocities(self, points: Array, level: Array) -> Array:
        model = self.system.model(level)
        return jax.vmap(lambda x: self.system.driven(model, x))(points)


@eqx.filter_jit
def found(
    system: System, steps: int, orbit: Discrete, along: Discrete, step: Any, size: Any, basis: Basis, known: Any
) -> Found:
    """The orbit to which the iteration leads from `orbit` + `step` `along`, in the plane normal to `along`. Unless `known`,
    the orbit is taken as it is, and only the directions (n, m) of `basis` are used."""
    n, m = basis.directions.shape
    dtype = orbit.ends.dtype
    begin = orbit.moved(step, along)
    cycle = _Leading(system, steps, begin, along, size)
    velocities = cycle.velocities(begin.ends, begin.level)
    start = jnp.concatenate([begin.ends[0], begin.log_period[None], begin.level[None]])
    nothing = jnp.zeros((), dtype)
    y, gap, residual, count = jax.lax.cond(
        known,
        lambda: cycle.corrected(basis, velocities),
        lambda: (start, nothing, nothing, jnp.zeros((), jnp.asarray(0).dtype)),
    )
    velocity = cycle.velocities(y[None, :n], y[n + 1])[0]

    def on(state: tuple[Basis, Array, Array, Array, Array]) -> tuple[Basis, Array, Array, Array, Array]:
        old, done = state[0], state[4]
        directions = jnp.where(known | (done > 0), cycle.renewed(old, velocity), old.directions)
        points, new = cycle.swept(directions, y)
        moves, drift, leads = cycle.tangent(new, cycle.velocities(points, y[n + 1]))
        square = directions.T @ new.ends[:, :m]
        outside = new.ends[:, :m] - directions @ square
        # What a round takes out of the directions, of what it does not contract.
        leaves = jnp.linalg.norm(outside @ square @ square) / jnp.linalg.norm(square) ** 3
        return Basis(*new[:3], drift, old.sweeps + 1), points, moves, jnp.maximum(leaves / WITHIN, leads / LEADS), done + 1

    def goes_on(state: tuple[Basis, Array, Array, Array, Array]) -> Array:
        return (state[3] > 1) & (state[4] < SWEEPS)

    far, none = jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
    basis, points, moves, _, _ = jax.lax.while_loop(goes_on, on, (basis, begin.ends, jnp.zeros(m + 2, dtype), far, none))
    square = basis.directions.T @ basis.ends[:, :m]
    outside = basis.ends[:, :m] - basis.directions @ square
    now = Discrete(begin.mesh, points, begin.inner, y[n], y[n + 1])
    ends = basis.points @ moves
    length = jnp.sqrt(jnp.mean((ends / size) ** 2) + moves[m] ** 2 + moves[m + 1] ** 2)
    parts = (part / length for part in (ends, jnp.zeros_like(begin.inner), moves[m], moves[m + 1]))
    same = jnp.eye(m, dtype=dtype)
    at = Corrected(now, gap, residual, count, -square, same, same[0], Discrete(begin.mesh, *parts), None)
    apart = jnp.abs(cycle.run(y, parts=2)[1] - cycle.run(y)[1]).max()
    return Found(at, outside, apart / jnp.abs(points - points.mean(axis=0, keepdims=True)).max(), basis)


@dataclasses.dataclass
class Leaders:
    """The directions of the leading multipliers along a branch: `columns` of them, and `count` multipliers are reported."""

    system: System
    count: int
    columns: int
    basis: Basis | None = None

    @classmethod
    def of(cls, system: System, point: CyclePoint, count: int | None) -> "Leaders | None":
        """Those of a cycle of which all multipliers are known. `count`: as many as are asked for, else those that a round
        does not contract to a tenth. `None` if they are too many to be worth it, or too large."""
        sizes = np.abs(point.judged.values)
        least = max(int((sizes > LEADING).sum()) + 2, count or 0)
        columns = BUCKET * -(-(least + SPARE) // BUCKET)
        if columns > PART * (len(sizes) + 1) or not (sizes < TAME).all() or not isinstance(point.method, Shooting):
            return None
        return cls(system, count or columns - SPARE, columns)

    def begin(self, point: CyclePoint, size: Any) -> None:
        """Take the directions from a cycle of which the whole round is known."""
        turns, drift = -np.asarray(point.at.first), np.asarray(point.at.tangent.ends[0])
        vectors = np.random.default_rng(0).normal(size=(len(turns), self.columns - 2)).astype(turns.dtype)
        for _ in range(BEGIN):
            vectors = np.linalg.qr(turns @ vectors)[0]
        directions = np.linalg.qr(np.column_stack([point.at.velocity, drift, vectors]))[0]
        nothing = np.zeros((len(point.at.orbit.ends), len(turns), self.columns + 2), turns.dtype)
        basis = Basis._make(jnp.asarray(part) for part in (directions, nothing, nothing[0], drift, 0))
        self.basis = self._found(point, 0.0, size, basis, False).basis

    def ahead(self, point: CyclePoint, step: float, size: Any) -> CyclePoint | None:
        """The point after a step; `None` if it is not found, or if the steps are too long, or if the multipliers cannot be
        told from the unit circle."""
        if point.whole or self.basis is None:
            self.begin(point, size)
        assert self.basis is not None
        result = self._found(point, step, size, self.basis, True)
        at, outside, rough = jax.device_get(result[:3])
        if not float(at.size) <= float(np.finfo(at.orbit.ends.dtype).eps) ** CONVERGED:
            return None
        judged = multipliers(at.first, at.second, at.velocity, outside)
        values, errors, most = judged.values, judged.errors, self.columns - SPARE
        sizes = np.abs(values)
        tells = (np.abs(sizes - 1) > errors)[:most].all() and abs(float(at.tangent.level)) > TURNS
        fits = sizes[0] < TAME and sizes[most - 1] < LEADING and rough <= ROUGH * max(1.0, sizes[0])
        if not tells or not fits:
            return None
        self.basis = result.basis
        # As many corrections as this are no reason for shorter steps.
        at = at._replace(count=np.asarray(1))
        return CyclePoint(
            at, judged._replace(values=values[: self.count], errors=errors[: self.count]), point.method, whole=False
        )

    def _found(self, point: CyclePoint, step: float, size: Any, basis: Basis, known: bool) -> Found:
        assert isinstance(point.method, Shooting)
        dtype = point.at.orbit.ends.dtype
        orbit, along = (
            Discrete._make(np.asarray(part, dtype) for part in parts) for parts in (point.at.orbit, point.at.tangent)
        )
        units = np.asarray(step, dtype), np.asarray(size, dtype)
        return found(self.system, point.method.steps, orbit, along, *units, basis, np.asarray(known))
