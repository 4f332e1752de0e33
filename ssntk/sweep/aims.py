"""The kinds of bifurcation that a sweep may go towards, and why it cannot."""

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.kinds import (
    BORDER_COLLISION,
    BOUNDARY_HOPF,
    CYCLE_FOLD,
    DEGENERATE_FLIP,
    FLIP,
    NONSMOOTH_FOLD,
    PERIOD_DOUBLING,
    SADDLE_NODE,
    SADDLE_NODE_ON_CYCLE,
    TO_INFINITY,
    TORUS,
    as_kind,
    kind_named,
    kind_of,
)
from ssntk.bifurcation.events.standard import kinds_of
from ssntk.bifurcation.wish import exact_family
from ssntk.models.clock import AbstractClock
from ssntk.models.ctrnn import CTRNN
from ssntk.models.family import Family

# At these no eigenvalue of the stable side comes near the edge of stability.
WITHOUT_A_MODE = (NONSMOOTH_FOLD.name, BORDER_COLLISION.name)
# The kinds at which limit cycles bifurcate.
OF_CYCLES = tuple(kind.name for kind in (CYCLE_FOLD, PERIOD_DOUBLING, TORUS, SADDLE_NODE_ON_CYCLE))
# Names that mean a bifurcation of cycles for flows, and one of fixed points for maps.
_OF_FLOWS = {"pd": PERIOD_DOUBLING.name, "ns": TORUS.name}


def aim_of(value: object, family: object) -> object:
    """The name that results use for a kind of bifurcation or an alias, of which some mean others for flows than for maps."""
    flows = isinstance(family, Family) and family.clock.flips_at is None
    own = _OF_FLOWS.get(value.lower()) if flows and isinstance(value, str) else None
    return kind_of(value) if own is None else own


def may_lack_probe(towards: object) -> bool:
    """Whether plans towards a kind, or an alias of one, may be of cycles, which have no probe."""
    return kind_of(towards) in (*OF_CYCLES, *(kind_of(alias) for alias in _OF_FLOWS))


def oscillates(kind: str) -> bool:
    """Whether a bifurcation of this kind has a frequency that is not zero."""
    return kind_named(kind).modes == 2 or kind in (FLIP.name, DEGENERATE_FLIP.name)


def _on_exact_branches(clock: AbstractClock) -> tuple[str, ...]:
    """The kinds that only exact branches have, those of piecewise-linear families."""
    own = (BOUNDARY_HOPF,) if clock.flips_at is None else (BORDER_COLLISION, DEGENERATE_FLIP)
    return tuple(kind.name for kind in (NONSMOOTH_FOLD, *own, TO_INFINITY))


def check_aim(towards: object, family: Family, span: object, u: object) -> None:
    """Raises `ValueError` if no sweep of this family can go towards such a bifurcation."""
    exact = _on_exact_branches(family.clock)
    flows = family.clock.flips_at is None
    if towards in OF_CYCLES and not flows:
        raise ValueError(
            f"towards must not be {towards!r} for a map: its cycles of k steps are fixed points of Iterated(map, k), whose "
            "bifurcations a sweep can go towards"
        )
    kind = as_kind(towards, "towards", (*kinds_of(family.clock), *exact, *(OF_CYCLES if flows else ())))
    if kind not in exact:
        return
    try:
        held = exact_family(family, span, u, must=True)
    except ValueError as error:
        reason = str(error).partition(": ")[2]
        raise ValueError(f"towards must not be {kind!r} for this family: {reason}") from error
    if held is None or not len(held.system.widths):
        raise ValueError(f"towards must not be {kind!r} for this family: its model is linear, without borders")


def missing(towards: str, index: int, branch: Branch, family: Family, span: tuple[float, float]) -> str:
    """The message that a branch holds no such bifurcation, and what it holds."""
    seen = [f"{event.kind} at p = {event.parameter:.6g}" for event in (*branch.bifurcations, *branch.unresolved)]
    hint = ""
    if towards == SADDLE_NODE.name and branch.collisions:
        hint = "; branches of piecewise-linear models, such as ReLU networks, turn at borders: a 'nonsmooth-fold'"
    elif towards == SADDLE_NODE.name and family.moves == "attribute" and isinstance(family.model, CTRNN):
        hint = (
            "; where x = 0 stays a fixed point, as in a CTRNN with zero bias, gain gives pitchforks and Hopf points: "
            "sweep a bias (Family.line) or an input (Family.input)"
        )
    p0, p1 = (float(end) for end in span)
    return (
        f"no {towards} number {index} on the branch over p in ({p0:g}, {p1:g}): "
        f"it {branch.status} and holds {', '.join(seen) if seen else 'no bifurcation'}{hint}"
    )
