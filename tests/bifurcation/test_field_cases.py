"""Systems from applications: each line of `reference/field_cases.py`, next to the project, with its known results.

The tests are skipped if that folder does not exist. Compiles each family's branch or diagram.
"""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, seeds, some

import ssntk

FILE = ROOT.parent / "shared" / "reference" / "field_cases.py"


@pytest.fixture(scope="module")
def cases():
    if not FILE.exists():
        pytest.skip("the field cases lie beside the project, in shared/reference, and are not there")
    spec = importlib.util.spec_from_file_location("field_cases", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def places(result, kind):
    return sorted(float(event.parameter) for event in result.bifurcations if event.kind == kind)


def kinds(result):
    return [event.kind for event in result.bifurcations]


# Units and stiffness have tests of their own, tests/bifurcation/test_units.py.
@pytest.mark.slow
def test_1_mixed_units_and_stiffness(cases):
    family, span, published = cases.JANSEN_RIT
    branch = ssntk.continuation(family, span)
    assert branch.unresolved == ()
    for kind, known in published.items():
        # The values there have an error of 2e-3, by an independent solution of the equilibrium's scalar equation.
        np.testing.assert_allclose(places(branch, kind), sorted(known), atol=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-3, 1e3])
def test_2_nothing_but_units(cases, scale):
    family, span, x0 = cases.morris_lecar(scale)
    branch = ssntk.continuation(family, span, x0=x0)
    np.testing.assert_allclose(places(branch, "saddle-node"), [-9.949, 39.963], atol=1e-3)
    np.testing.assert_allclose(places(branch, "hopf"), [97.788], atol=1e-3)
    assert branch.unresolved == ()


SLOWLY = [pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 1), (1e9, 1))]


@pytest.mark.parametrize(("size", "rate"), [(1e3, 1e6), *SLOWLY])
def test_3_kinds_beside_followers(cases, size, rate):
    for make, kind in ((cases.logistic_follower, "transcritical"), (cases.fold_follower, "saddle-node")):
        family, span, x0 = make(size, rate)
        branch = ssntk.continuation(family, span, x0=x0)
        assert kinds(branch) == [kind]
        assert branch.unresolved == ()
        np.testing.assert_allclose(branch.bifurcations[0].parameter, 0.0, atol=1e-12)


def test_4_nothing_is_cut_silently(cases):
    diagram = ssntk.bifurcation_diagram(*cases.CUT)
    fold = 2 / 3 / 3**0.5
    np.testing.assert_allclose(places(diagram, "saddle-node"), [-fold, fold], rtol=1e-12)
    # One branch joins both ends of the span.
    assert diagram.status == "everything that was seen was followed"
    (branch,) = diagram.branches
    np.testing.assert_allclose(sorted(branch.parameter[[0, -1]]), [-1.1, 1.1])
    assert diagram.parent == (None,)
    short = ssntk.bifurcation_diagram(*cases.CUT, max_steps=7, n_slices=2)
    assert "branch 0 stopped at p = " in short.status
    assert "max_steps = 7" in short.status


@pytest.mark.parametrize("e", some([1e-3, 1e-6, 1e-9], [1e-9]))
def test_5_events_that_lie_close_are_told_apart(cases, e):
    family, span = cases.two_modes(e)
    diagram = ssntk.bifurcation_diagram(family, span, n_slices=3)
    assert diagram.unresolved == ()
    np.testing.assert_allclose(places(diagram, "pitchfork"), [0, e, 2 * e, 2 * e], rtol=1e-5, atol=1e-15)


def test_6_a_model_that_depends_on_time_is_refused(cases):
    family = ssntk.Family(cases.FORCED, lambda m: m.params["eta"])
    for look in (
        lambda: ssntk.find_fixed_points(cases.FORCED),
        lambda: ssntk.continuation(family, (0.1, 1.0)),
        lambda: ssntk.bifurcation_diagram(family, (0.1, 1.0)),
        lambda: ssntk.locate(family, "hopf", parameter=0.7, x=[0.0, 0.0]),
        lambda: ssntk.criticality(cases.FORCED),
    ):
        with pytest.raises(ValueError, match="must not depend on t"):
            look()


