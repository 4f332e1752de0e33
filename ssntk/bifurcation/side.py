"""The stable side of a located bifurcation: the equilibria at given distances from it."""

import dataclasses

import numpy as np

from ssntk.bifurcation.abstract_side import AbstractSide
from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.fold import tangent_at
from ssntk.bifurcation.events.kinds import SADDLE_NODE, kind_named
from ssntk.bifurcation.exact_side import exact_side
from ssntk.bifurcation.wish import exact_family, singular_at
from ssntk.dynamics.stability import exponents
from ssntk.errors import NumericalError
from ssntk.models.family import Family
from ssntk.zeros.correct import corrected, corrected_at, inner, interpolate, length
from ssntk.zeros.equilibria import equilibria_of
from ssntk.zeros.lines import stability_matrices
from ssntk.zeros.stack import Stack


@dataclasses.dataclass(frozen=True)
class Side(AbstractSide):
    """The stable side of a bifurcation of a smooth family.

    - `z` (k, n + 1): points (y, q) with x = scale y, the bifurcation first. `tangent` (k, n + 1): the unit tangents there.
    - `stack`: the zeros that are followed, as a stack of one.
    """

    stack: Stack
    z: np.ndarray
    tangent: np.ndarray

    def at_distance(self, distance: float) -> tuple[float, np.ndarray]:
        span = float(self.stack.p1[0]) - float(self.stack.p0[0])
        away = np.abs(self.z[:, -1] - self.z[0, -1]) * abs(span)
        if distance > away[-1]:
            raise NumericalError(f"the stable side reaches only to a distance of {away[-1]:.6g}")
        step = int(np.searchsorted(away, distance, side="left")) - 1
        direction = np.sign(self.z[-1, -1] - self.z[0, -1])
        q = self.z[0, -1] + direction * distance / abs(span)
        guess = self._between(step, q)
        found = corrected_at(self.stack, [0], guess[None, :-1], [q])
        z = found.z[0]
        stable = bool(exponents(found.matrix[0], self.stack.clock)[0].real < 0)
        gap = length(guess - self.z[0])
        if not bool(found.converged) or not stable or length(z - guess) > 0.5 * gap:
            raise NumericalError("no stable equilibrium was found at this distance")
        return float(np.asarray(self.stack.parameter(0, q), z.dtype)), z[:-1] * self.stack.scale[0]

    def _between(self, step: int, q: float) -> np.ndarray:
        """The point z (n + 1,) at `q` on the interpolant between points `step` and `step + 1`, by bisection."""
        ends = self.z[step], self.tangent[step], self.z[step + 1], self.tangent[step + 1]
        rising = self.z[step + 1, -1] > self.z[step, -1]
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            before = (interpolate(*ends, middle)[0][-1] < q) == rising
            low, high = (middle, high) if before else (low, middle)
        return interpolate(*ends, (low + high) / 2)[0]


def stable_side(family: Family, span: object, u: object, branch: Branch, number: int) -> AbstractSide:
    """The stable side of `branch.bifurcations[number]`; `NumericalError` if both sides are unstable."""
    exact = exact_family(family, span, u, must=False)
    start = 0.0 if exact is None else float((branch.parameter[0] - exact.p0) / (exact.p1 - exact.p0))
    if exact is not None and not singular_at(exact, branch.x[0], start):
        return exact_side(exact, branch, number)
    # Branches that were stored by a version without `scale` were computed with sizes of one.
    scale = np.ones(branch.x.shape[1]) if branch.scale is None else branch.scale
    stack = Stack([equilibria_of(family, span, u, x=branch.x[0], scale=scale)])
    bifurcation = branch.bifurcations[number]
    centre, tangent = _point(stack, branch, number)
    values = exponents(stability_matrices(stack, [0], centre[None])[0], stack.clock)
    critical = np.argsort(np.abs(np.abs(values.imag) - bifurcation.frequency) + np.abs(values.real))
    others = np.delete(values, critical[: kind_named(bifurcation.kind).modes])
    # The next recorded point may be unstable: it may lie beyond events that were seen but not located.
    for way in (-1, 1) if (others.real < 0).all() else ():
        z, tangents, stable = _walk(stack, branch, number, way)
        if len(z) == 0 or not stable[0]:
            continue
        # Go outwards until the parameter turns or stability ends.
        runs = np.sign(np.diff(np.append(centre[-1], z[:, -1])))
        ends = np.flatnonzero(~stable | (runs != runs[0]))
        kept = int(ends[0]) if ends.size else len(z)
        points = np.concatenate([centre[None], z[:kept]])
        return Side(bifurcation, stack, points, way * np.concatenate([tangent[None], tangents[:kept]]))
    raise NumericalError(
        f"the {bifurcation.kind} at p = {bifurcation.parameter:.6g} has no stable side: other modes are unstable there; "
        "choose another index"
    )


def _walk(stack: Stack, branch: Branch, number: int, way: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points (k, n + 1) from a bifurcation to the next one, backwards (`way` = -1) or forwards (1), with their tangents
    (k, n + 1) and stability (k,)."""
    before = branch.steps[number]
    if 0 <= number + way < len(branch.steps) and branch.steps[number + way] == before:
        # Both bifurcations lie in one step, without a recorded point between them: compute one.
        ends = [_point(stack, branch, at) for at in sorted((number, number + way))]
        guess, border = interpolate(*ends[0], *ends[1], 0.5)
        middle = corrected(stack, [0], guess[None], border[None])
        if not middle.converged[0]:
            return np.zeros((0, guess.size)), np.zeros((0, guess.size)), np.zeros(0, bool)
        stable = exponents(middle.matrix, stack.clock)[:, 0].real < 0
        return middle.z, middle.tangent, stable
    if way < 0:
        stop = max((at for at in branch.steps if at < before), default=-1)
        indices = np.arange(before, stop, -1)
    else:
        stop = min((at for at in branch.steps if at > before), default=len(branch.x) - 1)
        indices = np.arange(before + 1, stop + 1)
    q = stack.fraction(0, branch.parameter[indices])
    sizes = np.append(stack.scale[0], 1.0)
    z = np.concatenate([branch.x[indices], q[:, None]], axis=1) / sizes
    return z, branch.tangent[indices] / sizes, branch.stable[indices]


def _point(stack: Stack, branch: Branch, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(z, tangent) of a located bifurcation, each (n + 1,), with the unit tangent in the direction of travel.

    The tangent is the critical eigenvector at a saddle-node, that of the followed branch at a crossing, and from -A^-1 f_q
    elsewhere.
    """
    event = branch.bifurcations[number]
    z = stack.point(0, event.x, event.parameter)
    if event.tangents is not None:
        tangents = [stack.step(0, tangent[:-1], tangent[-1]) for tangent in event.tangents]
    elif event.kind == SADDLE_NODE.name:
        tangents = [tangent_at(event.right, stack.scale[0])]
    else:
        tangents = corrected_at(stack, [0], z[None, :-1], z[-1:]).tangent
    at = branch.steps[number]
    travel = (branch.tangent[at] + branch.tangent[at + 1]) / np.append(stack.scale[0], 1.0)
    tangents = [tangent / length(tangent) for tangent in tangents]
    along = [inner(tangent, travel) for tangent in tangents]
    best = int(np.argmax(np.abs(along)))
    return z, tangents[best] * (1.0 if along[best] >= 0 else -1.0)
