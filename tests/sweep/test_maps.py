"""Sweeps towards bifurcations of maps: a flip and a Neimark-Sacker point in closed form, under inputs that drive them."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import ssntk
from ssntk import laws

matplotlib.use("agg")


def flip(t, x, u, p):
    """x -> m x + x^3 + h + a u, with the flip at m = -1."""
    return (p["m"] - 1) * x + x**3 + p["h"] + p["a"] * u


def test_towards_a_flip(tmp_path):
    steps = 4000
    model = ssntk.EulerMap(ssntk.VectorField(flip, {"m": -0.5, "h": 0.0, "a": 0.0}, 1, 1), 1.0)
    sweep = ssntk.Sweep(
        ssntk.Family(model, lambda m: m.params["m"]),
        towards="flip",
        span=(-0.5, -1.5),
        distances=[1e-1, 3e-2, 1e-2],
        # sin(pi k + pi / 2) alternates.
        probe=ssntk.Probe(np.arange(steps + 1.0), ssntk.Sinusoid([[1.0]], None, np.pi / 2)),
        blocks={"a": lambda m: m.params["a"], "h": lambda m: m.params["h"]},
    )
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    data = store.arrays()
    assert (data["status"] == "done").all()
    m = -1 + data["distance"]
    np.testing.assert_allclose(data["jacobian_eigenvalues"][:, 0], m, rtol=1e-9)
    np.testing.assert_allclose(data["channel_critical_eigenvalue"], m, rtol=1e-9)
    # Over 4000 steps the transient of 1 / (1 - |m|) <= 100 steps counts for less than 4 %.
    alternating, constant = (data["block_eigenvalues"][:, i, 0] / steps for i in (0, 1))
    np.testing.assert_allclose(alternating, laws.flip_steady_state(m), rtol=0.04)
    np.testing.assert_allclose(constant, laws.flip_steady_state(m, "constant"), rtol=0.04)
    # In one dimension everything lies along the critical direction. Only a is driven.
    np.testing.assert_allclose(data["channel_predicted_top_eigenvalue"], data["channel_top_eigenvalue"], rtol=1e-6)
    np.testing.assert_allclose(data["channel_drive"], 1.0, rtol=1e-3)
    np.testing.assert_allclose(data["block_channel_participation_ratio"], [[1.0, 0.0]] * 3)
    np.testing.assert_allclose(data["steady_state_eigenvalues"][:, 0], 1 / (1 - m) ** 2, rtol=1e-9)
    axes = ssntk.plot.collapse(store)
    decay = next(line for line in axes[1].get_lines() if line.get_label() == "largest multiplier m")
    np.testing.assert_allclose(decay.get_ydata(), -np.log(np.abs(m)), rtol=1e-9)
    ssntk.plot.plt.close(axes[0].figure)


def test_towards_a_neimark_sacker_point_that_the_step_has_moved():
    omega, dt = 1.0, 0.2
    family = ssntk.Family(ssntk.EulerMap(ssntk.normal_forms.hopf(0.0, omega), dt), "mu")
    sweep = ssntk.Sweep(
        family,
        towards="neimark-sacker",
        span=(-0.5, 0.2),
        distances=[1e-2],
        probe=ssntk.Probe(dt * np.arange(101.0), x0=[1e-3, 0.0]),
        wrt=lambda m: (m.mu, m.omega),
    )
    side = sweep.side(sweep.follow())
    np.testing.assert_allclose(side.bifurcation.parameter, laws.euler_hopf(omega, dt), rtol=1e-12)
    parameter, point = sweep.measure(side, 0)
    multiplier = 1 + dt * (parameter + 1j * omega)
    np.testing.assert_allclose(point.channel.critical_eigenvalue, multiplier, rtol=1e-9)
    # s_k = k dt m^(k-1) z0, for mu and i times that for omega: a double eigenvalue.
    k = np.arange(101)
    weights = np.full(101, dt)
    weights[[0, -1]] /= 2
    expected = np.sum(weights * (1e-3 * k * dt * np.abs(multiplier) ** (k - 1.0)) ** 2)
    # The cubic term is of relative order |z0|^2 / |mu|.
    np.testing.assert_allclose(np.asarray(point.trajectory.eigenvalues)[:2], expected, rtol=1e-3)
    assert point.channel.kind == "pair"


def test_a_plan_for_a_map_is_checked():
    model = ssntk.EulerMap(ssntk.CTRNN.from_weights(jnp.eye(2) * 0.5), 0.5)
    family = ssntk.Family(model, lambda m: m.model.gain)

    def plan(**changes):
        how = {"towards": "saddle-node", "span": (0.0, 1.0), "distances": [0.1], "probe": ssntk.Probe([0.0, 1.0])}
        return ssntk.Sweep(family, **how | changes)

    with pytest.raises(ValueError, match="towards must be one of"):
        plan(towards="hopf")
    with pytest.raises(ValueError, match="whole steps"):
        plan(probe=ssntk.Probe([0.0, 0.7]))
    with pytest.raises(ValueError, match="integrator must be None for a map"):
        plan(integrator=ssntk.Integrator())
    other = ssntk.Family(ssntk.EulerMap(model.model, 0.25), lambda m: m.model.gain)
    changed = ssntk.Sweep(other, towards="saddle-node", span=(0.0, 1.0), distances=[0.1], probe=ssntk.Probe([0.0, 1.0]))
    assert plan().hash() == plan().hash() != changed.hash()
