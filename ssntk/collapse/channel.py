"""The part of the kernel that belongs to a bifurcation: the critical mode's channel, measured and predicted."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.dynamics.refine import check_fixed_point
from ssntk.dynamics.stability import eigenpair, state_jacobian
from ssntk.errors import NumericalError, as_instance, outside_jit
from ssntk.kernel.replay import Replay
from ssntk.kernel.rows import rows_of, time_weights
from ssntk.kernel.top import Leading, leading, smaller_gram
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.maps import AbstractMap
from ssntk.models.theta import get, put, theta_positions
from ssntk.precision import watch_precision
from ssntk.results import Result, short

# How far, relatively, a predicted channel may lie from the measured one and still be called its prediction.
AGREES = 0.1
# How well the top state direction must lie along the critical one where nothing is predicted.
ALIGNED = 0.9


class Mode(NamedTuple):
    """A critical mode: its eigenvalue of df/dx, its vectors (n,), complex, and its angular frequency."""

    value: Any
    right: Any
    left: Any
    frequency: Any


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Channel(Result):
    """What of a trajectory kernel K_int (trapezoid weights) belongs to the critical mode of a fixed point.

    With `A r = lambda r`, `l^T A = lambda l^T`, |r| = 1 and l^T r = 1, the Jacobian splits into `J_c = Pi J`, Pi = r l^T (a
    pair: 2 Re(r l^T)), and the rest, and the kernel into `K = cc + cr + rc + rr`. The mode obeys the master law `J_c(t) = r
    int exp(lambda (t - s)) l^T F(s) ds`, F = df/dtheta (Hazelden and Shea-Brown, arXiv:2605.12763).

    - `kind`: `"real"` or `"pair"`. `critical_eigenvalue`: of df/dx, in 1/time, of a pair the one above the axis; of a map
      the multiplier. `frequency`: angular, 0 for a real one. `right`, `left` (n,): r and l (not conjugated).
    - `share`: of the trace, what lies in span(Re r, Im r): the orthogonal split, between 0 and 1.
    - `oblique_share`, `cross_share`: tr K_cc / tr K, which can exceed one where A is not normal, and what the cross terms
      add, which can be negative. With the rest they make up one.
    - `nonnormality`: |l| |r|, at least one.
    - `drive`: |l^T F| at the critical frequency, in state units per unit time and parameter: the amplitude of exp(i w t) in
      l^T F(t) (under a Hann window), as the root of its squares' sum over parameters and inputs. A mode that is not driven
      at its frequency is not amplified, however close the bifurcation.
    - `top_eigenvalue`: of K_int. `predicted_top_eigenvalue`: of its critical part by the master law, NaN where `method` is
      `"singular pair"`.
    - `method`: what stands behind the prediction. `"fixed point"`: lambda as it is at x*. `"averaged"`: in its place the
      average of `l^T A(x(t)) r` between s and t. `"singular pair"`: neither fits, and all that is known is the top singular
      pair of J, which lies along r. `"none"`: not even that. `reason`: why it was taken, a sentence.
    - `mismatch`: how far the predicted critical part lies from the measured one, relative to that, in the norm of J; where
      nothing is predicted, the smaller of those that were refused. `departure`: max |l^T (A(x(t)) - A(x*)) r| min(T, 1 /
      |Re lambda|), 0 at x*.
    - `alignment`: |cos| between the state direction of the top singular vector of J and r, or the span of a pair's.
    - `parameter_alignment`: the same between the top parameter direction and the drive's, `l^T F`; for recurrent weights
      that is `l phi^T` with phi the presynaptic activity, `l r^T` where the mode itself is all the activity there is.
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
    wrt: Callable[[Any], PyTree] | None = None,
    integrator: Integrator | None = None,
    throw: bool = True,
) -> Channel:
    """The critical mode's part of the kernel of the states, measured and predicted.

    **Arguments:**

    - `probe`: where its `x0` is `None`, trajectories start at x*. What is masked counts for nothing; a mask must not tell
      coordinates apart.
    - `x_star`: (n,), a fixed point under the constant input `u` (d,); default: the probe's own where that is one constant
      input, else zero.
    - `eigenvalues`: the critical eigenvalue of df/dx (a map: the multiplier), or a pair of them; the nearest is taken.
      Default: the fastest growing. Of a repeated one a single direction is taken.
    - `wrt`, `integrator`: as in [`parameter_jacobian`][].
    - `throw`: whether to raise where no method holds, or to return what was measured with `method="none"`.

    Raises `ValueError` for arguments that do not fit; `NumericalError` where `x_star` is no fixed point, where the
    eigenvalue is defective, where nothing answers to theta, and where no method holds: the critical part is not as
    predicted and the top singular pair does not lie along it.
    """
    check_model(model)
    check_autonomous(model)
    theta_positions(model, "state", wrt)
    watch_precision(dtype_of(model))
    near = _wanted(eigenvalues, model.clock)
    probe = as_instance(probe, "probe", Probe)
    x, u = check_fixed_point(model, x_star, _own_input(probe) if u is None else u)
    if probe.x0 is None:
        probe = eqx.tree_at(lambda p: p.x0, probe, x, is_leaf=lambda leaf: leaf is None)
    if probe.mask is not None and probe.mask.ndim == 3:
        raise ValueError("probe.mask must be (T,) or (B, T): a channel is not split by coordinates")
    rows = rows_of(model, probe, wrt=wrt, weights="trapezoid", integrator=integrator)
    mode = critical_mode(model, x, u, near)
    fitted = rows.replay.probe
    weights = seen_weights(fitted)
    channel = channel_of(fitted.ts, weights, model.clock, np.asarray(rows.matrix()), mode, carried(rows.replay, mode))
    if throw and channel.method == "none":
        raise NumericalError(channel.reason)
    return channel


