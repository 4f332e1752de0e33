"""The user's own events on a branch, and the bounds at which a branch ends."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ssntk.bifurcation.events.base import AbstractEvent
from ssntk.bifurcation.events.tested import AbstractTestEvent
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.errors import Outcome, Sentence
from ssntk.zeros.between import Value, dips, on_branch
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Point, Stop, Track


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A user's own event: the place on a branch at which `fn(x, p)` changes sign, with x (n,), p () and the result ().

    It is located like a bifurcation, and listed among them with `kind = name`. If `stop`, the branch ends there.

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


Bounds = dict[int, tuple[float, float]] | Callable[..., Any] | None


class Own(NamedTuple):
    """The user's own events: crossings, which are functions of the state and the parameter, and event objects."""

    crossings: tuple[Crossing, ...] = ()
    events: tuple[AbstractEvent, ...] = ()


NONE = Own()


def as_own(events: Any, n: int) -> Own:
    """Check `events`: `ValueError` for an object that is not an event, or if its function does not return a scalar."""
    if isinstance(events, (Crossing, AbstractEvent)):
        events = (events,)
    try:
        found = tuple(events)
    except TypeError as error:
        raise ValueError(
            f"events must be a sequence of ssntk.Crossing or events of your own, got {type(events).__name__}"
        ) from error
    for i, event in enumerate(found):
        if isinstance(event, AbstractEvent):
            _check_event(event, f"events[{i}]", n)
            continue
        if not isinstance(event, Crossing):
            raise ValueError(
                f"events[{i}] must be an ssntk.Crossing or an instance of an ssntk.AbstractEvent, got {type(event).__name__}"
            )
        if np.asarray(_check(event.fn, f"events[{i}].fn", n)).dtype == bool:
            raise ValueError(
                f"events[{i}].fn must return a number that changes its sign, got a boolean: return a difference"
            )
    crossings = tuple(event for event in found if isinstance(event, Crossing))
    return Own(crossings, tuple(event for event in found if isinstance(event, AbstractEvent)))


def as_bounds(bounds: object, n: int) -> Bounds:
    """Check `bounds`: `{index: (low, high)}` or a function."""
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


def _check(fn: Callable[..., Any], name: str, n: int) -> object:
    """What `fn(x, p)` returns at zero; `ValueError` unless it is a scalar."""
    try:
        found = fn(np.zeros(n), 0.0)
        shape = np.shape(found)
    except Exception as error:
        raise ValueError(f"{name} must be callable as fn(x ({n},), p): {error}") from error
    if shape != ():
        raise ValueError(f"{name} must return a scalar, got shape {shape}")
    return found


def _check_event(event: AbstractEvent, name: str, n: int) -> None:
    """`ValueError` for an event without a kind, or whose test function takes no n exponents or returns no number."""
    if not hasattr(event, "kind"):
        raise ValueError(f'{name} must have a kind, such as kind = ssntk.Kind("mine")')
    if not isinstance(event, AbstractTestEvent):
        return
    try:
        found = event.test(-np.arange(1.0, n + 1) + 0j)
    except Exception as error:
        raise ValueError(f"{name}.test must be callable as test(exponents ({n},)): {error}") from error
    if np.shape(found) != () or not np.isrealobj(found) or np.asarray(found).dtype == bool:
        raise ValueError(f"{name}.test must return a real number that changes its sign, got {found!r}")


def _values(stack: Stack, member: int, fn: Callable[..., Any], z: np.ndarray) -> np.ndarray:
    """The values (k,) of `fn` at points z (k, n + 1), to which it is applied in the user's units."""
    x, p = z[:, :-1] * stack.scale[member], stack.parameter(member, z[:, -1])
    return np.array([float(fn(*pair)) for pair in zip(x, p, strict=True)])


def stops_of(stack: Stack, bounds: Bounds, crossings: Sequence[Crossing], start: np.ndarray) -> list[Stop]:
    """The conditions that end a branch that starts at z (n + 1,), for a stack of one member.

    `ValueError` if the bounds exclude the start.
    """
    stops = []
    if callable(bounds):

        def within(z: np.ndarray) -> np.ndarray:
            return np.where(_values(stack, 0, bounds, z) != 0, 1.0, -1.0)

        stops.append(Stop(within, lambda p: Outcome.left_bounds.say(p=p)))
    elif bounds:
        for index, (low, high) in bounds.items():
            for limit, sign in ((low, 1.0), (high, -1.0)):

                def margin(z: np.ndarray, index: int = index, limit: float = limit, sign: float = sign) -> np.ndarray:
                    return sign * (z[:, index] - limit / stack.scale[0, index])

                def says(p: float, index: int = index, limit: float = limit) -> Sentence:
                    return Outcome.reached_bound.say(p=p, index=index, limit=limit)

                stops.append(Stop(margin, says))
    if any(not float(stop.margin(start[None])[0]) >= 0 for stop in stops):
        raise ValueError("bounds must hold at the start of the branch, and they exclude it")
    for event in crossings:
        if event.stop:
            sign = np.sign(_values(stack, 0, event.fn, start[None])[0]) or 1.0
            if not np.isfinite(sign):
                raise ValueError(f"events: fn of {event.name!r} stops the branch, and must be finite at its start")

            def before(z: np.ndarray, fn: Callable[..., Any] = event.fn, sign: float = sign) -> np.ndarray:
                return sign * _values(stack, 0, fn, z)

            stops.append(Stop(before, lambda p, name=event.name: Outcome.stopped.say(p=p, name=name), side=1))
    return stops


