"""The kernel that is expected of a random recurrent network, without the network."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.linalg
import scipy.special
from jaxtyping import Float

from ssntk.dynamics.integrate import Integrator, steps_of
from ssntk.dynamics.probe import FittedProbe, Probe
from ssntk.errors import NumericalError, as_choice, as_instance, as_room, outside_jit
from ssntk.infinite.gaussian import AbstractMeans, Pairs, means_of, scatter_of
from ssntk.infinite.recursion import Ensemble, Solved, solved
from ssntk.kernel.rows import time_weights
from ssntk.kernel.spectrum import Spectrum
from ssntk.models.base import check_model
from ssntk.models.ctrnn import CTRNN
from ssntk.models.maps import EulerMap
from ssntk.results import Result, short

# The longest step of the coarsest solution, divided by tau. The error of extrapolated steps was measured with it.
LONGEST = 0.4
# Steps are halved until the estimated error is at most this fraction of the largest entry, at least twice, and at most so
# many times. A result with a larger error than `REFUSED` is not returned.
WANTED, LEAST, MOST, REFUSED = 5e-3, 2, 5, 0.05
# The mean over the units of a signal may differ from zero by chance. It is refused if chance is less likely than this.
CHANCE = 1e-6
# By this fraction numbers are changed to see how the kernel responds.
RAISED = 1e-3
PARTS = ("weight", "input_weight", "bias", "readout_weight", "readout_bias")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MeanField(Result):
    """What [`mean_field`][] expects of a random network: means over its units, for n -> infinity.

    Arrays are over inputs and save times (b, t) in C order, B T in all.

    - `covariance` (B T, B T): of the argument of the activation, `(1/n) sum_i a_i a_i'` [a^2]. In the current form a is the
      state x; in the rate form it is `gain W x + U u + b`.
    - `activity` (B T, B T): of what the recurrent weights read, `(1/n) sum_i r_i r_i'`. In the current form r is
      `activation(x)`, in the rate form it is the state.
    - `kernel` (B T, B T): the neural tangent kernel of one unit, or of one output, in the parametrisation of the model. It
      is the mean over the units (outputs) i of the entries ((b, t, i), (b', t', i)) of [`ntk`][]. Masked rows are zero.
    - `error`: the numerical error, as a fraction of the largest entry of each array. It was estimated by halving steps and
      nodes.
    - `spread`: how far the kernel K of one network, averaged over its units, lies from `kernel`: an estimate of the root of
      the mean square of `|K - kernel| / |kernel|`, in Frobenius norms, over networks with the same numbers. It is
      `sqrt(2 / n)`, the scatter of a mean of n Gaussian squares, times the response of the kernel to the coupling, and to
      `E phi phi'` as far as phi is not linear. Measured, over this estimate: 0.6 to 1.4 in the current form with tanh
      (n = 32 and 128, gains 0.5 and 0.9, horizons 4 and 10 tau, with and without inputs, ten networks each), and 0.7 to
      1.3 with softplus, elu, sigmoid, sin, relu and leaky relu (n = 64, 6 to 30 networks each); but 0.9 to 3.3 in the rate
      form. For linear networks without input it is an upper bound. With `of="readout"` the scatter of the weights of the
      readout is not included.
    - `units`: n. `gain`: the effective gain, `gain sqrt(n Var(W))`, that was used.
    - `ts` (T,): the save times.

    **Example:**

    ```python
    model = ssntk.CTRNN(100, 1, 1, gain=0.5, key=jax.random.key(0))
    field = ssntk.mean_field(model, ssntk.Probe(np.linspace(0.0, 4.0, 5), np.ones((1, 1))))
    print(field.kernel.shape, field.spectrum("trapezoid").participation_ratio.round(2))  # (5, 5) 1.02
    ```
    """

    covariance: Float[np.ndarray, "rows rows"]
    activity: Float[np.ndarray, "rows rows"]
    kernel: Float[np.ndarray, "rows rows"]
    error: float
    spread: float
    units: int
    gain: float
    ts: Float[np.ndarray, " T"]

    def _headline(self) -> str:
        return (
            f"MeanField: the expected kernel of {self.units} units at the gain {short(self.gain, 4)}, "
            f"{len(self.kernel)} rows; error {self.error:.1e}, spread of one network {self.spread:.2g}"
        )

    def spectrum(self, weights: Any = None) -> Spectrum:
        """The spectrum of the expected kernel. Its floor is `error`, since smaller eigenvalues are not known.

        **Arguments:** `weights`: of the save times, as in [`ntk`][]: `None`, `"trapezoid"` or (T,).
        """
        each = time_weights(self.ts, weights)
        root = np.sqrt(np.ones(len(self.ts)) if each is None else np.asarray(each, float))
        whole = np.tile(root, len(self.kernel) // len(root))
        values, vectors = scipy.linalg.eigh(whole[:, None] * self.kernel * whole[None, :])
        floor = max(len(whole) * float(np.finfo(float).eps), self.error)
        return Spectrum(np.maximum(values[::-1], 0.0), floor, vectors[:, ::-1], 0)


@outside_jit
def mean_field(model: Any, probe: Any, *, of: Any = "state", integrator: Any = None) -> MeanField:
    """The Neural Tangent Kernel that is expected of a random [`CTRNN`][] with many units, at the inputs of a probe.

    A network whose weights are independent numbers of zero mean has, for n -> infinity, states that are Gaussian over the
    units. Their covariance at two times follows from an equation of its own (Sompolinsky, Crisanti and Sommers, 1988), and
    so does the kernel (Alemohammad et al., 2021; Yang, 2020, in discrete time). In the current form with tau = 1,

        (1 + d/dt) (1 + d/dt') Delta = g^2 E phi phi' + drive drive'
        (1 + d/dt) (1 + d/dt') Theta = g^2 n E phi phi' + u.u' + 1 + g^2 E phi'(x) phi'(x') Theta

    Of the weights only these numbers are used: n, `gain`, the sample variance of all entries of `weight`, and of the signals
    that reach a unit (the columns of `input_weight`, the sum of the biases, and the initial states) the mean products over
    the units. So a field belongs to the ensemble of random networks with these numbers, whatever the structure of `weight`
    is. Inputs, biases and initial states enter as Gaussian numbers that are independent of `weight`.

    **Arguments:**

    - `model`: a [`CTRNN`][] in either form, n >= 2, or an [`EulerMap`][] of one, of which `nn.RNN` is the case dt = 1; with
      one tau for all units and a positive gain. The gain may lie beyond 1, in chaos too.
    - `probe`: a [`Probe`][]. Its mask may differ between inputs and times, but not between units.
    - `of`: `"state"` or `"readout"`. The kernel of a readout includes the weights of the readout in theta.
    - `integrator`: for a `CTRNN`. Default `None`: continuous time. Euler steps of at most 0.4 tau are halved at least twice
      and extrapolated, until the estimated error is 0.5 % (the true one is then 0.1 to 0.3 %). Or
      `Integrator(diffrax.Euler(), dt=...)`: exactly these steps.

    The means over Gaussian pairs are closed forms for relu, leaky relu, abs, linear functions and erf. For other activations
    they are computed by the trapezoid rule, with more nodes for larger variances.

    Verified: the mean of 30 networks of 64 units agrees within two standard errors (0.5 to 15 %) for ten activations, forms
    and gains; closed forms agree to `error`.

    Raises `ValueError`, which names the argument, for other models, such as gated ones, and for weights, initial states,
    biases or input weights whose mean is not zero. Raises `NumericalError` if the derivative of the activation jumps
    elsewhere than at zero or if the activation is too steep for the nodes, if the error stays above 5 %, and if the kernel
    grows beyond all numbers.

    **Example:** without weights and inputs only the bias acts, through a leak: (1 - e^-t)^2.

    ```python
    model = ssntk.CTRNN.from_weights(np.zeros((2, 2)))
    field = ssntk.mean_field(model, ssntk.Probe([0.0, 1.0, 2.0]))
    print(field.kernel.diagonal().round(2), field.error < 5e-3)  # [0.   0.4  0.75] True
    ```
    """
    network = _network(model)
    probe = as_instance(probe, "probe", Probe)
    as_choice(of, "of", ("state", "readout"))
    if probe.mask is not None and probe.mask.ndim == 3:
        raise ValueError("probe.mask must be (T,) or (B, T): the units of a random network are alike")
    fitted = probe.fit(model)
    ensemble = _ensemble(model, network, fitted, of)
    grid = _grid(model, integrator, fitted)
    means = means_of(network.activation)
    tau = float(np.ravel(network.tau)[0])
    problem = _Problem(ensemble, means, fitted, tau)
    if grid is None:
        found, error = _extrapolated(problem)
    else:
        found = problem.on(grid)
        error = max(_difference(found, problem.rough(grid)), len(grid) * float(np.finfo(float).eps))
    kernel = found.state if of == "state" else found.output
    typical = float(np.sqrt(np.mean(np.einsum("tbtb->tb", found.covariance).clip(0))))
    scatter = scatter_of(network.activation, typical)
    spread = _spread(problem, problem.coarsest() if grid is None else grid, of, scatter)
    rows = kernel.shape[0] * kernel.shape[1]
    covariance, activity, kernel = (
        part.transpose(1, 0, 3, 2).reshape(rows, rows) for part in (found.covariance, found.activity, kernel)
    )
    if probe.mask is not None:
        seen = np.broadcast_to(np.asarray(probe.mask), (fitted.n_batch, len(fitted.ts))).ravel()
        kernel = np.where(seen[:, None] & seen[None, :], kernel, 0.0)
    gain = float(np.sqrt(ensemble.coupling))
    ts = np.asarray(fitted.ts, float)
    return MeanField(covariance, activity, kernel, error, spread, ensemble.units, gain, ts)


def _network(model: Any) -> CTRNN:
    """The CTRNN of a model; `ValueError` if there is none, or none that the theory covers."""
    check_model(model)
    network = model.model if isinstance(model, EulerMap) else model
    if not isinstance(network, CTRNN):
        raise ValueError(
            f"model must be a CTRNN, or an EulerMap of one, got {type(network).__name__}: the mean fields of gated, "
            "stacked and low-rank networks are others"
        )
    if network.n_state < 2:
        raise ValueError("model must have at least 2 units: the variance of its weights is that of a sample")
    tau = np.ravel(network.tau)
    if (tau != tau[0]).any():
        raise ValueError("model.tau must be the same for all units")
    if not float(network.gain) > 0:
        raise ValueError(f"model.gain must be positive, got {float(network.gain):g}")
    return network


def _ensemble(model: Any, network: CTRNN, probe: FittedProbe, of: str) -> Ensemble:
    """The numbers of the ensemble that a network stands for."""
    n, gain = network.n_state, float(network.gain)
    weight, readout = np.asarray(network.weight, float), np.asarray(network.readout_weight, float)
    bias = np.asarray(network.bias, float)
    if network.input_bias is not None:
        bias = bias + np.asarray(network.input_bias, float)
    _check_mean("model.weight", weight.reshape(-1, 1))
    named = {"probe.x0": np.asarray(probe.x0, float).T, "model.input_weight": np.asarray(network.input_weight, float)}
    named["model.bias"] = bias[:, None]
    for name, signals in named.items():
        _check_mean(name, signals)
    signals = np.concatenate(list(named.values()), axis=1)
    held = [id(leaf) for leaf in jax.tree.leaves(model.trainable(of))]
    trained = {name: held.count(id(getattr(network, name))) for name in PARTS}
    if network.input_bias is not None:
        trained["bias"] += held.count(id(network.input_bias))
    return Ensemble(
        units=n,
        gain=gain,
        coupling=gain**2 * n * float(weight.var(ddof=1)),
        readout=n * float(np.mean(readout**2)),
        overlap=signals.T @ signals / n,
        rate=network.form == "rate",
        trained=trained,
    )


def _check_mean(name: str, signals: Float[np.ndarray, "n F"]) -> None:
    """Raise `ValueError` if the mean of one of F columns of numbers is not zero up to chance, by Student's t."""
    n = len(signals)
    limit = -float(scipy.special.stdtrit(n - 1, CHANCE / 2)) / np.sqrt(n)
    mean, deviation = signals.mean(axis=0), signals.std(axis=0, ddof=1)
    if (np.abs(mean) > limit * deviation).any():
        worst = int(np.argmax(np.abs(mean) - limit * deviation))
        raise ValueError(
            f"{name} must be random numbers of zero mean, got the mean {mean[worst]:.3g} at a standard "
            f"deviation of {deviation[worst]:.3g}"
        )


def _grid(model: Any, integrator: Any, probe: FittedProbe) -> np.ndarray | None:
    """The times of given Euler steps; `None` in continuous time."""
    if isinstance(model, EulerMap):
        grid = steps_of(model, integrator, probe)[1]
    elif integrator is None:
        return None
    else:
        integrator = as_instance(integrator, "integrator", Integrator)
        if not isinstance(integrator.solver, diffrax.Euler) or integrator.adaptive:
            raise ValueError("integrator must be None, or Integrator(diffrax.Euler(), dt=...)")
        grid = integrator.grid(probe.ts)
    return np.asarray(grid, float)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """The recursion of one network at one probe, on any grid."""

    ensemble: Ensemble
    means: AbstractMeans
    probe: FittedProbe
    tau: float

    def coarsest(self) -> Float[np.ndarray, " times"]:
        """The times of the longest steps."""
        ts = np.asarray(self.probe.ts, float)
        return _divided(ts, np.ceil(np.diff(ts) / (LONGEST * self.tau) * (1 - 1e-12)).astype(int))

    def rough(self, grid: Float[np.ndarray, " times"]) -> Solved:
        """The solution with half as many nodes of the quadrature."""
        return dataclasses.replace(self, means=self.means.halved()).on(grid)

    def on(self, grid: Float[np.ndarray, " times"]) -> Solved:
        """The solution with steps between these times."""
        as_room(3 * (self.probe.n_batch * len(grid)) ** 2, "probe")
        steps = np.diff(grid) / self.tau
        saved = np.searchsorted(grid, np.asarray(self.probe.ts, float))
        with np.errstate(over="ignore", invalid="ignore"):
            found = solved(self.ensemble, self.means, steps, self.inputs(grid), saved)
        if not all(np.isfinite(part).all() for part in found):
            raise NumericalError("the expected kernel is not finite: the network grows without bound over this horizon")
        return found

    def inputs(self, grid: np.ndarray) -> Float[np.ndarray, "B times d"]:
        """The inputs at the times of a grid, each for the step that begins there."""
        us, ts = self.probe.us, np.asarray(self.probe.ts, float)
        if callable(us):
            times = jnp.asarray(grid, self.probe.ts.dtype)
            return np.asarray(jnp.stack([jnp.asarray(us(t)) for t in times], axis=1), float)
        values = np.asarray(us, float)
        if values.ndim == 2:
            return np.repeat(values[:, None], len(grid), axis=1)
        after = np.clip(np.searchsorted(ts, grid, side="right"), 1, len(ts) - 1)
        if self.probe.hold:
            return values[:, np.where(grid >= ts[-1], len(ts) - 1, after - 1)]
        share = ((grid - ts[after - 1]) / (ts[after] - ts[after - 1]))[None, :, None]
        return (1 - share) * values[:, after - 1] + share * values[:, after]


def _extrapolated(problem: _Problem) -> tuple[Solved, float]:
    """The limit of vanishing steps by Richardson's extrapolation, and its relative error."""
    table: list[Solved] = []
    grid = last = problem.coarsest()
    quadrature = error = 0.0
    for level in range(MOST + 1):
        row = [problem.on(grid)]
        if level == 0:
            quadrature = _difference(row[0], problem.rough(grid))
        # The error of Euler's steps is a power series of the step: each column removes one power.
        for column, coarse in enumerate(table):
            factor = 2.0 ** (column + 1)
            fine = row[column]
            row.append(Solved(*((factor * b - a) / (factor - 1) for a, b in zip(coarse, fine, strict=True))))
        if level >= LEAST:
            # The true error was 2 to 6 times smaller than the last change, on seven networks with gains from 0.5 to 3. The
            # change since the last level is four times as large as the last change, unless that is small by chance.
            error = max(_difference(row[-1], row[-2]) / 2, _difference(row[-1], table[-1]) / 16) + quadrature
            if error <= WANTED:
                return row[-1], error
        table, last = row, grid
        grid = _divided(grid, np.full(len(grid) - 1, 2))
    if error > REFUSED:
        raise NumericalError(
            f"the expected kernel changes by {error:.2g} of its largest entry when steps of {np.max(np.diff(last)):.3g} are "
            "halved: shorten the horizon, or space the save times more closely"
        )
    return table[-1], error


def _divided(ts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Times between save times, so many in each interval."""
    parts = [t + (after - t) * np.arange(count) / count for t, after, count in zip(ts, ts[1:], counts, strict=False)]
    return np.append(np.concatenate(parts), ts[-1])


def _spread(problem: _Problem, grid: np.ndarray, of: str, scatter: float) -> float:
    """The relative scatter of the kernel of one network around the expected one, as `MeanField.spread` says."""
    part = 2 if of == "state" else 3
    ensemble, means = problem.ensemble, problem.means.halved()
    now = dataclasses.replace(problem, means=means).on(grid)[part]
    size = float(np.linalg.norm(now))
    if size == 0:
        return 0.0
    stronger = dataclasses.replace(ensemble, coupling=ensemble.coupling * (1 + RAISED))
    by_coupling = dataclasses.replace(problem, means=means, ensemble=stronger).on(grid)[part]
    by_activity = dataclasses.replace(problem, means=_Raised(means)).on(grid)[part]
    responses = [float(np.linalg.norm(one - now)) / (RAISED * size) for one in (by_coupling, by_activity)]
    return float(np.sqrt(2 / ensemble.units) * np.hypot(responses[0], scatter * responses[1]))


@dataclasses.dataclass(frozen=True)
class _Raised(AbstractMeans):
    """Means of which `E phi phi'` is slightly larger."""

    means: AbstractMeans

    def __call__(self, first: Pairs, second: Pairs, covariance: Pairs) -> tuple[Pairs, Pairs]:
        product, slopes = self.means(first, second, covariance)
        return product * (1 + RAISED), slopes

    def halved(self) -> AbstractMeans:
        return _Raised(self.means.halved())


def _difference(one: Solved, other: Solved) -> float:
    """The largest of the relative differences of all arrays."""
    return max(_distance(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, as a fraction of the largest entry."""
    largest = float(np.max(np.abs(one)))
    return float(np.max(np.abs(one - other))) / largest if largest > 0 else 0.0
