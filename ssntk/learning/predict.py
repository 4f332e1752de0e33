"""The course of training, predicted from a kernel that does not move: the loss curve, the largest stable rate and the stall.
A check says whether the kernel really does not move."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import NumericalError, as_count, as_scalar
from ssntk.kernel.rows import Asked, Rows, recorded_rows
from ssntk.kernel.spectrum import Spectrum
from ssntk.learning.drift import Drift, Seen, drift, seen
from ssntk.learning.losses import as_loss, loss_rows
from ssntk.learning.optimiser import Rule, rule_of
from ssntk.learning.unseen import Descended, Unseen
from ssntk.models.as_model import as_model
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Theta
from ssntk.nouns import DType, Lens
from ssntk.results import Holder

# Training counts as lazy if the kernel changes by at most this share over it. The predicted number of steps to a tolerance
# was then right to 5 % on random networks (tests/learning/test_predict.py).
LAZY = 0.03
# The loss at the predicted end may differ from the prediction by this share of the loss, and of how far the loss falls.
AGREES = 0.05
# How often a number of steps is doubled in search of one that suffices. If 1.6e60 do not, no number does in practice.
DOUBLINGS = 200


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinearisedTraining(Holder):
    """Training as the kernel at its start predicts it.

    - `steps` (N + 1,): from 0. `loss` (N + 1,): the predicted loss at these steps.
    - `learning_rate`: the rate. `max_learning_rate`: rates below it are predicted to be stable.
    - `spectrum`: of the kernel of that loss. For `mean(residual^2) / 2` this is `J D^-1 J^T / rows`, with D the
      preconditioner if there is one. It is multiplied by 2 for `"mse"`, and by 2 rows for `"sum"`.
    - `model`: the model at the predicted end. `true_loss`: its actual loss; NaN if it cannot be solved.
    - `drift`: how much the kernel moves from the start to the predicted end ([`Drift`][]).
    - `lazy`: whether the kernel moves by at most 3 % on the way, so that the prediction can be relied on. `reason`: the same
      in a sentence.
    - `test_prediction` (B', T', m): the outputs at the probe `test` at the predicted end; `None` without it. Not finite if
      training diverges beyond the range of floats.
    - `test_covariance` (R, R), R = B' T' m, with rows (b, t, i) in C order [outputs squared]: the covariance of these
      predictions over random initialisations; `None` without `test`.

    **Example:**

    ```python
    model = ssntk.CTRNN(3, 1, 1, key=jax.random.key(0))
    probe = ssntk.Probe(np.linspace(0.0, 2.0, 5), np.ones((1, 1)))
    training = ssntk.linearised_training(model, probe, np.ones((1, 5, 1)), 0.01, steps=5)
    print(training.steps, bool(training.loss[-1] < training.loss[0]))  # [0 1 2 3 4 5] True
    ```
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
    _question: "_Question | None"
    test_prediction: np.ndarray | None = None
    test_covariance: np.ndarray | None = None
    # It may hold the user's own functions.
    _transient = ("_question",)

    def _headline(self) -> str:
        return f"LinearisedTraining: {self.reason}"

    def steps_to(self, tol: Any) -> float:
        """The first step at which the predicted loss is at most `tol` times that at the start, with `tol` in (0, 1).

        It is infinite if there is none. It may lie beyond `steps`.
        """
        share = float(as_scalar(tol, "tol", positive=True))
        if share >= 1:
            raise ValueError(f"tol must lie between 0 and 1, got {share:g}")
        below = np.flatnonzero(self.loss <= share * self.loss[0])
        return float(self.steps[below[0]]) if below.size else self._modes.steps_until(share * self.loss[0])

    def drift_to(self, model: AbstractStateSpaceModel) -> Drift:
        """How far the kernel has moved from the start of this prediction to `model`, which was trained in the meantime.

        Raises `ValueError` if it is another kind of model, `NumericalError` if it cannot be solved.
        """
        if jax.tree.structure(model) != jax.tree.structure(self.model):
            raise ValueError(f"model must be a {type(self.model).__name__} as it was at the start of the prediction")
        if self._question is None:
            raise ValueError("this prediction was read back without its probe: make it again for drift_to")
        return drift(self._first, seen(self._question.rows(model).jacobian))


