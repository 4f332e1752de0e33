"""The scale of each state along a solve, which the default tolerance is relative to: the largest that it has been so far.

A state that starts at zero has no size yet. A coarse pass, adaptive by itself, looks ahead to where it will soon be. All is
relative to the states' own sizes and to the horizon, so that other units of the states or of time give the same steps.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The relative error of a coarse step, and the most steps.
COARSE, MOST = 1e-2, 2048
# The first step, and for how long after it has left zero a state's size is looked for, beside the horizon. Not for longer:
# what grows exponentially is small at first, and has to be resolved there.
FIRST, AHEAD = 1e-2, 2e-2
# Directions along which the field's slope is looked at, and the share of what it makes of the states over the horizon that
# counts as their size at least: enough for its rounding to pass, and small beside any size that a state comes to.
PROBES, SHARE = 4, 1e-5


class Scaled(diffrax.AbstractAdaptiveStepSizeController):
    """Steps whose absolute tolerance is `share` of each entry's largest absolute value so far, at least of `least` (*k, n).

    `controller` decides on the steps; its own absolute tolerance counts for nothing.
    """

    controller: diffrax.PIDController
    least: Array
    share: float = eqx.field(static=True)

    def __init__(self, controller: diffrax.PIDController, least: Array, share: float):
        self.controller, self.least, self.share = controller, least, share

    @property
    def rtol(self) -> Any:
        return self.controller.rtol

    @property
    def atol(self) -> Any:
        """What equations inside a step are solved to."""
        return self.share * self.least

    @property
    def norm(self) -> Any:
        return self.controller.norm

    def wrap(self, direction: Any) -> "Scaled":
        return eqx.tree_at(lambda c: c.controller, self, self.controller.wrap(direction))

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any) -> Any:
        t1, inner = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return t1, (inner, jnp.maximum(self.least, jnp.abs(jax.lax.stop_gradient(y0))))

    def adapt_step_size(
        self, t0: Any, t1: Any, y0: Any, y1_candidate: Any, args: Any, y_error: Any, error_order: Any, controller_state: Any
    ) -> Any:
        inner, size = controller_state
        known = eqx.tree_at(lambda c: c.atol, self.controller, self.share * size)
        kept, *ends, inner, result = known.adapt_step_size(t0, t1, y0, y1_candidate, args, y_error, error_order, inner)
        larger = jnp.maximum(size, jnp.abs(jax.lax.stop_gradient(y1_candidate)))
        return kept, *ends, (inner, jnp.where(kept, larger, size)), result


def sizes_ahead(
    field: Callable[[Any, Array], Array], slope: Callable[[Array], Array], t0: Array, t1: Array, y0: Float[Array, "*k n"]
) -> tuple[Float[Array, "*k n"], Float[Array, ""]]:
    """The size of each entry soon after it has left zero on the solve from t0 to t1, and the first step of the coarse pass.

    **Arguments:** `field(t, y)`: the velocity. `slope(dy)`: how much it changes at the start along dy.

    A state that stays at zero while others move is given what their rounding makes of it. Not to be differentiated.
    """
    horizon, dtype = t1 - t0, y0.dtype

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        t, h, y, reach, soon, until, first, count = carry
        h = jnp.minimum(h, t1 - t)
        # Heun's method, beside Euler's: two evaluations are little to compile.
        begin = field(t, y)
        end = field(t + h, y + h * begin)
        z, error = y + h / 2 * (begin + end), jnp.abs(h / 2 * (end - begin))
        # What starts at zero is measured by where its velocity would take it.
        size = jnp.maximum(jnp.maximum(reach, jnp.abs(z)), jnp.where(reach == 0, horizon * jnp.abs(z - y) / h, 0))
        share = jnp.where(error == 0, 0, error / jnp.where(size > 0, size, 1))
        ratio = jnp.sqrt(jnp.mean(jnp.square(share))) / COARSE
        kept = ratio <= 1
        factor = jnp.clip(0.9 / jnp.sqrt(jnp.where(ratio > 0, ratio, 1e-9)), 0.2, 5)
        factor = jnp.where(jnp.isfinite(ratio), factor, 0.2)
        first = jnp.where(kept & (first == 0), h, first)
        until = jnp.where(kept & (reach == 0) & (z != 0), t + h + AHEAD * horizon, until)
        reach = jnp.where(kept, jnp.maximum(reach, jnp.abs(z)), reach)
        soon = jnp.where(kept & (t + h <= until), reach, soon)
        return jnp.where(kept, t + h, t), h * factor, jnp.where(kept, z, y), reach, soon, until, first, count + 1

    def unfinished(carry: tuple[Array, ...]) -> Array:
        t, until = carry[0], carry[5]
        return (t < t1) & (t <= jnp.max(until)) & (carry[-1] < MOST)

    size = jnp.abs(y0)
    until = jnp.where(size > 0, t0 + AHEAD * horizon, jnp.inf)
    start = (t0, FIRST * horizon, y0, size, size, until, jnp.zeros_like(t0), jnp.asarray(0))
    _, _, _, _, soon, _, first, _ = jax.lax.while_loop(unfinished, step, start)
    # Of random lengths too, so that what cancels between equal states does not cancel here.
    ways = jnp.asarray(np.random.default_rng(0).normal(size=(PROBES, *y0.shape)), dtype)
    moved = jnp.sqrt(jnp.mean(jnp.square(jax.vmap(slope)(ways * soon[None])), axis=0))
    soon = jnp.maximum(soon, SHARE * horizon * jnp.where(jnp.isfinite(moved), moved, 0))
    # What is zero throughout has no error either.
    least = float(jnp.finfo(dtype).tiny) ** 0.5
    return jnp.where(soon > 0, soon, least), jnp.where(first > 0, first, FIRST * horizon)
