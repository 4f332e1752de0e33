"""Find the nearest network that is far enough from every bifurcation."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array

from ssntk.critical.fragile import most_fragile, searched
from ssntk.critical.freedom import Freedom
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric, in_metric
from ssntk.dynamics.radius import local_minima, nearest_edge
from ssntk.dynamics.refine import check_fixed_point, polish
from ssntk.dynamics.stability import exponents, field_at, linearised, state_jacobian
from ssntk.errors import NumericalError, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.to_torch import to_torch
from ssntk.nouns import AnyArray, HostReal, Lens
from ssntk.precision import in_precision, watch_precision
from ssntk.results import Holder, short
from ssntk.threads import one_blas_thread

# Singular values below this multiple of the margin are constrained not to fall below the margin.
WATCHED = 1.6
# The largest numbers of iterations of the outer and of the inner problem.
OUTER, INNER = 100, 80
# Relative tolerances of a solution: the margin before polishing (NEARLY), by how much another network may be nearer (GAP),
# the margin after polishing (TIGHT).
NEARLY, GAP, TIGHT = 1e-6, 1e-7, 1e-9


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Retreat(Holder):
    """The nearest network whose equilibrium has a stability radius of at least a margin.

    - `model`: the network. `x` (n,): its equilibrium. `x_start` (n,): that of the network it was made from.
    - `stability_radius`: that of the equilibrium in 1 / time, at least the margin. `frequencies` (k,): the angular
      frequencies at which it is attained, in rad per unit time, one for each active constraint.
    - `distance`: sqrt(sum metric (theta - start)^2), a local minimum; 0 if nothing had to change.
    - `gap`: the fraction of `distance` by which a network nearby could be nearer, to first order.

    **Example:**

    ```python
    moved = ssntk.retreat(ssntk.CTRNN.from_weights(0.95 * np.eye(2)), 0.1, full=True)
    print(round(moved.stability_radius, 6), jnp.diag(moved.model.weight).round(6))  # 0.1 [0.9 0.9]
    ```
    """

    model: AbstractStateSpaceModel
    x: np.ndarray
    x_start: np.ndarray
    stability_radius: float
    frequencies: np.ndarray
    distance: float
    gap: float

    def to_torch(self, state_dict: Any, *, names: Any = None) -> Any:
        """Copy the PyTorch weights from which [`from_torch`][] made the network, and put in those of `model`.

        **Arguments:** `state_dict`: the original weights: a dict, or the module or checkpoint that holds them. `names`: as
        given to `from_torch`.

        **Returns:** a dict for `load_state_dict`, with the same names and types (tensors, NumPy or JAX arrays, in their
        precision and on their device). Weights that did not change are copied. If a layer has two biases, each goes back to
        its own place.

        Raises `ValueError` if the network cannot have come from these weights.

        ```python
        weights = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": 0.95 * np.eye(2)}  # or net.state_dict()
        safe = ssntk.retreat(ssntk.from_torch(weights), 0.1, full=True)
        print(np.diag(safe.to_torch(weights)["weight_hh_l0"]).round(6))  # [0.9 0.9]
        ```
        """
        return to_torch(self.model, state_dict, names)

    def _headline(self) -> str:
        if self.distance == 0:
            return f"Retreat: nothing had to change; stability radius {short(self.stability_radius)}"
        to = f"stability radius {short(self.stability_radius)}"
        return f"Retreat: a {type(self.model).__name__} at distance {short(self.distance)} with {to}"


@outside_jit
@one_blas_thread()
def retreat(
    model: AbstractStateSpaceModel,
    margin: Any,
    *,
    x: Any = None,
    u: Any = None,
    wrt: Lens | None = None,
    metric: Any = None,
    signs: Any = None,
    full: bool = False,
    scale: Any = None,
) -> Any:
    """Find the nearest model in which a given stable equilibrium has a stability radius of at least `margin`.

    The result is a local minimum of the distance. The method is sequential semidefinite programming, with A = df/dx at the
    equilibrium, which moves along. Each frequency w at which sigma_min(i w - A) has a minimum near the margin is a
    constraint. So is every other singular value near the margin at that frequency, since several are equal in the nearest
    network. Only the given equilibrium is considered.

    **Arguments:**

    - `margin`: in 1 / time. With `0.33 / time_scale` the verdict of [`criticality`][] is `"regular"`.
    - `x`: (n,) a stable equilibrium. Default: the one that `criticality` judges.
    - `u`: (d,) constant input. Default zero.
    - `wrt`, `metric`, `signs`: which parameters may change, the cost of a change, and the signs to keep, as for
      [`approach`][].
    - `scale`: (n,) or a number, positive, in units of the states: their metric. With D = diag(scale) the stability radius is
      that of D^-1 A D. Default: ones.
    - `full`: return the whole [`Retreat`][], with the distance and the active constraints, instead of its model alone.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time. Raises `NumericalError` if the
    equilibrium is unstable or on the edge of stability, or if no such model was found.

    **Example:**

    ```python
    safe = ssntk.retreat(ssntk.CTRNN.from_weights(0.95 * np.eye(2)), 0.1)
    print(round(ssntk.criticality(safe).stability_radius, 6))  # 0.1
    ```
    """
    check_model(model)
    sizes = as_metric(scale, model.n_state)
    check_autonomous(model)
    watch_precision(dtype_of(model))
    target = float(as_scalar(margin, "margin", positive=True))
    u = constant_input(model, u)
    freedom, clock = Freedom(model, wrt, metric, signs), model.clock
    if x is None:
        start = most_fragile(searched(model, [u]), clock, sizes).x
    else:
        start = np.asarray(check_fixed_point(model, x, u)[0])
    fastest = float(exponents(np.asarray(linearised(model, start, u)[1]), clock)[0].real)
    if fastest >= 0:
        raise NumericalError(
            f"the equilibrium is not stable, its fastest mode grows at the rate {fastest:.3g}: there is no margin of "
            "stability to widen; try another x"
        )
    found = _Search(freedom, u, clock, target, sizes).from_start(start)
    return found if full else found.model


class _Face(NamedTuple):
    """The smallest singular values (k,) of s(frequency) - A, and their left and right vectors, (n, k) each.

    If df/dx changes by dA, they change by `-left^H dA right`, whatever the metric.
    """

    frequency: float
    sizes: np.ndarray
    left: np.ndarray
    right: np.ndarray


class _Cut(NamedTuple):
    """The constraint `slope @ theta >= level`: one direction of a face keeps its singular value, to first order in theta."""

    frequency: float
    slope: np.ndarray
    level: float


@dataclasses.dataclass(frozen=True)
class _Search:
    """Sequential semidefinite programming for one margin."""

    freedom: Freedom
    u: Array
    clock: AbstractClock
    target: float
    # The metric of the states (n,), or `None` for ones. All matrices of this class are in this metric.
    sizes: np.ndarray | None

    def from_start(self, x_start: np.ndarray) -> Retreat:
        """The nearest network with the margin, from the equilibrium `x_start` (n,) of the network as it is."""
        freedom, target = self.freedom, self.target
        begin = theta = np.asarray(freedom.start)
        x, matrix = self.equilibrium(theta, x_start)
        touch, active = nearest_edge(matrix, self.clock), np.zeros(0)
        if touch.radius >= target:
            return Retreat(freedom.model, x, x_start, touch.radius, active, 0.0, 0.0)
        part, goal, last, off = 1.0, 0.0, np.inf, 1.0
        for _ in range(OUTER):
            # Far from the margin, the goal is raised in steps over which singular values are nearly linear.
            before, goal = goal, min(target, max(1.5 * abs(touch.radius), 0.1 * target, goal))
            minima = [low.frequency for low in local_minima(matrix, self.clock, WATCHED * goal)]
            at = _distinct([touch.frequency, *minima, *active], goal)
            faces = [self.face(matrix, w, WATCHED * goal) for w in at]
            # The linearisation has an error of second order in the step: solve the subproblem no more exactly than that.
            loose = float(np.clip(0.03 * off**2, TIGHT, 1e-3)) if goal == target else 1e-3
            wanted, cuts = self.projected(theta, x, [face for face in faces if len(face.sizes)], goal, loose)
            active = np.array(_distinct([cut.frequency for cut in cuts], goal))
            far, nearest = freedom.length(theta - begin), freedom.length(wanted - begin)
            if goal == target and touch.radius >= target * (1 - NEARLY) and abs(far - nearest) <= GAP * nearest:
                theta, x, radius = self.restored(theta, x)
                gap, model = abs(far / nearest - 1), freedom.at_theta(jax.device_put(theta))
                return Retreat(model, x, x_start, radius, active, freedom.length(theta - begin), gap)
            step = freedom.length(wanted - theta)
            off = step / nearest
            part = max(part / 2, 0.1) if step > 0.9 * last and goal == before else min(1.0, 1.5 * part)
            theta, last = theta + part * (wanted - theta), step
            x, matrix = self.equilibrium(theta, x)
            touch = nearest_edge(matrix, self.clock)
        reason = (
            f"no network with margin {target:g} was found in {OUTER} iterations; the last has stability radius "
            f"{touch.radius:.6g}: try a smaller margin, or more of theta in wrt"
        )
        raise NumericalError(in_precision(reason, np.asarray(self.freedom.start).dtype))

    def restored(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Scale the whole change of theta by a factor near one until the radius equals the margin, and is no smaller."""
        begin, points = np.asarray(self.freedom.start), []
        tight = max(TIGHT, 64 * float(np.finfo(begin.dtype).eps))
        factor, missing = 1.0, np.inf
        for _ in range(8):
            at = np.asarray(self.freedom.allowed(jax.device_put(begin + factor * (theta - begin))))
            x, matrix = self.equilibrium(at, x)
            radius = nearest_edge(matrix, self.clock).radius
            missing = self.target * (1 + tight / 2) - radius
            if abs(missing) <= self.target * tight / 2:
                return at, x, radius
            points.append((factor, missing))
            if len(points) == 1:
                factor = 1 + missing / self.target
            else:
                (a, before), (b, now) = points[-2:]
                if now == before:
                    break
                factor = b - now * (b - a) / (now - before)
        reason = f"the margin was approached to {missing:.1e} but not met: try another margin"
        raise NumericalError(in_precision(reason, begin.dtype))

    def equilibrium(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The equilibrium (n,) near x, and A (n, n) there in the metric."""
        model = self.freedom.at_theta(jax.device_put(theta))
        x, move, _, jacobian = (np.asarray(part) for part in polish(model, jax.device_put(x), self.u))
        if not np.isfinite(jacobian).all() or not move <= np.finfo(x.dtype).eps ** 0.5:
            raise NumericalError(
                "the equilibrium was lost on the way, where the last Newton correction was "
                f"{float(move):.3g} of the states' sizes: try a smaller margin"
            )
        return x, in_metric(np.asarray(jacobian, float), self.sizes)

    def face(self, matrix: np.ndarray, frequency: float, below: float) -> _Face:
        real, imag = self.clock.edge(frequency)
        lefts, sizes, rights = np.linalg.svd(complex(real, imag) * np.eye(len(matrix)) - matrix)
        low = sizes < below
        left, right = lefts[:, low], rights[low].conj().T
        if self.sizes is not None:
            left, right = left / self.sizes[:, None], right * self.sizes[:, None]
        return _Face(frequency, sizes[low], left, right)

    def projected(
        self, theta: np.ndarray, x: np.ndarray, faces: list[_Face], goal: float, loose: float
    ) -> tuple[np.ndarray, list[_Cut]]:
        """The theta (p,) nearest to the start with no singular value of a face below `goal (1 - loose)`, to first order, and
        the cuts that bind there.

        The singular values of a face change as the eigenvalues of a Hermitian form. Cutting planes keep the form above
        `goal`: each cuts the direction in which the form is violated most (Kelley, 1960).
        """
        freedom = self.freedom

        def cut(face: _Face, w: np.ndarray) -> _Cut:
            slope = np.asarray(_slope(freedom, theta, x, self.u, face.left @ w, face.right @ w))
            return _Cut(face.frequency, slope, goal - float(np.abs(w) ** 2 @ face.sizes) + float(slope @ theta))

        cuts = [cut(face, w) for face in faces for w in np.eye(len(face.sizes))[face.sizes < goal]]
        wanted, multipliers = _nearest(freedom, cuts)
        for _ in range(INNER):
            moved, new = np.asarray(_moved(freedom, theta, x, self.u, wanted - theta)), []
            for face in faces:
                across = face.left.conj().T @ moved @ face.right
                values, vectors = np.linalg.eigh(np.diag(face.sizes) - (across + across.conj().T) / 2)
                new += [cut(face, vectors[:, k]) for k in np.flatnonzero(values < goal * (1 - loose))[:2]]
            binding = multipliers > 0
            cuts = [one for one, binds in zip(cuts, binding, strict=True) if binds]
            if not new:
                break
            cuts += new
            wanted, multipliers = _nearest(freedom, cuts)
        return wanted, cuts


def _distinct(frequencies: Sequence[HostReal] | np.ndarray, level: float) -> list[float]:
    """The frequencies, without those that are near an earlier one. "Near" is relative to the `level` of the singular values
    too, since these change by no more than the frequency does."""
    kept: list[float] = []
    for w in frequencies:
        if all(abs(w - other) > 1e-3 * (level + abs(w)) for other in kept):
            kept.append(float(w))
    return kept


def _nearest(freedom: Freedom, cuts: list[_Cut]) -> tuple[np.ndarray, np.ndarray]:
    """The theta (p,) nearest to the start that satisfies every cut and keeps its signs, and the cuts' multipliers (k,)."""
    start, weights, signs = (np.asarray(part) for part in (freedom.start, freedom.metric, freedom.signs))
    if not cuts:
        return start, np.zeros(0)
    slopes, levels = np.stack([one.slope for one in cuts]), np.array([one.level for one in cuts])
    held = np.zeros(len(start), bool)
    while True:
        rest, free = np.where(held, 0.0, start), np.where(held, 0.0, 1 / weights)
        # The least change d with G d >= h, by non-negative least squares (Lawson and Hanson, 1974, section 23), with G and h
        # scaled so that the largest row of G and the largest entry of h are one.
        wide, short = slopes * np.sqrt(free), levels - slopes @ rest
        steep, far = float(np.linalg.norm(wide, axis=1).max()) or 1.0, float(np.abs(short).max()) or 1.0
        system = np.vstack([wide.T / steep, short / far])
        q, r = np.linalg.qr(system)
        dual, _ = scipy.optimize.nnls(r, q[-1], maxiter=100 * len(cuts))
        scale = 1 - float(system[-1] @ dual)
        if scale <= 1e-13:
            raise NumericalError("no change gives the margin: allow more in wrt or signs, or ask for less")
        theta = rest + free * (slopes.T @ dual) / scale * (far / steep**2)
        crossed = (signs * theta < 0) & ~held
        if not crossed.any():
            return theta, dual / scale
        held |= crossed


@eqx.filter_jit
def _slope(freedom: Freedom, theta: AnyArray, x: AnyArray, u: Array, left: AnyArray, right: AnyArray) -> Array:
    """d sigma / d theta, (p,), for a singular value of i w - A with its vectors (n,); the equilibrium moves with theta."""
    u1, u2, v1, v2 = (jnp.asarray(part, jnp.asarray(x).dtype) for part in (left.real, left.imag, right.real, right.imag))

    def level(theta: Array, x: Array) -> Array:
        def field(x: Array) -> Array:
            return field_at(freedom.at_theta(theta), x, u)

        _, push = jax.linearize(field, x)
        return -(u1 @ push(v1) + u2 @ push(v2))

    theta, x = jnp.asarray(theta), jnp.asarray(x)
    by_theta, by_x = jax.grad(level, (0, 1))(theta, x)
    _, pull = jax.vjp(lambda theta, x: field_at(freedom.at_theta(theta), x, u), theta, x)
    jacobian = state_jacobian(freedom.at_theta(theta), x, u)
    return by_theta - pull(jnp.linalg.solve(jacobian.T, by_x))[0]


@eqx.filter_jit
def _moved(freedom: Freedom, theta: AnyArray, x: AnyArray, u: Array, change: AnyArray) -> Array:
    """dA (n, n) for a change (p,) of theta; the equilibrium moves with theta."""
    theta, x = jnp.asarray(theta), jnp.asarray(x)
    change = jnp.asarray(change).astype(theta.dtype)

    def jacobian(theta: Array, x: Array) -> Array:
        return state_jacobian(freedom.at_theta(theta), x, u)

    _, pushed = jax.jvp(lambda theta: field_at(freedom.at_theta(theta), x, u), (theta,), (change,))
    moved = -jnp.linalg.solve(jacobian(theta, x), pushed)
    return jax.jvp(jacobian, (theta, x), (change, moved))[1]