class Carried(NamedTuple):
    """What the master law makes of `l^T F` along recorded solves.

    `coordinates` (B, T, 2, p): the mode's, at the save times, with lambda at x* and along the trajectory; `drive` (B, p):
    the amplitude of exp(i w t) in `l^T F`, under a Hann window; `shifts` (B, T): `l^T (A(x(t)) - A*) r`.
    """

    coordinates: Any
    drive: Any
    shifts: Any


def seen_weights(probe: Probe) -> np.ndarray:
    """The trapezoid weight of every save time of every input of a fitted probe, (B, T), zero where nothing is observed."""
    weights = np.asarray(time_weights(probe.ts, "trapezoid"))
    if probe.mask is None:
        return np.tile(weights, (probe.n_batch, 1))
    ones = jnp.ones((probe.n_batch, probe.ts.shape[0], 1, 1), probe.ts.dtype)
    return np.asarray(probe.observed(ones))[..., 0, 0] * weights


def channel_of(
    ts: Any,
    weights: np.ndarray,
    clock: AbstractClock,
    rows: np.ndarray,
    mode: Mode,
    carried: Carried,
    known: Leading | None = None,
) -> Channel:
    """The channel of a mode in the kernel of the states, given the weighted rows (B T n, p).

    **Arguments:** `ts` (T,): the save times, and `weights` (B, T), as [`seen_weights`][] gives them. `known`: the
    first eigenpairs of the smaller of `rows rows^T` and `rows^T rows`, where they are known.
    """
    right, left, value = mode.right, mode.left, complex(mode.value)
    ts, n = np.asarray(ts), len(right)
    largest = float(max(rows.max(initial=0.0), -rows.min(initial=0.0)))
    if largest == 0:
        raise NumericalError("nothing answers to theta along these trajectories: their kernel is zero")
    nonnormality = float(np.linalg.norm(left.astype(complex)))
    if nonnormality > np.finfo(rows.dtype).eps ** (-1 / 3):
        raise NumericalError(f"the eigenvalue {value:.6g} is nearly defective: |l||r| = {nonnormality:.3g}")
    # In double precision, and in units of the largest entry where squares would vanish or overflow. Copies of J are dear.
    scale = 1.0 if 1e-100 < largest < 1e100 else largest
    rows = np.asarray(rows, float).reshape(-1, n, rows.shape[-1])
    rows = rows if scale == 1 else rows / scale
    drives, shift = np.asarray(carried.drive), float(np.abs(np.asarray(carried.shifts)).max())
    predicted = _predicted(weights, np.asarray(carried.coordinates))
    predicted = {name: coordinate.astype(complex) / scale for name, coordinate in predicted.items()}
    drives = drives.astype(complex)
    if not (np.isfinite(largest) and all(np.isfinite(part).all() for part in (drives, *predicted.values()))):
        raise NumericalError("the answer to theta along these trajectories, or its prediction, is not finite")

    # What spans the critical directions, and the parts of J in their coordinates: (B T, k, p) with k = 1, of a pair 2.
    span = right.real[:, None] if value.imag == 0 else np.stack([right.real, -right.imag], axis=1)
    basis, to_basis = np.linalg.qr(span)
    to_basis = to_basis if value.imag == 0 else 2 * to_basis

    def part(coordinate: np.ndarray) -> np.ndarray:
        """r c (of a pair 2 Re) in the basis, for the mode's coordinate c (B T, p)."""
        both = [coordinate.real] if value.imag == 0 else [coordinate.real, coordinate.imag]
        return np.einsum("kl,lbp->bkp", to_basis, np.stack(both))

    # All that is asked of J in one walk through it.
    *inside, real, imag = np.moveaxis(np.stack([*basis.T, left.real, left.imag]) @ rows, 1, 0)
    inside, critical = np.stack(inside, axis=1), part(real + 1j * imag)
    total, size = _square(rows), _square(critical) ** 0.5
    # A mode that does not answer at all is predicted by zero.
    nothing = 1e-9 * total**0.5
    parts = {name: part(coordinate) for name, coordinate in predicted.items()}
    off = {
        name: _square(guess - critical) ** 0.5 / size if size > nothing else float(_square(guess) ** 0.5 > nothing)
        for name, guess in parts.items()
    }
    flat, unit = rows.reshape(-1, rows.shape[-1]), scale * scale
    top, vector = _first(flat) if known is None else (float(known.values[0]) / unit, known.vectors[:, 0])
    lefts, rights = _sides(flat, vector)
    state = np.linalg.svd(lefts.reshape(-1, n), full_matrices=False)[2][0]
    alignment = float(np.linalg.norm(basis.T @ state))
    method, reason = _method(off, alignment)
    law = _first(parts[method].reshape(-1, rows.shape[-1]))[0] if method in parts else np.nan
    if not 0 < unit * top < np.inf:
        raise NumericalError(f"the kernel's largest eigenvalue, about {scale:.3g} squared, is beyond the range of numbers")
    drive_basis = np.linalg.svd(np.concatenate([drives.real, drives.imag]), full_matrices=False)[2]
    return Channel(
        kind="real" if value.imag == 0 else "pair",
        critical_eigenvalue=clock.shown(value),
        frequency=float(mode.frequency),
        right=right.real if value.imag == 0 else right,
        left=left.real if value.imag == 0 else left,
        share=_square(inside) / total,
        oblique_share=size**2 / total,
        cross_share=2 * (float(np.sum(inside * critical)) - size**2) / total,
        nonnormality=nonnormality,
        drive=float(np.linalg.norm(drives)),
        top_eigenvalue=top * unit,
        predicted_top_eigenvalue=law * unit,
        method=method,
        reason=reason,
        mismatch=off[method] if method in off else min(off.values()),
        departure=shift * min(float(ts[-1] - ts[0]), 1 / abs(value.real) if value.real else np.inf),
        alignment=alignment,
        parameter_alignment=float(np.linalg.norm(drive_basis[: span.shape[1]] @ rights)) if drives.any() else np.nan,
    )


