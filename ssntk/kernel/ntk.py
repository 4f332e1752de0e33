"""The neural tangent kernel of trajectories, and its spectrum."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, as_count, is_traced, outside_jit
from ssntk.kernel.choice import kernel_choice
from ssntk.kernel.gram import site_kernel
from ssntk.kernel.jacobian import METHODS
from ssntk.kernel.rows import Asked, Rows, rows_of
from ssntk.kernel.spectrum import Spectrum
from ssntk.kernel.top import top_spectrum
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import block_positions, columns, theta_positions


def ntk(
    model: AbstractStateSpaceModel,
    probe: Probe,
    other: Probe | None = None,
    *,
    of: str = "state",
    wrt: Callable[[Any], PyTree] | None = None,
    weights: Any = None,
    loss_operator: Any = None,
    preconditioner: Any = None,
    integrator: Integrator | None = None,
    scale: Any = None,
    method: str = "auto",
    batch_size: Any = None,
) -> Float[Array, "rows others"]:
    """K = J J^T, or J J'^T against another probe; rows are (b, t, i) in C order.

    **Arguments:**

    - `other`: a second probe, for the cross-kernel.
    - `weights`: how times are weighted. `None`: the raw stacked kernel. `"trapezoid"`: by the trapezoid rule over the save
      times, so that eigenvalues are those of `K_int = int J J^T dt` over the horizon (about raw * horizon / T). (T,): any
      non-negative weights. Row and column are each multiplied by the square root of their time's weight.
    - `loss_operator`: L in `L K L^T`: `None`, [`TimeDerivative`][], [`Residual`][] or [`Sobolev`][]; before the weights.
    - `preconditioner`: D in `J D^-1 J^T`: `None`, (p,) positive numbers, or a state of `optax.adam`, of which D is
      `sqrt(nu / (1 - 0.999^count)) + 1e-8`.
    - `of`, `wrt`, `integrator`: as in [`parameter_jacobian`][].
    - `scale`: (n,) or a number, positive, in units of the states: their metric, with which the rows are D^-1 J, D =
      diag(scale). Default: ones. It is the metric of the states, so that it is a `ValueError` with `of="readout"`.
    - `batch_size`: so many inputs of each probe are held as rows of J at a time; default all. J of all but the first are
      computed anew for each.
    - `method`: as there, and `"sites"`: the kernel of the states from inner products between events, without J, for theta
      that meets signals in matrix products; `"auto"` takes it from about 100 units with few steps a save interval
      ([`kernel_plan`][] tells). The answer is the same to 1e-12 of the largest entry.

    Raises as [`parameter_jacobian`][] does.
    """
    asked: Asked = {
        "of": of,
        "wrt": wrt,
        "weights": weights,
        "loss_operator": loss_operator,
        "preconditioner": preconditioner,
        "integrator": integrator,
        "scale": scale,
    }
    as_choice(method, "method", (*METHODS, "sites"))
    batch_size = None if batch_size is None else as_count(batch_size, "batch_size")
    if method == "sites" and (other is not None or batch_size is not None):
        raise ValueError("method 'sites' is not possible with another probe or a batch_size")
    mine = rows_of(model, probe, formed="kernel", **asked)
    if other is None and batch_size is None:
        choice, rows = kernel_choice(mine, method)
        return site_kernel(rows) if choice.method == "sites" else _with_itself(rows.matrix(choice.method))
    theirs = mine if other is None else rows_of(model, other, formed="kernel", **asked)
    return _by_inputs(mine, theirs, method, batch_size)


def ntk_blocks(
    model: AbstractStateSpaceModel,
    probe: Probe,
    blocks: Any,
    *,
    method: str = "auto",
    **asked: Unpack[Asked],
) -> dict[str, Float[Array, "rows rows"]]:
    """The part of [`ntk`][] that each block of theta makes; blocks that partition theta add up to the whole.

    **Arguments:** `blocks`: a list of the model's attributes, or a dict of names and lenses. The others as in [`ntk`][].

    Raises `ValueError` where a block is no part of theta, and as [`ntk`][] does.
    """
    as_choice(method, "method", METHODS)
    of, wrt = asked.get("of", "state"), asked.get("wrt")
    parts = block_positions(model, of, wrt, blocks)
    rows = rows_of(model, probe, **asked).matrix(method)
    chosen = {name: columns(model, theta_positions(model, of, wrt), block) for name, block in parts.items()}
    return {name: _with_itself(rows[:, at]) for name, at in chosen.items()}


def fisher(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    method: str = "auto",
    **asked: Unpack[Asked],
) -> Float[Array, "p p"]:
    """The dual J^T J (p, p), the Fisher information of unit Gaussian noise on the rows: the kernel's non-zero spectrum.

    Arguments and errors as in [`ntk`][].
    """
    as_choice(method, "method", METHODS)
    rows = rows_of(model, probe, **asked).matrix(method)
    return _with_itself(rows.T)


@outside_jit
def ntk_spectrum(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    method: str = "auto",
    eigenvectors: bool = True,
    k: Any = None,
    exact: bool = False,
    memory: Any = 2e9,
    **asked: Unpack[Asked],
) -> Spectrum:
    """The spectrum of [`ntk`][], from the singular values of J, so that small eigenvalues keep their digits.

    **Arguments:** as in [`ntk`][] and [`Spectrum.from_jacobian`][], and

    - `k`: only the first k eigenvalues, by Lanczos. The trace and the participation ratio come with their errors where
      they are estimated; what needs every eigenvalue is `None`.
    - `exact`: with k, trace and participation ratio without estimates: from J where that fits, else from every block of the
      kernel in turn by its site form (as `method="sites"` of [`ntk`][]), which keeps the cotangents of all events.
    - `memory`: with k, the bytes that J may take; where it would take more, nothing of that size is ever formed.

    Raises as [`parameter_jacobian`][] does; without k, `ValueError` where J does not fit into this machine.
    """
    as_choice(method, "method", METHODS)
    rows = rows_of(model, probe, formed="Jacobian" if k is None else None, **asked)
    if exact and k is None:
        raise ValueError("exact is for the top k: without k everything is")
    if k is not None:
        return top_spectrum(rows, k, method, memory, exact)
    return Spectrum.from_jacobian(rows.matrix(method), eigenvectors=eigenvectors)


def _by_inputs(mine: Rows, theirs: Rows, method: str, batch_size: int | None) -> Array:
    """The kernel of two sets of rows with so many inputs of each at a time; where they are one, by its lower blocks."""
    blocks: dict[tuple[int, int], Array] = {}
    starts = [range(0, rows.replay.probe.n_batch, batch_size or rows.replay.probe.n_batch) for rows in (mine, theirs)]

    def some(rows: Rows, which: range, i: int) -> Array:
        return rows.matrix(method, which[i], min(which.step, which.stop - which[i]))

    for i in range(len(starts[0])):
        left = some(mine, starts[0], i)
        for j in range(i + 1 if mine is theirs else len(starts[1])):
            blocks[i, j] = _contract(left, left if mine is theirs and i == j else some(theirs, starts[1], j))
            if mine is theirs:
                blocks[j, i] = blocks[i, j].T
    return jnp.block([[blocks[i, j] for j in range(len(starts[1]))] for i in range(len(starts[0]))])


def _with_itself(rows: Array) -> Array:
    """R R^T."""
    if is_traced(rows) or {device.platform for device in rows.devices()} != {"cpu"}:
        return _contract(rows, rows)
    # On the host: BLAS has a routine for this product, which computes half of it.
    matrix = np.asarray(rows)
    return jax.device_put(matrix @ matrix.T)


@jax.jit
def _contract(rows: Array, others: Array) -> Array:
    return rows @ others.T
