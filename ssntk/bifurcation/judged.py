"""The collisions and bifurcations on a branch of a piecewise-linear family."""

import dataclasses

import numpy as np

from ssntk.bifurcation.collisions import Collision, births, collision_of, kind_at
from ssntk.bifurcation.events.kinds import BORDER_COLLISION, DEGENERATE_FLIP, HOPF, NEIMARK_SACKER, TO_INFINITY
from ssntk.bifurcation.exact import Exact, Refuted
from ssntk.bifurcation.halves import Half
from ssntk.bifurcation.point import Bifurcation
from ssntk.bifurcation.sampled import Met
from ssntk.dynamics.stability import eigenpair, judged_exponents
from ssntk.errors import NumericalError, Outcome
from ssntk.piecewise.pivot import End
from ssntk.piecewise.region import region_of
from ssntk.results import counted

EPS = float(np.finfo(float).eps)
# The error of a place, in roundings of the span, and how often a step is halved to locate a mode that crosses.
ROUNDINGS, BISECTIONS = 64, 60

Event = tuple[int, Bifurcation]


def collisions_on(
    exact: Exact, half: Half, exponents: np.ndarray, doubts: np.ndarray
) -> tuple[list[Collision], list[Event]]:
    """The collisions on a branch, and the bifurcations among them, each with the index of its point."""
    collisions, events = [], []
    unstable = (exponents.real > doubts).sum(axis=1)
    for at, kink in half.kinks:
        # A border is the last point of the piece before it.
        counts = int(unstable[at]), int(unstable[at + 1])
        p = float(exact.parameter(kink.q))
        collision = collision_of(exact.system, kink, p, exact.p1 > exact.p0, counts)
        collisions.append(collision)
        kind = kind_at(collision, exact.clock)
        if kind is None:
            continue
        loud = exponents[at if counts[0] > counts[1] else at + 1]
        frequency = float(np.abs(loud[: max(counts)].imag).max(initial=0.0)) if counts[0] != counts[1] else 0.0
        reasons = [births(collision.born)] if collision.born else []
        if counts[0] != counts[1] and collision.kind != kind:
            reasons.append(f"{counts[0]} modes are unstable before it and {counts[1]} behind it")
        event = _event(exact, kind, kink.q, collision.x, "; ".join(reasons))
        fields = {"frequency": frequency, "coefficient": collision.delta, "multiplicity": len(collision.units)}
        events.append((at, dataclasses.replace(event, **fields)))
    return collisions, events


def inside_on(exact: Exact, half: Half, exponents: np.ndarray, doubts: np.ndarray) -> list[Event]:
    """The modes that cross the edge of stability inside a region: flips, and pairs, of which the points are centres."""
    if exact.system.still:
        return []
    points, events = half.points, []
    unstable = (exponents.real > doubts).sum(axis=1)
    borders = {at for at, _ in half.kinks}
    for i in np.flatnonzero(unstable[1:] != unstable[:-1]):
        if int(i) in borders:
            continue
        pattern = half.patterns[int(points.piece[i + 1])]
        events.append((int(i), _crossing(exact, pattern, float(points.q[i]), float(points.q[i + 1]), int(unstable[i]))))
    return events


def _crossing(exact: Exact, pattern: np.ndarray, low: float, high: float, before: int) -> Bifurcation:
    """The place between two points of one region at which the number of unstable modes changes from `before`."""

    def judged(q: float) -> tuple[np.ndarray, np.ndarray]:
        values, doubts = judged_exponents(exact.matrices(pattern, np.array([q])), exact.clock)
        return values[0], doubts[0]

    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        values, doubts = judged(middle)
        low, high = (middle, high) if int((values.real > doubts).sum()) == before else (low, middle)
    region = region_of(exact.system, pattern, high)
    values, _ = judged(high)
    mode = values[int(np.argmin(np.abs(values.real)))]
    flips = exact.clock.flips_at is not None and abs(mode.imag) >= exact.clock.highest * (1 - EPS**0.5)
    pair = HOPF if exact.clock.flips_at is None else NEIMARK_SACKER
    x = np.full(len(exact.system.sizes), np.nan) if region is None else region.state(high) * exact.system.sizes
    reason = (
        "the map is linear around it, so that no cycle but those of a segment is born"
        if flips
        else "the model is linear around it, which makes it a centre: no cycle grows from it"
    )
    event = _event(exact, DEGENERATE_FLIP.name if flips else pair.name, high, x, reason)
    sizes = exact.system.sizes
    try:
        matrix = exact.matrices(pattern, np.array([high]))[0] * sizes[:, None] / sizes
        _, right, left = eigenpair(matrix, exact.clock.eigenvalue(complex(mode)))
    except NumericalError:
        right, left = event.right, event.left
    frequency = exact.clock.highest if flips else exact.clock.wrapped(float(mode.imag))
    if frequency == 0:
        raise Refuted(f"several real eigenvalues of df/dx vanish at p = {float(exact.parameter(high)):g}")
    return dataclasses.replace(event, frequency=float(frequency), right=right, left=left, coefficient=0.0)


def ends_on(exact: Exact, half: Half) -> tuple[list[Event], list[Bifurcation]]:
    """The bifurcations at the ends of a branch: places from which the state leaves for infinity; and those not resolved."""
    events, unresolved = [], []
    # The end in the direction of travel comes first, and the other one may be cut.
    for end, at in zip(half.last, (len(half.points.q) - 1, 0), strict=False):
        if end is None:
            continue
        x = half.points.x[at]
        if end.outcome is Outcome.to_infinity:
            events.append((at if at else -1, _escaping(exact, end, x)))
        elif end.outcome in (Outcome.several_ways, Outcome.many_switch, Outcome.no_way):
            reason = f"{counted(len(end.units), 'signal')} vanish{'es' if len(end.units) == 1 else ''} there"
            event = _event(exact, BORDER_COLLISION.name, end.q, x, reason)
            unresolved.append(dataclasses.replace(event, converged=False, multiplicity=len(end.units)))
    return events, unresolved


def _escaping(exact: Exact, end: End, x: np.ndarray) -> Bifurcation:
    """The place at which the state leaves for infinity, with the last state (n,) that is on the branch."""
    return dataclasses.replace(
        _event(exact, TO_INFINITY.name, end.q, x, "x is the last state of the branch before it"), frequency=0.0
    )


def users_on(exact: Exact, met: list[tuple[int, Met]]) -> list[Event]:
    """The user's own events."""
    return [(at, _event(exact, one.name, one.q, one.x, "")) for at, one in met]


def _event(exact: Exact, kind: str, q: float, x: np.ndarray, reason: str) -> Bifurcation:
    """A located event without eigenvectors and coefficient."""
    nothing = np.full(len(x), np.nan)
    p, width = float(exact.parameter(q)), ROUNDINGS * EPS * abs(exact.p1 - exact.p0)
    return Bifurcation(kind, p, x, 0.0, nothing, nothing, np.nan, None, 0.0, (p - width, p + width), True, reason)
