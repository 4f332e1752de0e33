"""Newton's iteration, traced: one loop for every system that is solved in compiled code.

optimistix's Newton is not used. It measures a correction by one norm over all unknowns, beside one `rtol` and `atol`, where
here each unknown is compared with its own size, which the caller knows. And it takes corrections that shrink slowly for
convergence: at a double root it reports success, where here only the last correction is reported, and judged by who asked.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Newton(NamedTuple):
    """Where the iteration ended: `x` (n,), the `size` of the last correction, what was `left` of the system before that
    correction, and how many `steps` were taken."""

    x: Float[Array, " n"]
    size: Float[Array, ""]
    left: Float[Array, ""]
    steps: Int[Array, ""]


def newton(
    step: Callable[[Array], tuple[Array, Array, Array]],
    x: Float[Array, " n"],
    unfinished: Callable[[Array, Array, Array], Array],
    most: int = 20,
) -> Newton:
    """Corrections of `x` for as long as they are `unfinished`, at most `most`, and while the unknowns are finite.

    **Arguments:**

    - `step`: from x the correction (n,), its size beside that of x, and what is left of the system at x, each relative.
    - `unfinished`: whether to go on, from the size of the last correction, of the one before it, and how many there were.
      Before the first one both sizes are infinite.
    """

    def improve(state: tuple[Newton, Array]) -> tuple[Newton, Array]:
        at, _ = state
        move, size, left = step(at.x)
        return Newton(at.x + move, size, left, at.steps + 1), at.size

    def goes_on(state: tuple[Newton, Array]) -> Array:
        at, before = state
        return unfinished(at.size, before, at.steps) & (at.steps < most) & jnp.isfinite(at.x).all()

    infinite = jnp.asarray(jnp.inf, x.dtype)
    start = Newton(x, infinite, infinite, jnp.asarray(0))
    return jax.lax.while_loop(goes_on, improve, (start, infinite))[0]
