"""Newton's iteration in compiled code: one loop for all systems.

optimistix's Newton is not used, for two reasons. It measures a correction by one norm over all unknowns, with one `rtol` and
`atol`, but here each unknown is compared with its own size, which the caller knows. It also takes corrections that shrink
slowly for convergence, so that it reports success at a double root. This function reports the size of the last correction,
and the caller decides.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def row_scaled(slope: Float[Array, "n n"], value: Float[Array, " n"]) -> Float[Array, " n"]:
    """The solution of `slope move = value`, whose equations are scaled by the size of their terms."""
    rows = jnp.abs(slope).sum(axis=1)
    rows = jnp.where(rows > 0, rows, 1)
    return jnp.linalg.solve(slope / rows[:, None], value / rows)


class Newton(NamedTuple):
    """The end of the iteration.

    - `x` (n,): the unknowns. `size`: that of the last correction.
    - `left`: the residual of the system before the last correction. `steps`: the number of corrections.
    - `kept`: the by-products of the last correction.
    """

    x: Float[Array, " n"]
    size: Float[Array, ""]
    left: Float[Array, ""]
    steps: Int[Array, ""]
    kept: tuple[Array, ...] = ()


def newton(
    step: Callable[[Array], tuple[Array, ...]],
    x: Float[Array, " n"],
    unfinished: Callable[[Array, Array, Array], Array],
    most: int = 20,
    kept: tuple[Array, ...] = (),
) -> Newton:
    """Correct `x` repeatedly, at most `most` times, while `unfinished` is true and the unknowns are finite.

    **Arguments:**

    - `step`: a function of x that returns the correction (n,), its size relative to x, the relative residual at x, and
      by-products to keep.
    - `unfinished`: whether to go on: a function of the size of the last correction, the size of the one before it, and the
      number of corrections. Before the first correction both sizes are infinite.
    - `kept`: arrays like the by-products. They are returned if no correction is made.
    """

    def improve(state: tuple[Newton, Array]) -> tuple[Newton, Array]:
        at, _ = state
        move, size, left, *more = step(at.x)
        return Newton(at.x + move, size, left, at.steps + 1, tuple(more)), at.size

    def goes_on(state: tuple[Newton, Array]) -> Array:
        at, before = state
        return unfinished(at.size, before, at.steps) & (at.steps < most) & jnp.isfinite(at.x).all()

    infinite = jnp.asarray(jnp.inf, x.dtype)
    start = Newton(x, infinite, infinite, jnp.asarray(0), kept)
    return jax.lax.while_loop(goes_on, improve, (start, infinite))[0]
