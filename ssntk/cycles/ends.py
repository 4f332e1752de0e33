"""How a branch of cycles ends: it shrinks to a Hopf point, slows down, leaves the span, closes, or its cycles become cycles
of half the period that are run through twice."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssntk.bifurcation.events.kinds import HOPF, SADDLE_NODE
from ssntk.bifurcation.locate import locate
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.discrete import Discrete, System, flat
from ssntk.cycles.events import DOUBLING, STILL, CyclePoint
from ssntk.cycles.follow import Follower, Seen
from ssntk.cycles.shapes import alike, between, extent, half, mirrored, unlike
from ssntk.dynamics.refine import refine_fixed_point
from ssntk.errors import NumericalError
from ssntk.models.family import Family

# A cycle of less than this part of the largest extent may be one that vanishes.
SMALL = 0.02
# Where the period grows and the parameter's share of the tangent is below this, the parameter has come to its limit.
STANDING = 1e-3
# So many cycles at one parameter are a family.
SEVERAL = 6
# Orbits that may be the same, on the way between two points, and orbits that are, at the same parameter.
ROUGHLY, SAME = 0.02, 1e-3


class Ends:
    """The ways in which a branch ends."""

    def __init__(self, family: Family, u: Any, system: System, span: tuple[float, float], longest: float):
        self.family, self.u, self.system, self.span, self.longest = family, u, system, span, longest
        self.end: Bifurcation | None = None
        self.merged: Seen | None = None
        self.sizes = np.asarray(system.sizes, float)

    def parameter(self, level: float) -> float:
        return self.span[0] + level * (self.span[1] - self.span[0])

    def stops(self, follower: Follower, ahead: CyclePoint) -> str | None:
        """Why the branch ends before the point ahead; `None` if it goes on."""
        here = follower.resized(follower.points[-1])
        if len(follower.points) >= SEVERAL and all(abs(point.turn) <= STILL for point in (*follower.points, ahead)):
            return f"cycles lie side by side at p = {self.parameter(here.level):g}, as if a quantity is conserved"
        if mirrored(here.at.orbit, ahead.at.orbit):
            return self.shrinks(here, ahead)
        if (merged := self.merges(follower, here, ahead)) is not None:
            return merged
        if not 0 <= ahead.level <= 1 and not 0 <= here.level <= 1:
            return f"left the span at p = {self.parameter(here.level):g}"
        if not 0 <= ahead.level <= 1:
            level = 0.0 if ahead.level < 0 else 1.0
            part = (level - here.level) / (ahead.level - here.level)
            guess = between(here.at.orbit, ahead.at.orbit, part)._replace(level=jnp.asarray(level, self.system.sizes.dtype))
            point = follower.corrected(guess, flat(guess), 0.0)
            if point is None:
                return f"left the span after p = {self.parameter(here.level):g}, and no cycle was found at its end"
            follower.seen += follower.watch(here, _onwards(point, here), follower.apart(here, point))
            follower.points.append(point)
            return f"left the span at p = {self.parameter(level):g}"
        if ahead.period > self.longest:
            return self.slows(here, ahead)
        return "closed" if self.closes(follower, ahead) else None

    def shrinks(self, here: CyclePoint, ahead: CyclePoint) -> str:
        """The end at a Hopf point, which the branch has run through."""
        first, second = extent(here.at.orbit), extent(ahead.at.orbit)
        orbit = between(here.at.orbit, ahead.at.orbit, first / (first + second))
        return self.vanishes(orbit) or (
            f"shrinks to an equilibrium near p = {self.parameter(float(orbit.level)):g}, and no Hopf point was located there"
        )

    def vanishes(self, orbit: Discrete) -> str:
        """The end at the Hopf point near a small orbit; empty if there is none of its frequency."""
        x = np.asarray(orbit.ends, float).mean(axis=0) * self.sizes
        try:
            found = locate(self.family, HOPF.name, parameter=self.parameter(float(orbit.level)), x=x, u=self.u)
        except NumericalError:
            return ""
        turns = float(found.frequency) * float(self.system.unit) * np.exp(float(orbit.log_period)) / (2 * np.pi)
        if not found.converged or not 0.8 < turns < 1.25:
            return ""
        self.end = found
        return f"shrinks to the Hopf point at p = {found.parameter:g}"

    def merges(self, follower: Follower, here: CyclePoint, ahead: CyclePoint) -> str | None:
        """The end at a period doubling of cycles of half the period, which the branch has run through; `None` if it has not.
        After it the cycles are those before it, half a period later."""
        first, second = unlike(here.at.orbit), unlike(ahead.at.orbit)
        if (first * second).sum() >= 0 or len(here.at.orbit.ends) < 8:
            return None
        lengths = np.linalg.norm(first), np.linalg.norm(second)
        part = float(lengths[0] / (lengths[0] + lengths[1]))
        orbit = between(here.at.orbit, ahead.at.orbit, part)
        if np.linalg.norm(unlike(orbit)) > 0.3 * min(lengths):
            return None
        point = follower.doubling(half(orbit))
        if point is None:
            p = self.parameter(float(orbit.level))
            return f"merges with cycles of half the period near p = {p:g}, whose {DOUBLING} was not located"
        self.merged = Seen(DOUBLING, point, (here.level, point.level), True, "", flat(point.at.orbit))
        return f"merges with cycles of half the period at their {DOUBLING} at p = {self.parameter(point.level):g}"

    def lost(self, follower: Follower) -> str:
        """Why no further step succeeds: the cycle may be too small to be told from the equilibrium."""
        orbit = follower.points[-1].at.orbit
        small = extent(orbit) < SMALL * max(extent(point.at.orbit) for point in follower.points)
        return (
            self.vanishes(orbit) if small else ""
        ) or f"steps became too short at p = {self.parameter(float(orbit.level)):g}"

    def slows(self, here: CyclePoint, ahead: CyclePoint) -> str:
        """The end at a saddle-node on the cycle, or at a homoclinic orbit: there an equilibrium lies where it is slowest."""
        orbit, said = ahead.at.orbit, f"the period grows beyond {self.longest * float(self.system.unit):.4g}"
        ends, length = np.asarray(orbit.ends, float), np.exp(float(orbit.log_period))
        times = np.asarray(orbit.mesh, float)[:-1]
        speed = np.linalg.norm(np.roll(ends, -1, axis=0) - ends, axis=1) / (np.diff(np.asarray(orbit.mesh)) * length)
        slow = ends[int(speed.argmin())]
        slowest = ends[np.abs((times - times[int(speed.argmin())] + 0.5) % 1 - 0.5) <= 0.05]
        room = np.abs(slowest - slow).max() + 0.05 * np.ptp(ends, axis=0).max()
        p = self.parameter(ahead.level)
        try:
            found = locate(self.family, SADDLE_NODE.name, parameter=p, x=slow * self.sizes, u=self.u)
        except NumericalError:
            found = None
        if found is not None and found.converged and np.abs(found.x / self.sizes - slow).max() <= room:
            self.end = found
            return f"{said}: it ends at a saddle-node on the cycle, at p = {found.parameter:g}"
        limit = self.limit(here, ahead, slow, room)
        near = "" if limit is None else f", by extrapolation at p = {limit:.10g}"
        if abs(ahead.turn) < STANDING:
            return f"{said}, near p = {p:g} (homoclinic{near}, or a saddle-node on the cycle that was not located)"
        if limit is not None:
            return f"{said} at p = {p:g}, on the way to a homoclinic orbit{near}: a longer max_period follows it further"
        return f"{said} at p = {p:g}, and p still changes: a longer max_period follows it further"

    def limit(self, here: CyclePoint, ahead: CyclePoint, slow: np.ndarray, room: float) -> float | None:
        """The parameter of the homoclinic orbit that two cycles approach: their distances from it shrink as exp(-rate T),
        with the slowest rate at which states leave the saddle that they pass, or approach it if that is slower. `None` if
        they pass none."""
        p, longer = self.parameter(ahead.level), ahead.period - here.period
        try:
            x, jacobian, _ = refine_fixed_point(self.family(p), slow * self.sizes, self.u)
        except NumericalError:
            return None
        rates = np.linalg.eigvals(np.asarray(jacobian, float)).real * float(self.system.unit)
        # A cycle returns at the distance that its parameter leaves, plus that to which the approach has shrunk: the larger.
        saddle = (rates > 0).any() and (rates < 0).any()
        if not saddle or longer <= 0 or np.abs(x / self.sizes - slow).max() > room:
            return None
        shrinks = np.exp(-np.abs(rates[rates != 0]).min() * longer)
        return self.parameter((ahead.level - shrinks * here.level) / (1 - shrinks))

    def closes(self, follower: Follower, ahead: CyclePoint) -> bool:
        """Whether the branch passes its first cycle again, in the same direction."""
        first, here = follower.points[0], follower.points[-1]
        if len(follower.points) < 10 or first.turn * ahead.turn <= 0:
            return False
        if (here.level - first.level) * (ahead.level - first.level) > 0:
            return False
        part = (first.level - here.level) / (ahead.level - here.level) if ahead.level != here.level else 0.0
        guess = between(here.at.orbit, ahead.at.orbit, part)
        if not alike(guess, first.at.orbit, ROUGHLY):
            return False
        point = follower.corrected(guess._replace(level=first.at.orbit.level), flat(guess), 0.0)
        return point is not None and alike(point.at.orbit, first.at.orbit, SAME)


def _onwards(point: CyclePoint, here: CyclePoint) -> CyclePoint:
    """A point that was corrected at a fixed level, with its tangent along the way from `here`."""
    return point if point.turn * here.turn >= 0 else point._replace(at=point.at._replace(tangent=here.at.tangent))
