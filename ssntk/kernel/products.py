"""Products with the parameter Jacobian and its transpose, for blocks of vectors, without the Jacobian.

Only the states are kept: each step is linearised again when it is needed. All vectors of a block share one linearisation.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.kernel.replay import Replay
from ssntk.kernel.sites.walk import Index, Walk


@eqx.filter_jit
def pull(replay: Replay, cotangents: Float[Array, "k B T m"]) -> Float[Array, "k p"]:
    """J^T times each of k vectors (B, T, m) over the rows: (k, p)."""
    k, batch = cotangents.shape[:2]
    total = jnp.zeros((k, replay.theta.size), cotangents.dtype)
    return jax.lax.fori_loop(0, batch, lambda b, total: total + pull_one(replay, b, cotangents[:, b]), total)


def pull_one(replay: Replay, b: Index, cotangents: Float[Array, "k T m"]) -> Float[Array, "k p"]:
    """J_b^T times each of k vectors (T, m) over the rows of input b: (k, p). One backward sweep carries all k vectors."""
    walk, k = Walk(replay, b), cotangents.shape[0]
    add = partial(jax.tree.map, jnp.add)

    def interval(i: Array, carry: tuple[Array, list[Array], list[Array]]) -> tuple[Array, list[Array], list[Array]]:
        # The loop goes over save times, from the last to the second.
        at = replay.probe.ts.shape[0] - 1 - i
        moving, dynamics, direct = carry
        by_theta, by_x = walk.look_back(at, cotangents[:, at])
        moving, gathered = walk.back(at - 1, moving + by_x)
        return moving, add(dynamics, gathered[1]), add(direct, by_theta)

    none = [jnp.zeros((k, *leaf.shape), cotangents.dtype) for leaf in walk.observed]
    carry = (jnp.zeros((k, replay.model.n_state), cotangents.dtype), walk.still(k), none)
    _, dynamics, direct = jax.lax.fori_loop(0, replay.probe.ts.shape[0] - 1, interval, carry)
    direct = add(direct, walk.look_back(0, cotangents[:, 0])[0])
    return walk.columns(dynamics, k) + walk.observed_columns(direct, k)


@eqx.filter_jit
def push(
    replay: Replay, directions: Float[Array, "k p"], starts: Float[Array, "k n"] | None = None
) -> Float[Array, "k B T m"]:
    """J times each of k directions (p,) in theta: (k, B, T, m).

    If `starts` are given, the initial state moves too, by `starts` (k, n).
    """
    k, batch, count = directions.shape[0], replay.probe.n_batch, replay.probe.ts.shape[0]

    def one(b: Array, out: Array) -> Array:
        walk = Walk(replay, b)
        leaves = walk.theta.split(directions)

        def interval(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            moving, out = carry
            moving = walk.forth(i, moving, [], leaves)
            return moving, out.at[:, b, i + 1].set(walk.look_forth(i + 1, moving, leaves))

        moving = jnp.zeros((k, replay.model.n_state), directions.dtype) if starts is None else starts
        out = out.at[:, b, 0].set(walk.look_forth(0, moving, leaves))
        return jax.lax.fori_loop(0, count - 1, interval, (moving, out))[1]

    empty = jnp.zeros((k, batch, count, replay.rows), directions.dtype)
    return jax.lax.fori_loop(0, batch, one, empty)
