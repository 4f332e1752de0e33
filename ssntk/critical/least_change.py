"""Find the least change of theta that makes an equilibrium critical: a stationary point of the distance.

We minimise `sum_i metric_i (theta_i - start_i)^2 / 2` subject to the conditions c(z, theta) = 0. With Lagrange multipliers
lambda the stationary theta is

    theta(z, lambda) = start - c_theta^T lambda / metric.

If c is affine in theta, as for the weights and biases of a CTRNN of the current form, this formula is explicit. Then only
the 2n unknowns z are left (3n + 1 for a pair), however many parameters there are. They are found by a trust-region Newton
method with exact derivatives. Entries of theta whose sign must be kept are projected. If c is not affine in theta, as in
gated cells, z and theta are found together (`ssntk.critical.together`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy
from jaxtyping import Array, Float

from ssntk.critical.conditions import Conditions, Found, Span, Stationary, squared_unit
from ssntk.critical.together import nearby

# The largest numbers of iterations: Newton's on the multipliers at fixed z, and Newton's at the end.
INNER, POLISH = 40, 60
# A squared change larger than this counts as divergence.
HUGE = 1e12
# The largest number of entries in a batch of columns of the Jacobian: each column holds a change of theta, (p,).
TOGETHER = 2**22


class _Affine(eqx.Module):
    """The equations of a stationary distance, for conditions that are affine in theta."""

    conditions: Conditions
    slack: Float[Array, ""]  # above 0 if no change of theta satisfies some conditions: c = slack multipliers

    def loose(self, z: Array) -> Array:
        """A penalty on the scale and phase of the eigenvectors."""
        fixed = self.conditions.gauges(z)
        return fixed @ fixed / 2

    def theta(self, z: Array, multipliers: Array) -> Array:
        """The stationary theta (p,) at z."""
        freedom, start = self.conditions.freedom, self.conditions.freedom.start
        (pulled,) = jax.vjp(lambda theta: self.conditions.equations(z, theta), start)[1](multipliers)
        return freedom.allowed(start - pulled / freedom.metric)

    def stationarity(self, y: Array) -> Array:
        """(dL/dz, c - slack multipliers) at the stationary theta. Both are zero at a stationary point of the distance."""
        z, multipliers = y[: self.conditions.unknowns], y[self.conditions.unknowns :]
        theta = self.theta(z, multipliers)
        value, pull = jax.vjp(lambda z: self.conditions.equations(z, theta), z)
        return jnp.concatenate([pull(multipliers)[0] + jax.grad(self.loose)(z), value - self.slack * multipliers])


@eqx.filter_jit
def _system(problem: _Affine, y: Array) -> tuple[Array, Array, Array]:
    """(dL/dz, c), its Jacobian over y = (z, multipliers), and theta."""
    value, push = jax.linearize(problem.stationarity, y)
    together = max(1, TOGETHER // problem.conditions.freedom.start.shape[0])
    jacobian = jax.lax.map(push, jnp.eye(y.shape[0], dtype=y.dtype), batch_size=together).T
    count = problem.conditions.unknowns
    return value, jacobian, problem.theta(y[:count], y[count:])


class _Outer:
    """The squared distance / 2 over z, with its derivatives, for a minimiser that requests them one after the other."""

    def __init__(self, problem: _Affine, multipliers: np.ndarray):
        self.problem, self.multipliers = problem, multipliers
        self.seen: tuple[bytes, float, np.ndarray, np.ndarray] | None = None
        self.unit = squared_unit(problem.conditions)

    def solve(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The value, gradient and Hessian at z; infinite if no change of theta satisfies the conditions there."""
        if self.seen is not None and self.seen[0] == z.tobytes():
            return self.seen[1:]
        size, last, freedom = len(z), np.inf, self.problem.conditions.freedom
        multipliers, result = self.multipliers, (np.inf, np.zeros(size), np.eye(size))
        for _ in range(INNER):
            value, jacobian, theta = _solved(self.problem, z, multipliers)
            if not np.isfinite(jacobian).all():
                break
            left = float(np.abs(value[size:]).max())
            move = np.linalg.lstsq(jacobian[size:, size:], -value[size:], rcond=1e-13)[0]
            small = np.abs(move).max() <= 1e-12 * np.abs(multipliers).max()
            if small or (left >= last / 2 and left <= 1e-9):
                _, hessian = _along(jacobian, size)
                squared = freedom.length(theta - np.asarray(freedom.start)) ** 2 / 2
                squared += float(self.problem.slack) * float(multipliers @ multipliers) / 2
                squared += float(self.problem.loose(jax.device_put(z)))
                if not squared < HUGE * self.unit or not np.isfinite(hessian).all():
                    break
                self.multipliers = multipliers
                result = squared, value[:size], hessian
                break
            multipliers, last = multipliers + move, left
            if not np.abs(multipliers).max() < HUGE * self.unit:
                break
        self.seen = (z.tobytes(), *result)
        return result


