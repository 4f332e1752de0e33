"""Cycles of maps against closed forms, enumeration, published counts and brute force.

Compiles the step and its Jacobian of about ten maps of one or two states, and of two networks.
"""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import seeds, some

import ssntk


def logistic(t, x, u, p):
    return p["r"] * x * (1 - x)


def henon(t, x, u, p):
    return [1 - p["a"] * x[0] ** 2 + x[1] + u.sum(), p["b"] * x[0]]


def lozi(t, x, u, p):
    return [1 + x[1] - p["a"] * jnp.abs(x[0]), p["b"] * x[0]]


def bent(t, x, u, p):
    """A map of the line into itself: a sum of three tanh."""
    return (p["a"] * jnp.tanh(p["b"] * x + p["c"])).sum()[None]


def cycle(t, x, u, p):
    """A state that every step multiplies by -1: every point is a cycle of two steps."""
    return -p * x


def turn(t, x, u, p):
    """The standard map: an angle and its momentum, both modulo 2 pi (Chirikov, 1979)."""
    momentum = x[1] + p * jnp.sin(x[0])
    return [x[0] + momentum, momentum]


LOGISTIC = ssntk.Map(logistic, {"r": 4.0}, 1)
HENON = ssntk.Map(henon, {"a": 1.4, "b": 0.3}, 2)


def rounds(model, x, u=None):
    """The states after one step from each point of cycles (c, k, n), by the model's own step."""
    return np.array([[model.step(point, u) for point in one] for one in x]).reshape(x.shape)


def check(cycles, model, u=None):
    """What has to hold of any result: the orbits return, and no sooner; the multipliers are those of the composition."""
    k = cycles.period
    assert cycles.x.shape == (len(cycles), k, model.n_state)
    size = 1 + np.abs(cycles.x)
    np.testing.assert_allclose(rounds(model, cycles.x, u) / size, np.roll(cycles.x, -1, axis=1) / size, atol=1e-12)
    for x, values in zip(cycles.x, cycles.eigenvalues, strict=True):
        assert all(np.abs(np.roll(x, q, axis=0) - x).max() > 1e-9 for q in range(1, k) if k % q == 0)

        def whole(x):
            for _ in range(k):
                x = model.step(x, u)
            return x

        expected = np.linalg.eigvals(np.asarray(jax.jacfwd(whole)(jnp.asarray(x[0]))))
        largest = np.abs(expected).max()
        np.testing.assert_allclose(np.sort_complex(values), np.sort_complex(expected.astype(complex)), atol=1e-8 * largest)
    np.testing.assert_array_equal(cycles.stable, (np.abs(cycles.eigenvalues) < 1).all(axis=1))
    # Each cycle is there once: no two share a point.
    points = cycles.x.reshape(-1, model.n_state)
    gaps = np.abs(points[:, None] - points).max(axis=2) + np.eye(len(points))
    assert not len(points) or gaps.min() > 1e-10


@pytest.mark.parametrize("k", some(range(1, 13), {1, 2, 6, 12}))
def test_the_logistic_map_has_all_its_cycles(k):
    # F^k is conjugate to a full tent map, so that it has 2^k fixed points; Moebius inversion counts those of prime period k.
    def points(k):
        return 2**k - sum(points(q) for q in range(1, k) if k % q == 0)

    cycles = ssntk.find_cycles(LOGISTIC, k)
    assert len(cycles) == points(k) // k
    assert cycles.index_sum == 0
    assert cycles.complete is None
    if k < 7:
        check(cycles, LOGISTIC)
    if k == 1:
        np.testing.assert_allclose(np.sort(cycles.x.ravel()), [0.0, 0.75], atol=1e-12)
    else:
        # Every cycle has a multiplier of this size, but for the point x = 0.
        np.testing.assert_allclose(np.abs(cycles.eigenvalues), 2.0**k, rtol=1e-6)


# Cycles on the attractor (Galias, International Journal of Bifurcation and Chaos 11, 2001, page 2427).
HENON_COUNTS = {2: 1, 3: 0, 4: 1, 5: 0, 6: 2, 7: 4, 8: 7, 9: 6, 10: 10, 11: 14, 12: 19, 13: 32, 14: 44, 15: 72, 16: 102}


@pytest.mark.parametrize("k", some(HENON_COUNTS, {2, 5, 6, 13}))
def test_the_henon_map_has_the_published_number_of_cycles(k):
    cycles = ssntk.find_cycles(HENON, k)
    assert len(cycles) == HENON_COUNTS[k]
    if k < 8:
        check(cycles, HENON)


@pytest.mark.slow
def test_most_of_the_cycles_of_twenty_steps_are_found():
    cycles = ssntk.find_cycles(HENON, 20, n_starts=16_384)
    assert 530 <= len(cycles) <= 535
    assert cycles.residual.max() <= 1e-12


