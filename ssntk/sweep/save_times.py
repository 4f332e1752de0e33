"""The save times at which a record keeps the kernel over time."""

import numpy as np
from jaxtyping import Array

# A kernel over time is kept at no more save times than this, which is more than a picture shows.
MOST_TIMES = 64


def times_shown(ts: np.ndarray | Array) -> np.ndarray:
    """The save times (t,) at which a kernel over time is kept: all, or 64 of them, evenly chosen."""
    return np.asarray(ts)[shown_of(len(ts))]


def shown_of(count: int) -> np.ndarray:
    """The indices of these among `count` save times."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_TIMES)).round().astype(int))
