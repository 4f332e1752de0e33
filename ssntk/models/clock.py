"""Clocks: how the time of a model runs, how eigenvalues of df/dx determine growth, and where the edge of stability lies.

Everything that differs between flows and maps is a method of the model's `clock`. A mode is described by its growth
exponent. Its real part is the rate at which the mode grows, its imaginary part the angular frequency, in rad per unit time.
For a flow the exponent is the eigenvalue s of df/dx; for the map x + dt f it is log(1 + dt s) / dt.
"""

import abc
import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Complex

from ssntk.errors import as_scalar, is_traced
from ssntk.nouns import Number, Real

Exponents = Complex[np.ndarray, "*batch n"]


class AbstractClock(abc.ABC):
    """The interface of a clock.

    Clocks are hashable, and equal if their steps are equal, so that they may be static in compiled code. `frequency` is
    always angular, >= 0, in rad per unit time. `value` is an eigenvalue of df/dx.
    """

    dt: float | None = None
    """The step for maps; `None` for flows."""
    unit: float = 1.0
    """The time over which f moves the state at once: the step for maps, 1 for flows."""
    highest: float = np.inf
    """The largest frequency: pi / dt for maps, infinite for flows."""
    flips_at: float | None = None
    """The frequency of a mode that changes its sign in every step; `None` for flows."""
    ends: tuple[float, ...] = (0.0,)
    """The frequencies that real modes have on the edge of stability."""
    eigenvalue_name: str = "eigenvalue"
    """The name of the number that is reported for a mode."""
    pair_name: str = "Hopf"
    """The bifurcation at which a complex pair meets the edge of stability."""

    @abc.abstractmethod
    def growth(self, values: Exponents, sort: bool = True) -> Exponents:
        """The growth exponents (..., n) for eigenvalues (..., n) of df/dx, the fastest growing first if `sort`."""

    @abc.abstractmethod
    def rate(self, value: Number) -> Any:
        """The rate at which a mode grows."""

    @abc.abstractmethod
    def frequency(self, value: complex) -> float:
        """The frequency of a mode."""

    @abc.abstractmethod
    def wrapped(self, frequency: float) -> float:
        """The frequency that represents all equivalent ones: for maps, the one within [0, pi / dt]."""

    @abc.abstractmethod
    def eigenvalue(self, exponent: complex) -> complex:
        """The eigenvalue of df/dx that belongs to a growth exponent."""

    @abc.abstractmethod
    def leading(self, values: np.ndarray) -> int:
        """The index of the mode that grows fastest."""

    @abc.abstractmethod
    def reported(self, exponents: Exponents) -> Exponents:
        """The numbers that are reported for growth exponents: eigenvalues for flows, multipliers for maps."""

    @abc.abstractmethod
    def shown(self, value: Number) -> Any:
        """The number that is reported for an eigenvalue of df/dx: itself for flows, the multiplier for maps."""

    @abc.abstractmethod
    def given(self, shown: Number) -> Any:
        """The eigenvalue of df/dx for a number that a user passes: the inverse of `shown`."""

    @abc.abstractmethod
    def shown_rate(self, shown: Number) -> Any:
        """The rate at which a mode grows, from the number that is reported for it."""

    @abc.abstractmethod
    def edge(self, frequency: Real, xp: ModuleType = np) -> tuple[Any, Any]:
        """The real and imaginary part of the eigenvalue of df/dx of a mode that neither grows nor decays at this frequency.

        **Arguments:** `xp`: the array library.
        """

    @abc.abstractmethod
    def edge_slopes(self, frequency: float) -> tuple[complex, complex]:
        """The derivative s' of the edge s(w) over the frequency w, and s'' / s'."""

    @abc.abstractmethod
    def difference(self, frequency: float) -> float:
        """The size of d/dt of a signal of this frequency and of size 1. For maps d/dt is the difference quotient."""

    @abc.abstractmethod
    def turn(self, frequency: float) -> float:
        """A coordinate of the frequency in which the edge is smooth at frequency zero."""

    @abc.abstractmethod
    def frequency_of(self, turn: float) -> float:
        """The frequency with this coordinate."""

    @abc.abstractmethod
    def edge_of(self, turn: Real) -> tuple[Any, Any]:
        """(q, s) of the edge q + i sqrt(s) at this coordinate. JAX can trace this."""


