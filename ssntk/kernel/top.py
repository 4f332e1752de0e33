"""The top of a kernel's spectrum, and its trace and participation ratio, without the kernel."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Array

from ssntk.errors import NumericalError, as_count, as_scalar
from ssntk.kernel.jacobian import fold_rows
from ssntk.kernel.operator import product_of
from ssntk.kernel.rows import Rows
from ssntk.kernel.spectrum import Rest, Spectrum

# Probes of the estimates: added a block at a time, until both errors are small or there are enough.
BLOCK, MOST_PROBES = 16, 256
GOOD_TRACE, GOOD_RATIO = 0.003, 0.006


def top_spectrum(rows: Rows, k: Any, method: str, memory: Any) -> Spectrum:
    """The first k eigenvalues, by Lanczos (ARPACK), from a Jacobian that fits into `memory` bytes or else without one.

    The trace is exact where the rows can be streamed; otherwise it and tr K^2 are Hutchinson's estimates on what the top
    eigenvectors leave, with their standard errors.
    """
    replay = rows.replay
    total, p = math.prod(replay.shape[:3]), replay.shape[3]
    limit, dtype = float(as_scalar(memory, "memory", positive=True)), np.dtype(replay.probe.ts.dtype)
    if as_count(k, "k") >= min(total, p):
        raise ValueError(f"k must be below the number of rows and of parameters, {min(total, p)}, got {k}")
    exact = None
    if replay.bytes <= limit or not replay.replayable:
        matrix = np.asarray(rows.matrix(method))
        exact = np.square(matrix).sum()

        def block(vectors: np.ndarray) -> np.ndarray:
            return (vectors @ matrix) @ matrix.T
    else:
        product = product_of(rows)
        streamable = rows.over_time is None or rows.over_time.ndim == 1
        if streamable and 4 * replay.model.n_state * p * dtype.itemsize <= limit:
            exact = float(_trace(rows))

        def block(vectors: np.ndarray) -> np.ndarray:
            return np.asarray(product.block(jnp.asarray(vectors)))

    values, vectors = _lanczos(block, total, k, dtype)
    if not values[0] > 0:
        raise NumericalError("the kernel is zero to rounding: it has no top eigenvalues")
    rest = _rest(block, values, vectors, exact)
    floor = float(max(total, p) * np.finfo(dtype).eps)
    return Spectrum(jnp.asarray(values, dtype), floor, jnp.asarray(vectors, dtype), 0, rest)


def _lanczos(block: Any, total: int, k: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The top k eigenpairs, descending."""
    make: Any = scipy.sparse.linalg.LinearOperator
    operator = make((total, total), matvec=lambda v: block(v.reshape(1, -1))[0], dtype=dtype)
    # A fixed start, so that the same question has the same answer.
    start = np.random.default_rng(0).normal(size=total).astype(dtype)
    try:
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=k, which="LA", v0=start)
    except scipy.sparse.linalg.ArpackError as error:
        raise NumericalError(f"the top eigenvalues did not converge: {error}") from error
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _rest(block: Any, values: np.ndarray, vectors: np.ndarray, exact: Any) -> Rest:
    """tr K and tr K^2 with their errors, from random signs of which the top eigenvectors were taken out."""
    random = np.random.default_rng(1)
    linear: list[float] = []
    square: list[float] = []
    top, top_square = values.sum(), np.square(values).sum()
    trace = total = trace_error = ratio_error = 0.0
    while len(linear) < MOST_PROBES:
        signs = random.choice([-1.0, 1.0], size=(BLOCK, vectors.shape[0])).astype(vectors.dtype)
        signs -= (signs @ vectors) @ vectors.T
        answer = block(signs)
        answer = answer - (answer @ vectors) @ vectors.T
        linear += np.sum(signs * answer, axis=1).tolist()
        square += np.square(answer).sum(axis=1).tolist()
        count = len(linear)
        trace = top + np.mean(linear) if exact is None else float(exact)
        total = top_square + np.mean(square)
        of_trace = np.asarray(linear) / trace if exact is None else np.zeros(count)
        trace_error = trace * np.std(of_trace, ddof=1) / count**0.5
        ratio_error = np.std(2 * of_trace - np.asarray(square) / total, ddof=1) / count**0.5
        if trace_error <= GOOD_TRACE * trace and ratio_error <= GOOD_RATIO:
            break
    return Rest(*(jnp.asarray(value, vectors.dtype) for value in (trace, total, trace_error, ratio_error)))


@eqx.filter_jit
def _trace(rows: Rows) -> Array:
    """The trace of the kernel, row by row as the segment recursion makes them."""
    replay = rows.replay
    ones = jnp.ones((replay.probe.n_batch, replay.probe.ts.shape[0], replay.rows, 1), replay.probe.ts.dtype)
    kept = rows.on_time(replay.probe.observed(ones))[..., 0]

    def visit(total: Array, b: Array, k: Array, part: Array) -> Array:
        scaled = part if rows.over_theta is None else part * rows.over_theta[None]
        return total + jnp.sum(jnp.square(kept[b, k][:, None] * scaled))

    return fold_rows(replay, visit, jnp.zeros((), replay.probe.ts.dtype))
