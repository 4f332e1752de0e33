"""Curves and points that others have published, to the digits that they print.

Compiles: curves of saddle-nodes and of Hopf points of a flow of three states, and of one of four.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from planes import families

import ssntk


def catalysis(x, p):
    """Oxidation of CO on platinum (Bykov, Yablonskii and Kim, 1978), p1 = q2 and p2 = k.

    The points are those of BifurcationKit's tests (`test/hopf_codim_2/COModel.jl`); Kuznetsov, *Elements of Applied
    Bifurcation Theory*, example 8.3.3, and MatCont's manual have the same.
    """
    free = 1 - x[0] - x[1] - x[2]
    return jnp.stack(
        [
            5.0 * free**2 - 2.0 * x[0] ** 2 - 10.0 * x[0] * x[1],
            p["p1"] * free - 0.1 * x[1] - 10.0 * x[0] * x[1],
            0.0675 * (free - p["p2"] * x[2]),
        ]
    )


@pytest.fixture(scope="module")
def catalyst():
    both = families(catalysis, 3, p1=0.5, p2=0.4)
    branch = ssntk.continuation(both[0], (0.5, 2.3), x0=[0.001137, 0.891483, 0.062345], at=1.0, both=True)
    plane, spans = ssntk.Family.plane(*both), ((0.7, 2.0), (0.1, 2.0))
    kinds = [event.kind for event in branch.bifurcations]
    curves = {
        kind: ssntk.bifurcation_curve(plane, branch.bifurcations[kinds.index(kind)], spans, step=0.02)
        for kind in ("saddle-node", "hopf")
    }
    return branch, curves


def test_the_branch_of_the_catalyst(catalyst):
    branch, _ = catalyst
    found = {kind: [one.parameter for one in branch.bifurcations if one.kind == kind] for kind in ("hopf", "saddle-node")}
    # BifurcationKit finds each by bisection of eigenvalues, to less digits than it prints.
    np.testing.assert_allclose(sorted(found["hopf"]), [1.04099606, 1.05158367], rtol=3e-5)
    np.testing.assert_allclose(sorted(found["saddle-node"]), [1.04204851, 1.05220029], rtol=2e-6)


def test_the_points_of_the_catalyst(catalyst):
    _, curves = catalyst
    folds, hopfs = curves["saddle-node"].points, curves["hopf"].points
    takens = sorted((one for one in folds if one.kind == "bogdanov-takens"), key=lambda one: one.parameters[1])
    np.testing.assert_allclose([one.parameters for one in takens], [[1.161199, 0.722339], [1.417628, 0.971397]], atol=6e-7)
    # Both coefficients change in proportion to the eigenvector, of which it uses another one.
    np.testing.assert_allclose(takens[1].coefficients["b"] / takens[1].coefficients["a"], 2.1363 / 0.083784, rtol=1e-4)
    (cusp,) = [one for one in folds if one.kind == "cusp"]
    # BifurcationKit has k = 0.35665351, in whose place the coefficient has not changed its sign yet: it checks c to 1e-2.
    np.testing.assert_allclose(cusp.parameters[1], 0.35665351, rtol=3e-3)
    np.testing.assert_allclose(abs(cusp.coefficients["c"]), 0.362, rtol=1e-2)
    bautin = sorted((one for one in hopfs if one.kind == "generalised-hopf"), key=lambda one: one.parameters[1])
    np.testing.assert_allclose([one.parameters for one in bautin], [[0.896099, 0.232], [0.924255, 0.305879]], rtol=1e-2)
    # It asks for two digits of the first one.
    np.testing.assert_allclose(bautin[1].parameters, [0.924255, 0.305879], atol=6e-7)
    # Both curves have the same Bogdanov-Takens points.
    again = sorted((one for one in hopfs if one.kind == "bogdanov-takens"), key=lambda one: one.parameters[1])
    np.testing.assert_allclose([one.parameters for one in again], [one.parameters for one in takens], rtol=1e-10)


def circulation(x, p):
    """The extended Lorenz-84 model (van Veen, 2003; Kuznetsov, Meijer and van Veen, 2004), p1 = F and p2 = T.

    The points are those of BifurcationKit's tests (`test/hopf_codim_2/lorenz84.jl`).
    """
    first = -(x[1] ** 2) - x[2] ** 2 - 0.25 * x[0] + 0.25 * p["p1"] - 0.987 * x[3] ** 2
    second = x[0] * x[1] - x[0] * x[2] - x[1] + 0.25
    third = x[0] * x[1] + x[0] * x[2] - x[2]
    return jnp.stack([first, second, third, -1.04 * x[3] + 0.987 * x[3] * x[0] + p["p2"]])


@pytest.fixture(scope="module")
def atmosphere():
    both = families(circulation, 4, p1=3.0, p2=0.04)
    branch = ssntk.continuation(
        both[0], (3.0, 0.5), x0=[2.9787004394953343, -0.03868302503393752, 0.058232737694740085, -0.02105288273117459]
    )
    return branch, ssntk.Family.plane(*both)


SPANS = ((0.5, 4.0), (-0.1, 0.2))


def test_the_branch_of_the_atmosphere(atmosphere):
    branch, _ = atmosphere
    # The intervals with which its bisection ends.
    intervals = [
        (1.546648372620807, 1.5466483727182652),
        (1.619657484413436, 1.6196654620692468),
        (2.467211879219629, 2.467246154619121),
        (2.859863413561998, 2.859897757930758),
    ]
    for event, (low, high) in zip(branch.bifurcations, intervals, strict=True):
        # It has not turned yet at the end of the first one.
        assert low - 1e-10 < event.parameter < high
    assert [event.kind for event in branch.bifurcations] == ["saddle-node", "hopf", "hopf", "hopf"]


def test_the_points_on_the_saddle_nodes_of_the_atmosphere(atmosphere):
    branch, plane = atmosphere
    fold = [one for one in branch.bifurcations if one.kind == "saddle-node"][-1]
    curve = ssntk.bifurcation_curve(plane, fold, SPANS, step=0.02)
    takens = sorted(one.parameters[1] for one in curve.points if one.kind == "bogdanov-takens")
    zeros = sorted(one.parameters[1] for one in curve.points if one.kind == "zero-hopf")
    # The model is symmetric under U -> -U, T -> -T. BifurcationKit stops before its points (0.02058724 and -0.02135893;
    # 0.00004983 and -0.00045281), and finds the coefficients of the first one where Newton's iteration ends.
    np.testing.assert_allclose(takens, [-takens[1], takens[1]], rtol=1e-9)
    np.testing.assert_allclose(zeros, [-zeros[1], zeros[1]], rtol=1e-7)
    assert -0.02135893 < takens[0] < 0 < zeros[1] < 0.02058724 < takens[1]
    (first,) = [one for one in curve.points if one.kind == "bogdanov-takens" and one.parameters[1] > 0]
    ratio = first.coefficients["b"] / first.coefficients["a"]
    np.testing.assert_allclose(ratio, 0.6065145518280868 / 0.2144233509273467, rtol=1e-6)


@pytest.mark.slow
def test_both_curves_pass_a_double_hopf_point(atmosphere):
    branch, plane = atmosphere
    hopf = [one for one in branch.bifurcations if one.kind == "hopf"]
    first = ssntk.bifurcation_curve(plane, hopf[0], SPANS)
    bautin = [one for one in first.points if one.kind == "generalised-hopf"]
    np.testing.assert_allclose([one.frequency for one in bautin], 0.6903636672622595, atol=1e-5)
    doubles = sorted((one for one in first.points if one.kind == "double-hopf"), key=lambda one: one.parameters[1])
    np.testing.assert_allclose([one.parameters[1] for one in doubles], [-0.02627393, 0.02627393], atol=2e-8)
    for point in doubles:
        pairs = np.sort(np.unique(np.abs(point.eigenvalues.imag).round(9)))
        assert len(pairs) == 2
        np.testing.assert_allclose(point.eigenvalues.real, 0, atol=1e-12)
        # The curve of the other pair begins at the point, and passes the zero-Hopf points.
        other = ssntk.bifurcation_curve(plane, point, SPANS, kind="hopf")
        assert [one.kind for one in other.points] == ["double-hopf", "zero-hopf", "zero-hopf", "double-hopf"]
        np.testing.assert_allclose(
            sorted(one.parameters[1] for one in other.points if one.kind == "double-hopf"),
            [-0.02627393, 0.02627393],
            atol=2e-8,
        )
        at = np.abs(other.parameters - point.parameters).max(axis=1).argmin()
        np.testing.assert_allclose(other.frequency[at], pairs[1], rtol=1e-8)
        np.testing.assert_allclose(point.frequency, pairs[0], rtol=1e-8)


@pytest.mark.slow
def test_curves_from_a_zero_hopf_point(atmosphere):
    branch, plane = atmosphere
    fold = [one for one in branch.bifurcations if one.kind == "saddle-node"][-1]
    curve = ssntk.bifurcation_curve(plane, fold, SPANS)
    point = next(one for one in curve.points if one.kind == "zero-hopf")
    # BifurcationKit meets a double Hopf point on the curve that begins there.
    hopfs = ssntk.bifurcation_curve(plane, point, SPANS, kind="hopf")
    assert [one.kind for one in hopfs.points] == ["double-hopf", "zero-hopf", "zero-hopf", "double-hopf"]
    folds = ssntk.bifurcation_curve(plane, point, SPANS, kind="saddle-node")
    assert sorted(one.kind for one in folds.points) == sorted(one.kind for one in curve.points)


def control(x, p):
    """Feedback control of Lur'e type, p1 = alpha and p2 = beta (Kuznetsov, *Elements of Applied Bifurcation Theory*, example
    5.4; in MatCont's manual the adaptive control system)."""
    return jnp.stack([x[1], x[2], -p["p1"] * x[2] - p["p2"] * x[1] - x[0] + x[0] ** 2])


