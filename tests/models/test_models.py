import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Leaky, arrays, cubic_field

import ssntk
from ssntk.models import base


def weights(seed, n=4, d=2, m=3):
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.normal(size=(n, n)),
        "input_weight": rng.normal(size=(n, d)),
        "bias": rng.normal(size=n),
        "readout_weight": rng.normal(size=(m, n)),
        "readout_bias": rng.normal(size=m),
    }


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("tau", [0.7, np.array([0.5, 1.0, 2.0, 4.0])], ids=["scalar", "vector"])
def test_ctrnn_follows_its_equation(form, tau):
    w, x, u = weights(0), np.array([0.3, -1.0, 2.0, 0.1]), np.array([0.5, -0.2])
    model = ssntk.CTRNN.from_weights(**w, gain=1.3, tau=tau, form=form)
    drive = w["input_weight"] @ u + w["bias"]
    if form == "current":
        velocity, seen = (-x + 1.3 * w["weight"] @ np.tanh(x) + drive) / tau, np.tanh(x)
    else:
        velocity, seen = (-x + np.tanh(1.3 * w["weight"] @ x + drive)) / tau, x
    # A handful of float64 operations apart.
    np.testing.assert_allclose(model.vector_field(0.0, jnp.asarray(x), jnp.asarray(u)), velocity, rtol=1e-14)
    np.testing.assert_allclose(model.readout(jnp.asarray(x)), w["readout_weight"] @ seen + w["readout_bias"], rtol=1e-14)


def test_ctrnn_from_weights_defaults():
    model = ssntk.CTRNN.from_weights(np.diag([1.0, 2.0]))
    assert (model.n_state, model.n_input, model.n_output) == (2, 0, 2)
    np.testing.assert_array_equal(model.bias, np.zeros(2))
    np.testing.assert_array_equal(model.readout_weight, np.eye(2))


def test_ctrnn_initial_weights_have_the_stated_variance_and_zero_bias():
    model = ssntk.CTRNN(300, 4, 5, key=jr.key(0))
    # The standard deviation of 90,000 draws is known to 0.24 %: four standard errors.
    assert abs(float(jnp.std(model.weight)) * 300**0.5 - 1) < 0.01
    assert not model.bias.any()
    same = ssntk.CTRNN(300, 4, 5, key=jr.key(0))
    np.testing.assert_array_equal(model.weight, same.weight)


def test_theta_leaves():
    model = ssntk.CTRNN(3, 2, 1, key=jr.key(0))
    assert [leaf.shape for leaf in jax.tree.leaves(model.trainable("state"))] == [(3, 3), (3, 2), (3,)]
    assert [leaf.shape for leaf in jax.tree.leaves(model.trainable("readout"))] == [(3, 3), (3, 2), (3,), (1, 3), (1,)]
    leaky = Leaky(jr.key(0))
    assert jax.tree.leaves(leaky.trainable("state")) == jax.tree.leaves(arrays(leaky))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weight": np.zeros((2, 3))}, "weight"),
        ({"weight": np.full((4, 4), np.nan)}, "weight"),
        ({"weight": "text"}, "weight"),
        ({"weight": np.eye(4) * 1j}, "weight"),
        ({"input_weight": np.zeros((3, 2))}, "input_weight"),
        ({"bias": np.zeros(3)}, "bias"),
        ({"readout_weight": np.zeros((3, 5))}, "readout_weight"),
        ({"readout_bias": np.zeros(2)}, "readout_bias"),
        ({"gain": np.inf}, "gain"),
        ({"tau": 0.0}, "tau"),
        ({"tau": np.ones(3)}, "tau"),
        ({"form": "rates"}, "form"),
    ],
)
def test_bad_weights_name_the_argument(change, name):
    with pytest.raises(ValueError, match=name):
        ssntk.CTRNN.from_weights(**weights(0) | change)


@pytest.mark.parametrize(("change", "name"), [({"n_state": 0}, "n_state"), ({"n_input": -1}, "n_input")])
def test_bad_sizes_name_the_argument(change, name):
    with pytest.raises(ValueError, match=name):
        ssntk.CTRNN(**{"n_state": 2, "n_input": 1, "n_output": 1} | change, key=jr.key(0))