def _solved(problem: _Affine, z: np.ndarray, multipliers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, jacobian, theta = _system(problem, jax.device_put(np.concatenate([z, multipliers])))
    return np.asarray(value), np.asarray(jacobian), np.asarray(theta)


def _along(jacobian: np.ndarray, size: int, slack: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the multipliers over z, and the Hessian of the distance over z."""
    inner = jacobian[size:, size:] - slack * np.eye(len(jacobian) - size)
    toward = -np.linalg.lstsq(inner, jacobian[size:, :size], rcond=1e-13)[0]
    hessian = jacobian[:size, :size] + jacobian[:size, size:] @ toward
    return toward, (hessian + hessian.T) / 2


@eqx.filter_jit
def _bent(conditions: Conditions, z: Array) -> tuple[Array, Array]:
    """How far each condition departs from its linearisation in theta, at a change as large as theta; and what it sums up."""
    start = conditions.freedom.start
    size = jnp.maximum(jnp.abs(start), jnp.abs(start).mean())
    change = jnp.where(size > 0, size, 1.0).astype(start.dtype) * jr.normal(jr.key(0), start.shape, start.dtype)
    value, along = jax.jvp(lambda theta: conditions.equations(z, theta), (start,), (change,))
    there = conditions.equations(z, start + change)
    return jnp.abs(there - value - along), jnp.abs(there) + jnp.abs(value) + jnp.abs(along)


def is_affine(conditions: Conditions, z: np.ndarray) -> bool:
    """Whether the conditions are affine in theta."""
    off, size = (np.asarray(part) for part in _bent(conditions, jax.device_put(z)))
    return bool((off <= 1e-9 * size.max()).all())


def least_change(conditions: Conditions, z: np.ndarray, theta: np.ndarray, span: Span) -> Found | None:
    """A stationary point from a start z and theta; `None` if the search breaks down.

    A point at the limits of `span` or beyond them is not stationary.
    """
    found = _by_formula(conditions, z) if is_affine(conditions, z) else None
    if found is not None and (found.converged or span.ended(conditions, found.z)):
        return Found(conditions, found)
    return nearby(conditions, z, theta, span)


def _by_formula(conditions: Conditions, z: np.ndarray) -> Stationary | None:
    """A stationary point for conditions that are affine in theta; `None` if the search breaks down."""
    count = jax.eval_shape(conditions.equations, jnp.asarray(z), conditions.freedom.start).shape[0]
    problem = _Affine(conditions, jnp.zeros_like(conditions.given))
    found = _minimise(problem, z, np.zeros(count))
    return None if found is None else _polished(problem, *found)


def _minimise(problem: _Affine, z: np.ndarray, multipliers: np.ndarray) -> tuple[np.ndarray, np.ndarray, int] | None:
    """(z, multipliers, iterations) at a minimum over z."""
    size, iterations = len(z), 0
    jacobian = _solved(problem, z, multipliers)[1]
    if not np.isfinite(jacobian).all():
        return None
    # If theta does not enter some conditions, z alone has to meet them: as a penalty that grows stiffer.
    strength = np.linalg.svd(jacobian[size:, size:], compute_uv=False)
    free = bool(strength[-1] > 1e-12 * strength[0])
    stiffer = (1e-2, 1e-4, 1e-6)
    for slack in (0.0,) if free else tuple(part * strength[0] for part in stiffer):
        eased = _Affine(problem.conditions, jax.device_put(np.asarray(slack, problem.slack.dtype)))
        outer = _Outer(eased, multipliers)
        if not np.isfinite(outer.solve(z)[0]):
            return None
        try:
            with np.errstate(all="ignore"):
                found = scipy.optimize.minimize(
                    lambda z, outer=outer: outer.solve(z)[0],
                    z,
                    jac=lambda z, outer=outer: outer.solve(z)[1],
                    hess=lambda z, outer=outer: outer.solve(z)[2],
                    method="trust-exact",
                    options={"gtol": 1e-9 * outer.unit, "maxiter": 100, "initial_trust_radius": 0.3},
                )
        except (ValueError, np.linalg.LinAlgError):
            return None
        outer.solve(found.x)
        z, multipliers, iterations = found.x, outer.multipliers, iterations + int(found.nit)
    return z, multipliers, iterations


def _residuals(
    problem: _Affine, value: np.ndarray, jacobian: np.ndarray, z: np.ndarray, multipliers: np.ndarray
) -> tuple[float, float]:
    """The largest |dL/dz| relative to the sizes of its terms, and the largest |c|."""
    size = len(z)
    scale = squared_unit(problem.conditions) + np.abs(jacobian[:size, size:]) @ np.abs(multipliers)
    return float((np.abs(value[:size]) / scale).max()), float(np.abs(value[size:]).max())


def _polished(problem: _Affine, z: np.ndarray, multipliers: np.ndarray, iterations: int) -> Stationary:
    """Newton's iteration on all unknowns together, to rounding error."""
    size, best = len(z), None
    for _ in range(POLISH):
        value, jacobian, theta = _solved(problem, z, multipliers)
        if not np.isfinite(jacobian).all():
            break
        kkt, violation = _residuals(problem, value, jacobian, z, multipliers)
        if best is not None and not max(kkt, violation) < 0.8 * max(best.kkt, best.violation):
            break
        strength = np.abs(jacobian[size:, size:]).max()
        # The curvature along the conditions decides. Across them a small slack makes it large and positive.
        curvatures = np.linalg.eigvalsh(_along(jacobian, size, 1e-9 * strength)[1])
        minimum = bool(curvatures[0] >= -1e-6 * np.median(np.abs(curvatures)))
        best = Stationary(z, theta, multipliers, violation, kkt, minimum, iterations)
        move = np.linalg.lstsq(jacobian, -value, rcond=1e-14)[0]
        z, multipliers = z + move[:size], multipliers + move[size:]
    nothing = Stationary(z, np.asarray(problem.conditions.freedom.start), multipliers, np.inf, np.inf, False, iterations)
    return nothing if best is None else best