def crossings_on(stack: Stack, track: Track, crossings: Sequence[Crossing]) -> list[tuple[int, Bifurcation]]:
    """The user's events on a branch, each with the index of the point before it."""
    found = []
    for event in crossings:

        def value(z: np.ndarray, fn: Callable[..., Any] = event.fn) -> np.ndarray:
            return _values(stack, track.member, fn, z)

        values = value(track.z)
        found += [(ends[0], _undefined(stack, track, event, *ends)) for ends in _stretches(values)]
        for first, piece in track.pieces():
            here = values[first : first + len(piece.z)]
            found += [(first + step, at) for step, at in _crossings_in(stack, track, event, value, piece, here, first == 0)]
    return found


def _crossings_in(
    stack: Stack, track: Track, event: Crossing, value: Value, piece: Point, values: np.ndarray, begins: bool
) -> list[tuple[int, Bifurcation]]:
    """The crossings within a smooth piece of a branch, at whose points the function has these values (k,). `begins`: whether
    one may lie at its first point."""
    found = []
    z, tangent, steps = piece.z, piece.tangent, np.arange(len(values))
    inside = dips(stack, track.member, value, z, tangent, values)
    if inside:
        # Insert points that separate two crossings within one step.
        at = [dip.step + 1 for dip in inside]
        z = np.insert(z, at, [dip.z for dip in inside], axis=0)
        tangent = np.insert(tangent, at, [dip.tangent for dip in inside], axis=0)
        steps = np.insert(steps, at, [dip.step for dip in inside])
        values = np.insert(values, at, [dip.value for dip in inside])
    signs = np.sign(values)
    # If the value is zero at a point, that is one crossing, counted for the step that ends there.
    changes = (signs[1:] != signs[:-1]) & np.isfinite(signs[1:]) & np.isfinite(signs[:-1])
    for i in np.flatnonzero(changes & ((signs[:-1] != 0) | (begins & (np.arange(len(signs) - 1) == 0)))):
        ends = [(z[j], tangent[j]) for j in (i, i + 1)]
        found.append((int(steps[i]), _located(stack, track, event, value, ends, values[i : i + 2])))
    return found


def _stretches(values: np.ndarray) -> list[tuple[int, int]]:
    """The first and the last index of each run of NaNs in values (k,)."""
    bad = np.concatenate([[False], ~np.isfinite(values), [False]]).astype(int)
    edges = np.diff(bad)
    return list(zip(np.flatnonzero(edges > 0).tolist(), (np.flatnonzero(edges < 0) - 1).tolist(), strict=True))


def _undefined(stack: Stack, track: Track, event: Crossing, first: int, last: int) -> Bifurcation:
    """An unresolved event that reports that the user's function is NaN from point `first` to point `last`."""
    limits = sorted(float(stack.parameter(track.member, track.z[j, -1])) for j in (first, last))
    reason = (
        f"fn of {event.name!r} is not finite from p = {limits[0]:.6g} to p = {limits[1]:.6g}: crossings there are not seen"
    )
    point = failed(stack, track.member, event.name, track.z[first], reason).point
    return dataclasses.replace(point, interval=(limits[0], limits[1]))


def _located(
    stack: Stack,
    track: Track,
    event: Crossing,
    value: Value,
    ends: list[tuple[np.ndarray, np.ndarray]],
    values: np.ndarray,
) -> Bifurcation:
    """The event between two points of the branch, each (z, tangent)."""
    exact = [point[0] for point, here in zip(ends, values, strict=True) if here == 0]
    z = exact[0] if exact else None
    if z is None:
        new = on_branch(stack, track.member, ends[0], ends[1], value)
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
    # The interval is the error of the location in the parameter, also near a turning point of the parameter.
    left = jax.tree.map(float, (p - width, p + width))
    return dataclasses.replace(point.point, frequency=0.0, interval=left, converged=True)