class _Answer(NamedTuple):
    """The rows of a loss as they are seen from one model: themselves, J (rows, p) and the residual (rows,)."""

    rows: Rows
    jacobian: np.ndarray
    residual: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Question:
    """What is learned: the probe, the targets, the loss, and the keywords of the kernel."""

    probe: object
    targets: object
    loss: str | Callable[..., Array]
    method: str
    asked: Asked

    def rows(self, model: AbstractStateSpaceModel) -> _Answer:
        """The rows of the loss as they are seen from `model`."""
        rows = recorded_rows(model, self.probe, **self.asked)
        of = self.asked.get("of", "state")
        return _Answer(rows, *loss_rows(model, rows, of, self.loss, self.targets, self.method))


def linearised_training(
    model: Any,
    probe: Probe,
    targets: Any,
    learning_rate: Any,
    steps: Any,
    *,
    of: str = "readout",
    loss: Any = "half-mse",
    momentum: Any = None,
    preconditioner: Any = None,
    optimiser: Any = None,
    wrt: Lens | None = None,
    weights: Any = None,
    integrator: Integrator | None = None,
    method: str = "auto",
    test: Any = None,
    init_std: Any = None,
) -> LinearisedTraining:
    """Predict the loss over training from the kernel of `model`, and check whether the prediction can be relied on.

    The prediction takes the kernel as fixed (Jacot, Gabriel and Hongler, 2018; Lee et al., 2019). With full-batch gradient
    descent, the error along each eigenvector of the kernel then falls as `(1 - eta lambda)^k` over the steps k.

    **Arguments:**

    - `model`: also a PyTorch module or state_dict ([`from_torch`][]).
    - `targets` (B, T, m): the targets of the readout at the save times; with `of="state"`, those of the state. For maps such
      as `nn.RNN` with [`Probe.steps`][], there are targets for the outputs, one fewer than the save times.
    - `learning_rate`: eta > 0; `None` for that of `optimiser`.
    - `steps`: how many steps, at least 1. The cost is one singular value decomposition of J (rows, p) and a small loop.
    - `loss`: `"half-mse"` is `mean(residual^2) / 2`; `"mse"` is `mean(residual^2)`, as in `torch.nn.MSELoss()`; `"sum"` is
      `sum(residual^2)`, as with `reduction="sum"`. The mean is over all B T m entries of the outputs except masked ones. It
      includes the row at `ts[0]`, unless that is masked. `weights` weight the entries.
      You may also pass a traceable function of the outputs (B, T, m) and the targets, or of the outputs alone. It returns an
      array r of residuals, and the loss is `mean(r^2) / 2`. With a mask or weights, r must have the shape of the outputs.
    - `momentum`: mu in [0, 1), as in `optax.sgd(eta, momentum=mu)`; with a state of Adam, its b1, default 0.9.
    - `preconditioner`: (p,) positive numbers by which the gradient is divided, or a state of `optax.adam`. With the latter,
      training continues as Adam does from there, including its first moments and their bias correction, but its second
      moments are held still.
    - `optimiser`: a state of `optax.sgd` or `optax.adam`, or of a chain with one of them, over the model or over theta; Adam
      must have made a step. Or a `torch.optim` SGD, Adam or AdamW that moves theta. Its learning rate, momentum, decays and
      moments are used if it holds them; a state of optax holds a rate only with `optax.inject_hyperparams`. A tensor of
      torch belongs to the leaf of theta that it equals, or is nearest to. Weight decay, clipping and schedules are ignored.
    - `of`, `wrt`, `weights`, `integrator`, `method`: as in [`ntk`][]. A masked row counts nowhere.
    - `test`: a [`Probe`][] that is not trained on. The result then has `test_prediction`, at all of its save times, whatever
      its mask. For gradient descent it is `y(x') - K(x', x) K(x, x)^-1 (1 - (1 - eta K(x, x))^k) r` with the residuals r
      (Lee et al., 2019), without an inverse. `test_covariance` is that paper's covariance over random initialisations, here
      theta + z with independent normal z: the kernel of the outputs at the start is that of this network. What training does
      not reach keeps its variance. After many steps of descent with one `init_std` it is the posterior covariance of a
      Gaussian process, whose prior covariance is `init_std^2 K`, given targets without noise (Matthews et al.,
      *Sample-then-optimise*, 2017). It is no estimate of the error of this network on its task.
    - `init_std`: the standard deviation of z [theta]: a number, or (p,) numbers, not negative; default 1. The covariance is
      proportional to its square.

    Raises `ValueError` for arguments that do not fit, `NumericalError` if the solver fails or J vanishes.

    **Example:**
    ```python
    model = ssntk.CTRNN(n_state=8, n_input=1, n_output=2, key=jax.random.key(0))
    probe = ssntk.Probe(np.linspace(0.0, 4.0, 9), np.ones((1, 1)))
    training = ssntk.linearised_training(model, probe, np.ones((1, 9, 2)), 0.1, steps=20, loss="mse", test=probe)
    print(round(float(training.max_learning_rate), 3), training.lazy)  # 0.446 False
    print(training.test_prediction.shape, training.test_covariance.shape)  # (1, 9, 2) (18, 18)
    ```
    """
    model = as_model(model)
    count, loss = as_count(steps, "steps"), as_loss(loss)
    rule = _usable(rule_of(Theta.of(model, wrt, of), learning_rate, momentum, preconditioner, optimiser))
    asked: Asked = {
        "of": of,
        "wrt": wrt,
        "weights": weights,
        "preconditioner": rule.diagonal,
        "integrator": integrator,
    }
    unseen = Unseen.of(model, test, init_std, of=of, wrt=wrt, integrator=integrator)
    question = _Question(probe, targets, loss, method, asked)
    answer = question.rows(model)
    first, parts = seen(answer.jacobian), _Singular.of(answer.jacobian)
    descent = _descended(answer, parts, rule, count)
    limit, losses = rule.limit(float(parts.sizes[0]) ** 2), descent.losses
    where = _moved(answer.rows.replay.theta, descent.change)
    true_loss, moved = _at_end(question, where, first) if np.isfinite(descent.change).all() else _UNSOLVED
    lazy = moved.relative_change <= LAZY
    beyond = (None, None) if unseen is None else unseen.after(of, method, _reached(parts, rule, count, descent))
    return LinearisedTraining(
        steps=np.arange(count + 1),
        loss=losses,
        learning_rate=rule.rate,
        max_learning_rate=limit,
        spectrum=parts.spectrum(answer.rows.replay.probe.ts.dtype),
        model=where,
        true_loss=true_loss,
        drift=moved,
        lazy=lazy,
        reason=_reason(rule.rate, limit, moved, true_loss, losses),
        _modes=descent.modes,
        _first=first,
        _question=question,
        test_prediction=beyond[0],
        test_covariance=beyond[1],
    )


