"""What newcomers type first works, or is answered by a message that names the right call.

Compiles: one branch and one search of a pendulum with two states.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk


def pendulum(t, x, u, params):
    """As scipy, XPPAUT and PyDSTool have it: a list, of numbers and of scalars."""
    return [x[1], params["I"] - jnp.sin(x[0]) - params["rates"][1] * x[1]]


def model():
    return ssntk.VectorField(pendulum, {"I": 0.0, "rates": [0.5, 0.25]}, 2)


def test_a_list_of_scalars_is_a_velocity():
    field = model()
    x = jnp.array([0.3, -2.0])
    expected = np.array([-2.0, -np.sin(0.3) + 0.25 * 2.0])
    assert np.allclose(field.vector_field(0.0, x, jnp.zeros(0)), expected, rtol=1e-15, atol=0)
    still = ssntk.VectorField(lambda t, x, u, p: (0.0, -x[1], 1), (), 3)
    assert np.array_equal(still.vector_field(0.0, jnp.arange(3.0), jnp.zeros(0)), [0.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda t, x, u, p: [x[1]], r"\(1,\)"),
        (lambda t, x, u, p: [x, x], "list"),
        (lambda t, x, u, p: (x[0], None), "tuple"),
        (lambda t, x, u, p: {"a": x[0]}, "dict"),
    ],
)
def test_a_list_of_anything_else_is_refused(fn, got):
    with pytest.raises(ValueError, match=rf"fn must return shape \(2,\), got {got}"):
        ssntk.VectorField(fn, (), 2)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: ssntk.EulerMap(m, 0.5)], ids=["flow", "map"])
@pytest.mark.parametrize("name", ["I", "params.I", "params['I']", 'params["I"]'])
def test_a_parameter_goes_by_its_name(name, wrap):
    family = ssntk.Family(wrap(model()), name)
    assert family.at == ssntk.Family(wrap(model()), lambda m: m.params["I"]).at
    assert family(0.7).params["I"] == 0.7


@pytest.mark.parametrize("name", ["rates.1", "params.rates.1", "params.rates[1]", "rates[1]"])
def test_a_place_in_a_list_is_part_of_a_name(name):
    assert [float(rate) for rate in ssntk.Family(model(), name)(0.7).params["rates"]] == [0.5, pytest.approx(0.7)]


def test_a_name_of_the_model_goes_before_one_of_its_params():
    class Own(ssntk.VectorField):
        tau: jnp.ndarray = None

    own = Own(lambda t, x, u, p: -p["tau"] * x, {"tau": 2.0}, 1)
    object.__setattr__(own, "tau", jnp.asarray(3.0))
    assert ssntk.Family(own, "tau")(5.0).tau == 5.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i", r"attribute 'i' is not one of VectorField; did you mean 'params.I'\? Known are params.I, params.rates.0"),
        ("params.J", "did you mean|known are params.I, params.rates.0, params.rates.1$"),
        ("rates.7", "is not one of VectorField"),
        ("params.items", "'params.items' is not one of VectorField"),
        ("", "attribute '' is not one of VectorField"),
        ("rate.1", r"did you mean 'params.rates.1'\?"),
        ("fn", "attribute must return floating-point arrays"),
    ],
)
def test_an_unknown_name_is_answered_by_those_that_there_are(name, message):
    with pytest.raises(ValueError, match=message):
        ssntk.Family(model(), name)


def test_an_array_is_not_one_parameter():
    network = ssntk.CTRNN.from_weights(np.eye(2))
    with pytest.raises(ValueError, match=r"attribute must be one scalar, .*Family.line"):
        ssntk.Family(network, "weight")
    with pytest.raises(ValueError, match=r"'taus' is not one of CTRNN; did you mean 'tau'\?"):
        ssntk.Family(network, "taus")
