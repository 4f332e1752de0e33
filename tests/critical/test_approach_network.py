"""The nearest bifurcation of networks, f = -x + W tanh(x) + b (tau = gain = 1), compared with other ways to compute it.

Nothing expected here comes from the package: conditions, Jacobians and distances are written out in numpy.
"""

import numpy as np
import pytest
import scipy.optimize
from helpers import EXACT, seeds

import ssntk

SEEDS, SOME, N = range(4), seeds(1, 4), 4


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
    """A random network and an equilibrium: monostable with W about 0.6, or `bistable` by self-excitation of every unit."""
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
    """Check in numpy that f = 0, that A r = i omega r, the cost of the change, and that nothing else of the network moved.
    Returns W and A."""
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
    # Slower pairs are nearer, so that the frequency is the smallest one that is allowed, and a smaller one would be nearer.
    assert path.kind == "Bogdanov-Takens boundary"
    np.testing.assert_allclose(path.frequency, 0.05, rtol=EXACT)
    z = np.concatenate(parts)
    np.testing.assert_allclose(pair_squared(z, W, b, 0.05), path.distance**2, rtol=1e-9)
    values = [descent(lambda z, omega=omega: pair_squared(z, W, b, omega), z, seed) for omega in (0.05, 0.045)]
    np.testing.assert_allclose(values[0], path.distance**2, rtol=1e-7)
    assert values[1] < values[0]


def arrives(path, W, b):
    """Whether the network's own equilibrium comes to the fold, if it is followed up to shortly before it."""
    x = path.x_start
    for part in np.linspace(0, 1 - 1e-4, 2001):
        there, bias = (own + part * (np.asarray(end) - own) for own, end in ((W, path.model.weight), (b, path.model.bias)))
        for _ in range(20):
            y, slope, _ = bent(x)
            x = x - np.linalg.solve(there * slope - np.eye(len(x)), -x + there @ y + bias)
    # An equilibrium is sqrt(1e-4) times its curvature away there.
    return np.abs(x - path.x).max() < 0.1


@pytest.mark.parametrize("seed", SOME)
def test_a_bistable_network_meets_a_true_fold(found, seed):
    W, b, _, _ = network(seed, bistable=True)
    path = found(seed, "singular", bistable=True)
    check_network(path, W, b)
    assert path.kind == "saddle-node"
    assert abs(path.coefficient) > 0.05
    # The nearest fold may be another equilibrium's.
    assert path.reached or not arrives(path, W, b)
    z = np.concatenate([path.x, path.right])
    np.testing.assert_allclose(descent(lambda z: singular_squared(z, W, b), z, seed), path.distance**2, rtol=1e-7)
    # The fold is generic, so that requesting a generic one gives the same point.
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
    # The bias does not move, except by rounding.
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
    # Some entries are held at zero, and the distance is therefore larger.
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
