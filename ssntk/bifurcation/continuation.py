"""Follow branches of equilibria over a parameter, with their stability and the bifurcations on them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.crossing import as_bounds, as_own, stops_of
from ssntk.bifurcation.followed import as_branches
from ssntk.bifurcation.wish import EXACT, METHODS, SEARCH, Wish, followed_exactly
from ssntk.dynamics.fixed_points import find_fixed_points
from ssntk.dynamics.metric import as_periods
from ssntk.errors import NumericalError, Outcome, as_array, as_choice, as_count, as_instance, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.family import Family
from ssntk.results import Results
from ssntk.threads import one_blas_thread
from ssntk.zeros.arclength import follow
from ssntk.zeros.correct import Corrected, corrected_at
from ssntk.zeros.equilibria import Equilibria, equilibria_of, resized
from ssntk.zeros.lines import on_a_line, singular, stability_matrices
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Start, Stop, Track, joined, points_of

# How many branches of an ensemble are followed at the same time. Measured on two cores: more lanes are faster for models
# of a few units only, and slower from n = 24 on.
LANES = 4


@outside_jit
@one_blas_thread()
def continuation(
    family: Any,
    span: Any,
    *,
    x0: Any = None,
    at: Any = None,
    both: bool = False,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 10_000,
    scale: Any = None,
    events: Any = (),
    bounds: Any = None,
    fix: Any = None,
    periods: Any = None,
    method: Any = "auto",
) -> Branch:
    """Follow the branch of equilibria from `span[0]` towards `span[1]` until it leaves the span.

    Bifurcations on the branch are located by solving their defining equations: saddle-nodes, Hopf points, transcriticals and
    pitchforks; for maps flips and Neimark-Sacker points instead of Hopf points. If branches cross, only the branch that
    was started on is followed; [`bifurcation_diagram`][] follows them all. The result does not depend on the units of the
    states, of time or of the parameter.

    A conserved quantity is a linear combination of the states that never changes, such as a state that never changes. It
    makes df/dx singular everywhere. Conserved quantities are found, and each is held at its value at `x0`, or at the value
    in `fix`. Nonlinear first integrals are not found.

    **Arguments:**

    - `span`: (p0, p1), two different values of the parameter; p1 may be the smaller.
    - `x0`: (n,) a state near an equilibrium at the parameter `at`. Default: Newton's iteration from the zero state; if it
      fails, the first fixed point of `find_fixed_points`.
    - `at`: the parameter of `x0`, within the span. Default p0. The branch is followed from there towards p1.
    - `both`: whether to follow the branch from `at` towards p0 too. The result is one branch, from p0's end to p1's.
    - `u`: (d,) constant input. Default zero.
    - `step`: the longest step, without a unit: length is `sqrt(mean((dx / scale)^2) + (dp / (p1 - p0))^2)`. Steps are
      shorter where the branch bends, and longer where states are several times their `scale`.
    - `max_steps`: the largest number of points in each direction.
    - `scale`: (n,) or a number, positive: typical sizes of the states, in their units. Default: found from the model.
    - `events`: the user's own events: a [`Crossing`][], which is located where its function changes sign, or an object such
      as an [`AbstractTestEvent`][]. They are listed among the bifurcations.
    - `bounds`: `{index: (low, high)}` in state units, or `fn(x, p) -> bool` with x (n,). The branch ends where a state
      leaves the bounds, and `status` reports it.
    - `fix`: pairs (weights (n,), value), each of which holds a conserved quantity at `weights . x = value`.
    - `periods`: (n,) the periods of the states that are angles, 0 for the others. A branch that returns to its start up to
      whole periods is closed, and ends there. Default: no angles.
    - `method`: `"exact"` follows piecewise-linear models, such as ReLU networks, from border to border, without steps that
      could fail ([`piecewise_linear`][]). If only the input or the bias moves, the branch consists of straight pieces. If
      weights move, the first zero of each signal up to the next pole of x(p) is found by Chebyshev interpolation to
      rounding. `Branch.collisions` lists every border. `"search"` follows branches by a corrector. Where the
      vector field has a kink, the branch goes on behind it, and `Branch.collisions` lists the place. `"auto"`: exact, if the
      model has such borders and no conserved quantities, and if `fix`, `periods` and the events allow it: those with an
      [`AbstractTestEvent`][] are located by search only.

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time. Raises `NumericalError` if no
    equilibrium is found at the start.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    branch = ssntk.continuation(family, (1.0, -1.0), x0=[1.0])
    print(branch.bifurcations[0].kind, branch.status)  # saddle-node left the span at p = 1
    ```
    """
    max_steps, longest = as_count(max_steps, "max_steps"), float(as_scalar(step, "step", positive=True))
    if as_choice(method, "method", METHODS) != SEARCH:
        wish = Wish(x0, at, both, u, longest, max_steps, scale, events, bounds, fix, periods)
        exact = followed_exactly(family, span, wish, method == EXACT)
        if exact is not None:
            return exact
    x = None
    if x0 is not None:
        as_instance(family, "family", Family)
        x = np.asarray(as_array(x0, "x0", (family.model.n_state,)).astype(dtype_of(family.model)))
    zeros = equilibria_of(family, span, u, x=x, scale=scale, fix=fix)
    turns = as_periods(periods, family.model.n_state)
    stack = Stack([zeros], turns)
    here = _place(stack, at)
    own = as_own(events, family.model.n_state)
    limits = as_bounds(bounds, family.model.n_state)
    (start,) = _starts(stack, None if x is None else (x / stack.scale[0])[None], here)
    if isinstance(start, str):
        raise NumericalError(start)
    if x is None and scale is None:
        # The typical sizes of the states follow from the equilibrium, which is known only now.
        stack = Stack([resized(zeros, start.point.z[:-1] * stack.scale[0])], turns)
        (again,) = _starts(stack, (start.point.z[:-1] * np.asarray(zeros.scale) / stack.scale[0])[None], here)
        if isinstance(again, str):
            raise NumericalError(_degenerate(stack, here))
        start = again
    stops = stops_of(stack, limits, own.crossings, start.point.z)
    tracks = _follow(stack, start, longest, max_steps, stops, bool(both))
    return as_branches(stack, tracks, own)[0].branch


def _degenerate(stack: Stack, q: float) -> str:
    """The message for an equilibrium that was found but at which df/dx is singular, so that no branch can start."""
    return (
        f"the equilibrium found at p = {float(stack.parameter(0, q)):g} is degenerate: df/dx is singular there, so that no "
        "branch can be followed through it; start beside it, or pass x0 on another branch"
    )


def _place(stack: Stack, at: object) -> float:
    """q, the parameter at which the branch starts as a fraction of the span: 0 at p0, 1 at p1."""
    if at is None:
        return 0.0
    p, ends = float(as_scalar(at, "at")), sorted((float(stack.p0[0]), float(stack.p1[0])))
    if not ends[0] <= p <= ends[1]:
        raise ValueError(f"at must lie in the span ({ends[0]:g}, {ends[1]:g}), got {p:g}")
    return float(np.clip(stack.fraction(0, p), 0.0, 1.0))


def _follow(stack: Stack, start: Start, longest: float, max_steps: int, stops: Sequence[Stop], both: bool) -> list[Track]:
    """Follow the branch from its start, in one direction or in both."""
    q = start.point.z[-1]
    if not both or q in (0.0, 1.0):
        if not (both and q == 1.0):
            return follow(stack, [start], longest, max_steps, stops=stops)
        return [track.reversed() for track in follow(stack, [start.reversed()], longest, max_steps, stops=stops)]
    (first,) = follow(stack, [start], longest, max_steps, stops=stops)
    if first.ends[0].outcome is Outcome.closed:
        return [first]
    (second,) = follow(stack, [start.reversed()], longest, max_steps, stops=stops)
    return [joined(second.reversed(), first, True)]


@outside_jit
@one_blas_thread()
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
    """Follow one branch for each of many families, as [`continuation`][] does, in one compiled batch.

    **Arguments:**

    - `families`: B families that differ in the values of their arrays only, such as random initialisations; or one family
      whose arrays all have a leading axis of length B, as `eqx.filter_vmap` makes it.
    - `x0`: (B, n), or (n,) for all, states near the equilibria at p0. `u`: (B, d), or (d,) for all, constant inputs.
    - `lanes`: how many branches are followed at the same time. When one ends, the next one takes its lane.
    - The other arguments are those of [`continuation`][].

    If a member has no equilibrium at p0, its branch has no points and its `status` says why. Raises `ValueError` for
    arguments that do not fit.

    **Example:** mu = 0.5 + p of the second is zero at p = -0.5.

    ```python
    forms = ssntk.normal_forms
    families = [ssntk.Family.line(forms.saddle_node(mu), forms.saddle_node(1.0)) for mu in (0.0, 0.5)]
    branches = ssntk.continuation_ensemble(families, (1.0, -1.0), x0=[[1.0], [1.2]])
    print([round(abs(branch.bifurcations[0].parameter), 6) for branch in branches])  # [0.0, 0.5]
    ```
    """
    max_steps, longest = as_count(max_steps, "max_steps"), float(as_scalar(step, "step", positive=True))
    lanes = as_count(lanes, "lanes")
    if isinstance(families, Family):
        arrays = jax.tree.leaves(eqx.filter(families, eqx.is_array))
        lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in arrays}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError("families must be a sequence, or one family whose arrays all have one leading axis")
        (count,) = lengths
        # Slice on the host: on the device, JAX would compile the slicing.
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
    given = _per_member(x0, "x0", len(made), model.n_state)
    xs = [None if one is None else np.asarray(one, dtype_of(model)) for one in given]
    members = [equilibria_of(family, span, one, x=x) for family, one, x in zip(made, inputs, xs, strict=True)]
    stack = Stack(members)
    starts = _starts(stack, None if x0 is None else np.stack([x for x in xs if x is not None]) / stack.scale)
    if x0 is None:
        # The typical sizes of the states follow from the equilibria, which are known only now.
        ys = [start.point.z[:-1] if isinstance(start, Start) else np.zeros(stack.n) for start in starts]
        known = [y * scale for y, scale in zip(ys, stack.scale, strict=True)]
        again = Stack([resized(zeros, x) for zeros, x in zip(members, known, strict=True)])
        new = _starts(again, np.stack(known).astype(dtype_of(model)) / again.scale)
        starts = [start if isinstance(start, str) else fresh for start, fresh in zip(starts, new, strict=True)]
        stack = again
    usable = [start for start in starts if isinstance(start, Start)]
    tracks = follow(stack, usable, longest, max_steps, min(lanes, len(usable))) if usable else []
    branches = iter(as_branches(stack, tracks))
    return Results(next(branches).branch if isinstance(start, Start) else _empty(model, start) for start in starts)


def as_start(stack: Stack, number: int, found: Corrected, at: int, way: float = 1.0) -> Start:
    """Make a corrected point the start of a branch, along its tangent (`way` = 1) or against it (-1)."""
    points = points_of(Corrected(*(part[at : at + 1] for part in found)), stack.clock)
    start = Start(number, points.at(0))
    return start if way > 0 else start.reversed()


def _starts(stack: Stack, y0: np.ndarray | None, q: float = 0.0) -> list[Start | str]:
    """For each member of the stack its start at q, or the reason why there is none. The tangent points towards p1, since the
    equations are bordered with the parameter."""
    count = len(stack.p0)
    members = np.arange(count)
    guesses = np.zeros((count, stack.n), stack.p0.dtype) if y0 is None else y0
    found = corrected_at(stack, members, guesses, np.full(count, q))
    doubtful = singular(stack, members, found.z)
    starts: list[Start | str] = []
    for i in range(count):
        if found.converged[i] and not (doubtful[i] and on_a_line(stack, i, found.z[i])):
            starts.append(as_start(stack, i, found, i))
        elif y0 is not None:
            starts.append(_refusal(stack, i, y0[i], found, q))
        else:
            starts.append(_search(stack, i, q))
    return starts


def _refusal(stack: Stack, number: int, y: np.ndarray, found: Corrected, q: float) -> str:
    """The reason why there is no start near y (n,)."""
    p, z = float(stack.parameter(number, q)), np.append(y, q).astype(y.dtype)
    if found.converged[number]:
        z = found.z[number]
        y = z[:-1]
    velocity = np.asarray(stack.members[number].residual(jax.device_put(z)))
    jacobian = stability_matrices(stack, [number], z[None])
    if not np.isfinite(velocity).all():
        return f"no equilibrium near x0 at p = {p:g}: the vector field is not finite there; try x0=None"
    terms = np.abs(jacobian[0]) @ (1 + np.abs(y))
    if (np.abs(velocity) <= np.finfo(velocity.dtype).eps ** 0.5 * terms).all():
        if on_a_line(stack, number, z):
            return (
                f"x0 lies on a line of equilibria at p = {p:g}, along which df/dx is singular: add what singles one out, "
                "such as a weak input, or follow another branch"
            )
        return f"x0 is at rest at p = {p:g} and the Jacobian is singular there: start beside that bifurcation"
    return (
        f"no equilibrium near x0 at p = {p:g}: Newton's iteration did not converge, its last correction was "
        f"{float(found.correction[number]):.2g} of the states' sizes; try x0=None"
    )


def _search(stack: Stack, number: int, q: float) -> Start | str:
    """The start at q of one member, chosen from all fixed points that the search finds there."""
    zeros, p = stack.members[number], float(stack.parameter(number, q))
    assert isinstance(zeros, Equilibria)
    model = zeros.family(zeros.parameter(np.asarray(q, stack.p0.dtype)))
    points = find_fixed_points(model, zeros.u, periods=stack.periods).x / stack.scale[number]
    if len(points):
        found = corrected_at(stack, np.full(len(points), number), points, np.full(len(points), q))
        good = np.flatnonzero(found.converged)
        if good.size:
            return as_start(stack, number, found, int(good[0]))
        if on_a_line(stack, number, np.append(points[0], q)):
            return (
                f"the equilibria found at p = {p:g} lie on a line of equilibria, along which df/dx is singular: add what "
                "singles one out, such as a weak input"
            )
    zero = jax.device_put(np.append(np.zeros(stack.n), q).astype(stack.p0.dtype))
    if not np.isfinite(np.asarray(zeros.residual(zero))).all():
        return f"the vector field is not finite at p = {p:g} and x = 0: start elsewhere, or pass x0"
    return f"no equilibrium was found at p = {p:g}: start elsewhere, or pass x0"


def _per_member(value: object, name: str, count: int, size: int) -> list[np.ndarray | None]:
    """One row (size,) for each member, from `value` (size,) or (count, size); `None` for each if it is `None`."""
    if value is None:
        return [None] * count
    array = as_array(value, name)
    if array.shape not in ((size,), (count, size)):
        raise ValueError(f"{name} must have shape ({size},) or ({count}, {size}), got {array.shape}")
    return list(np.broadcast_to(np.asarray(array), (count, size)))


def _empty(model: AbstractStateSpaceModel, status: str) -> Branch:
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
        scale=np.ones(n, dtype),
        n_unstable=np.zeros(0, int),
        outputs=np.zeros((0, model.n_output), dtype),
    )
