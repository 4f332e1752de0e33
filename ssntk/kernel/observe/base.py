"""Observations of a trajectory, and loss operators, which act on them."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock
from ssntk.nouns import AnyArray, Real


class AbstractObservation(eqx.Module):
    """An observation at one save time: a function of the parameters, the time, the state and the input.

    To make your own, define `rows` and `look` in a subclass. The kernel differentiates `look` with respect to the state and
    to theta, so `look` may use the model. If a field is an array, its values may change without a new compilation.

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
        """Whether the state itself is observed. The rows are then the sensitivities of the state."""
        return False

    @abc.abstractmethod
    def rows(self, model: AbstractStateSpaceModel) -> int:
        """The number m of rows at each save time."""

    @abc.abstractmethod
    def look(
        self, model: AbstractStateSpaceModel, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " m"]:
        """What is observed (m,) of the state x (n,) at time t under the input u (d,).

        JAX traces this function, so write it with `jax.numpy`.
        """


class AbstractLossOperator(eqx.Module):
    """A linear operator L of a loss |L (y - target)|^2, whose kernel is L K L^T.

    An operator does two things: it observes something in place of the state or the readout (`observation`), and it
    multiplies the result by a matrix over the save times (`over_time`). To make your own, define any of `observation`,
    `over_time` and `at_frequency` in a subclass. Pass an instance as `loss_operator` to [`ntk`][], [`ntk_spectrum`][],
    [`ntk_operator`][] or [`frequency_signature`][].

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
        """What is observed if the loss is on `of`, the state or the readout. Default: `of` itself.

        Raises `ValueError` if L does not act on it.
        """
        return of

    def over_time(self, ts: Float[Array, " T"]) -> AnyArray | None:
        """What acts over the save times (T,): a matrix (T, T), or factors (T,), or `None` if nothing does. Default:
        `None`."""
        return None

    def at_frequency(self, omega: float, clock: AbstractClock, kernel: Callable[[float], float], forced: float) -> float:
        """The largest eigenvalue of L K(w) L^H at a fixed point, for [`frequency_signature`][].

        If L multiplies the frequency w by a number s(w), return `kernel(omega) * abs(s) ** 2`.

        **Arguments:**

        - `omega`: w [radians / time].
        - `clock`: the clock of the model. `clock.difference(w)` is the size of d/dt at w.
        - `kernel`: a function from w to the largest eigenvalue of K(w).
        - `forced`: the largest eigenvalue of F F^T, with F = df/dtheta (n, p).

        Raises `ValueError` unless a subclass defines it.
        """
        raise ValueError(f"loss_operator {self.name} says nothing of frequencies: give it a method at_frequency")