def enumerated(k, a, b):
    """The cycles of the Lozi map of prime period k, by solving the linear equations of every itinerary."""
    found = []
    for signs in itertools.product((1, -1), repeat=k):
        matrix, shift = np.eye(2), np.zeros(2)
        for sign in signs:
            step = np.array([[-a * sign, 1.0], [b, 0.0]])
            matrix, shift = step @ matrix, step @ shift + [1.0, 0.0]
        x = np.linalg.solve(np.eye(2) - matrix, shift)
        orbit = [x]
        for _ in range(k - 1):
            orbit.append(np.array([1 + orbit[-1][1] - a * abs(orbit[-1][0]), b * orbit[-1][0]]))
        orbit = np.array(orbit)
        admissible = (np.sign(orbit[:, 0]) == signs).all()
        prime = all(np.abs(np.roll(orbit, q, axis=0) - orbit).max() > 1e-9 for q in range(1, k) if k % q == 0)
        if admissible and prime:
            found.append(np.roll(orbit, -int(np.lexsort(orbit.T[::-1])[0]), axis=0))
    return {tuple(np.round(orbit[0], 9)) for orbit in found}


@pytest.mark.parametrize("k", some(range(1, 11), {3, 6}))
def test_a_piecewise_linear_map_has_the_cycles_that_enumeration_finds(k):
    cycles = ssntk.find_cycles(ssntk.Map(lozi, {"a": 1.7, "b": 0.5}, 2), k)
    # Each begins at its least point.
    assert {tuple(np.round(x[0], 9)) for x in cycles.x} == enumerated(k, 1.7, 0.5)


def draw(seed):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=3) * size for name, size in (("a", 1.5), ("b", 3.0), ("c", 1.0))}


@pytest.mark.parametrize("seed", seeds(2, 12))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_cycles_of_random_maps_of_the_line_are_those_of_a_fine_grid(seed, k):
    params = draw(seed)
    model = ssntk.Map(bent, params, 1)
    cycles = ssntk.find_cycles(model, k)
    check(cycles, model)

    def advanced(x, steps):
        for _ in range(steps):
            x = (params["a"] * np.tanh(params["b"] * x[:, None] + params["c"])).sum(axis=1)
        return x

    # Brute force: every change of sign of F^k(x) - x on a grid over all that the map reaches.
    grid = np.linspace(-1, 1, 400_001) * np.abs(params["a"]).sum() * 1.001
    gap = advanced(grid, k) - grid
    crossed = np.flatnonzero(gap[1:] * gap[:-1] < 0)
    prime = np.array([min(abs(advanced(grid[i : i + 1], q)[0] - grid[i]) for q in (1,)) for i in crossed]) if k > 1 else None
    if prime is not None:
        # Points of F itself return after one step, to within the grid and the slope there.
        crossed = crossed[prime > 1e-3]
    assert len(cycles) == len(crossed) // k
    np.testing.assert_allclose(np.sort(cycles.x.ravel()), grid[crossed], atol=grid[1] - grid[0])
    # Of a bounded map the indices of all points of F^k add up to one.
    assert cycles.index_sum == 1


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_other_units_change_no_cycle(seed):
    random = np.random.default_rng([seed, 7])
    sizes, dt = 10 ** random.uniform(-6, 6, 2), 10 ** random.uniform(-3, 3)
    other = ssntk.Map(
        lambda t, x, u, p: p["S"] * jnp.stack(henon(t, x / p["S"], u, p)), {"a": 1.4, "b": 0.3, "S": sizes}, 2, dt=dt
    )
    for k in (1, 6, 7):
        one, two = ssntk.find_cycles(HENON, k), ssntk.find_cycles(other, k)
        np.testing.assert_allclose(two.x / sizes, one.x, atol=1e-9)
        np.testing.assert_allclose(two.eigenvalues, one.eigenvalues, rtol=1e-6)
        np.testing.assert_array_equal(two.stable, one.stable)
        assert two.index_sum == one.index_sum


def test_angles_may_turn():
    kicked = ssntk.Map(turn, 1.2, 2)
    turns = [2 * np.pi, 2 * np.pi]
    fixed = ssntk.find_cycles(kicked, 1, periods=turns)
    # sin x = 0 and the momentum a multiple of 2 pi; the multipliers solve m^2 - (2 + p cos x) m + 1 = 0.
    np.testing.assert_allclose(np.sort(fixed.x[:, 0, 0]), [0, np.pi], atol=1e-12)
    traces = np.sort(fixed.eigenvalues.sum(axis=1).real)
    np.testing.assert_allclose(traces, [2 - 1.2, 2 + 1.2], rtol=1e-9)
    pair = ssntk.find_cycles(kicked, 2, periods=turns)
    # The cycle with half a turn at every step, at x = 0 and x = pi.
    half = np.array([[0.0, np.pi], [np.pi, np.pi]])
    assert any(np.abs(x - half).max() < 1e-9 for x in pair.x)


