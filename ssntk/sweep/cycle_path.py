"""Sweeps towards bifurcations of limit cycles: what their plans hold, how their branch is found, how points are measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.continuation import continuation
from ssntk.bifurcation.events.kinds import HOPF
from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.continuation import checked_span, cycle_continuation
from ssntk.cycles.orbit import limit_cycle
from ssntk.cycles.side import CycleSide, events_of, kind_of_event, stable_side
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar
from ssntk.models.base import check_autonomous
from ssntk.models.family import Family
from ssntk.models.theta import size as size_of
from ssntk.models.theta import theta_positions
from ssntk.sweep.abstract_plan import Found
from ssntk.sweep.cycle_measurement import measure_cycle
from ssntk.sweep.measure import FAILURES

# The fields that say nothing about a cycle, with what each would need.
WITHOUT = {
    "probe": "the kernel of a cycle has its own times and no other input than u",
    "blocks": "they are measured of trajectories only",
    "integrator": "cycles are solved by collocation or shooting",
    "quantities": "they are measured at fixed points only",
}


def checked_cycles(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plan towards a bifurcation of cycles as it keeps them. `ValueError`, which names the field that is
    wrong."""
    held = dict(given)
    family: Family = as_instance(held["family"], "family", Family)
    kind, model = held["towards"], family.model
    held["span"] = checked_span(family, held["span"])
    for name, reason in WITHOUT.items():
        if held[name] is not None and (name != "quantities" or held[name] != ()):
            raise ValueError(f"{name} must be left out towards a {kind}: {reason}")
    if held["of"] != "state":
        raise ValueError(
            f"of must be 'state' towards a {kind}: the shape of a cycle is one of its states, got {held['of']!r}"
        )
    check_autonomous(family(held["span"][0]), "family")
    constant_input(model, held["u"])
    held["index"] = 0 if held["index"] is None else as_count(held["index"], "index", least=0)
    held["scale"] = as_metric(held["scale"], model.n_state)
    count = size_of(model, theta_positions(model, "state", held["wrt"]))
    if held["modes"] is not None and as_count(held["modes"], "modes") >= count:
        raise ValueError(f"modes must be below {count}, the number of parameters, got {held['modes']}")
    held["step"] = float(as_scalar(held["step"], "step", positive=True))
    if held["x0"] is not None:
        held["x0"] = np.asarray(as_array(held["x0"], "x0", (model.n_state,)))
    return held


def follow(plan: Any) -> CycleBranch:
    """The branch of cycles of a plan: from the cycle on which x0 settles at p0, or else the first one that is born at a Hopf
    point in the span and holds the bifurcation.

    Raises `NumericalError` if there is none, and says what was found instead.
    """
    family, span, u = plan.family, plan.span, plan.constant()
    how: dict[str, Any] = {"u": u, "step": plan.step}
    if plan.x0 is not None:
        branch = cycle_continuation(family, limit_cycle(family(span[0]), plan.x0, u=u), span, **how)
        number(plan, branch)
        return branch
    equilibria = continuation(family, span, **how)
    births = [event for event in equilibria.bifurcations if event.kind == HOPF.name]
    where = f"over p in ({span[0]:g}, {span[1]:g})"
    if not births:
        raise NumericalError(
            f"no limit cycle to follow: the branch of equilibria {where} {equilibria.status} and holds no Hopf point; pass "
            "an x0 that settles on a cycle at p0"
        )
    said = []
    for event in births:
        born = f"that born at the Hopf point at p = {float(event.parameter):.6g}"
        try:
            branch = cycle_continuation(family, event, span, **how)
            number(plan, branch)
            return branch
        except NumericalError as error:
            said.append(f"{born}: {error}")
    raise NumericalError("; ".join(said))


def number(plan: Any, branch: CycleBranch) -> int:
    """Which event of the branch a plan goes towards. Raises `NumericalError` if it holds no such one."""
    events = events_of(branch)
    of_kind = [i for i, event in enumerate(events) if kind_of_event(event) == plan.towards]
    if plan.index < len(of_kind):
        return of_kind[plan.index]
    seen = [f"{kind_of_event(event)} at p = {float(event.parameter):.6g}" for event in events]
    seen += [
        f"{event.kind} near p = {float(event.parameter):.6g}, not located ({event.reason})" for event in branch.unresolved
    ]
    raise NumericalError(
        f"no {plan.towards} number {plan.index} on the branch of cycles over p in ({plan.span[0]:g}, {plan.span[1]:g}), "
        f"which holds {', '.join(seen) or 'no bifurcation'} ({branch.status}); try another span, index, or x0"
    )


def side(plan: Any, branch: CycleBranch) -> CycleSide:
    """The side of the bifurcation on which cycles are stable."""
    u: Array = plan.constant()
    return stable_side(plan.family, np.asarray(u, float), plan.span, branch, number(plan, branch))


def measure_points(plan: Any, context: CycleSide, indices: Sequence[int]) -> list[Found]:
    """For each of these points: the values at which it is measured, and its measurement or error."""
    found: list[Found] = []
    for index in indices:
        values: dict[str, Any] = {"distance": plan.distances[index]}
        try:
            parameter, orbit = context.at_distance(float(plan.distances[index]))
            values["parameter"] = parameter
            model = plan.family(parameter)
            how: dict[str, Any] = {"wrt": plan.wrt, "scale": plan.scale, "modes": plan.modes}
            found.append((values, measure_cycle(model, orbit, plan.towards, **how)))
        except FAILURES as error:
            found.append((values, error))
    return found
