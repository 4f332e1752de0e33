"""The eigenvalues of a kernel, what follows from them, and the floor below which they are rounding errors."""

import dataclasses
from typing import Any

import numpy as np
import scipy
import scipy.linalg
import scipy.special
from jaxtyping import Float

from ssntk.errors import NumericalError, as_array, as_count, as_scalar
from ssntk.notices import warn
from ssntk.nouns import Real
from ssntk.precision import PrecisionWarning
from ssntk.results import Result, Table, counted, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Result):
    """The eigenvalues of a kernel K, and what follows from them.

    - `eigenvalues` (N,): descending, for N rows. If K = J J^T has more rows than parameters, the surplus is exactly zero.
    - `floor`: the rounding error of an eigenvalue, relative to the first eigenvalue. It is `(max(rows, p) eps)^2` if the
      eigenvalues come from the singular values of J, and `N eps` if they come from K itself. An eigenvalue below
      `floor * eigenvalues[0]` is noise. The floor does not include the error of the solve.
    - `eigenvectors` (rows, k): columns, for the first k = min(rows, p) eigenvalues. `None` if they were not requested.
    - `rest`: what is known of the other eigenvalues, if only the top k were requested; else `None`. With the top k,
      `eigenvalues` is (k,), and `rank`, `condition_number`, `condition_number_on_rank` and `effective_rank` are `None`.

    If K is zero, the rank is 0 and every ratio is NaN.

    **Example:**

    ```python
    spectrum = ssntk.Spectrum.from_jacobian([[3.0, 0.0], [0.0, 4.0]])
    print(spectrum.eigenvalues.round(6), round(float(spectrum.participation_ratio), 6))  # [16.  9.] 1.854599
    ```
    """

    eigenvalues: Float[np.ndarray, " N"]
    floor: float
    eigenvectors: Float[np.ndarray, "rows k"] | None
    structural_zeros: int
    rest: "Rest | None" = None

    def _headline(self) -> str:
        count = counted(self.eigenvalues.size, "eigenvalue")
        known = f"the top {count}" if self.rest is not None else f"{count}, {self.rank} above the floor"
        return f"Spectrum: {known}; participation ratio {short(self.participation_ratio)}, top share {short(self.top_share)}"

    def _tables(self) -> list[Table]:
        names = ("trace", "trace_error", "condition_number", "condition_number_on_rank", "effective_rank", "spectral_bias")
        bound = ", at least" if self.condition_number_is_bound else ""
        rows = [("eigenvalues", ", ".join(short(value) for value in self.eigenvalues[:6]))]
        rows += [(name.replace("_", " "), short(getattr(self, name))) for name in (*names, "max_learning_rate", "floor")]
        shown = [(name + bound * (name == "condition number"), value) for name, value in rows if value != "None"]
        with_vectors = "refused" if self.eigenvectors is None else short(self.eigenvectors)
        return [Table((), [*shown, ("eigenvectors", with_vectors)])]

    @staticmethod
    def from_jacobian(jacobian: Any, *, eigenvectors: bool = True) -> "Spectrum":
        """The spectrum of K = J J^T, from the singular values of J.

        **Arguments:** `jacobian`: (..., p); all axes but the last are rows. `eigenvectors`: whether to compute
        them, which takes about three times as long.

        Raises `ValueError` if J is not a finite array of at least two dimensions.
        """
        array = as_array(jacobian, "jacobian")
        if array.ndim < 2 or array.size == 0:
            raise ValueError(f"jacobian must have shape (..., p) and not be empty, got {array.shape}")
        matrix = np.asarray(array).reshape(-1, array.shape[-1])
        rows, p = matrix.shape
        # LAPACK's driver on the host is several times faster than JAX's, and compiles nothing.
        scale = np.abs(matrix).max() or 1.0
        try:
            if eigenvectors:
                vectors, values, _ = scipy.linalg.svd(matrix / scale, full_matrices=False, check_finite=False)
            else:
                vectors, values = None, np.asarray(scipy.linalg.svdvals(matrix / scale, check_finite=False))
        except np.linalg.LinAlgError as error:
            raise NumericalError(f"the singular values of the Jacobian did not converge: {error}") from error
        eigenvalues = np.zeros(rows, matrix.dtype)
        top = float(values[0]) * float(scale)
        limits = np.finfo(matrix.dtype)
        if top > 0 and not float(limits.tiny) ** 0.5 < top < float(limits.max) ** 0.5:
            raise NumericalError(
                f"the kernel's largest eigenvalue, {top:.3g} squared, is beyond the range of {matrix.dtype}"
            )
        eigenvalues[: values.size] = (values * scale) ** 2
        floor = float((max(rows, p) * np.finfo(matrix.dtype).eps) ** 2)
        _warn_of_noise(eigenvalues, floor, min(int(matrix.any(axis=1).sum()), p))
        return Spectrum(eigenvalues, floor, vectors, max(rows - p, 0))

    @staticmethod
    def from_kernel(kernel: Any, *, eigenvectors: bool = True) -> "Spectrum":
        """The spectrum of a given kernel (N, N). If you have J, use `from_jacobian`, which resolves far smaller eigenvalues.

        Raises `ValueError` if K is not a finite, symmetric, positive semidefinite matrix to rounding.
        """
        array = as_array(kernel, "kernel", ("N", "N"))
        if array.shape[0] != array.shape[1] or array.size == 0:
            raise ValueError(f"kernel must be square and not empty, got {array.shape}")
        matrix = np.asarray(array)
        eps, scale = np.finfo(matrix.dtype).eps, float(np.abs(matrix).max()) or 1.0
        # A kernel that was computed in products of length p is symmetric only to their rounding error.
        if np.abs(matrix - matrix.T).max() > np.sqrt(eps) * scale:
            raise ValueError("kernel must be symmetric")
        symmetric = (matrix + matrix.T) / (2 * scale)
        if eigenvectors:
            values, vectors = np.linalg.eigh(symmetric)
        else:
            values, vectors = np.linalg.eigvalsh(symmetric), None
        if values[0] < -np.sqrt(eps) * max(values[-1], 0.0):
            raise ValueError(f"kernel must be positive semidefinite, got the eigenvalue {values[0] * scale:g}")
        eigenvalues = np.maximum(values[::-1], 0.0) * scale
        _warn_of_noise(eigenvalues, float(matrix.shape[0] * eps), int(matrix.any(axis=1).sum()))
        kept = None if vectors is None else vectors[:, ::-1]
        return Spectrum(eigenvalues, float(matrix.shape[0] * eps), kept, 0)

    @property
    def trace(self) -> np.floating:
        """tr K."""
        return self.eigenvalues.sum() if self.rest is None else self.rest.trace

    @property
    def trace_error(self) -> np.floating:
        """The standard error of `trace` if it was estimated; 0 if it is exact."""
        return self._number(0) if self.rest is None else self.rest.trace_error

    @property
    def rank(self) -> int | None:
        """How many eigenvalues stand above the floor; 0 for the zero kernel."""
        if self.rest is not None:
            return None
        values = np.asarray(self.eigenvalues)
        return int((values > self.floor * values[0]).sum())

    @property
    def condition_number(self) -> np.floating | None:
        """lambda_1 / lambda_N. If lambda_N lies below the floor, it is `1 / floor`, which is only a lower bound.

        It is infinite if K has more rows than parameters, or is zero.
        """
        if self.rest is not None:
            return None
        first, last = self.eigenvalues[0], self.eigenvalues[-1]
        if self.structural_zeros > 0 or first == 0:
            return self._number(np.inf)
        return first / last if self.rank == self.eigenvalues.size else self._number(1 / self.floor)

    @property
    def condition_number_is_bound(self) -> bool:
        """Whether `condition_number` is only a lower bound."""
        condition, rank = self.condition_number, self.rank
        return condition is not None and rank is not None and bool(np.isfinite(condition)) and rank < self.eigenvalues.size

    @property
    def condition_number_on_rank(self) -> np.floating | None:
        """The first eigenvalue over the last one above the floor."""
        if self.rank is None:
            return None
        with np.errstate(invalid="ignore"):
            return self.eigenvalues[0] / self.eigenvalues[max(self.rank - 1, 0)]

    @property
    def effective_rank(self) -> np.floating | None:
        """The exponential of the entropy of the normalised eigenvalues (Roy and Vetterli, 2007): between 1 and the rank."""
        if self.rest is not None:
            return None
        share = self._share()
        return np.exp(scipy.special.entr(share).sum())

    @property
    def spectral_bias(self) -> np.floating | None:
        """1 - geometric mean / arithmetic mean of the eigenvalues above the floor.

        It is 0 if all modes are learned at one rate, and comes nearer to 1 the more their rates differ.
        """
        if self.rank is None:
            return None
        if self.rank == 0:
            return self._number(np.nan)
        relative = self.eigenvalues[: self.rank] / self.eigenvalues[0]
        return 1 - np.exp(np.mean(np.log(relative))) / np.mean(relative)

    @property
    def participation_ratio(self) -> np.floating:
        """(tr K)^2 / tr K^2: between 1 and the rank. It may be estimated if only the top k were requested."""
        if self.rest is not None:
            with np.errstate(invalid="ignore"):
                return self.rest.trace**2 / self.rest.square_trace
        return 1 / np.sum(self._share() ** 2)

    @property
    def participation_ratio_error(self) -> np.floating:
        """The standard error of `participation_ratio` if it was estimated; 0 if it is exact."""
        if self.rest is None:
            return self._number(0)
        return self.participation_ratio * self.rest.ratio_error

    @property
    def top_share(self) -> np.floating:
        """lambda_1 / tr K."""
        return self._share()[0]

    def share(self, k: int) -> np.floating:
        """(lambda_1 + ... + lambda_k) / tr K."""
        return self._share()[: as_count(k, "k", least=0)].sum()

    def effective_dimension(self, gamma: Any) -> np.floating:
        """The sum of lambda_i / (lambda_i + gamma), for a ridge `gamma` > 0 in the units of K.

        Raises `ValueError` if only the top k eigenvalues are known.
        """
        if self.rest is not None:
            raise ValueError("the effective dimension needs every eigenvalue: ask for the spectrum without k")
        ridge = self._number(as_scalar(gamma, "gamma", positive=True))
        return np.sum(self.eigenvalues / (self.eigenvalues + ridge))

    @property
    def max_learning_rate(self) -> np.floating:
        """2 / lambda_1. Above it, gradient descent on the loss |residual|^2 / 2 diverges, if the kernel does not move."""
        with np.errstate(divide="ignore"):
            return 2 / self.eigenvalues[0]

    def filter(self, residual: Any, k: int) -> Float[np.ndarray, " N"]:
        """The part of `residual` (N,) in the span of the first `k` eigenvectors, which is learned first: (N,)."""
        vectors = self._vectors()[:, : as_count(k, "k", least=0)]
        return vectors @ (vectors.T @ self._residual(residual))

    def mode_errors(self, residual: Any, learning_rate: Any, steps: Any) -> Float[np.ndarray, "*steps k"]:
        """What is left of `residual` (N,) along each eigenvector after `steps` of gradient descent, if the kernel is frozen.

        **Arguments:** `learning_rate`: eta > 0, for the loss |residual|^2 / 2. `steps`: a count, or an array of counts.

        **Returns:** `(1 - eta lambda_i)^steps q_i.residual`, (k,) or (*steps, k).
        """
        rate = self._number(as_scalar(learning_rate, "learning_rate", positive=True))
        counts = np.asarray(as_array(steps, "steps"), self.eigenvalues.dtype)
        vectors = self._vectors()
        start = vectors.T @ self._residual(residual)
        each = counts.reshape(-1, 1)
        pace = (rate * self.eigenvalues[: vectors.shape[1]])[None]
        # A mode that overshoots changes sign at every step.
        sign = np.where((pace > 1) & (each % 2 == 1), -1, 1).astype(pace.dtype)
        # A mode that diverges becomes infinite, as it should, unless the residual has no part in it. For a slow mode,
        # 1 - eta lambda would be rounded, and the error would grow with the steps. So logarithms are used.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            slow = np.exp(each * np.log1p(-np.minimum(pace, 0.5)))
            errors = sign * np.where(pace < 0.5, slow, np.abs(1 - pace) ** each) * start[None]
        return errors.reshape(*counts.shape, -1)

    def predicted_loss(self, residual: Any, learning_rate: Any, steps: Any) -> Float[np.ndarray, "*steps"] | np.floating:
        """The loss |residual|^2 / 2 after `steps` of gradient descent, if the kernel is frozen.

        Arguments are as in `mode_errors`. The part of the residual outside the eigenvectors is not learned. If only the top
        k are known, the loss is therefore an upper bound.
        """
        with np.errstate(over="ignore"):
            left = np.sum(np.square(self.mode_errors(residual, learning_rate, steps)), axis=-1)
        outside = self._residual(residual)
        outside = outside - self._vectors() @ (self._vectors().T @ outside)
        return (left + np.sum(np.square(outside))) / 2

    def steps_to_tolerance(self, learning_rate: Any, tol: Any) -> Float[np.ndarray, " N"]:
        """How many steps of gradient descent each mode takes to fall by the factor `tol`, which lies in (0, 1): (N,).

        That is `ln(1 / tol) / -ln|1 - eta lambda|`; infinite for a mode that does not decay.
        """
        rate = self._number(as_scalar(learning_rate, "learning_rate", positive=True))
        wanted = self._number(as_scalar(tol, "tol", positive=True))
        if float(wanted) >= 1:
            raise ValueError(f"tol must lie between 0 and 1, got {float(wanted):g}")
        pace = self.eigenvalues * rate
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # For a slow mode, 1 - eta lambda would be rounded to one.
            steps = -np.log(wanted) / -_log_decay(pace)
            return np.where((pace > 0) & (pace < 2), steps, np.inf)

    def decay_exponent(self, first: Any = 1, last: Any = None) -> tuple[float, tuple[float, float]]:
        """(alpha, its 95 % interval) of the power law `lambda_i ~ i^-alpha`, by least squares of log lambda on log i.

        **Arguments:** `first`, `last`: the modes that are fitted, counted from 1; default all above the floor.

        The interval is that of the regression. It takes the residuals as independent, which they are not if the spectrum is
        smooth. Raises `ValueError` if fewer than three of these modes lie above the floor.
        """
        values = np.asarray(self.eigenvalues)
        above = int((values > self.floor * values[0]).sum())
        begin = as_count(first, "first")
        end = min(above, above if last is None else as_count(last, "last"))
        if end - begin + 1 < 3:
            raise ValueError(f"first and last must leave at least three modes above the floor, of which there are {above}")
        fit: Any = scipy.stats.linregress(np.log(np.arange(begin, end + 1)), np.log(values[begin - 1 : end]))
        half = float(scipy.stats.t.ppf(0.975, end - begin - 1) * fit.stderr)
        return -float(fit.slope), (-float(fit.slope) - half, -float(fit.slope) + half)

    def slow_modes(self, learning_rate: Any, steps: Any, tol: Any) -> np.ndarray:
        """The modes (counted from 0) that have not fallen by the factor `tol` after `steps` steps of gradient descent."""
        return np.flatnonzero(np.asarray(self.steps_to_tolerance(learning_rate, tol)) > as_count(steps, "steps", least=0))

    def _vectors(self) -> np.ndarray:
        if self.eigenvectors is None:
            raise ValueError("eigenvectors were refused when this spectrum was computed")
        return self.eigenvectors

    def _residual(self, residual: object) -> np.ndarray:
        return np.asarray(as_array(residual, "residual", (self._vectors().shape[0],)), self.eigenvalues.dtype)

    def _number(self, value: Real) -> np.floating:
        """`value` in the dtype of the eigenvalues."""
        return self.eigenvalues.dtype.type(value)

    def _share(self) -> np.ndarray:
        # Everything is divided by the first eigenvalue before it is summed or squared, so that nothing over- or underflows.
        with np.errstate(invalid="ignore"):
            relative = self.eigenvalues / self.eigenvalues[0]
            return relative / (relative.sum() if self.rest is None else self.rest.trace / self.eigenvalues[0])


