"""Saddle-nodes: the parameter turns, and one real eigenvalue crosses zero."""

import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.derivatives import second
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import SADDLE_NODE
from ssntk.bifurcation.events.located import Judged, Named
from ssntk.bifurcation.events.real import AbstractRealEvent
from ssntk.errors import Outcome, Sentence
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros


class Fold(AbstractRealEvent):
    """A saddle-node: two solutions meet and vanish."""

    kind = SADDLE_NODE
    at_zero = True

    def seen(self, change: Change) -> bool:
        return change.turns and not change.crosses and change.grown == 1

    def part(self, interval: Interval) -> float:
        a, b = interval.a.tangent[-1], interval.b.tangent[-1]
        return float(a / (a - b))

    def shift(self, clock: AbstractClock) -> float:
        return 0.0

    def refused(self, seen: Judged) -> Sentence | None:
        if not seen.pushed:
            # The parameter does not push along the critical direction, so that branches cross here.
            return Outcome.branch_point.say()
        return Outcome.several_vanish.say() if self.several(seen) else None

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        y, q, _, right, left = arguments
        r = right.real
        return left.real @ second(lambda y: zeros.at(y, q), y, r, r) / 2 * zeros.clock.unit

    def named(self, seen: Judged, values: HostReal) -> Named | Sentence:
        if abs(float(values)) <= seen.small * seen.clock.unit:
            return Outcome.cusp.say()
        return Named(self.kind.name, float(values), power=1)


def tangent_at(right: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The direction (N + 1,) of the branch at a saddle-node, from its right eigenvector (n,), in sizes of the states."""
    return np.append(right.real / scale, 0.0)
