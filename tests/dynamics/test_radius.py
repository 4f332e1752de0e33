"""The stability radius against closed forms, a Lipschitz-bounded search over the frequency, and its own definition."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import ssntk

EPS = np.finfo(float).eps
SEEDS = range(8)
STEPS = (None, 0.1, 1.0)


def edge_at(w, dt):
    """The eigenvalue of df/dx at which a mode of frequency w neither grows nor decays."""
    return 1j * w if dt is None else (np.exp(1j * w * dt) - 1) / dt


def smallest(A, w, dt=None):
    shifted = np.asarray(edge_at(np.asarray(w), dt))[..., None, None] * np.eye(len(A)) - A
    return np.linalg.svd(shifted, compute_uv=False)[..., -1]


def brute_force(A, dt=None, count=2001):
    """min_w sigma_min(s(w) - A) by a grid, every cell that may hold the minimum refined.

    sigma_min moves by no more than w does (s turns with unit speed), so a cell whose lower end exceeds the best by its
    width cannot hold it; above 2 |A| it exceeds |A| >= sigma_min(A).
    """
    grid = np.linspace(0, 2 * np.linalg.norm(A, 2) if dt is None else np.pi / dt, count)
    sizes = smallest(A, grid, dt)
    best, at = sizes.min(), grid[sizes.argmin()]
    for i in np.argsort(np.minimum(sizes[:-1], sizes[1:])):
        if (sizes[i] + sizes[i + 1] - (grid[1] - grid[0])) / 2 > best:
            continue
        found = scipy.optimize.minimize_scalar(
            lambda w: smallest(A, w, dt), bounds=grid[i : i + 2], method="bounded", options={"xatol": 1e-12}
        )
        if found.fun < best:
            best, at = found.fun, found.x
    return best, at


def random_matrix(seed, n=8):
    """A stable random matrix, more or less normal: Gaussian, sheared, triangular, or a companion matrix."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) / n**0.5
    if seed % 4 == 1:
        A = np.triu(A, 1) * 3 - np.diag(rng.uniform(0.2, 1.0, n))
    if seed % 4 == 2:
        stretch = np.diag(np.geomspace(1, 30, n))
        A = stretch @ A @ np.linalg.inv(stretch)
    if seed % 4 == 3:
        # The companion matrix of prod (s + a)^2 + b^2, as for a network of oscillators.
        roots = -rng.uniform(0.1, 1.0, n // 2) + 1j * rng.uniform(0.3, 2.0, n // 2)
        return scipy.linalg.companion(np.poly(np.concatenate([roots, roots.conj()])).real)
    return A - (np.linalg.eigvals(A).real.max() + rng.uniform(0.05, 0.5)) * np.eye(n)


def rotation(seed, n):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def normal_matrix(seed, n=8):
    """A normal matrix, and its eigenvalues in the upper half plane."""
    rng = np.random.default_rng(seed)
    values = -rng.uniform(0.1, 2.0, n // 2) + 1j * rng.uniform(0, 3.0, n // 2)
    blocks = scipy.linalg.block_diag(*[[[z.real, z.imag], [-z.imag, z.real]] for z in values])
    Q = rotation(seed + 100, n)
    return Q @ blocks @ Q.T, values


def oscillator(omega, damping):
    """The companion matrix of s^2 + 2 damping omega s + omega^2, its radius and frequency.

    The two singular values have product |det| and squares that sum to the Frobenius norm squared: of s = w^2 the smaller
    square is s + F / 2 - sqrt(alpha s + beta) / 2, which is convex.
    """
    b, c = 2 * damping * omega, omega**2
    F = 1 + b**2 + c**2
    alpha, beta = 4 * F - 4 * b**2 + 8 * c, F**2 - 4 * c**2
    s = max((alpha / 16 - beta / alpha), 0.0)
    size = np.sqrt(alpha * s + beta)
    # |det|^2 over the larger square: without cancellation.
    square = ((c - s) ** 2 + b**2 * s) / ((2 * s + F + size) / 2)
    return np.array([[0, 1], [-c, -b]]), np.sqrt(square), np.sqrt(s)


@pytest.mark.parametrize("dt", STEPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_the_global_minimum_over_the_frequency(seed, dt):
    A = random_matrix(seed)
    radius, frequency = ssntk.stability_radius(A, dt=dt)
    best, _ = brute_force(A, dt)
    # Both come from the same singular values, whose rounding error is some eps of the largest; 11 digits are promised.
    np.testing.assert_allclose(abs(radius), best, rtol=1e-10, atol=50 * EPS * np.linalg.norm(A, 2))
    # It is attained at the frequency that it names, which may be another one than the grid's.
    np.testing.assert_allclose(smallest(A, float(frequency), dt), best, rtol=1e-10, atol=50 * EPS * np.linalg.norm(A, 2))
    assert frequency >= 0
    values = np.linalg.eigvals(A)
    grows = values.real.max() if dt is None else np.abs(1 + dt * values).max() - 1
    assert np.sign(radius) == -np.sign(grows)


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_matrices_have_their_abscissa(seed):
    A, values = normal_matrix(seed)
    radius, frequency = ssntk.stability_radius(A)
    slowest = values[values.real.argmax()]
    # Q has rounding errors of some eps in each of n terms.
    np.testing.assert_allclose(radius, -slowest.real, rtol=0, atol=1e-13)
    # The minimum of sqrt(a^2 + (w - w0)^2) is as sharp as the rounding error of A itself: Newton finds it to 1e-10.
    np.testing.assert_allclose(frequency, slowest.imag, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dt", [0.1, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_normal_maps_have_the_distance_of_a_multiplier_from_the_circle(seed, dt):
    A, values = normal_matrix(seed)
    multipliers = 1 + dt * values
    nearest = multipliers[np.abs(1 - np.abs(multipliers)).argmin()]
    sign = 1 if np.abs(multipliers).max() < 1 else -1
    radius, frequency = ssntk.stability_radius(A, dt=dt)
    # The tolerances of the flow, by dt.
    np.testing.assert_allclose(radius, sign * abs(1 - abs(nearest)) / dt, rtol=0, atol=1e-13 / dt)
    np.testing.assert_allclose(frequency, np.angle(nearest) / dt, rtol=0, atol=1e-10 / dt)


def test_a_flip_is_at_the_end_of_the_circle():
    # Symmetric with multipliers -0.9, 0.5, -0.2: nearest to the circle at -1, by 0.1 / dt.
    dt, Q = 0.5, rotation(0, 3)
    A = Q @ np.diag((np.array([-0.9, 0.5, -0.2]) - 1) / dt) @ Q.T
    radius, frequency = ssntk.stability_radius(A, dt=dt)
    # Rounding errors of Q, by dt.
    np.testing.assert_allclose(radius, 0.1 / dt, rtol=0, atol=1e-14 / dt)
    np.testing.assert_allclose(frequency, np.pi / dt, rtol=1e-7)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("a", [0.05, 0.5, 3.0])
def test_jordan_blocks(n, a):
    # |i w + a| >= a, and the resolvent's entries are powers of it: the minimum is at w = 0.
    A = -a * np.eye(n) + np.eye(n, k=1)
    inverse = np.array([[a ** -(j - i + 1.0) if j >= i else 0.0 for j in range(n)] for i in range(n)])
    exact = 1 / np.linalg.norm(inverse, 2)
    if n == 2:
        np.testing.assert_allclose(exact, 2 * a**2 / (np.sqrt(4 * a**2 + 1) + 1), rtol=1e-13)
    radius, frequency = ssntk.stability_radius(A)
    # Singular values are known to some eps of the largest, which is about 1 + a.
    np.testing.assert_allclose(radius, exact, rtol=1e-10, atol=4 * EPS * (1 + a))
    assert frequency <= 1e-6


@pytest.mark.parametrize("damping", [1e-3, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("omega", [0.3, 1.0, 4.0])
def test_oscillators(omega, damping):
    A, exact, at = oscillator(omega, damping)
    radius, frequency = ssntk.stability_radius(A)
    np.testing.assert_allclose(radius, exact, rtol=1e-10, atol=4 * EPS * np.linalg.norm(A, 2))
    # The frequency of a minimum is known to eps / (radius curvature) at best.
    np.testing.assert_allclose(frequency, at, rtol=1e-9, atol=1e-7)
    unstable, _ = ssntk.stability_radius(oscillator(omega, -damping)[0])
    np.testing.assert_allclose(unstable, -exact, rtol=1e-10, atol=4 * EPS * np.linalg.norm(A, 2))


def test_the_minimum_may_lie_far_from_the_slowest_modes():
    # Fifteen slow normal pairs, which come no nearer than 0.1, and a fast pair whose shear brings it to 0.03.
    slow = [[[-0.1 - 0.01 * k, 1.0 + k], [-1.0 - k, -0.1 - 0.01 * k]] for k in range(15)]
    fast = np.array([[-2.0, 1 / 60], [-60 * 5.3**2, -2.0]])
    _, at = brute_force(fast)
    alone = smallest(fast, at)
    assert alone < 0.09
    Q = rotation(1, 32)
    A = Q @ scipy.linalg.block_diag(*slow, fast) @ Q.T
    radius, frequency = ssntk.stability_radius(A)
    # Rounding errors of Q beside |A| = 1700.
    np.testing.assert_allclose(radius, alone, rtol=0, atol=32 * EPS * np.linalg.norm(A, 2))
    np.testing.assert_allclose(frequency, at, rtol=1e-6)


@pytest.mark.parametrize("dt", [None, 0.1])
def test_one_unit_and_matrices_on_the_edge(dt):
    np.testing.assert_allclose(ssntk.stability_radius([[-0.7]], dt=dt), (0.7, 0.0), rtol=1e-15)
    np.testing.assert_allclose(ssntk.stability_radius([[0.7]], dt=dt), (-0.7, 0.0), rtol=1e-15)
    np.testing.assert_array_equal(ssntk.stability_radius(np.zeros((3, 3)), dt=dt), (0.0, 0.0))
    # A pair on the edge: 1 + dt A turns without growing.
    turn = 0.8
    value = 1j * turn if dt is None else (np.exp(1j * turn * dt) - 1) / dt
    radius, frequency = ssntk.stability_radius([[value.real, -value.imag], [value.imag, value.real]], dt=dt)
    # Some eps of |A| / dt.
    np.testing.assert_allclose(radius, 0, atol=1e-14)
    np.testing.assert_allclose(frequency, turn, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_leaves_it_as_it_is(seed):
    A, Q = random_matrix(seed), rotation(seed, 8)
    radius, frequency = ssntk.stability_radius(A)
    # Exact but for rounding errors of the matrix, which move a singular value by no more than their norm.
    size = 20 * EPS * np.linalg.norm(A, 2)
    for same in (Q @ A @ Q.T, A.T, scipy.linalg.block_diag(A, -np.linalg.norm(A, 2) * np.eye(2))):
        np.testing.assert_allclose(ssntk.stability_radius(same)[0], radius, rtol=1e-10, atol=size)
    for factor in (1e-6, 3.0, 1e8):
        scaled, turned = ssntk.stability_radius(factor * A)
        np.testing.assert_allclose(scaled, factor * radius, rtol=1e-10, atol=factor * size)
        np.testing.assert_allclose(smallest(A, float(turned) / factor), radius, rtol=1e-10, atol=size)
        # Time in other units: the map's step goes with it.
        mapped = [ssntk.stability_radius(one, dt=dt)[0] for one, dt in ((A, 0.1), (factor * A, 0.1 / factor))]
        np.testing.assert_allclose(mapped[1], factor * mapped[0], rtol=1e-10, atol=factor * size)
    assert frequency >= 0


def test_batches():
    A = np.stack([random_matrix(seed) for seed in range(6)]).reshape(2, 3, 8, 8)
    radius, frequency = ssntk.stability_radius(A)
    assert radius.shape == frequency.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal((radius[i], frequency[i]), ssntk.stability_radius(A[i]))
    # The same code runs behind a callback, so that every digit agrees.
    np.testing.assert_array_equal(jax.jit(ssntk.stability_radius)(A), (radius, frequency))
    np.testing.assert_array_equal(jax.vmap(ssntk.stability_radius)(jnp.asarray(A)), (radius, frequency))
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.vmap(ssntk.stability_radius)))(A), (radius, frequency))
    empty = ssntk.stability_radius(np.zeros((0, 4, 4)))
    assert empty[0].shape == empty[1].shape == (0,)


def test_single_precision_is_kept():
    A = random_matrix(0)
    with pytest.warns(ssntk.PrecisionWarning):
        radius, frequency = ssntk.stability_radius(A.astype(np.float32))
    assert radius.dtype == frequency.dtype == jnp.float32
    # The rounding error of A in float32, by at most 8 terms.
    np.testing.assert_allclose(radius, brute_force(A)[0], atol=8 * 1.2e-7 * np.linalg.norm(A, 2))


@pytest.mark.parametrize("dt", [None, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_derivatives(seed, dt):
    A = random_matrix(seed)
    A = A + (0.8 * np.eye(8) if seed >= 6 else 0)
    sign = np.sign(ssntk.stability_radius(A, dt=dt)[0])

    @jax.jit
    def both(A):
        return tuple(jax.grad(lambda A, i=i: ssntk.stability_radius(A, dt=dt)[i])(A) for i in (0, 1))

    by_radius, by_frequency = both(A)
    _, at = brute_force(A, dt)
    left, sizes, right = np.linalg.svd(edge_at(at, dt) * np.eye(8) - A)
    exact = -sign * np.real(np.outer(left[:, -1].conj(), right[-1].conj()))
    # Singular vectors turn by 1 / gap for the frequency's error of about 1e-8, the square root of what brute force resolves.
    np.testing.assert_allclose(by_radius, exact, atol=1e-7 / (sizes[-2] - sizes[-1]))
    # Central differences: h^2 of truncation and eps / h of rounding.
    rng, h = np.random.default_rng(seed), 1e-5
    for _ in range(3):
        moved = rng.normal(size=(8, 8))
        moved /= np.linalg.norm(moved)
        ends = [ssntk.stability_radius(A + side * h * moved, dt=dt) for side in (1, -1)]
        slopes = [(float(up) - float(down)) / (2 * h) for up, down in zip(*ends, strict=True)]
        np.testing.assert_allclose((by_radius * moved).sum(), slopes[0], atol=1e-6)
        np.testing.assert_allclose((by_frequency * moved).sum(), slopes[1], rtol=1e-4, atol=1e-5)


def test_derivatives_of_batches():
    A = jnp.stack([jnp.asarray(random_matrix(seed)) for seed in range(4)])

    def radius(A):
        return ssntk.stability_radius(A)[0]

    grad = jax.jit(jax.grad(radius))
    each = jnp.stack([grad(one) for one in A])
    # The same numbers by another way of tracing.
    np.testing.assert_array_equal(jax.grad(lambda A: radius(A).sum())(A), each)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(radius)))(A), each)
    along = jr.normal(jr.key(0), A.shape)
    # Forward and reverse differ by the order of a sum.
    np.testing.assert_allclose(jax.jvp(radius, (A,), (along,))[1], (each * along).sum((1, 2)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dt", [None, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_the_smallest_perturbation_that_destabilises(seed, dt):
    A = random_matrix(seed)
    radius, frequency = (float(part) for part in ssntk.stability_radius(A, dt=dt))
    if radius < 0:
        # A map that is unstable though its flow is not: the same with a matrix that shrinks.
        A = A / 4
        radius, frequency = (float(part) for part in ssntk.stability_radius(A, dt=dt))
    value = edge_at(frequency, dt)
    lefts, _, rights = np.linalg.svd(value * np.eye(8) - A)
    pushed = radius * np.outer(lefts[:, -1], rights[-1])

    def growth(A):
        values = np.linalg.eigvals(A)
        return values.real.max() if dt is None else (np.abs(1 + dt * values).max() - 1) / dt

    np.testing.assert_allclose(np.linalg.norm(pushed, 2), radius, rtol=1e-12)
    # (s - A - r u v^H) v = 0: exact but for rounding.
    assert smallest(A + pushed, frequency, dt) <= 20 * EPS * np.linalg.norm(A, 2)
    # A little more of it destabilises, a little less does not, and no smaller change that is drawn here does: some of them
    # lie along that direction, others anywhere.
    assert growth(A) < 0
    assert growth(A + 1.001 * pushed) > 0
    rng = np.random.default_rng(seed)
    for size in (0.0, 0.03, 0.3, 10.0):
        for _ in range(25):
            other = pushed + size * radius * (rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8))) / 8**0.5
            other *= 0.999 * radius / np.linalg.norm(other, 2)
            assert growth(A + other) < 0


@pytest.mark.parametrize(
    ("A", "how", "name"),
    [
        (np.ones(3), {}, "A"),
        (1.0, {}, "A"),
        (np.ones((2, 3)), {}, "A"),
        (np.ones((4, 0, 0)), {}, "A"),
        (np.full((2, 2), np.nan), {}, "A"),
        (np.array([[np.inf, 0], [0, -1]]), {}, "A"),
        (np.eye(2) * 1j, {}, "A"),
        ("identity", {}, "A"),
        ([[1.0], [1.0, 2.0]], {}, "A"),
        (-np.eye(2), {"dt": 0.0}, "dt"),
        (-np.eye(2), {"dt": -1.0}, "dt"),
        (-np.eye(2), {"dt": np.nan}, "dt"),
        (-np.eye(2), {"dt": [0.1, 0.2]}, "dt"),
    ],
)
def test_what_does_not_fit_is_named(A, how, name):
    with pytest.raises(ValueError, match=rf"^{name} must"):
        ssntk.stability_radius(A, **how)


def test_what_is_traced():
    with pytest.raises(ValueError, match=r"^dt must be concrete"):
        jax.jit(lambda dt: ssntk.stability_radius(-jnp.eye(2), dt=dt))(0.1)
    with pytest.raises(ValueError, match=r"^A must have shape"):
        jax.jit(ssntk.stability_radius)(np.ones((2, 3)))
    # While tracing, values cannot be checked: the result for NaN is NaN.
    broken = np.stack([np.full((2, 2), np.nan), -np.eye(2)])
    radius, frequency = jax.jit(ssntk.stability_radius)(broken)
    np.testing.assert_array_equal(radius, [np.nan, 1.0])
    np.testing.assert_array_equal(frequency, [np.nan, 0.0])
