"""The derivative of a closed orbit with respect to the parameters, as an exact derivative of a discrete orbit.

With A = df/dx and F = df/dtheta along the orbit, X = dx/dtheta at fixed phase obeys `X' = A X + F + f P_theta / P`,
X(P) = X(0), with the period P and its gradient P_theta. X is unique up to `f c`, a shift of the phase. The shift is chosen
that makes X least: `int <X, f> dt = 0`. The phase response Z obeys `Z' = -A^T Z`, Z . f = 1, and P_theta = -int Z^T F dt.
"""

from typing import NamedTuple

import numpy as np

# An orbit whose equations fail by more than this part of its extent is not one of the model.
SAME = 1e-5
# A state whose range along the orbit is below this part of its size stands still.
STILL = 1e-6


class Nodes(NamedTuple):
    """The derivative of the orbit at M times, which are the nodes of a quadrature over the period.

    - `times` (M,), in units of time, and `weights` (M,), which sum to one.
    - `jacobian` (M, n, p): X at these times; `None` if it does not fit into the memory that was allowed.
    - `kernel` (M n, M n): X X^T, weighted; `None` if X is there.
    """

    times: np.ndarray
    weights: np.ndarray
    jacobian: np.ndarray | None
    kernel: np.ndarray | None


class Closed(NamedTuple):
    """A closed orbit to first order, in the user's units, at times `ts` (N,): the states `x`, the velocity, and the phase
    response (N, n); X (N, n, p) or `None`; P_theta (p,); and the mean square of the speed in the metric."""

    ts: np.ndarray
    x: np.ndarray
    velocity: np.ndarray
    response: np.ndarray
    jacobian: np.ndarray | None
    gradient: np.ndarray
    speed: float
    nodes: Nodes


def least(velocity: np.ndarray, jacobian: np.ndarray, weights: np.ndarray, metric: np.ndarray) -> tuple[np.ndarray, float]:
    """The shift (p,) along the velocities (M, n) that makes X (M, n, p) least, and the mean square of the speed."""
    along = velocity / metric
    speed = float(weights @ (along**2).sum(axis=1))
    weighted = (weights[:, None] * along / metric).ravel()
    return weighted @ jacobian.reshape(weighted.size, -1) / speed, speed


def extents(x: np.ndarray) -> np.ndarray:
    """The range of each state (n,) along an orbit (N, n); its size if it stands still, up to rounding, and one if it is
    zero."""
    wide, sizes = np.ptp(x, axis=0), np.abs(x).max(axis=0)
    wide = np.where(wide > STILL * sizes, wide, sizes)
    return np.where(wide > 0, wide, 1.0)


def check_same(gap: float) -> None:
    """`ValueError` if the equations of the orbit fail by `gap`, relative to its extent."""
    if not gap <= SAME:
        raise ValueError(
            f"orbit must be a limit cycle of this model, but the flow leads {gap:.2g} of its extent away from it; "
            "compute it by limit_cycle(model, ...) with the same parameters and u"
        )
