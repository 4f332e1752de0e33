"""The nearest network with a margin: closed forms, grids, and networks that are feasible without being nearer."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import cubic_field

import ssntk

MARGIN = 0.35
WIDE = 0.6  # more than any of the random networks has


def network(jacobian):
    """A CTRNN without inputs, at rest at zero, whose df/dx there is `jacobian`."""
    return ssntk.CTRNN.from_weights(np.eye(len(jacobian)) + np.asarray(jacobian))


def weights(model):
    return model.weight


def radius(weight, points=3001):
    """By a dense grid of frequencies, at rest at zero."""
    n = len(weight)
    grid = np.linspace(0, 3, points)[:, None, None]
    sizes = np.linalg.svd(1j * grid * np.eye(n) + np.eye(n) - weight, compute_uv=False)[:, -1]
    return sizes.min()


@pytest.fixture(scope="module")
def repaired():
    """Random networks of 8 units, not selected, and their retreats."""
    models = [ssntk.CTRNN(8, 1, 1, gain=0.85, key=jr.key(seed)) for seed in range(6)]
    return [(model, ssntk.retreat(model, WIDE, wrt=weights, full=True)) for model in models]


@pytest.mark.parametrize("below", [1, 2, 3])
def test_of_a_symmetric_network_the_slow_eigenvalues_are_shifted(below):
    # Singular values move by no more than the change does, in the Frobenius norm (Mirsky, 1960): no other is nearer.
    rates = np.array([0.05, 0.1, 0.2, 0.7, 1.0])
    rates[below:3] = 0.8
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    found = ssntk.retreat(network(-(basis * rates) @ basis.T), MARGIN, wrt=weights, full=True)
    expected = -(basis * np.maximum(rates, MARGIN)) @ basis.T
    # `gap` is 1e-7 of the distance, whose square is quadratic in what is left of the change.
    np.testing.assert_allclose(found.distance, np.linalg.norm(np.maximum(MARGIN - rates, 0)), rtol=2e-7)
    np.testing.assert_allclose(found.model.weight - np.eye(5), expected, atol=1e-3 * found.distance)


def test_two_parameters_against_a_search_along_the_boundary():
    # dx/dt = b + w x - x^3: the margin is 3 x^2 - w, so that (x, b) with w = 3 x^2 - margin is the boundary.
    start = np.array([0.1, 0.75])

    def model_at(b, w):
        return ssntk.VectorField(cubic_field, {"W": jnp.asarray([[w]]), "b": jnp.asarray([b])}, 1, 1)

    x = max(np.roots([-1, 0, start[1], start[0]]).real)
    margin = 3 * x**2 - start[1]
    wide = margin + 0.4  # more than it has

    def boundary(x):
        w = 3 * x**2 - wide
        return (x**3 - w * x - start[0]) ** 2 + (w - start[1]) ** 2

    nearest = scipy.optimize.minimize_scalar(boundary, bounds=(x - 0.2, x + 0.5), method="bounded", options={"xatol": 1e-10})
    found = ssntk.retreat(model_at(*start), wide, x=[x], full=True)
    np.testing.assert_allclose(found.distance, np.sqrt(nearest.fun), rtol=2e-7)  # the gap
    np.testing.assert_allclose(found.x, [nearest.x], atol=1e-3)


def test_the_margin_is_met_and_no_more(repaired):
    for model, found in repaired:
        assert radius(np.asarray(model.weight * model.gain)) < WIDE
        weight = np.asarray(found.model.weight * found.model.gain)
        # The grid is 1e-3 wide and the level quadratic in it; that of the result is exact to 1e-9.
        np.testing.assert_allclose(radius(weight), WIDE, atol=2e-6)
        assert WIDE <= found.stability_radius <= WIDE * (1 + 2e-9)
        assert found.gap <= 1e-6
        assert ssntk.criticality(found.model).verdict == "regular"


@pytest.mark.slow
def test_no_feasible_network_is_nearer(repaired):
    rng = np.random.default_rng(1)
    for model, found in repaired:
        start = np.asarray(model.weight)
        change = np.asarray(found.model.weight) - start
        np.testing.assert_allclose(np.linalg.norm(change), found.distance, rtol=1e-12)
        # The common remedy, smaller weights, is feasible and costs more.
        low, high = 0.0, 1.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if radius(middle * start * float(model.gain)) >= WIDE else (low, middle)
        assert found.distance < np.linalg.norm((1 - low) * start)
        # Random networks around it that are nearer by 1e-4 all lack the margin.
        for size in (1e-3, 1e-2, 1e-1):
            for _ in range(40):
                other = change + size * found.distance * rng.normal(size=change.shape) / 8
                other *= (1 - 1e-4) * found.distance / np.linalg.norm(other)
                weight = (start + other) * float(model.gain)
                assert radius(weight, 301) < WIDE or radius(weight) < WIDE


def test_the_change_is_what_its_constraints_push(repaired):
    for model, found in repaired:
        start, matrix = np.asarray(model.weight), np.asarray(found.model.weight * found.model.gain) - np.eye(8)
        change, slopes = (np.asarray(found.model.weight) - start).ravel(), []
        for w in np.concatenate([found.frequencies, np.linspace(0, 2, 2001)]):
            left, sizes, right = np.linalg.svd(1j * w * np.eye(8) - matrix)
            near = sizes[-1] <= WIDE * (1 + 1e-4)
            # Frequencies that are called active are active.
            assert near or w not in found.frequencies
            if near:
                slopes.append(-float(model.gain) * (left[:, -1:] @ right[-1:]).conj().real.ravel())
        # Karush, Kuhn and Tucker: to the root of what the gap leaves, 1e-6.
        assert scipy.optimize.nnls(np.array(slopes).T, change)[1] <= 2e-3 * found.distance


def test_what_is_fixed_stays_and_what_is_dear_moves_less():
    model = ssntk.CTRNN(8, 1, 1, gain=0.85, key=jr.key(1))
    model = eqx.tree_at(lambda m: m.bias, model, 0.3 * jr.normal(jr.key(2), (8,)))
    every = ssntk.retreat(model, WIDE, full=True)
    chosen = ssntk.retreat(model, WIDE, wrt=weights, full=True)
    for name in ("input_weight", "bias", "readout_weight"):
        np.testing.assert_array_equal(getattr(chosen.model, name), getattr(model, name))
    assert every.distance < chosen.distance
    dear = ssntk.retreat(model, WIDE, metric={"bias": 100.0}, full=True)
    moved = [np.linalg.norm(found.model.bias - model.bias) for found in (every, dear)]
    assert moved[1] < 0.1 * moved[0]
    # A network with flipped signs of its units is equivalent.
    flips = jnp.diag(jnp.where(jnp.arange(8) % 3 > 0, 1.0, -1.0))
    turned = eqx.tree_at(
        lambda m: (m.weight, m.bias, m.input_weight),
        model,
        (flips @ model.weight @ flips, flips @ model.bias, flips @ model.input_weight),
    )
    np.testing.assert_allclose(ssntk.retreat(turned, WIDE, full=True).distance, every.distance, rtol=1e-6)


def test_dales_law_is_kept():
    rng = np.random.default_rng(3)
    signs = np.where(np.arange(8) % 4 == 3, -1.0, 1.0)
    weight = np.abs(rng.normal(size=(8, 8))) * signs * np.where(signs < 0, 3, 1)
    weight *= 0.85 / np.abs(np.linalg.eigvals(weight)).max()
    model = ssntk.CTRNN.from_weights(weight)
    free = ssntk.retreat(model, MARGIN, wrt=weights, full=True)
    kept = ssntk.retreat(model, MARGIN, wrt=weights, signs={"weight": np.broadcast_to(signs, (8, 8))}, full=True)
    assert (np.asarray(free.model.weight) * signs < 0).any()
    assert (np.asarray(kept.model.weight) * signs >= 0).all()
    assert kept.distance >= free.distance * (1 - 1e-7)
    assert kept.stability_radius >= MARGIN


def test_maps_and_pairs():
    jacobian = -np.eye(4)
    jacobian[:2, :2] = [[-0.05, -0.7], [0.7, -0.05]]
    flow = ssntk.retreat(network(jacobian), MARGIN, full=True)
    assert np.abs(flow.frequencies - 0.7).min() < 0.2
    found = ssntk.retreat(ssntk.EulerMap(network(jacobian), 0.1), MARGIN, full=True)
    matrix = np.asarray(found.model.model.weight) - np.eye(4)
    circle = (np.exp(1j * np.linspace(0, np.pi, 20_001)) - 1) / 0.1
    sizes = np.linalg.svd(circle[:, None, None] * np.eye(4) - matrix, compute_uv=False)[:, -1]
    np.testing.assert_allclose(sizes.min(), MARGIN, atol=1e-5)  # the grid


def test_what_needs_no_change_and_what_cannot_be_had():
    model = network(-np.eye(3))
    assert ssntk.retreat(model, MARGIN, full=True).distance == 0
    assert eqx.tree_equal(ssntk.retreat(model, MARGIN), model)
    for growth in (0.1, 0.0):
        with pytest.raises(ssntk.NumericalError, match="not stable"):
            ssntk.retreat(network(np.diag([growth, -1.0, -1.0])), MARGIN, x=np.zeros(3))
    with pytest.raises(ssntk.NumericalError, match="no change gives the margin"):
        # A bias moves no eigenvalue of an odd network at rest.
        ssntk.retreat(network(np.diag([-0.1, -1.0, -1.0])), MARGIN, wrt=lambda m: m.bias)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("margin", {"margin": 0.0}),
        ("x", {"margin": 1.0, "x": np.zeros(2)}),
        ("metric", {"margin": 1.0, "metric": {"weight": -1.0}}),
        ("metric", {"margin": 1.0, "metric": 3.0}),
        ("signs", {"margin": 1.0, "signs": {"weight": 0.5}}),
        ("wrt", {"margin": 1.0, "wrt": lambda m: m.nothing}),
    ],
)
def test_bad_arguments_are_named(name, given):
    with pytest.raises(ValueError, match=name):
        ssntk.retreat(network(-np.eye(3)), **given)
