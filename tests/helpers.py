"""Code that several tests share: reference branches, the trained network, models that a user might write."""

import json
import pathlib
import statistics
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

ROOT = pathlib.Path(__file__).parent.parent
BRANCHES = json.loads((pathlib.Path(__file__).parent / "reference" / "branches.json").read_text())["systems"]


def reference(name):
    """The data of a file of reference/."""
    return json.loads((pathlib.Path(__file__).parent / "reference" / f"{name}.json").read_text())


# The residual of the conditions that the search for the nearest bifurcation guarantees. It is far larger than the rounding
# errors of terms of order one.
EXACT = 1e-10

# Few stages, which compile fast, for plans whose trajectories do not matter.
QUICK = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)


def seeds(always, total):
    """The seeds from 0 to `total`, for tests that take seconds each: the first ones always, the others with -m slow."""
    return [*range(always), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(always, total))]


def some(values, always):
    """Cases of a test. Those that resemble others run with -m slow only."""
    return [value if value in always else pytest.param(value, marks=pytest.mark.slow) for value in values]


def real_roots(coefficients):
    """The real roots of a polynomial, ascending."""
    roots = np.roots(coefficients)
    return np.sort(roots[np.abs(roots.imag) < 1e-9].real)


def reference_family(name):
    """A system of reference/branches.json as a family over its input, its start by relaxation, its span and its events."""
    system = BRANCHES[name]
    weight, b, c, tau = (np.asarray(system[key]) for key in ("W", "b", "c", "tau"))
    model = ssntk.CTRNN.from_weights(weight, input_weight=b[:, None], bias=c, tau=tau)
    p0, p1 = system["p0"], system["p1"]
    x = np.tanh(p0 * b)
    for _ in range(20_000):
        x = x + 0.01 * (-x + weight @ np.tanh(x) + p0 * b + c) / tau
    return ssntk.Family.input(model, [1.0]), x, (p0, p1), system["events"]


def flip_flop():
    """The network trained on the 2-bit flip-flop task."""
    return ssntk.CTRNN.from_weights(**np.load(ROOT / "sweeps" / "flip_flop32.npz"))


class Leaky(ssntk.AbstractStateSpaceModel):
    """A model as a user would write it: nested parameters, a leaf that is no array first, a nonlinear readout."""

    name: str
    parts: dict
    nothing: None
    n_state: int = 5
    n_input: int = 2
    n_output: int = 3

    def __init__(self, key):
        keys = jr.split(key, 4)
        self.name = "leaky"
        self.parts = {
            "w": 1.2 * jr.normal(keys[0], (5, 5)) / 5**0.5,
            "u": jr.normal(keys[1], (5, 2)),
            "rates": (1.0 + jr.uniform(keys[2], (5,)), jnp.asarray(0.3)),
            "out": jr.normal(keys[3], (3, 5)),
        }
        self.nothing = None

    def vector_field(self, t, x, u):
        rate, mix = self.parts["rates"]
        return -rate * x + jnp.sin(self.parts["w"] @ x + self.parts["u"] @ u) + mix * jnp.cos(t) * x**2 / (1 + x @ x)

    def readout(self, x):
        return jnp.tanh(self.parts["out"] @ x)


def cubic_field(t, x, u, params):
    """`dx/dt = -x^3 + W x + b + u`, for VectorField."""
    return -(x**3) + params["W"] @ x + params["b"] + u


def arrays(model):
    """Everything of a model that is an array."""
    return eqx.filter(model, eqx.is_inexact_array)


def fold_sweep(**changes):
    """Towards the fold of dx/dt = mu - x^2, along x = sqrt(mu)."""
    plan = {
        "towards": "saddle-node",
        "span": (1.0, -1.0),
        "distances": [1e-1, 1e-2, 1e-3, 1e-4],
        "probe": ssntk.Probe(np.linspace(0.0, 5.0, 6)),
        "x0": [1.0],
        "integrator": QUICK,
    }
    return ssntk.Sweep(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"), **plan | changes)


def network_sweep(seed, gain=1.3, distances=(1e-4, 1e-5, 1e-6, 1e-7), **changes):
    family = ssntk.Family.input(ssntk.CTRNN(32, 1, 1, gain=gain, key=jr.key(seed)), [1.0])
    plan = {"towards": "saddle-node", "span": (-4.0, 4.0), "distances": distances, "probe": ssntk.Probe([0.0, 1.0])}
    return ssntk.Sweep(family, **plan | changes)


def timed(*calls, rounds):
    """The median seconds of each call, warm."""
    for call in calls:
        jax.block_until_ready(call())
    seconds = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]
