"""Layers of Keras and ONNX, by `order=`: against the frameworks, whose numbers are in reference/keras_onnx.npz, made by
reference/keras_onnx_oracle.py, and against their published formulas, which are written here.

Compiles: one roll-out of 3 units; steps run operation by operation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import ssntk

REFERENCE = np.load(ROOT / "tests" / "reference" / "keras_onnx.npz")
US = REFERENCE["us"]
CASES = sorted({name.rsplit("/states", 1)[0] for name in REFERENCE if name.endswith("/states")})
N, D = 3, 2


def weights_of(case):
    start = f"{case}/weights/"
    return {name.removeprefix(start): REFERENCE[name] for name in REFERENCE if name.startswith(start)}


def network_of(case, weights=None, **options):
    framework, kind, which = case.split("/")
    if kind == "GRU" and (framework == "onnx" or which == "none before"):
        options["reset_after"] = which == "after"
    return ssntk.from_torch(weights_of(case) if weights is None else weights, order=framework, **options)


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_the_framework_s(case):
    network, states = network_of(case), REFERENCE[f"{case}/states"]
    assert network.n_state == states.shape[1]
    for x, u, after in zip(states[:-1], US, states[1:], strict=True):
        np.testing.assert_allclose(network.step(x, u), after, rtol=1e-14, atol=1e-14)
    if case.startswith("keras"):
        outputs = jax.vmap(network.readout)(jnp.asarray(states[1:]))
        np.testing.assert_allclose(outputs, REFERENCE[f"{case}/outputs"], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_theta_is_what_the_framework_trains(case):
    """As many numbers, and the same ones: of two biases in one array each has its own, and of one there is one."""
    theta = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(network_of(case).trainable("readout"))])
    theirs = np.concatenate([np.ravel(array) for array in weights_of(case).values()])
    np.testing.assert_array_equal(np.sort(theta), np.sort(theirs))


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("keras")])
def test_names_of_keras(case):
    """The weights file of Keras 3 numbers the arrays, in alphabetical order of the layers; Keras 2 ends its names in :0."""
    weights, expected = weights_of(case), network_of(case).step(REFERENCE[f"{case}/states"][0][: 2 * N], US[0])
    ends = {"kernel": "0", "recurrent_kernel": "1", "bias": "2"}
    file = {"layers/dense/vars/0": weights["net/dense/kernel"], "layers/dense/vars/1": weights["net/dense/bias"]}
    old = {}
    for name, array in weights.items():
        last = name.rsplit("/", 1)[1]
        old[f"{name}:0"] = array
        if "dense" not in name:
            file[f"layers/layer/cell/vars/{ends[last]}"] = array
    file["layers/layer/cell/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    file["optimizer/vars/0"] = np.asarray(3)
    for given_names in (file, old):
        network = network_of(case, given_names)
        x = REFERENCE[f"{case}/states"][0]
        np.testing.assert_array_equal(network.step(x, US[0]), network_of(case).step(x, US[0]))
        np.testing.assert_array_equal(network.readout_weight, weights["net/dense/kernel"].T)
    recurrent = next(name for name in weights if name.endswith("recurrent_kernel"))
    names = {"weight": recurrent, "input_weight": recurrent.replace("recurrent_kernel", "kernel")}
    bias = recurrent.replace("recurrent_kernel", "bias")
    names |= {"bias": bias} if bias in weights else {}
    named = network_of(case, names=names)
    np.testing.assert_array_equal(named.step(x, US[0]), expected)
    assert named.n_output == N


def test_names_of_onnx():
    """PyTorch's exporter numbers the arrays, so that only `names` tells them apart."""
    case = "onnx/LSTM/bias"
    weights = {f"onnx::LSTM_{19 + i}": array for i, array in enumerate(weights_of(case).values())}
    with pytest.raises(ValueError, match=r"must hold W and R .* by names=, got onnx::LSTM_19, onnx::LSTM_20, onnx::LSTM_21"):
        network_of(case, weights)
    names = {"input_weight": "onnx::LSTM_19", "weight": "onnx::LSTM_20", "bias": "onnx::LSTM_21"}
    x = REFERENCE[f"{case}/states"][0]
    np.testing.assert_array_equal(network_of(case, weights, names=names).step(x, US[0]), network_of(case).step(x, US[0]))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gates_of(order, weights, x, u):
    """The sums of each gate by its letter: what the inputs and the recurrent weights give, with their biases."""
    W, U, b, c = weights
    if order == "keras":
        # In Keras, rows are inputs.
        W, U = W.T, U.T
    letters = {("keras", 3): "zrh", ("onnx", 3): "zrh", ("torch", 3): "rzh"}
    letters |= {("keras", 4): "ifco", ("onnx", 4): "iofc", ("torch", 4): "ifco"}
    size = U.shape[1]
    named = enumerate(letters[order, U.shape[0] // size])
    rows = {letter: slice(size * k, size * (k + 1)) for k, letter in named}
    return {letter: (W[at] @ u + b[at], U[at], c[at]) for letter, at in rows.items()}


def gru(order, weights, after, h, u):
    """GRU of ONNX's operator, version 14, with linear_before_reset = after; and of Keras with reset_after = after."""
    gates = gates_of(order, weights, h, u)
    z, r = (sigmoid(ins + own @ h + bias) for ins, own, bias in (gates["z"], gates["r"]))
    ins, own, bias = gates["h"]
    candidate = np.tanh(ins + r * (own @ h + bias)) if after else np.tanh(ins + own @ (r * h) + bias)
    return (1 - z) * candidate + z * h


def lstm(order, weights, x, u):
    """LSTM of ONNX's operator without peepholes, version 14; and of Keras."""
    h, c = np.split(x, 2)
    i, f, g, o = (ins + own @ h + bias for ins, own, bias in map(gates_of(order, weights, h, u).get, "ifco"))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(c), c])


