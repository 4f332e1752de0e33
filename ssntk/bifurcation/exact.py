"""Piecewise-linear families over a span, whose equilibria are followed from border to border on the host."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.dynamics.fixed_points import find_fixed_points
from ssntk.errors import NumericalError, Outcome
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.family import Family
from ssntk.models.iterated import Iterated
from ssntk.piecewise.kinks import NotPiecewiseLinear
from ssntk.piecewise.over import Over, over
from ssntk.piecewise.pivot import Path, entered, start_at, walk
from ssntk.piecewise.recognise import Recognised
from ssntk.piecewise.region import region_of

# Fractions of the span at which the relus of a family are looked for. At the ends weights may be zero.
PLACES = (0.1381966, 0.2763932, 0.5257311, 0.7236068, 0.9045085)


# How far beside a border a branch is begun, as a fraction of the span.
BESIDE = 2.0**-30
# At how many places of a path it is tested by the model itself, if kinks lie within kinks.
LOOKS = 64
# The distances from a pole, relative to its piece, at which the state is compared, and by which factor it must grow.
ASIDE, GROWS = (1e-2, 1e-5), 10.0


class Refuted(NumericalError):
    """A family cannot be followed exactly. The message says why."""


@dataclasses.dataclass(frozen=True)
class Exact:
    """A piecewise-linear family over a span.

    - `system`: its systems over the fraction q of the span. `p0`, `p1`: the span. `u` (d,): its constant input.
    - `forms`: the same as functions of the parameter.
    """

    family: Family
    u: Any
    p0: float
    p1: float
    system: Over
    forms: Recognised

    def __reduce__(self) -> tuple[Any, ...]:
        # Programs that JAX has traced cannot be pickled.
        return exact_of, (self.family, (self.p0, self.p1), self.u)

    @property
    def clock(self) -> AbstractClock:
        """The clock of the model."""
        return self.family.clock

    def parameter(self, q: Any) -> Any:
        """The parameter at fractions of the span."""
        return self.p0 + q * (self.p1 - self.p0)

    def model(self, q: float) -> AbstractStateSpaceModel:
        """The model at a fraction of the span."""
        return self.family(self.parameter(q))

    def matrices(self, pattern: np.ndarray, q: np.ndarray) -> np.ndarray:
        """df/dx (k, n, n) in the region of a pattern at q (k,). Its states are in units of the system."""
        if self.system.still:
            parts = self.system.first
            return (parts.G + (parts.B * pattern) @ parts.C)[None] / self.clock.unit
        parts = self.system.parts(q)
        return (parts.G + (parts.B * pattern) @ parts.C) / self.clock.unit

    def start(self, x0: np.ndarray | None, q: float) -> np.ndarray:
        """The pattern of the fixed point near x0 (n,) at q; without x0, near the zero state, or that which the search finds.

        Raises `NumericalError` if there is none.
        """
        sizes = self.system.sizes
        guess = np.zeros(len(sizes)) if x0 is None else np.asarray(x0, float) / sizes
        pattern = start_at(self.system, guess, q)
        if pattern is not None:
            return pattern
        p = self.parameter(q)
        if x0 is not None:
            raise NumericalError(
                f"no equilibrium near x0 at p = {p:g}: Newton's iteration from region to region did not converge; "
                "try x0=None"
            )
        for x in find_fixed_points(self.model(q), self.u).x:
            pattern = start_at(self.system, np.asarray(x, float) / sizes, q)
            if pattern is not None:
                return pattern
        raise NumericalError(f"no equilibrium was found at p = {p:g}: start elsewhere, or pass x0")

    def beside(self, pattern: np.ndarray, q: float) -> tuple[np.ndarray, float]:
        """The pattern and the place from which a branch is followed in both directions: those given, or, if the fixed point
        there lies on a border, those next to it on a branch that meets the border, so that the border is met on the way."""
        region = region_of(self.system, pattern, q)
        if region is None:
            return pattern, q
        x, signals = region.signals(q)
        if not (np.abs(signals) <= region.doubts(q, x)).any():
            return pattern, q
        for direction in (1.0, -1.0):
            place = q + direction * BESIDE
            for way in entered(self.system, pattern, q, direction) if 0 < place < 1 else ():
                return way.pattern, place
        return pattern, q

    def paths(self, pattern: np.ndarray, q: float, ways: tuple[float, ...], most: int) -> list[Path]:
        """The paths from a fixed point, in each of the directions.

        Raises `NumericalError` if the point lies on a border from which no way or several ways lead, and `Refuted` if the
        family cannot be followed exactly.
        """
        try:
            found = self._walked(pattern, q, ways, most)
        except NotPiecewiseLinear as error:
            raise Refuted(f"within the span it has {error.part}") from error
        except np.linalg.LinAlgError as error:
            raise Refuted("df/dx is singular along a line of equilibria") from error
        for path in found:
            self._check(path)
        return found

    def _walked(self, pattern: np.ndarray, q: float, ways: tuple[float, ...], most: int) -> list[Path]:
        found = []
        for direction in ways:
            on = entered(self.system, pattern, q, direction)
            if len(on) != 1:
                raise NumericalError(
                    f"the equilibrium at p = {self.parameter(q):g} lies on a border, from which "
                    f"{'no branch leads' if not on else 'several branches lead'} on: start beside it"
                )
            found.append(walk(self.system, on[0].pattern, q, direction, most))
            if found[0].closed:
                break
        return found

    def _check(self, path: Path) -> None:
        """Raise `Refuted` if a path does not consist of fixed points of the model, or if its pole is none."""
        for at in np.linspace(0, len(path.pieces), LOOKS + 2)[1:-1] if self.forms.nested else ():
            piece = path.pieces[int(at)]
            q = piece.begin + at % 1 * (piece.end - piece.begin)
            region = region_of(self.system, piece.pattern, q)
            if region is not None and not self.forms.rests(self.parameter(q), region.state(q) * self.system.sizes):
                raise Refuted(f"kinks come or go near p = {self.parameter(q):g}")
        end, last = path.ends[0], path.pieces[-1]
        if end.outcome is not Outcome.to_infinity:
            return
        states = []
        for aside in ASIDE:
            q = last.end - aside * (last.end - last.begin)
            region = region_of(self.system, last.pattern, q)
            states.append(np.nan if region is None else float(np.abs(region.state(q)).max()))
        if not states[1] > GROWS * states[0]:
            raise Refuted(f"df/dx is singular at p = {self.parameter(last.end):g} along a line of equilibria")


def exact_of(family: Family, span: tuple[float, float], u: Any) -> Exact:
    """A piecewise-linear family over a span.

    Raises `NotPiecewiseLinear`, a `ValueError` that names what is not piecewise linear.
    """
    p0, p1 = span
    model = family.model
    if isinstance(model, Iterated):
        raise NotPiecewiseLinear("relus of relus, as iterated maps have")
    eps = float(np.finfo(dtype_of(model)).eps)
    # The model may not exist in all of the span.
    with np.errstate(all="ignore"):
        made = Recognised(family, u, places=[p0 + q * (p1 - p0) for q in PLACES])
        system = over(lambda q: made(p0 + q * (p1 - p0)), eps)
    return Exact(family, u, p0, p1, system, made)
