"""Branches do not depend on the units of their states, of time and of the parameter.

Compiles each system's branch once, for all draws of its units, which differ in the values of arrays only.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import BRANCHES, reference_family, seeds

import ssntk


def logistic(v, steep, centre):
    return 1 / (1 + jnp.exp(-steep * (v - centre)))


def hodgkin_huxley(x, p):
    """In mV and ms, with the constants of Hodgkin and Huxley (1952), shifted to a rest of -65 mV."""
    V, m, h, n = x

    def linear_over_exponential(y):
        small = jnp.abs(y) < 1e-6
        return jnp.where(small, 1 + y / 2, y / -jnp.expm1(-jnp.where(small, 1.0, y)))

    return jnp.stack(
        [
            p - 120 * m**3 * h * (V - 50) - 36 * n**4 * (V + 77) - 0.3 * (V + 54.387),
            linear_over_exponential((V + 40) / 10) * (1 - m) - 4 * jnp.exp(-(V + 65) / 18) * m,
            0.07 * jnp.exp(-(V + 65) / 20) * (1 - h) - logistic(V, 0.1, -35.0) * h,
            0.1 * linear_over_exponential((V + 55) / 10) * (1 - n) - 0.125 * jnp.exp(-(V + 65) / 80) * n,
        ]
    )


def wilson_cowan(x, p):
    E, I = x  # noqa: E741

    def response(v, steep, centre):
        return logistic(v, steep, centre) - logistic(0.0, steep, centre)

    return jnp.stack(
        [-E + (1 - E) * response(16 * E - 12 * I + p, 1.3, 4.0), -I + (1 - I) * response(15 * E - 3 * I, 2.0, 3.7)]
    )


def hindmarsh_rose(x, p):
    return jnp.stack(
        [x[1] - x[0] ** 3 + 3 * x[0] ** 2 - x[2] + p, 1 - 5 * x[0] ** 2 - x[1], 0.006 * (4 * (x[0] + 1.6) - x[2])]
    )


def jansen_rit(x, p):
    """In mV and mV / s, as printed by Grimbert and Faugeras (2006)."""
    pyramidal, excitatory, inhibitory = (5 * logistic(v, 0.56, 6.0) for v in (x[1] - x[2], 135 * x[0], 33.75 * x[0]))
    return jnp.stack(
        [
            *x[3:],
            325 * pyramidal - 200 * x[3] - 1e4 * x[0],
            325 * (p + 108 * excitatory) - 200 * x[4] - 1e4 * x[1],
            1100 * 33.75 * inhibitory - 100 * x[5] - 2500 * x[2],
        ]
    )


def morris_lecar(x, p):
    """Type I constants of Rinzel and Ermentrout."""
    V, w = x
    opened = 0.5 * (1 + jnp.tanh((V + 1.2) / 18))
    return jnp.stack(
        [
            (p - 4 * opened * (V - 120) - 8 * w * (V + 84) - 2 * (V + 60)) / 20,
            jnp.cosh((V - 12) / 34.8) / 15 * (0.5 * (1 + jnp.tanh((V - 12) / 17.4)) - w),
        ]
    )


# Spans, starts, and what is known: the events of Jansen and Rit's and of Morris and Lecar's model as published, those of
# Hodgkin and Huxley's as AUTO and MatCont print them (Hopf at 9.78 and 154.5), the Hopf points of Hindmarsh and Rose's in
# closed form by Routh and Hurwitz.
SYSTEMS = {
    "hodgkin-huxley": (hodgkin_huxley, 4, (-10.0, 180.0), [-65, 0.05, 0.6, 0.3], {"hopf": [9.78, 154.5]}),
    "wilson-cowan": (wilson_cowan, 2, (-1.0, 4.0), [0, 0], {}),
    "hindmarsh-rose": (hindmarsh_rose, 3, (-12.0, 25.0), [-2, -20, -2], {}),
    "jansen-rit": (jansen_rit, 6, (-60.0, 400.0), None, {"saddle-node": [-41.3, 113.586], "hopf": [-12.15, 89.83, 315.70]}),
    "morris-lecar": (morris_lecar, 2, (-50.0, 200.0), [-84.96, 1.4e-5], {"saddle-node": [-9.95, 39.96], "hopf": [97.79]}),
}


def in_units(fn):
    """z' = c S f(z / S; p / a)."""
    return lambda t, z, u, P: P["c"] * P["S"] * fn(z / P["S"], P["p"] / P["a"])


FIELDS = {name: in_units(system[0]) for name, system in SYSTEMS.items()}


