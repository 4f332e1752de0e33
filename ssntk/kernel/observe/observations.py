"""What can be observed: the state, the readout, their rates of change, and the velocity of a state that is held still."""

import jax
from jaxtyping import Array, Float

from ssntk.kernel.observe.base import AbstractLossOperator, AbstractObservation
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import Real


class State(AbstractObservation):
    """The state x (n,)."""

    @property
    def name(self) -> str:
        return "state"

    @property
    def direct(self) -> bool:
        return True

    def rows(self, model: AbstractStateSpaceModel) -> int:
        return model.n_state

    def look(
        self, model: AbstractStateSpaceModel, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " n"]:
        return x


class Readout(AbstractObservation):
    """The readout (m,) of the state."""

    @property
    def name(self) -> str:
        return "readout"

    def rows(self, model: AbstractStateSpaceModel) -> int:
        return model.n_output

    def look(
        self, model: AbstractStateSpaceModel, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " m"]:
        return model.readout(x)


class Rate(AbstractObservation):
    """The rate at which the observation `of` changes along the trajectory: its derivative along the velocity."""

    of: AbstractObservation

    @property
    def name(self) -> str:
        return f"{self.of.name} rate"

    def rows(self, model: AbstractStateSpaceModel) -> int:
        return self.of.rows(model)

    def look(
        self, model: AbstractStateSpaceModel, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " m"]:
        velocity = model.vector_field(t, x, u)
        return jax.jvp(lambda x: self.of.look(model, t, x, u), (x,), (velocity,))[1]


class StillVelocity(AbstractObservation):
    """The velocity (n,) at a state that is held still while theta moves: the residual of the equation there."""

    @property
    def name(self) -> str:
        return "residual"

    def rows(self, model: AbstractStateSpaceModel) -> int:
        return model.n_state

    def look(
        self, model: AbstractStateSpaceModel, t: Real, x: Float[Array, " n"], u: Float[Array, " d"]
    ) -> Float[Array, " n"]:
        return model.vector_field(t, jax.lax.stop_gradient(x), u)


NAMED = {"state": State(), "readout": Readout()}


def observation_of(of: str, loss_operator: object) -> AbstractObservation:
    """What is observed if `loss_operator` acts on `of`, which is "state" or "readout".

    Raises `ValueError` if it is not a loss operator.
    """
    if loss_operator is None:
        return NAMED[of]
    if not isinstance(loss_operator, AbstractLossOperator):
        raise ValueError(
            "loss_operator must be None, ssntk.TimeDerivative(), ssntk.Sobolev(s), ssntk.Residual() or an instance of a "
            f"subclass of ssntk.AbstractLossOperator, got {loss_operator!r}"
        )
    found = loss_operator.observation(NAMED[of])
    if not isinstance(found, AbstractObservation):
        raise ValueError(f"loss_operator.observation must return an ssntk.AbstractObservation, got {type(found).__name__}")
    return found
