"""The fixed points and 2-cycles of networks at every step of their training, for loss_jump_study.py.

They are the zeros of F(F(x)) - x at zero input, where F is one step of the network. Empty slots hold NaN.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from loss_jump_runs import Cell, network

import ssntk

# Slots for zeros (a 2-cycle needs two). If they do not suffice, all is done again with the next number.
SLOTS = 16, 28, 56
EVERY, ROUNDS = 50, 3
# In each round at most so many further searches are made for a network.
MOST = 100
STARTS, SEARCHED, CARRIED, LONGEST = 64, 25, 5, 0.5
# Zeros: the residual, the distance at which two are the same, how far F moves a fixed point at most, and the distance at
# which a zero counts as found by ssntk too.
ZERO, SAME, STILL, NEAR = 1e-9, 1e-5, 1e-6, 1e-4
CHUNK = 64
KINDS = ("birth or death", "+1", "flip", "Neimark-Sacker", "2-cycle")


class Tracked(NamedTuple):
    """Arrays (steps, seeds): numbers of points, the sum of the indices of all zeros of F(F(x)) - x, and the kind of
    bifurcation since the step before (0: none; else 1 + its place in `KINDS`). Counts of searches, (seeds,) each:

    - `scheduled`: full searches at every 50th step, and at jumps and falls. `new`: how many of them found a zero that no
      zero known before had become: born since, or missed before. `missed`: how many of them missed a zero that exists there,
      as carrying back from later searches showed.
    - `further`: full searches where the count or the index sum changes. `further_new`: how many found a zero that carrying
      from both sides had missed. `left_out`: how many there would have been beyond the largest number.
    - `audited`, `audit_new`: further searches at every fifth step of the first network, afterwards, and how many found a
      zero that was not known. `library`: fixed points and 2-cycles that ssntk's own searches found in the audit;
      `library_new`: those of them that were not known; `library_less`: known ones that they did not find.
    """

    n_points: np.ndarray
    n_stable: np.ndarray
    n_cycles: np.ndarray
    n_stable_cycles: np.ndarray
    index: np.ndarray
    kind: np.ndarray
    scheduled: np.ndarray
    new: np.ndarray
    missed: np.ndarray
    further: np.ndarray
    further_new: np.ndarray
    left_out: np.ndarray
    audited: np.ndarray
    audit_new: np.ndarray
    library: np.ndarray
    library_new: np.ndarray
    library_less: np.ndarray


@functools.cache
def maker(name: str, units: int | None = None) -> Any:
    return ravel_pytree(network(name, 0, units))[1]


def stepped(name: str, units: int | None, theta: jax.Array, x: jax.Array) -> jax.Array:
    return maker(name, units)(theta).advance(0.0, x, jnp.zeros(1))


# %% Newton's iteration on F(F(x)) - x
def newton(step: Any, x: jax.Array, count: int) -> jax.Array:
    """The zeros to which states x (k, n) lead in `count` steps of limited length; NaN where they lead to none."""

    def residual(x):
        return step(step(x)) - x

    def one(_, x):
        move = -jnp.linalg.solve(jax.vmap(jax.jacfwd(residual))(x), jax.vmap(residual)(x)[..., None])[..., 0]
        size = jnp.linalg.norm(move, axis=-1, keepdims=True)
        return x + move * jnp.minimum(1.0, LONGEST / jnp.maximum(size, 1e-300))

    x = jax.lax.fori_loop(0, count, one, x)
    size = jnp.max(jnp.abs(jax.vmap(residual)(x)), axis=1)
    # All points and cycles of these networks lie in the cube. Outside of it the gate of a GRU saturates, so that F(x) is x
    # to rounding in whole regions.
    inside = jnp.max(jnp.abs(x), axis=1) <= 1 + SAME
    return jnp.where(((size < ZERO) & inside)[:, None], x, jnp.nan)


def distinct(x: jax.Array, slots: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first of equal states, at the front of so many slots; where each came from; and how many there are."""
    known = jnp.isfinite(x).all(axis=1)
    near = (jnp.max(jnp.abs(x[:, None] - x[None]), axis=2) < SAME) & known[None]
    first = known & ~jnp.any(jnp.tril(near, -1), axis=1)
    order = jnp.argsort(~first, stable=True)[:slots]
    return jnp.where(first[order][:, None], x[order], jnp.nan), order, first.sum()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def searches(name: str, units: int | None, slots: int, thetas: jax.Array, keys: jax.Array) -> jax.Array:
    """The zeros (k, slots, n) that full searches find for weights (k, p)."""

    def one(theta, key):
        step = functools.partial(stepped, name, units, theta)
        n = network(name, 0, units).n_state
        states = jr.uniform(key, (STARTS, n), minval=-1.0, maxval=1.0)
        # Half of the starts are the ends of orbits.
        ends = jax.lax.fori_loop(0, 40, lambda _, x: jax.vmap(step)(x), states[: STARTS // 2])
        found = newton(step, jnp.concatenate([ends, states[STARTS // 2 :]]), SEARCHED)
        # Both points of a cycle are zeros.
        found = jnp.concatenate([found, newton(step, jax.vmap(step)(found), 2)])
        return distinct(found, slots)[0]

    return jax.vmap(one)(thetas, keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def carried(name: str, units: int | None, thetas: jax.Array, given: jax.Array) -> Any:
    """What zeros become along weights (steps, seeds, p), with others `given` (steps, seeds, slots, n) on the way.

    Returns all zeros at each step, how many of these are only in `given`, the sum of their indices, and how many found no
    slot. The first weights come first, so reverse both to carry backwards.
    """
    slots = given.shape[2]

    def one(theta, known, others):
        step = functools.partial(stepped, name, units, theta)
        moved = newton(step, known, CARRIED)
        kept, order, count = distinct(jnp.concatenate([moved, others]), slots)
        full = jnp.isfinite(kept).all(axis=1)
        matrix = jnp.eye(known.shape[1])[None] - jax.vmap(jax.jacfwd(lambda x: step(step(x))))(kept)
        sign = jnp.linalg.slogdet(jnp.where(full[:, None, None], matrix, jnp.eye(known.shape[1])))[0]
        index = jnp.where(full, sign, 0.0).sum()
        return kept, (kept, (full & (order >= slots)).sum(), index, jnp.maximum(count - slots, 0))

    def step(known, here):
        return jax.vmap(one)(here[0], known, here[1])

    return jax.lax.scan(step, jnp.full_like(given[0], jnp.nan), (thetas, given))[1]


# %% All steps of training
class Search:
    """Full searches for the networks of a batch, each with other random starts."""

    def __init__(self, name: str, units: int | None, thetas: np.ndarray, slots: int):
        self.name, self.units, self.thetas, self.slots = name, units, thetas, slots

    def at(self, places: list[tuple[int, int]], salt: int) -> np.ndarray:
        """The zeros at (step, seed), (k, slots, n)."""
        found = []
        for first in range(0, len(places), CHUNK):
            some = places[first : first + CHUNK]
            t, s = np.array(some + some[-1:] * (CHUNK - len(some))).T
            keys = jr.split(jr.fold_in(jr.key(salt), first), CHUNK)
            thetas = jnp.asarray(self.thetas[t, s])
            found.append(np.asarray(searches(self.name, self.units, self.slots, thetas, keys))[: len(some)])
        return np.concatenate(found)


def unknown(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For zeros found (k, slots, n) and known there, how many of each were not known (k,)."""
    apart = np.abs(found[:, :, None] - known[:, None]).max(axis=3)
    return (np.isfinite(found).all(axis=2) & ~(apart < SAME).any(axis=2)).sum(axis=1)


def tracked(cell: Cell, thetas: np.ndarray, looked: list[tuple[int, int]], units: int | None = None) -> Tracked:
    """The points of networks with weights (steps, seeds, p). `looked`: (step, seed) at which a full search is made, besides
    every 50th step."""
    for slots in SLOTS:
        zeros, index, counts, overflow = _zeros(cell.network, units, thetas, looked, slots)
        if not overflow:
            break
    flat = judged(cell.network, units, thetas, zeros)
    known = summary(thetas.shape[:2], flat, halves=True)
    return Tracked(*known[:4], index.astype(np.int16), known[4], **counts, **audit(cell, units, thetas, zeros))


def _zeros(name: str, units: int | None, thetas: np.ndarray, looked: Any, slots: int) -> tuple[Any, Any, Any, bool]:
    """All zeros (steps, seeds, slots, n), index sums, counts of searches, and whether slots were too few."""
    steps, seeds, _ = thetas.shape
    n = network(name, 0, units).n_state
    search, given = Search(name, units, thetas, slots), np.full((steps, seeds, slots, n), np.nan)
    places = sorted({*looked, *((t, s) for s in range(seeds) for t in {*range(0, steps, EVERY), steps - 1})})
    done, counts = set(places), {name: np.zeros(seeds, int) for name in Tracked._fields[6:12]}
    t, s = np.array(places).T
    given[t, s] = search.at(places, 0)
    np.add.at(counts["scheduled"], s, 1)
    for around in range(ROUNDS + 1):
        forward, fresh, *_ = map(np.asarray, carried(name, units, thetas, given))
        zeros, _, index, over = (
            np.asarray(part)[::-1] for part in carried(name, units, thetas[::-1].copy(), forward[::-1].copy())
        )
        if around == 0:
            np.add.at(counts["new"], s, (fresh[t, s] > 0) & (t > 0))
            np.add.at(counts["missed"], s, unknown(zeros[t, s], forward[t, s]) > 0)
        if around == ROUNDS:
            break
        more, left = _suspicious(np.isfinite(zeros).all(axis=3).sum(axis=2), index, done, around)
        counts["left_out"] += left
        if not more:
            break
        done |= set(more)
        given, found = zeros.copy(), search.at(more, around + 1)
        at, who = np.array(more).T
        extra = unknown(found, zeros[at, who])
        np.add.at(counts["further"], who, 1)
        np.add.at(counts["further_new"], who, extra > 0)
        if not extra.any():
            break
        for i, (one, network_) in enumerate(more):
            both = np.concatenate([zeros[one, network_], found[i]])
            given[one, network_] = np.asarray(_distinct(both, slots))
    return zeros, index, counts, bool(over.any())


@functools.partial(jax.jit, static_argnums=1)
def _distinct(x: jax.Array, slots: int) -> jax.Array:
    return distinct(x, slots)[0]


def _suspicious(count: np.ndarray, index: np.ndarray, done: Any, salt: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Where a further search is due: on both sides of each change of the number of zeros or of their index sum."""
    chosen, left = [], np.zeros(count.shape[1], int)
    for s in range(count.shape[1]):
        at = np.flatnonzero((np.diff(count[:, s]) != 0) | (np.diff(index[:, s]) != 0))
        due = sorted({(int(t), s) for one in at for t in (one, one + 1)} - done)
        left[s] = max(len(due) - MOST, 0)
        pick = np.random.default_rng(salt).permutation(len(due))[:MOST]
        chosen += [due[i] for i in sorted(pick)]
    return chosen, left


# %% Stability, and what changes
class Flat(NamedTuple):
    """All points of all steps in one list: step, seed, state (n,), whether it is fixed by F, the largest multiplier."""

    t: np.ndarray
    s: np.ndarray
    x: np.ndarray
    fixed: np.ndarray
    multiplier: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jacobians(name: str, units: int | None, thetas: jax.Array, x: jax.Array) -> Any:
    """F(x) and dF/dx for weights (k, p) and states (k, n)."""

    def one(theta, x):
        step = functools.partial(stepped, name, units, theta)
        return step(x), jax.jacfwd(step)(x)

    return jax.vmap(one)(thetas, x)


def judged(name: str, units: int | None, thetas: np.ndarray, zeros: np.ndarray) -> Flat:
    t, s, slot = np.nonzero(np.isfinite(zeros).all(axis=3))
    x = zeros[t, s, slot]
    images, matrices = np.empty_like(x), np.empty((len(x), x.shape[1], x.shape[1]))
    size = 4096
    for first in range(0, len(x), size):
        part = slice(first, min(first + size, len(x)))
        pick = np.resize(np.arange(part.start, part.stop), size)
        image, matrix = _jacobians(name, units, thetas[t[pick], s[pick]], x[pick])
        images[part], matrices[part] = (np.asarray(one)[: part.stop - part.start] for one in (image, matrix))
    fixed = np.abs(images - x).max(axis=1, initial=0.0) < STILL
    others = np.flatnonzero(~fixed)
    for first in range(0, len(others), size):
        pick = np.resize(others[first : first + size], size)
        there = np.asarray(_jacobians(name, units, thetas[t[pick], s[pick]], images[pick])[1])
        here = others[first : first + size]
        matrices[here] = there[: len(here)] @ matrices[here]
    return Flat(t, s, x, fixed, largest(matrices))


def largest(matrices: np.ndarray) -> np.ndarray:
    """The eigenvalue of each matrix with the largest modulus; of a pair, the upper one."""
    values = np.linalg.eigvals(matrices).astype(complex)
    values = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)[:, 0]
    return values.real + 1j * np.abs(values.imag)


def summary(shape: Any, flat: Flat, *, halves: bool) -> list[np.ndarray]:
    """Numbers of fixed points, of stable ones, of 2-cycles and of stable ones, and kinds of bifurcations (steps, seeds).

    `halves`: whether both points of each cycle are listed.
    """
    stable = np.abs(flat.multiplier) < 1
    counts = []
    for cycles, which in (
        (False, flat.fixed),
        (False, flat.fixed & stable),
        (True, ~flat.fixed),
        (True, ~flat.fixed & stable),
    ):
        count = np.zeros(shape, np.int16)
        np.add.at(count, (flat.t[which], flat.s[which]), 1)
        counts.append(-(-count // 2) if cycles and halves else count)
    points, steady, _, steady_cycles = counts
    kind = np.zeros(shape, np.int8)
    for t, s in np.argwhere((np.diff(steady, axis=0) != 0) | (np.diff(steady_cycles, axis=0) != 0)):
        t = t + 1
        if points[t, s] != points[t - 1, s]:
            kind[t, s] = 1
        elif steady[t, s] == steady[t - 1, s]:
            kind[t, s] = 5
        else:
            kind[t, s] = 1 + KINDS.index(crossed(*(_of(flat, step, s) for step in (t - 1, t))))
    return [*counts, kind]


def _of(flat: Flat, t: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    """The fixed points of one network at one step, and their largest multipliers. `flat` is sorted by step."""
    part = slice(*np.searchsorted(flat.t, [t, t + 1]))
    mine = (flat.s[part] == s) & flat.fixed[part]
    return flat.x[part][mine], flat.multiplier[part][mine]


def crossed(before: Any, after: Any) -> str:
    """How the stability of a fixed point changed, by its largest multiplier where it is unstable."""
    (x, was), (y, now) = before, after
    to = np.abs(x[:, None] - y[None]).max(axis=2).argmin(axis=1)
    changed = [
        max(one, other, key=abs) for one, other in zip(was, now[to], strict=True) if (abs(one) < 1) != (abs(other) < 1)
    ]
    if not changed:
        return "birth or death"
    if changed[0].imag > 0:
        return "Neimark-Sacker"
    return "+1" if changed[0].real > 0 else "flip"


# %% PLRNNs: all regions
@jax.jit
def _regions(A: jax.Array, W: jax.Array, h: jax.Array) -> Any:
    """Of a PLRNN, for each pair of regions: the zero x (k, n), whether it is there, and the Jacobian of F, or of F twice."""
    n = len(h)
    signs = ((jnp.arange(2**n)[:, None] >> jnp.arange(n)[None]) & 1).astype(h.dtype)
    first, second = (jnp.asarray(part) for part in np.triu_indices(2**n))
    matrices = jnp.diag(A)[None] + W[None] * signs[:, None, :]
    twice = matrices[second] @ matrices[first]
    x = jnp.linalg.solve(jnp.eye(n)[None] - twice, (matrices[second] @ h + h[None])[..., None])[..., 0]
    y = jnp.einsum("kij,kj->ki", matrices[first], x) + h[None]
    there = ((x > 0) == (signs[first] > 0)).all(axis=1) & ((y > 0) == (signs[second] > 0)).all(axis=1)
    fixed = first == second
    there = there & jnp.isfinite(x).all(axis=1) & jnp.isfinite(twice).all(axis=(1, 2))
    return x, there, fixed, jnp.where(fixed[:, None, None], matrices[first], twice)


def enumerated(cell: Cell, thetas: np.ndarray, units: int | None = None) -> Tracked:
    """The same for PLRNNs with weights (steps, seeds, p): all fixed points and 2-cycles of every step."""
    steps, seeds, _ = thetas.shape
    found = jax.jit(jax.vmap(lambda theta: (lambda m: _regions(m.A, m.W, m.h))(maker(cell.network, units)(theta))))
    parts = []
    for t in range(steps):
        x, there, fixed, matrices = map(np.asarray, found(jnp.asarray(thetas[t])))
        s, place = np.nonzero(there)
        parts.append((np.full(len(s), t), s, x[s, place], fixed[s, place], matrices[s, place]))
    t, s, x, fixed, matrices = (np.concatenate(part) for part in zip(*parts, strict=True))
    flat, index = Flat(t, s, x, fixed, largest(matrices)), np.zeros((steps, seeds), np.int16)
    twice = np.where(fixed[:, None, None], matrices @ matrices, matrices)
    np.add.at(
        index, (t, s), (np.linalg.slogdet(np.eye(x.shape[1])[None] - twice)[0] * np.where(fixed, 1, 2)).astype(np.int16)
    )
    known = summary((steps, seeds), flat, halves=False)
    nothing = {name: np.zeros(seeds, int) for name in Tracked._fields[6:12]}
    slots = max(int(np.bincount(t * seeds + s).max(initial=1)), 1)
    zeros = np.full((steps, seeds, slots, x.shape[1]), np.nan)
    order = np.arange(len(t)) - np.searchsorted(t * seeds + s, t * seeds + s)
    zeros[t, s, order] = x
    return Tracked(*known[:4], index, known[4], **nothing, **audit(cell, units, thetas, zeros))


# %% What was missed all the same
def audit(cell: Cell, units: int | None, thetas: np.ndarray, zeros: np.ndarray) -> dict[str, np.ndarray]:
    """Searches afterwards: at every fifth step of the first network, and the package's own at two steps of two networks."""
    steps, seeds, _ = thetas.shape
    counts = {name: np.zeros(seeds, int) for name in Tracked._fields[12:]}
    if cell.network != "PLRNN":
        places = [(t, 0) for t in range(0, steps, 5)]
        found = Search(cell.network, units, thetas, zeros.shape[2]).at(places, 99)
        counts["audited"][0] = len(places)
        counts["audit_new"][0] = (unknown(found, zeros[::5, 0]) > 0).sum()
    for s in range(min(seeds, 2)):
        for t in (steps // 8, (5 * steps) // 8):
            if not np.isfinite(thetas[t, s]).all():
                continue
            model = maker(cell.network, units)(jnp.asarray(thetas[t, s]))
            points = ssntk.find_fixed_points(model, n_starts=32).x
            cycles = ssntk.find_cycles(model, 2, n_starts=256).x
            full = zeros[t, s][np.isfinite(zeros[t, s]).all(axis=1)]
            # Of a cycle either point will do.
            theirs = [*points[:, None], *cycles]
            counts["library"][s] += len(theirs)
            counts["library_new"][s] += sum(_apart(one, full) > NEAR for one in theirs)
            every = np.concatenate([points, *cycles])
            counts["library_less"][s] += sum(_apart(one[None], every) > NEAR for one in full)
    return counts


def _apart(some: np.ndarray, others: np.ndarray) -> float:
    """The smallest distance between two sets of states."""
    return float(np.abs(some[:, None] - others[None]).max(axis=2, initial=0.0).min(initial=np.inf))
