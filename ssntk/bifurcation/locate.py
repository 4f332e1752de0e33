"""Bifurcation points, located by Newton's iteration on their extended systems and told apart by their normal forms."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation import extended, normal_form
from ssntk.bifurcation.bordered import Problem, Stack, each
from ssntk.bifurcation.extended import BRANCH_POINT, PAIR, Solved
from ssntk.bifurcation.family import Family
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.stability import edge, eigenpair, growth, sorted_eigenvalues
from ssntk.errors import NumericalError, as_array, as_choice, as_instance, as_scalar, is_traced
from ssntk.models.base import dtype_of

CROSSINGS = ("transcritical", "pitchfork")
KINDS = ("saddle-node", "hopf", *CROSSINGS)
MAP_KINDS = ("saddle-node", "flip", "neimark-sacker", *CROSSINGS)


@dataclasses.dataclass(frozen=True)
class Bifurcation:
    """A bifurcation point of equilibria, or of the fixed points of a map.

    - `kind`: `"saddle-node"`, `"transcritical"`, `"pitchfork"` or `"hopf"`; of a map also `"flip"` or `"neimark-sacker"`,
      and no Hopf; in `Branch.unresolved` also `"branch-point"` and `"unknown"`.
    - `parameter`; `x` (n,); `frequency`: angular, rad per unit time, 0 for a real eigenvalue, pi / dt at a flip.
    - `right`, `left` (n,): critical eigenvectors, |right| = 1, left^T right = 1 not conjugated; complex for a pair.
    - `coefficient`: of the normal form: a of a saddle-node or transcritical, b3 of a pitchfork, l1 of a Hopf, c3 of a flip,
      d of a Neimark-Sacker point, normalised as `normal_form` says. `criticality`: `"supercritical"` where what is born is
      stable (if the other modes are), else `"subcritical"`; `None` for saddle-nodes and transcriticals, and where the
      coefficient vanishes.
    - `tangents` (2, n + 1): where two branches cross, their directions (dx, dp), each of length 1; else `None`.
    - `residual`: the largest entry of the extended system. `interval`: parameters between which the point lies, from
      the last Newton correction and the rounding error; of an unresolved event, those between which it was seen.
    - `converged`, and `reason` where not.
    """

    kind: str
    parameter: Any
    x: Any
    frequency: Any
    right: Any
    left: Any
    coefficient: Any
    criticality: str | None
    residual: Any
    interval: tuple[Any, Any]
    converged: bool
    reason: str = ""
    tangents: np.ndarray | None = None


def locate(family: Family, kind: str, *, parameter: Any, x: Any, u: Any = None) -> Bifurcation:
    """Refine a guess of a bifurcation point to rounding error.

    Under `jax.grad`, `jvp`, `jit` or `vmap`, where the family's arrays or `u` are traced, `parameter`, `x`, `frequency` and
    `coefficient` are traced too, and differentiable, forward and reverse, by the implicit function theorem. A failure is NaN
    there, since it cannot be raised, and only generic points can be located: a crossing of branches is none.

    **Arguments:** `kind`: `"saddle-node"`, `"hopf"`, `"transcritical"` or `"pitchfork"`; for a map `"flip"` and
    `"neimark-sacker"` instead of `"hopf"`. `parameter`, `x` (n,): the guess. `u`: (d,) constant input.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where Newton's iteration does not converge to a
    point of this kind.
    """
    as_instance(family, "family", Family)
    as_choice(kind, "kind", KINDS if family.dt is None else MAP_KINDS)
    dtype = dtype_of(family.model)
    guess = as_array(x, "x", (family.model.n_state,)).astype(dtype)
    u, parameter = constant_input(family.model, u), as_scalar(parameter, "parameter").astype(dtype)
    problem = Problem(family, u, jnp.zeros((), dtype), jnp.ones((), dtype))
    if is_traced(problem, guess, parameter):
        if kind in CROSSINGS:
            raise ValueError(f"kind {kind!r} has no derivative: a generic change of the model breaks the crossing")
        return _differentiable(problem, kind, parameter, guess)
    search = BRANCH_POINT if kind in CROSSINGS else kind
    ((point, _),) = solve(Stack([problem]), search, [0], np.append(guess, parameter)[None])
    if point.converged and point.kind != kind:
        point = dataclasses.replace(point, converged=False, reason=f"it is a {point.kind}")
    if not point.converged:
        reason = point.reason
        if kind == "saddle-node" and "branch point" not in reason:
            # Where branches cross, the saddle-node's system is singular: whether its iteration ends is left to rounding.
            ((crossing, _),) = solve(Stack([problem]), BRANCH_POINT, [0], np.append(guess, parameter)[None])
            reason += f"; a branch point lies at p = {float(crossing.parameter):g}" if crossing.converged else ""
        raise NumericalError(f"no {kind} near p = {float(parameter):g}: {reason}")
    return point


def solve(stack: Stack, kind: str, members: Sequence[int], guesses: np.ndarray) -> list[tuple[Bifurcation, np.ndarray]]:
    """Points of one kind, or branch points, from guesses z (k, n + 1), each with its growth exponents.

    Failure is told by `converged` and `reason`, and there the exponents are empty.
    """
    guesses, numbers = np.asarray(guesses), np.asarray(members)
    p0, p1 = stack.p0[numbers], stack.p1[numbers]
    parameters = p0 + guesses[:, -1] * (p1 - p0)
    jacobians = state_jacobians(stack, numbers, guesses)
    found: list[tuple[Bifurcation, np.ndarray] | None] = [None] * len(numbers)
    starts, nothing = [], np.zeros(0, complex)
    for i, (x, p, jacobian) in enumerate(zip(guesses[:, :-1], parameters, jacobians, strict=True)):
        try:
            starts.append((i, *_start(kind, x, p, jacobian, stack.dt)))
        except NumericalError as error:
            found[i] = _failed(kind, p, x, str(error)), nothing
    chosen = [i for i, _, _ in starts]
    read: list[tuple[int, _Read]] = []
    if starts:
        packed = (np.stack(part) for part in list(zip(*starts, strict=True))[1:])
        solved = _solved(kind)(stack, numbers[chosen], *packed)
        for at, i in enumerate(chosen):
            one = Solved(*(part[at] for part in solved))
            judged = _judge(kind, one, stack.dt)
            if isinstance(judged, str):
                found[i] = _failed(kind, one.y[-1], one.y[: guesses.shape[1] - 1], judged), nothing
            else:
                read.append((i, judged))
    if read:
        at = numbers[[i for i, _ in read]]
        numbers_of = _coefficients(kind)(
            stack, at, *(np.stack(part) for part in zip(*[r.arguments for _, r in read], strict=True))
        )
        for (i, judged), values in zip(read, numbers_of, strict=True):
            found[i] = _finish(kind, judged, values), judged.exponents
    return [point for point in found if point is not None]


def _state_jacobian(problem: Problem, z: Array) -> Array:
    """A at a point of the branch."""
    return jax.jacfwd(lambda x: problem.at(x, problem.parameter(z[-1])))(z[:-1])


state_jacobians = each(_state_jacobian)


@functools.cache
def _solved(kind: str) -> Any:
    return each(functools.partial(extended.solve, kind=kind))


@functools.cache
def _coefficients(kind: str) -> Any:
    return each(normal_form.crossing if kind == BRANCH_POINT else functools.partial(normal_form.coefficient, kind=kind))


def _start(
    kind: str, x: np.ndarray, parameter: float, jacobian: np.ndarray, dt: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns of the extended system at a guess, and its border."""
    if not np.isfinite(jacobian).all():
        raise NumericalError("the Jacobian is not finite there")
    every = sorted_eigenvalues(jacobian)
    values = every
    if kind in PAIR:
        values = values[values.imag > 0]
        if values.size == 0:
            raise NumericalError("no complex pair of eigenvalues there")
        off = values.real if dt is None else np.log(np.abs(1 + dt * values))
    else:
        values = values[values.imag == 0] if (values.imag == 0).any() else values.real
        off = values.real if kind != "flip" else values.real + 2 / (dt or 1.0)
    pair = eigenpair(jacobian, complex(values[np.argmin(np.abs(off))]), every)
    start, border = extended.pack(kind, x, parameter, pair)
    if kind in PAIR:
        start[-2] = pair.value.imag if dt is None else np.angle(1 + dt * pair.value) / dt
    return start, border


