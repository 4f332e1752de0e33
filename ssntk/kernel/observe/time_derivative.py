"""The loss on the rate of change."""

from collections.abc import Callable

from ssntk.kernel.observe.base import AbstractLossOperator, AbstractObservation
from ssntk.kernel.observe.observations import Rate
from ssntk.models.clock import AbstractClock


class TimeDerivative(AbstractLossOperator):
    """The operator d/dt, exactly: the rate of change along the trajectory is observed.

    Its rows are `d/dtheta` of `f(t, x, u)`, or of `dh/dx f` if the readout h is observed. No difference is taken, so the
    save times may lie anywhere. The rate depends on theta already at the first save time.

    **Example:** dx/dt = p has the rate p, whose derivative is 1 at every time.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)
    kernel = ssntk.ntk(model, ssntk.Probe([0.0, 1.0]), loss_operator=ssntk.TimeDerivative())
    print(kernel.round(6))  # [[1. 1.] [1. 1.]]
    ```
    """

    def observation(self, of: AbstractObservation) -> AbstractObservation:
        return Rate(of)

    def at_frequency(self, omega: float, clock: AbstractClock, kernel: Callable[[float], float], forced: float) -> float:
        return kernel(omega) * clock.difference(omega) ** 2
