"""The clock: growth exponents of eigenvalues, against the exponential and the logarithm. Compiles nothing."""

import numpy as np
import pytest

from ssntk.models.clock import Continuous, Steps, clock_of

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.standard_normal(40) + 1j * RANDOM.standard_normal(40)
STEPS = [1e-3, 0.3, 1.0, 7.0]


def test_the_exponent_of_a_flow_is_its_eigenvalue():
    clock = Continuous()
    np.testing.assert_array_equal(clock.growth(VALUES), VALUES)
    np.testing.assert_array_equal(clock.reported(VALUES), VALUES)
    assert clock.highest == np.inf
    assert clock.flips_at is None
    assert clock.edge(2.0) == (0.0, 2.0)
    assert [clock.shown(1j), clock.given(1j), clock.eigenvalue(1j)] == [1j] * 3


@pytest.mark.parametrize("dt", STEPS)
def test_one_step_multiplies_a_mode_by_the_exponential_of_its_exponent(dt):
    clock = Steps(dt)
    multipliers = 1 + dt * VALUES
    exponents = clock.growth(VALUES, sort=False)
    # Numbers of order one in double precision.
    np.testing.assert_allclose(np.exp(exponents * dt), multipliers, rtol=1e-14)
    np.testing.assert_allclose(clock.reported(exponents), multipliers, rtol=1e-13)
    np.testing.assert_allclose(clock.shown(VALUES), multipliers, rtol=1e-15)
    np.testing.assert_allclose(clock.given(multipliers), VALUES, rtol=1e-15 / min(dt, 1), atol=1e-15 / dt)
    np.testing.assert_allclose(clock.rate(VALUES), exponents.real, rtol=1e-14)
    np.testing.assert_allclose([clock.frequency(value) for value in VALUES], np.abs(exponents.imag), rtol=1e-14)
    assert clock.leading(VALUES) == np.argmax(np.abs(multipliers))
    ordered = clock.growth(VALUES).real
    assert (np.diff(ordered) <= 0).all()


@pytest.mark.parametrize("dt", STEPS)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_on_the_edge_a_mode_keeps_its_size_and_turns_by_its_frequency(dt, part):
    clock = Steps(dt)
    frequency = part * clock.highest
    value = complex(*clock.edge(frequency))
    assert abs(1 + dt * value - np.exp(1j * frequency * dt)) < 4e-16 * 4
    assert abs(clock.eigenvalue(1j * frequency) - value) * dt < 1e-15
    # The square root of what rounding leaves at the ends, where the edge turns back.
    assert abs(clock.frequency_of(clock.turn(frequency)) - frequency) * dt < 4e-8
    q, s = clock.edge_of(clock.turn(frequency))
    assert abs(complex(q, np.sqrt(max(s, 0.0))) - value) * dt < 4e-8
    slope, bend = clock.edge_slopes(frequency)
    # s = (exp(i w dt) - 1) / dt, so that s' = i exp(i w dt) and s'' = i dt s'.
    assert abs(slope - 1j * np.exp(1j * frequency * dt)) < 1e-15 * 4
    assert bend == 1j * dt
    assert abs(clock.difference(frequency) - abs(np.exp(1j * frequency * dt) - 1) / dt) * dt < 1e-15


def test_a_multiplier_of_zero_decays_at_a_finite_rate_and_a_negative_one_turns_by_half_a_round():
    clock = Steps(0.5)
    zero, negative = clock.growth(np.array([-2.0 + 0j, -3.0 + 0j]), sort=False)
    assert np.isfinite(zero)
    assert clock.reported(np.array([zero]))[0] == 0
    assert negative.imag == clock.flips_at == clock.highest == 2 * np.pi
    assert clock.reported(np.array([negative]))[0] == -0.5


def test_small_steps_are_a_flow_to_first_order():
    for dt in (1e-4, 1e-5):
        off = np.abs(Steps(dt).growth(VALUES, sort=False) - VALUES)
        # log(1 + s dt) / dt = s - s^2 dt / 2 + ...
        np.testing.assert_allclose(off, np.abs(VALUES) ** 2 * dt / 2, rtol=10 * dt, atol=1e-10)


def test_clocks_are_equal_if_their_steps_are():
    assert clock_of(None) == Continuous() != Steps(1.0)
    assert clock_of(0.5) == Steps(0.5) != Steps(0.25)
    assert len({Continuous(), Continuous(), Steps(0.5), Steps(0.5)}) == 2
