"""Where a network's nearness to a bifurcation comes from: its gain, as for random networks, or its structure."""

import numpy as np

from ssntk.infinite.judge import Expected, against_random, leaks
from ssntk.models.base import AbstractStateSpaceModel

# A percentile outside of these is called structure: as a test at 5 % on each side.
LOW, HIGH = 0.05, 0.95


def expected_at(model: AbstractStateSpaceModel, matrix: np.ndarray) -> Expected | None:
    """What is expected of a random network with the gain of df/dx, `matrix` (n, n); `None` if that means nothing here.

    It means nothing for models that are no network of leaky units, or if the matrix leaves out conserved quantities.
    """
    found = leaks(model)
    if found is None or len(matrix) != model.n_state:
        return None
    return against_random(matrix, found[0], model.clock, by_rows=found[1])


def origin_clause(gain: float | None, percentile: float | None) -> str:
    """A clause that says whether a network is near a bifurcation by its gain or by its structure; empty if not known."""
    if percentile is None or gain is None:
        return ""
    percent = 100 * percentile
    if percentile < LOW:
        return f", by its structure: only {percent:.2g} % of random networks of its gain of {gain:.2g} are as near"
    if percentile > HIGH:
        return f", though by its structure farther than {percent:.3g} % of random networks of its gain of {gain:.2g}"
    return f", as its gain of {gain:.2g} makes it"
