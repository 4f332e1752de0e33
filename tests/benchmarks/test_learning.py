"""The time that a monitor adds to a training loop, and the time of a step of the natural gradient.

`pytest -m slow tests/benchmarks/test_learning.py -s -n 0` prints the table. Nothing else should run at the same time.
"""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import ROOT, timed

import ssntk

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Allow dtype promotion, which optax needs and the other tests forbid."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
STEPS = 50


def theta(model):
    return model.weight, model.input_weight, model.bias, model.readout_weight, model.readout_bias


def flip_flop():
    """The trained flip-flop network, with the size of its task: 64 trials of 50 leak times. All targets are zero."""
    model = ssntk.CTRNN.from_weights(**np.load(ROOT / "tests" / "reference" / "flip_flop64.npz"))
    return model, ssntk.Probe(np.linspace(0.0, 50.0, 101), jr.normal(jr.key(1), (64, 101, 3)))


def small():
    """A random network of 16 units and 4 readouts, 4 trials of 16 leak times."""
    model = ssntk.CTRNN(16, 1, 4, gain=0.8, key=jr.key(0))
    return model, ssntk.Probe(np.linspace(0.0, 16.0, 33), jr.normal(jr.key(1), (4, 33, 1)))


def trainer(model, probe, optimiser, adjoint=None):
    """STEPS compiled steps of an optimiser from the same start."""
    how = {"integrator": HEUN} if adjoint is None else {"integrator": HEUN, "adjoint": adjoint}

    def residuals(moving):
        moved = eqx.tree_at(theta, model, moving)
        states = ssntk.simulate(moved, probe, **how)
        return jax.vmap(jax.vmap(moved.readout))(states).ravel()

    optimiser = optax.with_extra_args_support(optimiser)

    def step(carry, _):
        moving, state = carry
        gradient = jax.grad(lambda moving: jnp.mean(residuals(moving) ** 2) / 2)(moving)
        update, state = optimiser.update(gradient, state, moving, residuals=residuals)
        return (optax.apply_updates(moving, update), state), None

    many = jax.jit(lambda moving, state: jax.lax.scan(step, (moving, state), length=STEPS)[0])
    moving = theta(model)
    state = optimiser.init(moving)
    return lambda: many(moving, state)


def test_a_monitor_in_the_flip_flops_training():
    """With steps as `examples/train_flip_flop.py` takes them, and probes of one trial and of two."""
    model, probe = flip_flop()
    scale = iter(1.0 + 1e-4 * np.arange(100))

    def recorder(trials):
        seen = ssntk.Probe(probe.ts, probe.us[:trials])
        monitor = ssntk.NTKMonitor(seen, every=1, wrt=theta, integrator=HEUN, n_starts=512)

        def record():
            # The weights differ each time, as in training.
            moved = eqx.tree_at(lambda m: m.weight, model, model.weight * next(scale))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
                found = monitor.update(len(monitor.records), moved)
            assert found.n_fixed_points == 27
            return found.top_eigenvalue

        # The first search is longer, and the second is compiled.
        record()
        return record

    steps, one, two = timed(trainer(model, probe, optax.sgd(1e-6)), recorder(1), recorder(2), rounds=5)
    overhead, more = (record / (100 * steps / STEPS) for record in (one, two))
    print(f"\na step {steps / STEPS:.3f} s, a record {one:.2f} s: {overhead:.1%} at every=100; of two trials {more:.1%}")
    assert overhead < 0.05


@pytest.mark.parametrize("task", [small, flip_flop], ids=lambda task: task.__name__)
def test_a_step_of_the_natural_gradient(task):
    model, probe = task()
    methods = {"gradient descent": optax.sgd(1e-6), "Adam": optax.adam(1e-6)} | {
        f"rank {rank}": ssntk.low_rank_natural_gradient(1e-6, rank=rank) for rank in (1, 2, 3)
    }
    taken = timed(*(trainer(model, probe, method, diffrax.DirectAdjoint()) for method in methods.values()), rounds=3)
    print(f"\n{task.__name__}, gradient descent {taken[0] / STEPS:.2g} s a step; to it:", end=" ")
    print(", ".join(f"{name} {seconds / taken[0]:.2f}" for name, seconds in zip(methods, taken, strict=True)))
    # A pass is six products with J and its transpose, each about a gradient's price, and here one in ten steps will do.
    assert taken[-1] / taken[0] < 3
