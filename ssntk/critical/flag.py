"""Judge whether a network, or each of an ensemble, is near a bifurcation, with a verdict in one sentence."""

import concurrent.futures
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from ssntk.collapse.drive import critical_drive
from ssntk.critical.border import BorderMargin
from ssntk.critical.distance import NEAR, natural_time_scale, relative_distance, verdict
from ssntk.critical.fragile import STARTS, Fragile, most_fragile, searched
from ssntk.critical.origin import expected_at, origin_clause
from ssntk.critical.warned import border_at, border_clause, border_distance
from ssntk.dynamics.fixed_points import FixedPoints, constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.probe import Probe, Sinusoid
from ssntk.dynamics.radius import attained_at
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import eigenpair
from ssntk.errors import NumericalError, as_array, as_scalar, outside_jit
from ssntk.kernel.steady_state import forcing_sizes
from ssntk.models.as_model import as_model
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.maps import with_input
from ssntk.models.theta import theta_positions
from ssntk.notices import warn
from ssntk.nouns import Lens
from ssntk.results import Result, Results, Table
from ssntk.threads import one_blas_thread

# A mode counts as not driven if |l^T F| is below this fraction of |l| |F|. F is taken at the fixed point and at a state
# that is a typical size away from it.
DRIVEN = 1e-6


class NearCriticalWarning(UserWarning):
    """A network lies near a bifurcation.

    **Example:**

    ```python
    import warnings

    warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
    print(ssntk.warn_if_near_critical(ssntk.CTRNN.from_weights(0.99 * np.eye(3))).near)  # True
    ```
    """


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Criticality(Result):
    """How near a network is to a bifurcation, judged at one of its fixed points.

    - `verdict`: `"regular"`, `"near-critical"` or `"critical"`. In an ensemble also `"unknown"`: no fixed point was found.
    - `near`: whether the verdict is `"near-critical"` or `"critical"`; `None` if it is `"unknown"`.
    - `kind`: what the smallest change that makes the network critical leads to: `"real"` (saddle-node, transcritical or
      pitchfork; for maps also flip) or `"pair"` (Hopf or Neimark-Sacker).
    - `critical_frequency`: that of the critical eigenvalue: angular, in rad per unit time, 0 for a real one.
    - `stability_radius`: that of df/dx at the fixed point, in 1 / time; negative if it is unstable ([`stability_radius`][]).
    - `relative_distance`: the number on which the verdict rests. Without a horizon it is `|stability_radius| time_scale`.
      With a horizon T it is `sqrt(g(T / time_scale) / g(T |stability_radius|))`, the ratio of two modes' amplification under
      the master law (`ssntk.laws.g`). If T is long, that is the same; if T is too short for a slow mode to matter, it is
      nearer to 1.
    - `spectral_abscissa`: the largest growth rate, in 1 / time.
    - `sigma_min`: the smallest singular value of df/dx, in 1 / time: the distance from a zero eigenvalue.
    - `nonnormality`: |l||r| for the eigenvalue nearest to the critical frequency, with left and right eigenvectors l and r,
      l^T r = 1. It is 1 for a normal matrix and infinite for a defective eigenvalue.
    - `drive`: |l^T F| for that eigenvalue, F = df/dtheta at the fixed point: how strongly changes of theta push the mode, at
      its own frequency. For a pair, the push by a sinusoidal input of amplitude 1 at that frequency, in the direction that
      drives it most; 0 without inputs. The verdict does not depend on it.
    - `x_star` (n,): the fixed point. `u` (d,): its input. `stable`: whether it is stable. `residual`: the largest |f_i|.
    - `n_fixed_points`: the number of fixed points for all inputs together. `time_scale`, `horizon`: in units of time.
    - `reason`: a sentence with the verdict and its remedy.
    - `border`: for piecewise-linear models such as ReLU networks the [`BorderMargin`][] of that point, else `None`. If a
      nonsmooth fold is nearer to it than a relative change of the parameters by 0.033, the verdict is `"near-critical"`;
      by 0.01, `"critical"`.
    - `expected_radius`, in 1 / time, and `percentile`, in [0, 1]: the median stability radius of random networks whose
      columns of `1 + tau df/dx` have the same powers (for `form="rate"` its rows), and the share of them that is nearer to
      instability, or beyond it. A low percentile: the network's structure brings it there, and not its gain. Both are
      measured on 200 random networks (100 from 33 units on, 50 from 129 on), and `None` for models that are no
      [`CTRNN`][], [`LowRankRNN`][] or map of one, of at least two units. `gain`: the root mean square, over units, of the
      norm of a row of `1 + tau df/dx`.

    **Example:**

    ```python
    verdict = ssntk.criticality(ssntk.normal_forms.hopf(-0.01, 1.0))
    print(verdict.verdict, verdict.kind, round(verdict.stability_radius, 6))  # critical pair 0.01
    ```
    """

    verdict: str
    near: bool | None
    kind: str
    stability_radius: float
    critical_frequency: float
    relative_distance: float
    spectral_abscissa: float
    sigma_min: float
    nonnormality: float
    drive: float
    x_star: np.ndarray
    u: np.ndarray
    stable: bool
    residual: float
    n_fixed_points: int
    time_scale: float
    horizon: float | None
    reason: str
    border: BorderMargin | None = None
    expected_radius: float | None = None
    percentile: float | None = None
    gain: float | None = None

    def _headline(self) -> str:
        return f"Criticality: {self.reason}"

    def _tables(self) -> list[Table]:
        # Leave out what does not apply, so that the result fits on a screen.
        return [table._replace(rows=[row for row in table.rows if row[1] != "None"]) for table in super()._tables()]

    @staticmethod
    def _many(found: Sequence["Criticality"]) -> str:
        verdicts = [one.verdict for one in found]
        return ", ".join(f"{verdicts.count(kind)} {kind}" for kind in dict.fromkeys(verdicts))


