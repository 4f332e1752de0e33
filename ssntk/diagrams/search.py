"""Follow all branches that can be reached: from fixed points at several parameters, crossings of branches, Hopf points."""

from collections.abc import Callable
from typing import Any

import jax.random as jr
import numpy as np

from ssntk.bifurcation.events.kinds import FLIP
from ssntk.bifurcation.exact import Exact, Refuted
from ssntk.bifurcation.point import Bifurcation
from ssntk.bifurcation.reach import WHOLE, Limits, Reach, distinct, status_of
from ssntk.bifurcation.wish import EXACT, METHODS, SEARCH, exact_family, singular_at
from ssntk.diagrams.cycles import followed
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.exact import Exactly
from ssntk.dynamics.fixed_points import FixedPoints, find_fixed_points
from ssntk.dynamics.metric import as_metric, as_periods
from ssntk.errors import NumericalError, as_choice, as_count, as_instance, as_key, as_scalar, outside_jit
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap
from ssntk.piecewise.kinks import NotPiecewiseLinear
from ssntk.threads import one_blas_thread
from ssntk.zeros.equilibria import Equilibria, equilibria_of, resized
from ssntk.zeros.stack import Stack

# The largest number of fixed points from which the typical sizes of the states are computed.
LOOKS = 12


@outside_jit
@one_blas_thread()
def bifurcation_diagram(
    family: Any,
    span: Any,
    *,
    u: Any = None,
    key: Any = None,
    n_slices: int = 11,
    n_starts: int = 256,
    step: Any = 0.05,
    max_steps: int = 10_000,
    max_branches: int = 256,
    max_period: int = 8,
    scale: Any = None,
    fix: Any = None,
    periods: Any = None,
    cycles: Any = False,
    method: Any = "auto",
) -> Diagram:
    """Follow all branches of equilibria over a span that can be reached, and if asked those of limit cycles.

    Fixed points are searched for at `n_slices` parameters, among them both ends. If a fixed point lies on no branch yet, its
    branch is followed in both directions: this finds disconnected pieces and closed loops. Each search also returns slow
    points, states at which the network almost rests. Branches are followed from the saddle-nodes near them, which finds
    pieces between two slices. If branches cross, the crossing branch is followed too, along the second root of the
    bifurcation equation (Keller, 1977). For maps, the cycle of twice as many steps that is born at a flip is followed too.

    **Arguments:**

    - `span`: (p0, p1), two different values of the parameter. `u`: (d,) constant input. Default zero.
    - `n_slices`: at how many parameters to search, evenly spaced, at least 2. `n_starts`: the number of starts of each
      search. More slices or more starts find more branches.
    - `key`: a `jax.random.key` for the starts. Default `jax.random.key(0)`.
    - `step`, `max_steps`, `scale`, `fix`, `periods`: as for [`continuation`][].
    - `max_branches`: the largest number of branches. If it stops the search, `status` reports where.
    - `max_period`: for maps, the largest number of steps of cycles that are followed from flips. For the limit cycles of
      flows, the largest number of rounds that are followed from period doublings. Each period compiles anew.
    - `cycles`: whether to follow the limit cycles that are born at the Hopf points of a flow, those that branch off from
      them, and those in turn; see [`cycle_continuation`][]. Cycles that are not connected to a Hopf point are not found.
    - `method`: `"exact"`, `"search"` or `"auto"`, as for [`continuation`][]. Exact branches are told apart by the regions
      that they pass, without a tolerance, and the cycles of maps that are born at borders are not followed.

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time. Raises `NumericalError` if no
    equilibrium is found anywhere.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.pitchfork(0.0), "mu")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    print([event.kind for event in diagram.bifurcations])  # ['pitchfork']
    ```
    """
    as_choice(method, "method", METHODS)
    n_slices, max_steps = as_count(n_slices, "n_slices", least=2), as_count(max_steps, "max_steps")
    n_starts, max_branches = as_count(n_starts, "n_starts", least=2), as_count(max_branches, "max_branches")
    max_period = as_count(max_period, "max_period")
    as_instance(family, "family", Family)
    _check_cycles(cycles, family)
    longest, turns = float(as_scalar(step, "step", positive=True)), as_periods(periods, family.model.n_state)
    # The ends of the span come first, since branches that start there are followed in one direction only.
    slices = np.linspace(0.0, 1.0, n_slices)[[0, -1, *range(1, n_slices - 1)]].tolist()
    keys, found = jr.split(as_key(key), n_slices), list[FixedPoints]()
    exact = exact_family_of(family, span, u, method, fix, turns, cycles)
    if exact is not None:
        every = Exactly(exact, max_steps, max_branches)
        try:
            for q, one in zip(slices, keys, strict=True):
                every.through(find_fixed_points(exact.model(q), exact.u, n_starts=n_starts, key=one), q)
            if every.found:
                return every.diagram(as_metric(scale, family.model.n_state), longest)
        except (Refuted, NotPiecewiseLinear) as error:
            if method == EXACT:
                raise ValueError(f'method must be "search" or "auto" for this family: {error}') from error
    zeros = equilibria_of(family, span, u, scale=scale, fix=fix)
    for q, one in zip(slices, keys, strict=True):
        model = family(zeros.parameter(np.asarray(q, zeros.p0.dtype)))
        found.append(find_fixed_points(model, zeros.u, n_starts=n_starts, periods=turns, key=one))
    seen = [(q, x) for q, points in zip(slices, found, strict=True) for x in points.x]
    if scale is None and seen:
        # The typical sizes of the states follow from the fixed points, which are known only now.
        chosen = [seen[i] for i in np.linspace(0, len(seen) - 1, min(len(seen), LOOKS)).astype(int)]
        zeros = resized(zeros, np.stack([x for _, x in chosen]), [q for q, _ in chosen])
    search = Reach(Stack([zeros], turns), Limits(longest, max_steps, max_branches), [])
    for q, points in zip(slices, found, strict=True):
        search.through(points.x, q)
        search.near(points.slow.x, q)
    if not search.nodes and not search.degenerate:
        shown = ", ".join(f"{float(zeros.parameter(q)):g}" for q in sorted(slices))
        raise NumericalError(f"no equilibrium was found at p = {shown}: try another span, more n_slices or more n_starts")
    searches = _doublings(search, max_period)
    if cycles:
        return _diagram_of(searches, lambda located: followed(family, span, u, located, max_period, max_branches))
    return _diagram_of(searches, lambda located: ((), []))


