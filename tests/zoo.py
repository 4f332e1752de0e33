"""Models of every kind, by name. test_zoo.py tests the properties of models for all of them.

A new class is one line here. Each entry makes a new model from the same numbers. Sizes are small, and the same if possible,
so that little is compiled.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from helpers import Leaky, cubic_field

import ssntk

SIZES = {"n_state": 4, "n_input": 2, "n_output": 3}


def drawn(*shape, seed=0):
    """Numbers from N(0, 1 / last size)."""
    return np.random.default_rng([seed, *shape]).normal(size=shape) / max(shape[-1], 1) ** 0.5


def gates(n_gates):
    """Weights of a PyTorch layer with this number of gates, one for an `nn.RNN`."""
    return {"weight_ih_l0": drawn(4 * n_gates, 2), "weight_hh_l0": drawn(4 * n_gates, 4, seed=1)} | {
        name: drawn(4 * n_gates, seed=seed) / 4 for seed, name in enumerate(("bias_ih_l0", "bias_hh_l0"))
    }


def step(weights, u, h):
    """A step as a user might write it for training, with weights of different types and sizes."""
    return jnp.tanh(weights["w"] @ h + (weights["v"] @ u.astype(weights["v"].dtype)).astype(h.dtype) + weights["b"] * 1e-3)


class Still(Leaky):
    """A user's model that does not depend on time, as models with equilibria do not."""

    def vector_field(self, t, x, u):
        return super().vector_field(0 * t, x, u)


class Rescaled(ssntk.AbstractStateSpaceModel):
    """`inner` in other units: states are `size` times as large, and rates are `rate` times as fast. theta is the same."""

    inner: ssntk.AbstractStateSpaceModel
    size: float
    rate: float
    n_state: int
    n_input: int
    n_output: int

    def __init__(self, inner, size, rate=1.0):
        self.inner, self.size, self.rate = inner, size, rate
        self.n_state, self.n_input, self.n_output = inner.n_state, inner.n_input, inner.n_output

    def vector_field(self, t, x, u):
        return self.rate * self.size * self.inner.vector_field(self.rate * t, x / self.size, u)

    def readout(self, x):
        return self.inner.readout(x / self.size)

    def trainable(self, of):
        return self.inner.trainable(of)


def turning(t, x, u, params):
    """A step as a user might write it for a map, with parameters by name."""
    return jnp.sin(params["W"] @ x + params["b"] + jnp.concatenate([u, u]))


class Leaking(ssntk.AbstractMap):
    """A user's map: a network of units that keep a part of their state at every step."""

    weight: jax.Array
    keep: jax.Array
    dt: float = eqx.field(static=True, default=0.5, kw_only=True)
    n_state: int = 4
    n_input: int = 2
    n_output: int = 4

    def advance(self, t, x, u):
        return self.keep * x + jnp.sin(self.weight @ x + jnp.concatenate([u, 1 - u]))


class RescaledMap(ssntk.AbstractMap):
    """A map `inner` with states that are `size` times as large."""

    inner: ssntk.AbstractMap
    size: float
    n_state: int
    n_input: int
    n_output: int

    def __init__(self, inner, size):
        self.inner, self.size, self.dt = inner, size, inner.dt
        self.n_state, self.n_input, self.n_output = inner.n_state, inner.n_input, inner.n_output

    def advance(self, t, x, u):
        return self.size * self.inner.advance(t, x / self.size, u)

    def readout(self, x):
        return self.inner.readout(x / self.size)

    def trainable(self, of):
        return self.inner.trainable(of)


