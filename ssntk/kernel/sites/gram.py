"""The kernel from inner products between events, without anything of the size of theta: the site form K = P M P^T.

An *event* is one use of weights in a matrix product: a site, in one stage of one step. Its signal a (i,) is what the weights
multiply. Its cotangents G (n, o) say how the product moves the state at the end of the save interval.

Let Phi_k (n, n) be the state transition and L_k (n, p) the parameter derivative of the save interval k. Then
`S_{k+1} = Phi_k S_k + L_k`, and the kernel has the blocks `K_kl = S_k S_l^T` (n, n). So `K_{k+1,l} = Phi_k K_kl + X_kl` with
`X_kl = L_k S_l^T`, and `X_{k,l+1} = X_kl Phi_l^T + L_k L_l^T`. The last term is `L_k L_l^T = sum_ef (a_e . a_f) G_e G_f^T`,
over the events e of one interval and f of the other. Nothing in it has the size of theta.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.kernel.replay import Replay
from ssntk.kernel.rows import Rows
from ssntk.kernel.sites.walk import Walk

# What a loop over blocks carries, the place of a block (input, save time), and the sums of two traces.
T = TypeVar("T")
Place = tuple[Array, Array]
Sums = tuple[Array, Array]


@eqx.filter_jit
def site_kernel(rows: Rows) -> Float[Array, "rows rows"]:
    """The kernel of the states of a replay that has signals."""
    batch, times, n, _ = rows.replay.shape

    def visit(whole: Array, at: Place, to: Place, block: Array) -> Array:
        return whole.at[at[0], at[1], :, to[0], to[1]].set(block).at[to[0], to[1], :, at[0], at[1]].set(block.T)

    whole = jnp.zeros((batch, times, n, batch, times, n), rows.replay.probe.ts.dtype)
    whole = fold_blocks(rows.replay, visit, whole)
    for _ in range(2):
        # What acts on the rows of J acts on the rows of K, and then on its columns.
        acted = rows.on_rows(rows.replay.probe.observed(whole.reshape(batch, times, n, -1)))
        whole = acted.reshape(batch * times * n, -1).T
    return whole


@eqx.filter_jit
def site_sums(rows: Rows) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The traces of K and of K^2, summed block by block. What acts on the time axis must be diagonal."""
    batch, times, n, _ = rows.replay.shape
    ones = jnp.ones((batch, times, n, 1), rows.replay.probe.ts.dtype)
    weights = rows.on_rows(rows.replay.probe.observed(ones))[..., 0]

    def visit(sums: Sums, at: Place, to: Place, block: Array) -> Sums:
        block = weights[at][:, None] * block * weights[to][None]
        same = (at[0] == to[0]) & (at[1] == to[1])
        square = jnp.sum(jnp.square(block))
        return sums[0] + jnp.where(same, jnp.trace(block), 0), sums[1] + jnp.where(same, square, 2 * square)

    zero = jnp.zeros((), rows.replay.probe.ts.dtype)
    return fold_blocks(rows.replay, visit, (zero, zero))


@eqx.filter_jit
def site_mean_over_rows(rows: Rows) -> Float[Array, "BT BT"]:
    """The mean over the states of the blocks of K that belong to equal states: (B T, B T)."""
    batch, times = rows.replay.shape[:2]
    factors = _over_states(rows)

    def visit(whole: Array, at: Place, to: Place, block: Array) -> Array:
        mean = jnp.mean(factors[at] * factors[to] * jnp.diagonal(block))
        return whole.at[at[0], at[1], to[0], to[1]].set(mean).at[to[0], to[1], at[0], at[1]].set(mean)

    whole = fold_blocks(rows.replay, visit, jnp.zeros((batch, times, batch, times), rows.replay.probe.ts.dtype))
    for _ in range(2):
        whole = rows.on_times(whole.reshape(batch, times, 1, -1)).reshape(batch * times, -1).T
    return whole


