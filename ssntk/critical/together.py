"""Find the least change of theta under conditions that are not affine in it: z and theta together.

The unknowns are y = (z, theta sqrt(metric) / unit). SciPy's sequential quadratic programming (Byrd and Omojokun's trust
region, with exact second derivatives) comes near a stationary point, and Newton's iteration on the equations of Karush,
Kuhn and Tucker finds its last digits. Its steps, and whether the point is a minimum, need only products with the second
derivatives, so p may be large.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array
from scipy.sparse.linalg import LinearOperator, eigsh, minres

from ssntk.critical.conditions import Conditions, Found, Span, Stationary, squared_unit

# The largest numbers of rounds of the search, of steps in one, and of Newton's at the end.
ROUNDS, STEPS, POLISH = 4, 60, 30
# The residual at which the search hands over to Newton's iteration: the root of the last digits.
NEAR = 1e-8
# The unit of distances, in the least change that the conditions ask for to first order: there the search comes farthest.
UNIT = 0.1
# Fewer unknowns than this are few enough for dense eigenvalues.
SMALL = 64
# The largest number of entries in a batch of rows of the Jacobian.
ENTRIES = 2**22


def _scaled(conditions: Conditions, unit: Array, y: Array) -> tuple[Array, Array]:
    """z and theta."""
    size = conditions.unknowns
    return y[:size], y[size:] * unit / jnp.sqrt(conditions.freedom.metric)


def _all(conditions: Conditions, unit: Array, y: Array) -> Array:
    """The conditions, then the gauges of the eigenvectors."""
    z, theta = _scaled(conditions, unit, y)
    return jnp.concatenate([conditions.equations(z, theta), conditions.gauges(z)])


@eqx.filter_jit
def _value(conditions: Conditions, unit: Array, y: Array) -> Array:
    return _all(conditions, unit, y)


@eqx.filter_jit
def _jacobian(conditions: Conditions, unit: Array, y: Array) -> Array:
    value, pull = jax.vjp(lambda y: _all(conditions, unit, y), y)
    together = max(1, ENTRIES // y.shape[0])
    return jax.lax.map(lambda row: pull(row)[0], jnp.eye(value.shape[0], dtype=y.dtype), batch_size=together)


@eqx.filter_jit
def _curved(conditions: Conditions, unit: Array, y: Array, multipliers: Array, along: Array) -> Array:
    """The second derivatives of multipliers.c along a vector."""
    slope = jax.grad(lambda y: multipliers @ _all(conditions, unit, y))
    return jax.jvp(slope, (y,), (along,))[1]


Product = Callable[[np.ndarray], np.ndarray]


def _operator(product: Product, count: int) -> Any:
    """A symmetric matrix (count, count) by its product with a vector, for SciPy."""

    def apply(vector: np.ndarray) -> np.ndarray:
        return product(vector.ravel())

    return LinearOperator((count, count), matvec=apply, rmatvec=apply, dtype=float)  # pyright: ignore


class _Point(NamedTuple):
    """Unknowns y, multipliers of all conditions, and how far both are from solving the equations."""

    y: np.ndarray
    multipliers: np.ndarray
    value: np.ndarray  # the conditions
    slope: np.ndarray  # the gradient of the Lagrangian; zero at entries that are held
    rows: np.ndarray  # the Jacobian of the conditions; zero in columns that are held
    free: np.ndarray  # which entries of y are not held at zero for their sign
    violation: float
    kkt: float

    @property
    def off(self) -> float:
        return max(self.violation, self.kkt)


class _Together:
    """The minimisation for one set of conditions, from the unknowns z and theta."""

    def __init__(self, conditions: Conditions, unit: float):
        self.conditions, freedom = conditions, conditions.freedom
        self.size, self.dtype = conditions.unknowns, freedom.start.dtype
        self.unit = jnp.asarray(unit, self.dtype)
        self.stretch = np.sqrt(np.asarray(freedom.metric, float)) / unit
        self.begin = np.concatenate([np.zeros(self.size), np.asarray(freedom.start, float) * self.stretch])
        # The distance depends on theta alone.
        self.weight = np.concatenate([np.zeros(self.size), np.ones(len(self.stretch))])
        self.signs = np.concatenate([np.zeros(self.size), np.asarray(freedom.signs, float)])

    def put(self, array: np.ndarray) -> Array:
        return jax.device_put(np.asarray(array, self.dtype))

    def value(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(_value(self.conditions, self.unit, self.put(y)), float)

    def jacobian(self, y: np.ndarray) -> np.ndarray:
        """The Jacobian (count, N) of the conditions. `FloatingPointError` where it is not finite."""
        rows = np.asarray(_jacobian(self.conditions, self.unit, self.put(y)), float)
        if not np.isfinite(rows).all():
            raise FloatingPointError
        return rows

    def curved(self, y: np.ndarray, multipliers: np.ndarray) -> Product:
        """The product of the second derivatives of multipliers.c with a vector."""
        at = self.put(y), self.put(multipliers)
        return lambda along: np.asarray(_curved(self.conditions, self.unit, *at, self.put(along)), float)

    def parts(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z and theta."""
        return y[: self.size], y[self.size :] / self.stretch

    def search(self, y: np.ndarray, span: Span) -> tuple[np.ndarray, np.ndarray, int, bool]:
        """y, the multipliers and the number of steps at which the search ends; and whether it ends by itself."""
        low, high = np.where(self.signs > 0, 0.0, -np.inf), np.where(self.signs < 0, 0.0, np.inf)
        if self.conditions.kind == "pair":
            low[self.size - 1], high[self.size - 1] = span.least, span.most
        bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
        kept = scipy.optimize.NonlinearConstraint(
            self.value, 0, 0, jac=self.jacobian, hess=lambda y, by: _operator(self.curved(y, by), len(y))
        )
        own = _operator(lambda along: self.weight * along, len(y))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Conditions that depend on each other are no error: theta may not enter some of them.
            warnings.simplefilter("ignore")
            found = scipy.optimize.minimize(
                lambda y: float(((self.weight * (y - self.begin)) ** 2).sum() / 2),
                y,
                jac=lambda y: self.weight * (y - self.begin),
                hess=lambda _: own,
                method="trust-constr",
                constraints=kept,
                bounds=scipy.optimize.Bounds(low, high) if bounded else None,
                options={
                    "maxiter": STEPS,
                    "gtol": NEAR,
                    "xtol": 1e-12,
                    "initial_tr_radius": 1.0,
                    "factorization_method": "SVDFactorization",
                },
            )
        return found.x, np.asarray(found.v[0]), int(found.nit), found.status in (1, 2)

    def at(self, y: np.ndarray, multipliers: np.ndarray) -> _Point:
        """What the equations leave at y. Entries of theta that want to leave their sign are held at zero."""
        rows, change = self.jacobian(y), self.weight * (y - self.begin)
        slope = change + rows.T @ multipliers
        # Of an entry at its limit the slope stays, of another one the value (a primal-dual active set).
        free = (self.signs == 0) | (self.signs * slope <= self.signs * y)
        y = np.where(free, y, 0.0)
        value, rows, slope = self.value(y), np.where(free, rows, 0.0), np.where(free, slope, 0.0)
        terms = 1 + np.abs(rows).T @ np.abs(multipliers)
        violation, kkt = float(np.abs(value).max()), float((np.abs(slope) / terms).max())
        return _Point(y, multipliers, value, slope, rows, free, violation, kkt)

    def along(self, point: _Point) -> Product:
        """The projection on the directions along which the conditions and the entries that are held stay."""
        _, sizes, right = np.linalg.svd(point.rows, full_matrices=False)
        basis = right[sizes > 1e-12 * sizes[0]].T

        def project(vector: np.ndarray) -> np.ndarray:
            rest = np.where(point.free, vector, 0.0)
            return rest - basis @ (basis.T @ rest)

        return project

    def curvature(self, point: _Point, along: Product) -> Product:
        """The curvature of the distance along the conditions, and one across them."""
        bend = self.curved(point.y, point.multipliers)

        def apply(vector: np.ndarray) -> np.ndarray:
            kept = along(vector)
            return vector - kept + along(self.weight * kept + bend(kept))

        return apply

    def step(self, point: _Point) -> _Point:
        """The point after a step of Newton's iteration on y and the multipliers."""
        along, bend = self.along(point), self.curved(point.y, point.multipliers)
        toward = -np.linalg.lstsq(point.rows, point.value, rcond=1e-12)[0]
        pull = along(point.slope + self.weight * toward + bend(toward))
        curvature = _operator(self.curvature(point, along), len(pull))
        move = toward - along(minres(curvature, pull, rtol=1e-12, maxiter=20 * len(point.value))[0])
        pull = point.slope + self.weight * move + bend(move)
        change = -np.linalg.lstsq(point.rows.T, np.where(point.free, pull, 0.0), rcond=1e-12)[0]
        return self.at(point.y + move, point.multipliers + change)

    def polished(self, point: _Point) -> _Point:
        """The point after Newton's iteration, as long as that comes nearer."""
        for _ in range(POLISH):
            if not point.off <= 1e-2:
                break
            after = self.step(point)
            if not after.off < 0.8 * point.off:
                break
            point = after
        return point

    def is_minimum(self, point: _Point) -> bool:
        """Whether the curvature along the conditions is nowhere negative."""
        curvature, count = self.curvature(point, self.along(point)), len(point.y)
        if count < SMALL:
            matrix = np.array([curvature(row) for row in np.eye(count)])
            least = np.linalg.eigvalsh((matrix + matrix.T) / 2)[0]
        else:
            start = np.random.default_rng(0).normal(size=count)
            operator: Any = _operator(curvature, count)
            least = eigsh(operator, k=1, which="SA", v0=start, tol=1e-3, return_eigenvectors=False)[0]  # pyright: ignore
        return bool(least >= -1e-6)


