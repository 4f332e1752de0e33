"""Bifurcations of iterated maps as the map itself has them.

Near a cycle of F with q steps, F^(r q) takes r rounds at once. The normal form of r rounds is that of one with r times the
coefficient: y + a y^2 becomes y + r a y^2, y + b3 y^3 becomes y + r b3 y^3, and the coefficients of Neimark-Sacker points
grow likewise. A flip, -y + c3 y^3, becomes -y + r c3 y^3 if r is odd, and y - r c3 y^3, which looks like a pitchfork, if r
is even.
"""

import dataclasses

import numpy as np

from ssntk.bifurcation.events.kinds import DEGENERATE, FLIP, HOPF, NEIMARK_SACKER, PITCHFORK, TRANSCRITICAL
from ssntk.bifurcation.point import Bifurcation, Located
from ssntk.zeros.orbits import multiplier_at
from ssntk.zeros.stack import Stack


def as_of_the_map(stack: Stack, member: int, one: Located) -> Bifurcation:
    """A located point with the kind, coefficient and frequency that it has if one round of its cycle is one step."""
    point, rounds = one.point, stack.members[member].rounds
    if rounds == 1:
        return point
    period, multiplier = multiplier_at(stack, member, one.z, point.right / stack.scale[member])
    turns = rounds // period
    if turns == 1:
        return point
    close, dt = np.finfo(stack.p0.dtype).eps ** 0.25, stack.clock.unit / turns
    even = point.kind in (PITCHFORK.name, TRANSCRITICAL.name, DEGENERATE.name) and abs(multiplier + 1) <= close
    if even:
        return dataclasses.replace(point, kind=FLIP.name, coefficient=-point.coefficient / turns, frequency=np.pi / dt)
    frequency = point.frequency
    if point.kind in (FLIP.name, HOPF.name, NEIMARK_SACKER.name):
        frequency = abs(float(np.angle(multiplier))) / dt
    return dataclasses.replace(point, coefficient=point.coefficient / turns, frequency=frequency)
