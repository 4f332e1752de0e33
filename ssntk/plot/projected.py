"""Project states onto the axes of a picture."""

from typing import NamedTuple

import numpy as np


class Projection(NamedTuple):
    """A projection of states (k, n) onto the unit vectors `axes` (dims, n), relative to `centre` (n,).

    `labels`: one for each axis.
    """

    centre: np.ndarray
    axes: np.ndarray
    labels: tuple[str, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The coordinates (..., dims) of states x (..., n)."""
        return (x - self.centre) @ self.axes.T


def own_axes(n: int) -> Projection:
    """The projection that leaves the n states as they are."""
    return Projection(np.zeros(n), np.eye(n), tuple(f"state {i}" for i in range(n)) if n > 1 else ("state $x$",))


def principal_axes(x: np.ndarray, dims: int) -> Projection:
    """The projection onto the first principal components of states (k, n). Labels hold the share of variance of each."""
    centre = x.mean(axis=0)
    offset = x - centre
    # Divide by the largest entry, since the square of a large state would overflow.
    size = np.abs(offset).max(initial=0.0) or 1.0
    # Decompose the smaller matrix: trajectories may have many points, and networks many units.
    if len(x) > x.shape[1]:
        variances, vectors = np.linalg.eigh((offset / size).T @ (offset / size))
        variances, axes = np.maximum(variances[::-1], 0.0), vectors[:, ::-1].T
    else:
        # Add zeros if there are fewer points than dimensions, so that there are enough directions.
        padded = np.concatenate([offset / size, np.zeros((max(dims - len(x), 0), x.shape[1]))])
        _, values, axes = np.linalg.svd(padded, full_matrices=False)
        variances = values**2
    axes = axes[:dims]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(dims), largest])[:, None]
    total = variances.sum()
    # Labels of three axes are short, since there is little room beside the box.
    name = "principal component" if dims == 2 else "PC"
    shares = [f" ({100 * part:.0f} %)" if total > 0 else "" for part in variances[:dims] / (total if total > 0 else 1.0)]
    return Projection(centre, axes, tuple(f"{name} {i + 1}{share}" for i, share in enumerate(shares)))
