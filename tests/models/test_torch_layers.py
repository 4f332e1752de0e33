"""Stacks of 1 to 3 layers, with and without biases, against PyTorch itself, whose numbers are in reference/torch_layers.npz,
made by reference/torch_oracle.py; against plain scans that are written here; and cells of equinox.

Compiles: the Jacobian and kernel of the outputs of four stacks of 3 units (the others run with -m slow), each once by the
package and once as a plain scan, and of two cells.
"""

import functools
import importlib.util

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT

import ssntk

REFERENCE = np.load(ROOT / "tests" / "reference" / "torch_layers.npz")
US = REFERENCE["us"]
STEPS, D = US.shape
N, M = 3, 1
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
CASES = [f"{kind}/{layers}/{bias}" for kind in GATES for layers in (1, 2, 3) for bias in ("bias", "none")]
FEW = {"rnn_tanh/2/bias", "rnn_relu/3/none", "gru/2/bias", "lstm/2/bias"}
SOME = [pytest.param(case, marks=() if case in FEW else pytest.mark.slow) for case in CASES]


class Module:
    """The part of the interface of a torch.nn.Module that from_torch may use: its modules by name, and its weights."""

    def __init__(self, weights=None, inside=None, **attributes):
        self.__dict__.update(attributes)
        self.weights, self.inside = weights, inside or {}

    def named_modules(self):
        return iter([("", self), *self.inside.items()])

    def state_dict(self):
        return self.weights


def shapes_of(case):
    """The names of PyTorch's parameters in their order, with their shapes."""
    kind, layers, bias = case.split("/")
    rows = GATES[kind] * N
    shapes = {}
    for i in range(int(layers)):
        shapes |= {f"core.weight_ih_l{i}": (rows, N if i else D), f"core.weight_hh_l{i}": (rows, N)}
        if bias == "bias":
            shapes |= {f"core.bias_ih_l{i}": (rows,), f"core.bias_hh_l{i}": (rows,)}
    return shapes | {"fc.weight": (M, N)} | ({"fc.bias": (M,)} if bias == "bias" else {})


def unpacked(row, case):
    """A row of numbers of all parameters, as arrays by their names."""
    shapes = shapes_of(case)
    blocks = np.split(row, np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1])
    return {name: block.reshape(shape) for (name, shape), block in zip(shapes.items(), blocks, strict=True)}


def weights_of(case):
    return unpacked(REFERENCE[f"{case}/weights"], case)


def network_of(case):
    """The network of a module that says its nonlinearity, or of a state_dict alone."""
    mode = {"rnn_relu": "RNN_RELU", "rnn_tanh": "RNN_TANH"}.get(case.split("/")[0])
    weights = weights_of(case)
    return ssntk.from_torch(Module(weights, {"core": Module(mode=mode)}) if mode == "RNN_RELU" else weights)


