"""Cases that earlier versions got wrong, each with its known result. Compiles a few programs for each of 8 fields."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import some

import ssntk


def family(fn, n, p=0.0):
    return ssntk.Family(ssntk.VectorField(lambda t, x, u, p: fn(x, p), jnp.asarray(p), n), lambda m: m.params)


def goodwin(n, h):
    return lambda x, p: jnp.array([p / (1 + x[-1] ** h) - x[0]] + [x[i] - x[i + 1] for i in range(n - 1)])


@pytest.mark.parametrize(("n", "h"), [(6, 12), pytest.param(5, 12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("span", some([(0.1, 10.0), (10.0, 0.1)], [(0.1, 10.0)]))
def test_a_loop_that_is_hardly_closed_where_the_branch_starts(n, h, span):
    """Goodwin's oscillator: all states are equal at rest, the loop's gain is h x^h / (1 + x^h), and a pair of
    (-1 + gain^(1/n) exp(i pi / n)) crosses where the gain is cos(pi / n)^-n. A branch that starts at x = 0.1 sees a gain of
    1e-9 to 1e-11 there."""
    branch = ssntk.continuation(family(goodwin(n, h), n), span)
    gain = np.cos(np.pi / n) ** -n
    x = (gain / (h - gain)) ** (1 / h)
    (found,) = branch.bifurcations
    assert (found.kind, found.criticality) == ("hopf", "supercritical")
    np.testing.assert_allclose(found.parameter, x * (1 + x**h), rtol=1e-10)
    np.testing.assert_allclose(found.x, x, rtol=1e-10)
    np.testing.assert_allclose(found.frequency, np.tan(np.pi / n), rtol=1e-10)


@pytest.mark.parametrize("low", [1e-4, 1e-6, 1e-8, 1e-9, 1e-12])
def test_a_radius_near_rounding_is_found(low):
    """[[-d, -1], [0.08, -d]] - i w is singular at distance d + O(d^2) in the norm that balances it, sqrt(0.08)."""
    radius, frequency = ssntk.stability_radius(np.array([[-low, -1.0], [0.08, -low]]))
    w = np.sqrt(0.08)
    exact = scipy.optimize.minimize_scalar(
        lambda w: np.linalg.svd(np.array([[-low - 1j * w, -1.0], [0.08, -low - 1j * w]]), compute_uv=False)[-1],
        bounds=(0.9 * w, 1.1 * w),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert radius <= exact.fun + 1e-15
    # |l.r| / (|l||r|) of the pair: to first order the radius is that times d.
    np.testing.assert_allclose(radius, low * 2 * w / (1 + w**2), rtol=1e-3, atol=1e-15)
    np.testing.assert_allclose(frequency, w, rtol=1e-3)


def test_many_radii_near_rounding_end():
    random = np.random.default_rng(3)
    for _ in range(200):
        d = -(10 ** random.uniform(-12, -3, 2))
        w, k = random.uniform(0.1, 3, 2)
        radius, _ = ssntk.stability_radius(np.array([[d[0], -w], [k, d[1]]]))
        assert 0 < radius < 1e-2


def test_single_precision_where_double_is_on():
    """Brusselator, a = 1: a supercritical Hopf point at b = 2, in weights as other frameworks have them."""

    def fn(t, x, u, b):
        return jnp.array([1 - (b + 1) * x[0] + x[0] ** 2 * x[1], b * x[0] - x[0] ** 2 * x[1]])

    model = ssntk.VectorField(fn, jnp.asarray(2.0, jnp.float32), 2)
    # There is one warning for both.
    with pytest.warns(ssntk.PrecisionWarning):
        (found,) = ssntk.continuation(ssntk.Family(model, lambda m: m.params), (1.0, 4.0), x0=[1.0, 1.0]).bifurcations
    assert (found.kind, found.criticality) == ("hopf", "supercritical")
    np.testing.assert_allclose(found.parameter, 2.0, rtol=1e-5)
    network = ssntk.CTRNN(8, 1, 1, gain=2.0, key=jr.key(1))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if hasattr(leaf, "dtype") else leaf, network)
    both = [ssntk.continuation(ssntk.Family.input(one, [1.0]), (-3.0, 3.0)).bifurcations for one in (network, single)]
    assert [event.kind for event in both[0]] == [event.kind for event in both[1]] != []
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one.parameter, other.parameter, rtol=1e-4)
        assert one.criticality == other.criticality


def test_a_pair_is_near_even_if_it_is_all_there_is():
    """FitzHugh-Nagumo, at rest 1.3e-6 before its Hopf point."""

    def model(p):
        return family(lambda x, p: jnp.array([x[0] - x[0] ** 3 / 3 - x[1] + p, 0.08 * (x[0] + 0.7 - 0.8 * x[1])]), 2)(p)

    near = ssntk.criticality(model(0.33128))
    assert (near.verdict, near.kind) == ("critical", "pair")
    # The time scale is that of the pair's rate, sqrt(det A), and not of its growth.
    x = near.x_star[0]
    determinant = 0.08 * (1 - 0.8 * (1 - x**2))
    np.testing.assert_allclose(near.time_scale, determinant**-0.5, rtol=1e-6)


@pytest.mark.parametrize("p", some([1e-3, 1e-8], [1e-8]))
def test_stiff_chemistry_from_its_default_starts(p):
    """Robertson's kinetics with an inflow: x1 from a scalar equation, whatever the sizes at zero are."""

    def fn(x, p):
        slow, back, fast = 0.04 * x[0], 1e4 * x[1] * x[2], 3e7 * x[1] ** 2
        return jnp.array([back - slow + p * (1 - x[0]), slow - back - fast - p * x[1], fast - p * x[2]])

    found = ssntk.find_fixed_points(family(fn, 3)(p))

    def rest(x1):
        x2 = 3e7 * x1**2 / p
        return 0.04 * (1 - x1 - x2) - 1e4 * x1 * x2 - 3e7 * x1**2 - p * x1

    x1 = scipy.optimize.brentq(rest, 0, 1e-4, xtol=1e-300, rtol=1e-14)
    exact = np.array([1 - x1 - 3e7 * x1**2 / p, x1, 3e7 * x1**2 / p])
    inside = found.x[(found.x >= 0).all(axis=1)]
    np.testing.assert_allclose(inside, [exact], rtol=1e-6)
    assert found.stable[(found.x >= 0).all(axis=1)].all()


