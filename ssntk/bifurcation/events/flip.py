"""Flips of maps (period doubling): a single multiplier passes -1, and the parameter does not turn."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.derivatives import second, third
from ssntk.bifurcation.events.interval import Change
from ssntk.bifurcation.events.kinds import FLIP
from ssntk.bifurcation.events.located import Judged, Named
from ssntk.bifurcation.events.real import AbstractRealEvent
from ssntk.errors import Sentence
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros


class Flip(AbstractRealEvent):
    """A flip: a cycle of two steps is born."""

    kind = FLIP

    def seen(self, change: Change) -> bool:
        return not change.turns and not change.crosses and change.grown == 1

    def shift(self, clock: AbstractClock) -> float:
        return -2.0 / clock.unit

    def frequency(self, unknowns: np.ndarray, clock: AbstractClock) -> float:
        return clock.highest

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        y, q, _, right, left = arguments
        r, l = right.real, left.real  # noqa: E741

        def field(y: Array) -> Array:
            return zeros.at(y, q)

        curved = -jnp.linalg.solve(jax.jacfwd(field)(y), second(field, y, r, r))
        return l @ (third(field, y, r, r, r) + 3 * second(field, y, r, curved)) / 6 * zeros.clock.unit

    def named(self, seen: Judged, values: HostReal) -> Named | Sentence:
        return named_by_cubic(self.kind.name, float(values), seen.small * seen.clock.unit, supercritical=float(values) > 0)


def named_by_cubic(kind: str, coefficient: float, small: float, supercritical: bool) -> Named:
    """A point whose cubic coefficient decides its criticality, unless it is below `small`, its rounding error."""
    if abs(coefficient) <= small:
        return Named(kind, coefficient, reason="its cubic coefficient is zero to rounding")
    return Named(kind, coefficient, criticality="supercritical" if supercritical else "subcritical")
