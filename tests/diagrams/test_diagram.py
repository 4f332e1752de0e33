"""Whole diagrams: connected pieces, disconnected pieces, and symmetries that are slightly broken."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

nf = ssntk.normal_forms
FEW = {"n_slices": 3, "n_starts": 16}


def crossings(diagram, parameter):
    """How many equilibria the branches pass at a parameter."""
    sides = [np.sign(branch.parameter - parameter) for branch in diagram.branches]
    return sum(int((side[1:] * side[:-1] < 0).sum()) for side in sides)


def test_branches_that_cross_are_followed_once_each():
    pitchfork = ssntk.bifurcation_diagram(ssntk.Family(nf.pitchfork(0.0), "mu"), (-1.0, 1.0), **FEW)
    assert [event.kind for event in pitchfork.bifurcations] == ["pitchfork"]
    assert len(pitchfork.branches) == 2
    assert [crossings(pitchfork, p) for p in (-0.31, 0.31)] == [1, 3]
    transcritical = ssntk.bifurcation_diagram(ssntk.Family(nf.transcritical(0.0), "mu"), (-1.0, 1.0), **FEW)
    assert [event.kind for event in transcritical.bifurcations] == ["transcritical"]
    assert [crossings(transcritical, p) for p in (-0.31, 0.31)] == [2, 2]
    for diagram, square in ((pitchfork, 2), (transcritical, 1)):
        assert diagram.unresolved == ()
        assert diagram.status == "everything that was seen was followed"
        for branch in diagram.branches:
            # x = 0, or x^square = mu.
            off = np.minimum(np.abs(branch.x[:, 0]), np.abs(branch.x[:, 0] ** square - branch.parameter))
            np.testing.assert_allclose(off, 0.0, atol=1e-12)
            # Each passes the crossing by itself, located to rounding.
            assert [abs(event.parameter) < 1e-13 for event in branch.bifurcations] == [True]


@pytest.mark.parametrize("h", [1e-1, -1e-2, 1e-4, 1e-6, 1e-8])
def test_a_perturbed_pitchfork_has_a_fold_and_a_separate_branch(h):
    diagram = ssntk.bifurcation_diagram(ssntk.Family(nf.pitchfork(0.0, h=h), "mu"), (-1.0, 1.0), **FEW)
    assert len(diagram.branches) == 2
    assert diagram.unresolved == ()
    (fold,) = diagram.bifurcations
    # h + mu x - x^3: fold at x^3 = -h / 2, mu = 3 x^2.
    x = -np.cbrt(h / 2)
    assert fold.kind == "saddle-node"
    np.testing.assert_allclose([fold.x[0], fold.parameter], [x, 3 * x**2], rtol=1e-9)
    connected = next(branch for branch in diagram.branches if not branch.bifurcations)
    # The branch without a fold stays on one side, and stable.
    assert (connected.x[:, 0] * h > 0).all()
    assert connected.stable.all()


@pytest.mark.slow
def test_a_perturbed_transcritical_splits_one_way_or_the_other():
    apart = ssntk.bifurcation_diagram(ssntk.Family(nf.transcritical(0.0, h=1e-6), "mu"), (-1.0, 1.0), **FEW)
    assert (len(apart.branches), apart.bifurcations, apart.unresolved) == (2, (), ())
    gap = ssntk.bifurcation_diagram(ssntk.Family(nf.transcritical(0.0, h=-1e-6), "mu"), (-1.0, 1.0), **FEW)
    # h + mu x - x^2 has no root for mu^2 < 4 |h|.
    np.testing.assert_allclose([event.parameter for event in gap.bifurcations], [-2e-3, 2e-3], rtol=1e-9)
    assert crossings(gap, 0.0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("n_slices", [2, 4])
def test_closed_loops_are_found_and_end_where_they_began(n_slices):
    # Two slices, the ends of the span, miss the loop: there a slow point leads to its fold.
    # x^2 + p^2 = 1 / 4 and, at x = 3, a branch that crosses the whole span.
    def field(t, x, u, p):
        return (0.25 - x**2 - p**2) * (3 - x)

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 1), lambda m: m.params)
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.2), n_slices=n_slices)
    loop, line = sorted(diagram.branches, key=lambda branch: branch.x.max())
    assert "came back to its start" in loop.status
    np.testing.assert_allclose(loop.x[0], loop.x[-1], atol=1e-12)
    np.testing.assert_allclose(loop.x[:, 0] ** 2 + loop.parameter**2, 0.25, atol=1e-12)
    np.testing.assert_allclose([event.parameter for event in diagram.bifurcations], [-0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(line.x, 3.0, rtol=1e-12)


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 10), marks=pytest.mark.slow)])
def test_networks_against_brute_force_on_a_grid(seeds):
    # Seeds that nobody picked. Fixed points from other starts at parameters between the slices: none may lie off the
    # branches, and the number of branches through each parameter is theirs.
    for seed in seeds:
        family = ssntk.Family.input(ssntk.CTRNN(6, 1, 1, gain=2.5, key=jr.key(2000 + seed)), [1.0])
        diagram = ssntk.bifurcation_diagram(family, (-2.0, 2.0))
        assert diagram.unresolved == ()
        for p in (-1.31, -0.53, 0.13, 0.97):
            found = ssntk.find_fixed_points(family(p), n_starts=256, key=jr.key(7))
            assert crossings(diagram, p) == len(found)
        # (p, x) -> (-p, -x) maps an odd network's diagram to itself.
        events = np.array([event.parameter for event in diagram.bifurcations])
        np.testing.assert_allclose(events, -events[::-1], atol=1e-10)


def test_gain_of_a_network_gives_pitchforks_and_hopf_points_by_linear_algebra():
    # At x = 0 the Jacobian of a CTRNN without bias is gain W - 1: it is critical where gain Re(eigenvalue of W) = 1.
    model = ssntk.CTRNN(6, 0, 1, key=jr.key(1))
    diagram = ssntk.bifurcation_diagram(ssntk.Family(model, "gain"), (0.1, 3.0), **FEW)
    values = np.linalg.eigvals(np.asarray(model.weight))
    values = values[(values.real > 1 / 3) & (values.imag >= 0)]
    at_rest = [event for event in diagram.bifurcations if np.abs(event.x).max() < 1e-9]
    np.testing.assert_allclose([event.parameter for event in at_rest], np.sort(1 / values.real), rtol=1e-12)
    kinds = ["pitchfork" if value.imag == 0 else "hopf" for value in values[np.argsort(1 / values.real)]]
    assert [event.kind for event in at_rest] == kinds
    assert "pitchfork" in kinds
    assert len(diagram.branches) == 1 + kinds.count("pitchfork")


def test_limits_are_told():
    pitchfork = ssntk.Family(nf.pitchfork(0.0), "mu")
    one = ssntk.bifurcation_diagram(pitchfork, (-1.0, 1.0), max_branches=1, **FEW)
    assert len(one.branches) == 1
    assert one.status == "stopped at max_branches = 1: more was seen"
    # -1 + mu x - x^2 has no root for mu^2 < 4.
    with pytest.raises(ssntk.NumericalError, match=r"no equilibrium was found at p = -1, -0\.5, 0:"):
        ssntk.bifurcation_diagram(ssntk.Family(nf.transcritical(0.0, h=-1.0), "mu"), (-1.0, 0.0), **FEW)
    for arguments, match in (
        ({"n_slices": 1}, "n_slices"),
        ({"n_starts": 1}, "n_starts"),
        ({"max_branches": 0}, "max_branches"),
    ):
        with pytest.raises(ValueError, match=match):
            ssntk.bifurcation_diagram(pitchfork, (-1.0, 1.0), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_fold_that_is_far_sharper_on_one_side_is_one_branch(side):
    """p = x^2 + K x^3 for x > 0, else x^2: x = -sqrt(p), and near it the root of the cubic, from one fold at 0."""
    steep = 4e4

    def field(t, x, u, p):
        y = side * x[0]
        return jnp.stack([p - y**2 - steep * jnp.maximum(y, 0.0) ** 3, -x[1]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0), n_slices=2)
    assert [event.kind for event in diagram.bifurcations] == ["saddle-node"]
    (branch,) = diagram.branches
    ends = np.sort(side * branch.x[[0, -1], 0])
    roots = np.roots([steep, 1.0, 0.0, -1.0])
    np.testing.assert_allclose(branch.parameter[[0, -1]], 1.0, atol=1e-9)
    np.testing.assert_allclose(ends, [-1.0, roots[(roots.imag == 0) & (roots.real > 0)].real.item()], rtol=1e-8)