def _diagram_of(searches: list[Reach], cycles: Callable[[tuple[Bifurcation, ...]], Any]) -> Diagram:
    """The diagram of the branches that were found. `cycles`: the branches of limit cycles for the located bifurcations, and
    what their status says."""
    search, nodes = searches[0], searches[0].nodes
    branches = tuple(node.branch for node in nodes)
    bifurcations = [(node.stack, event) for node in nodes for event in node.branch.bifurcations]
    degenerate = [(search.stack, event) for event in search.degenerate]
    unresolved = distinct([(node.stack, event) for node in nodes for event in node.branch.unresolved])
    located, status = distinct([*bifurcations, *degenerate]), status_of(searches, len(unresolved))
    oscillating, said = cycles(located)
    return Diagram(
        branches=branches,
        bifurcations=located,
        unresolved=unresolved,
        status="; ".join(said if said and status == WHOLE else (status, *said)),
        parent=tuple(node.parent for node in nodes),
        cycles=oscillating,
    )


def exact_family_of(
    family: Family, span: Any, u: Any, method: str, fix: Any, periods: np.ndarray | None, cycles: bool
) -> Exact | None:
    """The family as a piecewise-linear one, if it is one and its branches are to be followed exactly; else `None`.

    Raises `ValueError`, which names the argument, if `method` asks for what cannot be done.
    """
    refused = {
        "fix": (fix is not None, "not be given", "conserved quantities make df/dx singular in every region"),
        "periods": (periods is not None, "not be given", "a piecewise-linear model does not repeat itself"),
        "cycles": (cycles, "be False", "limit cycles are not followed across borders"),
    }
    bad = next((name for name, (given, _, _) in refused.items() if given), None)
    if method == EXACT and bad is not None:
        _, must, why = refused[bad]
        raise ValueError(f'{bad} must {must} with method="exact": {why}')
    if method == SEARCH or bad is not None:
        return None
    exact = exact_family(family, span, u, method == EXACT)
    return exact if exact is None or method == EXACT or not singular_at(exact, None, 0.5) else None


def _check_cycles(cycles: Any, family: Any) -> None:
    """`ValueError` unless `cycles` says whether to follow the limit cycles of a flow."""
    if not isinstance(cycles, bool):
        raise ValueError(f"cycles must be True or False, got {cycles!r}")
    if cycles and isinstance(family.model, AbstractMap):
        raise ValueError("cycles is for flows: the cycles of maps are followed from flips in any case")


def _doublings(search: "Reach", max_period: int) -> list["Reach"]:
    """This search, and one for each doubled period, in which the cycles born at flips are followed."""
    searches = [search]
    while True:
        last = searches[-1]
        flips = [
            (event, (i, number))
            for i, node in enumerate(last.nodes)
            if node.stack is last.stack
            for number, event in enumerate(node.branch.bifurcations)
            # If it has tangents, the branch of the doubled cycle has this very period.
            if event.kind == FLIP.name and event.tangents is None
        ]
        (zeros,) = last.stack.members
        assert isinstance(zeros, Equilibria)
        if not flips:
            return searches
        if 2 * zeros.rounds > max_period:
            last.beyond = 2 * zeros.rounds
            return searches
        searches.append(Reach(Stack([zeros.twice()], last.stack.periods), last.limits, last.nodes))
        for event, parent in flips:
            searches[-1].doubled(event, parent)
