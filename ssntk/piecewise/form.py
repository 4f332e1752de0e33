"""Piecewise-linear systems in one form: A x + B relu(C x + c) + h."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ssntk.models.clock import Continuous, clock_of
from ssntk.results import Result, counted

Vector = Float[np.ndarray, " n"]
Pattern = Bool[np.ndarray, "*batch m"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(Result):
    """The system f(x) = A x + B relu(C x + c) + h of n states with m relus, in float64 on the host.

    - `A` (n, n), `B` (n, m), `C` (m, n), `c` (m,), `h` (n,).
    - `dt`: `None` for flows, for which f is dx/dt. For maps the step in units of time, and f(x) is the next state.

    The signals are s = C x + c. A pattern (m,) says which of them are positive. In the region of one pattern f is affine.

    **Example:**

    ```python
    form = ssntk.piecewise_linear(ssntk.VectorField(lambda t, x, u, p: -x + p * jax.nn.relu(x - 1), 3.0, 1))
    print(form.signals(np.array([2.0])), form(np.array([2.0])), form.jacobian(np.array([True])))  # [1.] [1.] [[2.]]
    ```
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    c: np.ndarray
    h: np.ndarray
    dt: float | None

    def _headline(self) -> str:
        kind = "flow" if clock_of(self.dt) == Continuous() else "map"
        return f"piecewise-linear {kind}: {counted(len(self.A), 'state')}, {counted(len(self.C), 'relu')}"

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
        return self.A if clock_of(self.dt) == Continuous() else self.A - np.eye(len(self.A))
