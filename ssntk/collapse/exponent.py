"""The laws of the kernel near a bifurcation that normal forms predict, and the exponent that is measured."""

from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.events.kinds import (
    BORDER_COLLISION,
    BOUNDARY_HOPF,
    DEGENERATE_FLIP,
    FLIP,
    HOPF,
    NEIMARK_SACKER,
    NONSMOOTH_FOLD,
    PITCHFORK,
    SADDLE_NODE,
    TO_INFINITY,
    TRANSCRITICAL,
)


class Law(NamedTuple):
    """The behaviour of the kernel on the stable side of a kind of bifurcation, for generic parameters.

    - `exponent`: d log(top steady-state eigenvalue) / d log|p - p_c|; NaN if it is not known.
    - `next_order`: the next term of log K near the bifurcation is proportional to |p - p_c| to this power.
    - `says`: a sentence about what the exponent means, without its full stop, if it needs one.
    """

    exponent: float
    next_order: float = 1.0
    says: str = ""


# At a fold lambda ~ |p - p_c|^(1/2) and K* ~ |r|^2 |l^T F|^2 / lambda^2. Everything is smooth in the coordinate along the
# critical direction, which is proportional to the square root of the distance. At a Hopf point the steady-state kernel does
# not diverge, since the critical frequency is not zero (Hazelden and Shea-Brown, arXiv:2605.12763). The same holds at flips
# and Neimark-Sacker points. At crossings of branches lambda ~ |p - p_c|. A parameter that preserves the crossing is not
# amplified there (`ssntk.laws`).
_LAWS = {
    SADDLE_NODE.name: Law(-1.0, 0.5),
    TRANSCRITICAL.name: Law(-2.0),
    PITCHFORK.name: Law(-2.0),
    HOPF.name: Law(0.0),
    FLIP.name: Law(0.0),
    NEIMARK_SACKER.name: Law(0.0),
    DEGENERATE_FLIP.name: Law(0.0),
    # In the region of a piecewise-linear model the Jacobian does not depend on the distance to the border.
    NONSMOOTH_FOLD.name: Law(0.0, says="no kernel and no eigenvalue warns of a nonsmooth fold, its border's margin does"),
    BOUNDARY_HOPF.name: Law(0.0, says="no kernel warns of a border, its margin does"),
    BORDER_COLLISION.name: Law(0.0, says="no kernel warns of a border, its margin does"),
    # x* ~ 1 / distance and lambda ~ distance. The drive of a weight is its input, which grows as x* does.
    TO_INFINITY.name: Law(-4.0, says="the exponent of weights, whose drive grows with the state; that of biases is -2"),
}


def law_of(kind: str) -> Law:
    """The law of a kind of bifurcation; for kinds without a law, one whose exponent is NaN."""
    return _LAWS.get(kind, Law(np.nan))


def fitted_decades(distance: np.ndarray) -> float:
    """The number of decades of distance over which to fit an exponent: the last three of a sweep (k,), without its first."""
    return float(np.clip(np.log10(distance.max() / distance.min()) - 1, 1.0, 3.0))


def measured_exponent(
    distance: np.ndarray, values: np.ndarray, decades: float = 3.0, next_order: float | None = None
) -> float:
    """The exponent s in `values ~ distance^s`, by least squares over the last `decades` before the bifurcation.

    **Arguments:** `distance`, `values`: (k,), positive; points that are NaN are left out. `next_order`: if `None`, fit
    `log values = c + s log distance`; if a power b, add a term `distance^b` to the fit. Without it the slope of a fold has
    an error of 0.002 to 0.05 over three decades that end at 1e-7.

    Returns NaN unless there are more points than coefficients.
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
