"""Events that are located by a test function of the modes, which changes sign at the event."""

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np

from ssntk.bifurcation.events.base import AbstractEvent, Found, unresolved
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.point import failed
from ssntk.dynamics.stability import exponents
from ssntk.zeros.between import on_branch
from ssntk.zeros.correct import inner
from ssntk.zeros.lines import stability_matrices
from ssntk.zeros.stack import Stack


class AbstractTestEvent(AbstractEvent):
    """An event at which a function of the growth exponents changes sign along a branch.

    Subclass it with a `kind` and a `test`, and pass an instance to `continuation(..., events=...)`.

    **Example:**

    ```python
    class Neutral(ssntk.AbstractTestEvent):
        kind = ssntk.Kind("neutral", meaning="two modes grow and decay at one rate")
        modes = 2

        def test(self, exponents):
            return exponents[0].real + exponents[-1].real

    family = ssntk.Family(ssntk.VectorField(lambda t, x, u, p: jnp.stack([p * x[0], -x[1]]), jnp.asarray(0.5), 2), "params")
    print([event.kind for event in ssntk.continuation(family, (0.5, 2.0), events=[Neutral()]).bifurcations])  # ['neutral']
    ```
    """

    generic = False

    @abc.abstractmethod
    def test(self, exponents: np.ndarray) -> float:
        """The test function of the growth exponents (n,), the fastest growing first."""

    def seen(self, change: Change) -> bool:
        first, second = self.test(change.a.exponents), self.test(change.b.exponents)
        # Zero at a point is one event, of the step that ends there. If the test is NaN, an event may hide.
        return bool(first * second < 0 or (second == 0 and first != 0) or np.isnan([first, second]).any())

    def begins(self, change: Change) -> bool:
        return bool(self.test(change.a.exponents) == 0 != self.test(change.b.exponents))

    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        return [self._in(stack, interval) for interval in intervals]

    def _in(self, stack: Stack, interval: Interval) -> Found:
        def value(z: np.ndarray) -> np.ndarray:
            matrices = stability_matrices(stack, [interval.member] * len(z), z)
            return np.array([self.test(exponents(matrix, stack.clock)) for matrix in matrices])

        values = [self.test(point.exponents) for point in (interval.a, interval.b)]
        if np.isnan(values).any():
            return [(unresolved(stack, interval, self.kind.name, "its test is NaN there"), 0.5)]
        ends = [(point.z, point.tangent) for point in (interval.a, interval.b)]
        gap = interval.b.z - interval.a.z
        if 0 in values:
            z = ends[values.index(0)][0]
        else:
            new = on_branch(stack, interval.member, ends[0], ends[1], value)
            if new is None:
                return [(unresolved(stack, interval, self.kind.name, "the branch could not be corrected there"), 0.5)]
            z = new.z[0]
        point = failed(stack, interval.member, self.kind.name, z, "").point
        width = 8 * float(np.finfo(z.dtype).eps) * abs(float(stack.p1[interval.member] - stack.p0[interval.member]))
        limits = point.parameter - width, point.parameter + width
        located = dataclasses.replace(point, frequency=0.0, interval=limits, converged=True)
        return [(located, float(inner(z - interval.a.z, gap) / inner(gap, gap)))]
