"""The kernel of a fixed point over frequencies. Its peak distinguishes a real critical eigenvalue from a pair."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from ssntk.dynamics.stability import exponents
from ssntk.errors import as_array, outside_jit
from ssntk.kernel.frequency import frequency_response
from ssntk.kernel.observe.base import AbstractLossOperator
from ssntk.kernel.observe.observations import observation_of
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.nouns import Lens
from ssntk.precision import watch_precision
from ssntk.results import Result, short


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Signature(Result):
    """The response of the states at a fixed point to parameters that oscillate.

    - `omegas` (W,): angular frequencies w, in rad per unit time. `response` (W,): the largest eigenvalue of `K(w) = S S^H`,
      S = (i w - A)^-1 F, times the symbol of the loss operator. A = df/dx and F = df/dtheta at the fixed point.
    - `peak_frequency`: the frequency of the largest response, refined between the given ones. `peak`: the response there.
    - `width`: the half width at half maximum of the peak, in rad per unit time. Near a bifurcation it tends to |Re lambda|
      of the critical eigenvalue. Infinite if the response does not fall to a half.
    - `kind`: `"real"` if the response without a loss operator peaks at 0 (for maps also at pi / dt, a flip); `"pair"` if it
      peaks in between.

    **Example:**

    ```python
    model = ssntk.normal_forms.hopf(-0.1, 2.0)
    signature = ssntk.frequency_signature(model, [0.0, 0.0], np.linspace(0.0, 4.0, 41))
    print(signature.kind, round(float(signature.peak_frequency), 1))  # pair 2.0
    ```
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
    wrt: Lens | None = None,
    loss_operator: Any = None,
) -> Signature:
    """Compute the kernel of a fixed point over frequencies, and its peak.

    Near a bifurcation the peak is `|r|^2 |l^T F|^2 / (Re lambda)^2` at the critical frequency, with r, l and F as in
    [`Channel`][]. That frequency is 0 for a saddle-node, a transcritical or a pitchfork. For a Hopf point it is that of the
    pair, and the response at 0 stays bounded. If trajectories are stationary and inputs are averaged over, this is their
    kernel in Fourier space. The kernel for one given input is not diagonal there.

    **Arguments:**

    - `x_star`: (n,) a fixed point for the constant input `u` (d,).
    - `omegas`: (W,) ascending angular frequencies, in rad per unit time, not negative, at least two. Default: 0, those of
      the eigenvalues, and 128 on a logarithmic scale.
    - `u`, `wrt`: as for [`steady_state_ntk`][].
    - `loss_operator`: `None`, [`TimeDerivative`][] (whose symbol is w^2), [`Sobolev`][] ((1 + w^2)^s), [`Residual`][]
      (|i w - A|^2, which leaves F F^T), or your own with an `at_frequency`. For maps d/dt is the difference quotient.

    Raises the errors of [`frequency_ntk`][].

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p - x, jnp.ones(1), 1)  # K(w) = 1 / (1 + w^2)
    found = ssntk.frequency_signature(model, [1.0])
    print(found.kind, round(found.peak, 6), round(found.width, 6))  # real 1.0 1.0
    ```
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

    # Cache the kernel, since the loss operator needs it at the same frequencies.
    @functools.cache
    def plain(omega: float) -> float:
        return float(np.linalg.norm(response(omega), 2) ** 2)

    def weighed(omega: float) -> float:
        return plain(omega) if operator is None else float(operator.at_frequency(omega, clock, plain, forced))

    operator: AbstractLossOperator | None = loss_operator
    forced = float(np.linalg.norm(columns, 2) ** 2)
    bare = np.array([plain(float(omega)) for omega in grid])
    peak = _peak(plain, grid, bare)
    span = float(np.abs(exponents(jacobian, clock)).max()) or float(grid[-1])
    width = _width(plain, peak, highest, span)
    # A peak closer to 0 (or pi / dt) than a tenth of its width counts as being there.
    kind = "real" if min(abs(peak - end) for end in clock.ends) <= 0.1 * width else "pair"
    if operator is not None:
        bare = np.array([weighed(float(omega)) for omega in grid])
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
    # The search never evaluates the ends of its interval, and rounding must not move a peak off an end.
    return float(found.x if -found.fun > response(float(grid[at])) * (1 + 1e-12) else grid[at])


def _width(response: Callable[[float], float], peak: float, highest: float, span: float) -> float:
    """The distance from the peak at which the response has fallen to a half, on the side where it is shorter.

    `span`: a typical rate, in 1 / time.
    """
    half = response(peak) / 2
    found = []
    for way in (1.0, -1.0):
        room = (highest if way > 0 else 0.0) * way - peak * way
        # Search from far below any width that the grid of frequencies could show to far above.
        reach, step = 0.0, 1e-12 * span
        while step < room and response(peak + way * step) > half and step < 1e12 * span:
            reach, step = step, 2 * step
        step = min(step, room)
        if step > 0 and response(peak + way * step) <= half:
            found.append(scipy.optimize.brentq(lambda by, way=way: response(peak + way * by) - half, reach, step))
    return float(min(found)) if found else np.inf
