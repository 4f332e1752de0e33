"""Branches of equilibria over a parameter: followed, with stability and the bifurcations on the way."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ssntk.bifurcation.bordered import Corrected, Problem, Stack, corrected_at
from ssntk.bifurcation.detect import find_events
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.follow import Start, Track, follow
from ssntk.bifurcation.locate import Bifurcation
from ssntk.dynamics.fixed_points import constant_input, find_fixed_points
from ssntk.dynamics.stability import reported
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar
from ssntk.models.base import dtype_of

# Branches of an ensemble that are followed at a time. On two cores more pays for a few units only, and costs from 24 on.
LANES = 4


@dataclasses.dataclass(frozen=True)
class Branch:
    """A branch of equilibria, in the order in which it was followed.

    - `parameter` (k,), `x` (k, n), `eigenvalues` (k, n) of df/dx with the rightmost first, of a map its multipliers with
      the largest first, `stable` (k,).
    - `bifurcations`: the located ones, in branch order; `unresolved`: events that were seen but not located.
    - `status`: why the branch ends, a sentence.
    - `tangent` (k, n + 1): the unit tangent (dx, dq) along the direction of travel, in the length that `step` measures.
    - `steps`: of each located bifurcation the index of the point before it.
    """

    parameter: np.ndarray
    x: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    bifurcations: tuple[Bifurcation, ...]
    unresolved: tuple[Bifurcation, ...]
    status: str
    tangent: np.ndarray
    steps: tuple[int, ...]


def continuation(
    family: Family,
    span: Any,
    *,
    x0: Any = None,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 10_000,
) -> Branch:
    """Follow the branch of equilibria from `span[0]` towards `span[1]` until it leaves the span.

    Saddle-nodes, Hopf points, transcriticals and pitchforks on the way are located by their extended systems; of a map also
    flips and Neimark-Sacker points. Of branches that cross, the one that was started on is followed:
    [`bifurcation_diagram`][] follows all.

    **Arguments:**

    - `span`: (p0, p1), distinct; p1 may be the smaller.
    - `x0`: (n,) near an equilibrium at p0; default: Newton from zero, then the first of `find_fixed_points`.
    - `u`: (d,) constant input; default zero.
    - `step`: the longest step, in the length `sqrt(mean(dx^2) + (dp / (p1 - p0))^2)`; shorter ones are taken as needed.
    - `max_steps`: the most points on the branch.

    Raises `ValueError` for arguments that do not fit, `NumericalError` where no equilibrium is found at p0.
    """
    max_steps, longest = as_count(max_steps, "max_steps"), float(as_scalar(step, "step", positive=True))
    problem = make_problem(family, span, u)
    x = None if x0 is None else np.asarray(as_array(x0, "x0", (family.model.n_state,)).astype(dtype_of(family.model)))
    stack = Stack([problem])
    (start,) = _starts(stack, None if x is None else x[None])
    if isinstance(start, str):
        raise NumericalError(start)
    tracks = follow(stack, [start], longest, max_steps)
    return as_branches(stack, tracks)[0]


def continuation_ensemble(
    families: Any,
    span: Any,
    *,
    x0: Any = None,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 10_000,
    lanes: int = LANES,
) -> tuple[Branch, ...]:
    """The branches of many families, as [`continuation`][] follows each, in one compiled batch.

    **Arguments:**

    - `families`: B families that differ in the values of their arrays alone, such as random initialisations; or one family
      whose arrays all have a leading axis of length B, as `eqx.filter_vmap` makes it.
    - `x0`: (B, n) or (n,); `u`: (B, d) or (d,).
    - `lanes`: branches that are followed at a time; a lane whose branch has ended takes the next one.
    - The others as for [`continuation`][].

    A member without an equilibrium at p0 gives a branch without points whose `status` says so. Raises `ValueError` for
    arguments that do not fit.
    """
    max_steps, longest = as_count(max_steps, "max_steps"), float(as_scalar(step, "step", positive=True))
    lanes = as_count(lanes, "lanes")
    if isinstance(families, Family):
        arrays = jax.tree.leaves(eqx.filter(families, eqx.is_array))
        lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in arrays}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError("families must be a sequence, or one family whose arrays all have one leading axis")
        (count,) = lengths
        # Cut on the host, where that compiles nothing.
        cut = jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, families)
        made = [
            jax.tree.map(lambda leaf, i=i: jax.device_put(leaf[i]) if isinstance(leaf, np.ndarray) else leaf, cut)
            for i in range(count)
        ]
    elif not isinstance(families, Sequence):
        raise ValueError(f"families must be a sequence of ssntk.Family, got {type(families).__name__}")
    else:
        made = [as_instance(family, f"families[{i}]", Family) for i, family in enumerate(families)]
    if not made:
        raise ValueError("families must hold at least one family")
    model = made[0].model
    inputs = _per_member(u, "u", len(made), model.n_input)
    stack = Stack([make_problem(family, span, one) for family, one in zip(made, inputs, strict=True)])
    xs = None if x0 is None else np.stack(_per_member(x0, "x0", len(made), model.n_state)).astype(dtype_of(model))
    starts = _starts(stack, xs)
    usable = [start for start in starts if isinstance(start, Start)]
    tracks = follow(stack, usable, longest, max_steps, min(lanes, len(usable))) if usable else []
    branches = iter(as_branches(stack, tracks))
    return tuple(next(branches) if isinstance(start, Start) else _empty(model, start) for start in starts)


def make_problem(family: Family, span: Any, u: Any) -> Problem:
    """The checked problem of a family over a span."""
    as_instance(family, "family", Family)
    ends = np.asarray(as_array(span, "span", (2,))).astype(dtype_of(family.model))
    if float(ends[0]) == float(ends[1]):
        raise ValueError(f"span must not be empty, got ({float(ends[0]):g}, {float(ends[1]):g})")
    return Problem(family, constant_input(family.model, u), *jax.device_put((ends[0], ends[1])))


def as_branches(stack: Stack, tracks: Sequence[Track]) -> list[Branch]:
    """The tracks with their events, as a user reads them."""
    branches = []
    for track, events in zip(tracks, find_events(stack, tracks), strict=True):
        located = [(step, event) for step, event in events if event.converged]
        branches.append(
            Branch(
                parameter=stack.parameter(track.member, track.z[:, -1]),
                x=track.z[:, :-1],
                eigenvalues=reported(track.exponents, stack.dt),
                stable=track.exponents.real.max(axis=1) < 0,
                bifurcations=tuple(event for _, event in located),
                unresolved=tuple(event for _, event in events if not event.converged),
                status=track.status,
                tangent=track.tangent,
                steps=tuple(step for step, _ in located),
            )
        )
    return branches


def as_start(number: int, found: Corrected, at: int, way: float = 1.0) -> Start:
    """A corrected point as the start of a branch, along its tangent or against it."""
    return Start(number, found.z[at], way * found.tangent[at], found.jacobian[at], way * float(found.turn[at]))


def _starts(stack: Stack, x0: np.ndarray | None) -> list[Start | str]:
    """For each problem the start at p0, or why there is none. The tangent points towards p1: the border is the parameter."""
    count = len(stack.p0)
    members = np.arange(count)
    guesses = np.zeros((count, stack.n), stack.p0.dtype) if x0 is None else x0
    found = corrected_at(stack, members, guesses, np.zeros(count))
    starts: list[Start | str] = []
    for i in range(count):
        if found.converged[i]:
            starts.append(as_start(i, found, i))
        elif x0 is not None:
            p = float(stack.p0[i])
            velocity = np.asarray(stack.problems[i].at(jax.device_put(x0[i]), stack.problems[i].p0))
            if np.abs(velocity).max() <= np.finfo(velocity.dtype).eps ** 0.5:
                starts.append(
                    f"x0 is at rest at p = {p:g} and the Jacobian is singular there: start beside that bifurcation"
                )
                continue
            why = (
                "Newton's iteration did not converge"
                if np.isfinite(velocity).all()
                else "the vector field is not finite there"
            )
            starts.append(f"no equilibrium near x0 at p = {p:g}: {why}; try x0=None")
        else:
            starts.append(_search(stack, i))
    return starts


def _search(stack: Stack, number: int) -> Start | str:
    """The start at p0 of one problem from all fixed points that can be found there."""
    problem = stack.problems[number]
    points = find_fixed_points(problem.family(problem.p0), problem.u).x
    if len(points):
        found = corrected_at(stack, np.full(len(points), number), points, np.zeros(len(points)))
        good = np.flatnonzero(found.converged)
        if good.size:
            return as_start(number, found, int(good[0]))
    p = float(problem.p0)
    if not np.isfinite(np.asarray(problem.at(jnp.zeros(stack.n, stack.p0.dtype), problem.p0))).all():
        return f"the vector field is not finite at p = {p:g} and x = 0: start elsewhere, or pass x0"
    return f"no equilibrium was found at p = {p:g}: start elsewhere, or pass x0"


def _per_member(value: Any, name: str, count: int, size: int) -> list[Any]:
    """`value`, (size,) or (count, size), for each member; `None` stays."""
    if value is None:
        return [None] * count
    array = as_array(value, name)
    if array.shape not in ((size,), (count, size)):
        raise ValueError(f"{name} must have shape ({size},) or ({count}, {size}), got {array.shape}")
    return list(np.broadcast_to(np.asarray(array), (count, size)))


def _empty(model: Any, status: str) -> Branch:
    n, dtype = model.n_state, dtype_of(model)
    return Branch(
        parameter=np.zeros(0, dtype),
        x=np.zeros((0, n), dtype),
        eigenvalues=np.zeros((0, n), complex),
        stable=np.zeros(0, bool),
        bifurcations=(),
        unresolved=(),
        status=status,
        tangent=np.zeros((0, n + 1), dtype),
        steps=(),
    )
