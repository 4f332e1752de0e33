import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import cubic_field

import ssntk
from ssntk.kernel import steady_state
from ssntk.kernel.steady_state import forcing, forcing_sizes, steady_state_jacobian
from ssntk.models.theta import Theta, theta_positions

nf = ssntk.normal_forms


def probes(getkey):
    ts = [0.0, 0.5, 2.0]
    return (ssntk.Probe(ts, x0=jr.normal(getkey(), (2, 3))), ssntk.Probe(ts, x0=jr.normal(getkey(), (1, 3))))


def test_ntk_is_the_product_of_jacobians(getkey):
    model = ssntk.VectorField(cubic_field, {"W": jr.normal(getkey(), (3, 3)), "b": jnp.ones(3)}, 3, 3)
    one, other = (ssntk.Probe(p.ts, np.zeros((p.n_batch, 3)), p.x0) for p in probes(getkey))
    rows, others = (np.asarray(ssntk.parameter_jacobian(model, p)).reshape(-1, 12) for p in (one, other))
    np.testing.assert_allclose(ssntk.ntk(model, one), rows @ rows.T, atol=1e-13)
    np.testing.assert_allclose(ssntk.ntk(model, one, other), rows @ others.T, atol=1e-13)
    # Trapezoid weights of uneven times, written out.
    weight = np.sqrt(np.tile(np.repeat([0.25, 1.0, 0.75], 3), 2))
    weighted = ssntk.ntk(model, one, weights="trapezoid")
    np.testing.assert_allclose(weighted, (weight[:, None] * rows) @ (weight[:, None] * rows).T, atol=1e-13)
    np.testing.assert_allclose(ssntk.ntk(model, one, weights=[1.0, 1.0, 1.0]), rows @ rows.T, atol=1e-13)


@pytest.mark.parametrize("weights", ["simpson", [1.0], [1.0, -1.0, 1.0]])
def test_bad_weights(weights, getkey):
    with pytest.raises(ValueError, match="weights"):
        ssntk.ntk(nf.pitchfork(1.0), ssntk.Probe([0.0, 1.0, 2.0]), weights=weights)


def planted(getkey, values, p):
    """A Jacobian with given singular values."""
    left = np.linalg.qr(np.asarray(jr.normal(getkey(), (len(values), len(values)))))[0]
    right = np.linalg.qr(np.asarray(jr.normal(getkey(), (p, len(values)))))[0]
    return left * np.asarray(values) @ right.T


def test_planted_spectrum_from_jacobian_and_kernel(getkey):
    values = np.array([3.0, 1.0, 0.5, 0.01])
    jacobian = planted(getkey, values, 9)
    for spectrum in (ssntk.Spectrum.from_jacobian(jacobian), ssntk.Spectrum.from_kernel(jacobian @ jacobian.T)):
        # K itself carries its eigenvalues to N eps of the first: 1e-15 absolute, 1e-11 of the last.
        np.testing.assert_allclose(spectrum.eigenvalues, values**2, rtol=1e-10)
        share = values**2 / (values**2).sum()
        np.testing.assert_allclose(spectrum.trace, (values**2).sum(), rtol=1e-13)
        np.testing.assert_allclose(spectrum.condition_number, 9e4, rtol=1e-10)
        np.testing.assert_allclose(spectrum.condition_number_on_rank, 9e4, rtol=1e-10)
        np.testing.assert_allclose(spectrum.participation_ratio, 1 / (share**2).sum(), rtol=1e-12)
        np.testing.assert_allclose(spectrum.effective_rank, np.exp(-(share * np.log(share)).sum()), rtol=1e-12)
        np.testing.assert_allclose(spectrum.top_share, share[0], rtol=1e-12)
        np.testing.assert_allclose(spectrum.effective_dimension(0.25), (values**2 / (values**2 + 0.25)).sum(), rtol=1e-12)
        assert spectrum.rank == 4
        assert not spectrum.condition_number_is_bound


def test_below_the_floor_only_a_bound_is_claimed(getkey):
    jacobian = planted(getkey, 10.0 ** -np.arange(0.0, 12.0, 2.0), 8)  # condition number 1e20
    exact = ssntk.Spectrum.from_jacobian(jacobian)
    assert exact.rank == 6
    # Singular values carry 8 eps of the first, here 1.8e-15 against 1e-10: five digits.
    np.testing.assert_allclose(exact.condition_number, 1e20, rtol=1e-4)
    kernel = ssntk.Spectrum.from_kernel(jacobian @ jacobian.T)
    assert kernel.rank < 6
    assert kernel.condition_number_is_bound
    assert 1e14 < float(kernel.condition_number) < 1e20


