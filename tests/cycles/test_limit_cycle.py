"""Limit cycles of flows, against closed forms, published periods and SciPy's integration of the flow and its variation.

Compiled: Newton's iteration on a few meshes for each field, and a window of the simulation: fields of 2, 3, 5 and 20 states.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from helpers import seeds
from oscillators import hopf, langford, lorenz, monodromy, network, nontrivial, roessler, units, van_der_pol

import ssntk


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_a_circle_by_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    p = {"mu": rng.uniform(0.05, 1.0), "om": rng.uniform(1.5, 3.0), "b": rng.uniform(-1, 1)}
    orbit = ssntk.limit_cycle(ssntk.VectorField(hopf, p, 2, 0), rng.normal(size=2))
    period = 2 * np.pi / (p["om"] - p["b"] * p["mu"])
    np.testing.assert_allclose(orbit.period, period, rtol=1e-12)
    np.testing.assert_allclose(np.hypot(*orbit.x.T), np.sqrt(p["mu"]), rtol=1e-10)
    np.testing.assert_allclose(orbit.multipliers, [np.exp(-2 * p["mu"] * period)], atol=1e-10)
    assert orbit.stable
    assert orbit.multiplier_error[0] < 1e-9
    assert orbit.residual < 1e-13
    # Seven rounds are the same cycle.
    again = ssntk.limit_cycle(ssntk.VectorField(hopf, p, 2, 0), orbit.x[0], 7 * period)
    np.testing.assert_allclose(again.period, period, rtol=1e-12)


# Periods by Taylor series of order 36 in 45 digits.
@pytest.mark.parametrize(("mu", "period"), [(1.0, 6.66328685932313019), (10.0, 19.07836956693901407)])
def test_van_der_pols_period(mu, period):
    orbit = ssntk.limit_cycle(ssntk.VectorField(van_der_pol, mu, 2, 0), [1.0, 0.0])
    np.testing.assert_allclose(orbit.period, period, rtol=1e-12)
    assert orbit.stable
    if mu == 1:
        # The integral of the divergence along the orbit, by quadrature.
        np.testing.assert_allclose(np.log(orbit.multipliers[0].real), -7.05893281, atol=1e-8)
    else:
        # The true multiplier is exp(-311.8): the result says that it does not know it.
        assert abs(orbit.multipliers[0]) <= orbit.multiplier_error[0]


# DOP853 with rtol 1e-12 and Newton's iteration.
@pytest.mark.parametrize(
    ("c", "period", "multiplier"), [(2.5, 5.748991183278, -0.7696936417), (2.8, 5.767920585473, -0.9783592201)]
)
def test_roesslers_cycle_before_its_period_doubling(c, period, multiplier):
    model = ssntk.VectorField(roessler, c, 3, 0)
    orbit = ssntk.limit_cycle(model, [1.0, 1.0, 0.0])
    np.testing.assert_allclose(orbit.period, period, rtol=1e-11)
    np.testing.assert_allclose(orbit.multipliers[0], multiplier, atol=1e-8)
    # A guess of two or three rounds leads to the same cycle, run through once.
    for rounds in (2, 3):
        again = ssntk.limit_cycle(model, orbit.x[0], rounds * orbit.period)
        np.testing.assert_allclose(again.period, period, rtol=1e-11)


def test_a_doubled_cycle_is_not_halved_and_the_single_one_is_found_by_its_period():
    model = ssntk.VectorField(roessler, 3.0, 3, 0)
    doubled = ssntk.limit_cycle(model, [1.0, 1.0, 0.0])
    single = ssntk.limit_cycle(model, doubled.x[0], doubled.period / 2)
    assert doubled.stable
    assert not single.stable
    assert single.n_unstable == 1
    assert single.multipliers[0].real < -1
    assert 1e-4 < abs(doubled.period / single.period - 2) < 0.1
    for orbit in (doubled, single):
        end, matrix = monodromy(model, orbit)
        np.testing.assert_allclose(end, orbit.x[0], atol=1e-8)
        np.testing.assert_allclose(orbit.multipliers[0], nontrivial(matrix)[0], rtol=1e-6)


@pytest.mark.slow
def test_lorenz_unstable_cycle():
    # Viswanath, Nonlinearity 16 (2003) 1035: the orbit AB of the Lorenz attractor.
    x = [-13.763610682134, -19.578751942452, 27.0]
    orbit = ssntk.limit_cycle(ssntk.VectorField(lorenz, 28.0, 3, 0), x, 1.56)
    np.testing.assert_allclose(orbit.period, 1.558652210716, rtol=1e-12)
    assert not orbit.stable
    assert orbit.n_unstable == 1


@pytest.mark.slow
@pytest.mark.parametrize("a", [0.3, 0.4, 0.48])
def test_complex_multipliers_by_their_closed_form(a):
    orbit = ssntk.limit_cycle(ssntk.VectorField(langford, a, 3, 0), [1.0, 0.0, 0.7])
    trace, squared = a - 0.49, 0.6 + 0.7 * a - 0.7**3 / 3
    exponent = (trace + 1j * np.sqrt(8 * squared - trace**2)) / 2
    wanted = np.exp(exponent * 2 * np.pi / 3.5)
    np.testing.assert_allclose(orbit.period, 2 * np.pi / 3.5, rtol=1e-12)
    values = sorted(orbit.multipliers, key=lambda value: value.imag)
    np.testing.assert_allclose(values, sorted([wanted, wanted.conj()], key=lambda value: value.imag), atol=1e-10)
    assert orbit.stable


@pytest.mark.parametrize(
    ("n", "seed"), [(5, 0), *[pytest.param(n, s, marks=pytest.mark.slow) for n in (5, 20) for s in range(1, 6)]]
)
def test_networks_by_scipys_integration(n, seed):
    model = network(seed, n)
    orbit = ssntk.limit_cycle(model, 0.1 * np.ones(n))
    end, matrix = monodromy(model, orbit)
    np.testing.assert_allclose(end, orbit.x[0], atol=1e-9)
    wanted = nontrivial(matrix)
    np.testing.assert_allclose(np.abs(orbit.multipliers[:3]), np.abs(wanted[:3]), atol=1e-9)
    assert orbit.method == ("collocation" if n <= 16 else "shooting")
    assert orbit.stable == bool(abs(wanted[0]) < 1)


def test_shooting_and_collocation_agree():
    model, orbits = network(0, 5), []
    for method in ("collocation", "shooting"):
        orbits.append(ssntk.limit_cycle(model, 0.1 * np.ones(5), method=method))
    np.testing.assert_allclose(orbits[0].period, orbits[1].period, rtol=1e-10)
    np.testing.assert_allclose(np.abs(orbits[0].multipliers), np.abs(orbits[1].multipliers), atol=1e-9)


@pytest.mark.parametrize(("states", "rate"), [(1e6, 1e-4), pytest.param(1e-7, 1e5, marks=pytest.mark.slow)])
def test_units_do_not_matter(states, rate):
    scale = states * 10.0 ** np.array([0, 2, -1, 0, 1])
    here = ssntk.limit_cycle(network(3, 5, np.ones(5)), 0.1 * np.ones(5))
    weight, bias, _, _ = network(3, 5).params
    other = ssntk.VectorField(units, (weight, bias, jnp.asarray(scale), rate), 5, 0)
    there = ssntk.limit_cycle(other, 0.1 * scale)
    np.testing.assert_allclose(there.period * rate, here.period, rtol=1e-10)
    np.testing.assert_allclose(np.abs(there.multipliers), np.abs(here.multipliers), atol=1e-9)
    np.testing.assert_allclose(there.maximum / scale, here.maximum, rtol=1e-2)
    assert (there.method, there.stable) == (here.method, here.stable)


def test_new_weights_compile_nothing(compilations):
    ssntk.limit_cycle(network(3, 5), 0.1 * np.ones(5))
    first = ssntk.limit_cycle(network(0, 5), 0.1 * np.ones(5))
    del compilations[:]
    second = ssntk.limit_cycle(network(0, 5, states=2.0, rate=3.0), 0.2 * np.ones(5))
    assert len(compilations) == 0
    np.testing.assert_allclose(second.period * 3, first.period, rtol=1e-9)


def test_a_simulation_that_ends_elsewhere_says_where():
    rests = ssntk.VectorField(lorenz, 20.0, 3, 0)
    with pytest.raises(ssntk.NumericalError, match="ends at an equilibrium"):
        ssntk.limit_cycle(rests, [1.0, 1.0, 20.0])
    with pytest.raises(ssntk.NumericalError, match="grows without bound"):
        ssntk.limit_cycle(
            ssntk.VectorField(lambda t, x, u, p: p * x + x[::-1] * jnp.array([1.0, -1.0]), 0.1, 2, 0), [1.0, 0.0]
        )
    with pytest.raises(ssntk.NumericalError, match="no cycle was found near x0"):
        ssntk.limit_cycle(rests, [1.0, 1.0, 20.0], 0.3)


@pytest.mark.slow
def test_closed_orbits_side_by_side_are_no_cycle():
    # Without damping every orbit is closed.
    with pytest.raises(ssntk.NumericalError, match="settles on no cycle of its own"):
        ssntk.limit_cycle(ssntk.VectorField(van_der_pol, 0.0, 2, 0), [2.0, 0.0])


@pytest.mark.slow
def test_chaos_and_a_torus_are_told_apart():
    # Sprott, *Chaos and Time-Series Analysis*, 2003: the largest exponents are 0.9056 and 0.0714.
    for field, p, x, exponent in ((lorenz, 28.0, [1.0, 1.0, 20.0], 0.9056), (roessler, 5.7, [1.0, 1.0, 0.0], 0.0714)):
        with pytest.raises(ssntk.NumericalError, match="ends in chaos: nearby states separate at a rate of") as caught:
            ssntk.limit_cycle(ssntk.VectorField(field, p, 3, 0), x)
        rate = float(str(caught.value).split("at a rate of ")[1].split()[0])
        np.testing.assert_allclose(rate, exponent, rtol=0.3)
    with pytest.raises(ssntk.NumericalError, match="ends on a torus"):
        ssntk.limit_cycle(ssntk.VectorField(langford, 0.55, 3, 0), [1.0, 0.0, 0.7])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": ssntk.normal_forms.saddle_node(1.0)}, "model must have at least two states"),
        ({"model": ssntk.EulerMap(ssntk.normal_forms.hopf(0.1, 1.0), 0.1)}, "model must be a flow"),
        ({"x0": [1.0]}, "x0 must have shape"),
        ({"period": 0.0}, "period must be positive"),
        ({"period": -1.0}, "period must be positive"),
        ({"u": [1.0]}, "u must have shape"),
        ({"method": "simulation"}, "method must be"),
        ({"intervals": 24}, "intervals must be a power of two"),
        ({"intervals": 1024}, "intervals must be a power of two"),
        ({"degree": 1}, "degree must be"),
    ],
)
def test_mistakes_are_named(change, said, compilations):
    arguments = {"model": ssntk.VectorField(van_der_pol, 1.0, 2, 0), "x0": [1.0, 0.0]} | change
    if "model" in change:
        arguments["x0"] = np.ones(change["model"].n_state)
    with pytest.raises(ValueError, match=said):
        ssntk.limit_cycle(**arguments)


def test_the_result_speaks_and_is_saved(tmp_path):
    model = ssntk.VectorField(van_der_pol, 1.0, 2, 0)
    orbit = ssntk.limit_cycle(model, [1.0, 0.0])
    assert "stable limit cycle of period 6.663286859" in repr(orbit)
    ssntk.save(tmp_path / "orbit.npz", orbit)
    assert ssntk.load(tmp_path / "orbit.npz") == orbit
    np.testing.assert_allclose(orbit.frequency, 2 * np.pi / 6.66328685932313, rtol=1e-12)
    assert orbit.ts.shape == (len(orbit),)
    assert (np.diff(orbit.ts) > 0).all()
    # The readout of this model is its state.
    np.testing.assert_array_equal(orbit.outputs, orbit.x)


def relaxing(t, x, u, p):
    """Ten neurons of FitzHugh and Nagumo, each drawn towards their mean, whose voltages are 1 / eps times as fast."""
    v, w = x[:10], x[10:]
    return jnp.concatenate([(v - v**3 / 3 - w + 0.8 + 0.2 * (v.mean() - v)) / p, v + 0.7 - 0.8 * w])


@pytest.mark.slow
@pytest.mark.parametrize(("eps", "method"), [(0.1, "shooting"), (0.003, "collocation")])
def test_many_states_are_collocated_if_they_are_stiff(eps, method):
    model = ssntk.VectorField(relaxing, eps, 20, 0)
    orbit = ssntk.limit_cycle(model, np.concatenate([1 + 0.01 * np.arange(10), np.zeros(10)]))
    assert orbit.method == method
    assert orbit.stable
    # They end in step: the period is that of one alone, here by Radau between two maxima.
    field = lambda t, y: [(y[0] - y[0] ** 3 / 3 - y[1] + 0.8) / eps, y[0] + 0.7 - 0.8 * y[1]]  # noqa: E731
    passes = lambda t, y: y[0]  # noqa: E731
    passes.direction = 1
    found = scipy.integrate.solve_ivp(field, (0, 20), [1, 0], "Radau", events=passes, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(orbit.period, np.diff(found.t_events[0])[-1], rtol=1e-7)
