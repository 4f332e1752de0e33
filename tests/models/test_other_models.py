"""The other models against their equations in numpy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

X, U = np.array([0.3, -1.0, 2.0, 0.1]), np.array([0.5, -0.2])


def randomised(model, seed=0):
    """`model` with every array drawn anew, so that no zero hides a mistake."""
    leaves, treedef = jax.tree.flatten(model)
    rng = np.random.default_rng(seed)
    moved = [jnp.asarray(rng.normal(size=leaf.shape)) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    return jax.tree.unflatten(treedef, moved)


def at(model):
    """f and y as NumPy arrays, and the model's fields."""
    fields = {name: np.asarray(value) for name, value in vars(model).items() if isinstance(value, jax.Array)}
    velocity = model.vector_field(jnp.zeros(()), jnp.asarray(X), jnp.asarray(U))
    return np.asarray(velocity), np.asarray(model.readout(jnp.asarray(X))), fields


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_low_rank_rnn():
    velocity, output, w = at(randomised(ssntk.LowRankRNN(4, 2, 3, 2, key=jr.key(0))))
    recurrent = w["gain"] * (w["left"] @ w["right"].T / 4) @ np.tanh(X)
    np.testing.assert_allclose(velocity, (-X + recurrent + w["input_weight"] @ U + w["bias"]) / w["tau"], rtol=1e-13)
    np.testing.assert_allclose(output, w["readout_weight"] @ np.tanh(X) + w["readout_bias"], rtol=1e-13)
    # The same network as a CTRNN of full weights.
    full = ssntk.CTRNN.from_weights(
        w["left"] @ w["right"].T / 4, w["input_weight"], w["bias"], gain=w["gain"], tau=np.abs(w["tau"])
    )
    same = full.vector_field(jnp.zeros(()), jnp.asarray(X), jnp.asarray(U)) * np.sign(w["tau"])
    np.testing.assert_allclose(velocity, same, rtol=1e-13)


def test_gru_ode():
    velocity, output, w = at(randomised(ssntk.GRUODE(4, 2, 3, key=jr.key(0))))
    (w_r, w_z, w_c), (u_r, u_z, u_c), (b_r, b_z, b_c) = (np.split(w[name], 3) for name in ("weight", "input_weight", "bias"))
    reset, update = sigmoid(w_r @ X + u_r @ U + b_r), sigmoid(w_z @ X + u_z @ U + b_z)
    candidate = np.tanh(w_c @ (reset * X) + u_c @ U + b_c)
    np.testing.assert_allclose(velocity, (1 - update) * (candidate - X) / w["tau"], rtol=1e-13)
    np.testing.assert_allclose(output, w["readout_weight"] @ X + w["readout_bias"], rtol=1e-13)


def test_neural_ode():
    model = randomised(ssntk.NeuralODE(4, 2, 3, width=5, depth=2, key=jr.key(0)))
    velocity, output, w = at(model)
    hidden = np.append(X, U)
    for layer in model.mlp.layers[:-1]:
        hidden = np.tanh(np.asarray(layer.weight) @ hidden + np.asarray(layer.bias))
    last = model.mlp.layers[-1]
    np.testing.assert_allclose(velocity, np.asarray(last.weight) @ hidden + np.asarray(last.bias), rtol=1e-13)
    np.testing.assert_allclose(output, w["readout_weight"] @ X + w["readout_bias"], rtol=1e-13)
    assert (model.n_state, model.n_input, model.n_output) == (4, 2, 3)


def test_linear_ssm():
    velocity, output, w = at(randomised(ssntk.LinearSSM(4, 2, 3, key=jr.key(0))))
    np.testing.assert_allclose(velocity, w["weight"] @ X + w["input_weight"] @ U, rtol=1e-13)
    np.testing.assert_allclose(output, w["readout_weight"] @ X + w["readout_bias"], rtol=1e-13)
    velocity, _, w = at(randomised(ssntk.LinearSSM(4, 2, 3, form="diagonal", key=jr.key(0))))
    z = (X[::2] + 1j * X[1::2]) * (-np.exp(w["log_decay"]) + 1j * w["frequency"])
    np.testing.assert_allclose(velocity, np.stack([z.real, z.imag], axis=1).ravel() + w["input_weight"] @ U, rtol=1e-13)


@pytest.mark.parametrize("form", ["dense", "diagonal"])
def test_a_new_linear_model_is_stable(form):
    for seed in range(5):
        points = ssntk.find_fixed_points(ssntk.LinearSSM(8, 1, 1, form=form, key=jr.key(seed)), n_starts=4)
        assert points.stable.tolist() == [True]
        np.testing.assert_allclose(points.x, 0.0, atol=1e-12)
        if form == "diagonal":
            exact = -0.5 + 1j * np.pi * np.array([0, 0, 1, -1, 2, -2, 3, -3])
            np.testing.assert_allclose(np.sort_complex(points.eigenvalues[0]), np.sort_complex(exact), atol=1e-12)


SIZES = {"n_state": 4, "n_input": 2, "n_output": 3, "key": jr.key(0)}
MODELS = {
    "low-rank": lambda **changes: ssntk.LowRankRNN(**SIZES | changes),
    "gru": lambda **changes: ssntk.GRUODE(**SIZES | changes),
    "neural": lambda **changes: ssntk.NeuralODE(**SIZES | changes),
    "linear": lambda **changes: ssntk.LinearSSM(**SIZES | changes),
    "diagonal": lambda **changes: ssntk.LinearSSM(**SIZES | {"form": "diagonal"} | changes),
}


@pytest.mark.parametrize("name", MODELS)
def test_theta_is_the_dynamics_and_with_a_readout_the_readout(name):
    model = MODELS[name]()
    sizes = {of: sum(leaf.size for leaf in jax.tree.leaves(model.trainable(of))) for of in ("state", "readout")}
    assert sizes["readout"] - sizes["state"] == 3 * 4 + 3
    dynamics = {"low-rank": 2 * 4 + 8 + 4, "gru": 3 * 16 + 3 * 8 + 12, "linear": 16 + 8, "diagonal": 2 + 2 + 8}
    if name in dynamics:
        assert sizes["state"] == dynamics[name]
    for argument, value in (("n_state", 0), ("n_input", -1), ("n_output", 0)):
        with pytest.raises(ValueError, match=argument):
            MODELS[name](**{argument: value})
    assert MODELS[name](n_input=0).n_input == 0


def test_arguments():
    for make, match in (
        (lambda: MODELS["low-rank"](rank=5), "rank"),
        (lambda: MODELS["low-rank"](tau=-1.0), "tau"),
        (lambda: MODELS["gru"](tau=[1.0, 2.0]), "tau"),
        (lambda: MODELS["neural"](width=0), "width"),
        (lambda: MODELS["linear"](form="sparse"), "form"),
        (lambda: MODELS["diagonal"](n_state=3), "n_state must be even"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
