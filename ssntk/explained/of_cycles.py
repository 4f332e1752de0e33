"""Sentences about limit cycles of flows."""

import numpy as np

from ssntk.collapse.cycle import CycleKernel
from ssntk.collapse.cycle_signature import CycleSignature
from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.orbit import Orbit
from ssntk.explained.base import say, sentences
from ssntk.results import counted


@sentences.register
def _(orbit: Orbit) -> list[str]:
    largest, error = np.abs(orbit.multipliers[0]), orbit.multiplier_error[0]
    held = (
        f"disturbances are {say(largest)} times as large" if largest > error else f"less than {say(error)} of them is left"
    )
    kind = {True: "stable", False: "not stable"}[orbit.stable]
    return [
        f"This network oscillates on a limit cycle of period {say(orbit.period)}, which is {kind}.",
        f"After one period, {held}.",
        f"The period is known to {say(orbit.period_error)}, and the orbit solves its equations to {say(orbit.residual)}.",
        "Next: ssntk.cycle_continuation(family, orbit, span) follows it over a parameter.",
    ]


@sentences.register
def _(branch: CycleBranch) -> list[str]:
    events = ", ".join(f"{event.kind} at p = {say(event.parameter)}" for event in branch.bifurcations) or "none"
    p = branch.parameter
    return [
        f"{counted(len(branch), 'limit cycle')} were followed from p = {say(p[0])} to p = {say(p[-1])}.",
        f"{int(branch.stable.sum())} of them are stable, and their periods lie between {say(branch.period.min())} and "
        f"{say(branch.period.max())}.",
        f"Bifurcations of cycles: {events}; seen but not located: {len(branch.unresolved)}.",
        f"It ended because: {branch.status}.",
        "Next: result.plot() draws it; result[i] is one of its orbits.",
    ]


@sentences.register
def _(found: CycleKernel) -> list[str]:
    slowest = found.exponents[0]
    return [
        f"The period is {say(found.period)}, and its gradient has the length {say(np.linalg.norm(found.period_gradient))}.",
        f"The shape of the cycle has {say(found.shape.participation_ratio)} effective modes of learning.",
        f"Its slowest exponent is {say(slowest.real)}: a change of its shape takes the time {say(1 / abs(slowest.real))}.",
        "In the long run a trajectory's kernel is that of the phase alone, near a bifurcation or not.",
        "Next: ssntk.cycle_signature(model, orbit) sees period doublings and tori, which this kernel does not.",
    ]


@sentences.register
def _(found: CycleSignature) -> list[str]:
    what = {
        "real": "a real multiplier near 1 (a fold or a branch point of cycles)",
        "negative": "a negative multiplier (a period doubling)",
        "pair": "a pair of multipliers (a torus)",
    }[found.kind]
    return [
        f"The response is largest at the frequency {say(found.peak_frequency)}.",
        f"That is {say(found.peak_frequency / found.frequency)} times the frequency of the cycle.",
        f"It is the signature of {what}.",
        f"The peak is {say(found.peak)} high.",
        "Next: ssntk.cycle_continuation(family, orbit, span) locates the bifurcation.",
    ]
