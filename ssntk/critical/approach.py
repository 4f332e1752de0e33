"""Find the nearest bifurcation if all parameters may change together."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation.continuation import continuation
from ssntk.bifurcation.events.kinds import FLIP, HOPF, NEIMARK_SACKER, PITCHFORK, SADDLE_NODE, as_kind
from ssntk.critical.conditions import TOLERANCE
from ssntk.critical.distance import natural_time_scale
from ssntk.critical.fragile import most_fragile, searched
from ssntk.critical.freedom import Freedom
from ssntk.critical.search import BOUNDARY, CUSP, SINGULAR, Met, Search
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.refine import check_fixed_point
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import exponents, linearised
from ssntk.errors import NumericalError, as_array, as_count, as_key, as_scalar, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap
from ssntk.models.rescaled import rescaled
from ssntk.nouns import Lens
from ssntk.precision import watch_precision
from ssntk.results import Holder
from ssntk.threads import one_blas_thread

KINDS = (SINGULAR, SADDLE_NODE.name, HOPF.name)
MAP_KINDS = (SINGULAR, SADDLE_NODE.name, FLIP.name, NEIMARK_SACKER.name)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Approach(Holder):
    """The nearest bifurcation of a network, and the straight line to it in the space theta of the parameters.

    - `kind`: the bifurcation that is met: `"saddle-node"`, `"cusp"`, `"transcritical"`, `"pitchfork"`, `"hopf"`, `"flip"` or
      `"neimark-sacker"`. Or `"Bogdanov-Takens boundary"`, if the nearest pair would have a frequency below `omega_min`: then
      the point is the nearest one with a pair of that frequency.
    - `distance`: sqrt(sum metric (theta - start)^2). It is the smallest local minimum that the starts found, and therefore
      an upper bound of the distance from all points of this kind.
    - `family`: the line: `family(0)` is the network, `family(distance)` the network at the bifurcation. `None` if the
      distance is 0. `model`: the network at the bifurcation.
    - `x` (n,): the equilibrium at the bifurcation. `x_start` (n,): that of the network. `u` (d,): the input of both.
    - `frequency`: angular, in rad per unit time; 0 for a real eigenvalue. `right`, `left` (n,): the critical eigenvectors,
      normalised as those of a [`Bifurcation`][].
    - `coefficient`: for a real eigenvalue l.f_xx(r, r) / 2, the quadratic term of the normal form, in 1 / (state time); NaN
      for a pair.
    - `residual`: the largest residual of the conditions, in units of the states' typical sizes and of the model's time
      scale. `kkt_residual`: that of the gradient of the Lagrangian, relative. `converged`: whether both are at most 1e-10.
    - `minimum`: whether the point is a minimum of the distance to second order.
    - `starts` (k,): the distance that each start led to, NaN if it did not converge. `agreeing`: how many led here.
    - `reached`: whether the network's own equilibrium arrives at this point if it is followed along the line, through folds
      on the way if need be. If not, another equilibrium does.
    - `others`: the other points that were found, the nearest first. `reached` is `None` for these.
    - `reason`: a sentence that summarises all this.

    **Example:** the state near -1.9 of x' = -x + 2 tanh x + b ends at b = 0.5328.

    ```python
    model = ssntk.CTRNN.from_weights([[2.0]], bias=[0.1])
    found = ssntk.approach(model, "saddle-node", wrt=lambda m: m.bias)
    print(found.kind, found.model.bias.round(4))  # saddle-node [0.5328]
    ```
    """

    kind: str
    distance: float
    family: Family | None
    model: AbstractStateSpaceModel
    x: np.ndarray
    x_start: np.ndarray
    u: np.ndarray
    frequency: float
    right: np.ndarray
    left: np.ndarray
    coefficient: float
    residual: float
    kkt_residual: float
    minimum: bool
    starts: np.ndarray
    agreeing: int
    reached: bool | None
    others: tuple["Approach", ...]
    reason: str

    def _headline(self) -> str:
        return f"Approach: {self.reason}"

    @property
    def converged(self) -> bool:
        return max(self.residual, self.kkt_residual) <= TOLERANCE


@outside_jit
@one_blas_thread()
def approach(
    model: AbstractStateSpaceModel,
    kind: str,
    *,
    x: Any = None,
    u: Any = None,
    wrt: Lens | None = None,
    metric: Any = None,
    signs: Any = None,
    min_coefficient: Any = None,
    omega_min: Any = None,
    n_starts: int = 8,
    key: Any = None,
    scale: Any = None,
) -> Approach:
    """Find the least change of all parameters together that brings a network to a bifurcation.

    The result is a local minimum of the distance under the conditions of the bifurcation, to rounding error. It is the best
    of several starts, without proof that it is the nearest. A *monostable* network usually meets its nearest zero eigenvalue
    not at a generic fold, but at the edge of the bistable wedge, where the fold's coefficient vanishes. That is a cusp, or a
    pitchfork if the vector field is odd.

    **Arguments:**

    - `kind`: `"singular"`, the nearest zero eigenvalue of any kind; `"saddle-node"`, the nearest generic fold, whose
      coefficient is at least `min_coefficient`, and which may be farther away; or `"hopf"`. For maps also `"flip"`, and
      `"neimark-sacker"` instead of `"hopf"`. The other names that [`locate`][] accepts are accepted here too.
    - `x`: (n,) the equilibrium to start from. Default: the one that [`criticality`][] judges.
    - `u`: (d,) constant input. Default zero.
    - `wrt`: a lens, model -> leaves, that selects theta: the parameters that may change. Default `model.trainable("state")`.
    - `metric`: the positive cost of a change: a dict from attributes (or lenses) to scalars or arrays. Default 1 each.
    - `signs`: which parameters must keep their sign (Dale's law): a dict from attributes (or lenses) to scalars or arrays,
      1 for entries that stay >= 0, -1 for entries that stay <= 0, 0 for free ones. Default 0.
    - `min_coefficient`: in 1 / (state time). Default 0.05 / (time_scale size), with the `time_scale` of `criticality` and
      the power of ten nearest to the typical size of the states in their metric, which is 1 for states of order one.
    - `omega_min`: the smallest frequency of a pair, in rad per unit time. Default 0.05 / time_scale.
    - `n_starts`: the number of starts: singular vectors or eigenvectors at x, then states around x drawn with `key`.
    - `key`: a `jax.random.key`. Default `jax.random.key(0)`.
    - `scale`: (n,) or a number, positive, in units of the states: their metric. `right` has length one in it, and `left`,
      `coefficient` and `min_coefficient` are measured accordingly. Distances depend on it only through `min_coefficient`.
      Default: ones.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time. Raises `NumericalError` if no
    start converges.

    **Example:** x' = -x + 2 tanh x + b has a fold where tanh^2 x = 1/2, at b = 0.5328.

    ```python
    model = ssntk.CTRNN.from_weights([[2.0]], bias=[0.1])
    found = ssntk.approach(model, "saddle-node", wrt=lambda m: m.bias)
    print(round(found.distance, 4))  # 0.4328
    ```
    """
    check_model(model)
    states = as_metric(scale, model.n_state)
    check_autonomous(model)
    clock = model.clock
    kind = as_kind(kind, "kind", KINDS if clock.flips_at is None else MAP_KINDS)
    u = constant_input(model, u)
    watch_precision(dtype_of(model))
    count, key = as_count(n_starts, "n_starts"), as_key(key)
    freedom = Freedom(model, wrt, metric, signs)
    if x is None:
        x_start = most_fragile(searched(model, [u]), clock, states).x
    else:
        x_start = np.asarray(check_fixed_point(model, as_array(x, "x", (model.n_state,)), u)[0])
    matrix = np.asarray(linearised(model, x_start, u)[1])
    time = natural_time_scale(model, exponents(matrix, clock))
    sizes = np.asarray(typical_sizes(model, u, x_start), float)
    # The power of ten nearest to the typical size of the states: 1 for states of order one.
    decade = 10.0 ** np.round(np.log10(np.median(sizes if states is None else sizes / states)))
    bound = _positive(min_coefficient, "min_coefficient", 0.05 / (time * decade))
    slowest = _positive(omega_min, "omega_min", 0.05 / time)
    unit = model.dt if isinstance(model, AbstractMap) else time
    working = Freedom(rescaled(model, sizes, unit), wrt, metric, signs)
    search = Search(freedom, working, u, x_start, slowest * unit, sizes, unit, states)
    found = [search.solve(*guess) for guess in search.starts(kind, count, key)]
    if kind == SADDLE_NODE.name:
        found = search.generic(found, bound)
    points = sorted((search.described(one) for one in found if one is not None), key=lambda point: point.distance)
    if not points:
        raise NumericalError(
            f"none of {count} starts led to a {kind} point with residuals below {TOLERANCE:g}: try more n_starts, or more "
            "of theta in wrt"
        )
    starts = np.array([np.nan if one is None else freedom.length(search.change(one)) for one in found])
    return _approach(search, points, starts)


def _positive(value: object, name: str, default: float) -> float:
    return default if value is None else float(as_scalar(value, name, positive=True))


def _approach(search: Search, points: list[Met], starts: np.ndarray) -> Approach:
    """The result for points sorted by distance: the nearest, with the distinct ones of the others."""
    others: list[Met] = []
    for point in points[1:]:
        if not any(search.same(point, other) for other in (points[0], *others)):
            others.append(point)
    nearest, x_start, u = points[0], search.x_start, np.asarray(search.u)
    agreeing, reached = sum(search.same(nearest, point) for point in points), _reaches(nearest, x_start, u, search.sizes)
    return _as_read(
        nearest,
        x_start=x_start,
        u=u,
        starts=starts,
        agreeing=agreeing,
        reached=reached,
        others=tuple(
            _as_read(
                other,
                x_start=x_start,
                u=u,
                starts=np.array([other.distance]),
                agreeing=1,
                reached=None,
                others=(),
                reason="",
            )
            for other in others
        ),
        reason=_reason(nearest, starts, agreeing, reached),
    )


def _as_read(point: Met, **told: Any) -> Approach:
    """The public result for a point. `told` holds the fields that the point does not have."""
    return Approach(
        kind=point.kind,
        distance=point.distance,
        family=point.family,
        model=point.model,
        x=point.x,
        frequency=point.frequency,
        right=point.mode.right,
        left=point.mode.left,
        coefficient=point.coefficient,
        residual=point.found.point.violation,
        kkt_residual=point.found.point.kkt,
        minimum=point.found.point.minimum,
        **told,
    )


def _reaches(found: Met, x_start: np.ndarray, u: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether the branch from the network's own equilibrium passes through the point."""
    if found.family is None:
        return True
    try:
        branch = continuation(found.family, (0.0, 1.05 * found.distance), x0=x_start, u=u)
    except NumericalError:
        return False
    # The distance from the point to each segment of the branch, in the scaled length that `continuation` steps measure.
    nodes = np.column_stack([branch.x / sizes, branch.parameter / found.distance])
    aim = np.append(found.x / sizes, 1.0)
    starts, steps = nodes[:-1], np.diff(nodes, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), np.finfo(float).tiny)
    part = np.clip(((aim - starts) * steps).sum(axis=1) / lengths, 0, 1)
    gaps = np.linalg.norm(starts + part[:, None] * steps - aim, axis=1)
    return bool((gaps <= 1e-6 + 0.1 * np.sqrt(lengths)).any())


def _reason(found: Met, starts: np.ndarray, agreeing: int, reached: bool) -> str:
    """The result in one sentence."""
    rad = f" with frequency {found.frequency:.3g}" if found.frequency and found.kind != FLIP.name else ""
    text = f"A change of theta by {found.distance:.4g} gives a {found.kind}{rad}"
    if found.distance == 0:
        text = f"The network is at a {found.kind}{rad} already"
    if found.kind in (CUSP, PITCHFORK.name):
        text += ", the edge of bistability and no generic fold (ask for 'saddle-node' to get one)"
    if found.kind == BOUNDARY:
        text += ": nearer pairs turn more slowly than omega_min, towards a double zero eigenvalue"
    valid = int(np.isfinite(starts).sum())
    text += f"; {agreeing} of {len(starts)} starts agree"
    text += "" if valid == len(starts) else f", {len(starts) - valid} did not converge"
    return text + ("." if reached else "; the network's own equilibrium does not come there along the line.")
