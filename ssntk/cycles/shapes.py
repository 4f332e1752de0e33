"""Discrete orbits as closed curves: how large they are, how far apart, whether two are one."""

import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.cycles.collocation import adapted, gauss, values
from ssntk.cycles.discrete import Discrete


def inner(one: Discrete, other: Discrete, size: float) -> float:
    """The inner product of two changes on one mesh."""
    product = np.mean(np.asarray(one.ends) * np.asarray(other.ends)) / size**2
    return float(product + one.log_period * other.log_period + one.level * other.level)


def distance(one: Discrete, other: Discrete) -> float:
    """How far apart two orbits of one mesh are."""
    change = one.moved(-1.0, other)
    return inner(change, change, 1.0) ** 0.5


def extent(orbit: Discrete) -> float:
    """The largest half range of a state."""
    return float(np.ptp(np.asarray(orbit.ends), axis=0).max()) / 2


def at_times(orbit: Discrete, times: np.ndarray) -> np.ndarray:
    """The states (k, n) at `times` (k,) in [0, 1)."""
    mesh, ends, within = (np.asarray(part, float) for part in orbit[:3])
    if within.shape[1]:
        return values(times, mesh, ends, within)
    return CubicSpline(mesh, np.vstack([ends, ends[:1]]), bc_type="periodic")(times)


def alike(one: Discrete, other: Discrete, tolerance: float) -> bool:
    """Whether two orbits have the same period and the same extremes."""
    times = np.linspace(0, 1, 256, endpoint=False)

    def marks(orbit: Discrete) -> np.ndarray:
        states = at_times(orbit, times)
        return np.concatenate([states.max(axis=0), states.min(axis=0), [float(orbit.log_period)]])

    return bool(np.abs(marks(one) - marks(other)).max() <= tolerance * max(1.0, np.abs(marks(other)).max()))


def unlike(orbit: Discrete) -> np.ndarray:
    """By how much the states of the first half of the period differ from those half a period later (k, n)."""
    times = np.linspace(0.0, 0.5, 32, endpoint=False)
    return at_times(orbit, times) - at_times(orbit, times + 0.5)


def half(orbit: Discrete) -> Discrete:
    """The first half of an orbit as an orbit of its own, with half as many intervals."""
    mesh = np.asarray(orbit.mesh, float)
    first = np.append(mesh[mesh < 0.5 * (1 - 1e-9)], 0.5)
    count, degree = len(orbit.ends) // 2, orbit.inner.shape[1]
    new = np.interp(np.linspace(0, len(first) - 1, count + 1), np.arange(len(first)), first)
    nodes = gauss(degree)[0] if degree else np.zeros(0)
    within = at_times(orbit, (new[:-1, None] + np.diff(new)[:, None] * nodes).ravel())
    parts = 2 * new, at_times(orbit, new[:-1]), within.reshape(count, degree, -1)
    states = [np.asarray(part, orbit.ends.dtype) for part in parts]
    return Discrete._make([*states, orbit.log_period - np.log(2.0), orbit.level])


def mirrored(one: Discrete, other: Discrete) -> bool:
    """Whether the branch passed through an equilibrium between two orbits: then they are half a period apart."""
    first, second = (np.asarray(orbit.ends) - np.asarray(orbit.ends).mean(axis=0) for orbit in (one, other))
    return bool((first * second).sum() < 0)


def between(one: Discrete, other: Discrete, part: float) -> Discrete:
    """A part of the way from one orbit to another on the same mesh."""
    ends, within, log_period, level = (a + part * (b - a) for a, b in zip(one[1:], other[1:], strict=True))
    return Discrete(one.mesh, ends, within, log_period, level)


def remeshed(orbit: Discrete, tangent: Discrete, degree: int, factor: int = 1) -> tuple[Discrete, Discrete]:
    """An orbit and its tangent on an adapted mesh with `factor` times as many intervals."""
    mesh, ends, within = (np.asarray(part, float) for part in orbit[:3])
    new = adapted(mesh, ends, within, factor * len(ends))
    nodes, dtype = gauss(degree)[0], orbit.ends.dtype
    times = (new[:-1, None] + np.diff(new)[:, None] * nodes).ravel()

    def on(ends: np.ndarray, within: np.ndarray) -> list[np.ndarray]:
        inside = values(times, mesh, ends, within).reshape(len(new) - 1, degree, ends.shape[1])
        return [values(new[:-1], mesh, ends, within), inside]

    parts = on(ends, within), on(np.asarray(tangent.ends, float), np.asarray(tangent.inner, float))
    first, second = (
        Discrete._make([*(np.asarray(part, dtype) for part in (new, *states)), old.log_period, old.level])
        for states, old in zip(parts, (orbit, tangent), strict=True)
    )
    return first, second


def scaled(change: Discrete, by: float) -> Discrete:
    """A change times a number."""
    return Discrete(change.mesh, by * change.ends, by * change.inner, by * change.log_period, by * change.level)
