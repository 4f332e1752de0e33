"""The collisions and bifurcations at the corners of a branch that was followed by the corrector."""

import dataclasses

import numpy as np

from ssntk.bifurcation.collisions import PERSISTENCE, Collision, kind_at
from ssntk.bifurcation.events.kinds import NONSMOOTH_FOLD
from ssntk.bifurcation.point import Bifurcation, failed
from ssntk.zeros.lines import branch_jacobians
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Track

# The error of a place, in roundings of the span.
ROUNDINGS = 64


def corners_on(stack: Stack, track: Track) -> tuple[list[Collision], list[tuple[int, Bifurcation]]]:
    """The collisions at the corners of a branch, and the bifurcations among them, each with the index of its point."""
    collisions, events = list[Collision](), list[tuple[int, Bifurcation]]()
    for corner, delta in zip(track.corners, _deltas(stack, track), strict=True):
        before, behind = track.points.at(corner.at), corner.behind
        counts = int(before.unstable), int(behind.unstable)
        turns = bool(before.tangent[-1] * behind.tangent[-1] < 0)
        collision = Collision(
            parameter=float(stack.parameter(track.member, before.z[-1])),
            x=before.z[:-1] * stack.scale[track.member],
            unit=None,
            delta=delta,
            kind=NONSMOOTH_FOLD.name if turns else PERSISTENCE,
            unstable=counts,
            born=None if stack.clock.flips_at is not None else {},
            units=(),
            cycles=None if stack.clock.flips_at is not None else ({}, {}),
        )
        collisions.append(collision)
        kind = kind_at(collision, stack.clock)
        if kind is None:
            continue
        changed = counts[0] != counts[1]
        reason = f"{counts[0]} modes are unstable before it and {counts[1]} behind it" if changed and not turns else ""
        loud = (before if counts[0] > counts[1] else behind).exponents[: max(counts)]
        width = ROUNDINGS * float(np.finfo(track.z.dtype).eps) * abs(float(stack.p1[track.member] - stack.p0[track.member]))
        fields = {
            "frequency": float(np.abs(loud.imag).max(initial=0.0)) if changed else 0.0,
            "coefficient": delta,
            "interval": (collision.parameter - width, collision.parameter + width),
            "residual": 0.0,
            "converged": True,
        }
        event = failed(stack, track.member, kind, before.z, reason).point
        events.append((corner.at, dataclasses.replace(event, **fields)))
    return collisions, events


def _deltas(stack: Stack, track: Track) -> list[float]:
    """det A' / det A of each corner, with the Jacobians A' behind and A before it, from places next to it on the branch."""
    if not track.corners:
        return []
    aside, places = float(np.finfo(track.z.dtype).eps) ** 0.625, list[np.ndarray]()
    for corner in track.corners:
        z, tangent = track.z[corner.at], track.tangent[corner.at]
        step = aside * (1 + np.linalg.norm(z))
        places += [z - step * tangent, z + step * corner.behind.tangent]
    jacobians = branch_jacobians(stack, [track.member] * len(places), np.stack(places))[..., :-1]
    # Scaled rows, and logarithms, since determinants of many units overflow.
    sizes = np.abs(jacobians[::2]).sum(axis=2, keepdims=True) + np.abs(jacobians[1::2]).sum(axis=2, keepdims=True)
    signs, logs = np.linalg.slogdet(jacobians / np.repeat(np.where(sizes > 0, sizes, 1), 2, axis=0))
    with np.errstate(all="ignore"):
        return [float(one) for one in signs[1::2] * signs[::2] * np.exp(logs[1::2] - logs[::2])]
