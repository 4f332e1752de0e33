"""Bifurcation points, located by Newton's iteration on their extended systems and told apart by their normal forms."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation import extended, normal_form
from ssntk.bifurcation.bordered import Problem, Stack, each
from ssntk.bifurcation.extended import BRANCH_POINT, PAIR, Solved
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.judge import Read, judge, start
from ssntk.bifurcation.linear import branch_jacobians, outputs_at
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import typical_sizes
from ssntk.errors import NumericalError, as_array, as_instance, as_kind, as_scalar, is_traced
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.precision import in_precision, watch_precision
from ssntk.results import Result, short

CROSSINGS = ("transcritical", "pitchfork")
# Where several real eigenvalues vanish at once, and where a coefficient does that tells the kinds apart.
DOUBLE, DEGENERATE = "double", "degenerate"
KINDS = ("saddle-node", "hopf", *CROSSINGS)
# Of a Bifurcation, what may be traced.
_NUMBERS = ("parameter", "x", "frequency", "right", "left", "coefficient", "residual", "interval", "tangents", "outputs")
# What textbooks call the coefficient of each kind.
_LETTERS = {"saddle-node": "a", "transcritical": "a", "pitchfork": "b3", "hopf": "l1", "flip": "c3", "neimark-sacker": "d"}
MAP_KINDS = ("saddle-node", "flip", "neimark-sacker", *CROSSINGS)


def kinds_of(clock: AbstractClock) -> tuple[str, ...]:
    """The kinds that can be asked for."""
    return KINDS if clock.flips_at is None else MAP_KINDS


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=_NUMBERS,
    meta_fields=("kind", "criticality", "converged", "reason", "multiplicity"),
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bifurcation(Result):
    """A bifurcation point of equilibria, or of the fixed points of a map.

    - `kind`: `"saddle-node"`, `"transcritical"`, `"pitchfork"` or `"hopf"`; for maps also `"flip"` or `"neimark-sacker"`,
      and no Hopf. `"double"`: two real eigenvalues cross at once, as in symmetric networks. `"degenerate"`: the coefficients
      that tell the kinds apart are zero to rounding, as on a line of equilibria, or more than two eigenvalues cross at once.
      In `Branch.unresolved` also `"branch-point"` and `"unknown"`. A user's own event has its own name.
    - `parameter`; `x` (n,); `frequency`: angular, rad per unit time, 0 for a real eigenvalue, pi / dt at a flip.
    - `right`, `left` (n,): critical eigenvectors, |right| = 1, left^T right = 1 not conjugated; complex for a pair.
    - `coefficient`: of the normal form: a of a saddle-node or transcritical, b3 of a pitchfork, l1 of a Hopf, c3 of a flip,
      d of a Neimark-Sacker point, normalised as `normal_form` says. `criticality`: `"supercritical"` where what is born is
      stable (if the other modes are), else `"subcritical"`; `None` for saddle-nodes and transcriticals, where the
      coefficient is zero to rounding, at a strong resonance of a map, and for double and degenerate points.
    - `tangents` (2, n + 1): where two branches cross, their directions (dx, dp), each of length 1; else `None`.
    - `residual`: the largest entry of the extended system, each beside the terms of its equation. `interval`: parameters
      between which the point lies, from the last Newton correction and the rounding error; of an unresolved event, those
      between which it was seen.
    - `converged`, and `reason` if not; `reason` also names what is special about a located point, such as a resonance, and
      is empty otherwise.
    - `multiplicity`: how many events this one stands for: 1, or more if several are closer than they can be told apart.
    - `outputs` (m,): the readout there.

    It is a pytree, so that a compiled function may return it.
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
    multiplicity: int = 1
    outputs: Any = None
    _brief = True

    def _headline(self) -> str:
        said = f"{self.kind} {'at' if self.converged else 'near'} p = {short(self.parameter)}"
        if not self.converged:
            return f"{said}, not located: {self.reason}"
        parts = [self.criticality] if self.criticality else []
        if self.kind in _LETTERS:
            parts.append(f"{_LETTERS[self.kind]} = {short(self.coefficient)}")
        parts += [f"frequency {short(self.frequency)}"] if self.kind in PAIR else []
        parts += [f"{self.multiplicity} events in one"] if self.multiplicity > 1 else []
        return f"{said}{': ' if parts else ''}{', '.join(parts)}" + (f"; {self.reason}" if self.reason else "")


class Located(NamedTuple):
    """A point that was looked for, where it lies, z (n + 1,), and its growth exponents with what rounding does to each."""

    point: Bifurcation
    z: np.ndarray
    exponents: np.ndarray
    doubts: np.ndarray


