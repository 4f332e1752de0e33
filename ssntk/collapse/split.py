"""Split a parameter Jacobian J at a critical mode: the part along the mode, how well it is predicted, and the top of J."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from ssntk.collapse.law import Carried
from ssntk.collapse.mode import Mode
from ssntk.errors import NumericalError
from ssntk.kernel.top import Leading, leading, smaller_gram

# A prediction holds if its relative distance from the measured channel is at most this.
AGREES = 0.1
# If no prediction holds, |cos| of the top state direction and the critical one must be at least this.
ALIGNED = 0.9


class Scaled(NamedTuple):
    """Weighted rows of J, `values` (B T, n, p) in double precision, divided by `scale`. It is 1, or the largest entry if
    squares of the entries would underflow or overflow."""

    values: np.ndarray
    scale: float

    @property
    def flat(self) -> np.ndarray:
        """The rows as (B T n, p)."""
        return self.values.reshape(-1, self.values.shape[-1])

    @staticmethod
    def of(rows: np.ndarray, n: int) -> "Scaled":
        """Scale rows (B T n, p) of n states each. Raises `NumericalError` if all are zero."""
        largest = float(max(rows.max(initial=0.0), -rows.min(initial=0.0)))
        if largest == 0:
            raise NumericalError("nothing answers to theta along these trajectories: their kernel is zero")
        # Scale only if needed, since J is large and scaling copies it.
        scale = 1.0 if 1e-100 < largest < 1e100 else largest
        values = np.asarray(rows, float).reshape(-1, n, rows.shape[-1])
        return Scaled(values if scale == 1 else values / scale, scale)


class Plane(NamedTuple):
    """The critical directions span(Re r, Im r): an orthonormal `basis` (n, k), with k = 1, or 2 for a pair.

    `to_basis` (k, k): takes the real and imaginary part of a mode's coordinate to this basis.
    """

    basis: Float[np.ndarray, "n k"]
    to_basis: Float[np.ndarray, "k k"]

    @staticmethod
    def of(mode: Mode) -> "Plane":
        right, real = mode.right, complex(mode.value).imag == 0
        span = right.real[:, None] if real else np.stack([right.real, -right.imag], axis=1)
        basis, to_basis = np.linalg.qr(span)
        return Plane(basis, to_basis if real else 2 * to_basis)

    def part(self, coordinate: Complex[np.ndarray, "BT p"]) -> Float[np.ndarray, "BT k p"]:
        """r c, or for a pair 2 Re(r c), in the basis, from the mode's coordinate c."""
        both = [coordinate.real] if self.basis.shape[1] == 1 else [coordinate.real, coordinate.imag]
        return np.einsum("kl,lbp->bkp", self.to_basis, np.stack(both))


class Critical(NamedTuple):
    """The part of J that belongs to a mode, in the basis of its plane.

    `inside` (B T, k, p): the orthogonal projection of J. `part` (B T, k, p): the oblique projection Pi J. `total`: |J|^2.
    `size`: |Pi J|.
    """

    inside: np.ndarray
    part: np.ndarray
    total: float
    size: float

    @staticmethod
    def of(rows: Scaled, plane: Plane, mode: Mode) -> "Critical":
        # Compute all projections in one pass over J, which is large.
        asked = np.stack([*plane.basis.T, mode.left.real, mode.left.imag])
        *inside, real, imag = np.moveaxis(asked @ rows.values, 1, 0)
        part = plane.part(real + 1j * imag)
        return Critical(np.stack(inside, axis=1), part, square(rows.values), square(part) ** 0.5)

    def misses(self, guess: np.ndarray) -> float:
        """The distance between a predicted part and the measured one, relative to the latter."""
        # If the measured part is zero, the prediction must be zero too.
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
    """The top eigenvalue of the kernel, in units of the rows' scale squared, with its direction in the states (n,) and its
    direction in the parameters (p,)."""

    value: float
    state: np.ndarray
    parameters: np.ndarray

    @staticmethod
    def of(rows: Scaled, known: Leading | None) -> "Top":
        """`known`: the first eigenpairs of the smaller Gram matrix of the unscaled rows, if they are known."""
        flat, unit = rows.flat, rows.scale * rows.scale
        value, vector = first(flat) if known is None else (float(known.values[0]) / unit, known.vectors[:, 0])
        lefts, rights = _sides(flat, vector)
        state = np.linalg.svd(lefts.reshape(-1, rows.values.shape[1]), full_matrices=False)[2][0]
        return Top(value, state, rights)


def predictions(weights: np.ndarray, carried: Carried, scale: float) -> dict[str, Complex[np.ndarray, "BT p"]]:
    """The weighted predictions (B T, p) of l^T J for each method, in units of the rows' scale."""
    coordinates = np.asarray(carried.coordinates)
    weighted = coordinates * np.sqrt(weights)[..., None, None]
    p = coordinates.shape[-1]
    found = {name: weighted[:, :, i].reshape(-1, p) for i, name in enumerate(("fixed point", "averaged"))}
    return {name: coordinate.astype(complex) / scale for name, coordinate in found.items()}


def method_of(off: dict[str, float], alignment: float) -> tuple[str, str]:
    """The first method whose prediction fits, and the reason."""
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
    """The largest eigenvalue of rows rows^T, and the corresponding eigenvector of the smaller Gram matrix."""
    scale = float(np.abs(rows).max()) or 1.0
    found = leading(smaller_gram(rows / scale), 1)
    return float(found.values[0]) * scale**2, found.vectors[:, 0]


def _sides(rows: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left and right top singular vectors, from the one of them that is an eigenvector of the smaller Gram matrix."""
    few = len(rows) <= rows.shape[1]
    other = (rows.T if few else rows) @ vector
    other = other / (np.linalg.norm(other) or 1.0)
    return (vector, other) if few else (other, vector)
