"""Find the cycles of a map: orbits that return after a number of steps."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ssntk.dynamics.exact import Exact, asked, cycle_fields, exact_cycles
from ssntk.dynamics.fixed_points import METHODS, constant_input, readouts
from ssntk.dynamics.metric import as_metric, as_periods
from ssntk.dynamics.rollout import half_widths, known_bounded
from ssntk.dynamics.scaled import ERRORS
from ssntk.dynamics.search import Search
from ssntk.dynamics.shooting import Shooting
from ssntk.dynamics.stability import judged_exponents
from ssntk.errors import as_array, as_choice, as_count, as_instance, as_key, as_room, outside_jit
from ssntk.models.base import check_autonomous, check_model, dtype_of
from ssntk.models.clock import Steps
from ssntk.models.maps import AbstractMap
from ssntk.precision import watch_precision
from ssntk.results import Collection, Result, Table, Tabular, counted, short
from ssntk.threads import one_blas_thread

# The number of starts in a batch of a search that ends by itself, and the largest number in all.
BATCHES, MOST = 1024, 32_768
# The fractions of starts that are random states, one for each point, and cycles of a shorter period run through again.
OFF, SCATTERED, SHORTER = 0.3, 0.15, 0.1
# The largest number of steps before a segment begins, and from how many states the region of the orbits is found.
BURN, ORBITS = 64, 256
# An orbit beyond this many sizes of the states counts as diverged.
GONE = 1e8


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Cycle(Result):
    """One of [`Cycles`][], with the same fields for this cycle alone.

    They are `x` (period, n), `eigenvalues` (n,), `stable`, `residual`, `n_unstable`, `hits`, `outputs` (period, m).

    **Example:**

    ```python
    logistic = ssntk.Map(lambda t, x, u, params: params["r"] * x * (1 - x), {"r": 3.2}, n_state=1)
    cycle = ssntk.find_cycles(logistic, 2)[0]
    print(cycle.stable, cycle.eigenvalues.round(6))  # True [0.16+0.j]
    ```
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    stable: bool
    residual: float
    n_unstable: int
    hits: int
    outputs: np.ndarray
    _brief = True

    def __len__(self) -> int:
        return len(self.x)

    def _headline(self) -> str:
        kind = "stable" if self.stable else "unstable"
        return f"{kind} cycle of {counted(len(self), 'step')}: x {short(self.x)}, residual {short(self.residual)}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Cycles(Tabular, Collection):
    """c cycles of a map, all of one period: the stable ones first, then by the number of unstable modes.

    - `x` (c, period, n): the states, in the order in which the map takes them. `outputs` (c, period, m): the readout there.
    - `eigenvalues` (c, n): the multipliers of a whole round, the largest first.
    - `stable` (c,): whether every mode decays by more than rounding explains. `n_unstable` (c,): the number of modes that
      grow.
    - `residual` (c,): the largest |F(x_j) - x_(j+1)|, in units of the states.
    - `hits` (c,): the number of starts that arrived at each. `n_starts`: how many there were. `n_lost`: how many of them
      arrived at no cycle, also not at one of a shorter period.
    - `n_degenerate`: the number of starts that ended at an orbit that returns but is not isolated, to rounding, as on a line
      of cycles or at a bifurcation.
    - `index_sum`: the sum of the signs of det(1 - DF^period) over all points with F^period(x) = x that were found, those of
      shorter periods included. If a map is bounded (from far away every state returns) and all these points are known, the
      sum is 1. `None` if a point is degenerate.
    - `complete`: `True` if it is proved that there are no other cycles, as for many piecewise-linear maps; else `None`.
    - `itinerary` (c, period, m): for piecewise-linear maps which of the m signals are positive at each point; else `None`.
    - `period`: the prime period of each cycle, in steps.

    **Example:**

    ```python
    logistic = ssntk.Map(lambda t, x, u, params: params["r"] * x * (1 - x), {"r": 4.0}, n_state=1)
    cycles = ssntk.find_cycles(logistic, 6)
    print(len(cycles), cycles.period, cycles.x.shape)  # 9 6 (9, 6, 1)
    ```
    """

    x: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    residual: np.ndarray
    n_unstable: np.ndarray
    hits: np.ndarray
    outputs: np.ndarray
    index_sum: int | None
    n_starts: int
    n_lost: int
    period: int
    dt: float
    n_degenerate: int = 0
    complete: bool | None = None
    itinerary: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def _item(self, i: int) -> Cycle:
        return Cycle(
            self.x[i],
            self.eigenvalues[i],
            bool(self.stable[i]),
            float(self.residual[i]),
            int(self.n_unstable[i]),
            int(self.hits[i]),
            self.outputs[i],
        )

    def _headline(self) -> str:
        said = f"{counted(len(self), 'cycle')} of {counted(self.period, 'step')}"
        stable = int(self.stable.sum())
        parts = [said + (f": {stable} stable" if stable else "")]
        parts += ["proved to be all"] if self.complete else []
        parts += [f"index sum {self.index_sum}"] if self.index_sum is not None else []
        parts += [f"{self.n_degenerate} starts ended at cycles that are not isolated"] if self.n_degenerate else []
        parts += [f"{counted(self.n_starts, 'start')}, {self.n_lost} of them lost"] if self.n_starts else []
        return "; ".join(parts)

    def _tables(self) -> list[Table]:
        rows = [
            (i, one.stable, one.n_unstable, one.eigenvalues[0], short(one.residual, 2), one.hits, one.x[0])
            for i, one in enumerate(self)
        ]
        columns = ("#", "stable", "unstable directions", "largest multiplier", "residual", "hits", "first state")
        return [Table.of(columns, rows, 16)]

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        held = {name: (("cycle",), getattr(self, name)) for name in ("stable", "n_unstable", "residual", "hits")}
        deep = {"x": ("cycle", "step", "state"), "outputs": ("cycle", "step", "output"), "eigenvalues": ("cycle", "mode")}
        return held | {name: (dims, getattr(self, name)) for name, dims in deep.items()}

    def _attributes(self) -> dict[str, object]:
        return {"period": self.period, "n_starts": self.n_starts, "n_lost": self.n_lost}


