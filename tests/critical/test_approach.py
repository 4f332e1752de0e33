"""The nearest bifurcation over all parameters: closed forms, searches on a grid, and the same problem solved otherwise.

Nothing expected here comes from the package: conditions, Jacobians and distances are written out in numpy.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import ssntk

SEEDS = range(4)
# Where each takes seconds: the first ones always, the others with -m slow.
FEW = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
MANY = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
SOME = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
N = 4
# What the search leaves of its conditions, by its own promise; far more than rounding errors of terms of order one.
EXACT = 1e-10


# --- one equation in two parameters: x' = a + b x - x^3, with its folds at a = -2 x^3, b = 3 x^2 ---


def cubic(t, x, u, p):
    return p["a"] + p["b"] * x - x**3


def cubic_model(a, b):
    return ssntk.VectorField(cubic, {"a": a, "b": b}, 1)


def real_roots(coefficients):
    roots = np.roots(coefficients)
    return np.sort(roots[np.abs(roots.imag) < 1e-9].real)


def to_fold(x, a, b, costs=(1.0, 1.0)):
    return np.sqrt(costs[0] * (a + 2 * x**3) ** 2 + costs[1] * (b - 3 * x**2) ** 2)


def nearest_folds(a, b, costs=(1.0, 1.0)):
    """The states at which the distance has a local minimum: roots of its derivative with more distance on both sides."""
    states = np.append(real_roots([2 * costs[0], 0, 3 * costs[1], costs[0] * a, -costs[1] * b]), 0.0)
    return [x for x in states if to_fold(x, a, b, costs) < min(to_fold(x + h, a, b, costs) for h in (1e-3, -1e-3))]


def cubic_starts(seed):
    a, b = np.random.default_rng(seed).normal(size=2)
    return a, b, real_roots([-1, 0, b, a])


def followed(a, b, x, end):
    """Where the equilibrium x goes while (a, b) moves to `end`, by the roots of the polynomial."""
    # Short of the fold, where two roots meet and rounding decides whether they are real.
    for part in np.linspace(0, 0.9999, 4001)[1:]:
        roots = real_roots([-1, 0, b + part * (end[1] - b), a + part * (end[0] - a)])
        near = roots[np.abs(roots - x).argmin()]
        # An equilibrium moves by sqrt(1 / 4000) at the fold itself, and at once by more where it is gone.
        if abs(near - x) > 0.1:
            return np.nan
        x = near
    return x


@pytest.mark.parametrize("seed", MANY)
def test_folds_of_a_cubic(seed):
    a, b, states = cubic_starts(seed)
    model = cubic_model(a, b)
    for x in states[[0, -1]]:
        found = ssntk.approach(model, "singular", x=[x], n_starts=4)
        # One of the local minima, and the nearest of those on the side on which the equilibrium lies.
        minima = [y for y in nearest_folds(a, b) if y * x >= 0]
        nearest = min(minima, key=lambda y: to_fold(y, a, b))
        np.testing.assert_allclose(found.distance, to_fold(nearest, a, b), rtol=EXACT)
        # The minimum is quadratic in x, or quartic at the cusp: the conditions hold to rounding, x to its root.
        np.testing.assert_allclose(found.x, nearest, atol=1e-7)
        end = (float(found.model.params["a"]), float(found.model.params["b"]))
        np.testing.assert_allclose(end, (-2 * nearest**3, 3 * nearest**2), atol=EXACT)
        assert found.kind == ("cusp" if nearest == 0 else "saddle-node")
        # f_xx(1, 1) / 2 = -3 x.
        np.testing.assert_allclose(found.coefficient, -3 * nearest, atol=1e-6)
        assert found.frequency == 0
        assert found.converged
        assert found.minimum
        assert found.reached == bool(abs(followed(a, b, x, end) - nearest) < 0.1)
        assert found.distance == np.nanmin(found.starts)
        assert found.agreeing == np.sum(np.abs(found.starts - found.distance) <= EXACT)


@pytest.mark.parametrize("seed", MANY)
def test_generic_folds_of_a_cubic(seed):
    a, b, states = cubic_starts(seed)
    bound = 0.6
    found = ssntk.approach(cubic_model(a, b), "saddle-node", x=[states[-1]], min_coefficient=bound, n_starts=4)
    # Where the nearest is too flat, |3 x| = bound on either side.
    nearest = min((y for y in nearest_folds(a, b) if y * states[-1] >= 0), key=lambda y: to_fold(y, a, b))
    if abs(3 * nearest) < bound:
        nearest = min((bound / 3, -bound / 3), key=lambda y: to_fold(y, a, b))
    np.testing.assert_allclose(found.distance, to_fold(nearest, a, b), rtol=EXACT)
    np.testing.assert_allclose(found.coefficient, -3 * nearest, atol=1e-7)
    assert found.kind == "saddle-node"
    assert found.converged


@pytest.mark.parametrize("seed", SOME)
def test_what_a_change_costs(seed):
    a, b, states = cubic_starts(seed)
    for costs in ((5.0, 0.3), (0.1, 2.0)):
        metric = {(lambda m: m.params["a"]): costs[0], (lambda m: m.params["b"]): costs[1]}
        found = ssntk.approach(cubic_model(a, b), "singular", x=[states[-1]], metric=metric, n_starts=4)
        minima = np.array([to_fold(y, a, b, costs) for y in nearest_folds(a, b, costs)])
        # Which of the minima depends on where it starts: it is one, to rounding.
        assert np.min(np.abs(found.distance / minima - 1)) <= EXACT


def test_a_network_that_is_there_already():
    fold = cubic_model(0.25, 0.75)
    for kind in ("singular", "saddle-node"):
        found = ssntk.approach(fold, kind, x=[-0.5])
        # Exact numbers: a = -2 x^3, b = 3 x^2 and 1.5 = -3 x.
        assert (found.kind, found.distance, found.family, found.coefficient) == ("saddle-node", 0, None, 1.5)
        assert found.reached
        np.testing.assert_array_equal(found.x, [-0.5])
        assert found.reason.startswith("The network is at a saddle-node already")
    cusp = ssntk.approach(cubic_model(0.0, 0.0), "singular", x=[0.0])
    assert (cusp.kind, cusp.distance, cusp.coefficient) == ("cusp", 0, 0)


def test_the_family_leads_there_and_changes_nothing_else():
    start = cubic_model(0.7, -0.5)
    found = ssntk.approach(start, "saddle-node", x=real_roots([-1, 0, -0.5, 0.7]))
    here, there = found.family(0.0), found.family(found.distance)
    for name in ("a", "b"):
        assert here.params[name] == start.params[name]
        # A product and a sum, rounded.
        np.testing.assert_allclose(there.params[name], found.model.params[name], rtol=0, atol=1e-15)
    # Of unit speed.
    half = found.family(found.distance / 2)
    moved = [float(half.params[name] - start.params[name]) for name in ("a", "b")]
    np.testing.assert_allclose(np.hypot(*moved), found.distance / 2, rtol=1e-14)
    np.testing.assert_array_equal(found.x_start, real_roots([-1, 0, -0.5, 0.7]))


# --- two equations, of which two parameters move, one of them through a sinh ---
# With q = sinh(mu) - v^2 the Jacobian is [[q, -1], [1, -b]]: trace q - b, determinant 1 - b q.


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
    """The conditions at the point in numpy, and that nothing else moved. The eigenvalues of its Jacobian."""
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


@pytest.mark.parametrize("seed", SOME)
def test_flips_of_a_cubic_map(seed):
    # 2 + dt (b - 3 x^2) = 0: b = 3 x^2 - 2 / dt, a = 2 x / dt - 2 x^3.
    rng, dt = np.random.default_rng(seed), 0.5
    a, b = rng.normal(), rng.uniform(-3.9, -2)
    (x,) = real_roots([-1, 0, b, a])
    found = ssntk.approach(ssntk.EulerMap(cubic_model(a, b), dt), "flip", x=[x], n_starts=4)
    assert found.kind == "flip"
    np.testing.assert_allclose(found.frequency, np.pi / dt, rtol=1e-14)
    ends = np.array([float(found.model.params[name]) for name in "ab"])
    (y,) = found.x
    np.testing.assert_allclose(ends, (2 * y / dt - 2 * y**3, 3 * y**2 - 2 / dt), atol=EXACT)
    np.testing.assert_allclose(np.hypot(*(ends - (a, b))), found.distance, rtol=1e-12)
    sizes = scipy.optimize.minimize_scalar(
        lambda y: np.hypot(2 * y / dt - 2 * y**3 - a, 3 * y**2 - 2 / dt - b), bracket=(x - 0.1, x + 0.1), tol=1e-10
    )
    # The same minimum by a search in one dimension from the equilibrium.
    np.testing.assert_allclose(found.distance, sizes.fun, rtol=EXACT)
    assert found.converged
    assert found.reached


# --- networks: tau = gain = 1, so that f = -x + W tanh(x) + b ---


def bent(x):
    """tanh and its first two derivatives."""
    y = np.tanh(x)
    return y, 1 - y**2, -2 * y * (1 - y**2)


def least_squared(W, b, conditions, costs=None):
    """The least sum of costs change^2 of (W, b) that satisfies linear conditions, each (left, right, of b, wanted).

    A condition says left^T W' right + of b * left^T b' = wanted. By the normal equations of the minimum-norm problem.
    """
    n = len(b)
    rows = np.array([np.append(np.outer(left, right).ravel(), of * left) for left, right, of, _ in conditions])
    gaps = np.array([wanted for *_, wanted in conditions]) - rows @ np.append(W.ravel(), b)
    weighed = rows / np.sqrt(np.ones(n * n + n) if costs is None else costs)
    # Conditions may repeat each other, to rounding.
    return float(gaps @ np.linalg.lstsq(weighed @ weighed.T, gaps, rcond=1e-12)[0])


def each_unit(right, of, wanted):
    """W' right + of b' = wanted, unit by unit."""
    return [(unit, right, of, aim) for unit, aim in zip(np.eye(len(wanted)), wanted, strict=True)]


def singular_squared(z, W, b, costs=None):
    """The least squared change that makes x = z[:n] an equilibrium with A v = 0, v = z[n:]."""
    x, v = np.split(z, 2)
    y, slope, _ = bent(x)
    return least_squared(W, b, [*each_unit(y, 1, x), *each_unit(slope * v, 0, v)], costs)


def pair_squared(z, W, b, omega=None):
    """The same with A (v + i w) = i omega (v + i w), omega the last of z unless it is given."""
    x, v, w = np.split(z if omega is not None else z[:-1], 3)
    omega = z[-1] if omega is None else omega
    y, slope, _ = bent(x)
    rows = [*each_unit(y, 1, x), *each_unit(slope * v, 0, v - omega * w), *each_unit(slope * w, 0, w + omega * v)]
    return least_squared(W, b, rows)


def fold_squared(z, W, b):
    """The same as `singular_squared` with A^T l = 0 too, z = (x, v, l)."""
    x, v, left = np.split(z, 3)
    y, slope, _ = bent(x)
    rows = [*each_unit(y, 1, x), *each_unit(slope * v, 0, v)]
    rows += [(left, unit, 0, aim) for unit, aim in zip(np.eye(len(x)), left / slope, strict=True)]
    return least_squared(W, b, rows)


def fold_coefficient(z):
    """l.f_xx(r, r) / 2 with |r| = l.r = 1, where W^T l = l / tanh'(x)."""
    x, v, left = np.split(z, 3)
    _, slope, curve = bent(x)
    return (left / slope) @ (curve * v**2) / (2 * (left @ v) * np.linalg.norm(v))


