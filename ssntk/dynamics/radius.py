"""The stability radius: the smallest change of the Jacobian that makes it unstable, and at which frequency."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.dynamics.metric import as_metric, in_metric
from ssntk.dynamics.stability import sorted_eigenvalues
from ssntk.errors import as_array, is_traced
from ssntk.models.clock import AbstractClock, Continuous, Steps, as_clock
from ssntk.nouns import AnyArray
from ssntk.precision import watch_precision

# Rounding moves eigenvalues of the level set off the edge. Those within this distance, relative to the size of the matrix,
# are therefore examined too. Each is verified, so that a generous value only costs time.
NEAR_EDGE = 1e-5
# A minimum is proved to be global by a level this fraction below it.
MARGIN = 1e-11


def stability_radius(A: Any, *, dt: Any = None, scale: Any = None) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The distance, in the spectral norm, from a matrix to the nearest one with an eigenvalue on the edge of stability.

    It is `min_w sigma_min(i w - A)`. No smaller complex change of A moves an eigenvalue onto the imaginary axis, and one
    change of this size does (Van Loan, *Contemporary Mathematics* 47, 1985). It equals |spectral abscissa| for normal A, and
    is less for others. The minimum is proved to be the global one, to 11 digits, by the level set of a Hamiltonian matrix
    (Boyd and Balakrishnan, *Systems and Control Letters* 15, 1990; Bruinsma and Steinbuch, ibid. 14, 1990), for maps of a
    symplectic pencil.

    It is computed on the host, under `jit`, `vmap` and `grad` too. Both results have first derivatives if the smallest
    singular value is simple: `dr = -Re(u^H dA v)` with its singular vectors u and v. They have no second derivatives.

    **Arguments:**

    - `A`: (..., n, n) real matrices, in units of 1 / time.
    - `dt`: for maps x -> x + dt f with A = df/dx, their step, in units of time. The edge is then |1 + dt s| = 1, and
      `(exp(i w dt) - 1) / dt` replaces `i w`. Default: `None`, continuous time.
    - `scale`: (n,) or a number, positive, in units of the states: their metric. With D = diag(scale) the radius is that of
      D^-1 A D. Default: ones.

    **Returns:** `(r, omega)`, each (...). r is the distance, in units of A; if A is unstable, it is **negative**, minus the
    distance. omega >= 0 is a frequency at which the distance is attained, in rad per unit time.

    Raises `ValueError` if A does not consist of square matrices of finite real numbers, or if `dt` or `scale` is not
    positive. If A is traced and not finite, the result is NaN.

    **Example:**

    ```python
    radius, frequency = ssntk.stability_radius([[-1.0, 0.0], [0.0, -3.0]])
    print(radius.round(6), frequency.round(6))  # 1.0 0.0
    ```
    """
    matrices = as_array(A, "A")
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or matrices.shape[-1] == 0:
        raise ValueError(f"A must have shape (..., n, n), got {matrices.shape}")
    # Make the clock at compile time, since under jit its arrays would otherwise be traced.
    with jax.ensure_compile_time_eval():
        clock = as_clock(dt, "dt")
        metric = as_metric(scale, matrices.shape[-1])
    matrices = in_metric(matrices, metric)
    watch_precision(matrices.dtype)
    if is_traced(matrices):
        radius, frequency, _, _ = _touched(matrices, clock)
        return radius, frequency
    found = [nearest_edge(matrix, clock) for matrix in np.asarray(matrices).reshape(-1, *matrices.shape[-2:])]
    shape, dtype = matrices.shape[:-2], matrices.dtype
    radius, frequency = (np.reshape([getattr(one, name) for one in found], shape) for name in ("radius", "frequency"))
    return jax.device_put(radius.astype(dtype)), jax.device_put(frequency.astype(dtype))


class Edge(NamedTuple):
    """The point of the edge of stability that a matrix is nearest to: `(s(frequency) - A) right = |radius| left`.

    `left` and `right` are unit vectors (n,). `curvature`: the second derivative of the smallest singular value over the
    frequency.
    """

    radius: float
    frequency: float
    left: np.ndarray
    right: np.ndarray
    curvature: float
    # The derivatives of left and right over the frequency: sum_j q_j (q_j^H E' q) / (sigma - sigma_j), over the other
    # eigenvectors q_j of the Hermitian dilation.
    turning: tuple[np.ndarray, np.ndarray]