def locate(family: Any, kind: str, *, parameter: Any, x: Any, u: Any = None) -> Bifurcation:
    """Refine a guess of a bifurcation point to rounding error.

    Under `jax.grad`, `jvp`, `jit` or `vmap`, where the family's arrays or `u` are traced, `parameter`, `x`, `frequency` and
    `coefficient` are traced too, and differentiable, forward and reverse, by the implicit function theorem. A failure is NaN
    there, since it cannot be raised, and only generic points can be located: a crossing of branches is none.

    **Arguments:** `kind`: `"saddle-node"`, `"hopf"`, `"transcritical"` or `"pitchfork"`; for a map `"flip"` and
    `"neimark-sacker"` instead of `"hopf"`. Or what others call them: `"fold"`, `"LP"`, `"HB"`, `"PD"`, `"NS"`, and `"BP"`
    for a crossing of either kind. `parameter`, `x` (n,): the guess. `u`: (d,) constant input.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where Newton's iteration does not converge to a
    point of this kind.
    """
    as_instance(family, "family", Family)
    kinds = kinds_of(family.clock)
    kind = as_kind(kind, "kind", (*kinds, BRANCH_POINT))
    wanted = CROSSINGS if kind == BRANCH_POINT else (kind,)
    dtype = dtype_of(family.model)
    guess = as_array(x, "x", (family.model.n_state,)).astype(dtype)
    u, parameter = constant_input(family.model, u), as_scalar(parameter, "parameter").astype(dtype)
    check_autonomous(family.model)
    watch_precision(dtype)
    problem = _problem(family, u, parameter, guess)
    zero = jnp.zeros((), dtype)
    if is_traced(problem, guess, parameter):
        if wanted[0] in CROSSINGS:
            raise ValueError(f"kind {kind!r} has no derivative: a generic change of the model breaks the crossing")
        return _differentiable(problem, kind, zero, guess / problem.scale)
    search = BRANCH_POINT if wanted[0] in CROSSINGS else kind
    stack = Stack([problem])
    near = np.append(np.asarray(guess) / stack.scale[0], zero)[None]
    point = solve(stack, search, [0], near)[0].point
    if point.converged and point.kind not in wanted:
        point = dataclasses.replace(point, converged=False, reason=f"it is a {point.kind}")
    if not point.converged:
        reason = point.reason
        if kind == "saddle-node" and "branch point" not in reason:
            # Where branches cross, the saddle-node's system is singular: whether its iteration ends is left to rounding.
            crossing = solve(stack, BRANCH_POINT, [0], near)[0].point
            reason += f"; a branch point lies at p = {float(crossing.parameter):g}" if crossing.converged else ""
        raise NumericalError(f"no {kind} near p = {float(parameter):g}: {in_precision(reason, dtype)}")
    place = stack.point(0, point.x, point.parameter).astype(dtype)
    return dataclasses.replace(point, outputs=outputs_at(stack, 0, place[None])[0])


def _problem(family: Family, u: Array, parameter: Array, x: Array) -> Problem:
    """The problem around one point: the state beside its size, and the parameter beside what moves the state by its size."""
    dtype, n = x.dtype, x.shape[0]
    nothing = jnp.zeros((0, n), dtype), jnp.zeros(0, dtype), jnp.ones((), dtype)

    def scaled(sizes: Any, span: Any) -> Problem:
        return Problem(family, u, parameter, parameter + span, jnp.asarray(sizes, dtype), *nothing)

    if is_traced(family, u, parameter, x):
        return scaled(jnp.ones(n, dtype), jnp.ones((), dtype))
    sizes = typical_sizes(family(parameter), u, x)
    jacobian = np.asarray(branch_jacobians(Stack([scaled(sizes, 1.0)]), [0], np.append(np.asarray(x) / sizes, 0.0)[None])[0])
    rates, slopes = np.abs(jacobian[:, :-1]).sum(axis=1), np.abs(jacobian[:, -1])
    moved = (rates[slopes > 0] / slopes[slopes > 0]) if (slopes > 0).any() else np.zeros(0)
    moved = moved[np.isfinite(moved) & (moved > 0)]
    span = max(float(moved.min()) if moved.size else 1.0, 64 * float(np.finfo(dtype).eps) * abs(float(parameter)))
    return scaled(sizes, span)


