"""Many-dimensional states in a picture."""

from typing import NamedTuple

import numpy as np


class Projection(NamedTuple):
    """States (k, n) seen along `axes` (dims, n) from `centre` (n,); `labels` of the axes."""

    centre: np.ndarray
    axes: np.ndarray
    labels: tuple[str, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(..., n) -> (..., dims)."""
        return (x - self.centre) @ self.axes.T


def own_axes(n: int) -> Projection:
    """The states themselves."""
    return Projection(np.zeros(n), np.eye(n), tuple(f"state {i}" for i in range(n)) if n > 1 else ("state $x$",))


def principal_axes(x: np.ndarray, dims: int) -> Projection:
    """The first principal components of states (k, n), with the share of the variance that each explains."""
    centre = x.mean(axis=0)
    offset = x - centre
    # Beside the largest: the square of a large state is no number.
    size = np.abs(offset).max(initial=0.0) or 1.0
    # From the smaller side: trajectories have many points, or the network has many units.
    if len(x) > x.shape[1]:
        variances, vectors = np.linalg.eigh((offset / size).T @ (offset / size))
        variances, axes = np.maximum(variances[::-1], 0.0), vectors[:, ::-1].T
    else:
        # As many directions as dimensions are asked for, however few points there are.
        padded = np.concatenate([offset / size, np.zeros((max(dims - len(x), 0), x.shape[1]))])
        _, values, axes = np.linalg.svd(padded, full_matrices=False)
        variances = values**2
    axes = axes[:dims]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(dims), largest])[:, None]
    total = variances.sum()
    # There is less room beside a box.
    name = "principal component" if dims == 2 else "PC"
    shares = [f" ({100 * part:.0f} %)" if total > 0 else "" for part in variances[:dims] / (total if total > 0 else 1.0)]
    return Projection(centre, axes, tuple(f"{name} {i + 1}{share}" for i, share in enumerate(shares)))