@dataclasses.dataclass(frozen=True)
class _Read:
    """A point whose extended system is solved, and what its coefficient is computed from."""

    parameter: float
    x: np.ndarray
    frequency: float
    right: np.ndarray
    left: np.ndarray
    arguments: tuple[np.ndarray, ...]
    exponents: np.ndarray
    size: float
    residual: float
    width: float


def _judge(kind: str, solved: Solved, dt: float | None) -> _Read | str:
    """The point that the unknowns describe with its eigenvectors from its own Jacobian, or why it is none."""
    y, jacobian, slope = solved.y, solved.jacobian[:, :-1], solved.jacobian[:, -1]
    n = len(slope)
    x, p = y[:n], float(y[-1])
    eps = float(np.finfo(y.dtype).eps)
    finite = np.isfinite(y).all() and np.isfinite(solved.jacobian).all()
    if not finite or not float(solved.correction) <= eps**0.6 * (1 + float(np.abs(y).max())):
        return "Newton's iteration on the extended system did not converge"
    # How large the Jacobian is over states of the size at hand: at the fold of a scalar model it vanishes itself.
    size = float(np.abs(jacobian).sum(axis=1).max()) + float(solved.curvature)
    frequency = 0.0
    if kind in PAIR:
        frequency = abs(float(y[-2]))
        if dt is not None:
            frequency = abs(float(np.angle(np.exp(1j * frequency * dt)))) / dt
        if frequency <= eps**0.4 * size or (dt is not None and np.pi / dt - frequency <= eps**0.4 * size):
            return f"the frequency tends to {'zero' if frequency <= eps**0.4 * size else 'pi / dt'}, so it is no pair"
    elif kind == "flip":
        frequency = np.pi / (dt or 1.0)
    critical = complex(*edge(frequency, dt)) if kind in PAIR else complex(-2 / (dt or 1.0)) if kind == "flip" else 0j
    values = sorted_eigenvalues(jacobian)
    try:
        pair = eigenpair(jacobian, critical, values)
    except NumericalError as error:
        return str(error)
    if abs(pair.value - critical) > eps**0.4 * size:
        return "the Jacobian has no such critical eigenvalue"
    right, left = pair.right, pair.left
    # Where the state is zero to rounding, so may be the slope, and its direction is noise.
    pushed = abs(left @ slope) > np.linalg.norm(left) * max(eps**0.4 * np.linalg.norm(slope), eps**0.8 * size)
    if kind == "saddle-node" and not pushed:
        # The parameter does not push along the critical direction.
        return "the branch does not turn there: it is a branch point"
    scalar = np.asarray(p, x.dtype)
    double = n > 1 and np.linalg.svd(jacobian, compute_uv=False)[-2] <= eps**0.4 * size
    if kind in ("saddle-node", BRANCH_POINT) and double:
        return "more than one eigenvalue vanishes there"
    arguments: tuple[Any, ...] = (x, scalar, np.asarray(frequency, x.dtype), right + 0j, left + 0j)
    if kind == BRANCH_POINT:
        scale = size * (1 + float(np.abs(x).max())) + float(np.abs(slope).max()) * (1 + abs(p))
        if abs(float(y[n])) > eps**0.6 * scale:
            return "the branches pass close by each other and do not cross"
        if pushed or pair.value.imag != 0:
            return "more than one eigenvalue vanishes there"
        other = np.append(np.linalg.lstsq(jacobian, -slope, rcond=eps**0.6)[0], 1.0)
        arguments = (x, scalar, right, left, (other / np.linalg.norm(other)).astype(x.dtype))
    width = float(solved.correction) + 4 * eps * (1 + abs(p))
    return _Read(p, x, frequency, right, left, arguments, growth(values, dt), size, float(solved.residual), width)


