"""Walking a recorded solve backwards with cotangents, or forwards with tangents, interval by interval.

The derivative along the weights of a site is a sum over events of outer products, cotangent times signal. An event is a site
in one stage of one step. With `opened=True`, `back` returns the cotangents of each event, (E, k, o), and does not contract
them with the signals.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.kernel.replay import Replay
from ssntk.kernel.sites.opened import Cut, Opened, Site, columns_of, cut, held, uncut, used

# A position: an int, or a traced array.
Index = int | Array
# What k cotangents become in a save interval: for each view the cotangents at its events (E, k, o), and for each raw leaf
# the derivatives (k, *shape).
Gathered = tuple[list[Array], list[Array]]


class Walk:
    """Sweeps over one input of a recorded solve, with its sites opened or not. Each compiled function makes its own."""

    def __init__(self, replay: Replay, b: Index, opened: bool = False):
        self.replay, self.theta, self.leaves = replay, replay.theta, replay.theta.arrays
        self.track = jax.tree.map(lambda leaf: leaf[b], replay.tracks)
        self.b, self.drive = b, replay.probe.input(b)
        t, x = self.track.times[0], self.track.states[0]
        at = t, x, jax.eval_shape(self.drive, t)
        self.field = Opened(replay.field, self.leaves, *at) if opened else None
        self.cut: Cut = uncut(range(len(self.leaves))) if self.field is None else cut(self.field, self.leaves)
        self.raw = [self.leaves[i] for i in self.cut.raw]
        # The number of the view at each site, in the order in which one evaluation of the field meets the sites.
        self.numbers = [] if self.field is None else self.cut.numbers(self.field)
        self.seen = uncut(used(replay.look, self.leaves, *at))

    def step(self, raw: list[Array], x: Array, j: Array, at_site: Callable[[Site, Array], Array]) -> Array:
        """The state after step j from x, with `at_site` at every site."""
        leaves = list(self.leaves)
        for i, leaf in zip(self.cut.raw, raw, strict=True):
            leaves[i] = leaf
        t0, t1 = self.track.times[j], self.track.times[j + 1]
        drive = self.replay.probe.during(self.b, t0, t1)
        return self.replay.step(lambda t, x: self.velocity(leaves, t, x, drive(t), at_site), t0, t1, x)

    def velocity(self, leaves: list[Array], t: Array, x: Array, u: Array, at_site: Callable[[Site, Array], Array]) -> Array:
        """The value of the field, with `at_site` at every site."""
        if self.field is None:
            return self.replay.field(leaves, t, x, u)
        return self.field(leaves, t, x, u, dense=self.cut.dense, at_site=at_site)

    def told(self, j: Array) -> tuple[list[list[Array]], list[list[Array]]]:
        """For each view: the answers (q, o) and the signals (q, i) of all its sites in step j, in their order."""
        answers, signals = ([[] for _ in self.cut.views] for _ in range(2))
        coming = itertools.cycle(self.numbers)

        def at_site(site: Site, signal: Array) -> Array:
            number = next(coming)
            answers[number].append(site.product(signal))
            signals[number].append(signal)
            return answers[number][-1]

        self.step(self.raw, self.track.states[j], j, at_site)
        return answers, signals

    def _held(self, j: Array) -> Callable[[list[Array], list[list[Array]], Array], Array]:
        """Step j as a function of the raw leaves, the answers at all sites, and the state."""

        def run(raw: list[Array], answers: list[list[Array]], x: Array) -> Array:
            known, coming = [iter(some) for some in answers], itertools.cycle(self.numbers)
            return self.step(raw, x, j, lambda site, signal: held(site, signal, next(known[next(coming)])))

        return run

    # Backwards.

    def back(self, interval: Array, cotangents: Float[Array, "k n"]) -> tuple[Float[Array, "k n"], Gathered]:
        """Pull cotangents (k, n) of the state at the end of a save interval back to its beginning, and to theta."""
        k, dtype = cotangents.shape[0], cotangents.dtype
        first, last = self.track.saved[interval], self.track.saved[interval + 1]
        answers = self._answers(first, last)

        def one(i: Array, carry: tuple[Array, list[Array], list[Array]]) -> tuple[Array, list[Array], list[Array]]:
            cotangents, raw, met = carry
            j = last - 1 - i
            held = jax.tree.map(lambda answer: answer[j - first], answers)
            _, pull = jax.vjp(self._held(j), self.raw, held, self.track.states[j])
            by_raw, by_answer, by_x = jax.vmap(pull, out_axes=(0, 1, 0))(cotangents)
            met = [all_of.at[j - first].set(jnp.concatenate(p)) for all_of, p in zip(met, by_answer, strict=True)]
            return by_x, jax.tree.map(jnp.add, raw, by_raw), met

        met = [
            jnp.zeros((some[0].shape[0], sum(a.shape[1] for a in some), k, view.index.shape[0]), dtype)
            for some, view in zip(answers, self.cut.views, strict=True)
        ]
        raw = [jnp.zeros((k, *leaf.shape), dtype) for leaf in self.raw]
        cotangents, raw, met = jax.lax.fori_loop(0, last - first, one, (cotangents, raw, met))
        return cotangents, ([all_of.reshape(-1, *all_of.shape[2:]) for all_of in met], raw)

    def _answers(self, first: Array, last: Array) -> list[list[Array]]:
        """The answers (steps, q, o) of every site in the steps of an interval."""
        if not self.cut.views:
            return []
        steps = jnp.minimum(first + jnp.arange(self.replay.longest, dtype=first.dtype), last - 1)
        return jax.vmap(self.told)(steps)[0]

    def still(self, k: int) -> list[Array]:
        """Zeros for each raw leaf, (k, *shape)."""
        return [jnp.zeros((k, *leaf.shape), self.replay.probe.ts.dtype) for leaf in self.raw]

    def columns(self, raw: list[Array], k: int) -> Float[Array, "k p"]:
        """The parts for each view and then for each raw leaf, as one array (k, p) in the order of theta."""
        return columns_of(self.cut, self.theta, raw, k)

    @property
    def observed(self) -> list[Array]:
        """The leaves on which the observation depends directly, not through the state."""
        return [self.leaves[i] for i in self.seen.raw]

    def observed_columns(self, parts: list[Array], k: int) -> Float[Array, "k p"]:
        """The parts for those leaves, as one array (k, p) in the order of theta."""
        return columns_of(self.seen, self.theta, parts, k)

    # Forwards.

    def forth(self, interval: Array, moving: Float[Array, "k n"], met: list[Array], raw: list[Array]) -> Float[Array, "k n"]:
        """Push tangents (k, n) of the state at the beginning of a save interval forward to its end.

        `met`: the tangents (E, k, o) at the events of each view. `raw`: the directions (k, *shape) of each raw leaf.
        """
        first, last = self.track.saved[interval], self.track.saved[interval + 1]
        answers = self._answers(first, last)
        # The events are ordered by step, and then as the sites of a step are met.
        by_step = [
            all_of.reshape(some[0].shape[0], -1, *all_of.shape[1:]) for all_of, some in zip(met, answers, strict=True)
        ]

        def one(j: Array, moving: Array) -> Array:
            held, at = jax.tree.map(lambda answer: answer[j - first], answers), self.track.states[j]
            shifts = [
                jnp.split(all_of[j - first], np.cumsum([a.shape[0] for a in some])[:-1])
                for all_of, some in zip(by_step, held, strict=True)
            ]

            def tangent(raw: list[Array], shifts: list[list[Array]], moving: Array) -> Array:
                return jax.jvp(self._held(j), (self.raw, held, at), (raw, shifts, moving))[1]

            return jax.vmap(tangent, in_axes=(0, 1, 0))(raw, shifts, moving)

        return jax.lax.fori_loop(first, last, one, moving)

    # At the save times.

    def look_back(self, i: Index, cotangents: Float[Array, "k m"]) -> tuple[list[Array], Float[Array, "k n"]]:
        """Pull cotangents (k, m) of the observation at save time i back: to the leaves it depends on, and to the state."""
        _, pull = jax.vjp(self._look(i), self.observed, self.track.states[self.track.saved[i]])
        return jax.vmap(pull)(cotangents)

    def look_forth(
        self, i: Index, moving: Float[Array, "k n"], directions: list[Array] | dict[int, Array]
    ) -> Float[Array, "k m"]:
        """The tangents (k, m) of the observation at save time i, from directions (k, *shape) of theta and (k, n) of the
        state."""
        leaves, at = self.observed, self.track.states[self.track.saved[i]]

        def tangent(directions: list[Array], moving: Array) -> Array:
            return jax.jvp(self._look(i), (leaves, at), (directions, moving))[1]

        return jax.vmap(tangent)([directions[j] for j in self.seen.raw], moving)

    def _look(self, i: Index) -> Callable[[list[Array], Array], Array]:
        t = self.replay.probe.ts[i]

        def look(some: list[Array], x: Array) -> Array:
            leaves = list(self.leaves)
            for j, leaf in zip(self.seen.raw, some, strict=True):
                leaves[j] = leaf
            return self.replay.look(leaves, t, x, self.drive(t))

        return look
