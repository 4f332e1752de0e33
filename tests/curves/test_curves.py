"""Curves of saddle-nodes and Hopf points of flows, and the points of codimension two on them.

Compiles: Newton's iteration for curves and for points of models of one and two states, the coefficients on them, and
`continuation` of the same models.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planes import Family, bautin_form, coupled, cusp_form, families, followed, takens_form

import ssntk

# The Bogdanov-Takens point and the cusp of `coupled`, with the coefficients a and b.
MEETS, CUSP = (-2.615153717592004011, -1.685667018930845248), (-0.942453017257382830, 0.847477839908873958)
MEETS_A, MEETS_B = 0.37642475463305, 1.22474487139158


def cusp_field(t, x, u, p):
    return cusp_form(x, p)


def one(value):
    return ssntk.VectorField(cusp_field, {"p1": 0.0, "p2": value}, 1)


@pytest.fixture(scope="module")
def cusp_curve():
    model = one(1.0)
    return followed((Family(model, "p1"), Family(model, "p2")), "saddle-node", (-1.0, 1.0), ((-1.0, 1.0), (-1.0, 2.0)))


@pytest.fixture(scope="module")
def coupled_curves():
    both = families(coupled, 2, p1=0, p2=0)
    spans = ((-4.0, 4.0), (-4.0, 4.0))
    return {kind: followed(both, kind, (-3.0, 3.0), spans) for kind in ("saddle-node", "hopf")}


def test_the_cusp_of_the_normal_form(cusp_curve):
    p1, p2 = cusp_curve.parameters.T
    # 27 p1^2 = 4 p2^3, in closed form.
    np.testing.assert_allclose(27 * p1**2, 4 * p2**3, rtol=0, atol=1e-13)
    (point,) = cusp_curve.points
    assert point.kind == "cusp"
    assert point.converged
    assert np.abs(point.parameters).max() <= 1e-15
    assert abs(point.coefficients["c"] + 1) <= 1e-15
    # At the equilibrium x the coefficient a = f'' / 2 is -3 x, up to the sign of the eigenvector.
    np.testing.assert_allclose(np.abs(cusp_curve.coefficient), 3 * np.abs(cusp_curve.x[:, 0]), atol=1e-13)
    assert not cusp_curve.closed
    assert cusp_curve.status.count("left the span at") == 2
    assert set(np.abs(p1[[0, -1]])) == {1.0}


@pytest.mark.parametrize(("kind", "x0"), [("saddle-node", (1 - 5**0.5) / 2), ("hopf", (1 - 5**0.5) / 2)])
def test_the_bogdanov_takens_point_of_the_normal_form(kind, x0):
    both = families(takens_form, 2, p1=0, p2=-1)
    curve = followed(both, kind, (-1.0, 1.0), ((-1.0, 1.0), (-2.0, 2.0)), x0=[x0, 0.0])
    p1, p2 = curve.parameters.T
    np.testing.assert_allclose(p1, p2**2 / 4 if kind == "saddle-node" else 0 * p2, atol=1e-14)
    (point,) = curve.points
    assert point.kind == "bogdanov-takens"
    assert np.abs(point.parameters).max() <= 1e-15
    assert abs(point.coefficients["a"] - 1) <= 1e-14
    assert abs(point.coefficients["b"] + 1) <= 1e-14
    if kind == "hopf":
        # Hopf points for p2 < 0, with the frequency sqrt(-p2); beyond they are neutral saddles.
        np.testing.assert_allclose(curve.frequency, np.sqrt(np.maximum(-p2, 0)), atol=1e-13)
        assert np.isnan(curve.coefficient[p2 > 1e-9]).all()
        assert np.isfinite(curve.coefficient[p2 < -1e-9]).all()
        assert (p2 > 0.1).any()
        assert (p2 < -0.1).any()


def test_the_generalised_hopf_point_of_the_normal_form():
    both = families(bautin_form, 2, p1=0, p2=0.3)
    curve = followed(both, "hopf", (-1.0, 1.0), ((-1.0, 1.0), (-1.0, 1.0)), x0=[0.0, 0.0])
    np.testing.assert_allclose(curve.parameters[:, 0], 0, atol=1e-15)
    # The amplitude of an eigenvector of length one is 1 / sqrt 2 of the modulus of z: l1 = 2 p2 / omega, l2 = -4 / omega.
    np.testing.assert_allclose(curve.coefficient, 2 * curve.parameters[:, 1] / 2, atol=1e-14)
    (point,) = curve.points
    assert point.kind == "generalised-hopf"
    assert np.abs(point.parameters).max() <= 1e-15
    assert abs(point.coefficients["l2"] + 2) <= 1e-13
    assert abs(point.frequency - 2) <= 1e-14


def test_two_coupled_units(coupled_curves):
    for kind, curve in coupled_curves.items():
        found = [point for point in curve.points if point.kind == "bogdanov-takens"]
        (point,) = [one for one in found if one.parameters[0] < -2]
        np.testing.assert_allclose(point.parameters, MEETS, rtol=1e-13, err_msg=kind)
        assert abs(point.coefficients["a"] / MEETS_A - 1) <= 1e-11
        assert abs(point.coefficients["b"] / MEETS_B - 1) <= 1e-11
        assert curve.unresolved == ()
    (point,) = [one for one in coupled_curves["saddle-node"].points if one.kind == "cusp"]
    np.testing.assert_allclose(point.parameters, CUSP, rtol=1e-13)
    # On the Hopf curve the trace is zero: 2.5 sech^2 x1 = 1.5.
    np.testing.assert_allclose(1 / np.cosh(coupled_curves["hopf"].x[:, 0]) ** 2, 0.6, rtol=1e-12)
    # The system is symmetric: (x, p1, p2) -> (-x, -p1, 2 - p2).
    first, last = [one for one in coupled_curves["hopf"].points if one.kind == "bogdanov-takens"]
    near = min((first, last), key=lambda one: abs(one.parameters[0]))
    mirrored = -near.parameters + np.array([0.0, 2.0])
    same = [one for one in coupled_curves["saddle-node"].points if np.allclose(one.parameters, mirrored, atol=1e-12)]
    assert [one.kind for one in same] == ["bogdanov-takens"]


def test_generalised_hopf_points_are_where_criticality_changes(coupled_curves):
    curve, both = coupled_curves["hopf"], families(coupled, 2, p1=0, p2=0)
    found = [point for point in curve.points if point.kind == "generalised-hopf"]
    assert len(found) == 2
    for point in found:
        signs = []
        for move in (-1e-4, 1e-4):
            across = both[0].of(both[1](float(point.parameters[1]) + move))
            near = ssntk.locate(across, "hopf", parameter=float(point.parameters[0]), x=point.x)
            signs.append(near.coefficient)
        assert signs[0] * signs[1] < 0
        assert max(map(abs, signs)) <= 1e-3


def test_the_curve_has_the_coefficients_of_single_bifurcations(coupled_curves):
    both = families(coupled, 2, p1=0, p2=0)
    for kind, curve in coupled_curves.items():
        here = np.flatnonzero(np.isfinite(curve.coefficient) & (np.abs(curve.coefficient) < 10))[5]
        p1, p2 = curve.parameters[here]
        alone = ssntk.locate(both[0].of(both[1](float(p2))), kind, parameter=float(p1), x=curve.x[here])
        assert abs(alone.parameter - p1) <= 1e-12
        np.testing.assert_allclose(np.abs(curve.coefficient[here]), abs(alone.coefficient), rtol=1e-9)
        np.testing.assert_allclose(curve.frequency[here], alone.frequency, atol=1e-12)


def test_what_a_curve_says(cusp_curve, tmp_path):
    said = repr(cusp_curve)
    assert f"saddle-node curve of {len(cusp_curve)} points" in said
    assert "cusp" in said
    assert repr(cusp_curve.points[0]).startswith("<cusp at (")
    assert cusp_curve[0].parameters.shape == (2,)
    text = cusp_curve.to_csv(tmp_path / "curve.csv").read_text().splitlines()
    assert text[0].split(",")[:3] == ["parameters_0", "parameters_1", "x_0"]
    assert len(text) == len(cusp_curve) + 1
    assert ssntk.load(ssntk.save(tmp_path / "point.npz", cusp_curve.points[0])) == cusp_curve.points[0]


@pytest.mark.slow
def test_other_weights_compile_nothing(compilations, coupled_curves):
    def field(t, x, u, p):
        return -x + p["w"] @ jnp.tanh(x) + jnp.stack([p["p1"], p["p2"]])

    weights = np.array([[2.5, -2.0], [2.0, 0.1]])
    models = [
        ssntk.VectorField(field, {"w": jnp.asarray(gain * weights), "p1": 0.0, "p2": -0.5 * gain}, 2) for gain in (1.0, 1.02)
    ]
    for number, model in enumerate(models):
        both = Family(model, "p1"), Family(model, "p2")
        branch = ssntk.continuation(both[0], (-2.0, 2.0))
        (start, *_) = [one for one in branch.bifurcations if one.kind == "hopf"]
        before = len(compilations)
        found = ssntk.bifurcation_curve(Family.plane(*both), start, ((-2.0, 2.0), (-2.0, 2.0)))
        assert len(found) > 5
        if number:
            assert len(compilations) == before


def test_planes():
    model = ssntk.CTRNN(2, 2, 1, key=jax.random.key(0))
    gain, first, second = Family(model, "gain"), Family.input(model, 0), Family.input(model, 1, offset=[0.25, 0.0])
    x = jnp.asarray([0.3, -0.2])
    moved = Family.plane(gain, first)(1.5, 0.7)
    direct = gain(1.5).vector_field(0.0, x, jnp.asarray([0.7, 0.0]))
    np.testing.assert_allclose(moved.vector_field(0.0, x, jnp.zeros(2)), direct, rtol=1e-15)
    both = Family.plane(first, second)(0.7, -0.4)
    direct = model.vector_field(0.0, x, jnp.asarray([0.95, -0.4]))
    np.testing.assert_allclose(both.vector_field(0.0, x, jnp.zeros(2)), direct, rtol=1e-15)
    # An offset that both inputs have counts once.
    both = Family.plane(Family.input(model, 0, offset=[0.5, 0.5]), Family.input(model, 1, offset=[0.5, 0.5]))(0.0, 0.0)
    direct = model.vector_field(0.0, x, jnp.asarray([0.5, 0.5]))
    np.testing.assert_allclose(both.vector_field(0.0, x, jnp.zeros(2)), direct, rtol=1e-15)


def test_planes_that_are_none():
    with pytest.raises(ValueError, match="family2 must be of the same model"):
        Family.plane(Family(one(1.0), "p1"), Family(one(2.0), "p2"))
    with pytest.raises(ValueError, match="family2 must move another parameter"):
        Family.plane(Family(one(1.0), "p1"), Family(one(1.0), "p1"))
    with pytest.raises(ValueError, match="family2 must be a"):
        Family.plane(Family(one(1.0), "p1"), one(1.0))
    model = ssntk.CTRNN(2, 2, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="family2 must move another parameter"):
        Family.plane(Family.input(model, [1.0, 2.0]), Family.input(model, [-0.5, -1.0]))


def test_bad_input(cusp_curve, compilations):
    plane, fold = cusp_curve.plane, cusp_curve.begin
    spans = ((-1.0, 1.0), (-1.0, 2.0))
    model = one(0.5)
    other = Family.plane(Family(model, "p1"), Family(model, "p2"))
    before = len(compilations)
    wrong = {
        "plane must be": (plane.first, fold, spans, {}),
        "bifurcation must be": (plane, cusp_curve, spans, {}),
        "kind must be that of a curve through a cusp point": (plane, cusp_curve.points[0], spans, {}),
        r"spans\[1\] must not be empty": (plane, fold, ((-1.0, 1.0), (2.0, 2.0)), {}),
        "spans must be a pair": (plane, fold, 1.0, {}),
        "spans must hold the bifurcation": (plane, fold, ((-1.0, 0.1), (-1.0, 0.2)), {}),
        "at must hold the bifurcation": (plane, fold, spans, {"at": (5.0, 0.0)}),
        "step must be positive": (plane, fold, spans, {"step": 0.0}),
        "max_steps must be": (plane, fold, spans, {"max_steps": 1}),
        # The saddle-nodes of this model at p2 = 0.5 are others.
        "bifurcation must lie on the plane": (other, fold, spans, {}),
    }
    for said, (first, start, ends, options) in wrong.items():
        with pytest.raises(ValueError, match=said):
            ssntk.bifurcation_curve(first, start, ends, **options)
    assert len(compilations) == before


@pytest.mark.slow
def test_a_start_of_the_second_family(cusp_curve):
    # At p1 = 0.5 the saddle-node is at p2 = (27 p1^2 / 4)^(1/3).
    model = ssntk.VectorField(lambda t, x, u, p: cusp_form(x, p), {"p1": 0.5, "p2": 1.0}, 1)
    both = Family(model, "p1"), Family(model, "p2")
    (fold,) = ssntk.continuation(both[1], (2.0, -1.0), x0=[-0.3]).bifurcations
    curve = ssntk.bifurcation_curve(Family.plane(*both), fold, ((-1.0, 1.0), (-1.0, 2.0)))
    p1, p2 = curve.parameters.T
    np.testing.assert_allclose(27 * p1**2, 4 * p2**3, rtol=0, atol=1e-13)
    # The same saddle-node, of a family whose own model lies elsewhere.
    again = ssntk.bifurcation_curve(cusp_curve.plane, fold, ((-1.0, 1.0), (-1.0, 2.0)), at=(0.5, fold.parameter))
    assert [point.kind for point in again.points] == ["cusp"]
