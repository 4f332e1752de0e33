"""Products with the parameter Jacobian and its transpose, for blocks of vectors, without the Jacobian.

Every step is linearised again where it is needed, so that nothing but the states is kept; a block of vectors shares that.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.kernel.replay import Replay
from ssntk.models.theta import get, size


@eqx.filter_jit
def pull(replay: Replay, cotangents: Float[Array, "k B T m"]) -> Float[Array, "k p"]:
    """J^T for a block of vectors over the rows."""
    k, batch = cotangents.shape[:2]
    total = jnp.zeros((k, size(replay.model, replay.at)), cotangents.dtype)
    return jax.lax.fori_loop(0, batch, lambda b, total: total + pull_one(replay, b, cotangents[:, b]), total)


def pull_one(replay: Replay, b: Any, cotangents: Float[Array, "k T m"]) -> Float[Array, "k p"]:
    """J_b^T for a block of vectors over the rows of input b: one backward sweep that carries the whole block."""
    k = cotangents.shape[0]
    theta, track = get(replay.model, replay.at), jax.tree.map(lambda leaf: leaf[b], replay.tracks)
    step, observe = replay.step(b), replay.observe(b)

    def look(i: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        _, back = jax.vjp(lambda theta, x: observe(theta, x, i), theta, track.states[track.saved[i]])
        by_theta, by_x = jax.vmap(back)(cotangents[:, i])
        return carry[0] + by_x, jax.tree.map(jnp.add, carry[1], by_theta)

    def backwards(last: Array) -> Any:
        def one(j: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            at = last - 1 - j
            _, back = jax.vjp(lambda theta, x: step(theta, x, at), theta, track.states[at])
            by_theta, by_x = jax.vmap(back)(carry[0])
            return by_x, jax.tree.map(jnp.add, carry[1], by_theta)

        return one

    def interval(i: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        # Save times from the last to the second.
        at = replay.probe.ts.shape[0] - 1 - i
        last, first = track.saved[at], track.saved[at - 1]
        return jax.lax.fori_loop(0, last - first, backwards(last), look(at, carry))

    zero = [jnp.zeros((k, *leaf.shape), leaf.dtype) for leaf in theta]
    carry = (jnp.zeros((k, replay.model.n_state), cotangents.dtype), zero)
    carry = jax.lax.fori_loop(0, replay.probe.ts.shape[0] - 1, interval, carry)
    _, gradients = look(jnp.asarray(0), carry)
    return jnp.concatenate([leaf.reshape(k, -1) for leaf in gradients], axis=1)


@eqx.filter_jit
def push(
    replay: Replay, directions: Float[Array, "k p"], starts: Float[Array, "k n"] | None = None
) -> Float[Array, "k B T m"]:
    """J for a block of directions in theta, along with directions of the initial state where `starts` are given."""
    k, batch, count = directions.shape[0], replay.probe.n_batch, replay.probe.ts.shape[0]
    theta, leaves, start = get(replay.model, replay.at), [], 0
    for leaf in theta:
        leaves.append(directions[:, start : start + leaf.size].reshape(k, *leaf.shape))
        start += leaf.size

    def one(b: Array, out: Array) -> Array:
        track = jax.tree.map(lambda leaf: leaf[b], replay.tracks)
        step, observe = replay.step(b), replay.observe(b)

        def along(function: Any, x: Array, at: Array, moving: Array) -> Array:
            def tangent(direction: list[Array], dx: Array) -> Array:
                return jax.jvp(lambda theta, x: function(theta, x, at), (theta, x), (direction, dx))[1]

            return jax.vmap(tangent)(leaves, moving)

        def interval(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            moving, out = carry
            moving = jax.lax.fori_loop(
                track.saved[i], track.saved[i + 1], lambda j, moving: along(step, track.states[j], j, moving), moving
            )
            seen = along(observe, track.states[track.saved[i + 1]], i + 1, moving)
            return moving, out.at[:, b, i + 1].set(seen)

        moving = jnp.zeros((k, replay.model.n_state), directions.dtype) if starts is None else starts
        out = out.at[:, b, 0].set(along(observe, track.states[0], jnp.asarray(0), moving))
        return jax.lax.fori_loop(0, count - 1, interval, (moving, out))[1]

    empty = jnp.zeros((k, batch, count, replay.rows), directions.dtype)
    return jax.lax.fori_loop(0, batch, one, empty)