@eqx.filter_jit
def site_mean_over_times(rows: Rows) -> Float[Array, "n n"]:
    """The mean over inputs and save times of the blocks of K that belong to equal inputs and times: (n, n)."""
    batch, times, n, _ = rows.replay.shape
    dtype = rows.replay.probe.ts.dtype
    factors = _over_states(rows)
    # L L'^T summed over the times of the result: how much the block of two times counts, before L acts.
    acting = rows.on_times(jnp.eye(times, dtype=dtype)[None, :, None])[0, :, 0]
    counts = acting.T @ acting

    def visit(total: Array, at: Place, to: Place, block: Array) -> Array:
        block = counts[at[1], to[1]] * factors[at][:, None] * block * factors[to][None]
        return total + block + jnp.where(at[1] == to[1], 0, block.T)

    # Blocks of two different inputs do not count.
    return fold_blocks(rows.replay, visit, jnp.zeros((n, n), dtype), across=False) / (batch * times)


def _over_states(rows: Rows) -> Float[Array, "B T n"]:
    """What multiplies each row beside what acts on the time axis: the mask, and the inverse of the scale."""
    ones = rows.replay.probe.observed(jnp.ones((*rows.replay.shape[:3], 1), rows.replay.probe.ts.dtype))[..., 0]
    return ones if rows.over_state is None else ones * rows.over_state[None, None]


def fold_blocks(replay: Replay, visit: Callable[[T, Place, Place, Array], T], start: T, across: bool = True) -> T:
    """Call `visit(carry, (b, k), (c, l), block)` for the blocks (n, n) of the kernel of the states; return the carry.

    Only blocks with (c, l) at most (b, k) are visited, and without `across` only those with c = b. Blocks at the first save
    time are zero, and are left out.
    """
    batch, times, n, _ = replay.shape
    signals, eye = replay.met, jnp.eye(n, dtype=replay.probe.ts.dtype)
    transitions, met, others = _swept(replay)

    def local(at: Place, to: Place) -> Array:
        """L_k L_l^T (n, n) of two intervals."""
        total = others[at] @ others[to].T
        for signal, cotangents in zip(signals, met, strict=True):
            inner, mine, theirs = signal[to] @ signal[at].T, cotangents[at], cotangents[to]
            mixed = (inner @ mine.reshape(mine.shape[0], -1)).reshape(mine.shape)
            total = jax.lax.fori_loop(0, mine.shape[0], lambda e, total, m=mixed, f=theirs: total + m[e] @ f[e].T, total)
        return total

    def input_(b: Array, carry: T) -> T:
        def interval(k: Array, carry: tuple[Array, T]) -> tuple[Array, T]:
            def other(c: Array, carry: tuple[Array, T]) -> tuple[Array, T]:
                def column(to: Array, carry: tuple[Array, Array, Array, T]) -> tuple[Array, Array, Array, T]:
                    ahead, before, row, inner = carry
                    ahead = ahead @ transitions[c, to].T + local((b, k), (c, to))
                    # On the diagonal, the block above is the transpose of the block to the left.
                    above = jnp.where((c == b) & (to == k), before.T, row[c, to])
                    block = transitions[b, k] @ above + ahead
                    return ahead, block, row.at[c, to].set(block), visit(inner, (b, k + 1), (c, to + 1), block)

                zero = jnp.zeros_like(eye)
                count = jnp.where(c < b, times - 1, k + 1)
                return jax.lax.fori_loop(0, count, column, (zero, zero, *carry))[2:]

            return jax.lax.fori_loop(0 if across else b, b + 1, other, carry)

        # The blocks in the row of this input before the interval, at all save times but the first.
        row = jnp.zeros((batch, times - 1, n, n), eye.dtype)
        return jax.lax.fori_loop(0, times - 1, interval, (row, carry))[1]

    return jax.lax.fori_loop(0, batch, input_, start)


def _swept(replay: Replay) -> tuple[Array, list[Array], Array]:
    """For every interval of every input: the state transition (n, n), the cotangents (E, n, o) at its E events for each
    view, and the derivatives (n, r) along the raw leaves."""
    batch, times, n, _ = replay.shape
    eye = jnp.eye(n, dtype=replay.probe.ts.dtype)

    def swept(b: Array) -> tuple[Array, list[Array], Array]:
        walk = Walk(replay, b, opened=True)

        def interval(k: Array) -> tuple[Array, list[Array], Array]:
            transition, (met, raw) = walk.back(k, eye)
            others = [leaf.reshape(n, -1) for leaf in raw]
            return transition, met, jnp.concatenate([*others, jnp.zeros((n, 0), eye.dtype)], axis=1)

        return jax.lax.map(interval, jnp.arange(times - 1))

    return jax.lax.map(swept, jnp.arange(batch))


