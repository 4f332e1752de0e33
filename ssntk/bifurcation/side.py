"""One side of a located bifurcation: the equilibria at given distances from it on its stable branch."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssntk.bifurcation.bordered import Problem, interpolate, length
from ssntk.bifurcation.continuation import Branch, at_parameter, make_problem
from ssntk.bifurcation.family import Family
from ssntk.bifurcation.locate import Bifurcation
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import NumericalError


@dataclasses.dataclass(frozen=True)
class Side:
    """The stable side of a bifurcation, outwards from it as far as the parameter runs one way and stability lasts.

    `z` (k, n + 1) and `tangent` (k, n + 1): points (x, q) and unit tangents, the bifurcation first.
    """

    problem: Problem
    bifurcation: Bifurcation
    z: np.ndarray
    tangent: np.ndarray

    def at_distance(self, distance: float) -> tuple[float, np.ndarray]:
        """(parameter, x) of the stable equilibrium at |p - p_c| = distance.

        Raises `NumericalError` where the side does not reach so far, or no stable equilibrium is found there.
        """
        span = float(self.problem.p1 - self.problem.p0)
        away = np.abs(self.z[:, -1] - self.z[0, -1]) * abs(span)
        if distance > away[-1]:
            raise NumericalError(f"the stable side reaches only to a distance of {away[-1]:.6g}")
        step = int(np.searchsorted(away, distance, side="left")) - 1
        direction = np.sign(self.z[-1, -1] - self.z[0, -1])
        q = self.z[0, -1] + direction * distance / abs(span)
        guess = self._between(step, q)
        found = at_parameter(self.problem, jnp.asarray(guess[:-1]), q)
        z = np.asarray(found.z)
        stable = sorted_eigenvalues(np.asarray(found.jacobian)[:, :-1])[0].real < 0
        gap = length(guess - self.z[0])
        if not bool(found.converged) or not stable or length(z - guess) > 0.5 * gap:
            raise NumericalError("no stable equilibrium was found at this distance")
        return float(self.problem.parameter(q)), z[:-1]

    def _between(self, step: int, q: float) -> np.ndarray:
        """The interpolant between points `step` and `step + 1` where it passes `q`, by bisection."""
        ends = self.z[step], self.tangent[step], self.z[step + 1], self.tangent[step + 1]
        rising = self.z[step + 1, -1] > self.z[step, -1]
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            before = (interpolate(*ends, middle)[0][-1] < q) == rising
            low, high = (middle, high) if before else (low, middle)
        return interpolate(*ends, (low + high) / 2)[0]


def stable_side(family: Family, span: Any, u: Any, branch: Branch, number: int) -> Side:
    """The stable side of `branch.bifurcations[number]`; `NumericalError` where both sides are unstable."""
    problem = make_problem(family, span, u)
    bifurcation, before = branch.bifurcations[number], branch.steps[number]
    p0, p1 = float(problem.p0), float(problem.p1)
    q = (branch.parameter - p0) / (p1 - p0)
    z = np.concatenate([branch.x, q[:, None]], axis=1)
    others = [at for i, at in enumerate(branch.steps) if i != number]
    back = before - max((at for at in others if at < before), default=-1)
    ahead = min((at for at in others if at > before), default=len(z)) - before
    sides = [np.arange(before, before - back, -1), np.arange(before + 1, before + 1 + ahead)]
    sides = [side[(side >= 0) & (side < len(z))] for side in sides]
    usable = [side for side in sides if side.size and branch.stable[side[0]]]
    if not usable:
        raise NumericalError(
            f"the {bifurcation.kind} at p = {bifurcation.parameter:.6g} has no stable side: other modes are unstable there; "
            "choose another index"
        )
    # Both sides of a Hopf can be stable only where another event is near: take the nearer points.
    side = usable[0]
    centre = np.append(bifurcation.x, (bifurcation.parameter - p0) / (p1 - p0))
    outwards = np.sign(z[side[0], -1] - centre[-1])
    kept = [int(side[0])]
    for at in side[1:]:
        if not branch.stable[at] or np.sign(z[at, -1] - z[kept[-1], -1]) != outwards:
            break
        kept.append(int(at))
    way = -1.0 if side is sides[0] else 1.0
    tangent = _tangent(problem, bifurcation, centre)
    if np.sum((z[kept[0]] - centre) * tangent) < 0:
        tangent = -tangent
    points = np.concatenate([centre[None], z[kept]])
    tangents = np.concatenate([tangent[None], way * branch.tangent[kept]])
    return Side(problem, bifurcation, points, tangents)


def _tangent(problem: Problem, bifurcation: Bifurcation, z: np.ndarray) -> np.ndarray:
    """The unit tangent of the branch at a located point: the critical eigenvector at a saddle-node, else -A^-1 f_q."""
    if bifurcation.kind == "saddle-node":
        tangent = np.append(bifurcation.right.real, 0.0)
    else:
        tangent = np.asarray(at_parameter(problem, jnp.asarray(z[:-1]), z[-1]).tangent)
    return tangent / length(tangent)
