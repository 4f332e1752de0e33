"""Gradient descent with shorter steps along the few directions in which the loss is too steep."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ssntk.errors import as_count, as_key, as_scalar, is_traced


class LowRankState(NamedTuple):
    """What [`low_rank_natural_gradient`][] remembers.

    - `count`: the number of updates so far.
    - `refreshes`: how often eigenpairs were computed. `passes`: how many power passes that took in all.
    - `age`: the number of updates since the last refresh. `interval`: the age at which the next refresh is due.
    - `eigenvalues` (r,), descending, and `eigenvectors` (r, p), orthonormal rows, of `J^T J / rows`.
    """

    count: Int[Array, ""]
    refreshes: Int[Array, ""]
    passes: Int[Array, ""]
    age: Int[Array, ""]
    interval: Int[Array, ""]
    eigenvalues: Float[Array, " r"]
    eigenvectors: Float[Array, "r p"]


def low_rank_natural_gradient(
    learning_rate: Any,
    rank: int = 2,
    refresh: int = 10,
    *,
    change: Any = 0.1,
    tolerance: Any = 0.03,
    max_passes: int = 10,
    key: Any = None,
) -> Any:
    """An optax transformation for least-squares losses.

    It takes the natural-gradient step in the r steepest directions, and the gradient step in all others. Let s (r,) and Q
    (p, r) be the top r eigenpairs of `J^T J / rows`, the Gauss-Newton matrix of `mean(residuals^2) / 2`. The update is `-eta
    [I - Q diag(s / (s + gamma)) Q^T] g` with `gamma = 1 / eta`. A direction of curvature s is thus learned as if its
    curvature were `s / (1 + eta s)`, which is always below 1 / eta. The r directions therefore never limit the learning
    rate. The others limit it to `2 / s_{r+1}`.

    With `rank=0` this is gradient descent. With all directions it is Levenberg's step `(J^T J / rows + I / eta)^-1 g`, which
    becomes Gauss-Newton's as eta grows (Nocedal and Wright, *Numerical Optimization*, chapter 10).

    `opt.update(grads, state, params, residuals=fn)` takes `fn(params) -> (rows,)`, the residuals of the loss
    `mean(fn(params)^2) / 2` whose gradient is given. Other losses can be used too, if their generalised Gauss-Newton matrix
    is `J^T J / rows` for some `fn`. `fn` is differentiated forwards and backwards; if it solves with [`simulate`][], it
    needs `adjoint=diffrax.DirectAdjoint()`. Everything can be traced. The state takes r x p numbers.

    **Arguments:**

    - `learning_rate`: eta > 0, or an optax schedule of it.
    - `rank`: r, at most p.
    - `refresh`: the largest number of updates between two computations of the eigenpairs. They are computed at the first
      update. Later the interval adapts to the top eigenvalue: it halves if that changed by more than the share `change`
      since the last computation, and doubles if it changed by less than a quarter of `change`.
    - `tolerance`, `max_passes`: each computation repeats block power passes from the last eigenvectors, until the
      eigenvalues move by less than `tolerance` of the first one, or `max_passes` is reached. A pass takes r products with J
      and r with its transpose.
    - `key`: the random key of the eigenvectors before the first computation; default `jax.random.key(0)`.

    **Returns:** an `optax.GradientTransformationExtraArgs`, whose state is a `LowRankState`.

    Raises `ValueError` for arguments that do not fit, and in `update` if `params` or `residuals` is missing.

    **Example:**

    ```python
    def residuals(theta):
        return theta * jnp.array([1.0, 10.0]) - 1.0

    theta = jnp.zeros(2)
    optimiser = ssntk.low_rank_natural_gradient(1e6, rank=2)
    gradient = jax.grad(lambda theta: jnp.mean(residuals(theta) ** 2) / 2)(theta)
    update, state = optimiser.update(gradient, optimiser.init(theta), theta, residuals=residuals)
    print((theta + update).round(4))  # [1.  0.1]
    ```
    """
    try:
        import optax
    except ImportError as error:
        raise ImportError("ssntk.low_rank_natural_gradient needs optax: install ssntk[learning]") from error
    rank, most = as_count(rank, "rank", least=0), as_count(refresh, "refresh")
    max_passes, key = as_count(max_passes, "max_passes"), as_key(key)
    with jax.ensure_compile_time_eval():
        limit, close = (
            float(as_scalar(value, name, positive=True)) for value, name in ((change, "change"), (tolerance, "tolerance"))
        )
        # A traced rate is not checked, so that one compilation serves every rate.
        if not callable(learning_rate) and not is_traced(learning_rate):
            learning_rate = float(as_scalar(learning_rate, "learning_rate", positive=True))

    # Longer than others: optax takes two functions, which hold the settings.
    def init(params: PyTree) -> LowRankState:
        flat, _ = ravel_pytree(params)
        if not 0 <= rank <= flat.size:
            raise ValueError(f"rank must be at most the number of parameters, {flat.size}, got {rank}")
        if not jnp.issubdtype(flat.dtype, jnp.floating):
            raise ValueError(f"params must hold real floating-point arrays alone, got {flat.dtype}")
        first = _orthonormal(jr.normal(key, (rank, flat.size), flat.dtype))
        zero = jnp.zeros((), jnp.int32)
        return LowRankState(zero, zero, zero, zero, zero, jnp.zeros(rank, flat.dtype), first)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        residuals: Callable[[PyTree], Array] | None = None,
        **_: object,
    ) -> tuple[PyTree, LowRankState]:
        eta: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        count = optax.safe_increment(state.count)
        if rank == 0:
            return jax.tree.map(lambda g: jnp.asarray(-eta, g.dtype) * g, updates), state._replace(count=count)
        if params is None or not callable(residuals):
            raise ValueError("update needs params, and residuals=fn with fn(params) -> (rows,), unless rank is 0")
        theta, unravel = ravel_pytree(params)

        def flat_residuals(theta: Array) -> Array:
            values = residuals(unravel(theta))
            if values.ndim != 1 or values.size == 0:
                raise ValueError(f"residuals must return an array of shape (rows,), got {values.shape}")
            return values

        def refreshed(state: LowRankState) -> LowRankState:
            values, vectors, passes = _top(flat_residuals, theta, state.eigenvalues, state.eigenvectors, close, max_passes)
            before, now = state.eigenvalues[0], values[0]
            moved = jnp.abs(now - before) > jnp.asarray(limit, theta.dtype) * jnp.maximum(before, now)
            still = jnp.abs(now - before) < jnp.asarray(limit / 4, theta.dtype) * jnp.maximum(before, now)
            interval = jnp.where(moved, state.interval // 2, jnp.where(still, 2 * state.interval, state.interval))
            return state._replace(
                refreshes=state.refreshes + 1,
                passes=state.passes + passes,
                age=jnp.zeros_like(state.age),
                interval=jnp.clip(interval, 1, most),
                eigenvalues=values,
                eigenvectors=vectors,
            )

        state = jax.lax.cond(state.age >= state.interval, refreshed, lambda state: state, state)
        gradient, whole = ravel_pytree(updates)
        eta = jnp.asarray(eta, theta.dtype)
        vectors = state.eigenvectors
        along = vectors @ gradient
        # The part along the eigenvectors is taken out completely, and put back shortened. So no digits cancel if eta is
        # large.
        step = gradient - along @ vectors + (along / (1 + eta * state.eigenvalues)) @ vectors
        return whole(-eta * step), state._replace(count=count, age=state.age + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _top(
    residuals: Callable[[Array], Array], theta: Array, values: Array, vectors: Array, tolerance: float, most: int
) -> tuple[Array, Array, Array]:
    """The top eigenpairs of J^T J / rows by block power iteration from earlier ones, and the passes that it took."""
    at, forward = jax.linearize(residuals, theta)
    scale = jnp.asarray(at.size, theta.dtype) ** -0.5
    backward = jax.linear_transpose(forward, theta)

    def one(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        vectors, before, _, passes = carry
        pulled = jax.vmap(lambda v: backward(forward(v) * scale**2)[0])(vectors)
        vectors = _orthonormal(pulled)
        pushed = jax.vmap(forward)(vectors) * scale
        # Rayleigh-Ritz from the singular values of J Q, which keep twice as many digits as the eigenvalues of its square.
        triangle = jnp.linalg.qr(pushed.T, mode="r")
        _, sizes, turn = jnp.linalg.svd(triangle, full_matrices=True)
        values = jnp.zeros_like(before).at[: sizes.size].set(sizes**2)
        return turn @ vectors, values, jnp.abs(values - before).max(), passes + 1

    def unsettled(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, values, moved, passes = carry
        return (passes < most) & (moved > jnp.asarray(tolerance, theta.dtype) * values[0])

    infinite = jnp.asarray(jnp.inf, theta.dtype)
    vectors, values, _, passes = jax.lax.while_loop(unsettled, one, (vectors, values, infinite, jnp.zeros((), jnp.int32)))
    return values, vectors, passes


def _orthonormal(rows: Float[Array, "r p"]) -> Float[Array, "r p"]:
    """Orthonormal rows (r, p) of the same span. If the rows are dependent, any others complete them."""
    return jnp.linalg.qr(rows.T)[0].T