@outside_jit
@one_blas_thread()
def find_cycles(
    map: Any,
    period: Any,
    u: Any = None,
    *,
    n_starts: Any = None,
    starts: Any = None,
    prove: bool = False,
    scale: Any = None,
    periods: Any = None,
    method: str = "auto",
    key: Any = None,
) -> Cycles:
    """Find the cycles of a map that return after exactly `period` steps, stable and unstable, for a constant input.

    Newton's iteration runs on all points of a cycle at once (multiple shooting), which finds cycles that no simulation
    approaches. Most starts are segments of orbits; some are random states, and some are cycles of shorter periods, which
    count for `index_sum` only. The result does not depend on the units of the states or of time.

    **Arguments:**

    - `map`: the map, an [`AbstractMap`][] that does not depend on time.
    - `period`: the number of steps, at least 1. Cycles whose prime period is a divisor of it are left out.
    - `u`: (d,) constant input. Default zero.
    - `n_starts`: exactly this many starts. Default: batches of 1024 until one brings nothing new, at most 32,768.
    - `starts`: (k, n) states at which segments begin, or (k, period, n) segments; the only ones then, and `n_starts` is
      ignored.
    - `prove`: whether to try to prove that there are no others by branch and bound, which needs a piecewise-linear map, and
      seconds to minutes.
    - `scale`: (n,) or a number, positive: typical sizes of the states, in their units. Default: found from the model.
    - `periods`: (n,) the periods of the states that are angles, 0 for the others. A cycle may then turn by whole periods.
      Default: no angles.
    - `method`: `"search"` as above; `"exact"` for piecewise-linear maps, see below; or `"auto"`, exact if the map is
      piecewise linear and neither `starts` nor `periods` are given.
    - `key`: a `jax.random.key` for the starts. Default `jax.random.key(0)`.

    If [`piecewise_linear`][] recognises the map, a cycle is known by its `itinerary`, and nothing is compiled. Up to 20
    relus in all steps together, all itineraries are enumerated, so that the cycles are proved to be all, `complete=True`.
    For more, Newton's iteration starts from itineraries of orbits and from random ones, in up to 16 batches of `n_starts`
    (single and multiple shooting in turn; Eisenmann et al., *SCYFI*, 2023). If cycles fill a line, `"auto"` searches as
    above.

    Raises `ValueError` for arguments that do not fit, and for a map that depends on time. The result may be empty.

    **Example:**

    ```python
    henon = ssntk.Map(lambda t, x, u, p: [1 - p["a"] * x[0] ** 2 + x[1], p["b"] * x[0]], {"a": 1.4, "b": 0.3}, n_state=2)
    print([len(ssntk.find_cycles(henon, k)) for k in (1, 2, 4, 6)])  # [2, 1, 1, 2]
    ```
    """
    check_model(map, "map")
    as_instance(map, "map", AbstractMap)
    k, n, dtype = as_count(period, "period"), map.n_state, dtype_of(map)
    check_autonomous(map, "map")
    u = constant_input(map, u)
    as_choice(method, "method", METHODS)
    count = None if n_starts is None else as_count(n_starts, "n_starts", least=2)
    as_room(8 * k * n * (count or BATCHES), "period" if count is None else "n_starts")
    given = None if starts is None else _segments(starts, k, n, dtype)
    metric, turns = as_metric(scale, n), as_periods(periods, n)
    watch_precision(dtype)
    seed = [int(word) for word in np.asarray(jax.random.key_data(as_key(key))).ravel()]
    plain, must = given is None and turns is None, asked(method, prove)
    if must is not None and not plain:
        raise ValueError(f"{must} with {'periods' if given is None else 'starts'}")
    with np.errstate(all="ignore"):
        exact = exact_cycles(map, k, u, method, prove, count or BATCHES, seed) if plain else None
        if exact is not None:
            return _exactly(map, k, exact)
        search = _Search(
            map,
            u,
            None if metric is None else metric.astype(dtype),
            np.zeros(n, dtype) if turns is None else turns.astype(dtype),
            seed,
            None if given is None else given[:, 0],
            k,
        )
        if given is None:
            search.widely(count)
        else:
            search.exactly(given)
        return search.result()


