"""Double points: several real eigenvalues cross zero at once, as in symmetric networks."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssntk.bifurcation.events.base import AbstractEvent, Found
from ssntk.bifurcation.events.branch_point import BranchPoint
from ssntk.bifurcation.events.critical import NEAR
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import DEGENERATE, DOUBLE
from ssntk.bifurcation.point import failed
from ssntk.dynamics.stability import judged_exponents
from ssntk.zeros.correct import corrected, inner, length
from ssntk.zeros.lines import on_a_line, stability_matrices
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Point


class Double(AbstractEvent):
    """Several real modes cross zero at one point, or one after the other within one step: then each is a branch point."""

    kind = DOUBLE
    modes = 2
    generic = False

    def seen(self, change: Change) -> bool:
        return not change.turns and change.grown >= 2 and change.crosses == bool(change.grown % 2) and change.real

    def find(self, stack: Stack, intervals: Sequence[Interval]) -> list[Found]:
        return [_together(stack, interval) or _apart(stack, interval) for interval in intervals]


def _together(stack: Stack, interval: Interval) -> Found:
    """The point at which all real modes that cross in this interval are zero together; empty if there is no such point.

    It is found as the zero of their mean along the branch, since the extended systems are singular at it.
    """
    many, few = interval.many_few
    modes, ends = slice(few.unstable, many.unstable), [interval.a, interval.b]
    place, point, part = [0.0, 1.0], interval.a, 0.0
    floor = 32 * float(np.finfo(interval.a.z.dtype).eps) * max(float(np.abs(end.exponents).max()) for end in ends)
    for _ in range(30):
        means = [float(end.exponents[modes].real.mean()) for end in ends]
        if means[0] == means[1]:
            return []
        part = place[0] + (place[1] - place[0]) * means[0] / (means[0] - means[1])
        guess, border = interval.between(part)
        new = corrected(stack, [interval.member], guess[None], border[None])
        z, matrix = new.z[0], new.matrix[0]
        if not np.isfinite(matrix).all() or not length(z - guess) <= length(interval.b.z - interval.a.z):
            # The corrector's matrix is singular at the point itself. The interpolant is accurate enough there.
            z, matrix = guess, stability_matrices(stack, [interval.member], guess[None])[0]
        values, doubts = judged_exponents(matrix, stack.clock)
        point = Point(z, border, new.turn[0], values, doubts)
        mean = float(values[modes].real.mean())
        spread, doubt = np.abs(values[modes]).max(), NEAR * max(float(doubts[modes].max()), floor)
        if spread <= doubt:
            break
        if abs(mean) <= doubt:
            # The mean is zero but the modes are not.
            return []
        side = int((mean > 0) == (means[1] > 0))
        ends[side], place[side] = point, part
    else:
        return []
    count = int(many.unstable - few.unstable)
    kind = DOUBLE if count == 2 else DEGENERATE
    what = f"{count} real eigenvalues cross at once, as a symmetry of the network has it"
    if on_a_line(stack, interval.member, point.z):
        what += "; a line of equilibria passes through it at this parameter"
    event = failed(stack, interval.member, kind.name, point.z, what).point
    width = 64 * float(np.finfo(point.z.dtype).eps) * abs(float(stack.p1[interval.member] - stack.p0[interval.member]))
    ends_at = event.parameter - width, event.parameter + width
    event = dataclasses.replace(event, frequency=0.0, interval=ends_at, converged=True, multiplicity=count)
    return [(event, part)]


def _apart(stack: Stack, interval: Interval) -> Found:
    """The branch points at which real modes cross zero one after the other in this interval; empty unless all are found."""
    values = [modes.real for modes in interval.change.modes]
    parts = values[0] / (values[0] - values[1])
    parts = parts if interval.a.unstable > interval.b.unstable else 1 - parts
    guesses = np.stack([interval.between(float(part))[0] for part in parts])
    points = BranchPoint().solve(stack, [interval.member] * len(parts), guesses)
    if not all(one.point.converged and not interval.outside(one.z) for one in points):
        return []
    for i, one in enumerate(points):
        error = np.ptp(one.point.interval) / abs(float(stack.p1[interval.member] - stack.p0[interval.member]))
        if any(length(one.z - other.z) <= 4 * error for other in points[:i]):
            return []
    gap = interval.b.z - interval.a.z
    return [(one.point, float(inner(one.z - interval.a.z, gap) / inner(gap, gap))) for one in points]
