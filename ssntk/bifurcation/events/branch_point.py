"""Branch points: two branches cross, and the bordered determinant changes sign.

The equations are `f + b psi = 0, psi.A = 0, psi.df/dq = 0, psi.psi = 1` in the unknowns (y, b, psi, q) (Beyn et al.,
*Handbook of Dynamical Systems* 2, 2002, section 4). If b is not zero, the branches only pass close by each other. If a
pitchfork is passed along its parabola, the parameter turns as well.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.critical import beside, real_pair
from ssntk.bifurcation.events.derivatives import second, third
from ssntk.bifurcation.events.interval import Change, Interval
from ssntk.bifurcation.events.kinds import BRANCH_POINT, DEGENERATE, FLIP, PITCHFORK, TRANSCRITICAL, Kind
from ssntk.bifurcation.events.located import AbstractLocatedEvent, Judged, Named
from ssntk.bifurcation.point import Bifurcation, Located
from ssntk.errors import Outcome, Sentence
from ssntk.models.clock import AbstractClock
from ssntk.nouns import HostReal
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.lines import on_a_line
from ssntk.zeros.stack import Stack


class BranchPoint(AbstractLocatedEvent):
    """A transcritical or a pitchfork."""

    kind = BRANCH_POINT
    at_zero = True

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return TRANSCRITICAL, PITCHFORK

    def seen(self, change: Change) -> bool:
        return change.crosses and change.grown == (0 if change.turns else 1)

    def size(self, n: int) -> int:
        return 2 * n + 2

    def start(self, y: np.ndarray, q: HostReal, matrix: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
        pair = real_pair(matrix, 0.0, self.at_zero)
        left = pair.left.real
        unknowns = np.concatenate([y, [0.0], left / np.linalg.norm(left), [float(q)]])
        return unknowns.astype(y.dtype), pair.right.real.astype(y.dtype)

    def equations(self, zeros: AbstractZeros, unknowns: Array, border: Array) -> Array:
        n = border.shape[0]
        state, b, psi, q = unknowns[:n], unknowns[n], unknowns[n + 1 : -1], unknowns[-1]
        velocity, pull = jax.vjp(zeros.at, state, q)
        along_y, along_q = pull(psi)
        return jnp.concatenate([velocity + b * psi, along_y, jnp.stack([along_q, psi @ psi - 1])])

    def refused(self, seen: Judged) -> Sentence | None:
        if self.several(seen):
            return Outcome.several_vanish.say()
        n = len(seen.y)
        b, psi = float(seen.unknowns[n]), np.abs(seen.unknowns[n + 1 : -1])
        sizes = seen.terms @ (1 + np.abs(seen.y)) + np.abs(seen.slope)
        if abs(b) > seen.eps**0.6 * (psi @ sizes):
            return Outcome.pass_by.say()
        return Outcome.several_vanish.say() if seen.pushed or seen.pair.value.imag != 0 else None

    def arguments(self, seen: Judged) -> tuple[np.ndarray, ...]:
        right, left = seen.pair.right, seen.pair.left
        parts = right, left, beside(seen.jacobian, seen.slope, right, left)
        return seen.y, np.asarray(seen.q), *(part.astype(seen.y.dtype) for part in parts)

    def coefficient(self, zeros: AbstractZeros, *arguments: Array) -> Array:
        """(a, l.D2f(r, t), l.D2f(t, t), b3). The kernel of (A, f_q) is spanned by t (N + 1,) and r."""
        x, q, right, left, other = arguments
        z, n = jnp.append(x, q), x.shape[0]
        along = jnp.append(right, jnp.zeros_like(q))
        quadratic, mixed, bent = (
            second(zeros.residual, z, *pair) for pair in ((along, along), (along, other), (other, other))
        )
        # The system is bordered, since A is singular. The part along l is zero at a pitchfork.
        matrix = jnp.zeros((n + 1, n + 1), x.dtype)
        jacobian = jax.jacfwd(lambda x: zeros.at(x, q))(x)
        matrix = matrix.at[:n, :n].set(jacobian).at[:n, n].set(left).at[n, :n].set(right)
        curved = jnp.linalg.solve(matrix, jnp.append(-quadratic, jnp.zeros_like(q)))[:n]
        curving = second(zeros.residual, z, along, jnp.append(curved, jnp.zeros_like(q)))
        cubic = third(zeros.residual, z, along, along, along) + 3 * curving
        return zeros.clock.unit * jnp.stack([left @ quadratic / 2, left @ mixed, left @ bent, left @ cubic / 6])

    def named(self, seen: Judged, values: np.ndarray) -> Named | Sentence:
        a, mixed, bent, cubic = (float(value) for value in values)
        if not np.isfinite(values[:3]).all():
            return Outcome.not_quadratic.say()
        small = seen.small * seen.clock.unit
        along, other = np.append(seen.pair.right, 0.0), self.arguments(seen)[-1]
        if abs(a) > small:
            # The branches have the directions s r + other, with a s^2 + mixed s + bent / 2 = 0.
            inside = mixed**2 - 2 * a * bent
            if inside <= 0:
                return Outcome.isolated.say()
            first = -(mixed + np.copysign(np.sqrt(inside), mixed)) / 2
            roots = (first / a, bent / (2 * first)) if first != 0 else (0.0, 0.0)
            return Named(TRANSCRITICAL.name, a, 1, tangents=np.stack([root * along + other for root in roots]))
        tangents = np.stack([along, other - bent / (2 * mixed) * along]) if abs(mixed) > small else None
        if abs(cubic) <= small:
            reason = "its quadratic and its cubic coefficient are zero to rounding"
            return Named(DEGENERATE.name, cubic, reason=reason, tangents=tangents)
        if tangents is None:
            return Outcome.several_branches.say()
        return Named(PITCHFORK.name, cubic, 2, "supercritical" if cubic < 0 else "subcritical", tangents=tangents)

    def accepted(self, stack: Stack, interval: Interval, one: Located) -> Bifurcation:
        point = super().accepted(stack, interval, one)
        if point.converged and point.kind == DEGENERATE.name and on_a_line(stack, interval.member, one.z):
            return dataclasses.replace(point, reason="a line of equilibria passes through it at this parameter")
        return point

    def switch(self, point: Bifurcation) -> tuple[np.ndarray, ...]:
        # A flip that was found as a pitchfork of twice as many steps has the directions of both branches.
        mine = point.kind in (FLIP.name, *(kind.name for kind in self.kinds))
        return tuple(point.tangents) if mine and point.tangents is not None else ()
