"""Trained networks that oscillate: their cycle, its branch over the gain, and its stability against simulation. Compiled:
shooting for networks of 60 units, and of 250 with -m slow."""

import numpy as np
import published
import pytest
from oscillators import monodromy, nontrivial
from published import needed

import ssntk


def sine_generator(seed, n=60, period=15.0):
    """x' = -x + W tanh(x) with a readout that was trained to be sin(2 pi t / period), and is fed back.

    A random network is driven by the sine for 40 periods, and the readout is fitted by ridge regression (Jaeger and Haas,
    Science 304 (2004) 78)."""
    rng = np.random.default_rng(seed)
    weight, back = 1.2 * rng.normal(size=(n, n)) / np.sqrt(n), rng.uniform(-1, 1, n)
    step, x, rates, wanted = 0.02, np.zeros(n), [], []
    for i in range(int(40 * period / step)):
        target = np.sin(2 * np.pi * i * step / period)
        if i * step > 10 * period:
            rates.append(np.tanh(x))
            wanted.append(target)
        x = x + step * (-x + weight @ np.tanh(x) + back * target)
    rates = np.array(rates)
    readout = np.linalg.solve(rates.T @ rates + 1e-3 * len(rates) * np.eye(n), rates.T @ np.array(wanted))
    return ssntk.CTRNN.from_weights(weight + np.outer(back, readout), readout_weight=readout[None], form="current"), x


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_sine_generator_that_was_trained_here(seed):
    period = 15.0
    network, x = sine_generator(seed, period=period)
    orbit = ssntk.limit_cycle(network, x)
    assert orbit.stable
    np.testing.assert_allclose(orbit.period, period, rtol=0.02)
    # The readout is the sine that it was trained on.
    outputs = orbit.outputs[:, 0]
    assert 0.9 < np.ptp(outputs) / 2 < 1.1
    # Its multipliers are those of SciPy's integration.
    state, matrix = monodromy(network, orbit)
    np.testing.assert_allclose(state, orbit.x[0], atol=1e-8)
    np.testing.assert_allclose(np.abs(orbit.multipliers[:3]), np.abs(nontrivial(matrix)[:3]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_its_branch_over_the_gain_and_what_simulations_end_on(seed):
    network, x = sine_generator(seed)
    of = ssntk.Family(network, "gain")
    branch = ssntk.cycle_continuation(of, ssntk.limit_cycle(network, x), (1.0, 0.5))
    assert branch.end is not None or branch.parameter[-1] == 0.5
    for i in np.linspace(0, len(branch) - 1, 4).astype(int):
        _, matrix = monodromy(of(branch.parameter[i]), branch[i])
        largest = np.abs(nontrivial(matrix)[0])
        if abs(largest - 1) > 1e-3:
            assert branch.stable[i] == (largest < 1)
        if largest < 0.5:
            settled = ssntk.limit_cycle(of(branch.parameter[i]), 1.01 * branch[i].x[0])
            np.testing.assert_allclose(settled.period, branch.period[i], rtol=1e-6)


@needed
@pytest.mark.slow
@pytest.mark.parametrize("u", [[0.0], [0.5]])
def test_a_published_sine_generator_of_250_units(u):
    network = published.sine_generator()
    orbit = ssntk.limit_cycle(network, 0.1 * np.ones(250), u=u)
    assert orbit.stable
    of = ssntk.Family(network, "gain")
    branch = ssntk.cycle_continuation(of, orbit, (1.0, 0.9), max_steps=4)
    for one, gain in zip(branch.orbits, branch.parameter, strict=True):
        # Another solver, at tight tolerances, returns to where it began.
        path = ssntk.simulate(of(gain), ssntk.Probe([0.0, one.period], [u], x0=one.x[0]))
        np.testing.assert_allclose(path[0, -1], one.x[0], atol=1e-6)
