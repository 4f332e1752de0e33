"""Fixed points and cycles of piecewise-linear models, from their form, with the stability that the search would report."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from ssntk.dynamics.stability import judged_exponents
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.clock import AbstractClock, Continuous, Steps
from ssntk.piecewise.form import PiecewiseLinear
from ssntk.piecewise.kinks import NotPiecewiseLinear
from ssntk.piecewise.recognise import Recognised
from ssntk.piecewise.solutions import Zeros
from ssntk.piecewise.system import System
from ssntk.piecewise.zeros import cycles_of, fixed_points_of

# If a user asks for a proof, it may take this many times the usual work.
EFFORT = 10.0
# Up to this many units that are on their borders at once, all regions around are looked at.
SIDES = 8


class Exact(NamedTuple):
    """Fixed points or cycles, with df/dx (k, ..., n, n), growth exponents and their rounding errors (k, n), and index."""

    zeros: Zeros
    x: np.ndarray
    jacobian: np.ndarray
    rates: np.ndarray
    doubts: np.ndarray
    residual: np.ndarray
    signs: np.ndarray

    @property
    def grows(self) -> np.ndarray:
        """The number of modes (k,) that grow by more than rounding explains."""
        return (self.rates.real > self.doubts).sum(axis=1)

    @property
    def decays(self) -> np.ndarray:
        """Whether all modes decay (k,) by more than rounding explains."""
        return (self.rates.real < -self.doubts).all(axis=1)

    @property
    def hits(self) -> np.ndarray:
        """How many starts of a search arrived at each (k,)."""
        return np.zeros(len(self.x), int) if self.zeros.hits is None else self.zeros.hits


def asked(method: str, prove: bool = False) -> str | None:
    """What a user asked for that only piecewise-linear models have, as the beginning of a message; else `None`."""
    if prove:
        return "prove must be False"
    return "method must be 'auto' or 'search'" if method == "exact" else None


def form_of(model: AbstractStateSpaceModel, u: Array, method: str, must: str | None) -> PiecewiseLinear | None:
    """The form of a model; `None` if it has none. Then raises `ValueError`, which begins with `must`, if that is given."""
    if method == "search" and must is None:
        return None
    try:
        return Recognised(model, np.asarray(u))()
    except NotPiecewiseLinear as error:
        if must is not None:
            raise ValueError(f"{must} for a model that is not piecewise linear, and this one has {error.part}") from error
        return None


def listed(found: Zeros, must: str | None) -> bool:
    """Whether solutions are isolated, so that they could be listed. Raises `ValueError` if not and `must` is given."""
    if found.lines and must is not None:
        raise ValueError(f"{must} for this model: solutions fill a line or a plane, or overflow")
    return not found.lines


def exact_points(model: AbstractStateSpaceModel, u: Array, method: str, n_starts: int, seed: list[int]) -> Exact | None:
    """The fixed points of a piecewise-linear model; `None` for other models, and if fixed points fill a line."""
    must = asked(method)
    form = form_of(model, u, method, must)
    if form is None:
        return None
    found = fixed_points_of(form, n_starts, seed, EFFORT if must is not None else 1.0)
    # The homotopies of the search arrive more often than the iteration over regions.
    nothing = must is None and not found.complete and len(found.x) == 0
    if not listed(found, must) or nothing:
        return None
    zero = _on_border(System.of(form), found)
    jacobian = _velocity(form, form.jacobian(_worst(form, found.patterns, zero, model.clock)), model.clock)
    rates, doubts = judged_exponents(jacobian, model.clock)
    values, rough = judged_exponents(jacobian, Continuous())
    # On a border the index does not follow from one side.
    edge = zero.any(axis=1)
    signs = np.where((np.abs(values) <= rough).any(axis=1) | edge, 0, np.linalg.slogdet(-jacobian)[0]).astype(int)
    terms = form(found.x) - (0.0 if model.clock == Continuous() else found.x)
    residual = np.abs(terms / model.clock.unit).max(axis=1, initial=0.0)
    # A zero is not negative.
    return Exact(found, found.x + 0.0, jacobian, rates, doubts, residual, signs)


def exact_cycles(
    model: AbstractStateSpaceModel, k: int, u: Array, method: str, prove: bool, n_starts: int, seed: list[int]
) -> Exact | None:
    """The cycles of a piecewise-linear map, x (c, k, n), those of shorter periods included; `None` as for fixed points."""
    must = asked(method, prove)
    form = form_of(model, u, method, must)
    if form is None:
        return None
    found = cycles_of(form, k, n_starts, seed, EFFORT if prove else 0.0)
    if not listed(found, must):
        return None
    n, c = model.n_state, len(found.x)
    x = found.x.reshape(c, k, n) + 0.0
    steps = form.jacobian(found.patterns.reshape(c, k, len(form.c)))
    product = np.broadcast_to(np.eye(n), (c, n, n))
    for j in range(k):
        product = steps[:, j] @ product
    clock = Steps(k * model.clock.unit)
    rates, doubts = judged_exponents((product - np.eye(n)) / clock.unit, clock)
    residual = np.abs(form(x) - np.roll(x, -1, axis=1)).max(axis=(1, 2), initial=0.0)
    edge = _on_border(System.stacked(form, k), found).any(axis=1)
    signs = np.where((np.abs(rates) <= doubts).any(axis=1) | edge, 0, np.linalg.slogdet(np.eye(n) - product)[0])
    return Exact(found, x, steps, rates, doubts, residual, signs.astype(int))


def cycle_fields(exact: Exact, k: int, clock: AbstractClock) -> dict[str, Any]:
    """The fields of [`Cycles`][] of the cycles whose prime period is k, each from its least point on."""
    zeros, c = exact.zeros, len(exact.x)
    signs = zeros.patterns.reshape(c, k, zeros.patterns.shape[1] // k)
    # The prime period is the least number of steps after which the itinerary is the same.
    alike = np.stack([(np.roll(signs, -q, axis=1) == signs).all(axis=(1, 2)) for q in range(1, k + 1)])
    prime = alike.argmax(axis=0) + 1
    # Each cycle begins at its least point, by the first state and then by the next ones.
    first = np.array([np.lexsort(cycle.T[::-1])[0] for cycle in exact.x], int)
    turned = (np.arange(k) + first[:, None]) % k
    x, signs = (np.take_along_axis(part, turned[:, :, None], axis=1) for part in (exact.x, signs))
    order = np.lexsort((*x[:, 0].T[::-1], exact.grows, ~exact.decays))
    order = order[prime[order] == k]
    return {
        "x": x[order],
        "eigenvalues": Steps(k * clock.unit).reported(exact.rates)[order],
        "stable": exact.decays[order],
        "residual": exact.residual[order],
        "n_unstable": exact.grows[order],
        "hits": exact.hits[order],
        "index_sum": None if (exact.signs == 0).any() else int((exact.signs * prime).sum()),
        "n_starts": zeros.starts,
        "n_lost": zeros.lost,
        "complete": True if zeros.complete else None,
        "itinerary": signs[order],
    }


def _on_border(system: System, found: Zeros) -> np.ndarray:
    """Which signals (k, m) of solutions are zero up to rounding errors."""
    scaled, _ = system.scaled()
    return scaled.signs(*scaled.solved(found.patterns)) == 0


def _worst(form: PiecewiseLinear, patterns: np.ndarray, zero: np.ndarray, clock: AbstractClock) -> np.ndarray:
    """The patterns (k, m) of the regions at fixed points whose modes grow most. A point on a border, with signals that are
    `zero` (k, m), belongs to several regions. It is called stable only if it is so in all that are looked at."""
    patterns = patterns.copy()
    for i in np.flatnonzero(zero.any(axis=1)):
        units = np.flatnonzero(zero[i])
        if len(units) <= SIDES:
            sides = np.array(list(itertools.product((False, True), repeat=len(units))))
        else:
            # Too many to look at all: one unit, or all of them, on either side.
            own = patterns[i][units]
            sides = np.concatenate([own[None], ~own[None], own ^ np.eye(len(units), dtype=bool)])
        every = np.repeat(patterns[i][None], len(sides), axis=0)
        every[:, units] = sides
        rates, doubts = judged_exponents(_velocity(form, form.jacobian(every), clock), clock)
        grows = (rates.real > doubts).sum(axis=1)
        patterns[i] = every[np.lexsort((rates.real.max(axis=1), grows))[-1]]
    return patterns


def _velocity(form: PiecewiseLinear, jacobian: np.ndarray, clock: AbstractClock) -> np.ndarray:
    """df/dx (k, n, n), from the Jacobians of the form."""
    return jacobian if clock == Continuous() else (jacobian - np.eye(len(form.A))) / clock.unit
