"""Spectra are the same in all units under a common factor, and under any units in their metric."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import seeds, some

import ssntk


def tanh_field(t, z, u, params):
    """A network of tanh units whose states are measured in units of S and whose time in units of 1 / c."""
    x = z / params["S"]
    return params["S"] * params["c"] * (-x + params["W"] @ jnp.tanh(x) + params["V"] @ u + params["b"])


def network(seed, scale=1.0, rate=1.0, n=4):
    keys = jr.split(jr.key(seed), 3)
    params = {
        "W": 0.8 * jr.normal(keys[0], (n, n)) / n**0.5,
        "V": jr.normal(keys[1], (n, 2)),
        "b": 0.3 * jr.normal(keys[2], (n,)),
        "S": jnp.asarray(scale) * jnp.ones(n),
        "c": rate,
    }
    return ssntk.VectorField(tanh_field, params, n, 2)


def weights(model):
    return model.params["W"], model.params["b"]


def driven(seed, rate=1.0):
    return ssntk.Probe(jnp.linspace(0.0, 6.0, 4) / rate, jr.normal(jr.key(seed + 50), (2, 4, 2)))


def units(seed, n=4):
    return 10.0 ** np.random.default_rng(seed).uniform(-6, 6, n)


def ratios(spectrum):
    return np.array([spectrum.participation_ratio, spectrum.top_share, spectrum.effective_rank])


def fixed(rate=1.0):
    """Steps that are the same in all units: the default tolerance of adaptive ones is absolute."""
    return ssntk.Integrator(dt=0.05 / rate)


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_spectra_of_trajectories(seed):
    expected = ssntk.ntk_spectrum(network(seed), driven(seed), wrt=weights, integrator=fixed())
    metric = units(seed)
    for scale, rate, given in ((1e-6, 1.0, None), (1e6, 1e-6, None), (metric, 1e4, metric)):
        model, probe = network(seed, scale, rate), driven(seed, rate)
        found = ssntk.ntk_spectrum(model, probe, wrt=weights, scale=given, integrator=fixed(rate))
        np.testing.assert_allclose(ratios(found), ratios(expected), rtol=1e-6)
        relative = [one.eigenvalues[:6] / one.eigenvalues[0] for one in (found, expected)]
        np.testing.assert_allclose(*relative, rtol=1e-5, atol=1e-9)
        # K in units of the squared state.
        np.testing.assert_allclose(
            found.eigenvalues[0] / (1.0 if given is not None else scale**2), expected.eigenvalues[0], rtol=1e-6
        )


@pytest.mark.parametrize("scale", some([1e-6, 1.0, 1e6, "mixed"], ["mixed"]))
def test_adaptive_steps_in_the_units_of_the_states(scale):
    """Adaptive steps against fixed steps that are a hundred times as accurate. With an absolute tolerance the adaptive ones
    would have an error of 1e-4."""
    scale = units(2) if scale == "mixed" else scale
    model, probe, loose = network(1, scale), driven(1), ssntk.Integrator(atol=None)
    x = np.asarray(ssntk.simulate(model, probe, integrator=loose)) / scale
    np.testing.assert_allclose(x, ssntk.simulate(network(1), driven(1), integrator=fixed()), rtol=0, atol=1e-8)
    rows = ssntk.parameter_jacobian(model, probe, wrt=weights, integrator=loose)
    rows = np.asarray(rows) / np.broadcast_to(scale, 4)[:, None]
    exact = np.asarray(ssntk.parameter_jacobian(network(1), driven(1), wrt=weights, integrator=fixed()))
    np.testing.assert_allclose(rows, exact, rtol=0, atol=1e-7 * np.abs(exact).max())


def test_tolerances_that_are_not_known_yet():
    with pytest.raises(ValueError, match=r"integrator\.atol must be a number while JAX traces"):
        eqx.filter_jit(lambda model: ssntk.simulate(model, driven(1), integrator=ssntk.Integrator(atol=None)))(network(1))
    with pytest.raises(ValueError, match="rtol must be a positive number, got None"):
        ssntk.Integrator(rtol=None)


def test_the_metric_divides_rows_and_every_way_to_the_kernel_does_it():
    model, probe, metric = network(0), driven(0), units(3)
    halves = {"integrator": ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)}
    at_ten, plain = ssntk.ntk(model, probe, scale=10.0, **halves), ssntk.ntk(model, probe, **halves)
    # One number for all states divides the kernel by its square.
    np.testing.assert_allclose(at_ten, plain / 100, rtol=1e-9)
    rows = np.asarray(ssntk.parameter_jacobian(model, probe, **halves)) / metric[:, None]
    rows = rows.reshape(-1, rows.shape[-1])
    kernel = rows @ rows.T
    size = np.sqrt(np.diag(kernel))
    at = np.where(size > 0, size, 1.0)
    for found in (
        ssntk.ntk(model, probe, scale=metric, **halves),
        ssntk.ntk(model, probe, probe, scale=metric, **halves),
        ssntk.ntk(model, probe, scale=metric, batch_size=1, **halves),
        ssntk.ntk_operator(model, probe, scale=metric, **halves).as_matrix(),
    ):
        np.testing.assert_allclose(found / np.outer(at, at), kernel / np.outer(at, at), atol=1e-9)
    large = ssntk.CTRNN(32, 2, 1, key=jr.key(0))
    wide, short = units(5, 32), ssntk.Probe(jnp.linspace(0.0, 1.0, 2), np.ones((1, 2)))
    halves["scale"] = wide
    by_sites, by_rows = (ssntk.ntk(large, short, method=method, **halves) for method in ("sites", "segments"))
    each = np.tile(wide, 2)
    np.testing.assert_allclose(by_sites * np.outer(each, each), by_rows * np.outer(each, each), rtol=1e-9, atol=1e-9)
    for memory in (1.0, 1e9):
        top = ssntk.ntk_spectrum(large, short, k=2, memory=memory, exact=True, **halves)
        np.testing.assert_allclose(top.eigenvalues, np.linalg.eigvalsh(by_rows)[:-3:-1], rtol=1e-6)
        np.testing.assert_allclose(top.trace, np.trace(by_rows), rtol=1e-9)
    with pytest.raises(ValueError, match="scale must be None with of='readout'"):
        ssntk.ntk(model, probe, of="readout", scale=metric)
    with pytest.raises(ValueError, match="scale must be positive"):
        ssntk.ntk(model, probe, scale=-metric)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_measurements_and_steady_states(seed):
    x = ssntk.find_fixed_points(network(seed), n_starts=8).x[0]
    metric = units(seed + 7)
    plain = ssntk.measure(network(seed), driven(seed), x, wrt=weights, integrator=fixed())
    steady = ssntk.steady_state_ntk(network(seed), x, wrt=weights)
    for scale, rate, given in ((1e-6, 1e6, None), (1e6, 1.0, None), (metric, 1e-5, metric)):
        model = network(seed, scale, rate)
        found = ssntk.measure(model, driven(seed, rate), x * scale, wrt=weights, scale=given, integrator=fixed(rate))
        np.testing.assert_allclose(ratios(found.trajectory), ratios(plain.trajectory), rtol=1e-6)
        np.testing.assert_allclose(found.steady_state.condition_number, plain.steady_state.condition_number, rtol=1e-6)
        np.testing.assert_allclose(ratios(found.steady_state), ratios(plain.steady_state), rtol=1e-6)
        np.testing.assert_allclose(found.jacobian_eigenvalues / rate, plain.jacobian_eigenvalues, rtol=1e-7)
        assert found.channel is not None
        assert plain.channel is not None
        for name in ("share", "oblique_share", "cross_share", "nonnormality", "alignment", "mismatch"):
            np.testing.assert_allclose(getattr(found.channel, name), getattr(plain.channel, name), rtol=1e-5, atol=1e-6)
        kernel = np.asarray(ssntk.steady_state_ntk(model, x * scale, wrt=weights, scale=given))
        np.testing.assert_allclose(kernel / (1.0 if given is not None else scale**2), steady, rtol=1e-8, atol=1e-12)
    # Rows of the readout stay as they are; the steady state is that of the states.
    readout = ssntk.measure(network(seed), driven(seed), x, wrt=weights, of="readout")
    scaled = ssntk.measure(network(seed), driven(seed), x, wrt=weights, of="readout", scale=metric)
    np.testing.assert_allclose(scaled.trajectory.eigenvalues, readout.trajectory.eigenvalues, rtol=1e-12)
    assert not np.allclose(scaled.steady_state.participation_ratio, readout.steady_state.participation_ratio, rtol=1e-3)


def test_a_steady_state_is_judged_in_units_of_its_own():
    # Rates of -1 and -2, coupled one way by a number that is large for its units alone.
    matrix = jnp.array([[-1.0, 1e18], [0.0, -2.0]])

    def field(t, x, u, params):
        return params["A"] @ x + params["b"]

    def kernel(matrix):
        model = ssntk.VectorField(field, {"A": jnp.asarray(matrix), "b": jnp.zeros(2)}, 2)
        return ssntk.steady_state_ntk(model, np.zeros(2), wrt=lambda m: m.params["b"])

    # A^-1 A^-T.
    np.testing.assert_allclose(kernel(matrix), [[2.5e35, 2.5e17], [2.5e17, 0.25]], rtol=1e-12)
    with pytest.raises(ssntk.NumericalError, match=r"singular to rounding, its smallest singular value .* balanced"):
        kernel([[-1.0, 1e18], [1e-18, -1.0]])


def test_steps_to_a_tolerance_of_modes_that_are_slower_than_rounding():
    # ln(100) / (eta lambda) but for a relative (eta lambda) / 2.
    spectrum = ssntk.Spectrum.from_jacobian(np.sqrt(np.diag([1.5, 1e-3, 1e-17])))
    found = spectrum.steps_to_tolerance(1.0, 0.01)
    np.testing.assert_allclose(found[0], np.log(100) / np.log(2), rtol=1e-12)
    np.testing.assert_allclose(found[1], np.log(100) / 1e-3 * (1 - 1e-3 / 2 - 1e-6 / 12), rtol=1e-9)
    np.testing.assert_allclose(found[2], np.log(100) / 1e-17, rtol=1e-12)
    np.testing.assert_allclose(found[2], 4.605170185988091e17, rtol=1e-12)
    left = spectrum.mode_errors(np.ones(3), 1.0, np.array([int(found[2])]))[0]
    assert abs(left[2]) == pytest.approx(0.01, rel=1e-9)
    np.testing.assert_array_equal(spectrum.steps_to_tolerance(2.0, 0.01)[0], np.inf)
