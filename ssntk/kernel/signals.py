"""The signals at the sites of a recorded solve, where events are few enough for inner products between them to pay."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import is_traced
from ssntk.kernel import sites
from ssntk.kernel.replay import Replay
from ssntk.kernel.sites import Site
from ssntk.kernel.walk import Walk
from ssntk.models.theta import get

# How far two derivatives of one step may be apart, in roundings of the larger.
APART = 1e4


def with_signals(replay: Replay, worth: Callable[[int, tuple[int, ...]], bool]) -> Replay:
    """The replay with the signals of its sites.

    As it is where there is no site of any size, where one of them is not `worth(events of an interval, (o, i))`, where the
    observation depends on the weights of one by itself, and where a check of the sites fails.
    """
    if is_traced(replay) or not replay.replayable:
        return replay
    if all(leaf.size < sites.LEAST**2 for leaf in get(replay.model, replay.at)):
        return replay
    longest = int(np.diff(np.asarray(replay.tracks.saved), axis=1).max())
    if replay.integrator.dt is None:
        # Another number of adaptive steps compiles anew only where it passes a power of two.
        longest = 1 << (longest - 1).bit_length()
    opened = dataclasses.replace(replay, longest=longest)
    found: list[Walk] = []
    shapes = jax.eval_shape(lambda: found.append(Walk(opened, 0, opened=True)) or _signals(found[0]))
    cut, seen = found[0].cut, found[0].seen
    each = zip(shapes, cut.views, strict=True)
    if not shapes or cut.dense & set(seen.raw) or not all(worth(s.shape[1], view.index.shape) for s, view in each):
        return replay
    apart, signals = _recorded(opened)
    if not float(apart) <= APART * float(jnp.finfo(replay.probe.ts.dtype).eps):
        return replay
    return dataclasses.replace(opened, signals=signals)


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
    """Of one random product with the field's derivative, at a random state, how far the sites' is from the plain one."""
    theta, replay = walk.theta, walk.replay
    t, n = replay.probe.ts[0], replay.model.n_state
    x, cotangent = jr.normal(jr.key(1), (2, n), t.dtype)
    met: list[tuple[int, Array]] = []

    def told(site: Site, signal: Array) -> Array:
        met.append((walk.cut.number(site.view), signal))
        return site.product(signal)

    def opened(raw: list[Array], answers: list[Array]) -> Array:
        filled, coming = list(theta), iter(answers)
        for i, leaf in zip(walk.cut.raw, raw, strict=True):
            filled[i] = leaf
        return walk.velocity(filled, t, x, lambda site, signal: site.product(signal) + next(coming))

    walk.velocity(theta, t, x, told)
    still = [jnp.zeros((signal.shape[0], walk.cut.views[number].index.shape[0]), t.dtype) for number, signal in met]
    by_raw, by_answer = jax.vjp(opened, walk.raw, still)[1](cotangent)
    parts = [jnp.zeros((1, *view.index.shape), t.dtype) for view in walk.cut.views]
    for (number, signal), back in zip(met, by_answer, strict=True):
        parts[number] = parts[number] + (back.T @ signal)[None]
    mine = walk.columns([*parts, *(leaf[None] for leaf in by_raw)], 1)[0]
    (plain,) = jax.vjp(lambda theta: replay.field(theta, t, x, walk.drive(t)), theta)[1](cotangent)
    plain = jnp.concatenate([leaf.ravel() for leaf in plain])
    return jnp.abs(mine - plain).max() / jnp.abs(plain).max()
