"""Which frequency a fixed point's kernel answers to most: what tells a real critical eigenvalue from a pair."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from jaxtyping import PyTree

from ssntk.dynamics.stability import exponents
from ssntk.errors import as_array, outside_jit
from ssntk.kernel.frequency import frequency_response
from ssntk.kernel.loss_operators import Residual, Sobolev, TimeDerivative, observation_of
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.precision import watch_precision
from ssntk.results import Result, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Signature(Result):
    """How strongly the states at a fixed point answer to parameters that oscillate.

    - `omegas`, `response` (W,): angular frequencies, and the largest eigenvalue of `K(w) = S S^H`, S = (i w - A)^-1 F,
      times the loss operator's symbol.
    - `peak_frequency`, `peak`: where the response is largest, refined between the given frequencies, and how large.
    - `width`: the half width at half maximum there, which tends to |Re lambda| of the critical eigenvalue; infinite where
      the response does not fall to a half.
    - `kind`: `"real"` where the response without a loss operator peaks at zero (a map: or at pi / dt, a flip), `"pair"`
      where it peaks in between.
    """

    omegas: np.ndarray
    response: np.ndarray
    peak_frequency: float
    peak: float
    width: float
    kind: str

    def _headline(self) -> str:
        at = f"peak {short(self.peak)} at frequency {short(self.peak_frequency)}"
        return f"Signature of a {'real eigenvalue' if self.kind == 'real' else 'pair'}: {at}, half width {short(self.width)}"


@outside_jit
def frequency_signature(
    model: AbstractStateSpaceModel,
    x_star: Any,
    omegas: Any = None,
    *,
    u: Any = None,
    wrt: Callable[[Any], PyTree] | None = None,
    loss_operator: Any = None,
) -> Signature:
    """The kernel of a fixed point over frequencies, with its peak.

    Near a bifurcation the peak is `|r|^2 |l^T F|^2 / (Re lambda)^2` at the critical frequency: at 0 for a saddle-node, a
    transcritical or a pitchfork, at the pair's for a Hopf point, where the response at 0 stays bounded. This is the kernel
    of trajectories in Fourier space where these are stationary and inputs are averaged over; that of one given input is not
    diagonal there.

    **Arguments:** `omegas`: (W,) ascending angular frequencies, not negative, at least two; default: 0, the eigenvalues'
    own, and 128 on a logarithmic scale. `loss_operator`: `None`, [`TimeDerivative`][] (w^2), [`Sobolev`][] ((1 + w^2)^s) or
    [`Residual`][] (|i w - A|^2, which leaves F F^T); a map's d/dt is its difference quotient. `u`, `wrt`: as of
    [`steady_state_ntk`][].

    Raises as [`frequency_ntk`][] does.
    """
    observation_of("state", loss_operator)
    watch_precision(dtype_of(model))
    response, jacobian, columns = frequency_response(model, x_star, u=u, wrt=wrt)
    clock = model.clock
    highest = clock.highest
    if omegas is None:
        values = exponents(jacobian, clock)
        size = np.abs(values[np.isfinite(values)])
        own = np.abs(values.imag)
        spread = np.geomspace(1e-3 * size.min(), 10 * size.max(), 128)
        grid = np.unique(np.minimum(np.concatenate([[0.0], own, spread, clock.ends[1:]]), highest))
    else:
        grid = np.asarray(as_array(omegas, "omegas", ("W",)))
        if grid.size < 2 or grid[0] < 0 or (np.diff(grid) <= 0).any() or grid[-1] > highest * (1 + 1e-12):
            limit = "" if highest == np.inf else f", and at most pi / dt = {highest:g}"
            raise ValueError(f"omegas must be ascending, at least two, not negative{limit}")

    def plain(omega: float) -> float:
        return float(np.linalg.norm(response(omega), 2) ** 2)

    def symbol(omega: float) -> float:
        rate = clock.difference(omega)
        if isinstance(loss_operator, TimeDerivative):
            return rate**2
        return (1 + rate**2) ** loss_operator.s if isinstance(loss_operator, Sobolev) else 1.0

    def weighed(omega: float) -> float:
        return flat if isinstance(loss_operator, Residual) else plain(omega) * symbol(omega)

    flat = float(np.linalg.norm(columns, 2) ** 2)
    bare = np.array([plain(float(omega)) for omega in grid])
    peak = _peak(plain, grid, bare)
    span = float(np.abs(exponents(jacobian, clock)).max()) or float(grid[-1])
    width = _width(plain, peak, highest, span)
    # Nearer than a tenth of the width to an end nothing could be told from it.
    kind = "real" if min(abs(peak - end) for end in clock.ends) <= 0.1 * width else "pair"
    if loss_operator is not None:
        bare = np.array(
            [
                flat if isinstance(loss_operator, Residual) else value * symbol(omega)
                for value, omega in zip(bare, grid, strict=True)
            ]
        )
        peak = _peak(weighed, grid, bare)
        width = _width(weighed, peak, highest, span)
    return Signature(grid, bare, peak, weighed(peak), width, kind)


def _peak(response: Callable[[float], float], grid: np.ndarray, values: np.ndarray) -> float:
    """The frequency of the largest response, refined between its neighbours on the grid."""
    at = int(np.argmax(values))
    low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])
    found: Any = scipy.optimize.minimize_scalar(
        lambda omega: -response(omega), bounds=(low, high), method="bounded", options={"xatol": 1e-9 * high}
    )
    # The search never evaluates the ends themselves, and rounding must not move a peak off one.
    return float(found.x if -found.fun > response(float(grid[at])) * (1 + 1e-12) else grid[at])


def _width(response: Callable[[float], float], peak: float, highest: float, span: float) -> float:
    """How far from the peak the response has fallen to a half, on the side where it does sooner. `span`: a typical rate."""
    half = response(peak) / 2
    found = []
    for way in (1.0, -1.0):
        room = (highest if way > 0 else 0.0) * way - peak * way
        # Far below any width that the grid of frequencies could show, and far above.
        reach, step = 0.0, 1e-12 * span
        while step < room and response(peak + way * step) > half and step < 1e12 * span:
            reach, step = step, 2 * step
        step = min(step, room)
        if step > 0 and response(peak + way * step) <= half:
            found.append(scipy.optimize.brentq(lambda by, way=way: response(peak + way * by) - half, reach, step))
    return float(min(found)) if found else np.inf
