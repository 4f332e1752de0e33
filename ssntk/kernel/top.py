"""The largest eigenvalues of a kernel, its trace and its participation ratio, without forming the kernel."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Array

from ssntk.errors import NumericalError, as_scalar
from ssntk.kernel.choice import BLOCK, check_k, kernel_choice
from ssntk.kernel.jacobian import fold_rows
from ssntk.kernel.operator import operator_of
from ssntk.kernel.rows import Rows
from ssntk.kernel.sites.gram import event_bytes, site_sums
from ssntk.kernel.spectrum import Rest, Spectrum

# Random vectors for the estimates are added a block at a time, until both errors are small, or until there are this many.
MOST_BLOCK, MOST_PROBES = 64, 256
GOOD_TRACE, GOOD_RATIO = 0.003, 0.006
# From this size of a Gram matrix on, Lanczos' iteration computes few eigenpairs faster than LAPACK computes all (at size
# 288: 0.8 ms and 1.9 ms).
LANCZOS = 128

# A function that multiplies K with each of k vectors, (k, rows).
Block = Callable[[np.ndarray], np.ndarray]


def top_spectrum(rows: Rows, k: Any, method: str, memory: object, exact: bool = False) -> Spectrum:
    """The first k eigenvalues, by Lanczos' iteration (ARPACK). J is formed only if it fits into `memory` bytes.

    The trace is exact if the rows can be streamed. Otherwise tr K and tr K^2 are Hutchinson's estimates, with their standard
    errors, on the space that the top eigenvectors leave. With `exact`, both are summed over all blocks of the kernel.
    """
    replay = rows.replay
    total, p = math.prod(replay.shape[:3]), replay.shape[3]
    limit, dtype = float(as_scalar(memory, "memory", positive=True)), np.dtype(replay.probe.ts.dtype)
    check_k(k, total, p)
    trace = square = None
    block_size = BLOCK
    if replay.bytes <= limit or not replay.replayable:
        matrix = np.asarray(rows.matrix(method))
        trace = np.square(matrix).sum()
        square = _square(matrix) if exact else None

        def block(vectors: np.ndarray) -> np.ndarray:
            return (vectors @ matrix) @ matrix.T
    else:
        if exact:
            trace, square = _exact_sums(rows)
        product = operator_of(rows)
        if product.rows.replay.signals is not None:
            # The cotangents of all events, their tangents, and one copy of each.
            each = 4 * event_bytes(product.rows.replay)
            block_size = int(min(max(0.5 * limit / each, BLOCK), MOST_BLOCK))
        if trace is None and not rows.mixes_times and 4 * replay.model.n_state * p * dtype.itemsize <= limit:
            trace = float(_trace(rows))

        def block(vectors: np.ndarray) -> np.ndarray:
            return np.asarray(product.block(jax.device_put(vectors)))

    values, vectors = _lanczos(block, total, k, dtype)
    if not values[0] > 0:
        raise NumericalError("the kernel is zero to rounding: it has no top eigenvalues")
    if square is None:
        rest = _rest(block, block_size, values, vectors, trace)
    else:
        rest = Rest(*(dtype.type(value) for value in (trace, square, 0.0, 0.0)))
    floor = float(max(total, p) * np.finfo(dtype).eps)
    return Spectrum(values.astype(dtype), floor, vectors.astype(dtype), 0, rest)


def smaller_gram(rows: np.ndarray) -> np.ndarray:
    """The smaller of `rows rows^T` and `rows^T rows`, which have the same non-zero eigenvalues."""
    return rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows


class Leading(NamedTuple):
    """The first k eigenpairs of a Gram matrix (N, N), the largest first: `values` (k,) and `vectors` (N, k)."""

    values: np.ndarray
    vectors: np.ndarray


def leading(gram: np.ndarray, k: int) -> Leading:
    """The first k eigenpairs, or all N if there are fewer. Raises `NumericalError` if the trace overflows."""
    dtype, size, scale = gram.dtype, len(gram), float(np.trace(gram))
    if not scale < np.finfo(dtype).max ** 0.5:
        raise NumericalError(f"the kernel's trace, {scale:.3g}, is beyond the range of {dtype}")
    k, relative = min(k, size), gram / (scale or 1.0)
    values = vectors = None
    if scale > 0 and size >= LANCZOS and 8 * k <= size:
        # If eigenvalues are repeated, ARPACK may fail. LAPACK is used then.
        with contextlib.suppress(scipy.sparse.linalg.ArpackError):
            values, vectors = scipy.sparse.linalg.eigsh(relative, k, which="LA", v0=_start(size, dtype), rng=0)
    if values is None or vectors is None:
        values, vectors = scipy.linalg.eigh(relative, subset_by_index=[size - k, size - 1], check_finite=False)
    return Leading(np.maximum(values[::-1], 0.0) * dtype.type(scale), vectors[:, ::-1])


def top_of(gram: np.ndarray, known: Leading, k: int, size: int) -> Spectrum:
    """The first k eigenvalues of K = J J^T without their vectors, with the exact tr K and tr K^2.

    **Arguments:** `gram`: the smaller of K and J^T J. `known`: its first k eigenpairs, or all if it has fewer. `size`: the
    larger of rows and p, on which rounding depends.
    """
    dtype = gram.dtype
    found = np.zeros(k, dtype)
    found[: known.values.size] = known.values
    rest = Rest(*(dtype.type(value) for value in (np.trace(gram), np.square(gram).sum(), 0.0, 0.0)))
    return Spectrum(found, float(size * np.finfo(dtype).eps), None, 0, rest)


def _square(matrix: np.ndarray) -> float:
    """tr K^2 for K = J J^T. Only a block of the smaller of K and J^T J is formed at a time."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return float(sum(np.square(short[i : i + 512] @ short.T).sum() for i in range(0, short.shape[0], 512)))


