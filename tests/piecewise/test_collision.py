"""What is born where a fixed point meets a border: the local map against the whole map, and Feigin's parities."""

import itertools

import numpy as np
import pytest
from helpers import seeds
from relu_networks import cycles_of, form, patterns_of

from ssntk.piecewise.collision import born, counted_cycles
from ssntk.piecewise.over import over
from ssntk.piecewise.pivot import walk

# The distance from a collision, as a part of the span, at which the whole map is enumerated.
BESIDE = 1e-7


def collisions(seed):
    """A random map of two or three units, and its collisions along the branches over its input."""
    random = np.random.default_rng(seed)
    n = 2 if seed % 4 else 3
    leak, weight = random.uniform(-1, 1, n), 1.5 * random.standard_normal((n, n))
    bias, way = random.standard_normal((2, n))

    def make(q):
        return form("map", weight, bias + (8 * q - 4) * way, leak)

    system, kinks = over(make), []
    for pattern in patterns_of(make(0.0)):
        kinks += walk(system, pattern, 0.0, 1.0, 100).kinks
    return make, system, kinks


@pytest.mark.parametrize("seed", seeds(45, 260))
def test_the_local_map_counts_what_the_whole_map_does(seed):
    make, system, kinks = collisions(seed)
    highest = 6 if len(make(0.0).h) == 2 else 4
    for kink in kinks:
        low, high = counted_cycles(system, kink)
        for order in range(2, highest + 1):
            before, behind = (cycles_of(make(kink.q + side * BESIDE), order) for side in (-1, 1))
            # Cycles of the whole map that stay away from the border are the same on both sides.
            assert behind - before == high.get(order, 0) - low.get(order, 0), (kink.q, order)
        assert all(order > 1 and count > 0 for order, count in born((low, high)).items())


@pytest.mark.parametrize("seed", seeds(45, 260))
def test_feigins_parities_agree(seed):
    make, system, kinks = collisions(seed)
    for kink in kinks:
        one = make(kink.q)
        multipliers = [np.linalg.eigvals(one.jacobian(pattern)) for pattern in (kink.before, kink.after)]
        above, below = (
            sum(int((np.abs(m.imag) < 1e-12).astype(int) @ (side * m.real > 1)) for m in multipliers) for side in (1, -1)
        )
        assert kink.turns == (above % 2 == 1)
        low, high = counted_cycles(system, kink)
        # An odd sum of multipliers below -1: a cycle of two steps exists at one side only.
        assert (low.get(2, 0) + high.get(2, 0)) % 2 == below % 2


def test_many_of_them_give_birth_to_cycles_of_higher_order():
    orders = set()
    for seed in range(120):
        _, system, kinks = collisions(seed)
        orders |= set(itertools.chain.from_iterable(born(counted_cycles(system, kink)) for kink in kinks))
    assert {2, 3, 4, 5} <= orders


def test_the_tent_map_has_the_cycles_of_a_full_shift_behind_its_border():
    """x' = mu + 2 x - 4 relu(x): for mu < 0 it has no fixed point, for mu > 0 as many cycles as there are Lyndon words."""

    def make(q):
        return form("map", np.array([[-4.0]]), np.array([2 * q - 1]), np.array([2.0]))

    system = over(make)
    (pattern, _) = patterns_of(make(1.0))
    (kink,) = walk(system, pattern, 1.0, -1.0, 10).kinks
    assert kink.turns
    low, high = counted_cycles(system, kink)
    assert low == {}
    assert high == {2: 1, 3: 2, 4: 3, 5: 6, 6: 9, 7: 18, 8: 30}
