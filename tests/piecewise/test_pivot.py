"""Fixed points of piecewise-linear systems followed from border to border, against brute force over all regions."""

import numpy as np
import pytest
from helpers import seeds
from relu_networks import GAINS, drawn, form, moving, patterns_of

from ssntk.errors import Outcome
from ssntk.piecewise.over import over
from ssntk.piecewise.pivot import both_ways, start_at, walk
from ssntk.piecewise.region import region_of

SLICES = np.linspace(0, 1, 7)


def paths_of(make):
    """The system, and the paths through all fixed points at seven values of the parameter."""
    system, paths = over(make), []
    for q in SLICES:
        for pattern in patterns_of(make(q)):
            if any(path.on(pattern, q) for path in paths):
                continue
            on = walk(system, pattern, q, 1.0, 1000)
            paths.append(on if on.closed or q == 0 else both_ways(on, walk(system, pattern, q, -1.0, 1000)))
    return system, paths


def states(system, path):
    """The fixed points at three places of each piece: (q, pattern, x)."""
    for piece in path.pieces:
        # One end may be a pole.
        region = region_of(system, piece.pattern, (piece.begin + piece.end) / 2)
        for part in (0.01, 0.5, 0.99):
            q = piece.begin + part * (piece.end - piece.begin)
            yield q, piece.pattern, region.state(q) * system.sizes


@pytest.mark.parametrize("what", ["input", "gain", "weight", "smooth"])
@pytest.mark.parametrize("seed", seeds(5, 30))
def test_pieces_are_what_enumeration_finds(what, seed):
    kind = ("current", "rate", "map", "euler")[seed % 4]
    make = moving(seed, what, kind, most=6 if what == "smooth" else 8)
    system, paths = paths_of(make)
    assert system.still == (what == "input")
    random = np.random.default_rng(seed)
    for q in random.uniform(0, 1, 6):
        known = {pattern.tobytes() for pattern in patterns_of(make(q))}
        held = {piece.pattern.tobytes() for path in paths for piece in path.pieces if piece.holds(q)}
        # What is followed exists. What exists and is not followed lies on a closed path between the slices.
        assert held <= known
    for path in paths:
        assert {end.outcome for end in path.ends} <= {Outcome.left_span, Outcome.closed, Outcome.to_infinity}
        for q, pattern, x in states(system, path):
            one = make(q)
            terms = np.abs(one.pull) @ np.abs(x) + np.abs(one.B) @ (pattern * (np.abs(one.C) @ np.abs(x) + np.abs(one.c)))
            rest = one.pull @ x + one.B @ (pattern * one.signals(x)) + one.h
            assert np.abs(rest).max() <= 1e-13 * (terms + np.abs(one.h)).max()


@pytest.mark.parametrize("seed", seeds(10, 40))
def test_every_fixed_point_is_on_a_path(seed):
    make = moving(seed, "input", ("current", "rate")[seed % 2])
    _, paths = paths_of(make)
    for q in np.random.default_rng(seed).uniform(0, 1, 12):
        missing = [one for one in patterns_of(make(q)) if not any(path.on(one, q) for path in paths)]
        # Fixed points that were missed lie on closed paths between the slices, of which there is none in these networks.
        assert not missing


@pytest.mark.parametrize("seed", seeds(6, 40))
def test_kinks_are_where_signals_vanish_and_delta_is_the_ratio_of_determinants(seed):
    make = moving(seed, ("input", "gain")[seed % 2], "rate")
    system, paths = paths_of(make)
    for path in paths:
        for before, kink, behind in zip(path.pieces, path.kinks, path.pieces[1:], strict=False):
            one, (i,) = make(kink.q), kink.units
            x = kink.x * system.sizes
            # The constant may pass zero at this very place: its size is that at the beginning of the span.
            assert abs(one.signals(x)[i]) <= 1e-12 * (np.abs(one.C[i]) @ np.abs(x) + abs(make(0.0).c[i]))
            first, second = (np.linalg.det(one.pull + (one.B * at) @ one.C) for at in (kink.before, kink.after))
            np.testing.assert_allclose(kink.delta, second / first, rtol=1e-9)
            assert kink.turns == (kink.delta < 0) == (before.direction != behind.direction)