@dataclasses.dataclass(frozen=True)
class Continuous(AbstractClock):
    """The time of a flow, dx/dt = f."""

    def growth(self, values: Exponents, sort: bool = True) -> Exponents:
        return values

    def rate(self, value: Number) -> Any:
        return np.real(value)

    def frequency(self, value: complex) -> float:
        return abs(value.imag)

    def wrapped(self, frequency: float) -> float:
        return frequency

    def eigenvalue(self, exponent: complex) -> complex:
        return exponent

    def leading(self, values: np.ndarray) -> int:
        return int(np.argmax(values.real))

    def reported(self, exponents: Exponents) -> Exponents:
        return exponents

    def shown(self, value: Number) -> Any:
        return value

    def given(self, shown: Number) -> Any:
        return shown

    def shown_rate(self, shown: Number) -> Any:
        return np.real(shown)

    def edge(self, frequency: Real, xp: ModuleType = np) -> tuple[Any, Any]:
        return 0 * frequency, frequency

    def edge_slopes(self, frequency: float) -> tuple[complex, complex]:
        return 1j, 0j

    def difference(self, frequency: float) -> float:
        return frequency

    def turn(self, frequency: float) -> float:
        return frequency**2

    def frequency_of(self, turn: float) -> float:
        return float(np.sqrt(max(turn, 0.0)))

    def edge_of(self, turn: Real) -> tuple[Any, Any]:
        return 0 * turn, turn


@dataclasses.dataclass(frozen=True)
class Steps(AbstractClock):
    """The time of a map with the step dt, x -> x + dt f."""

    dt: float
    eigenvalue_name = "multiplier"
    pair_name = "Neimark-Sacker"

    @property
    def unit(self) -> float:
        return self.dt

    @property
    def highest(self) -> float:
        return np.pi / self.dt

    @property
    def flips_at(self) -> float:
        return np.pi / self.dt

    @property
    def ends(self) -> tuple[float, ...]:
        return 0.0, np.pi / self.dt

    def growth(self, values: Exponents, sort: bool = True) -> Exponents:
        factors = 1 + self.dt * values
        size = np.log(np.maximum(np.abs(factors), np.finfo(float).tiny)) / self.dt
        # A negative multiplier turns by pi, also if rounding has made its imaginary part -0.
        angle = np.where(factors.imag == 0, np.where(factors.real < 0, np.pi, 0.0), np.angle(factors)) / self.dt
        values = size + 1j * angle
        if not sort:
            return values
        return np.take_along_axis(values, np.lexsort((-angle, -size), axis=-1), axis=-1)

    def rate(self, value: Number) -> Any:
        return self.shown_rate(1 + self.dt * value)

    def frequency(self, value: complex) -> float:
        return abs(np.angle(1 + self.dt * value)) / self.dt

    def wrapped(self, frequency: float) -> float:
        return abs(float(np.angle(np.exp(1j * frequency * self.dt)))) / self.dt

    def eigenvalue(self, exponent: complex) -> complex:
        return (np.exp(exponent * self.dt) - 1) / self.dt

    def leading(self, values: np.ndarray) -> int:
        return int(np.argmax(np.abs(1 + self.dt * values)))

    def reported(self, exponents: Exponents) -> Exponents:
        size, angle = np.exp(self.dt * exponents.real), self.dt * exponents.imag
        # exp(i pi) has a rounding error, but a multiplier with this angle is real. A size of the smallest number means zero.
        factors = np.where(np.abs(angle) == np.pi, -size, size * np.exp(1j * angle))
        return np.where(size <= 2 * np.finfo(float).tiny, 0, factors)

    def shown(self, value: Number) -> Any:
        return 1 + self.dt * value

    def given(self, shown: Number) -> Any:
        return (shown - 1) / self.dt

    def shown_rate(self, shown: Number) -> Any:
        # A multiplier of zero has no logarithm.
        return np.log(np.maximum(np.abs(shown), np.finfo(float).tiny)) / self.dt

    def edge(self, frequency: Real, xp: ModuleType = np) -> tuple[Any, Any]:
        return -2 * xp.sin(frequency * self.dt / 2) ** 2 / self.dt, xp.sin(frequency * self.dt) / self.dt

    def edge_slopes(self, frequency: float) -> tuple[complex, complex]:
        return 1j * (1 + self.dt * complex(*self.edge(frequency))), 1j * self.dt

    def difference(self, frequency: float) -> float:
        return 2 * np.sin(frequency * self.dt / 2) / self.dt

    def turn(self, frequency: float) -> float:
        return np.cos(frequency * self.dt)

    def frequency_of(self, turn: float) -> float:
        return float(np.arccos(np.clip(turn, -1, 1)) / self.dt)

    def edge_of(self, turn: Real) -> tuple[Any, Any]:
        return (turn - 1) / self.dt, (1 - turn**2) / self.dt**2


def as_clock(dt: Any, name: str) -> AbstractClock:
    """The clock for a user's argument: the step of a map, or `None` for a flow. `ValueError` if traced or not positive."""
    if dt is None:
        return Continuous()
    if is_traced(dt):
        raise ValueError(f"{name} must be concrete")
    return Steps(float(as_scalar(dt, name, positive=True)))


def clock_of(dt: float | None) -> AbstractClock:
    """The clock of a map with the step `dt`; of a flow if `dt` is `None`."""
    return Continuous() if dt is None else Steps(dt)
