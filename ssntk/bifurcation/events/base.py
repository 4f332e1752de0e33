"""What every event on a branch is asked: how it is seen, found, and where it leads.

An event is one file beside this one, and one entry in `standard.py`. Most are located by an extended system, and are asked
more: see `located.py`.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import Kind, known
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.zeros.stack import Stack

# Halvings of one step before an event counts as unresolved: from the longest step this reaches a length of about 1e-11.
DEPTH = 32
# Halvings of one step in search of events that may be there though no sign or count is changed: down to a length of 1e-6.
LOOK = 16
# The events of an interval, each with the part of it at which it lies.
Found = list[tuple[Bifurcation, float]]


class AbstractEvent(abc.ABC):
    """An event on a branch, which a step may pass. Events have no state of their own: all of a type are equal.

    - `kind`: under which name it is looked for; `kinds`: what a point that is found may be.
    - `modes`: how many eigenvalues meet the edge of stability there.
    - `generic`: whether families of one parameter have it without a symmetry, so that it can be asked for.

    **Example:** one that is seen, and of which nothing is said but where.

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

    def __init_subclass__(cls, **options: Any):
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
        """Whether it is what happens between two points of a branch."""

    def depth(self, interval: Interval) -> int:
        """How often an interval in which it is seen is halved."""
        return DEPTH

    @abc.abstractmethod
    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        """For each interval in which it is seen the events there: located ones, or why they are none; empty if unknown."""

    def switch(self, point: Bifurcation) -> tuple[np.ndarray, ...]:
        """The directions (dx, dp) of the branches that pass through a located point, (n + 1,) each, if others do."""
        return ()


def unresolved(stack: Stack, interval: Interval, kind: str, reason: str) -> Bifurcation:
    """What is seen in an interval and not located."""
    middle = (interval.a.z + interval.b.z) / 2
    ends = [float(stack.parameter(interval.member, point.z[-1])) for point in (interval.a, interval.b)]
    found = failed(stack, interval.member, kind, middle, reason).point
    return dataclasses.replace(found, interval=(min(ends), max(ends)))
