"""PyTorch modules as arguments in place of models, and weights that are put back. Modules are imitated; if PyTorch is
installed, real ones are used too.

Compiles: retreats and verdicts of networks of 4 units, all of one structure, and roll-outs of two.
"""

import collections

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import arrays

import ssntk
from ssntk.critical.retreat import Retreat
from ssntk.models.as_model import as_model
from ssntk.models.base import check_model

N, D, M = 4, 2, 3


class Tensor:
    """The part of the interface of a torch.Tensor that the package uses."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.dtype = self.array.dtype

    @property
    def shape(self):
        return self.array.shape

    def detach(self):
        return self

    def cpu(self):
        return self

    def clone(self):
        return Tensor(self.array.copy())

    def is_floating_point(self):
        return True

    def double(self):
        return Tensor(self.array.astype(np.float64))

    def numpy(self):
        return self.array

    def new_tensor(self, data):
        return Tensor(np.asarray(data, self.dtype))

    def transpose(self, one, other):
        return Tensor(self.array.swapaxes(one, other))


class Module:
    def __init__(self, weights=None, inside=None, call=None, **attributes):
        self.__dict__.update(attributes)
        self.weights, self.inside, self.call = weights, inside or {}, call
        self.training = True

    def named_modules(self):
        return iter([("", self), *self.inside.items()])

    def state_dict(self):
        return collections.OrderedDict(self.weights)

    def __call__(self, *given):
        assert not self.training
        return self.call(*given)


def rnn(seed, prefix="core.", dtype=np.float32, wrap=Tensor):
    rng = np.random.default_rng(seed)
    shapes = {"weight_ih_l0": (N, D), "weight_hh_l0": (N, N), "bias_ih_l0": (N,), "bias_hh_l0": (N,)}
    return {prefix + name: wrap(rng.normal(size=shape).astype(dtype) / 2) for name, shape in shapes.items()}


def readout(seed, name="fc"):
    rng = np.random.default_rng(seed)
    return {f"{name}.{part}": Tensor(rng.normal(size=shape)) for part, shape in (("weight", (M, N)), ("bias", (M,)))}


def test_the_nonlinearity_of_a_module_is_read():
    x = np.linspace(-1, 1, N)

    def slope(module, **how):
        return float(jnp.abs(ssntk.from_torch(module, **how).activation(jnp.asarray(2.0))))

    for attributes, at_two in (
        ({"nonlinearity": "relu"}, 2.0),
        ({"mode": "RNN_RELU"}, 2.0),
        ({"nonlinearity": "tanh"}, np.tanh(2)),
    ):
        module = Module(rnn(0), {"core": Module(**attributes)})
        np.testing.assert_allclose(slope(module), at_two)
    relu = Module(rnn(0), {"core": Module(nonlinearity="relu")})
    assert slope(relu, activation=lambda x: jnp.maximum(x, 0)) == 2.0
    np.testing.assert_array_equal(ssntk.from_torch(relu).step(x), ssntk.from_torch(rnn(0), activation=jax.nn.relu).step(x))
    with pytest.raises(ValueError, match="activation contradicts the module, whose nonlinearity is 'relu'"):
        ssntk.from_torch(relu, activation=jnp.tanh)
    odd = Module(rnn(0), {"core": Module(nonlinearity="softsign")})
    with pytest.raises(ValueError, match="activation must be given: the module's nonlinearity is 'softsign'"):
        ssntk.from_torch(odd)
    assert slope(odd, activation=jax.nn.soft_sign) == pytest.approx(2 / 3)
    # The module around two linear layers is the layer.
    leaky = {"net.h2h.weight": np.eye(N) / 2, "net.input2h.weight": np.ones((N, D))}
    assert slope(Module(leaky, {"net": Module(nonlinearity="relu"), "net.h2h": Module()}), dt=0.1) == 2.0


def test_a_leaky_module_must_say_its_nonlinearity():
    """For a state_dict alone tanh is assumed, as the docstring says. A module could hold the nonlinearity, and must."""
    leaky = {"h2h.weight": np.eye(N) / 2, "input2h.weight": np.ones((N, D))}
    net = Module(leaky, {"h2h": Module(), "input2h": Module()})
    with pytest.raises(ValueError, match=r"activation must be given .* pass ssntk\.from_torch\(net, dt, activation="):
        ssntk.from_torch(net)
    with pytest.raises(ValueError, match="model is no network that from_torch takes: activation must be given"):
        ssntk.warn_if_near_critical(net)


def test_a_layer_in_front_is_no_readout():
    """If there are as many inputs as units, an encoder is distinguished from a readout by its position."""
    layer = {"rnn.weight_ih_l0": np.eye(N), "rnn.weight_hh_l0": np.eye(N) / 2}
    linear = {"linear.weight": np.ones((N, N))}
    assert ssntk.from_torch(layer | linear).readout_weight.sum() == N * N
    with pytest.raises(ValueError, match=r"state_dict holds linear\.weight, whose use is not known"):
        ssntk.from_torch(linear | layer)


def test_what_a_module_does_not_train_is_said():
    weights = {"weight_ih_l0": np.ones((N, N)), "weight_hh_l0": np.eye(N) / 2}
    weights |= {"bias_ih_l0": np.zeros(N), "bias_hh_l0": np.zeros(N)}
    held = {name: Tensor(array) for name, array in weights.items()}
    held["bias_ih_l0"].requires_grad = False
    held["weight_ih_l0"] = held["weight_hh_l0"]
    net = Module(weights, named_parameters=lambda remove_duplicate: held.items(), nonlinearity="tanh")
    with pytest.warns(UserWarning, match="kernel is not PyTorch's") as said:
        ssntk.from_torch(net)
    texts = [str(one.message) for one in said]
    assert any("theta holds bias_ih_l0, which the module does not train" in text for text in texts)
    assert any("weight_ih_l0" in text and "trains as one" in text for text in texts)


def test_a_retreat_goes_back_as_it_is():
    weights = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": 0.95 * np.eye(2)}
    safe = ssntk.retreat(ssntk.from_torch(weights), 0.1)
    np.testing.assert_allclose(safe.to_torch(weights)["weight_hh_l0"], 0.9 * np.eye(2), atol=1e-7)


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_what_holds_a_network_of_torch_is_kept_in_a_file(gates, tmp_path):
    rng = np.random.default_rng(gates)
    shapes = {"weight_ih_l0": (gates * N, D), "weight_hh_l0": (gates * N, N)}
    model = ssntk.from_torch({name: rng.normal(size=shape) for name, shape in shapes.items()})
    x = rng.normal(size=model.n_state)
    kept = ssntk.load(ssntk.save(tmp_path / "kept.npz", Retreat(model, x, x, 0.1, np.zeros(1), 0.0, 0.0)))
    np.testing.assert_array_equal(kept.model.step(x), model.step(x))


def test_a_readout_of_any_name_is_found_in_a_module():
    linear = Module(in_features=N, out_features=M)
    network = ssntk.from_torch(Module(rnn(0) | readout(1, "anything"), {"core": Module(), "anything": linear}))
    np.testing.assert_array_equal(network.readout_weight, readout(1)["fc.weight"].array)
    with pytest.raises(ValueError, match=r"anything\.weight, anything\.bias, whose use is not known"):
        ssntk.from_torch(rnn(0) | readout(1, "anything"))


def test_theta_is_what_the_network_has():
    def theta(weights, of):
        return [leaf.shape for leaf in jax.tree.leaves(ssntk.from_torch(weights).trainable(of))]

    whole, bare = rnn(0), {name: value for name, value in rnn(0).items() if "bias" not in name}
    assert theta(whole, "readout") == theta(whole, "state") == [(N, N), (N, D), (N,), (N,)]
    assert theta(bare, "state") == [(N, N), (N, D)]
    assert theta(whole | readout(1), "readout") == [(N, N), (N, D), (N,), (N,), (M, N), (M,)]
    one = whole | {"fc.weight": readout(1)["fc.weight"]}
    assert theta(one, "readout")[-1] == (M, N)
    np.testing.assert_array_equal(ssntk.from_torch(whole).bias, whole["core.bias_hh_l0"].array)
    np.testing.assert_array_equal(ssntk.from_torch(whole).input_bias, whole["core.bias_ih_l0"].array)


def test_a_second_bias_changes_nothing_of_a_network_without():
    network = ssntk.CTRNN(N, D, M, key=jr.key(0))
    assert network.input_bias is None
    assert len(jax.tree.leaves(network.trainable("state"))) == 3
    # A pickle from before the field existed.
    old = cloudpickle.loads(cloudpickle.dumps(network))
    del vars(old)["input_bias"]
    old = cloudpickle.loads(cloudpickle.dumps(old))
    assert eqx.tree_equal(jax.tree.leaves(arrays(old)), jax.tree.leaves(arrays(network)))
    x, u = jnp.linspace(-1, 1, N), jnp.ones(D)
    np.testing.assert_array_equal(old.vector_field(0.0, x, u), network.vector_field(0.0, x, u))
    with pytest.raises(ValueError, match=r"input_bias must have shape \(4,\)"):
        ssntk.CTRNN.from_weights(np.eye(N), input_bias=np.zeros(3))


@pytest.mark.slow
def test_the_kernel_by_sites_counts_the_second_bias():
    rng = np.random.default_rng(2)
    weights = {"weight": rng.normal(size=(32, 32)) / 6, "input_weight": rng.normal(size=(32, 1))}
    network = ssntk.CTRNN.from_weights(**weights, bias=rng.normal(size=32), input_bias=rng.normal(size=32))
    probe = ssntk.Probe([0.0, 0.5], np.ones((1, 1)))
    how = {"integrator": ssntk.Integrator(dt=0.25)}
    jacobian = np.asarray(ssntk.parameter_jacobian(network, probe, method="autodiff", **how)).reshape(64, -1)
    # The two biases add up, so that their columns are equal.
    np.testing.assert_allclose(jacobian[:, -32:], jacobian[:, -64:-32], rtol=1e-12, atol=1e-14)
    kernel = ssntk.ntk(network, probe, method="sites", **how)
    np.testing.assert_allclose(kernel, jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)


def test_checkpoints_are_unwrapped():
    for name in ("state_dict", "model_state_dict"):
        network = ssntk.from_torch({"epoch": 3, name: rnn(0)})
        np.testing.assert_array_equal(network.weight, rnn(0)["core.weight_hh_l0"].array)
    with pytest.warns(DeprecationWarning, match="module_or_state_dict"):
        ssntk.from_torch(state_dict=rnn(0))


def test_what_is_no_model_says_how_to_make_one():
    cell = eqx.nn.GRUCell(D, N, key=jr.key(0))
    for value, said in (
        (Module(rnn(0)), "got Module: pass ssntk.from_torch"),
        (rnn(0), "got dict: pass ssntk.from_torch"),
        ({"state_dict": rnn(0)}, "got dict: pass ssntk.from_torch"),
        (rnn(0, wrap=np.asarray), "got dict: pass ssntk.from_torch"),
        ("rnn.pt", "got str: load the file first"),
        (cell, "got GRUCell: wrap it by ssntk.from_cell"),
        ({"a": 1}, "got dict$"),
        (3.0, "got float$"),
    ):
        with pytest.raises(ValueError, match=f"model must be an ssntk.AbstractStateSpaceModel, {said}"):
            check_model(value)


def test_a_module_is_judged_as_its_model_is():
    module = Module(rnn(3) | readout(1), {"core": Module(nonlinearity="tanh")})
    model = as_model(module)
    assert as_model(model) is model
    with pytest.warns(ssntk.NearCriticalWarning):
        found = ssntk.warn_if_near_critical(module)
    assert found.stability_radius == ssntk.criticality(model).stability_radius
    with pytest.raises(ValueError, match=r"net is no network that from_torch takes: .*bidirectional"):
        as_model(rnn(0) | {"core.weight_hh_l0_reverse": np.eye(N)}, "net")
    with pytest.raises(ValueError, match=r"net must be an ssntk\.AbstractStateSpaceModel"):
        as_model([1.0], "net")


def test_the_way_back():
    weights = rnn(4) | readout(5) | {"steps": Tensor(np.asarray(7))}
    names = {"weight": "core.weight_hh_l0", "input_weight": "core.weight_ih_l0", "bias": "core.bias_hh_l0"}
    names |= {"input_bias": "core.bias_ih_l0", "readout_weight": "fc.weight", "readout_bias": "fc.bias"}
    network = ssntk.from_torch(weights, names=names)
    radius = ssntk.criticality(network).stability_radius
    safe = ssntk.retreat(network, 1.2 * radius, full=True, metric={"bias": 2.0})
    back = safe.to_torch(weights, names=names)
    assert list(back) == list(weights)
    for name, value in back.items():
        assert isinstance(value, Tensor)
        assert value is not weights[name]
        assert value.dtype == weights[name].dtype
        moved = name in ("core.weight_hh_l0", "core.bias_ih_l0", "core.bias_hh_l0")
        assert (not np.array_equal(value.array, weights[name].array)) == moved
    # Changes of one bias cost twice as much, so that the two have moved by different amounts.
    moves = [back[name].array.astype(float) - weights[name].array for name in ("core.bias_ih_l0", "core.bias_hh_l0")]
    np.testing.assert_allclose(moves[0], 2 * moves[1], atol=1e-6)
    again = ssntk.from_torch(back, names=names)
    # The weights were rounded to float32.
    assert ssntk.criticality(again).stability_radius == pytest.approx(1.2 * radius, rel=1e-5)
    # Weights that were read without `names` are put back without them. A readout that only a module shows is copied.
    plain = {name: value for name, value in weights.items() if name != "steps"}
    np.testing.assert_array_equal(safe.to_torch(plain)["core.weight_hh_l0"].array, back["core.weight_hh_l0"].array)
    cases = [
        (rnn(4, dtype=np.float64)["core.weight_hh_l0"], {}, "must map names"),
        (
            {name: value for name, value in plain.items() if "bias_ih" not in name},
            {},
            "holds no input_bias, which is not zero",
        ),
        (plain | {"core.weight_hh_l0": np.eye(N + 1)}, {}, r"has shape \(5, 5\), and the model has shape \(4, 4\)"),
        (plain | readout(6), {}, r"state_dict\['fc.weight'\] is another readout_weight"),
        ({"weight_hh_l0": np.zeros((3 * N, N)), "weight_ih_l0": np.zeros((3 * N, D))}, {}, "the weights of an nn.GRU"),
        (plain, {"names": names | {"bias": ["core.bias_hh_l0", "core.bias_ih_l0"]}}, "a sum does not say how much of each"),
        ({"W": np.eye(N)}, {}, "one recurrent layer"),
    ]
    for given, how, match in cases:
        with pytest.raises(ValueError, match=match):
            safe.to_torch(given, **how)


def test_arrays_go_back_as_arrays():
    weights = rnn(7, "", wrap=np.asarray) | {name: value.array for name, value in readout(1).items()}
    weights["bias_ih_l0"] = jnp.asarray(weights["bias_ih_l0"])
    network = ssntk.from_torch(weights)
    safe = ssntk.retreat(network, 1.2 * ssntk.criticality(network).stability_radius, full=True)
    back = safe.to_torch({"state_dict": weights})
    assert all(type(back[name]) is type(value) and back[name].dtype == value.dtype for name, value in weights.items())
    np.testing.assert_array_equal(back["weight_hh_l0"], np.asarray(safe.model.weight, np.float32))
    np.testing.assert_array_equal(back["bias_ih_l0"], np.asarray(safe.model.input_bias, np.float32))


US = np.random.default_rng(8).normal(size=(2, 5, D))


def test_the_difference_of_two_roll_outs():
    weights = {name: value.array.astype(float) for name, value in rnn(9, "").items()} | {
        "fc.weight": readout(1)["fc.weight"].array
    }
    network = ssntk.from_torch(weights)

    def step(x, u):
        drive = weights["weight_ih_l0"] @ u + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        return np.tanh(weights["weight_hh_l0"] @ x + drive)

    assert ssntk.same_rollout(network, step, US) < 1e-14
    assert ssntk.same_rollout(network, step, US[0]) < 1e-14
    # A constant that each step adds shows after one step.
    assert ssntk.same_rollout(network, lambda x, u: step(x, u) + 0.25 * np.eye(N)[2], US[:, :1]) == pytest.approx(
        0.25, rel=1e-13
    )
    assert ssntk.same_rollout(network, network, US) == 0.0

    def call(given):
        """The call of an nn.RNN, with time as the first axis."""
        hidden, x = [], np.zeros((2, N))
        for us in given.array:
            x = np.stack([step(*pair) for pair in zip(x, us, strict=True)])
            hidden.append(x)
        return Tensor(np.stack(hidden) @ weights["fc.weight"].T), None

    tensors = {name: Tensor(value) for name, value in weights.items()}
    module = Module(tensors, call=call)
    assert ssntk.same_rollout(network, module, US) < 1e-14
    assert module.training
    last = Module(tensors, call=lambda given: Tensor(call(given)[0].array[-1]))
    assert ssntk.same_rollout(network, last, US) < 1e-14
    flat = Module(tensors, call=lambda given: Tensor(call(given)[0].array[..., :1]))
    cases = [
        (network.model, step, US, "model must be a map"),
        (network, step, US[..., :1], r"us must have shape \(T, 2\)"),
        (network, step, "loud", "us"),
        (network, 3.0, US, "step_or_module must be a step"),
        (network, lambda x, u: x[:1], US, r"must return shape \(4,\) from \(x, u\), got \(1,\)"),
        (network, ssntk.EulerMap(network.model, 0.5), US, "step_or_module must be a map with dt = 1"),
        (network, flat, US, r"must return \(2, 5, 3\) in all, as the model does, got \(2, 5, 1\)"),
    ]
    for model, other, us, match in cases:
        with pytest.raises(ValueError, match=match):
            ssntk.same_rollout(model, other, us)
    with pytest.raises(ssntk.NumericalError, match="not finite"):
        ssntk.same_rollout(network, lambda x, u: x + np.inf, US)


def test_real_modules():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; its modules are imitated above")
    torch.manual_seed(0)
    for layer, options in (("RNN", {"nonlinearity": "relu"}), ("GRU", {"bias": False}), ("LSTM", {"batch_first": True})):
        module = getattr(torch.nn, layer)(D, N, **options)
        # float32 weights, and a few dozen roundings.
        assert ssntk.same_rollout(ssntk.from_torch(module), module, US) < 1e-6
        cell = getattr(torch.nn, f"{layer}Cell")(D, N).double()
        assert ssntk.same_rollout(cell, cell, US) < 1e-14
    for options in ({"bidirectional": True}, {"proj_size": 2}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ssntk.from_torch(torch.nn.LSTM(D, N, **options))
    net = torch.nn.ModuleDict({"core": torch.nn.GRU(D, N), "anything": torch.nn.Linear(N, M)})
    network = ssntk.from_torch(net)
    safe = ssntk.retreat(network, 1.1 * ssntk.criticality(network).stability_radius, full=True)
    net.load_state_dict(safe.to_torch(net.state_dict()))
    np.testing.assert_allclose(ssntk.from_torch(net).weight_hh, safe.model.weight_hh, atol=1e-7)
