"""The kernel of limit cycles, against closed forms, SciPy's integration, and itself in other units and by other methods.

Compiles collocation for 2, 3 and 6 states, and one trajectory around the orbit for 2 and 18 states.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from helpers import seeds
from oscillators import hopf, langford, network, roessler, van_der_pol

import ssntk


def on_circle(mu, om, b, method="collocation"):
    """The cycle of the Hopf normal form, with its kernel."""
    model = ssntk.VectorField(hopf, {"b": b, "mu": mu, "om": om}, 2)
    period = 2 * np.pi / (om - b * mu)
    orbit = ssntk.limit_cycle(model, [mu**0.5, 0.0], period, method=method)
    return model, orbit, ssntk.cycle_ntk(model, orbit)


@pytest.mark.parametrize(
    ("mu", "om", "b", "method"),
    [
        (0.25, 2.0, 0.5, "collocation"),
        pytest.param(0.25, 2.0, 0.5, "shooting", marks=pytest.mark.slow),
        (0.04, 3.0, 0.0, "collocation"),
        (1.0, 2.0, -1.0, "collocation"),
        pytest.param(0.04, 3.0, 0.0, "shooting", marks=pytest.mark.slow),
        pytest.param(1.0, 2.0, -1.0, "shooting", marks=pytest.mark.slow),
    ],
)
def test_a_circle_has_its_closed_form(mu, om, b, method):
    _, orbit, kernel = on_circle(mu, om, b, method)
    turning = om - b * mu
    period = 2 * np.pi / turning
    np.testing.assert_allclose(kernel.period_gradient, period / turning * np.array([mu, b, -1.0]), atol=1e-10)
    # A shift of mu moves the radius, and nothing else moves a point normal to the orbit.
    radial, angular = kernel.x / mu**0.5, kernel.velocity / (turning * mu**0.5)
    np.testing.assert_allclose(kernel.jacobian[:, :, 1], radial / (2 * mu**0.5), atol=1e-10)
    np.testing.assert_allclose(kernel.jacobian[:, :, [0, 2]], 0.0, atol=1e-10)
    np.testing.assert_allclose(kernel.shape.eigenvalues[:2], [1 / (4 * mu), 0.0], atol=1e-10 / mu)
    # Isochrons are logarithmic spirals, phi - b log r.
    np.testing.assert_allclose(kernel.phase_response, (angular - b * radial) / (turning * mu**0.5), atol=1e-10 / mu)
    np.testing.assert_allclose(np.exp(kernel.exponents * orbit.period), np.exp(-2 * mu * period), atol=1e-9)
    np.testing.assert_allclose(kernel.speed, mu * turning**2, rtol=1e-10)
    law = (period / turning) ** 2 * (mu**2 + b**2 + 1) / period**2 * mu * turning**2 * 50.0**3 / 3
    np.testing.assert_allclose(kernel.predicted_top(50.0), law, rtol=1e-10)


def by_scipy(model, orbit, count):
    """X (count, n, k) at even phases, least in the plain metric, and P_theta, for biases theta, from DOP853."""
    n = model.n_state
    field = jax.jit(lambda x: model.vector_field(0.0, x, jnp.zeros(0)))
    slope = jax.jit(jax.jacfwd(field))

    def flow(t, y):
        x, tangent, moved = y[:n], y[n : n + n * n].reshape(n, n), y[n + n * n :].reshape(n, n)
        a = np.asarray(slope(x))
        return np.concatenate([field(x), (a @ tangent).ravel(), (a @ moved + np.eye(n)).ravel()])

    begin = np.concatenate([orbit.x[0], np.eye(n).ravel(), np.zeros(n * n)])
    times = np.linspace(0, orbit.period, count + 1)
    found = scipy.integrate.solve_ivp(flow, (0, times[-1]), begin, "DOP853", times, rtol=1e-13, atol=1e-13).y.T
    x, tangents, moved = found[:, :n], found[:, n : n + n * n].reshape(-1, n, n), found[:, n + n * n :].reshape(-1, n, n)
    velocity = np.array([field(one) for one in x])
    bordered = np.block([[np.eye(n) - tangents[-1], -velocity[-1:].T], [velocity[:1], np.zeros((1, 1))]])
    known = np.linalg.solve(bordered, np.vstack([moved[-1], np.zeros((1, n))]))
    parts = (np.arange(count) / count)[:, None, None]
    jacobian = tangents[:-1] @ known[:n] + moved[:-1] + parts * velocity[:-1, :, None] * known[n]
    shift = np.einsum("ki,kip->p", velocity[:-1], jacobian) / np.sum(velocity[:-1] ** 2)
    return jacobian - velocity[:-1, :, None] * shift, known[n]


def in_units(t, x, u, p):
    """A network whose states are measured in `p[2]` and whose time in `p[3]`."""
    weight, bias, states, time = p
    x = x * states
    return (-x + weight @ jnp.tanh(x) + bias) * time / states


def oscillating(seed, n, states=None, time=1.0, near=None):
    """A network that oscillates, a lens to its biases, and its cycle, in given units."""
    weight, bias = network(seed, n).params[:2]
    states = np.ones(n) if states is None else states
    model = ssntk.VectorField(in_units, (weight, bias, jnp.asarray(states), jnp.asarray(time)), n)
    if near is None:
        orbit = ssntk.limit_cycle(model, 0.5 * np.random.default_rng(seed).normal(size=n))
    else:
        orbit = ssntk.limit_cycle(model, near.x[0] / states, near.period / time, method=near.method)
    return model, orbit


def biases(model):
    return model.params[1]


@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("n", [6, 18])
def test_networks_agree_with_an_independent_integrator(n, seed):
    model, orbit = oscillating(seed, n)
    kernel = ssntk.cycle_ntk(model, orbit, wrt=biases)
    count = 32 if orbit.method == "shooting" else 128
    jacobian, gradient = by_scipy(model, orbit, count)
    size = np.abs(jacobian).max()
    np.testing.assert_allclose(kernel.period_gradient, gradient, atol=1e-9 * np.abs(gradient).max())
    top = np.linalg.svd(jacobian.reshape(-1, n), compute_uv=False) ** 2 / count
    np.testing.assert_allclose(kernel.shape.eigenvalues[:n], top, atol=1e-9 * top[0])
    assert orbit.method == ("shooting" if n > 16 else "collocation")
    if orbit.method == "shooting":
        np.testing.assert_allclose(kernel.ts, np.arange(count) * orbit.period / count, atol=1e-12)
        np.testing.assert_allclose(kernel.jacobian, jacobian, atol=1e-9 * size)
    else:
        np.testing.assert_allclose(kernel.jacobian[0], jacobian[0], atol=1e-9 * size)
    np.testing.assert_allclose(np.sum(kernel.phase_response * kernel.velocity, axis=1), 1.0, atol=1e-9)


def test_the_kernel_alone_is_that_of_the_derivative_and_the_period_is_that_of_a_reverse_sweep():
    model, orbit = oscillating(0, 18)
    whole, alone = (ssntk.cycle_ntk(model, orbit, wrt=biases, memory=room) for room in (2e9, 1.0))
    assert alone.jacobian is None
    assert alone.rows is None
    size = np.abs(whole.period_gradient).max()
    np.testing.assert_allclose(alone.period_gradient, whole.period_gradient, atol=1e-13 * size)
    first = whole.shape.eigenvalues[0]
    np.testing.assert_allclose(alone.kernel, whole.rows @ whole.rows.T, atol=1e-13 * first)
    for some in (ssntk.cycle_ntk(model, orbit, wrt=biases, memory=room, k=3) for room in (2e9, 1.0)):
        np.testing.assert_allclose(some.shape.eigenvalues, whole.shape.eigenvalues[:3], rtol=1e-10)
        np.testing.assert_allclose(some.shape.participation_ratio, whole.shape.participation_ratio, rtol=1e-10)
        np.testing.assert_allclose(np.abs(some.shape.eigenvectors.T @ whole.shape.eigenvectors[:, :3]), np.eye(3), atol=1e-6)


@pytest.mark.slow
def test_a_trajectory_learns_its_phase_alone():
    """After many periods the top eigenvalue is that of the phase, with a deficit O(P / T)."""
    model, orbit = oscillating(1, 6)
    kernel = ssntk.cycle_ntk(model, orbit, wrt=lambda m: m.params[0])
    off = []
    for turns in (15, 60):
        horizon = turns * orbit.period
        probe = ssntk.Probe(np.linspace(0, horizon, 16 * turns + 1), x0=orbit.x[0])
        spectrum = ssntk.ntk_spectrum(model, probe, wrt=lambda m: m.params[0], weights="trapezoid", eigenvectors=False)
        off.append(abs(float(spectrum.eigenvalues[0]) / kernel.predicted_top(horizon) - 1))
    assert off[0] < 0.2
    assert off[1] < 0.35 * off[0]


@pytest.mark.slow
def test_stiff_oscillations():
    """Van der Pol's oscillator at mu = 5: the gradient of its period is that of SciPy's periods."""

    def period(mu):
        def crosses(t, y):
            return y[0]

        crosses.direction = 1
        begin = (0, 60.0), [2.0, 0.0]
        found = scipy.integrate.solve_ivp(
            lambda t, y: (y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]), *begin, "DOP853", events=crosses, rtol=1e-12, atol=1e-12
        )
        return np.diff(found.t_events[0])[-1]

    model = ssntk.VectorField(van_der_pol, 5.0, 2)
    kernel = ssntk.cycle_ntk(model, ssntk.limit_cycle(model, [2.0, 0.0]))
    slopes = [(period(5 + h) - period(5 - h)) / (2 * h) for h in (0.01, 0.02)]
    np.testing.assert_allclose(kernel.period_gradient, (4 * slopes[0] - slopes[1]) / 3, rtol=1e-6)


@pytest.mark.parametrize("method", ["collocation", pytest.param("shooting", marks=pytest.mark.slow)])
def test_unstable_orbits_run_backwards(method):
    """With time reversed, the circle repels by exp(2 mu T), here by 1e10, and moves with the parameters as before."""

    def backwards(t, x, u, p):
        return -hopf(t, x, u, p)

    mu, om, b = 1.0, 0.55, 0.0
    model = ssntk.VectorField(backwards, {"b": b, "mu": mu, "om": om}, 2)
    orbit = ssntk.limit_cycle(model, [1.0, 0.0], 2 * np.pi / om, method=method, intervals=128)
    assert abs(orbit.multipliers[0]) > 1e9
    kernel = ssntk.cycle_ntk(model, orbit)
    np.testing.assert_allclose(kernel.period_gradient, [orbit.period / om, 0.0, -orbit.period / om], atol=1e-7)
    np.testing.assert_allclose(kernel.shape.eigenvalues[0], 1 / (4 * mu), rtol=1e-8)


@pytest.mark.parametrize("seed", seeds(1, 10))
@pytest.mark.parametrize("n", [6, pytest.param(18, marks=pytest.mark.slow)])
def test_other_units_change_nothing(n, seed):
    """States in units of 10^U(-6, 6) each, time too: scale= is the metric."""
    rng = np.random.default_rng(seed)
    units, unit = 10 ** rng.uniform(-6, 6, n), 10 ** rng.uniform(-6, 6)
    model, orbit = oscillating(seed, n)
    other, moved = oscillating(seed, n, units, unit, near=orbit)
    # A change of a bias is in the units of no state.
    here = ssntk.cycle_ntk(model, orbit, wrt=biases)
    there = ssntk.cycle_ntk(other, moved, wrt=biases, scale=1 / units)
    np.testing.assert_allclose(there.period * unit, here.period, rtol=1e-9)
    gradient = np.abs(here.period_gradient).max()
    np.testing.assert_allclose(there.period_gradient * unit, here.period_gradient, atol=1e-8 * gradient)
    values = here.shape.eigenvalues
    np.testing.assert_allclose(there.shape.eigenvalues[:n], values[:n], atol=1e-7 * values[0])
    np.testing.assert_allclose(there.speed, here.speed * unit**2, rtol=1e-7)
    omega = 0.3 * 2 * np.pi / here.period
    plain = ssntk.cycle_signature(model, orbit, [omega], wrt=biases)
    again = ssntk.cycle_signature(other, moved, [omega * unit], wrt=biases, scale=1 / units)
    for name in ("response", "transverse", "phase"):
        np.testing.assert_allclose(getattr(again, name), getattr(plain, name), rtol=1e-6)


@pytest.mark.parametrize(("mu", "om", "b"), [(0.25, 2.0, 0.5), (0.04, 3.0, 0.0), (1.0, 2.0, -1.0)])
def test_a_drive_of_a_circle_has_its_closed_form(mu, om, b):
    model, orbit, _ = on_circle(mu, om, b)
    omegas = np.array([0.0, 0.3, om - b * mu, 3.7])
    by_mu = ssntk.cycle_signature(model, orbit, omegas, wrt=lambda m: m.params["mu"])
    # The radius obeys rho' = -2 mu rho + sqrt(mu) exp(i w t), along an isochron that turns by b / r.
    wanted = mu * (1 + b**2) / (omegas**2 + 4 * mu**2)
    np.testing.assert_allclose(by_mu.transverse, wanted, rtol=1e-8)
    by_om = ssntk.cycle_signature(model, orbit, omegas, wrt=lambda m: m.params["om"])
    np.testing.assert_allclose(by_om.phase[[1, 3]], mu / omegas[[1, 3]] ** 2, rtol=1e-8)
    np.testing.assert_allclose(by_om.transverse, 0.0, atol=1e-16)
    assert by_om.phase[0] == np.inf
    assert by_om.response[0] == np.inf
    assert by_om.frequency == pytest.approx(om - b * mu, rel=1e-9)


@pytest.mark.parametrize(("n", "both"), [pytest.param(6, (1, 3), marks=pytest.mark.slow), (18, (0, 3))])
def test_another_network_compiles_nothing(n, both, compilations):
    """Other weights and another period, on as many intervals."""
    first, second = (oscillating(seed, n) for seed in both)
    assert len(first[1]) == len(second[1])
    assert first[1].intervals == second[1].intervals
    for call in (ssntk.cycle_ntk, lambda *one, **how: ssntk.cycle_signature(*one, [1.0], **how)):
        call(*first, wrt=biases)
        before = len(compilations)
        call(*second, wrt=biases)
        assert len(compilations) == before


@pytest.mark.slow
def test_a_torus_and_a_period_doubling_are_seen_under_a_drive():
    model = ssntk.VectorField(roessler, 2.8, 3)
    doubling = ssntk.cycle_signature(model, ssntk.limit_cycle(model, [3.0, 0.0, 0.1]))
    assert doubling.kind == "negative"
    turns = doubling.peak_frequency / doubling.frequency
    assert turns % 1 == pytest.approx(0.5, abs=1e-3)
    # Langford's circle has an exact pair of multipliers, from z'' = (a - z^2) z' - 4 r^2 (z - 0.7) at the circle.
    a = 0.45
    model = ssntk.VectorField(langford, a, 3)
    square = 0.6 + 0.7 * a - 0.7**3 / 3
    orbit = ssntk.limit_cycle(model, [square**0.5, 0.0, 0.7])
    torus = ssntk.cycle_signature(model, orbit, np.linspace(0.0, 3.5, 64))
    growth = (a - 0.49) / 2
    angle = np.sqrt(2 * square - growth**2)
    assert torus.kind == "pair"
    near = np.array([angle % 3.5, -angle % 3.5])
    assert np.abs(near - torus.peak_frequency).min() < 0.02
    assert len(torus) == 64


@pytest.mark.slow
def test_at_a_fold_of_cycles_there_is_no_derivative():
    def bautin(t, x, u, mu):
        squared = x @ x
        return (mu + squared - squared**2) * x + 2.0 * jnp.stack([-x[1], x[0]])

    family = ssntk.Family(ssntk.VectorField(bautin, 0.1, 2), "params")
    branch = ssntk.cycle_continuation(family, ssntk.limit_cycle(family(0.1), [1.0, 0.0]), (0.1, -0.3))
    (fold,) = branch.bifurcations
    assert fold.parameter == pytest.approx(-0.25, abs=1e-9)
    with pytest.raises(ssntk.NumericalError, match="a multiplier that is 1 to within its error"):
        ssntk.cycle_ntk(family(fold.parameter), fold.orbit)
    # Beside it the radius obeys mu + s - s^2 = 0 with s = r^2, stable or not.
    for orbit, mu in zip(branch.orbits[1:-1:4], branch.parameter[1:-1:4], strict=True):
        if abs(mu + 0.25) < 1e-3:
            continue
        s = float(np.sum(orbit.x[0] ** 2))
        kernel = ssntk.cycle_ntk(family(float(mu)), orbit)
        np.testing.assert_allclose(kernel.shape.eigenvalues[0], 1 / (4 * s * (2 * s - 1) ** 2), rtol=1e-6)


def test_what_does_not_fit_is_refused():
    model, orbit, _ = on_circle(0.25, 2.0, 0.5)
    other = ssntk.VectorField(hopf, {"b": 0.5, "mu": 0.3, "om": 2.0}, 2)
    worse = type(orbit)(**{**vars(orbit), "residual": 1e-3})
    for call in (ssntk.cycle_ntk, ssntk.cycle_signature):
        with pytest.raises(ValueError, match="orbit must be a limit cycle of this model"):
            call(other, orbit)
        with pytest.raises(ValueError, match=r"orbit\.residual must be at most 1e-06"):
            call(model, worse)
        with pytest.raises(ValueError, match="orbit must be"):
            call(model, orbit.x)
        with pytest.raises(ValueError, match="of 3 states, got 2"):
            call(ssntk.VectorField(roessler, 2.8, 3), orbit)
        with pytest.raises(ValueError, match="u must have shape"):
            call(model, orbit, u=[1.0])
        with pytest.raises(ValueError, match="scale must be positive"):
            call(model, orbit, scale=-1.0)
    shot = ssntk.limit_cycle(model, [0.5, 0.0], method="shooting")
    with pytest.raises(ValueError, match="orbit must be a limit cycle of this model"):
        ssntk.cycle_ntk(other, shot)
    with pytest.raises(ValueError, match="model must be a flow"):
        ssntk.cycle_ntk(ssntk.EulerMap(model, 0.1), orbit)
    for omegas in ([-1.0, 1.0], [1.0, 1.0], []):
        with pytest.raises(ValueError, match="omegas"):
            ssntk.cycle_signature(model, orbit, omegas)
    with pytest.raises(ValueError, match="k must be below"):
        ssntk.cycle_ntk(model, orbit, k=5)
    kernel = ssntk.cycle_ntk(model, orbit)
    with pytest.raises(ValueError, match="horizon must be positive"):
        kernel.predicted_top(-1.0)
