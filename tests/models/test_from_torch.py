"""Weights of PyTorch as arrays in a dict of the same names, rolled out in numpy. PyTorch need not be installed.

Compiles: roll-outs of five networks of 6 units.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

N, D, M = 6, 2, 3


class Tensor:
    """The part of the interface of a torch.Tensor that from_torch may use."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def is_floating_point(self):
        return True

    def double(self):
        return Tensor(self.array.astype(np.float64))

    def numpy(self):
        return self.array


def state_dict(rng, prefix="", *, bias=True, layer="_l0"):
    names = {f"{prefix}weight_ih{layer}": (N, D), f"{prefix}weight_hh{layer}": (N, N)}
    if bias:
        names |= {f"{prefix}bias_ih{layer}": (N,), f"{prefix}bias_hh{layer}": (N,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in names.items()}


def rolled(step, us):
    h, out = np.zeros(N), [np.zeros(N)]
    for u in us:
        h = step(h, u)
        out.append(h)
    return np.array(out)


def states(network, us):
    """The states after 0, 1, ..., len(us) steps."""
    ts = network.dt * np.arange(len(us) + 1)
    return ssntk.simulate(network, ssntk.Probe(ts, np.append(us, us[-1:], axis=0)[None]))[0]


US = np.random.default_rng(7).normal(size=(12, D))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_rnn(name, bias):
    weights = state_dict(np.random.default_rng(0), bias=bias)
    activation, function = {"tanh": (jnp.tanh, np.tanh), "relu": (jax.nn.relu, lambda x: np.maximum(x, 0.0))}[name]
    network = ssntk.from_torch(weights, activation=activation)
    wide = {key: value.astype(np.float64) for key, value in weights.items()}
    offset = wide["bias_ih_l0"] + wide["bias_hh_l0"] if bias else np.zeros(N)
    expected = rolled(lambda h, u: function(wide["weight_ih_l0"] @ u + wide["weight_hh_l0"] @ h + offset), US)
    # The float32 weights are taken exactly; what is left is the order of float64 sums, amplified by the recurrence.
    np.testing.assert_allclose(states(network, US), expected, rtol=1e-11, atol=1e-12)
    assert isinstance(network, ssntk.EulerMap)
    assert network.form == "rate"


def test_cell_of_tensors_with_prefix_and_readout():
    rng = np.random.default_rng(1)
    weights = state_dict(rng, "core.cell.", layer="")
    weights |= {
        "head.weight": rng.normal(size=(M, N)).astype(np.float32),
        "head.bias": rng.normal(size=M).astype(np.float32),
    }
    network = ssntk.from_torch({name: Tensor(value) for name, value in weights.items()})
    assert (network.n_state, network.n_input, network.n_output) == (N, D, M)
    x = np.linspace(-1, 1, N)
    expected = weights["head.weight"].astype(float) @ x + weights["head.bias"].astype(float)
    np.testing.assert_allclose(network.readout(jnp.asarray(x)), expected, rtol=1e-14)


def test_leaky_network():
    rng, leak = np.random.default_rng(2), 0.2
    weights = {
        "rnn.input2h.weight": rng.normal(size=(N, D)),
        "rnn.input2h.bias": rng.normal(size=N),
        "rnn.h2h.weight": rng.normal(size=(N, N)),
        "rnn.h2h.bias": rng.normal(size=N),
        "fc.weight": rng.normal(size=(M, N)),
    }
    network = ssntk.from_torch(weights, dt=leak)
    bias = weights["rnn.input2h.bias"] + weights["rnn.h2h.bias"]

    def step(h, u):
        return (1 - leak) * h + leak * np.tanh(weights["rnn.input2h.weight"] @ u + weights["rnn.h2h.weight"] @ h + bias)

    np.testing.assert_allclose(states(network, US), rolled(step, US), rtol=1e-11, atol=1e-12)
    assert not network.readout_bias.any()


def test_a_leaky_network_of_the_current_form():
    rng, leak = np.random.default_rng(6), 0.2
    weights = {
        "input2h.weight": rng.normal(size=(N, D)),
        "h2h.weight": rng.normal(size=(N, N)),
        "h2h.bias": rng.normal(size=N),
    }
    network = ssntk.from_torch(weights, dt=leak, form="current")

    def step(h, u):
        drive = weights["input2h.weight"] @ u + weights["h2h.bias"]
        return (1 - leak) * h + leak * (weights["h2h.weight"] @ np.tanh(h) + drive)

    np.testing.assert_allclose(states(network, US), rolled(step, US), rtol=1e-11, atol=1e-12)


def test_names():
    rng = np.random.default_rng(3)
    weights = {"J": rng.normal(size=(N, N)), "c": rng.normal(size=N), "d": rng.normal(size=N), "B": rng.normal(size=(N, D))}
    network = ssntk.from_torch(weights, names={"weight": "J", "input_weight": "B", "bias": ["c", "d"]})
    np.testing.assert_array_equal(network.weight, weights["J"])
    np.testing.assert_allclose(network.bias, weights["c"] + weights["d"], rtol=1e-15)
    assert network.input_bias is None
    both = ssntk.from_torch(weights, names={"weight": "J", "input_weight": "B", "bias": "c", "input_bias": "d"})
    np.testing.assert_array_equal(both.bias, weights["c"])
    np.testing.assert_array_equal(both.input_bias, weights["d"])
    np.testing.assert_array_equal(network.readout_weight, np.eye(N))


def test_names_leave_out_what_they_do_not_name():
    weights = state_dict(np.random.default_rng(5)) | {"norm.num_batches_tracked": np.asarray(3)}
    with pytest.raises(ValueError, match="num_batches_tracked"):
        ssntk.from_torch(weights)
    names = {"weight": "weight_hh_l0", "input_weight": "weight_ih_l0", "bias": ["bias_ih_l0", "bias_hh_l0"]}
    np.testing.assert_array_equal(ssntk.from_torch(weights, names=names).weight, weights["weight_hh_l0"])


def test_what_is_not_understood_is_said():
    rng = np.random.default_rng(4)
    good = state_dict(rng)
    second = {name.replace("_l0", "_l1"): value for name, value in good.items()}
    backwards = {f"{name}_reverse": value for name, value in good.items()}
    lstm = {"weight_ih_l0": np.zeros((4 * N, D)), "weight_hh_l0": np.zeros((4 * N, N))}
    gru = {"weight_ih_l0": np.zeros((3 * N, D)), "weight_hh_l0": np.zeros((3 * N, N))}
    b = {"bias_ih_l0": np.zeros(3 * N), "bias_hh_l0": np.zeros(3 * N)}
    summed = {"weight": "weight_hh_l0", "input_weight": "weight_ih_l0", "bias": list(b)}
    cases = [
        (good | second, {}, r"state_dict\['weight_ih_l1'\] must have 6 columns, one for each unit of the layer below"),
        (
            good | {f"other.{name}": value for name, value in good.items()},
            {},
            r"one recurrent.*ssntk\.Layers\(ssntk",
        ),
        ({"a.weight_hh_l0": good["weight_hh_l0"], "b.weight_ih_l0": good["weight_ih_l0"]}, {}, "one recurrent layer"),
        (good | {"embed.weight": np.zeros((100, N))}, {}, r"embed\.weight"),
        (good | {"attention.h2h.bias": np.zeros(N)}, {}, r"attention\.h2h\.bias"),
        (good | {"weight_hh_l1": np.eye(N)}, {}, "weight_hh_l1 without weight_ih_l1"),
        (good | {"weight_hh_l2": np.eye(N), "weight_ih_l2": np.eye(N)}, {}, "weight_hh_l2, and no layer 1 below it"),
        (good | {"weight_hh_l1": lstm["weight_hh_l0"], "weight_ih_l1": np.zeros((4 * N, N))}, {}, r"be that of an nn\.RNN"),
        (good | backwards, {}, "weight_hh_l0_reverse, bidirectional: its first output depends on the last input"),
        (lstm | {"weight_hr_l0": np.zeros((2, N))}, {}, "weight_hr_l0, the projection of proj_size"),
        (lstm, {"dt": 0.5}, r"dt must be 1 for nn\.LSTM"),
        (gru, {"form": "current"}, r"form must be left out for nn\.GRU"),
        (gru, {"activation": jax.nn.relu}, r"activation must be left out for nn\.GRU"),
        (gru | b | {"bias_ih_l0": np.zeros(N)}, {}, r"bias_ih must have shape \(18,\)"),
        (gru | b, {"names": summed}, r"the biases of nn\.GRU do not add up"),
        (good, {"form": "fast"}, "form must be one of"),
        (good, {"activation": 3}, "activation must be callable"),
        (good | {"weight_hh_l0": np.zeros((2 * N, N))}, {}, "must be square"),
        (good | {"bias_hh_l0": np.zeros(N + 1), "bias_ih_l0": np.zeros(N + 1)}, {}, "bias must have shape"),
        ({}, {}, "nothing"),
        ({"W": np.zeros((N, N))}, {}, "names="),
        (good | {"extra.weight": np.zeros((2, 5))}, {}, r"extra\.weight"),
        (good | {"fc.weight": np.zeros((1, N)), "out.weight": np.zeros((1, N))}, {}, r"fc\.weight, out\.weight"),
        (good | {"weight_hh_l0": np.zeros((N, N), int)}, {}, "weight_hh_l0"),
        (good | {"weight_hh_l0": np.full((N, N), np.nan)}, {}, "weight must be finite"),
        (good | {"weight_hh_l0": np.zeros(N)}, {}, "square"),
        (good | {"bias_hh_l0": np.zeros(N + 1)}, {}, "one shape"),
        (good, {"dt": 0.0}, "dt"),
        (good, {"names": {"bias": "bias_hh_l0"}}, "at least weight"),
        (good, {"names": {"weight": "W"}}, "does not hold"),
        (good, {"names": {"weight": "weight_hh_l0", "gain": "x"}}, "gain"),
        (good, {"names": {"weight": 3}}, "must be a name"),
        (good, {"names": {"weight": "weight_hh_l0", "bias": None}}, "must be a name"),
        (good, {"names": {"weight": [["weight_hh_l0"]]}}, "must be a name"),
        ([1.0], {}, "state_dict must map"),
        ("rnn.pt", {}, r"got str: load the file first.*from_torch\(ssntk\.load_weights"),
    ]
    for weights, arguments, match in cases:
        with pytest.raises(ValueError, match=match):
            ssntk.from_torch(weights, **arguments)
