"""Every function that locates or judges warns, once, of float32. If a Hopf point is lost for that, the reason says so.

Compiles: the branch of Hindmarsh and Rose's model in float32, and verdicts on one network of 3 units in float32.
"""

import logging
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize

import ssntk
from ssntk import precision
from ssntk.precision import HINT, in_precision

SPAN = (-1.0, 30.0)


def hindmarsh_rose(t, x, u, p):
    return [x[1] - x[0] ** 3 + 3 * x[0] ** 2 - x[2] + p["I"], 1 - 5 * x[0] ** 2 - x[1], 0.006 * (4 * (x[0] + 1.6) - x[2])]


def hopf_points():
    """(I, omega) by Routh and Hurwitz: of s^3 + a s^2 + b s + c a pair lies on the axis where a b = c, b = omega^2."""

    def polynomial(x):
        return np.poly(np.array([[6 * x - 3 * x**2, 1, -1], [-10 * x, -1, 0], [0.024, 0, -0.006]]))

    def condition(x):
        _, a, b, c = polynomial(x)
        return a * b - c

    grid = np.linspace(-3, 4, 2001)
    values = [condition(x) for x in grid]
    found = []
    for low, high, at, after in zip(grid, grid[1:], values, values[1:], strict=False):
        x = scipy.optimize.brentq(condition, low, high, xtol=1e-15) if at * after < 0 else np.nan
        current = x**3 - 3 * x**2 - (1 - 5 * x**2) + 4 * (x + 1.6)
        if SPAN[0] < current < SPAN[1] and polynomial(x)[2] > 0:
            found.append((current, np.sqrt(polynomial(x)[2])))
    return np.array(sorted(found))


def branch(dtype):
    model = ssntk.VectorField(hindmarsh_rose, {"I": jnp.zeros((), dtype)}, 3)
    return ssntk.continuation(ssntk.Family(model, "I"), SPAN)


@pytest.mark.slow
def test_double_precision_finds_every_hopf_point():
    found = branch(jnp.float64).bifurcations
    np.testing.assert_allclose([(one.parameter, one.frequency) for one in found], hopf_points(), rtol=1e-9)


def test_a_hopf_point_that_single_precision_loses_says_so():
    expected = hopf_points()
    assert len(expected) == 4
    with pytest.warns(ssntk.PrecisionWarning, match=r'jax.config.update\("jax_enable_x64", True\)') as seen:
        single = branch(jnp.float32)
    assert len(seen) == 1
    # The warning names the line of the call.
    assert seen[0].filename == __file__
    events = (*single.bifurcations, *single.unresolved)
    np.testing.assert_allclose(sorted(one.parameter for one in events), expected[:, 0], rtol=1e-4)
    assert all(one.reason.endswith("; in float32: try jax_enable_x64") for one in single.unresolved)
    # There is no second warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssntk.stability_radius(-jnp.eye(2, dtype=jnp.float32))


def test_a_hint_stands_once_and_of_single_precision_alone():
    assert in_precision("it is a cusp", np.float64) == "it is a cusp"
    assert in_precision(in_precision("it is a cusp", np.float32), np.float32) == f"it is a cusp{HINT}"


@pytest.fixture(scope="module")
def network():
    network = ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if hasattr(leaf, "dtype") else leaf, network)


X = np.zeros(3, np.float32)
CALLS = {
    "find_fixed_points": lambda model: ssntk.find_fixed_points(model, starts=X[None]),
    "criticality": lambda model: ssntk.criticality(model, n_starts=2),
    "retreat": lambda model: ssntk.retreat(model, 0.01, x=X),
    "approach": lambda model: ssntk.approach(model, "singular", x=X, n_starts=1),
    "bifurcation_channel": lambda model: ssntk.bifurcation_channel(model, ssntk.Probe([0.0, 1.0]), X, throw=False),
    "frequency_signature": lambda model: ssntk.frequency_signature(model, X, [0.1, 0.2]),
    "measure": lambda model: ssntk.measure(model, ssntk.Probe([0.0, 1.0]), X),
    "locate": lambda model: ssntk.locate(ssntk.Family(model, "gain"), "BP", parameter=1.0, x=X),
    "continuation": lambda model: ssntk.continuation(ssntk.Family(model, "gain"), (0.5, 0.6), x0=X),
    "stability_radius": lambda model: ssntk.stability_radius(-jnp.eye(2, dtype=jnp.float32)),
}


@pytest.mark.parametrize("call", CALLS)
def test_whatever_locates_or_judges_warns_before_it_does(call, network, monkeypatch):
    class Said(Exception):
        pass

    def said(*_):
        raise Said

    # Stop here, since the rest would be compiled for nothing.
    monkeypatch.setattr(precision, "warn", said)
    with pytest.raises(Said):
        CALLS[call](network)


def test_double_precision_is_quiet(monkeypatch):
    monkeypatch.setattr(precision, "warn", lambda *_: pytest.fail("nothing is to be said"))
    ssntk.stability_radius(-np.eye(2))


def test_a_warning_is_logged_too(caplog):
    with caplog.at_level(logging.WARNING, "ssntk"), pytest.warns(ssntk.PrecisionWarning) as seen:
        ssntk.stability_radius(-jnp.eye(2, dtype=jnp.float32))
    assert [record.getMessage() for record in caplog.records if record.name == "ssntk"] == [str(seen[0].message)]