def test_a_closed_path_comes_back_to_its_start():
    """A path between two slices that closes: found by looking at the start in the middle of networks of eight units."""
    closed = 0
    for seed in range(400):
        weight, bias, way, _ = drawn(seed)
        if len(bias) < 5 or seed % len(GAINS) == 0:
            continue
        _, paths = paths_of(lambda q, w=weight, b=bias, v=way: form("current", w, b + (6 * q - 3) * v))
        for path in paths:
            if path.closed:
                closed += 1
                assert np.array_equal(path.pieces[0].pattern, path.pieces[-1].pattern)
                assert path.pieces[0].begin == path.pieces[-1].end
                assert sum(kink.turns for kink in path.kinks) % 2 == 0
        if closed:
            break
    assert closed


@pytest.mark.parametrize("seed", range(4))
def test_units_change_nothing(seed):
    """States and the relus in units of their own, time and the parameter in others."""
    make = moving(seed, ("input", "gain")[seed % 2], ("current", "rate", "map", "euler")[seed])
    random = np.random.default_rng(seed)
    one = make(0.0)
    size, width = (10 ** random.uniform(-6, 6, count) for count in (len(one.h), len(one.c)))
    time = 1.0 if one.dt else 10 ** random.uniform(-6, 6)

    def scaled(q):
        held = make(q)
        return type(held)(
            held.A * size[:, None] / size * time,
            held.B * size[:, None] / width * time,
            held.C * width[:, None] / size,
            held.c * width,
            held.h * size * time,
            held.dt,
        )

    for q in SLICES:
        for pattern in patterns_of(make(q)):
            first, second = (walk(over(which), pattern, q, 1.0, 1000) for which in (make, scaled))
            assert first.ends[0].outcome is second.ends[0].outcome
            assert len(first.kinks) == len(second.kinks)
            for kink, other in zip(first.kinks, second.kinks, strict=True):
                assert kink.units == other.units
                np.testing.assert_allclose([kink.q, kink.delta], [other.q, other.delta], rtol=1e-9)


def test_several_signals_vanish_at_once():
    """Two equal units without coupling meet their borders together and go on together; with mutual inhibition each of two
    further branches leads on, and the path says so."""

    def uncoupled(q):
        return form("current", 0.5 * np.eye(2), np.full(2, 2 * q - 1))

    path = walk(over(uncoupled), np.zeros(2, bool), 0.0, 1.0, 100)
    (kink,) = path.kinks
    assert kink.units == (0, 1)
    assert kink.after.all()
    np.testing.assert_allclose([kink.q, kink.delta], [0.5, 0.25], rtol=1e-14)
    assert path.ends[0].outcome is Outcome.left_span

    def inhibited(q):
        return form("current", np.array([[0.0, -2.0], [-2.0, 0.0]]), np.full(2, 2 * q - 1))

    path = walk(over(inhibited), np.zeros(2, bool), 0.0, 1.0, 100)
    (end,) = path.ends
    assert end.outcome is Outcome.several_ways
    # Behind the border there are (p / 3, p / 3), (p, 0) and (0, p), as for two units that inhibit each other.
    assert {tuple(way.pattern.tolist()) for way in end.ways} == {(True, True), (True, False), (False, True)}


def test_a_line_of_fixed_points_is_named():
    """dx/dt = -x + relu(x) + p: behind the border at p = 0 every x > 0 is at rest."""
    path = walk(over(lambda q: form("current", np.eye(1), np.array([2 * q - 1]))), np.zeros(1, bool), 0.0, 1.0, 100)
    assert path.ends[0].outcome is Outcome.no_way
    assert path.ends[0].q == pytest.approx(0.5, rel=1e-14)


def test_newton_from_region_to_region_finds_a_fixed_point():
    for seed in range(20):
        make = moving(seed, "input", "rate")
        known = {pattern.tobytes() for pattern in patterns_of(make(0.3))}
        for number in range(4):
            x = np.random.default_rng(number).standard_normal(len(make(0.3).h))
            found = start_at(over(make), x, 0.3)
            assert found is None or found.tobytes() in known
