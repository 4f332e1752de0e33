"""Cells, layers and networks of other forms: against steps written in numpy, other libraries' cells, and each other.

Compiles little: steps run without compilation, and a few searches and kernels of models of some states are compiled.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import seeds, some

import ssntk

X, U = np.random.default_rng(0).normal(size=(2, 8))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_is_that_of_equinox(bias):
    other = eqx.nn.GRUCell(3, 4, use_bias=bias, key=jr.key(1))
    biases = (jnp.concatenate([jnp.zeros(8), other.bias_n]), other.bias) if bias else (None, None)
    cell = ssntk.GRUCell.from_weights(other.weight_hh, other.weight_ih, *biases)
    np.testing.assert_allclose(cell.step(X[:4], U[:3]), other(jnp.asarray(U[:3]), jnp.asarray(X[:4])), atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_an_lstm_is_that_of_equinox(bias):
    other = eqx.nn.LSTMCell(3, 4, use_bias=bias, key=jr.key(1))
    cell = ssntk.LSTMCell.from_weights(other.weight_hh, other.weight_ih, None, other.bias)
    h, c = other(jnp.asarray(U[:3]), (jnp.asarray(X[:4]), jnp.asarray(X[4:])))
    np.testing.assert_allclose(cell.step(X, U[:3]), jnp.concatenate([h, c]), atol=1e-14)


def test_a_reset_before_the_product_is_another_function():
    weights = drawn(12, 4), drawn(12, 3), drawn(12), drawn(12, seed=1)
    before, after = (ssntk.GRUCell.from_weights(*weights, reset_after=flag).step(X[:4], U[:3]) for flag in (False, True))
    hh, ih, bh, bi = weights
    given, own = ih @ U[:3] + bi, hh @ X[:4] + bh
    r, z = sigmoid(given[:4] + own[:4]), sigmoid(given[4:8] + own[4:8])
    first = np.tanh(given[8:] + hh[8:] @ (r * X[:4]) + bh[8:])
    second = np.tanh(given[8:] + r * own[8:])
    np.testing.assert_allclose(before, (1 - z) * first + z * X[:4], atol=1e-14)
    np.testing.assert_allclose(after, (1 - z) * second + z * X[:4], atol=1e-14)


@pytest.mark.parametrize("make", [ssntk.GRUCell, ssntk.LSTMCell])
def test_random_weights_are_as_wide_as_those_of_pytorch(make):
    cell = make(3, 50, 2, key=jr.key(0))
    bound = 1 / np.sqrt(50)
    for array in (cell.weight_hh, cell.weight_ih, cell.bias_hh, cell.bias_ih):
        assert np.abs(array).max() <= bound
        # A uniform distribution has this standard deviation.
        np.testing.assert_allclose(np.std(array), bound / np.sqrt(3), rtol=0.15)
    assert cell.readout_weight.shape == (2, 50)
    assert make(3, 4, key=jr.key(0)).readout_weight is None
    drawn_while_traced = jax.jit(lambda key: make(3, 50, 2, key=key).weight_hh)(jr.key(0))
    np.testing.assert_allclose(drawn_while_traced, cell.weight_hh, atol=1e-7)


def test_what_a_layer_sees_is_the_new_state_of_the_one_below():
    below, above = ssntk.LSTMCell(3, 2, key=jr.key(1)), ssntk.GRUCell(2, 4, 1, key=jr.key(2))
    stack = ssntk.Layers(below, above)
    x = X[:8]
    new = below.step(x[:4], U[:3])
    np.testing.assert_allclose(stack.step(x, U[:3]), jnp.concatenate([new, above.step(x[4:], new[:2])]), atol=1e-15)
    np.testing.assert_array_equal(stack.readout(jnp.asarray(x)), above.readout(jnp.asarray(x[4:])))
    assert len(jax.tree.leaves(stack.trainable("readout"))) == 10
    assert len(jax.tree.leaves(stack.trainable("state"))) == 8


def relu(z):
    return np.maximum(z, 0)


def test_the_forms_of_a_piecewise_linear_network():
    A, W, h, C = drawn(4), drawn(4, 4), drawn(4, seed=1), drawn(4, 3)
    x, u = X[:4], U[:3]
    standard = ssntk.PLRNN.from_weights(A, W, h, C=C)
    np.testing.assert_allclose(standard.step(x, u), A * x + W @ relu(x) + h + C @ u, atol=1e-14)
    full = ssntk.PLRNN.from_weights(np.diag(A), W, h, C=C)
    np.testing.assert_allclose(full.step(x, u), standard.step(x, u), atol=1e-14)
    almost = ssntk.PLRNN.from_weights(A, W, h, C=C, rectified=1)
    np.testing.assert_allclose(almost.step(x, u), A * x + W @ np.append(x[:3], relu(x[3:])) + h + C @ u, atol=1e-14)
    W1, W2, h2 = drawn(4, 6), drawn(6, 4), drawn(6)
    shallow = ssntk.PLRNN.from_weights(A, W1, h, W2=W2, h2=h2)
    np.testing.assert_allclose(shallow.step(x), A * x + W1 @ relu(W2 @ x + h2) + h, atol=1e-14)


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_a_low_rank_network_and_its_flow_of_kappa(seed):
    random = np.random.default_rng(seed)
    m, n = random.normal(size=(2, 30, 3)) * 2.5
    model = ssntk.LowRankRNN.from_weights(m, n, random.normal(size=(30, 2)), random.normal(size=30), tau=0.4, gain=1.5)
    reduced = model.reduced()
    u = [0.5, -0.2]
    points, small = ssntk.find_fixed_points(model, u), ssntk.find_fixed_points(reduced, u)
    assert len(points) == len(small)
    order = [np.abs(points.x - np.asarray(reduced.lift(kappa, u))).max(axis=1).argmin() for kappa in small.x]
    assert sorted(order) == list(range(len(points)))
    for i, kappa in zip(order, small, strict=True):
        np.testing.assert_allclose(reduced.lift(kappa.x, u), points.x[i], atol=1e-9)
        # The other eigenvalues are -1 / tau.
        expected = np.sort_complex(np.append(kappa.eigenvalues, np.full(27, -1 / 0.4)))
        np.testing.assert_allclose(np.sort_complex(points.eigenvalues[i]), expected, atol=1e-6)
    # A trajectory that starts on the surface stays on it.
    start = random.normal(size=3)
    ts = np.linspace(0, 2, 5)
    kappas = ssntk.simulate(reduced, ssntk.Probe(ts, [u], start))[0]
    states = ssntk.simulate(model, ssntk.Probe(ts, [u], np.asarray(reduced.lift(start, u))))[0]
    np.testing.assert_allclose(jax.vmap(lambda kappa: reduced.lift(kappa, u))(kappas), states, atol=1e-6)


def test_units_of_their_own_speed_have_no_flow_of_kappa():
    model = ssntk.LowRankRNN.from_weights(np.ones(3), np.ones(3), tau=[1.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"^tau must be the same"):
        model.reduced()


@pytest.mark.parametrize("k", some([1, 2, 4, 7], {2, 7}))
def test_an_iterate_is_the_map_taken_several_times(k):
    cell = ssntk.GRUCell(2, 3, 1, key=jr.key(4))
    whole = ssntk.Iterated(cell, k)
    x = jnp.asarray(X[:3])
    for _ in range(k):
        x = cell.step(x, U[:2])
    np.testing.assert_allclose(whole.step(X[:3], U[:2]), x, atol=1e-15)
    assert (whole.dt, whole.iterations, ssntk.Iterated(whole, 2).iterations) == (k, k, 2 * k)
    np.testing.assert_array_equal(whole.weight_hh, cell.weight_hh)
    # The kernel is that of the map, at every k-th step.
    rows = ssntk.parameter_jacobian(cell, ssntk.Probe([0.0, k, 2.0 * k], U[None, :2]))
    np.testing.assert_allclose(
        ssntk.parameter_jacobian(whole, ssntk.Probe([0.0, k, 2.0 * k], U[None, :2])), rows, atol=1e-13
    )


def test_a_closed_loop_feeds_back_its_output():
    cell = ssntk.LSTMCell(2, 3, 2, key=jr.key(5))
    loop = ssntk.ClosedLoop(cell)
    x = jnp.asarray(X[:6])
    np.testing.assert_allclose(loop.step(x), cell.step(x, cell.readout(x)), atol=1e-15)
    assert (loop.n_input, loop.n_output, loop.dt) == (0, 2, 1.0)
    # The readout's weights are part of the dynamics.
    assert any(leaf is loop.readout_weight for leaf in jax.tree.leaves(loop.trainable("state")))
    flow = ssntk.CTRNN(4, 3, 2, key=jr.key(6))
    padded = ssntk.ClosedLoop(flow, lambda y: jnp.append(y, 0.7))
    y = flow.readout(x[:4])
    expected = flow.vector_field(0.0, x[:4], jnp.append(y, 0.7))
    np.testing.assert_allclose(padded.vector_field(0.0, x[:4], jnp.zeros(0)), expected, atol=1e-15)


GRU, LSTM = ssntk.GRUCell(2, 3, 2, key=jr.key(0)), ssntk.LSTMCell(3, 4, key=jr.key(0))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ssntk.GRUCell(2, 0, key=jr.key(0)), "n_hidden must"),
        (lambda: ssntk.LSTMCell(-1, 2, key=jr.key(0)), "n_input must"),
        (lambda: ssntk.LSTMCell(1, 2, 1.5, key=jr.key(0)), "n_output must"),
        (lambda: ssntk.GRUCell.from_weights(np.zeros((4, 2))), "weight_hh must have shape"),
        (lambda: ssntk.GRUCell.from_weights(np.zeros((6, 2)), np.zeros((5, 1))), "weight_ih must have shape"),
        (lambda: ssntk.LSTMCell.from_weights(np.full((8, 2), np.nan)), "weight_hh must be finite"),
        (lambda: ssntk.GRUCell.from_weights(np.zeros((6, 2)), order="flax"), "order must be one of"),
        (lambda: ssntk.GRUCell.from_weights(np.zeros((6, 2)), readout_bias=[0.0]), "readout_bias needs"),
        (lambda: ssntk.Layers(), "cells must hold at least one"),
        (lambda: ssntk.Layers(GRU, ssntk.CTRNN(2, 3, 1, key=jr.key(0))), r"cells\[1\] must be"),
        (lambda: ssntk.Layers(GRU, GRU), r"cells\[1\] must have 3 inputs"),
        (lambda: ssntk.Layers(GRU, ssntk.Iterated(LSTM, 2)), "cells must have the same dt"),
        (lambda: ssntk.PLRNN(3, 1, 1, rectified=4, key=jr.key(0)), "rectified must be at most"),
        (lambda: ssntk.PLRNN(3, 1, 1, hidden=0, key=jr.key(0)), "hidden must"),
        (lambda: ssntk.PLRNN.from_weights([1.0, 2.0], np.zeros((2, 3))), "W must have shape"),
        (lambda: ssntk.PLRNN.from_weights([1.0], [[1.0]], h2=[1.0]), "h2 needs a W2"),
        (lambda: ssntk.PLRNN.from_weights([1.0], [[1.0]], W2=[[1.0]], rectified=1), "rectified must be left out"),
        (lambda: ssntk.PLRNN.from_weights([[1.0, 2.0]], [[1.0]]), "A must have shape"),
        (lambda: ssntk.Iterated(GRU, 0), "k must"),
        (lambda: ssntk.Iterated(ssntk.CTRNN(2, 1, 1, key=jr.key(0)), 2), "map must be"),
        (lambda: ssntk.ClosedLoop(LSTM), r"feed must return the input, shape \(3,\), from the output y \(4,\), got \(4,\)"),
        (lambda: ssntk.ClosedLoop(GRU, feed=3), "feed must be callable"),
        (lambda: ssntk.ClosedLoop(GRU, feed=lambda y: y @ np.ones(5)), "could not be evaluated"),
        (lambda: ssntk.Map(lambda t, x, u, p: x[:1], {}, 2), "fn must return shape"),
        (lambda: ssntk.Map(lambda t, x, u, p: x, {}, 2, dt=0.0), "dt must"),
        (lambda: ssntk.Map(lambda x: x, {}, 2), "could not be evaluated"),
        (lambda: ssntk.LowRankRNN.from_weights(np.ones((3, 2)), np.ones((3, 1))), "n must have shape"),
        (lambda: ssntk.LowRankRNN.from_weights(np.ones((0, 2)), np.ones((0, 2))), "m must have shape"),
    ],
)
def test_bad_input_is_named_before_anything_compiles(call, said, compilations):
    before = len(compilations)
    with pytest.raises(ValueError, match=said):
        call()
    assert len(compilations) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda key: ssntk.LSTMCell(1, 3, 1, key=key),
        lambda key: ssntk.Layers(ssntk.GRUCell(1, 2, key=key), ssntk.GRUCell(2, 2, 1, key=key)),
        lambda key: ssntk.ClosedLoop(ssntk.GRUCell(1, 3, 1, key=key)),
        lambda key: ssntk.PLRNN(3, 1, 1, hidden=4, key=key),
    ],
    ids=["lstm", "layers", "loop", "plrnn"],
)
def test_other_weights_compile_nothing(make, compilations):
    def ask(model):
        ssntk.find_fixed_points(model, n_starts=8)
        ssntk.parameter_jacobian(model, ssntk.Probe(np.arange(4.0), x0=0.1 * np.ones(model.n_state)))

    ask(make(jr.key(0)))
    before = len(compilations)
    ask(make(jr.key(1)))
    assert len(compilations) == before


def test_what_earlier_versions_wrote_is_read():
    # A gated layer was a flow inside an EulerMap, under another name and without some fields.
    from ssntk.models import cells

    assert (ssntk.GRUCell, ssntk.LSTMCell) == (cells.GRU, cells.LSTM)
    older = object.__new__(cells.GRU)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "readout_weight", "readout_bias"):
        object.__setattr__(older, name, getattr(GRU, name))
    network = ssntk.EulerMap.__new__(ssntk.EulerMap)
    object.__setattr__(network, "model", older)
    object.__setattr__(network, "dt", 1.0)
    np.testing.assert_allclose(network.step(X[:3], U[:2]), GRU.step(X[:3], U[:2]), atol=1e-15)
    with pytest.warns(DeprecationWarning, match="leave out"):
        assert GRU.model is GRU
