"""The networks, tasks and training of loss_jump_study.py: losses, kernels and stable rates at every step."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

import ssntk

NETWORKS, TASKS, OPTIMISERS = ("tanh RNN", "GRU", "PLRNN"), ("flip-flop", "sine"), ("SGD", "Adam")
UNITS = {"tanh RNN": 10, "GRU": 6, "PLRNN": 4}
TRIALS, LENGTH, PERIOD = 8, 30, 10.0
RATES = {"SGD": (1.0, 0.5, 0.2, 0.1, 0.05, 0.02), "Adam": (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)}
OTHERS, TRIED = range(2000, 2010), 300
# Adam's defaults
MEAN, SQUARE, EPSILON = 0.9, 0.999, 1e-8
# Steps of the power iteration, which starts from the vector of the training step before.
POWER = 20


class Cell(NamedTuple):
    network: str
    task: str
    optimiser: str


CELLS = [Cell(network, task, optimiser) for network in NETWORKS for task in TASKS for optimiser in OPTIMISERS]


class TanhRNN(ssntk.AbstractMap):
    """`x <- tanh(W x + B u + b)` with a linear readout, drawn as PyTorch draws it."""

    weight: jax.Array
    input_weight: jax.Array
    bias: jax.Array
    readout_weight: jax.Array
    readout_bias: jax.Array
    dt: float = eqx.field(static=True, default=1.0, kw_only=True)

    @classmethod
    def random(cls, n: int, key: jax.Array) -> "TanhRNN":
        shapes = (n, n), (n, 1), (n,), (1, n), (1,)
        keys = jr.split(key, len(shapes))
        return cls(*(jr.uniform(k, shape, minval=-(n**-0.5), maxval=n**-0.5) for k, shape in zip(keys, shapes, strict=True)))

    @property
    def n_state(self) -> int:
        return self.weight.shape[-1]

    @property
    def n_input(self) -> int:
        return 1

    @property
    def n_output(self) -> int:
        return 1

    def advance(self, t: Any, x: Any, u: Any) -> jax.Array:
        return jnp.tanh(self.weight @ x + self.input_weight @ u + self.bias)

    def readout(self, x: Any) -> jax.Array:
        return self.readout_weight @ x + self.readout_bias

    def trainable(self, of: str) -> Any:
        dynamics = (self.weight, self.input_weight, self.bias)
        return (*dynamics, self.readout_weight, self.readout_bias) if of == "readout" else dynamics


def network(name: str, seed: int, units: int | None = None) -> ssntk.AbstractMap:
    n, key = units or UNITS[name], jr.key(seed)
    if name == "tanh RNN":
        return TanhRNN.random(n, key)
    return ssntk.GRUCell(1, n, 1, key=key) if name == "GRU" else ssntk.PLRNN(n, 1, 1, key=key)


def trials(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (TRIALS, LENGTH, 1)."""
    random, when = np.random.default_rng(seed), np.arange(LENGTH)[None, :, None]
    if task == "flip-flop":
        fires = random.random((TRIALS, LENGTH, 1)) < 0.15
        fires[:, 0] = True
        signs = random.choice([-1.0, 1.0], fires.shape)
        last = np.maximum.accumulate(np.where(fires, when, 0), axis=1)
        return fires * signs, np.take_along_axis(signs, last, axis=1)
    # A pulse of three steps, of both signs and with four delays.
    sign, start = np.repeat([-1.0, 1.0], 4)[:, None, None], np.tile(np.arange(4), 2)[:, None, None]
    return sign * ((when >= start) & (when < start + 3)), sign * (when >= start) * np.sin(
        2 * np.pi / PERIOD * (when - start)
    )


def outputs(model: ssntk.AbstractMap, us: jax.Array) -> jax.Array:
    """All outputs (TRIALS, LENGTH, 1) from the zero state."""

    def one(u):
        def step(x, u):
            x = model.advance(0.0, x, u)
            return x, model.readout(x)

        return jax.lax.scan(step, jnp.zeros(model.n_state), u)[1]

    return jax.vmap(one)(us)


class Run(NamedTuple):
    """Arrays (steps, seeds): the loss, the norm of its gradient, the kernel's largest eigenvalue (of J J^T / rows) and
    participation ratio, and the learning rate divided by the largest stable one; and the weights (steps, seeds, p)."""

    loss: Any
    gradient: Any
    top: Any
    participation: Any
    ratio: Any
    thetas: Any


