"""Where cycles bifurcate: functions that change their sign there, and the location of the sign change.

The functions are smooth where multipliers meet: products over all of them, as det(M + 1), not the one nearest to -1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from ssntk.bifurcation.events import kinds
from ssntk.cycles.chain import Multipliers
from ssntk.cycles.discrete import AbstractMethod, Corrected

FOLD, BRANCH, DOUBLING, TORUS = (
    kind.name for kind in (kinds.CYCLE_FOLD, kinds.CYCLE_BRANCH_POINT, kinds.PERIOD_DOUBLING, kinds.TORUS)
)
# Multipliers below this size take no part in the products of pairs, which could not cross one.
LEADING = 0.1
# The parameter stands still if its share of the tangent is below this.
STILL = 1e-8
# How near the unit circle, or one, the critical multiplier must be found at a point that was located.
MET = 1e-4
# The same as a part of its change nearby, which may be large where stiff cycles change their shape.
PART = 0.01
# After so many steps to an event, its function must be below this part of its values around it.
TRIES, JUMP = 8, 0.1
# The flow over a period may fail by this much to return the velocity.
ROUGH = 1e-7


class CyclePoint(NamedTuple):
    """A cycle that has been corrected, with its multipliers and how it was discretised. `whole`: whether all multipliers are
    known, not the leading ones alone."""

    at: Corrected
    judged: Multipliers
    method: AbstractMethod
    whole: bool = True

    @property
    def level(self) -> float:
        return float(self.at.orbit.level)

    @property
    def period(self) -> float:
        """In working units."""
        return float(np.exp(self.at.orbit.log_period))

    @property
    def turn(self) -> float:
        """The component of the tangent along the parameter, which changes its sign at a fold."""
        return float(self.at.tangent.level)


def _real(values: np.ndarray) -> float:
    return float(np.prod(values).real)


def _finite(values: np.ndarray) -> np.ndarray:
    """Multipliers, of which those that are too large for the precision count as just that large."""
    return np.where(np.isinf(values), 1 / np.finfo(float).eps, values)


def pairs(values: np.ndarray, count: int) -> float:
    """The product of mu_i mu_j - 1 over pairs of the `count` largest multipliers."""
    first = _finite(values[:count])
    i, j = np.triu_indices(len(first), 1)
    return _real(first[i] * first[j] - 1)


def functions(first: CyclePoint, second: CyclePoint) -> dict[str, Callable[[CyclePoint], float]]:
    """The functions that may change their sign between two points."""
    largest = max(int((np.abs(point.judged.values) > LEADING).sum()) for point in (first, second))
    tests: dict[str, Callable[[CyclePoint], float]] = {
        FOLD: lambda point: point.turn,
        # Multipliers that are small and left out do not change the sign.
        BRANCH: lambda point: _real(1 - _finite(point.judged.values)),
        DOUBLING: lambda point: _real(1 + _finite(point.judged.values)),
    }
    if largest > 1:
        tests[TORUS] = lambda point: pairs(point.judged.values, largest)
    return tests


def stands(first: CyclePoint, second: CyclePoint) -> bool:
    """Whether the parameter hardly moves between two points, as at a canard or near a homoclinic orbit: then the sign of its
    change is a rounding error, and a multiplier that passes one is the only sign of a fold."""
    return max(abs(first.turn), abs(second.turn)) <= STILL


class Change(NamedTuple):
    """A function that changed its sign. `meets`: the branch turns where it meets another, as seen from the side of a
    pitchfork: it goes on as its own mirror image, and no multiplier passes one."""

    kind: str
    test: Callable[[CyclePoint], float]
    meets: bool = False


def changed(first: CyclePoint, second: CyclePoint) -> list[Change]:
    """What changed between two points. At a fold the branch turns and a multiplier passes one, which makes it no branch
    point."""
    tests, still = functions(first, second), stands(first, second)
    if still:
        tests[FOLD] = tests.pop(BRANCH)
    found = {name: Change(name, test) for name, test in tests.items() if np.sign(test(first)) * np.sign(test(second)) < 0}
    if FOLD in found and not still:
        passes = found.pop(BRANCH, None) is not None
        if not passes and not doubted(BRANCH, first, second):
            found[BRANCH] = Change(BRANCH, found.pop(FOLD).test, meets=True)
    return list(found.values())


def critical(kind: str, judged: Multipliers) -> tuple[complex, float]:
    """The multiplier nearest to where it is critical for this kind, and its error. Of a torus, one of a complex pair."""
    values = judged.values
    edge = {FOLD: 1.0, BRANCH: 1.0, DOUBLING: -1.0}.get(kind)
    off = np.abs(values - edge) if edge is not None else np.abs(np.abs(values) - 1) + np.where(values.imag > 0, 0, np.inf)
    at = int(off.argmin())
    return complex(values[at]), float(judged.errors[at])


def doubted(kind: str, first: CyclePoint, second: CyclePoint) -> str:
    """Why an event cannot be told from the error of its own multiplier; empty if it can."""
    if kind == FOLD and not stands(first, second):
        return ""
    if kind == FOLD and change_of(kind, first, second) <= MET:
        return "neither the parameter nor its multiplier moves: cycles lie side by side there"
    for point in (first, second):
        value, error = critical(kind, point.judged)
        apart = abs(abs(value) - 1) if kind == TORUS else abs(value - (-1 if kind == DOUBLING else 1))
        if not error < apart:
            return f"its multiplier is known to {error:.1e}, and is {apart:.1e} from its bifurcation: try more intervals"
    return ""


def located(
    test: Callable[[CyclePoint], float], step: Callable[[float], CyclePoint | None], length: float, ends: tuple[float, float]
) -> CyclePoint | None:
    """The point at which a function is zero, on the way to the next point; `None` if a step to it fails."""
    seen: dict[float, CyclePoint] = {}
    values: list[float] = []

    def value(part: float) -> float:
        if part in (0.0, length):
            return ends[0] if part == 0 else ends[1]
        point = step(part)
        if point is None:
            raise ArithmeticError
        seen[part] = point
        found = test(point)
        values.append(abs(found))
        # Where the way leads from one branch to another, the function jumps, and the bracket closes on nothing.
        jumps = len(values) >= TRIES and min(values) > JUMP * min(abs(end) for end in ends)
        if not np.isfinite(found) or jumps:
            raise ArithmeticError
        return found

    try:
        root: Any = scipy.optimize.brentq(value, 0.0, length, xtol=1e-15 * length, rtol=8 * np.finfo(float).eps, maxiter=60)
    except (ArithmeticError, RuntimeError):
        return None
    return seen.get(float(root)) or (step(float(root)) if 0 < root < length else None)


def met(kind: str, point: CyclePoint, change: float = 0.0) -> bool:
    """Whether the critical multiplier of a located point is where it should be, also relative to its `change` nearby. Two
    real ones whose product is one, at a neutral saddle, are no torus."""
    value, error = critical(kind, point.judged)
    if kind == TORUS:
        return value.imag != 0 and abs(abs(value) - 1) <= MET and error <= MET
    # Two multipliers that are one, as at a fold, are known to the root of their errors.
    return abs(value - (-1 if kind == DOUBLING else 1)) <= max(MET, PART * change) and error <= 1


def change_of(kind: str, first: CyclePoint, second: CyclePoint) -> float:
    """How far the critical multiplier is from where it is critical, at one of two points around an event."""
    edge = -1 if kind == DOUBLING else 1
    return max(abs(critical(kind, point.judged)[0] - edge) for point in (first, second))
