"""Find points of a branch between two recorded ones, at which a function of the point is zero or changes sign."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize

from ssntk.zeros.correct import Corrected, corrected, interpolate
from ssntk.zeros.stack import Stack

# Fractions of a step at which a function is evaluated.
PARTS = np.linspace(0.0, 1.0, 5)
# A change of sign is looked for if a parabola through the values comes this near to zero, relative to the largest value in
# the step.
SHALLOW = 0.1

Value = Callable[[np.ndarray], np.ndarray]


class Dip(NamedTuple):
    """A point z (n + 1,) within step number `step` at which a function has the opposite sign of that at both ends."""

    step: int
    z: np.ndarray
    tangent: np.ndarray
    value: float


def dips(stack: Stack, member: int, value: Value, z: np.ndarray, tangent: np.ndarray, at: np.ndarray) -> list[Dip]:
    """Points at which `value` (a function of points (k, n + 1)) has changed sign within a step and will change back.

    `z` and `tangent` (m, n + 1): the branch; `at` (m,): its values. The function is evaluated at three places within each
    step, and minimised if it bends towards zero.
    """
    if len(z) < 2:
        return []
    count, cuts = len(z) - 1, len(PARTS) - 1
    within = [interpolate(z[:-1], tangent[:-1], z[1:], tangent[1:], part)[0] for part in PARTS[1:-1].tolist()]
    seen = value(np.concatenate(within)).reshape(len(within), count)
    # All values in order along the branch, `cuts` of them for each step.
    fine = np.append(np.concatenate([at[None, :-1], seen]).T.ravel(), at[-1])
    before, here, after = fine[:-2], fine[1:-1], fine[2:]
    sign = np.sign(before)
    with np.errstate(all="ignore"):
        # The minimum of the parabola through three values: its place relative to the middle one, and its depth.
        bend = sign * (before - 2 * here + after)
        place, depth = sign * (before - after) / (2 * bend), sign * here - (before - after) ** 2 / (8 * bend)
        bends = (before * after > 0) & (np.abs(here) <= np.minimum(np.abs(before), np.abs(after))) & (here * before > 0)
        bends &= (bend > 0) & (depth <= SHALLOW * np.maximum(np.abs(before), np.abs(after)))
    found: dict[int, Dip] = {}
    for j in np.flatnonzero(bends | (here * before < 0)) + 1:
        # If the middle value is at a recorded point, the minimum may lie in either of two steps.
        i, part = divmod(int(j), cuts)
        if part == 0 and not bends[j - 1]:
            continue
        low, high = (part - 1, part + 1) if part else (0, 1) if place[j - 1] > 0 else (cuts - 1, cuts)
        i -= int(part == 0 and place[j - 1] <= 0)
        if i in found or not at[i] * at[i + 1] > 0:
            continue
        ends = (z[i], tangent[i]), (z[i + 1], tangent[i + 1])
        dip = _lowest(stack, member, value, ends, (PARTS[low], PARTS[high]), float(np.sign(at[i])))
        if dip is not None:
            found[i] = dip._replace(step=i)
    return [found[i] for i in sorted(found)]


# A point z (N + 1,) and the tangent there.
_Place = tuple[np.ndarray, np.ndarray]


class _Done(Exception):
    """Ends the search for a change of sign: one was found, or the search left the branch."""


def _lowest(
    stack: Stack, member: int, value: Value, ends: tuple[_Place, _Place], limits: tuple[float, float], sign: float
) -> Dip | None:
    """A point of the branch at which `sign * value` is negative, between two fractions of a step, or `None`."""
    found: list[Dip] = []
    (z0, tangent0), (z1, tangent1) = ends

    def height(part: float) -> float:
        guess, border = interpolate(z0, tangent0, z1, tangent1, part)
        new = corrected(stack, [member], guess[None], border[None])
        here = float(value(new.z)[0])
        if not new.converged[0] or not np.isfinite(here):
            raise _Done
        if sign * here < 0:
            # Its tangent may point against the direction of travel.
            found.append(Dip(0, new.z[0], np.copysign(1.0, new.tangent[0] @ border) * new.tangent[0], here))
            raise _Done
        return sign * here

    with contextlib.suppress(_Done):
        scipy.optimize.minimize_scalar(height, bounds=limits, method="bounded", options={"xatol": 1e-6, "maxiter": 40})
    return found[0] if found else None


def on_branch(
    stack: Stack,
    member: int,
    first: _Place,
    second: _Place,
    value: Value,
    side: int | None = None,
) -> Corrected | None:
    """The point of the branch at which `value`, a function of points (k, n + 1), is zero, between two points (z, tangent).

    It is found by the Illinois method (Dowell and Jarratt, *BIT* 11, 1971), and returned as a `Corrected` with a leading
    axis of one; `None` if that fails.

    `side`: which end of the final bracket to return: the one towards the first point (0), towards the second (1), or the
    one that was found last (`None`).
    """
    parts, values = [0.0, 1.0], [float(value(point[0][None])[0]) for point in (first, second)]
    found, last, kept = None, np.nan, -1
    for _ in range(60):
        part = (parts[0] * values[1] - parts[1] * values[0]) / (values[1] - values[0])
        guess, border = interpolate(*first, *second, part)
        found = corrected(stack, [member], guess[None], border[None])
        if not found.converged[0]:
            return None
        here = float(value(found.z)[0])
        if here == 0 or abs(part - last) <= 4 * float(np.finfo(guess.dtype).eps):
            break
        end = int((here > 0) == (values[1] > 0))
        # The Illinois rule: halve the value of an end that is kept twice.
        values[1 - end] /= 2 if kept == 1 - end else 1
        parts[end], values[end], last, kept = part, here, part, 1 - end
    if side is not None and found is not None and float(value(found.z)[0]) * values[1 - side] > 0:
        guess, border = interpolate(*first, *second, parts[side])
        other = corrected(stack, [member], guess[None], border[None])
        return other if other.converged[0] else found
    return found
