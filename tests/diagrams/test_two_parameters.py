"""Diagrams over two parameters: all curves of bifurcations, points of codimension two listed once, stable points counted.

Compiles: `bifurcation_diagram` and `bifurcation_curve` of a flow of one state, of one of two, and of a map.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk
from ssntk.diagrams import planes
from ssntk.diagrams.alike import ON, Ruler

# Fewer searches than usual: these models have few fixed points.
FEW = {"n_searches": 3, "n_starts": 16}


@functools.cache
def field_of(fn):
    """The field of z = size x. One function for each fn, so that other units share compiled code."""

    def field(t, z, u, p):
        return p["size"] * fn(z / p["size"], p["p1"] / p["unit1"], p["p2"] / p["unit2"]) / p["clock"]

    return field


def plane_of(fn, n, size=1.0, clock=1.0, units=(1.0, 1.0), is_map=False):
    """The plane of dz/dt = fn(x, p1, p2) with states z = size x, time in units of `clock`, parameters in `units`."""
    values = {"size": jnp.full(n, size), "clock": clock, "unit1": units[0], "unit2": units[1], "p1": 0.0, "p2": 0.0}
    make = ssntk.Map if is_map else ssntk.VectorField
    model = make(field_of(fn), values, n)
    return ssntk.Family.plane(ssntk.Family(model, "p1"), ssntk.Family(model, "p2"))


def closed_form(x, p1, p2):
    """Saddle-nodes at 27 p1^2 = 4 (1 - p2^2)^3, a closed curve with cusps at (0, 1) and (0, -1)."""
    return p1 + (1 - p2**2) * x - x**3


def coupled(x, p1, p2):
    """Two units that excite and inhibit each other. The numbers below are of an own solution with 40 digits (mpmath)."""
    first = -x[0] + 2.5 * jnp.tanh(x[0]) - 2.0 * jnp.tanh(x[1]) + p1
    return jnp.stack([first, (-x[1] + 2.0 * jnp.tanh(x[0]) + p2 - 1.0) / 2.0])


# Two Bogdanov-Takens points and a cusp of `coupled`. (p1, p2) -> (-p1, 2 - p2) with x -> -x is a symmetry.
MEETS, CUSP = (-2.615153717592004011, -1.685667018930845248), (-0.942453017257382830, 0.847477839908873958)
SPANS = ((-5.0, 5.0), (-4.0, 6.0))


def quadratic(x, p1, p2):
    """x -> p1 + p2 x - x^2: saddle-nodes at p1 = -(p2 - 1)^2 / 4, flips at p1 = (p2 + 1) (3 - p2) / 4."""
    return p1 + p2 * x - x**2


CLOSED_PLANE, CLOSED_SPANS = plane_of(closed_form, 1), ((-1.0, 1.0), (-2.0, 2.0))


@pytest.fixture(scope="module")
def closed():
    return ssntk.two_parameter_diagram(CLOSED_PLANE, CLOSED_SPANS, **FEW)


@pytest.fixture(scope="module")
def pair():
    return ssntk.two_parameter_diagram(plane_of(coupled, 2), SPANS, **FEW)


def test_a_closed_curve_is_found_once_with_each_cusp_once(closed):
    (curve,) = closed.curves
    assert curve.kind == "saddle-node"
    assert curve.closed
    p1, p2 = curve.parameters.T
    np.testing.assert_allclose(27 * p1**2, 4 * (1 - p2**2) ** 3, atol=1e-12)
    assert [point.kind for point in closed.points] == ["cusp", "cusp"]
    np.testing.assert_allclose(sorted(tuple(point.parameters) for point in closed.points), [(0, -1), (0, 1)], atol=1e-9)
    assert closed.through == ((0,), (0,))
    # The middle line p1 = 0 passes through both cusps, where it has pitchforks. They lie on the curve.
    assert {event.kind for event in closed.slices[closed.lines.index((0, 0.0))].bifurcations} == {"pitchfork"}
    assert closed.status == "everything that was seen was followed"


def test_regions_between_curves_have_their_number_of_stable_points(closed):
    inside, outside = sorted(closed.regions, key=lambda region: -region.n_stable)
    # x^3 = b x + a has three real roots if 27 a^2 < 4 b^3, of which the outer two are stable, else one.
    for region, count in ((inside, 2), (outside, 1)):
        p1, p2 = region.parameters
        assert (27 * p1**2 < 4 * (1 - p2**2) ** 3) == (count == 2)
        assert region.n_stable == count
        assert region.sure


def test_lines_are_evenly_spaced_and_the_middle_ones_are_among_them(closed):
    values = {axis: [value for which, value in closed.lines if which == axis] for axis in (0, 1)}
    np.testing.assert_allclose(values[0], [-2 / 3, 0, 2 / 3], atol=1e-15)
    np.testing.assert_allclose(values[1], [-4 / 3, 0, 4 / 3], atol=1e-15)


@pytest.mark.parametrize(("size", "clock", "units"), [(1e-5, 1e4, (1e-3, 1e6)), (1e6, 1e-5, (1e4, 1e-6))])
def test_units_of_states_time_and_parameters_change_nothing(closed, size, clock, units):
    plane = plane_of(closed_form, 1, size, clock, units)
    spans = tuple((unit * low, unit * high) for unit, (low, high) in zip(units, CLOSED_SPANS, strict=True))
    other = ssntk.two_parameter_diagram(plane, spans, **FEW)
    assert other.status == closed.status
    assert [(curve.kind, curve.closed) for curve in other] == [(curve.kind, curve.closed) for curve in closed]
    assert [point.kind for point in other.points] == [point.kind for point in closed.points]
    scaled = [sorted(tuple(point.parameters / unit) for point in one.points) for one, unit in ((closed, 1), (other, units))]
    np.testing.assert_allclose(scaled[1], scaled[0], atol=1e-9)
    assert [region.n_stable for region in other.regions] == [region.n_stable for region in closed.regions]


@pytest.mark.slow
def test_other_numbers_compile_nothing(compilations):
    ssntk.two_parameter_diagram(plane_of(closed_form, 1, 1.5), CLOSED_SPANS, kernel=2, **FEW)
    count = len(compilations)
    ssntk.two_parameter_diagram(plane_of(closed_form, 1, 2.5), CLOSED_SPANS, kernel=2, **FEW)
    assert len(compilations) == count


def test_points_that_two_curves_share_are_listed_once(pair):
    assert sorted(curve.kind for curve in pair) == ["hopf", "hopf", "saddle-node", "saddle-node"]
    names = ("bogdanov-takens", "cusp")
    places = {kind: [point.parameters for point in pair.points if point.kind == kind] for kind in names}
    assert len(places["bogdanov-takens"]) == 4
    assert len(places["cusp"]) == 2
    for kind, (p1, p2) in (("bogdanov-takens", MEETS), ("cusp", CUSP)):
        for place in ((p1, p2), (-p1, 2 - p2)):
            assert sum(np.abs(known - place).max() <= 1e-8 for known in places[kind]) == 1
    for point, own in zip(pair.points, pair.through, strict=True):
        kinds = {pair[i].kind for i in own}
        assert kinds == ({"saddle-node", "hopf"} if point.kind == "bogdanov-takens" else kinds)
        assert len(own) == (2 if point.kind == "bogdanov-takens" else 1)
    # The trace of the Jacobian is zero if sech(x1)^2 = 0.6.
    for curve in pair:
        if curve.kind == "hopf":
            np.testing.assert_allclose(np.cosh(curve.x[:, 0]) ** -2, 0.6, atol=1e-9)


def stable_points(p1, p2):
    """The number of stable fixed points of `coupled`, from sign changes of the equation for x1 alone."""
    x1 = np.linspace(-12, 12, 400_001)
    x2 = 2 * np.tanh(x1) + p2 - 1
    off = -x1 + 2.5 * np.tanh(x1) - 2 * np.tanh(x2) + p1
    at = np.flatnonzero(off[1:] * off[:-1] < 0)
    slope1, slope2 = np.cosh(x1[at]) ** -2, np.cosh(x2[at]) ** -2
    trace, determinant = -1 + 2.5 * slope1 - 0.5, 0.5 * (1 - 2.5 * slope1) + 2 * slope1 * slope2
    return int(((trace < 0) & (determinant > 0)).sum())


def test_stable_points_of_a_network_are_counted(pair):
    assert {region.n_stable for region in pair.regions} == {0, 1, 2}
    for region in pair.regions:
        assert region.n_stable == stable_points(*region.parameters)
        assert region.sure


def test_a_curve_that_no_line_meets_is_followed_from_a_point_on_another():
    # Hopf points begin at the Bogdanov-Takens point, above the middle line p2 = -2 and beside the middle line p1 = -2.8.
    diagram = ssntk.two_parameter_diagram(plane_of(coupled, 2), ((-3.4, -2.2), (-4.0, 0.0)), n_slices=1, **FEW)
    assert {event.kind for one in diagram.slices for event in one.bifurcations} == {"saddle-node"}
    assert sorted(curve.kind for curve in diagram) == ["hopf", "saddle-node"]
    (hopf,) = [curve for curve in diagram if curve.kind == "hopf"]
    np.testing.assert_allclose(np.cosh(hopf.x[:, 0]) ** -2, 0.6, atol=1e-9)
    # From the border into Hopf points and, beyond the point, into neutral saddles.
    assert hopf.status.count("left the span") == 2
    assert (hopf.frequency > 0).any()
    assert (hopf.frequency == 0).any()
    (point,) = [one for one in diagram.points if one.kind == "bogdanov-takens"]
    np.testing.assert_allclose(point.parameters, MEETS, atol=1e-9)
    assert diagram.through[diagram.points.index(point)] == (0, 1)


@pytest.mark.slow
def test_flips_and_saddle_nodes_of_a_map():
    plane = plane_of(quadratic, 1, is_map=True)
    diagram = ssntk.two_parameter_diagram(plane, ((-1.0, 2.0), (-0.5, 2.5)), **FEW)
    assert sorted(curve.kind for curve in diagram) == ["flip", "saddle-node"]
    for curve in diagram:
        p1, p2 = curve.parameters.T
        known = (p2 + 1) * (3 - p2) / 4 if curve.kind == "flip" else -((p2 - 1) ** 2) / 4
        np.testing.assert_allclose(p1, known, atol=1e-11)
    # A fixed point is stable between the two curves only.
    for region in diagram.regions:
        p1, p2 = region.parameters
        assert region.n_stable == (-((p2 - 1) ** 2) / 4 < p1 < (p2 + 1) * (3 - p2) / 4)
    assert sorted(region.n_stable for region in diagram.regions) == [0, 0, 1]


def test_a_limit_on_curves_is_said(pair):
    cut = ssntk.two_parameter_diagram(plane_of(coupled, 2), SPANS, max_curves=1, **FEW)
    assert len(cut) == 1
    assert "stopped at max_curves = 1: more was seen" in cut.status


def test_lines_without_equilibria_are_said_and_none_at_all_is_an_error(closed, monkeypatch):
    def only_along(axis):
        def found(family, span, **options):
            if axis is not None and np.array_equal(span, CLOSED_SPANS[axis]):
                return closed.slices[[which for which, _ in closed.lines].index(1 - axis)]
            raise ssntk.NumericalError("no equilibrium was found at p = 0")

        return found

    monkeypatch.setattr(planes, "bifurcation_diagram", only_along(0))
    diagram = ssntk.two_parameter_diagram(CLOSED_PLANE, CLOSED_SPANS, n_slices=1, **FEW)
    assert diagram.status.startswith("no equilibrium was found at p1 = 0")
    assert {axis for axis, _ in diagram.lines} == {1}
    monkeypatch.setattr(planes, "bifurcation_diagram", only_along(None))
    with pytest.raises(ssntk.NumericalError, match="no equilibrium was found along any of 2 lines"):
        ssntk.two_parameter_diagram(CLOSED_PLANE, CLOSED_SPANS, n_slices=1, **FEW)


def test_kinds_without_curves_are_counted_and_curves_that_fail_are_named(closed, monkeypatch):
    """Pitchforks that lie on no known curve, and a saddle-node of which the curve cannot be started."""
    events = tuple(
        event for one in closed.slices for event in one.bifurcations if event.kind in ("pitchfork", "saddle-node")
    )

    def fails(*arguments, **options):
        raise ssntk.NumericalError("the curve cannot be started")

    monkeypatch.setattr(planes, "bifurcation_curve", fails)
    both = [next(event for event in events if event.kind == kind) for kind in ("pitchfork", "saddle-node")]
    one = dataclasses.replace(closed.slices[0], bifurcations=tuple(both))
    monkeypatch.setattr(planes, "bifurcation_diagram", lambda *arguments, **options: one)
    status = ssntk.two_parameter_diagram(CLOSED_PLANE, ((-1.0, 1.0), (-1.0, 1.0)), n_slices=1, **FEW).status
    assert "2 pitchforks do not persist" in status
    assert "was not followed: the curve cannot be started" in status


def test_a_place_on_a_curve_is_told_from_one_beside_it(closed):
    (curve,) = closed.curves
    ruler = Ruler(np.array([2.0, 4.0]), np.array([1.0]))
    steps = np.abs(np.diff(ruler.measured(curve.parameters, curve.x), axis=0)).max()
    # The curve has the states x with 3 x^2 = 1 - p2^2, and p1 = -2 x^3.
    for angle in np.linspace(0.1, 6.2, 41):
        x, p2 = np.sin(angle) / 3**0.5, np.cos(angle)
        place = np.array([-2 * x**3, p2])
        assert ruler.lies_on(curve, place, np.array([x]), 0.0)
        assert not ruler.lies_on(curve, place + np.array([0.02, 0.0]), np.array([x]), 0.0)
        # The other saddle-node has nearly the same parameters beside a cusp, and another state. They are apart by 2 |x|^3 of
        # the span, and are told apart if that is more than a part of the distance between points.
        if 2 * abs(x) ** 3 > 2 * ON * steps:
            assert not ruler.lies_on(curve, place, np.array([-x]), 0.0)
        # Another pair may be critical at the same state.
        assert not ruler.lies_on(curve, place, np.array([x]), 1.0)


def test_results_are_stored_printed_and_written(closed, tmp_path):
    xarray = pytest.importorskip("xarray")
    stored = dataclasses.replace(closed, plane=None)
    stored = dataclasses.replace(stored, curves=tuple(dataclasses.replace(one, plane=None) for one in closed))
    assert ssntk.load(ssntk.save(tmp_path / "closed.npz", stored)) == stored
    text = str(closed)
    assert "1 curve, 2 points of codimension two, regions with 1 or 2 stable fixed points" in text
    assert text.count("cusp") == 2
    data = closed.to_xarray()
    assert isinstance(data, xarray.Dataset)
    np.testing.assert_array_equal(data["parameters"], closed[0].parameters)
    assert list(data["codim2_kind"].values) == ["cusp", "cusp"]
    assert data["region_n_stable"].size == 2
    rows = closed.to_csv(tmp_path / "closed.csv").read_text().splitlines()
    assert len(rows) == 1 + len(closed[0])
    assert rows[0].startswith("curve,kind,parameters_0,parameters_1,x_0")
    said = ssntk.explain(closed)
    assert "1 of the kind saddle-node; 1 closed" in said
    assert "result.plot()" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"plane": ssntk.normal_forms.hopf(0.0, 1.0)}, "plane must be"),
        ({"spans": (-1.0, 1.0)}, r"spans\[0\]"),
        ({"spans": 3.0}, "spans must be a pair"),
        ({"spans": ((0.0, 1.0), (2.0, 2.0))}, r"spans\[1\] must not be empty"),
        ({"spans": ((0.0, np.nan), (0.0, 1.0))}, r"spans\[0\]"),
        ({"n_slices": 0}, "n_slices must be"),
        ({"n_searches": 1}, "n_searches must be"),
        ({"n_starts": 1}, "n_starts must be"),
        ({"max_curves": 0}, "max_curves must be"),
        ({"max_steps": 1}, "max_steps must be"),
        ({"step": 0.0}, "step must be"),
        ({"u": [1.0, 2.0]}, "u must"),
        ({"key": 3}, "key must be"),
    ],
)
def test_mistakes_are_named(arguments, said):
    own = {"plane": CLOSED_PLANE, "spans": CLOSED_SPANS} | arguments
    with pytest.raises(ValueError, match=said):
        ssntk.two_parameter_diagram(own.pop("plane"), own.pop("spans"), **own)


def test_models_that_depend_on_time_are_refused():
    model = ssntk.VectorField(lambda t, x, u, p: p["p1"] + p["p2"] * x + t - x**3, {"p1": 0.0, "p2": 0.0}, 1)
    plane = ssntk.Family.plane(ssntk.Family(model, "p1"), ssntk.Family(model, "p2"))
    with pytest.raises(ValueError, match="time"):
        ssntk.two_parameter_diagram(plane, CLOSED_SPANS)


@pytest.mark.slow
def test_hopf_points_that_no_line_meets_are_followed_from_a_zero_hopf_point():
    """x' = p1 - x^2 and z' = (p2 + 0.3 x + i) z - z |z|^2: saddle-nodes at p1 = 0, Hopf points at p2 = -0.3 x."""

    def both(x, p1, p2):
        mu, r = p2 + 0.3 * x[0], x[1] ** 2 + x[2] ** 2
        return jnp.stack([p1 - x[0] ** 2, mu * x[1] - x[2] - x[1] * r, x[1] + mu * x[2] - x[2] * r])

    diagram = ssntk.two_parameter_diagram(plane_of(both, 3), ((-1.5, 0.5), (-1.0, 0.4)), n_slices=1, **FEW)
    assert [event.kind for one in diagram.slices for event in one.bifurcations] == ["saddle-node"]
    assert sorted(curve.kind for curve in diagram) == ["hopf", "saddle-node"]
    (hopf,) = [curve for curve in diagram if curve.kind == "hopf"]
    np.testing.assert_allclose(hopf.parameters[:, 0], (hopf.parameters[:, 1] / 0.3) ** 2, atol=1e-10)
    (point,) = diagram.points
    assert point.kind == "zero-hopf"
    assert np.abs(point.parameters).max() <= 1e-9
    assert diagram.through == ((0, 1),)


@pytest.mark.slow
def test_a_network_of_32_units():
    """Two closed curves of saddle-nodes with four cusps each."""
    rng = np.random.default_rng(4)
    weight = 0.6 * rng.standard_normal((32, 32)) / np.sqrt(32)
    q = np.linalg.qr(rng.standard_normal((32, 2)))[0]
    weight += q @ np.array([[2.2, -1.2], [1.2, 1.2]]) @ q.T
    model = ssntk.CTRNN.from_weights(weight, 2 * q, 0.05 * rng.standard_normal(32))
    plane = ssntk.Family.plane(ssntk.Family.input(model, 0), ssntk.Family.input(model, 1))
    diagram = ssntk.two_parameter_diagram(plane, ((-3.0, 3.0), (-3.0, 3.0)), key=jax.random.key(2))
    assert [curve.closed for curve in diagram if curve.kind == "saddle-node"] == [True, True]
    cusps = [point.parameters for point in diagram.points if point.kind == "cusp"]
    assert len(cusps) == 8
    # Refound to 13 digits from several starts by a prototype of its own.
    assert sum(np.abs(place - [-0.9489347998911, 0.3320051479176]).max() <= 1e-9 for place in cusps) == 1
