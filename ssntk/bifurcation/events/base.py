"""The interface of an event on a branch: how it is recognised, how it is found, and which branches pass through it.

To add an event, write one file in this folder and one entry in `standard.py`. Most events are located by an extended system
of equations and have further methods: see `located.py`.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import Kind, known
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.zeros.stack import Stack

# How often a step is halved before an event counts as unresolved: from the longest step, to a length of about 1e-11.
DEPTH = 32
# How often a step is halved in search of events that may hide although no sign or count changes: to a length of 1e-6.
LOOK = 16
# The events in an interval, each with its position in it, from 0 to 1.
Found = list[tuple[Bifurcation, float]]


class AbstractEvent(abc.ABC):
    """An event that a step of a branch may pass, such as a fold.

    Events are compared by their class: two objects of one class are equal, so an event should hold no data of its own.

    - `kind`: the kind under which it is looked for. `kinds`: the kinds that a located point may have.
    - `modes`: the number of eigenvalues that meet the edge of stability at the event.
    - `generic`: whether one-parameter families have it without a symmetry, so that it can be requested.

    **Example:** an event that is recognised but never located.

    ```python
    class Turned(ssntk.AbstractEvent):
        kind = ssntk.Kind("turned")

        def seen(self, change):
            return bool(change.a.tangent[-1] * change.b.tangent[-1] < 0)

        def find(self, stack, intervals):
            return [[] for _ in intervals]


    print(Turned() == Turned(), Turned().kinds[0].name)  # True turned
    ```
    """

    kind: ClassVar[Kind]
    modes: ClassVar[int] = 1
    generic: ClassVar[bool] = True

    def __init_subclass__(cls, **options: object):
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            if not isinstance(cls.kind, Kind):
                raise ValueError(f"kind of {cls.__name__} must be an ssntk.Kind, got {cls.kind!r}")
            known(cls.kind)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (self.kind,)

    @abc.abstractmethod
    def seen(self, change: Change) -> bool:
        """Whether the change between two points of a branch shows this event."""

    def begins(self, change: Change) -> bool:
        """Whether the event lies at the first point of a branch, from the change of its first step. No step ends there."""
        del change
        return False

    def depth(self, interval: Interval) -> int:
        """How often an interval that shows the event is halved at most."""
        return DEPTH

    @abc.abstractmethod
    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        """For each interval that shows the event: the events in it, located or unresolved; empty if unknown."""

    def switch(self, point: Bifurcation) -> tuple[np.ndarray, ...]:
        """The directions (dx, dp), (n + 1,) each, of the branches that cross at a located point; empty if none do."""
        return ()


def unresolved(stack: Stack, interval: Interval, kind: str, reason: str) -> Bifurcation:
    """The unresolved event for an interval that shows one which was not located."""
    middle = (interval.a.z + interval.b.z) / 2
    ends = [float(stack.parameter(interval.member, point.z[-1])) for point in (interval.a, interval.b)]
    found = failed(stack, interval.member, kind, middle, reason).point
    return dataclasses.replace(found, interval=(min(ends), max(ends)))
