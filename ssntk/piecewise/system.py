"""The equation of the fixed points and cycles of a piecewise-linear system: G x + B relu(C x + c) + h = 0."""

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.csgraph
from jaxtyping import Bool, Float

from ssntk.piecewise.form import PiecewiseLinear

# A signal is zero within this many roundings of its terms.
ROUNDINGS = 256
# A matrix is singular if a solution changes by more than this fraction when it is corrected once.
SINGULAR = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """The equation G x + B relu(C x + c) + h = 0 of N unknowns with m relus."""

    G: np.ndarray
    B: np.ndarray
    C: np.ndarray
    c: np.ndarray
    h: np.ndarray

    @classmethod
    def of(cls, form: PiecewiseLinear) -> "System":
        """The equation of the fixed points."""
        return cls(form.pull, form.B, form.C, form.c, form.h)

    @classmethod
    def stacked(cls, form: PiecewiseLinear, k: int) -> "System":
        """The equation of the cycles of k steps, F(x_j) = x_(j+1), in the unknowns (x_0, ..., x_(k-1))."""
        n, one = len(form.A), np.eye(k)
        G = np.kron(one, form.A) - np.kron(np.roll(one, 1, axis=1), np.eye(n))
        return cls(G, np.kron(one, form.B), np.kron(one, form.C), np.tile(form.c, k), np.tile(form.h, k))

    def units(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Units (N,) of the unknowns and (m,) of the signals in which the entries are alike, and the size of the equation.

        They are powers of two. Balancing makes every row as large as its column, whatever the units of the unknowns, of the
        signals and of time were.
        """
        n = len(self.G)
        whole = np.block([[self.G, self.B], [self.C, np.zeros((len(self.C),) * 2)]])
        top = 2.0 ** np.round(np.log2(np.abs(whole[:n]).max(initial=0.0) or 1.0))
        whole[:n] /= top
        # SciPy casts the units to integers, since they may be permutations, and warns if they are too large.
        with np.errstate(invalid="ignore"):
            balanced: Any = scipy.linalg.matrix_balance(whole, permute=False, separate=True)
        found, (units, _) = balanced
        levels = np.abs(np.concatenate([self.h / top, self.c]) / units)
        # Parts that do not act on each other have units of their own, in which their constants are about one.
        _, part = scipy.sparse.csgraph.connected_components(np.abs(found) + np.abs(found.T) > 0, directed=False)
        most = np.zeros(part.max() + 1)
        np.maximum.at(most, part, levels)
        units = units * (2.0 ** np.round(np.log2(np.where(most > 0, most, 1.0))))[part]
        return units[:n], units[n:], float(top)

    def in_units(self, rows: np.ndarray, of_x: np.ndarray, of_s: np.ndarray) -> "System":
        """The equation in units (N,) of its rows, (N,) of the unknowns and (m,) of the signals."""
        C, row = self.C * of_x / of_s[:, None], rows[:, None]
        return System(self.G * of_x / row, self.B * of_s / row, C, self.c / of_s, self.h / rows)

    def scaled(self) -> tuple["System", np.ndarray]:
        """The equation in units in which the entries are alike, and those (N,) of the unknowns."""
        of_x, of_s, top = self.units()
        return self.in_units(top * of_x, of_x, of_s), of_x

    @property
    def finite(self) -> bool:
        """Whether no number overflowed."""
        return all(bool(np.isfinite(part).all()) for part in (self.G, self.B, self.C, self.c, self.h))

    def turned(self, pattern: Bool[np.ndarray, " m"]) -> "System":
        """The same equation, with relu(-s) = relu(s) - s in the place of the relus that are in the pattern."""
        on = self.B * pattern
        sign = np.where(pattern, -1.0, 1.0)
        return System(self.G + on @ self.C, self.B, self.C * sign[:, None], self.c * sign, self.h + on @ self.c)

    def regular(self) -> tuple["System", np.ndarray] | None:
        """The equation turned at a pattern (m,) at which G is regular, and this pattern. `None` if none was found."""
        m, random = len(self.c), np.random.default_rng(0)
        patterns = [np.zeros(m, bool), np.ones(m, bool), *(random.random((6, m)) < 0.5)]
        for pattern in patterns:
            one = self.turned(pattern)
            if _reciprocal_condition(one.G) > 1e-12:
                return one, pattern
        return None

    def complementary(self) -> tuple[Float[np.ndarray, "m m"], Float[np.ndarray, " m"]]:
        """(M, q) of the linear complementarity problem w = M r + q, r >= 0, w >= 0, r.w = 0, with r = relu(s), w = relu(-s).

        Every solution of it is one of this equation, and the other way round (Cottle, Pang and Stone, *The Linear
        Complementarity Problem*, 1992).
        """
        found = np.linalg.solve(self.G, np.column_stack([self.B, self.h]))
        over = self.C @ found
        return np.eye(len(self.c)) + over[:, :-1], over[:, -1] - self.c

    def solved(self, patterns: Bool[np.ndarray, "p m"]) -> tuple[np.ndarray, np.ndarray]:
        """The solutions (p, N) of the linear equations in the regions of patterns (p, m), and their errors (p, N).

        The errors are infinite if the equation is singular.
        """
        parts = [self._solved(some) for some in np.array_split(patterns, max(1, len(patterns) * len(self.G) ** 2 // 2**22))]
        return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

    def _solved(self, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        on = self.B * patterns[:, None, :]
        J, right = self.G + on @ self.C, -(self.h + on @ self.c)
        with np.errstate(all="ignore"):
            try:
                x = np.linalg.solve(J, right[..., None])[..., 0]
                # One correction shows the error of the solution.
                step = np.linalg.solve(J, (right - (J @ x[..., None])[..., 0])[..., None])[..., 0]
            except np.linalg.LinAlgError:
                if len(J) > 1:
                    halves = [self._solved(some) for some in np.array_split(patterns, 2)]
                    return np.concatenate([one for one, _ in halves]), np.concatenate([one for _, one in halves])
                return np.zeros(right.shape), np.full(right.shape, np.inf)
            size = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
            bad = ~(np.abs(step).max(axis=1, keepdims=True, initial=0.0) <= SINGULAR * size) & (size > 0)
        return np.where(bad, 0.0, x + step), np.where(bad, np.inf, np.abs(step) + np.finfo(float).eps * size)

    def signals(self, x: np.ndarray) -> np.ndarray:
        """s = C x + c (p, m) at states (p, N)."""
        return x @ self.C.T + self.c

    def signs(self, x: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The signs (p, m) of the signals at states (p, N) with errors (p, N): zero for those within rounding errors."""
        s = x @ self.C.T + self.c
        rough = ROUNDINGS * np.finfo(float).eps * (np.abs(x) @ np.abs(self.C).T + np.abs(self.c))
        with np.errstate(invalid="ignore"):
            rough = rough + ROUNDINGS / 16 * np.where(np.isfinite(error), error, 0.0) @ np.abs(self.C).T
        return np.where(np.abs(s) <= rough, 0, np.sign(s)).astype(int)

    def residual(self, x: np.ndarray) -> np.ndarray:
        """The left side (p, N) of the equation at states (p, N)."""
        return x @ self.G.T + np.maximum(x @ self.C.T + self.c, 0.0) @ self.B.T + self.h


def _reciprocal_condition(matrix: np.ndarray) -> float:
    """An estimate of the reciprocal of the condition number in the 1-norm, which costs a third of an inverse."""
    lapack: Any = scipy.linalg.lapack
    factors, _, failed = lapack.dgetrf(matrix)
    return 0.0 if failed else float(lapack.dgecon(factors, np.abs(matrix).sum(axis=0).max())[0])
