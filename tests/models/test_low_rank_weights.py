"""Weights of the published code on low-rank networks (Dubreuil et al., 2022), against its formulas, written here in numpy.

Compiles: one kernel of 6 units and a plain scan, and three roll-outs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk
from ssntk.critical.retreat import Retreat

N, D, M, R, ALPHA = 6, 3, 2, 2, 0.2
US = np.random.default_rng(1).normal(size=(2, 5, D))


class Parameter:
    """The part of the interface of a torch.nn.Parameter that from_torch may use."""

    def __init__(self, array, requires_grad=True):
        self.array, self.requires_grad, self.dtype = np.asarray(array, float), requires_grad, np.dtype(float)

    shape = property(lambda self: self.array.shape)

    def detach(self):
        return self

    cpu = clone = double = detach

    def is_floating_point(self):
        return True

    def numpy(self):
        return self.array

    def new_tensor(self, data):
        return Parameter(data)


def named(function, name):
    function.__name__ = name
    return function


class Module:
    """A module with the attributes of the published classes."""

    def __init__(self, weights, trained=("m", "n", "si", "so"), **attributes):
        self.held = {name: Parameter(value, name in trained) for name, value in weights.items()}
        self.noise_std, self.alpha, self.training = 0.0, ALPHA, True
        self.non_linearity = self.output_non_linearity = named(lambda x: np.tanh(x), "tanh")
        self.__dict__.update(attributes)

    def named_modules(self):
        return iter([("", self)])

    def named_parameters(self, remove_duplicate=True):
        return iter(self.held.items())

    def state_dict(self):
        return dict(self.held)

    def __call__(self, us):
        weights = {name: value.array for name, value in self.held.items()}
        outputs = [rolled(weights, row, *self.divided(), self.non_linearity)[1] for row in us.array]
        return Parameter(np.stack(outputs))

    def divided(self):
        return {"LowRankRNN": (True, True), "FullRankRNNScaled": (True, True)}.get(type(self).__name__, (False, False))


LowRankRNN, OptimizedLowRankRNN, FullRankRNN, FullRankRNNScaled = (
    type(name, (Module,), {}) for name in ("LowRankRNN", "OptimizedLowRankRNN", "FullRankRNN", "FullRankRNNScaled")
)


def weights_of(rank="low", seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"m": (N, R), "n": (N, R)} if rank == "low" else {"wrec": (N, N)}
    shapes |= {"wi": (D, N), "si": (D,), "wo": (N, M), "so": (M,), "h0": (N,)}
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return weights | {"b": np.zeros(N)}


def connectivity(weights, divided):
    J = weights["wrec"] if "wrec" in weights else weights["m"] @ weights["n"].T
    return J / N if divided else J


def rolled(weights, us, by_states, by_outputs, phi=np.tanh, h=None):
    """The states and outputs of the published loop without noise."""
    h, states, outputs = weights["h0"] if h is None else h, [], []
    J, ins = connectivity(weights, by_states), weights["wi"].T * weights["si"]
    for u in us:
        h = h + ALPHA * (-h + J @ phi(h) + ins @ u)
        states.append(h)
        outputs.append(phi(h) @ (weights["wo"] * weights["so"]) / (N if by_outputs else 1))
    return np.stack(states), np.stack(outputs)


@pytest.mark.parametrize("rank", ["low", "full"])
def test_every_step_and_output_is_that_of_the_published_formulas(rank):
    weights = weights_of(rank)
    network = ssntk.from_torch(weights, dt=ALPHA)
    assert isinstance(network.model, ssntk.LowRankRNN if rank == "low" else ssntk.CTRNN)
    states, outputs = rolled(weights, US[0], rank == "low", rank == "low")
    for x, u, after, y in zip([weights["h0"], *states], US[0], states, outputs, strict=False):
        np.testing.assert_allclose(network.step(x, u), after, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(network.readout(jnp.asarray(after)), y, rtol=1e-14, atol=1e-14)
    assert network.dt == ALPHA


def test_theta_is_the_weights_and_no_bias():
    weights = weights_of()
    network = ssntk.from_torch({f"net.{name}": value for name, value in weights.items()}, dt=ALPHA)
    state, readout = network.trainable("state"), network.trainable("readout")
    ins, out = (weights["wi"] * weights["si"][:, None]).T, (weights["wo"] * weights["so"]).T / N
    for leaf, array in zip(readout, (weights["m"], weights["n"], ins, out), strict=True):
        np.testing.assert_array_equal(leaf, array)
    assert len(state) == 3
    # Four names, as in a file that somebody wrote by hand: scales of one.
    few = ssntk.from_torch({name: weights[name] for name in ("m", "n", "wi", "wo")}, dt=ALPHA)
    np.testing.assert_array_equal(few.input_weight, weights["wi"].T)
    np.testing.assert_array_equal(few.readout_weight, weights["wo"].T / N)
    bare = ssntk.from_torch({"m": weights["m"], "n": weights["n"]}, dt=ALPHA, activation=jax.nn.relu)
    assert (bare.n_input, bare.n_output, len(bare.trainable("readout"))) == (0, N, 2)
    assert len(ssntk.from_torch(weights_of("full"), dt=ALPHA).trainable("state")) == 2


def test_the_kernel_over_m_and_n_is_that_of_a_plain_scan():
    weights, us = weights_of(), US[0]
    network = ssntk.from_torch(weights, dt=ALPHA)

    @jax.jit
    def outputs(mn):
        def step(h, u):
            drive = mn[0] @ (mn[1].T @ jnp.tanh(h)) / N + (weights["wi"].T * weights["si"]) @ u
            h = h + ALPHA * (-h + drive)
            return h, jnp.tanh(h) @ (weights["wo"] * weights["so"]) / N

        return jax.lax.scan(step, jnp.asarray(weights["h0"]), us)[1].ravel()

    rows = jax.jacrev(outputs)((jnp.asarray(weights["m"]), jnp.asarray(weights["n"])))
    jacobian = np.concatenate([np.asarray(block).reshape(len(us) * M, -1) for block in rows], axis=1)
    probe = ssntk.Probe.steps(us[None], weights["h0"], dt=ALPHA)
    kernel = ssntk.ntk(network, probe, of="readout", wrt=lambda m: (m.left, m.right))
    np.testing.assert_allclose(np.asarray(kernel)[M:, M:], jacobian @ jacobian.T, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("made", [LowRankRNN, OptimizedLowRankRNN, FullRankRNN, FullRankRNNScaled])
@pytest.mark.filterwarnings("ignore:theta holds")
def test_the_class_of_a_module_says_what_is_divided(made):
    weights = weights_of("low" if "Low" in made.__name__ else "full")
    if made in (OptimizedLowRankRNN, FullRankRNNScaled):
        del weights["b"]
    module = made(weights)
    network = ssntk.from_torch(module, ALPHA)
    # The module starts at its h0.
    assert ssntk.same_rollout(network, module, US) < 1e-14
    assert network.n_state == N
    back = network.to_torch(module)
    assert all(np.array_equal(back[name].array, value) for name, value in weights.items())
    if made is LowRankRNN:
        same = ssntk.from_torch(weights, ALPHA)
        np.testing.assert_array_equal(same.step(np.ones(N)), network.step(np.ones(N)))
        # A dict does not say that its class does not divide.
        assert ssntk.same_rollout(same, OptimizedLowRankRNN(weights), US) > 0.1


def test_what_the_module_trains_is_said():
    with pytest.warns(UserWarning, match=r"theta holds m, n, si \* wi, so \* wo, and the module trains m, n, si, so"):
        ssntk.from_torch(LowRankRNN(weights_of()), ALPHA)
    relu = LowRankRNN({name: weights_of()[name] for name in ("m", "n")}, non_linearity=named(lambda x: x, "relu"))
    # Nothing to warn of: theta is m and n. The other nonlinearity is that of a readout, which there is none of.
    assert ssntk.from_torch(relu, ALPHA).activation is jax.nn.relu


@pytest.mark.filterwarnings("ignore:theta holds")
def test_single_precision():
    """0.2 and 1 / 6 are other numbers there."""
    with jax.enable_x64(False):
        module = LowRankRNN(weights_of())
        network = ssntk.from_torch(module, ALPHA)
        assert network.model.left.dtype == np.float32
        back = network.to_torch(module)
        assert all(np.array_equal(back[name].array, value) for name, value in weights_of().items())
        scaled = FullRankRNNScaled(weights_of("full"))
        assert ssntk.from_torch(scaled, ALPHA).to_torch(scaled).keys() == weights_of("full").keys()


def test_weights_go_back():
    weights = weights_of()
    network = ssntk.from_torch(weights, dt=ALPHA)
    moved = eqx.tree_at(
        lambda m: (m.model.left, m.model.input_weight),
        network,
        (network.model.left + 1, 2 * network.model.input_weight),
    )
    back = moved.to_torch(weights)
    np.testing.assert_array_equal(back["m"], weights["m"] + 1)
    np.testing.assert_allclose(back["wi"], 2 * weights["wi"], rtol=1e-15)
    assert all(np.array_equal(back[name], weights[name]) for name in ("n", "si", "wo", "so", "h0", "b"))
    full = ssntk.from_torch(weights_of("full"), dt=ALPHA)
    cases = [
        (full, weights, "and the model, a TorchRNN, did not come from it"),
        (network, weights_of("full"), "the model, a TorchLowRank, did not come from it"),
        (
            network,
            {name: weights[name] for name in ("m", "n")} | {"wi": np.zeros((1, N))},
            r"\(1, 6\), and the model has shape \(3, 6\)",
        ),
        (moved, weights | {"si": np.array([1.0, 0.0, 1.0])}, r"state_dict\['si'\] holds a zero"),
        (eqx.tree_at(lambda m: m.model.bias, network, jnp.ones(N)), weights, "the model's is not zero"),
    ]
    for model, held, match in cases:
        with pytest.raises(ValueError, match=match):
            model.to_torch(held)


@pytest.mark.slow
def test_it_is_kept_in_a_file(tmp_path):
    network = ssntk.from_torch(weights_of(), dt=ALPHA)
    x = np.ones(N)
    kept = ssntk.load(ssntk.save(tmp_path / "kept.npz", Retreat(network, x, x, 0.1, np.zeros(1), 0.0, 0.0)))
    np.testing.assert_array_equal(kept.model.step(x), network.step(x))
    assert len(kept.model.trainable("readout")) == 4


def test_the_reduced_flow_has_the_fixed_points_of_the_network():
    """The result is a LowRankRNN with all that it can do."""
    network = ssntk.from_torch(weights_of(), dt=ALPHA)
    reduced = network.model.reduced()
    kappa, u = jnp.array([0.3, -0.2]), US[0, 0]
    x = reduced.lift(kappa, u)
    J, ins = connectivity(weights_of(), True), weights_of()["wi"].T * weights_of()["si"]
    # The velocity of the network lies in the span of m, with these coordinates.
    np.testing.assert_allclose(
        weights_of()["m"] @ reduced.vector_field(0.0, kappa, jnp.asarray(u)),
        -np.asarray(x) + J @ np.tanh(x) + ins @ u,
        rtol=1e-12,
        atol=1e-14,
    )


def test_what_is_not_understood_is_said():
    low, full = weights_of(), weights_of("full")
    unbiased = {name: value for name, value in full.items() if name != "b"}
    cases = [
        (low | {"b": np.ones(N)}, {}, r"state_dict\['b'\] must be zero: a bias inside of the nonlinearity"),
        (unbiased, {}, "holds wrec and no b.*FullRankRNNScaled.*pass the module"),
        (low | {"fc.weight": np.zeros((1, N))}, {}, r"fc\.weight, whose use is not known beside m and n"),
        (low | {"n": np.zeros((N, R + 1))}, {}, r"state_dict\['n'\] must have shape \(N, R\) = \(6, 2\), got \(6, 3\)"),
        (low | {"m": np.zeros(N), "n": np.zeros(N)}, {}, r"state_dict\['m'\] must have shape \(N, R\), got \(6,\)"),
        (low | {"wi": np.zeros((N, D))}, {}, r"state_dict\['wi'\] must have shape \(d, 6\), got \(6, 3\)"),
        (low | {"si": np.zeros(N)}, {}, r"state_dict\['si'\] must have shape \(3,\), got \(6,\)"),
        (low | {"wo": np.zeros((M, N))}, {}, r"state_dict\['wo'\] must have shape \(6, m\), got \(2, 6\)"),
        (low | {"so": np.zeros(N)}, {}, r"state_dict\['so'\] must have shape \(2,\)"),
        (low | {"h0": np.zeros(2)}, {}, r"state_dict\['h0'\] must have shape \(6,\)"),
        (full | {"wrec": np.zeros((N, R))}, {}, r"state_dict\['wrec'\] must have shape \(6, 6\), got \(6, 2\)"),
        (low | {"m": np.full((N, R), np.nan)}, {}, "m must be finite"),
        (low, {"dt": -1.0}, "dt must be positive"),
        (low, {"activation": 3}, "activation must be callable"),
        ({"m_weights": np.zeros((R, 1, 3)), "n_weights": np.zeros((R, 1, 3))}, {}, r"SupportLowRankRNN.*gain=N"),
        (LowRankRNN(low), {}, r"dt must be 0\.2, the alpha of the module, got 1\.0: pass ssntk\.from_torch\(net, 0\.2\)"),
        (
            LowRankRNN(low, output_non_linearity=abs),
            {"dt": ALPHA},
            "output_non_linearity is 'abs', and its non_linearity 'tanh'",
        ),
        (LowRankRNN(low), {"dt": ALPHA, "activation": jax.nn.relu}, "activation contradicts the module"),
    ]
    for weights, options, match in cases:
        with pytest.raises(ValueError, match=match):
            ssntk.from_torch(weights, **options)
    network = ssntk.from_torch(low, dt=ALPHA)
    with pytest.raises(ValueError, match="step_or_module adds noise to its states: set its noise_std to 0"):
        ssntk.same_rollout(network, LowRankRNN(low, noise_std=0.05), US)
