"""A solve, recorded so that it can be walked again: every accepted step, what is observed at the save times, and of which
parameters derivatives are taken.

Steps are replayed one by one from their recorded states, so that adaptive steps are differentiated on the grid that was
accepted, and their number compiles nothing anew.
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
from jaxtyping import Array

from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, solve, steps_of
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_instance
from ssntk.models.base import AbstractStateSpaceModel, check_model
from ssntk.models.maps import AbstractMap
from ssntk.models.theta import Positions, get, put, size

# What can be observed at a save time: the state, the readout, their rates of change along the trajectory, and the velocity
# of a state that is held still.
OBSERVATIONS = ("state", "readout", "state rate", "readout rate", "residual")


class Replay(eqx.Module):
    """The recorded solves of every input of a fitted probe, for derivatives with respect to the leaves `at` of the model."""

    model: AbstractStateSpaceModel
    at: Positions = eqx.field(static=True)
    probe: Probe
    integrator: Integrator
    tracks: Trajectory
    observation: str = eqx.field(static=True)
    # For each view of theta at a site (`ssntk.kernel.sites`) its signals (B, T - 1, E, i) over save intervals of at most
    # `longest` steps; `None` where theta is differentiated as it is.
    signals: Any = None
    longest: int = eqx.field(static=True, default=0)

    @property
    def rows(self) -> int:
        """How many rows there are at each save time of one input."""
        return self.model.n_output if self.observation.startswith("readout") else self.model.n_state

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the Jacobian, (B, T, rows, p)."""
        return self.probe.n_batch, self.probe.ts.shape[0], self.rows, size(self.model, self.at)

    @property
    def bytes(self) -> int:
        """What the Jacobian takes."""
        return math.prod(self.shape) * np.dtype(self.probe.ts.dtype).itemsize

    @property
    def replayable(self) -> bool:
        """Whether the steps are those of an explicit Runge-Kutta method, and can be taken again one by one."""
        return tableau(self.integrator.solver) is not None

    def field(self, theta: list[Array], t: Array, x: Array, u: Array) -> Array:
        """The velocity of the state; of a map, the next state."""
        moved = put(self.model, self.at, theta)
        return moved.advance(t, x, u) if isinstance(moved, AbstractMap) else moved.vector_field(t, x, u)

    def step(self, field: Callable[[Array, Array], Array], t0: Array, t1: Array, x: Array) -> Array:
        """The state at t1 after one step from x at t0, where `field(t, x)` is the velocity, or the next state of a map."""
        if isinstance(self.model, AbstractMap):
            return field(t0, x)
        return rk_step(self.integrator.solver, field, t0, t1, x)

    def look(self, theta: list[Array], t: Array, x: Array, u: Array) -> Array:
        """What is observed of the state x at time t."""
        moved = put(self.model, self.at, theta)
        if self.observation == "state":
            return x
        if self.observation == "readout":
            return moved.readout(x)
        still = jax.lax.stop_gradient(x) if self.observation == "residual" else x
        velocity = moved.vector_field(t, still, u)
        return jax.jvp(moved.readout, (x,), (velocity,))[1] if self.observation == "readout rate" else velocity


def record(
    model: Any,
    at: Positions,
    probe: Any,
    integrator: Integrator | None,
    observation: str,
    *,
    formed: str | None = "Jacobian",
) -> Replay:
    """Solve every input of `probe` and keep the steps.

    Raises `ValueError`, also where what is to be `formed`, the `"Jacobian"` or the `"kernel"`, cannot fit into this machine,
    and `NumericalError` where the solver fails.
    """
    check_model(model)
    probe = as_instance(probe, "probe", Probe).fit(model)
    each = model.n_output if observation.startswith("readout") else model.n_state
    rows, itemsize = probe.n_batch * probe.ts.shape[0] * each, np.dtype(probe.ts.dtype).itemsize
    if formed is not None:
        check_room(rows * (rows if formed == "kernel" else size(model, at)) * itemsize, formed)
    integrator, grid = steps_of(model, integrator, probe)
    replay = recorded(model, at, probe, integrator, grid, observation)
    check_solved(replay.tracks.result, integrator, saved_states(replay.tracks))
    return replay


