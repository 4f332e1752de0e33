"""Find the region of a model's states: short roll-outs of many states at once, their box, and whether all return to it."""

import numpy as np

from ssntk.dynamics.scaled import SMALL, Factored, ScaledField
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.cells import GatedCell
from ssntk.models.ctrnn import CTRNN
from ssntk.models.layers import Layers
from ssntk.models.low_rank import LowRankRNN

# The allowed error of a step, relative to the sizes of the states. It is large, since the states only serve as starts.
TOLERANCE = 0.03
# Constants of the Rosenbrock pair (Shampine and Reichelt, *SIAM Journal on Scientific Computing* 18, 1997).
GAMMA, THIRD = 1 / (2 + 2**0.5), 6 + 2**0.5
# A roll-out that goes further than this, in sizes of the states, counts as diverged.
GONE = 1e12


def roll_out(field: ScaledField, starts: np.ndarray, level: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States (steps + 1, k, n) of roll-outs from states (k, n), and the time (k,) that passed.

    The method is implicit with adaptive steps, so that stiffness costs nothing. States are NaN once a roll-out overflows.
    """
    y = starts.astype(field.dtype)
    k = len(y)
    kept = [y.copy()]
    time, step = np.zeros(k), np.full(k, np.nan)
    alive = np.ones(k, bool)
    identity = np.eye(field.n, dtype=field.dtype)
    for _ in range(steps):
        some = np.flatnonzero(alive)
        for piece in np.array_split(some, max(-(-some.size // field.room), 1)):
            if piece.size == 0:
                continue
            here, at = y[piece], level[piece]
            with np.errstate(all="ignore"):
                velocity, jacobian = field.linear(here, at)
                size = np.maximum(1.0, np.abs(here))
                # The first step is a tenth of the fastest time scale.
                fastest = np.abs(jacobian).sum(axis=2).max(axis=1)
                fastest = np.maximum(fastest, np.abs(velocity / size).max(axis=1))
                h = np.where(np.isnan(step[piece]), 0.1 / fastest, step[piece])[:, None].astype(field.dtype)
                factors = Factored(identity - h[:, :, None] * field.dtype.type(GAMMA) * jacobian)

                def solve(right: np.ndarray, factors: Factored = factors) -> np.ndarray:
                    return factors.solve(right[:, :, None])[:, :, 0]

                k1 = solve(velocity)
                f1 = field.field(here + h / 2 * k1, at)
                k2 = solve(f1 - k1) + k1
                new = here + h * k2
                k3 = solve(field.field(new, at) - THIRD * (k2 - f1) - 2 * (k1 - velocity))
                error = (np.abs(h / 6 * (k1 - 2 * k2 + k3)) / size).max(axis=1) / TOLERANCE
                good = error <= 1
                growth = np.clip(0.8 / np.cbrt(np.maximum(error, 1e-6)), 0.2, 5.0)
            growth = np.where(np.isfinite(error), growth, 0.2)
            h = h[:, 0]
            y[piece[good]] = new[good]
            time[piece[good]] += h[good]
            step[piece] = h * growth
            lost = ~np.isfinite(velocity).all(axis=1) | ~np.isfinite(step[piece]) | (np.abs(y[piece]) > GONE).any(axis=1)
            alive[piece[lost]] = False
            y[piece[lost]] = np.nan
        kept.append(y.copy())
    return np.stack(kept), time


def half_widths(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle (n,) and the half widths (n,) of a box around states (k, n), a quarter wider than their bounding box."""
    low, high = states.min(axis=0), states.max(axis=0)
    return (low + high) / 2, 1.25 * (high - low) / 2


def known_bounded(model: AbstractStateSpaceModel) -> bool:
    """Whether a model is known to be bounded: every state returns from far away, as with a leak and a bounded drive."""
    for name in ("model", "wrapped"):
        inner = vars(model).get(name)
        if inner is not None and not isinstance(model, (CTRNN, LowRankRNN)):
            return known_bounded(inner)
    if isinstance(model, Layers):
        # A bounded layer gives bounded inputs to the layer above.
        return all(map(known_bounded, model.cells))
    if isinstance(model, GatedCell):
        # Each state is pulled, if only weakly, towards a value within the bounds of the gates.
        return True
    if not isinstance(model, (CTRNN, LowRankRNN)):
        return False
    with np.errstate(all="ignore"):
        near, far = (np.asarray(model.activation(np.array([-size, size]))) for size in (1e2, 1e8))
    return bool(np.isfinite(far).all() and (np.abs(far) <= 2 * np.abs(near) + 1).all())


def comes_back(field: ScaledField, box: np.ndarray, middle: np.ndarray, random: np.random.Generator) -> bool:
    """Whether all roll-outs return that start at 10 and 100 times the scale, or the box, in up to 2 n random directions."""
    count = int(np.clip(2 * field.n, 4, 64 if field.n <= SMALL else 16))
    directions = random.standard_normal((count, field.n))
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    wide = np.maximum(1.0, box)
    starts = np.concatenate([middle + 10 * wide * directions, middle + 100 * wide * directions])
    level = np.zeros((len(starts), len(field.weights)), field.dtype)
    ends = roll_out(field, starts, level, 80)[0][-1]
    return bool(np.isfinite(ends).all() and (np.abs(ends - middle) <= 5 * wide).all())


def from_afar(field: ScaledField, box: np.ndarray, middle: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The ends (k, n) of roll-outs that start 1 to 1e8 times the scale, or the box, outside of it, if they stay finite."""
    away = 10.0 ** np.arange(9)
    directions = random.standard_normal((2 * len(away), field.n))
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    starts = middle + np.concatenate([away, away])[:, None] * np.maximum(1.0, box) * directions
    ends = roll_out(field, starts, np.zeros((len(starts), len(field.weights)), field.dtype), 80)[0][-1]
    return ends[np.isfinite(ends).all(axis=1)]
