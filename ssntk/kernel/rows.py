"""The rows R = sqrt(weight) L J D^(-1/2), whose inner products are the kernel R R^T.

`asked_of` checks the arguments and solves nothing. It returns a `Checked`, which knows the sizes. Its `recorded` solves.
"""

import math
from typing import Any, NamedTuple, TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.metric import as_metric, check_states
from ssntk.dynamics.probe import FittedProbe, Probe
from ssntk.errors import as_array, as_choice, as_instance, is_traced, traceable
from ssntk.kernel.jacobian import jacobian_of
from ssntk.kernel.observe.base import AbstractLossOperator, AbstractObservation
from ssntk.kernel.observe.observations import observation_of
from ssntk.kernel.preconditioner import diagonal
from ssntk.kernel.replay import Replay, check_room, record
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.theta import Theta
from ssntk.nouns import AnyArray, Lens


class Asked(TypedDict, total=False):
    """The keyword arguments that every kernel takes, as [`ntk`][] describes them."""

    of: str
    wrt: Lens | None
    weights: object
    loss_operator: object
    preconditioner: PyTree
    integrator: Integrator | None
    scale: object


class Rows(eqx.Module):
    """A recorded solve, with the factors that act on its Jacobian.

    sqrt(weight) and the loss operator L act on the time axis, D^(-1/2) on theta, and the inverse of the scale on the states.
    """

    replay: Replay
    over_time: Float[Array, "T T"] | Float[Array, " T"] | None
    over_theta: Float[Array, " p"] | None
    over_state: Float[Array, " m"] | None = None
    # The name of the loss in messages.
    loss: str = eqx.field(static=True, default="plain")

    @property
    def mixes_times(self) -> bool:
        """Whether a row of the kernel combines several save times."""
        return self.over_time is not None and self.over_time.ndim == 2

    def matrix(self, method: str = "auto", first: int = 0, count: int | None = None) -> Float[Array, "rows p"]:
        """sqrt(weight) L J D^(-1/2) (rows, p), with rows (b, t, i) in C order.

        If `count` is given: the rows of `count` inputs, from the input `first` on.
        """
        jacobian = self.on_rows(jacobian_of(self.replay, method, first, count))
        if self.over_theta is not None:
            jacobian = jacobian * self.over_theta[None, None, None]
        return jacobian.reshape(-1, jacobian.shape[-1])

    def on_rows(self, rows: Float[Array, "B T m k"], transpose: bool = False) -> Float[Array, "B T m k"]:
        """Apply to `rows` what acts on the time axis and on the states, or its transpose."""
        if self.over_state is not None:
            rows = rows * self.over_state[None, None, :, None]
        return self.on_times(rows, transpose)

    def on_times(self, rows: Float[Array, "B T m k"], transpose: bool = False) -> Float[Array, "B T m k"]:
        """Apply to `rows` what acts on the time axis, or its transpose."""
        if self.over_time is None:
            return rows
        if self.over_time.ndim == 1:
            return rows * self.over_time[None, :, None, None]
        return jnp.einsum("st,btmk->bsmk", self.over_time.T if transpose else self.over_time, rows)