def test_terms_that_cancel_for_one_parameter_alone():
    branch = ssntk.continuation(
        family(lambda x, p: jnp.array([x[1] - x[0] ** 2, x[0] ** 2 - x[1] - p * (x[1] - 0.5)]), 2),
        (-1.0, -0.5),
        x0=[0.7, 0.5],
    )
    assert branch.status == "left the span at p = -0.5"
    np.testing.assert_allclose(branch.x[:, 1], 0.5, rtol=1e-12)
    np.testing.assert_allclose(branch.x[:, 0], np.sqrt(0.5), rtol=1e-12)


@pytest.mark.parametrize("n", some([3, 6], [3]))
def test_conserved_where_the_field_is_finite_for_positive_states_alone(n):
    def fn(x, p):
        rate = x**1.5 - p * jnp.roll(x, -1) ** 1.5
        return jnp.roll(rate, 1) - rate

    starts = np.abs(np.random.default_rng(0).normal(size=(4, n))) + 0.2
    found = ssntk.find_fixed_points(family(fn, n)(1.0), starts=starts)
    np.testing.assert_allclose(found.conserved, np.ones((1, n)), rtol=1e-12)
    # At p = 1 all states are equal on every level.
    np.testing.assert_allclose(np.sort(found.x[:, 0]), np.sort(starts.mean(axis=1)), rtol=1e-8)
    assert ssntk.continuation(family(fn, n), (1.0, 2.0), x0=np.ones(n)).status == "left the span at p = 2"


def test_a_leak_is_no_conservation():
    for leak in (1e-9, 1e-12):
        model = family(lambda x, p: jnp.array([x[1] - x[0] + p * (1 - x[0]), x[0] - x[1]]), 2)(leak)
        found = ssntk.find_fixed_points(model)
        assert found.conserved.shape == (0, 2)
        np.testing.assert_allclose(found.x, [[1.0, 1.0]], rtol=1e-3)


def test_what_is_conserved_is_of_no_bifurcation():
    """Susceptible, infected, recovered, with waning: on the level N = 0 the infection grows at -0.2, others wane at 0.1."""

    def fn(x, b):
        new = b * x[0] * x[1]
        return jnp.array([0.1 * x[2] - new, new - 0.2 * x[1], 0.2 * x[1] - 0.1 * x[2]])

    found = ssntk.criticality(family(fn, 3)(0.4))
    np.testing.assert_allclose(found.spectral_abscissa, -0.1, rtol=1e-12)
    jacobian = np.array([[0, 0, 0.1], [0, -0.2, 0], [0, 0.2, -0.1]])
    level = np.linalg.svd(np.ones((1, 3)))[2][1:].T
    expected, _ = ssntk.stability_radius(level.T @ jacobian @ level)
    np.testing.assert_allclose(found.stability_radius, expected, rtol=1e-9)
    assert found.verdict == "regular"


@pytest.mark.parametrize("capacity", some([5e2, 1e3, 1e4, 1e6], [1e6]))
def test_a_point_far_out_that_holds_all_states(capacity):
    """A strong Allee effect: extinction, the threshold 1, and the capacity, far beyond where the field bends first."""
    for seed in range(3):
        model = family(lambda x, p: x * (x - 1) * (1 - x / p), 1)(capacity)
        found = ssntk.find_fixed_points(model, key=jr.key(seed))
        np.testing.assert_allclose(np.sort(found.x.ravel()), [0.0, 1.0, capacity], rtol=1e-12, atol=1e-12)
        assert found.index_sum == 1


def test_an_event_must_be_a_number():
    with pytest.raises(ValueError, match=r"events\[0\].fn must return a number that changes its sign, got a boolean"):
        ssntk.continuation(
            family(lambda x, p: p - x**2, 1), (1.0, -1.0), x0=[1.0], events=[ssntk.Crossing("e", lambda x, p: x[0] > 0.5)]
        )
