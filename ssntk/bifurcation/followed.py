"""Turn the tracks of branches into branches in the user's units, with their bifurcations and what their status notes."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.cornered import corners_on
from ssntk.bifurcation.crossing import NONE, Own, crossings_on
from ssntk.bifurcation.detect import find_events, own_events
from ssntk.bifurcation.events.critical import NEAR
from ssntk.bifurcation.events.kinds import SADDLE_NODE
from ssntk.bifurcation.point import Bifurcation
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import Outcome, Sentence
from ssntk.precision import in_precision
from ssntk.zeros.correct import inner
from ssntk.zeros.equilibria import Equilibria
from ssntk.zeros.lines import outputs_at, stability_matrices
from ssntk.zeros.orbits import orbits_at, prime_period
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Track


class Followed(NamedTuple):
    """A branch, and the notes in its status besides the reason why it ends."""

    branch: Branch
    notes: tuple[Sentence, ...]


def as_branches(stack: Stack, tracks: Sequence[Track], own: Own = NONE) -> list[Followed]:
    """Turn tracks into branches in the user's units, with their bifurcations and the user's own events."""
    branches = []
    for number, (track, found) in enumerate(zip(tracks, find_events(stack, tracks), strict=True)):
        collisions, at_corners = corners_on(stack, track)
        mine = [*crossings_on(stack, track, own.crossings), *own_events(stack, number, track, own.events)]
        events = [*found, *at_corners, *mine]
        if len(events) > len(found):
            events.sort(key=lambda pair, track=track: _along(stack, track, *pair))
        events = _with_outputs(stack, track.member, events)
        located = [(step, event) for step, event in events if event.converged]
        scale, points = stack.scale[track.member], track.points
        x = track.z[:, :-1] * scale
        orbits = orbits_at(stack, track.member, track.z)
        period = prime_period(stack, track.member, orbits)
        read = None
        if period > 1:
            every = [np.append(orbits[:, j], track.z[:, -1:], axis=1) for j in range(period)]
            read = np.stack([outputs_at(stack, track.member, z) for z in every], axis=1)
        outputs = outputs_at(stack, track.member, track.z)
        notes = tuple(note for note in (_winds(stack, track, located), _conservative(stack, track)) if note is not None)
        branch = Branch(
            parameter=stack.parameter(track.member, track.z[:, -1]),
            x=x,
            eigenvalues=_eigenvalues(stack, track),
            stable=(points.exponents.real < -points.doubts).all(axis=1),
            bifurcations=tuple(event for _, event in located),
            unresolved=tuple(
                dataclasses.replace(event, reason=in_precision(event.reason, event.x.dtype))
                for _, event in events
                if not event.converged
            ),
            status="; ".join((track.status, *notes)),
            tangent=track.tangent * np.append(scale, 1.0).astype(scale.dtype),
            steps=tuple(step for step, _ in located),
            scale=scale,
            n_unstable=points.unstable,
            outputs=outputs,
            has_readout=not np.array_equal(outputs, x),
            period=period,
            orbit=orbits[:, :period] * scale if period > 1 else None,
            orbit_outputs=read,
            collisions=tuple(collisions),
        )
        branches.append(Followed(branch, notes))
    return branches


def _winds(stack: Stack, track: Track, located: Sequence[tuple[int, Bifurcation]]) -> Sentence | None:
    """The note for a branch that reached `max_steps` while its folds repeat at equal distances, as for angles."""
    folds = [stack.point(track.member, event.x, event.parameter) for _, event in located if event.kind == SADDLE_NODE.name]
    if all(end.outcome is not Outcome.max_steps for end in track.ends) or len(folds) < 5:
        return None
    for every in range(1, len(folds) // 2):
        first, second = folds[-1] - folds[-1 - every], folds[-1 - every] - folds[-1 - 2 * every]
        close = np.finfo(track.z.dtype).eps ** 0.4 * (1 + np.abs(folds[-1]))
        if (np.abs(first - second) <= close).all() and abs(first[-1]) <= close[-1]:
            apart = first[:-1] * stack.scale[track.member]
            moved = np.flatnonzero(np.abs(first[:-1]) > close[:-1])
            return Outcome.repeats.say(states=", ".join(f"state {i} by {abs(apart[i]):.6g}" for i in moved[:4]))
    return None


def _with_outputs(stack: Stack, member: int, events: list[tuple[int, Bifurcation]]) -> list[tuple[int, Bifurcation]]:
    """Fill in the readout at each event, and the period of the cycle at which it happens."""
    if not events:
        return events
    places = np.stack([stack.point(member, event.x, event.parameter) for _, event in events]).astype(stack.p0.dtype)
    outputs = outputs_at(stack, member, places)
    periods = [prime_period(stack, member, orbit[None]) for orbit in orbits_at(stack, member, places)]
    return [
        (step, dataclasses.replace(event, outputs=out, period=period))
        for (step, event), out, period in zip(events, outputs, periods, strict=True)
    ]


def _along(stack: Stack, track: Track, step: int, event: Bifurcation) -> tuple[int, float]:
    """The position of an event on a branch, for sorting: the index of the point before it, and the distance from there."""
    z = stack.point(track.member, event.x, event.parameter)
    return step, float(inner(z - track.z[step], track.z[step + 1] - track.z[step]))


def _held(stack: Stack, member: int) -> tuple[np.ndarray, float]:
    """The weights (c, n) of the conserved quantities that are held, and the rate of the term that holds them."""
    zeros = stack.members[member]
    assert isinstance(zeros, Equilibria)
    return np.asarray(zeros.weights), float(zeros.pull)


def _eigenvalues(stack: Stack, track: Track) -> np.ndarray:
    """The eigenvalues (k, n) of df/dx; those that belong to conserved quantities are zero."""
    weights, pull = _held(stack, track.member)
    if len(weights) == 0:
        return stack.clock.reported(track.points.exponents)
    held = stability_matrices(stack, [track.member] * len(track.z), track.z)
    values = sorted_eigenvalues(held + (pull * weights.T @ weights).astype(held.dtype))
    least = np.argsort(np.abs(values), axis=1)[:, : len(weights)]
    np.put_along_axis(values, least, 0.0, axis=1)
    return stack.clock.reported(stack.clock.growth(values))


def _conservative(stack: Stack, track: Track) -> Sentence | None:
    """The note for a branch along which eigenvalues stay on the edge of stability at every parameter."""
    values, doubts = track.points.exponents, NEAR * track.points.doubts
    weights, pull = _held(stack, track.member)
    if len(weights):
        # The term that holds a conserved quantity adds an eigenvalue that is not a mode of the model: leave it out.
        held = stack.clock.growth(np.array([-pull], complex))
        kept = np.argsort(np.abs(values - held), axis=1)[:, len(weights) :]
        values, doubts = np.take_along_axis(values, kept, 1), np.take_along_axis(doubts, kept, 1)
    on = np.abs(values.real) <= doubts
    if len(values) < 3 or values.shape[1] == 0:
        return None
    mirrored = np.abs(values[:, :, None] + values[:, None, :].conj()).min(axis=2) <= doubts
    if mirrored.all() and on.any():
        return Outcome.conservative.say()
    return Outcome.on_axis.say() if on.any(axis=1).all() else None
