"""What the normal forms predict of the kernel near a bifurcation."""

import numpy as np

# d log(top steady-state eigenvalue) / d log|p - p_c| on the stable side, for generic parameters. At a fold
# lambda ~ |p - p_c|^(1/2) and K* ~ |r|^2 |l^T F|^2 / lambda^2; at a Hopf the steady state does not diverge, since its
# critical frequency is not zero (Hazelden and Shea-Brown, arXiv:2605.12763), nor at a flip or a Neimark-Sacker point. Where
# branches cross lambda ~ |p - p_c|; a parameter that respects the crossing is not amplified there (`ssntk.laws`).
STEADY_STATE_EXPONENT = {
    "saddle-node": -1.0,
    "transcritical": -2.0,
    "pitchfork": -2.0,
    "hopf": 0.0,
    "flip": 0.0,
    "neimark-sacker": 0.0,
}


# The next term of log K near the bifurcation is of order |p - p_c| to this power: at a fold everything is smooth in the
# coordinate along the critical direction, which goes as the square root of the distance.
NEXT_ORDER = {kind: 0.5 if kind == "saddle-node" else 1.0 for kind in STEADY_STATE_EXPONENT}


# How many modes the channel has: one for a real eigenvalue, two for a pair.
CHANNEL_MODES = {kind: 2 if kind in ("hopf", "neimark-sacker") else 1 for kind in STEADY_STATE_EXPONENT}


def fitted_decades(distance: np.ndarray) -> float:
    """Over how many decades of the distances (k,) of a sweep to fit an exponent: the last three, and not the first one."""
    return float(np.clip(np.log10(distance.max() / distance.min()) - 1, 1.0, 3.0))


def measured_exponent(
    distance: np.ndarray, values: np.ndarray, decades: float = 3.0, next_order: float | None = None
) -> float:
    """The exponent s in `values ~ distance^s`, by least squares over the last `decades` before the bifurcation.

    **Arguments:** `distance`, `values`: (k,), positive; points that are NaN are left out. `next_order`: `None` fits
    `log values = c + s log distance`, the plain slope; a power b adds a term `distance^b`, without which the slope of a fold
    is off by 0.002 to 0.05 over three decades that end at 1e-7.

    Returns NaN where there are fewer points than coefficients, plus one.
    """
    known = np.isfinite(values) & (values > 0)
    distance, values = distance[known], values[known]
    if distance.size == 0:
        return float("nan")
    near = distance <= distance.min() * 10**decades * (1 + 1e-9)
    terms = [np.ones(near.sum()), np.log(distance[near])]
    if next_order is not None:
        terms.append(distance[near] ** next_order)
    if near.sum() <= len(terms):
        return float("nan")
    return float(np.linalg.lstsq(np.stack(terms, axis=1), np.log(values[near]), rcond=None)[0][1])
