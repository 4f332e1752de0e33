"""The kinds of bifurcations that curves are followed of, and the points of codimension two on them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events import kinds
from ssntk.bifurcation.events.branch_point import BranchPoint
from ssntk.bifurcation.events.flip import Flip
from ssntk.bifurcation.events.fold import Fold
from ssntk.bifurcation.events.located import AbstractLocatedEvent
from ssntk.bifurcation.events.pair import Hopf, NeimarkSacker
from ssntk.curves.modes import AbstractMode, Crossing, Pair, Single
from ssntk.zeros.base import AbstractZeros

CUSP, BOGDANOV_TAKENS, GENERALISED_HOPF = "cusp", "bogdanov-takens", "generalised-hopf"
DEGENERATE_TRANSCRITICAL, DEGENERATE_PITCHFORK, DOUBLE_ZERO = (
    "degenerate-transcritical",
    "degenerate-pitchfork",
    "double-zero",
)
ZERO_HOPF, DOUBLE_HOPF, DEGENERATE_FLIP, CHENCINER = "zero-hopf", "double-hopf", "degenerate-flip", "chenciner"
RESONANCES = {0.0: "1:1 resonance", 4.0: "1:2 resonance", 3.0: "1:3 resonance", 2.0: "1:4 resonance"}


class Followed(NamedTuple):
    """How a kind of bifurcation is followed.

    - `event`: the event that it is on a line. `mode`: its condition.
    - `turns`: values of `Point.turn` at which another condition holds, and what is found there.
    - `flat`: what a zero of its coefficient is.
    - `short`: its name within the names of points that it shares with another kind.
    """

    event: AbstractLocatedEvent
    mode: AbstractMode
    turns: dict[float, str]
    flat: str
    short: str


class Cubic(Fold):
    """A pitchfork, as an event with the coefficient of its cubic term."""

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        y, q, _, right, left = arguments
        # Only the quadratic terms that mix the state and the parameter depend on the last argument.
        return BranchPoint().coefficient(zeros, y, q, right.real, left.real, jnp.zeros(len(y) + 1, y.dtype))[3]


# The value of `Point.turn` at which a second eigenvalue joins the first one, of which a curve of single eigenvalues has one.
JOINED = 0.0
# Names within those of points at which two eigenvalues are critical.
ZERO, FOLD, FLIP = "zero", "fold", kinds.FLIP.name
HOPF, TORUS = kinds.HOPF.name, kinds.NEIMARK_SACKER.name
_CROSSINGS = {
    kinds.TRANSCRITICAL.name: (Fold(), DEGENERATE_TRANSCRITICAL),
    kinds.PITCHFORK.name: (Cubic(), DEGENERATE_PITCHFORK),
}
# Where branches cross, which persists only where something keeps them together.
CROSSINGS = tuple(_CROSSINGS)


def _crossings(short: str) -> dict[str, Followed]:
    every = _CROSSINGS.items()
    return {name: Followed(event, Crossing(0.0), {JOINED: DOUBLE_ZERO}, flat, short) for name, (event, flat) in every}


FLOWS = {
    kinds.SADDLE_NODE.name: Followed(Fold(), Single(0.0), {JOINED: BOGDANOV_TAKENS}, CUSP, ZERO),
    kinds.HOPF.name: Followed(Hopf(), Pair(), {0.0: BOGDANOV_TAKENS}, GENERALISED_HOPF, HOPF),
    **_crossings(ZERO),
}
MAPS = {
    kinds.SADDLE_NODE.name: Followed(Fold(), Single(0.0), {JOINED: RESONANCES[0.0]}, CUSP, FOLD),
    kinds.FLIP.name: Followed(Flip(), Single(-2.0), {JOINED: RESONANCES[4.0]}, DEGENERATE_FLIP, FLIP),
    kinds.NEIMARK_SACKER.name: Followed(NeimarkSacker(), Pair(), RESONANCES, CHENCINER, TORUS),
    **_crossings(FOLD),
}


def second_conditions(followed: Followed, at: float) -> tuple[Pair] | tuple[Pair, Crossing]:
    """The conditions of a point at which two eigenvalues meet, or at which a pair of multipliers has a certain angle."""
    if isinstance(followed.mode, Pair):
        return (Pair(at),)
    if isinstance(followed.mode, Crossing):
        # One of the two eigenvalues is known to be zero.
        return Pair(), followed.mode
    assert isinstance(followed.mode, Single)
    return (Pair(0.0 if followed.mode.shift == 0 else 4.0),)


def crossing_of(followed: Followed, value: complex, is_map: bool) -> tuple[str, AbstractMode] | None:
    """The name and the further condition of a point at which another eigenvalue of A, in working units, is critical too;
    `None` if it is no generic point."""
    mine, pair = followed.short, value.imag != 0
    if not is_map:
        if pair:
            return (ZERO_HOPF if mine == ZERO else DOUBLE_HOPF), Pair()
        return (ZERO_HOPF, Single(0.0)) if mine == HOPF else None
    other = TORUS if pair else FLIP if value.real < -1 else FOLD
    if other == mine:
        return (f"double-{TORUS}", Pair()) if pair else None
    name = "-".join(sorted((mine, other), key=[FOLD, FLIP, TORUS].index))
    return name, Pair() if pair else Single(0.0 if other == FOLD else -2.0)


def frequency_of(turn: float, is_map: bool, unit: float) -> float:
    """The frequency of a pair, in rad per unit time; 0 if its eigenvalues are real."""
    if is_map:
        return float(2 * np.arcsin(np.sqrt(turn) / 2) / unit) if 0 < turn < 4 else 0.0
    return float(np.sqrt(turn) / unit) if turn > 0 else 0.0
