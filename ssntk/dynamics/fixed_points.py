"""Find the fixed points of a model: all that the search can reach, stable and unstable."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.exact import Exact, exact_points
from ssntk.dynamics.metric import as_metric, as_periods
from ssntk.dynamics.search import Search
from ssntk.dynamics.slow import slow_points
from ssntk.dynamics.stability import exponents, judged_exponents
from ssntk.errors import as_array, as_choice, as_count, as_key, as_room, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import AbstractClock, Continuous, clock_of
from ssntk.precision import watch_precision
from ssntk.results import Collection, Pictured, Result, Table, Tabular, counted, short
from ssntk.threads import one_blas_thread

# (units n, starts): up to n units, this many starts of the search for slow points.
DESCENTS = ((32, 64),)
# The methods of finding fixed points and cycles.
METHODS = ("auto", "search", "exact")
# How many states' readouts are computed in one call.
BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SlowPoints(Collection):
    """j slow points: local minima of the speed |f| at which f is not zero (Sussillo and Barak, 2013).

    df/dx is singular at a slow point, since a fold is near.

    - `x` (j, n): the states, the slowest first. `speed` (j,): |f|, in units of state / time.
    - `eigenvalues` (j, n) of df/dx in 1 / time; for maps the multipliers.
    - `hits` (j,): the number of starts that ended at each.
    """

    x: np.ndarray
    speed: np.ndarray
    eigenvalues: np.ndarray
    hits: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def _item(self, i: int) -> "SlowPoint":
        return SlowPoint(self.x[i], float(self.speed[i]), self.eigenvalues[i], int(self.hits[i]))

    def _headline(self) -> str:
        return f"{counted(len(self), 'slow point')}, no fixed {'point' if len(self) == 1 else 'points'}"

    def _tables(self) -> list[Table]:
        rows = [(i, point.speed, point.hits, point.eigenvalues[:1], point.x) for i, point in enumerate(self)]
        return [Table.of(("#", "speed", "hits", "fastest mode", "x"), rows, 16)]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SlowPoint(Result):
    """One of [`SlowPoints`][]: `x` (n,), `speed`, `eigenvalues` (n,), `hits`."""

    x: np.ndarray
    speed: float
    eigenvalues: np.ndarray
    hits: int
    _brief = True

    def _headline(self) -> str:
        return f"slow point: speed {short(self.speed)}, x {short(self.x)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FixedPoint(Result):
    """One of [`FixedPoints`][], with the same fields for this point alone.

    They are `x` (n,), `eigenvalues` (n,), `stable`, `residual`, `n_unstable`, `hits`, `outputs` (m,), `jacobian` (n, n).

    **Example:**

    ```python
    point = ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0))[1]
    print(point.stable, point.n_unstable, point.eigenvalues)  # True 0 [-2.+0.j]
    ```
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    stable: bool
    residual: float
    n_unstable: int
    hits: int
    outputs: np.ndarray
    jacobian: np.ndarray
    _brief = True

    def _headline(self) -> str:
        return f"{'stable' if self.stable else 'unstable'} fixed point: x {short(self.x)}, residual {short(self.residual)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(Pictured, Tabular, Collection):
    """k fixed points: the stable ones first, then sorted by the number of unstable modes and by norm.

    - `x` (k, n): the states. `outputs` (k, m): the readout there.
    - `jacobian` (k, n, n): df/dx, in 1 / time. `eigenvalues` (k, n): its eigenvalues, the rightmost first; for maps the
      multipliers, the largest first. `right` (k, n, n): right eigenvectors of length one, as columns in the same order.
    - `stable` (k,): whether every mode decays by more than rounding explains. `n_unstable` (k,): the number of modes that
      grow. The zero eigenvalues of conserved quantities count for neither.
    - `residual` (k,): the largest |f_i|, in units of state / time.
    - `hits` (k,): the number of starts that arrived at each. A start that follows a homotopy may arrive at several points.
    - `n_starts`: the number of starts. `n_lost`: how many of them arrived at no point. All are zero if the points were
      enumerated.
    - `index_sum`: the sum over the points of the sign of det(-df/dx). If a model is bounded (from far away every state
      returns) and all its points are known, the sum is 1. For other models it may be any integer. `None` if a point is
      degenerate.
    - `complete`: `True` if it is proved that there are no other points, as for many piecewise-linear models; else `None`.
    - `conserved` (c, n): the weights w of each conserved quantity w . x: w . f(x) = 0 at every x, so that it is constant.
    - `slow`: local minima of the speed |f| that are not fixed points, see [`SlowPoints`][].

    **Example:**

    ```python
    points = ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0))
    print(points.x[points.stable].round(6).tolist(), points[1].eigenvalues)  # [[-1.0], [1.0]] [-2.+0.j]
    ```
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    residual: np.ndarray
    stable: np.ndarray
    hits: np.ndarray
    slow: SlowPoints
    n_unstable: np.ndarray
    outputs: np.ndarray
    jacobian: np.ndarray
    conserved: np.ndarray
    index_sum: int | None
    n_starts: int
    n_lost: int
    dt: float | None = None
    complete: bool | None = None

    _picture = "fixed_points"

    def __len__(self) -> int:
        return len(self.x)

    def _item(self, i: int) -> FixedPoint:
        return FixedPoint(
            self.x[i],
            self.eigenvalues[i],
            bool(self.stable[i]),
            float(self.residual[i]),
            int(self.n_unstable[i]),
            int(self.hits[i]),
            self.outputs[i],
            self.jacobian[i],
        )

    def _headline(self) -> str:
        several = [(int(k), int((self.n_unstable == k).sum())) for k in np.unique(self.n_unstable) if k > 0]
        parts = [f"{stable} stable"] if (stable := int(self.stable.sum())) else []
        edge = len(self) - stable - sum(number for _, number in several)
        parts += [f"{edge} on the edge of stability"] if edge else []
        parts += [f"{number} with {k}" for k, number in several]
        if several:
            parts[-1] += " unstable direction" + ("" if several[-1][0] == 1 else "s")
        said = [counted(len(self), "fixed point") + (f": {', '.join(parts)}" if parts else "")]
        if self.complete:
            said += ["proved to be all"]
        else:
            said += [f"coverage {self.coverage:.2f}"] if self.hits.sum() else [f"{counted(self.n_starts, 'start')} made"]
            said += [f"about {more:.0f} unseen"] if (more := self.unseen) >= 1 else []
        said += [counted(len(self.conserved), "conserved quantity")] if len(self.conserved) else []
        said += [counted(len(self.slow), "slow point")] if len(self.slow) else []
        return "; ".join(said)

    def _tables(self) -> list[Table]:
        rows = [
            (i, point.stable, point.n_unstable, point.eigenvalues[0], short(point.residual, 2), point.hits, point.outputs)
            for i, point in enumerate(self)
        ]
        mode = "fastest mode" if clock_of(self.dt) == Continuous() else "largest multiplier"
        return [Table.of(("#", "stable", "unstable directions", mode, "residual", "hits", "outputs"), rows, 16)]

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        held = {name: getattr(self, name) for name in ("stable", "n_unstable", "residual", "hits")}
        wide = {"x": "state", "outputs": "output", "eigenvalues": "mode"}
        return {name: (("point",), value) for name, value in held.items()} | {
            name: (("point", dim), getattr(self, name)) for name, dim in wide.items()
        }

    def _attributes(self) -> dict[str, object]:
        return {"n_starts": self.n_starts, "n_lost": self.n_lost, "coverage": self.coverage}

    @functools.cached_property
    def right(self) -> np.ndarray:
        """Right eigenvectors (k, n, n), as columns in the order of the eigenvalues. Computed on first use."""
        if len(self) == 0:
            return self.jacobian.astype(complex)
        values, vectors = np.linalg.eig(self.jacobian)
        rates = clock_of(self.dt).growth(values.astype(complex), sort=False)
        order = np.lexsort((-rates.imag, -rates.real), axis=-1)
        return np.take_along_axis(vectors, order[:, None, :], axis=2)

    @property
    def coverage(self) -> float:
        """The estimated probability that one more start would arrive at a known point: `1 - (f1 + lost) / N`.

        Of N starts, f1 arrived at a point that no other start reached (Good, 1953), and `lost` arrived at no point. NaN if
        none arrived; 1 if it is proved that all points are known.
        """
        if self.complete:
            return 1.0
        if not self.hits.sum():
            return float("nan")
        return float(max(1 - ((self.hits == 1).sum() + self.n_lost) / self.n_starts, 0.0))

    @property
    def unseen(self) -> float:
        """A lower estimate of the number of fixed points that were not found: `f1 (f1 - 1) / (2 (f2 + 1))` (Chao, 1984).

        f1 points were hit once and f2 twice. No such estimate counts points that starts hardly ever reach.
        """
        once, twice = ((self.hits == times).sum() for times in (1, 2))
        return float(once * (once - 1) / (2 * (twice + 1)))


# One thread for LAPACK, since the matrices of one start are small and several threads would wait for one another.
@outside_jit
@one_blas_thread()
def find_fixed_points(
    model: AbstractStateSpaceModel,
    u: Any = None,
    *,
    n_starts: int = 256,
    starts: Any = None,
    scale: Any = None,
    periods: Any = None,
    method: str = "auto",
    key: Any = None,
) -> FixedPoints:
    """Find all distinct fixed points that the search reaches, stable and unstable, for a constant input.

    The starts are the zero state, states of short roll-outs, random states in the box of those, random states at several
    scales, and states between the points found so far, where saddles are likely. From each start goes a damped Newton
    iteration (Deuflhard, *Newton Methods for Nonlinear Problems*, 2004). It may fail, for instance if activations saturate.
    Then the start is deformed into a fixed point along a homotopy, which almost always arrives (Chow, Mallet-Paret and
    Yorke, 1978). Some homotopies are followed through further points. The result does not depend on the units of the states
    or of time.

    Local minima of the speed |f| that are not fixed points are returned separately, in `slow`.

    **Arguments:**

    - `u`: (d,) constant input. Default zero.
    - `n_starts`: the number of starts, at least 2. Further batches follow while more than 1 % of the starts are alone at
      their point, or while the index sum of a bounded model is not 1. There are at most 16 times as many starts, and no
      further batch if there are more points than that many starts could reach. Nothing proves that all points were found;
      `hits`, `coverage`, `unseen` and `index_sum` of the result show how likely it is.
    - `starts`: (k, n) states, the only ones to start from, such as the fixed points of a slightly different network. Or
      (B, T, n) trajectories, which are taken as B T states. Then `n_starts` is ignored. The same number of starts reuses
      compiled code.
    - `scale`: (n,) or a number, positive: typical sizes of the states, in their units. Default: found from the model. If
      given, the speed that `slow` minimises is relative to it.
    - `periods`: (n,) the periods of the states that are angles, 0 for the others. Points that differ by whole periods count
      as one, which is returned within [0, period). Default: no angles.
    - `method`: `"search"` as above; `"exact"` for piecewise-linear models, see below; or `"auto"`, exact if the model is
      piecewise linear and neither `starts` nor `periods` are given.
    - `key`: a `jax.random.key` for the starts. Default `jax.random.key(0)`.

    If the model conserves a linear combination of its states (see `conserved`), its equilibria fill lines or planes. The
    search then keeps that combination at its value at the zero state, or at its value at each of the `starts`. Nonlinear
    first integrals are not found.

    If [`piecewise_linear`][] recognises the model, its fixed points are the solutions of a linear complementarity problem
    (Cottle, Pang and Stone, 1992), and nothing is compiled. They are proved to be all, `complete=True`, if the symmetric
    part of the problem's matrix is positive definite; if the rank of the coupling is at most three; up to 20 relus; or if
    branch and bound ends within some hundred linear programmes (with `"exact"` ten times as many). Otherwise Newton's
    iteration starts from `n_starts` random regions, in up to 16 batches (Eisenmann et al., *SCYFI*, 2023). If fixed points
    fill a line, as with a conserved quantity, `"auto"` searches as above. A point on a border belongs to several regions.
    Its Jacobian is that of the region whose modes grow most, so that it is stable only if it is so in all (beyond 8 units on
    their borders at once, in those that differ by one unit or by all).

    Raises `ValueError` for arguments that do not fit, and for a vector field that depends on time, which has no
    equilibria. With `"exact"` also for models that are not piecewise linear, with the part that is not. The result may be
    empty.

    **Example:** two units, x - x^3 each.
    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p * (x - x**3), 1.0, 2)
    points = ssntk.find_fixed_points(model)
    print(len(points), points.stable.sum(), points.index_sum)  # 9 4 1
    ```
    """
    check_model(model)
    check_autonomous(model)
    u = constant_input(model, u)
    n, dtype = model.n_state, dtype_of(model)
    as_choice(method, "method", METHODS)
    count, given = as_count(n_starts, "n_starts", least=2), None
    # The search keeps about sixteen arrays of the size of the starts.
    as_room(16 * count * n, "n_starts")
    if starts is not None:
        given = as_array(starts, "starts")
        # Trajectories (B, T, n) are taken as B T states.
        given = given.reshape(-1, n) if given.ndim == 3 and given.shape[-1] == n else given
        given = np.asarray(as_array(given, "starts", ("k", n)).astype(dtype))
        if len(given) == 0:
            raise ValueError("starts must hold at least one state")
    metric = as_metric(scale, n)
    sizes = None if metric is None else metric.astype(dtype)
    given_turns = as_periods(periods, n)
    turns = np.zeros(n, dtype) if given_turns is None else given_turns.astype(dtype)
    watch_precision(dtype)
    seed = [int(word) for word in np.asarray(jax.random.key_data(as_key(key))).ravel()]
    if method == "exact" and (given is not None or turns.any()):
        raise ValueError(f"method must be 'auto' or 'search' with {'periods' if given is None else 'starts'}")
    # A start that overflows has not arrived and counts as lost, so that its warnings are not needed.
    with np.errstate(all="ignore"):
        # The user's own starts, and states that are angles, are for the search.
        exact = None if given is not None or turns.any() else exact_points(model, u, method, count, seed)
        if exact is not None:
            return _exactly(model, exact, np.ones(n) if sizes is None else sizes)
        search = Search(model, u, sizes, turns, seed, given)
        if given is None:
            search.widely(count)
        else:
            search.exactly(given)
        return _result(model, search, np.ones(n, dtype) if sizes is None else sizes)


def _exactly(model: AbstractStateSpaceModel, exact: Exact, metric: np.ndarray) -> FixedPoints:
    """The result for a piecewise-linear model."""
    n, dtype, clock = model.n_state, dtype_of(model), model.clock
    zeros, degenerate = exact.zeros, bool((exact.signs == 0).any())
    order = _order(exact.x / metric, exact.grows, exact.decays)
    x = exact.x[order].astype(dtype)
    none = np.zeros((0, n), dtype)
    return FixedPoints(
        x=x,
        eigenvalues=clock.reported(exact.rates)[order],
        residual=exact.residual[order].astype(dtype),
        stable=exact.decays[order],
        hits=exact.hits[order],
        slow=SlowPoints(none, np.zeros(0, dtype), none.astype(complex), np.zeros(0, int)),
        n_unstable=exact.grows[order],
        outputs=readouts(model, x),
        jacobian=exact.jacobian[order].astype(dtype),
        conserved=none,
        index_sum=None if degenerate else int(exact.signs.sum()),
        n_starts=zeros.starts,
        n_lost=zeros.lost,
        dt=clock.dt,
        complete=True if zeros.complete else None,
    )


def _order(sizes: np.ndarray, grows: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """The stable points first, then by the number of unstable modes and by the norm of `sizes` (k, n)."""
    # Norms are relative to the largest entry, since the square of a large state would overflow.
    norms = np.linalg.norm(sizes / (np.abs(sizes).max(initial=0.0) or 1.0), axis=1)
    return np.lexsort((norms, grows, ~decays))


def _result(model: AbstractStateSpaceModel, search: Search, metric: np.ndarray) -> FixedPoints:
    """The result of the search, in the units of the states."""
    field, clock = search.field, model.clock
    scale, pull = field.scale, field.pull
    exact = search.jacobian + pull * field.weights.T @ field.weights
    rates, doubts = (search.values, search.doubts) if clock == Continuous() else judged_exponents(search.jacobian, clock)
    grows, decays = (rates.real > doubts).sum(axis=1), (rates.real < -doubts).all(axis=1)
    x = _within(search, search.y * scale, search.error * scale)
    order = _order(x / metric, grows, decays)
    values = clock.reported(exponents(exact, clock) if len(field.weights) else rates)[order]
    return FixedPoints(
        x=x[order],
        eigenvalues=values,
        residual=np.abs(search.velocity * scale).max(axis=1)[order],
        stable=decays[order],
        hits=search.hits[order],
        slow=_slow(search, clock, metric),
        n_unstable=grows[order],
        outputs=readouts(model, x[order]),
        jacobian=(exact * scale[:, None] / scale)[order],
        conserved=search.conserved,
        index_sum=search.index_sum,
        n_starts=search.made,
        n_lost=search.missed,
        dt=clock.dt,
    )


def _within(search: Search, x: np.ndarray, error: np.ndarray | float) -> np.ndarray:
    """States (k, n) with their angles moved into [0, period). `error`: the error of the states, in the same units."""
    turns = search.periods * search.field.scale
    angle = turns > 0
    x = np.where(angle, x - turns * np.floor(x / np.where(angle, turns, 1.0)), x)
    # An angle just below a whole period is zero with a rounding error.
    return np.where(angle & (turns - x <= 64 * error), 0.0, x).astype(search.field.dtype)


def _slow(search: Search, clock: AbstractClock, metric: np.ndarray) -> SlowPoints:
    """The local minima of |f / metric| that are not fixed points."""
    field = search.field
    count = next((count for units, count in DESCENTS if field.n <= units), 0)
    starts = search.descents(count)
    found = slow_points(field, starts, field.level(starts), field.scale / metric, search.y, search.periods)
    exact = found.jacobian + field.pull * field.weights.T @ field.weights
    speed = np.linalg.norm(found.velocity * field.scale / metric, axis=1)
    order = np.argsort(speed)
    values = clock.reported(exponents(exact, clock))
    return SlowPoints(_within(search, found.y * field.scale, 0.0)[order], speed[order], values[order], found.hits[order])


def readouts(model: AbstractStateSpaceModel, x: np.ndarray) -> np.ndarray:
    """The readout (k, m) at states (k, n). All batches have one size, so that another k reuses compiled code."""
    if type(model).readout is AbstractStateSpaceModel.readout:
        return x.copy()
    parts = []
    for first in range(0, len(x), BATCH):
        states = np.zeros((BATCH, x.shape[1]), x.dtype)
        piece = x[first : first + BATCH]
        states[: len(piece)] = piece
        parts.append(np.asarray(_readouts(model, states))[: len(piece)])
    return np.concatenate(parts) if parts else np.zeros((0, model.n_output), x.dtype)


@eqx.filter_jit
def _readouts(model: AbstractStateSpaceModel, x: Any) -> Array:
    return jax.vmap(model.readout)(x)


def constant_input(model: AbstractStateSpaceModel, u: object) -> Float[Array, " d"]:
    """`u` (d,) in the model's dtype; zero if it is `None`."""
    if u is None:
        return jnp.zeros(model.n_input, dtype_of(model))
    found = as_array(u, "u")
    if found.ndim == 2 and found.shape[1] == model.n_input:
        raise ValueError(
            f"u must have shape ({model.n_input},), one constant input, got {found.shape}: ask for each row by itself, "
            "[find_fixed_points(model, row) for row in u]; criticality(model, u) takes them together"
        )
    return as_array(found, "u", (model.n_input,)).astype(dtype_of(model))