def test_vector_field_model():
    params = {"W": np.eye(3), "b": np.arange(3)}
    model = ssntk.VectorField(cubic_field, params, 3, 3)
    x = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(model.vector_field(0.0, x, jnp.ones(3)), -(x**3) + x + jnp.arange(3.0) + 1)
    assert [leaf.shape for leaf in jax.tree.leaves(model.trainable("state"))] == [(3, 3), (3,)]
    with pytest.raises(ValueError, match="fn must return shape"):
        ssntk.VectorField(lambda t, x, u, p: x[:1], params, 3)
    with pytest.raises(ValueError, match="could not be evaluated"):
        ssntk.VectorField(cubic_field, {}, 3)
    with pytest.raises(ValueError, match="params"):
        ssntk.VectorField(cubic_field, {"W": np.full((3, 3), np.nan), "b": np.zeros(3)}, 3)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ssntk.normal_forms.saddle_node(4.0), [[-2.0], [2.0]]),
        (ssntk.normal_forms.saddle_node(-1.0), np.zeros((0, 1))),
        (ssntk.normal_forms.transcritical(3.0), [[0.0], [3.0]]),
        (ssntk.normal_forms.pitchfork(4.0), [[-2.0], [0.0], [2.0]]),
        (ssntk.normal_forms.pitchfork(-4.0), [[0.0]]),
        (ssntk.normal_forms.hopf(0.5, 2.0), [[0.0, 0.0]]),
    ],
)
def test_normal_form_fixed_points(model, expected):
    np.testing.assert_allclose(model.fixed_points(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        ssntk.normal_forms.transcritical(0.3, 0.2),
        ssntk.normal_forms.pitchfork(1.0, 0.1),
        ssntk.normal_forms.hopf(0.3, 2.0, 0.7, (0.4, -0.1)),
        ssntk.normal_forms.hopf(4.0, 0.1, 0.0, (0.4, -0.1)),
    ],
)
def test_imperfect_normal_forms_rest_at_their_fixed_points(model):
    points = model.fixed_points()
    assert len(points) >= 1
    for x in points:
        # Roots of a cubic carry a few roundings.
        np.testing.assert_allclose(model.vector_field(0.0, jnp.asarray(x), jnp.zeros(0)), 0.0, atol=1e-12)


def test_hopf_field_is_the_complex_equation():
    model = ssntk.normal_forms.hopf(0.3, 2.0, 0.7, (0.4, -0.1))
    z = 0.6 - 0.9j
    expected = (0.3 + 2j) * z - (1 + 0.7j) * z * abs(z) ** 2 + 0.4 - 0.1j
    got = model.vector_field(0.0, jnp.array([z.real, z.imag]), jnp.zeros(0))
    np.testing.assert_allclose(got, [expected.real, expected.imag], rtol=1e-14)


@pytest.mark.parametrize("make", [ssntk.CTRNN, ssntk.GRUODE, ssntk.LowRankRNN])
def test_random_weights_are_those_of_their_keys_to_the_last_digit_traced_or_not(make):
    key = jr.key(3)
    model = make(5, 2, 3, key=key)
    counts, name, scale = {
        ssntk.CTRNN: (3, "weight", 5),
        ssntk.GRUODE: (3, "weight", 5),
        ssntk.LowRankRNN: (4, "left", 1),
    }[make]
    drawn = getattr(model, name)
    np.testing.assert_array_equal(drawn, jr.normal(jr.split(key, counts)[0], drawn.shape) / np.sqrt(scale))
    traced = eqx.filter_vmap(lambda key: make(5, 2, 3, key=key))(jr.split(jr.key(0), 4))
    for i, own in enumerate(jr.split(jr.key(0), 4)):
        for one, several in zip(jax.tree.leaves(make(5, 2, 3, key=own)), jax.tree.leaves(traced), strict=True):
            if eqx.is_array(one):
                np.testing.assert_array_equal(several[i], one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_weights_share_one_program_and_are_those_of_large_ones(dtype, monkeypatch, compilations):
    parts = [((5, 5), 5), ((5, 0), 1), ((3, 5), 5)], [((7, 7), 7), ((7, 2), 2), ((1, 7), 7)]
    with jax.enable_x64(dtype == "float64"):
        key = jr.key(11)
        base.random_weights(key, *parts[0])
        before = len(compilations)
        found = [base.random_weights(key, *some) for some in parts]
        assert len(compilations) == before
        monkeypatch.setattr(base, "SMALL_DRAW", 0)
        for some, weights in zip(parts, found, strict=True):
            for weight, expected in zip(weights, base.random_weights(key, *some), strict=True):
                assert weight.dtype == expected.dtype == dtype
                np.testing.assert_array_equal(weight, expected)


def test_weights_lie_where_their_key_lies():
    (device,) = jax.devices()[:1]
    assert ssntk.CTRNN(5, 2, 3, key=jax.device_put(jr.key(3), device)).weight.committed
    assert not ssntk.CTRNN(5, 2, 3, key=jr.key(3)).weight.committed


def test_weights_are_the_same_inside_jit():
    inside = eqx.filter_jit(lambda: ssntk.CTRNN(5, 2, 3, key=jr.key(3)))()
    np.testing.assert_array_equal(inside.weight, ssntk.CTRNN(5, 2, 3, key=jr.key(3)).weight)


def test_numbers_that_are_given_are_copied():
    # JAX takes over the memory of arrays that begin at a multiple of 64 bytes.
    memory = np.zeros(1000)
    aligned = memory[(-memory.ctypes.data) % 64 // 8 :][:900]
    weight, ts = aligned[:400].reshape(20, 20), aligned[400:600]
    weight[:], ts[:] = np.eye(20), np.arange(200.0)
    model, probe = ssntk.CTRNN.from_weights(weight), ssntk.Probe(ts)
    aligned[:] = 7.0
    np.testing.assert_array_equal(model.weight, np.eye(20))
    np.testing.assert_array_equal(probe.ts, np.arange(200.0))