def site_bytes(replay: Replay) -> int:
    """How many bytes the site form keeps beside the kernel."""
    kept = jax.tree.leaves(jax.eval_shape(lambda: _swept(replay)))
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in kept)


def event_bytes(replay: Replay) -> int:
    """How many bytes one vector takes at all events."""
    views = Walk(replay, 0, opened=True).cut.views
    sides = zip(replay.met, views, strict=True)
    return sum(signal[..., 0].size * view.index.shape[0] for signal, view in sides) * replay.probe.ts.dtype.itemsize


@eqx.filter_jit
def site_product(rows: Rows, vectors: Float[Array, "k rows"]) -> Float[Array, "k rows"]:
    """K times each of k vectors, (k, rows).

    The vectors are pulled back to cotangents at the events. Inner products of signals turn these into tangents, which are
    pushed forward to the rows.
    """
    replay, k = rows.replay, vectors.shape[0]
    batch, times, m, _ = replay.shape
    cotangents = jnp.moveaxis(vectors.reshape(k, batch, times, m), 0, -1)
    cotangents = jnp.moveaxis(replay.probe.observed(rows.on_rows(cotangents, transpose=True)), -1, 0)

    def back(leaves: dict[int, Array], b: Array) -> tuple[dict[int, Array], list[Array]]:
        walk, mine = Walk(replay, b, opened=True), cotangents[:, b]

        def add(leaves: dict[int, Array], which: tuple[int, ...], parts: list[Array]) -> dict[int, Array]:
            return leaves | {i: leaves[i] + part for i, part in zip(which, parts, strict=True)}

        def interval(carry: tuple[Array, dict[int, Array]], i: Array) -> PyTree:
            moving, leaves = carry
            by_theta, by_x = walk.look_back(i + 1, mine[:, i + 1])
            moving, (met, raw) = walk.back(i, moving + by_x)
            return (moving, add(add(leaves, walk.seen.raw, by_theta), walk.cut.raw, raw)), met

        still = jnp.zeros((k, replay.model.n_state), vectors.dtype)
        (_, leaves), met = jax.lax.scan(interval, (still, leaves), jnp.arange(times - 1), reverse=True)
        return add(leaves, walk.seen.raw, walk.look_back(0, mine[:, 0])[0]), met

    def forth(given: tuple[Array, list[Array]]) -> Array:
        b, met = given
        walk = Walk(replay, b, opened=True)

        def interval(moving: Array, at: tuple[Array, list[Array]]) -> tuple[Array, Array]:
            i, met = at
            moving = walk.forth(i, moving, met, [leaves[j] for j in walk.cut.raw])
            return moving, walk.look_forth(i + 1, moving, leaves)

        still = jnp.zeros((k, replay.model.n_state), vectors.dtype)
        _, seen = jax.lax.scan(interval, still, (jnp.arange(times - 1), met))
        return jnp.concatenate([walk.look_forth(0, still, leaves)[None], seen])

    first = Walk(replay, 0, opened=True)
    plain = {i: jnp.zeros((k, *leaf.shape), leaf.dtype) for i, leaf in enumerate(first.leaves) if i not in first.cut.dense}
    leaves, met = jax.lax.scan(back, plain, jnp.arange(batch))
    tangents = []
    for signal, cotangent in zip(replay.met, met, strict=True):
        flat = signal.reshape(-1, signal.shape[-1])
        tangents.append(((flat @ flat.T) @ cotangent.reshape(flat.shape[0], -1)).reshape(cotangent.shape))
    observed = jax.lax.map(forth, (jnp.arange(batch), tangents))
    acted = rows.on_rows(replay.probe.observed(jnp.moveaxis(observed, 2, -1)))
    return jnp.moveaxis(acted, -1, 0).reshape(k, -1)
