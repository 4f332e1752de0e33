"""The kernel of a fixed point at a frequency: how small oscillations about it answer to oscillating parameters."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, PyTree

from ssntk.dynamics.fixed_points import check_fixed_point
from ssntk.errors import NumericalError, as_array
from ssntk.kernel.steady_state import forcing
from ssntk.models.base import AbstractStateSpaceModel, check_model
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
    triangular solves only.

    **Arguments:** `omegas`: (W,) angular frequencies, in radians per unit time. The others as of [`steady_state_ntk`][].

    Raises `ValueError`, and `NumericalError` where `x_star` is not a fixed point or i w is an eigenvalue of A to rounding.
    """
    check_model(model)
    at = theta_positions(model, "state", wrt)
    frequencies = np.asarray(as_array(omegas, "omegas", ("W",)))
    x, u = check_fixed_point(model, x_star, u)
    by_theta, jacobian = (np.asarray(part) for part in forcing(model, at, x, u))
    # F F^T = R^T R with R from F^T, (p, n): n columns answer for the p parameters, and nothing is squared yet.
    columns = np.linalg.qr(by_theta.T, mode="r").T
    schur: Any = scipy.linalg.schur(jacobian, output="complex")
    triangular, basis = schur
    driven = basis.conj().T @ columns
    eps, size = np.finfo(jacobian.dtype).eps, np.abs(triangular).max()
    kernels = []
    for omega in frequencies:
        shifted = 1j * omega * np.eye(len(jacobian)) - triangular
        if np.abs(np.diag(shifted)).min() <= len(jacobian) * eps * max(size, abs(omega)):
            raise NumericalError(f"i omega is an eigenvalue of the Jacobian at x_star to rounding, at omega = {omega:g}")
        response = basis @ scipy.linalg.solve_triangular(shifted, driven)
        kernels.append(response @ response.conj().T)
    return jnp.asarray(np.stack(kernels).astype(np.result_type(jacobian.dtype, np.complex64)))
