"""The kernel of a fixed point at a frequency: how small oscillations about it answer to oscillating parameters."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, PyTree

from ssntk.dynamics.refine import check_fixed_point
from ssntk.errors import NumericalError, as_array
from ssntk.kernel.steady_state import forcing
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model
from ssntk.models.theta import theta_positions


def frequency_ntk(
    model: AbstractStateSpaceModel,
    x_star: Any,
    omegas: Any,
    *,
    u: Any = None,
    wrt: Callable[[Any], PyTree] | None = None,
) -> Complex[Array, "W n n"]:
    """K(w) = S S^H with S = (i w - A)^-1 F, at a fixed point: Hermitian, (n, n) at each of W frequencies.

    A = df/dx and F = df/dtheta. K(0) is [`steady_state_ntk`][]; the peak of its largest eigenvalue tells a real critical
    eigenvalue (at zero) from a pair (at its frequency). A is brought to Schur form once (Laub, 1981): each frequency costs
    triangular solves only. Of a map with step dt, i w is `(exp(i w dt) - 1) / dt`.

    **Arguments:** `omegas`: (W,) angular frequencies, in radians per unit time. The others as of [`steady_state_ntk`][].

    Raises `ValueError`, and `NumericalError` where `x_star` is not a fixed point or i w is an eigenvalue of A to rounding.
    """
    frequencies = np.asarray(as_array(omegas, "omegas", ("W",)))
    response, jacobian, _ = frequency_response(model, x_star, u=u, wrt=wrt)
    kernels = [(part := response(float(omega))) @ part.conj().T for omega in frequencies]
    return jax.device_put(np.stack(kernels).astype(np.result_type(jacobian.dtype, np.complex64)))


def frequency_response(
    model: AbstractStateSpaceModel, x_star: Any, *, u: Any = None, wrt: Callable[[Any], PyTree] | None = None
) -> tuple[Callable[[float], np.ndarray], np.ndarray, np.ndarray]:
    """(w -> R (n, min(n, p)) with R R^H = K(w), A, G (n, min(n, p)) with G G^T = F F^T). Arguments and errors as above."""
    check_model(model)
    check_autonomous(model)
    at, clock = theta_positions(model, "state", wrt), model.clock
    x, u = check_fixed_point(model, x_star, u)
    by_theta, jacobian = (np.asarray(part) for part in forcing(model, at, x, u))
    # F F^T = R^T R with R from F^T, (p, n): n columns answer for the p parameters, and nothing is squared yet.
    columns = np.linalg.qr(by_theta.T, mode="r").T
    # Balanced, so that rounding is that of each state's own units.
    with np.errstate(invalid="ignore"):
        # Sizes that are no permutations are cast to integers there, and may be too large.
        balanced: Any = scipy.linalg.matrix_balance(jacobian, permute=False, separate=True)
    even, (sizes, _) = balanced
    schur: Any = scipy.linalg.schur(even, output="complex")
    triangular, basis = schur
    driven = basis.conj().T @ (columns / sizes[:, None])
    eps, size = np.finfo(jacobian.dtype).eps, np.abs(triangular).max()

    def response(omega: float) -> np.ndarray:
        at = complex(*clock.edge(omega))
        shifted = at * np.eye(len(jacobian)) - triangular
        nearest = np.abs(np.diag(shifted)).min()
        if nearest <= len(jacobian) * eps * max(size, abs(at)):
            raise NumericalError(
                f"i omega is an eigenvalue of the Jacobian at x_star to rounding, at omega = {omega:g}: it is {nearest:.2g} "
                f"away, and the largest rate is {size:.2g}; leave that frequency out, or move away from the bifurcation"
            )
        return sizes[:, None] * (basis @ scipy.linalg.solve_triangular(shifted, driven))

    return response, jacobian, columns