def nearest_edge(matrix: np.ndarray, clock: AbstractClock, values: np.ndarray | None = None) -> Edge:
    """The stability radius of a finite matrix (n, n), and where it is attained. `values` (n,): its eigenvalues, if known."""
    matrix = np.asarray(matrix, float)
    rates = clock.growth(sorted_eigenvalues(matrix) if values is None else values)
    # Start from the slowest modes and the ends, since the minimum usually lies next to one of these.
    slowest = rates[np.argsort(np.abs(rates.real), kind="stable")[:6]]
    starts = {*clock.ends, *np.abs(slowest.imag).tolist()}
    best = _descend(matrix, clock, min((smallest_at(matrix, clock, w), w) for w in starts)[1])
    scale = float(np.abs(matrix).sum(axis=1).max())
    while abs(best.radius) > 8 * np.finfo(float).eps * scale:
        crossings = _crossings(clock, matrix, (1 - MARGIN) * best.radius, scale)
        at = np.unique(np.concatenate([crossings, clock.ends]))
        lowest, w = min((smallest_at(matrix, clock, w), w) for w in (*at, *(at[1:] + at[:-1]) / 2))
        if lowest >= (1 - MARGIN / 2) * best.radius:
            break
        other = _descend(matrix, clock, w)
        # Stop if the gain is below the rounding error of singular values.
        if not other.radius < best.radius - np.finfo(float).eps * scale:
            break
        best = other
    return best._replace(radius=-best.radius) if rates[0].real > 0 else best


def local_minima(matrix: np.ndarray, clock: AbstractClock, below: float) -> list[Edge]:
    """The local minima of sigma_min over the frequency that lie below a level, the lowest first.

    Between each two crossings of the level at least one minimum is found. If there are several, only those that five points
    distinguish are found.
    """
    rounding = 4 * np.finfo(float).eps * float(np.linalg.norm(matrix))
    at = np.unique(np.concatenate([_crossings(clock, matrix, below, float(np.abs(matrix).sum(axis=1).max())), clock.ends]))
    grid = np.unique(np.concatenate([at, *(np.linspace(low, high, 7) for low, high in itertools.pairwise(at))]))
    sizes = np.array([smallest_at(matrix, clock, w) for w in grid])
    padded = np.concatenate([[np.inf], sizes, [np.inf]])
    found: list[Edge] = []
    for i in np.flatnonzero((sizes < below) & (sizes <= padded[:-2]) & (sizes <= padded[2:])):
        one = _descend(matrix, clock, _between(matrix, clock, grid[max(i - 1, 0)], grid[i], grid[min(i + 1, len(grid) - 1)]))
        # The error of a minimum's frequency: the distance at which its level rises by a rounding error.
        width = np.sqrt(rounding / one.curvature) if one.curvature > 0 else 0.0
        if all(abs(one.frequency - other.frequency) > 1e-6 * one.frequency + 8 * width for other in found):
            found.append(one)
    return sorted(found, key=lambda one: one.radius)


def attained_at(matrix: np.ndarray, clock: AbstractClock, touch: Edge, frequency: float) -> bool:
    """Whether the radius is attained at `frequency`, to within the error of the frequency at which it was found. That error
    follows from the rounding of singular values and from their curvature."""
    apart, rounding = abs(touch.frequency - frequency), 4 * np.finfo(float).eps * float(np.linalg.norm(matrix))
    if apart == 0:
        return True
    if touch.curvature > 0 and apart > 8 * np.sqrt(rounding / touch.curvature):
        return False
    return bool(smallest_at(matrix, clock, frequency) - abs(touch.radius) <= 32 * rounding)


def _between(matrix: np.ndarray, clock: AbstractClock, low: float, middle: float, high: float) -> float:
    """A frequency near the minimum between `low` and `high`, `middle` being lower than both, for Newton's iteration."""
    if low == middle or middle == high:
        return middle
    options = {"xatol": 1e-3 * (high - low)}
    found: Any = scipy.optimize.minimize_scalar(
        lambda w: smallest_at(matrix, clock, w), bounds=(low, high), method="bounded", options=options
    )
    return float(found.x)


def smallest_at(matrix: np.ndarray, clock: AbstractClock, frequency: float) -> float:
    """sigma_min(s(frequency) - A)."""
    real, imag = clock.edge(frequency)
    shifted = (real if imag == 0 else complex(real, imag)) * np.eye(len(matrix)) - matrix
    return float(np.linalg.svd(shifted, compute_uv=False)[-1])


@functools.singledispatch
def _crossings(clock: AbstractClock, matrix: np.ndarray, level: float, scale: float) -> np.ndarray:
    """All frequencies >= 0 at which a singular value of s(frequency) - A equals `level`, and perhaps some others.

    They are the eigenvalues on the edge of a Hamiltonian matrix for flows, of a symplectic pencil for maps.
    """
    raise NotImplementedError(f"the level sets of {type(clock).__name__} are not known")


@_crossings.register
def _(clock: Continuous, matrix: np.ndarray, level: float, scale: float) -> np.ndarray:
    identity = level * np.eye(len(matrix))
    values = np.linalg.eigvals(np.block([[matrix, identity], [-identity, -matrix.T]]))
    return np.abs(values.imag[np.abs(values.real) <= NEAR_EDGE * (scale + level)])


@_crossings.register
def _(clock: Steps, matrix: np.ndarray, level: float, scale: float) -> np.ndarray:
    n, dt = len(matrix), clock.dt
    identity = level * np.eye(n)
    step, zero = np.eye(n) + dt * matrix, np.zeros((n, n))
    left = np.block([[step, dt * identity], [zero, np.eye(n)]])
    right = np.block([[np.eye(n), zero], [dt * identity, step.T]])
    values = np.asarray(scipy.linalg.eigvals(left, right))
    near = np.abs(np.abs(values) - 1) <= NEAR_EDGE * (1 + dt * (scale + level))
    return np.abs(np.angle(values[near])) / dt


