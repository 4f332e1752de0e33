"""How far a kernel has moved."""

from typing import NamedTuple

import numpy as np


class Drift(NamedTuple):
    """A kernel K' beside an earlier one K.

    - `relative_change`: `|K' - K| / |K|` in the Frobenius norm; 0 where nothing moved.
    - `alignment`: `<K, K'> / (|K| |K'|)`, the cosine between them, 1 where K' is K times a number.
    """

    relative_change: float
    alignment: float


def drift(before: np.ndarray, after: np.ndarray) -> Drift:
    """Of K = J J^T to K' = J' J'^T, from J and J' (rows, p), without anything of size rows^2 where p is smaller."""
    scale = float(np.abs(before).max())
    if scale == 0:
        return Drift(np.inf if after.any() else 0.0, np.nan)
    before, after = before / scale, after / scale
    if before.shape[0] <= before.shape[1]:
        old, new = before @ before.T, after @ after.T
        change, inner = float(np.linalg.norm(new - old)), float(np.vdot(old, new))
        sizes = float(np.linalg.norm(old)), float(np.linalg.norm(new))
    else:
        # K' - K = (D S^T + S D^T) / 2 with the difference and the sum of the Jacobians, so that nothing cancels.
        apart, together = after - before, after + before
        mixed = together.T @ apart
        square = np.vdot(apart.T @ apart, together.T @ together) + np.vdot(mixed, mixed.T)
        change, inner = float(np.sqrt(max(square, 0.0) / 2)), float(np.square(before.T @ after).sum())
        sizes = float(np.linalg.norm(before.T @ before)), float(np.linalg.norm(after.T @ after))
    return Drift(change / sizes[0], inner / (sizes[0] * sizes[1]) if sizes[1] > 0 else np.nan)
