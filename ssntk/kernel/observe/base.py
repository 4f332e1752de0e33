"""What is observed of a trajectory, and what a loss does with it: the two things that a loss operator is made of."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock


class AbstractObservation(eqx.Module):
    """What is observed at one save time: a function of the parameters, the time, the state and the input.

    Subclass it with `rows` and `look`. The kernel differentiates `look` along the trajectory and along theta, so that both
    may depend on the model. Fields that are arrays may change without a new compilation.

    **Example:** how fast the state moves, as one number.

    ```python
    class SquaredSpeed(ssntk.AbstractObservation):
        def rows(self, model):
            return 1

        def look(self, model, t, x, u):
            return jnp.sum(model.vector_field(t, x, u) ** 2)[None]

    model = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(2), 2)
    print(SquaredSpeed().look(model, 0.0, jnp.asarray([3.0, 4.0]), jnp.zeros(0)))  # [25.]
    ```
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def direct(self) -> bool:
        """Whether it is the state itself: its rows are then the state's sensitivities as they are."""
        return False

    @abc.abstractmethod
    def rows(self, model: AbstractStateSpaceModel) -> int:
        """The number m of rows at each save time."""

    @abc.abstractmethod
    def look(
        self, model: AbstractStateSpaceModel, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " m"]:
        """What is observed (m,) of the state x (n,) at time t under the input u (d,). Traced: written with `jax.numpy`."""


class AbstractLossOperator(eqx.Module):
    """A linear operator L of a loss |L (y - target)|^2, whose kernel is L K L^T.

    Subclass it with any of `observation`, `over_time` and `at_frequency`, and pass an instance as `loss_operator` to
    [`ntk`][], [`ntk_spectrum`][] and [`ntk_operator`][], or to [`frequency_signature`][]. An operator acts by what it
    observes in the place of the state or readout, then by a matrix over the save times.

    **Example:** a loss on the differences between neighbouring save times.

    ```python
    class Differences(ssntk.AbstractLossOperator):
        def over_time(self, ts):
            return np.eye(len(ts)) - np.eye(len(ts), k=-1)

    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, with the kernel t t'
    kernel = ssntk.ntk(model, ssntk.Probe([0.0, 1.0, 3.0]), loss_operator=Differences())
    print(kernel.round(6))  # [[0. 0. 0.] [0. 1. 2.] [0. 2. 4.]]
    ```
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def observation(self, of: AbstractObservation) -> AbstractObservation:
        """What is observed where the loss is on `of`, the state or the readout; default: that itself.

        Raises `ValueError` if L does not act on it.
        """
        return of

    def over_time(self, ts: Float[Array, " T"]) -> Any:
        """What acts over the save times (T,): a matrix (T, T), factors (T,), or `None`, the default, if nothing does."""
        return None

    def at_frequency(self, omega: float, clock: AbstractClock, kernel: Callable[[float], float], forced: float) -> float:
        """The largest eigenvalue of L K(w) L^H at a fixed point, for [`frequency_signature`][].

        **Arguments:** `omega`: w, in rad per unit time. `clock`: of the model, whose `difference(w)` is |d/dt|. `kernel`:
        w -> the largest eigenvalue of K(w). `forced`: that of F F^T, F = df/dtheta. Operators that are a symbol s(w)
        return `kernel(omega) * abs(s) ** 2`.

        Raises `ValueError` unless a subclass defines it.
        """
        raise ValueError(f"loss_operator {self.name} says nothing of frequencies: give it a method at_frequency")
