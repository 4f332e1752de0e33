"""Read the critical eigenvalue of a network from the courses in time of its kernel alone."""

from typing import NamedTuple

import numpy as np
import scipy

from ssntk.errors import NumericalError

# The largest number of dominant courses that are fitted.
COURSES = 6
# Courses count as oscillating if a fit by decays alone leaves more than this fraction of their sum of squares.
LEFT = 0.1


class Rate(NamedTuple):
    """An eigenvalue `-decay + i frequency` in 1 / time, and the part of the courses' sum of squares that it leaves over."""

    decay: float
    frequency: float
    residual: float


def rates_of(ts: np.ndarray, kernels: list[np.ndarray], n_batch: int) -> list[tuple[Rate, Rate]]:
    """For each kernel (R, R) the fitted rates without and with oscillation. Rows are (b, t, i) with `n_batch` inputs.

    Near a fixed point, whatever drives it, the sensitivity of a mode is a sum of exp(lambda t), t exp(lambda t), a constant
    and an oscillation at the frequency of the input. The dominant courses should therefore lie in the space of these
    functions, which is fitted by variable projection (Golub and Pereyra, 1973). The farthest kernel comes first.
    """
    found: list[tuple[Rate, Rate]] = []
    for kernel in kernels:
        courses = _courses(ts, kernel, n_batch)
        horizon = float(ts[-1] - ts[0])
        spectrum = np.abs(np.fft.rfft(courses[:, 0] * np.hanning(len(courses)), 8 * len(courses)))
        # For a first guess of the frequency by a Fourier transform, times are treated as evenly spaced.
        turning = 2 * np.pi * int(np.argmax(spectrum)) / (8 * horizon / (len(ts) - 1) * len(courses))
        turning = max(turning, np.pi / horizon)
        logs = np.log(np.array([3.0, 10.0, 30.0, 100.0]) / horizon)
        real = [np.array([log, log + np.log(5)]) for log in logs]
        pair = [np.array([log, turning, turning]) for log in logs]
        if found:
            before, turned = found[-1]
            real.append(np.log(before.decay) + np.array([0.0, np.log(5)]))
            pair.append(np.array([np.log(turned.decay), turned.frequency, turned.frequency]))
        found.append((_fit(ts, courses, real), _fit(ts, courses, pair)))
    return found


def oscillates(rates: list[tuple[Rate, Rate]], horizon: float) -> bool:
    """Whether the last few kernels oscillate."""
    votes = [real.residual > max(LEFT, 4 * pair.residual) and pair.frequency * horizon > np.pi for real, pair in rates[-3:]]
    return sum(votes) > len(votes) / 2


def _courses(ts: np.ndarray, kernel: np.ndarray, n_batch: int) -> np.ndarray:
    """The dominant courses in time (T - 1, m) of the part along the two leading state directions, scaled to norm one.

    The last time is left out, since weighted kernels have half the weight there.
    """
    t = len(ts)
    split = kernel.reshape(n_batch, t, -1, n_batch, t, kernel.shape[0] // (n_batch * t))
    _, directions = np.linalg.eigh(np.einsum("btibtj->ij", split))
    plane = directions[:, -2:]
    # Put t first, so that the courses in time are the columns of the Gram matrix's root.
    inside = np.einsum("btiBTI,ij,IJ->tbjTBJ", split, plane, plane, optimize=True).reshape(t * n_batch * plane.shape[1], -1)
    values, vectors = np.linalg.eigh((inside + inside.T) / 2)
    kept = np.arange(len(values)) >= len(values) - 2 * COURSES
    if not values[-1] > 0:
        raise NumericalError("a kernel is zero")
    root = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
    inside = root.reshape(t, -1)
    left, size, _ = np.linalg.svd(inside[:-1], full_matrices=False)
    courses = (left * size)[:, :COURSES]
    return courses / np.linalg.norm(courses)


def _fit(ts: np.ndarray, courses: np.ndarray, starts: list[np.ndarray]) -> Rate:
    """The best of the fits from several starts: two log decays, or a log decay and the frequencies of mode and input."""
    t = (ts - ts[0])[:-1]
    horizon, pair = t[-1], starts[0].size == 3

    def rest(guess: np.ndarray) -> np.ndarray:
        fading = np.exp(-np.exp(guess[0]) * t)
        if pair:
            modes = [fading * turn for turn in (np.cos(guess[1] * t), np.sin(guess[1] * t))]
            others = [np.cos(guess[2] * t), np.sin(guess[2] * t), *(t / horizon * mode for mode in modes)]
        else:
            modes, others = [fading], [np.exp(-np.exp(guess[1]) * t)]
        space = np.stack([np.ones_like(t), *modes, *others], axis=1)
        basis, size, _ = np.linalg.svd(space / np.linalg.norm(space, axis=0), full_matrices=False)
        basis = basis[:, size > 1e-9 * size[0]]
        return (courses - basis @ (basis.T @ courses)).ravel()

    # Decays too fast or too slow for the horizon are set to the limits of what it shows.
    slow, fast, quickest = np.log(1e-3 / horizon), np.log(0.5 * len(t) / horizon), np.pi * len(t) / horizon
    low = np.array([slow, 0.0, 0.0] if pair else [slow, slow])
    high = np.array([fast, quickest, quickest] if pair else [fast, fast])
    scale = np.array([0.3, 0.3 / horizon, 0.3 / horizon] if pair else [0.3, 0.3])
    best: Rate | None = None
    for start in starts:
        inside = np.clip(start, low + 1e-6, high - 1e-6)
        found = scipy.optimize.least_squares(rest, inside, bounds=(low, high), x_scale=scale, max_nfev=60)
        if best is None or 2 * found.cost < best.residual:
            decay = float(np.exp(found.x[0] if pair else found.x.min()))
            best = Rate(decay, float(found.x[1]) if pair else 0.0, 2 * float(found.cost))
    assert best is not None
    return best
