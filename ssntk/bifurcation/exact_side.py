"""The stable side of a bifurcation on the branch of a piecewise-linear family: equilibria at given distances, exactly."""

import dataclasses

import numpy as np

from ssntk.bifurcation.abstract_side import AbstractSide
from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.kinds import BORDER_COLLISION, BOUNDARY_HOPF, NONSMOOTH_FOLD
from ssntk.bifurcation.exact import Exact
from ssntk.dynamics.stability import judged_exponents
from ssntk.errors import NumericalError
from ssntk.models.base import dtype_of
from ssntk.piecewise.region import Region, region_of

# The kinds of points at which a unit switches.
ON_BORDERS = (NONSMOOTH_FOLD.name, BOUNDARY_HOPF.name, BORDER_COLLISION.name)


@dataclasses.dataclass(frozen=True)
class ExactSide(AbstractSide):
    """The stable side of a bifurcation of a piecewise-linear family.

    - `parameter` (k,), `x` (k, n): points of the branch, the bifurcation first. Between two of them no unit switches.
    """

    exact: Exact
    parameter: np.ndarray
    x: np.ndarray

    def at_distance(self, distance: float) -> tuple[float, np.ndarray]:
        centre = self.parameter[0]
        away = np.abs(self.parameter - centre)
        if distance > away[-1]:
            raise NumericalError(f"the stable side reaches only to a distance of {away[-1]:.6g}")
        step = int(np.searchsorted(away, distance, side="left")) - 1
        direction = np.sign(self.parameter[-1] - centre)
        # The model is measured at the parameter as its numbers hold it.
        dtype = dtype_of(self.exact.family.model)
        parameter = float(np.asarray(centre + direction * distance, dtype))
        q = (parameter - self.exact.p0) / (self.exact.p1 - self.exact.p0)
        region = self._region(step, q)
        if region is None or not self._holds(region, q):
            raise NumericalError("no stable equilibrium was found at this distance")
        return parameter, (region.state(q) * self.exact.system.sizes).astype(dtype)

    def _region(self, step: int, q: float) -> Region | None:
        """The region between the points `step` and `step + 1`, for q there."""
        signals = []
        for i in (step, step + 1):
            at = (self.parameter[i] - self.exact.p0) / (self.exact.p1 - self.exact.p0)
            parts = self.exact.system.parts(float(at))
            signals.append(parts.C @ (self.x[i] / self.exact.system.sizes) + parts.c)
        # A signal vanishes at no more than one end. The other end shows its sign.
        return region_of(self.exact.system, np.sum(signals, axis=0) > 0, q)

    def _holds(self, region: Region, q: float) -> bool:
        """Whether the fixed point of a region lies in it at q, and is stable."""
        x, signals = region.signals(q)
        within = ((signals > 0) == region.pattern) | (np.abs(signals) <= region.doubts(q, x))
        values, doubts = judged_exponents(self.exact.matrices(region.pattern, np.array([q])), self.exact.clock)
        return bool(within.all() and (values.real < -doubts).all())


def exact_side(exact: Exact, branch: Branch, number: int) -> ExactSide:
    """The stable side of `branch.bifurcations[number]`; if both are stable, the one before it on the branch.

    Raises `NumericalError` if both sides are unstable.
    """
    event, at = branch.bifurcations[number], branch.steps[number]
    low, high = event.interval
    beside = (branch.parameter < low) | (branch.parameter > high)
    for way in (-1, 1):
        indices = np.arange(at, -1, -1) if way < 0 else np.arange(at + 1, len(branch))
        # A border is a point of the branch, and so may be a place at which a mode crosses the edge of stability.
        indices = indices[int(np.argmax(beside[indices])) :] if beside[indices].any() else indices[:0]
        # A point counts to the piece before it. So does the step that leads to it.
        steps = np.append(at if event.kind in ON_BORDERS else indices[:1], indices[:-1]) if way < 0 else indices
        steps = steps[: len(indices)]
        p = np.append(event.parameter, branch.parameter[indices])
        runs = np.sign(np.diff(p))
        ends = np.flatnonzero(~branch.stable[steps] | (runs != runs[:1]))
        kept = indices[: int(ends[0]) if ends.size else len(indices)]
        if len(kept):
            x = np.concatenate([np.asarray(event.x)[None], branch.x[kept]])
            return ExactSide(event, exact, np.append(event.parameter, branch.parameter[kept]), x)
    raise NumericalError(
        f"the {event.kind} at p = {event.parameter:.6g} has no stable side: modes are unstable on both; choose another index"
    )
