"""The nearest Hopf point of two equations and of their maps, against a grid. One of the two parameters enters by a sinh.

With q = sinh(mu) - v^2 the Jacobian is [[q, -1], [1, -b]]: trace q - b, determinant 1 - b q.

Nothing expected here comes from the package: conditions, Jacobians and distances are written out in numpy.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import EXACT, real_roots, seeds

import ssntk

SEEDS, FEW = range(4), seeds(1, 4)


def oscillator(t, x, u, p):
    v, w = x[0], x[1]
    return jnp.stack([jnp.sinh(p["mu"]) * v - v**3 / 3 - w + p["I"], v + p["a"] - p["b"] * w])


def moving(m):
    return m.params["mu"], m.params["b"]


DT = 0.8
Q = {
    "hopf": lambda b: b,
    # det(1 + dt A) = 1: trace + dt determinant = 0.
    "neimark-sacker": lambda b: (b - DT) / (1 - DT * b),
    # det(2 + dt A) = 0: 4 + 2 dt trace + dt^2 determinant = 0.
    "flip": lambda b: -(4 - 2 * DT * b + DT**2) / (2 * DT - DT**2 * b),
}


def equilibria(q, b, p):
    """The states v at which f = 0 where sinh(mu) = q + v^2: roots of a cubic."""
    return real_roots([2 / 3, 0, q - 1 / b, p["I"] - p["a"] / b])


def branch_distance(kind, b, p, index):
    """The distance of the critical point with this b and the `index`-th of its equilibria."""
    q = Q[kind](b)
    roots = equilibria(q, b, p)
    if index >= len(roots):
        return np.inf
    return np.hypot(np.arcsinh(q + roots[index] ** 2) - p["mu"], b - p["b"])


def grid_minima(kind, p, bound=1.0):
    """Every local minimum of the distance over b in (-bound, bound), by a grid and a search from each of its minima."""
    grid = np.linspace(-bound, bound, 1200)[1:-1]
    found = []
    for index in range(3):
        sizes = np.array([branch_distance(kind, b, p, index) for b in grid])
        for i in np.flatnonzero((sizes[1:-1] <= sizes[:-2]) & (sizes[1:-1] <= sizes[2:]) & np.isfinite(sizes[1:-1])) + 1:
            result = scipy.optimize.minimize_scalar(
                lambda b, index=index: branch_distance(kind, b, p, index),
                bounds=(grid[i - 1], grid[i + 1]),
                method="bounded",
                options={"xatol": 1e-11},
            )
            found.append(result.fun)
    return np.array(found)


def oscillator_start(seed, low=-0.8, high=0.2):
    rng = np.random.default_rng(seed)
    ranges = {"mu": (low, high), "I": (-0.5, 0.5), "a": (0, 0.5), "b": (0.4, 0.8)}
    p = {name: rng.uniform(*ends) for name, ends in ranges.items()}
    (v,) = real_roots([-1 / 3, 0, np.sinh(p["mu"]) - 1 / p["b"], p["I"] - p["a"] / p["b"]])
    return p, np.array([v, (v + p["a"]) / p["b"]])


def oscillator_jacobian(p, x):
    return np.array([[np.sinh(p["mu"]) - x[0] ** 2, -1.0], [1.0, -p["b"]]])


def check_oscillator(found, p, dt=None):
    """Check in numpy the conditions at the point, and that nothing else moved. Returns the eigenvalues of its Jacobian."""
    now = {name: float(value) for name, value in found.model.params.items()}
    assert (now["I"], now["a"]) == (p["I"], p["a"])
    v, w = found.x
    field = np.sinh(now["mu"]) * v - v**3 / 3 - w + now["I"], v + now["a"] - now["b"] * w
    np.testing.assert_allclose(field, 0, atol=EXACT)
    np.testing.assert_allclose(np.hypot(now["mu"] - p["mu"], now["b"] - p["b"]), found.distance, rtol=1e-12)
    assert found.converged
    A = oscillator_jacobian(now, found.x)
    value = 1j * found.frequency if dt is None else np.expm1(1j * found.frequency * dt) / dt
    # Eigenvectors as of a Bifurcation: A r = s r, l A = s l, l.r = 1.
    np.testing.assert_allclose(A @ found.right, value * found.right, atol=EXACT)
    np.testing.assert_allclose(found.left @ A, value * found.left, atol=EXACT * np.linalg.norm(found.left))
    np.testing.assert_allclose(found.left @ found.right, 1, atol=EXACT)
    return np.linalg.eigvals(A)


@pytest.mark.parametrize("seed", FEW)
def test_hopf_points_in_two_parameters(seed):
    p, x = oscillator_start(seed)
    model = ssntk.VectorField(oscillator, p, 2)
    found = ssntk.approach(model, "hopf", x=x, wrt=moving, n_starts=2)
    values = check_oscillator(found, p)
    np.testing.assert_allclose(values.real, 0, atol=EXACT)
    np.testing.assert_allclose(found.frequency, np.abs(values.imag).max(), atol=EXACT)
    assert found.kind == "hopf"
    assert np.isnan(found.coefficient)
    # The same minimum by a grid; its bounded search resolves b to 1e-8, at a minimum.
    np.testing.assert_allclose(found.distance, grid_minima("hopf", p).min(), rtol=EXACT)

    # The frequency is sqrt(1 - b^2): where it must be larger, b lies on the edge of that, and mu follows from a cubic.
    slowest = 0.996
    assert found.frequency < slowest
    edge = ssntk.approach(model, "hopf", x=x, wrt=moving, n_starts=2, omega_min=slowest)
    assert edge.kind == "Bogdanov-Takens boundary"
    np.testing.assert_allclose(edge.frequency, slowest, rtol=EXACT)
    check_oscillator(edge, p)
    sides = [(b, v) for b in np.array([1, -1]) * np.sqrt(1 - slowest**2) for v in equilibria(b, b, p)]
    exact = min(np.hypot(np.arcsinh(b + v**2) - p["mu"], b - p["b"]) for b, v in sides)
    np.testing.assert_allclose(edge.distance, exact, rtol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["neimark-sacker", "flip"])
@pytest.mark.parametrize("seed", SEEDS)
def test_points_of_maps_in_two_parameters(kind, seed):
    p, x = oscillator_start(seed) if kind == "neimark-sacker" else oscillator_start(seed, -1.7, -1.4)
    model = ssntk.EulerMap(ssntk.VectorField(oscillator, p, 2), DT)
    found = ssntk.approach(model, kind, x=x, wrt=moving, n_starts=2)
    assert found.kind == kind
    multipliers = 1 + DT * check_oscillator(found, p, DT)
    if kind == "flip":
        np.testing.assert_allclose(np.abs(multipliers + 1).min(), 0, atol=EXACT)
        np.testing.assert_allclose(found.frequency, np.pi / DT, rtol=1e-14)
    else:
        np.testing.assert_allclose(np.abs(multipliers), 1, atol=EXACT)
        np.testing.assert_allclose(found.frequency, np.abs(np.angle(multipliers[0])) / DT, atol=EXACT)
    # From where these lie the nearest of all is found; the tolerance as for the flow.
    np.testing.assert_allclose(found.distance, grid_minima(kind, p).min(), rtol=EXACT)
