"""Where a branch of cycles begins: at an orbit, at a Hopf point, or at a bifurcation of other cycles."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.bifurcation.events.kinds import HOPF
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleEvent
from ssntk.cycles.collocation import gauss
from ssntk.cycles.discrete import AbstractMethod, Collocation, Corrected, Discrete, System, corrected, flat, nullspace
from ssntk.cycles.events import BRANCH, DOUBLING
from ssntk.cycles.orbit import Orbit
from ssntk.cycles.search import MOST
from ssntk.cycles.shapes import extent, inner, scaled


def checked(start: Any, n: int, span: tuple[float, float]) -> np.ndarray:
    """The state (n,) at which sizes and rates are taken. `ValueError` if the start does not fit."""
    if isinstance(start, Orbit):
        if start.x.shape[1] != n:
            raise ValueError(f"start must be an orbit of {n} states, got {start.x.shape[1]}")
        return np.asarray(start.x[0], float)
    if not isinstance(start, (Bifurcation, CycleEvent)):
        raise ValueError(
            f"start must be a Hopf Bifurcation, an Orbit, or a period doubling or branch point of cycles, "
            f"got {type(start).__name__}"
        )
    kinds = (DOUBLING, BRANCH) if isinstance(start, CycleEvent) else (HOPF.name,)
    if start.kind not in kinds:
        raise ValueError(f"start must be a Hopf point, a {DOUBLING} or a {BRANCH}, got a {start.kind}")
    if not start.converged:
        raise ValueError(f"start must have been located: {start.reason}")
    room = 1e-9 * abs(span[1] - span[0])
    if not min(span) - room <= float(start.parameter) <= max(span) + room:
        raise ValueError(f"start must lie in the span, and p = {float(start.parameter):.17g} does not")
    if np.shape(start.x) != (n,):
        raise ValueError(f"start must have a state of {n} entries, got {np.shape(start.x)}")
    return np.asarray(start.x, float)


def begun(
    start: Any, system: System, how: AbstractMethod, count: int, level: float
) -> tuple[Discrete, tuple[Discrete | None, ...]]:
    """The orbit to begin with on `count` intervals, and the directions in which the branch leaves it; `None` for an orbit
    that is the first of the branch itself."""
    if isinstance(start, Bifurcation):
        orbit, along = _from_hopf(start, system, how, count, level)
        return orbit, (along,)
    if isinstance(start, Orbit):
        return sampled(start, start.x, system, how, count, level), (None,)
    known = start.orbit
    if start.kind == DOUBLING:
        # The event was located on twice as many intervals as the branch has.
        fine = len(known) // 2 if isinstance(how, Collocation) else len(known)
        orbit = sampled(known, known.x, system, how, max(fine, 4), level)
        at = _exact(how, system, orbit)
        orbit = orbit if at is None else at.orbit
        return twice(orbit), (_reversing(nullspace(how, system, orbit)[2]),)
    # The orbit's own mesh resolves it, and the branch's tangent is known there.
    orbit = sampled(known, known.x, system, how, len(known), level)
    ends = np.asarray(start.tangent, float)[:-2].reshape(known.x.shape)
    before = sampled(known, ends, system, how, len(known), level)
    log_period, change = (jnp.asarray(part, orbit.ends.dtype) for part in np.asarray(start.tangent)[-2:])
    before = before._replace(log_period=log_period, level=change / system.reach)
    along = across(nullspace(how, system, orbit)[:2], before, max(1.0, extent(orbit)))
    return orbit, (along, scaled(along, -1.0))


def _exact(how: AbstractMethod, system: System, orbit: Discrete) -> Corrected | None:
    at = corrected(how, system, orbit, flat(orbit), jnp.zeros_like(orbit.level), jnp.ones_like(orbit.level))
    return at if float(at.size) <= float(jnp.finfo(orbit.ends.dtype).eps) ** 0.5 else None


def across(pair: tuple[Discrete, ...], before: Discrete, size: float) -> Discrete:
    """Of the plane of two directions the one normal to how the branch goes on."""
    first, second = pair
    first = scaled(first, inner(first, first, size) ** -0.5)
    second = second.moved(-inner(first, second, size), first)
    second = scaled(second, inner(second, second, size) ** -0.5)
    one, other = inner(before, first, size), inner(before, second, size)
    return scaled(second, one).moved(-other, first)


def twice(orbit: Discrete) -> Discrete:
    """The orbit run through twice, as one orbit with twice as many intervals."""
    mesh = jnp.concatenate([orbit.mesh[:-1] / 2, (orbit.mesh + 1) / 2])
    states = [jnp.concatenate([part, part]) for part in (orbit.ends, orbit.inner)]
    return Discrete._make([mesh, *states, orbit.log_period + np.log(2.0), orbit.level])


def _reversing(change: Discrete) -> Discrete:
    """The change of the orbit run through twice which is reversed in the second round."""
    states = [jnp.concatenate([part, -part]) for part in (change.ends, change.inner)]
    return Discrete._make([jnp.zeros(2 * len(change.ends) + 1, change.ends.dtype), *states, *change[3:]])


def _nodes(how: AbstractMethod) -> np.ndarray:
    return gauss(how.degree)[0] if isinstance(how, Collocation) else np.zeros(0)


def _put(system: System, *parts: Any) -> Discrete:
    return Discrete._make(jnp.asarray(part, system.sizes.dtype) for part in parts)


def _spread(mesh: np.ndarray, nodes: np.ndarray, at: Any) -> tuple[np.ndarray, np.ndarray]:
    """The states that `at` (times) gives on a mesh: at its points, and within its intervals."""
    within = at((mesh[:-1, None] + np.diff(mesh)[:, None] * nodes).ravel())
    return at(mesh[:-1]), within.reshape(len(mesh) - 1, len(nodes), within.shape[1])


def mesh_of(known: Orbit, count: int) -> np.ndarray:
    """The mesh (count + 1,) from 0 to 1 that the points of an orbit carry, on `count` intervals."""
    times = np.append(known.ts, known.period) / known.period
    return np.interp(np.linspace(0, len(times) - 1, count + 1), np.arange(len(times)), times)


def on_mesh(known: Orbit, x: np.ndarray, mesh: np.ndarray, system: System, how: AbstractMethod, level: float) -> Discrete:
    """States (N, n) at the points of an orbit, on a mesh (M + 1,), in working units."""
    times = np.append(known.ts, known.period) / known.period
    states = np.vstack([x, x[:1]]) / np.asarray(system.sizes, float)
    spread = _spread(mesh, _nodes(how), CubicSpline(times, states, bc_type="periodic"))
    return _put(system, mesh, *spread, np.log(known.period / float(system.unit)), level)


def sampled(known: Orbit, x: np.ndarray, system: System, how: AbstractMethod, count: int, level: float) -> Discrete:
    """States (N, n) at the points of an orbit, which carry its mesh, on `count` intervals, in working units."""
    return on_mesh(known, x, mesh_of(known, count), system, how, level)


def _from_hopf(
    start: Bifurcation, system: System, how: AbstractMethod, count: int, level: float
) -> tuple[Discrete, Discrete]:
    """The equilibrium, and the direction in which its oscillation grows."""
    sizes, unit = np.asarray(system.sizes, float), float(system.unit)
    x, right = np.asarray(start.x, float) / sizes, np.asarray(start.right) / sizes
    right = right if float(start.frequency) > 0 else right.conj()
    mesh = np.linspace(0, 1, count + 1)
    ends, within = _spread(mesh, _nodes(how), lambda times: np.real(np.exp(2j * np.pi * times)[:, None] * right))
    length, period = np.sqrt(np.mean(ends**2)), 2 * np.pi / (abs(float(start.frequency)) * unit)
    orbit = _put(system, mesh, 0 * ends + x, 0 * within + x, np.log(period), level)
    return orbit, _put(system, mesh, ends / length, within / length, 0.0, 0.0)


def room_for(start: Any) -> str:
    """Why the mesh of a start cannot be used; empty if it can."""
    if isinstance(start, CycleEvent) and start.kind == DOUBLING and len(start.orbit) > MOST:
        return f"start has {len(start.orbit)} intervals, and the doubled cycle needs more than the {MOST} that are allowed"
    return ""