def test_more_rows_than_parameters_is_infinite_by_construction(getkey):
    spectrum = ssntk.Spectrum.from_jacobian(planted(getkey, [2.0, 1.0], 2).T.repeat(3, axis=0))
    assert np.isinf(spectrum.condition_number)
    assert not spectrum.condition_number_is_bound
    assert spectrum.eigenvalues.shape == (6,)
    assert spectrum.rank == 2


@pytest.mark.parametrize("scale", [1e-8, 1e-140, 1e150])
def test_scaling_the_kernel_changes_no_dimensionless_figure(scale, getkey):
    jacobian = planted(getkey, [3.0, 1.0, 0.5], 5)
    one, other = ssntk.Spectrum.from_jacobian(jacobian), ssntk.Spectrum.from_jacobian(scale * jacobian)
    for name in ("condition_number", "participation_ratio", "effective_rank", "top_share", "rank", "floor"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [np.ones((2, 3)), np.diag([1.0, -1.0]), np.array([[1.0, 2.0], [0.0, 1.0]]), np.full((2, 2), np.nan), np.zeros((0, 0))],
)
def test_bad_kernels(bad):
    with pytest.raises(ValueError, match="kernel"):
        ssntk.Spectrum.from_kernel(bad)


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_a_kernel_beyond_the_range_of_floats_is_refused(scale):
    with pytest.raises(ssntk.NumericalError, match="beyond the range"):
        ssntk.Spectrum.from_jacobian(scale * np.eye(2))


def test_the_zero_kernel_has_no_rank_and_no_ratios():
    spectrum = ssntk.Spectrum.from_jacobian(np.zeros((2, 3)))
    assert spectrum.rank == 0
    assert np.isinf(spectrum.condition_number)
    assert np.isnan(spectrum.participation_ratio)


def test_eigenvectors_diagonalise(getkey):
    jacobian = planted(getkey, [3.0, 1.0, 0.5], 5)
    kernel = jacobian @ jacobian.T
    for spectrum in (
        ssntk.Spectrum.from_jacobian(jacobian),
        ssntk.Spectrum.from_kernel(kernel),
    ):
        vectors = np.asarray(spectrum.eigenvectors)
        np.testing.assert_allclose(vectors.T @ kernel @ vectors, np.diag(spectrum.eigenvalues), atol=1e-13)


def test_gradient_descent_on_the_frozen_kernel(getkey):
    jacobian = planted(getkey, [2.0, 1.0, 0.5], 5)
    kernel, rate, residual = jacobian @ jacobian.T, 0.3, np.array([1.0, -2.0, 0.5])
    spectrum = ssntk.Spectrum.from_jacobian(jacobian)
    vectors = np.asarray(spectrum.eigenvectors)
    # Steps carried out one by one.
    left, path = residual, [residual]
    for _ in range(7):
        left = left - rate * kernel @ left
        path.append(left)
    np.testing.assert_allclose(spectrum.mode_errors(residual, rate, 7), vectors.T @ left, atol=1e-12)
    np.testing.assert_allclose(spectrum.mode_errors(residual, rate, np.arange(8)), np.stack(path) @ vectors, atol=1e-12)
    np.testing.assert_allclose(spectrum.max_learning_rate, 0.5, rtol=1e-12)
    steps = np.asarray(spectrum.steps_to_tolerance(rate, 1e-3))
    np.testing.assert_allclose(np.abs(1 - rate * np.array([4.0, 1.0, 0.25])) ** steps, 1e-3, rtol=1e-9)
    assert np.isinf(spectrum.steps_to_tolerance(0.51, 0.1)[0])
    np.testing.assert_allclose(spectrum.filter(residual, 3), residual, atol=1e-13)
    np.testing.assert_allclose(spectrum.filter(residual, 1), vectors[:, 0] * (vectors[:, 0] @ residual), atol=1e-13)
    with pytest.raises(ValueError, match="residual"):
        spectrum.filter([1.0], 1)
    with pytest.raises(ValueError, match="eigenvectors were refused"):
        ssntk.Spectrum.from_jacobian(jacobian, eigenvectors=False).filter(residual, 1)
    with pytest.raises(ValueError, match="tol must lie"):
        spectrum.steps_to_tolerance(rate, 2.0)