def _exactly(model: AbstractMap, k: int, exact: Exact) -> Cycles:
    """The result for a piecewise-linear map."""
    fields = cycle_fields(exact, k, model.clock)
    x = fields["x"] = fields["x"].astype(dtype_of(model))
    outputs = readouts(model, x.reshape(-1, model.n_state)).reshape(len(x), k, model.n_output)
    return Cycles(**fields, outputs=outputs, period=k, dt=model.dt)


def _segments(starts: Any, k: int, n: int, dtype: Any) -> np.ndarray:
    """The user's starts: (m, 1, n) if they are states, (m, k, n) if they are segments."""
    given = as_array(starts, "starts")
    if given.ndim == 2:
        given = as_array(given, "starts", ("k", n))[:, None]
    if given.ndim != 3 or given.shape[1] not in (1, k) or given.shape[2] != n or len(given) == 0:
        raise ValueError(f"starts must have shape (k, {n}) or (k, {k}, {n}), k >= 1, got {np.shape(starts)}")
    return np.asarray(given.astype(dtype))


class _Search:
    """The cycles found so far, in units of the states' sizes, those of shorter periods included."""

    def __init__(
        self,
        model: AbstractMap,
        u: Any,
        scale: np.ndarray | None,
        periods: np.ndarray,
        seed: list[int],
        given: np.ndarray | None,
        period: int,
    ):
        base = Search(model, u, scale, periods, seed, given)
        self.model, self.base, self.field, self.random = model, base, base.field, base.random
        self.shooting = Shooting(base.field, model.dt, period, base.periods)
        self.period = period
        shape, dtype = (0, period, base.field.n), base.field.dtype
        self.y, self.error, self.residual = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.jacobian = np.zeros((*shape, base.field.n), dtype)
        self.hits, self.made, self.missed, self.degenerate = np.zeros(0, int), 0, 0, 0

    def region(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States (m, n) that orbits visit, and the middle (n,) and half widths (n,) of the box around them."""
        n, random = self.field.n, self.random
        states = 10 ** random.uniform(-1.5, 0.5, (ORBITS, 1)) * random.standard_normal((ORBITS, n))
        states[0] = 0.0
        states, level = self.base.on_level(states.astype(self.field.dtype))
        kept = [states]
        for _ in range(BURN):
            after = self._wrapped(self.shooting.step(kept[-1], level))
            kept.append(np.where((np.abs(after) < GONE).all(axis=1, keepdims=True), after, np.nan))
        stays = np.isfinite(kept[-1]).all(axis=1)
        # If every orbit diverges, cycles lie where they pass.
        late = np.concatenate([one[stays] for one in kept[BURN // 4 :]]) if stays.any() else states
        middle, box = half_widths(late)
        return late, middle, np.maximum(box, 0.1)

    def _wrapped(self, y: np.ndarray) -> np.ndarray:
        turns = self.base.periods
        return np.where(turns > 0, y - turns * np.floor(y / np.where(turns > 0, turns, 1.0)), y)

    def widely(self, n_starts: int | None) -> None:
        """Search from random starts: `n_starts` of them, or as many as bring something new."""
        late, middle, box = self.region()
        limit, bounded = MOST if n_starts is None else n_starts, None
        while self.made < limit:
            before = len(self.y)
            self._run(*self._fresh(min(BATCHES, limit - self.made), late, middle, box), box)
            # By the cycles that one start alone arrived at, the next batch would bring this many new ones.
            unseen = BATCHES * int((self.hits == 1).sum()) / self.made
            if n_starts is None and len(self.y) == before and self.made > BATCHES and unseen < 1:
                if self.index_sum in (None, 1) or (self.base.periods > 0).any():
                    return
                bounded = self._bounded(box, middle) if bounded is None else bounded
                # Points are missing if the sum is not 1; but what several batches do not find is hard to reach.
                if not bounded or self.made >= 8 * BATCHES:
                    return

    def exactly(self, given: np.ndarray) -> None:
        """Search from the given states (m, 1, n) or segments (m, k, n) only."""
        y = (given / self.field.scale).astype(self.field.dtype)
        level = self.field.level(y[:, 0])
        segments = self.shooting.orbits(y[:, 0], level) if y.shape[1] == 1 else y
        finite = segments[np.isfinite(segments).all(axis=(1, 2))].reshape(-1, self.field.n)
        box = half_widths(finite)[1] if len(finite) else np.ones(self.field.n)
        self._run(segments, level, np.maximum(box, 0.1))

    def _fresh(self, count: int, late: np.ndarray, middle: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments (count, k, n): of orbits, of random states, and of shorter cycles; and their levels (count, c)."""
        random, n, k = self.random, self.field.n, self.period
        states = late[random.integers(0, len(late), count)]
        # Some orbits begin off the attractors.
        off = random.random(count) < OFF
        states[off] = middle + box * random.uniform(-1, 1, (int(off.sum()), n))
        states, level = self.base.on_level(states.astype(self.field.dtype))
        segments = self.shooting.orbits(states, level)
        segments = np.where(np.isfinite(segments) & (np.abs(segments) < GONE), segments, 0.0)
        scattered = random.random(count) < SCATTERED
        loose = middle + box * random.uniform(-1, 1, (int(scattered.sum()), k, n))
        flat, _ = self.base.on_level(loose.reshape(-1, n))
        segments[scattered] = flat.reshape(loose.shape)
        shorter = [q for q in range(1, k) if k % q == 0]
        if shorter:
            for i in np.flatnonzero(random.random(count) < SHORTER):
                q = shorter[int(random.integers(len(shorter)))]
                segments[i] = np.resize(segments[i, :q], (k, n))
        return segments.astype(self.field.dtype), level

    def _run(self, segments: np.ndarray, level: np.ndarray, box: np.ndarray) -> None:
        """Add the cycles to which segments (m, k, n) lead."""
        shot = self.shooting.solve(segments, level, box)
        self.made += len(segments)
        self.missed += int((~shot.good).sum())
        self.degenerate += int(shot.degenerate.sum())
        known = len(self.y)
        y, error, residual, jacobian = (
            np.concatenate([mine, new[shot.good]])
            for mine, new in zip((self.y, self.error, self.residual, self.jacobian), shot[:4], strict=True)
        )
        first, which = self.shooting.distinct(y, error)
        signs = self._signs(jacobian)
        # Solutions of opposite index that cannot be told apart are near a bifurcation.
        self.degenerate += int((signs != signs[first][which]).sum())
        self.y, self.error, self.residual, self.jacobian = (part[first] for part in (y, error, residual, jacobian))
        hits = np.bincount(which[known:], minlength=len(first))
        hits[: len(self.hits)] += self.hits
        self.hits = hits

    def _bounded(self, box: np.ndarray, middle: np.ndarray) -> bool:
        """Whether orbits return that start at 10 and 100 times the box, or whether the model is known to be bounded."""
        if known_bounded(self.model):
            return True
        directions = self.random.standard_normal((32, self.field.n))
        directions /= np.abs(directions).max(axis=1, keepdims=True)
        wide = np.maximum(1.0, box)
        y = np.concatenate([middle + far * wide * directions for far in (10, 100)]).astype(self.field.dtype)
        level = np.zeros((len(y), len(self.field.weights)), self.field.dtype)
        for _ in range(200):
            y = self.shooting.step(y, level)
        return bool(np.isfinite(y).all() and (np.abs(y - middle) <= 5 * wide).all())

    def _rounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The growth exponents (m, n) of a whole round of each cycle, and the rounding error of each."""
        n, m, k = self.field.n, len(self.y), self.period
        held = self.model.dt * self.field.pull * self.field.weights.T @ self.field.weights
        product = np.broadcast_to(np.eye(n, dtype=self.field.dtype), (m, n, n))
        for j in range(k):
            product = (self.jacobian[:, j] + held) @ product
        clock = Steps(k * self.model.dt)
        return judged_exponents((product - np.eye(n)).astype(self.field.dtype) / self.field.dtype.type(clock.dt), clock)

    @property
    def index_sum(self) -> int | None:
        """The sum of the signs of det(1 - DF^k) over all points found, each point of a cycle of prime period q counted."""
        rates, doubts = self._rounds()
        if self.degenerate or (np.abs(rates) <= doubts).any():
            return None
        return int((self._signs(self.jacobian) * self.shooting.prime(self.y, self.error)).sum())

    def _signs(self, jacobian: np.ndarray) -> np.ndarray:
        """The signs of det(1 - DF^k) (m,), from the Jacobians of each step (m, k, n, n)."""
        product = np.broadcast_to(np.eye(self.field.n, dtype=self.field.dtype), jacobian[:, 0].shape)
        for j in range(self.period):
            product = jacobian[:, j] @ product
        return np.sign(np.linalg.slogdet(np.eye(self.field.n) - product)[0])

    def result(self) -> Cycles:
        """The result, in the units of the states."""
        field, k, n = self.field, self.period, self.field.n
        own = self.shooting.prime(self.y, self.error) == k
        rates, doubts = self._rounds()
        clock = Steps(k * self.model.dt)
        grows, decays = (rates.real > doubts).sum(axis=1), (rates.real < -doubts).all(axis=1)
        y = self._turned()
        order = np.lexsort((*y[:, 0].T[::-1], grows, ~decays))
        order = order[own[order]]
        x = (y * field.scale)[order]
        outputs = readouts(self.model, x.reshape(-1, n)).reshape(len(x), k, self.model.n_output)
        return Cycles(
            x=x,
            eigenvalues=clock.reported(rates)[order],
            stable=decays[order],
            residual=np.abs(self.residual * field.scale).max(axis=(1, 2), initial=0.0)[order],
            n_unstable=grows[order],
            hits=self.hits[order],
            outputs=outputs,
            index_sum=self.index_sum,
            n_starts=self.made,
            n_lost=self.missed,
            n_degenerate=self.degenerate,
            period=k,
            dt=self.model.dt,
        )

    def _turned(self) -> np.ndarray:
        """The cycles (m, k, n), each from its least point on, by the first state and then by the next ones."""
        y, turns = self._wrapped(self.y), self.base.periods
        # An angle just below a whole period is zero with a rounding error.
        y = np.where((turns > 0) & (turns - y <= ERRORS * self.error), 0.0, y).astype(y.dtype)
        for i, cycle in enumerate(y):
            y[i] = np.roll(cycle, -int(np.lexsort(cycle.T[::-1])[0]), axis=0)
        return y
