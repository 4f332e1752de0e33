"""Curves that begin at points of codimension two of other curves.

Compiles: curves of models of two states, and cycles of two fields.
"""

import numpy as np
import pytest
from planes import Family, bautin_form, coupled, families, followed

import ssntk

WIDE = ((-4.0, 4.0), (-4.0, 4.0))


@pytest.fixture(scope="module")
def folds():
    return followed(families(coupled, 2, p1=0, p2=0), "saddle-node", (-3.0, 3.0), WIDE)


def test_hopf_points_from_a_bogdanov_takens_point(folds):
    point = folds.points[-1]
    assert point.kind == "bogdanov-takens"
    curve = ssntk.bifurcation_curve(folds.plane, point, WIDE, kind="hopf")
    # On it 2.5 sech^2 x1 = 1.5, and no zero of l1 is invented where the frequency is zero.
    np.testing.assert_allclose(1 / np.cosh(curve.x[:, 0]) ** 2, 0.6, rtol=1e-10)
    kinds = [one.kind for one in curve.points]
    assert kinds.count("generalised-hopf") == kinds.count("bogdanov-takens") == 2
    # And back: the same saddle-nodes.
    again = ssntk.bifurcation_curve(folds.plane, curve.points[0], WIDE, kind="saddle-node")
    np.testing.assert_allclose(
        np.sort(again.parameters[[0, -1]], axis=0), np.sort(folds.parameters[[0, -1]], axis=0), atol=1e-9
    )


@pytest.mark.slow
def test_folds_of_cycles_from_a_generalised_hopf_point():
    both, spans = families(bautin_form, 2, p1=0, p2=0.3), ((-1.0, 1.0), (-1.0, 1.0))
    hopf = followed(both, "hopf", (-1.0, 1.0), spans, x0=[0.0, 0.0])
    curve = ssntk.bifurcation_curve(hopf.plane, hopf.points[0], spans, kind="cycle-fold")
    assert curve.kind == "cycle-fold"
    p1, p2 = curve.parameters.T
    # r^2 = p2 / 2.
    np.testing.assert_allclose(p1, -(p2**2) / 4, atol=1e-13)
    assert p2.max() == 1
    assert 0 < p2.min() < 1e-2
    assert "as at a generalised Hopf point" in curve.status


def test_what_does_not_begin_there(folds):
    point = folds.points[-1]
    for kind in (None, "cycle-fold", "flip"):
        with pytest.raises(ValueError, match="kind must be that of a curve through a bogdanov-takens point"):
            ssntk.bifurcation_curve(folds.plane, point, WIDE, kind=kind)
    (cusp,) = [one for one in folds.points if one.kind == "cusp"]
    with pytest.raises(ValueError, match="no other curve begins there"):
        ssntk.bifurcation_curve(folds.plane, cusp, WIDE, kind="saddle-node")
    with pytest.raises(ValueError, match="kind must be left out"):
        ssntk.bifurcation_curve(folds.plane, folds.begin, WIDE, kind="saddle-node")
    other = Family(ssntk.normal_forms.hopf(0.5, 1.0), "mu")
    with pytest.raises(ValueError, match="plane must be"):
        ssntk.bifurcation_curve(other, point, WIDE, kind="hopf")