@outside_jit
@one_blas_thread()
def criticality(
    model: AbstractStateSpaceModel,
    u: Any = None,
    *,
    horizon: Any = None,
    time_scale: Any = None,
    wrt: Lens | None = None,
    n_starts: int = STARTS,
    key: Any = None,
    scale: Any = None,
) -> Criticality:
    """Judge whether a network is near a bifurcation, of which kind, how near, and what to do about it.

    Its fixed points are searched for. Among the stable ones, the one with the smallest stability radius is judged. If none
    is stable, the one with the smallest |radius| is judged, and `reason` reports it. Works for flows and for maps.

    **Arguments:**

    - `u`: (d,) constant input, or (B, d) several, of which the one nearest to a bifurcation is judged. Default zero.
    - `horizon`: how long trajectories last in training, in units of time. Default: unlimited.
    - `time_scale`: the time relative to which "near" is meant, in units of time. Default: the largest `tau` of the model. A
      model without `tau` gets 1 / median |eigenvalue|, which is meaningless for n = 1.
    - `wrt`: a lens that selects the parameters theta of `drive`. Default: `model.trainable("state")`.
    - `n_starts`, `key`: as for [`find_fixed_points`][].
    - `scale`: (n,) or a number, positive, in units of the states: their metric. With A = df/dx and D = diag(scale), the
      radius, `sigma_min`, `nonnormality` and `drive`, and so the verdict, are those of D^-1 A D and D^-1 F. Default: ones.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time. Raises `NumericalError` if no
    fixed point was found.

    **Example:**

    ```python
    weights = 0.95 * np.eye(3)
    print(ssntk.criticality(ssntk.CTRNN.from_weights(weights), time_scale=1.0).verdict)  # critical
    ```
    """
    check_model(model)
    metric = as_metric(scale, model.n_state)
    check_autonomous(model)
    inputs = _inputs(model, u)
    time = None if time_scale is None else float(as_scalar(time_scale, "time_scale", positive=True))
    span = None if horizon is None else float(as_scalar(horizon, "horizon", positive=True))
    theta_positions(model, "state", wrt)
    point = searched(model, inputs, n_starts=n_starts, key=key)
    return _judge(model, point, span, time, wrt, metric)


@outside_jit
@one_blas_thread()
def criticality_ensemble(
    models: Any,
    u: Any = None,
    *,
    horizon: Any = None,
    time_scale: Any = None,
    wrt: Lens | None = None,
    n_starts: int = STARTS,
    key: Any = None,
    scale: Any = None,
) -> tuple[Criticality, ...]:
    """Judge each of a batch of networks as [`criticality`][] does, with the same compiled code.

    **Arguments:** `models`: one model whose arrays have a leading axis, as from `eqx.filter_vmap(make)(keys)`, or a sequence
    of models. The other arguments are those of [`criticality`][].

    **Returns:** one [`Criticality`][] for each network, in order. If no fixed point was found, its verdict is `"unknown"`.

    Raises `ValueError` for arguments that do not fit.

    **Example:**

    ```python
    models = [ssntk.CTRNN.from_weights(gain * np.eye(3)) for gain in (0.2, 0.99)]
    print([found.verdict for found in ssntk.criticality_ensemble(models)])  # ['regular', 'critical']
    ```
    """
    how = {"horizon": horizon, "time_scale": time_scale, "wrt": wrt, "n_starts": n_starts, "key": key, "scale": scale}

    def one(model: AbstractStateSpaceModel) -> Criticality:
        try:
            return criticality(model, u, **how)
        except NumericalError as error:
            return _unknown(model, str(error), horizon)

    first, *rest = _unstack(models)
    # The first network compiles the code for all. Threads help for the others, since their time goes into LAPACK and
    # compiled code, outside Python's lock.
    found = one(first)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return Results((found, *pool.map(one, rest)))


