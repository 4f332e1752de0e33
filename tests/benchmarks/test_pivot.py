"""Exact branches of ReLU networks against dense solves and the corrector: `pytest -m slow tests/benchmarks -s -n 0`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import timed

import ssntk
from ssntk.piecewise.over import over
from ssntk.piecewise.pivot import start_at, walk
from ssntk.threads import one_blas_thread

pytestmark = pytest.mark.slow


def numbers(n):
    random = np.random.default_rng(0)
    return 0.9 * random.standard_normal((n, n)) / np.sqrt(n), *random.standard_normal((2, n))


def family_of(n, active):
    weight, bias, way = numbers(n)
    model = ssntk.VectorField(
        lambda t, x, u, p: -x + p["W"] @ active(x) + p["b"] + p["v"] * u[0],
        {name: jnp.asarray(one) for name, one in zip("Wbv", (weight, bias, way), strict=True)},
        n,
        1,
    )
    return ssntk.Family.input(model, [1.0])


@one_blas_thread()
def test_a_piece_takes_no_more_than_five_dense_solves():
    n = 200
    weight, bias, way = numbers(n)
    one, nothing = np.eye(n), np.zeros(n)
    system = over(lambda q: ssntk.PiecewiseLinear(-one, weight, one, nothing, bias + (10 * q - 5) * way, None))
    pattern = start_at(system, nothing, 0.0)
    count = len(walk(system, pattern, 0.0, 1.0, 1000).pieces)
    whole, solve = timed(
        lambda: walk(system, pattern, 0.0, 1.0, 1000).kinks, lambda: np.linalg.solve(one - weight, bias), rounds=5
    )
    print(f"\n{count} pieces, {1e6 * whole / count:.0f} us each; a solve takes {1e6 * solve:.0f} us")
    assert whole / count <= 5 * solve


@pytest.mark.parametrize("n", [100, 200])
def test_a_branch_takes_a_fifth_of_a_smooth_one(n):
    relu, smooth = family_of(n, jax.nn.relu), family_of(n, lambda x: jax.nn.softplus(1000 * x) / 1000)
    start = ssntk.continuation(relu, (-5.0, 5.0)).x[0]
    exact, warm = timed(
        lambda: ssntk.continuation(relu, (-5.0, 5.0)).x,
        lambda: ssntk.continuation(smooth, (-5.0, 5.0), x0=start).x,
        rounds=3,
    )
    print(f"\n{n} units: {exact:.2f} s, softplus {warm:.2f} s, ratio {warm / exact:.1f}")
    assert warm >= 5 * exact
