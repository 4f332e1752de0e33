"""The collapse of the steady-state kernel near a curve of bifurcations: its prefactor, its exponent, what is left of it."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ssntk.bifurcation.events.kinds import HOPF, NEIMARK_SACKER, SADDLE_NODE
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.scales import sizes_over
from ssntk.dynamics.stability import field_at
from ssntk.errors import outside_jit
from ssntk.kernel.steady_state import forcing
from ssntk.models.base import dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.plane import Plane
from ssntk.models.theta import Positions, theta_positions
from ssntk.newton import row_scaled
from ssntk.nouns import Lens
from ssntk.results import Tabular, short
from ssntk.threads import one_blas_thread

# How far aside of the curve the kernel is measured: for single eigenvalues in sizes of the states along the critical
# direction, for pairs in spans of the parameters. Each is half of the one before.
ASIDE = np.array([1.0, 0.5, 0.25])
STATES, SPANS = 4e-3, 1e-3
# Newton's iterations to an equilibrium beside the curve, and its last one relative to the sizes.
NEWTON, CLOSE = 12, 1e-9
# Inverse iterations to the critical eigenvalue, and the distance of their shift from the edge, in roundings.
INVERSE, SHIFT = 6, 1e4
# Points that are computed at once: their number does not change the compiled code.
CHUNK = 32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class KernelAlong(Tabular):
    """The steady-state kernel near k points of a curve of bifurcations.

    A response to theta at a frequency w obeys `(s(w) - A) S = F`, with A = df/dx, F = df/dtheta and the edge of stability
    s(w): i w for flows. Its kernel `K = S S^H` is that of the steady state at w = 0. Let lambda be the critical eigenvalue,
    with vectors `A r = lambda r`, `l A = lambda l`, l.r = 1. Near the curve, K grows as `|r|^2 |l.F|^2 / |s(w) - lambda|^2`,
    at the frequency of the critical eigenvalue: 0 at saddle-nodes, that of the pair at Hopf points.

    - `prefactor` (k,): |r|^2 |l.F|^2, with the states in units of `scale`. Infinite where l.r = 0, at a Bogdanov-Takens
      point; NaN at neutral saddles, where nothing oscillates.
    - `exponent` (k,): that of K's largest eigenvalue in the distance from the curve, across it, with the parameters in units
      of their spans. -1 at saddle-nodes, -2 at Hopf points, transcriticals and pitchforks, -4/3 at a cusp. NaN where no
      equilibrium was found beside.
    - `participation_ratio` (k,): (tr K)^2 / tr K^2 of what is left of K at the curve if the critical mode is taken out.
    - `rate` (k, m), `distance` (k, m), `top` (k, m): what the exponent is measured from: |s(w) - lambda| in 1 / time, the
      distance, and the largest eigenvalue of K, at m equilibria beside each point, the farthest first.
    - `point_exponents` (j, 2): the exponents at the points of codimension two of the curve: across it, and, for
      saddle-nodes, along its tangent, which it leaves. NaN where nothing oscillates.

    Source: Hazelden and Shea-Brown, arXiv:2605.12763, for the collapse at a bifurcation.

    **Example:** at the cusp of x' = h + mu x - x^3 the exponent across the curve is -4/3, and elsewhere -1.

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    families = ssntk.Family(model, "h"), ssntk.Family(model, "mu")
    fold = ssntk.continuation(families[0], (-1.0, 1.0)).bifurcations[0]
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*families), fold, ((-1.0, 1.0), (-1.0, 2.0)))
    along = curve.ntk_along()
    print(along.exponent[0].round(2), along.point_exponents[0].round(2))  # -1.0 [-1.33 -2.  ]
    ```
    """

    parameters: np.ndarray
    prefactor: np.ndarray
    exponent: np.ndarray
    participation_ratio: np.ndarray
    rate: np.ndarray
    distance: np.ndarray
    top: np.ndarray
    point_exponents: np.ndarray

    def _headline(self) -> str:
        known = self.prefactor[np.isfinite(self.prefactor)]
        spread = f"prefactors {short(known.min())} to {short(known.max())}" if len(known) else "no prefactor is finite"
        median = np.nanmedian(self.exponent) if np.isfinite(self.exponent).any() else np.nan
        return f"kernel along {len(self.prefactor)} points of a curve: {spread}, exponent {short(median)} (median)"

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        narrow = ("prefactor", "exponent", "participation_ratio")
        wide = {"parameters": "parameter", "rate": "aside", "distance": "aside", "top": "aside"}
        return {name: (("point", dim), getattr(self, name)) for name, dim in wide.items()} | {
            name: (("point",), getattr(self, name)) for name in narrow
        }


class Place(NamedTuple):
    """Where a kernel is asked for: parameters (2,), a state (n,), the direction (2,) of the curve in units of the spans, the
    frequency of the critical eigenvalue, in rad per unit time, and whether the parameters move along the curve or across."""

    parameters: np.ndarray
    x: np.ndarray
    direction: np.ndarray
    frequency: float
    along: bool = False


@outside_jit
@one_blas_thread()
def kernels_along(curve: Any, wrt: Lens | None, u: Any, scale: Any) -> KernelAlong:
    """What [`KernelAlong`][] says of a [`Curve`][]."""
    plane = curve.plane
    if curve.period is not None:
        raise ValueError(f"the curve must be of equilibria, and it is one of {curve.kind}s of cycles")
    if plane is None:
        raise ValueError("the curve has no plane: it was loaded without its model")
    model = plane.model
    metric = as_metric(scale, model.n_state)
    measure = _Measure(plane, constant_input(model, u), theta_positions(model, "state", wrt), metric, curve.spans)
    # At a saddle-node two equilibria meet, which are told apart by their states.
    single = curve.kind == SADDLE_NODE.name
    directions = _directions(curve)
    measured = [measure.at(place) for place in measure.prepared(_places(curve, directions), single)]
    odd = [
        Place(point.parameters, point.x, directions[_nearest(curve, point)], _frequency(curve, point, along), along)
        for point in curve.points
        for along in (False, True)
    ]
    exponents = [one.exponent for one in (measure.at(place) for place in measure.prepared(odd, single))]
    prefactor, exponent, ratio, rate, distance, top = map(np.array, zip(*measured, strict=True))
    return KernelAlong(curve.parameters, prefactor, exponent, ratio, rate, distance, top, np.reshape(exponents, (-1, 2)))


class _Mode(NamedTuple):
    """A critical eigenvalue with its vectors (n,), l.r = 1."""

    value: complex
    right: np.ndarray
    left: np.ndarray


class _Near(NamedTuple):
    """What is known of a place: its linear parts there and beside it, at distances (m,), with the states in `sizes` (n,)."""

    mode: _Mode | None
    edge: complex
    matrix: np.ndarray
    forced: np.ndarray
    distances: np.ndarray
    matrices: np.ndarray
    all_forced: np.ndarray
    size: float
    sizes: np.ndarray


class _Along(NamedTuple):
    """What is measured at a place."""

    prefactor: float
    exponent: float
    ratio: float
    rate: np.ndarray
    distance: np.ndarray
    top: np.ndarray


class _Measure(NamedTuple):
    """How kernels are measured on a plane."""

    plane: Plane
    u: Array
    positions: Positions
    metric: np.ndarray | None
    spans: np.ndarray

    @property
    def clock(self) -> AbstractClock:
        return self.plane.clock

    @property
    def reach(self) -> np.ndarray:
        return self.spans[:, 1] - self.spans[:, 0]

    def prepared(self, places: list[Place], single: bool) -> list[_Near]:
        """Find the equilibria beside all places. `single`: whether the state is moved along the critical direction, as at
        saddle-nodes, where the parameter cannot be, or the parameter."""
        if not places:
            return []
        p, x, directions = (np.stack([getattr(place, name) for place in places]) for name in Place._fields[:3])
        matrices, forced, pushes = self.linear(p, x)
        edges = [complex(*self.clock.edge(place.frequency)) for place in places]
        # At the bifurcation of a single state its rate is zero: the largest of all says what is small.
        sizes = self.sizes(p, x)
        matrices = matrices * sizes / sizes[:, None]
        size = float(np.abs(matrices).sum(axis=2).max() + np.nanmax(np.abs(np.append(edges, 0))))
        modes = [critical(matrix, edge, size) for matrix, edge in zip(matrices, edges, strict=True)]
        across = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
        if single:
            # Along a curve of saddle-nodes l.df is zero, also where it turns back, at a cusp.
            normals = [
                np.zeros(2) if mode is None else (mode.left @ (push / sizes[:, None])).real
                for mode, push in zip(modes, pushes, strict=True)
            ]
            across = _unit(np.array(normals) * self.reach)
        along = np.array([place.along for place in places])
        directions = np.where(along[:, None], np.stack([across[:, 1], -across[:, 0]], axis=1), across)
        borders, shifts = np.zeros((len(p), x.shape[1] + 1)), np.full(len(p), SPANS)
        borders[:, -1] = 1
        for i, mode in enumerate(modes):
            if single and mode is not None:
                along = mode.right.real
                borders[i], shifts[i] = np.append(along / (along @ along), 0.0), STATES / np.abs(along).max()
        # Both sides, of which the one on which the mode decays is kept.
        found = [self.aside(p, x, directions, sizes, borders, sign * shifts) for sign in (1.0, -1.0)]
        near = []
        for i, mode in enumerate(modes):
            sides = [Aside(*(part[i] for part in side)) for side in found]
            side = min(sides, key=lambda one: _growth(one, edges[i], size))
            near.append((mode, edges[i], matrices[i], forced[i], side))
        again = np.concatenate([side.parameters for *_, side in near]), np.concatenate([side.x for *_, side in near])
        all_forced = self.linear(*again)[1].reshape(len(near), len(ASIDE), *forced.shape[1:])
        return [
            _Near(mode, edge, matrix, force, side.distance, side.matrix, every, size, sizes)
            for (mode, edge, matrix, force, side), every in zip(near, all_forced, strict=True)
        ]

    def sizes(self, p: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The sizes (n,) of the states."""
        some = np.unique(np.linspace(0, len(p) - 1, 4).round().astype(int))
        models = [self.plane(*(float(one) for one in p[i])) for i in some]
        start = jnp.asarray(x[0], dtype_of(self.plane.model))
        return np.maximum(np.asarray(sizes_over(models, self.u, start), float), np.abs(x).max(axis=0))

    def linear(self, p: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """A (k, n, n), F F^T (k, n, n) and df/dp (k, n, 2), in the user's units."""
        return _chunked(lambda *parts: _linear(self.plane, self.positions, self.u, *parts), p, x)

    def aside(
        self,
        p: np.ndarray,
        x: np.ndarray,
        directions: np.ndarray,
        sizes: np.ndarray,
        borders: np.ndarray,
        shifts: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """The equilibria (k, m) beside k places."""
        units = jnp.asarray(sizes, dtype_of(self.plane.model)), jnp.asarray(self.reach, dtype_of(self.plane.model))
        every = [np.repeat(part, len(ASIDE), axis=0) for part in (p, x, directions, borders)]
        wanted = (shifts[:, None] * ASIDE).ravel()
        found = _chunked(lambda *parts: _aside(self.plane, self.u, *units, *parts), *every, wanted)
        return tuple(part.reshape(len(p), len(ASIDE), *part.shape[1:]) for part in found)

    def at(self, near: _Near) -> _Along:
        """The prefactor, the exponent and the rest at a place."""
        nothing = np.full(len(ASIDE), np.nan)
        if near.mode is None:
            return _Along(np.nan, np.nan, np.nan, nothing, near.distances, nothing)
        mode, rate, top = near.mode, nothing.copy(), nothing.copy()
        left = mode.left / near.sizes
        prefactor = float(np.linalg.norm(mode.right * self.unit(near)) ** 2 * (left @ near.forced @ left.conj()).real)
        for j in range(len(ASIDE)):
            beside = critical(near.matrices[j], near.edge, near.size) if np.isfinite(near.distances[j]) else None
            if beside is not None:
                edge = complex(*self.clock.edge(self.clock.frequency(beside.value)))
                rate[j] = abs(edge - beside.value)
                shifted = edge * np.eye(len(near.sizes)) - near.matrices[j]
                top[j] = np.linalg.eigvalsh(self.kernel(near, np.linalg.inv(shifted), near.all_forced[j]))[-1]
        with np.errstate(all="ignore"):
            slopes = np.diff(np.log(top)) / np.diff(np.log(near.distances))
        # The slope departs from the exponent in proportion to the distance along the critical direction.
        exponent = float(2 * slopes[1] - slopes[0])
        return _Along(prefactor, exponent, self.ratio(near), rate, near.distances, top)

    def unit(self, near: _Near) -> np.ndarray:
        """The sizes (n,) of the states in units of the metric."""
        return near.sizes if self.metric is None else near.sizes / self.metric

    def kernel(self, near: _Near, response: np.ndarray, forced: np.ndarray) -> np.ndarray:
        """K (n, n) from the response (n, n) to forces, in sizes, and F F^T."""
        response = self.unit(near)[:, None] * response / near.sizes
        return response @ forced @ response.conj().T

    def ratio(self, near: _Near) -> float:
        """The participation ratio of the kernel without its critical mode."""
        assert near.mode is not None
        n, (_, right, left) = len(near.matrix), near.mode
        bordered = np.zeros((n + 1, n + 1), complex)
        bordered[:n, :n] = near.edge * np.eye(n) - near.matrix
        bordered[:n, n], bordered[n, :n] = right, left
        with np.errstate(all="ignore"):
            try:
                response = np.linalg.inv(bordered)[:n, :n]
            except np.linalg.LinAlgError:
                return np.nan
        kernel = self.kernel(near, response, near.forced)
        square = float(np.sum(np.abs(kernel) ** 2))
        return float(np.trace(kernel).real ** 2 / square) if square > 0 else np.nan


class Aside(NamedTuple):
    """Equilibria beside a place, (m, ...): parameters, states, the distance, and A in sizes."""

    parameters: Any
    x: Any
    distance: Any
    matrix: Any


def critical(matrix: np.ndarray, edge: complex, size: float) -> _Mode | None:
    """The eigenvalue nearest to an edge, by inverse iteration; `None` if it is not found. `size`: that of eigenvalues."""
    n = len(matrix)
    if not (np.isfinite(matrix).all() and np.isfinite(edge)):
        return None
    shifted = np.asarray(matrix, float) - (edge + SHIFT * np.finfo(float).eps * size) * np.eye(n)
    factors, rng = scipy.linalg.lu_factor(shifted), np.random.default_rng(0)
    right, left = (rng.normal(size=n).astype(complex) for _ in range(2))
    with np.errstate(all="ignore"):
        for _ in range(INVERSE):
            right = scipy.linalg.lu_solve(factors, right, check_finite=False)
            left = scipy.linalg.lu_solve(factors, left, trans=1, check_finite=False)
            right, left = right / np.linalg.norm(right), left / np.linalg.norm(left)
        left = left / (left @ right)
        value = left @ matrix @ right
    return _Mode(complex(value), right, left) if np.isfinite(value) else None


def _growth(side: Aside, edge: complex, size: float) -> float:
    """How fast the critical mode grows at the nearest equilibrium of a side; infinite if that was not found."""
    if not np.isfinite(side.distance[-1]):
        return np.inf
    mode = critical(side.matrix[-1], edge, size)
    return np.inf if mode is None else float((mode.value / edge if edge else mode.value).real)


def _chunked(function: Any, *parts: np.ndarray) -> tuple[np.ndarray, ...]:
    """A function of stacked rows, applied to `CHUNK` rows at once; the last chunk is filled with its last row."""
    found = []
    for start in range(0, len(parts[0]), CHUNK):
        rows = [part[start : start + CHUNK] for part in parts]
        count = len(rows[0])
        filled = [np.concatenate([row, np.repeat(row[-1:], CHUNK - count, axis=0)]) for row in rows]
        found.append([np.asarray(one)[:count] for one in function(*filled)])
    return tuple(np.concatenate(one) for one in zip(*found, strict=True))


@eqx.filter_jit
def _linear(plane: Plane, at: Positions, u: Array, p: Any, x: Any) -> tuple[Array, Array, Array]:
    """A (k, n, n), F F^T (k, n, n) and df/dp (k, n, 2), one place after the other, since F may be large."""

    def one(place: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        p, x = place
        forced, matrix = forcing(plane(p[0], p[1]), at, x, u)
        return matrix, forced @ forced.T, jax.jacfwd(lambda p: field_at(plane(p[0], p[1]), x, u))(p)

    return jax.lax.map(one, (p, x))


@eqx.filter_jit
def _aside(
    plane: Plane,
    u: Array,
    sizes: Float[Array, " n"],
    reach: Float[Array, " 2"],
    p: Any,
    x: Any,
    directions: Any,
    borders: Any,
    shifts: Any,
) -> tuple[Array, Array, Array, Array]:
    """Equilibria where `border . (x - x0, distance)` is the shift, by Newton's iteration in sizes and spans."""

    def one(p: Array, x: Array, direction: Array, border: Array, shift: Array) -> tuple[Array, Array, Array, Array]:
        start = x / sizes

        def place(e: Array) -> Array:
            return p + e * direction * reach

        def equations(y: Array) -> Array:
            here = place(y[-1])
            velocity = field_at(plane(here[0], here[1]), y[:-1] * sizes, u)
            off = jnp.sum(border * jnp.append(y[:-1] - start, y[-1])) - shift
            return jnp.append(velocity, off)

        def on(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
            y, _ = state
            move = row_scaled(jax.jacfwd(equations)(y), equations(y))
            return y - move, jnp.abs(move).max()

        # On the plane already: at the place itself the equations may be singular, as at a cusp.
        begin = jnp.append(start, jnp.zeros((), start.dtype)) + shift * border / jnp.sum(border**2)
        y, last = jax.lax.fori_loop(0, NEWTON, on, (begin, jnp.asarray(jnp.inf, start.dtype)))
        # The distance must be known, which is much smaller than the shift at a saddle-node.
        known = (last <= CLOSE * jnp.abs(shift)) & (y[-1] != 0)
        here = place(y[-1])
        model = plane(here[0], here[1])
        matrix = jax.jacfwd(lambda y: field_at(model, y * sizes, u) / sizes)(y[:-1])
        return here, y[:-1] * sizes, jnp.where(known, jnp.abs(y[-1]), jnp.nan), matrix

    return jax.vmap(one)(p, x, directions, borders, shifts)


def _directions(curve: Any) -> np.ndarray:
    """The directions (k, 2) of a curve at its points, in units of the spans."""
    return _unit(np.gradient(curve.parameters / (curve.spans[:, 1] - curve.spans[:, 0]), axis=0))


def _places(curve: Any, directions: np.ndarray) -> list[Place]:
    every = zip(curve.parameters, curve.x, directions, curve.frequency, strict=True)
    # Where the eigenvalues of a pair are real, at neutral saddles, nothing oscillates.
    paired = curve.kind in (HOPF.name, NEIMARK_SACKER.name)
    return [
        Place(p, x, direction, float(frequency) if frequency or not paired else np.nan)
        for p, x, direction, frequency in every
    ]


def _frequency(curve: Any, point: Any, along: bool) -> float:
    """That of the curve's critical eigenvalue at a point of codimension two; NaN if no exponent is asked for."""
    if curve.kind == SADDLE_NODE.name:
        return 0.0
    return float(curve.frequency[_nearest(curve, point)]) if point.frequency and not along else np.nan


def _nearest(curve: Any, point: Any) -> int:
    """The number of the point of a curve that is nearest to one on it."""
    moves = (curve.parameters - point.parameters) / (curve.spans[:, 1] - curve.spans[:, 0])
    ranges = np.ptp(curve.x, axis=0)
    states = np.abs((curve.x - point.x) / np.where(ranges > 0, ranges, 1)).max(axis=1)
    return int((np.linalg.norm(moves, axis=1) + states).argmin())


def _unit(steps: np.ndarray) -> np.ndarray:
    """Steps (k, 2) of length one."""
    with np.errstate(all="ignore"):
        return steps / np.linalg.norm(steps, axis=1, keepdims=True)
