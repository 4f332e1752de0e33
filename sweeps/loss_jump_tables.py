"""What loss_jump_study.py concludes from its rows: jumps, events, their coincidence, tables and the figure."""

import pathlib
from collections.abc import Callable

import numpy as np

FACTOR, WINDOW, LARGEST = 2.0, 20, 1e6


def length(loss: np.ndarray) -> int:
    """How many steps a run has: up to and with the first loss that is not finite or too large."""
    bad = np.flatnonzero(~(loss <= LARGEST))
    return int(bad[0]) + 1 if len(bad) else len(loss)


def jumps(loss: np.ndarray) -> np.ndarray:
    """The steps at which the loss exceeds twice the median of the last 20 steps, at least 20 steps apart."""
    return spaced(loss, lambda now, usual: not now <= FACTOR * usual)


def falls(loss: np.ndarray) -> np.ndarray:
    """The steps at which the loss is below half of the median of the last 20 steps, at least 20 steps apart."""
    return spaced(loss, lambda now, usual: now < usual / FACTOR)


def spaced(loss: np.ndarray, moved: Callable[[float, float], bool]) -> np.ndarray:
    found, t = [], WINDOW
    while t < len(loss):
        if moved(loss[t], np.median(loss[t - WINDOW : t])):
            found.append(t)
            t += WINDOW
        else:
            t += 1
    return np.array(found, int)


def tables(folder: pathlib.Path, figure: pathlib.Path) -> None: ...
