"""The parameters as one vector, against NumPy."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.models.theta import Theta, positions

MODEL = ssntk.CTRNN(3, 2, 1, key=jr.key(0))
# By hand: the leaves that the state depends on, in tree order, each in C order.
WANTED = np.concatenate([np.asarray(leaf).ravel() for leaf in (MODEL.weight, MODEL.input_weight, MODEL.bias)])


def test_the_vector_and_its_leaves():
    theta = Theta.of(MODEL)
    assert (theta.size, theta.offsets) == (18, [0, 9, 15, 18])
    np.testing.assert_array_equal(theta.vector, WANTED)
    weight, inputs, bias = theta.leaves(np.arange(18.0))
    np.testing.assert_array_equal(weight, np.arange(9.0).reshape(3, 3))
    np.testing.assert_array_equal(inputs, np.arange(9.0, 15.0).reshape(3, 2))
    np.testing.assert_array_equal(bias, [15.0, 16.0, 17.0])
    assert Theta.of(MODEL, of="readout").size == 18 + 3 + 1
    assert Theta.of(MODEL, lambda m: (m.bias, m.weight)).offsets == [0, 3, 12]


@pytest.mark.parametrize("lead", [(), (4,), (2, 5)])
@pytest.mark.parametrize("xp", [np, jnp])
def test_there_and_back(lead, xp):
    theta = Theta.of(MODEL)
    vectors = xp.asarray(np.random.default_rng(0).normal(size=(*lead, 18)))
    leaves = theta.leaves(vectors)
    assert [leaf.shape for leaf in leaves] == [(*lead, 3, 3), (*lead, 3, 2), (*lead, 3)]
    again = theta.ravel(leaves, lead=len(lead))
    # Arrays on the host stay there.
    assert all(isinstance(part, xp.ndarray) for part in (*leaves, again))
    np.testing.assert_array_equal(again, vectors)


def test_a_model_with_other_values_and_the_columns_of_a_part():
    theta = Theta.of(MODEL, lambda m: (m.bias, m.weight))
    for values in (jnp.arange(12.0), theta.leaves(jnp.arange(12.0))):
        moved = theta.put(values)
        np.testing.assert_array_equal(moved.bias, [0.0, 1.0, 2.0])
        np.testing.assert_array_equal(moved.weight, np.arange(3.0, 12.0).reshape(3, 3))
        assert moved.input_weight is MODEL.input_weight
    np.testing.assert_array_equal(theta.columns(positions(MODEL, lambda m: m.weight, "block")), np.arange(3, 12))


def test_parameters_of_no_size_and_inside_jit():
    blind = ssntk.CTRNN(3, 0, 1, key=jr.key(0))
    theta = Theta.of(blind)
    assert theta.size == 12
    assert [leaf.shape for leaf in theta.leaves(jnp.zeros((2, 12)))] == [(2, 3, 3), (2, 3, 0), (2, 3)]
    assert theta.ravel(theta.leaves(jnp.zeros((2, 12))), lead=1).shape == (2, 12)
    halved = eqx.filter_jit(lambda theta: theta.put(theta.vector / 2).weight)(theta)
    np.testing.assert_array_equal(halved, blind.weight / 2)


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_parameter_may_be_one_number(xp):
    theta = Theta.of(ssntk.VectorField(lambda t, x, u, p: p["a"] * x + p["b"], {"a": jnp.asarray(2.0), "b": jnp.ones(1)}, 1))
    np.testing.assert_array_equal(theta.vector, [2.0, 1.0])
    one, other = theta.leaves(xp.asarray([3.0, 4.0]))
    assert (one.shape, other.shape) == ((), (1,))
    np.testing.assert_array_equal(theta.ravel([one, other]), [3.0, 4.0])
    assert theta.put(xp.asarray([3.0, 4.0])).params["a"] == 3.0


def test_lenses_are_checked():
    with pytest.raises(ValueError, match="wrt does not fit CTRNN"):
        Theta.of(MODEL, lambda m: m.nothing)
