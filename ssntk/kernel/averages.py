"""Averaged kernels: partial traces of K, divided by the length of the axes that are traced over. K is never formed.

The rows of J have three axes: input b, save time t and coordinate i. The mean over i of `K[(b, t, i), (b', t', i)]` is the
product of J with itself, if the rows of all coordinates at one time are read as one long row. The mean over (b, t) of
`K[(b, t, i), (b, t, j)]` is a sum of the blocks at each time, so that the rows at one time suffice for it.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.errors import as_choice
from ssntk.kernel.choice import kernel_choice
from ssntk.kernel.dense import by_inputs, long_rows, with_itself
from ssntk.kernel.jacobian import fold_rows, jacobian_choice
from ssntk.kernel.rows import Checked, Rows
from ssntk.kernel.sites.gram import site_mean_over_rows, site_mean_over_times

# What each average needs to be observed; "time" takes both.
AVERAGES = {"units": "state", "time": None, "outputs": "readout"}


def as_average(average: Any, of: str) -> str | None:
    """`average` if it is `None` or one of the three that fits `of`, which is "state" or "readout"."""
    if average is None:
        return None
    needs = AVERAGES[as_choice(average, "average", tuple(AVERAGES))]
    if needs is not None and of != needs:
        meant = "outputs" if average == "units" else "units"
        raise ValueError(f"average {average!r} needs of={needs!r}, got of={of!r}: with that the average is {meant!r}")
    return average


def check_average(average: str, mine: Checked, theirs: Checked | None) -> None:
    """Raise `ValueError` if the averaged kernel does not fit into this machine, or if its probes cannot be paired."""
    batch, times, rows, _ = mine.shape
    mine.check_kernel(rows if average == "time" else batch * times)
    if theirs is None:
        return
    theirs.check_kernel(rows if average == "time" else math.prod(theirs.shape[:2]))
    if average == "time" and theirs.shape[:2] != (batch, times):
        raise ValueError(
            f"average 'time' pairs the inputs and save times of both probes, so that other must have {batch} inputs and "
            f"{times} times, got {theirs.shape[0]} and {theirs.shape[1]}"
        )


def averaged_kernel(
    mine: Rows, theirs: Rows | None, average: str, method: str, batch_size: int | None
) -> Float[Array, "rows others"]:
    """The averaged kernel of one set of rows, or of two."""
    if theirs is None and batch_size is None:
        choice, ready = kernel_choice(mine, method)
        if choice.method == "sites":
            return site_mean_over_times(ready) if average == "time" else site_mean_over_rows(ready)
        method = choice.method
    if average == "time":
        return _over_times(mine, theirs, method, batch_size)
    count = mine.replay.rows
    if theirs is None and batch_size is None:
        return with_itself(long_rows(mine.matrix(method), count)) / count
    return by_inputs(mine, mine if theirs is None else theirs, method, batch_size, count) / count


def _over_times(mine: Rows, theirs: Rows | None, method: str, batch_size: int | None) -> Float[Array, "m others"]:
    """The mean over inputs and save times, from the rows at each time, or from those of some inputs."""
    batch, times, count, _ = mine.replay.shape
    chosen = jacobian_choice(mine.replay, method).method
    if theirs is None and chosen == "segments" and not mine.mixes_times:
        return _streamed(mine) / (batch * times)
    size = batch if batch_size is None else min(batch_size, batch)
    total = None
    for first in range(0, batch, size):
        # The last part may hold fewer inputs.
        some = [rows.matrix(chosen, first, min(size, batch - first)) for rows in (mine, theirs) if rows is not None]
        blocks = [part.reshape(-1, count, part.shape[1]) for part in some]
        part = _paired(blocks[0], blocks[-1])
        total = part if total is None else total + part
    assert total is not None
    return total / (batch * times)


@eqx.filter_jit
def _streamed(rows: Rows) -> Float[Array, "m m"]:
    """The sum of R R^T over the rows R (m, p) at each save time, in the order of the segment recursion.

    Each row must belong to one save time: L must not mix save times.
    """
    replay, m = rows.replay, rows.replay.rows
    ones = jnp.ones((*replay.shape[:3], 1), replay.probe.ts.dtype)
    kept = rows.on_rows(replay.probe.observed(ones))[..., 0]

    def visit(total: Array, b: Array, k: Array, part: Array) -> Array:
        scaled = part if rows.over_theta is None else part * rows.over_theta[None]
        scaled = kept[b, k][:, None] * scaled
        return total + scaled @ scaled.T

    return fold_rows(replay, visit, jnp.zeros((m, m), replay.probe.ts.dtype))


@jax.jit
def _paired(rows: Float[Array, "k m p"], others: Float[Array, "k m p"]) -> Float[Array, "m m"]:
    """The sum of R R'^T over k pairs."""
    empty = jnp.zeros((rows.shape[1], others.shape[1]), rows.dtype)
    return jax.lax.fori_loop(0, rows.shape[0], lambda k, total: total + rows[k] @ others[k].T, empty)
