"""The Newton loop, against known roots, and in a case in which optimistix's Newton reports success too early.

Compiles three scalar loops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from ssntk.newton import newton


@jax.jit
def square_root(x, of):
    def step(x):
        left = x * x - of
        move = -left / (2 * x)
        return move, jnp.abs(move / x).max(), jnp.abs(left / of).max()

    return newton(step, x, lambda size, before, steps: size > 1e-15)


@pytest.mark.parametrize("of", [1e-200, 2.0, 3e150])
def test_it_converges_to_a_root_of_any_size(of):
    found = square_root(jnp.asarray([np.sqrt(of) * 3]), of)
    np.testing.assert_allclose(found.x, np.sqrt(of), rtol=4e-16)
    assert found.size <= 1e-15
    # Quadratic convergence from three times the root.
    assert 5 <= found.steps <= 9


def test_it_stops_where_the_numbers_end():
    found = square_root(jnp.asarray([0.0]), 2.0)
    assert not np.isfinite(found.x).all()
    assert found.steps == 1


def test_at_a_double_root_the_last_correction_is_reported_and_nothing_is_called_success():
    def step(x):
        move = -x / 2
        return move, jnp.abs(move).max(), jnp.abs(x * x).max()

    found = jax.jit(lambda x: newton(step, x, lambda size, before, steps: size > 1e-15, most=10))(jnp.asarray([1.0]))
    # Newton's iteration on x^2 halves x.
    assert found.steps == 10
    np.testing.assert_allclose([found.x[0], found.size, found.left], [2.0**-10, 2.0**-10, 2.0**-18], rtol=1e-15)
    # This is why optimistix's Newton is not used: it takes slow convergence for the end of the iteration.
    other = optx.root_find(lambda x, _: x**2, optx.Newton(rtol=1e-6, atol=1e-6), jnp.asarray(1.0), max_steps=50, throw=False)
    assert other.result == optx.RESULTS.successful
    assert other.value > 9e-7