# The loss and the drift at a predicted end that cannot be solved.
_UNSOLVED = np.nan, Drift(np.inf, np.nan)


def _at_end(question: _Question, where: AbstractStateSpaceModel, first: Seen) -> tuple[float, Drift]:
    """The loss of the model at the predicted end, and how far its kernel has moved."""
    try:
        there = question.rows(where)
    except NumericalError:
        return _UNSOLVED
    return float(there.residual @ there.residual) / 2, drift(first, seen(there.jacobian))


def _usable(rule: Rule) -> Rule:
    """`rule`, if it moves theta. Raises `ValueError` otherwise."""
    if not rule.known:
        raise ValueError("optimiser must be a state of Adam after at least one step")
    if np.isnan(rule.rate):
        raise ValueError("learning_rate must be a number where no optimiser holds one, got None")
    if not rule.rate > 0:
        raise ValueError("optimiser must have positive learning rates, got zero: nothing would move")
    return rule


class _Singular(NamedTuple):
    """J = left diag(sizes) right: (rows, k), (k,) and (k, p)."""

    left: np.ndarray
    sizes: np.ndarray
    right: np.ndarray

    @staticmethod
    def of(jacobian: np.ndarray) -> "_Singular":
        try:
            found = scipy.linalg.svd(jacobian, full_matrices=False, check_finite=False)
        except np.linalg.LinAlgError as error:
            raise NumericalError(f"the singular values of the Jacobian did not converge: {error}") from error
        parts = _Singular(*found)
        if not parts.sizes[0] > 0:
            raise NumericalError("the Jacobian is zero: nothing that is observed depends on theta, and nothing is learned")
        return parts

    def spectrum(self, dtype: DType) -> Spectrum:
        """The spectrum of J J^T, in the precision in which the model was solved."""
        count, surplus = len(self.left), max(len(self.left) - len(self.sizes), 0)
        floor = (max(count, self.right.shape[1]) * np.finfo(dtype).eps) ** 2
        values = np.append(self.sizes**2, np.zeros(surplus))
        return Spectrum(values.astype(dtype), float(floor), self.left.astype(dtype), surplus)


