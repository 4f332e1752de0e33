"""What the borders of a piecewise-linear network add to a verdict: nonsmooth folds, of which no eigenvalue warns."""

import numpy as np
from jaxtyping import Array

from ssntk.critical.border import BorderMargin, margin_at
from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Positions
from ssntk.piecewise.recognise import Recognised
from ssntk.results import short

# Training moves parameters by some percent of their values. A relative change of all of them counts as this many times as
# large in a verdict: a network is near-critical below 3 %, and critical below 1 %.
WEIGHT = 10.0


def border_at(model: AbstractStateSpaceModel, at: Positions, x: np.ndarray, u: Array) -> BorderMargin | None:
    """The margins of a fixed point x (n,) for parameters at these positions; `None` if there are no borders.

    There are none if the model is not piecewise linear. There are also none if df/dx is singular, or if an array of theta
    holds both what a unit reads and what it does, so that distances are not known.
    """
    try:
        forms = Recognised(model, u)
        if not len(forms.groups):
            return None
        return margin_at(model, at, np.asarray(x, float), u, forms, 1.0)
    # `NotPiecewiseLinear` is a ValueError.
    except (ValueError, NumericalError):
        return None


def nearest_fold(border: BorderMargin | None) -> int | None:
    """The unit whose border is the nonsmooth fold at the smallest relative change of the parameters; `None` if none is."""
    if border is None:
        return None
    folds = np.flatnonzero(border.delta < 0)
    return int(folds[np.argmin(border.relative[folds])]) if folds.size else None


def border_distance(border: BorderMargin | None) -> float:
    """The distance of the nearest nonsmooth fold, as it counts in a verdict; infinite if there is none."""
    unit = nearest_fold(border)
    return np.inf if border is None or unit is None else WEIGHT * float(border.relative[unit])


def border_clause(border: BorderMargin | None) -> str:
    """A clause on the nearest nonsmooth fold, empty if there is none."""
    unit = nearest_fold(border)
    if border is None or unit is None or not np.isfinite(border.distance[unit]):
        return ""
    return (
        f"a nonsmooth fold, of which no eigenvalue warns, lies where unit {unit} meets its border (delta = "
        f"{short(border.delta[unit], 3)}), at a change of the parameters by {border.distance[unit]:.2g}, or by "
        f"{border.relative[unit]:.2g} of their values"
    )
