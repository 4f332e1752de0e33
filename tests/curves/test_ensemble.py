"""One curve for each of many networks. Compiles: corrections of saddle-nodes and of Hopf points of a flow of two states,
alone and in a batch."""

import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

SPANS = ((-1.0, 1.0), (-1.0, 1.0))


def field(t, x, u, p):
    """Saddle-nodes at 4 c p1 = p2^2, Hopf points at p1 = 0 > p2."""
    return jnp.stack([x[1], p["p1"] + p["p2"] * x[0] + p["c"] * x[0] ** 2 - x[0] * x[1]])


def plane_of(c):
    model = ssntk.VectorField(field, {"p1": 0.0, "p2": -0.8, "c": float(c)}, 2)
    return ssntk.Family.plane(ssntk.Family(model, "p1"), ssntk.Family(model, "p2"))


def bifurcation(plane, kind):
    # At p1 = -0.5 one equilibrium is left of the Hopf point, from which its branch goes on to the saddle-node.
    branch = ssntk.continuation(plane.first, (-0.5, 0.5), x0=[-0.4, 0.0])
    return next(one for one in branch.bifurcations if one.kind == kind)


@pytest.fixture(scope="module")
def members():
    planes = [plane_of(c) for c in (0.7, 1.0, 1.3, 1.9)]
    return planes, [bifurcation(plane, kind) for plane, kind in zip(planes, ("hopf", "saddle-node") * 2, strict=True)]


@pytest.fixture(scope="module")
def curves(members):
    return ssntk.bifurcation_curve_ensemble(*members, SPANS)


def test_every_member_by_its_closed_form(curves):
    for c, curve in zip((0.7, 1.0, 1.3, 1.9), curves, strict=True):
        p1, p2 = curve.parameters.T
        if curve.kind == "hopf":
            # Beyond the Bogdanov-Takens point at (0, 0) it consists of neutral saddles.
            np.testing.assert_allclose(p1, 0, atol=1e-14)
            np.testing.assert_allclose(curve.frequency, np.sqrt(np.maximum(-p2, 0)), atol=1e-7)
            assert (p2.min(), p2.max()) == (-1, 1)
        else:
            np.testing.assert_allclose(4 * c * p1, p2**2, atol=1e-13)
        (point,) = curve.points
        assert point.kind == "bogdanov-takens"
        np.testing.assert_allclose(point.parameters, 0, atol=1e-14)
    assert [curve.kind for curve in curves] == ["hopf", "saddle-node"] * 2


def test_members_are_followed_as_if_alone(members, curves):
    for plane, event, curve in zip(*members, curves, strict=True):
        alone = ssntk.bifurcation_curve(plane, event, SPANS)
        np.testing.assert_allclose(curve.parameters, alone.parameters, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(curve.coefficient, alone.coefficient, rtol=1e-9, atol=1e-12)
        assert curve.status == alone.status


def test_other_weights_compile_nothing(curves, compilations):
    planes = [plane_of(c) for c in (0.9, 1.1, 1.2, 1.6)]
    events = [bifurcation(plane, kind) for plane, kind in zip(planes, ("saddle-node", "hopf") * 2, strict=True)]
    found = ssntk.bifurcation_curve_ensemble(planes, events, SPANS)
    assert [curve.kind for curve in found] == ["saddle-node", "hopf"] * 2
    assert not compilations


def test_a_member_without_a_bifurcation_does_not_stop_the_others(members, curves):
    planes, events = members
    # The third one does not lie where it is said to.
    at = [(events[0].parameter, -0.8), (0.0, 0.0), (0.3, -0.8), (events[3].parameter, -0.8)]
    found = ssntk.bifurcation_curve_ensemble(planes, [events[0], None, *events[2:]], SPANS, at=at)
    assert [len(curve) for curve in found] == [len(curves[0]), 0, 0, len(curves[3])]
    assert found[1].status == "no bifurcation to start from"
    assert "its state is no hopf at (0.3, -0.8)" in found[2].status


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"planes": []}, "planes must be a sequence with at least one entry"),
        ({"planes": "plane"}, "planes must be a sequence"),
        ({"planes": [3] * 4}, r"planes\[0\] must be"),
        ({"bifurcations": [None]}, "bifurcations must be as many as planes, 4, got 1"),
        ({"bifurcations": [3] * 4}, r"bifurcations\[0\] must be"),
        ({"at": [1.0]}, r"at must have shape \(2,\) or \(4, 2\)"),
        ({"at": (5.0, 5.0)}, r"at must hold the bifurcation.*\(network 0\)"),
        ({"step": -1.0}, "step must be"),
        ({"spans": ((0.0, 0.0), (0.0, 1.0))}, r"spans\[0\] must not be empty"),
    ],
)
def test_mistakes_are_named(members, compilations, change, said):
    arguments = {"planes": members[0], "bifurcations": members[1], "spans": SPANS} | change
    with pytest.raises(ValueError, match=said):
        ssntk.bifurcation_curve_ensemble(**arguments)
    assert not compilations


def test_models_of_different_fields_are_refused(members):
    other = ssntk.normal_forms.hopf(-0.5, 1.0)
    plane = ssntk.Family.plane(ssntk.Family(other, "mu"), ssntk.Family(other, "omega"))
    with pytest.raises(ValueError, match=r"planes\[1\] must differ from planes\[0\] in the values of its arrays only"):
        ssntk.bifurcation_curve_ensemble([members[0][0], plane], [None, None], SPANS)
