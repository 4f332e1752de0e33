"""The fixed point, and the rates at which the network returns to it."""

from typing import ClassVar

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable


class FixedPointQuantity(AbstractQuantity):
    """The fixed point, its residual, and the eigenvalues of the Jacobian there."""

    name = "fixed_point"
    # "state" and "time" stand for the units of the model's state and time.
    variables: ClassVar[dict[str, Variable]] = {
        "x_star": Variable("fixed point", "state", ("mode",), section=""),
        "residual": Variable(
            "largest |f_i| at the fixed point",
            "state / time",
            label="Largest |fᵢ| at the fixed point",
            section="point",
        ),
        "jacobian_eigenvalues": Variable(
            "eigenvalues of df/dx; of a map the multipliers",
            "1 / time",
            ("mode",),
            complex,
            label="Re λ₁ of the Jacobian",
            short="Re lambda_1",
            first="growth",
        ),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        return {name: getattr(shared, name) for name in self.variables}
