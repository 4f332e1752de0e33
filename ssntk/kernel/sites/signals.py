"""The signals at the sites of a recorded solve, where events are few enough for inner products between them to pay."""

import dataclasses
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import is_traced
from ssntk.kernel.replay import Replay
from ssntk.kernel.sites.opened import Site
from ssntk.kernel.sites.walk import Walk
from ssntk.notices import LOG

# How far two derivatives of one step may be apart, in roundings of the larger.
APART = 1e4


def with_signals(replay: Replay, least: int, worth: Callable[[int, tuple[int, ...]], bool]) -> tuple[Replay, str | None]:
    """The replay with the signals of its sites, or as it is with the reason why it has none.

    **Arguments:** `least`: the least side of a view that matters. `worth(events of an interval, (o, i))`: whether a view is
    to be opened; all are or none.
    """
    if is_traced(replay):
        return replay, "the steps are not known inside jit"
    if not replay.replayable:
        return replay, f"the steps of {type(replay.integrator.solver).__name__} cannot be replayed"
    if all(leaf.size < least**2 for leaf in replay.theta.arrays):
        return replay, f"no leaf of theta has the size of a matrix of {least} x {least}"
    longest = int(np.diff(np.asarray(replay.tracks.saved), axis=1).max())
    if replay.integrator.adaptive:
        # Another number of adaptive steps compiles anew only where it passes a power of two.
        longest = 1 << (longest - 1).bit_length()
    opened = dataclasses.replace(replay, longest=longest)
    found: list[Walk] = []
    try:
        shapes = jax.eval_shape(lambda: found.append(Walk(opened, 0, opened=True)) or _signals(found[0]))
    except Exception as error:
        # Whatever a model does that cannot be taken apart: without sites it is differentiated as it is.
        why = f"the field cannot be taken apart: {type(error).__name__}"
        _logged(f"{type(replay.model).__name__} has no site form, which may be slower: {why}: {error}")
        return replay, why
    cut, seen = found[0].cut, found[0].seen
    if not shapes:
        return replay, "no large leaf of theta meets signals in matrix products alone"
    if cut.dense & set(seen.raw):
        return replay, "the observation depends on the weights at a site by itself"
    if not all(worth(s.shape[1], view.index.shape) for s, view in zip(shapes, cut.views, strict=True)):
        return replay, f"a save interval has up to {max(s.shape[1] for s in shapes)} events, too many to pay"
    apart, signals = _recorded(opened)
    if not float(apart) <= APART * float(jnp.finfo(replay.probe.ts.dtype).eps):
        return replay, "the derivative by sites is not the plain one: please report this model"
    return dataclasses.replace(opened, signals=signals), None


@functools.cache
def _logged(text: str) -> None:
    """Logged once in a process: another version of JAX may make every model slower, and no answer would show it."""
    LOG.warning(text)


@eqx.filter_jit
def _recorded(replay: Replay) -> tuple[Array, list[Array]]:
    """How far sites are from plain derivatives, and the signals (B, T - 1, E, i) of each view."""
    signals = jax.lax.map(lambda b: _signals(Walk(replay, b, opened=True)), jnp.arange(replay.probe.n_batch))
    return _apart(Walk(replay, 0, opened=True)), signals


def _signals(walk: Walk) -> list[Float[Array, "T E i"]]:
    """The signals of every save interval, zero where a step is none."""

    def interval(first: Array, last: Array) -> list[Array]:
        steps = first + jnp.arange(walk.replay.longest, dtype=first.dtype)
        _, signals = jax.vmap(walk.told)(jnp.minimum(steps, last - 1))
        there = (steps < last)[:, None, None]
        return [jnp.where(there, jnp.concatenate(some, axis=1), 0).reshape(-1, some[0].shape[-1]) for some in signals]

    return jax.vmap(interval)(walk.track.saved[:-1], walk.track.saved[1:])


def _apart(walk: Walk) -> Array:
    """Of one random product with the field's derivative, at the last state, how far the sites' is from the plain one."""
    theta, replay, leaves = walk.theta, walk.replay, walk.leaves
    t, x = replay.probe.ts[-1], walk.track.states[walk.track.saved[-1]]
    cotangent = jr.normal(jr.key(1), x.shape, x.dtype)
    met: list[tuple[int, Array]] = []

    def told(site: Site, signal: Array) -> Array:
        met.append((walk.numbers[len(met)], signal))
        return site.product(signal)

    def opened(raw: list[Array], answers: list[Array]) -> Array:
        filled, coming = list(leaves), iter(answers)
        for i, leaf in zip(walk.cut.raw, raw, strict=True):
            filled[i] = leaf
        return walk.velocity(filled, t, x, lambda site, signal: site.product(signal) + next(coming))

    walk.velocity(leaves, t, x, told)
    still = [jnp.zeros((signal.shape[0], walk.cut.views[number].index.shape[0]), t.dtype) for number, signal in met]
    by_raw, by_answer = jax.vjp(opened, walk.raw, still)[1](cotangent)
    parts = [jnp.zeros((1, *view.index.shape), t.dtype) for view in walk.cut.views]
    for (number, signal), back in zip(met, by_answer, strict=True):
        parts[number] = parts[number] + (back.T @ signal)[None]
    mine = walk.columns([*parts, *(leaf[None] for leaf in by_raw)], 1)[0]
    (by_leaves,) = jax.vjp(lambda leaves: replay.field(leaves, t, x, walk.drive(t)), leaves)[1](cotangent)
    plain = theta.ravel(by_leaves)
    difference, size = jnp.abs(mine - plain).max(), jnp.abs(plain).max()
    return jnp.where(size > 0, difference / size, difference)