def warn_if_near_critical(model: Any, u: Any = None, **how: Any) -> Criticality:
    """Call [`criticality`][], and issue a `NearCriticalWarning` if the network is near a bifurcation.

    It warns once for each calling line and each verdict. Arguments, result and errors are those of `criticality`. `model`
    may also be a PyTorch module or state_dict, which is read as [`from_torch`][] does, with its present weights.

    **Example:**

    ```python
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ssntk.warn_if_near_critical(ssntk.CTRNN.from_weights(0.99 * np.eye(3)))
    print([one.category.__name__ for one in caught])  # ['NearCriticalWarning']
    ```
    """
    found = criticality(as_model(model), u, **how)
    caller = sys._getframe(1)
    line = caller.f_code.co_filename, caller.f_lineno, found.verdict, found.kind
    if found.near and line not in _warned:
        _warned.add(line)
        warn(found.reason, NearCriticalWarning)
    return found


_warned: set[tuple[str, int, str, str]] = set()


def _inputs(model: AbstractStateSpaceModel, u: object) -> list[Array]:
    """The constant inputs, (d,) each."""
    if u is None or as_array(u, "u").ndim < 2:
        return [constant_input(model, u)]
    rows = as_array(u, "u", ("B", model.n_input)).astype(dtype_of(model))
    if rows.shape[0] == 0:
        raise ValueError("u must hold at least one input")
    return list(rows)


def _unstack(models: object) -> list[AbstractStateSpaceModel]:
    """The networks of a batch."""
    if isinstance(models, (list, tuple)):
        if not models:
            raise ValueError("models must hold at least one model")
        return list(models)
    if not isinstance(models, AbstractStateSpaceModel):
        raise ValueError(f"models must be a model with stacked arrays, or a sequence of models, got {type(models).__name__}")
    arrays, static = eqx.partition(models, eqx.is_array)
    leaves = jax.tree.leaves(arrays)
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        raise ValueError("models must have arrays that share their leading axis, as eqx.filter_vmap makes them")
    host = jax.tree.map(np.asarray, arrays)
    return [
        eqx.combine(jax.tree.map(lambda leaf, i=i: jax.device_put(leaf[i]), host), static) for i in range(lengths.pop() or 0)
    ]


def _judge(
    model: AbstractStateSpaceModel,
    found: list[tuple[Array, FixedPoints]],
    horizon: float | None,
    time_scale: float | None,
    wrt: Lens | None,
    metric: np.ndarray | None,
) -> Criticality:
    clock = model.clock
    point = most_fragile(found, clock, metric)
    matrix, touch = point.matrix, point.edge
    rates = clock.growth(point.values)
    time = natural_time_scale(model, rates) if time_scale is None else time_scale
    at_end = clock.flips_at is not None and attained_at(matrix, clock, touch, clock.flips_at)
    real = not at_end and attained_at(matrix, clock, touch, 0.0)
    far = relative_distance(touch.radius, time, horizon)
    border = border_at(model, theta_positions(model, "state", wrt), point.x, point.u)
    sort = verdict(min(far, border_distance(border)))
    expected = expected_at(model, matrix)
    size, drive, driven = _mode(model, point, wrt, metric)
    frequency = 0.0 if real else clock.highest if at_end else touch.frequency
    what = {
        (True, False): "a zero eigenvalue (saddle-node, transcritical or pitchfork)",
        (False, True): "a multiplier at -1 (flip)",
        (False, False): f"a pair at frequency {frequency:.3g} ({clock.pair_name})",
    }[real, at_end]
    result = Criticality(
        verdict=sort,
        near=sort != "regular",
        kind="real" if real or at_end else "pair",
        stability_radius=touch.radius,
        critical_frequency=frequency,
        relative_distance=far,
        spectral_abscissa=float(rates[0].real),
        sigma_min=float(np.linalg.svd(matrix, compute_uv=False)[-1]),
        nonnormality=size,
        drive=drive,
        x_star=point.x,
        u=np.asarray(point.u),
        stable=point.stable,
        residual=point.residual,
        n_fixed_points=sum(len(one) for _, one in found),
        time_scale=time,
        horizon=horizon,
        reason="",
        border=border,
        expected_radius=expected and expected.radius,
        percentile=expected and expected.percentile,
        gain=expected and expected.gain,
    )
    return dataclasses.replace(result, reason=_reason(result, what, driven))