@pytest.mark.parametrize("period", [1, 2, 4])
def test_lines_of_cycles_are_no_cycles(period):
    # Every point is a cycle of two steps, and none can be singled out. Zero is the only fixed point.
    cycles = ssntk.find_cycles(ssntk.Map(cycle, 1.0, 1), period)
    assert len(cycles) == (1 if period == 1 else 0)
    assert (cycles.n_degenerate == 0) == (period == 1)
    assert cycles.index_sum == (1 if period == 1 else None)
    assert ("not isolated" in repr(cycles)) == (period > 1)


@pytest.mark.parametrize("rate", some([1e-8, 1e-9], {1e-9}))
@pytest.mark.parametrize("k", some([1, 2, 3], {2}))
def test_a_mode_that_hardly_decays_does_not_multiply_a_point(rate, k):
    def still(t, x, u, p):
        return [0.5 * x[0] + 0.1, x[1] + p * (0.3 - jnp.tanh(x[1])), 0.4 * x[2] + x[1]]

    cycles = ssntk.find_cycles(ssntk.Map(still, rate, 3), k)
    assert len(cycles) == (1 if k == 1 else 0)
    assert cycles.index_sum == 1
    points = ssntk.find_fixed_points(ssntk.Map(still, rate, 3))
    assert len(points) == 1


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-8])
def test_a_cycle_that_was_just_born_is_told_from_its_parent(gap):
    # Near the flip at r = 3 the points lie sqrt(gap) apart: x = (r + 1 +- sqrt((r + 1)(r - 3))) / (2 r).
    r = 3 + gap
    cycles = ssntk.find_cycles(ssntk.Map(logistic, {"r": r}, 1), 2)
    expected = (r + 1 + np.array([-1, 1]) * np.sqrt((r + 1) * gap)) / (2 * r)
    assert len(cycles) == 1
    np.testing.assert_allclose(cycles.x[0, :, 0], expected, atol=1e-14 / gap + 1e-12)
    # Its multiplier is 1 - (r - 3)(r + 1) = 4 + 2 r - r^2.
    np.testing.assert_allclose(cycles.eigenvalues, 4 + 2 * r - r**2, atol=1e-9)


def test_before_the_flip_there_is_no_cycle():
    assert len(ssntk.find_cycles(ssntk.Map(logistic, {"r": 3 - 1e-9}, 1), 2)) == 0


@pytest.mark.parametrize("make", some([ssntk.GRUCell, ssntk.LSTMCell], {ssntk.GRUCell}))
def test_networks(make, compilations):
    model = make(2, 5, 1, key=jr.key(3))
    first = ssntk.find_cycles(model, 3, [0.3, -0.2])
    check(first, model, jnp.array([0.3, -0.2]))
    assert first.index_sum == 1
    points = ssntk.find_fixed_points(model, [0.3, -0.2])
    single = ssntk.find_cycles(model, 1, [0.3, -0.2])
    np.testing.assert_allclose(single.x[:, 0], points.x, atol=1e-9)
    before = len(compilations)
    ssntk.find_cycles(make(2, 5, 1, key=jr.key(4)), 3, [0.1, 0.0])
    assert len(compilations) == before


def test_starts_are_taken_as_they_are():
    known = ssntk.find_cycles(HENON, 4)
    again = ssntk.find_cycles(HENON, 4, starts=known.x)
    np.testing.assert_allclose(again.x, known.x, atol=1e-12)
    assert (again.n_starts, again.n_lost) == (1, 0)
    np.testing.assert_allclose(ssntk.find_cycles(HENON, 4, starts=known.x[:, 0]).x, known.x, atol=1e-12)
    assert ssntk.find_cycles(HENON, 4, n_starts=50).n_starts == 50


def test_results_speak_and_are_kept(tmp_path):
    cycles = ssntk.find_cycles(HENON, 6)
    assert "2 cycles of 6 steps" in repr(cycles)
    assert ssntk.load(ssntk.save(tmp_path / "cycles.npz", cycles)) == cycles
    assert ssntk.load(ssntk.save(tmp_path / "cycle.npz", cycles[0])) == cycles[0]
    assert len(cycles[0]) == 6
    assert cycles.to_xarray().sizes["step"] == 6
    assert len(ssntk.find_cycles(HENON, 6)) == len(list(cycles))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((LOGISTIC, 0), "period"),
        ((LOGISTIC, 2.5), "period"),
        ((ssntk.normal_forms.hopf(0.1, 1.0, 0.0), 2), "map"),
        ((LOGISTIC, 2, [1.0]), "u"),
        ((ssntk.Map(lambda t, x, u, p: p * x + jnp.sin(t), 0.5, 1), 2), "map"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=rf"^{said} must"):
        ssntk.find_cycles(*arguments)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_starts": 1},
        {"starts": np.zeros((3, 4, 1))},
        {"starts": np.zeros((0, 1))},
        {"prove": True},
        {"scale": -1.0},
        {"periods": [-1.0]},
    ],
)
def test_bad_options(bad):
    with pytest.raises(ValueError, match=rf"^{next(iter(bad))}"):
        ssntk.find_cycles(LOGISTIC, 2, **bad)
