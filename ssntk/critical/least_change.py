"""Find the least change of theta that makes an equilibrium critical: a stationary point of the distance, by Newton's method.

We minimise `sum_i metric_i (theta_i - start_i)^2 / 2` subject to the conditions c(z, theta) = 0. The unknowns z hold the
state and the critical eigenvectors. With Lagrange multipliers lambda the stationary theta is

    theta(z, lambda) = start - c_theta^T lambda / metric.

If c is affine in theta, as for the weights and biases of a CTRNN of the current form, this formula is explicit. Then only
the 2n unknowns z are left (3n + 1 for a pair), however many parameters there are. They are found by a trust-region Newton
method with exact derivatives. If c is not affine in theta, it is linearised repeatedly, and the last digits come from
Newton's iteration on the exact equations. Entries of theta whose sign must be kept are projected.

| kind | z | c |
|---|---|---|
| singular | x, v | f, A v |
| saddle-node | x, v, l | f, A v, A^T l normal to v, l.f_xx(v, v) - 2 a l.v abs(v), with a given |
| flip | x, v | f, A v + (2 / dt) v |
| pair | x, v, w, s | f, A v - q v + s w, A w - q w - v |
| turning | x, v, w | the same, with s given |

The equations of a pair mean `A (v + i omega w) = (q + i omega) (v + i omega w)`. The unknown is s = omega^2, so that the
equations stay regular at omega = 0. For flows q = 0. For maps q = (sqrt(1 - s dt^2) - 1) / dt, and the unknown is the
cosine of the multiplier's angle instead of s.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from ssntk.critical.freedom import Freedom
from ssntk.dynamics.stability import field_at
from ssntk.newton import newton

# The number of vectors (n,) in z, for each kind.
VECTORS = {"singular": 2, "flip": 2, "saddle-node": 3, "pair": 3, "turning": 3}
PAIRS = ("pair", "turning")
# The largest numbers of iterations: Newton's on the multipliers at fixed z, linearisations in theta, Newton's at the end.
INNER, OUTER, POLISH = 40, 30, 60
# The largest number of steps of the outer problem, the minimisation over z.
ITERATIONS = 250
# A squared change larger than this counts as divergence.
HUGE = 1e12
# The largest number of entries in a batch of columns of the Jacobian: each column holds a change of theta, (p,).
TOGETHER = 2**22


class Conditions(eqx.Module):
    """The conditions c(z, theta) = 0 of one kind of point, and the equations of a stationary distance."""

    freedom: Freedom
    u: Float[Array, " d"]
    gauge: Float[Array, " n"]  # c of c.v = 1: fixes the scale (and of a pair the phase) of the eigenvectors
    given: Float[Array, ""]
    centre: Float[Array, " p"]  # where c is linearised in theta
    slack: Float[Array, ""]  # above 0 if no change of theta satisfies some conditions: c = slack multipliers
    weigh: Float[Array, " n"]  # the weight of each state in the length of v, which enters a fold's coefficient
    kind: str = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    @property
    def n(self) -> int:
        return self.freedom.model.n_state

    @property
    def unknowns(self) -> int:
        """The number of unknowns in z."""
        return VECTORS[self.kind] * self.n + (self.kind == "pair")

    def parts(self, z: Array) -> list[Array]:
        """Split z into x (n,), v (n,) and what else it holds for this kind."""
        parts = [z[i * self.n : (i + 1) * self.n] for i in range(VECTORS[self.kind])]
        return [*parts, z[-1] if self.kind == "pair" else self.given] if self.kind in PAIRS else parts

    def turning(self, last: Array) -> tuple[Array, Array]:
        """(q, s = omega^2) of a pair, from the last unknown: s itself, or for maps the cosine of the multiplier's angle."""
        return self.freedom.model.clock.edge_of(last)

    def equations(self, z: Array, theta: Array) -> Array:
        """The residual c(z, theta) of all conditions."""
        model = self.freedom.at_theta(theta)

        def field(x: Array) -> Array:
            return field_at(model, x, self.u)

        if self.kind in PAIRS:
            x, v, w, last = self.parts(z)
            velocity, push = jax.linearize(field, x)
            q, s = self.turning(last)
            return jnp.concatenate([velocity, push(v) - q * v + s * w, push(w) - q * w - v])
        x, v, *rest = self.parts(z)
        if self.kind != "saddle-node":
            velocity, along = jax.jvp(field, (x,), (v,))
            return jnp.concatenate([velocity, along + (2 / model.clock.unit * v if self.kind == "flip" else 0.0)])
        (left,) = rest
        velocity, along = jax.jvp(field, (x,), (v,))
        (back,) = jax.vjp(field, x)[1](left)
        # Only the part of A^T l normal to v is used, since v^T A^T l = 0 follows from A v = 0. Its basis comes from the
        # reflection that maps v onto an axis.
        axis = jnp.argmax(jnp.abs(self.gauge))
        mirror = v / jnp.linalg.norm(v) + jnp.sign(self.gauge[axis]) * jnp.eye(self.n, dtype=v.dtype)[axis]
        across = jnp.roll(back - 2 * mirror * (mirror @ back) / (mirror @ mirror), -axis)[1:]
        bent = jax.jvp(lambda x: jax.jvp(field, (x,), (v,))[1], (x,), (v,))[1]
        bend = left @ bent - 2 * self.given * (left @ v) * jnp.linalg.norm(self.weigh * v)
        return jnp.concatenate([velocity, along, across, bend[None]])

    def loose(self, z: Array) -> Array:
        """A penalty on the scale and phase of the eigenvectors, which no condition fixes; zero at the chosen ones."""
        _, v, *rest = self.parts(z)
        penalty = (self.gauge @ v - 1) ** 2
        if self.kind in PAIRS:
            penalty += (self.gauge @ rest[0]) ** 2
        if self.kind == "saddle-node":
            penalty += (rest[0] @ rest[0] - 1) ** 2 / 4
        return penalty / 2

    def theta(self, z: Array, multipliers: Array) -> Array:
        """The stationary theta (p,) at z, with c linearised at `centre` unless `exact`."""
        freedom = self.freedom

        def wanted(theta: Array) -> Array:
            (pulled,) = jax.vjp(lambda theta: self.equations(z, theta), theta)[1](multipliers)
            return freedom.allowed(freedom.start - pulled / freedom.metric)

        if not self.exact:
            return wanted(self.centre)

        def rest(theta: Array) -> Array:
            return theta - wanted(theta)

        def linear(function: Callable[[Array], Array], value: Array) -> Array:
            return jax.scipy.sparse.linalg.bicgstab(function, value, tol=1e-13, maxiter=200)[0]

        def solve(function: Callable[[Array], Array], theta: Array) -> Array:
            def improve(theta: Array) -> tuple[Array, Array, Array]:
                value, push = jax.linearize(function, theta)
                move = -linear(push, value)
                size = jnp.maximum(jnp.abs(theta + move).max(), jnp.abs(self.freedom.start).max())
                relative = jnp.where(size > 0, jnp.abs(move).max() / jnp.where(size > 0, size, 1), 0)
                return move, relative, jnp.zeros((), theta.dtype)

            return newton(improve, theta, lambda size, before, count: size > 1e-14, 8).x

        return jax.lax.custom_root(rest, self.centre, solve, linear)

    def stationarity(self, y: Array) -> Array:
        """(dL/dz, c - slack multipliers) at the stationary theta. Both are zero at a stationary point of the distance."""
        z, multipliers = y[: self.unknowns], y[self.unknowns :]
        theta = self.theta(z, multipliers)

        def linearised(z: Array) -> Array:
            at = theta if self.exact else self.centre
            value, along = jax.jvp(lambda theta: self.equations(z, theta), (at,), (theta - at,))
            return value + along

        value, pull = jax.vjp(linearised, z)
        return jnp.concatenate([pull(multipliers)[0] + jax.grad(self.loose)(z), value - self.slack * multipliers])


