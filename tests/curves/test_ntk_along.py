"""The collapse of the kernel along curves of bifurcations, against closed forms and NumPy's eigenvectors.

Compiles: curves of models of 1 to 3 states, and the kernels beside them.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

Family = ssntk.Family


def plane_of(fn, n, values, kind=ssntk.VectorField):
    model = kind(lambda t, x, u, p: fn(x, p), {name: jnp.asarray(value) for name, value in values.items()}, n)
    return Family.plane(Family(model, "p1"), Family(model, "p2"))


def followed(plane, kind, span, spans, **options):
    branch = ssntk.continuation(plane.first, span, **options)
    (start, *_) = [one for one in branch.bifurcations if one.kind == kind]
    return ssntk.bifurcation_curve(plane, start, spans)


def resting(x, p):
    """A cusp, and two more states that decay at rates of 2 and 1."""
    cusp = p["p1"] + p["p2"] * x[0] - x[0] ** 3
    return jnp.concatenate([cusp[None], p["rest"] - jnp.array([2.0, 1.0]) * x[1:]])


def coupled(x, p):
    first = -x[0] + 2.5 * jnp.tanh(x[0]) - 2.0 * jnp.tanh(x[1]) + p["p1"]
    return jnp.stack([first, (-x[1] + 2.0 * jnp.tanh(x[0]) + p["p2"] - 1.0) / 2.0])


@pytest.fixture(scope="module")
def cusps():
    plane = plane_of(resting, 3, {"p1": 0.0, "p2": 1.0, "rest": np.zeros(2)})
    return followed(plane, "saddle-node", (-1.0, 1.0), ((-1.0, 1.0), (-1.0, 2.0)), x0=[-1.3, 0.0, 0.0])


@pytest.fixture(scope="module")
def hopfs():
    plane = plane_of(coupled, 2, {"p1": 0.0, "p2": 0.0})
    return followed(plane, "hopf", (-3.0, 3.0), ((-4.0, 4.0), (-4.0, 4.0)))


def test_saddle_nodes_and_their_cusp(cusps):
    along = cusps.ntk_along()
    x, far = cusps.x[:, 0], np.abs(cusps.parameters[:, 1]) > 0.05
    # F = (1, x) along the critical state.
    np.testing.assert_allclose(along.prefactor, 1 + x**2, rtol=1e-9)
    np.testing.assert_allclose(along.exponent[far], -1, atol=1e-4)
    # The two other states answer with 1/2 and 1.
    np.testing.assert_allclose(along.participation_ratio, (1 / 4 + 1) ** 2 / (1 / 16 + 1), rtol=1e-9)
    # Beside the curve the kernel is the prefactor over the square of the rate.
    np.testing.assert_allclose(along.top[far] * along.rate[far] ** 2 / along.prefactor[far, None], 1, atol=0.02)
    # From y^3 = p1 the rate is 3 p1^(2/3); along the axis of p2 it is 2 p2.
    np.testing.assert_allclose(along.point_exponents, [[-4 / 3, -2]], atol=1e-3)


def test_only_what_is_learned_counts(cusps):
    along = cusps.ntk_along(wrt=lambda model: model.params["p1"])
    np.testing.assert_allclose(along.prefactor, 1, rtol=1e-9)
    # What p1 drives is the critical mode alone.
    assert np.isnan(along.participation_ratio).all() or (along.participation_ratio < 1.01).all()


@pytest.mark.slow
def test_hopf_points_at_their_frequency(hopfs):
    along = hopfs.ntk_along()
    neutral = hopfs.frequency == 0
    assert neutral.any()
    assert np.isnan(along.prefactor[neutral]).all()
    assert np.isfinite(along.prefactor[~neutral]).all()
    for i in np.flatnonzero(~neutral)[::7]:
        x = hopfs.x[i]
        slope = 1 / np.cosh(x) ** 2
        matrix = np.array([[-1 + 2.5 * slope[0], -2 * slope[1]], [slope[0], -0.5]])
        values, right = np.linalg.eig(matrix)
        at = int(np.abs(values - 1j * hopfs.frequency[i]).argmin())
        left = np.linalg.inv(right)[at] @ np.diag([1.0, 0.5])
        wanted = np.linalg.norm(right[:, at]) ** 2 * np.linalg.norm(left) ** 2
        np.testing.assert_allclose(along.prefactor[i], wanted, rtol=1e-6)
    far = hopfs.frequency > 0.5
    np.testing.assert_allclose(along.exponent[far], -2, atol=2e-2)
    met = np.array([point.kind == "generalised-hopf" for point in hopfs.points])
    np.testing.assert_allclose(along.point_exponents[met, 0], -2, atol=1e-2)


def test_flips_of_a_map_at_half_the_rate_of_steps():
    plane = plane_of(lambda x, p: p["p1"] - p["p2"] * x**2, 1, {"p1": 0.5, "p2": 1.0}, ssntk.Map)
    curve = followed(plane, "flip", (0.1, 1.2), ((0.1, 2.0), (0.5, 2.0)), x0=[0.4])
    # At the flip 2 p2 x = 1, and p1 p2 = 3/4. F = (1, -x^2).
    np.testing.assert_allclose(curve.parameters.prod(axis=1), 0.75, rtol=1e-12)
    along = curve.ntk_along()
    np.testing.assert_allclose(along.prefactor, 1 + curve.x[:, 0] ** 4, rtol=1e-9)
    np.testing.assert_allclose(along.exponent, -2, atol=1e-2)


@pytest.mark.slow
def test_units_do_not_matter(cusps):
    size, rate, units = np.array([1e4, 1e-3, 10.0]), 1e-5, np.array([1e3, 1e-4])

    def scaled(x, p):
        inner = {"p1": p["p1"] / units[0], "p2": p["p2"] / units[1], "rest": p["rest"]}
        return rate * size * resting(x / size, inner)

    plane = plane_of(scaled, 3, {"p1": 0.0, "p2": units[1], "rest": np.zeros(2)})
    spans = (-units[0], units[0]), (-units[1], 2 * units[1])
    curve = followed(plane, "saddle-node", spans[0], spans, x0=size * np.array([-1.3, 0.0, 0.0]))
    mine, same = curve.ntk_along(wrt=lambda m: m.params["rest"], scale=size), cusps.ntk_along(wrt=lambda m: m.params["rest"])
    np.testing.assert_allclose(mine.exponent.shape, curve.parameters[:, 0].shape)
    np.testing.assert_allclose(mine.participation_ratio, same.participation_ratio[0], rtol=1e-6)
    mine = curve.ntk_along(wrt=lambda m: m.params["p1"], scale=size)
    np.testing.assert_allclose(mine.prefactor * (units[0] / rate) ** 2, 1, rtol=1e-6)
    np.testing.assert_allclose(mine.point_exponents, [[-4 / 3, -2]], atol=1e-3)


def test_what_it_says_and_what_it_refuses(cusps, tmp_path):
    along = cusps.ntk_along()
    assert f"kernel along {len(cusps)} points of a curve" in repr(along)
    assert ssntk.load(ssntk.save(tmp_path / "along.npz", along)) == along
    with pytest.raises(ValueError, match="scale must"):
        cusps.ntk_along(scale=[1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="u must"):
        cusps.ntk_along(u=[1.0])
