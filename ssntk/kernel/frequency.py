"""The kernel of a fixed point at a frequency: how the state near it responds to parameters that oscillate a little."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex

from ssntk.dynamics.refine import check_fixed_point
from ssntk.errors import NumericalError, as_array
from ssntk.kernel.steady_state import forcing
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model
from ssntk.models.theta import theta_positions
from ssntk.nouns import Lens


def frequency_ntk(
    model: AbstractStateSpaceModel,
    x_star: Any,
    omegas: Any,
    *,
    u: Any = None,
    wrt: Lens | None = None,
) -> Complex[Array, "W n n"]:
    """The kernel K(w) = S S^H of a fixed point at each of W frequencies w, with S = (i w - A)^-1 F.

    A = df/dx (n, n) and F = df/dtheta (n, p). Each K(w) is Hermitian, (n, n). K(0) is [`steady_state_ntk`][]. The largest
    eigenvalue of K(w) peaks at zero if the critical eigenvalue of A is real, and at the pair's frequency if it is a pair.
    For maps with step dt, `(exp(i w dt) - 1) / dt` takes the place of i w. A is brought to Schur form once (Laub, 1981), so
    that each frequency costs triangular solves only.

    **Arguments:** `omegas`: (W,) angular frequencies, in radians per unit time. The others are as in
    [`steady_state_ntk`][].

    Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if `x_star` is not a fixed point, or if i w is
    an eigenvalue of A to rounding.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p - x, jnp.ones(1), 1)  # 1 / (1 + w^2)
    print(ssntk.frequency_ntk(model, [1.0], [0.0, 1.0]).real.ravel().round(6))  # [1.  0.5]
    ```
    """
    frequencies = np.asarray(as_array(omegas, "omegas", ("W",)))
    response, jacobian, _ = frequency_response(model, x_star, u=u, wrt=wrt)
    kernels = [(part := response(float(omega))) @ part.conj().T for omega in frequencies]
    return jax.device_put(np.stack(kernels).astype(np.result_type(jacobian.dtype, np.complex64)))


def frequency_response(
    model: AbstractStateSpaceModel, x_star: Any, *, u: Any = None, wrt: Lens | None = None
) -> tuple[Callable[[float], np.ndarray], np.ndarray, np.ndarray]:
    """A function and two matrices. Arguments and errors are as in `frequency_ntk`.

    The function takes w to R (n, min(n, p)) with R R^H = K(w). The matrices are A (n, n), and G (n, min(n, p)) with
    G G^T = F F^T.
    """
    check_model(model)
    check_autonomous(model)
    at, clock = theta_positions(model, "state", wrt), model.clock
    x, u = check_fixed_point(model, x_star, u)
    by_theta, jacobian = (np.asarray(part) for part in forcing(model, at, x, u))
    # The QR factorisation of F^T (p, n) gives R with F F^T = R^T R. So n columns stand for the p parameters, and no digits
    # are lost by squaring.
    columns = np.linalg.qr(by_theta.T, mode="r").T
    # A is balanced, so that each state's rounding error is relative to its own size.
    with np.errstate(invalid="ignore"):
        # SciPy casts the sizes to integers, as if they were permutations, and they may be too large for that.
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
