"""Steps of equinox and of a user's own as maps, against iterating them directly and against PyTorch's layers.

Compiles: roll-outs of a GRU and an LSTM of 4 units, and one search for fixed points.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

N, D, T = 4, 2, 6


def eqx_gru(seed, **options):
    """A GRU of equinox with weights of order one. Its own would be of order 1 / sqrt(N)."""
    cell = eqx.nn.GRUCell(D, N, key=jr.key(seed), **options)
    return jax.tree.map(lambda leaf: 2 * leaf, cell)


def inputs(seed):
    return jr.normal(jr.key(100 + seed), (T, D))


def iterated(cell, h, us):
    states = [h]
    for u in us:
        states.append(cell(u, states[-1]))
    return states


def rolled(model, x0, us):
    probe = ssntk.Probe(jnp.arange(T + 1.0), jnp.concatenate([us, us[-1:]])[None], x0)
    return ssntk.simulate(model, probe)[0]


def test_a_gru_of_equinox_is_what_equinox_iterates_and_the_same_as_pytorchs():
    cell, us = eqx_gru(0), inputs(0)
    model = ssntk.from_cell(cell, n_state=N, n_input=D)
    assert isinstance(model, ssntk.EulerMap)
    assert (model.dt, model.n_state, model.n_output) == (1.0, N, N)
    x0 = jr.normal(jr.key(1), (N,))
    states = rolled(model, x0, us)
    assert np.allclose(states, iterated(cell, x0, us), rtol=0, atol=1e-13)
    # PyTorch has both biases of all gates. Equinox has only the recurrent bias of the candidate.
    torch = {"weight_ih_l0": cell.weight_ih, "weight_hh_l0": cell.weight_hh, "bias_ih_l0": cell.bias}
    torch["bias_hh_l0"] = jnp.concatenate([jnp.zeros(2 * N), cell.bias_n])
    other = ssntk.from_torch({name: np.asarray(array) for name, array in torch.items()})
    assert np.allclose(states, rolled(other, x0, us), rtol=0, atol=1e-13)
    # theta is the cell's arrays: PyTorch's but for 2 N biases.
    probe = ssntk.Probe([0.0, 1.0, 2.0], us[:1], x0)
    rows = ssntk.parameter_jacobian(model, probe).shape[-1]
    assert rows == 3 * N * (D + N + 1) + N == ssntk.parameter_jacobian(other, probe).shape[-1] - 2 * N


def test_an_lstm_has_both_of_its_states_and_a_linear_readout_reads_h():
    cell, us = eqx.nn.LSTMCell(D, N, key=jr.key(2)), inputs(2)
    head = eqx.nn.Linear(N, 3, key=jr.key(3))
    model = ssntk.from_cell(cell, head, n_state=(N, N), n_input=D)
    h0, c0 = jr.normal(jr.key(4), (2, N))
    expected = iterated(cell, (h0, c0), us)
    states = rolled(model, jnp.concatenate([h0, c0]), us)
    assert np.allclose(states, [np.concatenate(pair) for pair in expected], rtol=0, atol=1e-13)
    assert model.n_output == 3
    assert np.allclose(model.readout(states[-1]), head(expected[-1][0]), rtol=0, atol=1e-13)
    # The readout is in theta if it is observed.
    sizes = {of: sum(leaf.size for leaf in jax.tree.leaves(model.trainable(of))) for of in ("state", "readout")}
    assert sizes["readout"] - sizes["state"] == 3 * N + 3
    # All of its numbers as one size are a pair too.
    both = ssntk.from_cell(cell, head, n_state=2 * N, n_input=D)
    assert jnp.array_equal(both.step(states[1], us[0]), model.step(states[1], us[0]))


class Own(eqx.Module):
    """A step whose state is a dict, and which also returns an output."""

    decay: np.ndarray
    scale: float = 0.5

    def __call__(self, u, h):
        fast = jnp.tanh(self.scale * h["slow"].sum() + h["fast"] + u[0])
        return {"fast": fast, "slow": self.decay * h["slow"]}, fast.sum()


def test_a_step_of_ones_own_may_have_a_dict_of_states_arrays_of_numpy_and_an_output():
    cell = Own(np.full((2, 2), 0.5))
    model = ssntk.from_cell(cell, lambda h: h["slow"].ravel(), n_state={"fast": 3, "slow": np.zeros((2, 2))}, n_input=1)
    x = np.arange(7.0) / 10
    # By hand: fast, of 3, then slow, of 2 times 2.
    expected = np.concatenate([np.tanh(0.5 * x[3:].sum() + x[:3] + 0.2), 0.5 * x[3:]])
    assert np.allclose(model.step(x, [0.2]), expected, rtol=0, atol=1e-15)
    assert model.n_state == 7
    assert np.array_equal(model.readout(jnp.asarray(x)), x[3:])
    assert [leaf.shape for leaf in jax.tree.leaves(model.trainable("state"))] == [(2, 2)]


def test_a_function_with_its_weights_beside_it_goes_through_the_search():
    step = eqx.Partial(lambda weights, u, h: jnp.tanh(weights * h), jnp.array([2.0, 0.5]))
    found = ssntk.find_fixed_points(ssntk.from_cell(step, n_state=2, n_input=0), n_starts=16)
    # x = tanh(2 x) at 0 and +-0.9575, by bisection elsewhere; the second unit decays.
    assert np.allclose(np.sort(found.x[:, 0]), [-0.9575040240772687, 0.0, 0.9575040240772687], atol=1e-12)


def flipped(h, u):
    return jnp.tanh(h + u.sum())


def carried(carry, inputs):
    return jnp.tanh(carry + 2 * inputs)


GRU = eqx.nn.GRUCell(D, N, key=jr.key(0))
BAD = {
    "not callable": ({"cell": 3.0}, r"cell must be callable as cell\(u, h\), got float"),
    "another shape": (
        {"cell": lambda u, h: h[:2]},
        r"cell must return h \(4,\), the state after the step, or \(h, y\); cell\(u \(2,\), h \(4,\)\) returned \(2,\)",
    ),
    "a list": ({"cell": lambda u, h: [h, u]}, r"returned \[\(4,\), \(2,\)\]"),
    "integers": ({"cell": lambda u, h: jnp.zeros(4, int)}, r"returned \(4,\) of int64"),
    "nothing": ({"cell": lambda u, h: None}, "returned nothing"),
    "it fails": ({"cell": lambda u, h: h + u}, r"cell\(u \(2,\), h \(4,\)\) could not be evaluated"),
    "three arguments": ({"cell": lambda p, u, h: h}, "could not be evaluated: TypeError|could not be evaluated: .*missing"),
    "numpy": ({"cell": lambda u, h: np.tanh(np.asarray(h))}, "use jax.numpy"),
    "an lstm": ({"cell": eqx.nn.LSTMCell(D, N, key=jr.key(0))}, r"give n_state=\(n, n\)"),
    "other order": ({"cell": flipped, "n_input": 3}, r"cell must take \(u, h\), .*it takes \(h, u\), as its shapes say"),
    "other order by name": ({"cell": carried, "n_input": 4}, r"it takes \(h, u\), as the names of its arguments say"),
    "this package's order": ({"cell": lambda x, u: jnp.tanh(x + u), "n_input": 4}, r"it takes \(h, u\), as the names"),
    "another name of the state": ({"cell": lambda h_prev, x_t: jnp.tanh(h_prev + x_t), "n_input": 4}, "as the names"),
    "other order of a module": ({"cell": lambda h, u: GRU(u, h)}, r"eqx.Partial\(lambda cell, u, h: cell\(h, u\), cell\)"),
    "pytorch": ({"cell": {"weight_hh_l0": np.eye(4), "weight_ih_l0": np.eye(4)}}, "PyTorch network: pass ssntk.from"),
    "no size": ({"n_state": None}, "n_state"),
    "sizes": ({"n_state": (4, 0)}, "n_state must be at least 1, got 0"),
    "none of them": ({"n_state": ()}, r"n_state must be a size or a tuple of sizes, got \(\)"),
    "inputs": ({"n_input": -1}, "n_input must be at least 0"),
    "readout": ({"readout": 1.0}, r"readout must be callable as readout\(h\), got float"),
    "its width": ({"readout": eqx.nn.Linear(3, 1, key=jr.key(0))}, r"readout at h \(4,\) could not be evaluated"),
    "its shape": ({"readout": lambda h: h.sum()}, r"readout must return real numbers of shape \(m,\), got \(\)"),
    "not finite": ({"cell": jax.tree.map(lambda leaf: leaf * jnp.nan, GRU)}, "must be finite"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_is_no_step_is_refused_before_anything_is_compiled(changes, message, compilations):
    changes = {"cell": GRU, "n_state": N, "n_input": D} | changes
    del compilations[:]
    with pytest.raises(ValueError, match=message):
        ssntk.from_cell(changes.pop("cell"), **changes)
    assert not compilations
