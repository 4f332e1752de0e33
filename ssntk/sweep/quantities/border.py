"""How far the units of a piecewise-linear network are from their borders."""

from typing import ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable


class BorderQuantity(AbstractQuantity):
    """The unit nearest to its border, and the nearest one whose border is a nonsmooth fold, as in `Measurement.border`.

    Records nothing if the model is not piecewise linear, and no fold if no border is one.
    """

    name = "border"
    variables: ClassVar[dict[str, Variable]] = {
        "border_margin": Variable(
            "least change of theta that brings a unit to its border",
            "parameter",
            always=False,
            label="Border margin, least change of θ",
            log=True,
        ),
        "border_unit": Variable("number of that unit", always=False, label="Unit nearest to its border", section="point"),
        "border_delta": Variable(
            "det J' / det J at its border", always=False, label="δ = det J' / det J at its border", section="point"
        ),
        "fold_margin": Variable(
            "least change of theta that brings a unit to a border that is a nonsmooth fold",
            "parameter",
            always=False,
            label="Border margin of the nearest nonsmooth fold",
            short="fold margin",
            log=True,
        ),
        "fold_unit": Variable(
            "number of that unit", always=False, label="Unit of the nearest nonsmooth fold", section="point"
        ),
        "fold_delta": Variable(
            "det J' / det J at its border, negative",
            always=False,
            label="δ = det J' / det J at the nearest nonsmooth fold",
            section="point",
        ),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        border = shared.border
        if border is None:
            return {}
        chosen = {"border": border.unit} | ({} if border.fold is None else {"fold": border.fold})
        return {
            f"{name}_{what}": np.asarray(value, float)
            for name, unit in chosen.items()
            for what, value in (("margin", border.distance[unit]), ("unit", unit), ("delta", border.delta[unit]))
        }
