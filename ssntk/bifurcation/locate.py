"""Locating one bifurcation point by Newton's iteration on its extended system.

Saddle-node: f = 0, A v = 0, c.v = 1 (Moore and Spence, 1980). Hopf: f = 0, A (v + i w) = i omega (v + i w),
c.v = 1, c.w = 0 (Griewank and Reddien, 1983). Both are regular at a nondegenerate point, where the plain system is not.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.family import Family
from ssntk.bifurcation.normal_form import first_lyapunov, fold_coefficient
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.stability import Eigenpair, eigenpair, field_at, state_jacobian
from ssntk.errors import NumericalError, as_array, as_choice, as_instance, as_scalar
from ssntk.models.base import dtype_of

KINDS = ("saddle-node", "hopf")


@dataclasses.dataclass(frozen=True)
class Bifurcation:
    """A bifurcation point of equilibria.

    - `kind`: `"saddle-node"` or `"hopf"`; in `Branch.unresolved` also `"branch-point"` and `"unknown"`.
    - `parameter`; `x` (n,); `frequency`: angular, rad per unit time, 0 for a real eigenvalue.
    - `right`, `left` (n,): critical eigenvectors, |right| = 1, left^T right = 1 not conjugated; complex for a Hopf.
    - `coefficient`: a of a saddle-node, l1 of a Hopf (see `normal_form`). `criticality`: of a Hopf, else `None`.
    - `residual`: the largest entry of the extended system. `interval`: parameters between which the point lies, from
      the last Newton correction and the rounding error; of an unresolved event, those between which it was seen.
    - `converged`, and `reason` where not.
    """

    kind: str
    parameter: float
    x: np.ndarray
    frequency: float
    right: np.ndarray
    left: np.ndarray
    coefficient: float
    criticality: str | None
    residual: float
    interval: tuple[float, float]
    converged: bool
    reason: str = ""


def locate(family: Family, kind: str, *, parameter: Any, x: Any, u: Any = None) -> Bifurcation:
    """Refine a guess of a bifurcation point to rounding error.

    **Arguments:** `kind`: `"saddle-node"` or `"hopf"`. `parameter`, `x` (n,): the guess. `u`: (d,) constant input.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where Newton's iteration does not converge to a
    point of this kind.
    """
    as_instance(family, "family", Family)
    as_choice(kind, "kind", KINDS)
    dtype = dtype_of(family.model)
    guess = as_array(x, "x", (family.model.n_state,)).astype(dtype)
    point = refine(family, constant_input(family.model, u), kind, as_scalar(parameter, "parameter").astype(dtype), guess)
    if not point.converged:
        raise NumericalError(f"no {kind} near p = {float(parameter):g}: {point.reason}")
    return point


def refine(family: Family, u: Array, kind: str, parameter: Any, x: Any) -> Bifurcation:
    """As [`locate`][], for arguments that were checked; failure is told by `converged` and `reason`."""
    parameter, x = jnp.asarray(parameter), jnp.asarray(x)
    jacobian = np.asarray(_jacobian(family, u, parameter, x))
    values = np.linalg.eigvals(jacobian)
    if kind == "hopf":
        values = values[values.imag > 0]
        if values.size == 0:
            return _failed(kind, parameter, x, "no complex pair of eigenvalues there")
    else:
        values = values[values.imag == 0] if (values.imag == 0).any() else values.real
    try:
        pair = eigenpair(jacobian, complex(values[np.argmin(np.abs(values.real))]))
    except NumericalError as error:
        return _failed(kind, parameter, x, str(error))
    start = _pack(kind, x, parameter, pair)
    solved, correction, residual = _newton(family, u, kind, start, jnp.asarray(pair.right.real))
    return _read(family, u, kind, solved, float(correction), float(residual))


def _pack(kind: str, x: Array, parameter: Array, pair: Eigenpair) -> Array:
    """The unknowns: (x, v, p), or (x, v, w, omega, p), scaled so that c.v = 1 and c.w = 0 with c = Re(right)."""
    border = pair.right.real
    scaled = pair.right / (border @ pair.right)
    parts = (
        [x, scaled.real, scaled.imag, [pair.value.imag], [parameter]] if kind == "hopf" else [x, scaled.real, [parameter]]
    )
    return jnp.concatenate([jnp.asarray(part, x.dtype) for part in parts])


def _extended(family: Family, u: Array, kind: str, y: Array, border: Array) -> Array:
    """The residual of the extended system at the unknowns `y`."""
    n = border.shape[0]
    x, model = y[:n], family(y[-1])
    velocity, push = jax.linearize(lambda x: field_at(model, x, u), x)
    if kind == "saddle-node":
        v = y[n : 2 * n]
        return jnp.concatenate([velocity, push(v), (border @ v - 1)[None]])
    v, w, omega = y[n : 2 * n], y[2 * n : 3 * n], y[-2]
    return jnp.concatenate([velocity, push(v) + omega * w, push(w) - omega * v, jnp.stack([border @ v - 1, border @ w])])


@eqx.filter_jit
def _newton(family: Family, u: Array, kind: str, start: Array, border: Array) -> tuple[Array, Array, Array]:
    """The solution, the size of the last correction of (x, p), and the residual before it."""
    n, eps = border.shape[0], jnp.finfo(start.dtype).eps

    def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        y, _, _, count = state
        residual = _extended(family, u, kind, y, border)
        step = jnp.linalg.solve(jax.jacfwd(lambda y: _extended(family, u, kind, y, border))(y), -residual)
        size = jnp.maximum(jnp.abs(step[:n]).max(), jnp.abs(step[-1]))
        return y + step, size, jnp.abs(residual).max(), count + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        y, size, _, count = state
        return (size > 32 * eps * (1 + jnp.abs(y[-1]))) & (count < 20) & jnp.isfinite(y).all()

    infinite = jnp.asarray(jnp.inf, start.dtype)
    y, size, residual, _ = jax.lax.while_loop(unfinished, improve, (start, infinite, infinite, jnp.asarray(0)))
    return y, size, residual


@eqx.filter_jit
def _jacobian(family: Family, u: Array, parameter: Array, x: Array) -> Array:
    return state_jacobian(family(parameter), x, u)


@eqx.filter_jit
def _differences(family: Family, u: Array, parameter: Array, x: Array) -> tuple[Array, Array, Array]:
    """A; the size of its change over the size of the state, (n,); and df/dp."""

    def jacobian(x: Array) -> Array:
        return state_jacobian(family(parameter), x, u)

    direction = jnp.full_like(x, jnp.maximum(jnp.abs(x).max(), 1e-3))
    changed = jax.jvp(jacobian, (x,), (direction,))[1]
    return jacobian(x), jnp.abs(changed).sum(axis=1), jax.jacfwd(lambda p: field_at(family(p), x, u))(parameter)


def _read(family: Family, u: Array, kind: str, solved: Array, correction: float, residual: float) -> Bifurcation:
    """The point that the unknowns describe, its eigenvectors from its own Jacobian, and its coefficient."""
    n = family.model.n_state
    x, parameter = solved[:n], solved[-1]
    eps = float(jnp.finfo(solved.dtype).eps)
    scale = 1 + float(jnp.abs(solved).max())
    if not np.isfinite(np.asarray(solved)).all() or not correction <= eps**0.6 * scale:
        return _failed(kind, parameter, x, "Newton's iteration on the extended system did not converge")
    jacobian, curved, slope = (np.asarray(part) for part in _differences(family, u, parameter, x))
    curvature = float(curved.max())
    frequency = abs(float(solved[-2])) if kind == "hopf" else 0.0
    # How large the Jacobian is over states of the size at hand: at the fold of a scalar model it vanishes itself.
    size = float(np.abs(jacobian).sum(axis=1).max()) + curvature
    if kind == "hopf" and frequency <= eps**0.4 * size:
        return _failed(kind, parameter, x, "the frequency tends to zero, so it is no Hopf point")
    try:
        pair = eigenpair(jacobian, 1j * frequency)
    except NumericalError as error:
        return _failed(kind, parameter, x, str(error))
    if abs(pair.value - 1j * frequency) > eps**0.4 * size:
        return _failed(kind, parameter, x, "the Jacobian has no such critical eigenvalue")
    right, left = jnp.asarray(pair.right), jnp.asarray(pair.left)
    criticality = None
    if kind == "hopf":
        coefficient = float(first_lyapunov(family, u, parameter, x, jnp.asarray(frequency, x.dtype), right, left))
        if abs(coefficient) > eps**0.6:
            criticality = "supercritical" if coefficient < 0 else "subcritical"
    else:
        coefficient = float(fold_coefficient(family, u, parameter, x, right, left))
        # At a transcritical or pitchfork point the parameter does not push along the critical direction; at a cusp a is 0.
        if abs(pair.left @ slope) <= eps**0.4 * np.linalg.norm(pair.left) * np.linalg.norm(slope):
            return _failed(kind, parameter, x, "the branch does not turn there: it is a branch point")
        if abs(coefficient) <= eps**0.6 * size:
            return _failed(kind, parameter, x, "its quadratic coefficient vanishes: it is a cusp")
    p = float(parameter)
    width = correction + 4 * eps * (1 + abs(p))
    return Bifurcation(
        kind,
        p,
        np.asarray(x),
        frequency,
        pair.right,
        pair.left,
        coefficient,
        criticality,
        residual,
        (p - width, p + width),
        True,
    )


def _failed(kind: str, parameter: Any, x: Any, reason: str) -> Bifurcation:
    p, x = float(parameter), np.asarray(x)
    nothing = np.full(x.shape, np.nan)
    return Bifurcation(kind, p, x, np.nan, nothing, nothing, np.nan, None, np.nan, (p, p), False, reason)
