"""What the normal forms predict of the kernel near a bifurcation."""

import numpy as np

# d log(top steady-state eigenvalue) / d log|p - p_c| on the stable side, for generic parameters. At a fold
# lambda ~ |p - p_c|^(1/2) and K* ~ |r|^2 |l^T F|^2 / lambda^2; at a Hopf the steady state does not diverge, since its
# critical frequency is not zero (Hazelden and Shea-Brown, arXiv:2605.12763).
STEADY_STATE_EXPONENT = {"saddle-node": -1.0, "hopf": 0.0}


def measured_exponent(distance: np.ndarray, values: np.ndarray, decades: float = 3.0) -> float:
    """The slope of log(values) against log(distance) by least squares over the last `decades` before the bifurcation.

    **Arguments:** `distance`, `values`: (k,), positive; points that are NaN are left out.

    Returns NaN where fewer than three points lie there.
    """
    known = np.isfinite(values) & (values > 0)
    distance, values = distance[known], values[known]
    if distance.size == 0:
        return float("nan")
    near = distance <= distance.min() * 10**decades * (1 + 1e-9)
    if near.sum() < 3:
        return float("nan")
    return float(np.polyfit(np.log(distance[near]), np.log(values[near]), 1)[0])