def _finish(kind: str, read: _Read, values: Any) -> Bifurcation:
    """The point with its coefficient and what follows from it."""
    eps = float(np.finfo(read.x.dtype).eps)
    criticality, tangents = None, None
    if kind == BRANCH_POINT:
        a, mixed, beside, cubic = (float(value) for value in values)
        flat = abs(mixed) <= eps**0.5 * read.size and abs(a) <= eps**0.6 * read.size
        if flat or not np.isfinite(values[:3]).all():
            return _failed(kind, read.parameter, read.x, "its quadratic terms vanish: more than two branches meet")
        along, other = np.append(read.right, 0.0), read.arguments[-1]
        if abs(a) <= eps**0.6 * read.size:
            kind, coefficient = "pitchfork", cubic
            tangents = np.stack([along, other - beside / (2 * mixed) * along])
            if abs(cubic) > eps**0.6 * read.size:
                criticality = "supercritical" if cubic < 0 else "subcritical"
        else:
            kind, coefficient = "transcritical", a
            # a s^2 + mixed s + beside / 2 = 0 for the direction s r + other.
            inside = mixed**2 - 2 * a * beside
            if inside <= 0:
                return _failed(BRANCH_POINT, read.parameter, read.x, "an isolated point: no branches cross there")
            first = -(mixed + np.copysign(np.sqrt(inside), mixed)) / 2
            roots = (first / a, beside / (2 * first)) if first != 0 else (0.0, 0.0)
            tangents = np.stack([root * along + other for root in roots])
        tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
    else:
        coefficient = float(values)
        if kind == "saddle-node" and abs(coefficient) <= eps**0.6 * read.size:
            return _failed(kind, read.parameter, read.x, "its quadratic coefficient vanishes: it is a cusp")
        if kind != "saddle-node" and abs(coefficient) > eps**0.6:
            criticality = "supercritical" if (coefficient < 0) != (kind == "flip") else "subcritical"
    interval = (read.parameter - read.width, read.parameter + read.width)
    return Bifurcation(
        kind,
        read.parameter,
        read.x,
        read.frequency,
        read.right,
        read.left,
        coefficient,
        criticality,
        read.residual,
        interval,
        True,
        tangents=tangents,
    )