def names_of(case, network):
    """The name of PyTorch's parameter for each leaf of theta."""
    kind, layers, bias = case.split("/")
    parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    # A CTRNN has its arrays in another order.
    parts = ["weight_hh", "weight_ih", "bias_hh", "bias_ih"] if GATES[kind] == 1 else parts
    names = [f"core.{part}_l{i}" for i in range(int(layers)) for part in (parts if bias == "bias" else parts[:2])]
    return names + (["fc.weight", "fc.bias"] if bias == "bias" else ["fc.weight"])


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_torch_s(case):
    network, states = network_of(case), REFERENCE[f"{case}/states"]
    assert isinstance(network, ssntk.Layers) == ("/1/" not in case)
    assert network.n_state == states.shape[1]
    for x, u, after in zip(states[:-1], US, states[1:], strict=True):
        np.testing.assert_allclose(network.step(x, u), after, rtol=1e-14, atol=1e-14)
    outputs = jax.vmap(network.readout)(jnp.asarray(states[1:]))
    np.testing.assert_allclose(outputs, REFERENCE[f"{case}/outputs"], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_theta_is_the_parameters_of_the_module(case):
    network, weights = network_of(case), weights_of(case)
    theta = jax.tree.leaves(network.trainable("readout"))
    for leaf, name in zip(theta, names_of(case, network), strict=True):
        np.testing.assert_array_equal(leaf, weights[name])
    assert len(theta) == len(weights)


def cell_of(kind, weights, i, x, u):
    """The next state of one layer by PyTorch's published formulas."""
    h = x[:N]
    ins = weights[f"core.weight_ih_l{i}"] @ u + weights.get(f"core.bias_ih_l{i}", 0.0)
    own = weights[f"core.weight_hh_l{i}"] @ h + weights.get(f"core.bias_hh_l{i}", 0.0)
    if kind == "lstm":
        enter, forget, cell, leave = ((ins + own)[N * k : N * (k + 1)] for k in range(4))
        c = jax.nn.sigmoid(forget) * x[N:] + jax.nn.sigmoid(enter) * jnp.tanh(cell)
        return jnp.concatenate([jax.nn.sigmoid(leave) * jnp.tanh(c), c])
    if kind == "gru":
        reset, update = jax.nn.sigmoid((ins + own)[:N]), jax.nn.sigmoid((ins + own)[N : 2 * N])
        return (1 - update) * jnp.tanh(ins[2 * N :] + reset * own[2 * N :]) + update * h
    return jnp.tanh(ins + own) if kind == "rnn_tanh" else jnp.maximum(ins + own, 0.0)


@functools.partial(jax.jit, static_argnums=0)
def scanned(kind, weights, x, us):
    """The outputs (T,) of a plain scan."""
    layers = sum("weight_hh" in name for name in weights)

    def step(states, u):
        after = []
        for i, state in enumerate(states):
            after.append(cell_of(kind, weights, i, state, u))
            u = after[-1][:N]
        return tuple(after), (weights["fc.weight"] @ u + weights.get("fc.bias", 0.0))[0]

    return jax.lax.scan(step, tuple(jnp.split(x, layers)), us)[1]


@pytest.mark.parametrize("case", SOME)
def test_jacobian_and_kernel_are_those_of_torch_and_of_a_plain_scan(case):
    network, start = network_of(case), REFERENCE[f"{case}/states"][0]
    probe = ssntk.Probe.steps(US[None], start)
    jacobian = np.asarray(ssntk.parameter_jacobian(network, probe, of="readout"))[0, 1:, 0]
    # By name, since the order of theta is the package's own.
    names = names_of(case, network)
    sizes = [int(np.prod(shapes_of(case)[name])) for name in names]
    ours = dict(zip(names, np.split(jacobian, np.cumsum(sizes)[:-1], axis=1), strict=True))
    row = unpacked(REFERENCE[f"{case}/row"], case)
    scale = max(np.abs(block).max() for block in row.values())
    plain = jax.jacrev(scanned, argnums=1)(
        case.split("/")[0], {name: jnp.asarray(one) for name, one in weights_of(case).items()}, jnp.asarray(start), US
    )
    for name, block in ours.items():
        np.testing.assert_allclose(block[-1], row[name].ravel(), rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_allclose(block, plain[name].reshape(STEPS, -1), rtol=1e-12, atol=1e-12 * scale)
    flat = np.concatenate([np.asarray(block).reshape(STEPS, -1) for block in plain.values()], axis=1)
    kernel = np.asarray(ssntk.ntk(network, probe, of="readout"))[M:, M:]
    np.testing.assert_allclose(kernel, flat @ flat.T, rtol=1e-12, atol=1e-12 * scale**2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gates", [3, 4])
def test_cells_of_equinox_have_the_same_step(gates, bias):
    """equinox's GRU has one bias for each gate, and one more in the brackets of the reset gate."""
    cell = (eqx.nn.GRUCell if gates == 3 else eqx.nn.LSTMCell)(D, N, use_bias=bias, key=jr.key(gates))
    held = {"bias_ih": cell.bias} if bias else {}
    if gates == 3 and bias:
        held["bias_hh"] = jnp.concatenate([jnp.zeros(2 * N), cell.bias_n])
    made = ssntk.from_torch({"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh} | held)

    def step(cell, x, u):
        return cell(u, x) if gates == 3 else jnp.concatenate(cell(u, tuple(jnp.split(x, 2))))

    rng = np.random.default_rng(gates)
    for x, u in zip(rng.normal(size=(5, made.n_state)), rng.normal(size=(5, D)), strict=True):
        np.testing.assert_allclose(made.step(x, u), step(cell, jnp.asarray(x), jnp.asarray(u)), rtol=1e-14, atol=1e-14)
    if bias:
        return
    start = rng.normal(size=made.n_state)

    @jax.jit
    def outputs(arrays):
        def after(x, u):
            x = step(eqx.combine(arrays, cell), x, u)
            return x, x[:N]

        return jax.lax.scan(after, jnp.asarray(start), US)[1].ravel()

    arrays = eqx.filter(cell, eqx.is_inexact_array)
    plain = jnp.concatenate([one.reshape(STEPS * N, -1) for one in jax.tree.leaves(jax.jacrev(outputs)(arrays))], axis=1)
    kernel = np.asarray(ssntk.ntk(made, ssntk.Probe.steps(US[None], start), of="readout"))[N:, N:]
    np.testing.assert_allclose(kernel, plain @ plain.T, rtol=1e-12, atol=1e-12)


def test_weights_of_a_stack_go_back():
    case = "gru/3/bias"
    network, weights = network_of(case), weights_of(case)
    same = network.to_torch(weights)
    assert all(np.array_equal(same[name], value) and same[name] is not value for name, value in weights.items())
    moved = eqx.tree_at(lambda m: m.cells[1].bias_hh, network, network.cells[1].bias_hh + 1)
    back = moved.to_torch({"state_dict": weights})
    assert list(back) == list(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value + (name == "core.bias_hh_l1"))
    first = network_of("rnn_tanh/2/none")
    lower = eqx.tree_at(lambda m: m.cells[0].model.weight, first, first.cells[0].model.weight / 2)
    back = lower.to_torch(weights_of("rnn_tanh/2/none"))
    np.testing.assert_array_equal(back["core.weight_hh_l0"], weights_of("rnn_tanh/2/none")["core.weight_hh_l0"] / 2)
    with pytest.raises(ValueError, match="state_dict holds 2 recurrent layers, and the model has 3"):
        network.to_torch(weights_of("gru/2/bias"))
    with pytest.raises(ValueError, match=r"the weights of an nn\.LSTM, and the model, a GRUCell"):
        network.to_torch(weights_of("lstm/3/bias"))
    with pytest.raises(ValueError, match="state_dict holds 3 recurrent layers, and the model has 1"):
        network.cells[0].to_torch(weights)


def test_one_layer_of_a_stack_is_chosen_by_names():
    weights = weights_of("lstm/3/none")
    upper = ssntk.from_torch(weights, names={"weight": "core.weight_hh_l1", "input_weight": "core.weight_ih_l1"})
    x, u = np.linspace(-1, 1, 2 * N), np.ones(N)
    np.testing.assert_array_equal(upper.step(x, u), network_of("lstm/3/none").cells[1].step(x, u))


def test_the_difference_of_two_roll_outs_of_a_stack():
    """A step has the state of all layers, of an LSTM h and c of each."""
    case = "lstm/2/bias"
    network, weights = network_of(case), weights_of(case)

    def step(x, u):
        first = np.asarray(cell_of("lstm", weights, 0, x[: 2 * N], u))
        return np.concatenate([first, cell_of("lstm", weights, 1, x[2 * N :], first[:N])])

    assert ssntk.same_rollout(network, step, US) < 1e-14
    # A network whose two layers are exchanged in the state is another one.
    assert ssntk.same_rollout(network, lambda x, u: np.roll(step(x, u), 2 * N), US) > 0.01


@pytest.mark.parametrize("kind", GATES)
def test_real_stacks(kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; its numbers are stored")
    torch.manual_seed(0)
    layer, options = {"rnn_tanh": ("RNN", {}), "rnn_relu": ("RNN", {"nonlinearity": "relu"})}.get(kind, (kind.upper(), {}))
    for first in (True, False):
        module = getattr(torch.nn, layer)(D, N, 2, dropout=0.5, batch_first=first, **options).double()
        us = np.random.default_rng(0).normal(size=(3, 6, D))
        network = ssntk.from_torch(module)
        assert ssntk.same_rollout(network, module, us) < 1e-14
        assert module.training
        module.load_state_dict(network.to_torch(module))
        names = [name for name, _ in module.named_parameters()]
        assert len(names) == len(jax.tree.leaves(network.trainable("readout")))
    cells = [getattr(torch.nn, f"{layer}Cell")(width, N, **options).double() for width in (D, N)]
    stack = ssntk.Layers(*map(ssntk.from_torch, cells))
    assert ssntk.same_rollout(stack, torch.nn.ModuleList(cells), us) < 1e-14
    with pytest.raises(ValueError, match=r"0\.weight_hh and 1\.weight_hh: if they are a stack, pass ssntk\.Layers"):
        ssntk.from_torch(torch.nn.ModuleList(cells))


def test_the_stored_numbers_are_torch_s_of_today():
    pytest.importorskip("torch", reason="PyTorch is not installed, so that the stored numbers stand for it")
    spec = importlib.util.spec_from_file_location("torch_oracle", ROOT / "tests" / "reference" / "torch_oracle.py")
    assert spec is not None
    assert spec.loader is not None
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    made = oracle.stacks()
    assert set(made) == set(REFERENCE)
    for name in set(made) - {"provenance"}:
        np.testing.assert_allclose(made[name], REFERENCE[name], rtol=1e-12, atol=1e-13)
