"""The events that are looked for on each type of branch."""

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
    """The events on branches of these zeros. A change shows at most one of them."""
    raise NotImplementedError(f"no events are known of {type(zeros).__name__}")


@events_of.register
def _(zeros: Equilibria) -> tuple[AbstractEvent, ...]:
    return of_equilibria(zeros.clock)


@functools.singledispatch
def of_equilibria(clock: AbstractClock) -> tuple[AbstractEvent, ...]:
    """The events of equilibria of a model with this clock."""
    raise NotImplementedError(f"no events are known of equilibria in {type(clock).__name__}")


@of_equilibria.register
def _(clock: Continuous) -> tuple[AbstractEvent, ...]:
    return Fold(), Hopf(), BranchPoint(), Double()


@of_equilibria.register
def _(clock: Steps) -> tuple[AbstractEvent, ...]:
    return Fold(), Flip(), NeimarkSacker(), BranchPoint(), Double()


def kinds_of(clock: AbstractClock) -> tuple[str, ...]:
    """The names of the kinds that can be requested for equilibria of a model with this clock."""
    return tuple(kind.name for event in of_equilibria(clock) if event.generic for kind in event.kinds)


def event_of(kind: str, clock: AbstractClock) -> AbstractLocatedEvent | None:
    """The event whose equations locate points of this kind; `None` if there is none."""
    for event in of_equilibria(clock):
        if isinstance(event, AbstractLocatedEvent) and kind in (event.kind.name, *(one.name for one in event.kinds)):
            return event
    return None
