"""Which events are looked for, on what is followed."""

import functools

from ssntk.bifurcation.events.base import AbstractEvent
from ssntk.bifurcation.events.branch_point import BranchPoint
from ssntk.bifurcation.events.double import Double
from ssntk.bifurcation.events.flip import Flip
from ssntk.bifurcation.events.fold import Fold
from ssntk.bifurcation.events.located import AbstractLocatedEvent
from ssntk.bifurcation.events.pair import Hopf, NeimarkSacker
from ssntk.models.clock import AbstractClock, Continuous, Steps
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.equilibria import Equilibria


@functools.singledispatch
def events_of(zeros: AbstractZeros) -> tuple[AbstractEvent, ...]:
    """The events that branches of these zeros have: at most one of them is seen in a change."""
    raise NotImplementedError(f"no events are known of {type(zeros).__name__}")


@events_of.register
def _(zeros: Equilibria) -> tuple[AbstractEvent, ...]:
    return of_equilibria(zeros.clock)


@functools.singledispatch
def of_equilibria(clock: AbstractClock) -> tuple[AbstractEvent, ...]:
    """The events of equilibria in this time."""
    raise NotImplementedError(f"no events are known of equilibria in {type(clock).__name__}")


@of_equilibria.register
def _(clock: Continuous) -> tuple[AbstractEvent, ...]:
    return Fold(), Hopf(), BranchPoint(), Double()


@of_equilibria.register
def _(clock: Steps) -> tuple[AbstractEvent, ...]:
    return Fold(), Flip(), NeimarkSacker(), BranchPoint(), Double()


def kinds_of(clock: AbstractClock) -> tuple[str, ...]:
    """The names of the kinds of bifurcation that can be asked for, of equilibria in this time."""
    return tuple(kind.name for event in of_equilibria(clock) if event.generic for kind in event.kinds)


def event_of(kind: str, clock: AbstractClock) -> AbstractLocatedEvent | None:
    """The event by whose equations points of this kind are located; `None` if there is none."""
    for event in of_equilibria(clock):
        if isinstance(event, AbstractLocatedEvent) and kind in (event.kind.name, *(one.name for one in event.kinds)):
            return event
    return None
