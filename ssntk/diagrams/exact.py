"""The diagram of a piecewise-linear family: exact branches, told apart by the regions that they pass."""

import numpy as np

from ssntk.bifurcation.exact import Exact, Refuted
from ssntk.bifurcation.pieces import branch_of
from ssntk.bifurcation.point import Bifurcation
from ssntk.bifurcation.reach import WHOLE
from ssntk.diagrams.diagram import Diagram
from ssntk.dynamics.fixed_points import FixedPoints
from ssntk.errors import NumericalError, Outcome
from ssntk.piecewise.pivot import Path, start_at
from ssntk.piecewise.region import Still, region_of
from ssntk.piecewise.ways import Way

# Ends at which a branch is complete.
COMPLETE = (Outcome.left_span, Outcome.closed, Outcome.to_infinity)
# How many of the slow points of each slice are looked at.
SLOW = 64


class Exactly:
    """The branches found so far, and the methods that follow further ones.

    `found`: for each branch its paths in one or two directions, and the index of the branch from which it was reached.
    """

    def __init__(self, exact: Exact, max_steps: int, max_branches: int):
        self.exact, self.max_steps, self.max_branches = exact, max_steps, max_branches
        self.found: list[list[Path]] = []
        self.full, self.bordering = False, list[float]()

    def through(self, found: FixedPoints, q: float) -> None:
        """Follow the branches through fixed points at q, and those that begin where slow points point to."""
        sizes = self.exact.system.sizes
        for x in found.x:
            pattern = start_at(self.exact.system, np.asarray(x, float) / sizes, q)
            if pattern is not None:
                self._take(pattern, q)
        for x in found.slow.x[:SLOW]:
            self._near(np.asarray(x, float) / sizes, q)

    def _near(self, x: np.ndarray, q: float) -> None:
        """Follow the branch through the region of a slow point (n,), if it has a fixed point at another parameter."""
        system = self.exact.system
        parts = system.parts(q)
        region = region_of(system, parts.C @ x + parts.c > 0, q)
        if not isinstance(region, Still):
            return
        # In this region the signals are affine: where all of them have its signs, there is a fixed point.
        place, signals = region.signals(0.0)
        slopes = region.slopes(0.0, place).s
        sign = np.where(region.pattern, 1.0, -1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = -signals / slopes
        rises = sign * slopes > 0
        low = max(float(zeros[rises].max(initial=0.0)), 0.0)
        high = min(float(zeros[~rises & (slopes != 0)].min(initial=1.0)), 1.0)
        still = slopes == 0
        if low < high and (sign * signals > 0)[still].all():
            self._take(region.pattern, (low + high) / 2)

    def _take(self, pattern: np.ndarray, q: float) -> None:
        """Follow the branch through the fixed point of a region at q, unless it is known, and those that meet it at a border
        at which several signals vanish."""
        todo: list[tuple[np.ndarray, float, tuple[float, ...]]] = [(pattern, q, _ways(q))]
        while todo:
            pattern, q, ways = todo.pop()
            if any(path.on(pattern, q) for paths in self.found for path in paths):
                continue
            if len(self.found) >= self.max_branches:
                self.full = True
                return
            try:
                paths = self.exact.paths(pattern, q, ways, self.max_steps)
            except Refuted:
                raise
            except NumericalError:
                self.bordering.append(float(self.exact.parameter(q)))
                continue
            self.found.append(paths)
            for path in paths:
                end = path.ends[0]
                todo += [self._beside(way, end.q) for way in end.ways]

    def _beside(self, way: Way, q: float) -> tuple[np.ndarray, float, tuple[float, ...]]:
        """A start behind a border, in the middle of the piece that begins there, in both directions."""
        region = region_of(self.exact.system, way.pattern, q)
        assert region is not None
        x, signals = region.signals(q)
        doubts = region.doubts(q, x)
        just = tuple(int(i) for i in np.flatnonzero(np.abs(signals) <= 64 * doubts))
        middle = (q + region.leaves(q, way.direction, just).q) / 2
        return way.pattern, middle, _ways(middle)

    def diagram(self, scale: np.ndarray | None, step: float) -> Diagram:
        """The diagram of all branches found."""
        branches = tuple(branch_of(self.exact, paths, scale, step, self.max_steps) for paths in self.found)
        parts = [f"stopped at max_branches = {self.max_branches}: more was seen"] if self.full else []
        cut = [(i, path.ends[0]) for i, paths in enumerate(self.found) for path in paths]
        for i, end in cut:
            if end.outcome not in (*COMPLETE, Outcome.several_ways):
                said = end.outcome.say(
                    p=float(self.exact.parameter(end.q)), most=self.max_steps, count=len(end.units), ways=len(end.ways) + 1
                )
                parts.append(f"branch {i} {said}")
        places = dict.fromkeys(f"{p:.6g}" for p in self.bordering)
        parts += [f"equilibria on a border, at p = {', '.join(places)}, were not followed"] if places else []
        if any(event.born for branch in branches for event in branch.collisions):
            parts.append("the cycles that are born at borders were not followed")
        return Diagram(
            branches=branches,
            bifurcations=_distinct([event for branch in branches for event in branch.bifurcations]),
            unresolved=_distinct([event for branch in branches for event in branch.unresolved]),
            status="; ".join(parts) or WHOLE,
            parent=(None,) * len(branches),
        )


def _ways(q: float) -> tuple[float, ...]:
    return (1.0,) if q == 0.0 else (-1.0,) if q == 1.0 else (1.0, -1.0)


def _distinct(events: list[Bifurcation]) -> tuple[Bifurcation, ...]:
    """The events sorted by parameter. Those at which several branches meet are listed once."""
    kept: list[Bifurcation] = []
    for event in sorted(events, key=lambda one: one.parameter):
        sizes = np.abs(event.x)
        near = [one for one in kept if one.kind == event.kind and one.interval[1] >= event.interval[0]]
        if not any((np.abs(one.x - event.x) <= 1e-9 * np.maximum(sizes, np.abs(one.x))).all() for one in near):
            kept.append(event)
    return tuple(kept)