def drawn(rng, order, gates, n, d):
    """Weights of the inputs and the states, and two biases, in the layout of a framework."""
    W, U = rng.normal(size=(gates * n, d)), rng.normal(size=(gates * n, n))
    if order == "keras":
        W, U = W.T.copy(), U.T.copy()
    return W, U, rng.normal(size=gates * n), rng.normal(size=gates * n)


@given(seed=st.integers(0, 2**32 - 1), order=st.sampled_from(["torch", "keras", "onnx"]), after=st.booleans())
@settings(max_examples=12, deadline=None)
def test_the_order_of_gates_is_that_of_the_published_formulas(seed, order, after):
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 4), rng.integers(0, 3)
    for gates in (3, 4):
        W, U, b, c = weights = drawn(rng, order, gates, n, d)
        x, u = rng.normal(size=n if gates == 3 else 2 * n), rng.normal(size=d)
        held = {"weight_hh": U, "weight_ih": W, "bias_hh": c, "bias_ih": b}
        if gates == 3:
            cell = ssntk.GRUCell.from_weights(**held, order=order, reset_after=after)
            expected = gru(order, weights, after, x, u)
        else:
            cell, expected = ssntk.LSTMCell.from_weights(**held, order=order), lstm(order, weights, x, u)
        np.testing.assert_allclose(cell.step(x, u), expected, rtol=1e-13, atol=1e-13)


@given(seed=st.integers(0, 2**32 - 1), order=st.sampled_from(["keras", "onnx"]))
@settings(max_examples=8, deadline=None)
def test_weights_in_another_order_give_the_same_cell(seed, order):
    """The gates of Keras and ONNX in PyTorch's order, by permutations that are written out here."""
    rng = np.random.default_rng(seed)
    places = {("keras", 3): [1, 0, 2], ("onnx", 3): [1, 0, 2], ("keras", 4): [0, 1, 2, 3], ("onnx", 4): [0, 2, 3, 1]}
    for cell, gates in ((ssntk.GRUCell, 3), (ssntk.LSTMCell, 4)):
        held = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), drawn(rng, order, gates, 2, 1), strict=True))
        torch = {}
        for name, array in held.items():
            blocks = np.split(array.T if order == "keras" and array.ndim == 2 else array, gates)
            torch[name] = np.concatenate([blocks[place] for place in places[order, gates]])
        made, plain = cell.from_weights(**held, order=order), cell.from_weights(**torch)
        for name in held:
            np.testing.assert_array_equal(getattr(made, name), getattr(plain, name))