def test_7_and_15_conserved_quantities_are_held(cases):
    family, span, x0 = cases.KINASE
    branch = ssntk.continuation(family, span, x0=x0)
    assert branch.bifurcations == branch.unresolved == ()
    np.testing.assert_allclose(branch.x[:, 1] + branch.x[:, 2], 1.0, rtol=1e-12)
    # 2 x1 x = 5 x2 at x = 1 / d.
    np.testing.assert_allclose(2 * branch.x[:, 1] / branch.parameter, 5 * branch.x[:, 2], rtol=1e-10)
    np.testing.assert_allclose(np.sort(np.abs(branch.eigenvalues), axis=1)[:, 0], 0.0)
    assert branch.stable.all()
    held = ssntk.continuation(family, span, x0=x0, fix=[([0, 1, 1], 3.0)])
    np.testing.assert_allclose(held.x[:, 1] + held.x[:, 2], 3.0, rtol=1e-12)
    family, span, x0 = cases.HELD_CURRENT
    branch = ssntk.continuation(family, span, x0=x0)
    assert len(branch.x) > 3
    np.testing.assert_array_equal(branch.x[:, 2], 0.0)


def test_9_two_real_eigenvalues_that_cross_at_once(cases):
    (event,) = ssntk.continuation(*cases.D3).bifurcations
    assert (event.kind, event.criticality, event.multiplicity) == ("double", None, 2)
    diagram = ssntk.bifurcation_diagram(*cases.D3, n_slices=3, n_starts=32)
    np.testing.assert_allclose(places(diagram, "saddle-node"), [-0.25] * 3, rtol=1e-12)
    np.testing.assert_allclose(places(diagram, "double"), [0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("k", "decided"), [(4, False), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((3, False), (5, True)))]
)
def test_10_strong_resonances_have_no_criticality(cases, k, decided):
    family, span, x0 = cases.resonant(2 * np.pi / k)
    (event,) = ssntk.continuation(family, span, x0=x0).bifurcations
    assert event.kind == "neimark-sacker"
    np.testing.assert_allclose(event.parameter, 0.0, atol=1e-12)
    assert (event.criticality is not None) == decided
    assert (f"1:{k}" in event.reason) != decided


def test_11_a_line_of_equilibria(cases):
    branch = ssntk.continuation(*cases.LINEAR)
    (event,) = branch.bifurcations
    assert (event.kind, event.criticality) == ("degenerate", None)
    assert "a line of equilibria" in event.reason
    assert len(branch.x) < 100


def test_13_kinks_are_passed(cases):
    for method in ("search", "auto"):
        branch = ssntk.continuation(*cases.RELU, method=method)
        assert [collision.parameter for collision in branch.collisions] == pytest.approx([0.4, 0.5], rel=1e-14)
        assert branch.status.startswith("left the span")


def test_14_conservative_systems_have_no_hopf_points(cases):
    for family, span, x0 in (cases.PENDULA, cases.VOLTERRA):
        branch = ssntk.continuation(family, span, x0=x0)
        assert branch.bifurcations == branch.unresolved == ()
        assert branch.status.endswith("conservative: eigenvalues on the axis")
        assert not branch.stable.any()


# The same kinds, on systems of our own.


def family(fn, n, **params):
    held = {"p": 0.0, **params}
    return ssntk.Family(ssntk.VectorField(lambda t, x, u, P: fn(x, P), held, n), lambda m: m.params["p"])