def _descend(matrix: np.ndarray, clock: AbstractClock, frequency: float) -> Edge:
    """Newton's iteration for the minimum of sigma_min over the frequency, from a frequency near it."""
    best, slope = _at(matrix, clock, frequency)
    top = clock.highest
    rounding = 4 * np.finfo(float).eps * float(np.linalg.norm(matrix))
    for _ in range(20):
        if best.curvature <= 0 or slope == 0:
            break
        step = -slope / best.curvature
        # sigma_min is even in the frequency, and for maps also symmetric about pi / dt.
        at = abs(best.frequency + step)
        at = float(2 * top - at if at > top else at)
        if at == best.frequency:
            break
        other, there = _at(matrix, clock, at)
        # If two levels agree to rounding, the point with the smaller slope is nearer to the minimum.
        level = other.radius - best.radius
        if level > 0 and not (level < rounding and abs(there) < abs(slope)):
            break
        best, slope = other, there
        # The level changes by no more than the frequency does, so that smaller steps change nothing.
        if abs(step) <= 1e-15 * (best.frequency + best.radius):
            break
    return best


def _at(matrix: np.ndarray, clock: AbstractClock, frequency: float) -> tuple[Edge, float]:
    """The smallest singular value of s(frequency) - A with its vectors and their derivatives, and its own derivative."""
    n = len(matrix)
    real, imag = clock.edge(frequency)
    lefts, sizes, rights = np.linalg.svd(complex(real, imag) * np.eye(n) - matrix)
    rights = rights.conj().T
    left, right, size = lefts[:, -1], rights[:, -1], sizes[-1]
    # ds/dw and d2s/dw2 of the edge s(w).
    turn, turning_on = clock.edge_slopes(frequency)
    first, second = turn * right, np.conj(turn) * left
    bend = turn * turning_on * (left.conj() @ right)
    # Eigenpairs (u_j, v_j), sigma_j and (u_j, -v_j), -sigma_j of the Hermitian dilation.
    across, along = lefts.conj().T @ first, rights.conj().T @ second
    # If singular values coincide, the derivative does not exist: leave their terms out.
    apart = [np.where(gap == 0, np.inf, gap) for gap in (size - sizes, size + sizes)]
    plus, minus = (across + along) / 2 / apart[0], (across - along) / 2 / apart[1]
    turning = lefts @ (plus + minus) / 2, rights @ (plus - minus) / 2
    curvature = bend.real + 2 * float((first.conj() @ turning[0] + second.conj() @ turning[1]).real)
    return Edge(float(size), float(frequency), left, right, float(curvature), turning), float((left.conj() @ first).real)


def _host(matrices: AnyArray, clock: AbstractClock) -> tuple[np.ndarray, ...]:
    """Radii and frequencies (...) of matrices (..., n, n), and their gradients (..., n, n)."""
    matrices = np.asarray(matrices)
    shape, n = matrices.shape[:-2], matrices.shape[-1]
    parts = []
    for matrix in matrices.reshape(-1, n, n):
        if not np.isfinite(matrix).all():
            parts.append((np.nan, np.nan, np.full((n, n), np.nan), np.full((n, n), np.nan)))
            continue
        one = nearest_edge(matrix, clock)
        sign = -1.0 if one.radius < 0 else 1.0
        by_radius = -sign * (one.left.conj()[:, None] * one.right).real
        moved = one.turning[0].conj()[:, None] * one.right + (one.left.conj()[:, None] * one.turning[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            by_frequency = 2 * moved.real / one.curvature
        parts.append((one.radius, one.frequency, by_radius, by_frequency))
    radius, frequency, *gradients = (np.stack(part).astype(matrices.dtype) for part in zip(*parts, strict=True))
    return (radius.reshape(shape), frequency.reshape(shape), *(one.reshape(matrices.shape) for one in gradients))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _touched(matrices: Array, clock: AbstractClock) -> tuple[Array, Array, Array, Array]:
    """[`_host`][] for traced matrices, whose values are unknown."""
    scalars = jax.ShapeDtypeStruct(matrices.shape[:-2], matrices.dtype)
    whole = jax.ShapeDtypeStruct(matrices.shape, matrices.dtype)
    shapes = (scalars, scalars, whole, whole)
    return jax.pure_callback(functools.partial(_host, clock=clock), shapes, matrices, vmap_method="broadcast_all")


@_touched.defjvp
def _(clock: AbstractClock, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    radius, frequency, by_radius, by_frequency = _touched(primals[0], clock)
    moved = [jnp.sum(gradient * tangents[0], (-2, -1)) for gradient in (by_radius, by_frequency)]
    # There are no second derivatives.
    unknown = jnp.full_like(by_radius, jnp.nan)
    return (radius, frequency, by_radius, by_frequency), (*moved, unknown, unknown)