def descent(function, z, seed, **how):
    """The value at the minimum that a quasi-Newton search by differences finds from nearby."""
    begin = z + 0.01 * np.random.default_rng(seed).normal(size=z.shape)
    return scipy.optimize.minimize(function, begin, tol=1e-11, **how).fun


def equilibrium(W, b, x):
    """The equilibrium that relaxation leads to."""
    for _ in range(400):
        x = x + 0.2 * (-x + W @ np.tanh(x) + b)
    for _ in range(20):
        x = x - np.linalg.solve(W * bent(x)[1] - np.eye(len(x)), -x + W @ np.tanh(x) + b)
    return x


def network(seed, bistable=False):
    """A random network and an equilibrium: monostable with W about 0.6, bistable where every unit excites itself."""
    rng = np.random.default_rng(seed)
    W, b = 0.6 * rng.normal(size=(N, N)) / N**0.5, 0.5 * rng.normal(size=N)
    if bistable:
        W, b = W / 2 + 1.7 * np.eye(N), b / 5
    x = equilibrium(W, b, 2 * rng.choice([-1.0, 1.0], N) if bistable else np.zeros(N))
    return W, b, x, ssntk.CTRNN.from_weights(W, bias=b)


@pytest.fixture(scope="module")
def found():
    """Approaches, each computed once: found(seed, kind, bistable)."""
    known = {}

    def search(seed, kind, bistable=False):
        if (seed, kind, bistable) not in known:
            _, _, x, model = network(seed, bistable)
            known[seed, kind, bistable] = ssntk.approach(model, kind, x=x, n_starts=4)
        return known[seed, kind, bistable]

    return search


