"""Coefficients at zero-Hopf and double-Hopf points, by their closed forms in coordinates in which they are hidden.

Compiles: curves of saddle-nodes and Hopf points of a flow of three states, and of one of four.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

BENT, TURN = np.tril(np.random.default_rng(5).normal(size=(4, 4)), -1), np.random.default_rng(6).normal(size=(4, 4))


def bent(fn, n, sizes=1.0, clock=1.0):
    """The flow of fn(y) in coordinates of size S, x = S R (y + Q(y)), with a rotation R. Q_i depends on y_0 to y_(i - 1), so
    that y follows from x one by one."""
    turn, _ = np.linalg.qr(TURN[:n, :n])
    steps = jnp.asarray(BENT[:n, :n])

    def quadratic(y):
        return steps @ (y * (y + 0.5 * jnp.roll(y, 1).at[0].set(0.0)))

    def field(t, x, u, p):
        z = jnp.asarray(turn.T) @ (x / sizes)
        y = z
        for _ in range(n - 1):
            y = z - quadratic(y)
        rate = fn(y, p)
        return sizes * (jnp.asarray(turn) @ (rate + jax.jvp(quadratic, (y,), (rate,))[1])) / clock

    model = ssntk.VectorField(field, {"p1": -0.25, "p2": -0.25}, n)
    return ssntk.Family(model, "p1"), ssntk.Family(model, "p2")


def zero_and_pair(y, p):
    x, z = y[0], y[1:]
    square, turned = z @ z, jnp.stack([-z[1], z[0]])
    first = p["p1"] + 1.3 * x**2 - 0.7 * square + 0.4 * x**3 + 0.9 * x * square
    return jnp.append(first, (p["p2"] + 0.6 * x - 0.8 * x**2 + 0.3 * square) * z + 2.0 * turned)


# b, c, d and e30, e12, f21, f03 of the terms above. Time and states are changed so that only f21 remains.
B, C, D, E30, E12, F21, F03 = 1.3, -0.7, 0.6, 0.4, 0.9, -0.8, 0.3
E = F21 - 3 * D * E30 / (2 * B) + D * E12 / (2 * C) + (D - B) * F03 / C


@pytest.mark.slow
@pytest.mark.parametrize("units", [(1.0, 1.0), (3e-3, 40.0)])
def test_a_zero_eigenvalue_beside_a_pair(units):
    size, clock = units
    both = bent(zero_and_pair, 3, size, clock)
    # x = -sqrt(-p1 / b) at rest; its pair crosses at p2 = d sqrt(-p1 / b).
    y = np.array([-np.sqrt(0.25 / B), 0.0, 0.0])
    x0 = size * np.linalg.qr(TURN[:3, :3])[0] @ (y + BENT[:3, :3] @ y**2)
    (hopf,) = [one for one in ssntk.continuation(both[1], (-0.25, 0.6), x0=x0).bifurcations if one.kind == "hopf"]
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*both), hopf, ((-0.4, 0.4), (-0.8, 0.8)), step=0.02)
    (point,) = [one for one in curve.points if one.kind == "zero-hopf"]
    np.testing.assert_allclose(point.parameters, 0, atol=1e-10)
    assert point.coefficients["s"] == -1
    np.testing.assert_allclose(point.coefficients["theta"], D / B, rtol=1e-8)
    # e is per unit time, and per square of the state.
    np.testing.assert_allclose(point.coefficients["e"] * clock * size**2, E, rtol=1e-6)


P11, P12, P21, P22 = -1.0, 0.7, -0.4, 1.5


def two_pairs(y, p):
    one, other = y[:2], y[2:]
    r, s = one @ one, other @ other
    fast = (p["p1"] + P11 * r + P12 * s) * one + 3.1 * jnp.stack([-one[1], one[0]])
    slow = (p["p2"] + P21 * r + P22 * s) * other + 1.2 * jnp.stack([-other[1], other[0]])
    return jnp.concatenate([fast, slow])


@pytest.mark.slow
@pytest.mark.parametrize("units", [(1.0, 1.0), (3e-3, 40.0)])
def test_two_pairs(units):
    size, clock = units
    both = bent(two_pairs, 4, size, clock)
    (hopf,) = ssntk.continuation(both[0], (-0.25, 0.3), x0=np.zeros(4)).bifurcations
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*both), hopf, ((-0.5, 0.5), (-0.5, 0.5)))
    (point,) = [one for one in curve.points if one.kind == "double-hopf"]
    np.testing.assert_allclose(point.parameters, 0, atol=1e-10)
    # r = sqrt(2) |z|, since an eigenvector of length one has two components of equal size.
    found = point.coefficients
    np.testing.assert_allclose(found["p11"] * clock * size**2, 2 * P11, rtol=1e-8)
    np.testing.assert_allclose(found["p22"] * clock * size**2, 2 * P22, rtol=1e-8)
    np.testing.assert_allclose([found["theta"], found["delta"]], [P12 / P22, P21 / P11], rtol=1e-8)