class _Descent(NamedTuple):
    """The modes after the descent, the loss at each step, how far theta has moved (p,), and D^(-1/2) (p,)."""

    modes: "_Modes"
    losses: np.ndarray
    change: np.ndarray
    over: np.ndarray


def _descended(answer: _Answer, parts: _Singular, rule: Rule, steps: int) -> _Descent:
    """The result of so many steps of the rule, if the kernel does not move."""
    left, sizes, right = parts
    # In the coordinates phi = sqrt(D) theta the descent is plain.
    given, residual = answer.rows.over_theta, answer.residual
    over = np.ones(right.shape[1]) if given is None else np.asarray(given, float)
    velocity = np.zeros(right.shape[1]) if rule.velocity is None else rule.velocity * over
    along = right @ velocity
    modes = _Modes(sizes, left.T @ residual, along, rule.rate, rule.momentum, rule.weight, rule.count)
    losses = modes.run(steps, max(float(residual @ residual - modes.error @ modes.error), 0.0))
    # The part of Adam's first moments outside of the rows moves theta, but nothing that is observed.
    still = velocity - right.T @ along
    return _Descent(modes, losses, over * (right.T @ modes.moved - rule.rate * modes.drifted * still), over)


def _reached(parts: _Singular, rule: Rule, steps: int, descent: _Descent) -> Descended:
    """What so many steps of the rule do to theta, and which share of an error of each mode they leave."""
    ones = np.ones_like(parts.sizes)
    # The rule is linear, so that one more unit of error in each mode is left by the same share, whatever the velocities.
    share = _Modes(parts.sizes, ones, 0 * ones, rule.rate, rule.momentum, rule.weight, rule.count)
    share.run(steps, 0.0)
    return Descended(descent.change, parts.right, share.error, descent.over)


def _moved(theta: Theta, change: np.ndarray) -> PyTree:
    """The model of theta with `change` (p,) added."""
    moves = zip(theta.arrays, theta.leaves(change), strict=True)
    return theta.put([leaf + jax.device_put(part.astype(leaf.dtype)) for leaf, part in moves])


def _reason(rate: float, limit: float, moved: Drift, true_loss: float, losses: np.ndarray) -> str:
    """Whether to rely on the prediction, and why, in plain sentences."""
    if rate >= limit:
        return f"Diverges: the learning rate {rate:.3g} exceeds the largest stable one, {limit:.3g}, already at the start."
    if not np.isfinite(true_loss):
        return "Not lazy: the network at the predicted end cannot be solved; predict fewer steps at a time."
    start, end = float(losses[0]), float(losses[-1])
    kernel = f"the kernel moves by {moved.relative_change:.2g} of itself (alignment {moved.alignment:.3f})"
    if moved.relative_change <= LAZY:
        return f"Lazy: {kernel} on the way to the predicted end; the loss there is {true_loss:.3g}, predicted {end:.3g}."
    if abs(true_loss - end) <= AGREES * min(abs(start - end), end):
        return (
            f"Not lazy: {kernel} on the way to the predicted end, more than {LAZY:g}, so that training takes more or fewer "
            f"steps than predicted. The loss at the predicted end itself is right: {true_loss:.3g}, predicted {end:.3g}. "
            "Predict fewer steps."
        )
    return (
        f"Not lazy: {kernel} on the way to the predicted end, more than {LAZY:g}, so that this prediction cannot be relied "
        f"on. The loss at the predicted end is {true_loss:.3g}, predicted {end:.3g}. Predict fewer steps."
    )


class _Power(NamedTuple):
    """A number of steps of each mode: a matrix (k, 2, 2), and its difference from the identity.

    For a slow mode the difference is kept separately, since rounding would lose it in the sum.
    """

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

    Along each eigenvector, the velocity v, the error e and the distance a obey
    `v <- mu v + w s e; e <- e - eta s v; a <- a - eta v`. Adam divides v by `1 - mu^n` at its n-th step.
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
        """The loss at each of these steps (steps + 1,). `outside` is the squared part of the residual outside all modes."""
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
        """The step, beyond those that were run, from which on the loss is at most `loss`; infinite if there is none."""
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

        # The number of steps is doubled until the loss is low enough, then found by bisection. Modes that diverge become
        # infinite, as they should.
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
