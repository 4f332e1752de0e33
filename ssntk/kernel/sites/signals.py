"""The signals at the sites of a recorded solve, if events are few enough for inner products between them to be faster."""

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

# How much two derivatives of one step may differ, in rounding errors of the larger one.
APART = 1e4


def with_signals(replay: Replay, least: int, worth: Callable[[int, tuple[int, ...]], bool]) -> tuple[Replay, str | None]:
    """The replay with the signals of its sites, and `None`; or the replay unchanged, and the reason why it has no signals.

    **Arguments:** `least`: views with a smaller side do not matter. `worth(events of an interval, (o, i))`: whether a view
    should be opened. Either all views are opened or none.
    """
    if is_traced(replay):
        return replay, "the steps are not known inside jit"
    if not replay.replayable:
        return replay, f"the steps of {type(replay.integrator.solver).__name__} cannot be replayed"
    if all(leaf.size < least**2 for leaf in replay.theta.arrays):
        return replay, f"no leaf of theta has the size of a matrix of {least} x {least}"
    longest = int(np.diff(np.asarray(replay.tracks.saved), axis=1).max())
    if replay.integrator.adaptive:
        # The length is rounded up to a power of two. Another number of adaptive steps then rarely needs a new compilation.
        longest = 1 << (longest - 1).bit_length()
    opened = dataclasses.replace(replay, longest=longest)
    found: list[Walk] = []
    try:
        shapes = jax.eval_shape(lambda: found.append(Walk(opened, 0, opened=True)) or _signals(found[0]))
    except Exception as error:
        # If a model's computation cannot be taken apart, for whatever reason, it is differentiated without sites.
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
    """Log a text once in a process.

    Another version of JAX may make every model slower by this, and no result would show it.
    """
    LOG.warning(text)


@eqx.filter_jit
def _recorded(replay: Replay) -> tuple[Array, list[Array]]:
    """How much derivatives by sites differ from plain ones, and the signals (B, T - 1, E, i) of each view."""
    signals = jax.lax.map(lambda b: _signals(Walk(replay, b, opened=True)), jnp.arange(replay.probe.n_batch))
    return _apart(Walk(replay, 0, opened=True)), signals


def _signals(walk: Walk) -> list[Float[Array, "T E i"]]:
    """The signals of every save interval. They are zero beyond its last step."""

    def interval(first: Array, last: Array) -> list[Array]:
        steps = first + jnp.arange(walk.replay.longest, dtype=first.dtype)
        _, signals = jax.vmap(walk.told)(jnp.minimum(steps, last - 1))
        there = (steps < last)[:, None, None]
        return [jnp.where(there, jnp.concatenate(some, axis=1), 0).reshape(-1, some[0].shape[-1]) for some in signals]

    return jax.vmap(interval)(walk.track.saved[:-1], walk.track.saved[1:])


def _apart(walk: Walk) -> Array:
    """How much one random product with the field's derivative, at the last state, differs between sites and plain."""
    theta, replay, leaves = walk.theta, walk.replay, walk.leaves
    t, x = replay.probe.ts[-1], walk.track.states[walk.track.saved[-1]]
    u = walk.drive(t)
    cotangent = jr.normal(jr.key(1), x.shape, x.dtype)
    met: list[tuple[int, Array]] = []

    def told(site: Site, signal: Array) -> Array:
        met.append((walk.numbers[len(met)], signal))
        return site.product(signal)

    def opened(raw: list[Array], answers: list[Array]) -> Array:
        filled, coming = list(leaves), iter(answers)
        for i, leaf in zip(walk.cut.raw, raw, strict=True):
            filled[i] = leaf
        return walk.velocity(filled, t, x, u, lambda site, signal: site.product(signal) + next(coming))

    walk.velocity(leaves, t, x, u, told)
    still = [jnp.zeros((signal.shape[0], walk.cut.views[number].index.shape[0]), t.dtype) for number, signal in met]
    by_raw, by_answer = jax.vjp(opened, walk.raw, still)[1](cotangent)
    parts = [jnp.zeros((1, *view.index.shape), t.dtype) for view in walk.cut.views]
    for (number, signal), back in zip(met, by_answer, strict=True):
        parts[number] = parts[number] + (back.T @ signal)[None]
    mine = walk.columns([*parts, *(leaf[None] for leaf in by_raw)], 1)[0]
    (by_leaves,) = jax.vjp(lambda leaves: replay.field(leaves, t, x, u), leaves)[1](cotangent)
    plain = theta.ravel(by_leaves)
    difference, size = jnp.abs(mine - plain).max(), jnp.abs(plain).max()
    return jnp.where(size > 0, difference / size, difference)
