"""The Jacobian split at a critical mode: what of it lies along the mode, how well that is predicted, and its top."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from ssntk.collapse.law import Carried
from ssntk.collapse.mode import Mode
from ssntk.errors import NumericalError
from ssntk.kernel.top import Leading, leading, smaller_gram

# How far, relatively, a predicted channel may lie from the measured one and still be called its prediction.
AGREES = 0.1
# How well the top state direction must lie along the critical one where nothing is predicted.
ALIGNED = 0.9


class Scaled(NamedTuple):
    """Weighted rows of J (B T, n, p) in double precision, over a `scale`: 1, or their largest entry if squares of the
    entries would vanish or overflow."""

    values: np.ndarray
    scale: float

    @property
    def flat(self) -> np.ndarray:
        """(B T n, p)."""
        return self.values.reshape(-1, self.values.shape[-1])

    @staticmethod
    def of(rows: np.ndarray, n: int) -> "Scaled":
        """Raises `NumericalError` if all are zero."""
        largest = float(max(rows.max(initial=0.0), -rows.min(initial=0.0)))
        if largest == 0:
            raise NumericalError("nothing answers to theta along these trajectories: their kernel is zero")
        # Copies of J are dear.
        scale = 1.0 if 1e-100 < largest < 1e100 else largest
        values = np.asarray(rows, float).reshape(-1, n, rows.shape[-1])
        return Scaled(values if scale == 1 else values / scale, scale)


class Plane(NamedTuple):
    """The critical directions, span(Re r, Im r): an orthonormal `basis` (n, k), k = 1 or, for a pair, 2, and what takes a
    coordinate's real and imaginary part to it, `to_basis` (k, k)."""

    basis: Float[np.ndarray, "n k"]
    to_basis: Float[np.ndarray, "k k"]

    @staticmethod
    def of(mode: Mode) -> "Plane":
        right, real = mode.right, complex(mode.value).imag == 0
        span = right.real[:, None] if real else np.stack([right.real, -right.imag], axis=1)
        basis, to_basis = np.linalg.qr(span)
        return Plane(basis, to_basis if real else 2 * to_basis)

    def part(self, coordinate: Complex[np.ndarray, "BT p"]) -> Float[np.ndarray, "BT k p"]:
        """r c, or 2 Re(r c) for a pair, in the basis, for the mode's coordinate c."""
        both = [coordinate.real] if self.basis.shape[1] == 1 else [coordinate.real, coordinate.imag]
        return np.einsum("kl,lbp->bkp", self.to_basis, np.stack(both))


class Critical(NamedTuple):
    """What of J belongs to a mode, in the basis of its plane.

    `inside` (B T, k, p): the orthogonal projection. `part` (B T, k, p): the oblique one, Pi J. `total`: |J|^2. `size`:
    |Pi J|.
    """

    inside: np.ndarray
    part: np.ndarray
    total: float
    size: float

    @staticmethod
    def of(rows: Scaled, plane: Plane, mode: Mode) -> "Critical":
        # All that is asked of J in one walk through it.
        asked = np.stack([*plane.basis.T, mode.left.real, mode.left.imag])
        *inside, real, imag = np.moveaxis(asked @ rows.values, 1, 0)
        part = plane.part(real + 1j * imag)
        return Critical(np.stack(inside, axis=1), part, square(rows.values), square(part) ** 0.5)

    def misses(self, guess: np.ndarray) -> float:
        """How far a predicted part lies from the measured one, relative to that."""
        # A mode that does not answer at all is predicted by zero.
        nothing = 1e-9 * self.total**0.5
        if self.size > nothing:
            return square(guess - self.part) ** 0.5 / self.size
        return float(square(guess) ** 0.5 > nothing)

    @property
    def share(self) -> float:
        return square(self.inside) / self.total

    @property
    def oblique_share(self) -> float:
        return self.size**2 / self.total

    @property
    def cross_share(self) -> float:
        return 2 * (float(np.sum(self.inside * self.part)) - self.size**2) / self.total


class Top(NamedTuple):
    """The top of the kernel: its eigenvalue, in units of the rows' scale squared, and its directions among the states (n,)
    and among the parameters (p,)."""

    value: float
    state: np.ndarray
    parameters: np.ndarray

    @staticmethod
    def of(rows: Scaled, known: Leading | None) -> "Top":
        """`known`: the first eigenpairs of the smaller Gram matrix of the rows as they were, if they are known."""
        flat, unit = rows.flat, rows.scale * rows.scale
        value, vector = first(flat) if known is None else (float(known.values[0]) / unit, known.vectors[:, 0])
        lefts, rights = _sides(flat, vector)
        state = np.linalg.svd(lefts.reshape(-1, rows.values.shape[1]), full_matrices=False)[2][0]
        return Top(value, state, rights)


def predictions(weights: np.ndarray, carried: Carried, scale: float) -> dict[str, Complex[np.ndarray, "BT p"]]:
    """Weighted predictions of l^T J by the method that makes them, in units of the rows' scale."""
    coordinates = np.asarray(carried.coordinates)
    weighted = coordinates * np.sqrt(weights)[..., None, None]
    p = coordinates.shape[-1]
    found = {name: weighted[:, :, i].reshape(-1, p) for i, name in enumerate(("fixed point", "averaged"))}
    return {name: coordinate.astype(complex) / scale for name, coordinate in found.items()}


def method_of(off: dict[str, float], alignment: float) -> tuple[str, str]:
    """The first method whose prediction fits, and why."""
    for name, mismatch in off.items():
        if mismatch <= AGREES:
            refused = [
                f"the {other} prediction is {off[other]:.2g} off" for other in off if other != name and off[other] > AGREES
            ]
            return name, f"the critical part of J is within {mismatch:.2g} of its {name} prediction" + (
                f"; {refused[0]}" if refused else ""
            )
    missed = " and ".join(f"{mismatch:.2g} ({name})" for name, mismatch in off.items())
    if alignment >= ALIGNED:
        return "singular pair", (
            f"the critical part of J is not as predicted, by {missed} of its size, but the top state direction lies along "
            f"the critical one (cosine {alignment:.3f})"
        )
    return "none", (
        f"these trajectories have no channel of this mode: the critical part of J is not as predicted, by {missed} of its "
        f"size, and the top state direction has a cosine of only {alignment:.3f} with the critical one; start nearer to x*, "
        "or with smaller inputs"
    )


def square(array: np.ndarray) -> float:
    """The sum of squares."""
    flat = array.ravel()
    return float(flat @ flat)


def first(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of rows rows^T, and its eigenvector of the smaller Gram matrix."""
    scale = float(np.abs(rows).max()) or 1.0
    found = leading(smaller_gram(rows / scale), 1)
    return float(found.values[0]) * scale**2, found.vectors[:, 0]


def _sides(rows: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The top singular vectors, left and right, from the one that is an eigenvector of the smaller Gram matrix."""
    few = len(rows) <= rows.shape[1]
    other = (rows.T if few else rows) @ vector
    other = other / (np.linalg.norm(other) or 1.0)
    return (vector, other) if few else (other, vector)