def followed(field, n, span, x0, S, c, a):
    params = {"S": jnp.asarray(S), "c": c, "a": a, "p": 0.0}
    family = ssntk.Family(ssntk.VectorField(field, params, n), lambda m: m.params["p"])
    return ssntk.continuation(family, (span[0] * a, span[1] * a), x0=None if x0 is None else S * np.asarray(x0, float))


def what(branch):
    """All results that must not depend on the units."""
    events = [(event.kind, event.criticality, event.multiplicity) for event in branch.bifurcations]
    return events, len(branch.unresolved), branch.status.split(" at p = ")[0], branch.stable[[0, -1]].tolist()


def compare(base, branch, S, c, a):
    assert what(branch) == what(base)
    for event, other in zip(branch.bifurcations, base.bifurcations, strict=True):
        np.testing.assert_allclose(event.parameter / a, other.parameter, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(event.x / S, other.x, rtol=1e-6, atol=1e-7 * np.abs(other.x).max())
        np.testing.assert_allclose(event.frequency / c, other.frequency, rtol=1e-6)
        # A quadratic coefficient changes its sign with the critical direction.
        turn = np.sign((event.right / S) @ other.right).real if other.criticality is None else 1
        assert np.sign(event.coefficient) * turn == np.sign(other.coefficient)
    for end in (0, -1):
        np.testing.assert_allclose(branch.eigenvalues[end] / c, base.eigenvalues[end], rtol=1e-6)


def draws(count, n, seed):
    random = np.random.default_rng(seed)
    return [(10 ** random.uniform(-6, 6, n), *10 ** random.uniform(-6, 6, 2)) for _ in range(count)]


ALL_DRAWS = [pytest.param(name, 20, marks=pytest.mark.slow) for name in SYSTEMS]


@pytest.mark.parametrize(("name", "count"), [("hodgkin-huxley", 5), *ALL_DRAWS])
def test_published_neurons_in_any_units(name, count):
    _, n, span, x0, published = SYSTEMS[name]
    base = followed(FIELDS[name], n, span, x0, np.ones(n), 1.0, 1.0)
    assert base.unresolved == ()
    for kind, places in published.items():
        found = sorted(event.parameter for event in base.bifurcations if event.kind == kind)
        # What is printed there has three or four digits.
        np.testing.assert_allclose(found, places, rtol=1e-3)
    for S, c, a in draws(count, n, len(name)):
        compare(base, followed(FIELDS[name], n, span, x0, S, c, a), S, c, a)


def network(t, z, u, P):
    x = z / P["S"]
    velocity = (-x + P["weight"] @ jnp.tanh(x) + P["along"] * P["p"] / P["a"] + P["bias"]) / P["tau"]
    return P["c"] * P["S"] * velocity


SLOW = [pytest.param(name, marks=pytest.mark.slow) if len(BRANCHES[name]["W"]) > 40 else name for name in BRANCHES]


@pytest.mark.parametrize("name", SLOW)
def test_reference_branches_in_any_units(name):
    family, x0, span, events = reference_family(name)
    model = family.model
    n = model.n_state
    numbers = {"weight": model.weight, "along": model.input_weight[:, 0], "bias": model.bias, "tau": model.tau}
    tau = jnp.broadcast_to(numbers["tau"], (n,))

    def branch(S, c, a):
        params = numbers | {"tau": tau, "S": jnp.asarray(S), "c": c, "a": a, "p": 0.0}
        moved = ssntk.Family(ssntk.VectorField(network, params, n), lambda m: m.params["p"])
        return ssntk.continuation(moved, (span[0] * a, span[1] * a), x0=S * x0)

    for S, c, a in draws(4 if n < 40 else 1, n, n):
        found = branch(S, c, a)
        assert found.unresolved == ()
        assert [event.kind for event in found.bifurcations] == [event["kind"] for event in events]
        for event, known in zip(found.bifurcations, events, strict=True):
            np.testing.assert_allclose(event.parameter / a, float(known["p"]), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(event.x / S, known["x"], rtol=1e-8, atol=1e-8)


SIZES = [(1.0, 1e3, 1e-9, 1e9), (1.0, 1e6, 1e-3)]


@pytest.mark.parametrize(
    "pairs", [[(1.0, 1.0), (1e-9, 1e6), (1e9, 1e-3)], pytest.param([*itertools.product(*SIZES)], marks=pytest.mark.slow)]
)
def test_weak_states_beside_strong_ones_and_fast_beside_slow(pairs):
    """y' = -k (y - x) follows x. The bifurcations of x must not depend on k, nor on the size N of both."""

    def transcritical(t, x, u, P):
        return jnp.stack([x[0] * (P["p"] - x[0] / P["N"]), -P["k"] * (x[1] - x[0])])

    def fold(t, x, u, P):
        return jnp.stack([P["p"] + x[0] ** 2 / P["N"], -P["k"] * (x[1] - x[0])])

    for size, rate in pairs:
        for field, start, kind in ((transcritical, 0.0, "transcritical"), (fold, -np.sqrt(size), "saddle-node")):
            model = ssntk.VectorField(field, {"p": 0.0, "N": size, "k": rate}, 2)
            family = ssntk.Family(model, lambda m: m.params["p"])
            branch = ssntk.continuation(family, (-1.0, 1.1), x0=[start, start])
            assert [event.kind for event in branch.bifurcations] == [kind], (size, rate)
            assert branch.unresolved == ()
            np.testing.assert_allclose(branch.bifurcations[0].parameter, 0.0, atol=1e-12)


def test_given_sizes_change_no_answer():
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    for scale in (1e-3, 1.0, [50.0]):
        branch = ssntk.continuation(family, (1.0, -1.0), x0=[1.0], scale=scale)
        assert [event.kind for event in branch.bifurcations] == ["saddle-node"]
        np.testing.assert_allclose(branch.bifurcations[0].parameter, 0.0, atol=1e-12)
        np.testing.assert_array_equal(branch.scale, np.broadcast_to(scale, 1))


def test_a_hopf_point_of_any_amplitude_keeps_its_criticality():
    # r' = r (mu - r^2 / N): supercritical for every N.
    def field(t, x, u, P):
        return (P["p"] - (x @ x) / P["N"]) * x + jnp.stack([-x[1], x[0]])

    found = []
    for size in (1e-12, 1.0, 1e12):
        family = ssntk.Family(ssntk.VectorField(field, {"p": 0.0, "N": size}, 2), lambda m: m.params["p"])
        (event,) = ssntk.continuation(family, (-1.0, 1.1)).bifurcations
        assert (event.kind, event.criticality) == ("hopf", "supercritical")
        found.append(event.coefficient * size)
    # In units of the state, the coefficient is one over a square.
    np.testing.assert_allclose(found, found[1], rtol=1e-9)


def test_the_same_shapes_in_other_units_compile_nothing(compilations):
    def branch(S, c, a):
        return followed(FIELDS["wilson-cowan"], 2, (-1.0, 4.0), [0, 0], np.array(S), c, a)

    branch([2.0, 3.0], 1.0, 1.0)
    before = len(compilations)
    branch([1e-4, 1e5], 1e3, 1e-2)
    assert len(compilations) == before


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_units_that_are_saturated_where_the_branch_begins_hide_no_fold(seed):
    """dx/dt = -x + 2 tanh(x) + p + c.tanh(y), dy/dt = -y + w p: at the ends of the span y is far out, where tanh(y) is flat.

    Folds lie where 2 sech(x)^2 = 1. There l.f_xx(r, r) / 2 is -tanh(x), as l = r along x, in units of x.
    """
    rng = np.random.default_rng(seed)
    w, c, units = rng.uniform(3.0, 4.5, 6), rng.uniform(-0.1, 0.1, 6), 10 ** rng.uniform(-6, 6, 7)

    def field(t, z, u, P):
        x = z / P["S"]
        bistable = -x[0] + 2 * jnp.tanh(x[0]) + u[0] + P["c"] @ jnp.tanh(x[1:])
        return P["S"] * jnp.append(bistable, P["w"] * u[0] - x[1:])

    family = ssntk.Family.input(ssntk.VectorField(field, {"S": units, "w": w, "c": c}, 7, n_input=1), [1.0])
    branch = ssntk.continuation(family, (-4.0, 4.0))
    x = np.arctanh(0.5**0.5)
    exact = scipy.optimize.brentq(lambda p: p + c @ np.tanh(w * p) + 2 * np.tanh(x) - x, -2, 2, xtol=1e-15)
    assert [event.kind for event in branch.bifurcations] == ["saddle-node"] * 2
    assert branch.unresolved == ()
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [-exact, exact], rtol=1e-11)
    sizes = [event.coefficient * units[0] for event in branch.bifurcations]
    # At the first fold x < 0.
    np.testing.assert_allclose(sizes, [0.5**0.5, -(0.5**0.5)], rtol=1e-9)