def _failed(kind: str, parameter: Any, x: np.ndarray, reason: str) -> Bifurcation:
    p, nothing = float(parameter), np.full(x.shape, np.nan)
    return Bifurcation(kind, p, x, np.nan, nothing, nothing, np.nan, None, np.nan, (p, p), False, reason)


def _differentiable(problem: Problem, kind: str, parameter: Array, x: Array) -> Bifurcation:
    """As [`locate`][] where values cannot be looked at: everything traced, NaN where nothing was found."""
    n, dt, dtype = x.shape[0], problem.dt, x.dtype
    still = extended.constant((problem, parameter, x))

    def start(x: Any, p: Any, jacobian: Any) -> Any:
        try:
            return _start(kind, np.asarray(x), float(p), np.asarray(jacobian), dt)
        except NumericalError:
            return np.full(count, np.nan, dtype), np.full(n, np.nan, dtype)

    count = extended.unknowns(kind, n)
    shapes = (jax.ShapeDtypeStruct((count,), dtype), jax.ShapeDtypeStruct((n,), dtype))
    jacobian = jax.jacfwd(lambda x: still[0].at(x, still[1]))(still[2])
    # Nonsymmetric eigenvalues are computed on the host.
    guess, border = jax.pure_callback(start, shapes, still[2], still[1], jacobian, vmap_method="sequential")
    y = extended.implicit(problem, kind, guess, border)
    if kind in PAIR:
        # A fold solves the system of a pair, too, with the frequency zero; so does a flip, with pi / dt.
        turn = jnp.abs(edge(y[-2], dt, jnp)[1])
        y = jnp.where(turn > jnp.finfo(dtype).eps ** 0.4 * jnp.abs(jacobian).sum(axis=1).max(), y, jnp.nan)
    x, p = y[:n], y[-1]
    zero = jnp.zeros_like(p)
    frequency = jnp.abs(y[-2]) if kind in PAIR else zero + (np.pi / dt if kind == "flip" and dt else 0.0)
    v, w = y[n : 2 * n], y[2 * n : 3 * n] * jnp.sign(y[-2]) if kind in PAIR else jnp.zeros(n, dtype)
    size = jnp.sqrt(jnp.sum(v**2 + w**2))
    right = jax.lax.complex(v / size, w / size)
    grow, turn = edge(frequency, dt, jnp) if kind in PAIR else (zero - (2 / dt if kind == "flip" and dt else 0.0), zero)
    jacobian = jax.jacfwd(lambda x: problem.at(x, p))(x)
    identity = jnp.eye(n, dtype=dtype)
    shifted = jax.lax.complex(jacobian - grow * identity, -turn * identity)
    # left (A - s) = 0 with left.right = 1, bordered by the right vector itself.
    matrix = jnp.block([[shifted.T, right.conj()[:, None]], [right[None], jnp.zeros((1, 1), right.dtype)]])
    left = jnp.linalg.solve(matrix, jnp.zeros(n + 1, right.dtype).at[-1].set(1))[:n]
    value = normal_form.coefficient(problem, x, p, frequency, right, left, kind)
    residual = jnp.abs(extended.equations(problem, kind, y, border)).max()
    return Bifurcation(kind, p, x, frequency, right, left, value, None, residual, (p, p), True)
