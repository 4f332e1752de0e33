"""Continuation can follow any zeros: here a circle, which is not given by a model, with its own linear solver.

Compiles the loop of continuation and a corrector, for one unknown and two kinds of zeros.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from ssntk.bifurcation.detect import find_events
from ssntk.bifurcation.events.fold import Fold
from ssntk.bifurcation.events.standard import events_of
from ssntk.errors import Outcome
from ssntk.models.clock import Continuous
from ssntk.zeros.arclength import follow
from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.correct import corrected_at
from ssntk.zeros.stack import Stack
from ssntk.zeros.track import Start, points_of

RADIUS = 0.3


class Circle(AbstractZeros):
    """y^2 + (p - 1/2)^2 = r^2, p from 0 to 1."""

    radius: Float[Array, ""]
    p0: Float[Array, ""]
    p1: Float[Array, ""]

    @property
    def size(self):
        return 1

    @property
    def clock(self):
        return Continuous()

    def units(self):
        return jnp.ones(1)

    def at(self, y, q):
        return y**2 + (q - 0.5) ** 2 - self.radius**2

    def outputs(self, z):
        return z[:-1]


class Eliminated(Circle):
    """The same circle, whose bordered systems are solved by Cramer's rule."""

    def solve(self, jacobian, border, right):
        (a, b), (c, d) = jacobian[0], border
        determinant = a * d - b * c
        return jnp.stack([d * right[0] - b * right[1], a * right[1] - c * right[0]]) / determinant, jnp.sign(determinant)


@events_of.register
def _(zeros: Circle):
    return (Fold(),)


def followed(kind):
    """One round along the circle from (r, 1/2), and the events on it."""
    stack = Stack([kind(jnp.asarray(RADIUS), jnp.asarray(0.0), jnp.asarray(1.0))])
    start = corrected_at(stack, [0], np.array([[RADIUS]]), np.array([0.5]))
    (track,) = follow(stack, [Start(0, points_of(start, stack.clock).at(0))], 0.05, 500)
    return track, find_events(stack, [track])[0]


@pytest.fixture(scope="module")
def rounds():
    return {kind: followed(kind) for kind in (Circle, Eliminated)}


@pytest.mark.parametrize("kind", [Circle, Eliminated])
def test_a_circle_is_followed_once_around(rounds, kind):
    track, events = rounds[kind]
    assert track.ends[0].outcome is Outcome.closed
    np.testing.assert_allclose(np.hypot(track.z[:, 0], track.z[:, 1] - 0.5), RADIUS, rtol=1e-13)
    angles = np.unwrap(np.arctan2(track.z[:, 1] - 0.5, track.z[:, 0]))
    assert abs(abs(angles[-1] - angles[0]) - 2 * np.pi) < 1e-12
    # The Jacobian over y is 2 y: its sign tells stability.
    np.testing.assert_allclose(track.points.exponents[:, 0].real, 2 * track.z[:, 0], atol=1e-14)
    assert [event.kind for _, event in events] == ["saddle-node"] * 2
    assert all(event.converged for _, event in events)
    np.testing.assert_allclose(sorted(event.parameter for _, event in events), [0.5 - RADIUS, 0.5 + RADIUS], rtol=1e-13)
    # F_yy / 2 = 1 in the unit eigenvector.
    np.testing.assert_allclose([event.coefficient for _, event in events], 1.0, rtol=1e-12)


def test_another_solver_leads_along_the_same_points(rounds):
    (one, _), (other, _) = rounds.values()
    # Steps follow from the points, which agree to rounding.
    np.testing.assert_allclose(one.z, other.z, atol=1e-11)


def test_zeros_whose_events_nobody_knows_are_refused():
    class Unknown(Circle):
        pass

    class Other(AbstractZeros):
        p0: jax.Array
        p1: jax.Array
        size = 1
        clock = Continuous()

        def units(self):
            return jnp.ones(1)

        def at(self, y, q):
            return y - q

        def outputs(self, z):
            return z[:-1]

    assert events_of(Unknown(jnp.asarray(RADIUS), jnp.asarray(0.0), jnp.asarray(1.0))) == (Fold(),)
    with pytest.raises(NotImplementedError, match="no events are known of Other"):
        events_of(Other(jnp.asarray(0.0), jnp.asarray(1.0)))