def _log_decay(pace: np.ndarray) -> np.ndarray:
    """ln|1 - pace| for numbers between 0 and 2. It is exact to rounding near 0 and near 2 too."""
    return np.where(pace < 1, np.log1p(-np.minimum(pace, 1.0)), np.log1p(np.maximum(pace, 1.0) - 2))


def _warn_of_noise(eigenvalues: np.ndarray, floor: float, count: int) -> None:
    """Warn if some of the first `count` eigenvalues, which are not zero by construction, are single precision's rounding."""
    noise = count - int((eigenvalues > floor * eigenvalues[0]).sum())
    if eigenvalues.dtype == np.float32 and noise > 0 and eigenvalues[0] > 0:
        warn(
            f"in float32 the last {noise} of {count} eigenvalues are rounding: below {floor:.1g} of the first nothing is "
            "known; float64 (jax_enable_x64) sees further",
            PrecisionWarning,
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rest(Result):
    """What is known of a kernel if only its top eigenvalues were computed.

    - `trace`, `square_trace`: tr K and tr K^2.
    - `trace_error`: the standard error of `trace`; 0 if it is exact.
    - `ratio_error`: the relative standard error of (tr K)^2 / tr K^2.
    """

    trace: np.floating
    square_trace: np.floating
    trace_error: np.floating
    ratio_error: np.floating
