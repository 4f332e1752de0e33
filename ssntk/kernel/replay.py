"""A recorded solve: every accepted step, what is observed at the save times, and which parameters are differentiated.

Steps are replayed one by one from their recorded states. Adaptive steps are thus differentiated on the grid that the solver
accepted, and another number of steps needs no new compilation.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, solve, steps_of
from ssntk.dynamics.probe import FittedProbe
from ssntk.kernel.observe.base import AbstractObservation
from ssntk.kernel.observe.observations import NAMED
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.maps import AbstractMap
from ssntk.models.theta import Positions, Theta


class Replay(eqx.Module):
    """The recorded solves of every input of a fitted probe, for derivatives with respect to the leaves `at` of the model."""

    model: AbstractStateSpaceModel
    at: Positions = eqx.field(static=True)
    probe: FittedProbe
    integrator: Integrator
    tracks: Trajectory
    # May be given by its name, "state" or "readout".
    observation: AbstractObservation = eqx.field(converter=lambda given: NAMED[given] if isinstance(given, str) else given)
    # The signals (B, T - 1, E, i) of each view of theta at a site (`ssntk.kernel.sites`), over save intervals of at most
    # `longest` steps. `None` if theta is differentiated without sites.
    signals: list[Array] | None = None
    longest: int = eqx.field(static=True, default=0)

    @property
    def theta(self) -> Theta:
        """The parameters that are differentiated."""
        return Theta(self.model, self.at)

    @property
    def met(self) -> list[Array]:
        """The signals, which the site form needs. This replay must have some."""
        # Callers have made them before, with `with_signals`.
        assert self.signals is not None
        return self.signals

    @property
    def rows(self) -> int:
        """The number of rows at each save time of one input."""
        return self.observation.rows(self.model)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the Jacobian, (B, T, rows, p)."""
        return self.probe.n_batch, self.probe.ts.shape[0], self.rows, self.theta.size

    @property
    def bytes(self) -> int:
        """How many bytes the Jacobian takes."""
        return math.prod(self.shape) * np.dtype(self.probe.ts.dtype).itemsize

    @property
    def replayable(self) -> bool:
        """Whether the steps are those of an explicit Runge-Kutta method, and can be repeated one by one."""
        return tableau(self.integrator.solver) is not None

    def field(self, leaves: list[Array], t: Array, x: Array, u: Array) -> Array:
        """The velocity of the state (n,); for maps, the next state."""
        moved = self.theta.put(leaves)
        return moved.advance(t, x, u) if isinstance(moved, AbstractMap) else moved.vector_field(t, x, u)

    def step(self, field: Callable[[Array, Array], Array], t0: Array, t1: Array, x: Array) -> Array:
        """The state (n,) at t1, after one step from x at t0. `field(t, x)` is the velocity; for maps, the next state."""
        if isinstance(self.model, AbstractMap):
            return field(t0, x)
        return rk_step(self.integrator.solver, field, t0, t1, x)

    def look(self, leaves: list[Array], t: Array, x: Array, u: Array) -> Array:
        """What is observed (m,) of the state x (n,) at time t."""
        return self.observation.look(self.theta.put(leaves), t, x, u)


def record(theta: Theta, probe: FittedProbe, integrator: Integrator | None, observation: AbstractObservation) -> Replay:
    """Solve every input of `probe` and keep the steps.

    Raises `ValueError` for an integrator that does not fit, and `NumericalError` if the solver fails.
    """
    integrator, grid = steps_of(theta.model, integrator, probe)
    replay = recorded(theta.model, theta.at, probe, integrator, grid, observation)
    check_solved(replay.tracks.result, integrator, saved_states(replay.tracks))
    return replay


def recorded(
    model: AbstractStateSpaceModel,
    at: Positions,
    probe: FittedProbe,
    integrator: Integrator,
    grid: Array | None,
    observation: AbstractObservation | str,
) -> Replay:
    """Solve every input of a fitted probe, on the steps of `grid` or adaptively. Nothing is checked."""
    return Replay(model, at, probe, integrator, _record(Theta(model, at), probe, integrator, grid), observation)