def solve(stack: Stack, kind: str, members: Sequence[int], guesses: np.ndarray) -> list[Located]:
    """Points of one kind, or branch points, from guesses z (k, n + 1).

    Failure is told by `converged` and `reason`, and there the exponents are empty.
    """
    guesses, numbers = np.asarray(guesses), np.asarray(members)
    jacobians = branch_jacobians(stack, numbers, guesses)[..., :-1]
    found: list[Located | None] = [None] * len(numbers)
    starts = []
    for i, (z, jacobian) in enumerate(zip(guesses, jacobians, strict=True)):
        try:
            starts.append((i, *start(kind, z[:-1], z[-1], jacobian, stack.clock)))
        except NumericalError as error:
            found[i] = failed(stack, int(numbers[i]), kind, z, str(error))
    chosen = [i for i, _, _ in starts]
    read: list[tuple[int, Read]] = []
    if starts:
        packed = (np.stack(part) for part in list(zip(*starts, strict=True))[1:])
        solved = _solved(kind)(stack, numbers[chosen], *packed)
        for at, i in enumerate(chosen):
            one = Solved(*(part[at] for part in solved))
            judged = judge(kind, one, stack.clock)
            if isinstance(judged, str):
                z = np.append(one.y[: stack.n], one.y[-1])
                found[i] = failed(stack, int(numbers[i]), kind, z, judged)
            else:
                read.append((i, judged))
    if read:
        at = numbers[[i for i, _ in read]]
        numbers_of = _coefficients(kind)(
            stack, at, *(np.stack(part) for part in zip(*[r.arguments for _, r in read], strict=True))
        )
        for (i, judged), values in zip(read, numbers_of, strict=True):
            found[i] = _finish(stack, int(numbers[i]), kind, judged, values)
    return [point for point in found if point is not None]


@functools.cache
def _solved(kind: str) -> Any:
    return each(functools.partial(extended.solve, kind=kind))


@functools.cache
def _coefficients(kind: str) -> Any:
    return each(normal_form.crossing if kind == BRANCH_POINT else functools.partial(normal_form.coefficient, kind=kind))


def _finish(stack: Stack, number: int, kind: str, read: Read, values: Any) -> Located:
    """The point with its coefficient and what follows from it, in the user's units."""
    eps, clock = float(np.finfo(read.z.dtype).eps), stack.clock
    small = eps**0.6 * read.natural
    criticality, tangents, reason = None, None, ""
    # States along the critical direction: one of length one in the user's units is this many of length one here.
    scale = stack.scale[number].astype(float)
    right, left = scale * read.right, read.left / scale
    # The largest component is real and positive, in these units.
    top = right[np.argmax(np.abs(right))]
    length = float(np.linalg.norm(right)) * top / abs(top)
    right, left = right / length, left * length
    power = 2
    if kind == BRANCH_POINT:
        a, mixed, beside, cubic = (float(value) for value in values)
        if not np.isfinite(values[:3]).all():
            return failed(stack, number, kind, read.z, "its quadratic terms are not finite")
        small *= clock.unit
        along, other = np.append(read.right, 0.0), read.arguments[-1]
        if abs(a) <= small:
            kind, coefficient = "pitchfork", cubic
            if abs(cubic) <= small:
                kind, reason = DEGENERATE, "its quadratic and its cubic coefficient are zero to rounding"
            elif abs(mixed) <= small:
                return failed(stack, number, BRANCH_POINT, read.z, "its quadratic terms vanish: more than two branches meet")
            else:
                criticality = "supercritical" if cubic < 0 else "subcritical"
            if abs(mixed) > small:
                tangents = np.stack([along, other - beside / (2 * mixed) * along])
        else:
            kind, coefficient, power = "transcritical", a, 1
            # a s^2 + mixed s + beside / 2 = 0 for the direction s r + other.
            inside = mixed**2 - 2 * a * beside
            if inside <= 0:
                return failed(stack, number, BRANCH_POINT, read.z, "an isolated point: no branches cross there")
            first = -(mixed + np.copysign(np.sqrt(inside), mixed)) / 2
            roots = (first / a, beside / (2 * first)) if first != 0 else (0.0, 0.0)
            tangents = np.stack([root * along + other for root in roots])
        if tangents is not None:
            tangents = tangents * np.append(scale, float(stack.p1[number]) - float(stack.p0[number]))
            tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
    else:
        coefficient = float(values)
        # Of a map the coefficients are dt times those of f.
        small *= 0.5 / read.frequency if kind == "hopf" else clock.unit
        if kind == "saddle-node":
            power = 1
            if abs(coefficient) <= small:
                return failed(stack, number, kind, read.z, "its quadratic coefficient vanishes: it is a cusp")
        elif read.resonance is not None:
            angle = f"exp(2 pi i / {read.resonance})"
            reason = (
                f"the multiplier is {angle}, a strong resonance 1:{read.resonance}: its cubic coefficient decides nothing"
            )
            coefficient = np.nan if read.resonance == 3 else coefficient
        elif abs(coefficient) > small:
            criticality = "supercritical" if (coefficient < 0) != (kind == "flip") else "subcritical"
        else:
            reason = "its cubic coefficient is zero to rounding"
    if read.defective:
        # There is no left vector with left.right = 1, and no centre manifold of one dimension.
        coefficient, criticality, left = np.nan, None, np.full(left.shape, np.nan)
        reason = (
            "the zero eigenvalue is defective, as in conservative systems: equilibria meet, and no coefficient tells how"
        )
    parameter, width = stack.parameter(number, float(read.z[-1])), read.width * abs(stack.p1[number] - stack.p0[number])
    point = Bifurcation(
        kind,
        float(parameter),
        read.z[:-1] * stack.scale[number],
        read.frequency,
        right,
        left,
        float(coefficient / (length if power == 1 else abs(length) ** 2)),
        criticality,
        read.residual,
        (float(parameter - width), float(parameter + width)),
        True,
        reason,
        tangents,
    )
    return Located(point, read.z, read.exponents, read.doubts)