def _exact_sums(rows: Rows) -> tuple[float, float]:
    """tr K and tr K^2 by the site form. Raises `ValueError` if it is not possible, or does not fit into memory."""
    if rows.mixes_times:
        raise ValueError(
            f"exact must be False for a {rows.loss} loss without J: its blocks are not those of the kernel; raise memory"
        )
    try:
        ready = kernel_choice(rows, "sites")[1]
    except ValueError as error:
        needed = rows.replay.bytes / 1e9
        raise ValueError(f"exact needs the Jacobian here, memory = {needed:.3g}e9 bytes at least: {error}") from error
    trace, square = site_sums(ready)
    return float(trace), float(square)


def _lanczos(block: Block, total: int, k: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The top k eigenpairs, descending."""
    make: Any = scipy.sparse.linalg.LinearOperator
    operator = make((total, total), matvec=lambda v: block(v.reshape(1, -1))[0], dtype=dtype)
    start = _start(total, dtype)
    try:
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=k, which="LA", v0=start, rng=0)
    except scipy.sparse.linalg.ArpackError as error:
        if not block(start.reshape(1, -1)).any():
            raise NumericalError("the kernel is zero to rounding: it has no top eigenvalues") from error
        raise NumericalError(f"the top eigenvalues did not converge: {error}") from error
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _start(size: int, dtype: np.dtype) -> np.ndarray:
    """The start (size,) of Lanczos' iteration.

    It is random, since another vector may have no part in some eigenvectors of a structured kernel. It is the same in every
    call, so that results are reproducible.
    """
    return np.random.default_rng(0).normal(size=size).astype(dtype)


def _rest(block: Block, size: int, values: np.ndarray, vectors: np.ndarray, exact: float | np.floating | None) -> Rest:
    """tr K and tr K^2 with their errors, estimated from random signs with the top eigenvectors taken out."""
    random = np.random.default_rng(1)
    linear: list[float] = []
    square: list[float] = []
    top, top_square = values.sum(), np.square(values).sum()
    trace = total = trace_error = ratio_error = 0.0
    while len(linear) < MOST_PROBES:
        signs = random.choice([-1.0, 1.0], size=(size, vectors.shape[0])).astype(vectors.dtype)
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
    return Rest(*(vectors.dtype.type(value) for value in (trace, total, trace_error, ratio_error)))


@eqx.filter_jit
def _trace(rows: Rows) -> Array:
    """The trace of the kernel, summed row by row, in the order of the segment recursion."""
    replay = rows.replay
    ones = jnp.ones((replay.probe.n_batch, replay.probe.ts.shape[0], replay.rows, 1), replay.probe.ts.dtype)
    kept = rows.on_rows(replay.probe.observed(ones))[..., 0]

    def visit(total: Array, b: Array, k: Array, part: Array) -> Array:
        scaled = part if rows.over_theta is None else part * rows.over_theta[None]
        return total + jnp.sum(jnp.square(kept[b, k][:, None] * scaled))

    return fold_rows(replay, visit, jnp.zeros((), replay.probe.ts.dtype))
