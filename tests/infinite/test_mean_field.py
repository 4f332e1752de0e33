"""The mean field of recurrent networks against finite networks and closed forms.

Compiles the means of four activations, one program each, which serves all networks, inputs and horizons; and the kernels of
finite networks for two shapes.
"""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import reference, some

import ssntk

REFERENCE = reference("theory")
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "linear": lambda x: x, "erf": jax.scipy.special.erf}


def network(n=40, d=2, *, seed=0, bias=0.0, **options):
    """A network whose numbers are those of its ensemble: Var W = 1/n; columns of U and the bias orthogonal, of zero mean."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((n, n))
    weight = (weight - weight.mean()) / weight.std(ddof=1) / np.sqrt(n)
    signals = np.linalg.qr(np.concatenate([np.ones((n, 1)), random.standard_normal((n, d + 2))], axis=1))[0] * np.sqrt(n)
    readout = signals[:, -1:].T / np.sqrt(n)
    inputs = signals[:, 1 : d + 1] / np.sqrt(max(d, 1))
    return ssntk.CTRNN.from_weights(weight, inputs, bias * signals[:, d + 1], readout, **options)


def drive(ts):
    """Two inputs of two channels."""
    return np.stack([np.stack([np.sin(ts), np.cos(2 * ts)], axis=1), np.stack([np.cos(ts), 0.5 - 0 * ts], axis=1)])


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize("name", REFERENCE["recurrent_ntk"])
def test_maps_against_independent_networks(name):
    case = REFERENCE["recurrent_ntk"][name]
    us = np.array(case["inputs"])
    options = {"gain": case["gain"], "activation": ACTIVATIONS[case["activation"]], "form": case["form"]}
    model = ssntk.EulerMap(network(300, **options), case["step"])
    field = ssntk.mean_field(model, ssntk.Probe(case["step"] * np.arange(5), us))
    kernel = field.kernel.reshape(2, 5, 2, 5) / 300
    for entry in case["entries"]:
        found = kernel[entry["b"], entry["t"], entry["b2"], entry["t2"]]
        assert abs(found - entry["monte_carlo"]) < 4 * entry["error"] + 0.01 * abs(entry["monte_carlo"])
        # An independent quadrature, whose own error is about 1e-6.
        np.testing.assert_allclose(found, entry["mean_field"], rtol=1e-5)
    assert field.error < 1e-3
    np.testing.assert_allclose(field.kernel, field.kernel.T, rtol=1e-12)


def averaged(model, probe, of="state"):
    """The kernel of one network, averaged over its units or outputs."""
    jacobian = np.asarray(ssntk.parameter_jacobian(model, probe, of=of))
    rows = jacobian.shape[0] * jacobian.shape[1]
    each = jacobian.reshape(rows, jacobian.shape[2], -1)
    return np.einsum("rip,sip->rs", each, each, optimize=True) / each.shape[1]


# (form, activation, gain, of, standard deviation of the bias, of x0).
NETWORKS = (
    ("current", ACTIVATIONS["erf"], 0.7, "state", 0.3, 0.5),
    ("current", jnp.tanh, 0.8, "state", 0.0, 0.0),
    ("current", jnp.tanh, 1.5, "readout", 0.5, 0.0),
    ("rate", jax.nn.relu, 1.0, "state", 0.3, 0.0),
    ("rate", jnp.tanh, 1.3, "readout", 0.0, 0.7),
    ("current", jax.nn.softplus, 0.4, "state", 0.2, 1.0),
    ("current", jax.nn.elu, 0.7, "state", 0.2, 1.0),
    ("current", jax.nn.sigmoid, 3.0, "readout", 1.0, 0.5),
    ("rate", jax.nn.gelu, 1.2, "state", 0.5, 0.5),
    ("current", jnp.sin, 1.1, "state", 0.3, 1.5),
    ("current", lambda x: jax.nn.leaky_relu(x, 0.2), 0.8, "readout", 0.3, 0.0),
)


@pytest.mark.parametrize("case", some(NETWORKS, always=NETWORKS[:1]), ids=lambda case: f"{case[0]}-{case[2]}-{case[3]}")
def test_the_mean_of_networks(case):
    """The mean of 60 networks of 64 units, each against the field of its own numbers: 3 % in Frobenius norms, and chance."""
    form, activation, gain, of, bias, start = case
    # The first case is the small one.
    small = case is NETWORKS[0]
    n, seeds, ts = (32, 30, 0.5 * np.arange(5)) if small else (64, 60, 0.5 * np.arange(7))
    kernels, fields, distances, spreads = [], [], [], []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        parts = [random.standard_normal(shape) for shape in ((n, n), (n, 2), (n,), (4, n), (2, n))]
        model = ssntk.CTRNN.from_weights(
            *(parts[0] / np.sqrt(n), parts[1] / np.sqrt(2), bias * parts[2], parts[3] / np.sqrt(n)),
            gain=gain,
            activation=activation,
            form=form,
        )
        probe = ssntk.Probe(ts, drive(ts), start * parts[4])
        euler = ssntk.EulerMap(model, 0.5)
        kernels.append(averaged(euler, probe, of))
        field = ssntk.mean_field(euler, probe, of=of)
        fields.append(field.kernel)
        spreads.append(field.spread)
        distances.append(relative(kernels[-1], field.kernel))
    apart = np.array(kernels) - np.array(fields)
    size = np.linalg.norm(np.mean(fields, axis=0))
    error = np.sqrt(np.sum(apart.var(axis=0, ddof=1)) / seeds) / size
    # Networks that grow scatter by more than 3 %, and so do their means.
    assert np.linalg.norm(apart.mean(axis=0)) / size < 0.03 + 2 * error
    # How well the spread is estimated was measured: `MeanField.spread` says it. The rate form scatters more.
    if of == "state":
        assert 0.4 < np.sqrt(np.mean(np.square(distances))) / np.mean(spreads) < (2.5 if form == "current" else 4)


def linear(gain, t, t2):
    """(1/n) tr S(t) S(t2)^T of linear dynamics from rest under a constant drive of one: study, section 2.5."""
    k = np.arange(400)
    return np.sum(gain ** (2 * k) * scipy.special.gammainc(k + 1, t) * scipy.special.gammainc(k + 1, t2))


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.2])
def test_linear_flows_have_a_closed_form(gain):
    tau, ts = 0.01, np.array([0.0, 1.0, 2.5, 8.0])
    model = network(gain=gain, activation=lambda x: x, tau=tau)
    field = ssntk.mean_field(model, ssntk.Probe(tau * ts))
    expected = np.array([[linear(gain, t, t2) for t2 in ts] for t in ts])
    error = np.abs(field.kernel - expected).max() / expected.max()
    assert error < field.error < 5e-3
    assert error < 2e-3


@pytest.mark.parametrize("row", REFERENCE["linear_constant_drive"]["values"], ids=lambda row: f"{row['gain']}-{row['t2']}")
def test_linear_flows_against_extended_precision(row):
    ts = np.unique([0.0, row["t2"], row["t"]])
    field = ssntk.mean_field(network(gain=row["gain"], activation=ACTIVATIONS["linear"]), ssntk.Probe(ts))
    found = field.kernel[np.searchsorted(ts, row["t"]), np.searchsorted(ts, row["t2"])]
    np.testing.assert_allclose(found, row["kernel"], rtol=2e-3)


@pytest.mark.parametrize("form", ["current", "rate"])
def test_at_a_fixed_point_the_kernel_is_a_geometric_series(form):
    """Theta = D / (1 - g^2 C') of the current form, C' D / (1 - g^2 C') of the rate form, with the variance of the bias."""
    gain, deviation, n = 0.9, 0.7, 40
    model = ssntk.EulerMap(network(bias=deviation, gain=gain, form=form, activation=ACTIVATIONS["erf"]), 1.0)
    field = ssntk.mean_field(model, ssntk.Probe(np.array([0.0, 59.0, 60.0])))
    # The variance of a state with itself is a fixed point of one equation; scipy's quadrature, not the closed form.
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    variance, rates = 1.0, 0.0
    for _ in range(500):
        rates = weights @ scipy.special.erf(np.sqrt(variance) * nodes) ** 2
        variance = gain**2 * rates + deviation**2
    slopes = weights @ (4 / np.pi * np.exp(-2 * variance * nodes**2))
    direct = n * gain**2 * rates + 1
    expected = direct / (1 - gain**2 * slopes) * (slopes if form == "rate" else 1)
    np.testing.assert_allclose(field.covariance[1:, 1:], variance, rtol=1e-9)
    np.testing.assert_allclose(field.activity[1:, 1:], rates, rtol=1e-9)
    # The series has converged to 0.81 C'^60.
    np.testing.assert_allclose(field.kernel[1:, 1:], expected, rtol=1e-6)


def test_autonomous_networks_at_rest_have_no_variance():
    """Without drive the covariance is zero and its correlation 0/0. The kernel is that of the linear network."""
    ts = np.array([0.0, 1.0, 3.0])
    for activation, slope in ((jnp.tanh, 1.0), (ACTIVATIONS["erf"], 2 / np.sqrt(np.pi))):
        model = ssntk.EulerMap(network(gain=0.8 / slope, activation=activation), 0.5)
        field = ssntk.mean_field(model, ssntk.Probe(ts))
        same = ssntk.mean_field(ssntk.EulerMap(network(gain=0.8, activation=ACTIVATIONS["linear"]), 0.5), ssntk.Probe(ts))
        # The mass of the Gaussian beyond six standard deviations.
        np.testing.assert_allclose(field.kernel, same.kernel, rtol=1e-8)
        assert not field.covariance.any()
    # ReLU stays at its corner, where JAX takes its slope, and ssntk.ntk therefore the kernel, to be zero.
    model = network(8, form="rate", activation=jax.nn.relu)
    assert not ssntk.mean_field(model, ssntk.Probe(ts)).kernel.any()


def test_euler_steps_of_a_flow_are_those_of_its_map():
    model, ts = network(gain=1.2, bias=0.3, activation=ACTIVATIONS["erf"]), np.array([0.0, 1.0, 2.0])
    probe = ssntk.Probe(ts, drive(ts))
    steps = ssntk.Integrator(diffrax.Euler(), dt=0.5)
    by_flow = ssntk.mean_field(model, probe, integrator=steps)
    by_map = ssntk.mean_field(ssntk.EulerMap(model, 0.5), probe)
    np.testing.assert_allclose(by_flow.kernel, by_map.kernel, rtol=1e-12)
    fine = ssntk.mean_field(model, probe, integrator=ssntk.Integrator(diffrax.Euler(), dt=0.01))
    flow = ssntk.mean_field(model, probe)
    # Euler steps of 0.01 are right to about 1 %, and halved extrapolation to its stated error.
    assert relative(fine.kernel, flow.kernel) < 0.02
    assert flow.error < 5e-3


INPUTS = {
    "held": {"us": np.array([[[1.0], [-2.0], [0.5], [3.0]]]), "hold": True},
    "linear": {"us": np.array([[[1.0], [-2.0], [0.5], [3.0]]])},
    "callable": {"us": lambda t: jnp.sin(t)[None, None]},
}


@pytest.mark.parametrize("name", some(INPUTS, always=("held",)))
def test_inputs_are_those_of_the_solver(name):
    """Without recurrent weights a state is u through a leak, so that the covariance is the product of two solutions."""
    model = ssntk.CTRNN.from_weights(np.zeros((2, 2)), [[1.0], [-1.0]], activation=ACTIVATIONS["linear"], tau=0.7)
    probe = ssntk.Probe(np.array([0.0, 0.5, 2.0, 3.0]), **INPUTS[name])
    states = np.asarray(ssntk.simulate(model, probe))[0, :, 0]
    field = ssntk.mean_field(model, probe)
    # The error that the field states is a fraction of the largest entry.
    assert field.error <= 5e-3
    np.testing.assert_allclose(field.covariance, np.outer(states, states), atol=field.error * np.abs(states).max() ** 2)


def test_time_has_no_units_of_its_own():
    ts, c = np.array([0.0, 1.0, 2.0, 3.5]), 3e-4
    plain = network(gain=1.3, bias=0.4, activation=ACTIVATIONS["erf"])
    base = ssntk.mean_field(plain, ssntk.Probe(ts, drive(ts)))
    options = {"gain": 1.3, "activation": ACTIVATIONS["erf"], "tau": c}
    slow = ssntk.CTRNN.from_weights(plain.weight, plain.input_weight, plain.bias, **options)
    field = ssntk.mean_field(slow, ssntk.Probe(c * ts, drive(ts)))
    np.testing.assert_allclose(field.kernel, base.kernel, rtol=1e-9, atol=1e-12 * base.kernel.max())
    np.testing.assert_allclose([field.error, field.spread], [base.error, base.spread], rtol=1e-6)


def test_states_have_no_units_of_their_own():
    """In units of s, phi is s phi(x / s), U and b are s times as large: states follow, and with them the kernel of W."""
    ts, s = 0.5 * np.arange(4), 2e5
    plain = network(gain=1.3, bias=0.4, activation=ACTIVATIONS["erf"])
    parts = plain.weight, s * plain.input_weight, s * plain.bias
    scaled = ssntk.CTRNN.from_weights(*parts, gain=1.3, activation=lambda x: s * jax.scipy.special.erf(x / s))
    base, field = (ssntk.mean_field(ssntk.EulerMap(model, 0.5), ssntk.Probe(ts, drive(ts))) for model in (plain, scaled))
    # The quadrature of the one against the closed form of the other.
    np.testing.assert_allclose(field.covariance, s**2 * base.covariance, atol=1e-6 * field.covariance.max())
    np.testing.assert_allclose(field.activity, s**2 * base.activity, atol=1e-6 * field.activity.max())
    # A linear network has no scale, and its kernel of W alone is that of its states squared.
    linear = network(gain=0.8, activation=ACTIVATIONS["linear"])
    small, large = (ssntk.mean_field(ssntk.EulerMap(linear, 0.5), ssntk.Probe(ts, a * drive(ts))) for a in (1.0, s))
    np.testing.assert_allclose(large.covariance, s**2 * small.covariance, rtol=1e-12)


def test_the_quadrature_agrees_with_the_closed_form_of_erf():
    ts = np.array([0.0, 1.0, 2.0, 3.5])
    for size in (0.3, 5.0):
        closed = ssntk.mean_field(
            ssntk.EulerMap(network(gain=size, bias=0.4, activation=ACTIVATIONS["erf"]), 0.5),
            ssntk.Probe(ts, size * drive(ts)),
        )
        # Another function, which is erf to 1e-12 and so not recognised.
        open_form = ssntk.EulerMap(
            network(gain=size, bias=0.4, activation=lambda x: jax.scipy.special.erf((1 + 1e-12) * x)), 0.5
        )
        field = ssntk.mean_field(open_form, ssntk.Probe(ts, size * drive(ts)))
        np.testing.assert_allclose(field.kernel, closed.kernel, rtol=1e-5, atol=1e-5 * closed.kernel.max())
        assert relative(field.kernel, closed.kernel) < field.error < 1e-2


def test_only_what_is_trained_counts():
    ts = np.array([0.0, 1.0])
    model = network(gain=1.0)
    both = ssntk.CTRNN.from_weights(model.weight, model.input_weight, model.bias, input_bias=0 * model.bias)
    one, two = (ssntk.mean_field(ssntk.EulerMap(each, 1.0), ssntk.Probe(ts)).kernel for each in (model, both))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-12)


def test_masked_rows_are_zero_and_the_spectrum_is_that_of_the_kernel():
    ts = np.array([0.0, 1.0, 2.0])
    model = network(gain=1.0, activation=ACTIVATIONS["erf"])
    seen = np.array([[True, True, False], [True, True, True]])
    field = ssntk.mean_field(model, ssntk.Probe(ts, drive(ts), mask=seen))
    assert not field.kernel[2].any()
    assert field.kernel[5, 5] > 0
    spectrum = field.spectrum(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(spectrum.trace, np.diagonal(field.kernel) @ np.tile([1.0, 2.0, 3.0], 2), rtol=1e-6)
    assert spectrum.floor == max(field.error, 6 * np.finfo(float).eps)
    assert field.spectrum("trapezoid").eigenvalues[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("row", REFERENCE["chaos_scs"]["values"][1:], ids=lambda row: str(row["gain"]))
def test_in_chaos_the_kernel_grows_at_twice_the_lyapunov_exponent(row):
    """Against the stationary solution and Schroedinger's problem of Sompolinsky, Crisanti and Sommers, to 10 %."""
    model = ssntk.EulerMap(network(d=0, bias=0.0, gain=row["gain"]), 0.2)
    start = np.random.default_rng(0).standard_normal(40)
    probe = ssntk.Probe(np.linspace(0.0, 22.0, 23), x0=np.sqrt(row["variance"]) * (start - start.mean()) / start.std())
    field = ssntk.mean_field(model, probe)
    rates = np.diff(np.log(np.diagonal(field.kernel)[15:])) / 2
    np.testing.assert_allclose(np.mean(rates), row["lyapunov"], rtol=0.1)
    np.testing.assert_allclose(field.covariance[-1, -1], row["variance"], rtol=0.1)


def test_other_weights_inputs_and_horizons_compile_nothing(compilations):
    ts = np.arange(3.0)
    ssntk.mean_field(ssntk.EulerMap(network(gain=1.2), 1.0), ssntk.Probe(ts, drive(ts)))
    before = len(compilations)
    ssntk.mean_field(ssntk.EulerMap(network(gain=2.5, seed=3), 1.0), ssntk.Probe(ts, 2 * drive(ts)))
    longer, other = ssntk.Probe(np.arange(5.0), drive(np.arange(5.0))), network(30, bias=0.3, form="rate")
    ssntk.mean_field(ssntk.EulerMap(other, 1.0), longer, of="readout")
    assert len(compilations) == before


def test_errors_by_name(compilations, getkey):
    ts, model = np.array([0.0, 1.0]), network(30)
    probe = ssntk.Probe(ts, np.ones((1, 2)))

    def made(**changed):
        parts: dict[str, Any] = {"weight": model.weight, "input_weight": model.input_weight, "bias": model.bias} | changed
        return ssntk.CTRNN.from_weights(**parts)

    masked = ssntk.Probe(ts, np.ones((1, 2)), mask=np.ones((1, 2, 30), bool))
    gated = ssntk.EulerMap(ssntk.GRUODE(4, 2, 1, key=getkey()), 0.1)
    slopes = np.linspace(0.0, 1.0, 30)
    before = len(compilations)
    for wrong, message in (
        (gated, "model must be a CTRNN"),
        (made(tau=np.linspace(1.0, 2.0, 30)), "model.tau must be the same"),
        (made(gain=0.0), "model.gain must be positive"),
        (made(bias=np.full(30, 0.1)), "model.bias must be random numbers of zero mean"),
        (made(weight=np.random.default_rng(0).standard_normal((30, 30)) / 30**0.5 - 0.1), "model.weight must be random"),
        (made(input_weight=np.ones((30, 2))), "model.input_weight must be random"),
    ):
        with pytest.raises(ValueError, match=message):
            ssntk.mean_field(wrong, probe)
    for changed, message in (
        ({"of": "rate"}, "of must be one of"),
        ({"integrator": ssntk.Integrator()}, "integrator must be None, or"),
        ({"integrator": 3}, "integrator must be"),
    ):
        with pytest.raises(ValueError, match=message):
            ssntk.mean_field(model, probe, **changed)
    with pytest.raises(ValueError, match="probe must be"):
        ssntk.mean_field(model, 3.0)
    with pytest.raises(ValueError, match="x0 must be random numbers of zero mean"):
        ssntk.mean_field(model, ssntk.Probe(ts, np.ones((1, 2)), np.ones(30)))
    with pytest.raises(ValueError, match="mask must be"):
        ssntk.mean_field(model, masked)
    with pytest.raises(ValueError, match="integrator must be None for a map"):
        ssntk.mean_field(ssntk.EulerMap(model, 1.0), probe, integrator=ssntk.Integrator())
    with pytest.raises(ValueError, match="one function of one number"):
        ssntk.mean_field(made(activation=lambda x: slopes * x), probe)
    with pytest.raises(ValueError, match="cannot be inside jit"):
        jax.jit(lambda gain: ssntk.mean_field(made(gain=gain), probe).kernel)(1.0)
    assert len(compilations) == before


def test_what_is_not_resolved_is_refused():
    probe = ssntk.Probe(np.array([0.0, 1.0, 2.0]), np.ones((1, 2)))
    for activation in (jax.nn.hard_tanh, lambda x: jnp.abs(x - 0.3)):
        with pytest.raises(ssntk.NumericalError, match="derivative jumps"):
            ssntk.mean_field(network(30, activation=activation), probe)
    wild = ssntk.EulerMap(network(30, gain=1e40, activation=lambda x: x), 1.0)
    with pytest.raises(ssntk.NumericalError, match="grows without bound"):
        ssntk.mean_field(wild, ssntk.Probe(np.arange(9.0), np.ones((1, 2))))


def test_a_field_is_a_result(tmp_path):
    field = ssntk.mean_field(network(30, activation=ACTIVATIONS["erf"]), ssntk.Probe([0.0, 1.0], np.ones((1, 2))))
    assert "expected kernel of 30 units" in field.summary()
    ssntk.save(tmp_path / "field.npz", field)
    assert ssntk.load(tmp_path / "field.npz") == field