def failed(stack: Stack, number: int, kind: str, z: np.ndarray, reason: str) -> Located:
    """What was looked for and not found, and where the search ended."""
    p, nothing = float(stack.parameter(number, z[-1])), np.full(stack.n, np.nan)
    x = np.asarray(z[:-1]) * stack.scale[number]
    point = Bifurcation(kind, p, x, np.nan, nothing, nothing, np.nan, None, np.nan, (p, p), False, reason)
    return Located(point, np.asarray(z), np.zeros(0, complex), np.zeros(0))


def _differentiable(problem: Problem, kind: str, q: Array, y: Array) -> Bifurcation:
    """As [`locate`][] where values cannot be looked at: everything traced, NaN where nothing was found.

    The states' sizes are one there: no decision is taken that a size could change.
    """
    n, clock, dtype = y.shape[0], problem.clock, y.dtype
    still = extended.constant((problem, q, y))

    def begin(y: Any, q: Any, jacobian: Any) -> Any:
        try:
            return start(kind, np.asarray(y), float(q), np.asarray(jacobian), clock)
        except NumericalError:
            return np.full(count, np.nan, dtype), np.full(n, np.nan, dtype)

    count = extended.unknowns(kind, n)
    shapes = (jax.ShapeDtypeStruct((count,), dtype), jax.ShapeDtypeStruct((n,), dtype))
    jacobian = jax.jacfwd(lambda y: still[0].at(y, still[1]))(still[2])
    # Nonsymmetric eigenvalues are computed on the host.
    guess, border = jax.pure_callback(begin, shapes, still[2], still[1], jacobian, vmap_method="sequential")
    unknowns = extended.implicit(problem, kind, guess, border)
    if kind in PAIR:
        # A fold solves the system of a pair, too, with the frequency zero; so does a flip, with pi / dt.
        turn = jnp.abs(clock.edge(unknowns[-2], jnp)[1])
        smallest = jnp.finfo(dtype).eps ** 0.4 * jnp.abs(jacobian).sum(axis=1).max()
        unknowns = jnp.where(turn > smallest, unknowns, jnp.nan)
    y, q = unknowns[:n], unknowns[-1]
    zero = jnp.zeros_like(q)
    frequency = jnp.abs(unknowns[-2]) if kind in PAIR else zero + (clock.highest if kind == "flip" else 0.0)
    v = unknowns[n : 2 * n]
    w = unknowns[2 * n : 3 * n] * jnp.sign(unknowns[-2]) if kind in PAIR else jnp.zeros(n, dtype)
    size = jnp.sqrt(jnp.sum(v**2 + w**2))
    right = jax.lax.complex(v / size, w / size)
    grow, turn = clock.edge(frequency, jnp) if kind in PAIR else (zero - (2 / clock.unit if kind == "flip" else 0.0), zero)
    jacobian = jax.jacfwd(lambda y: problem.at(y, q))(y)
    identity = jnp.eye(n, dtype=dtype)
    shifted = jax.lax.complex(jacobian - grow * identity, -turn * identity)
    # left (A - s) = 0 with left.right = 1, bordered by the right vector itself.
    matrix = jnp.block([[shifted.T, right.conj()[:, None]], [right[None], jnp.zeros((1, 1), right.dtype)]])
    left = jnp.linalg.solve(matrix, jnp.zeros(n + 1, right.dtype).at[-1].set(1))[:n]
    value = normal_form.coefficient(problem, y, q, frequency, right, left, kind)
    residual = jnp.abs(extended.equations(problem, kind, unknowns, border)).max()
    p = problem.parameter(q)
    outputs = problem.family(p).readout(y)
    return Bifurcation(kind, p, y, frequency, right, left, value, None, residual, (p, p), True, outputs=outputs)
