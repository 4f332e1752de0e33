"""Inputs that are held between samples: against one solve for each interval, and every way to the kernel.

Compiles solves of one network of five units, with three solvers.
"""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some

import ssntk
from ssntk.dynamics.integrate import solve, steps_of
from ssntk.kernel.sites import opened

TS = np.array([0.0, 0.7, 1.0, 2.5, 3.3])
US = np.random.default_rng(0).normal(size=(2, 5, 2))
NETWORK = ssntk.CTRNN(5, 2, 1, gain=1.2, key=jr.key(0))
HELD = ssntk.Probe(TS, US, hold=True)
FINE = ssntk.Integrator(rtol=1e-11, atol=1e-13)
# Few stages, which compile fast.
QUICK = ssntk.Integrator(solver=diffrax.Bosh3())
CELL = ssntk.GRUCell(2, 4, 1, key=jr.key(1))


def piecewise(model, probe, integrator):
    """The states (B, T, n), one solve under a constant input for each save interval."""
    found = []
    for b in range(2):
        states = [np.zeros(model.n_state)]
        for k in range(len(TS) - 1):
            one = ssntk.Probe(TS[k : k + 2], US[b : b + 1, k], states[-1])
            states.append(np.asarray(ssntk.simulate(model, one, integrator=integrator)[0, -1]))
        found.append(states)
    return np.array(found)


@pytest.mark.parametrize(
    ("integrator", "close"),
    [
        (FINE, 1e-10),
        (ssntk.Integrator(dt=0.05), 1e-8),
        pytest.param(ssntk.Integrator(solver=diffrax.Kvaerno5(), dt=0.05), 1e-7, marks=pytest.mark.slow),
    ],
)
def test_a_flow_is_solved_interval_by_interval(integrator, close):
    expected = piecewise(NETWORK, HELD, FINE)
    np.testing.assert_allclose(ssntk.simulate(NETWORK, HELD, integrator=integrator), expected, atol=close)
    # Linear interpolation is another input.
    assert np.abs(ssntk.simulate(NETWORK, ssntk.Probe(TS, US), integrator=integrator) - expected).max() > 1e-2


@pytest.mark.slow
def test_the_steps_do_not_see_the_jumps():
    def steps(probe):
        fitted = probe.fit(NETWORK)
        integrator, grid = steps_of(NETWORK, None, fitted)
        return int(solve(NETWORK, fitted, 0, integrator, grid).saved[-1])

    # The input is constant in each interval, so that an adaptive solver takes about as many steps as for each by itself.
    states = np.asarray(ssntk.simulate(NETWORK, HELD)[0])
    apart = [steps(ssntk.Probe(TS[k : k + 2], US[:1, k], states[k])) for k in range(len(TS) - 1)]
    assert steps(HELD) <= sum(apart) + len(apart)


@pytest.mark.parametrize("method", some(["segments", "rows", "chunks"], {"segments"}))
def test_every_method_gives_one_derivative(method):
    expected, found = (
        ssntk.parameter_jacobian(NETWORK, HELD, method=each, integrator=QUICK) for each in ("autodiff", method)
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.slow
def test_the_derivative_is_that_of_the_solve():
    J = ssntk.parameter_jacobian(NETWORK, HELD, wrt=lambda m: m.bias, integrator=FINE)

    def states(bias):
        return ssntk.simulate(
            ssntk.CTRNN.from_weights(NETWORK.weight, NETWORK.input_weight, bias, gain=1.2), HELD, integrator=FINE
        )

    step = 1e-5
    for i in range(5):
        aside = step * np.eye(5)[i]
        np.testing.assert_allclose(J[..., i], (states(aside) - states(-aside)) / (2 * step), atol=1e-8)


def test_the_kernel_by_sites(monkeypatch):
    monkeypatch.setattr(opened, "LEAST", 2)
    rows = np.asarray(ssntk.parameter_jacobian(NETWORK, HELD, integrator=QUICK)).reshape(50, -1)
    found = ssntk.ntk(NETWORK, HELD, method="sites", integrator=QUICK)
    np.testing.assert_allclose(found, rows @ rows.T, atol=1e-10)


def test_maps_hold_over_several_steps():
    probe = ssntk.Probe([0.0, 2.0, 3.0], US[:1, :3], hold=True)
    x = jnp.zeros(4)
    for u in (US[0, 0], US[0, 0], US[0, 1]):
        x = CELL.step(x, u)
    np.testing.assert_allclose(ssntk.simulate(CELL, probe)[0, -1], x, atol=1e-15)


def test_the_identity_of_a_plan():
    def plan(**how):
        probe = ssntk.Probe([0.0, 1.0], US[:, :2], **how)
        family = ssntk.Family.input(NETWORK, [1.0, 0.0])
        return ssntk.Sweep(family, towards="saddle-node", span=(0.0, 1.0), distances=[1e-2], probe=probe).hash()

    assert plan() == plan(hold=False)
    assert plan() != plan(hold=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((TS, US[:, 0]), "hold needs inputs us"), ((TS,), "hold needs"), ((TS, lambda t: jnp.zeros((1, 2))), "hold needs")],
)
def test_only_samples_can_be_held(arguments, said):
    with pytest.raises(ValueError, match=said):
        ssntk.Probe(*arguments, hold=True)
    with pytest.raises(ValueError, match=r"^hold must"):
        ssntk.Probe(TS, US, hold="yes")


@pytest.mark.parametrize("shape", some(["time", "trial", "row"], {"row"}))
def test_targets_may_be_unknown_where_they_are_masked(shape):
    random = np.random.default_rng(1)
    seen = random.random({"time": (5,), "trial": (2, 5), "row": (2, 5, 1)}[shape]) < 0.6
    probe = ssntk.Probe(TS, US, mask=seen, hold=True)
    targets = random.normal(size=(2, 5, 1))
    whole = np.broadcast_to(seen[None, :, None] if shape == "time" else seen.reshape(2, 5, 1), targets.shape)
    unknown = np.where(whole, targets, np.nan)
    asked = {"of": "readout", "integrator": QUICK}
    found, expected = (ssntk.linearised_training(NETWORK, probe, some, 0.1, 5, **asked) for some in (unknown, targets))
    np.testing.assert_array_equal(found.loss, expected.loss)
    with pytest.raises(ValueError, match=r"^targets must be finite"):
        ssntk.linearised_training(NETWORK, probe, np.where(whole, np.nan, targets), 0.1, 5, **asked)


@pytest.mark.parametrize("make", some([ssntk.GRUCell, ssntk.LSTMCell], [ssntk.GRUCell]))
def test_steps_and_held_samples_are_one(make):
    cell = make(2, 3, 1, key=jr.key(2))
    one = ssntk.simulate(cell, ssntk.Probe.steps(US))
    held = ssntk.Probe(np.arange(6.0), np.concatenate([US, US[:, -1:]], axis=1), hold=True)
    np.testing.assert_allclose(one, ssntk.simulate(cell, held), atol=1e-15)
    x = jnp.zeros(cell.n_state)
    for u in US[0]:
        x = cell.step(x, u)
    np.testing.assert_allclose(one[0, -1], x, atol=1e-15)
    assert jax.tree.leaves(one)[0].shape == (2, 6, cell.n_state)
