"""The steady-state kernel of the stable equilibria, on a raster over two parameters."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ssntk.bifurcation.branch import Branch
from ssntk.diagrams.parameters import names_of
from ssntk.diagrams.search import bifurcation_diagram
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric, in_metric
from ssntk.dynamics.stability import field_at, judged_exponents
from ssntk.errors import NumericalError, as_count, as_instance, as_key, as_scalar, outside_jit
from ssntk.kernel.steady_state import forcing
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.plane import Plane, spans_of
from ssntk.models.theta import Positions, theta_positions
from ssntk.newton import row_scaled
from ssntk.nouns import Lens
from ssntk.results import Pictured, Tabular, short
from ssntk.threads import one_blas_thread

# What a picture of a map may show.
QUANTITIES = ("participation_ratio", "top")
# Newton's iterations from a branch to one of its states, and the last one, in roundings of the sizes to this power.
NEWTON, CLOSE = 8, 0.5
# States that are computed at once: their number does not change the compiled code.
CHUNK = 64


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class KernelMap(Pictured, Tabular):
    """The steady-state kernel of the stable equilibria, at the places of a raster over two parameters.

    The response of an equilibrium to theta at a frequency w obeys `(s(w) - A) S = F`, with A = df/dx, F = df/dtheta and the
    edge of stability s(w): i w for flows. Its kernel is `K = S S^H`, (n, n): that of the steady state at w = 0. Of the two
    frequencies 0 and that of the least stable mode, the one is taken at which K is larger. So K collapses near saddle-nodes
    and near Hopf points. If several equilibria are stable, the one with the largest K counts.

    - `p1` (a,), `p2` (b,): the values of the parameters, inside `spans` (2, 2). `names`: those of the parameters.
    - `n_stable` (a, b): the number of stable equilibria that were found. Where it is 0, the numbers below are NaN.
    - `top` (a, b): the largest eigenvalue of K, with the states in units of `scale`. It grows without bound at bifurcations.
    - `participation_ratio` (a, b): (tr K)^2 / tr K^2, from 1, where one direction is left to learn, to n.
    - `frequency` (a, b): in rad per unit time. `x` (a, b, n): the equilibrium.
    - `status`: what the search lacks, if anything.

    Source: Hazelden and Shea-Brown, arXiv:2605.12763, for the collapse at a bifurcation.

    **Example:** between the saddle-nodes of x' = h + x - x^3 two equilibria are stable.

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    found = ssntk.kernel_map(plane, ((-1.0, 1.0), (0.5, 1.5)), n=(4, 1))
    print(found.n_stable.ravel(), found.participation_ratio.ravel())  # [1 2 2 1] [1. 1. 1. 1.]
    ```
    """

    p1: np.ndarray
    p2: np.ndarray
    n_stable: np.ndarray
    top: np.ndarray
    participation_ratio: np.ndarray
    frequency: np.ndarray
    x: np.ndarray
    spans: np.ndarray
    names: tuple[str, str]
    status: str
    _picture = "kernel_map"

    def _headline(self) -> str:
        known = self.top[np.isfinite(self.top)]
        said = f"largest eigenvalues {short(known.min())} to {short(known.max())}" if known.size else "nothing is stable"
        places = f"{len(self.p1)} x {len(self.p2)} places"
        return f"KernelMap: {places} over {' and '.join(self.names)}, {said}" + (f"; {self.status}" if self.status else "")

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        wide = ("n_stable", "top", "participation_ratio", "frequency")
        return {
            "p1": (("first",), self.p1),
            "p2": (("second",), self.p2),
            "x": (("first", "second", "state"), self.x),
            **{name: (("first", "second"), getattr(self, name)) for name in wide},
        }

    def _attributes(self) -> dict[str, Any]:
        return {"names": list(self.names), "status": self.status}


@outside_jit
@one_blas_thread()
def kernel_map(
    plane: Any,
    spans: Any,
    *,
    n: Any = 24,
    u: Any = None,
    wrt: Lens | None = None,
    scale: Any = None,
    key: Any = None,
    n_searches: int = 5,
    n_starts: int = 128,
    step: Any = 0.05,
) -> KernelMap:
    """Map how the steady-state kernel collapses over two parameters: see [`KernelMap`][].

    Along each row of the raster, at constant p2, all branches of equilibria are followed by [`bifurcation_diagram`][].

    **Arguments:**

    - `plane`: the two parameters p1 and p2, as [`Family.plane`][] makes them. `spans`: (span1, span2), the two ends of each.
    - `n`: how many places along p1 and along p2, or one number for both. They are the middles of equal parts of the spans.
    - `u`: (d,) constant input. Default zero. `key`: a `jax.random.key` for all searches. Default `jax.random.key(0)`.
    - `wrt`: which arrays of the model form theta, a lens. Default: `model.trainable("state")`.
    - `scale`: (n,) positive numbers, or one: the metric of the states. Default ones.
    - `n_searches`, `n_starts`, `step`: as for [`two_parameter_diagram`][].

    Raises `ValueError` for arguments that do not fit, among them a model that depends on time. Raises `NumericalError` if no
    equilibrium is found in any row.

    **Example:** the largest eigenvalue grows towards the cusp.

    ```python
    model = ssntk.normal_forms.pitchfork(1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "h"), ssntk.Family(model, "mu"))
    found = ssntk.kernel_map(plane, ((-0.1, 0.1), (-1.5, 0.0)), n=(1, 3))
    print(found.top.ravel().round(6))  # [ 0.64  1.777778 16.      ]
    ```
    """
    as_instance(plane, "plane", Plane)
    ends, model = spans_of(spans), plane.model
    shape = counts_of(n, "n")
    n_searches, n_starts = as_count(n_searches, "n_searches", least=2), as_count(n_starts, "n_starts", least=2)
    step, u = float(as_scalar(step, "step", positive=True)), constant_input(model, u)
    metric, at = as_metric(scale, model.n_state), theta_positions(model, "state", wrt)
    check_autonomous(plane(*ends.mean(axis=1).tolist()), "plane")
    p1, p2 = (low + (np.arange(count) + 0.5) / count * (high - low) for count, (low, high) in zip(shape, ends, strict=True))
    places, empty = [], []
    for j, one in enumerate(jr.split(as_key(key), len(p2))):
        try:
            how = {"u": u, "n_slices": n_searches, "n_starts": n_starts, "step": step, "max_period": 1, "key": one}
            diagram = bifurcation_diagram(plane.across(float(p2[j])), ends[0], **how)
        except NumericalError:
            empty.append(f"{p2[j]:.6g}")
            continue
        places += [_Near(i, j, x, branch.scale) for branch in diagram.branches for i, x in _passed(branch, p1)]
    if len(empty) == len(p2):
        raise NumericalError("no equilibrium was found in any row: try other spans, more n_searches or more n_starts")
    found = _Raster(shape, model.n_state, plane.clock)
    for place, x, jacobian, force in _at_rest(plane, at, u, (p1, p2), places):
        found.add(place, x, in_metric(jacobian, metric), force if metric is None else force / np.outer(metric, metric))
    said = f"no equilibrium was found at p2 = {', '.join(empty)}" if empty else ""
    numbers = found.n_stable, found.top, found.ratio, found.frequency, found.x
    return KernelMap(p1, p2, *numbers, ends, names_of(plane), said)


def counts_of(n: Any, name: str) -> tuple[int, int]:
    """The number of places along each parameter, from one number or two."""
    if np.ndim(n) == 0:
        return as_count(n, name), as_count(n, name)
    if np.shape(n) != (2,):
        raise ValueError(f"{name} must be one number of places or two, got {n!r}")
    return as_count(n[0], name), as_count(n[1], name)


class _Near(NamedTuple):
    """A place (i, j) of the raster, a state (n,) near an equilibrium there, and the states' sizes (n,)."""

    i: int
    j: int
    x: np.ndarray
    sizes: Any


def _passed(branch: Branch, p1: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Where a branch passes parameters: their index, and the state (n,) of the chord there. Pieces on which nothing is
    stable are left out."""
    # A branch turns at a saddle-node, which is none of its points.
    at = np.array(branch.steps, int) + 1
    events = branch.bifurcations
    p = np.insert(branch.parameter, at, [event.parameter for event in events])
    x = np.insert(branch.x, at, np.reshape([event.x for event in events], (-1, branch.x.shape[1])), axis=0)
    stable = np.insert(branch.stable, at, True)
    for k, (before, after) in enumerate(itertools.pairwise(p)):
        if stable[k] and stable[k + 1]:
            # Each end belongs to one of its two pieces.
            for i in np.flatnonzero((p1 >= before) != (p1 >= after)):
                yield int(i), x[k] + (p1[i] - before) / (after - before) * (x[k + 1] - x[k])


def _at_rest(
    plane: Plane, at: Positions, u: Array, values: tuple[np.ndarray, np.ndarray], places: list[_Near]
) -> Iterator[tuple[_Near, np.ndarray, np.ndarray, np.ndarray]]:
    """For each place its equilibrium (n,), A (n, n) and F F^T (n, n). Those at which Newton's iteration fails are left
    out."""
    dtype = dtype_of(plane.model)
    for start in range(0, len(places), CHUNK):
        chunk = places[start : start + CHUNK]
        # The last chunk is filled with its last place.
        filled = [*chunk, *chunk[-1:] * (CHUNK - len(chunk))]
        p = np.array([(values[0][one.i], values[1][one.j]) for one in filled])
        parts = p, np.stack([one.x for one in filled]), np.stack([one.sizes for one in filled])
        found = _rested(plane, at, u, *(np.asarray(part, dtype) for part in parts))
        good = np.asarray(found[-1]) <= float(np.finfo(dtype).eps) ** CLOSE
        x, jacobian, force = (np.asarray(part, float) for part in found[:-1])
        for k, one in enumerate(chunk):
            if good[k] and np.isfinite(jacobian[k]).all() and np.isfinite(force[k]).all():
                yield one, x[k], jacobian[k], force[k]


@eqx.filter_jit
def _rested(plane: Plane, at: Positions, u: Array, p: Any, x: Any, sizes: Any) -> tuple[Array, Array, Array, Array]:
    """Equilibria (k, n), A (k, n, n), F F^T (k, n, n), and the last corrections relative to the sizes (k,), one place after
    the other, since F may be large."""

    def one(place: tuple[Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        p, x, sizes = place
        model = plane(p[0], p[1])

        def velocity(y: Array) -> Array:
            return field_at(model, y * sizes, u)

        def on(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
            y, _ = state
            move = row_scaled(jax.jacfwd(velocity)(y), velocity(y))
            return y - move, jnp.max(jnp.abs(move) / (1 + jnp.abs(y)))

        y, last = jax.lax.fori_loop(0, NEWTON, on, (x / sizes, jnp.asarray(jnp.inf, x.dtype)))
        force, jacobian = forcing(model, at, y * sizes, u)
        return y * sizes, jacobian, force @ force.T, last

    return jax.lax.map(one, (p, x, sizes))


class _Raster:
    """The numbers of a map, as they are found."""

    def __init__(self, shape: tuple[int, int], n: int, clock: AbstractClock):
        self.clock, self.n_stable = clock, np.zeros(shape, int)
        self.top, self.ratio, self.frequency = (np.full(shape, np.nan) for _ in range(3))
        self.x = np.full((*shape, n), np.nan)

    def add(self, place: _Near, x: np.ndarray, jacobian: np.ndarray, force: Float[np.ndarray, "n n"]) -> None:
        """Count an equilibrium, if it is stable, and keep its kernel, if that is the largest one."""
        rates, doubts = judged_exponents(jacobian, self.clock)
        if not (rates.real < -doubts).all():
            return
        here = place.i, place.j
        self.n_stable[here] += 1
        slowest = self.clock.frequency(self.clock.eigenvalue(complex(rates[0])))
        for frequency in dict.fromkeys((0.0, float(slowest))):
            edge = complex(*self.clock.edge(frequency))
            response = np.linalg.inv(edge * np.eye(len(jacobian)) - jacobian)
            values = np.linalg.eigvalsh(response @ force @ response.conj().T)
            if not values[-1] <= self.top[here]:
                self.top[here], self.x[here], self.frequency[here] = values[-1], x, frequency
                self.ratio[here] = values.sum() ** 2 / np.sum(values**2) if values[-1] > 0 else np.nan
