import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import QUICK, ROOT, flip_flop, fold_sweep, network_sweep

import ssntk
from ssntk.collapse.exponent import measured_exponent

nf = ssntk.normal_forms


def test_points_of_the_normal_form_by_the_closed_form(tmp_path):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    data = store.to_xarray()
    mu = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(data.distance, mu, rtol=1e-12)
    np.testing.assert_allclose(data.parameter, mu, rtol=1e-10)
    np.testing.assert_allclose(data.x_star[:, 0], np.sqrt(mu), rtol=1e-10)
    np.testing.assert_allclose(data.jacobian_eigenvalues[:, 0], -2 * np.sqrt(mu), rtol=1e-10)
    np.testing.assert_allclose(data.steady_state_eigenvalues[:, 0], 1 / (4 * mu), rtol=1e-9)
    np.testing.assert_allclose(data.condition_number, 1.0)
    assert data.status.values.tolist() == ["done"] * 4
    assert set(data.dims) >= {"point", "mode"}
    for name in ("trajectory_condition_number", "trajectory_condition_number_is_bound", "trace", "seconds", "top_share"):
        assert data[name].dims == ("point",)
    # With one parameter, the trajectory kernel has rank one at every distance.
    np.testing.assert_allclose(data.effective_rank, 1.0, atol=1e-9)


def asymptotic_exponents(sweep):
    """(slope, exponent with the next term) of the top steady-state eigenvalue over the sweep's last three decades."""
    branch = sweep.follow()
    side = sweep.side(branch)
    tops = []
    for index in range(len(sweep.distances)):
        _, measured = sweep.measure(side, index)
        tops.append(float(measured.steady_state.eigenvalues[0]))
    return [measured_exponent(sweep.distances, np.array(tops), next_order=order) for order in (None, 0.5)]


@pytest.mark.slow
def test_slope_law_on_ten_seeds_that_nobody_picked():
    distances, measured = np.geomspace(1e-4, 1e-7, 5), {}
    for seed in range(1000, 1100):
        try:
            measured[seed] = asymptotic_exponents(network_sweep(seed, distances=distances))
        except ssntk.NumericalError as error:
            # Many random networks have no fold on this branch, or none that ends a stable part of it.
            if "no saddle-node" not in str(error) and "no stable side" not in str(error):
                raise
        if len(measured) == 10:
            break
    slopes, exponents = np.array(list(measured.values())).T
    # The O(sqrt(distance)) term of a generic fold is fitted too, so that the error is of order distance.
    np.testing.assert_allclose(exponents, -1.0, atol=0.01)
    # The error of the plain slope is c * 0.01 / ln(1e3), with a coefficient c that is below 7 for most networks.
    assert np.median(np.abs(slopes + 1)) < 0.01
    np.testing.assert_allclose(slopes, -1.0, atol=0.05)


@pytest.mark.slow
def test_the_shown_network(tmp_path):
    sweep = ssntk.Sweep.from_toml(ROOT / "sweeps" / "saddle_node.toml")
    branch = sweep.follow()
    side = sweep.side(branch)
    measured = [sweep.measure(side, index)[1] for index in (0, len(sweep.distances) - 1)]
    # Several modes at the start, one at the end.
    assert float(measured[0].trajectory.participation_ratio) > 5
    assert float(measured[1].trajectory.participation_ratio) < 1.05
    slope, _ = asymptotic_exponents(network_sweep(7, distances=np.geomspace(1e-4, 1e-7, 7)))
    assert abs(slope + 1) < 0.01


@pytest.mark.slow
def test_the_trained_network_slope_law():
    model = flip_flop()
    for x in ssntk.find_fixed_points(model).x[:4]:
        towards = -float(np.sign(model.readout(jnp.asarray(x))[0]))
        sweep = ssntk.Sweep(
            ssntk.Family.input(model, [1.0, 0.0]),
            towards="saddle-node",
            span=(0.0, 0.5 * towards),
            distances=np.geomspace(1e-4, 1e-7, 7),
            probe=ssntk.Probe([0.0, 1.0]),
            x0=x,
        )
        slope, exponent = asymptotic_exponents(sweep)
        assert abs(slope + 1) < 0.01
        assert abs(exponent + 1) < 0.001


