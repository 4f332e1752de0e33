"""Networks that learn to count: a clock of two steps is born in a flip, one of four steps in a Neimark-Sacker point.

Each network is trained here to give cos(2 pi t / period) under a constant input, and swept along the straight path from its
untrained weights to the trained ones. Everything measured on the way is compared with numpy's linear algebra on derivatives
of the step, and with simulations.
"""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest

import ssntk

matplotlib.use("agg")
T, U = 24, np.ones(1)
DISTANCES = np.geomspace(1e-1, 1e-6, 6)
NETWORKS = {
    "gru": lambda key: ssntk.GRUCell(1, 8, 1, key=key),
    "lstm": lambda key: ssntk.LSTMCell(1, 8, 1, key=key),
    "plrnn": lambda key: ssntk.PLRNN(6, 1, 1, hidden=10, key=key),
}
TOWARDS = {2: "flip", 4: "neimark-sacker"}
# Of each of the two kinds of point one network is in every run.
CASES = [
    pytest.param(name, period, id=f"{name}-{TOWARDS[period]}", marks=marks)
    for name, period, marks in (
        ("gru", 2, []),
        ("lstm", 4, [pytest.mark.slow]),
        ("lstm", 2, [pytest.mark.slow]),
        ("gru", 4, [pytest.mark.slow]),
        ("plrnn", 2, [pytest.mark.slow]),
        ("plrnn", 4, [pytest.mark.slow]),
    )
]


def trained(network, period, steps):
    """The network after `steps` of Adam on the clock, from x = 1/2."""
    arrays, static = eqx.partition(network, eqx.is_inexact_array)
    target = jnp.asarray(np.cos(2 * np.pi * np.arange(1, T + 1) / period))
    optimiser = optax.adam(1e-2)

    def loss(arrays):
        model = eqx.combine(arrays, static)

        def step(x, _):
            x = model.advance(0.0, x, jnp.ones(1))
            return x, model.readout(x)[0]

        outputs = jax.lax.scan(step, jnp.full(model.n_state, 0.5), length=T)[1]
        return jnp.mean((outputs - target) ** 2)

    def update(carry, _):
        arrays, state = carry
        value, gradient = jax.value_and_grad(loss)(arrays)
        change, state = optimiser.update(gradient, state)
        return (eqx.apply_updates(arrays, change), state), value

    start = arrays, optimiser.init(arrays)
    # Adam raises a float to the power of an int.
    with jax.numpy_dtype_promotion("standard"):
        (arrays, _), losses = jax.jit(lambda start: jax.lax.scan(update, start, length=steps))(start)
    return eqx.combine(arrays, static), float(losses[-1])


