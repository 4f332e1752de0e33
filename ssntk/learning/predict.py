"""What training will do while the kernel stands still: the loss curve, the largest stable rate, the stall; and a check of
whether it does stand still."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import NumericalError, as_array, as_count, as_scalar
from ssntk.kernel.preconditioner import adam_state, aligned
from ssntk.kernel.replay import saved_states
from ssntk.kernel.rows import Rows, rows_of
from ssntk.kernel.spectrum import Spectrum
from ssntk.learning.drift import Drift, Seen, drift, seen
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import get, put

# The kernel's relative change over the predicted training up to which a prediction counts as lazy: steps to a tolerance were
# then right to 5 % on random networks (tests/learning/test_predict.py).
LAZY = 0.03
# How often a number of steps is doubled in search of one that is enough: 1.6e60 are as good as none.
DOUBLINGS = 200


@dataclasses.dataclass(frozen=True)
class LinearisedTraining:
    """Training as the kernel at its start predicts it, for the loss `mean(residual^2) / 2`.

    - `steps` (N + 1,), from 0, and `loss` (N + 1,) there.
    - `learning_rate`, and `max_learning_rate`: what is predicted to be stable lies below it.
    - `spectrum`: of the kernel of that loss, `J D^-1 J^T / rows` (D where there is a preconditioner).
    - `model`: at the predicted end. `true_loss`: what its loss really is there; NaN where it cannot be solved.
    - `drift`: of the kernel from the start to there ([`Drift`][]).
    - `lazy`: whether the kernel moves by at most 3 % on the way, so that the prediction can be relied on. `reason`: that
      in a sentence.
    """

    steps: np.ndarray
    loss: np.ndarray
    learning_rate: float
    max_learning_rate: float
    spectrum: Spectrum
    model: AbstractStateSpaceModel
    true_loss: float
    drift: Drift
    lazy: bool
    reason: str
    _modes: "_Modes"
    _first: Seen
    _rows: Callable[[Any], tuple[Rows, np.ndarray, np.ndarray]]

    def steps_to(self, tol: Any) -> float:
        """The first step at which the predicted loss is at most `tol`, in (0, 1), times that at the start; infinite where it
        never is. It may lie beyond `steps`."""
        share = float(as_scalar(tol, "tol", positive=True))
        if share >= 1:
            raise ValueError(f"tol must lie between 0 and 1, got {share:g}")
        below = np.flatnonzero(self.loss <= share * self.loss[0])
        return float(self.steps[below[0]]) if below.size else self._modes.steps_until(share * self.loss[0])

    def drift_to(self, model: AbstractStateSpaceModel) -> Drift:
        """How far the kernel has moved from the start of this prediction to `model`, which was trained in the meantime.

        Raises `ValueError` where it is another kind of model, `NumericalError` where it cannot be solved.
        """
        if jax.tree.structure(model) != jax.tree.structure(self.model):
            raise ValueError(f"model must be a {type(self.model).__name__} as it was at the start of the prediction")
        return drift(self._first, seen(self._rows(model)[1]))


def linearised_training(
    model: AbstractStateSpaceModel,
    probe: Probe,
    targets: Any,
    learning_rate: Any,
    steps: Any,
    *,
    of: str = "readout",
    momentum: Any = None,
    preconditioner: Any = None,
    wrt: Callable[[Any], PyTree] | None = None,
    weights: Any = None,
    integrator: Integrator | None = None,
    method: str = "auto",
) -> LinearisedTraining:
    """The loss over training as the kernel of `model` predicts it, were that kernel not to move (Jacot, Gabriel and Hongler,
    2018; Lee et al., 2019), and whether it does.

    The loss is `mean(residual^2) / 2` over all observed rows, weighted by `weights` where they are given. With full-batch
    gradient descent each eigenmode of the kernel falls as `(1 - eta lambda)^k`. For the mean squared error itself, without
    the half, give twice the learning rate.

    **Arguments:**

    - `targets`: (B, T, m), what is wanted of the readout (of the state with `of="state"`) at the save times. The
      outputs of a map, as of `nn.RNN`, with [`Probe.steps`][]: one fewer.
    - `learning_rate`: eta > 0. `steps`: how many steps, at least 1; the whole is one singular value decomposition of
      J (rows, p) and a small loop.
    - `momentum`: mu in [0, 1) of `optax.sgd(eta, momentum=mu)`; with a state of Adam its b1, default 0.9.
    - `preconditioner`: (p,) positive numbers by which the gradient is divided, or a state of `optax.adam`: then training
      goes on as Adam does from there with its second moments held still, first moments and their bias correction included.
    - `of`, `wrt`, `weights`, `integrator`, `method`: as in [`ntk`][]; a masked row counts nowhere.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where the solver fails or J vanishes.
    """
    count = as_count(steps, "steps")
    rate = float(as_scalar(learning_rate, "learning_rate", positive=True))
    state = None if preconditioner is None else adam_state(preconditioner)
    decay = (0.0 if state is None else 0.9) if momentum is None else float(as_scalar(momentum, "momentum"))
    if not 0 <= decay < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {decay:g}")

    def rows(model: Any) -> tuple[Rows, np.ndarray, np.ndarray]:
        """The rows of the loss as they are seen from `model`: themselves, J (rows, p) and the residual (rows,)."""
        asked = {"of": of, "wrt": wrt, "weights": weights, "preconditioner": preconditioner, "integrator": integrator}
        found = rows_of(model, probe, **asked)
        replay = found.replay
        wanted = as_array(replay.probe.aligned(as_array(targets, "targets")), "targets", replay.shape[:3])
        states = saved_states(replay.tracks)
        outputs = states if of == "state" else jax.vmap(jax.vmap(model.readout))(states)
        residual = found.on_rows(replay.probe.observed((outputs - wanted.astype(outputs.dtype))[..., None]))
        total = jnp.sum(jnp.square(found.on_rows(replay.probe.observed(jnp.ones_like(residual)))))
        if not float(total) > 0:
            raise ValueError("probe.mask and weights must leave something to be observed")
        scale = float(total) ** -0.5
        return found, np.asarray(found.matrix(method), float) * scale, np.asarray(residual, float).ravel() * scale

    observed, jacobian, residual = rows(model)
    first = seen(jacobian)
    try:
        left, sizes, right = scipy.linalg.svd(jacobian, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise NumericalError(f"the singular values of the Jacobian did not converge: {error}") from error
    if not sizes[0] > 0:
        raise NumericalError("the Jacobian is zero: nothing that is observed depends on theta, and nothing is learned")
    floor = (max(jacobian.shape) * np.finfo(np.asarray(observed.replay.probe.ts).dtype).eps) ** 2
    surplus = np.zeros(max(len(jacobian) - len(sizes), 0))
    dtype = observed.replay.probe.ts.dtype
    spectrum = Spectrum(np.append(sizes**2, surplus).astype(dtype), float(floor), left.astype(dtype), surplus.size)

    # In the coordinates phi = sqrt(D) theta the descent is plain.
    at = observed.replay.at
    over = np.ones(right.shape[1]) if observed.over_theta is None else np.asarray(observed.over_theta, float)
    velocity = np.zeros(right.shape[1])
    if state is not None:
        velocity = np.asarray(aligned(state.mu, model, at), float) * over
    weight = 1.0 if state is None else 1 - decay
    moves = _Modes(
        sizes, left.T @ residual, right @ velocity, rate, decay, weight, None if state is None else int(state.count)
    )
    outside = max(float(residual @ residual - moves.error @ moves.error), 0.0)
    loss = moves.run(count, outside)
    # What Adam's first moments hold outside of the rows moves theta, and nothing that is observed.
    still = velocity - right.T @ (right @ velocity)
    change = over * (right.T @ moves.moved - rate * moves.drifted * still)
    limit = 2 * (1 + decay) / (weight * float(sizes[0]) ** 2)
    where = _moved(model, at, change)
    true_loss, moved = np.nan, Drift(np.inf, np.nan)
    if np.isfinite(change).all():
        try:
            _, there, left_over = rows(where)
            true_loss, moved = float(left_over @ left_over) / 2, drift(first, seen(there))
        except NumericalError:
            pass
    lazy = moved.relative_change <= LAZY
    return LinearisedTraining(
        steps=np.arange(count + 1),
        loss=loss,
        learning_rate=rate,
        max_learning_rate=limit,
        spectrum=spectrum,
        model=where,
        true_loss=true_loss,
        drift=moved,
        lazy=lazy,
        reason=_reason(rate, limit, moved, true_loss, float(loss[-1])),
        _modes=moves,
        _first=first,
        _rows=rows,
    )


def _moved(model: AbstractStateSpaceModel, at: tuple[int, ...], change: np.ndarray) -> Any:
    """`model` with `change` (p,) added to the leaves of theta."""
    leaves = get(model, at)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts: list[Array] = [
        leaf + jax.device_put(part.reshape(leaf.shape).astype(leaf.dtype))
        for leaf, part in zip(leaves, np.split(change, ends[:-1]), strict=True)
    ]
    return put(model, at, parts)


def _reason(rate: float, limit: float, moved: Drift, true_loss: float, loss: float) -> str:
    if rate >= limit:
        return f"Diverges: the learning rate {rate:.3g} exceeds the largest stable one, {limit:.3g}, already at the start."
    if not np.isfinite(true_loss):
        return "Not lazy: the network at the predicted end cannot be solved; predict fewer steps at a time."
    end = f"the kernel moves by {moved.relative_change:.2g} of itself (alignment {moved.alignment:.3f})"
    losses = f"the loss at the predicted end is {true_loss:.3g}, predicted {loss:.3g}"
    if moved.relative_change <= LAZY:
        return f"Lazy: {end} on the way to the predicted end; {losses}."
    return (
        f"Not lazy: {end} on the way to the predicted end, so that this prediction cannot be relied on; {losses}. "
        "Predict fewer steps."
    )


class _Power(NamedTuple):
    """So many steps of each mode, as a matrix (k, 2, 2), and what it is beyond the identity: of a slow mode the identity
    alone would be left of the sum."""

    whole: np.ndarray
    change: np.ndarray

    @staticmethod
    def of(change: np.ndarray) -> "_Power":
        return _Power(np.eye(2) + change, change)

    def then(self, other: "_Power") -> "_Power":
        """The steps of both."""
        change = self.change + other.change + other.change @ self.change
        slow = np.abs(change[:, :1, :1]) < 0.5
        return _Power(np.where(slow, np.eye(2) + change, other.whole @ self.whole), change)


class _Modes:
    """The errors along each eigenvector under descent with a momentum.

    Along each the velocity v, the error e and the way a obey `v <- mu v + w s e; e <- e - eta s v; a <- a - eta v`, where
    Adam divides v by `1 - mu^n` at its n-th step.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        error: np.ndarray,
        velocity: np.ndarray,
        rate: float,
        decay: float,
        weight: float,
        count: int | None,
    ):
        self.sizes, self.error, self.velocity = sizes, error, velocity
        self.rate, self.decay, self.weight, self.count = rate, decay, weight, count
        self.moved, self.drifted, self.outside, self.done = np.zeros_like(sizes), 0.0, 0.0, 0

    def run(self, steps: int, outside: float) -> np.ndarray:
        """The loss at each of these steps (steps + 1,); `outside` is the square of what no mode can reach."""
        self.outside = outside
        losses = np.empty(steps + 1)
        losses[0] = (self.error @ self.error + outside) / 2
        fading = 1.0
        # What diverges becomes infinite, as it should.
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(1, steps + 1):
                self.velocity = self.decay * self.velocity + self.weight * self.sizes * self.error
                fading *= self.decay
                share = 1.0 if self.count is None else 1 / (1 - self.decay ** (self.count + k))
                self.error = self.error - self.rate * share * self.sizes * self.velocity
                self.moved = self.moved - self.rate * share * self.velocity
                self.drifted += fading * share
                losses[k] = (self.error @ self.error + outside) / 2
        losses[np.isnan(losses)] = np.inf
        self.done = steps
        return losses

    def steps_until(self, loss: float) -> float:
        """The step, beyond those that were run, from which on the loss is at most this; infinite where it never is."""
        if self.outside / 2 >= loss or not np.isfinite(self.error).all():
            return np.inf
        # One step of (error, velocity) of each mode, without the bias correction, which has faded.
        push, pull = self.rate * self.sizes, self.weight * self.sizes
        change = np.array([[-push * pull, -push * self.decay], [pull, np.full_like(push, self.decay - 1)]])
        step = _Power.of(change.transpose(2, 0, 1))
        now = np.stack([self.error, self.velocity], axis=1)[:, :, None]

        def after(power: _Power) -> float:
            error = (power.whole @ now)[:, 0, 0]
            return float(error @ error + self.outside) / 2

        # Doubled until the loss is low enough, then halved down to the step. What diverges becomes infinite, as it should.
        with np.errstate(over="ignore", invalid="ignore"):
            powers = [step]
            while not after(powers[-1]) <= loss:
                if len(powers) == DOUBLINGS or not np.isfinite(powers[-1].whole).all():
                    return np.inf
                powers.append(powers[-1].then(powers[-1]))
            total, count = _Power.of(0 * step.change), 0
            for exponent in reversed(range(len(powers) - 1)):
                further = total.then(powers[exponent])
                if after(further) > loss:
                    total, count = further, count + 2**exponent
        return float(self.done + count + 1)
