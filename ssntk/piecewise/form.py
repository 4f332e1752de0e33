"""Piecewise-linear systems in one form: A x + B relu(C x + c) + h."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ssntk.results import Result

Vector = Float[np.ndarray, " n"]
Pattern = Bool[np.ndarray, "*batch m"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(Result):
    """The system f(x) = A x + B relu(C x + c) + h of n states with m relus, in float64 on the host.

    - `A` (n, n), `B` (n, m), `C` (m, n), `c` (m,), `h` (n,).
    - `dt`: `None` for flows, for which f is dx/dt. For maps the step in units of time, and f(x) is the next state.

    The signals are s = C x + c. A pattern (m,) says which of them are positive. In the region of one pattern f is affine.
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    c: np.ndarray
    h: np.ndarray
    dt: float | None

    def __call__(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """f at states (..., n)."""
        return x @ self.A.T + np.maximum(self.signals(x), 0.0) @ self.B.T + self.h

    def signals(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch m"]:
        """s = C x + c at states (..., n)."""
        return x @ self.C.T + self.c

    def jacobian(self, pattern: Pattern) -> Float[np.ndarray, "*batch n n"]:
        """df/dx in the regions of patterns (..., m)."""
        return self.A + (self.B * pattern[..., None, :]) @ self.C

    @property
    def pull(self) -> Float[np.ndarray, "n n"]:
        """G, the linear part of the equation G x + B relu(C x + c) + h = 0 of the fixed points: A, for maps A - I."""
        return self.A if self.dt is None else self.A - np.eye(len(self.A))
