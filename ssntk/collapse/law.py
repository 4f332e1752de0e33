"""The master law: the coordinate c of a critical mode along recorded solves, and its drive.

`c' = lambda c + l^T F`, with F = df/dtheta (Hazelden and Shea-Brown, arXiv:2605.12763). States within a step of a flow are
those of the cubic interpolant. For maps the integral is a sum over steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ssntk.collapse.mode import Mode
from ssntk.collapse.quadrature import NODES, REMAINING, WEIGHTS, exponential_weights
from ssntk.dynamics.integrate import Trajectory
from ssntk.kernel.replay import Replay
from ssntk.models.maps import AbstractMap


class Carried(NamedTuple):
    """The result of the master law along recorded solves.

    - `coordinates` (B, T, 2, p): the mode's coordinate at the save times, with lambda at x* and with lambda along the
      trajectory.
    - `drive` (B, p): the amplitude of exp(i w t) in `l^T F`, under a Hann window.
    - `shifts` (B, T): `l^T (A(x(t)) - A(x*)) r`, in 1 / time.
    """

    coordinates: Array
    drive: Array
    shifts: Array


# The state of the integration: the mode's two coordinates (2, p), and the sum (p,) that becomes its drive.
Carry = tuple[Complex[Array, "2 p"], Complex[Array, " p"]]


@eqx.filter_jit
def carried(replay: Replay, mode: Mode) -> Carried:
    """Integrate the mode's coordinate, `c' = lambda c + l^T F`, and its drive along the recorded steps of every input."""

    def one(b: Array) -> tuple[Array, Array, Array]:
        along = _Along(replay, mode, b)
        saved, zero = along.track.saved, jnp.zeros((2, replay.theta.size), mode.left.dtype)
        step = along.map_step if isinstance(replay.model, AbstractMap) else along.flow_step

        def interval(carry: Carry, ends: Array) -> tuple[Carry, Array]:
            carry = jax.lax.fori_loop(ends[0], ends[1], step, carry)
            return carry, carry[0]

        ends = jnp.stack([saved[:-1], saved[1:]], axis=1)
        (_, total), coordinates = jax.lax.scan(interval, (zero, zero[0]), ends)
        local = jax.vmap(lambda t, x: along.local(t, x, along.drive(t)))
        shifts = local(along.ts, along.track.states[saved]) - mode.value
        return jnp.concatenate([zero[None], coordinates]), total, shifts

    return Carried(*jax.lax.map(one, jnp.arange(replay.probe.n_batch)))


class _Along:
    """One input of a recorded solve, and the mode that is integrated along it. Created inside the compiled function."""

    def __init__(self, replay: Replay, mode: Mode, b: Array):
        self.replay, self.mode, self.theta, self.ts = replay, mode, replay.theta, replay.probe.ts
        self.horizon = self.ts[-1] - self.ts[0]
        self.track: Trajectory = jax.tree.map(lambda leaf: leaf[b], replay.tracks)
        self.b, self.drive = b, replay.probe.input(b)

    def during(self, i: Array) -> Callable[[Array], Array]:
        """The input as a function of time during step i."""
        return self.replay.probe.during(self.b, self.track.times[i], self.track.times[i + 1])

    def velocity(self, t: Array, x: Array, u: Array) -> Float[Array, " n"]:
        return self.replay.model.vector_field(t, x, u)

    def forced(self, t: Array, x: Array, u: Array) -> Complex[Array, " p"]:
        """l^T F."""
        left, theta = self.mode.left, self.theta
        _, pull = jax.vjp(lambda leaves: theta.put(leaves).vector_field(t, x, u), theta.arrays)
        real, imag = (theta.ravel(pull(part)[0]) for part in (left.real, left.imag))
        return jax.lax.complex(real, imag)

    def local(self, t: Array, x: Array, u: Array) -> Complex[Array, ""]:
        """l^T A r."""
        right = self.mode.right
        real, imag = (jax.jvp(lambda x: self.velocity(t, x, u), (x,), (part,))[1] for part in (right.real, right.imag))
        return self.mode.left @ jax.lax.complex(real, imag)

    def window(self, t: Array) -> Array:
        """The Hann window, with an integral of one over the horizon."""
        return (1 - jnp.cos(2 * jnp.pi * (t - self.ts[0]) / self.horizon)) / self.horizon

    def turning(self, t: Array) -> Array:
        """exp(-i w (t - t0))."""
        phase = self.mode.frequency * (t - self.ts[0])
        return jax.lax.complex(jnp.cos(phase), -jnp.sin(phase))

    def map_step(self, i: Array, carry: Carry) -> Carry:
        """Advance over step i of a map."""
        coordinates, total = carry
        t, h, x = self.track.times[i], self.track.times[i + 1] - self.track.times[i], self.track.states[i]
        u = self.during(i)(t)
        rates, pushed = jnp.stack([self.mode.value, self.local(t, x, u)]), self.forced(t, x, u)
        length = h.astype(self.mode.left.dtype)
        moved = coordinates + length * (rates[:, None] * coordinates + pushed[None])
        return moved, total + length * self.window(t).astype(length.dtype) * self.turning(t) * pushed

    def flow_step(self, i: Array, carry: Carry) -> Carry:
        """Advance over step i of a flow, by quadrature with three nodes."""
        coordinates, total = carry
        t, h, s = self.track.times[i], self.track.times[i + 1] - self.track.times[i], jnp.asarray(NODES, self.ts.dtype)
        times, states = t + h * s, self._between(i, s[:, None])
        inputs = jax.vmap(self.during(i))(times)
        pushed = jax.vmap(self.forced)(times, states, inputs)
        rates = jnp.stack([jnp.full(3, self.mode.value), jax.vmap(self.local)(times, states, inputs)])
        # The integrals of lambda over the step, and from each node to its end, with the parabola through the nodes.
        whole = rates @ (h * jnp.asarray(WEIGHTS, t.dtype)).astype(rates.dtype)
        left = rates @ (h * jnp.asarray(REMAINING.T, t.dtype)).astype(rates.dtype)
        # The factor by which a varying rate changes the exponential of its average.
        uneven = jnp.exp(left - whole[:, None] * (1 - s[None]).astype(rates.dtype))
        gained = (h.astype(rates.dtype) * exponential_weights(whole) * uneven) @ pushed
        # The factor exp(-i w t) is integrated from the end of the step backwards.
        swept = jax.lax.complex(jnp.zeros_like(h), self.mode.frequency * h)
        turned = (h * self.window(times)).astype(rates.dtype) * self.turning(t + h) * exponential_weights(swept[None])[0]
        return jnp.exp(whole)[:, None] * coordinates + gained, total + turned @ pushed

    def _between(self, i: Array, s: Float[Array, "3 1"]) -> Float[Array, "3 n"]:
        """The states (3, n) at the fractions s (3, 1) of step i, by its cubic Hermite interpolant."""
        t, h, x = self.track.times[i], self.track.times[i + 1] - self.track.times[i], self.track.states[i]
        y = self.track.states[i + 1]
        drive = self.during(i)
        begin, end = self.velocity(t, x, drive(t))[None], self.velocity(t + h, y, drive(t + h))[None]
        across = s**2 * (3 - 2 * s) * (y - x)[None]
        return x[None] + across + h * (s * (1 - s) ** 2 * begin - s**2 * (1 - s) * end)