def recorded(
    model: Any, at: Positions, probe: Probe, integrator: Integrator, grid: Array | None, observation: str
) -> Replay:
    """Solve every input of a probe that was fit to the model, on the steps of `grid` or adaptively. Nothing is checked."""
    return Replay(model, at, probe, integrator, _record(model, at, probe, integrator, grid), observation)


def check_room(needed: Any, what: str) -> None:
    """`ValueError` where something of `needed` bytes cannot fit into this machine."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * there:
        raise ValueError(
            f"the {what} would take {needed / 1e9:.3g} GB of the {there / 1e9:.3g} there are: ask ntk_spectrum for the "
            "top k eigenvalues, use ntk_operator, or choose fewer parameters by wrt"
        )


def saved_states(tracks: Trajectory) -> Any:
    """The states (B, T, n) at the save times; of recorded steps that are on the host, there."""
    here: Any = np if isinstance(tracks.states, np.ndarray) else jnp
    # A solve that failed has not come to its last save times.
    saved = here.minimum(tracks.saved, tracks.states.shape[1] - 1)
    return here.take_along_axis(tracks.states, saved[:, :, None], axis=1)


@eqx.filter_jit
def _record(
    model: AbstractStateSpaceModel, at: Positions, probe: Probe, integrator: Integrator, grid: Array | None
) -> Trajectory:
    """The accepted steps of every input. One random direction of theta excites every mode that the kernel must resolve."""
    theta = get(model, at)
    # Drawn at once: the code of each draw takes as long to compile as a small model's solve.
    ends = np.cumsum([0, *(leaf.size for leaf in theta)])
    drawn = jnp.split(jax.random.normal(jax.random.key(0), (int(ends[-1]),), probe.ts.dtype), ends[1:-1])
    noise = [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(drawn, theta, strict=False)]
    still = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, model)
    direction = eqx.filter(put(still, at, noise), eqx.is_inexact_array)
    # Nothing is differentiated through the recording: the least to be traced.
    plain = diffrax.ForwardMode()
    return jax.lax.map(lambda b: solve(model, probe, b, integrator, grid, direction, plain), jnp.arange(probe.n_batch))


def tableau(solver: diffrax.AbstractSolver) -> tuple[list[Any], Any, Any] | None:
    """(a, b, c) of an explicit Runge-Kutta method: stage rows, solution weights, stage times; else `None`."""
    if isinstance(solver, diffrax.Euler):
        return [], [1.0], []
    known = getattr(solver, "tableau", None)
    if isinstance(solver, diffrax.AbstractERK) and known is not None:
        return [row.tolist() for row in known.a_lower], known.b_sol.tolist(), known.c.tolist()
    return None


def rk_step(solver: diffrax.AbstractSolver, field: Callable[..., Array], t0: Array, t1: Array, x: Array) -> Array:
    """One step of an explicit Runge-Kutta solver, unrolled: the same map as the solver's own."""
    known = tableau(solver)
    assert known is not None
    rows, weights, times = known
    dt = t1 - t0

    def weighted(ratios: Any) -> Array:
        return sum((dt * a * k for a, k in zip(ratios, stages, strict=False) if a != 0), jnp.zeros_like(x))

    stages: list[Array] = []
    stages.append(field(t0, x))
    for row, c in zip(rows, times, strict=True):
        # A last stage with no weight serves only the solver's error estimate.
        if len(stages) < max(i for i, b in enumerate(weights) if b != 0) + 1:
            stages.append(field(t0 + c * dt, x + weighted(row)))
    return x + weighted(weights)