def _reason(found: Criticality, what: str, driven: bool) -> str:
    """The verdict in one sentence, with its remedy."""
    radius = abs(found.stability_radius)
    span = "" if found.horizon is None else f", {found.relative_distance:.2g} over a horizon of {found.horizon:g}"
    where = (
        "its most fragile stable fixed point" if found.stable else "the fixed point nearest to stability, none being stable,"
    )
    distance = f"a change of the Jacobian by {radius * found.time_scale:.2g} / tau{span} at {where} gives {what}"
    clause = border_clause(found.border)
    if found.verdict == "regular" and clause:
        return f"Regular: no eigenvalue is near the edge of stability, {distance}; {clause}."
    if found.verdict == "regular":
        return f"Regular: no bifurcation is near, {distance}; nothing needs to be done."
    if verdict(found.relative_distance) != found.verdict:
        return f"{found.verdict.capitalize()}: {clause}; move away from that border, such as by the bias of the unit."
    text = f"{found.verdict.capitalize()}: {distance}{origin_clause(found.gain, found.percentile)}, "
    text += "so that one slow mode is going to dominate the kernel of the states and to limit the learning rate"
    if found.stable and abs(found.spectral_abscissa) > 3 * radius:
        text += f", though no eigenvalue lies right of {found.spectral_abscissa:.2g} (the Jacobian is non-normal)"
    if not driven:
        text += ", once something drives that mode: what is given does not"
    margin = NEAR / found.time_scale
    if found.stable:
        return text + f"; move away with ssntk.retreat(model, margin={margin:.2g}), or lower the gain or the weights' scale."
    return text + "; lower the gain or the scale of the weights until a fixed point is stable."


def _mode(
    model: AbstractStateSpaceModel,
    point: Fragile,
    wrt: Lens | None,
    metric: np.ndarray | None,
) -> tuple[float, float, bool]:
    """For the eigenvalue nearest to the critical frequency: |l||r|, |l^T F| and whether the latter exceeds rounding."""
    clock, d = model.clock, model.n_input
    u, x, matrix, level = point.u, point.x, point.matrix, point.level
    here = complex(*clock.edge(point.edge.frequency))
    try:
        value, right, left = eigenpair(matrix, here, point.values)
    except NumericalError:
        return np.inf, np.nan, True
    right, left = level @ right, level @ left
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    moved = with_input(model, u)
    at, start = theta_positions(moved, "state", wrt), jax.device_put(x)
    rate = complex(clock.growth(np.array([value]))[0])
    horizon = clock.unit
    if rate.imag == 0:
        probe = Probe([0.0, horizon], np.zeros((1, d)), start)
    elif d == 0:
        return size, 0.0, False
    else:
        probe = Probe([0.0, horizon], Sinusoid(np.eye(d), abs(rate.imag)), start)
    drive = critical_drive(moved, at, probe, start, value)
    if drive is None:
        return size, np.nan, True
    strength = float(np.linalg.norm(drive, 2))
    if metric is not None:
        # Normalise r to length one in the metric: above it has length one in the units of the states.
        strength /= float(np.linalg.norm(metric * right))
        left = left / metric
    # Compare with F at a state away from the fixed point, since at the fixed point symmetry may leave only rounding errors.
    every, still = theta_positions(moved, "state", None), jax.device_put(np.zeros_like(np.asarray(u)))
    sizes = typical_sizes(model, u, x)
    pushes = [np.asarray(forcing_sizes(moved, every, jax.device_put(state), still)) for state in (x, x + sizes)]
    return size, strength, strength > DRIVEN * float(np.abs(left) @ np.maximum(*pushes))


def _unknown(model: AbstractStateSpaceModel, reason: str, horizon: float | None) -> Criticality:
    nan, n, d = float("nan"), model.n_state, model.n_input
    return Criticality(
        verdict="unknown",
        near=None,
        kind="unknown",
        stability_radius=nan,
        critical_frequency=nan,
        relative_distance=nan,
        spectral_abscissa=nan,
        sigma_min=nan,
        nonnormality=nan,
        drive=nan,
        x_star=np.full(n, nan),
        u=np.full(d, nan),
        stable=False,
        residual=nan,
        n_fixed_points=0,
        time_scale=nan,
        horizon=None if horizon is None else float(horizon),
        reason=f"Unknown: {reason}",
    )
