"""A user's own loss operator, in one file, against an explicit L J J^T L^T."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg

import ssntk


# The complete definition: the observation, the matrix over time, and the effect of both at a frequency.
class Extrapolated(ssntk.AbstractObservation):
    """An observation extrapolated by its rate to the time `lead` later."""

    of: ssntk.AbstractObservation
    lead: jax.Array

    def rows(self, model):
        return self.of.rows(model)

    def look(self, model, t, x, u):
        now, rate = jax.jvp(lambda x: self.of.look(model, t, x, u), (x,), (model.vector_field(t, x, u),))
        return now + self.lead * rate


class Foresight(ssntk.AbstractLossOperator):
    """The loss on the extrapolated observation; on means of neighbouring save times if `smooth`."""

    lead: jax.Array
    smooth: bool = eqx.field(static=True, default=False)

    def observation(self, of):
        return Extrapolated(of, self.lead)

    def over_time(self, ts):
        return (np.eye(len(ts)) + np.eye(len(ts), k=-1)) / 2 if self.smooth else None

    def at_frequency(self, omega, clock, kernel, forced):
        return kernel(omega) * abs(1 + float(self.lead) * complex(*clock.edge(omega))) ** 2


A, DT, TS, LEAD = np.array([[-1.0, 2.0, 0.0], [-2.0, -1.0, 0.5], [0.3, 0.0, -0.5]]), 0.25, np.linspace(0.0, 2.0, 5), 0.3
SMOOTH = (np.eye(5) + np.eye(5, k=-1)) / 2
FLOW = ssntk.VectorField(lambda t, x, u, p: jnp.asarray(A) @ x + p, jnp.ones(3), 3)
# Each with the derivative of its state by the bias at the save times, (T, 3, 3), and the error: the solver's, or rounding.
CASES = {
    "flow": (
        FLOW,
        ssntk.Integrator(rtol=1e-10, atol=1e-12),
        np.stack([np.linalg.solve(A, scipy.linalg.expm(A * t) - np.eye(3)) for t in TS]),
        1e-8,
    ),
    "map": (
        ssntk.EulerMap(FLOW, DT),
        None,
        np.stack([np.linalg.solve(A, np.linalg.matrix_power(np.eye(3) + DT * A, 2 * k) - np.eye(3)) for k in range(5)]),
        1e-13,
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    """A linear model, its integrator, the rows L J of the foresight loss by numpy (5, 3, 3), and their error."""
    model, integrator, sensitivity, error = CASES[request.param]
    # The derivative of the rate A x + b with respect to b is A S + 1.
    return model, integrator, sensitivity + LEAD * (A @ sensitivity + np.eye(3)), error


def operator(smooth=False, lead=LEAD):
    return Foresight(jnp.asarray(lead), smooth)


def test_the_kernel_its_spectrum_and_its_operator(case):
    model, integrator, rows, error = case
    rows = np.einsum("st,tij->sij", SMOOTH, rows)
    weight = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    flat = (np.sqrt(weight)[:, None, None] * rows).reshape(15, 3)
    asked = {"integrator": integrator, "loss_operator": operator(smooth=True), "weights": weight}
    np.testing.assert_allclose(ssntk.ntk(model, ssntk.Probe(TS), **asked), flat @ flat.T, atol=100 * error)
    values = ssntk.ntk_spectrum(model, ssntk.Probe(TS), **asked).eigenvalues
    np.testing.assert_allclose(values[:3], np.linalg.svd(flat)[1] ** 2, rtol=100 * error)
    vectors = np.random.default_rng(0).normal(size=(2, 15))
    product = ssntk.ntk_operator(model, ssntk.Probe(TS), **asked).block(jnp.asarray(vectors))
    np.testing.assert_allclose(product, vectors @ flat @ flat.T, atol=300 * error)


def test_masks_blocks_and_the_metric_of_the_states(case):
    model, integrator, rows, error = case
    mask, scale = TS != 1.0, np.array([1.0, 10.0, 0.1])
    flat = (mask[:, None, None] * rows / scale[None, :, None]).reshape(15, 3)
    asked = {"integrator": integrator, "loss_operator": operator(), "scale": scale}
    found = ssntk.ntk_blocks(model, ssntk.Probe(TS, mask=mask), ["params"], **asked)["params"]
    np.testing.assert_allclose(found, flat @ flat.T, atol=100 * error * np.square(flat).sum())


@pytest.mark.parametrize("dt", [None, DT])
def test_a_network_and_its_readout(dt):
    network = ssntk.CTRNN(4, 2, 3, gain=1.3, key=jr.key(0))
    model = network if dt is None else ssntk.EulerMap(network, dt)
    probe = ssntk.Probe(TS, np.ones((2, 2)), np.random.default_rng(0).normal(size=(2, 4)))
    asked = {"of": "readout", "integrator": ssntk.Integrator(diffrax.Heun(), dt=DT) if dt is None else None}
    # With no lead the operator is a matrix over time alone: explicitly, on the Jacobian through the solver's own steps.
    jacobian = np.asarray(ssntk.parameter_jacobian(model, probe, method="autodiff", **asked))
    rows = np.einsum("st,btip->bsip", SMOOTH, jacobian).reshape(30, -1)
    kernel = ssntk.ntk(model, probe, loss_operator=operator(smooth=True, lead=0.0), **asked)
    np.testing.assert_allclose(kernel, rows @ rows.T, atol=1e-12 * np.square(rows).sum())


@pytest.mark.parametrize("name", CASES)
def test_frequencies(name):
    model = CASES[name][0]
    omegas = np.linspace(0.0, 5.0, 6)
    found = ssntk.frequency_signature(model, np.linalg.solve(A, -np.ones(3)), omegas, loss_operator=operator())
    turns = 1j * omegas if name == "flow" else (np.exp(1j * omegas * DT) - 1) / DT
    wanted = [np.linalg.norm(np.linalg.inv(s * np.eye(3) - A), 2) ** 2 * abs(1 + LEAD * s) ** 2 for s in turns]
    np.testing.assert_allclose(found.response, wanted, rtol=1e-12)


def test_other_numbers_of_an_operator_compile_nothing(compilations):
    model, probe, steps = FLOW, ssntk.Probe(TS), ssntk.Integrator(diffrax.Heun(), dt=DT)
    kernels = [ssntk.ntk(model, probe, loss_operator=operator(lead=0.1), integrator=steps)]
    before = len(compilations)
    kernels += [ssntk.ntk(model, probe, loss_operator=operator(lead=lead), integrator=steps) for lead in (0.2, 0.7)]
    assert len(compilations) == before
    assert np.abs(kernels[1] - kernels[2]).max() > 0.1


class Wide(ssntk.AbstractLossOperator):
    def over_time(self, ts):
        return np.ones((len(ts), 2))


class Text(ssntk.AbstractLossOperator):
    def observation(self, of):
        return "state"


class Sum(ssntk.AbstractObservation):
    def rows(self, model):
        return 1

    def look(self, model, t, x, u):
        return x.sum()[None]


class Miscounted(Sum):
    def rows(self, model):
        return 2


class Counted(ssntk.AbstractLossOperator):
    def observation(self, of):
        return Miscounted()


class Summed(ssntk.AbstractLossOperator):
    def observation(self, of):
        return Sum()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"loss_operator": Foresight}, "instance of a subclass"),
        ({"loss_operator": Wide()}, r"over_time\(ts\) must have shape \(5,\) or \(5, 5\), got \(5, 2\)"),
        ({"loss_operator": Text()}, "must return an ssntk.AbstractObservation, got str"),
        ({"loss_operator": Counted()}, r"must observe real numbers of shape \(2,\), as its rows say, got \(1,\)"),
        ({"loss_operator": Summed(), "scale": 2.0}, "observes 1 numbers of 3 states"),
        ({"loss_operator": Summed(), "method": "sites"}, "the Sum is observed, not the state"),
    ],
)
def test_what_does_not_fit_is_refused(given, match):
    with pytest.raises(ValueError, match=match):
        ssntk.ntk(FLOW, ssntk.Probe(TS), **given)


def test_what_needs_more_than_it_has_is_refused():
    with pytest.raises(ValueError, match="mask must be None for a Foresight loss"):
        ssntk.ntk(FLOW, ssntk.Probe(TS, mask=TS < 2), loss_operator=operator(smooth=True))
    with pytest.raises(ValueError, match="exact must be False for a Foresight loss"):
        ssntk.ntk_spectrum(FLOW, ssntk.Probe(TS), k=2, exact=True, memory=10, loss_operator=operator(smooth=True))
    with pytest.raises(ValueError, match="Summed says nothing of frequencies"):
        ssntk.frequency_signature(FLOW, np.linalg.solve(A, -np.ones(3)), loss_operator=Summed())
    # One number a time is as good as three.
    rows = np.asarray(ssntk.parameter_jacobian(FLOW, ssntk.Probe(TS), method="rows"))[0].sum(axis=1)
    np.testing.assert_allclose(ssntk.ntk(FLOW, ssntk.Probe(TS), loss_operator=Summed()), rows @ rows.T, atol=1e-13)