def top_of(gram: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest eigenvalue of a positive semidefinite matrix by power iteration, and its vector."""

    def step(_, v):
        v = gram @ v
        return v / jnp.maximum(jnp.linalg.norm(v), 1e-300)

    v = jax.lax.fori_loop(0, POWER, step, start)
    return v @ (gram @ v), v


def updated(theta: Any, gradient: Any, moments: Any, count: Any, rate: Any, adam: bool) -> tuple[Any, Any, Any]:
    """theta after a step, the moments, and by what Adam divides (ones for gradient descent)."""
    if not adam:
        return theta - rate * gradient, moments, jnp.ones_like(theta)
    mean, square = MEAN * moments[0] + (1 - MEAN) * gradient, SQUARE * moments[1] + (1 - SQUARE) * gradient**2
    divisor = jnp.sqrt(square / (1 - SQUARE**count)) + EPSILON
    return theta - rate * mean / (1 - MEAN**count) / divisor, jnp.stack([mean, square]), divisor


def begun(cell: Cell, seeds: Any, units: int | None = None) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """First weights (seeds, p), the function that makes a network of them, inputs and targets (seeds, ...)."""
    first = [network(cell.network, seed, units) for seed in seeds]
    given = [trials(cell.task, seed) for seed in seeds]
    us, targets = (jnp.asarray(np.stack(part)) for part in zip(*given, strict=True))
    return jnp.stack([ravel_pytree(one)[0] for one in first]), ravel_pytree(first[0])[1], us, targets


def trained(cell: Cell, rate: float, seeds: Any, steps: int) -> Run:
    thetas, made, us, targets = begun(cell, seeds)
    adam = cell.optimiser == "Adam"

    def one(theta, moments, vectors, us, targets, count):
        def flat(theta):
            return outputs(made(theta), us).ravel()

        jacobian, residual = jax.jacfwd(flat)(theta), flat(theta) - targets.ravel()
        rows = len(residual)
        gradient, gram = 2 * residual @ jacobian / rows, jacobian.T @ jacobian / rows
        after, moments, divisor = updated(theta, gradient, moments, count, rate, adam)
        root = divisor**-0.5
        top, first = top_of(gram, vectors[0])
        steep, second = top_of(root[:, None] * gram * root[None], vectors[1]) if adam else (top, first)
        # The largest stable rate of the mean square: 1 / top, and (1 + MEAN) / (1 - MEAN) times that for Adam.
        ratio = rate * steep * ((1 - MEAN) / (1 + MEAN) if adam else 1.0)
        participation = jnp.trace(gram) ** 2 / jnp.sum(gram**2)
        seen = Run(jnp.mean(residual**2), jnp.linalg.norm(gradient), top, participation, ratio, theta)
        return (after, moments, jnp.stack([first, second])), seen

    def step(carry, count):
        return jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None))(*carry, us, targets, count)

    seeds_, p = thetas.shape
    start = (thetas, jnp.zeros((seeds_, 2, p)), jnp.ones((seeds_, 2, p)) / p**0.5)
    run = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(1.0, steps + 1))[1])(start)
    return Run(*map(np.asarray, run))


def chosen_rate(cell: Cell) -> float:
    """The largest rate with which each of ten other networks has a smaller loss after 300 steps than at first."""
    thetas, made, us, targets = begun(cell, OTHERS)

    def loss(theta, us, targets):
        return jnp.mean((outputs(made(theta), us) - targets) ** 2)

    def run(rate, theta, us, targets):
        def step(carry, count):
            theta, moments = carry
            gradient = jax.grad(loss)(theta, us, targets)
            return updated(theta, gradient, moments, count, rate, cell.optimiser == "Adam")[:2], None

        begin = theta, jnp.zeros((2, len(theta)))
        return loss(jax.lax.scan(step, begin, jnp.arange(1.0, TRIED + 1))[0][0], us, targets)

    ends = jax.jit(jax.vmap(run, in_axes=(None, 0, 0, 0)))
    first = np.asarray(jax.vmap(loss)(thetas, us, targets))
    for rate in RATES[cell.optimiser]:
        if (np.asarray(ends(rate, thetas, us, targets)) < first).all():
            return rate
    return RATES[cell.optimiser][-1]
