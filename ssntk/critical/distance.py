"""How near a bifurcation is, relative to a network's own time scale, and from where on that is called near."""

import numpy as np

from ssntk.collapse import laws
from ssntk.models.base import AbstractStateSpaceModel

# Relative distances below which a network counts as near a bifurcation, and as critical. Below NEAR the kernel was
# measured to be more than 10 times what leaks alone give (sweeps/criticality_study.py, docs/criticality.md). Below
# CRITICAL it is more than 100 times that, by the master law.
NEAR, CRITICAL = 0.33, 0.1


def verdict(relative_distance: float) -> str:
    """`"regular"`, `"near-critical"` or `"critical"`."""
    return "critical" if relative_distance < CRITICAL else "near-critical" if relative_distance < NEAR else "regular"


def relative_distance(radius: float, time_scale: float, horizon: float | None) -> float:
    """|radius| relative to 1 / time_scale, for trajectories of length `horizon`: see [`Criticality`][]."""
    if horizon is None:
        return abs(radius) * time_scale
    # A longer horizon gives the same result, and the limit keeps squares finite.
    horizon = min(horizon, 1e12 * time_scale)
    return float(np.sqrt(laws.g(horizon / time_scale) / laws.g(horizon * abs(radius))))


def natural_time_scale(model: AbstractStateSpaceModel, rates: np.ndarray) -> float:
    """The largest `tau` of a model; if it has none, 1 / the median |rate| of its growth rates (n,).

    Real parts would not do: the real part of a pair that is about to cross is not a time scale of the network.
    """
    tau = getattr(model, "tau", None)
    if tau is not None and np.size(tau) and np.issubdtype(np.asarray(tau).dtype, np.floating) and np.min(tau) > 0:
        return float(np.max(tau))
    median = float(np.median(np.abs(rates)))
    return 1 / median if median > 0 else 1.0