# Steady states by closed form (SCIENCE.md 3, reference/laws.json: sn_ss_mu, tc_ss_*, pf_ss_*, hopf_ss_bias).
@pytest.mark.parametrize(
    ("model", "x", "lens", "expected"),
    [
        (nf.saddle_node(0.04), [0.2], lambda m: m.mu, 1 / (4 * 0.04)),
        (nf.transcritical(0.3), [0.3], lambda m: m.mu, 1.0),
        (nf.transcritical(-0.3), [0.0], lambda m: m.mu, 0.0),
        (nf.transcritical(0.3), [0.3], lambda m: m.h, 1 / 0.3**2),
        (nf.transcritical(-0.3), [0.0], lambda m: m.h, 1 / 0.3**2),
        (nf.pitchfork(0.25), [0.5], lambda m: m.mu, 1 / (4 * 0.25)),
        (nf.pitchfork(0.25), [0.5], lambda m: m.h, 1 / (4 * 0.25**2)),
        (nf.pitchfork(-0.2), [0.0], lambda m: m.h, 1 / 0.2**2),
        (nf.pitchfork(-0.2), [0.0], lambda m: m.mu, 0.0),
        (nf.hopf(-0.1, 2.0), [0.0, 0.0], lambda m: m.h, np.eye(2) / (0.1**2 + 4.0)),
    ],
)
def test_steady_state_kernels_of_the_normal_forms(model, x, lens, expected):
    kernel = ssntk.steady_state_ntk(model, x, wrt=lens)
    np.testing.assert_allclose(kernel, np.broadcast_to(expected, kernel.shape), rtol=1e-12, atol=1e-15)


def test_steady_state_is_the_limit_of_trajectories(getkey):
    model = ssntk.CTRNN(5, 1, 1, gain=0.7, key=getkey())
    u = np.array([[0.8]])
    x_star = ssntk.find_fixed_points(model, u[0], key=getkey()).x[0]
    late = ssntk.parameter_jacobian(model, ssntk.Probe([0.0, 120.0], u, x_star))[0, -1]
    # exp(-0.3 * 120) is below rounding; the solver's tolerance of 1e-8 remains.
    np.testing.assert_allclose(late, steady_state_jacobian(model, x_star, u=u[0]), atol=1e-6)


def test_the_lengths_of_the_rows_of_the_forcing_are_found_a_few_rows_at_a_time(getkey, monkeypatch):
    model = ssntk.CTRNN(5, 2, 1, gain=1.5, key=getkey())
    positions = theta_positions(model, "state", None)
    x, u = jr.normal(getkey(), (5,)), jr.normal(getkey(), (2,))
    # Two of the five rows fit.
    monkeypatch.setattr(steady_state, "ROWS", 2 * Theta(model, positions).size)
    lengths = np.linalg.norm(np.asarray(forcing(model, positions, x, u)[0]), axis=1)
    np.testing.assert_allclose(forcing_sizes(model, positions, x, u), lengths, rtol=1e-13)


def test_steady_state_refuses_what_is_no_fixed_point_or_singular():
    with pytest.raises(ssntk.NumericalError, match="not a fixed point"):
        ssntk.steady_state_ntk(nf.saddle_node(1.0), [0.5])
    with pytest.raises(ssntk.NumericalError, match="singular"):
        ssntk.steady_state_ntk(nf.saddle_node(0.0), [0.0])


# T^3 g(|lambda| T) (SCIENCE.md 2; reference/laws.json: sn_horizon_scaling).
@pytest.mark.parametrize("mu", [1e-8, 1e-4, 1e-2, 1.0])
def test_trajectory_kernel_follows_the_master_law(mu):
    horizon = 10.0
    a = 2 * np.sqrt(mu) * horizon
    # The closed form loses its digits to cancellation for small a: there its series, 1/3 - a/4.
    g = (a - 2 * (1 - np.exp(-a)) + (1 - np.exp(-2 * a)) / 2) / a**3 if a > 1e-2 else 1 / 3 - a / 4
    probe = ssntk.Probe(np.linspace(0.0, horizon, 401), x0=[np.sqrt(mu)])
    top = ssntk.ntk_spectrum(nf.saddle_node(mu), probe, weights="trapezoid").eigenvalues[0]
    # The trapezoid rule at 400 intervals: (dt^2 / 12) times the end slope, 1.6e-5 relative at most; the series, a^2 / 10.
    np.testing.assert_allclose(top, horizon**3 * g, rtol=1e-4)