@pytest.mark.slow
def test_adaptive_control():
    both = families(control, 3, p1=1.2, p2=1.0)
    plane = ssntk.Family.plane(*both)
    (hopf,) = ssntk.continuation(both[0], (1.5, 0.5), x0=np.zeros(3)).bifurcations
    # MatCont prints alpha = 1.000002 and a first Lyapunov coefficient of -3.000001e-001.
    assert abs(hopf.parameter - 1) < 3e-6
    assert abs(hopf.coefficient + 0.3) < 2e-7
    curve = ssntk.bifurcation_curve(plane, hopf, ((0.3, 3.0), (0.3, 3.0)))
    # The polynomial s^3 + alpha s^2 + beta s + 1 has a pair on the axis where alpha beta = 1.
    np.testing.assert_allclose(curve.parameters.prod(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(curve.frequency**2, curve.parameters[:, 1], rtol=1e-12)
    cycles = ssntk.cycle_continuation(both[0], hopf, (1.0, 0.55))
    (doubling,) = [event for event in cycles.bifurcations if event.kind == "period-doubling"]
    # Period Doubling (period = 6.364071e+000, parameter = 6.303020e-001)
    np.testing.assert_allclose([doubling.parameter, doubling.period], [6.303020e-1, 6.364071], rtol=1e-7)
    # The curve of period doublings meets those of branches at other values of beta.
    doublings = ssntk.bifurcation_curve(plane, doubling, ((0.4, 1.2), (0.8, 1.2)))
    at = int(np.argmin(np.abs(doublings.parameters[:, 1] - 1.1)))
    alpha, beta = doublings.parameters[at]
    other = families(control, 3, p1=1.2, p2=beta)[0]
    (start,) = ssntk.continuation(other, (1.5, 0.5), x0=np.zeros(3)).bifurcations
    again = ssntk.cycle_continuation(other, start, (start.parameter, 0.4))
    found = next(event for event in again.bifurcations if event.kind == "period-doubling")
    np.testing.assert_allclose(found.parameter, alpha, rtol=1e-7)


def morris_lecar(x, p):
    """Morris and Lecar's neuron (1981), p1 = I_app and p2 = v3, as in Bosschaert and Kuznetsov's notebooks for MatCont
    (MatCont7p2NewInitBTHom), which print what is compared below."""
    v, w = x
    opened, target = 0.5 * (1 + jnp.tanh((v + 1.2) / 18)), 0.5 * (1 + jnp.tanh((v - p["p2"]) / 30))
    current = 4.4 * opened * (v - 120) + 8 * w * (v + 84) + 2 * (v + 60)
    return jnp.stack([(p["p1"] - current) / 20, (target - w) * jnp.cosh((v - p["p2"]) / 60) / 25])


def test_a_neuron():
    both = families(morris_lecar, 2, p1=0.0, p2=2.0)
    plane = ssntk.Family.plane(*both)
    branch = ssntk.continuation(both[0], (0.0, 300.0), x0=[-60.85456779, 0.0149139691])
    np.testing.assert_allclose([one.parameter for one in branch.bifurcations], [93.857614, 212.018815], atol=1e-6)
    spans = ((-400.0, 800.0), (-120.0, 120.0))
    takens = [
        one for one in ssntk.bifurcation_curve(plane, branch.bifurcations[0], spans).points if one.kind == "bogdanov-takens"
    ]
    # MatCont goes on through neutral saddles at I_app below -400 and v3 above 120.
    np.testing.assert_allclose(
        sorted(one.parameters.tolist() for one in takens), [[48.225939, 21.734143], [519.625365, -63.401902]], atol=1e-6
    )
    ratios = [one.coefficients["b"] / one.coefficients["a"] for one in takens]
    np.testing.assert_allclose(ratios, [2.289394e-2 / 7.383698e-4, 1.513072e-2 / 2.766145e-4], rtol=1e-6)
    folds = [ssntk.bifurcation_curve(plane, one, spans, kind="saddle-node").points for one in takens]
    found = {(one.kind, *one.parameters.round(6).tolist()) for points in folds for one in points}
    assert ("cusp", 92.10523, 6.418208) in found
    assert ("bogdanov-takens", 487.997703, -51.777429) in found
    assert ("bogdanov-takens", -227.131888, 69.755737) in found


def squid(x, p):
    """Hodgkin and Huxley's equations, p1 = V_K and p2 = I, with rates of the gates that are a tenth of theirs."""
    v, m, n, h = x

    def ratio(s):
        return s / jnp.expm1(s)

    ions = 120 * m**3 * h * (v + 115) + 36 * n**4 * (v - p["p1"]) + 0.3 * (v - 10.599)
    opens = jnp.stack([ratio((v + 25) / 10), 0.1 * ratio((v + 10) / 10), 0.07 * jnp.exp(v / 20)])
    closes = jnp.stack([4 * jnp.exp(v / 18), 0.125 * jnp.exp(v / 80), 1 / (1 + jnp.exp((v + 30) / 10))])
    gates = x[1:]
    return jnp.append(p["p2"] - ions, 0.1 * ((1 - gates) * opens - gates * closes))


@pytest.mark.slow
def test_the_squids_axon():
    """Bosschaert and Kuznetsov's notebook prints a Bogdanov-Takens point and equations in which the rates have the factor 1.
    With that factor one eigenvalue is zero at their point, and with 0.1 two are."""
    both = families(squid, 4, p1=-5.5, p2=0.0)
    branch = ssntk.continuation(both[1], (-20.0, 20.0))
    fold = next(one for one in branch.bifurcations if one.kind == "saddle-node")
    curve = ssntk.bifurcation_curve(ssntk.Family.plane(*both), fold, ((-20.0, 12.0), (-40.0, 20.0)))
    (point,) = [one for one in curve.points if one.kind == "bogdanov-takens"]
    np.testing.assert_allclose(point.parameters, [-4.977020454108788, -0.06185214966177632], rtol=1e-9)
    np.testing.assert_allclose(
        point.x, [-2.835463618170097, 0.07351498630356315, 0.361877602925177, 0.494859128785482], rtol=1e-9
    )
    # The curve does not depend on the rates, so that it passes the same cusp with the usual ones.
    usual = families(lambda x, p: squid(x, p) * jnp.array([1.0, 10.0, 10.0, 10.0]), 4, p1=-5.5, p2=0.0)
    branch = ssntk.continuation(usual[1], (-20.0, 20.0))
    fold = next(one for one in branch.bifurcations if one.kind == "saddle-node")
    again = ssntk.bifurcation_curve(ssntk.Family.plane(*usual), fold, ((-20.0, 12.0), (-40.0, 20.0)))
    cusps = [next(one for one in each.points if one.kind == "cusp") for each in (curve, again)]
    np.testing.assert_allclose(cusps[1].parameters, cusps[0].parameters, rtol=1e-9)
