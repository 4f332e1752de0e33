"""Locate a bifurcation point from a guess."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.branch_point import BranchPoint
from ssntk.bifurcation.events.differentiable import differentiable
from ssntk.bifurcation.events.fold import Fold
from ssntk.bifurcation.events.kinds import BRANCH_POINT, as_kind
from ssntk.bifurcation.events.standard import event_of, kinds_of
from ssntk.bifurcation.point import Bifurcation
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.scales import typical_sizes
from ssntk.errors import NumericalError, Outcome, as_array, as_instance, as_scalar, is_traced
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.family import Family
from ssntk.nouns import AnyArray
from ssntk.precision import in_precision, watch_precision
from ssntk.zeros.equilibria import Equilibria
from ssntk.zeros.lines import branch_jacobians, outputs_at
from ssntk.zeros.stack import Stack


def locate(family: Any, kind: str, *, parameter: Any, x: Any, u: Any = None) -> Bifurcation:
    """Refine a guess of a bifurcation point to rounding error.

    Under `jax.grad`, `jvp`, `jit` or `vmap` the family's arrays or `u` are traced. Then `parameter`, `x`, `frequency` and
    `coefficient` are traced too, and can be differentiated forward and backward, by the implicit function theorem. A failure
    gives NaN then, since it cannot be raised. Only saddle-nodes, Hopf, flip and Neimark-Sacker points can be located then,
    not crossings of branches.

    **Arguments:**

    - `kind`: `"saddle-node"`, `"hopf"`, `"transcritical"` or `"pitchfork"`; for maps `"flip"` and `"neimark-sacker"`
      instead of `"hopf"`. Other common names are accepted: `"fold"`, `"LP"`, `"HB"`, `"PD"`, `"NS"`, and `"BP"` for a
      transcritical or a pitchfork.
    - `parameter`, `x` (n,): the guess. `u`: (d,) constant input. Default zero.

    Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if Newton's iteration does not converge to a
    point of this kind.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    found = ssntk.locate(family, "saddle-node", parameter=0.1, x=[0.2])
    print(found.converged, abs(found.parameter) < 1e-12)  # True True
    ```
    """
    as_instance(family, "family", Family)
    clock = family.clock
    kind = as_kind(kind, "kind", (*kinds_of(clock), BRANCH_POINT.name))
    event = event_of(kind, clock)
    assert event is not None
    wanted = [one.name for one in event.kinds if kind in (one.name, event.kind.name)]
    dtype = dtype_of(family.model)
    guess = as_array(x, "x", (family.model.n_state,)).astype(dtype)
    u, parameter = constant_input(family.model, u), as_scalar(parameter, "parameter").astype(dtype)
    check_autonomous(family.model)
    watch_precision(dtype)
    zeros = _around(family, u, parameter, guess)
    zero = jnp.zeros((), dtype)
    if is_traced(zeros, guess, parameter):
        if event == BranchPoint():
            raise ValueError(f"kind {kind!r} has no derivative: a generic change of the model breaks the crossing")
        return differentiable(zeros, event, zero, guess / zeros.scale)
    stack = Stack([zeros])
    near = np.append(np.asarray(guess) / stack.scale[0], zero)[None]
    found = event.solve(stack, [0], near)[0]
    point = found.point
    if point.converged and point.kind not in wanted:
        point = dataclasses.replace(point, converged=False, reason=f"it is a {point.kind}")
    if not point.converged:
        reason = point.reason
        if event == Fold() and found.outcome is not Outcome.branch_point:
            # At a crossing of branches the equations of a saddle-node are singular, so that the iteration may fail there.
            crossing = BranchPoint().solve(stack, [0], near)[0].point
            reason += f"; a branch point lies at p = {float(crossing.parameter):g}" if crossing.converged else ""
        raise NumericalError(f"no {kind} near p = {float(parameter):g}: {in_precision(reason, dtype)}")
    place = stack.point(0, point.x, point.parameter).astype(dtype)
    return dataclasses.replace(point, outputs=outputs_at(stack, 0, place[None])[0])


def _around(family: Family, u: Array, parameter: Array, x: Array) -> Equilibria:
    """The equilibria scaled to one point: states by their sizes, p by the change that moves a state by its size."""
    dtype, n = x.dtype, x.shape[0]

    def scaled(sizes: AnyArray, span: Array | float) -> Equilibria:
        return Equilibria(
            family=family,
            u=u,
            p0=parameter,
            p1=parameter + span,
            scale=jnp.asarray(sizes, dtype),
            weights=jnp.zeros((0, n), dtype),
            level=jnp.zeros(0, dtype),
            pull=jnp.ones((), dtype),
        )

    if is_traced(family, u, parameter, x):
        return scaled(jnp.ones(n, dtype), jnp.ones((), dtype))
    sizes = typical_sizes(family(parameter), u, x)
    z = np.append(np.asarray(x) / sizes, 0.0)
    aside = np.append(np.where(np.arange(n) % 2, -1.0, 1.0), 0.0).astype(dtype)
    jacobians = np.abs(branch_jacobians(Stack([scaled(sizes, 1.0)]), [0, 0, 0], np.stack([z, z + aside, z - aside])))
    rates, slopes = jacobians[0, :, :-1].sum(axis=1), jacobians[0, :, -1]
    # Where p acts on the state itself, as at a symmetric state, its effect at x may be zero, or what rounding left of it.
    beside = np.where(np.isfinite(jacobians[1:, :, -1]), jacobians[1:, :, -1], 0.0).max(axis=0)
    slopes = np.where(slopes > 1e-6 * beside, slopes, beside)
    moved = (rates[slopes > 0] / slopes[slopes > 0]) if (slopes > 0).any() else np.zeros(0)
    moved = moved[np.isfinite(moved) & (moved > 0)]
    span = max(float(moved.min()) if moved.size else 1.0, 64 * float(np.finfo(dtype).eps) * abs(float(parameter)))
    return scaled(sizes, span)
