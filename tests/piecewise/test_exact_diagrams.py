"""Diagrams of piecewise-linear families: all fixed points at random parameters lie on their branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from relu_networks import drawn, form, patterns_of

import ssntk

relu = jax.nn.relu


def family_of(weight, bias, way, kind):
    def field(t, x, u, p):
        if kind == "current":
            return -x + p["W"] @ relu(x) + p["b"] + p["v"] * u[0]
        return -x + relu(p["W"] @ x + p["b"] + p["v"] * u[0])

    numbers = {"W": weight, "b": bias, "v": way}
    model = ssntk.VectorField(field, {name: jnp.asarray(one) for name, one in numbers.items()}, len(bias), 1)
    return ssntk.Family.input(model, [1.0])


def states_at(diagram, p):
    """All states of a diagram at a parameter: its branches are straight between their points."""
    found = []
    for branch in diagram:
        for i in range(len(branch) - 1):
            low, high = branch.parameter[i : i + 2]
            if min(low, high) <= p < max(low, high):
                found.append(branch.x[i] + (p - low) / (high - low) * (branch.x[i + 1] - branch.x[i]))
    return found


# The network of seed 8 has no fixed point at any of the parameters.
@pytest.mark.parametrize("seed", some([seed for seed in range(20) if seed != 8], range(6)))
def test_all_fixed_points_lie_on_it(seed):
    weight, bias, way, _ = drawn(seed, most=6)
    kind = ("current", "rate")[seed % 2]
    diagram = ssntk.bifurcation_diagram(family_of(weight, bias, way, kind), (-3.0, 3.0))
    size = max(np.abs(branch.x).max() for branch in diagram)
    for p in np.random.default_rng(seed).uniform(-3, 3, 8):
        one = form(kind, weight, bias + p * way)
        patterns = patterns_of(one)
        truth = np.array([-np.linalg.solve(one.jacobian(at), one.h + one.B @ (at * one.c)) for at in patterns])
        found = np.array(states_at(diagram, p))
        assert len(found) == len(truth)
        for x in truth:
            assert np.abs(found - x).max(axis=1).min() <= 1e-10 * size
    assert diagram.status == "everything that was seen was followed"
    assert all(one.kind in ("nonsmooth-fold", "boundary-hopf") for one in diagram.bifurcations)


def test_both_halves_of_a_nonsmooth_fold_are_one_branch():
    family = ssntk.Family(ssntk.VectorField(lambda t, x, u, p: -x + 2 * relu(x) + p["p"], {"p": 0.0}, 1), "p")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    assert len(diagram) == 1
    assert [one.kind for one in diagram.bifurcations] == ["nonsmooth-fold"]
    ax = ssntk.plot.bifurcation_diagram(diagram, y=0)
    assert "Nonsmooth fold" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_branches_that_meet_where_two_units_switch_at_once_are_followed():
    """Two units that inhibit each other: for p < 0 one fixed point, for p > 0 three."""
    weight = jnp.array([[0.0, -2.0], [-2.0, 0.0]])
    family = ssntk.Family(ssntk.VectorField(lambda t, x, u, p: -x + weight @ relu(x) + p["p"], {"p": 0.0}, 2), "p")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0))
    found = sorted(tuple(np.round(x, 9)) for x in states_at(diagram, 0.5))
    # (p / 3, p / 3), (p, -p) and (-p, p).
    assert found == [(-0.5, 0.5), (pytest.approx(0.5 / 3), pytest.approx(0.5 / 3)), (0.5, -0.5)]
    assert states_at(diagram, -0.5) == [pytest.approx([-0.5, -0.5])]
    assert [one.kind for one in diagram.unresolved] == ["border-collision"]
    assert diagram.unresolved[0].multiplicity == 2


def test_a_diagram_over_the_gain():
    weight, bias, _, _ = drawn(2, most=4)
    n = len(bias)
    model = ssntk.VectorField(
        lambda t, x, u, p: -x + p["g"] * p["W"] @ relu(x) + p["b"], {"g": 0.0, "W": weight, "b": bias}, n
    )
    diagram = ssntk.bifurcation_diagram(ssntk.Family(model, "g"), (0.1, 2.0), n_slices=5)
    for g in (0.313, 0.871, 1.577):
        one = form("current", g * weight, bias)
        truth = len(patterns_of(one))
        low = [np.minimum(b.parameter[1:], b.parameter[:-1]) for b in diagram]
        high = [np.maximum(b.parameter[1:], b.parameter[:-1]) for b in diagram]
        assert sum(int(((g >= a) & (g < b)).sum()) for a, b in zip(low, high, strict=True)) == truth


def test_what_does_not_fit_is_named():
    family = ssntk.Family(ssntk.VectorField(lambda t, x, u, p: -x + 2 * relu(x) + p["p"], {"p": 0.0}, 1), "p")
    with pytest.raises(ValueError, match='cycles must be False with method="exact"'):
        ssntk.bifurcation_diagram(family, (-1.0, 1.0), cycles=True, method="exact")
    with pytest.raises(ValueError, match='periods must not be given with method="exact"'):
        ssntk.bifurcation_diagram(family, (-1.0, 1.0), periods=[1.0], method="exact")
    smooth = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    with pytest.raises(ValueError, match="method must be"):
        ssntk.bifurcation_diagram(smooth, (-1.0, 1.0), method="exact")