def test_two_events_in_one_step_keep_their_own_sides():
    # x' = p + e x - x^3: two folds at x = +-sqrt(e/3), p = -+ (2/3) e sqrt(e/3), a distance of 1e-5 apart for e = 1e-3.
    def field(t, x, u, p):
        return jnp.stack([p + 1e-3 * x[0] - x[0] ** 3, -x[1] + 0.3 * x[0]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    for index, sign in ((0, -1.0), (1, 1.0)):
        sweep = ssntk.Sweep(
            family, towards="saddle-node", span=(-1.0, 1.0), distances=[1e-2], probe=ssntk.Probe([0.0, 1.0]), index=index
        )
        parameter, x = sweep.side(sweep.follow()).at_distance(1e-2)
        roots = np.roots([-1.0, 0.0, 1e-3, parameter])
        (root,) = roots.real[np.abs(roots.imag) < 1e-9]
        assert np.sign(parameter) == sign
        np.testing.assert_allclose(x[0], root, rtol=1e-10)


def test_hopf_sweep_and_constant_input(tmp_path):
    # The parameter comes from the constant input: mu = p - 0.5 with u = -0.5.
    def field(t, x, u, p):
        return (p + u[0] - x @ x) * x + 2.0 * jnp.stack([-x[1], x[0]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2, 1), lambda m: m.params)
    sweep = ssntk.Sweep(
        family,
        towards="hopf",
        span=(0.0, 1.0),
        distances=[0.1, 0.01],
        probe=ssntk.Probe([0.0, 1.0]),
        u=[-0.5],
        integrator=QUICK,
    )
    data = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False).to_xarray()
    np.testing.assert_allclose(data.parameter, [0.49, 0.4], rtol=1e-12)
    np.testing.assert_allclose(data.jacobian_eigenvalues[:, 0], [-0.01 + 2j, -0.1 + 2j], rtol=1e-10)


def test_a_failed_point_is_recorded_and_the_sweep_goes_on(tmp_path):
    sweep = fold_sweep(distances=[5.0, 1e-2])
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    status = store.status()
    assert (status.done, list(status.failed), status.missing) == ((1,), [0], ())
    assert "reaches only" in status.failed[0]
    data = store.to_xarray()
    assert np.isnan(data.condition_number[1])
    assert np.isnan(data.x_star[1]).all()
    assert data.status.values[1].startswith("failed: ")


def test_a_diverging_trajectory_is_a_failed_point(tmp_path):
    sweep = fold_sweep(probe=ssntk.Probe([0.0, 10.0, 20.0], x0=[-5.0]), integrator=ssntk.Integrator(dt=0.5))
    store = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False)
    assert len(store.status().failed) == 4


def test_arguments_of_a_sweep():
    for change, match in [
        ({"towards": "cusp"}, "towards"),
        ({"span": (1.0, 1.0)}, "span"),
        ({"distances": []}, "distances"),
        ({"distances": [1.0, 1.0]}, "distances"),
        ({"index": -1}, "index"),
        ({"of": "output"}, "of must"),
        ({"x0": [1.0, 2.0]}, "x0"),
        ({"u": [1.0]}, "u must"),
        ({"step": 0.0}, "step"),
        ({"wrt": lambda m: m.nu}, "wrt"),
        ({"probe": ssntk.Probe([0.0, 1.0], mask=np.ones((1, 2, 3), bool))}, "mask"),
    ]:
        with pytest.raises(ValueError, match=match):
            fold_sweep(**change)


def test_measure(tmp_path):
    measured = ssntk.measure(nf.saddle_node(0.25), ssntk.Probe(np.linspace(0.0, 4.0, 201)), [0.45])
    np.testing.assert_allclose(measured.x_star, [0.5], rtol=1e-14)
    np.testing.assert_allclose(measured.steady_state.eigenvalues, [1.0], rtol=1e-12)
    # T^3 g(|lambda| T) with lambda = -1; the trapezoid rule at dt = 0.02 is good to 1e-4.
    expected = 4.0 - 2 * (1 - np.exp(-4.0)) + (1 - np.exp(-8.0)) / 2
    np.testing.assert_allclose(measured.trajectory.eigenvalues[0], expected, rtol=1e-4)
    with pytest.raises(ssntk.NumericalError, match="no fixed point"):
        ssntk.measure(nf.saddle_node(-1.0), ssntk.Probe([0.0, 1.0]), [0.1])


def test_a_kernel_without_a_channel_keeps_its_spectra(tmp_path):
    # Towards a pitchfork, of a parameter that is all but absent: its squares are below the smallest number.
    field = ssntk.VectorField(lambda t, x, u, p: p["mu"] * x - x**3 + 1e-120 * p["h"], {"mu": -1.0, "h": 0.0}, 1)
    sweep = ssntk.Sweep(
        ssntk.Family(field, lambda m: m.params["mu"]),
        towards="pitchfork",
        span=(-1.0, 0.5),
        distances=[0.1, 0.01],
        probe=ssntk.Probe([0.0, 1.0, 2.0]),
        wrt=lambda m: m.params["h"],
    )
    data = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False).arrays()
    assert (data["status"] == "done").all()
    np.testing.assert_allclose(data["steady_state_eigenvalues"][:, 0], 1e-240 / data["distance"] ** 2, rtol=1e-6)
    assert (data["channel_method"] == "fixed point").all()
    assert (data["channel_kind"] == "real").all()
    assert all("fixed point" in reason for reason in data["channel_reason"])


def test_a_solve_that_runs_out_of_steps_says_so():
    model = ssntk.CTRNN(4, 1, 1, gain=0.5, key=jr.key(0))
    probe = ssntk.Probe(np.linspace(0.0, 20.0, 5), us=np.ones((1, 1)))
    with pytest.raises(ssntk.NumericalError, match=r"input 0 failed .* maximum number of solver steps was reached"):
        ssntk.measure(model, probe, np.zeros(4), integrator=ssntk.Integrator(max_steps=3))
