"""Choose the fixed point of a network that is nearest to a bifurcation, for verdicts, approaches and retreats."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from ssntk.dynamics.fixed_points import FixedPoints, find_fixed_points
from ssntk.dynamics.metric import in_metric
from ssntk.dynamics.radius import Edge, nearest_edge
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock

# The default number of starts of the search for fixed points.
STARTS = 32


class Fragile(NamedTuple):
    """The most fragile fixed point: the stable one with the smallest stability radius, or if none is stable, of all.

    - `u` (d,) and `x` (n,): the input and the state. `stable`. `residual`: the largest |f_i| there.
    - `matrix` (m, m): df/dx in the metric, restricted to directions that change no conserved quantity, since no parameter
      moves the zero eigenvalues of conserved quantities. `level` (n, m): an orthonormal basis of these directions.
    - `values` (m,): the eigenvalues of `matrix`.
    - `edge`: the frequency at which the matrix is nearest to the edge of stability, and its distance.
    """

    u: Array
    x: np.ndarray
    stable: bool
    residual: float
    matrix: np.ndarray
    level: np.ndarray
    values: np.ndarray
    edge: Edge


class _Candidate(NamedTuple):
    """Fixed point number `i` of those that were found for the input `u` (d,)."""

    u: Array
    found: FixedPoints
    i: int


def most_fragile(
    found: Sequence[tuple[Array, FixedPoints]],
    clock: AbstractClock,
    metric: np.ndarray | None = None,
    most: int | None = None,
) -> Fragile:
    """The most fragile of known fixed points, at least one, for several inputs u (d,).

    **Arguments:** `metric` (n,): that of the states, `None` for ones. `most`: judge at most this many points, those whose
    eigenvalues are nearest to the edge of stability.
    """
    points = [_Candidate(u, one, i) for u, one in found for i in range(len(one))]
    stable = [point for point in points if point.found.stable[point.i]]
    chosen = stable or points
    if most is not None:
        rates = [np.abs(clock.shown_rate(one.eigenvalues[i])).min() for _, one, i in chosen]
        # If no point is stable, judge only the one nearest to the edge.
        chosen = [chosen[at] for at in np.argsort(rates, kind="stable")[: most if stable else 1]]

    def judged(point: _Candidate) -> Fragile:
        u, one, i = point
        level = _level(one.conserved, metric)
        matrix = level.T @ in_metric(one.jacobian[i].astype(float), metric) @ level
        values = sorted_eigenvalues(matrix)
        edge = nearest_edge(matrix, clock, values)
        return Fragile(u, one.x[i], bool(one.stable[i]), float(one.residual[i]), matrix, level, values, edge)

    return min((judged(point) for point in chosen), key=lambda point: abs(point.edge.radius))


def searched(
    model: AbstractStateSpaceModel, inputs: Sequence[Array], *, n_starts: int = STARTS, key: Array | None = None
) -> list[tuple[Array, FixedPoints]]:
    """The fixed points of a model for each constant input (d,); `NumericalError` if none was found."""
    found = [(u, find_fixed_points(model, u, n_starts=n_starts, key=key)) for u in inputs]
    if not sum(len(one) for _, one in found):
        slow = min((float(one.slow.speed[0]) for _, one in found if len(one.slow)), default=np.nan)
        raise NumericalError(
            f"no fixed point was found from {n_starts} starts, so that there is none to judge: try more n_starts; "
            + (f"the slowest state moves with speed {slow:.3g}" if np.isfinite(slow) else "")
        )
    return found


def _level(conserved: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    """An orthonormal basis (n, n - c) of the directions that change none of the conserved quantities (c, n)."""
    n = conserved.shape[1]
    if len(conserved) in (0, n):
        return np.eye(n)
    weights = conserved if metric is None else conserved * metric
    return np.linalg.svd(weights)[2][len(weights) :].T
