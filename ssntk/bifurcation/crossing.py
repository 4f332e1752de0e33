"""A user's own events on a branch, and the bounds that end it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ssntk.bifurcation.bordered import Stack
from ssntk.bifurcation.follow import Stop, Track, on_branch
from ssntk.bifurcation.locate import Bifurcation, failed


@dataclasses.dataclass(frozen=True)
class Crossing:
    """An event of the user's own: where `fn(x, p)`, (n,) and () -> (), changes its sign along a branch.

    It is located like a bifurcation and listed among them with `kind = name`; if `stop`, the branch ends there.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    half = ssntk.Crossing("half", lambda x, p: x[0] - 0.5)
    branch = ssntk.continuation(family, (1.0, -1.0), x0=[1.0], events=[half])
    print([event.kind for event in branch.bifurcations])  # ['half', 'saddle-node']
    ```
    """

    name: Any
    fn: Any
    stop: bool = False

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a string that is not empty, got {self.name!r}")
        if not callable(self.fn):
            raise ValueError(f"fn must be callable as fn(x, p), got {type(self.fn).__name__}")


Bounds = dict[int, tuple[float, float]] | Callable[[Any, Any], Any] | None


def as_crossings(events: Any, n: int) -> tuple[Crossing, ...]:
    """`events` checked: `ValueError` for what is no crossing, or whose function returns no scalar."""
    if isinstance(events, Crossing):
        events = (events,)
    try:
        found = tuple(events)
    except TypeError as error:
        raise ValueError(f"events must be a sequence of ssntk.Crossing, got {type(events).__name__}") from error
    for i, event in enumerate(found):
        if not isinstance(event, Crossing):
            raise ValueError(f"events[{i}] must be an ssntk.Crossing, got {type(event).__name__}")
        if np.asarray(_check(event.fn, f"events[{i}].fn", n)).dtype == bool:
            raise ValueError(
                f"events[{i}].fn must return a number that changes its sign, got a boolean: return a difference"
            )
    return found


def as_bounds(bounds: Any, n: int) -> Bounds:
    """`bounds` checked: `{index: (low, high)}` or a function."""
    if bounds is None or callable(bounds):
        if bounds is not None:
            _check(bounds, "bounds", n)
        return bounds
    if not isinstance(bounds, dict):
        raise ValueError(f"bounds must be a dict of index: (low, high), or fn(x, p) -> bool, got {type(bounds).__name__}")
    for index, pair in bounds.items():
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < n:
            raise ValueError(f"bounds must name states by their index, 0 to {n - 1}, got {index!r}")
        if np.shape(pair) != (2,) or not np.asarray(pair, float)[0] < np.asarray(pair, float)[1]:
            raise ValueError(f"bounds[{index}] must be (low, high) with low < high, got {pair!r}")
    return {int(index): (float(pair[0]), float(pair[1])) for index, pair in bounds.items()}


def _check(fn: Callable[..., Any], name: str, n: int) -> Any:
    """What `fn(x, p)` returns at zero; `ValueError` unless it is a scalar."""
    try:
        found = fn(np.zeros(n), 0.0)
        shape = np.shape(found)
    except Exception as error:
        raise ValueError(f"{name} must be callable as fn(x ({n},), p): {error}") from error
    if shape != ():
        raise ValueError(f"{name} must return a scalar, got shape {shape}")
    return found


def _values(stack: Stack, member: int, fn: Callable[[Any, Any], Any], z: np.ndarray) -> np.ndarray:
    """`fn` at points z (k, n + 1), in the user's units, (k,)."""
    x, p = z[:, :-1] * stack.scale[member], stack.parameter(member, z[:, -1])
    return np.array([float(fn(*pair)) for pair in zip(x, p, strict=True)])


def stops_of(stack: Stack, bounds: Bounds, crossings: Sequence[Crossing], start: np.ndarray) -> list[Stop]:
    """What ends a branch of a stack of one problem that starts at z (n + 1,); `ValueError` if the bounds exclude it."""
    stops = []
    if callable(bounds):

        def within(z: np.ndarray) -> np.ndarray:
            return np.where(_values(stack, 0, bounds, z) != 0, 1.0, -1.0)

        stops.append(Stop(within, lambda p: f"left its bounds at p = {p:.6g}"))
    elif bounds:
        for index, (low, high) in bounds.items():
            for limit, sign in ((low, 1.0), (high, -1.0)):

                def margin(z: np.ndarray, index: int = index, limit: float = limit, sign: float = sign) -> np.ndarray:
                    return sign * (z[:, index] - limit / stack.scale[0, index])

                def says(p: float, index: int = index, limit: float = limit) -> str:
                    return f"left its bounds at p = {p:.6g}: state {index} reached {limit:g}"

                stops.append(Stop(margin, says))
    if any(float(stop.margin(start[None])[0]) < 0 for stop in stops):
        raise ValueError("bounds must hold at the start of the branch, and they exclude it")
    for event in crossings:
        if event.stop:
            sign = np.sign(_values(stack, 0, event.fn, start[None])[0]) or 1.0

            def before(z: np.ndarray, fn: Any = event.fn, sign: float = sign) -> np.ndarray:
                return sign * _values(stack, 0, fn, z)

            stops.append(Stop(before, lambda p, name=event.name: f"stopped at p = {p:.6g}: {name}"))
    return stops


def crossings_on(stack: Stack, track: Track, crossings: Sequence[Crossing]) -> list[tuple[int, Bifurcation]]:
    """The user's events on a branch, each with the index of the point before it."""
    found = []
    for event in crossings:
        values = _values(stack, track.member, event.fn, track.z)
        signs = np.sign(values)
        # At a stop the branch ends on the event itself.
        last = len(values) - 2
        for i in np.flatnonzero((signs[1:] != signs[:-1]) & ((signs[:-1] != 0) | (np.arange(last + 1) == 0))):
            found.append((int(i), _located(stack, track, event, int(i), values)))
    return found


def _located(stack: Stack, track: Track, event: Crossing, i: int, values: np.ndarray) -> Bifurcation:
    ends = [(track.z[j], track.tangent[j]) for j in (i, i + 1)]
    exact = [j for j in (i, i + 1) if values[j] == 0]
    z = track.z[exact[0]] if exact else None
    if z is None:
        new = on_branch(stack, track.member, ends[0], ends[1], lambda z: _values(stack, track.member, event.fn, z))
        z = None if new is None else new.z[0]
    where = z if z is not None else (ends[0][0] + ends[1][0]) / 2
    point = failed(
        stack, track.member, event.name, where, "" if z is not None else "the branch could not be corrected there"
    )
    if z is None:
        limits = sorted(float(stack.parameter(track.member, end[0][-1])) for end in ends)
        return dataclasses.replace(point.point, interval=(limits[0], limits[1]))
    width = 8 * float(np.finfo(track.z.dtype).eps) * abs(float(stack.p1[track.member] - stack.p0[track.member]))
    p = point.point.parameter
    # Near a turn of the parameter, and otherwise, the interval is that of the location itself.
    left = jax.tree.map(float, (p - width, p + width))
    return dataclasses.replace(point.point, frequency=0.0, interval=left, converged=True)