def check_network(path, W, b, costs=1.0):
    """f = 0, A r = i omega r and what the change costs, in numpy; nothing else of the network moved. Its W and A."""
    new_W, new_b = np.asarray(path.model.weight), np.asarray(path.model.bias)
    y, slope, _ = bent(path.x)
    np.testing.assert_allclose(-path.x + new_W @ y + new_b, 0, atol=EXACT)
    A = new_W * slope - np.eye(N)
    size = np.linalg.svd(1j * path.frequency * np.eye(N) - A, compute_uv=False)[-1]
    np.testing.assert_allclose(size, 0, atol=EXACT)
    np.testing.assert_allclose(A @ path.right, 1j * path.frequency * path.right, atol=EXACT)
    change = np.append((new_W - W).ravel(), new_b - b)
    np.testing.assert_allclose(np.sqrt((costs * change**2).sum()), path.distance, rtol=1e-12)
    assert path.converged
    assert path.minimum
    assert (path.model.gain, path.model.tau) == (1, 1)
    np.testing.assert_array_equal(path.model.readout_weight, np.eye(N))
    return new_W, A


@pytest.mark.parametrize("seed", SEEDS)
def test_a_monostable_network_meets_a_cusp(found, seed):
    W, b, _, _ = network(seed)
    path = found(seed, "singular")
    new_W, A = check_network(path, W, b)
    assert path.kind in ("cusp", "pitchfork")
    # There the fold's coefficient vanishes: to the root of rounding where two minima meet, to rounding else.
    left, _, right = np.linalg.svd(A)
    right, left = right[-1], left[:, -1] / (left[:, -1] @ right[-1])
    np.testing.assert_allclose(left @ new_W @ (bent(path.x)[2] * right**2) / 2, 0, atol=1e-7 * np.linalg.norm(left))
    np.testing.assert_allclose(path.coefficient, 0, atol=1e-7 * np.linalg.norm(left))
    # The change is the least for this x and r, and no other x and r nearby need less: a search of its own, by differences.
    z = np.concatenate([path.x, path.right])
    np.testing.assert_allclose(singular_squared(z, W, b), path.distance**2, rtol=1e-9)
    # Differences give the gradient to 1e-8, and the value to the square of that over the curvature.
    np.testing.assert_allclose(descent(lambda z: singular_squared(z, W, b), z, seed), path.distance**2, rtol=1e-7)


