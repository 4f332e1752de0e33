"""Branches of fields with kinks that are not piecewise linear, followed by the corrector, against closed forms.

Most fields are piecewise linear in y = sinh(x), so that their kinks are known. They are one model, whose values differ, and
compile once for flows and once for maps. The corners of ReLU networks are compared with exact pivoting.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import seeds, some
from relu_networks import drawn

import ssntk
from ssntk.zeros import arclength, passed

relu = jax.nn.relu
# All of the first forty random networks that have so many units, but two without an equilibrium at the start. Of one size
# they compile once.
SIZES, WITHOUT, SPAN = (5, 8), (26, 29), (-3.0, 3.0)
SEEDS = [seed for seed in range(40) if len(drawn(seed)[1]) in SIZES and seed not in WITHOUT]
SLOPE, PLACE = 2.0, 0.3


def bent(t, x, u, params):
    """dy/dt = p + b y + c |y - d| in y = sinh(x / s), in the units s of x, a of p and c of time."""
    s, a, c = params["units"]
    y = jnp.sinh(x / s)
    rate = params["p"] / a - params["slope"] * y + params["jump"] * jnp.abs(y - params["place"])
    return s * rate / jnp.cosh(x / s) / c


def bend(slope=1.0, jump=SLOPE, place=PLACE, units=(1.0, 1.0, 1.0), cell=ssntk.VectorField):
    params = {"p": 0.0, "slope": slope, "jump": jump, "place": place, "units": jnp.asarray(units)}
    step = bent if cell is ssntk.VectorField else lambda t, x, u, params: x + 0.5 * bent(t, x, u, params)
    return ssntk.Family(cell(step, jax.tree.map(jnp.asarray, params), 1), "p")


def told(branch):
    """What a branch says of its corners and its end."""
    return [(one.kind, one.unstable) for one in branch.collisions], [one.kind for one in branch.bifurcations], branch.status


@pytest.mark.parametrize("cell", [ssntk.VectorField, ssntk.Map])
def test_a_branch_turns_at_a_nonsmooth_fold(cell):
    """Before the kink y = (p + 0.6) / 3, behind it y = 0.6 - p."""
    branch = ssntk.continuation(bend(cell=cell), (-0.5, 1.0))
    (fold,), (event,) = branch.collisions, branch.bifurcations
    assert told(branch) == ([("nonsmooth-fold", (0, 1))], ["nonsmooth-fold"], "left the span at p = -0.5")
    np.testing.assert_allclose([fold.parameter, fold.x[0], fold.delta], [0.3, np.arcsinh(0.3), -1 / 3], rtol=1e-9)
    np.testing.assert_allclose([event.parameter, event.x[0]], [0.3, np.arcsinh(0.3)], rtol=1e-14)
    assert branch.unresolved == ()
    assert (fold.unit, fold.units) == (None, ())
    assert fold.born == ({} if cell is ssntk.VectorField else None)
    np.testing.assert_allclose(np.sinh(branch.x[-1, 0]), 1.1, rtol=1e-12)
    (at,) = branch.steps
    assert branch.parameter[at] == event.parameter
    assert branch.stable[: at + 1].all()
    assert not branch.stable[at + 1 :].any()


def test_a_branch_goes_straight_on_where_it_persists():
    branch = ssntk.continuation(bend(slope=2.0, jump=1.0), (-0.5, 1.5))
    assert told(branch) == ([("persistence", (0, 0))], [], "left the span at p = 1.5")
    np.testing.assert_allclose([branch.collisions[0].parameter, branch.collisions[0].delta], [0.6, 1 / 3], rtol=1e-9)
    assert branch.unresolved == ()
    np.testing.assert_allclose(np.sinh(branch.x[-1, 0]), 1.2, rtol=1e-12)
    assert "persistence at p = 0.6: delta = 0.333333" in str(branch.collisions[0])
    assert "persistence  0.6        -" in branch.summary()


def test_a_kink_at_an_end_of_the_span():
    end = ssntk.continuation(bend(), (-0.5, 0.3))
    assert told(end) == ([], [], "left the span at p = 0.3")
    assert end.stable.all()
    start = ssntk.continuation(bend(), (0.3, -0.5), x0=[np.arcsinh(0.3)])
    assert "no way on was found" in start.status or start.status == "left the span at p = -0.5"
    persists = bend(slope=2.0, jump=1.0)
    for span in ((0.6, 1.5), (-0.5, 0.6)):
        branch = ssntk.continuation(persists, span, x0=None if span[0] < 0 else [np.arcsinh(0.3)])
        assert branch.status == f"left the span at p = {span[1]:g}"
        assert branch.stable.all()
        assert branch.bifurcations == branch.unresolved == ()
    both = ssntk.continuation(persists, (0.0, 1.5), x0=[np.arcsinh(0.3)], at=0.6, both=True)
    assert told(both)[0] == [("persistence", (0, 0))]
    np.testing.assert_allclose(np.sinh(both.x[[0, -1], 0]), [0.1, 1.2], rtol=1e-12)


def test_bounds_events_and_both_directions():
    place = np.arcsinh(0.3)
    kink = ssntk.Crossing("kink", lambda x, p: np.sinh(x[0]) - 0.3)
    later = ssntk.Crossing("later", lambda x, p: x[0] - 0.5, stop=True)
    branch = ssntk.continuation(bend(), (-0.5, 1.0), at=0.0, x0=[-0.3], both=True, events=[kink, later])
    assert sorted(one.kind for one in branch.bifurcations) == ["kink", "later", "nonsmooth-fold"]
    found = {one.kind: one.parameter for one in branch.bifurcations}
    np.testing.assert_allclose([found["kink"], found["later"]], [0.3, 0.6 - np.sinh(0.5)], rtol=1e-12)
    assert branch.status.startswith("left the span at p = -0.5") or "later" in branch.status
    held = ssntk.continuation(bend(), (-0.5, 1.0), bounds={0: (-3.0, place + 0.1)})
    assert held.status == f"left its bounds at p = {0.6 - np.sinh(place + 0.1):.6g}: state 0 reached {place + 0.1:g}"


def mixed(closed):
    """p - x with a jump at x = 0.2, or |x| + |p| = 1/2 in slanted coordinates: one model."""

    def field(t, x, u, params):
        p = params["p"]
        jumps = p - x + jnp.where(x > 0.2, 1.0, 0.0)
        square = jnp.abs(x - 0.1) + jnp.abs(p + 0.05) + 0.3 * x * p - 0.5
        return params["closed"] * square + (1 - params["closed"]) * jumps

    return ssntk.Family(ssntk.VectorField(field, {"p": jnp.asarray(0.0), "closed": jnp.asarray(closed)}, 1), "p")


def test_a_closed_branch_with_four_corners():
    """The corners are where x = 0.1 or p = -0.05."""
    branch = ssntk.continuation(mixed(1.0), (-1.0, 1.0), x0=[0.5], at=0.0)
    assert branch.status == "came back to its start"
    assert len(branch.collisions) == 4
    x, p = np.array([one.x[0] for one in branch.collisions]), np.array([one.parameter for one in branch.collisions])
    assert (np.minimum(np.abs(x - 0.1), np.abs(p + 0.05)) < 1e-14).all()
    np.testing.assert_allclose(np.abs(x - 0.1) + np.abs(p + 0.05) + 0.3 * x * p, 0.5, rtol=1e-13)
    assert [one.kind for one in branch.bifurcations] == ["nonsmooth-fold", "nonsmooth-fold"]


def test_a_jump_is_not_passed_and_says_so():
    branch = ssntk.continuation(mixed(0.0), (-1.0, 1.0))
    assert branch.status == "ends at p = 0.2: the vector field jumps there, so that no branch goes on"
    assert branch.collisions == ()


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_nothing_depends_on_units(seed):
    s, a, c = 10 ** np.random.default_rng(seed).uniform(-6, 6, 3)
    for slope, jump, end in ((1.0, 2.0, 1.0), (2.0, 1.0, 1.5)):
        plain = ssntk.continuation(bend(slope, jump), (-0.5, end))
        scaled = ssntk.continuation(bend(slope, jump, units=(s, a, c)), (-0.5 * a, end * a))
        assert told(plain)[:2] == told(scaled)[:2]
        assert scaled.status == f"left the span at p = {scaled.parameter[-1]:g}"
        for one, other in zip(plain.collisions, scaled.collisions, strict=True):
            np.testing.assert_allclose([other.parameter / a, other.x[0] / s], [one.parameter, one.x[0]], rtol=1e-12)
            np.testing.assert_allclose(other.delta, one.delta, rtol=1e-8)
        np.testing.assert_allclose(scaled.eigenvalues[-1] * c, plain.eigenvalues[-1], rtol=1e-9)


def test_an_ensemble_with_members_that_turn_persist_and_are_smooth():
    families = [bend(2.0, 1.0), bend(1.0, 2.0), bend(2.0, 0.0), bend(1.0, 2.0, place=0.2)]
    branches = ssntk.continuation_ensemble(families, (-0.5, 1.0), lanes=2)
    assert [[one.kind for one in branch.collisions] for branch in branches] == [
        ["persistence"],
        ["nonsmooth-fold"],
        [],
        ["nonsmooth-fold"],
    ]
    assert [branch.status[-8:] for branch in branches] == ["at p = 1", "p = -0.5", "at p = 1", "p = -0.5"]
    np.testing.assert_allclose(branches[3].collisions[0].parameter, 0.2, rtol=1e-14)


@pytest.mark.parametrize("seed", some(SEEDS, SEEDS[:2]))
def test_the_corners_of_relu_networks_are_those_of_exact_pivoting(seed):
    """Gains 0.7, 1.5 and 2.5."""
    weight, bias, way, _ = drawn(seed)
    family = ssntk.Family.input(ssntk.CTRNN.from_weights(weight, way[:, None], bias, activation=relu), [1.0])
    exact = ssntk.continuation(family, SPAN, method="exact")
    branch = ssntk.continuation(family, SPAN, x0=exact.x[0], method="search")
    assert branch.status == exact.status
    assert branch.unresolved == ()
    assert [one.kind for one in branch.bifurcations] == [one.kind for one in exact.bifurcations]
    assert [(one.kind, one.unstable) for one in branch.collisions] == [(one.kind, one.unstable) for one in exact.collisions]
    np.testing.assert_allclose(
        [one.parameter for one in branch.collisions], [one.parameter for one in exact.collisions], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose([one.delta for one in branch.collisions], [one.delta for one in exact.collisions], rtol=1e-6)
    np.testing.assert_allclose(branch.x[-1], exact.x[-1], rtol=1e-9, atol=1e-12)


def test_a_network_of_tanh_of_relu_is_the_limit_of_softplus():
    """Softplus of sharpness beta is a smooth field within log(2) / beta of the relu."""
    weight, bias, way, _ = drawn(2)
    n = len(bias)

    def family(activation):
        def field(t, x, u, p):
            return -x + 1.5 * weight @ jnp.tanh(activation(x, p["beta"])) + bias + p["p"] * way

        return ssntk.Family(ssntk.VectorField(field, {"p": jnp.asarray(0.0), "beta": jnp.asarray(1e4)}, n), "p")

    branch = ssntk.continuation(family(lambda x, beta: relu(x)), (-3.0, 3.0))
    smooth = ssntk.continuation(family(lambda x, beta: jax.nn.softplus(beta * x) / beta), (-3.0, 3.0), x0=branch.x[0])
    assert branch.status == smooth.status == "left the span at p = 3"
    np.testing.assert_allclose(branch.x[-1], smooth.x[-1], atol=1e-3)
    # The corners are where one state vanishes, in the order in which it does so on the smooth branch.
    signs = np.sign(smooth.x)
    assert len(branch.collisions) == int((signs[1:] != signs[:-1]).sum()) > 0
    for one in branch.collisions:
        assert np.abs(one.x).min() < 1e-13


@pytest.mark.slow
def test_an_infinite_slope_is_not_passed_and_says_so():
    def field(t, x, u, p):
        return p["p"] - jnp.sinh(x) + jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)

    branch = ssntk.continuation(ssntk.Family(ssntk.VectorField(field, {"p": 0.0}, 1), "p"), (-1.0, 1.0))
    assert "has a kink at p = " in branch.status
    assert "no way on was found behind it" in branch.status
    assert branch.collisions == ()
    np.testing.assert_allclose(branch.parameter[-1], 0.0, atol=1e-8)


def test_smooth_models_are_followed_as_before(monkeypatch):
    """Nothing of this is called for them: not at a fold, and not at a branch that ends."""

    def never(*arguments):
        raise AssertionError("called for a smooth model")

    monkeypatch.setattr(arclength, "beyond", never)
    monkeypatch.setattr(passed, "_looked_through", never)
    branch = ssntk.continuation(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"), (1.0, -1.0), x0=[1.0])
    assert [one.kind for one in branch.bifurcations] == ["saddle-node"]
    assert branch.collisions == ()
