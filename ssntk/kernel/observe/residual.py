"""The loss on the residual of the differential equation."""

from collections.abc import Callable

from ssntk.kernel.observe.base import AbstractLossOperator, AbstractObservation
from ssntk.kernel.observe.observations import State, StillVelocity
from ssntk.models.clock import AbstractClock


class Residual(AbstractLossOperator):
    """The operator `d/dt - A`, exactly, with A = df/dx along the trajectory.

    It gives the residual of the ODE, as in physics-informed losses. Its rows are F = df/dtheta at a state that is held
    still, so that the kernel is `F F^T`. It is possible for `of="state"` only.

    **Example:** dx/dt = -p x has F = -x, which is -1 along the solution x = exp(-t) at time zero.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(1), 1)
    kernel = ssntk.ntk(model, ssntk.Probe([0.0, 1.0], x0=[1.0]), loss_operator=ssntk.Residual())
    print(kernel[0].round(6))  # [1.       0.367879]
    ```
    """

    def observation(self, of: AbstractObservation) -> AbstractObservation:
        if not isinstance(of, State):
            raise ValueError("loss_operator Residual needs of='state': the residual of the ODE is that of its state")
        return StillVelocity()

    def at_frequency(self, omega: float, clock: AbstractClock, kernel: Callable[[float], float], forced: float) -> float:
        return forced
