"""Inputs and outputs of a map as nn.RNN aligns them, against iterating the map by hand.

Compiles: a roll-out and a kernel of a network of 3 units over 5 steps, and a predicted training of it.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

B, T, D, N, M = 2, 5, 2, 3, 1


@pytest.fixture(scope="module")
def network():
    keys = jr.split(jr.key(0), 4)
    shapes = ((N, N), (N, D), (N,), (M, N))
    weights = [jr.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    return ssntk.EulerMap(ssntk.CTRNN.from_weights(*weights, form="rate"), 1.0)


def by_hand(network, us, h):
    """The outputs (B, T, m) of `h <- tanh(W h + V u + b)`, one after each input."""
    weights = network.weight, network.input_weight, network.bias, network.readout_weight
    recurrent, enter, bias, leave = map(np.asarray, weights)
    outputs = []
    for k in range(us.shape[1]):
        h = np.tanh(h @ recurrent.T + us[:, k] @ enter.T + bias)
        outputs.append(h @ leave.T)
    return np.stack(outputs, axis=1)


US = np.asarray(jr.normal(jr.key(1), (B, T, D)))


def test_the_rows_that_are_observed_are_the_outputs_one_after_each_input(network):
    h0 = np.asarray(jr.normal(jr.key(2), (B, N)))
    probe = ssntk.Probe.steps(US, h0[None])
    states = np.asarray(ssntk.simulate(network, probe))
    assert states.shape == (B, T + 1, N)
    assert np.array_equal(np.asarray(probe.mask), [False] + T * [True])
    outputs = states @ np.asarray(network.readout_weight).T
    assert np.allclose(outputs[:, np.asarray(probe.mask)], by_hand(network, US, h0), rtol=0, atol=1e-14)
    # A single trial needs no batch axis, and one initial state serves all trials.
    assert np.array_equal(ssntk.Probe.steps(US[0]).us, probe.us[:1])
    assert np.array_equal(ssntk.Probe.steps(US, h0[0]).x0, h0[0])
    assert np.allclose(ssntk.Probe.steps(US, dt=0.5).ts, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])


def test_targets_are_one_for_each_output(network):
    wanted = np.asarray(jr.normal(jr.key(3), (B, T, M)))
    loss = np.mean((by_hand(network, US, np.zeros((B, N))) - wanted) ** 2) / 2
    probe = ssntk.Probe.steps(US)
    predicted = ssntk.linearised_training(network, probe, wanted, 1e-3, 2)
    assert predicted.loss[0] == pytest.approx(loss, rel=1e-12)
    # Only some outputs, as where a trial ends with its answer.
    last = np.arange(T) == T - 1
    predicted = ssntk.linearised_training(network, ssntk.Probe.steps(US, mask=last), wanted, 1e-3, 2)
    expected = np.mean((by_hand(network, US, np.zeros((B, N))) - wanted)[:, -1] ** 2) / 2
    assert predicted.loss[0] == pytest.approx(expected, rel=1e-12)
    # If the initial time is observed, it needs a target.
    plain = ssntk.Probe(probe.ts, probe.us)
    with pytest.raises(ValueError, match=rf"targets must have shape \({B}, {T + 1}, {M}\), got \({B}, {T}, {M}\)"):
        ssntk.linearised_training(network, plain, wanted, 1e-3, 2)


@pytest.mark.parametrize("shape", [(T,), (B, T), (B, T, M)])
def test_a_mask_is_one_for_each_output_too(shape):
    mask = np.asarray(jr.bernoulli(jr.key(4), 0.5, shape))
    probe = ssntk.Probe.steps(US, mask=mask)
    rows = probe.observed(jnp.ones((B, T + 1, M, 1)))[..., 0]
    assert not rows[:, 0].any()
    full = mask[None, :, None] if mask.ndim == 1 else mask.reshape(B, T, -1)
    assert np.array_equal(rows[:, 1:], np.broadcast_to(full, (B, T, M)))


BAD = {
    "no axis of time": ({"us": np.ones(3)}, r"us must have shape \(B, T, d\) or \(T, d\), with T >= 1, got \(3,\)"),
    "no step": ({"us": np.ones((2, 0, 1))}, r"with T >= 1, got \(2, 0, 1\)"),
    "a function": ({"us": jnp.sin}, "us must be an array"),
    "states of another batch": ({"h0": np.ones((3, N))}, r"h0 must have shape .* with B = 2, got \(3, 3\)"),
    "states of two layers": ({"h0": np.ones((2, B, N))}, r"h0 must have shape .*, got \(2, 2, 3\)"),
    "dt": ({"dt": 0.0}, "dt must be positive"),
    "mask of states": ({"mask": np.ones(T + 1, bool)}, r"T = 5, the number of outputs, got bool \(6,\)"),
    "mask of numbers": ({"mask": np.ones(T)}, r"mask must be boolean .*, got float64 \(5,\)"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ssntk.Probe.steps(**{"us": US} | changes)


def test_a_map_of_another_step_is_refused():
    network = ssntk.EulerMap(ssntk.CTRNN.from_weights([[0.5]], [[1.0]], form="rate"), 0.2)
    us = np.ones((1, 3, 1))
    with pytest.raises(ValueError, match=r"for maps with dt = 1, and the model has dt = 0\.2, .*give Probe\.steps"):
        ssntk.simulate(network, ssntk.Probe.steps(us))
    states = ssntk.simulate(network, ssntk.Probe.steps(us, dt=0.2))[0, 1:, 0]
    x, expected = 0.0, []
    for _ in range(3):
        x += 0.2 * (np.tanh(0.5 * x + 1) - x)
        expected.append(x)
    np.testing.assert_allclose(states, expected, rtol=1e-14)