class Checked(NamedTuple):
    """The request for a kernel, after its arguments were checked and before anything is solved."""

    theta: Theta
    probe: FittedProbe
    observation: AbstractObservation
    over_time: Array | None
    over_theta: Array | None
    over_state: Array | None
    integrator: Integrator | None
    loss: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the Jacobian, (B, T, rows, p)."""
        return self.probe.n_batch, self.probe.ts.shape[0], self.observation.rows(self.theta.model), self.theta.size

    def check_jacobian(self) -> None:
        """Raise `ValueError` if the Jacobian does not fit into this machine."""
        check_room(math.prod(self.shape) * np.dtype(self.probe.ts.dtype).itemsize, "Jacobian")

    def check_kernel(self, rows: int | None = None) -> None:
        """Raise `ValueError` if a kernel of so many rows, default all, does not fit into this machine."""
        rows = math.prod(self.shape[:3]) if rows is None else rows
        check_room(rows**2 * np.dtype(self.probe.ts.dtype).itemsize, "kernel")

    def recorded(self) -> Rows:
        """Solve every input. Raises `ValueError` for an integrator that does not fit, `NumericalError` if a solve fails."""
        replay = record(self.theta, self.probe, self.integrator, self.observation)
        return Rows(replay, self.over_time, self.over_theta, self.over_state, self.loss)


def recorded_rows(model: object, probe: object, **asked: Unpack[Asked]) -> Rows:
    """Check the arguments, which are as in `ntk`, and solve every input. J must fit into this machine."""
    checked = asked_of(model, probe, **asked)
    checked.check_jacobian()
    return checked.recorded()


def asked_of(
    model: Any,
    probe: object,
    *,
    of: str = "state",
    wrt: Lens | None = None,
    weights: object = None,
    loss_operator: Any = None,
    preconditioner: PyTree = None,
    integrator: Integrator | None = None,
    scale: object = None,
) -> Checked:
    """Check the arguments, which are as in `ntk`. Raises `ValueError`, which names the argument that is wrong."""
    as_choice(of, "of", ("state", "readout"))
    check_model(model)
    check_states(scale, of)
    metric = as_metric(scale, model.n_state)
    theta = Theta.of(model, wrt, of)
    observation = observation_of(of, loss_operator)
    over_theta = diagonal(preconditioner, theta)
    fitted = as_instance(probe, "probe", Probe).fit(model)
    ts = fitted.ts
    weight = time_weights(ts, weights)
    root = None if weight is None else jnp.sqrt(weight).astype(ts.dtype)
    over_time = _over_time(loss_operator, fitted, root)
    if loss_operator is not None:
        _check_look(observation, theta.model, ts)
    if metric is not None and observation.rows(model) != model.n_state:
        raise ValueError(
            f"scale must be None with a loss_operator that observes {observation.rows(model)} numbers of {model.n_state} "
            "states: it is the metric of the states"
        )
    return Checked(
        theta=theta,
        probe=fitted,
        observation=observation,
        over_time=over_time,
        over_theta=None if over_theta is None else (over_theta**-0.5).astype(ts.dtype),
        over_state=None if metric is None else jax.device_put((1 / metric).astype(ts.dtype)),
        integrator=integrator,
        loss="plain" if loss_operator is None else loss_operator.name,
    )


def _check_look(observation: AbstractObservation, model: AbstractStateSpaceModel, ts: Array) -> None:
    """Raise `ValueError` unless an observation returns as many numbers as its `rows` says."""
    sizes = ((), (model.n_state,), (model.n_input,))
    with traceable("loss_operator.observation"):
        given = [jax.ShapeDtypeStruct(shape, ts.dtype) for shape in sizes]
        seen = jax.eval_shape(lambda t, x, u: observation.look(model, t, x, u), *given)
    wanted, got = (observation.rows(model),), getattr(seen, "shape", type(seen).__name__)
    if got != wanted or not jnp.issubdtype(seen.dtype, jnp.floating):
        raise ValueError(f"loss_operator must observe real numbers of shape {wanted}, as its rows say, got {got}")


def _over_time(loss_operator: AbstractLossOperator | None, probe: FittedProbe, root: Array | None) -> Array | None:
    """What acts on the time axis: first the loss operator, then the square roots of the weights (T,)."""
    given = None if loss_operator is None else loss_operator.over_time(probe.ts)
    if loss_operator is None or given is None:
        return root
    acts, count = as_array(given, "loss_operator.over_time(ts)"), probe.ts.shape[0]
    if acts.shape not in ((count,), (count, count)):
        raise ValueError(f"loss_operator.over_time(ts) must have shape ({count},) or ({count}, {count}), got {acts.shape}")
    if acts.ndim == 2 and probe.mask is not None:
        raise ValueError(f"probe.mask must be None for a {loss_operator.name} loss, which needs every time")
    acts = acts.astype(probe.ts.dtype)
    if root is None:
        return acts
    return root[:, None] * acts if acts.ndim == 2 else root * acts


def time_weights(ts: AnyArray, weights: object) -> Float[Array, " T"] | None:
    """The weight of each save time (T,), from the argument `weights` of [`ntk`][]; `None` if there are no weights."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "trapezoid":
            raise ValueError(f"weights must be None, 'trapezoid' or an array (T,), got {weights!r}")
        # If the times are known, the weights are computed on the host, which compiles nothing.
        known = not is_traced(ts)
        here: Any = np if known else jnp
        step = here.diff(np.asarray(ts) if known else ts)
        each = here.concatenate([step[:1], step[:-1] + step[1:], step[-1:]]) / 2
        return jax.device_put(each) if known else each
    weights = as_array(weights, "weights", (ts.shape[0],))
    if bool((np.asarray(weights) < 0).any()):
        raise ValueError("weights must not be negative")
    return weights
