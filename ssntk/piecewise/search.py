"""Search for fixed points and cycles of piecewise-linear systems, if there are too many regions for a proof.

From the pattern of a region follows the solution of its linear equation, and from that the pattern of the region in which it
lies: Newton's iteration of a semismooth equation (Qi and Sun, 1993). For maps this is the method of Eisenmann, Monfared,
Goering and Durstewitz (SCYFI, 2023). Here many patterns run at once.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from ssntk.piecewise.solutions import Zeros, accepted
from ssntk.piecewise.system import System

# The largest number of steps from a start, and of batches of starts.
STEPS, BATCHES = 40, 16
# The largest number of multiplications for the linear equations of one step of a batch, and the least number of its starts.
WORK, LEAST = 2.0**32, 16
# A pattern that comes back is left by changing each sign that is wrong with this probability.
SOME = 0.5
# The next batch is tried while more than this fraction of the starts are alone at their solution.
ALONE = 0.01

Patterns = Bool[np.ndarray, "p m"]


def searched(
    system: System,
    fresh: Callable[[int, np.random.Generator], Patterns],
    after: Callable[[Patterns], Patterns],
    n_starts: int,
    random: np.random.Generator,
    same: Callable[[np.ndarray], np.ndarray] = lambda patterns: patterns,
) -> Zeros:
    """The solutions of an equation that starts lead to.

    **Arguments:**

    - `fresh`: makes so many patterns (p, m) to start from.
    - `after`: the pattern of the region in which the solution of each pattern lies.
    - `n_starts`: the number of starts of one batch.
    - `same`: one representative of the patterns that belong to one solution.
    """
    m = len(system.c)
    known, hits = np.zeros((0, m), bool), np.zeros(0, int)
    made = lost = 0
    for batch in range(BATCHES):
        starts = fresh(n_starts, random)
        if batch and len(known):
            # Solutions lie near others: a few signs differ.
            near = known[random.integers(0, len(known), n_starts // 2)]
            few = random.random((len(near), m)) < random.uniform(0, 4, (len(near), 1)) / m
            starts[: len(near)] = near ^ few
        ends = _followed(starts, after, random)
        made, lost = made + len(starts), lost + len(starts) - len(ends)
        before = len(known)
        whole = np.concatenate([known, same(ends)])
        known, which = np.unique(whole, axis=0, return_inverse=True)
        weights = np.concatenate([hits, np.ones(len(ends), int)])
        hits = np.bincount(which.ravel(), weights, minlength=len(known)).astype(int)
        if len(known) == before and (hits == 1).sum() <= ALONE * made and batch:
            break
    found = accepted(system, known, False)
    counted = np.array([hits[(known == same(one[None])[0]).all(axis=1)].sum() for one in found.patterns], int)
    return Zeros(found.x, found.patterns, False, found.lines, hits=counted, starts=made, lost=lost)


def _followed(patterns: np.ndarray, after: Callable[[Patterns], Patterns], random: np.random.Generator) -> np.ndarray:
    """The patterns that lead to themselves, to which patterns (p, m) lead. Each start counts."""
    ends, older = [np.zeros((0, patterns.shape[1]), bool)], np.zeros_like(patterns)
    for _ in range(STEPS):
        new = after(patterns)
        there = (new == patterns).all(axis=1)
        ends.append(patterns[there])
        patterns, new, older = patterns[~there], new[~there], older[~there]
        if len(patterns) == 0:
            break
        # Iterations mostly repeat with two patterns in turn.
        again = (new == older).all(axis=1)
        some = patterns[again] ^ ((new[again] != patterns[again]) & (random.random((int(again.sum()), new.shape[1])) < SOME))
        older = patterns
        patterns = new.copy()
        patterns[again] = some
    return np.concatenate(ends)


def searched_points(system: System, n_starts: int, random: np.random.Generator) -> Zeros:
    """The fixed points that random patterns lead to."""
    m, n = len(system.c), len(system.G)
    count = int(np.clip(WORK / n**3, min(LEAST, n_starts), n_starts))

    def fresh(count: int, random: np.random.Generator) -> np.ndarray:
        return random.random((count, m)) < random.uniform(0, 1, (count, 1))

    def after(patterns: np.ndarray) -> np.ndarray:
        return system.signals(system.solved(patterns)[0]) > 0

    return searched(system, fresh, after, count, random)


def searched_cycles(step: System, k: int, stacked: System, n_starts: int, random: np.random.Generator) -> Zeros:
    """The cycles of k steps, those of shorter periods included, that segments of orbits and random itineraries lead to."""
    rounds = Rounds(step, k)
    return searched(stacked, rounds.fresh, rounds.after, n_starts, random, lambda itineraries: canonical(itineraries, k))


class Rounds:
    """The linear equations of k steps of a map x' = A x + B relu(C x + c) + h, for many itineraries (p, k m) at once."""

    def __init__(self, step: System, k: int):
        """**Arguments:** `step`: the map, as `G x + B relu(C x + c) + h` with G = A."""
        self.step, self.k = step, k

    def _regions(self, itineraries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The matrices (p, k, n, n) and constants (p, k, n) of each step."""
        step = self.step
        on = step.B * itineraries.reshape(len(itineraries), self.k, 1, -1)
        return step.G + on @ step.C, step.h + on @ step.c

    def states(self, itineraries: np.ndarray) -> np.ndarray:
        """The states (p, k, n) of the closed orbits of the linear equations; zero if there is none."""
        J, b = self._regions(itineraries)
        p, n = len(J), J.shape[-1]
        product, level = np.broadcast_to(np.eye(n), (p, n, n)), np.zeros((p, n))
        for j in range(self.k):
            product, level = J[:, j] @ product, (J[:, j] @ level[..., None])[..., 0] + b[:, j]
        with np.errstate(all="ignore"):
            closed = np.eye(n) - product
            flat = ~np.isfinite(closed).all(axis=(1, 2)) | ~(np.abs(np.linalg.det(np.nan_to_num(closed))) > 0)
            closed = np.where(flat[:, None, None], np.eye(n), closed)
            x = [np.nan_to_num(np.linalg.solve(closed, np.nan_to_num(level)[..., None])[..., 0])]
            for j in range(self.k - 1):
                x.append((J[:, j] @ x[-1][..., None])[..., 0] + b[:, j])
        return np.nan_to_num(np.stack(x, axis=1))

    def orbits(self, x: np.ndarray) -> np.ndarray:
        """The itineraries (p, k m) of the orbits of the map from states (p, n)."""
        step, signs = self.step, []
        with np.errstate(all="ignore"):
            for _ in range(self.k):
                s = x @ step.C.T + step.c
                signs.append(s > 0)
                x = np.nan_to_num(x @ step.G.T + np.maximum(s, 0.0) @ step.B.T + step.h)
        return np.concatenate(signs, axis=1)

    def after(self, itineraries: np.ndarray) -> np.ndarray:
        """The next itineraries: of the points of closed orbits; for every other one, of the orbit from its first point."""
        x = self.states(itineraries)
        found = (x @ self.step.C.T + self.step.c > 0).reshape(len(x), -1)
        found[1::2] = self.orbits(x[1::2, 0])
        return found

    def fresh(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Itineraries of segments of orbits, and random ones, (count, k m)."""
        n, m = len(self.step.G), len(self.step.c)
        x = 3 * random.standard_normal((count // 2, n)) * 10 ** random.uniform(-1, 1, (count // 2, 1))
        with np.errstate(all="ignore"):
            for wait in range(64):
                # Some segments begin at once, and others on an attractor.
                later = np.arange(len(x)) % 64 > wait
                new = x @ self.step.G.T + np.maximum(x @ self.step.C.T + self.step.c, 0.0) @ self.step.B.T + self.step.h
                x = np.where(later[:, None] & np.isfinite(new), new, x)
        loose = random.random((count - len(x), self.k * m)) < random.uniform(0, 1, (count - len(x), 1))
        return np.concatenate([self.orbits(x), loose])[random.permutation(count)]


def canonical(itineraries: Bool[np.ndarray, "p km"], k: int) -> Bool[np.ndarray, "p km"]:
    """The rotation of each itinerary (p, k m) that comes first in the order of its signs, true ones first."""
    p = len(itineraries)
    if itineraries.size == 0:
        return itineraries
    steps = itineraries.reshape(p, k, itineraries.shape[1] // k)
    turned = np.stack([np.roll(steps, -j, axis=1).reshape(itineraries.shape) for j in range(k)], axis=1)
    # Bits as bytes compare like the numbers that they make.
    packed = np.packbits(turned, axis=2)
    best = np.zeros(p, int)
    for j in range(1, k):
        here, there = packed[np.arange(p), best], packed[:, j]
        differ = here != there
        at = differ.argmax(axis=1)
        rows = np.arange(p)
        best = np.where(differ.any(axis=1) & (there[rows, at] > here[rows, at]), j, best)
    return turned[np.arange(p), best]
