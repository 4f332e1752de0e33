"""Write continuous piecewise-linear values as sums of relus.

A value is an array (K, *shape). Along its first axis are the coefficients of 1, of each of the n states, and of each relu
that was made so far. A value that is known has K = 1.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from ssntk.piecewise.line import cut


class NotPiecewiseLinear(ValueError):
    """A model is not of the form A x + B relu(C x + c) + h. The message names the `part` that is not."""

    def __init__(self, part: str):
        super().__init__(f"model must be piecewise linear, and it has {part}")
        self.part = part


@dataclasses.dataclass(frozen=True)
class Step:
    """How one operation on e elements was written, so that it is written alike for other numbers in the model.

    - `plain` (e,): elements at which the test does not depend on the state, or both values are equal.
    - `single` (e,): elements that need one relu of an affine signal.
    - `lines`: the other elements, each with the relus (k,) that it consists of. Their signals are parallel.
    """

    plain: Bool[np.ndarray, " e"]
    single: Bool[np.ndarray, " e"]
    lines: tuple[tuple[int, Int[np.ndarray, " k"]], ...]


class Kinks:
    """The relus of one evaluation of a program: their signals, as rows (m, 1 + n) of coefficients of 1 and of the states."""

    def __init__(self, n: int, tolerance: float, plan: Sequence[Step] | None = None):
        """**Arguments:** `tolerance`: the rounding error of the model's arithmetic, relative to the terms. `plan`: how an
        earlier evaluation of the same program was written."""
        self.n, self.tolerance, self.plan = n, tolerance, plan
        self.rows, self.steps = np.zeros((0, 1 + n)), []

    @property
    def width(self) -> int:
        """The number of coefficients K of a value that depends on the states."""
        return 1 + self.n + len(self.rows)

    def switch(self, test: np.ndarray, yes: np.ndarray, no: np.ndarray, what: str) -> np.ndarray:
        """The value `yes` where the value `test` is positive, and `no` elsewhere. `what`: the operation, for messages."""
        shape = np.broadcast_shapes(*(part.shape[1:] for part in (test, yes, no)))
        flat = [widened(np.broadcast_to(part, (len(part), *shape)), self.width) for part in (test, yes, no)]
        d, a, b = (part.reshape(self.width, -1) for part in flat)
        jump, sizes = a - b, np.abs(a) + np.abs(b)
        step = self._step(d, jump, sizes)
        single = np.flatnonzero(step.single)
        held = [b + jump * (step.plain & (d[0] > 0))]
        if len(single):
            own = np.zeros((len(single), b.shape[1]))
            own[np.arange(len(single)), single] = _factors(d[:, single], jump[:, single])
            held.append(own)
            self.rows = np.concatenate([self.rows, d[: 1 + self.n, single].T])
        more, made = [], 0
        block = np.zeros((sum(len(knots) + 1 for _, knots in step.lines), b.shape[1]))
        for element, knots in step.lines:
            column, own, rows = self._line(d[:, element], jump[:, element], sizes[:, element], knots, what)
            held[0][:, element] += column
            block[made : made + len(own), element] = own
            made += len(own)
            more.append(rows)
        held.append(block)
        self.rows = np.concatenate([self.rows, *more])
        return np.concatenate(held).reshape(self.width, *shape)

    def _step(self, d: np.ndarray, jump: np.ndarray, sizes: np.ndarray) -> Step:
        """The next step of the plan, or a new one, for coefficients (K, e)."""
        n = self.n
        plain = ~(d[1:] != 0).any(axis=0) | ~(jump != 0).any(axis=0)
        rest = np.abs(jump - _factors(d, jump) * d) > self.tolerance * (sizes + np.abs(jump))
        single = ~plain & ~(d[1 + n :] != 0).any(axis=0) & ~rest.any(axis=0)
        if self.plan is None:
            used = (d[1 + n :] != 0) | (jump[1 + n :] != 0)
            lines = tuple((int(i), np.flatnonzero(used[:, i])) for i in np.flatnonzero(~plain & ~single))
            self.steps.append(Step(plain, single, lines))
            return self.steps[-1]
        step = self.plan[len(self.steps)] if len(self.steps) < len(self.plan) else None
        # An element may become simpler at single values of a parameter, but not more complicated.
        if step is None or step.plain.shape != plain.shape or (~plain & (step.plain | (step.single & ~single))).any():
            raise NotPiecewiseLinear("other relus for these numbers than for those before")
        self.steps.append(step)
        return step

    def _line(
        self, d: np.ndarray, jump: np.ndarray, sizes: np.ndarray, knots: np.ndarray, what: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`jump` (K,) where `d` (K,) is positive, and zero elsewhere, if both are functions of one signal.

        **Returns:** the coefficients (K,), those (k + 1,) of as many new relus as there are intervals between k knots, and
        the rows (k + 1, 1 + n) of these. A relu that is not needed has the signal -1.
        """
        n, used = self.n, self.rows[knots]
        spans, most = np.stack([*used[:, 1:], d[1 : 1 + n], jump[1 : 1 + n]]), np.abs(np.stack([*used[:, 1:], d[1 : 1 + n]]))
        most = np.concatenate([most, sizes[None, 1 : 1 + n]])
        moving = np.flatnonzero((spans != 0).any(axis=1))
        # If every signal is constant, for instance at a gain of zero, any direction serves.
        along = spans[moving[0]] if len(moving) else np.eye(n)[0]
        pivot = int(np.flatnonzero(along)[0])
        share = spans[:, pivot] / along[pivot]
        aside = (np.abs(spans - share[:, None] * along) > self.tolerance * most).any()
        at = 1 + n + knots
        tests, values, terms = (
            np.concatenate([[part[0], part[1 + pivot] / along[pivot]], part[at]]) for part in (d, jump, sizes)
        )
        found = cut(tests, values, np.abs(terms), share[:-2], used[:, 0], self.tolerance)
        if aside and (len(knots) or (d[1 + n :] != 0).any()):
            raise NotPiecewiseLinear(f"a relu of relus, in {what}")
        if aside or found.jump > self.tolerance:
            raise NotPiecewiseLinear(f"a jump, in {what}: the two values differ where the test changes")
        column, rows = np.zeros(len(d)), np.zeros((len(knots) + 1, 1 + n))
        column[0], column[1 : 1 + n], column[at] = found.value[0], found.value[1] * along, found.old
        alive = np.isfinite(found.at)
        rows[:, 0] = -np.where(alive, found.at, 1.0)
        rows[alive, 1:] = along
        return column, found.new, rows


def widened(value: np.ndarray, width: int) -> np.ndarray:
    """A value (K, *shape) with zeros as the coefficients up to `width`."""
    if len(value) == width:
        return value
    out = np.zeros((width, *value.shape[1:]))
    out[: len(value)] = value
    return out


def _factors(d: np.ndarray, jump: np.ndarray) -> np.ndarray:
    """The numbers (e,) with `jump = factor d`, if there are such, for coefficients (K, e)."""
    pivot = (d != 0).argmax(axis=0)[None]
    below, above = (np.take_along_axis(part, pivot, axis=0)[0] for part in (d, jump))
    return above / np.where(below != 0, below, 1.0)
