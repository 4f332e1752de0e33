"""Curves of networks: closed ones, beside fast states, in any units, and points at which two modes are critical.

Compiles: Newton's iteration for curves of both kinds and the points on them, of models of two to nine and of 33 states, and
`continuation` of the same models.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

Family = ssntk.Family


def rotation(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def both_of(model):
    return Family(model, "p1"), Family(model, "p2")


def beside_fast(t, x, u, p):
    """32 units, and a state that follows one of them at a given rate, in rotated coordinates."""
    y = p["turn"].T @ x
    slow = -y[:32] + p["w"] @ jnp.tanh(y[:32]) + p["c"] + p["p1"] * p["d1"] + p["p2"] * p["d2"]
    return p["turn"] @ jnp.append(slow, -p["rate"] * (y[32] - 0.3 * jnp.tanh(y[0])))


# A cusp of the network below, without the fast state: from a prototype that solves other equations, to 12 digits. It counted
# four cusps on the closed curve.
CUSP = (-0.948934799891, 0.332005147918)


@pytest.fixture(scope="module")
def networks():
    rng = np.random.default_rng(4)
    w = 0.6 * rng.standard_normal((32, 32)) / np.sqrt(32)
    q = np.linalg.qr(rng.standard_normal((32, 2)))[0]
    w += q @ np.array([[2.2, -1.2], [1.2, 1.2]]) @ q.T
    held = {"w": w, "c": 0.05 * rng.standard_normal(32), "d1": 2 * q[:, 0], "d2": 2 * q[:, 1], "turn": rotation(33, 5)}
    held = {name: jnp.asarray(value) for name, value in held.items()}
    return [ssntk.VectorField(beside_fast, held | {"p1": 0.0, "p2": 0.0, "rate": rate}, 33) for rate in (1.0, 1e7)]


@pytest.mark.slow
def test_a_closed_curve_also_beside_a_fast_state(networks):
    # The saddle-nodes do not depend on the rate.
    start = ssntk.continuation(both_of(networks[0])[0], (-2.0, 0.0)).bifurcations[0]
    found = []
    for model in networks:
        curve = ssntk.bifurcation_curve(Family.plane(*both_of(model)), start, ((-3.0, 3.0), (-3.0, 3.0)))
        assert curve.closed
        assert curve.status == "closed"
        np.testing.assert_array_equal(curve.parameters[0], curve.parameters[-1])
        assert [point.kind for point in curve.points] == ["cusp"] * 4
        assert curve.unresolved == ()
        found.append(sorted(tuple(point.parameters) for point in curve.points))
        assert min(np.abs(np.array(found[-1]) - CUSP).max(axis=1)) <= 2e-12
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


def coupled(y, p):
    first = -y[0] + 2.5 * jnp.tanh(y[0]) - 2.0 * jnp.tanh(y[1]) + p["p1"]
    return jnp.stack([first, (-y[1] + 2.0 * jnp.tanh(y[0]) + p["p2"] - 1.0) / 2.0])


def beside_two(t, x, u, p):
    """Two units, and a state that follows them at a given rate, in rotated coordinates."""
    y = p["turn"].T @ x
    return p["turn"] @ jnp.append(coupled(y, p), -p["rate"] * (y[2] - 0.3 * jnp.tanh(y[0])))


@pytest.mark.slow
def test_hopf_points_beside_a_fast_state():
    # The trace of the two units alone is zero on the curve: 2.5 sech^2 y1 = 1.5. Its two Bogdanov-Takens points are those of
    # the units alone (mpmath, 40 digits, and a symmetry).
    meets = [(-2.615153717592004, -1.685667018930845), (0.943872366418433, 1.155844890796142)]
    for rate, digits in ((1.0, 1e-12), (1e7, 1e-8)):
        held = {"turn": jnp.asarray(rotation(3, 7)), "p1": 0.0, "p2": 0.0, "rate": rate}
        both = both_of(ssntk.VectorField(beside_two, held, 3))
        (start,) = [one for one in ssntk.continuation(both[0], (-1.0, 3.0)).bifurcations if one.kind == "hopf"]
        curve = ssntk.bifurcation_curve(Family.plane(*both), start, ((-4.0, 4.0), (-4.0, 4.0)))
        kinds = [point.kind for point in curve.points]
        assert kinds == ["bogdanov-takens", "generalised-hopf", "generalised-hopf", "bogdanov-takens"]
        np.testing.assert_allclose([curve.points[0].parameters, curve.points[3].parameters], meets, rtol=1e-12)
        y = curve.x @ rotation(3, 7)
        np.testing.assert_allclose(1 / np.cosh(y[:, 0]) ** 2, 0.6, atol=digits)


def turning(z, growth, frequency):
    return growth * z + frequency * jnp.stack([-z[1], z[0]]) - (z @ z) * z


def zero_and_pair(t, x, u, p):
    y = p["turn"].T @ x
    pair = turning(y[:2], p["p2"], 2.0) + 0.1 * y[2] ** 2
    return p["turn"] @ jnp.append(pair, p["p1"] - y[2] ** 2 + 0.2 * y[:2] @ y[:2])


def two_pairs(t, x, u, p):
    y = p["turn"].T @ x
    one, other = turning(y[:2], p["p1"], 1.3), turning(y[2:], p["p2"], 2.0)
    return p["turn"] @ jnp.concatenate([one + 0.2 * (y[2:] @ y[2:]) * y[:2], other])


@pytest.mark.slow
def test_a_zero_eigenvalue_beside_a_pair():
    held = {"turn": jnp.asarray(rotation(3, 7)), "p1": 0.5, "p2": -0.3}
    both = both_of(ssntk.VectorField(zero_and_pair, held, 3))
    (fold,) = ssntk.continuation(both[0], (0.5, -0.5)).bifurcations
    (hopf,) = ssntk.continuation(both[1], (-0.3, 0.5)).bifurcations
    for start in (fold, hopf):
        curve = ssntk.bifurcation_curve(Family.plane(*both), start, ((-1.0, 1.0), (-1.0, 1.0)))
        (point,) = curve.points
        assert point.kind == "zero-hopf"
        assert np.abs(point.parameters).max() <= 1e-13
        assert abs(point.frequency - 2) <= 1e-12
        assert np.abs(point.eigenvalues.real).max() <= 1e-12


@pytest.mark.slow
def test_two_pairs():
    held = {"turn": jnp.asarray(rotation(4, 8)), "p1": -0.5, "p2": -0.3}
    both = both_of(ssntk.VectorField(two_pairs, held, 4))
    (hopf,) = ssntk.continuation(both[0], (-0.5, 0.5), x0=np.zeros(4)).bifurcations
    curve = ssntk.bifurcation_curve(Family.plane(*both), hopf, ((-1.0, 1.0), (-1.0, 1.0)))
    np.testing.assert_allclose(curve.parameters[:, 0], 0, atol=1e-14)
    (point,) = curve.points
    assert point.kind == "double-hopf"
    assert np.abs(point.parameters).max() <= 1e-13
    assert abs(point.frequency - 1.3) <= 1e-12
    np.testing.assert_allclose(np.sort(point.eigenvalues.imag), [-2, -1.3, 1.3, 2], atol=1e-12)


def in_units(t, x, u, p):
    y = x / p["sizes"]
    rate = -y + p["w"] @ jnp.tanh(y) + p["c"] + p["p1"] * p["d1"] + p["p2"] * p["d2"]
    return p["sizes"] * rate / p["time"]


def nine(sizes, time, units):
    """Nine units in given units of states, of time and of both parameters."""
    rng = np.random.default_rng(20)
    w = 0.6 * rng.standard_normal((9, 9)) / 3
    q = np.linalg.qr(rng.standard_normal((9, 2)))[0]
    w += q @ np.array([[1.8, -1.2], [1.2, 1.5]]) @ q.T
    held = {"w": w, "c": 0.3 * rng.standard_normal(9), "sizes": sizes, "time": time}
    held |= {"d1": 2 * q[:, 0] / units[0], "d2": 2 * q[:, 1] / units[1], "p1": 0.0, "p2": 0.0}
    return both_of(ssntk.VectorField(in_units, {name: jnp.asarray(value) for name, value in held.items()}, 9))


@pytest.mark.slow
def test_units_change_nothing():
    rng = np.random.default_rng(3)
    sizes, time, units = 10.0 ** rng.uniform(-6, 6, 9), float(10.0 ** rng.uniform(-6, 6)), 10.0 ** rng.uniform(-6, 6, 2)
    plain, other = nine(np.ones(9), 1.0, np.ones(2)), nine(sizes, time, units)
    first = ssntk.continuation(plain[0], (-3.0, 3.0))
    second = ssntk.continuation(other[0], (-3.0 * units[0], 3.0 * units[0]), x0=first.x[0] * sizes)
    kinds = [event.kind for event in first.bifurcations]
    assert kinds == [event.kind for event in second.bifurcations]
    for kind in ("saddle-node", "hopf"):
        at = kinds.index(kind)
        curves = [
            ssntk.bifurcation_curve(Family.plane(*both), branch.bifurcations[at], [(-4.0 * s, 4.0 * s) for s in scales])
            for both, branch, scales in ((plain, first, np.ones(2)), (other, second, units))
        ]
        assert curves[0].points
        assert [point.kind for point in curves[0].points] == [point.kind for point in curves[1].points]
        assert curves[0].closed == curves[1].closed
        for one, two in zip(curves[0].points, curves[1].points, strict=True):
            np.testing.assert_allclose(two.parameters / units, one.parameters, atol=1e-10)
            np.testing.assert_allclose(two.x / sizes, one.x, atol=1e-9)
            assert abs(two.frequency * time - one.frequency) <= 1e-9
