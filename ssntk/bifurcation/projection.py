"""Draw branches in a plane: the direction on which states are projected, and the stable parts of a branch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssntk.bifurcation.branch import Branch


def direction_of(branches: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The centre (n,) and the unit direction (n,) on which states are projected.

    The direction is the first principal component after the linear trend in the parameter, which would hide every fold, is
    removed. A one-dimensional state is shown as it is.
    """
    x, parameter = (np.concatenate([getattr(branch, name) for branch in branches]) for name in ("x", "parameter"))
    if x.shape[1] == 1 or len(x) == 0:
        return np.zeros(x.shape[1]), np.eye(x.shape[1])[0]
    centre, offset = x.mean(axis=0), parameter - parameter.mean()
    spread = offset @ offset
    trend = np.outer(offset, offset @ (x - centre)) / (spread if spread > 0 else 1.0)
    axis = np.linalg.svd(x - centre - trend, full_matrices=False)[2][0]
    return centre, axis * np.sign(axis[np.abs(axis).argmax()])


def curves(
    branch: Branch, heights: np.ndarray, located: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The parameters (m,) and heights (m,) of a branch with its located bifurcations, and two masks (m,): the points of its
    stable line and those of its unstable line. The two lines share the located point at which they join.

    **Arguments:** `heights` (k,): those of the points of the branch. `located` (b,): those of its bifurcations.
    """
    at = np.array(branch.steps, int) + 1
    parameter = np.insert(branch.parameter, at, [event.parameter for event in branch.bifurcations])
    height = np.insert(np.asarray(heights), at, located)
    stable = np.insert(branch.stable.astype(float), at, np.nan)
    lines = []
    for solid in (1.0, 0.0):
        shown = stable == solid
        beside = np.append(shown[1:], False) | np.insert(shown[:-1], 0, False)
        drawn = shown | (np.isnan(stable) & beside)
        # If stability changes without a located point between, as at unresolved events, the dashed line takes the step.
        drawn |= (solid == 0.0) & (stable == 1.0) & beside
        lines.append(drawn if shown.any() else np.zeros_like(shown))
    return parameter, height, lines[0], lines[1]
