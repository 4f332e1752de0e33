"""The neural tangent kernel of trajectories, and its spectrum."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice
from ssntk.kernel.jacobian import METHODS
from ssntk.kernel.rows import Asked, rows_of
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
    method: str = "auto",
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
    - `of`, `wrt`, `integrator`, `method`: as in [`parameter_jacobian`][].

    Raises as [`parameter_jacobian`][] does.
    """
    asked: Asked = {
        "of": of,
        "wrt": wrt,
        "weights": weights,
        "loss_operator": loss_operator,
        "preconditioner": preconditioner,
        "integrator": integrator,
    }
    as_choice(method, "method", METHODS)
    rows = rows_of(model, probe, **asked).matrix(method)
    return _contract(rows, rows if other is None else rows_of(model, other, **asked).matrix(method))


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
    return {name: _contract(rows[:, at], rows[:, at]) for name, at in chosen.items()}


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
    return _contract(rows.T, rows.T)


def ntk_spectrum(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    method: str = "auto",
    eigenvectors: bool = True,
    k: Any = None,
    memory: Any = 2e9,
    **asked: Unpack[Asked],
) -> Spectrum:
    """The spectrum of [`ntk`][], from the singular values of J, so that small eigenvalues keep their digits.

    **Arguments:** as in [`ntk`][] and [`Spectrum.from_jacobian`][], and

    - `k`: only the first k eigenvalues, by Lanczos. The trace and the participation ratio come with their errors where
      they are estimated; what needs every eigenvalue is `None`.
    - `memory`: with k, the bytes that J may take; where it would take more, nothing of that size is ever formed.

    Raises as [`parameter_jacobian`][] does; without k, `ValueError` where J does not fit into this machine.
    """
    as_choice(method, "method", METHODS)
    rows = rows_of(model, probe, formed=k is None, **asked)
    if k is not None:
        return top_spectrum(rows, k, method, memory)
    return Spectrum.from_jacobian(rows.matrix(method), eigenvectors=eigenvectors)


@jax.jit
def _contract(rows: Array, others: Array) -> Array:
    return rows @ others.T
