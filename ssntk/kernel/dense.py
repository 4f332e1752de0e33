"""The kernel as a matrix, and its diagonal, from the Jacobian's rows or from inner products between events."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import is_traced
from ssntk.kernel.choice import kernel_choice
from ssntk.kernel.jacobian import fold_rows
from ssntk.kernel.rows import Rows
from ssntk.kernel.sites.gram import site_kernel


def dense_kernel(rows: Rows, method: str = "auto") -> Float[Array, "rows rows"]:
    """K (rows, rows) by the fastest algorithm, or by `method`.

    Raises `ValueError` if `method` is not possible, or if K does not fit into this machine.
    """
    choice, ready = kernel_choice(rows, method)
    return site_kernel(ready) if choice.method == "sites" else with_itself(ready.matrix(choice.method))


def with_itself(rows: Float[Array, "rows p"]) -> Float[Array, "rows rows"]:
    """R R^T."""
    if is_traced(rows) or {device.platform for device in rows.devices()} != {"cpu"}:
        return contract(rows, rows)
    # BLAS has a routine that computes only half of this symmetric product, so it is done on the host.
    matrix = np.asarray(rows)
    return jax.device_put(matrix @ matrix.T)


@jax.jit
def contract(rows: Float[Array, "rows p"], others: Float[Array, "others p"]) -> Float[Array, "rows others"]:
    """R R'^T."""
    return rows @ others.T


def long_rows(rows: Float[Array, "rows p"], together: int) -> Float[Array, "fewer longer"]:
    """The rows, with each so many neighbours as one long row."""
    return rows.reshape(-1, together * rows.shape[1])


def by_inputs(mine: Rows, theirs: Rows, method: str, batch_size: int | None, together: int = 1) -> Array:
    """The kernel of two sets of rows, with `batch_size` inputs of each at a time.

    If both are the same set, only the lower blocks are computed. `together`: how many neighbouring rows make one long row.
    """
    blocks: dict[tuple[int, int], Array] = {}
    starts = [range(0, rows.replay.probe.n_batch, batch_size or rows.replay.probe.n_batch) for rows in (mine, theirs)]

    def some(rows: Rows, which: range, i: int) -> Array:
        return long_rows(rows.matrix(method, which[i], min(which.step, which.stop - which[i])), together)

    for i in range(len(starts[0])):
        left = some(mine, starts[0], i)
        for j in range(i + 1 if mine is theirs else len(starts[1])):
            blocks[i, j] = contract(left, left if mine is theirs and i == j else some(theirs, starts[1], j))
            if mine is theirs:
                blocks[j, i] = blocks[i, j].T
    return jnp.block([[blocks[i, j] for j in range(len(starts[1]))] for i in range(len(starts[0]))])


@eqx.filter_jit
def streamed_diagonal(rows: Rows) -> Float[Array, "B T m"]:
    """The diagonal of K (B, T, m), row by row, in the order of the segment recursion.

    Each row must belong to one save time: L must not mix save times.
    """
    replay = rows.replay
    ones = jnp.ones((*replay.shape[:3], 1), replay.probe.ts.dtype)
    kept = rows.on_rows(replay.probe.observed(ones))[..., 0]

    def visit(found: Array, b: Array, k: Array, part: Array) -> Array:
        scaled = part if rows.over_theta is None else part * rows.over_theta[None]
        return found.at[b, k].set(jnp.sum(jnp.square(kept[b, k][:, None] * scaled), axis=1))

    return fold_rows(replay, visit, jnp.zeros(replay.shape[:3], replay.probe.ts.dtype))
