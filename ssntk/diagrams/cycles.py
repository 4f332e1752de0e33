"""Follow the limit cycles that are born at the Hopf points of a diagram, and the cycles that branch off from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssntk.bifurcation.events.kinds import HOPF
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.continuation import cycle_continuation
from ssntk.cycles.events import BRANCH, DOUBLING
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import sizes_over
from ssntk.errors import NumericalError
from ssntk.models.base import dtype_of
from ssntk.models.family import Family

# Two points are the same if they agree to these parts: of the span and of the period; of the sizes of the states; and of
# the extent of cycles, which are known between their points by interpolation.
SAME, STATES, EXTREMES = 1e-6, 1e-5, 1e-3
# The number of parameters in the span at which the typical sizes of the states are computed.
LOOKS = 5
# How a branch ends that was not cut short, as its status says it.
WHOLE = (
    "left the span",
    "shrinks to the Hopf",
    "merges with cycles of half the period at",
    "closed",
    "the period grows",
    "cycles lie",
)


def followed(
    family: Family, span: Any, u: Any, events: Sequence[Bifurcation], max_period: int, max_branches: int
) -> tuple[tuple[CycleBranch, ...], list[str]]:
    """The branches of cycles that begin at Hopf points among the events, and those that branch off from them up to
    `max_period` rounds; and what was not followed, in words."""
    branches: list[CycleBranch] = []
    said: list[str] = []
    waiting: list[tuple[Any, int]] = [(event, 1) for event in events if event.kind == HOPF.name and event.converged]
    reach = abs(float(span[1]) - float(span[0]))
    beyond = 0
    sizes = _sizes(family, span, u, waiting[0][0].x) if waiting else np.zeros(0)
    while waiting:
        event, rounds = waiting.pop(0)
        if any(_same(event, other, sizes, reach) for branch in branches for other in (branch.begin, branch.end)):
            continue
        # Two branches that are known cross there.
        through = [branch for branch in branches if any(_same(event, other, sizes, reach) for other in branch.bifurcations)]
        if event.kind == BRANCH and len(through) > 1:
            continue
        after = 2 * rounds if event.kind == DOUBLING else rounds
        if after > max_period:
            beyond = after
            continue
        if len(branches) == max_branches:
            said.append(f"stopped at max_branches = {max_branches} of cycles: more was seen")
            break
        try:
            branch = cycle_continuation(family, event, span, u=u)
        except (NumericalError, ValueError) as error:
            said.append(f"the cycles from the {event.kind} at p = {float(event.parameter):.6g} were not followed: {error}")
            continue
        said += [f"branch {len(branches)} of cycles: {cut}" for cut in _cuts(branch)]
        branches.append(branch)
        waiting += [(one, after) for one in branch.bifurcations if one.kind in (DOUBLING, BRANCH)]
    if beyond:
        said.append(f"cycles of {beyond} rounds were not followed: give a larger max_period")
    return tuple(branches), said


def _cuts(branch: CycleBranch) -> list[str]:
    """The parts of a branch's status that say that it was cut short, or that events were not located."""
    parts = branch.status.replace("on the other side: ", "").split("; ")
    return [part for part in parts if not part.startswith(WHOLE)]


def _sizes(family: Family, span: Any, u: Any, x: Any) -> np.ndarray:
    """The typical sizes (n,) of the states near an equilibrium x (n,), which may be zero up to rounding."""
    models = [family(float(p)) for p in np.linspace(float(span[0]), float(span[1]), LOOKS)]
    state = np.asarray(x).astype(dtype_of(family.model))
    return np.asarray(sizes_over(models, constant_input(family.model, u), state), float)


def _same(one: Any, other: Any, sizes: np.ndarray, reach: float) -> bool:
    """Whether two bifurcations are the same point, wherever on the cycle each was seen. Each state is measured in its own
    size."""
    if other is None or one.kind != other.kind or abs(float(one.parameter) - float(other.parameter)) > SAME * reach:
        return False
    if isinstance(one, CycleEvent):
        low, high = (np.abs(getattr(one.orbit, end) - getattr(other.orbit, end)) for end in ("minimum", "maximum"))
        extent = np.maximum(sizes, one.orbit.maximum - one.orbit.minimum)
        alike = bool((np.maximum(low, high) <= EXTREMES * extent).all())
        return alike and abs(one.period - other.period) <= SAME * one.period
    return bool((np.abs(np.asarray(one.x) - np.asarray(other.x)) <= STATES * np.maximum(sizes, np.abs(one.x))).all())
