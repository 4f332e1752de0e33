"""Maps of the steady-state kernel over two parameters, against closed forms and scipy.

Compiles: `bifurcation_diagram` and the map's kernels of a flow of one state, of one of two, and of a map.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.optimize
from planes import families

import ssntk

FEW = {"n_searches": 3, "n_starts": 16}
PLACES = (6, 3)


def polynomial(x, p):
    return p["p1"] + p["p2"] * x + p["q2"] * x**2 + p["q3"] * x**3


def plane_of(q2, q3):
    return ssntk.Family.plane(*families(polynomial, 1, p1=0.0, p2=1.0, q2=q2, q3=q3))


def moved(model):
    return [model.params["p1"], model.params["p2"]]


@pytest.fixture(scope="module")
def cusp_map():
    return ssntk.kernel_map(plane_of(0.0, -1.0), ((-0.5, 0.5), (-0.4, 1.4)), n=PLACES, wrt=moved, **FEW)


def middles(low, high, count):
    return low + (high - low) * (np.arange(count) + 0.5) / count


def test_a_cusp_by_its_closed_form(cusp_map):
    np.testing.assert_allclose(cusp_map.p1, middles(-0.5, 0.5, 6))
    np.testing.assert_allclose(cusp_map.p2, middles(-0.4, 1.4, 3))
    for i, j in np.ndindex(PLACES):
        roots = np.roots([-1.0, 0.0, cusp_map.p2[j], cusp_map.p1[i]])
        rest = roots[np.abs(roots.imag) < 1e-9].real
        rate = cusp_map.p2[j] - 3 * rest**2
        assert cusp_map.n_stable[i, j] == (rate < 0).sum()
        # df/dp1 = 1 and df/dp2 = x are divided by the rate.
        kernel = ((1 + rest**2) / rate**2)[rate < 0]
        np.testing.assert_allclose(cusp_map.top[i, j], kernel.max(), rtol=1e-9)
        # Two equilibria with the same kernel: either may be the one.
        np.testing.assert_allclose(abs(cusp_map.x[i, j, 0]), abs(rest[rate < 0][kernel.argmax()]), rtol=1e-9)
    np.testing.assert_allclose(cusp_map.participation_ratio, 1.0)
    assert sorted(np.unique(cusp_map.n_stable)) == [1, 2]
    assert (cusp_map.frequency == 0).all()


@pytest.mark.slow
def test_flips_count_at_their_frequency():
    # The fixed point x = p2 (1 - 1 / p1) of the logistic map has the multiplier 2 - p1.
    fn = lambda t, x, u, p: p["p1"] * x * (1 - x / p["p2"])  # noqa: E731
    model = ssntk.Map(fn, {"p1": 2.0, "p2": 1.0}, 1)
    plane = ssntk.Family.plane(ssntk.Family(model, "p1"), ssntk.Family(model, "p2"))
    found = ssntk.kernel_map(plane, ((1.4, 3.4), (0.5, 1.5)), n=(5, 2), **FEW)
    a, b = np.meshgrid(middles(1.4, 3.4, 5), middles(0.5, 1.5, 2), indexing="ij")
    x = b * (1 - 1 / a)
    force = (x / a) ** 2 + (a * x**2 / b**2) ** 2
    stable = a < 3
    np.testing.assert_array_equal(found.n_stable, stable)
    at_rest, alternating = force / (a - 1) ** 2, force / (3 - a) ** 2
    # Where no mode alternates, the steady state alone counts.
    alternates = (a > 2) & (alternating > at_rest)
    np.testing.assert_allclose(found.top, np.where(stable, np.where(alternates, alternating, at_rest), np.nan), rtol=1e-9)
    np.testing.assert_allclose(found.frequency, np.where(stable, np.where(alternates, np.pi, 0), np.nan))


def pair(size=1.0, clock=1.0):
    """Two units that excite and inhibit each other, in units of their states and of time."""

    def field(x, p):
        y = x / p["size"]
        first = -y[0] + 2.5 * jnp.tanh(y[0]) - 2.0 * jnp.tanh(y[1]) + p["p1"]
        return p["size"] * jnp.stack([first, (-y[1] + 2.0 * jnp.tanh(y[0]) + p["p2"] - 1.0) / 2.0]) / p["clock"]

    model = ssntk.VectorField(lambda t, x, u, p: field(x, p), {"size": size, "clock": clock, "p1": 0.0, "p2": 0.0}, 2)
    plane = ssntk.Family.plane(ssntk.Family(model, "p1"), ssntk.Family(model, "p2"))
    how = {"n": (7, 4), "wrt": moved, **FEW}
    return ssntk.kernel_map(plane, ((-2.0, 2.0), (0.0, 2.0)), scale=size, **how)


@pytest.fixture(scope="module")
def pair_map():
    return pair(jnp.ones(2))


def test_pairs_count_at_their_frequency(pair_map):
    oscillating = 0
    for i, j in np.argwhere(pair_map.n_stable == 1):
        p1, p2 = pair_map.p1[i], pair_map.p2[j]

        def velocity(x, p1=p1, p2=p2):
            first = -x[0] + 2.5 * np.tanh(x[0]) - 2.0 * np.tanh(x[1]) + p1
            return [first, (-x[1] + 2.0 * np.tanh(x[0]) + p2 - 1.0) / 2.0]

        x = scipy.optimize.root(velocity, pair_map.x[i, j] + 1e-3, tol=1e-13).x
        np.testing.assert_allclose(pair_map.x[i, j], x, atol=1e-9)
        c = 1 / np.cosh(x) ** 2
        matrix = np.array([[-1 + 2.5 * c[0], -2.0 * c[1]], [c[0], -0.5]])
        value = np.linalg.eigvals(matrix)
        value = value[value.real.argmax()]
        kernels = []
        for frequency in {0.0, abs(value.imag)}:
            response = np.linalg.solve(1j * frequency * np.eye(2) - matrix, np.diag([1.0, 0.5]))
            kernels.append((np.linalg.svd(response, compute_uv=False) ** 2, frequency))
        kernel, frequency = max(kernels, key=lambda one: one[0][0])
        np.testing.assert_allclose(pair_map.top[i, j], kernel[0], rtol=1e-8)
        np.testing.assert_allclose(pair_map.participation_ratio[i, j], kernel.sum() ** 2 / (kernel**2).sum(), rtol=1e-8)
        np.testing.assert_allclose(pair_map.frequency[i, j], frequency, rtol=1e-8)
        oscillating += frequency > 0
    assert oscillating > 1
    assert {0, 1} == set(pair_map.n_stable.ravel())


def test_units_do_not_matter(pair_map):
    other = pair(jnp.array([3e-4, 7e5]), 2e3)
    np.testing.assert_array_equal(other.n_stable, pair_map.n_stable)
    np.testing.assert_allclose(other.top, pair_map.top, rtol=1e-8)
    np.testing.assert_allclose(other.participation_ratio, pair_map.participation_ratio, rtol=1e-8)
    np.testing.assert_allclose(other.frequency * 2e3, pair_map.frequency, rtol=1e-8)


def test_it_is_drawn_and_saved(cusp_map, tmp_path):
    loaded = ssntk.load(ssntk.save(tmp_path / "map.npz", cusp_map))
    assert loaded == cusp_map
    for quantity in ("participation_ratio", "top"):
        ax = ssntk.plot.kernel_map(cusp_map, quantity=quantity)
        (image,) = ax.collections
        np.testing.assert_allclose(image.get_array(), getattr(cusp_map, quantity).T)
        assert ax.get_xlim() == (-0.5, 0.5)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("parameter $p_1$", "parameter $p_2$")
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 0}, "n must be"),
        ({"n": (2, 3, 4)}, "n must be one number of places or two"),
        ({"n": (2, 0.5)}, "n must be"),
        ({"spans": ((0.0, 0.0), (0.0, 1.0))}, r"spans\[0\] must not be empty"),
        ({"u": [1.0]}, "u must have shape"),
        ({"scale": -1.0}, "scale must be positive"),
        ({"step": 0.0}, "step must be"),
        ({"n_searches": 1}, "n_searches must be"),
        ({"plane": 3}, "plane must be"),
    ],
)
def test_mistakes_are_named_before_anything_is_compiled(compilations, change, said):
    arguments = {"plane": plane_of(0.0, -1.0), "spans": ((-0.5, 0.5), (-0.4, 1.4))} | change
    with pytest.raises(ValueError, match=said):
        ssntk.kernel_map(arguments.pop("plane"), arguments.pop("spans"), **arguments)
    assert not compilations


def test_rows_without_equilibria(cusp_map):
    plane = plane_of(1.0, 0.0)
    # p1 + p2 x + x^2 has the roots of a square where 4 p1 < p2^2.
    found = ssntk.kernel_map(plane, ((0.2, 0.4), (-1.0, 3.0)), n=(2, 2), **FEW)
    np.testing.assert_array_equal(found.n_stable, [[0, 1], [0, 1]])
    assert np.isnan(found.top[:, 0]).all()
    assert "no equilibrium was found at p2 = 0" in found.status
    with pytest.raises(ssntk.NumericalError, match="no equilibrium was found in any row"):
        ssntk.kernel_map(plane, ((0.2, 0.4), (-0.5, 0.5)), n=(2, 2), **FEW)
    with pytest.raises(ValueError, match="quantity must be one of"):
        ssntk.plot.kernel_map(found, quantity="trace")
