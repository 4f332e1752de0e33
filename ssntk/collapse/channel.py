"""The channel of a bifurcation: the part of the kernel that belongs to the critical mode, measured and predicted."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.collapse.law import Carried, carried
from ssntk.collapse.mode import Mode, critical_mode, wanted
from ssntk.collapse.split import Critical, Plane, Scaled, Top, first, method_of, predictions
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import FittedProbe, Probe
from ssntk.dynamics.refine import check_fixed_point
from ssntk.errors import NumericalError, as_instance, outside_jit
from ssntk.kernel.rows import recorded_rows, time_weights
from ssntk.kernel.top import Leading
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.theta import theta_positions
from ssntk.nouns import AnyArray, Lens
from ssntk.precision import watch_precision
from ssntk.results import Result, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Channel(Result):
    """The part of a trajectory kernel K_int (with trapezoid weights) that belongs to the critical mode of a fixed point x*.

    Let A = df/dx at x*, J the parameter Jacobian of the states, and `A r = lambda r`, `l^T A = lambda l^T` with |r| = 1 and
    l^T r = 1. The projection Pi = r l^T (for a pair 2 Re(r l^T)) splits J into the critical part `J_c = Pi J` and the rest,
    and the kernel into `K = cc + cr + rc + rr`. The mode obeys the master law `J_c(t) = r int exp(lambda (t - s)) l^T F(s)
    ds` with F = df/dtheta (Hazelden and Shea-Brown, arXiv:2605.12763).

    - `kind`: `"real"` or `"pair"`.
    - `critical_eigenvalue`: lambda, in 1 / time, for a pair the one above the axis; for maps the multiplier. `frequency`:
      angular, in rad per unit time, 0 for a real one. `right`, `left` (n,): r and l (not conjugated).
    - `share`: the fraction of the trace that lies in span(Re r, Im r), by orthogonal projection; between 0 and 1.
    - `oblique_share`: tr K_cc / tr K, which can exceed 1 if A is not normal. `cross_share`: the fraction that the cross
      terms add, which can be negative. Together with the fraction of the rest they sum to 1.
    - `nonnormality`: |l| |r|, at least 1.
    - `drive`: |l^T F| at the critical frequency w, in state units per unit time and parameter. It is the amplitude of
      exp(i w t) in l^T F(t) under a Hann window, as the root of the sum of squares over parameters and inputs. A mode that
      is not driven at its frequency is not amplified, however close the bifurcation is.
    - `top_eigenvalue`: that of K_int. `predicted_top_eigenvalue`: that of its critical part by the master law; NaN if
      `method` is `"singular pair"`.
    - `method`: the basis of the prediction. `"fixed point"`: lambda at x*. `"averaged"`: the average of `l^T A(x(t)) r`
      between s and t instead. `"singular pair"`: neither prediction fits, but the top singular pair of J lies along r.
      `"none"`: not even that. `reason`: a sentence that says why this method was chosen.
    - `mismatch`: the distance between the predicted and the measured critical part, relative to the latter, in the norm of
      J. If nothing is predicted, the smaller one of the refused predictions. `departure`: how far trajectories leave the
      linear regime: max |l^T (A(x(t)) - A(x*)) r| min(T, 1 / |Re lambda|), 0 at x*.
    - `alignment`: |cos| of the angle between the state direction of the top singular vector of J and r, or for a pair
      span(Re r, Im r).
    - `parameter_alignment`: the same for the top parameter direction and that of the drive `l^T F`. For recurrent weights
      the latter is `l phi^T` with the presynaptic activity phi, and `l r^T` if the mode is the only activity.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: 1.0 - p * x, np.array([0.01, 1.0]), 2)
    channel = ssntk.bifurcation_channel(model, ssntk.Probe([0.0, 1.0, 2.0]), [100.0, 1.0])
    print(channel.kind, channel.critical_eigenvalue)  # real (-0.01+0j)
    ```
    """

    kind: str
    critical_eigenvalue: complex
    frequency: float
    right: np.ndarray
    left: np.ndarray
    share: float
    oblique_share: float
    cross_share: float
    nonnormality: float
    drive: float
    top_eigenvalue: float
    predicted_top_eigenvalue: float
    method: str
    reason: str
    mismatch: float
    departure: float
    alignment: float
    parameter_alignment: float

    def _headline(self) -> str:
        top = f"top eigenvalue {short(self.top_eigenvalue)}, predicted {short(self.predicted_top_eigenvalue)}"
        share = f"{short(self.share)} of the kernel's trace lies along {short(self.critical_eigenvalue)}"
        return f"Channel ({self.kind}): {share}; {top} ({self.method}: {self.reason})"


@outside_jit
def bifurcation_channel(
    model: AbstractStateSpaceModel,
    probe: Probe,
    x_star: Any,
    *,
    eigenvalues: Any = None,
    u: Any = None,
    wrt: Lens | None = None,
    integrator: Integrator | None = None,
    throw: bool = True,
) -> Channel:
    """Measure and predict the part of the kernel of the states that belongs to the critical mode.

    **Arguments:**

    - `probe`: a [`Probe`][]. If its `x0` is `None`, trajectories start at x*. Masked rows are left out; a mask must treat
      all states of a time alike.
    - `x_star`: (n,) a fixed point for the constant input `u`.
    - `u`: (d,) constant input. Default: the probe's, if that is one constant input; else zero.
    - `eigenvalues`: the critical eigenvalue of df/dx in 1 / time (for maps the multiplier), or both of a pair. The nearest
      one is taken. Default: the fastest growing. For a repeated eigenvalue a single direction is taken.
    - `wrt`, `integrator`: as for [`parameter_jacobian`][].
    - `throw`: whether to raise if no method holds. If not, the measured part is returned with `method="none"`.

    Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if `x_star` is not a fixed point, if the
    eigenvalue is defective, if the states do not depend on theta, or if no method holds: then the critical part is not as
    predicted, and the top singular pair does not lie along it.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p - 0.1 * x, jnp.ones(1), 1)  # one mode, which is all there is
    channel = ssntk.bifurcation_channel(model, ssntk.Probe(np.linspace(0.0, 5.0, 11)), [10.0])
    print(channel.kind, round(channel.share, 6), channel.method)  # real 1.0 fixed point
    ```
    """
    check_model(model)
    check_autonomous(model)
    theta_positions(model, "state", wrt)
    watch_precision(dtype_of(model))
    near = wanted(eigenvalues, model.clock)
    probe = as_instance(probe, "probe", Probe)
    x, u = check_fixed_point(model, x_star, _own_input(probe) if u is None else u)
    if probe.x0 is None:
        probe = eqx.tree_at(lambda p: p.x0, probe, x, is_leaf=lambda leaf: leaf is None)
    if probe.mask is not None and probe.mask.ndim == 3:
        raise ValueError("probe.mask must be (T,) or (B, T): a channel is not split by coordinates")
    rows = recorded_rows(model, probe, wrt=wrt, weights="trapezoid", integrator=integrator)
    mode = critical_mode(model, x, u, near)
    fitted = rows.replay.probe
    weights = seen_weights(fitted)
    channel = channel_of(fitted.ts, weights, model.clock, np.asarray(rows.matrix()), mode, carried(rows.replay, mode))
    if throw and channel.method == "none":
        raise NumericalError(channel.reason)
    return channel


def seen_weights(probe: FittedProbe) -> np.ndarray:
    """The trapezoid weights (B, T) of the save times of each input of a fitted probe, zero at masked times."""
    weights = np.asarray(time_weights(probe.ts, "trapezoid"))
    if probe.mask is None:
        return np.tile(weights, (probe.n_batch, 1))
    ones = jnp.ones((probe.n_batch, probe.ts.shape[0], 1, 1), probe.ts.dtype)
    return np.asarray(probe.observed(ones))[..., 0, 0] * weights


def channel_of(
    ts: AnyArray,
    weights: np.ndarray,
    clock: AbstractClock,
    rows: np.ndarray,
    mode: Mode,
    carried: Carried,
    known: Leading | None = None,
) -> Channel:
    """The channel of a mode in the kernel of the states, from the weighted rows (B T n, p).

    **Arguments:** `ts` (T,): the save times. `weights` (B, T): those of `seen_weights`. `known`: the first eigenpairs of the
    smaller of `rows rows^T` and `rows^T rows`, if they are known.
    """
    value, real, times = complex(mode.value), complex(mode.value).imag == 0, np.asarray(ts)
    scaled = Scaled.of(rows, len(mode.right))
    nonnormality = float(np.linalg.norm(mode.left.astype(complex)))
    if nonnormality > np.finfo(rows.dtype).eps ** (-1 / 3):
        raise NumericalError(f"the eigenvalue {value:.6g} is nearly defective: |l||r| = {nonnormality:.3g}")
    drives, shift = np.asarray(carried.drive).astype(complex), float(np.abs(np.asarray(carried.shifts)).max())
    predicted = predictions(weights, carried, scaled.scale)
    if not (np.isfinite(scaled.scale) and all(np.isfinite(part).all() for part in (drives, *predicted.values()))):
        raise NumericalError("the answer to theta along these trajectories, or its prediction, is not finite")

    plane = Plane.of(mode)
    critical = Critical.of(scaled, plane, mode)
    parts = {name: plane.part(coordinate) for name, coordinate in predicted.items()}
    off = {name: critical.misses(guess) for name, guess in parts.items()}
    top, unit = Top.of(scaled, known), scaled.scale * scaled.scale
    alignment = float(np.linalg.norm(plane.basis.T @ top.state))
    method, reason = method_of(off, alignment)
    law = first(parts[method].reshape(-1, rows.shape[-1]))[0] if method in parts else np.nan
    if not 0 < unit * top.value < np.inf:
        raise NumericalError(
            f"the kernel's largest eigenvalue, about {scaled.scale:.3g} squared, is beyond the range of numbers"
        )
    driven = np.linalg.svd(np.concatenate([drives.real, drives.imag]), full_matrices=False)[2][: plane.basis.shape[1]]
    return Channel(
        kind="real" if real else "pair",
        critical_eigenvalue=clock.shown(value),
        frequency=float(mode.frequency),
        right=mode.right.real if real else mode.right,
        left=mode.left.real if real else mode.left,
        share=critical.share,
        oblique_share=critical.oblique_share,
        cross_share=critical.cross_share,
        nonnormality=nonnormality,
        drive=float(np.linalg.norm(drives)),
        top_eigenvalue=top.value * unit,
        predicted_top_eigenvalue=law * unit,
        method=method,
        reason=reason,
        mismatch=off[method] if method in off else min(off.values()),
        departure=shift * min(float(times[-1] - times[0]), 1 / abs(value.real) if value.real else np.inf),
        alignment=alignment,
        parameter_alignment=float(np.linalg.norm(driven @ top.parameters)) if drives.any() else np.nan,
    )


def _own_input(probe: Probe) -> Array | None:
    """The probe's input (d,) if it is constant and the same for all trajectories, else `None`."""
    us = probe.us
    if us is None or callable(us) or us.ndim != 2 or bool((np.asarray(us) != np.asarray(us)[:1]).any()):
        return None
    return us[0]
