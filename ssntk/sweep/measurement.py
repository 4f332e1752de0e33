"""What was measured of one network at one fixed point."""

import dataclasses

import numpy as np

from ssntk.collapse.channel import Channel
from ssntk.critical.border import BorderMargin
from ssntk.kernel.spectrum import Spectrum
from ssntk.results import Result, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Measurement(Result):
    """One point, measured.

    - `x_star` (n,): the fixed point after Newton's iteration. `residual`: the largest |f_i| there [state / time].
    - `jacobian_eigenvalues` (n,): of df/dx, the rightmost first [1 / time]; for maps the multipliers, the largest first.
    - `trajectory`: the spectrum of the trajectory kernel K_int (trapezoid weights).
    - `steady_state`: the spectrum of the steady-state kernel.
    - `kernel_over_time` (t, t): the trajectory kernel summed over inputs and coordinates, without weights, at all save
      times, or at 64 of them, evenly chosen ([`times_shown`][]).
    - `blocks`: for each requested block of theta, the spectrum of its part of the trajectory kernel.
    - `channel_participation_ratio`: for each block, its participation ratio close to the bifurcation, as predicted from the
      drive of the critical mode. It is 0 if the inputs do not drive that mode through the block, and NaN if it is not known.
    - `channel`: the critical mode's part of the trajectory kernel of the states ([`Channel`][]), or `None` if there is
      none: for a defective eigenvalue, for a kernel that is zero or overflows, and if a mask hides some coordinates only.
    - `quantities`: the variables of your own quantities ([`AbstractQuantity`][]), by their names.
    - `border`: for piecewise-linear models, such as ReLU networks, how far the units are from their borders
      ([`BorderMargin`][]); else `None`.

    **Example:**

    ```python
    model = ssntk.normal_forms.saddle_node(0.01)
    found = ssntk.measure(model, ssntk.Probe([0.0, 1.0]), [0.1])
    print(found.jacobian_eigenvalues, found.channel.kind)  # [-0.2+0.j] real
    ```
    """

    x_star: np.ndarray
    residual: float
    jacobian_eigenvalues: np.ndarray
    trajectory: Spectrum
    steady_state: Spectrum
    kernel_over_time: np.ndarray
    blocks: dict[str, Spectrum]
    channel_participation_ratio: dict[str, float]
    channel: Channel | None
    quantities: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    border: BorderMargin | None = None

    def __setstate__(self, state: dict[str, object]) -> None:
        # Pickles of earlier versions lack these fields.
        vars(self).update({"quantities": {}, "border": None} | state)

    def _headline(self) -> str:
        fastest = short(self.jacobian_eigenvalues[0])
        ratios = f"{short(self.trajectory.participation_ratio)} and {short(self.steady_state.participation_ratio)}"
        return f"Measurement: fastest eigenvalue {fastest}; participation ratios {ratios} (trajectory, steady state)"
