"""A probe that was fitted to a model has all its fields, and its inputs are counted only once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.dynamics.probe import FittedProbe

MODEL = ssntk.CTRNN(3, 2, 1, key=jr.key(0))
TS = np.linspace(0.0, 1.0, 4)


@pytest.mark.parametrize(
    ("us", "x0", "batch"),
    [
        (None, None, 1),
        (None, np.ones(3), 1),
        (None, np.ones((4, 3)), 4),
        (np.ones((5, 2)), None, 5),
        (np.ones((5, 4, 2)), np.ones((5, 3)), 5),
        (lambda t: t * jnp.ones((6, 2)), np.ones(3), 6),
    ],
)
def test_inputs_and_states_are_filled_in(us, x0, batch):
    given = ssntk.Probe(TS, us, x0)
    fitted = given.fit(MODEL)
    assert isinstance(fitted, FittedProbe)
    assert fitted.n_batch == given.n_batch == batch
    np.testing.assert_array_equal(fitted.x0, np.broadcast_to(0.0 if x0 is None else x0, (batch, 3)))
    last = fitted.input(batch - 1)(jnp.asarray(1.0))
    np.testing.assert_array_equal(last, np.zeros(2) if us is None else np.ones(2))


def test_it_is_in_the_precision_of_the_model():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_array(leaf) else leaf, MODEL)
    fitted = ssntk.Probe(TS, lambda t: jnp.ones((2, 2))).fit(single)
    assert {fitted.ts.dtype, fitted.x0.dtype, fitted.input(0)(fitted.ts[1]).dtype} == {jnp.dtype(jnp.float32)}


def test_a_function_of_time_is_not_traced_to_be_counted():
    calls = []

    def us(t):
        calls.append(t)
        return jnp.ones((3, 2)) * t

    fitted = ssntk.Probe(TS, us).fit(MODEL)
    before = len(calls)
    assert [fitted.n_batch for _ in range(5)] == [3] * 5
    assert len(calls) == before


def test_the_number_of_inputs_is_known_inside_jit():
    fitted = ssntk.Probe(TS, np.ones((3, 2))).fit(MODEL)
    assert jax.jit(lambda probe: jnp.zeros(probe.n_batch))(fitted).shape == (3,)


def test_masks_and_targets_are_as_with_the_probe():
    probe = ssntk.Probe.steps(np.ones((2, 3, 2)))
    fitted = probe.fit(ssntk.EulerMap(MODEL, 1.0))
    rows = np.random.default_rng(0).normal(size=(2, 4, 3, 1))
    np.testing.assert_array_equal(fitted.observed(jnp.asarray(rows)), probe.observed(jnp.asarray(rows)))
    np.testing.assert_array_equal(fitted.observed(jnp.asarray(rows))[:, 0], 0.0)
    assert fitted.aligned(jnp.ones((2, 3, 1))).shape == (2, 4, 1)
    with pytest.raises(ValueError, match=r"dt = 0\.5"):
        probe.fit(ssntk.EulerMap(MODEL, 0.5))