def check_room(needed: int | float, what: str) -> None:
    """Raise `ValueError` if `what`, which takes `needed` bytes, cannot fit into this machine."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * there:
        raise ValueError(
            f"the {what} would take {needed / 1e9:.3g} GB of the {there / 1e9:.3g} there are: ask ntk_spectrum for the "
            "top k eigenvalues, use ntk_operator, or choose fewer parameters by wrt"
        )


def saved_states(tracks: Trajectory) -> Any:
    """The states (B, T, n) at the save times, on the host if the recorded steps are there."""
    here: Any = np if isinstance(tracks.states, np.ndarray) else jnp
    # A solve that failed has not reached its last save times.
    saved = here.minimum(tracks.saved, tracks.states.shape[1] - 1)
    return here.take_along_axis(tracks.states, saved[:, :, None], axis=1)


@eqx.filter_jit
def _record(theta: Theta, probe: FittedProbe, integrator: Integrator, grid: Array | None) -> Trajectory:
    """The accepted steps of every input.

    The sensitivity along one random direction of theta is solved too, so that the steps resolve every mode of the kernel.
    If theta holds no parameter, the direction is one of the initial state. Given steps are taken as they will be replayed,
    without diffrax's loop, which takes five times as long to compile.
    """
    model = theta.model
    if grid is not None and not isinstance(model, AbstractMap) and tableau(integrator.solver) is not None:
        return jax.lax.map(lambda b: _stepped(model, probe, b, integrator, grid), jnp.arange(probe.n_batch))
    # Compiling one draw takes as long as compiling a small model's solve, so all numbers are drawn at once.
    drawn = theta.leaves(jax.random.normal(jax.random.key(0), (theta.size,), probe.ts.dtype))
    moving = None if theta.arrays else _moved(probe, integrator)
    noise = [part.astype(leaf.dtype) for part, leaf in zip(drawn, theta.arrays, strict=True)]
    still = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, model)
    direction = eqx.filter(Theta(still, theta.at).put(noise), eqx.is_inexact_array)
    # The recording is not differentiated. Of diffrax's modes, this one traces the least.
    plain = diffrax.ForwardMode()
    return jax.lax.map(
        lambda b: solve(model, probe, b, integrator, grid, direction, plain, moving), jnp.arange(probe.n_batch)
    )


def _stepped(
    model: AbstractStateSpaceModel, probe: FittedProbe, b: Array, integrator: Integrator, grid: Array
) -> Trajectory:
    """The solve of input `b` on given steps of an explicit Runge-Kutta method."""

    def step(x: Array, times: tuple[Array, Array]) -> tuple[Array, Array]:
        drive = probe.during(b, *times)
        x = rk_step(integrator.solver, lambda t, x: model.vector_field(t, x, drive(t)), *times, x).astype(x.dtype)
        return x, x

    start = probe.x0[b]
    states = jnp.concatenate([start[None], jax.lax.scan(step, start, (grid[:-1], grid[1:]))[1]])
    return Trajectory(grid, states, jnp.searchsorted(grid, probe.ts), diffrax.RESULTS.successful)


def _moved(probe: FittedProbe, integrator: Integrator) -> Float[Array, " n"]:
    """A random direction of the initial state, whose entries have the sizes for which the absolute tolerance was made."""
    shape, dtype = probe.x0.shape[1:], probe.ts.dtype
    return jax.random.normal(jax.random.key(0), shape, dtype) * jnp.asarray(1e10 * integrator.atol, dtype)


def tableau(solver: diffrax.AbstractSolver) -> tuple[list[list[float]], list[float], list[float]] | None:
    """(a, b, c) of an explicit Runge-Kutta method: its stage rows, solution weights and stage times. `None` for others."""
    if isinstance(solver, diffrax.Euler):
        return [], [1.0], []
    known = getattr(solver, "tableau", None)
    if isinstance(solver, diffrax.AbstractERK) and known is not None:
        return [row.tolist() for row in known.a_lower], known.b_sol.tolist(), known.c.tolist()
    return None


def rk_step(solver: diffrax.AbstractSolver, field: Callable[..., Array], t0: Array, t1: Array, x: Array) -> Array:
    """One step of an explicit Runge-Kutta solver, with its stages unrolled. It equals the solver's own step."""
    known = tableau(solver)
    assert known is not None
    rows, weights, times = known
    dt = t1 - t0

    def weighted(ratios: list[float]) -> Array:
        return sum((dt * a * k for a, k in zip(ratios, stages, strict=False) if a != 0), jnp.zeros_like(x))

    stages: list[Array] = []
    stages.append(field(t0, x))
    for row, c in zip(rows, times, strict=True):
        # A last stage with no weight serves only the solver's error estimate.
        if len(stages) < max(i for i, b in enumerate(weights) if b != 0) + 1:
            stages.append(field(t0 + c * dt, x + weighted(row)))
    return x + weighted(weights)