def test_the_step_of_another_framework_is_compared_by_same_rollout():
    case = "keras/GRU/before"
    weights = weights_of(case)
    kernel, recurrent, bias = (weights[f"net/gru/gru_cell/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))

    def step(h, u):
        return gru("keras", (kernel, recurrent, bias, np.zeros_like(bias)), False, h, u)

    assert ssntk.same_rollout(network_of(case), step, US) < 1e-14
    # With the other place of the reset gate it is another network.
    other = ssntk.GRUCell.from_weights(recurrent, kernel, None, bias, order="keras")
    assert ssntk.same_rollout(other, step, US) > 1e-3


def test_a_readout_of_keras():
    weights = weights_of("keras/LSTM/none")
    cell = {name: array for name, array in weights.items() if "dense" not in name}
    assert ssntk.from_torch(cell, order="keras").n_output == N
    # Any name will do if the shape fits.
    named = cell | {"net/anything/kernel": np.ones((N, 4))}
    network = ssntk.from_torch(named, order="keras")
    assert (network.n_output, network.readout_bias) == (4, None)
    # As many outputs as inputs, in front of the cell: it may transform the inputs.
    front = {"net/dense/kernel": np.ones((N, D))}
    with pytest.raises(ValueError, match="net/dense/kernel, whose use is not known"):
        ssntk.from_torch(front | cell, order="keras")
    assert ssntk.from_torch(cell | front, order="keras").n_output == D
    node = weights_of("onnx/RNN/none") | {"fc.weight": np.ones((1, N)), "fc.bias": np.ones(1)}
    assert ssntk.from_torch(node, order="onnx").readout(jnp.ones(N)) == N + 1


def test_what_is_not_understood_is_said():
    keras = {"gru/kernel": np.zeros((D, 3 * N)), "gru/recurrent_kernel": np.zeros((N, 3 * N))}
    both = {"gru/bias": np.zeros((2, 3 * N))}
    lstm = {"lstm/kernel": np.zeros((D, 4 * N)), "lstm/recurrent_kernel": np.zeros((N, 4 * N))}
    twice = {name.replace("lstm", "bidirectional/backward_lstm"): array for name, array in lstm.items()}
    node = {"W": np.zeros((1, 3 * N, D)), "R": np.zeros((1, 3 * N, N)), "B": np.zeros((1, 6 * N))}
    four = {"x.W": np.zeros((1, 4 * N, D)), "x.R": np.zeros((1, 4 * N, N))}
    two = {name: np.concatenate([array, array]) for name, array in node.items()}
    head = {"out.weight": np.zeros((1, N + 1))}
    cases = [
        (keras, "tensorflow", {}, "order must be one of 'torch', 'keras', 'onnx', got 'tensorflow'"),
        (keras, "keras", {"reset_after": 1}, "reset_after must be True or False, got 1"),
        ({"weight_hh": np.eye(N)}, "torch", {"reset_after": True}, 'reset_after must be left out for order="torch"'),
        (lstm, "keras", {"reset_after": True}, "reset_after must be left out, since the layer is no GRU"),
        (keras | both, "keras", {"reset_after": False}, r"reset_after contradicts state_dict\['gru/bias'\].*\(2, 9\)"),
        (keras | {"gru/bias": np.zeros(9)}, "keras", {"reset_after": True}, "reset_after contradicts state_dict"),
        (keras | {"gru/bias": np.zeros(6)}, "keras", {}, r"shape \(9,\) or \(2, 9\) in GRU, got \(6,\)"),
        (lstm | {"lstm/bias": np.zeros((2, 12))}, "keras", {}, r"shape \(12,\) in LSTM, got \(2, 12\)"),
        (keras, "keras", {"dt": 0.5}, r"dt must be 1 for nn\.GRU"),
        (keras, "keras", {"form": "current"}, "form must be left out"),
        (keras, "keras", {"activation": jax.nn.relu}, "activation must be left out"),
        (keras | {"gru/kernel": np.zeros((D, 8))}, "keras", {}, r"'gru/kernel'\] must have shape \(d, 9\), got \(2, 8\)"),
        (keras | {"gru/recurrent_kernel": np.zeros((N, 7))}, "keras", {}, r"or have three times as many columns as rows"),
        (keras | lstm, "keras", {}, r"several recurrent layers, gru, lstm: .*ssntk\.Layers\(first, second\)"),
        (lstm | twice, "keras", {}, "backward_lstm, bidirectional: its first output depends on the last input"),
        ({"dense/kernel": np.zeros((N, 1))}, "keras", {}, "must hold kernel and recurrent_kernel.*got dense/kernel"),
        (keras | {"gru/gain": np.zeros(1)}, "keras", {}, "gru/gain, whose use is not known"),
        (keras | {"norm/gamma": np.zeros(1)}, "keras", {}, "norm/gamma, whose use is not known"),
        (keras, "keras", {"names": {"weight": ["gru/kernel", "gru/kernel"]}}, r"names\['weight'\] must be one name"),
        (keras, "keras", {"names": {"weight": "gru/kernel", "input_bias": "gru/kernel"}}, "are in one array, bias"),
        (keras, "keras", {"names": {"weight": "gru/recurrent"}}, "which state_dict does not hold"),
        (keras | {"gru/kernel": np.zeros((D, 9), complex)}, "keras", {}, "must hold real floating-point numbers"),
        (node, "onnx", {}, "reset_after must be given for a GRU of ONNX.*linear_before_reset = 1"),
        (four, "onnx", {"reset_after": False}, "reset_after must be left out"),
        (two, "onnx", {"reset_after": False}, "holds two directions, bidirectional"),
        (node | {"P": np.zeros((1, 3 * N))}, "onnx", {}, "holds P, the peepholes of an LSTM"),
        (node | {"R": np.zeros((1, 5, N))}, "onnx", {}, r"must have shape \(1, n, n\), as of RNN.*got \(1, 5, 3\)"),
        (node | {"W": np.zeros((1, 5, D))}, "onnx", {}, r"state_dict\['W'\] must have shape \(1, 9, d\), got \(1, 5, 2\)"),
        (
            node | {"B": np.zeros((1, 9))},
            "onnx",
            {},
            r"state_dict\['B'\] must have shape \(1, 18\), both biases, got \(1, 9\)",
        ),
        (node | {"R": np.zeros((3 * N, N))}, "onnx", {}, "must have 3 axes, the first over one direction"),
        (node | four, "onnx", {}, r"several recurrent layers, R, x\.R: .*ssntk\.Layers"),
        (node | {"shape": np.zeros(2)}, "onnx", {}, "shape, whose use is not known"),
        (node | head, "onnx", {"reset_after": True}, r"readout_weight must have shape \(m, 3\)"),
        ({"R": np.zeros((1, N, N))}, "onnx", {}, "must hold W and R of one recurrent node"),
    ]
    for weights, order, options, match in cases:
        with pytest.raises(ValueError, match=match):
            ssntk.from_torch(weights, order=order, **options)

    class Module:
        named_modules = state_dict = dict

    with pytest.raises(ValueError, match="order must be left out for a PyTorch module"):
        ssntk.from_torch(Module(), order="keras")
    before = ssntk.from_torch(keras, order="keras", reset_after=False)
    with pytest.raises(ValueError, match="the model is a GRU without reset_after, which"):
        before.to_torch({"weight_ih": np.zeros((3 * N, D)), "weight_hh": np.zeros((3 * N, N))})