def _method(off: dict[str, float], alignment: float) -> tuple[str, str]:
    """The first method whose prediction fits, and why."""
    for name, mismatch in off.items():
        if mismatch <= AGREES:
            refused = [
                f"the {other} prediction is {off[other]:.2g} off" for other in off if other != name and off[other] > AGREES
            ]
            return name, f"the critical part of J is within {mismatch:.2g} of its {name} prediction" + (
                f"; {refused[0]}" if refused else ""
            )
    missed = " and ".join(f"{mismatch:.2g} ({name})" for name, mismatch in off.items())
    if alignment >= ALIGNED:
        return "singular pair", (
            f"the critical part of J is not as predicted, by {missed} of its size, but the top state direction lies along "
            f"the critical one (cosine {alignment:.3f})"
        )
    return "none", (
        f"these trajectories have no channel of this mode: the critical part of J is not as predicted, by {missed} of its "
        f"size, and the top state direction has a cosine of only {alignment:.3f} with the critical one; start nearer to x*, "
        "or with smaller inputs"
    )


def _predicted(weights: np.ndarray, coordinates: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted predictions of l^T J, (B T, p)."""
    weighted = coordinates * np.sqrt(weights)[..., None, None]
    p = coordinates.shape[-1]
    return {name: weighted[:, :, i].reshape(-1, p) for i, name in enumerate(("fixed point", "averaged"))}


# Gauss-Legendre nodes and weights on (0, 1): what is integrated over a step is smooth on its scale.
_NODES, _WEIGHTS = (0.5 + np.array([-1, 0, 1]) * 0.15**0.5), np.array([5, 8, 5]) / 18


@eqx.filter_jit
def carried(replay: Replay, mode: Mode) -> Carried:
    """The mode's coordinate, `c' = lambda c + l^T F`, and its drive along the recorded steps of every input.

    A step's states are those of its cubic interpolant, and a map is summed over its own steps.
    """
    theta, ts = get(replay.model, replay.at), replay.probe.ts
    horizon = ts[-1] - ts[0]

    def one(b: Array) -> tuple[Array, Array, Array]:
        track, drive = jax.tree.map(lambda leaf: leaf[b], replay.tracks), replay.probe.input(b)

        def velocity(t: Array, x: Array) -> Array:
            return replay.model.vector_field(t, x, drive(t))

        def forced(t: Array, x: Array) -> Array:
            """l^T F (p,)."""
            _, pull = jax.vjp(lambda theta: put(replay.model, replay.at, theta).vector_field(t, x, drive(t)), theta)
            real, imag = (
                jnp.concatenate([leaf.ravel() for leaf in pull(part)[0]]) for part in (mode.left.real, mode.left.imag)
            )
            return jax.lax.complex(real, imag)

        def local(t: Array, x: Array) -> Array:
            """l^T A r."""
            real, imag = (jax.jvp(lambda x: velocity(t, x), (x,), (part,))[1] for part in (mode.right.real, mode.right.imag))
            return mode.left @ jax.lax.complex(real, imag)

        def window(t: Array) -> Array:
            return (1 - jnp.cos(2 * jnp.pi * (t - ts[0]) / horizon)) / horizon

        def turning(t: Array) -> Array:
            phase = mode.frequency * (t - ts[0])
            return jax.lax.complex(jnp.cos(phase), -jnp.sin(phase))

        def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            coordinates, total = carry
            t, h, x = track.times[i], track.times[i + 1] - track.times[i], track.states[i]
            if isinstance(replay.model, AbstractMap):
                rates, pushed, length = jnp.stack([mode.value, local(t, x)]), forced(t, x), h.astype(mode.left.dtype)
                moved = coordinates + length * (rates[:, None] * coordinates + pushed[None])
                return moved, total + length * window(t).astype(length.dtype) * turning(t) * pushed
            y, s = track.states[i + 1], jnp.asarray(_NODES, t.dtype)[:, None]
            begin, end = velocity(t, x)[None], velocity(t + h, y)[None]
            # Cubic Hermite.
            across = s**2 * (3 - 2 * s) * (y - x)[None]
            states = x[None] + across + h * (s * (1 - s) ** 2 * begin - s**2 * (1 - s) * end)
            times = t + h * s[:, 0]
            pushed = jax.vmap(forced)(times, states)
            rates = jnp.stack([jnp.full(3, mode.value), jax.vmap(local)(times, states)])
            # int lambda over the step, and from a node to its end, lambda being the parabola through the nodes.
            whole = rates @ (h * jnp.asarray(_WEIGHTS, t.dtype)).astype(rates.dtype)
            left = rates @ (h * jnp.asarray(_LEFT.T, t.dtype)).astype(rates.dtype)
            # What a rate that is not constant adds to the exponential of its average.
            uneven = jnp.exp(left - whole[:, None] * (1 - s[None, :, 0]).astype(rates.dtype))
            gained = (h.astype(rates.dtype) * _exponential_weights(whole) * uneven) @ pushed
            # exp(-i w t) as what turns back from the end of the step.
            swept = jax.lax.complex(jnp.zeros_like(h), mode.frequency * h)
            turned = (h * window(times)).astype(rates.dtype) * turning(t + h) * _exponential_weights(swept[None])[0]
            return jnp.exp(whole)[:, None] * coordinates + gained, total + turned @ pushed

        def interval(carry: tuple[Array, Array], ends: Array) -> tuple[tuple[Array, Array], Array]:
            carry = jax.lax.fori_loop(ends[0], ends[1], step, carry)
            return carry, carry[0]

        p = sum(leaf.size for leaf in theta)
        zero = jnp.zeros((2, p), mode.left.dtype)
        (_, total), coordinates = jax.lax.scan(
            interval, (zero, zero[0]), jnp.stack([track.saved[:-1], track.saved[1:]], axis=1)
        )
        shifts = jax.vmap(local)(ts, track.states[track.saved]) - mode.value
        return jnp.concatenate([zero[None], coordinates]), total, shifts

    return Carried(*jax.lax.map(one, jnp.arange(replay.probe.n_batch)))


def _exponential_weights(z: Complex[Array, " k"]) -> Complex[Array, "k 3"]:
    """int_0^1 e^(z (1 - s)) P(s) ds as weights of a parabola P's values at the nodes: exact, however large z is."""
    nodes = jnp.asarray(_NODES, z.real.dtype).astype(z.dtype)
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, jnp.ones_like(z), z)
    # The moments of 1, s and s^2, by parts.
    moments = [jnp.expm1(safe) / safe]
    for power in (1, 2):
        moments.append((power * moments[-1] - 1) / safe)
    exact = jnp.stack(moments, axis=1) @ jnp.asarray(_TO_PARABOLA, z.real.dtype).astype(z.dtype)
    # Of Gauss' rule the error is of order z^6 / 2e6.
    gauss = jnp.asarray(_WEIGHTS, z.real.dtype).astype(z.dtype)[None] * jnp.exp(z[:, None] * (1 - nodes)[None])
    return jnp.where(small[:, None], gauss, exact)


def _remaining() -> np.ndarray:
    """Row j: the weights with which values at the nodes integrate from node j to one."""
    powers = np.arange(3)
    moments = (1 - _NODES[:, None] ** (powers + 1)) / (powers + 1)
    return moments @ np.linalg.inv(_NODES[:, None] ** powers)


_LEFT = _remaining()
# From moments to weights: the inverse of the nodes' powers.
_TO_PARABOLA = np.linalg.inv(_NODES[:, None] ** np.arange(3))


def critical_mode(model: AbstractStateSpaceModel, x: Array, u: Array, near: complex | None = None) -> Mode:
    """The mode of df/dx at x whose eigenvalue is nearest to the given one, or grows fastest."""
    return mode_of(np.asarray(_jacobian(model, x, u)), model.clock, near)


def mode_of(matrix: np.ndarray, clock: AbstractClock, near: complex | None = None) -> Mode:
    """The mode of `matrix` whose eigenvalue is nearest to the given one, or grows fastest."""
    values = np.linalg.eigvals(matrix)
    if near is None:
        near = complex(values[clock.leading(values)])
    pair = eigenpair(matrix, complex(near.real, abs(near.imag)), values)
    turned = clock.frequency(pair.value)
    dtype = np.result_type(matrix.dtype, np.complex64)
    right, left = pair.right.astype(dtype), pair.left.astype(dtype)
    return Mode(dtype.type(pair.value), right, left, np.asarray(turned, matrix.dtype))


def _wanted(eigenvalues: Any, clock: AbstractClock) -> complex | None:
    """The eigenvalue of df/dx that is asked for: a map's are given by their multipliers."""
    if eigenvalues is None:
        return None
    try:
        wanted = np.atleast_1d(np.asarray(eigenvalues, complex))
    except (TypeError, ValueError):
        wanted = np.zeros(0, complex)
    conjugate = wanted.size == 1 or (wanted.size == 2 and abs(wanted[0] - wanted[1].conj()) <= 1e-6 * abs(wanted[0]))
    if wanted.ndim != 1 or not conjugate or not np.isfinite(wanted).all():
        raise ValueError(f"eigenvalues must be one number or a pair of conjugates, got {eigenvalues!r}")
    return complex(clock.given(wanted[0]))


def _own_input(probe: Probe) -> Array | None:
    """The probe's input where it is one constant, the same for every trajectory."""
    us = probe.us
    if us is None or callable(us) or us.ndim != 2 or bool((np.asarray(us) != np.asarray(us)[:1]).any()):
        return None
    return us[0]


@eqx.filter_jit
def _jacobian(model: AbstractStateSpaceModel, x: Array, u: Array) -> Array:
    return state_jacobian(model, x, u)


def _square(array: np.ndarray) -> float:
    flat = array.ravel()
    return float(flat @ flat)


def _first(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of rows rows^T, and its eigenvector of the smaller Gram matrix."""
    scale = float(np.abs(rows).max()) or 1.0
    found = leading(smaller_gram(rows / scale), 1)
    return float(found.values[0]) * scale**2, found.vectors[:, 0]


def _sides(rows: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The top singular vectors, left and right, from the one that is an eigenvector of the smaller Gram matrix."""
    few = len(rows) <= rows.shape[1]
    other = (rows.T if few else rows) @ vector
    other = other / (np.linalg.norm(other) or 1.0)
    return (vector, other) if few else (other, vector)