@pytest.mark.parametrize("seed", SOME)
def test_its_nearest_generic_fold_lies_at_the_bound(found, seed):
    W, b, _, _ = network(seed)
    path = found(seed, "saddle-node")
    new_W, A = check_network(path, W, b)
    assert path.kind == "saddle-node"
    # tau = 1: the default bound is 0.05.
    left, _, right = np.linalg.svd(A)
    right, left = right[-1], left[:, -1] / (left[:, -1] @ right[-1])
    coefficient = left @ new_W @ (bent(path.x)[2] * right**2) / 2
    np.testing.assert_allclose(abs(coefficient), 0.05, atol=EXACT * np.linalg.norm(left))
    np.testing.assert_allclose(abs(path.coefficient), 0.05, atol=EXACT * np.linalg.norm(left))
    assert path.distance > found(seed, "singular").distance
    # The least change under the constraint, by sequential quadratic programming, whose steps are differences.
    z = np.concatenate([path.x, path.right, path.left / np.linalg.norm(path.left)])
    np.testing.assert_allclose(fold_squared(z, W, b), path.distance**2, rtol=1e-9)
    bound = {"type": "eq", "fun": lambda z: fold_coefficient(z) - path.coefficient}
    other = descent(lambda z: fold_squared(z, W, b), z, seed, method="SLSQP", constraints=[bound], options={"maxiter": 400})
    np.testing.assert_allclose(other, path.distance**2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_its_nearest_pair(found, seed):
    W, b, _, _ = network(seed)
    path = found(seed, "hopf")
    check_network(path, W, b)
    parts = [path.x, path.right.real, path.right.imag]
    if path.kind == "hopf":
        assert path.frequency > 0.05
        z = np.concatenate([*parts, [path.frequency]])
        np.testing.assert_allclose(pair_squared(z, W, b), path.distance**2, rtol=1e-9)
        np.testing.assert_allclose(descent(lambda z: pair_squared(z, W, b), z, seed), path.distance**2, rtol=1e-7)
        return
    # Slower pairs are nearer: the frequency is the least that is allowed, and to lower it would help.
    assert path.kind == "Bogdanov-Takens boundary"
    np.testing.assert_allclose(path.frequency, 0.05, rtol=EXACT)
    z = np.concatenate(parts)
    np.testing.assert_allclose(pair_squared(z, W, b, 0.05), path.distance**2, rtol=1e-9)
    values = [descent(lambda z, omega=omega: pair_squared(z, W, b, omega), z, seed) for omega in (0.05, 0.045)]
    np.testing.assert_allclose(values[0], path.distance**2, rtol=1e-7)
    assert values[1] < values[0]


@pytest.mark.parametrize("seed", SOME)
def test_a_bistable_network_meets_a_true_fold(found, seed):
    W, b, _, _ = network(seed, bistable=True)
    path = found(seed, "singular", bistable=True)
    check_network(path, W, b)
    assert path.kind == "saddle-node"
    assert abs(path.coefficient) > 0.05
    assert path.reached
    z = np.concatenate([path.x, path.right])
    np.testing.assert_allclose(descent(lambda z: singular_squared(z, W, b), z, seed), path.distance**2, rtol=1e-7)
    # It is generic, so that asking for that gives the same.
    same = found(seed, "saddle-node", bistable=True)
    np.testing.assert_allclose(same.distance, path.distance, rtol=EXACT)


@pytest.mark.parametrize("wrt", [None, pytest.param(lambda m: m.weight, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", SOME)
def test_at_the_origin_it_is_the_smallest_singular_value(wrt, seed):
    W, _, _, _ = network(seed)
    lefts, sizes, rights = np.linalg.svd(W - np.eye(N))
    path = ssntk.approach(ssntk.CTRNN.from_weights(W), "singular", x=np.zeros(N), wrt=wrt, n_starts=4)
    # The matrix nearest to A that is singular (Eckart and Young, 1936); where the field is odd it is a pitchfork.
    np.testing.assert_allclose(path.distance, sizes[-1], rtol=EXACT)
    np.testing.assert_allclose(path.model.weight, W - sizes[-1] * np.outer(lefts[:, -1], rights[-1]), atol=1e-9)
    # Nothing pushes the bias, but for rounding.
    np.testing.assert_allclose(path.model.bias, 0, atol=1e-9 if wrt is None else 0)
    assert path.kind == "pitchfork"


@pytest.mark.parametrize("seed", SOME)
def test_costs_of_each_entry(seed):
    W, b, x, model = network(seed)
    rng = np.random.default_rng(seed + 10)
    each, of_bias = rng.uniform(0.2, 5.0, (N, N)), 3.0
    path = ssntk.approach(model, "singular", x=x, metric={"weight": each, "bias": of_bias}, n_starts=4)
    costs = np.append(each.ravel(), np.full(N, of_bias))
    check_network(path, W, b, costs)
    z = np.concatenate([path.x, path.right])
    np.testing.assert_allclose(singular_squared(z, W, b, costs), path.distance**2, rtol=1e-9)
    np.testing.assert_allclose(descent(lambda z: singular_squared(z, W, b, costs), z, seed), path.distance**2, rtol=1e-7)


@pytest.mark.parametrize("seed", SOME)
def test_signs_are_kept(seed):
    W, b, _, _ = network(seed)
    # Columns of one sign (Dale's law), every other entry weak, so that some want to change sign.
    W = np.abs(W) * np.array([1, 1, -1, -1]) * np.where(np.add.outer(np.arange(N), np.arange(N)) % 2, 0.05, 1.0)
    x = equilibrium(W, b, np.zeros(N))
    signs = np.tile([1.0, 1.0, -1.0, -1.0], (N, 1))
    model = ssntk.CTRNN.from_weights(W, bias=b)
    path = ssntk.approach(model, "singular", x=x, signs={"weight": signs}, n_starts=4)
    new_W, _ = check_network(path, W, b)
    assert (new_W * signs >= 0).all()
    # Some are held at zero, and the way is longer for it.
    assert (new_W == 0).any()
    free = singular_squared(np.concatenate([path.x, path.right]), W, b)
    assert path.distance**2 > free * (1 + 1e-6)

    # The same problem in all its unknowns (W, b, x, v) by sequential quadratic programming.
    def field(z):
        W, b, x, v = z[: N * N].reshape(N, N), *np.split(z[N * N :], 3)
        y, slope, _ = bent(x)
        return np.concatenate([-x + W @ y + b, -v + W @ (slope * v), [v @ v - 1]])

    start = np.append(W.ravel(), b)
    ends = np.stack([np.where(signs > 0, 0, -np.inf).ravel(), np.where(signs < 0, 0, np.inf).ravel()], 1)
    z = np.concatenate([new_W.ravel(), path.model.bias, path.x, path.right])
    found = scipy.optimize.minimize(
        lambda z: ((z[: len(start)] - start) ** 2).sum(),
        z + 0.01 * np.random.default_rng(seed).normal(size=z.shape),
        method="SLSQP",
        bounds=[*ends, *[(None, None)] * (3 * N)],
        constraints=[{"type": "eq", "fun": field}],
        options={"ftol": 1e-13, "maxiter": 500},
    )
    # What sequential quadratic programming by differences resolves.
    np.testing.assert_allclose(found.fun, path.distance**2, rtol=1e-6)


def test_the_family_of_a_network(found):
    path = found(0, "singular")
    there = path.family(path.distance)
    for name in ("weight", "bias"):
        # A product and a sum, rounded.
        np.testing.assert_allclose(getattr(there, name), getattr(path.model, name), rtol=0, atol=4e-16)
        np.testing.assert_array_equal(getattr(path.family(0.0), name), getattr(network(0)[3], name))


@pytest.mark.slow
@pytest.mark.parametrize("n", [16, 32])
@pytest.mark.parametrize("kind", ["singular", "saddle-node", "hopf"])
def test_large_networks(kind, n):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        W, b = 0.6 * rng.normal(size=(n, n)) / n**0.5, 0.5 * rng.normal(size=n)
        x = equilibrium(W, b, np.zeros(n))
        path = ssntk.approach(ssntk.CTRNN.from_weights(W, bias=b), kind, x=x, n_starts=4)
        new_W, new_b = np.asarray(path.model.weight), np.asarray(path.model.bias)
        y, slope, _ = bent(path.x)
        np.testing.assert_allclose(-path.x + new_W @ y + new_b, 0, atol=EXACT)
        shifted = 1j * path.frequency * np.eye(n) - new_W * slope + np.eye(n)
        assert np.linalg.svd(shifted, compute_uv=False)[-1] < EXACT
        np.testing.assert_allclose(np.sqrt(((new_W - W) ** 2).sum() + ((new_b - b) ** 2).sum()), path.distance, rtol=1e-12)
        if kind == "singular":
            z = np.concatenate([path.x, path.right])
            np.testing.assert_allclose(singular_squared(z, W, b), path.distance**2, rtol=1e-8)


# --- what does not fit ---

FLOW = cubic_model(0.7, -0.5)
NET = ssntk.CTRNN.from_weights(np.diag([0.5, -0.5]), bias=[0.1, 0.2])


@pytest.mark.parametrize(
    ("model", "how", "name"),
    [
        (FLOW, {"kind": "fold"}, "kind"),
        (FLOW, {"kind": "flip"}, "kind"),
        (ssntk.EulerMap(FLOW, 0.1), {"kind": "hopf"}, "kind"),
        (FLOW, {"x": [0.0, 1.0]}, "x"),
        (FLOW, {"x": [np.nan]}, "x"),
        (FLOW, {"u": [1.0]}, "u"),
        (FLOW, {"wrt": lambda m: m.weight}, "wrt"),
        (FLOW, {"wrt": lambda m: 2.0}, "wrt"),
        (NET, {"metric": 2.0}, "metric"),
        (NET, {"metric": {"weight": -1.0}}, "metric"),
        (NET, {"metric": {"weight": 0.0}}, "metric"),
        (NET, {"metric": {"weight": np.nan}}, "metric"),
        (NET, {"metric": {"weight": np.ones(3)}}, "metric"),
        (NET, {"metric": {"tau": 1.0}}, "metric"),
        (NET, {"metric": {"wait": 1.0}}, "metric"),
        (NET, {"metric": {3: 1.0}}, "metric"),
        (NET, {"signs": [1.0]}, "signs"),
        (NET, {"signs": {"weight": 2.0}}, "signs"),
        (NET, {"signs": {"weight": 1.0}}, "signs"),
        (NET, {"signs": {"bias": np.ones(3)}}, "signs"),
        (NET, {"signs": {"bias": 1.0}, "wrt": lambda m: m.weight}, "signs"),
        (FLOW, {"min_coefficient": 0.0}, "min_coefficient"),
        (FLOW, {"min_coefficient": [0.1, 0.2]}, "min_coefficient"),
        (FLOW, {"omega_min": -1.0}, "omega_min"),
        (FLOW, {"omega_min": np.inf}, "omega_min"),
        (FLOW, {"n_starts": 0}, "n_starts"),
        (FLOW, {"key": 0}, "key"),
    ],
)
def test_what_does_not_fit_is_named(model, how, name):
    x = {"x": equilibrium(np.diag([0.5, -0.5]), np.array([0.1, 0.2]), np.zeros(2))} if model is NET else {}
    if model is FLOW and "x" not in how:
        x = {"x": real_roots([-1, 0, -0.5, 0.7])}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        ssntk.approach(model, **{"kind": "singular"} | x | how)


def test_what_cannot_be_found_says_so():
    x = real_roots([-1, 0, -0.5, 0.7])
    with pytest.raises(ssntk.NumericalError, match="is not a fixed point"):
        ssntk.approach(FLOW, "singular", x=x + 0.1)
    # a has no part in f_x = b - 3 x^2, which is negative where b is.
    with pytest.raises(ssntk.NumericalError, match="none of 2 starts led to a singular point"):
        ssntk.approach(FLOW, "singular", x=x, n_starts=2, wrt=lambda m: m.params["a"])
