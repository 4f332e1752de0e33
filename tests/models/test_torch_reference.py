"""Networks from PyTorch against PyTorch itself, whose numbers are in reference/torch.npz, made by reference/torch_oracle.py.

Compiles: kernels of the outputs of four networks of 5 units, and roll-outs of the same.
"""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT

import ssntk

REFERENCE = np.load(ROOT / "tests" / "reference" / "torch.npz")
CASES = ("rnn_tanh", "rnn_relu", "gru", "lstm")
# Two ways to sum the same few dozen numbers, amplified by six steps.
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


class Module:
    """The part of the interface of a torch.nn.Module that from_torch may use: its modules by name, and its weights."""

    def __init__(self, weights, inside):
        self.weights, self.inside = weights, inside

    def named_modules(self):
        return iter([("", self), *self.inside.items()])

    def state_dict(self):
        return self.weights


class Layer:
    """A layer in a module. from_torch reads its attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def weights_of(case):
    start = f"{case}/weights/"
    return {name.removeprefix(start): REFERENCE[name] for name in REFERENCE if name.startswith(start)}


def network_of(case):
    layer = Layer(nonlinearity="relu") if case == "rnn_relu" else Layer()
    return ssntk.from_torch(Module(weights_of(case), {"core": layer}))


def probe_of(case):
    us = REFERENCE[f"{case}/us"]
    ts = np.arange(len(us) + 1.0)
    # nn.RNN's output k has seen input k; here the state at time k + 1 has. Before that is the initial state.
    return ssntk.Probe(ts, np.append(us, us[-1:], axis=0)[None], mask=ts > 0)


@pytest.mark.parametrize("case", CASES)
def test_the_roll_out_is_torch_s(case):
    network = network_of(case)
    states = ssntk.simulate(network, probe_of(case))[0, 1:]
    np.testing.assert_allclose(states[:, :5], REFERENCE[f"{case}/hidden"], **ROUNDING)
    np.testing.assert_allclose(jax.vmap(network.readout)(states), REFERENCE[f"{case}/outputs"], **ROUNDING)


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_is_torch_s(case):
    kernel = np.asarray(ssntk.ntk(network_of(case), probe_of(case), of="readout"))[2:, 2:]
    jacobian, eigenvalues = REFERENCE[f"{case}/jacobian"], REFERENCE[f"{case}/eigenvalues"]
    np.testing.assert_allclose(kernel, jacobian @ jacobian.T, rtol=1e-12, atol=1e-12 * eigenvalues[0])
    np.testing.assert_allclose(np.linalg.eigvalsh(kernel)[::-1], eigenvalues, rtol=1e-12, atol=1e-13 * eigenvalues[0])


@pytest.mark.parametrize("case", ["gru", "lstm"])
def test_theta_of_gates_is_torch_s_parameters_in_their_order(case):
    network = network_of(case)
    theta = jax.tree.leaves(network.trainable("readout"))
    for leaf, array in zip(theta, weights_of(case).values(), strict=True):
        np.testing.assert_array_equal(leaf, array)
    jacobian = ssntk.parameter_jacobian(network, probe_of(case), of="readout")[0, 1:].reshape(12, -1)
    scale = np.abs(REFERENCE[f"{case}/jacobian"]).max()
    np.testing.assert_allclose(jacobian, REFERENCE[f"{case}/jacobian"], rtol=1e-12, atol=1e-12 * scale)


def test_one_bias_of_two_is_too_little():
    """With a single bias the kernel would be that of torch without the columns of the other one."""
    network = network_of("rnn_tanh")
    probe = probe_of("rnn_tanh")

    def without(m):
        return m.weight, m.input_weight, m.bias, m.readout_weight, m.readout_bias

    kept = np.ones(62, bool)
    # After weight_ih (5, 3) and weight_hh (5, 5) in torch's order.
    kept[40:45] = False
    less = REFERENCE["rnn_tanh/jacobian"][:, kept]
    kernel = np.asarray(ssntk.ntk(network, probe, of="readout", wrt=without))[2:, 2:]
    np.testing.assert_allclose(kernel, less @ less.T, rtol=1e-12, atol=1e-11)
    top = np.linalg.eigvalsh(kernel)[-1]
    assert top < 0.95 * REFERENCE["rnn_tanh/eigenvalues"][0]
    np.testing.assert_allclose(
        ssntk.ntk_spectrum(network, probe, of="readout").eigenvalues[0], REFERENCE["rnn_tanh/eigenvalues"][0], rtol=1e-12
    )


def test_fixed_points_of_a_gru_are_those_of_torch_s_step():
    """GRUODE has arrays of the same shapes, but other fixed points."""
    network, points = network_of("gru"), REFERENCE["gru/fixed/x"]
    assert len(points) == 3
    # The residual of torch's own step at these points.
    assert REFERENCE["gru/fixed/residual"].max() < 1e-15
    np.testing.assert_allclose(jax.vmap(network.step)(points), points, rtol=0, atol=1e-15)
    jacobians = jax.vmap(jax.jacfwd(network.step))(jnp.asarray(points))
    np.testing.assert_allclose(jacobians, REFERENCE["gru/fixed/jacobian"], rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_the_search_finds_the_fixed_points_of_a_gru():
    found = ssntk.find_fixed_points(network_of("gru"))
    order = np.lexsort(found.x.T[::-1])
    np.testing.assert_allclose(found.x[order], REFERENCE["gru/fixed/x"], rtol=1e-10)
    radii = np.abs(np.linalg.eigvals(REFERENCE["gru/fixed/jacobian"])).max(axis=1)
    np.testing.assert_array_equal(found.stable[order], radii < 1)


def test_the_stored_numbers_are_torch_s_of_today():
    pytest.importorskip("torch", reason="PyTorch is not installed, so that the stored numbers stand for it")
    spec = importlib.util.spec_from_file_location("torch_oracle", ROOT / "tests" / "reference" / "torch_oracle.py")
    assert spec is not None
    assert spec.loader is not None
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    made = oracle.made()
    assert set(made) == set(REFERENCE)
    for name in set(made) - {"provenance"}:
        np.testing.assert_allclose(made[name], REFERENCE[name], rtol=1e-11, atol=1e-11 * np.abs(made[name]).max() + 1e-15)