def weights_and_step(model):
    """All weights of a network (p,), and its step as a function of these and of the state."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    weights, rebuilt = jax.flatten_util.ravel_pytree(arrays)
    return weights, lambda weights, x: eqx.combine(rebuilt(weights), static).advance(0.0, x, jnp.ones(1))


def linear_parts(model, x):
    """The derivatives of one step by the state (n, n) and by all weights (n, p), those of the readout with zeros."""
    weights, step = weights_and_step(model)
    by_theta, by_x = jax.jit(jax.jacfwd(step, argnums=(0, 1)))(weights, x)
    return np.asarray(by_x), np.asarray(by_theta)


def top(response):
    return np.linalg.norm(response, 2) ** 2


@pytest.mark.parametrize(("name", "period"), CASES)
def test_a_clock_that_was_learned(name, period, tmp_path):
    untrained = NETWORKS[name](jax.random.key(1))
    network, loss = trained(untrained, period, 1500 if name == "plrnn" else 400)
    assert loss < 1e-3
    # The clock is a stable cycle of the trained network, and goes as the targets do.
    cycles = ssntk.find_cycles(network, period, U, n_starts=256)
    stable = [cycle for cycle in cycles if cycle.stable]
    assert len(stable) == 1
    wanted = np.cos(2 * np.pi * np.arange(period) / period)
    turned = [np.roll(stable[0].outputs[:, 0], k) for k in range(period)]
    assert min(np.abs(one - wanted).max() for one in turned) < 0.05

    family = ssntk.Family.between(untrained, network)
    sweep = ssntk.Sweep(
        family, towards=TOWARDS[period], span=(0, 1), distances=DISTANCES, probe=ssntk.Probe(np.arange(41.0)), u=U
    )
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    data = {name: values[::-1] for name, values in store.arrays().items()}
    np.testing.assert_array_equal(data["distance"], DISTANCES)
    assert (data["status"] == "done").all()
    (point,) = sweep.follow().bifurcations
    # A piecewise-linear map is linear beside its fixed points: nothing there says what is born.
    assert point.criticality == (None if name == "plrnn" else "supercritical")
    frequency = data["channel_frequency"]
    if period == 2:
        np.testing.assert_allclose(frequency, np.pi, rtol=1e-12)
    constant, driven, edge = [], [], []
    for i, (parameter, x) in enumerate(zip(data["parameter"], data["x_star"], strict=True)):
        model = family(parameter)
        np.testing.assert_allclose(model.advance(0.0, jnp.asarray(x), jnp.ones(1)), x, atol=1e-12)
        by_x, by_theta = linear_parts(model, jnp.asarray(x))
        multipliers = np.linalg.eigvals(by_x)
        recorded = data["channel_critical_eigenvalue"][i]
        # Far from the point another multiplier may be the largest.
        critical = multipliers[np.argmin(np.abs(multipliers - recorded))]
        assert data["distance"][i] > 5e-3 or abs(critical) > (1 - 1e-12) * np.abs(multipliers).max()
        np.testing.assert_allclose([recorded.real, abs(recorded.imag)], [critical.real, abs(critical.imag)], atol=1e-9)
        np.testing.assert_allclose(frequency[i], abs(np.angle(critical)), rtol=1e-9)
        edge.append(1 - abs(critical))
        n, turn = len(x), np.exp(1j * frequency[i])
        constant.append(top(np.linalg.solve(np.eye(n) - by_x, by_theta)))
        driven.append(top(np.linalg.solve(turn * np.eye(n) - by_x, by_theta)))
        kernel = ssntk.frequency_ntk(model, x, frequency[i : i + 1], u=U)[0]
        np.testing.assert_allclose(np.linalg.eigvalsh(kernel)[-1], driven[-1], rtol=1e-6)
    np.testing.assert_allclose(data["steady_state_eigenvalues"][:, 0], constant, rtol=1e-8)
    # The multiplier meets the unit circle at a finite speed. Terms of the second order are below 1 % from 1e-3 on.
    near = data["distance"] < 5e-3
    reach = np.array(edge) / data["distance"]
    np.testing.assert_allclose(reach[near], reach[-1], rtol=0.01)
    # A constant change of the parameters is not amplified; one at the critical frequency is, by 1 / (1 - |m|).
    np.testing.assert_allclose(np.array(constant)[near], constant[-1], rtol=0.01)
    slopes = np.diff(np.log(driven)) / np.diff(np.log(data["distance"]))
    np.testing.assert_allclose(slopes[near[:-1]], -2.0, atol=0.003)
    axes = ssntk.plot.collapse(store)
    axes[0].figure.canvas.draw()
    ssntk.plot.plt.close(axes[0].figure)


def moved_states(model, x, move, sign, steps):
    """The state after `steps` from x, with all weights moved by `move`, and by `sign * move` in every second step."""
    weights, step = weights_and_step(model)

    def one(x, t):
        return step(weights + jnp.where(t % 2 == 0, 1.0, sign) * move, x), None

    return jax.lax.scan(one, x, jnp.arange(steps))[0]


@pytest.mark.slow
def test_a_flip_answers_parameters_that_alternate():
    """Simulated: each weight moves by 1e-8 up and down in turn, or stays moved, until the states repeat themselves."""
    untrained = NETWORKS["gru"](jax.random.key(1))
    family = ssntk.Family.between(untrained, trained(untrained, 2, 400)[0])
    sweep = ssntk.Sweep(
        family, towards="flip", span=(0, 1), distances=[1e-1, 1e-2, 1e-3], probe=ssntk.Probe([0.0, 1.0]), u=U
    )
    side, found = sweep.side(sweep.follow()), []
    for i, distance in enumerate(sweep.distances):
        parameter, measured = sweep.measure(side, i)
        model, x = family(parameter), jnp.asarray(measured.x_star)
        # |m| is about 1 - 2.6 d: after 12 / d steps the transient is exp(-31) of what it was. The number is even.
        steps, p = 2 * round(6 / distance), len(weights_and_step(model)[0])
        for omega, sign in ((0.0, 1.0), (np.pi, -1.0)):
            states = jax.jit(jax.vmap(moved_states, (None, None, 0, None, None)), static_argnums=4)
            response = (np.asarray(states(model, x, 1e-8 * jnp.eye(p), sign, steps)) - np.asarray(x)).T / 1e-8
            kernel = ssntk.frequency_ntk(model, x, [omega], u=U)[0]
            np.testing.assert_allclose(top(response), np.linalg.eigvalsh(kernel)[-1], rtol=1e-4)
            found.append(top(response))
    bounded, growing = np.reshape(found, (3, 2)).T
    assert bounded.max() < 1.2 * bounded.min()
    np.testing.assert_allclose(np.diff(np.log10(growing)), 2.0, atol=0.06)