def test_steady_states_of_many_points_at_once(getkey):
    model = ssntk.CTRNN(5, 1, 1, gain=2.0, key=getkey())
    inputs = np.array([[0.0], [0.5], [2.0]])
    points = np.stack([ssntk.find_fixed_points(model, u, n_starts=16).x[0] for u in inputs])
    together = ssntk.steady_state_ntk(model, points, u=inputs)
    assert together.shape == (3, 5, 5)
    for k in range(3):
        np.testing.assert_allclose(together[k], ssntk.steady_state_ntk(model, points[k], u=inputs[k]), rtol=1e-12)
    with pytest.raises(ValueError, match="u must hold one input"):
        ssntk.steady_state_ntk(model, points, u=inputs[:2])
    with pytest.raises(ValueError, match="x_star"):
        ssntk.steady_state_ntk(model, np.zeros((0, 5)))
    with pytest.raises(ssntk.NumericalError, match="not a fixed point"):
        ssntk.steady_state_ntk(model, points + 1.0, u=inputs)
    flat = ssntk.VectorField(lambda t, x, u, p: p * x * u, jnp.asarray(1.0), 1, 1)
    with pytest.raises(ssntk.NumericalError, match="number 1 is singular"):
        ssntk.steady_state_ntk(flat, [[0.0], [0.0]], u=[[-1.0], [0.0]])


def test_the_exponent_of_a_planted_power_law():
    order = np.arange(1, 41)
    exact = ssntk.Spectrum.from_kernel(np.diag(3.0 * order**-1.7))
    alpha, (low, high) = exact.decay_exponent()
    np.testing.assert_allclose([alpha, low, high], 1.7, atol=1e-10)
    # With noise of 10 % the interval holds the exponent in about 95 of 100 draws: in at least 85 of 100, four deviations.
    random, inside = np.random.default_rng(0), 0
    for _ in range(100):
        values = np.sort(order**-1.7 * np.exp(0.1 * random.normal(size=40)))[::-1]
        # Sorting shifts the last modes only where the law is flatter than the noise: the first twenty are in order.
        _, (low, high) = ssntk.Spectrum.from_kernel(np.diag(values)).decay_exponent(1, 20)
        inside += low < 1.7 < high
    assert inside >= 85
    with pytest.raises(ValueError, match="three modes"):
        exact.decay_exponent(39)


def test_slow_modes_are_those_that_gradient_descent_leaves():
    spectrum = ssntk.Spectrum.from_kernel(np.diag([1.0, 0.1, 0.01]))
    # (1 - lambda)^100 against 1e-2.
    left = np.abs(1 - np.array([1.0, 0.1, 0.01])) ** 100 > 1e-2
    np.testing.assert_array_equal(spectrum.slow_modes(1.0, 100, 1e-2), np.flatnonzero(left))


def test_the_spectral_bias_and_the_predicted_loss(getkey):
    values = np.array([4.0, 1.0, 0.25])
    spectrum = ssntk.Spectrum.from_jacobian(planted(getkey, np.sqrt(values), 7))
    # The geometric mean is 1, the arithmetic 1.75.
    np.testing.assert_allclose(spectrum.spectral_bias, 1 - 1 / 1.75, rtol=1e-12)
    alike = ssntk.Spectrum.from_jacobian(planted(getkey, [2.0, 2.0, 2.0], 7))
    np.testing.assert_allclose(alike.spectral_bias, 0.0, atol=1e-12)
    # Gradient descent on |J theta - y|^2 / 2, written out; the fourth row is never moved, and so never learned.
    jacobian = np.concatenate([planted(getkey, np.sqrt(values), 7), np.zeros((1, 7))])
    target, theta, losses = np.asarray(jr.normal(getkey(), (4,))), np.zeros(7), []
    for _ in range(4):
        residual = jacobian @ theta - target
        losses.append(residual @ residual / 2)
        theta = theta - 0.3 * jacobian.T @ residual
    predicted = ssntk.Spectrum.from_jacobian(jacobian).predicted_loss(-target, 0.3, [0, 1, 2, 3])
    np.testing.assert_allclose(predicted, losses, rtol=1e-12)


def test_single_precision_says_which_eigenvalues_are_noise(getkey):
    noisy = planted(getkey, [1.0, 0.1, 1e-9, 1e-10], 9).astype(np.float32)
    with pytest.warns(UserWarning, match="last 2 of 4 eigenvalues are rounding"):
        spectrum = ssntk.Spectrum.from_jacobian(noisy)
    assert spectrum.rank == 2
    with pytest.warns(UserWarning, match="last 3 of 4"):
        ssntk.Spectrum.from_kernel(np.diag(np.float32([1.0, 1e-9, 1e-9, 1e-9])))
    # Rows that are zero, as at the initial time, and float64 are no occasion to warn: a warning fails here.
    ssntk.Spectrum.from_jacobian(np.concatenate([np.zeros((2, 9)), planted(getkey, [1.0, 0.1], 9)]).astype(np.float32))
    ssntk.Spectrum.from_jacobian(planted(getkey, [1.0, 0.1, 1e-20], 9))