def nearby(conditions: Conditions, z: np.ndarray, theta: np.ndarray, span: Span) -> Found | None:
    """A stationary point from a start z and theta; `None` if the search breaks down.

    A point at the limits of `span` is not stationary.
    """
    try:
        problem, point, iterations = _searched(conditions, z, theta, span)
        if not span.ended(conditions, problem.parts(point.y)[0]):
            point = problem.polished(point)
        minimum = point.off <= NEAR and problem.is_minimum(point)
    except (FloatingPointError, np.linalg.LinAlgError, scipy.sparse.linalg.ArpackError):
        return None
    z, theta = problem.parts(point.y)
    multipliers = point.multipliers[: len(point.value) - len(np.asarray(conditions.gauges(jax.device_put(z))))]
    return Found(
        problem.conditions,
        Stationary(z, theta, multipliers, point.violation, point.kkt, minimum, iterations),
    )


def _searched(conditions: Conditions, z: np.ndarray, theta: np.ndarray, span: Span) -> tuple[_Together, _Point, int]:
    """The problem and the point at which the search ends, and its number of steps."""
    iterations, rounds, unit = 0, 0, float(np.sqrt(squared_unit(conditions)))
    begin = _Together(conditions, unit)
    y = np.concatenate([z, theta * begin.stretch])
    # The least change to first order is of the order of the distance, whatever else theta holds.
    first = np.linalg.lstsq(begin.jacobian(y)[:, begin.size :], begin.value(y), rcond=1e-10)[0]
    unit *= UNIT * float(np.linalg.norm(first)) or 1.0
    while True:
        # A gauge that is almost normal to the eigenvector makes the problem stiff: each round has its own.
        conditions, z = conditions.regauged(z)
        problem = _Together(conditions, unit)
        y, multipliers, steps, ended = problem.search(np.concatenate([z, theta * problem.stretch]), span)
        iterations, rounds = iterations + steps, rounds + 1
        if ended or rounds == ROUNDS:
            return problem, problem.at(y, multipliers), iterations
        z, theta = problem.parts(y)
