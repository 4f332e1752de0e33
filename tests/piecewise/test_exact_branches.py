"""`continuation` of ReLU networks: the reference branches, small cases with closed forms, and every option."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, Leaky, seeds
from relu_networks import drawn, form, patterns_of

import ssntk
from ssntk.piecewise.over import over
from ssntk.piecewise.pivot import walk

FILE = ROOT.parent / "shared" / "reference" / "maps.json"
needed = pytest.mark.skipif(not FILE.exists(), reason="maps.json is not there: it lies beside the project, in shared/")
relu = jax.nn.relu


def network(weight, bias, way, kind="current", beta=None, dtype=float):
    """A ReLU network of one input along `way`, or the same with softplus of sharpness beta."""

    def active(x):
        return relu(x) if beta is None else jax.nn.softplus(beta * x) / beta

    def field(t, x, u, p):
        if kind == "current":
            return -x + p["W"] @ active(x) + p["b"] + p["v"] * u[0]
        return -x + active(p["W"] @ x + p["b"] + p["v"] * u[0])

    numbers = {"W": weight, "b": bias, "v": way}
    model = ssntk.VectorField(field, {name: jnp.asarray(one, dtype) for name, one in numbers.items()}, len(bias), 1)
    return ssntk.Family.input(model, [1.0])


def scalar(fn, n=1, cell=ssntk.VectorField):
    """A model of n states as a family of its parameter p."""
    return ssntk.Family(cell(lambda t, x, u, p: fn(x, p["p"]), {"p": 0.0}, n), "p")


@needed
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("form", ["current", "rate"])
def test_reference_branches(number, form):
    case = json.loads(FILE.read_text())["relu_branches"]["branches"][number]
    weight, bias, way, start, end = (
        np.array(case[name]) for name in ("W", "bias", "input_direction", "x_at_start", "x_at_end")
    )
    if form == "rate":
        # y = relu(x), with the signals x = W y + b + p v.
        start, end = np.maximum(start, 0), np.maximum(end, 0)
    branch = ssntk.continuation(network(weight, bias, way, form), tuple(map(float, case["span"])), x0=start)
    assert branch.status == case["status"]
    assert len(branch.collisions) == case["pieces"] - 1 == len(case["events"])
    for found, event in zip(branch.collisions, case["events"], strict=True):
        assert (found.kind, found.unit, list(found.unstable)) == (event["kind"], event["unit"], event["unstable"])
        np.testing.assert_allclose([found.parameter, found.delta], [event["p"], event["delta"]], rtol=1e-12, atol=1e-13)
        x = np.array(event["x"])
        np.testing.assert_allclose(found.x, x if form == "current" else np.maximum(x, 0), atol=1e-12 * np.abs(x).max())
    np.testing.assert_allclose(branch.x[-1], end, atol=1e-12 * np.abs(end).max())
    assert branch.bifurcations == branch.unresolved == ()


def test_a_nonsmooth_fold():
    branch = ssntk.continuation(scalar(lambda x, p: -x + 2 * relu(x) + p), (-1.0, 1.0), x0=[-1.0])
    (fold,), (collision,) = branch.bifurcations, branch.collisions
    assert (fold.kind, fold.parameter, fold.coefficient, fold.criticality) == ("nonsmooth-fold", 0.0, -1.0, None)
    assert (collision.kind, collision.delta, collision.unit, collision.born) == ("nonsmooth-fold", -1.0, 0, {})
    assert branch.status == "left the span at p = -1"
    np.testing.assert_allclose(branch.x[-1], 1.0, rtol=1e-14)
    # x = p is stable, and x = -p is not. The border counts as a point of the piece before it.
    assert branch.stable.tolist() == (np.arange(len(branch)) <= branch.steps[0]).tolist()
    np.testing.assert_allclose(branch.x[:, 0], np.where(branch.stable, 1, -1) * branch.parameter, rtol=1e-14)
    assert set(branch.eigenvalues.ravel().real.tolist()) == {-1.0, 1.0}


def test_a_boundary_hopf():
    matrix = jnp.array([[-0.2, 1.0], [-1.0, -0.2]])
    first = jnp.array([1.0, 0.0])
    family = scalar(lambda x, p: matrix @ x + 0.8 * relu(x[0]) * first + p * first, 2)
    branch = ssntk.continuation(family, (-1.0, 1.0))
    (event,), (collision,) = branch.bifurcations, branch.collisions
    assert event.kind == "boundary-hopf"
    assert abs(event.parameter) < 1e-15
    # Trace -0.4 and 0.4, determinant 1.04 and 0.88: pairs -0.2 +- i and 0.2 +- i sqrt(0.84).
    np.testing.assert_allclose([event.coefficient, event.frequency], [0.88 / 1.04, 0.84**0.5], rtol=1e-14)
    assert (collision.kind, collision.unstable) == ("persistence", (0, 2))
    np.testing.assert_allclose(branch.eigenvalues[-1], [0.2 + 0.84**0.5 * 1j, 0.2 - 0.84**0.5 * 1j], rtol=1e-14)


def test_to_infinity():
    branch = ssntk.continuation(scalar(lambda x, p: -x + p * relu(x) + 0.5), (0.0, 2.0))
    (event,) = branch.bifurcations
    assert event.kind == "to-infinity"
    assert event.parameter == pytest.approx(1.0, rel=1e-14)
    assert branch.status.startswith("leaves for infinity at p = 1")
    np.testing.assert_allclose(branch.x[:, 0], 0.5 / (1 - branch.parameter), rtol=1e-12)
    assert branch.collisions == ()


def test_a_degenerate_flip_and_a_centre():
    branch = ssntk.continuation(scalar(lambda x, p: p * relu(x) + 1, cell=ssntk.Map), (0.0, -2.0))
    (event,) = branch.bifurcations
    assert (event.kind, event.coefficient, event.criticality) == ("degenerate-flip", 0.0, None)
    assert event.parameter == pytest.approx(-1.0, rel=1e-14)
    assert event.frequency == pytest.approx(np.pi)
    turn, first = jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.array([1.0, 0.0])
    branch = ssntk.continuation(scalar(lambda x, p: turn @ x + p * relu(x) + first, 2), (-0.5, 0.25))
    pairs = [event for event in branch.bifurcations if event.kind == "hopf"]
    # x = (p, -1) / (p^2 + 1) for p > 0, where only the first unit is active: trace p.
    assert [event.coefficient for event in pairs] == [0.0] * len(pairs)
    assert all("centre" in event.reason for event in pairs)


def test_a_border_collision_of_a_map_that_gives_birth_to_a_cycle():
    """x' = p + 0.5 x - 2.5 relu(x): slopes 0.5 and -2. For p > 0 the fixed point p / 3 is unstable, and there is a cycle of
    two steps, of which one point lies on each side."""
    branch = ssntk.continuation(scalar(lambda x, p: p + 0.5 * x - 2.5 * relu(x), cell=ssntk.Map), (-1.0, 1.0))
    (event,), (collision,) = branch.bifurcations, branch.collisions
    assert event.kind == "border-collision"
    assert collision.unstable == (0, 1)
    # det (I - F') from 0.5 to 3. The slope of two steps is -1 in both words, so that no cycle of two steps is isolated.
    assert collision.delta == pytest.approx(6.0)


def isola():
    """A network with a closed branch within the span (-3, 3), and a point on it at p: (numbers, p, x)."""
    for seed in range(400):
        weight, bias, way, _ = drawn(seed)
        for q in (0.35, 0.5, 0.65):
            one = form("current", weight, bias + (6 * q - 3) * way)
            for pattern in patterns_of(one) if len(bias) > 4 else ():
                system = over(lambda q, w=weight, b=bias, v=way: form("current", w, b + (6 * q - 3) * v))
                if walk(system, pattern, q, 1.0, 100).closed:
                    x = -np.linalg.solve(one.jacobian(pattern), one.h)
                    return (weight, bias, way), 6 * q - 3, x
    raise AssertionError("no network has one")


def test_an_isola_closes():
    numbers, p, x = isola()
    branch = ssntk.continuation(network(*numbers), (-3.0, 3.0), x0=x, at=p, both=True)
    assert branch.status == "came back to its start"
    np.testing.assert_allclose(branch.x[0], x, atol=1e-12 * np.abs(x).max())
    np.testing.assert_allclose(branch.x[-1], x, atol=1e-12 * np.abs(x).max())
    folds = [one for one in branch.collisions if one.kind == "nonsmooth-fold"]
    assert len(folds) >= 2
    assert len(folds) % 2 == 0
    # The other way round it is the same branch.
    back = ssntk.continuation(network(*numbers), (3.0, -3.0), x0=x, at=p)
    assert sorted(one.parameter for one in back.collisions) == pytest.approx([one.parameter for one in sorted_by(branch)])


def sorted_by(branch):
    """The collisions of a branch by parameter."""
    return sorted(branch.collisions, key=lambda one: one.parameter)


@pytest.mark.parametrize("seed", seeds(4, 12))
def test_softplus_converges_to_it(seed):
    """The distance to the branches of softplus networks of growing sharpness falls like 1 / beta."""
    weight, bias, way, _ = drawn(3 * seed + 1, most=5)
    exact = ssntk.continuation(network(0.4 * weight, bias, way), (-3.0, 3.0))
    places, distances = np.linspace(-2.5, 2.5, 5), []
    for beta in (10.0, 100.0, 1000.0):
        smooth = network(0.4 * weight, bias, way, beta=beta)
        away = 0.0
        for p in places:
            x = np.array([np.interp(p, exact.parameter, column) for column in exact.x.T])
            found = ssntk.find_fixed_points(smooth(p), starts=x[None]).x
            away = max(away, float(np.abs(found - x).max(axis=1).min()))
        distances.append(away)
    # Far from every border the distance falls like exp(-beta |s|), down to rounding.
    rounding = 1e-13 * np.abs(exact.x).max()
    assert distances[1] < 0.3 * distances[0] + rounding
    assert distances[2] < 0.3 * distances[1] + rounding


@pytest.mark.parametrize("seed", range(3))
def test_units_change_nothing(seed):
    """States in units of their own, time and the parameter in others: the same kinds, places, deltas and stability."""
    weight, bias, way, _ = drawn(seed + 1)
    random = np.random.default_rng(seed)
    size, (time, stretch) = 10 ** random.uniform(-6, 6, len(bias)), 10 ** random.uniform(-6, 6, 2)
    plain = ssntk.continuation(network(weight, bias, way), (-3.0, 3.0))

    def field(t, z, u, p):
        x = z / p["s"]
        return time * p["s"] * (-x + p["W"] @ relu(x) + p["b"] + p["v"] * u[0] / stretch)

    numbers = {"W": weight, "b": bias, "v": way, "s": size}
    model = ssntk.VectorField(field, {name: jnp.asarray(one) for name, one in numbers.items()}, len(bias), 1)
    other = ssntk.continuation(ssntk.Family.input(model, [1.0]), (-3.0 * stretch, 3.0 * stretch), x0=plain.x[0] * size)
    assert [one.kind for one in other.bifurcations] == [one.kind for one in plain.bifurcations]
    assert len(other) == len(plain)
    for one, two in zip(plain.collisions, other.collisions, strict=True):
        assert (one.kind, one.unit, one.unstable) == (two.kind, two.unit, two.unstable)
        np.testing.assert_allclose([two.parameter / stretch, two.delta], [one.parameter, one.delta], rtol=1e-9)
    np.testing.assert_allclose(other.x / size, plain.x, rtol=1e-9, atol=1e-9 * np.abs(plain.x).max())
    assert other.stable.tolist() == plain.stable.tolist()


def test_float32_models():
    weight, bias, way, _ = drawn(4)
    numbers = [np.asarray(one, np.float32) for one in (weight, bias, way)]
    single = ssntk.continuation(network(*numbers, dtype=jnp.float32), (-3.0, 3.0))
    double = ssntk.continuation(network(*(one.astype(float) for one in numbers)), (-3.0, 3.0))
    assert [one.kind for one in single.collisions] == [one.kind for one in double.collisions]
    np.testing.assert_allclose(
        [one.parameter for one in single.collisions], [one.parameter for one in double.collisions], atol=1e-5
    )


def test_steps_are_no_longer_than_asked_and_borders_are_points():
    weight, bias, way, _ = drawn(5)
    branch = ssntk.continuation(network(weight, bias, way), (-3.0, 3.0), step=0.02)
    q = (branch.parameter + 3) / 6
    steps = np.sqrt(np.mean((np.diff(branch.x, axis=0) / branch.scale) ** 2, axis=1) + np.diff(q) ** 2)
    assert steps.max() <= 0.02 * (1 + 1e-12)
    for one in branch.collisions:
        assert np.abs(branch.parameter - one.parameter).min() == 0.0
    lengths = np.sqrt(np.mean((branch.tangent[:, :-1] / branch.scale) ** 2, axis=1) + branch.tangent[:, -1] ** 2)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-12)


def test_at_and_both_join_two_directions():
    family = scalar(lambda x, p: -x + 2 * relu(x) + p)
    whole = ssntk.continuation(family, (-1.0, 1.0), x0=[-0.5], at=-0.5, both=True)
    assert whole.parameter[0] == whole.parameter[-1] == -1.0
    assert (whole.x[0, 0], whole.x[-1, 0]) in ((-1.0, 1.0), (1.0, -1.0))
    assert [one.kind for one in whole.collisions] == ["nonsmooth-fold"]
    (at,) = whole.steps
    assert whole.parameter[at] == 0.0
    # The point before the border and the border belong to one piece.
    assert whole.stable[at] == whole.stable[at - 1] != whole.stable[at + 1]
    assert whole.status.count("left the span") == 2


def test_bounds_events_and_limits():
    family = scalar(lambda x, p: -x + 2 * relu(x) + p)
    bounded = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], bounds={0: (-2.0, 0.5)})
    assert bounded.status == "left its bounds at p = -0.5: state 0 reached 0.5"
    assert bounded.x[-1, 0] == pytest.approx(0.5, rel=1e-12)
    bounded = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], bounds=lambda x, p: x[0] < 0.25)
    assert bounded.status == "left its bounds at p = -0.25"
    half = ssntk.Crossing("half", lambda x, p: x[0] + 0.5)
    branch = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], events=[half])
    assert [one.kind for one in branch.bifurcations] == ["half", "nonsmooth-fold"]
    assert branch.bifurcations[0].parameter == pytest.approx(-0.5, rel=1e-12)
    stopping = ssntk.Crossing("end", lambda x, p: x[0] - 0.5, stop=True)
    branch = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], events=[stopping])
    assert branch.status == "stopped at p = -0.5: end"
    short = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], max_steps=7)
    assert len(short) == 7
    assert "max_steps" in short.status
    with pytest.raises(ValueError, match="bounds must hold at the start"):
        ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], bounds={0: (0.0, 1.0)})


def test_what_cannot_be_followed_exactly_is_refused_by_name_or_searched_for():
    family = scalar(lambda x, p: -x + 2 * relu(x) + p)
    for name, value in (("fix", [([1.0], 0.0)]), ("periods", [1.0])):
        with pytest.raises(ValueError, match=f'{name} must not be given with method="exact"'):
            ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], method="exact", **{name: value})
    smooth = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    with pytest.raises(
        ValueError, match='method must be "search" or "auto" for this family: model must be piecewise linear'
    ):
        ssntk.continuation(smooth, (1.0, -1.0), x0=[1.0], method="exact")
    with pytest.raises(ValueError, match="method must be one of 'auto', 'search', 'exact'"):
        ssntk.continuation(family, (-1.0, 1.0), method="guess")
    searched = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.0], method="search")
    (fold,) = searched.collisions
    assert (fold.kind, fold.unit) == ("nonsmooth-fold", None)
    assert searched.status == "left the span at p = -1"
    with pytest.raises(ssntk.NumericalError, match="no equilibrium was found at p = 1"):
        ssntk.continuation(family, (1.0, -1.0))
    with pytest.raises(ValueError, match="time"):
        ssntk.continuation(ssntk.Family(Leaky(jax.random.key(0)), lambda m: m.parts["rates"][1]), (0.1, 1.0))


def test_a_branch_with_collisions_is_saved_and_shown(tmp_path):
    branch = ssntk.continuation(scalar(lambda x, p: p + 0.5 * x - 4.0 * relu(x), cell=ssntk.Map), (-1.0, 1.0))
    assert branch.collisions[0].born
    ssntk.save(tmp_path / "branch.npz", branch)
    assert ssntk.load(tmp_path / "branch.npz") == branch
    assert "cycles exist on one side only" in str(branch.collisions[0])
    assert "collision" in branch.summary()
    assert "border" in ssntk.explain(branch)
    ax = branch.plot(y=0)
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "Border collision" in named
    assert not any("ersistence" in text for text in named)


def test_no_branch_compiles_anything(compilations):
    weight, bias, way, _ = drawn(6)
    family = network(weight, bias, way)
    ssntk.continuation(family, (-3.0, 3.0))
    before = len(compilations)
    other = network(*drawn(9)[:3])
    ssntk.continuation(other, (-2.0, 2.0))
    assert len(compilations) == before
