"""The ways on from a place where signals vanish: one local region for each pattern of these signals."""

import itertools
from typing import NamedTuple

import numpy as np

from ssntk.piecewise.region import EPS, ROUNDINGS, Region

# The largest number of signals that vanish at one place for which all regions are tested.
MOST = 12


class Way(NamedTuple):
    """A way out of a place: the pattern (m,) of the region, the direction of the parameter in it, and det J' / det J."""

    pattern: np.ndarray
    direction: float
    delta: float

    def back(self, pattern: np.ndarray, direction: float) -> bool:
        """Whether this is the way by which one came, in this region and direction."""
        return self.direction == -direction and np.array_equal(self.pattern, pattern)


def ways(region: Region, q: float, x: np.ndarray, units: tuple[int, ...]) -> list[Way]:
    """All ways out of the place (q, x) at which the signals `units` vanish, among them that by which one came.

    With K = C_T J^-1 B_T of the t signals, and S the change of their pattern, the signals' slopes s' in another region solve
    (I + K S) s' = s, and det J' / det J = det (I + K S). A way exists if each slope leads into the region.
    """
    parts = region.system.parts(q)
    at = list(units)
    old = region.pattern[at]
    solved = region.solve(q, parts.B[:, at])
    gains = parts.C[at] @ solved
    sizes = 1 + np.abs(parts.C[at]) @ np.abs(solved)
    slopes = region.slopes(q, x)
    speed, doubts = slopes.s[at], slopes.doubts[at]
    found = []
    for chosen in itertools.product((False, True), repeat=len(at)):
        new = np.array(chosen)
        changed = new.astype(float) - old
        matrix = np.eye(len(at)) + gains * changed
        delta = float(np.linalg.det(matrix))
        try:
            inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            continue
        # In a region in which J is singular to rounding, x does not follow from the parameter.
        if not ROUNDINGS * EPS * (np.abs(inverse) @ (sizes @ np.abs(changed) + 1)).max() < 1e-2:
            continue
        there, error = inverse @ speed, np.abs(inverse) @ doubts
        for direction in (1.0, -1.0):
            rising = there * direction > error
            if bool((rising == new).all()):
                pattern = region.pattern.copy()
                pattern[at] = new
                found.append(Way(pattern, direction, delta))
    return found