def single(model):
    """A model in single precision."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, model)


forms = ssntk.normal_forms
ZOO = {
    "current": lambda: ssntk.CTRNN(**SIZES, gain=0.8, key=jr.key(1)),
    "rate": lambda: ssntk.CTRNN(**SIZES, gain=0.8, tau=np.linspace(0.5, 2.0, 4), form="rate", key=jr.key(1)),
    "scales": lambda: ssntk.CTRNN.from_weights(drawn(4, 4), 1e3 * drawn(4, 2), 1e-3 * drawn(4), tau=[1e-1, 1.0, 1.0, 1e1]),
    "single": lambda: single(ssntk.CTRNN(**SIZES, gain=0.8, key=jr.key(1))),
    "low rank": lambda: ssntk.LowRankRNN(**SIZES, rank=2, key=jr.key(3)),
    "gru": lambda: ssntk.GRUODE(**SIZES, key=jr.key(2)),
    "neural": lambda: ssntk.NeuralODE(**SIZES, width=5, key=jr.key(4)),
    "linear": lambda: ssntk.LinearSSM(**SIZES, key=jr.key(5)),
    "diagonal": lambda: eqx.tree_at(
        # Change the decays, since two modes with equal decays would be equally near the edge of stability.
        lambda m: m.log_decay,
        ssntk.LinearSSM(**SIZES, form="diagonal", key=jr.key(5)),
        jnp.log(jnp.array([0.4, 0.6])),
    ),
    "field": lambda: ssntk.VectorField(cubic_field, {"W": drawn(4, 4) - np.eye(4), "b": drawn(4)}, 4, 4),
    "saddle-node": lambda: forms.saddle_node(0.5),
    "transcritical": lambda: forms.transcritical(0.5, 0.1),
    "pitchfork": lambda: forms.pitchfork(-0.5, 0.1),
    "hopf": lambda: forms.hopf(-0.5, 2.0, 0.3),
    "user": lambda: Leaky(jr.key(0)),
    "still user": lambda: Still(jr.key(0)),
    "rescaled": lambda: Rescaled(ssntk.CTRNN(**SIZES, gain=0.8, key=jr.key(1)), 1e-3, 1e2),
    "euler": lambda: ssntk.EulerMap(ssntk.CTRNN(**SIZES, gain=0.8, key=jr.key(1)), 0.25),
    "euler user": lambda: ssntk.EulerMap(Still(jr.key(0)), 0.25),
    "torch rnn": lambda: ssntk.from_torch(gates(1)),
    "torch gru": lambda: ssntk.from_torch(gates(3)),
    "torch lstm": lambda: ssntk.from_torch(gates(4)),
    "gru cell": lambda: ssntk.from_cell(eqx.nn.GRUCell(2, 4, key=jr.key(6)), n_state=4, n_input=2),
    "lstm cell": lambda: ssntk.from_cell(
        eqx.nn.LSTMCell(2, 2, key=jr.key(7)), eqx.nn.Linear(2, 3, key=jr.key(8)), n_state=(2, 2), n_input=2
    ),
    "user's own map": lambda: Leaking(jnp.asarray(drawn(4, 4)), jnp.array([0.5, 0.3, -0.2, 0.1])),
    "map": lambda: ssntk.Map(turning, {"W": drawn(4, 4), "b": drawn(4)}, 4, 2, dt=0.5),
    "GRUCell": lambda: ssntk.GRUCell(2, 4, 3, key=jr.key(9)),
    "reset before": lambda: ssntk.GRUCell.from_weights(
        drawn(12, 4), drawn(12, 2), drawn(12), drawn(12, seed=1), drawn(3, 4), reset_after=False
    ),
    "LSTMCell": lambda: ssntk.LSTMCell(2, 4, 3, key=jr.key(10)),
    "layers": lambda: ssntk.Layers(ssntk.LSTMCell(2, 2, key=jr.key(11)), ssntk.GRUCell(2, 3, 3, key=jr.key(12))),
    "plrnn": lambda: ssntk.PLRNN(**SIZES, key=jr.key(13)),
    "almost linear": lambda: ssntk.PLRNN(**SIZES, rectified=2, key=jr.key(13)),
    "shallow": lambda: ssntk.PLRNN(**SIZES, hidden=5, key=jr.key(13)),
    "iterated": lambda: ssntk.Iterated(ssntk.GRUCell(2, 4, 3, key=jr.key(9)), 2),
    "many iterations": lambda: ssntk.Iterated(Leaking(jnp.asarray(drawn(4, 4)), jnp.array([0.5, 0.3, -0.2, 0.1])), 6),
    "closed map": lambda: ssntk.ClosedLoop(ssntk.GRUCell(3, 4, 3, key=jr.key(14))),
    "closed flow": lambda: ssntk.ClosedLoop(
        ssntk.CTRNN(**SIZES, gain=0.8, key=jr.key(1)), eqx.Partial(jnp.matmul, jnp.asarray(drawn(2, 3)))
    ),
    "reduced": lambda: ssntk.LowRankRNN.from_weights(
        2 * drawn(12, 4), 2 * drawn(12, 4, seed=1), drawn(12, 2), drawn(12), drawn(3, 12)
    ).reduced(),
    "user's map": lambda: ssntk.from_cell(
        eqx.Partial(step, {"w": drawn(4, 4), "v": drawn(4, 2).astype(np.float32), "b": 1e3 * drawn(4)}), n_state=4, n_input=2
    ),
}
# Models that depend on time, which have no equilibria.
DRIVEN = {"user"}
# Models that resemble others. For them, tests that take seconds run with -m slow only.
TWINS = {
    *("current", "scales", "linear", "low rank", "transcritical", "pitchfork", "rescaled"),
    *("euler user", "torch rnn", "torch gru", "torch lstm", "gru cell", "reset before", "plrnn", "almost linear"),
    *("many iterations", "closed flow", "GRUCell", "map", "iterated", "reduced"),
}
