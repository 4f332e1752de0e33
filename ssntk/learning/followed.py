"""The fixed points of a network that is trained: followed from record to record, and what happens to them."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ssntk.critical.distance import natural_time_scale, relative_distance, verdict
from ssntk.critical.fragile import most_fragile
from ssntk.critical.warned import border_at, border_clause, border_distance
from ssntk.dynamics.fixed_points import FixedPoints, constant_input, find_fixed_points
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import exponents
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.theta import theta_positions
from ssntk.threads import one_blas_thread

# How many fixed points are followed, and from how many states each record searches for others.
FOLLOWED, FRESH = 64, 8
# The stability radius is computed for at most so many stable points: those whose eigenvalues are nearest to the edge.
JUDGED = 16

NAN = complex(np.nan, np.nan)


class Look(NamedTuple):
    """What one record says about the fixed points. Its fields are fields of `MonitorRecord`."""

    critical_eigenvalue: complex
    stability_radius: float
    x_star: np.ndarray
    verdict: str
    n_fixed_points: int
    n_stable: int
    events: tuple[str, ...]
    saddle_eigenvalue: complex = NAN
    stable: bool = False
    reason: str = ""


class Followed:
    """The fixed points that are known, `points`, at a constant input."""

    def __init__(self, u: object, n_starts: int, key: object):
        self.u, self.n_starts, self.key = u, n_starts, key
        self.points: FixedPoints | None = None
        self.looks = 0

    @one_blas_thread()
    def look(self, model: AbstractStateSpaceModel, ends: np.ndarray, step: int, horizon: float) -> Look:
        """What the fixed points have become at this step.

        `ends` (B, n): states from which others are searched for. If the model depends on time, it has no fixed points, and
        the first look says so.
        """
        before, first = self.points, self.looks == 0
        self.looks += 1
        try:
            check_autonomous(model)
        except ValueError as error:
            events = (f"no fixed points are followed: {error}",) if first else ()
            return _unknown(model, events, str(error))
        if before is None or len(before) == 0:
            followed = np.arange(0)
            found = find_fixed_points(model, self.u, n_starts=self.n_starts, key=self.key)
        else:
            followed = _by_distance(before, model.clock)[:FOLLOWED]
            found = find_fixed_points(model, self.u, starts=self._starts(model, before.x[followed], ends))
        self.points = found
        events = () if before is None else _events(before, followed, found, model.clock, step)
        if len(found) == 0:
            return _unknown(model, events, "no fixed point is known")
        return _judged(model, found, horizon, events)

    def _starts(self, model: AbstractStateSpaceModel, known: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The starts of a search: known fixed points, ends of trajectories, and random states.

        Their number is always the same, so that nothing is compiled again.
        """
        ends = ends[np.isfinite(ends).all(axis=1)][:FRESH]
        size = np.maximum(np.abs(known).max(axis=0), typical_sizes(model, constant_input(model, self.u), known[0]))
        noise = jr.normal(jr.key(self.looks - 1), (FOLLOWED + 2 * FRESH, model.n_state), dtype_of(model))
        return np.concatenate([known, ends, size * np.asarray(noise)])[: FOLLOWED + 2 * FRESH]


def _unknown(model: AbstractStateSpaceModel, events: tuple[str, ...], why: str) -> Look:
    nothing = np.full(model.n_state, np.nan)
    return Look(NAN, np.nan, nothing, "unknown", 0, 0, events, reason=f"unknown: {why}")


def _judged(model: AbstractStateSpaceModel, found: FixedPoints, horizon: float, events: tuple[str, ...]) -> Look:
    """The verdict on the stable point that is nearest to a bifurcation; if none is stable, on the nearest one."""
    clock = model.clock
    order = _by_distance(found, clock)
    point = most_fragile([(jnp.zeros(model.n_input), found)], clock, most=JUDGED)
    touch = point.edge
    rates = exponents(point.matrix, clock)
    critical = complex(rates[np.argmin(np.abs(rates - 1j * touch.frequency))])
    still = jnp.zeros(model.n_input, dtype_of(model))
    border = border_at(model, theta_positions(model, "state", None), point.x, still)
    far = relative_distance(touch.radius, natural_time_scale(model, rates), horizon)
    sort, clause = verdict(min(far, border_distance(border))), border_clause(border)
    saddle, others = NAN, order[~found.stable[order]]
    if len(others):
        growing = exponents(found.jacobian[others[0]].astype(float), clock)
        saddle = complex(growing[np.argmin(np.abs(growing.real))])
    who = "a stable fixed point" if point.stable else "none is stable, and the fixed point that is nearest to a bifurcation"
    return Look(
        critical_eigenvalue=critical,
        stability_radius=touch.radius,
        x_star=point.x,
        verdict=sort,
        n_fixed_points=len(found),
        n_stable=int(found.stable.sum()),
        events=events,
        saddle_eigenvalue=saddle,
        stable=point.stable,
        reason=f"{sort}: {who} has stability radius {touch.radius:.2g} and the eigenvalue {critical:.2g}"
        + (f"; {clause}" if clause else ""),
    )


def _growth(points: FixedPoints, clock: AbstractClock) -> np.ndarray:
    """How fast the modes of each fixed point grow (k, n), in 1 / time."""
    return clock.shown_rate(points.eigenvalues)


def _by_distance(points: FixedPoints, clock: AbstractClock) -> np.ndarray:
    """The order of fixed points by how near an eigenvalue lies to the edge of stability."""
    return np.argsort(np.abs(_growth(points, clock)).min(axis=1), kind="stable")


def _events(
    before: FixedPoints, followed: np.ndarray, after: FixedPoints, clock: AbstractClock, step: int
) -> tuple[str, ...]:
    """What became of the fixed points that were followed, and which points are new.

    A point of before is identified with the nearest point of now, unless that one is nearer to another point of before.
    """
    if len(after) == 0:
        return ("no fixed point is known any longer",) if len(before) else ()
    if len(before) == 0:
        return (_births(after.stable, step),)
    # Distances are relative to the largest value that each state has anywhere.
    sizes = np.maximum(np.abs(before.x).max(axis=0), np.abs(after.x).max(axis=0))
    apart = np.linalg.norm((before.x[:, None] - after.x[None]) / np.where(sizes > 0, sizes, 1.0), axis=2)
    to, back = apart.argmin(axis=1), apart.argmin(axis=0)
    was, now = ((_growth(points, clock) > 0).sum(axis=1) for points in (before, after))
    said = []
    for i in followed:
        j = to[i]
        if back[j] != i:
            said.append(f"a fixed point with {was[i]} unstable directions is no longer there")
        elif was[i] != now[j]:
            said.append(f"a fixed point that had {was[i]} unstable directions has {now[j]}")
    fresh = to[back] != np.arange(len(after))
    # If there are more points than are followed, one that is found again would look new.
    if fresh.any() and len(before) <= FOLLOWED:
        said.append(_births(after.stable[fresh], step))
    return tuple(said)


def _births(stable: np.ndarray, step: int) -> str:
    many = "s" if len(stable) > 1 else ""
    return f"{len(stable)} new fixed point{many} ({int(stable.sum())} stable), first seen at step {step}"