@eqx.filter_jit
def _system(conditions: Conditions, y: Array) -> tuple[Array, Array, Array]:
    """(dL/dz, c), its Jacobian over y = (z, multipliers), and theta."""
    value, push = jax.linearize(conditions.stationarity, y)
    together = max(1, TOGETHER // conditions.freedom.start.shape[0])
    jacobian = jax.lax.map(push, jnp.eye(y.shape[0], dtype=y.dtype), batch_size=together).T
    count = conditions.unknowns
    return value, jacobian, conditions.theta(y[:count], y[count:])


class Stationary(NamedTuple):
    """A stationary point of the distance, or the point at which the search for one ended."""

    z: np.ndarray
    theta: np.ndarray
    multipliers: np.ndarray
    violation: float  # the largest |c|
    kkt: float  # the largest |dL/dz|, relative to the sizes of its terms
    minimum: bool  # whether the distance has no direction of descent left, to second order
    iterations: int


class _Outer:
    """The squared distance / 2 over z, with its derivatives, for a minimiser that requests them one after the other."""

    def __init__(self, conditions: Conditions, multipliers: np.ndarray):
        self.conditions, self.multipliers = conditions, multipliers
        self.seen: tuple[bytes, float, np.ndarray, np.ndarray] | None = None
        self.theta, self.unit = np.asarray(conditions.freedom.start), squared_unit(conditions)

    def solve(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The value, gradient and Hessian at z; infinite if no change of theta satisfies the conditions there."""
        if self.seen is not None and self.seen[0] == z.tobytes():
            return self.seen[1:]
        size, last, freedom = len(z), np.inf, self.conditions.freedom
        multipliers, result = self.multipliers, (np.inf, np.zeros(size), np.eye(size))
        for _ in range(INNER):
            value, jacobian, theta = _solved(self.conditions, z, multipliers)
            if not np.isfinite(jacobian).all():
                break
            left = float(np.abs(value[size:]).max())
            move = np.linalg.lstsq(jacobian[size:, size:], -value[size:], rcond=1e-13)[0]
            small = np.abs(move).max() <= 1e-12 * np.abs(multipliers).max()
            if small or (left >= last / 2 and left <= 1e-9):
                _, hessian = _along(jacobian, size)
                squared = freedom.length(theta - np.asarray(freedom.start)) ** 2 / 2
                squared += float(self.conditions.slack) * float(multipliers @ multipliers) / 2
                squared += float(self.conditions.loose(jax.device_put(z)))
                if not squared < HUGE * self.unit or not np.isfinite(hessian).all():
                    break
                self.multipliers, self.theta = multipliers, theta
                result = squared, value[:size], hessian
                break
            multipliers, last = multipliers + move, left
            if not np.abs(multipliers).max() < HUGE * self.unit:
                break
        self.seen = (z.tobytes(), *result)
        return result


def squared_unit(conditions: Conditions) -> float:
    """The unit of squared distances: the largest metric_i start_i^2; one if all entries are zero."""
    start, metric = np.asarray(conditions.freedom.start, float), np.asarray(conditions.freedom.metric, float)
    return float((metric * start**2).max()) or 1.0


def _solved(conditions: Conditions, z: np.ndarray, multipliers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, jacobian, theta = _system(conditions, jax.device_put(np.concatenate([z, multipliers])))
    return np.asarray(value), np.asarray(jacobian), np.asarray(theta)


def _along(jacobian: np.ndarray, size: int, slack: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the multipliers over z, and the Hessian of the distance over z."""
    inner = jacobian[size:, size:] - slack * np.eye(len(jacobian) - size)
    toward = -np.linalg.lstsq(inner, jacobian[size:, :size], rcond=1e-13)[0]
    hessian = jacobian[:size, :size] + jacobian[:size, size:] @ toward
    return toward, (hessian + hessian.T) / 2


def least_change(conditions: Conditions, z: np.ndarray, leaves: Callable[[np.ndarray], bool]) -> Stationary | None:
    """A stationary point from a start z; `None` if the search breaks down, or if `leaves` is true for a step."""
    count = jax.eval_shape(conditions.equations, jnp.asarray(z), conditions.freedom.start).shape[0]
    start, multipliers = np.asarray(conditions.freedom.start), np.zeros(count)
    iterations, last, part, free = 0, np.inf, 1.0, None
    for _ in range(OUTER):
        found = _minimise(conditions, z, multipliers, free)
        if found is None or leaves(found[0]):
            return None
        z, multipliers, theta, used, free = found
        iterations += used
        if iterations > ITERATIONS:
            return None
        # If c is affine in theta, this is the answer. If not, c is linearised again, with shorter steps if need be.
        step = theta - np.asarray(conditions.centre)
        moved = float(np.abs(step).max())
        part = max(part / 2, 0.1) if moved > 0.7 * last else min(1.0, 1.5 * part)
        conditions = _recentred(conditions, np.asarray(conditions.centre) + part * step)
        _, violation = _residuals(conditions, *_solved(conditions, z, multipliers)[:2], z, multipliers)
        if violation <= 1e-9 or moved <= 1e-3 * np.abs(theta - start).max():
            break
        last = moved
    result = _polished(conditions, z, multipliers, iterations)
    if not max(result.violation, result.kkt) <= 1e-11:
        exact = dataclasses.replace(_recentred(conditions, result.theta), exact=True)
        other = _polished(exact, result.z, result.multipliers, iterations)
        result = min(result, other, key=lambda one: max(one.violation, one.kkt))
    return result


def _recentred(conditions: Conditions, theta: np.ndarray) -> Conditions:
    return eqx.tree_at(lambda c: c.centre, conditions, jax.device_put(np.asarray(theta, conditions.centre.dtype)))


def _minimise(
    conditions: Conditions, z: np.ndarray, multipliers: np.ndarray, was_free: bool | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, bool] | None:
    """(z, multipliers, theta, iterations, free) at a minimum over z, with c linearised in theta.

    `free`: whether theta enters every condition. `was_free`: `free` of the call before, `None` at the first call.
    """
    size, iterations = len(z), 0
    _, jacobian, theta = _solved(conditions, z, multipliers)
    if not np.isfinite(jacobian).all():
        return None
    # If theta does not enter some conditions, z alone has to meet them: as a penalty that grows stiffer.
    strength = np.linalg.svd(jacobian[size:, size:], compute_uv=False)
    free = bool(strength[-1] > 1e-12 * strength[0])
    if was_free and not free:
        # The search has diverged to a point at which theta has no effect.
        return None
    stiffer = (1e-2, 1e-4, 1e-6) if was_free is None else (1e-6,)
    for slack in (0.0,) if free else tuple(part * strength[0] for part in stiffer):
        eased = eqx.tree_at(lambda c: c.slack, conditions, jax.device_put(np.asarray(slack, conditions.slack.dtype)))
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
        z, multipliers, theta, iterations = found.x, outer.multipliers, outer.theta, iterations + int(found.nit)
    return z, multipliers, theta, iterations, free


def _residuals(
    conditions: Conditions, value: np.ndarray, jacobian: np.ndarray, z: np.ndarray, multipliers: np.ndarray
) -> tuple[float, float]:
    """The largest |dL/dz| relative to the sizes of its terms, and the largest |c|."""
    size = len(z)
    scale = squared_unit(conditions) + np.abs(jacobian[:size, size:]) @ np.abs(multipliers)
    return float((np.abs(value[:size]) / scale).max()), float(np.abs(value[size:]).max())


def _polished(conditions: Conditions, z: np.ndarray, multipliers: np.ndarray, iterations: int) -> Stationary:
    """Newton's iteration on all unknowns together, to rounding error."""
    size, best = len(z), None
    for _ in range(POLISH):
        value, jacobian, theta = _solved(conditions, z, multipliers)
        if not np.isfinite(jacobian).all():
            break
        kkt, violation = _residuals(conditions, value, jacobian, z, multipliers)
        # theta is stationary if c is linearised at theta itself.
        size_of = max(np.abs(theta).max(), np.abs(np.asarray(conditions.freedom.start)).max()) or 1.0
        off = np.abs(theta - np.asarray(conditions.centre)).max() / size_of
        kkt = kkt if conditions.exact else max(kkt, float(off))
        if best is not None and not max(kkt, violation) < 0.8 * max(best.kkt, best.violation):
            break
        strength = np.abs(jacobian[size:, size:]).max()
        # The curvature along the conditions decides. Across them a small slack makes it large and positive.
        curvatures = np.linalg.eigvalsh(_along(jacobian, size, 1e-9 * strength)[1])
        minimum = bool(curvatures[0] >= -1e-6 * np.median(np.abs(curvatures)))
        best = Stationary(z, theta, multipliers, violation, kkt, minimum, iterations)
        move = np.linalg.lstsq(jacobian, -value, rcond=1e-14)[0]
        z, multipliers = z + move[:size], multipliers + move[size:]
        conditions = _recentred(conditions, theta)
    nothing = Stationary(z, np.asarray(conditions.centre), multipliers, np.inf, np.inf, False, iterations)
    return nothing if best is None else best
