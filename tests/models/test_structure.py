"""What is kept by the structure of a model. Compiles nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk
from ssntk.models.base import check_autonomous, check_model
from ssntk.models.theta import Theta

CALLS = []


class Counted(ssntk.AbstractStateSpaceModel):
    """A user's model that counts how often its vector field is traced."""

    weight: jax.Array
    more: object = None
    power: int = eqx.field(static=True, default=2)
    n_state: int = 2
    n_input: int = 0
    n_output: int = 2

    def vector_field(self, t, x, u):
        CALLS.append(self.power)
        return -(x**self.power) * self.weight


def traced(model):
    """How often the vector field is traced by two calls of the check."""
    CALLS.clear()
    check_model(model)
    check_model(eqx.tree_at(lambda m: m.weight, model, 2 * model.weight))
    return len(CALLS)


def test_other_values_are_not_traced_again():
    assert traced(Counted(jnp.ones(2))) == 1
    assert traced(Counted(jnp.zeros(2))) == 0
    # Another static field, shape, or type of a number is another structure.
    assert traced(Counted(jnp.ones(2), power=3)) == 1
    assert traced(Counted(jnp.ones(()))) == 1
    assert traced(Counted(jnp.ones(2), more=1)) == 1
    assert traced(Counted(jnp.ones(2), more=1.0)) == 1


def test_a_part_without_a_hash_is_traced_each_time():
    assert traced(Counted(jnp.ones(2), more={1})) == 2


class Chosen(ssntk.AbstractStateSpaceModel):
    """A user's model whose NumPy flag decides what is trained, and how the output is read."""

    w: jax.Array
    v: jax.Array
    flag: object
    n_state: int = 2
    n_input: int = 0
    n_output: int = 2

    def vector_field(self, t, x, u):
        return self.v - x * self.w + (t if self.flag is None else 0)

    def readout(self, x):
        return x if self.flag else x[:1]

    def trainable(self, of):
        return self.w if self.flag else self.v


@pytest.mark.parametrize("flag", [np.array, np.bool_, bool])
def test_values_of_numpy_may_decide(flag):
    w, v = jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])
    models = [Chosen(w, v, flag(value)) for value in (True, False)]
    assert [Theta.of(model).arrays[0].tolist() for model in models] == [w.tolist(), v.tolist()]
    check_model(models[0])
    with pytest.raises(ValueError, match="readout must return real numbers of shape"):
        check_model(models[1])


def test_traced_values_in_functions_are_not_kept():
    def inside(w):
        check_model(ssntk.VectorField(lambda t, x, u, p: -w * x, jnp.ones(2), 2))
        return w

    with jax.checking_leaks():
        jax.jit(inside)(jnp.ones(2))


def test_values_are_still_checked():
    check_model(Counted(jnp.ones(2)))
    with pytest.raises(ValueError, match="must be finite"):
        check_model(Counted(jnp.array([1.0, jnp.nan])))


def test_an_error_is_raised_each_time():
    for _ in range(2):
        with pytest.raises(ValueError, match="could not be evaluated"):
            check_model(Counted(jnp.ones((1, 1))))


def test_settings_of_jax_belong_to_the_structure():
    with jax.numpy_dtype_promotion("standard"):
        mixed = ssntk.VectorField(lambda t, x, u, p: -p * x.astype(jnp.float32), jnp.ones(2), 2)
        check_model(mixed)
    with pytest.raises(ValueError, match="could not be evaluated"):
        check_model(mixed)


def test_time_counts_for_each_structure():
    still = ssntk.VectorField(lambda t, x, u, p: -p * x, jnp.ones(2), 2)
    driven = ssntk.VectorField(lambda t, x, u, p: -p * x + t, jnp.ones(2), 2)
    for _ in range(2):
        check_autonomous(still)
        with pytest.raises(ValueError, match="must not depend on t"):
            check_autonomous(driven)
