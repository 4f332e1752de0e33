"""Published networks, read from their files: the fixed points that other programs find in them.

The files lie beside the project, in shared/, with their sources and licences. Compiles searches for 50 to 256 units.
"""

import jax
import numpy as np
import pytest
from published import needed, sine_generator, weights

import ssntk

pytestmark = needed


# Found by an exact search over active sets from 4000 starts.
@pytest.mark.parametrize(("u", "count"), [((0.0, 0.0), 3), ((1.0, 1.0), 1), ((1.5, 1.0), 1)])
def test_fifty_relu_units(u, count):
    held = weights("psychrnn_saved_weights.npz")
    network = ssntk.CTRNN.from_weights(
        held["W_rec"] * held["rec_connectivity"],
        held["W_in"] * held["input_connectivity"],
        held["b_rec"],
        activation=jax.nn.relu,
    )
    points = ssntk.find_fixed_points(ssntk.EulerMap(network, 0.1), u)
    assert len(points) == count
    assert points.index_sum == 1


@pytest.mark.slow
def test_a_sine_generator_of_250_units():
    points = ssntk.find_fixed_points(ssntk.EulerMap(sine_generator(), 0.1), n_starts=64)
    # Found by SciPy's hybr.
    assert points.n_unstable.tolist() == [6]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "multiplier", "close"),
    [
        ("silero_lstm_silence.npz", ssntk.LSTMCell, 0.99919, 5e-6),
        ("g2p_encoder_gru_letter3_float16.npz", ssntk.GRUCell, 0.99999989, 5e-9),
    ],
    ids=["lstm", "gru"],
)
def test_gated_networks_at_rest(name, make, multiplier, close):
    # The input is constant, and is given as what it adds to the gates.
    held = weights(name)
    cell = make.from_weights(held["weight_hh"], None, held.get("bias_hh"), held["drive"])
    points = ssntk.find_fixed_points(cell, n_starts=32)
    assert points.stable.tolist() == [True]
    np.testing.assert_allclose(np.abs(points.eigenvalues[0]).max(), multiplier, atol=close)
    # The end of a roll-out, or of another solver.
    np.testing.assert_allclose(points.x[0], held["rest_state"], atol=1e-8)