def test_what_leaves_the_axis_is_an_event():
    """A pair that passes through zero, and two pairs that collide: a Duffing oscillator, a saddle-centre, a charge in a
    magnetic field."""
    duffing = family(lambda x, P: jnp.stack([x[1], P["p"] * x[0] - x[0] ** 3]), 2)
    centre = family(lambda x, P: jnp.stack([x[1], P["p"] - x[0] ** 2]), 2)
    for one, span, x0, kind in (
        (duffing, (-1.0, 1.1), [0.0, 0.0], "pitchfork"),
        (centre, (1.0, -1.0), [1.0, 0.0], "saddle-node"),
    ):
        branch = ssntk.continuation(one, span, x0=x0)
        (event,) = branch.bifurcations
        assert (event.kind, event.criticality) == (kind, None)
        np.testing.assert_allclose(event.parameter, 0.0, atol=1e-10)
        assert "conservative" in event.reason
        assert "conservative" in branch.status
    # x'' = 2 p y' + x, y'' = -2 p x' + y: stable for |p| > 1.
    field = family(lambda x, P: jnp.stack([x[2], x[3], 2 * P["p"] * x[3] + x[0], -2 * P["p"] * x[2] + x[1]]), 4)
    branch = ssntk.continuation(field, (1.3, 0.77), x0=np.zeros(4))
    (event,) = branch.unresolved
    assert branch.bifurcations == ()
    assert event.interval[0] <= 1.0 <= event.interval[1]
    assert "leave it in pairs" in event.reason


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_antisymmetric_and_orthogonal_networks_have_no_events(seed):
    random = np.random.default_rng(seed)
    n = 5 + seed
    weight = random.standard_normal((n, n))
    weight = weight - weight.T
    network = family(lambda x, P: P["p"] * P["W"] @ jnp.tanh(x), n, W=weight)
    branch = ssntk.continuation(network, (0.5, 2.0), x0=np.zeros(n))
    assert branch.bifurcations == branch.unresolved == ()
    assert "conservative" in branch.status


def test_a_ring_of_equilibria_is_named_and_not_followed():
    ring = family(lambda z, P: z * (P["p"] - z @ z), 2)
    (event,) = ssntk.continuation(ring, (-1.0, 1.0)).bifurcations
    assert event.kind == "double"
    on = 0.5**0.5 * np.array([np.cos(1.0), np.sin(1.0)])
    with pytest.raises(ssntk.NumericalError, match="a line of equilibria"):
        ssntk.continuation(ring, (0.5, 1.0), x0=on)
    diagram = ssntk.bifurcation_diagram(ring, (-1.0, 1.0), n_slices=5)
    assert {event.kind for event in diagram.bifurcations} == {"double", "degenerate"}
    assert all("a line of equilibria" in event.reason for event in diagram.bifurcations if event.kind == "degenerate")
    assert sum(len(branch.x) for branch in diagram.branches) < 200
    assert "lines of equilibria were found" in diagram.status


def test_a_state_that_grows_without_bound_is_said():
    # x = 1 / p.
    branch = ssntk.continuation(family(lambda x, P: P["p"] * x - 1, 1), (-1.0, 1.0), x0=[-1.0])
    assert "grows without bound" in branch.status
    np.testing.assert_allclose(branch.parameter[-1], 0.0, atol=1e-5)


def test_events_that_cannot_be_told_apart_are_one_of_their_multiplicity():
    # x' = p x - x^3, y' = (p - 1e-14) y - y^3.
    both = family(lambda x, P: jnp.stack([P["p"], P["p"] - 1e-14]) * x - x**3, 2)
    (event,) = ssntk.continuation(both, (-1.0, 1.1), x0=np.zeros(2)).bifurcations
    assert event.multiplicity == 2
    # Three units that excite themselves alike.
    three = family(lambda x, P: P["p"] * x - x**3, 3)
    (event,) = ssntk.continuation(three, (-1.0, 1.1), x0=np.zeros(3)).bifurcations
    assert (event.kind, event.multiplicity) == ("degenerate", 3)
    np.testing.assert_allclose(event.parameter, 0.0, atol=1e-12)
